"""Rate control: from what people ask for, a quality, a ratio, bytes or decibels, to the quantiser's step.

Only an encoder needs this, and none of it is normative: a stream just says its step. Quality is a number from 0 to 100 that
means about the same on every model: the step of the quantiser at the origin, in sample steps of 8 bits, halves with every
14.3 of it, from 256 at quality 0 to 2 at quality 100. What a model's own step is in these units is read off its encoder.
The other goals are searched for along the step, on whose logarithm bytes and decibels depend almost linearly.

A step can be too fine: latents then come to the end of the companding curve, where symbols are wide, and more bytes give a
worse signal. None of these goals goes beyond that; only a step that is asked for by itself does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from walloc_ref.architecture import Samples, Symbols
from walloc_ref.errors import BadSamples
from walloc_ref.model import Model
from walloc_ref.stages import container, quantise, wavelet
from walloc_ref.stages.container import Layout, Stream

if TYPE_CHECKING:
    from walloc_ref.codec import Codec

COARSEST, FINEST = 256.0, 2.0
"""The quantiser's step at quality 0 and at quality 100, in 255ths of the signal's range."""

NONLINEAR_STEP = 57.0
"""Step of a model whose encoder is a network and has none that could be read off: about that of `rgb_4x`."""

TOLERANCE_BYTES, TOLERANCE_DB = 0.0095, 0.05
"""How close a search must come: logarithm of the ratio of the bytes, a little less than 1 %; decibels."""

OVERLOAD_SCALES, OVERLOAD_SHARE = 2.0, 5e-4
"""A step below 1 is too fine where more than this share of the latents lies beyond so many companding scales. The bundled
models get worse from shares of 1e-4 to 2e-3 on, measured on photographs and music."""

REFINED = 0.01
"""How close, in octaves of the step, the finest useful step is searched for."""

MAX_ATTEMPTS = 24
"""Encodes that a search may take; six are usual."""

POSITIONS = 12
"""Latent positions along an axis when norms are measured; synthesis functions reach over nine."""


@dataclass(frozen=True)
class Goal:
    """What is asked for; at most one field is not None."""

    step: float | None = None
    quality: float | None = None
    ratio: float | None = None
    max_bytes: int | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if len(given) > 1:
            raise BadSamples("rate control", " and ".join(given), "one of step, quality, ratio, max_bytes, psnr")
        for name in given:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
                raise BadSamples(name, value, "a finite number")
            if name == "quality" and not 0 <= value <= 100:
                raise BadSamples(name, value, "0 to 100")
            if name in ("ratio", "max_bytes", "psnr") and value <= 0:
                raise BadSamples(name, value, "more than 0")


class TooFine(BadSamples):
    """What is asked for is finer than a model is any use for."""


@dataclass(frozen=True)
class Candidate:
    """A codec for what is asked for.

    Attributes
    ----------
    load : callable
        Returns the codec; called if it is needed.
    finest : float, optional
        Step below which the next candidate is better.
    """

    load: Callable[[], Codec]
    finest: float | None = None


@dataclass(frozen=True, eq=False)
class Attempt:
    """Samples encoded with one step.

    Attributes
    ----------
    layout : Layout
        With the step.
    symbols : int16
    stream : Stream
        Without a certificate.
    samples : array
        What was encoded.
    """

    layout: Layout
    symbols: Symbols
    stream: Stream
    samples: Samples

    @property
    def bytes(self) -> int:
        """Length of the stream."""
        return len(container.write(self.stream))

    def overloaded(self, codec: Codec) -> bool:
        """Is the step so fine that it does harm?"""
        bits = codec.config.latent_bits
        end = quantise.latent_max(bits) * math.erf(OVERLOAD_SCALES / math.sqrt(2))
        return self.layout.step < 1 and float(np.mean(np.abs(self.symbols) > end)) > OVERLOAD_SHARE

    def psnr(self, codec: Codec) -> float:
        """PSNR of what the stream decodes to, in decibels; of audio and of floats: over the range that the gain spans."""
        stages = codec.stages
        decoded = stages.symbols_to_samples[self.layout.kind](self.symbols, self.layout, codec.model, stages)
        error = decoded.astype(np.float64) - self.samples.astype(np.float64)
        mse = float(np.mean(np.square(error)))
        return 10 * math.log10(_peak(self.layout) ** 2 / mse) if mse else math.inf


def search(
    goal: Goal, codec: Codec, layout: Layout, at_step: Callable[[float], Attempt], finest: float | None = None
) -> Attempt:
    """Encode with the step that meets the goal; no goal but a step goes below `finest`.

    Raises
    ------
    BadSamples
        No step of this model meets it; `TooFine`, if a finer one would.
    """
    finest = container.MIN_STEP if finest is None else finest
    if not container.MIN_STEP <= finest <= container.MAX_STEP:
        raise BadSamples("finest", finest, "2^-10 to 2^10")
    if goal.step is not None:
        return at_step(goal.step)
    if goal.quality is not None:
        step = step_of_quality(goal.quality, codec.model)
        if step + container.STEP_UNIT < finest:
            raise TooFine("quality", goal.quality, f"what step {finest:.4g}, the finest, has on this model")
        return _not_finer(step, codec, at_step)
    if goal.psnr is not None:
        wanted_db = float(goal.psnr)

        def above(attempt: Attempt) -> float:
            return attempt.psnr(codec) - wanted_db

        return _search(codec, at_step, above, (TOLERANCE_DB, TOLERANCE_DB), "psnr", wanted_db, finest)
    if goal.ratio is None and goal.max_bytes is None:
        return at_step(1.0)
    if goal.ratio is not None:
        wanted, name, value = raw_bytes(layout) / goal.ratio, "ratio", goal.ratio
        tolerance = (TOLERANCE_BYTES, TOLERANCE_BYTES)
    else:
        assert goal.max_bytes is not None
        wanted, name, value = float(goal.max_bytes), "max_bytes", float(goal.max_bytes)
        tolerance = (0.0, TOLERANCE_BYTES)
    return _search(codec, at_step, lambda a: math.log(a.bytes / wanted), tolerance, name, value, finest)


def _not_finer(step: float, codec: Codec, at_step: Callable[[float], Attempt]) -> Attempt:
    """The attempt with this step, or with the finest power of 2^REFINED that is not too fine: the same for all steps."""
    attempt = at_step(step)
    if not attempt.overloaded(codec):
        return attempt
    fine, coarse, found = math.floor(math.log2(step) / REFINED), 0, at_step(1.0)
    while coarse - fine > 1:
        middle = (fine + coarse) // 2
        attempt = at_step(2.0 ** (middle * REFINED))
        if attempt.overloaded(codec):
            fine = middle
        else:
            coarse, found = middle, attempt
    return found


def _search(
    codec: Codec,
    at_step: Callable[[float], Attempt],
    excess: Callable[[Attempt], float],
    tolerance: tuple[float, float],
    name: str,
    value: float,
    finest: float,
) -> Attempt:
    """The attempt whose `excess` lies in -tolerance[1] … tolerance[0]; it falls, roughly, as the step grows.

    Regula falsi on the logarithm of the step, with a bisection at every third attempt, so that no end of the bracket stays.
    An attempt that is overloaded counts as finer than what is wanted.
    """
    least, most = math.log2(finest), math.log2(container.MAX_STEP)
    low, high = least, most
    low_excess = high_excess = math.nan
    best: tuple[float, Attempt] | None = None
    at, slope = max(0.0, least), 0.6
    seen: dict[float, float] = {}
    coarser = True  # all that is useful is coarser than what is wanted
    for turn in range(MAX_ATTEMPTS):
        attempt = at_step(2.0**at)
        overloaded = attempt.overloaded(codec)
        found = math.inf if overloaded else excess(attempt)
        seen[attempt.layout.step] = found
        coarser = coarser and (overloaded or found < 0)
        if -tolerance[1] <= found <= tolerance[0]:
            return attempt
        if found <= tolerance[0] and (best is None or found > best[0]):
            best = found, attempt
        if found > 0:
            low, low_excess = at, found
        else:
            high, high_excess = at, found
        if math.isinf(low_excess) and high - low <= REFINED:
            break  # between what is asked for and what is useful there is nothing
        if math.isnan(low_excess) or math.isnan(high_excess):
            at = min(max(at + max(-4.0, min(4.0, found / slope)) + math.copysign(0.1, found), low), high)
        elif turn % 3 == 2 or math.isinf(low_excess):
            at = (low + high) / 2
        else:
            at = low + (high - low) * low_excess / (low_excess - high_excess)
        at = min(max(at, least), most)
        step = round(2.0**at / container.STEP_UNIT) * container.STEP_UNIT
        if step in seen:
            break
    if name == "max_bytes" and best is not None:
        return best[1]  # the next finer step is too large, or there is none
    closest = min(seen, key=lambda step: abs(seen[step]))
    kind = TooFine if coarser else BadSamples
    raise kind(name, value, f"what this model reaches; step {closest:.4g} comes closest")


def encode_finely(
    candidates: Sequence[Candidate],
    samples: Samples,
    *,
    quality: float | None = None,
    max_bytes: int | None = None,
    **options: Any,
) -> tuple[Codec, bytes]:
    """Encode by the first of several codecs that is as fine as what is asked for, or by the last one.

    Parameters
    ----------
    candidates : sequence of Candidate
        From the widest range to the finest steps. Where a window is asked for, of the others those that have one.
    samples, quality, max_bytes, options
        As for `Codec.encode`.

    Raises
    ------
    BadSamples
        What `Codec.encode` raises, but for `TooFine` of others than the last.
    """
    if options.get("window"):
        candidates = [candidates[0], *(c for c in candidates[1:] if c.load().config.record.sees_everything)]
    *others, last = candidates
    for candidate in others:
        codec = candidate.load()
        wanted = math.inf if quality is None else step_of_quality(quality, codec.model) + container.STEP_UNIT
        try:
            stream = codec.encode(samples, quality=quality, max_bytes=max_bytes, finest=candidate.finest, **options)
        except TooFine:
            continue
        step = container.read_head(stream)[0].step
        fine = step < max(1.0, (candidate.finest or 0) + container.STEP_UNIT)
        room_left = fine and max_bytes is not None and math.log(max_bytes / len(stream)) > TOLERANCE_BYTES
        if step <= wanted and not room_left:
            return codec, stream
    codec = last.load()
    return codec, codec.encode(samples, quality=quality, max_bytes=max_bytes, **options)


def step_of_quality(quality: float, model: Model) -> float:
    """The step of a quality on a model, within the limits of the stream."""
    wanted = COARSEST * (FINEST / COARSEST) ** (quality / 100)
    return min(max(wanted / own_step(model), container.MIN_STEP), container.MAX_STEP)


def own_step(model: Model) -> float:
    """The step of a model's quantiser at the origin, in 255ths of the signal's range: geometric mean over the planes.

    A plane's row of the encoder, over the norms of the bands' synthesis functions, says how much a latent grows with the
    signal; the companding curve has slope 2·M/(s·√(2π)) at the origin (SPEC.md 6.2).
    """
    config = model.config
    name = next((n for n in ("encoder.0.weight", "encoders.0.weight") if n in model.tensors), None)
    if name is None or not config.lightweight_encode:
        return NONLINEAR_STEP
    rows = model.tensors[name].astype(np.float64).reshape(config.latent_dim, -1)
    norms = np.tile(band_norms(config.J, config.axes), config.channels)
    gains = np.linalg.norm(rows / norms, axis=1)
    slope = 2 * quantise.latent_max(config.latent_bits) / (quantise.scale(config.latent_bits) * math.sqrt(2 * math.pi))
    return float(255 / (slope * np.exp(np.mean(np.log(np.maximum(gains, 1e-12))))))


def band_norms(levels: int, axes: int) -> np.ndarray:
    """Norm of the synthesis function of every band of one channel: float64, shape (2^(levels·axes),).

    The function is a product of functions along each axis, and so is its norm.
    """
    along = np.empty(2**levels)  # of one axis
    for band in range(along.size):
        unit = np.zeros((along.size, POSITIONS))
        unit[band, POSITIONS // 2] = 1
        along[band] = np.linalg.norm(wavelet.synthesise(unit, levels))
    bands, norms = np.arange(2 ** (levels * axes)), np.ones(2 ** (levels * axes))
    for axis in range(axes):  # whose bits of the band's number, one a level, are the number of a band of its own
        norms *= along[sum(((bands >> (axes * level + axis)) & 1) << level for level in range(levels)) + 0 * bands]
    return norms


def raw_bytes(layout: Layout) -> float:
    """Bytes of the samples before encoding."""
    return layout.samples * container.SAMPLE_BITS[layout.sample_format] / 8


def _peak(layout: Layout) -> float:
    """The range of the samples that PSNR refers to, in units of the array's integers."""
    from walloc_ref.stages.signal import AUDIO_FORMATS

    if layout.kind != "audio" and layout.sample_format != "f32":
        return 2.0 ** container.SAMPLE_BITS[layout.sample_format] - 1
    return layout.gain * AUDIO_FORMATS[layout.sample_format].full_scale
