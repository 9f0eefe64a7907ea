"""Media files: bytes of PNG, JPEG, WebP, TIFF and BMP to samples, and back. Nothing here is part of the codec.

Images come as a viewer would show them: EXIF orientation applied, palettes resolved, CMYK and YCbCr converted to RGB, the
first frame of several. Sixteen bits survive in PNG and TIFF, through readers and writers of their own, because Pillow knows
no such RGB. An image with transparent pixels has no meaning for the codec until it is put on a background, so it is refused
unless one is named. Metadata that cannot be read is left out; it is no reason to refuse an image.

Only the kinds that are named here are opened: Pillow knows forty, and starts another program for one of them.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError, reason
from walloc_ref.files.whole_files import library_notes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""File names of images that can be written."""

PILLOW_NAMES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"
}  # fmt: skip
"""What Pillow calls them."""

SIXTEEN_BIT_SUFFIXES = (".png", ".tif", ".tiff")
"""Those that hold 16-bit images."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
"""Pillow's names of the kinds that are read."""

MAX_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
"""Largest width and height of kinds that have less than 31 bits for them (libwebp's 14 bits; libjpeg's own limit)."""

MAX_READ_SIDE = 1 << 24
"""Largest width and height of an image that is read: Pillow keeps an address for every row, however short it is."""

DEFLATE_EXPANSION = 1032
"""Bytes that Deflate makes of one at most: a match of 258 bytes in two bits."""

MAX_PIXEL_BYTES = {".bmp": (1 << 32) - (1 << 24), ".tif": (1 << 32) - (1 << 24), ".tiff": (1 << 32) - (1 << 24)}
"""Bytes of samples in kinds that count them in 32 bits, with room for the rest of the file."""

MAX_JPEG_EXIF = 65527
"""Longest EXIF of a JPEG: a segment of 65535 bytes, less its length and "Exif", 0, 0."""

STRUCTURAL_TAGS = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293,
     301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 347, 512,
     513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675, 37724)
)  # fmt: skip
"""Tags of a TIFF's directory that say how its pixels are stored, or hold metadata of another kind (XMP, IPTC, Photoshop,
ICC): not EXIF, though they stand among it."""

PNG_LEVEL = 3
"""Of zlib, in images of 8 bits: on photographs within 3 % of the bytes of the usual 6, in half the time."""

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

ICC_TAG, DIRECTORY_TAGS = 34675, (34665, 34853)
"""TIFF tags of the ICC profile, and of the directories of EXIF and GPS."""

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
"""What a TIFF's samples may mean (PhotometricInterpretation) at 16 bits."""

ASSOCIATED, UNASSOCIATED = 1, 2
"""What a further sample of a TIFF's pixel may mean (ExtraSamples): an alpha that colours were multiplied by, or not."""

HARMLESS_NOTES = ("TIFFReadDirectory", "TIFFFetch", "TIFFReadCustomDirectory", "TIFFReadEXIFDirectory")
"""What libtiff's notes on metadata begin with; all others are on pixels that it could not decode."""


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
        for _, _, size in webp_chunks(data):
            if size is not None:
                _check_size(size, name, max_samples)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            if data.startswith(TIFF_MAGICS):
                check_tiff(data, name)
                deep = _read_deep_tiff(data, name, max_samples)
                if deep is not None:
                    samples, profile = deep
                    exif = Image.Exif()
                    return _image(_on_background(samples, background, name), profile, _exif(exif, data))
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, name, max_samples)
                if image.format == "PNG":
                    _check_png(data, name)
                if image.format == "PNG" and data[24] == 16:  # IHDR: signature 8, length and type 8, sizes 8, depth
                    samples = _read_deep_png(data, name)
                else:
                    samples = _read_pixels(image, name)
                exif = _readable_exif(image)  # Format note: afterwards, because Pillow turns a TIFF as it loads it
                samples = _upright(samples, exif.get(ORIENTATION_TAG, 1))
                samples = _on_background(samples, background, name)
                return _image(samples, image.info.get("icc_profile"), _exif(exif))
    except UnidentifiedImageError as error:
        raise UnreadableFile("input", name, "an image (PNG, JPEG, WebP, TIFF, BMP) or an audio file") from error
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever its parsing runs into
        raise UnreadableFile("input", name, f"a complete image ({reason(error)})") from error


def write_image(image: ImageSamples, name: str) -> bytes:
    """Encode an image as the kind of file that `name` ends in.

    Raises
    ------
    UnreadableFile
        Not a kind of file that is written, or one that does not hold the depth, the sizes or the metadata.
    """
    height, width = image.samples.shape[:2]
    check_image(name, image.samples.dtype, (height, width), image.icc_profile, image.exif)
    try:
        return _written(image, PurePath(name).suffix.lower())
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # whatever a library objects to
        what = f"{name}, {width}x{height}"
        raise UnreadableFile("output", what, f"a kind of file that holds it ({reason(error)})") from error


def _written(image: ImageSamples, suffix: str) -> bytes:
    """An image as the kind of file with this suffix."""
    from PIL import Image

    samples = image.samples
    if samples.dtype == np.uint16:
        return (_write_deep_png if suffix == ".png" else _write_deep_tiff)(image)
    options: dict[str, Any] = {}
    if suffix != ".bmp":
        options |= {key: value for key in ("icc_profile", "exif") if (value := getattr(image, key)) is not None}
    if suffix in (".jpg", ".jpeg"):
        options |= {"quality": LOSSY_QUALITY, "subsampling": 0}
    if suffix == ".webp":
        options |= {"lossless": True}
    if suffix == ".png":
        options |= {"compress_level": PNG_LEVEL}
    out = io.BytesIO()
    Image.fromarray(samples).save(out, PILLOW_NAMES[suffix], **options)
    return out.getvalue()


def check_image(
    name: str,
    dtype: np.dtype,
    sizes: tuple[int, ...],
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
) -> None:
    """Refuse early a kind of file, by its name, that cannot take samples of this type and (height, width), or metadata.

    Raises
    ------
    UnreadableFile
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(IMAGE_SUFFIXES))
    if dtype == np.uint16 and suffix not in SIXTEEN_BIT_SUFFIXES:
        raise UnreadableFile("output", name, f"{', '.join(SIXTEEN_BIT_SUFFIXES)} for 16-bit samples")
    height, width = sizes
    side = MAX_SIDE.get(suffix, (1 << 31) - 1)
    if max(height, width) > side:
        raise UnreadableFile("output", f"{name}, {width}x{height}", f"at most {side} a side in {suffix}; or .png")
    pixel_bytes = 3 * height * width * np.dtype(dtype).itemsize
    if pixel_bytes > MAX_PIXEL_BYTES.get(suffix, pixel_bytes):
        limit = f"at most {MAX_PIXEL_BYTES[suffix]} bytes of samples in {suffix}; or .png"
        raise UnreadableFile("output", f"{name}, {width}x{height}", limit)
    if exif is not None and suffix in (".jpg", ".jpeg") and len(exif.removeprefix(b"Exif\0\0")) > MAX_JPEG_EXIF:
        limit = f"at most {MAX_JPEG_EXIF} in {suffix}; or .png, or --no-metadata"
        raise UnreadableFile("output", f"{name}, EXIF of {len(exif)} bytes", limit)
    if icc_profile is None and exif is None:
        return
    try:  # a pixel shows whether the library takes the metadata
        _written(ImageSamples(np.zeros((1, 1, 3), dtype), icc_profile, exif), suffix)
    except Exception as error:
        limit = f"those that {suffix} takes ({reason(error)}); or --no-metadata"
        raise UnreadableFile("output", f"{name}, ICC profile and EXIF", limit) from error


def _check_size(size: tuple[int, int], name: str, max_samples: int) -> None:
    """Refuse an image that declares too many samples, or rows and columns beyond `MAX_READ_SIDE`."""
    if max(size) > MAX_READ_SIDE:
        raise LimitExceeded("input", f"{name}, {size[0]}x{size[1]}", f"at most {MAX_READ_SIDE} rows and columns")
    if 3 * size[0] * size[1] > max_samples:
        raise LimitExceeded(
            "input", f"{name}, {size[0]}x{size[1]}", f"at most {max_samples} samples; see --max-samples"
        )


def _check_png(data: bytes, name: str) -> None:
    """Refuse a PNG whose pixels cannot all be there: Deflate makes at most `DEFLATE_EXPANSION` bytes of one."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    samples = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    if height * (width * samples * depth // 8 + 1) > DEFLATE_EXPANSION * len(data):
        limit = f"a complete image ({len(data)} bytes cannot hold {width}x{height} pixels)"
        raise UnreadableFile("input", name, limit)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, tuple[int, int] | None]]:
    """Tag, first byte and size of the image, where it says one, of every whole chunk of a WebP.

    Opening a WebP takes memory for all of its pixels, so what it declares is looked at before.

    Format note: "RIFF", a length, "WEBP", then chunks: a tag, a length, so many bytes, one more if they are odd. VP8X has
    flags (2 for animation) and sizes in 24 bits; VP8L, a lossless image, sizes in 14 bits behind a signature byte; "VP8 ",
    a lossy one, sizes in 14 bits of 16.
    """
    at = 12
    while at + 18 <= len(data):
        tag, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 18]
        size = None
        if tag == b"VP8X":
            size = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif tag == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif tag == b"VP8 ":
            bits = int.from_bytes(body[6:10], "little")
            size = (bits & 0x3FFF, bits >> 16 & 0x3FFF)
        yield tag, body[0], size
        at += 8 + length + length % 2


def check_tiff(data: bytes, name: str) -> None:
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
    """Pixels of an open 8-bit image as (H, W) or (H, W, 2 … 4)."""
    if image.mode in ("I", "F"):
        raise BadSamples("input", f"{name}, samples of 32 bits", "8 or 16 bits a sample")
    load_pixels(image, name)
    mode = image.mode
    if mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return np.asarray(image).astype(np.uint16)
    has_alpha = "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = mode in ("1", "L", "LA", "La")
    wanted = ("LA" if has_alpha else "L") if grey else ("RGBA" if has_alpha else "RGB")
    if mode == "La":
        image = image.convert("LA")
    return np.asarray(image.convert(wanted))


def load_pixels(image: Any, name: str) -> None:
    """Decode an open image. libtiff says on the standard error, and nowhere else, that it makes pixels up.

    Raises
    ------
    UnreadableFile
        It said so.
    """
    if image.format != "TIFF":
        image.load()
        return
    with library_notes() as notes:
        image.load()
    damage = [note for note in notes if not note.startswith(HARMLESS_NOTES)]
    if damage:
        raise UnreadableFile("input", name, f"a complete image ({damage[0]})")


def _read_deep_png(data: bytes, name: str) -> NDArray:
    """A 16-bit PNG as uint16 (H, W) or (H, W, 2 … 4); a colour that is transparent (tRNS) becomes an alpha channel."""
    import png

    try:
        width, height, rows, header = png.Reader(bytes=data).read()
        flat = np.concatenate([np.frombuffer(row, dtype=np.uint16) for row in rows])
    except Exception as error:  # and so does pypng
        raise UnreadableFile("input", name, f"a complete PNG ({reason(error)})") from error
    samples = flat.reshape(height, width, header["planes"])
    if header.get("transparent") is not None and not header["alpha"]:
        clear = (samples == np.array(header["transparent"], dtype=np.uint16)).all(axis=2, keepdims=True)
        samples = np.concatenate([samples, np.where(clear, 0, 65535).astype(np.uint16)], axis=2)
    return samples[:, :, 0] if samples.shape[2] == 1 else samples


def _write_deep_png(image: ImageSamples) -> bytes:
    """uint16 (H, W) or (H, W, 3) as a PNG. Its metadata are chunks behind the first one, which has 25 bytes."""
    import png

    samples, out = image.samples, io.BytesIO()
    writer = png.Writer(samples.shape[1], samples.shape[0], greyscale=samples.ndim == 2, bitdepth=16)
    writer.write(out, samples.reshape(samples.shape[0], -1))
    chunks = []
    if image.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(image.icc_profile)))
    if image.exif is not None:
        chunks.append((b"eXIf", image.exif.removeprefix(b"Exif\0\0")))
    extra = b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    )
    data = out.getvalue()
    return data[: len(PNG_MAGIC) + 25] + extra + data[len(PNG_MAGIC) + 25 :]


def _read_deep_tiff(data: bytes, name: str, max_samples: int) -> tuple[NDArray, bytes | None] | None:
    """A TIFF of 16-bit samples as uint16 (H, W) or (H, W, 2 … 4), upright, and its ICC profile.

    None for a TIFF of at most 8 bits, which Pillow reads.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            if page.dtype in (np.uint8, np.bool_):
                return None
            bits = page.bitspersample
            if page.dtype != np.uint16 or bits != 16:
                kind = {"i": "signed integers", "f": "floats"}.get(getattr(page.dtype, "kind", ""), "integers")
                raise BadSamples(
                    "input", f"{name}, {kind} of {bits} bits", "unsigned integers of 8 or 16 bits a sample"
                )
            photometric = int(page.photometric)
            if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
                found = getattr(page.photometric, "name", photometric)
                raise BadSamples("input", f"{name}, 16 bits of {found}", "grey or RGB at 16 bits")
            planar = len(page.shape) == 3 and page.planarconfig == 2
            height, width = page.shape[1:] if planar else page.shape[:2]
            _check_size((width, height), name, max_samples)
            for start, length in zip(page.dataoffsets, page.databytecounts):  # it would allocate what they declare
                if start + length > len(data):
                    raise UnreadableFile("input", name, f"a complete TIFF; {length} bytes at {start} of {len(data)}")
            samples = page.asarray()
            orientation = page.tags.valueof(ORIENTATION_TAG, 1)
            profile = page.tags.valueof(ICC_TAG)
            extra = tuple(int(kind) for kind in page.extrasamples)
    except (WallocError, MemoryError):
        raise
    except Exception as error:  # and so does tifffile
        raise UnreadableFile("input", name, f"a TIFF that can be read ({reason(error)})") from error
    if planar:
        samples = np.moveaxis(samples, 0, -1)
    colours = 3 if photometric == RGB else 1
    planes = samples.shape[2] if samples.ndim == 3 else 1
    if samples.ndim not in (2, 3) or not colours <= planes <= colours + 1:
        raise BadSamples("input", f"{name}, shape {samples.shape}", "a grey or RGB image")
    samples = samples.reshape(height, width, planes)
    colour, alpha = samples[:, :, :colours], samples[:, :, colours:]
    if photometric == MIN_IS_WHITE:
        colour = np.iinfo(np.uint16).max - colour
    if planes == colours or extra[:1] not in ((ASSOCIATED,), (UNASSOCIATED,)):  # others mean no transparency
        samples = colour
    elif extra[0] == ASSOCIATED:  # colours that were multiplied by their alpha
        straight = colour.astype(np.float64) * 65535 / np.maximum(alpha, 1)
        samples = np.concatenate([np.rint(straight).clip(0, 65535).astype(np.uint16), alpha], axis=2)
    else:
        samples = np.concatenate([colour, alpha], axis=2)
    samples = samples[:, :, 0] if samples.shape[2] == 1 else samples
    return _upright(samples, orientation), bytes(profile) if profile else None


def _write_deep_tiff(image: ImageSamples) -> bytes:
    """uint16 (H, W) or (H, W, 3) as a TIFF without compression, with EXIF and ICC profile in its directory."""
    from PIL import Image, TiffImagePlugin

    samples = image.samples
    height, width = samples.shape[:2]
    planes = 1 if samples.ndim == 2 else samples.shape[2]
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    if image.exif is not None:
        exif = Image.Exif()
        exif.load(image.exif)
        for tag, value in exif.items():
            if tag not in STRUCTURAL_TAGS:
                directory[tag] = dict(exif.get_ifd(tag)) if tag in DIRECTORY_TAGS else value
    if image.icc_profile is not None:
        directory.tagtype[ICC_TAG] = 7
        directory[ICC_TAG] = image.icc_profile
    for tag in (256, 257, 273, 278, 279):  # sizes, and place and length of the samples: numbers of 32 bits
        directory.tagtype[tag] = 4
    directory[256], directory[257] = width, height
    directory[258] = (16,) * planes
    directory[259] = 1  # no compression
    directory[262] = MIN_IS_BLACK if planes == 1 else RGB
    directory[273] = 0  # the place of the samples: Pillow adds the end of the directory
    directory[277] = planes
    directory[278] = height  # rows in a strip
    directory[279] = samples.nbytes
    out = io.BytesIO()
    directory.save(out)
    out.write(samples.astype("<u2", copy=False).tobytes())
    return out.getvalue()


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


def _image(samples: NDArray, profile: bytes | None, exif: bytes | None) -> ImageSamples:
    """An image with its metadata; a profile of other colours than the samples have come to would falsify them."""
    space = {b"RGB ": 3, b"GRAY": 2}.get(profile[16:20], 0) if profile and profile[36:40] == b"acsp" else samples.ndim
    return ImageSamples(samples, profile if profile and space == samples.ndim else None, exif)


def _readable_exif(image: Any) -> Any:
    """The EXIF of an open image, empty if it cannot be read."""
    from PIL import Image

    try:
        return image.getexif()
    except Exception:  # Pillow raises whatever its parsing runs into
        return Image.Exif()


def _exif(exif: Any, data: bytes | None = None) -> bytes | None:
    """EXIF as bytes, without what tells how pixels are stored or turned; None where nothing is left or it is damaged.

    With `data`, a TIFF, its directory is read first.
    """
    try:
        if data is not None:
            exif.load(data)
        for tag in list(exif):
            if tag in STRUCTURAL_TAGS:
                del exif[tag]
        return exif.tobytes() if len(exif) else None
    except Exception:  # and so it does in writing
        return None
