"""Figures of the book: one palette, one style, a few small drawing functions.

Each quantity keeps its color in the whole book. On the white panel every color has a contrast of
at least 3:1, and any two stay apart for readers with protanopia, deuteranopia or tritanopia.
Figures keep their white panel in dark mode: dark ink on it is readable on either page.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from torch import Tensor

from vdm_lite.elbo import Elbo, diffusion_from_mmse
from vdm_lite.exact import GaussianMixture
from vdm_lite.gaussian import Normal, sum_except_batch
from vdm_lite.schedules import Schedule, rate

COLORS = {
    "data": "#202020",  # x
    "noise": "#919191",  # ε
    "latent": "#8e3a9e",  # z
    "prior": "#d08000",  # p(z), and what is known before looking
    "posterior": "#3d82fa",  # q(z | x)
    "likelihood": "#2d6347",  # p(x | z), and what an observation says
    "network": "#a63603",  # x̂, ε̂ and the model p
}
ELBO_COLORS = {
    "prior": COLORS["prior"],
    "reconstruction": COLORS["likelihood"],
    "diffusion": COLORS["latent"],
}
RADIUS = 0.28  # of a node of a graphical model, whose neighbors are one unit away
STYLE = {
    "figure.figsize": (6.4, 3.4),
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#606060",
    "axes.prop_cycle": plt.cycler(color=list(COLORS.values())),
    "axes.titlesize": 10,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2.0,
    "mathtext.fontset": "dejavuserif",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Switch matplotlib to the book's style; call it once, in a chapter's import cell."""
    plt.rcParams.update(STYLE)


def shades(n: int, colormap: str = "cividis") -> list[tuple[float, float, float, float]]:
    """``n`` colors from dark to light for an ordered quantity (times, depths, levels of noise)."""
    cmap: Colormap = plt.get_cmap(colormap)
    return [cmap(0.75 * i / max(n - 1, 1)) for i in range(n)]  # the lightest end fades on white


def image_grid(
    images: Tensor, columns: int = 8, levels: int | None = None, ax: Axes | None = None
) -> Axes:
    """Tile images (N, 1 or 3, H, W) into one picture, without axes.

    Floats are shown from -1 (black) to 1; with ``levels``, whole numbers from 0 to levels-1.
    """
    ax = ax or plt.gca()
    low, high = (-1, 1) if levels is None else (0, levels - 1)
    images = ((images.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    ax.imshow(_tile(images, columns).movedim(0, -1).expand(-1, -1, 3).numpy())
    ax.set_axis_off()
    return ax


def _tile(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) to one image (C, rows (H+1) - 1, columns (W+1) - 1) with white gaps."""
    padded = torch.nn.functional.pad(images, (0, 1, 0, 1), value=1.0)
    columns = min(columns, len(images))
    blank = padded.new_ones(-len(images) % columns, *padded.shape[1:])
    rows = torch.cat([padded, blank]).unflatten(0, (-1, columns))
    return rows.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)[:, :-1, :-1]


def scatter(points: Tensor, quantity: str = "data", ax: Axes | None = None) -> Axes:
    """Points (N, 2) in the color of their ``quantity``, on equal axes."""
    ax = ax or plt.gca()
    ax.scatter(*points.detach().cpu().T, s=4, color=COLORS[quantity], alpha=0.5, linewidths=0)
    ax.set_aspect("equal")
    return ax


def density(
    log_prob: Callable[[Tensor], Tensor], half_width: float = 1.6, ax: Axes | None = None
) -> Axes:
    """The density of a 2-D ``log_prob`` (N, 2) -> (N,) on a square around 0: darker is denser."""
    ax = ax or plt.gca()
    side = torch.linspace(-half_width, half_width, 200)
    x, y = torch.meshgrid(side, side, indexing="xy")
    value = log_prob(torch.stack([x, y], -1).reshape(-1, 2)).exp().reshape(x.shape).detach()
    extent = (-half_width, half_width, -half_width, half_width)
    ax.imshow(value, cmap="gray_r", origin="lower", extent=extent, interpolation="bilinear")
    return ax


def elbo_bars(elbos: Mapping[str, Elbo], dims: int | None = None, ax: Axes | None = None) -> Axes:
    """One horizontal bar for each named Elbo: its three mean costs, and their sum at the end.

    In nats per example, or in bits/dim if the number of dimensions ``dims`` is given.
    """
    ax = ax or plt.gca()
    unit = 1.0 if dims is None else dims * math.log(2)
    names = list(elbos)
    ends = [0.0] * len(names)
    for term, color in ELBO_COLORS.items():
        widths = [sum_except_batch(getattr(e, term)).mean().item() / unit for e in elbos.values()]
        ax.barh(names, widths, left=ends, color=color, height=0.6, label=term)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for i, end in enumerate(ends):
        ax.annotate(f"{end:.3g}", (end, i), (4, 0), textcoords="offset points", va="center")
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set_xlabel("nats" if dims is None else "bits/dim")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def trajectories(t: Sequence[float], z: Tensor, ax: Axes | None = None) -> Axes:
    """Paths of 1-D latents z (times, N) against time ``t``, noisy (t = 1) on the left."""
    ax = ax or plt.gca()
    ax.plot(t, z.detach().cpu(), color=COLORS["latent"], linewidth=0.8, alpha=0.5)
    ax.set(xlim=(1, 0), xlabel="$t$", ylabel="$z_t$")
    return ax


class Node(NamedTuple):
    """A random variable of a graphical model; an observed one is drawn filled."""

    x: float
    y: float
    label: str
    quantity: str = "latent"
    observed: bool = False


class Edge(NamedTuple):
    """An arrow between two nodes, by name; ``bend`` curves it, ``dashed`` marks inference."""

    start: str
    end: str
    dashed: bool = False
    bend: float = 0.0


def graphical_model(
    nodes: Mapping[str, Node], edges: Sequence[Edge], ax: Axes | None = None
) -> Axes:
    """Draw a directed graphical model, one unit between neighbors.

    Solid arrows generate (the color of the network), dashed ones infer (that of the posterior).
    """
    ax = ax or plt.gca()
    circles = {name: ax.add_patch(_circle(node)) for name, node in nodes.items()}
    for edge in edges:
        ax.add_patch(_arrow(circles[edge.start], circles[edge.end], edge))
    for node in nodes.values():
        ink = "white" if node.observed else COLORS[node.quantity]
        ax.annotate(node.label, (node.x, node.y), ha="center", va="center", color=ink, size=12)
    ax.set(aspect="equal")
    ax.autoscale_view()
    ax.margins(0.05)
    ax.set_axis_off()
    return ax


def _circle(node: Node) -> Circle:
    color = COLORS[node.quantity]
    face = color if node.observed else "white"
    return Circle((node.x, node.y), RADIUS, facecolor=face, edgecolor=color, linewidth=1.8)


def _arrow(start: Circle, end: Circle, edge: Edge) -> FancyArrowPatch:
    """From rim to rim: matplotlib cuts off what lies inside the two circles."""
    return FancyArrowPatch(
        start.center,
        end.center,
        patchA=start,
        patchB=end,
        shrinkA=2,
        shrinkB=2,
        connectionstyle=f"arc3,rad={edge.bend}",
        clip_on=False,  # a bend may leave the axes
        arrowstyle="-|>",
        mutation_scale=12,
        linestyle="--" if edge.dashed else "-",
        color=COLORS["posterior" if edge.dashed else "network"],
        linewidth=1.6,
    )


def two_hierarchies() -> Figure:
    """A hierarchical VAE with top-down inference, and beside it a diffusion model."""
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 4.2))
    layers = [("hierarchical VAE: $q$ is learned", ["$z_1$", "$z_2$", "$z_3$"])]
    layers.append(("diffusion: $q$ is fixed", ["$z_0$", "$z_{1/2}$", "$z_1$"]))
    for ax, (title, labels) in zip(axes, layers, strict=True):
        nodes = {"x": Node(0, 0, "$x$", "data", observed=True)}
        nodes |= {label: Node(0, i + 1, label) for i, label in enumerate(labels)}
        order = list(nodes)
        edges = [Edge(a, b) for b, a in itertools.pairwise(order)]
        edges += [Edge(a, b, True, 0.5) for b, a in itertools.pairwise(labels)]
        edges += [Edge("x", label, True, 0.55) for label in labels]
        graphical_model(nodes, edges, ax).set(title=title, xlim=(-1.1, 1.6), ylim=(-0.4, 3.4))
    return figure


def titled_images(images: Tensor, titles: Sequence[str]) -> Figure:
    """Rows of images (rows, columns, 1, H, W) in [-1, 1], a title above each column."""
    rows, columns = images.shape[:2]
    figure, axes = plt.subplots(rows, columns, figsize=(5.4, 5.8 * rows / columns), squeeze=False)
    for ax, image in zip(axes.flat, images.flatten(0, 1), strict=True):
        image_grid(image[None], ax=ax)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return figure


def bells(normals: Mapping[str, Normal], ax: Axes | None = None, symbol: str = "$z_s$") -> Axes:
    """Densities of one-dimensional Gaussians, each named by a quantity of the palette."""
    ax = ax or plt.gca()
    stds = {name: normal.var.sqrt() for name, normal in normals.items()}
    low = min((n.mean - 4 * stds[name]).item() for name, n in normals.items())
    high = max((n.mean + 4 * stds[name]).item() for name, n in normals.items())
    z = torch.linspace(max(low, -4), min(high, 4), 1000)
    for name, normal in normals.items():
        density = torch.distributions.Normal(normal.mean.item(), stds[name].item()).log_prob(z)
        ax.plot(z, density.exp(), color=COLORS[name], label=name)
        ax.fill_between(z, density.exp(), color=COLORS[name], alpha=0.15, linewidth=0)
    ax.set(xlabel=symbol, ylabel="density", ylim=(0, None))
    ax.legend()
    return ax


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
