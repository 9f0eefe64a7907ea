"""`train.py step-weights`: how much of a coarser step each plane takes (SPEC.md 6.8), fitted with the coder's true bytes.

Squared error alone wants about one step for all planes. The eye sees errors of brightness and colour over large areas
first, and most of all where nothing else is: with one coarse step walls and skies get coloured blotches. What is
minimised at given bytes is therefore

    cost = squared error of the samples + `attention` · flat error

where the flat error is that of the means of 16 by 16 samples, in brightness and two colour differences, in flat areas
only: where the original's gradient is below the median of its image. At the best weights one more byte buys the same
fall of cost in every plane (equal slopes). Slopes are measured, plane by plane: its step is made finer and coarser by a
quarter, the symbols of all planes are coded by the model's own coder, and the error is that of the plane's latents
through the linear decoder. High planes are moved together, because each alone has too few bytes to measure: some at
a time, or all of them, which then keep the shares that they have in the file (`--alone`).

`attention` is the largest of `ATTENTIONS` whose weights cost at most `ALLOWED` decibels of squared error at equal bytes,
against one step for all planes: as little flat error as is to be had for next to nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import IMAGES, list_files, read_image
from walloc_ref import model as models
from walloc_ref.codec import Codec
from walloc_ref.fast import entropy as kernel
from walloc_ref.measure import linear_decoder
from walloc_ref.rate_control import band_norms
from walloc_ref.stages import quantise, signal

CROP = 320
"""Samples of the middle of an image, along each side, that are coded."""

BLOCK = 16
"""Samples along each side of a block whose mean counts."""

STEPS = (1.6, 2.2, 3.0)
"""Steps at which slopes are measured, unless others are asked for."""

NUDGE = 1.25
"""Factor by which a step is made coarser and finer."""

SINGLE, TOGETHER = 12, 4
"""So many planes are moved alone, the others in groups of so many."""

SWEEPS = 3
"""Times that all planes are moved."""

UNIFORM = 8
"""Steps, from 0.7 times the least to 1.7 times the greatest, at which the curve of one step for all planes is measured."""

ATTENTIONS = (1.0, 2.0, 4.0, 8.0)
"""Weights of the flat error that are tried."""

ALLOWED = 0.1
"""Decibels of squared error, those of the linear decoder, that less flat error may cost."""

COLOUR = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
"""Brightness and two colour differences (ITU-R BT.601)."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Picture:
    """One training image: its latents ``(D, h, w)``, and which of its blocks are flat ``(h', w')``."""

    latents: Array
    flat: NDArray[np.bool_]


class Bench:
    """A model's planes over training images: what their steps cost in bytes and in errors.

    Attributes
    ----------
    energy : float64, (D,)
        Squared error of the samples of a position that a unit error of each latent makes.
    means : float64, (D, 3)
        Change of the mean of a position's samples, in brightness and colour differences, that it makes.
    """

    def __init__(self, model: models.Model, images: Sequence[NDArray[np.uint8]]) -> None:
        config = model.config
        self.model, self.bits, self.position = model, config.latent_bits, config.multiple**2
        decoder = linear_decoder.matrix(model)
        norms = np.tile(band_norms(config.J, config.axes), config.channels)
        self.energy = np.square(decoder * norms[:, None]).sum(0)
        lowest = (
            decoder[:: self.position] / config.multiple
        )  # of every channel the lowest band, whose gain at rest is 2^J
        self.means = lowest.T @ COLOUR.T if config.channels == 3 else lowest.T
        self.pictures = [self._picture(samples) for samples in images]
        self.samples = sum(p.latents[0].size for p in self.pictures) * self.position * config.channels

    def _picture(self, samples: NDArray[np.uint8]) -> Picture:
        codec, weight = Codec(self.model), self.model.weights["encoder"]
        x = np.moveaxis(samples, -1, 0) / 255 - 0.5
        latents = np.tensordot(weight["weight"], codec.analyse(signal.pad(x, codec.config.multiple)), 1)
        latents += weight["bias"][:, None, None]
        luma = x.mean(0)
        slope = np.hypot(*np.gradient(luma))
        count = BLOCK // codec.config.multiple
        rough = self._blocks(slope[None], BLOCK)[0]
        rough = rough[: latents.shape[1] // count, : latents.shape[2] // count]
        return Picture(latents, rough <= np.median(rough))

    @staticmethod
    def _blocks(planes: Array, side: int) -> Array:
        """Means of whole blocks: (n, h, w) to (n, h/side, w/side)."""
        h, w = (size // side for size in planes.shape[1:])
        return planes[:, : h * side, : w * side].reshape(len(planes), h, side, w, side).mean((2, 4))

    def symbols(self, steps: Array) -> list[NDArray[np.int16]]:
        """Symbols of every picture, planes quantised with these steps."""
        return [quantise.quantise(p.latents / steps[:, None, None], self.bits) for p in self.pictures]

    def bytes(self, symbols: Sequence[NDArray[np.int16]]) -> int:
        """Bytes of all pictures' symbols."""
        return sum(len(kernel.encode(s, self.model.tables)) for s in symbols)

    def errors(self, symbols: Sequence[NDArray[np.int16]], steps: Array, planes: Sequence[int]) -> Array:
        """Squared error and flat error of these planes, by themselves, a sample."""
        at, squared, flat = list(planes), 0.0, 0.0
        count = max(1, BLOCK // self.model.config.multiple)
        for picture, s in zip(self.pictures, symbols):
            error = quantise.dequantise(s[at], self.bits) * steps[at, None, None] - picture.latents[at]
            squared += float(self.energy[at] @ np.square(error).mean((1, 2))) * error[0].size
            means = np.tensordot(self.means[at].T, self._blocks(error, count), 1)  # (3, h', w')
            flat += float(np.square(means).sum(0)[picture.flat].sum()) * 2 * BLOCK**2
        return np.array([squared, flat]) / self.samples

    def all_errors(self, symbols: Sequence[NDArray[np.int16]], steps: Array) -> Array:
        """Errors of all planes, each by itself, so that a change of one is a change of the sum."""
        return sum(self.errors(symbols, steps, [plane]) for plane in range(len(steps)))


def groups(planes: int, alone: int | None = None) -> Iterator[list[int]]:
    """The planes that are moved together: some at a time, or all but the first `alone`."""
    single, together = (SINGLE, TOGETHER) if alone is None else (alone, planes)
    for first in range(min(single, planes)):
        yield [first]
    for first in range(single, planes, together):
        yield list(range(first, min(first + together, planes)))


def slopes(bench: Bench, steps: Array, listed: Sequence[list[int]]) -> Array:
    """Fall of squared error and of flat error a byte, for every group: (groups, 2), from bytes as they are."""
    symbols, found = bench.symbols(steps), []
    for group in listed:
        sizes, errors = [], []
        for factor in (1 / NUDGE, NUDGE):
            moved = steps.copy()
            moved[group] *= factor
            changed = [s.copy() for s in symbols]
            for s, picture in zip(changed, bench.pictures):
                s[group] = quantise.quantise(picture.latents[group] / moved[group, None, None], bench.bits)
            sizes.append(bench.bytes(changed))
            errors.append(sum(bench.errors(changed, moved, [plane]) for plane in group))
        found.append((errors[1] - errors[0]) / max(sizes[0] - sizes[1], 1))
    return np.array(found)


def fit(bench: Bench, attention: float, start: Array, steps: Sequence[float], alone: int | None) -> Array:
    """Step weights, in units of 1, at which slopes are equal at these steps; `start`: where to begin."""
    weights, listed = start.copy(), list(groups(len(start), alone))
    for _ in range(SWEEPS):
        wanted = []  # by step and group: the factor on the step that would make its slope the mean one
        for step in steps:
            cost = slopes(bench, 1 + weights * (step - 1), listed) @ [1, attention]
            logs = np.log(np.maximum(cost, 1e-12))
            share = np.array([len(group) for group in listed])
            wanted.append(np.exp(np.clip(0.4 * (np.average(logs, weights=share) - logs), -0.5, 0.5)))
        for number, group in enumerate(listed):
            for plane in group:
                now = np.array([1 + weights[plane] * (step - 1) for step in steps])
                better = now * [row[number] for row in wanted]
                excess = np.array(steps) - 1
                weights[plane] = np.sum((better - 1) * excess / better**2) / np.sum((excess / better) ** 2)
        weights = normalised(weights)
    return weights


def normalised(weights: Array) -> Array:
    """Weights of mean 1, those that a byte cannot hold cut: some of the last planes of a model that keeps all of them."""
    for _ in range(20):
        weights = np.clip(weights / weights.mean(), 0, 255 / quantise.UNIT_WEIGHT)
    return weights


def curve(bench: Bench, weights: Array, steps: Sequence[float]) -> Array:
    """Logarithms of bytes, squared error, flat error at each step: (steps, 3)."""
    rows = []
    for step in steps:
        of_planes = 1 + weights * (step - 1)
        symbols = bench.symbols(of_planes)
        rows.append([bench.bytes(symbols), *bench.all_errors(symbols, of_planes)])
    return np.log(np.array(rows))


def against(points: Array, anchor: Array) -> Array:
    """Mean difference from a curve at equal bytes, in decibels: squared error, flat error."""
    order = np.argsort(anchor[:, 0])
    expected = [np.interp(points[:, 0], anchor[order, 0], anchor[order, column]) for column in (1, 2)]
    return 10 / np.log(10) * (points[:, 1:] - np.array(expected).T).mean(0)


def weights_of(
    model: models.Model,
    images: Sequence[NDArray[np.uint8]],
    steps: Sequence[float] = STEPS,
    alone: int | None = None,
) -> NDArray[np.uint8]:
    """The step weights of a model."""
    bench, even = Bench(model, images), np.ones(model.config.planes)
    uniform = curve(bench, even, np.geomspace(max(1.05, 0.7 * min(steps)), 1.7 * max(steps), UNIFORM).tolist())
    chosen = even if alone is None else normalised(model.weights_of_steps / quantise.UNIT_WEIGHT)
    for attention in (0.0, *ATTENTIONS):
        weights = fit(bench, attention, chosen, steps, alone)
        squared, flat = against(curve(bench, weights, steps), uniform)
        print(f"attention {attention:4}: squared error {squared:+.3f} dB, flat error {flat:+.2f} dB against one step;")
        print(f"  {_integers(weights).tolist()}", flush=True)
        if squared > ALLOWED and attention:
            break
        chosen = weights
    return _integers(chosen)


def _integers(weights: Array) -> NDArray[np.uint8]:
    """Weights as the file has them."""
    return np.clip(np.rint(weights * quantise.UNIT_WEIGHT), 0, 255).astype(np.uint8)


def train(args: argparse.Namespace) -> None:
    """Fit the step weights of an image model and write them into its file."""
    path = Path(args.model)
    model = models.load(path)
    images = []
    for file in list_files(Path(args.data), IMAGES)[:: args.stride]:
        samples = np.moveaxis(read_image(file, model.config.channels), 0, -1)
        top, left = (max(0, (n - CROP) // 2) for n in samples.shape[:2])
        images.append(np.ascontiguousarray(samples[top : top + CROP, left : left + CROP]))
    weights = weights_of(model, images, args.steps, args.alone)
    path.write_bytes(models.save(replace(model, step_weights=weights)))
    print("weights", weights.tolist())
