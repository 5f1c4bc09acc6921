"""Integrals as weighted sums, in float64 on the CPU: every exact number of the book."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.checks import checked, finite_number

Function = Callable[[Tensor], Tensor]


@checked(low=finite_number, high=finite_number)
def interval(low: float, high: float, panels: int = 64) -> tuple[Tensor, Tensor]:
    """Nodes and weights (N,) for integrals over [low, high]: Gauss-Legendre, 16 points a panel.

    Raises ``ValueError`` unless ``low < high``.
    """
    checks.require(low < high, "low, high", "low < high", (low, high))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = (high - low) / panels / 2
    centers = low + half * (2 * np.arange(panels) + 1)
    grid = (centers[:, None] + half * nodes).ravel()
    return torch.from_numpy(grid), torch.from_numpy(np.tile(half * weights, panels))


def values(argument: str, function: Function, nodes: Tensor) -> Tensor:
    """``function(nodes)``, with a ``ValueError`` unless it is one finite number for each node."""
    checks.level_function(argument.partition("(")[0], function)
    numbers = function(nodes)
    checks.shaped_as(argument, numbers, nodes)
    return numbers


def normal(nodes: int = 121, width: float = 9.0) -> tuple[Tensor, Tensor]:
    """Points and weights (nodes,) for expectations under N(0, 1), in float64.

    The trapezoid rule on [-width, width]: for smooth integrands its error falls exponentially.
    """
    points = torch.linspace(-width, width, nodes, dtype=torch.float64, device="cpu")
    weights = torch.exp(-0.5 * points.square())
    return points, weights / weights.sum()
