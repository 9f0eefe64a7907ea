"""Where the decoder of images starts: at the linear solution, its last convolution fitted by least squares."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from training.encoder import dequantise

STREAM_GAIN = 4.0
"""Size of the latents inside the decoder, in coefficient units."""


def linear_start(
    decoder: torch.nn.Module, sigma: torch.Tensor, scales: torch.Tensor, pin: float = 1, groups: int = 32
) -> None:
    """Make the `AutoencoderKL` decoder pass its latents through, so that only its last convolution is to be fitted.

    Every GroupNorm group holds a constant channel, ten times as large as its latents' standard deviation (25 times for
    the strongest latent, because the group's scale still varies a little from image to image, 30 times for singles,
    because SiLU is then close to straight): it pins the group's scale. The others hold latents as pairs +z, -z,
    because SiLU(u) - SiLU(-u) = u exactly, or, for the latents of least variance where channels are short, singly.
    Residual branches and attention end in zeros.

    Inside, latents have the units of coefficients times `STREAM_GAIN`, not unit variance: what the residual branches
    add then disturbs strong and weak latents by the same amount, and little.
    """
    Nd, D = decoder.conv_in.out_channels, decoder.conv_in.in_channels
    per = Nd // groups
    slots = per - 1
    # A group's content: list of (latent, sign). First as many pairs as possible, then singles.
    singles_groups = 0
    while (groups - singles_groups) * (slots // 2) + singles_groups * slots < D:
        singles_groups += 1
        if singles_groups > groups:
            raise ValueError(f"Nd {Nd} is too narrow for {D} latents")
    layout: list[list[tuple[int, float]]] = []
    latent = 0
    for g in range(groups):
        content: list[tuple[int, float]] = []
        if g < groups - singles_groups:
            for _ in range(slots // 2):
                if latent < D:
                    content += [(latent, 1.0), (latent, -1.0)]
                    latent += 1
        else:
            for _ in range(slots):
                if latent < D:
                    content.append((latent, 1.0))
                    latent += 1
        layout.append(content)
    with torch.no_grad():
        w, b = decoder.conv_in.weight, decoder.conv_in.bias
        spare = w.clone()
        w.zero_()
        b.zero_()
        mean, std, gain = torch.zeros(Nd), torch.ones(Nd), torch.ones(Nd)
        constant = torch.zeros(Nd, dtype=torch.bool)
        for g, content in enumerate(layout):
            first = g * per
            for j, (z, sign) in enumerate(content):
                w[first + j, z, 1, 1] = sign * STREAM_GAIN / scales[z]
            if content:
                level = [STREAM_GAIN * float(sigma[z] / scales[z]) for z, _ in content]
                single = len({z for z, _ in content}) == len(content)
                K = pin * (30.0 if single else 25.0 if content[0][0] == 0 else 10.0) * max(level)
                b[first + per - 1] = K
                constant[first + per - 1] = True
                m = K / per
                spares = per - 1 - len(content)
                s = math.sqrt((sum(v * v for v in level) + spares * level[0] ** 2) / per + K * K * (per - 1) / per**2)
                for j, v in enumerate(level + spares * level[:1]):
                    gain[first + j] = s / v
                mean[first : first + per], std[first : first + per] = m, s
                for j in range(len(content), per - 1):  # a spare channel: random features of the neighbourhood
                    w[first + j] = spare[first + j] / sigma[:, None, None] * 3 * level[0]
            else:
                w[first : first + per] = spare[first : first + per] / sigma[:, None, None] * 3

        def set_norm(norm: torch.nn.GroupNorm, gain: torch.Tensor) -> None:
            norm.weight.copy_(torch.where(constant, torch.ones(()), gain))
            norm.bias.copy_(torch.where(constant, torch.zeros(()), mean / std * gain))

        resnets = [*decoder.mid_block.resnets, *decoder.up_blocks[0].resnets]
        for r in resnets:
            set_norm(r.norm1, gain)
            r.conv2.weight.zero_()
            r.conv2.bias.zero_()
        attention = decoder.mid_block.attentions[0]
        set_norm(attention.group_norm, gain)
        attention.to_out[0].weight.zero_()
        attention.to_out[0].bias.zero_()
        set_norm(decoder.conv_norm_out, torch.ones(Nd))
        decoder.conv_out.weight.zero_()
        decoder.conv_out.bias.zero_()


def fit_last_convolution(codec: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, ...]], ridge: float) -> None:
    """Least squares of ``decoder[1].conv_out`` from its input features to the coefficients, shrunk to what it is.

    A batch is symbols, the coefficients that they stand for and, where it is not 1, the step of each.
    """
    conv = codec.decoder[1].conv_out
    features: list[torch.Tensor] = []
    hook = conv.register_forward_pre_hook(lambda _, a: features.append(a[0]))
    count, gram, cross = 0, 0.0, 0.0
    with torch.no_grad():
        for Y, X, *steps in batches:
            features.clear()
            error = X - codec.decoder[1](dequantise(codec, Y, *steps))
            F = torch.nn.functional.unfold(features[0], 3, padding=1)  # [b, Nd·9, positions]
            F = F.transpose(1, 2).flatten(0, 1)
            F = torch.cat([F, torch.ones(len(F), 1)], 1)
            T = error.flatten(2).transpose(1, 2).flatten(0, 1)
            gram, cross = gram + (F.T @ F).double(), cross + (F.T @ T).double()
            count += len(F)
        variance = (gram.diagonal() / count - (gram[-1] / count) ** 2).clamp_min(1e-12)
        change = torch.linalg.solve(gram + torch.diag(ridge * count * variance), cross).float()  # [Nd·9 + 1, out]
        conv.weight.add_(change[:-1].T.reshape(conv.weight.shape))
        conv.bias.add_(change[-1])
    hook.remove()
