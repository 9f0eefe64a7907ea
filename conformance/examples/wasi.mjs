// Runs a program that was compiled to WebAssembly (WASI) in Node, as if it were a command of this machine.
//
//     clang --target=wasm32-wasi --sysroot=/usr -O3 -Wl,-z,stack-size=1048576 -o decoder.wasm decoder.c
//     node --no-warnings wasi.mjs decoder.wasm decode stream MODEL.safetensors IN.wlc OUT.npy
//     node --no-warnings wasi.mjs decoder.wasm --serve                      the suite's lines, an instance for each

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { WASI } from "node:wasi";

const [program, ...words] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(program));

function run(words) { // its exit code
  const wasi = new WASI({ version: "preview1", args: [program, ...words], preopens: { "/": "/" }, returnOnExit: true });
  return wasi.start(new WebAssembly.Instance(module, { wasi_snapshot_preview1: wasi.wasiImport }));
}

if (words[0] === "--serve") {
  for await (const line of createInterface({ input: process.stdin })) {
    const code = run(line.split("\t"));
    console.log({ 0: "ok", 10: "rejected", 11: "unsupported" }[code] ?? `exit code ${code}`);
  }
} else {
  process.exitCode = run(words);
}
