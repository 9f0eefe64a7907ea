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

RATE_MODELS: dict[str, float | None] = {"rgb_2x": 0.8, "rgb_1x": 1.2, "linear_rgb_1x": None}
"""The models of images where a rate is asked for, from the widest range to the finest steps: each with the step below which
the next one has the better PSNR at the same bytes. On 20 images of BSDS500, where none was trained, `rgb_1x` is 0.12 dB
worse than `rgb_2x` at the step 0.9 of that, equal at 0.8, 0.12 dB better at 0.7; `linear_rgb_1x` is 0.11 dB worse than
`rgb_1x` at its step 1.4, equal at 1.2, 0.22 dB better at 1."""


def encode_image(samples: NDArray[Any], model: str | None, **options: Any) -> bytes:
    """Encode an image (H, W) or (H, W, 3) by a model, or by the one that `walloc-ref encode` takes where none is named.

    Raises
    ------
    UnknownModel, BadSamples, LimitExceeded
        As `load_model` and `Codec.encode`.
    """
    from walloc_ref import load_model
    from walloc_ref.rate_control import Candidate, encode_finely

    if not model and any(options.get(name) is not None for name in RATES):
        candidates = [Candidate(partial(load_model, name), finest) for name, finest in RATE_MODELS.items()]
    else:
        candidates = [Candidate(partial(load_model, model or ("gray_16x" if samples.ndim == 2 else "rgb_4x")))]
    return encode_finely(candidates, samples, **options)[1]
