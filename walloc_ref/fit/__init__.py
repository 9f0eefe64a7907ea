"""Linear models in closed form, fitted to whatever somebody has: a room of its own, in NumPy alone.

    packet transform -> mean and covariance -> components -> one scale -> decoder -> entropy tables -> a model

`fit_model` is the whole of it and `fit` says what it found on the way; each step is a module: `statistics`, `components`,
`assemble`, `tables` with `network`. `card` writes a model card.

What is fitted depends on the samples and the arguments alone: equal bytes, whatever the number of threads, on the same
machine and libraries. (Another BLAS rounds differently, and a last bit of a float32 may differ.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import exactness, plain, rate_control
from walloc_ref.codec import KINDS, Codec, decode
from walloc_ref.errors import BadSamples
from walloc_ref.fast import workers
from walloc_ref.fit import assemble, statistics, tables
from walloc_ref.fit.components import KINDS as COMPONENT_KINDS
from walloc_ref.fit.components import Components, choose, in_question, level_of_rate, water_level
from walloc_ref.fit.statistics import Moments
from walloc_ref.model import Config, Model
from walloc_ref.stages import container, entropy, quantise

LEVELS = {"image": 3, "audio": 8, "volume": 2}
"""Levels of the transform where nothing is said."""

DEFAULT_STEP = 12.0
"""The quantiser's step where nothing is asked for, in 255ths of the signal's range: about 38 dB on photographs."""

HELD_OUT = 6
"""One array in so many is set aside to measure on; of a single one, the last part of so many."""

SPARE = 16.0
"""Components are kept whose variance exceeds the error's over this, so that a finer step finds something to code."""

TABLE_STEPS = (1.0, 1.5, 2.25)
"""Steps of the quantiser whose symbols the entropy tables are fitted to, in turn."""

FEW = 12
"""Arrays up to which each is coded with all of these steps, not with one of them in turn."""

TABLE_SYMBOLS = 1 << 23
"""Symbols that tables are fitted to, at most; pieces are left out evenly where there would be more."""

SEARCH_SAMPLES = 1 << 22
"""Samples that the scale is searched on, at most, for a PSNR or a ratio."""

SEARCH_STREAMS = 16
"""Arrays whose complete streams are looked at in the end, at most."""

SEARCH_TURNS = 8
"""Scales that are tried for it; four are usual."""

TOLERANCE_DB, TOLERANCE_RATIO = 0.03, 0.005
"""How close the search comes on what is fitted to: decibels, logarithm of the ratio."""

MISSED_DB, MISSED_RATIO = 0.5, 0.1
"""Beyond these the goal is out of reach, which is an error."""

GAINS = (0.7, 1.1)
"""Bounds of the factors of decoded latents."""


@dataclass(frozen=True)
class Measured:
    """What a model does at one step: totals over all arrays.

    Attributes
    ----------
    step : float
    bytes : int
        Of complete streams.
    ratio : float
        Bytes of the samples over these.
    psnr : float
        Of the mean squared error over all samples, in decibels, over the range of the sample format; of audio and of
        floats, over the range that each array's gain spans.
    samples : int
    """

    step: float
    bytes: int
    ratio: float
    psnr: float
    samples: int


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model, and what was found on the way.

    Attributes
    ----------
    model : Model
    components : Components
        All that were kept.
    energy_kept : float
        Share of the signal's variance, weighted as the eye of squared error sees it, that the components hold.
    fitted, held_out : int
        Samples that the model was fitted to, and that were set aside.
    positions : int
        Latent positions that it was fitted to.
    measured : tuple of Measured
        On what was set aside, or on what it was fitted to where nothing was.
    scale : float
        The common scale.
    narrowed : int
        Planes that got less, for the quantiser's range.
    background : tuple of int, or None
        The value that at least a quarter of the samples have, one for each channel, where there is such a value.
    """

    model: Model
    components: Components
    energy_kept: float
    fitted: int
    held_out: int
    positions: int
    measured: tuple[Measured, ...]
    scale: float
    narrowed: int
    background: tuple[int, ...] | None = None


def fit_model(arrays: Sequence[Any], **options: Any) -> Model:
    """Fit a linear model to samples; everything as in `fit`, of which this is the model."""
    return fit(arrays, **options).model


def fit(
    arrays: Sequence[Any],
    *,
    kind: str = "image",
    levels: int | None = None,
    latents: int | None = None,
    reduction: float | None = None,
    bits: int = 8,
    step: float | None = None,
    psnr: float | None = None,
    ratio: float | None = None,
    components: str | None = None,
    held_out: bool = True,
    name: str = "fitted",
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """Fit a linear model to samples, in closed form.

    Parameters
    ----------
    arrays : sequence
        Samples, or functions without arguments that open them, which are called one at a time and more than once, so that
        memory has to hold only one for each thread. As `Codec.encode` takes them; all have the same number of channels.
    kind : str
        What they are: "image", "audio" or "volume".
    levels : int, optional
        J; 3 for images, 8 for audio, 2 for volumes if not given.
    latents, reduction : int or float, optional
        Latents at each position, or how many times fewer they are than subbands. If neither is given, those that the rate
        is worth: whose variance is not far below the error's.
    bits : int
        Of a symbol, 2 to 8.
    step, psnr, ratio : float, optional
        What the model is to do at step 1, at most one of them: the quantiser's step in 255ths of the signal's range (12 if
        nothing is given), decibels, or bytes of samples over bytes of streams. It sets the scale.
    components : str, optional
        "dense" or "separable"; chosen by what codes held-out material in fewer bits if not given.
    held_out : bool
        Set a sixth aside, to measure on.
    name : str
        The model's name.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    Fit

    Raises
    ------
    BadSamples
        Samples that no model takes or that differ in channels, an argument out of range, constant samples, or a goal that
        so many latents do not reach.
    MalformedModel
        More subbands or latents than a model may have.
    """
    if kind not in assemble.ARCHITECTURES or kind not in KINDS:
        raise BadSamples("kind", kind, "one of " + ", ".join(k for k in assemble.ARCHITECTURES if k in KINDS))
    if len(arrays) == 0:
        raise BadSamples("arrays", "none", "at least one")
    goals = {"step": step, "psnr": psnr, "ratio": ratio}
    given = [key for key, value in goals.items() if value is not None]
    for key in given:
        _check_positive(key, goals[key])
    if len(given) > 1:
        raise BadSamples("target", " and ".join(given), "one of step, psnr, ratio")
    if latents is not None and reduction is not None:
        raise BadSamples("latents", f"{latents}, and reduction {reduction}", "one of the two")
    if reduction is not None:
        _check_positive("reduction", reduction)
    if components not in (None, *COMPONENT_KINDS):
        raise BadSamples("components", components, "one of " + ", ".join(COMPONENT_KINDS))
    with workers.one_blas_thread():
        return _fit(
            arrays,
            kind,
            LEVELS[kind] if levels is None else levels,
            (latents, reduction),
            bits,
            (step, psnr, ratio),
            components,
            held_out,
            name,
            progress or (lambda share: None),
        )


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise BadSamples(name, value, "a number above 0")


def _fit(
    arrays: Sequence[Any],
    kind: str,
    levels: int,
    size: tuple[int | None, float | None],
    bits: int,
    goal: tuple[float | None, float | None, float | None],
    component_kind: str | None,
    held_out: bool,
    name: str,
    tell: Callable[[float], None],
) -> Fit:
    """`fit`, its arguments checked."""
    functions = plain.chosen()
    channels = _channels(statistics.opened(arrays[0]), kind)
    config = assemble.configuration(kind, channels, levels, 1, bits)
    fitted_to, aside = _split(arrays, config) if held_out else (list(arrays), [])
    moments = statistics.gather(fitted_to, config, functions, lambda share: tell(0.15 * share))
    ask = component_kind is None and bool(aside) and in_question(moments)
    aside_moments = statistics.gather(aside, config, functions) if ask else None
    weights = np.tile(rate_control.band_norms(levels, config.axes), channels)
    all_variances = _variances(moments, weights)
    noise = _noise(goal, all_variances, config, statistics.opened(arrays[0]))
    found = choose(moments, aside_moments, weights, noise, component_kind)
    background = None if kind == "audio" else statistics.background([_with_channels(a, channels) for a in fitted_to])
    if background is not None:
        found = replace(found, mean=_bands_of(background, statistics.opened(arrays[0]).dtype, config, functions))
    if not found.variances[0] > 0:
        raise BadSamples("samples", "all equal", "samples that vary")
    count = _count(size, found, noise, config)
    found = found.first(count)
    config = assemble.configuration(kind, channels, levels, count, bits)
    tell(0.2)

    few = _some(fitted_to, config)
    largest = _largest(few, found, config, functions)
    scale = 1 / (assemble.slope(bits) * math.sqrt(12 * noise))
    model = _model(config, found, largest, scale, np.ones(count), name)
    if goal[1] is not None:
        scale = _search(model, scale, lambda m, s: _signal_psnr(m, s, few, functions) - float(goal[1] or 0), 6.02)
    elif goal[2] is not None:
        rough = [_symbols(model, x, 1.0, functions) for x in few]
        model = replace(model, tables=tables.fit_tables(rough, count, bits, steps=0))
        raw = sum(x.size for x in few) * statistics.opened(fitted_to[0]).dtype.itemsize
        wanted = raw / goal[2]

        def excess(m: Model, s: float) -> float:
            coded = [tables.coded_bytes(m.tables, _as_slice(_symbols(m, x, s, functions))) for x in few]
            return math.log(sum(coded) / wanted)

        scale = _search(model, scale, excess, 0.6, TOLERANCE_RATIO)
    model = _model(config, found, largest, scale, np.ones(count), name)
    gains = _gains(model, few, functions)
    model = _model(config, found, largest, scale, gains, name)
    tell(0.35)
    symbols = _table_symbols(model, fitted_to, functions)
    check = _table_symbols(model, aside, functions) if aside else ()
    fitted_tables = tables.fit_tables(symbols, count, bits, check=check, progress=lambda share: tell(0.4 + 0.4 * share))
    model = replace(model, tables=fitted_tables)
    if goal[1] is not None or goal[2] is not None:  # what was met on pieces, on complete streams
        whole = fitted_to[:: -(-len(fitted_to) // SEARCH_STREAMS)]

        def missed(m: Model, s: float) -> float:
            found = measure(Codec(m), whole, s)
            return found.psnr - goal[1] if goal[1] is not None else math.log((goal[2] or 1) / found.ratio)

        slope, tolerance = (6.02, TOLERANCE_DB) if goal[1] is not None else (0.6, TOLERANCE_RATIO)
        scale = _search(model, scale, missed, slope, tolerance)
        model = replace(_model(config, found, largest, scale, gains, name), tables=fitted_tables)
        off = missed(model, 1.0)
        if abs(off) > (MISSED_DB if goal[1] is not None else MISSED_RATIO):
            name_of, value = ("psnr", goal[1]) if goal[1] is not None else ("ratio", goal[2])
            reached = measure(Codec(model), whole, 1.0)
            comes = f"{reached.psnr:.2f} dB at {reached.ratio:.1f}:1 is what comes closest"
            raise BadSamples(name_of, value, f"what {count} latents reach; {comes}")
    spread = exactness.measure(model)
    model = replace(model, spread=(spread.symbols_bits, spread.signal_bits))
    tell(0.85)
    steps = (1.0, 2.0, 4.0)
    measured = []
    for number, at in enumerate(steps):
        measured.append(measure(Codec(model), aside or fitted_to, at))
        tell(0.85 + 0.15 * (number + 1) / len(steps))
    each = assemble.scales(found, largest, scale, bits)
    return Fit(
        model,
        found,
        float(found.variances.sum() / found.energy),
        moments.samples,
        measured[0].samples if aside else 0,
        moments.count,
        tuple(measured),
        scale,
        int(np.sum(each < scale)),
        background,
    )


# ---- what is asked for


def _channels(samples: NDArray[Any], kind: str) -> int:
    """Channels of samples, by the axes that their kind has."""
    axes = container.AXES_OF_KIND[kind]
    if samples.ndim not in (axes, axes + 1) or samples.size == 0:
        raise BadSamples("samples.shape", samples.shape, f"{axes} axes for {kind}, or one more for channels; no size 0")
    return int(samples.shape[axes]) if samples.ndim == axes + 1 else 1


def _with_channels(source: Any, channels: int) -> Callable[[], NDArray[Any]]:
    """Opens samples, the channels as their last axis."""

    def opened() -> NDArray[Any]:
        samples = statistics.opened(source)
        return samples if channels > 1 else samples.reshape(*samples.shape, 1)

    return opened


def _bands_of(
    value: tuple[int, ...], dtype: np.dtype[Any], config: Config, functions: plain.Functions
) -> NDArray[np.float64]:
    """Subbands (K,) of samples that all have this value.

    Where the mean of the model is not that of the material but its background, the latents of the background are zero, the
    one latent that every step reconstructs exactly; otherwise it would be off by up to half a step everywhere, another part
    of a step for every step.
    """
    samples = np.broadcast_to(np.array(value, dtype), (*(config.multiple,) * config.axes, config.channels))
    x = functions.image_to_signal(samples, 0.0, 1.0)
    return functions.analyse(np.ascontiguousarray(x), config.J).reshape(config.bands)


def _noise(
    goal: tuple[float | None, float | None, float | None],
    variances: NDArray[np.float64],
    config: Config,
    samples: NDArray[Any],
) -> float:
    """Variance of the error of each component, in units of the signal, that the goal amounts to, about."""
    step, psnr, ratio = goal
    if psnr is not None:
        return water_level(variances, config.bands * 10 ** (-psnr / 10))
    if ratio is not None:
        return level_of_rate(variances, config.bands * 8 * samples.dtype.itemsize / ratio)
    return ((DEFAULT_STEP if step is None else step) / 255) ** 2 / 12


def _variances(moments: Moments, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variances of components of either kind, for an estimate."""
    subbands, channels = moments.blocks.shape[:2]
    by_subband = weights.reshape(channels, subbands).T
    blocks = moments.blocks * by_subband[:, :, None] * by_subband[:, None, :]
    return np.maximum(np.linalg.eigvalsh(blocks).ravel(), 0)


def _count(size: tuple[int | None, float | None], found: Components, noise: float, config: Config) -> int:
    """How many components are kept."""
    latents, reduction = size
    most = len(found.rows)
    if latents is None and reduction is not None:
        latents = max(1, round(config.bands / reduction))
    if latents is None:
        return int(np.clip(np.sum(found.variances > noise / SPARE), 1, most))
    if isinstance(latents, bool) or not isinstance(latents, (int, np.integer)) or not 1 <= latents <= most:
        raise BadSamples("latents", latents, f"an integer from 1 to {most}, the subbands or what the coder takes")
    return int(latents)


def _split(arrays: Sequence[Any], config: Config) -> tuple[list[Any], list[Any]]:
    """What is fitted to, and what is set aside."""
    if len(arrays) > 1:
        every = min(HELD_OUT, len(arrays))
        aside = [i for i in range(len(arrays)) if i % every == every - 1]
        return [a for i, a in enumerate(arrays) if i not in aside], [arrays[i] for i in aside]
    samples = statistics.opened(arrays[0])
    positions = len(samples) // config.multiple
    if positions < HELD_OUT:
        return list(arrays), []
    border = (positions - positions // HELD_OUT) * config.multiple
    return [samples[:border]], [samples[border:]]


# ---- the model


def _model(
    config: Config,
    found: Components,
    largest: NDArray[np.float64],
    scale: float,
    gains: NDArray[np.float64],
    name: str,
) -> Model:
    """A model with the default tables."""
    each = assemble.scales(found, largest, scale, config.latent_bits)
    weights = assemble.step_weights(each, scale)
    return Model(
        config,
        assemble.tensors(config, found, each, gains),
        entropy.default_tables(config.planes, config.latent_bits),
        name,
        None if (weights == quantise.UNIT_WEIGHT).all() else weights,
    )


def _some(sources: Sequence[Any], config: Config) -> list[NDArray[np.float64]]:
    """Signals to look at several times: the middles of evenly chosen sources, bounded in all."""
    functions, out = plain.chosen(), []
    chosen = list(sources[:: -(-len(sources) // SEARCH_STREAMS)])
    side = (SEARCH_SAMPLES // len(chosen) / config.channels) ** (1 / config.axes)
    wanted = max(1, int(side) // config.multiple) * config.multiple
    for source in chosen:
        x, _ = next(statistics.pieces(statistics.opened(source), config, functions))
        starts = [max(0, (n - wanted) // 2) for n in x.shape[1:]]
        middle = (slice(None), *(slice(start, start + wanted) for start in starts))
        out.append(np.ascontiguousarray(x[middle]))
    return out


def _largest(
    signals: Sequence[NDArray[np.float64]], found: Components, config: Config, functions: plain.Functions
) -> NDArray[np.float64]:
    """Largest magnitudes of the components, in units of the signal."""
    largest = np.zeros(len(found.rows))
    for x in signals:
        bands = statistics.subbands(x, config, functions) - found.mean[:, None]
        largest = np.maximum(largest, np.abs((found.rows * found.weights) @ bands).max(1))
    return largest


def _symbols(model: Model, x: NDArray[np.float64], step: float, functions: plain.Functions) -> NDArray[np.int16]:
    """Symbols of a signal."""
    return Codec(model, functions).to_symbols(np.clip(x, -0.5, 0.5), step=step)


def _as_slice(symbols: NDArray[np.int16]) -> NDArray[np.int16]:
    """Symbols as the entropy coder takes them."""
    return symbols[:, None] if symbols.ndim == 2 else symbols


def _signal_psnr(
    model: Model, step: float, signals: Sequence[NDArray[np.float64]], functions: plain.Functions
) -> float:
    """PSNR of signals, whose range is 1."""
    codec, error, count = Codec(model, functions), 0.0, 0
    for x in signals:
        decoded = codec.from_symbols(_symbols(model, x, step, functions), x.shape, step=step)
        error += float(np.square(decoded - x).sum())
        count += x.size
    return -10 * math.log10(max(error / count, 1e-30))


def _search(
    model: Model,
    scale: float,
    excess: Callable[[Model, float], float],
    slope: float,
    tolerance: float = TOLERANCE_DB,
) -> float:
    """The scale at which `excess`, which falls by about `slope` for each doubling of the step, is nearest to zero."""
    at, tried = 0.0, []
    for _ in range(SEARCH_TURNS):
        found = excess(model, 2.0**at)
        tried.append((at, found))
        if abs(found) <= tolerance:
            break
        if len(tried) > 1 and tried[-1][0] != tried[-2][0]:
            slope = max(0.05, (tried[-2][1] - tried[-1][1]) / (tried[-1][0] - tried[-2][0]))
        at = float(np.clip(at + np.clip(found / slope, -2, 2), -9, 9))
    best = min(tried, key=lambda pair: abs(pair[1]))[0]
    return scale / 2.0**best


def _gains(model: Model, signals: Sequence[NDArray[np.float64]], functions: plain.Functions) -> NDArray[np.float64]:
    """Factors of decoded latents that minimise squared error: their bins' means lie nearer to zero than their middles."""
    config, record = model.config, model.config.record
    both, own = np.zeros(config.planes), np.zeros(config.planes)
    coding = Codec(model, functions).coding()
    for x in signals:
        bands = statistics.subbands(x, config, functions)
        latents = record.to_latents(bands, model, coding, functions).reshape(config.planes, -1)
        decoded = functions.dequantise(functions.quantise(latents, config.latent_bits), config.latent_bits)
        both += (latents * decoded).sum(1)
        own += np.square(decoded).sum(1)
    return np.clip(np.where(own > 0, both / np.maximum(own, 1e-300), 1.0), *GAINS)


def _table_symbols(model: Model, sources: Sequence[Any], functions: plain.Functions) -> list[NDArray[np.int16]]:
    """Symbols that tables are fitted to: each source at one of `TABLE_STEPS`, or at all where there are few."""
    jobs = [(number, step) for number in range(len(sources)) for step in TABLE_STEPS]
    if len(sources) > FEW:
        jobs = [(number, TABLE_STEPS[number % len(TABLE_STEPS)]) for number in range(len(sources))]
    share = TABLE_SYMBOLS // max(1, len(jobs))

    def symbols(job: tuple[int, float]) -> NDArray[np.int16]:
        number, step = job
        config = model.config
        x, _ = next(statistics.pieces(statistics.opened(sources[number]), config, functions))
        positions = max(1, share // (config.planes * math.prod(config.latent_sizes(x.shape[1:])[1:])))
        return _symbols(model, x[:, : positions * config.multiple], step, functions)

    return workers.for_each(symbols, jobs)


def measure(codec: Codec, sources: Sequence[Any], step: float) -> Measured:
    """Complete streams of all sources at a step, decoded and compared."""

    def one(source: Any) -> tuple[int, float, float, int]:
        samples = statistics.opened(source)
        data = codec.encode(samples, step=step)
        decoded = decode(data, codec=codec).reshape(samples.shape)
        _, layout = KINDS[codec.config.kind].describe(samples, codec.config)
        error = np.square(decoded.astype(np.float64) - samples).mean() / rate_control._peak(layout) ** 2
        return len(data), rate_control.raw_bytes(layout), float(error), samples.size

    found = [one(source) for source in sources]
    total = sum(size for *_, size in found)
    error = sum(e * size for _, _, e, size in found) / total
    size = sum(n for n, *_ in found)
    psnr = -10 * math.log10(error) if error > 0 else math.inf
    return Measured(step, size, sum(raw for _, raw, *_ in found) / size, psnr, total)
