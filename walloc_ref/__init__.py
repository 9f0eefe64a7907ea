"""walloc_ref: the reference codec for WaLLoC, Wavelet Learned Lossy Compression.

    codec = walloc_ref.load_model("rgb_16x")
    data = codec.encode(samples)          # uint8 (H, W, 3) -> bytes
    samples = walloc_ref.decode(data)     # finds the model by its identity

The names below are the public interface; importing the package itself loads none of them before they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Config",
    "Decoded",
    "Info",
    "WallocError",
    "decode",
    "decode_stream",
    "decode_symbols",
    "features",
    "fit_model",
    "info",
    "load_model",
]

if TYPE_CHECKING:
    from walloc_ref.codec import Codec, Decoded, Info, decode, decode_stream, decode_symbols, info, load_model
    from walloc_ref.errors import WallocError
    from walloc_ref.fit import fit_model
    from walloc_ref.learning.latents import features
    from walloc_ref.model import Config

_HOME = {
    "Config": "walloc_ref.model",
    "WallocError": "walloc_ref.errors",
    "fit_model": "walloc_ref.fit",
    "features": "walloc_ref.learning.latents",
}
"""Modules of the public names, where not `walloc_ref.codec`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME.get(name, "walloc_ref.codec")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
