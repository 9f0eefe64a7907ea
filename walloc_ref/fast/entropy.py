"""The entropy coder's kernel: the bytes of `walloc_ref.stages.entropy`, fast. (SPEC.md 7.6 to 7.12, in that order below.)

`encode_slice` and `decode_slice` walk a slice in coding order. Functions that both are made of are told by `encoding` which
one it is, so that the model cannot differ; the two are kernels of their own, so that who wants one does not wait until
both are compiled. What makes them fast, each explained where it stands:

* Of the network's sums, all but the taps on the row being coded are known before the row begins. They are added up for
  a stretch of the row at a time, in loops that become vector instructions (`add_taps`).
* What remains for each symbol are four taps, and a 64-bit multiplication serves two units at once (`predict`).
* An encoder, who has all symbols, does not even wait for those: it looks ahead (`encode_stretch`).
* The four contexts of a decision are mixed and learn side by side, in one register (`mix`, `learn`).
* Planes have margins, filled as coding proceeds, so that no tap needs a test for the border (`Field`).
* Tables of functions are as narrow as their values, and a context's sixteen nodes share a cache line (`aligned`).
* Functions allocate nothing, are compiled without counting references, and end up in one piece (`bare`, `inlined`).

Scalars are signed 64-bit; sums fit in 32 bits, which `Tables.from_bytes` checks.

Where the time of an encoder goes, for 12 planes at 1.8 bits a symbol: half in what it looks ahead for (a third of that in
the taps), half in the decisions. Measured against coding symbol by symbol, one decision's contexts one after the other:
1.45 times as fast; a decoder gains 1.15 to 1.2 times from the contexts side by side.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from walloc_ref.errors import MalformedStream
from walloc_ref.fast import apart, bare, inlined
from walloc_ref.fast.lanes import Instructions
from walloc_ref.stages import entropy as clear
from walloc_ref.stages.entropy import (
    COUNT_MAX,
    DEVIATION_MAX,
    EXPONENT,
    EXPONENT_LAST,
    FRACTIONS,
    HALF,
    HIDDEN_MAX,
    LEARNING_SHIFT,
    LEVELS,
    MANTISSA_1,
    MANTISSA_2,
    MANTISSA_MORE,
    MIXER_LEVELS,
    NODES,
    P_BITS,
    P_MIN,
    QUARTERS,
    REACH,
    SCALE_MAX,
    SIDES,
    SIGN,
    SPAN_MAX,
    SPAN_MIN,
    STRETCH_MAX,
    UNIT,
    WEIGHT_MAX,
    ZERO,
    Tables,
)

STRETCH = 512
"""Positions whose sums are prepared together."""
LANE = STRETCH + 16
"""Length of a row of `sums`: no power of two, or the units' sums of one position would compete for the same cache lines."""
LATE = 4
"""Taps that `predict` adds: those on the row being coded, which have to wait for the symbol before."""
MOST_DECISIONS = 17
"""Of a symbol: zero, sign, 8 of the exponent, 7 of the mantissa."""
MOST_BYTES = 24
"""Of a symbol: `MOST_DECISIONS` of 11 bits each."""
MASK = SPAN_MIN - 1
ENDED_EARLY, OUT_OF_RANGE, WRONG_END, WRONG_START = 1, 2, 3, 4
FAULTS = {
    ENDED_EARLY: "must not end before its symbols do",
    OUT_OF_RANGE: "must not hold a residual out of range",
    WRONG_END: "must end where its symbols do, in the encoder's final state",
    WRONG_START: "must not begin beyond the coder's first interval",
}

EVEN = 16
"""In an encoder's list, the node of decisions that are coded with a probability of one half and learn nothing."""

NIL, ONE, TWO, THREE = np.int64(0), np.int64(1), np.int64(2), np.int64(3)
"""Numbers as arguments: for each literal one Numba would compile the function once more."""

index = np.uintp
"""What subscripts are cast to where they are known not to be negative: for signed ones Numba adds a test."""


# ---- records ----------------------------------------------------------------------------------------------------------


class Network(NamedTuple):
    """The tables' networks, one plane's after the other's; entries c and c + 1 of the starts bound those of plane c.

    An odd number of units is filled up with one that does nothing, so that units come in pairs. A pair (a, b) packed
    into 64 bits is a + b * 2^32: sums and products of pairs are those of both halves as long as each fits in 32 bits.
    """

    tap_starts: np.ndarray  # int64 (D + 1,)
    taps: np.ndarray  # int64 (taps, 3): 2 * source + kind, dy, dx; of a plane: on its own row, in its plane, elsewhere
    weight_starts: np.ndarray  # int64 (D + 1,)
    weights: np.ndarray  # int16 (sum of taps * units,)
    unit_starts: np.ndarray  # int64 (D + 1,)
    biases: np.ndarray  # int32 (units,)
    outputs: np.ndarray  # int64 (units,): packed weights to mean and scale; 0 for the two linear units
    late: np.ndarray  # int64 (units / 2, LATE): packed weights of the first LATE taps, 0 where they are not on the row


class Plane(NamedTuple):
    """What `Network` has for one plane."""

    number: int
    units: int
    taps: int
    row: int  # taps 0..row-1 lie on the row being coded,
    own: int  # taps 0..own-1 in the plane being coded
    away: np.ndarray  # int64 (at least taps and LATE,): from a position in `Field.values`, plane 0, to the tap's value
    weights: np.ndarray  # int16 (taps * units,)
    biases: np.ndarray
    outputs: np.ndarray
    late: np.ndarray


class Field(NamedTuple):
    """Symbols and deviations coded so far, in sixteenths of a symbol, in planes with margins: REACH columns on either side
    and `top` rows above and below, filled so that a tap finds there what SPEC.md 7.6 says.
    """  # fmt: skip

    values: np.ndarray  # int16 (2 * D * area,): plane 0's symbols, its deviations, plane 1's symbols …; twice that for
    # taps at the depth position before, whose planes come after
    away: np.ndarray  # int64 (taps + LATE,)
    sums: np.ndarray  # int32 (64, LANE): what is known of the units' sums in the stretch being coded
    ahead: np.ndarray  # int32 (6, LANE): what an encoder knows of the symbols of a stretch before it codes the first:
    # residuals, and the members of `Contexts`; before that, hidden sums of means and scales
    decisions: np.ndarray  # int32 (LANE * MOST_DECISIONS,): place in the stretch << 6 | node << 1 | bit
    top: int
    stride: int  # of a row
    area: int  # of a plane


class Model(NamedTuple):
    """Adaptive probabilities and mixing weights, and the functions that they go through, as tables."""

    states: np.ndarray  # int32 (contexts * NODES,): probability << 8 | count
    weights: np.ndarray  # int32 (MIXERS * NODES * 4,)
    stretch: np.ndarray  # int16 (4096,)
    squash: np.ndarray  # uint16 (4095,)
    rates: np.ndarray  # uint16 (256,)
    scales: np.ndarray  # uint8 (SCALE_MAX + 1,): class of the scale
    activities: np.ndarray  # uint8 (6 * DEVIATION_MAX + 1,)
    offsets: np.ndarray  # int64 (4,): of the four kinds of contexts
    counts: np.ndarray  # int32 (states, 2): collects zeros and ones coded in each state, if it is not empty
    trail: (
        np.ndarray
    )  # int64 (symbols + 1, 2): a decoder's bytes and span after each symbol, if not empty; [0, 0] counts


class Contexts(NamedTuple):
    """Where the nodes of the weight set and of the four contexts begin."""

    mixer: int
    a: int
    b: int
    c: int
    d: int


class Coder(NamedTuple):
    """The range coder: an encoder's `low`, or a decoder's `value`, the distance of the payload from low.

    A decoder has no use for low: low + value are always, modulo 2^32, the last four bytes that it read. So the last
    condition of SPEC.md 7.13 on low + value holds wherever the three zeros after the payload have been read.
    """

    low: int
    span: int
    value: int
    at: int  # bytes written or read


# ---- 7.5 and 7.6 ------------------------------------------------------------------------------------------------------


@inlined
def clamp(v, low, high):
    """v, held in low..high."""
    return min(max(v, low), high)


@inlined
def put(field, plane, y, x, h, w, symbol, deviation):
    """Record what was coded at (y, x), and in those margins that have it for their nearest position."""
    values, stride, top = field.values, field.stride, field.top
    for kind in range(2):
        v = np.int16(deviation if kind else symbol)
        origin = (2 * plane.number + kind) * field.area + REACH
        here = origin + (top + y) * stride + x
        values[index(here)] = v
        if y == 0:  # the rows above: this column, and those to its right until they are coded
            for i in range(top):
                for j in range(min(REACH + 2, w + REACH + 1 - x)):
                    values[origin + i * stride + x + j] = v
        if x == 0:  # the columns to the left; in the rows below they hold this symbol until their own is known
            for i in range(0 if y == 0 else top + y, top + y + 1):
                for j in range(1, REACH + 1):
                    values[origin + i * stride - j] = v
            if y + 1 < h:
                for j in range(1, REACH + 1):
                    values[here + stride - j] = v
        if x == w - 1:
            for j in range(1, REACH + 1):
                values[here + j] = v


@bare
def close_plane(field, plane, h):
    """Fill the rows above and below a plane that has been coded."""
    values, stride, top = field.values, field.stride, field.top
    for kind in range(2):
        first = (2 * plane.number + kind) * field.area + top * stride
        last = first + (h - 1) * stride
        for i in range(1, top + 1):
            for x in range(stride):
                values[first - i * stride + x] = values[first + x]
                values[last + i * stride + x] = values[last + x]


@bare
def next_depth(field, size):
    """What was coded becomes the depth position before, if a tap looks there (SPEC.md 16.6), and the next one is empty."""
    values = field.values
    if values.size > size:
        for i in range(size):
            values[size + i] = values[i]
    for i in range(size):
        values[i] = 0


# ---- 7.7 --------------------------------------------------------------------------------------------------------------


@bare
def add_taps(field, plane, i, n, first, last, f):
    """Add the taps first..last-1 to the sums i..i+n-1, which belong to n positions from f on.

    Four taps at a time, so that a sum is fetched and stored once for four products.
    """
    values, away, weights = field.values, plane.away, plane.weights
    for u in range(plane.units):
        total = field.sums[u, i : i + n]
        t = first
        while t + 4 <= last:
            v0 = values[f + away[t] : f + away[t] + n]
            v1 = values[f + away[t + 1] : f + away[t + 1] + n]
            v2 = values[f + away[t + 2] : f + away[t + 2] + n]
            v3 = values[f + away[t + 3] : f + away[t + 3] + n]
            at = t * plane.units + u
            w0, w1 = np.int32(weights[at]), np.int32(weights[at + plane.units])
            w2, w3 = np.int32(weights[at + 2 * plane.units]), np.int32(weights[at + 3 * plane.units])
            for x in range(n):
                total[x] += w0 * v0[x] + w1 * v1[x] + w2 * v2[x] + w3 * v3[x]
            t += 4
        while t < last:
            v0 = values[f + away[t] : f + away[t] + n]
            w0 = np.int32(weights[t * plane.units + u])
            for x in range(n):
                total[x] += w0 * v0[x]
            t += 1


@bare
def begin_sums(field, plane, n, f):
    """Biases and taps on earlier planes, for n positions from f on."""
    for u in range(plane.units):
        total = field.sums[u, :n]
        for x in range(n):
            total[x] = plane.biases[u]
    add_taps(field, plane, NIL, n, plane.own, plane.taps, f)


@bare
def add_serial(field, plane, i, first, last, f):
    """Add the taps first..last-1 to the sums of the position f: those that wait for the symbol before, if `LATE` are few.

    In the first row these are all in the plane itself, since what lies above it repeats the symbols just coded.
    """
    for t in range(first, last):
        v = np.int64(field.values[f + plane.away[t]])
        for u in range(plane.units):
            field.sums[u, i] += v * np.int64(plane.weights[t * plane.units + u])


@inlined
def lower(pair):
    """a of a + b * 2^32."""
    return (pair << 32) >> 32


@inlined
def upper(pair):
    """b of a + b * 2^32, where a may be negative."""
    return (pair + (1 << 31)) >> 32


@inlined
def rectified(total):
    """What a hidden unit with this sum gives."""
    return clamp(total >> 8, 0, HIDDEN_MAX)


@inlined
def predict(field, plane, i, f):
    """Add the last taps to the sums i, of the position f. Returns linear mean, mean and scale, as in SPEC.md 7.7."""
    values, away, sums, late, outputs = field.values, plane.away, field.sums, plane.late, plane.outputs
    v0, v1 = np.int64(values[index(f + away[0])]), np.int64(values[index(f + away[1])])
    v2, v3 = np.int64(values[index(f + away[2])]), np.int64(values[index(f + away[3])])
    linear, linear_scale, hidden = np.int64(0), np.int64(0), np.int64(0)
    for j in range(plane.units >> 1):  # two units at a time
        pair = np.int64(sums[2 * j, index(i)]) + (np.int64(sums[2 * j + 1, index(i)]) << 32)
        pair += v0 * late[j, 0] + v1 * late[j, 1] + v2 * late[j, 2] + v3 * late[j, 3]
        a, b = lower(pair), upper(pair)
        if j == 0:
            linear, linear_scale = a, b
        else:  # and mean and scale together
            hidden += rectified(a) * outputs[2 * j] + rectified(b) * outputs[2 * j + 1]
    mean, scale = (linear << 4) + lower(hidden), (linear_scale << 4) + upper(hidden)
    return (linear + 2048) >> 12, (mean + 32768) >> 16, scale >> 12


# ---- 7.8 --------------------------------------------------------------------------------------------------------------


@inlined
def side(v, mean, margin, flip):
    """0, 1 or 2: whether a neighbour lies below the mean, near it or above."""
    distance = flip * (np.int64(v) - mean)
    return np.int64(1) + (distance > margin) - (distance < -margin)


@inlined
def contexts(field, model, c, f, mean, scale, flip, fraction):
    """The weight set and the four contexts of the position f of plane c."""
    v, stride, offsets = field.values, field.stride, model.offsets
    k = 2 * c * field.area + f
    d = k + field.area
    around = 2 * np.int64(v[index(d - 1)]) + 2 * np.int64(v[index(d - stride)])
    around += np.int64(v[index(d - stride - 1)]) + np.int64(v[index(d - stride + 1)])
    margin = 1 + (scale >> 4)
    sides = side(v[index(k - 1)], mean, margin, flip) * SIDES + side(v[index(k - stride)], mean, margin, flip)
    size = np.int64(model.scales[index(scale)])
    quarter = size >> 2
    return Contexts(
        size // MIXER_LEVELS * NODES,
        (size * FRACTIONS + ((fraction + 1) >> 1)) * NODES,
        (offsets[1] + c * QUARTERS + quarter) * NODES,
        (offsets[2] + np.int64(model.activities[index(around)]) * QUARTERS + quarter) * NODES,
        (offsets[3] + sides * LEVELS + size) * NODES,
    )


# ---- 7.12, which 7.9 needs --------------------------------------------------------------------------------------------


@bare
def carry(data, at):
    """Add one to the bytes written."""
    back = at - 1
    while data[back] == 255:
        data[back] = 0
        back -= 1
    data[back] += 1


@inlined
def byte(data, at):
    """A byte of the payload; `data` ends with the three zeros that follow it, and the last one is repeated."""
    return np.int64(data[index(min(at, len(data) - 1))])


@inlined
def start(encoding, data):
    """The coder before the first decision."""
    value = np.int64(0)
    if not encoding:
        for i in range(4):
            value = (value << 8) | byte(data, i)
    return Coder(np.int64(0), np.int64(SPAN_MAX), value, np.int64(0 if encoding else 4))


@inlined
def code(encoding, data, coder, p, bit):
    """Code a decision whose probability to be a one is p / 65536. Returns the coder and the decision."""
    low, span, value, at = coder
    bound = (span * p) >> 16
    if encoding:
        zero = bit - 1  # all bits set, or none: nobody can foretell which, so that a branch would cost more
        low += bound & zero
        span = (bound & ~zero) | ((span - bound) & zero)
        while span < SPAN_MIN:
            if low >> 32:
                carry(data, at)
            data[index(at)] = (low >> 24) & 255
            low, span, at = (low & MASK) << 8, span << 8, at + 1
    else:
        if value < bound:
            bit = np.int64(1)
            span = bound
        else:
            bit = np.int64(0)
            span -= bound
            value -= bound
        while span < SPAN_MIN:
            value, span, at = (value << 8) | byte(data, at), span << 8, at + 1
    return Coder(low, span, value, at), bit


@inlined
def end_of_payload(data, coder):
    """Complete the payload. Returns its length."""
    low, at = coder.low + MASK, coder.at
    if low >> 32:
        carry(data, at)
    data[at] = (low >> 24) & 255
    return at + 1


@inlined
def fault_at_end(data, coder):
    """A fault, unless the encoder would have ended the payload like this."""
    if coder.at > len(data):
        return ENDED_EARLY
    return 0 if coder.at == len(data) and coder.value < SPAN_MIN else WRONG_END


# ---- 7.9 --------------------------------------------------------------------------------------------------------------


def learned(weight, value, error):
    """A mixing weight after a decision with this error, to which it contributed this input."""
    return clamp(weight + ((value * error + (1 << (LEARNING_SHIFT - 1))) >> LEARNING_SHIFT), -WEIGHT_MAX, WEIGHT_MAX)


def adapted(state, bit, rates):
    """A state after it saw a bit."""
    n, p = state & COUNT_MAX, state >> 8
    p = clamp(p + ((((bit << P_BITS) - p) * int(rates[n])) >> 16), P_MIN, (1 << P_BITS) - P_MIN)
    return (p << 8) | (n + (n < COUNT_MAX))


def inputs(states, stretch, places):
    """The stretched probabilities of the states at these places."""
    return [int(stretch[int(states[place]) >> 8 + P_BITS - 12]) for place in places]  # by their 12 upper bits


def mix_one_by_one(states, stretch, weights, a, b, c, d, m):
    """The inputs of the states at a … d times the four weights from m on."""
    return sum(int(weights[m + i]) * value for i, value in enumerate(inputs(states, stretch, (a, b, c, d))))


def learn_one_by_one(states, stretch, weights, rates, a, b, c, d, m, bit, error):
    """Four weights and four states after a decision."""
    for i, value in enumerate(inputs(states, stretch, (a, b, c, d))):
        weights[m + i] = learned(int(weights[m + i]), value, error)
    for place in (a, b, c, d):
        states[place] = adapted(int(states[place]), int(bit), rates)


mix, learn = Instructions("mix", mix_one_by_one), Instructions("learn", learn_one_by_one)
"""The four contexts of a decision side by side, in one register; what they mean stands in the functions above."""


@inlined
def decide(encoding, data, coder, model, at, node, bit):
    """Code one decision in the contexts `at` and learn from it. Returns the coder and the decision."""
    states, weights, stretch, counts = model.states, model.weights, model.stretch, model.counts
    a, b, c, d, m = at.a + node, at.b + node, at.c + node, at.d + node, (at.mixer + node) << 2
    dot = mix(states, stretch, weights, a, b, c, d, m) >> 16
    p = np.int64(model.squash[index(clamp(dot, -STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX)])
    coder, bit = code(encoding, data, coder, p, bit)
    learn(states, stretch, weights, model.rates, a, b, c, d, m, bit, (bit << 16) - p)
    if counts.shape[0] > 0:
        counts[index(a), bit] += 1
        counts[index(b), bit] += 1
        counts[index(c), bit] += 1
        counts[index(d), bit] += 1
    return coder, bit


# ---- 7.10 -------------------------------------------------------------------------------------------------------------


@inlined
def mantissa_node(e, place, value):
    """The node of one of the first two bits below the leading one; `value` is what stands above it."""
    first = MANTISSA_1 if e == 1 else (MANTISSA_2 if e == 2 else MANTISSA_MORE)
    return first if place == e - 1 else first + 1 + (value & 1)


@inlined
def code_residual(encoding, data, coder, model, at, r, room_up, room_down):
    """Code the residual r, at most room_up or at least -room_down. Returns the coder, the residual and a fault."""
    size = abs(r)
    coder, bit = decide(encoding, data, coder, model, at, np.int64(ZERO), np.int64(r != 0))
    if not bit:
        return coder, np.int64(0), 0
    coder, negative = decide(encoding, data, coder, model, at, np.int64(SIGN), np.int64(r < 0))
    room = room_down if negative else room_up
    e = np.int64(0)
    while True:
        node = EXPONENT + min(e, EXPONENT_LAST)
        coder, bit = decide(encoding, data, coder, model, at, node, np.int64(size >= 2 << e))
        if not bit:
            break
        e += 1
        if 1 << e > room:
            return coder, np.int64(0), OUT_OF_RANGE
    value, place = np.int64(1), e - 1
    while place >= 0:
        bit = (size >> place) & 1
        if e - 1 - place < 2:
            coder, bit = decide(encoding, data, coder, model, at, mantissa_node(e, place, value), bit)
        else:
            coder, bit = code(encoding, data, coder, np.int64(HALF), bit)
        value = (value << 1) | bit
        place -= 1
    return coder, (-value if negative else value), (OUT_OF_RANGE if value > room else 0)


# ---- 7.11 -------------------------------------------------------------------------------------------------------------


@inlined
def plane_of(network, field, c):
    """The network of plane c."""
    first, last = network.tap_starts[c], network.tap_starts[c + 1]
    row, taps = first, network.taps
    while row < last and taps[row, 0] >> 1 == c and taps[row, 1] == 0:
        row += 1
    own = row
    while own < last and taps[own, 0] >> 1 == c:
        own += 1
    a, b = network.unit_starts[c], network.unit_starts[c + 1]
    weights = network.weights[network.weight_starts[c] : network.weight_starts[c + 1]]
    return Plane(
        c, b - a, last - first, row - first, own - first, field.away[first : max(last, first + LATE)], weights,
        network.biases[a:b], network.outputs[a:b], network.late[a >> 1 : b >> 1],
    )  # fmt: skip


@inlined
def code_symbol(encoding, symbols, data, coder, largest, field, plane, model, y, x, i, f):
    """Code the symbol at (y, x), whose sums are i and whose place in the field is f. Returns the coder and a fault."""
    c, (_, h, w) = plane.number, symbols.shape
    linear, mean, scale = predict(field, plane, i, f)
    mean, scale = clamp(mean, -UNIT * largest, UNIT * largest), clamp(scale, 1, SCALE_MAX)
    expected = (mean + UNIT // 2) >> 4
    fraction = mean - UNIT * expected
    flip = np.int64(-1) if fraction < 0 else np.int64(1)
    at = contexts(field, model, c, f, mean, scale, flip, abs(fraction))
    r = (np.int64(symbols[c, y, x]) - expected) * flip if encoding else np.int64(0)
    up, down = largest - flip * expected, largest + flip * expected
    coder, r, fault = code_residual(encoding, data, coder, model, at, r, up, down)
    symbol = expected + flip * r
    if not encoding and not fault:
        symbols[c, y, x] = symbol
    put(field, plane, y, x, h, w, UNIT * symbol, min(abs(UNIT * symbol - linear), DEVIATION_MAX))
    if not encoding and model.trail.shape[0] > 0:
        model.trail[0, 0] += 1
        model.trail[index(model.trail[0, 0]), 0] = coder.at
        model.trail[index(model.trail[0, 0]), 1] = coder.span
    return coder, fault


# ---- an encoder looks ahead ------------------------------------------------------------------------------------------
#
# Its symbols are all there. Of what a symbol's probabilities depend on, only two things wait for the symbol before: its
# deviation, by way of one unit's sum, and what the contexts learned. So a stretch is gone through several times: that
# unit's sum and the deviations, symbol by symbol (`put_stretch`); all other sums, means, scales and contexts in loops
# without branches, which become vector instructions (`moments`, `look_up`); the decisions as a list, written without asking
# whether a residual is 0, 1 or -1, which nobody can foretell (`list_decisions`); and the list is coded in one
# loop, with no branch in it but that on whole bytes (`code_list`). A decoder must do as `code_symbol` does.


@inlined
def weight_back(field, plane, kind, back):
    """The first unit's weight of the tap so far back on the row: to symbols (0), or to deviations (1)."""
    found, away = np.int64(0), (2 * plane.number + kind) * field.area - back
    for t in range(plane.row):
        if plane.away[t] == away:
            found += np.int64(plane.weights[t * plane.units])
    return found


@bare
def put_stretch(symbols, field, plane, y, x, n, i, f):
    """Record the symbols x … x + n - 1 of a row, of which none is the first. The sums from i on lack the taps on it.

    What each symbol takes from those before is in registers: a deviation is known a dozen cycles after the last one.
    """
    c, (_, h, w) = plane.number, symbols.shape
    k, stride = 2 * c * field.area + f, field.stride
    row, sums = symbols[c, y, x : x + n], field.sums[0, i : i + n]
    marks, deviations = field.values[k : k + n], field.values[k + field.area : k + field.area + n]
    s1, s2, s3 = np.int64(field.values[k - 1]), np.int64(field.values[k - 2]), np.int64(field.values[k - 3])
    d = k + field.area
    d1, d2, d3 = np.int64(field.values[d - 1]), np.int64(field.values[d - 2]), np.int64(field.values[d - 3])
    a1, b1 = weight_back(field, plane, NIL, ONE), weight_back(field, plane, ONE, ONE)
    a2, b2 = weight_back(field, plane, NIL, TWO), weight_back(field, plane, ONE, TWO)
    a3, b3 = weight_back(field, plane, NIL, THREE), weight_back(field, plane, ONE, THREE)
    for j in range(n):
        total = np.int64(sums[j]) + 2048 + a3 * s3 + b3 * d3 + a2 * s2 + b2 * d2 + a1 * s1 + b1 * d1
        s3, s2, s1 = s2, s1, UNIT * np.int64(row[j])
        d3, d2, d1 = d2, d1, min(abs(s1 - (total >> 12)), DEVIATION_MAX)
        marks[j] = s1
        deviations[j] = d1
    if y == 0:
        for up in range(1, field.top + 1):
            above, above_too = field.values[k - up * stride :], field.values[d - up * stride :]
            for j in range(n):
                above[j] = marks[j]
                above_too[j] = deviations[j]
    put(field, plane, y, x + n - 1, h, w, s1, d1)  # for the margin


@bare
def add_hidden(field, plane, i, n):
    """What the hidden units give to mean and scale of n positions, to the first two rows of `ahead`."""
    means, scales = field.ahead[0, :n], field.ahead[1, :n]
    for k in range(n):
        means[k] = 0
        scales[k] = 0
    for u in range(2, plane.units, 2):  # two units at a time
        total, other = field.sums[u, i : i + n], field.sums[u + 1, i : i + n]
        to_mean, to_scale = np.int32(lower(plane.outputs[u])), np.int32(upper(plane.outputs[u]))
        and_mean, and_scale = np.int32(lower(plane.outputs[u + 1])), np.int32(upper(plane.outputs[u + 1]))
        for k in range(n):
            a = min(max(total[k] >> np.int32(8), np.int32(0)), np.int32(HIDDEN_MAX))
            b = min(max(other[k] >> np.int32(8), np.int32(0)), np.int32(HIDDEN_MAX))
            means[k] += a * to_mean + b * and_mean
            scales[k] += a * to_scale + b * and_scale


@bare
def look_up(row, largest, field, plane, model, i, n, f, above, above_left, above_right):
    """Residuals and contexts of n positions from f on, whose symbols are `row`, to `ahead`: as in `contexts`.

    In loops of few inputs each, or LLVM gives up asking whether they overlap; only the last one looks into tables.
    """
    v, offsets, c = field.values, model.offsets, plane.number
    k = 2 * c * field.area + f
    d = k + field.area
    means, scales = field.sums[0, i : i + n], field.sums[1, i : i + n]
    to_mean, to_scale = field.ahead[0, :n], field.ahead[1, :n]
    for j in range(n):
        mean = ((np.int64(means[j]) << 4) + np.int64(to_mean[j]) + 32768) >> 16
        means[j] = clamp(mean, -UNIT * largest, UNIT * largest)
    for j in range(n):
        scale = ((np.int64(scales[j]) << 4) + np.int64(to_scale[j])) >> 12
        scales[j] = clamp(scale, 1, SCALE_MAX)
    residuals, around, sides, fractions = field.ahead[0, :n], field.ahead[1, :n], field.ahead[2, :n], field.ahead[3, :n]
    for j in range(n):
        mean = np.int64(means[j])
        expected = (mean + UNIT // 2) >> 4
        fraction = mean - UNIT * expected
        residuals[j] = np.int64(row[j]) - expected if fraction >= 0 else expected - np.int64(row[j])
        fractions[j] = fraction
    left, up, up_left, up_right = v[d - 1 :], v[d - above :], v[d - above_left :], v[d - above_right :]
    for j in range(n):
        around[j] = 2 * np.int64(left[j]) + 2 * np.int64(up[j]) + np.int64(up_left[j]) + np.int64(up_right[j])
    left, up = v[k - 1 :], v[k - above :]
    for j in range(n):
        margin, flip = 1 + (np.int64(scales[j]) >> 4), np.int64(-1) if fractions[j] < 0 else np.int64(1)
        sides[j] = side(left[j], np.int64(means[j]), margin, flip)
    for j in range(n):
        margin, flip = 1 + (np.int64(scales[j]) >> 4), np.int64(-1) if fractions[j] < 0 else np.int64(1)
        sides[j] = SIDES * np.int64(sides[j]) + side(up[j], np.int64(means[j]), margin, flip)
    ahead = field.ahead
    for j in range(n):
        place = index(j)
        size = np.int64(model.scales[index(scales[place])])
        activity = np.int64(model.activities[index(around[place])])
        beside, fraction, quarter = np.int64(sides[place]), abs(np.int64(fractions[place])), size >> 2
        ahead[1, place] = size // MIXER_LEVELS * NODES
        ahead[2, place] = (size * FRACTIONS + ((fraction + 1) >> 1)) * NODES
        ahead[3, place] = (offsets[1] + c * QUARTERS + quarter) * NODES
        ahead[4, place] = (offsets[2] + activity * QUARTERS + quarter) * NODES
        ahead[5, place] = (offsets[3] + beside * LEVELS + size) * NODES


@bare
def list_decisions(field, n):
    """The decisions on n residuals, one after the other; returns how many.

    Three are written for every symbol; after a zero the next symbol's are written over the last two.
    """
    decisions, count = field.decisions, np.int64(0)
    for k in range(n):
        r = np.int64(field.ahead[0, index(k)])
        size, first = abs(r), np.int64(k) << 6
        decisions[index(count)] = first | ZERO << 1 | (r != 0)
        decisions[index(count + 1)] = first | SIGN << 1 | (r < 0)
        decisions[index(count + 2)] = first | EXPONENT << 1 | (size > 1)
        count += 3 if r != 0 else 1
        if size > 1:
            e = np.int64(1)
            while True:
                more = size >= 2 << e
                decisions[index(count)] = first | (EXPONENT + min(e, EXPONENT_LAST)) << 1 | more
                count += 1
                if not more:
                    break
                e += 1
            for place in range(e - 1, -1, -1):
                node = mantissa_node(e, place, size >> (place + 1)) if e - 1 - place < 2 else EVEN
                decisions[index(count)] = first | node << 1 | ((size >> place) & 1)
                count += 1
    return count


@apart
def code_list(data, coder, field, model, count):
    """Encode so many decisions of the list. Returns the coder."""
    ahead = field.ahead
    for i in range(count):
        decision = np.int64(field.decisions[index(i)])
        place, node, bit = index(decision >> 6), (decision >> 1) & 31, decision & 1
        if node == EVEN:
            coder, _ = code(True, data, coder, np.int64(HALF), bit)
            continue
        at = Contexts(
            np.int64(ahead[1, place]), np.int64(ahead[2, place]), np.int64(ahead[3, place]),
            np.int64(ahead[4, place]), np.int64(ahead[5, place]),
        )  # fmt: skip
        coder, _ = decide(True, data, coder, model, at, node, bit)
    return coder


@inlined
def encode_stretch(symbols, data, coder, largest, field, plane, model, y, x, n, i, f):
    """Encode the symbols x … x + n - 1 of a row, none of them its first. Returns the coder."""
    put_stretch(symbols, field, plane, y, x, n, i, f)
    add_taps(field, plane, i, n, NIL, plane.row, f)
    add_hidden(field, plane, i, n)
    above, aside = (field.stride, ONE) if y > 0 else (ONE, NIL)  # what stands above a first row is the symbol before
    row = symbols[plane.number, y, x : x + n]
    look_up(row, largest, field, plane, model, i, n, f, above, above + aside, above - aside)
    return code_list(data, coder, field, model, list_decisions(field, n))


# ---- planes and slices ------------------------------------------------------------------------------------------------


@inlined
def position(field, y, x):
    """Where the symbol at (y, x) of a plane stands in its part of the field."""
    return (field.top + y) * field.stride + REACH + x


@inlined
def prepare(field, plane, h, w, y, x0, first, last):
    """Sums of positions from (y, x0) on, but for the taps on the row. Returns where these positions end, first and last.

    Taps on earlier planes are added for a stretch that may span rows: the places first … last - 1 in the field.
    """
    f0 = position(field, y, x0)
    if f0 >= last:
        first, last = f0, min(f0 + STRETCH, position(field, h - 1, w))
        begin_sums(field, plane, last - first, first)
    x1 = min(w, x0 + last - f0)
    if y > 0:
        add_taps(field, plane, f0 - first, x1 - x0, plane.row, plane.own, f0)
    return x1, first, last


@inlined
def code_symbols(encoding, symbols, data, coder, largest, field, plane, model, y, x0, x1, i, f):
    """Code the symbols x0 … x1 - 1 of a row, one after the other. Returns the coder and a fault."""
    serial, late = plane.own if y == 0 else plane.row, min(plane.row, LATE)
    for x in range(x0, x1):
        if serial > late:
            add_serial(field, plane, i, late, serial, f)
        coder, fault = code_symbol(encoding, symbols, data, coder, largest, field, plane, model, y, x, i, f)
        if fault:
            return coder, fault
        i, f = i + 1, f + 1
    return coder, 0


@inlined
def encode_plane(symbols, data, coder, largest, field, plane, model):
    """Encode one plane. Returns the coder."""
    _, h, w = symbols.shape
    first, last = NIL, NIL
    for y in range(h):
        x1 = NIL
        while x1 < w:
            x0 = x1
            x1, first, last = prepare(field, plane, h, w, y, x0, first, last)
            end = x1
            if y > 0 or plane.own == plane.row:  # all but a row's first symbol, which fills the margin
                end = min(max(x0, 1), x1)
            f = position(field, y, x0)
            coder, _ = code_symbols(True, symbols, data, coder, largest, field, plane, model, y, x0, end, f - first, f)
            if end < x1:
                f = position(field, y, end)
                coder = encode_stretch(
                    symbols, data, coder, largest, field, plane, model, y, end, x1 - end, f - first, f
                )
    return coder


@inlined
def decode_plane(symbols, data, coder, largest, field, plane, model):
    """Decode one plane. Returns the coder and a fault."""
    _, h, w = symbols.shape
    first, last = NIL, NIL
    for y in range(h):
        x1 = NIL
        while x1 < w:
            x0 = x1
            x1, first, last = prepare(field, plane, h, w, y, x0, first, last)
            f = position(field, y, x0)
            coder, fault = code_symbols(
                False, symbols, data, coder, largest, field, plane, model, y, x0, x1, f - first, f
            )
            if fault:
                return coder, fault
        if coder.at > len(data):  # zeros were read instead of bytes
            return coder, ENDED_EARLY
    return coder, 0


@bare
def encode_slice(symbols, data, largest, network, field, model):
    """Encode one slice. Returns how many bytes were written.

    symbols int16 (z, D, h, w) are read, in range; data uint8 (n,) is written.
    """
    coder = start(True, data)
    for z in range(symbols.shape[0]):
        if z > 0:
            next_depth(field, 2 * symbols.shape[1] * field.area)
        for c in range(symbols.shape[1]):
            plane = plane_of(network, field, c)
            coder = encode_plane(symbols[z], data, coder, largest, field, plane, model)
            close_plane(field, plane, symbols.shape[2])
    return end_of_payload(data, coder)


@bare
def decode_slice(symbols, data, largest, network, field, model):
    """Decode one slice. Returns a fault, or 0.

    symbols int16 (z, D, h, w) are written; data uint8 (n,) is read and ends with three zeros.
    """
    coder = start(False, data)
    if coder.value >= coder.span:
        return WRONG_START
    for z in range(symbols.shape[0]):
        if z > 0:
            next_depth(field, 2 * symbols.shape[1] * field.area)
        for c in range(symbols.shape[1]):
            plane = plane_of(network, field, c)
            coder, fault = decode_plane(symbols[z], data, coder, largest, field, plane, model)
            if fault:
                return ENDED_EARLY if coder.at > len(data) else fault
            close_plane(field, plane, symbols.shape[2])
    return fault_at_end(data, coder)


# ---- from tables to records -------------------------------------------------------------------------------------------


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes, so that the nodes of a context lie in one cache line."""
    room = np.empty(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


def starts(counts: list[int]) -> np.ndarray:
    """Where pieces of these sizes begin and the last one ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@lru_cache(maxsize=8)
def network_of(tables: Tables) -> tuple[Network, int]:
    """The networks of all planes, and how many rows above the position their taps reach (at least one)."""
    own = tables.taps[:, 0] == tables.taps[:, 2]
    on_row = own & (tables.taps[:, 3] == 0)
    order = np.lexsort((~on_row, ~own, tables.taps[:, 0]))
    _, kinds, sources, dy, dx = tables.taps[order].T
    tap_starts = starts([len(u) for u in tables.units])
    weights, biases, outputs, late = [], [], [], []
    for c, (a, b) in enumerate(pairwise(tap_starts)):
        pad = len(tables.biases[c]) % 2
        weights.append(np.pad(tables.units[c][order[a:b] - a], ((0, 0), (0, pad))))  # int64 (taps, units)
        biases.append(np.pad(tables.biases[c], (0, pad)))
        outputs.append(np.pad(tables.outputs[c], ((2, pad), (0, 0))))  # int64 (units, 2)
        first = np.zeros((weights[-1].shape[1], LATE), np.int64)
        n = min(LATE, int(on_row[tables.taps[:, 0] == c].sum()))
        first[:, :n] = weights[-1][:n].T
        late.append(first[::2] + (first[1::2] << 32))
    packed_outputs = np.concatenate(outputs)
    network = Network(
        tap_starts=tap_starts,
        taps=np.stack([2 * sources + kinds, dy, dx], 1),
        weight_starts=starts([w.size for w in weights]),
        weights=np.concatenate([w.ravel() for w in weights]).astype(np.int16),
        unit_starts=starts([len(b) for b in biases]),
        biases=np.concatenate(biases).astype(np.int32),
        outputs=packed_outputs[:, 0] + (packed_outputs[:, 1] << 32),
        late=np.concatenate(late),
    )
    return network, max(1, int(abs(dy).max(initial=0)))


@lru_cache(maxsize=1)
def functions() -> dict[str, np.ndarray]:
    """The functions in `Model`."""
    return {
        "stretch": clear.stretch_table().astype(np.int16),
        "squash": clear.squash_table().astype(np.uint16),
        "rates": np.array([clear.adaptation_rate(n) for n in range(COUNT_MAX + 1)], np.uint16),
        "scales": np.array([0] + [clear.scale_class(v) for v in range(1, SCALE_MAX + 1)], np.uint8),
        "activities": np.array([clear.activity_class(v) for v in range(6 * DEVIATION_MAX + 1)], np.uint8),
    }


@lru_cache(maxsize=8)
def first_model(tables: Tables) -> Model:
    """The model before the first symbol; not to be learned into."""
    strengths = np.array(clear.STRENGTHS, np.int64)[tables.states & 15]
    return Model(
        states=((tables.states >> 4 << P_BITS - 12 + 8) | strengths).astype(np.int32),
        weights=(tables.mixers.ravel() << 6).astype(np.int32),
        offsets=starts(list(clear.context_counts(tables.latent_dim)))[:-1],
        counts=np.zeros((0, 2), np.int32),
        trail=np.zeros((0, 2), np.int64),
        **functions(),
    )


def model_of(tables: Tables) -> Model:
    """The model before the first symbol, with arrays of its own for what it learns."""
    first = first_model(tables)
    return first._replace(states=aligned(first.states), weights=aligned(first.weights))


def walk(encoding: bool, symbols: np.ndarray, data: np.ndarray, tables: Tables, model: Model) -> int:
    """`encode_slice` or `decode_slice` with all that it needs."""
    network, top = network_of(tables)
    _, depth, h, w = symbols.shape
    stride = w + 2 * REACH + 1
    area = (h + 2 * top) * stride
    away = np.append(network.taps @ np.array([area, stride, 1]), np.zeros(LATE, np.int64))
    planes = depth if network.taps[:, 0].max(initial=0) < 2 * depth else 2 * depth
    field = Field(
        values=np.zeros(2 * planes * area, np.int16),
        away=away,
        sums=np.zeros((64, LANE), np.int32),
        ahead=np.zeros((6, LANE), np.int32),
        decisions=np.zeros(LANE * MOST_DECISIONS, np.int32),
        top=top,
        stride=stride,
        area=area,
    )
    code_slice = encode_slice if encoding else decode_slice
    return code_slice(symbols, data, 2 ** (tables.latent_bits - 1) - 1, network, field, model)


def encode(symbols: np.ndarray, tables: Tables, model: Model | None = None) -> bytes:
    """Code one slice, as `walloc_ref.stages.entropy.encode` does. A `model` can be passed to see what it learns."""
    checked = clear.checked_symbols(symbols, tables)  # int16 (D, h, w) or (D, z, h, w)
    out = np.empty(MOST_BYTES * checked.size + 16, np.uint8)  # pages that stay unused cost nothing
    n = walk(True, by_depth(checked), out, tables, model or model_of(tables))
    return out[:n].tobytes()


def decode(data: bytes, shape: tuple[int, ...], tables: Tables) -> np.ndarray:
    """Decode one slice, as `walloc_ref.stages.entropy.decode` does."""
    clear.check_payload(data, shape, tables)
    symbols = np.zeros((shape[1], shape[0], *shape[2:]) if len(shape) == 4 else (1, *shape), np.int16)  # (z, D, h, w)
    padded = np.frombuffer(data + bytes(3), np.uint8).copy()
    fault = walk(False, symbols, padded, tables, model_of(tables))
    if fault:
        raise MalformedStream("slice payload", f"{len(data)} bytes", FAULTS[fault])
    return np.ascontiguousarray(symbols.swapaxes(0, 1)).reshape(shape)


def costs(symbols: np.ndarray, tables: Tables) -> np.ndarray:
    """What each symbol of a slice costs in bits: how far its decisions shrink the interval. float64, shape of `symbols`.

    Their sum is the payload's length within two bytes: a byte is written when it is known, and one completes the payload.
    """
    coded = by_depth(clear.checked_symbols(symbols, tables))  # int16 (z, D, h, w)
    trail = np.zeros((coded.size + 1, 2), np.int64)
    padded = np.frombuffer(encode(symbols, tables) + bytes(3), np.uint8).copy()
    walk(
        False, np.zeros_like(coded), padded, tables, model_of(tables)._replace(trail=trail)
    )  # a decoder goes symbol by symbol
    trail[0] = 4, SPAN_MAX  # before the first symbol it has read four bytes
    bits = np.diff(8 * trail[:, 0] - np.log2(trail[:, 1])).reshape(coded.shape)
    return np.ascontiguousarray(bits.swapaxes(0, 1)).reshape(symbols.shape)


def by_depth(symbols: np.ndarray) -> np.ndarray:
    """Symbols (D, z, h, w) in their coding order, (z, D, h, w); those of an image have one depth position."""
    return np.ascontiguousarray(symbols.swapaxes(0, 1)) if symbols.ndim == 4 else symbols[None]
