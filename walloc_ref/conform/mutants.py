"""Wrong implementations. Each is this package with one thing wrong that somebody once got wrong, or nearly did; the runner
must catch every one of them, and at the stage that it breaks. That is how the checker is checked.

A mutant is a class made of `stages.Stages`, or a function of a module replaced while it runs.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.conform import runner
from walloc_ref.conform.compare import read_slice, write_array
from walloc_ref.conform.stages import Parameters, Stages, Unsupported
from walloc_ref.conform.suite import Case, Suite
from walloc_ref.errors import WallocError
from walloc_ref.model import Model
from walloc_ref.plain import PLAIN, chosen
from walloc_ref.stages import autoencoder_kl, container, entropy, oobleck, projection, quantise, signal, wavelet

Array = NDArray[np.float64]

SAMPLE = 2
"""Cases of each stage and model that a quick selftest runs before the stage that a mutant breaks; of that stage, all."""


@dataclass(frozen=True)
class Mutant:
    """A wrong implementation.

    Attributes
    ----------
    name : str
    text : str
        What is wrong with it.
    breaks : str
        Operation and stage at which it must be caught first.
    make : callable
        Gives a context in which the implementation is wrong.
    """

    name: str
    text: str
    breaks: str
    make: Callable[[], AbstractContextManager[Stages]]


@dataclass(frozen=True)
class Catch:
    """Where a mutant was caught.

    Attributes
    ----------
    mutant : Mutant
    result : runner.Result or None
        The first wrong case; None where the mutant was not caught.
    cases : int
        Number of cases that were run.
    """

    mutant: Mutant
    result: runner.Result | None
    cases: int

    @property
    def right(self) -> bool:
        """Whether it was caught, and by the stage that it breaks."""
        return self.result is not None and self.result.case.stage_name == self.mutant.breaks


def check(suite: Suite, mutant: Mutant, *, thorough: bool = False) -> Catch:
    """Run the cases of the mutant's operation through the runner until the first is wrong."""
    op = mutant.breaks.split()[0]
    cases = [case for case in suite.cases if case.op == op]
    if not thorough:
        cases = sampled(cases, mutant.breaks)
    with mutant.make() as implementation:
        report = runner.run(suite, runner.InProcess(implementation), cases, stop_at_first=True)
    wrong = [result for result in report.results if result.wrong]
    return Catch(mutant, wrong[0] if wrong else None, len(report.results))


def sampled(cases: Sequence[Case], breaks: str) -> list[Case]:
    """All cases of the stage `breaks`, and a few of each other stage and model."""
    seen: Counter[tuple[str, object, bool]] = Counter()
    chosen = []
    for case in cases:
        key = (case.stage_name, None if case.rejects else case.model, case.rejects)
        seen[key] += 1
        if case.stage_name == breaks or seen[key] <= SAMPLE:
            chosen.append(case)
    return chosen


@contextlib.contextmanager
def _patched(module: Any, name: str, value: object) -> Iterator[Stages]:
    """The definitions, with a function or constant of a module replaced."""
    before = getattr(module, name)
    setattr(module, name, value)
    quantise.dequantiser_table.cache_clear()
    quantise.thresholds.cache_clear()
    try:
        yield Stages(BASE)
    finally:
        setattr(module, name, before)
        quantise.dequantiser_table.cache_clear()
        quantise.thresholds.cache_clear()


def _patch(module: Any, name: str, value: object) -> Callable[[], AbstractContextManager[Stages]]:
    """A mutant by replacement."""
    return lambda: _patched(module, name, value)


BASE = replace(PLAIN, encode_slice=chosen().encode_slice, decode_slice=chosen().decode_slice)
"""The plain codec that mutants are made of; but symbols are coded by the kernel, where nothing of the coder is wrong."""


def _functions(**functions: Any) -> Callable[[], AbstractContextManager[Stages]]:
    """A mutant by functions of the table that differ."""
    return lambda: contextlib.nullcontext(Stages(replace(BASE, **functions)))


def _with(**methods: Callable[..., object]) -> Callable[[], AbstractContextManager[Stages]]:
    """A mutant by methods that differ."""
    return lambda: contextlib.nullcontext(type("Wrong", (Stages,), methods)(BASE))


# ---- rounding and samples


def _half_away(x: Array) -> Array:
    """Ties away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _round_half_away(self: Stages, companded: Array, model: object, parameters: Parameters) -> NDArray[np.int16]:
    return _half_away(companded).astype(np.int16)


def _round_up(self: Stages, companded: Array, model: object, parameters: Parameters) -> NDArray[np.int16]:
    return np.floor(companded + 0.5).astype(np.int16)


def _round_down(self: Stages, companded: Array, model: object, parameters: Parameters) -> NDArray[np.int16]:
    return np.trunc(companded).astype(np.int16)


def _truncated_image(x: Array, dtype: Any, mean: float, gain: float) -> NDArray:
    if np.dtype(dtype).kind == "f":
        return signal.signal_to_image(x, dtype, mean, gain)
    lowest, steps = signal.integer_range(dtype)
    scaled = np.floor(np.clip(signal.scale_to_image(x, dtype), 0, steps)) + lowest
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1).astype(dtype))


def _floats_without_mean(x: Array, dtype: Any, mean: float, gain: float) -> NDArray:
    return signal.signal_to_image(x, dtype, 0.0, gain)


def _signed_from_zero(samples: NDArray, mean: float, gain: float) -> Array:
    """Signed samples as if 0 were in the middle."""
    if samples.dtype != np.int16:
        return signal.image_to_signal(samples, mean, gain)
    return np.moveaxis(samples, -1, 0) / 65535


def _audio_half_away(x: Array, sample_format: str, mean: float, gain: float) -> NDArray[Any]:
    dtype, full_scale, silence, step = signal.AUDIO_FORMATS[sample_format]
    scaled = signal.scale_to_audio(x, sample_format, mean, gain)
    if step == 0:
        return np.ascontiguousarray(scaled.T.astype(dtype))
    steps = full_scale // step
    integers = np.clip(_half_away(scaled), -steps, steps - 1) + silence
    return np.ascontiguousarray((integers * step).T.astype(dtype))


def _wrong_dtype(self: Stages, x: Array, model: Any, parameters: Parameters) -> NDArray:
    samples = Stages.decode_samples(self, x, model, parameters)
    return samples.astype(np.int64) if samples.dtype.kind in "iu" else samples


def _extra_sample(self: Stages, data: bytes, model: Any, parameters: Parameters) -> NDArray:
    samples = Stages.decode_stream(self, data, model, parameters)
    return np.concatenate([samples, samples[-1:]])


def _divide_by_256(samples: NDArray, mean: float, gain: float) -> Array:
    if samples.dtype.kind != "u":
        return signal.image_to_signal(samples, mean, gain)
    return np.moveaxis(samples, -1, 0) / (np.iinfo(samples.dtype).max + 1.0) - 0.5


def _bgr(self: Stages, x: Array, model: Any, parameters: Parameters) -> NDArray:
    return Stages.decode_samples(self, x[::-1], model, parameters)


# ---- padding and cropping


def _before_up(size: int, multiple: int) -> int:
    return (signal.padded_size(size, multiple) - size + 1) // 2


def _repeat_edge(n: int, multiple: int) -> NDArray[np.intp]:
    position = np.arange(signal.padded_size(n, multiple)) - signal.padding_before(n, multiple)
    folded = position % (2 * n)
    return np.minimum(folded, 2 * n - 1 - folded).astype(np.intp)


def _crop_corner(self: Stages, x: Array, model: Any, parameters: Parameters) -> Array:
    sizes = tuple(int(n) for n in parameters["sizes"].split("x"))
    window = (slice(None), *(slice(0, n) for n in sizes))
    return x[window]


def _crop_off_by_one(x: Array, sizes: tuple[int, ...], multiple: int) -> Array:
    starts = [min(signal.padding_before(n, multiple) + 1, total - n) for n, total in zip(sizes, x.shape[1:])]
    window = (slice(None), *(slice(s, s + n) for s, n in zip(starts, sizes)))
    return x[window]


# ---- transform


def _analyse(x: Array, levels: int, *, split: Callable[..., Any] = wavelet._split, swap: Sequence[int] = ()) -> Array:
    """`wavelet.analyse` with a wrong split, or with LH and HL swapped at some levels."""
    for level in range(levels):
        for axis in range(1, x.ndim) if level in swap else range(x.ndim - 1, 0, -1):
            bands = np.stack(split(x, axis), axis=1)
            x = bands.reshape(-1, *bands.shape[2:])
    return x


def _synthesise(
    bands: Array, levels: int, *, swap: Sequence[int] = (), merge: Callable[..., Any] = wavelet._merge
) -> Array:
    x = bands
    for level in reversed(range(levels)):
        for axis in range(x.ndim - 1, 0, -1) if level in swap else range(1, x.ndim):
            pair = x.reshape(-1, 2, *x.shape[1:])
            x = merge(pair[:, 0], pair[:, 1], axis)
    return x


def _pyramid(x: Array, levels: int) -> Array:
    """Bands numbered with the last level's digit most significant."""
    for _ in range(levels):
        for axis in range(x.ndim - 1, 0, -1):
            low, high = wavelet._split(x, axis)
            x = np.concatenate([low, high])
    return x


def _symmetric(x: Array, axis: int) -> tuple[Array, Array]:
    """Analysis that reflects at the ends."""
    x = np.moveaxis(x, axis, -1)
    n = x.shape[-1]
    wide = np.pad(
        x, [(0, 0)] * (x.ndim - 1) + [(wavelet.LOW_REACH, wavelet.LOW_REACH)], mode="reflect" if n > 1 else "edge"
    )
    padded = np.concatenate([wide, np.zeros_like(wide[..., :0])], axis=-1)

    def tap(offset: int) -> Array:
        return padded[..., wavelet.LOW_REACH + offset : wavelet.LOW_REACH + offset + n : 2][..., : n // 2]

    low = wavelet.ANALYSIS_LOW[0] * tap(0)
    high = wavelet.ANALYSIS_HIGH[0] * tap(1)
    for m in range(1, wavelet.LOW_REACH + 1):
        low = low + wavelet.ANALYSIS_LOW[m] * (tap(-m) + tap(m))
    for m in range(1, wavelet.HIGH_REACH + 1):
        high = high + wavelet.ANALYSIS_HIGH[m] * (tap(1 - m) + tap(1 + m))
    return np.moveaxis(low, -1, axis), np.moveaxis(high, -1, axis)


def _wrap_once(x: Array, axis: int) -> tuple[Array, Array]:
    """Analysis that forgets to wrap more than once: beyond one period there are zeros."""
    if x.shape[axis] >= 2 * wavelet.LOW_REACH:
        return _split(x, axis)
    x = np.moveaxis(x, axis, -1)
    n = x.shape[-1]
    where = np.arange(-wavelet.LOW_REACH, n + wavelet.LOW_REACH)
    padded = x[..., where % n] * ((where >= -n) & (where < 2 * n))

    def tap(offset: int) -> Array:
        return padded[..., wavelet.LOW_REACH + offset : wavelet.LOW_REACH + offset + n : 2][..., : n // 2]

    low = sum(wavelet.ANALYSIS_LOW[abs(m)] * tap(m) for m in range(-wavelet.LOW_REACH, wavelet.LOW_REACH + 1))
    high = sum(wavelet.ANALYSIS_HIGH[abs(m)] * tap(1 + m) for m in range(-wavelet.HIGH_REACH, wavelet.HIGH_REACH + 1))
    return np.moveaxis(np.asarray(low), -1, axis), np.moveaxis(np.asarray(high), -1, axis)


_split = wavelet._split
"""The right one, for mutants that replace it."""


def _shifted(x: Array, axis: int) -> tuple[Array, Array]:
    """High-pass centred one sample early."""
    return _split(x, axis)[0], _split(np.roll(x, 2, axis), axis)[1]


def _zeros_beyond(low: Array, high: Array, axis: int) -> Array:
    """Synthesis with zeros instead of the period."""
    pad = [(0, 0)] * low.ndim
    pad[axis] = (4, 4)
    x = wavelet._merge(np.pad(low, pad), np.pad(high, pad), axis)
    return np.take(x, np.arange(8, 8 + 2 * low.shape[axis]), axis=axis)


EXACT_LOW = (0.8526986790094034, 0.3774028556126539, -0.11062440441842342, -0.02384946501938002, 0.03782845550699546)
"""Analysis low-pass from the closed form (SPEC.md 4.9), to 16 digits."""


# ---- quantiser


def _dequantise_half(self: Stages, symbols: NDArray, model: Any, parameters: Parameters) -> Array:
    return Stages.dequantise(self, symbols, model, parameters).astype(np.float16).astype(np.float64)


def _no_companding(self: Stages, latents: Array, model: Any, parameters: Parameters) -> Array:
    last = quantise.last_symbol(model.config.latent_bits)
    return np.clip(latents, -last, last)


def _float32(method: str) -> Callable[..., Array]:
    """A stage whose result went through binary32."""

    def narrow(self: Stages, x: Array, model: Any, parameters: Parameters) -> Array:
        return getattr(Stages, method)(self, x, model, parameters).astype(np.float32).astype(np.float64)

    return narrow


def _residual_of_original(self: Stages, bands: Array, model: Any, parameters: Parameters) -> NDArray[np.int16]:
    if not model.config.record.in_stages:
        raise Unsupported("residual")
    stages = []
    for i in range(model.config.num_stages):
        weight = model.tensors[f"encoders.{i}.weight"][:, :, 0, 0].astype(np.float64)
        bias = model.tensors[f"encoders.{i}.bias"].astype(np.float64)
        stages.append(self.quantise(projection.project(bands, weight, bias), model, {}))
    return np.concatenate(stages)


# ---- networks


def _attention(scale: Callable[[int], float], axis: int = 1) -> Callable[..., Array]:
    """Attention with another scale, or with the softmax over the queries."""

    def attention(x: Array, weights: autoencoder_kl.Weights, name: str) -> Array:
        kl, channels = autoencoder_kl, x.shape[0]
        tokens = kl.group_norm(x, *kl.layer(weights, f"{name}.group_norm")).reshape(channels, -1)
        query, key, value = (kl.linear(tokens, *kl.layer(weights, f"{name}.to_{part}")) for part in "qkv")
        scores = query.T @ key * scale(channels)
        scores = np.exp(scores - scores.max(axis=axis, keepdims=True))
        mixed = value @ (scores / scores.sum(axis=axis, keepdims=True)).T
        return x + kl.linear(mixed, *kl.layer(weights, f"{name}.to_out.0")).reshape(x.shape)

    return attention


def _no_residual(x: Array, weights: autoencoder_kl.Weights, name: str) -> Array:
    return _right_attention(x, weights, name) - x


_right_attention = autoencoder_kl.attention
_right_conv = autoencoder_kl.conv3x3


def _group_norm(*, unbiased: bool = False, interleaved: bool = False) -> Callable[..., Array]:
    def group_norm(x: Array, weight: Array, bias: Array) -> Array:
        groups, channels = autoencoder_kl.GROUPS, x.shape[0]
        order = np.arange(channels).reshape(-1, groups).T.reshape(-1) if interleaved else np.arange(channels)
        grouped = x[order].reshape(groups, -1)
        variance = grouped.var(axis=1, keepdims=True, ddof=1 if unbiased and grouped.shape[1] > 1 else 0)
        normal = (grouped - grouped.mean(axis=1, keepdims=True)) / np.sqrt(variance + autoencoder_kl.EPSILON)
        y = np.empty_like(x)
        y[order] = normal.reshape(x.shape)
        return y * weight[:, None, None] + bias[:, None, None]

    return group_norm


def _conv_edge(x: Array, weight: Array, bias: Array) -> Array:
    """Convolution that repeats the edge instead of zeros."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return _right_conv(padded, weight, bias)[:, 1:-1, 1:-1]


@contextlib.contextmanager
def _other_weights() -> Iterator[Stages]:
    """The decoder uses the first weights that it ever saw for every model of the same shape, here: rolled ones."""

    class Wrong(Stages):
        def block(self, stage: str, x: Array, model: Model) -> Array:
            rolled = {name: np.roll(tensor, 1, axis=0) for name, tensor in model.tensors.items()}
            return super().block(stage, x, replace(model, tensors=rolled))

    yield Wrong(BASE)


def _snake_logarithms(x: Array, alpha: Array, gain: Array) -> Array:
    """Parameters that are not taken out of the logarithm."""
    beta = 1 / gain - oobleck.BETA_OFFSET
    return x + np.square(np.sin(np.log(alpha) * x)) / (np.log(beta) + oobleck.BETA_OFFSET)


def _transposed_taps(x: Array, weight: Array, bias: Array) -> Array:
    return weight[:, :, 1].T @ x[:, 1:] + weight[:, :, 0].T @ x[:, :-1] + bias[:, None]


def _no_border(self: Stages, bands: Array, model: Any, parameters: Parameters) -> Array:
    latents = Stages.latents(self, bands, model, parameters)
    return latents[:, 1:-1] if model.config.kind == "audio" else latents


def _zero_border(latents: Array, bias: Array) -> Array:
    return np.pad(latents, ((0, 0), (1, 1)))


def _post_periodic(self: Stages, x: Array, model: Any, parameters: Parameters) -> Array:
    reach = oobleck.POST_REACH
    return oobleck.conv(x[:, np.arange(-reach, x.shape[1] + reach) % x.shape[1]], **model.weights["post"])


def _mean_by_channel(self: Stages, samples: NDArray, model: Any, parameters: Parameters) -> Array:
    both = [signal.audio_statistics(samples[:, c : c + 1], parameters["format"]) for c in range(samples.shape[1])]
    return np.array([both[0][0], max(gain for _, gain in both)])


# ---- whole answers


def _nan(self: Stages, bands: Array, model: Any, parameters: Parameters) -> Array:
    return np.full_like(Stages.synthesis(self, bands, model, parameters), np.nan)


class _Stale(Stages):
    """Answers every case with the output of the case before."""

    last: bytes | None = None

    def perform(self, op: str, stage: str, model: Path | None, data: bytes, parameters: Parameters) -> bytes:
        now = super().perform(op, stage, model, data, parameters)
        before, self.last = self.last, now
        return now if before is None else before


class _AcceptEverything(Stages):
    """Answers with zeros where it should reject."""

    def perform(self, op: str, stage: str, model: Path | None, data: bytes, parameters: Parameters) -> bytes:
        try:
            return super().perform(op, stage, model, data, parameters)
        except WallocError:
            return write_array(np.zeros((1, 1, 1), np.int16))


class _CrashOnDamage(Stages):
    """Runs into its own errors where it should reject."""

    def perform(self, op: str, stage: str, model: Path | None, data: bytes, parameters: Parameters) -> bytes:
        try:
            return super().perform(op, stage, model, data, parameters)
        except WallocError as error:
            raise IndexError("index out of range") from error


class _RejectEverything(Stages):
    """Rejects every input."""

    def perform(self, op: str, stage: str, model: Path | None, data: bytes, parameters: Parameters) -> bytes:
        raise WallocError("input", "anything", "nothing")


class _Unfinished(Stages):
    """Writes a few bytes more than the array."""

    def written(self, result: object) -> bytes:
        data = super().written(result)
        return data + b"\0" if data[:6] == b"\x93NUMPY" else data


def _rate_off(self: Stages, data: bytes, model: Any, parameters: Parameters) -> Mapping[str, object]:
    fields = Stages.decode_header(self, data, model, parameters)
    rate = fields["rate"]
    assert isinstance(rate, int)
    return fields | {"rate": rate + 1 if rate else 0}


def _size_order(self: Stages, data: bytes, model: Any, parameters: Parameters) -> Mapping[str, object]:
    fields = Stages.decode_header(self, data, model, parameters)
    sizes = fields["sizes"]
    assert isinstance(sizes, tuple)
    return fields | {"sizes": sizes[::-1]}


@contextlib.contextmanager
def _unknown_skipped() -> Iterator[Stages]:
    """Every unknown section is taken for an ancillary one."""

    class Wrong(Stages):
        def read(self, data: bytes, model: object) -> container.Stream:
            before = container.ANCILLARY
            container.ANCILLARY = 0
            try:
                return super().read(data, None)
            finally:
                container.ANCILLARY = before

    yield Wrong(BASE)


def _trailing(self: Stages, data: bytes, model: Any, parameters: Parameters) -> NDArray[np.int16]:
    """A slice decoder that stops when it has all symbols and does not look at what is left."""
    shape, payload = read_slice(data, model.config.kind)
    for end in range(len(payload), 0, -1):
        try:
            return self.functions.decode_slice(payload[:end], shape, model.tables)
        except WallocError:
            if end < len(payload) - 2:
                raise
    raise WallocError("slice", "nothing", "some bytes")


def _transposed_slice(self: Stages, data: bytes, model: Any, parameters: Parameters) -> NDArray[np.int16]:
    symbols = Stages.decode_slice(self, data, model, parameters)
    return np.ascontiguousarray(symbols.swapaxes(-2, -1)).reshape(symbols.shape)


def _slices_backwards(self: Stages, stream: container.Stream, model: Any) -> NDArray[np.int16]:
    return Stages.symbols_of(self, replace(stream, slices=stream.slices[::-1]), model)


def _nothing(*arguments: object, **options: object) -> None:
    """A check that is left out."""


def _encode_other_model(self: Stages, samples: NDArray, model: Any, parameters: Parameters) -> bytes:
    data = Stages.encode_stream(self, samples, model, parameters)
    stream = container.read(data)
    return container.write(replace(stream, header=replace(stream.header, model_id=bytes(16))))


def _encode_rate(self: Stages, samples: NDArray, model: Any, parameters: Parameters) -> bytes:
    changed = {key: str(int(value) - 1) if key == "rate" else value for key, value in parameters.items()}
    return Stages.encode_stream(self, samples, model, changed)


def _clip_and_encode(self: Stages, symbols: NDArray, model: Any, parameters: Parameters) -> bytes:
    last = quantise.last_symbol(model.config.latent_bits)
    return Stages.encode_slice(self, np.clip(symbols, -last, last), model, parameters)


@contextlib.contextmanager
def _coder(owner: Any, name: str, value: object) -> Iterator[Stages]:
    """The entropy coder with one function replaced."""
    with _patched(owner, name, value):
        yield Stages(PLAIN)


def _no_depth_before(self: Any, shape: tuple[int, int, int], before: object = None) -> None:
    """Every depth position is the first."""
    _right_neighbours(self, shape)


_right_neighbours = entropy.Neighbours.__init__


def _depth_afresh(coder: Any, symbols: NDArray, tables: entropy.Tables) -> None:
    """Probabilities and weights begin anew at every depth position."""
    known = None
    for part in np.moveaxis(symbols, 1, 0) if symbols.ndim == 4 else symbols[None]:
        known = entropy.walk(coder, part, tables, entropy.Mixer(tables), known)


def _depth_first(self: Stages, data: bytes, model: Any, parameters: Parameters) -> NDArray[np.int16]:
    """Symbols of volumes with the depth positions before the planes."""
    symbols = Stages.decode_symbols(self, data, model, parameters)
    return np.ascontiguousarray(symbols.swapaxes(0, 1)).reshape(symbols.shape) if symbols.ndim == 4 else symbols


def _zero_beyond(self: Any, here: tuple[int, int, int], kind: int, source: int, dy: int, dx: int) -> int:
    """Neighbours beyond the plane are zero."""
    inside = 0 <= here[1] + dy < self.h and 0 <= here[2] + dx < self.w
    return _right_neighbour(self, here, kind, source, dy, dx) if inside else 0


_right_neighbour = entropy.Neighbours.get


def _no_hidden(v: Any, units: Any, biases: Any, outputs: Any) -> tuple[int, int, int]:
    """The linear part of the network alone."""
    return _right_predict(v, units, biases, outputs * 0)


_right_predict = entropy.predict


MUTANTS: tuple[Mutant, ...] = (
    # whole answers
    Mutant(
        "stale-output", "the output of the case before", "decode header", lambda: contextlib.nullcontext(_Stale(BASE))
    ),
    Mutant(
        "reject-everything",
        "rejects every input",
        "decode header",
        lambda: contextlib.nullcontext(_RejectEverything(BASE)),
    ),
    Mutant(
        "accept-everything",
        "zeros where it should reject",
        "decode header",
        lambda: contextlib.nullcontext(_AcceptEverything(BASE)),
    ),
    Mutant(
        "crash-on-damage",
        "an exception of its own where it should reject",
        "decode header",
        lambda: contextlib.nullcontext(_CrashOnDamage(BASE)),
    ),
    Mutant(
        "bytes-after-array", "a byte after the array", "decode slice", lambda: contextlib.nullcontext(_Unfinished(BASE))
    ),
    Mutant("nan-output", "NaN everywhere", "decode synthesis", _with(synthesis=_nan)),
    Mutant("extra-sample", "a row of samples too many", "decode stream", _with(decode_stream=_extra_sample)),
    Mutant("wrong-dtype", "the right samples, as int64", "decode samples", _with(decode_samples=_wrong_dtype)),
    # container and coder
    Mutant("rate-off-by-one", "the rate plus one", "decode header", _with(decode_header=_rate_off)),
    Mutant("sizes-swapped", "width before height", "decode header", _with(decode_header=_size_order)),
    Mutant(
        "ignores-crc", "takes every CRC for right", "decode symbols", _patch(container, "_crc", lambda data: _AnyCrc())
    ),
    Mutant("skips-critical", "skips unknown critical sections", "decode symbols", _unknown_skipped),
    Mutant("ignores-identity", "decodes with another model", "decode symbols", _with(check_header=_nothing)),
    Mutant(
        "ignores-symbol-hash",
        "does not compare the hash of the symbols",
        "decode symbols",
        _with(check_symbols=_nothing),
    ),
    Mutant(
        "ignores-trailing-bytes",
        "does not look at what follows in a slice",
        "decode slice",
        _with(decode_slice=_trailing),
    ),
    Mutant("transposed-slice", "columns for rows in a slice", "decode slice", _with(decode_slice=_transposed_slice)),
    Mutant(
        "slices-backwards",
        "the last slice first",
        "decode symbols",
        _with(symbols_of=_slices_backwards, check_symbols=_nothing),
    ),
    Mutant(
        "adaptation-rate",
        "1/(n + 1.5) instead of 1/(n + 1.6)",
        "decode slice",
        lambda: _coder(entropy, "adaptation_rate", lambda n: 655360 // (10 * n + 15)),
    ),
    Mutant(
        "zero-neighbours",
        "neighbours beyond the plane are zero",
        "decode slice",
        lambda: _coder(entropy.Neighbours, "get", _zero_beyond),
    ),
    Mutant(
        "no-hidden-units", "leaves the hidden units out", "decode slice", lambda: _coder(entropy, "predict", _no_hidden)
    ),
    Mutant(
        "no-depth-before",
        "the depth position before is not looked at",
        "decode slice",
        lambda: _coder(entropy.Neighbours, "__init__", _no_depth_before),
    ),
    Mutant(
        "depth-afresh",
        "of volumes, every depth position begins anew",
        "decode slice",
        lambda: _coder(entropy, "walk_slice", _depth_afresh),
    ),
    Mutant(
        "depth-first", "of volumes, depth positions before planes", "decode symbols", _with(decode_symbols=_depth_first)
    ),
    # quantiser
    Mutant(
        "float16-table", "the dequantiser's table in binary16", "decode dequantise", _with(dequantise=_dequantise_half)
    ),
    Mutant(
        "float32-table",
        "the dequantiser's table in binary32",
        "decode dequantise",
        _with(dequantise=_float32("dequantise")),
    ),
    Mutant(
        "range-without-guard",
        "M = L + 1/2, 0.001 too large, when dequantising",
        "decode dequantise",
        _patch(quantise, "GUARD", 0.0),
    ),
    Mutant("range-without-guard-encoder", "the same when companding", "encode compand", _patch(quantise, "GUARD", 0.0)),
    Mutant(
        "scale-of-8-bits",
        "s = 127/1.85 for any number of bits",
        "encode compand",
        _patch(quantise, "scale", lambda bits: 127 / 1.85),
    ),
    Mutant("round-half-away", "symbols: ties away from zero", "encode round", _with(round=_round_half_away)),
    Mutant("round-half-up", "symbols: ties upward", "encode round", _with(round=_round_up)),
    Mutant("round-down", "symbols: truncated", "encode round", _with(round=_round_down)),
    Mutant("no-companding", "latents rounded as they are", "encode compand", _with(compand=_no_companding)),
    Mutant(
        "residual-of-original",
        "later stages encode the signal, not what is left",
        "encode residual",
        _with(residual=_residual_of_original),
    ),
    # transform
    Mutant(
        "bands-swapped",
        "LH and HL swapped in analysis",
        "encode analysis",
        _functions(analyse=lambda x, n: _analyse(x, n, swap=range(n))),
    ),
    Mutant(
        "bands-swapped-once",
        "LH and HL swapped at the first level of synthesis only",
        "decode synthesis",
        _functions(synthesise=lambda x, n: _synthesise(x, n, swap=(0,))),
    ),
    Mutant(
        "digit-order",
        "the last level's digit most significant",
        "encode analysis",
        _functions(analyse=_pyramid),
    ),
    Mutant(
        "symmetric-extension", "analysis reflects at the ends", "encode analysis", _patch(wavelet, "_split", _symmetric)
    ),
    Mutant(
        "zeros-beyond-synthesis",
        "synthesis takes zeros beyond the ends",
        "decode synthesis",
        _functions(synthesise=lambda x, n: _synthesise(x, n, merge=_zeros_beyond)),
    ),
    Mutant("wraps-once", "short signals wrap once only", "encode analysis", _patch(wavelet, "_split", _wrap_once)),
    Mutant(
        "high-pass-shifted", "the high band one position late", "encode analysis", _patch(wavelet, "_split", _shifted)
    ),
    Mutant(
        "closed-form-taps", "taps that differ by 1e-12", "encode analysis", _patch(wavelet, "ANALYSIS_LOW", EXACT_LOW)
    ),
    Mutant("float32-analysis", "the transform in binary32", "encode analysis", _with(analysis=_float32("analysis"))),
    Mutant(
        "depth-across-swapped",
        "of volumes, high in depth and high across swapped",
        "encode analysis",
        _functions(analyse=lambda x, n: _analyse(x, n, swap=range(n) if x.ndim == 4 else ())),
    ),
    # edges
    Mutant(
        "padding-ceil",
        "the larger half of the padding first",
        "encode pad",
        _patch(signal, "padding_before", _before_up),
    ),
    Mutant(
        "padding-repeats-edge",
        "reflection that repeats the edge",
        "encode pad",
        _patch(signal, "reflected_indices", _repeat_edge),
    ),
    Mutant("crop-corner", "crops at the corner, not in the middle", "decode crop", _with(crop=_crop_corner)),
    Mutant("crop-off-by-one", "crops one sample late", "decode crop", _functions(crop=_crop_off_by_one)),
    Mutant("no-clamp", "does not clamp", "decode clamp", _with(clamp=lambda self, x, model, parameters: x)),
    Mutant(
        "truncated-samples",
        "truncates instead of rounding, as the upstream's display helper",
        "decode samples",
        _functions(signal_to_image=_truncated_image),
    ),
    Mutant(
        "samples-half-away",
        "audio: ties away from zero",
        "decode samples",
        _functions(signal_to_audio=_audio_half_away),
    ),
    Mutant("channels-reversed", "blue before red", "decode samples", _with(decode_samples=_bgr)),
    Mutant(
        "signed-from-zero",
        "u/65535 for signed samples",
        "encode signal",
        _functions(image_to_signal=_signed_from_zero),
    ),
    Mutant(
        "floats-without-mean",
        "images of floats: the mean is not added",
        "decode samples",
        _functions(signal_to_image=_floats_without_mean),
    ),
    Mutant("divides-by-256", "u/256 instead of u/255", "encode signal", _functions(image_to_signal=_divide_by_256)),
    Mutant(
        "mean-by-channel",
        "the mean of the first channel for all",
        "encode statistics",
        _with(statistics=_mean_by_channel),
    ),
    # networks for images
    Mutant("another-models-weights", "other weights of the right shapes", "decode decoder.conv_in", _other_weights),
    Mutant(
        "transposed-kernel",
        "rows and columns of the kernels swapped",
        "decode decoder.conv_in",
        _patch(autoencoder_kl, "conv3x3", lambda x, w, b: _right_conv(x, w.swapaxes(2, 3), b)),
    ),
    Mutant(
        "flipped-kernel",
        "convolution instead of cross-correlation",
        "decode decoder.conv_in",
        _patch(autoencoder_kl, "conv3x3", lambda x, w, b: _right_conv(x, np.ascontiguousarray(w[:, :, ::-1, ::-1]), b)),
    ),
    Mutant(
        "edge-padding",
        "repeats the edge instead of zeros",
        "decode decoder.conv_in",
        _patch(autoencoder_kl, "conv3x3", _conv_edge),
    ),
    Mutant(
        "group-norm-epsilon",
        "1e-5 instead of 1e-6",
        "decode decoder.mid.resnet0",
        _patch(autoencoder_kl, "EPSILON", 1e-5),
    ),
    Mutant(
        "group-norm-unbiased",
        "variance over n - 1",
        "decode decoder.mid.resnet0",
        _patch(autoencoder_kl, "group_norm", _group_norm(unbiased=True)),
    ),
    Mutant(
        "group-norm-interleaved",
        "groups of every 32nd channel",
        "decode decoder.mid.resnet0",
        _patch(autoencoder_kl, "group_norm", _group_norm(interleaved=True)),
    ),
    Mutant(
        "relu",
        "ReLU for SiLU",
        "decode decoder.mid.resnet0",
        _patch(autoencoder_kl, "silu", lambda x: np.maximum(x, 0)),
    ),
    Mutant(
        "attention-scale",
        "scores over N, not over its root",
        "decode decoder.mid.attention",
        _patch(autoencoder_kl, "attention", _attention(lambda n: 1 / n)),
    ),
    Mutant(
        "attention-over-queries",
        "softmax over the queries",
        "decode decoder.mid.attention",
        _patch(autoencoder_kl, "attention", _attention(lambda n: n**-0.5, axis=0)),
    ),
    Mutant(
        "attention-not-added",
        "the attention's input is not added",
        "decode decoder.mid.attention",
        _patch(autoencoder_kl, "attention", _no_residual),
    ),
    Mutant(
        "group-norm-epsilon-encoder",
        "1e-5 in the full encoder",
        "encode encoder.down.resnet0",
        _patch(autoencoder_kl, "EPSILON", 1e-5),
    ),
    Mutant("float32-projection", "the projection in binary32", "encode latents", _with(latents=_float32("latents"))),
    # audio
    Mutant("no-border", "the two border latents of audio are missing", "encode latents", _with(latents=_no_border)),
    Mutant(
        "zero-border",
        "the border latents are zero, not the bias",
        "encode latents",
        _patch(projection, "add_border", _zero_border),
    ),
    Mutant(
        "snake-logarithms",
        "alpha and beta are not taken out of the logarithm",
        "decode decoder.block0",
        _patch(oobleck, "snake", _snake_logarithms),
    ),
    Mutant("dilations", "dilations 1, 2, 4", "decode decoder.block0", _patch(oobleck, "DILATIONS", (1, 2, 4))),
    Mutant(
        "transposed-taps",
        "the two taps of the transposed convolutions swapped",
        "decode decoder.block0",
        _patch(oobleck, "conv_transpose", _transposed_taps),
    ),
    Mutant(
        "no-post-filter", "without the post filter", "decode post", _with(post=lambda self, x, model, parameters: x)
    ),
    Mutant("post-filter-periodic", "the post filter wraps around", "decode post", _with(post=_post_periodic)),
    # encoder's own
    Mutant(
        "clipped-symbols", "clips symbols that it should refuse", "encode slice", _with(encode_slice=_clip_and_encode)
    ),
    Mutant("unnamed-model", "writes no identity", "encode stream", _with(encode_stream=_encode_other_model)),
    Mutant("encoder-rate", "writes the rate minus one", "encode stream", _with(encode_stream=_encode_rate)),
)
"""All wrong implementations."""


class _AnyCrc(bytes):
    """A CRC that is right whatever it is compared with."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False
