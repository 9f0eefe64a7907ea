"""The conformance suite: that it is whole, that this package passes, that wrong implementations do not, and its tools."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from walloc_ref import cli
from walloc_ref import model as models
from walloc_ref.conform import compare, explain, mutants, runner, stages, validate
from walloc_ref.conform import suite as suites
from walloc_ref.conform.stages import Package, Stages
from walloc_ref.errors import WallocError
from walloc_ref.plain import compiled
from walloc_ref.stages import container

ROOT = Path(__file__).resolve().parent.parent
CONFORMANCE = ROOT / "conformance"
SUITE = suites.load()


def run(cases, implementation=None, **options):
    return runner.run(SUITE, runner.InProcess(implementation or Package()), cases, **options)


# ---- the suite


def test_the_manifest_follows_its_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SUITE.folder / "manifest.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(SUITE.manifest)


def test_the_files_are_those_of_the_manifest_and_the_references_lead_somewhere():
    assert SUITE.check() == []
    manifest = SUITE.manifest
    for case in SUITE.cases:
        assert (case.op, case.stage) in stages.STAGES, case.id
        assert case.id.startswith(f"{case.op}.{case.stage}."), case.id
        assert case.compare in manifest["comparisons"] and case.signal in manifest["signals"], case.id
        assert case.origin in manifest["origins"] and set(case.flags) <= manifest["flags"].keys(), case.id
        assert case.fault is None or case.fault in manifest["faults"], case.id
        assert set(case.levels) <= set(suites.LEVELS), case.id
    used = {name for case in SUITE.cases for name in (case.input, case.output, case.guard)}
    used |= {entry["file"] for entry in manifest["models"].values()}
    assert set(manifest["files"]) <= used


def test_every_flag_fault_signal_comparison_and_stage_is_used():
    cases = SUITE.cases
    assert {flag for case in cases for flag in case.flags} == SUITE.manifest["flags"].keys()
    assert {case.fault for case in cases if case.fault} == SUITE.manifest["faults"].keys()
    assert {case.compare for case in cases} == SUITE.manifest["comparisons"].keys()
    assert {case.origin for case in cases} == SUITE.manifest["origins"].keys()
    assert {case.signal for case in cases} == SUITE.manifest["signals"].keys()
    assert {(case.op, case.stage) for case in cases} == stages.STAGES.keys()


def test_the_readme_shows_headers_of_the_suite():
    text = (CONFORMANCE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shown = [json.loads(part) for part in re.split(r"\n(?={)", block)]
    names = ("linear-slices", "codec1d-slices")
    assert shown == [json.loads(SUITE.read(f"vectors/{name}/header.json")) for name in names]


def test_the_suite_is_small():
    assert sum(facts["bytes"] for facts in SUITE.manifest["files"].values()) < 20 << 20


def test_every_margin_exceeds_its_bound():
    bounds = {"encode": 2.0**-30, "u8": 2.0**-30, "u16": 2.0**-24, "s16": 2.0**-24, "s24": 2.0**-16, "s32": 2.0**-8}
    smallest = SUITE.manifest["generator"]["smallest_margins"]
    assert smallest.keys() == {"symbols", "u8", "u16", "s16", "s24", "s32"}
    for case in SUITE.cases:
        if case.op == "encode" and case.margin is not None:
            assert case.margin >= smallest["symbols"] > bounds["encode"], case.id
        if case.op == "decode" and case.stage == "stream" and case.margin is not None:
            header = container.read(SUITE.read(case.input)).header
            assert case.margin >= smallest[header.sample_format] > bounds[header.sample_format], case.id


def test_every_architecture_and_number_of_bits_has_whole_vectors():
    configs = [
        SUITE.manifest["models"][c.model]["config"] for c in SUITE.cases if c.stage == "stream" and not c.rejects
    ]
    assert {c["architecture"] for c in configs} == set(models.ARCHITECTURES)
    assert {c["latent_bits"] for c in configs} == set(range(2, 9))
    assert {c["lightweight_encode"] for c in configs if "lightweight_encode" in c} == {True, False}
    assert {c["post_filter"] for c in configs if "post_filter" in c} == {True, False}


@pytest.mark.skipif(not (ROOT / "weights").is_dir(), reason="not in a checkout")
def test_bundled_weights_have_vectors():
    weights = {path.stem for path in (ROOT / "weights").glob("*.safetensors")}
    tested = {(c.model or "").removeprefix("bundled-") for c in SUITE.cases if (c.model or "").startswith("bundled-")}
    assert tested == weights, "run `python conformance/generator/generate.py --bundled`"


@pytest.mark.skipif(not (ROOT / "SPEC.md").is_file(), reason="not in a checkout")
def test_every_clause_has_a_vector_and_every_vector_a_clause():
    clauses = set(re.findall(r"^\*\*(\d+\.\d+)\*\*", (ROOT / "SPEC.md").read_text(encoding="utf-8"), re.MULTILINE))
    tested = {clause for case in SUITE.cases for clause in case.clauses}
    informative = set(SUITE.manifest["informative_clauses"])
    assert all(case.clauses for case in SUITE.cases)
    assert tested - clauses == set(), "vectors name clauses that do not exist"
    assert informative - clauses == set(), "clauses said to be informative do not exist"
    assert tested & informative == set(), "clauses said to be informative are tested"
    assert clauses - tested - informative == set(), "clauses without a vector"


# ---- this package


def test_the_package_conforms():
    # without kernels, trained tables take the coder's definition minutes
    cases = [c for c in SUITE.cases if compiled() or not (c.model or "").startswith("bundled-")]
    report = run(cases)
    assert [(r.case.id, r.verdict, r.message) for r in report.results if r.verdict != runner.PASS] == []
    assert report.exit_code == runner.CONFORMANT
    if compiled():
        assert set(report.levels.values()) == {"conformant"}


def test_the_clear_definitions_conform():
    small = [c for c in SUITE.cases if not (c.model or "").startswith("bundled-")]
    report = run(mutants.sampled(small, ""), Stages())
    assert [(r.case.id, r.verdict, r.message) for r in report.results if r.verdict != runner.PASS] == []


def test_the_package_decodes_within_the_tolerance_of_binary32():
    cases = [case for case in SUITE.select((), "decoder-binary32") if case.stage == "stream"]
    assert run(cases[::7], level="decoder-binary32").exit_code == runner.CONFORMANT


@pytest.mark.skipif(not compiled(), reason="the definitions know binary64 alone")
def test_the_package_conforms_in_binary32():
    cases = SUITE.select((), "decoder-binary32")
    report = run(cases, Package("binary32"), level="decoder-binary32")
    assert [(r.case.id, r.verdict, r.message) for r in report.results if r.verdict != runner.PASS] == []
    assert report.levels == {"decoder-binary32": "conformant"}


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_wrong_implementation_is_caught_by_the_stage_that_it_breaks(mutant):
    catch = mutants.check(SUITE, mutant)
    assert catch.result is not None, f"not caught in {catch.cases} cases"
    assert catch.result.case.stage_name == mutant.breaks, f"caught by {catch.result.case.id}: {catch.result.message}"


def test_there_are_enough_wrong_implementations():
    names = {mutant.name for mutant in mutants.MUTANTS}
    assert len(names) == len(mutants.MUTANTS) >= 25
    assert all(tuple(mutant.breaks.split()) in stages.STAGES for mutant in mutants.MUTANTS)


def test_what_a_mutant_replaces_is_put_back():
    for mutant in mutants.MUTANTS:
        with mutant.make():
            pass
    report = run(list(SUITE.select(["decode.dequantise", "encode.analysis", "decode.samples"])), Stages())
    assert report.exit_code == runner.CONFORMANT


# ---- comparisons


def test_comparisons_fail_on_what_is_not_provably_right():
    right = np.array([[1.0, 2.0], [3.0, 4.0]])
    nan, infinite = right.copy(), right.copy()
    nan[1, 1], infinite[0, 0] = np.nan, np.inf
    for wrong in (nan, infinite):
        with pytest.raises(compare.Different):
            compare.close(right, wrong, 1e9)
        with pytest.raises(compare.Different):
            compare.equal(right, wrong)
    with pytest.raises(compare.Different):
        compare.equal(nan, nan)
    compare.close(right, right + 1e-13, 1e-12)
    for other in (right.astype(np.float32), right.astype(">f8"), right[:1], right[None]):
        with pytest.raises(compare.Different):
            compare.same_type(right, other)


def test_array_files_are_read_strictly():
    data = compare.write_array(np.arange(6, dtype=np.int16).reshape(2, 3))
    assert compare.read_array(data).tolist() == [[0, 1, 2], [3, 4, 5]]
    pickled = data.replace(b"'<i2'", b"'|O' ")
    for wrong in (b"", data[:5], data[:-1], data + b"\0", data + data, b"\0" + data, pickled):
        with pytest.raises(compare.Different):
            compare.read_array(wrong)


def test_json_is_compared_by_value():
    compare.same_fields(b'{"a": 1, "b": 2.5}', b'{"b": 2.5, "a": 1.0}')
    for wrong in (
        b"{}",
        b"[]",
        b"",
        b'{"a": 1}',
        b'{"a": 1, "b": 2.5, "c": 0}',
        b'{"a": true, "b": 2.5}',
        b'{"a": 1, "b": NaN}',
    ):
        with pytest.raises(compare.Different):
            compare.same_fields(b'{"a": 1, "b": 2.5}', wrong)


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(compare.Different) as caught:
        compare.same_fields(b'{"a": 1, "b": 2, "c": 3}', b'{"a": 2, "c": 4, "d": 0}')
    for words in ("field a is 2, expected 1", "field b is missing", "field c is 4", "field d is not one"):
        assert words in str(caught.value)


def test_an_encoder_may_not_write_a_false_certificate():
    case = SUITE.case("encode.stream.linear-certified")
    data = SUITE.read("vectors/linear-certified/stream-certified.wlc")
    compare.check(case, SUITE, data)
    stream = container.read(data)
    assert stream.certificate is not None
    false = container.write(replace(stream, certificate=replace(stream.certificate, sample_hash=bytes(32))))
    with pytest.raises(compare.Different, match="CERTIFICATE"):
        compare.check(case, SUITE, false)


def test_arrays_that_the_suite_does_not_hold_are_compared_by_their_digest():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    wanted = compare.digest_of(array)
    compare.same_digest(wanted, compare.write_array(array))
    for other in (array + 1, array.astype(np.int32), array.reshape(3, 2)):
        with pytest.raises(compare.Different):
            compare.same_digest(wanted, compare.write_array(other))


def test_binary32_tolerance_is_held_sample_by_sample():
    expected = np.arange(200, dtype=np.uint8)
    near = np.zeros(200, bool)
    near[[3, 50, 51]] = True
    guard = np.packbits(near, bitorder="little")

    def differ(*places, by=1, share=2.0**-7):
        actual = expected.copy()
        actual[list(places)] += by
        compare.guarded(expected, actual, guard, 1, share)

    differ()
    differ(3)
    differ(3, 50)
    for arguments in ({"places": [4]}, {"places": [3], "by": 2}, {"places": [3, 50, 51]}):
        with pytest.raises(compare.Different):
            differ(*arguments.pop("places"), **arguments)
    differ(3, 50, 51, share=1.0)


def test_an_encoder_may_cut_slices_as_it_likes_but_not_code_other_bytes():
    case = SUITE.case("encode.stream.linear-slices")
    data = SUITE.read("vectors/linear-slices/stream.wlc")
    compare.check(case, SUITE, data)
    compare.check(
        case,
        SUITE,
        Package().perform("encode", "stream", SUITE.model_path("linear"), SUITE.read(case.input), case.parameters),
    )
    stream = container.read(data)
    for changed in (
        replace(stream, header=replace(stream.header, sizes=(61, 39))),
        replace(stream, slices=(stream.slices[1], stream.slices[0], *stream.slices[2:])),
        replace(stream, slices=(stream.slices[0] + b"\0", *stream.slices[1:])),
    ):
        with pytest.raises(compare.Different):
            compare.check(case, SUITE, container.write(changed))


# ---- the runner against other programs

SCRIPT = """
import shutil, sys, time
MODE, op, stage, model, source, output = sys.argv[1:7]
if MODE == "copy": shutil.copy(source, output)
if MODE == "silent": pass
if MODE == "crash": sys.exit(1)
if MODE == "signal":
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
if MODE == "hang": time.sleep(60)
if MODE == "reject": sys.exit(10)
if MODE == "unsupported": sys.exit(11)
"""

SERVER = """
import shutil, sys, time
for line in sys.stdin:
    op, stage, model, source, output, parameters = line.rstrip("\\n").split("\\t")
    if "clamp" in output + stage:
        shutil.copy(source, output)
        print("ok", flush=True)
    elif stage == "symbols":
        print("rejected because I say so", flush=True)
    elif stage == "slice":
        sys.exit(1)
    elif stage == "round":
        time.sleep(60)
    elif stage == "pad":
        print("what?", flush=True)
    else:
        print("unsupported", flush=True)
"""


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "adapter with blanks.py"
    path.write_text(SCRIPT)
    return lambda mode: f"{sys.executable} '{path}' {mode} {{op}} {{stage}} {{model}} {{input}} {{output}}"


def one(adapter_command, identifier, timeout=30.0):
    command = runner.Command(adapter_command, timeout)
    return runner.run(SUITE, command, [SUITE.case(identifier)]).results[0]


def test_verdicts_of_a_command(adapter):
    valid, invalid = "encode.stream.linear-1x1", "decode.symbols.invalid-empty"
    same = "decode.clamp.linear-constant" if any(c.id == "decode.clamp.linear-constant" for c in SUITE.cases) else None
    assert one(adapter("reject"), invalid).verdict == runner.PASS
    assert one(adapter("copy"), invalid).verdict == runner.ACCEPTED
    assert one(adapter("crash"), invalid).verdict == runner.CRASH
    assert one(adapter("signal"), invalid).verdict == runner.CRASH
    assert one(adapter("silent"), invalid).verdict == runner.CRASH
    assert one(adapter("hang"), invalid, timeout=0.3).verdict == runner.HANG
    assert one(adapter("unsupported"), invalid).verdict == runner.MISSING
    assert one(adapter("copy") + " {parameters}", valid).verdict == runner.FAIL
    assert one(adapter("reject") + " {parameters}", valid).verdict == runner.FAIL
    assert one(adapter("copy"), valid).verdict == runner.MISSING  # it needs parameters
    assert same is None or one(adapter("copy"), same).verdict == runner.PASS


def test_a_server_is_restarted_after_a_crash_or_a_hang(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    ids = [
        "decode.clamp.linear-j1-noise",
        "decode.symbols.invalid-empty",
        "decode.slice.coder-zeros",
        "encode.round.bits-8-ties",
        "encode.pad.1x4",
        "decode.header.linear-1x1",
        "decode.symbols.linear-1x1",
    ]
    for jobs in (1, 2):
        server = runner.Server(f"{sys.executable} {path}", timeout=1.0)
        report = runner.run(SUITE, server, [SUITE.case(name) for name in ids], jobs=jobs)
        verdicts = {r.case.id: r.verdict for r in report.results}
        assert verdicts["decode.symbols.invalid-empty"] == runner.PASS
        assert verdicts["decode.slice.coder-zeros"] == runner.CRASH
        assert verdicts["encode.round.bits-8-ties"] == runner.HANG
        assert verdicts["encode.pad.1x4"] == runner.CRASH
        assert verdicts["decode.header.linear-1x1"] == runner.MISSING
        assert verdicts["decode.symbols.linear-1x1"] == runner.FAIL
        assert report.exit_code == runner.NOT_CONFORMANT


def test_exit_codes_of_a_run(adapter, tmp_path, capsys):
    def conform(*arguments):
        code = cli.main(["conform", "run", *arguments])
        return code, capsys.readouterr()

    assert conform("--only", "decode.header")[0] == 0
    assert conform("--only", "no-such-case")[0] == 2
    assert conform("--impl", adapter("crash"), "--only", "decode.header.linear-1x1")[0] == 1
    assert conform("--impl", adapter("unsupported"), "--only", "decode.header.linear-1x1")[0] == 2
    assert conform("--impl", adapter("reject"), "--only", "decode.symbols.invalid-magic")[0] == 0
    assert conform("--impl", "/no/such/command {input}", "--only", "decode.header.linear-1x1")[0] == 4
    assert conform("--impl", "/no/such/command", "--serve", "--only", "decode.header.linear-1x1")[0] == 4
    code, said = conform("--suite", str(tmp_path))
    assert code == 3 and "manifest.json" in said.err


@pytest.mark.parametrize("damage", ["changed", "missing", "surplus", "schema", "empty"])
def test_a_corrupt_suite_gives_no_verdict(tmp_path, damage, capsys):
    names = ["vectors/linear-1x1/stream.wlc", "vectors/linear-1x1/symbols.npy", "models/linear.safetensors"]
    manifest = dict(SUITE.manifest)
    manifest["cases"] = [c for c in manifest["cases"] if c["id"] == "decode.symbols.linear-1x1"]
    manifest["files"] = {name: manifest["files"][name] for name in names}
    manifest["models"] = {"linear": manifest["models"]["linear"]}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SUITE.path(name), tmp_path / name)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["conform", "run", "--suite", str(tmp_path)]) == 0
    if damage == "changed":
        with (tmp_path / names[1]).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x55")
    elif damage == "missing":
        (tmp_path / names[0]).unlink()
    elif damage == "surplus":
        (tmp_path / "vectors" / "more.npy").write_bytes(b"")
    else:
        (tmp_path / "manifest.json").write_text("{" if damage == "schema" else json.dumps(manifest | {"cases": []}))
    assert cli.main(["conform", "run", "--suite", str(tmp_path)]) == 3
    assert "corrupt" in capsys.readouterr().err


def test_reports(tmp_path, capsys):
    junit = tmp_path / "junit.xml"
    arguments = [
        "conform",
        "run",
        "--only",
        "decode.header",
        "--only",
        "encode.pad.1x*",
        "--report",
        "json",
        "--junit",
        str(junit),
    ]
    assert cli.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 0 and report["counts"] == {"pass": len(report["results"])}
    assert report["levels"]["symbols"].startswith("incomplete")
    root = ElementTree.parse(junit).getroot()
    assert len(root) == len(report["results"]) == int(root.get("tests")) and root.get("failures") == "0"


def test_a_report_to_publish_says_what_was_tested_and_when(capsys):
    assert cli.main(["conform", "run", "--only", "decode.header", "--report", "markdown"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"- date: `\d{4}-\d\d-\d\d`", said) and "| decode header | " in said
    assert "| symbols | incomplete" in said and "- implementation: `walloc_ref" in said


def test_the_suite_in_the_form_of_fluster(capsys):
    assert cli.main(["conform", "fluster"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == {"name", "codec", "description", "test_vectors"} and len(listed["test_vectors"]) > 100
    for vector in listed["test_vectors"][::40]:
        case = SUITE.case(f"decode.stream.{vector['name']}")
        answer = runner.InProcess(Package()).answer(case, SUITE)
        raw = compare.read_array(answer.output).tobytes()
        assert hashlib.md5(raw).hexdigest() == vector["result"], case.id
        assert hashlib.md5(SUITE.read(vector["source"])).hexdigest() == vector["source_checksum"]


def test_a_report_names_the_first_divergent_stage_of_each_operation():
    class Wrong(Stages):
        def synthesis(self, bands, model, parameters):
            return super().synthesis(bands, model, parameters) + 1e-3

        def compand(self, latents, model, parameters):
            return super().compand(latents, model, parameters) * 1.001

    report = run(SUITE.select(["*linear-photo"]), Wrong())
    assert [(r.case.op, r.case.stage) for r in report.first_divergent()] == [
        ("decode", "synthesis"),
        ("encode", "compand"),
    ]
    assert "First divergent stage of decode: synthesis" in report.text()
    assert report.levels["decoder-binary32"].startswith("not run")
    assert report.exit_code == runner.NOT_CONFORMANT
    failures = ElementTree.fromstring(report.junit())
    assert int(failures.get("failures")) == sum(r.wrong for r in report.results)


def test_a_level_that_lacks_a_required_case_is_incomplete():
    class NoStreams(Stages):
        def decode_stream(self, data, model, parameters):
            raise stages.Unsupported("streams")

    cases = [case for case in SUITE.select((), "decoder") if case.model in ("linear", None)]
    report = run(cases, NoStreams(), level="decoder")
    assert report.exit_code == runner.INCOMPLETE and report.levels["decoder"].startswith("incomplete")


# ---- validate, explain, diff


def test_the_validator_and_the_reader_agree_on_every_stream():
    for case in SUITE.cases:
        if case.op == "decode" and case.stage == "symbols" and not case.id.startswith("decode.symbols.model-invalid"):
            data = SUITE.read(case.input)
            try:
                model = Package().load(SUITE.model_path(case.model))
            except WallocError:
                continue
            if case.rejects:
                with pytest.raises(validate.Violation) as caught:
                    validate.validate(data, model)
                assert 0 <= caught.value.offset <= len(data), case.id
                assert caught.value.hint and caught.value.clause, case.id
            else:
                assert "symbols and their hash" in validate.validate(data, model, decode=False).verified, case.id


@pytest.mark.parametrize(
    "name, clause, offset",
    [
        ("magic", "10.1", 0),
        ("version-2", "10.1", 4),
        ("crc-head", "10.2", 46),
        ("head-rate-0", "10.6", 12),
        ("critical-03", "10.4", 50),
    ],
)
def test_the_validator_names_clause_and_byte(name, clause, offset):
    with pytest.raises(validate.Violation) as caught:
        validate.validate(SUITE.read(f"vectors/invalid/{name}.wlc"))
    assert (caught.value.clause, caught.value.offset) == (clause, offset)


def test_the_validator_verifies_a_certificate():
    data = SUITE.read("vectors/linear-certified/stream-certified.wlc")
    model = Package().load(SUITE.model_path("linear"))
    assert "certificate of the samples" in validate.validate(data, model).verified
    with pytest.raises(validate.Violation) as caught:
        validate.validate(SUITE.read("vectors/invalid/certificate-hash.wlc"), model)
    assert caught.value.clause == "10.11"


def test_validate_on_the_command_line(capsys):
    model = str(SUITE.model_path("linear"))
    assert cli.main(["conform", "validate", str(SUITE.path("vectors/linear-1x1/stream.wlc")), "--model", model]) == 0
    assert "valid: container" in capsys.readouterr().out
    assert cli.main(["conform", "validate", str(SUITE.path("vectors/invalid/head-J-11.wlc")), "--model", model]) == 1
    assert "clause 10.6" in capsys.readouterr().out


def test_every_case_can_be_explained():
    for case in SUITE.cases:
        text = explain.explain(SUITE, case)
        assert case.id in text and case.clauses[0] in text and stages.STAGES[case.op, case.stage].text in text


def test_explain_and_list_on_the_command_line(capsys):
    assert cli.main(["conform", "list", "decode.clamp"]) == 0
    ids = capsys.readouterr().out.split()
    assert ids and all(name.startswith("decode.clamp.") for name in ids)
    assert cli.main(["conform", "explain", ids[0]]) == 0
    assert "Clauses" in capsys.readouterr().out
    assert cli.main(["conform", "explain", "no-such-case"]) == 3


def test_diff_says_what_a_difference_looks_like(tmp_path, capsys):
    def hint(identifier, change):
        case = SUITE.case(identifier)
        return explain.diff(SUITE, case, compare.write_array(change(compare.read_array(SUITE.read(case.output)))))[0]

    name = "encode.analysis.linear-photo"
    assert "No difference" in hint(name, lambda x: x)
    assert "times the expected" in hint(name, lambda x: x * 2)
    assert "shifted by 1 along axis 2" in hint(name, lambda x: np.roll(x, 1, 2))
    assert "LH and HL" in hint(name, lambda x: x[np.arange(48).reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(-1)])
    assert "no finite numbers" in hint(name, lambda x: x * np.nan)
    assert "dtype" in hint(name, lambda x: x.astype(np.float32))
    assert "only the border" in hint(
        "decode.stream.linear-photo", lambda x: np.pad(x[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0)), mode="edge") ^ 0
    )
    case = SUITE.case("decode.stream.linear-photo")
    wrong = compare.read_array(SUITE.read(case.output)).copy()
    wrong[10, 20, 1] ^= 1
    actual, image = tmp_path / "actual.npy", tmp_path / "map.png"
    actual.write_bytes(compare.write_array(wrong))
    assert cli.main(["conform", "diff", case.id, "--actual", str(actual), "--image", str(image)]) == 1
    said = capsys.readouterr().out
    assert "at [10, 20, 1]" in said and image.read_bytes()[:4] == b"\x89PNG"
    text, _ = explain.diff(SUITE, SUITE.case("encode.slice.coder-zeros"), b"123")
    assert "First difference at byte" in text


def test_selftest_on_the_command_line(capsys):
    assert cli.main(["conform", "selftest", "--only", "crop"]) == 0
    assert "2 of 2 wrong implementations caught" in capsys.readouterr().out
    assert cli.main(["conform", "selftest", "--only", "no such"]) == 2


# ---- the generator


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "walloc", "pywt"))
    or not (CONFORMANCE / "generator" / "generate.py").is_file(),
    reason="needs the [torch] extra and a checkout",
)
def test_torch_generates_the_same_suite():
    command = [sys.executable, str(CONFORMANCE / "generator" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
