r"""The evidence lower bound as three costs in nats, and the diffusion term computed exactly.

::

    -ELBO(x) = KL(q(z_1|x) || N(0, I))   prior
             + E[-log p(x | z_0)]        reconstruction
             + L_T                       diffusion

A likelihood in bits/dim keeps all three.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.gaussian import expand, sum_except_batch
from vdm_lite.schedules import Schedule, levels, require_falling


class Elbo(NamedTuple):
    """Costs in nats per example, (B,) each.

    A hierarchy has one ``diffusion`` cost for each layer between its top and the data, (B, layers);
    a VAE has none, (B, 0).
    """

    prior: Tensor
    reconstruction: Tensor
    diffusion: Tensor

    @property
    def nelbo(self) -> Tensor:
        """``-ELBO``: the sum of the three costs (and of the layers), (B,)."""
        layers = self.diffusion.reshape(*self.prior.shape, -1)
        return self.prior + self.reconstruction + layers.sum(-1)


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """``nats / (dims ln 2)`` for data of ``dims`` numbers an example, same shape as ``nats``."""
    checks.count("dims", dims)
    return nats / (dims * math.log(2))


def prior(x: Tensor, logsnr_1: Tensor) -> Tensor:
    """``KL(q(z_1 | x) || N(0, I))`` in nats: (B,) (eq-prior-term).

    ``1/2 sum_i (alpha_1^2 x_i^2 + softplus(lambda_1) - alpha_1^2)``. The usual form with
    ``- log sigma_1^2 - 1`` cancels to nothing in float32 once alpha_1^2 is small.
    """
    checks.examples("x", x)
    checks.floating("logsnr_1", logsnr_1)
    signal = expand(torch.sigmoid(logsnr_1), x)
    spread = expand(torch.nn.functional.softplus(logsnr_1) - torch.sigmoid(logsnr_1), x)
    return sum_except_batch(0.5 * (signal * x.square() + spread))


def layer_weight(steps: int, logsnr_s: Tensor, logsnr_t: Tensor) -> Tensor:
    """Factor of ``||eps - eps_hat||^2`` when one of T layers is drawn (eq-discrete-loss).

    ``T/2 expm1(lambda_s - lambda_t)``, same shape as the levels; ``expm1`` keeps the digits that a
    difference of two exponentials loses.
    """
    return 0.5 * steps * torch.expm1(logsnr_s - logsnr_t)


def diffusion_from_mmse(
    mmse: Callable[[Tensor], Tensor], schedule: Schedule, steps: int | None = None
) -> Tensor:
    """The diffusion term of a denoiser whose error ``E||x - x_hat||^2`` is known, in nats: ().

    ``mmse`` takes levels ``logsnr`` (N,) to errors (N,). With ``steps`` T, all layers are summed:
    ``sum_i 1/2 (SNR(s) - SNR(t)) mmse(lambda_t)``. With ``None``, the limit
    ``1/2 integral of SNR mmse dlambda`` between the schedule's ends, by quadrature in float64.
    Raises ``ValueError`` for a schedule that does not fall, errors of another shape, ``steps < 1``.
    """
    require_falling(schedule)
    if steps is None:
        ends = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu"))
        nodes, weights = _gauss_legendre(ends[1].item(), ends[0].item())
        return 0.5 * (weights * nodes.exp() * _errors(mmse, nodes)).sum()
    logsnr_s, logsnr_t = levels(schedule, steps, torch.empty((), dtype=torch.float64, device="cpu"))
    gained = logsnr_t.exp() * torch.expm1(logsnr_s - logsnr_t)
    return 0.5 * (gained * _errors(mmse, logsnr_t)).sum()


def _errors(mmse: Callable[[Tensor], Tensor], logsnr: Tensor) -> Tensor:
    errors = mmse(logsnr)
    checks.floating("mmse(logsnr)", errors)
    checks.same_shape("mmse(logsnr)", errors, logsnr)
    return errors


def _gauss_legendre(low: float, high: float, panels: int = 64) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [low, high]: 16 Gauss-Legendre points in each of ``panels`` pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = (high - low) / panels / 2
    centers = low + half * (2 * np.arange(panels) + 1)
    grid = (centers[:, None] + half * nodes).ravel()
    return torch.from_numpy(grid), torch.from_numpy(np.tile(half * weights, panels))
