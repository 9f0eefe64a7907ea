"""ENVI and MATLAB files in and out: byte orders, interleaving, headers that lie, arrays whose axes are unknown."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError
from walloc_ref.files import media, spectral
from walloc_ref.files.arrays import Wanted
from walloc_ref.files.geometry import Geometry

CODES = {"uint8": 1, "int16": 2, "float32": 4, "uint16": 12}
RANDOM = np.random.default_rng(5)


def cube(dtype, shape=(4, 5, 7)):
    if np.dtype(dtype).kind == "f":
        return RANDOM.normal(0, 1, shape).astype("f4").astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def write_envi(folder, samples, *, code=None, interleave="bsq", order="<", offset=0, raw="cube.img", extra=""):
    turned = samples.transpose(["HWC".index(axis) for axis in spectral.INTERLEAVES[interleave.lower()]])
    height, width, bands = samples.shape
    Path(folder, raw).write_bytes(bytes(offset) + turned.astype(samples.dtype.newbyteorder(order)).tobytes())
    header = f"ENVI\nsamples = {width}\nlines   = {height}\nbands = {bands}\nheader offset = {offset}\n"
    header += f"data type = {code or CODES[samples.dtype.name]}\ninterleave = {interleave}\n"
    header += f"byte order = {'<>'.index(order)}\n"
    Path(folder, "cube.hdr").write_text(header + extra)
    return os.path.join(folder, "cube.hdr")


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("interleave", ["bsq", "bil", "BIP"])
@pytest.mark.parametrize("order", "<>")
def test_envi(tmp_path, dtype, interleave, order):
    samples = cube(dtype)
    name = write_envi(tmp_path, samples, interleave=interleave, order=order, offset=13)
    found = media.read(name)
    assert found.kind == "image" and found.samples.dtype == dtype
    assert_array_equal(found.samples, samples)
    out = str(tmp_path / "out.hdr")
    assert media.check(out, out, found, (4, 5), 7) == ()
    media.write(out, out, found)
    assert (tmp_path / "out.img").stat().st_size == samples.nbytes
    again = media.read(out)
    assert_array_equal(again.samples, samples)
    assert again.geometry == found.geometry
    assert f"interleave = {interleave.lower()}\n" in Path(out).read_text()


EXTRA = """; made by hand
description = { a cube,
  of two lines }
Wavelength Units = Nanometers
wavelength = {
 400.5, 500, 600, 700,
 800, 900, 1000.25
}
fwhm = { 10, 10, 10, 10, 10, 10, 9.5 }
band names = {a, b, c, d, e, f, g h}
data ignore value = -9999
map info = {UTM, 1.000, 1.000, 250000.0, 4000000.0, 20, 20, 11, North, WGS-84}
sensor type = AVIRIS
"""


def test_envi_says_wavelengths_and_place(tmp_path):
    name = write_envi(tmp_path, cube("int16"), extra=EXTRA)
    found = media.read(name)
    g = found.geometry
    assert g.wavelengths == (400.5, 500, 600, 700, 800, 900, 1000.25) and g.wavelength_units == "Nanometers"
    assert g.bandwidths[-1] == 9.5 and g.bands[-1] == "g h" and g.ignore == -9999
    assert g.header["envi"]["map info"].startswith("UTM, 1.000")
    assert g.header["envi"]["sensor type"] == "AVIRIS"
    media.write(str(tmp_path / "out.hdr"), "out.hdr", found)
    again = media.read(str(tmp_path / "out.hdr"))
    assert again.geometry == g
    assert_array_equal(again.samples, found.samples)
    # what a stranger's metadata say cannot add fields of their own
    odd = Geometry(bands=("a}\nsamples = 9", "b,c"), header={"envi": {"x\nlines": "1", "y": "z\nbands = 9"}})
    header = spectral.write_envi(io.BytesIO(), np.zeros((2, 3, 2), "u1"), odd).decode()
    fields = spectral.read_envi_header(header.encode(), "odd")
    assert (fields["samples"], fields["lines"], fields["bands"]) == ("3", "2", "2")
    assert fields["band names"].count(",") == 1
    # nor are those of other channels written
    other = spectral.write_envi(io.BytesIO(), np.zeros((2, 3, 5), "u1"), g).decode()
    assert "wavelength =" not in other and "band names" not in other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("samples = 5", "samples = 6"), "has 280 bytes of samples; 336, as"),
        (("samples = 5", "samples = 4"), "has 280 bytes of samples; 224, as"),
        (("samples = 5", "samples = 999999999"), "at most 1073741824 samples"),
        (("samples = 5", "samples = -5"), "samples = -5; a whole number from 1"),
        (("samples = 5", "samples = 0"), "samples = 0"),
        (("samples = 5\n", ""), "samples = None"),
        (("samples = 5\n", "samples = 5\nsamples = 5\n"), "every field once"),
        (("bsq", "bxx"), "interleave = bxx"),
        (("data type = 12", "data type = 7"), "data type = 7"),
        (("data type = 12", "data type = 6"), "has 280 bytes of samples; 1120"),
        (("byte order = 0", "byte order = 2"), "byte order = 2"),
        (("header offset = 0", "header offset = 400"), "has -120 bytes of samples"),
        (("wavelength = {", "wavelength = {1, "), "wavelength, 8 numbers; 7, one for each band"),
        (("400.5", "nan"), "wavelength, 7 numbers; 7"),
        (("400.5", "x"), "wavelength, 0 numbers"),
        (("{a, b", "{a b"), "band names, 6; 7"),
        (("{a, b", "{a, b, c"), "band names, 8; 7"),
        (("-9999", "none"), "header whose fields can be kept"),
        (("WGS-84}", "WGS-84"), "a value whose brace is closed"),
        (("ENVI\n", "ENVIX\n"), "input"),
    ],
)
def test_envi_headers_that_lie(tmp_path, change, message):
    name = write_envi(tmp_path, cube("uint16"), extra=EXTRA)
    text = Path(name).read_text()
    assert change[0] in text
    if "brace" in message:
        text = text.replace("sensor type = AVIRIS\n", "")
    Path(name).write_text(text.replace(*change))
    with pytest.raises(WallocError, match=message):
        media.read(name)


def test_envi_needs_its_samples(tmp_path):
    name = write_envi(tmp_path, cube("uint8"))
    os.rename(tmp_path / "cube.img", tmp_path / "cube")  # a name without an ending is usual, too
    assert media.read(name).samples.shape == (4, 5, 7)
    Path(tmp_path, "cube.dat").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="samples beside it: cube, cube.dat; one of"):
        media.read(name)
    os.remove(tmp_path / "cube")
    os.remove(tmp_path / "cube.dat")
    with pytest.raises(UnreadableFile, match="samples beside it: none"):
        media.read(name)
    os.mkdir(tmp_path / "cube.img")
    with pytest.raises(UnreadableFile):
        media.read(name)
    with pytest.raises(UnreadableFile, match="a header of at most"):
        spectral.read_envi_header(b"ENVI\n" + bytes(spectral.MAX_ENVI_HEADER), "x")


def test_envi_of_types_that_are_not_held(tmp_path):
    whole = np.arange(140.0).reshape(4, 5, 7)
    name = write_envi(tmp_path, whole, code=5)
    assert media.read(name).sample_format == "f32"
    assert media.read(name, Wanted(sample_format="u8")).sample_format == "u8"
    name = write_envi(tmp_path, whole / 3, code=5)
    with pytest.raises(BadSamples, match=r"at \[0, 0, 1\] in float64; values that f32 holds exactly"):
        media.read(name)
    name = write_envi(tmp_path, whole.astype("c8"), code=6)
    with pytest.raises(BadSamples, match="complex"):
        media.read(name)
    broken = whole.astype("f4")
    broken[2, 3, 4] = np.nan
    with pytest.raises(BadSamples, match=r"1 of 140 values NaN or infinite, the first at \[2, 3, 4\]"):
        media.read(write_envi(tmp_path, broken))


def test_envi_headers_of_chance(tmp_path):
    """A header with bytes changed is read right or refused, and nothing is allocated on its word."""
    name = write_envi(tmp_path, cube("uint16"), extra=EXTRA)
    whole = Path(name).read_bytes()
    refused = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        broken = bytearray(whole)
        for place in random.integers(5, len(whole), 3):
            broken[place] = random.integers(256)
        Path(name).write_bytes(broken)
        try:
            assert media.read(name).samples.size == 140
        except WallocError:
            refused += 1
    assert 50 < refused < 300


def mat(compressed=True, **arrays):
    out = io.BytesIO()
    scipy.io.savemat(out, arrays, do_compression=compressed)
    return out.getvalue()


def read_mat(data, **wanted):
    return spectral.read_mat(data, "a.mat", Wanted(**wanted))


@pytest.mark.parametrize("compressed", [False, True])
def test_mat(compressed):
    bands = cube("uint16", (3, 20))
    data = mat(compressed, Y=bands)
    assert_array_equal(read_mat(data, axes="HW").samples, bands)
    found = read_mat(data, shape=(3, 5, 4), axes="CWH")
    assert_array_equal(found.samples, bands.reshape(3, 5, 4).transpose(2, 1, 0))
    with pytest.raises(BadSamples, match=r"Y, two axes \(3, 20\) of unknown meaning; --axes HW .* --shape and --axes"):
        read_mat(data)
    with pytest.raises(BadSamples, match="--shape: 3x21; as many values"):
        read_mat(data, shape=(3, 21), axes="HW")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [*CODES, "float64"])
def test_mat_cubes(dtype, compressed):
    samples = cube(dtype if dtype != "float64" else "float32").astype(dtype)
    out = io.BytesIO()
    scipy.io.savemat(
        out, {"x": samples, "text": "abc", "cell": np.array([[1, "a"]], dtype=object)}, do_compression=compressed
    )
    assert_array_equal(read_mat(out.getvalue(), kind="image").samples, samples)
    assert read_mat(out.getvalue(), kind="volume").kind == "volume"
    with pytest.raises(BadSamples, match="of unknown meaning"):
        read_mat(out.getvalue())


def test_mat_of_several_and_of_other_things():
    data = mat(
        a=np.zeros((2, 3, 4)), b=np.ones((2, 3, 4)), c=np.zeros((2, 2)) + 1j, d=np.zeros((2, 2), bool), e={"f": 1}
    )
    with pytest.raises(BadSamples, match="3 arrays of numbers; one; or name one by --variable: a, b, c"):
        read_mat(data, kind="image")
    assert read_mat(data, kind="image", variable="b").samples.all()
    with pytest.raises(BadSamples, match="complex"):
        read_mat(data, variable="c", axes="HW")
    for name in ("d", "e", "f"):
        with pytest.raises(BadSamples, match="--variable"):
            read_mat(data, variable=name, axes="HW")
    with pytest.raises(UnreadableFile, match="version 7.3"):
        read_mat(b"MATLAB 7.3 MAT-file".ljust(512) + spectral.HDF5_MAGIC)
    with pytest.raises(LimitExceeded, match="at most 23 samples"):
        read_mat(data, kind="image", variable="b", max_samples=23)
    sparse = mat(s=scipy.sparse.csc_array(np.eye(3)))
    with pytest.raises(BadSamples, match="none"):
        read_mat(sparse)


def test_mat_that_lies():
    plain = io.BytesIO()
    scipy.io.savemat(plain, {"x": cube("uint8", (30, 40))})
    plain = bytearray(plain.getvalue())
    assert read_mat(bytes(plain), axes="HW").samples.shape == (30, 40)
    at = plain.index((30).to_bytes(4, "little") + (40).to_bytes(4, "little"))
    for sizes in ((31, 40), (1 << 30, 1), (1 << 16, 1 << 14), (-30, -40)):
        lie = bytearray(plain)
        lie[at : at + 8] = np.array(sizes, "<i4").tobytes()
        with pytest.raises(WallocError):
            read_mat(bytes(lie), axes="HW")
        body = zlib.compress(lie[128:], 9)
        packed = lie[:128] + np.array([15, len(body)], "<u4").tobytes() + body
        with pytest.raises(WallocError):
            read_mat(bytes(packed), axes="HW")
    body = zlib.compress(np.array([14, 1 << 31], "<u4").tobytes() + bytes(plain[136:400]))
    with pytest.raises(UnreadableFile, match="at most 1032 for one"):
        read_mat(bytes(plain[:128]) + np.array([15, len(body)], "<u4").tobytes() + body)
    for data in (bytes(plain), mat(x=cube("uint8", (30, 40)))):
        for size in range(130, len(data), 113):
            with pytest.raises(WallocError):
                read_mat(data[:size], axes="HW")
        for seed in range(300):
            random = np.random.default_rng(seed)
            broken = bytearray(data)
            for place in random.integers(100, 260, 2):
                broken[place] = random.integers(256)
            with contextlib.suppress(WallocError):
                assert read_mat(bytes(broken), axes="HW", max_samples=10000).samples.size <= 10000
