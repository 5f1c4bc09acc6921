"""The widget of chapter 6: its numbers are the library's, and every control moves them."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, quadrature, schedules
from vdm_lite.widgets.infinite_depth import WRONG, InfiniteDepth, wrong_error

F64 = torch.float64
SETTING = {"layers": 4, "data": "Gaussian", "path": "linear", "cleanest": 2.0, "noisiest": -4.0}


def close(actual: Any, expected: Any, **tolerances: float) -> None:
    actual, expected = (torch.as_tensor(value, dtype=F64) for value in (actual, expected))
    assert_close(actual, expected, **{"rtol": 1e-6, "atol": 1e-9} | tolerances)


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), dtype=F64).item()


def rate(error: Callable[[Tensor], Tensor], schedule: schedules.Schedule) -> float:
    """(eq-rate), over the log SNR: 1/4 of the integral of -de/dlogsnr |dlogsnr/dt| SNR."""
    nodes, weights = quadrature.interval(*schedules.ends(schedule))
    level = nodes.clone().requires_grad_()
    (slope,) = torch.autograd.grad(error(level).sum(), level)
    return (weights * -slope * nodes.exp() / schedules.density(schedule, nodes)).sum().item() / 4


def library(**setting: Any) -> dict[str, float]:
    """All numbers that the widget shows, by the library."""
    widget = InfiniteDepth(**setting)
    schedule = widget.schedule()
    cost = elbo.diffusion_from_mmse(widget.error, schedule, widget.layers).item()
    limit = elbo.diffusion_from_mmse(widget.error, schedule).item()
    gap = cost - limit
    scaled = {"gap": gap, "scaled": widget.layers * gap}
    return {"cost": cost, "limit": limit, **scaled, "rate": rate(widget.error, schedule)}


def agree(shown: dict[str, float], wanted: dict[str, float], layers: int) -> None:
    """Within 1e-6: a gap is a small difference of two costs, and its error is theirs."""
    for name in ("cost", "limit", "rate"):
        close(shown[name], wanted[name], rtol=1e-6)
    slack = 1e-6 * abs(wanted["limit"])
    close(shown["gap"], wanted["gap"], atol=slack)
    close(shown["scaled"], wanted["scaled"], atol=slack * layers)


def settings(data: str, n: int) -> list[dict[str, Any]]:
    paths = ["linear", "cosine", "flow-matching"]
    return [
        {
            "layers": round(10 ** uniform(0, 3.01)),
            "data": data,
            "path": paths[i % 3],
            "cleanest": uniform(0, 10),
            "noisiest": uniform(-8, -0.5),
        }
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "data, n", [("Gaussian", 110), ("two bumps", 12), ("8 levels", 3), (WRONG, 80)]
)
def test_the_module_computes_the_costs_of_the_library(javascript, data, n):
    mixtures = json.loads(json.dumps(InfiniteDepth().mixtures))
    tried = settings(data, n)
    computed = javascript("infinite_depth", "numbersOf", [[mixtures, each] for each in tried])
    for costs, setting in zip(computed, tried, strict=True):
        agree(costs, library(**setting), setting["layers"])


def test_the_error_of_a_wrong_denoiser(javascript):
    logsnr = torch.linspace(-8, 10, 200, dtype=F64)
    computed = javascript("infinite_depth", "wrongNoiseError", [[each] for each in logsnr.tolist()])
    close(computed, logsnr.exp() * wrong_error(logsnr))


def test_the_wrong_denoiser_is_the_one_of_the_chapter():
    """By plain quadrature over z, which is exact enough where the estimate is smooth."""
    truth = exact.Gaussian(torch.zeros(1, dtype=F64), math.sqrt(2.5))
    belief = exact.FiniteData(torch.tensor([[-3.0], [3.0]], dtype=F64))
    nodes, weights = exact.normal_quadrature()
    for level in torch.tensor([-6.0, -3.0, -1.0], dtype=F64):
        z = (gaussian.alpha(level) ** 2 * 2.5 + gaussian.sigma(level) ** 2).sqrt() * nodes[:, None]
        excess = (truth.denoise(z, level) - belief.denoise(z, level)).square()[:, 0] @ weights
        close(wrong_error(level[None]), (truth.mmse(level) + excess)[None])


@pytest.mark.parametrize("axis", ["SNR", "log SNR"])
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_areas_of_the_picture_are_twice_the_costs(javascript, path, axis):
    setting = SETTING | {"path": path, "axis": axis}
    mixtures = json.loads(json.dumps(InfiniteDepth().mixtures))
    [picture] = javascript("infinite_depth", "makePicture", [[mixtures, setting]])
    xs, curve, tops = (torch.tensor(picture[name], dtype=F64) for name in ("xs", "curve", "tops"))
    wanted = library(**SETTING | {"path": path})
    close(torch.trapezoid(curve, xs), 2 * wanted["limit"], rtol=1e-4)
    close(torch.trapezoid(tops, xs), 2 * wanted["cost"], rtol=1e-4)
    assert len(picture["edges"]) == 4 and picture["edges"][0] == 0


@pytest.fixture
def shown(show):
    return show(InfiniteDepth())


def shows(shown, **setting: Any) -> None:
    wanted = SETTING | setting
    assert {name: shown.get(name) for name in wanted} == wanted
    read = {name: shown.read(name) for name in ("cost", "limit", "gap", "scaled", "rate")}
    agree(read, library(**wanted), wanted["layers"])


def test_each_number_moves_the_read_outs(shown):
    shows(shown)
    shown.type("layers", "16")
    shows(shown, layers=16)
    shown.type("cleanest", "6")
    shows(shown, layers=16, cleanest=6.0)
    shown.type("noisiest", "-6")
    shows(shown, layers=16, cleanest=6.0, noisiest=-6.0)
    assert not shown.complaints


def test_each_slider_moves_the_read_outs(shown):
    shown.slide("layers", ["Home", "ArrowRight"])
    shows(shown, layers=2)
    shown.slide("cleanest", ["ArrowLeft"])
    shows(shown, layers=2, cleanest=1.9)
    shown.slide("noisiest", ["Home"])
    shows(shown, layers=2, cleanest=1.9, noisiest=-8.0)


@pytest.mark.parametrize("data", ["two bumps", "8 levels", WRONG])
def test_each_choice_of_data_moves_the_read_outs(shown, data):
    shown.choose("data", data)
    shows(shown, data=data)


@pytest.mark.parametrize("path", ["cosine", "flow-matching"])
def test_each_schedule_has_its_costs_but_the_same_limit(shown, path):
    limit = shown.read("limit")
    shown.choose("path", path)
    shows(shown, path=path)
    assert shown.read("limit") == limit


def test_no_schedule_is_the_better_one_for_all_ends(javascript):
    """What the chapter says about cosine: better over a short range, much worse over a wide one."""
    mixtures = json.loads(json.dumps(InfiniteDepth().mixtures))
    short, wide = SETTING, SETTING | {"cleanest": 6.0, "noisiest": -6.0}
    calls = [[mixtures, each | {"path": p}] for each in (short, wide) for p in ("linear", "cosine")]
    costs = javascript("infinite_depth", "costOf", calls)
    assert costs[1] < costs[0] and costs[3] > 2 * costs[2]


def test_over_the_log_snr_the_picture_changes_and_the_areas_stay(shown):
    before = shown.page.locator(".vdm-chart path").first.get_attribute("d")
    shown.choose("axis", "log SNR")
    assert shown.page.locator(".vdm-chart path").first.get_attribute("d") != before
    shows(shown)


def test_the_dot_in_the_lower_chart_sets_the_depth(shown):
    dot = shown.page.locator(".vdm-knob")
    dot.press("Shift+ArrowRight")
    dot.press("ArrowDown")
    shown.settle()
    shows(shown, layers=13)
    box = dot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 100, y, steps=3)
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("layers") > 20
    shows(shown, layers=shown.get("layers"))


def test_a_wrong_denoiser_meets_its_limit_from_below(shown):
    shown.choose("data", WRONG)
    shown.type("cleanest", "0")
    shown.type("noisiest", "-6")
    costs = [shown.read("cost")]
    for layers in ("8", "16"):
        shown.type("layers", layers)
        costs.append(shown.read("cost"))
    assert costs == sorted(costs) and costs[-1] < shown.read("limit")
    shows(shown, data=WRONG, layers=16, cleanest=0.0, noisiest=-6.0)


def test_python_reads_what_the_reader_sees():
    widget = InfiniteDepth(data="two bumps", path="cosine")
    assert widget.schedule() == schedules.Cosine(2.0, -4.0)
    logsnr = torch.tensor([0.0, 1.0], dtype=F64)
    assert widget.error(logsnr).equal(exact.TWO_BUMPS.mmse(logsnr))
    widget.data = WRONG
    assert widget.error(logsnr).equal(wrong_error(logsnr))
