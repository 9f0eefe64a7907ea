"""`LinearCodec3D` in PyTorch: ours, because the upstream has no volumes (SPEC.md 16.10), of the upstream's parts.

Encoder and decoder are those of the upstream's `LinearCodec2D` with convolutions of one tap along three axes; companding
and rounding are the upstream's modules. Only the transform is written out here: PyWavelets' taps, circular at any length,
an axis at a time. Nothing is computed by `walloc_ref`, so that the conformance suite's vectors can come from it.
"""

from __future__ import annotations

from typing import Any


def module(torch: Any, walloc: Any, *, channels: int, J: int, latent_dim: int, latent_bits: int) -> Any:  # noqa: N803
    """The module of a configuration with random weights, of the default type; tensors named as `LinearCodec2D`'s."""
    import pywt

    bank = pywt.Wavelet("bior4.4")
    split = (list(zip(range(-4, 5), bank.dec_lo[1:])), list(zip(range(-3, 4), bank.dec_hi[1:8])))
    merge = (list(zip(range(-3, 4), bank.rec_lo[1:8])), list(zip(range(-4, 5), bank.rec_hi[1:])))
    last = 2 ** (latent_bits - 1) - 1
    companding = {"scale": last / 1.85, "latent_max": last + 0.5 - 1e-3}
    bands = channels * 8**J

    class LinearCodec3D(torch.nn.Module):
        """Volumes (batch, C, depth, H, W)."""

        def __init__(self) -> None:
            super().__init__()
            to_latents = torch.nn.Conv3d(bands, latent_dim, kernel_size=1)
            to_bands = torch.nn.Conv3d(latent_dim, bands, kernel_size=1)
            self.encoder = torch.nn.Sequential(to_latents, walloc.ToUniform(**companding), walloc.Round())
            self.decoder = torch.nn.Sequential(walloc.ToNormal(**companding), to_bands)
            self.clamp = torch.nn.Hardtanh(min_val=-0.5, max_val=0.5)

        def wavelet_analysis(self, x: Any, J: int) -> Any:  # noqa: N803
            """(batch, C, …) to (batch, C·8^J, …)."""
            for _ in range(J):
                for axis in (4, 3, 2):  # across first, so that its bit is the most significant
                    low = sum(h * torch.roll(x, -m, axis) for m, h in split[0])
                    high = sum(g * torch.roll(x, -m - 1, axis) for m, g in split[1])
                    even = torch.arange(0, x.shape[axis], 2)
                    x = torch.stack([low.index_select(axis, even), high.index_select(axis, even)], dim=2).flatten(1, 2)
            return x

        def wavelet_synthesis(self, x: Any, J: int) -> Any:  # noqa: N803
            """The inverse."""
            for _ in range(J):
                for axis in (2, 3, 4):
                    pairs = x.unflatten(1, (-1, 2))
                    zero = torch.zeros_like(pairs[:, :, 0])
                    low = torch.stack([pairs[:, :, 0], zero], dim=axis + 1).flatten(axis, axis + 1)  # at even places
                    high = torch.stack([zero, pairs[:, :, 1]], dim=axis + 1).flatten(axis, axis + 1)  # at odd ones
                    x = sum(h * torch.roll(low, -m, axis) for m, h in merge[0])
                    x = x + sum(g * torch.roll(high, -m, axis) for m, g in merge[1])
            return x

        def forward(self, x: Any) -> Any:
            """Encoded and decoded, clamped."""
            y = self.encoder(self.wavelet_analysis(x, J))
            return self.clamp(self.wavelet_synthesis(self.decoder(y), J))

    return LinearCodec3D()
