"""Volumes of medicine: NIfTI (`.nii`, `.nii.gz`) through nibabel, a folder with a DICOM series through pydicom.

Both are read as (depth, rows, columns): NIfTI's axes x, y, z (and t) become columns, rows, depth (and channels), those of
DICOM are rows, columns, and depth along the normal of the slices. Stored values are coded; slope and intercept stand
beside them (`Geometry.rescale`). nibabel and pydicom come with `walloc-ref[medical]` and are
imported where they are needed.

Headers are read by these libraries and samples by us, because a library believes what a header claims.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError, reason
from walloc_ref.files.arrays import BLOCK, MAX_RATIO, ArraySamples, Wanted, as_samples, check_count
from walloc_ref.files.geometry import Geometry
from walloc_ref.files.whole_files import MAX_INPUT_BYTES

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Names that DICOM files have, if they have any."""

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""File names of NIfTI."""

GZIP_MAGIC = b"\x1f\x8b"

NIFTI_HEADS = {348: 1, 540: 2}
"""Length of the header, which comes first in it, and the version that it tells."""

NIFTI_PLACE = 352
"""Where samples begin at the earliest, and where we write them: behind the header and four bytes that say so."""

NIFTI_UNITS = {1: "m", 2: "mm", 3: "um"}
"""Units of length, the lower three bits of `xyzt_units`."""

NIFTI_FIELDS = {
    "qform_code": 1, "sform_code": 1, "quatern_b": 1, "quatern_c": 1, "quatern_d": 1, "qoffset_x": 1, "qoffset_y": 1,
    "qoffset_z": 1, "srow_x": 4, "srow_y": 4, "srow_z": 4, "pixdim": 8, "xyzt_units": 1, "toffset": 1,
}  # fmt: skip
"""Header fields that are kept as they are, and how many numbers they hold."""

MAX_NIFTI_SIDE = (1 << 15) - 1
"""Largest size along an axis of NIfTI-1; larger ones are written as NIfTI-2."""

MAX_SLICES = 1 << 14
"""Most files of a folder that are looked at."""

GAP = 0.01
"""Share of their distance by which slices may be placed unevenly: positions are written with few digits."""

FLAT = 1e-4
"""Difference of directions, as unit vectors, that are the same."""

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
"""Meanings of a sample that are one number a pixel."""

RAW_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes without compression: little-endian, implicit and explicit, and big-endian."""

RLE_SYNTAX = "1.2.840.10008.1.2.5"
"""The compressed one that pydicom reads by itself."""

DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"
"""The one that pydicom inflates at once, however much that gives."""

SAME = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
        "RescaleSlope", "RescaleIntercept", "PixelSpacing")  # fmt: skip
"""What all slices of a series must agree on."""


def library(name: str, what: str, where: str = "input") -> Any:
    """A library that is installed on request.

    Raises
    ------
    UnreadableFile
        It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = "one that is installed: pip install 'walloc-ref[medical]'"
        raise UnreadableFile(where, f"{what} needs the package {name}", hint) from error


_turns = threading.RLock()
"""Held while a library is silent: what it logs, and which warnings are shown, are settings of the whole process."""


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Keep what a library logs from the user, and its warnings: what is wrong is said once, as an error."""
    import warnings

    log = logging.getLogger(logger)
    with _turns:
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            log.setLevel(level)


def is_nifti(head: bytes) -> bool:
    """Whether a file that starts like this is NIfTI; of what is compressed nothing else is read."""
    orders = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return head.startswith(GZIP_MAGIC) or any(order in NIFTI_HEADS for order in orders)


def read_nifti(file: BinaryIO, name: str, wanted: Wanted) -> ArraySamples:
    """A NIfTI file of version 1 or 2, of either byte order, compressed or not.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    nibabel = library("nibabel", f"{name}, NIfTI,")
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    source: Any = gzip.GzipFile(fileobj=file) if packed else file
    try:
        with _silent("nibabel.global"):
            head = source.read(NIFTI_PLACE)
            length = next(
                (n for n in NIFTI_HEADS for order in ("little", "big") if int.from_bytes(head[:4], order) == n), 0
            )
            if not length:
                raise UnreadableFile("input", name, "a NIfTI file")
            head += source.read(max(0, length - len(head)))
            made = nibabel.Nifti1Header if length == 348 else nibabel.Nifti2Header
            header = made.from_fileobj(io.BytesIO(head[:length]), check=True)
            shape, dtype, at = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
            geometry = _nifti_geometry(header)
        if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
            raise UnreadableFile("input", name, "samples in the same file: .nii, .nii.gz")
        if not 1 <= len(shape) <= 7 or min(shape) < 1 or not length <= at <= (1 << 31):
            raise UnreadableFile("input", f"{name}, sizes {shape} at byte {at}", "sizes from 1 on, behind the header")
        check_count(shape, name, wanted)
        values = _nifti_bytes(source, head, at, math.prod(shape) * dtype.itemsize, size, name, packed=packed)
    except (WallocError, MemoryError):
        raise
    except (EOFError, zlib.error, OSError) as error:
        raise UnreadableFile("input", name, f"a complete NIfTI file ({reason(error)})") from error
    except Exception as error:  # nibabel raises whatever it runs into
        raise UnreadableFile("input", name, f"a NIfTI header that can be read ({reason(error)})") from error
    if dtype.fields is not None:
        raise BadSamples("input", f"{name}, colours ({dtype})", "u8, u16, s16 or f32 samples")
    array = np.frombuffer(values, dtype).reshape(shape, order="F")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 4:
        array = array.reshape(*array.shape[:3], -1, order="F") if 1 in array.shape[3:] else array
    if array.ndim > 4:
        raise BadSamples("input", f"{name}, sizes {shape}", "at most four axes: x, y, z, and channels or time")
    array = array.reshape(*array.shape, *(1,) * (3 - array.ndim))
    kind, samples = as_samples(array, name, wanted, "WHDC"[: array.ndim])
    return ArraySamples(kind, samples, geometry)


def _nifti_bytes(source: Any, head: bytes, at: int, count: int, size: int, name: str, *, packed: bool) -> bytearray:
    """So many bytes from a place on, no more of which are held than there are."""
    most = MAX_RATIO * size if packed else size
    if at + count > most:
        raise UnreadableFile("input", f"{name} has at most {most} bytes", f"{at + count}, as its header claims")
    skip = at - len(head)
    values = bytearray(head[at:]) if skip < 0 else bytearray()
    while skip > 0:
        block = source.read(min(BLOCK, skip))
        if not block:
            break
        skip -= len(block)
    while len(values) < count:
        block = source.read(min(BLOCK, count - len(values)))
        if not block:
            raise UnreadableFile(
                "input", f"{name} ends after {len(values)} bytes of samples", f"{count}, as its header claims"
            )
        values += block
    if packed and len(source.read(BLOCK)) == BLOCK:  # to its end, where its check sum is
        raise UnreadableFile("input", f"{name}, {BLOCK} bytes or more behind its samples", "nothing of that length")
    return values


def _nifti_geometry(header: Any) -> Geometry:
    """What a NIfTI header says of space, and of the meaning of values."""
    zooms = [float(zoom) for zoom in header.get_zooms()[:3]]
    affine = np.asarray(header.get_best_affine(), np.float64)
    slope, intercept = header.get_slope_inter()
    kept: dict[str, Any] = {"version": NIFTI_HEADS[int(header["sizeof_hdr"])]}
    for field, count in NIFTI_FIELDS.items():
        values = np.asarray(header[field], np.float64).ravel()
        if np.isfinite(values).all():
            kept[field] = values.tolist() if count > 1 else _number(values[0])
    spacing = None
    if len(zooms) == 3 and all(math.isfinite(zoom) and zoom > 0 for zoom in zooms):
        spacing = (zooms[2], zooms[1], zooms[0])
    scaled = slope is not None and (slope, intercept) != (1, 0)
    return Geometry(
        source="nifti",
        spacing=spacing,
        units=NIFTI_UNITS.get(int(header["xyzt_units"]) & 7),
        affine=tuple(map(tuple, affine.tolist())) if np.isfinite(affine).all() else None,
        rescale=(float(slope), float(intercept)) if scaled else None,
        header={"nifti": kept},
    )


def _number(value: float) -> int | float:
    """A whole number as one."""
    return int(value) if value == int(value) else float(value)


def write_nifti(file: BinaryIO, samples: NDArray[Any], geometry: Geometry, *, packed: bool) -> None:
    """Write a volume, (D, H, W[, C]), as NIfTI-1, or NIfTI-2 where a size needs it or it came from one.

    Raises
    ------
    UnreadableFile
    """
    nibabel = library("nibabel", "NIfTI", "output")
    sizes = samples.shape[:3][::-1] + samples.shape[3:]
    second = max(sizes) > MAX_NIFTI_SIDE or geometry.header.get("nifti", {}).get("version") == 2
    header = (nibabel.Nifti2Header if second else nibabel.Nifti1Header)()
    with _silent("nibabel.global"):
        header.set_data_dtype(samples.dtype)
        header.set_data_shape(sizes)
        kept = geometry.header.get("nifti", {})
        try:
            _place_nifti(header, geometry, kept)
        except Exception as error:  # nibabel and NumPy raise many kinds for numbers that do not fit
            raise UnreadableFile(
                "output", f"NIfTI, metadata ({reason(error)})", "what its header holds; or --no-metadata"
            ) from error
        header.set_slope_inter(*(geometry.rescale or (1.0, 0.0)))
        length = len(header.binaryblock)
        header["vox_offset"] = at = -(-(length + 4) // 16) * 16
        header["magic"] = b"n+1" if length == 348 else b"n+2\0\r\n\x1a\n"
    target: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) if packed else file
    target.write(header.binaryblock + bytes(at - length))
    order = samples if samples.ndim == 3 else np.moveaxis(samples, 3, 0)
    for part in order:  # one of depth, or all of a channel
        target.write(np.ascontiguousarray(part).tobytes())
    if packed:
        target.close()


def _place_nifti(header: Any, geometry: Geometry, kept: Any) -> None:
    """Put what is known of space into a NIfTI header: its own fields where it came from one."""
    if not kept:
        if geometry.units in NIFTI_UNITS.values():
            header.set_xyzt_units(next(code for code, unit in NIFTI_UNITS.items() if unit == geometry.units))
        if geometry.affine is not None:
            header.set_sform(np.array(geometry.affine), code=1)
            header.set_qform(np.array(geometry.affine), code=1)
        if geometry.spacing is not None:
            header.set_zooms(
                (*geometry.spacing[::-1], *(1.0,) * (len(header.get_data_shape()) - len(geometry.spacing)))
            )
        return
    with np.errstate(all="raise"):
        for field, count in NIFTI_FIELDS.items():
            value = kept.get(field)
            if value is not None:
                if np.size(value) != count:
                    raise ValueError(f"{field} has {np.size(value)} numbers, not {count}")
                header[field] = value


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these bytes is DICOM."""
    return head[128:132] == b"DICM"


def read_dicom(folder: str, wanted: Wanted) -> ArraySamples:
    """The one series of a folder, or the one slice of a file. Other files in the folder are left alone.

    Raises
    ------
    UnreadableFile
        No series, several, a ragged one, slices that are missing or there twice, or a damaged file.
    BadSamples, LimitExceeded
    """
    pydicom = library("pydicom", f"{folder}, DICOM,")
    path = folder
    slices, total = [], 0
    try:
        with _silent("pydicom"):
            for path in _dicom_files(folder):
                total += _dicom_bytes(path)
                if total > MAX_INPUT_BYTES:
                    raise LimitExceeded("input", f"{folder}, {total} bytes or more", f"at most {MAX_INPUT_BYTES}")
                found = _dicom_slice(pydicom, path)
                if found is not None:
                    slices.append((path, found))
            path = folder
            if not slices:
                raise UnreadableFile("input", folder, "a folder with the files of one DICOM series")
            _check_series(slices, folder)
            first = slices[0][1]
            check_count((len(slices), int(first.Rows), int(first.Columns)), folder, wanted)
            slices, step = _in_order(slices, folder)
            volume = np.stack([_dicom_pixels(one, path) for path, one in slices])
            geometry = _dicom_geometry([one for _, one in slices], step)
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # pydicom raises whatever it runs into, some of it when a value is first looked at
        raise UnreadableFile("input", path, f"DICOM that can be read ({reason(error)})") from error
    kind, samples = as_samples(volume, folder, wanted, "DHW")
    return ArraySamples(kind, samples, geometry)


def is_series(folder: str) -> bool:
    """Whether a folder itself, not one in it, has DICOM files.

    Raises
    ------
    UnreadableFile, LimitExceeded
        It, or one of its files, cannot be read, or it has too many.
    """
    return bool(_dicom_files(folder))


def _dicom_files(folder: str) -> list[str]:
    """Files of a folder, sorted, that are DICOM or say so; links are followed, folders, pipes and devices are not."""
    if not os.path.isdir(folder):
        return [folder]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UnreadableFile("input", folder, f"a folder that can be read ({reason(error)})") from error
    if len(entries) > MAX_SLICES:
        raise LimitExceeded("input", f"{folder}, {len(entries)} files", f"at most {MAX_SLICES}")
    found = []
    for entry in entries:
        if not entry.is_file():  # through links
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise UnreadableFile("input", entry.path, "a link that leads to a file")
            continue
        try:
            with Path(entry.path).open("rb") as file:
                named = entry.name.lower().endswith(DICOM_SUFFIXES)
                if is_dicom(file.read(132)) and entry.name.upper() != "DICOMDIR":
                    found.append(entry.path)
                elif named:
                    raise UnreadableFile("input", entry.path, "a DICOM file, as its name says")
        except OSError as error:
            raise UnreadableFile("input", entry.path, f"a readable file ({reason(error)})") from error
    return found


def _dicom_bytes(path: str) -> int:
    """Length of a file, which is an ordinary one."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile("input", path, "an ordinary file, or a folder of them")
    return status.st_size


def _dicom_slice(pydicom: Any, path: str) -> Any:
    """A data set with its samples, still coded; None for one without samples (a report)."""
    data = Path(path).read_bytes()  # from a file, pydicom would allocate any length that a damaged one declares
    if DEFLATED_SYNTAX in data:
        raise UnreadableFile("input", f"{path}, deflated", "samples without compression, or RLE")
    found = pydicom.dcmread(io.BytesIO(data))
    syntax = str(found.file_meta.TransferSyntaxUID)
    if syntax not in (*RAW_SYNTAXES, RLE_SYNTAX):
        known = getattr(pydicom.uid.UID(syntax), "name", syntax)
        raise UnreadableFile("input", f"{path}, {known}", "samples without compression, or RLE")
    return found if "PixelData" in found else None


def _check_series(slices: list[tuple[str, Any]], folder: str) -> None:
    """Refuse several series, and slices that are not alike."""
    first_path, first = slices[0]
    series = sorted({str(one.get("SeriesInstanceUID", "")) for _, one in slices})
    if len(series) > 1:
        counts = [sum(str(one.get("SeriesInstanceUID", "")) == uid for _, one in slices) for uid in series]
        listed = ", ".join(f"{uid or 'no name'} ({count} slices)" for uid, count in zip(series, counts))
        raise UnreadableFile("input", f"{folder}, {len(series)} series: {listed}", "one; put each into its own folder")
    seen: dict[str, str] = {}
    for path, one in slices:
        for key in SAME:
            if one.get(key) != first.get(key):
                raise UnreadableFile("input", f"{path}, {key} {one.get(key)}", f"{first.get(key)}, as in {first_path}")
        uid = str(one.get("SOPInstanceUID", path))
        if uid in seen:
            raise UnreadableFile("input", f"{path}, the same slice as {seen[uid]}", "every slice once")
        seen[uid] = path
    if int(first.get("SamplesPerPixel", 1)) != 1 or first.get("PhotometricInterpretation") not in MONOCHROME:
        raise BadSamples(
            "input",
            f"{first_path}, {first.get('PhotometricInterpretation')}",
            "one number a pixel: " + ", ".join(MONOCHROME),
        )
    if int(first.get("NumberOfFrames", 1) or 1) != 1:
        raise BadSamples("input", f"{first_path}, {first.NumberOfFrames} frames", "a slice in each file")


def _in_order(slices: list[tuple[str, Any]], folder: str) -> tuple[list[tuple[str, Any]], tuple[float, ...] | None]:
    """Slices by their place along their normal, and the way from one to the next, in millimetres."""
    placed = [one for _, one in slices if "ImagePositionPatient" in one and "ImageOrientationPatient" in one]
    if len(placed) < len(slices):
        if len(slices) == 1:
            return slices, None
        raise UnreadableFile(
            "input", f"{folder}, {len(slices) - len(placed)} slices without a place", "a place for each"
        )
    turns = [np.array(one.ImageOrientationPatient, np.float64) for one in placed]
    places = [np.array(one.ImagePositionPatient, np.float64) for one in placed]
    for (path, _), turn, place in zip(slices, turns, places):
        if turn.shape != (6,) or place.shape != (3,) or not (np.isfinite(turn).all() and np.isfinite(place).all()):
            raise UnreadableFile(
                "input", f"{path}, place {place.tolist()}, directions {turn.tolist()}", "3 and 6 finite numbers"
            )
        if np.abs(turn - turns[0]).max() > FLAT:
            raise UnreadableFile(
                "input", f"{path}, directions {turn.tolist()}", f"{turns[0].tolist()}, as in {slices[0][0]}"
            )
    normal = np.cross(turns[0][:3], turns[0][3:])
    along = np.array([float(normal @ place) for place in places])
    order = np.argsort(along, kind="stable")
    slices, along = [slices[number] for number in order], along[order]
    if len(slices) == 1:
        return slices, None
    steps = np.diff(along)
    usual = float(np.median(steps))
    for number, step in enumerate(steps):
        before, after = slices[number][0], slices[number + 1][0]
        if step <= GAP * max(usual, 1e-6):
            raise UnreadableFile("input", f"{after}, the same place as {before}", "every place once")
        if abs(step - usual) > GAP * usual:
            missing = round(step / usual) - 1
            what = f"{missing} slices missing" if missing > 0 and abs(step / usual - missing - 1) < 0.1 else "uneven"
            raise UnreadableFile("input", f"{before} to {after}, {step:g} mm ({what})", f"slices at {usual:g} mm")
    first, last = places[order[0]], places[order[-1]]
    return slices, tuple(((last - first) / (len(slices) - 1)).tolist())


def _dicom_pixels(one: Any, path: str) -> NDArray[Any]:
    """Stored values of a slice, (rows, columns)."""
    rows, columns, bits = int(one.Rows), int(one.Columns), int(one.BitsAllocated)
    if bits not in (8, 16, 32):
        raise BadSamples("input", f"{path}, {bits} bits", "8 or 16 bits a sample")
    wants, there = rows * columns * bits // 8, len(one.PixelData)
    packed = str(one.file_meta.TransferSyntaxUID) == RLE_SYNTAX
    if not packed and not wants <= there <= wants + 1:  # an even number
        raise UnreadableFile("input", f"{path} has {there} bytes of samples", f"{wants}, as its header claims")
    if packed and wants > 128 * there:  # a run has two bytes and at most 128 samples
        raise UnreadableFile(
            "input", f"{path} has {there} bytes of samples", f"at least {wants // 128}, as its header claims"
        )
    try:
        pixels = one.pixel_array
    except Exception as error:  # pydicom raises whatever it runs into
        raise UnreadableFile("input", path, f"samples that can be decoded ({reason(error)})") from error
    if pixels.shape != (rows, columns):
        raise UnreadableFile("input", f"{path}, samples {pixels.shape}", f"{(rows, columns)}, as its header claims")
    return pixels


def _dicom_geometry(slices: list[Any], step: tuple[float, ...] | None) -> Geometry:
    """What a series says of space, in RAS+ (DICOM's axes point to the left and to the back), and of values."""
    first = slices[0]
    slope, intercept = (float(first.get(key, usual)) for key, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    spacing, affine = None, None
    pixel = first.get("PixelSpacing")
    thick = float(np.linalg.norm(step)) if step else float(first.get("SliceThickness") or 0)
    if pixel is not None and thick > 0:
        spacing = (thick, float(pixel[0]), float(pixel[1]))
        if "ImagePositionPatient" in first and "ImageOrientationPatient" in first:
            turn = np.array(first.ImageOrientationPatient, np.float64)
            if step is None:
                step = tuple((np.cross(turn[:3], turn[3:]) * thick).tolist())
            to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
            matrix = np.eye(4)
            matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = turn[:3] * spacing[2], turn[3:] * spacing[1], step
            matrix[:3, 3] = np.array(first.ImagePositionPatient, np.float64)
            affine = tuple(map(tuple, (to_ras @ matrix).tolist()))
    return Geometry(
        source="dicom",
        spacing=spacing,
        units="mm",
        affine=affine,
        rescale=(slope, intercept) if (slope, intercept) != (1, 0) else None,
    )
