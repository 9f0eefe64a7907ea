"""The entropy coder: symbols of one slice to bytes and back, in integers only. (SPEC.md, entropy coding.)

Planes are coded one after the other, each in raster order. So around a position all of the earlier planes is known, and
of its own plane what lies above and to the left. For each symbol

1. a small integer network looks at these neighbours (`Taps`) and says which value to expect, `mean`, and how far off that
   will be, `scale`, both in fractions of a symbol;
2. the residual symbol - round(mean) is split into binary decisions: zero? negative? how many bits? which bits?
3. four contexts, made of scale, channel and nearest neighbours, each hold an adaptive probability for each decision;
   they are mixed in the logistic domain with adaptive weights, and the result drives a binary range coder.

The slice of a volume is coded depth position by depth position, each like an image's; what was learned goes on, and taps
may look at the position before.

What photographs or music taught - the network, the first probabilities, the first weights - is in `Tables`.

Three surprises. The network's inputs are symbols and *deviations*, and a deviation is the distance from the network's
linear part only, so that nothing learned is fed back. A payload ends with one byte that completes the final interval;
the three that the decoder still wants are zeros and are not stored. And no decision is ever certain, which gives every
symbol a smallest cost and every payload a largest number of symbols (`max_symbols`).

`walloc_ref.fast.entropy` produces the same bytes, a thousand times faster.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from walloc_ref.errors import BadSamples, MalformedModel, MalformedStream

# ---- constants --------------------------------------------------------------------------------------------------------

REACH = 3
"""Taps lie at most this far from the position, in both directions."""
UNIT = 16
"""Symbols, deviations and means count in sixteenths of a symbol."""
DEVIATION_MAX = 1023
"""Deviations saturate here, just below 64 symbols."""
HIDDEN_MAX = 32767
"""Outputs of the hidden units saturate here, just below 128 symbols (they count in 2^-8 symbol)."""
SCALE_MAX = 16383
"""The scale counts in 2^-8 symbol and is held in 1..SCALE_MAX."""
LEVELS = 44
"""Number of classes of the scale, four to an octave."""
QUARTERS = LEVELS // 4
"""Number of coarser classes of the scale, one to an octave."""
FRACTIONS = 5
"""Number of classes of the fraction of the mean, |fraction| = 0..8."""
ACTIVITIES = 12
"""Number of classes of the deviations nearby, two to an octave."""
SIDES = 3
"""The mean lies above a neighbour, near it or below."""
NODES = 16
"""Binary decisions with a probability of their own: 0 zero, 1 sign, 2..8 exponent, 9..15 leading mantissa bits."""
ZERO, SIGN, EXPONENT = 0, 1, 2
"""Nodes: whether the residual is not zero, whether it is negative, and the first of the nodes for its bits' number."""
EXPONENT_LAST = 6
"""From this exponent on one node says whether there are more bits."""
MANTISSA_1, MANTISSA_2, MANTISSA_MORE = 9, 10, 13
"""Nodes of the first bit below the leading one where there are 1, 2 or more; two nodes for the second bit follow."""
CONTEXTS = 4
"""Probabilities mixed for each decision."""
MIXERS = 8
"""Weight sets, chosen by the class of the scale."""
MIXER_LEVELS = 6
"""Neighbouring classes of the scale that share a weight set."""
STRENGTHS = (0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255)
"""How many observations a trained first probability is worth: the low four bits of `Tables.states` point here."""
COUNT_MAX = 255
"""From here on a probability adapts at a constant rate."""
P_BITS = 22
"""Adaptive probabilities have 22 bits, their counters 8."""
P_MIN = 256
"""Adaptive probabilities are held in P_MIN..2^P_BITS - P_MIN."""
P_FLOOR = 32
"""A decision's probability lies in 32..65504 of 65536."""
HALF = 32768
"""The probability of a decision that no context knows anything about."""
STRETCH_MAX = 2047
"""Logits, in 1/256, are held in -STRETCH_MAX..STRETCH_MAX."""
WEIGHT_MAX = 1 << 20
"""Mixing weights are held in -16..16, with 16 fractional bits."""
LEARNING_SHIFT = 19
"""A weight moves by input * error / 2^LEARNING_SHIFT."""
SPAN_MAX = 2**32 - 1
"""The range coder's first interval."""
SPAN_MIN = 1 << 24
"""Where the interval becomes smaller than this, a byte is written or read."""
SYMBOLS_PER_BYTE = 11360
"""A decision shrinks the interval by at least 1 - 2^-11 + 2^-24, so a byte holds fewer than 11,356 of them."""
LIMITS = {"taps": 160, "hidden": 62, "latent_dim": 4096}
"""Bounds of `Tables`, each for one channel except the last."""


# ---- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """What the coder of one model starts from. Integers only; see `from_bytes` for what is checked.

    Attributes
    ----------
    latent_dim, latent_bits : int
        Number of planes D, and bits b: symbols lie in -(2^(b-1)-1) .. 2^(b-1)-1.
    taps : int64 (n, 5)
        channel, kind (0 symbol, 1 deviation), source channel, dy, dx; ordered by channel. Of volumes, source channels
        D .. 2·D - 1 are those of the depth position before.
    units : list of int64 (taps of the channel, 2 + hidden)
        Weights in 2^-12, one array a channel. Column 0 is the linear mean, column 1 the linear scale, the rest the
        hidden units.
    biases : list of int64 (2 + hidden,)
        In 2^-16 symbol.
    outputs : list of int64 (hidden, 2)
        Weights in 2^-12 from the hidden units to the mean and to the scale.
    states : int64 (contexts of all kinds * NODES,)
        First probability of a one in 12 bits, times 16, plus an index into `STRENGTHS`.
    mixers : int64 (MIXERS, NODES, CONTEXTS)
        First weights in 2^-10.
    """

    latent_dim: int
    latent_bits: int
    taps: np.ndarray
    units: list[np.ndarray]
    biases: list[np.ndarray]
    outputs: list[np.ndarray]
    states: np.ndarray
    mixers: np.ndarray

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` restores it exactly.

        Little-endian: "WET1", u16 latent_dim, u16 latent_bits; for each channel u8 taps, u8 hidden; for each tap u16
        source channel, u8 kind * 49 + (dy + 3) * 7 + (dx + 3); for each channel i16 units, i32 biases, i16 outputs;
        u16 states; i16 mixers.

        >>> tables = default_tables(2, 8)
        >>> Tables.from_bytes(tables.to_bytes()).taps.tolist() == tables.taps.tolist()
        True
        """
        parts = [struct.pack("<4sHH", b"WET1", self.latent_dim, self.latent_bits)]
        for c in range(self.latent_dim):
            parts.append(struct.pack("<BB", len(self.units[c]), len(self.outputs[c])))
        for _, kind, source, dy, dx in self.taps.tolist():
            parts.append(struct.pack("<HB", source, kind * 49 + (dy + REACH) * 7 + dx + REACH))
        for c in range(self.latent_dim):
            parts += [self.units[c].astype("<i2").tobytes(), self.biases[c].astype("<i4").tobytes()]
            parts.append(self.outputs[c].astype("<i2").tobytes())
        return b"".join([*parts, self.states.astype("<u2").tobytes(), self.mixers.astype("<i2").tobytes()])

    @staticmethod
    def from_bytes(data: bytes) -> Tables:
        """Restore and check, so that no arithmetic of the coder can leave 32 bits and no tap the known symbols.

        Raises
        ------
        MalformedModel

        Examples
        --------
        >>> Tables.from_bytes(b"WET2" + bytes(4))
        Traceback (most recent call last):
        walloc_ref.errors.MalformedModel: entropy tables: b'WET2'; must begin with WET1
        """
        reader = _Reader(data)
        magic, depth, bits = struct.unpack("<4sHH", reader.take(8))
        if magic != b"WET1":
            raise MalformedModel("entropy tables", magic, "must begin with WET1")
        if depth < 1 or not 2 <= bits <= 8:
            raise MalformedModel("entropy tables", f"{depth} channels, {bits} bits", "1 or more, and 2..8")
        counts = reader.array("<u1", depth, 2)  # taps, hidden
        if counts[:, 0].max() > LIMITS["taps"] or counts[:, 1].max() > LIMITS["hidden"]:
            raise MalformedModel("entropy tables", counts.max(0).tolist(), "at most 160 taps and 62 hidden units")
        channel = np.repeat(np.arange(depth), counts[:, 0])
        packed = np.frombuffer(reader.take(3 * len(channel)), [("source", "<u2"), ("code", "u1")])
        source, code = packed["source"].astype(np.int64), packed["code"].astype(np.int64)
        kind, dy, dx = code // 49, code % 49 // 7 - REACH, code % 7 - REACH
        known = (source < channel) | ((source == channel) & ((dy < 0) | ((dy == 0) & (dx < 0))))
        known |= (source >= depth) & (source < 2 * depth)
        if not (known & (kind < 2)).all():
            raise MalformedModel("entropy tables", "taps", "must point at symbols that are already coded")
        units, biases, outputs, at = [], [], [], 0
        for c, (n, hidden) in enumerate(counts.tolist()):
            units.append(reader.array("<i2", n, 2 + hidden))
            biases.append(reader.array("<i4", 2 + hidden))
            outputs.append(reader.array("<i2", hidden, 2))
            largest = np.where(kind[at : at + n] == 0, UNIT * (2 ** (bits - 1) - 1), DEVIATION_MAX)
            at += n
            reached = largest @ abs(units[c]) + abs(biases[c])
            if max(reached.max(), (abs(outputs[c]).sum(0) * HIDDEN_MAX).max()) >= 2**31 - 2**16:
                raise MalformedModel("entropy tables", f"weights of channel {c}", "sums must stay within 32 bits")
        states = reader.array("<u2", sum(context_counts(depth)) * NODES)
        if states.min() < 16:
            raise MalformedModel("entropy tables", "states", "a probability must not be zero")
        mixers = reader.array("<i2", MIXERS, NODES, CONTEXTS)
        if reader.take(1, short=True):
            raise MalformedModel("entropy tables", f"{len(data)} bytes", "longer than its counts say")
        taps = np.stack([channel, kind, source, dy, dx], 1)
        return Tables(depth, bits, taps, units, biases, outputs, states, mixers)


class _Reader:
    """Consecutive pieces of a byte string; asking for more than there is raises `MalformedModel`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int, short: bool = False) -> bytes:
        piece = self.data[self.at : self.at + n]
        if len(piece) < n and not short:
            raise MalformedModel("entropy tables", f"{len(self.data)} bytes", "shorter than its counts say")
        self.at += n
        return piece

    def array(self, kind: str, *shape: int) -> np.ndarray:
        n = int(np.prod(shape))
        piece = self.take(n * np.dtype(kind).itemsize)
        return np.frombuffer(piece, kind).astype(np.int64).reshape(shape)


def context_counts(latent_dim: int) -> tuple[int, int, int, int]:
    """How many contexts there are of each of the four kinds; `contexts` numbers them.

    >>> context_counts(12)
    (220, 132, 132, 396)
    """
    return LEVELS * FRACTIONS, latent_dim * QUARTERS, ACTIVITIES * QUARTERS, SIDES**2 * LEVELS


@lru_cache(maxsize=16)
def default_tables(latent_dim: int, latent_bits: int) -> Tables:
    """Tables for a model that carries none: five neighbours, the place in the plane before, nothing learned.

    >>> default_tables(1, 3).taps.tolist()  # plane, deviation, source plane, dy, dx: W, N, NW, NE
    [[0, 1, 0, 0, -1], [0, 1, 0, -1, 0], [0, 1, 0, -1, -1], [0, 1, 0, -1, 1]]
    """
    own = [(0, -1, 4096), (-1, 0, 4096), (-1, -1, 2048), (-1, 1, 2048)]  # dy, dx, weight
    taps, units = [], []
    for c in range(latent_dim):
        here = [(c, 1, c, dy, dx) for dy, dx, _ in own]
        scale = [weight // (4 if c else 3) for _, _, weight in own]
        if c:
            here.append((c, 1, c - 1, 0, 0))
            scale.append(1024)
        taps += here
        units.append(np.array([[0, s] for s in scale], np.int64))
    return Tables(
        latent_dim=latent_dim,
        latent_bits=latent_bits,
        taps=np.array(taps, np.int64),
        units=units,
        biases=[np.array([0, 1 << 12], np.int64)] * latent_dim,
        outputs=[np.zeros((0, 2), np.int64)] * latent_dim,
        states=np.full(sum(context_counts(latent_dim)) * NODES, 2048 * 16, np.int64),
        mixers=np.full((MIXERS, NODES, CONTEXTS), 320, np.int64),
    )


# ---- integer functions ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def squash_table() -> np.ndarray:
    """squash(x) = 65536 / (1 + exp(-x / 256)) for x = -2047 .. 2047, at index x + 2047. int64 (4095,)

    In integers: E(0) = 2^24, E(x + 1) = E(x) * 16842880 >> 24 follows exp(x / 256), since 16842880 / 2^24 = exp(1 / 256);
    squash(x) = 65536 * E(x) // (E(x) + 2^24), at most 65504; squash(-x) = 65536 - squash(x).

    >>> squash_table()[[0, 2047, 2047 + 256, -1]].tolist()
    [32, 32768, 47910, 65504]
    """
    one, step = 1 << 24, 16842880
    table = np.zeros(2 * STRETCH_MAX + 1, np.int64)
    e = one
    for x in range(STRETCH_MAX + 1):
        p = min(65536 * e // (e + one), 65536 - P_FLOOR)
        table[STRETCH_MAX + x], table[STRETCH_MAX - x] = p, 65536 - p
        e = e * step >> 24
    return table


@lru_cache(maxsize=1)
def stretch_table() -> np.ndarray:
    """stretch(q), the inverse of squash: the largest x with squash(x) <= 16 q + 8, for q = 0 .. 4095. int64 (4096,)

    >>> stretch_table()[[0, 2048, 4095]].tolist()
    [-2047, 0, 2047]
    """
    at = np.searchsorted(squash_table(), 16 * np.arange(4096) + 8, side="right") - 1
    return np.maximum(at, 0) - STRETCH_MAX


def level(v: int, per_octave: int, first: int, count: int) -> int:
    """Class 0..count-1 of v >= 1 on a scale of `per_octave` (2 or 4) classes an octave, less `first`.

    >>> [level(v, 4, 8, 44) for v in (1, 4, 5, 16, 300, 16383)]
    [0, 0, 1, 8, 24, 43]
    """
    e = v.bit_length() - 1
    return min(max(per_octave * e + ((v * per_octave >> e) & (per_octave - 1)) - first, 0), count - 1)


def scale_class(scale: int) -> int:
    """Class 0..LEVELS-1 of a scale in 1..SCALE_MAX.

    >>> scale_class(256), scale_class(512)  # one symbol, two symbols
    (24, 28)
    """
    return level(scale, 4, 8, LEVELS)


def activity_class(around: int) -> int:
    """Class 0..ACTIVITIES-1 of a sum of deviations, six of which count.

    >>> activity_class(0), activity_class(96)
    (0, 9)
    """
    return level(max(around, 1), 2, 4, ACTIVITIES)


def adaptation_rate(n: int) -> int:
    """How far, in 1/65536, a probability seen n times moves towards the next decision: 1 / (n + 1.6).

    >>> [adaptation_rate(n) for n in (0, 1, 255)]
    [40960, 25206, 255]
    """
    return 655360 // (10 * n + 16)


def clamp(v: int, low: int, high: int) -> int:
    """v, held in low..high.

    >>> clamp(9, 0, 7)
    7
    """
    return min(max(v, low), high)


# ---- the range coder --------------------------------------------------------------------------------------------------


class Encoder:
    """Binary range encoder: the interval [low, low + span) of 32 bits, carries going back into the bytes written."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.low, self.span = 0, SPAN_MAX

    def code(self, p: int, bit: int) -> int:
        """Code a decision whose probability to be a one is p / 65536.

        >>> encoder = Encoder()
        >>> [encoder.code(65504, 1) for _ in range(3)], encoder.finish().hex()  # likely decisions cost little
        ([1, 1, 1], '00')
        """
        bound = self.span * p >> 16
        if bit:
            self.span = bound
        else:
            self.low, self.span = self.low + bound, self.span - bound
        while self.span < SPAN_MIN:
            self.shift()
        return bit

    def shift(self) -> None:
        """Write the top byte of low; its 33rd bit is a carry.

        >>> encoder = Encoder()
        >>> encoder.low = 0xAB000000
        >>> encoder.shift()
        >>> encoder.out.hex()
        'ab'
        """
        if self.low >> 32:
            at = len(self.out) - 1
            while self.out[at] == 255:
                self.out[at] = 0
                at -= 1
            self.out[at] += 1
        self.out.append(self.low >> 24 & 255)
        self.low, self.span = (self.low & 0xFFFFFF) << 8, self.span << 8

    def finish(self) -> bytes:
        """The only multiple of 2^24 in the first 2^24 values of the interval: one more byte, the rest are zeros.

        >>> Encoder().finish().hex()
        '00'
        """
        self.low += (1 << 24) - 1
        self.shift()
        return bytes(self.out)


class Decoder:
    """The encoder's mirror. `value` is the payload's distance from low, in 0..span - 1."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.low, self.span, self.value = 0, SPAN_MAX, 0
        for _ in range(4):
            self.value = self.value << 8 | self.next_byte()
        if self.value >= self.span:  # it would stay there, and grow
            raise MalformedStream("slice payload", "FF FF FF FF", "must not begin beyond the coder's first interval")

    def code(self, p: int, bit: int | None = None) -> int:
        """Decode a decision whose probability to be a one is p / 65536.

        >>> encoder = Encoder()
        >>> coded = [encoder.code(9000, bit) for bit in (0, 1, 0)]
        >>> decoder = Decoder(encoder.finish())
        >>> [decoder.code(9000) for _ in range(3)]
        [0, 1, 0]
        """
        bound = self.span * p >> 16
        bit = int(self.value < bound)
        if bit:
            self.span = bound
        else:
            self.low, self.span, self.value = self.low + bound, self.span - bound, self.value - bound
        while self.span < SPAN_MIN:
            self.low, self.span = (self.low & 0xFFFFFF) << 8, self.span << 8
            self.value = self.value << 8 | self.next_byte()
        return bit

    def next_byte(self) -> int:
        """The next byte; three zeros follow the last one.

        >>> decoder = Decoder(bytes([0, 0, 0, 0, 7]))
        >>> decoder.next_byte(), decoder.next_byte()  # then three zeros
        (7, 0)
        """
        self.at += 1
        if self.at > len(self.data) + 3:
            raise MalformedStream("slice payload", f"{len(self.data)} bytes", "must not end before its symbols do")
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def finish(self) -> None:
        """Check that all was read and that `Encoder.finish` would have ended with these bytes.

        >>> Decoder(bytes([0])).finish()  # what an encoder of no decisions writes
        """
        if self.at != len(self.data) + 3:
            raise MalformedStream("slice payload", f"{len(self.data)} bytes", "must end where its symbols do")
        if self.value >= SPAN_MIN:  # low + value, the last bytes read, is a multiple of 2^24: three of them are zeros
            raise MalformedStream("slice payload", "final state of the coder", "must be the encoder's")


# ---- the model --------------------------------------------------------------------------------------------------------


class Neighbours:
    """Symbols and deviations coded so far, in sixteenths of a symbol.

    planes: (kind, 2·D, h, w), those of the depth position that is coded and, from D on, those of the one before, or zeros.
    """

    def __init__(self, shape: tuple[int, int, int], before: Neighbours | None = None) -> None:
        depth, self.h, self.w = shape
        self.planes = np.zeros((2, 2 * depth, self.h, self.w), np.int64)
        if before is not None:
            self.planes[:, depth:] = before.planes[:, :depth]

    def get(self, here: tuple[int, int, int], kind: int, source: int, dy: int, dx: int) -> int:
        """A tap's value for the position `here`.

        Outside the plane the nearest position counts. Where that is not coded yet: in the first row the symbol just
        coded, in the first column the one above; at the very beginning zero.

        >>> known = Neighbours((1, 2, 2))
        >>> known.put((0, 0, 0), 5, 0)
        >>> known.get((0, 0, 1), 0, 0, -1, 0)  # above the first row: the symbol just coded, in sixteenths
        80
        """
        c, y, x = here
        y1, x1 = clamp(y + dy, 0, self.h - 1), clamp(x + dx, 0, self.w - 1)
        if source == c and (y1, x1) >= (y, x):
            if y > 0:
                y1, x1 = y - 1, 0
            elif x > 0:
                y1, x1 = 0, x - 1
            else:
                return 0
        return int(self.planes[kind, source, y1, x1])

    def put(self, here: tuple[int, int, int], symbol: int, linear_mean: int) -> None:
        """Record a symbol and its deviation.

        >>> known = Neighbours((1, 1, 2))
        >>> known.put((0, 0, 0), 5, 70)
        >>> known.planes[:, 0, 0, 0].tolist()  # symbol, deviation
        [80, 10]
        """
        self.planes[0][here] = UNIT * symbol
        self.planes[1][here] = min(abs(UNIT * symbol - linear_mean), DEVIATION_MAX)


def predict(v: np.ndarray, units: np.ndarray, biases: np.ndarray, outputs: np.ndarray) -> tuple[int, int, int]:
    """The network of one channel: taps' values v (n,) -> linear mean and mean in 1/16, scale in 1/256 of a symbol.

    >>> tables = default_tables(1, 3)
    >>> predict(np.array([32, 0, 0, 0]), tables.units[0], tables.biases[0], tables.outputs[0])
    (0, 0, 186)
    """
    sums = biases + v @ units  # (2 + hidden,) 2^-16
    hidden = np.clip(sums[2:] >> 8, 0, HIDDEN_MAX)  # (hidden,) 2^-8
    mean, scale = (sums[:2] << 4) + hidden @ outputs  # 2^-20
    return int(sums[0] + 2048) >> 12, int(mean + 32768) >> 16, int(scale) >> 12


def contexts(c: int, depth: int, mean: int, scale: int, flip: int, fraction: int, near: list[int]) -> list[int]:
    """The four contexts' numbers; `near` holds the symbols W and N and the deviations W, N, NW, NE, in sixteenths.

    >>> contexts(0, 1, 0, 16, 1, 0, [0] * 6)  # the first position of SPEC.md 7.17
    [8, 40, 222, 233, 547]
    """
    class_ = scale_class(scale)
    activity = activity_class(2 * near[2] + 2 * near[3] + near[4] + near[5])
    margin = 1 + (scale >> 4)
    side = [1 + (flip * (v - mean) > margin) - (flip * (v - mean) < -margin) for v in near[:2]]  # 0, 1, 2
    numbers = [
        class_ * FRACTIONS + (fraction + 1 >> 1),
        c * QUARTERS + (class_ >> 2),
        activity * QUARTERS + (class_ >> 2),
        (side[0] * SIDES + side[1]) * LEVELS + class_,
    ]
    return [class_, *(sum(context_counts(depth)[:i]) + n for i, n in enumerate(numbers))]


class Mixer:
    """Adaptive probabilities of all contexts, and the weights that mix them."""

    def __init__(self, tables: Tables) -> None:
        self.p = (tables.states >> 4 << P_BITS - 12).tolist()  # of a one, P_BITS bits
        self.n = [STRENGTHS[s & 15] for s in tables.states.tolist()]
        self.weights = (tables.mixers << 6).tolist()
        self.squash, self.stretch = squash_table().tolist(), stretch_table().tolist()

    def code(self, coder: Encoder | Decoder, mixer: int, at: list[int], node: int, bit: int) -> int:
        """Code one decision in the contexts `at` and learn from it; `bit` matters to the encoder only.

        >>> mixer, encoder = Mixer(default_tables(1, 3)), Encoder()
        >>> mixer.code(encoder, 1, [40, 222, 233, 547], ZERO, 0), encoder.span == 2**31
        (0, True)
        """
        states = [i * NODES + node for i in at]
        weights = self.weights[mixer][node]
        inputs = [self.stretch[self.p[i] >> P_BITS - 12] for i in states]
        dot = sum(w * s for w, s in zip(weights, inputs, strict=True)) >> 16
        p = self.squash[clamp(dot, -STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX]
        bit = coder.code(p, bit)
        error, half = (bit << 16) - p, 1 << LEARNING_SHIFT - 1
        for k, i in enumerate(states):
            weights[k] = clamp(weights[k] + (inputs[k] * error + half >> LEARNING_SHIFT), -WEIGHT_MAX, WEIGHT_MAX)
            self.p[i] += ((bit << P_BITS) - self.p[i]) * adaptation_rate(self.n[i]) >> 16
            self.p[i] = clamp(self.p[i], P_MIN, (1 << P_BITS) - P_MIN)
            self.n[i] = min(self.n[i] + 1, COUNT_MAX)
        return bit


def mantissa_node(e: int, place: int, value: int) -> int:
    """The node of one of the first two bits below the leading one; `value` is what stands above it.

    >>> mantissa_node(3, 2, 1), mantissa_node(3, 1, 2)
    (13, 14)
    """
    first = MANTISSA_1 if e == 1 else MANTISSA_2 if e == 2 else MANTISSA_MORE
    return first if place == e - 1 else first + 1 + (value & 1)


def code_residual(
    coder: Encoder | Decoder, mix: Mixer, mixer: int, at: list[int], r: int, room: tuple[int, int]
) -> int:
    """Code the residual r, of which `room` bounds the magnitude: [0] if positive, [1] if negative. Returns it.

    >>> encoder = Encoder()
    >>> code_residual(encoder, Mixer(default_tables(1, 3)), 1, [40, 222, 233, 547], -2, (3, 3))
    -2
    """
    magnitude = abs(r)
    if not mix.code(coder, mixer, at, ZERO, int(r != 0)):
        return 0
    negative = mix.code(coder, mixer, at, SIGN, int(r < 0))
    e = 0  # 2^e <= magnitude < 2^(e + 1)
    while mix.code(coder, mixer, at, EXPONENT + min(e, EXPONENT_LAST), int(magnitude >= 2 << e)):
        e += 1
        if 1 << e > room[negative]:
            raise MalformedStream("slice payload", f"a residual of {1 << e} or more", f"at most {room[negative]}")
    value = 1
    for place in range(e - 1, -1, -1):
        bit = magnitude >> place & 1
        if e - 1 - place < 2:  # of the bits below the leading one the first two
            bit = mix.code(coder, mixer, at, mantissa_node(e, place, value), bit)
        else:
            bit = coder.code(HALF, bit)
        value = value << 1 | bit
    if value > room[negative]:
        raise MalformedStream("slice payload", f"a residual of {value}", f"at most {room[negative]}")
    return -value if negative else value


def walk_slice(coder: Encoder | Decoder, symbols: np.ndarray, tables: Tables) -> None:
    """Code a slice (D, h, w), or that of a volume (D, z, h, w); a decoder writes `symbols`, an encoder reads them.

    >>> encoder = Encoder()
    >>> walk_slice(encoder, np.int16([[[0, 2, -1]]]), default_tables(1, 3))
    >>> encoder.finish().hex()  # SPEC.md 7.17
    '8c3e'
    """
    mix, known = Mixer(tables), None
    for part in np.moveaxis(symbols, 1, 0) if symbols.ndim == 4 else symbols[None]:  # (D, h, w) each
        known = walk(coder, part, tables, mix, known)


def walk(
    coder: Encoder | Decoder, symbols: np.ndarray, tables: Tables, mix: Mixer, before: Neighbours | None
) -> Neighbours:
    """Code (D, h, w) in coding order; `before` is what came of the depth position before. Returns what came of this one.

    >>> tables = default_tables(1, 3)
    >>> known = walk(Encoder(), np.int16([[[0, 2, -1]]]), tables, Mixer(tables), None)
    >>> known.planes[0, 0].tolist()  # sixteenths
    [[0, 32, -16]]
    """
    depth, h, w = symbols.shape
    largest = 2 ** (tables.latent_bits - 1) - 1
    taps = [tables.taps[tables.taps[:, 0] == c, 1:].tolist() for c in range(depth)]
    known = Neighbours((depth, h, w), before)
    for c, y, x in positions(depth, h, w):
        here = (c, y, x)
        v = np.array([known.get(here, *tap) for tap in taps[c]], np.int64)
        linear_mean, mean, scale = predict(v, tables.units[c], tables.biases[c], tables.outputs[c])
        mean, scale = clamp(mean, -UNIT * largest, UNIT * largest), clamp(scale, 1, SCALE_MAX)
        expected = mean + UNIT // 2 >> 4
        fraction = mean - UNIT * expected  # -8 .. 7
        flip = -1 if fraction < 0 else 1  # so that the mean lies on the positive side of the expected symbol
        near = [known.get(here, 0, c, *d) for d in ((0, -1), (-1, 0))]
        near += [known.get(here, 1, c, *d) for d in ((0, -1), (-1, 0), (-1, -1), (-1, 1))]
        class_, *at = contexts(c, depth, mean, scale, flip, abs(fraction), near)
        room = (largest - flip * expected, largest + flip * expected)
        residual = (int(symbols[here]) - expected) * flip
        symbols[here] = expected + flip * code_residual(coder, mix, class_ // MIXER_LEVELS, at, residual, room)
        known.put(here, int(symbols[here]), linear_mean)
    return known


def positions(depth: int, h: int, w: int) -> Iterator[tuple[int, int, int]]:
    """Coding order: plane after plane, each row by row.

    >>> list(positions(1, 2, 2))
    [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    """
    return ((c, y, x) for c in range(depth) for y in range(h) for x in range(w))


# ---- slices -----------------------------------------------------------------------------------------------------------


def max_symbols(payload_bytes: int) -> int:
    """The most symbols that a payload of this size can hold, so that absurd shapes are refused before allocating.

    >>> max_symbols(2)
    22720
    """
    return payload_bytes * SYMBOLS_PER_BYTE


def checked_symbols(symbols: np.ndarray, tables: Tables) -> np.ndarray:
    """A copy of the symbols, int16 (D, h, w) or (D, z, h, w); `BadSamples` if empty, out of range or for another model.

    >>> checked_symbols(np.array([[[9]]]), default_tables(1, 3))
    Traceback (most recent call last):
    walloc_ref.errors.BadSamples: symbols: 9..9; must lie in -3..3
    """
    s = np.asarray(symbols)
    if s.ndim not in (3, 4) or s.shape[0] != tables.latent_dim or s.size == 0 or s.dtype.kind not in "iu":
        raise BadSamples("symbols", f"{s.dtype} {s.shape}", f"integers of shape ({tables.latent_dim}, h, w), not empty")
    largest = 2 ** (tables.latent_bits - 1) - 1
    if s.min() < -largest or s.max() > largest:
        raise BadSamples("symbols", f"{s.min()}..{s.max()}", f"must lie in {-largest}..{largest}")
    return np.array(s, np.int16, order="C")


def check_payload(data: bytes, shape: tuple[int, ...], tables: Tables) -> None:
    """Raise `MalformedStream` where the payload cannot hold such a slice.

    >>> check_payload(b"", (1, 1, 1), default_tables(1, 3))
    Traceback (most recent call last):
    walloc_ref.errors.MalformedStream: slice payload: 0 bytes; too few for 1 symbols
    """
    if len(shape) not in (3, 4) or shape[0] != tables.latent_dim or min(shape) < 1:
        raise MalformedStream("slice shape", shape, f"({tables.latent_dim}, h, w), not empty")
    if math.prod(shape) > max_symbols(len(data)):
        raise MalformedStream("slice payload", f"{len(data)} bytes", f"too few for {math.prod(shape)} symbols")


def encode(symbols: np.ndarray, tables: Tables) -> bytes:
    """Code one slice.

    Parameters
    ----------
    symbols : integers (D, h, w)
        In -(2^(b-1)-1) .. 2^(b-1)-1. Audio of l positions is (D, 1, l), a volume (D, z, h, w).
    tables : Tables

    Returns
    -------
    bytes
        The payload. It does not contain the shape.

    Raises
    ------
    BadSamples

    Examples
    --------
    >>> encode(np.int16([[[0, 2, -1]]]), default_tables(1, 3)).hex()  # SPEC.md 7.17
    '8c3e'
    """
    encoder = Encoder()
    walk_slice(encoder, checked_symbols(symbols, tables), tables)
    return encoder.finish()


def decode(data: bytes, shape: tuple[int, ...], tables: Tables) -> np.ndarray:
    """Decode one slice: the inverse of `encode`.

    Returns
    -------
    int16 (D, h, w) or (D, z, h, w), as `shape` says

    Raises
    ------
    MalformedStream
        If the payload is not exactly what `encode` makes of some symbols of this shape.

    Examples
    --------
    >>> decode(bytes.fromhex("8c3e"), (1, 1, 3), default_tables(1, 3)).tolist()
    [[[0, 2, -1]]]
    """
    check_payload(data, shape, tables)
    decoder, symbols = Decoder(data), np.zeros(shape, np.int16)
    walk_slice(decoder, symbols, tables)
    decoder.finish()
    return symbols
