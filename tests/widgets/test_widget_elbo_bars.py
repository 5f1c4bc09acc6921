"""The widget of chapter 5: its numbers are the library's, and every control moves them."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, quadrature
from vdm_lite.exact import EIGHT_LEVELS
from vdm_lite.likelihood import Discretized
from vdm_lite.schedules import Linear
from vdm_lite.widgets.elbo_bars import ElboBars

F64 = torch.float64
ENTROPY = EIGHT_LEVELS.entropy().item()


def close(actual: Any, expected: Any) -> None:
    actual, expected = (torch.as_tensor(value, dtype=F64) for value in (actual, expected))
    assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def uniform(low: float, high: float, n: int = 200) -> Tensor:
    return low + (high - low) * torch.rand(n, dtype=F64)


def toy_json() -> dict[str, Any]:
    return json.loads(json.dumps(ElboBars().toy))


def mean_over_levels(costs: Tensor) -> float:
    return (EIGHT_LEVELS.weights @ costs).item()


def prior(logsnr_1: float) -> float:
    return mean_over_levels(elbo.prior(EIGHT_LEVELS.means, torch.tensor(logsnr_1, dtype=F64)))


def reconstruction(logsnr_0: float) -> float:
    nodes, weights = exact.normal_quadrature()
    k = torch.arange(8).repeat_interleave(len(nodes))[:, None]
    level = torch.tensor(logsnr_0, dtype=F64)
    z_0 = gaussian.diffuse(EIGHT_LEVELS.means[k[:, 0]], level, nodes.repeat(8)[:, None])
    costs = -Discretized(8).log_prob(k, z_0, level).view(8, -1)
    return mean_over_levels(costs @ weights)


@cache
def diffusion(layers: int | None, cleanest: float, noisiest: float) -> float:
    schedule = Linear(cleanest, noisiest)
    return elbo.diffusion_from_mmse(EIGHT_LEVELS.mmse, schedule, layers).item()


def library(layers: int, cleanest: float, noisiest: float) -> dict[str, float]:
    """All numbers that the widget shows, by the library."""
    costs = {"prior": prior(noisiest), "reconstruction": reconstruction(cleanest)}
    ends = sum(costs.values())
    costs["diffusion"] = diffusion(layers, cleanest, noisiest)
    costs["total"] = ends + costs["diffusion"]
    costs["excess"] = costs["total"] - ENTROPY
    costs["deepest"] = ends + diffusion(None, cleanest, noisiest)
    return costs


def test_the_module_computes_the_costs_of_the_library(javascript):
    layers = [*(10 ** uniform(0, 2)).round().int().tolist(), 1000]
    cleanest, noisiest = uniform(2.5, 14, 201).tolist(), uniform(-10, 2, 201).tolist()
    settings = list(zip(layers, cleanest, noisiest, strict=True))
    costs = javascript("elbo_bars", "levelCosts", [[toy_json(), *each] for each in settings])
    for cost, (steps, high, low) in zip(costs, settings, strict=True):
        close(cost["prior"], prior(low))
        close(cost["reconstruction"], reconstruction(high))
        close(cost["diffusion"], diffusion(steps, high, low))
        total = prior(low) + reconstruction(high) + diffusion(steps, high, low)
        close([cost["total"], cost["excess"] + ENTROPY], [total, total])


def test_infinitely_many_layers_cost_the_integral(javascript):
    """L_inf between any two of many random levels is a sum of integrals from level to level."""
    points = torch.cat([uniform(-10, 2, 100), uniform(2.5, 14, 100)]).sort().values
    pieces = [quadrature.interval(*ends, 1) for ends in points.unfold(0, 2, 1).tolist()]
    nodes, weights = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    each = (0.5 * weights * nodes.exp() * EIGHT_LEVELS.mmse(nodes)).view(-1, 16).sum(1)
    below = torch.cat([torch.zeros(1, dtype=F64), each.cumsum(0)])
    low, high = torch.randint(100, (200,)), torch.randint(100, 200, (200,))
    ends = zip(points[high].tolist(), points[low].tolist(), strict=True)
    costs = javascript("elbo_bars", "levelCosts", [[toy_json(), 1, *each] for each in ends])
    limits = below[high] - below[low]
    close([cost["limit"] for cost in costs], limits)
    two_ends = [cost["prior"] + cost["reconstruction"] for cost in costs]
    close([cost["deepest"] for cost in costs], limits + torch.tensor(two_ends, dtype=F64))


def test_the_charts_cover_the_range_of_their_setting(javascript):
    fields = ElboBars()._fields
    places = javascript("elbo_bars", "profilePlaces", [[field, 40] for field in fields])
    for field, at in zip(fields, places, strict=True):
        assert (at[0], at[-1]) == (field["low"], field["high"])
        assert at == sorted(set(at)) and len(at) > 20
    assert all(isinstance(layers, int) for layers in places[0])


@pytest.fixture
def shown(show):
    return show(ElboBars())


def shows(shown, layers: int = 100, cleanest: float = 13.3, noisiest: float = -5.0) -> None:
    names = ("layers", "cleanest", "noisiest")
    assert [shown.get(name) for name in names] == [layers, cleanest, noisiest]
    for name, value in library(layers, cleanest, noisiest).items():
        close(shown.read(name), value)


def test_each_field_moves_the_read_outs(shown):
    shows(shown)
    shown.type("layers", "10")
    shows(shown, 10)
    shown.type("cleanest", "3")
    shows(shown, 10, 3.0)
    shown.type("noisiest", "0.5")
    shows(shown, 10, 3.0, 0.5)
    assert not shown.complaints


def test_each_slider_moves_the_read_outs(shown):
    shown.slide("layers", ["Home", "ArrowRight"])
    shows(shown, 2)
    shown.slide("cleanest", ["ArrowLeft"])
    shows(shown, 2, 13.2)
    shown.slide("noisiest", ["End"])
    shows(shown, 2, 13.2, 2.0)


def test_the_dots_in_the_charts_move_by_keyboard_and_by_mouse(shown):
    layers, cleanest, noisiest = shown.page.locator(".vdm-knob").all()
    layers.press("Shift+ArrowLeft")
    cleanest.press("ArrowRight")
    noisiest.press("Shift+ArrowUp")
    shown.settle()
    shows(shown, 90, 13.4, -4.0)


def test_a_dot_follows_the_mouse(shown):
    dot = shown.page.locator(".vdm-knob").nth(1)
    box = dot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x - 60, y - 20, steps=3)
    shown.page.mouse.up()
    shown.settle()
    cleanest = shown.get("cleanest")
    assert 6 < cleanest < 12
    close(shown.read("reconstruction"), reconstruction(cleanest))
    close(shown.read("diffusion"), diffusion(100, cleanest, -5.0))


def test_python_reads_and_sets_what_the_reader_sees():
    widget = ElboBars(layers=10, cleanest=6.0, noisiest=-3.0)
    ends = widget.schedule()(torch.tensor([0.0, 1.0], dtype=F64))
    assert ends.tolist() == [6.0, -3.0]
    widget.cleanest = 7.0
    assert widget.schedule().logsnr_max == 7.0
