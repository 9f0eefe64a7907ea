"""A decoder of level *symbols*, written from SPEC.md alone: Python's standard library and nothing else.

    walloc-ref conform run --level symbols \
        --impl 'python conformance/examples/symbols.py {op} {stage} {model} {input} {output}'

It knows `decode symbols` and `decode slice` and says 11 to everything else. Numbers in comments are clauses of SPEC.md.
"""

import base64
import hashlib
import json
import math
import struct
import sys
import zlib

DONE, REJECTED, UNSUPPORTED = 0, 10, 11


class Rejected(Exception):
    pass


def require(condition, why):
    if not condition:
        raise Rejected(why)


# ---- bytes


class Reader:
    def __init__(self, data, at=0, end=None):
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def take(self, n):
        require(0 <= n <= self.end - self.at, "truncated")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self, low=0, high=2**63 - 1):  # 1.6
        value = 0
        for i in range(9):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * i
            if byte < 128:
                require(byte or not i, "1.6")
                require(low <= value <= high, f"{value} is not {low} to {high}")
                return value
        raise Rejected("1.6")

    def unpack(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))


# ---- model file (8)

FIELDS = {  # 8.3
    "Codec2D": ["Nd", "Ne", "lightweight_encode"],
    "Codec1D": ["Nd", "Ne", "lightweight_encode", "post_filter"],
    "LinearCodec2D": [],
    "LinearCodec3D": [],
    "ResidualCodec2D": ["num_stages"],
}
LIMITS = {
    "channels": (1, 4096),
    "J": (0, 10),
    "latent_dim": (1, 4096),
    "latent_bits": (2, 8),
    "Nd": (1, 8192),
    "num_stages": (1, 64),
}


def parse_json(text):  # 8.1
    def members(pairs):
        require(len({name for name, _ in pairs}) == len(pairs), "8.1, two members of one name")
        return dict(pairs)

    def constant(name):
        raise Rejected(f"8.1, {name}")

    def check(value, depth):
        if isinstance(value, str):
            value.encode()  # half a surrogate pair raises
        elif isinstance(value, (dict, list)):
            require(depth <= 8, "8.1, nested too deeply")
            for part in [*value, *value.values()] if isinstance(value, dict) else value:
                check(part, depth + 1)

    def integer(digits):  # no field has 20 digits, and Python does not read thousands
        return int(digits) if len(digits) < 20 else math.inf

    try:
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant, parse_int=integer)
        check(value, 1)
    except RecursionError as error:
        raise Rejected("8.1") from error
    return value


def from_base64(text):  # 8.2
    data = base64.b64decode(text, validate=True)
    require(base64.b64encode(data).decode() == text, "8.2, unused bits")
    return data


def read_model(data):
    """Configuration, identity and tables of a weights file."""
    (n,) = Reader(data).unpack("Q")
    try:
        header = parse_json(Reader(data, 8).take(n).decode())
        meta = header.pop("__metadata__")
        require(meta["walloc_ref.format"] == "1", "8.2")
        config = parse_json(meta["walloc_ref.config"])
        require(all(isinstance(value, str) for value in meta.values()), "8.2")
        names = ["J", "architecture", "channels", "latent_bits", "latent_dim", *FIELDS[config["architecture"]]]
        config = {name: config.get(name) if name == "Ne" else config[name] for name in sorted(names)}
        tensors, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):  # 8.1
            require(sorted(entry) == ["data_offsets", "dtype", "shape"], "8.1")
            begin, end = entry["data_offsets"]
            require(entry["dtype"] == "F32" and begin == at and end - begin == 4 * math.prod(entry["shape"]), "8.1")
            tensors[name], at = Reader(data, 8 + n + begin).take(end - begin), end
        require(8 + n + at == len(data), "8.1")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected(f"8: {error}") from error
    for name, (low, high) in LIMITS.items():
        require(name not in config or type(config[name]) is int and low <= config[name] <= high, "8.3")
    flags = [config[name] for name in ("lightweight_encode", "post_filter") if name in config]
    require(all(type(flag) is bool for flag in flags), "8.3")
    light, ne = config.get("lightweight_encode", True), config.get("Ne")
    require(ne is None and light or type(ne) is int and (abs(ne) < 10**15 if light else 1 <= ne <= 8192), "8.3")
    widths = [config[name] for name in (["Nd"] if light else ["Nd", "Ne"]) if name in config]
    narrow = config["architecture"] == "Codec1D"
    require(all(n >= config["latent_dim"] if narrow else n % 32 == 0 for n in widths), "8.3")
    config["D"] = config["latent_dim"] * config.get("num_stages", 1)
    config["kind"] = {"Codec1D": 1, "LinearCodec3D": 2}.get(config["architecture"], 0)
    require(config["D"] <= 4096 and config["channels"] << config["J"] * (2, 1, 3)[config["kind"]] <= 65536, "8.3")
    try:
        text = meta.get("walloc_ref.entropy")
        tables = default_tables(config["D"], config["latent_bits"]) if text is None else from_base64(text)
    except ValueError as error:
        raise Rejected("8.2") from error
    try:
        text = meta.get("walloc_ref.steps")
        weights = bytes([128] * config["D"]) if text is None else from_base64(text)
    except ValueError as error:
        raise Rejected("8.2") from error
    require(len(weights) == config["D"], "8.2")
    digest = hashlib.sha256(b"walloc model 1\n")  # 8.6
    canonical = json.dumps(
        {k: v for k, v in config.items() if k not in ("D", "kind")}, sort_keys=True, separators=(",", ":")
    )
    for part in (canonical.encode(), tables, weights):
        digest.update(struct.pack("<Q", len(part)) + part)
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name])
    require(meta.get("walloc_ref.id", digest.hexdigest()) == digest.hexdigest(), "8.2")
    return config, digest.digest()[:16], Tables(tables, config["D"], config["latent_bits"], config["kind"] == 2)


# ---- entropy coding (7)


class Tables:
    def __init__(self, data, D, b, volume):  # 7.2, 7.3, 16.6
        r = Reader(data)
        require(r.unpack("4sHH") == (b"WET1", D, b), "7.3")
        counts = [r.unpack("BB") for _ in range(D)]
        require(all(taps <= 160 and hidden <= 62 for taps, hidden in counts), "7.2")
        self.taps, self.units, self.biases, self.outputs = [], [], [], []
        for c, (n, _) in enumerate(counts):
            self.taps.append([])
            for _ in range(n):
                source, code = r.unpack("HB")
                kind, dy, dx = code // 49, code % 49 // 7 - 3, code % 7 - 3
                before = volume and D <= source < 2 * D
                require(kind < 2 and (source < c or source == c and (dy, dx) < (0, 0) or before), "7.2")
                self.taps[-1].append((kind, source, dy, dx))
        for taps, (n, hidden) in zip(self.taps, counts):
            self.units.append([r.unpack(f"{2 + hidden}h") for _ in range(n)])
            self.biases.append(r.unpack(f"{2 + hidden}i"))
            self.outputs.append([r.unpack("2h") for _ in range(hidden)])
            reach = [1023 if tap[0] else 16 * (2 ** (b - 1) - 1) for tap in taps]
            sums = [
                abs(bias) + sum(a * abs(unit[u]) for a, unit in zip(reach, self.units[-1]))
                for u, bias in enumerate(self.biases[-1])
            ]
            sums += [32767 * sum(abs(out[k]) for out in self.outputs[-1]) for k in (0, 1)]
            require(max(sums) < 2**31 - 2**16, "7.3")
        self.states = r.unpack(f"{16 * (748 + 11 * D)}H")
        require(min(self.states) >= 16, "7.3")
        mixers = r.unpack("512h")
        self.mixers = [[mixers[64 * m + 4 * n :][:4] for n in range(16)] for m in range(8)]
        require(r.at == len(data), "7.3")


def default_tables(D, b):  # 7.16
    counts, taps, rest = b"", b"", b""
    for c in range(D):
        here = [(c, 0, -1, 4096), (c, -1, 0, 4096), (c, -1, -1, 2048), (c, -1, 1, 2048)]
        scale = [weight // (4 if c else 3) for *_, weight in here]
        if c:
            here.append((c - 1, 0, 0, 0))
            scale.append(1024)
        counts += bytes([len(here), 0])
        for source, dy, dx, _ in here:
            taps += struct.pack("<HB", source, 49 + (dy + 3) * 7 + dx + 3)
        rest += b"".join(struct.pack("<hh", 0, weight) for weight in scale) + struct.pack("<ii", 0, 4096)
    states = struct.pack("<H", 2048 * 16) * (16 * (748 + 11 * D))
    return b"WET1" + struct.pack("<HH", D, b) + counts + taps + rest + states + struct.pack("<h", 320) * 512


def clamp(v, low, high):
    return min(max(v, low), high)


SQUASH, STRETCH = {}, []  # 7.5
e = 2**24
for x in range(2048):
    SQUASH[x] = min(65536 * e // (e + 2**24), 65504)
    SQUASH[-x] = 65536 - SQUASH[x]
    e = e * 16842880 >> 24
x = -2047
for q in range(4096):
    while x < 2047 and SQUASH[x + 1] <= 16 * q + 8:
        x += 1
    STRETCH.append(x)
STRENGTH = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255]


def level(v, per_octave, first, count):
    e = v.bit_length() - 1
    return clamp(per_octave * e + (v * per_octave >> e) % per_octave - first, 0, count - 1)


class Slice:
    """The decoder of one slice: range coder (7.12), decisions (7.9), residuals (7.10), the walk (7.11)."""

    def __init__(self, tables, payload):
        self.T, self.bytes, self.at = tables, payload + bytes(3), 0
        self.low, self.span, self.value = 0, 2**32 - 1, 0
        self.p = [state // 16 << 10 for state in tables.states]
        self.n = [STRENGTH[state % 16] for state in tables.states]
        self.weights = [[[64 * m for m in node] for node in mixer] for mixer in tables.mixers]
        for _ in range(4):
            self.next()
        require(self.value < self.span, "7.13")

    def next(self):
        require(self.at < len(self.bytes), "7.13")
        self.value = 256 * self.value + self.bytes[self.at]
        self.at += 1

    def bit(self, p):
        bound = self.span * p >> 16
        one = self.value < bound
        if one:
            self.span = bound
        else:
            self.low, self.span, self.value = self.low + bound, self.span - bound, self.value - bound
        while self.span < 2**24:
            self.low, self.span = self.low % 2**24 << 8, self.span << 8
            self.next()
        return int(one)

    def decide(self, mixer, at, node):
        weights = self.weights[mixer][node]
        states = [16 * context + node for context in at]
        inputs = [STRETCH[self.p[i] >> 10] for i in states]
        p = SQUASH[clamp(sum(w * s for w, s in zip(weights, inputs)) >> 16, -2047, 2047)]
        bit = self.bit(p)
        error = 65536 * bit - p
        for k, i in enumerate(states):
            weights[k] = clamp(weights[k] + (inputs[k] * error + 2**18 >> 19), -(2**20), 2**20)
            self.p[i] += (2**22 * bit - self.p[i]) * (655360 // (10 * self.n[i] + 16)) >> 16
            self.p[i] = clamp(self.p[i], 256, 2**22 - 256)
            self.n[i] = min(self.n[i] + 1, 255)
        return bit

    def residual(self, mixer, at, room):
        if not self.decide(mixer, at, 0):
            return 0
        negative = self.decide(mixer, at, 1)
        e = 0
        while self.decide(mixer, at, 2 + min(e, 6)):
            e += 1
            require(1 << e <= room[negative], "7.10")
        value = 1
        for known in range(e):
            if known > 1:
                bit = self.bit(32768)
            elif known == 1:
                bit = self.decide(mixer, at, (11 if e == 2 else 14) + value % 2)
            else:
                bit = self.decide(mixer, at, {1: 9, 2: 10}.get(e, 13))
            value = 2 * value + bit
        require(value <= room[negative], "7.10")
        return -value if negative else value

    def neighbour(self, kind, c, y, x, source, dy, dx):  # 7.6
        y1, x1 = clamp(y + dy, 0, self.h - 1), clamp(x + dx, 0, self.w - 1)
        if source == c and (y1, x1) >= (y, x):
            if y == 0 and x == 0:
                return 0
            y1, x1 = (y - 1, 0) if y else (0, x - 1)
        return self.values[kind][source][y1][x1]

    def decode(self, D, z, h, w, b):
        """Symbols, planes first; z depth positions, 1 but for volumes (16.5)."""
        self.h, self.w = h, w
        self.values = [[[[0] * w for _ in range(h)] for _ in range(2 * D)] for _ in range(2)]
        planes = [[] for _ in range(D)]
        for _ in range(z):
            fresh = [[[[0] * w for _ in range(h)] for _ in range(D)] for _ in range(2)]
            self.values = [own + kind[:D] for own, kind in zip(fresh, self.values)]  # 16.6
            out = self.depth_position(D, h, w, b)
            for c in range(D):
                planes[c] += out[c * h * w : (c + 1) * h * w]
        require(self.at == len(self.bytes) and self.value < 2**24, "7.13")
        return [k for plane in planes for k in plane]

    def depth_position(self, D, h, w, b):
        T, L, out = self.T, 2 ** (b - 1) - 1, []
        for c, y, x in ((c, y, x) for c in range(D) for y in range(h) for x in range(w)):
            sums = list(T.biases[c])  # 7.7
            for (kind, source, dy, dx), unit in zip(T.taps[c], T.units[c]):
                value = self.neighbour(kind, c, y, x, source, dy, dx)
                if value:
                    for u, weight in enumerate(unit):
                        sums[u] += weight * value
            mean, scale = sums[0] << 4, sums[1] << 4
            for s, (to_mean, to_scale) in zip(sums[2:], T.outputs[c]):
                hidden = clamp(s >> 8, 0, 32767)
                mean += hidden * to_mean
                scale += hidden * to_scale
            linear = sums[0] + 2048 >> 12
            mean, scale = clamp(mean + 32768 >> 16, -16 * L, 16 * L), clamp(scale >> 12, 1, 16383)
            expected = mean + 8 >> 4
            fraction = mean - 16 * expected
            flip = -1 if fraction < 0 else 1
            near = [(0, -1), (-1, 0), (-1, -1), (-1, 1)]
            sides = [self.neighbour(0, c, y, x, c, *d) for d in near[:2]]
            west, north, nw, ne = (self.neighbour(1, c, y, x, c, *d) for d in near)
            size = level(scale, 4, 8, 44)  # 7.8
            activity = level(max(2 * west + 2 * north + nw + ne, 1), 2, 4, 12)
            margin = 1 + (scale >> 4)
            a, n = [1 + (flip * (v - mean) > margin) - (flip * (v - mean) < -margin) for v in sides]
            at = [
                size * 5 + (abs(fraction) + 1 >> 1),
                220 + c * 11 + (size >> 2),
                220 + 11 * D + activity * 11 + (size >> 2),
                352 + 11 * D + (a * 3 + n) * 44 + size,
            ]
            r = self.residual(size // 6, at, (L - flip * expected, L + flip * expected))
            k = expected + flip * r
            out.append(k)
            self.values[0][c][y][x] = 16 * k
            self.values[1][c][y][x] = min(abs(16 * k - linear), 1023)
        return out


def decode_slice(tables, payload, D, *sizes, b):
    """Symbols of a slice (D, h, w) or, of a volume, (D, z, h, w)."""
    require(min(D, *sizes) > 0 and D * math.prod(sizes) <= 11360 * len(payload), "12.5")
    return Slice(tables, payload).decode(D, *((1, *sizes)[-3:]), b)


# ---- container (10)


def read_stream(data, config, identity, tables):
    """All symbols of a stream and their shape."""
    r = Reader(data)
    require(r.take(5) == b"\x89WLC\x01", "10.1")
    head, seen = None, set()
    while True:
        start = r.at
        (tag,) = r.unpack("B")
        if tag == 2 and head:
            break
        require((tag == 1) == (head is None), "10.3")
        payload = r.take(r.varint())
        crc = zlib.crc32(data[start : r.at])
        require(r.unpack("I") == (crc,), "10.2")
        require(tag not in seen or tag not in (0x81, 0x82, 0x83, 0x84), "10.3")
        seen.add(tag)
        if tag == 1:
            head = read_head(payload, config, identity)
        elif tag == 0x81:
            certificate = Reader(payload, 32)
            index = -1
            for _ in range(certificate.varint(0, len(payload))):
                index += 1 + certificate.varint()
                require(index < head["samples"], "10.10")
            require(certificate.at == len(payload), "10.10")
        else:
            require(tag >= 0x80, "10.4")
    sizes, audio = head["shape"], config["kind"] == 1
    along = sizes[-1 if audio else 0]  # 10.8
    require(r.varint() == len(data) - r.at, "10.8")
    count = r.varint()
    require(count == -(-along // head["slice_size"]) and 5 * count <= len(data) - r.at, "10.8")
    table = [(r.varint(), r.unpack("I")[0]) for _ in range(count)]
    crc = zlib.crc32(data[start : r.at])
    require(r.unpack("I") == (crc,), "10.8")
    D, b, parts = config["D"], config["latent_bits"], []
    for i, (size, crc) in enumerate(table):
        payload = r.take(size)
        require(zlib.crc32(payload) == crc, "10.8")
        n = min(head["slice_size"], along - i * head["slice_size"])
        shape = (1, n) if audio else (n, *sizes[1:])
        parts.append((math.prod(shape), decode_slice(tables, payload, D, *shape, b=b)))
    require(r.at == len(data), "10.3")
    symbols = [k for c in range(D) for n, part in parts for k in part[c * n : (c + 1) * n]]
    raw = struct.pack(f"<{len(symbols)}h", *symbols)
    require(hashlib.sha256(raw).digest()[:8] == head["hash"], "10.9")
    return raw, (D, *sizes[audio:])


def read_head(payload, config, identity):  # 10.5, 10.6, 10.7
    r = Reader(payload)
    kind, form = r.unpack("BB")
    forms = (0, 1, 2, 5)
    require(kind == config["kind"] and form in (forms, (0, 2, 3, 4, 5, 6), forms)[kind], "10.5")
    channels = r.varint(1, 4096)
    require(channels in (1, config["channels"]), "10.7")
    sizes = [r.varint(1, 2**40 - 1) for _ in range((2, 1, 3)[kind])]
    if kind == 1:
        r.varint(1, 2**32 - 1)
    if kind == 1 or form == 5:
        mean, gain = r.unpack("dd")
        require(math.isfinite(mean) and math.isfinite(gain) and gain >= 0, "10.6")
    require(r.take(16) == identity, "8.8")
    require(
        r.unpack("B") == (config["J"],) and r.varint() == config["D"] and r.unpack("B") == (config["latent_bits"],),
        "10.7",
    )
    step, weighted = r.unpack("IB")
    require(2**6 <= step <= 2**26 and weighted <= 1, "10.6")
    window = 0 if kind else r.varint(0, 2**40 - 1)
    require(window == 0 or window >= 8 and config["architecture"] == "Codec2D", "10.6, 10.7")
    if window:
        r.varint(0, window)
    samples = channels * math.prod(sizes)
    require(samples <= 2**30, "12.4")
    m = 2 ** config["J"]
    shape = (1, -(-sizes[0] // m) + 2) if kind == 1 else tuple(-(-n // m) for n in sizes)
    slice_size = r.varint(1, shape[-1 if kind == 1 else 0])
    digest = r.take(8)
    require(r.at == len(payload), "10.6")
    return {"samples": samples, "shape": shape, "slice_size": slice_size, "hash": digest}


def npy(raw, shape):
    """An array file of int16."""
    header = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(11 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + raw


def main(op, stage, model, source, output, *_):
    if op != "decode" or stage not in ("symbols", "slice"):
        return UNSUPPORTED
    try:
        with open(model, "rb") as file:
            config, identity, tables = read_model(file.read())
        with open(source, "rb") as file:
            data = file.read()
        if stage == "symbols":
            raw, shape = read_stream(data, config, identity, tables)
        else:
            axes = 4 if config["kind"] == 2 else 3
            shape = Reader(data).unpack(axes * "I")
            require(shape[0] == config["D"], "7.1")
            symbols = decode_slice(tables, data[4 * axes :], *shape, b=config["latent_bits"])
            raw = struct.pack(f"<{len(symbols)}h", *symbols)
    except Rejected as error:
        print(f"rejected: {error}", file=sys.stderr)
        return REJECTED
    with open(output, "wb") as file:
        file.write(npy(raw, shape))
    return DONE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
