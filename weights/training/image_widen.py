"""A trained image decoder gets more latents: it keeps what it has learned, and decodes the new ones linearly at first.

The encoder is the closed form again: the components that the model has, and after them those of what these leave, all
scaled to the slope of the new model. The decoder has more channels, some at the end of each GroupNorm group:

* Into these go the new latents, one latent to a channel, or to two with opposite signs where there is room. They are so
  small beside the constant that pins the group's scale (`image_start`) that SiLU is nearly straight for them; what
  curvature is left cancels in a pair.
* Residual blocks neither read nor write them: those rows and columns of their convolutions are zero, and stay so in
  training, where they get no gradient, until `image_range` lets a block read them. So they cost next to nothing. Inside
  a block, after its first convolution, they are constants.
* They begin from constants, of two channels one above and one below the group's mean by its standard deviation, as
  measured on training crops. Thus the group's statistics stay what they were, and so does what the old channels do; what
  little is missing is put into the norm's weight and bias.

So the wider decoder decodes the old latents as before. Only the last convolution is fitted anew, by least squares, to
crops at steps of the whole range.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from training.data import Images, sample_coefficients
from training.encoder import dequantise, equal_slope_scales, principal_components, quantise, set_encoder
from training.image_model import Crops, build
from training.image_range import Steps
from training.image_start import fit_last_convolution
from training.schedule import write_model
from training.settings import HYPER_WIDEN, MODELS, settings
from training.wavelet import Wavelet
from walloc_ref import model as models
from walloc_ref.measure import upstream
from walloc_ref.stages.quantise import UNIT_WEIGHT

GROUPS = 32
"""Of every GroupNorm."""

SMALL = 0.05
"""Standard deviation of a new latent relative to its group's."""


def train(args: argparse.Namespace) -> None:
    """Write one wider model, ready for training over a range of steps.

    Raises
    ------
    SystemExit
        The new model has no more channels or latents than the one to start from, or other channels or levels.
    """
    spec, hyper = settings(MODELS[args.model], HYPER_WIDEN, args.set)
    first = models.load(args.start)
    old, D = first.config, spec["latent_dim"]
    more = spec["Nd"] // GROUPS - (old.Nd or 0) // GROUPS
    if (old.channels, old.J) != (spec["channels"], spec["J"]) or old.latent_dim >= D or more < 1:
        raise SystemExit(f"--start {args.start}: {args.model} is no wider model of the same kind")
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    wavelet = Wavelet(spec["J"], 2)
    before = upstream.build(first, 32)
    codec, config = build(spec)
    images = Images(Path(args.data), spec["channels"], wavelet.margin, rng)

    norms = wavelet.norms.repeat(spec["channels"])
    X = sample_coefficients(wavelet, images)
    W, old_scales = components(before.encoder[0].weight.detach().flatten(1), norms, X, D)
    mean = X.mean(0)
    Z = (X - mean) @ W.T
    scales = equal_slope_scales(Z, spec["slope"], 8)
    set_encoder(codec.encoder[0], W, mean, scales)
    weights = step_weights(Z, scales, first.weights_of_steps, old_scales)
    print("scales " + " ".join(f"{s:.2f}" for s in scales.tolist()))
    print("step weights " + " ".join(map(str, weights.tolist())))

    crops = Crops(images, wavelet, hyper)
    low, high = args.steps
    at = Steps(low, high, weights, rng, hyper)

    def batches(count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for _ in range(count):
            X = crops.cut(hyper["batch"], hyper["crop"], True)
            yield X, quantise(codec, X, s := at.draw(len(X))), s

    ratio = (old_scales / scales[: len(old_scales)])[None, :, None, None]
    seen = Statistics(before.decoder[1])
    with torch.no_grad():
        for _, Y, s in batches(hyper["statistics_batches"]):
            before.decoder[1](dequantise(codec, Y, s)[:, : old.latent_dim] * ratio)
    sigma = (dequantise(codec, quantise(codec, X.T[None, :, :, None])))[0, :, :, 0].std(1).clamp_min(0.1)
    widen(before.decoder[1], codec.decoder[1], seen, ratio.flatten(), sigma, W / norms**2 / scales[:, None])
    with torch.no_grad():
        error = [
            10 * torch.log10((before.decoder[1](z[:, : old.latent_dim] * ratio) - X).square().mean()
                             / (codec.decoder[1](z) - X).square().mean())
            for X, Y, s in batches(8) for z in [dequantise(codec, Y, s)]
        ]  # fmt: skip
    print("gain in coefficients, before the fit: " + " ".join(f"{e:.2f}" for e in error) + " dB")

    fit_last_convolution(codec, ((Y, X, s) for X, Y, s in batches(hyper["fit_batches"])), hyper["ridge"])
    write_model(Path(args.out), args.model, config, codec, None, weights)


def components(
    encoder: torch.Tensor, norms: torch.Tensor, X: torch.Tensor, D: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows ``[D, n]`` of unit scale: those of an encoder ``[d, n]``, then those of what they leave; and its scales."""
    V = encoder / norms
    scales = V.norm(dim=1)
    V = V / scales[:, None]
    Y = (X - X.mean(0)) * norms
    rest = Y - (Y @ torch.linalg.pinv(V)) @ V
    more, _ = principal_components(rest / norms, norms, D - len(V))
    return torch.cat([V * norms, more]), scales


def step_weights(Z: torch.Tensor, scales: torch.Tensor, old: np.ndarray, old_scales: torch.Tensor) -> np.ndarray:
    """Step weights [D] with which coarser steps are those of the old model, and of equal slopes: a start, to be fitted.

    Of an old plane, its own: the step that the old model would have, in the new scale. Of a new one, what equal slopes say.
    """
    d = len(old_scales)
    new_steps, ratios = [], []
    for old_slope, old_step in ((0.0015, 0.64), (0.0037, 1.0), (0.008, 1.5)):
        ratio = (scales / equal_slope_scales(Z, old_slope, 8)).numpy()
        old_steps = 1 + old / UNIT_WEIGHT * (old_step - 1) if old_step > 1 else old_step
        ratio[:d] = (scales[:d] / old_scales).numpy() * old_steps
        new_steps.append(ratio.mean() - 1)
        ratios.append(ratio - 1)
    share = sum(r * s for r, s in zip(ratios, new_steps)) / sum(s * s for s in new_steps)
    return np.clip(np.rint(UNIT_WEIGHT * share), 0, 255).astype(np.uint8)


class Statistics:
    """Mean and variance of each group before each GroupNorm of a decoder, over all positions that it decodes."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        self.sums: dict[str, list[torch.Tensor]] = {}
        self.hooks = [
            norm.register_forward_pre_hook(lambda _, a, name=name: self._add(name, a[0]))
            for name, norm in decoder.named_modules()
            if isinstance(norm, torch.nn.GroupNorm)
        ]

    def _add(self, name: str, x: torch.Tensor) -> None:
        groups = x.flatten(2).reshape(len(x), GROUPS, -1)
        self.sums.setdefault(name, []).append(torch.stack([groups.mean(2), groups.var(2, correction=0)]).mean(1))

    def of(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance ``[32]``."""
        for hook in self.hooks:
            hook.remove()
        mean, variance = torch.stack(self.sums[name]).mean(0)
        return mean, variance


def widen(
    old: torch.nn.Module,
    new: torch.nn.Module,
    seen: Statistics,
    ratio: torch.Tensor,
    sigma: torch.Tensor,
    synthesis: torch.Tensor,
) -> None:
    """Write into the decoder `new` what `old` does, and linear decoding of the latents that it does not have.

    Parameters
    ----------
    ratio : shape (d,)
        What latents of the new encoder are to be multiplied by to be those of the old one.
    sigma : shape (D,)
        Standard deviations of the new latents.
    synthesis : shape (D, n)
        What a latent of 1 adds to the coefficients.
    """
    per, wide = old.conv_in.out_channels // GROUPS, new.conv_in.out_channels // GROUPS
    channels = torch.arange(GROUPS * wide).reshape(GROUPS, wide)
    kept, extra = channels[:, :per].flatten(), channels[:, per:]
    d, D = len(ratio), len(sigma)
    places = extra.flatten()
    pairs = min(len(places) - (D - d), D - d)
    if pairs < 0:
        raise ValueError(f"{len(places)} channels more are too few for {D - d} latents more")
    content = [(d + i // 2, 1 - 2 * (i % 2)) for i in range(2 * pairs)] + [(q, 1) for q in range(d + pairs, D)]
    sign = torch.tensor([1.0, -1.0]).repeat(wide)[: wide - per]  # of the distance of the constants from the mean

    def constants(name: str) -> torch.Tensor:
        mean, variance = seen.of(name)
        return mean[:, None] + sign * variance.sqrt()[:, None]  # [32, more]

    def norm(name: str, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of groups with these constants, mean and deviation; the norm's weights so that it does what it did."""
        mean, variance = seen.of(name)
        m = (per * mean + values.sum(1)) / wide
        v = (per * (variance + mean**2) + values.square().sum(1)) / wide - m**2
        source, target = old.get_submodule(name), new.get_submodule(name)
        s, was = v.sqrt(), (variance + source.eps).sqrt()
        target.weight[kept] = source.weight * (s / was).repeat_interleave(per)
        target.bias[kept] = source.bias + source.weight * ((m - mean) / was).repeat_interleave(per)
        return m, s

    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
        for name, parameter in old.named_parameters():  # biases of convolutions, and their weights among old channels
            module, target = name.rsplit(".", 1)[0], new.get_parameter(name)
            if isinstance(old.get_submodule(module), torch.nn.Linear):
                continue
            if parameter.ndim == 4:
                rows = kept if module != "conv_out" else torch.arange(len(target))
                columns = kept if module != "conv_in" else torch.arange(d)
                target[rows[:, None], columns] = parameter
            elif parameter.shape != target.shape:
                target[kept] = parameter
            else:
                target.copy_(parameter)
        new.conv_in.weight[:, :d] *= ratio[None, :, None, None]
        attention = "mid_block.attentions.0.to_out.0.bias"
        new.get_parameter(attention)[kept] = old.get_parameter(attention)

        last = "conv_norm_out"
        state = constants(last)
        new.conv_in.bias[extra] = state
        for block in [f"mid_block.resnets.{i}" for i in range(2)] + [
            f"up_blocks.0.resnets.{i}" for i in range(len(old.up_blocks[0].resnets))
        ]:
            norm(f"{block}.norm1", state)
            hidden = constants(f"{block}.norm2")
            new.get_submodule(block).conv1.bias[extra] = hidden
            norm(f"{block}.norm2", hidden)
        m, s = norm(last, state)
        new.conv_norm_out.weight[extra] = 1.0
        new.conv_norm_out.bias[extra] = -(state - m[:, None]) / s[:, None]
        for channel, (q, side) in zip(places.tolist(), content):
            size = SMALL * float(s[channel // wide])
            new.conv_in.weight[channel, q, 1, 1] = side * size / sigma[q]
            # SiLU(u) is u/2 near 0, and of a pair SiLU(u) - SiLU(-u) = u
            gain = sigma[q] / SMALL * (1 if q < d + pairs else 2)
            new.conv_out.weight[:, channel, 1, 1] = side * gain * synthesis[q]
