"""Training of an image decoder over a range of quantiser steps (SPEC.md section 6), from one that was trained for step 1.

The encoder divides latents by a step before companding, and the decoder multiplies by it: one model then serves many
rates. A network trained for step 1 alone has not seen the errors of the others. Here every crop gets a step of its own,
drawn so that its logarithm is uniform; the planes take as much of it as their step weights say (SPEC.md 6.8), to a
random power, so that the decoder does not depend on the exact weights.

Attention is taken out on the way. In these decoders it adds nearly the same to every position, so it is fixed to its
mean over training crops: its last layer keeps a bias and no weights, which the upstream's class computes unchanged. All
that is left of the network sees a neighbourhood only.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from training.data import Images
from training.encoder import dequantise, quantise
from training.image_model import Crops, evaluate, read_tuning, train_decoder
from training.schedule import Run, nonzero, write_model
from training.settings import HYPER_RANGE, settings
from training.wavelet import Wavelet
from walloc_ref import model as models
from walloc_ref.measure import upstream
from walloc_ref.stages.quantise import UNIT_WEIGHT


class Steps:
    """Random steps, one a plane, by the model's step weights."""

    def __init__(self, low: float, high: float, weights: np.ndarray, rng: np.random.Generator, hyper: dict) -> None:
        self.low, self.high, self.rng, self.hyper = low, high, rng, hyper
        self.weights = torch.from_numpy(weights.astype(np.float32) / UNIT_WEIGHT).reshape(1, -1, 1, 1)

    def of(self, step: float, power: float = 1) -> torch.Tensor:
        """Steps ``[1, planes, 1, 1]``: `step`, and where it exceeds 1, 1 + weight^power·(step − 1)."""
        return 1 + self.weights**power * (step - 1) if step > 1 else torch.full_like(self.weights, step)

    def draw(self, count: int) -> torch.Tensor:
        """Steps of so many crops, ``[count, planes, 1, 1]``."""
        drawn = []
        for _ in range(count):
            step = math.exp(self.rng.uniform(math.log(self.low), math.log(self.high)))
            if self.rng.random() < self.hyper["unit_share"]:
                step = 1.0
            drawn.append(self.of(step, self.rng.uniform(*self.hyper["weight_powers"])))
        return torch.cat(drawn)


def fix_attention(decoder: torch.nn.Module, latents: Iterable[torch.Tensor]) -> None:
    """Let attention add what it adds on average over these latents, and nothing else."""
    attention = decoder.mid_block.attentions[0]
    added: list[torch.Tensor] = []
    hook = attention.register_forward_hook(lambda _, a, out: added.append((out - a[0]).mean((0, 2, 3))))
    with torch.no_grad():
        for z in latents:
            decoder(z)
        attention.to_out[0].weight.zero_()
        attention.to_out[0].bias.copy_(torch.stack(added).mean(0))
    hook.remove()


def skip_attention(decoder: torch.nn.Module) -> None:
    """Compute fixed attention as the constant that it is; of its parameters only that constant learns."""
    attention = decoder.mid_block.attentions[0]
    constant = attention.to_out[0].bias
    for parameter in attention.parameters():
        parameter.requires_grad_(parameter is constant)
    attention.forward = lambda x, *_, **__: x + constant[None, :, None, None]


def read_everything(decoder: torch.nn.Module, block: str, latents: Iterable[torch.Tensor]) -> None:
    """Let a residual block read the channels that its first convolution does not, those of `image_widen`.

    Its first norm brings them to mean 0 and variance 1 over these latents, and their weights begin at next to nothing:
    training goes on from the decoder as it is.
    """
    block_of = decoder.get_submodule(block)
    norm, weight = block_of.norm1, block_of.conv1.weight
    rows, columns = nonzero(weight)
    new = torch.ones(weight.shape[1], dtype=torch.bool)
    new[columns] = False
    if not new.any():
        raise SystemExit(f"--read {block}: reads all channels as it is")
    seen: list[torch.Tensor] = []

    def see(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = torch.nn.functional.group_norm(inputs[0], norm.num_groups, eps=norm.eps)[:, new]
        seen.append(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))

    hook = norm.register_forward_pre_hook(see)
    with torch.no_grad():
        for z in latents:
            decoder(z)
        mean, square = torch.stack(seen).mean(0)
        deviation = (square - mean**2).clamp_min(1e-6).sqrt()
        norm.weight[new], norm.bias[new] = 1 / deviation, -mean / deviation
        weight[rows[:, None], new] = 1e-4 * torch.randn(len(rows), int(new.sum()), 3, 3)
    hook.remove()


def quicken(decoder: torch.nn.Module) -> None:
    """While training, convolve within residual blocks in bfloat16, twice as fast; what passes them by stays binary32.

    Channels that a convolution does not read, or does not write but for its bias, since their weights are all zero
    (`image_widen`), are left out: so they learn nothing, and stay zero.
    """

    def quick(conv: torch.nn.Conv2d) -> Callable[[torch.Tensor], torch.Tensor]:
        rows, columns = nonzero(conv.weight)
        dense = conv.weight[:, :, 0, 0].numel() == len(rows) * len(columns)

        def forward(x: torch.Tensor) -> torch.Tensor:
            weight, bias = conv.weight, conv.bias
            if not dense:
                x, weight, bias = x[:, columns], weight[rows][:, columns], bias[rows]
            if torch.is_grad_enabled():
                x, weight, bias = (t.bfloat16() for t in (x, weight, bias))
            out = torch.nn.functional.conv2d(x, weight, bias, padding=1).float()
            if len(rows) < len(conv.bias):
                full = conv.bias[None, :, None, None].expand(len(out), -1, *out.shape[2:])
                out = full.contiguous(memory_format=torch.channels_last).index_copy(1, rows, out)
            return out

        return forward

    for block in [*decoder.mid_block.resnets, *decoder.up_blocks[0].resnets]:
        for conv in (block.conv1, block.conv2):
            conv.forward = quick(conv)


def train(args: argparse.Namespace) -> None:
    """Train one image model over a range of steps.

    Raises
    ------
    SystemExit
        The model that is to start from has another architecture.
    """
    first = models.load(args.start)
    config = first.config
    if not (config.record.sees_everything and config.encodes_by_projection):
        raise SystemExit(f"--start {args.start}: not a model with an image network and the lightweight encoder")
    low, high = args.steps
    _, hyper = settings({}, HYPER_RANGE, args.set)
    run = Run(Path(args.run), f"{args.model} from {args.start} steps={low},{high} minutes={args.minutes}", {}, hyper)
    wavelet = Wavelet(config.J, 2)
    codec = upstream.build(first, 32).to(memory_format=torch.channels_last)
    decoder = codec.decoder[1]
    images = Images(Path(args.data), config.channels, wavelet.margin, run.rng)
    crops = Crops(images, wavelet, hyper)
    tune = read_tuning(args.tune, config.channels, 10)
    steps = Steps(low, high, first.weights_of_steps, run.rng, hyper)
    run.log(f"{len(images.images)} training images, {len(tune)} tuning images")

    def watched() -> str:
        at = {s: evaluate(codec, tune, steps.of(s))[0] for s in hyper["watch"]}
        return "tune " + " ".join(f"{s}: {psnr:.3f}" for s, psnr in at.items()) + " dB"

    def latents(X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = steps.draw(len(X))
        return dequantise(codec, quantise(codec, X, s), s), s[:, -1:] ** -hyper["step_power"]

    saved = run.load(codec)
    if saved is None:
        for block in args.read:
            read_everything(decoder, block, (latents(crops.cut(4, 32, True))[0] for _ in range(hyper["read_batches"])))
    quicken(decoder)
    if saved is None:
        run.log(f"before: {watched()}")
        if decoder.mid_block.attentions[0].to_out[0].weight.any():
            large = (crops.cut(1, hyper["large_crop"], True) for _ in range(hyper["attention_crops"]))
            fix_attention(decoder, (latents(X)[0] for X in large))
            run.log(f"attention fixed: {watched()}")
        skip_attention(decoder)
        run.begin(decoder)
    else:
        skip_attention(decoder)
        run.resume(decoder, saved)

    def write(path: Path) -> None:
        write_model(path, args.model, config, codec, first.tables, first.step_weights)

    def report(_: bool) -> str:
        with run.averaged():
            text = watched()
            write(run.folder / "current.safetensors")
        run.save(codec)
        return f"EMA {text}"

    train_decoder(run, codec, crops, latents, report, args, clock=time.process_time)
    if args.out:
        write(Path(args.out))
    run.log("done")
