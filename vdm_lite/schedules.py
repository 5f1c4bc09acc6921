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
        ends = (self.logsnr_max, self.logsnr_min)
        falls = all(map(math.isfinite, ends)) and self.logsnr_max > self.logsnr_min
        checks.require(falls, "logsnr_max, logsnr_min", "finite, logsnr_max > logsnr_min", ends)

    def __call__(self, t: Tensor) -> Tensor:
        """Log-SNR at times ``t`` in [0, 1], same shape. ``ValueError`` for other times."""
        checks.floating("t", t)
        if checks.readable(t):
            inside = bool(((t >= 0) & (t <= 1)).all())
            checks.require(inside, "t", "times in [0, 1]", "a time outside")
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
    """Log-normal noise levels of Karras et al.: lambda ~ N(2.4, 2.4^2) before the cut.

    ``logsnr = -2 ln sigma`` with ``ln sigma ~ N(-1.2, 1.2^2)`` in their (variance exploding) units.
    """

    def _curve(self, u: Tensor, v: Tensor) -> Tensor:
        # From whichever tail is small: ndtri(v) near v = 1 would lose its digits.
        quantile = torch.where(u < v, -torch.special.ndtri(u), torch.special.ndtri(v))
        return 2.4 + 2.4 * quantile

    def _inverse(self, logsnr: float) -> tuple[float, float]:
        # By erfc: 1 + erf, which NormalDist.cdf uses before Python 3.12, loses the tail's digits.
        deviation = (logsnr - 2.4) / 2.4 / math.sqrt(2)
        return math.erfc(deviation) / 2, math.erfc(-deviation) / 2


def rate(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """``(logsnr, dlogsnr/dt)`` at times ``t``, () or (B,), by forward differentiation.

    Works under ``no_grad``. Raises ``ValueError`` where the schedule rises: noise may only grow
    with t.
    """
    checks.floating("t", t)
    # As (B,) also inside: the forward derivative of a float32 tensor () can come out as float64.
    at = t.reshape(-1)
    logsnr, slope = torch.func.jvp(schedule, (at,), (torch.ones_like(at),))
    checks.same_shape("schedule(t)", logsnr, at)
    checks.floating("schedule(t)", logsnr)
    if checks.readable(slope):
        falls = bool((slope <= 0).all())
        checks.require(falls, "schedule", "logsnr that falls with t", "one that rises")
    return logsnr.reshape(t.shape), slope.reshape(t.shape)


def levels(schedule: Schedule, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """``(logsnr_s, logsnr_t)`` of all ``steps`` layers, s = (i-1)/T and t = i/T, each (T,).

    Device and dtype are those of ``like``. Raises ``ValueError`` for ``steps < 1``.
    """
    checks.count("steps", steps)
    logsnr = schedule(torch.linspace(0, 1, steps + 1, device=like.device, dtype=like.dtype))
    return logsnr[:-1], logsnr[1:]


def require_falling(schedule: Schedule) -> None:
    """Raise ``ValueError`` unless ``schedule`` is finite and falls strictly over [0, 1]."""
    checks.require(callable(schedule), "schedule", "a callable t -> logsnr", schedule)
    parameters = schedule.parameters() if isinstance(schedule, nn.Module) else iter(())
    like = next(parameters, torch.empty(()))
    with torch.no_grad():
        t = torch.linspace(0, 1, 65, device=like.device, dtype=like.dtype)
        logsnr = schedule(t)
    tensor = isinstance(logsnr, Tensor)
    checks.require(tensor, "schedule(t)", "a tensor of levels", type(logsnr).__name__)
    checks.same_shape("schedule(t)", logsnr, t)
    if checks.readable(logsnr):
        falls = bool(logsnr.isfinite().all() and (logsnr.diff() < 0).all())
        checks.require(falls, "schedule", "finite logsnr that falls with t", "one that does not")
