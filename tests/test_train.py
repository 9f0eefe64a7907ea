"""The training script against the upstream's classes, and one very short training of an image and an audio model."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import soundfile
import upstream
from numpy.testing import assert_allclose, assert_array_equal

import walloc_ref
from walloc_ref.measure import linear_decoder
from walloc_ref.measure.evaluate import PHOTOGRAPH

SCRIPT = Path(__file__).resolve().parent.parent / "weights" / "train.py"


@pytest.fixture(scope="module")
def train():
    upstream.load()
    spec = importlib.util.spec_from_file_location("train", SCRIPT)
    module = sys.modules["train"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with four quarters of the bundled photograph."""
    folder = tmp_path_factory.mktemp("images")
    image = iio.imread(PHOTOGRAPH)
    h, w = image.shape[0] // 2, image.shape[1] // 2
    for i, (y, x) in enumerate(np.ndindex(2, 2)):
        iio.imwrite(folder / f"{i}.png", image[y * h : (y + 1) * h, x * w : (x + 1) * w])
    return folder


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """A folder with eight short tracks: chords with decays, and coloured noise, whose spectrum has no gaps."""
    folder, rng = tmp_path_factory.mktemp("tracks"), np.random.default_rng(3)
    t = np.arange(60_000) / 44_100
    for i in range(8):
        chord = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in rng.uniform(80, 2000, 5))
        noise = np.convolve(rng.standard_normal(t.size), 0.9 ** np.arange(60), "same")
        audio = (chord + noise) * np.exp(-3 * (t % 0.4))
        soundfile.write(folder / f"{i}.wav", np.stack([audio, 0.7 * audio], 1) / 20, 44_100)
    return folder


@pytest.mark.parametrize("J", [3, 4])
def test_packet_transform_of_images_equals_upstream(train, J):
    torch, walloc = upstream.load()
    wavelet, codec = train.Wavelet(J, 2), walloc.Codec2D(3, J, None, 96, 12, 8, True)
    x = torch.rand(2, 3, 24 * wavelet.P, 40 * wavelet.P, generator=torch.manual_seed(0)) - 0.5
    skip = wavelet.margin // wavelet.P
    with torch.no_grad():
        expected = codec.wavelet_analysis(x, J)[:, :, skip:-skip, skip:-skip]
    assert_allclose(wavelet.analyse(x), expected, atol=2e-5)


def test_loss_is_the_squared_error_of_the_upstream_synthesis(train):
    torch, walloc = upstream.load()
    wavelet, codec = train.Wavelet(3, 2), walloc.Codec2D(3, 3, None, 96, 12, 8, True)
    inside = torch.randn(1, 192, 4, 6, generator=torch.manual_seed(1))
    error = torch.nn.functional.pad(inside, (9, 9, 10, 10))  # zeros around it, so that nothing wraps
    with torch.no_grad():
        expected = float(codec.wavelet_synthesis(error, 3).square().sum())
        value, grad = wavelet.loss_and_grad(inside, 3)
        step = 1e-3 * torch.randn_like(inside)
        change = wavelet.loss_and_grad(inside + step, 3)[0] - wavelet.loss_and_grad(inside - step, 3)[0]
    assert math.isclose(value, expected, rel_tol=1e-4)
    assert math.isclose(change, 2 * float((grad * step).sum()), rel_tol=1e-2)


def test_norms_of_synthesis_functions_equal_upstream(train):
    torch, walloc = upstream.load()
    wavelet, codec = train.Wavelet(3, 2), walloc.Codec2D(1, 3, None, 96, 12, 8, True)
    unit = torch.zeros(64, 64, 16, 16)
    unit[range(64), range(64), 8, 8] = 1
    with torch.no_grad():
        functions = codec.wavelet_synthesis(unit, 3)
    assert_allclose(wavelet.norms, functions.flatten(1).norm(dim=1), rtol=1e-4)


def test_scales_keep_loud_components_from_overload_in_upstream_quantiser(train):
    torch, _ = upstream.load()
    codec, _ = train.build_1d(train.MODELS["stereo_5x"])
    rng = np.random.default_rng(5)
    tracks = [torch.from_numpy(rng.laplace(0, level, (400, 2)).astype(np.float32)) for level in (0.02, 0.1, 3.0)]
    chosen = train.companded_scales(codec, tracks, 1e-5)

    def cost(scale):
        k = torch.round(codec.encoder[1](torch.cat(tracks) * scale))
        error = float((codec.decoder[0](k) / scale - torch.cat(tracks)).square().mean())
        return error + 1e-5 * train.entropy_bits([part.T.numpy() for part in k.split(400)]) / k.numel()

    best = min(cost(float(scale)) for scale in np.geomspace(2, 200, 60))
    assert cost(chosen) < 1.5 * best  # a little below the best scale, whose overload is a cliff
    assert cost(200.0) > 2 * best  # the loud track overloads the quantiser there
    assert cost(2.0) > 1.5 * best


@pytest.mark.parametrize("name", ["rgb_16x", "stereo_20x"])
def test_linear_decoder_is_the_transpose_of_principal_components(train, name):
    model = walloc_ref.load_model(name).model
    config = {"architecture": model.config.architecture}
    twin = train.linear_twin(upstream.build(model), config).numpy()
    ours = linear_decoder.matrix(model)
    assert_allclose(ours, twin, atol=2e-5 * np.abs(twin).max())


def run(train, kind, model, folder, tmp_path, minutes, **changes):
    options = {"model": model, "data": str(folder), "tune": str(folder), "run": str(tmp_path / "run"), "cache": None}
    options |= {"out": str(tmp_path / "out.safetensors"), "minutes": minutes, "every": 10.0}
    options["set"] = [f"{key}={value}" for key, value in changes.items()]
    {"image": train.train_image, "audio": train.train_audio}[kind](argparse.Namespace(**options))
    return (tmp_path / "run" / "log.txt").read_text()


def test_image_training_starts_linear_resumes_and_equals_upstream(train, images, tmp_path):
    changes = {"crop": 10, "large_crop": 12, "fit_crops": 160, "polish_crops": 0}
    log = run(train, "image", "rgb_16x", images, tmp_path, 0.05, **changes)
    codec = walloc_ref.load_model(str(tmp_path / "out.safetensors"))
    image = iio.imread(images / "0.png")
    symbols = codec.to_symbols(image.transpose(2, 0, 1) / 255 - 0.5)
    module = upstream.build(codec.model)
    torch, walloc = upstream.load()
    twin = train.linear_twin(module, {"architecture": "Codec2D"}).numpy()
    with torch.no_grad():
        padded = walloc.pad(torch.tensor(image.transpose(2, 0, 1) / 255 - 0.5)[None], 8)
        assert_array_equal(symbols, module.encoder(module.wavelet_analysis(padded, 3))[0].numpy())
        y = module.decoder[0](torch.tensor(symbols[None].astype(float))) - module.encoder[0].bias[:, None, None]
        linear = module.wavelet_synthesis(torch.einsum("nd,bdhw->bnhw", torch.tensor(twin), y), 3)[0].numpy()
    h, w = image.shape[:2]

    def psnr(signal):
        return -10 * math.log10(np.mean((signal[:, :h, :w] - (image.transpose(2, 0, 1) / 255 - 0.5)) ** 2))

    ours = psnr(codec.from_symbols(symbols))
    assert ours > psnr(linear) - 0.3, "the network does not start at the linear solution"
    again = run(train, "image", "rgb_16x", images, tmp_path, 0.08, **changes)
    assert again.startswith(log)
    assert "resumed at step" in again
    longer = walloc_ref.load_model(str(tmp_path / "out.safetensors"))
    assert_array_equal(longer.to_symbols(image.transpose(2, 0, 1) / 255 - 0.5), symbols)  # the encoder is frozen
    assert longer.model_id != codec.model_id


def test_audio_training_starts_linear_and_equals_upstream_encoder(train, tracks, tmp_path):
    log = run(train, "audio", "stereo_20x", tracks, tmp_path, 0.05, hold_every=4, batch=2, crop=32, post_stretches=8)
    linear = float(log.split("linear: held out ")[1].split()[0])
    trained = float(log.split("EMA held out ")[-1].split()[0])
    assert trained > linear - 3, (
        "six tracks of a second fit the post filter badly, but a decoder that starts wrong is far off"
    )
    codec = walloc_ref.load_model(str(tmp_path / "out.safetensors"))
    samples, rate = soundfile.read(tracks / "0.wav", always_2d=True)
    torch, _ = upstream.load()
    module = upstream.build(codec.model)
    signal = samples[: 100 * 256].T - samples[: 100 * 256].mean()
    signal = signal / (2 * np.abs(signal).max())
    with torch.no_grad():
        symbols = module.encoder(module.wavelet_analysis(torch.tensor(signal)[None], 8))[0].numpy()
    assert_array_equal(codec.to_symbols(signal), symbols)
    decoded = walloc_ref.decode(codec.encode(samples.astype(np.float32), rate), codec=codec)
    x = samples - samples.mean()
    error = np.mean((decoded - samples) ** 2) / (2 * np.abs(x).max()) ** 2
    assert -10 * math.log10(error) > linear - 10
