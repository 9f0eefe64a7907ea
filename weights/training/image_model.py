"""Training of an image decoder."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from training.data import IMAGES, Images, list_files, read_image, sample_coefficients
from training.encoder import dequantise, entropy_bits, equal_slope_scales, principal_components, quantise, set_encoder
from training.image_start import fit_last_convolution, linear_start
from training.schedule import Run, write_model
from training.settings import HYPER, MODELS, settings
from training.wavelet import Wavelet
from walloc_ref.measure import upstream
from walloc_ref.model import Config

_, walloc = upstream.load()

UNUSUAL = 30
"""A loss of this many times the running mean is not learned from."""


class Crops:
    """Coefficients of crops to train on, small ones and large ones."""

    def __init__(self, images: Images, wavelet: Wavelet, hyper: dict) -> None:
        self.images, self.wavelet, self.hyper = images, wavelet, hyper
        self.pool: list[torch.Tensor] = []

    def cut(self, count: int, size: int, wrap: bool) -> torch.Tensor:
        """New crops of size·size positions; `wrap`: each transformed as an image of its own, borders included."""
        samples = self.images.batch(count, size * self.wavelet.P, wrap)
        return self.wavelet.analyse(samples).contiguous(memory_format=torch.channels_last)

    def small(self) -> torch.Tensor:
        """A batch of which `fresh` crops are new; new transforms would take a third of the time otherwise."""
        hyper, pool = self.hyper, self.pool
        need = hyper["fresh"] if len(pool) >= 16 * hyper["batch"] else hyper["batch"]
        new = list(self.wavelet.analyse(self.images.batch(need, hyper["crop"] * self.wavelet.P, False)))
        old = hyper["batch"] - need
        picks = [pool[i] for i in self.images.rng.choice(len(pool), old, replace=False)] if pool else []
        pool.extend(new)
        if len(pool) > hyper["pool"]:
            del pool[: len(pool) - hyper["pool"]]
        return torch.stack(new + picks).contiguous(memory_format=torch.channels_last)

    def large(self) -> torch.Tensor:
        """A batch of large crops."""
        return self.cut(self.hyper["large_batch"], self.hyper["large_crop"], True)


def build(spec: dict) -> tuple[torch.nn.Module, Config]:
    """An untrained `Codec2D` and its configuration."""
    config = Config("Codec2D", spec["channels"], spec["J"], spec["latent_dim"], 8, Nd=spec["Nd"])
    return upstream.untrained(config, 32).to(memory_format=torch.channels_last), config


def evaluate(
    codec: torch.nn.Module, images: list[np.ndarray], steps: float | torch.Tensor = 1
) -> tuple[float, float, list[np.ndarray]]:
    """Mean PSNR over whole images through the upstream's own functions, bits a pixel at order 0, symbols."""
    psnr, symbols, pixels = [], [], 0
    dtype = next(codec.parameters()).dtype
    with torch.no_grad():
        for im in images:
            x = torch.from_numpy(im.astype(np.float64) / 255 - 0.5)[None].to(dtype)
            padded = walloc.pad(x, 2**codec.J)
            Y = quantise(codec, codec.wavelet_analysis(padded, codec.J), steps)
            X = codec.decoder[1](dequantise(codec, Y, steps))
            y = codec.clamp(codec.wavelet_synthesis(X, codec.J))
            out = torch.round(255 * (walloc.crop(y, x.shape[2:])[0] + 0.5)).clamp(0, 255).numpy()
            psnr.append(10 * math.log10(255**2 / float(np.mean((out - im) ** 2.0))))
            symbols.append(Y[0].numpy().astype(np.int16))
            pixels += im[0].size
    return float(np.mean(psnr)), entropy_bits(symbols) / pixels, symbols


def read_tuning(folder: str, channels: int, stride: int) -> list[np.ndarray]:
    """Every `stride`-th image of a folder to watch the training on."""
    return [read_image(f, channels) for f in list_files(Path(folder), IMAGES)[::stride]]


def train_decoder(
    run: Run,
    codec: torch.nn.Module,
    crops: Crops,
    latents: Callable[[torch.Tensor], tuple[torch.Tensor, float | torch.Tensor]],
    report: Callable[[bool], str],
    args: argparse.Namespace,
    clock: Callable[[], float] = time.time,
) -> None:
    """Descend the squared error of samples; at the end the decoder has the averaged weights.

    Parameters
    ----------
    latents : callable
        From the coefficients of a batch to what the network gets, and the weight of each crop's error.
    report, clock
        See `Run.steps`.
    """
    wavelet, channels = crops.wavelet, codec.channels
    band_weight = (wavelet.norms**2).repeat(channels)[None, :, None, None]
    for share in run.steps(args.minutes, args.every, report, clock):
        large = share > 1 - run.hyper["large_share"]
        X = crops.large() if large else crops.small()
        z, weight = latents(X)
        X_hat = codec.decoder[1](z)
        error = X_hat.detach() - X
        if large:
            loss, gradient = wavelet.loss_and_grad(error, channels)
        else:
            gradient = 2 * error * band_weight
            loss = 0.5 * float((error * gradient).sum())
        samples = X.numel()  # as many as coefficients
        if run.usual(loss / samples, UNUSUAL):
            X_hat.backward(gradient * weight / samples)
            run.learn(loss / samples)
    codec.decoder[1].load_state_dict(run.ema)


def train(args: argparse.Namespace) -> None:
    """Train one image model from nothing."""
    spec, hyper = settings(MODELS[args.model], HYPER, args.set)
    run = Run(Path(args.run), f"{args.model} minutes={args.minutes}", spec, hyper)
    wavelet = Wavelet(spec["J"], 2)
    codec, config = build(spec)
    decoder = codec.decoder[1]
    images = Images(Path(args.data), spec["channels"], wavelet.margin, run.rng)
    crops = Crops(images, wavelet, hyper)
    tune = read_tuning(args.tune, spec["channels"], 5)
    run.log(f"{len(images.images)} training images, {len(tune)} tuning images")

    def fit(count: int, batch: int, size: int, wrap: bool, ridge: float) -> None:
        batches = (crops.cut(batch, size, wrap) for _ in range(count // batch))
        fit_last_convolution(codec, ((quantise(codec, X), X) for X in batches), ridge)

    saved = run.load(codec)
    if saved is None:
        start(run, codec, wavelet, images)
        fit(hyper["fit_crops"], 8, hyper["crop"], False, hyper["ridge"])
        psnr, bpp, _ = evaluate(codec, tune)
        run.log(f"start: tune {psnr:.3f} dB, order-0 {bpp:.4f} bpp, ratio {8 * spec['channels'] / bpp:.1f}")
        run.begin(decoder)
    else:
        run.resume(decoder, saved)
        if hyper["refit"]:  # go on from the average, with the last convolution fitted to its features
            decoder.load_state_dict(run.ema)
            fit(hyper["refit"], 4, hyper["crop"], False, hyper["ridge"])
            run.ema = {k: v.clone() for k, v in decoder.state_dict().items()}
            run.log(f"last convolution fitted again: tune {evaluate(codec, tune)[0]:.3f} dB")

    def report(_: bool) -> str:
        with run.averaged():
            psnr, _, _ = evaluate(codec, tune)
            write_model(run.folder / "current.safetensors", args.model, config, codec)
        run.save(codec)
        return f"EMA tune {psnr:.3f} dB"

    def latents(X: torch.Tensor) -> tuple[torch.Tensor, float]:
        return dequantise(codec, quantise(codec, X)), 1.0

    train_decoder(run, codec, crops, latents, report, args)
    if hyper["polish_crops"]:
        before = evaluate(codec, tune)[0]
        kept = {k: v.clone() for k, v in decoder.state_dict().items()}
        fit(hyper["polish_crops"], 2, hyper["large_crop"], True, hyper["polish_ridge"])
        after = evaluate(codec, tune)[0]
        run.log(f"last convolution fitted again: tune {before:.3f} -> {after:.3f} dB")
        if after < before:
            decoder.load_state_dict(kept)
    for path in (run.folder / "current.safetensors", args.out):
        if path:
            write_model(Path(path), args.model, config, codec)
    run.log("done")


def start(run: Run, codec: torch.nn.Module, wavelet: Wavelet, images: Images) -> None:
    """The encoder in closed form, and the decoder that passes its latents through."""
    X = sample_coefficients(wavelet, images)
    W, mean = principal_components(X, wavelet.norms.repeat(codec.channels), run.spec["latent_dim"])
    scales = equal_slope_scales((X - mean) @ W.T, run.spec["slope"], 8)
    run.log("scales " + " ".join(f"{s:.2f}" for s in scales.tolist()))
    set_encoder(codec.encoder[0], W, mean, scales)
    sigma = codec.decoder[0](quantise(codec, X.T[None, :, :, None]))[0, :, :, 0].std(1).clamp_min(0.3)
    run.log("sigma " + " ".join(f"{s:.2f}" for s in sigma.tolist()))
    linear_start(codec.decoder[1], sigma, scales, run.hyper["pin"])
