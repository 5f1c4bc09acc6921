"""One update of the weights: losses, gradients, learning rate, averaged weights."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vdm_lite import checks
from vdm_lite.diffusion import Costs
from vdm_lite.randomness import Generator, Share
from vdm_lite.schedules import Learned
from vdm_lite.training.engine import ALONE, Engine


class Step(NamedTuple):
    """What :func:`.fit` yields after each update."""

    step: int
    """Updates done so far: 1, 2, …, steps."""
    loss: float
    """Mean over the batch, in nats per example, before the update."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    rate: float
    """Learning rate of the update."""
    averaged: nn.Module
    """The model with averaged weights, in evaluation mode: the one to evaluate and to sample."""


class Objective(nn.Module):
    """The loss as a module, as engines want it: its forward is ``loss(batch, generator=...)``."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor | Costs]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Tensor, generator: Generator) -> Tensor | Costs:
        with checks.read_later():  # `fit` reads the loss, once in a step and in all processes
            found = self.loss(batch, generator=generator)
        loss = found.cost if isinstance(found, Costs) else found
        checks.require(isinstance(loss, Tensor), "loss", "a tensor (B,)", checks.described(loss))
        one_each = loss.shape == batch.shape[:1]
        checks.require(one_each, "loss", f"shape ({len(batch)},)", tuple(loss.shape))
        return found


def shares(
    objective: nn.Module, batch: Tensor, noise: torch.Generator, parts: int, fabric: Engine
) -> Iterator[Tensor | Costs]:
    """What ``objective`` says of this process's parts of a batch, one after the other.

    Every part draws the whole batch's numbers, from the same state, and keeps its own.
    """
    state = noise.get_state()
    for i in range(parts):
        noise.set_state(state)
        share = Share(noise, fabric.global_rank * parts + i, fabric.world_size * parts)
        with fabric.no_backward_sync(objective, enabled=i < parts - 1):
            yield objective(share.rows(batch), share if share.shares > 1 else noise)


class Lesson:
    """What a sampler of times that learns is shown when a step is done: all its costs at once."""

    def __init__(self, sampler: nn.Module | None) -> None:
        self.sampler = sampler
        self.seen: list[tuple[Tensor, Tensor]] = []

    def losses(self, found: Iterable[Tensor | Costs]) -> Iterator[Tensor]:
        """The losses (B,) of the parts of a batch; their costs are noted."""
        self.seen.clear()
        for part in found:
            if self.sampler is not None:
                kind, expected = checks.described(part), "Costs, as keep learns from them"
                checks.require(isinstance(part, Costs), "loss", expected, kind)
                self.seen.append((part.t, part.cost.detach()))
            yield part.loss if isinstance(part, Costs) else part

    def learn(self) -> None:
        """Show them: every part of the step drew from one density."""
        if self.sampler is not None:
            self.sampler.observe(*map(torch.cat, zip(*self.seen, strict=True)))


def backward(
    model: nn.Module, losses: Tensor | Iterable[Tensor], count: int = 1, fabric: Engine = ALONE
) -> Tensor:
    """Gradients of the mean of the losses, with one exception for learned schedules; the mean: ().

    ``losses`` is (B,), or an iterable of ``count`` such parts of one batch, each made when the one
    before it has given its gradients. The mean is over all parts and all processes of ``fabric``.

    What the inner weights of a ``schedules.Learned`` change is the variance of the loss, not its
    mean. In a second pass they get the gradient of the mean of ``(loss / mean loss)^2``
    (eq-square-gradient); dividing by the mean, a constant here, gives it the size of the others.
    A mean near zero, as a bound on continuous data may have, is replaced by a tenth of the root
    mean square.
    """
    learned = [m for m in model.modules() if isinstance(m, Learned)]
    interior = [p for schedule in learned for p in schedule.interior() if p.requires_grad]
    squares: list[Tensor | None] = [None] * len(interior)
    moments = []
    for loss in [losses] if isinstance(losses, Tensor) else losses:
        if interior:
            more = torch.autograd.grad(
                loss.square().mean() / count, interior, retain_graph=True, allow_unused=True
            )
            squares = [_sum(a, b) for a, b in zip(squares, more, strict=True)]
        fabric.backward(loss.mean() / count)
        cost = loss.detach()
        moments.append(torch.stack([cost.mean(), cost.square().mean()]) / count)
    mean, square = fabric.all_reduce(torch.stack(moments).sum(0))
    for parameter, gradient in zip(interior, squares, strict=True):
        size = torch.maximum(mean.square(), square / 100)
        parameter.grad = None if gradient is None else fabric.all_reduce(gradient) / size
    return mean


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def read(
    mean: Tensor, norm: Tensor, stop: Callable[[], bool] | None, fabric: Engine
) -> tuple[float, float, bool]:
    """Loss, norm of the gradient, and whether any process was asked to stop.

    All that the host has to know in one read: for it an accelerator is waited for.
    """
    asked = torch.full_like(mean, stop is not None and stop())
    asked = fabric.all_reduce(asked, reduce_op="sum")
    loss, grad_norm, stopped = torch.stack([mean, norm, asked]).tolist()
    return loss, grad_norm, stopped > 0


def adamw(weights: list[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """Decay for weights, none for single numbers: decay would pull an end point towards 0."""
    numbers = [p for p in weights if p.ndim == 0]
    groups = [{"params": [p for p in weights if p.ndim > 0]}]
    groups += [{"params": numbers, "weight_decay": 0.0}] if numbers else []
    return torch.optim.AdamW(groups, lr=lr)


def learning_rate(k: int, steps: int, lr: float, warmup: int, decay: int) -> float:
    """Rate of the update after k: up to ``lr`` in ``warmup`` steps, to 0 in the last ``decay``."""
    return lr * min(1.0, (k + 1) / max(warmup, 1), (steps - k) / max(decay, 1))


def averaged(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Exponential moving average of the weights, with warm-up.

    What each step counts in the end is (eq-ema-shares).

    The first ``update_parameters(model)`` copies the weights, and n updates later the decay is
    min(decay, (1+n)/(10+n)): a short run is not averaged with its own random start (eq-ema-warmup).
    Evaluate ``.module``. Move that alone to an accelerator: the count of updates stays on the CPU,
    where it can be read without waiting.
    """
    ema = _Averaged(model, decay)
    ema.module.eval().requires_grad_(False)
    return ema


class _Averaged(AveragedModel):
    """Torch's average with a decay of its own at each update."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self.average)
        self.decay = decay

    def average(self, means: list[Tensor], weights: list[Tensor], _count: Tensor | int) -> None:
        n = int(self.n_averaged)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(means, weights, n)
