"""The image codec end to end: against the upstream integer for integer, and against itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import upstream
from models import TINY, photograph, tiny_codec
from numpy.testing import assert_array_equal

import walloc_ref
from walloc_ref import codec as codecs
from walloc_ref.errors import BadSamples, HashMismatch, LimitExceeded, MalformedStream, UnknownModel
from walloc_ref.fast import image as strips
from walloc_ref.stages import container

IMAGE_MODELS = {
    "Codec2D": {"architecture": "Codec2D"},
    "Codec2D, full encoder": {"architecture": "Codec2D", "lightweight_encode": False, "Ne": 32},
    "Codec2D, grey, 4 bits": {"architecture": "Codec2D", "channels": 1, "latent_bits": 4},
    "LinearCodec2D": {"architecture": "LinearCodec2D"},
    "ResidualCodec2D": {"architecture": "ResidualCodec2D"},
}
image_models = pytest.mark.parametrize("name", list(IMAGE_MODELS))

SIZES = [(1, 1), (1, 9), (3, 2), (7, 40), (8, 8), (33, 17), (41, 44)]


def make(name: str) -> codecs.Codec:
    return tiny_codec(**IMAGE_MODELS[name])


def upstream_symbols(module, x):
    """Symbols by the upstream's stages, for a signal that is padded already."""
    X = module.wavelet_analysis(x, module.J)
    if hasattr(module, "encoders"):
        return module.rae_encode(x)[1]
    return module.encoder(X)


def upstream_signal(module, symbols):
    if hasattr(module, "decoders"):
        return module.rae_decode(symbols)
    return module.clamp(module.wavelet_synthesis(module.decoder(symbols), module.J))


@image_models
@pytest.mark.parametrize("size", [(48, 40), (57, 44), (90, 43)])
def test_symbols_and_samples_equal_upstream(name, size):
    torch, walloc = upstream.load()
    codec = make(name)
    module = upstream.build(codec.model)
    samples = photograph(*size, codec.config.channels)
    x = np.moveaxis(samples, -1, 0) / 255 - 0.5
    with torch.no_grad():
        symbols = upstream_symbols(module, walloc.pad(torch.tensor(x)[None], codec.config.multiple))
        signal = walloc.crop(upstream_signal(module, symbols), size)[0].numpy()
    assert_array_equal(codec.to_symbols(x), symbols[0].numpy())
    data = codec.encode(samples)
    assert_array_equal(codecs.decode_symbols(data, codec=codec), symbols[0].numpy())
    expected = np.clip(np.rint(255 * (signal + 0.5)), 0, 255).transpose(1, 2, 0)
    decoded = walloc_ref.decode(data, codec=codec)
    assert_array_equal(decoded.reshape(expected.shape), expected)


@image_models
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_size_and_depth(name, size, dtype):
    codec = make(name)
    samples = photograph(*size, codec.config.channels, dtype=dtype)
    data = codec.encode(samples, certify=True)
    result = codecs.decode_stream(data, codec=codec)
    assert result.certified
    assert result.samples.dtype == dtype
    assert result.samples.shape == (samples.shape if codec.config.channels > 1 else size)
    x = np.moveaxis(samples, -1, 0) / np.iinfo(dtype).max - 0.5
    symbols = codec.to_symbols(x)
    assert_array_equal(codecs.decode_symbols(data, codec=codec), symbols)
    signal = codec.from_symbols(symbols, shape=x.shape)
    assert signal.shape == x.shape
    full = np.iinfo(dtype).max
    expected = np.clip(np.rint(full * (signal + 0.5)), 0, full).transpose(1, 2, 0)
    assert_array_equal(result.samples.reshape(expected.shape), expected)
    padded = codec.from_symbols(symbols)
    assert padded.shape[1:] == tuple(codec.config.multiple * n for n in symbols.shape[1:])


def test_a_linear_codec_with_all_latents_returns_the_image():
    model = tiny_codec("LinearCodec2D", J=1, latent_dim=12, channels=3).model
    unbiased = {name: 0 * t if name.endswith("bias") else t for name, t in model.tensors.items()}
    codec = codecs.Codec(container.replace(model, tensors=unbiased))
    samples = photograph(30, 37)
    difference = walloc_ref.decode(codec.encode(samples), codec=codec).astype(int) - samples
    assert np.abs(difference).mean() < 3


def test_strips_do_not_change_the_result(monkeypatch):
    samples = photograph(400, 24)
    results = []
    for strip in (1000, 48, 3):
        monkeypatch.setattr(strips, "STRIP", strip)
        codec = tiny_codec("Codec2D")
        data = codec.encode(samples)
        results.append((data, walloc_ref.decode(data, codec=codec).tobytes()))
    assert results[0] == results[1] == results[2]


def test_slices_and_threads_do_not_change_the_samples(monkeypatch):
    samples = photograph(300, 40)
    decoded = []
    for slice_symbols, threads in ((1 << 18, "1"), (500, "1"), (500, "3")):
        monkeypatch.setattr(codecs, "SLICE_SYMBOLS", slice_symbols)
        monkeypatch.setattr(codecs, "SLICE_ROWS", 1)
        monkeypatch.setenv("WALLOC_THREADS", threads)
        codec = tiny_codec("LinearCodec2D")
        data = codec.encode(samples)
        decoded.append((walloc_ref.info(data).slices, data, walloc_ref.decode(data, codec=codec).tobytes()))
    assert decoded[0][0] == 1
    assert decoded[1][0] > 5
    assert decoded[1] == decoded[2]
    assert decoded[0][2] == decoded[1][2]


def test_grey_image_by_a_colour_model():
    codec = tiny_codec("LinearCodec2D")
    samples = photograph(30, 20, 1)[:, :, 0]
    data = codec.encode(samples, certify=True)
    decoded = walloc_ref.decode(data, codec=codec)
    assert decoded.shape == (30, 20)
    x = np.repeat(samples[None] / 255 - 0.5, 3, axis=0)
    signal = codec.from_symbols(codec.to_symbols(x), shape=x.shape)
    assert_array_equal(decoded, np.rint(255 * (signal.mean(axis=0) + 0.5)))


def test_analysis_and_synthesis():
    codec = tiny_codec("LinearCodec2D")
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 16, 24))
    bands = codec.analyse(x)
    assert bands.shape == (48, 4, 6)
    np.testing.assert_allclose(codec.synthesise(bands), x, rtol=0, atol=1e-11)


def test_metadata_travels():
    codec = tiny_codec()
    data = codec.encode(photograph(9, 9), icc_profile=b"profile", exif=b"exif")
    result = codecs.decode_stream(data, codec=codec)
    assert (result.icc_profile, result.exif) == (b"profile", b"exif")
    assert walloc_ref.info(data).icc_profile_bytes == 7


def test_info():
    codec = tiny_codec("Codec2D")
    samples = photograph(50, 30)
    data = codec.encode(samples)
    facts = walloc_ref.info(data)
    assert (facts.kind, facts.sizes, facts.channels, facts.sample_format) == ("image", (50, 30), 3, "u8")
    assert facts.latent_sizes == (13, 8)
    assert facts.stream_bytes == len(data)
    assert facts.ratio == samples.size / len(data)
    assert facts.bits_per_sample == 8 * len(data) / 1500
    assert codec.model_id.startswith(facts.model_id.hex())


def test_overhead_is_at_most_72_bytes():
    data = tiny_codec().encode(photograph(500, 700))
    stream = container.read(data)
    assert len(data) - len(stream.slices[0]) <= 72


REFUSED = {
    "float": (np.zeros((4, 4, 3)), {}, "samples.dtype: float64"),
    "int32": (np.zeros((4, 4, 3), np.int32), {}, "samples.dtype: int32"),
    "two channels": (np.zeros((4, 4, 2), np.uint8), {}, "channels: 2; 3, or 1"),
    "four axes": (np.zeros((1, 4, 4, 3), np.uint8), {}, "samples.shape"),
    "empty": (np.zeros((0, 4, 3), np.uint8), {}, "samples.shape"),
    "rate": (np.zeros((4, 4, 3), np.uint8), {"rate": 44100}, "rate: 44100"),
    "format": (np.zeros((4, 4, 3), np.uint8), {"sample_format": "u16"}, "samples.dtype: u16"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_samples(fault):
    samples, options, message = REFUSED[fault]
    with pytest.raises(BadSamples, match=message):
        tiny_codec().encode(samples, **options)


def test_refused_signals_and_symbols():
    codec = tiny_codec()
    for x in (np.zeros((2, 8, 8)), np.zeros((3, 8)), np.full((3, 8, 8), np.nan), np.full((3, 8, 8), 0.6)):
        with pytest.raises(BadSamples, match="signal"):
            codec.to_symbols(x)
    with pytest.raises(BadSamples, match="multiples of 4"):
        codec.analyse(np.zeros((3, 8, 9)))
    with pytest.raises(BadSamples, match="subbands"):
        codec.synthesise(np.zeros((47, 8, 8)))
    for symbols, shape in (
        (np.zeros((5, 2, 2), np.int16), None),
        (np.zeros((6, 2, 2)), None),
        (np.full((6, 2, 2), 128), None),
        (np.zeros((6, 2, 2), np.int16), (3, 9, 8)),
        (np.zeros((6, 2, 2), np.int16), (1, 8, 8)),
    ):
        with pytest.raises(BadSamples, match="symbols|shape|sizes"):
            codec.from_symbols(symbols, shape)


def test_wrong_model_and_wrong_hashes():
    codec = tiny_codec("LinearCodec2D")
    data = codec.encode(photograph(20, 20), certify=True)
    with pytest.raises(UnknownModel, match="model identity"):
        walloc_ref.decode(data, codec=tiny_codec("LinearCodec2D", seed=1))
    with pytest.raises(UnknownModel, match="model identity"):
        walloc_ref.decode(data)
    stream = container.read(data)
    header = container.replace(stream.header, symbol_hash=bytes(8))
    with pytest.raises(HashMismatch, match=r"HEAD.symbol_hash: .*; 0000000000000000"):
        walloc_ref.decode(container.write(container.replace(stream, header=header)), codec=codec)
    certificate = container.replace(stream.certificate, sample_hash=bytes(32))
    with pytest.raises(HashMismatch, match="CERTIFICATE.hash"):
        walloc_ref.decode(container.write(container.replace(stream, certificate=certificate)), codec=codec)
    header = container.replace(stream.header, J=stream.header.J + 1, slice_size=1)
    with pytest.raises(MalformedStream, match="SLICES.count|HEAD.J"):
        walloc_ref.decode(container.write(container.replace(stream, header=header)), codec=codec)
    with pytest.raises(LimitExceeded, match="samples: 1200; at most 1199"):
        walloc_ref.decode(data, codec=codec, max_samples=1199)


def test_import_is_light():
    """Importing the package loads neither NumPy nor Numba, and reading a header compiles nothing."""
    data = tiny_codec().encode(photograph(9, 9))
    program = (
        "import sys, walloc_ref\n"
        "assert 'numpy' not in sys.modules and 'numba' not in sys.modules\n"
        f"assert walloc_ref.info({data!r}).sizes == (9, 9)\n"
        "assert 'numba' not in sys.modules and 'scipy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_numba_the_integers_are_the_same(tmp_path):
    """The clear definitions alone, in a process without compilation, give the same bytes and samples."""
    codec = tiny_codec("LinearCodec2D")
    samples = photograph(21, 18)
    data = codec.encode(samples)
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import walloc_ref\n"
        "from models import photograph, tiny_codec\n"
        "codec = tiny_codec('LinearCodec2D')\n"
        "data = codec.encode(photograph(21, 18))\n"
        "samples = walloc_ref.decode(data, codec=codec)\n"
        "assert 'numba' not in sys.modules\n"
        "sys.stdout.buffer.write(data + samples.tobytes())\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, check=True)
    assert run.stdout == data + walloc_ref.decode(data, codec=codec).tobytes()


@pytest.mark.parametrize("architecture", list(TINY))
def test_streams_are_deterministic(architecture):
    codec = tiny_codec(architecture)
    if codec.config.kind == "image":
        samples = photograph(20, 30)
        assert codec.encode(samples) == codec.encode(samples.copy(order="F"))
