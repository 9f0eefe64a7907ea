"""Volumes: three axes, against PyWavelets and our PyTorch module; their slices, regions, formats and budgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import upstream
from models import depth_tables, tiny_codec, tiny_model, volume
from numpy.testing import assert_array_equal

import walloc_ref
from walloc_ref import codec as codecs
from walloc_ref import image
from walloc_ref.codec import Codec
from walloc_ref.errors import BadSamples, HashMismatch, LimitExceeded, MalformedModel, MalformedStream
from walloc_ref.fast import entropy as kernel
from walloc_ref.fast import volume as slabs
from walloc_ref.fast import wavelet as kernels
from walloc_ref.fast.table import FAST
from walloc_ref.model import Config, Model
from walloc_ref.plain import PLAIN
from walloc_ref.rate_control import band_norms
from walloc_ref.stages import container, entropy, wavelet

SIZES = [(1, 1, 1), (1, 9, 2), (6, 5, 7), (17, 4, 12), (9, 33, 20)]


def with_depth(codec: Codec, functions=None) -> Codec:
    """The codec with tables that look at the depth position before."""
    tables = depth_tables(codec.config.planes, codec.config.latent_bits)
    return Codec(replace(codec.model, tables=tables), functions)


def unbiased(codec: Codec) -> Codec:
    """The codec without biases."""
    tensors = {name: t * np.float32("bias" not in name) for name, t in codec.model.tensors.items()}
    return Codec(replace(codec.model, tensors=tensors))


# ---- transform and projection


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_transform_is_that_of_pywavelets(levels):
    pywt = pytest.importorskip("pywt")
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8, 16, 24))
    bands = list(x)
    for _ in range(levels):  # pywt names bands by axis, "a" for low and "d" for high
        found = [pywt.dwtn(band, "bior4.4", "periodization", axes=(0, 1, 2)) for band in bands]
        bands = [band["".join("ad"[f >> axis & 1] for axis in range(3))] for band in found for f in range(8)]
    for module in (wavelet, kernels):
        assert np.abs(module.analyse(x, levels) - np.stack(bands)).max() < 1e-13
        assert np.abs(module.synthesise(np.stack(bands), levels) - x).max() < 1e-11
    torch, _ = upstream.load()
    ours = upstream.build(tiny_model("LinearCodec3D", channels=2, J=levels, latent_dim=3))
    with torch.no_grad():
        assert np.abs(ours.wavelet_analysis(torch.tensor(x)[None], levels)[0].numpy() - np.stack(bands)).max() < 1e-13
        back = ours.wavelet_synthesis(torch.tensor(np.stack(bands))[None], levels)[0].numpy()
    assert np.abs(back - wavelet.synthesise(np.stack(bands), levels)).max() < 1e-13


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2])
def test_codec_is_the_module_in_pytorch(size, levels):
    torch, _ = upstream.load()
    codec = tiny_codec("LinearCodec3D", channels=2, J=levels, latent_dim=5)
    module, samples = upstream.build(codec.model), volume(*size, 2)
    x = np.moveaxis(samples, -1, 0) / 255 - 0.5
    for axis in (1, 2, 3):
        n = x.shape[axis]
        before = (-n % codec.config.multiple) // 2
        x = np.pad(
            x, [(before, -n % codec.config.multiple - before) if a == axis else (0, 0) for a in range(4)], "reflect"
        )
    with torch.no_grad():
        symbols = module.encoder(module.wavelet_analysis(torch.tensor(x)[None], levels))
        signal = module.clamp(module.wavelet_synthesis(module.decoder(symbols), levels))[0].numpy()
    data = codec.encode(samples, certify=True)
    assert_array_equal(codecs.decode_symbols(data, codec=codec), symbols[0].numpy())
    starts = [(-n % codec.config.multiple) // 2 for n in size]
    signal = signal[(slice(None), *(slice(s, s + n) for s, n in zip(starts, size)))]
    expected = np.clip(np.rint(255 * (signal + 0.5)), 0, 255)
    assert_array_equal(walloc_ref.decode(data, codec=codec), np.moveaxis(expected, 0, -1))


def test_first_axis_kernels_are_each_other_s_inverse():
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 24, 5, 70))
    for levels in range(4):
        bands = kernels.analyse_first(x, levels)
        assert bands.shape == (2, 1 << levels, 24 >> levels, 5, 70)
        for c, i, j in ((0, 0, 0), (1, 4, 69)):
            assert_array_equal(bands[c, :, :, i, j], kernels.analyse(x[c : c + 1, :, i, j], levels))
        assert np.abs(kernels.synthesise_first(bands, levels) - x).max() < 1e-11


def test_norms_of_synthesis_functions():
    for levels, axes in ((1, 2), (2, 2), (1, 3), (3, 1)):
        norms = band_norms(levels, axes)
        for band in {0, 1, len(norms) // 2, len(norms) - 1}:
            unit = np.zeros((len(norms), *(12,) * axes))
            unit[(band, *(6,) * axes)] = 1
            assert norms[band] == pytest.approx(np.linalg.norm(wavelet.synthesise(unit, levels)), rel=1e-12)


# ---- the coder


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 1), (3, 1, 4, 5), (4, 5, 3, 2), (3, 4, 6, 40)])
def test_slices_of_volumes(shape):
    for seed, tables in enumerate((depth_tables(shape[0], 5), entropy.default_tables(shape[0], 5))):
        symbols = np.clip(np.rint(np.random.default_rng(seed).laplace(0, 4, shape)), -15, 15).astype(np.int16)
        data = entropy.encode(symbols, tables)
        assert kernel.encode(symbols, tables) == data
        for module in (entropy, kernel):
            assert_array_equal(module.decode(data, shape, tables), symbols)
            for wrong in (b"", data + b"\0"):
                with pytest.raises(MalformedStream):
                    module.decode(wrong, shape, tables)
        if shape[1] == 1:
            assert kernel.encode(symbols[:, 0], tables) == data  # one depth position is a slice of an image


def test_depth_positions_that_repeat_cost_little():
    planes, rng = 2, np.random.default_rng(4)
    tables = entropy.default_tables(planes, 8)
    taps = [(c, kind, planes + c, 0, 0) for c in range(planes) for kind in range(2)]
    units = [np.array([[4096, 0], [0, 2048]])] * planes
    seeing = replace(tables, taps=np.array(taps), units=units)
    assert_array_equal(entropy.Tables.from_bytes(seeing.to_bytes()).taps, seeing.taps)
    symbols = np.repeat(rng.integers(-100, 101, (planes, 1, 12, 12)).astype(np.int16), 8, axis=1)
    assert len(kernel.encode(symbols, seeing)) < 0.35 * len(kernel.encode(symbols, tables))


def test_taps_beyond_two_depth_positions_and_in_images_are_refused():
    tables = depth_tables(4, 8)
    beyond = replace(tables, taps=np.where(tables.taps == tables.taps[0, 2], 8, tables.taps))
    with pytest.raises(MalformedModel, match="already coded"):
        entropy.Tables.from_bytes(beyond.to_bytes())
    flat = tiny_model("LinearCodec2D", latent_dim=4)
    with pytest.raises(MalformedModel, match="source plane"):
        Model(flat.config, flat.tensors, tables)


# ---- streams


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_and_format(size, dtype, channels):
    fast = with_depth(tiny_codec("LinearCodec3D", channels=channels, J=2, latent_dim=6))
    plain = Codec(fast.model, PLAIN)
    samples = volume(*size, channels, dtype=dtype)
    data = fast.encode(samples, certify=dtype != np.float32)
    assert data == plain.encode(samples, certify=dtype != np.float32)
    result = codecs.decode_stream(data, codec=fast)
    assert (result.samples.dtype, result.samples.shape) == (samples.dtype, samples.shape)
    assert result.certified == (dtype != np.float32)
    if dtype == np.float32:
        assert np.allclose(result.samples, walloc_ref.decode(data, codec=plain), rtol=1e-6, atol=1e-4)
    else:
        assert_array_equal(result.samples, walloc_ref.decode(data, codec=plain))
    header = walloc_ref.info(data)
    assert (header.kind, header.sizes, header.channels) == ("volume", size, channels)
    assert header.bits_per_sample == 8 * len(data) / np.prod(size)
    assert_array_equal(fast.to_symbols(fast.from_symbols(codecs.decode_symbols(data, codec=fast), (channels, *size))).shape,
                       codecs.decode_symbols(data, codec=fast).shape)  # fmt: skip


def test_decoded_volumes_resemble_what_was_encoded():
    codec = unbiased(tiny_codec("LinearCodec3D", latent_dim=8))
    samples = volume(30, 40, 50)
    errors = walloc_ref.decode(codec.encode(samples, step=0.5), codec=codec).astype(int) - samples
    assert np.sqrt(np.mean(errors**2.0)) < 8
    for format_, dtype in (("s16", np.int16), ("f32", np.float32)):
        samples = volume(30, 40, 50, dtype=dtype)
        assert walloc_ref.info(codec.encode(samples)).sample_format == format_
        errors = walloc_ref.decode(codec.encode(samples, step=0.5), codec=codec).astype(np.float64) - samples
        assert np.sqrt(np.mean(errors**2)) < np.ptp(samples.astype(np.float64)) / 30


def test_one_channel_in_a_model_of_several():
    codec = tiny_codec("LinearCodec3D", channels=3, latent_dim=8)
    samples = volume(12, 13, 14)
    assert walloc_ref.decode(codec.encode(samples), codec=codec).shape == samples.shape


def test_constants_of_floats_come_back_exactly():
    codec = tiny_codec("LinearCodec3D")
    samples = np.full((5, 6, 7), np.float32(0.3))
    assert_array_equal(walloc_ref.decode(codec.encode(samples), codec=codec), samples)


def test_slices_are_cut_along_depth(monkeypatch):
    monkeypatch.setattr(codecs, "SLICE_DEPTH", 3)
    monkeypatch.setattr(codecs, "SLICE_SYMBOLS", 1)
    codec = with_depth(tiny_codec("LinearCodec3D"))
    data = bytearray(codec.encode(volume(21, 9, 11)))
    facts = walloc_ref.info(bytes(data))
    assert (facts.slices, facts.slice_size, facts.latent_sizes) == (4, 3, (11, 5, 6))
    whole = walloc_ref.decode(bytes(data), codec=codec)
    data[-1] ^= 1
    with pytest.raises(MalformedStream, match="slice 3.*latent positions 9 to 10 of 11"):
        walloc_ref.decode(bytes(data), codec=codec)
    result = codecs.decode_stream(bytes(data), codec=codec, keep_going=True)
    assert result.damaged == (3,)
    assert_array_equal(result.samples[5:12], whole[5:12])  # beyond the reach of the slice, around the end, too


@pytest.mark.parametrize("J", [1, 2])
def test_regions_are_parts_of_the_whole(J, monkeypatch):
    monkeypatch.setattr(codecs, "SLICE_DEPTH", 2)
    monkeypatch.setattr(codecs, "SLICE_SYMBOLS", 1)
    monkeypatch.setattr(slabs, "SLAB_SAMPLES", 1)
    codec = with_depth(tiny_codec("LinearCodec3D", J=J, latent_dim=6))
    data = codec.encode(volume(70, 23, 38))
    whole = walloc_ref.decode(data, codec=codec)
    for x, y, z, width, height, depth in (
        (0, 0, 0, 38, 23, 70),
        (0, 0, 0, 1, 1, 1),
        (37, 22, 69, 1, 1, 1),
        (5, 3, 20, 20, 2, 40),
    ):
        part = walloc_ref.decode(data, codec=codec, region=(x, y, z, width, height, depth))
        assert_array_equal(part, whole[z : z + depth, y : y + height, x : x + width])
    for wrong in ((0, 0, 38, 23), (0, 0, 0, 39, 1, 1), (0, 0, 0, 1, 1, 71), (-1, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1, 0)):
        with pytest.raises(BadSamples, match="region: .*x, y, z, width, height, depth within 38x23x70"):
            walloc_ref.decode(data, codec=codec, region=wrong)


def test_a_region_decodes_only_the_slices_that_it_depends_on(monkeypatch):
    monkeypatch.setattr(codecs, "SLICE_DEPTH", 2)
    monkeypatch.setattr(codecs, "SLICE_SYMBOLS", 1)
    codec, slices = tiny_codec("LinearCodec3D"), []
    data = codec.encode(volume(100, 9, 8))

    def decode_slice(*arguments):
        slices.append(1)
        return FAST.decode_slice(*arguments)

    counting = Codec(codec.model, replace(FAST, decode_slice=decode_slice))
    walloc_ref.decode(data, codec=counting, region=(0, 0, 50, 8, 9, 2))
    assert walloc_ref.info(data).slices == 25
    assert len(slices) <= 6


def test_metadata_come_back():
    metadata = {"spacing": [2.5, 0.7, 0.7], "units": "mm", "affine": [[1.0, 0, 0, -90.5]]}
    for codec, samples in (
        (tiny_codec("LinearCodec3D"), volume(5, 6, 7)),
        (tiny_codec("LinearCodec2D"), np.zeros((5, 6, 3), np.uint8)),
        (tiny_codec("Codec1D"), np.zeros((50, 2), np.int16)),
    ):
        data = codec.encode(samples, metadata=metadata)
        assert codecs.decode_stream(data, codec=codec).metadata == metadata
        assert walloc_ref.info(data).metadata_bytes == len(container.metadata_to_bytes(metadata))
        assert codecs.decode_stream(codec.encode(samples), codec=codec).metadata is None
        with pytest.raises(BadSamples, match="metadata"):
            codec.encode(samples, metadata={"a": float("inf")})


def test_rate_control_of_volumes():
    codec = unbiased(tiny_codec("LinearCodec3D", J=2, latent_dim=20))
    samples = volume(40, 50, 60, dtype=np.float32)
    data = codec.encode(samples, psnr=25)
    error = walloc_ref.decode(data, codec=codec).astype(np.float64) - samples
    assert 20 * np.log10(walloc_ref.info(data).gain) - 10 * np.log10(np.mean(error**2)) == pytest.approx(25, abs=0.06)
    assert len(codec.encode(samples, max_bytes=3000)) <= 3000
    assert len(codec.encode(samples, quality=90)) > len(codec.encode(samples, quality=20))


# ---- what is refused


REFUSED = {
    "two axes": (np.zeros((4, 4), np.uint8), {}, "samples.shape"),
    "empty": (np.zeros((4, 0, 4), np.uint8), {}, "samples.shape"),
    "two channels": (np.zeros((4, 4, 4, 2), np.uint8), {}, "channels: 2"),
    "int32": (np.zeros((4, 4, 4), np.int32), {}, "samples.dtype: int32"),
    "float64": (np.zeros((4, 4, 4)), {}, "samples.dtype: float64"),
    "rate": (np.zeros((4, 4, 4), np.uint8), {"rate": 8000}, "rate: 8000; none for volumes"),
    "window": (np.zeros((4, 4, 4), np.uint8), {"window": 8}, "window: 8"),
    "certified floats": (np.zeros((4, 4, 4), np.float32), {"certify": True}, "certify: f32"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_samples(fault):
    samples, options, message = REFUSED[fault]
    with pytest.raises(BadSamples, match=message):
        tiny_codec("LinearCodec3D").encode(samples, **options)


def test_not_a_number_is_counted_and_named():
    samples = volume(4, 5, 6, dtype=np.float32)
    samples[1, 2, 3] = samples[3, 4, 5] = np.nan
    with pytest.raises(BadSamples, match=r"2 of 120 are NaN or infinite, the first at \[1, 2, 3, 0\]"):
        tiny_codec("LinearCodec3D").encode(samples)


def test_budgets():
    codec = tiny_codec("LinearCodec3D", J=3)
    data = codec.encode(volume(1, 1, 300))
    with pytest.raises(LimitExceeded, match="samples: 300"):
        walloc_ref.decode(data, codec=codec, max_samples=299)
    with pytest.raises(LimitExceeded, match="with padding 19456 samples; at most 2400"):
        walloc_ref.decode(data, codec=codec, max_samples=300)
    assert len(codec.encode(volume(9, 9, 9), max_samples=729)) > 0  # eight times is always allowed


def test_wrong_hash_and_wrong_kind():
    codec = tiny_codec("LinearCodec3D")
    stream = container.read(codec.encode(volume(5, 6, 7)))
    wrong = replace(stream, header=replace(stream.header, symbol_hash=bytes(8)))
    with pytest.raises(HashMismatch):
        walloc_ref.decode(container.write(wrong), codec=codec)
    flat = replace(stream, header=replace(stream.header, kind="image", sizes=(30, 7), slice_size=15))
    with pytest.raises(MalformedStream, match="HEAD.kind: image; volume"):
        walloc_ref.decode(container.write(flat), codec=codec)


def test_configurations():
    assert Config("LinearCodec3D", 2, 3, 5).bands == 1024
    assert Config("LinearCodec2D", 4096, 2, 5).bands == 65536
    with pytest.raises(MalformedModel, match="a volume that has the channels for its first axis"):
        Config("LinearCodec2D", 4096, 3, 5)
    with pytest.raises(MalformedModel, match="channels: 4097"):
        Config("LinearCodec2D", 4097, 0, 5)


# ---- images of many channels and of other formats


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_images_in_other_formats(dtype):
    fast = tiny_codec("LinearCodec2D", channels=200, J=1, latent_dim=30)
    plain = Codec(fast.model, PLAIN)
    samples = np.moveaxis(volume(200, 21, 18, dtype=dtype), 0, -1)
    data = fast.encode(samples)
    assert data == plain.encode(samples)
    decoded = walloc_ref.decode(data, codec=fast)
    assert (decoded.dtype, decoded.shape) == (samples.dtype, samples.shape)
    part = walloc_ref.decode(data, codec=fast, region=(3, 4, 10, 11))
    assert_array_equal(part, decoded[4:15, 3:13])
    assert image.MARGIN_BOUND["s16"] == 2.0**-24
    if dtype == np.int16:
        assert codecs.decode_stream(fast.encode(samples, certify=True), codec=plain).certified


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">f4"])
def test_byte_order_and_layout_of_arrays_do_not_matter(dtype):
    for codec, samples in (
        (tiny_codec("LinearCodec3D"), volume(5, 6, 7, dtype=np.dtype(dtype).newbyteorder("="))),
        (tiny_codec("LinearCodec2D"), volume(6, 7, 3, dtype=np.dtype(dtype).newbyteorder("="))),
    ):
        data = codec.encode(samples)
        assert codec.encode(samples.astype(dtype)) == data
        assert codec.encode(np.asfortranarray(samples)) == data
        assert codec.encode(samples[::-1].copy()[::-1]) == data
