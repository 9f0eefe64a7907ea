"""The part of a page that computes: its scripts in Node, on what Python embeds, and the page in a headless browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from walloc_ref import Codec, load_model
from walloc_ref import codec as codecs
from walloc_ref.conform import suite
from walloc_ref.explain import live, page
from walloc_ref.model import load

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "conformance" / "models"
PAGE_BYTES = 1_200_000

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")

pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="not in a checkout")


def picture(height, width, channels):
    y, x = np.mgrid[:height, :width]
    shades = [np.sin(x / (5 + c) + y / 17) * np.cos(y / (9 + c)) for c in range(channels)]
    noise = np.random.default_rng(1).normal(0, 4, (height, width, channels))
    return np.clip(128 + 90 * np.stack(shades, -1) + noise, 0, 255).astype(np.uint8)


def sound(frames, channels):
    t = np.arange(frames)[:, None] / 44100
    chord = np.sin(2 * np.pi * np.array([220, 331])[:channels] * t) * np.exp(-3 * (2 * t % 1))
    return (12000 * chord + np.random.default_rng(2).normal(0, 80, (frames, channels))).astype(np.int16)


def solid(depth, height, width):
    z, y, x = np.mgrid[:depth, :height, :width]
    return (128 + 100 * np.sin(z / 5 + y / 9) * np.cos(x / 7)).astype(np.uint8)


def bundled(name):
    return load_model(name)


def of_suite(name):
    return Codec(load(MODELS / f"{name}.safetensors"))


CASES = {
    "linear": lambda: (bundled("linear_rgb_4x"), picture(300, 280, 3), {"step": 1.5}),
    "whole": lambda: (of_suite("linear"), picture(23, 21, 3), {}),
    "network": lambda: (bundled("rgb_16x"), picture(400, 420, 3), {}),
    "grey": lambda: (bundled("linear_rgb_4x"), picture(100, 90, 1), {}),
    "u16": lambda: (of_suite("linear-j3"), picture(61, 50, 3).astype(np.uint16) * 255, {"step": 2.0}),
    "floats": lambda: (of_suite("linear-200"), picture(20, 30, 200).astype(np.float32) / 7, {}),
    "stages": lambda: (of_suite("residual-3"), picture(40, 30, 1), {"step": 1.25}),
    "audio": lambda: (bundled("stereo_20x"), sound(80000, 2), {"rate": 44100}),
    "mono": lambda: (bundled("stereo_20x"), sound(9000, 1), {"rate": 22050}),
    "volume": lambda: (of_suite("volume"), solid(19, 70, 66), {}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    codec, samples, options = CASES[request.param]()
    return codec, samples, codec.encode(samples, **options)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The three modules beside each other, as the page's addresses have them."""
    folder = tmp_path_factory.mktemp("modules")
    shutil.copy(suite.default_folder() / "examples" / "decoder.mjs", folder)
    for name in live.SCRIPTS:
        (folder / name).write_text(live._part(name), encoding="utf-8")
    return folder


def content_of(section):
    found = re.search(r'<script type="application/json" data-live>(.*?)</script>', section, re.DOTALL)
    return json.loads(found[1])


SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
const [content, out] = process.argv.slice(2), { Bench, fromBase64 } = await import("./live.mjs");
const { decodeStream, littleEndian, sha256, Rejected } = await import("./decoder.mjs");
const { reconstruct, psnr } = await import("./encoder.mjs");
const known = JSON.parse(readFileSync(content)), bench = new Bench(known), answers = {};
const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);
const hash = (array) => [...sha256(littleEndian(array))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const decoded = reconstruct(bench.given, bench.head, bench.model).samples;
answers.samples = hash(decoded) === known.sha256;
answers.psnr = psnr(decoded, bench.original, bench.head);
answers.bytes = same(bench.encode().bytes, fromBase64(known.stream));
const { toSymbols } = await import("./encoder.mjs");
answers.symbols = same(toSymbols(bench.source, bench.head, bench.model).symbols, bench.given);
const write = (name) => {
  const written = bench.encode();
  writeFileSync(`${out}.${name}.wlc`, written.bytes);
  writeFileSync(`${out}.${name}.symbols`, littleEndian(bench.symbols));
  return written;
};
bench.step = 2.75;
bench.requantise();
write("step");
[bench.step, bench.rounding] = [bench.head.step, false];
bench.requantise();
write("truncated");
const first = bench.given.length / (bench.model.num_stages ?? 1); // what a stage leaves, the next ones code
answers.truncated = bench.symbols.subarray(0, first).every((k, i) => Math.abs(k) <= Math.abs(bench.given[i]));
bench.undo();
bench.edits.set(3, 1), bench.edits.set(bench.given.length - 1, -1);
bench.out.add(1);
write("edited");
bench.undo();
const written = bench.encode(), slice = written.parts.at(-1);
bench.flips.set(slice.from + ((slice.to - slice.from) >> 1), 16);
try {
  bench.read(bench.damaged(written), written.parts, false);
} catch (error) {
  answers.refused = error instanceof Rejected && error.message;
}
const read = bench.read(bench.damaged(written), written.parts, true);
answers.damaged = [read.differs, read.failed.map(({ slice }) => slice)];
answers.slices = written.parts.length - 3;
console.log(JSON.stringify(answers));
"""


@needs_node
def test_the_page_codes_and_decodes_as_python_does(case, modules, tmp_path):
    codec, samples, data = case
    section = live.section(data, codec.model, samples)
    content = content_of(section)
    (tmp_path / "content.json").write_text(json.dumps(content))
    (modules / "test.mjs").write_text(SCRIPT)
    words = ["node", modules / "test.mjs", tmp_path / "content.json", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["samples"] and answers["symbols"] and answers["bytes"] and answers["truncated"]
    assert answers["refused"] == "10.8"
    assert answers["damaged"][0] > 0 and set(answers["damaged"][1]) <= {answers["slices"] - 1}

    window = tuple(slice(at, at + n) for at, n in zip(content["from"], part_sizes(content, codec)))
    part = samples.reshape(*samples.shape[: codec.config.axes], -1)[window]
    extras = {"rate": 44100} if codec.config.kind == "audio" else {}
    for name in ("step", "truncated", "edited"):
        stream = (tmp_path / f"out.{name}.wlc").read_bytes()
        symbols = codecs.decode_symbols(stream, codec=codec)
        assert symbols.astype("<i2").tobytes() == (tmp_path / f"out.{name}.symbols").read_bytes()
        if name == "step":
            assert np.array_equal(symbols, codec.symbols_of_samples(part, **extras, step=2.75))
        if name == "edited":
            assert not symbols[1].any() and symbols.reshape(-1)[3] == 1 and symbols.reshape(-1)[-1] == -1
        codecs.decode_stream(stream, codec=codec)
    if content["own"]:
        assert answers["psnr"] == pytest.approx(content["psnr"], abs=1e-9)


def part_sizes(content, codec):
    return codecs.container.read(base64.b64decode(content["stream"])).header.sizes


@pytest.mark.parametrize(
    "name", ["rgb_4x", "linear_rgb_1x", "rgb_64x", "gray_16x", "stereo_2x", "stereo_5x", "stereo_20x"]
)
def test_bundled_models_are_alive_and_small(name):
    codec = bundled(name)
    samples = sound(60000, 2) if codec.config.kind == "audio" else picture(300, 290, codec.config.channels)
    section = live.section(codec.encode(samples), codec.model, samples)
    assert len(section.encode()) < PAGE_BYTES
    content = content_of(section)
    assert content["identity"] == codec.model_id
    assert not re.search(r"https?://|@import|\bfetch\(|XMLHttpRequest|WebSocket", section)


def test_a_model_with_a_network_for_an_encoder_is_not_alive():
    codec = of_suite("codec2d-full")
    section = live.section(codec.encode(picture(32, 32, 3)), codec.model)
    assert "encoder of this model is a network" in section and "<script" not in section


def test_without_an_original_the_decoded_samples_stand_in():
    codec = of_suite("linear")
    data = codec.encode(picture(40, 30, 3))
    content = content_of(live.section(data, codec.model))
    decoded = codecs.decode_stream(data, codec=codec).samples
    assert not content["original"] and base64.b64decode(content["samples"]) == decoded.tobytes()


def test_the_part_is_where_most_symbols_are():
    codec = of_suite("linear")  # J = 2
    samples = np.full((700, 600, 3), 128, np.uint8)
    samples[420:500, 330:420] = picture(80, 90, 3)
    content = content_of(live.section(codec.encode(samples), codec.model, samples))
    top, left = content["from"]
    height, width = part_sizes(content, codec)
    assert top <= 420 and left <= 330 and top + height >= 500 and left + width >= 420


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("name", ["network", "mono", "volume"])
def test_a_browser_finds_what_python_found(name, tmp_path):
    codec, samples, options = CASES[name]()
    section = live.section(codec.encode(samples, **options), codec.model, samples)
    text = page.page("Title", "", [page.Section("live", "Live", section, whole=True)], "")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += [
        "--virtual-time-budget=60000",
        "--enable-logging=stderr",
        "--dump-dom",
        f"file://{tmp_path / 'page.html'}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    said = html.unescape(re.search(r"data-check[^>]*>(.*?)</p>", done.stdout)[1])
    assert said.startswith("Checked: this page decoded"), said
    assert "CONSOLE" not in done.stderr, done.stderr
    assert re.search(r'data-fact="bytes">\d+<', done.stdout)
