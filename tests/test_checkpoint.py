"""Checkpoints: written by PyTorch where it is installed, by hand where not; malicious ones are refused, nothing runs."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import struct
import sys
import time
import tracemalloc
import types
import zipfile
from pathlib import Path

import models
import numpy as np
import pickles
import pytest
import upstream
from numpy.testing import assert_array_equal
from pickles import Raw, call, global_, instance, value

from walloc_ref import cli
from walloc_ref import model as weights
from walloc_ref.errors import LimitExceeded, MalformedModel, WallocError
from walloc_ref.files import checkpoint


def tiny(architecture: str = "LinearCodec2D", **fields):
    return models.tiny_model(architecture, **fields)


def check_equal(found: weights.Model, expected: weights.Model) -> None:
    assert found.config == expected.config
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == np.float32
        assert_array_equal(found.tensors[name], tensor)
    assert found.model_id == expected.model_id


# ---- honest ones ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", sorted(models.TINY))
def test_every_architecture(architecture):
    model = tiny(architecture)
    found = checkpoint.read(pickles.checkpoint(model))
    check_equal(checkpoint.to_model(found, "x"), model)
    assert found.rounded == ()


@pytest.mark.parametrize(("architecture", "width"), [("Codec2D", 32), ("Codec1D", 8)])
def test_full_encoders(architecture, width):
    model = tiny(architecture, lightweight_encode=False, Ne=width)
    check_equal(checkpoint.to_model(checkpoint.read(pickles.checkpoint(model)), "x"), model)


@pytest.mark.parametrize(
    "config", ["__main__ Config", "types SimpleNamespace", "argparse Namespace", "my_project.cfg C", "dict"]
)
def test_pickled_configurations(config):
    model = tiny("Codec1D")
    check_equal(checkpoint.to_model(checkpoint.read(pickles.checkpoint(model, config=config)), "x"), model)


def test_configuration_from_json():
    model = tiny("Codec2D")
    fields = {
        name: x for name, x in vars(model.config).items() if name not in ("architecture", "post_filter", "num_stages")
    }
    text = json.dumps({"batch_size": 64, "lr": [1, {}], "F_ext": "x", **fields}).encode()
    data = pickles.checkpoint(model, config=None)
    check_equal(checkpoint.to_model(checkpoint.read(data, text), "x"), model)
    with pytest.raises(MalformedModel, match=r"checkpoint.config: missing; .*name the .json"):
        checkpoint.read(data)


def test_json_counts_more_than_the_pickle():
    model = tiny()
    text = json.dumps({"channels": 3, "J": 2, "latent_dim": 6, "latent_bits": 7}).encode()
    assert checkpoint.to_model(checkpoint.read(pickles.checkpoint(model), text), "x").config.latent_bits == 7


def test_bare_state_dictionary_and_other_keys():
    model = tiny()
    root, storages = pickles.parts(model, config=None)
    text = model.config.to_json().encode()
    for changed in (root["model_state_dict"], {"state_dict": root["model_state_dict"]}):
        data = pickles.archive(pickles.program(changed), storages)
        check_equal(checkpoint.to_model(checkpoint.read(data, text), "x"), model)
    renamed = {"module." + name: tensor for name, tensor in root["model_state_dict"].items()}
    data = pickles.archive(pickles.program({"model_state_dict": renamed}), storages)
    check_equal(checkpoint.to_model(checkpoint.read(data, text), "x"), model)


@pytest.mark.parametrize("kind", ["f8", "f2", "bf16"])
def test_other_element_types(kind):
    model = tiny()
    found = checkpoint.read(pickles.checkpoint(model, kind=kind))
    for name, tensor in model.tensors.items():
        if kind == "f2":
            expected = tensor.astype(np.float16).astype(np.float32)
        elif kind == "bf16":
            expected = (tensor.view(np.uint32) & 0xFFFF0000).view(np.float32)
        else:
            expected = tensor
        assert_array_equal(found.tensors[name], expected)
    assert found.rounded == ()


def test_float64_that_does_not_fit_is_rounded_and_named():
    root, storages = pickles.parts(tiny(), kind="f8")
    name = list(root["model_state_dict"])[1]
    numbers = np.frombuffer(storages["0"], "<f8").copy()
    numbers[3] = np.pi
    storages["0"] = numbers.tobytes()
    found = checkpoint.read(pickles.archive(pickles.program(root), storages))
    assert found.rounded == (name,)
    assert found.tensors[name].flat[3] == np.float32(np.pi)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(odd):
    root, storages = pickles.parts(tiny(), kind="f8")
    numbers = np.frombuffer(storages["1"], "<f8").copy()
    numbers[0] = odd
    storages["1"] = numbers.tobytes()
    with pytest.raises(MalformedModel, match="not finite"):
        checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x")


def test_views_of_a_storage():
    """Offsets, transposed and padded tensors; two tensors in one storage."""
    numbers = np.arange(100, dtype="<f4")
    root = {
        "model_state_dict": {
            "a": pickles.tensor("0", "f4", 100, (3, 4), (1, 3), 5),
            "b": pickles.tensor("0", "f4", 100, (2, 2), (10, 2), 40),
            "c": pickles.tensor("0", "f4", 100, (), (), 99),
            "d": pickles.tensor("0", "f4", 100, (1, 2, 1), (77, 1, 99), 60),
        },
        "config": {},
    }
    found = checkpoint.read(pickles.archive(pickles.program(root), {"0": numbers.tobytes()})).tensors
    assert_array_equal(found["a"], numbers[5:17].reshape(4, 3).T)
    assert_array_equal(found["b"], [[40, 42], [50, 52]])
    assert_array_equal(found["c"], 99)
    assert_array_equal(found["d"], [[[60], [61]]])


def test_big_endian():
    model = tiny()
    root, storages = pickles.parts(model)
    swapped = {key: np.frombuffer(data, "<f4").astype(">f4").tobytes() for key, data in storages.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in {"data.pkl": pickles.program(root), "byteorder": b"big"}.items():
            file.writestr("x/" + name, data)
        for key, data in swapped.items():
            file.writestr(f"x/data/{key}", data)
    check_equal(checkpoint.to_model(checkpoint.read(out.getvalue()), "x"), model)


def test_newer_names_of_a_weight_normalisation():
    model = tiny("Codec1D")
    root, storages = pickles.parts(model)
    for new, old in (
        (".parametrizations.weight.original0", ".weight_g"),
        (".parametrizations.weight.original1", ".weight_v"),
    ):
        state = root["model_state_dict"]
        root["model_state_dict"] = {
            name.removesuffix(old) + new if name.endswith(old) else name: t for name, t in state.items()
        }
    check_equal(checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x"), model)


@pytest.mark.parametrize("architecture", sorted(models.TINY))
@pytest.mark.parametrize("record", ["dict", "namespace", "arguments", "class", "json"])
def test_written_by_pytorch(architecture, record, monkeypatch):
    torch, _ = upstream.load()
    model = tiny(architecture)
    module = upstream.build(model).float()
    fields = {name: x for name, x in vars(model.config).items() if name != "architecture"}
    fields |= {"batch_size": 64, "path": Path("x"), "losses": [np.float32(1.5)], "device": torch.device("cpu")}
    Config = type("Config", (), {"__module__": "__main__"})  # a class of the script that trained
    monkeypatch.setattr("__main__.Config", Config, raising=False)
    config = {"class": Config(), "namespace": types.SimpleNamespace(), "arguments": argparse.Namespace()}.get(
        record, fields
    )
    if record in ("class", "namespace", "arguments"):
        vars(config).update(fields)
    saved = {
        "i_epoch": 3,
        "learning_rates": [1e-3],
        "dist_losses": [torch.tensor(0.5)],
        "model_state_dict": module.state_dict(),
    }
    if record != "json":
        saved["config"] = config
    for protocol in (2, 4) if record == "class" else (2,):
        out = io.BytesIO()
        torch.save(saved, out, pickle_protocol=protocol)
        text = model.config.to_json().encode() if record == "json" else None
        check_equal(checkpoint.to_model(checkpoint.read(out.getvalue(), text), "x"), model)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_element_types_of_pytorch(dtype):
    torch, _ = upstream.load()
    model = tiny()
    state = {name: torch.tensor(t).to(getattr(torch, dtype)) for name, t in model.tensors.items()}
    out = io.BytesIO()
    torch.save({"model_state_dict": state, "config": vars(model.config)}, out)
    found = checkpoint.read(out.getvalue())
    for name, tensor in state.items():
        assert_array_equal(found.tensors[name], tensor.float().numpy())


def test_legacy_format_is_named():
    torch, _ = upstream.load()
    out = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, out, _use_new_zipfile_serialization=False)
    with pytest.raises(MalformedModel, match=r"before PyTorch 1\.6; a zip archive; save it again"):
        checkpoint.read(out.getvalue())


def test_round_trip_into_the_upstream():
    """What was imported is a weights file that the upstream's class takes unchanged."""
    upstream.load()
    model = tiny("Codec1D")
    imported = checkpoint.to_model(checkpoint.read(pickles.checkpoint(model)), "x")
    upstream.build(imported)  # refuses what is missing or surplus


# ---- malicious ones ------------------------------------------------------------------------------------------------


def payload(*parts: bytes) -> bytes:
    return pickles.archive(b"\x80\x02" + b"".join(parts) + b".", {})


SHELL = value("touch canary")
EVIL = {
    "os.system": [global_("os", "system"), SHELL, b"\x85R"],
    "posix.system": [global_("posix", "system"), SHELL, b"\x85R"],
    "nt.system": [global_("nt", "system"), SHELL, b"\x85R"],
    "subprocess.Popen": [global_("subprocess", "Popen"), SHELL, b"\x85R"],
    "builtins.eval": [global_("builtins", "eval"), value("open('canary', 'w')"), b"\x85R"],
    "builtins.exec": [global_("builtins", "exec"), value("open('canary', 'w')"), b"\x85R"],
    "__builtin__.eval": [global_("__builtin__", "eval"), value("open('canary', 'w')"), b"\x85R"],
    "builtins.open": [global_("builtins", "open"), value(("canary", "w")), b"R"],
    "builtins.getattr": [global_("builtins", "getattr"), value((Raw(global_("os", "path")), "join")), b"R"],
    "builtins.__import__": [global_("builtins", "__import__"), value("os"), b"\x85R"],
    "stack global": [value("os"), value("system"), b"\x93", SHELL, b"\x85R"],
    "inst": [b"(", SHELL, b"ios\nsystem\n"],
    "obj": [b"(", global_("os", "system"), SHELL, b"o"],
    "newobj": [global_("subprocess", "Popen"), SHELL, b"\x85\x81"],
    "newobj_ex": [global_("subprocess", "Popen"), SHELL, b"\x85}\x92"],
    "runpy": [global_("runpy", "run_path"), value("canary"), b"\x85R"],
    "functools.partial": [
        global_("functools", "partial"),
        value((Raw(global_("os", "system")), "touch canary")),
        b"R)R",
    ],
    "operator.attrgetter": [global_("operator", "attrgetter"), value("system"), b"\x85R"],
    "importlib": [global_("importlib", "import_module"), value("os"), b"\x85R"],
    "webbrowser": [global_("webbrowser", "open"), value("x"), b"\x85R"],
    "pickle.loads": [global_("pickle", "loads"), value("x"), b"\x85R"],
    "nested reduce": [
        global_("collections", "OrderedDict"),
        value([[call("os", "system", "touch canary"), 1]]),
        b"\x85R",
    ],
    "in a tensor": [
        global_("torch._utils", "_rebuild_tensor_v2"),
        value((call("os", "system", "touch canary"), 0, (), ())),
        b"R",
    ],
    "in a persistent identifier": [value(("storage", call("os", "system", "touch canary"), "0", "cpu", 1)), b"Q"],
    "in a state": [global_("__main__", "Config"), b")\x81", value({"a": call("os", "system", "touch canary")}), b"b"],
    "dotted": [value("builtins"), value("list.__class__"), b"\x93"],
    "sub-module": [global_("os.path", "os.system"), SHELL, b"\x85R"],
    "extension registry": [b"\x82\x01"],
    "text persistent identifier": [b"Pos.system\n"],
}


WATCHED = ("import", "exec", "compile", "open", "os.", "subprocess.", "pickle.find_class", "object.__getattr__")
"""Audit events of the interpreter that no import of a checkpoint may cause."""

_events: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if _events is not None and event.startswith(WATCHED):
        _events.append(f"{event} {arguments[:1]}")


sys.addaudithook(_watch)  # for good; it does nothing while _events is None


@pytest.mark.parametrize("name", EVIL)
def test_malicious_pickles_are_refused_and_not_run(name, tmp_path, monkeypatch):
    global _events
    data = payload(*EVIL[name])
    checkpoint.read(pickles.checkpoint(tiny()))  # imports what it needs
    monkeypatch.chdir(tmp_path)
    _events = []
    try:
        with pytest.raises(MalformedModel):
            checkpoint.read(data)
        seen = _events
    finally:
        _events = None
    assert seen == []
    assert not list(tmp_path.iterdir())


def test_these_pickles_would_run_elsewhere(tmp_path, monkeypatch):
    """The canary and the watch work: the ordinary unpickler runs the same opcodes, and is seen doing so."""
    global _events
    monkeypatch.chdir(tmp_path)
    for name in ("builtins.open", "builtins.exec"):
        _events = []
        try:
            pickle.loads(b"\x80\x02" + b"".join(EVIL[name]) + b".")
            seen = _events
        finally:
            _events = None
        assert any(event.startswith("pickle.find_class") for event in seen)
        assert Path("canary").exists()
        Path("canary").unlink()


def test_message_names_the_global():
    with pytest.raises(
        MalformedModel, match=r"REDUCE|GLOBAL at byte 2: the global os\.system, which no checkpoint has; .*malicious"
    ):
        checkpoint.read(payload(global_("os", "system")))


def test_foreign_classes_are_inert():
    """A class that no one has ever heard of does not stop the import, wherever it is used."""
    root, storages = pickles.parts(tiny())
    root["extra"] = instance("no.such.module", "Thing", {"x": call("no.such.module", "function", 1, 2)})
    root["metadata"] = call(
        "copyreg", "_reconstructor", Raw(global_("__main__", "Old")), Raw(global_("builtins", "object")), None
    )
    root["items"] = Raw(global_("easydict", "EasyDict") + b")\x81(" + value("a") + value(1) + b"u")
    root["listed"] = Raw(global_("x", "L") + b")\x81(" + value("a") + b"e")
    check_equal(checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x"), tiny())


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (b"", "not a pickle"),
        (b"\xff", "not a pickle"),
        (b"X\xff\xff\xff\xff", "not a pickle"),
        (b"}", "not a pickle"),  # no STOP
        (b".", "0 values"),
        (b"}}.", "2 values"),
        (b"(.", "at its end"),
        (b"}.}", "1 values and 1 bytes"),
        (b"0.", "POP at byte 0: a value that is not there"),
        (b"t.", "TUPLE at byte 0"),
        (b"(0t.", "TUPLE"),
        (b"h\x05.", "BINGET at byte 0"),
        (b"g99999999999999\n.", "GET at byte 0"),
        (b"q\x00.", "BINPUT"),
        (b"(q\x00.", "a mark"),
        (b"NNa.", "appends to NoneType"),
        (b"NNNs.", "sets items of NoneType"),
        (b"](Nu.", "sets items of list"),
        (b"}(Nu.", "sets items of dict"),
        (b"}(NNu.", "a key that is NoneType"),
        (b"})Ns.", "a key that is tuple"),
        (b"}\x8a\x08" + bytes(7) + b"\x70Ns.", "a key that is int"),
        (b"NN\x93.", "a global without a name"),
        (b"N)R.", "calls NoneType"),
        (b"ca\nb\nNR.", "calls Global"),
        (b"NNb.", "sets attributes of NoneType"),
        (b"NQ.", "no storage"),
        (b"I99999999999999999999\n.", "checkpoint: int"),
        (b"\x95\x00\x00\x00\x00\x00\x00\x00\x00}.", "model_state_dict: dict"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"N.", "checkpoint: NoneType"),
        (b"].", "checkpoint: list"),
        (global_("torch._utils", "_rebuild_tensor_v2") + b")R.", "a tensor without a storage"),
        (global_("torch._utils", "_rebuild_parameter") + b")R.", "a parameter without a tensor"),
        (global_("copyreg", "_reconstructor") + b")R.", "reconstructs no class"),
    ],
)
def test_malformed_pickles(code, match):
    with pytest.raises(MalformedModel, match=match):
        checkpoint.read(pickles.archive(code, {}))


def with_tensor(*arguments: object, **options: object) -> bytes:
    root = {"model_state_dict": {"a": pickles.tensor(*arguments, **options)}, "config": {}}
    return pickles.archive(pickles.program(root), {"0": bytes(400)})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("0", "f4", 101, (1,), (1,)), "101 elements in an entry of 400 bytes"),
        (("0", "f4", 1 << 39, (1,), (1,)), "elements in an entry of 400 bytes"),
        (("0", "f4", -1, (1,), (1,)), "without key and size"),
        (("1", "f4", 100, (1,), (1,)), "checkpoint.entry: archive/data/1"),
        (("../../0", "f4", 100, (1,), (1,)), "checkpoint.entry"),
        (("0", "f4", 100, (101,), (1,)), "up to element 101 in a storage of 100"),
        (("0", "f4", 100, (2,), (100,)), "up to element 101"),
        (("0", "f4", 100, (1,), (1,), 100), "up to element 101"),
        (("0", "f4", 100, (1 << 39,), (0,)), "overlap"),
        (("0", "f4", 100, (1 << 30, 1 << 30), (1 << 30, 1)), "up to element"),
        (("0", "f4", 100, (5, 5), (1, 1)), "overlap"),
        (("0", "f4", 100, (5, 5), (4, 1)), "overlap"),
        (("0", "f4", 100, (5, 5), (0, 1)), "overlap"),
        (("0", "f4", 100, (-1,), (1,)), "negative"),
        (("0", "f4", 100, (1,), (-1,)), "negative"),
        (("0", "f4", 100, (1,), (1,), -1), "negative"),
        (("0", "f4", 100, (1 << 70,), (1,)), "huge"),
        (("0", "f4", 100, (1.0,), (1,)), "no integer"),
        (("0", "f4", 100, (True,), (1,)), "no integer"),
        (("0", "f4", 100, (1, 1), (1,)), "without sizes and strides"),
        (("0", "f4", 100, (1,) * 9, (1,) * 9), "of over 8 axes"),
        (("0", "i8", 50, (1,), (1,)), "tensor a: i8; floating-point numbers"),
    ],
)
def test_tensors_that_exceed_their_storage(arguments, match):
    with pytest.raises(MalformedModel, match=match):
        checkpoint.read(with_tensor(*arguments))


def test_shared_storages_do_not_multiply():
    state = {f"t{i}": pickles.tensor("0", "f4", 100, (60,), (1,), 0) for i in range(2)}
    data = pickles.archive(pickles.program({"model_state_dict": state, "config": {}}), {"0": bytes(400)})
    with pytest.raises(MalformedModel, match="tensor t1: storage 0 again"):
        checkpoint.read(data)


def test_names_of_tensors():
    for name in ("a b", "a\x1b[2J", "a" * 201, "\ud800", ""):
        code = b"}" + b"X" + struct.pack("<I", len(raw := name.encode("utf-8", "surrogatepass"))) + raw
        code += pickles.tensor("0", "f4", 100, (1,), (1,)).code + b"s"
        with pytest.raises(MalformedModel, match="letters, digits") as caught:
            checkpoint.read(pickles.archive(b"\x80\x02" + code + b".", {"0": bytes(400)}))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 250
    with pytest.raises(MalformedModel, match="tensor"):
        checkpoint.read(pickles.archive(pickles.program({"model_state_dict": {"a": 1}}), {}))


@pytest.mark.parametrize("field", ["channels", "J", "latent_bits", "lightweight_encode"])
@pytest.mark.parametrize("odd", ["3", 3.5, [3], {"a": 3}, 1 << 100])
def test_fields_that_are_no_scalars(field, odd):
    root, storages = pickles.parts(tiny())
    root["config"] = {"channels": 3, "J": 2, "latent_dim": 6, "latent_bits": 8, field: odd}
    with pytest.raises(MalformedModel, match=f"config.{field}"):
        checkpoint.read(pickles.archive(pickles.program(root), storages))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"3", b"{", b'{"channels": 3}', b'{"channels": "3"}', b"[" * 100000, b"\xff", b"9" * 99999]
)
def test_bad_json(text):
    with pytest.raises(MalformedModel, match="config"):
        checkpoint.to_model(checkpoint.read(pickles.checkpoint(tiny()), text), "x")
    with pytest.raises(LimitExceeded):
        checkpoint.read(pickles.checkpoint(tiny()), b" " * (checkpoint.MAX_CONFIG_BYTES + 1))


def test_tensors_of_nothing_known():
    root = {"model_state_dict": {"a": pickles.tensor("0", "f4", 100, (1,), (1,))}, "config": {}}
    with pytest.raises(MalformedModel, match=r"checkpoint.tensors: a; those of Codec2D, Codec1D"):
        checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), {"0": bytes(400)})), "x")


def test_surplus_and_missing_tensors():
    root, storages = pickles.parts(tiny())
    root["model_state_dict"]["other.weight"] = pickles.tensor("more", "f4", 1, (1,), (1,))
    with pytest.raises(MalformedModel, match="tensor other.weight: present"):
        checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages | {"more": bytes(4)})), "x")
    del root["model_state_dict"]["other.weight"], root["model_state_dict"]["encoder.0.bias"]
    with pytest.raises(MalformedModel, match=r"tensor encoder.0.bias: missing"):
        checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x")


# ---- bombs ---------------------------------------------------------------------------------------------------------


def costs(data: bytes) -> tuple[float, int]:
    """Seconds and bytes that refusing takes."""
    started = time.perf_counter()
    with pytest.raises(WallocError):
        checkpoint.to_model(checkpoint.read(data), "x")
    seconds = time.perf_counter() - started
    tracemalloc.start()
    with pytest.raises(WallocError):
        checkpoint.to_model(checkpoint.read(data), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


BOMBS = {
    "references to references": b"]("
    + b"".join(b"]\x94(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60))
    + b"e",
    "lists": b"]" * 10000,
    "dictionaries": b"}" * 10000,
    "nested tuples": b")" + b"\x85" * 10000,
    "nested lists": b"]" + b"]a" * 4000,
    "marks": b"(" * 10000,
    "duplicates": b"N" + b"2" * 10000,
    "memo numbers": b"N" + b"r\xff\xff\xff\xff" * 10000,
    "long integer": b"\x8b" + struct.pack("<I", 1 << 31) + bytes(1000),
    "long digits": b"I" + b"9" * 10000 + b"\n",
    "long text": b"\x8d" + struct.pack("<Q", 1 << 62) + b"x",
    "long frame": b"\x95" + struct.pack("<Q", 1 << 62) + b"}",
    "records": (global_("a", "b") + b")R") * 3000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_small(name):
    data = pickles.archive(b"\x80\x02" + BOMBS[name] + b".", {})
    seconds, peak = costs(data)
    assert seconds < 2
    assert peak < 200 * len(data) + (1 << 20)


def test_number_of_containers_and_opcodes(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_CONTAINERS", 100)
    with pytest.raises(LimitExceeded, match="over 100 containers"):
        checkpoint.read(pickles.archive(b"]" * 200 + b".", {}))
    monkeypatch.setattr(checkpoint, "MAX_OPCODES", 50)
    with pytest.raises(LimitExceeded, match="over 50 opcodes"):
        checkpoint.read(pickles.archive(b"N" * 200 + b".", {}))
    monkeypatch.setattr(checkpoint, "MAX_PICKLE_BYTES", 10)
    with pytest.raises(LimitExceeded, match="checkpoint.data.pkl: 201 bytes"):
        checkpoint.read(pickles.archive(b"N" * 200 + b".", {}))


def test_compressed_entries_are_refused():
    """A zip bomb: what is not stored as it is, is not read."""
    root, storages = pickles.parts(tiny())
    data = pickles.archive(pickles.program(root), storages | {"bomb": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(MalformedModel, match="compressed or encrypted; stored as it is"):
        checkpoint.read(data)
    assert costs(data)[1] < 1 << 20


def test_names_twice_are_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("a/data.pkl", pickles.program({}))
        file.writestr("a/data.pkl", pickles.program({}))
    with pytest.raises(MalformedModel, match="checkpoint.entry: a/data.pkl; no name twice"):
        checkpoint.read(out.getvalue())


def test_zip_structure():
    data = pickles.checkpoint(tiny())
    good = checkpoint.read(data)
    assert good.tensors
    for wrong in (b"", b"PK", data[:-1], data[:100], b"PK\x05\x06" + bytes(18), b"\x93NUMPY"):
        with pytest.raises(MalformedModel):
            checkpoint.read(wrong)
    for names in ((), ("data.pkl",), ("a/data.pkl", "b/data.pkl"), ("a/b/data.pkl",)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for name in names:
                file.writestr(name, b"}.")
        with pytest.raises(MalformedModel, match="entries NAME/data.pkl"):
            checkpoint.read(out.getvalue())


def test_damaged_storage_is_named():
    data = bytearray(pickles.checkpoint(tiny()))
    at = data.index(np.ascontiguousarray(tiny().tensors["encoder.0.weight"]).tobytes())
    data[at + 9] ^= 1
    with pytest.raises(MalformedModel, match=r"archive/data/\d+: CRC .* damaged"):
        checkpoint.read(bytes(data))


def test_number_of_entries(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_ENTRIES", 3)
    with pytest.raises(LimitExceeded, match="checkpoint.entries: over 3"):
        checkpoint.read(pickles.checkpoint(tiny()))


def test_work_is_bounded():
    """What is built once and asked for many times: a dictionary set on objects, long names of storages and globals."""
    keys, times = 60000, 60000
    many = value({f"{i}": None for i in range(keys)})
    classes = global_("a", "B") + b")\x81"
    name = value("x" * 60000)
    programs = {
        "BUILD": many + b"q\0" + classes + b"h\0b0" + (classes + b"h\0b0") * times,
        "STACK_GLOBAL": name + b"q\0" + b"h\0h\0\x930" * times,
        "BINPERSID": value(("storage", Raw(global_("torch", "FloatStorage")), "1" * 60000, "cpu", 1))
        + b"q\0"
        + b"h\0Q0" * times,
    }
    for program in programs.values():
        started = time.perf_counter()
        with pytest.raises((LimitExceeded, MalformedModel)):
            checkpoint.read(
                pickles.archive(b"\x80\x02" + program + b".", {"1" * 60000: bytes(4)} if b"Q0" in program else {})
            )
        assert time.perf_counter() - started < 10


def test_tensor_of_no_size():
    root, storages = pickles.parts(tiny())
    root["model_state_dict"]["encoder.0.bias"] = pickles.tensor("e", "f4", 0, (0, 1 << 40, 1 << 40), (1, 1 << 40, 1))
    with pytest.raises(MalformedModel, match=r"tensor encoder.0.bias: shape \[0, 1099511627776, .*; no size 0"):
        checkpoint.read(pickles.archive(pickles.program(root), {**storages, "e": b""}))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrapped_models(prefix):
    model = tiny()
    root, storages = pickles.parts(model)
    root["model_state_dict"] = {prefix + name: x for name, x in root["model_state_dict"].items()}
    check_equal(checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x"), model)


def test_names_of_a_compiled_part():
    model = tiny()
    root, storages = pickles.parts(model)
    state = root["model_state_dict"]
    state["encoder._orig_mod.0.weight"] = state.pop("encoder.0.weight")
    check_equal(checkpoint.to_model(checkpoint.read(pickles.archive(pickles.program(root), storages)), "x"), model)
    state["encoder.0.weight"] = state["encoder._orig_mod.0.weight"]
    with pytest.raises(MalformedModel, match="with and without _orig_mod"):
        checkpoint.read(pickles.archive(pickles.program(root), storages))


def test_numbers_of_other_types_in_a_configuration():
    model = tiny("Codec1D", post_filter=True)
    fields = json.loads(model.config.to_json())
    fields |= {"J": float(fields["J"]), "lightweight_encode": 1, "post_filter": 1.0}
    data = pickles.checkpoint(model, config=None)
    check_equal(checkpoint.to_model(checkpoint.read(data, json.dumps(fields).encode()), "x"), model)
    for wrong in ({"J": 2.5}, {"J": True}, {"lightweight_encode": 2}, {"J": float("inf")}, {"J": 1e300}):
        with pytest.raises(MalformedModel, match="config"):
            checkpoint.to_model(checkpoint.read(data, json.dumps(fields | wrong).encode()), "x")


# ---- the command line ----------------------------------------------------------------------------------------------


def test_import_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tiny("Codec1D")
    Path("CKPT.pth").write_bytes(pickles.checkpoint(model))
    assert cli.main(["import", "CKPT.pth", "stereo_1x.safetensors"]) == 0
    assert capsys.readouterr().out.startswith("stereo_1x.safetensors: Codec1D, ")
    found = weights.load("stereo_1x.safetensors")
    check_equal(found, model)
    assert found.name == "stereo_1x"
    Path("CKPT.pth").write_bytes(pickles.checkpoint(model, config=None, kind="f8"))
    Path("CONFIG.json").write_text(model.config.to_json())
    assert cli.main(["import", "CKPT.pth", "CONFIG.json", "other.safetensors"]) == 0
    check_equal(weights.load("other.safetensors"), model)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["CKPT.pth", "x.safetensors"], "checkpoint.config: missing"),
        (["CKPT.pth", "CKPT.pth", "x.safetensors"], "config: not JSON"),
        (["none.pth", "x.safetensors"], "none.pth"),
        (["CKPT.pth", "x.pth"], ".safetensors"),
        (["bad.json", "x.safetensors"], "not a zip archive"),
        (["CKPT.pth", "bad.json", "x.safetensors"], "config"),
    ],
)
def test_import_faults(arguments, match, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("CKPT.pth").write_bytes(pickles.checkpoint(tiny(), config=None))
    Path("bad.json").write_text("{}")
    assert cli.main(["import", *arguments]) == 3
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1
    assert not Path("x.safetensors").exists()
