"""Codecs to compare with: WebP, JPEG, JPEG 2000, JPEG XL and AVIF through Pillow; Opus, MP3 and Vorbis through libsndfile.

Each takes samples and a setting of its quality knob to bytes of a complete file, and back. Two surprises:

1. Sizes are compared file by file, so `nearest_size` searches the setting whose file is nearest in size to a given one;
   a codec that cannot go that low or that fine gives its nearest, and both sizes are always reported.
2. Opus and MP3 know only some sampling rates. Audio at any other is resampled before it and after it, as players do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Sampling rates that Opus knows, Hz."""

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sampling rates that MP3 knows, Hz."""

MAX_DELAY = 4096
"""Frames by which an audio codec's output may be late or early."""


class OtherCodec(Protocol):
    """What every codec to compare with can do."""

    @property
    def name(self) -> str:
        """Its name, as on the command line."""

    @property
    def settings(self) -> tuple[float, ...]:
        """Settings that are searched for a size, in the order of rising size."""

    @property
    def curve(self) -> tuple[float, ...]:
        """Settings of the points of its rate-distortion curve."""

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""

    def encode(self, samples: NDArray, rate: int | None, setting: float) -> bytes:
        """Samples to a file."""

    def decode(self, data: bytes, samples: NDArray, rate: int | None) -> NDArray:
        """A file to samples; images in the shape of the original `samples`, audio still to be `aligned`."""


@dataclass(frozen=True)
class ImageCodec:
    """A format that Pillow writes, with its quality from 0 to 100."""

    name: str
    format: str
    curve: tuple[float, ...]
    step: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[float, ...]:
        """All qualities from 0 to 100 in steps that the format tells apart."""
        return tuple(i * self.step for i in range(int(100 / self.step) + 1))

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        from PIL import Image

        if self.format == "JXL":
            try:
                import pillow_jxl  # noqa: F401 - registers the format
            except ImportError:
                return "JPEG XL needs the package pillow-jxl-plugin"
        Image.init()
        return None if self.format in Image.SAVE else f"this Pillow cannot write {self.format}"

    def encode(self, samples: NDArray, rate: int | None, setting: float) -> bytes:
        """uint8 (H, W) or (H, W, 3) to a file."""
        from PIL import Image

        out = io.BytesIO()
        quality = setting if self.step % 1 else int(setting)
        Image.fromarray(samples).save(out, self.format, quality=quality, **self.options)
        return out.getvalue()

    def decode(self, data: bytes, samples: NDArray, rate: int | None) -> NDArray:
        """A file to uint8 of the shape of `samples`."""
        return _opened(data, samples)


@dataclass(frozen=True)
class Jpeg2000Codec:
    """JPEG 2000 as Pillow writes it with OpenJPEG: irreversible, one layer, the setting is the reciprocal of the ratio.

    Files are code streams without the boxes of a .jp2, which would add about 80 bytes.
    """

    name: str = "jpeg2000"

    @property
    def settings(self) -> tuple[float, ...]:
        """Reciprocals of ratios, smallest file first, 2.5 % apart."""
        return tuple(1 / 500 * 1.025**i for i in range(220))

    @property
    def curve(self) -> tuple[float, ...]:
        """Settings from 320:1 to 8:1."""
        return tuple(1 / ratio for ratio in (320, 205, 130, 84, 54, 34, 22, 14, 9))

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        from PIL import features

        return None if features.check("jpg_2000") else "this Pillow cannot write JPEG 2000"

    def encode(self, samples: NDArray, rate: int | None, setting: float) -> bytes:
        """uint8 (H, W) or (H, W, 3) to a file."""
        from PIL import Image

        out = io.BytesIO()
        how = {"quality_mode": "rates", "quality_layers": [1 / setting], "irreversible": True, "no_jp2": True}
        Image.fromarray(samples).save(out, "JPEG2000", mct=int(samples.ndim == 3), **how)
        return out.getvalue()

    def decode(self, data: bytes, samples: NDArray, rate: int | None) -> NDArray:
        """A file to uint8 of the shape of `samples`."""
        return _opened(data, samples)


def _opened(data: bytes, samples: NDArray) -> NDArray:
    """A file that Pillow reads, as uint8 of the shape of `samples`."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L" if samples.ndim == 2 else "RGB"))


@dataclass(frozen=True)
class AudioCodec:
    """A format that libsndfile writes, with its compression level from 1 (smallest) to 0."""

    name: str
    format: str
    subtype: str
    rates: tuple[int, ...] = ()
    coarsest: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[float, ...]:
        """Compression levels, smallest file first."""
        return tuple(self.coarsest * (1 - i / 256) for i in range(257))

    @property
    def curve(self) -> tuple[float, ...]:
        """Levels at which the rate of Opus about doubles."""
        levels = (1.0, 0.98, 0.945, 0.87, 0.72, 0.43, 0.0)
        return tuple(self.coarsest * level for level in levels)

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        import soundfile

        if self.subtype in soundfile.available_subtypes(self.format):
            return None
        return f"this libsndfile ({soundfile.__libsndfile_version__}) cannot write {self.name}"

    def encode(self, samples: NDArray, rate: int | None, setting: float) -> bytes:
        """Samples (frames, channels), float64 in [-1, 1], to a file."""
        assert rate is not None
        return self._written(samples, rate, self._coded_rate(rate), setting, self.options)

    def _written(self, samples: NDArray, rate: int, coded_rate: int, level: float, how: Mapping[str, Any]) -> bytes:
        """A file of the samples at another sampling rate and this compression level."""
        import soundfile

        out = io.BytesIO()
        audio = np.clip(_resample(samples, rate, coded_rate), -1, 1)
        soundfile.write(
            out, audio, coded_rate, format=self.format, subtype=self.subtype, compression_level=level, **how
        )
        return out.getvalue()

    def decode(self, data: bytes, samples: NDArray, rate: int | None) -> NDArray:
        """A file to float64 (frames, channels), late or early and long or short as the format leaves it."""
        import soundfile

        assert rate is not None
        audio, coded_rate = soundfile.read(io.BytesIO(data), always_2d=True)
        return _resample(audio, coded_rate, rate)

    def _coded_rate(self, rate: int) -> int:
        """The rate at which audio of this rate is coded."""
        if not self.rates or rate in self.rates:
            return rate
        return min((r for r in self.rates if r >= rate), default=max(self.rates))


@dataclass(frozen=True)
class Mp3Codec(AudioCodec):
    """MP3 as LAME writes it through libsndfile, down to 8 kb/s a stereo stream.

    At its full sampling rate it cannot go below 32 kb/s, and up to 140 kb/s half the rate has less squared error (on eight
    tracks of music). A setting is therefore ``mode + level``: mode 0 is variable bit rate at the rate of the audio, 2
    variable at half of it, 4 a given mean bit rate at half of it; level from 0 to 0.99, larger is smaller. Sizes rise
    within a mode, and nearly so from one to the next.
    """

    name: str = "mp3"
    format: str = "MP3"
    subtype: str = "MPEG_LAYER_III"

    @property
    def settings(self) -> tuple[float, ...]:
        """Settings, smallest file first."""
        ranges = ((4, 99, 82, 0.25), (2, 98, 5, 0.5), (0, 40, 0, 0.5))
        return tuple(
            mode + (most - i * by) / 100
            for mode, most, least, by in ranges
            for i in range(int((most - least) / by) + 1)
        )

    @property
    def curve(self) -> tuple[float, ...]:
        """From about 90:1 to 8:1."""
        return (4.95, 4.9, 4.86, 4.82, 2.98, 2.9, 2.8, 2.65, 2.5, 2.35, 2.2, 2.05, 0.3)

    def encode(self, samples: NDArray, rate: int | None, setting: float) -> bytes:
        """Samples (frames, channels), float64 in [-1, 1], to a file."""
        assert rate is not None
        mode = int(setting)
        how = {"bitrate_mode": "AVERAGE" if mode == 4 else "VARIABLE"}
        return self._written(samples, rate, self._mp3_rate(rate, mode), setting - mode, how)

    @staticmethod
    def _mp3_rate(rate: int, mode: int) -> int:
        """The sampling rate, of those that MP3 knows, nearest to the wanted one."""
        return min(MP3_RATES, key=lambda known: abs(known - (rate if mode == 0 else rate // 2)))


OTHER_CODECS: Mapping[str, Mapping[str, OtherCodec]] = {
    "image": {
        "webp": ImageCodec("webp", "WEBP", (0, 1, 2, 4, 6, 9, 13, 18, 25, 35, 50, 65, 80, 90), step=0.5),
        "jpeg": ImageCodec("jpeg", "JPEG", (4, 6, 9, 14, 22, 35, 55, 75, 90), options={"optimize": True}),
        "jpeg2000": Jpeg2000Codec(),
        "jxl": ImageCodec("jxl", "JXL", (0, 8, 18, 30, 45, 60, 75, 88)),
        "avif": ImageCodec("avif", "AVIF", (0, 8, 17, 28, 40, 54, 68, 82)),
    },
    "audio": {
        "opus": AudioCodec("opus", "OGG", "OPUS", OPUS_RATES),
        "mp3": Mp3Codec(),
        "vorbis": AudioCodec("vorbis", "OGG", "VORBIS"),
    },
}
"""Codecs to compare with, by kind and by their name on the command line."""


def find(kind: str, name: str) -> OtherCodec:
    """The codec of this name for this kind of samples.

    Raises
    ------
    BadSamples
        No such codec.
    """
    codecs = OTHER_CODECS[kind]
    if name not in codecs:
        raise BadSamples("against", name, f"for {kind} one of " + ", ".join(codecs))
    return codecs[name]


def nearest_size(
    encode: Callable[[float], bytes], settings: tuple[float, ...], wanted: int, known: dict[float, int] | None = None
) -> tuple[float, bytes]:
    """Search the setting whose file is nearest in size, by bisection.

    Parameters
    ----------
    encode : callable
        A setting to a file.
    settings : tuple
        Settings in the order of rising size.
    wanted : int
        Bytes.
    known : dict, optional
        Sizes of settings that were tried before; new ones are added.

    Returns
    -------
    setting : float
    data : bytes
        Its file.
    """
    sizes = {} if known is None else known

    def size(index: int) -> int:
        setting = settings[index]
        if setting not in sizes:
            sizes[setting] = len(encode(setting))
        return sizes[setting]

    low, high = 0, len(settings) - 1
    for index, setting in enumerate(settings):  # what is known narrows the search
        if setting in sizes:
            if sizes[setting] <= wanted:
                low = max(low, index)
            else:
                high = min(high, index)
    while high - low > 1:
        middle = (low + high) // 2
        if size(middle) <= wanted:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda index: abs(size(index) - wanted))
    return settings[best], encode(settings[best])


def _resample(audio: NDArray[np.float64], rate: int, to: int) -> NDArray[np.float64]:
    """Polyphase resampling of (frames, channels)."""
    if rate == to:
        return audio
    from scipy.signal import resample_poly

    common = math.gcd(rate, to)
    return resample_poly(audio, to // common, rate // common, axis=0, window=("kaiser", 12.0))


def aligned(audio: NDArray[np.float64], original: NDArray[np.float64]) -> NDArray[np.float64]:
    """`audio` shifted by the delay of largest correlation, cut or filled with zeros to the frames of `original`."""
    from scipy.signal import correlate

    frames = min(len(original), len(audio), 1 << 19)
    delay = 0
    if frames > 2 * MAX_DELAY:
        mono, other = original[:frames].mean(axis=1), audio[:frames].mean(axis=1)
        correlation = correlate(other, mono, method="fft")  # lag of entry i: i - (frames - 1)
        around = correlation[frames - 1 - MAX_DELAY : frames + MAX_DELAY]
        delay = int(np.argmax(around)) - MAX_DELAY if around.any() else 0
    audio = audio[delay:] if delay >= 0 else np.pad(audio, ((-delay, 0), (0, 0)))
    missing = max(0, len(original) - len(audio))
    return np.pad(audio[: len(original)], ((0, missing), (0, 0)))
