"""Everything that can be wrong with an input, as one family of exceptions.

Each error names the *field* that is wrong, the *value* found and the *limit* it broke, so that a message can always be
acted on. The command line prints the message on one line and exits with 3; a library user catches `WallocError`.
The classes are those that the conformance suite's negative vectors are sorted by.
"""

from __future__ import annotations


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
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field = field
        self.value = value
        self.limit = limit
        super().__init__(f"{field}: {value!s}; {limit}")

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
