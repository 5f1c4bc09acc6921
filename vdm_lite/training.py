"""Training: :func:`fit` is a generator that a notebook or a widget iterates.

    for step in fit(model, data, steps=500):
        losses.append(step.loss)
    model = step.averaged

The model is any module with ``.loss(batch, generator=...) -> (B,)`` in nats, one cost per example.
The k-th batch is a function of ``(seed, k)``, and a checkpoint holds everything else, so a run that
is killed and started again goes on bit for bit as if nothing had happened.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vdm_lite import checkpoints, checks
from vdm_lite.checkpoints import CheckpointError
from vdm_lite.schedules import Learned


class Step(NamedTuple):
    """What :func:`fit` yields after each update."""

    step: int
    """Updates done so far: 1, 2, …, steps."""
    loss: float
    """Mean over the batch, in nats per example, before the update."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    averaged: nn.Module
    """The model with averaged weights, in evaluation mode: the one to evaluate and to sample."""


def averaged(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Exponential moving average of the weights, with warm-up.

    The n-th update uses the decay min(decay, (1+n)/(10+n)): a short run is not averaged with its
    own random start. Evaluate ``.module``.
    """

    def average(ema: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(n)) / (10 + int(n))))(ema, current, n)

    ema = AveragedModel(model, multi_avg_fn=average)
    ema.module.eval().requires_grad_(False)
    return ema


def backward(model: nn.Module, loss: Tensor) -> None:
    """Gradients of the mean of ``loss`` (B,), with one exception for learned schedules.

    What the inner weights of a ``schedules.Learned`` change is the variance of the loss, not its
    mean. In a second pass they get the gradient of the mean of ``(loss / mean loss)^2``
    (eq-square-gradient); dividing by the mean, a constant here, gives it the size of the others.
    A mean near zero, as a bound on continuous data may have, is replaced by a tenth of the root
    mean square. For one process: the second pass is not averaged over several.
    """
    learned = [m for m in model.modules() if isinstance(m, Learned)]
    interior = [p for schedule in learned for p in schedule.interior() if p.requires_grad]
    given = loss.detach()
    size = torch.maximum(given.mean().abs(), given.square().mean().sqrt() / 10)
    squares = (loss / size).square().mean()
    gradients = []
    if interior:
        gradients = torch.autograd.grad(squares, interior, retain_graph=True, allow_unused=True)
    loss.mean().backward()
    for parameter, gradient in zip(interior, gradients, strict=True):
        parameter.grad = gradient


def _groups(weights: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Decay for weights, none for single numbers: decay would pull an end point towards 0."""
    numbers = [p for p in weights if p.ndim == 0]
    decayed = {"params": [p for p in weights if p.ndim > 0]}
    return [decayed, {"params": numbers, "weight_decay": 0.0}] if numbers else [decayed]


def batch_indices(k: int, examples: int, batch_size: int, seed: int) -> Tensor:
    """Which examples are in the k-th batch (k = 0, 1, …): shape (batch_size,).

    Each epoch is one shuffle, a function of ``(seed, epoch)``; what is left at its end and does not
    fill a batch waits for the next one.
    """
    epoch, position = divmod(k, examples // batch_size)
    start = position * batch_size
    return _epoch_order(epoch, examples, seed)[start : start + batch_size]


@lru_cache(maxsize=1)
def _epoch_order(epoch: int, examples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator, device="cpu")


def fit(
    model: nn.Module,
    data: Tensor,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    *,
    warmup: int = 100,
    clip: float = 1.0,
    ema_decay: float = 0.999,
    seed: int = 0,
    loss: Callable[..., Tensor] | None = None,
    keep: nn.Module | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 500,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Iterator[Step]:
    """Train ``model`` on ``data`` (N, ...) for ``steps`` updates; yield a :class:`Step` after each.

    AdamW, which decays weights but not single numbers such as end points; the learning rate rises
    linearly to ``lr`` over ``warmup`` steps and stays, so a run can be made longer later; gradients
    are clipped to norm ``clip``; weights are averaged with ``ema_decay``. A learned schedule's
    inner weights get a gradient of their own, see :func:`backward`. ``loss`` replaces
    ``model.loss``: ``partial(model.loss, weighting=w)``, say.
    ``keep`` is a module whose buffers belong to the run, such as a sampler of times that learns.
    ``data`` may lie on any device: batches go to the model's, floats in the model's dtype.

    With ``checkpoint``, a file that exists is resumed from, and it is written every ``every`` steps
    and at the end; ``config`` is kept in it. A run that was complete yields its last step again.

    The progress bar is text on stderr and goes when the run ends; ``progress=False`` or the
    environment variable ``TQDM_DISABLE=1`` (for static pages) leaves it out.

    Raises ValueError for a bad argument, CheckpointError for a checkpoint of another run, and
    FloatingPointError, before the update, if the loss or its gradient is not finite.
    """
    _check(model, data, steps, batch_size, every)
    for name, value in (("lr", lr), ("clip", clip)):
        checks.require(value > 0, name, "a positive number", value)
    checks.require(isinstance(seed, int), "seed", "a whole number", repr(seed))
    settings = {"examples": len(data), "batch_size": batch_size, "lr": lr, "warmup": warmup}
    settings |= {"clip": clip, "ema_decay": ema_decay, "seed": seed, "config": dict(config or {})}
    run = _Run(model, loss or model.loss, keep, settings)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load(checkpoint)
        done = f"at least {run.step}, as in {checkpoint}"
        checks.require(run.step <= steps, "steps", done, steps)
    return _updates(run, data, steps, checkpoint, every, progress)


def _check(model: nn.Module, data: Tensor, steps: int, batch_size: int, every: int) -> None:
    checks.count("steps", steps)
    checks.count("every", every)
    checks.count("batch_size", batch_size)
    checks.require(isinstance(data, Tensor), "data", "a tensor (N, ...)", type(data).__name__)
    checks.batch("data", data)
    enough = batch_size <= len(data)
    checks.require(enough, "batch_size", f"at most len(data) = {len(data)}", batch_size)
    trainable = any(p.requires_grad for p in model.parameters())
    checks.require(trainable, "model", "trainable weights", "none")


def _updates(
    run: "_Run",
    data: Tensor,
    steps: int,
    checkpoint: str | os.PathLike | None,
    every: int,
    progress: bool,
) -> Iterator[Step]:
    if run.step == steps:
        yield run.last()
    # Arguments win over tqdm's environment variables, so `disable` is given only to switch it off.
    quiet = {} if progress else {"disable": True}
    with tqdm(total=steps, initial=run.step, unit="step", leave=False, **quiet) as bar:
        while run.step < steps:
            run.update(data)
            if checkpoint is not None and (run.step % every == 0 or run.step == steps):
                run.save(checkpoint)
            bar.set_postfix(loss=f"{run.loss:.4g}", refresh=False)
            bar.update()
            yield run.last()


class _Run:
    """Everything that changes from step to step, and how it goes to a file and comes back."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        keep: nn.Module | None,
        settings: dict[str, Any],
    ) -> None:
        # Through JSON at once: what cannot be written fails here, not at the first checkpoint.
        self.settings = json.loads(json.dumps(settings))
        self.model, self.loss_of, self.keep = model, loss, keep or nn.Module()
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.device, self.dtype = self.weights[0].device, self.weights[0].dtype
        self.optimizer = torch.optim.AdamW(_groups(self.weights), lr=settings["lr"])
        self.ema = averaged(model, settings["ema_decay"])
        self.generator = torch.Generator(self.device).manual_seed(settings["seed"])
        self.step, self.loss, self.grad_norm = 0, math.nan, math.nan

    def last(self) -> Step:
        return Step(self.step, self.loss, self.grad_norm, self.ema.module)

    def update(self, data: Tensor) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        batch = self.batch(data)
        loss = self.loss_of(batch, generator=self.generator)
        one_each = loss.shape == batch.shape[:1]
        checks.require(one_each, "loss", f"shape ({len(batch)},)", tuple(loss.shape))
        backward(self.model, loss)
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings["clip"])
        # One read for both, after all of the step is queued: an accelerator is waited for once.
        self.loss, self.grad_norm = torch.stack([loss.detach().mean(), norm]).tolist()
        if not math.isfinite(self.loss + self.grad_norm):
            raise FloatingPointError(
                f"step {self.step + 1}: expected a finite loss and gradient, got loss {self.loss} "
                f"and gradient norm {self.grad_norm}; the weights are as after step {self.step}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.ema.update_parameters(self.model)
        self.step += 1

    def batch(self, data: Tensor) -> Tensor:
        size, seed = self.settings["batch_size"], self.settings["seed"]
        index = batch_indices(self.step, len(data), size, seed)
        dtype = self.dtype if data.is_floating_point() else data.dtype
        return data[index.to(data.device)].to(self.device, dtype, non_blocking=True)

    def rate(self) -> float:
        return self.settings["lr"] * min(1.0, (self.step + 1) / max(self.settings["warmup"], 1))

    def save(self, path: str | os.PathLike) -> None:
        tensors = checkpoints.join(
            model=self.model.state_dict(),
            ema=self.ema.module.state_dict(),
            optimizer=checkpoints.optimizer_state(self.optimizer),
            rng=checkpoints.random_states(self.generator),
            keep=self.keep.state_dict(),
        )
        numbers = {"step": self.step, "loss": self.loss, "grad_norm": self.grad_norm}
        checkpoints.write(path, tensors, {**self.settings, **numbers})

    def load(self, path: str | os.PathLike) -> None:
        tensors, metadata = checkpoints.read(path)
        for name, value in self.settings.items():
            given = metadata.get(name, "a file of weights alone")
            if given != value:
                raise CheckpointError(path, f"a run with {name} = {value}", given)
        # Whatever can be refused is refused before anything is changed.
        random_states = checkpoints.part(tensors, "rng")
        checkpoints.check_random_states(self.generator, random_states, path)
        modules = {"model": self.model, "ema": self.ema.module, "keep": self.keep}
        for name, module in modules.items():
            checkpoints.check_weights(module, checkpoints.part(tensors, name), path)
        for name, module in modules.items():
            checkpoints.load_into(module, checkpoints.part(tensors, name), path)
        self.step, self.loss, self.grad_norm = (metadata[k] for k in ("step", "loss", "grad_norm"))
        self.ema.n_averaged.fill_(self.step)
        checkpoints.load_optimizer(self.optimizer, checkpoints.part(tensors, "optimizer"))
        checkpoints.load_random_states(self.generator, random_states)
