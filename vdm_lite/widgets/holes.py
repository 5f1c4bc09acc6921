"""Prior against aggregate posterior: holes, mismatch and inactive units, for chapter 2."""

import math
from typing import Any

import torch
from torch import Tensor

from vdm_lite import data
from vdm_lite.aggregate import AggregatePosterior, Split
from vdm_lite.exact import LinearHierarchy, probabilistic_pca
from vdm_lite.gaussian import Normal
from vdm_lite.widgets.base import Widget, fixed, number


def _toy() -> dict[str, Any]:
    """The centers of chapter 2's five clusters."""
    return {"centers": data.five_clusters().means.tolist()}


class Holes(Widget):
    r"""The best linear VAE for five clusters, at any beta: what its prior and its encoder share.

    ::

        x = W z + s eps,   l_i^2 = max(c_i - beta s^2, 0)                 (eq-ppca, eq-beta-noise)
        prior cost = information + mismatch                               (eq-split)
        hole: p(z) > factor q(z),   q(z) = 1/5 sum of five Gaussians      (eq-aggregate)

    c_1 and c_2 are the variances of the data along the axes; unit i is active if
    c_i > beta s^2. Costs are in nats, of infinitely many examples. *Between the clusters* is a
    sample more than four widths from every center. Chapter 2.
    """

    module = "holes"
    title = "Where the prior goes and the encoder does not"
    beta = number(1.0, 0.1, 100.0, label="β", log=True)
    s = number(0.1, 0.05, 0.5, label="noise s of the decoder", log=True)
    width = number(0.1, 0.05, 0.2, step=0.005, label="width of a cluster")
    factor = number(10.0, 2.0, 100.0, label="hole: prior denser by the factor", log=True)
    toy = fixed(_toy)

    def model(self) -> LinearHierarchy:
        """The linear VAE of least cost, with the noise ``sqrt(beta) s`` that beta stands for."""
        variances = self._centers().square().mean(0) + self.width**2
        best = probabilistic_pca(torch.diag(variances), 2, math.sqrt(self.beta) * self.s)
        # The sign of a principal axis is free: unit i rises with x_i.
        return LinearHierarchy([best.weights[0].abs()], best.stds)

    def aggregate(self) -> AggregatePosterior:
        """The aggregate posterior q(z): one Gaussian for each cluster."""
        q = self.model().posterior(self._centers())
        each = self.model().posterior(self.width * torch.eye(2, dtype=torch.float64))
        return AggregatePosterior(Normal(q.mean, q.variance + each.mean.square().sum(0)))

    def split(self) -> Split:
        """Information and mismatch, in nats."""
        q = self.aggregate()
        noise = self.model().posterior(self._centers()).variance
        of_clusters, mismatch = q.split()
        return Split(of_clusters + 0.5 * (q.q.var / noise).log().sum(1).mean(), mismatch)

    def _centers(self) -> Tensor:
        return torch.tensor(self.toy["centers"], dtype=torch.float64)
