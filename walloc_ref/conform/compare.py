"""Expected against actual output. Whatever is not provably right is wrong: every comparison is written so that NaN, a wrong
type, a wrong shape and surplus bytes fail."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec as codecs
from walloc_ref import model as models
from walloc_ref.conform.suite import Case, Suite
from walloc_ref.errors import WallocError
from walloc_ref.stages import container, entropy

NPY_MAGIC = b"\x93NUMPY"
"""First bytes of an array file."""

BINARY32_SHARE = 2.0**-7
"""Share of the samples of a case that a binary32 decoder may have wrong, where its error is below half a step."""


class Different(Exception):
    """The output is not what it should be; the message says how."""


def read_array(data: bytes) -> NDArray:
    """An array file, strictly: nothing may follow, and nothing but numbers may be in it.

    Raises
    ------
    Different
    """
    if data[: len(NPY_MAGIC)] != NPY_MAGIC:
        raise Different(f"not an .npy file: {len(data)} bytes that begin with {data[:8].hex() or 'nothing'}")
    file = io.BytesIO(data)
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise Different(f"not a readable .npy file: {error}") from error
    left = len(data) - file.tell()
    if left:
        raise Different(f"{left} bytes follow the array")
    return array


def write_array(array: NDArray) -> bytes:
    """An array file: version 1.0, C order, little-endian."""
    file = io.BytesIO()
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    np.lib.format.write_array(file, little.reshape(array.shape), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def check(case: Case, suite: Suite, actual: bytes, level: str | None = None) -> None:
    """Compare an output with the one that the case expects.

    Parameters
    ----------
    case : Case
        One that expects an output.
    suite : Suite
    actual : bytes
        The output file.
    level : str, optional
        At "decoder-binary32", whole decodes are compared with that level's tolerance.

    Raises
    ------
    Different
    """
    assert case.output is not None
    expected = suite.read(case.output)
    how = suite.manifest["comparisons"][case.compare]
    kind = how["kind"]
    if kind == "bytes":
        same_bytes(expected, actual)
    elif kind == "json":
        same_fields(expected, actual)
    elif kind == "digest":
        same_digest(expected, actual)
    elif kind == "stream":
        path = suite.model_path(case.model)
        assert path is not None
        same_stream(expected, actual, models.load(path))
    else:
        wanted, found = read_array(expected), read_array(actual)
        same_type(wanted, found)
        if kind == "real":
            if level == "decoder-binary32" and case.stage == "stream":  # samples of floats
                gain = container.read(suite.read(case.input)).header.gain
                within(wanted, found, suite.manifest["binary32"]["delta"] * gain)
            else:
                close(wanted, found, how["tolerance"])
        elif kind == "exact" and level == "decoder-binary32" and case.guard is not None:
            guarded(wanted, found, read_array(suite.read(case.guard)), case.guard_step, case.guard_share)
        elif kind == "exact":
            equal(wanted, found)
        else:
            raise AssertionError(f"comparison {case.compare} of kind {kind}")


def same_type(expected: NDArray, actual: NDArray) -> None:
    """Equal dtype, byte order included, and equal shape."""
    if actual.dtype.str != expected.dtype.str:
        raise Different(f"dtype {actual.dtype.str}, expected {expected.dtype.str}")
    if actual.shape != expected.shape:
        raise Different(f"shape {actual.shape}, expected {expected.shape}")


def equal(expected: NDArray, actual: NDArray) -> None:
    """Every element equal. NaN equals nothing."""
    right = actual == expected
    if not right.all():
        raise Different(_where(expected, actual, ~right))


def close(expected: NDArray, actual: NDArray, tolerance: float) -> None:
    """|actual - expected| <= tolerance·max(1, max|expected|) everywhere. NaN and infinity are close to nothing."""
    within(expected, actual, tolerance * max(1.0, float(np.abs(expected).max(initial=0))))


def within(expected: NDArray, actual: NDArray, largest: float) -> None:
    """|actual - expected| <= largest everywhere. NaN and infinity are within nothing."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(actual - expected)
        right = np.isfinite(actual) & (distance <= largest)
    if not right.all():
        raise Different(f"{_where(expected, actual, ~right)}; tolerance {largest:.3g}")


def guarded(expected: NDArray, actual: NDArray, guard: NDArray[np.uint8], step: int, share: float) -> None:
    """At most `step` apart where the guard bit is set, equal elsewhere, and different in a share only, but one may be."""
    bits = np.unpackbits(guard, count=expected.size, bitorder="little").astype(bool).reshape(expected.shape)
    distance = np.abs(actual.astype(np.int64) - expected.astype(np.int64))
    wrong = distance > np.where(bits, step, 0)
    if wrong.any():
        raise Different(f"{_where(expected, actual, wrong)}; only samples near a tie may differ, by {step}")
    count, most = int((distance > 0).sum()), max(1, math.ceil(share * expected.size))
    if count > most:
        raise Different(f"{count} of {expected.size} samples differ, at most {most} may")


def same_bytes(expected: bytes, actual: bytes) -> None:
    """Equal bytes."""
    if actual != expected:
        shared = min(len(actual), len(expected))
        at = next((i for i in range(shared) if actual[i] != expected[i]), shared)
        raise Different(f"{len(actual)} bytes, expected {len(expected)}; the first difference is at byte {at}")


def digest_of(array: NDArray) -> bytes:
    """What stands in the suite for an array that is too large for it: type, shape and SHA-256, as JSON."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    facts = {"descr": little.dtype.str, "shape": array.shape, "sha256": hashlib.sha256(little.data).hexdigest()}
    return json.dumps(facts).encode()


def same_digest(expected: bytes, actual: bytes) -> None:
    """An array of the type, the shape and the content that `digest_of` saw."""
    wanted, found = (json.loads(part) for part in (expected, digest_of(read_array(actual))))
    for name, value in wanted.items():
        if found[name] != value:
            raise Different(f"{name} {found[name]}, expected {value}")


def same_fields(expected: bytes, actual: bytes) -> None:
    """Equal JSON objects, numbers by their value; the message names all fields that are not."""
    try:
        found = json.loads(actual)
    except (ValueError, RecursionError) as error:
        raise Different(f"not JSON: {error}") from error
    wanted: Mapping[str, Any] = json.loads(expected)
    if not isinstance(found, dict):
        raise Different("not a JSON object")
    wrong = []
    for key in [*wanted, *sorted(set(found) - set(wanted))]:
        if key not in found:
            wrong.append(f"field {key} is missing")
        elif key not in wanted:
            wrong.append(f"field {key} is not one of this object")
        elif isinstance(found[key], bool) != isinstance(wanted[key], bool) or found[key] != wanted[key]:
            wrong.append(f"field {key} is {found[key]!r}, expected {wanted[key]!r}")
    if wrong:
        raise Different("; ".join(wrong))


def same_stream(expected: bytes, actual: bytes, model: models.Model) -> None:
    """A valid stream with the same header and the same symbols, whose slices hold the bytes that follow from them.

    How it is cut into slices is the encoder's choice. A certificate that it writes of its own accord must be true.
    """
    try:
        stream, right = container.read(actual), container.read(expected)
        wanted, found = right.header, stream.header
        for name in vars(wanted):
            if name != "slice_size" and getattr(wanted, name) != getattr(found, name):
                raise Different(f"header field {name} is {getattr(found, name)!r}, expected {getattr(wanted, name)!r}")
        codec = codecs.Codec(model)
        symbols = codecs.decode_symbols(actual, codec=codec)
        equal(codecs.decode_symbols(expected, codec=codec), symbols)
        if stream.certificate is not None:
            codecs.decode(actual, codec=codec)
        if stream.slices == right.slices:
            return
        for number, payload in enumerate(stream.slices):
            first, end = found.slice_bounds(number)
            part = symbols[:, first:end].reshape(found.slice_shape(number))
            same_bytes(entropy.encode(np.ascontiguousarray(part), model.tables), payload)
    except WallocError as error:
        raise Different(f"not a valid stream: {error}") from error


def read_slice(data: bytes, kind: str) -> tuple[tuple[int, ...], bytes]:
    """A `.slice` file: shape, (D, h, w) or, of a volume, (D, z, h, w), and payload."""
    axes = 4 if kind == "volume" else 3
    return tuple(int(n) for n in np.frombuffer(data, "<u4", axes)), data[4 * axes :]


def write_slice(shape: tuple[int, ...], payload: bytes) -> bytes:
    """The inverse of `read_slice`."""
    return np.array(shape, "<u4").tobytes() + payload


def _where(expected: NDArray, actual: NDArray, wrong: NDArray[np.bool_]) -> str:
    """How many elements are wrong, the first of them, and the largest difference."""
    first = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
    text = (
        f"{int(wrong.sum())} of {wrong.size} differ; at {list(first)}: {actual[first]!s}, expected {expected[first]!s}"
    )
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    if np.isnan(distance).any():
        return f"{text}; {int(np.isnan(distance).sum())} are not numbers"
    return f"{text}; largest difference {distance.max():.3g}"
