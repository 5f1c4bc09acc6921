"""Holes of chapter 2: the widget's numbers against the library, its controls in a browser."""

import math
import random

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import data, gaussian, quadrature, vae
from vdm_lite.aggregate import AggregatePosterior, grid
from vdm_lite.gaussian import Normal
from vdm_lite.widgets.holes import Holes

FIELDS = ("beta", "s", "width", "factor")
FLOAT = torch.float64


def some(n: int, seed: int) -> list[Holes]:
    """Widgets with numbers drawn from the whole range of each control."""
    draw = random.Random(seed)

    def log_uniform(low: float, high: float) -> float:
        return math.exp(draw.uniform(math.log(low), math.log(high)))

    return [
        Holes(
            beta=log_uniform(0.1, 100),
            s=log_uniform(0.05, 0.5),
            width=draw.uniform(0.05, 0.2),
            factor=log_uniform(2, 100),
        )
        for _ in range(n)
    ]


def state(widget: Holes) -> dict:
    return {name: getattr(widget, name) for name in (*FIELDS, "toy")}


def same(found, expected) -> None:
    found, expected = (torch.as_tensor(v, dtype=FLOAT) for v in (found, expected))
    assert_close(found, expected, rtol=1e-6, atol=1e-9)


def masses(widget: Holes) -> dict[str, Tensor]:
    """Of the holes, as the chapter computes them: the prior's and the aggregate posterior's."""
    z, cell = grid(2, 281, 7.0, torch.zeros(1, dtype=FLOAT))
    log_p = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    log_q = widget.aggregate().log_prob(z)
    hole = log_q < log_p - math.log(widget.factor)
    return {"prior": log_p.exp()[hole].sum() * cell, "visited": log_q.exp()[hole].sum() * cell}


def between(widget: Holes, q: AggregatePosterior) -> Tensor:
    """Share of decoded samples beyond four widths of every center, for latents from q.

    By strips of the circles' union, dense where circles end or cross.
    """
    W = widget.model().weights[0].diagonal()
    x = torch.distributions.Normal(q.q.mean * W, (q.q.var * W**2 + widget.s**2).sqrt())
    centers, radius = widget._centers(), 4 * widget.width
    edges = torch.cat([centers[:, 0] - radius, centers[:, 0] + radius, *crossings(centers, radius)])
    edges = edges.sort().values
    angle, weight = quadrature.interval(0.0, math.pi, panels=2)
    half = edges.diff()[:, None] / 2
    strips = (edges[:-1, None] + half - half * angle.cos()).flatten()
    measure = (half * angle.sin() * weight).flatten()
    density = x.log_prob(torch.stack([strips, 0 * strips], 1)[:, None]).exp()[..., 0]
    return 1 - (measure[:, None] * density * inside(strips, centers, radius, x)).sum(0).mean()


def crossings(centers: Tensor, radius: float) -> list[Tensor]:
    """x_1 where two circles cross, or halfway between them."""
    first, second = (centers[i] for i in torch.triu_indices(5, 5, 1))
    way, distance = second - first, (second - first).norm(dim=1)
    reach = (radius**2 - distance**2 / 4).clamp(min=0).sqrt() * way[:, 1] / distance
    return [(first + second)[:, 0] / 2 + sign * reach for sign in (-1, 1)]


def inside(strips: Tensor, centers: Tensor, radius: float, x: torch.distributions.Normal) -> Tensor:
    """Mass of x_2 in the circles, (strips, parts), each place counted once."""
    half = (radius**2 - (strips[:, None] - centers[:, 0]) ** 2).clamp(min=0).sqrt()
    order = (centers[:, 1] - half).argsort(1)
    low, high = ((centers[:, 1] + way * half).gather(1, order) for way in (-1, 1))
    reached = torch.where(high > low, high, -9.0).cummax(1).values
    low[:, 1:] = torch.maximum(low[:, 1:], reached[:, :-1])
    ends = (torch.stack([at, at], 2)[:, :, None] for at in (torch.maximum(high, low), low))
    high, low = (x.cdf(end)[..., 1] for end in ends)
    return (high - low).sum(1)


def expected(widget: Holes) -> dict[str, Tensor]:
    """What the library computes for every read-out."""
    information, mismatch = widget.split()
    q = widget.model().posterior(widget._centers())
    cost = -0.5 * q.variance.log().sum(1).mean()
    costs = {"cost": cost, "information": information, "mismatch": mismatch}
    prior = AggregatePosterior(vae.standard_normal(q.mean[:1]))
    bad = {"generated": between(widget, prior)}
    return costs | masses(widget) | bad | {"reconstructed": between(widget, widget.aggregate())}


def holds(shown, **changed) -> None:
    """The page shows what the library computes for its state, of which ``changed`` is a part."""
    widget = Holes(**{name: shown.get(name) for name in FIELDS})
    assert {name: getattr(widget, name) for name in changed} == changed
    for name, value in expected(widget).items():
        percent = name in ("prior", "visited", "generated", "reconstructed")
        same(shown.read(name), 100 * value if percent else value)
    costs = -0.5 * widget.model().posterior(torch.zeros(1, 2, dtype=FLOAT)).variance.log()
    assert shown.read("active") == vae.active_units(costs)
    meter = shown.page.locator(".vdm-meter").inner_text()
    assert [f"{cost:.3f} nats" in meter for cost in costs[0].abs()] == [True, True]
    assert shown.complaints == []


def test_all_numbers(javascript):
    widgets = some(200, seed=0)
    found = javascript("holes", "numbersOf", [[state(widget)] for widget in widgets])
    for widget, numbers in zip(widgets, found, strict=True):
        wanted = expected(widget)
        assert wanted.keys() == numbers.keys()
        for name, value in wanted.items():
            same(numbers[name], value)


def test_the_model_and_its_aggregate_posterior(javascript):
    widgets = some(200, seed=1)
    for widget, units in zip(
        widgets, javascript("holes", "linearVae", [[state(w)] for w in widgets]), strict=True
    ):
        model, q = widget.model(), widget.aggregate().q
        same([unit["weight"] for unit in units], model.weights[0].diagonal())
        same([unit["means"] for unit in units], q.mean.T)
        same([unit["spread"] for unit in units], q.var[0])
        posterior = model.posterior(torch.zeros(1, 2, dtype=FLOAT))
        same([unit["noise"] for unit in units], posterior.variance[0])


def test_the_curve_over_beta(javascript):
    widgets = some(40, seed=2)
    calls = [[w.beta * w.s**2, w.width, w.toy] for w in widgets]
    for widget, point in zip(widgets, javascript("holes", "costsAt", calls), strict=True):
        information, mismatch = widget.split()
        assert point["cost"] == pytest.approx(float(information + mismatch), rel=1e-6, abs=1e-9)
        assert point["information"] == pytest.approx(float(information), abs=2e-3)  # a coarse grid


def test_the_prior_cost_is_that_of_examples():
    widget = Holes(beta=2.0)
    x = data.five_clusters().sample(200_000, torch.Generator().manual_seed(0)).double()
    q = widget.model().posterior(x)
    each = gaussian.kl(Normal(q.mean, q.variance), vae.standard_normal(q.mean))
    error = each.std() / len(x) ** 0.5
    assert abs(each.mean() - sum(widget.split())) < 4 * error


def test_each_control_moves_the_numbers(show):
    shown = show(Holes())
    holds(shown, beta=1.0)
    for name, value in {"beta": 4.0, "s": 0.15, "width": 0.12, "factor": 5.0}.items():
        shown.type(name, str(value))
        holds(shown, **{name: value})
        shown.slide(name, ["ArrowRight"])
        assert shown.get(name) > value
        holds(shown)


def test_units_give_up_one_by_one(show):
    shown = show(Holes())
    for beta, active in ((10.0, 2), (25.0, 1), (60.0, 0)):
        shown.type("beta", str(beta))
        holds(shown, beta=beta)
        assert shown.read("active") == active
        assert shown.page.locator(".vdm-meter").inner_text().count("inactive") == 2 - active


def test_the_handle_sets_beta(show):
    shown = show(Holes())
    knob = shown.page.get_by_role("slider", name="beta", exact=True)
    knob.press("ArrowRight")
    shown.settle()
    holds(shown, beta=1.05)
    box = knob.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 60, y)
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("beta") > 1.5
    holds(shown)


def test_the_numbers_that_the_chapter_quotes():
    first, second = Holes(beta=1.0), Holes(beta=5.0)
    assert [round(100 * masses(w)["prior"].item()) for w in (first, second)] == [48, 4]
    prior = AggregatePosterior(vae.standard_normal(torch.zeros(1, 2, dtype=FLOAT)))
    assert [round(100 * between(w, prior).item()) for w in (first, second)] == [52, 51]
    for beta, active in ((18.9, 2), (19.1, 1), (50.9, 1), (51.1, 0)):
        assert (Holes(beta=beta).model().weights[0].diagonal() > 0).sum() == active
    assert all(between(w, w.aggregate()) > 0.5 for w in (Holes(beta=19.1), Holes(beta=51.1)))
    q, same_noise = Holes(beta=4.0, s=0.05).aggregate().q, first.aggregate().q
    assert_close((q.mean, q.var), (same_noise.mean, same_noise.var))
    narrow = Holes(width=0.05)
    assert masses(narrow)["prior"] > masses(first)["prior"]
