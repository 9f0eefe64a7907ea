"""WaLLoC on a page: its blocks decode the suite's slices, its constants are those of the code, it is one page."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import walloc_ref
from walloc_ref import architecture
from walloc_ref import model as models
from walloc_ref.conform import suite as suites
from walloc_ref.conform.compare import read_array, read_slice
from walloc_ref.stages import autoencoder_kl, container, entropy, quantise, signal, wavelet

PAGE = Path(walloc_ref.__file__).parent / "tutorials" / "walloc-on-a-page.html"
ROOT = PAGE.parent.parent.parent
TEXT = PAGE.read_text(encoding="utf-8")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page():
    """Names that the page's Python defines."""
    names: dict = {}
    for block in re.findall(r'<pre class="python">(.*?)</pre>', TEXT, re.DOTALL):
        assert "<" not in block
        exec(html.unescape(block), names)
    return names


def plain(tables):
    """Tables as the page has them."""
    depth = range(tables.latent_dim)
    return SimpleNamespace(
        taps=[tables.taps[tables.taps[:, 0] == c, 1:].tolist() for c in depth],
        units=[tables.units[c].tolist() for c in depth],
        biases=[tables.biases[c].tolist() for c in depth],
        outputs=[tables.outputs[c].tolist() for c in depth],
        states=tables.states.tolist(),
        mixers=tables.mixers.tolist(),
    )


def test_the_coder_decodes_slices_of_the_suite(page):
    suite = suites.load()
    cases = suite.select(["decode.slice.coder-*", "decode.slice.bits-*", "decode.slice.invalid-[pr]*"], None, "image")
    decoded = rejected = 0
    for case in cases:
        model = models.load(suite.model_path(case.model))
        shape, payload = read_slice(suite.read(case.input), "image")
        if len(shape) != 3 or np.prod(shape) > 3000:
            continue
        try:
            found = page["decode_slice"](plain(model.tables), payload, *shape, model.config.latent_bits)
        except page["Rejected"]:
            assert case.rejects, case.id
            rejected += 1
        else:
            assert not case.rejects, case.id
            assert np.array_equal(found, read_array(suite.read(case.output))), case.id
            decoded += 1
    assert decoded >= 25 and rejected >= 8


def test_the_example(page):
    shown = re.search(r"payload <b>([0-9a-f ]+)</b> gives ([^.]*)\.", TEXT)
    symbols = [int(k.replace("−", "-")) for k in shown[2].split(", ")]
    tables = entropy.default_tables(1, 3)
    assert entropy.encode(np.int16([[symbols]]), tables) == bytes.fromhex(shown[1])
    assert page["decode_slice"](plain(tables), bytes.fromhex(shown[1]), 1, 1, 3, 3) == [[symbols]]


def test_the_transform(page):
    assert tuple(page["LO"]) == wavelet.ANALYSIS_LOW and tuple(page["HI"]) == wavelet.ANALYSIS_HIGH
    for n in (2, 6, 32):
        x = np.random.default_rng(n).normal(size=n)
        bands = page["split"](x)
        assert np.allclose(np.array(bands), wavelet.analyse(x[None], 1), rtol=0, atol=1e-13)
        assert np.allclose(page["merge"](*bands), wavelet.synthesise(np.array(bands), 1)[0], rtol=0, atol=1e-13)


def test_the_quantiser(page):
    for bits in quantise.BITS:
        last, largest, scale = page["companding"](bits)
        assert (last, largest, scale) == (quantise.last_symbol(bits), quantise.latent_max(bits), quantise.scale(bits))
        table = [page["latent_of"](k, bits) for k in range(-last, last + 1)]
        assert np.allclose(table, quantise.dequantiser_table(bits), rtol=1e-15, atol=1e-13)
        latents = np.random.default_rng(bits).normal(0, scale, 200)
        assert [page["symbol_of"](y, bits) for y in latents] == quantise.quantise(latents, bits).tolist()


def test_constants_are_those_of_the_code_and_of_the_specification():
    known = {"container": container, "entropy": entropy, "quantise": quantise, "signal": signal}
    known["autoencoder_kl"] = autoencoder_kl
    known["model_limits"] = architecture.COMMON_FIELDS
    found = re.findall(r'data-of="([^"]+)">([^<]+)<', TEXT)
    assert len(found) >= 10
    spec = (ROOT / "SPEC.md").read_text(encoding="utf-8") if (ROOT / "SPEC.md").is_file() else None
    for name, text in found:
        assert eval(name, dict(known)) == float(text), name
        assert spec is None or re.search(rf"\b{text}\b", spec), text
    words = re.sub(r"<[^>]+>", "", TEXT)
    magic = " ".join(f"{byte:02X}" for byte in container.MAGIC)
    assert f"{magic} | {container.VERSION:02} | HEAD" in words
    formats = ", ".join(f"{code} {name}" for code, name in enumerate(container.SAMPLE_FORMATS))
    kinds = ", ".join(f"{code} {name}" for code, name in enumerate(container.KINDS))
    assert f"({formats})" in words and f"({kinds})" in words
    tags = {"CERTIFICATE": container.CERTIFICATE, "ICC": container.ICC_PROFILE, "EXIF": container.EXIF}
    for name, tag in {**tags, "METADATA": container.METADATA}.items():
        assert f"{tag:02X} {name}" in words
    head, slices = f"{container.HEAD:02X}", f"{container.SLICES:02X}"
    assert f"HEAD {head}  kind" in words and f"SLICES {slices}  {slices} |" in words
    assert sum(entropy.context_counts(7)) == 748 + 77 and "(748+11·D)·16" in words
    assert container.MODEL_ID_BYTES == 16 and "model identity 16 bytes" in words
    assert container.SYMBOL_HASH_BYTES == 8 and "hash 8 bytes" in words
    assert models.IDENTITY_PREFIX.decode().replace("\n", "\\n") in words
    assert container.MAX_SAMPLES == 2**30 and (container.MIN_STEP, container.MAX_STEP) == (2.0**-10, 2.0**10)


def test_nothing_is_fetched():
    assert not re.search(r"""(src|href)=|url\(|@import|<script""", TEXT)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_it_is_one_page(tmp_path):
    out = tmp_path / "page.pdf"
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={out}"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", PAGE.as_uri()]
    subprocess.run(words, check=True, timeout=120, capture_output=True)
    counts = re.findall(rb"/Type\s*/Pages\b.*?/Count (\d+)|/Count (\d+)", out.read_bytes(), re.DOTALL)
    assert {int(a or b) for a, b in counts} == {1}
