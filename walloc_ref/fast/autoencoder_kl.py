"""The image networks of `walloc_ref.stages.autoencoder_kl`: same functions, same integers, in as few passes as possible.

Inside, channels lie innermost, (h, w, N): a vector of channels is one load, and a matrix product needs nothing rearranged.
A convolution with all that is around it is one pass: a few rows at a time are normalised and put through SiLU, transformed
(`lanes.winograd`), multiplied, transformed back, added to what the residual block began with, and summed up for the
next GroupNorm, while they are in cache. So a residual block is two passes over two arrays.

Attention answers up to 192 queries at a time (`QUERIES`), from `KEYS` keys at a time: a softmax needs no more of the
keys before than their greatest score and the sum of weights relative to it (the running maximum), and what was summed
relative to another is multiplied by e to their difference. A network whose attention ends in a matrix of zeros needs
none: what it adds is its last bias. Nor need residual blocks compute *outer* channels, whose weights in all of them are
zeros where they write: inside, these stand last, and are left out, but in blocks that read them. They only take part in
GroupNorm, by means and variances that are known beforehand.

On a core whose peak is 260 GFLOP/s in binary32 and 130 in binary64, products of 768 channels reach 235 and 116. What keeps
the whole below that is memory: the weights of such a network are 85 MB a convolution, read once for each part.

Rows, queries and keys that belong together depend on sizes alone, and their statistics are put together in their order:
so results do not depend on threads.

Sources: Chan, Golub and LeVeque 1979 for statistics in parts; Milakov and Gimelshein 2018 for the running maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import bare, contracted
from walloc_ref.fast.lanes import (
    BLOCK_ROWS,
    CHANNELS,
    SIDE,
    exponential,
    lanes,
    lanes_of,
    multiply,
    panel,
    panel_of,
    tile_in,
    tile_out,
    tile_rows,
    winograd,
)
from walloc_ref.fast.workers import for_each, together
from walloc_ref.stages import autoencoder_kl as plain
from walloc_ref.stages.autoencoder_kl import EPSILON, GROUPS, Array, Weights, layer

TILES = 48
"""Tiles of a convolution that are multiplied at once, for up to 4·TILES channels; a multiple of `BLOCK_ROWS`."""

APART = 16
"""Numbers between what belongs to different points of tiles; without them all points of a tile stand where a cache has
room for few: in lines whose addresses end alike."""

PARTS = 4
"""Parts of a layer that there should be at least, for as many threads."""

SHARE = 192
"""Channels that a part computes at least where rows alone make too few parts; each part transforms what it reads itself."""

TRANSPOSED = 1024
"""Positions whose channels are moved outside at once."""

QUERIES = (192, 96, 48)
"""Queries that are answered at once, multiples of `BLOCK_ROWS`: the more, the less often keys and values come from memory.

The first is taken of which there are `PARTS` blocks, or the last.
"""

KEYS = 512
"""Keys whose scores are held at once; a multiple of `LOOSE`, as are queries and keys after they were filled up."""

LOOSE = 64
"""Maxima and sums along a row of scores that are kept beside each other."""

WIDEST = 16
"""As many of them are left when whole vectors were put together; what is left is put together one by one."""


def decode(z: Array, weights: Weights, number: type = np.float64) -> Array:
    """Same as `stages.autoencoder_kl.decode`, in numbers of a type."""
    return _run(z, weights, number, _decode)


def encode(bands: Array, weights: Weights, number: type = np.float64) -> Array:
    """Same as `stages.autoencoder_kl.encode`, in numbers of a type."""
    return _run(bands, weights, number, _encode)


def _run(x: Array, weights: Weights, number: type, blocks: Callable[[_Network, _Map], None]) -> Array:
    """A network from its first to its last convolution: channels first outside, last inside."""
    network = _Network(weights, np.dtype(number), weights["conv_in.bias"].size)
    h, w = x.shape[1:]
    with together():
        filled = _filled(x.shape[0], lanes(network.number.itemsize))
        first: NDArray[Any] = np.zeros((h, w, filled), network.number)
        first[:, :, : x.shape[0]] = np.moveaxis(x, 0, -1)
        state = _Map.empty(h, w, weights["conv_in.bias"].size, network.number)
        network.convolve(first, None, state, "conv_in", rows=network.order)
        state.set_outer(*(part[network.inner :] for part in state.statistics()))
        blocks(network, state)
        outputs = weights["conv_out.bias"].size
        last = _Map.empty(h, w, _filled(outputs, CHANNELS), network.number)
        norm = network.norm(state, "conv_norm_out")
        network.convolve(state.values, norm, last, "conv_out", columns=network.order)
        return _channels_first(last.values, outputs)


def _decode(network: _Network, state: _Map) -> None:
    network.middle(state)
    for i in range(plain.DECODER_BLOCKS):
        network.residual(state, f"up_blocks.0.resnets.{i}")


def _encode(network: _Network, state: _Map) -> None:
    for i in range(plain.ENCODER_BLOCKS):
        network.residual(state, f"down_blocks.0.resnets.{i}")
    network.middle(state)


def _filled(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple


# ---- values and their statistics -----------------------------------------------------------------------------------


@dataclass
class _Map:
    """Values (h, w, N) and, of each channel, what the parts that wrote them found.

    Attributes
    ----------
    values : shape (h, w, N)
    parts : float64, shape (parts, 2, N)
        Of each part, mean and sum of squared deviations from it.
    counts : float64, shape (parts,)
        Positions of each part.
    outer : float64, shape (2, outer channels)
        Mean and variance of the last channels, as they are in `values`.
    shift : float64, shape (N,)
        What is to be added to `values`: biases of outer channels.
    """

    values: NDArray[Any]
    parts: NDArray[np.float64]
    counts: NDArray[np.float64]
    outer: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def empty(cls, h: int, w: int, channels: int, number: np.dtype) -> _Map:
        values, parts = np.empty((h, w, channels), number), np.empty((0, 2, channels))
        return cls(values, parts, np.empty(0), np.empty((2, 0)), np.zeros(channels))

    def expect(self, counts: list[int]) -> None:
        """Make room for the statistics of parts of so many positions."""
        self.counts = np.array(counts, dtype=np.float64)
        self.parts = np.zeros((len(counts), 2, self.values.shape[2]))

    def set_outer(self, mean: Array, variance: Array) -> None:
        """Say what the last channels are, which nobody writes to from now on."""
        self.outer = np.stack([mean, variance])

    def statistics(self) -> tuple[Array, Array]:
        """Mean and variance of every channel of `values`."""
        share = self.counts[:, None] / self.counts.sum()
        means = self.parts[:, 0]
        mean = (share * means).sum(axis=0)  # [N]
        squares = self.parts[:, 1].sum(axis=0) + (self.counts[:, None] * (means - mean) ** 2).sum(axis=0)
        variance = squares / self.counts.sum()
        inner = mean.size - self.outer.shape[1]
        mean[inner:], variance[inner:] = self.outer
        return mean, variance


class _Network:
    """Weights, arranged for the kernels when first needed and kept with them, and arrays that threads work in."""

    def __init__(self, weights: Weights, number: np.dtype, channels: int) -> None:
        self.weights, self.number = weights, number
        self.arranged: dict[Any, Any] = getattr(weights, "arranged", {})
        self.scratch: list[dict[str, NDArray[Any]]] = []
        self.order, self.inner = self._kept("order", partial(self._order, channels))

    def _order(self, channels: int) -> tuple[NDArray[np.intp], int]:
        """Channels of the network in the order in which they stand inside, and how many of them are not outer ones.

        Outer are those that no residual block writes, or reads between its two convolutions, but for some that fill up
        vectors. With attention there are none: it writes all.
        """
        used = np.zeros(channels, dtype=bool)
        for name, weight in self.weights.items():
            if name.endswith("to_out.0.weight"):
                used |= weight.any()
            elif ".resnets." in name and weight.ndim == 4:
                used |= weight.any(axis=(1, 2, 3))
                if name.endswith("conv2.weight"):
                    used |= weight.any(axis=(0, 2, 3))
        inner = _filled(max(1, int(used.sum())), CHANNELS)
        return np.argsort(~used, kind="stable"), min(inner, channels)

    def norm(self, state: _Map, name: str) -> tuple[NDArray[Any], ...]:
        """Mean, factor and term of every channel: a GroupNorm maps x of `state.values` to (x - mean)·factor + term."""
        mean, variance = state.statistics()
        mean += state.shift
        groups = self.order // (mean.size // GROUPS)  # of the channels as they stand inside
        share = GROUPS / mean.size
        centre = (np.bincount(groups, mean, GROUPS) * share)[groups]
        spread = np.bincount(groups, variance + (mean - centre) ** 2, GROUPS) * share
        weight, bias = (part[self.order] for part in layer(self.weights, name))
        factor = weight / np.sqrt(spread + EPSILON)[groups]
        return tuple(v.astype(self.number) for v in (centre - state.shift, factor, bias))

    def middle(self, state: _Map) -> None:
        """Same as `stages.autoencoder_kl.middle`, in place."""
        self.residual(state, "mid_block.resnets.0", after="mid_block.attentions.0.to_out.0")
        if self.weights["mid_block.attentions.0.to_out.0.weight"].any():
            self.attention(state, "mid_block.attentions.0")
        self.residual(state, "mid_block.resnets.1")

    def residual(self, state: _Map, name: str, after: str = "") -> None:
        """Same as `stages.autoencoder_kl.residual`, in place; and the bias of the layer `after` it is added."""
        h, w, channels = state.values.shape
        inner, outer = self.order[: self.inner], self.order[self.inner :]
        within = _Map.empty(h, w, channels, self.number)
        first, second = (layer(self.weights, f"{name}.{conv}")[1][outer] for conv in ("conv1", "conv2"))
        within.set_outer(first, np.zeros_like(first))
        norm = self.norm(state, f"{name}.norm1")
        read = self._kept((name, "read"), lambda: self._read(f"{name}.conv1.weight"))
        self.convolve(state.values, norm, within, f"{name}.conv1", rows=inner, columns=read)
        norm = self.norm(within, f"{name}.norm2")
        self.convolve(within.values, norm, state, f"{name}.conv2", rows=inner, columns=inner, more=True, after=after)
        state.shift[self.inner :] += second
        if after and not self._attends(after):
            state.shift[self.inner :] += self.weights[f"{after}.bias"][outer]

    def _read(self, name: str) -> NDArray[np.intp]:
        """Channels that a residual block reads, a multiple of those that fill a vector: the inner ones, or all."""
        reads_outer = self.weights[name][:, self.order[self.inner :]].any()
        return self.order if reads_outer else self.order[: self.inner]

    def convolve(
        self,
        x: NDArray[Any],
        norm: tuple[NDArray[Any], ...] | None,
        out: _Map,
        name: str,
        *,
        rows: NDArray[np.intp] | None = None,
        columns: NDArray[np.intp] | None = None,
        more: bool = False,
        after: str = "",
    ) -> None:
        """The convolution of x (h, w, K), or of silu(norm(x)), to `out` (h, w, N), or added to what stands there.

        Rows and columns of the weights are in the order of channels in `out` and `x`, which may have more.
        """
        h, w, inputs = x.shape
        inputs, outputs = (
            number if order is None else len(order)
            for number, order in ((inputs, columns), (out.values.shape[2], rows))
        )
        points = (SIDE + 2) ** 2
        make = partial(self._kernel, name, after, rows, columns, inputs, outputs)
        kernel, bias = self._kept((name, after), make)
        across, down = -(-w // SIDE), -(-h // SIDE)
        tiles = max(TILES, _filled(inputs // 4, BLOCK_ROWS))
        step, width = SIDE * min(down, max(1, round(tiles / across))), across * SIDE
        tiles = min(tiles, _filled(step // SIDE * across, BLOCK_ROWS))
        tops = range(0, h, step)
        shares = max(1, min(PARTS // len(tops), outputs // SHARE))
        edges = [_filled(outputs * i // shares, CHANNELS) for i in range(shares + 1)]
        out.expect([(min(top + step, h) - top) * w for top in tops])
        normal = norm or tuple(np.zeros(0, self.number) for _ in range(3))

        def work(part: int) -> None:
            room = self.scratch.pop() if self.scratch else {}
            around = self._room(room, "around", (step + 2) * (width + 2) * inputs).reshape(step + 2, width + 2, inputs)
            into = self._room(room, "into", points * (tiles * inputs + APART))
            product = self._room(room, "product", points * (tiles * outputs + APART))
            done = self._room(room, "done", step * width * outputs).reshape(step, width, outputs)
            strip, share = divmod(part, shares)
            top, low, high = tops[strip], edges[share], edges[share + 1]
            bottom = min(top + step, h)
            _surround(x, norm is not None, *normal, top, around)
            _convolve(
                around.reshape(-1), width, inputs, kernel, outputs, low, high,
                into, product, tiles, done.reshape(-1), _filled(bottom - top, SIDE),
            )  # fmt: skip
            _finish(done, bias, more, out.values, top, bottom, low, high, out.parts[strip])
            self.scratch.append(room)

        for_each(work, range(len(tops) * shares))

    def _room(self, room: dict[str, NDArray[Any]], name: str, size: int) -> NDArray[Any]:
        """A flat array that this thread may write to."""
        if name not in room or room[name].size < size:
            room[name] = np.zeros(size, self.number)
        return room[name][:size]

    def _kept(self, name: Any, make: Callable[[], Any]) -> Any:
        """What `make` makes of the weights, made once."""
        key = (name, self.number)
        if key not in self.arranged:
            self.arranged[key] = make()
        return self.arranged[key]

    def _kernel(
        self,
        name: str,
        after: str,
        rows: NDArray[np.intp] | None,
        columns: NDArray[np.intp] | None,
        inputs: int,
        outputs: int,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Transformed weights [points, panels, K, panel], flat, and the bias [N]."""
        weight, bias = layer(self.weights, name)
        if after and not self._attends(after):
            bias = bias + self.weights[f"{after}.bias"]
        weight, bias = (weight, bias) if rows is None else (weight[rows], bias[rows])
        weight = weight if columns is None else weight[:, columns]
        matrix = np.array(winograd()[1])  # [n, 3]
        points = np.kron(matrix, matrix)  # [n², 9]
        taps = np.zeros((9, inputs, outputs))
        taps[:, : weight.shape[1], : weight.shape[0]] = weight.reshape(*weight.shape[:2], 9).transpose(2, 1, 0)
        kernel = (points @ taps.reshape(9, -1)).astype(self.number).reshape(len(points), inputs, -1)
        filled = np.zeros(outputs)
        filled[: bias.size] = bias
        return _panels(kernel), filled.astype(self.number)

    def _attends(self, name: str) -> bool:
        """Whether an attention that ends in this layer adds more than its bias."""
        return bool(self.weights[f"{name}.weight"].any())

    # ---- attention

    def attention(self, state: _Map, name: str) -> None:
        """Same as `stages.autoencoder_kl.attention`, in place."""
        h, w, channels = state.values.shape
        positions = h * w
        filled = _filled(positions, 3 * LOOSE)  # a multiple of any number of queries, and of `LOOSE` for keys
        queries = next((count for count in QUERIES if count * PARTS <= positions), QUERIES[-1])
        x = state.values.reshape(positions, channels)
        norm = self.norm(state, f"{name}.group_norm")
        scale = {"to_q": channels**-0.5, "to_k": 1.0, "to_v": 1.0, "to_out.0": 1.0}
        matrices = {
            part: self._kept((name, part), partial(self._matrix, f"{name}.{part}", scale[part])) for part in scale
        }
        query, value = (np.empty((filled, channels), self.number) for _ in range(2))
        key = np.empty((filled // LOOSE, channels, LOOSE), self.number)

        def project(start: int) -> None:
            tokens, product = (np.empty((3 * LOOSE, channels), self.number) for _ in range(2))
            _normalise(x, *norm, start, tokens)
            for part, into in (("to_q", query), ("to_v", value)):
                self._linear(tokens, matrices[part], into[start : start + 3 * LOOSE])
            self._linear(tokens, matrices["to_k"], product)
            key[start // LOOSE : start // LOOSE + 3] = product.reshape(3, LOOSE, channels).transpose(0, 2, 1)

        for_each(project, range(0, filled, 3 * LOOSE))
        starts = range(0, positions, queries)
        state.expect([min(queries, positions - start) for start in starts])

        def answer(part: int) -> None:
            mixed, product = (np.empty((queries, channels), self.number) for _ in range(2))
            scores, most, total, beside = (np.empty(n, self.number) for n in (queries * KEYS, queries, queries, LOOSE))
            start, stop = starts[part], min(starts[part] + queries, positions)
            _answer(*flat, positions, channels, start, scores, most, total, beside, mixed.reshape(-1))
            self._linear(mixed, matrices["to_out.0"], product)
            _finish(product[None], zeros, True, x[None, start:stop], 0, 1, 0, channels, state.parts[part])

        zeros, flat = np.zeros(channels, self.number), [a.reshape(-1) for a in (query, key, value)]
        for_each(answer, range(len(starts)))

    def _matrix(self, name: str, factor: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """A linear layer's weights [panels, K, panel], flat, and its bias, times a factor."""
        weight, bias = layer(self.weights, name)
        return _panels((weight.T * factor).astype(self.number)[None]), (bias * factor).astype(self.number)

    @staticmethod
    def _linear(x: NDArray[Any], matrix: tuple[NDArray[Any], NDArray[Any]], out: NDArray[Any]) -> None:
        """A linear layer on rows: [rows, K] to [rows, N]."""
        _linear(x.reshape(-1), x.shape[1], *matrix, out.reshape(-1))


def _panels(matrices: NDArray[Any]) -> NDArray[Any]:
    """Matrices [M, K, N] so that what `multiply` reads one after the other stands so: [M, panels, K, panel], flat."""
    count, inputs, outputs = matrices.shape
    columns = panel(matrices.itemsize)
    parts = matrices.reshape(count, inputs, outputs // columns, columns).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(parts).reshape(-1)


# ---- kernels -------------------------------------------------------------------------------------------------------


@contracted
def _surround(x, normalised, mean, factor, term, top, around):
    """silu((x - mean)·factor + term), or x itself, of the rows from top - 1 on, with zeros beyond the border.

    x [h, w, K or more], mean, factor, term [K or more] -> around [rows + 2, columns + 2, K].
    """
    h, w, inputs = x.shape
    for i in range(around.shape[0]):
        y = top - 1 + i
        if y < 0 or y >= h:
            around[i] = 0
            continue
        around[i, 0] = 0
        for j in range(w):
            source, target = x[y, j], around[i, j + 1]
            if normalised:
                for c in range(inputs):
                    v = (source[c] - mean[c]) * factor[c] + term[c]
                    target[c] = v / (x.dtype.type(1) + exponential(-v))
            else:
                for c in range(inputs):
                    target[c] = source[c]
        around[i, w + 1 :] = 0


@contracted
def _convolve(around, width, inputs, kernel, outputs, low, high, into, product, most, done, rows):
    """Winograd's convolution of `rows` rows that bring their surroundings, `most` tiles at a time; all arrays flat.

    around [rows + 2, width + 2, K], kernel [n², panels, K, panel] -> done [rows, width, N], channels low … high - 1.
    """
    across, points = width // SIDE, (SIDE + 2) ** 2
    tiles = rows // SIDE * across
    point_in, point_out = most * inputs + APART, most * outputs + APART  # from point to point
    columns, together, step = panel_of(around), tile_rows(around), lanes_of(around)
    line = (width + 2) * inputs
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        for t in range(count):
            y, x = (first + t) // across * SIDE, (first + t) % across * SIDE
            for c in range(0, inputs, step):
                tile_in(around, y * line + x * inputs + c, line, inputs, into, t * inputs + c, point_in)
        for e in range(points):
            for j in range(low, high, columns):
                for t in range(0, count, together):
                    multiply(
                        into, e * point_in + t * inputs, inputs, 1, 0, inputs,
                        kernel, (e * outputs + j) * inputs, columns,
                        product, e * point_out + t * outputs + j, outputs, False,
                    )  # fmt: skip
        for t in range(count):
            y, x = (first + t) // across * SIDE, (first + t) % across * SIDE
            for c in range(low, high, step):
                place = (y * width + x) * outputs + c
                tile_out(product, t * outputs + c, point_out, done, place, width * outputs, outputs)


@contracted
def _finish(done, bias, more, out, top, bottom, low, high, found):
    """Rows top … bottom of `out`, with the bias, added to what stands there or in its place; their means and squares.

    All of the channels low … high - 1: done [rows, columns, N], bias [N], out [h, w, N or more], found [2, N or more].
    """
    w = out.shape[1]
    mean, squares = found[0, low:high], found[1, low:high]
    term, channels = bias[low:high], high - low
    for y in range(top, bottom):
        for x in range(w):
            source, target = done[y - top, x, low:high], out[y, x, low:high]
            if more:
                for c in range(channels):
                    target[c] += source[c] + term[c]
            else:
                for c in range(channels):
                    target[c] = source[c] + term[c]
            for c in range(channels):
                mean[c] += target[c]
    for c in range(channels):
        mean[c] /= (bottom - top) * w
    for y in range(top, bottom):
        for x in range(w):
            target = out[y, x, low:high]
            for c in range(channels):
                deviation = target[c] - mean[c]
                squares[c] += deviation * deviation


@contracted
def _normalise(x, mean, factor, term, start, out):
    """(x - mean)·factor + term of the positions from `start` on, zeros beyond the last: x [P, N] -> out [rows, N]."""
    for i in range(out.shape[0]):
        if start + i < x.shape[0]:
            source, target = x[start + i], out[i]
            for c in range(x.shape[1]):
                target[c] = (source[c] - mean[c]) * factor[c] + term[c]
        else:
            out[i] = 0


@contracted
def _linear(x, inputs, kernel, bias, out):
    """x·kernel + bias, all arrays flat: x [rows, K], kernel [panels, K, panel], bias [N] -> out [rows, N]."""
    outputs = bias.size
    rows, columns, together = x.size // inputs, panel_of(x), tile_rows(x)
    for j in range(0, outputs, columns):
        for r in range(0, rows, together):
            multiply(
                x, r * inputs, inputs, 1, 0, inputs,
                kernel, j * inputs, columns, out, r * outputs + j, outputs, False,
            )  # fmt: skip
    for r in range(rows):
        line = out[r * outputs : (r + 1) * outputs]
        for c in range(outputs):
            line[c] += bias[c]


@contracted
def _answer(query, key, value, positions, channels, start, scores, most, total, beside, mixed):
    """What the queries from `start` on get; all arrays flat, of `positions` positions filled up.

    query [P, N], key [P / LOOSE, N, LOOSE], value [P, N] -> mixed [B, N]. Room for scores [B, KEYS], for the greatest score
    and the sum of weights of each query so far, `most` and `total` [B], and for `beside` [LOOSE].
    """
    rows, columns, together = most.size, panel_of(query), tile_rows(query)
    for r in range(rows):
        most[r], total[r] = -np.inf, 0
    for first in range(0, positions, KEYS):
        count = min(KEYS, positions - first)
        for j in range(0, count, columns):
            place = (first + j) // LOOSE * LOOSE * channels + j % LOOSE
            for r in range(0, rows, together):
                multiply(
                    query, (start + r) * channels, channels, 1, 0, channels,
                    key, place, LOOSE, scores, r * KEYS + j, KEYS, False,
                )  # fmt: skip
        for r in range(rows):
            line = scores[r * KEYS : (r + 1) * KEYS]
            line[count:] = -np.inf
            before = top = most[r]
            beside[:] = before
            for j in range(0, count, LOOSE):
                part = line[j : j + LOOSE]
                for i in range(LOOSE):
                    beside[i] = part[i] if part[i] > beside[i] else beside[i]
            for i in range(WIDEST):
                for j in range(i + WIDEST, LOOSE, WIDEST):
                    beside[i] = beside[j] if beside[j] > beside[i] else beside[i]
            for i in range(WIDEST):
                top = beside[i] if beside[i] > top else top
            beside[:] = 0
            for j in range(0, count, LOOSE):
                part = line[j : j + LOOSE]
                for i in range(LOOSE):
                    part[i] = exponential(part[i] - top)
                    beside[i] += part[i]
            faded = exponential(before - top)  # of the first block next to nothing, times nothing
            for i in range(WIDEST):
                for j in range(i + WIDEST, LOOSE, WIDEST):
                    beside[i] += beside[j]
            total[r] *= faded
            for i in range(WIDEST):
                total[r] += beside[i]
            most[r] = top
            if first:
                so_far = mixed[r * channels : (r + 1) * channels]
                for c in range(channels):
                    so_far[c] *= faded
        for j in range(0, channels, columns):
            for r in range(0, rows, together):
                multiply(
                    scores, r * KEYS, KEYS, 1, 0, count,
                    value, first * channels + j, channels, mixed, r * channels + j, channels, first > 0,
                )  # fmt: skip
    for r in range(rows):
        line = mixed[r * channels : (r + 1) * channels]
        for c in range(channels):
            line[c] /= total[r]


def _channels_first(x: NDArray[Any], channels: int) -> Array:
    """(h, w, N) to (channels, h, w), in binary64."""
    out = np.empty((channels, *x.shape[:2]))
    positions = x.shape[0] * x.shape[1]
    source, target = x.reshape(positions, -1), out.reshape(channels, -1)

    def work(start: int) -> None:
        transpose(source, start, min(start + TRANSPOSED, positions), target)

    for_each(work, range(0, positions, TRANSPOSED))
    return out


@bare
def transpose(x, start, stop, out):
    """out[:, p] = x[p, :channels] for the positions start … stop - 1, eight at a time, so that lines are used up.

    Eight is a constant for the compiler, which loads and stores without a loop then: twice as fast.
    """
    channels = out.shape[0]
    whole = start + (stop - start) // 8 * 8
    for first in range(start, whole, 8):
        part = x[first : first + 8]
        for c in range(channels):
            line = out[c, first : first + 8]
            for p in range(8):
                line[p] = part[p, c]
    for c in range(channels):
        for p in range(whole, stop):
            out[c, p] = x[p, c]
