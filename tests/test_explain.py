"""`walloc-ref explain`: pages are whole, ask for nothing and say where everything comes from; what they show is so."""

from __future__ import annotations

import importlib
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from models import photograph, tiny_codec, volume

import walloc_ref
from walloc_ref import cli
from walloc_ref.conform import trace
from walloc_ref.explain import coder, latents, page, report, transform, work
from walloc_ref.files.media import Media
from walloc_ref.stages import entropy, wavelet

ROOT = Path(__file__).resolve().parent.parent
CLAUSES = set(re.findall(r"^\*\*(\d+\.\d+)\*\* ", (ROOT / "SPEC.md").read_text(encoding="utf-8"), re.MULTILINE))
MOST_BYTES = 3_000_000
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """A page, read: elements with their attributes, what is not closed, texts of captions, and what it would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []  # of every element its parents' names
        self.captions: list[str] = []
        self.styles = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside.append((tag, " ".join(self.open)))
        if tag == "figcaption":
            self.captions.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside.append((tag, " ".join(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "figcaption" in self.open:
            self.captions[-1] += data
        if "style" in self.open:
            self.styles += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


def image(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> Media:
    samples = photograph(height, width, channels, dtype=dtype)
    return Media(kind="image", samples=samples, sample_format={1: "u8", 2: "u16", 4: "f32"}[samples.itemsize])


def music(frames: int, rate: int = 44100) -> Media:
    """Two voices with an attack each quarter of a second, in two channels, and some noise."""
    t = np.arange(frames) / rate
    rng = np.random.default_rng(3)
    decay = np.exp(-8 * (t % 0.25))
    left = decay * np.sin(2 * np.pi * 220 * t) + 0.3 * np.sin(2 * np.pi * 1760 * t)
    right = decay * np.sin(2 * np.pi * 330 * t) + 0.02 * rng.standard_normal(frames)
    samples = np.rint(12000 * np.stack([left, right], 1)).astype(np.int16)
    return Media(kind="audio", samples=samples, sample_format="s16", rate=rate)


def scan(*sizes: int) -> Media:
    return Media(kind="volume", samples=volume(*sizes), sample_format="u8")


def check(text: str) -> Page:
    """All that holds of every page."""
    assert len(text.encode()) < MOST_BYTES
    found = Page(text)
    assert not found.open
    identities = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(identities)) == len(identities)
    for tag, attributes in found.elements:
        for name in ("src", "href", "poster", "srcset", "data", "action", "xlink:href"):
            address = attributes.get(name)
            if address is None:
                continue
            assert address.startswith(("data:", "#")), (tag, name, address[:60])
            if address.startswith("#"):
                assert address[1:] in identities
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "url(" not in (attributes.get("style") or "")
    assert not re.search(r"url\(\s*['\"]?(?!data:|#)", found.styles)
    assert "@import" not in found.styles
    policy = [a["content"] for a in found.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == [page.POLICY]
    assert "http:" not in page.POLICY and "https:" not in page.POLICY and "*" not in page.POLICY
    assert all("alt" in attributes for attributes in found.attributes("img"))
    for attributes in found.attributes("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    labelled = {attributes["for"] for attributes in found.attributes("label") if "for" in attributes}
    assert labelled <= set(identities)
    figures = [a for a in found.attributes("figure") if "figure" in (a.get("class") or "").split()]
    assert len(figures) >= 12
    assert len(found.captions) == len(figures)
    for caption in found.captions:
        check_caption(caption)
    return found


def check_caption(caption: str) -> None:
    """A caption says something, names clauses that are there and functions that are there."""
    where = re.search(r"SPEC\.md, clauses? ([\d., ]+) · (.+)$", " ".join(caption.split()))
    assert where, caption
    assert len(caption) > 100
    clauses = where[1].split(", ")
    assert clauses and set(clauses) <= CLAUSES, clauses
    functions = re.findall(r"([\w/]+)\.(py|mjs): ([\w.]+)", where[2])
    assert functions
    for module, language, name in functions:
        if language == "mjs":
            paths = [folder / f"{module}.mjs" for folder in (ROOT, ROOT / "walloc_ref")]
            path = next(path for path in paths if path.exists())
            assert re.search(rf"\bfunction {name}\(", path.read_text(encoding="utf-8"))
            continue
        found = importlib.import_module(f"walloc_ref.{module.replace('/', '.')}")
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)


# ---- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "media"),
    [
        ("LinearCodec2D", image(61, 90)),
        ("Codec2D", image(64, 83)),
        ("ResidualCodec2D", image(40, 40, dtype=np.uint16)),
        ("Codec1D", music(9001)),
        ("LinearCodec3D", scan(13, 24, 31)),
    ],
    ids=["LinearCodec2D", "Codec2D", "ResidualCodec2D", "Codec1D", "LinearCodec3D"],
)
def test_pages_of_all_architectures(architecture, media):
    codec = tiny_codec(architecture)
    found = check(report.explain(media, codec, name="some.file"))
    sections = [attributes["id"] for attributes in found.attributes("section")]
    assert sections[:4] == ["signal", "transform", "projection", "symbols"]
    assert {"bits", "coder", "decoder", "outcome", "impulse", "rate"} <= set(sections)


@pytest.mark.parametrize(
    ("architecture", "media"),
    [
        ("LinearCodec2D", image(1, 1)),
        ("Codec2D", image(5, 70, 1)),
        ("Codec1D", music(1)),
        ("LinearCodec3D", scan(1, 1, 2)),
    ],
    ids=["one pixel", "grey strip", "one frame", "two voxels"],
)
def test_pages_of_next_to_nothing(architecture, media):
    check(report.explain(media, tiny_codec(architecture), name="small"))


def test_constant_samples_and_floats_have_pages():
    flat = Media(kind="image", samples=np.full((24, 24, 3), 128, np.uint8), sample_format="u8")
    check(report.explain(flat, tiny_codec(), name="flat"))
    floats = Media(kind="image", samples=photograph(24, 30, 3).astype(np.float32), sample_format="f32")
    check(report.explain(floats, tiny_codec(), name="floats", step=2.0))
    silence = Media(kind="audio", samples=np.zeros((3000, 2), np.int16), sample_format="s16", rate=8000)
    check(report.explain(silence, tiny_codec("Codec1D"), name="silence"))


def test_many_channels_and_full_encoders_have_pages():
    spectral = tiny_codec(channels=5, latent_dim=8)
    check(report.explain(image(30, 40, 5), spectral, name="spectral"))
    full = tiny_codec("Codec2D", lightweight_encode=False, Ne=32)
    check(report.explain(image(40, 40), full, name="full"))


def test_of_large_files_the_middle_is_explained(monkeypatch):
    monkeypatch.setitem(work.MOST, "image", 48 * 48)
    text = report.explain(image(100, 160), tiny_codec(), name="large")
    assert "the middle" in text and "of 160 × 100" in text
    check(text)


def test_noise_does_not_burst_the_page():
    rng = np.random.default_rng(0)
    side = math.isqrt(work.MOST["image"])
    noise = Media(kind="image", samples=rng.integers(0, 256, (side, side, 3), np.uint8), sample_format="u8")
    check(report.explain(noise, tiny_codec(J=3, latent_dim=48), name="noise"))


def test_names_cannot_write_html():
    name = '<script>alert("1")</script>.png'
    text = report.explain(image(24, 24), tiny_codec(name="<b>&tiny"), name=name)
    assert "<script>alert" not in text and "<b>&tiny" not in text
    check(text)


def test_what_is_asked_of_the_encoder_counts():
    coarse, fine = (report.explain(image(64, 64), tiny_codec(), name="x", step=step) for step in (4.0, 1.0))
    sizes = [int(re.search(r"becomes ([\d\u202f]+) bytes", text)[1].replace("\u202f", "")) for text in (coarse, fine)]
    assert sizes[0] < sizes[1]


# ---- what pages show -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "media"),
    [("Codec2D", image(33, 47)), ("Codec1D", music(2500)), ("LinearCodec3D", scan(9, 12, 15))],
    ids=["image", "audio", "volume"],
)
def test_stages_one_by_one_are_the_codec(architecture, media):
    codec = tiny_codec(architecture)
    followed = work.follow(codec, media)
    decoded = walloc_ref.codec.decode_stream(followed.stream, codec=codec).samples
    assert np.array_equal(followed.samples_back, decoded.reshape(followed.samples_back.shape))
    assert np.array_equal(np.rint(followed.companded).astype(int), followed.symbols)
    payload = 8 * sum(map(len, walloc_ref.stages.container.read(followed.stream).slices))
    assert abs(followed.costs.sum() - payload) <= 16 * followed.header.slice_count


@pytest.mark.parametrize("sizes", [(11, 13), (1, 60), (3, 5, 7)], ids=["image", "audio", "volume"])
def test_costs_are_those_of_the_decisions_that_the_plain_coder_takes(sizes):
    symbols = np.rint(np.random.default_rng(5).laplace(0, 3, (3, *sizes))).astype(np.int16).clip(-31, 31)
    tables = entropy.default_tables(3, 6)
    fast = importlib.import_module("walloc_ref.fast.entropy")
    found = fast.costs(symbols, tables)
    watched = coder.watch(symbols, tables, symbols.size)
    assert len(watched) == symbols.size
    for symbol in watched:
        depth, plane, row, column = symbol.place
        at = (plane, depth, row, column) if symbols.ndim == 4 else (plane, row, column)
        assert symbol.value == symbols[at]
        assert math.isclose(symbol.bits, found[at], abs_tol=1e-4)


def test_a_watched_coder_stops_where_it_is_told_and_leaves_nothing_behind():
    symbols = np.zeros((2, 6, 6), np.int16)
    tables = entropy.default_tables(2, 8)
    encode, walker = entropy.encode, entropy.walk_slice
    before = entropy.encode(symbols, tables)
    assert len(coder.watch(symbols, tables, 10)) == 10
    assert entropy.encode is encode and entropy.walk_slice is walker
    assert entropy.encode(symbols, tables) == before
    assert set(trace.COORDINATES) == {"depth", "plane", "row", "column"}


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_functions_along_an_axis_are_those_of_the_transform(levels):
    looked, put = latents.analysis_along(levels), latents.synthesis_along(levels)
    x = np.random.default_rng(levels).standard_normal((1, 12 << levels))
    bands = wavelet.analyse(x, levels)
    middle = 6 << levels
    window = x[0, middle - (5 << levels) : middle + (5 << levels)]
    assert np.allclose(looked @ window, bands[:, 6], atol=1e-12)
    assert np.allclose(put @ looked.T, np.eye(1 << levels), atol=1e-10)
    spectra = np.square(np.abs(np.fft.rfft(looked, axis=1)))
    centres = (spectra @ np.arange(spectra.shape[1])) / spectra.sum(axis=1)
    ranks = [transform.band_of_rank(rank) for rank in range(1 << levels)]
    assert np.all(np.diff(centres[ranks]) > 0)  # the order of the mosaic is that of frequency


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_functions_of_latents_are_their_weights_in_the_signal_domain(axes):
    levels, channels, rng = 1, 2, np.random.default_rng(axes)
    x = rng.standard_normal((channels, *(24,) * axes))
    bands = wavelet.analyse(x, levels)
    weights = rng.standard_normal((3, len(bands)))
    function = latents.functions_of(weights, latents.analysis_along(levels), channels, axes)
    part = slice(4, 14)  # two positions before the fourth to three after
    window = x[(slice(None), *(part,) * axes)]
    wanted = weights @ bands[(slice(None), *(4,) * axes)]
    found = np.tensordot(function, window, axes=axes + 1)
    assert np.allclose(found, wanted, atol=0.05 * np.abs(weights).sum(axis=1).max())
    ranks = transform.ranks_of_bands(levels, axes)
    assert sorted(map(tuple, ranks.tolist())) == sorted(np.ndindex(*(2,) * axes))


def test_the_detail_is_where_the_bits_are():
    samples = np.full((400, 400, 3), 90, np.uint8)
    samples[300:360, 40:100] = np.random.default_rng(0).integers(0, 255, (60, 60, 3))
    codec = tiny_codec()
    window = work.detail_of(work.follow(codec, Media(kind="image", samples=samples, sample_format="u8")))
    assert all(at.stop - at.start == 128 for at in window)
    assert window[0].start <= 300 and window[0].stop >= 360
    assert window[1].start <= 40 and window[1].stop >= 100


def test_figures_name_functions_of_this_package_alone():
    assert page.source(wavelet.analyse) == "stages/wavelet.py: analyse"
    with pytest.raises(ValueError, match="none of"):
        page.source(np.linalg.qr)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_command_writes_a_page(tmp_path, capsys):
    from walloc_ref.files import image_files

    picture, out = tmp_path / "small.png", tmp_path / "page.html"
    picture.write_bytes(image_files.write_image(image_files.ImageSamples(photograph(48, 56)), "small.png"))
    arguments = ["explain", str(picture), "--out", str(out), "--model", "linear_rgb_4x", "--quality", "40"]
    assert cli.main(arguments) == 0
    assert "open it in a browser" in capsys.readouterr().out
    check(out.read_text(encoding="utf-8"))


def test_command_refuses_in_one_line(tmp_path, capsys):
    array = tmp_path / "volume.npy"
    np.save(array, volume(8, 9, 10).astype(np.float32))  # no model for such volumes is bundled
    out = tmp_path / "page.html"
    assert cli.main(["explain", str(array), "--axes", "DHW", "--out", str(out)]) == 3
    assert "--model" in capsys.readouterr().err
    assert cli.main(["explain", str(array), "--out", str(tmp_path / "page.pdf")]) == 3
    assert ".html" in capsys.readouterr().err
    assert cli.main(["explain", str(tmp_path / "none.png"), "--out", str(out)]) == 3
    assert not out.exists()
