"""Checkpoints of the upstream (`.pth`) to models, without PyTorch and without unpickling.

A checkpoint is a zip archive of stored, not compressed, entries:

    NAME/data.pkl      a pickle: model_state_dict and, in older files, config, args, i_epoch, learning_rates, dist_losses
    NAME/data/KEY      the bytes of one storage, which tensors refer to by its KEY
    NAME/byteorder     "little" or "big" (newer files)

A pickle is a program. Python's unpickler runs whatever it names; here its opcodes are interpreted on inert values only.
Four rules:

1. Nothing is imported on the file's word. A global becomes a `Global`, two strings; calling one gives a tensor's
   description for `_rebuild_tensor_v2`, a dictionary for `OrderedDict`, and else a `Record`, that keeps what was set on it.
2. A global of the standard library that no checkpoint has (os.system, builtins.eval, …) is refused, though it would stay
   inert: such a file is not what it says.
3. Every declared size is compared with the payload before anything is allocated, and a storage's elements are read at
   most once, so that the result is no larger than the file. Numbers of opcodes, containers and entries are limited.
4. Nothing walks through what was unpickled, because shared parts can make that exponential: the state dictionary and the
   configuration are looked at one level deep.

Source of the format: `torch/serialization.py` and `torch/_utils.py`.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import LimitExceeded, MalformedModel
from walloc_ref.model import ARCHITECTURES, Config, Model, check_tensors
from walloc_ref.stages import entropy

MAX_ENTRIES = 1 << 16
"""Entries of the zip archive; a checkpoint has one for each tensor."""

MAX_PICKLE_BYTES, MAX_OPCODES, MAX_CONTAINERS = 1 << 26, 1 << 22, 1 << 18
"""Limits of data.pkl: its length, its opcodes (a list of a million losses has a million), and lists, dictionaries and
records in it (an empty one takes 64 times the byte that makes it)."""

MAX_WORK = 2 * MAX_OPCODES
"""Items that are copied because one opcode asks for it, and characters of names that are looked at: what was built once
can be named in a byte or two, so that their number is not bounded by that of the opcodes."""

MAX_CONFIG_BYTES = 1 << 20
"""Longest .json of a configuration."""

MAX_AXES, MAX_NUMBER = 8, 1 << 40
"""Most axes of a tensor, largest size, stride or offset."""

MAX_TEXT = 80
"""Characters of a foreign name that an error message repeats."""

LOCAL_HEADER = struct.Struct("<4s5HIIIHH")
"""A zip entry's own header: signature, version, flags, method, time, date, CRC, sizes, lengths of name and extra field."""

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of what PyTorch wrote before 1.6."""

STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
"""Element type of each class of storage; bf16 is the upper half of a float32."""

FLOATS = ("f4", "f8", "f2", "bf16")
"""Element types that a tensor of the model may have."""

STATE_KEYS = ("model_state_dict", "state_dict")
"""Where the state dictionary is found; else the checkpoint itself is one."""

CONFIG_KEYS = ("config", "args", "codec_config")
"""Where a pickled configuration is found."""

COMPILED = "_orig_mod."
"""What torch.compile puts before the names in a module that it compiled, which may be a part of the model."""

FILTER_PREFIXES = ("wt.", "iwt.")
"""Tensors of the wavelet, which is fixed and so no part of a model."""

SWITCHES = ("lightweight_encode", "post_filter")
"""Fields of the configuration that are true or false; scripts that take them as numbers write 1 or 0."""

INERT_MODULES = frozenset({"__main__", "argparse", "types", "collections", "copyreg", "copy_reg", "_codecs", "pathlib"})
"""Modules of the standard library whose objects occur in honest checkpoints."""

INERT_BUILTINS = frozenset(
    "bool bytearray bytes complex dict float frozenset int list object set slice str tuple".split()  # noqa: SIM905
)
"""Built-in types that occur in honest checkpoints."""

TENSOR_NAME = re.compile("[A-Za-z0-9_.]{1,200}")
"""What a name in the state dictionary looks like."""

_MARK = object()
"""Where a MARK opcode stood on the stack."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return _text(f"{self.module}.{self.name}")


@dataclass(slots=True, eq=False)
class Record:
    """An object of some class, as what was set on it."""

    of: Global
    fields: dict[str | int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Elements in an entry of the archive."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A view of a storage, all sizes checked against it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint says about a model.

    Attributes
    ----------
    fields : mapping
        The configuration as far as it was found: upstream's names, numbers, booleans or None.
    tensors : mapping of str to float32 array
        Without those of the wavelet.
    rounded : tuple of str
        Tensors of float64 that float32 does not hold exactly; they were rounded to nearest.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.float32]]
    rounded: tuple[str, ...] = ()


# ---- the whole -----------------------------------------------------------------------------------------------------


def to_model(checkpoint: Checkpoint, name: str) -> Model:
    """The model of a checkpoint, with default entropy tables.

    Raises
    ------
    MalformedModel
        Not an architecture of the upstream, or configuration and tensors do not fit each other.
    """
    config = Config.from_fields(_completed(checkpoint.fields, checkpoint.tensors))
    check_tensors(config, checkpoint.tensors)  # before tables of a declared size are made
    return Model(config, checkpoint.tensors, entropy.default_tables(config.planes, config.latent_bits), name)


def read(data: bytes, config: bytes | None = None) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    data : bytes
        The `.pth` file.
    config : bytes, optional
        The `.json` file beside it; else the configuration comes from the checkpoint.

    Raises
    ------
    MalformedModel, LimitExceeded
        Not a checkpoint, a damaged one, or one that does what checkpoints do not.
    """
    archive = _Archive(data)
    root = _Interpreter(archive).run(archive.pickle())
    state = _state_dictionary(root)
    fields = _read_json(config) if config is not None else _pickled_config(root)
    tensors: dict[str, NDArray[np.float32]] = {}
    rounded: list[str] = []
    used: dict[str, int] = {}
    for name, tensor in state.items():
        if name.startswith(FILTER_PREFIXES):
            continue
        if 0 in tensor.shape:
            raise MalformedModel(f"tensor {name}", f"shape {list(tensor.shape)}", "no size 0")
        storage = tensor.storage
        used[storage.key] = used.get(storage.key, 0) + math.prod(tensor.shape)
        if used[storage.key] > storage.count:
            raise MalformedModel(f"tensor {name}", f"storage {_text(storage.key)} again", "no shared elements")
        tensors[name], exact = _to_float32(archive.view(tensor), name, storage.kind)
        if not exact:
            rounded.append(name)
    return Checkpoint(fields, tensors, tuple(rounded))


def _completed(fields: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The configuration with what only the tensors tell: the class, and fields that older checkpoints lack."""
    known: dict[str, Any] = {"Ne": None, **fields}
    linear_encoder = "encoder.0.weight" in tensors
    stages = sum(1 for name in tensors if name.startswith("encoders.") and name.endswith(".weight"))
    if stages:
        found = "ResidualCodec2D"
        known.setdefault("num_stages", stages)
    elif "decoder.1.conv_in.weight" in tensors:
        found = "Codec2D"
    elif "decoder.1.conv1.weight_v" in tensors:
        found = "Codec1D"
        known.setdefault("post_filter", "post.weight" in tensors)
    elif "decoder.1.weight" in tensors:
        found = "LinearCodec3D" if tensors["decoder.1.weight"].ndim == 5 else "LinearCodec2D"
    else:
        names = ", ".join(list(tensors)[:3]) or "none"
        raise MalformedModel("checkpoint.tensors", names, f"those of {', '.join(ARCHITECTURES)}")
    known.setdefault("lightweight_encode", linear_encoder)
    known["architecture"] = found
    return known


def _state_dictionary(root: object) -> dict[str, Tensor]:
    """Names and tensors of the model."""
    if not isinstance(root, dict):
        raise MalformedModel("checkpoint", type(root).__name__, "a dictionary with model_state_dict")
    state = next((root[key] for key in STATE_KEYS if key in root), root)
    if not isinstance(state, dict) or not state:
        raise MalformedModel("checkpoint.model_state_dict", type(state).__name__, "a dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not TENSOR_NAME.fullmatch(name):
            raise MalformedModel("checkpoint.model_state_dict", _text(name), "names of letters, digits, _ and dots")
        if not isinstance(tensor, Tensor):
            raise MalformedModel(f"checkpoint.model_state_dict.{name}", type(tensor).__name__, "a tensor")
    plain = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise MalformedModel("checkpoint.model_state_dict", "a name with and without " + COMPILED, "one of them")
    state = plain
    if all(name.startswith("module.") for name in state):  # of a model that was trained on several devices
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    norms = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    for new, old in norms.items():  # newer and older names of a weight normalisation
        state = {name.removesuffix(new) + old if name.endswith(new) else name: t for name, t in state.items()}
    return state


def _pickled_config(root: object) -> dict[str, Any]:
    """The configuration in a checkpoint, if there is one."""
    assert isinstance(root, dict)
    for key in CONFIG_KEYS:
        found = root.get(key)
        if isinstance(found, Record):
            return _scalars(found.fields)
        if isinstance(found, dict):
            return _scalars(found)
    raise MalformedModel(
        "checkpoint.config", "missing", "a configuration; name the .json that belongs to the checkpoint"
    )


def _read_json(data: bytes) -> dict[str, Any]:
    """The configuration in a .json file."""
    if len(data) > MAX_CONFIG_BYTES:
        raise LimitExceeded("config", f"{len(data)} bytes", f"at most {MAX_CONFIG_BYTES}")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedModel("config", "not JSON", "a JSON object") from error
    if not isinstance(fields, dict):
        raise MalformedModel("config", type(fields).__name__, "a JSON object")
    return _scalars(fields)


def _scalars(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields that define a model: integers, also where they are written as 2.0, true or false, or None.

    Anything that is no scalar is refused, before it could be printed.
    """
    wanted = frozenset().union(*(record.fields for record in ARCHITECTURES.values()))
    found: dict[str, Any] = {}
    for key in sorted(wanted & {key for key in fields if isinstance(key, str)}):
        value = fields[key]
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and value in (0, 1) and key in SWITCHES:
            value = bool(value)
        if value is not None and not (isinstance(value, (bool, int)) and abs(value) <= MAX_NUMBER):
            raise MalformedModel(f"config.{key}", _text(value), "an integer, true or false")
        found[key] = value
    return found


def _to_float32(tensor: NDArray[Any], name: str, kind: str) -> tuple[NDArray[np.float32], bool]:
    """A tensor in binary32, and whether that is exact."""
    if kind not in FLOATS:
        raise MalformedModel(f"tensor {name}", kind, "floating-point numbers")
    if kind == "bf16":
        return (tensor.astype(np.uint32) << 16).view(np.float32), True
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as not finite
        result = np.array(tensor, dtype=np.float32, order="C")
        exact = kind != "f8" or bool((result == tensor).all())
    return result, exact


def _text(value: object) -> str:
    """A foreign value for a message, short and in one line; of anything but a scalar, its type."""
    if isinstance(value, str):
        text = value[:MAX_TEXT].encode("unicode_escape").decode("ascii")
        return text if len(value) <= MAX_TEXT else text + "…"
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return "a huge integer"
    return str(value) if value is None or isinstance(value, (bool, int, float)) else type(value).__name__


# ---- the archive ---------------------------------------------------------------------------------------------------


class _Archive:
    """The entries of a zip archive, read in place."""

    def __init__(self, data: bytes) -> None:
        if data.startswith(LEGACY_MAGIC):
            raise MalformedModel("checkpoint", "the format before PyTorch 1.6", "a zip archive; save it again")
        if data.count(b"PK\x01\x02") > MAX_ENTRIES:
            raise LimitExceeded("checkpoint.entries", f"over {MAX_ENTRIES}", f"at most {MAX_ENTRIES}")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = archive.infolist()
        except Exception as error:  # zipfile raises whatever its parsing runs into
            raise MalformedModel(
                "checkpoint", "not a zip archive", f"what torch.save writes ({_text(str(error))})"
            ) from error
        self.data = data
        self.checked: set[str] = set()
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.filename in self.entries:
                raise MalformedModel("checkpoint.entry", _text(entry.filename), "no name twice")
            self.entries[entry.filename] = entry
        pickles = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise MalformedModel("checkpoint", f"{len(pickles)} entries NAME/data.pkl", "one, as torch.save writes it")
        self.root = pickles[0].removesuffix("data.pkl")
        order = bytes(self.read("byteorder")) if self.root + "byteorder" in self.entries else b"little"
        if order not in (b"little", b"big"):
            raise MalformedModel("checkpoint.byteorder", _text(order.decode("latin-1")), "little or big")
        self.order = "<" if order == b"little" else ">"

    def pickle(self) -> bytes:
        """The bytes of data.pkl."""
        found = self.read("data.pkl")
        if len(found) > MAX_PICKLE_BYTES:
            raise LimitExceeded("checkpoint.data.pkl", f"{len(found)} bytes", f"at most {MAX_PICKLE_BYTES}")
        return bytes(found)

    def size(self, name: str) -> int:
        """Length of an entry."""
        entry = self.entries.get(self.root + name)
        if entry is None:
            raise MalformedModel("checkpoint.entry", _text(self.root + name), "an entry of the archive")
        return entry.file_size

    def read(self, name: str) -> memoryview:
        """An entry, without a copy; its own header and its CRC are checked."""
        self.size(name)
        entry = self.entries[self.root + name]
        what = f"checkpoint.entry {_text(entry.filename)}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise MalformedModel(what, "compressed or encrypted", "stored as it is, as torch.save does")
        at = entry.header_offset
        if at < 0 or at + LOCAL_HEADER.size > len(self.data):
            raise MalformedModel(what, f"offset {at}", f"within {len(self.data)} bytes")
        signature, *_, name_length, extra_length = LOCAL_HEADER.unpack_from(self.data, at)
        start = at + LOCAL_HEADER.size + name_length + extra_length
        if signature != b"PK\x03\x04" or start + entry.file_size > len(self.data):
            raise MalformedModel(what, f"{entry.file_size} bytes at {start}", f"within {len(self.data)} bytes")
        found = memoryview(self.data)[start : start + entry.file_size]
        if name not in self.checked and zlib.crc32(found) != entry.CRC:
            raise MalformedModel(what, f"CRC {zlib.crc32(found):08x}", f"{entry.CRC:08x}; the file is damaged")
        self.checked.add(name)  # once: many tensors may lie in one storage
        return found

    def view(self, tensor: Tensor) -> NDArray[Any]:
        """The elements of a tensor, without a copy. bf16 comes as uint16."""
        storage = tensor.storage
        dtype = np.dtype(self.order + ("u2" if storage.kind == "bf16" else storage.kind))
        elements = np.frombuffer(self.read(f"data/{storage.key}"), dtype=dtype)
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)


# ---- the pickle ----------------------------------------------------------------------------------------------------


class _Interpreter:
    """Runs the opcodes of a pickle on inert values."""

    def __init__(self, archive: _Archive) -> None:
        self.archive = archive
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.containers = 0
        self.work = 0

    def run(self, data: bytes) -> Any:
        """The value of a pickle.

        Raises
        ------
        MalformedModel, LimitExceeded
        """
        end = 0
        for count, (opcode, argument, position) in enumerate(_opcodes(data)):
            if count >= MAX_OPCODES:
                raise LimitExceeded("checkpoint.data.pkl", f"over {MAX_OPCODES} opcodes", f"at most {MAX_OPCODES}")
            try:
                if opcode == "STOP":
                    end = position + 1
                    break
                self.step(opcode, argument)
            except (IndexError, KeyError) as error:
                raise _bad_opcode(opcode, position, "a value that is not there") from error
            except _Unfit as error:
                raise _bad_opcode(opcode, position, str(error)) from error
        if end != len(data) or len(self.stack) != 1 or self.stack[0] is _MARK:
            found = f"{len(self.stack)} values and {len(data) - end} bytes"
            raise MalformedModel("checkpoint.data.pkl", f"{found} at its end", "one value and nothing more")
        return self.stack.pop()

    def step(self, opcode: str, argument: Any) -> None:
        """Run one opcode."""
        stack = self.stack
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            stack.append(argument)
        elif opcode in ("PROTO", "FRAME"):
            pass
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.top()
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append(self.counted([]))
        elif opcode == "EMPTY_DICT":
            stack.append(self.counted({}))
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(self.counted(tuple(reversed([self.pop() for _ in range(int(opcode[-1]))]))))
        elif opcode == "TUPLE":
            stack.append(self.counted(tuple(self.to_mark())))
        elif opcode in ("LIST", "FROZENSET"):
            stack.append(self.counted(self.to_mark()))
        elif opcode == "DICT":
            stack.append(self.put({}, self.to_mark()))
            self.counted({})
        elif opcode in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [self.pop()] if opcode == "APPEND" else self.to_mark()
            if isinstance(self.top(), list):
                self.top().extend(values)
            elif not isinstance(self.top(), Record):  # of a subclass of list, whose items nobody needs
                raise _Unfit(f"appends to {type(self.top()).__name__}")
        elif opcode in ("SETITEM", "SETITEMS"):
            values = [self.pop(), self.pop()][::-1] if opcode == "SETITEM" else self.to_mark()
            self.put(self.top(), values)
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            if opcode == "GLOBAL":
                module, _, name = argument.partition(" ")
            else:
                name, module = self.pop(), self.pop()
            self.works(sum(len(text) for text in (module, name) if isinstance(text, str)))
            stack.append(_named(module, name))
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            stack.append(self.call(function, arguments))
        elif opcode == "NEWOBJ_EX":
            _, arguments, function = self.pop(), self.pop(), self.pop()
            stack.append(self.call(function, arguments))
        elif opcode == "OBJ":
            values = self.to_mark()
            stack.append(self.call(values[0], tuple(values[1:])))
        elif opcode == "INST":
            module, _, name = argument.partition(" ")
            stack.append(self.call(_named(module, name), tuple(self.to_mark())))
        elif opcode == "BUILD":
            self.build(self.pop())
        elif opcode == "BINPERSID":
            stack.append(self.storage(self.pop()))
        elif opcode == "POP":
            stack.pop()
        elif opcode == "POP_MARK":
            self.to_mark()
        elif opcode == "DUP":
            stack.append(self.top())
        else:
            raise _Unfit("no opcode of a checkpoint")

    def top(self) -> Any:
        """The value on top of the stack."""
        if self.stack[-1] is _MARK:
            raise _Unfit("a mark in the place of a value")
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the value on top of the stack."""
        self.top()
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        values = []
        while self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def counted(self, container: Any) -> Any:
        """The container, if there are not too many by now."""
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise LimitExceeded("checkpoint.data.pkl", f"over {MAX_CONTAINERS} containers", f"at most {MAX_CONTAINERS}")
        return container

    def works(self, amount: int) -> None:
        """Count work that an opcode asks for, beyond what it takes from the stack."""
        self.work += amount
        if self.work > MAX_WORK:
            raise LimitExceeded("checkpoint.data.pkl", f"over {MAX_WORK} items copied", f"at most {MAX_WORK}")

    def put(self, target: Any, values: list[Any]) -> Any:
        """Set the items key, value, key, value, …"""
        items = target.fields if isinstance(target, Record) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise _Unfit(f"sets items of {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2]):
            # Format note: no other keys, because integers can be chosen so that all collide.
            if not isinstance(key, str) and not (type(key) is int and abs(key) < 1 << 31):
                raise _Unfit(f"a key that is {type(key).__name__}")
            items[key] = value
        return target

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call stands for."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise _Unfit(f"calls {type(function).__name__}")
        if function == Global("torch._utils", "_rebuild_tensor_v2"):
            return _tensor(arguments)
        if function == Global("torch._utils", "_rebuild_parameter"):
            if not arguments or not isinstance(arguments[0], Tensor):
                raise _Unfit("a parameter without a tensor")
            return arguments[0]
        self.counted(None)
        if function == Global("collections", "OrderedDict") and not arguments:
            return {}
        if function in (Global("copyreg", "_reconstructor"), Global("copy_reg", "_reconstructor")):
            if not arguments or not isinstance(arguments[0], Global):
                raise _Unfit("reconstructs no class")
            return Record(arguments[0])
        return Record(function)

    def build(self, state: Any) -> None:
        """Set the attributes of an object."""
        target = self.top()
        if isinstance(target, Record):
            parts = state if isinstance(state, tuple) else (state,)
            for part in parts[:2]:  # attributes, and those in slots
                if isinstance(part, dict):
                    self.works(len(part))
                    target.fields.update(part)
        elif not isinstance(target, (dict, Tensor)):  # attributes of a dictionary (_metadata) and a tensor say nothing
            raise _Unfit(f"sets attributes of {type(target).__name__}")

    def storage(self, key: Any) -> Storage:
        """The storage that a persistent identifier names: ("storage", class, key, device, elements)."""
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Global):
            raise _Unfit("a persistent identifier that is no storage")
        _, kind, name, _, count = key[:5]
        if kind.module not in ("torch", "torch.storage") or kind.name not in STORAGES:
            raise _Unfit(f"a storage of {kind}")
        if not isinstance(name, str) or not _is_size(count):
            raise _Unfit("a storage without key and size")
        self.works(len(name))
        element = STORAGES[kind.name]
        size = self.archive.size(f"data/{name}")
        width = 2 if element == "bf16" else np.dtype(element).itemsize
        if count * width != size:
            raise _Unfit(f"a storage of {count} elements in an entry of {size} bytes")
        return Storage(name, element, count)


class _Unfit(Exception):
    """Why an opcode cannot be run."""


def _bad_opcode(opcode: str, position: int, reason: str) -> MalformedModel:
    """The error for an opcode that cannot be run."""
    return MalformedModel("checkpoint.data.pkl", f"{opcode} at byte {position}: {reason}", "what torch.save writes")


_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
"""Opcodes that stand for one value."""

_LITERALS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)
"""Opcodes that bring their value along."""


def _opcodes(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """Names, arguments and positions of the opcodes."""
    try:
        for opcode, argument, position in pickletools.genops(data):
            assert position is not None
            yield opcode.name, argument, position
    except (ValueError, OverflowError, struct.error) as error:
        raise MalformedModel(
            "checkpoint.data.pkl", "not a pickle", f"what torch.save writes ({_text(str(error))})"
        ) from error


def _named(module: Any, name: Any) -> Global:
    """A global, unless no honest checkpoint has it."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise _Unfit("a global without a name")
    found = Global(module, name)
    top = module.split(".")[0]
    if top in ("builtins", "__builtin__"):
        refused = name not in INERT_BUILTINS
    else:
        refused = top in sys.stdlib_module_names and top not in INERT_MODULES
    if refused:
        raise _Unfit(f"the global {found}, which no checkpoint has; the file may be malicious")
    return found


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """A tensor, from the arguments of `_rebuild_tensor_v2`: storage, offset, sizes, strides, …"""
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise _Unfit("a tensor without a storage")
    storage, offset, shape, strides = arguments[:4]
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_AXES):
        raise _Unfit(f"a tensor without sizes and strides, or of over {MAX_AXES} axes")
    if not all(_is_size(number) for number in (offset, *shape, *strides)):
        raise _Unfit("a tensor's size, stride or offset that is negative, huge or no integer")
    extent = 1  # elements from the first to the last one, along the axes so far
    for stride, size in sorted(zip(strides, shape)):
        if size > 1:
            if stride < extent:
                raise _Unfit("a tensor whose elements overlap")
            extent += (size - 1) * stride
    if 0 not in shape and offset + extent > storage.count:
        raise _Unfit(f"a tensor up to element {offset + extent} in a storage of {storage.count}")
    return Tensor(storage, offset, shape, strides)


def _is_size(number: Any) -> bool:
    """Whether this is an integer from 0 up to what is thinkable."""
    return type(number) is int and 0 <= number <= MAX_NUMBER
