"""A third opinion: the whole codec in plain loops, written from SPEC.md, importing nothing from the package.

Arrays are nested lists; clause numbers stand beside what they define. Slow, and meant for images of a hundred pixels.
Errors are `Rejected`, whatever is wrong. What is code in SPEC.md, the entropy coder above all, is what runs.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import struct
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any, NamedTuple


class Rejected(ValueError):
    """A stream or a model that must be rejected (12.1)."""


def require(condition: bool, clause: str) -> None:
    if not condition:
        raise Rejected(clause)


def executable() -> dict[str, Any]:
    """What the blocks of SPEC.md marked `python` define (1.7)."""
    path = Path(__file__).resolve().parent.parent / "SPEC.md"
    text = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {"require": require, "struct": struct, "math": math}
    names |= {"Fraction": Fraction, "NormalDist": NormalDist}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines = "\n" * text.count("\n", 0, block.start(1))  # so that errors name the document's lines
        exec(compile(lines + block[1], str(path), "exec"), names)
    return names


SPEC = executable()


# ---- 1 notation ----------------------------------------------------------------------------------------------------


varint = SPEC["varint"]  # 1.6


def rint(x: float) -> int:
    return round(x)  # ties to even


def zeros(*shape: int) -> Any:
    if not shape:
        return 0.0
    return [zeros(*shape[1:]) for _ in range(shape[0])]


def reshape(values: list[Any], shape: tuple[int, ...]) -> Any:
    if len(shape) <= 1:
        return list(values)
    step = len(values) // max(1, shape[0])
    return [reshape(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def flat(nested: Any) -> list[Any]:
    if not isinstance(nested, list):
        return [nested]
    return [value for part in nested for value in flat(part)]


# ---- 3 samples and signals -----------------------------------------------------------------------------------------

FORMATS = ("u8", "u16", "s16", "s24", "s32", "f32", "f64")
IMAGE_FORMATS, AUDIO_FORMATS = ("u8", "u16", "s16", "f32"), ("u8", "s16", "s24", "s32", "f32", "f64")
STRUCT = {"u8": "B", "u16": "H", "s16": "h", "s24": "i", "s32": "i", "f32": "f", "f64": "d"}
FULL_SCALE = {"u8": 255, "u16": 65535, "s16": 65535}
LOWEST = {"u8": 0, "u16": 0, "s16": -32768}


reflect = SPEC["reflect"]  # 3.4


def padding(n: int, m: int) -> tuple[int, int]:
    """Padded size and samples before the first one (3.4)."""
    size = m * -(-n // m)
    return size, (size - n) // 2


def image_to_signal(samples: Any, scale: tuple[str, float, float], channels: int, m: int, axes: int) -> Any:
    """Samples [H][W][C'], or [Z][H][W][C'], to the padded signal [C][H'][W'] … (3.2 to 3.4, 3.9, 3.10)."""
    form, mean, gain = scale

    def unit(sample: float) -> float:
        if form == "f32":
            return (sample - mean) / gain if gain else 0.0
        return (sample - LOWEST[form]) / FULL_SCALE[form] - 0.5

    def padded(part: Any, left: int, c: int) -> Any:
        if left == 0:
            return unit(part[c if len(part) > 1 else 0])
        size, before = padding(len(part), m)
        return [padded(part[reflect(i - before, len(part))], left - 1, c) for i in range(size)]

    return [padded(samples, axes, c) for c in range(channels)]


def clamped(x: Any) -> Any:
    """3.7, 11.13."""
    return [clamped(part) for part in x] if isinstance(x, list) else min(max(x, -0.5), 0.5)


def signal_to_image(x: Any, sizes: list[int], scale: tuple[str, float, float], channels: int, m: int) -> Any:
    """The clamped signal [C][H'][W'] … to samples [H][W][C'] … (3.3, 3.6, 3.8 to 3.10)."""
    form, mean, gain = scale

    def sample(value: float) -> float:
        if form == "f32":
            return struct.unpack("<f", struct.pack("<f", gain * value + mean))[0]
        return min(max(rint(FULL_SCALE[form] * (value + 0.5)), 0), FULL_SCALE[form]) + LOWEST[form]

    def cropped(parts: list[Any], left: list[int]) -> Any:
        if not left:
            if channels < len(parts):
                parts = [sum(parts) / len(parts)]
            return [sample(value) for value in parts]
        before = padding(left[0], m)[1]
        return [cropped([part[before + i] for part in parts], left[1:]) for i in range(left[0])]

    return cropped(x, sizes)


# ---- 4 wavelet packet transform ------------------------------------------------------------------------------------


def split(x: list[float]) -> tuple[list[float], list[float]]:
    """4.2."""
    return SPEC["split"](x)


def merge(low: list[float], high: list[float]) -> list[float]:
    """4.3."""
    return SPEC["merge"](low, high)


def transposed_axes(x: Any) -> Any:
    """[n][m]… to [m][n]…"""
    return [list(parts) for parts in zip(*x)]


def along(function: Any, parts: list[Any], axis: int) -> list[Any]:
    """A function from lists of numbers to lists of numbers, along an axis of nested lists."""
    if axis > 0:
        return [list(rows) for rows in zip(*(along(function, list(p), axis - 1) for p in zip(*parts)))]
    if not isinstance(parts[0][0], list):
        return list(function(*parts))
    columns = [along(function, list(p), 0) for p in zip(*map(transposed_axes, parts))]
    return [transposed_axes(list(p)) for p in zip(*columns)]


def depth_of(x: Any) -> int:
    return 1 + depth_of(x[0]) if isinstance(x, list) else 0


def analyse(x: list[Any], levels: int) -> list[Any]:
    """Channels of any number of axes to subbands, channel-major, first level first (4.4 to 4.6, 16.2)."""
    for _ in range(levels):
        for axis in reversed(range(depth_of(x[0]))):  # across first: its bit is the most significant of the digit
            x = [half for band in x for half in along(split, [band], axis)]
    return x


def synthesise(bands: list[Any], levels: int) -> list[Any]:
    for _ in range(levels):
        for axis in range(depth_of(bands[0])):
            bands = [along(lambda *p: [merge(*p)], bands[i : i + 2], axis)[0] for i in range(0, len(bands), 2)]
    return bands


# ---- 5 projection, 6 quantiser -------------------------------------------------------------------------------------


def affine(weight: Any, bias: list[float], x: list[float]) -> list[float]:
    """weight [M][N], [M][N][1], [M][N][1][1] or [M][N][1][1][1], at one position."""
    out = []
    for row, start in zip(weight, bias):
        total = start
        for value, entry in zip(x, row):
            total += flat(entry)[0] * value
        out.append(total)
    return out


def at_every_position(function: Any, x: Any) -> Any:
    """Apply a function of a vector at each position of [K][l], [K][h][w] or [K][z][h][w]."""
    if not isinstance(x[0][0], list):
        return [list(row) for row in zip(*(function(list(v)) for v in zip(*x)))]
    rows = [at_every_position(function, [plane[i] for plane in x]) for i in range(len(x[0]))]
    return [[row[d] for row in rows] for d in range(len(rows[0]))]


def companding(bits: int) -> tuple[int, float, float]:
    """L, M and s (6.1)."""
    return SPEC["companding"](bits)


def quantise(y: Any, bits: int) -> Any:
    """6.2."""
    return [quantise(part, bits) for part in y] if isinstance(y, list) else SPEC["symbol_of"](y, bits)


def dequantise(k: Any, bits: int) -> Any:
    """6.4."""
    return [dequantise(part, bits) for part in k] if isinstance(k, list) else SPEC["latent_of"](k, bits)


# ---- 7 entropy coding ----------------------------------------------------------------------------------------------


default_tables = SPEC["default_tables"]


def tables_of(data: bytes, volume: bool = False) -> SimpleNamespace:
    """7.2, 7.3 and, for a model of volumes, 16.6."""
    reader = Bytes(data)
    require(reader.take(4) == b"WET1", "7.2")

    def array(kind: str, *shape: int) -> Any:
        size = math.prod(shape)
        values = struct.unpack(f"<{size}{kind}", reader.take(size * struct.calcsize("<" + kind)))
        return reshape(list(values), shape)

    planes, bits = array("H", 2)
    require(1 <= planes <= 4096 and 2 <= bits <= 8, "7.2")
    counts = array("B", planes, 2)
    require(all(taps <= 160 and hidden <= 62 for taps, hidden in counts), "7.2")
    tables = SimpleNamespace(planes=planes, bits=bits, taps=[], units=[], biases=[], outputs=[])
    for c, (taps, _) in enumerate(counts):
        tables.taps.append([])
        for _ in range(taps):
            source, code = array("H", 1)[0], array("B", 1)[0]
            kind, dy, dx = code // 49, code % 49 // 7 - 3, code % 7 - 3
            known = source < c or (source == c and (dy < 0 or (dy == 0 and dx < 0)))
            require(kind < 2 and (known or (volume and planes <= source < 2 * planes)), "7.2")
            tables.taps[c].append((kind, source, dy, dx))
    for c, (taps, hidden) in enumerate(counts):
        tables.units.append(array("h", taps, 2 + hidden))
        tables.biases.append(array("i", 2 + hidden))
        tables.outputs.append(array("h", hidden, 2))
        most = [1023 if kind else 16 * (2 ** (bits - 1) - 1) for kind, *_ in tables.taps[c]]
        for u in range(2 + hidden):
            total = sum(a * abs(weights[u]) for a, weights in zip(most, tables.units[c])) + abs(tables.biases[c][u])
            require(total < 2**31 - 2**16, "7.3")
        for column in range(2):
            require(sum(abs(out[column]) for out in tables.outputs[c]) * 32767 < 2**31 - 2**16, "7.3")
    tables.states, tables.mixers = array("H", 16 * (748 + 11 * planes)), array("h", 8, 16, 4)
    require(min(tables.states) >= 16 and reader.at == len(data), "7.3")
    return tables


def rows_of(symbols: Any) -> Any:
    """Audio [D][l] as [D][1][l] (7.1)."""
    return symbols if isinstance(symbols[0][0], list) else [[row] for row in symbols]


def encode_slice(symbols: Any, tables: bytes) -> bytes:
    """A slice [D][h][w], [D][l], or [D][z][h][w] of a volume."""
    parsed = tables_of(tables, depth_of(symbols) == 4)
    if depth_of(symbols) == 4:
        return SPEC["encode_volume_slice"](parsed, transposed_axes(symbols), parsed.bits)
    return SPEC["encode_slice"](parsed, rows_of(symbols), parsed.bits)


def decode_slice(payload: bytes, shape: tuple[int, ...], tables: bytes) -> Any:
    parsed = tables_of(tables, len(shape) == 4)
    require(math.prod(shape) <= 11360 * len(payload), "12.5")
    if len(shape) == 4:
        return transposed_axes(SPEC["decode_volume_slice"](parsed, payload, *shape, parsed.bits))
    planes = SPEC["decode_slice"](parsed, payload, shape[0], *(1, *shape[1:])[-2:], parsed.bits)
    return planes if len(shape) == 3 else [plane[0] for plane in planes]


# ---- 8 model file --------------------------------------------------------------------------------------------------

INTEGER_LIMITS = {
    "channels": (1, 4096),
    "J": (0, 10),
    "latent_dim": (1, 4096),
    "latent_bits": (2, 8),
    "num_stages": (1, 64),
}
FIELDS = {
    "LinearCodec2D": ("channels", "J", "latent_dim", "latent_bits"),
    "LinearCodec3D": ("channels", "J", "latent_dim", "latent_bits"),
    "ResidualCodec2D": ("channels", "J", "latent_dim", "latent_bits", "num_stages"),
    "Codec2D": ("channels", "J", "latent_dim", "latent_bits", "Nd", "Ne", "lightweight_encode"),
    "Codec1D": ("channels", "J", "latent_dim", "latent_bits", "Nd", "Ne", "lightweight_encode", "post_filter"),
}
AXES = {"Codec1D": 1, "LinearCodec3D": 3}  # the others code images
KINDS = {"Codec1D": 1, "LinearCodec3D": 2}


class Model(NamedTuple):
    """A checked model: its configuration's fields, planes of symbols, coder tables, tensors as nested lists."""

    fields: dict[str, Any]
    planes: int
    tables: bytes
    tensors: dict[str, Any]
    identity: str
    weights: bytes


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def canonical(fields: dict[str, Any]) -> str:
    """8.3 and 8.4."""
    architecture = fields.get("architecture")
    require(isinstance(architecture, str) and architecture in FIELDS, "8.3")
    known = {name: fields.get(name) for name in (*FIELDS[architecture], "architecture")}
    for name in FIELDS[architecture]:
        if name in INTEGER_LIMITS:
            low, high = INTEGER_LIMITS[name]
            require(is_integer(known[name]) and low <= known[name] <= high, "8.3 " + name)
        elif name in ("lightweight_encode", "post_filter"):
            require(isinstance(known[name], bool), "8.3 " + name)
    for name in ("Nd", "Ne"):
        if name in known and (name == "Nd" or not known["lightweight_encode"]):
            require(is_integer(known[name]) and 1 <= known[name] <= 8192, "8.3 " + name)
            if architecture == "Codec2D":
                require(known[name] % 32 == 0, "8.3 " + name)
            else:
                require(known[name] >= known["latent_dim"], "8.3 " + name)
    require(known.get("Ne") is None or (is_integer(known["Ne"]) and abs(known["Ne"]) < 10**15), "8.3 Ne")
    axes = AXES.get(architecture, 2)
    require(known["channels"] * 2 ** (axes * known["J"]) <= 65536, "8.3 J")
    parts = []
    for name in sorted(known):
        value = known[name]
        parts.append(f'"{name}":' + json.dumps(value))
    return "{" + ",".join(parts) + "}"


def identity(config: str, tables: bytes, weights: bytes, tensors: dict[str, list[float]]) -> str:
    """8.6; tensors as flat lists."""
    data = b"walloc model 1\n"
    for part in (config.encode(), tables, weights):
        data += struct.pack("<Q", len(part)) + part
    for name in sorted(tensors, key=str.encode):
        data += name.encode() + b"\0" + struct.pack(f"<{len(tensors[name])}f", *tensors[name])
    return hashlib.sha256(data).hexdigest()


def parse_json(data: bytes) -> Any:
    """An object, as strictly as 8.1 says; integers that no field can hold come back as floats."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require(len({name for name, _ in pairs}) == len(pairs), "8.1")
        return dict(pairs)

    def constant(name: str) -> None:
        raise Rejected("8.1")

    def checked(value: Any, depth: int) -> None:
        if isinstance(value, str):
            value.encode()  # half a pair of surrogates is no text
        elif isinstance(value, (dict, list)):
            require(depth <= 8, "8.1")
            for part in [*value, *value.values()] if isinstance(value, dict) else value:
                checked(part, depth + 1)

    def integer(digits: str) -> float:
        return int(digits) if len(digits) < 20 else math.nan

    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant, parse_int=integer)
        checked(value, 1)
    except (ValueError, RecursionError) as error:
        raise Rejected("8.1") from error
    require(isinstance(value, dict), "8.1")
    return value


def from_base64(text: str) -> bytes:
    """8.2: padded, and the bits that the last character has too many are zero."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Rejected("8.2") from error
    require(base64.b64encode(data).decode() == text, "8.2")
    return data


def read_model(data: bytes) -> Model:
    """8.1 to 8.7."""
    reader = Bytes(data)
    header = parse_json(reader.take(*struct.unpack("<Q", reader.take(8))))
    metadata, body, tensors = header.pop("__metadata__", {}), reader.at, {}
    require(isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()), "8.1")
    for entry in header.values():
        require(isinstance(entry, dict) and sorted(entry) == ["data_offsets", "dtype", "shape"], "8.1")
        for numbers in (entry["data_offsets"], entry["shape"]):
            require(isinstance(numbers, list) and all(map(is_integer, numbers)), "8.1")
    require(metadata.get("walloc_ref.format") == "1", "8.2")
    require("walloc_ref.config" in metadata, "8.2")
    config = canonical(parse_json(metadata["walloc_ref.config"].encode()))
    fields = json.loads(config)
    fields.setdefault("num_stages", 1)
    planes = fields["latent_dim"] * fields["num_stages"]
    require(planes <= 4096, "8.3")
    tables = default_tables(planes, fields["latent_bits"])
    if "walloc_ref.entropy" in metadata:
        tables = from_base64(metadata["walloc_ref.entropy"])
    parsed = tables_of(tables, fields["architecture"] == "LinearCodec3D")
    require((parsed.planes, parsed.bits) == (planes, fields["latent_bits"]), "7.3")
    shapes = tensor_shapes(fields)
    require({name: tuple(entry["shape"]) for name, entry in header.items()} == shapes, "8.5")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, size = reader.at - body, math.prod(shapes[name])
        require(entry["dtype"] == "F32" and entry["data_offsets"] == [begin, begin + 4 * size], "8.1")
        tensors[name] = list(struct.unpack(f"<{size}f", reader.take(4 * size)))
        require(all(map(math.isfinite, tensors[name])), "8.7")
    require(reader.at == len(data), "8.1")
    weights = bytes([128] * planes)
    if "walloc_ref.steps" in metadata:
        weights = from_base64(metadata["walloc_ref.steps"])
        require(len(weights) == planes, "8.2")
    model_id = identity(config, tables, weights, tensors)
    require(metadata.get("walloc_ref.id", model_id) == model_id, "8.2")
    return Model(fields, planes, tables, {n: reshape(v, shapes[n]) for n, v in tensors.items()}, model_id, weights)


def tensor_shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """8.5, 9.8, 9.9, 11, 16.4."""
    audio, axes = fields["architecture"] == "Codec1D", AXES.get(fields["architecture"], 2)
    d, bands, ones = fields["latent_dim"], fields["channels"] * 2 ** (axes * fields["J"]), (1,) * axes
    shapes: dict[str, tuple[int, ...]] = {}

    def put(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    if fields["architecture"] == "ResidualCodec2D":
        for s in range(fields["num_stages"]):
            put(f"encoders.{s}", d, bands, 1, 1)
            put(f"decoders.{s}", bands, d, 1, 1)
        return shapes
    full = not fields.get("lightweight_encode", True)
    if not full:
        put("encoder.0", d, bands, *ones)
    if fields["architecture"].startswith("Linear"):
        put("decoder.1", bands, d, *ones)
    elif not audio:
        put_kl(put, "decoder.1.", d, fields["Nd"], bands, [f"up_blocks.0.resnets.{i}" for i in range(3)])
        if full:
            put_kl(put, "encoder.0.", bands, fields["Ne"], d, [f"down_blocks.0.resnets.{i}" for i in range(2)])
    else:
        put_audio(shapes, fields, d, bands, full)
    return shapes


def put_kl(put: Any, prefix: str, inputs: int, width: int, outputs: int, blocks: list[str]) -> None:
    put(prefix + "conv_in", width, inputs, 3, 3)
    for block in ["mid_block.resnets.0", "mid_block.resnets.1", *blocks]:
        for i in "12":
            put(f"{prefix}{block}.norm{i}", width)
            put(f"{prefix}{block}.conv{i}", width, width, 3, 3)
    put(prefix + "mid_block.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        put(f"{prefix}mid_block.attentions.0.{part}", width, width)
    put(prefix + "conv_norm_out", width)
    put(prefix + "conv_out", outputs, width, 3, 3)


# ---- 9 image networks ----------------------------------------------------------------------------------------------


def size_of(x: Any) -> tuple[int, int]:
    """h and w of [N][h][w]."""
    plane, *_ = x
    return len(plane), len(plane[0])


class Network:
    """The functions of section 9 on the tensors below a prefix."""

    def __init__(self, tensors: dict[str, Any], prefix: str) -> None:
        self.tensors, self.prefix = tensors, prefix

    def layer(self, name: str) -> tuple[Any, Any]:
        return self.tensors[f"{self.prefix}{name}.weight"], self.tensors[f"{self.prefix}{name}.bias"]

    def conv(self, name: str, x: Any) -> Any:
        """9.2."""
        weight, bias = self.layer(name)
        h, w = size_of(x)
        out = zeros(len(weight), h, w)
        for i in range(h):
            for j in range(w):
                window, taps = [], []  # the inputs under the kernel that exist, and where they are
                for a in range(max(0, 1 - i), min(3, h + 1 - i)):
                    for b in range(max(0, 1 - j), min(3, w + 1 - j)):
                        window.append((i + a - 1, j + b - 1))
                        taps.append((a, b))
                values = [plane[p][q] for plane in x for p, q in window]
                for o, kernel in enumerate(weight):
                    total = bias[o]
                    at = 0
                    for square in kernel:
                        for a, b in taps:
                            total += square[a][b] * values[at]
                            at += 1
                    out[o][i][j] = total
        return out

    def norm(self, name: str, x: Any) -> Any:
        """9.3."""
        weight, bias = self.layer(name)
        size = len(x) // 32
        out = []
        for q in range(32):
            values = flat(x[q * size : (q + 1) * size])
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            for n in range(q * size, (q + 1) * size):
                scale = weight[n] / math.sqrt(variance + 1e-6)
                out.append([[scale * (v - mean) + bias[n] for v in row] for row in x[n]])
        return out

    def residual(self, name: str, x: Any) -> Any:
        """9.5."""
        y = self.conv(f"{name}.conv1", silu(self.norm(f"{name}.norm1", x)))
        return add(x, self.conv(f"{name}.conv2", silu(self.norm(f"{name}.norm2", y))))

    def attention(self, name: str, x: Any) -> Any:
        """9.6."""
        (h, w), channels = size_of(x), len(x)
        t = self.norm(f"{name}.group_norm", x)
        tokens = [[plane[i][j] for plane in t] for i in range(h) for j in range(w)]
        q, k, v = ([affine(*self.layer(f"{name}.to_{part}"), token) for token in tokens] for part in "qkv")
        out = zeros(channels, h, w)
        for p in range(h * w):
            scores = [sum(a * b for a, b in zip(q[p], key)) / math.sqrt(channels) for key in k]
            powers = [math.exp(score - max(scores)) for score in scores]
            mixed = [sum(e * value[n] for e, value in zip(powers, v)) / sum(powers) for n in range(channels)]
            for n, value in enumerate(affine(*self.layer(f"{name}.to_out.0"), mixed)):
                out[n][p // w][p % w] = value
        return add(x, out)

    def middle(self, x: Any) -> Any:
        """9.7."""
        x = self.residual("mid_block.resnets.0", x)
        x = self.attention("mid_block.attentions.0", x)
        return self.residual("mid_block.resnets.1", x)

    def head(self, x: Any) -> Any:
        return self.conv("conv_out", silu(self.norm("conv_norm_out", x)))

    def decode(self, y: Any) -> Any:
        """9.8."""
        x = self.middle(self.conv("conv_in", y))
        for i in range(3):
            x = self.residual(f"up_blocks.0.resnets.{i}", x)
        return self.head(x)

    def encode(self, bands: Any) -> Any:
        """9.9."""
        x = self.conv("conv_in", bands)
        for i in range(2):
            x = self.residual(f"down_blocks.0.resnets.{i}", x)
        return self.head(self.middle(x))


def silu(x: Any) -> Any:
    """9.4."""
    if isinstance(x, list):
        return [silu(part) for part in x]
    return x / (1 + math.exp(-x)) if x > -700 else 0.0  # below, e^(-x) leaves binary64


def add(a: Any, b: Any, sign: int = 1) -> Any:
    return [add(p, q, sign) for p, q in zip(a, b)] if isinstance(a, list) else a + sign * b


# ---- images: 5.3 and everything together -------------------------------------------------------------------------


def project(model: Model, name: str, x: Any) -> Any:
    weight, bias = model.tensors[name + ".weight"], model.tensors[name + ".bias"]
    return at_every_position(lambda v: affine(weight, bias, v), x)


Coding = tuple[list[float], int, int]
"""Steps of the planes (6.7), window and context (9.11)."""


def scaled(latents: Any, factors: list[float]) -> Any:
    """6.7: every plane times its factor."""

    def times(part: Any, factor: float) -> Any:
        return [times(p, factor) for p in part] if isinstance(part, list) else part * factor

    return [times(plane, factor) for plane, factor in zip(latents, factors)]


def divided(latents: Any, steps: list[float]) -> Any:
    """6.7: every plane over its step."""

    def over(part: Any, step: float) -> Any:
        return [over(p, step) for p in part] if isinstance(part, list) else part / step

    return [over(plane, step) for plane, step in zip(latents, steps)]


def in_windows(network: Any, x: Any, window: int, context: int) -> Any:
    """9.11: a network on every window of [K][h][w]."""
    h, w = size_of(x)
    out: Any = None
    for i in itertools.pairwise(SPEC["edges"](h, window)):
        for j in itertools.pairwise(SPEC["edges"](w, window)):
            top, left = max(0, i[0] - context), max(0, j[0] - context)
            seen = [[row[left : j[1] + context] for row in plane[top : i[1] + context]] for plane in x]
            y = network(seen)
            out = out or [[[0.0] * w for _ in range(h)] for _ in y]
            for plane, part in zip(out, y):
                for row in range(*i):
                    plane[row][j[0] : j[1]] = part[row - top][j[0] - left : j[1] - left]
    return out


def image_symbols(model: Model, x: Any, coding: Coding) -> Any:
    """The padded signal to symbols [D][h][w], or [D][z][h][w]."""
    steps, window, context = coding
    bands, bits = analyse(x, model.fields["J"]), model.fields["latent_bits"]
    if model.fields["architecture"] == "ResidualCodec2D":
        symbols: Any = []
        for s in range(model.fields["num_stages"]):
            own = steps[len(symbols) : len(symbols) + model.fields["latent_dim"]]
            stage = quantise(divided(project(model, f"encoders.{s}", bands), own), bits)
            bands = add(bands, project(model, f"decoders.{s}", scaled(dequantise(stage, bits), own)), -1)
            symbols += stage
        return symbols
    if model.fields.get("lightweight_encode", True):
        return quantise(divided(project(model, "encoder.0", bands), steps), bits)
    encode = Network(model.tensors, "encoder.0.").encode
    return quantise(divided(in_windows(encode, bands, window, context), steps), bits)


def image_signal(model: Model, symbols: Any, coding: Coding) -> Any:
    """Symbols [D][h][w] to the synthesised signal, not clamped."""
    steps, window, context = coding
    latents = scaled(dequantise(symbols, model.fields["latent_bits"]), steps)
    if model.fields["architecture"] == "ResidualCodec2D":
        d = model.fields["latent_dim"]
        bands = project(model, "decoders.0", latents[:d])
        for s in range(1, model.fields["num_stages"]):
            bands = add(bands, project(model, f"decoders.{s}", latents[s * d : (s + 1) * d]))
    elif model.fields["architecture"].startswith("Linear"):
        bands = project(model, "decoder.1", latents)
    else:
        bands = in_windows(Network(model.tensors, "decoder.1.").decode, latents, window, context)
    return synthesise(bands, model.fields["J"])


# ---- 11 audio ------------------------------------------------------------------------------------------------------

AUDIO = {  # full scale, silence, step
    "u8": (2**7, 128, 1),
    "s16": (2**15, 0, 1),
    "s24": (2**31, 0, 256),
    "s32": (2**31, 0, 1),
    "f32": (1, 0, 0),
    "f64": (1, 0, 0),
}


def statistics(samples: Any, sample_format: str) -> tuple[float, float]:
    """Mean and gain (11.2)."""
    return SPEC["statistics"](flat(samples), *AUDIO[sample_format])


def audio_to_signal(samples: Any, sample_format: str, mean: float, gain: float, channels: int, m: int) -> Any:
    """Samples [frames][C'] to the padded signal [C][n*m] (11.3, 11.4)."""
    full, silence, _ = AUDIO[sample_format]
    size = m * -(-len(samples) // m)
    x = zeros(channels, size)
    for c in range(channels):
        for t, frame in enumerate(samples):
            a = (frame[c if len(frame) > 1 else 0] - silence) / full
            x[c][t] = (a - mean) / gain if gain else 0.0
    return x


def signal_to_audio(x: Any, frames: int, scale: tuple[str, float, float], channels: int) -> Any:
    """The clamped signal [C][n*m] to samples [frames][C'] (11.13, 11.14)."""
    form, mean, gain = scale
    full, silence, step = AUDIO[form]
    samples = zeros(frames, channels)
    for t, frame in enumerate(samples):
        values = [channel[t] for channel in x]
        if channels < len(values):
            values = [sum(values) / len(values)]
        for c, value in enumerate(values):
            scaled = gain * value + mean
            if step:
                steps = full // step
                frame[c] = (min(max(rint(scaled * steps), -steps), steps - 1) + silence) * step
            else:
                frame[c] = struct.unpack("<f", struct.pack("<f", scaled))[0] if form == "f32" else scaled
    return samples


def convolve(x: Any, weight: Any, bias: Any, padding: int, dilation: int = 1) -> Any:
    """11.6."""
    n, taps = len(x[0]), len(weight[0][0])
    out = zeros(len(weight), n + 2 * padding - dilation * (taps - 1))
    for o, kernel in enumerate(weight):
        for t in range(len(out[o])):
            total = bias[o] if bias else 0.0
            for row, values in zip(kernel, x):
                for k, factor in enumerate(row):
                    place = t - padding + dilation * k
                    if 0 <= place < n:
                        total += factor * values[place]
            out[o][t] = total
    return out


def transposed(x: Any, weight: Any, bias: Any) -> Any:
    """conv_t1 of 11.10."""
    out = zeros(len(bias), len(x[0]) - 1)
    for o, row in enumerate(out):
        for t in range(len(row)):
            row[t] = bias[o]
            for i, values in enumerate(x):
                row[t] += weight[i][o][0] * values[t + 1] + weight[i][o][1] * values[t]
    return out


class AudioNetwork:
    """The functions of 11.7 to 11.11 on the tensors below a prefix."""

    def __init__(self, tensors: dict[str, Any], prefix: str) -> None:
        self.tensors, self.prefix = tensors, prefix

    def weight(self, name: str) -> Any:
        """11.7."""
        g, v = self.tensors[f"{self.prefix}{name}.weight_g"], self.tensors[f"{self.prefix}{name}.weight_v"]
        out = []
        for scale, kernel in zip(g, v):
            length = math.sqrt(sum(value**2 for value in flat(kernel)))
            require(length > 0, "11.7")
            out.append([[scale[0][0] * value / length for value in row] for row in kernel])
        return out

    def conv(self, name: str, x: Any, padding: int, dilation: int = 1) -> Any:
        return convolve(x, self.weight(name), self.tensors.get(f"{self.prefix}{name}.bias"), padding, dilation)

    def snake(self, name: str, x: Any) -> Any:
        """11.8."""
        alpha, beta = (self.tensors[f"{self.prefix}{name}.{part}"][0] for part in ("alpha", "beta"))
        out = []
        for row, (a,), (b,) in zip(x, alpha, beta):
            out.append([v + math.sin(math.exp(a) * v) ** 2 / (math.exp(b) + 1e-9) for v in row])
        return out

    def units(self, block: str, x: Any) -> Any:
        """11.9."""
        for i, dilation in enumerate((1, 3, 9), 1):
            unit = f"{block}.res_unit{i}"
            y = self.conv(f"{unit}.conv1", self.snake(f"{unit}.snake1", x), 3 * dilation, dilation)
            x = add(x, self.conv(f"{unit}.conv2", self.snake(f"{unit}.snake2", y), 0))
        return x

    def decode(self, y: Any) -> Any:
        """11.10."""
        x = self.conv("conv1", y, 3)
        for block in ("block.0", "block.1"):
            weight, bias = self.weight(f"{block}.conv_t1"), self.tensors[f"{self.prefix}{block}.conv_t1.bias"]
            x = self.units(block, transposed(self.snake(f"{block}.snake1", x), weight, bias))
        return self.conv("conv2", self.snake("snake1", x), 3)

    def encode(self, bands: Any) -> Any:
        """11.11."""
        x = self.conv("conv1", bands, 3)
        for block in ("block.0", "block.1"):
            x = self.units(block, x)
            x = self.conv(f"{block}.conv1", self.snake(f"{block}.snake1", x), 1)
        return self.conv("conv2", self.snake("snake1", x), 1)


def audio_symbols(model: Model, x: Any, steps: list[float]) -> Any:
    """The padded signal to symbols [D][l] (11.4, 11.5, 11.11)."""
    bands = analyse(x, model.fields["J"])
    if model.fields["lightweight_encode"]:
        bias = model.tensors["encoder.0.bias"]
        latents = [[b, *row, b] for b, row in zip(bias, project(model, "encoder.0", bands))]
    else:
        latents = AudioNetwork(model.tensors, "encoder.0.").encode(bands)
    return quantise(divided(latents, steps), model.fields["latent_bits"])


def audio_signal(model: Model, symbols: Any, steps: list[float]) -> Any:
    """Symbols to the synthesised and filtered signal, not clamped (11.10, 11.12)."""
    latents = scaled(dequantise(symbols, model.fields["latent_bits"]), steps)
    x = synthesise(AudioNetwork(model.tensors, "decoder.1.").decode(latents), model.fields["J"])
    if model.fields["post_filter"]:
        x = convolve(x, model.tensors["post.weight"], model.tensors["post.bias"], 64)
    return x


def put_audio(shapes: dict[str, Any], fields: dict[str, Any], d: int, bands: int, full: bool) -> None:
    """11.5, 11.10 to 11.12."""

    def conv(name: str, a: int, b: int, taps: int, bias: int) -> None:
        shapes[name + ".weight_g"], shapes[name + ".weight_v"] = (a, 1, 1), (a, b, taps)
        if bias:
            shapes[name + ".bias"] = (bias,)

    def snake(name: str, channels: int) -> None:
        shapes[name + ".alpha"] = shapes[name + ".beta"] = (1, channels, 1)

    def units(block: str, channels: int) -> None:
        for i in range(1, 4):
            for part, taps in ((1, 7), (2, 1)):
                snake(f"{block}.res_unit{i}.snake{part}", channels)
                conv(f"{block}.res_unit{i}.conv{part}", channels, channels, taps, channels)

    wide = d * (fields["Nd"] // d)
    conv("decoder.1.conv1", wide, d, 7, wide)
    for block, outputs in (("decoder.1.block.0", wide), ("decoder.1.block.1", d)):
        snake(f"{block}.snake1", wide)
        conv(f"{block}.conv_t1", wide, outputs, 2, outputs)
        units(block, outputs)
    snake("decoder.1.snake1", d)
    conv("decoder.1.conv2", bands, d, 7, 0)
    if full:
        wide = d * (fields["Ne"] // d)
        conv("encoder.0.conv1", d, bands, 7, d)
        for block, inputs in (("encoder.0.block.0", d), ("encoder.0.block.1", wide)):
            units(block, inputs)
            snake(f"{block}.snake1", inputs)
            conv(f"{block}.conv1", wide, inputs, 2, wide)
        snake("encoder.0.snake1", wide)
        conv("encoder.0.conv2", d, wide, 3, d)
    if fields["post_filter"]:
        shapes["post.weight"], shapes["post.bias"] = (
            (fields["channels"], fields["channels"], 129),
            (fields["channels"],),
        )


# ---- 10 container --------------------------------------------------------------------------------------------------


def crc32(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def section(tag: int, payload: bytes) -> bytes:
    """10.2."""
    body = bytes([tag]) + varint(len(payload)) + payload
    return body + u32(crc32(body))


def symbol_hash(symbols: Any) -> bytes:
    """10.9."""
    values = flat(symbols)
    return hashlib.sha256(struct.pack(f"<{len(values)}h", *values)).digest()[:8]


def write_stream(head: bytes, slices: list[bytes]) -> bytes:
    """10.1 and 10.8, without ancillary sections."""
    table = varint(len(slices)) + b"".join(varint(len(part)) + u32(crc32(part)) for part in slices)
    start = bytes([2]) + varint(len(table) + 4 + sum(map(len, slices))) + table
    return bytes.fromhex("89574c4301") + section(1, head) + start + u32(crc32(start)) + b"".join(slices)


class Bytes:
    """A place in some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        require(n <= len(self.data) - self.at, "12.2")
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self, low: int = 0, high: float = math.inf) -> int:
        """1.6."""
        value = 0
        for i in range(9):
            byte = self.byte()
            value += byte % 128 << 7 * i
            if byte < 128:
                require(byte > 0 or i == 0, "1.6")
                require(low <= value <= high, "10.6")
                return value
        raise Rejected("1.6")


def read_stream(data: bytes, max_samples: int = 2**30) -> dict[str, Any]:
    """Section 10: the fields of HEAD, the slices' payloads, the certificate."""
    reader = Bytes(data)
    require(reader.take(4) == bytes.fromhex("89574c43") and reader.byte() == 1, "10.1")
    stream: dict[str, Any]
    seen: set[int] = set()
    while True:
        start = reader.at
        tag = reader.byte()
        require((tag == 1) == (not seen), "10.3")
        length = reader.varint()
        if tag == 2:
            break
        payload = Bytes(reader.take(length))
        crc = crc32(data[start : reader.at])
        require(reader.take(4) == u32(crc), "10.2")
        require(tag >= 0x80 or tag == 1, "10.4")
        require(tag not in seen or tag not in (1, 0x81, 0x82, 0x83, 0x84), "10.3")
        seen.add(tag)
        if tag == 1:
            stream = read_head(payload)
            require(stream["channels"] * math.prod(stream["sizes"]) <= max_samples, "12.4")
        if tag == 0x81:
            stream["certificate"] = read_certificate(payload, stream["channels"] * math.prod(stream["sizes"]))
    require(reader.at + length == len(data), "10.8")
    count = reader.varint()
    require(count == -(-stream["latent_sizes"][0] // stream["slice_size"]), "10.8")
    table = []
    for _ in range(count):
        size = reader.varint()
        table.append((size, reader.take(4)))
    crc = crc32(data[start : reader.at])
    require(reader.take(4) == u32(crc), "10.8")
    stream["slices"] = []
    for size, recorded in table:
        stream["slices"].append(reader.take(size))
        require(u32(crc32(stream["slices"][-1])) == recorded, "10.8")
    require(reader.at == len(data), "10.8")
    return stream


def read_head(payload: Bytes) -> dict[str, Any]:
    """10.5 and 10.6."""
    kind, code = payload.byte(), payload.byte()
    require(kind <= 2 and code < len(FORMATS), "10.5")
    require(FORMATS[code] in (IMAGE_FORMATS, AUDIO_FORMATS, IMAGE_FORMATS)[kind], "10.5")
    head: dict[str, Any] = {"kind": kind, "format": FORMATS[code], "channels": payload.varint(1, 4096)}
    head["sizes"] = [payload.varint(1, 2**40 - 1) for _ in range((2, 1, 3)[kind])]
    head["mean"], head["gain"] = 0.0, 1.0
    if kind == 1:
        head["rate"] = payload.varint(1, 2**32 - 1)
    if kind == 1 or head["format"] == "f32":
        head["mean"], head["gain"] = struct.unpack("<dd", payload.take(16))
        require(math.isfinite(head["mean"]) and math.isfinite(head["gain"]) and head["gain"] >= 0, "10.6")
    head["model"] = payload.take(16)
    head["J"], head["D"], head["b"] = payload.byte(), payload.varint(1, 4096), payload.byte()
    (head["step"],) = struct.unpack("<I", payload.take(4))
    head["weighted"] = payload.byte()
    require(2**6 <= head["step"] <= 2**26 and head["weighted"] <= 1, "10.6")
    head["window"] = payload.varint(0, 2**40 - 1) if kind == 0 else 0
    require(head["window"] == 0 or head["window"] >= 8, "10.6")
    head["context"] = payload.varint(0, head["window"]) if head["window"] else 0
    head["slice_size"] = payload.varint(1, 2**40 - 1)
    head["symbol_hash"] = payload.take(8)
    require(payload.at == len(payload.data) and head["J"] <= 10 and 2 <= head["b"] <= 8, "10.6")
    head["latent_sizes"] = [-(-n // 2 ** head["J"]) + 2 * (kind == 1) for n in head["sizes"]]
    require(head["slice_size"] <= head["latent_sizes"][0], "10.6")
    return head


def read_certificate(payload: Bytes, samples: int) -> tuple[bytes, list[int]]:
    """10.10."""
    digest, count = payload.take(32), payload.varint()
    indices, at = [], -1
    for _ in range(count):
        at += 1 + payload.varint()
        require(at < samples, "10.10")
        indices.append(at)
    require(payload.at == len(payload.data), "10.10")
    return digest, indices


# ---- everything together -------------------------------------------------------------------------------------------


def coding_of(model: Model, stream: dict[str, Any]) -> Coding:
    """6.7, 6.8, 9.11: what a stream says of its steps and windows."""
    steps = SPEC["plane_steps"](stream["step"], stream["weighted"], model.weights)
    return steps, stream["window"], stream["context"]


def encode(model: Model, samples: Any, sample_format: str, coding: dict[str, int]) -> bytes:
    """An image [H][W][C'], or a volume [Z][H][W][C'], to a stream."""
    fields = model.fields
    axes = AXES.get(fields["architecture"], 2)
    sizes = [len(samples), len(samples[0]), len(samples[0][0])][:axes]
    mean, gain = statistics(samples, "f32") if sample_format == "f32" else (0.0, 1.0)
    x = image_to_signal(samples, (sample_format, mean, gain), fields["channels"], 2 ** fields["J"], axes)
    symbols = image_symbols(model, x, coding_of(model, coding))
    channels = len(samples[0][0]) if axes == 2 else len(samples[0][0][0])
    head = bytes([KINDS.get(fields["architecture"], 0), FORMATS.index(sample_format)]) + varint(channels)
    head += b"".join(map(varint, sizes)) + (struct.pack("<dd", mean, gain) if sample_format == "f32" else b"")
    return finish(model, head, symbols, coding)


def encode_audio(model: Model, samples: Any, sample_format: str, rate: int, coding: dict[str, int]) -> bytes:
    """Audio [frames][C'] to a stream."""
    fields = model.fields
    mean, gain = statistics(samples, sample_format)
    x = audio_to_signal(samples, sample_format, mean, gain, fields["channels"], 2 ** fields["J"])
    head = bytes([1, FORMATS.index(sample_format)]) + varint(len(samples[0])) + varint(len(samples)) + varint(rate)
    symbols = audio_symbols(model, x, coding_of(model, coding)[0])
    return finish(model, head + struct.pack("<dd", mean, gain), symbols, coding)


def finish(model: Model, head: bytes, symbols: Any, coding: dict[str, int]) -> bytes:
    """Symbols to slices and the stream; `head` is HEAD's payload as far as the model (10.5)."""
    positions = len(symbols[0])
    across = len(flat(symbols[0][0]))  # 10.8, 16.7
    size = min(max(16 if depth_of(symbols) == 4 else 32, 2**18 // (model.planes * across)), positions)
    slices = []
    for start in range(0, positions, size):
        slices.append(encode_slice([plane[start : start + size] for plane in symbols], model.tables))
    head += bytes.fromhex(model.identity)[:16] + bytes([model.fields["J"]]) + varint(model.planes)
    head += bytes([model.fields["latent_bits"]]) + struct.pack("<IB", coding["step"], coding["weighted"])
    if model.fields["architecture"] not in KINDS:
        head += varint(coding["window"]) + (varint(coding["context"]) if coding["window"] else b"")
    head += varint(size) + symbol_hash(symbols)
    return write_stream(head, slices)


def decode_symbols(model: Model, data: bytes) -> tuple[dict[str, Any], Any]:
    """A stream to its fields and its symbols."""
    stream = read_stream(data)
    fields = model.fields
    require(stream["model"] == bytes.fromhex(model.identity)[:16], "8.8")
    require((stream["J"], stream["D"], stream["b"]) == (fields["J"], model.planes, fields["latent_bits"]), "10.7")
    require(stream["kind"] == KINDS.get(fields["architecture"], 0), "10.7")
    require(stream["channels"] in (1, fields["channels"]), "10.7")
    require(stream["window"] == 0 or fields["architecture"] == "Codec2D", "10.7")
    symbols: list[Any] = [[] for _ in range(model.planes)]
    positions, size = stream["latent_sizes"][0], stream["slice_size"]
    for i, payload in enumerate(stream["slices"]):
        shape = (model.planes, min(size, positions - i * size), *stream["latent_sizes"][1:])
        for plane, part in zip(symbols, decode_slice(payload, shape, model.tables)):
            plane += part
    require(symbol_hash(symbols) == stream["symbol_hash"], "10.9")
    return stream, symbols


def decode(model: Model, data: bytes) -> Any:
    """A stream to samples [H][W][C'], [frames][C'] or [Z][H][W][C']."""
    stream, symbols = decode_symbols(model, data)
    coding, scale = coding_of(model, stream), (stream["format"], stream["mean"], stream["gain"])
    if stream["kind"] == 1:
        (frames,), x = stream["sizes"], clamped(audio_signal(model, symbols, coding[0]))
        samples = signal_to_audio(x, frames, scale, stream["channels"])
    else:
        x = clamped(image_signal(model, symbols, coding))
        samples = signal_to_image(x, stream["sizes"], scale, stream["channels"], 2 ** model.fields["J"])
    if "certificate" in stream and stream["format"] not in ("f32", "f64"):  # 10.11
        digest, uncertain = stream["certificate"]
        values = flat(samples)
        for index in uncertain:
            values[index] = 0
        packed = struct.pack(f"<{len(values)}{STRUCT[stream['format']]}", *values)
        require(hashlib.sha256(packed).digest() == digest, "10.11")
    return samples
