"""TIFF that is more than a picture: pages that are slices, many channels, signed and floating samples; and back.

Which axes a TIFF has is what tifffile finds in it: in the descriptions that ImageJ, OME-TIFF and tifffile write, else in
its pages. The rule:

- Y and X are rows and columns; S (samples of a pixel, interleaved or in planes) and C are channels;
- Z, T, and pages of one size that nothing is said of, are depth: the file is a volume;
- `axes` overrules that: letters of D, H, W, C in the order of the file ("CHW": pages are channels).

Pages of other sizes than the first one (a thumbnail, levels of a pyramid) are left out. A picture, that is one page of 8 or
16 bits that is grey, RGB, CMYK or has a palette, is not for here but for `image_files`.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, UnreadableFile, WallocError, reason
from walloc_ref.files import geometry as geometries
from walloc_ref.files.arrays import ArraySamples, Wanted, as_samples, check_count
from walloc_ref.files.geometry import Geometry

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF: byte order, and 42, or 43 with 64-bit offsets."""

MIN_IS_BLACK, RGB = 1, 2
"""What samples of a stack may mean (PhotometricInterpretation)."""

COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4}
"""Samples of a pixel of a picture: grey, RGB, palette, mask, CMYK; of others three."""

DEFLATE = (8, 32946)
"""Compressions by Deflate: a byte of the file can become 1032, so that they are inflated only as far as they may be."""

COMPRESSIONS = (1, 5, 32773, *DEFLATE)
"""Compressions that are read: none, LZW, PackBits, Deflate."""

CHANNELS, DEPTH = "SC", "ZTQIR"
"""tifffile's letters of axes that are channels, and those that are depth; Q and I are pages that nothing is said of."""

GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s", 42113: "s"}
"""Tags of GeoTIFF, and of GDAL for samples that mean nothing, and the types of their values."""

METADATA_KEY = "walloc_ref"
"""Where our metadata stand in the description that tifffile writes."""

OME_UNITS = {"X": "um", "Y": "um", "Z": "um"}
"""What sizes in OME are in, unless they say otherwise."""

MAX_CLASSIC_BYTES = (1 << 32) - (1 << 25)
"""Samples that need more bytes are written as BigTIFF."""


def read(data: bytes, name: str, wanted: Wanted) -> ArraySamples | None:
    """Samples of a stack; None if the TIFF is a picture.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said once, as an error
    try:
        with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as file:
            _check_chain(data, len(file.pages), name)
            page = file.pages[0]
            if _is_picture(file, page, wanted):
                return None
            series = file.series[0]
            if page.dtype is None or page.photometric not in (MIN_IS_BLACK, RGB):
                found = getattr(page.photometric, "name", page.photometric)
                raise BadSamples(
                    "input", f"{name}, {len(series)} pages of {found}", "samples that are grey, RGB or channels"
                )
            check_count(series.shape, name, wanted)
            _check_pages(series, data, name)
            array, axes = series.asarray(), _axes(series, name, wanted)
            geometry = _geometry(file, page)
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # tifffile raises whatever its parsing runs into
        raise UnreadableFile("input", name, f"a TIFF that can be read ({reason(error)})") from error
    if wanted.shape is None and wanted.axes is None:
        gone = tuple(number for number, letter in enumerate(axes) if letter == "-")
        array, axes = np.squeeze(array, gone), axes.replace("-", "")
    kind, samples = as_samples(array, name, wanted, axes)
    return ArraySamples(kind, samples, geometry)


def _is_picture(file: Any, page: Any, wanted: Wanted) -> bool:
    """Whether a TIFF is a page of grey or colours, with or without alpha, of 8 or 16 bits."""
    if wanted.axes is not None or wanted.shape is not None:
        return False
    if any(METADATA_KEY in found for found in file.shaped_metadata or ()):  # what we wrote with them
        return False
    bits = page.bitspersample
    if not (page.dtype == np.bool_ or (getattr(page.dtype, "kind", "") == "u" and bits in (1, 2, 4, 8, 16))):
        return page.dtype is None  # which image_files refuses
    extra = page.samplesperpixel - COLOURS.get(int(page.photometric), 3)
    if extra != 0 and not (extra == 1 and tuple(map(int, page.extrasamples)) in ((1,), (2,))):  # alpha
        return False
    return (len(file.pages) == 1 and "Z" not in file.series[0].axes) or len(file.series[0]) == 1 < len(file.pages)


def _axes(series: Any, name: str, wanted: Wanted) -> str:
    """Letters of D, H, W, C for a series' axes, and "-" for those of size 1 that are to go.

    Raises
    ------
    BadSamples
        Two axes that both are depth, or both channels.
    """
    letters = {"Y": "H", "X": "W"} | dict.fromkeys(CHANNELS, "C") | dict.fromkeys(DEPTH, "D")
    found = [letters.get(letter, "?") for letter in series.axes]
    for number, (letter, size) in enumerate(zip(series.axes, series.shape)):
        if size == 1 and letter not in "YXZ":
            found[number] = "-"
    kept = [letter for letter in found if letter != "-"]
    if wanted.axes is None and wanted.shape is None and ("?" in kept or len(set(kept)) < len(kept)):
        what = ", ".join(f"{letter} {size}" for letter, size in zip(series.axes, series.shape))
        raise BadSamples(
            "input", f"{name}, axes {what}", "rows, columns, one of depth and one of channels; see --shape, --axes"
        )
    return "".join(found)


def _check_chain(data: bytes, pages: int, name: str) -> None:
    """Refuse directories that lead to one that is not there: tifffile would leave out the pages from there on.

    Format note: see `image_files.check_tiff`; behind its entries a directory has the place of the next one, 0 if none.
    """
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    place, number, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    at, step = 8 if big else 4, struct.calcsize(order + number)
    found = 0
    try:
        while True:
            (at,) = struct.unpack_from(order + place, data, at)
            if not at:
                break
            found += 1
            (entries,) = struct.unpack_from(order + number, data, at)
            at += step + entries * entry
            if found > pages:
                break
    except struct.error as error:
        raise UnreadableFile("input", f"{name}, a page at byte {at} of {len(data)}", "a complete TIFF") from error
    if found != pages:
        raise UnreadableFile("input", f"{name}, {pages} pages that can be read", f"all {found} or more, as it claims")


def _check_pages(series: Any, data: bytes, name: str) -> None:
    """Refuse pages whose samples are not there, or become more than they should: a reader would allocate them."""
    for number, page in enumerate(series.pages):
        if page is None:
            raise UnreadableFile("input", f"{name}, page {number}", "every page of the series")
        page = page.aspage() if hasattr(page, "aspage") else page
        label = f"{name}, page {number}"
        if page.compression not in COMPRESSIONS:
            found = getattr(page.compression, "name", page.compression)
            raise UnreadableFile("input", f"{label}, {found}", "none, LZW, PackBits or Deflate")
        if page.shape != series.keyframe.shape or page.dtype != series.keyframe.dtype:
            raise UnreadableFile("input", f"{label}, {page.dtype} {page.shape}", "pages that are alike")
        segment = page.tilelength * page.tilewidth if page.is_tiled else page.rowsperstrip * page.imagewidth
        segment *= page.dtype.itemsize * (page.samplesperpixel if page.planarconfig == 1 else 1)
        segment = min(segment, math.prod(page.shape) * page.dtype.itemsize) if not page.is_tiled else segment
        there = 0
        for start, length in zip(page.dataoffsets, page.databytecounts):
            if start + length > len(data):
                raise UnreadableFile("input", f"{label}, {length} bytes at {start} of {len(data)}", "a complete TIFF")
            there += length
            if page.compression in DEFLATE:
                _check_deflate(data[start : start + length], segment, label)
        if page.compression == 1 and there < math.prod(page.shape) * page.dtype.itemsize:
            raise UnreadableFile(
                "input", f"{label} has {there} bytes", f"{math.prod(page.shape)} samples, as it claims"
            )
        if page.is_tiled and segment > 2 * len(page.dataoffsets) * math.prod(page.shape) * page.dtype.itemsize + (
            1 << 20
        ):
            raise UnreadableFile("input", f"{label}, tiles of {segment} bytes", "tiles of about the size of the page")


def _check_deflate(packed: bytes, most: int, label: str) -> None:
    """Refuse a segment that becomes more bytes than it may."""
    stream = zlib.decompressobj()
    if len(stream.decompress(packed, most + 1)) > most:
        raise UnreadableFile("input", f"{label}, over {most} bytes in a segment", f"at most {most}, as it claims")


def _geometry(file: Any, page: Any) -> Geometry:
    """What a TIFF says of space: in what we wrote, else in ImageJ's or OME's description, and in GeoTIFF's tags."""
    for found in file.shaped_metadata or ():
        ours = found.get(METADATA_KEY)
        if isinstance(ours, dict):
            return geometries.from_json(ours)
    spacing: tuple[float, ...] | None = None
    units: str | None = None
    imagej = file.imagej_metadata or {}
    if imagej:
        y, x = (_pixel(page.tags.valueof(tag)) for tag in ("YResolution", "XResolution"))
        z = imagej.get("spacing")
        if y and x and isinstance(z, (int, float)) and 0 < z < math.inf:
            spacing, units = (float(z), y, x), str(imagej.get("unit", "")).replace("\\u00B5", "u") or None
    elif file.is_ome and file.ome_metadata:
        spacing, units = _ome(file.ome_metadata)
    kept: dict[str, Any] = {}
    for tag, kind in GEO_TAGS.items():
        value = page.tags.valueof(tag)
        if value is not None:
            kept[str(tag)] = str(value) if kind == "s" else list(np.atleast_1d(value).tolist())
    found = {"source": "tiff", "spacing": spacing, "units": units, "header": {"geotiff": kept}}
    return geometries.from_json(found)


def _pixel(resolution: Any) -> float | None:
    """Size of a pixel by a resolution, numerator and denominator of pixels a unit."""
    try:
        above, below = resolution
        return float(below / above) or None
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _ome(text: str) -> tuple[tuple[float, ...] | None, str | None]:
    """Physical sizes of OME's XML, in its first element of pixels."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]{0,4096}", text)
    sizes, units = [], set()
    for axis, usual in OME_UNITS.items():
        size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]{{1,32}})"', pixels[0]) if pixels else None
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{1,16}})"', pixels[0]) if pixels else None
        try:
            sizes.append(float(size[1]) if size else 0.0)
        except ValueError:
            sizes.append(0.0)
        units.add(unit[1].replace("µ", "u") if unit else usual)
    if min(sizes) <= 0 or max(sizes) == math.inf or len(units) > 1:
        return None, None
    return (sizes[2], sizes[1], sizes[0]), units.pop()


class _Unnamed:
    """A file for tifffile, which takes the name of an open one for a path, though it may be a number."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.read, self.write, self.flush = (
            file.seek,
            file.tell,
            file.read,
            file.write,
            file.flush,
        )

    def fileno(self) -> int:
        """There is none, so that NumPy writes through `write`."""
        raise io.UnsupportedOperation


def write(file: BinaryIO, kind: str, samples: NDArray[Any], geometry: Geometry) -> None:
    """Write an image, (H, W[, C]), or a volume, (D, H, W[, C]), without compression, one page a slice."""
    import tifffile

    axes = ("ZYX" if kind == "volume" else "YX") + ("S" if samples.ndim == (4 if kind == "volume" else 3) else "")
    colours = axes.endswith("S") and samples.shape[-1] == 3 and samples.dtype.kind == "u"
    tags = []
    for tag, form in GEO_TAGS.items():
        value = geometry.header.get("geotiff", {}).get(str(tag))
        if value is not None:
            text = isinstance(value, str)
            tags.append((tag, form, 0 if text else len(value), value, True))
    options: dict[str, Any] = {"planarconfig": "contig"} if axes.endswith("S") else {}
    metadata: dict[str, Any] = {"axes": axes}
    known = geometry.to_json()
    if known:
        metadata[METADATA_KEY] = known
    try:
        tifffile.imwrite(
            _Unnamed(file),
            np.ascontiguousarray(samples),
            bigtiff=samples.nbytes > MAX_CLASSIC_BYTES,
            photometric="rgb" if colours else "minisblack",
            metadata=metadata,
            extratags=tags,
            **options,
        )
    except (MemoryError, OSError):
        raise
    except Exception as error:  # tifffile raises many kinds for tags that it cannot write
        raise UnreadableFile(
            "output", f"TIFF, metadata ({reason(error)})", "what its tags hold; or --no-metadata"
        ) from error
