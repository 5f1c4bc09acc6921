r"""Weights ``w(logsnr)`` of the diffusion loss, each known up to a constant factor.

A weighted loss is ``1/2 * integral of w(lambda) E||eps - eps_hat||^2 dlambda``. The likelihood
bound has w = 1; most published recipes have another w, and these functions name the best known.
``implied`` derives the weight of any recipe, and ``RECIPES`` holds the eleven of the book.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.checks import checked, finite_number, positive_number
from vdm_lite.gaussian import alpha
from vdm_lite.parameterization import (
    FLOW,
    IMAGE,
    NOISE,
    VELOCITY,
    Parameterization,
    check_row,
    determinant,
)
from vdm_lite.parameterization import edm as edm_output
from vdm_lite.schedules import (
    EDM,
    Cosine,
    FlowMatching,
    Linear,
    LogitNormal,
    Schedule,
    density,
)

Weighting = Callable[[Tensor], Tensor]

EDM_PEAK = -3.307778  # where the EDM weight is largest; see the test for its derivation


def elbo(logsnr: Tensor) -> Tensor:
    """``1``: the loss is the diffusion term of the ELBO (Kingma et al. 2021)."""
    return torch.ones_like(logsnr)


def noise_cosine(logsnr: Tensor) -> Tensor:
    """``sech(lambda / 2)``: plain noise error, cosine schedule (Nichol & Dhariwal 2021).

    Equation (eq-weight-noise).
    """
    return 1 / torch.cosh(logsnr / 2)


def velocity_cosine(logsnr: Tensor) -> Tensor:
    """``exp(-lambda / 2)``: plain velocity error, cosine schedule (Salimans & Ho 2022).

    Equation (eq-weight-velocity).
    """
    return torch.exp(-logsnr / 2)


def flow_matching(logsnr: Tensor) -> Tensor:
    """``exp(-lambda / 2)``: plain flow error, uniform time on the straight path.

    Equation (eq-weight-flow).
    """
    return torch.exp(-logsnr / 2)


@checked(mean=finite_number, std=positive_number)
def logit_normal(mean: float = 0.0, std: float = 1.0) -> Weighting:
    """``N(lambda; -2 mean, (2 std)^2) (1 + exp(-lambda / 2))^2`` up to scale (Esser et al. 2024).

    The weight is (eq-weight-logit-normal).

    Plain flow error at places ``r = sigmoid(N(mean, std^2))`` of the straight path. Raises
    ``ValueError`` unless the mean is finite and the deviation positive.
    """
    return partial(_logit_normal, mean=mean, std=std)


# What a factory returns is a function of this module with its numbers: it can be pickled.


def _logit_normal(logsnr: Tensor, mean: float, std: float) -> Tensor:
    deviation = (logsnr / 2 + mean) / std
    return torch.exp(-0.5 * deviation.square()) * (1 + torch.exp(-logsnr / 2)).square()


def indi(logsnr: Tensor) -> Tensor:
    """``exp(-lambda) sech^2(lambda / 4)``: inversion by direct iteration (eq-weight-indi)."""
    return torch.exp(-logsnr) / torch.cosh(logsnr / 4).square()


def edm(logsnr: Tensor) -> Tensor:
    """``N(lambda; 2.4, 2.4^2) (exp(-lambda) + 1/4)`` up to scale (Karras et al. 2022).

    The weight is (eq-weight-edm).
    """
    return torch.exp(-0.5 * ((logsnr - 2.4) / 2.4).square()) * (torch.exp(-logsnr) + 0.25)


def edm_monotonic(logsnr: Tensor) -> Tensor:
    """The EDM weight, held at its maximum below its peak (Kingma & Gao 2023).

    Equation (eq-weight-edm-monotonic).
    """
    return edm(logsnr.clamp(min=EDM_PEAK))


@checked(gamma=finite_number)
def p2(gamma: float = 1.0) -> Weighting:
    """``sech(lambda / 2) / (1 + exp(lambda))^gamma``: the factor P2 of Choi et al. (2022), cosine.

    The weight is (eq-weight-p2).

    So Kingma & Gao (2023) list it. Choi et al.'s own code draws the levels of linear betas: that
    weight is ``implied(BetaLinear(), NOISE, explicit)`` with P2's factor as ``explicit``.
    """
    return partial(_p2, gamma=gamma)


def _p2(logsnr: Tensor, gamma: float) -> Tensor:
    return noise_cosine(logsnr) * torch.sigmoid(-logsnr) ** gamma


@checked(gamma=positive_number)
def min_snr(gamma: float = 5.0) -> Weighting:
    """``sech(lambda / 2) min(1, gamma exp(-lambda))``: min-SNR weighting, cosine schedule.

    The weight is (eq-weight-min-snr).
    """
    return partial(_min_snr, gamma=gamma)


def _min_snr(logsnr: Tensor, gamma: float) -> Tensor:
    return noise_cosine(logsnr) * _clipped_snr(logsnr, gamma)


def _clipped_snr(logsnr: Tensor, gamma: float) -> Tensor:
    """``min(SNR, gamma) / SNR``."""
    return (gamma * torch.exp(-logsnr)).clamp(max=1)


@checked(bias=finite_number)
def sigmoid(bias: float = 2.0) -> Weighting:
    """``sigmoid(bias - lambda)`` (Kingma & Gao 2023)."""
    return partial(_sigmoid, bias=bias)


def _sigmoid(logsnr: Tensor, bias: float) -> Tensor:
    return torch.sigmoid(bias - logsnr)


@checked(schedule=checks.schedule, parameterization=check_row, explicit=checks.weighting)
def implied(
    schedule: Schedule, parameterization: Parameterization, explicit: Weighting
) -> Weighting:
    """The weight that a recipe comes to, up to a constant factor (eq-implied-weight).

    A recipe draws t uniformly on ``schedule`` and minimizes ``explicit(lambda) ||y - y_hat||^2``
    for the output y of ``parameterization``:
    ``w = p(lambda) explicit(lambda) (determinant / alpha)^2``, between the schedule's end points.
    """
    return partial(_implied, recipe=(schedule, parameterization, explicit))


def _implied(logsnr: Tensor, recipe: tuple[Schedule, Parameterization, Weighting]) -> Tensor:
    schedule, parameterization, explicit = recipe
    ratio = (determinant(parameterization, logsnr) / alpha(logsnr)).square()
    return density(schedule, logsnr) * explicit(logsnr) * ratio


def _monotonic_by_edm(logsnr: Tensor) -> Tensor:
    return edm_monotonic(logsnr) / edm(logsnr)


class Recipe(NamedTuple):
    """A known loss, and the weight that it implies.

    The loss is what is drawn, in which output the error is measured, and with which factor.
    """

    schedule: Schedule
    parameterization: Parameterization
    explicit: Weighting
    weight: Weighting
    """The implied weight in closed form, up to a constant factor."""

    def implied(self) -> Weighting:
        """The implied weight by :func:`implied`, to compare with the closed form."""
        return implied(self.schedule, self.parameterization, self.explicit)


RECIPES = {
    "ELBO": Recipe(Linear(), NOISE, elbo, elbo),
    "noise, cosine": Recipe(Cosine(), NOISE, elbo, noise_cosine),
    "velocity, cosine": Recipe(Cosine(), VELOCITY, elbo, velocity_cosine),
    "flow-matching": Recipe(FlowMatching(), FLOW, elbo, flow_matching),
    "logit-normal": Recipe(LogitNormal(), FLOW, elbo, logit_normal()),
    "InDI": Recipe(FlowMatching(), IMAGE, elbo, indi),
    "EDM": Recipe(EDM(), edm_output(), elbo, edm),
    "EDM-monotonic": Recipe(EDM(), edm_output(), _monotonic_by_edm, edm_monotonic),
    "P2, cosine": Recipe(Cosine(), NOISE, sigmoid(0.0), p2()),
    "min-SNR": Recipe(Cosine(), NOISE, partial(_clipped_snr, gamma=5.0), min_snr()),
    "sigmoid": Recipe(Linear(), NOISE, sigmoid(), sigmoid()),
}


@checked(weighting=checks.weighting)
def is_monotone(weighting: Weighting, logsnr_max: float = 13.3, logsnr_min: float = -5.0) -> bool:
    """Whether the weight never rises (eq-monotone), on a grid of 4097 levels between the ends.

    A rise below 1e-12 of the largest weight counts as rounding. Raises ``ValueError`` for end
    points out of order, and for a weight that is negative or not finite.
    """
    checks.ends(logsnr_max, logsnr_min)
    logsnr = torch.linspace(logsnr_min, logsnr_max, 4097, dtype=torch.float64, device="cpu")
    w = weighting(logsnr)
    checks.weights("weighting(logsnr)", w, logsnr)
    return bool((w.diff() <= 1e-12 * w.max()).all())
