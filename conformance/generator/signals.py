"""What goes into the vectors: synthetic signals, small seeded weights, and photographs in the public domain.

Everything is a function of its arguments alone; `SIGNALS` says what each one is for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

PHOTOS = Path(__file__).resolve().parent.parent / "photos"
"""Crops of photographs, PNG; `photos/SOURCES.md` names their sources and licences."""

SIGNALS = {
    "zone-plate": "cos(c·r²): every frequency in every direction",
    "impulses": "one impulse at every phase of the transform, a channel each",
    "checkerboard": "0 and full scale in turn, the highest frequency along both axes",
    "extremes": "blocks of 0 and full scale at random: overshoot that must be clamped",
    "constant": "one value everywhere",
    "waves": "slow waves, so that a large image codes small",
    "noise": "independent samples over the full range",
    "ramp": "a slope along each axis, whose ends meet in a cliff across the period",
    "bodies": "an ellipsoid in waves and noise, a volume",
    "spectrum": "a photograph whose bands go over into each other",
    "photo": "a photograph in the public domain, see photos/SOURCES.md",
    "tone": "two sweeps and some noise, different in the two channels, off centre",
    "silence": "all samples equal: gain 0",
    "click": "one sample at full scale",
    "every-symbol": "every symbol value of the model",
    "symbols": "symbols drawn from a distribution like that of photographs",
    "ties": "values exactly half way between two integers, and their neighbours in binary64",
    "latents": "latents from far below to far beyond the range of the symbols",
    "stream": "a stream, damaged on purpose",
    "model": "a weights file, damaged on purpose",
}
"""What each kind of signal is."""


def zone_plate(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """cos(c·r²) from one corner, the channels with different centres: (H, W, C)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    largest = max(height, width, 2)
    planes = [np.cos(np.pi * ((x - 3 * c) ** 2 + (y - 5 * c) ** 2) / (2 * largest)) for c in range(channels)]
    return _scaled(0.5 + 0.5 * np.stack(planes, axis=-1), dtype)


def checkerboard(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """0 and full scale in turn."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return _scaled(((x + y + c) % 2).astype(np.float64), dtype)


def extremes(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """Blocks of 5×3 samples, each 0 or full scale."""
    rng = np.random.default_rng(31)
    coarse = rng.integers(0, 2, (-(-height // 5), -(-width // 3), channels))
    return _scaled(np.repeat(np.repeat(coarse, 5, 0), 3, 1)[:height, :width].astype(np.float64), dtype)


def constant(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """200/255 of full scale."""
    return np.full((height, width, channels), 200 * (np.iinfo(dtype).max // 255), dtype)


def noise(height: int, width: int, channels: int = 3, dtype=np.uint8, seed: int = 5) -> np.ndarray:
    """Independent samples."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def ramp(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """A slope along each axis."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return _scaled((x / max(1, width - 1) + y / max(1, height - 1) + 0.1 * c) / 2.3, dtype)


def photo(name: str, height: int, width: int, top: int = 0, left: int = 0, dtype=np.uint8) -> np.ndarray:
    """A part of a photograph, (H, W, 3)."""
    from PIL import Image

    with Image.open(PHOTOS / f"{name}.png") as file:
        pixels = np.asarray(file.convert("RGB"))[top : top + height, left : left + width]
    assert pixels.shape == (height, width, 3), (name, pixels.shape)
    if dtype == np.uint16:
        spread = np.random.default_rng(16).integers(-100, 101, pixels.shape)
        return np.clip(pixels.astype(np.int64) * 257 + spread, 0, 65535).astype(np.uint16)
    return np.ascontiguousarray(pixels)


def bodies(depth: int, height: int, width: int, channels: int = 1, dtype=np.uint8) -> np.ndarray:
    """An ellipsoid in waves and noise: (depth, H, W) or (depth, H, W, C), integers of full range, floats of 3 to 40."""
    z, y, x = np.mgrid[:depth, :height, :width] / max(depth, height, width, 8)
    rng, parts = np.random.default_rng(depth * height * width), []
    for c in range(channels):
        inside = (x - 0.5) ** 2 + 2 * (y - 0.4) ** 2 + 3 * (z - 0.3) ** 2 < 0.16 + 0.02 * c
        waves = 0.25 * np.sin(9 * x + 14 * y - 11 * z + c) * np.cos(5 * z + 3 * y)
        parts.append(0.35 + waves + 0.3 * inside + 0.02 * rng.standard_normal(x.shape))
    unit = np.clip(np.stack(parts, axis=-1) if channels > 1 else parts[0], 0, 1)
    if np.dtype(dtype).kind == "f":
        return (37 * unit + 3).astype(dtype)
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    return (np.rint(unit * (int(highest) - int(lowest))) + lowest).astype(dtype)


def spectrum(height: int, width: int, bands: int, dtype=np.uint16) -> np.ndarray:
    """A photograph's three channels and their mixtures, a band each: (H, W, bands)."""
    pixels = photo("wren", height, width, 30, 20).astype(np.float64) / 255
    at = np.linspace(0, 2, bands)
    mix = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(3)))  # [bands, 3]
    unit = pixels @ mix.T * (0.6 + 0.4 * np.cos(at)) + 0.01 * np.random.default_rng(bands).standard_normal(bands)
    if np.dtype(dtype).kind == "f":
        return (1.2 * unit).astype(dtype)
    return _scaled(unit, dtype)


def impulses(phases: int, size: int) -> np.ndarray:
    """Signal (phases², size, size): channel p·phases + q has one impulse, at a place of phase (p, q)."""
    x = np.zeros((phases * phases, size, size))
    for p in range(phases):
        for q in range(phases):
            x[p * phases + q, size // 2 + p, size // 2 + q] = 0.5
    return x


def tone(frames: int, channels: int = 2, dtype=np.int16, scale: float = 20000) -> np.ndarray:
    """Two sweeps, some noise and an offset: (frames, channels) integers of about ±`scale`."""
    t = np.arange(frames) / 1000
    rng = np.random.default_rng(frames)
    left = np.sin(40 * t * t + 9 * t) * 0.6 + 0.3 * np.sin(300 * t)
    right = np.sin(170 * t + 2) * 0.5 + 0.2 * np.cos(40 * t * t)
    several = np.stack([left, right, 0.5 * right - 0.2 * left, 0.6 * left], axis=1)
    both = several[:, :channels] + 0.05 * rng.standard_normal((frames, channels)) + 0.07
    return np.rint(both * scale).astype(dtype)


def symbols(shape: tuple[int, ...], bits: int, seed: int = 0) -> np.ndarray:
    """Symbols of planes that get weaker, smooth and with outliers: int16."""
    rng = np.random.default_rng(seed)
    last = 2 ** (bits - 1) - 1
    x = rng.standard_normal(shape)
    for axis in range(1, len(shape)):
        x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / 1.7
    strength = last * 0.6 / (1 + np.arange(shape[0])).reshape(-1, *[1] * (len(shape) - 1))
    x = np.rint(x * strength + rng.standard_t(3, shape) * 0.4)
    return np.clip(x, -last, last).astype(np.int16)


def every_symbol(planes: int, bits: int, width: int = 16) -> np.ndarray:
    """Every symbol value in every plane, in a different order in each: (planes, h, width), int16."""
    last = 2 ** (bits - 1) - 1
    values = np.arange(-last, last + 1)
    values = np.resize(values, -(-values.size // width) * width)
    rng = np.random.default_rng(bits)
    return np.stack([rng.permutation(values) for _ in range(planes)]).reshape(planes, -1, width).astype(np.int16)


def weights(shapes: dict[str, tuple[int, ...]], config: dict, seed: int) -> dict[str, np.ndarray]:
    """Seeded float32 weights that use most of the symbols' range and keep a decoded image near the original.

    The lightweight encoder is an orthonormal basis near the low-pass bands, times a scale; a linear decoder is its
    transpose. Every other tensor is noise with norms near one.
    """
    axes = {"Codec1D": 1, "LinearCodec3D": 3}.get(config["architecture"], 2)
    bands = config["channels"] << (config["J"] * axes)
    latents = config["latent_dim"]
    rng = np.random.default_rng(seed)
    scale = 60.0 * 2.0 ** (config["latent_bits"] - 8) / 2 ** (config["J"] * axes / 2) * 2
    rows = min(latents, bands)
    mix = 0.1 * rng.standard_normal((bands, rows))
    low = range(0, bands, bands // config["channels"])[:rows]
    mix[low, range(len(low))] += 3
    basis = np.zeros((latents, bands))
    basis[:rows] = np.linalg.qr(mix)[0].T
    tensors = {}
    for name, shape in shapes.items():
        if name == "encoder.0.weight" or (name.startswith("encoders.") and name.endswith("weight")):
            stage = int(name.split(".")[1]) if name.startswith("encoders.") else 0
            t = scale * (1 + 2 * stage) * np.roll(basis, stage, axis=1).reshape(shape)
        elif name == "decoder.1.weight" or (name.startswith("decoders.") and name.endswith("weight")):
            stage = int(name.split(".")[1]) if name.startswith("decoders.") else 0
            t = np.roll(basis, stage, axis=1).T.reshape(shape) / (scale * (1 + 2 * stage))
        elif "norm" in name:
            t = (1.0 if name.endswith("weight") else 0.0) + 0.2 * rng.standard_normal(shape)
        elif name.endswith("weight_g"):
            t = (0.5 if "res_unit" in name else 1.2) * (1 + 0.2 * rng.standard_normal(shape))
        elif name == "post.weight":
            t = 0.01 * rng.standard_normal(shape)
            t[:, :, shape[2] // 2] += np.eye(shape[0])
        elif name.endswith("bias"):
            t = 0.3 * rng.standard_normal(shape)
        elif ".alpha" in name or ".beta" in name:
            t = 0.3 * rng.standard_normal(shape) + (2.0 if ".beta" in name else 0)
        else:
            t = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        tensors[name] = np.ascontiguousarray(t, dtype=np.float32)
    last = "decoder.1.conv_out.weight" if "decoder.1.conv_out.weight" in tensors else "decoder.1.conv2.weight_g"
    if last in tensors:
        tensors[last] = (tensors[last] * 0.25).astype(np.float32)  # so that some samples are clamped, and most are not
    if "encoder.0.conv_out.weight" in tensors:
        tensors["encoder.0.conv_out.weight"] *= np.float32(40)
    if "encoder.0.conv2.weight_g" in tensors:
        tensors["encoder.0.conv2.weight_g"] *= np.float32(20)
    return tensors


def heat(tensors: dict[str, np.ndarray]) -> None:
    """Make scores of the attention and inputs of SiLU as large as ±2000 and more, and what follows as small as before."""
    for name, tensor in tensors.items():
        if "attentions.0.to_q.weight" in name:
            tensor *= np.float32(3000)
        elif "resnets.0.norm1.weight" in name:
            tensor *= np.float32(900)
        elif "resnets.0.conv1.weight" in name:
            tensor *= np.float32(1 / 900)


def tables(planes: int, bits: int, seed: int, *, wild: bool = False, depth: bool = False) -> bytes:
    """Seeded tables of the entropy coder, as SPEC.md 7.2 serialises them: hidden units, both kinds of taps, any state.

    With `wild`, weights are so large that sums come near their limit, and means, scales and hidden units saturate. With
    `depth`, every third tap looks at the depth position before (16.6).
    """
    rng = np.random.default_rng(seed)
    counts, taps, rest = b"", b"", b""
    size = 9000 if wild else 900
    for c in range(planes):
        number, hidden = int(rng.integers(1, 12)), int(rng.integers(0, 7))
        counts += bytes([number, hidden])
        for tap in range(number):
            dy, dx = (int(v) for v in rng.integers(-3, 4, 2))
            source = int(rng.integers(0, c + 1))
            if source == c and (dy, dx) >= (0, 0):
                dy, dx = -dy, -dx
                if (dy, dx) == (0, 0):
                    dx = -1
            if depth and tap % 3 == 0:
                source = planes + int(rng.integers(0, planes))
            code = int(rng.integers(0, 2)) * 49 + (dy + 3) * 7 + dx + 3
            taps += source.to_bytes(2, "little") + bytes([code])
        units = rng.integers(-size, size + 1, (number, 2 + hidden))
        units[:, 1] = np.abs(units[:, 1])
        rest += units.astype("<i2").tobytes()
        rest += rng.integers(-(2**17), 2**17, 2 + hidden).astype("<i4").tobytes()
        rest += rng.integers(-size, size + 1, (hidden, 2)).astype("<i2").tobytes()
    states = rng.integers(1, 4096, 16 * (748 + 11 * planes)) * 16 + rng.integers(0, 16, 16 * (748 + 11 * planes))
    mixers = rng.integers(-100, 500, 512)
    head = b"WET1" + np.array([planes, bits], "<u2").tobytes()
    return head + counts + taps + rest + states.astype("<u2").tobytes() + mixers.astype("<i2").tobytes()


def _scaled(unit: np.ndarray, dtype) -> np.ndarray:
    """0 … 1 to 0 … full scale."""
    return np.rint(np.clip(unit, 0, 1) * np.iinfo(dtype).max).astype(dtype)
