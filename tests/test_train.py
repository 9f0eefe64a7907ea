"""The training against the upstream's classes, and one very short training of every kind."""

from __future__ import annotations

import importlib
import math
import sys
import zlib
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
from walloc_ref.stages import quantise
from walloc_ref.stages.quantise import plane_steps

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@pytest.fixture(scope="module")
def train():
    """The command line; its parts are imported as `training.NAME` after it."""
    torch, _ = upstream.load()
    threads = torch.get_num_threads()
    sys.path.insert(0, str(WEIGHTS))
    yield importlib.import_module("train")
    sys.path.remove(str(WEIGHTS))
    torch.set_num_threads(threads)


def part(name):
    return importlib.import_module(f"training.{name}")


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
    wavelet, codec = part("wavelet").Wavelet(J, 2), walloc.Codec2D(3, J, None, 96, 12, 8, True)
    x = torch.rand(2, 3, 24 * wavelet.P, 40 * wavelet.P, generator=torch.manual_seed(0)) - 0.5
    skip = wavelet.margin // wavelet.P
    with torch.no_grad():
        expected = codec.wavelet_analysis(x, J)[:, :, skip:-skip, skip:-skip]
    assert_allclose(wavelet.analyse(x), expected, atol=2e-5)


def test_loss_is_the_squared_error_of_the_upstream_synthesis(train):
    torch, walloc = upstream.load()
    wavelet, codec = part("wavelet").Wavelet(3, 2), walloc.Codec2D(3, 3, None, 96, 12, 8, True)
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
    wavelet, codec = part("wavelet").Wavelet(3, 2), walloc.Codec2D(1, 3, None, 96, 12, 8, True)
    unit = torch.zeros(64, 64, 16, 16)
    unit[range(64), range(64), 8, 8] = 1
    with torch.no_grad():
        functions = codec.wavelet_synthesis(unit, 3)
    assert_allclose(wavelet.norms, functions.flatten(1).norm(dim=1), rtol=1e-4)


def test_scales_keep_loud_components_from_overload_in_upstream_quantiser(train):
    torch, _ = upstream.load()
    codec, _ = part("audio_model").build(part("settings").MODELS["stereo_5x"])
    encoder = part("encoder")
    rng = np.random.default_rng(5)
    tracks = [torch.from_numpy(rng.laplace(0, level, (400, 2)).astype(np.float32)) for level in (0.02, 0.1, 3.0)]
    chosen = encoder.companded_scales(codec, tracks, 1e-5)

    def cost(scale):
        k = torch.round(codec.encoder[1](torch.cat(tracks) * scale))
        error = float((codec.decoder[0](k) / scale - torch.cat(tracks)).square().mean())
        return error + 1e-5 * encoder.entropy_bits([part.T.numpy() for part in k.split(400)]) / k.numel()

    best = min(cost(float(scale)) for scale in np.geomspace(2, 200, 60))
    assert cost(chosen) < 1.5 * best  # a little below the best scale, whose overload is a cliff
    assert cost(200.0) > 2 * best  # the loud track overloads the quantiser there
    assert cost(2.0) > 1.5 * best


@pytest.mark.parametrize("name", ["rgb_16x", "stereo_20x"])
def test_linear_decoder_is_the_transpose_of_upstream_encoder(train, name):
    model = walloc_ref.load_model(name).model
    config, wavelet = model.config, part("wavelet")
    norms = wavelet.Wavelet(config.J, 2).norms if config.kind == "image" else wavelet.band_norms(config.J)
    norms = norms.repeat(config.channels).numpy().astype(np.float64)
    components = upstream.build(model).encoder[0].weight.detach().flatten(1).numpy() / norms
    scales = np.linalg.norm(components, axis=1, keepdims=True)
    transpose = (components / scales**2 / norms).T
    assert_allclose(linear_decoder.matrix(model), transpose, atol=2e-5 * np.abs(transpose).max())


def run(train, kind, model, folder, tmp_path, minutes, *more, **changes):
    """Train for some minutes by the command line; the log."""
    paths = ["--data", str(folder), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out.safetensors")]
    tune = [] if kind == "audio" else ["--tune", str(folder)]
    options = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    train.main([kind, model, *paths, *tune, "--minutes", str(minutes), "--every", "10", *more, *options])
    return (tmp_path / "run" / "log.txt").read_text()


def test_image_training_starts_linear_resumes_and_equals_upstream(train, images, tmp_path):
    changes = {"crop": 10, "large_crop": 12, "fit_crops": 160, "polish_crops": 0}
    log = run(train, "image", "rgb_16x", images, tmp_path, 0.05, **changes)
    codec = walloc_ref.load_model(str(tmp_path / "out.safetensors"))
    image = iio.imread(images / "0.png")
    symbols = codec.to_symbols(image.transpose(2, 0, 1) / 255 - 0.5)
    module = upstream.build(codec.model)
    torch, walloc = upstream.load()
    matrix = torch.tensor(linear_decoder.matrix(codec.model))
    with torch.no_grad():
        padded = walloc.pad(torch.tensor(image.transpose(2, 0, 1) / 255 - 0.5)[None], 8)
        assert_array_equal(symbols, module.encoder(module.wavelet_analysis(padded, 3))[0].numpy())
        y = module.decoder[0](torch.tensor(symbols[None].astype(float))) - module.encoder[0].bias[:, None, None]
        linear = module.wavelet_synthesis(torch.einsum("nd,bdhw->bnhw", matrix, y), 3)[0].numpy()
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


def test_range_training_fixes_attention_keeps_the_encoder_and_equals_upstream(train, images, tmp_path):
    start = WEIGHTS / "rgb_16x.safetensors"
    changes = {"crop": 10, "large_crop": 12, "attention_crops": 3, "watch": "[1,2]", "muon": "true"}
    more = ["--start", str(start), "--steps", "0.6,3"]
    log = run(train, "range", "ranged", images, tmp_path, 0.05, *more, **changes)
    before, fixed, after = (
        [float(log.split(f"{what}tune ")[-1].split(f"{step}: ")[1].split()[0]) for step in (1, 2)]
        for what in ("before: ", "attention fixed: ", "EMA ")
    )
    assert before[0] > before[1] + 0.2, "a larger step is coarser"
    assert min(np.subtract(fixed, before)) > -0.5, "attention adds nearly the same everywhere"
    assert min(np.subtract(after, fixed)) > -0.5

    old, codec = walloc_ref.load_model(str(start)), walloc_ref.load_model(str(tmp_path / "out.safetensors"))
    tensors, name = codec.model.tensors, "decoder.1.mid_block.attentions.0.to_out.0"
    assert codec.model.name == "ranged" and codec.model.tables.to_bytes() == old.model.tables.to_bytes()
    assert_array_equal(tensors["encoder.0.weight"], old.model.tensors["encoder.0.weight"])
    assert not tensors[f"{name}.weight"].any() and tensors[f"{name}.bias"].any()
    assert (tensors["decoder.1.conv_in.weight"] != old.model.tensors["decoder.1.conv_in.weight"]).any()

    x = iio.imread(images / "0.png").transpose(2, 0, 1) / 255 - 0.5  # the one that was watched
    decoded = codec.from_symbols(codec.to_symbols(x), shape=x.shape)
    error = np.rint(255 * (decoded + 0.5)) - 255 * (x + 0.5)
    assert math.isclose(10 * math.log10(255**2 / np.mean(error**2)), after[0], abs_tol=0.01), "attention is not fixed"

    again = run(train, "range", "ranged", images, tmp_path, 0.08, *more, **changes)
    assert again.startswith(log) and "resumed at step" in again
    assert walloc_ref.load_model(str(tmp_path / "out.safetensors")).model_id != codec.model_id


def test_wider_decoder_keeps_what_it_has_learned(train):
    torch, _ = upstream.load()
    widen, hyper = part("image_widen"), part("settings").MODELS["rgb_2x"]
    torch.manual_seed(8)
    old, _ = part("image_model").build({**hyper, "Nd": 64, "latent_dim": 20})
    new, _ = part("image_model").build({**hyper, "Nd": 160, "latent_dim": 80})
    old, new = old.decoder[1], new.decoder[1]
    with torch.no_grad():
        old.mid_block.attentions[0].to_out[0].weight.zero_()
    z, mixed = torch.randn(1, 20, 9, 7), torch.linalg.qr(torch.randn(80, 80)).Q * torch.linspace(0.5, 2, 80)[:, None]
    offset, more = torch.linspace(-0.5, 0.5, 20), torch.randn(1, 60, 9, 7)
    sigma, synthesis = torch.linspace(2, 1, 60), torch.randn(60, 192) / 10
    more *= sigma[:, None, None]

    def latents(more):
        """Of the new encoder, from those of the old one, which are 0 beyond the border, less the offset, and the rest."""
        return torch.einsum("od,bdhw->bohw", torch.linalg.inv(mixed), torch.cat([z, more], 1))

    with torch.no_grad():
        bias, shift = old.conv_in.bias.clone(), torch.einsum("cotu,o->c", old.conv_in.weight, offset)
        old.conv_in.bias += shift
        seen = widen.Statistics(old)
        expected = old(z)
        old.conv_in.bias.copy_(bias)
        widen.widen(old, new, seen, mixed[:20], offset, mixed[20:], sigma, synthesis)
        kept, wider = new(latents(0 * more)), new(latents(more))
    assert_allclose(kept, expected, atol=2e-3 * float(expected.abs().max()))
    linear = torch.einsum("bdhw,dn->bnhw", more, synthesis)
    missed = wider - expected - linear
    assert float(missed.square().mean()) < 0.01 * float(linear.square().mean())
    part("image_range").quicken(new)
    with torch.no_grad():
        assert_allclose(new(latents(more)), wider, atol=1e-4)
    learning = new(latents(more))  # in bfloat16
    assert 0 < float((learning - wider).detach().abs().max()) < 0.1 * float(wider.abs().max())
    learning.square().sum().backward()
    for block in [*new.mid_block.resnets, *new.up_blocks[0].resnets]:
        for conv in (block.conv1, block.conv2):
            for taps in (conv.weight.detach(), conv.weight.grad):
                used = taps.any(-1).any(-1)
                assert int(used.any(0).sum()) == int(used.any(1).sum()) == 64
    assert (new.conv_in.weight.grad.abs().amax((1, 2, 3)) > 0).all()


def test_wider_blocks_begin_as_they_were_and_use_every_channel(train):
    torch, _ = upstream.load()
    widen, spec = part("image_widen"), part("settings").MODELS["rgb_16x"]
    torch.manual_seed(11)
    old, new = (part("image_model").build({**spec, "Nd": Nd})[0].decoder[1] for Nd in (64, 128))
    z = torch.randn(1, 12, 20, 20)
    seen = widen.Statistics(old)
    with torch.no_grad():
        old.mid_block.attentions[0].to_out[0].weight.zero_()
        expected = old(z)
        widen.widen(
            old, new, seen, torch.eye(12), torch.zeros(12), torch.zeros(0, 12), torch.ones(0), torch.ones(0, 192)
        )
        narrow = new(z)
        widen.join(new, seen, z.std((0, 2, 3)), 2)
        wide = new(z)
    assert_allclose(narrow, expected, atol=2e-3 * float(expected.abs().max()))
    assert 0 < float((wide - narrow).std()) < 0.05 * float(expected.std())
    new(z).square().sum().backward()
    for name, parameter in new.named_parameters():
        if ".attentions." not in name and parameter.ndim == 4 and not name.startswith("conv_out"):
            assert parameter.detach().flatten(2).any(-1).all(), name
            assert parameter.grad.flatten(2).any(-1).all(), name
    assert new.conv_out.weight.grad.flatten(2).any(-1).all()


def test_a_block_begins_to_read_what_it_did_not_and_changes_nothing(train):
    torch, _ = upstream.load()
    ranged = part("image_range")
    torch.manual_seed(9)
    decoder = part("image_model").build({**part("settings").MODELS["rgb_2x"], "Nd": 64, "latent_dim": 8})[0].decoder[1]
    unread = torch.arange(64) % 2 == 1
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".resnets." in name and parameter.ndim == 4:
                parameter[unread], parameter[:, unread] = 0, 0
    z = torch.randn(4, 8, 9, 7)
    block = decoder.up_blocks[0].resnets[1]
    normed = []
    block.norm1.register_forward_hook(lambda module, inputs, output: normed.append(output))
    with torch.no_grad():
        expected = decoder(z)
        ranged.read_everything(decoder, "up_blocks.0.resnets.1", [z])
        changed = decoder(z)
    assert 0 < float((changed - expected).abs().max()) < 1e-2 * float(expected.abs().max())
    assert_allclose(normed[-1][:, unread].mean((0, 2, 3)), 0, atol=1e-5)
    assert_allclose(normed[-1][:, unread].square().mean((0, 2, 3)), 1, rtol=1e-3)
    weights = block.conv1.weight.detach().flatten(2)
    assert weights[~unread].any(2).all() and not weights[unread].any()
    ranged.quicken(decoder)
    decoder(z).square().sum().backward()
    assert block.conv1.weight.grad[~unread][:, unread].any() and not block.conv1.weight.grad[unread].any()


def test_muon_moves_blocks_and_adam_the_rest(train):
    torch, _ = upstream.load()
    schedule, hyper = part("schedule"), {**part("settings").HYPER_RANGE, "muon": True, "lr": 0.01}
    torch.manual_seed(10)
    decoder = part("image_model").build({**part("settings").MODELS["rgb_2x"], "Nd": 32, "latent_dim": 8})[0].decoder[1]
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if ".resnets." in name and parameter.ndim == 4:
                parameter[5], parameter[:, 7] = 0, 0
    z, losses = torch.randn(2, 8, 6, 6), []
    optimiser = schedule.MuonAndAdam(decoder, hyper)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    for _ in range(8):
        optimiser.zero_grad()
        loss = (decoder(z) - 1).square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        optimiser.step()
        if len(losses) == 1:
            for name, parameter in decoder.named_parameters():
                moved = (parameter - before[name]).detach()
                assert ".attentions." in name or moved.any(), name
                if ".resnets." in name and parameter.ndim == 4:  # orthogonal, but for what a norm takes out
                    assert not moved[5].any() and not moved[:, 7].any()
                    keep = [i for i in range(32) if i != 5]
                    singular = torch.linalg.svdvals(moved[keep].flatten(1))
                    assert singular[0] < 2 * singular[15] and singular[-2] > 0.4 * singular[15]
    assert losses[-1] < losses[0]
    again = schedule.MuonAndAdam(decoder, hyper)
    again.load_state_dict(optimiser.state_dict())
    for old, new in zip(optimiser.both[1].state_dict()["state"].values(), again.both[1].state_dict()["state"].values()):
        assert_array_equal(old["momentum_buffer"], new["momentum_buffer"])
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimiser.param_groups]


def test_wider_model_has_the_components_of_the_old_one_first(train, images, tmp_path):
    start, path = WEIGHTS / "rgb_4x.safetensors", tmp_path / "start.safetensors"
    changes = {"batch": 2, "crop": 10, "statistics_batches": 2, "fit_batches": 2}
    words = ["widen", "rgb_2x", "--start", str(start), "--steps", "0.7,6", "--data", str(images), "--out", str(path)]
    train.main(words + [word for name, value in changes.items() for word in ("--set", f"{name}={value}")])
    old, wide = walloc_ref.load_model(str(start)).model, walloc_ref.load_model(str(path)).model
    upstream.build(wide)
    assert (wide.config.latent_dim, wide.config.Nd) == (96, 192)
    first, rows = (model.tensors["encoder.0.weight"][:, :, 0, 0] for model in (old, wide))
    scales = [np.linalg.norm(part, axis=1) for part in (first, rows[:48])]
    assert_allclose((first * rows[:48]).sum(1), scales[0] * scales[1], rtol=1e-5)
    norms = part("wavelet").Wavelet(3, 2).norms.repeat(3).numpy()
    rows = rows / norms / np.linalg.norm(rows / norms, axis=1, keepdims=True)
    assert_allclose(rows @ rows.T, np.eye(96), atol=1e-4)
    with pytest.raises(SystemExit, match="no wider model"):
        train.main(["widen", "rgb_2x", "--start", str(path), *words[4:]])


@pytest.mark.parametrize(("name", "start", "encoder"), [("rgb_1x", "rgb_2x", "linear_rgb_1x"), ("rgb_16x",) * 3])
def test_wider_decoder_of_an_encoder_that_is_given(train, images, tmp_path, monkeypatch, name, start, encoder):
    """The latents of another model are put together to those that the old decoder knows."""
    paths = [str(WEIGHTS / f"{model}.safetensors") for model in (start, encoder)]
    old, given = (walloc_ref.load_model(path).model for path in paths)
    specs = part("settings").MODELS
    monkeypatch.setitem(specs, "rgb_16x", {**specs["rgb_16x"], "Nd": old.config.Nd + 32})
    words = [
        "--encoder",
        paths[1],
        "--steps",
        "0.9,1.1",
        "--data",
        str(images),
        "--out",
        str(tmp_path / "start.safetensors"),
    ]
    changes = ("batch=2", "crop=24", "statistics_batches=12", "fit_batches=10", "ridge=0.01")
    words += [word for change in changes for word in ("--set", change)]
    train.main(["widen", name, "--start", paths[0], *words])
    wide = walloc_ref.load_model(str(tmp_path / "start.safetensors")).model
    assert wide.config.Nd == specs[name]["Nd"]
    for tensor in ("encoder.0.weight", "encoder.0.bias"):
        assert_array_equal(wide.tensors[tensor], given.tensors[tensor])
    assert_array_equal(wide.step_weights, given.step_weights)
    assert wide.tables.to_bytes() == given.tables.to_bytes()
    image = iio.imread(PHOTOGRAPH)[100:260, 200:420]
    errors = [
        np.mean((walloc_ref.decode(c.encode(image), codec=c) - image.astype(float)) ** 2)
        for c in map(walloc_ref.Codec, (old, wide))
    ]
    assert errors[1] < 1.3 * errors[0]  # a start, by the statistics of few crops
    with pytest.raises(SystemExit, match="--encoder .*: not the lightweight encoder of"):
        train.main(["widen", name, "--start", paths[0], "--encoder", str(WEIGHTS / "rgb_4x.safetensors"), *words[2:]])


@pytest.mark.parametrize("step", [0.7, 1.0, 2.5])
def test_steps_for_upstream_decoder_are_of_the_range_and_finer_in_first_planes(train, step):
    hyper = {"weight_powers": [0.5, 1.0], "unit_share": 0.25}
    weights = np.array([32, 64, 128, 128, 128], np.uint8)
    steps = part("image_range").Steps(0.5, 4.0, weights, np.random.default_rng(6), hyper)
    assert_allclose(steps.of(step).flatten(), plane_steps(step, weights, 2).flatten(), rtol=1e-6)
    drawn = steps.draw(4000).numpy()[:, :, 0, 0]
    low, high = drawn[:, 0], drawn[:, -1]
    assert 0.2 < np.mean(high == 1) < 0.3 and high.min() >= 0.5 and high.max() <= 4
    assert_allclose(np.quantile(np.log2(high[high != 1]), [0.25, 0.5, 0.75]), [-0.25, 0.5, 1.25], atol=0.15)
    excess = (low[high > 1] - 1) / (high[high > 1] - 1)
    assert np.all(low[high <= 1] == high[high <= 1])
    assert excess.min() > 0.25 - 1e-3 and excess.max() < 0.5 + 1e-3 and np.ptp(excess) > 0.2


def test_linear_model_and_its_tables_load_into_upstream(train, images, tmp_path):
    path = tmp_path / "linear_rgb_4x.safetensors"
    train.main(["linear", "linear_rgb_4x", "--data", str(images), "--out", str(path)])
    untrained = walloc_ref.load_model(str(path))
    train.main(
        ["tables", str(path), "--data", str(images), "--stride", "1", "--steps", "30", "--quantiser-steps", "1,2"]
    )
    codec = walloc_ref.load_model(str(path))
    upstream.build(codec.model)  # refuses what is missing or surplus
    assert codec.model.name == "linear_rgb_4x" and codec.model_id != untrained.model_id
    image = iio.imread(images / "1.png")
    first, second = (walloc_ref.decode(c.encode(image), codec=c) for c in (untrained, codec))
    assert_array_equal(first, second)  # tables change bytes, not samples
    assert len(codec.encode(image)) < len(untrained.encode(image))


def test_unknown_hyperparameters_of_upstream_training_are_refused(train, images, tmp_path):
    with pytest.raises(SystemExit, match="--set corp: not one of"):
        run(train, "image", "rgb_16x", images, tmp_path, 0.05, corp=10)


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


def test_step_weights_are_fitted_and_kept(train, images, tmp_path, monkeypatch, capsys):
    from training import step_weights

    path = tmp_path / "linear_rgb_4x.safetensors"
    train.main(["linear", "linear_rgb_4x", "--data", str(images), "--out", str(path)])
    for name, value in (("CROP", 96), ("SWEEPS", 1), ("STEPS", (1.6, 3.0)), ("ATTENTIONS", (2.0,))):
        monkeypatch.setattr(step_weights, name, value)
    train.main(["step-weights", str(path), "--data", str(images), "--stride", "3"])
    model = walloc_ref.load_model(str(path)).model
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("attention")]
    told = [float(line.split("squared error ")[1].split()[0]) for line in lines]
    assert model.step_weights is not None and len(set(model.step_weights.tolist())) > 4
    assert told[0] < 0.05, "equal slopes are no worse than one step"
    train.main(["tables", str(path), "--data", str(images), "--stride", "1", "--steps", "30"])
    assert_array_equal(walloc_ref.load_model(str(path)).model.step_weights, model.step_weights)


def test_rounded_decoder_deflates_and_decodes_alike(train, tmp_path):
    path = tmp_path / "rounded.safetensors"
    path.write_bytes((WEIGHTS / "rgb_64x.safetensors").read_bytes())
    before = walloc_ref.load_model(str(path))
    train.main(["round", str(path), "--bits", "10"])
    after = walloc_ref.load_model(str(path))
    weights = [c.model.tensors["decoder.1.conv_in.weight"].ravel() for c in (before, after)]
    assert_allclose(weights[1], weights[0], rtol=2.0**-11)
    assert not np.any(weights[1].view(np.uint32) & (2**13 - 1)) and np.any(weights[0].view(np.uint32) & (2**13 - 1))
    assert_array_equal(after.model.tensors["encoder.0.weight"], before.model.tensors["encoder.0.weight"])
    assert len(zlib.compress(path.read_bytes())) < 0.8 * len(
        zlib.compress((WEIGHTS / "rgb_64x.safetensors").read_bytes())
    )
    image = iio.imread(PHOTOGRAPH)[100:260, 200:420]
    streams = [codec.encode(image) for codec in (before, after)]
    symbols = [walloc_ref.decode_symbols(s, codec=c) for s, c in zip(streams, (before, after))]
    assert_array_equal(symbols[0], symbols[1])
    decoded = [walloc_ref.decode(s, codec=c).astype(float) for s, c in zip(streams, (before, after))]
    assert np.mean((decoded[1] - decoded[0]) ** 2) < 1e-3 * np.mean((decoded[0] - image) ** 2)
    rounded = part("rounding").rounded(np.array([1 + 3 / 4, -(1 + 3 / 4), 2.0, 1.9, 0, -0.0], np.float32), 1)
    assert_array_equal(rounded, np.array([2, -2, 2, 2, 0, 0], np.float32))


def test_step_weights_have_mean_one_and_fit_a_byte(train):
    from training import step_weights

    assert_allclose(step_weights.normalised(np.array([0.2, 0.6, 1.0])), [1 / 3, 1, 5 / 3])
    cut = step_weights.normalised(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 30.0]))
    assert_allclose(cut, [(6 - 255 / 128) / 5] * 5 + [255 / 128], rtol=1e-6)


def test_flat_error_may_cost_a_little_squared_error(train, monkeypatch):
    """The largest attention within what is allowed is taken; attention 0 never ends the search."""
    from training import step_weights

    cost = {
        0.0: 0.2,
        1.0: 0.02,
        2.0: 0.09,
        4.0: 0.11,
        8.0: 0.0,
    }
    monkeypatch.setattr(step_weights, "Bench", lambda model, images: None)
    monkeypatch.setattr(step_weights, "fit", lambda bench, attention, *_: np.full(4, attention / 16))
    monkeypatch.setattr(step_weights, "curve", lambda bench, weights, steps: weights)
    monkeypatch.setattr(step_weights, "against", lambda points, anchor: (cost[float(points[0]) * 16], -1.0))
    model = walloc_ref.load_model(str(WEIGHTS / "gray_16x.safetensors")).model
    assert step_weights.weights_of(model, []).tolist() == [round(2 / 16 * 128)] * 4


def test_errors_of_planes_are_those_of_decoded_samples(train, images):
    """One plane's error in latents, through the linear decoder, against the samples that it changes."""
    from training import step_weights

    codec = walloc_ref.load_model(str(WEIGHTS / "linear_rgb_4x.safetensors"))
    image = iio.imread(images / "0.png")[:96, :128]
    bench, plane = step_weights.Bench(codec.model, [image]), 0
    steps = np.full(48, 40.0)  # so coarse that most of the plane is lost
    squared, flat = bench.errors(bench.symbols(steps), steps, [plane])
    error = np.zeros_like(bench.pictures[0].latents)
    symbols = bench.symbols(steps)[0]
    error[plane] = quantise.dequantise(symbols[plane], 8) * 40 - bench.pictures[0].latents[plane]
    samples = codec.synthesise(np.tensordot(linear_decoder.matrix(codec.model), error, 1))
    assert squared == pytest.approx(np.mean(samples**2), rel=0.1)  # neighbours' synthesis functions overlap
    means = samples.reshape(3, 6, 16, 8, 16).mean((2, 4))
    seen = np.square(np.tensordot(step_weights.COLOUR, means, 1)).sum(0)
    chosen = bench.pictures[0].flat
    assert chosen.sum() == 24, "half of the blocks"
    assert flat == pytest.approx(seen[chosen].sum() * 2 * 256 / image.size, rel=0.15)
