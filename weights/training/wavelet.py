"""The wavelet packet transform as block matrices: for crops at any offset, and for the squared error of samples."""

from __future__ import annotations

import numpy as np
import pywt
import torch


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
