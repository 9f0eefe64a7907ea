"""Media files: bytes of PNG, JPEG, WebP, TIFF and BMP to samples, and back. Nothing here is part of the codec.

Images come as a viewer would show them: EXIF orientation applied, palettes resolved, CMYK and YCbCr converted to RGB, the
first frame of several. Sixteen bits survive in PNG and TIFF. An image with transparent pixels has no meaning for the
codec until it is put on a background, so it is refused unless one is named.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""File names of images that can be written."""

SIXTEEN_BIT_SUFFIXES = (".png", ".tif", ".tiff")
"""Those that hold 16-bit images."""

LOSSY_QUALITY = 95
"""Quality at which a decoded image is written as JPEG; WebP is written losslessly."""

TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value of each type that a TIFF knows."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 0x0112
"""EXIF tag of the orientation, which is applied and must not be applied again."""


@dataclass(frozen=True, eq=False)
class ImageSamples:
    """Samples uint8 or uint16 (H, W) or (H, W, 3), and the metadata that the file carried."""

    samples: NDArray
    icc_profile: bytes | None = None
    exif: bytes | None = None


def read_image(data: bytes, name: str, *, background: str | None = None, max_samples: int = 1 << 30) -> ImageSamples:
    """Decode an image file.

    Parameters
    ----------
    data : bytes
    name : str
        For messages.
    background : str, optional
        Colour that transparent pixels are put on: a name ("white") or "#rrggbb".
    max_samples : int
        Largest number of samples that is accepted; checked before any pixel is decoded.

    Raises
    ------
    UnreadableFile
        Not an image, or a damaged one.
    BadSamples
        An image with transparent pixels and no background, or a sample type that is neither 8 nor 16 bit.
    LimitExceeded
        More samples than allowed.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the limit below is ours
    if data.startswith(b"RIFF"):
        _check_webp(data, name, max_samples)
    if data.startswith(TIFF_MAGICS):
        _check_tiff(data, name)
        deep = _read_deep_tiff(data, name, max_samples)
        if deep is not None:
            return ImageSamples(_on_background(deep, background, name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            with Image.open(io.BytesIO(data)) as image:
                _check_size(image.size, name, max_samples)
                if image.format == "PNG" and data[24] == 16:  # IHDR: signature 8, length and type 8, sizes 8, depth
                    samples = _read_deep_png(data, name)
                    return ImageSamples(
                        _on_background(samples, background, name), image.info.get("icc_profile"), _exif(image)
                    )
                samples = _read_pixels(image, name)
                return ImageSamples(
                    _on_background(samples, background, name), image.info.get("icc_profile"), _exif(image)
                )
    except UnidentifiedImageError as error:
        raise UnreadableFile("input", name, "an image (PNG, JPEG, WebP, TIFF, BMP) or an audio file") from error
    except WallocError:
        raise
    except Exception as error:  # Pillow raises whatever its parsing runs into
        raise UnreadableFile("input", name, f"a complete image ({_reason(error)})") from error


def write_image(image: ImageSamples, name: str) -> bytes:
    """Encode an image as the kind of file that `name` ends in.

    Raises
    ------
    UnreadableFile
        Not a kind of file that is written, or one that does not hold 16 bits.
    """
    import imageio.v3 as iio

    check_image_name(name, image.samples.dtype)
    suffix, samples = PurePath(name).suffix.lower(), image.samples
    if samples.dtype == np.uint16:
        if suffix == ".png":
            return _write_deep_png(samples)
        extra = [(34675, 7, len(image.icc_profile), image.icc_profile, True)] if image.icc_profile else []
        return iio.imwrite("<bytes>", samples, extension=".tiff", plugin="tifffile", extratags=extra)
    options: dict[str, Any] = {}
    if suffix != ".bmp":
        options |= {key: value for key in ("icc_profile", "exif") if (value := getattr(image, key)) is not None}
    if suffix in (".jpg", ".jpeg"):
        options |= {"quality": LOSSY_QUALITY, "subsampling": 0}
    if suffix == ".webp":
        options |= {"lossless": True}
    return iio.imwrite("<bytes>", samples, extension=suffix, plugin="pillow", **options)


def check_image_name(name: str, dtype: np.dtype) -> None:
    """Refuse early a file name that cannot take samples of this type."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(IMAGE_SUFFIXES))
    if dtype == np.uint16 and suffix not in SIXTEEN_BIT_SUFFIXES:
        raise UnreadableFile("output", name, f"{', '.join(SIXTEEN_BIT_SUFFIXES)} for 16-bit samples")


def _reason(error: Exception) -> str:
    """The first line of an error from elsewhere, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_size(size: tuple[int, int], name: str, max_samples: int) -> None:
    """Refuse an image that declares too many samples."""
    if 3 * size[0] * size[1] > max_samples:
        raise LimitExceeded(
            "input", f"{name}, {size[0]}x{size[1]}", f"at most {max_samples} samples; see --max-samples"
        )


def _check_webp(data: bytes, name: str, max_samples: int) -> None:
    """Refuse a WebP that declares too many samples, before it is opened: that takes memory for all of them.

    Format note: "RIFF", a length, "WEBP", and then the first chunk: VP8X has sizes in 24 bits, VP8L and "VP8 " in 14.
    """
    tag, head = data[12:16], data[20:30]
    if tag == b"VP8X":
        _check_size(
            (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")), name, max_samples
        )
    elif tag == b"VP8L":
        sizes = int.from_bytes(head[1:5], "little")
        _check_size((1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF)), name, max_samples)
    elif tag == b"VP8 ":
        sizes = int.from_bytes(head[6:10], "little")
        _check_size((sizes & 0x3FFF, sizes >> 16 & 0x3FFF), name, max_samples)


def _check_tiff(data: bytes, name: str) -> None:
    """Refuse a TIFF whose first directory declares values that the file is too short for; readers allocate them.

    Format note: byte order, 42 (or 43, with 64-bit offsets), the place of a directory; its number of entries; each has
    tag, type, count and the values, or their place.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at, width, form = (at + 8, 20, order + "HHQ") if big else (at + 2, 12, order + "HHI")
        if entries * width > len(data):
            raise UnreadableFile("input", name, f"a complete TIFF; {entries} entries in {len(data)} bytes")
        for entry in range(entries):
            tag, kind, count = struct.unpack_from(form, data, at + entry * width)
            if count * TIFF_TYPE_BYTES.get(kind, 1) > len(data):
                raise UnreadableFile(
                    "input", name, f"a complete TIFF; tag {tag} has {count} values in {len(data)} bytes"
                )
    except struct.error as error:
        raise UnreadableFile("input", name, "a complete TIFF") from error


def _read_pixels(image: Any, name: str) -> NDArray:
    """Pixels of an open 8-bit image as (H, W) or (H, W, 2 … 4), upright."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    mode = upright.mode
    if mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return np.asarray(upright).astype(np.uint16)
    if mode in ("I", "F"):
        raise BadSamples("input", f"{name}, samples of 32 bits", "8 or 16 bits a sample")
    has_alpha = "transparency" in upright.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = mode in ("1", "L", "LA", "La")
    wanted = ("LA" if has_alpha else "L") if grey else ("RGBA" if has_alpha else "RGB")
    if mode == "La":
        upright = upright.convert("LA")
    return np.asarray(upright.convert(wanted))


def _read_deep_png(data: bytes, name: str) -> NDArray:
    """A 16-bit PNG as uint16 (H, W) or (H, W, 2 … 4)."""
    import png

    try:
        width, height, rows, header = png.Reader(bytes=data).read()
        flat = np.concatenate([np.frombuffer(row, dtype=np.uint16) for row in rows])
    except Exception as error:  # and so does pypng
        raise UnreadableFile("input", name, f"a complete PNG ({_reason(error)})") from error
    samples = flat.reshape(height, width, header["planes"])
    return samples[:, :, 0] if header["planes"] == 1 else samples


def _write_deep_png(samples: NDArray) -> bytes:
    """uint16 (H, W) or (H, W, 3) as a PNG."""
    import png

    out = io.BytesIO()
    writer = png.Writer(samples.shape[1], samples.shape[0], greyscale=samples.ndim == 2, bitdepth=16)
    writer.write(out, samples.reshape(samples.shape[0], -1))
    return out.getvalue()


def _read_deep_tiff(data: bytes, name: str, max_samples: int) -> NDArray | None:
    """A TIFF of 16-bit samples as uint16 (H, W) or (H, W, 2 … 4), or None for others, which Pillow reads."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said once, as an error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            if page.dtype != np.uint16:
                return None
            planar = len(page.shape) == 3 and page.planarconfig == 2
            height, width = page.shape[1:] if planar else page.shape[:2]
            _check_size((width, height), name, max_samples)
            for start, length in zip(page.dataoffsets, page.databytecounts):  # it would allocate what they declare
                if start + length > len(data):
                    raise UnreadableFile("input", name, f"a complete TIFF; {length} bytes at {start} of {len(data)}")
            samples = page.asarray()
            orientation = page.tags.valueof(ORIENTATION_TAG, 1)
    except WallocError:
        raise
    except Exception as error:  # and so does tifffile
        raise UnreadableFile("input", name, f"a TIFF that can be read ({_reason(error)})") from error
    if planar:
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim not in (2, 3) or (samples.ndim == 3 and samples.shape[2] not in (3, 4)):
        raise BadSamples("input", f"{name}, shape {samples.shape}", "a grey or RGB image")
    return _upright(samples, orientation)


def _upright(samples: NDArray, orientation: int) -> NDArray:
    """Apply an EXIF orientation (1 to 8) to (H, W[, C])."""
    if orientation in (5, 6, 7, 8):
        samples = np.swapaxes(samples, 0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def _on_background(samples: NDArray, background: str | None, name: str) -> NDArray:
    """Resolve an alpha channel, (H, W, 2) or (H, W, 4): drop an opaque one, else blend with the background."""
    from PIL import ImageColor

    if samples.ndim == 2 or samples.shape[2] == 3:
        return samples
    full = np.iinfo(samples.dtype).max
    colour, alpha = samples[:, :, :-1], samples[:, :, -1:]
    if (alpha != full).any():
        if background is None:
            raise BadSamples("input", f"{name}, transparent pixels", "an opaque image; or name a --background colour")
        try:
            behind = np.array(ImageColor.getrgb(background)[:3], dtype=np.float64) * (full / 255)
        except ValueError as error:
            raise BadSamples("background", background, "a colour name or #rrggbb") from error
        if colour.shape[2] == 1 and len(set(behind)) > 1:
            colour = np.repeat(colour, 3, axis=2)
        weight = alpha / full
        blended = colour * weight + behind[: colour.shape[2]] * (1 - weight)
        colour = np.rint(blended).astype(samples.dtype)
    return np.ascontiguousarray(colour[:, :, 0] if colour.shape[2] == 1 else colour)


def _exif(image: Any) -> bytes | None:
    """The EXIF block without the orientation, which has been applied; None where there is none."""
    exif = image.getexif()
    exif.pop(ORIENTATION_TAG, None)
    return exif.tobytes() if len(exif) else None
