"""SPEC.md against reality: its blocks are executed, its constants compared, and the naive codec is held to the package."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest
from models import TINY, depth_tables, photograph, tiny_codec, tiny_model, volume

import walloc_ref
from walloc_ref import audio, errors, image, plain
from walloc_ref import model as models
from walloc_ref.stages import container, entropy, quantise, signal, wavelet

ROOT = Path(__file__).resolve().parent.parent
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(SPEC)
PROSE = BLOCK.sub("", SPEC)
EXAMPLE_CONFIG = {"architecture": "LinearCodec2D", "channels": 1, "J": 0, "latent_dim": 1, "latent_bits": 8}


def constants(name: str) -> list[list[str]]:
    """Rows of words of the block ```constants NAME."""
    (text,) = (text for kind, found, text in BLOCKS if (kind, found) == ("constants", name))
    return [line.split() for line in text.splitlines()]


def power(text: str) -> float:
    """A number that may be written as a power, 2^-30 or 2^40-1."""
    found = re.fullmatch(r"(\d+)\^(-?\d+)(-1)?", text)
    return float(text) if found is None else float(found[1]) ** int(found[2]) + int(found[3] or 0)


# ---- form ----------------------------------------------------------------------------------------------------------


def test_sections_and_clauses_are_numbered_without_gaps():
    sections = [int(n) for n in re.findall(r"^## (\d+) ", PROSE, re.MULTILINE)]
    assert sections == list(range(1, 17))
    clauses = re.findall(r"^\*\*(\d+)\.(\d+)\*\* ", PROSE, re.MULTILINE)
    by_section: dict[int, list[int]] = {}
    for section, clause in clauses:
        by_section.setdefault(int(section), []).append(int(clause))
    assert by_section == {n: list(range(1, len(by_section.get(n, [])) + 1)) for n in sections if n != 15}


def test_references_lead_to_clauses():
    defined = set(re.findall(r"^\*\*(\d+\.\d+)\*\* ", PROSE, re.MULTILINE))
    used = set(re.findall(r"\((\d{1,2}\.\d{1,2})[),]", PROSE)) | set(re.findall(r"\bof (\d{1,2}\.\d{1,2})\b", PROSE))
    assert used <= defined, used - defined
    assert len(used) > 20


def test_docstrings_refer_to_sections_that_exist():
    for path in (ROOT / "walloc_ref").rglob("*.py"):
        for number in re.findall(r"SPEC\.md,? section (\d+)", path.read_text(encoding="utf-8")):
            assert f"\n## {number} " in SPEC, path.name


def test_blocks_are_of_known_kinds():
    assert {kind for kind, _, _ in BLOCKS} == {"text", "python", "example", "constants"}
    assert "@" not in PROSE.replace("`", "")  # no place-holder left
    assert max(map(len, SPEC.splitlines())) <= 180


def test_demands_are_testable():
    """Every MUST stands in a clause that the conformance suite has vectors for (1.1 only explains the word)."""
    manifest = json.loads((ROOT / "conformance" / "manifest.json").read_text(encoding="utf-8"))
    clauses = re.split(r"^\*\*(\d+\.\d+)\*\* ", SPEC, flags=re.MULTILINE)
    demanding = {number for number, text in zip(clauses[1::2], clauses[2::2]) if "MUST" in text} - {"1.1"}
    covered = {clause for case in manifest["cases"] for clause in case["clauses"]}
    assert len(demanding) > 10
    assert demanding <= covered, demanding - covered


def test_binary32_profile_is_that_of_the_suite():
    manifest = json.loads((ROOT / "conformance" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["binary32"]["delta"], manifest["binary32"]["share"]) == (2.0**-13, 1 / 128)
    assert "error of δ = 2^-13 in the signal" in PROSE
    assert "1 in 128" in PROSE


# ---- examples ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    """What examples see: the functions of the document, and beside them those of the naive codec."""
    space = {name: value for name, value in vars(naive).items() if not name.startswith("_")}
    space["EXAMPLE_CONFIG"] = EXAMPLE_CONFIG
    space["EXAMPLE_TENSORS"] = {f"{part}.weight": [1.0] for part in ("encoder.0", "decoder.1")}
    space["EXAMPLE_TENSORS"] |= {f"{part}.bias": [0.0] for part in ("encoder.0", "decoder.1")}
    return {**space, **naive.SPEC}


EXAMPLES = [line for kind, _, text in BLOCKS if kind == "example" for line in text.splitlines()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, names):
    assert eval(example, names) is True


# ---- constants -----------------------------------------------------------------------------------------------------


def test_every_block_of_constants_is_compared():
    compared = set(re.findall(r'constants\("(\w+)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert {name for kind, name, _ in BLOCKS if kind == "constants"} == compared


def test_bounds():
    bounds = {name: power(value) for name, value in constants("bounds")}
    assert bounds.pop("symbols") == 2.0**-30
    assert bounds == {**image.MARGIN_BOUND, **audio.MARGIN_BOUND}


def test_formats():
    rows = constants("formats")
    assert [name for _, name, _, _ in rows] == list(container.SAMPLE_FORMATS)
    assert [int(code) for code, _, _, _ in rows] == list(range(len(rows)))
    for kind in container.KINDS:
        assert tuple(row[1] for row in rows if kind in row[3].split(",")) == container.FORMATS_OF_KIND[kind]
    sizes = {"u8": 1, "u16": 2} | {name: np.dtype(f.dtype).itemsize for name, f in signal.AUDIO_FORMATS.items()}
    assert {name: int(size) for _, name, size, _ in rows} == sizes


def test_taps_are_the_packages_and_pywavelets():
    low, high = naive.SPEC["LO"], naive.SPEC["HI"]
    assert (tuple(low), tuple(high)) == (wavelet.ANALYSIS_LOW, wavelet.ANALYSIS_HIGH)
    pywt = pytest.importorskip("pywt")
    bank = pywt.Wavelet("bior4.4")
    assert [*low[:0:-1], *low] == bank.dec_lo[1:]
    assert [*high[:0:-1], *high] == bank.dec_hi[1:8]
    assert [-((-1) ** i) * high[abs(i)] for i in range(-3, 4)] == bank.rec_lo[1:8]
    assert [-((-1) ** i) * low[abs(i)] for i in range(-4, 5)] == bank.rec_hi[1:]


def test_taps_derive_from_the_half_band_polynomial():
    zeros = np.roots([20, 10, 4, 1])
    (real,) = (z.real for z in zeros if abs(z.imag) < 1e-12)
    pair = next(z for z in zeros if z.imag > 0)
    y, cosine = np.array([-0.25, 0.5, -0.25]), np.array([0.25, 0.5, 0.25])  # in powers of e^(iω)
    cosine = np.convolve(cosine, cosine)
    seven = np.sqrt(2) * np.convolve(cosine, [0, 1, 0] - y / real)
    nine = np.sqrt(2) * np.convolve(
        cosine, [0, 0, 1, 0, 0] - np.pad(2 * y * pair.real / abs(pair) ** 2, 1) + np.convolve(y, y) / abs(pair) ** 2
    )
    low7 = [-((-1) ** i) * naive.SPEC["HI"][abs(i)] for i in range(-3, 4)]
    low9 = [naive.SPEC["LO"][abs(i)] for i in range(-4, 5)]
    assert 5e-13 < np.abs(seven - low7).max() < 6e-13
    assert 5e-13 < np.abs(nine - low9).max() < 6e-13


def test_lifting_computes_the_exact_filters():
    alpha, beta, gamma, delta, zeta = (float(value) for _, value in constants("lifting"))
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 64)
    e, o = x[0::2].copy(), x[1::2].copy()
    o += alpha * (e + np.roll(e, -1))
    e += beta * (np.roll(o, 1) + o)
    o += gamma * (e + np.roll(e, -1))
    e += delta * (np.roll(o, 1) + o)
    low, high = wavelet.analyse(x[None], 1)
    assert 1e-14 < max(np.abs(zeta * e - low).max(), np.abs(-o / zeta - high).max()) < 1e-12


def test_transform_of_a_constant():
    low, high = wavelet.analyse(np.ones((1, 16)), 1)
    assert np.abs(low - math.sqrt(2)).max() < 1e-11
    assert np.abs(high).max() < 1e-11


def test_synthesis_inverts_as_well_as_it_says():
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 64))
    assert 1e-14 < np.abs(wavelet.synthesise(wavelet.analyse(x, 1), 1) - x).max() < 2e-12


def test_thresholds_and_latents():
    numbers = [word for row in constants("quantiser") for word in row]
    rows = [numbers[i : i + 4] for i in range(0, len(numbers), 4)]
    assert {(int(b), int(k)) for b, k, _, _ in rows} == {(b, k) for b in range(2, 9) for k in range(1, 2 ** (b - 1))}
    for b, k, threshold, latent in rows:
        bits, symbol = int(b), int(k)
        last, m, s = naive.companding(bits)
        assert quantise.thresholds(bits)[last + symbol - 1] == pytest.approx(float(threshold), rel=4e-15)
        assert quantise.dequantiser_table(bits)[last + symbol] == pytest.approx(float(latent), rel=4e-15)
        assert m * math.erf(float(threshold) / s / math.sqrt(2)) == pytest.approx(symbol - 0.5, abs=1e-12)
        assert m * math.erf(float(latent) / s / math.sqrt(2)) == pytest.approx(symbol, abs=1e-12)


def test_clamp_of_probabilities_never_acts():
    for bits, outermost in ((2, 0.834), (8, 0.998)):
        last, m, _ = naive.companding(bits)
        assert round(last / (2 * m) + 0.5, 3) == outermost
    assert all(
        quantise.last_symbol(b) / (2 * quantise.latent_max(b)) + 0.5 < quantise.PROBABILITY_MAX for b in range(2, 9)
    )


def test_config_fields_and_limits():
    seen = {name: {"architecture"} for name in models.ARCHITECTURES}
    for name, architectures, kind in constants("config"):
        for architecture in architectures.split(","):
            seen[architecture].add(name)
        if ".." in kind:
            low, high = map(int, kind.split(".."))
            for architecture in architectures.split(","):
                assert models.ARCHITECTURES[architecture].fields[name] == (low, high), name
                options = dict(TINY[architecture])
                if "Nd" in options:
                    options["lightweight_encode"] = name != "Ne"
                for wrong in (low - 1, high + 1):
                    with pytest.raises(errors.MalformedModel):
                        models.Config(architecture, **{**options, name: wrong})
    assert seen == {name: {"architecture", *record.fields} for name, record in models.ARCHITECTURES.items()}
    assert models.MAX_BANDS == 65536


def test_tags():
    for code, name in constants("tags"):
        assert getattr(container, name) == int(code, 16)


def test_header_limits():
    limits = {name: [power(end) for end in span.split("..")] for name, span in constants("limits")}
    assert limits == {
        "channels": [1, container.MAX_CHANNELS],
        "size": [1, container.MAX_SIZE],
        "rate": [1, container.MAX_RATE],
        "J": [0, 10],
        "D": [1, container.MAX_LATENT_DIM],
        "b": [2, 8],
        "step": [container.MIN_STEP, container.MAX_STEP],
        "weighted": [0, 1],
        "window": [0, container.MAX_SIZE],
        "slice_size": [1, container.MAX_SIZE],
    }
    assert container.MAX_SAMPLES == 2**30


def test_sound_formats():
    for name, _, full_scale, _, silence, _, step in constants("audio"):
        known = signal.AUDIO_FORMATS[name]
        assert (known.full_scale, known.silence, known.step) == (power(full_scale), int(silence), int(step))
        assert naive.AUDIO[name] == (known.full_scale, known.silence, known.step)


def worked(tables, planes, bits, monkeypatch):
    """What the specification's own coder does: rows of its symbols and of its decisions."""
    symbols, decisions = [], []
    predict, contexts = naive.SPEC["predict"], naive.SPEC["contexts"]

    class Spy(naive.SPEC["Encoder"]):
        def code(self, p, bit):
            here = symbols[-1]
            at = here["at"] if here["node"] >= 0 else []
            decisions.append([here["set"], *at, here["node"], p, bit, self.low, self.span])
            here["node"] = -1
            return super().code(p, bit)

    model = naive.SPEC["Model"](tables, Spy())
    decide = model.decide

    def decided(mixer, at, node, bit):
        symbols[-1]["node"] = node
        return decide(mixer, at, node, bit)

    def predicted(T, c, values):
        linear, mean, scale = predict(T, c, values)
        symbols.append({"taps": values, "linear": linear, "node": -1})
        return linear, mean, scale

    def chosen(D, c, mean, scale, flip, fraction, *near):
        mixer, at = contexts(D, c, mean, scale, flip, fraction, *near)
        symbols[-1] |= {"numbers": [mean, scale, flip, fraction], "set": mixer, "at": at}
        return mixer, at

    model.decide = decided
    monkeypatch.setitem(naive.SPEC, "predict", predicted)
    monkeypatch.setitem(naive.SPEC, "contexts", chosen)
    naive.SPEC["walk"](tables, model, planes, 2 ** (bits - 1) - 1)
    return symbols, decisions


def test_worked_example_of_the_entropy_coder(monkeypatch):
    _, found = worked(naive.tables_of(naive.default_tables(1, 3)), [[[0, 2, -1]]], 3, monkeypatch)
    wanted = [[int(word, 16 if i > 7 else 10) for i, word in enumerate(row)] for row in constants("trace")]
    assert found == wanted


def test_second_worked_example_of_the_entropy_coder(monkeypatch):
    tables = naive.tables_of(naive.SPEC["example_tables"]())
    rows = constants("symbols")
    planes = [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    for c, y, x, *_, symbol in rows:
        planes[int(c)][int(y)][int(x)] = int(symbol)
    symbols, decisions = worked(tables, planes, 6, monkeypatch)
    for row, found in zip(rows, symbols, strict=True):
        assert [int(n) for n in row[3].split(",")] == found["taps"]
        assert [int(n) for n in row[4:14]] == [found["linear"], *found["numbers"], found["set"], *found["at"]]
    wanted = [[int(word, 16 if i > 2 else 10) for i, word in enumerate(row)] for row in constants("decisions")]
    assert [row[-5:] for row in decisions] == wanted
    nodes = {row[0] for row in wanted}
    assert {-1, 0, 1, 5, 9, 10, 13} <= nodes and "-1" in {row[7] for row in rows}  # e of 3, and a negative fraction


def test_worked_example_of_the_container():
    ones = np.ones((1, 1, 1, 1), np.float32)
    tensors = {f"{part}.{kind}": ones for part in ("encoder.0", "decoder.1") for kind in ("weight", "bias")}
    tensors = {name: t if "weight" in name else np.zeros(1, np.float32) for name, t in tensors.items()}
    config = models.Config.from_fields(EXAMPLE_CONFIG)
    model = models.Model(config, tensors, entropy.default_tables(1, 8))
    data = bytes.fromhex("".join(row[0] for row in constants("stream")))
    codec = walloc_ref.codec.Codec(model)
    assert codec.encode(np.array([[0], [255]], np.uint8)) == data
    assert walloc_ref.codec.decode_symbols(data, codec=codec).tolist() == [[[-1], [1]]]
    assert walloc_ref.decode(data, codec=codec).tolist() == [[0], [255]]


def tables_with_everything(planes: int, bits: int, seed: int) -> entropy.Tables:
    """Random tables of all kinds of taps, with hidden units."""
    rng = np.random.default_rng(seed)
    taps, units, biases, outputs = [], [], [], []
    for c in range(planes):
        here = []
        while len(here) < 3 + c:
            kind, source = int(rng.integers(2)), int(rng.integers(c + 1))
            dy, dx = map(int, rng.integers(-3, 4, 2))
            if source < c or (dy, dx) < (0, 0):
                here.append((c, kind, source, dy, dx))
        hidden = int(rng.integers(4))
        taps += here
        units.append(rng.integers(-2500, 2500, (len(here), 2 + hidden)))
        biases.append(rng.integers(-70000, 70000, 2 + hidden))
        outputs.append(rng.integers(-900, 900, (hidden, 2)))
    states = rng.integers(16, 65536, sum(entropy.context_counts(planes)) * entropy.NODES)
    mixers = rng.integers(-500, 700, (entropy.MIXERS, entropy.NODES, entropy.CONTEXTS))
    return entropy.Tables(planes, bits, np.array(taps), units, biases, outputs, states, mixers)


@pytest.mark.parametrize("seed", range(6))
def test_slices(seed):
    from walloc_ref.fast import entropy as kernel

    rng = np.random.default_rng(seed)
    planes, h, w = map(int, rng.integers(1, 6, 3))
    bits = 2 + seed
    last = 2 ** (bits - 1) - 1
    tables = tables_with_everything(planes, bits, seed) if seed % 2 else entropy.default_tables(planes, bits)
    stored = tables.to_bytes()
    assert seed % 2 or stored == naive.default_tables(planes, bits)
    symbols = np.clip(np.rint(rng.laplace(0, last / 4, (planes, h, w))), -last, last).astype(np.int16)
    payload = naive.encode_slice(symbols.tolist(), stored)
    assert payload == entropy.encode(symbols, tables) == kernel.encode(symbols, tables)
    assert naive.decode_slice(payload, symbols.shape, stored) == symbols.tolist()


def outcome(function, *arguments):
    """What a decoder gives, or None where it rejects."""
    try:
        result = function(*arguments)
    except (naive.Rejected, errors.WallocError):
        return None
    return result.tolist() if isinstance(result, np.ndarray) else result


def test_damaged_payloads_have_the_same_fate():
    from walloc_ref.fast import entropy as kernel

    rng = np.random.default_rng(7)
    shape = (2, 3, 2)
    tables = tables_with_everything(2, 4, 3)
    stored = tables.to_bytes()
    payload = naive.encode_slice(rng.integers(-7, 8, shape).tolist(), stored)
    fates = []
    for attempt in range(150):
        damaged = bytearray(payload if attempt % 2 else rng.bytes(int(rng.integers(1, 9))))
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        data = bytes(damaged[: len(damaged) - attempt % 3 // 2])
        fate = outcome(naive.decode_slice, data, shape, stored)
        assert fate == outcome(entropy.decode, data, shape, tables) == outcome(kernel.decode, data, shape, tables)
        fates.append(fate is None)
    assert 0 < sum(fates) < len(fates)


def test_damaged_tables_have_the_same_fate():
    rng = np.random.default_rng(8)
    stored = tables_with_everything(3, 5, 1).to_bytes()
    rejected = 0
    for attempt in range(200):
        damaged = bytearray(stored)
        damaged[int(rng.integers(120 if attempt % 4 else len(stored)))] = int(rng.integers(256))
        data = bytes(damaged[: len(damaged) - (attempt % 10 == 0)])
        ours = outcome(naive.tables_of, data) is None
        assert ours == (outcome(entropy.Tables.from_bytes, data) is None)
        rejected += ours
    assert 0 < rejected < 200


def test_bounds_of_the_entropy_coder():
    assert entropy.max_symbols(1) == 11360
    assert "at most 11360 symbols" in PROSE
    assert entropy.context_counts(7) == (220, 77, 132, 396)
    assert entropy.LIMITS == {"taps": 160, "hidden": 62, "latent_dim": 4096}


# ---- the naive codec, the clear one and the kernels ----------------------------------------------------------------

IMAGES = {
    "linear": ("LinearCodec2D", {}, (13, 9, 3), "u8"),
    "linear, grey, 16 bits": ("LinearCodec2D", {"latent_bits": 5}, (8, 6, 1), "u16"),
    "linear, one pixel, no level": ("LinearCodec2D", {"J": 0, "latent_dim": 2, "latent_bits": 2}, (1, 1, 3), "u8"),
    "linear, one row": ("LinearCodec2D", {"J": 3, "latent_dim": 5}, (1, 11, 3), "u8"),
    "residual": ("ResidualCodec2D", {}, (7, 10, 3), "u8"),
    "nonlinear": ("Codec2D", {}, (9, 10, 3), "u8"),
    "nonlinear both ways": ("Codec2D", {"lightweight_encode": False, "Ne": 32, "channels": 1}, (5, 6, 1), "u8"),
    "linear, signed": ("LinearCodec2D", {}, (6, 5, 3), "s16"),
    "linear, floats": ("LinearCodec2D", {}, (5, 6, 3), "f32"),
    "linear, one float": ("LinearCodec2D", {}, (1, 1, 1), "f32"),
    "linear, 70 channels": ("LinearCodec2D", {"channels": 70, "J": 1, "latent_dim": 4}, (3, 4, 70), "u16"),
}
VOLUMES = {
    "volume": ({}, (5, 7, 6, 1), "u8"),
    "volume, signed, channels": ({"channels": 2, "latent_bits": 6}, (4, 3, 5, 2), "s16"),
    "volume, two levels": ({"J": 2, "latent_dim": 5}, (9, 4, 6, 1), "u16"),
    "volume, floats, one channel of two": ({"channels": 2}, (3, 2, 4, 1), "f32"),
    "volume, one voxel": ({"latent_dim": 2}, (1, 1, 1, 1), "u8"),
}
CODING = {"step": 2**16, "weighted": 0, "window": 0, "context": 0}
AUDIO = {
    "stereo, 16 bits": ({}, (61, 2), "s16"),
    "one channel, 8 bits": ({"post_filter": False, "J": 2}, (30, 1), "u8"),
    "24 bits, full encoder": ({"lightweight_encode": False, "Ne": 8, "J": 2}, (21, 2), "s24"),
    "binary64": ({"J": 1}, (9, 2), "f64"),
}


@pytest.fixture(params=["clear", "kernel"])
def path(request, monkeypatch):
    """Both implementations of the package."""
    if request.param == "clear":
        monkeypatch.setattr(plain, "chosen", lambda: plain.PLAIN)
    elif not plain.compiled():
        pytest.skip("Numba is disabled")
    return request.param


@pytest.fixture(scope="module")
def remembered():
    """What the naive codec made of each case, for both paths."""
    return {}


def naive_result(remembered, name, model, samples, sample_format):
    if name not in remembered:
        ours = naive.read_model(models.save(model))
        if model.config.kind != "audio":
            data = naive.encode(ours, samples.tolist(), sample_format, CODING)
        else:
            data = naive.encode_audio(ours, samples.tolist(), sample_format, 8000, CODING)
        _, symbols = naive.decode_symbols(ours, data)
        remembered[name] = ours, data, symbols, naive.decode(ours, data)
    return remembered[name]


def check(remembered, name, model, samples, sample_format):
    ours, data, symbols, decoded = naive_result(remembered, name, model, samples, sample_format)
    assert ours.identity == model.model_id
    codec = walloc_ref.codec.Codec(model)
    options = {"rate": 8000, "sample_format": sample_format} if model.config.kind == "audio" else {}
    assert codec.encode(samples, **options) == data
    assert walloc_ref.codec.decode_symbols(data, codec=codec).tolist() == symbols
    result = walloc_ref.decode(data, codec=codec)
    wanted = np.array(decoded, dtype=result.dtype).reshape(result.shape)
    if sample_format == "f64":
        assert np.abs(result - wanted).max() < 1e-12
    elif sample_format == "f32":
        assert np.abs(result - wanted).max() <= np.spacing(np.abs(wanted).max())
    else:
        assert result.tolist() == wanted.tolist()
        certified = codec.encode(samples, **options, certify=True)
        assert naive.decode(ours, certified) == decoded


@pytest.mark.parametrize("name", IMAGES)
def test_naive_images(name, path, remembered):
    architecture, options, shape, sample_format = IMAGES[name]
    samples = volume(shape[2], *shape[:2], dtype=image.DTYPES[sample_format])
    check(remembered, name, tiny_model(architecture, **options), np.moveaxis(samples, 0, -1).copy(), sample_format)


@pytest.mark.parametrize("name", VOLUMES)
def test_naive_volumes(name, path, remembered):
    options, shape, sample_format = VOLUMES[name]
    samples = volume(*shape, dtype=image.DTYPES[sample_format]).reshape(shape)
    model = tiny_model("LinearCodec3D", **options)
    model = replace(model, tables=depth_tables(model.config.planes, model.config.latent_bits))
    check(remembered, name, model, samples, sample_format)


@pytest.mark.parametrize("name", AUDIO)
def test_naive_sounds(name, path, remembered):
    options, shape, sample_format = AUDIO[name]
    wave = np.random.default_rng(3).normal(0.1, 0.2, shape).clip(-1, 0.99)
    known = signal.AUDIO_FORMATS[sample_format]
    samples = wave
    if known.step:
        steps = known.full_scale // known.step
        samples = ((np.rint(wave * steps) + known.silence) * known.step).astype(known.dtype)
    check(remembered, name, tiny_model("Codec1D", **options), samples, sample_format)


@pytest.mark.parametrize("architecture", ["LinearCodec2D", "Codec1D"])
def test_naive_rejects_what_the_package_rejects(architecture):
    codec = tiny_codec(architecture)
    ours = naive.read_model(models.save(codec.model))
    rng = np.random.default_rng(4)
    if architecture == "Codec1D":
        data = codec.encode(rng.integers(-9000, 9000, (90, 2)).astype(np.int16), certify=True)
    else:
        data = codec.encode(photograph(20, 30), certify=True)
    for attempt in range(120):
        damaged = bytearray(data)
        place = int(rng.integers(len(damaged)))
        if attempt % 3 == 0:
            damaged = damaged[:place]
        elif attempt % 3 == 1:
            damaged[place] ^= 1 << int(rng.integers(8))
        else:
            damaged = damaged[:place] + damaged[: place // 2] + damaged[place:]
        for decode in (
            lambda d: naive.decode_symbols(ours, d),
            lambda d: walloc_ref.codec.decode_symbols(d, codec=codec),
        ):
            with pytest.raises((naive.Rejected, errors.WallocError)):
                decode(bytes(damaged))


def test_short_lengths_depart_from_the_upstream_as_described():
    torch = pytest.importorskip("torch")
    bank = pytest.importorskip("pytorch_wavelets")
    torch.set_default_dtype(torch.float64)
    try:
        forward = bank.DWT1DForward(J=1, mode="periodization", wave="bior4.4")
        inverse = bank.DWT1DInverse(mode="periodization", wave="bior4.4")
        found = {}
        for n in (2, 4, 6, 8, 10, 12, 16):
            x = np.random.default_rng(n).standard_normal((1, n))
            ours = low, high = wavelet.analyse(x, 1)
            theirs = forward(torch.tensor(x[None]))
            back = inverse((torch.tensor(low[None, None]), [torch.tensor(high[None, None])]))
            pairs = ((theirs[0], low), (theirs[1][0], high), (back, wavelet.synthesise(np.stack(ours), 1)))
            found[n] = "".join("=" if np.abs(a.numpy().ravel() - b.ravel()).max() < 1e-12 else "x" for a, b in pairs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == {2: "xxx", 4: "xxx", 6: "xxx", 8: "x==", 10: "===", 12: "===", 16: "==="}


# ---- the decoder in C ----------------------------------------------------------------------------------------------

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc, gcc or clang) on this machine")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Runs conformance/examples/decoder.c: (stage, model, stream) to (exit code, array or None)."""
    folder = tmp_path_factory.mktemp("decoder")
    program = folder / "decoder"
    source = ROOT / "conformance" / "examples" / "decoder.c"
    options = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2"]
    subprocess.run([COMPILER, *options, "-o", program, source, "-lm"], check=True)

    def run(stage, model, stream):
        weights, coded, out = folder / "m.safetensors", folder / "in.wlc", folder / "out.npy"
        weights.write_bytes(model)
        coded.write_bytes(stream)
        out.unlink(missing_ok=True)
        code = subprocess.run(
            [program, "decode", stage, weights, coded, out], capture_output=True, check=False
        ).returncode
        return code, np.load(out) if code == 0 else None

    run.program = program
    return run


@needs_compiler
@pytest.mark.parametrize("level", ["symbols", "decoder"])
def test_c_decoder_conforms_for_images(level, decoder):
    command = f"{decoder.program} {{op}} {{stage}} {{model}} {{input}} {{output}} {{parameters}}"
    words = [sys.executable, "-m", "walloc_ref.cli", "conform", "run", "--impl", command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    options = ["--level", level, "--kind", "image", "--report", "json"]
    done = subprocess.run([*words, *options], capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert set(json.loads(done.stdout)["counts"]) == {
        "pass",
        "unsupported",
    }  # the latter in stages that no level requires


@needs_compiler
def test_c_decoder_is_readable():
    source = (ROOT / "conformance" / "examples" / "decoder.c").read_text(encoding="utf-8")
    assert source.count("\n") <= 1560  # images, audio and volumes
    assert max(map(len, source.splitlines())) <= 130


@needs_compiler
@pytest.mark.parametrize("name", IMAGES)
def test_c_decoder_agrees(name, decoder):
    architecture, options, shape, sample_format = IMAGES[name]
    codec = tiny_codec(architecture, **options)
    samples = np.moveaxis(volume(shape[2], *shape[:2], dtype=image.DTYPES[sample_format]), 0, -1).copy()
    data = codec.encode(samples, certify=sample_format != "f32")
    for stage, wanted in (
        ("symbols", walloc_ref.codec.decode_symbols(data, codec=codec)),
        ("stream", walloc_ref.decode(data, codec=codec)),
    ):
        code, found = decoder(stage, models.save(codec.model), data)
        assert code == 0
        assert found.dtype == wanted.dtype
        if found.dtype.kind == "f":  # which has no margin
            assert np.abs(found - wanted).max() <= np.spacing(np.abs(wanted).max())
        else:
            assert np.array_equal(found, wanted)


@needs_compiler
def test_c_decoder_rejects(decoder):
    codec = tiny_codec()
    model, data = models.save(codec.model), codec.encode(photograph(12, 10))
    other = models.save(tiny_model(seed=1))
    rng = np.random.default_rng(5)
    flipped = []
    for place in rng.choice(len(data), 25, replace=False):
        flipped.append(bytes(b ^ (1 << int(rng.integers(8)) if i == place else 0) for i, b in enumerate(data)))
    for stream in (b"", data[:-1], data + b"\0", *(data[:n] for n in range(3, len(data), 17)), *flipped):
        assert decoder("symbols", model, stream)[0] == 10
    assert decoder("symbols", other, data)[0] == 10
    for damaged in (b"", model[:100], model[:-1], model + b"\0", model.replace(b'"F32"', b'"F16"', 1)):
        assert decoder("symbols", damaged, data)[0] == 10
    assert decoder("symbols", models.save(tiny_model("Codec1D")), data)[0] == 10
    assert decoder("symbols", models.save(tiny_model("LinearCodec3D")), data)[0] == 10
