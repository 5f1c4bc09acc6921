r"""Samplers of time: callables ``(n, source) -> Times(t, p)``.

``t`` holds n times in [0, 1], ``p`` the density that each was drawn from. Dividing a cost by ``p``
makes its mean an unbiased estimate of the integral over t, for every density that is positive
wherever the cost is (eq-importance).

``uniform``, ``low_discrepancy`` and ``stratified`` have p = 1 and differ in how the times of one
batch hang together. ``Importance`` and ``Adaptive`` warp such a batch to another density. They take
any ``generator`` (see ``randomness``); a model gives its sampler a ``randomness.Source``, which
draws on its device and in its dtype. From a ``Share`` each of them draws one batch for all
processes, with its strata, and keeps this process's share, which spans all times.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vdm_lite import checks, quadrature, randomness
from vdm_lite.randomness import Generator, Source
from vdm_lite.schedules import Schedule, ends, even_times


class Times(NamedTuple):
    """Times (n,) and the density (n,) over [0, 1] that each was drawn from."""

    t: Tensor
    p: Tensor


TimeSampler = Callable[[int, Source], Times]
FORM = "(n, source) -> Times"
Density = Callable[[Tensor], Tensor]


def uniform(n: int, generator: Generator = None) -> Times:
    """``n`` independent times."""
    n, source = checks.count("n", n), randomness.of(generator)
    return _even(source.uniform((n,)))


def low_discrepancy(n: int, generator: Generator = None) -> Times:
    """One draw u for the whole batch: ``t_i = (u + i/n) mod 1`` (VDM) (eq-low-discrepancy).

    What the times leave of the variance is (eq-jump); a batch shared out keeps its one u
    (eq-ranks).
    """
    n, source = checks.count("n", n), randomness.of(generator)
    whole = n * source.shares
    i = source.rows(torch.arange(whole, device=source.device, dtype=source.dtype))
    return _even((source.uniform(()) + i / whole) % 1)


def stratified(n: int, generator: Generator = None) -> Times:
    """One draw in each of ``n`` equal strata: ``t_i = (i + u_i) / n``, in a random order.

    What the times leave of the variance is (eq-strata).

    Each time alone is uniform only because of the order; without it the first example of a batch
    would never be noisy.
    """
    n, source = checks.count("n", n), randomness.of(generator)
    u, i = source.uniform((n,)), source.permutation(n)
    t = (i + u) / (n * source.shares)
    return _even(t.clamp(max=1 - torch.finfo(u.dtype).eps))  # rounding may reach 1


def _even(t: Tensor) -> Times:
    return Times(t, torch.ones_like(t))


def normalized(f: Density, schedule: Schedule) -> Density:
    """The density over log-SNR proportional to ``f(logsnr)`` between the schedule's ends.

    Raises ``ValueError`` where f is negative or not finite, and if its integral is 0.
    """
    total = _integral("f(logsnr)", f, *ends(schedule))
    checks.require(total > 0, "f", "a positive integral", total)
    return partial(_share_of, f=f, total=total)


def _share_of(logsnr: Tensor, f: Density, total: float) -> Tensor:
    return f(logsnr) / total


class Importance:
    """Times at which the log-SNR has a given density: ``logsnr(t) ~ density``.

    ``density`` takes levels (N,) to numbers (N,) >= 0 and integrates to 1 between the ends of
    ``schedule``; :func:`normalized` makes such a density. It is averaged over ``bins`` equal pieces
    of [0, 1]; times are drawn from this histogram by its exact inverse, and ``p`` is the
    histogram's density, so nothing is approximated. Where the density is 0 no time is drawn: let
    it be so only where the weight is 0, too. The histogram is made once: of a schedule that is
    trained further the times stay where they are, and ``p`` stays right. ``base`` draws the times
    that are warped.

    Raises ``ValueError`` for a density that is negative, not finite, or of another integral.
    """

    def __init__(
        self,
        density: Density,
        schedule: Schedule,
        base: TimeSampler = low_discrepancy,
        bins: int = 1000,
    ) -> None:
        bins = checks.count("bins", bins)
        checks.function("base", base, FORM)
        low, high = ends(schedule)
        total = _integral("density(logsnr)", density, low, high)
        span = f"an integral of 1 over [{low:.4g}, {high:.4g}]"
        checks.require(abs(total - 1) < 1e-3, "density", span, f"{total:.6g}")
        with torch.no_grad():
            edges = schedule(even_times(schedule, bins + 1))
        self.masses = _masses(density, edges.cpu().double())
        self.base = base

    def __call__(self, n: int, generator: Generator = None) -> Times:
        """``n`` times and their density."""
        return _from_histogram(self.base(n, randomness.of(generator)), self.masses)


class Adaptive(nn.Module):
    """Times drawn where the cost is, learned on the way (Kingma & Gao 2023) (eq-adaptive).

    Keeps an exponential average, over the calls, of ``cost^moment`` in each of ``bins`` equal
    pieces of [0, 1]; the density is proportional to its ``moment``-th root. ``moment=1`` follows
    the mean cost. ``moment=2`` follows its root mean square, which gives the least variance
    (eq-minimum-variance). A share ``floor`` of the times stays uniform, so that no piece is
    forgotten. ``base`` draws the times that are warped.

    It learns from what it is shown, see :meth:`observe`, in training mode, as batch normalization
    does. ``training.fit(..., loss=partial(model.costs, times=sampler), keep=sampler)`` shows it the
    costs of each step and writes its state into the checkpoint. Best kept on the device of the
    model; between processes on GPUs it has to be there.

    Raises ``ValueError`` for numbers out of range.
    """

    floor = 0.01
    extra = 10
    total: Tensor
    visits: Tensor
    presumed: Tensor

    def __init__(
        self,
        bins: int = 100,
        moment: int = 1,
        base: TimeSampler = low_discrepancy,
        decay: float = 0.999,
    ) -> None:
        super().__init__()
        bins = checks.count("bins", bins)
        moment = checks.count("moment", moment, most=2)
        checks.positive_number("decay", decay)
        checks.require(decay < 1, "decay", "a number between 0 and 1", decay)
        checks.function("base", base, FORM)
        self.moment, self.base, self.decay = moment, base, decay
        self.register_buffer("total", torch.zeros(bins))
        self.register_buffer("visits", torch.zeros(bins))
        self.register_buffer("presumed", torch.tensor(float(self.extra)))

    def forward(self, n: int, generator: Generator = None) -> Times:
        """``n`` times and their density; uniform before the first observation."""
        return _from_histogram(self.base(n, randomness.of(generator)), self.masses())

    def masses(self) -> Tensor:
        """The probability of each bin, (bins,).

        Each bin starts with ``extra`` presumed visits at the average cost, forgotten like the real
        ones (eq-presumed). A bin that has met a few small costs by chance would else be thought
        cheap, and divided by a tiny p when a large one comes.
        """
        average = self.total.sum() / self.visits.sum()
        weight = self.visits + self.presumed
        mean = (self.total + self.presumed * average) / weight
        mean = torch.where(weight > 0, mean, average)  # all visits are forgotten
        height = mean ** (1 / self.moment)
        share = height / height.sum()
        share = torch.where(share.isfinite(), share, 1 / len(share))  # nothing seen yet, or no cost
        return (1 - self.floor) * share + self.floor / len(share)

    @torch.no_grad()
    def observe(self, t: Tensor, cost: Tensor) -> None:
        """Learn the costs (n,), before any division by p, that were met at the times ``t`` (n,).

        The sums are those of (eq-ema).

        Those of a batch that is worked through in parts belong in one call: each call forgets some
        of the past. Where ``torch.distributed`` runs, the costs of all processes are summed: every
        process has to call, or those that do wait for the others.
        """
        if not self.training:
            return
        bins = (t * len(self.total)).long().clamp(max=len(self.total) - 1).to(self.total.device)
        powers = cost.to(self.total) ** self.moment
        seen = torch.stack([torch.zeros_like(self.total)] * 2)
        seen[0].index_add_(0, bins, powers)
        seen[1].index_add_(0, bins, torch.ones_like(powers))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(seen)  # every process keeps the same density
        self.total.mul_(self.decay).add_(seen[0])
        self.visits.mul_(self.decay).add_(seen[1])
        self.presumed.mul_(self.decay)


def _integral(argument: str, f: Density, low: float, high: float) -> float:
    nodes, weights = quadrature.interval(low, high)
    return (weights * _not_negative(argument, f, nodes)).sum().item()


def _not_negative(argument: str, f: Density, logsnr: Tensor) -> Tensor:
    values = quadrature.values(argument, f, logsnr)
    checks.every(values >= 0, argument, "numbers >= 0", values.min())
    return values


def _masses(density: Density, edges: Tensor) -> Tensor:
    """Probability of each piece between falling ``edges`` (K + 1,): (K,), by 16 midpoints each."""
    at = (torch.arange(16, dtype=edges.dtype, device="cpu") + 0.5) / 16
    width = (edges[:-1] - edges[1:]).clamp(min=0)  # where it is flat, rounding may make it rise
    nodes = edges[1:, None] + at * width[:, None]  # (K, 16)
    values = _not_negative("density(logsnr)", density, nodes.flatten())
    mass = width * values.view(nodes.shape).mean(1)
    return mass / mass.sum()


def _from_histogram(base: Times, masses: Tensor) -> Times:
    """Warp times (n,) to the histogram of equal bins with these masses (K,).

    A bin has as much of [0, 1] as the rounded sums leave it, which is what p must say: a small mass
    and the difference of two sums near 1 are not the same number. No bin without mass is chosen.
    """
    u, density = base
    upper = masses.to(u.device, u.dtype).cumsum(0)
    upper = upper / upper[-1]
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(masses) - 1)
    lower = torch.nn.functional.pad(upper[:-1], (1, 0))[k]
    mass = upper[k] - lower
    inside = ((u - lower) / mass).clamp(0, 1)
    return Times((k + inside) / len(masses), density * len(masses) * mass)
