"""Fits the entropy coder's tables of a bundled model to the symbols of training material: `train.py tables`.

How they are fitted stands in `walloc_ref.fit.tables`. About five minutes on one core for 48 channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from training.data import IMAGES, TRACKS, list_files, read_audio, read_image

from walloc_ref import model as models
from walloc_ref.codec import Codec
from walloc_ref.fit.tables import fit_tables

SAMPLES, VALUES = 300_000, 15_000_000
"""Positions to train on, and symbols in all: fewer positions where planes are many."""


def training_symbols(
    model: models.Model, folder: Path, stride: int, positions: int, steps: Sequence[float]
) -> list[np.ndarray]:
    """Symbols int16 (D, h, w) or (D, l) of every `stride`-th image, or of at most so many positions of every track.

    Each is coded with the next of the quantiser's `steps`, so that tables fit all of them.
    """
    codec, config = Codec(model), model.config
    audio, symbols = config.kind == "audio", []
    for number, f in enumerate(list_files(folder, TRACKS) if audio else list_files(folder, IMAGES)[::stride]):
        step = steps[number % len(steps)]
        if audio:
            x = read_audio(f, config.channels)[:, : config.multiple * positions].astype(np.float64)
            symbols.append(codec.to_symbols(np.clip(x, -0.5, 0.5), step=step))
        else:
            symbols.append(codec.to_symbols(read_image(f, config.channels) / 255 - 0.5, step=step))
    return symbols


def train(args: argparse.Namespace) -> None:
    """Fit the tables of a model file to the symbols of training data, and write them into the file."""
    path = Path(args.model)
    model, steps = models.load(path), args.quantiser_steps
    symbols = training_symbols(model, Path(args.data), args.stride, args.positions, steps)
    planes, bits = model.config.planes, model.config.latent_bits
    tables = fit_tables(symbols, planes, bits, steps=args.steps, samples=min(SAMPLES, VALUES // planes), log=print)
    path.write_bytes(models.save(replace(model, tables=tables)))
