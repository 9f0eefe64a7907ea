"""Image files in and out: depths, palettes, orientation, transparency, damage."""

from __future__ import annotations

import io
import tracemalloc
import zlib

import numpy as np
import png
import pytest
import tifffile
from models import photograph
from numpy.testing import assert_array_equal
from PIL import Image

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile
from walloc_ref.files import image_files


def pillow(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def deep_png(samples: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    writer = png.Writer(samples.shape[1], samples.shape[0], bitdepth=16, **options)
    writer.write(out, samples.reshape(samples.shape[0], -1))
    return out.getvalue()


def deep_tiff(samples: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


RGB, GREY = photograph(7, 9), photograph(7, 9, 1)[:, :, 0]
RGB16, GREY16 = photograph(7, 9, dtype=np.uint16), photograph(7, 9, 1, dtype=np.uint16)[:, :, 0]


def read(data: bytes, **options: object) -> np.ndarray:
    return image_files.read_image(data, "image", **options).samples


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "a.webp"])
@pytest.mark.parametrize("samples", [RGB, GREY], ids=["rgb", "grey"])
def test_lossless_8_bit(name, samples):
    restored = read(image_files.write_image(image_files.ImageSamples(samples), name))
    if name == "a.webp" and samples.ndim == 2:  # WebP knows no grey
        restored = restored[:, :, 0]
    assert_array_equal(restored, samples)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("samples", [RGB16, GREY16], ids=["rgb", "grey"])
def test_lossless_16_bit(name, samples):
    restored = read(image_files.write_image(image_files.ImageSamples(samples), name))
    assert restored.dtype == np.uint16
    assert_array_equal(restored, samples)


def test_jpeg_is_close():
    smooth = np.rint(np.linspace(0, 255, 64 * 64 * 3)).astype(np.uint8).reshape(64, 64, 3)
    restored = read(image_files.write_image(image_files.ImageSamples(smooth), "a.jpg"))
    assert np.abs(restored.astype(int) - smooth).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    """Every orientation turns the stored image back into the upright one."""
    blocks = np.kron(np.array([[10, 200, 60], [250, 30, 120]], np.uint8), np.ones((16, 16), np.uint8))
    upright = np.repeat(blocks[:, :, None], 3, axis=2)
    undo = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "tv", 7: "thv", 8: "th"}[orientation]
    stored = upright
    for step in undo:
        stored = {"h": lambda x: x[:, ::-1], "v": lambda x: x[::-1], "t": lambda x: x.swapaxes(0, 1)}[step](stored)
    exif = Image.Exif()
    exif[image_files.ORIENTATION_TAG] = orientation
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = image_files.read_image(
        pillow(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options), "p"
    )
    assert image.samples.shape == upright.shape
    assert np.abs(image.samples.astype(int) - upright).max() <= 3
    if image.exif is not None:
        again = Image.Exif()
        again.load(image.exif)
        assert image_files.ORIENTATION_TAG not in again


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_tiff(orientation):
    data = deep_tiff(RGB16, extratags=[(image_files.ORIENTATION_TAG, 3, 1, orientation, True)])
    exif = Image.Exif()
    exif[image_files.ORIENTATION_TAG] = orientation
    small = Image.fromarray((RGB16 >> 8).astype(np.uint8))
    expected = image_files.read_image(pillow(small, "PNG", exif=exif), "p").samples
    assert_array_equal((read(data) >> 8).astype(np.uint8), expected)


def test_palette_bilevel_cmyk_and_frames():
    palette = Image.fromarray(RGB).quantize(8)
    assert_array_equal(read(pillow(palette)), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(GREY).convert("1")
    assert_array_equal(read(pillow(bilevel)), np.asarray(bilevel) * np.uint8(255))
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert read(pillow(cmyk, "TIFF")).shape == RGB.shape
    frames = pillow(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    assert_array_equal(read(frames), RGB)


def test_opaque_alpha_is_dropped_and_transparency_needs_a_background():
    opaque = np.dstack([RGB, np.full((7, 9), 255, np.uint8)])
    assert_array_equal(read(pillow(Image.fromarray(opaque))), RGB)
    clear = opaque.copy()
    clear[0, 0, 3], clear[0, 1, 3] = 0, 128
    with pytest.raises(BadSamples, match="transparent pixels; .*--background"):
        read(pillow(Image.fromarray(clear)))
    blended = read(pillow(Image.fromarray(clear)), background="#ff0000")
    assert blended[0, 0].tolist() == [255, 0, 0]
    expected = np.rint(RGB[0, 1] * (128 / 255) + np.array([255, 0, 0]) * (1 - 128 / 255))
    assert_array_equal(blended[0, 1], expected)
    assert_array_equal(blended[1:], RGB[1:])
    with pytest.raises(BadSamples, match="background: sky"):
        read(pillow(Image.fromarray(clear)), background="sky")
    grey = pillow(Image.fromarray(np.dstack([GREY, clear[:, :, 3]]), "LA"))
    assert read(grey, background="white").shape == GREY.shape
    assert read(grey, background="red").shape == RGB.shape
    palette = Image.fromarray(RGB).quantize(8)
    with pytest.raises(BadSamples, match="transparent"):
        read(pillow(palette, transparency=0))


def test_deep_alpha():
    alpha = np.full((7, 9), 65535, np.uint16)
    assert_array_equal(read(deep_png(np.dstack([RGB16, alpha]), greyscale=False, alpha=True)), RGB16)
    assert_array_equal(read(deep_png(np.dstack([GREY16, alpha]), greyscale=True, alpha=True)), GREY16)
    alpha[3, 3] = 0
    with pytest.raises(BadSamples, match="transparent"):
        read(deep_png(np.dstack([RGB16, alpha]), greyscale=False, alpha=True))


def test_planar_and_wrong_deep_tiff():
    planar = deep_tiff(np.ascontiguousarray(np.moveaxis(RGB16, -1, 0)), photometric="rgb", planarconfig="separate")
    assert_array_equal(read(planar), RGB16)
    with pytest.raises(BadSamples, match="shape|samples of 32 bits"):
        read(deep_tiff(np.zeros((7, 9, 5), np.uint16), photometric="minisblack", planarconfig="contig"))
    with pytest.raises((BadSamples, UnreadableFile)):
        read(deep_tiff(np.zeros((7, 9), np.float32)))


def test_metadata():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = pillow(Image.fromarray(RGB), icc_profile=b"profile", exif=exif)
    image = image_files.read_image(data, "p")
    assert image.icc_profile == b"profile"
    again = Image.Exif()
    again.load(image.exif)
    assert again[0x010E] == "a description"
    restored = image_files.read_image(image_files.write_image(image, "a.png"), "a.png")
    assert (restored.icc_profile, restored.exif) == (image.icc_profile, image.exif)


DAMAGED = {
    "empty": b"",
    "text": b"not an image at all",
    "png": pillow(Image.fromarray(RGB))[:60],
    "deep png": deep_png(RGB16, greyscale=False)[:60],
    "png header only": b"\x89PNG\r\n\x1a\n",
    "jpeg": pillow(Image.fromarray(photograph(64, 64)), "JPEG")[:300],
    "webp": pillow(Image.fromarray(photograph(64, 64)), "WEBP")[:100],
    "tiff": pillow(Image.fromarray(RGB), "TIFF")[:100],
    "deep tiff": deep_tiff(RGB16)[:200],
    "tiff magic": b"II*\0",
    "bmp": pillow(Image.fromarray(RGB), "BMP")[:80],
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged(fault):
    with pytest.raises(UnreadableFile, match="input: image; "):
        read(DAMAGED[fault])


def test_limits_are_checked_before_pixels_are_decoded():
    for data in (pillow(Image.fromarray(RGB)), deep_png(RGB16, greyscale=False), deep_tiff(RGB16)):
        with pytest.raises(LimitExceeded, match="image, 9x7; at most 100 samples"):
            read(data, max_samples=100)
    declared = bytearray(pillow(Image.fromarray(RGB)))
    declared[16:24] = b"\x7f\xff\xff\xff" * 2
    import zlib

    declared[29:33] = zlib.crc32(bytes(declared[12:29])).to_bytes(4, "big")
    with pytest.raises(LimitExceeded, match="2147483647x2147483647"):
        read(bytes(declared))


def test_names_that_cannot_be_written():
    with pytest.raises(UnreadableFile, match=r"output: a\.gif; a name that ends in \.png"):
        image_files.write_image(image_files.ImageSamples(RGB), "a.gif")
    with pytest.raises(UnreadableFile, match=r"for 16-bit samples"):
        image_files.write_image(image_files.ImageSamples(RGB16), "a.jpg")


# ---- kinds, metadata and limits -------------------------------------------------------------------------------------


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[image_files.ORIENTATION_TAG] = orientation
    exif[0x010E] = "a description"
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_png(orientation):
    image = image_files.ImageSamples(RGB16, exif=turned(orientation).tobytes())
    found = image_files.read_image(image_files.write_image(image, "a.png"), "a.png")
    small = pillow(Image.fromarray((RGB16 >> 8).astype(np.uint8)), exif=turned(orientation))
    assert_array_equal((found.samples >> 8).astype(np.uint8), read(small))
    assert found.samples.dtype == np.uint16


@pytest.mark.parametrize("samples", [RGB16, GREY16], ids=["rgb", "grey"])
def test_transparent_colour_of_deep_png(samples):
    colour = samples[3, 4]
    transparent = tuple(map(int, colour)) if samples.ndim == 3 else int(colour)
    data = deep_png(samples, greyscale=samples.ndim == 2, transparent=transparent)
    with pytest.raises(BadSamples, match="transparent"):
        read(data)
    found = read(data, background="white")
    assert (found[3, 4] == 65535).all()
    assert_array_equal(found[0], samples[0])


@pytest.mark.parametrize("samples", [RGB16, GREY16, RGB], ids=["rgb16", "grey16", "rgb8"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_metadata_of_every_depth(samples, name):
    exif = turned(1)
    exif.get_ifd(34665)[0x9003] = "2026:01:02 03:04:05"
    image = image_files.ImageSamples(samples, b"a profile", exif.tobytes())
    found = image_files.read_image(image_files.write_image(image, name), name)
    assert_array_equal(found.samples, samples)
    assert found.icc_profile == b"a profile"
    again = Image.Exif()
    again.load(found.exif)
    assert dict(again.get_ifd(34665)) == {0x9003: "2026:01:02 03:04:05"}
    assert set(again) <= {0x010E, 34665} and again[0x010E] == "a description"


def test_meaning_of_deep_tiff():
    assert_array_equal(read(deep_tiff(65535 - GREY16, photometric="miniswhite")), GREY16)
    cmyk = np.dstack([RGB16, GREY16])
    with pytest.raises(BadSamples, match="16 bits of SEPARATED; grey or RGB"):
        read(deep_tiff(cmyk, photometric="separated"))
    assert_array_equal(read(deep_tiff(cmyk, photometric="rgb", extrasamples=["unspecified"])), RGB16)
    with pytest.raises(BadSamples, match="transparent"):
        read(deep_tiff(cmyk, photometric="rgb", extrasamples=["unassalpha"]))
    half = np.full((7, 9, 1), 32768, np.uint16)
    straight = read(
        deep_tiff(np.dstack([RGB16, half]), photometric="rgb", extrasamples=["unassalpha"]), background="#000"
    )
    multiplied = np.rint(RGB16 * (32768 / 65535)).astype(np.uint16)
    associated = deep_tiff(np.dstack([multiplied, half]), photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read(associated, background="#000").astype(int) - straight).max() <= 1


KINDS = {
    "int16": "signed integers of 16 bits",
    "int8": "signed integers of 8 bits",
    "float16": "floats of 16 bits",
    "uint32": "integers of 32 bits",
    "float32": "floats of 32 bits",
}


@pytest.mark.parametrize("dtype", KINDS)
def test_other_samples_of_tiff_are_named(dtype):
    with pytest.raises(BadSamples, match=f"image, {KINDS[dtype]}; unsigned integers of 8 or 16 bits"):
        read(deep_tiff(np.zeros((7, 9), dtype)))


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "PCX", "TGA", "ICO"])
def test_other_kinds_are_not_opened(kind):
    with pytest.raises(UnreadableFile, match=r"image; an image \(PNG, JPEG, WebP, TIFF, BMP\)"):
        read(pillow(Image.fromarray(RGB), kind))


def test_damaged_fax(capfd):
    """libtiff makes up what it cannot decode, and says so on the standard error only."""
    data = bytearray(pillow(Image.fromarray(photograph(64, 64)[:, :, 0]).convert("1"), "TIFF", compression="group4"))
    read(bytes(data))
    data[20:60] = b"\x55" * 40
    with pytest.raises(UnreadableFile, match="Fax4Decode"):
        read(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_profile_of_other_colours_is_left_out():
    def profile(space: bytes) -> bytes:
        return bytes(16) + space + bytes(16) + b"acsp" + bytes(88)

    for mode, space, kept in (
        ("RGB", b"RGB ", True),
        ("CMYK", b"CMYK", False),
        ("L", b"GRAY", True),
        ("L", b"RGB ", False),
    ):
        data = pillow(Image.fromarray(RGB).convert(mode), "JPEG", icc_profile=profile(space))
        assert image_files.read_image(data, "p").icc_profile == (profile(space) if kept else None)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_foreign_metadata(name):
    """Junk as EXIF either is written, and then does not keep the image from being read, or is refused in one line."""
    image = image_files.ImageSamples(RGB, b"profile", b"junk" * 5)
    try:
        data = image_files.write_image(image, name)
    except UnreadableFile as error:
        assert str(error).startswith(f"output: {name}, ICC profile and EXIF; those that ")
        assert name == "a.tif"
    else:
        assert image_files.read_image(data, name).exif is None


def test_limits_of_what_is_written():
    exif = turned(1)
    exif[0x9286] = b"x" * 70000
    long = image_files.ImageSamples(RGB, exif=exif.tobytes())
    with pytest.raises(UnreadableFile, match=r"EXIF of \d+ bytes; at most 65527 in \.jpg; or \.png, or --no-metadata"):
        image_files.write_image(long, "a.jpg")
    assert image_files.read_image(image_files.write_image(long, "a.png"), "a").exif is not None
    for name, size in (("a.webp", 16383), ("a.jpg", 65500)):
        image_files.check_image(name, np.dtype("u1"), (size, 1))
        assert (
            read(image_files.write_image(image_files.ImageSamples(np.zeros((1, size), np.uint8)), name)).shape[1]
            == size
        )
        wide = image_files.ImageSamples(np.zeros((1, size + 1), np.uint8))
        with pytest.raises(UnreadableFile, match=f"{size + 1}x1; at most {size} a side"):
            image_files.write_image(wide, name)
    with pytest.raises(UnreadableFile, match=r"bytes of samples in \.bmp"):
        image_files.check_image("a.bmp", np.dtype("u1"), (40000, 40000))


def test_no_exception_of_a_library_comes_through(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(UnreadableFile, match="output: a.png, 9x7; a kind of file that holds it"):
        image_files.write_image(image_files.ImageSamples(RGB), "a.png")


def test_images_of_very_many_rows_are_refused_before_they_are_decoded():
    """A PNG of 1 by 2^24 + 1 pixels is 33 kB, and an address for every row would be 128 MB."""
    from worst import png as tall_png

    data = tall_png(1, image_files.MAX_READ_SIDE + 1)
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match="rows"):
        image_files.read_image(data, "tall.png")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_pixels_that_the_bytes_of_a_png_cannot_hold_are_not_made_room_for():
    data = bytearray(pillow(Image.fromarray(photograph(8, 11))))
    data[20:24] = (1 << 23).to_bytes(4, "big")  # rows
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    tracemalloc.start()
    with pytest.raises(UnreadableFile, match="cannot hold"):
        image_files.read_image(bytes(data), "tall.png")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
