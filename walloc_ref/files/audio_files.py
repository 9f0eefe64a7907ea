"""Audio files: WAV, FLAC, OGG, MP3 to samples and WAV, FLAC back, through libsndfile. Nothing here is part of the codec.

Integer files come as they are; 24 bits in the upper part of 32, 8 bits as unsigned bytes. Files of lossy codecs (OGG, MP3,
A-law, …) hold no integers of their own: they come as 16 bits, rounded to nearest and clipped.

Nothing is allocated because a file claims to be long, and a file that ends before it claims to is refused: WAV and AIFF by
their length of samples, FLAC by its MD5 of them, OGG by the check sums and numbers of its pages, MP3 by what its first
frame declares, if it does.

A WAV may say for which loudspeakers its channels are, or that they are a sound field (ambisonics in B-format). libsndfile
does not hand that on; it stands in the format chunk, is read and written there, and otherwise left alone.
"""

from __future__ import annotations

import errno
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import LimitExceeded, UnreadableFile, WallocError

AUDIO_SUFFIXES = (".wav", ".flac")
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

MAX_CHANNELS = {".wav": 1024, ".flac": 8}
MAX_RATE = {".wav": (1 << 31) - 1, ".flac": 655350}
"""Most channels and samples a second that each kind of file holds, as libsndfile writes it."""

MAX_WAV_BYTES = (1 << 32) - (1 << 16)
"""Samples that need more bytes are written as RF64, which has 64-bit sizes."""

UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""What programs that write to a pipe leave as the size of a WAV's samples. (Some round it down to whole frames.)"""

PAGE_HEAD = 27
"""Bytes of a page of an OGG before the lengths of its segments."""

MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in reverse."""

EXTENSIBLE, EXTENSIBLE_BYTES = 0xFFFE, 40
"""Format of a WAV that has a channel mask, and the least length of its format chunk."""

B_FORMAT = bytes.fromhex("2107d3118644c8c1ca000000")
"""End of the subformat of a WAV in B-format; its first four bytes tell the type of the samples, as for others."""

PLAIN_FORMAT = bytes.fromhex("00001000800000aa00389b71")
"""End of the subformat of any other."""

MAX_INFO_OFFSET = 64
"""Before this place in the first frame of an MP3 lies what it declares, if it does: behind at most 4 + 2 + 32 bytes."""

UNKNOWN_FRAMES = 1 << 62
"""From here on libsndfile means that a file does not say how long it is."""

BLOCK_FRAMES = 1 << 16
"""Frames that are read or written at a time."""

GROWTH = 64
"""Samples a byte of the file that are believed at once; a longer file makes the array grow as it is read."""


@dataclass(frozen=True, eq=False)
class AudioSamples:
    """Samples (frames, channels), samples a second, and a name of `signal.AUDIO_FORMATS`.

    The channel mask of a WAV, and whether it is in B-format, are None where the file does not say.
    """

    samples: NDArray[Any]
    rate: int
    sample_format: str
    channel_mask: int | None = None
    ambisonic: bool | None = None


def is_audio(head: bytes) -> bool:
    """Whether a file that starts with these `HEAD_BYTES` bytes is one of audio."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS", b".snd", b"caff") or head[:3] == b"ID3":
        return True
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[2] >> 4 != 0xF  # an MPEG frame


class _Guarded:
    """A file for libsndfile, which asks damaged files for impossible places and cannot take an exception: it is kept.

    Attributes
    ----------
    error : Exception or None
        The first one. What came after it is worth nothing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: Exception | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            self.file.seek(offset, whence)
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):  # of a place before the start
                self.error = self.error or error
        except (ValueError, OverflowError):
            pass
        return self.tell()

    def tell(self) -> int:
        try:
            return self.file.tell()
        except Exception as error:
            self.error = self.error or error
            return 0

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except Exception as error:
            self.error, data = self.error or error, b""
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:
        try:
            if self.error is None:
                self.file.write(data)
        except Exception as error:
            self.error = error
        return len(data)


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

    guarded = _Guarded(file)
    try:
        size = file.seek(0, io.SEEK_END)
        _check_chunks(file, size, name)
        _check_pages(file, name)
        _check_first_frame(file, size, name)
        md5 = _flac_md5(file)
        file.seek(0)
        with soundfile.SoundFile(guarded) as source:
            found = _read(source, size, name, max_samples, md5)
        if guarded.error is not None:
            raise guarded.error
        place = _extensible(file, size)
        if place is not None:
            mask, subformat = _layout(file, place)
            found = replace(found, channel_mask=mask, ambisonic=True if subformat == B_FORMAT else None)
    except (soundfile.LibsndfileError, RuntimeError, OSError, WallocError) as error:
        if isinstance(error, WallocError) and guarded.error is None:
            raise
        reason = guarded.error or getattr(error, "error_string", error)
        raise UnreadableFile("input", name, f"an audio file that can be read ({reason})") from error
    return found


def _read(source: Any, size: int, name: str, max_samples: int, md5: bytes | None) -> AudioSamples:
    """All samples of an open file of `size` bytes; their MD5 is compared with this one."""
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
    digest = hashlib.md5(usedforsecurity=False)
    count = 0
    while True:
        block = source.read(BLOCK_FRAMES, dtype=read_type, always_2d=True)  # [n, channels]
        if len(block) == 0:
            break
        if md5 is not None:
            digest.update(_flac_bytes(block, source.subtype))
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
    if count == 0 or (source.format in ("FLAC", "OGG") and count < claimed):
        raise UnreadableFile("input.frames", f"{name} ends after {count}", f"{claimed}, as the file claims")
    if md5 is not None and digest.digest() != md5:
        raise UnreadableFile("input.MD5", f"{name}, {digest.hexdigest()}", f"{md5.hex()}, as the file claims")
    samples.resize((count, channels), refcheck=False)
    return AudioSamples(samples, source.samplerate, "s16" if found == "lossy" else found)


def _check_chunks(file: BinaryIO, size: int, name: str) -> None:
    """Refuse a WAV or AIFF whose samples end before its header says so; libsndfile would take what there is."""
    file.seek(0)
    kind = file.read(4)
    if kind not in (b"RIFF", b"RIFX", b"FORM"):
        return
    order: Literal["little", "big"] = "little" if kind == b"RIFF" else "big"
    wanted = b"SSND" if kind == b"FORM" else b"data"
    at = 12
    while at + 8 <= size:
        file.seek(at)
        tag, length = file.read(4), int.from_bytes(file.read(4), order)
        if tag == wanted:
            there = size - at - 8
            piped = length >= UNKNOWN_SIZES[1] - BLOCK_FRAMES or length in UNKNOWN_SIZES
            if length > there and not piped:
                raise UnreadableFile(
                    "input.data", f"{name} has {there} bytes of samples", f"{length}, as the file claims"
                )
            return
        at += 8 + length + length % 2


def _extensible(file: BinaryIO, size: int) -> int | None:
    """Where the format chunk of a WAV starts, behind its tag and length, if it is one that has a channel mask.

    Format note: format u16 (of which only EXTENSIBLE has what follows), 14 bytes that all formats have, length of the rest
    u16, valid bits u16, channel mask u32, subformat 16 bytes.
    """
    file.seek(0)
    if file.read(4) not in (b"RIFF", b"RF64"):
        return None
    at = 12
    while at + 8 <= size:
        file.seek(at)
        tag, length = struct.unpack("<4sI", file.read(8))
        if tag == b"fmt ":
            long = length >= EXTENSIBLE_BYTES and at + 8 + EXTENSIBLE_BYTES <= size
            return at + 8 if long and int.from_bytes(file.read(2), "little") == EXTENSIBLE else None
        at += 8 + length + length % 2
    return None


def _layout(file: BinaryIO, place: int) -> tuple[int, bytes]:
    """Channel mask and end of the subformat of the format chunk that starts here."""
    file.seek(place + 20)
    mask, _, subformat = struct.unpack("<II12s", file.read(20))
    return mask, subformat


def _set_layout(file: BinaryIO, mask: int, ambisonic: bool) -> None:
    """Put channel mask and subformat into a WAV that was written; libsndfile makes up loudspeakers."""
    place = _extensible(file, file.seek(0, io.SEEK_END))
    if place is None:
        return
    file.seek(place + 20)
    file.write(struct.pack("<I", mask))
    file.seek(place + 28)
    file.write(B_FORMAT if ambisonic else PLAIN_FORMAT)
    file.seek(0, io.SEEK_END)


def _check_pages(file: BinaryIO, name: str) -> None:
    """Refuse an OGG with damage, a gap or without the last page of a stream; libogg skips damage without a word.

    Format note: "OggS", version 0, flags (4 on a stream's last page), position u64, serial u32, number u32, CRC u32, the
    number of segments, the length of each in a byte, the segments. The CRC is over the page with zeros in its place:
    polynomial 04C11DB7, not reflected, from 0, which is zlib's over mirrored bytes from the other start, mirrored. A player
    starts anywhere, so the first number of a stream may be any; what follows the last page (tags) is left alone.
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return
    file.seek(0)
    numbers: dict[bytes, int] = {}
    open_streams: set[bytes] = set()
    at = 0
    while True:
        head = file.read(PAGE_HEAD)
        if len(head) < PAGE_HEAD or head[:5] != b"OggS\0":
            if head and (open_streams or b"OggS" in head + file.read(1 << 16)):
                raise UnreadableFile("input.page", f"{name}, no page at byte {at}", "pages one after the other")
            break
        lengths = file.read(head[26])
        body = file.read(sum(lengths))
        page = (head[:22] + bytes(4) + head[26:] + lengths + body).translate(MIRRORED)
        crc = (zlib.crc32(page, 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "big").translate(MIRRORED)
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if crc != head[22:26] or len(lengths) < head[26] or len(body) < sum(lengths):
            raise UnreadableFile(
                "input.page", f"{name}, page {number} at byte {at}", "a whole page of the CRC that it says"
            )
        if numbers.get(serial, number - 1) != number - 1:
            raise UnreadableFile(
                "input.page", f"{name}, page {number} at byte {at}", f"page {numbers[serial] + 1} first"
            )
        numbers[serial] = number
        (open_streams.discard if head[5] & 4 else open_streams.add)(serial)
        at += PAGE_HEAD + len(lengths) + len(body)
    if open_streams:
        raise UnreadableFile("input.page", f"{name} ends within a stream", "the last page of the stream at its end")


def _check_first_frame(file: BinaryIO, size: int, name: str) -> None:
    """Refuse an MP3 that is shorter than its first frame declares; libsndfile would take what there is.

    Format note: behind the header of the first frame and zeros, "Xing" or "Info", flags, then the number of frames (flag 1)
    and that of bytes, from this frame on (flag 2).
    """
    at = _tag_bytes(file)
    file.seek(at)
    head = file.read(MAX_INFO_OFFSET + 16)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return
    for tag in (b"Xing", b"Info"):
        place = head.find(tag, 4, MAX_INFO_OFFSET + 4)
        if place < 0 or place + 16 > len(head) or any(head[6:place]):
            continue
        (flags,) = struct.unpack_from(">I", head, place + 4)
        if flags & 2:
            (declared,) = struct.unpack_from(">I", head, place + (12 if flags & 1 else 8))
            if declared > size - at:
                raise UnreadableFile("input", f"{name} has {size - at} bytes", f"{declared}, as its first frame claims")
        return


def _tag_bytes(file: BinaryIO) -> int:
    """Length of the ID3 tag at the start, 0 where there is none. (Its size is in four bytes of seven bits.)"""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    return 10 + length + (10 if head[5] & 0x10 else 0)  # with a footer


def _flac_md5(file: BinaryIO) -> bytes | None:
    """MD5 of the samples as a FLAC declares it, at the end of STREAMINFO; None for other files, or where it is unset."""
    file.seek(_tag_bytes(file))
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F != 0 or not any(head[26:]):
        return None
    return head[26:]


def _flac_bytes(block: NDArray[Any], subtype: str) -> bytes:
    """Samples as FLAC's MD5 takes them: interleaved, little-endian, signed, in whole bytes; libsndfile aligns them left."""
    if subtype == "PCM_S8":
        return (block >> 8).astype(np.int8).tobytes()
    if subtype == "PCM_24":
        return np.ascontiguousarray((block >> 8).astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes()


def check_audio(name: str, sample_format: str, channels: int, rate: int) -> None:
    """Refuse early a kind of file, by its name, that cannot take such samples.

    Raises
    ------
    UnreadableFile
        Not a kind of file that is written, or one that does not hold the samples, the channels or the rate.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in AUDIO_SUFFIXES:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(AUDIO_SUFFIXES))
    if suffix == ".flac" and sample_format not in FLAC_SUBTYPES:
        raise UnreadableFile("output", name, f".wav for {sample_format} samples; FLAC holds {', '.join(FLAC_SUBTYPES)}")
    if not 1 <= rate <= MAX_RATE[suffix]:
        raise UnreadableFile("output", f"{name}, {rate} Hz", f"1 to {MAX_RATE[suffix]} Hz in {suffix}")
    if not 1 <= channels <= MAX_CHANNELS[suffix]:
        raise UnreadableFile("output", f"{name}, {channels} channels", f"at most {MAX_CHANNELS[suffix]} in {suffix}")


def write_audio(file: BinaryIO, audio: AudioSamples, name: str) -> None:
    """Write an audio signal as the kind of file that `name` ends in, to a file that can be read and sought in as well.

    Raises
    ------
    UnreadableFile
        Not a kind of file that is written, one that does not hold the samples, the channels or the rate, or a file that
        cannot be written to.
    """
    import soundfile

    samples = audio.samples
    check_audio(name, audio.sample_format, samples.shape[1], audio.rate)
    if PurePath(name).suffix.lower() == ".flac":
        kind, subtype = "FLAC", FLAC_SUBTYPES[audio.sample_format]
    else:
        plain = samples.shape[1] <= 2 and audio.channel_mask is None
        kind, subtype = "WAV" if plain else "WAVEX", WAV_SUBTYPES[audio.sample_format]
        if samples.nbytes > MAX_WAV_BYTES:
            kind = "RF64"
    guarded = _Guarded(file)
    try:
        with soundfile.SoundFile(guarded, "w", audio.rate, samples.shape[1], subtype, format=kind) as target:
            for start in range(0, len(samples), BLOCK_FRAMES):
                block = samples[start : start + BLOCK_FRAMES]
                if audio.sample_format == "u8":
                    block = (block.astype(np.int16) - 128) << 8
                target.write(block)
                if guarded.error is not None:
                    break
        if kind != "FLAC" and guarded.error is None:
            _set_layout(file, audio.channel_mask or 0, bool(audio.ambisonic))
    except Exception as error:  # libsndfile's own, and assertions of soundfile
        if guarded.error is None:
            what = f"{samples.shape[1]} channels at {audio.rate} Hz"
            raise UnreadableFile("output", f"{name}, {what}", f"a kind of file that holds them ({error})") from error
    if isinstance(guarded.error, OSError):
        reason = guarded.error.strerror
        raise UnreadableFile("output", name, f"a writable file ({reason})") from guarded.error
    if guarded.error is not None:
        raise guarded.error
