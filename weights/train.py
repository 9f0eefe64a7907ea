"""Train models with the upstream's own PyTorch classes: the command line. How it works stands in `training/__init__.py`.

One command trains one model and writes a ``.safetensors`` file that both ``walloc_ref`` and the upstream's
``load_state_dict`` read; another one fits the entropy coder's tables to it::

    python weights/train.py image rgb_16x --data FOLDER --tune FOLDER --run FOLDER --minutes 70 --out FILE
    python weights/train.py widen rgb_2x --start FILE --steps 0.7,7.5 --data FOLDER --out FILE
    python weights/train.py range rgb_16x --start FILE --steps 0.6,3 --data FOLDER --tune FOLDER --run FOLDER --out FILE
    python weights/train.py step-weights FILE --data FOLDER
    python weights/train.py tables FILE --data FOLDER --quantiser-steps 1,0.7,1.4,2
    python weights/train.py round FILE --bits 10

``walloc-ref eval`` measures the result. Needs walloc_ref, installed with its ``[torch]`` extra.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import entropy_tables
import torch
from training import audio_model, image_model, image_range, image_widen, linear_model, rounding, step_weights
from training.settings import MODELS


def step_range(text: str) -> tuple[float, float]:
    """``LOW,HIGH``, both positive and in order."""
    low, high = map(float, text.split(","))
    if not 0 < low <= high:
        raise ValueError(text)
    return low, high


def steps_in_turn(text: str) -> tuple[float, ...]:
    """Positive numbers with commas between them."""
    steps = tuple(map(float, text.split(",")))
    if min(steps) <= 0:
        raise ValueError(text)
    return steps


def parser() -> argparse.ArgumentParser:
    """The options of every command."""
    images = sorted(name for name, spec in MODELS.items() if spec["J"] < 8 and "Nd" in spec)
    top = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = top.add_subparsers(dest="command", required=True)

    def add(name: str, what: str, run: object) -> argparse.ArgumentParser:
        p = sub.add_parser(name, help=what)
        p.set_defaults(run_command=run)
        return p

    def schedule(p: argparse.ArgumentParser, minutes: float, every: float, meaning: str = "of training") -> None:
        p.add_argument("--run", required=True, help="folder for the log, checkpoint and current model")
        p.add_argument("--out", help="where the final model goes (default: only RUN/current.safetensors)")
        p.add_argument("--minutes", type=float, default=minutes, help=f"{meaning} (default: %(default)s)")
        p.add_argument("--every", type=float, default=every, help="minutes between logs and checkpoints")

    def changes(p: argparse.ArgumentParser) -> None:
        p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a hyperparameter")

    p = add("image", "train an image model", image_model.train)
    p.add_argument("model", choices=images)
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--tune", required=True, help="folder of images to watch the training on; never trained on")
    schedule(p, 70, 3)
    changes(p)

    p = add("range", "train an image model's decoder on, over a range of quantiser steps", image_range.train)
    p.add_argument("model", help="name that the new model gets")
    p.add_argument("--start", required=True, help="the .safetensors file of the model to start from")
    p.add_argument("--steps", type=step_range, required=True, metavar="LOW,HIGH", help="the range; 1 is drawn as well")
    p.add_argument(
        "--read", action="append", default=[], metavar="BLOCK",
        help="let this residual block (mid_block.resnets.0, say) read the channels that `widen` added; repeatable",
    )  # fmt: skip
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--tune", required=True, help="folder of images to watch the training on; never trained on")
    schedule(p, 60, 4, "of processor time, so that other work on the machine does not shorten the training")
    changes(p)

    p = add(
        "widen", "give a trained image decoder more channels, for more latents or for its blocks", image_widen.train
    )
    p.add_argument("model", choices=images)
    p.add_argument("--start", required=True, help="the .safetensors file of the model to start from")
    p.add_argument("--steps", type=step_range, required=True, metavar="LOW,HIGH", help="the range")
    p.add_argument("--encoder", help="a .safetensors file whose encoder, tables and step weights are taken as they are")
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--out", required=True, help="where the model goes")
    changes(p)

    p = add("audio", "train an audio model", audio_model.train)
    p.add_argument("model", choices=sorted(name for name, spec in MODELS.items() if spec["J"] == 8))
    p.add_argument("--data", required=True, help="folder of training tracks, searched recursively")
    schedule(p, 20, 3)
    changes(p)
    p.add_argument("--cache", help="folder to keep the tracks' coefficients in")

    p = add("linear", "write a linear image codec", linear_model.train)
    p.add_argument("model", choices=sorted(name for name in MODELS if name.startswith("linear")))
    p.add_argument("--data", required=True, help="folder of training images, searched recursively")
    p.add_argument("--out", required=True, help="where the model goes")
    changes(p)

    p = add("tables", "fit the entropy coder's tables and write them into the model", entropy_tables.train)
    p.add_argument("model", help="a .safetensors file")
    p.add_argument("--data", required=True, help="folder of training images or tracks")
    p.add_argument("--stride", type=int, default=4, help="take every n-th image")
    p.add_argument("--positions", type=int, default=2048, help="take at most this many positions of a track")
    p.add_argument("--steps", type=int, default=4000, help="training steps of the coder's networks")
    cycle = "steps of the quantiser that images and tracks are coded with in turn (default: 1 alone)"
    p.add_argument("--quantiser-steps", type=steps_in_turn, default=(1.0,), metavar="S,T", help=cycle)

    p = add(
        "step-weights",
        "fit the step weights of the planes, and write them into the model",
        step_weights.train,
    )
    p.add_argument("model", help="a .safetensors file of an image model")
    p.add_argument("--data", required=True, help="folder of training images")
    p.add_argument("--stride", type=int, default=37, help="take every n-th image (default: %(default)s)")
    p.add_argument(
        "--steps",
        type=steps_in_turn,
        default=step_weights.STEPS,
        metavar="S,T",
        help="steps above 1 at which slopes are measured (default: %(default)s)",
    )
    p.add_argument(
        "--alone", type=int, help="planes that are moved alone; all others together, in the shares that they have"
    )

    p = add("round", "round a decoder's weights, so that the file deflates well", rounding.train)
    p.add_argument("model", help="a .safetensors file")
    p.add_argument(
        "--bits", type=int, choices=range(1, 24), default=10, metavar="N", help="after the leading one (default: 10)"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    args = parser().parse_args(arguments)
    torch.set_num_threads(1)
    args.run_command(args)


if __name__ == "__main__":
    main()
