"""Benchmarks: every stage alone and the whole codec, in one process, clear definition beside kernel. No part of the codec.

All variants of all stages are run once to warm up and then in turns, in an order that rotates, so that a machine that slows
down slows all of them; the median of the turns counts. Three surprises:

1. The clear definitions run on a part of the input, because some take a thousand times as long. Rates compare, times do
   not; the table says the size.
2. One thread means one everywhere: for our workers, for BLAS, for PyTorch.
3. Peak memory is that of a new process which does one thing. Where the system tells it, it is the peak since the process
   started its own program (VmHWM): the better known ru_maxrss begins with the size of the process that started it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import walloc_ref
from walloc_ref.codec import Codec, decode_stream, load_model
from walloc_ref.errors import BadSamples
from walloc_ref.fast.workers import THREADS_VARIABLE, Progress
from walloc_ref.measure.evaluate import Item, fitting, format_table, machine
from walloc_ref.model import Model
from walloc_ref.plain import PLAIN
from walloc_ref.stages import signal
from walloc_ref.stages.container import read

FORMAT = "walloc_ref.measure.bench 1"
"""Layout of the result: see `run`."""

PART = 128
"""Side of the image that the clear definitions run on; audio: the square of it in frames."""

CLEAR, KERNEL, UPSTREAM = "plain", "fast", "upstream"
"""Variants: the plain codec, the one that runs, and PyTorch (with its number of bits)."""


@dataclass(frozen=True, eq=False)
class Case:
    """One stage in one variant on so many threads; what it handles, in pixels (samples of audio) and symbols."""

    stage: str
    variant: str
    threads: int
    work: Callable[[], Any]
    places: int
    symbols: int = 0


def run(
    codec: Codec,
    item: Item,
    *,
    threads: Sequence[int] = (1,),
    repeats: int = 5,
    clear: bool = True,
    against_torch: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time every stage.

    Parameters
    ----------
    codec : Codec
    item : Item
        An image or a clip, of the model's kind.
    threads : sequence of int
        Numbers of threads to run on.
    repeats : int
        Timed turns.
    clear : bool
        The clear definitions, too.
    against_torch : bool
        The upstream's PyTorch model, too, in binary32 and binary64.
    progress : callable, optional
        Called with the share of the turns that is done.

    Returns
    -------
    dict, ready for JSON
        "format", "version", "machine", "model", "kind", "item" (name, shape), "repeats", and "cases": "stage",
        "variant", "threads", "seconds" (median), "fastest", "slowest", "places" (pixels or samples), "symbols",
        "mega_places_per_second", "mega_symbols_per_second".

    Raises
    ------
    BadSamples
        Input that the model does not take, or no PyTorch where it is asked for.
    """
    if item.kind != codec.config.kind:
        raise BadSamples("bench", f"{item.kind} for the model {codec.name}", f"{codec.config.kind}")
    if codec.config.kind == "image":
        item = Item(item.name, fitting(item.samples, codec))
    cases: list[Case] = []
    for count in threads:
        cases += list(_table_cases(codec, item, count, KERNEL))
    if clear:
        cases += list(_table_cases(Codec(codec.model, PLAIN), _part(item), 1, CLEAR))
    for bits in (32, 64) if against_torch else ():
        for count in threads:
            cases += list(upstream_cases(codec, item, count, bits))
    seconds = in_turns(cases, repeats, progress=progress)
    return {
        "format": FORMAT,
        "version": walloc_ref.__version__,
        "machine": machine(),
        "model": codec.name,
        "kind": codec.config.kind,
        "item": {"name": item.name, "shape": list(item.samples.shape)},
        "repeats": repeats,
        "cases": [report(case, taken) for case, taken in zip(cases, seconds)],
    }


def in_turns(
    cases: Sequence[Case], repeats: int, *, budget: float = math.inf, progress: Progress | None = None
) -> list[list[float]]:
    """The seconds of each case: all are run in turns, in an order that rotates.

    The first turn warms up and counts only for a case that has no other: none is begun again once it took `budget`
    seconds in all.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    for turn in range(repeats + 1):
        for step in range(len(cases)):
            number = (step + turn) % len(cases)
            if sum(seconds[number]) < budget:
                with limited(cases[number].threads):
                    started = time.perf_counter()
                    cases[number].work()
                    seconds[number].append(time.perf_counter() - started)
            if progress is not None:
                progress((turn * len(cases) + step + 1) / ((repeats + 1) * len(cases)))
    return [taken[1:] or taken for taken in seconds]


def table(result: Mapping[str, Any]) -> str:
    """A result for a terminal; the last column compares with the upstream in binary32 on as many threads."""
    cases = result["cases"]
    baseline = {(c["stage"], c["threads"]): c for c in cases if c["variant"] == f"{UPSTREAM} 32"}
    unit = "MS/s" if result["kind"] == "audio" else "MP/s"
    stages = list(dict.fromkeys(c["stage"] for c in cases))
    rows = []
    for case in sorted(
        cases, key=lambda c: (stages.index(c["stage"]), c["variant"] != KERNEL, c["variant"], c["threads"])
    ):
        other = baseline.get((case["stage"], case["threads"]))
        relative = ""
        if other is not None and other is not case:
            relative = f"{case['mega_places_per_second'] / other['mega_places_per_second']:.2f}"
        symbols = case["mega_symbols_per_second"]
        rows.append(
            [
                case["stage"],
                case["variant"],
                str(case["threads"]),
                f"{1000 * case['seconds']:.1f}",
                f"{1000 * case['fastest']:.1f}",
                f"{case['places'] / 1e6:.3f}",
                f"{case['mega_places_per_second']:.3f}",
                "" if symbols is None else f"{symbols:.3f}",
                relative,
            ]
        )
    header = ["stage", "variant", "threads", "ms", "fastest", unit[:2], unit, "Msymbols/s", "x upstream 32"]
    first, second = result["item"]["shape"][:2]
    shape = f"{first} frames of {second}" if result["kind"] == "audio" else f"{second}x{first}"
    text = f"{result['item']['name']}, {shape}, model {result['model']}, median of {result['repeats']}\n\n"
    return text + format_table(header if baseline else header[:-1], rows if baseline else [row[:-1] for row in rows])


def peak_memory(model: str | os.PathLike[str], item: Item, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Peak memory of a process that encodes, and of one that decodes, an input of this size.

    Parameters
    ----------
    model : str or path
        As `load_model` takes it.
    item : Item
        What is repeated, or cut, to the size.
    sizes : tuple of int
        (height, width) or (frames,).

    Returns
    -------
    dict
        "sizes", "raw_bytes", "stream_bytes"; "encode" and "decode": "before" (bytes in use when package and model were
        loaded, nothing more), "peak" (bytes), "seconds".
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    name = os.fspath(model)

    def alone(work: Callable[..., Any], *arguments: Any) -> Any:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()

    stream, raw_bytes, encode = alone(_encode_alone, name, item, sizes)
    decode = alone(_decode_alone, name, stream)
    return {
        "sizes": list(sizes),
        "raw_bytes": raw_bytes,
        "stream_bytes": len(stream),
        "encode": encode,
        "decode": decode,
    }


def _encode_alone(model: str, item: Item, sizes: tuple[int, ...]) -> tuple[bytes, int, dict[str, float]]:
    """In a process of its own: a stream, the bytes of the samples, and what encoding took."""
    codec = load_model(model)
    before = _peak_bytes()
    samples = item.samples
    for axis, size in enumerate(sizes):
        samples = np.take(samples, np.arange(size) % samples.shape[axis], axis=axis)
    started = time.perf_counter()
    stream = codec.encode(samples, item.rate, sample_format=item.sample_format)
    taken = time.perf_counter() - started
    return stream, samples.nbytes, {"before": before, "peak": _peak_bytes(), "seconds": taken}


def _decode_alone(model: str, stream: bytes) -> dict[str, float]:
    """In a process of its own: what decoding took."""
    codec = load_model(model)
    before = _peak_bytes()
    started = time.perf_counter()
    decode_stream(stream, codec=codec)
    return {"before": before, "peak": _peak_bytes(), "seconds": time.perf_counter() - started}


def _peak_bytes() -> int:
    """The most memory that this process has had in use."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:  # Windows
        raise BadSamples("bench --memory", sys.platform, "a system that tells a process's peak memory") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def limited(count: int) -> Iterator[None]:
    """So many threads for workers and BLAS, and for PyTorch where it is loaded."""
    from threadpoolctl import threadpool_limits

    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = str(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


def report(case: Case, seconds: Sequence[float]) -> dict[str, Any]:
    """A case and its times."""
    middle = median(seconds)
    return {
        "stage": case.stage,
        "variant": case.variant,
        "threads": case.threads,
        "seconds": middle,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "places": case.places,
        "symbols": case.symbols or None,
        "mega_places_per_second": case.places / middle / 1e6,
        "mega_symbols_per_second": case.symbols / middle / 1e6 if case.symbols else None,
    }


def _part(item: Item) -> Item:
    """The part that the clear definitions run on."""
    if item.kind == "audio":
        return Item(item.name, item.samples[: PART * PART], item.rate, item.sample_format)
    return Item(item.name, item.samples[:PART, :PART])


def signal_of(codec: Codec, item: Item) -> NDArray[np.float64]:
    """The signal (C, H, W) or (C, L) of an item, padded."""
    if item.kind == "image":
        samples = item.samples if item.samples.ndim == 3 else item.samples[:, :, None]
        x = signal.image_to_signal(samples)
        x = np.ascontiguousarray(np.broadcast_to(x, (codec.config.channels, *x.shape[1:])))
        return signal.pad(x, codec.config.multiple)
    x = np.moveaxis(item.samples.astype(np.float64), -1, 0)
    x = x - x.mean()
    x /= 2 * (np.abs(x).max() or 1.0)
    return np.pad(x, ((0, 0), (0, -x.shape[1] % codec.config.multiple)))


def _table_cases(codec: Codec, item: Item, count: int, variant: str) -> Iterator[Case]:
    """Every stage of a codec, by its table of functions, and the whole of it."""
    config, model, functions = codec.config, codec.model, codec.stages
    x = signal_of(codec, item)
    bands = functions.analyse(x, config.J)
    stream = codec.encode(item.samples, item.rate, sample_format=item.sample_format)
    symbols = codec.to_symbols(x)
    latents = functions.dequantise(symbols, config.latent_bits)
    places, total = item.places, symbols.size
    coding = codec.coding()

    def case(stage: str, work: Callable[[], Any], symbols: int = 0) -> Case:
        return Case(stage, variant, count, work, places, symbols)

    if count == 1:
        yield case("analysis", lambda: functions.analyse(x, config.J))
        yield case("synthesis", lambda: functions.synthesise(bands, config.J))
        yield case("dequantiser", lambda: functions.dequantise(symbols, config.latent_bits), total)
    if codec.config.encodes_by_projection:
        encoder = model.weights["encoder"]
        companded = functions.project(bands, **encoder)
        yield case("projection", lambda: functions.project(bands, **encoder), total)
        if count == 1:
            yield case("quantiser", lambda: functions.quantise(companded, config.latent_bits), total)
    yield case("signal to symbols", lambda: codec.to_symbols(x), total)
    yield from coder_cases(codec, stream, symbols, places, count, variant)
    yield case("decoder", lambda: config.record.to_bands(latents, model, coding, functions), total)
    yield case("symbols to signal", lambda: codec.from_symbols(symbols), total)
    yield case("encode", lambda: codec.encode(item.samples, item.rate, sample_format=item.sample_format), total)
    yield case("decode", lambda: decode_stream(stream, codec=codec), total)


def coder_cases(
    codec: Codec, stream: bytes, symbols: NDArray[np.int16], places: int, count: int, variant: str
) -> Iterator[Case]:
    """The entropy coder, both ways, on the slices of a stream and its symbols."""
    functions, tables, parsed = codec.stages, codec.model.tables, read(stream)
    header, slices = parsed.header, parsed.slices
    numbers = range(header.slice_count)
    shapes = [header.slice_shape(i) for i in numbers]
    parts = [symbols[:, slice(*header.slice_bounds(i))].reshape(shapes[i]) for i in numbers]

    def encode_slice(number: int) -> bytes:
        return functions.encode_slice(parts[number], tables)

    def decode_slice(number: int) -> NDArray[np.int16]:
        return functions.decode_slice(slices[number], shapes[number], tables)

    encode, decode = (lambda: functions.each(encode_slice, numbers)), (lambda: functions.each(decode_slice, numbers))
    yield Case("entropy encode", variant, count, encode, places, symbols.size)
    yield Case("entropy decode", variant, count, decode, places, symbols.size)


def upstream_cases(codec: Codec, item: Item, count: int, bits: int) -> Iterator[Case]:
    """The PyTorch model's stages; its entropy coder is a lossless WebP of the tiled symbols."""
    torch, module, upstream = _upstream(codec.model, bits)
    config = codec.config
    x = torch.tensor(signal_of(codec, item)[None], dtype=torch.float32 if bits == 32 else torch.float64)
    total = int(np.prod(codec.to_symbols(signal_of(codec, item)).shape))

    def case(stage: str, work: Callable[[], Any], symbols: int = 0) -> Case:
        def without_gradients() -> Any:
            with torch.no_grad():
                return work()

        return Case(stage, f"{UPSTREAM} {bits}", count, without_gradients, item.places, symbols)

    with torch.no_grad():
        bands = module.wavelet_analysis(x, config.J)
        symbols = module.encoder(bands)
        received = module.decoder(symbols)

    def synthesise(y: Any) -> Any:
        y = module.wavelet_synthesis(y, config.J)
        return module.clamp(module.post(y) if config.post_filter else y)

    yield case("analysis", lambda: module.wavelet_analysis(x, config.J))
    yield case("signal to symbols", lambda: module.encoder(module.wavelet_analysis(x, config.J)), total)
    yield case("decoder", lambda: module.decoder(symbols), total)
    yield case("synthesis", lambda: module.wavelet_synthesis(received, config.J))
    yield case("symbols to signal", lambda: synthesise(module.decoder(symbols)), total)
    side = round((config.latent_dim / 3) ** 0.5)
    if config.kind != "image" or 3 * side * side != config.latent_dim:
        return

    def to_webp(latents: Any) -> bytes:
        import io

        out = io.BytesIO()
        upstream.latent_to_pil(latents, config.latent_bits, 3)[0].save(out, "WEBP", lossless=True)
        return out.getvalue()

    def from_webp(data: bytes) -> Any:
        import io

        from PIL import Image

        return upstream.pil_to_latent([Image.open(io.BytesIO(data))], config.latent_dim, config.latent_bits, 3).to(
            x.dtype
        )

    tiles = to_webp(symbols)
    yield case("entropy encode", lambda: to_webp(symbols), total)
    yield case("entropy decode", lambda: from_webp(tiles), total)
    yield case("encode", lambda: to_webp(module.encoder(module.wavelet_analysis(x, config.J))), total)
    yield case("decode", lambda: synthesise(module.decoder(from_webp(tiles))), total)


def _upstream(model: Model, bits: int) -> tuple[Any, Any, Any]:
    """torch, the upstream's module with this model's weights, and the upstream's Python module."""
    from walloc_ref.measure import upstream

    if model.config.record.in_stages:
        raise BadSamples(
            "bench --against-torch", model.config.architecture, "an architecture of one encoder and decoder"
        )
    try:
        torch, module = upstream.load()
    except ImportError as error:
        raise BadSamples(
            "bench --against-torch",
            error.name,
            "the upstream: pip install torch walloc==1.2.1 PyWavelets pytorch-wavelets",
        ) from error
    return torch, upstream.build(model, bits), module
