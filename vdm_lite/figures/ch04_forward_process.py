"""Figures of chapter 4."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.exact import GaussianMixture
from vdm_lite.figures.base import COLORS, bells, image_grid
from vdm_lite.figures.graphs import generation, graphical_models, top_down
from vdm_lite.gaussian import Normal
from vdm_lite.schedules import Schedule


def two_hierarchies() -> Figure:
    """A hierarchical VAE with top-down inference, and beside it a diffusion model."""
    layers, times = ["$z_1$", "$z_2$", "$z_3$"], ["$z_0$", "$z_{1/2}$", "$z_1$"]
    graphs = {"ladder VAE:\ngeneration": generation(layers)}
    graphs |= {"inference,\nlearned": top_down(layers)}
    graphs |= {"diffusion:\ngeneration": generation(times), "inference,\nfixed": top_down(times)}
    return graphical_models(graphs)


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
    """I(x; z_t) of a finite and a continuous toy against log SNR, noisier to the right.

    I(x; z_t) is (eq-mutual-information); it falls with the noise (eq-data-processing).
    """
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
