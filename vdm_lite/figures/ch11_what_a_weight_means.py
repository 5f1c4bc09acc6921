"""Figures of chapter 11."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.augmentation import Augmentation
from vdm_lite.figures.base import COLORS, LEVEL, image_grid
from vdm_lite.weighting import Weighting


def running_cost(
    logsnr: Tensor, prior: float, cost: Tensor, unit: str = "nats", ax: Axes | None = None
) -> Axes:
    """L against the level (N,), rising: the prior's cost (ocher), on it the layers' (purple).

    L is a sum over layers (eq-tail-layers), in the limit an area (eq-partial-cost) whose slope is
    half the noise error (eq-cost-slope); that of the best denoiser is information (eq-exact-cost).
    """
    ax = ax or plt.gca()
    floor = torch.full_like(cost, prior)
    ax.fill_between(logsnr, floor, color=COLORS["prior"], alpha=0.5, linewidth=0, label="prior")
    ax.fill_between(
        logsnr, floor, cost, color=COLORS["latent"], alpha=0.25, linewidth=0, label="layers"
    )
    ax.plot(logsnr, cost, color=COLORS["latent"], label="$L(\\lambda_t)$")
    ax.set(xlabel=LEVEL, ylabel=unit, xlim=(logsnr[0], logsnr[-1]), ylim=(0, None))
    ax.legend()
    return ax


def stack_of_steps(
    weight: Weighting, stops: Tensor, logsnr_min: float, ax: Axes | None = None
) -> Axes:
    """A falling weight as a stack of equal bars: bar k reaches from logsnr_min to ``stops[k]``.

    The weight is the chance of not having stopped (eq-survival).
    """
    ax = ax or plt.gca()
    total = weight(torch.tensor([logsnr_min]).double()).item()
    height = total / len(stops)
    bottoms = [total - (k + 1) * height for k in range(len(stops))]
    ink = COLORS["latent"]
    lengths = stops - logsnr_min
    ax.barh(bottoms, lengths, height, logsnr_min, align="edge", fc=(ink, 0.2), ec=ink, lw=0.8)
    grid = torch.linspace(logsnr_min, stops.max().item() + 1.5, 300).double()
    ax.plot(grid, weight(grid), color=COLORS["data"])
    ax.plot(stops, [-0.04 * total] * len(stops), "|", color=ink, markersize=9, clip_on=False)
    ax.set(xlabel=LEVEL, ylabel="$w(\\lambda)$", xlim=(logsnr_min, grid[-1]))
    return ax


def weight(augmentation: Augmentation, ax: Axes, scale: float = 1.0) -> Axes:
    """The weight, divided by ``scale``, between the ends of the augmentation."""
    logsnr = _grid(augmentation)
    ax.plot(logsnr, augmentation.weighting(logsnr) / scale, color=COLORS["data"])
    ax.set(xlabel=LEVEL, ylabel="$w$", ylim=(0, None))
    return ax


def signed_density(augmentation: Augmentation, ax: Axes, scale: float = 1.0) -> Axes:
    """p_w / scale: gray where it is positive, hatched where negative; the point mass is written."""
    logsnr = _grid(augmentation)
    density = augmentation.density(logsnr) / scale
    ink = COLORS["noise"]
    ax.fill_between(logsnr, density.clamp(min=0), color=ink, alpha=0.7, linewidth=0)
    below = density < 0
    hatched = {"facecolor": "white", "edgecolor": COLORS["network"], "hatch": "////", "lw": 0.8}
    ax.fill_between(logsnr, density, where=below, **hatched)
    ax.axhline(0, color=COLORS["data"], linewidth=0.8)
    top = max(density.max().item(), -density.min().item(), 0.1)
    end = augmentation.logsnr_max
    tip = (end, 0.75 * top)
    ax.annotate("", tip, (end, 0), arrowprops={"arrowstyle": "-|>", "color": COLORS["data"]})
    mass = augmentation.clean / scale
    label = f"{mass:.2g}" if mass >= 1e-3 else "< 0.001"
    ax.annotate(label, tip, (-4, 0), textcoords="offset points", ha="right", va="top")
    low = -1.1 * top if below.any() else -0.05 * top
    ax.set(xlabel=LEVEL, ylabel="$p_w$", ylim=(low, 1.15 * top))
    return ax


def signed_mixture(augmentation: Augmentation) -> Figure:
    """A weight (left) and its unnormalized p_w (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.8))
    weight(augmentation, left)
    signed_density(augmentation, right)
    return figure


def weights_and_densities(views: Mapping[str, Augmentation]) -> Figure:
    """One row a weight, divided by its value at the noisy end: w on the left, p_w on the right."""
    figure, axes = plt.subplots(len(views), 2, figsize=(6.4, 1.45 * len(views)), sharex=True)
    for (left, right), (title, view) in zip(axes, views.items(), strict=True):
        weight(view, left, view.total).set_title(title, loc="left")
        signed_density(view, right, view.total)
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    return figure


def two_denoisers(
    logsnr: Tensor, errors: Mapping[str, Tensor], costs: Mapping[str, Tensor]
) -> Figure:
    """What two denoisers pay above the best one: their noise error, and L, at each level.

    The difference of their weighted losses is (eq-dominance).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3))
    for ax, curves in ((left, errors), (right, costs)):
        for (name, curve), line in zip(curves.items(), ("-", "--"), strict=True):
            ax.plot(logsnr, curve, line, color=COLORS["network"], label=name)
        ax.set(xlabel=LEVEL)
    left.set(title="excess noise error")
    right.set(title="excess of $L(\\lambda)$, nats")
    left.legend()
    return figure


def cost_and_densities(
    logsnr: Tensor, prior: float, cost: Tensor, views: Mapping[str, Augmentation]
) -> Figure:
    """L in bits/dim above, and below it the normalized densities p_w of several weights."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 4.6), sharex=True)
    running_cost(logsnr, prior, cost, "bits/dim", top).set_xlabel("")
    for (name, view), line in zip(views.items(), ("-", "--", ":", "-."), strict=False):
        density = view.density(logsnr) / view.total
        bottom.plot(logsnr, density, line, color=COLORS["data"], label=name)
    bottom.axhline(0, color=COLORS["noise"], linewidth=0.8)
    bottom.set(xlabel=LEVEL, ylabel="$p_w$")
    bottom.legend()
    return figure


def augmented_images(images: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Images (rows, columns, 1, H, W) in [-1, 1], named by row (left) and by column (above)."""
    size = (6.4, 1.02 * len(rows) + 0.3)
    figure, axes = plt.subplots(*images.shape[:2], figsize=size, squeeze=False)
    for ax, image in zip(axes.flat, images.flatten(0, 1), strict=True):
        image_grid(image[None], ax=ax)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for ax, name in zip(axes[:, 0], rows, strict=True):
        place = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        ax.annotate(name, (0, 0.5), xycoords="axes fraction", **place)
    return figure


def _grid(augmentation: Augmentation) -> Tensor:
    return torch.linspace(augmentation.logsnr_min, augmentation.logsnr_max, 500).double()
