"""The codec: signal → symbols → slices → stream, and back.

`Codec` is a thin façade over one model. What differs between images and audio lives in `image_codec` and `audio_codec`;
here both are cut into slices, coded, hashed and put into the container.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from walloc_ref import model as models
from walloc_ref.errors import BadSamples, HashMismatch, LimitExceeded, MalformedStream, UnknownModel
from walloc_ref.fast.workers import Progress, compiled, for_each
from walloc_ref.model import Config, Model
from walloc_ref.stages import container, entropy, quantise
from walloc_ref.stages.container import MAX_SAMPLES, MODEL_ID_BYTES, Header, Stream

if TYPE_CHECKING:
    from walloc_ref.audio_codec import AudioPipeline
    from walloc_ref.image_codec import ImagePipeline

DEFAULT_RATE = 44100
"""Samples a second of symbols that come without a rate."""

PADDED_FACTOR, PADDED_SAMPLES = 4, 1 << 20
"""What is decoded, padding and all of the model's channels included, has at most four times the samples that are accepted,
or this many. Only images a few samples wide come near: there a row of latents would cost 2^J times what it shows."""

SLICE_SYMBOLS = 1 << 18
"""Symbols that a slice should have, so that large images have slices for every thread (SPEC.md 10.8)."""

SLICE_ROWS = 32
"""Latent rows that a slice has at least: what a slice costs depends on its rows, and from 32 on it is below 1 %."""


@dataclass(frozen=True, eq=False)
class Codec:
    """Encoder and decoder of one model.

    Parameters
    ----------
    model : Model
        As `walloc_ref.load_model` reads it.
    """

    model: Model

    @property
    def config(self) -> Config:
        """The model's configuration."""
        return self.model.config

    @property
    def model_id(self) -> str:
        """The model's identity, a hexadecimal SHA-256."""
        return self.model.model_id

    @property
    def name(self) -> str:
        """The model's name, for people."""
        return self.model.name

    @cached_property
    def pipeline(self) -> ImagePipeline | AudioPipeline:
        """The stages for this kind of model."""
        if self.config.kind == "audio":
            from walloc_ref.audio_codec import AudioPipeline

            return AudioPipeline(self.model)
        from walloc_ref.image_codec import ImagePipeline

        return ImagePipeline(self.model)

    def analyse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Wavelet packet analysis.

        Parameters
        ----------
        x : float64, shape (C, H, W) or (C, L), sizes multiples of 2^J

        Returns
        -------
        float64, shape (C·4^J, H/2^J, W/2^J) or (C·2^J, L/2^J)

        Raises
        ------
        BadSamples
            Wrong axes or channels, or a size that is no multiple of 2^J.
        """
        x = self._checked_signal(x)
        if any(n % self.config.multiple for n in x.shape[1:]):
            raise BadSamples("signal.shape", x.shape, f"sizes that are multiples of {self.config.multiple}")
        return self.pipeline.analyse(x)

    def synthesise(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
        """Wavelet packet synthesis, the inverse of `analyse`: the signal, not clamped."""
        bands = np.asarray(X, dtype=np.float64)
        if bands.ndim != self.config.axes + 1 or bands.shape[0] != self.config.bands or bands.size == 0:
            raise BadSamples(
                "subbands.shape", bands.shape, f"({self.config.bands}, …) with {self.config.axes} more axes"
            )
        return self.pipeline.synthesise(bands)

    def to_symbols(self, x: NDArray[np.float64]) -> NDArray[np.int16]:
        """Encode a signal up to the quantiser.

        Parameters
        ----------
        x : float64, shape (C, H, W) or (C, L), any size, values in [-0.5, 0.5]

        Returns
        -------
        int16, shape (planes, h, w) or (planes, l)

        Raises
        ------
        BadSamples
            Wrong shape, values out of range, NaN or infinity.
        """
        x = self._checked_signal(x)
        if not np.isfinite(x).all():
            raise BadSamples("signal", "NaN or infinity", "finite numbers")
        if np.abs(x).max() > 0.5:
            raise BadSamples("signal", f"values up to {np.abs(x).max():g}", "-0.5 to 0.5")
        return self.pipeline.to_symbols(x)

    def from_symbols(self, symbols: NDArray[np.int16], shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
        """Decode symbols to the clamped signal.

        Parameters
        ----------
        symbols : integer, shape (planes, h, w) or (planes, l)
        shape : tuple, optional
            Shape of the signal that was encoded, (C, H, W) or (C, L); else the result keeps its padding.

        Returns
        -------
        float64, shape (C, H, W) or (C, L), values in [-0.5, 0.5]
        """
        symbols = np.asarray(symbols)
        wanted = None
        if shape is not None:
            if len(shape) != self.config.axes + 1 or shape[0] != self.config.channels or min(shape) < 1:
                raise BadSamples("shape", shape, f"({self.config.channels}, …) with {self.config.axes} more axes")
            wanted = (self.config.planes, *self.pipeline.latent_sizes(tuple(shape[1:])))
        if (
            symbols.ndim != self.config.axes + 1
            or symbols.shape[0] != self.config.planes
            or symbols.size == 0
            or (wanted is not None and symbols.shape != wanted)
            or not np.issubdtype(symbols.dtype, np.integer)
        ):
            limit = wanted or f"({self.config.planes}, …) with {self.config.axes} more axes"
            raise BadSamples("symbols", f"{symbols.dtype} {symbols.shape}", f"integers of shape {limit}")
        return self.pipeline.from_symbols(symbols, shape)

    def encode(
        self,
        samples: NDArray,
        rate: int | None = None,
        *,
        sample_format: str | None = None,
        certify: bool = False,
        icc_profile: bytes | None = None,
        exif: bytes | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Encode samples to a stream.

        Parameters
        ----------
        samples : array
            uint8 or uint16, shape (H, W) or (H, W, C); or audio, shape (frames,) or (frames, channels).
        rate : int, optional
            Samples a second (audio; 44100 if not given).
        sample_format : str, optional
            One of `container.SAMPLE_FORMATS`; told by the dtype if not given. (24-bit audio comes as int32.)
        certify : bool
            Decode at once, and add the hash of the samples that every conforming decoder will produce.
        icc_profile, exif : bytes, optional
            Carried through as they are.
        progress : callable, optional
            Is told the share of the work that is done.

        Raises
        ------
        BadSamples
            Samples of a shape, type or number of channels that the model does not take.
        """
        samples, header = self.pipeline.describe(np.asarray(samples), rate, sample_format)
        if certify and header.sample_format in ("f32", "f64"):
            raise BadSamples("certify", header.sample_format, "a sample format of integers; floats are not exact")
        symbols = self.pipeline.samples_to_symbols(samples, header, progress)
        stream = replace(self._coded(symbols, header), icc_profile=icc_profile, exif=exif)
        if certify:
            decoded, uncertain = self.pipeline.symbols_to_samples(symbols, header, progress)
            stream = replace(stream, certificate=container.certify(decoded, uncertain))
        return container.write(stream)

    def encode_symbols(
        self, symbols: NDArray[np.integer], sizes: tuple[int, ...] | None = None, rate: int | None = None
    ) -> bytes:
        """Symbols that were made elsewhere to a stream, of images of 8 bits or audio of 16 bits.

        Parameters
        ----------
        symbols : integer, shape (planes, h, w) or (planes, l)
        sizes : tuple of int, optional
            (height, width) or (frames,) of the signal; the padded ones if not given.
        rate : int, optional
            Samples a second (audio; 44100 if not given). Mean and gain are not known: 0 and 1 keep the signal's scale.

        Raises
        ------
        BadSamples
            Symbols of a shape or range that the model does not have, or sizes that do not go with them.
        """
        symbols, header = self._foreign(symbols, sizes, rate)
        return container.write(self._coded(symbols, header))

    def samples_of_symbols(self, symbols: NDArray[np.integer], sizes: tuple[int, ...] | None = None) -> NDArray:
        """Symbols that were made elsewhere to samples, uint8 (H, W) or (H, W, C), or int16 (frames, channels).

        Parameters and errors as in `encode_symbols`.
        """
        symbols, header = self._foreign(symbols, sizes, None)
        samples, _ = self.pipeline.symbols_to_samples(symbols, header)
        return samples[:, :, 0] if samples.ndim == 3 and samples.shape[2] == 1 else samples

    def _foreign(
        self, symbols: NDArray[np.integer], sizes: tuple[int, ...] | None, rate: int | None
    ) -> tuple[NDArray[np.int16], Header]:
        """Symbols that were made elsewhere, checked, and a header for them."""
        symbols, audio = np.asarray(symbols), self.config.kind == "audio"
        border = 2 if audio else 0
        whole = symbols.ndim == self.config.axes + 1 and symbols.shape[0] == self.config.planes
        if not whole or min(symbols.shape[1:]) <= border:
            limit = f"({self.config.planes}, …) with {self.config.axes} more axes, no size {border} or less"
            raise BadSamples("symbols.shape", symbols.shape, limit)
        last = quantise.last_symbol(self.config.latent_bits)
        if not np.issubdtype(symbols.dtype, np.integer) or symbols.min() < -last or symbols.max() > last:
            found = f"{symbols.dtype}, {symbols.min()} to {symbols.max()}"
            raise BadSamples("symbols", found, f"integers from {-last} to {last}")
        if sizes is None:
            sizes = tuple((n - border) * self.config.multiple for n in symbols.shape[1:])
        if len(sizes) != self.config.axes or min(sizes) < 1 or self.pipeline.latent_sizes(sizes) != symbols.shape[1:]:
            limit = f"sizes that give {symbols.shape[1:]} latent positions of {self.config.multiple} samples"
            raise BadSamples("sizes", sizes, limit)
        rate = DEFAULT_RATE if rate is None else rate
        if not 1 <= rate <= container.MAX_RATE:
            raise BadSamples("rate", rate, f"1 to {container.MAX_RATE}")
        header = Header(
            kind=self.config.kind,
            sample_format="s16" if audio else "u8",
            channels=self.config.channels,
            sizes=tuple(sizes),
            model_id=b"",
            J=self.config.J,
            latent_dim=self.config.planes,
            latent_bits=self.config.latent_bits,
            slice_size=1,
            symbol_hash=b"",
            rate=rate if audio else 0,
        )
        return symbols.astype(np.int16), header

    def _coded(self, symbols: NDArray[np.int16], header: Header) -> Stream:
        """Symbols cut into slices and coded, and the header completed."""
        rows = max(SLICE_ROWS, SLICE_SYMBOLS // (self.config.planes * int(np.prod(symbols.shape[2:]))))
        header = replace(
            header,
            model_id=bytes.fromhex(self.model_id)[:MODEL_ID_BYTES],
            slice_size=min(rows, symbols.shape[1]),
            symbol_hash=container.symbol_hash(symbols),
        )
        bounds = [header.slice_bounds(i) for i in range(header.slice_count)]
        slices = for_each(lambda span: _encode_slice(symbols[:, span[0] : span[1]], self.model.tables), bounds)
        return Stream(header, tuple(slices))

    def _checked_signal(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """A signal in binary64, or an error that says what its shape should be."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != self.config.axes + 1 or x.shape[0] != self.config.channels or x.size == 0:
            sizes = "L" if self.config.kind == "audio" else "H, W"
            raise BadSamples("signal.shape", x.shape, f"({self.config.channels}, {sizes}), no size 0")
        return x


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded stream and what was verified about it.

    Attributes
    ----------
    samples : array
        In the layout and dtype that was encoded; images of one channel are (H, W).
    header : Header
    model : str
        Name of the model.
    certified : bool
        Whether the stream carried a certified hash of the samples, and it was verified.
    damaged : tuple of int
        Slices that were filled with zeros (only with `keep_going`; then nothing is verified).
    icc_profile, exif : bytes or None
        Metadata that travelled with an image.
    """

    samples: NDArray
    header: Header
    model: str
    certified: bool
    damaged: tuple[int, ...]
    icc_profile: bytes | None = None
    exif: bytes | None = None


@dataclass(frozen=True)
class Info(Header):
    """A stream's header, and figures that need no decoding.

    Attributes
    ----------
    stream_bytes, slices : int
        Length of the stream; number of slices.
    certified : bool
        Whether a certified hash of the samples travels along.
    icc_profile_bytes, exif_bytes : int
        Length of the metadata, 0 where there is none.
    """

    stream_bytes: int = 0
    slices: int = 0
    certified: bool = False
    icc_profile_bytes: int = 0
    exif_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Bytes of the samples over bytes of the stream."""
        bits = {"u8": 8, "u16": 16, "s16": 16, "s24": 24, "s32": 32, "f32": 32, "f64": 64}
        return self.samples * bits[self.sample_format] / 8 / self.stream_bytes

    @property
    def bits_per_sample(self) -> float:
        """Bits of the stream for each pixel (all its channels), or for each sample of each audio channel."""
        places = self.samples if self.kind == "audio" else self.samples // self.channels
        return 8 * self.stream_bytes / places


def load_model(name: str | os.PathLike[str]) -> Codec:
    """The codec of a bundled model, or of a weights file.

    Parameters
    ----------
    name : str or path
        A name that `walloc-ref models` lists, or the path of a `.safetensors` file.

    Raises
    ------
    UnknownModel, MalformedModel
    """
    return Codec(models.find(name))


def info(data: bytes) -> Info:
    """Read a stream's header without decoding.

    Raises
    ------
    MalformedStream, UnsupportedStream
    """
    stream = container.read(data, max_samples=2**62, keep_going=True)
    return Info(
        **asdict(stream.header),
        stream_bytes=len(data),
        slices=len(stream.slices),
        certified=stream.certificate is not None,
        icc_profile_bytes=len(stream.icc_profile or b""),
        exif_bytes=len(stream.exif or b""),
    )


def decode(
    data: bytes, *, codec: Codec | None = None, max_samples: int = MAX_SAMPLES, progress: Progress | None = None
) -> NDArray:
    """Decode a stream to samples, verifying every hash in it.

    Parameters
    ----------
    data : bytes
    codec : Codec, optional
        The codec to decode with; else the model is found by the identity in the stream.
    max_samples : int
        Largest number of samples that is accepted.

    Returns
    -------
    array
        uint8 or uint16 (H, W) or (H, W, C); or audio (frames, channels).

    Raises
    ------
    WallocError
        One of its classes, see `walloc_ref.errors`; nothing is returned that was not verified.
    """
    return decode_stream(data, codec=codec, max_samples=max_samples, progress=progress).samples


def decode_stream(
    data: bytes,
    *,
    codec: Codec | None = None,
    max_samples: int = MAX_SAMPLES,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode a stream, and say what was verified.

    Parameters as in `decode`; with `keep_going`, damaged slices are filled with zeros and named in the result.
    """
    stream = container.read(data, max_samples=max_samples, keep_going=keep_going)
    header = stream.header
    codec = codec or Codec(models.find_by_id(header.model_id))
    symbols, damaged = _decode_slices(stream, codec, max_samples, keep_going)
    if not damaged and container.symbol_hash(symbols) != header.symbol_hash:
        found = container.symbol_hash(symbols).hex()
        raise HashMismatch("HEAD.symbol_hash", found, f"{header.symbol_hash.hex()}, as recorded in the stream")
    samples, _ = codec.pipeline.symbols_to_samples(symbols, header, progress)
    certified = stream.certificate is not None and not damaged
    if certified:
        assert stream.certificate is not None
        digest = container.certify(samples, stream.certificate.uncertain).sample_hash
        if digest != stream.certificate.sample_hash:
            recorded = stream.certificate.sample_hash.hex()
            raise HashMismatch("CERTIFICATE.hash", digest.hex(), f"{recorded}, as recorded in the stream")
    if header.kind == "image" and header.channels == 1:
        samples = samples[:, :, 0]
    return Decoded(samples, header, codec.name, certified, damaged, stream.icc_profile, stream.exif)


def decode_symbols(data: bytes, *, codec: Codec | None = None, max_samples: int = MAX_SAMPLES) -> NDArray[np.int16]:
    """The verified symbols of a stream: int16, shape (planes, h, w) or (planes, l)."""
    stream = container.read(data, max_samples=max_samples)
    codec = codec or Codec(models.find_by_id(stream.header.model_id))
    symbols, _ = _decode_slices(stream, codec, max_samples, keep_going=False)
    if container.symbol_hash(symbols) != stream.header.symbol_hash:
        found = container.symbol_hash(symbols).hex()
        raise HashMismatch("HEAD.symbol_hash", found, f"{stream.header.symbol_hash.hex()}, as recorded in the stream")
    return symbols


def _decode_slices(
    stream: Stream, codec: Codec, max_samples: int, keep_going: bool
) -> tuple[NDArray[np.int16], tuple[int, ...]]:
    """All symbols of a stream, and the numbers of the slices that could not be decoded."""
    header, config = stream.header, codec.config
    if not bytes.fromhex(codec.model_id).startswith(header.model_id):
        raise UnknownModel("model identity", codec.model_id, f"{header.model_id.hex()}…, the model of the stream")
    for name, found, wanted in (
        ("HEAD.kind", header.kind, config.kind),
        ("HEAD.J", header.J, config.J),
        ("HEAD.latent_dim", header.latent_dim, config.planes),
        ("HEAD.latent_bits", header.latent_bits, config.latent_bits),
    ):
        if found != wanted:
            raise MalformedStream(name, found, f"{wanted}, as in the model {codec.name}")
    codec.pipeline.check_channels(header.channels)
    padded = config.bands * math.prod(header.latent_sizes)
    limit = max(PADDED_SAMPLES, PADDED_FACTOR * max_samples)
    if padded > limit:
        sizes = "x".join(map(str, header.sizes))
        raise LimitExceeded(
            "HEAD.sizes", f"{sizes}, with padding {padded} samples", f"at most {limit}; see --max-samples"
        )

    def decode_slice(number: int) -> NDArray[np.int16] | None:
        first, end = header.slice_bounds(number)
        if number in stream.damaged:
            return None
        shape = (header.latent_dim, end - first, *header.latent_sizes[1:])
        try:
            return _decode_slice(stream.slices[number], shape, codec.model.tables)
        except MalformedStream as error:
            if keep_going:
                return None
            where = f"latent positions {first} to {end - 1} of {header.latent_sizes[0]}"
            raise MalformedStream(f"slice {number}, {error.field}", error.value, f"{error.limit} ({where})") from error

    parts = for_each(decode_slice, range(header.slice_count))
    damaged = tuple(number for number, part in enumerate(parts) if part is None)
    if not damaged:
        return np.concatenate([part for part in parts if part is not None], axis=1), ()
    symbols = np.zeros((header.latent_dim, *header.latent_sizes), dtype=np.int16)
    for number, part in enumerate(parts):
        if part is not None:
            first, end = header.slice_bounds(number)
            symbols[:, first:end] = part
    return symbols, damaged


def _encode_slice(symbols: NDArray[np.int16], tables: entropy.Tables) -> bytes:
    """One slice to bytes; audio symbols (D, l) are coded as (D, 1, l)."""
    if symbols.ndim == 2:
        symbols = symbols[:, None]
    if compiled():
        from walloc_ref.fast import entropy as kernel

        return kernel.encode(symbols, tables)
    return entropy.encode(symbols, tables)


def _decode_slice(data: bytes, shape: tuple[int, ...], tables: entropy.Tables) -> NDArray[np.int16]:
    """The inverse of `_encode_slice`."""
    planes = shape if len(shape) == 3 else (shape[0], 1, shape[1])
    if compiled():
        from walloc_ref.fast import entropy as kernel

        return kernel.decode(data, planes, tables).reshape(shape)
    return entropy.decode(data, planes, tables).reshape(shape)
