"""Zarr v3: the codec `walloc_ref`, found by its entry point, so that opening an array needs no import.

    zarr.create_array(store, shape=…, chunks=(512, 512, 3), dtype="uint8", serializer=WallocCodec(model="rgb_4x", psnr=32))
    xarray.open_zarr(store)

What a chunk is and what lossy means for a store: `walloc_ref.adapters.chunks`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration
from zarr.registry import register_codec

from walloc_ref.adapters import chunks

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "walloc_ref"
"""Name of the codec in the metadata of an array."""


@dataclass(frozen=True, init=False)
class WallocCodec(ArrayBytesCodec):
    """Chunks as `.wlc` streams.

    Parameters
    ----------
    model : str
        A bundled name, or a path.
    step, quality, ratio, max_bytes, psnr : float, optional
        At most one, as in `Codec.encode`.
    rate : int, optional
        Samples a second, of audio.
    """

    settings: chunks.Settings
    is_fixed_size = False

    def __init__(self, model: str, **fields: Any) -> None:
        object.__setattr__(self, "settings", chunks.Settings.from_fields({"model": model, **fields}))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WallocCodec:
        """Of the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME)
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """For the metadata of an array."""
        return {"name": NAME, "configuration": self.settings.to_fields()}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before it is done."""
        raise ValueError("the size of a stream depends on what is in it")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        data = chunk_data.to_bytes()
        samples = await asyncio.to_thread(chunks.decode, data, tuple(chunk_spec.shape), np.dtype(dtype))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(samples)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        data = await asyncio.to_thread(chunks.encode, chunk_data.as_numpy_array(), self.settings)
        return chunk_spec.prototype.buffer.from_bytes(data)


register_codec(NAME, WallocCodec)  # as the entry point does, where the package runs without being installed
