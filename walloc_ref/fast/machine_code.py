"""Kernels: functions compiled by Numba, whose machine code is kept in files that later processes load without Numba.

Importing Numba and reading its own cache take a quarter of a second before the first kernel runs, more than an image
takes to encode. What a kernel is after compilation is an object file, a few dozen kilobytes that depend on nothing but the
C library; LLVM's binding (llvmlite) loads it in milliseconds. So a process that finds all kernels in the cache never
imports Numba. Four surprises:

1. Machine code is called as Numba's own code calls it: an array becomes seven and more scalars (owner, parent, size, item
   size, data, shape, strides), a named tuple its fields, what is returned goes through a pointer. That convention is
   Numba's affair, so the version of Numba is part of the name under which code is kept, as are all sources that a kernel
   may be made of, the processor, and every variable of the environment that changes what Numba compiles.
2. Only code that calls nothing outside the C library can be kept like that. A kernel that allocates arrays calls Numba's
   run-time library; it works, but by way of Numba and its cache. So kernels are given the room that they work in.
3. Files are written beside their place and renamed, and carry a checksum: half a file is none. Of processes that want
   the same code at the same time one compiles it; a lock that the system lifts with the process makes the others wait.
4. Where a folder can be read it is looked in, even where it cannot be written: what was compiled once for an
   installation that is then read-only serves everybody. New code goes to the first folder that can be written, and where
   there is none it lives as long as the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER_VARIABLE = "NUMBA_CACHE_DIR"
"""Environment variable with the folder that compiled code is kept in, Numba's and ours."""

SUFFIX = ".kernel"
"""What the names of our files end in."""

MAGIC = b"walloc_ref kernel 1\n"
"""What our files begin with; after it stand a checksum (zlib.crc32, four bytes) and `Code` as it is written."""

HARMLESS_VARIABLES = frozenset((FOLDER_VARIABLE, "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_DISABLE_JIT"))
"""Variables of Numba that do not change what it compiles."""

LIBRARY_CALLS = frozenset(
    [
        "memcpy",
        "memmove",
        "memset",
        "sin",
        "cos",
        "exp",
        "exp2",
        "log",
        "log2",
        "pow",
        "sqrt",
        "fabs",
        "abs",
        "floor",
        "ceil",
        "rint",
        "nearbyint",
        "trunc",
        "round",
        "roundeven",
        "fma",
        "fmuladd",
        "minnum",
        "maxnum",
        "minimum",
        "maximum",
        "smax",
        "smin",
        "umax",
        "umin",
        "copysign",
        "ctpop",
        "ctlz",
        "cttz",
        "bswap",
        "assume",
        "lifetime",
        "masked",
        "vector",
        "experimental",
        "sadd",
        "ssub",
        "smul",
        "uadd",
        "usub",
        "umul",
        "fshl",
        "fshr",
        "expect",
        "stepvector",
        "prefetch",
        "canonicalize",
        "is",
    ]
)
"""Operations of LLVM (`llvm.NAME.…`) that are instructions or functions of the C library; code with others is not kept."""

RESULTS = {"int64": "q", "uint64": "Q", "bool": "?", "float64": "d", "none": ""}
"""What a kernel may return, or a tuple of these, as `struct` writes it."""

RETURNED = (0, -2)
"""What machine code returns where it ended well: a value, or none."""


class Code(NamedTuple):
    """A kernel's machine code for arguments of certain types."""

    symbol: str
    """Name of the function; empty where the code cannot be kept, so that Numba has to call it."""
    result: str
    """What it returns, as `struct` writes it."""
    is_tuple: bool
    """Whether it returns a tuple of these."""
    object_file: bytes
    """Of the system's own kind, as LLVM writes it."""

    def to_bytes(self) -> bytes:
        """As it is kept, without magic and checksum."""
        head = f"{self.symbol}\n{self.result}\n{int(self.is_tuple)}\n".encode()
        return head + self.object_file

    @staticmethod
    def from_bytes(data: bytes) -> Code:
        """The inverse of `to_bytes`."""
        symbol, result, is_tuple, object_file = data.split(b"\n", 3)
        return Code(symbol.decode(), result.decode(), is_tuple == b"1", object_file)


class Kernel:
    """A function of scalars, arrays and tuples of these that runs as machine code; kernels can call each other.

    Parameters
    ----------
    function : callable
        What Numba is to compile.
    options : keyword arguments
        To `numba.njit`.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        update_wrapper(self, function)
        self.py_func, self.name = function, function.__name__
        self.options = {"nogil": True, "error_model": "numpy", **options}
        self._by_signature: dict[str, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        if plain_python():
            return self.py_func(*arguments)
        kind = "".join(_kinds(arguments))
        try:
            run = self._by_signature[kind]
        except KeyError:
            run = self._prepared(kind, arguments)
        return run(arguments)

    @cached_property
    def inner(self) -> Any:
        """What Numba compiles into other kernels, or into an object file: without code that Python could call."""
        import numba

        from walloc_ref.fast.linking import Linking

        options = {**self.options, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        return numba.njit(pipeline_class=Linking, **options)(self.py_func)

    @cached_property
    def dispatcher(self) -> Any:
        """The function as Numba gives it, with Numba's cache where that finds a folder."""
        import numba

        try:
            return numba.njit(cache=True, **self.options)(self.py_func)
        except RuntimeError:  # Numba found no folder for its cache
            return numba.njit(**self.options)(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        """Of the kernel as a name in another: Numba looks here."""
        import numba

        return numba.typeof(self.inner if getattr(_here, "keeping", False) else self.dispatcher)

    def _prepared(self, kind: str, arguments: Sequence[Any]) -> Callable[..., Any]:
        """What runs the kernel for arguments of this kind: from memory, from the cache, or compiled now."""
        with _lock:
            if kind not in self._by_signature:
                self._by_signature[kind] = self._load(kind, arguments)
            return self._by_signature[kind]

    def _load(self, kind: str, arguments: Sequence[Any]) -> Callable[..., Any]:
        """See `_prepared`."""
        name = self._file_name(kind)
        code = None if checked() else _read(name)
        if code is None and _waited_for(self):
            code = _read(name)
        if code is None:
            for listener in list(listeners):
                listener(self)
            with _turn(name):
                code = None if checked() else _read(name)  # another process may have compiled it meanwhile
                if code is None:
                    code = self._compiled(arguments)
                    if not checked():
                        _write(name, code)
        if not code.symbol:
            return lambda arguments: self.dispatcher(*arguments)
        return _Native(code, arguments).run

    def _file_name(self, kind: str) -> str:
        """The name under which the code for arguments of this kind is kept."""
        digest = hashlib.sha256(
            "\0".join([_surroundings(), self.py_func.__module__, self.py_func.__qualname__, kind]).encode()
        )
        return f"{self.name.strip('_')}-{digest.hexdigest()[:24]}{SUFFIX}"

    def _compiled(self, arguments: Sequence[Any]) -> Code:
        """Have Numba compile the kernel for arguments of these types."""
        import numba

        unkept = Code("", "", False, b"")
        if checked():
            return unkept
        types = tuple(numba.typeof(_simple(argument)) for argument in arguments)
        _here.keeping = True
        try:
            self.inner.compile(types)
            found = self.inner.overloads[types]
            module, object_file = found.library.whole()
            if not _as_expected(module.get_function(found.fndesc.llvm_func_name), arguments):
                return unkept
        except (numba.errors.NumbaError, AttributeError, LookupError, NameError, TypeError):
            return (
                unkept  # it allocates; or it is wrong, and the dispatcher says so; or this Numba is another one inside
            )
        finally:
            _here.keeping = False
        outside = [f.name for f in module.functions if f.is_declaration]
        outside += [v.name for v in module.global_variables if v.is_declaration]
        returned = found.signature.return_type
        is_tuple = isinstance(returned, numba.types.BaseTuple)
        results = [RESULTS.get(str(t)) for t in (returned.types if is_tuple else [returned])]
        harmless = (name.startswith("llvm.") and name.split(".")[1] in LIBRARY_CALLS for name in outside)
        if None in results or not all(harmless):
            return unkept
        symbol = found.fndesc.llvm_func_name
        return Code(symbol, "".join(map(str, results)), is_tuple, object_file)


def _as_expected(function: Any, arguments: Sequence[Any]) -> bool:
    """Whether a function takes what `_Native` gives it: two pointers, then a number or an address for each value."""
    given = ["double" if isinstance(value, float) else "word" for value in ("", "", *_flat(arguments))]
    taken = [
        "word" if kind.endswith("*") or kind in ("ptr", "i64", "i8", "i1") else kind for kind in _kinds_of(function)
    ]
    return taken == given


def _kinds_of(function: Any) -> list[str]:
    """The types of a function's arguments, as LLVM writes them."""
    return [str(argument.type) for argument in function.arguments]


class _Native:
    """Machine code in memory, ready to be called with arguments of the types of an example."""

    def __init__(self, code: Code, example: Sequence[Any]) -> None:
        self.engine, address = _loaded(code)
        kinds = [ctypes.c_double if isinstance(value, float) else ctypes.c_int64 for value in _flat(example)]
        self.function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)(address)
        self.result, self.is_tuple = struct.Struct("@" + code.result), code.is_tuple

    def run(self, arguments: Sequence[Any]) -> Any:
        """Call it."""
        returned, raised = ctypes.create_string_buffer(max(8, self.result.size)), ctypes.c_void_p()
        status = self.function(ctypes.addressof(returned), ctypes.addressof(raised), *_flat(arguments))
        if status not in RETURNED:
            raise RuntimeError(f"a kernel ended with the status {status}")
        values = self.result.unpack_from(returned)
        return values if self.is_tuple else values[0] if values else None


_lock = threading.RLock()
"""Held while code is read, compiled or loaded."""

listeners: list[Callable[[Kernel], None]] = []
"""Called with each kernel that is about to be compiled, which takes a second or several."""

elsewhere: list[tuple[Callable[[], object], Callable[[Kernel], bool]]] = []
"""Processes that compile at the same time: what waits for their end, and which kernels they compile."""

_here = threading.local()
"""Of this thread: `keeping`, whether it compiles code that is to be kept, which cannot allocate."""


def _waited_for(kernel: Kernel) -> bool:
    """Whether another process compiled this kernel; if so, it has ended now."""
    waits = [entry for entry in elsewhere if entry[1](kernel)]
    for entry in waits:
        entry[0]()
        elsewhere.remove(entry)
    return bool(waits)


def plain_python() -> bool:
    """Whether `NUMBA_DISABLE_JIT` asks for kernels that are not compiled."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def checked() -> bool:
    """Whether `NUMBA_BOUNDSCHECK` asks for subscripts that are checked: then Numba reports what it finds."""
    return os.environ.get("NUMBA_BOUNDSCHECK", "0") not in ("", "0")


# ---- arguments


def _kinds(arguments: Sequence[Any]) -> Iterator[str]:
    """What of arguments decides which code they run."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            flags = argument.flags
            layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
            kept = "" if flags.writeable and flags.aligned else f"{int(flags.writeable)}{int(flags.aligned)}"
            yield f"{argument.dtype.str}{argument.ndim}{layout}{kept} "
        elif isinstance(argument, (bool, np.bool_)):
            yield "b "
        elif isinstance(argument, (int, np.integer)):
            yield "i "
        elif isinstance(argument, float):
            yield "f "
        elif isinstance(argument, tuple):
            yield type(argument).__name__ + "("
            yield from _kinds(argument)
            yield ")"
        else:
            raise TypeError(f"{type(argument).__name__}: kernels take numbers, arrays and tuples of these")


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """Arguments as machine code takes them: whole numbers, addresses and floats."""
    out: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            out += (0, 0, argument.size, argument.itemsize, argument.__array_interface__["data"][0])
            out += argument.shape
            out += argument.strides
        elif isinstance(argument, tuple):
            out += _flat(argument)
        else:
            out.append(float(argument) if isinstance(argument, float) else int(argument))
    return out


def _simple(argument: Any) -> Any:
    """An argument with Python's numbers in the place of NumPy's, of which Numba has many types."""
    if isinstance(argument, tuple):
        parts = [_simple(part) for part in argument]
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    return argument.item() if isinstance(argument, np.generic) else argument


# ---- code


@lru_cache(maxsize=1)
def _target() -> Any:
    """LLVM's description of this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


def _loaded(code: Code) -> tuple[Any, int]:
    """Machine code in memory: what keeps it there, and its address."""
    import llvmlite.binding as llvm

    machine = _target().create_target_machine()  # one for each engine, which disposes of it
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
    engine.finalize_object()
    return engine, engine.get_function_address(code.symbol)


@lru_cache(maxsize=1)
def _surroundings() -> str:
    """All that compiled code depends on beside the kernel and its arguments: sources, versions, processor, environment."""
    import importlib.util

    import llvmlite
    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    numba = importlib.util.find_spec("numba")
    version = [Path(numba.origin).with_name("_version.py")] if numba is not None and numba.origin else []
    for path in [*sorted((package / "fast").glob("*.py")), *sorted((package / "stages").glob("*.py")), *version]:
        digest.update(path.read_bytes())
    variables = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in HARMLESS_VARIABLES
    )
    facts = [sys.platform, str(sys.maxsize), llvmlite.__version__, llvm.get_host_cpu_name()]
    facts += [llvm.get_host_cpu_features().flatten(), np.__version__, *variables]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()


# ---- files


def folders() -> list[Path]:
    """Folders that code is looked for in, and written to: the first that can be.

    The one that `NUMBA_CACHE_DIR` names, if it does; else one beside the kernels' sources, and the user's own.
    """
    named = os.environ.get(FOLDER_VARIABLE, "")
    if named:
        return [Path(named)]
    found = [Path(__file__).resolve().parent / "__pycache__"]
    own = os.environ.get("XDG_CACHE_HOME", "")
    if sys.platform == "win32":
        own = own or os.environ.get("LOCALAPPDATA", "")
    with contextlib.suppress(RuntimeError):  # there is no home
        found.append((Path(own) if own else Path.home() / ".cache") / "walloc_ref")
    return found


def writable_folder() -> Path | None:
    """The folder that new code goes to."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    return None


def _read(name: str) -> Code | None:
    """Code that is kept under this name."""
    for folder in folders():
        try:
            data = (folder / name).read_bytes()
        except OSError:
            continue
        code = _content(data)
        if code is not None:
            return code
    return None


def _content(data: bytes) -> Code | None:
    """What a file of ours holds, if it is whole."""
    start = len(MAGIC) + 4
    if data.startswith(MAGIC) and zlib.crc32(data[start:]).to_bytes(4, "little") == data[len(MAGIC) : start]:
        return Code.from_bytes(data[start:])
    return None


@contextlib.contextmanager
def _turn(name: str) -> Iterator[None]:
    """A block that processes enter one after the other, for code of one name, where the system has locks for that."""
    folder = writable_folder()
    try:
        import fcntl
    except ImportError:  # Windows: then each compiles
        folder = None
    if folder is None:
        yield
        return
    lock = folder / f"{name}.lock"
    with lock.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


def _write(name: str, code: Code) -> None:
    """Keep code under this name, where a folder can be written."""
    content = code.to_bytes()
    data = MAGIC + zlib.crc32(content).to_bytes(4, "little") + content
    for folder in folders():
        temporary = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".walloc-ref-", dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, folder / name)
            return
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
