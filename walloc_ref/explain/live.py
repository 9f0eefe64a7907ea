"""The part of the page that computes by itself: the suite's decoder in JavaScript, with a part of the file to play with.

A matrix decodes within a page at once, a network does not, so that the page's decoder is always a matrix: the model's own,
where it is linear, else the one that belongs to its encoder (`measure.linear_decoder`). Symbols and bytes are the same for
both. What is embedded is a *part* of the file, small enough to be decoded while a finger moves, coded anew by Python in
a few slices; and the SHA-256 of what Python decodes it to by the same matrix, which the page compares with what it finds.

Scripts stand in files of their own and are inlined as text, which the page makes modules of: `decoder.mjs` of the
conformance suite, `encoder.mjs` and `live.mjs` beside this module. Nothing is asked for over a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec as codecs
from walloc_ref import image
from walloc_ref.architecture import Samples, Symbols
from walloc_ref.codec import Codec
from walloc_ref.conform import suite
from walloc_ref.measure import linear_decoder
from walloc_ref.model import Model
from walloc_ref.stages import container, projection, signal
from walloc_ref.stages.container import Header, Layout

SIZES = {"image": (256, 256), "audio": (1 << 16,), "volume": (24, 64, 64)}
"""Largest part that is embedded, in samples along each axis."""

MAX_SYMBOLS = 49152
"""Most symbols of the part: what a page decodes in about a tenth of a second."""

MAX_BYTES = 800_000
"""Most bytes of matrices, entropy tables and samples together; base64 makes a third more of them."""

MAX_SAMPLE_BYTES = 360_000
"""Most bytes of the part's samples, whatever the model leaves."""

MIN_SAMPLE_BYTES = 60_000
"""Fewest bytes that a model has to leave for samples."""

SLICES = 4
"""Slices of the part, so that damage to one leaves others whole."""

SCRIPTS = ("encoder.mjs", "live.mjs")
"""Modules beside this one, after the suite's decoder, each of which may import those before it."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Matrices of a codec whose decoder is linear: tensors by the names of `LinearCodec2D` or `ResidualCodec2D`, float32.

    Attributes
    ----------
    tensors : mapping
    own : bool
        Whether they are the model's own, and not those that belong to its encoder.
    """

    tensors: dict[str, NDArray[np.float32]]
    own: bool


def section(data: bytes, model: Model, original: Samples | None = None) -> str:
    """The section, style and scripts included.

    Parameters
    ----------
    data : bytes
        A stream.
    model : Model
        Its model.
    original : array, optional
        The samples that were encoded, all of them. Without them the decoded ones stand in.

    Raises
    ------
    WallocError
        A stream that cannot be decoded.
    """
    found = linear(model)
    reason = why_not(model, found)
    if found is None or reason:
        return f'<section id="live">\n<h2>Try it</h2>\n<p>{reason}</p>\n</section>'
    content = embedded(data, model, found, original)
    texts = [("decoder.mjs", (suite.default_folder() / "examples" / "decoder.mjs").read_text("utf-8"))]
    texts += [(name, _part(name)) for name in SCRIPTS]
    scripts = "\n".join(
        f'<script type="text/plain" data-module="{name}">\n{_inline(text)}</script>' for name, text in texts
    )
    state = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no end of the element, no comment
    return f"""<section id="live">
<style>
{_part("live.css")}</style>
{_part("live.html")}
<script type="application/json" data-live>{state}</script>
{scripts}
<script type="module">
{_inline(_part("live-start.mjs"))}</script>
</section>"""


def _part(name: str) -> str:
    """A file that stands beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _inline(text: str) -> str:
    """A script as it may stand in HTML."""
    if "</script" in text or "<!--" in text:
        raise ValueError("a script that ends the element it stands in")
    return text


# ---- the model


def linear(model: Model) -> Linear | None:
    """The matrices of a model's linear codec; None where its encoder is a network."""
    config = model.config
    names = [name for name in model.tensors if name.startswith(("encoder", "decoder"))]
    if config.architecture.startswith("LinearCodec") or config.record.in_stages:
        return Linear({name: model.tensors[name] for name in names}, own=True)
    if not config.lightweight_encode:
        return None
    decoder = linear_decoder.matrix(model).astype(np.float32)  # [K, D]
    encoder = {name: model.tensors[name] for name in ("encoder.0.weight", "encoder.0.bias")}
    bias = -(decoder.astype(np.float64) @ encoder["encoder.0.bias"].astype(np.float64))
    return Linear({**encoder, "decoder.1.weight": decoder, "decoder.1.bias": bias.astype(np.float32)}, own=False)


def why_not(model: Model, found: Linear | None) -> str:
    """Why a model cannot be taken along in a page; empty if it can."""
    if found is None:
        return (
            "The encoder of this model is a network, and a page encodes by a matrix only: there is nothing to play with "
            "here. The bundled models, whose encoders are matrices, have it."
        )
    if model_bytes(model, found) > MAX_BYTES - max(MIN_SAMPLE_BYTES, 8 * model.config.bands):  # one position in f64
        size = model_bytes(model, found)
        return f"The matrices and tables of this model have {size} bytes, too many to take along in a page."
    return ""


def model_bytes(model: Model, found: Linear) -> int:
    """Bytes of matrices and entropy tables."""
    return sum(tensor.nbytes for tensor in found.tensors.values()) + len(model.tables.to_bytes())


# ---- the part


def embedded(data: bytes, model: Model, found: Linear, original: Samples | None) -> dict[str, Any]:
    """What the page knows, ready for JSON; arrays in base64."""
    codec, header = Codec(model), container.read(data).header
    symbols = codecs.decode_symbols(data, codec=codec)
    whole = codecs.decode_stream(data, codec=codec).samples if original is None else np.asarray(original)
    whole = whole.reshape(*header.sizes, -1)
    room = min(MAX_SAMPLE_BYTES, MAX_BYTES - model_bytes(model, found))
    window = part(symbols, header, room // (whole.itemsize * whole.shape[-1]))
    samples = np.ascontiguousarray(whole[window])
    stream = coded(codec, samples, header)
    layout = container.read(stream).header
    symbols = codecs.decode_symbols(stream, codec=codec)
    decoded = decode(symbols, layout, model, found)
    config = model.config
    known = {name: value for name, value in asdict(config).items() if name in {"architecture", *config.record.fields}}
    return {
        "name": model.name,
        "config": known,
        "own": found.own,
        "original": original is not None,
        "identity": model.model_id,
        "tables": _base64(model.tables.to_bytes()),
        "weights": _base64(model.weights_of_steps.tobytes()),
        "tensors": {name: _base64(np.ascontiguousarray(t, "<f4").tobytes()) for name, t in found.tensors.items()},
        "weighs": model.step_weights is not None,
        "stream": _base64(stream),
        "samples": _base64(samples.astype(samples.dtype.newbyteorder("<")).tobytes()),
        "from": [window[axis].start for axis in range(len(window))],
        "whole": list(header.sizes),
        "sha256": hashlib.sha256(decoded.astype(decoded.dtype.newbyteorder("<")).tobytes()).hexdigest(),
        "psnr": _psnr(samples, codecs.decode_stream(stream, codec=codec).samples.reshape(samples.shape), layout),
    }


def part(symbols: Symbols, header: Header, room: int) -> tuple[slice, ...]:
    """Where the part of at most `room` pixels lies, in samples: where the most symbols of its size are not 0."""
    multiple, border = 1 << header.J, container.BORDER_OF_KIND[header.kind] // 2
    most = min(MAX_SYMBOLS // header.latent_dim, room // multiple ** len(header.sizes))
    limits = zip(SIZES[header.kind], header.sizes)
    positions = [-(-size // multiple) if size <= limit else max(1, limit // multiple) for limit, size in limits]
    while math.prod(positions) > max(1, most):
        positions[int(np.argmax(positions))] -= 1
    busy = np.count_nonzero(symbols, axis=0).astype(np.int64)
    if border:
        busy = busy[border:-border]
    before = [0 if border else signal.padding_before(size, multiple) for size in header.sizes]
    for axis, length in enumerate(positions):  # sums over windows, an axis at a time
        sums = np.cumsum(np.insert(busy, 0, 0, axis=axis), axis=axis)
        span = busy.shape[axis] - length + 1
        busy = np.take(sums, range(length, length + span), axis) - np.take(sums, range(span), axis)
    corner = np.unravel_index(int(np.argmax(busy)), busy.shape)
    window = []
    for at, length, first, size in zip(corner, positions, before, header.sizes):
        extent = min(size, length * multiple)
        start = min(max(0, int(at) * multiple - first), size - extent)
        window.append(slice(start, start + extent))
    return tuple(window)


def coded(codec: Codec, samples: Samples, header: Header) -> bytes:
    """The part as a stream of its own, in a few slices, with the step of the whole."""
    extras: dict[str, Any] = {}
    if header.kind == "audio":
        extras = {"rate": header.rate, "sample_format": header.sample_format}
    stream = codec.encode(samples, **extras, step=header.step)
    symbols, head = codecs.decode_symbols(stream, codec=codec), container.read(stream).header
    head = replace(head, slice_size=-(-head.latent_sizes[0] // SLICES))
    slices = []
    for number in range(head.slice_count):
        own = symbols[:, slice(*head.slice_bounds(number))].reshape(head.slice_shape(number))
        slices.append(codec.stages.encode_slice(own, codec.model.tables))
    return container.write(container.Stream(head, tuple(slices)))


def decode(symbols: Symbols, layout: Layout, model: Model, found: Linear) -> Samples:
    """Samples by the matrices alone: (H, W, C′), (frames, C′) or (Z, H, W, C′)."""
    config, functions = model.config, Codec(model).stages
    if found.own:
        return functions.symbols_to_samples[layout.kind](symbols, layout, model, functions)
    weight, bias = (found.tensors[f"decoder.1.{name}"].astype(np.float64) for name in ("weight", "bias"))
    latents = functions.dequantise(symbols, config.latent_bits) * model.plane_steps(layout)
    if layout.kind == "audio":
        latents = latents[:, projection.BORDER : -projection.BORDER]
    x = functions.clamp(functions.synthesise(projection.project(latents, weight, bias), config.J))
    if layout.kind == "audio":
        x = signal.to_channels(x[:, : layout.sizes[0]], layout.channels)
        return functions.signal_to_audio(x, layout.sample_format, layout.mean, layout.gain)
    x = signal.to_channels(functions.crop(x, layout.sizes, config.multiple), layout.channels)
    return functions.signal_to_image(x, image.DTYPES[layout.sample_format], layout.mean, layout.gain)


def _psnr(samples: Samples, decoded: Samples, layout: Layout) -> float | None:
    """In decibels, over the range of the signal; None where nothing differs."""
    full = {"u8": 255.0, "u16": 65535.0, "s16": 65535.0, "f32": layout.gain}.get(layout.sample_format, 1.0)
    if layout.kind == "audio":
        full = layout.gain * signal.AUDIO_FORMATS[layout.sample_format].full_scale
    error = float(np.mean(np.square((samples.astype(np.float64) - decoded) / (full or 1.0))))
    return -10 * math.log10(error) if error else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
