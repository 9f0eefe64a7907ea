"""Latents of many files: shapes, values, names, labels, failures, and the files they are written to."""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import photograph, tiny_codec, tiny_model, volume
from numpy.testing import assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import cli
from walloc_ref import model as models
from walloc_ref.errors import BadSamples, LimitExceeded, UnreadableFile, WallocError
from walloc_ref.files import media
from walloc_ref.files.arrays import Wanted
from walloc_ref.learning import latents


@pytest.fixture
def codec():
    return tiny_codec("LinearCodec2D")


@pytest.fixture
def folder(tmp_path, codec):
    """Two labels of three files each, one of them a stream, one not an image."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.fromarray(photograph(40, 52, seed=number)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "cat" / "2.wlc").write_bytes(codec.encode(photograph(40, 52, seed=2)))
    (tmp_path / "dog" / "2.png").write_bytes(b"not an image")
    (tmp_path / "dog" / "notes.txt").write_text("not looked at")
    return tmp_path


def test_files_arrays_and_streams_give_what_the_codec_gives(codec, folder):
    found = latents.collect([folder], codec, dtype="int8")
    assert found.labels == ("cat", "cat", "cat", "dog", "dog")
    assert [Path(name).name for name in found.names] == ["0.png", "1.png", "2.wlc", "0.png", "1.png"]
    assert len(found.failures) == 1 and found.failures[0][0].endswith("2.png")
    x = photograph(40, 52, seed=2).transpose(2, 0, 1) / 255 - 0.5
    assert found.values.dtype == np.int8
    assert_array_equal(found.values[2], codec.to_symbols(x))
    assert_array_equal(latents.features(photograph(40, 52, seed=2), codec, dtype="int8")[0], found.values[2])


@pytest.mark.parametrize("step", [1.0, 2.5])
def test_latents_are_what_symbols_stand_for(codec, step):
    samples = photograph(33, 47)
    symbols = latents.features(samples, codec, step=step, dtype="int8")[0]
    values = latents.features(samples, codec, step=step)[0]
    wanted = codec.stages.dequantise(symbols.astype(np.int16), 8) * codec.model.plane_steps(codec.coding(step=step))
    assert values.dtype == np.float32
    assert_array_equal(values, wanted.astype(np.float32))
    last = latents.features(samples, codec, step=step, planes="last")[0]
    assert_array_equal(last, values.transpose(1, 2, 0))
    assert last.flags.c_contiguous


def test_sizes_are_cut_around_the_centre_and_padded_with_zeros():
    symbols = np.arange(1, 2 * 5 * 4 + 1, dtype=np.int16).reshape(2, 5, 4)
    cut = latents.fitted(symbols, (3, 6))
    assert cut.shape == (2, 3, 6)
    assert_array_equal(cut[:, :, 1:5], symbols[:, 1:4])
    assert not cut[:, :, [0, 5]].any()
    assert_array_equal(latents.fitted(symbols[:, 0], (6,))[:, :4], symbols[:, 0])
    assert_array_equal(latents.fitted(symbols[:, 0], (2,)), symbols[:, 0, :2])


def test_sizes_that_differ_are_a_list_and_no_array(codec):
    arrays = [photograph(40, 52), photograph(40, 60)]
    assert isinstance(latents.collect(arrays, codec).values, list)
    with pytest.raises(BadSamples, match="the same for all"):
        latents.features(arrays, codec)
    assert len(latents.features(arrays, codec, size=(4, 4))) == 2


def test_steps_of_streams_differ(codec, tmp_path):
    for step in (1, 2):
        (tmp_path / f"{step}.wlc").write_bytes(codec.encode(photograph(40, 52), step=step))
    assert latents.features(tmp_path, codec).shape[0] == 2
    with pytest.raises(BadSamples, match="one step"):
        latents.features(tmp_path, codec, dtype="int8")


def test_audio(tmp_path):
    codec = tiny_codec("Codec1D")
    clip = np.random.default_rng(0).normal(0, 2000, (500, codec.config.channels)).astype(np.int16)
    found = latents.features([clip], codec, dtype="int8", rate=8000)
    assert found.shape[:2] == (1, codec.config.planes)
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "clip.wav", clip, 8000)
    assert_array_equal(latents.features(tmp_path / "clip.wav", codec, dtype="int8"), found)


@pytest.mark.parametrize(
    "call, field",
    [
        (lambda codec: latents.features([], codec), "inputs"),
        (lambda codec: latents.features(photograph(8, 8), codec, dtype="int16"), "dtype"),
        (lambda codec: latents.features(photograph(8, 8), codec, planes="middle"), "planes"),
        (lambda codec: latents.features(photograph(8, 8), codec, size=(3,)), "size"),
        (lambda codec: latents.features(photograph(8, 8), codec, size=(0, 3)), "size"),
        (lambda codec: latents.features(photograph(8, 8), tiny_codec("Codec1D")), "channels"),
        (lambda codec: latents.features("nowhere.png", codec), "nowhere.png"),
    ],
)
def test_bad_input_is_named(call, field, codec):
    with pytest.raises(WallocError, match=field):
        call(codec)


def test_an_empty_folder_is_an_error(codec, tmp_path):
    with pytest.raises(UnreadableFile, match="folder"):
        latents.features(tmp_path, codec)


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """The command line, with a tiny model at hand."""
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(folder))
    (folder / "tiny.safetensors").write_bytes(models.save(tiny_model("LinearCodec2D")))

    def run(*words):
        code = cli.main(["features", *map(str, words), "--model", "tiny"])
        return code, *capsys.readouterr()

    return run


def test_command_writes_npz_and_npy(command, folder, tmp_path):
    code, out, err = command(folder / "cat", folder / "dog", "--out", folder / "f.npz")
    assert code == cli.CHECK_FAILED and "5 files" in out and err.count("\n") == 1 and "2.png" in err
    with np.load(folder / "f.npz") as file:
        assert file["features"].shape[0] == len(file["names"]) == len(file["labels"]) == 5
        assert json.loads(str(file["facts"]))["model"] == "tiny"
        stacked = file["features"]
    assert command(folder / "cat", "--out", folder / "f.npy")[0] == cli.DONE
    assert_array_equal(np.load(folder / "f.npy"), stacked[:3])
    code, _, err = command(folder / "cat", "--out", folder / "f.txt")
    assert code == cli.BAD_INPUT and ".npz" in err


def test_command_writes_parquet(command, folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert command(folder / "cat", "--out", folder / "f.parquet", "--dtype", "float32")[0] == cli.DONE
    table = parquet.read_table(folder / "f.parquet")
    row = table.to_pylist()[0]
    assert np.prod(row["shape"]) == len(row["features"])
    assert json.loads(table.schema.metadata[b"walloc_ref"])["planes"] == "first"


def test_command_writes_zarr(command, folder):
    zarr = pytest.importorskip("zarr")
    assert command(folder / "cat", "--out", folder / "f.zarr")[0] == cli.DONE
    group = zarr.open_group(folder / "f.zarr", mode="r")
    assert group["features"].shape[0] == 3 and group.attrs["labels"] == ["", "", ""]
    assert command(folder / "cat", "--out", folder / "f.zarr")[0] == cli.BAD_INPUT


def test_public_name():
    assert walloc_ref.features is latents.features


def test_images_too_large_for_a_network_at_once_are_seen_in_windows(monkeypatch):
    """As `encode` sees them: the budget of positions is that of a window."""
    from walloc_ref import codec as codecs

    codec = tiny_codec("Codec2D")
    monkeypatch.setattr(codecs, "WHOLE_POSITIONS", 16)
    monkeypatch.setattr(codecs, "WINDOW", 8)
    monkeypatch.setattr(codecs, "CONTEXT", 1)
    monkeypatch.setattr(codecs, "POSITIONS_SHARE", codecs.MAX_SAMPLES // 400)  # a window sees 18 by 18 at most
    side = 24 * codec.config.multiple
    assert latents.features(photograph(side, side), codec).shape[2:] == (24, 24)


def test_threads_take_turns_with_the_standard_error(codec, tmp_path, capfd):
    """TIFFs are read while the standard error is kept from libtiff; it is back when all are done."""
    for number in range(12):
        Image.fromarray(photograph(40, 52, seed=number)).save(tmp_path / f"{number:02}.tif", compression="tiff_lzw")
    found = latents.collect(tmp_path, codec, progress=lambda share: None)
    assert len(found.names) == 12 and not found.failures
    import os

    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"


# ---- every format that `encode` reads


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.mat", "x.tif", "x.hdr"])
def test_images_of_many_channels(name, tmp_path):
    codec, samples = tiny_codec("LinearCodec2D", channels=5), photograph(24, 32, 5, dtype=np.uint16)
    path = str(tmp_path / name)
    media.write(path, path, media.Media(kind="image", samples=samples, sample_format="u16"))
    wanted = latents.features(samples, codec, dtype="int8")
    assert wanted.shape == (1, 6, 6, 8)
    assert_array_equal(latents.features(path, codec, dtype="int8"), wanted)
    found = latents.collect(
        tmp_path, codec, dtype="int8"
    )  # by its ending; ENVI's samples beside the header are no file
    assert_array_equal(found.values, wanted)


@pytest.mark.parametrize("planes", latents.PLANES)
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.mat", "x.tif", "x.nii", "x.nii.gz", "x.wlc"])
def test_volumes(name, planes, tmp_path):
    if ".nii" in name:
        pytest.importorskip("nibabel")
    codec, samples = tiny_codec("LinearCodec3D"), volume(6, 10, 14)
    path = str(tmp_path / name)
    if name == "x.wlc":
        Path(path).write_bytes(codec.encode(samples))
    else:
        media.write(path, path, media.Media(kind="volume", samples=samples, sample_format="u8"))
    wanted = codec.symbols_of_samples(samples)
    assert wanted.shape == (4, 3, 5, 7)
    found = latents.features(path, codec, dtype="int8", planes=planes)[0]
    assert_array_equal(found if planes == "first" else np.moveaxis(found, -1, 0), wanted)
    assert_array_equal(latents.features(samples, codec, dtype="int8")[0], wanted)
    cut = latents.features(path, codec, dtype="int8", size=(1, 5, 9))[0]
    assert_array_equal(cut[:, :, :, 1:8], wanted[:, 1:2])
    assert not cut[..., [0, 8]].any()


def test_series_of_dicom(tmp_path):
    pytest.importorskip("pydicom")
    from test_medical import series

    codec = tiny_codec("LinearCodec3D")
    for label in ("head", "knee"):
        (tmp_path / label).mkdir()
        series(tmp_path / label / "one")
    found = latents.collect(tmp_path, codec, dtype="int8")
    assert found.labels == ("head", "knee") and not found.failures
    one = latents.features(tmp_path / "head" / "one", codec, dtype="int8")
    samples = media.read(str(tmp_path / "head" / "one")).samples
    assert_array_equal(one[0], codec.symbols_of_samples(samples))
    assert_array_equal(found.values[0], one[0])
    for path in (tmp_path / "head" / "one").iterdir():  # as scanners name them
        path.rename(path.with_suffix(""))
    assert_array_equal(latents.features(tmp_path / "head" / "one", codec, dtype="int8"), one)


def test_threads_take_turns_with_loggers_and_warnings(tmp_path):
    pytest.importorskip("nibabel")
    import logging
    import warnings

    codec = tiny_codec("LinearCodec3D")
    for number in range(12):
        path, samples = str(tmp_path / f"{number:02}.nii"), volume(6, 10, 14, seed=number)
        media.write(path, path, media.Media(kind="volume", samples=samples, sample_format="u8"))
    before = logging.getLogger("nibabel.global").level, list(warnings.filters)
    assert len(latents.features(tmp_path, codec)) == 12
    assert (logging.getLogger("nibabel.global").level, list(warnings.filters)) == before


def test_urls(codec):
    fsspec = pytest.importorskip("fsspec")
    samples, memory = photograph(40, 52), io.BytesIO()
    np.save(memory, samples)
    store = fsspec.filesystem("memory")
    for name, data in (("x.npy", memory.getvalue()), ("x.wlc", codec.encode(samples))):
        with store.open(f"/features/{name}", "wb") as file:
            file.write(data)
    found = latents.collect([f"memory://features/{name}" for name in ("x.npy", "x.wlc")], codec, dtype="int8")
    assert found.names == ("memory://features/x.npy", "memory://features/x.wlc")
    wanted = codec.symbols_of_samples(samples)
    assert_array_equal(found.values, [wanted, wanted])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("stream", [False, True])
def test_pipes_are_read_once(stream, codec, tmp_path):
    samples, memory = photograph(40, 52), io.BytesIO()
    np.save(memory, samples)
    data = codec.encode(samples) if stream else memory.getvalue()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    found = latents.features(tmp_path / "pipe", codec, dtype="int8")
    writer.join()
    assert_array_equal(found[0], codec.symbols_of_samples(samples))


def test_what_arrays_do_not_say(codec, tmp_path):
    samples = photograph(40, 52)
    np.savez(
        tmp_path / "x.npz", other=samples[:8], picture=np.asfortranarray(samples.transpose(2, 1, 0).astype(np.int64))
    )
    wanted = Wanted(axes="CWH", variable="picture", sample_format="u8")
    found = latents.features(tmp_path / "x.npz", codec, dtype="int8", wanted=wanted)
    assert_array_equal(found[0], codec.symbols_of_samples(samples))
    with pytest.raises(BadSamples, match="2 arrays"):
        latents.features(tmp_path / "x.npz", codec)
    with pytest.raises(LimitExceeded, match="at most 6239"):
        latents.features(tmp_path / "x.npz", codec, wanted=replace(wanted, max_samples=6239))
    np.save(tmp_path / "grey.npy", samples[:, :, 0])
    assert latents.features(tmp_path / "grey.npy", codec).shape == (1, 6, 10, 13)


def test_another_kind_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", photograph(40, 52))
    with pytest.raises(BadSamples, match="model"):
        latents.features(tmp_path / "x.npy", tiny_codec("Codec1D"))


def test_command_reads_arrays_and_volumes(command, folder, tmp_path):
    np.save(folder / "x.npy", photograph(40, 52).transpose(1, 0, 2))
    code, _, err = command(folder / "x.npy", "--axes", "WHC", "--out", folder / "f.npy")
    assert (code, err) == (cli.DONE, "")
    code, _, err = command(folder / "x.npy", "--axes", "WHC", "--max-samples", "100", "--out", folder / "f.npy")
    assert code == cli.BAD_INPUT and "at most 100" in err
