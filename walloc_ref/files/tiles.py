"""Tile images (SPEC.md annex B): the upstream's own files of symbols, pixel for pixel, and `.npy`.

The upstream keeps symbols as an ordinary lossless image: PNG of one channel (L), WebP of three (RGB), or deflate TIFF of
four (CMYK). With N = C·n² planes of symbols, every channel of the image holds n by n of them side by side:

    b (c nh nw) h w  ->  b (nh h) (nw w) c            plane = c·n² + nh·n + nw

and a pixel is the symbol plus 2^(b-1). Three surprises:

1. Where N is no C·n², planes of the symbol 0 follow the last one, up to the next C·n². Reading checks that they are 0.
2. Byte 0 would be the symbol -2^(b-1), which the upstream's `to_bytes` admits but no encoder produces. It is refused.
3. Such an image stores neither the size of the signal nor the model, so both come from whoever reads it. Audio is
   zero-padded to whole columns and folded first, `b c (w h) -> b c w h`, h = 128 (256 in older scripts).

Source: `to_bytes`, `from_bytes`, `concatenate_channels`, `split_channels`, `latent_to_pil`, `pil_to_latent`.
"""

from __future__ import annotations

import io
import warnings
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, reason
from walloc_ref.files.image_files import load_pixels, webp_chunks

MODES = {1: "L", 3: "RGB", 4: "CMYK"}
"""Pillow's mode for each number of channels that a tile image can have."""

CHANNELS_OF_SUFFIX = {".png": 1, ".webp": 3, ".tif": 4, ".tiff": 4}
"""Channels of each kind of file, as the upstream writes them."""

SUFFIXES = (*CHANNELS_OF_SUFFIX, ".npy")
"""Names that files of symbols end in."""

FOLD = 128
"""Positions in a row of folded audio; 256 in older scripts of the upstream."""

MAX_FOLD = 1 << 12
"""Most positions in a row that are folded to, by way of the command line."""

FRAMES_MULTIPLE = 1 << 16
"""The upstream's scripts pad audio to a multiple of this many frames, which tells how much of a last row is padding."""

MAX_WEBP_SIZE = 16383
"""Largest width and height of a WebP."""

MAX_POSITIONS = 1 << 26
"""Latent positions, each with a symbol of every plane, that are read unless the caller says otherwise."""

MAX_NPY_HEADER = 4096
"""Longest header of an `.npy` file that is parsed; np.save writes 128 bytes."""

LOSSLESS_TIFF = ("raw", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw", "packbits")
"""Compressions of a TIFF that keep symbols as they are."""


# ---- arrays --------------------------------------------------------------------------------------------------------


def to_bytes(symbols: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Symbols of any shape to bytes, k + 2^(b-1).

    Raises
    ------
    BadSamples
        A symbol lies outside -(2^(b-1) - 1) … 2^(b-1) - 1.
    """
    zero = 1 << (bits - 1)
    low, high = int(symbols.min()), int(symbols.max())
    if low <= -zero or high >= zero:
        raise BadSamples("symbols", f"{low} to {high}", f"{1 - zero} to {zero - 1} at {bits} bits")
    return (symbols.astype(np.int16) + np.int16(zero)).astype(np.uint8)


def from_bytes(data: NDArray[np.uint8], bits: int) -> NDArray[np.int16]:
    """The inverse of `to_bytes`.

    Raises
    ------
    BadSamples
        A byte that is 0, or 2^b or more.
    """
    zero = 1 << (bits - 1)
    low, high = int(data.min()), int(data.max())
    if low < 1 or high >= 2 * zero:
        wrong = 0 if low < 1 else high
        place = tuple(int(i) for i in np.argwhere(data == wrong)[0])
        meaning = f"symbol {wrong - zero}, at {place}"
        raise BadSamples("tile image", f"byte {wrong} ({meaning})", f"bytes 1 to {2 * zero - 1} at {bits} bits")
    return data.astype(np.int16) - np.int16(zero)


def tiles_across(planes: int, channels: int) -> int:
    """n: the tiles along each side of an image of `channels` channels that holds `planes` planes."""
    n = 1
    while channels * n * n < planes:
        n += 1
    return n


def concatenate_channels(planes: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Planes side by side (upstream `concatenate_channels`).

    Parameters
    ----------
    planes : uint8, shape (C·n², h, w)
    channels : int
        C.

    Returns
    -------
    uint8, shape (n·h, n·w, C)

    Raises
    ------
    BadSamples
        The number of planes is no C·n².
    """
    count, h, w = planes.shape
    n = tiles_across(count, channels)
    if channels * n * n != count:
        raise BadSamples("planes", count, f"{channels}·n² for a whole n")
    tiles = planes.reshape(channels, n, n, h, w)  # [C, nh, nw, h, w]
    return tiles.transpose(1, 3, 2, 4, 0).reshape(n * h, n * w, channels)  # [nh·h, nw·w, C]


def split_channels(image: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """The inverse of `concatenate_channels`: (n·h, n·w, C) to (C·n², h, w).

    Raises
    ------
    BadSamples
        A size that is no multiple of n.
    """
    height, width, channels = image.shape
    if height % n or width % n:
        raise BadSamples(
            "tile image", f"{width}x{height} pixels", f"sizes that are multiples of {n}, for {n}·{n} tiles"
        )
    h, w = height // n, width // n
    tiles = image.reshape(n, h, n, w, channels)  # [nh, h, nw, w, C]
    return np.ascontiguousarray(tiles.transpose(4, 0, 2, 1, 3)).reshape(channels * n * n, h, w)


def to_image(symbols: NDArray[np.integer], bits: int, channels: int) -> NDArray[np.uint8]:
    """Symbols to the pixels of a tile image (upstream `latent_to_pil`).

    Parameters
    ----------
    symbols : integer, shape (N, h, w)
    bits : int
        Bits of a symbol.
    channels : int
        1, 3 or 4.

    Returns
    -------
    uint8, shape (n·h, n·w, C)
    """
    if symbols.ndim != 3 or symbols.size == 0:
        raise BadSamples("symbols.shape", symbols.shape, "(planes, h, w), no size 0")
    n = tiles_across(len(symbols), channels)
    surplus = channels * n * n - len(symbols)
    padded = np.pad(symbols, ((0, surplus), (0, 0), (0, 0)))
    return concatenate_channels(to_bytes(padded, bits), channels)


def from_image(image: NDArray[np.uint8], planes: int, bits: int) -> NDArray[np.int16]:
    """The inverse of `to_image` (upstream `pil_to_latent`).

    Parameters
    ----------
    image : uint8, shape (n·h, n·w, C)
    planes : int
        N; the planes after them must be 0.
    bits : int

    Returns
    -------
    int16, shape (N, h, w)

    Raises
    ------
    BadSamples
        Sizes that n does not divide, bytes that are no symbols, or padding planes that are not 0: in short, not the tile
        image of a model with these planes and bits.
    """
    n = tiles_across(planes, image.shape[2])
    symbols = from_bytes(split_channels(image, n), bits)
    if symbols[planes:].any():
        plane = planes + int(np.argmax(symbols[planes:].any(axis=(1, 2))))
        raise BadSamples(
            "tile image", f"plane {plane} is not 0", f"{planes} planes and then zeros; is it another model's?"
        )
    return np.ascontiguousarray(symbols[:planes])


def fold(symbols: NDArray[np.int16], height: int = FOLD) -> NDArray[np.int16]:
    """Symbols of audio as planes: (D, l), zero-padded to a multiple of `height`, to (D, l/height, height)."""
    planes, length = symbols.shape
    padded = np.pad(symbols, ((0, 0), (0, -length % height)))
    return padded.reshape(planes, -1, height)


def unfold(planes: NDArray[np.int16], length: int | None = None, *, J: int = 0) -> NDArray[np.int16]:  # noqa: N803
    """The inverse of `fold`: (D, w, h) to (D, l).

    Parameters
    ----------
    planes : integer, shape (D, w, h)
    length : int, optional
        l. Else the padding is told by how the upstream's scripts pad audio: a multiple of 2^16 frames, so that l - 2 is a
        multiple of 2^(16-J), if everything after that is 0 and fits in the last row; or all is kept.
    J : int
        Levels of the model, for the above.

    Raises
    ------
    BadSamples
        A `length` that needs more rows or fewer, or cuts off symbols other than 0.
    """
    count, rows, height = planes.shape
    flat = planes.reshape(count, rows * height)
    if length is None:
        step = max(1, FRAMES_MULTIPLE >> J)
        length = (rows * height - 2) // step * step + 2
        if not (rows - 1) * height < length or flat[:, length:].any():
            return flat
    if not (rows - 1) * height < length <= rows * height:
        raise BadSamples("length", length, f"{(rows - 1) * height + 1} to {rows * height} positions in {rows} rows")
    if flat[:, length:].any():
        raise BadSamples("length", length, "a length behind which all symbols are 0")
    return flat[:, :length]


# ---- files ---------------------------------------------------------------------------------------------------------


def write(symbols: NDArray[np.integer], bits: int, name: str) -> bytes:
    """Symbols as the kind of file that `name` ends in.

    Parameters
    ----------
    symbols : integer, shape (N, h, w); for `.npy` any shape
    bits : int
    name : str

    Raises
    ------
    UnreadableFile
        A name of another kind.
    BadSamples
        Symbols out of range, or more of them than the kind of file holds.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix == ".npy":
        out = io.BytesIO()
        np.lib.format.write_array(out, np.ascontiguousarray(symbols, dtype="<i2"), version=(1, 0), allow_pickle=False)
        return out.getvalue()
    if suffix not in CHANNELS_OF_SUFFIX:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(SUFFIXES))
    from PIL import Image

    channels = CHANNELS_OF_SUFFIX[suffix]
    pixels = to_image(symbols, bits, channels)
    height, width, _ = pixels.shape
    if suffix == ".webp" and max(height, width) > MAX_WEBP_SIZE:
        raise BadSamples("tile image", f"{width}x{height} pixels", f"at most {MAX_WEBP_SIZE} a side in WebP; take PNG")
    options: dict[str, dict[str, Any]] = {
        ".png": {"format": "PNG"},
        ".webp": {"format": "WEBP", "lossless": True},
        ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        ".tiff": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    }
    out = io.BytesIO()
    Image.frombytes(MODES[channels], (width, height), pixels.tobytes()).save(out, **options[suffix])
    return out.getvalue()


def read(
    data: bytes, planes: int, bits: int, *, name: str = "input", axes: int = 3, max_positions: int = MAX_POSITIONS
) -> NDArray[np.int16]:
    """Symbols of a file: PNG, WebP, TIFF or `.npy`, told by its first bytes.

    Parameters
    ----------
    data : bytes
    planes, bits : int
        Of the model; the file does not say.
    name : str
        For messages.
    axes : int
        Axes of an array in an `.npy` file: 3, or 2 for audio. (A batch axis of 1 before them is dropped.)
    max_positions : int
        Largest number of latent positions, h·w or l, that is accepted; checked before any pixel is decoded.

    Returns
    -------
    int16, shape (N, h, w); (N, l) for audio in an `.npy` file

    Raises
    ------
    UnreadableFile
        Not such a file, or a damaged one.
    BadSamples
        A lossy or otherwise unsuitable image, or bytes that are not symbols of such a model.
    LimitExceeded
        More positions than allowed.
    """
    if data.startswith(b"\x93NUMPY"):
        return _read_npy(data, planes, bits, name, axes, max_positions)
    return from_image(_read_pixels(data, planes, name, max_positions), planes, bits)


def _read_pixels(data: bytes, planes: int, name: str, max_positions: int) -> NDArray[np.uint8]:
    """Pixels of a lossless image, (H, W, C)."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the limit below is ours
    if data.startswith(b"RIFF"):
        _check_webp(data, planes, name, max_positions)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "TIFF")) as image:
                _check_image(image, planes, name, max_positions)
                load_pixels(image, name)
                return np.asarray(image).reshape(image.height, image.width, -1)
    except (BadSamples, LimitExceeded, UnreadableFile, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableFile("input", name, "a PNG, WebP, TIFF or .npy of symbols") from error
    except Exception as error:  # Pillow raises whatever its parsing runs into
        raise UnreadableFile("input", name, f"a PNG, WebP, TIFF or .npy of symbols ({reason(error)})") from error


def _check_image(image: Any, planes: int, name: str, max_positions: int) -> None:
    """Refuse what is no tile image, before its pixels are decoded."""
    channels = {mode: count for count, mode in MODES.items()}.get(image.mode)
    if channels is None:
        raise BadSamples("tile image", f"{name}, mode {image.mode}", "mode L, RGB or CMYK")
    _check_size(image.width, image.height, channels, planes, name, max_positions)
    if image.format == "TIFF" and image.info.get("compression") not in LOSSLESS_TIFF:
        found = image.info.get("compression")
        raise BadSamples("tile image", f"{name}, TIFF compression {found}", "one of " + ", ".join(LOSSLESS_TIFF))


def _check_size(width: int, height: int, channels: int, planes: int, name: str, max_positions: int) -> None:
    """Refuse an image that holds more than `max_positions` latents."""
    if width * height > tiles_across(planes, channels) ** 2 * max_positions:
        size = f"{width}x{height} pixels"
        raise LimitExceeded("tile image", f"{name}, {size}", f"at most {max_positions} latents; see --max-samples")


def _check_webp(data: bytes, planes: int, name: str, max_positions: int) -> None:
    """Refuse a WebP that is not one lossless image, and one that is too large."""
    for tag, first, size in webp_chunks(data):
        if tag in (b"VP8 ", b"ANIM", b"ANMF") or (tag == b"VP8X" and first & 2):
            raise BadSamples("tile image", f"{name}, lossy or animated WebP", "lossless WebP of one image")
        if size is not None:
            _check_size(*size, 3, planes, name, max_positions)
        if tag == b"VP8L":
            return
    raise UnreadableFile("input", name, "a complete WebP")


def _read_npy(data: bytes, planes: int, bits: int, name: str, axes: int, max_positions: int) -> NDArray[np.int16]:
    """Symbols of an `.npy` file. Its header is checked against the length of the data before anything is allocated."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise UnreadableFile("npy.version", version, "1.0 or 2.0")
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_NPY_HEADER)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=MAX_NPY_HEADER)
    except UnreadableFile:
        raise
    except Exception as error:  # the header is a Python literal, and its parser raises a dozen kinds of error
        raise UnreadableFile("input", name, f"a complete .npy file ({reason(error)})") from error
    if dtype.kind not in "iuf":
        raise BadSamples("npy.dtype", dtype, "integers, or floating-point numbers that are integers")
    if len(shape) == axes + 1 and shape[0] == 1:
        shape = shape[1:]
    if fortran:
        raise BadSamples("npy.fortran_order", True, "C order")
    if len(shape) != axes or shape[0] != planes or min(shape) < 1:
        raise BadSamples("npy.shape", shape, f"{planes} planes and {axes - 1} more axes, no size 0")
    count = 1
    for size in shape:
        count *= int(size)
    if count > planes * max_positions:
        raise LimitExceeded("npy.shape", f"{name}, {shape}", f"at most {max_positions} latents; see --max-samples")
    left = len(data) - file.tell()
    if count * dtype.itemsize != left:
        raise UnreadableFile("npy.shape", f"{name}, {shape} {dtype}", f"{left} bytes follow the header")
    array = np.frombuffer(data, dtype, count, file.tell()).reshape(shape)
    if dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise BadSamples("npy", f"{name}, fractions", "whole numbers")
    last = (1 << (bits - 1)) - 1
    low, high = int(array.min()), int(array.max())
    if low < -last or high > last:
        raise BadSamples("symbols", f"{low} to {high}", f"{-last} to {last} at {bits} bits")
    return array.astype(np.int16)
