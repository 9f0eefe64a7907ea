"""Everything that can be wrong with an input, as one family of exceptions.

Each error names the *field* that is wrong, the *value* found and the *limit* it broke, so that a message can always be
acted on. The command line prints the message on one line and exits with 3; a library user catches `WallocError`.
The classes are those that the conformance suite's negative vectors are sorted by.
"""

from __future__ import annotations

MAX_PART = 500
"""Characters of a field, a value or a limit that a message repeats."""


def printable(text: str, limit: int = MAX_PART) -> str:
    """Foreign text for people: control characters, line ends and half surrogates escaped, the middle of long text left out.

    Names of files, tensors and models come from anywhere, and a terminal obeys what they contain.
    """
    if len(text) > limit:
        tail = limit // 4
        text = f"{text[: limit - tail]}…{text[-tail:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def reason(error: Exception) -> str:
    """Why the system or a library refused: the system's words, else the first line of the message, else its type."""
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def _words(value: object) -> str:
    """A value for a message."""
    try:
        return printable(str(value))
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a huge integer"


class WallocError(ValueError):
    """Base of every error that an input can cause.

    Parameters
    ----------
    field : str
        What is wrong, in the words of SPEC.md ("header.version", "slice 3", "samples").
    value : object
        What was found there.
    limit : str
        What would have been right.

    Examples
    --------
    >>> raise WallocError("samples", "NaN", "numbers")
    Traceback (most recent call last):
    walloc_ref.errors.WallocError: samples: NaN; numbers
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field = field
        self.value = value
        self.limit = limit
        super().__init__(f"{_words(field)}: {_words(value)}; {_words(limit)}")

    def __reduce__(self) -> tuple[type[WallocError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.limit)


class MalformedStream(WallocError):
    """The bytes are not a stream of this format, or they are damaged or incomplete."""


class UnsupportedStream(WallocError):
    """A well-formed stream that this version must refuse: a later version, or an unknown critical section."""


class LimitExceeded(WallocError):
    """A declared size is larger than the payload, the documented limits or the caller's limit allow."""


class HashMismatch(WallocError):
    """Decoding ran to its end, but the hash of the symbols or of the samples is not the recorded one."""


class UnknownModel(WallocError):
    """No model of that name or identity is at hand, or it does not fit the stream or the samples."""


class MalformedModel(WallocError):
    """A weights file or checkpoint that is damaged, incomplete, unsafe, or of an architecture that is not WaLLoC's."""


class BadSamples(WallocError):
    """Samples, symbols or media files that the codec cannot take: wrong shape, type, channel count or value."""


class UnreadableFile(WallocError):
    """A file that cannot be opened, read, written, or is not of a media type that is handled."""
