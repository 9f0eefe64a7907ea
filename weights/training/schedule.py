"""What every training shares: its log, its schedule, the moving average of the weights, checkpoints and model files."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from walloc_ref import exactness
from walloc_ref import model as models
from walloc_ref.measure import upstream
from walloc_ref.stages import entropy

LINEAR_PATH = ("conv_in", "conv_out", "conv_norm_out", "conv1.", "conv2.")
"""Parameters that carry the linear solution (with the transposed convolutions of the audio decoder); they learn slowly,
because noise in them costs more than they can gain."""


class Run:
    """One training of a decoder, under way or resumed.

    Parameters
    ----------
    folder : Path
        For the log, the checkpoint and the current model.
    title : str
        First words of the log.
    spec, hyper : dict
        Configuration and hyperparameters; both are written to the log and the checkpoint.

    Attributes
    ----------
    rng : numpy Generator
        Of everything drawn while training; PyTorch's is seeded alike.
    ema : dict of str to tensor
        Moving average of the decoder's state.
    step, elapsed : int, float
        Steps made, and seconds spent on them.
    running : float or None
        Running mean of the loss.
    """

    def __init__(self, folder: Path, title: str, spec: dict, hyper: dict) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.spec, self.hyper = folder, spec, hyper
        self.checkpoint = folder / "checkpoint.pt"
        self.step, self.elapsed = 0, 0.0
        self.running: float | None = None
        self.ema: dict[str, torch.Tensor] = {}
        torch.manual_seed(hyper["seed"])
        self.rng = np.random.default_rng(hyper["seed"])
        self.log(f"{title} {json.dumps(spec, sort_keys=True)} {json.dumps(hyper, sort_keys=True)}")

    def log(self, text: str) -> None:
        """Write one line, with the time, to the terminal and to ``log.txt``."""
        line = time.strftime("%H:%M:%S ") + text
        print(line, flush=True)
        with open(self.folder / "log.txt", "a") as f:
            f.write(line + "\n")

    def begin(self, decoder: torch.nn.Module) -> None:
        """Start the average and the optimiser from the decoder as it is; parameters that are to learn require gradients."""
        self.decoder = decoder
        self.ema = {k: v.clone() for k, v in decoder.state_dict().items()}
        self.optimiser = MuonAndAdam(decoder, self.hyper) if self.hyper.get("muon") else adam(decoder, self.hyper)

    def load(self, codec: torch.nn.Module) -> dict | None:
        """Weights and progress of the checkpoint, if there is one; the rest of it follows with `resume`."""
        if not self.checkpoint.exists():
            return None
        saved = torch.load(self.checkpoint, weights_only=True)
        codec.load_state_dict(saved["model"])
        self.step, self.elapsed = saved["step"], saved["elapsed"]
        self.rng.bit_generator.state = saved["rng"]
        return saved

    def resume(self, decoder: torch.nn.Module, saved: dict) -> None:
        """As `begin`, with the checkpoint's average and moments; learning rates are those of the hyperparameters."""
        self.begin(decoder)
        self.ema = saved["ema"]
        rates = [group["lr"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(saved["optimiser"])
        for group, rate in zip(self.optimiser.param_groups, rates):
            group["base_lr"] = rate
        self.log(f"resumed at step {self.step}, {self.elapsed / 60:.1f} min")

    def save(self, codec: torch.nn.Module, **more: Any) -> None:
        """Write a checkpoint that is whole or not there."""
        content = {
            "model": codec.state_dict(),
            "ema": self.ema,
            "step": self.step,
            "elapsed": self.elapsed,
            "rng": self.rng.bit_generator.state,
            "optimiser": self.optimiser.state_dict(),
            "spec": self.spec,
            "hyper": self.hyper,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(content | more, partial)
        os.replace(partial, self.checkpoint)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The decoder has the averaged weights meanwhile."""
        raw = {k: v.clone() for k, v in self.decoder.state_dict().items()}
        self.decoder.load_state_dict(self.ema)
        try:
            yield
        finally:
            self.decoder.load_state_dict(raw)

    def steps(
        self, minutes: float, every: float, report: Callable[[bool], str], clock: Callable[[], float] = time.time
    ) -> Iterator[float]:
        """Before each step, its gradients cleared and its rates set, the share of the time that has passed.

        Parameters
        ----------
        minutes : float
            The whole training; a resumed one has spent part of them.
        every : float
            Minutes between reports, which do not count.
        report : callable
            Writes current model and checkpoint and returns a line; its argument says whether it is the last one.
        clock : callable
            Seconds.
        """
        total, since, next_report = 60 * minutes, clock(), self.elapsed + 60 * every
        while self.elapsed < total:
            share = min(1.0, self.elapsed / total)
            self._set_rates(share)
            yield share
            self.step += 1
            self._update_average()
            now = clock()
            self.elapsed, since = self.elapsed + now - since, now
            if self.elapsed > next_report or self.elapsed >= total:
                text = report(self.elapsed >= total)
                train = -10 * math.log10(self.running or math.nan)
                self.log(f"step {self.step} {self.elapsed / 60:.1f} min train {train:.3f} dB {text}")
                next_report, since = self.elapsed + 60 * every, clock()

    def usual(self, loss: float, factor: float) -> bool:
        """Whether a loss is one to learn from: finite, and no more than so many times the running mean."""
        return math.isfinite(loss) and (self.running is None or loss < factor * self.running)

    def learn(self, loss: float) -> None:
        """Make the step that the gradients call for."""
        self.optimiser.step()
        self.running = loss if self.running is None else 0.99 * self.running + 0.01 * loss

    def _set_rates(self, share: float) -> None:
        """Warm-up by steps, cosine by elapsed time; clears the gradients."""
        final = self.hyper["lr_final"]
        rate = min(1.0, (self.step + 1) / self.hyper["warmup_steps"])
        rate *= final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimiser.param_groups:
            group["lr"] = group.setdefault("base_lr", group["lr"]) * rate
        self.optimiser.zero_grad(set_to_none=True)

    def _update_average(self) -> None:
        """Move the average towards the decoder's weights, over the last fifth of the steps at first."""
        decay = min(self.hyper["ema"], (1 + self.step) / (6 + self.step))
        with torch.no_grad():
            for k, v in self.decoder.state_dict().items():
                self.ema[k].lerp_(v, 1 - decay)


def nonzero(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and inputs of a convolution that have weights; all, where it has none."""
    used = weight.detach().flatten(2).any(-1)
    if not used.any():
        used = torch.ones_like(used)
    return used.any(1).nonzero()[:, 0], used.any(0).nonzero()[:, 0]


class MuonAndAdam:
    """Muon (Jordan 2024) for the convolutions of residual blocks, each a matrix of outputs by inputs and taps; Adam for
    the rest. Outputs and inputs that have no weights are left out, and stay so.
    """

    def __init__(self, decoder: torch.nn.Module, hyper: dict) -> None:
        self.parts, matrices = [], []
        for name, parameter in decoder.named_parameters():
            if _in_block(name, parameter):
                rows, columns = nonzero(parameter)
                self.parts.append((parameter, (rows[:, None], columns)))
                matrices.append(torch.nn.Parameter(parameter.detach()[self.parts[-1][1]].flatten(1)))
        muon = torch.optim.Muon(matrices, lr=hyper["lr"], weight_decay=0, adjust_lr_fn="match_rms_adamw")
        self.matrices, self.both = matrices, (adam(decoder, hyper, without=_in_block), muon)

    @property
    def param_groups(self) -> list[dict]:
        """Those of both."""
        return [group for optimiser in self.both for group in optimiser.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        self.both[0].zero_grad(set_to_none)
        for parameter, _ in self.parts:
            parameter.grad = None

    def step(self) -> None:
        """Move all parameters."""
        for (parameter, part), matrix in zip(self.parts, self.matrices):
            assert parameter.grad is not None
            matrix.data.copy_(parameter.detach()[part].flatten(1))
            matrix.grad = parameter.grad[part].flatten(1)
        for optimiser in self.both:
            optimiser.step()
        with torch.no_grad():
            for (parameter, part), matrix in zip(self.parts, self.matrices):
                parameter[part] = matrix.unflatten(1, (-1, *parameter.shape[2:]))

    def state_dict(self) -> dict:
        """Moments of both."""
        return {"both": [optimiser.state_dict() for optimiser in self.both]}

    def load_state_dict(self, state: dict) -> None:
        """Moments of both; the parameters are those of the decoder, as it is."""
        for optimiser, part in zip(self.both, state["both"]):
            optimiser.load_state_dict(part)


def _in_block(name: str, parameter: torch.Tensor) -> bool:
    """Whether this is what a residual block convolves with."""
    return ".resnets." in name and parameter.ndim == 4 and parameter.requires_grad


def adam(
    decoder: torch.nn.Module, hyper: dict, without: Callable[[str, torch.Tensor], bool] = lambda *_: False
) -> torch.optim.Optimizer:
    """Adam for the parameters that require gradients, with a slow group for the linear path."""
    groups: list[dict] = [{"params": [], "lr": hyper["lr"]}, {"params": [], "lr": hyper["lr"] * hyper["lr_ends"]}]
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad and not without(name, parameter):
            groups[name.startswith(LINEAR_PATH) or "conv_t1" in name]["params"].append(parameter)
    return torch.optim.Adam([group for group in groups if group["params"]], betas=tuple(hyper["betas"]))


def write_model(
    path: Path,
    name: str,
    config: models.Config,
    codec: torch.nn.Module,
    tables: entropy.Tables | None = None,
    step_weights: np.ndarray | None = None,
) -> None:
    """Write a model file that is whole or not there; without `tables`, with the entropy coder's default ones."""
    state = {k: v.detach().float().numpy() for k, v in codec.state_dict().items() if not k.startswith(upstream.FIXED)}
    tables = tables or entropy.default_tables(config.planes, config.latent_bits)
    model = models.Model(config, state, tables, name, step_weights)
    spread = exactness.measure(model)
    model = replace(model, spread=(spread.symbols_bits, spread.signal_bits))
    partial = path.with_suffix(".partial")
    partial.write_bytes(models.save(model))
    partial.replace(path)
