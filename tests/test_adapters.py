"""Pillow, imageio, Zarr, numcodecs, webdataset, Hugging Face datasets and PyTorch open streams as what they are."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from models import photograph, tiny_codec
from numpy.testing import assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import model as models
from walloc_ref.adapters import chunks, loaders
from walloc_ref.errors import BadSamples

SAMPLES = photograph(64, 96)


@pytest.fixture(scope="module")
def stream():
    return walloc_ref.load_model("linear_rgb_4x").encode(SAMPLES, icc_profile=b"profile")


# ---- Pillow


def test_pillow_opens_lazily_and_saves(stream, tmp_path):
    import walloc_ref.adapters.pillow

    image = Image.open(io.BytesIO(stream))
    assert (image.format, image.size, image.mode) == ("WLC", (96, 64), "RGB")
    assert image.info["icc_profile"] == b"profile"
    assert_array_equal(np.asarray(image), walloc_ref.decode(stream))
    Image.fromarray(SAMPLES).save(tmp_path / "x.wlc", model="linear_rgb_4x", step=2)
    data = (tmp_path / "x.wlc").read_bytes()
    assert data == walloc_ref.load_model("linear_rgb_4x").encode(SAMPLES, step=2)
    assert_array_equal(np.asarray(Image.open(tmp_path / "x.wlc")), walloc_ref.decode(data))
    assert Image.open(tmp_path / "x.wlc").resize((10, 10)).size == (10, 10)


def test_models_where_none_is_named(tmp_path):
    iio = pytest.importorskip("imageio.v3")
    import walloc_ref.adapters.imageio
    import walloc_ref.adapters.pillow

    for samples, options, model in (
        (SAMPLES, {}, "rgb_4x"),
        (SAMPLES, {"step": 2}, "rgb_4x"),
        (SAMPLES, {"quality": 40}, "rgb_2x"),
        (SAMPLES[..., 0], {}, "gray_16x"),
        (SAMPLES[..., 0], {"quality": 40}, "rgb_2x"),
        (SAMPLES, {"quality": 55}, "rgb_1x"),
        (SAMPLES, {"psnr": 40}, "linear_rgb_1x"),
    ):
        expected = walloc_ref.load_model(model).encode(samples, **options)
        Image.fromarray(np.ascontiguousarray(samples)).save(tmp_path / "pillow.wlc", **options)
        iio.imwrite(tmp_path / "imageio.wlc", samples, **options)
        assert (tmp_path / "pillow.wlc").read_bytes() == (tmp_path / "imageio.wlc").read_bytes() == expected


def test_pillow_grey_and_sixteen_bits(tmp_path):
    import walloc_ref.adapters.pillow

    for dtype, mode in ((np.uint8, "L"), (np.uint16, "I;16")):
        grey = photograph(64, 96, 1, dtype=dtype)[:, :, 0]
        Image.fromarray(grey).save(tmp_path / "x.wlc")
        image = Image.open(tmp_path / "x.wlc")
        assert image.mode == mode
        assert_array_equal(np.asarray(image), walloc_ref.decode((tmp_path / "x.wlc").read_bytes()))


def test_pillow_refuses_in_its_own_words(stream, tmp_path):
    import walloc_ref.adapters.pillow  # noqa: F401

    with pytest.raises(OSError, match="convert to L or RGB"):
        Image.fromarray(SAMPLES).convert("RGBA").save(tmp_path / "x.wlc")
    with pytest.raises(OSError, match="step"):
        Image.fromarray(SAMPLES).save(tmp_path / "x.wlc", step=0)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(stream[:20]))
    damaged = bytearray(stream)
    damaged[-5] ^= 255
    with pytest.raises(OSError, match="CRC|slice"):
        Image.open(io.BytesIO(bytes(damaged))).load()


def test_adapters_import_no_codec_before_it_is_needed():
    program = (
        "import sys, walloc_ref.adapters.pillow, walloc_ref.adapters.imageio;"
        "sys.exit(any(name in sys.modules for name in ('numba', 'walloc_ref.codec')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- imageio


def test_imageio_reads_and_writes(stream, tmp_path):
    import imageio.v3 as iio

    import walloc_ref.adapters.imageio

    (tmp_path / "x.wlc").write_bytes(stream)
    assert_array_equal(iio.imread(tmp_path / "x.wlc"), walloc_ref.decode(stream))
    assert_array_equal(iio.imread(tmp_path / "x.wlc", region=(8, 4, 20, 10)), walloc_ref.decode(stream)[4:14, 8:28])
    properties = iio.improps(tmp_path / "x.wlc")
    assert properties.shape == (64, 96, 3) and properties.dtype == np.uint8
    assert iio.immeta(tmp_path / "x.wlc")["latent_dim"] == 48
    iio.imwrite(tmp_path / "y.wlc", SAMPLES, model="linear_rgb_4x", step=2)
    assert (tmp_path / "y.wlc").read_bytes() == walloc_ref.load_model("linear_rgb_4x").encode(SAMPLES, step=2)


# ---- chunks: Zarr and numcodecs


def test_settings_say_that_they_are_lossy_and_come_back():
    settings = chunks.Settings.from_fields({"model": "rgb_4x", "psnr": 32.0, "rate": 44100})
    assert settings.to_fields() == {"model": "rgb_4x", "lossy": True, "psnr": 32.0, "rate": 44100}
    assert chunks.Settings.from_fields(settings.to_fields()) == settings
    for fields in ({}, {"model": "rgb_4x", "psnr": 32, "step": 2}, {"model": "rgb_4x", "colour": 1}, {"model": 5}):
        with pytest.raises(BadSamples, match="codec configuration"):
            chunks.Settings.from_fields(fields)


@pytest.fixture
def store(tmp_path):
    """An array (time, H, W, C) of four images in chunks of one, and what each chunk decodes to."""
    zarr = pytest.importorskip("zarr", minversion="3")
    from walloc_ref.adapters.zarr import WallocCodec

    frames = np.stack([photograph(64, 96, seed=i) for i in range(4)])
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=frames.shape, chunks=(1, 64, 96, 3), dtype="uint8",
        serializer=WallocCodec(model="linear_rgb_4x", step=2), compressors=None, dimension_names=("t", "y", "x", "c"),
    )  # fmt: skip
    array[:] = frames
    codec = walloc_ref.load_model("linear_rgb_4x")
    wanted = np.stack([walloc_ref.decode(codec.encode(frame, step=2)) for frame in frames])
    return tmp_path / "x.zarr", wanted


def test_zarr_stores_chunks_as_streams(store):
    import zarr

    path, wanted = store
    array = zarr.open_array(path, mode="r")  # found by the entry point, or registered by the import above
    assert_array_equal(array[:], wanted)
    assert_array_equal(array[2, 5:20, 7:9], wanted[2, 5:20, 7:9])
    assert array.metadata.to_dict()["codecs"][0]["configuration"] == {
        "model": "linear_rgb_4x",
        "lossy": True,
        "step": 2,
    }


def test_zarr_opens_by_entry_point_in_a_program_that_does_not_know_it(store):
    if not any(point.name == "walloc_ref" for point in entry_points("zarr.codecs")):
        pytest.skip("walloc_ref was installed before it had entry points")
    path, wanted = store
    program = f"import zarr; print(int(zarr.open_array({str(path)!r}, mode='r')[:].sum(dtype='uint64')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(wanted.sum(dtype=np.uint64))


def entry_points(group):
    from importlib.metadata import entry_points

    return entry_points(group=group)


def test_xarray_and_dask_open_the_store(store, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    import zarr

    path, wanted = store
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    from walloc_ref.adapters.zarr import WallocCodec

    array = group.create_array(
        "frames", shape=wanted.shape, chunks=(1, 64, 96, 3), dtype="uint8",
        serializer=WallocCodec(model="linear_rgb_4x", step=2), compressors=None, dimension_names=("t", "y", "x", "c"),
    )  # fmt: skip
    array[:] = zarr.open_array(path, mode="r")[:]
    again = np.stack(
        [walloc_ref.decode(walloc_ref.load_model("linear_rgb_4x").encode(frame, step=2)) for frame in wanted]
    )
    data = xarray.open_zarr(tmp_path / "g.zarr", consolidated=False, chunks={})
    assert_array_equal(data.frames.isel(t=1, y=slice(3, 9)).values, again[1, 3:9])
    assert data.frames.data.mean().compute() == pytest.approx(again.mean())


def test_zarr_on_two_workers_of_dask(store):
    distributed = pytest.importorskip("distributed")
    array_module = pytest.importorskip("dask.array")
    path, wanted = store
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(__import__, "walloc_ref.adapters.zarr")
        total = array_module.from_zarr(str(path)).astype("uint64").sum().compute()
    assert int(total) == int(wanted.sum(dtype=np.uint64))


def test_numcodecs():
    numcodecs = pytest.importorskip("numcodecs")
    from walloc_ref.adapters.numcodecs import WallocCodec

    numcodecs.register_codec(WallocCodec)
    codec = numcodecs.get_codec({"id": "walloc_ref", "model": "linear_rgb_4x", "step": 2})
    data = codec.encode(SAMPLES[None])
    assert_array_equal(codec.decode(data), walloc_ref.decode(data))
    out = np.empty_like(SAMPLES)
    codec.decode(data, out)
    assert_array_equal(out, walloc_ref.decode(data))
    assert numcodecs.get_codec(codec.get_config()).get_config() == codec.get_config()


@pytest.mark.parametrize(
    "architecture, chunk, options",
    [
        ("LinearCodec3D", np.arange(8 * 16 * 16, dtype=np.uint8).reshape(1, 8, 16, 16), {}),
        ("LinearCodec2D", photograph(16, 24, 1)[None, :, :, 0], {}),
        ("Codec1D", np.arange(1200, dtype=np.int16).reshape(600, 2), {"rate": 8000}),
        ("LinearCodec2D", photograph(16, 24, 12, dtype=np.uint16), {}),
    ],
)
def test_chunks_of_volumes_audio_and_many_channels(architecture, chunk, options, tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    from walloc_ref.adapters.zarr import WallocCodec

    channels = {"LinearCodec2D": {"channels": 12}}.get(architecture, {})
    codec = tiny_codec(architecture, **channels)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(models.save(codec.model))
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=chunk.shape, chunks=chunk.shape, dtype=chunk.dtype,
        serializer=WallocCodec(model=str(path), **options), compressors=None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
        array[:] = chunk
        samples = chunks.without_leading_ones(chunk, codec.config)
        rate = (options["rate"],) if options else ()
        assert_array_equal(array[:].reshape(samples.shape), walloc_ref.decode(codec.encode(samples, *rate)))


def test_chunks_that_no_model_codes_are_refused(stream):
    with pytest.raises(BadSamples, match="shape"):
        chunks.encode(np.stack([SAMPLES, SAMPLES]), chunks.Settings("linear_rgb_4x"))
    with pytest.raises(BadSamples, match="dtype"):
        chunks.encode(SAMPLES.astype(np.int64), chunks.Settings("linear_rgb_4x"))
    with pytest.raises(BadSamples, match="chunk"):
        chunks.decode(stream, (64, 95, 3), np.dtype("u1"))


# ---- data loaders


def test_a_tar_is_what_webdataset_reads(stream, tmp_path):
    path = tmp_path / "train.tar"
    assert loaders.write_tar(str(path), [("cat/0", stream, 3), ("dog/1", stream, 5)]) == 2
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["cat/0.wlc", "cat/0.cls", "dog/1.wlc", "dog/1.cls"]
    webdataset = pytest.importorskip("webdataset")
    rows = list(
        webdataset.WebDataset(str(path), shardshuffle=False)
        .decode(loaders.wds_decoder("symbols"))
        .to_tuple("wlc", "cls")
    )
    assert [label for _, label in rows] == [3, 5]
    assert_array_equal(rows[0][0], walloc_ref.decode_symbols(stream))


@pytest.mark.parametrize("key", ["a.b", "a", "/a", ""])
def test_keys_that_webdataset_would_not_understand(key, stream, tmp_path):
    with pytest.raises(BadSamples, match="key"):
        loaders.write_tar(str(tmp_path / "x.tar"), [("a", stream, 0), (key, stream, 0)])
    assert not (tmp_path / "x.tar").exists()


def test_decoded_forms(stream):
    assert_array_equal(loaders.decoded(stream), walloc_ref.decode(stream))
    assert loaders.decoded(stream, "symbols").dtype == np.int8
    assert_array_equal(loaders.decoded(stream, "latents"), walloc_ref.features(SAMPLES, "linear_rgb_4x")[0])
    with pytest.raises(BadSamples, match="to"):
        loaders.decoded(stream, "words")


def test_hugging_face_datasets_decode_when_a_row_is_taken(stream):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"image": [stream, stream], "label": [0, 1]})
    data = data.with_transform(loaders.column_decoder("image"))
    row = data[1]
    assert row["label"] == 1
    assert_array_equal(row["image"], walloc_ref.decode(stream))


def test_pytorch_dataset_of_a_folder(stream, tmp_path):
    torch = pytest.importorskip("torch")
    for name in ("a", "b"):
        (tmp_path / f"{name}.wlc").write_bytes(stream)

    class Streams(torch.utils.data.Dataset):
        def __init__(self, folder):
            self.paths = sorted(folder.glob("*.wlc"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            return loaders.decoded(self.paths[index].read_bytes(), "symbols")

    batch = next(iter(torch.utils.data.DataLoader(Streams(tmp_path), batch_size=2)))
    assert batch.shape == (2, 48, 8, 12)
