"""Files, pipes and devices as the command line names them: read whole, written whole or not at all.

`-` stands for the standard input and output. Devices and pipes have no neighbours and cannot be sought in, so they are
read to their end first, and written in one go at the end. An ordinary file is written beside its place and then renamed;
it keeps the permissions of the file that it replaces, and a symbolic link is followed, not replaced.

A name with `://` in it is a URL for fsspec (`s3://…`, `https://…`, `memory://…`), if that is installed: read to its end
first, and written in one go, as its store does it.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from walloc_ref.errors import LimitExceeded, UnreadableFile, reason

PIPE = "-"
"""The name of the standard input and output."""

MAX_INPUT_BYTES, MAX_DEVICE_BYTES = 1 << 32, 1 << 28
"""Longest input that is read into memory: from files and pipes, and from devices, which may never end."""

BLOCK_BYTES = 1 << 24
"""Bytes that are read at a time."""

TEMPORARY_PREFIX = ".walloc-ref-"
"""How the names of neighbours begin. Of the output's name they repeat nothing: it may be as long as names can be."""


def read_file(name: str) -> bytes:
    """All bytes of a file, a pipe, or the standard input.

    Raises
    ------
    UnreadableFile, LimitExceeded
        It cannot be read, or has over `MAX_INPUT_BYTES`.
    """
    if name == PIPE:
        return read_whole(_standard_input(), name)
    with _opened(name) as file:
        return read_whole(file, name)


def open_input(name: str) -> BinaryIO:
    """A file to read and to seek in; a pipe, a device or the standard input is read to its end at once."""
    if name == PIPE:
        return io.BytesIO(read_whole(_standard_input(), name))
    file = _opened(name)
    if is_url(name):
        with file:
            return io.BytesIO(read_whole(file, name))
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # some devices can be sought in, and never end
        return file
    with file:
        return io.BytesIO(read_whole(file, name))


def is_url(name: str) -> bool:
    """Whether a name is a URL for fsspec."""
    return "://" in name


def _opened_url(name: str, mode: str, field: str) -> BinaryIO:
    """What a URL names, open to read or to write.

    Raises
    ------
    UnreadableFile
        fsspec or what it needs for this scheme is missing, or the store refused.
    """
    try:
        import fsspec

        return fsspec.open(name, mode).open()
    except ImportError as error:
        needed = f"a package that opens it: pip install fsspec ({reason(error)})"
        raise UnreadableFile(field, name, needed) from error
    except Exception as error:  # every store has exceptions of its own
        raise UnreadableFile(field, name, f"one that can be used ({reason(error)})") from error


def _opened(name: str) -> BinaryIO:
    """A file, open to read."""
    if is_url(name):
        return _opened_url(name, "rb", "input")
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as error:
        raise UnreadableFile("input", name, f"a readable file ({reason(error)})") from error


def _standard_input() -> BinaryIO:
    """The bytes of the standard input."""
    if sys.stdin is None:
        raise UnreadableFile("input", "the standard input", "one that is open")
    return sys.stdin.buffer


def read_whole(file: BinaryIO, name: str) -> bytes:
    """All that is left in a file, unless that is too long.

    Raises
    ------
    UnreadableFile, LimitExceeded
    """
    mode, size = 0, 0
    with contextlib.suppress(OSError, AttributeError):  # not a file of the system
        status = os.fstat(file.fileno())
        mode, size = status.st_mode, status.st_size
    limit = MAX_DEVICE_BYTES if stat.S_ISCHR(mode) else MAX_INPUT_BYTES
    memory = io.BytesIO()
    count = min(size + 1, BLOCK_BYTES) if stat.S_ISREG(mode) else BLOCK_BYTES  # a reader allocates what it is asked for
    try:
        while size <= limit and (block := file.read(count)):
            size = max(size, memory.tell() + len(block))
            memory.write(block)
    except Exception as error:
        if not (is_url(name) or isinstance(error, OSError)):
            raise
        raise UnreadableFile("input", name, f"a readable file ({reason(error)})") from error
    if size > limit:
        raise LimitExceeded("input", f"{name}, {size} bytes or more", f"at most {limit}")
    return memory.getvalue()


def is_stream(name: str) -> bool:
    """Whether output of this name goes to the standard output, a device or a pipe, which tell no kind of file."""
    return name == PIPE or (os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name))


def check_output(name: str, inputs: Sequence[str] = (), *, suffix: str | None = None, force: bool = False) -> None:
    """Refuse early an output that cannot be written or that would destroy what it is made of.

    Parameters
    ----------
    name : str
        Of the output.
    inputs : sequence of str
        Names of the files that it is made of.
    suffix : str, optional
        What the name must end in, unless it is a stream.
    force : bool
        Whether the user insists: then neither `inputs` nor `suffix` are looked at.

    Raises
    ------
    UnreadableFile
    """
    if is_stream(name):
        return
    if not force:
        if suffix is not None and Path(name).suffix.lower() != suffix:
            raise UnreadableFile("output", name, f"a name that ends in {suffix}, or --force")
        if any(_is_same(name, other) for other in inputs):
            raise UnreadableFile("output", name, "another file than the input, which it would replace")
    if is_url(name):
        return
    target = os.path.realpath(name)
    if os.path.isdir(target):
        raise UnreadableFile("output", name, "a writable file (Is a directory)")
    if not os.path.isdir(os.path.dirname(target)):
        raise UnreadableFile("output", name, "a writable file (No such file or directory)")


def _is_same(name: str, other: str) -> bool:
    """Whether two names, through whatever links, lead to one file."""
    try:
        return os.path.samefile(name, other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def write_file(name: str, data: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(name) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(name: str) -> Iterator[BinaryIO]:
    """A file to write and to seek in, that appears whole or not at all.

    Raises
    ------
    UnreadableFile
        It cannot be written.
    BrokenPipeError
        Whoever read the standard output has left.
    """
    if is_stream(name) or is_url(name):
        memory = io.BytesIO()
        yield memory
        (_write_url if is_url(name) else _write_stream)(name, memory)
        return
    import tempfile  # here, because who only reads needs none

    temporary = None
    try:
        target = os.path.realpath(name)
        status = os.stat(name) if os.path.lexists(name) and os.path.lexists(target) else None
        if status is not None:
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(21, "Is a directory")
            if not os.access(target, os.W_OK):
                raise PermissionError(13, "Permission denied")
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=os.path.dirname(target))
        with os.fdopen(handle, "w+b") as file:
            yield file
        if status is None:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # mkstemp keeps others out; an ordinary file does not
        else:
            with contextlib.suppress(OSError):  # only the administrator gives files away
                os.chown(temporary, status.st_uid, status.st_gid)
            os.chmod(temporary, stat.S_IMODE(status.st_mode))
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise UnreadableFile("output", name, f"a writable file ({reason(error)})") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _write_url(name: str, memory: io.BytesIO) -> None:
    """Write what a URL names."""
    file = _opened_url(name, "wb", "output")
    try:
        with file:
            file.write(memory.getbuffer())
    except Exception as error:  # every store has exceptions of its own
        raise UnreadableFile("output", name, f"one that can be written ({reason(error)})") from error


def _write_stream(name: str, memory: io.BytesIO) -> None:
    """Write to the standard output, a device or a pipe."""
    if name == PIPE and sys.stdout is None:
        raise UnreadableFile("output", "the standard output", "one that is open")
    try:
        if name == PIPE:
            sys.stdout.buffer.write(memory.getbuffer())
            sys.stdout.buffer.flush()
        else:
            Path(name).write_bytes(memory.getbuffer())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnreadableFile("output", name, f"a writable file ({reason(error)})") from error


@contextlib.contextmanager
def library_notes() -> Iterator[list[str]]:
    """Keep what a C library writes to the standard error by itself from the user; the lines are there afterwards.

    There is one standard error: threads take turns.
    """
    with standard_error:
        yield from _library_notes()


standard_error = threading.RLock()
"""Held while the standard error is another file, and by who writes to it while others read files."""


def _library_notes() -> Iterator[list[str]]:
    """See `library_notes`."""
    import tempfile

    lines: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield lines
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            lines += notes.read(1 << 16).decode("utf-8", "replace").splitlines()
