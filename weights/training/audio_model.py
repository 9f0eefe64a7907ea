"""Training of an audio decoder and of the post filter behind it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from training.data import TRACKS, Tracks, list_files
from training.encoder import companded_scales, entropy_bits, principal_components, quantise, set_encoder
from training.schedule import Run, write_model
from training.settings import HYPER_AUDIO, MODELS, settings
from training.wavelet import band_norms
from walloc_ref.measure import upstream
from walloc_ref.model import Config

UNUSUAL = 100
"""A loss of this many times the running mean is not learned from."""


def build(spec: dict) -> tuple[torch.nn.Module, Config]:
    """An untrained `Codec1D` and its configuration."""
    channels, J, latent_dim = spec["channels"], spec["J"], spec["latent_dim"]
    config = Config("Codec1D", channels, J, latent_dim, 8, Nd=spec["Nd"], post_filter=spec["post_filter"])
    return upstream.untrained(config, 32), config


def set_weight_norm(layer: torch.nn.Module, weight: torch.Tensor) -> None:
    """Store a weight in a weight-normed layer: g the norm over all but the first axis, v the direction.

    v gets the largest element 1, so that one learning rate suits it whatever the units of the weight are.
    """
    with torch.no_grad():
        layer.weight_g.copy_(weight.flatten(1).norm(dim=1).reshape(layer.weight_g.shape))
        peak = weight.flatten(1).abs().amax(1).clamp_min(1e-12).reshape(layer.weight_g.shape)
        layer.weight_v.copy_(weight / peak)


def linear_start(decoder: torch.nn.Module, sigma: torch.Tensor) -> torch.Tensor:
    """Make the Oobleck decoder pass its latents through, so that only its last convolution is to be fitted.

    Identity taps everywhere; of the two transposed convolutions the first uses its tap 0 and the second its tap 1,
    which also takes away the two border latents of the padded encoder. Inside, latents are divided by the root of
    their standard deviation, the returned divisor, so that strong and weak ones learn alike. Residual branches end in
    a gain of zero, and see every channel at unit variance.
    """
    divisor = sigma.sqrt()
    D = decoder.conv1.in_channels
    width = decoder.conv1.out_channels

    with torch.no_grad():
        w = torch.zeros_like(decoder.conv1.weight_v)  # [width, D, 7]
        w[:D, :, 3] = torch.diag(1 / divisor)
        if width > D:
            spare = decoder.conv1.weight_v[D:] / decoder.conv1.weight_v[D:].flatten(1).norm(dim=1)[:, None, None]
            w[D:] = spare / sigma[None, :, None]
        set_weight_norm(decoder.conv1, w)
        decoder.conv1.bias.zero_()
        for tap, block in enumerate(decoder.block):
            t = block.conv_t1
            w = torch.zeros_like(t.weight_v)  # [in, out, 2]
            n_in, n_out = w.shape[:2]
            n = min(n_in, n_out)
            w[range(n), range(n), tap] = 1
            if n_out < n_in:  # the spare channels end here: a small random mixture keeps their gradient alive
                w[n_out:, :, tap] = torch.randn(n_in - n_out, n_out) * 1e-3
            set_weight_norm(t, w)
            t.bias.zero_()
            block.snake1.alpha.fill_(-9)
            std = torch.ones(n_out)
            std[:D] = sigma / divisor
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                unit.snake1.alpha.copy_(-std.log()[None, :, None])
                unit.snake1.beta.copy_(-std.log()[None, :, None])
                unit.conv1.weight_v.div_(std[None, :, None])
                unit.conv1.weight_g.copy_(unit.conv1.weight_v.flatten(1).norm(dim=1).reshape(-1, 1, 1))
                unit.conv2.weight_g.zero_()
                unit.conv2.bias.zero_()
        decoder.snake1.alpha.fill_(-9)
    return divisor


def decode_track(codec: torch.nn.Module, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols and decoded samples before the post filter of one whole track ``[n, positions]``."""
    with torch.no_grad():
        Y = quantise(codec, X[None].to(next(codec.parameters()).dtype))
        parts, step, halo = [], 4096, 128  # chunks with more overlap than the receptive field
        n = X.shape[1]
        for first in range(0, n, step):
            a, b = max(0, first - halo), min(n, first + step + halo)
            parts.append(codec.decoder(Y[..., a : b + 2])[..., first - a : min(first + step, n) - a])
        return Y[0], codec.wavelet_synthesis(torch.cat(parts, -1), codec.J)[0]


def evaluate(codec: torch.nn.Module, tracks: list[torch.Tensor]) -> tuple[float, float, list[np.ndarray]]:
    """Mean PSNR (-10·log10 of the mean squared error of the normalised signal), order-0 bits a sample, symbols."""
    psnr, symbols, samples = [], [], 0
    with torch.no_grad():
        for X in tracks:
            x = codec.wavelet_synthesis(X[None].float(), codec.J)[0]
            Y, y = decode_track(codec, X.float())
            if codec.post_filter:
                y = codec.post(y[None])[0]
            y = codec.clamp(y)
            psnr.append(-10 * math.log10(float(((x - y) ** 2).mean())))
            symbols.append(Y.numpy().astype(np.int16))
            samples += x.numel()
    return float(np.mean(psnr)), entropy_bits(symbols) / samples, symbols


def fit_post_filter(codec: torch.nn.Module, tracks: Tracks, count: int, ridge: float) -> None:
    """Least squares of the post filter from decoded to original samples, over `count` stretches of music."""
    taps, C = codec.post.kernel_size[0], codec.channels
    gram = cross = 0.0
    with torch.no_grad():
        for _ in range(count):
            X, weight = tracks.batch(1, 512)
            x = codec.wavelet_synthesis(X, codec.J)[0]
            _, y = decode_track(codec, X[0])
            edge = 32 * 2**codec.J // 8
            F = torch.cat([c.unfold(0, taps, 1) for c in y], 1)[edge:-edge:5]  # [n, C·taps]
            T = x[:, taps // 2 + edge : x.shape[1] - taps // 2 - edge : 5].T
            w = float(weight)
            gram, cross = gram + w * (F.T @ F).double(), cross + w * (F.T @ T).double()
        unit = torch.zeros(C, C, taps, dtype=torch.float64)
        unit[range(C), range(C), taps // 2] = 1
        unit = unit.reshape(C, -1).T  # shrink towards the unit impulse
        penalty = torch.diag(torch.full((C * taps,), ridge * float(gram.diagonal().mean()), dtype=torch.float64))
        W = unit + torch.linalg.solve(gram + penalty, cross - gram @ unit)
        codec.post.weight.copy_(W.T.reshape(C, C, taps).float())
        codec.post.bias.zero_()


def train(args: argparse.Namespace) -> None:
    """Train one audio model from nothing."""
    spec, hyper = settings(MODELS[args.model], HYPER_AUDIO, args.set)
    run = Run(Path(args.run), f"{args.model} minutes={args.minutes}", spec, hyper)
    codec, config = build(spec)
    decoder = codec.decoder[1]
    norms = band_norms(spec["J"]).repeat(spec["channels"])
    files = list_files(Path(args.data), TRACKS)
    held = files[:: hyper["hold_every"]]  # watched, not trained on
    cache = Path(args.cache) if args.cache else None
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
    held_X = [X[:, : hyper["hold_positions"]] for X in Tracks(codec, held, run.rng, cache).X]
    tracks = Tracks(codec, [f for f in files if f not in held], run.rng, cache)
    run.log(f"{len(tracks.X)} training tracks, {len(held)} held out: {' '.join(f.name for f in held)}")

    def report(last: bool) -> str:
        with run.averaged():
            if last and codec.post_filter:
                fit_post_filter(codec, tracks, hyper["post_stretches"], hyper["post_ridge"])
            psnr, _, _ = evaluate(codec, held_X)
            write_model(run.folder / "current.safetensors", args.model, config, codec)
        run.save(codec, weight=tracks.weight)
        return f"EMA held out {psnr:.3f} dB"

    saved = run.load(codec)
    if saved is None:
        start(run, codec, norms, tracks, held_X)
        run.begin(decoder)
        run.log(report(True))
    else:
        tracks.weight = saved["weight"]
        run.resume(decoder, saved)
    loss_weight = (norms**2)[None, :, None]
    for _ in run.steps(args.minutes, args.every, report):
        X, weight = tracks.batch(hyper["batch"], hyper["crop"])
        error = (codec.decoder(quantise(codec, X)) - X).pow(2) * loss_weight
        loss = (error.mean((1, 2)) * weight).mean()
        value = float(loss.detach())
        if run.usual(value, UNUSUAL):
            (loss / (run.running or value)).backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), hyper["clip"])
            run.learn(value)
    run.log("done")
    if args.out:
        Path(args.out).write_bytes((run.folder / "current.safetensors").read_bytes())


def start(run: Run, codec: torch.nn.Module, norms: torch.Tensor, tracks: Tracks, held: list[torch.Tensor]) -> None:
    """The encoder in closed form, the decoder as a linear codec, the post filter as a unit impulse; weights of tracks.

    The linear codec (components over the scale) comes first to know each track's error and weigh it.
    """
    spec, hyper, decoder = run.spec, run.hyper, codec.decoder[1]
    whiten = hyper["whiten"]
    X = torch.cat(
        [v.float().T[:: max(1, v.shape[1] // 2000)] / v.float().pow(2).mean().sqrt() ** whiten for v in tracks.X]
    )
    W, _ = principal_components(X, norms, spec["latent_dim"])
    few = [v.float().T[:: max(1, v.shape[1] // 500)] for v in tracks.X]
    scales = companded_scales(codec, [v @ W.T for v in few], spec["slope"])
    run.log("scales " + " ".join(f"{s:.1f}" for s in scales.tolist()))
    set_encoder(codec.encoder[0], W, torch.zeros(len(norms)), scales)
    sigma = codec.decoder[0](quantise(codec, torch.cat(few).T[None]))[0, :, 1:-1].std(1).clamp_min(0.3)
    run.log("sigma " + " ".join(f"{s:.2f}" for s in sigma.tolist()))
    divisor = linear_start(decoder, sigma)
    with torch.no_grad():
        if codec.post_filter:
            channels = range(codec.channels)
            codec.post.weight.zero_()
            codec.post.bias.zero_()
            codec.post.weight[channels, channels, codec.post.kernel_size[0] // 2] = 1
        w = torch.zeros_like(decoder.conv2.weight_v)
        w[:, :, 3] = (W / (norms**2) * (divisor / scales)[:, None]).T
        set_weight_norm(decoder.conv2, w)
        psnr, bps, _ = evaluate(codec, held)
        run.log(f"linear: held out {psnr:.3f} dB, order-0 {bps:.4f} bits a sample, ratio {16 / bps:.1f}")
        for i, v in enumerate(tracks.X):
            part = v[:, :: max(1, v.shape[1] // 512)].float()
            y = codec.decoder(quantise(codec, part[None]))[0]
            tracks.weight[i] = 1 / float(((y - part) * norms[:, None]).pow(2).mean() + 1e-9)
        tracks.weight = tracks.weight.clamp_max(30 * tracks.weight.median())
        tracks.weight = tracks.weight / float((tracks.weight * torch.from_numpy(tracks.p)).sum())
        tracks.weight = tracks.weight ** hyper["track_power"]
