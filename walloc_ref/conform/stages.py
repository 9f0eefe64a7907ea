"""Every stage of this package behind the interface that any other implementation has: files in, files out.

`Stages` adapts a table of functions, one small method a stage, so that a wrong implementation can be made of it by
replacing a function or a method. `Package` is what is installed: the functions that run, and whole
encodes and decodes through the public interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec, image
from walloc_ref import model as models
from walloc_ref.architecture import Symbols
from walloc_ref.conform.compare import read_array, read_slice, write_array
from walloc_ref.plain import PLAIN, Functions, chosen
from walloc_ref.stages import container, quantise, signal

Array = NDArray[np.float64]
Parameters = Mapping[str, str]


class Unsupported(Exception):
    """This implementation does not have that stage, or not for that kind of model."""


@dataclass(frozen=True)
class Stage:
    """A stage: what it does in words, and the method of `Stages` that does it."""

    text: str
    method: str


IMAGE_BLOCKS = {
    "decoder": ("conv_in", "mid.resnet0", "mid.attention", "mid.resnet1", "up.resnet0", "up.resnet1", "up.resnet2",
                "head"),
    "encoder": ("conv_in", "down.resnet0", "down.resnet1", "mid.resnet0", "mid.attention", "mid.resnet1", "head"),
}  # fmt: skip
"""Blocks of the image networks, in their order."""

AUDIO_BLOCKS = ("conv1", "block0", "block1", "head")
"""Blocks of the audio networks, in their order."""


def _blocks(network: str) -> dict[tuple[str, str], Stage]:
    """Stages for the blocks of "decoder" or "encoder"."""
    op = network[:-1]  # decode or encode
    names = (*IMAGE_BLOCKS[network][:-1], *AUDIO_BLOCKS)  # both kinds end with a head
    return {(op, f"{network}.{name}"): Stage(f"block {name} of the {network} network", "block") for name in names}


STAGES: dict[tuple[str, str], Stage] = {
    ("decode", "header"): Stage("reading the container's header", "decode_header"),
    ("decode", "slice"): Stage("decoding the payload of one slice to symbols", "decode_slice"),
    ("decode", "symbols"): Stage("decoding a whole stream to symbols", "decode_symbols"),
    ("decode", "dequantise"): Stage("symbols to latents, by the table of the dequantiser", "dequantise"),
    **_blocks("decoder"),
    ("decode", "network"): Stage("latents to subbands: the whole decoder network, or a projection", "network"),
    ("decode", "synthesis"): Stage("wavelet packet synthesis", "synthesis"),
    ("decode", "post"): Stage("the post filter of audio", "post"),
    ("decode", "clamp"): Stage("clamping the signal to [-0.5, 0.5]", "clamp"),
    ("decode", "crop"): Stage("cutting the padding off", "crop"),
    ("decode", "samples"): Stage("scaling and rounding the signal to samples", "decode_samples"),
    ("decode", "stream"): Stage("decoding a whole stream to samples", "decode_stream"),
    ("encode", "statistics"): Stage("mean and gain of audio, and of floats", "statistics"),
    ("encode", "signal"): Stage("samples to the signal", "encode_signal"),
    ("encode", "pad"): Stage("padding to a multiple of 2^J", "pad"),
    ("encode", "analysis"): Stage("wavelet packet analysis", "analysis"),
    **_blocks("encoder"),
    ("encode", "latents"): Stage("subbands to latents: a projection, or the whole encoder network", "latents"),
    ("encode", "compand"): Stage("companding the latents", "compand"),
    ("encode", "round"): Stage("rounding companded latents to symbols, ties to even", "round"),
    ("encode", "quantise"): Stage("latents to symbols: companding and rounding", "quantise"),
    ("encode", "residual"): Stage("subbands to the symbols of all stages of ResidualCodec2D", "residual"),
    ("encode", "symbols"): Stage("samples to symbols", "encode_symbols"),
    ("encode", "slice"): Stage("coding the symbols of one slice", "encode_slice"),
    ("encode", "stream"): Stage("encoding samples to a whole stream", "encode_stream"),
}
"""All stages by operation and name, in the order in which an error in one shows in the following ones."""

ORDER = {key: number for number, key in enumerate(STAGES)}
"""Place of each stage in that order."""


class Stages:
    """A table of functions behind that interface: an adapter from files to arrays and back.

    Every stage method takes what its input file holds, the model and the parameters, and returns what goes into the output
    file.

    Parameters
    ----------
    functions : plain.Functions
        The plain codec's, the fast one's, or one with something wrong.
    """

    def __init__(self, functions: Functions = PLAIN) -> None:
        self.functions = functions

    def perform(self, op: str, stage: str, model: Path | None, data: bytes, parameters: Parameters) -> bytes:
        """Run one case: the bytes of the input file to those of the output file.

        Raises
        ------
        WallocError
            The input is rejected.
        Unsupported
            There is no such stage.
        """
        if (op, stage) not in STAGES:
            raise Unsupported(f"{op} {stage}")
        method: Callable[..., object] = getattr(self, STAGES[op, stage].method)
        loaded = None if model is None else self.load(model)
        value: object = (
            data if op == "decode" and stage in ("header", "slice", "symbols", "stream") else read_array(data)
        )
        if STAGES[op, stage].method == "block":
            result = self.block(stage, value, loaded)  # type: ignore[arg-type]
        else:
            result = method(value, loaded, parameters)  # type: ignore[assignment]
        return self.written(result)

    def written(self, result: object) -> bytes:
        """The output file for a result."""
        if isinstance(result, bytes):
            return result
        if isinstance(result, dict):
            return json.dumps(result).encode()
        assert isinstance(result, np.ndarray)
        return write_array(result)

    def load(self, path: Path) -> models.Model:
        """The model in a weights file."""
        return _load(path, path.stat().st_mtime_ns if path.exists() else 0)

    # ---- decoding

    def read(self, data: bytes, model: models.Model | None) -> container.Stream:
        """The container, checked."""
        return container.read(data)

    def decode_header(self, data: bytes, model: models.Model | None, parameters: Parameters) -> dict[str, object]:
        """HEAD as a JSON object."""
        stream = self.read(data, model)
        fields = {key: value.hex() if isinstance(value, bytes) else value for key, value in vars(stream.header).items()}
        return fields | {"slices": len(stream.slices), "certified": stream.certificate is not None}

    def decode_slice(self, data: bytes, model: models.Model, parameters: Parameters) -> Symbols:
        """A `.slice` file to symbols."""
        shape, payload = read_slice(data, model.config.kind)
        return self.functions.decode_slice(payload, shape, model.tables)

    def symbols_of(self, stream: container.Stream, model: models.Model) -> Symbols:
        """All slices, checked against the model and the hash of the symbols."""
        header = stream.header
        self.check_header(header, model)
        parts = []
        for number, payload in enumerate(stream.slices):
            start, stop = header.slice_bounds(number)
            part = self.functions.decode_slice(payload, header.slice_shape(number), model.tables)
            parts.append(part.reshape(header.latent_dim, stop - start, *header.latent_sizes[1:]))
        symbols = np.concatenate(parts, axis=1)
        self.check_symbols(symbols, header)
        return symbols

    def check_header(self, header: container.Header, model: models.Model) -> None:
        """The stream's model is this one, and the header goes with it."""
        codec.check_header(header, model)

    def check_symbols(self, symbols: Symbols, header: container.Header) -> None:
        """The symbols are those that were hashed."""
        codec.check_symbols(symbols, header)

    def decode_symbols(self, data: bytes, model: models.Model, parameters: Parameters) -> Symbols:
        """A stream to symbols."""
        return self.symbols_of(self.read(data, model), model)

    def dequantise(self, symbols: Symbols, model: models.Model, parameters: Parameters) -> Array:
        """Symbols to latents."""
        latents, coding = self.functions.dequantise(symbols, model.config.latent_bits), coding_of(parameters)
        return latents if coding.step == 1 else latents * model.plane_steps(coding)

    def block(self, stage: str, x: Array, model: models.Model) -> Array:
        """One block of a network."""
        network, name = stage.split(".", 1)
        record = model.config.record
        if record.block is None:
            raise Unsupported(f"{stage} of {record.name}")
        return record.block(network, name, x, model.weights[network])

    def network(self, latents: Array, model: models.Model, parameters: Parameters) -> Array:
        """Latents to subbands."""
        return model.config.record.to_bands(latents, model, coding_of(parameters), self.functions)

    def synthesis(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to the signal."""
        return self.functions.synthesise(bands, model.config.J)

    def post(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The post filter."""
        return self.functions.post_filter(x, **model.weights["post"])

    def clamp(self, x: Array, model: models.Model | None, parameters: Parameters) -> Array:
        """The signal within its range."""
        return self.functions.clamp(x)

    def crop(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal without its padding."""
        sizes = tuple(int(n) for n in parameters["sizes"].split("x"))
        return x[:, : sizes[0]] if len(sizes) == 1 else self.functions.crop(x, sizes, model.config.multiple)

    def decode_samples(self, x: Array, model: models.Model, parameters: Parameters) -> NDArray:
        """The signal to samples."""
        x, form = signal.to_channels(x, int(parameters["channels"])), parameters["format"]
        mean, gain = _mean_and_gain(parameters)
        if model.config.kind == "audio":
            return self.functions.signal_to_audio(x, form, mean, gain)
        return self.functions.signal_to_image(x, image.DTYPES[form], mean, gain)

    def decode_stream(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray:
        """A stream to samples."""
        stream = self.read(data, model)
        symbols, header = self.symbols_of(stream, model), stream.header
        samples = self.functions.symbols_to_samples[header.kind](symbols, header, model, self.functions)
        codec.check_certificate(samples, stream)
        return codec.squeezed(samples)

    # ---- encoding

    def statistics(self, samples: NDArray, model: models.Model, parameters: Parameters) -> Array:
        """Mean and gain of audio, and of floats."""
        if model.config.kind != "audio":
            return np.array(signal.float_statistics(samples))
        return np.array(self.functions.audio_statistics(samples, parameters["format"]))

    def encode_signal(self, samples: NDArray, model: models.Model, parameters: Parameters) -> Array:
        """Samples to the signal, with as many channels as they have."""
        mean, gain = _mean_and_gain(parameters)
        if model.config.kind != "audio":
            edge = samples if samples.ndim == model.config.axes + 1 else samples[..., None]
            return self.functions.image_to_signal(edge, mean, gain)
        return self.functions.audio_to_signal(samples, parameters["format"], mean, gain)

    def pad(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal with its padding."""
        pad = signal.pad_end if model.config.kind == "audio" else self.functions.pad
        return pad(x, model.config.multiple)

    def analysis(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal to subbands."""
        return self.functions.analyse(x, model.config.J)

    def latents(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to latents."""
        if model.config.record.in_stages:
            raise Unsupported(f"latents of {model.config.architecture}")
        return model.config.record.to_latents(bands, model, coding_of(parameters), self.functions)

    def compand(self, latents: Array, model: models.Model, parameters: Parameters) -> Array:
        """Latents to companded latents."""
        return quantise.compand(latents, model.config.latent_bits)

    def round(self, companded: Array, model: models.Model, parameters: Parameters) -> Symbols:
        """Companded latents to symbols."""
        return quantise.round_to_symbols(companded)

    def quantise(self, latents: Array, model: models.Model, parameters: Parameters) -> Symbols:
        """Latents to symbols."""
        coding = coding_of(parameters)  # with step 1, vectors of the quantiser alone may have any number of planes
        latents = latents if coding.step == 1 else latents / model.plane_steps(coding)
        return self.functions.quantise(latents, model.config.latent_bits)

    def residual(self, bands: Array, model: models.Model, parameters: Parameters) -> Symbols:
        """Subbands to the symbols of all stages."""
        if not model.config.record.in_stages:
            raise Unsupported(f"residual of {model.config.architecture}")
        latents = model.config.record.to_latents(bands, model, coding_of(parameters), self.functions)
        return self.quantise(latents, model, parameters)

    def encode_symbols(self, samples: NDArray, model: models.Model, parameters: Parameters) -> Symbols:
        """Samples to symbols."""
        samples, layout = self.describe(samples, model, parameters)
        return self.functions.samples_to_symbols[layout.kind](samples, layout, model, self.functions)

    def describe(
        self, samples: NDArray, model: models.Model, parameters: Parameters
    ) -> tuple[NDArray, container.Layout]:
        """Check samples, and add an axis of channels; what they are like, and how they are to be coded."""
        rate = int(parameters["rate"]) if "rate" in parameters else None
        kind = codec.KINDS[model.config.kind]
        samples, layout = kind.describe(samples, model.config, rate, parameters.get("format"))
        return samples, replace(layout, **asdict(coding_of(parameters)))

    def encode_slice(self, symbols: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Symbols to the payload of a slice."""
        return self.functions.encode_slice(symbols, model.tables)

    def encode_stream(self, samples: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Samples to a stream."""
        samples, layout = self.describe(samples, model, parameters)
        symbols = self.functions.samples_to_symbols[layout.kind](samples, layout, model, self.functions)
        return container.write(codec.Codec(model, self.functions).coded(symbols, layout))


class Package(Stages):
    """What is installed, whole encodes and decodes through the public interface; streams to samples in a precision."""

    def __init__(self, precision: str = "binary64") -> None:
        super().__init__(chosen())
        self.precision = precision

    def decode_symbols(self, data: bytes, model: models.Model, parameters: Parameters) -> Symbols:
        """A stream to symbols."""
        return codec.decode_symbols(data, codec=codec.Codec(model))

    def decode_stream(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray:
        """A stream to samples."""
        return codec.decode(data, codec=codec.Codec(model), precision=self.precision)

    def encode_stream(self, samples: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Samples to a stream; by its parts where a case names steps or windows, some of which `encode` chooses itself."""
        if coding_of(parameters) != container.Coding():
            return super().encode_stream(samples, model, parameters)
        rate = int(parameters["rate"]) if "rate" in parameters else None
        return codec.Codec(model).encode(samples, rate, sample_format=parameters.get("format"))


def coding_of(parameters: Parameters) -> container.Coding:
    """The step and the windows that a case names; 1 and none where it names none."""
    return container.Coding(
        step=float(parameters.get("step", "1")),
        weighted=parameters.get("weighted", "0") == "1",
        window=int(parameters.get("window", "0")),
        context=int(parameters.get("context", "0")),
    )


def _mean_and_gain(parameters: Parameters) -> tuple[float, float]:
    """What a case names, or what leaves a signal as it is."""
    return float(parameters.get("mean", "0")), float(parameters.get("gain", "1"))


@lru_cache(maxsize=32)
def _load(path: Path, changed: int) -> models.Model:
    """The model in a weights file, kept while the file does not change."""
    return models.load(path)
