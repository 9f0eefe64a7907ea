"""The audio networks, against loops, against stored results of the upstream, and against the upstream itself."""

from __future__ import annotations

import numpy as np
import pytest
import upstream
from models import tiny_model

from walloc_ref.errors import MalformedModel
from walloc_ref.fast import oobleck as kernels
from walloc_ref.fast.table import FAST
from walloc_ref.plain import PLAIN
from walloc_ref.stages import oobleck


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def tiny_network(part: str = "decoder.1.") -> oobleck.Network:
    return oobleck.load(tiny_model("Codec1D", lightweight_encode=False, Ne=8).tensors, part)


def fast_snake(x: np.ndarray, alpha: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The kernel of Snake on channels first."""
    window = kernels._Window(x.shape[1], x.shape[0], 0, x.shape[1], np.dtype(np.float64))
    window.values[: x.shape[1], : x.shape[0]] = x.T
    out = kernels._Layers({}, np.float64).snake(window, {"alpha": alpha, "gain": gain})
    return out.values[: x.shape[1], : x.shape[0]].T


@pytest.mark.parametrize("dilation", [1, 3, 9])
def test_convolution_is_cross_correlation(dilation):
    x, weight, bias = random(2, 70), random(3, 2, 7, seed=1), random(3, seed=2)
    n = 70 - 6 * dilation
    expected = np.zeros((3, n))
    for o in range(3):
        for t in range(n):
            expected[o, t] = bias[o]
            for i in range(2):
                for k in range(7):
                    expected[o, t] += weight[o, i, k] * x[i, t + k * dilation]
    np.testing.assert_allclose(oobleck.conv(x, weight, bias, dilation=dilation), expected, rtol=0, atol=1e-13)


def test_transposed_convolution_scatters_and_loses_its_ends():
    x, weight, bias = random(2, 5), random(2, 3, 2, seed=1), random(3, seed=2)
    full = np.zeros((3, 6))
    for t in range(5):
        for k in range(2):
            full[:, t + k] += x[:, t] @ weight[:, :, k]
    expected = full[:, 1:-1] + bias[:, None]  # padding 1 of a transposed convolution takes away
    np.testing.assert_allclose(oobleck.conv_transpose(x, weight, bias), expected, rtol=0, atol=1e-14)


def test_snake():
    alpha_beta = {"s.alpha": np.array([[[0.5], [0.0]]]), "s.beta": np.array([[[-1.0], [-100.0]]])}
    s = oobleck.load(alpha_beta)["s"]
    x = np.array([[0.0, 1.0, -2.0], [0.0, np.pi / 2, -1e-4]])
    expected = [
        [
            0.0,
            1 + np.sin(np.exp(0.5)) ** 2 / (np.exp(-1.0) + 1e-9),
            -2 + np.sin(2 * np.exp(0.5)) ** 2 / (np.exp(-1) + 1e-9),
        ],
        [0.0, np.pi / 2 + 1e9, -1e-4 + np.sin(1e-4) ** 2 * 1e9],  # 1e-9 keeps beta = exp(-100) from infinity
    ]
    np.testing.assert_allclose(oobleck.snake(x, **s), expected, rtol=1e-15)
    np.testing.assert_allclose(fast_snake(x, **s), expected, rtol=1e-15)


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1.0, 50.0, 9.9e5, 2e6, 1e15])
def test_snake_kernel_equals_definition(scale):
    x = scale * random(3, 500)
    alpha, gain = np.array([[0.5], [1.0], [1.7]]), np.full((3, 1), 2.0)
    defined, fast = (f(x, alpha, gain) for f in (oobleck.snake, fast_snake))
    np.testing.assert_allclose(fast, defined, rtol=2e-15, atol=2e-15)
    sines = (fast_snake(x, alpha, np.full((3, 1), 1e200)) - x) / 1e200
    np.testing.assert_allclose(sines, np.sin(alpha * x) ** 2, rtol=2e-15, atol=1e-16)


def test_snake_kernel_keeps_what_is_not_finite():
    x = np.array([[1.0, np.nan, np.inf]])
    with np.errstate(invalid="ignore"):
        assert np.array_equal(np.isnan(fast_snake(x, *np.ones((2, 1, 1)))), [[False, True, True]])


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 1), (5, 8), (3, 17), (33, 27), (108, 108), (9, 65)])
@pytest.mark.parametrize(("taps", "dilation", "n"), [(1, 1, 1), (7, 9, 67), (7, 3, 30), (2, 1, 12)])
@pytest.mark.parametrize(("number", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-4)])
def test_convolution_kernel_equals_definition(inputs, outputs, taps, dilation, n, number, tolerance):
    x, layer = random(inputs, n), {"weight": random(outputs, inputs, taps, seed=1), "bias": random(outputs, seed=2)}
    window = kernels._Window(n, inputs, 0, n, np.dtype(number))
    window.values[:] = np.nan  # what no channel and no position reaches may hold anything
    window.values[:n, :inputs] = x.T
    out = kernels._Layers({}, number).conv(window, layer, "c", dilation=dilation)
    expected = oobleck.conv(x, **layer, dilation=dilation)
    assert (out.rows, out.channels) == expected.shape[::-1]
    found = out.values[: out.rows, :outputs].T
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.sqrt(inputs * taps))


@pytest.mark.parametrize(("channels", "n"), [(1, 1), (2, 1300), (4, 513), (2, 19_200), (1, 19_201), (2, 40_007)])
def test_post_filter_kernel_equals_definition(channels, n):
    x, weight, bias = random(channels, n + 128), random(channels, channels, 129, seed=1), random(channels, seed=2)
    expected = oobleck.conv(x, weight, bias)
    assert expected.shape == (channels, n)
    np.testing.assert_allclose(kernels.post_filter(x, weight, bias), expected, rtol=0, atol=1e-12)


def test_weights_are_normalised_over_all_dimensions_but_the_first():
    v, g = random(4, 3, 2), random(4, 1, 1, seed=1)
    weight = oobleck.load({"a.b.weight_v": v, "a.b.weight_g": g}, "a.")["b"]["weight"]
    for row in range(4):
        np.testing.assert_allclose(np.linalg.norm(weight[row]), abs(g[row, 0, 0]), rtol=1e-14)
        np.testing.assert_allclose(weight[row] * np.linalg.norm(v[row]), v[row] * g[row], rtol=1e-14)


def test_a_direction_of_length_zero_is_refused():
    v = random(2, 3, 7)
    v[1] = 0
    with pytest.raises(MalformedModel, match=r"conv1\.weight_v.*length 0"):
        oobleck.load({"conv1.weight_v": v, "conv1.weight_g": np.ones((2, 1, 1))})


def test_a_width_below_the_latents_is_refused():
    with pytest.raises(MalformedModel, match="Nd"):
        tiny_model("Codec1D", Nd=3)
    with pytest.raises(MalformedModel, match="Ne"):
        tiny_model("Codec1D", lightweight_encode=False, Ne=3)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_receptive_field_is_exact(part):
    left, right = kernels.DECODER_CONTEXT if part == "decoder" else kernels.ENCODER_CONTEXT
    if part == "decoder":
        x, run, network = random(4, 402), oobleck.decode, tiny_network()
    else:
        x, run, network = random(16, 400), oobleck.encode, tiny_network("encoder.0.")
    base = run(x, network)
    for place in (0, 5, 200, x.shape[1] - 1):
        changed = x.copy()
        changed[:, place] += 10
        touched = np.flatnonzero((run(changed, network) != base).any(axis=0))
        assert touched[0] == max(0, place - right)
        assert touched[-1] == min(base.shape[1] - 1, place + left)


def test_windows_are_the_whole():
    network, z = tiny_network(), random(4, 302)
    whole = oobleck.decode(z, network)
    np.testing.assert_allclose(kernels.decode(z, network), whole, rtol=0, atol=1e-12)
    left, right = kernels.DECODER_CONTEXT
    for start, stop in ((0, 1), (0, 50), (37, 150), (299, 300)):
        around = kernels.window(z, start - left, stop + right)
        part = kernels.decoder_window(network, around, start - left, 302)
        np.testing.assert_allclose(part, whole[:, start:stop], rtol=0, atol=1e-12)
    network, bands = tiny_network("encoder.0."), random(16, 300)
    np.testing.assert_allclose(kernels.encode(bands, network), oobleck.encode(bands, network), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 29, 85, 86, 171])
def test_lengths(n):
    for networks in (oobleck, kernels):
        assert networks.decode(random(4, n + 2), tiny_network()).shape == (16, n)
        assert networks.encode(random(16, n), tiny_network("encoder.0.")).shape == (4, n + 2)


def test_stored_results_of_the_upstream():
    z = np.linspace(-2, 2, 4 * 5).reshape(4, 5)
    decoded = oobleck.decode(z, tiny_network())
    encoded = oobleck.encode(np.linspace(-1, 1, 48).reshape(16, 3), tiny_network("encoder.0."))
    np.testing.assert_allclose(decoded[[0, 7, 15]], DECODED, rtol=1e-12)
    np.testing.assert_allclose(encoded, ENCODED, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 40, 200])
@pytest.mark.parametrize("width", [4, 9])
def test_networks_equal_upstream(n, width):
    torch, _ = upstream.load()
    model = tiny_model("Codec1D", lightweight_encode=False, Nd=width, Ne=width, seed=n)
    module = upstream.build(model)
    z, bands, x = random(1, 4, n + 2), random(1, 16, n), random(1, 2, n)
    with torch.no_grad():
        decoded = module.decoder[1](torch.tensor(z))[0].numpy()
        encoded = module.encoder[0](torch.tensor(bands))[0].numpy()
        filtered = module.post(torch.tensor(x))[0].numpy()
    weights = model.weights
    for functions in (PLAIN, FAST):
        ours = functions.audio_decoder(z[0], weights["decoder"])
        np.testing.assert_allclose(ours, decoded, rtol=0, atol=1e-12)
        ours = functions.audio_encoder(bands[0], weights["encoder"])
        np.testing.assert_allclose(ours, encoded, rtol=0, atol=1e-12)
        ours = functions.post_filter(x[0], **weights["post"])
        np.testing.assert_allclose(ours, filtered, rtol=0, atol=1e-12)


DECODED = np.array(
    [
        [-1.0919917477119272, 0.9258109548553285, 0.2777259583914778],
        [-5.789603798040661, -6.389127641002112, -1.2095901277508536],
        [3.019196703037583, 3.919116202203415, -1.4758731769545888],
    ]
)
"""Rows 0, 7 and 15 of what the upstream decodes in binary64."""

ENCODED = np.array(
    [
        [0.3712124718400134, 0.21840517785469907, 1.2048829828608236, -0.08872768286171176, 0.4798551678428642],
        [0.663883615632454, -1.0595768887546402, 0.7265446089955968, -0.43935947587608204, -1.0102582313759425],
        [0.05528432416379668, -0.37250045367118534, -0.3197489318997324, -0.19943969936326406, 0.2648767696091996],
        [0.5339772391589368, -1.244866133915236, 1.0212021117594774, -0.49381857082797576, 0.017892130880242607],
    ]
)
"""What the upstream encodes in binary64."""
