"""The schedule explorer: its numbers are the library's, and every control and dot moves them."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, gaussian, quadrature, schedules
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.widgets.schedule_explorer import DRAWN, GAP, SHAPES, Drawn, ScheduleExplorer

F64 = torch.float64
EVEN = [k / 10 for k in range(1, 10)]
Curve = Callable[[Tensor], Tensor]


def close(actual: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    actual, expected = (torch.as_tensor(value, dtype=F64) for value in (actual, expected))
    assert_close(actual, expected, rtol=rtol, atol=atol)


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, dtype=F64)


@cache
def spline(moment: Curve, power: int) -> Curve:
    """A moment of the error, from a table of SNR^power times it: 1e-8 from the quadrature."""
    levels = torch.linspace(-15, 15, 1501, dtype=F64)
    table = CubicSpline(levels, (power * levels).exp() * moment(levels))
    return lambda logsnr: torch.from_numpy(table(logsnr)) * (-power * logsnr).exp()


def moments() -> tuple[Curve, Curve]:
    return spline(TWO_BUMPS.mmse, 1), spline(TWO_BUMPS.fourth_moment, 2)


def library(widget: ScheduleExplorer, second: Curve, fourth: Curve) -> dict[str, float]:
    """The costs that the widget shows, by the library."""
    schedule = widget.schedule()
    area = elbo.diffusion_from_mmse(second, schedule)
    levels, weights = quadrature.interval(*schedules.ends(schedule))
    root = weights @ (levels.exp() * fourth(levels).sqrt())
    costs = {
        "area": area,
        "variance": elbo.variance_from_moments(second, fourth, schedule),
        "timePart": elbo.variance_from_moments(second, lambda at: second(at) ** 2, schedule),
        "least": 0.25 * root**2 - area**2,
    }
    return {name: value.item() for name, value in costs.items()}


def now(widget: ScheduleExplorer) -> dict[str, float]:
    """What the widget shows at its time t, by the library."""
    logsnr, slope = schedules.rate(widget.schedule(), torch.tensor(widget.time, dtype=F64))
    scales = {"alpha": gaussian.alpha(logsnr), "sigma": gaussian.sigma(logsnr)}
    values = {"logsnr": logsnr, **scales, "density": -1 / slope}
    return {name: value.item() for name, value in values.items()}


def state(widget: ScheduleExplorer) -> dict[str, Any]:
    names = ("shape", "time", "logsnr_max", "logsnr_min", "best", "points")
    return {name: getattr(widget, name) for name in names}


def random_widget(i: int) -> ScheduleExplorer:
    """Every shape in turn, drawn ones every other time; a drawn one may have points in disorder."""
    points = uniform(0, 1, 9) if i % 4 == 1 else uniform(0, 1, 9).sort().values
    return ScheduleExplorer(
        shape=DRAWN if i % 2 else list(SHAPES)[i // 2 % 5],
        time=uniform(0, 1, ()).item(),
        logsnr_max=uniform(1, 15, ()).item(),
        logsnr_min=uniform(-15, -1, ()).item(),
        points=points.tolist(),
    )


def agree(shown: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        # A variance is what is left of the second moment, and its error is that of the moment.
        slack = 1e-6 * expected["area"] ** 2 if name in ("variance", "timePart", "least") else 1e-9
        close(shown[name], value, atol=slack)


# Python


def test_drawn_schedules_fall_through_their_points():
    for i in range(100):
        widget = random_widget(2 * i + 1)
        schedule = widget.schedule()
        assert isinstance(schedule, Drawn)
        t = torch.linspace(0, 1, 1001, dtype=F64)
        logsnr, slope = schedules.rate(schedule, t)
        assert (logsnr.diff() < 0).all()
        assert (slope <= -GAP * (widget.logsnr_max - widget.logsnr_min)).all()
        close(logsnr[[0, -1]], [widget.logsnr_max, widget.logsnr_min], atol=1e-12)
        close(logsnr[::100], schedule.levels())
        numerical = (logsnr[2:] - logsnr[:-2]) / (t[2:] - t[:-2])
        close(numerical, slope[1:-1], rtol=1e-2, atol=5)  # no jump, at the points either


def test_points_in_order_stay_where_they_are():
    kept = Drawn((0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.48, 0.55))
    close(kept.levels(), [10, *(10 - 18 * p for p in kept.points), -8])
    pushed = Drawn((0.5,) * 8 + (1.0,)).levels()
    assert (pushed.diff() <= -18 * GAP + 1e-12).all()
    straight = Drawn(tuple(EVEN))
    t = torch.linspace(0, 1, 201, dtype=F64)
    close(straight(t), schedules.Linear(10, -8)(t))


# The module


def test_drawn_levels_slopes_and_densities(javascript):
    for i in range(20):
        widget = random_widget(2 * i + 1)
        schedule = widget.schedule()
        times = uniform(0, 1, 20)
        given = [[{**state(widget), "time": time}] for time in times.tolist()]
        made = javascript("schedule_explorer", "scheduleAt", given)
        logsnr, slope = schedules.rate(schedule, times)
        close([each["logsnr"] for each in made], logsnr)
        close([each["density"] for each in made], -1 / slope)
        close([each["density"] for each in made], schedules.density(schedule, logsnr), rtol=1e-5)


def test_values_at_a_time(javascript):
    widgets = [random_widget(i) for i in range(240)]
    made = javascript("schedule_explorer", "scheduleAt", [[state(widget)] for widget in widgets])
    for shown, widget in zip(made, widgets, strict=True):
        for name, value in now(widget).items():
            close(shown[name], value)


def test_costs_are_those_of_the_library(javascript):
    widgets = [random_widget(i) for i in range(220)]
    made = javascript("schedule_explorer", "scheduleCosts", [[state(widget)] for widget in widgets])
    for shown, widget in zip(made, widgets, strict=True):
        agree(shown, library(widget, *moments()))
    exact = (TWO_BUMPS.mmse, TWO_BUMPS.fourth_moment)  # twice without the table
    for shown, widget in list(zip(made, widgets, strict=True))[:2]:
        agree(shown, library(widget, *exact))


def test_the_area_depends_on_the_ends_alone(javascript):
    states = [{**state(random_widget(i)), "logsnr_max": 10, "logsnr_min": -8} for i in range(60)]
    costs = javascript("schedule_explorer", "scheduleCosts", [[each] for each in states])
    area = elbo.diffusion_from_mmse(TWO_BUMPS.mmse, schedules.Linear(10.0, -8.0)).item()
    close([each["area"] for each in costs], torch.full((60,), area), rtol=1e-7)
    variances = [each["variance"] for each in costs]
    assert min(variances) > costs[0]["least"] > 39
    assert max(variances) > 10 * min(variances)


def test_curves_are_those_of_the_library(javascript):
    for i in range(12):
        widget = random_widget(i)
        (made,) = javascript("schedule_explorer", "scheduleCurves", [[state(widget)]])
        t = torch.tensor(made["t"], dtype=F64)
        assert (t.diff() >= 0).all() and t[0] == 0 and t[-1] == 1
        logsnr, slope = schedules.rate(widget.schedule(), t)
        close(made["logsnr"], logsnr)
        close(made["alpha"], gaussian.alpha(logsnr))
        close(made["sigma"], gaussian.sigma(logsnr))
        close(made["density"], -1 / slope)
        close(made["loss"], -0.5 * slope * logsnr.exp() * TWO_BUMPS.mmse(logsnr))


def test_best_density(javascript):
    ends = {"logsnr_max": 10, "logsnr_min": -8}
    (made,) = javascript("schedule_explorer", "bestDensity", [[ends]])
    levels, weights = quadrature.interval(-8, 10)
    g = [
        at.exp() * TWO_BUMPS.fourth_moment(at).sqrt()
        for at in (torch.tensor(made["levels"]).double(), levels)
    ]
    close(made["density"], g[0] / (weights @ g[1]))


def test_a_point_goes_no_further_than_its_neighbors(javascript):
    start = state(ScheduleExplorer())
    moved = javascript(
        "schedule_explorer", "drawPoint", [[start, 4, 15], [start, 4, -15], [start, 4, 0.1]]
    )
    assert all(each["shape"] == DRAWN for each in moved)
    close([each["points"][4] for each in moved], [0.4 + GAP, 0.6 - GAP, 0.55])
    assert all(each["points"][:4] + each["points"][5:] == EVEN[:4] + EVEN[5:] for each in moved)


def test_drawing_starts_from_the_chosen_schedule(javascript):
    for shape in SHAPES:
        curve = schedules.SCHEDULES[shape]
        start = {**state(ScheduleExplorer()), "shape": shape}
        (moved,) = javascript("schedule_explorer", "drawPoint", [[start, 8, -6]])
        levels = curve(10.0, -8.0)(torch.tensor(EVEN, dtype=F64))
        close(10 - 18 * torch.tensor(moved["points"]).double()[:8], levels[:8], rtol=0, atol=2e-3)


# The page


def check(shown: Any) -> dict[str, float]:
    """All read-outs against the library, for the setting that the page has."""
    names = ("shape", "time", "logsnr_max", "logsnr_min", "best", "points")
    widget = ScheduleExplorer(**{name: shown.get(name) for name in names})
    costs = library(widget, *moments())
    expected = costs | now(widget)
    agree({name: shown.read(name) for name in expected}, expected)
    assert shown.complaints == []
    return {name: shown.read(name) for name in expected}


def test_every_control_moves_the_numbers(show):
    shown = show(ScheduleExplorer())
    before = check(shown)
    for shape in [*list(SHAPES)[1:], DRAWN]:
        shown.choose("shape", shape)
        after = check(shown)
        assert after["area"] == pytest.approx(before["area"], rel=1e-8)
        if shape != DRAWN:  # still the straight line
            assert after["variance"] > before["variance"] + 100
    shown.type("time", "0.25")
    assert check(shown)["logsnr"] == pytest.approx(5.5)
    shown.slide("time", ["ArrowRight", "ArrowRight"])
    assert shown.get("time") == 0.27
    assert check(shown)["logsnr"] == pytest.approx(10 - 18 * 0.27)
    shown.type("logsnr_max", "6")
    shorter = check(shown)
    assert shorter["area"] < before["area"] - 1
    shown.slide("logsnr_min", ["ArrowLeft"] * 5)
    assert shown.get("logsnr_min") == pytest.approx(-8.5)
    assert check(shown)["area"] > shorter["area"]


def test_the_best_density_comes_and_goes(show):
    shown = show(ScheduleExplorer())
    legend = shown.page.get_by_text("best density p*", exact=True)
    assert legend.count() == 0
    shown.check("best", True)
    assert legend.count() == 1
    check(shown)
    shown.check("best", False)
    assert legend.count() == 0


def test_dots_are_dragged_and_moved_by_keys(show):
    shown = show(ScheduleExplorer(shape="cosine"))
    before = check(shown)
    dots = shown.page.get_by_role("slider", name=re.compile("^log SNR at t"))
    assert dots.count() == 9
    for k in range(9):
        level = float(dots.nth(k).get_attribute("aria-valuenow"))
        dots.nth(k).press("ArrowUp" if k < 4 else "ArrowDown")
        shown.settle()
        assert shown.get("shape") == DRAWN
        moved = float(dots.nth(k).get_attribute("aria-valuenow"))
        assert moved > level if k < 4 else moved < level, k
        after = check(shown)
        assert after["area"] == pytest.approx(before["area"], rel=1e-8)
        assert after["variance"] != before["variance"]
        before = after
    box = dots.nth(0).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 40, y - 25, steps=4)  # only the height counts
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("points")[0] < 0.3
    assert check(shown)["variance"] < before["variance"]


def test_what_the_chapter_says_of_the_explorer(show):
    nine = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.48, 0.55]
    shown = show(ScheduleExplorer(shape=DRAWN, points=nine))
    numbers = check(shown)
    assert 44 < numbers["variance"] < 45
    assert f"{numbers['least']:.1f} {numbers['area']:.3f}" == "39.0 3.797"
    straight = show(ScheduleExplorer())
    assert f"{check(straight)['variance']:.0f}" == "77"
    middle = straight.page.get_by_role("slider", name="log SNR at t = 0.5")
    for _ in range(2):
        middle.press("Shift+ArrowUp")
    straight.settle()
    assert straight.get("points")[4] == pytest.approx(0.4 + GAP)
    assert f"{check(straight)['variance']:.0f}" == "98"
