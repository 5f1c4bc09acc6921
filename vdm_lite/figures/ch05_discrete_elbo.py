"""Figures of chapter 5."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.elbo import Elbo
from vdm_lite.figures.base import COLORS, elbo_bars


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
