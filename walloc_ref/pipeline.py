"""What the pipelines of images and audio share: transform and quantiser, compiled where they can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast.workers import compiled
from walloc_ref.model import Model
from walloc_ref.stages import quantise, wavelet


class Pipeline:
    """Transform and quantiser of one model; the definition and its kernel give the same integers."""

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self.model = model

    def analyse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Wavelet packet analysis with the model's J: (C, n0, …), padded, to (C·2^(J·axes), n0/2^J, …)."""
        if compiled():
            from walloc_ref.fast import wavelet as kernel

            return kernel.analyse(x, self.config.J)
        return wavelet.analyse(x, self.config.J)

    def synthesise(self, bands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Wavelet packet synthesis, the inverse of `analyse`."""
        if compiled():
            from walloc_ref.fast import wavelet as kernel

            return kernel.synthesise(bands, self.config.J)
        return wavelet.synthesise(bands, self.config.J)

    def quantise(self, latents: NDArray[np.float64]) -> NDArray[np.int16]:
        """Latents to symbols."""
        if compiled():
            from walloc_ref.fast import quantise as kernel

            return kernel.quantise(latents, self.config.latent_bits)
        return quantise.quantise(latents, self.config.latent_bits)
