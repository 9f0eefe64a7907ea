"""Tile images: pixels against stored ones and against the upstream, both ways; and every refusal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import upstream
from models import photograph, tiny_codec, tiny_model
from numpy.testing import assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import cli
from walloc_ref import model as models
from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile
from walloc_ref.files import tiles


def random_symbols(planes: int, h: int, w: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    last = (1 << (bits - 1)) - 1
    symbols = np.random.default_rng(seed).integers(-last, last + 1, (planes, h, w)).astype(np.int16)
    symbols.flat[:2] = -last, last
    return symbols


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


# ---- arrays --------------------------------------------------------------------------------------------------------


def test_stored_pixels_of_one_channel():
    symbols = np.arange(8, dtype=np.int16).reshape(4, 1, 2) - 4  # planes side by side, two rows of them
    expected = np.array([[124, 125, 126, 127], [128, 129, 130, 131]])
    assert_array_equal(tiles.to_image(symbols, 8, 1)[:, :, 0], expected)


def test_stored_pixels_of_three_channels():
    symbols = np.arange(12, dtype=np.int16).reshape(12, 1, 1)  # plane = c·4 + nh·2 + nw
    expected = np.array([[[0, 4, 8], [1, 5, 9]], [[2, 6, 10], [3, 7, 11]]]) + 128
    assert_array_equal(tiles.to_image(symbols, 8, 3), expected)


def test_stored_pixels_with_padding_planes():
    symbols = np.arange(1, 6, dtype=np.int16).reshape(5, 1, 1)  # C·n² is 16: eleven planes of 0 follow
    expected = np.array([[[1, 5, 0, 0], [2, 0, 0, 0]], [[3, 0, 0, 0], [4, 0, 0, 0]]]) + 4
    with pytest.raises(BadSamples, match="0 to 5; -3 to 3 at 3 bits"):
        tiles.to_image(symbols, 3, 4)
    assert_array_equal(tiles.to_image(np.minimum(symbols, 3), 3, 4), np.minimum(expected, 7))


@pytest.mark.parametrize(
    ("planes", "channels", "n"),
    [(1, 1, 1), (12, 1, 4), (12, 3, 2), (12, 4, 2), (48, 3, 4), (27, 3, 3), (28, 3, 4), (243, 3, 9)],
)
def test_tiles_across(planes, channels, n):
    assert tiles.tiles_across(planes, channels) == n


@pytest.mark.parametrize("bits", range(2, 9))
def test_bytes(bits):
    last = (1 << (bits - 1)) - 1
    symbols = np.arange(-last, last + 1, dtype=np.int16)
    assert_array_equal(tiles.to_bytes(symbols, bits), np.arange(1, 2 * last + 2))
    assert_array_equal(tiles.from_bytes(tiles.to_bytes(symbols, bits), bits), symbols)
    with pytest.raises(BadSamples):
        tiles.to_bytes(np.array([-last - 1]), bits)
    with pytest.raises(BadSamples):
        tiles.to_bytes(np.array([last + 1]), bits)


def test_byte_zero_is_refused_and_named():
    image = tiles.to_image(random_symbols(12, 3, 2), 8, 3)
    image[4, 1, 2] = 0
    # row 4 is the second of tile row 1, column 1 the second of tile column 0: plane 2·4 + 1·2 + 0
    with pytest.raises(BadSamples, match=r"byte 0 \(symbol -128, at \(10, 1, 1\)\); bytes 1 to 255 at 8 bits"):
        tiles.from_image(image, 12, 8)


def test_byte_beyond_the_last_symbol_is_refused():
    with pytest.raises(BadSamples, match="byte 8 "):
        tiles.from_bytes(np.array([1, 8], dtype=np.uint8), 3)


def test_planes_that_are_not_zero_are_another_model():
    image = tiles.to_image(random_symbols(16, 2, 2), 8, 1)
    with pytest.raises(BadSamples, match="plane 12 is not 0; 12 planes and then zeros"):
        tiles.from_image(image, 12, 8)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(BadSamples, match="5x4 pixels"):
        tiles.split_channels(np.zeros((4, 5, 1), np.uint8), 2)


def test_concatenate_refuses_what_is_no_square():
    with pytest.raises(BadSamples, match="planes: 5"):
        tiles.concatenate_channels(np.zeros((5, 2, 2), np.uint8), 1)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
@pytest.mark.parametrize("height", [128, 256])
def test_fold(length, height):
    symbols = random_symbols(3, 1, length)[:, 0]
    planes = tiles.fold(symbols, height)
    assert planes.shape == (3, -(-length // height), height)
    assert planes[1, (length - 1) // height, (length - 1) % height] == symbols[1, -1]  # b c (w h) -> b c w h
    assert_array_equal(tiles.unfold(planes, length), symbols)


def test_unfold_knows_how_the_upstream_pads():
    l_upstream = 3 * (1 << 16 >> 8) + 2  # three times 2^16 frames at J = 8
    symbols = random_symbols(4, 1, l_upstream)[:, 0]
    assert_array_equal(tiles.unfold(tiles.fold(symbols), J=8), symbols)
    shorter = np.where(random_symbols(4, 1, 700)[:, 0] == 0, 1, random_symbols(4, 1, 700)[:, 0]).astype(np.int16)
    assert tiles.unfold(tiles.fold(shorter), J=8).shape == (4, 768)  # another length: everything is kept


def test_unfold_refuses_a_wrong_length():
    planes = tiles.fold(np.ones((2, 300), np.int16))
    for length in (0, 256, 385):
        with pytest.raises(BadSamples, match="257 to 384 positions in 3 rows"):
            tiles.unfold(planes, length)
    with pytest.raises(BadSamples, match="all symbols are 0"):
        tiles.unfold(planes, 299)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", tiles.SUFFIXES)
@pytest.mark.parametrize(
    ("planes", "h", "w", "bits"), [(1, 1, 1, 2), (12, 5, 7, 8), (48, 3, 2, 8), (5, 1, 9, 3), (27, 8, 1, 6)]
)
def test_round_trip(suffix, planes, h, w, bits):
    symbols = random_symbols(planes, h, w, bits)
    data = tiles.write(symbols, bits, "name" + suffix.upper())
    found = tiles.read(data, planes, bits)
    assert found.dtype == np.int16
    assert_array_equal(found, symbols)
    if suffix != ".npy":
        channels = tiles.CHANNELS_OF_SUFFIX[suffix]
        image = Image.open(io.BytesIO(data))
        assert image.mode == tiles.MODES[channels]
        assert_array_equal(
            np.asarray(image).reshape(image.height, image.width, -1), tiles.to_image(symbols, bits, channels)
        )
    else:
        assert_array_equal(np.load(io.BytesIO(data)), symbols)


def test_kinds_of_file():
    symbols = random_symbols(12, 4, 4)
    assert tiles.write(symbols, 8, "x.png").startswith(b"\x89PNG")
    assert tiles.write(symbols, 8, "x.webp")[8:16] == b"WEBPVP8L"
    assert Image.open(io.BytesIO(tiles.write(symbols, 8, "x.tif"))).info["compression"] == "tiff_adobe_deflate"
    with pytest.raises(UnreadableFile, match=r"x\.jpg; a name that ends in \.png"):
        tiles.write(symbols, 8, "x.jpg")
    with pytest.raises(BadSamples, match="at most 16383 a side in WebP"):
        tiles.write(np.zeros((3, 1, 16384), np.int16), 8, "x.webp")
    with pytest.raises(BadSamples, match="no size 0"):
        tiles.write(np.zeros((3, 0, 4), np.int16), 8, "x.png")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_any_mode_in_any_lossless_file(suffix):
    """The number of channels is the image's, not its file's."""
    symbols = random_symbols(12, 4, 4)
    kind = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[suffix]
    options = {"lossless": True} if kind == "WEBP" else {}
    for channels in (1, 3, 4):
        if (kind, channels) in (("PNG", 4), ("WEBP", 1), ("WEBP", 4)):
            continue
        pixels = tiles.to_image(symbols, 8, channels)
        image = Image.frombytes(tiles.MODES[channels], pixels.shape[1::-1], pixels.tobytes())
        assert_array_equal(tiles.read(file_of(image, kind, **options), 12, 8), symbols)


RGB = Image.fromarray(tiles.to_image(random_symbols(12, 4, 4), 8, 3))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (lambda: file_of(RGB, "WEBP", quality=90), "lossy or animated WebP"),
        (
            lambda: file_of(RGB, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", RGB.size)]),
            "animated",
        ),
        (lambda: file_of(RGB, "TIFF", compression="jpeg"), "TIFF compression jpeg"),
        (lambda: file_of(RGB.convert("RGBA"), "PNG"), "mode RGBA"),
        (lambda: file_of(RGB.quantize(16), "PNG"), "mode P"),
        (lambda: file_of(RGB.convert("1"), "PNG"), "mode 1"),
        (lambda: file_of(Image.new("I;16", (4, 4)), "PNG"), "mode I;16"),
    ],
)
def test_unsuitable_images_are_refused(data, match):
    with pytest.raises(BadSamples, match=match):
        tiles.read(data(), 12, 8)


@pytest.mark.parametrize("suffix", tiles.SUFFIXES)
def test_truncation_is_refused(suffix):
    data = tiles.write(random_symbols(12, 9, 9), 8, "x" + suffix)
    for length in range(0, len(data) - 20, 7):  # behind the pixels PNG and TIFF have bytes that nobody needs
        with pytest.raises((UnreadableFile, BadSamples)):
            tiles.read(data[:length], 12, 8)


def test_other_files_are_refused():
    for data in (b"", b"GIF89a", file_of(RGB, "JPEG"), file_of(RGB, "BMP"), b"\x93NUMPY", b"\x89WLC\x01"):
        with pytest.raises(UnreadableFile):
            tiles.read(data, 12, 8)


@pytest.mark.parametrize("suffix", tiles.SUFFIXES)
def test_limit_is_checked(suffix):
    data = tiles.write(random_symbols(12, 4, 5), 8, "x" + suffix)
    assert tiles.read(data, 12, 8, max_positions=20).shape == (12, 4, 5)
    with pytest.raises(LimitExceeded, match="at most 19 latents"):
        tiles.read(data, 12, 8, max_positions=19)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_declared_pixels_are_not_allocated(suffix):
    import struct
    import tracemalloc
    import zlib

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    if suffix == ".webp":
        sizes = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
        image = b"VP8L" + struct.pack("<I", 100) + b"\x2f" + sizes + bytes(95)
        extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\x0f" * 2
        for body in (image, extended + image):
            with pytest.raises(LimitExceeded):
                tiles.read(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, 12, 8, max_positions=1 << 20)
        return
    header = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        tiles.read(data, 12, 8)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def npy(array: object, **options: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def npy_header(text: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


@pytest.mark.parametrize("dtype", ["int8", "int16", ">i2", "int32", "uint64", "float16", "float32", "float64"])
def test_npy_of_any_number(dtype):
    symbols = np.abs(random_symbols(3, 4, 5))
    assert_array_equal(tiles.read(npy(symbols.astype(dtype)), 3, 8), symbols)
    assert_array_equal(tiles.read(npy(symbols.astype(dtype)[None]), 3, 8), symbols)  # a batch of one
    assert_array_equal(tiles.read(npy(symbols[:, 0].astype(dtype)), 3, 8, axes=2), symbols[:, 0])


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (npy(np.full((3, 2, 2), 0.5)), BadSamples, "fractions"),
        (npy(np.full((3, 2, 2), np.nan)), BadSamples, "fractions"),
        (npy(np.full((3, 2, 2), -128)), BadSamples, "-128 to -128; -127 to 127"),
        (npy(np.full((3, 2, 2), 1e30)), BadSamples, "-127 to 127"),
        (npy(np.zeros((4, 2, 2), int)), BadSamples, r"npy.shape: \(4, 2, 2\); 3 planes and 2 more axes"),
        (npy(np.zeros((3, 2), int)), BadSamples, "npy.shape"),
        (npy(np.zeros((3, 0, 2), int)), BadSamples, "no size 0"),
        (npy(np.zeros((3, 2, 2), complex)), BadSamples, "npy.dtype"),
        (npy(np.zeros((3, 2, 2), bool)), BadSamples, "npy.dtype"),
        (npy(np.asfortranarray(np.zeros((3, 2, 2), int))), BadSamples, "fortran"),
        (npy(np.zeros((3, 2, 2), int))[:-1], UnreadableFile, "95 bytes follow"),
        (npy(np.zeros((3, 2, 2), int)) + b"\0", UnreadableFile, "97 bytes follow"),
        (
            npy_header("{'descr': '<i2', 'fortran_order': False, 'shape': (3, 999999999, 99999999)}\n"),
            LimitExceeded,
            "latents",
        ),
        (npy_header("{'descr': '<i2', 'fortran_order': False, 'shape': (3, -1, -1)}\n"), BadSamples, "npy.shape"),
        (
            npy_header("{'descr': '<i2', 'fortran_order': False, 'shape': (3, 4, 4)}\n"),
            UnreadableFile,
            "0 bytes follow",
        ),
        (npy_header("(" * 3000), UnreadableFile, "complete .npy"),
        (npy_header("__import__('os').system('true')"), UnreadableFile, "complete .npy"),
        (b"\x93NUMPY\x03\x00" + bytes(99), UnreadableFile, "npy.version"),
    ],
)
def test_npy_refusals(data, error, match):
    with pytest.raises(error, match=match):
        tiles.read(data, 3, 8)


def test_npy_never_unpickles(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (canary,))

    array = np.empty((3, 2, 2), object)
    array[:] = Evil()
    data = npy(array, allow_pickle=True)
    with pytest.raises(BadSamples, match="npy.dtype: object"):
        tiles.read(data, 3, 8)
    assert not canary.exists()


# ---- the upstream --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "planes"), [(".png", 16), (".png", 12), (".webp", 12), (".webp", 48), (".tif", 16), (".tif", 12)]
)
@pytest.mark.parametrize("bits", [8, 4])
def test_upstream_both_ways(suffix, planes, bits, monkeypatch):
    torch, walloc = upstream.load()
    channels = tiles.CHANNELS_OF_SUFFIX[suffix]

    def pil_to_tensor():
        return lambda image: torch.tensor(np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1))

    monkeypatch.setattr(walloc, "PILToTensor", pil_to_tensor)
    symbols = random_symbols(planes, 6, 5, bits)
    padded = channels * tiles.tiles_across(planes, channels) ** 2
    latent = torch.nn.functional.pad(torch.tensor(symbols)[None].float(), (0, 0, 0, 0, 0, padded - planes))
    theirs = walloc.latent_to_pil(latent, bits, channels)[0]
    ours = tiles.write(symbols, bits, "x" + suffix)
    image = Image.open(io.BytesIO(ours))
    assert image.mode == theirs.mode
    assert_array_equal(np.asarray(image), np.asarray(theirs))
    back = walloc.pil_to_latent([image], padded, bits, channels)  # their reader, our file
    assert torch.equal(back, latent)
    options = {".png": {}, ".webp": {"lossless": True}, ".tif": {"compression": "tiff_adobe_deflate"}}[suffix]
    out = io.BytesIO()
    theirs.save(out, format={".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[suffix], **options)
    assert_array_equal(tiles.read(out.getvalue(), planes, bits), symbols)  # our reader, their file


def test_upstream_fold():
    torch, _ = upstream.load()
    from einops import rearrange

    symbols = random_symbols(3, 1, 512)[:, 0]
    theirs = rearrange(torch.tensor(symbols)[None], "b c (w h) -> b c w h", h=128)[0]
    assert_array_equal(tiles.fold(symbols, 128), theirs.numpy())


# ---- streams and the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["LinearCodec2D", "ResidualCodec2D", "Codec1D"])
def test_streams_from_symbols(architecture):
    codec = tiny_codec(architecture)
    samples = photograph(21, 30)
    if codec.config.kind == "audio":
        samples = np.random.default_rng(0).integers(-9000, 9000, (1000, 2)).astype(np.int16)
    sizes, m = samples.shape[: codec.config.axes], codec.config.multiple
    data = codec.encode(samples)
    symbols = walloc_ref.decode_symbols(data, codec=codec)
    again = codec.encode_symbols(symbols, sizes)
    assert_array_equal(walloc_ref.decode_symbols(again, codec=codec), symbols)
    decoded = walloc_ref.decode(again, codec=codec)
    if codec.config.kind == "image":  # audio loses its mean and gain
        assert_array_equal(decoded, walloc_ref.decode(data, codec=codec))
    assert_array_equal(codec.samples_of_symbols(symbols, sizes), decoded)
    padded = walloc_ref.decode(codec.encode_symbols(symbols), codec=codec)
    assert padded.shape[: codec.config.axes] == tuple(-(-n // m) * m for n in sizes)
    for wrong in (symbols[:-1], symbols[:, :0], symbols.astype(float), symbols * 0 + 128):
        with pytest.raises(BadSamples):
            codec.encode_symbols(wrong)
    for wrong_sizes in ((1,) * codec.config.axes, (10,) * (codec.config.axes + 1), (0,) * codec.config.axes):
        with pytest.raises(BadSamples, match="sizes"):
            codec.encode_symbols(symbols, wrong_sizes)


@pytest.mark.parametrize(("step", "whole"), [(0.5, 1 << 13), (1.0, 8), (2.0, 1 << 13), (3.0, 8)])
def test_symbols_of_any_step_give_the_stream_again(step, whole, tmp_path, monkeypatch):
    """Exported and imported with the step that they were made with, symbols are the same file and the same image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("walloc_ref.codec.WHOLE_POSITIONS", whole)
    monkeypatch.setattr("walloc_ref.codec.WINDOW", 8)
    model = tiny_model("Codec2D", name="tiny")
    weights = np.arange(40, 40 + model.config.planes, dtype=np.uint8)
    model = replace(model, step_weights=weights)
    Path("tiny.safetensors").write_bytes(models.save(model))
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    data = walloc_ref.Codec(model).encode(photograph(70, 90), step=step)
    Path("a.wlc").write_bytes(data)
    header = walloc_ref.info(data)
    assert header.weighted == (step > 1) and bool(header.window) == (whole == 8)
    assert cli.main(["symbols", "export", "a.wlc", "a.png"]) == 0
    told = ["--model", "tiny", "--size", "90x70", "--step", str(step)]
    assert cli.main(["symbols", "import", "a.png", "b.wlc", *told]) == 0
    assert Path("b.wlc").read_bytes() == data
    assert cli.main(["symbols", "decode", "a.png", "b.png", *told]) == 0
    assert_array_equal(np.asarray(Image.open("b.png")), walloc_ref.decode(data))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    model = tiny_model(name="tiny")
    Path("tiny.safetensors").write_bytes(models.save(model))
    codec = tiny_codec(name="tiny")
    Path("a.wlc").write_bytes(codec.encode(photograph(30, 22)))
    Path("set/deep").mkdir(parents=True)
    for number, name in enumerate(("set/one.webp", "set/two.png", "set/deep/three.tif")):
        symbols = codec.to_symbols(np.moveaxis(photograph(16, 24, seed=number) / 255 - 0.5, 2, 0))
        Path(name).write_bytes(tiles.write(symbols, 8, name))
    Path("set/notes.txt").write_text("not symbols")
    return tmp_path


@pytest.mark.parametrize("suffix", tiles.SUFFIXES)
def test_export_and_import(folder, suffix, capsys):
    assert cli.main(["symbols", "export", "a.wlc", f"a{suffix}"]) == 0
    assert "6 planes of 8x6, symbols verified" in capsys.readouterr().out
    assert cli.main(["symbols", "import", f"a{suffix}", "b.wlc", "--model", "tiny", "--size", "22x30"]) == 0
    assert Path("a.wlc").read_bytes() == Path("b.wlc").read_bytes()
    assert cli.main(["symbols", "import", f"a{suffix}", "b.wlc", "--model", "tiny"]) == 0
    assert walloc_ref.info(Path("b.wlc").read_bytes()).sizes == (32, 24)


def test_a_folder_in_one_command(folder, capsys):
    assert cli.main(["symbols", "decode", "set", "out", "--model", "tiny"]) == 0
    assert "out: 3 files, 0 failed" in capsys.readouterr().out
    assert sorted(str(p) for p in Path("out").rglob("*.*")) == ["out/deep/three.png", "out/one.png", "out/two.png"]
    assert cli.main(["symbols", "import", "set", "out", "--model", "tiny"]) == 0
    for name in ("one", "two", "deep/three"):
        pixels = np.asarray(Image.open(f"out/{name}.png"))
        assert_array_equal(walloc_ref.decode(Path(f"out/{name}.wlc").read_bytes()), pixels)
    assert cli.main(["symbols", "decode", "set", "out", "--model", "tiny", "--format", ".bmp"]) == 0
    assert Path("out/one.bmp").is_file()


def test_a_bad_file_does_not_stop_a_folder(folder, capsys):
    Path("set/bad.webp").write_bytes(b"RIFF")
    assert cli.main(["symbols", "decode", "set", "out", "--model", "tiny"]) == 3
    captured = capsys.readouterr()
    assert "out: 4 files" not in captured.out and "3 files, 1 failed" in captured.out
    assert captured.err.count("walloc-ref: set/bad.webp: ") == 1 and "Traceback" not in captured.err
    assert not Path("out/bad.png").exists() and Path("out/two.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["import", "set/one.webp", "x.wlc", "--model", "none"], 3, "model: none"),
        (["import", "nothing", "x.wlc", "--model", "tiny"], 3, "nothing"),
        (["import", "set/one.webp", "x.wlc", "--model", "tiny", "--size", "5x5"], 3, "sizes"),
        (["import", "set/one.webp", "x.wlc", "--model", "tiny", "--size", "0x5"], 2, "--size"),
        (["import", "set/one.webp", "x.wlc", "--model", "tiny", "--max-samples", "9"], 3, "--max-samples"),
        (["decode", "set/one.webp", "x.jpx", "--model", "tiny"], 3, "x.jpx"),
        (["decode", "empty", "out", "--model", "tiny"], 3, "empty"),
        (["export", "a.wlc", "x.jpg"], 3, "x.jpg"),
        (["export", "set/one.webp", "x.png"], 3, "magic"),
    ],
)
def test_faults_on_the_command_line(folder, arguments, code, match, capsys):
    Path("empty").mkdir()
    try:
        found = cli.main(["symbols", *arguments])
    except SystemExit as end:
        found = end.code
    assert found == code
    assert match in capsys.readouterr().err
    assert not Path(arguments[2]).is_file()


def test_names_that_would_collide_are_refused(folder, capsys):
    Path("set/one.png").write_bytes(Path("set/two.png").read_bytes())
    assert cli.main(["symbols", "decode", "set", "out", "--model", "tiny"]) == 3
    assert "several would become it" in capsys.readouterr().err
