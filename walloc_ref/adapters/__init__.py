"""Where arrays and pictures are opened: Pillow, imageio, Zarr, numcodecs, webdataset, Hugging Face datasets.

Each adapter is a module of its own that is imported when it is used, or by an entry point; none is needed by the codec.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATES = ("quality", "ratio", "max_bytes", "psnr")
"""Keywords of `Codec.encode` that ask for a rate."""

WIDEST, FINE = "rgb_2x", "linear_rgb_1x"
"""The model that images get where a rate is asked for, and the one that they get where that one is not as fine, or is
worse."""

FINE_STEP = 0.55
"""Step of `rgb_2x` below which `linear_rgb_1x` has the better PSNR at the same bytes: 0.2 dB worse at 0.65, equal at 0.55,
0.3 dB better at 0.46, on 20 photographs of BSDS500 that neither was trained on."""


def encode_image(samples: NDArray[Any], model: str | None, **options: Any) -> bytes:
    """Encode an image (H, W) or (H, W, 3) by a model, or by the one that `walloc-ref encode` takes where none is named.

    Raises
    ------
    UnknownModel, BadSamples, LimitExceeded
        As `load_model` and `Codec.encode`.
    """
    from walloc_ref import load_model
    from walloc_ref.rate_control import encode_finely

    if model:
        names = [model]
    elif any(options.get(name) is not None for name in RATES):
        names = [WIDEST, FINE]
    else:
        names = ["gray_16x" if samples.ndim == 2 else "rgb_4x"]
    codecs = [partial(load_model, name) for name in names]
    return encode_finely(codecs, samples, finest=FINE_STEP, **options)[1]
