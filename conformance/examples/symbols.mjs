// A decoder of level *symbols*, written from SPEC.md alone: Node's standard library and nothing else.
//
//     walloc-ref conform run --level symbols --serve --impl 'node conformance/examples/symbols.mjs --serve'
//     walloc-ref conform run --level symbols \
//         --impl 'node conformance/examples/symbols.mjs {op} {stage} {model} {input} {output}'
//
// It knows `decode symbols` and `decode slice` and says unsupported to everything else. Numbers in comments are clauses
// of SPEC.md. All integers fit the 53 bits of a number; `shift` is the arithmetic shift that `>>` is only up to 32 bits.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [DONE, REJECTED, UNSUPPORTED] = [0, 10, 11];

class Rejected extends Error {}

const require = (condition, why) => {
  if (!condition) throw new Rejected(why);
};
const shift = (v, bits) => Math.floor(v / 2 ** bits);
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const range = (n) => [...Array(n).keys()];
const sha256 = () => createHash("sha256");

// ---- bytes

class Reader {
  constructor(data, at = 0) {
    this.data = data;
    this.at = at;
  }
  get left() {
    return this.data.length - this.at;
  }
  take(n) {
    require(n >= 0 && n <= this.left, "truncated");
    this.at += n;
    return this.data.subarray(this.at - n, this.at);
  }
  u8 = () => this.take(1)[0];
  u16 = () => this.take(2).readUInt16LE();
  i16 = () => this.take(2).readInt16LE();
  u32 = () => this.take(4).readUInt32LE();
  i32 = () => this.take(4).readInt32LE();
  f64 = () => this.take(8).readDoubleLE();
  varint(low = 0, high = Number.MAX_SAFE_INTEGER) { // 1.6
    let value = 0;
    for (let i = 0; i < 9; i++) {
      const byte = this.u8();
      value += (byte & 127) * 128 ** i; // a value too large for a number is too large for any field
      if (byte < 128) {
        require(byte || !i, "1.6");
        require(value >= low && value <= high, `${value} is not ${low} to ${high}`);
        return value;
      }
    }
    throw new Rejected("1.6");
  }
}

const CRC = range(256).map((n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

function crc32(data) { // 10.2
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// ---- model file (8)

const FIELDS = { // 8.3
  Codec2D: ["Nd", "Ne", "lightweight_encode"],
  Codec1D: ["Nd", "Ne", "lightweight_encode", "post_filter"],
  LinearCodec2D: [],
  LinearCodec3D: [],
  ResidualCodec2D: ["num_stages"],
};
const LIMITS = {
  channels: [1, 4096], J: [0, 10], latent_dim: [1, 4096], latent_bits: [2, 8], Nd: [1, 8192], num_stages: [1, 64],
};

function length64(n) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(n));
  return bytes;
}

function utf8(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new Rejected("8.1, not UTF-8");
  }
}

// JSON as strictly as 8.1 says; JSON.parse would take two members of one name, and 8.0 for an integer.
function parse(text) {
  const token = /[ \t\r\n]*([[\]{},:]|"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)[ \t\r\n]*/y;
  require(typeof text === "string", "8.1, not JSON");
  const next = () => {
    const found = token.exec(text);
    require(found, "8.1, not JSON");
    return found[1];
  };
  const string = (word) => {
    require(word[0] === '"', "8.1, not a string");
    const value = JSON.parse(word);
    require(value.isWellFormed(), "8.1, half a surrogate pair");
    return value;
  };
  const value = (word, depth) => {
    if (word === "{" || word === "[") {
      require(depth <= 8, "8.1, nested too deeply");
      const names = new Set(), out = word === "{" ? {} : [], end = word === "{" ? "}" : "]";
      for (let item = next(); item !== end; ) {
        if (word === "{") {
          const name = string(item);
          require(!names.has(name) && next() === ":", "8.1, two members of one name");
          names.add(name);
          Object.defineProperty(out, name, { value: value(next(), depth + 1), enumerable: true, configurable: true });
        } else {
          out.push(value(item, depth + 1));
        }
        const after = next();
        require(after === "," || after === end, "8.1, not JSON");
        item = after === end ? end : next();
        require(after === end || item !== end, "8.1, not JSON");
      }
      return out;
    }
    if (word[0] === '"') return string(word);
    require(!/[\]},:]/.test(word), "8.1, not JSON");
    if (word === "true" || word === "false" || word === "null") return JSON.parse(word);
    return /^-?\d+$/.test(word) ? Number(word) : NaN; // a number that no field can be
  };
  const out = value(next(), 1);
  require(token.lastIndex === text.length, "8.1, something follows");
  return out;
}

const object = (value) => {
  require(value !== null && typeof value === "object" && !Array.isArray(value), "8: not an object");
  return value;
};
const own = (value, key) => (Object.hasOwn(value, key) ? value[key] : undefined);
const byBytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

function readModel(data) {
  const n = Number(new Reader(data).take(8).readBigUInt64LE());
  const header = object(parse(utf8(new Reader(data, 8).take(n))));
  const meta = object(own(header, "__metadata__"));
  delete header.__metadata__;
  require(Object.values(meta).every((value) => typeof value === "string"), "8.2");
  require(own(meta, "walloc_ref.format") === "1", "8.2");
  const given = object(parse(own(meta, "walloc_ref.config")));
  const more = own(FIELDS, own(given, "architecture"));
  require(more, "8.3");
  const config = {};
  for (const name of ["J", "architecture", "channels", "latent_bits", "latent_dim", ...more].sort(byBytes)) {
    const value = name === "Ne" ? own(given, name) ?? null : own(given, name);
    require(value !== undefined, "8.3");
    const [low, high] = LIMITS[name] ?? [];
    require(low === undefined || (Number.isInteger(value) && value >= low && value <= high), "8.3");
    require(!["lightweight_encode", "post_filter"].includes(name) || typeof value === "boolean", "8.3");
    config[name] = value;
  }
  const { Ne, lightweight_encode: light = true, architecture } = config;
  require(light ? Ne == null || Number.isInteger(Ne) : Number.isInteger(Ne) && Ne >= 1 && Ne <= 8192, "8.3");
  for (const width of [config.Nd, light ? undefined : Ne]) {
    require(width === undefined || (architecture === "Codec1D" ? width >= config.latent_dim : width % 32 === 0), "8.3");
  }
  const axes = { Codec1D: 1, LinearCodec3D: 3 }[architecture] ?? 2;
  require(config.channels * 2 ** (axes * config.J) <= 65536, "8.3");
  const tensors = Object.entries(header).map(([name, entry]) => {
    const { dtype, shape, data_offsets: offsets } = object(entry);
    require(Object.keys(entry).sort().join() === "data_offsets,dtype,shape", "8.1");
    require(dtype === "F32" && Array.isArray(shape) && Array.isArray(offsets) && offsets.length === 2, "8.1");
    return { name, begin: offsets[0], end: offsets[1], bytes: 4 * shape.reduce((a, b) => a * b, 1) };
  });
  let at = 0;
  for (const tensor of tensors.sort((a, b) => a.begin - b.begin || a.end - b.end)) { // 8.1
    require(tensor.begin === at && tensor.end - tensor.begin === tensor.bytes, "8.1");
    tensor.data = new Reader(data, 8 + n + at).take(tensor.bytes);
    at = tensor.end;
  }
  require(8 + n + at === data.length, "8.1");
  const D = config.latent_dim * (config.num_stages ?? 1);
  require(D <= 4096, "8.3");
  const text = own(meta, "walloc_ref.entropy");
  let tables = text === undefined ? defaultTables(D, config.latent_bits) : Buffer.from(text, "base64");
  require(text === undefined || tables.toString("base64") === text, "8.2");
  const given64 = own(meta, "walloc_ref.steps");
  const weights = given64 === undefined ? Buffer.alloc(D, 128) : Buffer.from(given64, "base64");
  require(weights.length === D && (given64 === undefined || weights.toString("base64") === given64), "8.2");
  const digest = sha256().update("walloc model 1\n"); // 8.6
  for (const part of [Buffer.from(JSON.stringify(config)), tables, weights]) digest.update(length64(part.length)).update(part);
  for (const { name, data: values } of tensors.sort((a, b) => byBytes(a.name, b.name))) {
    digest.update(`${name}\0`).update(values);
  }
  const identity = digest.digest();
  require((own(meta, "walloc_ref.id") ?? identity.toString("hex")) === identity.toString("hex"), "8.2");
  const b = config.latent_bits;
  const audio = config.architecture === "Codec1D", volume = config.architecture === "LinearCodec3D";
  return { ...config, D, b, audio, volume, identity, tables: readTables(tables, D, b, volume) };
}

// ---- entropy coding (7)

function readTables(data, D, b, volume) { // 7.2, 7.3, 16.6
  const r = new Reader(data);
  require(r.take(4).toString("latin1") === "WET1" && r.u16() === D && r.u16() === b, "7.3");
  const counts = range(D).map(() => [r.u8(), r.u8()]);
  require(counts.every(([taps, hidden]) => taps <= 160 && hidden <= 62), "7.2");
  const taps = counts.map(([n], c) =>
    range(n).map(() => {
      const source = r.u16(), code = r.u8();
      const kind = Math.floor(code / 49);
      const dy = Math.floor((code % 49) / 7) - 3, dx = (code % 7) - 3;
      const before = volume && source >= D && source < 2 * D;
      require(kind < 2 && (source < c || before || (source === c && (dy < 0 || (dy === 0 && dx < 0)))), "7.2");
      return { kind, source, dy, dx };
    }),
  );
  const planes = counts.map(([n, hidden], c) => {
    const units = range(n).map(() => range(2 + hidden).map(r.i16));
    const biases = range(2 + hidden).map(r.i32);
    const outputs = range(hidden).map(() => [r.i16(), r.i16()]);
    const reach = taps[c].map((tap) => (tap.kind ? 1023 : 16 * (2 ** (b - 1) - 1)));
    const sums = biases.map((bias, u) => units.reduce((sum, unit, i) => sum + reach[i] * Math.abs(unit[u]), Math.abs(bias)));
    for (const k of [0, 1]) sums.push(32767 * outputs.reduce((sum, out) => sum + Math.abs(out[k]), 0));
    require(Math.max(...sums) < 2 ** 31 - 2 ** 16, "7.3");
    return { taps: taps[c], units, biases, outputs };
  });
  const states = range(16 * (748 + 11 * D)).map(r.u16);
  require(states.every((state) => state >= 16), "7.3");
  const mixers = range(8).map(() => range(16).map(() => range(4).map(r.i16)));
  require(r.left === 0, "7.3");
  return { planes, states, mixers };
}

function defaultTables(D, b) { // 7.16
  const bytes = [];
  const put = (kind, ...values) => {
    for (const value of values) {
      const buffer = Buffer.alloc({ u8: 1, u16: 2, i16: 2, i32: 4 }[kind]);
      buffer[{ u8: "writeUInt8", u16: "writeUInt16LE", i16: "writeInt16LE", i32: "writeInt32LE" }[kind]](value);
      bytes.push(buffer);
    }
  };
  bytes.push(Buffer.from("WET1"));
  put("u16", D, b);
  const here = (c) => {
    const own = [[c, 0, -1, 4096], [c, -1, 0, 4096], [c, -1, -1, 2048], [c, -1, 1, 2048]];
    const taps = own.map(([s, dy, dx, weight]) => [s, dy, dx, Math.floor(weight / (c ? 4 : 3))]);
    return c ? [...taps, [c - 1, 0, 0, 1024]] : taps;
  };
  for (const c of range(D)) put("u8", here(c).length, 0);
  for (const c of range(D)) {
    for (const [source, dy, dx] of here(c)) {
      put("u16", source);
      put("u8", 49 + (dy + 3) * 7 + dx + 3);
    }
  }
  for (const c of range(D)) {
    for (const tap of here(c)) put("i16", 0, tap[3]);
    put("i32", 0, 4096);
  }
  for (let i = 16 * (748 + 11 * D); i > 0; i--) put("u16", 2048 * 16); // more than a call takes arguments
  put("i16", ...Array(512).fill(320));
  return Buffer.concat(bytes);
}

const SQUASH = new Map(), STRETCH = []; // 7.5
for (let x = 0, e = 2n ** 24n; x < 2048; x++) { // the one place with more than 53 bits
  const p = Math.min(Number((65536n * e) / (e + 2n ** 24n)), 65504);
  SQUASH.set(x, p).set(-x, 65536 - p);
  e = (e * 16842880n) >> 24n;
}
SQUASH.set(0, 32768);
for (let q = 0, x = -2047; q < 4096; q++) {
  while (x < 2047 && SQUASH.get(x + 1) <= 16 * q + 8) x++;
  STRETCH.push(x);
}
const STRENGTH = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255];

function level(v, perOctave, first, count) {
  const e = 31 - Math.clz32(v);
  return clamp(perOctave * e + (((v * perOctave) >> e) % perOctave) - first, 0, count - 1);
}

class Slice { // range coder (7.12), decisions (7.9), residuals (7.10), the walk (7.11)
  constructor(tables, payload) {
    this.T = tables;
    this.bytes = Buffer.concat([payload, Buffer.alloc(3)]);
    [this.at, this.low, this.span, this.value] = [0, 0, 2 ** 32 - 1, 0];
    this.p = tables.states.map((state) => (state >> 4) << 10);
    this.n = tables.states.map((state) => STRENGTH[state % 16]);
    this.weights = tables.mixers.map((mixer) => mixer.map((node) => node.map((m) => 64 * m)));
    for (let i = 0; i < 4; i++) this.next();
    require(this.value < this.span, "7.13");
  }
  next() {
    require(this.at < this.bytes.length, "7.13");
    this.value = 256 * this.value + this.bytes[this.at++];
  }
  bit(p) {
    const bound = shift(this.span * p, 16);
    const one = this.value < bound;
    if (one) {
      this.span = bound;
    } else {
      this.low += bound;
      this.span -= bound;
      this.value -= bound;
    }
    while (this.span < 2 ** 24) {
      this.low = (this.low % 2 ** 24) * 256;
      this.span *= 256;
      this.next();
    }
    return Number(one);
  }
  decide(mixer, at, node) {
    const weights = this.weights[mixer][node];
    const states = at.map((context) => 16 * context + node);
    const inputs = states.map((i) => STRETCH[this.p[i] >> 10]);
    const dot = shift(weights.reduce((sum, weight, k) => sum + weight * inputs[k], 0), 16);
    const p = SQUASH.get(clamp(dot, -2047, 2047));
    const bit = this.bit(p);
    const error = 65536 * bit - p;
    states.forEach((i, k) => {
      weights[k] = clamp(weights[k] + shift(inputs[k] * error + 2 ** 18, 19), -(2 ** 20), 2 ** 20);
      const rate = Math.floor(655360 / (10 * this.n[i] + 16));
      this.p[i] = clamp(this.p[i] + shift((2 ** 22 * bit - this.p[i]) * rate, 16), 256, 2 ** 22 - 256);
      this.n[i] = Math.min(this.n[i] + 1, 255);
    });
    return bit;
  }
  residual(mixer, at, room) {
    if (!this.decide(mixer, at, 0)) return 0;
    const negative = this.decide(mixer, at, 1);
    let e = 0;
    while (this.decide(mixer, at, 2 + Math.min(e, 6))) {
      e++;
      require(2 ** e <= room[negative], "7.10");
    }
    let value = 1;
    for (let known = 0; known < e; known++) {
      let bit;
      if (known > 1) bit = this.bit(32768);
      else if (known === 1) bit = this.decide(mixer, at, (e === 2 ? 11 : 14) + (value % 2));
      else bit = this.decide(mixer, at, e === 1 ? 9 : e === 2 ? 10 : 13);
      value = 2 * value + bit;
    }
    require(value <= room[negative], "7.10");
    return negative ? -value : value;
  }
  neighbour(kind, c, y, x, source, dy, dx) { // 7.6
    let y1 = clamp(y + dy, 0, this.h - 1), x1 = clamp(x + dx, 0, this.w - 1);
    if (source === c && (y1 > y || (y1 === y && x1 >= x))) {
      if (y === 0 && x === 0) return 0;
      [y1, x1] = y > 0 ? [y - 1, 0] : [0, x - 1];
    }
    return this.values[kind][(source * this.h + y1) * this.w + x1];
  }
  decode(D, z, h, w, b) { // planes first; z depth positions, 1 but for volumes (16.5)
    const L = 2 ** (b - 1) - 1, out = new Int16Array(D * z * h * w), part = new Int16Array(D * h * w);
    [this.h, this.w] = [h, w];
    this.values = [new Int16Array(2 * D * h * w), new Int16Array(2 * D * h * w)];
    for (let p = 0; p < z; p++) {
      for (const values of this.values) values.copyWithin(D * h * w, 0, D * h * w).fill(0, 0, D * h * w); // 16.6
      for (let c = 0; c < D; c++) {
        const plane = this.T.planes[c];
        for (let y = 0; y < h; y++) {
          for (let x = 0; x < w; x++) this.position(plane, D, c, y, x, L, part);
        }
        out.set(part.subarray(c * h * w, (c + 1) * h * w), (c * z + p) * h * w);
      }
    }
    require(this.at === this.bytes.length && this.value < 2 ** 24, "7.13");
    require((this.low + this.value) % 2 ** 24 === 0, "7.13");
    return out;
  }
  position(plane, D, c, y, x, L, out) {
    const sums = [...plane.biases]; // 7.7
    plane.taps.forEach(({ kind, source, dy, dx }, i) => {
      const value = this.neighbour(kind, c, y, x, source, dy, dx);
      plane.units[i].forEach((weight, u) => (sums[u] += weight * value));
    });
    let [mean, scale] = [sums[0] * 16, sums[1] * 16];
    plane.outputs.forEach(([toMean, toScale], i) => {
      const hidden = clamp(shift(sums[2 + i], 8), 0, 32767);
      mean += hidden * toMean;
      scale += hidden * toScale;
    });
    const linear = shift(sums[0] + 2048, 12);
    mean = clamp(shift(mean + 32768, 16), -16 * L, 16 * L);
    scale = clamp(shift(scale, 12), 1, 16383);
    const expected = (mean + 8) >> 4, fraction = mean - 16 * expected, flip = fraction < 0 ? -1 : 1;
    const [west, north, nw, ne] = [[0, -1], [-1, 0], [-1, -1], [-1, 1]].map((d) => this.neighbour(1, c, y, x, c, ...d));
    const size = level(scale, 4, 8, 44); // 7.8
    const activity = level(Math.max(2 * west + 2 * north + nw + ne, 1), 2, 4, 12);
    const margin = 1 + (scale >> 4);
    const [a, n] = [[0, -1], [-1, 0]].map((d) => {
      const far = flip * (this.neighbour(0, c, y, x, c, ...d) - mean);
      return 1 + (far > margin) - (far < -margin);
    });
    const at = [
      size * 5 + ((Math.abs(fraction) + 1) >> 1),
      220 + c * 11 + (size >> 2),
      220 + 11 * D + activity * 11 + (size >> 2),
      352 + 11 * D + (a * 3 + n) * 44 + size,
    ];
    const r = this.residual(Math.floor(size / 6), at, [L - flip * expected, L + flip * expected]);
    const k = expected + flip * r, here = (c * this.h + y) * this.w + x;
    out[here] = k;
    this.values[0][here] = 16 * k;
    this.values[1][here] = Math.min(Math.abs(16 * k - linear), 1023);
  }
}

function decodeSlice(tables, payload, [D, ...sizes], b) { // (D, h, w) or, of a volume, (D, z, h, w)
  require(Math.min(D, ...sizes) > 0 && sizes.reduce((p, n) => p * n, D) <= 11360 * payload.length, "12.5");
  return new Slice(tables, payload).decode(D, ...[1, ...sizes].slice(-3), b);
}

// ---- container (10)

function readStream(data, model) {
  const r = new Reader(data), seen = new Set();
  require(r.take(5).equals(Buffer.from([0x89, 0x57, 0x4c, 0x43, 1])), "10.1");
  let head = null, start;
  for (;;) {
    start = r.at;
    const tag = r.u8();
    if (tag === 2 && head) break;
    require((tag === 1) === (head === null), "10.3");
    const payload = r.take(r.varint());
    const crc = crc32(data.subarray(start, r.at));
    require(r.u32() === crc, "10.2");
    require(!seen.has(tag) || ![0x81, 0x82, 0x83, 0x84].includes(tag), "10.3");
    seen.add(tag);
    if (tag === 1) head = readHead(payload, model);
    else if (tag === 0x81) checkCertificate(payload, head.samples);
    else require(tag >= 0x80, "10.4");
  }
  const along = head.shape[Number(model.audio)]; // 10.8
  require(r.varint() === r.left, "10.8");
  const count = r.varint();
  require(count === Math.ceil(along / head.sliceSize) && 5 * count <= r.left, "10.8");
  const table = range(count).map(() => [r.varint(), r.u32()]);
  const crc = crc32(data.subarray(start, r.at));
  require(r.u32() === crc, "10.8");
  const parts = table.map(([size, recorded], i) => {
    const payload = r.take(size);
    require(crc32(payload) === recorded, "10.8");
    const n = Math.min(head.sliceSize, along - i * head.sliceSize);
    const sizes = model.audio ? [1, n] : [n, ...head.shape.slice(1)];
    return decodeSlice(model.tables, payload, [model.D, ...sizes], model.b);
  });
  require(r.left === 0, "10.3");
  const raw = Buffer.alloc(2 * parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (let c = 0; c < model.D; c++) {
    for (const part of parts) {
      const size = part.length / model.D;
      for (const k of part.subarray(c * size, (c + 1) * size)) at = raw.writeInt16LE(k, at);
    }
  }
  require(sha256().update(raw).digest().subarray(0, 8).equals(head.hash), "10.9");
  return [raw, [model.D, ...head.shape.slice(Number(model.audio))]];
}

function checkCertificate(payload, samples) { // 10.10
  const r = new Reader(payload);
  r.take(32);
  const count = r.varint(0, payload.length);
  for (let i = 0, index = -1; i < count; i++) {
    index += 1 + r.varint();
    require(index < samples, "10.10");
  }
  require(r.left === 0, "10.10");
}

function readHead(payload, model) { // 10.5, 10.6, 10.7
  const r = new Reader(payload), kind = r.u8(), form = r.u8(), { audio } = model, image = !audio && !model.volume;
  require(kind === (audio ? 1 : image ? 0 : 2) && (audio ? [0, 2, 3, 4, 5, 6] : [0, 1, 2, 5]).includes(form), "10.5");
  const channels = r.varint(1, 4096);
  require(channels === 1 || channels === model.channels, "10.7");
  const sizes = range([2, 1, 3][kind]).map(() => r.varint(1, 2 ** 40 - 1));
  if (audio) r.varint(1, 2 ** 32 - 1);
  if (audio || form === 5) {
    const mean = r.f64(), gain = r.f64();
    require(Number.isFinite(mean) && Number.isFinite(gain) && gain >= 0, "10.6");
  }
  require(r.take(16).equals(model.identity.subarray(0, 16)), "8.8");
  require(r.u8() === model.J && r.varint() === model.D && r.u8() === model.b, "10.7");
  const step = r.u32(), weighted = r.u8();
  require(step >= 2 ** 6 && step <= 2 ** 26 && weighted <= 1, "10.6");
  const window = image ? r.varint(0, 2 ** 40 - 1) : 0;
  require(window === 0 || (window >= 8 && model.architecture === "Codec2D"), "10.6, 10.7");
  if (window) r.varint(0, window);
  const samples = sizes.reduce((a, b) => a * b, channels);
  require(samples <= 2 ** 30, "12.4");
  const positions = sizes.map((size) => Math.ceil(size / 2 ** model.J));
  const shape = audio ? [1, positions[0] + 2] : positions;
  const sliceSize = r.varint(1, shape[Number(audio)]);
  const hash = r.take(8);
  require(r.left === 0, "10.6");
  return { samples, shape, sliceSize, hash };
}

// ---- the command

function npy(raw, shape) {
  let header = `{'descr': '<i2', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  header += `${" ".repeat((((-(11 + header.length)) % 64) + 64) % 64)}\n`;
  const prelude = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  return Buffer.concat([prelude, Buffer.from(header, "latin1"), raw]);
}

function perform(op, stage, modelPath, source, output) {
  if (op !== "decode" || !["symbols", "slice"].includes(stage)) return UNSUPPORTED;
  try {
    const model = readModel(readFileSync(modelPath)), data = readFileSync(source);
    let raw, shape;
    if (stage === "symbols") {
      [raw, shape] = readStream(data, model);
    } else {
      const r = new Reader(data);
      shape = range(model.volume ? 4 : 3).map(r.u32);
      require(shape[0] === model.D, "7.1");
      raw = Buffer.from(decodeSlice(model.tables, r.take(r.left), shape, model.b).buffer);
    }
    writeFileSync(output, npy(raw, shape));
    return DONE;
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    return REJECTED;
  }
}

if (process.argv[2] === "--serve") {
  for await (const line of createInterface({ input: process.stdin })) {
    const code = perform(...line.split("\t"));
    console.log({ [DONE]: "ok", [REJECTED]: "rejected", [UNSUPPORTED]: "unsupported" }[code]);
  }
} else {
  process.exitCode = perform(...process.argv.slice(2));
}
