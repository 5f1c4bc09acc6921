"""Figures of chapter 7."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite import schedules
from vdm_lite.elbo import diffusion_from_mmse
from vdm_lite.figures.base import COLORS, LEVEL, LINES, shades
from vdm_lite.schedules import Schedule

Curve = Callable[[Tensor], Tensor]


def times_and_levels(shown: Mapping[str, Schedule]) -> Figure:
    """The schedules over time, and their densities over noise levels, up to 0.25."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 3.2))
    t = torch.linspace(0, 1, 401).double()
    inside = t.clamp(1e-3, 1 - 1e-3)  # a density may be infinite at an end
    for (name, schedule), ink, line in zip(shown.items(), shades(len(shown)), LINES, strict=False):
        left.plot(t, schedule(t).detach(), linestyle=line, color=ink, label=name)
        logsnr, slope = (value.detach() for value in schedules.rate(schedule, inside))
        right.plot(logsnr, -1 / slope, linestyle=line, color=ink)
    left.set(xlabel="$t$", ylabel="log SNR $\\lambda_t$")
    right.set(xlabel=LEVEL, ylabel="$p(\\lambda)$", ylim=(0, 0.25))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def same_area(error: Curve, shown: Mapping[str, Schedule], height: float | None = None) -> Figure:
    """The mean one-sample loss over time, one panel a schedule; the dotted line is the integral.

    ``error`` takes levels (N,) to E||x - x_hat||^2, (N,); the integral is that of the first.
    """
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    size = (7, 2.3 * rows + 0.3)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True)
    limit = diffusion_from_mmse(error, next(iter(shown.values()))).item()
    for ax, (name, schedule) in zip(axes.flat, shown.items(), strict=True):
        _mean_loss(ax, error, schedule, limit)
        ax.set(title=name, ylim=(0, height))
    for ax in axes.flat[-columns:]:
        ax.set_xlabel("$t$")
    figure.supylabel("mean loss in nats", fontsize=10)
    return figure


def paths(shown: Mapping[str, tuple[Curve, float]]) -> Figure:
    """Paths of two noise levels, each ``t -> (N, 2)`` with its cost, from clean to noisy.

    The cost is the integral along the path (eq-line-integral).
    """
    figure, ax = plt.subplots(figsize=(4.6, 3.6))
    t = torch.linspace(0, 1, 201).double()
    for (name, (path, cost)), ink, line in zip(shown.items(), shades(3), LINES, strict=False):
        first, second = path(t).T
        ax.plot(first, second, linestyle=line, color=ink, label=f"{name}: {cost:.2f} nats")
    ax.plot(*path(t[:1]).T, "o", color=COLORS["data"], clip_on=False)
    ax.plot(*path(t[-1:]).T, "o", color=COLORS["noise"], clip_on=False)
    ax.set(xlabel="$\\lambda^{(1)}$", ylabel="$\\lambda^{(2)}$", aspect="equal")
    figure.legend(loc="outside upper center")
    return figure


def learned_density(best: Tensor, logsnr: Tensor, shown: Mapping[str, Schedule]) -> Figure:
    """Densities over the levels ``logsnr`` (N,): the ``best`` one (N,), filled, and schedules.

    The best one is (eq-best-density).
    """
    figure, ax = plt.subplots()
    ax.fill_between(logsnr, best, color=COLORS["posterior"], alpha=0.3, linewidth=0, label="best")
    styles = [(COLORS["noise"], "--"), (COLORS["network"], "-"), (COLORS["data"], ":")]
    for (name, schedule), (ink, line) in zip(shown.items(), styles, strict=False):
        with torch.no_grad():
            ax.plot(logsnr, schedules.density(schedule, logsnr), line, color=ink, label=name)
    ax.set(xlabel=LEVEL, ylabel="$p(\\lambda)$", ylim=(0, None))
    ax.legend()
    return figure


def moving_ends(
    history: Sequence[tuple[float, float]], bound: Sequence[float], floor: float, every: int = 1
) -> Figure:
    """End points (max, min) after ``every`` so many steps, the bound there, and its floor.

    The diffusion cost alone pulls them together (eq-end-gradient).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 3))
    steps = [every * i for i in range(len(history))]
    top, bottom = zip(*history, strict=True)
    left.plot(steps, top, color=COLORS["posterior"], label="$\\lambda_{\\max}$")
    left.plot(steps, bottom, color=COLORS["prior"], label="$\\lambda_{\\min}$")
    left.set(xlabel="step", ylabel="log SNR")
    left.legend()
    right.plot(steps, bound, color=COLORS["network"], label="$-$ELBO")
    right.axhline(floor, color=COLORS["data"], linestyle=":", linewidth=1.2, label="$H(X)$")
    right.set(xlabel="step", ylabel="nats")
    right.legend()
    return figure


def drawn(error: Curve, shown: Mapping[str, tuple[Schedule, float]]) -> Figure:
    """One column a schedule with its variance: over time, and the mean loss below it.

    The dotted line has the height of the integral, which is the same for all.
    """
    shared = {"sharex": True, "sharey": "row", "squeeze": False}
    figure, axes = plt.subplots(2, len(shown), figsize=(7.2, 4), **shared)
    limit = diffusion_from_mmse(error, next(iter(shown.values()))[0]).item()
    for (top, bottom), (name, (schedule, variance)) in zip(axes.T, shown.items(), strict=True):
        top.plot(*_mean_loss(bottom, error, schedule, limit), color=COLORS["latent"])
        top.set_title(f"{name}\nvariance {variance:.{0 if variance > 100 else 1}f}")
        bottom.set(xlabel="$t$", ylim=(0, 4 * limit))
    axes[0, 0].set_ylabel("log SNR $\\lambda_t$")
    axes[1, 0].set_ylabel("mean loss in nats")
    return figure


def _mean_loss(ax: Axes, error: Curve, schedule: Schedule, limit: float) -> tuple[Tensor, Tensor]:
    """The mean one-sample loss over time, above a dotted line at ``limit``; times and levels."""
    t = torch.linspace(1e-4, 1 - 1e-4, 801).double()
    logsnr, slope = (value.detach() for value in schedules.rate(schedule, t))
    loss = -0.5 * slope * logsnr.exp() * error(logsnr)
    ax.fill_between(t, loss, color=COLORS["posterior"], alpha=0.35, linewidth=0)
    ax.plot(t, loss, color=COLORS["posterior"])
    ax.axhline(limit, color=COLORS["data"], linestyle=":", linewidth=1.2)
    ax.set(xlim=(0, 1), xticks=[0, 1])
    return t, logsnr
