"""Features to files: .npz, .npy, .parquet and .zarr, each as its users expect it. No part of the codec."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from walloc_ref.errors import BadSamples, UnreadableFile
from walloc_ref.files import whole_files
from walloc_ref.learning.latents import Features

SUFFIXES = (".npz", ".npy", ".parquet", ".zarr")
"""Endings of what can be written."""


def check_output(name: str) -> None:
    """Refuse early what cannot be written.

    Raises
    ------
    UnreadableFile
        Another ending, or a package that is missing.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableFile("output", name, "a name that ends in " + ", ".join(SUFFIXES))
    needed = {".parquet": "pyarrow", ".zarr": "zarr"}.get(suffix)
    if needed:
        try:
            __import__(needed)
        except ImportError as error:
            raise UnreadableFile("output", name, f"{needed}, which is missing: pip install {needed}") from error


def facts(features: Features) -> dict[str, Any]:
    """What the values are, for readers of the file."""
    return {
        "model": features.model,
        "model_id": features.model_id,
        "step": features.step,
        "planes": features.planes,
        "walloc_ref": "latents 1",
    }


def write(features: Features, name: str) -> None:
    """Write features whole or not at all.

    - `.npz`: `features` (or `feature_0`, `feature_1`, … where sizes differ), `names`, `labels`, `facts` (JSON)
    - `.npy`: the stacked array alone
    - `.parquet`: a row a file: `name`, `label`, `shape`, `features` (a flat list); facts in the metadata of the schema
    - `.zarr`: a group with `features`, `names`, `labels`; facts in the attributes

    Raises
    ------
    BadSamples
        Sizes that differ, for `.npy` and `.zarr`.
    UnreadableFile
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".npz":
        whole_files.write_file(name, _npz(features))
    elif suffix == ".npy":
        memory = io.BytesIO()
        np.save(memory, _stacked(features, suffix), allow_pickle=False)
        whole_files.write_file(name, memory.getvalue())
    elif suffix == ".parquet":
        whole_files.write_file(name, _parquet(features))
    else:
        _zarr(features, name)


def _stacked(features: Features, suffix: str) -> np.ndarray:
    if isinstance(features.values, list):
        raise BadSamples("sizes of latents", "not all the same", f"the same for {suffix}: say --size, or write .npz")
    return features.values


def _npz(features: Features) -> bytes:
    memory = io.BytesIO()
    values = features.values
    arrays: dict[str, Any] = (
        {f"feature_{i}": value for i, value in enumerate(values)} if isinstance(values, list) else {"features": values}
    )
    arrays |= {
        "names": np.array(features.names, dtype=np.str_),
        "labels": np.array(features.labels, dtype=np.str_),
        "facts": np.array(json.dumps(facts(features))),
    }
    np.savez_compressed(memory, **arrays)
    return memory.getvalue()


def _parquet(features: Features) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = list(features.values)
    kind = pa.int8() if values and values[0].dtype == np.int8 else pa.float32()
    table = pa.table(
        {
            "name": pa.array(features.names, pa.string()),
            "label": pa.array(features.labels, pa.string()),
            "shape": pa.array([list(value.shape) for value in values], pa.list_(pa.int32())),
            "features": pa.array([value.ravel() for value in values], pa.list_(kind)),
        }
    ).replace_schema_metadata({"walloc_ref": json.dumps(facts(features))})
    memory = io.BytesIO()
    pq.write_table(table, memory)
    return memory.getvalue()


def _zarr(features: Features, name: str) -> None:
    """A folder: written beside its place under another name, and then renamed."""
    import os
    import shutil
    import tempfile

    import zarr

    values = _stacked(features, ".zarr")
    target = os.path.realpath(name)
    if os.path.lexists(target):
        raise UnreadableFile("output", name, "a name that does not exist yet; a store is not replaced")
    try:
        temporary = tempfile.mkdtemp(prefix=whole_files.TEMPORARY_PREFIX, dir=os.path.dirname(target))
    except OSError as error:
        raise UnreadableFile("output", name, f"a writable place ({error.strerror})") from error
    try:
        group = zarr.create_group(temporary, overwrite=True, attributes=facts(features) | {
            "names": list(features.names), "labels": list(features.labels)})  # fmt: skip
        group.create_array("features", data=values, chunks=(min(len(values), 256), *values.shape[1:]))
        os.rename(temporary, target)
    except OSError as error:
        raise UnreadableFile("output", name, f"a writable place ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
