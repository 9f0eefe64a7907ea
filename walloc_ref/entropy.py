"""The entropy coder: integers in, bytes out, and back; one slice at a time.

Symbols (D, h, w) are coded plane after plane. For each one, integer linear combinations of known neighbours (in the
same plane before it, in earlier planes all around it) predict its value and its scale; the prediction's residual is
split into binary decisions, and each decision is coded with a probability mixed from adaptive contexts. Everything
that was learned from photographs (taps, first states, first weights) is in `Tables`, as integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from walloc_ref.errors import BadSamples, MalformedModel, MalformedStream

FINAL_STATE = "the coder must end in its final state exactly at the end of the payload"
MAX_SYMBOLS_PER_BYTE = 11000
"""A decision costs at least log2(1 / (1 - 32/65536)) bits, and a symbol is at least one decision."""
LEVELS = 40
MAGIC = b"WET1"


@dataclass(frozen=True)
class Tables:
    """What a model's entropy coder starts from: integer arrays only."""

    latent_dim: int
    latent_bits: int
    mean_head: np.ndarray
    mean_tap: np.ndarray
    scale_head: np.ndarray
    scale_tap: np.ndarray
    state: np.ndarray
    weight: np.ndarray

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` restores it exactly."""
        head = struct.pack("<4sHHII", MAGIC, self.latent_dim, self.latent_bits, len(self.mean_tap), len(self.scale_tap))
        parts = [
            self.mean_head.astype("<i4"),
            self.mean_tap.astype("<i2"),
            self.scale_head.astype("<i4"),
            self.scale_tap.astype("<i2"),
            self.state.astype("<u2"),
            self.weight.astype("<i2"),
        ]
        return head + b"".join(p.tobytes() for p in parts)

    @staticmethod
    def from_bytes(data: bytes) -> Tables:
        """Restore and check; raises `MalformedModel`."""
        if len(data) < 16 or data[:4] != MAGIC:
            raise MalformedModel("entropy tables", data[:4], "must begin with WET1")
        _, dim, bits, means, scales = struct.unpack("<4sHHII", data[:16])
        states, weights = 16 * sum(context_sizes(dim)), 8 * 16 * 6
        shapes = [(dim, 1, 4), (means, 4, 2), (dim, 2, 4), (scales, 4, 2), (states, 1, 2), (weights, 1, 2)]
        want = 16 + sum(a * b * c for a, b, c in shapes)
        if len(data) != want or not 2 <= bits <= 8 or dim < 1:
            raise MalformedModel("entropy tables", len(data), f"must be {want} bytes")
        arrays, at = [], 16
        for (a, b, c), kind in zip(shapes, ("<i4", "<i2", "<i4", "<i2", "<u2", "<i2"), strict=True):
            arrays.append(np.frombuffer(data, kind, a * b, at).astype(np.int64).reshape((a, b) if b > 1 else (a,)))
            at += a * b * c
        arrays[0] = arrays[0].reshape(dim, 1)
        for heads, taps in ((arrays[0], arrays[1]), (arrays[2], arrays[3])):
            if (heads[:, 0] < 0).any() or heads[:, 0].sum() != len(taps):
                raise MalformedModel("entropy tables", "tap counts", "must add up")
            own = np.repeat(np.arange(dim), heads[:, 0])
            j, dy, dx = taps[:, 0], taps[:, 1], taps[:, 2]
            causal = (j == own) & ((dy < 0) | ((dy == 0) & (dx < 0)))
            if (
                not (((j >= 0) & (j < own)) | causal).all()
                or (abs(taps[:, 1:3]) > 2).any()
            ):
                raise MalformedModel("entropy tables", "taps", "must point at known symbols, at most 2 away")
        return Tables(dim, bits, *arrays)


def context_sizes(latent_dim: int) -> list[int]:
    return [LEVELS * 5, latent_dim * 14, 14 * 14, 81, 8 * 8 * 6, 14 * 5]


def default_tables(latent_dim: int, latent_bits: int) -> Tables:
    """Tables for a model that carries none: no training, plain neighbours."""
    taps = []
    heads = []
    for c in range(latent_dim):
        own = [(c, 0, -1, 1024), (c, -1, 0, 1024), (c, -1, -1, 512), (c, -1, 1, 512)]
        if c > 0:
            own.append((c - 1, 0, 0, 1024))
        taps += own
        heads.append((len(own), 1024))
    return Tables(
        latent_dim,
        latent_bits,
        np.zeros((latent_dim, 1), np.int64),
        np.zeros((0, 4), np.int64),
        np.array(heads, np.int64),
        np.array(taps, np.int64),
        np.full(16 * sum(context_sizes(latent_dim)), 2048 << 4, np.int64),
        np.full(8 * 16 * 6, 300, np.int64),
    )


STRENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 254)


@lru_cache(maxsize=1)
def constants() -> tuple[np.ndarray, ...]:
    """level, stretch, squash, reciprocal."""
    level = np.zeros(16384, np.int64)
    for i in range(1, 16384):
        level[i] = min(LEVELS - 1, int(np.floor(np.log2(i) * 3 + 1e-9)))
    p = (np.arange(4096) + 0.5) / 4096
    stretch = np.clip(np.rint(np.log(p / (1 - p)) * 256), -2047, 2047).astype(np.int64)
    x = np.arange(-2047, 2048) / 256
    squash = np.clip(np.rint(65536 / (1 + np.exp(-x))), 32, 65504).astype(np.int64)
    reciprocal = np.array([int(65536 / (n + 1.6)) for n in range(1024)], np.int64)
    return level, stretch, squash, reciprocal


def model(tables: Tables) -> tuple:
    """The arguments of the kernel, with fresh states."""
    strengths = np.array(STRENGTHS, np.int64)
    state = ((tables.state >> 4) << 20) | strengths[tables.state & 15]
    offsets = np.concatenate([[0], np.cumsum(context_sizes(tables.latent_dim))[:-1]]).astype(np.int64)
    largest = 2 ** (tables.latent_bits - 1) - 1
    return (
        largest, tables.mean_head, tables.mean_tap, tables.scale_head, tables.scale_tap, offsets, state,
        tables.weight << 6, *constants(),
    )  # fmt: skip


def max_symbols(payload_bytes: int) -> int:
    """The most symbols that a payload of this size can hold, so that absurd shapes are refused before allocating."""
    return payload_bytes * MAX_SYMBOLS_PER_BYTE


def checked_symbols(symbols: np.ndarray, tables: Tables) -> np.ndarray:
    """(D, h, w) int16, not empty, in range; raises `BadSamples`."""
    s = np.asarray(symbols)
    if s.ndim != 3 or s.shape[0] != tables.latent_dim or s.size == 0 or not np.issubdtype(s.dtype, np.integer):
        raise BadSamples("symbols", f"{s.dtype} {s.shape}", f"integers of shape ({tables.latent_dim}, h, w), not empty")
    largest = 2 ** (tables.latent_bits - 1) - 1
    if s.min() < -largest or s.max() > largest:
        raise BadSamples("symbols", f"{s.min()}..{s.max()}", f"must lie in {-largest}..{largest}")
    return np.ascontiguousarray(s, np.int16)


def check_shape(payload_bytes: int, shape: tuple[int, int, int], tables: Tables) -> None:
    """Refuse a shape that cannot be; raises `MalformedStream`."""
    D, h, w = shape
    if D != tables.latent_dim or h < 1 or w < 1:
        raise MalformedStream("slice shape", shape, f"({tables.latent_dim}, h, w), not empty")
    if D * h * w > max_symbols(payload_bytes):
        raise MalformedStream("slice payload", f"{payload_bytes} bytes", f"is too small for {D * h * w} symbols")


def encode(symbols: np.ndarray, tables: Tables) -> bytes:
    """Code one slice."""
    from walloc_ref.kernels import entropy as kernel

    return kernel.encode(symbols, tables)


def decode(data: bytes, shape: tuple[int, int, int], tables: Tables) -> np.ndarray:
    """Decode one slice."""
    from walloc_ref.kernels import entropy as kernel

    return kernel.decode(data, shape, tables)
