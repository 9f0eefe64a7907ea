"""The volume codec, plainly: the image codec along three axes instead of two (SPEC.md section 16).

    samples --3--> signal --4--> subbands --16.4--> latents --6--> symbols
    samples <--3-- signal <--4-- subbands <--16.4-- latents <--6-- symbols
    (depth, H, W, C′)  (C, depth, H, W)  (K, z, h, w)  (D, z, h, w)

Not a line of `image.py` counts the axes. Padding, transform, projection, quantiser and cropping go along as many as there
are, a level of the transform splits a band into eight instead of four, and so these are the functions of an image, by their
names. What is a volume's own stands elsewhere: its architecture in `stages.projection`, and in `stages.entropy` that the
coder goes through depth position by depth position, each seeing the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from walloc_ref import image
from walloc_ref.architecture import Samples
from walloc_ref.image import (
    certified_samples,
    samples_to_symbols,
    signal_to_symbols,
    symbols_to_samples,
    symbols_to_signal,
    uncertain,
)
from walloc_ref.stages.container import Layout

if TYPE_CHECKING:
    from walloc_ref.model import Config

__all__ = [
    "certified_samples",
    "describe",
    "samples_to_symbols",
    "signal_to_symbols",
    "symbols_to_samples",
    "symbols_to_signal",
    "uncertain",
]


def describe(
    samples: Samples, config: Config, rate: int | None = None, sample_format: str | None = None
) -> tuple[Samples, Layout]:
    """Check samples (SPEC.md 16.1, 12.3); return them as (depth, H, W, C′), and what they are like.

    Raises
    ------
    BadSamples
    """
    return image.describe_kind("volume", ("depth", "H", "W"), samples, config, rate, sample_format)
