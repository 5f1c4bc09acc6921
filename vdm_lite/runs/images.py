"""What the long runs on objectives share: one small U-Net on Fashion-MNIST at 14x14."""

from typing import Any

import torch
from torch import Tensor

from vdm_lite import data, gaussian, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import ENERGY, NOISE, Parameterization
from vdm_lite.schedules import Linear, Schedule
from vdm_lite.training import evaluation, fit

DIMS = 14 * 14
SEEDS = (0, 1, 2)
BATCH = 64
RATE = 2e-3
COSTS = ("bits_per_dim", "prior", "reconstruction", "diffusion")


def build(
    schedule: Schedule | None = None, output: Parameterization = NOISE, seed: int = 0
) -> VariationalDiffusion:
    """A diffusion of 8-bit images (1, 14, 14) around a U-Net of 65,000 weights.

    The schedule is linear from 13.3 to -5 if none is given. For ``ENERGY`` the same U-Net gives
    the scalar ``nets.Energy``.
    """
    torch.manual_seed(seed)
    network = nets.UNet(1, (16, 32))
    if output is ENERGY:
        network = nets.Energy(network)
    return VariationalDiffusion(network, schedule or Linear(), output, Discretized(256))


def train(model: VariationalDiffusion, steps: int, seed: int) -> VariationalDiffusion:
    """Train on the bound's diffusion term; return the model with averaged weights."""
    images, last = data.halved(data.fashion_mnist()).train, None
    for last in fit(model, images, steps, BATCH, RATE, seed=seed, progress=False):  # noqa: B007
        pass
    return last.averaged


def bound(model: VariationalDiffusion, draws: int = 4) -> dict[str, Any]:
    """The bound on the 2,000 test images in continuous time, in bits/dim, and its terms."""
    images = data.halved(data.fashion_mnist()).test
    report = evaluation.evaluate(model, images, draws, batch_size=len(images))._asdict()
    return {name: report[name] for name in COSTS}


@torch.no_grad()
def noise_errors(
    model: VariationalDiffusion, logsnr: Tensor, images: Tensor, generator: torch.Generator
) -> Tensor:
    """``||eps - eps_hat||^2`` of ``images`` (N, ...) at levels (L,): (L, N)."""
    x = model.likelihood.encode(images)
    rows = []
    for level in logsnr.to(x):
        eps = torch.randn(x.shape, generator=generator)
        z = gaussian.diffuse(x, level, eps)
        rows.append(gaussian.sum_except_batch((model.predict(z, level).eps - eps).square()))
    return torch.stack(rows)
