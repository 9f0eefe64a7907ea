"""Models (SPEC.md section 8): configuration, weights file, identity, and where bundled models are found.

A model is one `.safetensors` file: float32 tensors under the upstream's own names, so that `load_state_dict` takes them as
they are, and three entries of metadata: the configuration as canonical JSON, the entropy coder's tables, and a name. Its
identity is a SHA-256 over configuration, tables and tensors, not over the file, so that it survives a re-write of the
file and changes with every number that decoding depends on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.architecture import Architecture, Weights
from walloc_ref.errors import BadSamples, MalformedModel, UnknownModel, WallocError, reason
from walloc_ref.stages import autoencoder_kl, entropy, oobleck, projection, quantise
from walloc_ref.stages.container import AXES_OF_KIND, Coding, latent_sizes

FORMAT = "1"
"""Version of the weights file (metadata `walloc_ref.format`)."""

IDENTITY_PREFIX = b"walloc model 1\n"
"""First bytes of what the identity hashes."""

ARCHITECTURES: Mapping[str, Architecture] = {
    record.name: record
    for record in (
        autoencoder_kl.CODEC_2D,
        oobleck.CODEC_1D,
        projection.LINEAR_CODEC_2D,
        projection.RESIDUAL_CODEC_2D,
        projection.LINEAR_CODEC_3D,
    )
}
"""Classes of the upstream model, and our own, that a weights file can hold."""

MAX_FILE_BYTES = 1 << 30
"""Largest weights file that is opened."""

MAX_DEPTH = 8
"""Deepest nesting of JSON in a weights file (SPEC.md 8.1)."""

TENSOR_MEMBERS = ["data_offsets", "dtype", "shape"]
"""What the header of a weights file says of a tensor, no less and no more."""

MAX_BANDS = 1 << 16
"""Largest channels·2^(J·axes)."""

MAX_INTEGER = 10**15 - 1
"""Largest `Ne` where it does not count, and -1 times its smallest: 15 digits, which binary64 has as well (SPEC.md 8.3)."""

SEARCH_PATH_VARIABLE = "WALLOC_MODELS"
"""Environment variable with folders, separated as in PATH, that are searched for models besides the bundled ones."""


def architecture_of(name: object) -> Architecture:
    """The record of an architecture, or `MalformedModel`.

    >>> architecture_of("LinearCodec3D").kind
    'volume'
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise MalformedModel("config.architecture", repr(name), "one of " + ", ".join(ARCHITECTURES))
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class Config:
    """Configuration of a model, with the upstream's names for its fields.

    Attributes
    ----------
    architecture : str
        Upstream class: Codec2D, Codec1D, LinearCodec2D or ResidualCodec2D; or LinearCodec3D.
    channels, J, latent_dim, latent_bits : int
        Channels of the signal, levels of the wavelet packet transform, latents a position (a stage, for
        ResidualCodec2D), bits of a symbol.
    Ne, Nd : int or None
        Width of the full encoder and of the nonlinear decoder, where there is one.
    lightweight_encode : bool
        Whether the encoder is the linear projection.
    post_filter : bool
        Whether a convolution of 129 taps follows the synthesis (Codec1D).
    num_stages : int
        Stages of ResidualCodec2D, else 1.

    Examples
    --------
    >>> config = Config("LinearCodec2D", channels=3, J=3, latent_dim=12)
    >>> config.kind, config.bands, config.multiple, config.latent_sizes((61, 40))
    ('image', 192, 8, (8, 5))
    """

    architecture: str
    channels: int
    J: int
    latent_dim: int
    latent_bits: int = 8
    Ne: int | None = None
    Nd: int | None = None
    lightweight_encode: bool = True
    post_filter: bool = False
    num_stages: int = 1

    @property
    def record(self) -> Architecture:
        """What is particular to the architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def kind(self) -> str:
        """What the model codes: "image", "audio" or "volume"."""
        return self.record.kind

    @property
    def axes(self) -> int:
        """Spatial axes of the signal: 1, 2 or 3."""
        return AXES_OF_KIND[self.kind]

    @property
    def bands(self) -> int:
        """Channels of the transformed signal, C·2^(J·axes)."""
        return self.channels << (self.J * self.axes)

    @property
    def planes(self) -> int:
        """Planes of symbols: latent_dim, times the stages of ResidualCodec2D."""
        return self.latent_dim * self.num_stages

    @property
    def encodes_by_projection(self) -> bool:
        """Whether the encoder is one projection, with nothing decoded within."""
        return self.lightweight_encode and not self.record.in_stages

    @property
    def multiple(self) -> int:
        """What the sizes of a signal are padded to a multiple of, 2^J."""
        return 1 << self.J

    def latent_sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Latent positions along each spatial axis of a signal of these sizes.

        >>> Config("LinearCodec2D", channels=3, J=3, latent_dim=12).latent_sizes((61, 40))
        (8, 5)
        """
        return latent_sizes(self.kind, sizes, self.J)

    def check_channels(self, channels: int) -> None:
        """Raise `BadSamples` for a number of channels that the model cannot code (SPEC.md 10.7).

        >>> Config("LinearCodec2D", channels=3, J=3, latent_dim=12).check_channels(2)
        Traceback (most recent call last):
        walloc_ref.errors.BadSamples: channels: 2; 3, or 1, for this model
        """
        if channels not in (1, self.channels):
            raise BadSamples("channels", channels, f"{self.channels}, or 1, for this model")

    def __post_init__(self) -> None:
        record = architecture_of(self.architecture)
        for name, limit in {"num_stages": (1, 1), **record.fields}.items():
            self._check_field(name, getattr(self, name), limit)
        if self.planes > entropy.LIMITS["latent_dim"]:
            most = f"at most {entropy.LIMITS['latent_dim']}, what the entropy coder takes"
            raise MalformedModel("config.latent_dim times num_stages", self.planes, most)
        if self.bands > MAX_BANDS:
            found = f"{self.J}, which makes {self.bands} bands of {self.channels} channels"
            fewer = "fewer levels; or, in more bytes, a volume that has the channels for its first axis"
            raise MalformedModel("config.J", found, f"at most {MAX_BANDS} bands: {fewer}")
        record.check(self)

    def _check_field(self, name: str, value: object, limit: tuple[int, int] | type[bool]) -> None:
        """Raise `MalformedModel` for a value of the wrong type or beyond its limit."""
        if isinstance(limit, type):
            if not isinstance(value, bool):
                raise MalformedModel(f"config.{name}", repr(value), "true or false")
            return
        low, high = limit
        if name == "Ne" and self.lightweight_encode:  # which does not count then
            if value is None:
                return
            low, high = -MAX_INTEGER, MAX_INTEGER
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise MalformedModel(f"config.{name}", repr(value), f"an integer from {low} to {high}")

    def to_json(self) -> str:
        """Canonical JSON: the fields of the architecture, sorted, without white space."""
        fields = {key: value for key, value in asdict(self).items() if key in {"architecture", *self.record.fields}}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Config:
        """Check and take over a decoded JSON object; fields that do not define the model are left out.

        Raises
        ------
        MalformedModel
            A field missing, of the wrong type or out of range.
        """
        known = {"architecture", *architecture_of(fields.get("architecture")).fields}
        missing = sorted(known - {"Ne"} - fields.keys())
        if missing:
            raise MalformedModel("config", "without " + ", ".join(missing), f"the fields {', '.join(sorted(known))}")
        return cls(**{key: value for key, value in fields.items() if key in known})


@dataclass(frozen=True, eq=False)
class Model:
    """A configuration, its tensors (float32, upstream names), the entropy coder's tables and the planes' step weights.

    Attributes
    ----------
    step_weights : uint8, shape (D,), or None
        How much of a coarser step each plane takes, in 1/128 (SPEC.md 6.8); None: 128 for all.
    spread : (int, int) or None
        How far implementations differ, as `exactness.measure` found it: logarithms to base 2 of the largest differences of
        companded latents and of decoded signals; None where nobody has measured. No part of the identity.
    """

    config: Config
    tensors: Mapping[str, NDArray[np.float32]]
    tables: entropy.Tables
    name: str = field(default="", compare=False)
    step_weights: NDArray[np.uint8] | None = None
    spread: tuple[int, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_tensors(self.config, self.tensors)
        for name, tensor in self.tensors.items():
            if not np.isfinite(tensor).all():
                raise MalformedModel(f"tensor {name}", "not finite", "finite numbers")
        for field_name, wanted in (("latent_dim", self.config.planes), ("latent_bits", self.config.latent_bits)):
            found = getattr(self.tables, field_name)
            if found != wanted:
                raise MalformedModel(f"entropy tables.{field_name}", found, f"{wanted}, as the configuration says")
        if self.config.kind != "volume" and (self.tables.taps[:, 2] >= self.tables.latent_dim).any():
            limit = f"sources below {self.tables.latent_dim}; only volumes have a depth position before"
            raise MalformedModel("entropy tables", f"a tap at source plane {self.tables.taps[:, 2].max()}", limit)
        if self.step_weights is not None and self.step_weights.shape != (self.config.planes,):
            raise MalformedModel(
                "step weights", f"{self.step_weights.size} of them", f"{self.config.planes}, one a plane"
            )

    @property
    def weights_of_steps(self) -> NDArray[np.uint8]:
        """The planes' step weights, also where the file has none."""
        if self.step_weights is not None:
            return self.step_weights
        return np.full(self.config.planes, quantise.UNIT_WEIGHT, dtype=np.uint8)

    def plane_steps(self, coding: Coding) -> NDArray[np.float64]:
        """The step of every plane of a stream (SPEC.md 6.8): shape (D, 1, …)."""
        even = np.full(self.config.planes, quantise.UNIT_WEIGHT, dtype=np.uint8)
        weights = self.weights_of_steps if coding.weighted else even
        return quantise.plane_steps(coding.step, weights, self.config.axes)

    @cached_property
    def weights(self) -> Weights:
        """The tensors ready for use, in binary64."""
        return self.config.record.prepare(self.config, self.tensors)

    @cached_property
    def model_id(self) -> str:
        """Identity: hexadecimal SHA-256 over configuration, tables and tensors (SPEC.md section 8)."""
        digest = hashlib.sha256(IDENTITY_PREFIX)
        for part in (self.config.to_json().encode(), self.tables.to_bytes(), self.weights_of_steps.tobytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        for name in sorted(self.tensors):
            digest.update(name.encode() + b"\0")
            digest.update(np.ascontiguousarray(self.tensors[name], dtype="<f4").tobytes())
        return digest.hexdigest()


def check_tensors(config: Config, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise `MalformedModel` unless these are the tensors of a model of this configuration, by name, shape and type."""
    expected = config.record.tensor_shapes(config)
    for name, shape in expected.items():
        if name not in tensors:
            raise MalformedModel(f"tensor {name}", "missing", f"shape {list(shape)}")
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise MalformedModel(f"tensor {name}", f"{tensor.dtype} {list(tensor.shape)}", f"float32 {list(shape)}")
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise MalformedModel(f"tensor {surplus[0]}", "present", f"no such tensor in {config.architecture}")


def save(model: Model) -> bytes:
    """A model as the bytes of a weights file."""
    from safetensors.numpy import save as save_tensors

    metadata = {
        "walloc_ref.format": FORMAT,
        "walloc_ref.name": model.name,
        "walloc_ref.config": model.config.to_json(),
        "walloc_ref.entropy": base64.b64encode(model.tables.to_bytes()).decode(),
        "walloc_ref.id": model.model_id,
    }
    if model.step_weights is not None:
        metadata["walloc_ref.steps"] = base64.b64encode(model.step_weights.tobytes()).decode()
    if model.spread is not None:
        metadata["walloc_ref.spread"] = f"{model.spread[0]} {model.spread[1]}"
    data = save_tensors({name: np.ascontiguousarray(t) for name, t in model.tensors.items()}, metadata)
    return _in_order(data)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library's is another one each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load(path: str | os.PathLike[str]) -> Model:
    """Read a weights file.

    Raises
    ------
    MalformedModel
        Not a safetensors file, metadata missing or wrong, tensors missing, surplus, of the wrong shape or not finite, or
        the identity recorded in the file is not that of its content.
    """
    path = Path(path)
    metadata, tensors = _read_safetensors(path, with_tensors=True)
    if metadata.get("walloc_ref.format") != FORMAT:
        raise MalformedModel("walloc_ref.format", repr(metadata.get("walloc_ref.format")), f"{FORMAT!r}, in {path}")
    config = Config.from_fields(_parse_json(metadata.get("walloc_ref.config", "").encode(), "walloc_ref.config", path))
    check_tensors(config, tensors)  # before tables of a declared size are made
    if "walloc_ref.entropy" in metadata:
        try:
            tables = entropy.Tables.from_bytes(_from_base64(metadata["walloc_ref.entropy"]))
        except ValueError as error:  # not base64, not ASCII, or not tables: a WallocError is one, too
            raise MalformedModel("walloc_ref.entropy", error, f"base64 of entropy tables, in {path}") from error
    else:
        tables = entropy.default_tables(config.planes, config.latent_bits)
    steps = None
    if "walloc_ref.steps" in metadata:
        try:
            steps = np.frombuffer(_from_base64(metadata["walloc_ref.steps"]), np.uint8)
        except ValueError as error:
            raise MalformedModel("walloc_ref.steps", error, f"base64 of step weights, in {path}") from error
    name = metadata.get("walloc_ref.name", "") or path.stem
    model = Model(config, tensors, tables, name, steps, _read_spread(metadata.get("walloc_ref.spread"), path))
    claimed = metadata.get("walloc_ref.id")
    if claimed is not None and claimed != model.model_id:
        raise MalformedModel("walloc_ref.id", claimed, f"the identity of the content, {model.model_id}, in {path}")
    return model


def _read_spread(text: str | None, path: Path) -> tuple[int, int] | None:
    """What a file says of the spread of its model."""
    if text is None:
        return None
    parts = text.split(" ")
    if len(parts) != 2 or not all(re.fullmatch("-?[0-9]{1,4}", part, re.ASCII) for part in parts):
        raise MalformedModel("walloc_ref.spread", text[:40], f"two integers, in {path}")
    return int(parts[0]), int(parts[1])


def _from_base64(text: str) -> bytes:
    """Bytes of base64 as SPEC.md 8.2 has it: padded, unused bits zero. Raises ValueError."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("unused bits of base64 that are not zero")
    return data


def _parse_json(data: bytes, what: str, path: Path) -> dict[str, Any]:
    """A JSON object, as strictly as SPEC.md 8.1 demands it, so that no two readers see different models in one file.

    Integers of 20 digits and more, which no field holds, come back as NaN: Python refuses to read thousands of digits.
    """

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = dict(pairs)
        if len(names) < len(pairs):
            raise ValueError("two members of one name")
        return names

    def constant(name: str) -> object:
        raise ValueError(f"{name} is no JSON")

    def check(value: object, depth: int) -> None:
        if isinstance(value, str):
            value.encode()  # raises for half a surrogate pair
        elif isinstance(value, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            for part in (*value, *value.values()) if isinstance(value, dict) else value:
                check(part, depth + 1)

    def integer(digits: str) -> float:
        return int(digits) if len(digits) < 20 else math.nan

    try:
        value: Any = json.loads(data.decode(), object_pairs_hook=members, parse_constant=constant, parse_int=integer)
        check(value, 1)
    except (ValueError, RecursionError) as error:
        raise MalformedModel(
            what, f"not JSON, as SPEC.md 8.1 has it: {reason(error)}", f"a JSON object, in {path}"
        ) from error
    if not isinstance(value, dict):
        raise MalformedModel(what, type(value).__name__, f"a JSON object, in {path}")
    return value


def _check_table(path: Path, size: int) -> None:
    """Raise `MalformedModel` for a header of a weights file that safetensors takes and SPEC.md 8.1 does not."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = _parse_json(file.read(min(length, size)), "weights file's header", path)
    for name, entry in header.items():
        if name != "__metadata__" and (not isinstance(entry, dict) or sorted(entry) != TENSOR_MEMBERS):
            raise MalformedModel(f"tensor {name}", "other members", f"{', '.join(TENSOR_MEMBERS)}, in {path}")


def _read_safetensors(path: Path, *, with_tensors: bool) -> tuple[dict[str, str], dict[str, NDArray[np.float32]]]:
    """Metadata and, on request, tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnknownModel("model", path, f"a readable weights file ({error.strerror})") from error
    if size > MAX_FILE_BYTES:
        raise MalformedModel("weights file", f"{size} bytes", f"at most {MAX_FILE_BYTES}")
    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            if with_tensors:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if file.get_slice(name).get_dtype() != "F32":
                        raise MalformedModel(f"tensor {name}", file.get_slice(name).get_dtype(), "F32")
                    tensors[name] = file.get_tensor(name)
        _check_table(path, size)
    except (SafetensorError, OSError) as error:
        raise MalformedModel("weights file", path, f"a safetensors file ({error})") from error
    return metadata, tensors


def folders() -> list[Path]:
    """Folders that are searched for models: those in `WALLOC_MODELS`, then the bundled ones."""
    named = [Path(part) for part in os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep) if part]
    package = Path(__file__).resolve().parent
    bundled = package / "weights"  # in a wheel
    return [*named, bundled if bundled.is_dir() else package.parent / "weights"]  # in a checkout


def available() -> dict[str, Path]:
    """Names and paths of the models at hand."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.safetensors")) if os.path.isdir(folder) else []:
            if os.path.isfile(path):  # a pipe of that name would never end
                found.setdefault(path.stem, path)
    return found


def find(name: str | os.PathLike[str]) -> Model:
    """The model of a bundled name, or of a path to a weights file.

    Raises
    ------
    UnknownModel
        Neither a name at hand nor a file.
    """
    models = available()
    text = os.fspath(name)
    if text in models:
        return load(models[text])
    if os.path.isfile(text) or (text.endswith(".safetensors") and not os.path.exists(text)):
        return load(text)
    raise UnknownModel("model", text, "one of " + ", ".join(models) + ", or a path to a .safetensors file")


def name_of(prefix: bytes) -> str | None:
    """Name of the model at hand whose recorded identity starts with these bytes, without loading any."""
    for name, path in available().items():
        try:
            metadata, _ = _read_safetensors(path, with_tensors=False)
        except WallocError:
            continue
        if metadata.get("walloc_ref.id", "").startswith(prefix.hex()):
            return name
    return None


def find_by_id(prefix: bytes) -> Model:
    """The model at hand whose identity starts with these bytes.

    Raises
    ------
    UnknownModel
        None of the models at hand has that identity.
    """
    damaged: WallocError | None = None
    for path in available().values():
        try:
            metadata, _ = _read_safetensors(path, with_tensors=False)
        except WallocError:
            continue
        claimed = metadata.get("walloc_ref.id")
        if claimed is not None and not claimed.startswith(prefix.hex()):
            continue
        try:
            model = load(path)
        except WallocError as error:  # another file may be whole
            damaged = damaged or error if claimed is not None else damaged
            continue
        if bytes.fromhex(model.model_id).startswith(prefix):
            return model
    if damaged is not None:
        raise damaged
    raise UnknownModel("model identity", prefix.hex(), "a model at hand; name its file, or its folder in WALLOC_MODELS")
