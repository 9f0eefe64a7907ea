"""Train the bundled models with the upstream's own PyTorch classes.

One command trains one model and writes a ``.safetensors`` file that both ``walloc_ref`` and the upstream's
``load_state_dict`` read::

    python weights/train.py image rgb_16x --data FOLDER --tune FOLDER --run FOLDER --minutes 70

How it works, in the order of the code:

1. The encoder is closed form: principal components of the wavelet packet coefficients of the training images,
   weighted by the norms of the synthesis functions so that "variance" means squared error of samples, sorted by
   falling variance. Each is scaled so that one more bit of order-0 entropy buys the same squared error everywhere
   (`equal_slope_scales`; for audio, whose levels differ by far more, `companded_scales`); that slope sets the rate.
2. The decoder starts at the linear solution, with its last convolution fitted by least squares (`linear_start_2d`,
   `linear_start_1d`), and is trained on symbols rounded exactly as in use.
3. The loss is the squared error of the *samples*. On small crops it is approximated by the coefficients' errors times
   the norms of their synthesis functions. In the last phase, on large crops, it is exact: a quadratic form of the
   coefficients' error, with value and gradient computed by hand from the synthesis matrix (`Wavelet.loss_and_grad`).

Everything is seeded, logged to ``RUN/log.txt``, and resumable from ``RUN/checkpoint.pt``. Surprises:

* Rates are estimated here by order-0 entropy; the bitstream's own tables come last (``train.py tables``).
* The schedule follows elapsed time (``--minutes``), so the number of steps depends on the machine.
"""

from __future__ import annotations

import argparse
import base64
import importlib.machinery
import io
import json
import math
import os
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers.models.autoencoders  # noqa: F401  (must see that torchvision is missing before the stand-in)
import numpy as np
import pywt
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

try:
    import torchvision.transforms  # noqa: F401
except ImportError:  # walloc imports two display helpers from it, which the model itself never calls
    for _name in ("torchvision", "torchvision.transforms"):
        _module = types.ModuleType(_name)
        _module.__spec__ = importlib.machinery.ModuleSpec(_name, None)
        _module.ToPILImage = _module.PILToTensor = object  # type: ignore[attr-defined]
        sys.modules[_name] = _module
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
import walloc.walloc as walloc

MODELS: dict[str, dict] = {
    "rgb_16x": {"channels": 3, "J": 3, "Nd": 96, "latent_dim": 12, "slope": 0.0062},
    "rgb_4x": {"channels": 3, "J": 3, "Nd": 128, "latent_dim": 48, "slope": 0.0037},
    "rgb_64x": {"channels": 3, "J": 4, "Nd": 96, "latent_dim": 12, "slope": 0.002},
    "gray_16x": {"channels": 1, "J": 3, "Nd": 96, "latent_dim": 4, "slope": 0.004},
    "linear_rgb_4x": {"channels": 3, "J": 3, "latent_dim": 48, "slope": 0.0037},
    "stereo_5x": {"channels": 2, "J": 8, "Nd": 108, "latent_dim": 108, "post_filter": True, "slope": 3.5e-5},
    "stereo_20x": {"channels": 2, "J": 8, "Nd": 108, "latent_dim": 27, "post_filter": True, "slope": 2.5e-4},
}
"""Configuration of each model and the squared error that one bit must buy (`slope`).

All have 8-bit latents and the lightweight encoder.
"""

HYPER: dict = {
    "seed": 1,
    "batch": 4,  # crops per step
    "crop": 24,  # latent positions along each side of a crop
    "fresh": 1,  # of these crops, new ones; the others are drawn again from a pool
    "pool": 1024,  # crops kept
    "lr": 1e-3,
    "lr_ends": 0.1,  # of lr, for the convolutions and the norm on the linear path of the image decoder
    "optimiser": "adam",
    "betas": (0.9, 0.98),
    "warmup_steps": 200,
    "lr_final": 0.01,  # of lr, end of the cosine
    "ema": 0.999,
    "large_crop": 48,
    "large_batch": 1,
    "large_share": 0.2,  # of the time, at the end: crops transformed as images of their own, borders included
    "fit_crops": 320,  # crops for the least squares of the last convolution
    "ridge": 1e-4,  # of each feature's variance
    "polish_crops": 200,  # large crops for fitting the last convolution once more at the end; kept if better on `tune`
    "polish_ridge": 1e-3,
    "pin": 1,  # times the usual constants of `linear_start_2d`
    "refit": 0,  # crops for the same when a run is resumed
}
"""Hyperparameters; ``--set name=value`` changes one. All are written to the log and the checkpoint."""

HYPER_AUDIO: dict = {
    "seed": 1,
    "batch": 12,
    "crop": 192,
    "lr": 1e-3,
    "lr_ends": 0.05,  # of lr, for the convolutions on the linear path
    "optimiser": "adam",
    "betas": (0.9, 0.98),
    "warmup_steps": 200,
    "lr_final": 0.01,
    "clip": 5.0,  # norm of the gradient of the loss over its running mean
    "ema": 0.999,
    "whiten": 0.5,  # components are those of coefficients over their track's level to this power
    "track_power": 0.5,  # a track's errors weigh 1 / its linear codec's error to this power: the measure is mean PSNR
    "hold_every": 7,  # every n-th track is watched instead of trained on
    "hold_positions": 4096,
    "post_stretches": 40,
    "post_ridge": 1e-4,
}
"""Hyperparameters of the audio models."""

SUBSET_WEIGHT = {"dreambooth": 0.35, "unsplash": 0.7, "pexels": 0.7, "cq100": 0.5}
"""Sampling weight of an image by subset (1 elsewhere): 29 repeated subjects, many landscapes, very colourful."""


# ---------------------------------------------------------------------------------------------- wavelet, as matrices


def synthesis_functions(J: int, positions: int) -> np.ndarray:
    """Samples ``[2^J, positions·2^J]`` that a unit coefficient in the middle of each band stands for."""
    P = 2**J
    X = np.zeros((P, P, positions))
    X[np.arange(P), np.arange(P), positions // 2] = 1
    for _ in range(J):
        X = X.reshape(P, X.shape[1] // 2, 2, -1)
        X = pywt.idwt(X[:, :, 0], X[:, :, 1], "bior4.4", mode="periodization", axis=-1)
    return X[:, 0]


def band_norms(J: int) -> torch.Tensor:
    """Norm of each band's synthesis function, one axis ``[2^J]``."""
    return torch.from_numpy((synthesis_functions(J, 16) ** 2).sum(1) ** 0.5).float()


class Wavelet:
    """The upstream's packet transform of one axis as block matrices, for crops at any pixel offset.

    One output position of a J-level transform sees a window of ``8·(2^J − 1) + 1`` samples. Stored as whole blocks of
    ``P = 2^J`` samples, analysis is ``X[p] = sum_t A[:, t] @ block[p + t - before]``, synthesis its counterpart.
    """

    def __init__(self, J: int, axes: int):
        self.J, self.P, self.axes = J, 2**J, axes
        n = 32 * self.P
        a = self._analyse(np.eye(n))  # [n samples in, bands, n/P]
        centre = a.shape[2] // 2
        taps = a[:, :, centre].T  # [P, n]
        s = synthesis_functions(J, n // self.P)  # [P, n]
        self.before_a, self.A = self._blocks(taps, centre)
        self.before_s, self.S = self._blocks(s, centre)
        order = np.zeros((self.P,) * axes, dtype=np.int64)  # upstream's band index of (k_vertical, k_horizontal)
        for k in np.ndindex(*order.shape):
            index = 0
            for level in reversed(range(J)):  # the first level's digit is the most significant one
                digits = [(kk >> level) & 1 for kk in k]
                index = index * 2**axes + (digits[0] if axes == 1 else digits[0] + 2 * digits[1])
            order[k] = index
        self.order = torch.from_numpy(order.ravel())
        self.inverse_order = torch.argsort(self.order)
        norms = (self.S**2).sum((1, 2)).sqrt()
        full = norms if axes == 1 else (norms[:, None] * norms[None, :]).ravel()
        self.norms = full[self.inverse_order]  # norm of each band's synthesis function, upstream's order

    def _analyse(self, x: np.ndarray) -> np.ndarray:
        x = x[:, None, :]
        for _ in range(self.J):
            lo, hi = pywt.dwt(x, "bior4.4", mode="periodization", axis=-1)
            x = np.stack([lo, hi], axis=2).reshape(x.shape[0], -1, lo.shape[-1])
        return x

    def _blocks(self, taps: np.ndarray, centre: int) -> tuple[int, torch.Tensor]:
        used = np.nonzero(np.abs(taps).max(0) > 1e-12)[0] // self.P
        first, last = int(used.min()), int(used.max())
        blocks = taps[:, first * self.P : (last + 1) * self.P].reshape(self.P, last - first + 1, self.P)
        return centre - first, torch.from_numpy(blocks).float()  # [band, block tap, sample]

    @property
    def margin(self) -> int:
        """Samples needed on each side of a crop, a multiple of the block."""
        return self.P * max(self.before_a, self.A.shape[1] - 1 - self.before_a)

    def _gather(self, x: torch.Tensor, M: torch.Tensor, positions: int, first: int) -> torch.Tensor:
        """``[..., blocks·P] -> [..., P, positions]``: correlate blocks from `first` on with M."""
        T = M.shape[1]
        b = x.reshape(*x.shape[:-1], -1, self.P)  # [..., blocks, P]
        windows = torch.cat([b[..., first + t : first + t + positions, :] for t in range(T)], dim=-1)
        return (windows @ M.reshape(self.P, -1).T).transpose(-1, -2)

    def _scatter(self, X: torch.Tensor, M: torch.Tensor) -> torch.Tensor:
        """``[..., P, positions] -> [..., (positions + T - 1)·P]``: the adjoint of `_gather`, all output blocks."""
        T, n = M.shape[1], X.shape[-1]
        y = X.transpose(-1, -2) @ M.reshape(self.P, -1)  # [..., positions, T·P]
        out = y.new_zeros(*y.shape[:-2], n + T - 1, self.P)
        for t in range(T):
            out[..., t : t + n, :] += y[..., t * self.P : (t + 1) * self.P]
        return out.flatten(-2)

    def _both(self, x: torch.Tensor, step) -> torch.Tensor:
        """Apply a one-axis analysis to all axes and put the bands in upstream's order."""
        x = step(x)  # last axis [..., P, w]
        if self.axes == 1:
            return x[..., self.order.argsort(), :].flatten(1, 2)
        x = step(x.movedim(-3, -1))  # [b, c, P_h, w, P_v, h]
        x = x.permute(0, 1, 4, 2, 5, 3).flatten(2, 3)  # [b, c, k_v·P + k_h, h, w]
        return x[:, :, self.inverse_order].flatten(1, 2)

    def analyse(self, x: torch.Tensor) -> torch.Tensor:
        """Samples with `margin` on every side, ``[b, c, (h,) w] -> [b, c·P^axes, h/P, w/P]``."""
        first = self.margin // self.P - self.before_a
        return self._both(
            x, lambda v: self._gather(v, self.A, v.shape[-1] // self.P - 2 * self.margin // self.P, first)
        )

    def loss_and_grad(self, error: torch.Tensor, channels: int) -> tuple[float, torch.Tensor]:
        """Sum of squared sample errors of a coefficient error (zero outside the crop), and its gradient."""
        bands = error.unflatten(1, (channels, -1))[:, :, self.order]  # [b, c, k, ...]
        if self.axes == 1:
            y = self._scatter(bands, self.S)
        else:
            v = bands.unflatten(2, (self.P, self.P)).permute(0, 1, 3, 5, 2, 4)  # [b, c, k_h, w, k_v, h]
            y = self._scatter(v, self.S)  # [b, c, k_h, w, H]
            y = self._scatter(y.permute(0, 1, 4, 2, 3), self.S)  # [b, c, H, W]
        T = self.S.shape[1]
        grad = self._both(y, lambda v: self._gather(v, self.S, v.shape[-1] // self.P - T + 1, 0))
        return float((y * y).sum()), 2 * grad


# ---------------------------------------------------------------------------------------------------------- images


def read_image(path: Path, channels: int) -> np.ndarray:
    """An 8-bit image as ``[channels, H, W]`` uint8, EXIF orientation applied."""
    with Image.open(path) as im:
        im = ImageOps.exif_transpose(im).convert("RGB" if channels == 3 else "L")
        a = np.asarray(im)
    return np.ascontiguousarray(a.transpose(2, 0, 1) if a.ndim == 3 else a[None])


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files below `folder` with one of the suffixes, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)


class Images:
    """Training images in memory and seeded random crops of them, flipped, transposed and shifted by any pixel."""

    def __init__(self, folder: Path, channels: int, margin: int, rng: np.random.Generator):
        files = list_files(folder, (".jpg", ".jpeg", ".png", ".webp"))
        self.images = [read_image(f, channels) for f in files]
        weight = [SUBSET_WEIGHT.get(f.parent.name, 1.0) * math.sqrt(im[0].size) for f, im in zip(files, self.images)]
        self.p = np.array(weight) / sum(weight)
        self.margin, self.rng = margin, rng

    def batch(self, count: int, size: int, wrap: bool) -> torch.Tensor:
        """Float32 crops ``[count, c, size + 2·margin, ...]`` in [-0.5, 0.5]; `wrap`: margins repeat the crop."""
        m = self.margin
        need = size if wrap else size + 2 * m
        out = []
        for i in self.rng.choice(len(self.images), count, p=self.p):
            im = self.images[i]
            pad = [max(0, need - n) for n in im.shape[1:]]
            if any(pad):
                im = np.pad(im, ((0, 0), (0, pad[0]), (0, pad[1])), mode="symmetric")
            y, x = (int(self.rng.integers(0, n - need + 1)) for n in im.shape[1:])
            crop = im[:, y : y + need, x : x + need]
            flags = self.rng.integers(0, 2, 3)
            if flags[0]:
                crop = crop[:, ::-1]
            if flags[1]:
                crop = crop[:, :, ::-1]
            if flags[2]:
                crop = crop.transpose(0, 2, 1)
            if wrap:
                crop = np.pad(crop, ((0, 0), (m, m), (m, m)), mode="wrap")
            out.append(crop)
        return torch.from_numpy(np.stack(out).astype(np.float32) / 255 - 0.5)


# -------------------------------------------------------------------------------------------------------- the encoder


def principal_components(X: torch.Tensor, weight: torch.Tensor, latent_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder rows ``[latent_dim, n]`` (unit scale) and mean ``[n]`` from samples ``[count, n]``.

    Components of the coefficients times `weight`, the norms of their synthesis functions, by falling variance.
    """
    mean = X.double().mean(0)
    Y = (X.double() - mean) * weight.double()
    _, vectors = torch.linalg.eigh(Y.T @ Y / len(Y))
    V = vectors.flip(1)[:, :latent_dim].T  # [latent_dim, n]
    V = V * torch.sign(V.gather(1, V.abs().argmax(1, keepdim=True)))
    return (V * weight.double()).float(), mean.float()


def equal_slope_scales(Z: torch.Tensor, slope: float, bits: int) -> torch.Tensor:
    """Scale of each component ``Z [count, latent_dim]`` that minimises squared error + slope·entropy (bits).

    Measured with a uniform quantiser at the companding's slope at the origin, 2M/(s·sqrt(2π)), and reconstruction at
    the mean of each bin. At low rates the strong components get finer steps than the weak ones.
    """
    companding = 2 * (2 ** (bits - 1) - 0.501) / ((2 ** (bits - 1) - 1) / 1.85 * math.sqrt(2 * math.pi))
    grid = np.exp(np.linspace(math.log(0.1), math.log(200), 160))
    out = []
    for z in Z[:: max(1, len(Z) // 20000)].double().numpy().T:
        costs = []
        for scale in grid:
            k = np.rint(z * scale * companding).astype(np.int64)
            k -= k.min()
            n, total = np.bincount(k), np.bincount(k, z)
            n, total = n[n > 0], total[n > 0]
            distortion = (np.sum(z * z) - np.sum(total**2 / n)) / len(z)
            costs.append(distortion - slope * np.sum(n * np.log2(n / len(z))) / len(z))
        log_costs = np.convolve(np.pad(costs, 4, mode="edge"), np.ones(9) / 9, mode="valid")  # the minimum is flat
        out.append(grid[int(np.argmin(log_costs))])
    return torch.tensor(out, dtype=torch.float32)


def set_encoder(conv: torch.nn.Module, W: torch.Tensor, mean: torch.Tensor, scales: torch.Tensor) -> None:
    """Write components ``W [latent_dim, n]`` times their scales, and the bias that removes the mean."""
    with torch.no_grad():
        conv.weight.copy_((scales[:, None] * W).reshape(conv.weight.shape))
        conv.bias.copy_(-scales * (W @ mean))


def quantise(codec: torch.nn.Module, X: torch.Tensor) -> torch.Tensor:
    """Symbols as in use (`Round` adds noise in training mode, so rounding is done here)."""
    with torch.no_grad():
        return torch.round(codec.encoder[1](codec.encoder[0](X)))


def entropy_bits(symbols: list[np.ndarray]) -> float:
    """Order-0 entropy in bits of all symbols, each channel of each image with its own histogram."""
    bits = 0.0
    for Y in symbols:
        for channel in Y.reshape(Y.shape[0], -1).astype(np.int64):
            n = np.bincount(channel - channel.min())
            n = n[n > 0]
            bits -= float((n * np.log2(n / n.sum())).sum())
    return bits


# ------------------------------------------------------------------------------------------------ linear start, images


LINEAR_PATH = ("conv_in", "conv_out", "conv_norm_out", "conv1.", "conv2.")
"""Parameters that carry the linear solution (with the transposed convolutions of the audio decoder); they learn slowly,
because noise in them costs more than they can gain."""

STREAM_GAIN = 4.0
"""Size of the latents inside the decoder, in coefficient units."""


def linear_start_2d(
    decoder: torch.nn.Module, sigma: torch.Tensor, scales: torch.Tensor, pin: float = 1, groups: int = 32
) -> None:
    """Make the `AutoencoderKL` decoder pass its latents through, so that only its last convolution is to be fitted.

    Every GroupNorm group holds a constant channel, ten times as large as its latents' standard deviation (25 times for
    the strongest latent, because the group's scale still varies a little from image to image, 30 times for singles,
    because SiLU is then close to straight): it pins the group's scale. The others hold latents as pairs +z, -z,
    because SiLU(u) - SiLU(-u) = u exactly, or, for the latents of least variance where channels are short, singly.
    Residual branches and attention end in zeros.

    Inside, latents have the units of coefficients times `STREAM_GAIN`, not unit variance: what the residual branches
    add then disturbs strong and weak latents by the same amount, and little.
    """
    Nd, D = decoder.conv_in.out_channels, decoder.conv_in.in_channels
    per = Nd // groups
    slots = per - 1
    # A group's content: list of (latent, sign). First as many pairs as possible, then singles.
    singles_groups = 0
    while (groups - singles_groups) * (slots // 2) + singles_groups * slots < D:
        singles_groups += 1
        if singles_groups > groups:
            raise ValueError(f"Nd {Nd} is too narrow for {D} latents")
    layout: list[list[tuple[int, float]]] = []
    latent = 0
    for g in range(groups):
        content: list[tuple[int, float]] = []
        if g < groups - singles_groups:
            for _ in range(slots // 2):
                if latent < D:
                    content += [(latent, 1.0), (latent, -1.0)]
                    latent += 1
        else:
            for _ in range(slots):
                if latent < D:
                    content.append((latent, 1.0))
                    latent += 1
        layout.append(content)
    with torch.no_grad():
        w, b = decoder.conv_in.weight, decoder.conv_in.bias
        spare = w.clone()
        w.zero_()
        b.zero_()
        mean, std, gain = torch.zeros(Nd), torch.ones(Nd), torch.ones(Nd)
        constant = torch.zeros(Nd, dtype=torch.bool)
        for g, content in enumerate(layout):
            first = g * per
            for j, (z, sign) in enumerate(content):
                w[first + j, z, 1, 1] = sign * STREAM_GAIN / scales[z]
            if content:
                level = [STREAM_GAIN * float(sigma[z] / scales[z]) for z, _ in content]
                single = len({z for z, _ in content}) == len(content)
                K = pin * (30.0 if single else 25.0 if content[0][0] == 0 else 10.0) * max(level)
                b[first + per - 1] = K
                constant[first + per - 1] = True
                m = K / per
                spares = per - 1 - len(content)
                s = math.sqrt((sum(v * v for v in level) + spares * level[0] ** 2) / per + K * K * (per - 1) / per**2)
                for j, v in enumerate(level + spares * level[:1]):
                    gain[first + j] = s / v
                mean[first : first + per], std[first : first + per] = m, s
                for j in range(len(content), per - 1):  # a spare channel: random features of the neighbourhood
                    w[first + j] = spare[first + j] / sigma[:, None, None] * 3 * level[0]
            else:
                w[first : first + per] = spare[first : first + per] / sigma[:, None, None] * 3

        def set_norm(norm: torch.nn.GroupNorm, gain: torch.Tensor) -> None:
            norm.weight.copy_(torch.where(constant, torch.ones(()), gain))
            norm.bias.copy_(torch.where(constant, torch.zeros(()), mean / std * gain))

        resnets = [*decoder.mid_block.resnets, *decoder.up_blocks[0].resnets]
        for r in resnets:
            set_norm(r.norm1, gain)
            r.conv2.weight.zero_()
            r.conv2.bias.zero_()
        attention = decoder.mid_block.attentions[0]
        set_norm(attention.group_norm, gain)
        attention.to_out[0].weight.zero_()
        attention.to_out[0].bias.zero_()
        set_norm(decoder.conv_norm_out, torch.ones(Nd))


def fit_last_conv_2d(
    codec: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], ridge: float
) -> None:
    """Least squares of ``decoder[1].conv_out`` from its input features to the coefficients X, shrunk to what it is."""
    conv = codec.decoder[1].conv_out
    features: list[torch.Tensor] = []
    hook = conv.register_forward_pre_hook(lambda _, a: features.append(a[0]))
    count, gram, cross = 0, 0.0, 0.0
    with torch.no_grad():
        for Y, X in batches:
            features.clear()
            error = X - codec.decoder(Y)
            F = torch.nn.functional.unfold(features[0], 3, padding=1)  # [b, Nd·9, positions]
            F = F.transpose(1, 2).flatten(0, 1)
            F = torch.cat([F, torch.ones(len(F), 1)], 1)
            T = error.flatten(2).transpose(1, 2).flatten(0, 1)
            gram, cross = gram + (F.T @ F).double(), cross + (F.T @ T).double()
            count += len(F)
        variance = (gram.diagonal() / count - (gram[-1] / count) ** 2).clamp_min(1e-12)
        change = torch.linalg.solve(gram + torch.diag(ridge * count * variance), cross).float()  # [Nd·9 + 1, out]
        conv.weight.add_(change[:-1].T.reshape(conv.weight.shape))
        conv.bias.add_(change[-1])
    hook.remove()


# ------------------------------------------------------------------------------------------------------------ training


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for convolution weights (K. Jordan 2024), seen as matrices [out, in·taps]."""

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One update."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"]
                m.lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(m, group["momentum"]).flatten(1)
                tall = g.shape[0] > g.shape[1]
                X = g.T if tall else g
                X = X / (X.norm() + 1e-12)
                for _ in range(5):
                    A = X @ X.T
                    X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
                X = X.T if tall else X
                p.add_(X.reshape(p.shape), alpha=-group["lr"] * math.sqrt(max(1.0, g.shape[0] / g.shape[1])))
        return None


class Log:
    """Lines to the terminal and to a file, with the time."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, text: str) -> None:
        """Write one line."""
        line = time.strftime("%H:%M:%S ") + text
        print(line, flush=True)
        with open(self.path, "a") as f:
            f.write(line + "\n")


def evaluate_2d(codec: torch.nn.Module, images: list[np.ndarray]) -> tuple[float, float, list[np.ndarray]]:
    """Mean PSNR over whole images through the upstream's own functions, bits a pixel at order 0, symbols."""
    psnr, symbols, pixels = [], [], 0
    dtype = next(codec.parameters()).dtype
    with torch.no_grad():
        for im in images:
            x = torch.from_numpy(im.astype(np.float64) / 255 - 0.5)[None].to(dtype)
            padded = walloc.pad(x, 2**codec.J)
            Y = quantise(codec, codec.wavelet_analysis(padded, codec.J))
            y = codec.clamp(codec.wavelet_synthesis(codec.decoder(Y), codec.J))
            out = torch.round(255 * (walloc.crop(y, x.shape[2:])[0] + 0.5)).clamp(0, 255).numpy()
            psnr.append(10 * math.log10(255**2 / float(np.mean((out - im) ** 2.0))))
            symbols.append(Y[0].numpy().astype(np.int16))
            pixels += im[0].size
    return float(np.mean(psnr)), entropy_bits(symbols) / pixels, symbols


def config_json(config: dict) -> str:
    """Canonical JSON."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def export(path: Path, name: str, config: dict, state: dict[str, torch.Tensor], entropy: str | None = None) -> None:
    """Write a model file; the fixed wavelet filters ``wt.*``, ``iwt.*`` stay out."""
    tensors = {k: v.detach().float().contiguous() for k, v in state.items() if not k.startswith(("wt.", "iwt."))}
    metadata = {"walloc_ref.format": "1", "walloc_ref.name": name, "walloc_ref.config": config_json(config)}
    if entropy is not None:
        metadata["walloc_ref.entropy"] = entropy
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def build_2d(spec: dict) -> tuple[torch.nn.Module, dict]:
    """An untrained `Codec2D` and its canonical configuration."""
    config = {
        "architecture": "Codec2D",
        "channels": spec["channels"],
        "J": spec["J"],
        "Ne": None,
        "Nd": spec["Nd"],
        "latent_dim": spec["latent_dim"],
        "latent_bits": 8,
        "lightweight_encode": True,
    }
    codec = walloc.Codec2D(spec["channels"], spec["J"], None, spec["Nd"], spec["latent_dim"], 8, True)
    return codec.to(memory_format=torch.channels_last), config


def optimisers(decoder: torch.nn.Module, hyper: dict) -> list[torch.optim.Optimizer]:
    """Adam with a slow group for the linear path, or Muon for the residual convolutions and Adam for the rest."""
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    if hyper["optimiser"] == "adam":
        ends = [p for n, p in decoder.named_parameters() if n.startswith(LINEAR_PATH) or "conv_t1" in n]
        ids = {id(p) for p in ends}
        groups = [
            {"params": [p for p in parameters if id(p) not in ids], "lr": hyper["lr"]},
            {"params": ends, "lr": hyper["lr"] * hyper["lr_ends"]},
        ]
        return [torch.optim.Adam([g for g in groups if g["params"]], betas=hyper["betas"])]
    matrices = [p for n, p in decoder.named_parameters() if p.ndim > 1 and ".conv" in n and "resnets" in n]
    ids = {id(p) for p in matrices}
    return [
        Muon(matrices, hyper["muon_lr"]),
        torch.optim.Adam([p for p in parameters if id(p) not in ids], lr=hyper["lr"], betas=hyper["betas"]),
    ]


def settings(args: argparse.Namespace, defaults: dict) -> tuple[dict, dict]:
    """The model's configuration and the hyperparameters, with the changes of ``--set``."""
    spec, hyper = dict(MODELS[args.model]), dict(defaults)
    for item in args.set:
        key, value = item.split("=", 1)
        (spec if key in spec else hyper)[key] = json.loads(value) if value[:1] in "0123456789-[." else value
    return spec, hyper


def resume(opts: list[torch.optim.Optimizer], states: list[dict]) -> None:
    """Load the optimisers' moments; learning rates stay those of the hyperparameters."""
    for opt, state in zip(opts, states):
        rates = [group["lr"] for group in opt.param_groups]
        opt.load_state_dict(state)
        for group, rate in zip(opt.param_groups, rates):
            group["base_lr"] = rate


def set_rates(opts: list[torch.optim.Optimizer], step: int, progress: float, hyper: dict) -> None:
    """Warm-up by steps, cosine by elapsed time; clears the gradients."""
    rate = min(1.0, (step + 1) / hyper["warmup_steps"])
    rate *= hyper["lr_final"] + (1 - hyper["lr_final"]) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = group.setdefault("base_lr", group["lr"]) * rate
        opt.zero_grad(set_to_none=True)


def update_ema(ema: dict[str, torch.Tensor], decoder: torch.nn.Module, step: int, hyper: dict) -> None:
    """Move the average towards the decoder's weights, over the last fifth of the steps at first."""
    decay = min(hyper["ema"], (1 + step) / (6 + step))
    with torch.no_grad():
        for k, v in decoder.state_dict().items():
            ema[k].lerp_(v, 1 - decay)


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint that is whole or not there."""
    torch.save(content, str(path) + ".partial")
    os.replace(str(path) + ".partial", path)


def train_image(args: argparse.Namespace) -> None:
    """Train one image model; see the module's text."""
    spec, hyper = settings(args, HYPER)
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)
    log = Log(run / "log.txt")
    log(f"{args.model} {config_json(spec)} {config_json(hyper)} minutes={args.minutes}")
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    wavelet = Wavelet(spec["J"], 2)
    codec, config = build_2d(spec)
    decoder, C, P = codec.decoder[1], spec["channels"], wavelet.P
    images = Images(Path(args.data), C, wavelet.margin, rng)
    tune = [read_image(f, C) for f in list_files(Path(args.tune), (".jpg", ".png"))[::5]]
    log(f"{len(images.images)} training images, {len(tune)} tuning images")

    def batch(count: int, size: int, wrap: bool) -> tuple[torch.Tensor, torch.Tensor]:
        X = wavelet.analyse(images.batch(count, size * P, wrap)).contiguous(memory_format=torch.channels_last)
        return quantise(codec, X), X

    checkpoint = run / "checkpoint.pt"
    step, elapsed = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        codec.load_state_dict(saved["model"])
        ema, step, elapsed = saved["ema"], saved["step"], saved["elapsed"]
        rng.bit_generator.state = saved["rng"]
        opts = optimisers(decoder, hyper)
        resume(opts, saved["optimiser"])
        log(f"resumed at step {step}, {elapsed / 60:.1f} min")
        if hyper["refit"]:  # go on from the average, with the last convolution fitted to its features
            decoder.load_state_dict(ema)
            fit_last_conv_2d(
                codec, (batch(4, hyper["crop"], False) for _ in range(hyper["refit"] // 4)), hyper["ridge"]
            )
            ema = {k: v.clone() for k, v in decoder.state_dict().items()}
            log(f"last convolution fitted again: tune {evaluate_2d(codec, tune)[0]:.3f} dB")
    else:
        X = sample_coefficients(wavelet, images)
        W, mean = principal_components(X, wavelet.norms.repeat(C), spec["latent_dim"])
        scales = equal_slope_scales((X - mean) @ W.T, spec["slope"], 8)
        log("scales " + " ".join(f"{s:.2f}" for s in scales.tolist()))
        set_encoder(codec.encoder[0], W, mean, scales)
        sigma = codec.decoder[0](quantise(codec, X.T[None, :, :, None]))[0, :, :, 0].std(1).clamp_min(0.3)
        log("sigma " + " ".join(f"{s:.2f}" for s in sigma.tolist()))
        linear_start_2d(decoder, sigma, scales, hyper["pin"])
        torch.nn.init.zeros_(decoder.conv_out.weight)
        torch.nn.init.zeros_(decoder.conv_out.bias)
        fit_last_conv_2d(
            codec, [batch(8, hyper["crop"], False) for _ in range(hyper["fit_crops"] // 8)], hyper["ridge"]
        )
        del X
        psnr, bpp, _ = evaluate_2d(codec, tune)
        log(f"start: tune {psnr:.3f} dB, order-0 {bpp:.4f} bpp, ratio {8 * C / bpp:.1f}")
        ema = {k: v.clone() for k, v in decoder.state_dict().items()}
        opts = optimisers(decoder, hyper)

    def tuned() -> str:
        raw = {k: v.clone() for k, v in decoder.state_dict().items()}
        decoder.load_state_dict(ema)
        psnr, _, _ = evaluate_2d(codec, tune)
        export(run / "current.safetensors", args.model, config, codec.state_dict())
        decoder.load_state_dict(raw)
        save_checkpoint(
            checkpoint,
            {
                "model": codec.state_dict(),
                "ema": ema,
                "step": step,
                "elapsed": elapsed,
                "rng": rng.bit_generator.state,
                "optimiser": [o.state_dict() for o in opts],
                "spec": spec,
                "hyper": hyper,
            },
        )
        return f"EMA tune {psnr:.3f} dB"

    pool: list[torch.Tensor] = []

    def pooled() -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of which `fresh` crops are new; new transforms would take a third of the time otherwise."""
        need = hyper["fresh"] if len(pool) >= 16 * hyper["batch"] else hyper["batch"]
        new = list(wavelet.analyse(images.batch(need, hyper["crop"] * P, False)))
        old = [pool[i] for i in rng.choice(len(pool), hyper["batch"] - need, replace=False)] if pool else []
        pool.extend(new)
        if len(pool) > hyper["pool"]:
            del pool[: len(pool) - hyper["pool"]]
        X = torch.stack(new + old).contiguous(memory_format=torch.channels_last)
        return quantise(codec, X), X

    band_weight = (wavelet.norms**2).repeat(C)[None, :, None, None]
    total, running, since = args.minutes * 60, None, time.time()
    next_log = elapsed + 60 * args.every
    while elapsed < total:
        progress = min(1.0, elapsed / total)
        large = progress > 1 - hyper["large_share"]
        set_rates(opts, step, progress, hyper)
        count, size = (hyper["large_batch"], hyper["large_crop"]) if large else (hyper["batch"], hyper["crop"])
        Y, X = batch(count, size, True) if large else pooled()
        X_hat = codec.decoder(Y)
        error = X_hat.detach() - X
        if large:
            loss, grad = wavelet.loss_and_grad(error, C)
        else:
            grad = 2 * error * band_weight
            loss = 0.5 * float((error * grad).sum())
        samples = count * C * (size * P) ** 2
        if math.isfinite(loss) and (running is None or loss / samples < 30 * running):
            X_hat.backward(grad / samples)
            for opt in opts:
                opt.step()
            running = loss / samples if running is None else 0.99 * running + 0.01 * loss / samples
        step += 1
        update_ema(ema, decoder, step, hyper)
        now = time.time()
        elapsed, since = elapsed + now - since, now
        if elapsed > next_log or elapsed >= total:
            log(f"step {step} {elapsed / 60:.1f} min train {-10 * math.log10(running):.3f} dB {tuned()}")
            next_log = elapsed + 60 * args.every
            since = time.time()
    decoder.load_state_dict(ema)
    if hyper["polish_crops"]:
        before = evaluate_2d(codec, tune)[0]
        kept = {k: v.clone() for k, v in decoder.state_dict().items()}
        size = hyper["large_crop"]
        fit_last_conv_2d(
            codec, (batch(2, size, True) for _ in range(hyper["polish_crops"] // 2)), hyper["polish_ridge"]
        )
        after = evaluate_2d(codec, tune)[0]
        log(f"last convolution fitted again: tune {before:.3f} -> {after:.3f} dB")
        if after < before:
            decoder.load_state_dict(kept)
    export(run / "current.safetensors", args.model, config, codec.state_dict())
    if args.out:
        export(Path(args.out), args.model, config, codec.state_dict())
    log("done")


# --------------------------------------------------------------------------------------------------------------- audio


def read_audio(path: Path, channels: int) -> np.ndarray:
    """A track as ``[channels, L]`` float32: mean removed, divided by its peak, halved."""
    import soundfile

    x, _ = soundfile.read(path, dtype="float32", always_2d=True)
    x = x.T
    if x.shape[0] != channels:
        x = np.repeat(x.mean(0, keepdims=True), channels, axis=0)
    x = x - x.mean()
    return x / max(float(np.abs(x).max()), 1e-9) / 2


def build_1d(spec: dict) -> tuple[torch.nn.Module, dict]:
    """An untrained `Codec1D` and its canonical configuration."""
    config = {
        "architecture": "Codec1D",
        "channels": spec["channels"],
        "J": spec["J"],
        "Ne": None,
        "Nd": spec["Nd"],
        "latent_dim": spec["latent_dim"],
        "latent_bits": 8,
        "lightweight_encode": True,
        "post_filter": spec["post_filter"],
    }
    return walloc.Codec1D(**{k: v for k, v in config.items() if k != "architecture"}), config


def set_weight_norm(layer: torch.nn.Module, weight: torch.Tensor) -> None:
    """Store a weight in a weight-normed layer: g the norm over all but the first axis, v the direction.

    v gets the largest element 1, so that one learning rate suits it whatever the units of the weight are.
    """
    with torch.no_grad():
        layer.weight_g.copy_(weight.flatten(1).norm(dim=1).reshape(layer.weight_g.shape))
        peak = weight.flatten(1).abs().amax(1).clamp_min(1e-12).reshape(layer.weight_g.shape)
        layer.weight_v.copy_(weight / peak)


def linear_start_1d(decoder: torch.nn.Module, sigma: torch.Tensor) -> torch.Tensor:
    """Make the Oobleck decoder pass its latents through, so that only its last convolution is to be fitted.

    Identity taps everywhere; of the two transposed convolutions the first uses its tap 0 and the second its tap 1,
    which also takes away the two border latents of the padded encoder. Inside, latents are divided by the root of
    their standard deviation, the returned divisor, so that strong and weak ones learn alike. Residual branches end in
    a gain of zero, and see every channel at unit variance.
    """
    divisor = sigma.sqrt()
    D = decoder.conv1.in_channels
    width = decoder.conv1.out_channels

    with torch.no_grad():
        w = torch.zeros_like(decoder.conv1.weight_v)  # [width, D, 7]
        w[:D, :, 3] = torch.diag(1 / divisor)
        if width > D:
            spare = decoder.conv1.weight_v[D:] / decoder.conv1.weight_v[D:].flatten(1).norm(dim=1)[:, None, None]
            w[D:] = spare / sigma[None, :, None]
        set_weight_norm(decoder.conv1, w)
        decoder.conv1.bias.zero_()
        for tap, block in enumerate(decoder.block):
            t = block.conv_t1
            w = torch.zeros_like(t.weight_v)  # [in, out, 2]
            n_in, n_out = w.shape[:2]
            n = min(n_in, n_out)
            w[range(n), range(n), tap] = 1
            if n_out < n_in:  # the spare channels end here: a small random mixture keeps their gradient alive
                w[n_out:, :, tap] = torch.randn(n_in - n_out, n_out) * 1e-3
            set_weight_norm(t, w)
            t.bias.zero_()
            block.snake1.alpha.fill_(-9)
            std = torch.ones(n_out)
            std[:D] = sigma / divisor
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                unit.snake1.alpha.copy_(-std.log()[None, :, None])
                unit.snake1.beta.copy_(-std.log()[None, :, None])
                unit.conv1.weight_v.div_(std[None, :, None])
                unit.conv1.weight_g.copy_(unit.conv1.weight_v.flatten(1).norm(dim=1).reshape(-1, 1, 1))
                unit.conv2.weight_g.zero_()
                unit.conv2.bias.zero_()
        decoder.snake1.alpha.fill_(-9)
    return divisor


def companded_scales(codec: torch.nn.Module, tracks: list[torch.Tensor], slope: float) -> torch.Tensor:
    """Scale of each component that minimises squared error + slope·entropy (bits); `tracks`: ``[count, latent_dim]``.

    As `equal_slope_scales`, but with the companding quantiser as it is: between a quiet passage and a loud one lie a
    hundred steps and more, so that a scale too large for the loud one costs more than it gains in the quiet one. The
    symbols of each track have their own histogram.
    """
    companding, expanding, bits = codec.encoder[1], codec.decoder[0], 8
    parts = [z[:: max(1, len(z) // 400)] for z in tracks]
    Z = torch.cat(parts)
    first = torch.from_numpy(np.repeat(np.arange(len(parts)), [len(z) for z in parts])) * 2**bits + 2 ** (bits - 1)
    grid = np.exp(np.linspace(math.log(2), math.log(200), 48))
    costs = np.zeros((len(grid), Z.shape[1]))
    for i, scale in enumerate(grid):
        k = torch.round(companding(Z * float(scale)))
        distortion = (expanding(k) / float(scale) - Z).square().mean(0)
        for d in range(Z.shape[1]):
            n = torch.bincount(k[:, d].long() + first, minlength=len(parts) * 2**bits).reshape(len(parts), -1).double()
            entropy = torch.special.entr(n / n.sum(1, keepdim=True)).sum(1) @ n.sum(1) / (len(Z) * math.log(2))
            costs[i, d] = float(distortion[d]) + slope * float(entropy)
    smooth = [np.convolve(np.pad(c, 2, mode="edge"), np.ones(5) / 5, mode="valid") for c in costs.T]
    return torch.tensor([grid[int(np.argmin(c))] for c in smooth], dtype=torch.float32)


class Tracks:
    """Packet coefficients of all training tracks, and seeded random crops with random polarity and channel swap."""

    def __init__(self, codec: torch.nn.Module, files: list[Path], rng: np.random.Generator, cache: Path | None):
        self.rng, self.channels = rng, codec.channels
        self.names = [f.name for f in files]
        self.X: list[torch.Tensor] = []
        with torch.no_grad():
            for f in files:
                kept = cache / f"{f.name}.J{codec.J}.pt" if cache else None
                if kept and kept.exists():
                    self.X.append(torch.load(kept))
                    continue
                x = read_audio(f, codec.channels)
                x = np.pad(x, ((0, 0), (0, -x.shape[1] % 2**codec.J)))
                self.X.append(codec.wavelet_analysis(torch.from_numpy(x)[None], codec.J)[0].half())
                if kept:
                    torch.save(self.X[-1], kept)
        self.weight = torch.ones(len(files))  # of squared errors, one a track
        self.p = np.array([math.sqrt(X.shape[1]) for X in self.X])
        self.p /= self.p.sum()

    def batch(self, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients ``[count, n, size]`` and the weight of each crop."""
        out, picks = [], self.rng.choice(len(self.X), count, p=self.p)
        for i in picks:
            X = self.X[i]
            first = int(self.rng.integers(0, max(1, X.shape[1] - size + 1)))
            crop = X[:, first : first + size].float()
            if crop.shape[1] < size:
                crop = torch.nn.functional.pad(crop, (0, size - crop.shape[1]))
            if self.rng.integers(0, 2):
                crop = -crop
            if self.rng.integers(0, 2):
                crop = crop.unflatten(0, (self.channels, -1)).flip(0).flatten(0, 1)
            out.append(crop)
        return torch.stack(out), self.weight[torch.from_numpy(picks)]


def decode_track(codec: torch.nn.Module, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols and decoded samples before the post filter of one whole track ``[n, positions]``."""
    with torch.no_grad():
        Y = quantise(codec, X[None].to(next(codec.parameters()).dtype))
        parts, step, halo = [], 4096, 128  # chunks with more overlap than the receptive field
        n = X.shape[1]
        for first in range(0, n, step):
            a, b = max(0, first - halo), min(n, first + step + halo)
            parts.append(codec.decoder(Y[..., a : b + 2])[..., first - a : min(first + step, n) - a])
        return Y[0], codec.wavelet_synthesis(torch.cat(parts, -1), codec.J)[0]


def evaluate_1d(codec: torch.nn.Module, tracks: list[torch.Tensor]) -> tuple[float, float, list[np.ndarray]]:
    """Mean PSNR (-10·log10 of the mean squared error of the normalised signal), order-0 bits a sample, symbols."""
    psnr, symbols, samples = [], [], 0
    with torch.no_grad():
        for X in tracks:
            x = codec.wavelet_synthesis(X[None].float(), codec.J)[0]
            Y, y = decode_track(codec, X.float())
            if codec.post_filter:
                y = codec.post(y[None])[0]
            y = codec.clamp(y)
            psnr.append(-10 * math.log10(float(((x - y) ** 2).mean())))
            symbols.append(Y.numpy().astype(np.int16))
            samples += x.numel()
    return float(np.mean(psnr)), entropy_bits(symbols) / samples, symbols


def fit_post_filter(codec: torch.nn.Module, tracks: Tracks, count: int, ridge: float) -> None:
    """Least squares of the post filter from decoded to original samples, over `count` stretches of music."""
    taps, C = codec.post.kernel_size[0], codec.channels
    gram = cross = 0.0
    with torch.no_grad():
        for _ in range(count):
            X, weight = tracks.batch(1, 512)
            x = codec.wavelet_synthesis(X, codec.J)[0]
            _, y = decode_track(codec, X[0])
            edge = 32 * 2**codec.J // 8
            F = torch.cat([c.unfold(0, taps, 1) for c in y], 1)[edge:-edge:5]  # [n, C·taps]
            T = x[:, taps // 2 + edge : x.shape[1] - taps // 2 - edge : 5].T
            w = float(weight)
            gram, cross = gram + w * (F.T @ F).double(), cross + w * (F.T @ T).double()
        unit = torch.zeros(C, C, taps, dtype=torch.float64)
        unit[range(C), range(C), taps // 2] = 1
        unit = unit.reshape(C, -1).T  # shrink towards the unit impulse
        penalty = torch.diag(torch.full((C * taps,), ridge * float(gram.diagonal().mean()), dtype=torch.float64))
        W = unit + torch.linalg.solve(gram + penalty, cross - gram @ unit)
        codec.post.weight.copy_(W.T.reshape(C, C, taps).float())
        codec.post.bias.zero_()


def train_audio(args: argparse.Namespace) -> None:
    """Train one audio model; see the module's text."""
    spec, hyper = settings(args, HYPER_AUDIO)
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)
    log = Log(run / "log.txt")
    log(f"{args.model} {config_json(spec)} {config_json(hyper)} minutes={args.minutes}")
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    codec, config = build_1d(spec)
    decoder, C, D = codec.decoder[1], spec["channels"], spec["latent_dim"]
    norms = band_norms(spec["J"]).repeat(C)
    files = list_files(Path(args.data), (".flac", ".ogg", ".mp3", ".wav"))
    held = files[:: hyper["hold_every"]]  # watched, not trained on
    cache = Path(args.cache) if args.cache else None
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
    held_X = [X[:, : hyper["hold_positions"]] for X in Tracks(codec, held, rng, cache).X]
    tracks = Tracks(codec, [f for f in files if f not in held], rng, cache)
    log(f"{len(tracks.X)} training tracks, {len(held)} held out: {' '.join(f.name for f in held)}")
    checkpoint = run / "checkpoint.pt"
    step, elapsed = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        codec.load_state_dict(saved["model"])
        ema, step, elapsed, tracks.weight = saved["ema"], saved["step"], saved["elapsed"], saved["weight"]
        rng.bit_generator.state = saved["rng"]
        opts = optimisers(decoder, hyper)
        resume(opts, saved["optimiser"])
        log(f"resumed at step {step}, {elapsed / 60:.1f} min")
    else:
        X = torch.cat(
            [
                v.float().T[:: max(1, v.shape[1] // 2000)] / v.float().pow(2).mean().sqrt() ** hyper["whiten"]
                for v in tracks.X
            ]
        )
        W, _ = principal_components(X, norms, D)
        scales = companded_scales(
            codec, [v.float().T[:: max(1, v.shape[1] // 500)] @ W.T for v in tracks.X], spec["slope"]
        )
        X = torch.cat([v.float().T[:: max(1, v.shape[1] // 500)] for v in tracks.X])
        log("scales " + " ".join(f"{s:.1f}" for s in scales.tolist()))
        set_encoder(codec.encoder[0], W, torch.zeros(len(norms)), scales)
        sigma = codec.decoder[0](quantise(codec, X.T[None]))[0, :, 1:-1].std(1).clamp_min(0.3)
        log("sigma " + " ".join(f"{s:.2f}" for s in sigma.tolist()))
        divisor = linear_start_1d(decoder, sigma)
        if codec.post_filter:
            with torch.no_grad():
                codec.post.weight.zero_()
                codec.post.bias.zero_()
                codec.post.weight[range(C), range(C), codec.post.kernel_size[0] // 2] = 1
        # Plain linear codec first (components over the scale), to know each track's error and weigh it.
        with torch.no_grad():
            w = torch.zeros_like(decoder.conv2.weight_v)
            w[:, :, 3] = (W / (norms**2) * (divisor / scales)[:, None]).T
            set_weight_norm(decoder.conv2, w)
            psnr, bps, _ = evaluate_1d(codec, held_X)
            log(f"linear: held out {psnr:.3f} dB, order-0 {bps:.4f} bits a sample, ratio {16 / bps:.1f}")
            for i, v in enumerate(tracks.X):
                part = v[:, :: max(1, v.shape[1] // 512)].float()
                y = codec.decoder(quantise(codec, part[None]))[0]
                tracks.weight[i] = 1 / float(((y - part) * norms[:, None]).pow(2).mean() + 1e-9)
            tracks.weight = tracks.weight.clamp_max(30 * tracks.weight.median())
            tracks.weight = tracks.weight / float((tracks.weight * torch.from_numpy(tracks.p)).sum())
            tracks.weight = tracks.weight ** hyper["track_power"]
        ema = {k: v.clone() for k, v in decoder.state_dict().items()}
        opts = optimisers(decoder, hyper)
    loss_weight = (norms**2)[None, :, None]

    def tuned(fit_post: bool = False) -> str:
        raw = {k: v.clone() for k, v in decoder.state_dict().items()}
        decoder.load_state_dict(ema)
        if fit_post and codec.post_filter:
            fit_post_filter(codec, tracks, hyper["post_stretches"], hyper["post_ridge"])
        psnr, _, _ = evaluate_1d(codec, held_X)
        export(run / "current.safetensors", args.model, config, codec.state_dict())
        decoder.load_state_dict(raw)
        save_checkpoint(
            checkpoint,
            {
                "model": codec.state_dict(),
                "ema": ema,
                "step": step,
                "elapsed": elapsed,
                "rng": rng.bit_generator.state,
                "weight": tracks.weight,
                "optimiser": [o.state_dict() for o in opts],
                "spec": spec,
                "hyper": hyper,
            },
        )
        return f"EMA held out {psnr:.3f} dB"

    if step == 0:
        log(tuned(fit_post=True))
    total, running, since = args.minutes * 60, None, time.time()
    next_log = elapsed + 60 * args.every
    while elapsed < total:
        set_rates(opts, step, elapsed / total, hyper)
        X, weight = tracks.batch(hyper["batch"], hyper["crop"])
        Y = quantise(codec, X)
        error = (codec.decoder(Y) - X).pow(2) * loss_weight
        loss = (error.mean((1, 2)) * weight).mean()
        value = float(loss.detach())
        if math.isfinite(value) and (running is None or value < 100 * running):
            (loss / (running or value)).backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), hyper["clip"])
            for opt in opts:
                opt.step()
            running = value if running is None else 0.99 * running + 0.01 * value
        step += 1
        update_ema(ema, decoder, step, hyper)
        now = time.time()
        elapsed, since = elapsed + now - since, now
        if elapsed > next_log or elapsed >= total:
            text = tuned(fit_post=elapsed >= total)
            log(f"step {step} {elapsed / 60:.1f} min train {-10 * math.log10(running):.3f} dB {text}")
            next_log, since = elapsed + 60 * args.every, time.time()
    log("done")
    if args.out:
        Path(args.out).write_bytes((run / "current.safetensors").read_bytes())


# ----------------------------------------------------------------------------------- the linear codec, tables, measuring


def train_linear(args: argparse.Namespace) -> None:
    """`LinearCodec2D` in closed form: equal-slope principal components, decoder by least squares from the symbols."""
    spec, hyper = settings(args, HYPER)
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    wavelet, C, D = Wavelet(spec["J"], 2), spec["channels"], spec["latent_dim"]
    codec = walloc.LinearCodec2D(C, spec["J"], D, 8)
    images = Images(Path(args.data), C, wavelet.margin, rng)
    X = sample_coefficients(wavelet, images)
    W, mean = principal_components(X, wavelet.norms.repeat(C), D)
    set_encoder(codec.encoder[0], W, mean, equal_slope_scales((X - mean) @ W.T, spec["slope"], 8))
    fit_linear_decoder(codec, X)
    config = {"architecture": "LinearCodec2D", "channels": C, "J": spec["J"], "latent_dim": D, "latent_bits": 8}
    export(Path(args.out), args.model, config, codec.state_dict())


def sample_coefficients(wavelet: Wavelet, images: Images) -> torch.Tensor:
    """Coefficients ``[count, n]`` of random places in the training images."""
    P = wavelet.P
    return torch.cat(
        [
            wavelet.analyse(images.batch(8, 24 * P, False)).permute(0, 2, 3, 1).flatten(0, 2)[::2]
            for _ in range(max(8, 60 * 64 // P**2))
        ]
    )


def fit_linear_decoder(codec: torch.nn.Module, X: torch.Tensor) -> None:
    """Least squares of a 1x1 decoder from dequantised symbols to coefficients ``X [count, n]``."""
    Y = codec.decoder[0](quantise(codec, X.T[None, :, :, None]))[0, :, :, 0].T
    F = torch.cat([Y, torch.ones(len(Y), 1)], 1).double()
    solution = torch.linalg.solve(F.T @ F + 1e-6 * len(F) * torch.eye(F.shape[1]), F.T @ X.double()).float()
    with torch.no_grad():
        codec.decoder[1].weight.copy_(solution[:-1].T.reshape(codec.decoder[1].weight.shape))
        codec.decoder[1].bias.copy_(solution[-1])


def load(path: Path, dtype: torch.dtype) -> tuple[torch.nn.Module, dict, dict[str, str]]:
    """An upstream model in evaluation mode with a file's weights, its configuration, and the file's metadata."""
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        metadata = f.metadata()
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a dictionary
    config = json.loads(metadata["walloc_ref.config"])
    torch.set_default_dtype(dtype)  # the filter taps take the default type
    codec = getattr(walloc, config["architecture"])(**{k: v for k, v in config.items() if k != "architecture"})
    torch.set_default_dtype(torch.float32)
    missing, unexpected = codec.load_state_dict(tensors, strict=False)
    if unexpected or any(not k.startswith(("wt.", "iwt.")) for k in missing):
        raise ValueError(f"{path}: unexpected {unexpected}, missing {missing}")
    return codec.to(dtype).eval(), config, metadata


def linear_twin(codec: torch.nn.Module, config: dict) -> torch.Tensor:
    """Decoder matrix ``[n, latent_dim]`` of the linear codec with the same symbols: components over scales."""
    audio = config["architecture"] == "Codec1D"
    norms = (band_norms(codec.J) if audio else Wavelet(codec.J, 2).norms).repeat(codec.channels)
    W = codec.encoder[0].weight.detach().flatten(1)
    scales = (W / norms).norm(dim=1, keepdim=True)
    return (W / scales**2 / norms**2).T.to(W.dtype)


def coded_bytes(symbols: list[np.ndarray], metadata: dict[str, str]) -> int | None:
    """Bytes of the symbols in the project's own coder, one slice an image; None where it is not installed."""
    try:
        from walloc_ref.fast.entropy import encode
        from walloc_ref.stages import entropy
    except ImportError:
        return None
    D = symbols[0].shape[0]
    if "walloc_ref.entropy" in metadata:
        tables = entropy.Tables.from_bytes(base64.b64decode(metadata["walloc_ref.entropy"]))
    else:
        tables = entropy.default_tables(D, 8)
    return sum(len(encode(np.ascontiguousarray(Y.reshape(D, -1, Y.shape[-1])), tables)) for Y in symbols)


def webp_bytes(symbols: np.ndarray) -> int:
    """Bytes of the symbols as the upstream's tile image, lossless WebP (zero channels fill an RGB tiling)."""
    D, h, w = symbols.shape
    if h == 1:  # audio: lay time out in two axes, `b c (w h) -> b c w h`
        h = 128
        symbols = np.pad(symbols[:, 0], ((0, 0), (0, -w % h))).reshape(D, -1, h)
        h, w = symbols.shape[1:]
    side = math.ceil(math.sqrt(math.ceil(D / 3)))
    full = np.zeros((3 * side * side, h, w), np.int16)
    full[:D] = symbols
    tiles = full.reshape(3, side, side, h, w).transpose(1, 3, 2, 4, 0).reshape(side * h, side * w, 3) + 128
    if max(tiles.shape) > 16383:  # more than WebP can hold: in pieces
        return sum(webp_bytes(part) for part in np.array_split(symbols, 2, axis=1 if h >= w else 2))
    out = io.BytesIO()
    Image.fromarray(tiles.astype(np.uint8)).save(out, "WEBP", lossless=True, quality=100, method=4)
    return out.tell()


def evaluate(args: argparse.Namespace) -> None:
    """Measure a model in binary64 on whole images or tracks and write one JSON object."""
    codec, config, metadata = load(Path(args.model), torch.float64)
    result = {
        "model": metadata["walloc_ref.name"],
        "parameters": sum(p.numel() for n, p in codec.named_parameters() if not n.startswith(("wt.", "iwt."))),
    }
    twin = linear_twin(codec, config)
    bias = codec.encoder[0].bias.detach()
    rows, symbols, raw = [], [], 0
    suffixes = (".flac", ".ogg", ".mp3", ".wav") if config["architecture"] == "Codec1D" else (".png", ".jpg", ".webp")
    for f in list_files(Path(args.data), suffixes):
        with torch.no_grad():
            if config["architecture"] == "Codec1D":
                x = read_audio(f, codec.channels)
                raw += 2 * x.size
                x = np.pad(x, ((0, 0), (0, -x.shape[1] % 2**codec.J))).astype(np.float64)
                x = torch.from_numpy(x)
                X = codec.wavelet_analysis(x[None], codec.J)[0]
                Y, y = decode_track(codec, X)
                y = codec.post(y[None])[0] if codec.post_filter else y
                linear = twin @ (codec.decoder[0](Y[:, 1:-1]) - bias[:, None])
                linear = codec.wavelet_synthesis(linear[None], codec.J)[0]
                psnr = [-10 * math.log10(float(((codec.clamp(v) - x) ** 2).mean())) for v in (y, linear)]
                Y = Y[:, None].numpy().astype(np.int16)
            else:
                im = read_image(f, codec.channels)
                raw += im.size
                x = walloc.pad(torch.from_numpy(im / 255 - 0.5)[None], 2**codec.J)
                Y = torch.round(codec.encoder[1](codec.encoder[0](codec.wavelet_analysis(x, codec.J))))
                linear = torch.einsum("nd,bdhw->bnhw", twin, codec.decoder[0](Y) - bias[:, None, None])
                psnr = []
                for X in (codec.decoder(Y), linear):
                    y = walloc.crop(codec.clamp(codec.wavelet_synthesis(X, codec.J)), im.shape[1:])[0]
                    out = torch.round(255 * (y + 0.5)).clamp(0, 255).numpy()
                    psnr.append(10 * math.log10(255**2 / float(np.mean((out - im) ** 2))))
                Y = Y[0].numpy().astype(np.int16)
        symbols.append(Y)
        rows.append({"file": f.name, "psnr": psnr[0], "linear_psnr": psnr[1], "webp": webp_bytes(Y)})
        print(f"{f.name} {psnr[0]:.3f} linear {psnr[1]:.3f}", flush=True)
    result |= {
        "data": Path(args.data).name,
        "files": len(rows),
        "raw_bytes": raw,
        "psnr": float(np.mean([r["psnr"] for r in rows])),
        "linear_psnr": float(np.mean([r["linear_psnr"] for r in rows])),
        "bytes": coded_bytes(symbols, metadata),
        "webp_bytes": sum(r["webp"] for r in rows),
        "order0_bytes": round(entropy_bits(symbols) / 8),
        "rows": rows,
    }
    for key in ("bytes", "webp_bytes", "order0_bytes"):
        if result[key]:
            result[key.replace("bytes", "ratio")] = raw / result[key]
    print({k: v for k, v in result.items() if k != "rows"})
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


def fit_entropy_tables(args: argparse.Namespace) -> None:
    """Fit the entropy coder's tables to the symbols of training data and write them into the model file."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import entropy_tables  # weights/entropy_tables.py

    path = Path(args.model)
    codec, config, metadata = load(path, torch.float32)
    symbols = []
    with torch.no_grad():
        if config["architecture"] == "Codec1D":
            for f in list_files(Path(args.data), (".flac", ".ogg", ".mp3", ".wav")):
                x = read_audio(f, codec.channels)[:, : 2**codec.J * args.positions]
                x = np.pad(x, ((0, 0), (0, -x.shape[1] % 2**codec.J)))
                Y = quantise(codec, codec.wavelet_analysis(torch.from_numpy(x)[None], codec.J))
                symbols.append(Y[0].numpy().astype(np.int16)[:, None])
        else:
            for f in list_files(Path(args.data), (".jpg", ".jpeg", ".png", ".webp"))[:: args.stride]:
                x = torch.from_numpy(read_image(f, codec.channels).astype(np.float32) / 255 - 0.5)[None]
                Y = quantise(codec, codec.wavelet_analysis(walloc.pad(x, 2**codec.J), codec.J))
                symbols.append(Y[0].numpy().astype(np.int16))
    fitted = entropy_tables.fit_tables(
        symbols, config["latent_dim"], config["latent_bits"], steps=args.steps, log=print
    )
    export(path, metadata["walloc_ref.name"], config, codec.state_dict(), base64.b64encode(fitted.to_bytes()).decode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("image", help="train an image model")
    p.add_argument("model", choices=sorted(m for m in MODELS if MODELS[m]["J"] < 8 and "Nd" in MODELS[m]))
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--tune", required=True, help="folder of images to watch the training on; never trained on")
    p.add_argument("--run", required=True, help="folder for the log, checkpoint and current model")
    p.add_argument("--out", help="where the final model goes (default: only RUN/current.safetensors)")
    p.add_argument("--minutes", type=float, default=70)
    p.add_argument("--every", type=float, default=3, help="minutes between logs and checkpoints")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a hyperparameter")
    p.set_defaults(run_command=train_image)
    p = sub.add_parser("audio", help="train an audio model")
    p.add_argument("model", choices=sorted(m for m in MODELS if MODELS[m]["J"] == 8))
    p.add_argument("--data", required=True, help="folder of training tracks, searched recursively")
    p.add_argument("--run", required=True, help="folder for the log, checkpoint and current model")
    p.add_argument("--out", help="where the final model goes (default: only RUN/current.safetensors)")
    p.add_argument("--minutes", type=float, default=20)
    p.add_argument("--every", type=float, default=3, help="minutes between logs and checkpoints")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a hyperparameter")
    p.add_argument("--cache", help="folder to keep the tracks' coefficients in")
    p.set_defaults(run_command=train_audio)
    p = sub.add_parser("linear", help="write a linear image codec")
    p.add_argument("model", choices=sorted(m for m in MODELS if m.startswith("linear")))
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--out", required=True, help="where the model goes")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a hyperparameter")
    p.set_defaults(run_command=train_linear)
    p = sub.add_parser("evaluate", help="measure a model with the upstream's classes in binary64")
    p.add_argument("model", help="a .safetensors file")
    p.add_argument("--data", required=True, help="folder of images or tracks")
    p.add_argument("--out", help="where the JSON goes")
    p.set_defaults(run_command=evaluate)
    p = sub.add_parser("tables", help="fit the entropy coder's tables and write them into the model")
    p.add_argument("model", help="a .safetensors file")
    p.add_argument("--data", required=True, help="folder of training images or tracks")
    p.add_argument("--stride", type=int, default=4, help="take every n-th image")
    p.add_argument("--positions", type=int, default=2048, help="take at most this many positions of a track")
    p.add_argument("--steps", type=int, default=4000, help="training steps of the coder's networks")
    p.set_defaults(run_command=fit_entropy_tables)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run_command(args)


if __name__ == "__main__":
    main()
