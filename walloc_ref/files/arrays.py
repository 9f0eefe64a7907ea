"""Arrays as samples: what their types, axes and values may be; and `.npy` and `.npz`, which hold arrays.

No value is ever changed. A type that the codec does not take is refused, unless a `sample_format` is asked for that holds
every value as it is. Nothing is unpickled: arrays of objects are refused.

What an axis means cannot be seen from an array. Two axes are rows and columns; three or four are what the model is for,
(H, W, C) of an image and (D, H, W[, C]) of a volume, as in Python. For anything else the user says the `axes`: the letters
D (depth), H (rows), W (columns), C (channels) in the order of the file; and before, a `shape`, where axes are run together.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError, reason
from walloc_ref.files import geometry as geometries
from walloc_ref.files.geometry import Geometry

DTYPES = {"u8": "uint8", "u16": "uint16", "s16": "int16", "f32": "float32"}
"""Types of samples of images and volumes."""

FORMATS = {dtype: name for name, dtype in DTYPES.items()}
"""Names of these types."""

AXES = {"image": ("HW", "HWC"), "volume": ("DHW", "DHWC")}
"""Axes of samples of each kind."""

MAX_RATIO = 1032
"""Bytes that a byte of Deflate can at most stand for."""

MAX_NPY_HEADER, MAX_MEMBERS = 1 << 14, 1 << 10
"""Longest header of an array, and most arrays of an `.npz`."""

BLOCK = 1 << 22
"""Values or bytes that are worked on at a time."""

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\3\4"


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """Samples of an image, (H, W[, C]), or a volume, (D, H, W[, C]), of a type of `DTYPES`, and what belongs to them."""

    kind: str
    samples: NDArray[Any]
    geometry: Geometry = field(default_factory=Geometry)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user says about an input that does not say it.

    Attributes
    ----------
    kind : str, optional
        "image" or "volume": what the model is for.
    axes : str, optional
        Letters of D, H, W, C, in the order of the file.
    shape : tuple of int, optional
        That axes which are run together have, the last one counting fastest.
    variable : str, optional
        Name of the array in a file of several.
    sample_format : str, optional
        A name of `DTYPES` to convert to, if that changes no value.
    max_samples : int
        Largest number of samples that is accepted.
    """

    kind: str | None = None
    axes: str | None = None
    shape: tuple[int, ...] | None = None
    variable: str | None = None
    sample_format: str | None = None
    max_samples: int = 1 << 30


def as_samples(array: NDArray[Any], name: str, wanted: Wanted, axes: str | None = None) -> tuple[str, NDArray[Any]]:
    """Kind and samples of an array of a file.

    Parameters
    ----------
    array : array
        Of any type and byte order.
    name : str
        For messages.
    wanted : Wanted
    axes : str, optional
        Letters of its axes, where the file says them.

    Raises
    ------
    BadSamples
        A type or values that are not taken, or axes that are not known.
    """
    if wanted.shape is not None:
        if math.prod(wanted.shape) != array.size:
            product = "x".join(map(str, wanted.shape))
            raise BadSamples("--shape", product, f"as many values as {name} has, {array.size} in {array.shape}")
        array, axes = np.reshape(array, wanted.shape), None
    axes = (wanted.axes or axes or _usual_axes(array.shape, name, wanted)).upper()
    if (
        sorted(axes) not in (["H", "W"], ["C", "H", "W"], ["D", "H", "W"], ["C", "D", "H", "W"])
        or len(axes) != array.ndim
    ):
        limit = f"a letter of D, H, W, C for each of the {array.ndim} axes of {name}, {array.shape}, H and W among them"
        raise BadSamples("--axes", axes, limit)
    if not array.size:
        raise BadSamples("input", f"{name}, shape {array.shape}", "at least one value")
    kind = "volume" if "D" in axes else "image"
    order = [axes.index(letter) for letter in "DHWC" if letter in axes]
    array = np.transpose(array, order)
    if "C" in axes and array.shape[-1] == 1:
        array = array[..., 0]
    return kind, _converted(array, name, wanted.sample_format)


def _usual_axes(shape: tuple[int, ...], name: str, wanted: Wanted) -> str:
    """Axes of an array that does not say them."""
    if len(shape) == 2:
        return "HW"
    for axes in AXES.get(wanted.kind or "", ()):
        if len(axes) == len(shape):
            return axes
    if len(shape) == 4 and wanted.kind is None:
        return "DHWC"
    limit = "--axes, a letter of D, H, W, C for each"
    raise BadSamples(
        "input",
        f"{name}, {len(shape)} axes {shape} of unknown meaning",
        f"{limit}; or a --model of an image or a volume",
    )


def check_count(shape: tuple[int, ...], name: str, wanted: Wanted) -> None:
    """Refuse more values than are accepted, before they are read.

    Raises
    ------
    LimitExceeded
    """
    if math.prod(shape) > wanted.max_samples:
        sizes = "x".join(map(str, shape))
        raise LimitExceeded("input", f"{name}, {sizes}", f"at most {wanted.max_samples} samples; see --max-samples")


def _converted(array: NDArray[Any], name: str, sample_format: str | None) -> NDArray[Any]:
    """The array in a type of `DTYPES`, native and contiguous, every value as it was."""
    kind = array.dtype.kind
    if kind not in "uif":
        what = {"b": "bool", "c": "complex numbers"}.get(kind, "no numbers")
        raise BadSamples("input", f"{name}, {array.dtype} ({what})", "u8, u16, s16 or f32 samples")
    if kind == "f":
        _check_finite(array, name)
    native = array.dtype.newbyteorder("=")
    target = np.dtype(DTYPES[sample_format]) if sample_format else np.dtype("f4") if kind == "f" else native
    if target.name not in FORMATS:
        low, high = array.min(), array.max()
        fitting = [
            name
            for name in ("u8", "u16", "s16")
            if np.iinfo(DTYPES[name]).min <= low and high <= np.iinfo(DTYPES[name]).max
        ]
        hint = f"; --sample-format {fitting[0]} holds them" if fitting else ""
        raise BadSamples("input", f"{name}, {native} from {low} to {high}", f"u8, u16, s16 or f32 samples{hint}")
    out = np.empty(array.shape, target)
    rows = max(1, BLOCK * len(array) // array.size)
    for start in range(0, len(array), rows):
        block = array[start : start + rows]
        with np.errstate(all="ignore"):  # what does not fit is looked for
            out[start : start + rows] = block
        wrong = out[start : start + rows] != block
        if wrong.any():
            place = np.unravel_index(int(wrong.argmax()), block.shape)
            where = _place((start + int(place[0]), *place[1:]))
            limit = f"values that {FORMATS[target.name]} holds exactly; convert them first"
            raise BadSamples("input", f"{name}, {block[place]!s} at {where} in {native}", limit)
    return out


def _check_finite(array: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity: how many, and where the first is."""
    rows = max(1, BLOCK * len(array) // array.size)
    count = 0
    first: tuple[Any, ...] = ()
    for start in range(0, len(array), rows):
        wrong = ~np.isfinite(array[start : start + rows])
        found = int(np.count_nonzero(wrong))
        if found and not count:
            place = np.unravel_index(int(wrong.argmax()), wrong.shape)
            first = (start + int(place[0]), *place[1:])
        count += found
    if count:
        value = f"{name}, {count} of {array.size} values NaN or infinite, the first at {_place(first)}"
        raise BadSamples("input", value, "finite values; put others in their place first")


def _place(indices: tuple[Any, ...]) -> str:
    """Indices in words; the axes are those of the samples."""
    return "[" + ", ".join(str(int(index)) for index in indices) + "]"


def read_npy(file: BinaryIO, name: str, wanted: Wanted) -> ArraySamples:
    """An `.npy` file.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    kind, samples = as_samples(_read_array(file, size, name, wanted), name, wanted)
    return ArraySamples(kind, samples, Geometry(source="npy"))


def read_npz(file: BinaryIO, name: str, wanted: Wanted) -> ArraySamples:
    """An array of an `.npz` file, and the metadata beside it, if `write_npz` wrote them.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[: MAX_MEMBERS + 1]}
            if len(members) > MAX_MEMBERS:
                raise LimitExceeded("input", f"{name}, {len(members)} arrays or more", f"at most {MAX_MEMBERS}")
            choice = choose([member for member in members if member != "metadata"], name, wanted)
            array = _read_member(archive, members[choice], name, wanted)
            found: Any = None
            if "metadata" in members:
                text = _read_member(archive, members["metadata"], f"{name}, metadata", wanted)
                found = json.loads(str(text)) if text.dtype.kind == "U" and text.ndim == 0 else None
    except WallocError:
        raise
    except Exception as error:  # zipfile raises whatever it runs into
        raise UnreadableFile("input", name, f"a complete .npz ({reason(error)})") from error
    kind, samples = as_samples(array, f"{name}, {choice}", wanted)
    known = geometries.from_json(found) if isinstance(found, dict) else Geometry()
    return ArraySamples(kind, samples, known if known.known else Geometry(source="npz"))


def choose(names: list[str], name: str, wanted: Wanted) -> str:
    """The array that is meant: the one that the user names, or the only one.

    Raises
    ------
    BadSamples
    """
    listed = ", ".join(names) or "none"
    if wanted.variable is not None:
        if wanted.variable not in names:
            raise BadSamples("--variable", wanted.variable, f"an array of numbers in {name}: {listed}")
        return wanted.variable
    if len(names) != 1:
        raise BadSamples(
            "input", f"{name}, {len(names)} arrays of numbers", f"one; or name one by --variable: {listed}"
        )
    return names[0]


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, wanted: Wanted) -> NDArray[Any]:
    """An array of an archive, no byte of which is believed before it is there."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableFile("input", f"{name}, compression {info.compress_type}", "an .npz that is stored or deflated")
    if info.file_size > MAX_RATIO * (info.compress_size + 1):
        claim = f"{name}, {info.compress_size} bytes for {info.file_size}"
        raise UnreadableFile("input", claim, f"at most {MAX_RATIO} for one")
    with archive.open(info) as member:
        return _read_array(member, info.file_size, name, wanted)


def _read_array(file: Any, size: int, name: str, wanted: Wanted) -> NDArray[Any]:
    """The array of an open `.npy` of `size` bytes.

    Format note: magic, version, length of a header that is a Python literal of type, order and shape, and the values.
    """
    head = file.read(10)
    wide = head[6:7] == b"\2"
    head += file.read(2) if wide else b""
    length = int.from_bytes(head[8:], "little")
    at = len(head) + length
    try:
        if head[:6] != NPY_MAGIC or head[6:8] not in (b"\1\0", b"\2\0") or length > MAX_NPY_HEADER:
            raise ValueError(f"version {head[6:7].hex()}, not 1 or 2, or {length} bytes, not {MAX_NPY_HEADER} at most")
        parse = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, fortran, dtype = parse(io.BytesIO(head[8:] + file.read(length)), max_header_size=MAX_NPY_HEADER)
    except Exception as error:  # the literal's parser raises many kinds
        raise UnreadableFile("input", name, f"an array whose header can be read ({reason(error)})") from error
    if dtype.hasobject:
        raise BadSamples("input", f"{name}, Python objects", "an array of numbers; objects are not unpickled")
    if any(axis < 0 for axis in shape) or len(shape) > 32:
        raise UnreadableFile("input", f"{name}, shape {shape}", "an array of at most 32 axes, none negative")
    if dtype.kind != "U":
        check_count(shape, name, wanted)
    wants = math.prod(shape) * dtype.itemsize
    if wants != size - at:
        raise UnreadableFile("input", f"{name} has {size - at} bytes of values", f"{wants}, as its header claims")
    values = read_exactly(file, wants, name)
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")


def read_exactly(file: Any, count: int, name: str) -> bytearray:
    """So many bytes of a file; memory grows as they come.

    Raises
    ------
    UnreadableFile
        It ends before.
    """
    values = bytearray()
    while len(values) < count:
        block = file.read(min(BLOCK, count - len(values)))
        if not block:
            raise UnreadableFile("input", f"{name} ends after {len(values)} bytes of values", f"{count}, as it claims")
        values += block
    return values


def write_npy(file: BinaryIO, samples: NDArray[Any]) -> None:
    """Samples as `.npy`, which has no place for metadata."""
    np.save(file, samples, allow_pickle=False)


def write_npz(file: BinaryIO, samples: NDArray[Any], metadata: Mapping[str, Any]) -> None:
    """Samples as `samples`, and the JSON text `metadata`, of an `.npz`."""
    np.savez_compressed(file, samples=samples, metadata=np.array(json.dumps(metadata)))
