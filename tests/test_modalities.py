"""Models of halves against other codecs: curves, measures, and one small evaluation of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from walloc_ref.errors import BadSamples
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
