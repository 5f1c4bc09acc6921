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

import torch
from torch import Tensor

from vdm_lite import checks, quadrature
from vdm_lite.checks import checked
from vdm_lite.gaussian import expand, sum_except_batch
from vdm_lite.schedules import Schedule, ends, levels, rate, require_falling


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
        """``-ELBO``: the sum of the three costs (and of the layers), (B,).

        On average at least -log p(x) (eq-elbo-bound).
        """
        layers = self.diffusion.reshape(*self.prior.shape, -1)
        return self.prior + self.reconstruction + layers.sum(-1)


@checked(nats=checks.numbers, dims=checks.count)
def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """``nats / (dims ln 2)`` for data of ``dims`` numbers, shape of ``nats`` (eq-bits-per-dim)."""
    return nats / (dims * math.log(2))


@checked(x=checks.examples, logsnr_1=(checks.levels, "x"))
def prior(x: Tensor, logsnr_1: Tensor) -> Tensor:
    """``KL(q(z_1 | x) || N(0, I))`` in nats: (B,) (eq-prior-term).

    Averaged over data, it is I(x; z_1) and KL(q(z_1) || N(0, I)) (eq-prior-gap).

    ``1/2 sum_i (alpha_1^2 x_i^2 + softplus(lambda_1) - alpha_1^2)``. The usual form with
    ``- log sigma_1^2 - 1`` cancels to nothing in float32 once alpha_1^2 is small.
    """
    logsnr_1 = expand.formula(logsnr_1, x)
    signal = torch.sigmoid(logsnr_1)
    spread = torch.nn.functional.softplus(logsnr_1) - signal
    return sum_except_batch(0.5 * (signal * x.square() + spread))


def layer_weight(steps: int, logsnr_s: Tensor, logsnr_t: Tensor) -> Tensor:
    """Factor of ``||eps - eps_hat||^2`` when one of T layers is drawn (eq-discrete-loss).

    Without the factor T it is what one layer costs (eq-layer-kl-noise).

    ``T/2 expm1(lambda_s - lambda_t)``, same shape as the levels; ``expm1`` keeps the digits that a
    difference of two exponentials loses.
    """
    return 0.5 * steps * torch.expm1(logsnr_s - logsnr_t)


@checked(mmse=checks.level_function)
def diffusion_from_mmse(
    mmse: Callable[[Tensor], Tensor], schedule: Schedule, steps: int | None = None
) -> Tensor:
    """The diffusion term of a denoiser whose error ``E||x - x_hat||^2`` is known, in nats: ().

    ``mmse`` takes levels ``logsnr`` (N,) to errors (N,). With ``steps`` T, all layers are summed:
    ``sum_i 1/2 (SNR(s) - SNR(t)) mmse(lambda_t)`` (eq-layer-kl). With ``None``, the limit
    ``1/2 integral of SNR mmse dlambda`` between the schedule's ends, by quadrature in float64
    (eq-continuous-logsnr); for the best denoiser it is I(x; z_0) - I(x; z_1) (eq-i-mmse).

    Raises ``ValueError`` for a schedule that does not fall, errors of another shape, ``steps < 1``.
    """
    if steps is None:
        return weighted_from_mmse(mmse, torch.ones_like, schedule)
    require_falling(schedule)
    logsnr_s, logsnr_t = levels(schedule, steps, torch.empty((), dtype=torch.float64, device="cpu"))
    gained = logsnr_t.exp() * torch.expm1(logsnr_s - logsnr_t)
    return 0.5 * (gained * quadrature.values("mmse(logsnr)", mmse, logsnr_t)).sum()


def weighted_from_mmse(
    mmse: Callable[[Tensor], Tensor], weighting: Callable[[Tensor], Tensor], schedule: Schedule
) -> Tensor:
    """The weighted loss of a denoiser whose error is known, in nats: () (eq-weighted-loss).

    Of all denoisers with one gain, the mean of sigma under w has the least (eq-one-gain).

    ``1/2 integral of w SNR E||x - x_hat||^2 dlambda`` between the schedule's ends, by quadrature in
    float64; of the schedule only the ends matter. ``mmse`` and ``weighting`` take levels (N,) to
    numbers (N,). Raises ``ValueError`` for a schedule that does not fall and for other shapes.
    """
    low, high = ends(schedule)
    nodes, weights = quadrature.interval(low, high)
    errors = nodes.exp() * quadrature.values("mmse(logsnr)", mmse, nodes)
    return 0.5 * (weights * quadrature.values("weighting(logsnr)", weighting, nodes) * errors).sum()


def variance_from_moments(
    mmse: Callable[[Tensor], Tensor],
    fourth: Callable[[Tensor], Tensor],
    schedule: Schedule,
    weighting: Callable[[Tensor], Tensor] = torch.ones_like,
) -> Tensor:
    """Variance of the one-sample loss with uniform t, in nats^2: () (eq-estimator-variance).

    With ``mmse`` squared for ``fourth`` it is the part of the times (eq-variance-split).

    ``integral of (1/2 w dlambda/dt)^2 E||eps - eps_hat||^4 dt - L_w^2``, by quadrature in float64.
    ``fourth`` takes levels (N,) to ``E||x - x_hat||^4`` (N,), which SNR^2 turns into that of the
    noise. Raises ``ValueError`` as :func:`weighted_from_mmse` does.
    """
    mean = weighted_from_mmse(mmse, weighting, schedule)
    u, weights = quadrature.interval(0.0, 1.0)
    # t rises from 0 to 1 with u, slowly near both ends, where many schedules are very steep.
    rising, falling = u**3, (1 - u) ** 3
    t = rising / (rising + falling)
    weights = weights * 3 * (u * (1 - u)).square() / (rising + falling).square()
    logsnr, slope = rate(schedule, t)
    factor = 0.5 * quadrature.values("weighting(logsnr)", weighting, logsnr) * slope
    errors = (2 * logsnr).exp() * quadrature.values("fourth(logsnr)", fourth, logsnr)
    return (weights * factor.square() * errors).sum() - mean.square()
