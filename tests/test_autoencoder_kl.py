"""The networks of the image codec, against loops and against the upstream."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import upstream
from models import tiny_model

from walloc_ref import plain
from walloc_ref.fast import autoencoder_kl as fast
from walloc_ref.fast import jit, lanes
from walloc_ref.stages import autoencoder_kl as kl


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_convolution_is_cross_correlation_with_zeros_outside():
    x, weight, bias = random(2, 4, 5), random(3, 2, 3, 3, seed=1), random(3, seed=2)
    expected = np.zeros((3, 4, 5))
    for o in range(3):
        for i in range(4):
            for j in range(5):
                total = bias[o]
                for k in range(2):
                    for di in range(3):
                        for dj in range(3):
                            y, z = i + di - 1, j + dj - 1
                            if 0 <= y < 4 and 0 <= z < 5:
                                total += weight[o, k, di, dj] * x[k, y, z]
                expected[o, i, j] = total
    np.testing.assert_allclose(kl.conv3x3(x, weight, bias), expected, rtol=0, atol=1e-13)


def test_attention_equals_its_matrix_form():
    x = random(32, 5, 7)
    weights = {
        f"a.{part}.weight": random(32, 32, seed=i) for i, part in enumerate(("to_q", "to_k", "to_v", "to_out.0"))
    }
    weights |= {f"a.{part}.bias": random(32, seed=9) for part in ("to_q", "to_k", "to_v", "to_out.0")}
    weights |= {"a.group_norm.weight": random(32, seed=10), "a.group_norm.bias": random(32, seed=11)}
    t = kl.group_norm(x, weights["a.group_norm.weight"], weights["a.group_norm.bias"]).reshape(32, -1)
    q, k, v = (weights[f"a.to_{p}.weight"] @ t + weights[f"a.to_{p}.bias"][:, None] for p in "qkv")
    scores = np.exp(q.T @ k / np.sqrt(32))
    mixed = v @ (scores / scores.sum(axis=1, keepdims=True)).T
    expected = x + (weights["a.to_out.0.weight"] @ mixed + weights["a.to_out.0.bias"][:, None]).reshape(x.shape)
    np.testing.assert_allclose(kl.attention(x, weights, "a"), expected, rtol=0, atol=1e-12)


def test_group_norm_and_silu():
    x = random(64, 3, 2)
    y = kl.group_norm(x, np.ones(64), np.zeros(64))
    groups = y.reshape(32, -1)
    np.testing.assert_allclose(groups.mean(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose(groups.var(axis=1), 1, atol=1e-4)
    values = kl.silu(np.array([-1e4, -1.0, 0.0, 1.0, 1e4]))
    np.testing.assert_allclose(values, [0, -0.2689414213699951, 0, 0.7310585786300049, 1e4], rtol=1e-15)


@pytest.mark.parametrize("size", [(1, 2), (1, 6), (5, 3), (12, 9)])
def test_networks_equal_upstream(size):
    torch, _ = upstream.load()
    model = tiny_model("Codec2D", lightweight_encode=False, Ne=32)
    module = upstream.build(model)
    z, bands = random(4, *size), random(48, *size)
    with torch.no_grad():
        decoded = module.decoder[1](torch.tensor(z)[None])[0].numpy()
        encoded = module.encoder[0](torch.tensor(bands)[None])[0].numpy()
    np.testing.assert_allclose(kl.decode(z, model.weights["decoder"]), decoded, rtol=0, atol=1e-12)
    np.testing.assert_allclose(kl.encode(bands, model.weights["encoder"]), encoded, rtol=0, atol=1e-12)
    if plain.compiled():
        np.testing.assert_allclose(fast.decode(z, model.weights["decoder"]), decoded, rtol=0, atol=1e-12)
        np.testing.assert_allclose(fast.encode(bands, model.weights["encoder"]), encoded, rtol=0, atol=1e-12)


# ---- the fast ones -------------------------------------------------------------------------------------------------

compiled = pytest.mark.skipif(not plain.compiled(), reason="kernels are not compiled")
NUMBERS = [(np.float64, 1e-12), (np.float32, 2e-5)]


def state_of(x: np.ndarray, number: type) -> fast._Map:
    """Values (N, h, w), channels last, and their statistics as parts of one row each."""
    values = np.ascontiguousarray(np.moveaxis(x, 0, -1)).astype(number)
    state = fast._Map.empty(*values.shape, values.dtype)
    state.values[:] = values
    state.expect([x.shape[2]] * x.shape[1])
    mean = x.mean(axis=2)  # [N, h]
    state.parts[:, 0], state.parts[:, 1] = mean.T, ((x - mean[:, :, None]) ** 2).sum(axis=2).T
    return state


def same_statistics(state: fast._Map) -> None:
    """What the parts say is what the values say."""
    values = state.values.reshape(-1, state.values.shape[2]).astype(np.float64)
    share = state.counts[:, None] / state.counts.sum()
    mean = (share * state.parts[:, 0]).sum(axis=0)
    squares = state.parts[:, 1].sum(axis=0) + (state.counts[:, None] * (state.parts[:, 0] - mean) ** 2).sum(axis=0)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=0, atol=1e-13 * np.abs(values).max())
    np.testing.assert_allclose(squares, len(values) * values.var(axis=0), rtol=1e-12)


@compiled
@pytest.mark.parametrize(("number", "tolerance"), NUMBERS)
@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize(
    ("size", "channels", "outputs"),
    [
        ((1, 1), 32, 64),
        ((4, 4), 64, 64),
        ((5, 3), 32, 64),
        ((41, 26), 96, 64),
        ((9, 200), 32, 64),
        ((23, 7), 32, 416),  # shared out in two
        ((49, 6), 32, 768),  # two parts by rows, two by channels, and the last of few rows
    ],
)
def test_fast_convolution_with_all_around_it_equals_its_parts(
    number, tolerance, threads, size, channels, outputs, monkeypatch
):
    monkeypatch.setenv("WALLOC_THREADS", threads)
    monkeypatch.setattr(fast, "TILES", 24)
    x, before = random(channels, *size), random(outputs, *size, seed=3)
    weights = {"c.weight": random(outputs, channels, 3, 3, seed=1) / 20, "c.bias": random(outputs, seed=2)}
    weights |= {"n.weight": random(channels, seed=4), "n.bias": random(channels, seed=5)}
    network, state = fast._Network(weights, np.dtype(number), channels), state_of(x, number)
    normal = kl.silu(kl.group_norm(x, *kl.layer(weights, "n")))
    out = fast._Map.empty(*size, outputs, np.dtype(number))
    network.convolve(state.values, None, out, "c")
    expected = kl.conv3x3(x, *kl.layer(weights, "c"))
    np.testing.assert_allclose(
        np.moveaxis(out.values, -1, 0), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )
    same_statistics(out)
    out = state_of(before, number)
    network.convolve(state.values, network.norm(state, "n"), out, "c", more=True)
    expected = before + kl.conv3x3(normal, *kl.layer(weights, "c"))
    np.testing.assert_allclose(
        np.moveaxis(out.values, -1, 0), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )
    same_statistics(out)


@compiled
@pytest.mark.parametrize(("number", "tolerance"), NUMBERS)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (13, 31), (16, 32), (19, 54), (24, 64)])
def test_fast_attention_equals_the_plain_one(number, tolerance, size):
    x, parts = random(64, *size), ("to_q", "to_k", "to_v", "to_out.0")
    weights = {f"a.{part}.weight": random(64, 64, seed=i) / 3 for i, part in enumerate(parts)}
    weights |= {f"a.{part}.bias": random(64, seed=9) for part in parts}
    weights |= {"a.group_norm.weight": random(64, seed=10), "a.group_norm.bias": random(64, seed=11)}
    expected = kl.attention(x, weights, "a")
    state = state_of(x, number)
    fast._Network(weights, np.dtype(number), 64).attention(state, "a")
    np.testing.assert_allclose(np.moveaxis(state.values, -1, 0), expected, rtol=0, atol=10 * tolerance)
    same_statistics(state)


@compiled
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("outer", "inner"), [(63, 64), (64, 32), (95, 32), (96, 32), (0, 96)])
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("read", [False, True])
def test_fast_networks_leave_outer_channels_out(part, outer, inner, size, read):
    model = tiny_model("Codec2D", Nd=96, Ne=96, lightweight_encode=False)
    weights, left_out = dict(model.weights[part]), np.random.default_rng(4).permutation(96)[:outer]
    for i, (name, weight) in enumerate(sorted(weights.items())):
        weight = random(*weight.shape, seed=i) / (4 if weight.ndim < 2 else weight[0].size ** 0.5)
        if ".resnets." in name and weight.ndim == 4:
            weight[left_out] = 0
            if not (read and name.endswith("resnets.1.conv1.weight")):  # the second block of each kind may read them
                weight[:, left_out] = 0
        weights[name] = weight if not name.endswith("to_out.0.weight") or not outer else np.zeros_like(weight)
    x, run = random(weights["conv_in.weight"].shape[1], *size), {"encoder": "encode", "decoder": "decode"}[part]
    expected = getattr(kl, run)(x, weights)
    assert fast._Network(weights, np.dtype(np.float64), 96).inner == inner
    np.testing.assert_allclose(getattr(fast, run)(x, weights), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@compiled
@pytest.mark.parametrize("attends", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (31, 33)])
def test_fast_networks_do_not_depend_on_threads(size, attends, monkeypatch):
    weights = dict(tiny_model("Codec2D").weights["decoder"])
    if not attends:
        weights["mid_block.attentions.0.to_out.0.weight"] = np.zeros((32, 32))
    z, results = random(4, *size), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("WALLOC_THREADS", threads)
        results.append(fast.decode(z, weights))
        assert np.array_equal(results[-1], results[0])
    np.testing.assert_allclose(results[0], kl.decode(z, weights), rtol=0, atol=1e-12)
    narrow = fast.decode(z, weights, np.float32)
    assert 0 < np.abs(narrow - results[0]).max() < 2e-5


def test_winograds_matrices_give_a_correlation():
    into, kernel, out = (np.array(matrix) for matrix in lanes.winograd())
    d, g = np.arange(1, lanes.SIDE + 3) ** 2, np.array([3, -1, 5])
    expected = np.correlate(d, g, "valid")
    np.testing.assert_allclose(out @ ((kernel @ g) * (into @ d)), expected, rtol=1e-14)


@jit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = lanes.exponential(x[i])


@compiled
@pytest.mark.parametrize(("number", "low", "high"), [(np.float64, -708, 709), (np.float32, -87, 88)])
def test_exponential_is_good_to_a_unit_in_the_last_place(number, low, high):
    near_ties = (np.arange(2 * low, 2 * high) + 0.5) * np.log(2) / 2
    x = np.concatenate([np.linspace(low, high, 300_001), np.linspace(-2, 2, 100_001), near_ties]).astype(number)
    x = x[(x >= low) & (x <= high)]
    out = np.empty_like(x)
    exponentials(x, out)
    expected = np.exp(x.astype(np.longdouble))
    units = np.abs(out - expected) / np.spacing(expected.astype(number))
    assert units.max() < 1.5
    x = np.array([np.nan, 2 * high, np.inf, 2 * low, -np.inf, 0.0, -0.0], number)
    out = np.empty_like(x)
    exponentials(x, out)
    assert np.isnan(out[0])
    np.testing.assert_allclose(out[1:], np.exp(np.array([high, high, low, low, 0, 0], number)), rtol=1e-6)


CHECKED = """
import numpy as np
from models import tiny_model
from walloc_ref.fast import autoencoder_kl as fast, lanes, oobleck as fast_audio
from walloc_ref.stages import autoencoder_kl, oobleck
assert lanes.registers() == {registers}
for size in ((1, 1), (13, 9), (25, 30)):
    weights, z = tiny_model("Codec2D").weights["decoder"], np.random.default_rng(0).normal(size=(4, *size))
    expected = autoencoder_kl.decode(z, weights)
    for number, tolerance in ((np.float64, 1e-12), (np.float32, 2e-5)):
        assert np.abs(fast.decode(z, weights, number) - expected).max() < tolerance
weights, z = tiny_model("Codec1D").weights["decoder"], np.random.default_rng(0).normal(size=(4, 301))
assert np.abs(fast_audio.decode(z, weights) - oobleck.decode(z, weights)).max() < 1e-12
"""


@compiled
@pytest.mark.parametrize(
    ("name", "features", "registers"),
    [("", "", None), ("haswell", "+avx,+avx2,+fma,+sse4.2,+popcnt", (16, 32)), ("generic", "", (16, 16))],
)
def test_fast_networks_on_other_processors_and_with_bounds_checked(name, features, registers, tmp_path):
    if registers is not None and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("for processors of another kind")
    if name == "haswell" and lanes.registers()[1] < 32:
        pytest.skip("this processor has no such instructions")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_BOUNDSCHECK": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    if name:
        environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    program = CHECKED.format(registers=registers or lanes.registers())
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
