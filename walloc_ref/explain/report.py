"""The page on one file: what `walloc-ref explain` writes. It strings the figures of the other modules together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from walloc_ref import __version__
from walloc_ref.codec import Codec
from walloc_ref.explain import bits, coder, decoder, latents, live, outcome, rounding, transform
from walloc_ref.explain.charts import count, number, several
from walloc_ref.explain.page import Section, escape, page
from walloc_ref.explain.work import MOST, Work, cropped, detail_of, follow, linear_matrix, part_of
from walloc_ref.fast.workers import Progress
from walloc_ref.files.media import Media

UNITS = {"image": "pixels", "audio": "frames", "volume": "voxels"}
"""What sizes are counted in."""


def explain(
    media: Media, codec: Codec, *, name: str, progress: Progress | None = None, **rate: float | int | None
) -> str:
    """The page.

    Parameters
    ----------
    media : Media
        Samples of the model's kind; of more than `work.MOST` the middle is explained.
    codec : Codec
    name : str
        What to call the file.
    progress : callable, optional
        Called with the share of the work that is done.
    rate
        What is asked of the encoder: quality, ratio, max_bytes, psnr or step, as in `Codec.encode`.

    Raises
    ------
    BadSamples, LimitExceeded
        As `Codec.encode`.
    """
    told = progress or (lambda share: None)
    media, crop = _of_the_middle(media, codec)
    work = follow(codec, media, **rate)
    told(0.3)
    window = detail_of(work)
    small = part_of(media, window)
    detail = follow(codec, small, step=work.header.step)
    back = linear_matrix(work)
    told(0.4)
    makers: list[tuple[str, str, Callable[[], str]]] = [
        ("signal", "What goes in", lambda: _signal(work, crop, window)),
        ("transform", "The packet transform", lambda: _transform(work)),
        ("projection", "The projection", lambda: _projection(work, detail, back)),
        ("symbols", "Companding and rounding", lambda: _symbols(work)),
        ("bits", "Where the bits go", lambda: _bits(work)),
        ("coder", "The entropy coder at work", lambda: _coder(detail)),
        ("decoder", "What the decoder adds", lambda: _decoder(detail, back)),
        ("outcome", "What comes out", lambda: _outcome(work)),
        ("impulse", "One impulse through all of it", lambda: _impulse(work)),
        ("rate", "Turning the step", lambda: _rate(work, codec, small)),
    ]
    sections = []
    for number_, (identity, title, make) in enumerate(makers, 1):
        sections.append(Section(identity, title, make()))
        told(0.4 + 0.6 * number_ / len(makers))
    sections.append(Section("live", "Try it", live.section(work.stream, codec.model, work.samples), whole=True))
    return page(f"How {name} becomes {count(len(work.stream))} bytes", _lead(work, name), sections, _closing(work))


def _of_the_middle(media: Media, codec: Codec) -> tuple[Media, str]:
    """The part that is explained, and in words which it is, if it is not all."""
    whole = media.samples.shape
    part, window = cropped(media, MOST[media.kind], codec.config.multiple)
    if part.samples.shape == whole:
        return part, ""
    axes = len(window)
    if media.kind == "audio":
        start, stop = (at / media.rate for at in (window[0].start, window[0].stop))
        return part, f"the seconds {start:.1f} to {stop:.1f} of {whole[0] / media.rate:.1f}"
    size = " × ".join(str(at.stop - at.start) for at in window[::-1])
    return part, f"the middle {size} {UNITS[media.kind]} of {' × '.join(map(str, whole[:axes][::-1]))}"


def _lead(work: Work, name: str) -> str:
    """What stands before the contents."""
    model, header = work.codec.model, work.header
    size = " × ".join(map(str, header.sizes[::-1]))
    facts = [
        (UNITS[work.kind], size),
        ("bytes of the stream", count(len(work.stream))),
        ("smaller than the samples", f"{number(work.ratio)} times"),
        ("PSNR", f"{work.psnr:.2f} dB"),
        ("model", escape(model.name)),
        ("step", number(header.step)),
    ]
    rows = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts)
    return (
        f"<p>This page follows one file, <em>{escape(name)}</em>, through the codec WaLLoC, and stops at every stage "
        "to look. "
        "Everything in it was computed from this file.</p>"
        "<p>The idea in one breath: a fixed wavelet transform turns the signal into many small ones, most of them "
        "nearly "
        "empty; a small matrix keeps a few mixtures of them, the latents; those are rounded to whole numbers, which "
        "an entropy "
        "coder writes in as few bytes as it can. The encoder is a little arithmetic. The "
        "decoder may be a neural network, and is where the effort goes.</p>"
        "<p>Below every figure stand the clause of the specification (SPEC.md) that defines it and the function of "
        f"walloc_ref that computes it.</p><dl class='facts'>{rows}</dl>"
    )


def _closing(work: Work) -> str:
    """The footer."""
    model = work.codec.model
    return (
        f"<p>Made by walloc_ref {escape(__version__)}, <code>walloc-ref explain</code>, with the model "
        f"{escape(model.name)} "
        f"({escape(model.config.architecture)}, identity <code>{model.model_id[:16]}…</code>). The page asks nothing "
        "of any "
        "network; it can be kept, sent and printed.</p>"
    )


# ---- sections ----------------------------------------------------------------------------------------------------------


def _signal(work: Work, crop: str, window: tuple[slice, ...]) -> str:
    part = f" The file is larger than a page can follow; what is explained is {crop}." if crop else ""
    if work.kind == "audio":
        rate = work.header.rate
        place = f"from second {window[0].start / rate:.2f} to {window[0].stop / rate:.2f}"
    else:
        names = ("columns", "rows", "depths")
        place = ", ".join(f"{name} {at.start} to {at.stop - 1}" for name, at in zip(names, window[::-1]))
    frame = ", in the frame" if work.kind == "image" else ""
    return (
        f"<p>The codec knows nothing of files, only of arrays of numbers.{part} Where a figure would take long, or its "
        f"picture would be too small, a detail is looked at instead, the part with the most bits ({place}{frame}).</p>"
        f"{outcome.what_goes_in(work, window)}"
    )


def _transform(work: Work) -> str:
    config = work.codec.config
    per = 1 << config.J * config.axes
    mosaic = transform.scalogram(work) if work.kind == "audio" else transform.mosaic(work)
    return (
        "<p>Neighbouring samples are alike. A wavelet transform makes use of that: one filter keeps what neighbours "
        "have in "
        "common, another what they differ by, and the differences are mostly small.</p>"
        f"{transform.filters()}"
        "<p>JPEG 2000 would now go on with the smooth half alone. Here <em>every</em> band is split again, which is "
        "called a "
        f"packet transform. After {several(config.J, 'level')} all {per} bands of a channel have the same small "
        "size, and can be stacked: resolution has been traded for channels. At every position of the small "
        "grid there is a vector of "
        f"{config.bands} numbers, and nothing has been lost: the transform can be undone.</p>{mosaic}"
    )


def _projection(work: Work, detail: Work, back: NDArray[np.float64] | None) -> str:
    config = work.codec.config
    text = (
        f"<p>Most of these {config.bands} numbers say little, and many say the same. So a matrix, learned once from many "
        f"files, takes {config.planes} mixtures of them: the latents. It is applied at every position alike, and it is all "
        "that was learned of the encoder.</p>"
    )
    if back is None:
        return text + latents.full_encoder(work)
    return (
        f"{text}{latents.matrix(work)}{latents.kept(work, back)}"
        "<p>A row of the matrix mixes subbands, and a subband comes of filters; so a latent is a weighted sum of samples, "
        f"and its weights can be drawn as a picture.</p>{latents.functions(work, detail, back)}"
    )


def _symbols(work: Work) -> str:
    return (
        "<p>So far numbers were mixed, and some left out; none was made coarse. To be written in few bits, "
        "they must "
        "become few. Each latent is rounded to a whole number, a symbol, and this is where precision is given up for "
        "good.</p>"
        f"{rounding.companding(work)}{rounding.planes(work)}"
    )


def _bits(work: Work) -> str:
    return (
        "<p>A symbol that comes as no surprise costs next to nothing. So the bits say what in this file is "
        "surprising.</p>"
        f"{bits.by_plane(work)}{bits.over_the_signal(work)}{bits.stream(work)}"
    )


def _coder(detail: Work) -> str:
    figures = "".join(coder.figures(detail))
    return (
        "<p>The entropy coder takes one symbol after the other, plane by plane, each plane row by row. Before each "
        "it says "
        "what it expects, from the symbols that are coded already, which the decoder knows as well. Then it asks a few "
        "questions with two answers, and pays for each answer according to how well it was foreseen. Everything in "
        "it is "
        "integer arithmetic, so that no decoder ever disagrees. Here are three symbols of the detail, coded as a "
        "file of its "
        f"own.</p>{figures}"
    )


def _decoder(detail: Work, back: NDArray[np.float64] | None) -> str:
    return (
        "<p>The decoder gets the symbols back exactly. It looks up the latent of each, and then has to guess what the file "
        f"was.</p>{decoder.stages(detail, back)}"
    )


def _outcome(work: Work) -> str:
    return f"<p>Side by side, and then what is wrong.</p>{outcome.comparison(work)}{outcome.magnified(work)}"


def _impulse(work: Work) -> str:
    return (
        "<p>What a system makes of a single point says much about it. The authors of WaLLoC show this picture of their "
        f"codec; here is that of this model.</p>{decoder.impulse(work)}"
    )


def _rate(work: Work, codec: Codec, small: Media) -> str:
    return (
        "<p>How small, and how good? One number decides, the step.</p>"
        f"{outcome.rate_against_step(codec, small, work.header.step)}"
    )
