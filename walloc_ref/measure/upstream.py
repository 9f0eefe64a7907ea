"""The authors' PyTorch model, for whatever compares with it or trains: bench, the suite's generator, training, tests.

No part of the codec; it needs the `[torch]` extra. Surprise: `walloc` imports two helpers of torchvision that the model
itself never calls, and a torchvision that fits the installed torch is not always to be had. Where there is none,
stand-ins take their place, after diffusers has looked for torchvision and found none.
"""

from __future__ import annotations

import json
import sys
import types
import warnings
from importlib import import_module
from typing import Any

import numpy as np

from walloc_ref.measure import linear_codec_3d
from walloc_ref.model import Config, Model

FIXED = ("wt.", "iwt.")
"""What the names of the wavelet filters start with: in the upstream's state, and in no weights file."""


class _ToTensor:
    """A Pillow image to a tensor (C, H, W) of bytes, as torchvision's `PILToTensor` does: for reading tile images."""

    def __call__(self, image: Any) -> Any:
        import torch

        samples = np.array(image)
        return torch.from_numpy(samples[None] if samples.ndim == 2 else samples.transpose(2, 0, 1).copy())


def load() -> tuple[Any, Any]:
    """The modules `torch` and `walloc.walloc`.

    Raises
    ------
    ImportError
        One of the packages is not installed; its `name` says which.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = import_module("torch")
        import_module("diffusers.models.autoencoders")  # before the stand-in, which it must not see
        try:
            import_module("torchvision.transforms")
        except (ImportError, RuntimeError):
            transforms: Any = types.ModuleType("torchvision.transforms")
            transforms.ToPILImage, transforms.PILToTensor = object, _ToTensor
            parent: Any = types.ModuleType("torchvision")
            parent.transforms = transforms
            sys.modules["torchvision"], sys.modules["torchvision.transforms"] = parent, transforms
        return torch, import_module("walloc.walloc")


def untrained(config: Config, bits: int = 64) -> Any:
    """The upstream's module of a configuration as its class makes it, in binary64 or binary32 (`bits`); of volumes, ours.

    Raises
    ------
    ImportError
        As `load`.
    """
    torch, walloc = load()
    arguments = json.loads(config.to_json())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if bits == 32 else torch.float64)  # the filter taps take the default type
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            architecture = arguments.pop("architecture")
            if architecture == "LinearCodec3D":
                return linear_codec_3d.module(torch, walloc, **arguments)
            return getattr(walloc, architecture)(**arguments)
    finally:
        torch.set_default_dtype(before)


def build(model: Model, bits: int = 64) -> Any:
    """The upstream's module with a model's weights, for evaluation, in binary64 or binary32 (`bits`).

    Raises
    ------
    ImportError
        As `load`.
    ValueError
        The upstream's class wants other tensors.
    """
    torch, _ = load()
    module = untrained(model.config, bits)
    state = {name: torch.tensor(np.asarray(tensor)) for name, tensor in model.tensors.items()}
    missing, surplus = module.load_state_dict(state, strict=False)
    if surplus or any(not name.startswith(FIXED) for name in missing):
        raise ValueError(f"{model.config.architecture}: missing {missing}, surplus {surplus}")
    return (module.float() if bits == 32 else module.double()).eval()
