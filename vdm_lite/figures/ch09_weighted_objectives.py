"""Figures of chapter 9: weights, densities, and what a weight does.

A weight w is black, the density p of noise levels ocher, and what multiplies the error rust.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite import quadrature
from vdm_lite.figures.base import COLORS, LEVEL, LINES, image_grid, shades
from vdm_lite.schedules import density
from vdm_lite.weighting import Recipe, is_monotone


def pieces(logsnr: Tensor, p: Tensor, ratio: Tensor, w: Tensor, ax: Axes | None = None) -> Axes:
    """The density, the error ratio and their product, the implied weight, each (N,)."""
    ax = ax or plt.gca()
    ax.semilogy(logsnr, p, color=COLORS["prior"], label="density $p$")
    ax.semilogy(logsnr, ratio, color=COLORS["network"], label="error ratio")
    ax.semilogy(logsnr, w, color=COLORS["data"], label="weight $w$")
    ax.set(xlabel=LEVEL, ylabel="factor")
    ax.legend()
    return ax


def monotone_and_not(recipes: Mapping[str, Recipe]) -> Figure:
    """The recipes' weights, each with maximum 1: those that never rise left, the others right."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 4.4), sharey=True)
    logsnr = torch.linspace(-5, 13.3, 400, dtype=torch.float64)
    for ax, falls in zip(axes, (True, False), strict=True):
        shown = {n: r.weight(logsnr) for n, r in recipes.items() if is_monotone(r.weight) is falls}
        colors = shades(len(shown))
        for (name, w), style, color in zip(shown.items(), LINES, colors, strict=False):
            ax.semilogy(logsnr, w / w.max(), color=color, linestyle=style, label=name)
        ax.set(title="never rise" if falls else "rise, then fall", xlabel=LEVEL, ylim=(1e-5, 1.5))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel("$w$ / maximum")
    return figure


def arc_and_chord(level: float, ax: Axes | None = None) -> Axes:
    """Two paths of (alpha, sigma) with a dot at each tenth of time, and their velocities.

    The weight of a path is the area that it sweeps (eq-equal-areas).
    """
    if ax is None:
        ax = plt.subplots(figsize=(4.8, 4.8))[1]
    t = torch.linspace(0, 1, 101)
    arc = torch.stack([torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)])
    chord = torch.stack([1 - t, t])
    for name, path, line in (("cosine", arc, "-"), ("flow-matching", chord, "--")):
        ax.plot(*path, line, color=COLORS["latent"], label=name)
        ax.plot(*path[:, ::10], "o", color=COLORS["latent"], markersize=4)
        for x, y in path[:, ::10].T.tolist():
            ax.plot((0, x), (0, y), color=COLORS["noise"], linewidth=0.5, linestyle=line)
    _velocities(ax, level)
    ax.set(xlabel="coefficient of $x$", ylabel="coefficient of $\\epsilon$", aspect="equal")
    ax.set(xlim=(0, 1.08), ylim=(0, 1.08))
    ax.legend(loc="upper right")
    return ax


def _velocities(ax: Axes, level: float) -> None:
    """The ray of one noise level, and on it v along the arc and u along the chord."""
    alpha, sigma = ((1 + math.exp(sign * level)) ** -0.5 for sign in (-1, 1))
    ax.plot((0, alpha), (0, sigma), color=COLORS["noise"], linewidth=2)
    total, length = alpha + sigma, 0.25
    starts = {"v": (alpha, sigma), "u": (alpha / total, sigma / total)}
    arrows = {"v": (-sigma, alpha), "u": (-1.0, 1.0)}
    for name, (x, y) in starts.items():
        tip = (x + length * arrows[name][0], y + length * arrows[name][1])
        arrow = {"arrowstyle": "-|>", "color": COLORS["network"], "lw": 2}
        ax.annotate("", tip, (x, y), arrowprops=arrow)
        ax.annotate(f"$\\mathbf{{{name}}}$", tip, (4, 4), textcoords="offset points", size=12)


def shifted(sides: Sequence[int], ax: Axes | None = None) -> Axes:
    """w / exp(-lambda/2) of the velocity loss for images of d x d pixels, 1 at the clean end.

    The curve is (eq-weight-shifted), the ratio of its ends (eq-shift-ends).
    """
    ax = ax or plt.gca()
    logsnr = torch.linspace(-10, 10, 401)
    for d, color in zip(sides, shades(len(sides)), strict=True):
        s = 2 * math.log(64 / d)
        r = torch.cosh(logsnr / 2) / torch.cosh((logsnr - s) / 2)
        ax.semilogy(logsnr, r / math.exp(s / 2), color=color, label=f"$d={d}$")
        ax.axhline((d / 64) ** 2, color=color, linestyle=":", linewidth=1)
    ends = [(d / 64) ** 2 for d in sides]
    ax.set(xlabel=LEVEL, ylabel="$w\\;/\\;e^{-\\lambda/2}$")
    ax.set_yticks(ends, [f"{end:g}" for end in ends])
    ax.minorticks_off()
    ax.legend()
    return ax


def excess_curves(logsnr: Tensor, networks: Mapping[int, Mapping[str, Tensor]]) -> Figure:
    """One panel a number of units: the excess noise error (N,) of the networks by their weight.

    Weighted, its area is what the network pays above the least (eq-weighted-excess).
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(7, 3.2), sharey=True)
    for ax, (units, curves) in zip(axes, networks.items(), strict=True):
        for (name, curve), style in zip(curves.items(), LINES, strict=False):
            ax.semilogy(logsnr, curve, style, color=COLORS["network"], label=name)
        ax.set(title=f"{units} units", xlabel=LEVEL, ylim=(1e-7, 2))
    axes[0].set_ylabel("$E\\,(\\hat\\epsilon-\\epsilon^*)^2$")
    axes[-1].legend(title="trained on")
    return figure


def loss_shares(shares: Mapping[str, Tensor], edges: Sequence[float]) -> Axes:
    """One bar a recipe: the share of its loss in each band of noise between the ``edges``."""
    figure, ax = plt.subplots(figsize=(6.4, 4.2))
    names, colors = list(shares), shades(len(edges) - 1)[::-1]
    for band, color in enumerate(colors):
        widths = [100 * share[band].item() for share in shares.values()]
        left = [100 * share[:band].sum().item() for share in shares.values()]
        label = f"{edges[band]:g} to {edges[band + 1]:g}"
        ax.barh(names, widths, left=left, color=color, height=0.7, label=label)
    ax.invert_yaxis()
    ax.set(xlabel="share of the loss in %", xlim=(0, 100))
    figure.legend(title=LEVEL, ncols=len(colors), loc="outside upper center")
    return ax


def explore(recipes: Mapping[str, Recipe]) -> Figure:
    """One panel a recipe: p, w (both with area 1) and w / p over log SNR.

    The last is the factor that any schedule needs to give w (eq-weight-explicit).
    """
    rows = len(recipes) // 2 + 1  # so that a place stays free, for the legend
    figure, axes = plt.subplots(rows, 2, figsize=(6.4, 1.9 * rows), sharex=True, sharey=True)
    nodes, weights = quadrature.interval(-5.0, 13.3)
    logsnr = torch.linspace(-4.999, 13.299, 300, dtype=torch.float64)
    for ax, (name, recipe) in zip(axes.flat, recipes.items(), strict=False):
        p = density(recipe.schedule, logsnr)
        w = recipe.weight(logsnr) / (weights * recipe.weight(nodes)).sum()
        ax.semilogy(logsnr, p, color=COLORS["prior"], label="$p$")
        ax.semilogy(logsnr, w, color=COLORS["data"], linestyle="--", label="$w$")
        ax.semilogy(logsnr, w / p, color=COLORS["network"], linestyle=":", label="$w/p$")
        ax.set(title=name, ylim=(1e-5, 300))
    for ax in axes.flat[len(recipes) :]:
        ax.axis("off")
    axes[-1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    for ax in axes.flat[len(recipes) - 2 : len(recipes)]:
        ax.set_xlabel(LEVEL)
        ax.tick_params(labelbottom=True)
    return figure


def bands(logsnr: Tensor, errors: Tensor, edges: Sequence[float], noisy: Tensor) -> Figure:
    """The noise error (N,) over bands of noise, and below each an image (bands, 1, H, W) in it."""
    names, colors = [f"band {i}" for i in range(len(noisy))], shades(len(noisy))[::-1]
    layout = [["curve"] * len(names), names]
    figure, axes = plt.subplot_mosaic(layout, figsize=(6.4, 4.6), height_ratios=(1.3, 1))
    axes["curve"].plot(logsnr, errors, color=COLORS["network"])
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        axes["curve"].axvspan(edges[i], edges[i + 1], color=color, alpha=0.35, linewidth=0)
        image_grid(noisy[i : i + 1], ax=axes[name])
        axes[name].set_title(f"$\\lambda={(edges[i] + edges[i + 1]) / 2:.3g}$")
    label = "$E\\,||\\epsilon-\\hat\\epsilon||^2$"
    axes["curve"].set(xlabel=LEVEL, ylabel=label, xlim=(edges[0], edges[-1]), ylim=(0, None))
    return figure
