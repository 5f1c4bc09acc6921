"""Figures of chapter 2."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.aggregate import AggregatePosterior, grid
from vdm_lite.figures.base import COLORS

SHARES = (0.5, 0.9, 0.99)  # of the prior's mass, inside its three rings


def prior_rings(ax: Axes) -> Axes:
    """Circles that hold 50, 90 and 99 percent of N(0, I) in the plane."""
    for share in SHARES:
        radius = math.sqrt(-2 * math.log(1 - share))
        ring = plt.Circle((0, 0), radius, fill=False, edgecolor=COLORS["prior"], linewidth=1.4)
        ax.add_patch(ring)
    ax.set(aspect="equal", xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), xlabel="unit 1", ylabel="unit 2")
    return ax


def aggregate(q: AggregatePosterior, ax: Axes | None = None) -> Axes:
    """The density of two latents over all data (blue), in the rings of the prior (ocher)."""
    ax = ax or plt.gca()
    z, _ = grid(2, 121, 3.6, q.q.mean)
    density = q.log_prob(z).exp().view(121, 121).T
    shown = LinearSegmentedColormap.from_list("posterior", ["white", COLORS["posterior"]])
    # Dense spots saturate, so that the thin parts can be seen.
    top = density.max().clamp(max=0.3).item()
    extent = (-3.6, 3.6, -3.6, 3.6)
    ax.imshow(density, cmap=shown, vmin=0, vmax=top, origin="lower", extent=extent)
    return prior_rings(ax)


def data_and_latents(x: Tensor, q: AggregatePosterior) -> Figure:
    """The data on the left; on the right their aggregate posterior against the prior."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.2))
    _dots(left, x, "data")
    left.set(title="data")
    aggregate(q, right).set(title="prior and aggregate posterior")
    return figure


def hole_samples(z: Tensor, x: Tensor, hole: Tensor, means: Tensor, radius: float) -> Figure:
    """Draws of the prior and what they decode to; those of ``hole`` (B,) stand out.

    They have the color of the prior, which alone goes there; the others that of the posterior.
    Circles of this ``radius`` around the ``means`` (K, 2) hold practically all data.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4))
    for ax, points in ((left, z), (right, x)):
        _dots(ax, points[~hole], "posterior", "elsewhere")
        _dots(ax, points[hole], "prior", "from a hole")
    prior_rings(left).set(title="drawn from the prior")
    for center in means.tolist():
        ring = plt.Circle(center, radius, fill=False, edgecolor=COLORS["data"], linewidth=1.2)
        right.add_patch(ring)
    right.set(title="decoded")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, markerscale=4)
    return figure


def collapse(betas: Tensor, costs: Tensor, measured: Mapping[float, Tensor]) -> Figure:
    """Cost of each unit against beta: curves (betas, units), and dots of the trained models.

    The curves are (eq-unit-cost).
    """
    figure, ax = plt.subplots()
    curves = ax.plot(betas, costs, color=COLORS["posterior"])
    for beta, cost in measured.items():
        dots = ax.plot([beta] * len(cost), cost, "o", color=COLORS["network"], clip_on=False)
    ax.legend([curves[0], dots[0]], ["closed form", "trained"])
    ax.set(xscale="log", xlabel="$\\beta$", ylabel="nats per unit", ylim=(0, None))
    ticks = (0.25, 0.5, 1, 2, 4)
    ax.set_xticks(ticks, [f"{beta:g}" for beta in ticks])
    ax.minorticks_off()
    return figure


def beta_panels(
    views: Mapping[str, tuple[AggregatePosterior, Tensor]], threshold: float = 0.01
) -> Figure:
    """One column a model: prior against aggregate posterior, and the cost of each unit (units,).

    The dotted line is the ``threshold`` below which a unit counts as inactive.
    """
    figure, axes = plt.subplots(2, len(views), figsize=(7.2, 3.8), height_ratios=(2, 1))
    for (top, meter), (title, (q, costs)) in zip(axes.T, views.items(), strict=True):
        aggregate(q, top).set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
        _meter(meter, costs, threshold)
        meter.label_outer()
    axes[1, 0].set_ylabel("nats")
    return figure


def cure(logsnr: Tensor, bounds: Mapping[str, Tensor]) -> Figure:
    """Divergences (levels,) against the lowest log SNR, on a logarithmic axis.

    The bound that they stay below is (eq-no-holes).
    """
    figure, ax = plt.subplots()
    styles = [("prior", "-"), ("prior", "--"), ("posterior", "-"), ("latent", ":")]
    for (name, value), (color, line) in zip(bounds.items(), styles, strict=False):
        ax.semilogy(logsnr, value, line, color=COLORS[color], label=name)
    ax.invert_xaxis()
    ax.set(xlabel="$\\lambda_{\\min}$", ylabel="nats")
    ax.legend()
    return figure


def _dots(ax: Axes, points: Tensor, quantity: str, label: str | None = None) -> None:
    ax.scatter(*points.T, s=3, color=COLORS[quantity], alpha=0.6, linewidths=0, label=label)
    ax.set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), xlabel="$x_1$", ylabel="$x_2$")


def _meter(ax: Axes, costs: Tensor, threshold: float) -> None:
    """Bars of the units' costs on a logarithmic axis; inactive ones are hollow."""
    floor = 1e-4
    names = [str(i) for i in range(1, len(costs) + 1)]
    active = (costs > threshold).tolist()
    faces = [COLORS["latent"] if on else "none" for on in active]
    ax.bar(names, costs.clamp(min=floor), 0.6, color=faces, edgecolor=COLORS["latent"])
    ax.axhline(threshold, color=COLORS["data"], linestyle=":", linewidth=1.2)
    ax.set(
        yscale="log",
        ylim=(floor / 2, 10),
        xlabel="unit",
        title=f"{sum(active)} of {len(costs)} active",
    )
