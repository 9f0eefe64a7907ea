"""The table of the fast codec: the plain one with some functions replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from walloc_ref.fast import audio, autoencoder_kl, entropy, image, oobleck, quantise, signal, volume, wavelet
from walloc_ref.fast.workers import for_each
from walloc_ref.plain import PLAIN
from walloc_ref.stages.oobleck import POST_REACH


def post_filter(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Same as `stages.oobleck.post_filter`."""
    return oobleck.post_filter(np.pad(x, ((0, 0), (POST_REACH, POST_REACH))), weight, bias)


KINDS: Mapping[str, Any] = {"image": image, "audio": audio, "volume": volume}
"""The fast codec of each kind of signal: a module."""

FAST = replace(
    PLAIN,
    signal_to_image=signal.signal_to_image,
    audio_to_signal=signal.audio_to_signal,
    signal_to_audio=signal.signal_to_audio,
    analyse=wavelet.analyse,
    synthesise=wavelet.synthesise,
    image_encoder=autoencoder_kl.encode,
    image_decoder=autoencoder_kl.decode,
    audio_encoder=oobleck.encode,
    audio_decoder=oobleck.decode,
    post_filter=post_filter,
    quantise=quantise.quantise,
    encode_slice=entropy.encode,
    decode_slice=entropy.decode,
    signal_to_symbols={kind: codec.signal_to_symbols for kind, codec in KINDS.items()},
    symbols_to_signal={kind: codec.symbols_to_signal for kind, codec in KINDS.items()},
    samples_to_symbols={kind: codec.samples_to_symbols for kind, codec in KINDS.items()},
    symbols_to_samples={kind: codec.symbols_to_samples for kind, codec in KINDS.items()},
    certified_samples={kind: codec.certified_samples for kind, codec in KINDS.items()},
    each=for_each,
)
"""Kernels, strips, slabs, pieces, windows side by side: the same integers, faster."""

BINARY32 = replace(
    FAST,
    image_decoder=partial(autoencoder_kl.decode, number=np.float32),
    audio_decoder=partial(oobleck.decode, number=np.float32),
    precision="binary32",
)
"""The same with decoder networks in binary32: twice the numbers in a register, and samples near a tie may differ."""
