"""Models of halves against other codecs: curves, measures, and one small evaluation of every kind."""

from __future__ import annotations

import json

import numpy as np
import pytest

from walloc_ref.errors import BadSamples, UnreadableFile
from walloc_ref.measure import modalities
from walloc_ref.measure.modalities import Curve, Point


def point(size, psnr):
    return Point("", size, 1.0, psnr, 0.5, 0.5)


def test_bytes_at_a_psnr_come_from_the_cheapest_points():
    curve = Curve("ours", (point(1000, 30), point(4000, 40), point(2000, 35), point(3000, 33)))
    assert curve.bytes_at(35) == pytest.approx(2000)
    assert 1000 < curve.bytes_at(32) < 2000
    assert curve.bytes_at(29.9) is None and curve.bytes_at(40.1) is None
    assert curve.seconds_at(33) == pytest.approx(0.5)


def test_the_angle_between_spectra():
    a = np.array([[[1.0, 0, 0], [2, 2, 0], [0, 0, 0]]])
    b = np.array([[[0.0, 3, 0], [1, 1, 0], [1, 0, 0]]])
    assert modalities.spectral_angle(a, b) == pytest.approx((90 + 0) / 2, abs=1e-5)


def test_peaks_and_what_is_refused():
    assert modalities.subject("a", np.zeros((4, 4, 4), np.uint8), "volume").peak == 255
    assert modalities.subject("a", np.arange(8, dtype=np.uint16).reshape(2, 2, 2), "spectral").peak == 7
    with pytest.raises(BadSamples, match="kind"):
        modalities.subject("a", np.zeros((4, 4, 4), np.uint8), "film")
    with pytest.raises(BadSamples, match="axes"):
        modalities.subject("a", np.zeros((4, 4), np.uint8), "volume")


def test_jpeg_2000_of_planes_and_of_a_spectrum():
    pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(0)
    spectra = rng.uniform(100, 900, (3, 24))
    amounts = np.cumsum(np.cumsum(rng.normal(0, 0.02, (32, 32, 3)), 0), 1)
    cube = np.rint(np.abs(amounts) @ spectra).astype(np.uint16)
    about = modalities.subject("cube", cube, "spectral")
    plain, own = modalities.jpeg2000(about), modalities.jpeg2000_of_spectrum(about, own=True)
    assert len(plain.rising) > 3 and len(own.rising) > 3
    assert own.bytes_at(40) < plain.bytes_at(40)
    other = modalities.jpeg2000_of_spectrum(about, own=False)
    beside = modalities.COMPONENT_BYTES * (3 + 1) * 24 * 2  # of both halves
    assert min(p.bytes for p in own.points) > beside > min(p.bytes for p in other.points)
    lossless = modalities.without_loss(about)
    assert 0 < lossless["JPEG 2000"] < lossless["samples"] == cube.nbytes


def test_pictures_show_a_difference():
    for kind, shape in (("spectral", (16, 16, 9)), ("volume", (12, 16, 20)), ("audio", (4096, 2))):
        samples = np.random.default_rng(1).integers(0, 200, shape).astype(np.uint8)
        about = modalities.subject("a", samples, kind, 8000 if kind == "audio" else None)
        same = modalities.pictures(about, samples, samples)
        assert same.startswith(b"\x89PNG")
        assert same != modalities.pictures(about, samples, samples + np.uint8(20))


def other(about):
    """A result of another codec alone."""
    curve = Curve("another", (point(900, 20), point(90_000, 60)))
    return modalities.assembled(about, [(curve, False)], {"samples": 7, "gzip": 5})


def test_files_by_models_of_the_others(monkeypatch):
    monkeypatch.setattr(modalities, "LEVELS", {"audio": (2,)})
    monkeypatch.setattr(modalities, "STEPS", (1.0, 3.0))
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (3, 1507, 2))
    mixed = sum(noise[:, k : 1500 + k] for k in range(8)) @ rng.normal(0, 1, (2, 4))
    files = [np.rint(f * 9000 / np.abs(f).max()).astype(np.int16) for f in mixed]
    about = modalities.subject_of_files("noise", files, "audio", 8000)
    assert about.peaks == tuple(float(np.ptp(f)) for f in files) and about.peak == max(about.peaks)
    assert [o is f for o, f in zip(about.others(files[1]), (files[0], files[2]))] == [True, True]
    drawn = {}
    result = modalities.evaluate(about, reuse=other(about), draw=drawn.__setitem__)
    assert result["shapes"] == [[1500, 4]] * 3 and result["without_loss"] == {"samples": 7, "gzip": 5}
    assert [(c["name"], c["ours"]) for c in result["curves"]] == [("walloc_ref, J = 2", True), ("another", False)]
    fine, coarse = result["curves"][0]["points"]
    assert fine["bytes"] > coarse["bytes"] and fine["psnr"] > coarse["psnr"] + 3
    assert list(drawn) == ["noise"]
    assert modalities.read_results(json.dumps([result]).encode(), "a.json") == {"noise": json.loads(json.dumps(result))}
    for text in (modalities.table(result), modalities.markdown(result)):
        assert "walloc_ref, J = 2" in text and "another" in text and "gzip 5" in text
    with pytest.raises(BadSamples, match="reuse: noise"):
        modalities.evaluate(modalities.subject_of_files("noise", files[:2], "audio", 8000), reuse=result)


def test_parts_that_differ_and_results_of_something_else():
    a, b = np.zeros((8, 2), np.int16), np.zeros((8, 3), np.int16)
    with pytest.raises(BadSamples, match="at least two"):
        modalities.subject_of_files("a", [a], "audio")
    with pytest.raises(BadSamples, match="one format for all"):
        modalities.subject_of_files("a", [a, b], "audio")
    assert modalities.subject_of_files("a", [a, a], "audio").peaks == (1, 1)
    good = other(modalities.subject("a", np.zeros((4, 4, 4), np.uint8), "volume"))
    wrong = [good | {"format": "another"}, {k: v for k, v in good.items() if k != "curves"}, 3]
    for data in [b"{", *(json.dumps([w]).encode() for w in wrong)]:
        with pytest.raises(UnreadableFile, match="what --json wrote"):
            modalities.read_results(data, "a.json")


def test_the_best_of_ours_is_compared():
    curves = [
        (Curve("ours", (point(500, 30), point(5000, 50))), True),
        (Curve("other", (point(1000, 30), point(10_000, 50))), False),
    ]
    about = modalities.subject("a", np.zeros((4, 4, 4), np.uint8), "volume")
    text = modalities.markdown(modalities.assembled(about, curves, {"gzip": 1}))
    row = next(line for line in text.splitlines() if "the best of ours against other" in line)
    assert row.count("-50.0") == len(modalities.PSNRS)
