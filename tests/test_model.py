"""Weights files: round trip, identity, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from models import TINY, tiny_model
from safetensors.numpy import save as save_tensors

from walloc_ref import model as models
from walloc_ref.errors import MalformedModel, UnknownModel
from walloc_ref.model import Config, Model

architectures = pytest.mark.parametrize("architecture", list(TINY))


@architectures
def test_round_trip(architecture, tmp_path):
    model = tiny_model(architecture)
    path = tmp_path / "name.safetensors"
    path.write_bytes(models.save(model))
    loaded = models.load(path)
    assert loaded.config == model.config
    assert loaded.model_id == model.model_id
    assert loaded.tables.to_bytes() == model.tables.to_bytes()
    assert {name: t.tobytes() for name, t in loaded.tensors.items()} == {
        name: t.tobytes() for name, t in model.tensors.items()
    }


@architectures
def test_tensor_names_are_the_upstreams(architecture):
    upstream = pytest.importorskip("upstream")
    upstream.build(tiny_model(architecture))  # asserts that nothing is missing or surplus
    upstream.build(tiny_model(architecture, lightweight_encode=False, Ne=32)) if architecture.startswith(
        "Codec"
    ) else None


def test_identity_covers_every_number():
    model = tiny_model()
    ids = {model.model_id}
    for name, tensor in model.tensors.items():
        changed = tensor.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        ids.add(replace(model, tensors={**model.tensors, name: changed}).model_id)
    ids.add(tiny_model(seed=1).model_id)
    assert len(ids) == len(model.tensors) + 2
    assert replace(model, name="other").model_id == model.model_id


def test_find_by_name_path_and_identity(tmp_path, monkeypatch):
    model = tiny_model()
    path = tmp_path / "mine.safetensors"
    path.write_bytes(models.save(model))
    assert models.find(path).model_id == model.model_id
    with pytest.raises(UnknownModel, match="model identity"):
        models.find_by_id(bytes.fromhex(model.model_id)[:16])
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    assert models.find("mine").model_id == model.model_id
    assert models.find_by_id(bytes.fromhex(model.model_id)[:16]).model_id == model.model_id
    assert models.name_of(bytes.fromhex(model.model_id)[:16]) == "mine"
    with pytest.raises(UnknownModel, match="model: nothing_like_it; one of .*mine"):
        models.find("nothing_like_it")


def write(path, model, metadata=None, tensors=None):
    """A weights file with some entries of its metadata replaced or, where None, left out."""
    entries = {
        "walloc_ref.format": "1",
        "walloc_ref.config": model.config.to_json(),
        **(metadata or {}),
    }
    entries = {key: value for key, value in entries.items() if value is not None}
    path.write_bytes(save_tensors(dict(tensors or model.tensors), entries))
    return path


CONFIG = json.loads(tiny_model().config.to_json())
METADATA_FAULTS = {
    "no format": ({"walloc_ref.format": None}, "walloc_ref.format: None"),
    "later format": ({"walloc_ref.format": "2"}, "walloc_ref.format: '2'"),
    "no config": ({"walloc_ref.config": None}, "walloc_ref.config: not JSON"),
    "deep config": ({"walloc_ref.config": "[" * 100000}, "walloc_ref.config: not JSON"),
    "list config": ({"walloc_ref.config": "[]"}, "config: list"),
    "architecture": ({"walloc_ref.config": json.dumps(CONFIG | {"architecture": "VAE"})}, "config.architecture: 'VAE'"),
    "architecture list": ({"walloc_ref.config": json.dumps(CONFIG | {"architecture": []})}, "config.architecture"),
    "missing": ({"walloc_ref.config": '{"architecture":"LinearCodec2D"}'}, "config: without J, channels"),
    "J": ({"walloc_ref.config": json.dumps(CONFIG | {"J": 99})}, "config.J: 99"),
    "text": ({"walloc_ref.config": json.dumps(CONFIG | {"channels": "3"})}, "config.channels: '3'"),
    "bits": ({"walloc_ref.config": json.dumps(CONFIG | {"latent_bits": 1})}, "config.latent_bits: 1"),
    "bands": (
        {"walloc_ref.config": json.dumps(CONFIG | {"J": 9})},
        "J: 9, which makes 786432 .*at most 65536 bands",
    ),
    "entropy": ({"walloc_ref.entropy": "!"}, "walloc_ref.entropy"),
    "entropy text": ({"walloc_ref.entropy": "AAAA"}, "walloc_ref.entropy"),
    "identity": ({"walloc_ref.id": "00" * 32}, "walloc_ref.id"),
}


@pytest.mark.parametrize("fault", METADATA_FAULTS)
def test_faulty_metadata(fault, tmp_path):
    metadata, message = METADATA_FAULTS[fault]
    with pytest.raises(MalformedModel, match=message):
        models.load(write(tmp_path / "m.safetensors", tiny_model(), metadata))


def test_faulty_tensors(tmp_path):
    model = tiny_model()
    weight = model.tensors["encoder.0.weight"]
    faults = {
        "tensor encoder.0.bias: missing": {k: v for k, v in model.tensors.items() if k != "encoder.0.bias"},
        "tensor extra: present": model.tensors | {"extra": np.zeros(3, np.float32)},
        "tensor encoder.0.weight: float32": model.tensors | {"encoder.0.weight": weight[:, 1:].copy()},
        "tensor encoder.0.weight: F64": model.tensors | {"encoder.0.weight": weight.astype(np.float64)},
        "tensor encoder.0.weight: not finite": model.tensors | {"encoder.0.weight": weight * np.float32(np.inf)},
    }
    for message, tensors in faults.items():
        with pytest.raises(MalformedModel, match=message), np.errstate(invalid="ignore"):
            models.load(write(tmp_path / "m.safetensors", model, tensors=tensors))


def test_not_a_weights_file(tmp_path):
    path = tmp_path / "m.safetensors"
    for data in (b"", b"hello", b"\xff" * 64, models.save(tiny_model())[:-1]):
        path.write_bytes(data)
        with pytest.raises(MalformedModel, match="weights file"):
            models.load(path)
    with pytest.raises(UnknownModel, match="readable"):
        models.load(tmp_path / "absent.safetensors")
    with pytest.raises(MalformedModel):
        models.load(tmp_path)


@pytest.mark.parametrize("width", [1, 31, 33])
def test_width_must_fit_the_groups(width):
    with pytest.raises(MalformedModel, match=f"config.Nd: {width}; a multiple of 32"):
        Config("Codec2D", 3, 3, 12, Nd=width)


@pytest.mark.parametrize("width", ["32", True, 1.5])
def test_encoder_width_that_is_not_used_is_an_integer(width):
    with pytest.raises(MalformedModel, match="config.Ne"):
        Config("Codec2D", 3, 3, 12, Nd=32, Ne=width)


@pytest.mark.parametrize("width", [None, 0, -5, 7, 8193])
def test_encoder_width_that_is_not_used_may_be_any_integer(width):
    """SPEC.md 8.3: `Ne` counts only where `lightweight_encode` is false."""
    assert Config("Codec2D", 3, 3, 12, Nd=32, Ne=width).Ne == width
    with pytest.raises(MalformedModel, match="config.Ne"):
        Config("Codec2D", 3, 3, 12, Nd=32, Ne=width if width != 7 else 31, lightweight_encode=False)


def test_a_model_needs_its_tensors():
    model = tiny_model()
    with pytest.raises(MalformedModel, match="missing"):
        Model(model.config, {}, model.tables)
