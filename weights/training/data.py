"""Training data: images and tracks in memory, and seeded random crops of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image, ImageOps

from training.wavelet import Wavelet

IMAGES, TRACKS = (".jpg", ".jpeg", ".png", ".webp"), (".flac", ".ogg", ".mp3", ".wav")
"""Suffixes of the files that are read."""

SUBSET_WEIGHT = {"dreambooth": 0.35, "unsplash": 0.7, "pexels": 0.7, "cq100": 0.5}
"""Sampling weight of an image by subset (1 elsewhere): 29 repeated subjects, many landscapes, very colourful."""


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files below `folder` with one of the suffixes, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)


def read_image(path: Path, channels: int) -> np.ndarray:
    """An 8-bit image as ``[channels, H, W]`` uint8, EXIF orientation applied."""
    with Image.open(path) as im:
        im = ImageOps.exif_transpose(im).convert("RGB" if channels == 3 else "L")
        a = np.asarray(im)
    return np.ascontiguousarray(a.transpose(2, 0, 1) if a.ndim == 3 else a[None])


class Images:
    """Training images in memory and seeded random crops of them, flipped, transposed and shifted by any pixel."""

    def __init__(self, folder: Path, channels: int, margin: int, rng: np.random.Generator):
        files = list_files(folder, IMAGES)
        self.images = [read_image(f, channels) for f in files]
        weight = [SUBSET_WEIGHT.get(f.parent.name, 1.0) * math.sqrt(im[0].size) for f, im in zip(files, self.images)]
        self.p = np.array(weight) / sum(weight)
        self.margin, self.rng = margin, rng

    def batch(self, count: int, size: int, wrap: bool) -> torch.Tensor:
        """Float32 crops ``[count, c, size + 2·margin, ...]`` in [-0.5, 0.5]; `wrap`: margins repeat the crop."""
        m = self.margin
        need = size if wrap else size + 2 * m
        out = []
        for i in self.rng.choice(len(self.images), count, p=self.p):
            im = self.images[i]
            pad = [max(0, need - n) for n in im.shape[1:]]
            if any(pad):
                im = np.pad(im, ((0, 0), (0, pad[0]), (0, pad[1])), mode="symmetric")
            y, x = (int(self.rng.integers(0, n - need + 1)) for n in im.shape[1:])
            crop = im[:, y : y + need, x : x + need]
            flags = self.rng.integers(0, 2, 3)
            if flags[0]:
                crop = crop[:, ::-1]
            if flags[1]:
                crop = crop[:, :, ::-1]
            if flags[2]:
                crop = crop.transpose(0, 2, 1)
            if wrap:
                crop = np.pad(crop, ((0, 0), (m, m), (m, m)), mode="wrap")
            out.append(crop)
        return torch.from_numpy(np.stack(out).astype(np.float32) / 255 - 0.5)


def sample_coefficients(wavelet: Wavelet, images: Images) -> torch.Tensor:
    """Coefficients ``[count, n]`` of random places in the training images."""
    P = wavelet.P
    return torch.cat(
        [
            wavelet.analyse(images.batch(8, 24 * P, False)).permute(0, 2, 3, 1).flatten(0, 2)[::2]
            for _ in range(max(8, 60 * 64 // P**2))
        ]
    )


def read_audio(path: Path, channels: int) -> np.ndarray:
    """A track as ``[channels, L]`` float32: mean removed, divided by its peak, halved."""
    x, _ = soundfile.read(path, dtype="float32", always_2d=True)
    x = x.T
    if x.shape[0] != channels:
        x = np.repeat(x.mean(0, keepdims=True), channels, axis=0)
    x = x - x.mean()
    return x / max(float(np.abs(x).max()), 1e-9) / 2


class Tracks:
    """Packet coefficients of all training tracks, and seeded random crops with random polarity and channel swap."""

    def __init__(self, codec: torch.nn.Module, files: list[Path], rng: np.random.Generator, cache: Path | None):
        self.rng, self.channels = rng, codec.channels
        self.names = [f.name for f in files]
        self.X: list[torch.Tensor] = []
        with torch.no_grad():
            for f in files:
                kept = cache / f"{f.name}.J{codec.J}.pt" if cache else None
                if kept and kept.exists():
                    self.X.append(torch.load(kept))
                    continue
                x = read_audio(f, codec.channels)
                x = np.pad(x, ((0, 0), (0, -x.shape[1] % 2**codec.J)))
                self.X.append(codec.wavelet_analysis(torch.from_numpy(x)[None], codec.J)[0].half())
                if kept:
                    torch.save(self.X[-1], kept)
        self.weight = torch.ones(len(files))  # of squared errors, one a track
        self.p = np.array([math.sqrt(X.shape[1]) for X in self.X])
        self.p /= self.p.sum()

    def batch(self, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients ``[count, n, size]`` and the weight of each crop."""
        out, picks = [], self.rng.choice(len(self.X), count, p=self.p)
        for i in picks:
            X = self.X[i]
            first = int(self.rng.integers(0, max(1, X.shape[1] - size + 1)))
            crop = X[:, first : first + size].float()
            if crop.shape[1] < size:
                crop = torch.nn.functional.pad(crop, (0, size - crop.shape[1]))
            if self.rng.integers(0, 2):
                crop = -crop
            if self.rng.integers(0, 2):
                crop = crop.unflatten(0, (self.channels, -1)).flip(0).flatten(0, 1)
            out.append(crop)
        return torch.stack(out), self.weight[torch.from_numpy(picks)]
