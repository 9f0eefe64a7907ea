"""Compiling ahead of use: all kernels for all kinds of signals, so that no later process has to.

A kernel is compiled for the types of its arguments, so what is done here is what the codec does, on inputs of a few
samples: every model at hand, every sample format.

The first command ever run waits for compilation. It need not wait for all of it in turn: while it compiles the first
kernel that it wants, a second process compiles what an image needs after that (`ahead`).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from walloc_ref import image
from walloc_ref import model as models
from walloc_ref.codec import Codec, decode_stream
from walloc_ref.errors import WallocError
from walloc_ref.fast import autoencoder_kl, entropy, machine_code, signal, wavelet
from walloc_ref.fast.machine_code import Kernel
from walloc_ref.fast.workers import threads
from walloc_ref.stages.signal import AUDIO_FORMATS

SIDE, FRAMES = 40, 6000
"""Sizes of the inputs: large enough that they are cut into parts as large ones are."""

CODING, DECODING = "coding", "decoding"
"""What may be done ahead: of an encoder, to code symbols; of a decoder, to make an image of them."""


def run(tell: Callable[[float], None] = lambda share: None) -> list[str]:
    """Compile everything that is not there; returns the names of the kernels that were compiled."""
    with compiled_names() as names:
        work = list(_jobs())
        for number, job in enumerate(work):
            job()
            tell((number + 1) / len(work))
    return names


@contextlib.contextmanager
def compiled_names() -> Iterator[list[str]]:
    """The names of the kernels that are compiled in this block."""
    names: list[str] = []

    def note(kernel: Kernel) -> None:
        names.append(kernel.name)

    machine_code.listeners.append(note)
    try:
        yield names
    finally:
        machine_code.listeners.remove(note)


def _jobs() -> Iterator[Callable[[], object]]:
    """What calls all kernels, a job for each model and sample format."""
    for path in models.available().values():
        try:
            codec = Codec(models.load(path))
        except WallocError:
            continue
        for samples, sample_format in _inputs(codec):
            yield partial(_there_and_back, codec, samples, sample_format)


def _inputs(codec: Codec) -> Iterator[tuple[np.ndarray, str]]:
    """Samples that a model takes, in all formats."""
    random = np.random.default_rng(0)
    if codec.config.kind == "audio":
        for name, (dtype, _, _, step) in AUDIO_FORMATS.items():
            noise = random.integers(0, 100, (FRAMES, codec.config.channels)) * max(1, step)
            yield noise.astype(dtype), name
    else:
        sizes = (4 * SIDE, SIDE) if codec.config.kind == "image" else (SIDE,) * codec.config.axes
        shape = (*sizes, codec.config.channels)
        for dtype, name in ((np.uint8, "u8"), (np.uint16, "u16")):
            yield random.integers(0, 256, shape).astype(dtype), name


def _there_and_back(codec: Codec, samples: np.ndarray, sample_format: str) -> None:
    """Encode and decode, certified where that can be."""
    certify = not sample_format.startswith("f") and codec.spread.samples_exact
    data = codec.encode(samples, sample_format=sample_format, certify=certify)
    for precision in ("binary64", "binary32"):
        decode_stream(data, codec=codec, precision=precision)
    codec.from_symbols(codec.to_symbols(np.zeros((codec.config.channels, *samples.shape[: codec.config.axes]))))
    if codec.config.kind == "image":
        decode_stream(data, codec=codec, region=(0, 0, 9, 9))


# ---- two processes


def ahead(first: Kernel) -> None:
    """Have another process compile what follows this kernel, if there is a processor and a folder for it."""
    if (
        first is entropy.encode_slice
        or threads() < 2
        or machine_code.writable_folder() is None
        or machine_code.checked()
    ):
        return
    share = DECODING if first is entropy.decode_slice else CODING
    command = [sys.executable, "-m", __name__, share]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    machine_code.elsewhere.append((process.wait, partial(_is_of, share)))


def _is_of(share: str, kernel: Kernel) -> bool:
    """Whether a kernel is what the other process compiles."""
    if share == CODING:
        return kernel is entropy.encode_slice
    networks = kernel.py_func.__module__ == autoencoder_kl.__name__
    return networks or kernel in (wavelet._synthesise, signal._scatter)


def main(share: str) -> None:
    """What the other process does."""
    codec = Codec(
        next(model for model in map(models.load, models.available().values()) if model.config.kind == "image")
    )
    symbols = np.zeros((codec.config.planes, 4, 4), np.int16)
    if share == CODING:
        entropy.encode(symbols, codec.model.tables)
    else:
        sizes = [4 * codec.config.multiple - 1] * 2  # cut out of what is synthesised, as parts of larger images are
        _, layout = image.describe(np.zeros((*sizes, codec.config.channels), np.uint8), codec.config)
        codec.stages.symbols_to_samples["image"](symbols, layout, codec.model, codec.stages)


if __name__ == "__main__":
    main(sys.argv[1])
