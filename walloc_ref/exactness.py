"""How much a model amplifies rounding: whether its samples are the same on every machine (SPEC.md 2.8).

Every binary64 implementation rounds a little differently. Most models pass such differences on as they are; some, audio
models with large Snake parameters above all, amplify them until samples, and with a full encoder symbols, differ. That lies
in the nature of binary64, so it is measured: when a model is imported, fitted or trained, and recorded with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walloc_ref.architecture import Signal
from walloc_ref.model import Config, Model
from walloc_ref.plain import KINDS, PLAIN, Functions, chosen
from walloc_ref.stages import quantise, signal
from walloc_ref.stages.container import Coding

SIGNAL_LIMIT_BITS = -44
"""Models whose decoded signals differ by at most 2^-44 are exact: a sixteenth of the bound of 16-bit samples."""

SYMBOL_LIMIT_BITS = -36
"""Models whose companded latents differ by at most 2^-36 are: a sixty-fourth of the bound of symbols, 2^-30."""

POSITIONS = {"image": 12, "audio": 200, "volume": 6}
"""Latent positions along an axis of the signals that are measured on."""

WORST_BITS = 1023
"""Recorded where a model overflows."""


@dataclass(frozen=True)
class Spread:
    """How far implementations of a model were seen to differ.

    Attributes
    ----------
    symbols_bits, signal_bits : int
        Logarithms to base 2, rounded up, of the largest difference of companded latents and of decoded signals.
    """

    symbols_bits: int
    signal_bits: int

    @property
    def symbols_exact(self) -> bool:
        """Whether symbols are the same on every machine."""
        return self.symbols_bits <= SYMBOL_LIMIT_BITS

    @property
    def samples_exact(self) -> bool:
        """Whether decoded samples are."""
        return self.signal_bits <= SIGNAL_LIMIT_BITS

    def __str__(self) -> str:
        return f"{self.symbols_bits} {self.signal_bits}"


def measure(model: Model) -> Spread:
    """Compare the plain codec with the fast one, and with itself on values disturbed in the last place, on fixed signals.

    Differences of decoded signals count relative to the largest value, before the clamp, where that is above 1.
    """
    kind = KINDS[model.config.kind]
    coding, wrong_encoder, wrong_decoder = Coding(), 0.0, 0.0
    for x in _signals(model.config):
        with np.errstate(all="ignore"):
            companded = [_companded(x, model, functions) for functions in (PLAIN, chosen(), *_disturbed("analyse"))]
            if not all(np.isfinite(v).all() for v in companded):
                return Spread(WORST_BITS, WORST_BITS)
            wrong_encoder = max(wrong_encoder, *(float(np.abs(v - companded[0]).max()) for v in companded[1:]))
            symbols = quantise.round_to_symbols(companded[0])
            signals = []
            for functions in (PLAIN, chosen(), *_disturbed("dequantise")):
                open_ended = replace(functions, clamp=lambda y: y)
                try:
                    y = kind.symbols_to_signal(symbols, x.shape[1:], coding, model, open_ended)
                except ValueError:
                    return Spread(_bits(wrong_encoder), WORST_BITS)
                signals.append(y)
            if not all(np.isfinite(y).all() for y in signals):
                return Spread(_bits(wrong_encoder), WORST_BITS)
            largest = max(1.0, float(np.abs(signals[0]).max()))
            wrong_decoder = max(wrong_decoder, *(float(np.abs(y - signals[0]).max()) / largest for y in signals[1:]))
    return Spread(_bits(wrong_encoder), _bits(wrong_decoder))


def _bits(difference: float) -> int:
    """ceil(log2) of a difference; at least that of a rounding."""
    return math.ceil(math.log2(max(difference, 2.0**-52)))


def _companded(x: Signal, model: Model, functions: Functions) -> np.ndarray:
    """What rounding turns into symbols."""
    config = model.config
    pad = signal.pad_end if config.kind == "audio" else functions.pad
    bands = functions.analyse(pad(x, config.multiple), config.J)
    return quantise.compand(config.record.to_latents(bands, model, Coding(), functions), config.latent_bits)


def _disturbed(name: str) -> list[Functions]:
    """The plain functions with the result of one of them off by up to a unit in the last place, in two ways."""
    function = getattr(PLAIN, name)

    def off(seed: int) -> Functions:
        def disturbed(values: np.ndarray, parameter: int) -> np.ndarray:
            result = function(values, parameter)
            return result * (1 + np.random.default_rng(seed).integers(-1, 2, result.shape) * 2.0**-52)

        replaced: dict[str, Any] = {name: disturbed}
        return replace(PLAIN, **replaced)

    return [off(1), off(2)]


def _signals(config: Config) -> list[Signal]:
    """A smooth signal with edges, and noise."""
    rng = np.random.default_rng(0)
    sizes = (POSITIONS[config.kind] * config.multiple,) * config.axes
    grid = np.indices(sizes).sum(axis=0) / max(sizes)
    phases = rng.uniform(0, 6, config.channels).reshape(-1, *(1,) * config.axes)
    smooth = 0.3 * np.sin(9 * grid + phases) + 0.15 * np.sign(np.sin(23 * grid + 2 * phases))
    return [smooth, rng.uniform(-0.5, 0.5, smooth.shape)]
