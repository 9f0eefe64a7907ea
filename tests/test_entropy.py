"""The entropy coder: exact bytes, kernel against definition, every extreme, and damage."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from walloc_ref.errors import BadSamples, MalformedModel, MalformedStream
from walloc_ref.fast import entropy as kernel
from walloc_ref.stages import entropy


def largest(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def trained_tables(D: int, bits: int, hidden: int = 6, seed: int = 1, above: int = 3) -> entropy.Tables:
    """Tables with everything in use: random taps in all directions, hidden units, states, weights.

    Taps of the plane itself reach `above` rows up.
    """
    rng = np.random.default_rng(seed)
    taps, units, biases, outputs = [], [], [], []
    for c in range(D):
        own = [(dy, dx) for dy in range(-above, 1) for dx in range(-3, 4) if dy < 0 or dx < 0]
        spots = [(c, kind, c, dy, dx) for kind in (0, 1) for dy, dx in own]
        if c:
            spots += [(c, k, int(rng.integers(c)), *rng.integers(-3, 4, 2).tolist()) for k in (0, 1) for _ in range(9)]
        chosen = sorted(rng.choice(len(spots), min(len(spots), 11 + c % 5), replace=False).tolist())
        taps += [spots[i] for i in chosen]
        units.append(rng.integers(-900, 1200, (len(chosen), 2 + hidden)))
        biases.append(rng.integers(-20000, 60000, 2 + hidden))
        outputs.append(rng.integers(-1500, 1800, (hidden, 2)))
    states = rng.integers(1, 4096, sum(entropy.context_counts(D)) * entropy.NODES) * 16 + rng.integers(0, 16)
    mixers = rng.integers(-200, 900, (entropy.MIXERS, entropy.NODES, entropy.CONTEXTS))
    return entropy.Tables(D, bits, np.array(taps, np.int64), units, biases, outputs, states, mixers)


def laplacian(shape: tuple[int, int, int], bits: int, scale: float, seed: int = 0) -> np.ndarray:
    """Smooth planes plus noise that varies with the place, int16."""
    rng = np.random.default_rng(seed)
    D, h, w = shape
    y, x = np.mgrid[:h, :w]
    wave = np.sin(y / 3 + x / 5 + np.arange(D)[:, None, None]) * scale * 2
    noise = rng.laplace(0, scale, shape) * (0.2 + np.abs(np.sin(x / 7)))
    return np.clip(np.rint(wave + noise), -largest(bits), largest(bits)).astype(np.int16)


CASES = {
    "one sample": (np.full((1, 1, 1), -5, np.int16), 4),
    "zeros": (np.zeros((3, 6, 5), np.int16), 8),
    "constant": (np.full((2, 4, 9), 127, np.int16), 8),
    "alternating extremes": (np.where(np.indices((2, 5, 6)).sum(0) % 2, 127, -127).astype(np.int16), 8),
    "every symbol": (np.arange(-127, 128, dtype=np.int16).reshape(1, 15, 17), 8),
    "impulse": (np.pad(np.full((2, 1, 1), 63, np.int16), ((0, 0), (3, 4), (2, 5))), 7),
    "one column": (laplacian((3, 17, 1), 8, 4.0), 8),
    "two columns": (laplacian((3, 9, 2), 8, 4.0), 8),
    "audio": (laplacian((5, 1, 40), 8, 3.0), 8),
    "image": (laplacian((4, 7, 11), 8, 6.0), 8),
    **{f"{bits} bits": (laplacian((3, 5, 8), bits, largest(bits) / 3), bits) for bits in range(2, 9)},
}


def tables_for(symbols: np.ndarray, bits: int) -> list[entropy.Tables]:
    return [entropy.default_tables(symbols.shape[0], bits), trained_tables(symbols.shape[0], bits)]


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_definition(name: str) -> None:
    symbols, bits = CASES[name]
    for tables in tables_for(symbols, bits):
        data = entropy.encode(symbols, tables)
        assert kernel.encode(symbols, tables) == data
        for decode in (entropy.decode, kernel.decode):
            back = decode(data, symbols.shape, tables)
            assert back.dtype == np.int16
            np.testing.assert_array_equal(back, symbols)


PINNED = {
    "one sample": ("1:ef6cbd2161eaea79", "1:2f0fd1e89b8de1d5"),
    "zeros": ("1:e4ff5e7d7a7f08e9", "58:e42190064fcfd552"),
    "alternating extremes": ("39:2c8719b8b83262f5", "132:ebafd10a5bb0ed20"),
    "every symbol": ("223:97964bbf93041fa1", "255:9626ada7ef917fec"),
    "audio": ("133:a66b11b4c15a7b73", "187:1feabf47c2288ba0"),
    "image": ("228:934268f97afa7371", "280:9f0da4cc397f7d3a"),
    "2 bits": ("24:049b4084b44dd5e1", "50:3fd64c5750446443"),
}
"""Length and start of the SHA-256 of the bytes, for default and for `trained_tables`."""


def fingerprint(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


@pytest.mark.parametrize("name", PINNED)
def test_bytes_are_pinned(name: str) -> None:
    symbols, bits = CASES[name]
    assert tuple(fingerprint(kernel.encode(symbols, t)) for t in tables_for(symbols, bits)) == PINNED[name]


def test_a_payload_in_full() -> None:
    tables = entropy.default_tables(1, 8)
    assert entropy.encode(np.array([[[0, 1, -1, 3]]], np.int16), tables).hex() == "8e2aca"
    assert entropy.encode(np.array([[[0]]], np.int16), tables).hex() == "80"


def test_integer_functions_are_pinned() -> None:
    squash, stretch = entropy.squash_table(), entropy.stretch_table()
    assert [squash[x + 2047] for x in (-2047, -1, 0, 1, 256, 2047)] == [32, 32705, 32768, 32831, 47910, 65504]
    assert [stretch[q] for q in (0, 1, 2047, 2048, 4095)] == [-2047, -2047, -1, 0, 2047]
    assert (squash + squash[::-1] == 65536).all()
    assert (np.diff(squash) >= 0).all() and (np.diff(stretch) >= 0).all()
    assert [entropy.adaptation_rate(n) for n in (0, 1, 255)] == [40960, 25206, 255]
    assert [entropy.level(v, 4, 8, 44) for v in (1, 4, 5, 6, 7, 8, 16383)] == [0, 0, 1, 2, 3, 4, 43]
    assert [entropy.level(v, 2, 4, 12) for v in (1, 4, 5, 6, 7, 8, 6138)] == [0, 0, 0, 1, 1, 2, 11]


def test_many_sizes_in_the_kernel() -> None:
    for w in (1, 2, 3, 4, 5, 300, 1500):
        for h in (1, 2, 3, 4):
            symbols = laplacian((2, h, w), 8, 5.0, seed=w + h)
            for tables in tables_for(symbols, 8):
                np.testing.assert_array_equal(
                    kernel.decode(kernel.encode(symbols, tables), symbols.shape, tables), symbols
                )


@pytest.mark.parametrize("above", [0, 1, 3])
def test_encoders_that_look_ahead_equal_the_definition(above: int) -> None:
    """Also where no tap reaches up, so that they look ahead in the first row, too; and beyond a stretch."""
    for shape in ((3, 1, 40), (2, 5, 9), (2, 2, 1)):
        symbols, tables = laplacian(shape, 8, 5.0), trained_tables(shape[0], 8, above=above)
        assert kernel.encode(symbols, tables) == entropy.encode(symbols, tables)
    for shape in ((2, 1, 1100), (2, 3, kernel.STRETCH + 1), (1, 4, 171)):
        symbols, tables = laplacian(shape, 8, 5.0), trained_tables(shape[0], 8, hidden=5, above=above)
        np.testing.assert_array_equal(kernel.decode(kernel.encode(symbols, tables), shape, tables), symbols)


def test_same_bytes_without_compilation() -> None:
    program = (
        "import test_entropy as t; from walloc_ref.fast import entropy as k;"
        "[print(n, *(t.fingerprint(k.encode(s, x)) for x in t.tables_for(s, b))) "
        "for n, (s, b) in t.CASES.items() if s.size < 80];"
        "s, b = t.CASES['audio']; x = t.trained_tables(5, 8); assert (k.decode(k.encode(s, x), s.shape, x) == s).all()"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    out = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
    want = [
        " ".join([name, *(fingerprint(kernel.encode(s, x)) for x in tables_for(s, b))])
        for name, (s, b) in CASES.items()
        if s.size < 80
    ]
    assert out.splitlines() == want


def test_tables_survive_their_bytes() -> None:
    for tables in (entropy.default_tables(3, 5), trained_tables(4, 8)):
        back = entropy.Tables.from_bytes(tables.to_bytes())
        assert back.to_bytes() == tables.to_bytes()
        symbols = laplacian((tables.latent_dim, 4, 6), tables.latent_bits, 3.0)
        assert entropy.encode(symbols, back) == entropy.encode(symbols, tables)


def test_tables_of_as_many_planes_as_there_may_be() -> None:
    """SPEC.md 7.3; they would take 2 MB of the conformance suite."""
    data = entropy.default_tables(4096, 2).to_bytes()
    assert entropy.Tables.from_bytes(data).latent_dim == 4096
    with pytest.raises(MalformedModel, match="0 channels, 2 bits; 1 or more"):
        entropy.Tables.from_bytes(data[:4] + bytes(2) + data[6:])


def damaged_tables() -> dict[str, bytes]:
    good = entropy.default_tables(2, 8)
    data = good.to_bytes()
    strong = trained_tables(2, 8)
    strong.biases[0][:] = 2**31 - 1
    return {
        "empty": b"",
        "magic": b"XET1" + data[4:],
        "no channels": data[:4] + b"\0\0" + data[6:],
        "9 bits": data[:6] + b"\x09\0" + data[8:],
        "short": data[:-1],
        "long": data + b"\0",
        "too many taps": data[:8] + b"\xff" + data[9:],
        "tap not yet coded": data[:12] + b"\x01" + data[13:],
        "tap kind": data[:14] + b"\xff" + data[15:],
        "probability zero": data[: -2 * 8 * 16 * 4 - 2] + b"\0\0" + data[-2 * 8 * 16 * 4 :],
        "sums beyond 32 bits": strong.to_bytes(),
    }


@pytest.mark.parametrize("fault", damaged_tables())
def test_damaged_tables_are_refused(fault: str) -> None:
    with pytest.raises(MalformedModel):
        entropy.Tables.from_bytes(damaged_tables()[fault])


@pytest.mark.parametrize("module", [entropy, kernel], ids=["definition", "kernel"])
def test_bad_symbols_are_refused(module) -> None:
    tables = entropy.default_tables(2, 4)
    for bad in (
        np.full((2, 1, 1), 8),
        np.full((2, 1, 1), -8),
        np.zeros((3, 2, 2), int),
        np.zeros((2, 0, 4), int),
        np.zeros((2, 4), int),
        np.zeros((2, 2, 2)),
    ):
        with pytest.raises(BadSamples):
            module.encode(bad, tables)


@pytest.mark.parametrize("module", [entropy, kernel], ids=["definition", "kernel"])
def test_damage_is_detected(module) -> None:
    symbols = laplacian((3, 5, 6), 8, 5.0)
    tables = trained_tables(3, 8)
    data = kernel.encode(symbols, tables)
    damaged = [data[:n] for n in range(0, len(data), 7)]
    damaged += [data[:-1], data + b"\0", data + b"\x01", b"", data[1:]]
    damaged += [data[:-1] + bytes([data[-1] ^ 1 << i]) for i in range(8)]
    for wrong in damaged:
        with pytest.raises(MalformedStream):
            module.decode(wrong, symbols.shape, tables)
    for shape in ((3, 5, 5), (3, 6, 6), (2, 5, 6), (3, 0, 6), (3, 10**6, 10**6)):
        with pytest.raises(MalformedStream):
            module.decode(data, shape, tables)


@pytest.mark.parametrize("module", [entropy, kernel], ids=["definition", "kernel"])
def test_a_payload_beyond_the_first_interval_is_refused(module) -> None:
    tables = entropy.default_tables(1, 8)
    for rest in (b"", b"\0", b"\xff", bytes(40), b"\xff" * 40):
        with pytest.raises(MalformedStream, match="first interval"):
            module.decode(b"\xff" * 4 + rest, (1, 5, 6), tables)
    edge = b"\xff\xff\xff\xfe"  # the last value within
    with pytest.raises(MalformedStream, match="must end where|must not end|residual"):
        module.decode(edge, (1, 1, 1), tables)


def test_random_bytes_end_alike_in_both() -> None:
    rng = np.random.default_rng(5)
    for bits, tables in ((8, trained_tables(2, 8)), (2, trained_tables(2, 2)), (8, entropy.default_tables(2, 8))):
        for n in [*range(1, 12), 40]:
            data = rng.bytes(n)
            ends = []
            for module in (entropy, kernel):
                try:
                    symbols = module.decode(data, (2, 3, 4), tables)
                    assert abs(symbols).max() <= largest(bits)
                    ends.append(symbols.tobytes())
                except MalformedStream:
                    ends.append(b"malformed")
            assert ends[0] == ends[1]


def test_a_flipped_bit_never_leaves_the_range() -> None:
    symbols = laplacian((3, 6, 7), 4, 2.0)
    tables = trained_tables(3, 4)
    data = kernel.encode(symbols, tables)
    for at in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[at // 8] ^= 1 << at % 8
        with contextlib.suppress(MalformedStream):
            assert abs(kernel.decode(bytes(wrong), symbols.shape, tables)).max() <= largest(4)


def test_no_payload_holds_more_than_max_symbols() -> None:
    symbols = np.zeros((1, 200, 2000), np.int16)
    data = kernel.encode(symbols, entropy.default_tables(1, 8))
    assert symbols.size <= entropy.max_symbols(len(data))
    assert symbols.size > 0.9 * entropy.max_symbols(len(data) - 8)  # the bound is nearly reached
