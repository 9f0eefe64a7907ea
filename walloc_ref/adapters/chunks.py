"""A chunk of an array as a stream, for stores of chunks (Zarr, numcodecs).

A chunk is one image (H, W[, C]), one clip (frames, channels) or one volume (D, H, W[, C]), as the model says; axes of
length 1 before those are taken off and put back, so that an array (time, H, W, C) with chunks (1, 512, 512, 3) works.

The codec is lossy: what comes back is not what was stored, and a chunk that is written again after a part of it was
changed is coded again, all of it. Stores therefore suit arrays that are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from walloc_ref.errors import BadSamples

if TYPE_CHECKING:
    from walloc_ref.codec import Codec
    from walloc_ref.model import Config

OPTIONS = ("step", "quality", "ratio", "max_bytes", "psnr")
"""How the rate is asked for; at most one."""


@dataclass(frozen=True)
class Settings:
    """What is stored with an array, so that its chunks can be written again.

    Attributes
    ----------
    model : str
        A bundled name or a path; readers find the model by the identity in each chunk.
    rate_name, rate_value : str or None, float or None
        One of `OPTIONS` and its value.
    sample_rate : int or None
        Of audio.
    """

    model: str
    rate_name: str | None = None
    rate_value: float | None = None
    sample_rate: int | None = None

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Settings:
        """Of the configuration that a store keeps.

        Raises
        ------
        BadSamples
            Unknown fields, or several rates.
        """
        fields = {key: value for key, value in fields.items() if value is not None and key != "lossy"}
        rates = {key: fields.pop(key) for key in OPTIONS if key in fields}
        model, sample_rate = fields.pop("model", None), fields.pop("rate", None)
        if not isinstance(model, str) or fields or len(rates) > 1:
            found = ", ".join(sorted([*fields, *rates])) or "no model"
            raise BadSamples("codec configuration", found, f"model, at most one of {', '.join(OPTIONS)}, rate")
        name, value = next(iter(rates.items()), (None, None))
        return cls(model, name, value, sample_rate)

    def to_fields(self) -> dict[str, Any]:
        """The configuration that a store keeps; it says that the codec is lossy."""
        fields: dict[str, Any] = {"model": self.model, "lossy": True}
        if self.rate_name is not None:
            fields[self.rate_name] = self.rate_value
        if self.sample_rate is not None:
            fields["rate"] = self.sample_rate
        return fields


@lru_cache(maxsize=8)
def codec_of(model: str) -> Codec:
    """The codec of a model, loaded once."""
    import walloc_ref

    return walloc_ref.load_model(model)


def encode(chunk: np.ndarray, settings: Settings) -> bytes:
    """A chunk to a stream.

    Raises
    ------
    BadSamples
        A chunk of a shape or type that the model does not code.
    """
    codec = codec_of(settings.model)
    samples = without_leading_ones(chunk, codec.config)
    options: dict[str, Any] = {} if settings.rate_name is None else {settings.rate_name: settings.rate_value}
    if codec.config.kind == "audio" and settings.sample_rate is not None:
        options["rate"] = settings.sample_rate
    return codec.encode(samples, **options)


def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A stream to a chunk.

    Raises
    ------
    WallocError
        A damaged stream, or one whose samples are not such a chunk.
    """
    import walloc_ref

    samples = walloc_ref.decode(data)
    if samples.size != int(np.prod(shape)) or samples.dtype != dtype:
        raise BadSamples("chunk", f"{samples.dtype} {samples.shape}", f"{dtype} {shape}")
    return samples.reshape(shape)


def without_leading_ones(chunk: np.ndarray, config: Config) -> np.ndarray:
    """A chunk without the axes of length 1 that stand before those of the signal, and of channels if the last is theirs."""
    has_channels = chunk.ndim > config.axes and chunk.shape[-1] in (1, config.channels)
    while chunk.ndim > config.axes + has_channels and chunk.shape[0] == 1:
        chunk = chunk[0]
    return chunk
