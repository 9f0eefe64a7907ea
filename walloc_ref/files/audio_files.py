"""Audio files: WAV, FLAC, OGG, MP3 to samples and WAV, FLAC back, through libsndfile. Nothing here is part of the codec.

Integer files come as they are; 24 bits in the upper part of 32, 8 bits as unsigned bytes. Files of lossy codecs (OGG, MP3,
A-law, …) hold no integers of their own: they come as 16 bits, rounded to nearest and clipped.

Nothing is allocated because a file claims to be long, and a file that ends before it claims to is refused.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import LimitExceeded, UnreadableFile

SOUND_SUFFIXES = (".wav", ".flac")
"""File names of audio that can be written."""

HEAD_BYTES = 12
"""First bytes of a file that tell whether it is one of audio."""

FORMAT_OF_SUBTYPE = {
    "PCM_U8": "u8",
    "PCM_S8": "u8",
    "PCM_16": "s16",
    "PCM_24": "s24",
    "PCM_32": "s32",
    "FLOAT": "f32",
    "DOUBLE": "f64",
}
"""Sample formats of libsndfile's subtypes; all other subtypes are lossy and become s16."""

WAV_SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}
FLAC_SUBTYPES = {"u8": "PCM_S8", "s16": "PCM_16", "s24": "PCM_24"}
"""Subtypes that sample formats are written as."""

MAX_WAV_BYTES = (1 << 32) - (1 << 16)
"""Samples that need more bytes are written as RF64, which has 64-bit sizes."""

UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""What programs that write to a pipe leave as the size of a WAV's samples. (Some round it down to whole frames.)"""

UNKNOWN_FRAMES = 1 << 62
"""From here on libsndfile means that a file does not say how long it is."""

BLOCK_FRAMES = 1 << 16
"""Frames that are read or written at a time."""

GROWTH = 64
"""Samples a byte of the file that are believed at once; a longer file makes the array grow as it is read."""


@dataclass(frozen=True, eq=False)
class AudioSamples:
    """Samples (frames, channels), samples a second, and a name of `signal.AUDIO_FORMATS`."""

    samples: NDArray[Any]
    rate: int
    sample_format: str


def is_audio(head: bytes) -> bool:
    """Whether a file that starts with these `HEAD_BYTES` bytes is one of audio."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS", b".snd", b"caff") or head[:3] == b"ID3":
        return True
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[2] >> 4 != 0xF  # an MPEG frame


class _Seekable:
    """A file for libsndfile, which asks damaged files for impossible places and cannot take an exception."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with contextlib.suppress(OSError, ValueError, OverflowError):
            self.file.seek(offset, whence)
        return self.file.tell()


def read_audio(file: BinaryIO, name: str, *, max_samples: int = 1 << 30) -> AudioSamples:
    """Read an audio file.

    Parameters
    ----------
    file : binary file
        Can be sought in.
    name : str
        For messages.
    max_samples : int
        Largest number of samples, channels included, that is accepted.

    Raises
    ------
    UnreadableFile
        Not an audio file, a damaged one, one without samples, or one that ends before it claims to.
    LimitExceeded
        More samples than allowed.
    """
    import soundfile

    size = file.seek(0, io.SEEK_END)
    _check_wav_length(file, size, name)
    file.seek(0)
    try:
        with soundfile.SoundFile(_Seekable(file)) as source:
            return _read(source, size, name, max_samples)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", error)
        raise UnreadableFile("input", name, f"an audio file that can be read ({reason})") from error


def _read(source: Any, size: int, name: str, max_samples: int) -> AudioSamples:
    """All samples of an open file of `size` bytes."""
    found = FORMAT_OF_SUBTYPE.get(source.subtype, "lossy")
    claimed, channels = source.frames, source.channels
    if not 0 < claimed < UNKNOWN_FRAMES:
        raise UnreadableFile(
            "input.frames", f"{name}, {claimed or 'none'}", "at least one, and a file that says how many"
        )
    read_type = {"u8": "int16", "s16": "int16", "f64": "float64", "f32": "float32", "lossy": "float32"}.get(
        found, "int32"
    )
    store_type = {"u8": "uint8", "lossy": "int16"}.get(found, read_type)
    believed = min(claimed, max(BLOCK_FRAMES, size * GROWTH // channels), max_samples // channels + 1)
    samples = np.empty((believed, channels), dtype=store_type)
    count = 0
    while True:
        block = source.read(BLOCK_FRAMES, dtype=read_type, always_2d=True)  # [n, channels]
        if len(block) == 0:
            break
        if found == "u8":
            block = (block >> 8) + 128
        elif found == "lossy":
            block = np.clip(np.rint(block * 32768.0), -32768, 32767)
        end = count + len(block)
        if end * channels > max_samples:
            raise LimitExceeded(
                "input", f"{name}, over {end} frames", f"at most {max_samples} samples; see --max-samples"
            )
        if end > len(samples):
            samples.resize((end + end // 2, channels), refcheck=False)
        samples[count:end] = block
        count = end
    if count == 0 or (source.format == "FLAC" and count < claimed):
        raise UnreadableFile("input.frames", f"{name} ends after {count}", f"{claimed}, as the file claims")
    samples.resize((count, channels), refcheck=False)
    return AudioSamples(samples, source.samplerate, "s16" if found == "lossy" else found)


def _check_wav_length(file: BinaryIO, size: int, name: str) -> None:
    """Refuse a WAV whose samples end before its header says so; libsndfile would take what there is."""
    file.seek(0)
    if file.read(4) != b"RIFF":
        return
    at = 12
    while at + 8 <= size:
        file.seek(at)
        tag, length = file.read(4), int.from_bytes(file.read(4), "little")
        if tag == b"data":
            there = size - at - 8
            piped = length >= UNKNOWN_SIZES[1] - BLOCK_FRAMES or length in UNKNOWN_SIZES
            if length > there and not piped:
                raise UnreadableFile(
                    "input.data", f"{name} has {there} bytes of samples", f"{length}, as the file claims"
                )
            return
        at += 8 + length + length % 2


def check_audio_name(name: str, sample_format: str) -> None:
    """Refuse early a file name that cannot take samples of this format."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SOUND_SUFFIXES:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(SOUND_SUFFIXES))
    if suffix == ".flac" and sample_format not in FLAC_SUBTYPES:
        raise UnreadableFile("output", name, f".wav for {sample_format} samples; FLAC holds {', '.join(FLAC_SUBTYPES)}")


def write_audio(file: BinaryIO, audio: AudioSamples, name: str) -> None:
    """Write an audio signal as the kind of file that `name` ends in.

    Raises
    ------
    UnreadableFile
        Not a kind of file that is written, or one that does not hold the samples, the channels or the rate.
    """
    import soundfile

    check_audio_name(name, audio.sample_format)
    samples = audio.samples
    if PurePath(name).suffix.lower() == ".flac":
        kind, subtype = "FLAC", FLAC_SUBTYPES[audio.sample_format]
    else:
        kind, subtype = "WAV" if samples.shape[1] <= 2 else "WAVEX", WAV_SUBTYPES[audio.sample_format]
        if samples.nbytes > MAX_WAV_BYTES:
            kind = "RF64"
    try:
        with soundfile.SoundFile(file, "w", audio.rate, samples.shape[1], subtype, format=kind) as target:
            for start in range(0, len(samples), BLOCK_FRAMES):
                block = samples[start : start + BLOCK_FRAMES]
                if audio.sample_format == "u8":
                    block = (block.astype(np.int16) - 128) << 8
                target.write(block)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        what = f"{samples.shape[1]} channels at {audio.rate} Hz"
        raise UnreadableFile("output", f"{name}, {what}", f"a kind of file that holds them ({error})") from error
