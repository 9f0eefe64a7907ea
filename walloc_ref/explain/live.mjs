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
