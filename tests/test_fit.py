"""Fitting linear models in closed form: what comes out, the same on any number of threads, and what is refused."""

from __future__ import annotations

import io

import imageio.v3 as iio
import numpy as np
import pytest
import upstream
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import cli, fit, plain
from walloc_ref import model as models
from walloc_ref.codec import Codec
from walloc_ref.errors import BadSamples, MalformedModel
from walloc_ref.fit import assemble, card, components, network, statistics, tables
from walloc_ref.measure.evaluate import PHOTOGRAPH
from walloc_ref.stages import entropy, quantise


def smooth(shape, seed=0, power=1.5):
    """A random field of falling spectrum along all axes, in 0 … 255."""
    rng = np.random.default_rng(seed)
    grid = np.sqrt(sum(np.square(f) for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))) + 0.01
    field = np.fft.ifftn(np.fft.fftn(rng.standard_normal(shape)) / grid**power).real
    return np.rint(255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs():
    """Eight parts of the bundled photograph."""
    image = iio.imread(PHOTOGRAPH)
    h, w = image.shape[0] // 2, image.shape[1] // 4
    return [image[y * h : (y + 1) * h, x * w : (x + 1) * w] for y in range(2) for x in range(4)]


@pytest.fixture(scope="module")
def fitted(photographs):
    return fit.fit(photographs, levels=3, latents=24, psnr=28, name="parts")


@pytest.fixture(scope="module")
def audio():
    """Four channels of coloured noise that go along with each other, decaying again and again."""
    rng = np.random.default_rng(1)
    source = np.cumsum(rng.standard_normal((40_000, 2)), 0)
    source -= np.convolve(source[:, 0], np.ones(400) / 400, "same")[:, None]
    mixed = source @ rng.standard_normal((2, 4)) * np.exp(-((np.arange(40_000) % 8000) / 3000))[:, None]
    return np.rint(20_000 * mixed / np.abs(mixed).max()).astype(np.int16)


# ---- images


def test_a_linear_codec_of_images(fitted, photographs):
    config = fitted.model.config
    assert (config.architecture, config.channels, config.J, config.latent_dim) == ("LinearCodec2D", 3, 3, 24)
    assert 0.9 < fitted.energy_kept < 1
    assert fitted.held_out == photographs[5].size
    assert fitted.fitted == sum(p.size for p in photographs) - fitted.held_out
    codec = Codec(fitted.model)
    at_one = fit.measure(codec, [p for i, p in enumerate(photographs) if i != 5], 1.0)
    assert at_one.psnr == pytest.approx(28, abs=0.05)
    assert_array_equal([m.step for m in fitted.measured], [1, 2, 4])
    assert fitted.measured[0].bytes > fitted.measured[1].bytes > fitted.measured[2].bytes


def test_the_file_keeps_identity_and_tables(fitted, tmp_path, photographs):
    path = tmp_path / "parts.safetensors"
    path.write_bytes(models.save(fitted.model))
    again = models.load(path)
    assert again.model_id == fitted.model.model_id
    data = Codec(fitted.model).encode(photographs[5])
    assert_array_equal(walloc_ref.decode(data, codec=Codec(again)), walloc_ref.decode(data, codec=Codec(fitted.model)))
    assert again.spread is not None


def test_the_upstream_loads_it(fitted, photographs):
    from walloc_ref.measure import upstream as torch_model

    torch, _ = upstream.load()
    codec = torch_model.build(fitted.model, 64)
    x = photographs[0].transpose(2, 0, 1)[:, :128, :96] / 255 - 0.5
    with torch.no_grad():
        bands = codec.wavelet_analysis(torch.from_numpy(x)[None], codec.J)
        symbols = torch.round(codec.encoder[1](codec.encoder[0](bands)))[0].numpy()
    assert_array_equal(symbols, Codec(fitted.model).to_symbols(x))


@pytest.mark.parametrize("kind", ["image", "audio", "volume"])
def test_equal_bytes_on_any_number_of_threads(kind, photographs, audio, monkeypatch):
    arrays = {
        "image": [p[:96, :64] for p in photographs[:3]],
        "audio": [audio[:20_000], audio[20_000:]],
        "volume": [smooth((24, 20, 28), 1), smooth((16, 20, 28), 2)],
    }[kind]
    goal = {"ratio": 30} if kind == "image" else {"step": 10}
    monkeypatch.setenv("WALLOC_THREADS", "1")
    found = models.save(fit.fit_model(arrays, kind=kind, levels=2, latents=5, **goal))
    monkeypatch.setenv("WALLOC_THREADS", "3")
    opened = [lambda a=a: a for a in arrays]  # opened when they are needed
    assert models.save(walloc_ref.fit_model(opened, kind=kind, levels=2, latents=5, **goal)) == found


def test_the_ratio_is_met_on_what_it_was_fitted_to(photographs):
    found = fit.fit(photographs, latents=12, ratio=60, held_out=False)
    assert found.held_out == 0
    assert found.measured[0].ratio == pytest.approx(60, rel=0.02)


def test_the_step_is_that_of_the_quantiser(photographs):
    from walloc_ref.rate_control import own_step

    found = fit.fit_model(photographs[:2], latents=8, step=20)
    assert own_step(found) == pytest.approx(20, rel=0.02)


def test_reduction_is_subbands_over_latents(photographs):
    assert fit.fit_model(photographs[:2], reduction=16).config.latent_dim == 12
    assert fit.fit_model(photographs[:2], levels=2, reduction=4, bits=6).config.latent_bits == 6


def test_latents_are_what_the_rate_is_worth(photographs):
    coarse, fine = (fit.fit_model(photographs[:2], step=step).config.latent_dim for step in (80, 10))
    assert coarse < fine


# ---- statistics and components


def test_covariance_is_that_of_all_positions_at_once():
    config = assemble.configuration("image", 2, 1, 1, 8)
    functions = plain.chosen()
    arrays = [np.stack([smooth((16, 24), seed), smooth((16, 24), seed + 9)], 2) for seed in range(3)]
    moments = statistics.gather(arrays, config, functions)
    bands = [
        statistics.subbands(x, config, functions) for a in arrays for x, _ in statistics.pieces(a, config, functions)
    ]
    everything = np.concatenate(bands, 1)
    assert moments.count == everything.shape[1] == 3 * 96
    assert moments.samples == sum(a.size for a in arrays)
    assert_allclose(moments.mean, everything.mean(1), rtol=1e-12)
    assert moments.covariance is not None
    assert_allclose(moments.covariance, np.cov(everything, bias=True), rtol=1e-9, atol=1e-12)
    index = np.arange(8).reshape(2, 4)
    for f in range(4):
        assert_allclose(moments.blocks[f], moments.covariance[np.ix_(index[:, f], index[:, f])])


def test_blocks_alone_where_there_are_too_many_subbands(monkeypatch):
    config = assemble.configuration("image", 3, 1, 1, 8)
    array = np.stack([smooth((32, 32), seed) for seed in range(3)], 2)
    whole = statistics.gather([array], config, plain.chosen())
    monkeypatch.setattr(statistics, "MAX_DENSE_BANDS", 8)
    blocks = statistics.gather([array], config, plain.chosen())
    assert blocks.covariance is None
    assert_allclose(blocks.blocks, whole.blocks, rtol=1e-9, atol=1e-12)
    assert fit.fit([array], levels=1, held_out=False).components.kind == "separable"


def test_a_large_array_is_taken_in_pieces(monkeypatch):
    config = assemble.configuration("image", 1, 1, 1, 8)
    monkeypatch.setattr(statistics, "PIECE_SAMPLES", 4 * 24 * 2)
    shapes = [x.shape for x, _ in statistics.pieces(smooth((30, 24)), config, plain.chosen())]
    assert shapes == [(1, 8, 24), (1, 8, 24), (1, 8, 24), (1, 6, 24)]


@pytest.mark.parametrize("kind", components.KINDS)
def test_components_are_orthonormal_and_hold_all_energy(kind):
    config = assemble.configuration("image", 3, 1, 1, 8)
    array = np.stack([smooth((64, 64), seed // 2) for seed in range(3)], 2)
    moments = statistics.gather([array], config, plain.chosen())
    weights = np.linspace(0.8, 1.3, 12)
    found = getattr(components, kind)(moments, weights)
    assert_allclose(found.rows @ found.rows.T, np.eye(12), atol=1e-12)
    assert (np.diff(found.variances) <= 1e-15).all()
    assert found.variances.sum() == pytest.approx(found.energy)


def test_separable_where_dense_would_fit_noise():
    """Spectra of two materials, noise of its own in each of 40 bands, and few pixels."""
    rng = np.random.default_rng(5)
    spectra = rng.uniform(0, 1, (2, 40))
    amounts = np.stack([smooth((48, 16), 1), smooth((48, 16), 2)], 2) / 255
    array = np.rint(90 * amounts @ spectra + rng.normal(0, 4, (48, 16, 40))).clip(0, 255).astype(np.uint8)
    assert fit.fit([array], levels=1).components.kind == "separable"
    config = assemble.configuration("image", 40, 1, 1, 8)
    moments, aside = (statistics.gather([a], config, plain.chosen()) for a in (array[:40], array[40:]))
    weights = np.ones(config.bands)
    costs = [components.cost(of(moments, weights), aside, 1e-4) for of in (components.dense, components.separable)]
    assert costs[1] < costs[0]


def test_water_level_and_rate():
    variances = np.array([4.0, 1.0, 0.25, 0.01])
    level = components.water_level(variances, 0.61)
    assert np.minimum(variances, level).sum() == pytest.approx(0.61)
    level = components.level_of_rate(variances, 2.0)
    assert (0.5 * np.log2(np.maximum(variances / level, 1))).sum() == pytest.approx(2.0)


def test_a_component_beyond_the_quantisers_range_gets_a_smaller_scale():
    """Brightness of 60 bands that go along with each other spans many times what one channel does."""
    amount = smooth((96, 64), 3, power=2.0)[:, :, None].astype(np.float64)
    rng = np.random.default_rng(2)
    array = np.rint(amount * rng.uniform(0.6, 1, 60) + rng.normal(0, 1, (96, 64, 60))).clip(0, 255).astype(np.uint8)
    found = fit.fit([array], levels=1, step=2)
    assert found.narrowed > 0
    assert found.model.step_weights is not None and found.model.step_weights[0] < quantise.UNIT_WEIGHT
    symbols = Codec(found.model).to_symbols(array.transpose(2, 0, 1) / 255 - 0.5)
    assert np.abs(symbols).max() <= quantise.last_symbol(8)
    assert found.measured[0].psnr > 45


# ---- audio and volumes


def test_audio_becomes_an_oobleck_decoder_that_is_linear(audio):
    found = fit.fit([audio[:30_000], audio[30_000:]], kind="audio", levels=4, latents=20, psnr=35)
    model, codec = found.model, Codec(found.model)
    assert (model.config.architecture, model.config.Nd, model.config.channels) == ("Codec1D", 20, 4)
    x = audio[:4096].T / 65536.0
    symbols = codec.to_symbols(x)
    assert symbols.shape == (20, 256 + 2)
    assert not symbols[:, [0, -1]].any()  # the border, which carries nothing
    latents = quantise.dequantise(symbols, 8)[:, 1:-1]
    v = model.tensors["decoder.1.conv2.weight_v"][:, :, 3].astype(np.float64)
    g = model.tensors["decoder.1.conv2.weight_g"][:, :, 0].astype(np.float64)
    matrix = v * g / np.linalg.norm(v, axis=1, keepdims=True)
    plainly = codec.synthesise(matrix @ latents)
    assert_allclose(codec.from_symbols(symbols, x.shape), np.clip(plainly, -0.5, 0.5), atol=1e-7)
    data = codec.encode(audio, 16_000, psnr=30)
    assert walloc_ref.info(data).ratio > 4
    assert walloc_ref.decode(data, codec=codec).shape == audio.shape


def test_the_upstream_loads_audio(audio):
    from walloc_ref.measure import upstream as torch_model

    torch, _ = upstream.load()
    model = fit.fit_model([audio[:, :2]], kind="audio", levels=4, latents=12, step=4)
    codec, ours = torch_model.build(model, 64), Codec(model)
    symbols = ours.to_symbols(audio[:2048, :2].T / 65536.0)
    with torch.no_grad():
        bands = codec.decoder(torch.from_numpy(symbols.astype(np.float64))[None])
        signal = codec.wavelet_synthesis(bands, codec.J)[0].numpy()
    assert_allclose(ours.from_symbols(symbols), np.clip(signal, -0.5, 0.5), atol=1e-9)


@pytest.mark.parametrize(("dtype", "value", "channels"), [(np.uint8, 0, 1), (np.int16, -1000, 1), (np.uint8, 200, 2)])
def test_a_background_comes_back_exactly_at_every_step(dtype, value, channels):
    size = (20, 56, 32)
    inside = np.stack([smooth(size, seed).astype(dtype) for seed in range(channels)], -1)
    samples = np.full((*size, channels), value, dtype)
    samples[:, 4:24, 4:28] = inside[:, 4:24, 4:28]
    samples = samples if channels > 1 else samples[..., 0]
    found = fit.fit([samples], kind="volume", levels=1, latents=8 * channels, step=9, held_out=False)
    assert found.background == (value,) * channels
    assert "background" in card.card(found, ["a"], "a.png")
    codec = Codec(found.model)
    for step in (1.0, 1.41, 2.0, 2.83, 4.0, 7.7):
        decoded = walloc_ref.decode(codec.encode(samples, step=step), codec=codec)
        assert (decoded[:, 36:44] == value).all(), step


def test_no_background_where_no_value_prevails(photographs):
    assert statistics.background(photographs) is None
    half = np.zeros((8, 8, 2), np.uint8)
    half[:4, :, 0], half[4:, :, 1] = 9, 9  # each channel has one, but seldom at the same place
    half[::2] = 0
    assert statistics.background([half]) == (0, 0)
    half[::2], half[4:, :, 0] = 7, 200
    assert statistics.background([half, half + 1]) is None
    assert statistics.background([np.zeros((8, 8, 1), np.float32)]) is None


def test_a_linear_codec_of_volumes():
    volume = smooth((48, 40, 36), 4)
    found = fit.fit([volume], kind="volume", psnr=38)
    assert found.model.config.architecture == "LinearCodec3D"
    assert found.held_out == 8 * 40 * 36
    data = Codec(found.model).encode(volume)
    assert walloc_ref.info(data).ratio > 2.5
    error = walloc_ref.decode(data, codec=Codec(found.model)).astype(np.float64) - volume
    assert 10 * np.log10(255**2 / np.square(error).mean()) == pytest.approx(38, abs=0.5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_other_sample_formats(dtype):
    volume = (smooth((16, 16, 16)).astype(np.float64) * 100 - (0 if dtype == np.uint16 else 12_000)).astype(dtype)
    model = fit.fit_model([volume], kind="volume", levels=1, latents=4, step=8)
    data = Codec(model).encode(volume)
    assert walloc_ref.decode(data, codec=Codec(model)).dtype == dtype


# ---- entropy tables


def test_gradients_are_those_of_the_code_length():
    rng = np.random.default_rng(7)
    p = {name: v.astype(np.float64) for name, v in network.initial(5, 4, np.full((3, 5), 0.1, np.float32), rng).items()}
    p["share"] = rng.normal(0, 0.3, (3, 1, 3))
    x, mean = rng.normal(0, 1, (3, 40, 5)), rng.normal(0, 1, (3, 40))
    target = np.rint(rng.normal(0, 2, (3, 40)))
    _, gradient = network.bits(p, x, mean, target)
    for name, values in p.items():
        for at in rng.choice(values.size, min(6, values.size), replace=False):
            either = []
            for sign in (1, -1):
                moved = values.copy()
                moved.flat[at] += sign * 1e-5
                either.append(network.bits({**p, name: moved}, x, mean, target)[0].sum())
            assert gradient[name].flat[at] == pytest.approx((either[0] - either[1]) / 2e-5, rel=1e-3, abs=1e-6), name


def test_taps_are_picked_that_explain_the_target():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9, 2000))
    values[0] = 2 * values[4] - values[7] + 0.1 * values[1]
    assert sorted(tables.pick(values @ values.T, 2, 2)) == [4, 7]


@pytest.mark.parametrize("shape", [(6, 40, 48), (6, 1500), (6, 8, 20, 24)])
def test_fitted_tables_code_less_and_can_be_read(shape):
    """Planes whose magnitudes follow the first plane's and whose values follow their neighbours'."""
    rng = np.random.default_rng(3)
    axes = tuple(range(1, len(shape)))

    def planes(seed):
        loud = 0.2 + 3 * (smooth(shape[1:], seed, 2.0) / 255.0) ** 2
        values = rng.laplace(0, 1, shape) * loud
        values += 0.6 * np.roll(values, 1, axes[-1])
        return (
            np.rint(values * np.linspace(3, 1, shape[0]).reshape(-1, *[1] * len(axes))).clip(-127, 127).astype(np.int16)
        )

    few, aside = [planes(s) for s in range(6)], planes(50)
    found = tables.fit_tables(few, shape[0], 8, steps=100)
    as_slice = aside[:, None] if aside.ndim == 2 else aside
    assert tables.coded_bytes(found, as_slice) < 0.97 * tables.coded_bytes(
        entropy.default_tables(shape[0], 8), as_slice
    )
    functions = plain.chosen()
    payload = functions.encode_slice(as_slice, found)
    assert_array_equal(functions.decode_slice(payload, as_slice.shape, found), as_slice)


def test_default_taps_where_there_is_too_little_to_learn_from():
    few = [np.zeros((2, 1, 1), np.int16)]
    found = tables.fit_tables(few, 2, 8)
    assert_array_equal(found.taps, entropy.default_tables(2, 8).taps)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"kind": "film"}, "kind"),
        ({"latents": 0}, "latents"),
        ({"latents": 49}, "latents"),
        ({"latents": True}, "latents"),
        ({"latents": 4, "reduction": 4}, "latents"),
        ({"reduction": -1}, "reduction"),
        ({"psnr": float("nan")}, "psnr"),
        ({"ratio": "10"}, "ratio"),
        ({"psnr": 30, "ratio": 10}, "target"),
        ({"latents": 1, "psnr": 60}, "psnr"),
        ({"latents": 1, "ratio": 1.1}, "ratio"),
        ({"components": "sparse"}, "components"),
    ],
)
def test_arguments_out_of_range(options, field):
    array = np.stack([smooth((32, 32), seed) for seed in range(3)], 2)
    with pytest.raises(BadSamples) as error:
        fit.fit_model([array], **{"levels": 2, **options})
    assert error.value.field == field


def test_samples_that_no_model_can_be_fitted_to():
    image = smooth((32, 32))
    with pytest.raises(BadSamples, match="none"):
        fit.fit_model([])
    with pytest.raises(BadSamples, match="all equal"):
        fit.fit_model([np.full((32, 32), 7, np.uint8)])
    with pytest.raises(BadSamples, match="channels"):
        fit.fit_model([np.stack([image] * 3, 2), np.stack([image] * 2, 2)])
    with pytest.raises(BadSamples, match=r"samples\.shape"):
        fit.fit_model([np.zeros((0, 4), np.uint8)])
    with pytest.raises(BadSamples, match="dtype"):
        fit.fit_model([image.astype(np.float64)])
    with pytest.raises(BadSamples, match="1 of 1024 are NaN"):
        bad = image.astype(np.float32)
        bad[3, 4] = np.nan
        fit.fit_model([bad])
    with pytest.raises(MalformedModel, match="config"):
        fit.fit_model([image], levels=11)
    with pytest.raises(MalformedModel, match="latent_bits"):
        fit.fit_model([image], bits=9)


# ---- the command, and the card


def test_the_command_writes_model_card_and_pictures(tmp_path, photographs, capsys):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, image in enumerate(photographs):
        iio.imwrite(folder / f"{number}.png", image)
    (folder / "notes.txt").write_text("no image")
    out = tmp_path / "mine.safetensors"
    assert cli.main(["fit", str(folder), "--out", str(out), "--latents", "12", "--psnr", "26"]) == 0
    said = capsys.readouterr().out
    model = models.load(out)
    assert model.name == "mine" and model.model_id[:32] in said
    text = (tmp_path / "mine.md").read_text()
    assert model.model_id in text and "7.png" in text and "notes" not in text and "mine.png" in text
    assert Image.open(tmp_path / "mine.png").size == (4 * 100 + 4, 3 * 100 + 4)
    stream = tmp_path / "0.wlc"
    assert cli.main(["encode", str(folder / "0.png"), str(stream), "--model", str(out)]) == 0
    assert cli.main(["decode", str(stream), str(tmp_path / "0.png"), "--model", str(out)]) == 0


def test_the_command_refuses_and_leaves_nothing_behind(tmp_path, photographs, capsys):
    iio.imwrite(tmp_path / "a.png", photographs[0])
    iio.imwrite(tmp_path / "b.png", photographs[1][:, :, 0])
    out = tmp_path / "mine.safetensors"
    assert cli.main(["fit", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(out)]) == cli.BAD_INPUT
    message = capsys.readouterr().err
    assert "b.png" in message and "channels" in message and message.count("\n") == 1
    assert cli.main(["fit", str(tmp_path / "a.png"), "--out", str(tmp_path / "mine.bin")]) == cli.BAD_INPUT
    assert "--out" in capsys.readouterr().err
    assert cli.main(["fit", str(tmp_path / "none.png"), "--out", str(out)]) == cli.BAD_INPUT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_pictures_of_every_kind(audio):
    wide = fit.fit([np.stack([smooth((32, 32), s) for s in range(6)], 2)], levels=1, latents=5)
    deep = fit.fit([smooth((16, 16, 16))], kind="volume", levels=1, latents=3)
    sound = fit.fit([audio], kind="audio", levels=3, latents=6)
    sizes = []
    for found in (wide, deep, sound):
        picture = Image.open(io.BytesIO(card.picture(found)))
        sizes.append(picture.size)
        assert len(picture.getcolors(1 << 16) or []) > 2
        assert "of what" not in card.card(found, ["a"], "a.png")
    assert sizes == [(404, 2 * 196 + 4), (304, 104), (404, 204)]
    function = card.synthesis_function(deep, 0)
    assert np.square(function).sum() == pytest.approx(1, rel=0.1)  # components are of unit length in the signal
