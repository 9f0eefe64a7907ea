"""NIfTI files and DICOM series: geometry, byte orders, compression; ragged series, gaps, headers that lie."""

from __future__ import annotations

import builtins
import gzip
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError
from walloc_ref.files import media, medical
from walloc_ref.files.arrays import Wanted
from walloc_ref.files.geometry import Geometry

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid  # noqa: E402

RANDOM = np.random.default_rng(3)
TURNED = np.array([[-0.5, 0.01, 0, 90.5], [0.02, 0.75, 0.1, -126], [0, -0.1, 3.0, -72.25], [0, 0, 0, 1]])


def body(dtype, shape=(3, 5, 4)):
    if np.dtype(dtype).kind == "f":
        return RANDOM.normal(0, 1, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def nifti(samples, *, order="<", version=1, slope=None, affine=TURNED, units="mm"):
    """A file of nibabel's own making; samples are (D, H, W[, C])."""
    turned = samples.transpose(2, 1, 0, *range(3, samples.ndim))
    made = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = made.header_class(endianness=order)
    image = made(turned, affine, header)
    image.header.set_data_dtype(turned.dtype)
    image.header.set_xyzt_units(units)
    data = bytearray(image.to_bytes())
    if slope is not None:
        at, kind = (112, "f4") if version == 1 else (176, "f8")
        data[at : at + 2 * np.dtype(kind).itemsize] = np.array(slope, order + kind).tobytes()
    return bytes(data)


def read(data, **wanted):
    return medical.read_nifti(io.BytesIO(data), "a.nii", Wanted(**wanted))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_nifti(tmp_path, dtype, order, version, packed):
    samples = body(dtype)
    data = nifti(samples, order=order, version=version, slope=(2.5, -1024))
    name = str(tmp_path / ("a.nii.gz" if packed else "a.nii"))
    Path(name).write_bytes(gzip.compress(data) if packed else data)
    found = media.read(name)
    assert (found.kind, found.samples.dtype) == ("volume", dtype)
    assert_array_equal(found.samples, samples)
    assert found.geometry.rescale == (2.5, -1024)
    assert_allclose(found.geometry.affine, TURNED, rtol=1e-7)
    assert_allclose(found.geometry.spacing, np.linalg.norm(TURNED[:3, :3], axis=0)[::-1], rtol=1e-6)
    assert found.geometry.units == "mm"
    for suffix in (".nii", ".nii.gz"):
        out = str(tmp_path / f"out{suffix}")
        assert media.check(out, out, found, samples.shape, 1) == ()
        media.write(out, out, found)
        theirs = nibabel.load(out)
        assert_array_equal(np.asarray(theirs.dataobj.get_unscaled()).transpose(2, 1, 0), samples)
        assert (theirs.dataobj.slope, theirs.dataobj.inter) == (2.5, -1024)
        assert_array_equal(theirs.affine, nibabel.load(name).affine)
        assert theirs.header.get_xyzt_units()[0] == "mm"
        again = media.read(out)
        assert again.geometry == found.geometry
        assert_array_equal(again.samples, samples)


def test_nifti_axes(tmp_path):
    samples = body("int16", (3, 5, 4, 6))
    assert_array_equal(read(nifti(samples)).samples, samples)
    assert read(nifti(samples[..., :1])).samples.shape == (3, 5, 4)
    flat = nibabel.Nifti1Image(np.zeros((4, 5), "u1"), np.eye(4)).to_bytes()
    assert read(flat).samples.shape == (1, 5, 4)
    vectors = body("float32", (4, 5, 3, 1, 2))  # a field of vectors has its components on the fifth axis
    found = read(nibabel.Nifti1Image(vectors, np.eye(4)).to_bytes())
    assert_array_equal(found.samples, vectors[:, :, :, 0].transpose(2, 1, 0, 3))
    with pytest.raises(BadSamples, match="at most four axes"):
        read(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2, 2), "u1"), np.eye(4)).to_bytes())
    out = str(tmp_path / "out.nii")
    media.write(out, out, media.Media(kind="volume", samples=samples, sample_format="s16"))
    assert_array_equal(np.asarray(nibabel.load(out).dataobj).transpose(2, 1, 0, 3), samples)
    assert_array_equal(media.read(out).samples, samples)


def test_nifti_of_another_source():
    spacing = Geometry(spacing=(3.0, 0.5, 0.25), units="mm", affine=tuple(map(tuple, TURNED.tolist())))
    out = io.BytesIO()
    medical.write_nifti(out, body("uint8"), spacing, packed=False)
    found = read(out.getvalue()).geometry
    assert_allclose(found.affine, TURNED, rtol=1e-7)
    out = io.BytesIO()
    medical.write_nifti(out, body("uint8", (2, 3, 40000)), Geometry(spacing=(3.0, 0.5, 0.25), units="mm"), packed=False)
    found = read(out.getvalue()).geometry
    assert found.spacing == (3.0, 0.5, 0.25) and found.units == "mm"
    for kept in ({"pixdim": [1.0, 2.0]}, {"qform_code": 1 << 40}, {"srow_x": "left"}):
        with pytest.raises(UnreadableFile, match="what its header holds; or --no-metadata"):
            medical.write_nifti(io.BytesIO(), body("uint8"), Geometry(header={"nifti": kept}), packed=False)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "int64", "float64", "complex64"])
def test_nifti_types_that_are_not_held(dtype):
    samples = np.full((3, 5, 4), 7).astype(dtype)
    if dtype == "float64":
        samples[1, 2, 3] = 0.1
    data = nibabel.Nifti1Image(samples, np.eye(4), dtype=dtype).to_bytes()
    with pytest.raises(BadSamples, match=dtype):
        read(data)
    if dtype not in ("complex64", "float64"):
        assert read(data, sample_format="s16").samples.dtype == np.int16


def test_nifti_nan():
    samples = body("float32")
    samples[1, 2, 3] = samples[2, 0, 0] = np.nan
    with pytest.raises(BadSamples, match=r"2 of 60 values NaN or infinite, the first at \[1, 2, 3\]"):
        read(nifti(samples))
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(BadSamples, match="colours"):
        read(nibabel.Nifti1Image(colours, np.eye(4)).to_bytes())


def lying(data, at, values, kind):
    lie = bytearray(data)
    value = np.array(values, kind).tobytes()
    lie[at : at + len(value)] = value
    return bytes(lie)


WHOLE = nifti(body("uint8"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE[:-1], "bytes"),
        (WHOLE[:352], "bytes"),
        (WHOLE[:100], "input"),
        (lying(WHOLE, 40, [3, 4, 5, 4], "<i2"), "bytes"),
        (lying(WHOLE, 40, [3, 32767, 32767, 1], "<i2"), "as its header claims"),
        (lying(WHOLE, 40, [4, 32767, 32767, 32767, 32767], "<i2"), "at most 1073741824 samples"),
        (lying(WHOLE, 40, [3, 4, -5, -3], "<i2"), "from 1 on"),
        (lying(WHOLE, 40, [9, 4, 5, 3], "<i2"), "input"),
        (lying(WHOLE, 108, [1e30], "<f4"), "input"),
        (lying(WHOLE, 108, [np.nan], "<f4"), "input"),
        (lying(WHOLE, 108, [-352], "<f4"), "input"),
        (lying(WHOLE, 70, [999], "<i2"), "can be read"),
        (lying(WHOLE, 344, list(b"ni1\0"), "u1"), "input"),
    ],
)
def test_nifti_headers_that_lie(data, message, pack):
    with pytest.raises(WallocError, match=message):
        read(pack(data))


def test_nifti_that_is_compressed_and_damaged():
    packed = gzip.compress(nifti(body("uint16", (20, 30, 40))))
    for size in range(20, len(packed) - 8, 3001):
        with pytest.raises(WallocError):
            read(packed[:size])
    for place in range(50, len(packed), 2999):
        broken = bytearray(packed)
        broken[place] ^= 0x10
        with pytest.raises(WallocError):
            read(bytes(broken))
    with pytest.raises(WallocError):  # its check sum
        read(packed[:-6] + bytes(6))
    bomb = gzip.compress(WHOLE + bytes(1 << 25))
    with pytest.raises(UnreadableFile, match="behind its samples"):
        read(bomb)
    with pytest.raises(WallocError):
        read(gzip.compress(b"something else" * 100))


def test_nifti_headers_of_chance():
    for seed in range(400):
        random = np.random.default_rng(seed)
        broken = bytearray(WHOLE)
        for place in random.integers(0, 352, 3):
            broken[place] = random.integers(256)
        try:
            found = read(bytes(broken))
            assert found.samples.size <= 60
        except WallocError:
            pass


def test_without_the_library(monkeypatch, tmp_path):
    (tmp_path / "a.nii").write_bytes(WHOLE)
    series(tmp_path / "ct")
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name.partition(".")[0] in ("nibabel", "pydicom"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr("importlib.import_module", missing)
    for name, package in (("a.nii", "nibabel"), ("ct", "pydicom")):
        with pytest.raises(
            UnreadableFile, match=rf"needs the package {package}; .*pip install 'walloc-ref\[medical\]'"
        ):
            media.read(str(tmp_path / name))
    with pytest.raises(UnreadableFile, match="needs the package nibabel"):
        media.check(
            "b.nii", "b.nii", media.Media(kind="volume", samples=body("uint8"), sample_format="u8"), (3, 5, 4), 1
        )


# DICOM

DIRECTIONS = [0.8, 0.6, 0, 0, 0, -1]
NORMAL = np.cross(DIRECTIONS[:3], DIRECTIONS[3:])


def series(folder, samples=None, *, gap=2.5, syntax=ExplicitVRLittleEndian, each=None, **fields):
    """A series in files whose names are in no order of places; `each` may change (number, data set)."""
    samples = body("int16", (6, 5, 4)) if samples is None else samples
    folder.mkdir(exist_ok=True)
    uid = generate_uid(entropy_srcs=[str(folder)])
    for number, pixels in enumerate(samples):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = syntax
        big = syntax == ExplicitVRBigEndian
        one = FileDataset("", {}, file_meta=meta, preamble=bytes(128), is_little_endian=not big)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID = uid
        one.Rows, one.Columns = pixels.shape
        one.BitsAllocated = one.BitsStored = 8 * pixels.dtype.itemsize
        one.HighBit = one.BitsStored - 1
        one.PixelRepresentation = int(pixels.dtype.kind == "i")
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.PixelSpacing = [0.75, 0.5]
        one.ImageOrientationPatient = DIRECTIONS
        one.ImagePositionPatient = [round(v, 6) for v in (np.array([-10, 20, 30]) + NORMAL * gap * number).tolist()]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        order = ">" if big else "<"
        one.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        if len(one.PixelData) % 2:
            one.PixelData += b"\0"
        one["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
        for key, value in fields.items():
            setattr(one, key, value)
        if each is not None:
            each(number, one)
        one.save_as(folder / f"{(number * 5) % 7}.dcm", enforce_file_format=True)
    return samples


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dicom(tmp_path, dtype, syntax):
    samples = series(tmp_path / "ct", body(dtype, (6, 5, 3)), syntax=syntax)
    (tmp_path / "ct" / "notes.txt").write_text("no slice")
    (tmp_path / "ct" / "more").mkdir()
    found = media.read(str(tmp_path / "ct"))
    assert (found.kind, found.samples.dtype) == ("volume", dtype)
    assert_array_equal(found.samples, samples)
    g = found.geometry
    assert_allclose(g.spacing, (2.5, 0.75, 0.5), rtol=1e-6)
    assert (g.units, g.rescale) == ("mm", (1, -1024))
    affine = np.array(g.affine)
    flip = np.diag([-1, -1, 1])
    assert_allclose(affine[:3, 3], flip @ [-10, 20, 30])
    assert_allclose(affine[:3, 0], flip @ (0.5 * np.array(DIRECTIONS[:3])))
    assert_allclose(affine[:3, 1], flip @ (0.75 * np.array(DIRECTIONS[3:])))
    assert_allclose(affine[:3, 2], flip @ (2.5 * NORMAL), atol=1e-6)
    out = str(tmp_path / "out.nii.gz")
    media.write(out, out, found)
    assert_allclose(nibabel.load(out).affine, affine, rtol=1e-6, atol=1e-6)
    assert_array_equal(np.asarray(nibabel.load(out).dataobj.get_unscaled()).T, samples)


def test_dicom_of_one_slice_in_rle_and_through_links(tmp_path):
    samples = series(tmp_path / "ct")
    names = sorted(path for path in (tmp_path / "ct").iterdir())
    one = media.read(str(names[0]))
    assert one.samples.shape == (1, 5, 4)
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in names:
        (linked / path.name).symlink_to(path)
    (linked / "loop").symlink_to(linked)
    assert_array_equal(media.read(str(linked)).samples, samples)
    (linked / "gone.dcm").symlink_to("nowhere")
    with pytest.raises(UnreadableFile, match="a link that leads to a file"):
        media.read(str(linked))
    packed = tmp_path / "rle"
    packed.mkdir()
    for path in names:
        data = pydicom.dcmread(path)
        data.compress(pydicom.uid.RLELossless)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
        data.save_as(packed / path.name)
    assert_array_equal(media.read(str(packed)).samples, samples)


def change(number, **fields):
    def each(at, one):
        if at == number:
            for key, value in fields.items():
                setattr(one, key, value)

    return each


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (change(3, Rows=4), "Rows 4; 5, as in"),
        (change(3, BitsStored=12), "BitsStored 12; 16"),
        (change(3, RescaleSlope=2), "RescaleSlope 2.0; 1.0"),
        (change(3, PixelSpacing=[1, 1]), "PixelSpacing"),
        (change(3, SeriesInstanceUID="1.2.3"), r"2 series: 1.2.3 \(1 slices\), .*; one; put each into its own folder"),
        (change(3, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), "directions"),
        (change(3, ImagePositionPatient=[0, 0]), "3 and 6 finite numbers"),
        (change(3, PixelData=bytes(38)), "has 38 bytes of samples; 40, as its header claims"),
        (change(3, ImagePositionPatient=[-10, 20, 30]), "the same place as"),
        (lambda at, one: delattr(one, "ImagePositionPatient") if at == 3 else None, "1 slices without a place"),
        (lambda at, one: setattr(one, "SamplesPerPixel", 3), "one number a pixel"),
        (
            lambda at, one: setattr(one, "PhotometricInterpretation", "PALETTE COLOR"),
            "PALETTE COLOR; one number a pixel",
        ),
        (lambda at, one: setattr(one, "NumberOfFrames", 2), "2 frames; a slice in each file"),
        (lambda at, one: setattr(one, "BitsAllocated", 1), "1 bits; 8 or 16"),
        (lambda at, one: setattr(one, "Rows", 65535) or setattr(one, "Columns", 65535), "samples"),
        (lambda at, one: setattr(one, "SOPInstanceUID", "1.2.3"), "the same slice as"),
    ],
)
def test_ragged_series_are_refused(tmp_path, each, message):
    series(tmp_path / "ct", each=each)
    with pytest.raises(WallocError, match=message):
        media.read(str(tmp_path / "ct"))


def test_missing_slices_are_named(tmp_path):
    series(tmp_path / "ct")
    os.remove(tmp_path / "ct" / "1.dcm")  # number 3
    with pytest.raises(UnreadableFile, match=r"1.dcm|3.dcm to .*6.dcm, 5 mm \(1 slices missing\); slices at 2.5 mm"):
        media.read(str(tmp_path / "ct"))
    shutil.copy(tmp_path / "ct" / "0.dcm", tmp_path / "ct" / "copy.dcm")
    with pytest.raises(UnreadableFile, match="the same slice as"):
        media.read(str(tmp_path / "ct"))


def test_folders_that_are_no_series(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    with pytest.raises(UnreadableFile, match="one DICOM series"):
        media.read(str(folder))
    (folder / "a.dcm").write_bytes(b"no slice")
    with pytest.raises(UnreadableFile, match="a DICOM file, as its name says"):
        media.read(str(folder))
    os.remove(folder / "a.dcm")
    os.mkfifo(folder / "pipe")  # nothing waits for it
    series(folder)
    assert media.read(str(folder)).samples.shape == (6, 5, 4)
    with pytest.raises(LimitExceeded, match="at most 119 samples"):
        media.read(str(folder), Wanted(max_samples=119))
    series(
        tmp_path / "jpeg",
        syntax=JPEG2000Lossless,
        each=lambda at, one: (
            setattr(one, "PixelData", pydicom.encaps.encapsulate([bytes(40)]))
            or setattr(one["PixelData"], "is_undefined_length", True)
        ),
    )
    with pytest.raises(UnreadableFile, match="JPEG 2000.*; samples without compression, or RLE"):
        media.read(str(tmp_path / "jpeg"))
    series(tmp_path / "deflated", syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(UnreadableFile, match="deflated; samples without compression, or RLE"):
        media.read(str(tmp_path / "deflated"))


def test_dicom_of_chance(tmp_path):
    """Files with bytes changed or cut are read or refused, in one way."""
    series(tmp_path / "ct", body("uint8", (2, 5, 4)))
    name = tmp_path / "ct" / "0.dcm"
    whole = name.read_bytes()
    refused = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        broken = bytearray(whole)
        for place in random.integers(128, len(whole), 3):
            broken[place] = random.integers(256)
        name.write_bytes(broken[: random.integers(132, len(whole))] if seed % 5 == 0 else broken)
        try:
            media.read(str(tmp_path / "ct"))
        except WallocError:
            refused += 1
    assert refused > 30
