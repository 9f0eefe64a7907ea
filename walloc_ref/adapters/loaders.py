"""Data loaders: tar files of streams as webdataset reads them, and columns of streams in Hugging Face data sets.

    write_tar("train.tar", [("cat/1", data, 0), …])
    webdataset.WebDataset("train.tar").decode(wds_decoder("symbols")).to_tuple("wlc", "cls")

    data = datasets.Dataset.from_dict({"image": streams, "label": labels})  # streams: bytes
    data = data.with_transform(column_decoder("image", to="pixels"))         # decoded when a row is taken

This module imports neither library.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from walloc_ref.adapters.chunks import codec_of
from walloc_ref.errors import BadSamples, UnknownModel

FORMS = ("pixels", "symbols", "latents")
"""What a stream is decoded to: samples, int8 symbols, or the float32 latents that those stand for."""


def decoded(data: bytes, to: str = "pixels") -> np.ndarray:
    """A stream in one of the `FORMS`: samples as `walloc_ref.decode` gives them, or (D, h, w), (D, l).

    Raises
    ------
    WallocError
    """
    import walloc_ref
    from walloc_ref import model as models

    if to not in FORMS:
        raise BadSamples("to", to, "one of " + ", ".join(FORMS))
    head = walloc_ref.info(data)
    name = models.name_of(head.model_id)
    if name is None:
        raise UnknownModel("model identity", head.model_id.hex(), "that of a model at hand")
    codec = codec_of(name)  # loaded once, not for every stream
    if to == "pixels":
        return walloc_ref.decode(data, codec=codec)
    symbols = walloc_ref.decode_symbols(data, codec=codec)
    if to == "symbols":
        return symbols.astype(np.int8)
    from walloc_ref.learning.latents import dequantised

    return dequantised(symbols, head.step, codec)


def wds_decoder(to: str = "pixels") -> Callable[[str, bytes], np.ndarray | None]:
    """A handler for `WebDataset.decode`: of the fields that end in `.wlc`."""

    def handle(key: str, data: bytes) -> np.ndarray | None:
        return decoded(data, to) if re.fullmatch(r"(.*\.)?wlc", key) else None

    return handle


def column_decoder(column: str, to: str = "pixels") -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """A function for `Dataset.with_transform`: decodes one column of the rows that are taken."""

    def transform(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**rows, column: [None if data is None else decoded(data, to) for data in rows[column]]}

    return transform


def write_tar(name: str, samples: Iterable[tuple[str, bytes, int]]) -> int:
    """A tar of streams and labels, `KEY.wlc` and `KEY.cls` beside each other, whole or not at all; returns their number.

    Parameters
    ----------
    name : str
    samples : iterable of (key, stream, label)
        Keys without dots, each once.

    Raises
    ------
    BadSamples
        A key that webdataset would read as another one.
    UnreadableFile
    """
    from walloc_ref.files.whole_files import whole_file

    seen: set[str] = set()
    with whole_file(name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, data, label in samples:
            if not re.fullmatch(r"[^./]+(/[^./]+)*", key) or key in seen:
                raise BadSamples("key", key, "a name without dots that was not used before")
            seen.add(key)
            for suffix, content in ((".wlc", data), (".cls", b"%d" % label)):
                entry = tarfile.TarInfo(key + suffix)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return len(seen)
