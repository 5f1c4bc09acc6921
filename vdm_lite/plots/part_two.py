"""Figures of chapters 4 to 6."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.elbo import Elbo, diffusion_from_mmse
from vdm_lite.exact import GaussianMixture
from vdm_lite.gaussian import Normal
from vdm_lite.plots.base import COLORS, bells, elbo_bars, image_grid
from vdm_lite.schedules import Schedule, rate


def posterior_panels(views: Mapping[str, tuple[Mapping[str, Normal], Tensor]]) -> Figure:
    """One column a view: prior, likelihood and posterior of a pixel above z_t, mean and draw."""
    size = (6, 4)  # small, so that its letters can be read on a phone
    figure, axes = plt.subplots(2, len(views), figsize=size, height_ratios=(2, 1), squeeze=False)
    for (top, bottom), (title, (curves, images)) in zip(axes.T, views.items(), strict=True):
        bells(curves, top).set(title=title, ylabel="")
        image_grid(images, ax=bottom)
        for i, name in enumerate(("$z_t$", "$\\mu_Q$", "draw")):
            place = ((i + 0.5) / 3, 1.05)
            bottom.annotate(name, place, xycoords="axes fraction", ha="center", va="bottom")
        top.get_legend().remove()
    axes[0, 0].set_ylabel("density")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def forward_density(
    toy: GaussianMixture, schedule: Schedule, paths: Tensor | None = None, ax: Axes | None = None
) -> Axes:
    """The density q(z_t) of one-dimensional data over time, with ``paths`` (times, N) on top."""
    ax = ax or plt.gca()
    t, z = torch.linspace(0, 1, 241).double(), torch.linspace(-3.5, 3.5, 351).double()
    grid = torch.cartesian_prod(z, t)
    density = toy.log_marginal(grid[:, :1], schedule(grid[:, 1])).exp().view(len(z), len(t))
    shown = density / density.amax(0)
    extent = (0, 1, -3.5, 3.5)
    ax.imshow(shown, cmap="gray_r", vmax=2, origin="lower", extent=extent, aspect="auto")
    if paths is not None:
        time = torch.linspace(0, 1, len(paths))
        ax.plot(time, paths.cpu(), color=COLORS["latent"], linewidth=0.8)
    ax.set(xlabel="$t$", ylabel="$z_t$", ylim=(-3.5, 3.5))
    return ax


def correlations(matrices: Sequence[Tensor], titles: Sequence[str], names: Sequence[str]) -> Figure:
    """Correlation matrices side by side, with their values written in; ``names`` are the times."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(5.6, 3), squeeze=False)
    ticks = range(len(names))
    for ax, matrix, title in zip(axes.flat, matrices, titles, strict=True):
        ax.imshow(matrix, cmap="Purples", vmin=0, vmax=1)
        for i, j in torch.cartesian_prod(*2 * [torch.arange(len(names))]).tolist():
            ink = "white" if matrix[i, j] > 0.6 else "black"
            ax.annotate(f"{matrix[i, j]:.2f}", (j, i), ha="center", va="center", color=ink, size=8)
        ax.set(title=title, xticks=ticks, yticks=ticks, xlabel="$t$", xticklabels=names)
        ax.set_yticklabels(names if ax is axes[0, 0] else [])
    axes[0, 0].set_ylabel("$t$")
    return figure


def information_curves(
    logsnr: Tensor, finite: Tensor, continuous: Tensor, entropy: Tensor, ax: Axes | None = None
) -> Axes:
    """I(x; z_t) of a finite and a continuous toy against log SNR, noisier to the right."""
    ax = ax or plt.gca()
    ax.plot(logsnr, finite, color=COLORS["latent"], label="8 levels")
    ax.plot(logsnr, continuous, "--", color=COLORS["latent"], label="two bumps")
    ax.axhline(entropy.item(), color=COLORS["data"], linewidth=1, linestyle=":")
    ax.annotate(
        "$H(X)$ of the 8 levels",
        (logsnr[-1].item(), entropy.item()),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    ax.set(xlabel="log SNR $\\lambda_t$", ylabel="$I(x; z_t)$ in nats", ylim=(0, None))
    ax.invert_xaxis()
    ax.legend()
    return ax


def float32_errors(table: Tensor, expm1: Tensor, ax: Axes | None = None) -> Axes:
    """Relative errors (steps,) of the posterior variance against t, on a logarithmic axis."""
    ax = ax or plt.gca()
    t = torch.linspace(0, 1, len(table) + 1)[1:]
    floor = torch.finfo(torch.float32).eps / 100  # an error of 0 has no logarithm
    for error, color, label in ((table, "data", "table form"), (expm1, "posterior", "expm1 form")):
        ax.semilogy(t, error.clamp(min=floor), ".", color=COLORS[color], markersize=2, label=label)
    ax.set(xlabel="$t$", ylabel="relative error of $\\sigma_Q^2$")
    ax.legend(markerscale=5)
    return ax


def error_rectangles(
    error: Callable[[Tensor], Tensor], schedule: Schedule, steps: int, ax: Axes | None = None
) -> Axes:
    """Error curve over v = SNR, and the rectangle of each layer, as high as its noisier end.

    ``error`` takes levels (N,) to E||x - x_hat||^2, (N,).
    """
    ax = ax or plt.gca()
    logsnr = schedule(torch.linspace(0, 1, steps + 1).double())
    base, height = -logsnr.exp().diff(), error(logsnr[1:])
    ink = COLORS["network"]
    ax.bar(logsnr[1:].exp(), height, base, align="edge", facecolor=(ink, 0.25), edgecolor=ink)
    fine = torch.linspace(logsnr[-1], logsnr[0], 400).double()
    ax.fill_between(fine.exp(), error(fine), color=COLORS["posterior"], alpha=0.35, linewidth=0)
    ax.plot(fine.exp(), error(fine), color=COLORS["posterior"])
    ax.set(xlabel="$v = $ SNR", ylabel="$E\\,||x-\\hat x||^2$", ylim=(0, None))
    return ax


def depth(
    error: Callable[[Tensor], Tensor], schedule: Schedule, shown: Sequence[int], slope: float
) -> Figure:
    """Rectangles for each depth of ``shown``, and below them the gap L_T - L_inf against T.

    The dashed line is ``slope / T``, what the gap tends to.
    """
    panels = [f"T{steps}" for steps in shown]
    figure, axes = plt.subplot_mosaic([panels, ["gap"] * len(panels)], figsize=(7, 5.2))
    for panel, steps in zip(panels, shown, strict=True):
        error_rectangles(error, schedule, steps, axes[panel]).set_title(f"$T={steps}$")
    for panel in panels[1:]:
        axes[panel].set_ylabel("")
    steps = [2**k for k in range(11)]
    limit = diffusion_from_mmse(error, schedule)
    gaps = [(diffusion_from_mmse(error, schedule, n) - limit).item() for n in steps]
    axes["gap"].loglog(steps, gaps, "o", color=COLORS["network"], label="gap")
    tends = [slope / n for n in steps]
    axes["gap"].loglog(steps, tends, "--", color=COLORS["posterior"], label="$1/T$ law")
    axes["gap"].set(xlabel="layers $T$", ylabel="$L_T - L_\\infty$ in nats")
    axes["gap"].legend()
    return figure


def three_areas(error: Callable[[Tensor], Tensor], schedules: Mapping[str, Schedule]) -> Figure:
    """One diffusion cost as an area over SNR, over log SNR, and over the time of two schedules.

    All four panels have the same area: L_inf, in nats.
    """
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 5))
    first = next(iter(schedules.values()))
    t = torch.linspace(0, 1, 401).double()
    logsnr = first(t)
    half = 0.5 * error(logsnr)
    curves = [("over SNR", "$v$", logsnr.exp(), half)]
    curves += [("over log SNR", "$\\lambda$", logsnr, half * logsnr.exp())]
    for name, schedule in schedules.items():
        level, slope = rate(schedule, t)
        curves += [(f"over time, {name}", "$t$", t, -slope * level.exp() * 0.5 * error(level))]
    for ax, (title, axis, at, cost) in zip(axes.flat, curves, strict=True):
        ax.fill_between(at, cost, color=COLORS["posterior"], alpha=0.35, linewidth=0)
        ax.plot(at, cost, color=COLORS["posterior"])
        ax.set(title=title, xlabel=axis, ylim=(0, None))
    figure.supylabel("nats per unit of the axis", size=10)
    return figure


def elbo_panels(views: Sequence[Mapping[str, Elbo]], floor: float) -> Figure:
    """Rows of ``elbo_bars`` on one common axis; a dotted line at ``floor`` marks the least."""
    figure, axes = plt.subplots(len(views), 1, figsize=(6.4, 1.8 * len(views)), sharex=True)
    for ax, view in zip(axes, views, strict=True):
        elbo_bars(view, ax=ax).axvline(floor, color=COLORS["data"], linestyle=":", linewidth=1.2)
        ax.get_legend().remove()
        ax.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def bits_curve(
    history: Mapping[int, Tensor], references: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Bits/dim against the training step; the last entry of each (4,) in ``history`` is the total.

    ``references`` are models to compare with: a dotted line each, with its name.
    """
    ax = ax or plt.gca()
    total = [costs[-1].item() for costs in history.values()]
    ax.plot(list(history), total, "o-", color=COLORS["network"], markersize=4)
    for name, bits in references.items():
        ax.axhline(bits, color=COLORS["data"], linestyle=":", linewidth=1.2)
        ax.annotate(name, (max(history), bits), (0, 3), textcoords="offset points", ha="right")
    ax.set(xlabel="training step", ylabel="bits/dim", ylim=(1.5, 4.5))
    return ax
