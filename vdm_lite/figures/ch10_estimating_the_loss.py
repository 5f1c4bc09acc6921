"""Figures of chapter 10."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.figures.base import COLORS

TIMES, REST = COLORS["latent"], COLORS["noise"]  # the two parts of a loss's variance


def loss_over_time(
    t: Tensor, mean: Tensor, std: Tensor, batch: tuple[Tensor, Tensor], ax: Axes | None = None
) -> Axes:
    """Mean and standard deviation of a one-sample loss at each time (N,), and one batch of it."""
    ax = ax or plt.gca()
    low, high = (mean - std).clamp(min=0), mean + std
    ax.fill_between(t, low, high, color=REST, alpha=0.35, linewidth=0, label="± std at this time")
    ax.plot(t, mean, color=TIMES, label="mean at this time")
    level = torch.trapezoid(mean, t).item()
    ax.axhline(level, color=COLORS["data"], linewidth=1, linestyle=":", label="mean over all times")
    ax.plot(*batch, ".", color=COLORS["network"], markersize=5, label="one batch")
    ax.set(xlabel="$t$", ylabel="one-sample loss in nats", ylim=(-0.5, 40))
    ax.legend()
    return ax


def time_parts(names: Sequence[str], sizes: Tensor, parts: Tensor, laws: Tensor) -> Axes:
    """What the times add to the variance of a batch loss, (sizes, names), and its laws (dashed)."""
    ax = plt.gca()
    for name, marker, part, law in zip(names, "osD", parts.T, laws.T, strict=True):
        ax.loglog(sizes, part, marker, color=TIMES, markersize=5, label=name)
        ax.loglog(sizes, law, "--", color=COLORS["data"], linewidth=1, zorder=1)
    ax.set(xlabel="batch size $k$", ylabel="t-part in nats$^2$")
    ax.legend()
    return ax


def densities(logsnr: Tensor, curves: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """Up to three densities over noise levels, (N,) each."""
    ax = ax or plt.gca()
    styles = (("data", ":"), ("posterior", "-"), ("likelihood", "--"))
    for (name, p), (color, line) in zip(curves.items(), styles, strict=False):
        ax.plot(logsnr, p, line, color=COLORS[color], label=name)
    ax.set(xlabel="log SNR $\\lambda$", ylabel="density", ylim=(0, None))
    ax.legend()
    return ax


def learned_densities(
    views: Mapping[str, tuple[Tensor, Tensor]], variances: Mapping[str, tuple[Tensor, float]]
) -> Figure:
    """Above, learned histogram and target (bins,) of each view; below, its variance and the least.

    The first entry of ``views`` and of ``variances`` belong together, and so on; a variance is a
    table (checkpoints, 2) of steps and values.
    """
    figure, axes = plt.subplots(2, len(views), figsize=(6.4, 4.8), sharex="row", sharey="row")
    pairs = zip(views.items(), variances.values(), strict=True)
    for (top, bottom), ((name, (learned, target)), (path, least)) in zip(
        axes.T, pairs, strict=True
    ):
        t = (torch.arange(len(learned)) + 0.5) / len(learned)
        top.stairs(learned, torch.linspace(0, 1, len(learned) + 1), color=COLORS["network"])
        top.plot(t, target, color=COLORS["data"], linewidth=1)
        top.set(title=name, xlabel="$t$", ylim=(0, None))
        bottom.semilogx(*path.T, "o-", color=COLORS["network"], markersize=4)
        bottom.axhline(least, color=COLORS["data"], linewidth=1)
        bottom.set_xlabel("updates")
    axes[0, 0].set_ylabel("density $p(t)$")
    highest = max(path[:, 1].max().item() for path, _ in variances.values())
    axes[1, 0].set(ylabel="variance in nats$^2$", ylim=(0, 1.1 * highest))
    return figure


def batch_histograms(columns: Mapping[str, Mapping[str, Tensor]], truth: float) -> Figure:
    """Batch losses (batches,) under each sampler, one row a sampler, one column a setting.

    A line marks the truth; the bar below each histogram spans one standard deviation either way.
    """
    rows = len(next(iter(columns.values())))
    size = (6.4, 1.25 * rows)
    figure, axes = plt.subplots(rows, len(columns), figsize=size, sharex="col", squeeze=False)
    for column, (title, losses) in zip(axes.T, columns.items(), strict=True):
        for ax, (name, values) in zip(column, losses.items(), strict=True):
            _histogram(ax, values, truth, next(iter(losses.values())).std().item())
            ax.annotate(name, (0.01, 0.98), xycoords="axes fraction", va="top", size=8)
        column[0].set_title(title)
        column[-1].set_xlabel("batch loss in nats per coordinate")
    return figure


def _histogram(ax: Axes, values: Tensor, truth: float, width: float) -> None:
    span = (truth - 3.5 * width, truth + 3.5 * width)
    ax.hist(values, 61, range=span, color=TIMES, alpha=0.6, density=True)
    ax.axvline(truth, color=COLORS["data"], linewidth=1)
    top = ax.get_ylim()[1]
    std = values.std().item()
    ax.plot([truth - std, truth + std], [-0.12 * top] * 2, color=TIMES, linewidth=3)
    ax.set(yticks=[], xlim=span)
    ax.spines["left"].set_visible(False)


def variance_bars(parts: Mapping[str, Tensor], ax: Axes | None = None) -> Axes:
    """One horizontal bar for each sampler: the parts (2,) of the times and of data and noise."""
    ax = ax or plt.gca()
    names = list(parts)
    of_times, rest = torch.stack(list(parts.values())).T
    ax.barh(names, of_times, color=TIMES, label="times")
    ax.barh(names, rest, left=of_times, color=REST, label="data and noise")
    ax.invert_yaxis()
    ax.legend()
    return ax
