r"""What the network predicts: a row ``(a, b)`` that says ``y = a x + b eps``.

Together with z = alpha x + sigma eps, a row makes a 2x2 system. Its determinant::

    determinant = alpha b - sigma a

turns any output into any other (``solve``) and any error into any other (eq-error-ratio)::

    ||y - y_hat||^2 = (determinant / alpha)^2 ||eps - eps_hat||^2
                    = (determinant / sigma)^2 ||x - x_hat||^2
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.checks import checked, examples, floating, levels, shaped_as
from vdm_lite.gaussian import alpha, expand, sigma


@dataclass(frozen=True)
class Parameterization:
    """An output ``y = a(logsnr) x + b(logsnr) eps``; a, b take () or (B,) (eq-output)."""

    name: str
    a: Callable[[Tensor], Tensor]
    b: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        checks.function("a", self.a, "logsnr -> a")
        checks.function("b", self.b, "logsnr -> b")

    def at(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """``(a, b)`` at levels () or (B,), each of their shape or (); ``ValueError`` if not."""
        a, b = self.a(logsnr), self.b(logsnr)
        checks.aligned("a(logsnr)", a, logsnr)
        checks.aligned("b(logsnr)", b, logsnr)
        return a, b

    def output(
        self, denoiser: Callable[[Tensor, Tensor], Tensor], z: Tensor, logsnr: Tensor
    ) -> Tensor:
        """Run the network: ``y_hat`` with the shape of ``z``, finite; ``ValueError`` if not."""
        y = denoiser(z, logsnr)
        checks.answer("denoiser(z, logsnr)", y, z)
        return y.to(z.dtype)


class _Energy(Parameterization):
    """The network returns one energy per example, (B,); y is the score -dE/dz (eq-energy)."""

    def output(
        self, denoiser: Callable[[Tensor, Tensor], Tensor], z: Tensor, logsnr: Tensor
    ) -> Tensor:
        keep_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            z, logsnr = _differentiable(z), _differentiable(logsnr)
            z = z if z.requires_grad else z.detach().requires_grad_()
            energy = denoiser(z, logsnr)
            checks.answer("denoiser(z, logsnr)", energy, z.reshape(len(z), -1)[:, 0])
            depends = energy.requires_grad
            checks.require(depends, "denoiser(z, logsnr)", "energies that depend on z", "others")
            (gradient,) = torch.autograd.grad(energy.sum(), z, create_graph=keep_graph)
        return -gradient.to(z.dtype)


def _differentiable(value: Tensor) -> Tensor:
    """A tensor made under ``torch.inference_mode`` as one that autograd can work with."""
    return value.clone() if value.is_inference() else value


def _minus_one(logsnr: Tensor) -> Tensor:
    return -torch.ones_like(logsnr)


def _alpha(logsnr: Tensor) -> Tensor:
    return alpha.formula(logsnr)


def _minus_sigma(logsnr: Tensor) -> Tensor:
    return -sigma.formula(logsnr)


def _per_noise(logsnr: Tensor) -> Tensor:
    return -1 / sigma.formula(logsnr)


IMAGE = Parameterization("image", torch.ones_like, torch.zeros_like)
"""y is x."""
NOISE = Parameterization("noise", torch.zeros_like, torch.ones_like)
"""y is eps."""
SCORE = Parameterization("score", torch.zeros_like, _per_noise)
"""y is ``-eps / sigma``."""
ENERGY = _Energy("energy", SCORE.a, SCORE.b)
"""One number an example, whose negative gradient is the score (eq-energy)."""
VELOCITY = Parameterization("velocity", _minus_sigma, _alpha)
"""y is ``alpha eps - sigma x``."""
FLOW = Parameterization("flow", _minus_one, torch.ones_like)
"""y is ``eps - x``."""


@checked(data_std=checks.positive_number)
def edm(data_std: float = 0.5) -> Parameterization:
    """The raw output F of Karras et al. (2022), whose target has unit variance (eq-edm-row).

    For this book's latent the coefficients are those of (eq-edm-coefficients).

    ``F = (x - c_skip (x + eps / sqrt(SNR))) / c_out`` for data of standard deviation ``data_std``,
    with ``c_skip = d^2 / (1/SNR + d^2)`` and ``c_out^2 = d^2 / (1 + d^2 SNR)``. Raises
    ``ValueError`` unless ``data_std`` is positive.
    """
    std = float(data_std)
    return Parameterization("edm", partial(_edm_a, data_std=std), partial(_edm_b, data_std=std))


def _edm_a(logsnr: Tensor, data_std: float) -> Tensor:
    """``(1 - c_skip) / c_out = c_out / data_std^2``, which keeps all digits."""
    return _c_out(logsnr, data_std) / data_std**2


def _edm_b(logsnr: Tensor, data_std: float) -> Tensor:
    c_skip = torch.sigmoid(logsnr + 2 * math.log(data_std))
    return -c_skip * torch.exp(-logsnr / 2) / _c_out(logsnr, data_std)


def _c_out(logsnr: Tensor, data_std: float) -> Tensor:
    return data_std * torch.sigmoid(-logsnr - 2 * math.log(data_std)).sqrt()


class Prediction(NamedTuple):
    """Clean data ``x`` and noise ``eps`` (B, ...) that together explain z at level ``logsnr``."""

    x: Tensor
    eps: Tensor
    logsnr: Tensor

    @property
    def score(self) -> Tensor:
        """``-eps / sigma``, an estimate of the gradient of log q(z_t) (eq-tweedie).

        The best ``eps`` is -sigma times that gradient (eq-noise-score).
        """
        return target(SCORE, self.x, self.eps, self.logsnr)

    @property
    def velocity(self) -> Tensor:
        """``alpha eps - sigma x``."""
        return target(VELOCITY, self.x, self.eps, self.logsnr)

    @property
    def flow(self) -> Tensor:
        """``eps - x``.

        ``(alpha + sigma) velocity + (sigma - alpha) z`` (eq-flow-velocity).
        """
        return target(FLOW, self.x, self.eps, self.logsnr)


def check_row(argument: str, value: Parameterization) -> None:
    """Require a :class:`Parameterization`."""
    checks.instance(argument, value, Parameterization, "a Parameterization such as NOISE")


@checked(p=check_row, x=examples, eps=(shaped_as, "x"), logsnr=(levels, "x"))
def target(p: Parameterization, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
    """What the network should say: ``y = a x + b eps``, with the shape of ``x`` (B, ...)."""
    a, b = (expand.formula(value, x) for value in p.at(logsnr))
    return a * x + b * eps


@checked(p=check_row, logsnr=floating)
def determinant(p: Parameterization, logsnr: Tensor) -> Tensor:
    """``alpha b - sigma a``, same shape as ``logsnr``; zero would be ambiguous (eq-determinant).

    Over alpha it is the error of y for that of eps, over sigma that for x (eq-error-ratio).
    """
    return alpha.formula(logsnr) * p.b(logsnr) - sigma.formula(logsnr) * p.a(logsnr)


@checked(p=check_row, z=examples, y=(shaped_as, "z"), logsnr=(levels, "z"))
def solve(p: Parameterization, y: Tensor, z: Tensor, logsnr: Tensor) -> Prediction:
    """Solve ``y = a x + b eps`` and ``z = alpha x + sigma eps`` for x and eps (eq-solve).

    For x this is a skip connection and a gain (eq-skip).

    ``x = (b z - sigma y) / determinant``, ``eps = (alpha y - a z) / determinant``. ``y`` and ``z``
    have shape (B, ...), ``logsnr`` () or (B,). Raises ``ValueError`` for other shapes or integers.
    """
    a, b = p.at(logsnr)
    scale = determinant.formula(p, logsnr)
    system = a, b, alpha.formula(logsnr), sigma.formula(logsnr)
    a, b, alpha_t, sigma_t = (expand.formula(value / scale, z) for value in system)
    return Prediction(b * z - sigma_t * y, alpha_t * y - a * z, logsnr)
