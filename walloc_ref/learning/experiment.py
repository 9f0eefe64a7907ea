"""What a classifier sees of a signal through latents, through fewer samples, and through all samples. No part of the codec.

    python -m walloc_ref.learning.experiment images FOLDER --json images.json --plot images.png
    python -m walloc_ref.learning.experiment audio FOLDER --json audio.json
    python -m walloc_ref.learning.experiment throughput FOLDER --models rgb_16x

FOLDER holds a folder of images for each class, or recordings whose names begin with ``CLASS_SPEAKER_``. At each budget of
dimensions the same learners get (a) symbols of a model, (b) as many samples of the signal made smaller (bicubic; audio:
resampled, so band-limited), and, whatever their number, (c) all samples, and (d) all samples after other codecs at the
bytes of some streams (`EQUAL_BYTES`): WebP, and JPEG where its files can be so small. Splits keep apart who was recorded:
speakers of audio; of images, runs of ten numbers in the files' names, if they have numbers.
Everything is repeated over seeds, side by side on all processors, one thread each; seconds are those of one processor.
Needs scikit-learn; the convolutional learner needs PyTorch and is left out where that is missing. The result is written
after each view, and with ``--resume`` the views that it has are not measured again. The third command measures how many
images become latents in a second of one processor, beside decoding those streams to pixels and beside what learners do
otherwise: open a JPEG and make it smaller.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import walloc_ref
from walloc_ref.errors import BadSamples, UnreadableFile
from walloc_ref.learning import latents

IMAGE_MODELS = ("rgb_64x", "rgb_16x", "rgb_4x")
"""Budgets of dimensions for images: those of these models."""

AUDIO_MODELS = ("stereo_20x", "stereo_5x")
"""The same for audio."""

EQUAL_BYTES = (("rgb_16x", 1.0), ("rgb_4x", 0.5))
"""Models and steps at whose streams' bytes other codecs are seen; the second is fine enough for JPEG to be there."""

OTHERS: dict[str, dict[str, Any]] = {"WEBP": {}, "JPEG": {"optimize": True}}
"""Other codecs, by Pillow's names, and what is asked of them beside a quality: the smallest files they can write."""

BYTES_TOLERANCE = 0.02
"""How far their files may be from as many bytes; one that cannot be so small is left out."""

VIEW_COLOURS = {"symbols": "C0", "reduced": "C1", "samples": "C2", "webp": "C3", "jpeg": "C4"}
"""Of the plot."""

CLIP_FRAMES = 8192
"""Frames of a recording, cut or padded with zeros."""

TEST_SHARE = 0.2
"""Share of the groups that are held out, for images; of audio, one speaker."""

EPOCHS = 25
"""Passes of the convolutional learner over its training set."""

FORMAT = "walloc_ref.learning 2"
"""Layout of the result."""


@dataclass(frozen=True, eq=False)
class Data:
    """Signals of one size, what they are, and who they are of.

    Attributes
    ----------
    samples : uint8 (n, H, W, 3), or int16 (n, frames)
    labels, groups : int, (n,)
    rate : int or None
    """

    samples: NDArray[Any]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    rate: int | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One way to show the signals to a learner: values (n, channels, …), bytes on disk where it is a file's."""

    name: str
    model: str | None
    values: NDArray[Any]
    bytes: int | None = None
    step: float = 1.0

    @property
    def dimensions(self) -> int:
        """Numbers for each signal."""
        return int(np.prod(self.values.shape[1:]))


# ---- data


def read_images(folder: Path, limit: int | None = None) -> Data:
    """Images of one size in a folder for each class; at most `limit` a class.

    Raises
    ------
    UnreadableFile
        No classes, or images of several sizes.
    """
    from walloc_ref.files import image_files

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    samples: list[NDArray[Any]] = []
    labels: list[int] = []
    groups: list[int] = []
    for label, place in enumerate(classes):
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in image_files.IMAGE_SUFFIXES)
        for path in files[:limit]:
            image = image_files.read_image(path.read_bytes(), str(path)).samples
            samples.append(image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
            labels.append(label)
            number = re.search(r"(\d+)\D*$", path.stem)
            groups.append(int(number.group(1)) // 10 if number else len(groups))
    if len(classes) < 2 or not samples or len({image.shape for image in samples}) > 1:
        raise UnreadableFile("input", str(folder), "a folder of images of one size for each of two classes or more")
    return Data(np.stack(samples), np.array(labels), np.array(groups))


def read_audio(folder: Path, limit: int | None = None) -> Data:
    """Mono recordings named ``CLASS_SPEAKER_…``; at most `limit` in all, evenly taken.

    Raises
    ------
    UnreadableFile
        No such names, several rates or channels.
    """
    from walloc_ref.files import audio_files

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in audio_files.AUDIO_SUFFIXES)
    if limit is not None:
        files = files[:: max(1, len(files) // limit)]
    names = [path.stem.split("_") for path in files]
    if not files or min(map(len, names)) < 2:
        raise UnreadableFile("input", str(folder), "recordings named CLASS_SPEAKER_…")
    clips = []
    for path in files:
        with path.open("rb") as file:
            clips.append(audio_files.read_audio(file, str(path)))
    if len({(clip.rate, clip.samples.shape[1]) for clip in clips}) != 1 or clips[0].samples.shape[1] != 1:
        raise UnreadableFile("input", str(folder), "mono recordings of one rate")
    samples = np.zeros((len(clips), CLIP_FRAMES), np.int16)
    for row, clip in zip(samples, clips):
        part = clip.samples[:CLIP_FRAMES, 0]
        row[: len(part)] = part
    return Data(samples, _numbered(name[0] for name in names), _numbered(name[1] for name in names), clips[0].rate)


def _numbered(words: Any) -> NDArray[np.int64]:
    return np.unique(np.array(list(words)), return_inverse=True)[1]


# ---- views


def image_views(data: Data, models: Sequence[str]) -> Iterator[View]:
    """Symbols of each model, images with as many samples, all samples; and what is seen at the bytes of some streams."""
    from PIL import Image

    for name in models:
        codec = walloc_ref.load_model(name)
        symbols = latents.features(data.samples, codec, dtype="int8")
        yield View("symbols", name, symbols, sum(len(codec.encode(image)) for image in data.samples))
        side = round((np.prod(symbols.shape[1:]) / 3) ** 0.5)
        small = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in data.samples]
        yield View("reduced", name, _planes_first(small))
    yield View("samples", None, _planes_first(data.samples))
    for name, step in EQUAL_BYTES:
        if name in models:
            yield from _views_of_equal_bytes(data, name, step)


def _views_of_equal_bytes(data: Data, model: str, step: float) -> Iterator[View]:
    """Symbols, if no other view has them, and samples after other codecs."""
    codec = walloc_ref.load_model(model)
    total = sum(len(codec.encode(image, step=step)) for image in data.samples)
    if step != 1:
        yield View("symbols", model, latents.features(data.samples, codec, step=step, dtype="int8"), total, step)
    for other in OTHERS:
        images, size = _after(other, data.samples, total)
        if abs(size - total) <= BYTES_TOLERANCE * total:
            yield View(other.lower(), model, _planes_first(images), size, step)


def _planes_first(images: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Images (H, W, C) as one array (n, C, H, W)."""
    return np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)


def _after(other: str, images: NDArray[np.uint8], wanted: int) -> tuple[list[NDArray[np.uint8]], int]:
    """Images after another codec, at the quality whose files together come nearest to this many bytes; and their bytes."""
    from PIL import Image

    def coded(quality: int) -> list[bytes]:
        files = []
        for image in images:
            memory = io.BytesIO()
            Image.fromarray(image).save(memory, other, quality=quality, **OTHERS[other])
            files.append(memory.getvalue())
        return files

    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(map(len, coded(middle))) > wanted else (middle, high)
    best = min((coded(low), coded(high)), key=lambda files: abs(sum(map(len, files)) - wanted))
    decoded = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in best]
    return decoded, sum(map(len, best))


def audio_views(data: Data, models: Sequence[str]) -> Iterator[View]:
    """Symbols of each model, recordings resampled to as many samples, and all samples."""
    from scipy import signal

    for name in models:
        codec = walloc_ref.load_model(name)
        clips = list(data.samples[:, :, None])
        symbols = latents.features(clips, codec, dtype="int8", rate=data.rate)
        yield View("symbols", name, symbols, sum(len(codec.encode(clip, data.rate)) for clip in clips))
        count = int(np.prod(symbols.shape[1:]))
        if count < data.samples.shape[1]:
            reduced = signal.resample(data.samples.astype(np.float32), count, axis=1)
            yield View("reduced", name, reduced[:, None].astype(np.float32))
    yield View("samples", None, data.samples[:, None])


# ---- learners

Learner = Callable[[NDArray[np.float32], NDArray[np.int64], int], Callable[[NDArray[np.float32]], NDArray[np.int64]]]
"""Values (n, channels, …), labels and a seed to a function from values to labels."""


def logistic(values: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Callable[..., NDArray[np.int64]]:
    """Logistic regression, the same penalty everywhere."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.01, max_iter=100, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 rounds, the same everywhere, are what is asked for
        model.fit(values.reshape(len(values), -1), labels)
    return lambda other: model.predict(other.reshape(len(other), -1))


def trees(values: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Callable[..., NDArray[np.int64]]:
    """Extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(n_estimators=200, random_state=seed)
    model.fit(values.reshape(len(values), -1), labels)
    return lambda other: model.predict(other.reshape(len(other), -1))


def convolutional(
    values: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> Callable[..., NDArray[np.int64]]:
    """Three convolutions of 32 channels with strides that leave a few positions, and a linear layer."""
    import torch
    from torch import nn

    torch.set_num_threads(1)  # others fit beside this one
    torch.manual_seed(seed)
    axes = values.ndim - 2
    convolution = (nn.Conv1d, nn.Conv2d)[axes - 1]
    layers: list[Any] = []
    channels, longest = values.shape[1], max(values.shape[2:])
    for _ in range(3):
        stride = 2 if longest > 8 and axes == 2 else 4 if longest > 128 and axes == 1 else 1
        layers += [convolution(channels, 32, 3 if axes == 2 else 9, stride, "same" if stride == 1 else 1), nn.ReLU()]
        channels, longest = 32, longest // stride
    pool = (nn.AdaptiveAvgPool1d(8), nn.AdaptiveAvgPool2d(4))[axes - 1]
    model = nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(32 * (8, 16)[axes - 1], int(labels.max()) + 1))
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    rounds = EPOCHS * -(-len(values) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, rounds)
    inputs, targets = torch.from_numpy(values), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(values)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[part]), targets[part]).backward()
            optimiser.step()
            schedule.step()

    def predict(other: NDArray[np.float32]) -> NDArray[np.int64]:
        with torch.no_grad():
            return torch.cat([model(part) for part in torch.from_numpy(other).split(256)]).argmax(1).numpy()

    return predict


def learners() -> dict[str, Learner]:
    """Those whose packages are at hand.

    Raises
    ------
    BadSamples
        scikit-learn is missing.
    """
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise BadSamples("learners", "none", "scikit-learn: pip install scikit-learn")
    known: dict[str, Learner] = {"logistic regression": logistic, "trees": trees}
    return known | ({"convolutional": convolutional} if find_spec("torch") is not None else {})


# ---- the experiment


def split(data: Data, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to test on, with nobody in both."""
    names = np.unique(data.groups)
    if data.rate is not None:
        held = names[[seed % len(names)]]
    else:
        held = np.random.default_rng(seed).permutation(names)[: max(1, round(TEST_SHARE * len(names)))]
    inside = np.isin(data.groups, held)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def normalised(values: NDArray[Any], train: NDArray[np.int64]) -> NDArray[np.float32]:
    """Zero mean of each channel and one scale for all of them, over the training set.

    One scale, because what a plane of latents varies says how much of the signal it holds: to give each plane the same
    variance would drown the shapes in the grain.
    """
    values = values.astype(np.float32)
    values = values - values[train].mean((0, *range(2, values.ndim)), keepdims=True)
    return values / (values[train].std() + 1e-6)


def run(
    data: Data, views: Iterable[View], seeds: int, jobs: int = 1, known: Sequence[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Accuracy and times of every learner on every view: a row each, with mean and spread over the seeds.

    Those that `known` has are taken from there.
    """
    from joblib import Parallel, delayed

    before = {_key(row): row for row in known}
    for view in views:
        about = {
            "view": view.name,
            "model": view.model,
            "step": view.step,
            "dimensions": view.dimensions,
            "bytes": view.bytes,
        }
        keys = {name: _key({**about, "learner": name}) for name in learners()}
        splits = [split(data, seed) for seed in range(seeds)]
        turns = [
            delayed(_turn)(name, view.values, data.labels, train, test, seed)
            for name, key in keys.items()
            for seed, (train, test) in enumerate(splits)
            if key not in before
        ]
        results = iter(Parallel(n_jobs=jobs)(turns))
        for name, key in keys.items():
            if key in before:
                yield before[key]
                continue
            scores, fits, predictions = zip(*(next(results) for _ in splits))
            yield {
                **about,
                "learner": name,
                "accuracy": float(np.mean(scores)),
                "spread": float(np.std(scores)),
                "scores": list(scores),
                "fit_seconds": float(np.median(fits)),
                "predict_seconds": float(np.median(predictions)),
            }


def _view_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the views of a result apart."""
    return row["view"], row["model"], row["step"]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the rows of a result apart."""
    return *_view_of(row), row["learner"]


def _turn(
    learner: str,
    values: NDArray[Any],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seed: int,
) -> tuple[float, float, float]:
    """Accuracy of a learner in one split, and seconds of one processor to fit it and to predict."""
    from threadpoolctl import threadpool_limits

    inputs = normalised(values, train)
    with threadpool_limits(1):
        begin = time.process_time()
        predict = learners()[learner](inputs[train], labels[train], seed)
        middle = time.process_time()
        found = predict(inputs[test])
        end = time.process_time()
    return float(np.mean(found == labels[test])), middle - begin, end - middle


def throughput(images: Sequence[NDArray[np.uint8]], model: str, repeats: int = 5) -> dict[str, Any]:
    """What each way to make inputs of images costs: milliseconds of one processor an image.

    Medians of turns that alternate; `entropy_ms` is what the entropy decoder alone takes of `symbols_ms`.
    """
    import tempfile

    from PIL import Image

    from walloc_ref.fast.workers import for_each
    from walloc_ref.stages import container

    codec = walloc_ref.load_model(model)
    size = np.mean([image.shape[0] * image.shape[1] for image in images])
    smaller = (codec.config.latent_dim / codec.config.multiple**2 / 3) ** 0.5  # along each axis, for as many numbers

    def reduced(path: Path) -> NDArray[Any]:
        image = Image.open(path).convert("RGB")
        sizes = max(1, round(image.width * smaller)), max(1, round(image.height * smaller))
        return np.asarray(image.resize(sizes, Image.Resampling.BICUBIC))

    with tempfile.TemporaryDirectory() as folder:
        streams, jpegs, slices = [], [], []
        for number, image in enumerate(images):
            streams.append(Path(folder) / f"{number}.wlc")
            streams[-1].write_bytes(codec.encode(image))
            jpegs.append(Path(folder) / f"{number}.jpg")
            Image.fromarray(image).save(jpegs[-1], "JPEG", quality=90)
            stream = container.read(streams[-1].read_bytes())
            slices += [(data, stream.header.slice_shape(i)) for i, data in enumerate(stream.slices)]
        ways: dict[str, Callable[[], object]] = {
            "pixels_ms": lambda: for_each(lambda path: walloc_ref.decode(path.read_bytes(), codec=codec), streams),
            "symbols_ms": lambda: latents.collect(streams, codec, dtype="int8"),
            "entropy_ms": lambda: for_each(lambda it: codec.stages.decode_slice(*it, codec.model.tables), slices),
            "encoded_ms": lambda: latents.collect(list(images), codec, dtype="int8"),
            "jpeg_ms": lambda: for_each(reduced, jpegs),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(repeats + 1):
            for name, way in ways.items():
                begin = time.process_time()
                way()
                if turn:  # the first one warms up
                    taken[name].append(1000 * (time.process_time() - begin) / len(images))
    symbols = sum(np.prod(shape) for _, shape in slices) / len(images)
    return {
        "model": model,
        "images": len(images),
        "pixels": float(size),
        "symbols": float(symbols),
        **{name: float(np.median(turns)) for name, turns in taken.items()},
    }


def throughput_table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| images | model | symbols | .wlc to pixels, ms | .wlc to symbols | times as fast | entropy decoding | "
        "array to symbols | JPEG opened, reduced |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        figures = [
            f"{row['name']}, {row['pixels'] / 1e6:.2g} MP",
            row["model"],
            f"{row['symbols']:.0f}",
            f"{row['pixels_ms']:.1f}",
            f"{row['symbols_ms']:.2f}",
            f"{row['pixels_ms'] / row['symbols_ms']:.1f}",
            f"{100 * row['entropy_ms'] / row['symbols_ms']:.0f} %",
            f"{row['encoded_ms']:.2f}",
            f"{row['jpeg_ms']:.2f}",
        ]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown, a line a view."""
    if result["kind"] == "throughput":
        return throughput_table(result)
    names = list(dict.fromkeys(row["learner"] for row in result["rows"]))
    lines = [
        "| view | model | dimensions | bytes a signal | "
        + " | ".join(f"{name} %" for name in names)
        + " | fit s | predict s |",
        "| --- | --- | ---: | ---: | " + " | ".join("---:" for _ in names) + " | ---: | ---: |",
    ]
    for at in dict.fromkeys(map(_view_of, result["rows"])):
        rows = {row["learner"]: row for row in result["rows"] if _view_of(row) == at}
        first = next(iter(rows.values()))
        size = f"{first['bytes'] / result['signals']:.0f}" if first["bytes"] else "–"
        found = [rows.get(name, {}) for name in names]  # a result that is not complete has some of them
        scores = [f"{100 * row['accuracy']:.1f} ± {100 * row['spread']:.1f}" if row else "–" for row in found]
        fits = " / ".join(_seconds(row.get("fit_seconds"), 1) for row in found)
        predictions = " / ".join(_seconds(row.get("predict_seconds"), 2) for row in found)
        model = "–" if first["model"] is None else first["model"]
        model += "" if first["step"] == 1 else f", step {first['step']:g}"
        figures = [first["view"], model, str(first["dimensions"]), size, *scores, fits, predictions]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines)


def _seconds(value: float | None, digits: int) -> str:
    """Seconds, or a dash where they were not measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def fill(page: str, result: dict[str, Any]) -> str:
    """A page with the table in its place: between ``<!-- measured: KIND -->`` and the next ``<!-- end -->``.

    Raises
    ------
    BadSamples
        A page without that place.
    """
    begin, end = f"<!-- measured: {result['kind']} -->", "<!-- end -->"
    before, found, after = page.partition(begin)
    _, closed, rest = after.partition(end)
    if not (found and closed):
        raise BadSamples("--page", "a page", f"one with {begin} and {end}")
    return f"{before}{begin}\n\n{table(result)}\n\n{end}{rest}"


def plot(result: dict[str, Any], name: str) -> None:
    """Accuracy against dimensions and against bytes.

    Raises
    ------
    UnreadableFile
        matplotlib is missing, or it does not write such a file.
    """
    from walloc_ref.files.whole_files import write_file
    from walloc_ref.measure import plots

    suffix = Path(name).suffix.lower()
    plots.check(suffix)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, result)
    memory = io.BytesIO()
    figure.savefig(memory, format=suffix[1:])
    write_file(name, memory.getvalue())


def _draw(figure: Any, result: dict[str, Any]) -> None:
    axes = figure.subplots(1, 2)
    for learner, marker in zip(dict.fromkeys(row["learner"] for row in result["rows"]), "os^"):
        for view, colour in VIEW_COLOURS.items():
            rows = [row for row in result["rows"] if row["view"] == view and row["learner"] == learner]
            for axis, key in zip(axes, ("dimensions", "bytes")):
                points = sorted((row[key], 100 * row["accuracy"], 100 * row["spread"]) for row in rows if row[key])
                if points and not (view.upper() in OTHERS and key == "dimensions"):
                    places, scores, errors = zip(*points)
                    x = [place / result["signals"] if key == "bytes" else place for place in places]
                    axis.errorbar(x, scores, errors, color=colour, marker=marker, label=f"{view}, {learner}", capsize=2)
    for axis, text in zip(axes, ("dimensions", "bytes a signal")):
        axis.set_xlabel(text)
        axis.set_ylabel("accuracy, %")
        axis.grid(alpha=0.3)
        axis.set_xscale("log")
    axes[1].xaxis.set_major_formatter("{x:.0f}")
    axes[1].xaxis.set_minor_formatter("{x:.0f}")
    handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=7)


def _known(name: str | None, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a file has of the same signals and seeds.

    Raises
    ------
    BadSamples
        A file of another experiment.
    """
    if name is None or not Path(name).exists():
        return []
    earlier = json.loads(Path(name).read_text(encoding="utf-8"))
    differing = [key for key in result if key != "rows" and earlier.get(key) != result[key]]
    if differing:
        raise BadSamples("--resume", f"{name}, other {', '.join(differing)}", "a result of the same data and seeds")
    return earlier["rows"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    from walloc_ref.fast import workers
    from walloc_ref.files.whole_files import write_file
    from walloc_ref.measure import plots

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=("images", "audio", "throughput"))
    parser.add_argument("folder", type=Path, nargs="+", help="one; for throughput one or more")
    parser.add_argument("--models", help="names with commas between them (default: those that are bundled)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="files of a class (images) or in all (audio), for a trial")
    parser.add_argument("--jobs", type=int, default=workers.threads(), help="fits side by side (default: processors)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--resume", action="store_true", help="keep the views that the --json file has")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--page", metavar="FILE", help="a page to put the table into, between its marks")
    options = parser.parse_args(arguments)
    images = options.kind != "audio"
    models = options.models.split(",") if options.models else list(IMAGE_MODELS if images else AUDIO_MODELS)
    try:
        if options.kind == "throughput":
            return finish(measured_throughput(options.folder, models, options.limit), options)
        if len(options.folder) > 1:
            raise BadSamples("folders", len(options.folder), "one")
        learners()
        if options.plot:
            plots.check(Path(options.plot).suffix.lower())
        data = (read_images if images else read_audio)(options.folder[0], options.limit)
        result: dict[str, Any] = {
            "format": FORMAT,
            "kind": options.kind,
            "signals": len(data.samples),
            "groups": len(np.unique(data.groups)),
            "seeds": options.seeds,
            "rows": [],
        }
        known = _known(options.json, result) if options.resume else []
        views = (image_views if images else audio_views)(data, models)
        for row in run(data, views, options.seeds, options.jobs, known):
            result["rows"].append(row)
            line = f"{row['view']} {row['model']} {row['dimensions']} {row['learner']}: {row['accuracy']:.3f}"
            print(line, file=sys.stderr, flush=True)
            if options.json:
                waiting = [old for old in known if _key(old) not in {_key(row) for row in result["rows"]}]
                so_far = {**result, "rows": result["rows"] + waiting}
                write_file(options.json, (json.dumps(so_far, indent=1) + "\n").encode())
    except walloc_ref.WallocError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 3
    if options.plot:
        plot(result, options.plot)
    return finish(result, options)


def measured_throughput(folders: Sequence[Path], models: Sequence[str], limit: int | None) -> dict[str, Any]:
    """`throughput` of the images of each folder, with each model."""
    from walloc_ref.files import image_files, media

    rows = []
    for folder in folders:
        paths = media.inputs_of(str(folder), image_files.IMAGE_SUFFIXES)[:limit]
        images = [media.read(path).samples for path in paths]
        if not images or {(image.dtype.name, *image.shape[2:]) for image in images} != {("uint8", 3)}:
            raise UnreadableFile("input", str(folder), "a folder of colour images of 8 bits")
        rows += [{"name": folder.name, **throughput(images, model)} for model in models]
    return {"format": FORMAT, "kind": "throughput", "rows": rows}


def finish(result: dict[str, Any], options: argparse.Namespace) -> int:
    """Write and print what was asked for."""
    from walloc_ref.files.whole_files import write_file

    if options.json:
        write_file(options.json, (json.dumps(result, indent=1) + "\n").encode())
    if options.page:
        page = Path(options.page)
        write_file(options.page, fill(page.read_text(encoding="utf-8"), result).encode())
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
