"""The encoder in closed form: components, their scales, and the quantiser as in use."""

from __future__ import annotations

import math

import numpy as np
import torch


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


def set_encoder(conv: torch.nn.Module, W: torch.Tensor, mean: torch.Tensor, scales: torch.Tensor) -> None:
    """Write components ``W [latent_dim, n]`` times their scales, and the bias that removes the mean."""
    with torch.no_grad():
        conv.weight.copy_((scales[:, None] * W).reshape(conv.weight.shape))
        conv.bias.copy_(-scales * (W @ mean))


def quantise(codec: torch.nn.Module, X: torch.Tensor, steps: float | torch.Tensor = 1) -> torch.Tensor:
    """Symbols as in use (`Round` adds noise in training mode, so rounding is done here)."""
    with torch.no_grad():
        return torch.round(codec.encoder[1](codec.encoder[0](X) / steps))


def dequantise(codec: torch.nn.Module, Y: torch.Tensor, steps: float | torch.Tensor = 1) -> torch.Tensor:
    """What the decoder's network gets for symbols."""
    with torch.no_grad():
        return codec.decoder[0](Y) * steps


def entropy_bits(symbols: list[np.ndarray]) -> float:
    """Order-0 entropy in bits of all symbols, each channel of each image with its own histogram."""
    bits = 0.0
    for Y in symbols:
        for channel in Y.reshape(Y.shape[0], -1).astype(np.int64):
            n = np.bincount(channel - channel.min())
            n = n[n > 0]
            bits -= float((n * np.log2(n / n.sum())).sum())
    return bits
