"""The upstream PyTorch model in binary64, for tests that compare with it; they skip where it is not installed."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest

from walloc_ref.model import Config, Model


def load() -> tuple[Any, Any]:
    """(torch, walloc.walloc), or skip the test.

    `walloc` imports two helpers of torchvision that the model never calls. Where no torchvision fits the installed
    torch, empty stand-ins are imported in their place.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("pytorch_wavelets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("diffusers.models.autoencoders")
        try:
            import torchvision.transforms  # noqa: F401
        except (ImportError, RuntimeError):
            transforms = types.ModuleType("torchvision.transforms")
            transforms.ToPILImage = transforms.PILToTensor = object  # type: ignore[attr-defined]
            parent = types.ModuleType("torchvision")
            parent.transforms = transforms  # type: ignore[attr-defined]
            sys.modules["torchvision"], sys.modules["torchvision.transforms"] = parent, transforms
        pytest.importorskip("walloc")
        from walloc import walloc
    return torch, walloc


def build(model: Model) -> Any:
    """The upstream's model with these weights, in binary64, for evaluation."""
    torch, walloc = load()
    c: Config = model.config
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # so that the filter taps are binary64, too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            common = (c.latent_dim, c.latent_bits)
            if c.architecture == "Codec2D":
                module = walloc.Codec2D(c.channels, c.J, c.Ne, c.Nd, *common, c.lightweight_encode)
            elif c.architecture == "Codec1D":
                module = walloc.Codec1D(c.channels, c.J, c.Ne, c.Nd, *common, c.lightweight_encode, c.post_filter)
            elif c.architecture == "LinearCodec2D":
                module = walloc.LinearCodec2D(c.channels, c.J, *common)
            else:
                module = walloc.ResidualCodec2D(c.channels, c.J, *common, c.num_stages)
        state = {name: torch.tensor(np.asarray(t)).double() for name, t in model.tensors.items()}
        missing, surplus = module.load_state_dict(state, strict=False)
        assert not surplus
        assert all(name.startswith(("wt.", "iwt.")) for name in missing), missing
        return module.double().eval()
    finally:
        torch.set_default_dtype(default)
