"""Figures of the book: one palette, one style, a few small drawing functions.

Each quantity keeps its color in the whole book. On the white panel every color has a contrast of
at least 3:1, and any two stay apart for readers with protanopia, deuteranopia or tritanopia.
Figures keep their white panel in dark mode: dark ink on it is readable on either page.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.patches import Circle, FancyArrowPatch
from torch import Tensor

COLORS = {
    "data": "#202020",  # x
    "noise": "#919191",  # ε
    "latent": "#8e3a9e",  # z
    "prior": "#d08000",  # p(z), and what is known before looking
    "posterior": "#3d82fa",  # q(z | x)
    "likelihood": "#2d6347",  # p(x | z), and what an observation says
    "network": "#a63603",  # x̂, ε̂ and the model p
}
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
    "mathtext.fontset": "cm",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Switch matplotlib to the book's style; call it once, in a chapter's import cell."""
    plt.rcParams.update(STYLE)


def shades(n: int, colormap: str = "cividis") -> list[tuple[float, float, float, float]]:
    """``n`` colors from dark to light for an ordered quantity (times, depths, levels of noise)."""
    cmap: Colormap = plt.get_cmap(colormap)
    return [cmap(0.85 * i / max(n - 1, 1)) for i in range(n)]  # the lightest end fades on white
