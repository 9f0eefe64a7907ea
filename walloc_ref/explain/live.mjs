// A part of a file, decoded and coded anew in the page: what the reader changes (symbols, planes, step, rounding, bits) goes
// through `encoder.mjs` and `decoder.mjs`, stage by stage, and every stage is drawn.

import { ARRAYS, Rejected, littleEndian, parseStream, planeSteps, readTables, sha256 } from "./decoder.mjs";
import { analyse, encodeStream, mend, psnr, readSymbols, reconstruct, signalOf, toSignal, toSymbols, wanted } from "./encoder.mjs";

const product = (numbers, first = 1) => numbers.reduce((a, b) => a * b, first);
const range = (n) => [...Array(n).keys()];
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

// ---- the codec that the page takes along

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

const hexadecimal = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function modelOf(content) { // as `readModel` makes it, with a matrix for the decoder
  const { config } = content, D = config.latent_dim * (config.num_stages ?? 1), b = config.latent_bits;
  const axes = { Codec1D: 1, LinearCodec3D: 3 }[config.architecture] ?? 2, tensors = {};
  for (const [name, text] of Object.entries(content.tensors)) {
    tensors[name] = Float64Array.from(new Float32Array(fromBase64(text).buffer)); // little-endian machines, as all browsers' are
  }
  const identity = Uint8Array.from(content.identity.match(/../g), (byte) => parseInt(byte, 16));
  const wire = { ...config, D, b, axes, audio: axes === 1, identity, weights: fromBase64(content.weights) };
  wire.tables = readTables(fromBase64(content.tables), D, b, axes);
  const linear = content.own || axes === 1 ? {} : { architecture: "LinearCodec2D" }; // what decodes here
  return { wire, model: { ...wire, ...linear, tensors } };
}

export function samplesOf(format, bytes) { // typed as the decoder types them
  return new ARRAYS[format](bytes.slice().buffer);
}

// ---- a part of a file, and what the reader did to it

const CLAUSES = {
  1.6: "a length is not written in its shortest form",
  10.1: "the first bytes are not those of a stream",
  10.2: "a section's checksum does not fit its bytes",
  10.3: "sections are missing, or out of order",
  10.4: "a section is of a kind that nobody knows",
  10.5: "the header names a kind or a format that does not exist, or not for this model",
  10.6: "a field of the header is out of its range",
  10.7: "the header contradicts the model",
  10.8: "lengths or checksums of the slices do not fit their bytes",
  10.9: "the symbols are not those that were hashed",
  12.4: "the header promises more samples than are decoded",
  12.5: "the slice is too short for its symbols",
  7.1: "the shape of a slice is not that of the model",
  "7.10": "a residual leads out of the range of symbols",
  7.13: "the coder is not where it should be when the bytes end",
  8.8: "the header names another model",
  truncated: "it ends too early",
};
const because = (clause) => `${CLAUSES[clause] ?? "it breaks a rule"} (${/^\d/.test(clause) ? `SPEC.md ${clause}` : clause})`;

export class Bench { // the codec on a bench: `change` it, then ask for symbols, bytes, samples
  constructor(content) {
    Object.assign(this, modelOf(content), { content });
    this.open(fromBase64(content.stream));
    this.take(samplesOf(this.head.format, fromBase64(content.samples)));
  }
  take(original) { // the samples that were coded
    this.original = original;
    this.source = analyse(toSignal(original, this.head, this.model), this.model);
    this.latents = toSymbols(this.source, this.head, this.model).latents;
  }
  open(bytes) { // raises Rejected
    const head = parseStream(bytes, this.wire);
    const { symbols, failed } = readSymbols(head, this.model);
    if (failed.length) throw new Rejected(failed[0].clause);
    if (hexadecimal(sha256(littleEndian(symbols)).subarray(0, 8)) !== hexadecimal(head.hash)) throw new Rejected("10.9");
    [this.head, this.given, this.first] = [head, symbols, bytes];
    [this.original, this.source, this.latents] = [null, null, null];
    this.undo();
  }
  undo() {
    [this.step, this.rounding] = [this.head.step, true];
    [this.edits, this.out, this.flips] = [new Map(), new Set(), new Map()];
    this.requantise();
  }
  requantise() { // step and rounding to symbols
    const step = Math.round(this.step * 65536) / 65536, same = step === this.head.step;
    this.coding = same ? this.head : { ...this.head, step, weighted: Number(step > 1 && this.content.weighs) };
    this.base = same && this.rounding ? this.given : toSymbols(this.source, this.coding, this.model, this.rounding).symbols;
  }
  get planeSize() {
    return this.base.length / this.model.D;
  }
  get symbols() { // what is coded: the quantiser's, less the planes left out, with what was painted
    const symbols = this.base.slice();
    for (const [place, k] of this.edits) symbols[place] = k;
    for (const d of this.out) symbols.fill(0, d * this.planeSize, (d + 1) * this.planeSize);
    return symbols;
  }
  encode() { // {bytes, stream, parts}, before any damage
    return encodeStream(this.symbols, this.coding, this.wire);
  }
  damaged(written) {
    const bytes = written.bytes.slice();
    for (const [place, bits] of this.flips) bytes[place] ^= bits;
    return bytes;
  }
  read(bytes, parts, lenient) { // {stream, symbols, failed, differs}: strictly, or in spite of checksums; raises Rejected
    if (!lenient) {
      const stream = parseStream(bytes, this.wire), read = readSymbols(stream, this.model);
      if (read.failed.length) throw new Rejected(read.failed[0].clause);
      if (hexadecimal(sha256(littleEndian(read.symbols)).subarray(0, 8)) !== hexadecimal(stream.hash)) throw new Rejected("10.9");
      return { stream, ...read, differs: 0 };
    }
    const stream = parseStream(mend(bytes, parts), this.wire);
    if (stream.samples > 2 ** 21) throw new Rejected("12.4");
    const read = readSymbols(stream, this.model), now = this.symbols;
    const differs = now.length === read.symbols.length ? read.symbols.reduce((sum, k, i) => sum + Number(k !== now[i]), 0) : read.symbols.length;
    return { stream, ...read, differs };
  }
}

// ---- pictures

const POSITIVE = [205, 104, 38], NEGATIVE = [45, 112, 190];

function paint(canvas, width, height, colour) { // colour(x, y) to [r, g, b, opacity]
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let y = 0, at = 0; y < height; y++) for (let x = 0; x < width; x++, at += 4) image.data.set(colour(x, y), at);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const signed = (value, largest) => {
  const share = clamp(value / (largest || 1), -1, 1);
  return [...(share > 0 ? POSITIVE : NEGATIVE), 255 * Math.sqrt(Math.abs(share))];
};
const largestOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const bandOfRank = (rank) => rank ^ (rank >> 1); // subbands in the order of their frequencies

function bandAt(ranks, J) { // the number, within a channel, of the subband with these ranks along the axes (4.4, 4.6)
  let found = 0;
  ranks.forEach((rank, axis) => {
    for (let level = 0; level < J; level++) found |= ((bandOfRank(rank) >> level) & 1) << (ranks.length * level + axis);
  });
  return found;
}

function waveform(canvas, samples, channels, value, colour) { // the extremes of every column, all channels together
  const width = 640, height = 200, context = canvas.getContext("2d"), frames = samples.length / channels;
  [canvas.width, canvas.height] = [width, height];
  context.fillStyle = `rgb(${colour})`;
  for (let x = 0; x < width; x++) {
    let [low, high] = [Infinity, -Infinity];
    for (let i = Math.floor((x * frames) / width) * channels; i < Math.max(1, Math.floor(((x + 1) * frames) / width)) * channels && i < samples.length; i++) {
      const v = value(i);
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    if (low <= high) context.fillRect(x, height * (0.5 - high), 1, Math.max(1, height * (high - low)));
  }
}

// ---- the figure

export function start(here, content) {
  const find = (selector) => here.querySelector(selector), canvas = (name) => find(`[data-canvas="${name}"]`);
  const figure = find("[data-desk]"), check = find("[data-check]");
  const bench = new Bench(content), { model } = bench, { D } = model, L = 2 ** (model.b - 1) - 1;
  const kind = ["image", "audio", "volume"][bench.head.kind];
  let plane = 0, place = 0, depth = 0, at = 0, page = 0, written = null, result = null, shownSymbols = null, later = 0, soon = 0;
  figure.dataset.kind = kind;

  // -- what Python found, once
  const began = performance.now();
  bench.open(bench.first);
  const decoded = reconstruct(bench.given, bench.head, model), took = performance.now() - began;
  bench.take(samplesOf(bench.head.format, fromBase64(content.samples)));
  const same = hexadecimal(sha256(littleEndian(decoded.samples))) === content.sha256;
  const units = { image: "pixels", audio: "frames", volume: "voxels" }[kind];
  check.textContent = `${same ? "Checked" : "Not as it should be"}: this page decoded ${bench.first.length} bytes in ${Math.round(took)} ms, and its ${decoded.samples.length} samples are ${same ? "" : "not "}those that Python decoded by the same matrix.`;
  check.classList.add(same ? "good" : "bad");
  const text = (parts) => parts.filter(Boolean).join(" ");
  const sizes = [...bench.head.sizes].reverse().join("×");
  const whole = [...content.whole].reverse().join("×") === sizes;
  find("[data-about]").textContent = text([
    whole ? `The whole file is here, ${sizes} ${units}.` : `It works on a part of the file, ${sizes} of its ${[...content.whole].reverse().join("×")} ${units}, where the most symbols are not 0.`,
    content.own ? "" : `The decoder of ${content.name} is a network, too large for a page: what decodes here is the matrix that belongs to its encoder, its transpose but for scales. Symbols and bytes are the same. ${content.psnr === null ? "" : `By its network Python decodes this part at ${content.psnr.toFixed(2)} dB.`}`,
    content.original ? "" : "The original is not known: what Python decoded stands in for it.",
  ]);
  figure.hidden = false;
  for (const part of here.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== kind;

  // -- geometry: symbols of a plane as seen (columns, rows), and where they lie
  const shape = () => bench.coding.shape;
  const columns = () => shape().at(-1), rows = () => (kind === "audio" ? D : shape().at(-2));
  const positionOf = () => (kind === "volume" ? Math.min(Math.floor((depth + ((shape()[0] * 2 ** model.J - bench.head.sizes[0]) >> 1)) / 2 ** model.J), shape()[0] - 1) : 0);
  const cell = (x, y, d = plane) => (kind === "audio" ? y * columns() + x : d * bench.planeSize + (positionOf() * rows() + y) * columns() + x);
  const planeOf = (index) => Math.floor(index / bench.planeSize);

  // -- drawing
  const largestSource = bench.source && largestOf(bench.source.subarray(bench.source.length / 64));
  const meanOf = (values) => values.reduce((sum, v) => sum + Math.abs(v), 0) / values.length;
  let bandScale = bench.source ? 8 * meanOf(bench.source) || largestSource : 1;

  function drawPicture() {
    const { samples, stream } = result, shown = find("input[name=live-shown]:checked").value, target = canvas("picture");
    const original = bench.original && bench.original.length === samples.length ? bench.original : null;
    const of = shown === "original" && original ? original : samples;
    const value = (i) => signalOf(of[i], stream), off = (i) => (original ? signalOf(samples[i], stream) - signalOf(original[i], stream) : 0);
    target.setAttribute("aria-label", `${shown === "difference" ? "Difference of decoded and original" : shown}, ${[...stream.sizes].reverse().join(" by ")} ${units}`);
    if (kind === "audio") {
      const loudest = largestOf(Float64Array.from({ length: samples.length }, (_, i) => off(i)));
      if (shown === "difference") waveform(target, samples, stream.channels, (i) => (0.48 * off(i)) / (loudest || 1), POSITIVE);
      else waveform(target, of, stream.channels, (i) => 0.98 * value(i), shown === "original" ? NEGATIVE : POSITIVE);
      return;
    }
    const [h, w] = stream.sizes.slice(-2), C = stream.channels, first = kind === "volume" ? Math.min(depth, stream.sizes[0] - 1) * h * w : 0;
    const channels = C >= 3 ? [0, 1, 2] : [0, 0, 0];
    paint(target, w, h, (x, y) => {
      const i = (first + y * w + x) * C;
      return [...channels.map((c) => (shown === "difference" ? 127.5 + 255 * 4 * off(i + c) : 255 * (value(i + c) + 0.5))), 255];
    });
  }

  function drawPlane() {
    const symbols = shownSymbols, largest = Math.max(4, largestOf(symbols) / 3), target = canvas("plane");
    paint(target, columns(), rows(), (x, y) => signed(symbols[cell(x, y)], largest));
    if (kind === "audio") target.style.height = `${clamp(rows() * 0.4, 8, 22)}rem`;
    target.setAttribute("aria-label", kind === "audio" ? `Symbols: ${D} planes by ${columns()} positions` : `Plane ${plane}: ${rows()} rows by ${columns()} columns of symbols`);
    find("[data-do=zero]").setAttribute("aria-pressed", bench.out.has(plane));
    find("[data-do=zero]").textContent = bench.out.has(plane) ? `Plane ${plane} back in` : `Leave plane ${plane} out`;
    find("[data-do=solo]").textContent = `Only plane ${plane}`;
  }

  function drawThumbs() {
    if (kind === "audio") return;
    const largest = Math.max(4, largestOf(shownSymbols) / 3);
    [...find("[data-planes]").children].forEach((button, d) => {
      paint(button.firstChild, columns(), rows(), (x, y) => signed(bench.base[cell(x, y, d)] && shownSymbols[cell(x, y, d)] === 0 && bench.out.has(d) ? bench.base[cell(x, y, d)] : shownSymbols[cell(x, y, d)], largest));
      button.setAttribute("aria-pressed", d === plane);
      button.classList.toggle("out", bench.out.has(d));
      button.setAttribute("aria-label", `Plane ${d}${bench.out.has(d) ? ", left out" : ""}`);
    });
  }

  function drawLatents() {
    const before = bench.latents, after = result.latents, usable = before && before.length === after.length;
    const own = kind === "audio" ? [0, after.length] : [plane * bench.planeSize, (plane + 1) * bench.planeSize];
    const largest = largestOf((usable ? before : after).subarray(...own)), shown = (name, value, most) => paint(canvas(name), columns(), rows(), (x, y) => signed(value(cell(x, y)), most));
    const off = (i) => after[i] - before[i];
    let worst = 0;
    if (usable) for (let i = own[0]; i < own[1]; i++) worst = Math.max(worst, Math.abs(off(i)));
    shown("before", (i) => (usable ? before[i] : 0), largest);
    shown("after", (i) => after[i], largest);
    shown("error", (i) => (usable ? off(i) : 0), worst);
    for (const name of ["before", "after", "error"]) canvas(name).style.height = kind === "audio" ? "6rem" : "";
    const step = planeSteps(bench.coding, model)[plane];
    find("[data-note=latents]").textContent = `${kind === "audio" ? "All planes" : `Plane ${plane}`}, before the companding quantiser and after it; the step of plane ${plane} is ${step.toFixed(2)}. The largest latent is ${largest.toFixed(2)}${usable ? `, the largest error ${worst.toFixed(2)}; the third picture shows errors at their own scale` : ""}.`;
  }

  function drawBands() {
    const side = 2 ** model.J;
    for (const [name, bands] of [["bands-before", bench.source], ["bands-after", result.bands]]) {
      if (!bands || bands.length !== result.bands.length) {
        paint(canvas(name), 1, 1, () => [0, 0, 0, 0]);
        continue;
      }
      if (kind === "audio") { // a scalogram, high frequencies above, all channels together
        const n = columns() - 2, largest = 16 * bandScale;
        paint(canvas(name), n, side, (x, y) => {
          let power = 0;
          for (let c = 0; c < model.channels; c++) power += bands[(c * side + bandOfRank(side - 1 - y)) * n + x] ** 2;
          return [...POSITIVE, 255 * clamp(1 + (10 * Math.log10(power / largest ** 2 + 1e-12)) / 66, 0, 1)];
        });
        canvas(name).style.height = "11rem";
        continue;
      }
      const h = rows(), w = columns(), K = side ** model.axes, channel = model.channels >> 1;
      paint(canvas(name), w * side, h * side, (x, y) => {
        const ranks = [Math.floor(y / h), Math.floor(x / w)], band = bandAt(kind === "volume" ? [0, ...ranks] : ranks, model.J);
        const depths = kind === "volume" ? shape()[0] : 1;
        return signed(bands[(((channel * K + band) * depths + positionOf()) * h + (y % h)) * w + (x % w)], bandScale);
      });
    }
  }

  function drawNumbers() {
    const { stream, samples } = result, comparable = bench.original && bench.original.length === samples.length;
    const bytes = written ? written.bytes.length : 0;
    find("[data-fact=bytes]").textContent = written ? bytes : "…";
    find("[data-fact=ratio]").textContent = written ? `${(samples.byteLength / bytes).toFixed(1)}:1` : "…";
    const quality = comparable ? psnr(samples, bench.original, stream) : NaN;
    find("[data-fact=psnr]").textContent = comparable ? (Number.isFinite(quality) ? quality.toFixed(2) : "∞") : "–";
    find("[data-fact=time]").textContent = Math.round(result.took);
  }

  function drawAll() {
    drawPicture();
    drawPlane();
    drawThumbs();
    drawLatents();
    drawBands();
    drawNumbers();
    say();
  }

  function decodeFrom(symbols, stream) {
    const from = performance.now();
    shownSymbols = symbols;
    result = { ...reconstruct(symbols, stream, model), stream };
    result.took = performance.now() - from;
  }

  // -- a change: symbols and picture at the next frame, bytes a little later
  function changed() {
    bench.flips.clear();
    cancelAnimationFrame(soon);
    soon = requestAnimationFrame(() => {
      decodeFrom(bench.symbols, bench.coding);
      verdict("");
      drawAll();
    });
    clearTimeout(later);
    later = setTimeout(write, 150);
  }

  function write() {
    const previous = written;
    written = bench.encode();
    if (!previous || previous.parts.length !== written.parts.length) listParts();
    if (previous?.bytes.length !== written.bytes.length) at = Math.min(at, written.bytes.length - 1);
    drawNumbers();
    drawHex();
    save();
  }

  function verdict(words, refused = false) {
    const line = find("[data-verdict]"), banner = find("[data-refused]");
    line.textContent = words;
    line.classList.toggle("bad", refused);
    banner.hidden = !refused;
    banner.textContent = refused ? "Refused" : "";
    find(".screen-picture").classList.toggle("stale", refused);
  }

  function damage() { // bits were flipped, or the reader's patience changed
    const lenient = find("[data-lenient]").checked;
    if (!bench.flips.size) {
      decodeFrom(bench.symbols, bench.coding);
      verdict("");
      drawAll();
      drawHex();
      save();
      return;
    }
    const touched = written.parts.filter((part) => [...bench.flips.keys()].some((i) => i >= part.from && i < part.to)).map((part) => part.name);
    const where = touched.join(" and ");
    try {
      const read = bench.read(bench.damaged(written), written.parts, lenient);
      decodeFrom(read.symbols, read.stream);
      const stopped = read.failed.map(({ slice, clause }) => `slice ${slice}: ${because(clause)}`).join("; ");
      verdict(`Bits of ${where} are wrong, and checksums were made to fit. ${read.differs} of ${read.symbols.length} symbols are not those that were coded.${stopped ? ` The coder gave up in ${stopped}.` : ""}`);
      drawAll();
    } catch (error) {
      if (!(error instanceof Rejected || error instanceof RangeError)) throw error;
      verdict(`The stream is refused, for bits of ${where} are wrong: ${because(error.message)}. Nothing of it is decoded${lenient ? "" : ", unless you let it be read on"}.`, true);
    }
    drawHex();
    save();
  }

  // -- symbols: pointer and keys
  function say() {
    const line = find("[data-say-symbol]"), cursor = find("[data-cursor]"), [x, y] = [place % columns(), Math.floor(place / columns())];
    const index = cell(x, y), d = kind === "audio" ? y : plane;
    cursor.hidden = !say.used;
    Object.assign(cursor.style, { left: `${(100 * x) / columns()}%`, top: `${(100 * y) / rows()}%`, width: `${100 / columns()}%`, height: `${100 / rows()}%` });
    if (say.used) line.textContent = `Plane ${d}, ${kind === "audio" ? `position ${x}` : `row ${y}, column ${x}`}: symbol ${shownSymbols[index]}, latent ${result.latents[index].toFixed(3)}.`;
  }

  function set(x, y, k) {
    const index = cell(x, y);
    if (kind === "audio") plane = y;
    bench.out.delete(plane);
    bench.edits.set(index, clamp(k, -L, L));
    place = y * columns() + x;
    say.used = true;
    changed();
  }

  const easel = canvas("plane"), brush = find("[data-brush]");
  Object.assign(brush, { min: -L, max: L, value: Math.min(L, 8) });
  const brushSays = () => (find("[data-brush-says]").textContent = brush.value.replace("-", "−"));
  brush.addEventListener("input", brushSays);
  brushSays();
  let last = null;
  const under = (event) => {
    const box = easel.getBoundingClientRect();
    return [clamp(Math.floor(((event.clientX - box.left) / box.width) * columns()), 0, columns() - 1), clamp(Math.floor(((event.clientY - box.top) / box.height) * rows()), 0, rows() - 1)];
  };
  const stroke = (event) => {
    const [x, y] = under(event), [x0, y0] = last ?? [x, y], steps = Math.max(Math.abs(x - x0), Math.abs(y - y0), 1);
    for (let i = last ? 1 : steps; i <= steps; i++) set(Math.round(x0 + ((x - x0) * i) / steps), Math.round(y0 + ((y - y0) * i) / steps), Number(brush.value));
    last = [x, y];
  };
  easel.addEventListener("pointerdown", (event) => {
    easel.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  easel.addEventListener("pointermove", (event) => event.buttons && last && stroke(event));
  easel.addEventListener("pointerup", () => (last = null));
  easel.addEventListener("pointercancel", () => (last = null));
  easel.addEventListener("keydown", (event) => {
    let [x, y] = [place % columns(), Math.floor(place / columns())];
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const k = shownSymbols[cell(x, y)], next = { "+": k + 1, "=": k + 1, "-": k - 1, 0: 0, Delete: 0, Enter: Number(brush.value), " ": Number(brush.value) }[event.key];
    if (!move && next === undefined) return;
    event.preventDefault();
    if (next !== undefined) return set(x, y, next);
    [x, y] = [clamp(x + move[0], 0, columns() - 1), clamp(y + move[1], 0, rows() - 1)];
    place = y * columns() + x;
    if (kind === "audio") plane = y;
    say.used = true;
    say();
    drawPlane();
  });

  // -- planes
  if (kind !== "audio") {
    for (const d of range(D)) {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = `<canvas></canvas><span>${d}</span>`;
      button.addEventListener("click", () => {
        plane = d;
        drawPlane();
        drawThumbs();
        drawLatents();
        say();
      });
      find("[data-planes]").append(button);
    }
  }
  const act = {
    zero: () => (bench.out.has(plane) ? bench.out.delete(plane) : bench.out.add(plane), changed()),
    solo: () => ((bench.out = new Set(range(D).filter((d) => d !== plane))), changed()),
    all: () => (bench.out.clear(), changed()),
    reset: () => {
      bench.undo();
      controls();
      changed();
    },
    earlier: () => turn(page - 1),
    later: () => turn(page + 1),
    random: () => {
      const slices = written.parts.filter((part) => part.name.startsWith("slice"));
      const { from, to } = slices[Math.floor(Math.random() * slices.length)];
      at = from + Math.floor(Math.random() * (to - from));
      flip(at, 1 << Math.floor(Math.random() * 8));
    },
    mend: () => (bench.flips.clear(), damage()),
    "play-original": () => play(bench.original),
    "play-decoded": () => play(result.samples),
    stop: () => sound?.stop(),
  };
  for (const button of here.querySelectorAll("[data-do]")) button.addEventListener("click", () => act[button.dataset.do]());

  // -- step and rounding
  const step = find("[data-step]");
  function controls() {
    step.value = Math.log2(bench.step);
    find("[data-step-says]").textContent = bench.step.toFixed(2);
    for (const radio of here.querySelectorAll("[name=live-rounding]")) {
      radio.checked = (radio.value === "round") === bench.rounding;
      radio.disabled = !bench.source;
    }
    step.disabled = !bench.source;
  }
  step.addEventListener("input", () => {
    const nearest = Math.abs(step.value - Math.log2(bench.head.step)) < 0.06;
    bench.step = nearest ? bench.head.step : 2 ** Number(step.value);
    bench.requantise();
    find("[data-step-says]").textContent = bench.step.toFixed(2);
    changed();
  });
  for (const radio of here.querySelectorAll("[name=live-rounding]")) {
    radio.addEventListener("change", () => {
      bench.rounding = radio.value === "round";
      bench.requantise();
      changed();
    });
  }
  for (const radio of here.querySelectorAll("[name=live-shown]")) radio.addEventListener("change", drawPicture);
  const slider = find("[data-slice]");
  slider.addEventListener("input", () => {
    depth = Number(slider.value);
    find("[data-slice-says]").textContent = depth;
    drawAll();
  });

  // -- bytes
  const COLOURS = ["var(--muted)", "var(--good)", "var(--ink)", "var(--accent)", "var(--accent-2)"];
  const PAGE = 192;
  const partOf = (i) => written.parts.findIndex((part) => i >= part.from && i < part.to);

  function listParts() {
    const select = find("[data-go]");
    select.replaceChildren(...written.parts.map((part, i) => new Option(part.name, i)));
  }

  function turn(to) {
    page = clamp(to, 0, Math.ceil(written.bytes.length / PAGE) - 1);
    at = clamp(at, page * PAGE, Math.min((page + 1) * PAGE, written.bytes.length) - 1);
    drawHex();
  }

  function drawHex(focus = false) {
    const bytes = bench.damaged(written), grid = find("[data-hex]");
    page = Math.floor(at / PAGE);
    const from = page * PAGE, to = Math.min(bytes.length, from + PAGE);
    while (grid.children.length > to - from) grid.lastChild.remove();
    while (grid.children.length < to - from) {
      const button = document.createElement("button"), own = grid.children.length;
      button.type = "button";
      button.addEventListener("click", () => {
        at = page * PAGE + own;
        drawHex();
      });
      grid.append(button);
    }
    [...grid.children].forEach((button, i) => {
      const place = from + i, part = partOf(place), flipped = bench.flips.has(place);
      button.textContent = bytes[place].toString(16).padStart(2, "0");
      button.style.setProperty("--part", part < 3 ? COLOURS[part] : COLOURS[3 + ((part - 3) % 2)]);
      button.classList.toggle("flipped", flipped);
      button.setAttribute("aria-current", place === at);
      button.tabIndex = place === at ? 0 : -1;
      button.setAttribute("aria-label", `Byte ${place}, ${bytes[place].toString(16)}, ${written.parts[part].name}${flipped ? ", changed" : ""}`);
    });
    find("[data-range]").textContent = `bytes ${from} to ${to - 1} of ${bytes.length}`;
    find("[data-do=earlier]").disabled = page === 0;
    find("[data-do=later]").disabled = to === bytes.length;
    find("[data-go]").value = partOf(at);
    const bits = find("[data-bits]"), label = document.createElement("span");
    label.textContent = `Byte ${at}, of ${written.parts[partOf(at)].name}:`;
    const buttons = range(8).map((i) => {
      const bit = 7 - i, button = document.createElement("button");
      button.type = "button";
      button.textContent = (bytes[at] >> bit) & 1;
      button.setAttribute("aria-label", `Flip bit ${bit}`);
      button.classList.toggle("flipped", Boolean((bench.flips.get(at) ?? 0) & (1 << bit)));
      button.addEventListener("click", () => {
        flip(at, 1 << bit);
        find("[data-bits]").children[i + 1].focus();
      });
      return button;
    });
    bits.replaceChildren(label, ...buttons);
    if (focus) grid.children[at - from].focus();
  }

  function flip(where, bits) {
    const now = (bench.flips.get(where) ?? 0) ^ bits;
    if (now) bench.flips.set(where, now);
    else bench.flips.delete(where);
    damage();
  }

  find("[data-hex]").addEventListener("keydown", (event) => {
    const across = getComputedStyle(find("[data-hex]")).gridTemplateColumns.split(" ").length;
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, PageDown: PAGE, PageUp: -PAGE }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      flip(at, 1);
      drawHex(true);
    } else if (move) {
      event.preventDefault();
      at = clamp(at + move, 0, written.bytes.length - 1);
      drawHex(true);
    }
  });
  find("[data-go]").addEventListener("change", (event) => {
    at = written.parts[event.target.value].from;
    drawHex();
  });
  find("[data-lenient]").addEventListener("change", damage);

  // -- sound
  let sound = null;
  function play(samples) {
    sound?.stop();
    const { channels, rate } = bench.head, frames = samples.length / channels, context = (play.context ??= new AudioContext());
    const buffer = context.createBuffer(channels, frames, clamp(rate, 8000, 96000)), loud = 2 * largestOf(Float64Array.from({ length: samples.length }, (_, i) => signalOf(samples[i], bench.head)));
    for (let c = 0; c < channels; c++) buffer.getChannelData(c).set(Float32Array.from({ length: frames }, (_, i) => (0.9 * 2 * signalOf(samples[i * channels + c], bench.head)) / Math.max(loud, 0.1)));
    sound = context.createBufferSource();
    sound.buffer = buffer;
    sound.connect(context.destination);
    sound.start();
  }

  // -- files
  let kept = "";
  function save() {
    URL.revokeObjectURL(kept);
    kept = URL.createObjectURL(new Blob([bench.damaged(written)], { type: "application/octet-stream" }));
    find("[data-save]").href = kept;
  }

  function note(words) {
    find("[data-note=file]").textContent = words;
  }

  async function load(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    try {
      if (hexadecimal(bytes.subarray(0, 4)) !== "89574c43") throw new Rejected("10.1");
      const model = wanted(bytes);
      if (!content.identity.startsWith(model)) return note(`${file.name} was made by another model, ${model}; this page has ${content.name}, ${content.identity.slice(0, 32)}.`);
      if (parseStream(bytes, bench.wire).samples > 2 ** 21) return note(`${file.name} has more than ${2 ** 21} samples, too many for a page.`);
      bench.open(bytes);
    } catch (error) {
      if (!(error instanceof Rejected || error instanceof RangeError)) throw error;
      return note(`${file.name} is refused: ${because(error.message)}.`);
    }
    note(`${file.name} is on the desk. Its original is not known, so step and rounding stay as they are; PSNR compares with what it decoded to.`);
    bench.original = reconstruct(bench.given, bench.head, bench.model).samples;
    settle();
  }

  find("[data-open]").addEventListener("change", (event) => event.target.files[0] && load(event.target.files[0]));
  for (const name of ["dragenter", "dragover"]) {
    figure.addEventListener(name, (event) => {
      event.preventDefault();
      figure.classList.add("drop");
    });
  }
  figure.addEventListener("dragleave", () => figure.classList.remove("drop"));
  figure.addEventListener("drop", (event) => {
    event.preventDefault();
    figure.classList.remove("drop");
    if (event.dataTransfer.files[0]) load(event.dataTransfer.files[0]);
  });

  // -- begin
  function settle() {
    [place, at, depth, say.used, written] = [0, 0, kind === "volume" ? bench.head.sizes[0] >> 1 : 0, false, null];
    Object.assign(slider, { max: bench.head.sizes[0] - 1, value: depth });
    find("[data-slice-says]").textContent = depth;
    find("[data-note=symbols]").textContent = kind === "audio"
      ? `${D} planes, one a row, over ${columns()} positions in time. Blue is below 0, orange above.`
      : `${D} planes of ${columns()}×${rows()} symbols${kind === "volume" ? ", at the depth of the slice shown" : ""}, integers from −${L} to ${L}. Blue is below 0, orange above. Choose a plane; paint on it below.`;
    find("[data-note=bands]").textContent = kind === "audio"
      ? `What a matrix makes of the latents: ${2 ** model.J} subbands of ${model.channels === 1 ? "the channel" : "each channel, the channels together"}, high frequencies above, over 66 dB.`
      : `What a matrix makes of the latents: the subbands of channel ${model.channels >> 1}, frequencies rising to the right and downwards${kind === "volume" ? ", the lowest in depth" : ""}.`;
    controls();
    decodeFrom(bench.given, bench.head);
    verdict("");
    write();
    find("[data-note=bytes]").textContent = `The stream as it is written, ${written.parts.length - 3} slices: the line under a byte tells its part. One flipped bit in a slice and its checksum does not fit; read on in spite of it, and all that the slice still holds is rubbish from there, for the coder has lost its place. The other slices are whole.`;
    drawAll();
  }
  settle();
  return bench;
}
