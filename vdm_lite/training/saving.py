"""What a run goes on from: all that changes from step to step, in one file with its settings."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vdm_lite import checks
from vdm_lite.training import checkpoints
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.engine import ElsewhereError, Engine, first
from vdm_lite.training.update import Step

REACHED = ("step", "loss", "grad_norm", "rate")
NUMBERS = (*REACHED, "steps")
"""What a checkpoint holds beside the settings of its run: other runs may go on from it."""


@dataclass
class Settings:
    """What stays for the whole of a run, by the names that its file has for them.

    Raises ``ValueError`` for a number out of range, ``TypeError`` for a config that JSON lacks.
    """

    examples: int
    batch_size: int
    lr: float
    warmup: int
    decay: int
    clip: float
    ema_decay: float
    seed: int
    config: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        self.batch_size = checks.count("batch_size", self.batch_size)
        expected = f"at most len(data) = {self.examples}"
        checks.require(self.batch_size <= self.examples, "batch_size", expected, self.batch_size)
        checks.positive_number("lr", self.lr)
        checks.positive_number("clip", self.clip)
        checks.finite_number("ema_decay", self.ema_decay)
        in_range = 0 <= self.ema_decay < 1
        checks.require(in_range, "ema_decay", "a number in [0, 1)", self.ema_decay)
        self.seed = checks.seed("seed", self.seed)
        self.warmup = checks.count("warmup", self.warmup, least=0)
        self.decay = checks.count("decay", self.decay, least=0)
        mapping = self.config is None or isinstance(self.config, Mapping)
        checks.require(mapping, "config", "a mapping", checks.described(self.config))
        self.config = dict(self.config or {})
        self.plain()

    def plain(self) -> dict[str, Any]:
        """As JSON gives them back."""
        return json.loads(checkpoints.to_json(vars(self)))


@dataclass
class State:
    """All that changes from step to step."""

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    noise: torch.Generator
    keep: nn.Module | None

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name; :meth:`load` is the inverse."""
        return checkpoints.join(
            **{name: checkpoints.weights_of(module) for name, module in self._modules().items()},
            optimizer=checkpoints.optimizer_state(self.optimizer),
            rng=checkpoints.random_states(self.noise),
        )

    def load(self, tensors: Mapping[str, Tensor], step: int, path: str | os.PathLike) -> None:
        """Go back to a state; CheckpointError, before anything is changed, for one of others."""
        random_states = checkpoints.part(tensors, "rng")
        checkpoints.check_random_states(self.noise, random_states, path)
        for name, module in self._modules().items():
            checkpoints.check_weights(module, checkpoints.part(tensors, name), path)
        for name, module in self._modules().items():
            checkpoints.load_into(module, checkpoints.part(tensors, name), path)
        self.ema.n_averaged.fill_(step)
        checkpoints.load_optimizer(self.optimizer, checkpoints.part(tensors, "optimizer"))
        checkpoints.load_random_states(self.noise, random_states)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema": self.ema.module, "keep": self.keep or nn.Module()}


class Saver:
    """The file of a run, if it has one: read at its start, written every now and then."""

    def __init__(
        self,
        path: str | os.PathLike | None,
        every: int,
        steps: int,
        settings: Settings,
        state: State,
        fabric: Engine,
    ) -> None:
        self.path, self.every, self.steps = path, every, steps
        self.settings, self.state, self.fabric = settings, state, fabric

    def resume(self) -> Step:
        """The step that the file stands at, with the state of the run put there; else step 0."""
        start = Step(0, math.nan, math.nan, math.nan, self.state.ema.module)
        if self.path is None or not Path(self.path).exists():
            return start
        tensors, metadata = checkpoints.read(self.path)
        self._check(metadata)
        self.state.load(tensors, metadata["step"], self.path)
        least = max(metadata["step"], self.settings.decay)
        expected = f"at least {least}, as in {self.path}"
        checks.require(least <= self.steps, "steps", expected, self.steps)
        return start._replace(**{name: metadata[name] for name in REACHED})

    def _check(self, metadata: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless the file is of a run with these settings."""
        for name, value in self.settings.plain().items():
            found = metadata.get(name, "a file of weights alone")
            if found != value:
                where, mine, theirs = _difference(name, value, found)
                raise CheckpointError(self.path, f"a run with {where} = {mine}", theirs)

    def save(self, step: Step, last: bool) -> None:
        """Write the file if it is due."""
        if self.path is not None and (last or step.step % self.every == 0):
            self._write(self.path, step)

    def fail(self, step: Step, batch: Tensor) -> NoReturn:
        """Say that numbers stopped being finite after ``step``, and keep what led there."""
        message = (
            f"step {step.step + 1}: expected a finite loss and gradient, got loss {step.loss} and "
            f"gradient norm {step.grad_norm}; the weights are as after step {step.step}"
        )
        if self.path is not None:
            path = Path(self.path).with_suffix(".failed.safetensors")
            try:
                self._write(path, step, batch=batch)
                message += f", and {path} holds them with the batch of the step"
            except (OSError, ElsewhereError) as error:
                message += f", which could not be kept: {error}"
        raise FloatingPointError(message)

    def _write(self, path: str | os.PathLike, step: Step, **more: Tensor) -> None:
        numbers = {name: getattr(step, name) for name in REACHED} | {"steps": self.steps}
        metadata = {**self.settings.plain(), **numbers}
        tensors = self.state.tensors() | more
        first(self.fabric, lambda: checkpoints.write(path, tensors, metadata))


def _difference(name: str, mine: Any, theirs: Any) -> tuple[str, Any, Any]:
    """The first entry in which two settings differ, by its dotted name, and its two values."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return name, mine, theirs
    keys = [*mine, *theirs]
    key = next(k for k in keys if (k in mine, mine.get(k)) != (k in theirs, theirs.get(k)))
    return _difference(f"{name}.{key}", mine.get(key, "nothing"), theirs.get(key, "nothing"))
