"""The diffusion cost of chapter 6 as an area: rectangles under an error curve, for any depth."""

import math
from typing import Any

import torch
from torch import Tensor

from vdm_lite import exact, quadrature, schedules
from vdm_lite.widgets.base import Widget, choice, fixed, number, whole

VARIANCE, BELIEF = 2.5, 3.0  # of the Gaussian data; where the wrong denoiser believes x to be
TOYS = {
    "Gaussian": exact.Gaussian(torch.zeros(1, dtype=torch.float64), math.sqrt(VARIANCE)),
    "two bumps": exact.TWO_BUMPS,
    "8 levels": exact.EIGHT_LEVELS,
}
WRONG = "Gaussian, wrong denoiser"
PATHS = ("linear", "cosine", "flow-matching")


def _mixtures() -> dict[str, Any]:
    names = ("weights", "means", "stds")
    return {
        toy: {name: getattr(mixture, name).flatten().tolist() for name in names}
        for toy, mixture in TOYS.items()
    }


def wrong_error(logsnr: Tensor) -> Tensor:
    """Squared error of a denoiser that believes in x = -3 or 3 alone, on N(0, 2.5) data: (N,).

    Its estimate is ``3 tanh(3 alpha z / sigma^2)``. The excess over the mmse is integrated over
    ``log |z|``: at a clear signal the estimate jumps where z changes its sign.
    """
    snr = logsnr.double().exp().unsqueeze(-1)
    spread = (1 + VARIANCE * snr).sqrt()  # of z / sigma
    size, weights = quadrature.interval(math.log(1e-6), math.log(9.0), 16)
    n = size.exp()  # |z| in units of its standard deviation
    density = math.sqrt(2 / math.pi) * (-0.5 * n.square()).exp() * n
    best = VARIANCE * snr.sqrt() / spread * n
    wrong = BELIEF * torch.tanh(BELIEF * snr.sqrt() * spread * n)
    return TOYS["Gaussian"].mmse(logsnr) + (wrong - best).square() @ (weights * density)


class InfiniteDepth(Widget):
    r"""Half the area of T rectangles over an error curve, and how it tends to half the curve's.

    ::

        L_T   = 1/2 sum_i (v_{i-1} - v_i) e(v_i)                  (eq-riemann-sum)
        L_inf = 1/2 integral of e(v) dv                           (eq-continuous-snr)
        T (L_T - L_inf) -> 1/4 integral of -e'(v) |dv/dt| dv      (eq-rate)

    with the signal-to-noise ratio v and the error e(v) = E||x - x_hat||^2 of the best denoiser of
    ``data``, or of a wrong one. All costs are in nats. Chapter 6.
    """

    module = "infinite_depth"
    title = "What is a deeper model worth?"
    layers = whole(4, 1, 1024, label="layers T", log=True)
    data = choice("Gaussian", [*TOYS, WRONG], label="data")
    path = choice("linear", list(PATHS), label="schedule")
    cleanest = number(2.0, 0.0, 10.0, step=0.1, label="cleanest level λ₀", unit="log SNR")
    noisiest = number(-4.0, -8.0, -0.5, step=0.1, label="noisiest level λ₁", unit="log SNR")
    axis = choice("SNR", ["SNR", "log SNR"], label="area over")
    mixtures = fixed(_mixtures)

    def schedule(self) -> schedules.Schedule:
        """The noise schedule that the reader has set."""
        return schedules.SCHEDULES[self.path](self.cleanest, self.noisiest)

    def error(self, logsnr: Tensor) -> Tensor:
        """``E||x - x_hat||^2`` at levels (N,) for the data that the reader has chosen: (N,)."""
        return wrong_error(logsnr) if self.data == WRONG else TOYS[self.data].mmse(logsnr)
