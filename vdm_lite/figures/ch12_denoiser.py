"""Figures of chapter 12."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vdm_lite.figures.base import COLORS, LEVEL, LINES, image_grid

GRID = {"blind": COLORS["noise"], "exact": COLORS["posterior"], "naming": COLORS["likelihood"]}


def grid_value(
    levels: Tensor, error: Tensor, heard: Mapping[str, Tensor], bits: Mapping[str, Tensor]
) -> Figure:
    """Left: the noise error of one pixel on the grid; right: costs in bits against the clean end.

    What the grid is worth is the area between the two errors (eq-grid-value).

    ``error`` (N,) belongs to the exact denoiser, 1 to a blind one; ``heard`` are the amplitudes
    that named features keep. ``bits`` are named curves (N,) over ``levels`` (N,).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    left.fill_between(levels, error, 1, color=COLORS["posterior"], alpha=0.2, linewidth=0)
    left.axhline(1, color=GRID["blind"], label="blind to the grid")
    left.plot(levels, error, color=GRID["exact"], label="exact")
    for (name, amplitude), line in zip(heard.items(), ("--", ":"), strict=True):
        left.plot(levels, amplitude, line, color=COLORS["latent"], linewidth=1.5, label=name)
    left.set(xlabel=LEVEL, ylabel="noise error, amplitude", ylim=(0, 1.5))
    left.legend(ncols=2)
    styles = zip((COLORS["network"], GRID["naming"], COLORS["data"]), LINES, strict=False)
    for (name, curve), (color, line) in zip(bits.items(), styles, strict=True):
        right.plot(levels, curve, line, color=color, label=name)
    right.set(xlabel="clean end $\\lambda_{\\max}$", ylabel="bits/dim", ylim=(0, 1.2))
    right.legend()
    return figure


def unet(size: int, widths: Sequence[int]) -> Axes:
    """The way of an image through the U-Net: boxes as tall as the image, wider for more channels.

    The first box is z with its features, the last the output, all others are blocks, which have a
    dot for the noise level. Brackets along the top are additions.
    """
    ax = plt.figure(figsize=(7.2, 3.4)).gca()
    down = [(size // 2**i, width) for i, width in enumerate(widths)]
    boxes = [(size, 5), *down, *reversed(down), (size, 1)]
    depth = len(widths)
    place, ends = 0.0, []
    for i, (side, width) in enumerate(boxes):
        thick = 0.6 + 3.4 * width / max(widths)
        edge = i in (0, len(boxes) - 1)
        color = COLORS["latent"] if i == 0 else COLORS["noise" if edge else "network"]
        box = Rectangle((place, -side), thick, side, color=color, alpha=0.35, linewidth=1)
        ax.add_patch(box)
        ax.text(place + thick / 2, -side - 0.8, f"{side}×{side}\n×{width}", ha="center", va="top")
        if not edge:
            ax.plot(place + thick / 2, -side / 2, "o", color=COLORS["prior"], markersize=5)
        ends.append((place, place + thick))
        place += thick + 3.2
    arrow = {"arrowstyle": "->", "color": COLORS["data"], "linewidth": 1.2}
    for (_, start), (end, _), (side, _) in zip(ends, ends[1:], boxes[1:], strict=False):
        ax.annotate("", (end, -side / 2), (start, -side / 2), arrowprops=arrow)
    middle, side = (ends[depth][1] + ends[depth + 1][0]) / 2, down[-1][0]
    line = {"arrowstyle": "-", "color": COLORS["data"], "linewidth": 0.8}
    below = (middle, -side - 6)
    ax.annotate("attention", (middle, -side / 2), below, ha="center", arrowprops=line)
    for i in range(1, depth):
        height, mirror = 1.2 + 2.4 * (depth - 1 - i), len(boxes) - 1 - i
        x = [sum(ends[i]) / 2, sum(ends[i]) / 2, sum(ends[mirror]) / 2, sum(ends[mirror]) / 2]
        ax.plot(x, [-0.2, height, height, 0.5], color=COLORS["posterior"], linewidth=1.5)
        ax.plot(x[-1:], [0.3], "v", color=COLORS["posterior"], markersize=6)
        ax.text(sum(x) / 4, height + 0.2, "added", ha="center", color=COLORS["posterior"])
    ax.set(xlim=(-1, place - 2), ylim=(-size - 5, 6))
    ax.set_axis_off()
    return ax


def learned_ends(steps: Tensor, paths: Mapping[str, Tensor], best: float) -> Axes:
    """The clean end while it is learned: named ``paths`` (seeds, N) at ``steps`` (N,).

    The first seed of each is drawn thick; ``best`` is the dotted reference.
    """
    ax = plt.gca()
    colors = (COLORS["noise"], COLORS["network"]) * 2
    lines = ("-", "-", "--", "--")
    for (name, seeds), color, line in zip(paths.items(), colors, lines, strict=True):
        ax.plot(steps, seeds[0], line, color=color, label=name)
        ax.plot(steps, seeds[1:].T, line, color=color, linewidth=0.8)
    ax.axhline(best, color=COLORS["data"], linestyle=":", linewidth=1.2)
    ax.set(xlabel="training step", ylabel="clean end $\\lambda_{\\max}$")
    ax.legend()
    return ax


def level_costs(levels: Tensor, curves: Mapping[str, Tensor]) -> Axes:
    """Diffusion cost for each unit of log SNR, in bits/dim; the area under a curve is the cost."""
    ax = plt.gca()
    colors = (COLORS["noise"], COLORS["prior"], COLORS["network"])
    for (name, curve), color, line in zip(curves.items(), colors, LINES, strict=False):
        ax.plot(levels, curve, line, color=color, label=name)
    last = list(curves.values())[-1]
    ax.fill_between(levels, last, color=COLORS["network"], alpha=0.15, linewidth=0)
    ax.set(xlabel=LEVEL, ylabel="bits/dim for each unit of $\\lambda$", ylim=(0, None))
    ax.legend()
    return ax


def run_log(rows: Sequence[Mapping[str, float]], references: Mapping[str, float]) -> Axes:
    """The log of a run: training loss, held-out bits/dim where measured, dotted references."""
    ax = plt.gca()
    steps = [row["step"] for row in rows]
    losses = [row["loss"] for row in rows]
    ax.plot(steps, losses, color=COLORS["noise"], linewidth=0.8, label="training loss")
    held_out = [(row["step"], row["bits_per_dim"]) for row in rows if "bits_per_dim" in row]
    if held_out:
        x, y = zip(*held_out, strict=True)
        ax.plot(x, y, "o-", color=COLORS["network"], markersize=4, label="bound, held-out images")
    for i, (name, bits) in enumerate(references.items()):
        ax.axhline(bits, color=COLORS["data"], linestyle=":", linewidth=1.2)
        place = (0, 3) if i % 2 == 0 else (0, -12)  # above and below: two may be neighbors
        ax.annotate(name, (steps[-1], bits), place, textcoords="offset points", ha="right")
    ax.set(xlabel="training step", ylabel="bits/dim", ylim=(2, 6))
    ax.legend()
    return ax


def data_and_samples(panels: Mapping[str, Tensor], columns: int) -> Figure:
    """Named grids of images (N, 1, H, W) of 256 levels, side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(7.2, 2.9))
    for ax, (name, images) in zip(axes, panels.items(), strict=True):
        image_grid(images, columns, levels=256, ax=ax).set_title(name)
    return figure
