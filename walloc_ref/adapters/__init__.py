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

FINEST = "linear_rgb_1x"
"""The model that images get where no other is as fine as what is asked for."""


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
        names = ["rgb_2x", FINEST]
    else:
        names = ["gray_16x" if samples.ndim == 2 else "rgb_4x"]
    return encode_finely([partial(load_model, name) for name in names], samples, **options)[1]
