"""`train.py step-weights`: how much of a coarser step the planes of lowest frequency take (SPEC.md 6.8).

Squared error alone wants one step for all planes. The eye sees errors of brightness and colour over large areas first:
with one coarse step walls and skies get coloured blotches. So the first planes, which hold brightness and two colour
differences, get a weight of their own. It is measured, at several steps and beside the uniform step *at equal bytes*,

    squared error   mean over the images of log MSE of the samples
    block error     the same of the means of 16 by 16 blocks, in brightness and two colour differences

and the weight is the smallest of the candidates that costs no more squared error than `ALLOWED_DB`: as little block
error as is to be had for nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import IMAGES, list_files, read_image
from walloc_ref import model as models
from walloc_ref.codec import Codec, decode
from walloc_ref.stages.quantise import UNIT_WEIGHT

CROP = 320
"""Samples of the middle of an image, along each side, that are coded."""

BLOCK = 16
"""Samples of a block."""

UNIFORM_STEPS = (1.2, 1.6, 2.0, 2.5, 3.1, 3.8, 4.6)
"""Steps at which the uniform curve is measured."""

STEPS = (1.7, 2.4, 3.2)
"""Steps at which weights are measured; at equal weight their bytes lie within the uniform curve."""

CANDIDATES = (0, 10, 20, 30, 40, 60, 95)
"""Weights that are tried, in 1/128."""

ALLOWED_DB = 0.01
"""Squared error that a weight may cost, in decibels."""

COLOUR = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
"""Brightness and two colour differences (ITU-R BT.601)."""

Point = tuple[float, float, float]
"""Logarithms of bytes, squared error, block error."""


def block_error(error: NDArray[np.float64]) -> float:
    """Squared error of block means, summed over brightness and colour differences."""
    h, w = (n // BLOCK * BLOCK for n in error.shape[:2])
    parts = error[:h, :w].reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK, -1).mean((1, 3))
    parts = parts @ COLOUR.T if parts.shape[-1] == 3 else parts
    return float(np.square(parts).sum(-1).mean())


def measure(model: models.Model, images: Sequence[NDArray[np.uint8]], step: float) -> Point:
    """What a model does at a step."""
    codec, size, squared, blocks = Codec(model), 0, [], []
    for samples in images:
        data = codec.encode(samples, step=step)
        error = decode(data, codec=codec).reshape(samples.shape).astype(np.float64) - samples
        size += len(data)
        squared.append(np.log(np.mean(np.square(error))))
        blocks.append(np.log(block_error(error)))
    return float(np.log(size)), float(np.mean(squared)), float(np.mean(blocks))


def against_uniform(points: Sequence[Point], curve: Sequence[Point]) -> tuple[float, float]:
    """Mean difference from the uniform curve at equal bytes, in decibels: squared error, block error."""
    rates, squared, blocks = np.array(sorted(curve)).T
    found = [(q - np.interp(r, rates, squared), b - np.interp(r, rates, blocks)) for r, q, b in points]
    return tuple(10 / np.log(10) * np.mean(found, axis=0))  # type: ignore[return-value]


def fit(model: models.Model, images: Sequence[NDArray[np.uint8]], low: int) -> NDArray[np.uint8]:
    """Step weights for a model: one for its first `low` planes, 128 for the others."""
    planes = model.config.planes

    def weights(first: int) -> NDArray[np.uint8]:
        return np.array([first] * low + [UNIT_WEIGHT] * (planes - low), np.uint8)

    curve = [measure(replace(model, step_weights=weights(UNIT_WEIGHT)), images, step) for step in UNIFORM_STEPS]
    chosen = UNIT_WEIGHT
    for first in sorted(CANDIDATES, reverse=True):
        weighted = replace(model, step_weights=weights(first))
        squared, blocks = against_uniform([measure(weighted, images, step) for step in STEPS], curve)
        print(f"weight {first:3}: squared error {squared:+.3f} dB, block error {blocks:+.2f} dB", flush=True)
        if squared <= ALLOWED_DB:
            chosen = first
    return weights(chosen)


def train(args: argparse.Namespace) -> None:
    """Fit the step weights of an image model and write them into its file."""
    path = Path(args.model)
    model = models.load(path)
    images = []
    for file in list_files(Path(args.data), IMAGES)[:: args.stride]:
        samples = np.moveaxis(read_image(file, model.config.channels), 0, -1)
        top, left = (max(0, (n - CROP) // 2) for n in samples.shape[:2])
        images.append(np.ascontiguousarray(samples[top : top + CROP, left : left + CROP]))
    weights = fit(model, images, args.low)
    path.write_bytes(models.save(replace(model, step_weights=weights)))
    print("weights", weights.tolist())
