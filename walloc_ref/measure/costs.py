"""Cost against work: the whole codec over sizes and threads, beside other codecs and the upstream. No part of the codec.

`bench` times the stages of one file; here the file is made as large as asked. All cases of a size run in turns, so what
is compared ran side by side. Four surprises:

1. An image grows by its mirror images, as wide for its height as before; audio likewise in time. Smaller sizes are cut.
2. "Equal bytes" names the setting of another codec whose file is nearest in size to ours. It is searched on at most
   `SEARCHED`, where a search takes seconds, and kept for what is larger; the bytes at each size are reported.
3. JPEG XL is given as many threads as we have. The others know one thread and have no rows of more.
4. Decoding 24 megapixels on one thread takes long: a case gets `BUDGET` seconds, and tells how many turns those were.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import walloc_ref
from walloc_ref.codec import Codec, decode_stream
from walloc_ref.errors import BadSamples
from walloc_ref.fast.workers import Progress
from walloc_ref.measure.bench import KERNEL, Case, coder_cases, in_turns, report, signal_of, upstream_cases
from walloc_ref.measure.evaluate import Item, fitting, format_table, machine, title, unit_range
from walloc_ref.measure.other_codecs import OTHER_CODECS, ImageCodec, OtherCodec, nearest_size
from walloc_ref.plain import chosen, compiled
from walloc_ref.stages.container import MAX_SAMPLES

FORMAT = "walloc_ref.measure.costs 1"
"""Layout of the result: see `run`."""

BUDGET = 4.0
"""Seconds after which a case has no further turn."""

AGAINST = {"image": ("webp", "jpeg", "jxl"), "audio": ("opus", "mp3")}
"""Other codecs, those of them that are installed. (Opus resamples, which counts, where it does not know the rate.)"""

FIXED_SETTINGS = {"webp": (20.0,)}
"""Settings that are timed beside that of equal bytes."""

REFUSALS = (OSError, RuntimeError, ValueError)
"""What the libraries raise for sizes beyond their format, WebP over 16383 pixels a side: it has no rows there."""

SEARCHED = {"image": 1.6, "audio": 30.0}
"""Megapixels, or seconds, on which a setting is searched at most."""

UPSTREAM_SIZES = {"image": 1.6, "audio": 30.0}
"""Megapixels, or seconds, up to which the upstream is timed: its memory grows with the square where it has attention."""

UPSTREAM_STAGES = ("signal to symbols", "symbols to signal", "decoder", "encode", "decode")
"""Those of the upstream that are compared: what needs no files, the decoder network alone, and files where it has any."""

NARROW = f"{KERNEL} 32"
"""Variant: decoding in binary32."""

OPERATIONS = (
    "encode",
    "decode",
    "samples to symbols",
    "signal to symbols",
    "symbols to signal",
    "decoder",
    "entropy encode",
    "entropy decode",
)
"""Stages in the order of the table."""

UNITS = {"image": "MP", "audio": "s"}
"""What sizes are given in: millions of pixels, seconds."""


@dataclass(frozen=True, eq=False)
class _Sized:
    """A case at a size, the bytes of its file, and the setting of another codec."""

    case: Case
    bytes: int | None = None
    setting: float | None = None
    equal_bytes: bool = False


def run(
    codec: Codec,
    item: Item,
    sizes: Sequence[float],
    *,
    threads: Sequence[int] = (1,),
    repeats: int = 3,
    budget: float = BUDGET,
    against_torch: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time encoding and decoding at each size.

    Parameters
    ----------
    codec : Codec
    item : Item
        An 8-bit image or a clip, of the model's kind.
    sizes : sequence of float
        Megapixels, or seconds of audio.
    threads : sequence of int
        Numbers of threads to run on.
    repeats : int
        Timed turns, at most.
    budget : float
        Seconds after which a case has no further turn.
    against_torch : bool
        The upstream's PyTorch model in binary32 and binary64, too, up to `UPSTREAM_SIZES`, and our stages that have no
        files beside it.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    dict, ready for JSON
        "format", "version", "machine", "model", "kind", "item" (name, shape), "sizes", "threads", "repeats", "budget",
        and "cases": those of `bench.run`, and "size" (as asked), "shape", "turns" (that count), "bytes" (of the file; None
        where a stage has none), "setting" (of another codec, or None) and "equal_bytes" (whether it was searched for).

    Raises
    ------
    BadSamples
        Input that the model does not take, sizes of nothing or of too much, or no PyTorch where it is asked for.
    """
    kind = codec.config.kind
    if item.kind != kind:
        raise BadSamples("bench", f"{item.kind} for the model {codec.name}", kind)
    if kind == "image":
        if item.samples.dtype != np.uint8:
            raise BadSamples("bench --sizes", item.samples.dtype, "uint8, as the other codecs take it")
        item = replace(item, samples=fitting(item.samples, codec))
    for size in sizes:
        _shape(item, size)  # all are refused before the first is timed
    whole, done, found = math.fsum(sizes), 0.0, []
    others = _Others(codec, item)
    for size in sizes:
        sample = sized(item, size)
        cases = list(_our_cases(codec, sample, threads))
        cases += others.cases(sample, size, threads)
        if against_torch and size <= UPSTREAM_SIZES[kind]:
            cases += [_Sized(case) for case in _cases_without_files(codec, sample, threads)]
            for count in threads:
                for bits in (32, 64):
                    torch_cases = upstream_cases(codec, sample, count, bits)
                    cases += [_Sized(case) for case in torch_cases if case.stage in UPSTREAM_STAGES]

        def tell(share: float, before: float = done, size: float = size) -> None:
            if progress is not None:
                progress((before + share * size) / whole)

        seconds = in_turns([timed.case for timed in cases], repeats, budget=budget, progress=tell)
        for timed, taken in zip(cases, seconds):
            place = {"size": size, "shape": list(sample.samples.shape), "turns": len(taken)}
            coded = {"bytes": timed.bytes, "setting": timed.setting, "equal_bytes": timed.equal_bytes}
            found.append(report(timed.case, taken) | place | coded)
        done += size
    return {
        "format": FORMAT,
        "version": walloc_ref.__version__,
        "machine": machine(),
        "model": codec.name,
        "kind": kind,
        "item": {"name": item.name, "shape": list(item.samples.shape)},
        "sizes": list(sizes),
        "threads": list(threads),
        "repeats": repeats,
        "budget": budget,
        "cases": found,
    }


def table(result: Mapping[str, Any]) -> str:
    """A result as a table in Markdown: a row for each operation, codec and number of threads, a column for each size."""
    sizes, rate = result["sizes"], "MS/s" if result["kind"] == "audio" else "MP/s"
    per_place = "bits per sample" if result["kind"] == "audio" else "bits per pixel"
    rows: dict[tuple[str, str, int | str], dict[float, str]] = {}
    cases = sorted(result["cases"], key=lambda case: OPERATIONS.index(case["stage"]))
    for case in cases:
        coder = case["stage"].startswith("entropy")
        speed = case["mega_symbols_per_second" if coder else "mega_places_per_second"]
        operation = f"{case['stage']}, {'Msymbols/s' if coder else rate}"
        rows.setdefault((operation, label(case, result), case["threads"]), {})[case["size"]] = f"{speed:.2f}"
    for case in cases:
        if case["stage"] == "encode" and case["bytes"]:
            bits = 8 * case["bytes"] / case["places"]
            rows.setdefault((per_place, label(case, result), ""), {})[case["size"]] = f"{bits:.4f}"
    header = ["operation", "codec", "threads", *(f"{size:g} {UNITS[result['kind']]}" for size in sizes)]
    cells = [[*map(str, row), *(found.get(size, "") for size in sizes)] for row, found in rows.items()]
    on, fewest = result["machine"], min(case["turns"] for case in result["cases"])
    turns = f"medians of {result['repeats']}"
    if fewest < result["repeats"]:
        turns += f", of {fewest} and more where a case took over {result['budget']:g} s"
    where = f"{on['processor']}, {on['threads']} threads, walloc_ref {result['version']}"
    about = f"{result['item']['name']}, model {result['model']}; {where}; {turns}"
    return about + "\n\n" + format_table(header, cells, markdown=True)


def label(case: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What a case ran, for people."""
    names = {KERNEL: result["model"], NARROW: f"{result['model']}, binary32"}
    if case["setting"] is None:
        return names.get(case["variant"]) or f"upstream, binary{case['variant'].split()[1]}"
    setting = "equal bytes" if case["equal_bytes"] else f"quality {case['setting']:g}"
    return f"{title(case['variant'])}, {setting}"


def sized(item: Item, size: float) -> Item:
    """An item cut, or continued by its mirror images, to so many megapixels or seconds."""
    samples = item.samples
    for axis, length in enumerate(_shape(item, size)):
        there = samples.shape[axis]
        at = np.arange(length) % (2 * there)
        samples = np.take(samples, np.minimum(at, 2 * there - 1 - at), axis=axis)
    return replace(item, samples=np.ascontiguousarray(samples))


def _shape(item: Item, size: float) -> tuple[int, ...]:
    """Rows and columns, or frames, of a size."""
    if not 0 < size < math.inf:  # NaN included
        raise BadSamples("--sizes", size, "numbers over 0")
    if item.kind == "audio":
        assert item.rate is not None
        shape: tuple[int, ...] = (max(1, round(size * item.rate)),)
    else:
        height, width = item.samples.shape[:2]
        rows = max(1, round(math.sqrt(size * 1e6 * height / width)))
        shape = (rows, max(1, round(size * 1e6 / rows)))
    samples = math.prod(shape) * math.prod(item.samples.shape[len(shape) :])
    if samples > MAX_SAMPLES:
        raise BadSamples("--sizes", f"{size:g}, which is {samples} samples", f"at most {MAX_SAMPLES} samples")
    return shape


def _our_cases(codec: Codec, item: Item, threads: Sequence[int]) -> Iterator[_Sized]:
    """The whole of our codec both ways, up to the symbols, and the entropy coder alone."""
    samples, rate, form = item.samples, item.rate, item.sample_format
    stream = codec.encode(samples, rate, sample_format=form)
    symbols = codec.symbols_of_samples(samples, rate, sample_format=form)

    def encode() -> Any:
        return codec.encode(samples, rate, sample_format=form)

    def to_symbols() -> Any:
        return codec.symbols_of_samples(samples, rate, sample_format=form)

    def decode() -> Any:
        return decode_stream(stream, codec=codec)

    def decode_narrow() -> Any:
        return decode_stream(stream, codec=codec, precision="binary32")

    for count in threads:
        stages = [("encode", KERNEL, encode), ("samples to symbols", KERNEL, to_symbols), ("decode", KERNEL, decode)]
        stages += [("decode", NARROW, decode_narrow)] if compiled() else []
        for stage, variant, work in stages:
            coded = len(stream) if stage in ("encode", "decode") else None
            yield _Sized(Case(stage, variant, count, work, item.places, symbols.size), coded)
        for case in coder_cases(codec, stream, symbols, item.places, count, KERNEL):
            yield _Sized(case)


def _cases_without_files(codec: Codec, item: Item, threads: Sequence[int]) -> Iterator[Case]:
    """What the upstream's stages are compared with: signals to symbols and back, and the decoder network alone."""
    config, model, coding = codec.config, codec.model, codec.coding()
    x = signal_of(codec, item)
    symbols = codec.to_symbols(x)
    latents = codec.stages.dequantise(symbols, config.latent_bits)
    variants = {KERNEL: codec} | ({NARROW: Codec(model, chosen("binary32"))} if compiled() else {})
    for count in threads:
        yield Case("signal to symbols", KERNEL, count, lambda: codec.to_symbols(x), item.places, symbols.size)
        for variant, decoding in variants.items():

            def network(functions: Any = decoding.stages) -> Any:
                return config.record.to_bands(latents, model, coding, functions)

            def whole(decoding: Codec = decoding) -> Any:
                return decoding.from_symbols(symbols)

            yield Case("decoder", variant, count, network, item.places, symbols.size)
            yield Case("symbols to signal", variant, count, whole, item.places, symbols.size)


class _Others:
    """The other codecs that are installed, and the settings that were found for them."""

    def __init__(self, codec: Codec, item: Item) -> None:
        self.codec, self.item = codec, item
        known = OTHER_CODECS[item.kind]
        self.installed = [known[name] for name in AGAINST[item.kind] if known[name].missing() is None]
        self.settings: dict[float, list[float | None]] = {}

    def cases(self, item: Item, size: float, threads: Sequence[int]) -> Iterator[_Sized]:
        """Both ways at the setting of equal bytes, and at `FIXED_SETTINGS`."""
        samples = _for_others(item)
        for other, equal in zip(self.installed, self._equal(min(size, SEARCHED[item.kind]))):
            counts = threads if other.name == "jxl" else (1,)
            for setting in () if equal is None else dict.fromkeys((equal, *FIXED_SETTINGS.get(other.name, ()))):
                try:
                    data = _on_threads(other, max(counts)).encode(samples, item.rate, setting)
                except REFUSALS:
                    continue
                for count in counts:
                    ways = _both_ways(_on_threads(other, count), data, samples, item.rate, setting, count)
                    for stage, work in ways.items():
                        case = Case(stage, other.name, count, work, item.places)
                        yield _Sized(case, len(data), setting, setting == equal)

    def _equal(self, size: float) -> list[float | None]:
        """The setting of each codec whose file of this size is nearest to ours in bytes."""
        if size not in self.settings:
            item = sized(self.item, size)
            samples, rate = _for_others(item), item.rate
            wanted = len(self.codec.encode(item.samples, rate, sample_format=item.sample_format))

            def setting_of(other: OtherCodec) -> float | None:
                try:
                    return nearest_size(functools.partial(other.encode, samples, rate), other.settings, wanted)[0]
                except REFUSALS:
                    return None

            self.settings[size] = [setting_of(other) for other in self.installed]
        return self.settings[size]


def _for_others(item: Item) -> NDArray:
    """The samples as the other codecs take them."""
    return unit_range(item.samples) if item.kind == "audio" else item.samples


def _on_threads(other: OtherCodec, count: int) -> OtherCodec:
    """The codec on so many threads, where it can be told."""
    if isinstance(other, ImageCodec) and other.name == "jxl":
        return replace(other, options={**other.options, "num_threads": count})
    return other


def _both_ways(
    other: OtherCodec, data: bytes, samples: NDArray, rate: int | None, setting: float, count: int
) -> dict[str, Callable[[], Any]]:
    """Encoding and decoding with another codec."""

    def decode() -> Any:
        with _decoding_threads(other, count):
            return other.decode(data, samples, rate)

    return {"encode": lambda: other.encode(samples, rate, setting), "decode": decode}


@contextlib.contextmanager
def _decoding_threads(other: OtherCodec, count: int) -> Iterator[None]:
    """JPEG XL's plugin takes its number of threads for decoding from a variable of its module."""
    if other.name != "jxl":
        yield
        return
    from pillow_jxl import JpegXLImagePlugin

    before, JpegXLImagePlugin.DECODE_THREADS = JpegXLImagePlugin.DECODE_THREADS, count
    try:
        yield
    finally:
        JpegXLImagePlugin.DECODE_THREADS = before
