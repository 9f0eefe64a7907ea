"""What an entropy coder starts from, fitted: from the symbols of example material to integer `entropy.Tables`.

Four steps, each with what the steps before have fixed:

1. linear means: least squares on neighbours picked one by one (`pick`); they define the deviations;
2. networks: one hidden layer a plane, trained on the code length of a mixture of three logistic distributions
   (`fit.network`), then rounded to integers;
3. first probabilities: the kernel counts zeros and ones in each context of each slice, and each context gets the mean and
   the strength (of a beta distribution) under which those counts were likeliest;
4. first mixing weights: what the mixer has learned after coding the material twice.

Two surprises. Of the earlier planes only those `NEAR` ones are looked at whose magnitudes go along most with a plane's own,
so that the time rises with the number of planes and not with its square. And where there is little material, the networks
know the material and not its kind: the default taps (SPEC.md 7.16) with fitted probabilities are taken where they code the
slices that were set aside in fewer bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from walloc_ref.fast import entropy as kernel
from walloc_ref.fast import workers
from walloc_ref.fit import network
from walloc_ref.stages import entropy

OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
"""Taps (dy, dx) in the plane being coded, of images and volumes."""

OWN_FLAT = ((0, -1), (0, -2), (0, -3))
"""The same of audio, where nothing lies above or below."""

AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""Where taps in earlier planes may lie."""

AROUND_FLAT = tuple((0, x) for x in (-2, -1, 0, 1, 2))
"""The same of audio."""

BEFORE = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Taps in the same plane at the depth position before, of volumes."""

NEAR = 16
"""Earlier planes that are looked at for each plane."""

SYMBOL_TAPS, DEVIATION_TAPS = 8, 12
"""Taps in earlier planes, for each plane."""

WIDE = 3
"""First planes, which get more hidden units than the others."""

HIDDEN, HIDDEN_FLAT = (30, 6), (14, 6)
"""Hidden units of the first `WIDE` planes and of the others, for images and volumes, and for audio."""

BORDER = entropy.REACH
"""Positions around a plane that repeat its edge."""

SAMPLES, STEPS = 30_000, 300
"""Positions to learn from, and training steps, where nothing else is said."""

PLENTY, MORE = 48, 6
"""Up to this number of planes there is time to learn more: so many planes over the planes there are, at most six times."""

MAX_VALUES = 1 << 26
"""Numbers that the inputs of a group of networks may have together; fewer positions where there would be more."""

SAMPLES_A_WEIGHT = 30
"""Positions for each weight of a network: where there are fewer, hidden units are left out."""

LEARNING_SYMBOLS = 1 << 21
"""Symbols that first probabilities and mixing weights are learned from."""

GROUP = 12
"""Planes trained together."""

WEIGHT_LIMIT = 7.9
"""Of the largest integer weight, 32767 / 4096."""

Symbols = NDArray[np.int16]
Array = NDArray[np.float32]
Tap = tuple[int, int, int, int]
"""kind, source, dy, dx; a source of D or more is plane source - D of the depth position before."""
Spot = tuple[int, int, int]
"""source, dy, dx"""


def fit_tables(
    arrays: Sequence[NDArray[np.integer]],
    latent_dim: int,
    latent_bits: int,
    *,
    steps: int | None = None,
    samples: int | None = None,
    hidden: tuple[int, int] | None = None,
    check: Sequence[NDArray[np.integer]] = (),
    seed: int = 0,
    log: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> entropy.Tables:
    """Fit tables for one model.

    The result depends on the arguments alone, not on the number of threads.

    Parameters
    ----------
    arrays : sequence of integer arrays
        Symbols of example images (D, h, w), audio (D, l) or volumes (D, z, h, w); all of one kind.
    latent_dim, latent_bits : int
    steps : int, optional
        Training steps of the networks; `STEPS`, or up to `MORE` times as many for few planes if None.
    samples : int, optional
        Positions to learn from; `SAMPLES`, or up to `MORE` times as many for few planes if None.
    hidden : (int, int), optional
        Hidden units of the first `WIDE` planes and of the others; `HIDDEN` or `HIDDEN_FLAT` if None.
    check : sequence of integer arrays
        Symbols that were set aside, by which the default taps are judged; the examples if there are none.
    log : callable, optional
        Takes a line of progress.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    entropy.Tables
    """
    begin, tell = time.monotonic(), progress or (lambda share: None)
    say = (lambda text: log(f"{time.monotonic() - begin:6.1f} s  {text}")) if log else (lambda text: None)
    more = min(max(PLENTY / latent_dim, 1), MORE)
    steps = round(STEPS * more) if steps is None else steps
    samples = round(SAMPLES * more) if samples is None else samples
    slices = [_slice(a, latent_dim) for a in arrays]
    rng = np.random.default_rng(seed)
    few = _some([slices[i] for i in rng.permutation(len(slices))], LEARNING_SYMBOLS)
    plain = with_mixers(with_states(entropy.default_tables(latent_dim, latent_bits), few), few)
    tell(0.1)
    material = Material.of(slices, latent_dim, samples, rng)
    if material.at.size == 0:
        return plain
    means, deviations = _linear_means(material)
    deviation_taps = _deviation_taps(material, deviations)
    say("linear means, and taps chosen")
    tell(0.3)
    flat = material.flat
    first, rest = hidden or (HIDDEN_FLAT if flat else HIDDEN)
    wide = list(range(min(WIDE, latent_dim)))
    groups = [wide, *(list(range(a, min(a + GROUP, latent_dim))) for a in range(len(wide), latent_dim, GROUP))]
    groups = [group for group in groups if group]

    def train(group: list[int]) -> list[tuple[list[Tap], list[NDArray[np.int64]]]]:
        units = first if group[0] == 0 else rest
        return _networks(material, deviations, means, deviation_taps, group, units, latent_bits, steps, seed)

    trained: list[tuple[list[Tap], list[NDArray[np.int64]]]] = []
    for at in range(0, len(groups), 8):  # a few at a time, to say how far it is
        for found in workers.for_each(train, groups[at : at + 8]):
            trained += found
        tell(0.3 + 0.5 * len(trained) / latent_dim)
    say("networks")
    rows = [(c, *tap) for c, (taps, _) in enumerate(trained) for tap in taps]
    integers = [found for _, found in trained]
    tables = entropy.Tables(
        latent_dim,
        latent_bits,
        np.array(rows, np.int64).reshape(-1, 5),
        [w for w, _, _ in integers],
        [b for _, b, _ in integers],
        [o for _, _, o in integers],
        plain.states,
        plain.mixers,
    )
    tables = with_mixers(with_states(tables, few), few)
    tell(0.95)
    judged = _some([_slice(a, latent_dim) for a in check], LEARNING_SYMBOLS) or few
    sizes = [sum(coded_bytes(t, s) for s in judged) for t in (tables, plain)]
    say(f"{sizes[0]} bytes, {sizes[1]} with the default taps; tables of {len(tables.to_bytes())} bytes")
    return entropy.Tables.from_bytes((tables if sizes[0] <= sizes[1] else plain).to_bytes())


def coded_bytes(tables: entropy.Tables, symbols: Symbols) -> int:
    """Bytes of a slice."""
    return len(kernel.encode(symbols, tables))


def _slice(symbols: NDArray[np.integer], latent_dim: int) -> Symbols:
    """Symbols as the coder takes them: (D, h, w) or (D, z, h, w); audio (D, 1, l)."""
    s = np.asarray(symbols, np.int16)
    return s.reshape(latent_dim, 1, -1) if s.ndim == 2 else s


def _some(slices: Sequence[Symbols], limit: int) -> list[Symbols]:
    """The first slices, at least one, up to so many symbols."""
    out: list[Symbols] = []
    for s in slices:
        if out and sum(o.size for o in out) + s.size > limit:
            break
        out.append(s)
    return out


# ---- positions and neighbours -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Material:
    """All symbols in one array, position after position with edges repeated, and the positions to learn from.

    Attributes
    ----------
    planes : float32, shape (D, values)
        Each depth position of each slice is (h + 6)·(w + 6) values; one of zeros stands before the first of a volume.
    layers : list of (start, h, w)
        Those that hold symbols.
    at, stride, back : int64, shape (n,)
        Of the positions to learn from: index into `planes`, distance of a row, and of the depth position before.
    flat, deep : bool
        Whether it is audio, and whether it is volumes.
    """

    planes: Array
    layers: list[tuple[int, int, int]]
    at: NDArray[np.int64]
    stride: NDArray[np.int64]
    back: NDArray[np.int64]
    flat: bool
    deep: bool

    @staticmethod
    def of(slices: Sequence[Symbols], latent_dim: int, samples: int, rng: np.random.Generator) -> Material:
        """Lay out slices, and draw about so many positions; none in a first row or column, where neighbours are missing."""
        flat, deep = all(s.shape[-2] == 1 for s in slices), slices[0].ndim == 4
        layers: list[tuple[int, int, int]] = []
        size = 0
        for s in slices:
            h, w = s.shape[-2:]
            area = (h + 2 * BORDER) * (w + 2 * BORDER)
            size += area if deep else 0
            for _ in range(s.shape[1] if deep else 1):
                layers.append((size, h, w))
                size += area
        planes = np.zeros((latent_dim, size), np.float32)
        parts = [p for s in slices for p in (np.moveaxis(s, 1, 0) if deep else [s])]
        for (start, h, w), part in zip(layers, parts):
            _put(planes, start, h, w, part)
        inner = [(0 if flat else 1, h, 1, w) for _, h, w in layers]
        counts = [max(y1 - y0, 0) * max(x1 - x0, 0) for y0, y1, x0, x1 in inner]
        share = samples / max(sum(counts), 1)
        at, stride, back = [], [], []
        for (start, h, w), (y0, _, x0, x1), count in zip(layers, inner, counts):
            chosen = np.sort(rng.choice(count, min(count, int(count * share + rng.random())), replace=False))
            row, wide = w + 2 * BORDER, max(x1 - x0, 1)
            at.append(start + (chosen // wide + y0 + BORDER) * row + chosen % wide + x0 + BORDER)
            stride.append(np.full(chosen.size, row))
            back.append(np.full(chosen.size, (h + 2 * BORDER) * row))
        starts, rows, areas = (np.concatenate(part).astype(np.int64) for part in (at, stride, back))
        return Material(planes, layers, starts, rows, areas, flat, deep)

    def read(self, values: Array, spots: Sequence[Spot]) -> Array:
        """What the positions have at some spots: float32 (spots, n)."""
        out = np.empty((len(spots), self.at.size), np.float32)
        for row, (source, dy, dx) in zip(out, spots):
            before, plane = divmod(source, len(self.planes))
            np.take(values[plane], self.at + dy * self.stride + dx - before * self.back, out=row)
        return out

    def own(self, c: int) -> list[Spot]:
        """The spots that plane c always sees."""
        spots = [(c, dy, dx) for dy, dx in (OWN_FLAT if self.flat else OWN)]
        return spots + ([(c + len(self.planes), dy, dx) for dy, dx in BEFORE] if self.deep else [])

    def around(self, sources: Sequence[int]) -> list[Spot]:
        """The spots in other planes that it may be given."""
        return [(j, dy, dx) for j in sources for dy, dx in (AROUND_FLAT if self.flat else AROUND)]

    @property
    def near(self) -> list[list[int]]:
        """For each plane the earlier planes, at most `NEAR`, whose magnitudes go along most with its own."""
        D = len(self.planes)  # noqa: N806
        some = slice(None, None, max(1, D * self.at.size >> 25))
        roots = np.empty((D, self.at[some].size), np.float32)
        for c in range(D):
            roots[c] = np.sqrt(np.abs(self.planes[c][self.at[some]]))
        roots -= roots.mean(1, keepdims=True)
        roots /= np.sqrt(np.square(roots).sum(1, keepdims=True)) + np.float32(1e-6)
        together = roots @ roots.T
        return [sorted(np.argsort(-together[c, :c], kind="stable")[:NEAR].tolist()) for c in range(D)]


def _put(planes: Array, start: int, h: int, w: int, part: NDArray) -> None:
    """Write the planes (D, h, w) of one depth position, edges repeated."""
    area = (h + 2 * BORDER) * (w + 2 * BORDER)
    padded = np.pad(part, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), mode="edge")
    planes[:, start : start + area] = padded.reshape(len(padded), area)


def pick(gram: NDArray[np.float64], given: int, count: int) -> list[int]:
    """Greedy least squares: the first is the target, the next `given` are taken, then `count` of the others, one by one.

    Each is the one that explains most of what is left of the target. Returns the numbers of those that were picked.
    """
    floor = 1e-5 * np.diag(gram) + 1e-9
    g = gram + np.diag(floor)
    chosen: list[int] = []
    for turn in range(given + min(count, len(g) - 1 - given)):
        gain = g[0] ** 2 / np.maximum(np.diag(g), floor)
        gain[[0, *chosen]] = -1
        if turn < given:
            best = turn + 1
        else:
            gain[: given + 1] = -1
            best = int(np.argmax(gain))
        chosen.append(best)
        g = g - np.outer(g[:, best] / g[best, best], g[best])
    return chosen[given:]


def _linear_means(material: Material) -> tuple[list[tuple[list[Spot], NDArray[np.float64]]], Array]:
    """Spots and weights of each plane's linear mean, and |symbol - linear mean| of all symbols, laid out as they are."""
    D, near = len(material.planes), material.near  # noqa: N806

    def means(trust: Array | None, earlier: bool) -> list[tuple[list[Spot], NDArray[np.float64]]]:
        def mean(c: int) -> tuple[list[Spot], NDArray[np.float64]]:
            own = material.own(c)
            spots = [(c, 0, 0), *own, *(material.around(near[c]) if earlier else [])]
            values = material.read(material.planes, spots)
            gram = ((values * trust if trust is not None else values) @ values.T).astype(np.float64)
            at = [*range(1, len(own) + 1), *pick(gram, len(own), SYMBOL_TAPS if earlier else 0)]
            g = gram[np.ix_(at, at)] + np.diag(1e-4 * np.diag(gram)[at] + 1e-6 * len(material.at))
            return [spots[i] for i in at], np.linalg.solve(g, gram[at, 0])

        return workers.for_each(mean, range(D))

    rough = means(None, False)
    deviation = _deviations(material, rough)
    centre = material.read(deviation, [(c, 0, 0) for c in range(D)])
    quiet = 1 / (0.1 + (centre / (centre.mean(1, keepdims=True) + 1e-3)).mean(0)) ** 2  # quiet places count more
    found = means((quiet / quiet.mean()).astype(np.float32), True)
    return found, _deviations(material, found)


def _deviations(material: Material, means: Sequence[tuple[list[Spot], NDArray[np.float64]]]) -> Array:
    """|symbol - linear mean| of every plane, edges repeated."""
    D, out = len(material.planes), np.zeros_like(material.planes)  # noqa: N806
    limit = np.float32(entropy.DEVIATION_MAX / entropy.UNIT)

    def plane(c: int) -> None:
        taps, weights = means[c]
        for start, h, w in material.layers:
            row = w + 2 * BORDER
            area = (h + 2 * BORDER) * row
            mean = np.zeros((h, w), np.float32)
            for (source, dy, dx), v in zip(taps, weights):
                before, j = divmod(source, D)
                layer = material.planes[j, start - before * area : start - before * area + area].reshape(-1, row)
                mean += np.float32(v) * layer[BORDER + dy : BORDER + dy + h, BORDER + dx : BORDER + dx + w]
            here = material.planes[c, start : start + area].reshape(-1, row)[BORDER:-BORDER, BORDER:-BORDER]
            _put(out[c : c + 1], start, h, w, np.minimum(np.abs(here - mean), limit)[None])

    workers.for_each(plane, range(D))
    return out


def _deviation_taps(material: Material, deviations: Array) -> list[list[Spot]]:
    """The spots in earlier planes whose deviations say most about each plane's own."""
    near = material.near

    def taps(c: int) -> list[Spot]:
        own = material.own(c)
        spots = [(c, 0, 0), *own, *material.around(near[c])]
        roots = np.sqrt(material.read(deviations, spots))
        picked = pick((roots @ roots.T).astype(np.float64), len(own), DEVIATION_TAPS)
        return [spots[i] for i in picked]

    return workers.for_each(taps, range(len(material.planes)))


# ---- networks ---------------------------------------------------------------------------------------------------------


def _networks(
    material: Material,
    deviations: Array,
    means: Sequence[tuple[list[Spot], NDArray[np.float64]]],
    deviation_taps: Sequence[list[Spot]],
    group: Sequence[int],
    hidden: int,
    latent_bits: int,
    steps: int,
    seed: int,
) -> list[tuple[list[Tap], list[NDArray[np.int64]]]]:
    """Train the networks of a group; taps and integers (units, biases, outputs) of each."""
    listed = [(means[c][0], material.own(c) + deviation_taps[c]) for c in group]
    size = max(len(symbols) + len(others) for symbols, others in listed)
    n = min(material.at.size, MAX_VALUES // (size * len(group)))
    some = slice(None, None, -(-material.at.size // n))
    n = len(range(*some.indices(material.at.size)))
    hidden = min(hidden, n // (SAMPLES_A_WEIGHT * size))
    x = np.zeros((len(group), n, size), np.float32)
    scales = np.zeros((len(group), size), np.float32)
    mean, target = np.empty((2, len(group), n), np.float32)
    for g, c in enumerate(group):
        symbols, others = listed[g]
        inputs, linear = _inputs(material, c, symbols, means[c][1])
        x[g, :, : len(symbols)] = inputs[:, some].T
        x[g, :, len(symbols) : len(symbols) + len(others)] = material.read(deviations, others)[:, some].T
        scales[g, len(symbols) : len(symbols) + len(others)] = 1 / len(others)
        mean[g], target[g] = linear[some], material.read(material.planes, [(c, 0, 0)])[0, some]
    rng = np.random.default_rng([seed, group[0]])
    p = network.initial(size, hidden, scales, rng)
    network.train(p, x, mean, target, steps, rng)
    out = []
    for g, c in enumerate(group):
        own = {name: value[g].astype(np.float64) for name, value in p.items()}
        taps, w, b, o = _fold(c, own, listed[g][0], means[c][1], listed[g][1])
        out.append((taps, list(to_integers(w, b, o, [t[0] for t in taps], latent_bits))))
    return out


def _inputs(material: Material, c: int, spots: Sequence[Spot], weights: NDArray[np.float64]) -> tuple[Array, Array]:
    """What the network of plane c sees of symbols, (spots, n), and its linear mean, (n,).

    Symbols enter as differences, those of the own plane from the linear mean, others from their plane's centre; `_fold`
    turns the network's weights into weights of plain taps.
    """
    k = material.read(material.planes, spots)
    mean = weights.astype(np.float32) @ k
    for row, (source, dy, dx) in zip(k, spots):
        if source == c:
            row -= mean
        elif (dy, dx) != (0, 0):
            row -= material.read(material.planes, [(source, 0, 0)])[0]
    return k, mean


def _fold(
    c: int,
    p: dict[str, NDArray[np.float64]],
    symbols: Sequence[Spot],
    means: NDArray[np.float64],
    deviations: Sequence[Spot],
) -> tuple[list[Tap], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """One plane's network as weights of plain taps. Returns taps, (taps, 2 + hidden), (2 + hidden,), (hidden, 2)."""
    both = np.concatenate([p["s"][:, None], p["w"]], 1)  # (size, 1 + hidden)
    columns = 1 + both.shape[1]
    summed: dict[Tap, NDArray[np.float64]] = {}

    def add(kind: int, spot: Spot, weights: NDArray[np.float64]) -> None:
        tap = (kind, *spot)
        summed[tap] = summed.get(tap, np.zeros(columns)) + weights

    for spot, v in zip(symbols, means):
        add(0, spot, np.eye(columns)[0] * v)
    for i, spot in enumerate(symbols):
        weights = np.concatenate([[0], both[i]])
        add(0, spot, weights)
        if spot[0] == c:
            for other, v in zip(symbols, means):
                add(0, other, -v * weights)
        elif spot[1:] != (0, 0):
            add(0, (spot[0], 0, 0), -weights)
    for i, spot in enumerate(deviations):
        add(1, spot, np.concatenate([[0], both[len(symbols) + i]]))
    taps = sorted(summed)
    return taps, np.array([summed[t] for t in taps]), np.concatenate([[0], p["s0"], p["b"][0]]), p["o"]


def to_integers(
    w: NDArray[np.float64], b: NDArray[np.float64], o: NDArray[np.float64], kinds: Sequence[int], latent_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
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
    workers.for_each(lambda i: run_kernel(tables, slices[i], counts[i]), range(len(slices)))
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
