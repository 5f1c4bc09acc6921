"""The weight explorer: its numbers are the library's, and every control moves them."""

import random
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from vdm_lite import schedules, weighting
from vdm_lite.widgets.weight_explorer import HANDLES, LOGSNR_MAX, NAMES, WeightExplorer

FIELDS = ("recipe", "schedule", "bias", "logsnr", "logsnr_min", "drawn")
READ = ("p", "w", "factor", "density", "positive", "negative", "clean")


def expected(explorer: WeightExplorer) -> dict[str, float]:
    """Every number that the widget shows, by the library."""
    level = torch.tensor([max(explorer.logsnr, explorer.logsnr_min)], dtype=torch.float64)
    p_w, w = explorer.augmentation(), explorer.weighting()(level)
    p = schedules.density(explorer.noise_schedule(), level)
    positive, negative = p_w.masses()
    numbers = {"p": p, "w": w, "factor": w / p, "density": p_w.density(level) / p_w.total}
    shares = {"positive": positive, "negative": negative, "clean": p_w.clean}
    return {k: v.item() for k, v in numbers.items()} | {k: v / p_w.total for k, v in shares.items()}


def falls(explorer: WeightExplorer) -> bool:
    return weighting.is_monotone(explorer.weighting(), LOGSNR_MAX, explorer.logsnr_min)


def some_state(draw: random.Random, recipe: str) -> dict[str, Any]:
    """A random setting of the widget with this recipe."""
    low = draw.uniform(-10, 0)
    return {
        "recipe": recipe,
        "schedule": draw.choice(["its own", *NAMES]),
        "bias": draw.uniform(-4, 8),
        "logsnr_min": low,
        "logsnr": draw.uniform(low, LOGSNR_MAX),
        "drawn": sorted((draw.uniform(-6, 1) for _ in HANDLES), reverse=draw.random() < 0.5),
    }


def close(actual: dict[str, Any], explorer: WeightExplorer, rtol: float = 1e-6) -> None:
    for key, value in expected(explorer).items():
        assert actual[key] == pytest.approx(value, rel=rtol, abs=1e-9), (key, explorer.recipe)


def test_numbers_are_those_of_the_library(javascript):
    draw = random.Random(9)
    names = [*weighting.RECIPES, "drawn", "drawn"]
    states = [some_state(draw, recipe) for recipe in names for _ in range(20)]
    states += [some_state(draw, "min-SNR") | {"logsnr": level} for level in (1.5, 1.7, 4.0)]
    constant = {"logsnr_max": LOGSNR_MAX}
    answers = javascript("weight_explorer", "numbersOf", [[s | constant] for s in states])
    assert len(answers) >= 200
    for state, answer in zip(states, answers, strict=True):
        explorer = WeightExplorer(**state)
        close(answer, explorer)
        assert answer["rises"] is not falls(explorer)
        if answer["rises"]:
            assert answer["median"] is None
        else:
            check_median(explorer, answer["median"])


def check_median(explorer: WeightExplorer, median: float) -> None:
    """Half of a falling weight's mass lies below the median, or the median is the clean end."""
    ends = torch.tensor([explorer.logsnr_min, median, LOGSNR_MAX], dtype=torch.float64)
    noisy, middle, clean = (explorer.weighting()(ends) / 2).tolist()
    if median == LOGSNR_MAX:
        assert 2 * clean >= noisy
    else:
        assert_close(2 * middle, noisy, rtol=1e-6, atol=0)


def test_recipes_and_schedules_have_the_names_of_the_library(show):
    page = show(WeightExplorer()).page
    names = "async () => (await import('/js/lib/weights.js')).RECIPE_NAMES"
    assert page.evaluate(names) == list(weighting.RECIPES)
    own = "async (name) => (await import('/js/lib/weights.js')).recipeSchedule(name)"
    for name, recipe in weighting.RECIPES.items():
        assert schedules.SCHEDULES[page.evaluate(own, name)] is type(recipe.schedule)


def test_a_drawn_weight_passes_through_its_handles():
    explorer = WeightExplorer(recipe="drawn")
    levels = torch.linspace(-5, LOGSNR_MAX, len(HANDLES), dtype=torch.float64)
    powers = torch.tensor(HANDLES, dtype=torch.float64)
    assert_close(explorer.weighting()(levels), 10**powers)
    middles = (levels[1:] + levels[:-1]) / 2
    assert_close(explorer.weighting()(middles).log10(), (powers[1:] + powers[:-1]) / 2)


# Controls


def held(shown: Any) -> WeightExplorer:
    """A widget in Python with the state of the page, whose numbers the page must show."""
    explorer = WeightExplorer(**{name: shown.get(name) for name in FIELDS})
    close({key: shown.read(key) for key in READ}, explorer)
    median = shown.page.locator('data[data-readout="median"]').get_attribute("value")
    assert (median == "null") is not falls(explorer)
    if falls(explorer):
        check_median(explorer, float(median))
    signed = "signed" in shown.page.locator(".vdm-verdict").inner_text()
    assert signed is not falls(explorer)
    return explorer


def test_every_control_moves_the_numbers(show):
    shown = show(WeightExplorer())
    before = expected(held(shown))
    moves = {
        "recipe": lambda: shown.choose("recipe", "sigmoid"),
        "schedule": lambda: shown.choose("schedule", "cosine"),
        "bias": lambda: shown.type("bias", "-1.5"),
        "logsnr": lambda: shown.slide("logsnr", ["ArrowLeft"] * 7),
        "logsnr_min": lambda: shown.type("logsnr_min", "-3.25"),
    }
    for name, move in moves.items():
        old = shown.get(name)
        move()
        assert shown.get(name) != old
        after = expected(held(shown))
        assert any(abs(after[key] - before[key]) > 1e-3 for key in READ), name
        before = after
    assert shown.complaints == []


def test_the_weight_does_not_hang_on_who_draws(show):
    shown = show(WeightExplorer(recipe="EDM"))
    numbers = {}
    for name in NAMES:
        shown.choose("schedule", name)
        held(shown)
        numbers[name] = {key: shown.read(key) for key in READ}
    kept = ("w", "density", "positive", "negative", "clean")
    assert len({tuple(each[key] for key in kept) for each in numbers.values()}) == 1
    assert len({each["factor"] for each in numbers.values()}) == len(NAMES)


def test_a_weight_that_rises_is_monotone_above_its_peak(show):
    shown = show(WeightExplorer(recipe="EDM"))
    assert not falls(held(shown))
    shown.type("logsnr_min", "-3.3")  # the peak is at -3.308
    assert falls(held(shown))


@pytest.mark.parametrize("index", range(len(HANDLES)))
def test_handles_draw_a_weight(show, index):
    shown = show(WeightExplorer(recipe="drawn", logsnr=-5 + 18.3 / 8 * index))
    before = expected(held(shown))
    knob = shown.page.locator(".vdm-knob").nth(index)
    knob.press("ArrowUp")
    shown.settle()
    drawn = [h + 0.1 * (i == index) for i, h in enumerate(HANDLES)]
    assert shown.get("drawn") == pytest.approx(drawn)
    assert knob.get_attribute("role") == "slider" and "power of ten" in knob.get_attribute(
        "aria-label"
    )
    after = expected(held(shown))
    assert after["w"] == pytest.approx(before["w"] * 10**0.1, rel=1e-6)


def test_a_dragged_handle_starts_from_the_recipe(show):
    shown = show(WeightExplorer(recipe="flow-matching"))
    levels = torch.linspace(-5, LOGSNR_MAX, len(HANDLES), dtype=torch.float64)
    powers = WeightExplorer(recipe="flow-matching").weighting()(levels).log10().clamp(min=-6)
    box = shown.page.locator(".vdm-knob").nth(4).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 30, y - 40, steps=4)
    shown.page.mouse.up()
    shown.settle()
    explorer = held(shown)
    assert explorer.recipe == "drawn" and not falls(explorer)
    others = [i for i in range(len(HANDLES)) if i != 4]
    assert explorer.drawn[4] > powers[4] + 0.5
    assert [explorer.drawn[i] for i in others] == pytest.approx(powers[others].tolist(), abs=1e-9)
