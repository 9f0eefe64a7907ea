"""Audio end to end: statistics, pieces, formats, files, the command line, and what must be refused."""

from __future__ import annotations

import contextlib
import errno
import io
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import soundfile
import upstream
from models import tiny_codec, tiny_model

import walloc_ref
from walloc_ref import audio, cli
from walloc_ref.errors import BadSamples, LimitExceeded, MalformedModel, UnreadableFile
from walloc_ref.fast import audio as pieces
from walloc_ref.fast import projection as vectors
from walloc_ref.fast import signal as kernels
from walloc_ref.files import audio_files
from walloc_ref.model import save
from walloc_ref.plain import PLAIN
from walloc_ref.stages import container, projection, quantise, signal

FORMATS = {"u8": np.uint8, "s16": np.int16, "s24": np.int32, "s32": np.int32, "f32": np.float32, "f64": np.float64}


def music(frames: int, channels: int = 2, sample_format: str = "s16", seed: int = 0, level: float = 0.6) -> np.ndarray:
    """A few decaying tones and noise: (frames, channels) of the format's dtype."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None]
    x = sum(np.sin(t * f * (1 + 0.001 * np.arange(channels))) / n for n, f in enumerate(rng.uniform(0.01, 0.5, 5), 1))
    x = level * (0.3 * x * np.exp(-t / 3000) + 0.05 * rng.standard_normal((frames, channels)))
    dtype, full_scale, silence, step = signal.AUDIO_FORMATS[sample_format]
    if step == 0:
        return x.astype(dtype)
    return (
        np.clip(np.rint(x * (full_scale // step)), -(full_scale // step), full_scale // step - 1) * step + silence
    ).astype(dtype)


def quiet_codec(**options: Any) -> walloc_ref.Codec:
    """A tiny codec whose decoder rarely leaves [-0.5, 0.5], so that its samples say more than where they are clamped."""
    model = tiny_model("Codec1D", **options)
    gain = "decoder.1.conv2.weight_g"
    return walloc_ref.Codec(replace(model, tensors={**model.tensors, gain: model.tensors[gain] * np.float32(0.0005)}))


@pytest.fixture(scope="module")
def codec() -> walloc_ref.Codec:
    return quiet_codec()


@pytest.fixture(scope="module")
def loud_codec() -> walloc_ref.Codec:
    return tiny_codec("Codec1D")


# ---- statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_format", FORMATS)
def test_mean_is_the_exact_sum_rounded_once(sample_format):
    samples = music(70_000, 2, sample_format, level=0.9) if sample_format != "f32" else music(70_000, 2, "f32") * 1e-30
    _, full_scale, silence, _ = signal.AUDIO_FORMATS[sample_format]
    mean, gain = signal.audio_statistics(samples, sample_format)
    if full_scale > 1:
        total = sum(int(v) for v in samples.ravel()) - silence * samples.size
        assert mean == float(Fraction(total, samples.size * full_scale))
    else:
        exact = sum(map(Fraction, samples.ravel().tolist())) / samples.size
        assert abs(Fraction(mean) - exact) <= Fraction(float(np.abs(samples).max())) * Fraction(1, 2**52)
    units = (samples.astype(float) - silence) / full_scale
    assert gain == 2 * np.abs(units - mean).max()
    assert signal.audio_statistics(samples[::-1], sample_format) == (mean, gain)
    assert signal.audio_statistics(np.asfortranarray(samples), sample_format) == (mean, gain)


def test_signal_reaches_half_and_no_further(codec):
    for sample_format in FORMATS:
        samples = music(999, 2, sample_format)
        x = signal.audio_to_signal(samples, sample_format, *signal.audio_statistics(samples, sample_format))
        assert np.abs(x).max() == 0.5


def test_extremes_do_not_overflow():
    for dtype, sample_format in ((np.int32, "s32"), (np.int16, "s16"), (np.uint8, "u8")):
        limits = np.iinfo(dtype)
        samples = np.array([[limits.min], [limits.max]] * 5, dtype=dtype)
        mean, gain = signal.audio_statistics(samples, sample_format)
        assert -1 < mean < 0
        assert 1.9 < gain < 2.1
    for value in (2.0**1020, 5e-324):
        samples = np.array([[value], [-value]])
        assert signal.audio_statistics(samples, "f64") == (0, 2 * value)
    with pytest.raises(BadSamples, match="1021"):
        signal.audio_statistics(np.array([[2.0**1022]]), "f64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused_with_their_place(codec, value):
    samples = music(1000, 2, "f32")
    samples[700, 1] = value
    with pytest.raises(BadSamples, match="frame 700, channel 1"):
        codec.encode(samples, 44100)


def test_low_bits_that_24_bits_do_not_hold_are_refused(codec):
    samples = music(100, 2, "s24")
    codec.encode(samples, 48000, sample_format="s24")
    samples[50, 0] += 1
    with pytest.raises(BadSamples, match="24th"):
        codec.encode(samples, 48000, sample_format="s24")


# ---- samples to samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_format", FORMATS)
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 1000])
def test_every_format_and_length_comes_back_in_kind(codec, sample_format, frames):
    samples = music(frames, 2, sample_format)
    data = codec.encode(samples, 8000, sample_format=sample_format)
    decoded = walloc_ref.decode(data, codec=codec)
    assert decoded.shape == samples.shape
    assert decoded.dtype == samples.dtype
    info = walloc_ref.info(data)
    assert (info.rate, info.sample_format, info.sizes, info.channels) == (8000, sample_format, (frames,), 2)
    if sample_format == "s24":
        assert not (decoded % 256).any()


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_any_number_of_channels_that_the_model_has(channels):
    codec = quiet_codec(channels=channels, latent_dim=channels)
    samples = music(333, channels)
    decoded = walloc_ref.decode(codec.encode(samples, 44100, certify=True), codec=codec)
    assert decoded.shape == samples.shape


def test_one_channel_in_a_stereo_model_is_repeated_and_averaged(codec):
    mono = music(500, 1)
    data = codec.encode(mono[:, 0], 44100)
    decoded = walloc_ref.decode(data, codec=codec)
    both = codec.to_symbols(
        np.repeat(signal.audio_to_signal(mono, "s16", *signal.audio_statistics(mono, "s16")), 2, axis=0)
    )
    assert np.array_equal(walloc_ref.decode_symbols(data, codec=codec), both)
    info = walloc_ref.info(data)
    x = codec.from_symbols(both, (2, 500)).mean(axis=0)
    assert np.array_equal(decoded[:, 0], np.clip(np.rint((info.gain * x + info.mean) * 32768), -32768, 32767))


def test_other_numbers_of_channels_are_refused(codec):
    with pytest.raises(BadSamples, match="channels: 3; 2, or 1"):
        codec.encode(music(100, 3), 44100)


@pytest.mark.parametrize(
    ("samples", "rate", "field"),
    [
        (np.zeros((0, 2), np.int16), 44100, "samples.shape"),
        (np.zeros((5, 0), np.int16), 44100, "samples.shape"),
        (np.zeros((5, 2, 2), np.int16), 44100, "samples.shape"),
        (np.zeros((5, 2), np.int64), 44100, "samples.dtype"),
        (np.zeros((5, 2), np.uint16), 44100, "samples.dtype"),
        (np.zeros((5, 2), np.complex128), 44100, "samples.dtype"),
        (np.zeros((5, 2), np.int16), 0, "rate"),
        (np.zeros((5, 2), np.int16), 1 << 32, "rate"),
        (np.zeros((5, 2), np.int16), 44100.5, "rate"),
        (np.zeros((5, 2), np.int16), True, "rate"),
    ],
)
def test_what_is_no_sound_is_refused(codec, samples, rate, field):
    with pytest.raises(BadSamples) as error:
        codec.encode(samples, rate)
    assert error.value.field == field


def test_a_sample_format_must_fit_the_dtype(codec):
    with pytest.raises(BadSamples, match="s24"):
        codec.encode(music(100, 2), 44100, sample_format="s24")


@pytest.mark.parametrize("sample_format", FORMATS)
@pytest.mark.parametrize("value", [0, 77])
def test_silence_and_direct_current_come_back_exactly(codec, sample_format, value):
    samples = np.full((1001, 2), value, FORMATS[sample_format])
    if sample_format == "s24":
        samples *= 256
    data = codec.encode(samples, 44100, sample_format=sample_format)
    assert walloc_ref.info(data).gain == 0
    assert np.array_equal(walloc_ref.decode(data, codec=codec), samples)


def test_output_is_clipped_and_does_not_wrap(loud_codec):
    for sign in (1, -1):
        samples = np.full((4000, 2), sign * 32000, np.int16)
        samples[::50] = -sign * 32000
        data = loud_codec.encode(samples, 44100)
        info = walloc_ref.info(data)
        x = loud_codec.from_symbols(walloc_ref.decode_symbols(data, codec=loud_codec), (2, 4000)).T
        exact = np.rint((info.gain * x + info.mean) * 32768)
        assert np.abs(exact).max() > 90_000
        assert np.array_equal(walloc_ref.decode(data, codec=loud_codec), np.clip(exact, -32768, 32767))


def test_rounding_is_to_even():
    steps = np.array([[0.5, 1.5, -0.5, -2.5, 40000.0, -40000.0]])
    for module in (signal, kernels):
        assert module.signal_to_audio(steps, "s16", 0, 2**-15)[:, 0].tolist() == [0, 2, 0, -2, 32767, -32768]
        assert module.signal_to_audio(steps, "s24", 0, 2**-23)[:, 0].tolist() == [0, 512, 0, -512, 10240000, -10240000]
        assert module.signal_to_audio(steps, "s32", 0, 2**-31)[:, 0].tolist() == [0, 2, 0, -2, 40000, -40000]
        assert module.signal_to_audio(steps, "u8", 0, 2**-7)[:, 0].tolist() == [128, 130, 128, 126, 255, 0]
    assert kernels.smallest_audio_margin(steps + 0.25, "s16", 0, 2**-15) == 0.25


@pytest.mark.parametrize("sample_format", FORMATS)
def test_kernels_between_samples_and_signal_equal_the_definitions(sample_format):
    for samples in (music(501, 3, sample_format), music(40, 1, sample_format)[::3]):
        how = (sample_format, *signal.audio_statistics(samples, sample_format))
        x = signal.audio_to_signal(samples, *how)
        assert np.array_equal(kernels.audio_to_signal(samples, *how), x)
        for loudness in (1.0, 0.7, 3.0):
            defined = signal.signal_to_audio(loudness * x, *how)
            fast = kernels.signal_to_audio(loudness * x, *how)
            assert fast.dtype == defined.dtype
            assert np.array_equal(fast, defined)
        assert np.array_equal(defined.shape, samples.shape)


def test_mean_and_gain_of_any_size_are_survived(codec):
    layout = replace(audio.describe(music(100), codec.config, 44100)[1], mean=-1.7e308, gain=1.7e308)
    symbols = codec.to_symbols(np.zeros((2, 100)))
    for sample_format in FORMATS:
        functions, how = codec.stages, replace(layout, sample_format=sample_format)
        samples = functions.symbols_to_samples["audio"](symbols, how, codec.model, functions)
        assert samples.shape == (100, 2)


def test_weights_that_overflow_are_refused(codec):
    tensors = dict(codec.model.tensors)
    tensors["decoder.1.block.0.snake1.alpha"] = np.full_like(tensors["decoder.1.block.0.snake1.alpha"], 1e4)
    broken = walloc_ref.Codec(replace(codec.model, tensors=tensors))
    with pytest.raises(MalformedModel, match="not a number"):
        broken.from_symbols(codec.to_symbols(np.zeros((2, 100))))


def test_a_certified_stream_says_which_samples_are_uncertain(codec):
    data = codec.encode(music(3000), 44100, certify=True)
    result = walloc_ref.decode_stream(data, codec=codec)
    assert result.certified
    with pytest.raises(BadSamples, match="certify"):
        codec.encode(music(3000, 2, "f32"), 44100, certify=True)


# ---- pieces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lightweight_encode": False, "Ne": 8}, {"post_filter": False}, {"J": 1}])
@pytest.mark.parametrize("frames", [5, 800, 3001])
def test_the_result_does_not_depend_on_pieces_or_threads(monkeypatch, options, frames):
    codec = quiet_codec(**options)
    samples = music(frames)
    data = codec.encode(samples, 44100)
    decoded = walloc_ref.decode(data, codec=codec)
    x = codec.from_symbols(walloc_ref.decode_symbols(data, codec=codec))
    for piece, threads in ((1 if frames < 100 else 50, "1"), (127, "3")):
        monkeypatch.setattr(pieces, "PIECE", piece)
        monkeypatch.setenv("WALLOC_THREADS", threads)
        assert codec.encode(samples, 44100) == data
        assert np.array_equal(walloc_ref.decode(data, codec=codec), decoded)
        np.testing.assert_allclose(
            codec.from_symbols(walloc_ref.decode_symbols(data, codec=codec)), x, rtol=0, atol=1e-13
        )


@pytest.mark.parametrize(("latents", "inputs", "n"), [(1, 4, 40), (27, 33, 32), (108, 16, 77), (13, 1, 7), (12, 5, 64)])
def test_projection_kernel_equals_definition(latents, inputs, n):
    random = np.random.default_rng(n)
    bands, weight, bias = (random.normal(size=size) for size in ((inputs, n), (latents, inputs), latents))
    found = vectors.project(bands[:, ::-1], weight, bias)
    np.testing.assert_allclose(found, projection.project(bands[:, ::-1], weight, bias), rtol=0, atol=1e-13)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("positions", [1, 2, 255, 511, 512, 1723, 2048, 2049, 100_000])
def test_pieces_are_the_file_in_equal_parts(positions, threads, monkeypatch):
    monkeypatch.setenv("WALLOC_THREADS", threads)
    found = pieces.pieces(positions)
    assert [first for first, _ in found] == [0, *(last for _, last in found[:-1])]
    assert found[-1][1] == positions
    sizes = [last - first for first, last in found]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= pieces.PIECE
    assert len(sizes) % int(threads) == 0 or min(sizes) < 2 * pieces.SHORT


def test_definitions_give_what_kernels_give(monkeypatch, codec):
    samples = music(2000)
    data = codec.encode(samples, 44100)
    decoded = walloc_ref.decode(data, codec=codec)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    fresh = quiet_codec()
    assert fresh.stages is PLAIN
    symbols = walloc_ref.decode_symbols(data, codec=codec)
    prepared, layout = audio.describe(samples, fresh.config, 44100)
    assert np.array_equal(audio.samples_to_symbols(prepared, layout, fresh.model, PLAIN), symbols)
    assert np.array_equal(audio.symbols_to_samples(symbols, layout, fresh.model, PLAIN), decoded)


def test_memory_does_not_grow_with_the_length(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 64)
    monkeypatch.setenv("WALLOC_THREADS", "1")
    codec = quiet_codec()
    peaks = []
    for frames in (1 << 13, 1 << 17):
        samples, layout = audio.describe(music(frames), codec.config, 44100)
        functions = codec.stages
        codec.model.weights  # noqa: B018 - promoted once, whatever the length
        tracemalloc.start()
        symbols = functions.samples_to_symbols["audio"](samples, layout, codec.model, functions)
        decoded = functions.symbols_to_samples["audio"](symbols, layout, codec.model, functions)
        peaks.append(tracemalloc.get_traced_memory()[1] - symbols.nbytes - decoded.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 700_000  # bookkeeping of 256 pieces; the signal in binary64 would be 2 MB


# ---- the upstream --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"post_filter": False, "latent_bits": 5, "channels": 1, "latent_dim": 3},
        {"lightweight_encode": False, "Ne": 8},
        {"J": 8, "latent_dim": 27, "Nd": 27},
    ],
)
def test_symbols_and_samples_equal_upstream(options):
    torch, _ = upstream.load()
    codec = quiet_codec(**options)
    c = codec.config
    module = upstream.build(codec.model)
    samples = music(13 * c.multiple + 5, c.channels)
    data = codec.encode(samples, 44100, certify=True)
    info = walloc_ref.info(data)
    x = (samples.T / 32768 - info.mean) / info.gain
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % c.multiple)))
    with torch.no_grad():
        symbols = module.encoder(module.wavelet_analysis(torch.tensor(padded)[None], c.J))
        y = module.wavelet_synthesis(module.decoder(symbols), c.J)
        y = module.clamp(module.post(y) if c.post_filter else y)[0, :, : x.shape[1]].numpy()
    assert np.array_equal(walloc_ref.decode_symbols(data, codec=codec), symbols[0].numpy())
    np.testing.assert_allclose(codec.from_symbols(symbols[0].numpy().astype(np.int16), x.shape), y, rtol=0, atol=1e-12)
    scaled = (info.gain * y + info.mean) * 32768
    assert quantise.margin(scaled).min() > 2.0**-24
    assert (np.abs(y) < 0.5).mean() > 0.9
    expected = np.clip(np.rint(scaled), -32768, 32767).T
    assert np.array_equal(walloc_ref.decode(data, codec=codec), expected)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_format", FORMATS)
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_files_hold_what_was_written(sample_format, suffix):
    for channels, frames in ((1, 1), (2, 70_000), (6, 100)):
        clip = audio_files.AudioSamples(music(frames, channels, sample_format), 22050, sample_format)
        file = io.BytesIO()
        if suffix == ".flac" and sample_format not in audio_files.FLAC_SUBTYPES:
            with pytest.raises(UnreadableFile, match=r"\.wav for"):
                audio_files.write_audio(file, clip, "a" + suffix)
            continue
        audio_files.write_audio(file, clip, "a" + suffix)
        assert audio_files.is_audio(file.getvalue()[: audio_files.HEAD_BYTES])
        back = audio_files.read_audio(file, "a")
        assert (back.rate, back.sample_format, back.samples.dtype) == (22050, sample_format, clip.samples.dtype)
        assert np.array_equal(back.samples, clip.samples)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "ULAW")])
def test_lossy_files_become_16_bits(kind, subtype):
    if not soundfile.check_format(kind, subtype):
        pytest.skip(f"this libsndfile knows no {kind}")
    file = io.BytesIO()
    loud = music(30_000, 2, "f32", level=4.0)
    soundfile.write(file, np.clip(loud, -1, 1), 44100, format=kind, subtype=subtype)
    assert audio_files.is_audio(file.getvalue()[: audio_files.HEAD_BYTES])
    clip = audio_files.read_audio(file, "a")
    assert clip.sample_format == "s16"
    assert clip.samples.dtype == np.int16
    file.seek(0)
    floats = soundfile.read(file, dtype="float32")[0]
    assert np.array_equal(clip.samples, np.clip(np.rint(floats * 32768.0), -32768, 32767))


def wav(samples: np.ndarray | None = None) -> bytearray:
    file = io.BytesIO()
    audio_files.write_audio(
        file, audio_files.AudioSamples(music(3000) if samples is None else samples, 44100, "s16"), "a.wav"
    )
    return bytearray(file.getvalue())


def flac() -> bytearray:
    file = io.BytesIO()
    audio_files.write_audio(file, audio_files.AudioSamples(music(30_000), 44100, "s16"), "a.flac")
    return bytearray(file.getvalue())


def patched(data: bytearray, at: int, value: bytes) -> bytes:
    data[at : at + len(value)] = value
    return bytes(data)


FLAC_FRAMES_AT = 8 + 14
"""Lowest four bytes of the 36 bits in STREAMINFO that hold the number of frames."""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"ID3" + bytes(50),
        bytes(wav()[:44]),
        bytes(wav()[:5000]),
        patched(wav(), 22, b"\0\0"),  # channels
        patched(wav(), 24, bytes(4)),  # rate
        patched(wav(), 34, b"\0\0"),  # bits
        patched(wav(), 40, bytes(4)),  # length of the samples
        patched(wav(), 40, (10**9).to_bytes(4, "little")),
        bytes(flac()[:30]),
        bytes(flac()[:20_000]),
        patched(flac(), FLAC_FRAMES_AT, bytes(4)),
        patched(flac(), FLAC_FRAMES_AT, b"\xf0\0\0\0"),
        patched(flac(), 20_000, b"\xff\0\xff\0"),
    ],
)
def test_damaged_files_and_false_lengths_are_refused(data):
    with pytest.raises(UnreadableFile):
        audio_files.read_audio(io.BytesIO(data), "a")


def test_a_wav_written_to_a_pipe_is_read_to_its_end():
    samples = music(3000)
    for unknown in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
        assert np.array_equal(
            audio_files.read_audio(io.BytesIO(patched(wav(samples), 40, unknown)), "a").samples, samples
        )


def test_the_limit_is_kept():
    with pytest.raises(LimitExceeded, match="max-samples"):
        audio_files.read_audio(io.BytesIO(wav()), "a", max_samples=5999)
    assert audio_files.read_audio(io.BytesIO(wav()), "a", max_samples=6000).samples.size == 6000


def test_channels_that_a_file_cannot_hold_are_refused():
    with pytest.raises(UnreadableFile, match="9 channels"):
        audio_files.write_audio(io.BytesIO(), audio_files.AudioSamples(music(100, 9), 44100, "s16"), "a.flac")


def encoded(kind: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, music(20000, 2, "s16"), 48000, format=kind, subtype=subtype)
    return out.getvalue()


CUT = [("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("OGG", "VORBIS")]


@pytest.mark.parametrize(("kind", "subtype"), CUT)
def test_a_file_that_is_cut_is_refused(kind, subtype):
    if not soundfile.check_format(kind, subtype):
        pytest.skip("not in this libsndfile")
    data = encoded(kind, subtype)
    assert len(audio_files.read_audio(io.BytesIO(data), "x").samples) >= 20000
    for cut in (1, 30, 1000, len(data) // 2):
        with pytest.raises(UnreadableFile, match="input"):
            audio_files.read_audio(io.BytesIO(data[:-cut]), "x")


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_md5_of_flac(subtype):
    data = bytearray(encoded("FLAC", subtype))
    tag = b"ID3\4\0\0\0\0\0\5" + bytes(5)
    for before in (b"", tag):
        audio_files.read_audio(io.BytesIO(before + data), "x")
    data[30] ^= 1
    for before in (b"", tag):
        with pytest.raises(UnreadableFile, match="input.MD5: x, [0-9a-f]{32}; [0-9a-f]{32}, as the file claims"):
            audio_files.read_audio(io.BytesIO(before + data), "x")
    data[26:42] = bytes(16)  # of an encoder that computed none
    audio_files.read_audio(io.BytesIO(data), "x")


@pytest.mark.parametrize(("name", "most"), [("a.wav", (1 << 31) - 1), ("a.flac", 655350)])
def test_rates_that_a_file_cannot_hold_are_refused(name, most):
    audio = audio_files.AudioSamples(music(10), most, "s16")
    out = io.BytesIO()
    audio_files.write_audio(out, audio, name)
    assert audio_files.read_audio(out, name).rate == most
    for rate in (most + 1, (1 << 32) - 1, 0):
        with pytest.raises(UnreadableFile, match=f"output: {name}, {rate} Hz; 1 to {most} Hz"):
            audio_files.write_audio(io.BytesIO(), audio_files.AudioSamples(music(10), rate, "s16"), name)


class Full(io.BytesIO):
    """A disk with room for 100000 bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 100000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk_is_said(name, capfd):
    noise = np.random.default_rng(0).integers(-20000, 20000, (300000, 2)).astype(np.int16)
    with pytest.raises(UnreadableFile, match=rf"output: {name}; a writable file \(No space left on device\)"):
        audio_files.write_audio(Full(), audio_files.AudioSamples(noise, 44100, "s16"), name)
    assert capfd.readouterr() == ("", "")


class Bad(io.BytesIO):
    """A disk with a hole."""

    def read(self, size: int = -1) -> bytes:
        if self.tell() >= 44:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_disk_that_cannot_be_read_is_said(capfd):
    with pytest.raises(UnreadableFile, match="Input/output error"):
        audio_files.read_audio(Bad(encoded("WAV", "PCM_16")), "x")
    assert capfd.readouterr() == ("", "")


# ---- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.safetensors").write_bytes(save(tiny_model("Codec1D", name="tiny")))
    (tmp_path / "image.safetensors").write_bytes(save(tiny_model(name="image")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WALLOC_MODELS", str(tmp_path))
    return tmp_path


def test_command_line_there_and_back(folder, capsys):
    for name, sample_format in (("a.wav", "s24"), ("b.flac", "s16"), ("c.wav", "f32")):
        with (folder / name).open("w+b") as file:
            audio_files.write_audio(
                file, audio_files.AudioSamples(music(2000, 2, sample_format), 32000, sample_format), name
            )
        assert cli.main(["encode", name, "x.wlc", "--model", "tiny"]) == 0
        assert "2000 frames" in capsys.readouterr().out
        assert cli.main(["decode", "x.wlc", "back-" + name]) == 0
        found = soundfile.info(folder / ("back-" + name))
        assert (found.frames, found.channels, found.samplerate) == (2000, 2, 32000)
        assert found.subtype == audio_files.WAV_SUBTYPES[sample_format]


def test_command_line_refuses(folder, capsys):
    soundfile.write(folder / "a.wav", music(100), 44100)
    bad = music(100, 2, "f32")
    bad[3, 1] = np.nan
    soundfile.write(folder / "nan.wav", bad, 44100, subtype="FLOAT")
    soundfile.write(folder / "three.wav", music(100, 3), 44100)
    assert cli.main(["encode", "a.wav", "a.wlc", "--model", "tiny"]) == 0
    (folder / "text.wav").write_bytes(b"not an audio signal at all")
    stream = container.read((folder / "a.wlc").read_bytes())
    fast = replace(stream, header=replace(stream.header, rate=1 << 31))
    (folder / "fast.wlc").write_bytes(container.write(fast))
    for arguments, complaint in (
        (["decode", "fast.wlc", "b.wav"], "b.wav, 2147483648 Hz; 1 to 2147483647 Hz in .wav"),
        (["decode", "fast.wlc", "b.flac"], "b.flac, 2147483648 Hz; 1 to 655350 Hz in .flac"),
        (["encode", "a.wav", "b.wlc", "--model", "image"], "a model for audio"),
        (["encode", "nan.wav", "b.wlc", "--model", "tiny"], "nan at frame 3, channel 1"),
        (["encode", "three.wav", "b.wlc", "--model", "tiny"], "channels: 3"),
        (["encode", "a.wav", "b.wlc", "--model", "tiny", "--max-samples", "150"], "at most 150"),
        (["encode", "text.wav", "b.wlc", "--model", "tiny"], "text.wav"),
        (["encode", "gone.wav", "b.wlc", "--model", "tiny"], "gone.wav"),
        (["decode", "a.wlc", "b.png"], ".wav, .flac"),
        (["decode", "a.wlc", "b.mp3"], ".wav, .flac"),
        (["decode", "a.wlc", "no/b.wav"], "no/b.wav"),
    ):
        capsys.readouterr()
        assert cli.main(arguments) == 3, arguments
        complaints = capsys.readouterr().err
        assert complaint in complaints
        assert complaints.count("\n") == 1
    assert not list(folder.glob("b.*"))
    assert not list(folder.glob(".*"))


# Loudspeakers and sound fields


MASKS = {4: 0x33, 6: 0x3F, 8: 0x63F, 16: 0}


@pytest.mark.parametrize("channels", [1, 2, *MASKS])
@pytest.mark.parametrize("sample_format", ["u8", "s16", "s24", "f32"])
@pytest.mark.parametrize(("mask", "ambisonic"), [(0x3F, None), (0, None), (0, True), (None, None)])
def test_channel_masks_come_back(channels, sample_format, mask, ambisonic):
    samples = music(100, channels, sample_format)
    out = io.BytesIO()
    audio_files.write_audio(out, audio_files.AudioSamples(samples, 48000, sample_format, mask, ambisonic), "a.wav")
    found = audio_files.read_audio(out, "a.wav")
    assert found.sample_format == sample_format
    assert np.array_equal(found.samples, samples)
    unknown = 0 if channels > 2 else None  # for more than two, WAV has no header without a mask
    assert (found.channel_mask, found.ambisonic) == (unknown if mask is None else mask, ambisonic)
    info = soundfile.info(io.BytesIO(out.getvalue()))
    assert (info.channels, info.samplerate) == (channels, 48000)
    data = out.getvalue()
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


@pytest.mark.parametrize("channels", MASKS)
def test_channel_masks_travel_in_the_stream(tmp_path, monkeypatch, capsys, channels):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(
        save(tiny_model("Codec1D", channels=channels, latent_dim=channels * 2, Nd=32))
    )
    samples = music(5000, channels)
    with open("a.wav", "wb+") as file:
        audio_files.write_audio(file, audio_files.AudioSamples(samples, 48000, "s16", MASKS[channels]), "a.wav")
    assert cli.main(["encode", "a.wav", "a.wlc", "--model", "m.safetensors"]) == 0
    assert cli.main(["decode", "a.wlc", "b.wav", "--model", "m.safetensors"]) == 0
    with open("b.wav", "rb") as file:
        assert audio_files.read_audio(file, "b.wav").channel_mask == MASKS[channels]
    capsys.readouterr()
    assert cli.main(["info", "a.wlc"]) == 0
    assert f"channel mask    {MASKS[channels]:#x}" in capsys.readouterr().out
    assert cli.main(["encode", "a.wav", "c.wlc", "--model", "m.safetensors", "--no-geometry"]) == 0
    assert walloc_ref.info((tmp_path / "c.wlc").read_bytes()).metadata_bytes == 0
    if channels <= 8:
        assert cli.main(["decode", "a.wlc", "b.flac", "--model", "m.safetensors"]) == 0
        assert "b.flac: has no place for what belongs to the samples: channel_mask" in capsys.readouterr().err


def test_format_chunks_of_chance():
    out = io.BytesIO()
    audio_files.write_audio(out, audio_files.AudioSamples(music(50, 4), 48000, "s16", 0x33), "a.wav")
    whole = out.getvalue()
    for seed in range(200):
        random = np.random.default_rng(seed)
        broken = bytearray(whole)
        for place in random.integers(0, 80, 2):
            broken[place] = random.integers(256)
        with contextlib.suppress(UnreadableFile, LimitExceeded):
            found = audio_files.read_audio(io.BytesIO(broken), "a.wav")
            assert found.channel_mask is None or 0 <= found.channel_mask < 1 << 32


def ogg(subtype="VORBIS", frames=60000):
    out = io.BytesIO()
    soundfile.write(out, music(frames), 48000, format="OGG", subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_damage_that_libogg_skips_is_refused(subtype):
    whole = ogg(subtype)
    assert audio_files.read_audio(io.BytesIO(whole), "a.ogg").samples.shape == (60000, 2)
    pages = [at for at in range(len(whole)) if whole.startswith(b"OggS", at)]
    assert len(pages) > 3
    for seed in range(60):  # one bit anywhere
        random = np.random.default_rng(seed)
        broken = bytearray(whole)
        broken[random.integers(4, len(whole))] ^= 1 << int(random.integers(8))
        with pytest.raises(UnreadableFile, match="input.page"):
            audio_files.read_audio(io.BytesIO(broken), "a.ogg")
    start, end = pages[2], pages[3]
    for data, message in (
        (whole[:start] + whole[end:], "page 3 at byte .*; page 2 first"),  # a page is missing
        (whole[:end] + whole[start:end] + whole[end:], "page 2 at byte .*; page 3 first"),  # one is there twice
        (whole[:end] + b"noise" + whole[end:], "no page at byte"),
        (whole[:-1], "a whole page of the CRC"),
        (whole[: pages[-1]], "ends within a stream"),
        (whole + b"noise" + whole, "no page at byte"),
    ):
        with pytest.raises(UnreadableFile, match=message):
            audio_files.read_audio(io.BytesIO(data), "a.ogg")
    tagged = whole + b"TAG" + bytes(125)  # what some programs write behind it
    assert len(audio_files.read_audio(io.BytesIO(tagged), "a.ogg").samples) == 60000
