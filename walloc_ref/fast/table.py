"""The table of the fast codec: the plain one with some functions replaced."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from walloc_ref.fast import audio, autoencoder_kl, entropy, image, oobleck, quantise, signal, wavelet
from walloc_ref.fast.workers import for_each
from walloc_ref.plain import PLAIN
from walloc_ref.stages.oobleck import POST_REACH


def post_filter(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Same as `stages.oobleck.post_filter`."""
    return oobleck.post_filter(np.pad(x, ((0, 0), (POST_REACH, POST_REACH))), weight, bias)


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
    signal_to_symbols={"image": image.signal_to_symbols, "audio": audio.signal_to_symbols},
    symbols_to_signal={"image": image.symbols_to_signal, "audio": audio.symbols_to_signal},
    samples_to_symbols={"image": image.samples_to_symbols, "audio": audio.samples_to_symbols},
    symbols_to_samples={"image": image.symbols_to_samples, "audio": audio.symbols_to_samples},
    certified_samples={"image": image.certified_samples, "audio": audio.certified_samples},
    each=for_each,
)
"""Kernels, strips, pieces, windows side by side: the same integers, faster."""

BINARY32 = replace(
    FAST,
    image_decoder=partial(autoencoder_kl.decode, number=np.float32),
    audio_decoder=partial(oobleck.decode, number=np.float32),
    precision="binary32",
)
"""The same with decoder networks in binary32: twice the numbers in a register, and samples near a tie may differ."""
