// An encoder of .wlc streams for models whose encoder is a matrix, beside the suite's decoder, whose parts it shares: one
// file, an ES module. Numbers in comments are clauses of SPEC.md. What it writes is byte for byte what the Python codec
// writes, slices of one size given; arrays are laid out as in the decoder.

import { FULL, HI, LO, Reader, Slice, bandsOf, crc32, latentOf, latentsOf, planeSteps, sha256, sliceShape } from "./decoder.mjs";
import { dequantise, littleEndian, network, synthesise, toSamples } from "./decoder.mjs";

const product = (numbers, first = 1) => numbers.reduce((a, b) => a * b, first);
const range = (n) => [...Array(n).keys()];

// ---- samples to subbands (3, 4, 11)

export function signalOf(u, { kind, format, mean, gain }) { // one sample
  if (kind === 1) return gain === 0 ? 0 : ((format === 0 ? u - 128 : u) / FULL[format] - mean) / gain; // 11.3
  if (format === 5) return gain === 0 ? 0 : (u - mean) / gain; // 3.10
  return format === 0 ? u / 255 - 0.5 : (format === 2 ? u + 32768 : u) / 65535 - 0.5; // 3.2, 3.9
}

function reflect(i, n) { // 3.4
  if (n === 1) return 0;
  const period = 2 * (n - 1), p = ((i % period) + period) % period;
  return Math.min(p, period - p);
}

export function toSignal(samples, head, model) { // samples to the padded signal (C, …) and its sizes
  const m = 2 ** model.J, { channels } = head, sizes = [1, 1, ...head.sizes].slice(-3);
  const along = (axis) => axis >= 3 - model.axes;
  const padded = sizes.map((n, axis) => (along(axis) ? m * Math.ceil(n / m) : n));
  const places = sizes.map((n, axis) => range(padded[axis]).map((p) => (model.audio ? (p < n ? p : -1) : reflect(p - ((padded[axis] - n) >> 1), n))));
  const x = new Float64Array(product(padded, model.channels));
  let at = 0;
  for (let c = 0; c < model.channels; c++) { // one channel is repeated (3.3)
    for (const z of places[0]) {
      for (const y of places[1]) {
        for (const p of places[2]) x[at++] = p < 0 ? 0 : signalOf(samples[((z * sizes[1] + y) * sizes[2] + p) * channels + (channels > 1 ? c : 0)], head);
      }
    }
  }
  return { x, sizes: model.audio ? padded.slice(1) : padded.slice(3 - model.axes) };
}

function split(x, from, size, sizes, axis) { // 4.2 along one axis of an array that begins at `from`
  const n = sizes[axis], half = n / 2, every = product(sizes.slice(axis + 1)), low = new Float64Array(size / 2), high = new Float64Array(size / 2);
  const line = new Float64Array(n + 8), [l0, l1, l2, l3, l4] = LO, [h0, h1, h2, h3] = HI;
  for (let block = 0, to = 0; block < size; block += n * every, to += half * every) {
    for (let j = 0; j < every; j++) {
      for (let i = 0; i < n + 8; i++) line[i] = x[from + block + j + ((i + 4 * n - 4) % n) * every]; // the period goes on
      for (let k = 0; k < half; k++) {
        const i = 2 * k + 4, o = i + 1, at = to + j + k * every;
        low[at] = l0 * line[i] + l1 * (line[i - 1] + line[o]) + l2 * (line[i - 2] + line[i + 2]) + l3 * (line[i - 3] + line[i + 3]) + l4 * (line[i - 4] + line[i + 4]);
        high[at] = h0 * line[o] + h1 * (line[i] + line[o + 1]) + h2 * (line[i - 1] + line[o + 2]) + h3 * (line[i - 2] + line[o + 3]);
      }
    }
  }
  return [low, high];
}

export function analyse({ x, sizes }, model) { // the padded signal to subbands (K, …) (4.5)
  const axes = range(model.axes).map((axis) => sizes.length - model.axes + axis);
  for (let count = model.channels; count < bandsOf(model); count *= 2 ** model.axes) {
    const size = product(sizes), out = new Float64Array(x.length), smaller = sizes.map((n, axis) => (axes.includes(axis) ? n / 2 : n));
    for (let band = 0; band < count; band++) {
      let parts = split(x, band * size, size, sizes, axes.at(-1)); // the last axis first: its digit weighs most (4.4)
      let now = sizes.map((n, axis) => (axis === axes.at(-1) ? n / 2 : n));
      for (const axis of axes.slice(0, -1).reverse()) {
        parts = parts.flatMap((part) => split(part, 0, part.length, now, axis));
        now = now.map((n, a) => (a === axis ? n / 2 : n));
      }
      parts.forEach((part, f) => out.set(part, band * size + f * part.length));
    }
    [x, sizes] = [out, smaller];
  }
  return x;
}

// ---- subbands to symbols (5, 6)

export function project(x, weight, bias) { // 5.1: (N, …) to (N′, …)
  const outputs = bias.length, inputs = weight.length / outputs, size = x.length / inputs, y = new Float64Array(outputs * size);
  for (let o = 0; o < outputs; o++) {
    const row = y.subarray(o * size, (o + 1) * size).fill(bias[o]);
    for (let i = 0; i < inputs; i++) {
      const factor = weight[o * inputs + i], from = i * size;
      for (let p = 0; p < size; p++) row[p] += factor * x[from + p];
    }
  }
  return y;
}

export function thresholds(b, rounding) { // |symbol| is how many of them |latent| has reached: rounded (6.3), or cut off
  return Float64Array.from(range(2 ** (b - 1) - 1), (j) => latentOf(rounding ? j + 0.5 : j + 1, b));
}

function quantise(y, steps, limits, out, from) {
  const size = y.length / steps.length;
  for (let i = 0; i < y.length; i++) {
    const value = Math.abs(y[i] / steps[Math.floor(i / size)]);
    let low = 0, high = limits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (limits[middle] <= value) low = middle + 1;
      else high = middle;
    }
    out[from + i] = y[i] < 0 ? -low : low;
  }
}

export function toSymbols(bands, coding, model, rounding = true) { // {latents, symbols}, both (D, …) or (D, l) with borders (11.5)
  const steps = planeSteps(coding, model), limits = thresholds(model.b, rounding), { tensors } = model;
  let latents;
  if (model.num_stages) { // 5.3
    const part = model.latent_dim, size = bands.length / bandsOf(model), symbols = new Int16Array(model.D * size);
    const table = latentsOf(model.b);
    let left = bands;
    latents = new Float64Array(model.D * size);
    for (let s = 0; s < model.num_stages; s++) {
      const mine = steps.slice(s * part, (s + 1) * part), y = project(left, tensors[`encoders.${s}.weight`], tensors[`encoders.${s}.bias`]);
      quantise(y, mine, limits, symbols, s * part * size);
      latents.set(y, s * part * size);
      const back = y.map((_, i) => table[symbols[s * part * size + i] + limits.length] * mine[Math.floor(i / size)]);
      const shown = project(back, tensors[`decoders.${s}.weight`], tensors[`decoders.${s}.bias`]);
      left = left.map((value, i) => value - shown[i]);
    }
    return { latents, symbols };
  }
  latents = project(bands, tensors["encoder.0.weight"], tensors["encoder.0.bias"]);
  if (model.audio) {
    const n = latents.length / model.D, wide = new Float64Array(model.D * (n + 2));
    for (let d = 0; d < model.D; d++) {
      wide.fill(tensors["encoder.0.bias"][d], d * (n + 2), (d + 1) * (n + 2));
      wide.set(latents.subarray(d * n, (d + 1) * n), d * (n + 2) + 1);
    }
    latents = wide;
  }
  const symbols = new Int16Array(latents.length);
  quantise(latents, steps, limits, symbols, 0);
  return { latents, symbols };
}

// ---- symbols to bytes (7, 10)

class Writer extends Slice { // the decoder's walk and decisions, with a coder that writes (7.12)
  constructor(tables, symbols) {
    super(tables, new Uint8Array(1));
    Object.assign(this, { symbols, out: [], low: 0, span: 2 ** 32 - 1, bits: [], cost: 0 });
  }
  bit(p) {
    const bit = this.bits[this.used++], bound = Math.floor((this.span * p) / 65536);
    this.cost -= Math.log2(bit ? p / 65536 : 1 - p / 65536);
    if (bit) {
      this.span = bound;
    } else {
      this.low += bound;
      this.span -= bound;
    }
    while (this.span < 2 ** 24) this.shift();
    return bit;
  }
  shift() {
    if (this.low >= 2 ** 32) { // a carry goes back into the bytes written
      let at = this.out.length - 1;
      while (this.out[at] === 255) this.out[at--] = 0;
      this.out[at]++;
    }
    this.out.push(Math.floor(this.low / 2 ** 24) % 256);
    this.low = (this.low % 2 ** 24) * 256;
    this.span *= 256;
  }
  symbol(mixer, at, expected, flip, L) {
    const r = (this.symbols[this.place] - expected) * flip, size = Math.abs(r), bits = [Number(r !== 0)]; // 7.10
    if (r) {
      const e = 31 - Math.clz32(size);
      bits.push(Number(r < 0), ...Array(e).fill(1), 0);
      for (let place = e - 1; place >= 0; place--) bits.push((size >> place) & 1);
    }
    [this.bits, this.used] = [bits, 0];
    return super.symbol(mixer, at, expected, flip, L);
  }
  finish() {
    this.low += 2 ** 24 - 1;
    this.shift();
    return Uint8Array.from(this.out);
  }
}

export function encodeSlice(tables, symbols, [D, ...sizes], b) {
  const writer = new Writer(tables, symbols);
  writer.walk(D, ...[1, ...sizes].slice(-3), b);
  return { payload: writer.finish(), bits: writer.cost };
}

function varint(value) { // 1.6
  const out = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) + 128);
  return [...out, value];
}

const bytesOf = (type, ...values) => [...littleEndian(type.of(...values))];
const checked = (bytes) => [...bytes, ...bytesOf(Uint32Array, crc32(Uint8Array.from(bytes)))];

export function slicePart(stream, model, i) { // where slice i lies in symbols (D, …): [first, length] of every plane
  const along = Number(model.audio), unit = product(stream.shape.slice(along + 1)), size = product(stream.shape);
  const first = i * stream.sliceSize * unit, length = product(sliceShape(stream, model, i).slice(1));
  return range(model.D).map((d) => [d * size + first, length]);
}

export function encodeStream(symbols, head, model) { // {bytes, stream, parts}: parts name stretches of the bytes
  const count = Math.ceil(head.shape[Number(model.audio)] / head.sliceSize);
  const slices = range(count).map((i) => {
    const parts = slicePart(head, model, i).map(([from, length]) => symbols.subarray(from, from + length));
    const own = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (own.set(part, at), at + part.length), 0);
    return encodeSlice(model.tables, own, sliceShape(head, model, i), model.b).payload;
  });
  const hash = sha256(littleEndian(symbols)).subarray(0, 8); // 10.9
  const payload = [head.kind, head.format, ...varint(head.channels), ...head.sizes.flatMap(varint)]; // 10.5
  if (head.kind === 1) payload.push(...varint(head.rate));
  if (head.kind === 1 || head.format === 5) payload.push(...bytesOf(Float64Array, head.mean, head.gain));
  payload.push(...model.identity.subarray(0, 16), model.J, ...varint(model.D), model.b);
  payload.push(...bytesOf(Uint32Array, head.step * 65536), Number(head.weighted));
  if (head.kind === 0) payload.push(...varint(head.window), ...(head.window ? varint(head.context) : []));
  payload.push(...varint(head.sliceSize), ...hash);
  const first = checked([1, ...varint(payload.length), ...payload]);
  const table = [...varint(count), ...slices.flatMap((slice) => [...varint(slice.length), ...bytesOf(Uint32Array, crc32(slice))])];
  const total = slices.reduce((sum, slice) => sum + slice.length, table.length + 4);
  const second = checked([2, ...varint(total), ...table]);
  const bytes = Uint8Array.from([0x89, 0x57, 0x4c, 0x43, 1, ...first, ...second, ...slices.flatMap((slice) => [...slice])]);
  const parts = [["magic bytes and version", 5], ["HEAD", first.length], ["SLICES, table of lengths and checksums", second.length]];
  slices.forEach((slice, i) => parts.push([`slice ${i}`, slice.length]));
  let at = 0;
  return { bytes, stream: { ...head, hash, slices }, parts: parts.map(([name, length]) => ({ name, from: at, to: (at += length) })) };
}

export function mend(bytes, parts) { // damaged bytes with checksums that fit again, so that a reader goes on
  const out = bytes.slice(), put = (at, sum) => out.set(bytesOf(Uint32Array, sum), at);
  const [, head, table, ...slices] = parts, where = new Reader(out, table.from + 1);
  put(head.to - 4, crc32(out.subarray(head.from, head.to - 4)));
  where.varint(), where.varint();
  for (const slice of slices) {
    where.varint();
    put(where.at, crc32(out.subarray(slice.from, slice.to)));
    where.at += 4;
  }
  put(table.to - 4, crc32(out.subarray(table.from, table.to - 4)));
  return out;
}

export function wanted(bytes) { // the first 16 bytes of the identity of the model that a stream wants, in hexadecimal
  const r = new Reader(bytes, 5);
  r.u8(), r.varint();
  const kind = r.u8(), format = r.u8();
  r.varint();
  for (let i = 0; i < [2, 1, 3][kind]; i++) r.varint();
  if (kind === 1) r.varint();
  if (kind === 1 || format === 5) r.take(16);
  return [...r.take(16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- bytes to symbols, whatever they are, and symbols to samples

export function readSymbols(stream, model) { // {symbols, failed}: what the slices hold up to their faults, named by slice
  const symbols = new Int16Array(product(stream.shape, model.D)), failed = [];
  stream.slices.forEach((payload, i) => {
    const shape = sliceShape(stream, model, i), own = new Int16Array(product(shape));
    try {
      const slice = new Slice(model.tables, payload);
      slice.walk(shape[0], ...[1, ...shape.slice(1)].slice(-3), model.b, own);
      slice.finish();
    } catch (error) {
      failed.push({ slice: i, clause: error.message });
    }
    let at = 0;
    for (const [from, length] of slicePart(stream, model, i)) symbols.set(own.subarray(at, (at += length)), from);
  });
  return { symbols, failed };
}

export function toBands(latents, stream, model) { // latents to subbands by a matrix, 5.2; for audio without the borders (11.10)
  if (!model.audio) return network(latents, stream.shape, { window: 0 }, model);
  const l = stream.shape[1], inner = new Float64Array(model.D * (l - 2));
  for (let d = 0; d < model.D; d++) inner.set(latents.subarray(d * l + 1, (d + 1) * l - 1), d * (l - 2));
  return project(inner, model.tensors["decoder.1.weight"], model.tensors["decoder.1.bias"]);
}

export function reconstruct(symbols, stream, model) { // {latents, bands, samples}
  const latents = dequantise(symbols, stream, model), bands = toBands(latents, stream, model);
  const x = synthesise(bands, model.audio ? [1, stream.shape[1] - 2] : stream.shape, model);
  return { latents, bands, samples: toSamples(x, stream, model) };
}

export function psnr(samples, original, head) { // in decibels, over the range of the signal
  let sum = 0;
  for (let i = 0; i < samples.length; i++) sum += (signalOf(samples[i], head) - signalOf(original[i], head)) ** 2;
  return sum ? -10 * Math.log10(sum / samples.length) : Infinity;
}
