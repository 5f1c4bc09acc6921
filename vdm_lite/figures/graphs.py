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
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from vdm_lite.figures.base import COLORS, STYLE

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


class Plate(NamedTuple):
    """A frame around the nodes named, which are repeated as its label says."""

    inside: Sequence[str]
    label: str


class Graph(NamedTuple):
    """A graphical model."""

    nodes: Mapping[str, Node]
    edges: Sequence[Edge]
    plates: Sequence[Plate] = ()


def graphical_model(graph: Graph, ax: Axes | None = None) -> Axes:
    """Draw a directed graphical model, one unit between neighbors.

    Solid arrows generate (the color of the network), dashed ones infer (that of the posterior).
    """
    ax = ax or plt.gca()
    nodes = graph.nodes
    circles = {name: ax.add_patch(_circle(node)) for name, node in nodes.items()}
    for edge in graph.edges:
        ax.add_patch(_arrow(circles[edge.start], circles[edge.end], edge))
    for plate in graph.plates:
        _frame(ax, [nodes[name] for name in plate.inside], plate.label)
    for node in nodes.values():
        ink = "white" if node.observed else COLORS[node.quantity]
        ax.annotate(node.label, (node.x, node.y), ha="center", va="center", color=ink, size=12)
    ax.set(aspect="equal")
    ax.autoscale_view()
    ax.margins(0.05)
    ax.set_axis_off()
    return ax


def graphical_models(graphs: Mapping[str, Graph], height: float = 3.6) -> Figure:
    """Graphs side by side on one scale, each below its title."""
    size = (1.7 * len(graphs), height)
    figure, axes = plt.subplots(1, len(graphs), figsize=size, sharey=True, squeeze=False)
    for ax, (title, graph) in zip(axes.flat, graphs.items(), strict=True):
        graphical_model(graph, ax).set_title(title)
        ax.set_xlim(-1.0, 1.0)
    return figure


def tower(latents: Sequence[str]) -> dict[str, Node]:
    """The observed x at the bottom and the latents above it, by their labels."""
    nodes = {label: Node(0, i, label) for i, label in enumerate(latents, 1)}
    return {"$x$": Node(0, 0, "$x$", "data", observed=True)} | nodes


def generation(latents: Sequence[str]) -> Graph:
    """From the top latent down to x, for every example."""
    nodes = tower(latents)
    edges = [Edge(above, below) for below, above in itertools.pairwise(nodes)]
    return Graph(nodes, edges, [Plate(list(nodes), "$N$")])


def bottom_up(latents: Sequence[str]) -> Graph:
    """Inference that climbs: x to the first latent, each latent to the next."""
    nodes = tower(latents)
    edges = [Edge(below, above, dashed=True) for below, above in itertools.pairwise(nodes)]
    return Graph(nodes, edges, [Plate(list(nodes), "$N$")])


def top_down(latents: Sequence[str]) -> Graph:
    """Inference that descends: x to every latent, each latent to the one below."""
    nodes = tower(latents)
    edges = [Edge(above, below, dashed=True) for below, above in itertools.pairwise(latents)]
    edges += [Edge("$x$", latents[0], dashed=True)]
    edges += [Edge("$x$", label, dashed=True, bend=0.45) for label in latents[1:]]
    return Graph(nodes, edges, [Plate(list(nodes), "$N$")])


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


def _frame(ax: Axes, inside: Sequence[Node], label: str) -> None:
    """A rounded frame around nodes, its label in the corner below."""
    beside, below = 0.85, 0.58  # a bent arrow passes between a node and the frame
    left, right = min(n.x for n in inside) - beside, max(n.x for n in inside) + beside
    low, high = min(n.y for n in inside) - below, max(n.y for n in inside) + below
    style = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": "none"}
    ink = STYLE["axes.edgecolor"]
    box = (left, low), right - left, high - low
    ax.add_patch(FancyBboxPatch(*box, edgecolor=ink, linewidth=1.0, clip_on=False, **style))
    ax.annotate(label, (right - 0.1, low + 0.08), ha="right", va="bottom", color=ink, size=9)
