r"""What a weight means: the weighted loss as a bound on noise-augmented data (Kingma & Gao 2023).

For L(lambda_t; x) = KL(q(z_t..z_1 | x) || p(z_t..z_1)), the cost of all levels noisier than
lambda_t (with the prior's), integration by parts gives (eq-by-parts)::

    L_w = integral of dw/dt L(lambda_t; x) dt
          + w(lambda_max) L(lambda_max; x) - w(lambda_min) L(lambda_min; x)

If w falls with lambda, the first two terms are ``w(lambda_min)`` times an expectation: t is drawn
from a distribution with density dw/dt and a point mass at t = 0. Otherwise the mixture is signed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vdm_lite import checks, quadrature
from vdm_lite.weighting import Weighting


class Augmentation:
    """The (signed) distribution over noise levels that a weight stands for (eq-augmentation).

    Unnormalized: density ``-dw/dlambda`` on [logsnr_min, logsnr_max] and the point mass ``clean``
    at logsnr_max; ``total`` is their sum, w(logsnr_min). Divide by it for probabilities.

    Raises ``ValueError`` for end points out of order, and for a weight that is negative or not
    finite anywhere between them.
    """

    def __init__(
        self, weighting: Weighting, logsnr_max: float = 13.3, logsnr_min: float = -5.0
    ) -> None:
        checks.ends(logsnr_max, logsnr_min)
        checks.weighting("weighting", weighting)
        self.weighting = weighting
        self.logsnr_max, self.logsnr_min = logsnr_max, logsnr_min
        edges = torch.linspace(logsnr_min, logsnr_max, 8193, dtype=torch.float64, device="cpu")
        w = weighting(edges)
        checks.weights("weighting(logsnr)", w, edges)
        self.clean, self.total = w[-1].item(), w[0].item()
        # Middles of 8192 pieces of the range, and how far w falls over each: differences of w, not
        # its derivative, which jumps where a weight such as min-SNR has a kink.
        self._middles, self._falls = (edges[1:] + edges[:-1]) / 2, w[:-1] - w[1:]

    def density(self, logsnr: Tensor) -> Tensor:
        """``-dw/dlambda`` at levels (N,), negative where the weight rises."""
        ones = torch.ones_like(logsnr)
        _, slope = torch.func.jvp(self.weighting, (logsnr,), (ones,))  # type: ignore[misc]
        return -slope

    def masses(self) -> tuple[float, float]:
        """Integrals of the density, where it is positive and where it is not (eq-signed-masses)."""
        return self._falls.clamp(min=0).sum().item(), self._falls.clamp(max=0).sum().item()

    def expected(self, cost: Callable[[Tensor], Tensor]) -> Tensor:
        """``integral of density * cost dlambda + clean * cost(logsnr_max)``, in nats: ().

        With the entropy of the noise added, L bounds the code length of noised data
        (eq-noised-bound), by as much as the top misses the prior (eq-noised-gap); so this bounds
        that of augmented data (eq-augmented-elbo).

        ``cost`` takes levels (N,) to L(lambda; x) (N,). For a falling weight this is ``total``
        times the expected cost of data noised to a random level.
        """
        spread = (self._falls * quadrature.values("cost(logsnr)", cost, self._middles)).sum()
        return spread + self.clean * _at(cost, self.logsnr_max)

    def weighted_loss(self, cost: Callable[[Tensor], Tensor]) -> Tensor:
        """``expected(cost) - total * cost(logsnr_min)``, the weighted loss (eq-by-parts): ()."""
        return self.expected(cost) - self.total * _at(cost, self.logsnr_min)


def _at(cost: Callable[[Tensor], Tensor], logsnr: float) -> Tensor:
    level = torch.tensor([logsnr], dtype=torch.float64, device="cpu")
    return quadrature.values("cost(logsnr)", cost, level).squeeze()
