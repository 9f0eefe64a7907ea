"""The upstream PyTorch model in binary64 and binary32, one stage at a time. Only the generator uses it.

Of volumes, which the upstream does not have, the model is `walloc_ref.measure.linear_codec_3d`: PyTorch of ours.

Nothing here is computed by `walloc_ref`: what these functions return is the upstream's opinion, and PyWavelets' where the
upstream's filter bank is known to be wrong (at lengths of 8 and below `pytorch_wavelets` wraps the period once only).
"""

from __future__ import annotations

import importlib.metadata
import sys
from itertools import pairwise

import numpy as np
import pywt

from walloc_ref.measure.upstream import build, load
from walloc_ref.model import Model

torch, walloc = load()
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

SHORT = 8
"""Lengths up to this are transformed by PyWavelets."""

WAVELET = "bior4.4"


def versions() -> dict[str, str]:
    """Versions of everything whose opinion counts."""
    names = ("torch", "walloc", "diffusers", "pytorch-wavelets", "PyWavelets", "numpy", "scipy")
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {n: importlib.metadata.version(n) for n in names}


class Upstream:
    """One upstream model, in one precision.

    Parameters
    ----------
    model : Model
    bits : int
        64 or 32.
    """

    def __init__(self, model: Model, bits: int = 64) -> None:
        self.config, self.dtype = model.config, torch.float64 if bits == 64 else torch.float32
        self.model = build(model, bits)
        self.audio, self.axes = model.config.kind == "audio", model.config.axes

    def run(self, module, x: np.ndarray) -> np.ndarray:
        """A module, or any function of a tensor with a batch axis, on an array without one."""
        torch.set_default_dtype(self.dtype)
        try:
            with torch.no_grad():
                return module(torch.tensor(np.ascontiguousarray(x), dtype=self.dtype)[None])[0].numpy()
        finally:
            torch.set_default_dtype(torch.float64)

    # ---- encoding, stage by stage

    def pad(self, x: np.ndarray) -> np.ndarray:
        """Centred reflection; zeros at the end of audio."""
        m = 2**self.config.J
        if self.audio:
            return np.pad(x, ((0, 0), (0, -x.shape[1] % m)))
        if self.axes == 2 and all((-n % m + 1) // 2 < n for n in x.shape[1:]):
            return self.run(lambda t: walloc.pad(t, m), x)
        before = [(-n % m) // 2 for n in x.shape[1:]]  # PyTorch refuses to pad by more than there is; NumPy repeats
        after = [-n % m - b for n, b in zip(x.shape[1:], before)]
        return np.pad(x, ((0, 0), *zip(before, after)), mode="reflect")

    def short(self, shape: tuple[int, ...]) -> bool:
        """Whether PyWavelets must transform a padded signal (C, …) of this shape; our module of volumes knows any."""
        return self.axes < 3 and any(n >> level <= SHORT for n in shape[1:] for level in range(self.config.J))

    def analysis(self, x: np.ndarray) -> np.ndarray:
        """Wavelet packet analysis."""
        levels = self.config.J
        if not self.short(x.shape):
            return self.run(lambda t: self.model.wavelet_analysis(t, levels), x)
        bands = x.astype(np.float64)
        for _ in range(levels):
            bands = np.concatenate([_split(band) for band in bands])
        return bands

    def bottleneck(self):
        """Companding and rounding modules."""
        if self.config.architecture == "ResidualCodec2D":
            return self.model.to_uniform, self.model.round
        return self.model.encoder[-2], self.model.encoder[-1]

    def compand(self, latents: np.ndarray) -> np.ndarray:
        """`ToUniform`."""
        return self.run(self.bottleneck()[0], latents)

    def round(self, companded: np.ndarray) -> np.ndarray:
        """`Round`."""
        return self.run(self.bottleneck()[1], companded).astype(np.int16)

    def latents(self, bands: np.ndarray) -> np.ndarray:
        """The encoder up to the quantiser."""
        return self.run(self.model.encoder[0], bands)

    def residual(self, bands: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ResidualCodec2D: companded values and symbols of all stages, as `rae_encode` computes them, with steps."""
        remaining, values, symbols = bands, [], []
        parts = np.split(steps.astype(bands.dtype), self.config.num_stages)
        for encoder, decoder, step in zip(self.model.encoders, self.model.decoders, parts):
            values.append(self.compand(self.run(encoder, remaining) / step))
            symbols.append(self.round(values[-1]))
            remaining = remaining - self.run(decoder, self.dequantise(symbols[-1]) * step)
        return np.concatenate(values), np.concatenate(symbols)

    def windowed(self, network, x: np.ndarray, window: int, context: int) -> np.ndarray:
        """A network (a method of this class) on every window of (K, h, w), each an image of its own."""
        rows, columns = ([n * i // c for i in range(c + 1)] for n in x.shape[1:] for c in [_windows(n, window)])
        bands = []
        for top, bottom in pairwise(rows):
            y0, strip = max(0, top - context), []
            for left, right in pairwise(columns):
                x0 = max(0, left - context)
                y = network(x[:, y0 : bottom + context, x0 : right + context])
                strip.append(y[:, top - y0 : bottom - y0, left - x0 : right - x0])
            bands.append(np.concatenate(strip, axis=2))
        return np.concatenate(bands, axis=1)

    # ---- decoding, stage by stage

    def dequantise(self, symbols: np.ndarray) -> np.ndarray:
        """`ToNormal`."""
        residual = self.config.architecture == "ResidualCodec2D"
        return self.run(self.model.to_normal if residual else self.model.decoder[0], symbols.astype(np.float64))

    def network(self, latents: np.ndarray) -> np.ndarray:
        """The decoder after the dequantiser."""
        if self.config.architecture == "ResidualCodec2D":
            parts = np.split(latents, self.config.num_stages)
            return sum(self.run(decoder, part) for decoder, part in zip(self.model.decoders, parts))
        return self.run(self.model.decoder[1], latents)

    def blocks(self, network: str) -> list[tuple[str, object]]:
        """Names of the blocks of "decoder" or "encoder" and what computes them, in their order."""
        net = self.model.decoder[1] if network == "decoder" else self.model.encoder[0]
        if self.audio:
            head = lambda t: net.conv2(net.snake1(t))  # noqa: E731
            return [("conv1", net.conv1), ("block0", net.block[0]), ("block1", net.block[1]), ("head", head)]
        head = lambda t: net.conv_out(net.conv_act(net.conv_norm_out(t)))  # noqa: E731
        mid = net.mid_block
        middle = [
            ("mid.resnet0", lambda t: mid.resnets[0](t, None)),
            ("mid.attention", mid.attentions[0]),
            ("mid.resnet1", lambda t: mid.resnets[1](t, None)),
        ]
        stack, name = (net.up_blocks, "up") if network == "decoder" else (net.down_blocks, "down")
        units = [(f"{name}.resnet{i}", lambda t, unit=unit: unit(t, None)) for i, unit in enumerate(stack[0].resnets)]
        order = [*middle, *units] if network == "decoder" else [*units, *middle]
        return [("conv_in", net.conv_in), *order, ("head", head)]

    def synthesis(self, bands: np.ndarray) -> np.ndarray:
        """Wavelet packet synthesis."""
        levels = self.config.J
        if not self.short((0, *(n << levels for n in bands.shape[1:]))):
            return self.run(lambda t: self.model.wavelet_synthesis(t, levels), bands)
        x = bands.astype(np.float64)
        for _ in range(levels):
            count = 2**self.axes
            x = np.stack([_merge(x[i : i + count]) for i in range(0, len(x), count)])
        return x

    def post(self, x: np.ndarray) -> np.ndarray:
        """The post filter."""
        return self.run(self.model.post, x)

    def clamp(self, x: np.ndarray) -> np.ndarray:
        """To [-0.5, 0.5]."""
        return self.run(self.model.clamp, x)

    def crop(self, x: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
        """Without the padding."""
        if self.audio:
            return x[:, : sizes[0]]
        if self.axes == 3:
            starts = [(-n % 2**self.config.J) // 2 for n in sizes]
            return x[(slice(None), *(slice(start, start + n) for start, n in zip(starts, sizes)))]
        return self.run(lambda t: walloc.crop(t, sizes), x)


def _windows(positions: int, window: int) -> int:
    """Windows along an axis."""
    return max(1, (positions + window // 2) // window) if window else 1


def _split(band: np.ndarray) -> np.ndarray:
    """One level of one band by PyWavelets: (n0[, n1]) to (2 or 4, n0/2[, n1/2])."""
    if band.ndim == 1:
        return np.stack(pywt.dwt(band, WAVELET, "periodization"))
    low, details = pywt.dwt2(band, WAVELET, "periodization")
    return np.stack([low, *details])


def _merge(bands: np.ndarray) -> np.ndarray:
    """The inverse of `_split`."""
    if bands.ndim == 2:
        return pywt.idwt(bands[0], bands[1], WAVELET, "periodization")
    return pywt.idwt2((bands[0], tuple(bands[1:])), WAVELET, "periodization")
