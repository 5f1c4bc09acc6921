"""Figures of chapter 6."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vdm_lite.elbo import diffusion_from_mmse
from vdm_lite.figures.base import COLORS
from vdm_lite.schedules import Schedule, rate


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

    The gap is the price of the layers' shape, beyond the information that they add
    (eq-layer-information); halving the layers' width gains (eq-doubling).

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
