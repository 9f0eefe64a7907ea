"""The networks of the image codec, against loops and against the upstream."""

from __future__ import annotations

import numpy as np
import pytest
import upstream
from models import tiny_model

from walloc_ref.fast import autoencoder_kl as fast
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


def test_convolution_does_not_depend_on_its_blocks(monkeypatch):
    x, weight, bias = random(4, 23, 17), random(5, 4, 3, 3, seed=1), random(5, seed=2)
    whole = kl.conv3x3(x, weight, bias)
    np.testing.assert_allclose(fast.conv3x3(x, weight, bias), whole, rtol=0, atol=1e-13)
    monkeypatch.setattr(fast, "COLUMN_ELEMENTS", 1)  # one row at a time
    np.testing.assert_allclose(fast.conv3x3(x, weight, bias), whole, rtol=0, atol=1e-13)


def test_attention_equals_its_matrix_form(monkeypatch):
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
    for rows in (1, 8, 64):
        monkeypatch.setattr(fast, "QUERY_ROWS", rows)
        np.testing.assert_allclose(fast.attention(x, weights, "a"), expected, rtol=0, atol=1e-12)
    idle = weights | {"a.to_out.0.weight": np.zeros((32, 32))}
    assert np.array_equal(fast.attention(x, idle, "a"), kl.attention(x, idle, "a"))


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
    np.testing.assert_allclose(fast.decode(z, model.weights["decoder"]), decoded, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.encode(bands, model.weights["encoder"]), encoded, rtol=0, atol=1e-12)
