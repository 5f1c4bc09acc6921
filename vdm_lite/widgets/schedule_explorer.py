"""The schedule explorer of chapters 4 and 7: choose or draw a schedule, and see what follows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vdm_lite import schedules
from vdm_lite.widgets.base import Widget, choice, curve, number, switch

SHAPES = ("linear", "cosine", "flow-matching", "edm", "beta-linear")
DRAWN = "drawn"
GAP = 0.02  # the least share of the way between two neighboring points


@dataclass(frozen=True)
class Drawn:
    """A smooth curve that falls from ``logsnr_max`` to ``logsnr_min`` through given points.

    ``points`` are the shares of the way that lie behind it at even times between 0 and 1. Where
    they do not rise by at least ``GAP``, they are pushed until they do. Between two points the
    curve is a cubic; its slope at a point is the harmonic mean of those of the two straight lines
    that meet there, so that it falls everywhere (Fritsch and Butland).
    """

    points: tuple[float, ...]
    logsnr_max: float = 10.0
    logsnr_min: float = -8.0

    def __call__(self, t: Tensor) -> Tensor:
        """Log-SNR at times ``t`` in [0, 1], same shape."""
        levels = self.levels().to(t)
        secants = levels.diff()
        inner = 2 / (1 / secants[1:] + 1 / secants[:-1])
        slopes = torch.cat([secants[:1], inner, secants[-1:]])
        place = t * len(secants)
        i = place.detach().floor().long().clamp(0, len(secants) - 1)
        s = place - i
        step = secants[i] * s.square() * (3 - 2 * s)
        bend = s * (1 - s) * (slopes[i] * (1 - s) - slopes[i + 1] * s)
        return levels[i] + step + bend

    def levels(self) -> Tensor:
        """The levels at even times from 0 to 1, ends among them."""
        shares = torch.tensor([0.0, *rising(self.points), 1.0], dtype=torch.float64)
        return self.logsnr_max + shares * (self.logsnr_min - self.logsnr_max)


def rising(points: tuple[float, ...]) -> list[float]:
    """The points, each at least ``GAP`` above the one before and as far from 0 and 1."""
    pushed = [0.0]
    for left, point in zip(range(len(points), 0, -1), points, strict=True):
        pushed.append(min(max(point, pushed[-1] + GAP), 1 - GAP * left))
    return pushed[1:]


class ScheduleExplorer(Widget):
    r"""What follows from a schedule, for the best denoiser of the two-bump toy.

    ::

        alpha_t^2 = sigmoid(lambda_t),  sigma_t^2 = sigmoid(-lambda_t)
        p(lambda) = -dt / dlambda                                 (eq-schedule-density)
        L_inf     = 1/2 integral of (-dlambda/dt) e(lambda_t) dt  (eq-invariance)
        Var[l]    = 1/4 integral of E(eps - eps_hat)^4 / p dlambda - L_inf^2
                                                                  (eq-estimator-variance)

    with the noise's error e(lambda) = E(eps - eps_hat)^2. The cost L_inf is in nats, the variance
    of its one-sample estimate in nats^2. ``points`` are the shares of the way from ``logsnr_max``
    to ``logsnr_min`` that a drawn schedule has behind it at t = 0.1, …, 0.9. Chapters 4 and 7.
    """

    module = "schedule_explorer"
    title = "What does a schedule change?"
    shape = choice("linear", [*SHAPES, DRAWN], label="schedule")
    time = number(0.5, 0.0, 1.0, step=0.01, label="time t")
    logsnr_max = number(10.0, 1.0, 15.0, step=0.1, label="clean end: log SNR at t = 0")
    logsnr_min = number(-8.0, -15.0, -1.0, step=0.1, label="noisy end: log SNR at t = 1")
    best = switch(False, label="show the best density p*")
    points = curve([k / 10 for k in range(1, 10)], 0.0, 1.0, label="drawn schedule")

    def schedule(self) -> schedules.Schedule:
        """The noise schedule that the reader has chosen or drawn."""
        ends = (self.logsnr_max, self.logsnr_min)
        if self.shape == DRAWN:
            return Drawn(tuple(self.points), *ends)
        return schedules.SCHEDULES[self.shape](*ends)
