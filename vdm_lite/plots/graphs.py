"""Graphical models: circles for variables, arrows for dependence, plates for repetition.

Solid arrows generate and have the color of the network; dashed arrows infer and have the color of
the posterior. Every chapter draws its models with these few functions.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from vdm_lite.plots.base import COLORS

RADIUS = 0.28  # of a node of a graphical model, whose neighbors are one unit away


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
