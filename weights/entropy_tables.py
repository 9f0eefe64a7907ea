"""Trains what an entropy coder starts from: from the symbols of training material to integer `entropy.Tables`.

Four steps, each with what the steps before have fixed:

1. linear means: least squares on neighbours picked one by one (`pick`); they define the deviations;
2. networks: one hidden layer a channel, trained on the code length of a mixture of three logistic distributions, then
   rounded to integers;
3. first probabilities: the kernel counts zeros and ones in each context of each image, and each context gets the mean and
   the strength (of a beta distribution) under which those counts were likeliest;
4. first mixing weights: what the mixer has learned after coding the material twice.

Needs torch. About five minutes on one core for 48 channels. `train.py tables` is its command line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import gammaln
from training.data import IMAGES, TRACKS, list_files, read_audio, read_image

from walloc_ref import model as models
from walloc_ref.codec import Codec
from walloc_ref.fast import entropy as kernel
from walloc_ref.stages import entropy

OWN = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)]  # taps in the plane being coded
EARLIER = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]  # and where taps in earlier planes may lie
SYMBOL_TAPS, DEVIATION_TAPS = 8, 12  # taps in earlier planes, for each channel
HIDDEN = (30, 6)  # hidden units of the first WIDE channels and of the others, for images
HIDDEN_AUDIO = (14, 6)  # and for audio, of which there is less to learn from
WIDE = 3
BORDER = 3  # positions this near to the border are not trained on
SAMPLES, VALUES = (
    300_000,
    15_000_000,
)  # positions to train on, and symbols in all: fewer positions where planes are many
BATCH = 1024
GROUP = 12  # channels trained together
RATE = 5e-3
WEIGHT_LIMIT = 7.9  # of the largest integer weight, 32767 / 4096

Tap = tuple[int, int, int, int]  # kind, source channel, dy, dx


def fit_tables(
    arrays: Sequence[np.ndarray],
    latent_dim: int,
    latent_bits: int,
    *,
    steps: int = 4000,
    hidden: tuple[int, int] | None = None,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> entropy.Tables:
    """Train tables for one model.

    Parameters
    ----------
    arrays : symbols of training images (D, h, w) or of training audio (D, l), integers
    latent_dim, latent_bits : int
    steps : int
        Training steps of the networks.
    hidden : (int, int), optional
        Hidden units of the first `WIDE` channels and of the others; `HIDDEN` or `HIDDEN_AUDIO` if None.
    log : callable, optional
        Takes a line of progress.

    Returns
    -------
    entropy.Tables
    """
    begin = time.monotonic()
    say = (lambda text: log(f"{time.monotonic() - begin:6.1f} s  {text}")) if log else (lambda text: None)
    slices = [np.asarray(a, np.int16).reshape(latent_dim, -1, a.shape[-1]) for a in arrays]
    flat = all(s.shape[1] == 1 for s in slices)  # audio: nothing above or below
    hidden = hidden or (HIDDEN_AUDIO if flat else HIDDEN)
    own = [(0, -1), (0, -2), (0, -3)] if flat else OWN
    earlier = [(0, x) for x in (-2, -1, 0, 1, 2)] if flat else EARLIER
    rng = np.random.default_rng(seed)
    where = sample_positions(slices, min(SAMPLES, VALUES // latent_dim), flat, rng)

    symbols = [pad(s.astype(np.float32)) for s in slices]
    spots = [(c, *p) for c in range(latent_dim) for p in sorted({*own, *earlier})]  # all that a tap may read
    index = {spot: i for i, spot in enumerate(spots)}
    values = read(symbols, spots, where)  # (spots, samples)
    mean_taps, mean_weights = linear_means(values, index, None, latent_dim, own, earlier)
    deviation = [deviations(s, mean_taps, mean_weights) for s in symbols]
    centre = read(deviation, [(c, 0, 0) for c in range(latent_dim)], where)
    trust = 1 / (0.1 + (centre / (centre.mean(1, keepdims=True) + 1e-3)).mean(0)) ** 2  # quiet places count more
    mean_taps, mean_weights = linear_means(values, index, trust / trust.mean(), latent_dim, own, earlier)
    del values
    deviation = [deviations(s, mean_taps, mean_weights) for s in symbols]
    roots = np.sqrt(read(deviation, spots, where))
    gram = roots @ roots.T
    del roots
    deviation_taps = []
    for c in range(latent_dim):
        candidates = [index[(j, *p)] for j in range(c) for p in earlier]
        picked = pick(gram, index[(c, 0, 0)], [index[(c, *p)] for p in own], candidates, DEVIATION_TAPS)
        deviation_taps.append([spots[i] for i in picked])
    say("linear means, and taps chosen")

    taps: list[list[Tap]] = []
    units, biases, outputs = [], [], []
    widths = [hidden[0] if c < WIDE else hidden[1] for c in range(latent_dim)]
    groups = [list(range(a, min(a + GROUP, latent_dim))) for a in range(min(WIDE, latent_dim), latent_dim, GROUP)]
    for group in [list(range(min(WIDE, latent_dim))), *groups]:
        if not group:
            continue
        data = [inputs(c, symbols, deviation, mean_taps[c], mean_weights[c], deviation_taps[c], where) for c in group]
        network = train_networks(data, widths[group[0]], steps, seed)
        for g, c in enumerate(group):
            listed, w, b, o = fold(c, g, network, mean_taps[c], mean_weights[c], deviation_taps[c])
            w, b, o = to_integers(w, b, o, [t[0] for t in listed], latent_bits)
            taps.append(listed)
            units.append(w)
            biases.append(b)
            outputs.append(o)
        say(f"networks of channels {group[0]} to {group[-1]}: {network.final:.4f} bits a symbol")

    start = entropy.default_tables(latent_dim, latent_bits)
    rows = [(c, *tap) for c in range(latent_dim) for tap in taps[c]]
    tables = entropy.Tables(
        latent_dim, latent_bits, np.array(rows, np.int64), units, biases, outputs, start.states, start.mixers
    )
    few = [slices[i] for i in rng.permutation(len(slices))[:200]]
    tables = with_states(tables, few)
    say("first probabilities")
    tables = with_mixers(tables, few)
    tables = entropy.Tables.from_bytes(tables.to_bytes())
    say(f"first weights; tables of {len(tables.to_bytes())} bytes")
    return tables


# ---- positions and neighbours -----------------------------------------------------------------------------------------


def pad(planes: np.ndarray) -> np.ndarray:
    """(D, h, w) -> (D, h + 6, w + 6), edges repeated."""
    return np.pad(planes, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), mode="edge")


def sample_positions(
    slices: list[np.ndarray], total: int, flat: bool, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each slice, rows and columns of the positions to train on, in all about `total`."""
    sizes = [(1 if flat else s.shape[1] - 2 * BORDER, s.shape[2] - 2 * BORDER) for s in slices]
    share = total / max(sum(max(h, 0) * max(w, 0) for h, w in sizes), 1)
    out = []
    for h, w in sizes:
        n = max(h, 0) * max(w, 0)
        at = (
            np.sort(rng.choice(n, min(n, int(n * share + rng.random())), replace=False)) if n else np.zeros(0, np.int64)
        )
        out.append((at // max(w, 1) + (0 if flat else BORDER), at % max(w, 1) + BORDER))
    return out


def read(planes: list[np.ndarray], spots: list[tuple[int, int, int]], where: list) -> np.ndarray:
    """Values at (channel, dy, dx) from each position. planes: padded. float32 (spots, samples)"""
    parts = []
    for p, (y, x) in zip(planes, where, strict=True):
        parts.append(np.stack([p[j, y + dy + BORDER, x + dx + BORDER] for j, dy, dx in spots]))
    return np.concatenate(parts, 1)


def pick(gram: np.ndarray, target: int, given: list[int], candidates: list[int], count: int) -> list[int]:
    """Greedy least squares: `count` candidates, each the one that explains most of what is left of the target."""
    at = np.array([target, *given, *candidates])
    g = gram[np.ix_(at, at)].astype(np.float64)
    floor = 1e-5 * np.diag(g) + 1e-9
    g += np.diag(floor)
    chosen: list[int] = []
    for turn in range(len(given) + min(count, len(candidates))):
        gain = g[0] ** 2 / np.maximum(np.diag(g), floor)
        gain[[0, *chosen]] = -1
        if turn < len(given):
            best = turn + 1
        else:
            gain[: len(given) + 1] = -1
            best = int(np.argmax(gain))
        chosen.append(best)
        column = g[:, best] / g[best, best]
        g = g - np.outer(column, g[best])
    return [int(at[i]) for i in chosen[len(given) :]]


def linear_means(values, index, trust, latent_dim, own, earlier):
    """Taps (channel, dy, dx) and weights of each channel's linear mean."""
    gram = (values * trust if trust is not None else values) @ values.T
    spots = list(index)
    all_taps, all_weights = [], []
    for c in range(latent_dim):
        given = [index[(c, *p)] for p in own]
        candidates = [index[(j, *p)] for j in range(c) for p in earlier]
        at = given + pick(gram, index[(c, 0, 0)], given, candidates, SYMBOL_TAPS)
        g = gram[np.ix_(at, at)].astype(np.float64)
        g += np.diag(1e-4 * np.diag(g) + 1e-6)
        all_weights.append(np.linalg.solve(g, gram[at, index[(c, 0, 0)]].astype(np.float64)))
        all_taps.append([spots[i] for i in at])
    return all_taps, all_weights


def deviations(planes: np.ndarray, taps, weights) -> np.ndarray:
    """|symbol - linear mean| of every channel, padded like `planes`."""
    D, h, w = planes.shape[0], planes.shape[1] - 2 * BORDER, planes.shape[2] - 2 * BORDER
    out = np.empty((D, h, w), np.float32)
    for c in range(D):
        mean = np.zeros((h, w), np.float32)
        for (j, dy, dx), v in zip(taps[c], weights[c], strict=True):
            mean += np.float32(v) * planes[j, BORDER + dy : BORDER + dy + h, BORDER + dx : BORDER + dx + w]
        out[c] = np.abs(planes[c, BORDER:-BORDER, BORDER:-BORDER] - mean)
    return pad(np.minimum(out, entropy.DEVIATION_MAX / entropy.UNIT))


# ---- networks ---------------------------------------------------------------------------------------------------------


def network_taps(c: int, mean_taps, deviation_taps) -> tuple[list, list]:
    """Symbol taps and deviation taps of one channel's network."""
    own = [t[1:] for t in mean_taps if t[0] == c]
    return list(mean_taps), [(c, *p) for p in own] + list(deviation_taps)


def inputs(c, symbols, deviation, mean_taps, mean_weights, deviation_taps, where):
    """Inputs (samples, taps), linear mean (samples,), target (samples,), and how many of the taps are symbols.

    Symbols enter as differences, those of the own plane from the linear mean, others from their plane's centre; `fold`
    turns the network's weights into weights of plain taps.
    """
    kt, at = network_taps(c, mean_taps, deviation_taps)
    k = read(symbols, kt, where)
    mean = mean_weights.astype(np.float32) @ k
    sources = sorted({j for j, _, _ in kt if j != c})
    centres = dict(zip(sources, read(symbols, [(j, 0, 0) for j in sources], where), strict=True)) if sources else {}
    for i, (j, dy, dx) in enumerate(kt):
        if j == c:
            k[i] -= mean
        elif (dy, dx) != (0, 0):
            k[i] -= centres[j]
    target = read(symbols, [(c, 0, 0)], where)[0]
    return np.concatenate([k, read(deviation, at, where)]).T.copy(), mean, target, len(kt)


class Networks(torch.nn.Module):
    """One network for each channel of a group, side by side: sums -> ReLU -> corrections of mean and scale."""

    def __init__(self, group: int, size: int, hidden: int, first_scale: torch.Tensor) -> None:
        super().__init__()
        parameter = torch.nn.Parameter
        self.w = parameter((torch.rand(group, size, hidden) - 0.5) / size**0.5)
        self.b = parameter(torch.zeros(group, 1, hidden))
        self.o = parameter((torch.rand(group, hidden, 2) - 0.5) * 0.6 / hidden**0.5)
        self.s = parameter(first_scale)  # (group, size) linear scale
        self.s0 = parameter(torch.full((group, 1), 0.05))
        self.width = parameter(torch.tensor([-1.2, -0.4, 0.4]).repeat(group, 1, 1))  # of the mixture, logarithms
        self.share = parameter(torch.zeros(group, 1, 3))
        self.final = 0.0

    def bits(self, x: torch.Tensor, mean: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Code length of target (group, n), given inputs x (group, n, size) and the linear mean."""
        correction = torch.bmm(torch.relu(torch.baddbmm(self.b, x, self.w)), self.o)  # (group, n, 2)
        scale = torch.bmm(x, self.s[:, :, None])[:, :, 0] + self.s0 + correction[:, :, 1]
        scale = torch.where(scale > 0.05, scale, 0.05 * torch.exp((scale / 0.05 - 1).clamp(-4, 0)))
        width = scale[:, :, None] * torch.exp(self.width) + 0.02
        d = (target - mean - correction[:, :, 0])[:, :, None]
        p = torch.sigmoid((d + 0.5) / width) - torch.sigmoid((d - 0.5) / width)  # (group, n, 3)
        return -torch.log2((p * torch.softmax(self.share, 2)).sum(2) + 1e-6)


def train_networks(data: list, hidden: int, steps: int, seed: int) -> Networks:
    """Train the networks of a group; `data` holds what `inputs` returned for each of its channels."""
    torch.manual_seed(seed)
    size, n = max(d[0].shape[1] for d in data), len(data[0][1])
    x = torch.zeros(len(data), n, size)
    first = torch.zeros(len(data), size)
    for g, (values, _, _, symbols) in enumerate(data):
        x[g, :, : values.shape[1]] = torch.from_numpy(values)
        first[g, symbols : values.shape[1]] = 1 / (values.shape[1] - symbols)
    mean = torch.from_numpy(np.stack([d[1] for d in data]))
    target = torch.from_numpy(np.stack([d[2] for d in data]))
    network = Networks(len(data), size, hidden, first)
    optimiser = torch.optim.Adam(network.parameters(), RATE, betas=(0.9, 0.99), foreach=True)
    recent = []
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps)) + 1e-6
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate
        i = torch.randint(n, (BATCH,))
        loss = network.bits(x[:, i], mean[:, i], target[:, i]).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        for p in network.parameters():  # clip each channel's gradient by itself
            norm = p.grad.flatten(1).norm(dim=1).clamp(min=1e-9)
            p.grad *= (1 / norm).clamp(max=1.0).view(-1, *[1] * (p.dim() - 1))
        optimiser.step()
        recent = [*recent[-200:], loss.item() / len(data)]
    network.final = float(np.mean(recent))
    return network


def fold(c: int, g: int, network: Networks, mean_taps, mean_weights, deviation_taps):
    """One channel's network as weights of plain taps. Returns taps, (taps, 2 + hidden), (2 + hidden,), (hidden, 2)."""
    kt, at = network_taps(c, mean_taps, deviation_taps)
    double = [p.detach().numpy().astype(np.float64) for p in (network.w, network.b, network.o, network.s, network.s0)]
    w, b, o, s, s0 = (p[g] for p in double)
    both = np.concatenate([s[:, None], w], 1)  # (size, 1 + hidden)
    columns = 1 + both.shape[1]
    summed: dict[Tap, np.ndarray] = {}

    def add(kind: int, spot: tuple[int, int, int], weights: np.ndarray) -> None:
        summed[(kind, *spot)] = summed.get((kind, *spot), np.zeros(columns)) + weights

    for spot, v in zip(mean_taps, mean_weights, strict=True):
        add(0, spot, np.eye(columns)[0] * v)
    for i, spot in enumerate(kt):
        weights = np.concatenate([[0], both[i]])
        add(0, spot, weights)
        if spot[0] == c:
            for other, v in zip(mean_taps, mean_weights, strict=True):
                add(0, other, -v * weights)
        elif spot[1:] != (0, 0):
            add(0, (spot[0], 0, 0), -weights)
    for i, spot in enumerate(at):
        add(1, spot, np.concatenate([[0], both[len(kt) + i]]))
    listed = sorted(summed)
    return listed, np.array([summed[t] for t in listed]), np.concatenate([[0], s0, b[0]]), o


def to_integers(w: np.ndarray, b: np.ndarray, o: np.ndarray, kinds: list[int], latent_bits: int):
    """Round to the coder's integers, each hidden unit scaled so that its weights use their range and no sum overflows."""
    w, b, o = w.copy(), b.copy(), o.copy()
    reach = np.where(np.array(kinds) == 0, entropy.UNIT * (2 ** (latent_bits - 1) - 1), entropy.DEVIATION_MAX)
    for u in range(2, w.shape[1]):
        largest = max(abs(w[:, u]).max(), 1e-6)
        factor = min(2 / largest, 8.0)
        factor = min(factor, 2**30 / (4096 * (reach @ abs(w[:, u])) + 65536 * abs(b[u]) + 1))
        w[:, u], b[u], o[u - 2] = w[:, u] * factor, b[u] * factor, o[u - 2] / factor
    for column in range(2):  # keep the sums of outputs within 32 bits
        total = abs(o[:, column]).sum()
        o[:, column] *= min(1, 15.5 / max(total, 1e-9))
    w = np.clip(w, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return (np.rint(w * 4096).astype(np.int64), np.rint(b * 65536).astype(np.int64), np.rint(o * 4096).astype(np.int64))


# ---- states and weights -----------------------------------------------------------------------------------------------


def run_kernel(tables: entropy.Tables, s: np.ndarray, counts: np.ndarray, weights: np.ndarray | None = None) -> int:
    """Code one slice; adds to `counts` (states, 2), learns into `weights`. Returns the number of bytes."""
    model = kernel.model_of(tables)._replace(counts=counts)
    return len(kernel.encode(s, tables, model if weights is None else model._replace(weights=weights)))


def with_states(tables: entropy.Tables, slices: list[np.ndarray]) -> entropy.Tables:
    """The same tables with first probabilities learned from the slices."""
    counts = np.zeros((len(slices), len(tables.states), 2), np.int32)
    for s, c in zip(slices, counts, strict=True):
        run_kernel(tables, s, c)
    used = np.nonzero(counts.sum((0, 2)))[0]
    zeros, ones = counts[:, used, 0].astype(np.float64), counts[:, used, 1].astype(np.float64)
    n = zeros + ones
    weight = np.minimum(n, 200) / np.maximum(n, 1)  # no image counts for more than 200 observations
    p = ((ones * weight).sum(0) + 0.4) / ((n * weight).sum(0) + 0.8)
    best, strength = np.full(len(used), -np.inf), np.zeros(len(used), np.int64)
    for i, observations in enumerate(entropy.STRENGTHS):
        a, b = p * (observations + 0.6), (1 - p) * (observations + 0.6)
        likelihood = (gammaln(ones + a) + gammaln(zeros + b) - gammaln(n + a + b)).sum(0)
        likelihood += len(slices) * (gammaln(a + b) - gammaln(a) - gammaln(b))
        better = likelihood > best
        best[better], strength[better] = likelihood[better], i
    states = tables.states.copy()
    states[used] = np.clip(np.rint(p * 4096), 1, 4095).astype(np.int64) * 16 + strength
    return replaced(tables, states=states)


def with_mixers(tables: entropy.Tables, slices: list[np.ndarray]) -> entropy.Tables:
    """The same tables with the mixing weights that coding the slices twice leaves behind."""
    weights = (tables.mixers.ravel() << 6).astype(np.int32)
    nothing = np.zeros((0, 2), np.int32)
    for _ in range(2):
        for s in slices:
            run_kernel(tables, s, nothing, weights)
    mixers = np.clip(weights.astype(np.int64) + 32 >> 6, -16384, 16384)
    return replaced(tables, mixers=mixers.reshape(tables.mixers.shape))


def replaced(tables: entropy.Tables, **changes: np.ndarray) -> entropy.Tables:
    """A copy with some arrays replaced."""
    return entropy.Tables(**{**vars(tables), **changes})


# ---- the command ------------------------------------------------------------------------------------------------------


def training_symbols(
    model: models.Model, folder: Path, stride: int, positions: int, steps: Sequence[float]
) -> list[np.ndarray]:
    """Symbols int16 (D, h, w) or (D, 1, l) of every `stride`-th image, or of at most so many positions of every track.

    Each is coded with the next of the quantiser's `steps`, so that tables fit all of them.
    """
    codec, config = Codec(model), model.config
    audio, symbols = config.kind == "audio", []
    for number, f in enumerate(list_files(folder, TRACKS) if audio else list_files(folder, IMAGES)[::stride]):
        step = steps[number % len(steps)]
        if audio:
            x = read_audio(f, config.channels)[:, : config.multiple * positions].astype(np.float64)
            symbols.append(codec.to_symbols(np.clip(x, -0.5, 0.5), step=step)[:, None])
        else:
            symbols.append(codec.to_symbols(read_image(f, config.channels) / 255 - 0.5, step=step))
    return symbols


def train(args: argparse.Namespace) -> None:
    """Fit the tables of a model file to the symbols of training data, and write them into the file."""
    path = Path(args.model)
    model, steps = models.load(path), args.quantiser_steps
    symbols = training_symbols(model, Path(args.data), args.stride, args.positions, steps)
    tables = fit_tables(symbols, model.config.planes, model.config.latent_bits, steps=args.steps, log=print)
    path.write_bytes(models.save(replace(model, tables=tables)))
