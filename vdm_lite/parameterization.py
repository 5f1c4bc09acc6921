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
from vdm_lite.gaussian import alpha, expand, sigma


@dataclass(frozen=True)
class Parameterization:
    """An output ``y = a(logsnr) x + b(logsnr) eps``; a, b take () or (B,) (eq-output)."""

    name: str
    a: Callable[[Tensor], Tensor]
    b: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            checks.function(name, getattr(self, name), f"logsnr -> {name}")

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


def _minus_sigma(logsnr: Tensor) -> Tensor:
    return -sigma(logsnr)


def _per_noise(logsnr: Tensor) -> Tensor:
    return -1 / sigma(logsnr)


IMAGE = Parameterization("image", torch.ones_like, torch.zeros_like)
NOISE = Parameterization("noise", torch.zeros_like, torch.ones_like)
SCORE = Parameterization("score", torch.zeros_like, _per_noise)
ENERGY = _Energy("energy", SCORE.a, SCORE.b)
VELOCITY = Parameterization("velocity", _minus_sigma, alpha)
FLOW = Parameterization("flow", _minus_one, torch.ones_like)


def edm(data_std: float = 0.5) -> Parameterization:
    """The raw output F of Karras et al. (2022), whose target has unit variance (eq-edm-row).

    ``F = (x - c_skip (x + eps / sqrt(SNR))) / c_out`` for data of standard deviation ``data_std``,
    with ``c_skip = d^2 / (1/SNR + d^2)`` and ``c_out^2 = d^2 / (1 + d^2 SNR)``. Raises
    ``ValueError`` unless ``data_std`` is positive.
    """
    checks.positive_number("data_std", data_std)
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
        """``-eps / sigma``, an estimate of the gradient of log q(z_t) (eq-tweedie)."""
        return target(SCORE, self.x, self.eps, self.logsnr)

    @property
    def velocity(self) -> Tensor:
        """``alpha eps - sigma x``."""
        return target(VELOCITY, self.x, self.eps, self.logsnr)

    @property
    def flow(self) -> Tensor:
        """``eps - x``."""
        return target(FLOW, self.x, self.eps, self.logsnr)


def require_row(p: Parameterization, argument: str = "p") -> None:
    """Raise ``ValueError`` unless ``p`` is a :class:`Parameterization`."""
    is_row = isinstance(p, Parameterization)
    checks.require(is_row, argument, "a Parameterization such as NOISE", checks.described(p))


def target(p: Parameterization, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
    """What the network should say: ``y = a x + b eps``, with the shape of ``x`` (B, ...)."""
    require_row(p)
    checks.examples("x", x)
    checks.floating("eps", eps)
    checks.same_shape("eps", eps, x)
    checks.floating("logsnr", logsnr)
    return expand(p.a(logsnr), x, "a(logsnr)") * x + expand(p.b(logsnr), x, "b(logsnr)") * eps


def determinant(p: Parameterization, logsnr: Tensor) -> Tensor:
    """``alpha b - sigma a``, same shape as ``logsnr``; zero would be ambiguous (eq-determinant)."""
    require_row(p)
    return alpha(logsnr) * p.b(logsnr) - sigma(logsnr) * p.a(logsnr)


def solve(p: Parameterization, y: Tensor, z: Tensor, logsnr: Tensor) -> Prediction:
    """Solve ``y = a x + b eps`` and ``z = alpha x + sigma eps`` for x and eps (eq-solve).

    ``x = (b z - sigma y) / determinant``, ``eps = (alpha y - a z) / determinant``. ``y`` and ``z``
    have shape (B, ...), ``logsnr`` () or (B,). Raises ``ValueError`` for other shapes or integers.
    """
    require_row(p)
    checks.floating("y", y)
    checks.examples("z", z)
    checks.same_shape("y", y, z)
    scale = determinant(p, logsnr)
    x = expand(p.b(logsnr) / scale, z) * z - expand(sigma(logsnr) / scale, z) * y
    eps = expand(alpha(logsnr) / scale, z) * y - expand(p.a(logsnr) / scale, z) * z
    return Prediction(x, eps, logsnr)
