"""Figures of chapter 1."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import MultivariateNormal

from vdm_lite.elbo import Elbo
from vdm_lite.figures.base import COLORS, ELBO_COLORS, ellipse, image_grid
from vdm_lite.gaussian import Normal


def monte_carlo_errors(
    dims: Sequence[int], formula: Tensor, measured: Tensor, ax: Axes | None = None
) -> Axes:
    """Relative error of the naive estimate of p(x) against the number of latents, (N,) each.

    (eq-naive-error) gives the law.

    The law has the color of the prior, which the draws come from.
    """
    ax = ax or plt.gca()
    ax.semilogy(dims, formula, color=COLORS["prior"], label="closed form")
    ax.semilogy(dims, measured, "o", color=COLORS["data"], markersize=5, label="measured")
    ax.axhline(1, color=COLORS["data"], linewidth=1, linestyle=":")
    ax.set(xlabel="latents $n$", ylabel="relative error of $\\hat p(x)$")
    ax.legend()
    return ax


def posterior_contours(
    exact: MultivariateNormal, mean_field: MultivariateNormal, ax: Axes | None = None
) -> Axes:
    """Two Gaussians in the plane as the ellipses of one and two standard deviations."""
    ax = ax or plt.gca()
    curves = (
        ("exact $p(z|x)$", exact, "latent", "-"),
        ("mean field", mean_field, "posterior", "--"),
    )
    for name, normal, quantity, line in curves:
        first = MultivariateNormal(normal.mean[0], scale_tril=normal.scale_tril[0])
        for radius in (1, 2):
            label = name if radius == 1 else None
            ellipse(first, ax, radius, color=COLORS[quantity], linestyle=line, label=label)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def explorer(
    posterior: Normal, evidence: float, views: Mapping[str, tuple[Normal, Elbo]]
) -> Figure:
    """For each choice of q, two to a row: prior, exact posterior and q above the costs in nats.

    The lower bar of each pair is ``-log p(x)`` and the gap: both bars have one length.
    """
    rows = math.ceil(len(views) / 2)
    ratios, size = rows * (2, 1), (5.4, 3.2 * rows)  # narrow, so that a phone can show it
    figure, axes = plt.subplots(2 * rows, 2, figsize=size, height_ratios=ratios, squeeze=False)
    z = torch.linspace(-3, 4, 500, dtype=posterior.mean.dtype)
    widest = max(costs.nelbo.item() for _, costs in views.values())
    for i, (title, (q, costs)) in enumerate(views.items()):
        top, bottom = axes[2 * (i // 2), i % 2], axes[2 * (i // 2) + 1, i % 2]
        _curve(top, z, Normal(torch.zeros(1), torch.ones(1)), "prior", "prior")
        _curve(top, z, posterior, "latent", "exact posterior")
        _curve(top, z, q, "posterior", "$q$", "--")
        top.set(title=title, xlabel="$z$", ylim=(0, 1.6))
        _bars(bottom, costs, evidence)
        bottom.set_xlim(0, 1.02 * widest)
    for ax in axes[::2, 0]:
        ax.set_ylabel("density")
    for ax, place in ((axes[0, 0], "upper"), (axes[1, 0], "lower")):
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, ncols=4, columnspacing=1, loc=f"outside {place} center")
    return figure


def _curve(ax: Axes, z: Tensor, normal: Normal, quantity: str, label: str, line: str = "-") -> None:
    bell = torch.distributions.Normal(normal.mean.item(), normal.var.sqrt().item())
    density = bell.log_prob(z).exp()
    ax.plot(z, density, line, color=COLORS[quantity], label=label)
    ax.fill_between(z, density, color=COLORS[quantity], alpha=0.12, linewidth=0)


def _bars(ax: Axes, costs: Elbo, evidence: float) -> None:
    """Reconstruction and KL above, ``-log p(x)`` and gap below."""
    first, second = costs.reconstruction.item(), costs.prior.item()
    gap = first + second - evidence
    ax.barh(1, first, color=ELBO_COLORS["reconstruction"], label="reconstruction")
    ax.barh(1, second, left=first, color=ELBO_COLORS["prior"], label="KL")
    ax.barh(0, evidence, color=COLORS["data"], label="$-\\log p(x)$")
    ax.barh(0, gap, left=evidence, color=COLORS["posterior"], label="gap")
    ax.set(yticks=[], xlabel="nats")
    ax.set_title(f"KL {second:.2f}, gap {max(gap, 0):.2f}", size=9)


def importance_bounds(
    draws: Sequence[int], bounds: Tensor, errors: Tensor, truth: float, ax: Axes | None = None
) -> Axes:
    """IWAE_k against k with bars of one standard error, below the exact ``log p(x)``."""
    ax = ax or plt.gca()
    ax.axhline(truth, color=COLORS["data"], linestyle=":", label="$\\log p(x)$")
    style = {"fmt": "o-", "color": COLORS["posterior"], "markersize": 4, "capsize": 3}
    ax.errorbar(draws, bounds, errors, label="IWAE$_k$", **style)
    ax.set(xscale="log", xlabel="draws $k$", ylabel="nats per example")
    ax.legend(loc="lower right")
    return ax


def gradient_variances(
    latents: Sequence[int],
    curves: Mapping[str, Tensor],
    measured: Mapping[str, Tensor],
    ax: Axes | None = None,
) -> Axes:
    """Variances of four gradient estimators against the number of latents: lines and marks.

    The lines are (eq-gradient-variance).

    All have the color of the posterior, which is what they move; line and mark tell them apart.
    """
    ax = ax or plt.gca()
    style = {"color": COLORS["posterior"], "markersize": 5}
    lines = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
    for (line, mark), (name, curve) in zip(lines, curves.items(), strict=True):
        ax.loglog(latents, curve, line, label=name, **style)
        ax.loglog(latents, measured[name], mark, **style)
    ax.set(xlabel="latents $n$", ylabel="variance of the gradient")
    ax.set_xticks(latents, [str(n) for n in latents])
    ax.minorticks_off()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def image_rows(rows: Mapping[str, Tensor]) -> Figure:
    """Rows of images (N, 1, H, W) in [-1, 1], each named on its left."""
    columns = len(next(iter(rows.values())))
    figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 6.0 * len(rows) / columns))
    for ax, (name, images) in zip(axes, rows.items(), strict=True):
        image_grid(images, columns, ax=ax)
        ax.annotate(name, (-0.01, 0.5), xycoords="axes fraction", ha="right", va="center")
    return figure


def two_modes(z: Tensor, exact: Tensor, fits: Sequence[Tensor], ax: Axes | None = None) -> Axes:
    """A posterior density (N,) of two bumps on a grid, and Gaussian fits to it."""
    ax = ax or plt.gca()
    ax.fill_between(z, exact, color=COLORS["latent"], alpha=0.2, linewidth=0)
    ax.plot(z, exact, color=COLORS["latent"], label="exact posterior")
    for fit, line in zip(fits, ("--", ":"), strict=True):
        name = "best Gaussian $q$" if line == "--" else "$q$ that covers both"
        ax.plot(z, fit, line, color=COLORS["posterior"], label=name)
    ax.set(xlabel="$z$", ylabel="density", ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
