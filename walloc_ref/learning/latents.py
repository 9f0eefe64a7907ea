"""Latents of many files as one array, for those who learn from them. No part of the codec.

An encoder of WaLLoC is linear and cheap, and its latents are fewer numbers than the samples they stand for: 12 or 48
for every 8 by 8 pixels of three colours (192 numbers), so a learner that can afford so many inputs sees more of a signal
through latents than through a smaller copy of it. What comes back is what a decoder would start from:

- **symbols**, int8, -127 … 127: companded and rounded latents, about normally distributed, 0 the most frequent. They are
  compressed amplitudes already, and as they are a good input of a network (divided by 127, if it wants small numbers).
- **latents**, float32: what symbols stand for (SPEC.md 6.4, 6.7), linear in the signal. Sums and differences of them are
  those of signals, so linear maps between latents mean linear maps between signals.

Planes come in the order of the model. For the bundled models these are principal components, largest variance first:
plane 0 is the mean brightness of each block (or the lowest band of audio), the next ones are colour and slow changes.
A position (h, w) is a block of 2^J by 2^J samples of the image, a position l of audio a block of 2^J frames (with one more
position at each end), a position (z, h, w) a block of 2^J by 2^J by 2^J voxels of a volume. What is read is what
`walloc-ref encode` reads, through the same door (`files.media`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.architecture import Symbols
from walloc_ref.codec import Codec, Progress, load_model, reporting, symbols_and_header
from walloc_ref.errors import BadSamples, UnreadableFile, WallocError
from walloc_ref.files.arrays import Wanted
from walloc_ref.stages import container

DTYPES = ("int8", "float32")
"""What comes back: symbols, or the latents that they stand for."""

PLANES = ("first", "last")
"""Where the axis of planes stands: (n, D, h, w), as PyTorch wants it, or (n, h, w, D)."""

GROUP = 16
"""Files that a thread is handed at a time, where there are many."""

DEFAULT_MODEL = "rgb_16x"
"""The model of the fewest latents for colour images, which takes grey ones as well."""

Input = "str | os.PathLike[str] | NDArray[Any]"


@dataclass(frozen=True, eq=False)
class Features:
    """Latents of many files.

    Attributes
    ----------
    values : int8 or float32, (n, D, h, w), (n, D, l) or (n, D, z, h, w), D last if asked for, or a list of n arrays
        A list where sizes differ.
    names : tuple of str
        Where each came from: paths as they were given or found, or the numbers of arrays.
    labels : tuple of str
        Of a file that was found in a folder: the first folder below it on the way to the file; else "".
    failures : tuple of (str, str)
        Files that could not be read, and why.
    model, model_id : str
    step : float
        That the symbols were quantised with.
    planes : str
        One of `PLANES`.
    """

    values: NDArray[Any] | list[NDArray[Any]]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    model: str
    model_id: str
    step: float
    planes: str


def features(
    inputs: Any,
    model: str | Codec = DEFAULT_MODEL,
    *,
    step: float = 1.0,
    dtype: str = "float32",
    planes: str = "first",
    size: Sequence[int] | None = None,
    rate: int | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008
    background: str | None = None,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Latents of many files or arrays, stacked.

    Parameters
    ----------
    inputs : path, URL, array, or sequence of these
        Folders are searched to their depths. A `.wlc` file is read without the decoder's network. An array is one image
        (H, W[, C]), clip (frames, channels) or volume (depth, H, W[, C]); an array of one axis more, that of channels
        included, is a batch of them.
    model : str or Codec
        Of images, audio and volumes; a `.wlc` file must be of this model, too.
    step : float
        The quantiser's step; files that are streams keep their own.
    dtype : {"float32", "int8"}
        Latents, or symbols; see this module.
    planes : {"first", "last"}
    size : sequence of int, optional
        (h, w), (l,) or (z, h, w): crop to so many latent positions around the centre (audio: from the start), or pad with
        zeros.
    rate : int, optional
        Of arrays of audio (44100 if not given).
    wanted : Wanted, optional
        What files of arrays do not say: axes, shape, variable, sample format; and the limit of samples.
    background : str, optional
        What transparent pixels are put on.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    shape (n, D, h, w), (n, D, l) or (n, D, z, h, w); planes last if asked for

    Raises
    ------
    WallocError
        A file that cannot be read; `collect` lists such files instead.
    BadSamples
        Sizes that differ where no `size` is given, or symbols of different steps.

    Examples
    --------
    >>> import numpy as np, walloc_ref
    >>> batch = np.zeros((5, 64, 96, 3), np.uint8)
    >>> walloc_ref.features(batch, model="rgb_16x", dtype="int8").shape
    (5, 12, 8, 12)
    """
    found = collect(
        inputs,
        model,
        step=step,
        dtype=dtype,
        planes=planes,
        size=size,
        rate=rate,
        wanted=wanted,
        background=background,
        strict=True,
        progress=progress,
    )
    if isinstance(found.values, list):
        sizes = sorted({value.shape for value in found.values})
        raise BadSamples("sizes of latents", ", ".join(map(str, sizes[:3])), "the same for all, or say `size`")
    return found.values


def collect(
    inputs: Any,
    model: str | Codec = DEFAULT_MODEL,
    *,
    step: float = 1.0,
    dtype: str = "float32",
    planes: str = "first",
    size: Sequence[int] | None = None,
    rate: int | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008
    background: str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Latents of many files or arrays, with names, labels and failures; parameters and errors as in `features`.

    With `strict` the first file that cannot be read is an error, else it is listed.
    """
    _check("dtype", dtype, DTYPES)
    _check("planes", planes, PLANES)
    codec = model if isinstance(model, Codec) else load_model(model)
    if size is not None:
        size = tuple(int(n) for n in size)
        if len(size) != codec.config.axes or min(size) < 1:
            raise BadSamples("size", size, f"{codec.config.axes} numbers of latent positions from 1 on")
    items = list(found_items(inputs, codec))

    def work(item: tuple[str, str, Any]) -> tuple[Symbols, float] | WallocError:
        name, _, content = item
        try:
            symbols, own = read(content, name, codec, step=step, rate=rate, wanted=wanted, background=background)
            return (symbols if size is None else fitted(symbols, size)), own
        except WallocError as error:
            if strict:
                raise
            return error

    with reporting(progress):
        results = _side_by_side(work, items)
    done = [(item, result) for item, result in zip(items, results) if not isinstance(result, WallocError)]
    failed = [(item[0], str(result)) for item, result in zip(items, results) if isinstance(result, WallocError)]
    steps = {own for _, (_, own) in done}
    if len(steps) > 1 and dtype == "int8":
        found = ", ".join(f"{value:g}" for value in sorted(steps))
        raise BadSamples("steps of the streams", found, "one step for all symbols; float32 latents may differ")
    values = [_values(symbols, own, codec, dtype, planes) for _, (symbols, own) in done]
    same = len({value.shape for value in values}) == 1
    return Features(
        values=np.stack(values) if same else values,
        names=tuple(item[0] for item, _ in done),
        labels=tuple(item[1] for item, _ in done),
        failures=tuple(failed),
        model=codec.name,
        model_id=codec.model_id,
        step=steps.pop() if len(steps) == 1 else step,
        planes=planes,
    )


def read(
    content: Any,
    name: str,
    codec: Codec,
    *,
    step: float = 1.0,
    rate: int | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008
    background: str | None = None,
) -> tuple[Symbols, float]:
    """Symbols (D, h, w), (D, l) or (D, z, h, w) of a file (a path) or an array, and the step that they were quantised with.

    Parameters and errors as in `features`.
    """
    how: dict[str, Any] = {"step": step, "max_samples": wanted.max_samples}
    if isinstance(content, np.ndarray):
        return codec.symbols_of_samples(content, rate if codec.config.kind == "audio" else None, **how), step
    from walloc_ref.files import media, whole_files

    path = os.fspath(content)
    wanted = replace(wanted, kind=codec.config.kind)
    if os.path.isdir(path):
        found = media.read(path, wanted)
    else:
        with whole_files.open_input(path) as file:
            if file.read(len(container.MAGIC)) == container.MAGIC:
                file.seek(0)
                return read_stream(whole_files.read_whole(file, name), codec, wanted.max_samples)
            found = media.read_open(file, name, wanted, background=background)
    if codec.config.kind != found.kind:
        here = f"{codec.name}, for {codec.config.kind}; {name} is {found.kind}"
        raise BadSamples("model", here, f"a model for {found.kind}")
    if found.kind == "audio":
        rate, how["sample_format"] = found.rate, found.sample_format
    return codec.symbols_of_samples(found.samples, rate if found.kind == "audio" else None, **how), step


def read_stream(data: bytes, codec: Codec, max_samples: int = container.MAX_SAMPLES) -> tuple[Symbols, float]:
    """The verified symbols of a stream, and its step."""
    symbols, header = symbols_and_header(data, codec=codec, max_samples=max_samples)
    return symbols, header.step


def dequantised(symbols: Symbols, step: float, codec: Codec) -> NDArray[np.float32]:
    """What symbols (D, …) stand for, in binary32 (SPEC.md 6.4, 6.7)."""
    steps = codec.model.plane_steps(codec.coding(step=step))
    return (codec.stages.dequantise(symbols, codec.config.latent_bits) * steps).astype(np.float32)


def fitted(symbols: Symbols, size: Sequence[int]) -> Symbols:
    """Symbols cut or padded with zeros to these positions: images and volumes all around, audio at the end."""
    for axis, wanted in enumerate(size, 1):
        found = symbols.shape[axis]
        before = (found - wanted) // 2 if len(size) > 1 else 0
        if found >= wanted:
            symbols = symbols.take(range(before, before + wanted), axis=axis)
        else:
            before = (wanted - found) // 2 if len(size) > 1 else 0
            margins = [(0, 0)] * symbols.ndim
            margins[axis] = (before, wanted - found - before)
            symbols = np.pad(symbols, margins)
    return symbols


def found_items(inputs: Any, codec: Codec) -> Iterable[tuple[str, str, Any]]:
    """Name, label and path or array of everything that `inputs` names, folders in order of their names."""
    from walloc_ref.files import media

    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    elif isinstance(inputs, np.ndarray):
        single = codec.config.axes + 1
        inputs = list(inputs) if inputs.ndim > single else [inputs]
    number = -1
    for number, content in enumerate(inputs):
        if isinstance(content, np.ndarray):
            yield str(number), "", content
            continue
        root = os.fspath(content)
        if not os.path.isdir(root):
            yield root, "", root
            continue
        found = media.inputs_of(root, (".wlc", *media.READ_SUFFIXES))
        if not found:
            raise UnreadableFile("input", root, "a folder with images, audio, volumes or .wlc files")
        for path in found:
            parts = Path(path).relative_to(root).parts
            labelled = len(parts) > 1 or (parts and os.path.isdir(path))
            yield path, parts[0] if labelled else "", path
    if number < 0:
        raise BadSamples("inputs", "none", "a file, a folder or an array")


def _values(symbols: Symbols, step: float, codec: Codec, dtype: str, planes: str) -> NDArray[Any]:
    values = symbols.astype(np.int8) if dtype == "int8" else dequantised(symbols, step, codec)
    return np.ascontiguousarray(np.moveaxis(values, 0, -1)) if planes == "last" else values


def _side_by_side(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """`work` on all items, some at a time: to hand a small file to a thread costs as much as a fifth of reading it."""
    from walloc_ref.fast.workers import for_each, threads

    count = max(1, min(GROUP, len(items) // (4 * threads())))
    groups = [items[i : i + count] for i in range(0, len(items), count)]
    return [one for part in for_each(lambda group: [work(item) for item in group], groups, report=True) for one in part]


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise BadSamples(name, value, "one of " + ", ".join(known))
