r"""Weights ``w(logsnr)`` of the diffusion loss, each known up to a constant factor.

A weighted loss is ``1/2 * integral of w(lambda) E||eps - eps_hat||^2 dlambda``. The likelihood
bound has w = 1; every published recipe is some other w, which these functions name.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]

EDM_PEAK = -3.307778  # where the EDM weight is largest; see the test for its derivation


def elbo(logsnr: Tensor) -> Tensor:
    """``1``: the loss is the diffusion term of the ELBO (Kingma et al. 2021)."""
    return torch.ones_like(logsnr)


def noise_cosine(logsnr: Tensor) -> Tensor:
    """``sech(lambda / 2)``: plain noise error, cosine schedule (Nichol & Dhariwal 2021)."""
    return 1 / torch.cosh(logsnr / 2)


def velocity_cosine(logsnr: Tensor) -> Tensor:
    """``exp(-lambda / 2)``: plain velocity error, cosine schedule (Salimans & Ho 2022)."""
    return torch.exp(-logsnr / 2)


def flow_matching(logsnr: Tensor) -> Tensor:
    """``exp(-lambda / 2)``: plain flow error, uniform time on the straight path."""
    return torch.exp(-logsnr / 2)


def indi(logsnr: Tensor) -> Tensor:
    """``exp(-lambda) sech^2(lambda / 4)``: inversion by direct iteration."""
    return torch.exp(-logsnr) / torch.cosh(logsnr / 4).square()


def edm(logsnr: Tensor) -> Tensor:
    """``N(lambda; 2.4, 2.4^2) (exp(-lambda) + 1/4)`` up to scale (Karras et al. 2022)."""
    return torch.exp(-0.5 * ((logsnr - 2.4) / 2.4).square()) * (torch.exp(-logsnr) + 0.25)


def edm_monotonic(logsnr: Tensor) -> Tensor:
    """The EDM weight, held at its maximum below its peak (Kingma & Gao 2023)."""
    return edm(logsnr.clamp(min=EDM_PEAK))


def p2(gamma: float = 1.0) -> Weighting:
    """``sech(lambda / 2) / (1 + exp(lambda))^gamma``: P2 weighting, cosine schedule."""
    return lambda logsnr: noise_cosine(logsnr) * torch.sigmoid(-logsnr) ** gamma


def min_snr(gamma: float = 5.0) -> Weighting:
    """``sech(lambda / 2) min(1, gamma exp(-lambda))``: min-SNR weighting, cosine schedule."""
    return lambda logsnr: noise_cosine(logsnr) * (gamma * torch.exp(-logsnr)).clamp(max=1)


def sigmoid(bias: float = 2.0) -> Weighting:
    """``sigmoid(bias - lambda)`` (Kingma & Gao 2023)."""
    return lambda logsnr: torch.sigmoid(bias - logsnr)
