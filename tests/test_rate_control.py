"""Rate control: what people ask for is met, or refused in words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from models import photograph, tiny_codec

import walloc_ref
from walloc_ref import rate_control
from walloc_ref.errors import BadSamples
from walloc_ref.model import available
from walloc_ref.stages import container

SAMPLES = photograph(160, 200, seed=3)


def psnr(codec, data):
    error = walloc_ref.decode(data, codec=codec).astype(float) - SAMPLES
    return 10 * np.log10(255**2 / np.mean(error**2))


@pytest.mark.parametrize("architecture", ["LinearCodec2D", "Codec2D"])
def test_goals_are_met(architecture):
    codec = tiny_codec(architecture)
    at_one = len(codec.encode(SAMPLES))
    for wanted in (0.4 * at_one, 0.7 * at_one, 0.97 * at_one):
        data = codec.encode(SAMPLES, ratio=SAMPLES.size / wanted)
        assert abs(len(data) / wanted - 1) <= 0.01
        data = codec.encode(SAMPLES, max_bytes=int(wanted))
        assert 0.98 * int(wanted) <= len(data) <= int(wanted)


def test_psnr_is_met():
    model = tiny_codec("LinearCodec2D", J=1, latent_dim=12).model
    tensors = {name: 0 * t if name.endswith("bias") else t for name, t in model.tensors.items()}
    codec = walloc_ref.Codec(replace(model, tensors=tensors))
    for wanted in (22, 28, 34.5):
        assert abs(psnr(codec, codec.encode(SAMPLES, psnr=wanted)) - wanted) <= 0.05


def test_audio_meets_goals_too():
    codec = tiny_codec("Codec1D")
    samples = (3000 * np.random.default_rng(0).standard_normal((9000, 2))).astype(np.int16)
    data = codec.encode(samples, ratio=12)
    assert abs(walloc_ref.info(data).ratio / 12 - 1) <= 0.01


def test_a_goal_beyond_the_model_is_refused():
    codec = tiny_codec("LinearCodec2D")
    with pytest.raises(BadSamples, match=r"psnr: 70\.0; what this model reaches"):
        codec.encode(SAMPLES, psnr=70.0)
    with pytest.raises(BadSamples, match="max_bytes: 20"):
        codec.encode(SAMPLES, max_bytes=20)


def test_the_first_codec_that_is_fine_enough_encodes(monkeypatch):
    """A model that keeps 12 of 192 coefficients, and one that keeps all; what neither reaches is an error of the last."""
    names = ["rgb_16x", "linear_rgb_1x"]
    asked: list[str] = []

    def load(name):
        asked.append(name)
        return walloc_ref.load_model(name)

    candidates = [rate_control.Candidate(partial(load, name)) for name in names]
    for goal, name in (
        ({}, "rgb_16x"),
        ({"step": 0.001}, "rgb_16x"),
        ({"ratio": 100}, "rgb_16x"),
        ({"ratio": 5}, "linear_rgb_1x"),
        ({"max_bytes": 2000}, "rgb_16x"),
        ({"max_bytes": 10**6}, "linear_rgb_1x"),  # which leaves less of it unused
        ({"psnr": 22}, "rgb_16x"),
        ({"psnr": 40}, "linear_rgb_1x"),
        ({"quality": 30}, "rgb_16x"),
        ({"quality": 90}, "linear_rgb_1x"),
    ):
        asked.clear()
        codec, data = rate_control.encode_finely(candidates, SAMPLES, **goal)
        assert codec.name == name and data == codec.encode(SAMPLES, **goal)
        assert asked == names[: 1 + names.index(name)], "loaded in vain"
    for goal in ({"ratio": 100}, {"quality": 30}):
        step = walloc_ref.info(candidates[0].load().encode(SAMPLES, **goal)).step
        for finest, name in ((step * 0.99, "rgb_16x"), (step * 1.01, "linear_rgb_1x")):
            first = replace(candidates[0], finest=finest)
            assert rate_control.encode_finely([first, candidates[1]], SAMPLES, **goal)[0].name == name
    coarse = rate_control.Candidate(candidates[0].load, 1.5)
    attempts: list[str] = []
    coded = walloc_ref.Codec.coded
    monkeypatch.setattr(walloc_ref.Codec, "coded", lambda *a: attempts.append(a[0].name) or coded(*a))
    for goal in ({"ratio": 5}, {"psnr": 40}, {"max_bytes": 4000}, {"quality": 90}):
        attempts.clear()
        assert rate_control.encode_finely([coarse, candidates[1]], SAMPLES, **goal)[0].name == "linear_rgb_1x"
        assert attempts.count("rgb_16x") == ("quality" not in goal), "searched in vain"
    assert walloc_ref.info(coarse.load().encode(SAMPLES, max_bytes=4000, finest=1.5)).step == 1.5
    with pytest.raises(rate_control.TooFine, match=r"psnr: 80"):
        rate_control.encode_finely(candidates, SAMPLES, psnr=80)
    codec, data = rate_control.encode_finely(candidates, SAMPLES, quality=90, window=32)
    assert codec.name == "rgb_16x" and walloc_ref.info(data).window == 32
    both = [*candidates[1:], *candidates]  # the first one is taken at its word, that it has a window
    with pytest.raises(BadSamples, match="window"):
        rate_control.encode_finely(both, SAMPLES, quality=30, window=32)
    with pytest.raises(BadSamples, match="ratio: 100000") as error:
        rate_control.encode_finely(candidates, SAMPLES, ratio=100_000)
    assert type(error.value) is BadSamples  # too coarse: the next codec would be no help


@pytest.mark.parametrize(
    ("goal", "match"),
    [
        ({"quality": 101}, "quality: 101; 0 to 100"),
        ({"quality": float("nan")}, "quality: nan; a finite number"),
        ({"ratio": 0}, "ratio: 0; more than 0"),
        ({"psnr": True}, "psnr: True"),
        ({"step": 0}, "step: 0"),
        ({"step": 2000}, "step: 2000"),
        ({"step": float("nan")}, "step: nan"),
        ({"step": 1, "quality": 50}, "step and quality; one of"),
        ({"finest": 0}, r"finest: 0; 2\^-10 to 2\^10"),
        ({"finest": float("nan")}, "finest: nan"),
        ({"finest": 2, "quality": 100}, "quality: 100; what step 2, the finest, has on this model"),
    ],
)
def test_bad_goals_are_refused(goal, match):
    with pytest.raises(BadSamples, match=match):
        tiny_codec().encode(SAMPLES, **goal)


def test_quality_is_monotone_and_nothing_asked_is_step_one():
    codec = tiny_codec()
    sizes = [len(codec.encode(SAMPLES, quality=q)) for q in range(0, 101, 10)]
    assert sizes == sorted(sizes)
    assert walloc_ref.info(codec.encode(SAMPLES)).step == 1


def test_quality_means_the_same_step_of_the_signal_on_every_bundled_model():
    for name in available():
        model = walloc_ref.load_model(name).model
        step = rate_control.step_of_quality(35, model) * rate_control.own_step(model)
        assert step == pytest.approx(rate_control.COARSEST * (1 / 128) ** 0.35)


def test_the_step_is_what_the_stream_can_say():
    data = tiny_codec().encode(SAMPLES, step=1 / 3)
    assert walloc_ref.info(data).step == round(2**16 / 3) * container.STEP_UNIT


def test_windows_are_chosen_by_size_and_refused_where_nothing_sees_everything():
    codec = tiny_codec("Codec2D", J=1, latent_dim=3)
    small, large = photograph(100, 100), photograph(200, 200)
    assert walloc_ref.info(codec.encode(small)).window == 0
    assert walloc_ref.info(codec.encode(large)).window > 0
    assert walloc_ref.info(codec.encode(large, window=0)).window == 0
    with pytest.raises(BadSamples, match="window: 5"):
        codec.encode(small, window=5)
    with pytest.raises(BadSamples, match="no network of LinearCodec2D"):
        tiny_codec().encode(small, window=32)


def test_goals_do_not_go_to_steps_that_do_harm():
    """Below a step the latents come to the end of the companding curve: larger streams would be worse."""
    codec = walloc_ref.load_model("linear_rgb_1x")
    image = np.clip(SAMPLES.astype(int) * 2 - 100, 0, 255).astype(np.uint8)  # with plenty of white and black

    def error(data):
        return np.mean((walloc_ref.decode(data).astype(float) - image) ** 2)

    harmful = codec.encode(image, step=0.1)
    best = codec.encode(image, max_bytes=len(harmful))
    assert len(best) < len(harmful) and error(best) < error(harmful) / 10
    finer = codec.encode(image, step=0.9 * walloc_ref.info(best).step)
    assert len(finer) > len(best)  # it stopped where it had to, and not long before
    assert rate_control.Attempt.overloaded(_attempt(codec, finer, image), codec)
    assert not rate_control.Attempt.overloaded(_attempt(codec, best, image), codec)
    assert codec.encode(image, quality=100) == codec.encode(
        image, step=walloc_ref.info(codec.encode(image, quality=100)).step
    )
    assert error(codec.encode(image, quality=100)) < 2 * error(best)
    assert codec.encode(image, quality=100) == codec.encode(image, quality=97) == codec.encode(image, quality=94.3)
    with pytest.raises(BadSamples, match=r"ratio: 1\.5; what this model reaches; step"):
        codec.encode(image, ratio=1.5)


def _attempt(codec, data, image):
    stream = container.read(data)
    return rate_control.Attempt(stream.header, walloc_ref.decode_symbols(data), stream, image)
