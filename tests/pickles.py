"""Checkpoints written by hand, opcode by opcode, so that tests need no PyTorch and any part of them can be wrong."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from walloc_ref.model import Model

STORAGE_CLASSES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "bf16": "BFloat16Storage",
    "i8": "LongStorage",
}


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


def global_(module: str, name: str) -> bytes:
    """A GLOBAL opcode."""
    return f"c{module}\n{name}\n".encode()


def value(x: Any) -> bytes:
    """Opcodes that make a value, protocol 2."""
    if isinstance(x, Raw):
        return x.code
    if x is None:
        return b"N"
    if isinstance(x, bool):
        return b"\x88" if x else b"\x89"
    if isinstance(x, int):
        if 0 <= x < 256:
            return b"K" + bytes([x])
        if -(1 << 31) <= x < 1 << 31:
            return b"J" + struct.pack("<i", x)
        body = pickle.encode_long(x)
        return b"\x8a" + bytes([len(body)]) + body
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    if isinstance(x, str):
        text = x.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(x, tuple):
        return b"(" + b"".join(map(value, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(value, x)) + b"e"
    if isinstance(x, Mapping):
        return b"}(" + b"".join(value(k) + value(v) for k, v in x.items()) + b"u"
    raise TypeError(type(x))


def instance(module: str, name: str, state: Mapping[str, Any]) -> Raw:
    """An object of some class with these attributes, as protocol 2 pickles it."""
    return Raw(global_(module, name) + b")\x81" + value(state) + b"b")


def call(module: str, name: str, *arguments: Any) -> Raw:
    """A function called while unpickling."""
    return Raw(global_(module, name) + value(arguments) + b"R")


def storage(key: str, kind: str, count: int) -> Raw:
    """The persistent identifier of a storage."""
    parts = ("storage", Raw(global_("torch", STORAGE_CLASSES[kind])), key, "cpu", count)
    return Raw(value(parts) + b"Q")


def tensor(key: str, kind: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Raw:
    """A tensor in a storage."""
    hooks = call("collections", "OrderedDict")
    return call("torch._utils", "_rebuild_tensor_v2", storage(key, kind, count), offset, shape, strides, False, hooks)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an array in C order, in elements."""
    return tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))


def archive(
    pickled: bytes, storages: Mapping[str, bytes], *, name: str = "archive", compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip file like that of torch.save."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr(f"{name}/data.pkl", pickled)
        file.writestr(f"{name}/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"{name}/data/{key}", data)
        file.writestr(f"{name}/version", "3\n")
    return out.getvalue()


def program(root: Any) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + value(root) + b"."


def parts(
    model: Model, *, kind: str = "f4", config: str | None = "__main__ Config"
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Root object and storages of a checkpoint of a model.

    `config` names the class of the pickled configuration ("module name", or "dict"); None leaves it out.
    """
    state: dict[str, Any] = {"wt.h0_col": tensor("filter", "f4", 9, (1, 1, 9, 1), (9, 9, 1, 1))}
    storages = {"filter": np.arange(9, dtype="<f4").tobytes()}
    for number, (key, array) in enumerate(model.tensors.items()):
        state[key] = tensor(str(number), kind, array.size, array.shape, strides_of(array.shape))
        if kind == "bf16":
            storages[str(number)] = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            storages[str(number)] = array.astype("<" + kind).tobytes()
    root: dict[str, Any] = {
        "i_epoch": 7,
        "learning_rates": [0.1, 0.01],
        "dist_losses": [1.5, 0.25],
        "model_state_dict": state,
    }
    fields = {name: x for name, x in vars(model.config).items() if name != "architecture"} | {
        "batch_size": 64,
        "lr": [1.0],
    }
    if config == "dict":
        root["config"] = fields
    elif config is not None:
        root["config"] = instance(*config.split(), fields)
    return root, storages


def checkpoint(model: Model, **options: Any) -> bytes:
    """A whole checkpoint of a model."""
    root, storages = parts(model, **options)
    return archive(program(root), storages)
