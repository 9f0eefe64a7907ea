"""Components of subbands: directions of falling variance, each weighted by the norms of the synthesis functions.

The transform is biorthogonal, so an error of a subband counts by the norm of its synthesis function: what is orthogonal are
the subbands times these norms. Two kinds:

*dense*: principal components of all subbands. They know everything that the material shows, chance included: with K
subbands and fewer than some tens of K positions they fit noise.

*separable*: principal components of the channels, one set for all subbands, each in each subband; the strongest are kept.
C·C numbers learned instead of K·K. What they miss, correlation between subbands, is mostly the entropy coder's to use.

Where there is little material, `choose` takes the kind that needs fewer bits for what was set aside, by the rate of
Gaussian sources of the variances seen there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fit.statistics import Moments, centred
from walloc_ref.stages import entropy

KINDS = ("dense", "separable")
"""Kinds of components."""

PLENTY = 64
"""With so many positions a subband, or more, principal components are dense without a question."""

MAX_COMPONENTS = entropy.LIMITS["latent_dim"]
"""Most components that are kept: as many planes as the entropy coder takes."""


@dataclass(frozen=True, eq=False)
class Components:
    """Orthonormal directions in weighted subbands, by falling variance.

    Attributes
    ----------
    kind : str
        "dense" or "separable".
    rows : float64, shape (n, K)
    variances : float64, shape (n,)
    mean : float64, shape (K,)
        Of the subbands, not weighted.
    weights : float64, shape (K,)
        Norms of the synthesis functions.
    energy : float
        Sum of the variances of all K weighted subbands.
    """

    kind: str
    rows: NDArray[np.float64]
    variances: NDArray[np.float64]
    mean: NDArray[np.float64]
    weights: NDArray[np.float64]
    energy: float

    def first(self, count: int) -> Components:
        """The strongest ones."""
        rows, variances = self.rows[:count], self.variances[:count]
        return Components(self.kind, rows, variances, self.mean, self.weights, self.energy)


def dense(moments: Moments, weights: NDArray[np.float64]) -> Components:
    """Principal components of all subbands."""
    assert moments.covariance is not None
    variances, vectors = np.linalg.eigh(moments.covariance * np.outer(weights, weights))
    rows = _signed(vectors[:, ::-1].T)
    return _components("dense", rows, variances[::-1], moments, weights)


def separable(moments: Moments, weights: NDArray[np.float64]) -> Components:
    """Principal components of the channels, in each subband."""
    subbands, channels = moments.blocks.shape[:2]
    by_subband = weights.reshape(channels, subbands).T  # [K/C, C]
    blocks = moments.blocks * by_subband[:, :, None] * by_subband[:, None, :]
    _, vectors = np.linalg.eigh(blocks.sum(0))
    spectra = _signed(vectors[:, ::-1].T)  # [C, C]
    variances = np.einsum("ic,fcd,id->if", spectra, blocks, spectra)  # [C, K/C]
    order = np.argsort(-variances, axis=None, kind="stable")[:MAX_COMPONENTS]
    rows = np.zeros((order.size, channels, subbands))
    rows[np.arange(order.size), :, order % subbands] = spectra[order // subbands]
    return _components("separable", rows.reshape(order.size, -1), variances.ravel()[order], moments, weights)


def choose(
    moments: Moments, aside: Moments | None, weights: NDArray[np.float64], noise: float, kind: str | None = None
) -> Components:
    """Components of the kind asked for, or of the one that codes what was set aside in fewer bits.

    Parameters
    ----------
    moments, aside : Moments
        Of what is fitted to, and of what was set aside.
    weights : float64, shape (K,)
    noise : float
        Variance of the error that is allowed for each component.
    kind : str, optional
        One of `KINDS`.
    """
    if kind is None and aside is not None and in_question(moments):
        found = [dense(moments, weights), separable(moments, weights)]
        costs = [cost(components, aside, noise) for components in found]
        return found[int(np.argmin(costs))]
    if kind == "separable" or moments.covariance is None:
        return separable(moments, weights)
    return dense(moments, weights)


def in_question(moments: Moments) -> bool:
    """Whether either kind may be the better one."""
    several = moments.blocks.shape[1] > 1
    return several and moments.covariance is not None and moments.count < PLENTY * moments.mean.size


def cost(components: Components, moments: Moments, noise: float) -> float:
    """Bits a position that Gaussian sources of the components' variances take, and what is left out, as bits.

    Rate plus distortion at the slope where one bit buys what it buys in all components, reverse water-filling's.
    """
    around = centred(moments, components.mean)
    assert around.covariance is not None
    total = 0.0
    for start in range(0, len(components.rows), 1024):
        rows = components.rows[start : start + 1024] * components.weights
        variances = np.einsum("nk,nk->n", rows @ around.covariance, rows)
        share = np.maximum(variances, 0) / noise
        total += float(np.sum(0.5 * np.log2(np.maximum(share, 1)) + np.minimum(share, 1) / (2 * np.log(2))))
    return total


def water_level(variances: NDArray[np.float64], distortion: float) -> float:
    """Variance of the error of each component at which the errors of all add up to `distortion`."""
    ordered = np.sort(np.maximum(variances, 0))
    below = np.concatenate([[0.0], np.cumsum(ordered)])[:-1]  # of those that are smaller than each
    levels = (distortion - below) / np.arange(ordered.size, 0, -1)
    fitting = np.nonzero(levels <= ordered)[0]
    return float(levels[fitting[0]]) if fitting.size else float(ordered[-1])


def level_of_rate(variances: NDArray[np.float64], bits: float) -> float:
    """Variance of the error of each component at which all take so many bits together."""
    low, high = np.log2(max(float(variances.max()), 1e-30)) - 100, np.log2(max(float(variances.max()), 1e-30))
    for _ in range(60):
        middle = (low + high) / 2
        if np.sum(np.maximum(0.5 * (np.log2(np.maximum(variances, 1e-60)) - middle), 0)) > bits:
            low = middle
        else:
            high = middle
    return float(2**high)


def _signed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows whose largest element is positive: an eigenvector's sign is nobody's."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows * np.where(largest < 0, -1.0, 1.0)


def _components(
    kind: str, rows: NDArray[np.float64], variances: NDArray[np.float64], moments: Moments, weights: NDArray[np.float64]
) -> Components:
    """Components, and the energy of all subbands."""
    by_subband = weights.reshape(moments.blocks.shape[1], -1).T
    energy = float(np.einsum("fcc,fc->", moments.blocks, by_subband**2))
    return Components(kind, rows, np.maximum(variances, 0), moments.mean, weights, energy)
