"""Figures of the book: one palette, one style, a few small drawing functions.

Each quantity keeps its color in the whole book. On the white panel every color has a contrast of
at least 3:1, and any two stay apart for readers with protanopia, deuteranopia or tritanopia.
Figures keep their white panel in dark mode: dark ink on it is readable on either page.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import MultivariateNormal

from vdm_lite.elbo import Elbo
from vdm_lite.gaussian import Normal, sum_except_batch

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
LEVEL = "log SNR $\\lambda$"  # the label of the axis of noise levels
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))  # for curves side by side
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


def ellipse(normal: MultivariateNormal, ax: Axes, radius: float = 2.0, **style: Any) -> None:
    """The line of a two-dimensional Gaussian at ``radius`` standard deviations."""
    angle = torch.linspace(0, 2 * math.pi, 200, dtype=normal.mean.dtype)
    circle = radius * torch.stack([angle.cos(), angle.sin()])
    ax.plot(*(normal.mean.reshape(2, 1) + normal.scale_tril.reshape(2, 2) @ circle), **style)
