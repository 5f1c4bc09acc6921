"""Any weight of chapters 9 and 11: how often, how much, and whose noise it adds to the data."""

from typing import Any

import torch
from torch import Tensor

from vdm_lite import quadrature, schedules, weighting
from vdm_lite.augmentation import Augmentation
from vdm_lite.schedules import Schedule
from vdm_lite.weighting import Weighting
from vdm_lite.widgets.base import Widget, choice, curve, fixed, number

LOGSNR_MAX = 13.3
NAMES = ("linear", "cosine", "flow-matching", "edm", "logit-normal")
HANDLES = [-1.6, -1.2, -0.9, -0.9, -1.2, -1.7, -2.3, -3.0, -3.7]


def drawn_weight(powers: Tensor, logsnr_max: float, logsnr_min: float) -> Weighting:
    """``10^h(lambda)``: h runs straight between ``powers`` (n,), at n even levels from the min."""

    def weight(logsnr: Tensor) -> Tensor:
        share = (logsnr - logsnr_min) / (logsnr_max - logsnr_min)
        position = share * (len(powers) - 1)  # not clamped: at a bound that may lose the slope
        i = position.detach().floor().clamp(0, len(powers) - 2).long()
        return 10 ** torch.lerp(powers[i], powers[i + 1], position - i)

    return weight


class WeightExplorer(Widget):
    r"""Weight, density and factor of a recipe, and the noise that the weight adds to the data.

    ::

        L_w = 1/2 integral of w E||eps - eps_hat||^2 dlambda          (eq-weighted-loss)
        w   = p * (w / p)        drawn how often, times what factor   (eq-implied-weight)
        p_w = -dw/dlambda + w(lambda_max) delta(lambda - lambda_max)  (eq-augmentation)

    The weights are those of ``weighting.RECIPES``, scaled to area 1 between the end points, or one
    that the reader draws: ``drawn`` holds its powers of ten at even levels between the end points.
    ``schedule`` says who draws the noise levels; the weight stays. Levels are log
    signal-to-noise ratios; p_w is shown as a share of its total, w(lambda_min). Chapters 9 and 11.
    """

    module = "weight_explorer"
    title = "A weight: how often, how much, and which noise"
    recipe = choice("EDM", [*weighting.RECIPES, "drawn"], label="weight w")
    schedule = choice("its own", ["its own", *NAMES], label="density p of")
    bias = number(2.0, -4.0, 8.0, step=0.1, label="bias k of the sigmoid")
    logsnr = number(0.0, -10.0, LOGSNR_MAX, step=0.1, label="read at log SNR λ")
    logsnr_min = number(-5.0, -10.0, 0.0, step=0.1, label="noisiest log SNR")
    drawn = curve(HANDLES, -6.0, 1.0, label="powers of ten of the drawn weight")
    logsnr_max = fixed(lambda: LOGSNR_MAX)

    def weighting(self) -> Weighting:
        """The weight w that is shown, a function of levels (N,) in float64."""
        if self.recipe == "drawn":
            powers = torch.tensor(self.drawn, dtype=torch.float64)
            return drawn_weight(powers, LOGSNR_MAX, self.logsnr_min)
        sigmoid = self.recipe == "sigmoid"
        w = weighting.sigmoid(self.bias) if sigmoid else weighting.RECIPES[self.recipe].weight
        nodes, shares = quadrature.interval(self.logsnr_min, LOGSNR_MAX)
        area = shares @ w(nodes)
        return lambda logsnr: w(logsnr) / area

    def noise_schedule(self) -> Schedule:
        """The schedule that draws the noise levels, between the end points."""
        kind: Any = schedules.SCHEDULES.get(self.schedule)
        if kind is None:
            own = weighting.RECIPES.get(self.recipe)
            kind = type(own.schedule) if own else schedules.Linear
        return kind(LOGSNR_MAX, self.logsnr_min)

    def augmentation(self) -> Augmentation:
        """``p_w`` of the weight that is shown: its density, point mass and total."""
        return Augmentation(self.weighting(), LOGSNR_MAX, self.logsnr_min)
