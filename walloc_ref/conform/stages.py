"""Every stage of this package behind the interface that any other implementation has: files in, files out.

`Definitions` strings the clear definitions together, one small method a stage, so that a wrong implementation can be made
of it by replacing one of them. `Package` is what is installed: the same stages, with kernels where there are some, and
whole encodes and decodes through the public interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from walloc_ref import audio_codec, codec, image_codec
from walloc_ref import model as models
from walloc_ref.conform.compare import read_array, read_slice, write_array
from walloc_ref.errors import BadSamples, HashMismatch, MalformedStream, UnknownModel
from walloc_ref.fast.workers import compiled
from walloc_ref.stages import autoencoder_kl, container, entropy, oobleck, projection, quantise, signal, wavelet

Array = NDArray[np.float64]
Parameters = Mapping[str, str]


class Unsupported(Exception):
    """This implementation does not have that stage, or not for that kind of model."""


@dataclass(frozen=True)
class Stage:
    """A stage: what it does in words, and the method of `Definitions` that does it."""

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
    ("encode", "statistics"): Stage("mean and gain of audio", "statistics"),
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


class Definitions:
    """The clear definitions, strung together.

    Every stage method takes what its input file holds, the model and the parameters, and returns what goes into the output
    file.
    """

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

    def decode_slice(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """A `.slice` file to symbols."""
        shape, payload = read_slice(data)
        return self.decode_payload(payload, shape, model)

    def decode_payload(self, payload: bytes, shape: tuple[int, int, int], model: models.Model) -> NDArray[np.int16]:
        """A payload to symbols (D, h, w)."""
        if compiled():
            from walloc_ref.fast import entropy as kernel

            return kernel.decode(payload, shape, model.tables)
        return entropy.decode(payload, shape, model.tables)

    def symbols_of(self, stream: container.Stream, model: models.Model) -> NDArray[np.int16]:
        """All slices, checked against the model and the hash of the symbols."""
        header, config = stream.header, model.config
        self.check_model(header, model)
        for name, found, wanted in (
            ("HEAD.kind", header.kind, config.kind),
            ("HEAD.J", header.J, config.J),
            ("HEAD.latent_dim", header.latent_dim, config.planes),
            ("HEAD.latent_bits", header.latent_bits, config.latent_bits),
        ):
            if found != wanted:
                raise MalformedStream(name, found, f"{wanted}, as in the model")
        if header.channels not in (1, config.channels):
            raise BadSamples("channels", header.channels, f"{config.channels}, or 1")
        parts = []
        for number, payload in enumerate(stream.slices):
            first, end = header.slice_bounds(number)
            across = header.latent_sizes[1:] if header.kind == "image" else (1,)
            rows, columns = (end - first, *across) if header.kind == "image" else (1, end - first)
            part = self.decode_payload(payload, (header.latent_dim, rows, columns), model)
            parts.append(part if header.kind == "image" else part[:, 0])
        symbols = np.concatenate(parts, axis=1)
        self.check_hash(symbols, header)
        return symbols

    def check_model(self, header: container.Header, model: models.Model) -> None:
        """The stream's model is this one."""
        if not bytes.fromhex(model.model_id).startswith(header.model_id):
            raise UnknownModel("model identity", model.model_id, f"{header.model_id.hex()}…")

    def check_hash(self, symbols: NDArray[np.int16], header: container.Header) -> None:
        """The symbols are those that were hashed."""
        found = container.symbol_hash(symbols)
        if found != header.symbol_hash:
            raise HashMismatch("HEAD.symbol_hash", found.hex(), header.symbol_hash.hex())

    def decode_symbols(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """A stream to symbols."""
        return self.symbols_of(self.read(data, model), model)

    def dequantise(self, symbols: NDArray, model: models.Model, parameters: Parameters) -> Array:
        """Symbols to latents."""
        return quantise.dequantise(symbols, model.config.latent_bits)

    def block(self, stage: str, x: Array, model: models.Model) -> Array:
        """One block of a network."""
        network, name = stage.split(".", 1)
        if model.config.architecture not in ("Codec2D", "Codec1D"):
            raise Unsupported(f"{stage} of {model.config.architecture}")
        prefix = "decoder.1." if network == "decoder" else "encoder.0."
        if model.config.kind == "audio":
            return self.audio_block(network, name, x, oobleck.load(model.tensors, prefix))
        return self.image_block(network, name, x, _image_weights(model, prefix))

    def image_block(self, network: str, name: str, x: Array, weights: autoencoder_kl.Weights) -> Array:
        """One block of an image network."""
        if name == "conv_in":
            return autoencoder_kl.conv3x3(x, *autoencoder_kl.layer(weights, "conv_in"))
        if name == "head":
            return autoencoder_kl.head(x, weights)
        part, unit = name.split(".")
        if unit == "attention":
            return autoencoder_kl.attention(x, weights, "mid_block.attentions.0")
        place = "mid_block.resnets" if part == "mid" else f"{part}_blocks.0.resnets"
        return autoencoder_kl.residual(x, weights, f"{place}.{unit[-1]}")

    def audio_block(self, network: str, name: str, x: Array, weights: oobleck.Network) -> Array:
        """One block of an audio network, on a whole file."""
        n, snake = x.shape[1], oobleck.snake
        if name == "conv1":
            return oobleck.conv(oobleck.window(x, -oobleck.REACH, n + oobleck.REACH), **weights["conv1"])
        if name == "head":
            reach = weights["conv2"]["weight"].shape[2] // 2
            x = snake(x, **weights["snake1"])
            return oobleck.conv(oobleck.window(x, -reach, n + reach), **weights["conv2"])
        block = weights["block"][name[-1]]
        if network == "decoder":
            x = oobleck.conv_transpose(snake(x, **block["snake1"]), **block["conv_t1"])  # n -> n - 1
            return self.audio_units(x, block)
        x = snake(self.audio_units(x, block), **block["snake1"])
        return oobleck.conv(oobleck.window(x, -1, n + 1), **block["conv1"])  # n -> n + 1

    def audio_units(self, x: Array, block: oobleck.Network) -> Array:
        """The three residual units of a block."""
        for number, dilation in enumerate(oobleck.DILATIONS, start=1):
            n, reach = x.shape[1], oobleck.REACH * dilation
            around = oobleck.window(x, -reach, n + reach)
            x = oobleck.residual_unit(around, -reach, n, dilation, oobleck.snake, **block[f"res_unit{number}"])
        return x

    def blocks(self, network: str, model: models.Model) -> tuple[str, ...]:
        """Names of the blocks of a network of that model."""
        return AUDIO_BLOCKS if model.config.kind == "audio" else IMAGE_BLOCKS[network]

    def network(self, latents: Array, model: models.Model, parameters: Parameters) -> Array:
        """Latents to subbands."""
        config = model.config
        if config.architecture == "LinearCodec2D":
            return projection.project(latents, *_matrix(model, "decoder.1"))
        if config.architecture == "ResidualCodec2D":
            parts = np.split(latents, config.num_stages)
            return np.sum(
                [projection.project(part, *_matrix(model, f"decoders.{i}")) for i, part in enumerate(parts)], axis=0
            )
        for name in self.blocks("decoder", model):
            latents = self.block(f"decoder.{name}", latents, model)
        return latents

    def synthesis(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to the signal."""
        return wavelet.synthesise(bands, model.config.J)

    def post(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The post filter."""
        reach = oobleck.POST_REACH
        weights = {key: model.tensors[f"post.{key}"].astype(np.float64) for key in ("weight", "bias")}
        return oobleck.post_filter(oobleck.window(x, -reach, x.shape[1] + reach), **weights)

    def clamp(self, x: Array, model: models.Model | None, parameters: Parameters) -> Array:
        """The signal within its range."""
        return signal.clamp(x)

    def crop(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal without its padding."""
        sizes = tuple(int(n) for n in parameters["sizes"].split("x"))
        if model.config.kind == "audio":
            return x[:, : sizes[0]]
        return signal.crop(x, sizes, model.config.multiple)

    def decode_samples(self, x: Array, model: models.Model, parameters: Parameters) -> NDArray:
        """The signal to samples."""
        if int(parameters["channels"]) < len(x):
            x = x.mean(axis=0, keepdims=True)
        form = parameters["format"]
        if model.config.kind == "image":
            return signal.signal_to_image(x, np.uint8 if form == "u8" else np.uint16)
        return signal.signal_to_audio(x, form, float(parameters["mean"]), float(parameters["gain"]))

    def decode_stream(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray:
        """A stream to samples."""
        stream = self.read(data, model)
        header = stream.header
        x = self.dequantise(self.symbols_of(stream, model), model, {})
        x = self.synthesis(self.network(x, model, {}), model, {})
        if model.config.post_filter:
            x = self.post(x, model, {})
        x = self.crop(self.clamp(x, model, {}), model, {"sizes": "x".join(map(str, header.sizes))})
        form = {"format": header.sample_format, "channels": str(header.channels)}
        if header.kind == "audio":
            form |= {"mean": repr(header.mean), "gain": repr(header.gain)}
        samples = self.decode_samples(x, model, form)
        certificate = stream.certificate
        if certificate is not None:
            found = container.certify(samples, certificate.uncertain).sample_hash
            if found != certificate.sample_hash:
                raise HashMismatch("CERTIFICATE.hash", found.hex(), certificate.sample_hash.hex())
        return samples[:, :, 0] if header.kind == "image" and header.channels == 1 else samples

    # ---- encoding

    def statistics(self, samples: NDArray, model: models.Model, parameters: Parameters) -> Array:
        """Mean and gain of audio."""
        return np.array(signal.audio_statistics(samples, parameters["format"]))

    def encode_signal(self, samples: NDArray, model: models.Model, parameters: Parameters) -> Array:
        """Samples to the signal, with as many channels as they have."""
        if model.config.kind == "image":
            return signal.image_to_signal(samples if samples.ndim == 3 else samples[:, :, None])
        mean, gain = float(parameters["mean"]), float(parameters["gain"])
        return signal.audio_to_signal(samples, parameters["format"], mean, gain)

    def pad(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal with its padding."""
        if model.config.kind == "image":
            return signal.pad(x, model.config.multiple)
        missing = signal.padded_size(x.shape[1], model.config.multiple) - x.shape[1]
        return np.pad(x, ((0, 0), (0, missing)))

    def analysis(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal to subbands."""
        return wavelet.analyse(x, model.config.J)

    def latents(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to latents."""
        if model.config.architecture == "ResidualCodec2D":
            raise Unsupported("latents of ResidualCodec2D")
        if model.config.lightweight_encode:
            weight, bias = _matrix(model, "encoder.0")
            latents = projection.project(bands, weight, bias)
            return projection.add_border(latents, bias) if model.config.kind == "audio" else latents
        for name in self.blocks("encoder", model):
            bands = self.block(f"encoder.{name}", bands, model)
        return bands

    def compand(self, latents: Array, model: models.Model, parameters: Parameters) -> Array:
        """Latents to companded latents."""
        return quantise.compand(latents, model.config.latent_bits)

    def round(self, companded: Array, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Companded latents to symbols."""
        return quantise.round_to_symbols(companded)

    def quantise(self, latents: Array, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Latents to symbols."""
        if np.isnan(latents).any():
            raise BadSamples("latents", "NaN", "numbers")
        return self.round(self.compand(latents, model, {}), model, {})

    def residual(self, bands: Array, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Subbands to the symbols of all stages."""
        if model.config.architecture != "ResidualCodec2D":
            raise Unsupported(f"residual of {model.config.architecture}")
        remaining, stages = bands, []
        for i in range(model.config.num_stages):
            stages.append(self.quantise(projection.project(remaining, *_matrix(model, f"encoders.{i}")), model, {}))
            latents = self.dequantise(stages[-1], model, {})
            remaining = remaining - projection.project(latents, *_matrix(model, f"decoders.{i}"))
        return np.concatenate(stages)

    def describe(
        self, samples: NDArray, model: models.Model, parameters: Parameters
    ) -> tuple[NDArray, container.Header]:
        """Check samples: (H, W, C) or (frames, channels), and their header, not yet coded."""
        rate = int(parameters["rate"]) if "rate" in parameters else None
        return pipeline(model).describe(samples, rate, parameters.get("format"))

    def encode_symbols(self, samples: NDArray, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Samples to symbols."""
        samples, header = self.describe(samples, model, parameters)
        form = {"format": header.sample_format}
        if header.kind == "audio":
            mean, gain = self.statistics(samples, model, form)
            form |= {"mean": repr(float(mean)), "gain": repr(float(gain))}
        x = self.encode_signal(samples, model, form)
        x = np.broadcast_to(x, (model.config.channels, *x.shape[1:]))
        bands = self.analysis(self.pad(x, model, {}), model, {})
        if model.config.architecture == "ResidualCodec2D":
            return self.residual(bands, model, {})
        return self.quantise(self.latents(bands, model, {}), model, {})

    def encode_slice(self, symbols: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Symbols to the payload of a slice."""
        if compiled():
            from walloc_ref.fast import entropy as kernel

            return kernel.encode(symbols, model.tables)
        return entropy.encode(symbols, model.tables)

    def encode_stream(self, samples: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Samples to a stream of one slice."""
        _, header = self.describe(samples, model, parameters)
        symbols = self.encode_symbols(samples, model, parameters)
        header = replace(
            header,
            model_id=bytes.fromhex(model.model_id)[: container.MODEL_ID_BYTES],
            slice_size=symbols.shape[1],
            symbol_hash=container.symbol_hash(symbols),
        )
        planes = symbols if symbols.ndim == 3 else symbols[:, None]
        return container.write(container.Stream(header, (self.encode_slice(planes, model, {}),)))


class Package(Definitions):
    """What is installed: kernels where there are some, and whole encodes and decodes through the public interface."""

    def decode_symbols(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """A stream to symbols."""
        return codec.decode_symbols(data, codec=_codec(model))

    def decode_stream(self, data: bytes, model: models.Model, parameters: Parameters) -> NDArray:
        """A stream to samples."""
        return codec.decode(data, codec=_codec(model))

    def synthesis(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to the signal."""
        return _codec(model).synthesise(bands)

    def network(self, latents: Array, model: models.Model, parameters: Parameters) -> Array:
        """Latents to subbands."""
        if model.config.architecture == "Codec2D":
            return autoencoder_kl.decode(latents, _image_weights(model, "decoder.1."))
        if model.config.architecture == "Codec1D":
            return oobleck.decode(oobleck.load(model.tensors, "decoder.1."), latents)
        return super().network(latents, model, parameters)

    def analysis(self, x: Array, model: models.Model, parameters: Parameters) -> Array:
        """The signal to subbands."""
        return _codec(model).analyse(x)

    def latents(self, bands: Array, model: models.Model, parameters: Parameters) -> Array:
        """Subbands to latents."""
        if model.config.lightweight_encode:
            return super().latents(bands, model, parameters)
        if model.config.kind == "image":
            return autoencoder_kl.encode(bands, _image_weights(model, "encoder.0."))
        return oobleck.encode(oobleck.load(model.tensors, "encoder.0."), bands)

    def quantise(self, latents: Array, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Latents to symbols."""
        if compiled():
            from walloc_ref.fast import quantise as kernel

            return kernel.quantise(latents, model.config.latent_bits)
        return quantise.quantise(latents, model.config.latent_bits)

    def encode_symbols(self, samples: NDArray, model: models.Model, parameters: Parameters) -> NDArray[np.int16]:
        """Samples to symbols."""
        samples, header = self.describe(samples, model, parameters)
        return _codec(model).pipeline.samples_to_symbols(samples, header)

    def encode_stream(self, samples: NDArray, model: models.Model, parameters: Parameters) -> bytes:
        """Samples to a stream."""
        rate = int(parameters["rate"]) if "rate" in parameters else None
        return _codec(model).encode(samples, rate, sample_format=parameters.get("format"))


@lru_cache(maxsize=32)
def _load(path: Path, changed: int) -> models.Model:
    """The model in a weights file, kept while the file does not change."""
    return models.load(path)


@lru_cache(maxsize=32)
def _codec(model: models.Model) -> codec.Codec:
    """The codec of a model."""
    return codec.Codec(model)


def pipeline(model: models.Model) -> image_codec.ImagePipeline | audio_codec.AudioPipeline:
    """The package's own pipeline of a model."""
    return _codec(model).pipeline


def _matrix(model: models.Model, name: str) -> tuple[Array, Array]:
    """Matrix and bias of a linear projection, in binary64."""
    weight = model.tensors[f"{name}.weight"].astype(np.float64)
    return weight.reshape(weight.shape[:2]), model.tensors[f"{name}.bias"].astype(np.float64)


@lru_cache(maxsize=32)
def _image_weights(model: models.Model, prefix: str) -> dict[str, Array]:
    """Tensors of an image network, in binary64, named without the prefix."""
    weights = model.weights(prefix)
    return {name: t[:, :, 0, 0] if t.shape[2:] == (1, 1) else t for name, t in weights.items()}
