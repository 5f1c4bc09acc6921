"""The arrows of an inference model, and the least gap that they leave, on the toy of chapter 3."""

import math

import torch
from torch import Tensor

from vdm_lite.exact import LinearHierarchy, smallest_gap
from vdm_lite.widgets.base import Widget, choice, number, switch

UNITS = ("z1a", "z1b", "z2")
PAIRS = {"a_b": (0, 1), "a_2": (0, 2), "b_2": (1, 2)}  # fields, and places in UNITS


def _link(field: str, default: str = "none"):
    one, other = (UNITS[i] for i in PAIRS[field])
    ways = ["none", f"{one} → {other}", f"{other} → {one}"]
    return choice(default, ways, label=f"between {one} and {other}")


class InferenceGraph(Widget):
    r"""Which arrows does an inference model need? The least gap of any set of arrows, in nats.

    ::

        p:  z2 ~ N(0, 1),  z1 = (1, b) z2 + s_1 n,  x = W z1 + s n',  W = [[1, 1], [1, k], [0, 1]]
        q:  each unit is linear in what its arrows bring, plus Gaussian noise of its own

    and k turns the second column of W to ``angle`` degrees from the first: at 90 and at 45 degrees
    these are the two toys of the chapter. Arrows run from x to the units z1a, z1b and z2, and
    between any two of these, never in a circle: the page turns an arrow that would close one. Lines
    for comparison: independent units (eq-mean-field), and the two directions (eq-chain-gap).
    Chapter 3.
    """

    module = "inference_graph"
    title = "Which arrows does inference need?"
    x_a = switch(True, label="x → z1a")
    x_b = switch(True, label="x → z1b")
    x_2 = switch(False, label="x → z2")
    a_b = _link("a_b")
    a_2 = _link("a_2", "z1a → z2")
    b_2 = _link("b_2", "z1b → z2")
    angle = number(90.0, 32.0, 120.0, step=1.0, label="angle of the columns of W", unit="°")
    b = number(1.0, -2.0, 2.0, step=0.05, label="weight b, z2 to z1b")
    s_1 = number(0.5, 0.2, 2.0, step=0.05, label="noise s1 of z1", log=True)
    s = number(1.5, 0.3, 5.0, step=0.05, label="noise s of the data", log=True)

    def model(self) -> LinearHierarchy:
        """The hierarchy with these numbers, in float64."""
        # cos(angle) = (1 + k) / sqrt(2 (2 + k^2)), solved for k; both forms, as either may be 0/0.
        c = math.cos(math.radians(self.angle))
        root = c * math.sqrt(6 - 8 * c * c)
        k = (4 * c * c - 1) / (1 + root) if c > 0 else (root - 1) / (1 - 2 * c * c)
        weights = [[[1, 1], [1, k], [0, 1]], [[1], [self.b]]]
        weights = [torch.tensor(each, dtype=torch.float64) for each in weights]
        return LinearHierarchy(weights, [self.s, self.s_1])

    def arrows(self) -> tuple[Tensor, Tensor]:
        """Which units see x, (3,), and the arrows between them, (3, 3), to row from column."""
        links = torch.zeros(3, 3)
        for field, (i, j) in PAIRS.items():
            way = getattr(self, field)
            links[j, i] = way.startswith(UNITS[i])
            links[i, j] = way.startswith(UNITS[j])
        return torch.tensor([self.x_a, self.x_b, self.x_2]), links

    def gap(self) -> Tensor:
        """The least gap of these arrows, in nats: (). ``ValueError`` if they run in a circle."""
        return smallest_gap(self.model(), *self.arrows())
