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
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import MalformedModel, UnknownModel, WallocError
from walloc_ref.stages import autoencoder_kl, entropy, oobleck, quantise

FORMAT = "1"
"""Version of the weights file (metadata `walloc_ref.format`)."""

IDENTITY_PREFIX = b"walloc model 1\n"
"""First bytes of what the identity hashes."""

ARCHITECTURES = ("Codec2D", "Codec1D", "LinearCodec2D", "ResidualCodec2D")
"""Classes of the upstream model that a weights file can hold."""

MAX_FILE_BYTES = 1 << 30
"""Largest weights file that is opened."""

MAX_LEVELS, MAX_CHANNELS, MAX_LATENT_DIM, MAX_WIDTH, MAX_STAGES = 10, 64, 4096, 8192, 64
"""Limits of a configuration: J, channels, latent_dim, Ne and Nd, num_stages."""

MAX_BANDS = 1 << 16
"""Largest channels·2^(J·axes)."""

SEARCH_PATH_VARIABLE = "WALLOC_MODELS"
"""Environment variable with folders, separated as in PATH, that are searched for models besides the bundled ones."""


@dataclass(frozen=True)
class Config:
    """Configuration of a model, with the upstream's names for its fields.

    Attributes
    ----------
    architecture : str
        Upstream class: Codec2D, Codec1D, LinearCodec2D or ResidualCodec2D.
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
    def kind(self) -> str:
        """What the model codes: "audio" or "image"."""
        return "audio" if self.architecture == "Codec1D" else "image"

    @property
    def axes(self) -> int:
        """Spatial axes of the signal: 1 or 2."""
        return 1 if self.kind == "audio" else 2

    @property
    def bands(self) -> int:
        """Channels of the transformed signal, C·2^(J·axes)."""
        return self.channels << (self.J * self.axes)

    @property
    def planes(self) -> int:
        """Planes of symbols: latent_dim, times the stages of ResidualCodec2D."""
        return self.latent_dim * self.num_stages

    @property
    def multiple(self) -> int:
        """What the sizes of a signal are padded to a multiple of, 2^J."""
        return 1 << self.J

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise MalformedModel("config.architecture", repr(self.architecture), "one of " + ", ".join(ARCHITECTURES))
        limits = {
            "channels": (1, MAX_CHANNELS),
            "J": (0, MAX_LEVELS),
            "latent_dim": (1, MAX_LATENT_DIM),
            "latent_bits": (quantise.BITS.start, quantise.BITS.stop - 1),
            "num_stages": (1, MAX_STAGES if self.architecture == "ResidualCodec2D" else 1),
        }
        if self.architecture in ("Codec2D", "Codec1D"):
            limits["Nd"] = (1, MAX_WIDTH)
            if not self.lightweight_encode:
                limits["Ne"] = (1, MAX_WIDTH)
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise MalformedModel(f"config.{name}", repr(value), f"an integer from {low} to {high}")
        for name in ("lightweight_encode", "post_filter"):
            if not isinstance(getattr(self, name), bool):
                raise MalformedModel(f"config.{name}", repr(getattr(self, name)), "true or false")
        if self.Ne is not None and not (type(self.Ne) is int and 1 <= self.Ne <= MAX_WIDTH):
            raise MalformedModel("config.Ne", repr(self.Ne), f"null or an integer from 1 to {MAX_WIDTH}")
        if self.bands > MAX_BANDS:
            raise MalformedModel("config.J", self.J, f"at most {MAX_BANDS} bands, channels·2^(J·axes)")
        if self.architecture == "Codec2D":
            for name in ("Nd",) if self.lightweight_encode else ("Nd", "Ne"):
                if getattr(self, name) % autoencoder_kl.GROUPS:
                    raise MalformedModel(
                        f"config.{name}", getattr(self, name), f"a multiple of {autoencoder_kl.GROUPS}"
                    )

    def to_json(self) -> str:
        """Canonical JSON: the fields of the architecture, sorted, without white space."""
        fields = {key: value for key, value in asdict(self).items() if key in CONFIG_FIELDS[self.architecture]}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_fields(cls, fields: object) -> Config:
        """Check and take over a decoded JSON object; fields that do not define the model are left out.

        Raises
        ------
        MalformedModel
            Not an object, a field missing, of the wrong type or out of range.
        """
        if not isinstance(fields, dict):
            raise MalformedModel("config", type(fields).__name__, "a JSON object")
        architecture = fields.get("architecture")
        if architecture not in ARCHITECTURES:
            raise MalformedModel("config.architecture", repr(architecture), "one of " + ", ".join(ARCHITECTURES))
        known = CONFIG_FIELDS[architecture]
        missing = sorted(known - {"Ne"} - fields.keys())
        if missing:
            raise MalformedModel("config", "without " + ", ".join(missing), f"the fields {', '.join(sorted(known))}")
        return cls(**{key: value for key, value in fields.items() if key in known})


_COMMON_FIELDS = frozenset({"architecture", "channels", "J", "latent_dim", "latent_bits"})
CONFIG_FIELDS: Mapping[str, frozenset[str]] = {
    "Codec2D": _COMMON_FIELDS | {"Ne", "Nd", "lightweight_encode"},
    "Codec1D": _COMMON_FIELDS | {"Ne", "Nd", "lightweight_encode", "post_filter"},
    "LinearCodec2D": _COMMON_FIELDS,
    "ResidualCodec2D": _COMMON_FIELDS | {"num_stages"},
}
"""Fields of the canonical configuration of each architecture: the arguments of the upstream class."""


@dataclass(frozen=True, eq=False)
class Model:
    """A configuration, its tensors (float32, upstream names) and the entropy coder's tables."""

    config: Config
    tensors: Mapping[str, NDArray[np.float32]]
    tables: entropy.Tables
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_tensors(self.config, self.tensors)
        for name, tensor in self.tensors.items():
            if not np.isfinite(tensor).all():
                raise MalformedModel(f"tensor {name}", "not finite", "finite numbers")
        for field_name, wanted in (("latent_dim", self.config.planes), ("latent_bits", self.config.latent_bits)):
            found = getattr(self.tables, field_name)
            if found != wanted:
                raise MalformedModel(f"entropy tables.{field_name}", found, f"{wanted}, as the configuration says")

    @cached_property
    def model_id(self) -> str:
        """Identity: hexadecimal SHA-256 over configuration, tables and tensors (SPEC.md section 8)."""
        digest = hashlib.sha256(IDENTITY_PREFIX)
        for part in (self.config.to_json().encode(), self.tables.to_bytes()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        for name in sorted(self.tensors):
            digest.update(name.encode() + b"\0")
            digest.update(np.ascontiguousarray(self.tensors[name], dtype="<f4").tobytes())
        return digest.hexdigest()

    def weights(self, prefix: str) -> dict[str, NDArray[np.float64]]:
        """Tensors whose names start with `prefix`, named without it, in binary64."""
        return {
            name[len(prefix) :]: tensor.astype(np.float64)
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def tensor_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors that a model of this configuration has."""
    taps = (1, 1) if config.kind == "image" else (1,)
    bands, latents = config.bands, config.latent_dim
    shapes: dict[str, tuple[int, ...]] = {}

    def put(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, *taps)
        shapes[f"{name}.bias"] = (outputs,)

    def put_network(prefix: str, network: Mapping[str, tuple[int, ...]]) -> None:
        shapes.update({prefix + name: shape for name, shape in network.items()})

    if config.architecture == "ResidualCodec2D":
        for stage in range(config.num_stages):
            put(f"encoders.{stage}", latents, bands)
            put(f"decoders.{stage}", bands, latents)
        return shapes
    if config.lightweight_encode:
        put("encoder.0", latents, bands)
    if config.architecture == "LinearCodec2D":
        put("decoder.1", bands, latents)
        return shapes
    assert config.Nd is not None
    if config.architecture == "Codec2D":
        count = autoencoder_kl.DECODER_BLOCKS
        put_network(
            "decoder.1.", autoencoder_kl.tensor_shapes(latents, config.Nd, bands, blocks="up_blocks", count=count)
        )
        if config.Ne is not None and not config.lightweight_encode:
            count = autoencoder_kl.ENCODER_BLOCKS
            encoder = autoencoder_kl.tensor_shapes(bands, config.Ne, latents, blocks="down_blocks", count=count)
            put_network("encoder.0.", encoder)
        return shapes
    put_network("decoder.1.", oobleck.decoder_shapes(latents, config.Nd, bands))
    if config.Ne is not None and not config.lightweight_encode:
        put_network("encoder.0.", oobleck.encoder_shapes(bands, config.Ne, latents))
    if config.post_filter:
        shapes["post.weight"] = (config.channels, config.channels, oobleck.POST_FILTER_TAPS)
        shapes["post.bias"] = (config.channels,)
    return shapes


def check_tensors(config: Config, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise `MalformedModel` unless these are the tensors of a model of this configuration, by name, shape and type."""
    if config.planes > entropy.LIMITS["latent_dim"]:
        limit = f"at most {entropy.LIMITS['latent_dim']}, what the entropy coder takes"
        raise MalformedModel("config.latent_dim times num_stages", config.planes, limit)
    expected = tensor_shapes(config)
    for name, shape in expected.items():
        if name not in tensors:
            raise MalformedModel(f"tensor {name}", "missing", f"shape {list(shape)}")
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise MalformedModel(f"tensor {name}", found, f"float32 {list(shape)}")
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        name = surplus[0].encode("unicode_escape").decode()[:200]  # printable, whatever the file says
        raise MalformedModel(f"tensor {name}", "present", f"no such tensor in {config.architecture}")


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
    return save_tensors({name: np.ascontiguousarray(t) for name, t in model.tensors.items()}, metadata)


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
    try:
        fields = json.loads(metadata.get("walloc_ref.config", ""))
    except (ValueError, RecursionError) as error:
        raise MalformedModel("walloc_ref.config", "not JSON", f"a JSON object, in {path}") from error
    config = Config.from_fields(fields)
    check_tensors(config, tensors)  # before tables of a declared size are made
    if "walloc_ref.entropy" in metadata:
        try:
            tables = entropy.Tables.from_bytes(base64.b64decode(metadata["walloc_ref.entropy"], validate=True))
        except ValueError as error:  # not base64, not ASCII, or not tables: a WallocError is one, too
            raise MalformedModel("walloc_ref.entropy", error, f"base64 of entropy tables, in {path}") from error
    else:
        tables = entropy.default_tables(config.planes, config.latent_bits)
    model = Model(config, tensors, tables, metadata.get("walloc_ref.name", "") or path.stem)
    claimed = metadata.get("walloc_ref.id")
    if claimed is not None and claimed != model.model_id:
        raise MalformedModel("walloc_ref.id", claimed, f"the identity of the content, {model.model_id}, in {path}")
    return model


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
