"""numcodecs (Zarr v2, kerchunk, …): the codec `walloc_ref`, found by its entry point.

What a chunk is and what lossy means for a store: `walloc_ref.adapters.chunks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ndarray_copy

from walloc_ref.adapters import chunks


class WallocCodec(Codec):
    """Chunks as `.wlc` streams; parameters as of `walloc_ref.adapters.zarr.WallocCodec`."""

    codec_id = "walloc_ref"

    def __init__(self, model: str, **fields: Any) -> None:
        self.settings = chunks.Settings.from_fields({"model": model, **fields})

    def encode(self, buf: Any) -> bytes:
        """An array, which must have its shape, to a stream."""
        return chunks.encode(np.asarray(buf), self.settings)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """A stream to an array, into `out` if there is one."""
        import walloc_ref

        return ndarray_copy(walloc_ref.decode(bytes(memoryview(buf))), out)

    def get_config(self) -> dict[str, Any]:
        """What a store keeps."""
        return {"id": self.codec_id, **self.settings.to_fields()}
