r"""Samplers of time: callables ``(n, generator, device, dtype) -> Times(t, p)``.

``t`` holds n times in [0, 1), ``p`` the density that each was drawn from. Dividing a cost by ``p``
makes its mean an unbiased estimate of the integral over t, whatever the density is (eq-importance).

``uniform``, ``low_discrepancy`` and ``stratified`` have p = 1 and differ in how the times of one
batch hang together. ``Importance`` and ``Adaptive`` warp such a batch to another density;
``AcrossRanks`` shares one batch among several processes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vdm_lite import checks, quadrature
from vdm_lite.schedules import Schedule, ends


class Times(NamedTuple):
    """Times (n,) and the density (n,) over [0, 1] that each was drawn from."""

    t: Tensor
    p: Tensor


TimeSampler = Callable[..., Times]
Density = Callable[[Tensor], Tensor]
Where = torch.device | str | None


def uniform(
    n: int,
    generator: torch.Generator | None = None,
    device: Where = None,
    dtype: torch.dtype | None = None,
) -> Times:
    """``n`` independent times."""
    t = torch.rand(n, generator=generator, device=device, dtype=dtype)
    return Times(t, torch.ones_like(t))


def low_discrepancy(
    n: int,
    generator: torch.Generator | None = None,
    device: Where = None,
    dtype: torch.dtype | None = None,
) -> Times:
    """One draw u for the whole batch: ``t_i = (u + i/n) mod 1`` (VDM) (eq-low-discrepancy)."""
    u = torch.rand((), generator=generator, device=device, dtype=dtype)
    t = (u + torch.arange(n, device=device, dtype=dtype) / n) % 1
    return Times(t, torch.ones_like(t))


def stratified(
    n: int,
    generator: torch.Generator | None = None,
    device: Where = None,
    dtype: torch.dtype | None = None,
) -> Times:
    """One draw in each of ``n`` equal strata: ``t_i = (i + u_i) / n``, in a random order.

    Each time alone is uniform only because of the order; without it the first example of a batch
    would never be noisy.
    """
    u = torch.rand(n, generator=generator, device=device, dtype=dtype)
    order = torch.rand(n, generator=generator, device=device, dtype=dtype).argsort()
    t = ((order + u) / n).clamp(max=1 - torch.finfo(u.dtype).eps)  # rounding may reach 1
    return Times(t, torch.ones_like(t))


def normalized(f: Density, schedule: Schedule) -> Density:
    """The density over log-SNR proportional to ``f(logsnr)`` between the schedule's ends.

    Raises ``ValueError`` where f is negative or not finite, and if its integral is 0.
    """
    total = _integral(f, *ends(schedule))
    checks.require(total > 0, "f", "a positive integral", total)
    return lambda logsnr: f(logsnr) / total


class Importance:
    """Times at which the log-SNR has a given density: ``logsnr(t) ~ density``.

    ``density`` takes levels (N,) to numbers (N,) >= 0 and integrates to 1 between the ends of
    ``schedule``; :func:`normalized` makes such a density. It is averaged over ``bins`` equal pieces
    of [0, 1]; times are drawn from this histogram by its exact inverse, and ``p`` is the
    histogram's density, so nothing is approximated. ``base`` draws the uniform times that are
    warped.

    Raises ``ValueError`` for a density that is negative, not finite, or of another integral.
    """

    def __init__(
        self,
        density: Density,
        schedule: Schedule,
        base: TimeSampler = low_discrepancy,
        bins: int = 1000,
    ) -> None:
        checks.count("bins", bins)
        low, high = ends(schedule)
        total = _integral(density, low, high)
        span = f"an integral of 1 over [{low:.4g}, {high:.4g}]"
        checks.require(abs(total - 1) < 1e-3, "density", span, f"{total:.6g}")
        with torch.no_grad():
            edges = schedule(torch.linspace(0, 1, bins + 1, dtype=torch.float64))
        self.masses = _masses(density, edges.cpu())
        self.base = base

    def __call__(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: Where = None,
        dtype: torch.dtype | None = None,
    ) -> Times:
        """``n`` times and their density."""
        u = self.base(n, generator, device, dtype).t
        return _from_histogram(u, self.masses)


class Adaptive(nn.Module):
    """Times drawn where the cost is, learned on the way (Kingma & Gao 2023) (eq-adaptive).

    Keeps an exponential average, over the calls, of ``cost^moment`` in each of ``bins`` equal
    pieces of [0, 1]; the density is proportional to its ``moment``-th root. ``moment=1`` follows
    the mean cost. ``moment=2`` follows its root mean square, which gives the least variance
    (eq-minimum-variance). A share ``floor`` of the times stays uniform, so that no piece is
    forgotten. ``base`` draws the uniform times that are warped.

    It learns in training mode, as batch normalization does: the loss calls :meth:`observe`.
    ``training.fit(..., keep=sampler)`` writes its state into the checkpoint.
    """

    floor = 0.01

    def __init__(
        self,
        bins: int = 100,
        moment: int = 1,
        base: TimeSampler = low_discrepancy,
        decay: float = 0.999,
    ) -> None:
        super().__init__()
        checks.count("bins", bins)
        checks.require(moment in (1, 2), "moment", "1 or 2", moment)
        checks.require(0 < decay < 1, "decay", "a number between 0 and 1", decay)
        self.moment, self.base, self.decay = moment, base, decay
        self.register_buffer("total", torch.zeros(bins))
        self.register_buffer("visits", torch.zeros(bins))

    def forward(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: Where = None,
        dtype: torch.dtype | None = None,
    ) -> Times:
        """``n`` times and their density; uniform before the first observation."""
        u = self.base(n, generator, device, dtype).t
        return _from_histogram(u, self.masses())

    def masses(self) -> Tensor:
        """The probability of each bin, (bins,); one not yet visited counts as the average bin."""
        visited = self.visits > 0
        mean = self.total / torch.where(visited, self.visits, 1)
        average = self.total.sum() / self.visits.sum()
        height = torch.where(visited, mean, average) ** (1 / self.moment)
        share = height / height.sum()
        share = torch.where(share.isfinite(), share, 1 / len(share))  # nothing seen yet, or no cost
        return (1 - self.floor) * share + self.floor / len(share)

    @torch.no_grad()
    def observe(self, t: Tensor, cost: Tensor) -> None:
        """Learn the costs (n,), before any division by p, that were met at the times ``t`` (n,)."""
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


class AcrossRanks(nn.Module):
    """One batch of times for all processes, of which each takes its share.

    Every process draws the same ``n * ranks`` times, from a generator seeded by ``(seed, call)``,
    and keeps those numbered ``rank, rank + ranks, …``: together they are one batch of ``base``,
    with its strata, and each share spans all times. The count of calls is state: keep it in the
    checkpoint. The generator given to a call is not used, as it should differ between processes.
    """

    def __init__(self, base: TimeSampler, rank: int, ranks: int, seed: int = 0) -> None:
        super().__init__()
        checks.count("ranks", ranks)
        checks.require(0 <= rank < ranks, "rank", f"a number from 0 to {ranks - 1}", rank)
        self.base, self.rank, self.ranks, self.seed = base, rank, ranks, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64, device="cpu"))

    def forward(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: Where = None,
        dtype: torch.dtype | None = None,
    ) -> Times:
        """This process's ``n`` of ``n * ranks`` times, and their density."""
        shared = torch.Generator().manual_seed(self.seed * 1_000_003 + self.calls.item())
        self.calls += 1
        t, p = self.base(n * self.ranks, shared, None, dtype)
        return Times(t[self.rank :: self.ranks].to(device), p[self.rank :: self.ranks].to(device))


def _integral(f: Density, low: float, high: float) -> float:
    nodes, weights = quadrature.interval(low, high)
    return (weights * _not_negative(f, nodes)).sum().item()


def _not_negative(f: Density, logsnr: Tensor) -> Tensor:
    values = quadrature.values("density(logsnr)", f, logsnr)
    checks.require(bool((values >= 0).all()), "density", "numbers >= 0", values.min().item())
    return values


def _masses(density: Density, edges: Tensor) -> Tensor:
    """Probability of each piece between falling ``edges`` (K + 1,): (K,), by 16 midpoints each."""
    at = (torch.arange(16, dtype=edges.dtype) + 0.5) / 16
    width = edges[:-1] - edges[1:]
    nodes = edges[1:, None] + at * width[:, None]  # (K, 16)
    mass = width * _not_negative(density, nodes.flatten()).view(nodes.shape).mean(1)
    return mass / mass.sum()


def _from_histogram(u: Tensor, masses: Tensor) -> Times:
    """Warp uniform ``u`` (n,) to the histogram of equal bins with these masses (K,)."""
    masses = masses.to(u.device, u.dtype)
    upper = masses.cumsum(0)
    upper = upper / upper[-1]
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(masses) - 1)
    inside = ((u - (upper - masses)[k]) / masses[k]).clamp(0, 1)
    return Times((k + inside) / len(masses), len(masses) * masses[k])
