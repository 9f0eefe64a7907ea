"""Configurations of the bundled models, and hyperparameters of every kind of training."""

from __future__ import annotations

import json

MODELS: dict[str, dict] = {
    "rgb_16x": {"channels": 3, "J": 3, "Nd": 128, "latent_dim": 12, "slope": 0.0062},
    "rgb_4x": {"channels": 3, "J": 3, "Nd": 128, "latent_dim": 48, "slope": 0.0037},
    "rgb_2x": {"channels": 3, "J": 3, "Nd": 192, "latent_dim": 96, "slope": 1e-3},
    "rgb_1x": {"channels": 3, "J": 3, "Nd": 288, "latent_dim": 192, "slope": 1.1e-4},
    "rgb_64x": {"channels": 3, "J": 4, "Nd": 96, "latent_dim": 12, "slope": 0.002},
    "gray_16x": {"channels": 1, "J": 3, "Nd": 96, "latent_dim": 4, "slope": 0.004},
    "linear_rgb_4x": {"channels": 3, "J": 3, "latent_dim": 48, "slope": 0.0037},
    "linear_rgb_1x": {"channels": 3, "J": 3, "latent_dim": 192, "slope": 1.1e-4, "companded": True},
    "stereo_5x": {"channels": 2, "J": 8, "Nd": 108, "latent_dim": 108, "post_filter": True, "slope": 3.5e-5},
    "stereo_20x": {"channels": 2, "J": 8, "Nd": 108, "latent_dim": 27, "post_filter": True, "slope": 2.5e-4},
}
"""Configuration of each model and the squared error that one bit must buy (`slope`); `companded`: with the quantiser as it
is, for a model whose strongest latents come near the end of its range.

All have 8-bit latents and the lightweight encoder.
"""

HYPER: dict = {
    "seed": 1,
    "batch": 4,  # crops per step
    "crop": 24,  # latent positions along each side of a crop
    "fresh": 1,  # of these crops, new ones; the others are drawn again from a pool
    "pool": 1024,  # crops kept
    "lr": 1e-3,
    "lr_ends": 0.1,  # of lr, for the convolutions and the norm on the linear path of the image decoder
    "betas": (0.9, 0.98),
    "warmup_steps": 200,
    "lr_final": 0.01,  # of lr, end of the cosine
    "ema": 0.999,
    "large_crop": 48,
    "large_batch": 1,
    "large_share": 0.2,  # of the time, at the end: crops transformed as images of their own, borders included
    "fit_crops": 320,  # crops for the least squares of the last convolution
    "ridge": 1e-4,  # of each feature's variance
    "polish_crops": 200,  # large crops for fitting the last convolution once more at the end; kept if better on `tune`
    "polish_ridge": 1e-3,
    "pin": 1,  # times the usual constants of `linear_start_2d`
    "refit": 0,  # crops for the same when a run is resumed
}
"""Hyperparameters; ``--set name=value`` changes one. All are written to the log and the checkpoint."""

HYPER_AUDIO: dict = {
    "seed": 1,
    "batch": 12,
    "crop": 192,
    "lr": 1e-3,
    "lr_ends": 0.05,  # of lr, for the convolutions on the linear path
    "betas": (0.9, 0.98),
    "warmup_steps": 200,
    "lr_final": 0.01,
    "clip": 5.0,  # norm of the gradient of the loss over its running mean
    "ema": 0.999,
    "whiten": 0.5,  # components are those of coefficients over their track's level to this power
    "track_power": 0.5,  # a track's errors weigh 1 / its linear codec's error to this power: the measure is mean PSNR
    "hold_every": 7,  # every n-th track is watched instead of trained on
    "hold_positions": 4096,
    "post_stretches": 40,
    "post_ridge": 1e-4,
}
"""Hyperparameters of the audio models."""


HYPER_RANGE: dict = {
    "seed": 2,
    "weight_powers": [0.5, 1.25],  # powers of the model's step weights, drawn uniformly
    "unit_share": 0.2,  # of the draws: a step of exactly 1
    "step_power": 0.5,  # squared errors weigh 1 / step to this power, or the largest steps would rule
    "read_batches": 12,  # over which the channels that a block begins to read are normalised
    "attention_crops": 24,  # large crops over which the output of attention is averaged
    "watch": [0.7, 1.0, 1.5, 2.2, 3.0],  # steps at which the tuning images are watched,
    "lr": 6e-4,
    "muon": False,  # for the convolutions of residual blocks, instead of Adam
    **{
        name: HYPER[name]
        for name in ("batch", "crop", "fresh", "pool", "lr_ends", "betas", "warmup_steps", "lr_final", "ema")
    },
    **{name: HYPER[name] for name in ("large_crop", "large_batch", "large_share")},
}
"""Hyperparameters of the training over a range of steps."""

HYPER_WIDEN: dict = {
    "seed": 3,
    "batch": 4,
    "crop": 32,
    "statistics_batches": 40,
    "fit_batches": 150,
    "ridge": 1e-4,
    **{name: HYPER_RANGE[name] for name in ("weight_powers", "unit_share")},
}
"""Hyperparameters of giving a decoder more latents."""


def settings(spec: dict, defaults: dict, changes: list[str]) -> tuple[dict, dict]:
    """A model's configuration and the hyperparameters, with the changes ``name=value`` of ``--set``.

    Raises
    ------
    SystemExit
        No hyperparameter has that name.
    """
    spec, hyper = dict(spec), dict(defaults)
    for item in changes:
        key, value = item.split("=", 1)
        if key not in spec and key not in hyper:
            raise SystemExit(f"--set {key}: not one of {', '.join(sorted({**spec, **hyper}))}")
        (spec if key in spec else hyper)[key] = json.loads(value)
    return spec, hyper
