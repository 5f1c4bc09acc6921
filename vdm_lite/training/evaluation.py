"""A model's bound on a whole data set, in bits/dim, with its standard error."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.progress import bar
from vdm_lite.schedules import Linear, ends
from vdm_lite.training.engine import ALONE, Engine


class Report(NamedTuple):
    """The bound -ELBO averaged over images and draws, and its parts: all in bits/dim."""

    bits_per_dim: float
    error: float
    """Standard error of ``bits_per_dim`` over images, times and noise, see :func:`evaluate`."""
    prior: float
    reconstruction: float
    diffusion: float
    images: int
    draws: int
    steps: int | None
    """Layers T; None: continuous time."""


@torch.no_grad()
def evaluate(
    model: VariationalDiffusion,
    data: Tensor,
    draws: int = 1,
    steps: int | None = None,
    batch_size: int = 250,
    seed: int = 0,
    fabric: Engine = ALONE,
    progress: bool = False,
) -> Report:
    """Estimate the bound on ``data`` (N, ...) with ``draws`` times and noises for each example.

    The noise is fixed: that of a batch is a function of ``(seed, batch)``, whichever process of
    ``fabric`` has it, and the same for every model evaluated on this kind of device. In continuous
    time (``steps`` None) only the end points of a schedule matter for the bound, so times are drawn
    on the linear schedule between them: on a steep one the estimate would drown in its variance.
    Times run through each batch in its order, so let examples come in an order that means little:
    if it were that of their classes, each class would get times of its own, unseen by the error.

    The standard error is ``sqrt(mean (c_i - c_{i+1})^2 / 2N)``, from the costs of neighbors. These
    have nearly the same time: how costs vary from level to level stays out of it, as the even times
    of a batch keep it out of the mean. (The spread over the N examples would count it.) Only where
    a batch ends and where its times begin anew do neighbors have other times, so with batches of
    fewer than thirty the error comes out too large: in a test by a fifth at ten, by half at two.

    Raises ``ValueError`` for fewer than two examples, as they have no standard error, and for an
    example that the likelihood refuses, with its index; for costs that are not finite; for weights
    and numbers of another kind.
    """
    checks.model("model", model)
    checks.require(isinstance(data, Tensor), "data", "a tensor (N, ...)", checks.described(data))
    checks.batch("data", data)
    checks.require(len(data) > 1, "data", "two examples or more", len(data))
    checks.each_example(data, model.likelihood.encode)
    draws, seed = checks.count("draws", draws), checks.seed("seed", seed)
    batch_size = checks.count("batch_size", batch_size)
    steps = steps if steps is None else checks.count("steps", steps)
    model = model if steps else _on_linear(model)
    device = next(model.parameters(), data).device
    batches = data.split(batch_size)
    costs = torch.zeros(len(data), 3, device=device)
    mine = range(fabric.global_rank, len(batches), fabric.world_size)
    for k in bar(mine, progress and fabric.is_global_zero, unit="batch"):
        batch = batches[k].to(device)
        costs[k * batch_size :][: len(batch)] = _costs(
            model, batch, draws, steps, _generator(device, seed, k)
        )
    costs = bits_per_dim(fabric.all_reduce(costs, reduce_op="sum"), math.prod(data.shape[1:])).cpu()
    total = costs.sum(1)
    finite = bool(total.isfinite().all())
    checks.require(finite, "model", "one with finite costs", "NaN or infinity")
    error = (total.diff().square().mean() / 2 / len(data)).sqrt()
    numbers = torch.stack([total.mean(), error, *costs.mean(0)]).tolist()
    return Report(*numbers, len(data), draws, steps)


def _costs(
    model: VariationalDiffusion,
    batch: Tensor,
    draws: int,
    steps: int | None,
    generator: torch.Generator,
) -> Tensor:
    """The three costs of each example in nats, averaged over the draws: (B, 3)."""
    bounds = [model.elbo(batch, steps, generator) for _ in range(draws)]
    return torch.stack([torch.stack(bound, 1) for bound in bounds]).mean(0)


def _generator(device: torch.device, seed: int, batch: int) -> torch.Generator:
    # Batch 0 has the stream that training starts with at the same seed, of other images: harmless.
    return torch.Generator(device).manual_seed(seed * 1_000_003 + batch)


def _on_linear(model: VariationalDiffusion) -> VariationalDiffusion:
    low, high = ends(model.schedule)
    return VariationalDiffusion(
        model.denoiser, Linear(high, low), model.parameterization, model.likelihood
    )
