"""Figures of chapter 3."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import MultivariateNormal

from vdm_lite.figures.base import COLORS, ellipse, shades
from vdm_lite.figures.graphs import Edge, Graph, Node, graphical_model

KINDS = {"bottom-up": ("o", COLORS["noise"]), "top-down": ("s", COLORS["posterior"])}


def feedback(
    exact: MultivariateNormal,
    diagonal: MultivariateNormal,
    given: Mapping[float, MultivariateNormal],
) -> Figure:
    """The posterior of a two-dimensional z_1, its best diagonal fit, and its slices at each z_2.

    What the layers above say is the prior of z_1 (eq-generative-feedback).
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.4), sharex=True, sharey=True)
    for ax in axes:
        ellipse(exact, ax, color=COLORS["latent"], label="$p(z_1|x)$")
        ax.set(aspect="equal", xlabel="first unit of $z_1$")
    ellipse(diagonal, axes[0], color=COLORS["posterior"], linestyle="--", label="best diagonal $q$")
    for (value, normal), color in zip(given.items(), shades(len(given)), strict=True):
        ellipse(normal, axes[1], color=color, linewidth=1.4, label=f"$z_2={value:g}$")
    axes[0].set(ylabel="second unit of $z_1$", title="$z_2$ unknown")
    axes[1].set_title("$p(z_1|z_2,x)$")
    for ax in axes:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1)
    return figure


def two_humps(
    z: Tensor, exact: Tensor, climbs: Tensor, descends: Tensor, ax: Axes | None = None
) -> Axes:
    """Densities of one unit on a grid, (N,) each: its posterior, and q of both directions."""
    ax = ax or plt.gca()
    ax.fill_between(z, exact, color=COLORS["latent"], alpha=0.2, linewidth=0)
    ax.plot(z, exact, color=COLORS["latent"], label="exact $p(z_1|x)$")
    ax.plot(z, climbs, "--", color=COLORS["posterior"], label="best bottom-up $q$")
    ax.plot(z, descends, color=COLORS["posterior"], label="best top-down $q$")
    ax.set(xlabel="$z_1$", ylabel="density", xlim=(-5, 5), ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def inference_graph(sees: Tensor, links: Tensor, names: Sequence[str]) -> Graph:
    """Dashed arrows of an inference model of three scalars: two units of z_1 side by side, z_2."""
    places = [(-0.75, 1), (0.75, 1), (0, 2)]
    spots = zip(names, places, strict=True)
    nodes = {"$x$": Node(0, 0, "$x$", "data", observed=True)}
    nodes |= {name: Node(x, y, name) for name, (x, y) in spots}
    edges = [Edge("$x$", name, True) for name, seen in zip(names, sees, strict=True) if seen]
    edges += [Edge(names[j], names[i], True) for i, j in links.nonzero().tolist()]
    return Graph(nodes, edges)


def inference_graphs(
    cases: Mapping[str, tuple[Tensor, Tensor]], gaps: Mapping[str, Sequence[float]]
) -> Figure:
    """Each case's ``sees`` and ``links`` as a graph; below it its gaps, W orthogonal and oblique.

    In two rows, with letters large enough for the screen of a phone.
    """
    names = ["$z_{1a}$", "$z_{1b}$", "$z_2$"]
    figure, axes = plt.subplots(2, len(cases) // 2, figsize=(6, 6.2), sharex=True, sharey=True)
    for ax, (title, case) in zip(axes.flat, cases.items(), strict=True):
        graphical_model(inference_graph(*case, names), ax).set_title(title, size=11)
        signs = zip((r"$\perp$", r"$\angle$"), gaps[title], strict=True)
        text = "\n".join(f"{sign} {abs(gap):.4f}" for sign, gap in signs)
        ax.annotate(text, (0, -0.45), ha="center", va="top", size=12, annotation_clip=False)
        ax.set(xlim=(-1.15, 1.15), ylim=(-1.3, 2.4))
    return figure


def gap_curves(
    curves: Mapping[str, Mapping[int, float]], limits: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Measured gaps over training steps, and dashed lines at the least gap that each kind has."""
    ax = ax or plt.gca()
    for name, gaps in curves.items():
        marker, color = KINDS[name]
        ax.plot([*gaps], [*gaps.values()], marker, linestyle="-", color=color, label=name)
        ax.axhline(limits[name], color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="training steps", ylabel="gap in nats", ylim=(-0.02, 0.6))
    ax.legend()
    return ax


def layer_profiles(
    profiles: Mapping[int, Mapping[str, Sequence[Sequence[float]]]], ylabel: str
) -> Figure:
    """For each depth T and kind, values of z_1 … z_T for every seed; one panel a depth."""
    wide = [depth + 1 for depth in profiles]
    figure, axes = plt.subplots(1, len(profiles), figsize=(6.4, 3), sharey=True, width_ratios=wide)
    for ax, (depth, kinds) in zip(axes, profiles.items(), strict=True):
        layers = torch.arange(1, depth + 1)
        for shift, (kind, values) in zip((-0.12, 0.12), kinds.items(), strict=True):
            marker, color = KINDS[kind]
            mean = torch.tensor(values).mean(0)
            ax.plot(layers + shift, mean, color=color, linewidth=1.2, alpha=0.6)
            for seed, value in enumerate(values):
                label = kind if seed == 0 else None
                ax.plot(layers + shift, value, marker, color=color, markersize=4, label=label)
        ax.set(title=f"$T={depth}$", xticks=layers, xlabel="layer", xlim=(0.5, depth + 0.5))
    axes[0].set_ylabel(ylabel)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure
