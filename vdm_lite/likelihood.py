r"""How data come out of the least noisy latent: p(x | z_0), and how data are scaled for z.

A likelihood has ``encode(data) -> x``, ``decode(x) -> data`` and
``log_prob(data, z_0, logsnr_0) -> (B,)`` in nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.gaussian import alpha, expand, sum_except_batch

LARGEST = 1e4
"""Continuous data are to be numbers of order one.

Beside 1e4 float32 has steps of 1e-3 and cannot hold the least noise of the default schedule,
sigma_0 = 1.3e-3; and at its other end alpha_1 x = 818 is no N(0, 1), where sampling starts.
"""


@dataclass(frozen=True)
class Gaussian:
    """Continuous data: ``p(x | z_0) = N(z_0 / alpha_0, I / SNR_0)``, the scaled q(z_0 | x)."""

    def encode(self, data: Tensor) -> Tensor:
        """Continuous data are used as they are, (B, ...), floating point."""
        checks.examples("data", data)
        checks.at_most("data", data, LARGEST)
        return data

    def decode(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def log_prob(self, data: Tensor, z_0: Tensor, logsnr_0: Tensor) -> Tensor:
        """``sum_i 1/2 (lambda_0 - log 2pi - SNR_0 (x_i - z_i / alpha_0)^2)`` nats: (B,).

        Minus its mean over q(z_0 | x) is ``D/2 (1 + log 2pi - lambda_0)``
        (eq-reconstruction-gaussian).
        """
        x = self.encode(data)
        checks.shaped_as("z_0", z_0, x)
        checks.levels("logsnr_0", logsnr_0, x)
        level = expand.formula(logsnr_0, x)
        distance = (x - z_0 / alpha.formula(level)).square()
        return sum_except_batch(0.5 * (level - math.log(2 * math.pi) - level.exp() * distance))


@dataclass(frozen=True)
class Discretized:
    """Integer data 0 … levels-1 on an even grid: ``enc(k) = 2 (k + 1/2) / levels - 1``.

    ``p(x_i = k | z_0)`` is the softmax over k of ``-SNR_0 (z_0i / alpha_0 - enc(k))^2 / 2``:
    exact Bayes for an even prior over levels (Kingma et al. 2021).
    """

    levels: int = 256

    def __post_init__(self) -> None:
        checks.grid("levels", self.levels)

    def encode(self, data: Tensor) -> Tensor:
        """Levels to numbers in (-1, 1), in the default dtype, same shape.

        Any dtype will do that holds whole numbers; ``ValueError`` for fractions or levels outside.
        """
        checks.whole_levels("data", data, self.levels)
        return place(data, self.levels, torch.get_default_dtype())

    def decode(self, x: Tensor) -> Tensor:
        """The nearest level of each number, as int64, same shape."""
        checks.floating("x", x)
        return ((x + 1) * self.levels / 2 - 0.5).round().clamp(0, self.levels - 1).long()

    def log_prob(self, data: Tensor, z_0: Tensor, logsnr_0: Tensor) -> Tensor:
        """Log-probability of all levels of each example, in nats: (B,).

        Each number's is a log-softmax over the levels (eq-reconstruction-discrete).
        """
        checks.whole_levels("data", data, self.levels)
        checks.shaped_as("z_0", z_0, data)
        checks.levels("logsnr_0", logsnr_0, data)
        grid = place(torch.arange(self.levels, device=z_0.device), self.levels, z_0.dtype)
        distance = (z_0 / expand.formula(alpha.formula(logsnr_0), z_0)).unsqueeze(-1) - grid
        logits = -0.5 * expand.formula(logsnr_0, distance).exp() * distance.square()
        log_p = logits.log_softmax(-1).gather(-1, data.long().unsqueeze(-1))
        return sum_except_batch(log_p)


def place(data: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """``enc(k) = 2 (k + 1/2) / levels - 1`` of each level k, in this dtype, same shape."""
    return (2 * data.to(dtype) + 1) / levels - 1
