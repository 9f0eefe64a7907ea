"""`LinearCodec2D` in closed form: equal-slope principal components, decoder by least squares from the symbols."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from training.data import Images, sample_coefficients
from training.encoder import (
    companded_scales,
    dequantise,
    equal_slope_scales,
    principal_components,
    quantise,
    set_encoder,
)
from training.schedule import write_model
from training.settings import HYPER, MODELS, settings
from training.wavelet import Wavelet
from walloc_ref.measure import upstream
from walloc_ref.model import Config


def train(args: argparse.Namespace) -> None:
    """Write one linear model."""
    spec, hyper = settings(MODELS[args.model], HYPER, args.set)
    torch.manual_seed(hyper["seed"])
    rng = np.random.default_rng(hyper["seed"])
    wavelet, C, D = Wavelet(spec["J"], 2), spec["channels"], spec["latent_dim"]
    config = Config("LinearCodec2D", C, spec["J"], D, 8)
    codec = upstream.untrained(config, 32)
    X = sample_coefficients(wavelet, Images(Path(args.data), C, wavelet.margin, rng))
    W, mean = principal_components(X, wavelet.norms.repeat(C), D)
    Z = (X - mean) @ W.T
    if spec.get("companded"):
        scales = companded_scales(codec, list(Z.split(4096)), spec["slope"])
    else:
        scales = equal_slope_scales(Z, spec["slope"], 8)
    print("scales " + " ".join(f"{s:.2f}" for s in scales.tolist()))
    set_encoder(codec.encoder[0], W, mean, scales)
    fit_decoder(codec, X)
    write_model(Path(args.out), args.model, config, codec)


def fit_decoder(codec: torch.nn.Module, X: torch.Tensor) -> None:
    """Least squares of a 1x1 decoder from dequantised symbols to coefficients ``X [count, n]``."""
    Y = dequantise(codec, quantise(codec, X.T[None, :, :, None]))[0, :, :, 0].T
    F = torch.cat([Y, torch.ones(len(Y), 1)], 1).double()
    solution = torch.linalg.solve(F.T @ F + 1e-6 * len(F) * torch.eye(F.shape[1]), F.T @ X.double()).float()
    with torch.no_grad():
        codec.decoder[1].weight.copy_(solution[:-1].T.reshape(codec.decoder[1].weight.shape))
        codec.decoder[1].bias.copy_(solution[-1])
