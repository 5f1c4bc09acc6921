r"""Noise schedules: callables ``t -> logsnr`` that fall from t = 0 to t = 1.

Each takes the end points ``logsnr_max`` (at t = 0) and ``logsnr_min`` (at t = 1) and *restricts its
own range of time* to them: t in [0, 1] runs linearly over the stretch [u_0, u_1] of the curve's
own time on which its log-SNR lies between them. The shape of the curve stays; the ends are finite.

A schedule is also a density over noise levels, p(lambda) = -dt/dlambda.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.checks import checked, floating

Schedule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Curve:
    """Base of the closed-form schedules: a curve lambda(u) on u in (0, 1), cut to two end points.

    Subclasses give the curve as a function of ``u`` and ``v = 1 - u`` (so that neither end loses
    digits) and its inverse in plain floats.
    """

    logsnr_max: float = 13.3
    logsnr_min: float = -5.0

    def __post_init__(self) -> None:
        checks.ends(self.logsnr_max, self.logsnr_min)

    def __call__(self, t: Tensor) -> Tensor:
        """Log-SNR at times ``t`` in [0, 1], same shape. ``ValueError`` for other times."""
        checks.times("t", t)
        (u_0, v_0), (u_1, v_1) = self._inverse(self.logsnr_max), self._inverse(self.logsnr_min)
        return self._curve((1 - t) * u_0 + t * u_1, (1 - t) * v_0 + t * v_1)

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Curve):
    """``logsnr`` falls linearly: uniform density over noise levels."""

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        return v * self.logsnr_max + u * self.logsnr_min

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        u = (self.logsnr_max - logsnr) / (self.logsnr_max - self.logsnr_min)
        return u, 1 - u


@dataclass(frozen=True)
class Cosine(_Curve):
    """``-2 log tan(pi u / 2) + shift`` (Nichol & Dhariwal); density sech((lambda - shift)/2)/2pi.

    ``shift = 2 log(64 / d)`` adapts it to images of d x d pixels (Hoogeboom et al.).
    """

    shift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.level("shift", self.shift)

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        half = math.pi / 2
        return 2 * (torch.sin(half * v).log() - torch.sin(half * u).log()) + self.shift

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        down = (logsnr - self.shift) / 2
        return 2 / math.pi * math.atan(math.exp(-down)), 2 / math.pi * math.atan(math.exp(down))


@dataclass(frozen=True)
class FlowMatching(_Curve):
    """``2 log((1 - u) / u)``, the log-SNR of the straight path (1 - u) x + u eps.

    Its density over noise levels is sech^2(lambda / 4) / 8 before the cut.
    """

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        return 2 * (v.log() - u.log())

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        return 1 / (1 + math.exp(logsnr / 2)), 1 / (1 + math.exp(-logsnr / 2))


@dataclass(frozen=True)
class EDM(_Curve):
    """Log-normal noise levels: ln(sigma / alpha) ~ N(mean, std^2) before the cut.

    ``lambda = -2 ln(sigma / alpha)``, so ``lambda ~ N(-2 mean, (2 std)^2)``. The mean -1.2 and the
    deviation 1.2 are those of Karras et al. Raises ``ValueError`` unless the mean is finite and
    the deviation positive.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.finite_number("mean", self.mean)
        checks.positive_number("std", self.std)

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        # From whichever tail is small: ndtri(v) near v = 1 would lose its digits.
        quantile = torch.where(u < v, -torch.special.ndtri(u), torch.special.ndtri(v))
        return 2 * (self.std * quantile - self.mean)

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        # By erfc: 1 + erf, which NormalDist.cdf uses before Python 3.12, loses the tail's digits.
        deviation = (logsnr / 2 + self.mean) / self.std / math.sqrt(2)
        return math.erfc(deviation) / 2, math.erfc(-deviation) / 2


@dataclass(frozen=True)
class LogitNormal(EDM):
    """Logit-normal places r = sigmoid(N(mean, std^2)) on the straight path (Esser et al. 2024).

    There r / (1 - r) = sigma / alpha, so this is the log-normal of :class:`EDM` with other numbers:
    lambda ~ N(0, 2^2) with the defaults, before the cut.
    """

    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class BetaLinear(_Curve):
    """``-log expm1(0.1 u + 9.95 u^2)``: the noise rate is ``0.1 + 19.9 u`` (eq-beta-linear).

    The linear betas of Ho et al. (2020), from 1e-4 to 0.02 in 1000 steps, in continuous time.
    """

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        return -torch.expm1(0.1 * u + 9.95 * u.square()).log()

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        # integral = softplus(-logsnr); the root of 9.95 u^2 + 0.1 u = integral without cancellation
        integral = math.log1p(math.exp(-abs(logsnr))) + max(-logsnr, 0.0)
        u = 2 * integral / (0.1 + math.sqrt(0.01 + 4 * 9.95 * integral))
        return u, 1 - u


class Learned(nn.Module):
    r"""A schedule that is trained: monotone, with exact end points, whatever its weights are.

    ::

        share(t)  = sum_k w_k B_k(t),  w = softmax(raw)                       (eq-learned-schedule)
        lambda(t) = (1 - share(t)) logsnr_max + share(t) logsnr_min

    B_0(t) = t, and B_1 … B_units are smooth steps, side by side, each of which rises from exactly 0
    at t = 0 to exactly 1 at t = 1. A mixture of rising functions rises, so the weights can move
    neither end. At first all weights are equal and the schedule is close to linear.

    The inner weights do not change what the continuous-time loss is on average, only its variance:
    ``training.fit`` gives them the gradient of the mean of squared losses (eq-square-gradient).
    With ``train_ends`` the end points are parameters, too. They belong to the whole bound: train
    them on ``model.elbo(...).nelbo``, as the diffusion term alone would pull them together.

    Raises ``ValueError`` unless ``logsnr_max > logsnr_min``.
    """

    def __init__(
        self,
        logsnr_max: float = 13.3,
        logsnr_min: float = -5.0,
        units: int = 32,
        train_ends: bool = False,
    ) -> None:
        super().__init__()
        checks.ends(logsnr_max, logsnr_min)
        units = checks.count("units", units)
        self.units = units
        self.raw = nn.Parameter(torch.zeros(units + 1))
        self.logsnr_max = nn.Parameter(torch.tensor(float(logsnr_max)), requires_grad=train_ends)
        self.logsnr_min = nn.Parameter(torch.tensor(float(logsnr_min)), requires_grad=train_ends)

    def forward(self, t: Tensor) -> Tensor:
        """Log-SNR at times ``t`` in [0, 1], same shape. ``ValueError`` for other times."""
        checks.times("t", t)
        share = self.share(t)
        return (1 - share) * self.logsnr_max + share * self.logsnr_min

    def share(self, t: Tensor) -> Tensor:
        """How far ``lambda`` has fallen: from exactly 0 at t = 0 to exactly 1 at t = 1."""
        k = torch.arange(self.units, device=t.device, dtype=t.dtype)
        low, high = torch.sigmoid(-k - 0.5), torch.sigmoid(self.units - k - 0.5)
        risen = torch.sigmoid(self.units * t.unsqueeze(-1) - k - 0.5) - low
        steps = torch.cat([t.unsqueeze(-1), risen / (high - low)], -1)
        # Two sums of the same shape, so that they round alike: their ratio at t = 1 is exactly 1.
        weights = self.raw.softmax(0).to(t.dtype) * torch.ones_like(steps)
        return (steps * weights).sum(-1) / weights.sum(-1)

    def interior(self) -> list[nn.Parameter]:
        """The parameters that change the way between the ends: no end moves with them."""
        return [self.raw]


SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "flow-matching": FlowMatching,
    "edm": EDM,
    "logit-normal": LogitNormal,
    "beta-linear": BetaLinear,
    "learned": Learned,
}
"""By the names that files, the command line and widgets have for them."""


@checked(schedule=checks.schedule, t=floating)
def rate(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """``(logsnr, dlogsnr/dt)`` at times ``t``, () or (B,), by forward differentiation.

    Works under ``no_grad``. Raises ``ValueError`` where the schedule rises: noise may only grow
    with t.
    """
    # As (B,) also inside: the forward derivative of a float32 tensor () can come out as float64.
    at = t.reshape(-1)
    logsnr, slope = torch.func.jvp(schedule, (at,), (torch.ones_like(at),))  # type: ignore[misc]
    checks.shaped_as("schedule(t)", logsnr, at)
    checks.every(slope <= 0, "schedule", "logsnr that falls with t", "one that rises")
    return logsnr.reshape(t.shape), slope.reshape(t.shape)


def ends(schedule: Schedule) -> tuple[float, float]:
    """``(logsnr_min, logsnr_max)`` of a schedule, lowest first, as for the limits of an integral.

    Raises ``ValueError`` for a schedule that does not fall.
    """
    require_falling(schedule)
    with torch.no_grad():
        logsnr = schedule(even_times(schedule, 2))
    return logsnr[1].item(), logsnr[0].item()


@checked(logsnr=floating)
def time_of(schedule: Schedule, logsnr: Tensor) -> Tensor:
    """The time at which ``schedule`` has these log-SNRs, by bisection: same shape.

    Raises ``ValueError`` for levels outside the schedule's end points.
    """
    low, high = ends(schedule)
    span = f"levels in [{low:.6g}, {high:.6g}]"
    checks.every(_between(logsnr, low, high), "logsnr", span, "one outside")
    before, after = torch.zeros_like(logsnr), torch.ones_like(logsnr)
    with torch.no_grad():
        for _ in range(80):  # times near 0 keep their digits, which the tail of a density needs
            middle = (before + after) / 2
            early = schedule(middle) > logsnr
            before, after = torch.where(early, middle, before), torch.where(early, after, middle)
    return (before + after) / 2


@checked(logsnr=floating)
def density(schedule: Schedule, logsnr: Tensor) -> Tensor:
    """``p(lambda) = -dt / dlambda``, how often uniform times visit a level (eq-schedule-density).

    For a gradient another density is best than for the loss (eq-bias-gradient).

    Same shape as ``logsnr``; it integrates to 1 between the end points and is 0 outside.
    """
    low, high = ends(schedule)
    _, slope = rate.formula(schedule, time_of.formula(schedule, logsnr.clamp(low, high)))
    return torch.where(_between(logsnr, low, high), -1 / slope, 0.0)


def _between(logsnr: Tensor, low: float, high: float) -> Tensor:
    """Whether a level lies between the end points, give or take the rounding of those."""
    slack = 1e-6 * (high - low)
    return (logsnr >= low - slack) & (logsnr <= high + slack)


@checked(schedule=checks.schedule)
def levels(schedule: Schedule, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """``(logsnr_s, logsnr_t)`` of all ``steps`` layers, s = (i-1)/T and t = i/T, each (T,).

    Device and dtype are those of ``like``. Raises ``ValueError`` for ``steps < 1``.
    """
    steps = checks.count("steps", steps)
    logsnr = schedule(torch.linspace(0, 1, steps + 1, device=like.device, dtype=like.dtype))
    return logsnr[:-1], logsnr[1:]


def require_falling(schedule: Schedule) -> None:
    """Raise ``ValueError`` unless ``schedule`` is finite and falls strictly over [0, 1].

    Equation (eq-logsnr).
    """
    checks.falling("schedule", schedule, even_times(schedule, 65))


def even_times(schedule: Schedule, n: int) -> Tensor:
    """``n`` even times from 0 to 1: on the schedule's device in its dtype, else CPU and float64."""
    parameters = schedule.parameters() if isinstance(schedule, nn.Module) else iter(())
    like = next(parameters, torch.empty((), dtype=torch.float64, device="cpu"))
    return torch.linspace(0, 1, n, device=like.device, dtype=like.dtype)
