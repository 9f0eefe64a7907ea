"""Decoders in fewer bits: weights of 10 bits after the leading one deflate to two thirds, in a wheel or anywhere.

What that costs falls by 6 dB with each bit, and is far below what the quantiser does: `train.py round` is the last thing
that is done to a model, and what it measures is measured afterwards. The encoder stays as it is, and with it all symbols.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from walloc_ref import exactness
from walloc_ref import model as models

MANTISSA = 23
"""Bits after the leading one in binary32."""

FEW = 1000
"""Tensors of so few numbers stay as they are."""


def train(args: argparse.Namespace) -> None:
    """Round the decoder of a model file."""
    path = Path(args.model)
    model = models.load(path)
    tensors = {
        name: rounded(values, args.bits) if name.startswith("decoder.") and values.size > FEW else values
        for name, values in model.tensors.items()
    }
    model = replace(model, tensors=tensors)
    spread = exactness.measure(model)
    partial = path.with_suffix(".partial")
    partial.write_bytes(models.save(replace(model, spread=(spread.symbols_bits, spread.signal_bits))))
    partial.replace(path)


def rounded(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Values to the nearest with so many bits after the leading one, halves away from zero."""
    dropped = MANTISSA - bits
    if dropped <= 0:
        return values
    whole = values.view(np.uint32).astype(np.uint64) + (1 << (dropped - 1))
    return ((whole >> dropped) << dropped).astype(np.uint32).view(np.float32).reshape(values.shape)
