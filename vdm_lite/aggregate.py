r"""The aggregate posterior of N examples, q(z) = 1/N sum_k q(z | x_k): an exact mixture.

It splits the average cost of the latents in two: the information that they carry about the data,
and the mismatch of all of them together with the prior, N(0, I)::

    1/N sum_k KL(q(z | x_k) || N(0, I)) = I_q(x; z) + KL(q(z) || N(0, I))
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.gaussian import Normal, draw


class Split(NamedTuple):
    """The two parts of the average prior cost, in nats, () each.

    The mismatch bounds how much of the prior can lie where q(z) does not go (eq-hole-mass).
    """

    information: Tensor
    """``I_q(x; z)``, between 0 and log N."""
    mismatch: Tensor
    """``KL(q(z) || N(0, I))``."""


class AggregatePosterior:
    """``q(z) = 1/N sum_k N(z; mean_k, diag var_k)`` for posteriors ``q``, (N, units) each.

    It is the prior that costs least (eq-best-prior).

    Raises ``ValueError`` for other shapes and unless the variances are positive.
    """

    def __init__(self, q: Normal) -> None:
        checks.matrix("q.mean", q.mean)
        checks.same_shape("q.var", q.var, q.mean)
        checks.positive("q.var", q.var)
        self.q, self.units = Normal(q.mean.detach(), q.var.detach()), q.mean.shape[1]

    def log_prob(self, z: Tensor) -> Tensor:
        """``log q(z)`` in nats, (B,), for z (B, units) (eq-aggregate)."""
        checks.examples("z", z)
        checks.sizes("z", z, ("B", self.units), f"(B, {self.units})")
        # A few thousand latents at a time: all pairs of a fine grid and a data set are many.
        return torch.cat([self._log_joint(some).logsumexp(1) for some in z.split(4096)])

    def _log_joint(self, z: Tensor) -> Tensor:
        """``log (1/N) q(z | x_k)``: (B, N)."""
        mean, var = self.q
        norm = (2 * math.pi * var).log().sum(1) + 2 * math.log(len(mean))
        for j in range(self.units):  # unit by unit: (B, N, units) would be large
            norm = norm + (z[:, j, None] - mean[:, j]).square() / var[:, j]
        return -0.5 * norm

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` latents, each from the posterior of an example drawn at random: (n, units)."""
        checks.count("n", n)
        mean = self.q.mean
        chosen = torch.randint(len(mean), (n,), generator=generator, device=mean.device)
        return draw.formula(Normal(mean[chosen], self.q.var[chosen]), generator)

    def split(self, points: int = 281, half_width: float = 7.0) -> Split:
        """Information and mismatch (eq-split), by quadrature over one or two units.

        Gaussian data and a linear encoder have a closed form to compare with (eq-linear-split).

        The ``points`` along each axis should lie no farther apart than the narrowest posterior's
        standard deviation. ``ValueError`` for more than two units, and for a grid so coarse or so
        small that the density does not sum to 1 on it within one percent.
        """
        checks.require(self.units <= 2, "units", "at most 2 for quadrature", self.units)
        z, cell = grid(self.units, points, half_width, self.q.mean)
        log_q = self.log_prob(z)
        log_p = -0.5 * (z.square().sum(1) + self.units * math.log(2 * math.pi))
        weight = log_q.exp() * cell
        mass, expected = weight.sum(), "a grid on which q(z) sums to 1"
        checks.every((mass - 1).abs() < 0.01, "points, half_width", expected, mass)
        entropy = 0.5 * (2 * math.pi * math.e * self.q.var).log().sum(1).mean()
        return Split(-(weight * log_q).sum() - entropy, (weight * (log_q - log_p)).sum())


def grid(units: int, points: int, half_width: float, like: Tensor) -> tuple[Tensor, float]:
    """Points (points^units, units) that fill [-half_width, half_width]^units, and a cell's volume.

    A sum over the points, times that volume, is an integral by the trapezoid rule, of anything that
    vanishes at the borders. ``ValueError`` for fewer than two points along an axis.
    """
    checks.count("units", units)
    checks.require(points > 1, "points", "at least 2", points)
    side = torch.linspace(-half_width, half_width, points, dtype=like.dtype, device=like.device)
    everywhere = torch.cartesian_prod(*units * [side]).reshape(-1, units)
    return everywhere, (2 * half_width / (points - 1)) ** units
