"""Models that amplify rounding are found, recorded, and not certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import TINY, photograph, tiny_model

import walloc_ref
from walloc_ref import exactness
from walloc_ref import model as models
from walloc_ref.codec import Codec
from walloc_ref.errors import BadSamples, MalformedModel


def wild(sigma, **options):
    """An audio model whose Snake parameters have that spread."""
    model = tiny_model("Codec1D", J=2, Nd=32, **options)
    rng = np.random.default_rng(0)
    snake = {name for name in model.tensors if name.endswith((".alpha", ".beta"))}
    tensors = {
        k: rng.normal(0, sigma, t.shape).astype(np.float32) if k in snake else t for k, t in model.tensors.items()
    }
    return replace(model, tensors=tensors)


@pytest.mark.parametrize("architecture", TINY)
def test_tame_models_are_exact(architecture):
    spread = exactness.measure(tiny_model(architecture))
    assert spread.symbols_exact and spread.samples_exact


def test_wild_models_are_not():
    spread = exactness.measure(wild(2.0))
    assert spread.symbols_exact  # a projection amplifies nothing
    assert not spread.samples_exact
    assert not exactness.measure(wild(2.0, lightweight_encode=False, Ne=32)).symbols_exact
    assert exactness.measure(wild(1e5)).signal_bits == exactness.WORST_BITS  # it overflows


def test_what_is_not_exact_is_not_certified_and_decoding_says_so(tmp_path):
    model = wild(2.0)
    spread = exactness.measure(model)
    path = tmp_path / "wild.safetensors"
    path.write_bytes(models.save(replace(model, spread=(spread.symbols_bits, spread.signal_bits))))
    codec = Codec(models.load(path))
    assert codec.spread == spread
    samples = (3000 * np.random.default_rng(1).standard_normal((500, 2))).astype(np.int16)
    with pytest.raises(BadSamples, match="certify: tiny, whose decoded signals differ by 2\\^"):
        codec.encode(samples, certify=True)
    assert not walloc_ref.decode_stream(codec.encode(samples), codec=codec).exact
    tame = Codec(tiny_model("LinearCodec2D"))
    assert walloc_ref.decode_stream(tame.encode(photograph(20, 20), certify=True), codec=tame).exact


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "1.5 2", "a b", "-12345 1"])
def test_a_record_that_is_none_is_refused(text, tmp_path):
    model = tiny_model()
    path = tmp_path / "x.safetensors"
    path.write_bytes(models.save(replace(model, spread=(-50, -49))).replace(b'"-50 -49"', f'"{text:7}"'.encode(), 1))
    with pytest.raises(MalformedModel, match="spread|safetensors"):
        models.load(path)
