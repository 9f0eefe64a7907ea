"""A trained image decoder gets more channels, and more latents or none: it keeps what it has learned.

The encoder is the closed form again: the components that the model has, and after them those of what these leave, all
scaled to the slope of the new model. Or it is that of another model, whose latents are put together to the old ones. The
decoder has more channels, some at the end of each GroupNorm group:

* Into these go the new latents, one latent to a channel, or to two with opposite signs where there is room. They are so
  small beside the constant that pins the group's scale (`image_start`) that SiLU is nearly straight for them; what
  curvature is left cancels in a pair.
* Residual blocks neither read nor write them: those rows and columns of their convolutions are zero, and stay so in
  training, where they get no gradient, until `image_range` lets a block read them. So they cost next to nothing. Inside
  a block, after its first convolution, they are constants.
* They begin from constants, of two channels one above and one below the group's mean by its standard deviation, as
  measured on training crops. Thus the group's statistics stay what they were, and so does what the old channels do; what
  little is missing is put into the norm's weight and bias.

Where there are no latents more, the new channels are for the residual blocks, which read and write them (`join`): random
features of the latents at first, to which next to nothing is added.

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

FEATURES = 0.1
"""The same of a channel that residual blocks use."""

LITTLE = 1e-4
"""Standard deviation of weights that begin at next to nothing; at nothing at all they would count as left out."""


def train(args: argparse.Namespace) -> None:
    """Write one wider model, ready for training over a range of steps.

    Raises
    ------
    SystemExit
        The new model has no more channels than the one to start from, fewer latents, as many without an encoder that is
        given, or other channels or levels; or the encoder that is given is for another configuration.
    """
    spec, hyper = settings(MODELS[args.model], HYPER_WIDEN, args.set)
    first = models.load(args.start)
    given = models.load(args.encoder) if args.encoder else None
    old, D = first.config, spec["latent_dim"]
    more = spec["Nd"] // GROUPS - (old.Nd or 0) // GROUPS
    fewest = (old.latent_dim or 0) + (given is None)
    if (old.channels, old.J) != (spec["channels"], spec["J"]) or fewest > D or more < 1:
        raise SystemExit(f"--start {args.start}: {args.model} is no wider model of the same kind")
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    wavelet = Wavelet(spec["J"], 2)
    before = upstream.build(first, 32)
    codec, config = build(spec)
    images = Images(Path(args.data), spec["channels"], wavelet.margin, rng)

    norms = wavelet.norms.repeat(spec["channels"])
    X = sample_coefficients(wavelet, images)
    E = before.encoder[0].weight.detach().flatten(1)
    W, old_scales = components(E, norms, X, D)
    if given is None:
        mean = X.mean(0)
        Z = (X - mean) @ W.T
        scales = equal_slope_scales(Z, spec["slope"], 8)
        set_encoder(codec.encoder[0], W, mean, scales)
        weights = step_weights(Z, scales, first.weights_of_steps, old_scales)
        print("scales " + " ".join(f"{s:.2f}" for s in scales.tolist()))
        print("step weights " + " ".join(map(str, weights.tolist())))
    else:
        same = ("channels", "J", "latent_dim", "latent_bits")
        if not given.config.encodes_by_projection or any(getattr(given.config, k) != getattr(config, k) for k in same):
            raise SystemExit(f"--encoder {args.encoder}: not the lightweight encoder of {args.model}")
        for part in ("weight", "bias"):
            codec.encoder[0].get_parameter(part).data.copy_(torch.from_numpy(given.tensors[f"encoder.0.{part}"]))
        weights = given.weights_of_steps

    # latents are turned into the old ones, and into what these leave, by way of the coefficients that they stand for
    latents = codec.encoder[0].weight.detach().flatten(1)
    V = latents / norms
    synthesis = V / V.square().sum(1, keepdim=True) / norms
    to_old, to_rest = whole(E @ synthesis.T), whole(W[len(E) :] @ synthesis.T)
    offset = before.encoder[0].bias.detach() - to_old @ codec.encoder[0].bias.detach()

    crops = Crops(images, wavelet, hyper)
    low, high = args.steps
    at = Steps(low, high, weights, rng, hyper)

    def batches(count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for _ in range(count):
            X = crops.cut(hyper["batch"], hyper["crop"], True)
            yield X, quantise(codec, X, s := at.draw(len(X))), s

    def as_before(z: torch.Tensor) -> torch.Tensor:
        return before.decoder[1](torch.einsum("od,bdhw->bohw", to_old, z) + offset[:, None, None])

    seen = Statistics(before.decoder[1])
    with torch.no_grad():
        for _, Y, s in batches(hyper["statistics_batches"]):
            as_before(dequantise(codec, Y, s))
    z = dequantise(codec, quantise(codec, X.T[None, :, :, None]))[0, :, :, 0]
    sigma = (to_rest @ z).std(1).clamp_min(1e-3)
    widen(before.decoder[1], codec.decoder[1], seen, to_old, offset, to_rest, sigma, W[len(E) :] / norms**2)
    if len(E) == D:
        join(codec.decoder[1], seen, z.std(1), more)
    with torch.no_grad():
        error = [
            10 * torch.log10((as_before(z) - X).square().mean() / (codec.decoder[1](z) - X).square().mean())
            for X, Y, s in batches(8) for z in [dequantise(codec, Y, s)]
        ]  # fmt: skip
    print("gain in coefficients, before the fit: " + " ".join(f"{e:.2f}" for e in error) + " dB")

    fit_last_convolution(codec, ((Y, X, s) for X, Y, s in batches(hyper["fit_batches"])), hyper["ridge"])
    write_model(Path(args.out), args.model, config, codec, given and given.tables, weights)


def whole(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix without what is nothing but rounding."""
    return torch.where(matrix.abs() < 1e-5 * matrix.abs().amax(1, keepdim=True), 0, matrix)


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
    to_old: torch.Tensor,
    offset: torch.Tensor,
    to_rest: torch.Tensor,
    sigma: torch.Tensor,
    synthesis: torch.Tensor,
) -> None:
    """Write into the decoder `new` what `old` does, and linear decoding of the latents that it does not have.

    Parameters
    ----------
    to_old, offset : shapes (d, D), (d,)
        From latents of the new encoder to those of the old one.
    to_rest : shape (r, D)
        From latents of the new encoder to what is to be decoded linearly.
    sigma : shape (r,)
        Standard deviations of that.
    synthesis : shape (r, n)
        What each of it adds to the coefficients.

    Raises
    ------
    ValueError
        More is to be decoded linearly than there are channels.
    """
    per, wide = old.conv_in.out_channels // GROUPS, new.conv_in.out_channels // GROUPS
    kept, extra = places(per, wide)
    spare = extra.numel() - len(sigma)
    if spare < 0:
        raise ValueError(f"{extra.numel()} channels more are too few for {len(sigma)} latents more")
    pairs = min(spare, len(sigma))
    content = [(i // 2, 1 - 2 * (i % 2)) for i in range(2 * pairs)] + [(q, 1) for q in range(pairs, len(sigma))]

    def norm(name: str, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of groups with these constants, mean and deviation; the norm's weights so that it does what it did."""
        mean, variance = seen.of(name)
        m, s = moments(mean, variance, values, per)
        source, target = old.get_submodule(name), new.get_submodule(name)
        was = (variance + source.eps).sqrt()
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
            if module == "conv_in" and parameter.ndim == 4:
                target[kept] = torch.einsum("cotu,od->cdtu", parameter, to_old)
            elif parameter.ndim == 4:
                rows = kept if module != "conv_out" else torch.arange(len(target))
                target[rows[:, None], kept] = parameter
            elif parameter.shape != target.shape:
                target[kept] = parameter
            else:
                target.copy_(parameter)
        new.conv_in.bias[kept] += torch.einsum("cotu,o->c", old.conv_in.weight, offset)
        attention = "mid_block.attentions.0.to_out.0.bias"
        new.get_parameter(attention)[kept] = old.get_parameter(attention)

        last = "conv_norm_out"
        state = constants(seen, last, wide - per)
        new.conv_in.bias[extra.flatten()] = state.flatten()
        for block in residual_blocks(old):
            norm(f"{block}.norm1", state)
            hidden = constants(seen, f"{block}.norm2", wide - per)
            new.get_submodule(block).conv1.bias[extra.flatten()] = hidden.flatten()
            norm(f"{block}.norm2", hidden)
        m, s = norm(last, state)
        new.conv_norm_out.weight[extra] = 1.0
        new.conv_norm_out.bias[extra] = -(state - m[:, None]) / s[:, None]
        for channel, (q, side) in zip(extra.flatten().tolist(), content):
            size = SMALL * float(s[channel // wide])
            new.conv_in.weight[channel, :, 1, 1] = side * size / sigma[q] * to_rest[q]
            # SiLU(u) is u/2 near 0, and of a pair SiLU(u) - SiLU(-u) = u
            gain = sigma[q] / SMALL * (1 if q < pairs else 2)
            new.conv_out.weight[:, channel, 1, 1] = side * gain * synthesis[q]


def join(new: torch.nn.Module, seen: Statistics, sigma: torch.Tensor, more: int) -> None:
    """Fill channels that `widen` added, and left as constants, with random features, and let residual blocks use them.

    Every norm brings the features to unit variance. What blocks write there, and what they do with it, is next to nothing;
    but groups now vary less from image to image, in part by constants, which training makes up for.

    Parameters
    ----------
    sigma : shape (D,)
        Standard deviations of the latents.
    more : int
        Channels that each group got.
    """
    wide = new.conv_in.out_channels // GROUPS
    _, extra = places(wide - more, wide)

    def moments_of(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Constants before a norm, those of its stream or of its own block, with the mean and deviation of their groups."""
        values = constants(seen, name if name.endswith("norm2") else "conv_norm_out", more)
        return values, *moments(*seen.of(name), values, wide - more)

    def features(conv: torch.nn.Conv2d, name: str, inputs: torch.Tensor) -> None:
        """Weights of `conv` to features that are small before the norm, of inputs of these standard deviations."""
        _, _, s = moments_of(name)
        rows = torch.randn(extra.numel(), *conv.weight.shape[1:]) / inputs[:, None, None] / (9 * len(inputs)) ** 0.5
        conv.weight[extra.flatten()] = FEATURES * s.repeat_interleave(more)[:, None, None, None] * rows

    def norm(name: str) -> None:
        values, m, s = moments_of(name)
        target = new.get_submodule(name)
        target.weight[extra] = 1 / FEATURES
        target.bias[extra] = -(values - m[:, None]) / s[:, None] / FEATURES

    def little(conv: torch.nn.Conv2d, rows: torch.Tensor | slice, columns: torch.Tensor | slice) -> None:
        part = torch.zeros_like(conv.weight)
        part[rows], part[:, columns] = 1, 1
        empty = (part > 0) & (conv.weight == 0)
        conv.weight[empty] = LITTLE * torch.randn(int(empty.sum()))

    with torch.no_grad():
        flat, nothing = extra.flatten(), torch.arange(0)
        features(new.conv_in, "conv_norm_out", sigma)
        for name in residual_blocks(new):
            block = new.get_submodule(name)
            norm(f"{name}.norm1")
            norm(f"{name}.norm2")
            features(block.conv1, f"{name}.norm2", torch.ones(len(block.conv1.weight)))
            little(block.conv1, nothing, flat)
            little(block.conv2, flat, flat)
        norm("conv_norm_out")


def places(per: int, wide: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of groups of `wide` channels, the first `per` of each, and the others ``[32, wide - per]``."""
    channels = torch.arange(GROUPS * wide).reshape(GROUPS, wide)
    return channels[:, :per].flatten(), channels[:, per:]


def residual_blocks(decoder: torch.nn.Module) -> list[str]:
    """Names of the residual blocks."""
    return [
        f"{place}.resnets.{i}" for place in ("mid_block", "up_blocks.0")
        for i in range(len(decoder.get_submodule(place).resnets))
    ]  # fmt: skip


def constants(seen: Statistics, name: str, count: int) -> torch.Tensor:
    """Values ``[32, count]`` of new channels before a norm: above and below the group's mean in turn, a deviation apart."""
    mean, variance = seen.of(name)
    sign = torch.tensor([1.0, -1.0]).repeat(count)[:count]
    return mean[:, None] + sign * variance.sqrt()[:, None]


def moments(
    mean: torch.Tensor, variance: torch.Tensor, values: torch.Tensor, per: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation ``[32]`` of groups of `per` channels with these moments, and of constants ``[32, count]``."""
    wide = per + values.shape[1]
    m = (per * mean + values.sum(1)) / wide
    v = (per * (variance + mean**2) + values.square().sum(1)) / wide - m**2
    return m, v.sqrt()
