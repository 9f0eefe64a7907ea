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
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, UnreadableFile, reason
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

MAT_MAGICS, HDF5_MAGIC = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"), b"\x89HDF\r\n\x1a\n"
"""How a `.mat` of versions 5 to 7 begins, and one of version 7.3, which is HDF5 from byte 0 or 512 on."""

MAT_NUMBERS, MAT_LOGICAL, MAT_COMPLEX = range(6, 16), 0x200, 0x800
"""Classes of arrays of numbers, double to uint64, and flags beside them."""

MAT_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of the numbers that stand in a `.mat`."""

MAT_MATRIX, MAT_COMPRESSED, MAT_HEAD, MAX_MAT_AXES = 14, 15, 1 << 16, 32
"""Types of elements, bytes of an element in which its sizes and its name must lie, and most axes."""

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
    """An array of numbers of a `.mat` of versions 5 to 7, in the type in which its numbers are stored.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    if HDF5_MAGIC in (data[:8], data[512:520]):
        raise UnreadableFile("input", f"{name}, version 7.3", "versions 5 to 7; save it with -v7, or as .npy")
    try:
        found = _mat_arrays(data, name)
        choice = choose(list(found), name, wanted)
        check_count(found[choice].shape, name, wanted)
        array = _mat_values(data, found[choice], name)
    except (struct.error, zlib.error) as error:
        raise UnreadableFile("input", name, f"a complete .mat file ({reason(error)})") from error
    label = f"{name}, {choice}"
    if array.ndim == 2 and wanted.axes is None:
        limit = "--axes HW if these are rows and columns; for bands of pixels --shape and --axes"
        raise BadSamples("input", f"{label}, two axes {array.shape} of unknown meaning", limit)
    kind, samples = as_samples(array, label, wanted)
    return ArraySamples(kind, samples, Geometry(source="mat"))


@dataclass(frozen=True)
class _MatArray:
    """Where an array is: its element's body in the file, packed or not, and in there its numbers."""

    start: int
    length: int
    packed: bool
    shape: tuple[int, ...]
    dtype: str
    numbers: int


def _mat_arrays(data: bytes, name: str) -> dict[str, _MatArray]:
    """The arrays of numbers in a `.mat`, their sizes compared with the bytes that there are.

    SciPy reads such files, too, but ends the process on some damaged ones.

    Format note: 128 bytes of header, the last two "IM" if it is little-endian; then elements: type, length, bytes. An
    element is an array, or one that is compressed. An array is made of elements again: flags, sizes, name, real parts.
    An element of at most four bytes may have its length in the upper half of its type, and no more than eight bytes in all.
    """
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, _MatArray] = {}
    at = 128
    while at < len(data):
        kind, length, start = _mat_element(data, at, order)
        if start + length > len(data) or start != at + 8:
            raise UnreadableFile("input", f"{name} has {len(data) - start} bytes at {start}", f"{length}, as it claims")
        at = start + length
        packed, room, body = kind == MAT_COMPRESSED, length, 0
        if packed:
            head = zlib.decompressobj().decompress(data[start:at], MAT_HEAD)
            kind, room, body = _mat_element(head, 0, order)
            if room > MAX_RATIO * length:
                raise UnreadableFile("input", f"{name}, {length} bytes for {room}", f"at most {MAX_RATIO} for one")
        else:
            head = data[start : start + min(length, MAT_HEAD)]
        if kind == MAT_MATRIX:
            array = _mat_array(head, body, order, room, name)
            if array is not None:
                label, shape, dtype, numbers = array
                found[label] = _MatArray(start, length, packed, shape, dtype, numbers)
    return found


def _mat_element(data: bytes, at: int, order: str) -> tuple[int, int, int]:
    """Type, length and start of an element."""
    kind, length = struct.unpack_from(order + "II", data, at)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, at + 4
    return kind, length, at + 8


def _mat_array(head: bytes, at: int, order: str, room: int, name: str) -> tuple[str, tuple[int, ...], str, int] | None:
    """Name, shape, type and place of the array whose elements start here; None for one of anything but numbers."""
    start = at
    (flags,) = struct.unpack_from(order + "I", head, at + 8)
    _, length, at = _mat_element(head, at + 16, order)
    shape = struct.unpack_from(f"{order}{min(length // 4, MAX_MAT_AXES)}i", head, at)
    _, length, at = _mat_element(head, _mat_next(at, length), order)
    label = head[at : at + length].decode("utf-8", "replace")
    if flags & 0xFF not in MAT_NUMBERS or flags & MAT_LOGICAL:
        return None
    kind, length, at = _mat_element(head, _mat_next(at, length), order)
    if kind not in MAT_DTYPES or min(shape, default=-1) < 0:
        raise UnreadableFile(
            "input", f"{name}, {label} of {shape} in type {kind}", "sizes from 0 on, and a type of numbers"
        )
    dtype = np.dtype(order + MAT_DTYPES[kind])
    wants = math.prod(shape) * dtype.itemsize
    if length != wants or at - start + length > room:
        raise UnreadableFile("input", f"{name}, {label} of {shape} in {length} bytes", f"{wants} bytes that are there")
    return label, tuple(shape), "complex" if flags & MAT_COMPLEX else dtype.str, at


def _mat_next(at: int, length: int) -> int:
    """Where the next element starts: each is filled up to eight bytes, its type and length included."""
    return -(-(at + length) // 8) * 8


def _mat_values(data: bytes, array: _MatArray, name: str) -> NDArray[Any]:
    """The numbers of an array; the first axis counts fastest."""
    if array.dtype == "complex":
        raise BadSamples("input", f"{name}, complex numbers", "u8, u16, s16 or f32 samples")
    body: Any = memoryview(data)[array.start : array.start + array.length]
    count = math.prod(array.shape)
    end = array.numbers + count * np.dtype(array.dtype).itemsize
    if array.packed:
        body = zlib.decompressobj().decompress(body, end)
    if len(body) < end:
        raise UnreadableFile("input", f"{name} ends after {len(body)} bytes of an array", f"{end}, as it claims")
    return np.frombuffer(body, array.dtype, count, array.numbers).reshape(array.shape, order="F")


def write_mat(file: BinaryIO, samples: NDArray[Any], metadata: Mapping[str, Any]) -> None:
    """Samples as `samples`, and the JSON text `metadata`, of a `.mat` of version 7."""
    import scipy.io

    scipy.io.savemat(file, {"samples": samples, "metadata": json.dumps(metadata)}, do_compression=True)
