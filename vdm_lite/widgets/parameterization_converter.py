"""Six outputs of one denoiser, and how an error in one of them becomes an error in another."""

from typing import Any

import torch
from torch import Tensor

from vdm_lite import parameterization
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.parameterization import (
    FLOW,
    IMAGE,
    NOISE,
    SCORE,
    VELOCITY,
    Parameterization,
    Prediction,
    solve,
    target,
)
from vdm_lite.widgets.base import Widget, choice, fixed, number

POINTWISE = {p.name: p for p in (IMAGE, NOISE, SCORE, VELOCITY, FLOW)}


def _toy() -> dict[str, Any]:
    columns = TWO_BUMPS.weights, TWO_BUMPS.means.squeeze(1), TWO_BUMPS.stds
    return dict(zip(("weights", "means", "stds"), (c.tolist() for c in columns), strict=True))


class ParameterizationConverter(Widget):
    r"""One denoiser, six outputs: type or drag any of them and see the others.

    ::

        y = a x + b eps,  z = alpha x + sigma eps                     (eq-output)
        x = (b z - sigma y) / D,  eps = (alpha y - a z) / D           (eq-solve)
        D = alpha b - sigma a                                         (eq-determinant)

    The data are the two bumps, so that the exact answer is known. The network's answer is the
    exact one plus ``error`` deviations of its target, ``sqrt(a^2 std^2 + b^2)``, in the one
    ``output``; what it says of the others follows. Factors and map show by how much each output's
    relative error is amplified in the image or in the noise, ``unit`` (eq-amplification). ``std``
    is the deviation of the data that those scales and the output ``edm`` assume. The energy is in
    nats. Chapter 8.
    """

    module = "parameterization_converter"
    title = "One denoiser, six outputs: what becomes of an error?"
    logsnr = number(0.0, -8.0, 10.0, step=0.1, label="log SNR λ")
    latent = number(0.5, -3.0, 3.0, step=0.01, label="latent z")
    output = choice("noise", [*POINTWISE, "edm"], label="the network gives")
    error = number(0.1, -5.0, 5.0, step=0.01, label="its error, in deviations of the target")
    std = number(1.0, 0.1, 2.0, step=0.01, label="deviation of the data", log=True)
    unit = choice("image", ["image", "noise"], label="amplified in")
    toy = fixed(_toy)

    def parameterization(self) -> Parameterization:
        """The row (a, b) of the chosen output."""
        return POINTWISE.get(self.output) or parameterization.edm(self.std)

    def exact(self) -> Prediction:
        """The best denoiser's answer at the latent, x and eps of shape (1, 1)."""
        z, level = self._place()
        return solve(IMAGE, TWO_BUMPS.denoise(z, level), z, level)

    def prediction(self) -> Prediction:
        """The network's answer at the latent, x and eps of shape (1, 1)."""
        (z, level), p, best = self._place(), self.parameterization(), self.exact()
        deviation = ((p.a(level) * self.std) ** 2 + p.b(level) ** 2).sqrt()
        answer = target(p, best.x, best.eps, level) + self.error * deviation
        return solve(p, answer, z, level)

    def _place(self) -> tuple[Tensor, Tensor]:
        """The latent (1, 1) and its level ()."""
        z = torch.tensor([[self.latent]], dtype=torch.float64)
        return z, torch.tensor(self.logsnr, dtype=torch.float64)
