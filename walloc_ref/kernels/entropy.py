"""The entropy coder's kernel: the bytes of `walloc_ref.entropy`, fast.

One function, `run`, walks the slice in coding order and either encodes or decodes, so that the model cannot differ
between the two. All arithmetic is on signed 64-bit integers that stay far from their limits.
"""

from __future__ import annotations

import numpy as np

from walloc_ref import entropy as clear
from walloc_ref.entropy import Tables
from walloc_ref.errors import MalformedStream
from walloc_ref.kernels import jit


@jit
def clamp(value, low, high):
    return low if value < low else (high if value > high else value)


@jit
def run(
    encoding, symbols, data, largest, mean_head, mean_tap, scale_head, scale_tap, offsets, state, weight, level, stretch,
    squash, reciprocal,
):  # fmt: skip
    """Encode or decode one slice; returns (bytes written or read, ok)."""
    D, h, w = symbols.shape
    P = 2
    contexts = offsets.shape[0]
    K = np.zeros((D, h + 2 * P, w + 2 * P), np.int64)  # symbols
    A = np.zeros((D, h + 2 * P, w + 2 * P), np.int64)  # |16 * symbol - mean|
    mean_known = np.zeros((h, w), np.int64)
    scale_known = np.zeros((h, w), np.int64)
    at = np.zeros(contexts, np.int64)
    st = np.zeros(contexts, np.int64)
    size = data.shape[0]
    low = np.int64(0)
    span = np.int64(0xFFFFFFFF)
    code = np.int64(0)
    pos = np.int64(0)
    if not encoding:
        for _ in range(4):
            code = (code << 8) | (np.int64(data[pos]) if pos < size else 0)
            pos += 1
    m0 = np.int64(0)
    s0 = np.int64(0)
    for c in range(D):
        m1 = m0 + mean_head[c, 0]
        s1 = s0 + scale_head[c, 0]
        bias = scale_head[c, 1]
        mean_known[:] = 0
        scale_known[:] = bias
        mk = m0
        while mk < m1 and mean_tap[mk, 0] == c:
            mk += 1
        sk = s0
        while sk < s1 and scale_tap[sk, 0] == c:
            sk += 1
        for t in range(mk, m1):
            j, dy, dx, wt = mean_tap[t, 0], mean_tap[t, 1] + P, mean_tap[t, 2] + P, mean_tap[t, 3]
            for y in range(h):
                for x in range(w):
                    mean_known[y, x] += wt * K[j, y + dy, x + dx]
        for t in range(sk, s1):
            j, dy, dx, wt = scale_tap[t, 0], scale_tap[t, 1] + P, scale_tap[t, 2] + P, scale_tap[t, 3]
            for y in range(h):
                for x in range(w):
                    scale_known[y, x] += wt * A[j, y + dy, x + dx]
        k = K[c]
        a = A[c]
        for y in range(h):
            if y > 0:
                for i in range(P):
                    k[P + y, i] = k[P + y - 1, P]
                    a[P + y, i] = a[P + y - 1, P]
            for x in range(w):
                mu = mean_known[y, x]
                for t in range(m0, mk):
                    mu += mean_tap[t, 3] * k[y + P + mean_tap[t, 1], x + P + mean_tap[t, 2]]
                mu = clamp((mu + 128) >> 8, -16 * largest, 16 * largest)
                prediction = (mu + 8) >> 4
                fraction = mu - (prediction << 4)
                flip = np.int64(1)
                if fraction < 0:
                    flip = np.int64(-1)
                    fraction = -fraction
                near = np.int64(0)
                for t in range(s0, sk):
                    near += scale_tap[t, 3] * a[y + P + scale_tap[t, 1], x + P + scale_tap[t, 2]]
                l0 = level[clamp((scale_known[y, x] + near) >> 10, 1, 16383)]
                l1 = level[clamp(scale_known[y, x] >> 10, 1, 16383)]
                l2 = level[clamp((near + bias) >> 10, 1, 16383)]
                fq = (fraction + 1) >> 1
                aW = a[y + P, x + P - 1]
                aN = a[y + P - 1, x + P]
                aNW = a[y + P - 1, x + P - 1]
                aNE = a[y + P - 1, x + P + 1]
                at[0] = l0 * 5 + fq
                at[1] = c * 14 + clamp(l0 // 2 - 3, 0, 13)
                at[2] = clamp(l1 // 2 - 3, 0, 13) * 14 + clamp(l2 // 2 - 3, 0, 13)
                at[3] = (
                    (min((aW + 8) >> 4, 2) * 3 + min((aN + 8) >> 4, 2)) * 3 + min((aNW + 8) >> 4, 2)
                ) * 3 + min((aNE + 8) >> 4, 2)
                a1 = np.int64(0)
                a2 = np.int64(0)
                if s1 > sk:
                    a1 = A[scale_tap[sk, 0], y + P + scale_tap[sk, 1], x + P + scale_tap[sk, 2]]
                if s1 > sk + 1:
                    a2 = A[scale_tap[sk + 1, 0], y + P + scale_tap[sk + 1, 1], x + P + scale_tap[sk + 1, 2]]
                a1 = clamp(level[clamp(a1 * 4, 1, 16383)] // 3 - 4, 0, 7)
                a2 = clamp(level[clamp(a2 * 4, 1, 16383)] // 3 - 4, 0, 7)
                at[4] = (a1 * 8 + a2) * 6 + clamp(l0 // 3 - 3, 0, 5)
                lw = level[clamp(4 * ((aW + aN) * 2 + aNW + aNE) // 6, 1, 16383)]
                at[5] = clamp(lw // 2 - 3, 0, 13) * 5 + fq
                mixer = clamp(l0 // 4 - 1, 0, 7) * 16
                for i in range(contexts):
                    at[i] = (at[i] + offsets[i]) * 16

                magnitude = np.int64(0)
                residual = np.int64(0)
                negative = np.int64(0)
                if encoding:
                    residual = (symbols[c, y, x] - prediction) * flip
                    magnitude = abs(residual)
                room = largest
                stage = 0
                e = np.int64(0)
                remaining = np.int64(0)
                top = np.int64(0)
                value = np.int64(0)
                while True:
                    bit = np.int64(0)
                    if stage == 0:
                        node = np.int64(0)
                        if encoding and magnitude != 0:
                            bit = np.int64(1)
                    elif stage == 1:
                        node = np.int64(1)
                        if encoding and residual < 0:
                            bit = np.int64(1)
                    elif stage == 2:
                        node = 2 + min(e, 6)
                        if encoding and magnitude >= (2 << e):
                            bit = np.int64(1)
                    else:
                        remaining -= 1
                        if encoding:
                            bit = (magnitude >> remaining) & 1
                        if e == 1:
                            node = np.int64(9)
                        elif remaining == e - 1:
                            node = np.int64(10) if e == 2 else np.int64(13)
                        elif remaining == e - 2:
                            node = (np.int64(11) if e == 2 else np.int64(14)) + top
                        else:
                            node = np.int64(-1)
                    sel = (mixer + node) * contexts
                    if node >= 0:
                        dot = np.int64(0)
                        for i in range(contexts):
                            st[i] = stretch[state[at[i] + node] >> 20]
                            dot += weight[sel + i] * st[i]
                        p = squash[clamp(dot >> 16, -2047, 2047) + 2047]
                    else:
                        p = np.int64(32768)
                    bound = (span * p) >> 16  # [low, low + bound) is a one
                    if encoding:
                        if bit:
                            span = bound
                        else:
                            low += bound
                            span -= bound
                            if low > 0xFFFFFFFF:
                                low &= 0xFFFFFFFF
                                back = pos - 1
                                while data[back] == 255:
                                    data[back] = 0
                                    back -= 1
                                data[back] += 1
                        while span < 0x1000000:
                            data[pos] = low >> 24
                            pos += 1
                            low = (low << 8) & 0xFFFFFFFF
                            span <<= 8
                    else:
                        if code < bound:
                            bit = np.int64(1)
                            span = bound
                        else:
                            code -= bound
                            low = (low + bound) & 0xFFFFFFFF
                            span -= bound
                        while span < 0x1000000:
                            if pos >= size + 3:
                                return pos, False
                            code = (code << 8) | (np.int64(data[pos]) if pos < size else 0)
                            pos += 1
                            low = (low << 8) & 0xFFFFFFFF
                            span <<= 8
                    if node >= 0:
                        error = ((bit << 16) - p) * 4
                        for i in range(contexts):
                            weight[sel + i] += (st[i] * error + (1 << 19)) >> 20
                            q = at[i] + node
                            n = state[q] & 1023
                            pp = state[q] >> 10
                            pp += (((bit << 22) - pp) * reciprocal[n]) >> 16
                            pp = clamp(pp, 256, (1 << 22) - 256)
                            if n < 255:
                                n += 1
                            state[q] = (pp << 10) | n
                    if stage == 0:
                        if bit == 0:
                            break
                        stage = 1
                    elif stage == 1:
                        negative = bit
                        room = largest - prediction * flip * (-1 if negative else 1)
                        if room < 1:
                            return pos, False
                        stage = 2
                        value = np.int64(1)
                    elif stage == 2:
                        if bit == 1:
                            e += 1
                            value <<= 1
                            if value > room:
                                return pos, False
                        else:
                            if e == 0:
                                break
                            stage = 3
                            remaining = e
                            value = np.int64(1)
                    else:
                        top = bit
                        value = (value << 1) | bit
                        if remaining == 0:
                            break
                if not encoding:
                    if value > room:
                        return pos, False
                    symbols[c, y, x] = prediction + flip * (-value if negative else value)
                v = np.int64(symbols[c, y, x])
                d = abs((v << 4) - mu)
                k[y + P, x + P] = v
                a[y + P, x + P] = d
                if y == 0:
                    for i in range(1, P + 1):
                        for j in range(P):
                            k[j, x + P + i] = v
                            a[j, x + P + i] = d
            for i in range(P):
                k[P + y, P + w + i] = k[P + y, P + w - 1]
                a[P + y, P + w + i] = a[P + y, P + w - 1]
        for y in range(h):
            for i in range(P):
                k[P + y, i] = k[P + y, P]
                a[P + y, i] = a[P + y, P]
        for i in range(P):
            k[i, :] = k[P, :]
            k[P + h + i, :] = k[P + h - 1, :]
            a[i, :] = a[P, :]
            a[P + h + i, :] = a[P + h - 1, :]
        m0 = m1
        s0 = s1
    if encoding:
        low += 0xFFFFFF
        if low > 0xFFFFFFFF:
            back = pos - 1
            while data[back] == 255:
                data[back] = 0
                back -= 1
            data[back] += 1
        data[pos] = (low >> 24) & 255
        return pos + 1, True
    return pos, pos == size + 3 and code < 0x1000000 and ((low + code) & 0xFFFFFF) == 0


def encode(symbols: np.ndarray, tables: Tables) -> bytes:
    """Code one slice, as `walloc_ref.entropy.encode` does."""
    s = clear.checked_symbols(symbols, tables)  # int16 (D, h, w)
    out = np.empty(4 * s.size + 16, np.uint8)
    n, _ = run(True, s, out, *clear.model(tables))
    return out[:n].tobytes()


def decode(data: bytes, shape: tuple[int, int, int], tables: Tables) -> np.ndarray:
    """Decode one slice, as `walloc_ref.entropy.decode` does."""
    clear.check_shape(len(data), shape, tables)
    symbols = np.zeros(shape, np.int16)
    read, ok = run(False, symbols, np.frombuffer(data, np.uint8).copy(), *clear.model(tables))
    if not ok:
        raise MalformedStream("slice", f"coder stopped after {read} of {len(data)} bytes", clear.FINAL_STATE)
    return symbols
