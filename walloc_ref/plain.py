"""The table of the functions that the codec consists of, and the plain ones: each a definition of SPEC.md on whole arrays.

`image.py`, `audio.py` and `volume.py` string these functions together. The fast codec (`walloc_ref.fast.FAST`) is this
table with some functions replaced, each held equal to the one that it replaces; `chosen` is the one place where it is
decided which of the two runs. A wrong implementation, to test a test with, is this table with a function replaced by a
wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from walloc_ref import audio, image, volume
from walloc_ref.errors import BadSamples
from walloc_ref.stages import autoencoder_kl, entropy, oobleck, projection, quantise, signal, wavelet


@dataclass(frozen=True)
class Functions:
    """Functions of the codec, by stage; what each takes and returns stands with the plain one.

    Attributes
    ----------
    image_to_signal, signal_to_image, audio_statistics, audio_to_signal, signal_to_audio : `stages.signal`
    pad, crop, clamp : `stages.signal`
    analyse, synthesise : `stages.wavelet`
    project : `stages.projection`
    image_encoder, image_decoder : `stages.autoencoder_kl`
    audio_encoder, audio_decoder, post_filter : `stages.oobleck`
    quantise, dequantise : `stages.quantise`
    encode_slice, decode_slice : `stages.entropy`
    signal_to_symbols, symbols_to_signal : mapping of kind to function
        From the signal on, `image`, `audio` and `volume`.
    samples_to_symbols, symbols_to_samples, certified_samples : mapping of kind to function
        The whole way.
    each : callable
        `map` over a sequence, as a list: where work may be done side by side.
    precision : str
        "binary64"; "binary32" in the table whose decoder networks compute in that (SPEC.md 14.1).
    """

    image_to_signal: Callable[..., Any]
    signal_to_image: Callable[..., Any]
    audio_statistics: Callable[..., Any]
    audio_to_signal: Callable[..., Any]
    signal_to_audio: Callable[..., Any]
    pad: Callable[..., Any]
    crop: Callable[..., Any]
    clamp: Callable[..., Any]
    analyse: Callable[..., Any]
    synthesise: Callable[..., Any]
    project: Callable[..., Any]
    image_encoder: Callable[..., Any]
    image_decoder: Callable[..., Any]
    audio_encoder: Callable[..., Any]
    audio_decoder: Callable[..., Any]
    post_filter: Callable[..., Any]
    quantise: Callable[..., Any]
    dequantise: Callable[..., Any]
    encode_slice: Callable[..., Any]
    decode_slice: Callable[..., Any]
    signal_to_symbols: Mapping[str, Callable[..., Any]]
    symbols_to_signal: Mapping[str, Callable[..., Any]]
    samples_to_symbols: Mapping[str, Callable[..., Any]]
    symbols_to_samples: Mapping[str, Callable[..., Any]]
    certified_samples: Mapping[str, Callable[..., Any]]
    each: Callable[..., Any]
    precision: str = "binary64"


KINDS: Mapping[str, Any] = {"image": image, "audio": audio, "volume": volume}
"""The plain codec of each kind of signal: a module."""

PLAIN = Functions(
    image_to_signal=signal.image_to_signal,
    signal_to_image=signal.signal_to_image,
    audio_statistics=signal.audio_statistics,
    audio_to_signal=signal.audio_to_signal,
    signal_to_audio=signal.signal_to_audio,
    pad=signal.pad,
    crop=signal.crop,
    clamp=signal.clamp,
    analyse=wavelet.analyse,
    synthesise=wavelet.synthesise,
    project=projection.project,
    image_encoder=autoencoder_kl.encode,
    image_decoder=autoencoder_kl.decode,
    audio_encoder=oobleck.encode,
    audio_decoder=oobleck.decode,
    post_filter=oobleck.post_filter,
    quantise=quantise.quantise,
    dequantise=quantise.dequantise,
    encode_slice=entropy.encode,
    decode_slice=entropy.decode,
    signal_to_symbols={kind: codec.signal_to_symbols for kind, codec in KINDS.items()},
    symbols_to_signal={kind: codec.symbols_to_signal for kind, codec in KINDS.items()},
    samples_to_symbols={kind: codec.samples_to_symbols for kind, codec in KINDS.items()},
    symbols_to_samples={kind: codec.symbols_to_samples for kind, codec in KINDS.items()},
    certified_samples={kind: codec.certified_samples for kind, codec in KINDS.items()},
    each=lambda work, items: [work(item) for item in items],
)
"""The definitions."""


def compiled() -> bool:
    """Whether the fast codec runs: always, unless `NUMBA_DISABLE_JIT` would make it slower than the plain one."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


PRECISIONS = ("binary64", "binary32")
"""What decoder networks may compute in: exactly what SPEC.md defines, or at the level decoder-binary32 (SPEC.md 14.1)."""


def chosen(precision: str = "binary64") -> Functions:
    """The functions that run.

    Raises
    ------
    BadSamples
        A precision that there is not, or not without kernels: the definitions know binary64 alone.
    """
    if precision not in PRECISIONS:
        raise BadSamples("precision", precision, " or ".join(PRECISIONS))
    if not compiled():
        if precision != "binary64":
            raise BadSamples("precision", precision, "binary64 where NUMBA_DISABLE_JIT is set")
        return PLAIN
    from walloc_ref.fast.table import BINARY32, FAST

    return FAST if precision == "binary64" else BINARY32
