"""What is looked at while a run goes on: its log, bits/dim of held-out images, samples."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vdm_lite.cli import pictures
from vdm_lite.cli.options import Train
from vdm_lite.cli.sampling import draw
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.samplers import ancestral_step
from vdm_lite.training import Step
from vdm_lite.training.engine import first
from vdm_lite.training.evaluation import evaluate
from vdm_lite.training.journal import COSTS, Journal

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GRID_STEPS = 100


def watch(options: Train, steps: Iterator[Step], held_out: Tensor, engine: "Fabric") -> Step:
    """Run through the steps; log, evaluate and draw on the way. The last step.

    A run that is resumed begins with the step of its checkpoint. If the log lacks that, what was
    due there is done now.
    """
    log = _Log(options, engine, held_out[0].numel())
    try:
        step = start = next(steps)
        for step in chain([] if log.begin(start.step) else [start], steps):
            log.see(step)
            last = step.step == options.steps
            numbers = log.of_training() if last or step.step % options.log_every == 0 else {}
            if last or step.step % options.evaluate_every == 0:
                numbers |= log.apart(partial(_measure, options, step, held_out, log))
            if numbers:
                log.write(numbers)
        if log.losses:  # stopped between two rows: what was seen is not lost
            log.write(log.of_training())
    finally:
        log.close()
    return step


class _Log:
    """The log of a run. Every process has it, and the first one the files."""

    def __init__(self, options: Train, engine: "Fabric", dims: int) -> None:
        self.options, self.engine, self.dims = options, engine, dims
        self.loss = "loss" if options.weighting == "elbo" else "weighted_loss"
        self.journal: Journal | None = None
        self.losses: list[float] = []
        self.began, self.counted = time.monotonic(), 0

    def begin(self, step: int) -> bool:
        """Open the files at the first step that is seen: whether the log has a row of it."""
        self.journal = first(self.engine, lambda: Journal(self.options.out, step, self.loss))
        if self.options.resume:
            self.counted, self.began = step, time.monotonic()
        return self.engine.broadcast(self.journal and self.journal.reached == step)

    def see(self, step: Step) -> None:
        """Keep what a step says."""
        self.step = step
        self.losses.append(step.loss)

    def apart(self, act: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Do something that does not count as time of training."""
        began = time.monotonic()
        result = act()
        self.began += time.monotonic() - began
        return result

    def of_training(self) -> dict[str, float]:
        """The numbers of the steps since the row before; they are forgotten."""
        step, updates = self.step, self.step.step - self.counted
        loss = bits_per_dim(torch.tensor(self.losses).mean(), self.dims).item()
        numbers = {self.loss: loss, "grad_norm": step.grad_norm, "learning_rate": step.rate}
        if updates:  # none of its own has a step that a checkpoint has kept
            seconds = time.monotonic() - self.began
            numbers["images_per_s"] = updates * self.options.batch_size / seconds
        self.losses, self.began, self.counted = [], time.monotonic(), step.step
        return numbers

    def write(self, numbers: dict[str, float]) -> None:
        """Write a row of the step seen last."""
        first(self.engine, lambda: self.journal.write(self.step.step, numbers))

    def show(self, model: VariationalDiffusion, shape: tuple[int, ...], at_once: int) -> None:
        """Draw a grid of samples, write it, and add it to the board."""
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(self.options.seed)
        images = draw(model, shape, GRID_STEPS, ancestral_step, generator, at_once)
        levels = model.likelihood.levels
        path = self.options.out / "samples" / f"step_{self.step.step:07d}.png"
        pictures.write_png(path, images, levels)
        self.journal.show(self.step.step, pictures.grid(images[-1], levels))

    def close(self) -> None:
        """Finish the files."""
        if self.journal:
            self.journal.close()


def _measure(options: Train, step: Step, held_out: Tensor, log: _Log) -> dict[str, float]:
    """Bits/dim of held-out images, one draw each; a grid of samples beside it."""
    # Fewer at a time where training takes few, but not so few that the error comes out too large.
    at_once = min(250, max(30, options.batch_size))
    report = evaluate(step.averaged, held_out, batch_size=at_once, fabric=log.engine)
    if options.images:
        shape = (options.images, *held_out.shape[1:])
        first(log.engine, partial(log.show, step.averaged, shape, at_once))
    return {name: getattr(report, name) for name in COSTS}
