"""Tiny seeded models for tests: all architectures, a few kilobytes each, no training and no files.

The linear projection and its decoder are an orthonormal basis near the low-pass bands and its transpose, so that a decoded
image resembles the original and symbols use most of their range; every other tensor is small noise, with norms near one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from walloc_ref.codec import Codec
from walloc_ref.model import Config, Model
from walloc_ref.stages import entropy

TINY: dict[str, dict[str, Any]] = {
    "LinearCodec2D": {"channels": 3, "J": 2, "latent_dim": 6},
    "ResidualCodec2D": {"channels": 3, "J": 1, "latent_dim": 3, "num_stages": 2},
    "Codec2D": {"channels": 3, "J": 2, "latent_dim": 4, "Nd": 32},
    "Codec1D": {"channels": 2, "J": 3, "latent_dim": 4, "Nd": 8, "post_filter": True},
    "LinearCodec3D": {"channels": 1, "J": 1, "latent_dim": 4},
}
"""Smallest sensible configuration of each architecture."""

ENCODER_SCALE = 50.0
"""Latents of an image then spread over most of the 8-bit symbols."""


def tiny_model(architecture: str = "LinearCodec2D", *, seed: int = 0, name: str = "tiny", **fields: Any) -> Model:
    """A model with random weights.

    Parameters
    ----------
    architecture : str
        One of `TINY`.
    seed : int
        Equal seeds give equal models.
    name : str
    **fields
        Fields of the configuration that differ from `TINY`.
    """
    config = Config(architecture, **{**TINY[architecture], **fields})
    rng = np.random.default_rng(seed)
    scale = ENCODER_SCALE * 2.0 ** (config.latent_bits - 8)
    rows = min(config.latent_dim, config.bands)
    spread = 0.1 * rng.standard_normal((config.bands, rows))
    low_pass = range(0, config.bands, config.bands // config.channels)[:rows]  # first band of each channel
    spread[low_pass, range(len(low_pass))] += 9
    basis = np.zeros((config.latent_dim, config.bands))
    basis[:rows] = np.linalg.qr(spread)[0].T
    tensors = {}
    for key, shape in config.record.tensor_shapes(config).items():
        if key == "encoder.0.weight" or (key.startswith("encoders.") and key.endswith("weight")):
            tensor = scale * basis.reshape(shape)
        elif (key == "decoder.1.weight" or key.startswith("decoders.")) and key.endswith("weight"):
            tensor = basis.T.reshape(shape) / scale
        elif "norm" in key or key.endswith("weight_g"):
            tensor = (1.0 if key.endswith(("weight", "weight_g")) else 0.0) + 0.1 * rng.standard_normal(shape)
        elif key == "post.weight":
            tensor = 0.01 * rng.standard_normal(shape)
            tensor[:, :, shape[2] // 2] += np.eye(shape[0])
        elif key.endswith("bias") or ".alpha" in key or ".beta" in key:
            tensor = 0.1 * rng.standard_normal(shape)
        else:
            tensor = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        tensors[key] = np.ascontiguousarray(tensor, dtype=np.float32)
    return Model(config, tensors, entropy.default_tables(config.planes, config.latent_bits), name)


def tiny_codec(architecture: str = "LinearCodec2D", **options: Any) -> Codec:
    """A codec of `tiny_model`, with the same arguments."""
    return Codec(tiny_model(architecture, **options))


def depth_tables(planes: int, bits: int, seed: int = 0) -> entropy.Tables:
    """Random tables with taps at the depth position before, of both kinds and in all directions."""
    rng = np.random.default_rng(seed)
    taps, units, biases, outputs = [], [], [], []
    for c in range(planes):
        here = [(c, int(rng.integers(2)), planes + int(rng.integers(planes)), *map(int, rng.integers(-3, 4, 2)))]
        here += [(c, kind, planes + c, 3, -3 + 6 * kind) for kind in range(2)] + [(c, 1, c, 0, -1), (c, 0, c, -1, 2)]
        hidden = int(rng.integers(4))
        taps += here
        units.append(rng.integers(-2500, 2500, (len(here), 2 + hidden)))
        biases.append(rng.integers(-70000, 70000, 2 + hidden))
        outputs.append(rng.integers(-900, 900, (hidden, 2)))
    states = rng.integers(16, 65536, sum(entropy.context_counts(planes)) * entropy.NODES)
    mixers = rng.integers(-500, 700, (entropy.MIXERS, entropy.NODES, entropy.CONTEXTS))
    return entropy.Tables(planes, bits, np.array(taps), units, biases, outputs, states, mixers)


def volume(
    depth: int, height: int, width: int, channels: int = 1, *, seed: int = 0, dtype: Any = np.uint8
) -> np.ndarray:
    """Smooth bodies with edges and noise: (depth, H, W), of several channels (depth, H, W, C), full range of `dtype`."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:depth, :height, :width] / max(depth, height, width, 8)
    parts = []
    for _ in range(channels):
        fx, fy, fz, phase = rng.uniform(1, 9, 4)
        body = ((x - 0.4) ** 2 + (y - 0.3) ** 2 + (z - 0.2) ** 2 < 0.1) * 0.4
        parts.append(0.4 + 0.3 * np.sin(fx * x + fy * y + fz * z + phase) + body + 0.03 * rng.standard_normal(x.shape))
    unit = np.clip(np.stack(parts, axis=-1), 0, 1)
    if np.dtype(dtype).kind == "f":
        samples = (1000 * unit - 300).astype(dtype)
    else:
        info = np.iinfo(dtype)
        samples = (np.rint(unit * (int(info.max) - int(info.min))) + info.min).astype(dtype)
    return samples if channels > 1 else samples[..., 0]


def photograph(height: int, width: int, channels: int = 3, *, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    """A smooth random image with edges and noise: (H, W, C), full range of `dtype`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width, 8)
    planes = []
    for _ in range(channels):
        fx, fy, phase = rng.uniform(1, 9, 3)
        edge = (x * rng.normal() + y * rng.normal() > rng.normal() * 0.3) * 0.3
        planes.append(0.5 + 0.3 * np.sin(fx * x + fy * y + phase) + edge + 0.03 * rng.standard_normal(x.shape))
    return np.rint(np.clip(np.stack(planes, axis=-1), 0, 1) * np.iinfo(dtype).max).astype(dtype)
