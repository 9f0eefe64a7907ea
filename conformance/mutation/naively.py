"""The naive codec of the tests, behind the interface that every implementation has: so far as it has the stages."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import naive
import numpy as np

from walloc_ref.conform.compare import read_array, read_slice, write_array
from walloc_ref.conform.stages import Unsupported

STAGES = (
    "decode header", "decode slice", "decode symbols", "decode dequantise", "decode network", "decode synthesis",
    "decode clamp", "decode samples", "decode stream", "encode statistics", "encode signal", "encode analysis",
    "encode quantise", "encode slice", "encode stream",
)  # fmt: skip
"""Operations and stages that the naive codec has."""

DTYPES = {"u8": "<u1", "u16": "<u2", "s16": "<i2", "s24": "<i4", "s32": "<i4", "f32": "<f4", "f64": "<f8"}


def blocks() -> list[str]:
    """Blocks of SPEC.md that are code, each below so many empty lines that its lines have the document's numbers."""
    text = (Path(naive.__file__).resolve().parent.parent / "SPEC.md").read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def examples(function: str) -> list[str]:
    """Lines of SPEC.md's examples that call a function."""
    text = (Path(naive.__file__).resolve().parent.parent / "SPEC.md").read_text(encoding="utf-8")
    found = re.findall(r"^```example\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if f"{function}(" in line]


def scale_of(parameters: Mapping[str, str]) -> tuple[str, float, float]:
    """Format, mean and gain that a case names."""
    return parameters["format"], float(parameters.get("mean", "0")), float(parameters.get("gain", "1"))


def typed(samples: Any, form: str) -> tuple[str, np.ndarray]:
    """Samples as an array of their format, which must hold each of them as it is."""
    array = np.array(samples, DTYPES[form])
    if array.tolist() != samples:
        raise ValueError(f"samples that are not of {form}")
    return DTYPES[form], array


@functools.cache
def read(path: Path) -> naive.Model:
    """The model in a weights file."""
    return naive.read_model(path.read_bytes())


class Naive:
    """Stages by the naive codec: bytes of the input file to those of the output file."""

    def perform(self, op: str, stage: str, path: Path | None, data: bytes, parameters: Mapping[str, str]) -> bytes:
        """Run one case.

        Raises
        ------
        naive.Rejected
        Unsupported
        """
        if stage == "example":
            return str(eval(data, {**vars(naive), **naive.SPEC})).encode()
        if f"{op} {stage}" not in STAGES or (path is None and stage != "clamp"):
            raise Unsupported(stage)
        model = path and read(path)
        result = getattr(self, f"{op}_{stage}")(model, data, parameters)
        if isinstance(result, bytes):
            return result
        dtype, values = result
        array = np.array(values, dtype)
        return write_array(array)

    def coding(self, model: naive.Model, parameters: Mapping[str, str]) -> dict[str, int]:
        """The step and the windows that a case names."""
        step = round(float(parameters.get("step", "1")) * 2**16)
        names = ("weighted", "window", "context")
        return {"step": step} | {name: int(parameters.get(name, "0")) for name in names}

    def decode_header(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> bytes:
        """The stage of that name."""
        stream = naive.read_stream(data)
        names = {"sample_format": "format", "latent_dim": "D", "latent_bits": "b", "model_id": "model"}
        same = ("channels", "sizes", "J", "window", "context", "slice_size", "symbol_hash", "mean", "gain")
        fields = {name: stream[names.get(name, name)] for name in (*names, *same)}
        fields |= {name: fields[name].hex() for name in ("model_id", "symbol_hash")}
        fields |= {"kind": ("image", "audio", "volume")[stream["kind"]], "rate": stream.get("rate", 0)}
        fields |= {"step": stream["step"] / 2**16, "weighted": stream["weighted"] == 1}
        fields |= {"slices": len(stream["slices"]), "certified": "certificate" in stream}
        return json.dumps(fields).encode()

    def decode_slice(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        kind = {"Codec1D": "audio", "LinearCodec3D": "volume"}.get(model.fields["architecture"], "image")
        shape, payload = read_slice(data, kind)
        naive.require(shape[0] == model.planes and min(shape) > 0, "7.1")
        return "<i2", naive.decode_slice(payload, shape, model.tables)

    def decode_symbols(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        return "<i2", naive.decode_symbols(model, data)[1]

    def decode_dequantise(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        latents = naive.dequantise(read_array(data).tolist(), model.fields["latent_bits"])
        if "step" in parameters:
            latents = naive.scaled(latents, naive.coding_of(model, self.coding(model, parameters))[0])
        return "<f8", latents

    def decode_network(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        latents, fields = read_array(data).tolist(), model.fields
        if fields["architecture"] == "ResidualCodec2D":
            raise Unsupported("network of ResidualCodec2D")
        if fields["architecture"].startswith("Linear"):
            return "<f8", naive.project(model, "decoder.1", latents)
        if fields["architecture"] == "Codec1D":
            return "<f8", naive.AudioNetwork(model.tensors, "decoder.1.").decode(latents)
        _, window, context = naive.coding_of(model, self.coding(model, parameters))
        decode = naive.Network(model.tensors, "decoder.1.").decode
        return "<f8", naive.in_windows(decode, latents, window, context)

    def decode_synthesis(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        return "<f8", naive.synthesise(read_array(data).tolist(), model.fields["J"])

    def decode_clamp(self, model: None, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        return "<f8", naive.clamped(read_array(data).tolist())

    def decode_samples(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        x, scale, channels = read_array(data), scale_of(parameters), int(parameters["channels"])
        if model.fields["architecture"] == "Codec1D":
            return typed(naive.signal_to_audio(x.tolist(), x.shape[1], scale, channels), scale[0])
        return typed(naive.signal_to_image(x.tolist(), [*x.shape[1:]], scale, channels, 1), scale[0])

    def decode_stream(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        dtype, array = typed(naive.decode(model, data), naive.read_stream(data)["format"])
        squeeze = array.shape[-1] == 1 and model.fields["architecture"] != "Codec1D"
        return dtype, array[..., 0] if squeeze else array

    def encode_statistics(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        return "<f8", naive.statistics(read_array(data).tolist(), parameters["format"])

    def encode_signal(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name, which pads nothing: to a multiple of 1."""
        samples, (form, mean, gain) = read_array(data), scale_of(parameters)
        if model.fields["architecture"] == "Codec1D":
            return "<f8", naive.audio_to_signal(samples.tolist(), form, mean, gain, samples.shape[-1], 1)
        axes = naive.AXES.get(model.fields["architecture"], 2)
        samples = samples[..., None] if samples.ndim == axes else samples
        return "<f8", naive.image_to_signal(samples.tolist(), (form, mean, gain), samples.shape[-1], 1, axes)

    def encode_analysis(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        return "<f8", naive.analyse(read_array(data).tolist(), model.fields["J"])

    def encode_quantise(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        latents = read_array(data).tolist()
        if "step" in parameters:
            latents = naive.divided(latents, naive.coding_of(model, self.coding(model, parameters))[0])
        return "<i2", naive.quantise(latents, model.fields["latent_bits"])

    def encode_slice(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        symbols = read_array(data)
        last = 2 ** (model.fields["latent_bits"] - 1) - 1
        axes = naive.AXES.get(model.fields["architecture"], 2)
        typed = symbols.dtype == np.int16 and symbols.ndim == axes + 1 and symbols.size
        if not typed or symbols.shape[0] != model.planes or abs(symbols.astype(int)).max() > last:
            raise Unsupported("the naive encoder takes no wrong input")
        return naive.encode_slice(symbols.tolist(), model.tables)

    def encode_stream(self, model: naive.Model, data: bytes, parameters: Mapping[str, str]) -> Any:
        """The stage of that name."""
        samples, form = read_array(data), parameters["format"]
        axes = naive.AXES.get(model.fields["architecture"], 2)
        if samples.ndim == axes and axes > 1:
            samples = samples[..., None]
        right = samples.ndim == axes + 1 and samples.size and samples.dtype == np.dtype(DTYPES[form])
        if not right or samples.shape[-1] not in (1, model.fields["channels"]) or not np.isfinite(samples).all():
            raise Unsupported("the naive encoder takes no wrong input")
        if form == "s24" and (samples % 256).any():
            raise Unsupported("the naive encoder takes no wrong input")
        coding = self.coding(model, parameters)
        if model.fields["architecture"] == "Codec1D":
            return naive.encode_audio(model, samples.tolist(), form, int(parameters["rate"]), coding)
        return naive.encode(model, samples.tolist(), form, coding)
