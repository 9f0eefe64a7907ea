"""Cubes of spectra: ENVI's `.hdr` beside raw samples, and MATLAB's `.mat`.

ENVI says all that is needed: an image of `bands` channels, with their wavelengths. A `.mat` says the shape of its arrays
and not what the axes mean; two axes may be (rows, columns) or (bands, pixels), so that the user has to say the axes.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, UnreadableFile, WallocError, reason
from walloc_ref.files import geometry as geometries
from walloc_ref.files.arrays import MAX_RATIO, ArraySamples, Wanted, as_samples, check_count, choose, read_exactly
from walloc_ref.files.geometry import Geometry

ENVI_MAGIC = b"ENVI"
"""How a header of ENVI begins."""

MAX_ENVI_HEADER = 1 << 22
"""Longest header that is read: some thousand bands with names, centres and widths take less."""

ENVI_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
"""Types of ENVI's `data type`."""

ENVI_CODES = {"uint8": 1, "int16": 2, "float32": 4, "uint16": 12}
"""Those of samples."""

INTERLEAVES = {"bsq": "CHW", "bil": "HCW", "bip": "HWC"}
"""Order of the axes in the file."""

RAW_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin")
"""What the name of the raw samples ends in, where the header's ends in `.hdr`; small or capital."""

ENVI_RAW_SUFFIX = ".img"
"""What it ends in where we write it."""

STRUCTURE = ("samples", "lines", "bands", "header offset", "data type", "interleave", "byte order", "file type")
"""Fields that say how samples are stored."""

MEANINGS = ("wavelength", "fwhm", "wavelength units", "band names", "data ignore value")
"""Fields that `Geometry` has a place for."""

PLACES = ("map info", "coordinate system string", "x start", "y start")
"""Fields that hold only for the whole image."""

MAT_MAGIC, HDF5_MAGIC = b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n"
"""How a `.mat` of versions 5 to 7 begins, and one of version 7.3, at 0 or at 512."""

MAT_CLASSES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "single", "double")
"""Classes of arrays of numbers."""

MAT_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number of each type that stands in a `.mat`."""

MAT_MATRIX, MAT_COMPRESSED, MAT_HEAD = 14, 15, 1 << 16
"""Types of elements, and bytes of an element in which its sizes and its name must lie."""

MAX_MAT_BYTES = (1 << 31) - 1
"""Most bytes of an array in a `.mat` of version 7."""


def read_envi_header(data: bytes, name: str) -> dict[str, str]:
    """Fields of a header, names in small letters, lists as text between their braces.

    Format note: "ENVI", then lines `name = value`; a value that opens a brace goes on to the one that closes it; lines that
    begin with a semicolon say nothing.

    Raises
    ------
    UnreadableFile
    """
    if len(data) > MAX_ENVI_HEADER:
        raise UnreadableFile("input", f"{name}, {len(data)} bytes or more", f"a header of at most {MAX_ENVI_HEADER}")
    lines = iter(data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    if next(lines).strip() != "ENVI":
        raise UnreadableFile("input", name, "a header of ENVI, whose first line says so")
    found: dict[str, str] = {}
    for line in lines:
        if line.lstrip().startswith(";") or "=" not in line:
            continue
        key, _, value = line.partition("=")
        key, value = " ".join(key.lower().split()), value.strip()
        if value.startswith("{"):
            parts = [value]
            while "}" not in parts[-1]:
                following = next(lines, None)
                if following is None:
                    raise UnreadableFile("input", f"{name}, {key}", "a value whose brace is closed")
                parts.append(following.strip())
            value = " ".join(parts)
            value = value[1 : value.rindex("}")].strip()
        if key in found:
            raise UnreadableFile("input", f"{name}, {key}", "every field once")
        found[key] = value
    return found


def _whole(header: Mapping[str, str], key: str, name: str, low: int, high: int, default: int | None = None) -> int:
    """A field that is a whole number."""
    text = header.get(key)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 19 and low <= int(text) <= high):
        raise UnreadableFile("input", f"{name}, {key} = {text}", f"a whole number from {low} to {high}")
    return int(text)


def _numbers(header: Mapping[str, str], key: str, name: str, count: int) -> tuple[float, ...] | None:
    """A field that lists a number for every band."""
    if not header.get(key):
        return None
    try:
        found = tuple(float(part) for part in header[key].split(",") if part.strip())
    except ValueError:
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        raise UnreadableFile("input", f"{name}, {key}, {len(found)} numbers", f"{count}, one for each band")
    return found


def envi_raw_names(name: str) -> list[str]:
    """Names that the raw samples beside a header may have."""
    stem = name[:-4] if name.lower().endswith(".hdr") else name
    return [
        stem + suffix for raw in RAW_SUFFIXES for suffix in dict.fromkeys((raw, raw.upper())) if stem + suffix != name
    ]


def read_envi(data: bytes, raw: BinaryIO, name: str, raw_name: str, wanted: Wanted) -> ArraySamples:
    """An image of ENVI.

    Parameters
    ----------
    data : bytes
        The header.
    raw : binary file
        The samples.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    header = read_envi_header(data, name)
    most = (1 << 40) - 1
    width, height, bands = (_whole(header, key, name, 1, most) for key in ("samples", "lines", "bands"))
    offset = _whole(header, "header offset", name, 0, most, 0)
    code = _whole(header, "data type", name, 1, 15)
    if code not in ENVI_DTYPES:
        raise UnreadableFile("input", f"{name}, data type = {code}", f"one of {', '.join(map(str, ENVI_DTYPES))}")
    big = _whole(header, "byte order", name, 0, 1, 0) == 1
    interleave = header.get("interleave", "bsq").lower()
    if interleave not in INTERLEAVES:
        raise UnreadableFile("input", f"{name}, interleave = {interleave}", "bsq, bil or bip")
    check_count((height, width, bands), name, wanted)
    dtype = np.dtype(ENVI_DTYPES[code]).newbyteorder(">" if big else "<")
    wants = height * width * bands * dtype.itemsize
    there = raw.seek(0, io.SEEK_END) - offset
    if there != wants:
        raise UnreadableFile("input", f"{raw_name} has {there} bytes of samples", f"{wants}, as {name} claims")
    raw.seek(offset)
    sizes = {"H": height, "W": width, "C": bands}
    axes = INTERLEAVES[interleave]
    array = np.frombuffer(read_exactly(raw, wants, raw_name), dtype).reshape([sizes[axis] for axis in axes])
    kind, samples = as_samples(array, name, wanted, axes)
    names = tuple(part.strip() for part in header["band names"].split(",")) if header.get("band names") else None
    if names is not None and len(names) != bands:
        raise UnreadableFile("input", f"{name}, band names, {len(names)}", f"{bands}, one for each band")
    ignore = header.get("data ignore value")
    kept = {key: value for key, value in header.items() if key not in STRUCTURE + MEANINGS and value}
    kept["interleave"] = interleave
    try:
        known = geometries.from_json(
            {
                "source": "envi",
                "wavelengths": _numbers(header, "wavelength", name, bands),
                "bandwidths": _numbers(header, "fwhm", name, bands),
                "wavelength_units": header.get("wavelength units"),
                "bands": names,
                "ignore": None if ignore is None else float(ignore),
                "header": {"envi": kept},
            }
        )
    except ValueError as error:
        raise UnreadableFile("input", name, f"a header whose fields can be kept ({reason(error)})") from error
    return ArraySamples(kind, samples, known)


def write_envi(raw: BinaryIO, samples: NDArray[Any], geometry: Geometry) -> bytes:
    """Write the samples of an image, (H, W[, C]), and return their header.

    The order of axes is that of the file that they came from, if it was ENVI's; bytes are little-endian.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, bands = samples.shape
    kept = dict(geometry.header.get("envi", {}))
    interleave = str(kept.pop("interleave", "bsq"))
    interleave = interleave if interleave in INTERLEAVES else "bsq"
    turned = np.transpose(samples, ["HWC".index(axis) for axis in INTERLEAVES[interleave]])
    for part in turned:
        raw.write(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).tobytes())
    description = kept.pop("description", None)
    fields: list[tuple[str, Any]] = [
        ("description", description),
        ("samples", width),
        ("lines", height),
        ("bands", bands),
        ("header offset", 0),
        ("file type", "ENVI Standard"),
        ("data type", ENVI_CODES[samples.dtype.name]),
        ("interleave", interleave),
        ("byte order", 0),
        ("wavelength units", geometry.wavelength_units),
        ("wavelength", geometry.wavelengths),
        ("fwhm", geometry.bandwidths),
        ("band names", geometry.bands),
        ("data ignore value", geometry.ignore),
    ]
    lines = ["ENVI"]
    for key, value in fields + sorted(kept.items()):
        if isinstance(value, (list, tuple)):
            if len(value) != bands and key in MEANINGS:  # of other channels than these
                continue
            value = "{" + ", ".join(_envi_text(part) for part in value) + "}"
        elif (isinstance(value, str) and re.search(r"[,{}\n]|^$", value)) or (
            key == "description" and value is not None
        ):
            value = "{" + _envi_text(value, list_of_many=True) + "}"
        if value is not None and re.fullmatch(r"[a-z][a-z0-9 _.\-]*", key):
            lines.append(f"{key} = {value if isinstance(value, str) else _envi_text(value)}")
    return ("\n".join(lines) + "\n").encode()


def _envi_text(value: Any, *, list_of_many: bool = False) -> str:
    """A value that does not end its line, its list or, if it is one of many, its place among them."""
    if isinstance(value, float):
        return repr(value)
    return re.sub(r"[{}\r\n]" if list_of_many else r"[{},\r\n]", " ", str(value))


def read_mat(data: bytes, name: str, wanted: Wanted) -> ArraySamples:
    """An array of numbers of a `.mat` file of versions 4 to 7, in the type in which it is stored.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    import scipy.io

    if HDF5_MAGIC in (data[:8], data[512:520]):
        raise UnreadableFile("input", f"{name}, version 7.3", "versions 4 to 7; save it with -v7, or as .npy")
    try:
        if data.startswith(MAT_MAGIC):
            found = _mat_arrays(data, name)
        else:
            found = {key: shape for key, shape, kind in scipy.io.whosmat(io.BytesIO(data)) if kind in MAT_CLASSES}
        choice = choose(list(found), name, wanted)
        check_count(found[choice], name, wanted)
        array = scipy.io.loadmat(io.BytesIO(data), variable_names=[choice])[choice]
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # scipy raises whatever its parsing runs into
        raise UnreadableFile("input", name, f"a complete .mat file ({reason(error)})") from error
    label = f"{name}, {choice}"
    if array.ndim == 2 and wanted.axes is None:
        limit = "--axes HW if these are rows and columns; for bands of pixels --shape and --axes"
        raise BadSamples("input", f"{label}, two axes {array.shape} of unknown meaning", limit)
    kind, samples = as_samples(array, label, wanted)
    return ArraySamples(kind, samples, Geometry(source="mat"))


def _mat_arrays(data: bytes, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of numbers in a `.mat` of versions 5 to 7, their sizes compared with the bytes.

    Format note: 128 bytes of header, the last two "IM" if it is little-endian; then elements: type, length, bytes. An
    element is an array, or one that is compressed. An array is made of elements again: flags, sizes, name, real parts.
    An element of at most four bytes may have its length in the upper half of its type, and no more than eight bytes in all.
    """
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, tuple[int, ...]] = {}
    at = 128
    while at < len(data):
        kind, length, body = _mat_element(data, at, order)
        if at + 8 + length > len(data):
            raise UnreadableFile("input", f"{name} has {len(data) - at - 8} bytes at {at}", f"{length}, as it claims")
        at += 8 + length
        room = length
        if kind == MAT_COMPRESSED:
            packed = zlib.decompressobj()
            head = packed.decompress(data[body : body + length], MAT_HEAD)
            kind, room, body = _mat_element(head, 0, order)
            if room > MAX_RATIO * length:
                raise UnreadableFile("input", f"{name}, {length} bytes for {room}", f"at most {MAX_RATIO} for one")
        else:
            head = data[body : body + min(length, MAT_HEAD)]
            body = 0
        if kind != MAT_MATRIX:
            continue
        array = _mat_array(head, body, order, room, name)
        if array is not None:
            found[array[0]] = array[1]
    return found


def _mat_element(data: bytes, at: int, order: str) -> tuple[int, int, int]:
    """Type, length and start of an element."""
    kind, length = struct.unpack_from(order + "II", data, at)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, at + 4
    return kind, length, at + 8


def _mat_array(head: bytes, at: int, order: str, room: int, name: str) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape of the array whose elements start here; None for one of anything but numbers."""
    start = at
    (flags,) = struct.unpack_from(order + "I", head, at + 8)
    _, length, at = _mat_element(head, at + 16, order)
    shape = struct.unpack_from(f"{order}{min(length // 4, 32)}i", head, at)
    _, length, at = _mat_element(head, at + -(-length // 8) * 8 if at % 8 == 0 else at + 4, order)
    label = head[at : at + length].decode("utf-8", "replace")
    number = (flags & 0xFF) - 6
    order_of_classes = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    if not 0 <= number < len(order_of_classes) or flags & 0x0200:  # logical
        return None
    kind, length, at = _mat_element(head, at + -(-length // 8) * 8 if at % 8 == 0 else at + 4, order)
    wants = math.prod(shape) * MAT_TYPE_BYTES.get(kind, 1)
    if min(shape, default=-1) < 0 or length != wants or at - start + length > room:
        raise UnreadableFile("input", f"{name}, {label} of {shape} in {length} bytes", f"{wants} bytes that are there")
    return label, tuple(shape)


def write_mat(file: BinaryIO, samples: NDArray[Any], metadata: Mapping[str, Any]) -> None:
    """Samples as `samples`, and the JSON text `metadata`, of a `.mat` of version 7."""
    import scipy.io

    scipy.io.savemat(file, {"samples": samples, "metadata": json.dumps(metadata)}, do_compression=True)
