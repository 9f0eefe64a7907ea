"""The codec: samples → symbols → slices → stream, and back.

`Codec` is a thin façade over one model. How samples become symbols stands in `image.py`, `audio.py` and `volume.py`; here
symbols are cut into slices, coded, hashed and put into the container.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import audio, exactness, plain
from walloc_ref import model as models
from walloc_ref.architecture import Samples, Signal, Subbands, Symbols
from walloc_ref.errors import BadSamples, HashMismatch, LimitExceeded, MalformedStream, UnknownModel
from walloc_ref.model import Config, Model
from walloc_ref.stages import container, entropy, quantise
from walloc_ref.stages.container import MAX_SAMPLES, MODEL_ID_BYTES, Coding, Header, Layout, Stream
from walloc_ref.stages.signal import SIGNAL_LIMIT

Progress = Callable[[float], None]
"""A callback with the share of the work that is done, rising to 1."""

KINDS = plain.KINDS
"""The plain codec of each kind of signal."""

PADDED_SHARE = 1 << 8
"""Padding, and all of the model's channels, included, an image has at most four times its samples and a volume eight times,
or a 256th of the samples that are accepted (2^22 by default) where that is more. Only those a sample or two wide come near:
there a row of latents costs 2^J times what it shows."""

POSITIONS_SHARE = 1 << 13
"""A network sees at most as many latent positions at once as there are samples accepted over this: 2^17 by default."""

ZERO_SYMBOLS = 1 << 20
"""Symbols that may take the place of damaged slices, however few bytes are left."""

SLICE_SYMBOLS = 1 << 18
"""Symbols that a slice should have, so that large images have slices for every thread (SPEC.md 10.8)."""

SLICE_ROWS = 32
"""Latent rows that a slice has at least: what a slice costs depends on its rows, and from 32 on it is below 1 %."""

SLICE_DEPTH = 16
"""Depth positions that a slice of a volume has at least: the first one has none before it to be predicted from."""

WINDOW, CONTEXT = 64, 8
"""Latent positions of a window of the networks, and of its context, where an encoder is told nothing."""

WHOLE_POSITIONS = 1 << 13
"""Latent positions up to which an image goes through its networks whole, where an encoder is told nothing."""


@dataclass(frozen=True, eq=False)
class Codec:
    """Encoder and decoder of one model.

    Parameters
    ----------
    model : Model
        As `walloc_ref.load_model` reads it.
    functions : plain.Functions, optional
        The functions that it consists of; the fast ones if not given, unless `NUMBA_DISABLE_JIT` is set.

    Examples
    --------
    >>> codec = load_model("linear_rgb_4x")
    >>> codec.name, codec.config.kind, codec.config.planes
    ('linear_rgb_4x', 'image', 48)
    """

    model: Model
    functions: plain.Functions | None = None

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

    @property
    def stages(self) -> plain.Functions:
        """The functions that run."""
        return self.functions or plain.chosen()

    @cached_property
    def spread(self) -> exactness.Spread:
        """How much the model amplifies rounding (SPEC.md 2.8): as its file says, or measured."""
        return exactness.Spread(*self.model.spread) if self.model.spread is not None else exactness.measure(self.model)

    # ---- signals

    def analyse(self, x: Signal) -> Subbands:
        """Wavelet packet analysis.

        Parameters
        ----------
        x : float64, shape (C, H, W), (C, L) or (C, depth, H, W), sizes multiples of 2^J

        Returns
        -------
        float64, shape (C·4^J, H/2^J, W/2^J), (C·2^J, L/2^J) or (C·8^J, …)

        Raises
        ------
        BadSamples
            Wrong axes or channels, or a size that is no multiple of 2^J.

        Examples
        --------
        >>> load_model("linear_rgb_4x").analyse(np.zeros((3, 16, 24))).shape
        (192, 2, 3)
        """
        x = self._checked_signal(x)
        if any(n % self.config.multiple for n in x.shape[1:]):
            raise BadSamples("signal.shape", x.shape, f"sizes that are multiples of {self.config.multiple}")
        return self.stages.analyse(x, self.config.J)

    def synthesise(self, X: Subbands) -> Signal:  # noqa: N803 - the field's name for it
        """Wavelet packet synthesis, the inverse of `analyse`: the signal, not clamped.

        >>> load_model("linear_rgb_4x").synthesise(np.zeros((192, 2, 3))).shape
        (3, 16, 24)
        """
        bands = np.asarray(X, dtype=np.float64)
        if bands.ndim != self.config.axes + 1 or bands.shape[0] != self.config.bands or bands.size == 0:
            raise BadSamples(
                "subbands.shape", bands.shape, f"({self.config.bands}, …) with {self.config.axes} more axes"
            )
        return self.stages.synthesise(bands, self.config.J)

    def to_symbols(self, x: Signal, *, step: float = 1.0) -> Symbols:
        """Encode a signal up to the quantiser.

        Parameters
        ----------
        x : float64, shape (C, H, W), (C, L) or (C, depth, H, W), any size, values in [-0.5, 0.5]
        step : float
            The quantiser's step relative to the model's own; see `encode`.

        Returns
        -------
        int16, shape (planes, h, w), (planes, l) or (planes, z, h, w)

        Raises
        ------
        BadSamples
            Wrong axes or channels, no samples, values out of range, NaN or infinity.

        Examples
        --------
        >>> load_model("linear_rgb_4x").to_symbols(np.full((3, 10, 20), 0.25)).shape  # padded
        (48, 2, 3)
        """
        x, coding = self._checked_signal(x), self.coding(step=step)
        if not np.isfinite(x).all():
            raise BadSamples("signal", "NaN or infinity", "finite numbers")
        if np.abs(x).max() > SIGNAL_LIMIT:
            raise BadSamples("signal", f"values up to {np.abs(x).max():g}", f"{-SIGNAL_LIMIT} to {SIGNAL_LIMIT}")
        return self.stages.signal_to_symbols[self.config.kind](x, coding, self.model, self.stages)

    def from_symbols(
        self, symbols: NDArray[np.integer], shape: tuple[int, ...] | None = None, *, step: float = 1.0
    ) -> Signal:
        """Decode symbols to the signal, clamped to [-0.5, 0.5].

        Parameters
        ----------
        symbols : integer, shape (planes, h, w), (planes, l) or (planes, z, h, w)
        shape : tuple of int, optional
            (C, H, W), (C, L) or (C, depth, H, W) of the signal that was encoded; without it the padded signal is returned.
        step : float
            As in `to_symbols`.

        Returns
        -------
        float64, shape `shape` or (C, h·2^J, w·2^J), (C, (l - 2)·2^J) or (C, z·2^J, h·2^J, w·2^J)

        Raises
        ------
        BadSamples
            Symbols out of range or of the wrong shape, or a `shape` that does not go with them.

        Examples
        --------
        >>> load_model("linear_rgb_4x").from_symbols(np.zeros((48, 2, 3), np.int16), shape=(3, 10, 20)).shape
        (3, 10, 20)
        """
        symbols = self._checked_symbols(symbols)
        if shape is None:
            sizes = self._padded_sizes(symbols)
        else:
            sizes = tuple(shape[1:])
            if len(shape) != self.config.axes + 1 or shape[0] != self.config.channels:
                raise BadSamples("shape", shape, f"({self.config.channels}, …) with {self.config.axes} more axes")
            self._check_sizes(sizes, symbols)
        coding = self.coding(step=step)
        return self.stages.symbols_to_signal[self.config.kind](symbols, sizes, coding, self.model, self.stages)

    # ---- streams

    def encode(
        self,
        samples: Samples,
        rate: int | None = None,
        *,
        sample_format: str | None = None,
        step: float | None = None,
        quality: float | None = None,
        ratio: float | None = None,
        max_bytes: int | None = None,
        psnr: float | None = None,
        finest: float | None = None,
        window: int | None = None,
        max_samples: int = MAX_SAMPLES,
        certify: bool = False,
        icc_profile: bytes | None = None,
        exif: bytes | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Encode samples to a stream.

        Parameters
        ----------
        samples : array
            uint8, uint16, int16 or float32: images (H, W) or (H, W, C), volumes (depth, H, W) or (depth, H, W, C); or
            audio, (frames,) or (frames, channels). The channels are the model's, or one.
        rate : int, optional
            Samples a second (audio only; 44100 if not given).
        sample_format : str, optional
            One of `container.SAMPLE_FORMATS`; told by the dtype if not given. (24-bit audio comes as int32.)
        step : float, optional
            The quantiser's step relative to the model's own, 2^-10 to 2^10; larger is coarser. 1 if nothing is asked for.
        quality : float, optional
            0 to 100, about the same on every model: `rate_control.step_of_quality`.
        ratio, max_bytes, psnr : float, optional
            Bytes of the samples over bytes of the stream; bytes of the stream; decibels. The step is searched for; at most
            one of these five may be given.
        finest : float, optional
            The finest step for a quality, ratio, bytes or decibels; `rate_control.TooFine` says that they would need a
            finer one. For `max_bytes` it never does: fewer bytes are no error.
        window : int, optional
            Latent positions of a window of the networks; 0 for none. Chosen by the size of the image if not given.
        max_samples : int
            Largest number of samples that is accepted; see SPEC.md 12.6.
        certify : bool
            Decode at once, and add the hash of the samples that every conforming decoder will produce.
        icc_profile, exif : bytes, optional
            Carried through as they are.
        metadata : mapping, optional
            What belongs to the samples, as a JSON object: distances between samples, wavelengths, units. Carried through.
        progress : callable, optional
            Called with the share of the work that is done.

        Raises
        ------
        BadSamples
            Samples of a shape, type or number of channels that the model does not take; a rate that cannot be met.
        LimitExceeded
            More samples, padding or positions than are accepted.

        Examples
        --------
        >>> codec, photo = load_model("linear_rgb_4x"), np.full((16, 24, 3), 200, np.uint8)
        >>> data = codec.encode(photo)
        >>> data[1:4], decode(data).shape
        (b'WLC', (16, 24, 3))
        """
        from walloc_ref import rate_control

        beside = None if metadata is None else container.metadata_to_bytes(metadata)
        samples, layout = KINDS[self.config.kind].describe(np.asarray(samples), self.config, rate, sample_format)
        if certify and layout.sample_format in container.FLOAT_FORMATS:
            raise BadSamples("certify", layout.sample_format, "a sample format of integers; floats are not exact")
        if certify and not self.spread.samples_exact:
            found = f"{self.name}, whose decoded signals differ by 2^{self.spread.signal_bits} between machines"
            raise BadSamples("certify", found, f"a model that differs by at most 2^{exactness.SIGNAL_LIMIT_BITS}")
        layout = replace(layout, **self._window(layout.sizes, window))
        check_budget(layout, self.config, max_samples)
        goal = rate_control.Goal(step=step, quality=quality, ratio=ratio, max_bytes=max_bytes, psnr=psnr)

        def at_step(value: float) -> rate_control.Attempt:
            coding = self.coding(step=value, window=layout.window, context=layout.context)
            coded = replace(layout, **asdict(coding))
            with reporting(progress):
                symbols = self.stages.samples_to_symbols[layout.kind](samples, coded, self.model, self.stages)
            stream = replace(self.coded(symbols, coded), icc_profile=icc_profile, exif=exif, metadata=beside)
            return rate_control.Attempt(coded, symbols, stream, samples)

        attempt = rate_control.search(goal, self, layout, at_step, finest)
        stream = attempt.stream
        if certify:
            with reporting(progress):
                decode_certified = self.stages.certified_samples[layout.kind]
                decoded, uncertain = decode_certified(attempt.symbols, attempt.layout, self.model, self.stages)
            stream = replace(stream, certificate=container.certify(decoded, uncertain))
        return container.write(stream)

    def encode_symbols(
        self,
        symbols: NDArray[np.integer],
        sizes: tuple[int, ...] | None = None,
        rate: int | None = None,
        *,
        step: float = 1.0,
    ) -> bytes:
        """Symbols that were made elsewhere to a stream, of images and volumes of 8 bits or audio of 16 bits.

        Parameters
        ----------
        symbols : integer, shape (planes, h, w), (planes, l) or (planes, z, h, w)
        sizes : tuple of int, optional
            (height, width), (frames,) or (depth, height, width) of the signal; the padded ones if not given.
        rate : int, optional
            Samples a second (audio; 44100 if not given). Mean and gain are not known: 0 and 1 keep the signal's scale.
        step : float
            The step that they were quantised with, as in `encode`: step weights and windows are what that writes by itself.

        Raises
        ------
        BadSamples
            Symbols of a shape or range that the model does not have, or sizes that do not go with them.

        Examples
        --------
        >>> data = load_model("linear_rgb_4x").encode_symbols(np.zeros((48, 2, 3), np.int16), sizes=(10, 20))
        >>> decode(data).shape
        (10, 20, 3)
        """
        symbols, layout = self._foreign(symbols, sizes, rate, step)
        return container.write(self.coded(symbols, layout))

    def symbols_of_samples(
        self,
        samples: Samples,
        rate: int | None = None,
        *,
        sample_format: str | None = None,
        step: float = 1.0,
        max_samples: int = MAX_SAMPLES,
    ) -> Symbols:
        """Samples to symbols, as `encode` codes them, without a stream.

        Parameters
        ----------
        samples, rate, sample_format, step, max_samples
            As in `encode`.

        Returns
        -------
        int16, shape (planes, h, w), (planes, l) or (planes, z, h, w)

        Raises
        ------
        BadSamples, LimitExceeded

        Examples
        --------
        >>> load_model("linear_rgb_4x").symbols_of_samples(np.zeros((10, 20, 3), np.uint8)).shape
        (48, 2, 3)
        """
        samples, layout = KINDS[self.config.kind].describe(np.asarray(samples), self.config, rate, sample_format)
        coded = replace(layout, **asdict(self.coding(step=step, **self._window(layout.sizes, None))))
        check_budget(coded, self.config, max_samples)
        return self.stages.samples_to_symbols[layout.kind](samples, coded, self.model, self.stages)

    def samples_of_symbols(
        self, symbols: NDArray[np.integer], sizes: tuple[int, ...] | None = None, *, step: float = 1.0
    ) -> Samples:
        """Symbols that were made elsewhere to samples: uint8 of images and volumes, int16 of audio.

        Parameters and errors as in `encode_symbols`.

        >>> load_model("linear_rgb_4x").samples_of_symbols(np.zeros((48, 2, 3), np.int16), (10, 20)).dtype
        dtype('uint8')
        """
        symbols, layout = self._foreign(symbols, sizes, None, step)
        return squeezed(self.stages.symbols_to_samples[layout.kind](symbols, layout, self.model, self.stages))

    # ---- helpers

    def coding(self, *, step: float = 1.0, window: int = 0, context: int = 0) -> Coding:
        """How a step is coded: rounded to what the stream can say, weighted where it is coarse and the model has weights.

        Raises
        ------
        BadSamples
            A step out of range.

        Examples
        --------
        >>> load_model("linear_rgb_4x").coding(step=1.5)
        Coding(step=1.5, weighted=True, window=0, context=0)
        """
        step = float(step)
        if not container.MIN_STEP <= step <= container.MAX_STEP:  # NaN included
            raise BadSamples("step", step, f"{container.MIN_STEP} to {container.MAX_STEP:.0f}")
        step = round(step / container.STEP_UNIT) * container.STEP_UNIT
        weighted = step > 1 and self.model.step_weights is not None
        return Coding(step=step, weighted=weighted, window=window, context=context)

    def _window(self, sizes: tuple[int, ...], window: int | None) -> dict[str, int]:
        """Window and context for an image of these sizes."""
        positions = math.prod(self.config.latent_sizes(sizes))
        if not self.config.record.sees_everything:
            if window:
                raise BadSamples("window", window, f"none: no network of {self.config.architecture} sees all positions")
            return {}
        if window is None:
            window = WINDOW if positions > WHOLE_POSITIONS else 0
        if window != 0 and not container.MIN_WINDOW <= window <= container.MAX_SIZE:
            raise BadSamples("window", window, f"0 for none, or {container.MIN_WINDOW} and more")
        return {"window": window, "context": min(CONTEXT, window)}

    def _padded_sizes(self, symbols: Symbols) -> tuple[int, ...]:
        """The largest sizes of a signal that give these symbols."""
        border = container.BORDER_OF_KIND[self.config.kind]
        return tuple((n - border) * self.config.multiple for n in symbols.shape[1:])

    def _check_sizes(self, sizes: tuple[int, ...], symbols: Symbols) -> None:
        """Refuse sizes of a signal that do not give these symbols."""
        if len(sizes) != self.config.axes or min(sizes) < 1 or self.config.latent_sizes(sizes) != symbols.shape[1:]:
            limit = f"sizes that give {symbols.shape[1:]} latent positions of {self.config.multiple} samples"
            raise BadSamples("sizes", sizes, limit)

    def _checked_symbols(self, symbols: NDArray[np.integer]) -> Symbols:
        """Symbols that were made elsewhere, as int16."""
        symbols, border = np.asarray(symbols), container.BORDER_OF_KIND[self.config.kind]
        whole = symbols.ndim == self.config.axes + 1 and symbols.shape[0] == self.config.planes
        if not whole or min(symbols.shape[1:]) <= border:
            limit = f"({self.config.planes}, …) with {self.config.axes} more axes, no size {border} or less"
            raise BadSamples("symbols.shape", symbols.shape, limit)
        last = quantise.last_symbol(self.config.latent_bits)
        if not np.issubdtype(symbols.dtype, np.integer) or symbols.min() < -last or symbols.max() > last:
            found = f"{symbols.dtype}, {symbols.min()} to {symbols.max()}"
            raise BadSamples("symbols", found, f"integers from {-last} to {last}")
        return symbols.astype(np.int16)

    def _foreign(
        self, symbols: NDArray[np.integer], sizes: tuple[int, ...] | None, rate: int | None, step: float
    ) -> tuple[Symbols, Layout]:
        """Symbols that were made elsewhere, checked, and their layout."""
        symbols = self._checked_symbols(symbols)
        sizes = self._padded_sizes(symbols) if sizes is None else tuple(sizes)
        self._check_sizes(sizes, symbols)
        is_audio = self.config.kind == "audio"
        rate = audio.DEFAULT_RATE if rate is None else rate
        if not 1 <= rate <= container.MAX_RATE:
            raise BadSamples("rate", rate, f"1 to {container.MAX_RATE}")
        layout = Layout(
            kind=self.config.kind,
            sample_format="s16" if is_audio else "u8",
            channels=self.config.channels,
            sizes=sizes,
            rate=rate if is_audio else 0,
            **asdict(self.coding(step=step, **self._window(sizes, None))),
        )
        return symbols, layout

    def coded(self, symbols: Symbols, layout: Layout) -> Stream:
        """Symbols cut into slices and coded, and the header completed.

        >>> codec = load_model("linear_rgb_4x")
        >>> layout = Layout(kind="image", sample_format="u8", channels=3, sizes=(10, 20))
        >>> codec.coded(np.zeros((48, 2, 3), np.int16), layout).header.slice_count
        1
        """
        fewest = SLICE_DEPTH if layout.kind == "volume" else SLICE_ROWS
        rows = max(fewest, SLICE_SYMBOLS // (self.config.planes * math.prod(symbols.shape[2:])))
        header = Header(
            **vars(layout),
            model_id=bytes.fromhex(self.model_id)[:MODEL_ID_BYTES],
            J=self.config.J,
            latent_dim=self.config.planes,
            latent_bits=self.config.latent_bits,
            slice_size=min(rows, symbols.shape[1]),
            symbol_hash=bytes(container.SYMBOL_HASH_BYTES),
        )

        def code(number: int) -> bytes:
            if number < 0:  # the hash, which is work like any other
                return container.symbol_hash(symbols)
            part = symbols[:, slice(*header.slice_bounds(number))].reshape(header.slice_shape(number))
            return self.stages.encode_slice(part, self.model.tables)

        symbol_hash, *slices = self.stages.each(code, range(-1, header.slice_count))
        return Stream(replace(header, symbol_hash=symbol_hash), tuple(slices))

    def _checked_signal(self, x: Signal) -> Signal:
        """A signal in binary64, or an error that says what its shape should be."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != self.config.axes + 1 or x.shape[0] != self.config.channels or x.size == 0:
            sizes = {"image": "H, W", "audio": "L", "volume": "depth, H, W"}[self.config.kind]
            raise BadSamples("signal.shape", x.shape, f"({self.config.channels}, {sizes}), no size 0")
        return x


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded stream and what was verified about it.

    Attributes
    ----------
    samples : array
        In the layout and dtype that was encoded; images and volumes of one channel have no axis of channels.
    header : Header
    model : str
        Name of the model.
    certified : bool
        Whether the stream carried a certified hash of the samples, and it was verified.
    damaged : tuple of int
        Slices that were filled with zeros (only with `keep_going`; then nothing is verified).
    icc_profile, exif : bytes or None
        What travelled with an image.
    metadata : dict or None
        What else belongs to the samples (`Codec.encode`).
    uncertain : int
        Samples that the certificate leaves out.
    exact : bool
        Whether the model is one whose samples are the same on every machine (SPEC.md 2.8), as far as its file says.
    region : (x, y, width, height) or (x, y, z, width, height, depth) or None
        The part of an image or a volume that was decoded; then the slices' CRCs alone were verified.
    precision : str
        What the decoder network computed in. With "binary32" samples are not those of SPEC.md to the last one, and no
        certificate was verified.

    Examples
    --------
    >>> decoded = decode_stream(load_model("linear_rgb_4x").encode(np.full((16, 24, 3), 200, np.uint8), certify=True))
    >>> decoded.model, decoded.certified, decoded.damaged
    ('linear_rgb_4x', True, ())
    """

    samples: NDArray
    header: Header
    model: str
    certified: bool
    damaged: tuple[int, ...]
    icc_profile: bytes | None = None
    exif: bytes | None = None
    uncertain: int = 0
    region: tuple[int, ...] | None = None
    exact: bool = True
    metadata: dict[str, Any] | None = None
    precision: str = "binary64"


@dataclass(frozen=True, kw_only=True)
class Info(Header):
    """A stream's header, and figures that need no decoding.

    Attributes
    ----------
    stream_bytes, slices : int
        Length of the stream; number of slices.
    certified : bool
        Whether a certified hash of the samples travels along.
    icc_profile_bytes, exif_bytes, metadata_bytes : int
        Length of what travels beside the samples, 0 where there is none.

    Examples
    --------
    >>> about = info(load_model("linear_rgb_4x").encode(np.full((16, 24, 3), 200, np.uint8)))
    >>> about.kind, about.sizes, about.slices, about.ratio > 10
    ('image', (16, 24), 1, True)
    """

    stream_bytes: int = 0
    slices: int = 0
    certified: bool = False
    icc_profile_bytes: int = 0
    exif_bytes: int = 0
    metadata_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Bytes of the samples over bytes of the stream."""
        return self.samples * container.SAMPLE_BITS[self.sample_format] / 8 / self.stream_bytes

    @property
    def bits_per_sample(self) -> float:
        """Bits of the stream for each pixel or voxel (all its channels), or for each sample of each audio channel."""
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

    Examples
    --------
    >>> load_model("gray_16x").config.latent_dim
    4
    >>> load_model("rgb_17x")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    walloc_ref.errors.UnknownModel: model: rgb_17x; one of ...
    """
    return Codec(models.find(name))


def info(data: bytes) -> Info:
    """Read a stream's header without decoding.

    Raises
    ------
    MalformedStream, UnsupportedStream

    Examples
    --------
    >>> info(load_model("linear_rgb_4x").encode(np.zeros((10, 20, 3), np.uint8))).sizes
    (10, 20)
    """
    stream = container.read(data, max_samples=2**62, keep_going=True)
    return Info(
        **asdict(stream.header),
        stream_bytes=len(data),
        slices=len(stream.slices),
        certified=stream.certificate is not None,
        icc_profile_bytes=len(stream.icc_profile or b""),
        exif_bytes=len(stream.exif or b""),
        metadata_bytes=len(stream.metadata or b""),
    )


def decode(
    data: bytes,
    *,
    codec: Codec | None = None,
    region: tuple[int, ...] | None = None,
    precision: str = "binary64",
    max_samples: int = MAX_SAMPLES,
    progress: Progress | None = None,
) -> Samples:
    """Decode a stream to samples, verifying every hash in it.

    Parameters
    ----------
    data : bytes
    codec : Codec, optional
        The codec to decode with; else the model is found by the identity in the stream.
    region : (x, y, width, height) of an image, (x, y, z, width, height, depth) of a volume, optional
        Only these samples, equal to the same part of the whole. Decodes the slices and windows that they depend on and no
        others, and so verifies the slices' CRCs but no hash.
    precision : str
        "binary64", which is exact, or "binary32", where the decoder network computes in that: faster, but a few samples
        are off by one (the level decoder-binary32 of SPEC.md 14.1), and no certificate is verified.
    max_samples : int
        Largest number of samples that is accepted.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    array
        In the dtype that was encoded: images (H, W) or (H, W, C), volumes (depth, H, W) or (depth, H, W, C), audio
        (frames, channels).

    Raises
    ------
    WallocError
        One of its classes, see `walloc_ref.errors`; nothing is returned that was not verified.

    Examples
    --------
    >>> data = load_model("linear_rgb_4x").encode(np.full((40, 60, 3), 200, np.uint8))
    >>> decode(data).shape, decode(data, region=(10, 20, 30, 5)).shape
    ((40, 60, 3), (5, 30, 3))
    >>> decode(data[:-1])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    walloc_ref.errors.MalformedStream: SLICES.length: ...
    """
    result = decode_stream(
        data, codec=codec, region=region, precision=precision, max_samples=max_samples, progress=progress
    )
    return result.samples


def decode_stream(
    data: bytes,
    *,
    codec: Codec | None = None,
    region: tuple[int, ...] | None = None,
    precision: str = "binary64",
    max_samples: int = MAX_SAMPLES,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode a stream, and say what was verified.

    Parameters as in `decode`; with `keep_going`, damaged slices are filled with zeros and named in the result.

    >>> decode_stream(load_model("linear_rgb_4x").encode(np.zeros((10, 20, 3), np.uint8))).header.sizes
    (10, 20)
    """
    stream = container.read(data, max_samples=max_samples, keep_going=keep_going)
    header = stream.header
    codec = codec or Codec(models.find_by_id(header.model_id))
    check_header(header, codec.model, max_samples)
    functions = codec.stages if precision == "binary64" else plain.chosen(precision)
    if region is not None:
        return _decode_region(stream, codec, region, functions, progress)
    symbols, damaged = _decode_slices(stream, codec, keep_going)
    if not damaged:
        check_symbols(symbols, header)
    with reporting(progress):
        samples = functions.symbols_to_samples[header.kind](symbols, header, codec.model, functions)
    exact = functions.precision == "binary64" and header.sample_format not in container.FLOAT_FORMATS
    certified = stream.certificate is not None and not damaged and exact
    if certified:
        check_certificate(samples, stream)
    left_out = len(stream.certificate.uncertain) if certified and stream.certificate else 0
    return Decoded(
        squeezed(samples),
        header,
        codec.name,
        certified,
        damaged,
        stream.icc_profile,
        stream.exif,
        uncertain=left_out,
        exact=_exact(codec),
        metadata=_metadata(stream),
        precision=functions.precision,
    )


def decode_symbols(data: bytes, *, codec: Codec | None = None, max_samples: int = MAX_SAMPLES) -> Symbols:
    """The verified symbols of a stream: int16, shape (planes, h, w), (planes, l) or (planes, z, h, w).

    >>> decode_symbols(load_model("linear_rgb_4x").encode(np.zeros((10, 20, 3), np.uint8))).shape
    (48, 2, 3)
    """
    return symbols_and_header(data, codec=codec, max_samples=max_samples)[0]


def symbols_and_header(
    data: bytes, *, codec: Codec | None = None, max_samples: int = MAX_SAMPLES
) -> tuple[Symbols, Header]:
    """What `decode_symbols` gives, and the header that was read on the way."""
    stream = container.read(data, max_samples=max_samples)
    codec = codec or Codec(models.find_by_id(stream.header.model_id))
    check_header(stream.header, codec.model, max_samples)
    symbols, _ = _decode_slices(stream, codec, keep_going=False)
    check_symbols(symbols, stream.header)
    return symbols, stream.header


def _metadata(stream: Stream) -> dict[str, Any] | None:
    """What stands in METADATA."""
    return None if stream.metadata is None else container.metadata_from_bytes(stream.metadata)


def _exact(codec: Codec) -> bool:
    """Whether the samples of a model are certain, where its file says something of it."""
    return codec.model.spread is None or codec.spread.samples_exact


def check_header(header: Header, model: Model, max_samples: int = MAX_SAMPLES) -> None:
    """Raise a `WallocError` unless a header goes with a model (SPEC.md 8.8, 10.7) and within the limits (12.6)."""
    config = model.config
    if not bytes.fromhex(model.model_id).startswith(header.model_id):
        raise UnknownModel("model identity", model.model_id, f"{header.model_id.hex()}…, the model of the stream")
    for name, found, wanted in (
        ("HEAD.kind", header.kind, config.kind),
        ("HEAD.J", header.J, config.J),
        ("HEAD.latent_dim", header.latent_dim, config.planes),
        ("HEAD.latent_bits", header.latent_bits, config.latent_bits),
    ):
        if found != wanted:
            raise MalformedStream(name, found, f"{wanted}, as in the model {model.name}")
    if header.window and not config.record.sees_everything:
        raise MalformedStream(
            "HEAD.window", header.window, f"0: no network of {config.architecture} sees all positions"
        )
    config.check_channels(header.channels)
    check_budget(header, config, max_samples)


def check_budget(layout: Layout, config: Config, max_samples: int) -> None:
    """Raise `LimitExceeded` for samples, padding or positions beyond what is accepted (SPEC.md 12.4, 12.6)."""
    if layout.samples > max_samples:
        raise LimitExceeded("samples", layout.samples, f"at most {max_samples}; see --max-samples")
    latent = config.latent_sizes(layout.sizes)
    sizes = "x".join(map(str, layout.sizes[::-1]))
    padded = config.bands * math.prod(latent)
    limit = max(max_samples // PADDED_SHARE, (1 << config.axes) * config.channels * math.prod(layout.sizes))
    if layout.kind != "audio" and padded > limit:
        raise LimitExceeded("sizes", f"{sizes}, with padding {padded} samples", f"at most {limit}; see --max-samples")
    if config.record.sees_everything:
        seen = math.prod(min(n, 2 * layout.window + 2 * layout.context) if layout.window else n for n in latent)
        limit = max(1, max_samples // POSITIONS_SHARE)
        if seen > limit:
            text = f"{seen} latent positions seen by the networks at once"
            raise LimitExceeded("window", text, f"at most {limit}; encode in windows, or see --max-samples")


def check_symbols(symbols: Symbols, header: Header) -> None:
    """Raise `HashMismatch` unless symbols are those that were hashed (SPEC.md 10.9)."""
    found = container.symbol_hash(symbols)
    if found != header.symbol_hash:
        raise HashMismatch("HEAD.symbol_hash", found.hex(), f"{header.symbol_hash.hex()}, as recorded in the stream")


def check_certificate(samples: Samples, stream: Stream) -> None:
    """Raise `HashMismatch` unless samples are those that a stream certifies, if it does (SPEC.md 10.11)."""
    if stream.certificate is None or stream.header.sample_format in container.FLOAT_FORMATS:
        return
    found, wanted = container.certify(samples, stream.certificate.uncertain).sample_hash, stream.certificate.sample_hash
    if found != wanted:
        raise HashMismatch("CERTIFICATE.hash", found.hex(), f"{wanted.hex()}, as recorded in the stream")


def _decode_slices(stream: Stream, codec: Codec, keep_going: bool) -> tuple[Symbols, tuple[int, ...]]:
    """All symbols of a stream, and the numbers of the slices that could not be decoded."""
    header = stream.header
    if keep_going and header.symbols > max(ZERO_SYMBOLS, entropy.max_symbols(sum(map(len, stream.slices)))):
        held = f"{sum(map(len, stream.slices))} bytes of slices"
        raise LimitExceeded("slices", held, f"too few for {header.symbols} symbols, damaged ones included")

    def decode_slice(number: int) -> Symbols | None:
        if number in stream.damaged:
            return None
        try:
            return _decode_slice(stream, codec, number)
        except MalformedStream:
            if keep_going:
                return None
            raise

    alone = header.slice_count == 1  # threads cost more than a small image
    parts = [decode_slice(0)] if alone else codec.stages.each(decode_slice, range(header.slice_count))
    damaged = tuple(number for number, part in enumerate(parts) if part is None)
    if not damaged:
        whole = [part for part in parts if part is not None]  # all of them
        return (whole[0] if alone else np.concatenate(whole, axis=1)), ()
    symbols = np.zeros((header.latent_dim, *header.latent_sizes), dtype=np.int16)
    for number, part in enumerate(parts):
        if part is not None:
            symbols[:, slice(*header.slice_bounds(number))] = part
    return symbols, damaged


def _decode_slice(stream: Stream, codec: Codec, number: int) -> Symbols:
    """The symbols of one slice, (D, rows, w), (D, positions) or (D, depth positions, h, w)."""
    header = stream.header
    try:
        symbols = codec.stages.decode_slice(stream.slices[number], header.slice_shape(number), codec.model.tables)
    except MalformedStream as error:
        limit = f"{error.limit} ({header.place(number)})"
        raise MalformedStream(f"slice {number}, {error.field}", error.value, limit) from error
    start, stop = header.slice_bounds(number)
    return symbols.reshape(header.latent_dim, stop - start, *header.latent_sizes[1:])


def _decode_region(
    stream: Stream,
    codec: Codec,
    region: tuple[int, ...],
    functions: plain.Functions,
    progress: Progress | None,
) -> Decoded:
    """Part of an image or a volume, from the slices and windows that it depends on."""
    from walloc_ref.fast import image as strips
    from walloc_ref.fast import volume as slabs

    header = stream.header
    if header.kind == "audio":
        raise BadSamples("region", header.kind, "an image or a volume")
    axes, sizes = len(header.sizes), header.sizes[::-1]  # across first
    names = ("x", "y", "z")[:axes] + ("width", "height", "depth")[:axes]
    corner, extent = region[:axes], region[axes:]
    inside = len(region) == 2 * axes and all(
        start >= 0 and length >= 1 and start + length <= size for start, length, size in zip(corner, extent, sizes)
    )
    if not inside:
        raise BadSamples("region", region, f"{', '.join(names)} within {'x'.join(map(str, sizes))} samples")
    wanted: Iterable[int]
    if header.kind == "image":
        x, y, width, height = region
        flat = (x, y, width, height)
        wanted = strips.needed(header, flat, codec.model).symbol_rows
    else:
        wanted = slabs.needed_positions(header, region, codec.model)
    symbols = np.zeros((header.latent_dim, *header.latent_sizes), dtype=np.int16)
    numbers = sorted({row // header.slice_size for row in wanted})

    def decode_slice(number: int) -> None:
        symbols[:, slice(*header.slice_bounds(number))] = _decode_slice(stream, codec, number)

    codec.stages.each(decode_slice, numbers)
    with reporting(progress):
        if header.kind == "image":
            samples = strips.region_samples(symbols, header, flat, codec.model, functions)
        else:
            samples = slabs.region_samples(symbols, header, region, codec.model, functions)
    return Decoded(
        squeezed(samples),
        header,
        codec.name,
        False,
        (),
        stream.icc_profile,
        stream.exif,
        region=region,
        exact=_exact(codec),
        metadata=_metadata(stream),
        precision=functions.precision,
    )


def squeezed(samples: Samples) -> Samples:
    """Samples as they are at the edge: images and volumes of one channel have no axis of channels."""
    return samples[..., 0] if samples.ndim > 2 and samples.shape[-1] == 1 else samples


def reporting(progress: Progress | None) -> Any:
    """A block in which `progress` is called; the plain codec, which has nothing to report, knows nothing of it."""
    from walloc_ref.fast import workers

    return workers.reporting(progress)
