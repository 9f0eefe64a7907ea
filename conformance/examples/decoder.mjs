// A decoder of .wlc streams, written from SPEC.md alone: one file, no dependencies, an ES module for browsers and for Node.
//
//     walloc-ref conform run --level decoder --serve --impl 'node conformance/examples/decoder.mjs --serve'
//     import { readModel, parseStream, decodeStream } from "./decoder.mjs"
//
// Each stage is a function that is exported: parseStream, decodeSymbols, dequantise, network, synthesise, postFilter,
// toSamples; so are the parts that an encoder shares with it. Arrays of the signal path are Float64Array, with the last
// index running fastest. Numbers in comments are clauses of SPEC.md. All integers fit the 53 bits of a number; `shift` is
// the arithmetic shift that `>>` is only up to 32 bits.

const [DONE, REJECTED, UNSUPPORTED] = [0, 10, 11];

export class Rejected extends Error {}

const require = (condition, why) => {
  if (!condition) throw new Rejected(why);
};
const shift = (v, bits) => Math.floor(v / 2 ** bits);
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
const range = (n) => [...Array(n).keys()];
const product = (numbers, first = 1) => numbers.reduce((a, b) => a * b, first);
const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
const bytesOf = (text) => new TextEncoder().encode(text);
const hexadecimal = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function concatenate(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const PRIMES = range(312).filter((n) => n > 1 && range(n).every((d) => d < 2 || n % d));
const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32);

export function sha256(...parts) { // FIPS 180-4
  const data = concatenate(parts), padded = new Uint8Array(64 * Math.ceil((data.length + 9) / 64));
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor((data.length * 8) / 2 ** 32));
  view.setUint32(padded.length - 4, (data.length * 8) >>> 0);
  const K = Int32Array.from(PRIMES, (n) => fraction(Math.cbrt(n))), w = new Int32Array(64);
  const state = Int32Array.from(PRIMES.slice(0, 8), (n) => fraction(Math.sqrt(n)));
  const turn = (x, by) => (x >>> by) | (x << (32 - by));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const p = w[i - 15], q = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turn(p, 7) ^ turn(p, 18) ^ (p >>> 3)) + (turn(q, 17) ^ turn(q, 19) ^ (q >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] += value));
  }
  const out = new DataView(new ArrayBuffer(32));
  state.forEach((value, i) => out.setInt32(4 * i, value));
  return new Uint8Array(out.buffer);
}

// ---- bytes

export class Reader {
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
  view(n) {
    const bytes = this.take(n);
    return new DataView(bytes.buffer, bytes.byteOffset, n);
  }
  u16 = () => this.view(2).getUint16(0, true);
  i16 = () => this.view(2).getInt16(0, true);
  u32 = () => this.view(4).getUint32(0, true);
  i32 = () => this.view(4).getInt32(0, true);
  f64 = () => this.view(8).getFloat64(0, true);
  u64 = () => this.u32() + 2 ** 32 * this.u32(); // too large for a number is too large for any file
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

export function crc32(data) { // 10.2
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
  return Uint8Array.from(range(8), (i) => Math.floor(n / 256 ** i) % 256);
}

function fromBase64(text) { // 8.2
  let bytes;
  try {
    bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Rejected("8.2, base64");
  }
  let letters = "";
  for (const byte of bytes) letters += String.fromCharCode(byte);
  require(btoa(letters) === text, "8.2, unused bits of base64");
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
const byBytes = (a, b) => {
  const [x, y] = [bytesOf(a), bytesOf(b)];
  const at = range(Math.min(x.length, y.length)).find((i) => x[i] !== y[i]);
  return at === undefined ? x.length - y.length : x[at] - y[at];
};

export function readModel(data) {
  const n = new Reader(data).u64();
  const header = object(parse(utf8(new Reader(data, 8).take(n))));
  const meta = object(own(header, "__metadata__"));
  delete header.__metadata__;
  require(Object.values(meta).every((value) => typeof value === "string"), "8.2");
  require(own(meta, "walloc_ref.format") === "1", "8.2");
  const given = object(parse(own(meta, "walloc_ref.config")));
  const architecture = own(given, "architecture"), more = own(FIELDS, architecture);
  require(typeof architecture === "string" && more, "8.3"); // of a list of one name, hasOwn makes that name
  const config = {};
  for (const name of ["J", "architecture", "channels", "latent_bits", "latent_dim", ...more].sort(byBytes)) {
    const value = name === "Ne" ? own(given, name) ?? null : own(given, name);
    require(value !== undefined, "8.3");
    const [low, high] = LIMITS[name] ?? [];
    require(low === undefined || (Number.isInteger(value) && value >= low && value <= high), "8.3");
    config[name] = value;
  }
  const tensors = Object.entries(header).map(([name, entry]) => {
    const { dtype, shape, data_offsets: offsets } = object(entry);
    require(Object.keys(entry).sort().join() === "data_offsets,dtype,shape", "8.1");
    require(dtype === "F32" && Array.isArray(shape) && Array.isArray(offsets) && offsets.length === 2, "8.1");
    return { name, shape, begin: offsets[0], end: offsets[1], bytes: 4 * shape.reduce((a, b) => a * b, 1) };
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
  const tables = text === undefined ? defaultTables(D, config.latent_bits) : fromBase64(text);
  const given64 = own(meta, "walloc_ref.steps");
  const weights = given64 === undefined ? new Uint8Array(D).fill(128) : fromBase64(given64);
  require(weights.length === D, "8.2");
  const hashed = [bytesOf("walloc model 1\n")]; // 8.6
  for (const part of [bytesOf(JSON.stringify(config)), tables, weights]) hashed.push(length64(part.length), part);
  for (const { name, data: values } of tensors.sort((a, b) => byBytes(a.name, b.name))) {
    hashed.push(bytesOf(`${name}\0`), values);
  }
  const identity = sha256(...hashed);
  require((own(meta, "walloc_ref.id") ?? hexadecimal(identity)) === hexadecimal(identity), "8.2");
  const values = readTensors(config, tensors), b = config.latent_bits, axes = axesOf(config);
  return { ...config, D, b, axes, audio: axes === 1, identity, tables: readTables(tables, D, b, axes), weights, tensors: values };
}

// ---- entropy coding (7)

export function readTables(data, D, b, axes) { // 7.2, 7.3, 16.6
  const r = new Reader(data);
  require(same(r.take(4), bytesOf("WET1")) && r.u16() === D && r.u16() === b, "7.3");
  const counts = range(D).map(() => [r.u8(), r.u8()]);
  require(counts.every(([taps, hidden]) => taps <= 160 && hidden <= 62), "7.2");
  const taps = counts.map(([n], c) =>
    range(n).map(() => {
      const source = r.u16(), code = r.u8();
      const kind = Math.floor(code / 49);
      const dy = Math.floor((code % 49) / 7) - 3, dx = (code % 7) - 3;
      const before = axes === 3 && source >= D && source < 2 * D;
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
      for (let i = 0; i < { u8: 1, u16: 2, i16: 2, i32: 4 }[kind]; i++) bytes.push((value >> (8 * i)) & 255);
    }
  };
  put("u8", ...bytesOf("WET1"));
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
  return Uint8Array.from(bytes);
}

const SQUASH = new Int32Array(4095), STRETCH = new Int32Array(4096); // 7.5; SQUASH from -2047 on
for (let x = 0, e = 2n ** 24n; x < 2048; x++) { // the one place with more than 53 bits
  const p = Math.min(Number((65536n * e) / (e + 2n ** 24n)), 65504);
  SQUASH[2047 - x] = 65536 - p;
  SQUASH[2047 + x] = p;
  e = (e * 16842880n) >> 24n;
}
for (let q = 0, x = -2047; q < 4096; q++) {
  while (x < 2047 && SQUASH[x + 1 + 2047] <= 16 * q + 8) x++;
  STRETCH[q] = x;
}
const RATE = range(256).map((n) => Math.floor(655360 / (10 * n + 16)));
const STRENGTH = [0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255];

function level(v, perOctave, first, count) {
  const e = 31 - Math.clz32(v);
  return clamp(perOctave * e + (((v * perOctave) >> e) % perOctave) - first, 0, count - 1);
}

export class Slice { // range coder (7.12), decisions (7.9), residuals (7.10), the walk (7.11)
  constructor(tables, payload) {
    this.T = tables;
    this.bytes = concatenate([payload, new Uint8Array(3)]);
    [this.at, this.low, this.span, this.value] = [0, 0, 2 ** 32 - 1, 0];
    this.p = Int32Array.from(tables.states, (state) => (state >> 4) << 10);
    this.n = Uint8Array.from(tables.states, (state) => STRENGTH[state % 16]);
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
    const weights = this.weights[mixer][node], { p, n } = this;
    let dot = 0;
    for (let k = 0; k < 4; k++) dot += weights[k] * STRETCH[p[16 * at[k] + node] >> 10];
    const mixed = SQUASH[clamp(shift(dot, 16), -2047, 2047) + 2047];
    const bit = this.bit(mixed), error = 65536 * bit - mixed;
    for (let k = 0; k < 4; k++) {
      const i = 16 * at[k] + node;
      weights[k] = clamp(weights[k] + shift(STRETCH[p[i] >> 10] * error + 2 ** 18, 19), -(2 ** 20), 2 ** 20);
      p[i] = clamp(p[i] + shift((2 ** 22 * bit - p[i]) * RATE[n[i]], 16), 256, 2 ** 22 - 256);
      if (n[i] < 255) n[i]++;
    }
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
  walk(D, z, h, w, b, out = new Int16Array(D * z * h * w)) { // planes first; z depth positions, 1 but for volumes (16.5)
    const L = 2 ** (b - 1) - 1, size = D * h * w;
    [this.h, this.w] = [h, w];
    this.values = [new Int16Array(2 * size), new Int16Array(2 * size)];
    for (let p = 0; p < z; p++) {
      for (const values of this.values) values.copyWithin(size, 0, size).fill(0, 0, size); // 16.6
      for (let c = 0; c < D; c++) {
        this.place = (c * z + p) * h * w;
        for (let y = 0; y < h; y++) {
          for (let x = 0; x < w; x++, this.place++) out[this.place] = this.position(this.T.planes[c], D, c, y, x, L);
        }
      }
    }
    return out;
  }
  finish() {
    require(this.at === this.bytes.length && this.value < 2 ** 24, "7.13");
  }
  position(plane, D, c, y, x, L) {
    const { taps, units, biases, outputs } = plane, sums = biases.slice(); // 7.7
    for (let i = 0; i < taps.length; i++) {
      const { kind, source, dy, dx } = taps[i], weights = units[i];
      const value = this.neighbour(kind, c, y, x, source, dy, dx);
      for (let u = 0; u < sums.length; u++) sums[u] += weights[u] * value;
    }
    let mean = sums[0] * 16, scale = sums[1] * 16;
    for (let i = 0; i < outputs.length; i++) {
      const hidden = clamp(shift(sums[2 + i], 8), 0, 32767);
      mean += hidden * outputs[i][0];
      scale += hidden * outputs[i][1];
    }
    const linear = shift(sums[0] + 2048, 12);
    mean = clamp(shift(mean + 32768, 16), -16 * L, 16 * L);
    scale = clamp(shift(scale, 12), 1, 16383);
    const expected = (mean + 8) >> 4, fraction = mean - 16 * expected, flip = fraction < 0 ? -1 : 1;
    const deviation = (dy, dx) => this.neighbour(1, c, y, x, c, dy, dx);
    const near = 2 * deviation(0, -1) + 2 * deviation(-1, 0) + deviation(-1, -1) + deviation(-1, 1);
    const size = level(scale, 4, 8, 44); // 7.8
    const activity = level(Math.max(near, 1), 2, 4, 12);
    const margin = 1 + (scale >> 4);
    const side = (dy, dx) => {
      const far = flip * (this.neighbour(0, c, y, x, c, dy, dx) - mean);
      return 1 + (far > margin) - (far < -margin);
    };
    const at = [
      size * 5 + ((Math.abs(fraction) + 1) >> 1),
      220 + c * 11 + (size >> 2),
      220 + 11 * D + activity * 11 + (size >> 2),
      352 + 11 * D + (side(0, -1) * 3 + side(-1, 0)) * 44 + size,
    ];
    const here = (c * this.h + y) * this.w + x, k = this.symbol(Math.floor(size / 6), at, expected, flip, L);
    this.values[0][here] = 16 * k;
    this.values[1][here] = Math.min(Math.abs(16 * k - linear), 1023);
    return k;
  }
  symbol(mixer, at, expected, flip, L) {
    return expected + flip * this.residual(mixer, at, [L - flip * expected, L + flip * expected]);
  }
}

export function decodeSlice(tables, payload, [D, ...sizes], b) { // (D, h, w) or, of a volume, (D, z, h, w)
  require(Math.min(D, ...sizes) > 0 && sizes.reduce((a, b) => a * b, D) <= 11360 * payload.length, "12.5");
  const slice = new Slice(tables, payload), symbols = slice.walk(D, ...[1, ...sizes].slice(-3), b);
  slice.finish();
  return symbols;
}

// ---- container (10)

export function parseStream(data, model) {
  const r = new Reader(data), seen = new Set();
  require(same(r.take(5), [0x89, 0x57, 0x4c, 0x43, 1]), "10.1");
  let head = null, certificate = null, start;
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
    else if (tag === 0x81) certificate = readCertificate(payload, head.samples);
    else require(tag >= 0x80, "10.4");
  }
  const along = head.shape[Number(model.audio)]; // 10.8
  require(r.varint() === r.left, "10.8");
  const count = r.varint();
  require(count === Math.ceil(along / head.sliceSize) && 5 * count <= r.left, "10.8");
  const table = range(count).map(() => [r.varint(), r.u32()]);
  const crc = crc32(data.subarray(start, r.at));
  require(r.u32() === crc, "10.8");
  const slices = table.map(([size, recorded]) => {
    const payload = r.take(size);
    require(crc32(payload) === recorded, "10.8");
    return payload;
  });
  require(r.left === 0, "10.3");
  return { ...head, certificate, slices };
}

export function sliceShape({ shape, sliceSize }, model, i) { // 10.8, 16.5
  const n = Math.min(sliceSize, shape[Number(model.audio)] - i * sliceSize);
  return [model.D, ...(model.audio ? [1, n] : [n, ...shape.slice(1)])];
}

export function decodeSymbols(stream, model) { // Int16Array (D, h, w) or (D, z, h, w)
  const parts = stream.slices.map((payload, i) => decodeSlice(model.tables, payload, sliceShape(stream, model, i), model.b));
  const symbols = new Int16Array(product(stream.shape, model.D));
  let at = 0;
  for (let c = 0; c < model.D; c++) {
    for (const part of parts) {
      const size = part.length / model.D;
      symbols.set(part.subarray(c * size, (c + 1) * size), at);
      at += size;
    }
  }
  require(same(sha256(littleEndian(symbols)).subarray(0, 8), stream.hash), "10.9");
  return symbols;
}

function readCertificate(payload, samples) { // 10.10
  const r = new Reader(payload);
  const hash = r.take(32), uncertain = [];
  const count = r.varint(0, payload.length);
  for (let i = 0, index = -1; i < count; i++) {
    index += 1 + r.varint();
    require(index < samples, "10.10");
    uncertain.push(index);
  }
  require(r.left === 0, "10.10");
  return { hash, uncertain };
}

function readHead(payload, model) { // 10.5, 10.6, 10.7
  const r = new Reader(payload), kind = r.u8(), format = r.u8(), { audio } = model;
  require(kind === [1, 0, 2][model.axes - 1] && (audio ? [0, 2, 3, 4, 5, 6] : [0, 1, 2, 5]).includes(format), "10.5");
  let [mean, gain] = [0, 1];
  const channels = r.varint(1, 4096);
  require(channels === 1 || channels === model.channels, "10.7");
  const sizes = range(model.axes).map(() => r.varint(1, 2 ** 40 - 1));
  const rate = audio ? r.varint(1, 2 ** 32 - 1) : 0;
  if (audio || format === 5) { // 3.10
    [mean, gain] = [r.f64(), r.f64()];
    require(Number.isFinite(mean) && Number.isFinite(gain) && gain >= 0, "10.6");
  }
  require(same(r.take(16), model.identity.subarray(0, 16)), "8.8");
  require(r.u8() === model.J && r.varint() === model.D && r.u8() === model.b, "10.7");
  let step = r.u32();
  const weighted = r.u8();
  require(step >= 2 ** 6 && step <= 2 ** 26 && weighted <= 1, "10.6");
  const window = kind === 0 ? r.varint(0, 2 ** 40 - 1) : 0;
  require(window === 0 || (window >= 8 && model.architecture === "Codec2D"), "10.6, 10.7");
  const context = window ? r.varint(0, window) : 0;
  const samples = product(sizes, channels);
  require(samples <= 2 ** 30, "12.4");
  const positions = sizes.map((size) => Math.ceil(size / 2 ** model.J));
  const shape = audio ? [1, positions[0] + 2] : positions;
  const sliceSize = r.varint(1, shape[Number(audio)]);
  const hash = r.take(8);
  require(r.left === 0, "10.6");
  const padded = product(shape, bandsOf(model)), shown = product(sizes, model.channels);
  require(audio || padded <= Math.max(2 ** 22, 2 ** model.axes * shown), "12.6, 16.9");
  const seen = shape.map((n) => (window ? Math.min(n, 2 * window + 2 * context) : n));
  require(model.architecture !== "Codec2D" || seen[0] * seen[1] <= 2 ** 17, "12.6");
  step /= 65536;
  return { kind, format, channels, sizes, rate, mean, gain, step, weighted, window, context, samples, shape, sliceSize, hash };
}

// ---- tensors (8.5, 8.7, 11.7): name to {shape, values}

const axesOf = (c) => ({ Codec1D: 1, LinearCodec3D: 3 })[c.architecture] ?? 2;
export const bandsOf = (c) => c.channels * 2 ** (c.J * axesOf(c));

function expectedTensors(c) { // name to shape
  const K = bandsOf(c), D = c.latent_dim, out = {};
  const layer = (name, ...shape) => Object.assign(out, { [`${name}.weight`]: shape, [`${name}.bias`]: [shape[0]] });
  const image = (p, N, inputs, outputs, outer) => {
    layer(`${p}conv_in`, N, inputs, 3, 3);
    for (const block of ["mid_block.resnets.0", "mid_block.resnets.1", ...outer]) {
      for (const i of [1, 2]) layer(`${p}${block}.norm${i}`, N), layer(`${p}${block}.conv${i}`, N, N, 3, 3);
    }
    layer(`${p}mid_block.attentions.0.group_norm`, N);
    for (const name of ["to_q", "to_k", "to_v", "to_out.0"]) layer(`${p}mid_block.attentions.0.${name}`, N, N);
    layer(`${p}conv_norm_out`, N), layer(`${p}conv_out`, outputs, N, 3, 3);
  };
  const normed = (name, a, b, taps, bias) => {
    Object.assign(out, { [`${name}.weight_g`]: [a, 1, 1], [`${name}.weight_v`]: [a, b, taps] });
    if (bias) out[`${name}.bias`] = [bias];
  };
  const snakes = (name, n) => Object.assign(out, { [`${name}.alpha`]: [1, n, 1], [`${name}.beta`]: [1, n, 1] });
  const units = (name, n) => {
    for (const unit of [1, 2, 3].map((i) => `${name}.res_unit${i}`)) {
      snakes(`${unit}.snake1`, n), normed(`${unit}.conv1`, n, n, 7, n);
      snakes(`${unit}.snake2`, n), normed(`${unit}.conv2`, n, n, 1, n);
    }
  };
  if (c.architecture === "Codec1D") {
    let B = D * Math.floor(c.Nd / D), p = "decoder.1.";
    normed(`${p}conv1`, B, D, 7, B);
    for (const [i, n] of [B, D].entries()) {
      snakes(`${p}block.${i}.snake1`, B), normed(`${p}block.${i}.conv_t1`, B, n, 2, n), units(`${p}block.${i}`, n);
    }
    snakes(`${p}snake1`, D), normed(`${p}conv2`, K, D, 7);
    if (c.lightweight_encode) {
      layer("encoder.0", D, K, 1);
    } else {
      [B, p] = [D * Math.floor(c.Ne / D), "encoder.0."];
      normed(`${p}conv1`, D, K, 7, D);
      for (const [i, n] of [D, B].entries()) {
        units(`${p}block.${i}`, n), snakes(`${p}block.${i}.snake1`, n), normed(`${p}block.${i}.conv1`, B, n, 2, B);
      }
      snakes(`${p}snake1`, B), normed(`${p}conv2`, D, B, 3, D);
    }
    if (c.post_filter) layer("post", c.channels, c.channels, 129);
  } else if (c.architecture === "Codec2D") {
    image("decoder.1.", c.Nd, D, K, [0, 1, 2].map((i) => `up_blocks.0.resnets.${i}`));
    if (c.lightweight_encode) layer("encoder.0", D, K, 1, 1);
    else image("encoder.0.", c.Ne, K, D, [0, 1].map((i) => `down_blocks.0.resnets.${i}`));
  } else if (c.architecture.startsWith("LinearCodec")) {
    const taps = c.architecture === "LinearCodec3D" ? [1, 1, 1] : [1, 1];
    layer("encoder.0", D, K, ...taps), layer("decoder.1", K, D, ...taps);
  } else {
    for (const s of range(c.num_stages)) layer(`encoders.${s}`, D, K, 1, 1), layer(`decoders.${s}`, K, D, 1, 1);
  }
  return out;
}

function readTensors(config, tensors) {
  const wide = config.architecture === "Codec2D" ? (n) => n % 32 === 0 : (n) => n >= config.latent_dim; // 8.3
  const { Nd, Ne, lightweight_encode: light, post_filter: post } = config;
  if (Nd !== undefined) {
    require(typeof light === "boolean" && wide(Nd), "8.3");
    const counts = Number.isInteger(Ne) && (light ? Math.abs(Ne) < 1e15 : Ne >= 1 && Ne <= 8192 && wide(Ne));
    require(counts || (light && Ne === null), "8.3");
    require(post === undefined || typeof post === "boolean", "8.3");
  }
  require(bandsOf(config) <= 65536, "8.3");
  const expected = expectedTensors(config), out = {};
  require(tensors.length === Object.keys(expected).length, "8.5");
  for (const { name, shape, data } of tensors) {
    require(Object.hasOwn(expected, name) && same(shape, expected[name]), "8.5");
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    const values = Float64Array.from({ length: data.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
    require(values.every(Number.isFinite), "8.7");
    out[name] = values;
  }
  for (const name of Object.keys(out).filter((name) => name.endsWith(".weight_v"))) { // 11.7
    const gains = out[name.replace(/_v$/, "_g")], values = out[name], count = values.length / gains.length;
    const weight = (out[name.replace(/_v$/, "")] = new Float64Array(values.length));
    gains.forEach((gain, a) => {
      const part = values.subarray(a * count, (a + 1) * count);
      const sum = part.reduce((total, value) => total + value * value, 0);
      require(sum > 0, "11.7");
      for (let i = 0; i < count; i++) weight[a * count + i] = (gain / Math.sqrt(sum)) * part[i];
    });
  }
  return out;
}

// ---- symbols to latents (6)

function erf(x) { // its series, good for the arguments below 3 that 6.4 has; terms of one sign
  let term = x, sum = x;
  for (let n = 1; n < 200; n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

export function latentOf(k, b) { // 6.4, by Newton's method
  const L = 2 ** (b - 1) - 1, target = Math.abs(k) / (L + 0.499);
  let u = 0;
  for (let i = 0; i < 60; i++) u += (target - erf(u)) * Math.exp(u * u) * (Math.sqrt(Math.PI) / 2);
  return (Math.sign(k) * u * Math.SQRT2 * L) / 1.85;
}

const LATENTS = new Map();

export function latentsOf(b) { // of the symbols from -L to L
  const L = 2 ** (b - 1) - 1;
  if (!LATENTS.has(b)) LATENTS.set(b, Float64Array.from(range(2 * L + 1), (i) => latentOf(i - L, b)));
  return LATENTS.get(b);
}

export function planeSteps({ step, weighted }, model) { // 6.7, 6.8
  return Array.from(model.weights, (weight) => (weighted && step > 1 ? 1 + ((step - 1) * weight) / 128 : step));
}

export function dequantise(symbols, coding, model) {
  const L = 2 ** (model.b - 1) - 1, table = latentsOf(model.b);
  const steps = planeSteps(coding, model), size = symbols.length / model.D, y = new Float64Array(symbols.length);
  for (let i = 0; i < y.length; i++) y[i] = table[symbols[i] + L] * steps[Math.floor(i / size)];
  return y;
}

// ---- networks (5, 9, 11)

// out[o, i, j] = bias[o] + sum of weight[o, n, a, b]·x[n, i + down·a − top, j + across·b − left], zeros beyond the border.
function convolve(x, weight, bias, [N, h, w], outputs, { tall = 1, wide = 1, top = 0, left = 0, across = 1 }, width = w) {
  const out = new Float64Array(outputs * h * width);
  for (let o = 0, at = 0; o < outputs; o++) {
    const y = out.subarray(o * h * width, (o + 1) * h * width);
    if (bias) y.fill(bias[o]);
    for (let n = 0; n < N; n++) {
      for (let a = 0; a < tall; a++) {
        for (let b = 0; b < wide; b++) {
          const factor = weight[at++], dx = across * b - left, dy = a - top;
          const first = Math.max(0, -dx), last = Math.min(width, w - dx), bottom = Math.min(h, h - dy);
          for (let i = Math.max(0, -dy); i < bottom; i++) {
            const to = i * width, from = (n * h + i + dy) * w + dx;
            for (let j = first; j < last; j++) y[to + j] += factor * x[from + j];
          }
        }
      }
    }
  }
  return out;
}

const plus = (x, y) => x.map((value, i) => value + y[i]);

class Layers { // layers by name, for arrays of `h` by `w` positions
  constructor(model, prefix, h, w) {
    Object.assign(this, { prefix, h, w, tensors: model.tensors });
  }
  get(name) {
    return this.tensors[this.prefix + name];
  }
  conv(name, x, side = 3) { // 9.2, 5.1
    const bias = this.get(`${name}.bias`), shape = [x.length / (this.h * this.w), this.h, this.w], edge = (side - 1) / 2;
    return convolve(x, this.get(`${name}.weight`), bias, shape, bias.length, { tall: side, wide: side, top: edge, left: edge });
  }
  norm(name, x) { // 9.3
    const weight = this.get(`${name}.weight`), bias = this.get(`${name}.bias`), P = this.h * this.w, count = x.length / 32;
    const out = new Float64Array(x.length);
    for (let first = 0; first < x.length; first += count) {
      let mean = 0, variance = 0;
      for (let i = first; i < first + count; i++) mean += x[i] / count;
      for (let i = first; i < first + count; i++) variance += (x[i] - mean) ** 2 / count;
      for (let i = first; i < first + count; i++) {
        const n = Math.floor(i / P);
        out[i] = (weight[n] * (x[i] - mean)) / Math.sqrt(variance + 1e-6) + bias[n];
      }
    }
    return out;
  }
  silu(name, x) { // 9.4
    return this.norm(name, x).map((y) => y / (1 + Math.exp(-y)));
  }
  residual(name, x) { // 9.5
    const y = this.conv(`${name}.conv1`, this.silu(`${name}.norm1`, x));
    return plus(x, this.conv(`${name}.conv2`, this.silu(`${name}.norm2`, y)));
  }
  attention(name, x) { // 9.6
    const t = this.norm(`${name}.group_norm`, x), P = this.h * this.w, N = x.length / P;
    const [q, k, v] = ["to_q", "to_k", "to_v"].map((layer) => this.conv(`${name}.${layer}`, t, 1));
    const mixed = new Float64Array(x.length), score = new Float64Array(P);
    for (let p = 0; p < P; p++) {
      score.fill(0);
      for (let n = 0; n < N; n++) {
        const factor = q[n * P + p];
        for (let r = 0; r < P; r++) score[r] += factor * k[n * P + r];
      }
      let largest = -Infinity, total = 0;
      for (let r = 0; r < P; r++) largest = Math.max(largest, score[r]);
      for (let r = 0; r < P; r++) total += score[r] = Math.exp((score[r] - largest) / Math.sqrt(N));
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let r = 0; r < P; r++) sum += score[r] * v[n * P + r];
        mixed[n * P + p] = sum / total;
      }
    }
    return plus(x, this.conv(`${name}.to_out.0`, mixed, 1));
  }
  conv1d(name, x, taps, dilation = 1) { // 11.6: as many positions as before
    const weight = this.get(`${name}.weight`), N = x.length / this.w, outputs = weight.length / (N * taps);
    const left = (dilation * (taps - 1)) / 2;
    return convolve(x, weight, this.get(`${name}.bias`), [N, 1, this.w], outputs, { wide: taps, left, across: dilation });
  }
  snake(name, x) { // 11.8
    const [alpha, beta] = ["alpha", "beta"].map((part) => this.get(`${name}.${part}`).map(Math.exp));
    return x.map((value, i) => {
      const c = Math.floor(i / this.w);
      return value + Math.sin(alpha[c] * value) ** 2 / (beta[c] + 1e-9);
    });
  }
  unit(name, x, dilation) { // 11.9
    const y = this.conv1d(`${name}.conv1`, this.snake(`${name}.snake1`, x), 7, dilation);
    return plus(x, this.conv1d(`${name}.conv2`, this.snake(`${name}.snake2`, y), 1));
  }
  dropOne(name, x) { // 11.10, conv_t1; its weight is (inputs, outputs, 2)
    const given = this.get(`${name}.weight`), bias = this.get(`${name}.bias`), N = x.length / this.w, M = bias.length;
    const weight = new Float64Array(given.length);
    for (let i = 0; i < N; i++) {
      for (let o = 0; o < M; o++) for (const k of [0, 1]) weight[(o * N + i) * 2 + 1 - k] = given[(i * M + o) * 2 + k];
    }
    const out = convolve(x, weight, bias, [N, 1, this.w], M, { wide: 2 }, this.w - 1);
    this.w--;
    return out;
  }
}

function networkOf(z, h, w, model) { // latents to subbands
  if (model.audio) { // 11.10
    const net = new Layers(model, "decoder.1.", 1, w);
    let x = net.conv1d("conv1", z, 7);
    for (const block of ["block.0", "block.1"]) {
      x = net.dropOne(`${block}.conv_t1`, net.snake(`${block}.snake1`, x));
      for (const [i, dilation] of [1, 3, 9].entries()) x = net.unit(`${block}.res_unit${i + 1}`, x, dilation);
    }
    return net.conv1d("conv2", net.snake("snake1", x), 7);
  }
  if (model.architecture === "Codec2D") { // 9.8
    const net = new Layers(model, "decoder.1.", h, w);
    let x = net.residual("mid_block.resnets.0", net.conv("conv_in", z));
    x = net.residual("mid_block.resnets.1", net.attention("mid_block.attentions.0", x));
    for (const i of [0, 1, 2]) x = net.residual(`up_blocks.0.resnets.${i}`, x);
    return net.conv("conv_out", net.silu("conv_norm_out", x));
  }
  const net = new Layers(model, "", h, w);
  if (model.architecture.startsWith("LinearCodec")) return net.conv("decoder.1", z, 1); // 5.2, 16.4
  const size = z.length / model.num_stages; // 5.3
  return range(model.num_stages)
    .map((s) => net.conv(`decoders.${s}`, z.subarray(s * size, (s + 1) * size), 1))
    .reduce(plus);
}

function edges(n, window) { // 9.11
  const count = window ? Math.max(1, Math.floor((n + Math.floor(window / 2)) / window)) : 1;
  return range(count + 1).map((i) => Math.floor((n * i) / count));
}

export function network(z, shape, { window, context }, model) { // latents to subbands, in windows (9.11)
  const [w, h] = [shape.at(-1), product(shape.slice(0, -1))]; // depth positions one below the other
  if (!window) return networkOf(z, h, w, model);
  const D = model.D, K = bandsOf(model), out = new Float64Array(K * h * w), rows = edges(h, window), columns = edges(w, window);
  for (let a = 0; a + 1 < rows.length; a++) {
    for (let b = 0; b + 1 < columns.length; b++) {
      const y0 = Math.max(0, rows[a] - context), y1 = Math.min(h, rows[a + 1] + context);
      const x0 = Math.max(0, columns[b] - context), x1 = Math.min(w, columns[b + 1] + context);
      const [tall, wide] = [y1 - y0, x1 - x0], seen = new Float64Array(D * tall * wide);
      for (let d = 0; d < D; d++) {
        for (let i = 0; i < tall; i++) {
          const from = (d * h + y0 + i) * w + x0;
          seen.set(z.subarray(from, from + wide), (d * tall + i) * wide);
        }
      }
      const part = networkOf(seen, tall, wide, model);
      for (let k = 0; k < K; k++) {
        for (let i = rows[a]; i < rows[a + 1]; i++) {
          const from = (k * tall + i - y0) * wide + columns[b] - x0;
          out.set(part.subarray(from, from + columns[b + 1] - columns[b]), (k * h + i) * w + columns[b]);
        }
      }
    }
  }
  return out;
}

// ---- synthesis (4)

export const LO = [0.8526986790088938, 0.37740285561283066, -0.11062440441843718, -0.023849465019556843, 0.03782845550726404];
export const HI = [-0.7884856164055829, 0.41809227322161724, 0.04068941760916406, -0.06453888262869706];

// 4.3 along one axis, whose positions are `every` apart: low and high of `half` positions each to twice as many.
function merge(low, high, half, every) {
  const out = new Float64Array(2 * low.length), l = new Float64Array(half + 4), h = new Float64Array(half + 4);
  const [l0, l1, l2, l3, l4] = LO, [h0, h1, h2, h3] = HI;
  for (let block = 0; block < low.length; block += half * every) {
    for (let line = 0; line < every; line++) {
      for (let k = 0; k < half + 4; k++) { // the period, two more positions of it on either side
        const from = block + line + ((k + 2 * half - 2) % half) * every;
        l[k] = low[from];
        h[k] = high[from];
      }
      for (let k = 2, to = 2 * block + line; k < half + 2; k++, to += 2 * every) { // positions 2·(k − 2) and the next
        out[to] = l1 * (h[k - 1] + h[k]) + l3 * (h[k - 2] + h[k + 1]) - h0 * l[k] - h2 * (l[k - 1] + l[k + 1]);
        const high = l0 * h[k] + l2 * (h[k - 1] + h[k + 1]) + l4 * (h[k - 2] + h[k + 2]);
        out[to + every] = h1 * (l[k] + l[k + 1]) + h3 * (l[k - 1] + l[k + 2]) - high;
      }
    }
  }
  return out;
}

export function synthesise(bands, shape, model) { // subbands (K, …) to the padded signal (C, …), sizes m times the shape
  const split = 2 ** model.axes;
  for (let count = bandsOf(model); count > model.channels; count /= split) { // 4.6, 4.7
    const out = new Float64Array(bands.length), size = product(shape);
    for (let band = 0; band < count; band += split) {
      let parts = range(split).map((f) => bands.subarray((band + f) * size, (band + f + 1) * size));
      for (let axis = shape.length - model.axes; axis < shape.length; axis++) { // neighbours differ in the first axis left (4.4)
        const every = product(shape.slice(axis + 1));
        parts = range(parts.length / 2).map((i) => merge(parts[2 * i], parts[2 * i + 1], shape[axis], every));
      }
      out.set(parts[0], band * size);
    }
    bands = out;
    shape = shape.map((n, axis) => (axis < shape.length - model.axes ? n : 2 * n));
  }
  return bands;
}

export function postFilter(x, model) { // 11.12
  const C = model.channels, shape = [C, 1, x.length / C];
  return convolve(x, model.tensors["post.weight"], model.tensors["post.bias"], shape, C, { wide: 129, left: 64 });
}

// ---- samples (3, 11)

export const ARRAYS = [Uint8Array, Uint16Array, Int16Array, Int32Array, Int32Array, Float32Array, Float64Array];
export const FULL = [2 ** 7, 65535, 2 ** 15, 2 ** 31, 2 ** 31, 1, 1]; // 11.1

function rint(x) { // to the nearest, ties to even
  const down = Math.floor(x), over = x - down;
  return over > 0.5 || (over === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

function sampleOf(x, { format, mean, gain }, audio) { // 3.8 to 3.10, 11.14
  const full = FULL[format], value = gain * x + mean;
  if (format >= 5) return value; // 3.10
  if (!audio) {
    const F = format ? 65535 : 255;
    return clamp(rint(F * (x + 0.5)), 0, F) - (format === 2 ? 32768 : 0); // 3.9
  }
  const step = format === 3 ? 256 : 1;
  return (clamp(rint((value * full) / step), -full / step, full / step - 1) + (format ? 0 : 128)) * step;
}

export function toSamples(x, stream, model) { // clamp, crop, mean of repeated channels: (H, W, C'), (frames, C') or (Z, H, W, C')
  const { channels, shape } = stream, m = 2 ** model.J;
  const [deep, tall, wide] = [1, 1, ...(model.audio ? [(shape[1] - 2) * m] : shape.map((n) => n * m))].slice(-3);
  const sizes = [1, 1, ...stream.sizes].slice(-3);
  const [front, top, left] = model.audio ? [0, 0, 0] : [deep, tall, wide].map((n, axis) => (n - sizes[axis]) >> 1);
  const repeated = channels < model.channels ? model.channels : 1; // 3.3
  const out = new ARRAYS[stream.format](stream.samples);
  let at = 0;
  for (let p = front; p < front + sizes[0]; p++) {
    for (let i = top; i < top + sizes[1]; i++) {
      for (let j = left; j < left + sizes[2]; j++) {
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let r = 0; r < repeated; r++) sum += clamp(x[(((c + r) * deep + p) * tall + i) * wide + j], -0.5, 0.5);
          out[at++] = sampleOf(sum / repeated, stream, model.audio);
        }
      }
    }
  }
  return out;
}

export function decodeStream(stream, model, symbols = decodeSymbols(stream, model)) {
  const cells = model.audio ? [1, stream.shape[1] - 2] : stream.shape;
  let x = synthesise(network(dequantise(symbols, stream, model), stream.shape, stream, model), cells, model);
  if (model.post_filter) x = postFilter(x, model);
  const samples = toSamples(x, stream, model), { certificate } = stream;
  if (certificate && stream.format < 5) { // 10.10, 10.11
    const certain = samples.slice();
    for (const index of certificate.uncertain) certain[index] = 0;
    require(same(sha256(littleEndian(certain)), certificate.hash), "10.11");
  }
  return samples;
}

export function littleEndian(values) {
  const out = new DataView(new ArrayBuffer(values.byteLength)), size = values.BYTES_PER_ELEMENT;
  const set = `set${values.constructor.name.replace("Array", "")}`;
  values.forEach((value, i) => out[set](i * size, value, true));
  return new Uint8Array(out.buffer);
}

// ---- the command, in Node

const TYPES = { Uint8Array: "|u1", Uint16Array: "<u2", Int16Array: "<i2", Int32Array: "<i4", Float32Array: "<f4", Float64Array: "<f8" };

function npy(values, shape) {
  let header = `{'descr': '${TYPES[values.constructor.name]}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  header += `${" ".repeat((((-(11 + header.length)) % 64) + 64) % 64)}\n`;
  const prelude = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8];
  return concatenate([Uint8Array.from(prelude), bytesOf(header), littleEndian(values)]);
}

export function perform(stage, modelData, data) { // the output file of a stage of the suite
  const model = readModel(modelData);
  if (stage === "slice") {
    const r = new Reader(data), shape = range(model.axes === 3 ? 4 : 3).map(r.u32);
    require(shape[0] === model.D, "7.1");
    return npy(decodeSlice(model.tables, r.take(r.left), shape, model.b), shape);
  }
  const stream = parseStream(data, model), { channels, sizes, shape } = stream;
  if (stage === "symbols") return npy(decodeSymbols(stream, model), model.audio ? [model.D, shape[1]] : [model.D, ...shape]);
  return npy(decodeStream(stream, model), model.audio || channels > 1 ? [...sizes, channels] : sizes);
}

async function main(words) {
  const { readFileSync, writeFileSync } = await import("node:fs");
  const { createInterface } = await import("node:readline");
  const bytes = (path) => new Uint8Array(readFileSync(path));
  const answer = (op, stage, model, source, output) => {
    if (op !== "decode" || !["slice", "symbols", "stream"].includes(stage)) return UNSUPPORTED;
    try {
      writeFileSync(output, perform(stage, bytes(model), bytes(source)));
      return DONE;
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      console.error(error.message);
      return REJECTED;
    }
  };
  if (words[0] !== "--serve") {
    process.exitCode = answer(...words);
    return;
  }
  for await (const line of createInterface({ input: process.stdin })) {
    console.log({ [DONE]: "ok", [REJECTED]: "rejected", [UNSUPPORTED]: "unsupported" }[answer(...line.split("\t"))]);
  }
}

if (typeof process !== "undefined" && process.argv?.[1]?.endsWith("decoder.mjs")) await main(process.argv.slice(2));
