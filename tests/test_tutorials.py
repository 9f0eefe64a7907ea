"""The tutorials run, print what they say that they print, and the answers to their exercises are true.

python -m pytest tests/test_tutorials.py -k companding      # the page and its exercises
"""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from unittest import mock

import numpy as np
import pages
import pytest
from PIL import Image

import walloc_ref
from walloc_ref import cli, errors
from walloc_ref.conform import runner
from walloc_ref.conform import suite as suites
from walloc_ref.plain import PLAIN
from walloc_ref.stages import entropy, quantise, signal, wavelet
from walloc_ref.tutorials import complaints

FOLDER = Path(walloc_ref.__file__).parent / "tutorials"
ROOT = FOLDER.parent.parent
INDEX = FOLDER / "README.md"
PAGES = ["fifty-lines", "packet-transform", "companding", "context-mixing", "your-own-decoder", "fit-your-own"]
PAGES += ["upstream-checkpoint"]
MAX_PICTURE_BYTES = 60_000

pytestmark = pytest.mark.skipif(not (ROOT / "SPEC.md").is_file(), reason="not in a checkout")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs a page once: (what became of it, its folder)."""
    done: dict[str, tuple[pages.Run, Path]] = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            pages.prepare(folder)
            done[name] = pages.run(FOLDER / f"{name}.md", folder), folder
        return done[name]

    return run


@pytest.mark.parametrize("name", PAGES)
def test_page_runs(name, ran):
    result, folder = ran(name)
    for wanted, found in result.wrong:
        assert found == wanted, f"python tests/pages.py walloc_ref/tutorials/{name}.md writes outputs anew"
    assert result.unchecked == []
    for picture in pages.pictures(FOLDER / f"{name}.md"):
        kept, made = (np.asarray(Image.open(place / picture), dtype=float) for place in (FOLDER, folder))
        assert kept.shape == made.shape and np.abs(kept - made).mean() < 3, picture


def test_pages_are_in_the_index_and_their_links_lead_somewhere():
    assert {f"{name}.md" for name in PAGES} | {"README.md"} == {path.name for path in FOLDER.glob("*.md")}
    text = INDEX.read_text(encoding="utf-8")
    places = [text.index(f"({name}.md)") for name in PAGES]
    assert places == sorted(places) and "](../learning/README.md)" in text
    for page in FOLDER.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", pages.BLOCK.sub("", page.read_text(encoding="utf-8"))):
            assert (FOLDER / link).exists(), f"{page.name}: {link}"
    for picture in [*FOLDER.glob("*.jpg"), *FOLDER.glob("*.png"), *FOLDER.glob("*.webp")]:
        assert picture.stat().st_size < MAX_PICTURE_BYTES
        assert any(f"({picture.name})" in page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md"))


def test_pages_name_cases_that_there_are():
    known = {case.id for case in suites.load().cases}
    for page in FOLDER.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`((?:de|en)code\.[a-z0-9_]+\.[\w-]+[\w])`", text))
        if "conform" in text or "complaints" in text:
            assert {name for name in named if not any(case.startswith(name) for case in known)} == set(), page.name
    assert complaints(["decode.clamp"]) == {}
    with pytest.raises(KeyError):
        complaints(["decode.nothing"])


def test_outputs_are_compared():
    assert pages.same("a 1.25 dB\n", "a 1.26 dB\n") and not pages.same("a 1.25 dB\n", "a 1.27 dB\n")
    assert not pages.same("a 1.25\n", "a 1.250\n") and not pages.same("12 bytes\n", "13 bytes\n")
    assert pages.same("1 of … cases\n…\n", "1 of 9 cases\nx\ny\n") and not pages.same(
        "1 of … cases\n", "2 of 9 cases\n"
    )


def test_a_page_that_is_wrong_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n\n```text\n2\n```\n\n```python\nprint(3)\n```\n\nA word.\n\n```text\n3\n```\n"
    )
    result = pages.run(page, tmp_path)
    assert result.wrong == [("2\n", "1\n")] and result.unchecked == ["print(3)\n"]
    assert result.text.startswith("```python\nprint(1)\n```\n\n```text\n1\n```\n")
    page.write_text("```sh\nwalloc-ref info nothing.wlc # exit code 3\n```\n")
    assert "nothing.wlc" in "".join(pages.run(page, tmp_path).unchecked)
    page.write_text("```sh\nwalloc-ref info nothing.wlc\n```\n")
    with pytest.raises(AssertionError, match="exit code 3"):
        pages.run(page, tmp_path)


# ---- a codec in fifty lines ----------------------------------------------------------------------------------------


def test_fifty_lines(ran):
    names = ran("fifty-lines")[0].names
    encode, decode, psnr, photo = (names[name] for name in ("encode", "decode", "psnr", "photo"))
    block = pages.BLOCK.search((FOLDER / "fifty-lines.md").read_text(encoding="utf-8"))
    assert len(block[2].splitlines()) <= 50
    data = encode(photo, 20)
    right = psnr(decode(data), photo)
    with mock.patch.dict(names, COLOURS=np.eye(3)):  # 1
        other = encode(photo, 20)
        assert 1.25 < len(other) / len(data) < 1.35
        assert 1.0 < right - psnr(decode(other), photo) < 1.4
    tables = entropy.default_tables(192, 8)  # 2
    symbols = names["stages"].decode_slice(data[20:], (192, 50, 75), tables)
    by_colour = np.ascontiguousarray(symbols.reshape(64, 3, 50, 75).swapaxes(0, 1).reshape(symbols.shape))
    assert 1 < len(names["stages"].encode_slice(by_colour, tables)) / (len(data) - 20) < 1.01
    small, found = encode(photo, 400), []  # 3
    for place in range(20, len(small), len(small) // 12):
        damaged = bytearray(small)
        damaged[place] ^= 16
        with pytest.raises((errors.MalformedStream, AssertionError)) as caught:
            decode(bytes(damaged))
        found.append(caught.type is errors.MalformedStream)
    assert sum(found) >= len(found) - 2

    def rounded(latents, bits):  # 4
        return np.clip(np.rint(latents), -127, 127).astype(np.int16)

    plain = names["stages"].__class__(
        **{**vars(names["stages"]), "quantise": rounded, "dequantise": lambda k, bits: k + 0.0}
    )
    with mock.patch.dict(names, stages=plain):
        other = encode(photo, 30)
        found = psnr(decode(other), photo)
    assert abs(psnr(decode(at_bytes(encode, photo, len(other))), photo) - found) < 0.03


def at_bytes(encode, photo, size):
    """A stream of so many bytes."""
    fine, coarse = 10.0, 160.0
    for _ in range(12):
        step = (fine * coarse) ** 0.5
        data = encode(photo, step)
        fine, coarse = (step, coarse) if len(data) > size else (fine, step)
    return data


# ---- the packet transform ------------------------------------------------------------------------------------------


def transform(split, axes_of=lambda ndim: range(ndim - 1, 0, -1)):
    """`analyse` of a filter pair along the last axis."""

    def analyse(x, levels):
        for _ in range(levels):
            for axis in axes_of(x.ndim):
                low, high = (np.moveaxis(band, -1, axis) for band in split(np.moveaxis(x, axis, -1)))
                x = np.stack([low, high], axis=1).reshape(-1, *low.shape[1:])
        return x

    return analyse


def haar(x):
    even, odd = x[..., 0::2], x[..., 1::2]
    return (even + odd) / 2**0.5, (even - odd) / 2**0.5


def mirrored(x):
    n = x.shape[-1]
    reach = np.abs(np.arange(-4, n + 4)) % max(1, 2 * (n - 1))
    padded = x[..., np.minimum(reach, 2 * (n - 1) - reach)]

    def taps(weights, first):
        at = lambda i: padded[..., 4 + first + i : 4 + first + i + n - 1 : 2]  # noqa: E731
        return weights[0] * at(0) + sum(w * (at(-i) + at(i)) for i, w in enumerate(weights[1:], 1))

    return taps(wavelet.ANALYSIS_LOW, 0), taps(wavelet.ANALYSIS_HIGH, 1)


def test_packet_transform_with_another_wavelet():
    every = {case.id for case in suites.load().select(["encode.analysis"])}
    content = every - complaints(["encode.analysis"], analyse=transform(haar)).keys()
    assert {
        "encode.analysis.codec1d-silence",
        "encode.analysis.linear-f32-constant",
        "encode.analysis.linear-j0-ramp",
    } <= content
    assert len(content) < len(every) / 4


def test_packet_transform_with_another_extension():
    wrong = complaints(["encode.analysis"], analyse=transform(mirrored))
    assert "encode.analysis.codec1d-tone" in wrong
    assert len(wrong) > 0.8 * len(suites.load().select(["encode.analysis"]))
    x = np.random.default_rng(0).normal(size=(1, 512))
    for levels in (1, 2, 3):
        differ = np.abs(transform(mirrored)(x, levels) - wavelet.analyse(x, levels)).max(axis=0) > 1e-9
        assert differ[:4].any() and not differ[4:-4].any()


def test_packet_transform_with_swapped_bands():
    split = lambda x: [np.moveaxis(band, 1, -1) for band in wavelet._split(np.moveaxis(x, -1, 1), 1)]  # noqa: E731
    right, swapped = transform(split), transform(split, lambda ndim: range(1, ndim))
    assert complaints(["encode.analysis"], analyse=right) == {}
    wrong = complaints(["encode.analysis"], analyse=swapped)
    assert "encode.analysis.linear-photo" in wrong
    assert not any(name.startswith("encode.analysis.codec1d") for name in wrong)


# ---- companding ----------------------------------------------------------------------------------------------------


def test_companding_ties():
    def away(v):
        return np.copysign(np.floor(np.abs(v) + 0.5), v).astype(np.int16)

    with mock.patch.object(quantise, "round_to_symbols", away):
        wrong = complaints(["encode.round"])
    assert sorted(wrong) == [f"encode.round.bits-{bits}-ties" for bits in range(2, 9)]


def test_companding_without_the_guard():
    def without(latents, bits):
        from scipy.special import ndtr

        last = quantise.last_symbol(bits)
        return np.rint(2 * (last + 0.5) * (ndtr(latents / quantise.scale(bits)) - 0.5)).astype(np.int16)

    wrong = complaints(["encode.quantise"], quantise=without)
    assert {f"encode.quantise.bits-{bits}-wide" for bits in range(2, 9)} <= wrong.keys()
    assert len(wrong) < len(suites.load().select(["encode.quantise"])) / 3
    assert without(np.array([1e9]), 3) == 4


def test_companding_and_truncated_samples():
    def truncated(x, dtype, mean=0.0, gain=1.0):
        scaled = np.moveaxis(signal.scale_to_image(x, dtype, mean, gain), 0, -1)
        if np.dtype(dtype).kind == "f":
            return scaled.astype(dtype)
        lowest, steps = signal.integer_range(dtype)
        return (np.clip(np.floor(scaled), 0, steps) + lowest).astype(dtype)

    wrong = complaints(["decode.samples"], signal_to_image=truncated)
    assert "decode.samples.codec2d-photo" in wrong and not any("codec1d" in name for name in wrong)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 100, 100))
    lost = signal.signal_to_image(x, np.uint8).astype(float) - truncated(x, np.uint8)
    assert abs(lost.mean() - 0.5) < 0.02


# ---- context mixing ------------------------------------------------------------------------------------------------


def test_context_mixing(ran):
    names = ran("context-mixing")[0].names
    decisions, symbols, mixed, three = (names[name] for name in ("decisions", "symbols", "mixed", "three"))
    asked = sum(1 for k in symbols.ravel().tolist() for _ in decisions(k))
    assert 15_400 < asked / 8 < 15_700  # 1
    best = mixed(three)
    assert 1.02 < mixed(three, 0) / best < 1.04  # 2
    assert 1.2 < mixed(three, 0.5) / best < 1.3


def test_context_mixing_without_the_half():
    source = textwrap.dedent(inspect.getsource(entropy.Mixer.code))
    assert "* error + half >>" in source
    names = dict(vars(entropy))
    exec("from __future__ import annotations\n" + source.replace("* error + half >>", "* error >>"), names)
    loud = ["decode.slice.coder-noise", "decode.slice.coder-sparse"]
    quiet = ["decode.slice.coder-zeros", "decode.slice.coder-linear-6x1x1"]
    with mock.patch.object(entropy.Mixer, "code", names["code"]):
        found = complaints([*loud, *quiet], decode_slice=PLAIN.decode_slice)
    assert set(loud) <= found.keys() and not set(quiet) & found.keys()


# ---- a decoder for your own language -------------------------------------------------------------------------------


SMALL = 10_000
"""Bytes of the symbols of a small case: Python decodes some 10,000 symbols a second."""


def judged(folder, cases, monkeypatch):
    """Verdicts of the decoder in a folder, by the ids of cases."""
    monkeypatch.chdir(folder)
    server = runner.Server(f"{shlex.quote(sys.executable)} mydec.py --serve", timeout=600)
    try:
        report = runner.run(suites.load(), server, cases)
    finally:
        server.close()
    return {result.case.id: result.verdict for result in report.results}


def changed(folder, tmp_path, name, old, new):
    """A copy of a decoder with one of its files changed."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    source = (copy / name).read_text(encoding="utf-8")
    assert source.count(old) == 1
    (copy / name).write_text(source.replace(old, new), encoding="utf-8")
    return copy


def test_own_decoder_is_conformant(ran, monkeypatch):
    _, folder = ran("your-own-decoder")
    suite = suites.load()
    cases = [case for case in suite.select((), "symbols") if case.required]
    small = [case for case in cases if case.rejects or suite.path(case.output).stat().st_size < SMALL]
    wrong = {name: verdict for name, verdict in judged(folder, small, monkeypatch).items() if verdict != runner.PASS}
    assert len(small) > 300 and wrong == {}


def test_own_decoder_without_the_end(ran, tmp_path, monkeypatch):
    _, folder = ran("your-own-decoder")
    end = 'require(self.at == len(self.bytes), "7.13")\n        require(self.value < 2**24, "7.13")'
    copy = changed(folder, tmp_path, "coder.py", end, "pass")
    cases = suites.load().select(["decode.slice.invalid-payload-l", "decode.slice.coder-carries"])
    verdicts = judged(copy, cases, monkeypatch)
    for name in ("long", "last-byte"):
        assert verdicts[f"decode.slice.invalid-payload-{name}"] == "accepted"
    assert verdicts["decode.slice.coder-carries"] == runner.PASS


def test_own_decoder_with_padded_varints(ran, tmp_path, monkeypatch):
    _, folder = ran("your-own-decoder")
    copy = changed(folder, tmp_path, "reading.py", '                require(byte or not i, "1.6")\n', "")
    cases = [c for c in suites.load().select(["decode.symbols.invalid"]) if "varint" in c.id]
    verdicts = judged(copy, cases, monkeypatch)
    assert verdicts["decode.symbols.invalid-varint-padded"] == "accepted"


def test_own_decoder_dequantises(ran, tmp_path, monkeypatch):
    _, folder = ran("your-own-decoder")
    copy = tmp_path / "more"
    shutil.copytree(folder, copy)
    with (copy / "stages.py").open("a", encoding="utf-8") as file:
        file.write(DEQUANTISE)
    cases = [case for case in suites.load().select(["decode.dequantise"]) if not case.parameters]
    assert len(cases) > 30
    assert set(judged(copy, cases, monkeypatch).values()) == {runner.PASS}


DEQUANTISE = """

from statistics import NormalDist


def dequantise(path, data):  # 6.4
    config, _, _ = read_model(path)
    symbols, shape = read_array(data)
    last = 2 ** (config["latent_bits"] - 1) - 1
    table = {k: last / 1.85 * NormalDist().inv_cdf(k / (2 * last + 0.998) + 0.5) for k in range(1, last + 1)}
    table = {0: 0.0, **table, **{-k: -value for k, value in table.items()}}
    return array([table[k] for k in symbols], shape, "d")


STAGES["dequantise"] = dequantise
"""


# ---- fit a codec to your own data ----------------------------------------------------------------------------------


def test_fit_your_own(ran):
    names = ran("fit-your-own")[0].names
    fit, scenes, another, data, error = (names[name] for name in ("fit", "scenes", "another", "data", "error"))
    few = fit(scenes, levels=2, latents=6, step=0.5)  # 1
    assert 10 < names["found"].measured[0].psnr - few.measured[0].psnr < 12.5
    codec = walloc_ref.Codec(fit(scenes[:2], levels=2, latents=24, step=0.5).model)  # 2
    stream = codec.encode(another)
    loss = np.std(walloc_ref.decode(stream, codec=codec).astype(float) - another) / error.std()
    assert 1.0 < len(stream) / len(data) < 1.15 and 1.0 < loss < 1.1
    for wrong in ([np.full((16, 16, 6), 7, np.uint16)], [scenes[0], scenes[0][..., :3]]):  # 3
        with pytest.raises(errors.BadSamples):
            fit(wrong, levels=2, latents=3)


# ---- the authors' checkpoint ---------------------------------------------------------------------------------------


def test_upstream_checkpoint(ran, tmp_path, monkeypatch, capsys):
    result, folder = ran("upstream-checkpoint")
    monkeypatch.chdir(tmp_path)
    damaged = bytearray((folder / "mine.safetensors").read_bytes())  # 1
    damaged[-4] ^= 1
    Path("damaged.safetensors").write_bytes(damaged)
    with pytest.raises(errors.MalformedModel):
        walloc_ref.load_model("damaged.safetensors")
    ours, theirs, photo = (result.names[name] for name in ("ours", "theirs", "photo"))
    with pytest.raises(errors.UnknownModel):  # 2
        walloc_ref.decode(ours.encode(photo), codec=theirs)
    for codec in (ours, theirs):  # 3
        Path("x.wlc").write_bytes(codec.encode(photo))
        words = ["symbols", "export", "x.wlc", "x.webp"]
        assert cli.main(words + (["--model", str(folder / "mine.safetensors")] if codec is theirs else [])) == 0
        assert Path("x.webp").stat().st_size > Path("x.wlc").stat().st_size
    capsys.readouterr()
