"""Where arrays and pictures are opened: Pillow, imageio, Zarr, numcodecs, webdataset, Hugging Face datasets.

Each adapter is a module of its own that is imported when it is used, or by an entry point; none is needed by the codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RATES = ("quality", "ratio", "max_bytes", "psnr")
"""Keywords of `Codec.encode` that ask for a rate."""


def image_model(grey: bool, options: Mapping[str, Any]) -> str:
    """The bundled model that an image gets where none is named: the one that `walloc-ref encode` takes."""
    if any(options.get(name) is not None for name in RATES):
        return "rgb_2x"
    return "gray_16x" if grey else "rgb_4x"
