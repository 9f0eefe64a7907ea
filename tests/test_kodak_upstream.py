"""The bundled image models on the Kodak images, integer for integer against the upstream in binary64.

Runs where `WALLOC_TEST_DATA` names a folder with `kodak/*.png`, and torch is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import upstream
from numpy.testing import assert_array_equal

import walloc_ref
from walloc_ref import model as models

FOLDER = Path(os.environ.get("WALLOC_TEST_DATA", "/nonexistent")) / "kodak"
IMAGES = sorted(FOLDER.glob("*.png"))
ALL_IMAGES = ("rgb_16x",)
"""Models that are compared on every image; the others on the first."""

pytestmark = pytest.mark.skipif(not IMAGES, reason="WALLOC_TEST_DATA names no folder with kodak/*.png")


def cases() -> list[tuple[str, Path]]:
    found = []
    for name, path in models.available().items():
        config = models.load(path).config
        if config.kind == "image":
            found += [(name, image) for image in (IMAGES if name in ALL_IMAGES else IMAGES[:1])]
    return found


@pytest.mark.parametrize(("name", "image"), cases(), ids=lambda value: getattr(value, "stem", value))
def test_symbols_and_samples_equal_upstream(name, image):
    torch, walloc = upstream.load()
    codec = walloc_ref.load_model(name)
    module = upstream.build(codec.model)
    samples = iio.imread(image)
    if codec.config.channels == 1:
        samples = samples[:, :, 1:2]
    x = np.moveaxis(samples, -1, 0) / 255 - 0.5
    with torch.no_grad():
        padded = walloc.pad(torch.tensor(x)[None], codec.config.multiple)
        if codec.config.architecture == "ResidualCodec2D":
            symbols = module.rae_encode(padded)[1]
            signal = module.rae_decode(symbols)
        else:
            symbols = module.encoder(module.wavelet_analysis(padded, codec.config.J))
            signal = module.clamp(module.wavelet_synthesis(module.decoder(symbols), codec.config.J))
        signal = walloc.crop(signal, samples.shape[:2])[0].numpy()
    data = codec.encode(samples)
    assert_array_equal(walloc_ref.decode_symbols(data, codec=codec), symbols[0].numpy())
    decoded = walloc_ref.decode(data, codec=codec).reshape(samples.shape)
    assert_array_equal(decoded, np.clip(np.rint(255 * (signal + 0.5)), 0, 255).transpose(1, 2, 0))
