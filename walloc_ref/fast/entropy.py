"""The entropy coder's kernel: the bytes of `walloc_ref.stages.entropy`, fast.

One function, `run`, walks the slice in coding order and either encodes or decodes, so that the model cannot differ
between the two. What makes it fast:

* Of the network's sums, all but the taps on the row being coded are known before the row begins. They are added up for
  a stretch of the row at a time, in loops that become vector instructions.
* Planes have margins, filled as coding proceeds, so that no tap needs a test for the border.
* Everything fits in 32 bits (`Tables.from_bytes` checks the sums); scalars are signed 64-bit throughout.

Where time goes, for 12 channels at 8 bits: two fifths in the network's sums, the rest in two to five decisions a symbol.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from walloc_ref.errors import MalformedStream
from walloc_ref.fast import jit
from walloc_ref.stages import entropy as clear
from walloc_ref.stages.entropy import Tables

REACH = clear.REACH
STRETCH = 1024  # positions whose sums are prepared together
MOST_BYTES = 24  # of a symbol: at most 17 decisions (zero, sign, 8 of the exponent, 7 of the mantissa) of 11 bits each
FAULTS = {
    1: "must not end before its symbols do",
    2: "must not hold a residual out of range",
    3: "must end where its symbols do, in the encoder's final state",
}


@jit
def clamp(v, low, high):
    """v, held in low..high."""
    return low if v < low else (high if v > high else v)


@jit
def learned(weight, value, error):
    """A mixing weight after a decision with this error, to which it contributed this input."""
    return clamp(weight + ((value * error + (1 << 18)) >> 19), -(1 << 20), 1 << 20)


@jit
def adapted(state, bit, rates):
    """A state, probability << 8 | count, after it saw a bit."""
    n, p = np.int64(state) & 255, np.int64(state) >> 8
    p = clamp(p + ((((bit << 22) - p) * rates[n]) >> 16), 256, (1 << 22) - 256)
    return (p << 8) | (n + (n < 255))


@jit
def add_taps(sums, i, n, units, first, last, flat, away, f):
    """Add the taps first..last-1 to sums[:, i : i + n], for the n positions from f on. sums: int32 (64, STRETCH)"""
    for u in range(units.shape[1]):
        total = sums[u, i : i + n]
        t = first
        while t + 4 <= last:
            v0 = flat[f + away[t] : f + away[t] + n]
            v1 = flat[f + away[t + 1] : f + away[t + 1] + n]
            v2 = flat[f + away[t + 2] : f + away[t + 2] + n]
            v3 = flat[f + away[t + 3] : f + away[t + 3] + n]
            w0, w1 = np.int32(units[t, u]), np.int32(units[t + 1, u])
            w2, w3 = np.int32(units[t + 2, u]), np.int32(units[t + 3, u])
            for x in range(n):
                total[x] += w0 * v0[x] + w1 * v1[x] + w2 * v2[x] + w3 * v3[x]
            t += 4
        while t < last:
            v0 = flat[f + away[t] : f + away[t] + n]
            w0 = np.int32(units[t, u])
            for x in range(n):
                total[x] += w0 * v0[x]
            t += 1


@jit
def run(
    encoding, symbols, data, largest, reach_y, starts, taps, unit_starts, unit_data, bias_starts, bias_data, output_data,
    offsets, p_n, weights, rates, squash, stretch, class_of, activity_of, counts,
):  # fmt: skip
    """Code one slice. Returns (bytes written or read, fault).

    symbols int16 (D, h, w) and data uint8 (n,) are read or written. p_n int32: probability << 8 | count. counts int32
    (states, 2) collects zeros and ones coded in each state if it is not empty.
    """
    depth, h, w = symbols.shape
    px, py = REACH, reach_y  # margins of the planes
    stride = w + 2 * px + 1
    area = (h + 2 * py) * stride
    planes = np.zeros((2 * depth, h + 2 * py, stride), np.int16)  # 2 * channel + kind
    flat = planes.reshape(-1)
    away = taps[:, 0] * area + taps[:, 1] * stride + taps[:, 2]  # from a position in plane 0 to each tap's value
    sums = np.zeros((64, STRETCH), np.int32)
    near = np.zeros(256, np.int64)
    counting = counts.shape[0] > 0
    size = data.shape[0]
    low, span, value, pos = np.int64(0), np.int64(0xFFFFFFFF), np.int64(0), np.int64(0)
    if not encoding:
        for _ in range(4):
            value = (value << 8) | (np.int64(data[pos]) if pos < size else 0)
            pos += 1
    for c in range(depth):
        first, last = starts[c], starts[c + 1]
        row, own = first, first  # taps first..row-1 lie on the row being coded, first..own-1 in this plane
        while row < last and taps[row, 0] >> 1 == c and taps[row, 1] == 0:
            row += 1
        own = row
        while own < last and taps[own, 0] >> 1 == c:
            own += 1
        width = bias_starts[c + 1] - bias_starts[c]
        biases = bias_data[bias_starts[c] : bias_starts[c + 1]]
        outputs = output_data[bias_starts[c] : bias_starts[c + 1]]  # rows 0 and 1 are unused
        units = unit_data[unit_starts[c] : unit_starts[c + 1]].reshape(last - first, width)
        away_c = away[first:last]
        base = np.int64(0)
        ready = np.int64(0)  # sums of the earlier planes are prepared up to here
        k, d = planes[2 * c], planes[2 * c + 1]
        for y in range(h):
            serial = (own if y == 0 else row) - first  # taps that have to wait for the symbol before
            if y > 0:
                for i in range(px):
                    k[py + y, i] = k[py + y - 1, px]
                    d[py + y, i] = d[py + y - 1, px]
            x1 = np.int64(0)
            while x1 < w:
                x0 = x1
                f0 = (py + y) * stride + px + x0
                if f0 >= ready:
                    base = f0
                    ready = min(f0 + STRETCH, (py + h - 1) * stride + px + w)
                    for u in range(width):
                        sums[u, : ready - base] = biases[u]
                    add_taps(sums, 0, ready - base, units, own - first, last - first, flat, away_c, base)
                x1 = min(w, x0 + ready - f0)
                if y > 0:
                    add_taps(sums, f0 - base, x1 - x0, units, row - first, own - first, flat, away_c, f0)
                for x in range(x0, x1):
                    # the network
                    f = (py + y) * stride + px + x
                    for t in range(serial):
                        near[t] = flat[f + away_c[t]]
                    mean, scale = np.int64(sums[0, f - base]), np.int64(sums[1, f - base])
                    for t in range(serial):
                        mean += units[t, 0] * near[t]
                        scale += units[t, 1] * near[t]
                    linear = (mean + 2048) >> 12
                    mean <<= 4
                    scale <<= 4
                    for u in range(2, width):
                        s = np.int64(sums[u, f - base])
                        for t in range(serial):
                            s += units[t, u] * near[t]
                        s = clamp(s >> 8, 0, 32767)
                        mean += s * outputs[u, 0]
                        scale += s * outputs[u, 1]
                    mean = clamp((mean + 32768) >> 16, -16 * largest, 16 * largest)
                    scale = clamp(scale >> 12, 1, 16383)
                    expected = (mean + 8) >> 4
                    fraction = mean - (expected << 4)
                    flip = np.int64(1)
                    if fraction < 0:
                        flip = np.int64(-1)
                        fraction = -fraction
                    # the contexts
                    class_ = np.int64(class_of[scale])
                    quarter = class_ >> 2
                    around = (
                        2 * np.int64(d[py + y, px + x - 1]) + 2 * np.int64(d[py + y - 1, px + x])
                        + np.int64(d[py + y - 1, px + x - 1]) + np.int64(d[py + y - 1, px + x + 1])
                    )  # fmt: skip
                    margin = 1 + (scale >> 4)
                    west = flip * (np.int64(k[py + y, px + x - 1]) - mean)
                    north = flip * (np.int64(k[py + y - 1, px + x]) - mean)
                    west = np.int64(1) + (west > margin) - (west < -margin)
                    north = np.int64(1) + (north > margin) - (north < -margin)
                    at0 = (class_ * 5 + ((fraction + 1) >> 1)) << 4
                    at1 = (offsets[1] + c * 11 + quarter) << 4
                    at2 = (offsets[2] + np.int64(activity_of[around]) * 11 + quarter) << 4
                    at3 = (offsets[3] + (west * 3 + north) * 44 + class_) << 4
                    mixer = (class_ // 6) << 4
                    # the decisions
                    negative, magnitude, residual = np.int64(0), np.int64(0), np.int64(0)
                    if encoding:
                        residual = (np.int64(symbols[c, y, x]) - expected) * flip
                        magnitude = abs(residual)
                    room = np.int64(0)
                    known = np.int64(0)  # the part of the magnitude that is known
                    e, left = np.int64(0), np.int64(-1)
                    node, bit = np.int64(0), np.int64(magnitude != 0)
                    while True:
                        p = np.int64(32768)
                        if node >= 0:
                            q = (mixer + node) << 2
                            s0, s1, s2, s3 = p_n[at0 + node], p_n[at1 + node], p_n[at2 + node], p_n[at3 + node]
                            t0, t1 = np.int64(stretch[s0 >> 18]), np.int64(stretch[s1 >> 18])
                            t2, t3 = np.int64(stretch[s2 >> 18]), np.int64(stretch[s3 >> 18])
                            dot = t0 * weights[q] + t1 * weights[q + 1] + t2 * weights[q + 2] + t3 * weights[q + 3]
                            p = np.int64(squash[clamp(dot >> 16, -2047, 2047) + 2047])
                        bound = (span * p) >> 16
                        if encoding:
                            if bit:
                                span = bound
                            else:
                                low += bound
                                span -= bound
                            while span < 0x1000000:
                                if low >> 32:
                                    back = pos - 1
                                    while data[back] == 255:
                                        data[back] = 0
                                        back -= 1
                                    data[back] += 1
                                data[pos] = (low >> 24) & 255
                                pos += 1
                                low = (low & 0xFFFFFF) << 8
                                span <<= 8
                        else:
                            if value < bound:
                                bit = np.int64(1)
                                span = bound
                            else:
                                bit = np.int64(0)
                                low += bound
                                span -= bound
                                value -= bound
                            while span < 0x1000000:
                                if pos >= size + 3:
                                    return pos, 1
                                value = (value << 8) | (np.int64(data[pos]) if pos < size else 0)
                                pos += 1
                                low = (low & 0xFFFFFF) << 8
                                span <<= 8
                        if node >= 0:
                            error = (bit << 16) - p
                            weights[q] = learned(weights[q], t0, error)
                            weights[q + 1] = learned(weights[q + 1], t1, error)
                            weights[q + 2] = learned(weights[q + 2], t2, error)
                            weights[q + 3] = learned(weights[q + 3], t3, error)
                            p_n[at0 + node] = adapted(s0, bit, rates)
                            p_n[at1 + node] = adapted(s1, bit, rates)
                            p_n[at2 + node] = adapted(s2, bit, rates)
                            p_n[at3 + node] = adapted(s3, bit, rates)
                            if counting:
                                counts[at0 + node, bit] += 1
                                counts[at1 + node, bit] += 1
                                counts[at2 + node, bit] += 1
                                counts[at3 + node, bit] += 1
                        if node == 0:
                            if bit == 0:
                                break
                            node, bit = np.int64(1), np.int64(residual < 0)
                        elif node == 1:
                            negative = bit
                            room = largest + (flip * expected if negative else -flip * expected)
                            known = np.int64(1)
                            node, bit = np.int64(2), np.int64(magnitude >= 2)
                        elif left < 0:  # exponent
                            if bit:
                                e += 1
                                if 1 << e > room:
                                    return pos, 2
                                node, bit = 2 + min(e, 6), np.int64(magnitude >= (2 << e))
                            else:
                                if e == 0:
                                    break
                                left = e - 1
                                node = np.int64(9) if e == 1 else (np.int64(10) if e == 2 else np.int64(13))
                                bit = (magnitude >> left) & 1
                        else:  # mantissa
                            known = (known << 1) | bit
                            if left == 0:
                                break
                            left -= 1
                            node = (np.int64(11) if e == 2 else np.int64(14)) + bit if left == e - 2 else np.int64(-1)
                            bit = (magnitude >> left) & 1
                    if known > room:
                        return pos, 2
                    if not encoding:
                        symbols[c, y, x] = expected + flip * (-known if negative else known)
                    kv = np.int64(symbols[c, y, x]) << 4
                    dv = min(abs(kv - linear), 1023)
                    k[py + y, px + x] = kv
                    d[py + y, px + x] = dv
                    if y == 0:  # rows above the first repeat the symbols just coded
                        for i in range(py):
                            for j in range(5):
                                if x + j < w + px + 1:
                                    k[i, px + x + j] = kv
                                    d[i, px + x + j] = dv
                    if x == 0:  # and so does what lies left of the first column
                        for i in range(0 if y == 0 else py + y, py + y + 1):
                            for j in range(px):
                                k[i, j] = kv
                                d[i, j] = dv
            for i in range(px):
                k[py + y, px + w + i] = k[py + y, px + w - 1]
                d[py + y, px + w + i] = d[py + y, px + w - 1]
        for i in range(py):
            k[i, :] = k[py, :]
            d[i, :] = d[py, :]
            k[py + h + i, :] = k[py + h - 1, :]
            d[py + h + i, :] = d[py + h - 1, :]
    if encoding:
        low += 0xFFFFFF
        if low >> 32:
            back = pos - 1
            while data[back] == 255:
                data[back] = 0
                back -= 1
            data[back] += 1
        data[pos] = (low >> 24) & 255
        return pos + 1, 0
    if pos != size + 3 or value >= 0x1000000 or (low + value) & 0xFFFFFF:
        return pos, 3
    return pos, 0


@lru_cache(maxsize=1)
def fixed() -> tuple[np.ndarray, ...]:
    """Adaptation rates, squash, stretch, class and activity by value: int32 arrays."""
    rates = np.array([clear.adaptation_rate(n) for n in range(256)], np.int32)
    classes = [0] + [clear.level(v, 4, 8, clear.LEVELS) for v in range(1, clear.SCALE_MAX + 1)]
    activities = [clear.level(max(v, 1), 2, 4, 12) for v in range(6 * clear.DEVIATION_MAX + 1)]
    return (
        rates,
        clear.squash_table().astype(np.int32),
        clear.stretch_table().astype(np.int32),
        np.array(classes, np.int32),
        np.array(activities, np.int32),
    )


@lru_cache(maxsize=8)
def packed(tables: Tables) -> tuple:
    """The tables as flat arrays, in the order of `run`'s arguments from `largest` to `weights`."""
    own = tables.taps[:, 0] == tables.taps[:, 2]
    order = np.lexsort((~(own & (tables.taps[:, 3] == 0)), ~own, tables.taps[:, 0]))
    sorted_taps = tables.taps[order]  # in each channel: own row, own plane, earlier planes
    counts = [len(u) for u in tables.units]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    units = [u[order[a:b] - a] for u, a, b in zip(tables.units, starts, starts[1:], strict=False)]
    widths = [len(b) for b in tables.biases]
    outputs = [np.concatenate([np.zeros((2, 2), np.int64), o]) for o in tables.outputs]
    strengths = np.array(clear.STRENGTHS, np.int64)[tables.states & 15]
    return (
        2 ** (tables.latent_bits - 1) - 1,
        max(1, int(abs(tables.taps[:, 3]).max(initial=0))),
        starts,
        np.stack([2 * sorted_taps[:, 2] + sorted_taps[:, 1], sorted_taps[:, 3], sorted_taps[:, 4]], 1),
        np.concatenate([[0], np.cumsum([n * u for n, u in zip(counts, widths, strict=True)])]).astype(np.int64),
        np.concatenate([u.ravel() for u in units]).astype(np.int16),
        np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        np.concatenate(tables.biases).astype(np.int32),
        np.concatenate(outputs),
        np.concatenate([[0], np.cumsum(clear.context_counts(tables.latent_dim))[:-1]]).astype(np.int64),
        ((tables.states >> 4 << 18) | strengths).astype(np.int32),
        (tables.mixers.ravel() << 6).astype(np.int32),
    )


def arguments(tables: Tables) -> tuple:
    """`run`'s arguments after `data`, with states of their own."""
    *constant, p_n, weights = packed(tables)
    return (*constant, p_n.copy(), weights.copy(), *fixed(), np.zeros((0, 2), np.int32))


def encode(symbols: np.ndarray, tables: Tables) -> bytes:
    """Code one slice, as `walloc_ref.stages.entropy.encode` does."""
    checked = clear.checked_symbols(symbols, tables)  # int16 (D, h, w)
    out = np.empty(MOST_BYTES * checked.size + 16, np.uint8)  # pages that stay unused cost nothing
    n, _ = run(True, checked, out, *arguments(tables))
    return out[:n].tobytes()


def decode(data: bytes, shape: tuple[int, int, int], tables: Tables) -> np.ndarray:
    """Decode one slice, as `walloc_ref.stages.entropy.decode` does."""
    clear.check_payload(data, shape, tables)
    symbols = np.zeros(shape, np.int16)
    _, fault = run(False, symbols, np.frombuffer(data, np.uint8).copy(), *arguments(tables))
    if fault:
        raise MalformedStream("slice payload", f"{len(data)} bytes", FAULTS[fault])
    return symbols
