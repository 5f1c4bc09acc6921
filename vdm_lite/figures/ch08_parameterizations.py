"""Figures of chapter 8."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from vdm_lite.exact import GaussianMixture
from vdm_lite.figures.base import COLORS, LEVEL, shades
from vdm_lite.gaussian import alpha, sigma
from vdm_lite.parameterization import (
    IMAGE,
    Parameterization,
    solve,
    target,
)

Amplification = Callable[[Parameterization, Tensor], Tensor]
LINES = {
    "image": (COLORS["data"], "-"),
    "noise": (COLORS["noise"], "-"),
    "score": (COLORS["posterior"], "--"),
    "energy": (COLORS["latent"], "--"),
    "velocity": (COLORS["likelihood"], "-"),
    "flow": (COLORS["prior"], "-"),
    "edm": (COLORS["network"], "-."),
}


def rows(outputs: Sequence[Parameterization], levels: Sequence[float]) -> Figure:
    """What z and each output measure, as unit arrows in the plane of x (right) and eps (up)."""
    figure, axes = plt.subplots(1, len(levels), figsize=(7, 2.5), sharex=True, sharey=True)
    widths = torch.linspace(3, 1.2, len(outputs)).tolist()  # where two coincide, both show
    for ax, level in zip(axes, levels, strict=True):
        logsnr = torch.tensor(level)
        _arrow(ax, alpha(logsnr), sigma(logsnr), COLORS["latent"], 4.5)
        for p, width in zip(outputs, widths, strict=True):
            _arrow(ax, p.a(logsnr), p.b(logsnr), LINES[p.name][0], width)
        ax.set(title=f"$\\lambda={level:g}$", xlabel="share of $x$", aspect="equal")
        ax.set(xlim=(-1.15, 1.15), ylim=(-0.15, 1.15), xticks=[-1, 0, 1], yticks=[0, 1])
    axes[0].set_ylabel("share of $\\epsilon$")
    inks = {"latent $z$": COLORS["latent"], **{p.name: LINES[p.name][0] for p in outputs}}
    lines = [Line2D([], [], color=ink, linewidth=3) for ink in inks.values()]
    figure.legend(lines, list(inks), loc="outside lower center", ncols=len(inks))
    return figure


def _arrow(ax: Axes, x: Tensor, eps: Tensor, color: str, width: float) -> None:
    """An arrow of length one along (x, eps)."""
    length = (x.square() + eps.square()).sqrt()
    style = {"arrowstyle": "-|>", "color": color, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", ((x / length).item(), (eps / length).item()), (0, 0), arrowprops=style)


def scores(z: Tensor, density: Tensor, curves: Mapping[str, Tensor]) -> Axes:
    """Scores against z (N,), over the density of z_t in gray; the second curve is the wrong one."""
    ax = plt.gca()
    styles = ((COLORS["posterior"], "-"), (COLORS["prior"], "--"))
    for (name, curve), (color, line) in zip(curves.items(), styles, strict=True):
        ax.plot(z, curve, color=color, linestyle=line, label=name)
    ax.axhline(0, color=COLORS["noise"], linewidth=0.8)
    shade = ax.twinx()
    shade.fill_between(z, density, color=COLORS["latent"], alpha=0.2, linewidth=0)
    shade.set(ylim=(0, 4 * density.max().item()), yticks=[])
    shade.spines["right"].set_visible(False)
    ax.set(xlabel="$z_t$", ylabel="score", ylim=(-13, 13))
    ax.legend()
    return ax


def amplifications(
    outputs: Sequence[Parameterization], panels: Mapping[str, Amplification]
) -> Figure:
    """One panel for each named factor, (output, levels (N,)) -> (N,), against the log SNR.

    The square of the one for the noise is the first loss of a silent network (eq-start).
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(7.4, 3.2))
    logsnr = torch.linspace(-8, 10, 181)
    for ax, (title, factor) in zip(axes, panels.items(), strict=True):
        for p in outputs:
            color, line = LINES[p.name]
            width = 4 if p.name == "noise" else 2  # it shows behind the score
            curve = factor(p, logsnr)
            ax.semilogy(logsnr, curve, line, color=color, label=p.name, linewidth=width)
        ax.set(title=title, xlabel=LEVEL)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(outputs))
    return figure


def excess_curves(levels: Tensor, curves: Mapping[str, Tensor]) -> Figure:
    """Excess noise error of trained networks against the log SNR, a curve for each output."""
    return _by_output(levels, curves, "excess of $||\\epsilon-\\hat\\epsilon||^2$")


def relative_errors(levels: Tensor, errors: Mapping[str, Tensor]) -> Figure:
    """Errors at ``levels``, each over the least of all outputs there, against the log SNR."""
    least = torch.stack(list(errors.values())).amin(0)
    ratios = {name: error / least for name, error in errors.items()}
    return _by_output(levels, ratios, "error over the least")


def _by_output(levels: Tensor, curves: Mapping[str, Tensor], quantity: str) -> Figure:
    """A curve for each output against the log SNR, on a logarithmic axis."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for name, curve in curves.items():
        color, line = LINES[name]
        ax.semilogy(levels, curve, line, color=color, label=name)
    ax.set(xlabel=LEVEL, ylabel=quantity)
    ax.legend(ncols=2)
    return figure


def curls(
    fields: Mapping[str, Callable[[Tensor], Tensor]],
    log_density: Callable[[Tensor], Tensor],
    loop: Tensor,
    half_width: float = 1.8,
) -> Figure:
    """Curl maps of two-dimensional fields, curl (N, 2) -> (N,), with a closed ``loop`` (N, 2).

    The score of an energy has none (eq-curl-free).

    All maps share one scale. A contour marks where most of z_t lies.
    """
    side = torch.linspace(-half_width, half_width, 81)
    x, y = torch.meshgrid(side, side, indexing="xy")
    grid = torch.stack([x, y], -1).reshape(-1, 2)
    maps = {name: curl(grid).detach().reshape(x.shape) for name, curl in fields.items()}
    top = max(m.abs().quantile(0.98).item() for m in maps.values())
    mass = log_density(grid).detach().exp().reshape(x.shape)
    figure, axes = plt.subplots(1, len(maps), figsize=(7, 2.6), sharex=True, sharey=True)
    for ax, (name, value) in zip(axes, maps.items(), strict=True):
        span = {"cmap": "PuOr", "vmin": -top, "vmax": top, "shading": "auto"}
        picture = ax.pcolormesh(x, y, value, rasterized=True, **span)
        ax.contour(x, y, mass, levels=[0.1 * mass.max().item()], colors="#606060", linewidths=0.8)
        ax.plot(*loop.T, color=COLORS["data"], linewidth=1.5)
        ax.set(title=name, xlabel="$z_1$", aspect="equal")
    axes[0].set_ylabel("$z_2$")
    figure.colorbar(picture, ax=axes, label="curl of $\\hat s$", shrink=0.8)
    return figure


def explorer(
    toy: GaussianMixture,
    levels: Sequence[float],
    outputs: Sequence[Parameterization],
    factors: Mapping[str, Amplification],
) -> Figure:
    """Each exact output of a one-dimensional toy at some levels; below, maps of amplifications."""
    names = [*(p.name for p in outputs), "energy"]
    places = [[name for name in row for _ in range(2)] for row in (names[:3], names[3:])]
    places += [[name for name in factors for _ in range(3)]]
    figure, axes = plt.subplot_mosaic(places, figsize=(7.5, 7))
    for level, color in zip(levels, shades(len(levels)), strict=True):
        z = torch.linspace(-2.5, 2.5, 301)
        for name, curve in _exact_outputs(toy, z, torch.tensor(level), outputs).items():
            axes[name].plot(z, curve, color=color, label=f"$\\lambda={level:g}$", linewidth=1.6)
            axes[name].set(title=name, ylim=(-0.5, 8) if name == "energy" else (-4, 4))
    for name in names[3:]:
        axes[name].set_xlabel("$z_t$")
    figure.legend(*axes["image"].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    for title, factor in factors.items():
        picture = _map(axes[title], outputs, factor)
        axes[title].set(title=title, xlabel=LEVEL)
    maps = [axes[title] for title in factors]
    figure.colorbar(picture, ax=maps, label="amplification", extend="both")
    return figure


def _exact_outputs(
    toy: GaussianMixture, z: Tensor, logsnr: Tensor, outputs: Sequence[Parameterization]
) -> dict[str, Tensor]:
    column = z[:, None]
    best = solve(IMAGE, toy.denoise(column, logsnr), column, logsnr)
    curves = {p.name: target(p, *best).squeeze() for p in outputs}
    return {**curves, "energy": toy.energy(column, logsnr)}


def _map(ax: Axes, outputs: Sequence[Parameterization], factor: Amplification) -> AxesImage:
    """Amplification of each output (rows) against the log SNR, on a common logarithmic scale."""
    logsnr = torch.linspace(-8, 10, 181)
    values = torch.stack([factor(p, logsnr) for p in outputs])
    extent = (-8, 10, len(outputs) - 0.5, -0.5)
    norm = LogNorm(1e-2, 1e2)
    picture = ax.imshow(values, norm=norm, cmap="cividis", extent=extent, aspect="auto")
    ax.set_yticks(range(len(outputs)), [p.name for p in outputs])
    return picture
