"""Any file with samples: the kind is told by its first bytes, or its name, and handed to the room that knows it.

| first bytes, or name | room | becomes |
| --- | --- | --- |
| RIFF WAVE, fLaC, OggS, … | `audio_files` | audio |
| PNG, JPEG, WebP, BMP, TIFF of one picture | `image_files` | image |
| other TIFF | `tiff_stacks` | image of channels, or volume |
| .npy, .npz | `arrays` | what the model is for, or the user says |
| "ENVI" | `spectral` | image of channels |
| MATLAB | `spectral` | as arrays |
| NIfTI, gzip | `medical` | volume |
| DICOM, a folder | `medical` | volume |

Written are the same, DICOM apart.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import UnreadableFile
from walloc_ref.files import arrays, audio_files, image_files, medical, spectral, tiff_stacks
from walloc_ref.files.arrays import DTYPES, FORMATS, ArraySamples, Wanted
from walloc_ref.files.geometry import Geometry
from walloc_ref.files.whole_files import (
    check_output,
    is_stream,
    library_notes,
    open_input,
    read_whole,
    whole_file,
)

READ = "PNG, JPEG, WebP, TIFF, BMP; WAV, FLAC, OGG, MP3; .npy, .npz, ENVI's .hdr, .mat, NIfTI, a folder with a DICOM series"
"""What is read, in words."""

HEAD_BYTES = 132
"""First bytes of a file that tell its kind."""

ARRAY_SUFFIXES = (".npy", ".npz", ".mat", ".tif", ".tiff", ".hdr", ".nii", ".nii.gz")
"""File names of samples of any number of channels and of every format of images and volumes."""

_OTHER_AUDIO = (".ogg", ".opus", ".mp3", ".aif", ".aiff")
READ_SUFFIXES = (
    *dict.fromkeys((*image_files.IMAGE_SUFFIXES, *audio_files.AUDIO_SUFFIXES, *_OTHER_AUDIO, *ARRAY_SUFFIXES)),
)
"""File names that are taken from a folder; a file that is named is read whatever its name."""

OF_IMAGES, OF_VOLUMES = (".hdr",), medical.NIFTI_SUFFIXES
"""Those of them that hold images only, and volumes only."""

_SPACE = ("spacing", "units", "affine", "rescale")
_SPECTRUM = ("wavelengths", "bandwidths", "wavelength_units", "bands", "ignore")
HELD = {
    ".npz": None, ".mat": None, ".tif": None, ".tiff": None,
    ".nii": (*_SPACE, "header"), ".nii.gz": (*_SPACE, "header"), ".hdr": (*_SPECTRUM, "header"),
    ".wav": ("channel_mask", "ambisonic"),
}  # fmt: skip
"""Fields of `Geometry` that kinds of files have a place for; None: all of them. Others hold none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Media:
    """Samples of a file, as the codec takes them, and what came with them.

    Attributes
    ----------
    kind : str
        "image", "audio" or "volume".
    samples : array
        (H, W[, C]), (frames, channels) or (D, H, W[, C]).
    sample_format : str
        A name of `container.SAMPLE_FORMATS`.
    rate : int
        Samples a second of audio, else 0.
    icc_profile, exif : bytes, optional
        Of an image.
    geometry : Geometry
    """

    kind: str
    samples: NDArray[Any]
    sample_format: str
    rate: int = 0
    icc_profile: bytes | None = None
    exif: bytes | None = None
    geometry: Geometry = field(default_factory=Geometry)


def read(name: str, wanted: Wanted = Wanted(), *, background: str | None = None) -> Media:  # noqa: B008
    """Read a file, a pipe, the standard input, or the DICOM series of a folder.

    Parameters
    ----------
    name : str
    wanted : Wanted
        What the file does not say of an array; and the limit of samples.
    background : str, optional
        What transparent pixels are put on.

    Raises
    ------
    UnreadableFile, BadSamples, LimitExceeded
    """
    if os.path.isdir(name):
        return _of_array(medical.read_dicom(name, wanted))
    with open_input(name) as file:
        return read_open(file, name, wanted, background=background)


def read_open(file: BinaryIO, name: str, wanted: Wanted = Wanted(), *, background: str | None = None) -> Media:  # noqa: B008
    """Read what `open_input` opened, from its beginning; parameters and errors as in `read`."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if audio_files.is_audio(head[: audio_files.HEAD_BYTES]):
        with library_notes():  # libmpg123 comments on every MP3
            clip = audio_files.read_audio(file, name, max_samples=wanted.max_samples)
        layout = Geometry(source="wav", channel_mask=clip.channel_mask, ambisonic=clip.ambisonic)
        return Media(
            kind="audio",
            samples=clip.samples,
            sample_format=clip.sample_format,
            rate=clip.rate,
            geometry=layout if layout.known else Geometry(),
        )
    reader = _array_reader(head, name)
    if reader is not None:
        return _of_array(reader(file, name, wanted))
    data = read_whole(file, name)
    if data.startswith(tiff_stacks.MAGICS):
        image_files.check_tiff(data, name)
        stack = tiff_stacks.read(data, name, wanted)
        if stack is not None:
            return _of_array(stack)
    image = image_files.read_image(data, name, background=background, max_samples=wanted.max_samples)
    return Media(
        kind="image",
        samples=image.samples,
        sample_format=FORMATS[image.samples.dtype.name],
        icc_profile=image.icc_profile,
        exif=image.exif,
    )


def _of_array(found: ArraySamples) -> Media:
    """Samples that came as an array."""
    sample_format = FORMATS[found.samples.dtype.name]
    return Media(kind=found.kind, samples=found.samples, sample_format=sample_format, geometry=found.geometry)


def _array_reader(head: bytes, name: str) -> Callable[[BinaryIO, str, Wanted], ArraySamples] | None:
    """What reads a file that starts like this; None for images."""
    if head.startswith(arrays.NPY_MAGIC):
        return arrays.read_npy
    if head.startswith(arrays.ZIP_MAGIC):
        return arrays.read_npz
    if head[:5].strip() == spectral.ENVI_MAGIC:
        return _read_envi
    if head.startswith(spectral.MAT_MAGICS):
        return lambda file, name, wanted: spectral.read_mat(read_whole(file, name), name, wanted)
    if medical.is_dicom(head):
        if not os.path.isfile(name):
            raise UnreadableFile("input", name, "the name of a DICOM file, or of a folder with a series")
        return lambda file, name, wanted: medical.read_dicom(name, wanted)
    if medical.is_nifti(head):
        return medical.read_nifti
    return None


def _read_envi(file: BinaryIO, name: str, wanted: Wanted) -> ArraySamples:
    """An image of ENVI: the raw samples lie beside the header."""
    header = file.read(spectral.MAX_ENVI_HEADER + 1)
    if not os.path.isfile(name):
        raise UnreadableFile("input", name, "the name of ENVI's .hdr, beside which its samples lie")
    wants = spectral.envi_raw_names(os.path.basename(name))
    folder = os.path.dirname(name)
    beside = sorted(set(os.listdir(folder or ".")) & set(wants))
    if len(beside) != 1:
        found = ", ".join(beside) or "none"
        raise UnreadableFile("input", f"{name}, samples beside it: {found}", f"one of {', '.join(wants[::2])}")
    raw_name = os.path.join(folder, beside[0])
    with open_input(raw_name) as raw:
        return spectral.read_envi(header, raw, name, raw_name, wanted)


def inputs_of(folder: str, suffixes: tuple[str, ...] = READ_SUFFIXES) -> list[str]:
    """What there is to read in a folder, to its depths, in order of the names; hidden files are left alone.

    Files whose names end in one of `suffixes`, and folders of files that are named as those of a DICOM series are, each a
    volume. A folder in which there is none of that is one itself, if its files are DICOM by another name.

    Raises
    ------
    UnreadableFile, LimitExceeded
        Of a folder without known names, that it cannot be read.
    """
    found = []
    for place, _, names in os.walk(folder):
        if any(name.lower().endswith(medical.DICOM_SUFFIXES) for name in names):
            found.append(place)
        paths = [
            os.path.join(place, name) for name in names if suffix_of(name) in suffixes and not name.startswith(".")
        ]
        found += [path for path in paths if os.path.isfile(path)]
    return sorted(found, key=lambda path: PurePath(path).parts) or ([folder] if medical.is_series(folder) else [])


def suffix_of(name: str) -> str:
    """What a name ends in, in small letters; `.nii.gz` is one ending."""
    return ".nii.gz" if name.lower().endswith(".nii.gz") else PurePath(name).suffix.lower()


def suffixes(kind: str, sample_format: str, channels: int) -> tuple[str, ...]:
    """File names that samples of this kind can be written as."""
    if kind == "audio":
        return audio_files.AUDIO_SUFFIXES
    plain = kind == "image" and sample_format in ("u8", "u16") and channels in (1, 3)
    apart = OF_VOLUMES if kind == "image" else OF_IMAGES
    found = [suffix for suffix in ARRAY_SUFFIXES if suffix not in apart]
    return (
        (*image_files.IMAGE_SUFFIXES, *(suffix for suffix in found if suffix not in image_files.IMAGE_SUFFIXES))
        if plain
        else (*found,)
    )


def usual_suffix(kind: str, sample_format: str, channels: int) -> str:
    """What is written where no name tells."""
    found = suffixes(kind, sample_format, channels)
    return next(suffix for suffix in (".wav", ".png", ".npy") if suffix in found)


def check(output: str, name: str, media: Media, sizes: tuple[int, ...], channels: int) -> tuple[str, ...]:
    """Refuse early a kind of file that cannot take such samples.

    Parameters
    ----------
    output : str
        The file.
    name : str
        One that tells the kind of file: the same, unless the output is a stream.
    media : Media
        All but the samples, which need not be there yet.
    sizes : tuple of int
        Along the spatial axes.
    channels : int

    Returns
    -------
    tuple of str
        What belongs to the samples and has no place in such a file.

    Raises
    ------
    UnreadableFile
    """
    suffix = suffix_of(name)
    known = suffixes(media.kind, media.sample_format, channels)
    if suffix not in known:
        what = f"{media.kind} of {channels} channels in {media.sample_format}"
        raise UnreadableFile("output", name, f"a name that ends in {', '.join(known)}, for {what}")
    if media.kind == "audio":
        audio_files.check_audio(name, media.sample_format, channels, media.rate)
    elif _is_picture(suffix, media, channels):
        dtype = np.dtype(DTYPES[media.sample_format])
        image_files.check_image(name, dtype, sizes, media.icc_profile, media.exif)
    elif suffix in medical.NIFTI_SUFFIXES:
        medical.library("nibabel", f"{name}, NIfTI,", "output")
    elif suffix == ".mat":
        count = math.prod(sizes) * channels * np.dtype(DTYPES[media.sample_format]).itemsize
        if count > spectral.MAX_MAT_BYTES:
            raise UnreadableFile(
                "output", f"{name}, {count} bytes", f"at most {spectral.MAX_MAT_BYTES} in .mat; or .npy"
            )
    elif suffix == ".hdr":
        if is_stream(output):
            raise UnreadableFile("output", output, "a file; ENVI has two")
        check_output(_envi_raw(output))
    held = HELD.get(suffix, ())
    return () if held is None else tuple(key for key in media.geometry.known if key not in held)


def _is_picture(suffix: str, media: Media, channels: int) -> bool:
    """Whether an image is written as one for people to look at. A TIFF with more to say is written as an array."""
    if media.kind != "image" or suffix not in image_files.IMAGE_SUFFIXES:
        return False
    plain = media.sample_format in ("u8", "u16") and channels in (1, 3)
    return plain and not (suffix in (".tif", ".tiff") and media.geometry.known)


def _envi_raw(name: str) -> str:
    """The samples beside a header."""
    return os.path.splitext(name)[0] + spectral.ENVI_RAW_SUFFIX


def write(output: str, name: str, media: Media) -> None:
    """Write a file as the kind that `name` ends in, whole or not at all.

    Raises
    ------
    UnreadableFile
    """
    suffix, samples = suffix_of(name), media.samples
    with whole_file(output) as file:
        if media.kind == "audio":
            layout = media.geometry
            audio_files.write_audio(
                file,
                audio_files.AudioSamples(
                    samples, media.rate, media.sample_format, layout.channel_mask, layout.ambisonic
                ),
                name,
            )
        elif _is_picture(suffix, media, 1 if samples.ndim == 2 else samples.shape[2]):
            file.write(image_files.write_image(image_files.ImageSamples(samples, media.icc_profile, media.exif), name))
        else:
            write_array(file, output, suffix, media)


def write_array(file: BinaryIO, output: str, suffix: str, media: Media) -> None:
    """Write samples as an array of a kind of file."""
    samples, geometry = media.samples, media.geometry
    if suffix == ".npy":
        arrays.write_npy(file, samples)
    elif suffix == ".npz":
        arrays.write_npz(file, samples, geometry.to_json())
    elif suffix == ".mat":
        spectral.write_mat(file, samples, geometry.to_json())
    elif suffix == ".hdr":
        with whole_file(_envi_raw(output)) as raw:
            file.write(spectral.write_envi(raw, samples, geometry))
    elif suffix in medical.NIFTI_SUFFIXES:
        medical.write_nifti(file, samples, geometry, packed=suffix == ".nii.gz")
    else:
        tiff_stacks.write(file, media.kind, samples, geometry)
