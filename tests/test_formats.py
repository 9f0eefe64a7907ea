"""Files that people have, through the command line: encoded and decoded, their geometry back, one line for every fault."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
from models import photograph, tiny_model, volume
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import cli
from walloc_ref import model as models
from walloc_ref.files import geometry, media, spectral
from walloc_ref.files.arrays import Wanted

SPACING = geometry.Geometry(source="nifti", spacing=(3.0, 0.5, 0.25), units="mm", rescale=(1.0, -1024.0))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "PROGRESS_DELAY", 3600.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    for name, architecture, fields in (
        ("body", "LinearCodec3D", {"latent_dim": 6}),
        ("colours", "LinearCodec3D", {"channels": 3, "latent_dim": 8}),
        ("bands", "LinearCodec2D", {"channels": 7, "J": 1, "latent_dim": 9}),
        ("tiny", "LinearCodec2D", {}),
    ):
        Path(f"{name}.safetensors").write_bytes(models.save(tiny_model(architecture, **fields)))
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def put(name, samples, kind, known=geometry.Geometry()):  # noqa: B008
    sample_format = {"uint8": "u8", "uint16": "u16", "int16": "s16", "float32": "f32"}[samples.dtype.name]
    media.write(name, name, media.Media(kind=kind, samples=samples, sample_format=sample_format, geometry=known))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".nii", ".nii.gz", ".mat"])
def test_volumes(capsys, dtype, suffix):
    if suffix.startswith(".nii"):
        pytest.importorskip("nibabel")
    samples = volume(9, 14, 17, dtype=dtype)
    put(f"in{suffix}", samples, "volume", SPACING)
    code, out, err = run(capsys, "encode", f"in{suffix}", "a.wlc", "--model", "body")
    assert (code, err) == (0, "")
    assert ", 17x14x9, " in out and "bits per voxel" in out
    code, out, err = run(capsys, "decode", "a.wlc", f"out{suffix}")
    assert code == 0
    decoded = walloc_ref.decode(Path("a.wlc").read_bytes())
    again = media.read(f"out{suffix}", Wanted(kind="volume"))
    assert again.samples.dtype == dtype
    assert_array_equal(again.samples, decoded)
    known = again.geometry.to_json()
    if suffix in (".npz", ".tif"):
        assert err == "" and known == SPACING.to_json()
    if suffix.startswith(".nii"):
        assert (err, known["spacing"], known["rescale"]) == ("", [3.0, 0.5, 0.25], [1.0, -1024.0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".hdr", ".mat"])
def test_images_of_many_channels(capsys, dtype, suffix):
    samples = (photograph(22, 25, 7, dtype=np.uint8) / np.float32(3)).astype(dtype)
    known = geometry.Geometry(wavelengths=(4.5, 5, 6, 7, 8, 9, 10.25), wavelength_units="um", ignore=-1.0)
    put(f"in{suffix}", samples, "image", known)
    assert run(capsys, "encode", f"in{suffix}", "a.wlc", "--model", "bands")[0] == 0
    out = run(capsys, "info", "a.wlc")[1]
    if suffix in (".npz", ".tif", ".hdr"):
        assert "wavelengths     7, 4.5 to 10.25\n" in out
    assert run(capsys, "decode", "a.wlc", f"out{suffix}")[0] == 0
    again = media.read(f"out{suffix}", Wanted(kind="image"))
    assert_array_equal(again.samples, walloc_ref.decode(Path("a.wlc").read_bytes()))
    if suffix in (".npz", ".tif", ".hdr"):
        assert again.geometry.wavelengths == known.wavelengths
        assert (again.geometry.wavelength_units, again.geometry.ignore) == ("um", -1)


def test_from_one_kind_of_file_to_another(capsys):
    pytest.importorskip("nibabel")
    put("in.nii.gz", volume(9, 14, 17, dtype=np.int16), "volume", SPACING)
    assert run(capsys, "encode", "in.nii.gz", "a.wlc", "--model", "body")[0] == 0
    code, out, err = run(capsys, "info", "a.wlc")
    assert (
        "spacing         3, 0.5, 0.25\n" in out and "rescale         1, -1024\n" in out and "units           mm" in out
    )
    code, out, _ = run(capsys, "info", "--json", "a.wlc")
    assert json.loads(out)["metadata"]["spacing"] == [3.0, 0.5, 0.25]
    code, out, err = run(capsys, "decode", "a.wlc", "out.npy")
    assert code == 0
    assert err == (
        "walloc-ref: out.npy: has no place for what belongs to the samples: spacing, units, affine, rescale, header\n"
    )
    assert_array_equal(np.load("out.npy"), walloc_ref.decode(Path("a.wlc").read_bytes()))
    assert run(capsys, "decode", "a.wlc", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", (9, 14, 17))
    for arguments in (("--no-metadata",), ()):
        code, out, err = run(capsys, "decode", "a.wlc", "out.nii", *arguments)
        assert (code, err) == (0, "")
        assert (media.read("out.nii").geometry.rescale is None) == bool(arguments)


def test_a_region_keeps_its_place(capsys):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[-0.5, 0, 0, 90.5], [0, 0.75, 0, -126], [0, 0, 3.0, -72.25], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(volume(9, 14, 17).transpose(2, 1, 0), affine), "in.nii")
    assert run(capsys, "encode", "in.nii", "a.wlc", "--model", "body")[0] == 0
    assert run(capsys, "decode", "a.wlc", "out.nii", "--region", "3,4,5,6,7,2")[0] == 0
    part = nibabel.load("out.nii")
    assert part.shape == (6, 7, 2)
    assert_allclose(part.affine @ [0, 0, 0, 1], affine @ [3, 4, 5, 1])
    whole = walloc_ref.decode(Path("a.wlc").read_bytes())
    assert_array_equal(np.asarray(part.dataobj).T, whole[5:7, 4:11, 3:9])


def test_axes_and_shape(capsys):
    bands = photograph(20, 24, 7, dtype=np.uint16)
    stored = bands.transpose(2, 1, 0).reshape(7, 480).astype(np.float64)
    scipy.io.savemat("in.mat", {"Y": stored, "n": 7.0})
    arguments = ("encode", "in.mat", "a.wlc", "--model", "bands")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (3, "") and "2 arrays of numbers; one; or name one by --variable: Y, n" in err
    code, out, err = run(capsys, *arguments, "--variable", "Y")
    assert (code, out) == (3, "") and "two axes (7, 480) of unknown meaning; --axes HW" in err
    arguments += ("--variable", "Y", "--shape", "7,24,20", "--axes", "cwh")
    assert run(capsys, *arguments)[0] == 0
    assert run(capsys, *arguments, "--sample-format", "u8")[0] == 3
    assert run(capsys, *arguments, "--sample-format", "u16")[0] == 0
    direct = walloc_ref.load_model("bands").encode(bands, metadata={"source": "mat"})
    assert Path("a.wlc").read_bytes() == direct
    for wrong in (
        ("--shape", "7,0"),
        ("--shape", "x"),
        ("--axes", "CWX"),
        ("--axes", "CC"),
        ("--sample-format", "f64"),
    ):
        code, out, err = run(capsys, *arguments, *wrong)
        assert (code, out) == (2, "")


def test_the_model_tells_what_three_axes_are(capsys):
    np.save("in.npy", volume(9, 14, 7))
    assert run(capsys, "encode", "in.npy", "a.wlc", "--model", "body")[0] == 0
    assert walloc_ref.info(Path("a.wlc").read_bytes()).kind == "volume"
    assert run(capsys, "encode", "in.npy", "a.wlc", "--model", "bands")[0] == 0
    assert walloc_ref.info(Path("a.wlc").read_bytes()).kind == "image"
    code, out, err = run(capsys, "encode", "in.npy", "a.wlc")
    assert (code, out) == (3, "") and "3 axes (9, 14, 7) of unknown meaning; --axes" in err
    assert run(capsys, "encode", "in.npy", "a.wlc", "--axes", "DHW")[0] == 0  # there is one model of 8-bit volumes
    assert models.name_of(walloc_ref.info(Path("a.wlc").read_bytes()).model_id) == "mr_1x"
    np.save("wide.npy", volume(9, 14, 7).astype(np.uint16))
    code, out, err = run(capsys, "encode", "wide.npy", "a.wlc", "--axes", "DHW")
    assert (code, out) == (3, "") and "model: none named; --model, one for a volume of 1 channels in u16" in err
    code, out, err = run(capsys, "encode", "in.npy", "a.wlc", "--axes", "DHW", "--model", "bands")
    assert (code, out) == (3, "") and "a model for volume" in err


def test_four_channels_are_ambisonics_where_no_model_is_named(capsys):
    soundfile = pytest.importorskip("soundfile")
    wave = np.random.default_rng(0).integers(-9000, 9000, (700, 6), dtype=np.int16)
    soundfile.write("four.wav", wave[:, :4], 44100)
    assert run(capsys, "encode", "four.wav", "a.wlc")[0] == 0
    assert models.name_of(walloc_ref.info(Path("a.wlc").read_bytes()).model_id) == "ambisonics_8x"
    soundfile.write("six.wav", wave, 44100)
    code, out, err = run(capsys, "encode", "six.wav", "a.wlc")
    assert (code, out) == (3, "") and err.count("\n") == 1 and "channels" in err


def test_pages_are_slices(capsys):
    pages = volume(5, 16, 18, 3)
    frames = [Image.fromarray(page) for page in pages]
    frames[0].save("in.tif", save_all=True, append_images=frames[1:])
    assert run(capsys, "encode", "in.tif", "a.wlc", "--model", "colours")[0] == 0
    direct = walloc_ref.load_model("colours").encode(pages, metadata={"source": "tiff"})
    assert Path("a.wlc").read_bytes() == direct
    code, out, err = run(capsys, "encode", "in.tif", "a.wlc", "--model", "tiny")
    assert (code, out) == (3, "") and "model: tiny, for image; a model for volume" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.png", "output: out.png; a name that ends in .npy, .npz, .mat, .tif, .tiff, .nii, .nii.gz, for volume of"),
        ("out.hdr", "output: out.hdr; a name that ends in .npy"),
        ("out.dcm", "output: out.dcm; a name"),
        ("out", "output: out; a name"),
    ],
)
def test_what_a_file_cannot_hold_is_said_before_decoding(capsys, monkeypatch, name, message):
    Path("a.wlc").write_bytes(walloc_ref.load_model("body").encode(volume(5, 6, 7)))
    monkeypatch.setattr(walloc_ref.codec, "decode_stream", lambda *args, **options: pytest.fail("decoded"))
    code, out, err = run(capsys, "decode", "a.wlc", name)
    assert (code, out) == (3, "") and err.removeprefix("walloc-ref: ").startswith(message)
    assert not Path(name).exists()


def test_streams_and_pipes():
    np.save("in.npy", volume(9, 14, 17))
    command = [sys.executable, "-m", "walloc_ref.cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(walloc_ref.__file__).parents[1])}
    stream = subprocess.run(
        [*command, "encode", "-", "-", "--model", "body"],
        input=Path("in.npy").read_bytes(),
        capture_output=True,
        env=environment,
    )
    assert stream.returncode == 0, stream.stderr
    for suffix, options in (("npy", ()), ("tif", ("--format", ".tif"))):
        back = subprocess.run(
            [*command, "decode", "-", "-", *options], input=stream.stdout, capture_output=True, env=environment
        )
        assert back.returncode == 0, back.stderr
        Path(f"out.{suffix}").write_bytes(back.stdout)
        assert_array_equal(media.read(f"out.{suffix}", Wanted(kind="volume")).samples, walloc_ref.decode(stream.stdout))
    header = subprocess.run([*command, "encode", "-", "a.wlc"], input=b"ENVI\n", capture_output=True, env=environment)
    assert header.returncode == 3 and b"the name of ENVI's .hdr" in header.stderr
    dicom = subprocess.run(
        [*command, "encode", "-", "a.wlc"], input=bytes(128) + b"DICM" + bytes(9), capture_output=True, env=environment
    )
    assert dicom.returncode == 3 and b"input: -; the name of a DICOM file" in dicom.stderr


def test_envi_is_two_files_that_appear_together(capsys):
    Path("a.wlc").write_bytes(walloc_ref.load_model("bands").encode(photograph(20, 24, 7)))
    os.mkdir("b.img")
    code, out, err = run(capsys, "decode", "a.wlc", "b.hdr")
    assert (code, out) == (3, "") and "output: b.img; a writable file (Is a directory)" in err
    assert not Path("b.hdr").exists()
    assert run(capsys, "decode", "a.wlc", "c.hdr")[0] == 0
    assert spectral.read_envi_header(Path("c.hdr").read_bytes(), "c")["interleave"] == "bsq"
    assert sorted(path.name for path in Path().glob("c*")) == ["c.hdr", "c.img", "colours.safetensors"]
    code, out, err = run(capsys, "decode", "a.wlc", "/dev/null", "--format", ".hdr")
    assert (code, out) == (3, "") and "ENVI has two" in err


def test_metadata_of_strangers(capsys):
    odd = {"spacing": [1, 2, -3], "units": "\x1b[31m" + "x" * 300}
    Path("a.wlc").write_bytes(walloc_ref.load_model("body").encode(volume(5, 6, 7), metadata=odd))
    code, out, err = run(capsys, "decode", "a.wlc", "out.npz")
    assert (code, out) == (3, "") and err.startswith(
        "walloc-ref: metadata.spacing: [1, 2, -3]; two or three numbers above 0"
    )
    assert run(capsys, "decode", "a.wlc", "out.npz", "--no-metadata")[0] == 0
    code, out, err = run(capsys, "info", "a.wlc")
    assert code == 0 and "geometry        none that can be used (metadata.spacing" in out
    odd["spacing"] = [1, 2, 3]
    Path("a.wlc").write_bytes(walloc_ref.load_model("body").encode(volume(5, 6, 7), metadata=odd))
    code, out, err = run(capsys, "info", "a.wlc")
    assert code == 0 and "\x1b" not in out and r"\x1b[31mxxx" in out and max(map(len, out.splitlines())) < 120


def test_faults_are_one_line(capsys):
    nan = volume(5, 6, 7, dtype=np.float32)
    nan[2, 3, 4] = nan[4, 0, 0] = np.nan
    np.save("nan.npy", nan)
    np.save("complex.npy", nan.astype(complex))
    np.save("objects.npy", np.array([[None]]), allow_pickle=True)
    Path("a.npz").write_bytes(b"PK\3\4")
    Path("a.hdr").write_text("ENVI\nsamples = 9\n")
    Path("a.nii.gz").write_bytes(b"\x1f\x8b")
    Path("a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + bytes([14, 0, 0, 0, 255, 255, 255, 255]))
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((4, 8, 8), "c8"), photometric="minisblack")
    Path("a.tif").write_bytes(out.getvalue())
    os.mkdir("empty")
    for name, words in (
        ("nan.npy", "2 of 210 values NaN or infinite, the first at [2, 3, 4]"),
        ("complex.npy", "complex128 (complex numbers)"),
        ("objects.npy", "Python objects"),
        ("a.npz", "a complete .npz"),
        ("a.hdr", "samples beside it: none"),
        ("a.nii.gz", "a complete NIfTI file"),
        ("a.mat", "as it claims"),
        ("a.tif", "complex64"),
        ("empty", "a folder with the files of one DICOM series"),
    ):
        if name in ("a.nii.gz", "empty"):
            pytest.importorskip("nibabel")
            pytest.importorskip("pydicom")
        code, out, err = run(capsys, "encode", name, "a.wlc", "--model", "body")
        assert (code, out, err.count("\n")) == (3, "", 1), (name, err)
        assert words in err
    assert not Path("a.wlc").exists()
