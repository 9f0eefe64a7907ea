"""Evaluation: known distortions, known curves, sizes that add up, sheets of the right size; benchmarks that run."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from models import photograph, tiny_codec, tiny_model, volume
from PIL import Image
from test_cli import run

import walloc_ref
from walloc_ref import model as models
from walloc_ref.errors import BadSamples, UnreadableFile
from walloc_ref.files import image_files
from walloc_ref.measure import bench, costs, evaluate, linear_decoder, measures, other_codecs, plots, sheet
from walloc_ref.plain import compiled
from walloc_ref.stages import quantise, wavelet

RATE = 44100


def clip(frames: int = 6000, channels: int = 2) -> np.ndarray:
    """Two chirps and some noise: int16 (frames, channels)."""
    rng = np.random.default_rng(1)
    t = np.arange(frames)[:, None] / RATE
    tone = np.sin(2 * np.pi * (300 + 400 * np.arange(1, channels + 1)) * t * (1 + t))
    return np.rint(9000 * tone + 200 * rng.standard_normal((frames, channels))).astype(np.int16)


def test_known_psnr():
    original = np.full((10, 12, 3), 100, np.uint8)
    decoded = original.copy()
    assert measures.psnr(measures.mean_squared_error(original, decoded)) == math.inf
    decoded += 1
    assert measures.psnr(measures.mean_squared_error(original, decoded)) == pytest.approx(48.1308, abs=1e-4)
    decoded[:] = 90  # no wrap around of bytes
    assert measures.mean_squared_error(original, decoded) == 100
    with pytest.raises(ValueError, match="differ"):
        measures.mean_squared_error(original, decoded[:5])


def test_ms_ssim_against_its_formula():
    """The product of contrast and structure over scales, luminance at the last, written out with SciPy."""
    from scipy.ndimage import correlate1d

    original = photograph(200, 260)
    decoded = np.clip(original + np.random.default_rng(3).normal(0, 12, original.shape), 0, 255).astype(np.uint8)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def smooth(p):
        return correlate1d(correlate1d(p, taps, axis=0), taps, axis=1)[5:-5, 5:-5]

    expected = []
    for channel in range(3):
        x, y = (p[:, :, channel].astype(float) for p in (original, decoded))
        product = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mx, my = smooth(x), smooth(y)
            vx, vy, vxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
            structure = (2 * vxy + 7.65**2) / (vx + vy + 7.65**2)
            luminance = (2 * mx * my + 2.55**2) / (mx * mx + my * my + 2.55**2)
            product *= np.mean(structure * luminance if scale == 4 else structure) ** weight
            if x.shape[0] % 2:
                x, y = np.vstack([x, x[-1:]]), np.vstack([y, y[-1:]])
            if x.shape[1] % 2:
                x, y = np.hstack([x, x[:, -1:]]), np.hstack([y, y[:, -1:]])
            x, y = (p.reshape(p.shape[0] // 2, 2, p.shape[1] // 2, 2).mean(axis=(1, 3)) for p in (x, y))
        expected.append(product)
    found = measures.structural_similarity(original, decoded)
    assert found.ms_ssim == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0 < found.ssim < found.ms_ssim < 1
    same = measures.structural_similarity(original, original)
    assert (same.ssim, same.ssim_reduced, same.ms_ssim) == pytest.approx((1, 1, 1))
    small = measures.structural_similarity(original[:100], decoded[:100])
    assert small.ssim is not None and small.ms_ssim is None
    assert measures.structural_similarity(original[:8], decoded[:8]) == measures.Similarity(None, None, None)


@pytest.mark.parametrize(("shape", "factor"), [((383, 400), 1), ((384, 401), 2), ((700, 641), 3)])
def test_ssim_in_both_conventions(shape, factor):
    """scikit-image's, at full resolution and after averaging by round(smaller side / 256)."""
    similarity = pytest.importorskip("skimage.metrics").structural_similarity
    original = photograph(*shape)
    decoded = np.clip(original + np.random.default_rng(4).normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "channel_axis": 2}
    h, w = (n // factor for n in shape)
    means = [
        p[: h * factor, : w * factor].astype(float).reshape(h, factor, w, factor, 3).mean((1, 3))
        for p in (original, decoded)
    ]
    found = measures.structural_similarity(original, decoded)
    assert found.ssim == pytest.approx(similarity(original.astype(float), decoded.astype(float), **how), abs=1e-9)
    assert found.ssim_reduced == pytest.approx(similarity(*means, **how), abs=1e-9)
    assert (found.ssim_reduced == found.ssim) == (factor == 1)


def test_spatial_and_residual_distortion():
    """Gain and delay of a channel, and leaking from the other, are spatial distortion; noise is residual."""
    rng, rate = np.random.default_rng(5), 500
    original = rng.standard_normal((45 * rate, 2))
    noise = rng.standard_normal(original.shape)
    louder, leaking, late = original * [1.1, 1.1], original + 0.1 * original[:, ::-1], np.roll(original, 7, axis=0)
    for changed in (louder, leaking):
        ssdr, srdr = measures.spatial_distortion(original, changed + 0.01 * noise, rate)
        assert (ssdr, srdr) == pytest.approx((20, 40), abs=0.2)
    late[:7] = 0
    one_frame = [x[: 20 * rate] for x in (original, late + 0.01 * noise)]
    assert measures.spatial_distortion(*one_frame, rate) == pytest.approx((-3, 40), abs=0.2), "a shift of both channels"
    assert min(measures.spatial_distortion(original, original, rate)) > 250, "nothing but rounding"
    assert all(map(math.isnan, measures.spatial_distortion(0 * original, original, rate)))


def test_jpeg_2000_keeps_to_the_ratio_asked_for():
    other = other_codecs.find("image", "jpeg2000")
    if other.missing():
        pytest.skip(other.missing())
    samples = photograph(256, 300)
    last = 0.0
    for ratio in (64, 32, 16):
        data = other.encode(samples, None, 1 / ratio)
        assert len(data) == pytest.approx(samples.size / ratio, rel=0.1)
        quality = measures.psnr(measures.mean_squared_error(samples, other.decode(data, samples, None)))
        assert quality > last
        last = quality
    assert other.decode(other.encode(samples[:, :, 0], None, 0.1), samples[:, :, 0], None).shape == (256, 300)


RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
ANCHOR = [(r, 30 + 10 * math.log10(r / 0.1)) for r in RATES]


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_bd_rate_of_a_shifted_curve(factor):
    """The same qualities at `factor` times the rates: that change in rate, and as many dB as the curve's slope says."""
    test = [(factor * rate, quality) for rate, quality in ANCHOR]
    assert measures.bd_rate(ANCHOR, test) == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert measures.bd_psnr(ANCHOR, test) == pytest.approx(-10 * math.log10(factor), abs=1e-9)
    for point in test[1:-1]:
        assert measures.bd_rate(ANCHOR, [point]) == pytest.approx(100 * (factor - 1), abs=1e-6)
        assert measures.bd_psnr(ANCHOR, [point]) == pytest.approx(-10 * math.log10(factor), abs=1e-9)


def test_bd_rate_of_published_curves():
    """The curves in the documentation of the package `bjontegaard`, and what its version 1.3.0 says by PCHIP."""
    anchor = list(zip([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851]))
    test = list(zip([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987]))
    assert measures.bd_rate(anchor, test) == pytest.approx(-4.417485350589, abs=1e-9)
    assert measures.bd_psnr(anchor, test) == pytest.approx(0.119692785425, abs=1e-9)


@pytest.mark.parametrize("rate", [0.3, 2.7584, 7.1, 1e5])
def test_bd_rate_where_points_have_the_same_rate(rate):
    """Two models with the same symbols: the better one is on the curve."""
    curve = [(rate * factor, 30 + 10 * math.log10(factor)) for factor in (0.25, 0.5, 1, 2)]
    worse = [(r, quality - 1) for r, quality in curve]
    for both in (curve + worse, worse + curve):
        assert measures.bd_rate(curve, both) == measures.bd_psnr(curve, both) == 0


def test_bd_rate_without_overlap():
    assert measures.bd_rate(ANCHOR, [(1, 80.0)]) is None
    assert measures.bd_rate(ANCHOR, [(1, 80.0), (2, 90.0)]) is None
    assert measures.bd_psnr(ANCHOR, [(100, 40.0)]) is None
    assert measures.bd_rate(ANCHOR[:1], ANCHOR) is None
    assert measures.bd_rate(ANCHOR, []) is None
    assert measures.bd_rate([*ANCHOR, (0.3, 20.0), (5.0, math.inf)], ANCHOR) == pytest.approx(0)  # no point to use


def test_nearest_size():
    tried = []

    def encode(setting: float) -> bytes:
        tried.append(setting)
        return bytes(int(10 * setting) + 100)

    settings = tuple(range(101))
    assert other_codecs.nearest_size(encode, settings, 504)[0] == 40
    assert other_codecs.nearest_size(encode, settings, 507)[0] == 41
    assert other_codecs.nearest_size(encode, settings, 1) == (0, bytes(100))
    assert other_codecs.nearest_size(encode, settings, 10**6)[0] == 100
    known = {39: 490, 41: 510, 40: 500}
    tried.clear()
    assert other_codecs.nearest_size(encode, settings, 502, known)[0] == 40
    assert tried == [40]


def test_demonstration():
    samples = photograph(72, 100)
    codec = tiny_codec("LinearCodec2D", latent_dim=12)
    found = evaluate.demonstrate(samples, codec, name="in.png", against=("webp", "jpeg"))
    assert len(codec.encode(samples)) == len(found.stream) == found.measured.bytes
    assert found.measured.psnr == measures.psnr(measures.mean_squared_error(samples, found.samples))
    webp, jpeg = found.against
    assert (webp.name, jpeg.name) == ("webp", "jpeg")
    assert webp.measured.mse == measures.mean_squared_error(samples, webp.samples)
    assert abs(webp.measured.bytes - found.measured.bytes) < 0.1 * found.measured.bytes
    lines = found.table.splitlines()
    assert len(lines) == 5
    assert len(set(map(len, lines))) == 1
    assert f"  {found.measured.bytes}  {samples.size / found.measured.bytes:.1f}:1  " in lines[2]
    with Image.open(io.BytesIO(found.image)) as image:
        width = 2 * (sheet.MIN_PANEL + sheet.MARGIN) + sheet.MARGIN
        assert (image.format, image.size[0]) == ("PNG", width)
        assert image.size[1] > 2 * 72 * sheet.MIN_PANEL / 100
    with pytest.raises(BadSamples, match="8-bit"):
        evaluate.demonstrate(samples.astype(np.uint16), codec)


def test_sheet_shows_the_samples_themselves():
    """Panels as wide as the image hold its samples unchanged, where the layout says."""
    samples = photograph(50, 400)
    panels = [sheet.Panel(f"title {i}", "caption", samples) for i in range(3)]
    drawn = np.asarray(Image.open(io.BytesIO(sheet.contact_sheet("heading", panels))).convert("RGB"))
    top = 2 * sheet.MARGIN + 3 * sheet.LINE + 6
    assert (drawn[top : top + 50, sheet.MARGIN : sheet.MARGIN + 400] == samples).all()
    assert (sheet.difference(samples, samples) == 128).all()
    assert sheet.difference(np.array([[9]], "u1"), np.array([[19]], "u1"))[0, 0] == 128 + 10 * sheet.GAIN
    wrong = samples.copy()
    wrong[:, 300:330] ^= 128
    top, left = sheet.hardest_place(samples, wrong, 40)
    assert top in (0, 10) and 260 < left <= 300


@pytest.fixture(scope="module")
def result():
    """An evaluation of two models, one of them grey, on two small images."""
    items = [evaluate.Item(f"p{i}", photograph(48, 64, seed=i)) for i in range(2)]
    codecs = [tiny_codec("LinearCodec2D", latent_dim=12, name="a"), tiny_codec("LinearCodec2D", channels=1, name="g")]
    codecs.append(tiny_codec("LinearCodec2D", latent_dim=24, name="b"))
    sheets = {}
    found = evaluate.evaluate(items, codecs, ["webp", "jpeg"], steps=(2.0, 0.5), draw=sheets.__setitem__)
    assert sorted(sheets) == ["a/p0", "a/p1", "b/p0", "b/p1", "g/p0", "g/p1"]
    return items, codecs, json.loads(json.dumps(found, allow_nan=False))


def test_evaluation(result):
    items, codecs, found = result
    assert (found["format"], found["kind"], found["missing"]) == (evaluate.FORMAT, "image", {})
    assert [item["shape"] for item in found["items"]] == [[48, 64, 3]] * 2
    ours = {p["codec"]: p for p in found["points"] if p["model_id"]}
    assert list(ours) == ["a", "g", "b"]
    for codec in codecs:
        point = ours[codec.name]
        grey = codec.name == "g"
        samples = [evaluate.fitting(item.samples, codec) for item in items]
        streams = [codec.encode(s) for s in samples]
        assert [m["bytes"] for m in point["items"]] == list(map(len, streams))
        assert point["bytes"] == sum(map(len, streams))
        assert point["bits_per_place"] == pytest.approx(8 * point["bytes"] / (2 * 48 * 64))
        assert point["ratio"] == pytest.approx((1 if grey else 3) * 2 * 48 * 64 / point["bytes"])
        assert point["dimensionality_reduction"] == pytest.approx((16 if grey else 48) / codec.config.latent_dim)
        assert point["psnr"] == pytest.approx(np.mean([m["psnr"] for m in point["items"]]))
        mean = np.mean([m["mse"] for m in point["items"]])
        assert point["psnr_of_mean_mse"] == pytest.approx(10 * math.log10(255**2 / mean))
        assert (point["grey"], point["model_id"]) == (grey, codec.model_id)
        for name in ("webp", "jpeg"):
            (same,) = [p for p in found["points"] if p["same_bytes_as"] == codec.name and p["codec"] == name]
            assert len(same["items"]) == 2 and same["grey"] == grey and same["setting"] is None
            curve = [p for p in found["points"] if p["setting"] is not None and (p["codec"], p["grey"]) == (name, grey)]
            assert [p["setting"] for p in curve] == list(other_codecs.find("image", name).curve)
    assert len(found["comparisons"]) == 2 * (3 + 1)  # each model, and the two colour models as one curve
    for codec, curve in zip(codecs, found["curves"], strict=True):
        assert (curve["model"], curve["model_id"], curve["grey"]) == (codec.name, codec.model_id, codec.name == "g")
        assert [p["step"] for p in curve["points"]] == [2.0, 1.0, 0.5]
        coarse, same, fine = curve["points"]
        assert coarse["bytes"] < same["bytes"] < fine["bytes"]
        assert same["psnr"] == ours[codec.name]["psnr"] and coarse["linear_psnr"] is not None
        streams = [codec.encode(evaluate.fitting(item.samples, codec), step=2.0) for item in items]
        assert coarse["bytes"] == sum(map(len, streams))
        assert set(curve["against"]) == {"webp", "jpeg"}
        for name, entries in curve["against"].items():
            assert set(entries) == set(evaluate.BD_MEASURES)
            theirs = [p for p in found["points"] if p["setting"] is not None and p["codec"] == name]
            theirs = [p for p in theirs if p["grey"] == curve["grey"]]
            for measure, entry in entries.items():
                ends = [sorted(p[measure] for p in c if p[measure] is not None) for c in (curve["points"], theirs)]
                overlap = all(ends) and max(c[0] for c in ends) < min(c[-1] for c in ends)
                assert (entry["bd_rate_percent"] is not None) == overlap
                if overlap:
                    assert (entry["from"], entry["to"]) == (max(c[0] for c in ends), min(c[-1] for c in ends))
    text = evaluate.table(found)
    for codec in codecs:
        assert f"{codec.name} over steps" in text
        assert f"\n{codec.name} " in text and f"  {ours[codec.name]['bytes']}  " in text


def test_scaled_first_and_taken_over():
    """Scaling first codes the smaller image; an earlier result gives curves and models that have not changed."""
    items = [evaluate.Item("p", photograph(48, 64))]
    codec = tiny_codec("LinearCodec2D", latent_dim=12, name="a")
    how = {"steps": (2.0,), "scales": (0.5,), "beside": ["webp"]}
    first = evaluate.evaluate(items, [codec], ["webp", "jpeg"], **how)
    (curve,) = first["curves"]
    (scaled,) = curve["scaled"]
    small = np.asarray(Image.fromarray(items[0].samples).resize((32, 24), Image.Resampling.LANCZOS))
    assert (scaled["scale"], scaled["bytes"]) == (0.5, len(codec.encode(small)))
    large = Image.fromarray(walloc_ref.decode(codec.encode(small), codec=codec)).resize((64, 48), 1)
    mse = measures.mean_squared_error(items[0].samples, np.asarray(large))
    assert scaled["psnr"] == pytest.approx(measures.psnr(mse))
    beside = {p["codec"] for p in first["points"] if p["same_bytes_as"]}
    assert beside == {"webp"}
    column = [line.split("|")[-2].strip() for line in evaluate.step_table(curve, True, markdown=True).splitlines()]
    assert column[0] == "scaled first, same bytes: dB" and column[-1] == f"{curve['points'][-1]['psnr']:.2f}"

    earlier = json.loads(json.dumps(first))
    for point in earlier["points"]:
        point["psnr"] += 1  # to tell what was taken over
    again = evaluate.evaluate(items, [codec], ["webp", "jpeg"], earlier=earlier, **how)
    assert again["points"] == earlier["points"] and again["curves"][0]["points"] == curve["points"]
    other = tiny_codec("LinearCodec2D", latent_dim=24, name="a")  # another identity is measured
    fresh = evaluate.evaluate(items, [other], ["webp"], earlier=earlier, **how)
    (point,) = [p for p in fresh["points"] if p["model_id"]]
    assert point["bytes"] == len(other.encode(items[0].samples))
    old = {**earlier, "format": evaluate.EARLIER_FORMAT, "curves": []}
    old["points"] = [{k: v for k, v in p.items() if k != "ssim_reduced"} for p in old["points"]]
    mixed = evaluate.evaluate(items, [other], ["webp"], earlier=old, **how)
    assert mixed["curves"][0]["against"]["webp"]["ssim_reduced"]["bd_rate_percent"] is None
    with pytest.raises(BadSamples, match="reuse"):
        evaluate.evaluate([evaluate.Item("q", photograph(48, 64))], [codec], ["webp"], earlier=earlier)


@pytest.mark.parametrize("architecture", ["LinearCodec2D", "Codec2D", "Codec1D"])
def test_linear_decoder(architecture):
    """A right inverse of the projection, and of all solutions the one whose samples have the least norm."""
    codec = tiny_codec(architecture)
    config = codec.config
    decoder = linear_decoder.matrix(codec.model)
    weight = codec.model.tensors["encoder.0.weight"].reshape(config.latent_dim, -1).astype(float)
    np.testing.assert_allclose(weight @ decoder, np.eye(config.latent_dim), atol=1e-9)
    axes = 1 if architecture == "Codec1D" else 2
    norms = np.tile(linear_decoder.band_norms(config.J, axes), config.channels)[:, None]
    rows = weight.T / norms  # solutions of least norm are mixtures of these
    mixture = np.linalg.lstsq(rows, norms * decoder, rcond=None)[0]
    np.testing.assert_allclose(rows @ mixture, norms * decoder, atol=1e-9)


def test_band_norms_are_those_of_samples():
    """Of uncorrelated errors, each coefficient's counts as much as its synthesis function says."""
    rng = np.random.default_rng(0)
    errors = np.zeros((16, 64, 64))
    band = 6
    errors[band] = rng.standard_normal((64, 64))
    expected = np.sum(wavelet.synthesise(errors, 2) ** 2) / np.sum(errors**2)
    assert linear_decoder.band_norms(2, 2)[band] ** 2 == pytest.approx(expected, rel=0.05)


def test_linear_psnr_of_images_and_audio(result):
    """`LinearCodec2D` of tests decodes by the transpose itself, but for its bias; audio against its own definition."""
    items, codecs, found = result
    for point in found["points"]:
        assert (point["linear_psnr"] is None) == (point["model_id"] is None)
    codec, item = codecs[0], items[0]
    symbols = codec.to_symbols(np.moveaxis(item.samples, -1, 0) / 255 - 0.5)
    decoder = linear_decoder.matrix(codec.model)
    latents = quantise.dequantise(symbols, 8) - codec.model.tensors["encoder.0.bias"][:, None, None]
    x = wavelet.synthesise(np.einsum("nd,dhw->nhw", decoder, latents), codec.config.J)
    decoded = np.clip(np.rint(255 * (x + 0.5)), 0, 255)
    mse = np.mean((np.moveaxis(decoded, 0, -1) - item.samples) ** 2)  # 48x64 needs no padding
    assert found["points"][-3]["codec"] == "b"
    (ours,) = [p for p in found["points"] if p["codec"] == codec.name]
    assert ours["items"][0]["linear_psnr"] == pytest.approx(10 * math.log10(255**2 / mse))

    samples = clip()
    audio = tiny_codec("Codec1D")
    found = evaluate.evaluate([evaluate.Item("clip", samples, RATE, "s16")], [audio], [], curves=False)
    centred = samples / 32768 - np.mean(samples / 32768)
    x = centred.T / (2 * np.abs(centred).max())
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % audio.config.multiple)))
    latents = quantise.dequantise(audio.to_symbols(padded), 8)[:, 1:-1]
    latents = latents - audio.model.tensors["encoder.0.bias"][:, None]
    y = wavelet.synthesise(linear_decoder.matrix(audio.model) @ latents, audio.config.J)[:, : x.shape[1]]
    expected = -10 * math.log10(np.mean((np.clip(y, -0.5, 0.5) - x) ** 2))
    assert found["points"][0]["linear_psnr"] == pytest.approx(expected, abs=1e-6)


def test_plot(result):
    pytest.importorskip("matplotlib")
    from walloc_ref.measure import plots

    with Image.open(io.BytesIO(plots.rate_distortion(result[2]))) as image:
        assert image.size == (1200, 840)
    assert b"<svg" in plots.rate_distortion(result[2], suffix=".svg")
    with pytest.raises(UnreadableFile):
        plots.rate_distortion(result[2], suffix=".xyz")


def test_what_cannot_be_evaluated():
    codec, item = tiny_codec(), evaluate.Item("p", photograph(8, 8))
    for items, codecs, against in (
        ([], [codec], []),
        ([item], [], []),
        ([item], [tiny_codec("Codec1D")], []),
        ([evaluate.Item("deep", photograph(8, 8, dtype=np.uint16))], [codec], []),
        ([item], [codec], ["gif"]),
    ):
        with pytest.raises(BadSamples):
            evaluate.evaluate(items, codecs, against)


def test_codec_that_is_missing(monkeypatch):
    monkeypatch.setattr(other_codecs.ImageCodec, "missing", lambda self: "not here" if self.name == "jxl" else None)
    items = [evaluate.Item("p", photograph(16, 16))]
    found = evaluate.evaluate(items, [tiny_codec()], ["webp", "jxl"], curves=False)
    assert found["missing"] == {"jxl": "not here"}
    assert {p["codec"] for p in found["points"]} == {"tiny", "webp"}
    assert "JPEG XL left out: not here" in evaluate.table(found)


def test_audio():
    """PSNR of the signal without its mean, over its peak and halved: the authors' definition."""
    samples = clip()
    codec = tiny_codec("Codec1D")
    items = [evaluate.Item("clip", samples, RATE, "s16")]
    found = evaluate.evaluate(items, [codec], ["opus", "mp3"], curves=False)
    point = found["points"][0]
    stream = codec.encode(samples, RATE)
    decoded = evaluate.decode_stream(stream, codec=codec).samples
    x, y = samples / 32768, decoded / 32768
    mean = x.mean()
    peak = np.abs(x - mean).max()
    mse = np.mean(((x - mean) / (2 * peak) - (y - mean) / (2 * peak)) ** 2)
    assert point["psnr"] == pytest.approx(-10 * math.log10(mse))
    assert point["bits_per_place"] == pytest.approx(8 * len(stream) / samples.size)
    assert point["ratio"] == pytest.approx(2 * samples.size / len(stream))


@pytest.mark.parametrize("name", ["opus", "mp3", "vorbis"])
def test_sound_of_other_codecs_is_aligned(name):
    codec = other_codecs.find("audio", name)
    if codec.missing():
        pytest.skip(codec.missing())
    samples = clip(3 * 8192) / 32768
    for delay in (0, 700, -700):
        decoded = codec.decode(codec.encode(samples, RATE, 0.1), samples, RATE)
        late = np.pad(decoded, ((delay, 0), (0, 0))) if delay >= 0 else decoded[-delay:]
        found = other_codecs.aligned(late, samples)
        assert found.shape == samples.shape
        inner = slice(1000, -1000)
        assert measures.psnr(measures.mean_squared_error(samples[inner], found[inner]), 1.0) > 25


def test_bundled_photograph():
    image = image_files.read_image(evaluate.PHOTOGRAPH.read_bytes(), "coffee.png")
    assert image.samples.shape == (400, 600, 3)
    assert evaluate.PHOTOGRAPH.stat().st_size < 500_000
    text = (evaluate.PHOTOGRAPH.parent / "README.md").read_text(encoding="utf-8")
    assert evaluate.PHOTOGRAPH.name in text and "CC0" in text


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with two images and a model on the search path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    Path("tiny.safetensors").write_bytes(models.save(tiny_model("LinearCodec2D", latent_dim=12)))
    Path("photos/deep").mkdir(parents=True)
    for i, name in enumerate(("photos/a.png", "photos/deep/b.png")):
        Image.fromarray(photograph(40, 52, seed=i)).save(name)
    Path("photos/notes.txt").write_text("not an image")
    return tmp_path


def test_demo_command(place, capsys):
    code, out, _ = run(capsys, "demo", "photos/a.png", "--model", "tiny", "--out", "sheet.png")
    assert code == 0
    assert out.startswith("photos/a.png: 52x40, 6240 bytes of samples, model tiny\n")
    assert "every sample against the hash" in out and "sheet.png" in out
    assert Image.open("sheet.png").format == "PNG"
    code, _, err = run(capsys, "demo", "photos/a.png", "--model", "tiny", "--out", "sheet.gif")
    assert code == 3 and "--out: sheet.gif" in err and err.count("\n") == 1


def test_eval_command(place, capsys):
    arguments = ["eval", "photos", "--models", "tiny", "--against", "webp"]
    code, out, _ = run(capsys, *arguments, "--json", "out.json", "--sheet", "sheets")
    assert code == 0
    found = json.loads(Path("out.json").read_text())
    assert [item["name"] for item in found["items"]] == ["a", "deep/b"]
    assert out == evaluate.table(found) + "\n"
    assert Path("sheets/tiny/a.png").is_file() and Path("sheets/tiny/deep/b.png").is_file()
    code, out, _ = run(capsys, *arguments, "--reuse", "out.json", "--json", "again.json", "--markdown")
    again = json.loads(Path("again.json").read_text())
    assert code == 0 and "\n| --- | ---: |" in out
    curves = [[p for p in points if p["setting"] is not None] for points in (found["points"], again["points"])]
    assert curves[0] == curves[1]  # times of coding included, so they were not measured again
    steps = ["--steps", "2,3", "--steps-of", "tiny=0.5,4,8"]
    code, out, _ = run(capsys, *arguments, *steps, "--json", "-")
    assert [p["step"] for p in json.loads(out)["curves"][0]["points"]] == [8, 4, 1, 0.5]
    for wrong, complaint in (("other=2", "steps_of: other"), ("tiny=0", "not steps"), ("tiny", "not steps")):
        code, _, err = run(capsys, *arguments, "--steps-of", wrong)
        assert code in (2, 3) and complaint in err
    Path("photos/deep/b.png").unlink()
    assert (
        run(capsys, *arguments, "--reuse", "out.json")[0] == run(capsys, *arguments, "--reuse", "photos/a.png")[0] == 3
    )
    code, out, _ = run(capsys, *arguments, "--no-curves", "--json", "-")
    assert code == 0 and json.loads(out)["comparisons"] == []
    for wrong in (["eval", "nothing.png", "--models", "tiny"], [*arguments, "--plot", "plot.gif"], ["eval", "sheets"]):
        code, _, err = run(capsys, *wrong, *(["--models", "none"] if wrong == ["eval", "sheets"] else []))
        assert code == 3 and err.count("\n") == 1


def test_eval_and_bench_read_what_encode_reads(place, capsys):
    np.save("photos/deep/c.npy", photograph(40, 52, seed=1))  # what b.png has
    arguments = ["--models", "tiny", "--against", "none", "--json", "-"]
    items = json.loads(run(capsys, "eval", "photos", *arguments)[1])["items"]
    assert [item["name"] for item in items] == ["a", "deep/b", "deep/c"]
    assert items[1]["sha256"] == items[2]["sha256"]
    code, out, _ = run(capsys, "bench", "photos/deep/c.npy", "--model", "tiny", "--repeats", "1", "--threads", "1")
    assert code == 0 and out.startswith("c, 52x40, model tiny, median of 1\n")
    np.save("five.npy", photograph(40, 52, 5))
    tifffile.imwrite("volume.tif", volume(6, 10, 14))
    for name, message in (("five.npy", "--against none"), ("volume.tif", "--halves volume")):
        code, _, err = run(capsys, "eval", name, "--models", "tiny")
        assert code == 3 and message in err and err.count("\n") == 1


@pytest.mark.parametrize("architecture", ["Codec2D", "LinearCodec2D", "ResidualCodec2D", "Codec1D"])
def test_bench(architecture):
    codec = tiny_codec(architecture)
    item = evaluate.Item("x", photograph(20, 28))
    if architecture == "Codec1D":
        item = evaluate.Item("x", clip(1000), RATE, "s16")
    found = json.loads(json.dumps(bench.run(codec, item, threads=(1, 2), repeats=1)))
    cases = {(c["stage"], c["variant"], c["threads"]): c for c in found["cases"]}
    for stage in ("analysis", "synthesis", "entropy encode", "entropy decode"):
        assert {("plain", 1), ("fast", 1)} <= {key[1:] for key in cases if key[0] == stage}
    for stage in ("signal to symbols", "symbols to signal", "encode", "decode"):
        assert {("plain", 1), ("fast", 1), ("fast", 2)} == {key[1:] for key in cases if key[0] == stage}
    for case in cases.values():
        assert case["mega_places_per_second"] == pytest.approx(case["places"] / case["seconds"] / 1e6)
    assert bench.table(found).count("\n") == len(cases) + 3
    with pytest.raises(BadSamples):
        bench.run(
            codec, evaluate.Item("x", photograph(8, 8)) if architecture == "Codec1D" else evaluate.Item("x", clip(), 1)
        )


def test_bench_command(place, capsys):
    code, out, _ = run(capsys, "bench", "photos/a.png", "--model", "tiny", "--repeats", "1", "--threads", "1")
    assert code == 0 and out.startswith("a, 52x40, model tiny, median of 1\n")
    code, out, _ = run(capsys, "bench", "photos/a.png", "--model", "tiny", "--memory", "300x200", "--json", "-")
    memory = json.loads(out)
    assert code == 0 and memory["raw_bytes"] == 300 * 200 * 3
    assert all(memory[what]["peak"] > memory[what]["before"] > 1e6 for what in ("encode", "decode"))
    for wrong in (["--threads", "0"], ["--threads", "x"], ["--repeats", "0"], ["--memory", "300"]):
        code, _, err = run(capsys, "bench", "photos/a.png", "--model", "tiny", *wrong)
        assert code == 3 and err.count("\n") == 1


def test_items_grow_by_mirror_images():
    item = evaluate.Item("x", photograph(20, 30))
    grown = costs.sized(item, 0.0024).samples
    assert grown.shape == (40, 60, 3)
    assert np.array_equal(grown[:20, :30], item.samples)
    assert np.array_equal(grown[20:, :30], item.samples[::-1])
    assert np.array_equal(grown[:20, 30:], item.samples[:, ::-1])
    assert np.array_equal(costs.sized(item, 0.00015).samples, item.samples[:10, :15])
    sound = evaluate.Item("x", clip(1000), 1000, "s16")
    longer = costs.sized(sound, 2.5)
    assert longer.places == 5000 and longer.rate == 1000 and longer.sample_format == "s16"
    assert np.array_equal(longer.samples[2000:], sound.samples[:500])


@pytest.mark.parametrize("architecture", ["Codec2D", "LinearCodec2D", "Codec1D"])
def test_costs(architecture):
    """All rows are there, and their bytes are those of files that were really coded."""
    codec = tiny_codec(architecture)
    item, sizes = evaluate.Item("x", photograph(20, 28)), (0.001, 0.002)
    if architecture == "Codec1D":
        item, sizes = evaluate.Item("x", clip(1000), RATE, "s16"), (0.1, 0.2)
    found = json.loads(json.dumps(costs.run(codec, item, sizes, threads=(1, 2), repeats=2, budget=math.inf)))
    assert found["format"] == costs.FORMAT and found["sizes"] == list(sizes)
    ours = [case for case in found["cases"] if case["setting"] is None]
    decoders = {costs.KERNEL, costs.NARROW} if compiled() else {costs.KERNEL}
    for size in sizes:
        stream = codec.encode(costs.sized(item, size).samples, item.rate, sample_format=item.sample_format)
        for threads in (1, 2):
            here = [case for case in ours if (case["size"], case["threads"]) == (size, threads)]
            assert {case["variant"] for case in here if case["stage"] == "decode"} == decoders
            stages = {"encode", "decode", "samples to symbols", "entropy encode", "entropy decode"}
            assert {case["stage"] for case in here} == stages
            assert {case["bytes"] for case in here} == {len(stream), None}
    names = [n for n in costs.AGAINST[item.kind] if other_codecs.find(item.kind, n).missing() is None]
    for name in names:
        rows = [case for case in found["cases"] if case["variant"] == name and case["equal_bytes"]]
        assert {(case["size"], case["stage"]) for case in rows} == {
            (s, way) for s in sizes for way in ("encode", "decode")
        }
        for case in rows:
            sample = costs.sized(item, case["size"])
            samples = evaluate.unit_range(sample.samples) if item.kind == "audio" else sample.samples
            data = other_codecs.find(item.kind, name).encode(samples, item.rate, case["setting"])
            assert case["bytes"] == len(data) and case["places"] == sample.places and case["turns"] == 2
    lines = costs.table(found).splitlines()
    assert lines[2].startswith("| operation | codec | threads | ") and all(line.count("|") == 6 for line in lines[2:])
    assert lines[0].endswith("medians of 2")


def test_costs_of_an_image_too_long_for_webp():
    samples = np.tile(photograph(8, 400), (1, 42, 1))[:, :16400]
    found = costs.run(
        tiny_codec("LinearCodec2D"), evaluate.Item("x", samples), (samples[..., 0].size / 1e6,), repeats=1
    )
    assert found["cases"][0]["shape"] == [8, 16400, 3]
    variants = {case["variant"] for case in found["cases"]}
    assert costs.KERNEL in variants and "jpeg" in variants and "webp" not in variants


def test_a_case_over_its_budget_has_one_turn():
    calls: list[str] = []
    slow = bench.Case("encode", "slow", 1, lambda: calls.append("slow"), 1)
    quick = bench.Case("encode", "quick", 1, lambda: calls.append("quick"), 1)
    assert [len(taken) for taken in bench.in_turns([slow, quick], 3)] == [3, 3]
    assert calls.count("slow") == calls.count("quick") == 4
    assert [len(taken) for taken in bench.in_turns([slow], 3, budget=1e-12)] == [1]
    assert calls.count("slow") == 5


def test_costs_command(place, capsys):
    arguments = ["bench", "photos/a.png", "--model", "tiny", "--repeats", "1", "--threads", "1"]
    code, out, _ = run(capsys, *arguments, "--sizes", "0.002,0.001", "--json", "out.json")
    assert code == 0 and out.startswith("a, model tiny; ") and "| encode, MP/s | tiny | 1 | " in out
    found = json.loads(Path("out.json").read_text())
    assert found["sizes"] == [0.001, 0.002]
    pytest.importorskip("matplotlib")
    code, _, _ = run(capsys, *arguments, "--sizes", "0.001", "--plot", "plot.png")
    assert code == 0 and Path("plot.png").read_bytes().startswith(b"\x89PNG")
    for suffix, start in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert plots.cost(found, suffix=suffix).startswith(start)
    for wrong in (["--sizes", "1e6"], ["--plot", "x.png"], ["--sizes", "0.001", "--plot", "x.gif"]):
        code, _, err = run(capsys, *arguments, *wrong)
        assert code == 3 and err.count("\n") == 1
    for sizes in ("", "x", "0", "-1", "nan", "inf", "1,,2"):
        code, _, err = run(capsys, *arguments, f"--sizes={sizes}")
        assert code == 2 and "--sizes" in err and err.count("\n") == 1
    code, _, err = run(capsys, *arguments, "--sizes", "1", "--memory", "30x20")
    assert code == 2 and err.count("\n") == 1


def test_costs_beside_the_upstream():
    """Where PyTorch is timed, so is every stage of ours that it is compared with, on as many threads."""
    pytest.importorskip("torch")
    pytest.importorskip("walloc")
    codec = tiny_codec("Codec2D")
    found = costs.run(
        codec, evaluate.Item("x", photograph(20, 28)), (0.001,), threads=(1, 2), repeats=1, against_torch=True
    )
    rows = {(case["stage"], case["variant"], case["threads"]) for case in found["cases"]}
    for stage in ("signal to symbols", "symbols to signal", "decoder"):
        for threads in (1, 2):
            assert {(stage, variant, threads) for variant in (costs.KERNEL, "upstream 32", "upstream 64")} <= rows
    narrow = {(stage, costs.NARROW, 2) for stage in ("symbols to signal", "decoder", "decode")}
    assert narrow <= rows or not compiled()
    assert "upstream, binary64" in costs.table(found) and "upstream, binary32" in costs.table(found)
