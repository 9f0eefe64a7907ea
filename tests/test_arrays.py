"""Arrays as samples: types and values, axes, `.npy` and `.npz`, stacks of TIFF, geometry."""

from __future__ import annotations

import io
import json
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError
from walloc_ref.files import arrays, geometry, media, tiff_stacks
from walloc_ref.files.arrays import Wanted
from walloc_ref.files.geometry import Geometry

RANDOM = np.random.default_rng(11)
KNOWN = Geometry(
    source="nifti",
    spacing=(3.0, 0.5, 0.25),
    units="mm",
    affine=((0.25, 0, 0, -9.5), (0, 0.5, 0, 2.0), (0, 0, 3.0, 1e-7), (0, 0, 0, 1.0)),
    rescale=(1.0, -1024.0),
    header={"nifti": {"qform_code": 1, "pixdim": [1.0, 0.25, 0.5, 3.0, 0.0, 0.0, 0.0, 0.0]}},
)


def samples_of(shape, dtype):
    if dtype == "float32":
        return RANDOM.normal(0, 1e3, shape).astype("f4")
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out


def npz(**members):
    out = io.BytesIO()
    np.savez_compressed(out, **members)
    return out


def read_npy(array, **wanted):
    return arrays.read_npy(npy(array), "a.npy", Wanted(**wanted))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "shape"), [("image", (5, 1)), ("image", (5, 6, 7)), ("volume", (3, 4, 5)), ("volume", (3, 4, 5, 2))]
)
@pytest.mark.parametrize("fortran", [False, True])
def test_npy(dtype, order, kind, shape, fortran):
    samples = samples_of(shape, dtype)
    stored = samples.astype(samples.dtype.newbyteorder(order), order="F" if fortran else "C")
    found = arrays.read_npy(npy(stored), "a.npy", Wanted(kind=kind))
    assert found.kind == kind and found.samples.dtype == dtype and found.samples.dtype.isnative
    assert found.samples.flags.c_contiguous
    assert_array_equal(found.samples, samples)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".mat"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (5, 6)), ("image", (5, 6, 7)), ("image", (1, 1, 2)), ("volume", (3, 4, 5)), ("volume", (1, 4, 5, 3))],
)
def test_written_and_read_again(tmp_path, suffix, dtype, kind, shape):
    samples = samples_of(shape, dtype)
    name = str(tmp_path / f"a{suffix}")
    found = media.Media(kind=kind, samples=samples, sample_format=arrays.FORMATS[dtype], geometry=KNOWN)
    axes = 3 if kind == "volume" else 2
    channels = shape[axes] if len(shape) > axes else 1
    lost = media.check(name, name, found, shape[:axes], channels)
    assert lost == (() if suffix != ".npy" else ("spacing", "units", "affine", "rescale", "header"))
    media.write(name, name, found)
    letters = "DHWC" if kind == "volume" else "HWC"
    wanted = Wanted(axes=letters[: len(shape)]) if suffix == ".mat" else Wanted(kind=kind)
    again = media.read(name, wanted)
    assert (again.kind, again.sample_format) == (kind, found.sample_format)
    assert_array_equal(again.samples, samples)
    if suffix in (".npz", ".tif"):
        assert again.geometry == geometry.from_json(KNOWN.to_json())
        assert again.geometry.to_json() == KNOWN.to_json()


def test_axes_are_the_models_or_the_users_and_never_guessed():
    cube = samples_of((3, 4, 5), "uint8")
    assert read_npy(cube, kind="image").kind == "image"
    assert read_npy(cube, kind="volume").kind == "volume"
    with pytest.raises(BadSamples, match="3 axes .* of unknown meaning; --axes"):
        read_npy(cube)
    assert_array_equal(read_npy(cube, axes="chw").samples, np.moveaxis(cube, 0, -1))
    assert_array_equal(read_npy(cube, axes="WDH").samples, cube.transpose(1, 2, 0))
    assert_array_equal(read_npy(cube.reshape(3, 20), shape=(3, 5, 4), axes="CWH").samples, cube.reshape(3, 5, 4).T)
    assert read_npy(cube[:1], axes="CHW").samples.shape == (4, 5)
    assert read_npy(cube[..., None], kind="volume").samples.shape == (3, 4, 5)
    for axes in ("HW", "HWX", "HHW", "DHC", "DHWC", ""):
        with pytest.raises(BadSamples):
            read_npy(cube, axes=axes or "-")
    with pytest.raises(BadSamples, match="--shape: 3x21; as many values"):
        read_npy(cube, shape=(3, 21), axes="HW")
    for shape in ((), (7,), (2, 2, 2, 2, 2)):
        with pytest.raises(BadSamples):
            read_npy(np.zeros(shape, "u1"), kind="volume")
    with pytest.raises(BadSamples, match="at least one value"):
        read_npy(np.zeros((0, 3), "u1"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), bool), r"bool \(bool\)"),
        (np.zeros((2, 2), "c8"), "complex64"),
        (np.zeros((2, 2), "M8[s]"), "no numbers"),
        (np.zeros((2, 2), "U3"), "no numbers"),
        (np.array([[-3, 40000]], "i4"), "int32 from -3 to 40000; u8, u16, s16 or f32 samples$"),
        (np.array([[-3, 400]], "i4"), "int32 from -3 to 400; .*--sample-format s16 holds them"),
        (np.array([[3, 400]], "u8"), "uint64 from 3 to 400; .*--sample-format u16 holds them"),
        (np.array([[3, -4]], "i1"), "int8 from -4 to 3; .*--sample-format s16"),
        (np.array([[0.5, 0.1]]), r"0.1 at \[0, 1\] in float64; values that f32 holds exactly"),
        (np.array([[0.5, 1e300]]), r"1e\+300 at \[0, 1\]"),
        (np.array([[[1, 2], [np.nan, np.inf]]], "f4"), r"2 of 4 values NaN or infinite, the first at \[0, 1, 0\]"),
    ],
)
def test_values_that_cannot_be_held_are_named(array, message):
    with pytest.raises(BadSamples, match=message):
        read_npy(array, kind="volume")


def test_values_are_converted_only_where_none_changes(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 8)  # places are right across blocks
    whole = np.arange(60, dtype="f8").reshape(5, 12)
    assert read_npy(whole).samples.dtype == np.float32
    assert_array_equal(read_npy(whole, sample_format="u8").samples, whole.astype("u1"))
    assert read_npy(whole.astype("f2")).samples.dtype == np.float32
    assert read_npy(whole.astype("i8"), sample_format="s16").samples.dtype == np.int16
    for place, value in (((4, 11), 0.5), ((3, 2), 256.0), ((0, 1), -1.0)):
        wrong = whole.copy()
        wrong[place] = value
        with pytest.raises(BadSamples, match=rf"{value} at \[{place[0]}, {place[1]}\] .* u8 holds"):
            read_npy(wrong, sample_format="u8")
    wrong = whole.copy()
    wrong[3:, 5] = np.nan
    with pytest.raises(BadSamples, match=r"2 of 60 values NaN or infinite, the first at \[3, 5\]"):
        read_npy(wrong)


def test_nothing_is_unpickled():
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    objects = np.array([[Trap()]], dtype=object)
    with pytest.raises(BadSamples, match="objects are not unpickled"):
        arrays.read_npy(npy(objects, allow_pickle=True), "a.npy", Wanted())
    out = io.BytesIO()
    np.savez(out, x=objects)
    with pytest.raises(BadSamples, match="objects are not unpickled"):
        arrays.read_npz(out, "a.npz", Wanted())


def npy_head(shape, dtype="<u2"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy_head("(3, 4)") + bytes(23), "has 23 bytes of values; 24, as its header claims"),
        (npy_head("(3, 4)") + bytes(25), "has 25 bytes of values; 24"),
        (npy_head("(1 << 40, 4)") + bytes(24), "header can be read"),
        (npy_head("(-3, -4)") + bytes(24), "none negative"),
        (npy_head("(30000, 30000)") + bytes(24), "has 24 bytes of values"),
        (npy_head("(300000, 300000)") + bytes(24), "at most 1073741824 samples"),
        (npy_head("(3, 4)", "<f99"), "header can be read"),
        (npy_head("(3, 4)")[:20], "header can be read"),
        (b"\x93NUMPY\x09\x00", "header can be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header can be read"),
        (npy_head("(" * 60), "header can be read"),
    ],
)
def test_npy_headers_that_lie(data, message):
    with pytest.raises(WallocError, match=message):
        arrays.read_npy(io.BytesIO(data), "a.npy", Wanted())


def test_npz_of_several():
    file = npz(a=np.zeros((2, 3), "u1"), b=np.ones((2, 3), "u1"))
    with pytest.raises(BadSamples, match="2 arrays of numbers; one; or name one by --variable: a, b"):
        arrays.read_npz(file, "a.npz", Wanted())
    assert arrays.read_npz(file, "a.npz", Wanted(variable="b")).samples.all()
    with pytest.raises(BadSamples, match="--variable: c; an array of numbers in a.npz: a, b"):
        arrays.read_npz(file, "a.npz", Wanted(variable="c"))
    with pytest.raises(BadSamples, match="none"):
        arrays.read_npz(npz(), "a.npz", Wanted())


def zipped(content, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("x.npy", content)
    return out.getvalue()


def test_npz_that_lies_or_is_damaged():
    whole = zipped(npy(RANDOM.integers(0, 256, (40, 40), dtype="u1")).getvalue())
    assert arrays.read_npz(io.BytesIO(whole), "a.npz", Wanted()).samples.shape == (40, 40)
    for size in range(4, len(whole), 97):
        with pytest.raises(UnreadableFile):
            arrays.read_npz(io.BytesIO(whole[:size]), "a.npz", Wanted())
    for place in range(30, 1500, 111):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        with pytest.raises(UnreadableFile):
            arrays.read_npz(io.BytesIO(broken), "a.npz", Wanted())
    with pytest.raises(UnreadableFile, match="stored or deflated"):
        arrays.read_npz(io.BytesIO(zipped(b"x", zipfile.ZIP_LZMA)), "a.npz", Wanted())
    with pytest.raises(LimitExceeded, match="at most 1000 samples"):
        arrays.read_npz(io.BytesIO(whole), "a.npz", Wanted(max_samples=1000))
    bomb = bytearray(zipped(npy_head("(1000, 1000)") + bytes(2000000)))
    at = bomb.rindex(b"PK\1\2") + 24
    bomb[at : at + 4] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(UnreadableFile, match="at most 1032 for one"):
        arrays.read_npz(io.BytesIO(bomb), "a.npz", Wanted())


def test_foreign_metadata_in_npz_are_checked():
    file = npz(samples=np.zeros((2, 3), "u1"), metadata=np.array(json.dumps({"spacing": [1, -1]})))
    with pytest.raises(BadSamples, match="metadata.spacing"):
        arrays.read_npz(file, "a.npz", Wanted())
    file = npz(samples=np.zeros((2, 3), "u1"), metadata=np.zeros(3))
    assert arrays.read_npz(file, "a.npz", Wanted()).geometry == Geometry(source="npz")


# TIFF


def tiff(array, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, **({"photometric": "minisblack"} | options))
    return out.getvalue()


def read_tiff(data, **wanted):
    return tiff_stacks.read(data, "a.tif", Wanted(**wanted))


@pytest.mark.parametrize(
    ("shape", "options", "kind", "expected"),
    [
        ((5, 7, 9), {}, "volume", "DHW"),
        ((5, 7, 9), {"metadata": None}, "volume", "DHW"),
        ((5, 7, 9, 3), {"photometric": "rgb"}, "volume", "DHWC"),
        ((7, 9, 6), {"photometric": "minisblack", "planarconfig": "contig"}, "image", "HWC"),
        ((6, 7, 9), {"photometric": "minisblack", "planarconfig": "separate"}, "image", "CHW"),
        ((6, 7, 9), {"metadata": {"axes": "CYX"}}, "image", "CHW"),
        ((5, 4, 7, 9), {"metadata": {"axes": "ZCYX"}}, "volume", "DCHW"),
        ((4, 5, 7, 9), {"metadata": {"axes": "CZYX"}}, "volume", "CDHW"),
        ((5, 7, 9), {"metadata": {"axes": "TYX"}, "compression": "zlib"}, "volume", "DHW"),
        ((5, 64, 48), {"tile": (16, 16), "compression": "zlib"}, "volume", "DHW"),
        ((5, 7, 9), {"byteorder": ">", "bigtiff": True}, "volume", "DHW"),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiff_axes(shape, options, kind, expected, dtype):
    samples = samples_of(shape, dtype)
    found = read_tiff(tiff(samples, **options))
    assert found.kind == kind
    order = [expected.index(letter) for letter in "DHWC" if letter in expected]
    assert_array_equal(found.samples, samples.transpose(order))


def test_tiff_pictures_are_left_to_the_other_reader():
    for array, options in (
        (np.zeros((7, 9), "u1"), {}),
        (np.zeros((7, 9), "u2"), {}),
        (np.zeros((7, 9), bool), {}),
        (np.zeros((7, 9, 3), "u1"), {"photometric": "rgb"}),
        (np.zeros((7, 9, 4), "u1"), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (np.zeros((3, 7, 9), "u2"), {"photometric": "rgb", "planarconfig": "separate"}),
    ):
        assert read_tiff(tiff(array, **options)) is None
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:  # a thumbnail is no slice
        writer.write(np.zeros((8, 8), "u1"), metadata=None)
        writer.write(np.zeros((4, 4), "u1"), metadata=None)
    assert read_tiff(out.getvalue()) is None


def test_tiff_axes_of_the_user():
    pages = samples_of((4, 7, 9), "uint16")
    assert_array_equal(read_tiff(tiff(pages), axes="CHW").samples, np.moveaxis(pages, 0, -1))
    stack = samples_of((2, 3, 7, 9), "uint16")
    data = tiff(stack, metadata={"axes": "TZYX"})
    with pytest.raises(BadSamples, match="axes T 2, Z 3, Y 7, X 9; .*--axes"):
        read_tiff(data)
    assert_array_equal(read_tiff(data, axes="CDHW").samples, np.moveaxis(stack, 0, -1))
    assert_array_equal(read_tiff(data, shape=(6, 7, 9), axes="DHW").samples, stack.reshape(6, 7, 9))


def test_tiff_spacing():
    stack = np.zeros((5, 7, 9), "u1")
    imagej = tiff(stack, imagej=True, resolution=(4, 2), metadata={"axes": "ZYX", "spacing": 2.5, "unit": "um"})
    assert read_tiff(imagej).geometry.to_json() == {"source": "tiff", "spacing": [2.5, 0.5, 0.25], "units": "um"}
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.5}
    units = {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
    ome = tiff(stack, ome=True, metadata={"axes": "ZYX", **sizes, **units})
    assert read_tiff(ome).geometry.to_json() == {"source": "tiff", "spacing": [2.5, 0.5, 0.25], "units": "mm"}


def test_geotiff_tags_come_back():
    scale, keys = [30.0, 30.0, 0.0], [1, 1, 0, 1, 1024, 0, 1, 1]
    tags = [(33550, "d", 3, scale, True), (34735, "H", 8, keys, True), (42113, "s", 0, "-9999", True)]
    found = read_tiff(tiff(np.ones((6, 5, 4), "i2"), photometric="minisblack", extratags=tags, planarconfig="contig"))
    kept = {"33550": scale, "34735": keys, "42113": "-9999"}
    assert found.geometry.header == {"geotiff": kept}
    out = io.BytesIO()
    tiff_stacks.write(out, found.kind, found.samples, found.geometry)
    with tifffile.TiffFile(io.BytesIO(out.getvalue())) as file:
        page = file.pages[0]
        assert list(page.tags.valueof(33550)) == scale
        assert page.tags.valueof(42113) == "-9999"
    assert read_tiff(out.getvalue()).geometry.header == {"geotiff": kept}


def test_tiff_that_lies_or_is_damaged():
    stack = RANDOM.integers(0, 9, (4, 40, 40), dtype="u2")
    plain, packed = tiff(stack), tiff(stack, compression="zlib")
    refused = 0
    for data in (plain, packed):
        for seed in range(60):
            random = np.random.default_rng(seed)
            broken = bytearray(data)
            for place in random.integers(0, 400, 3):
                broken[place] = random.integers(256)
            try:
                found = read_tiff(bytes(broken))
                assert found is None or found.samples.size <= 1 << 24
            except WallocError:
                refused += 1
        for size in (len(data) // 2, len(data) * 3 // 4):
            with pytest.raises(WallocError):
                read_tiff(data[:size])
    assert refused > 20
    with pytest.raises(LimitExceeded, match="at most 6399 samples"):
        read_tiff(plain, max_samples=6399)
    bomb = bytearray(tiff(np.zeros((2, 64, 64), "u1"), compression="zlib", metadata=None))
    with tifffile.TiffFile(io.BytesIO(bomb)) as file:
        places = [(page.dataoffsets[0], page.tags[279].valueoffset) for page in file.pages]
    huge = zlib.compress(bytes(1 << 26), 9)
    for _, count in places:
        bomb[count : count + 4] = len(huge).to_bytes(4, "little")
    with tifffile.TiffFile(io.BytesIO(bomb)) as file:
        place = file.pages[0].tags[273].valueoffset
    bomb[place : place + 4] = len(bomb).to_bytes(4, "little")
    with pytest.raises(UnreadableFile, match="over 4096 bytes in a segment; at most 4096"):
        read_tiff(bytes(bomb) + huge + bytes(1 << 17))


# Geometry


def test_geometry_as_json():
    assert Geometry().to_json() == {} and Geometry().known == ()
    text = json.dumps(KNOWN.to_json(), allow_nan=False)
    assert geometry.from_json(json.loads(text)).to_json() == KNOWN.to_json()
    assert geometry.from_json({"unknown": [1, {}], "spacing": None}) == Geometry()
    assert geometry.from_json(None) == Geometry()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", [1]),
        ("spacing", [1, 0]),
        ("spacing", [1, float("nan"), 2]),
        ("spacing", "1,2"),
        ("affine", [[1, 0, 0, 0]] * 3),
        ("affine", [[1, 0, 0]] * 4),
        ("affine", [[1, 0, 0, 10**400]] * 4),
        ("rescale", [1]),
        ("rescale", [True, 1]),
        ("wavelengths", []),
        ("wavelengths", [1.0] * 5000),
        ("bands", [1]),
        ("units", "m\0m"),
        ("units", "m" * 70000),
        ("ignore", float("inf")),
        ("channel_mask", -1),
        ("channel_mask", 1 << 32),
        ("channel_mask", True),
        ("ambisonic", 1),
        ("header", []),
        ("header", {"nifti": []}),
        ("header", {"envi": {"a": {}}}),
        ("header", {"geotiff": {"1": [None]}}),
    ],
)
def test_geometry_of_strangers_is_checked(key, value):
    with pytest.raises(BadSamples, match=f"metadata.{key}.*--no-metadata"):
        geometry.from_json({key: value})


def test_a_region_moves_the_place():
    moved = geometry.shifted(KNOWN, (2, 3, 4))
    assert moved.affine[0][3] == -9.5 + 4 * 0.25
    assert moved.affine[1][3] == 2.0 + 3 * 0.5
    assert moved.affine[2][3] == 1e-7 + 2 * 3.0
    assert moved.spacing == KNOWN.spacing and moved.header == {}
