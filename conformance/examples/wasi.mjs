// Runs a program that was compiled to WebAssembly (WASI) in Node, as if it were a command of this machine.
//
//     clang --target=wasm32-wasi --sysroot=/usr -O3 -Wl,-z,stack-size=1048576 -o decoder.wasm decoder.c
//     node --no-warnings wasi.mjs decoder.wasm decode stream MODEL.safetensors IN.wlc OUT.npy

import { readFileSync } from "node:fs";
import { WASI } from "node:wasi";

const [program, ...words] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...words], preopens: { "/": "/" }, returnOnExit: true });
const { instance } = await WebAssembly.instantiate(readFileSync(program), { wasi_snapshot_preview1: wasi.wasiImport });
process.exitCode = wasi.start(instance);
