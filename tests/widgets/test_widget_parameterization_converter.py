"""The converter: its numbers are the library's, whichever output the reader types or drags."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from vdm_lite import gaussian
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.parameterization import determinant, edm, solve, target
from vdm_lite.widgets.parameterization_converter import POINTWISE, ParameterizationConverter

FIELDS = ("logsnr", "latent", "output", "error", "std", "unit")
OUTPUTS = [*POINTWISE, "edm"]
TOY = {"weights": [0.5, 0.5], "means": [-1.0, 1.0], "stds": [0.15, 0.15]}


def row(name: str, std: float):
    return POINTWISE.get(name) or edm(std)


def scale(name: str, logsnr: Tensor, std: float) -> Tensor:
    """The deviation of an output's target."""
    p = row(name, std)
    return ((p.a(logsnr) * std) ** 2 + p.b(logsnr) ** 2).sqrt()


def expected(converter: ParameterizationConverter) -> dict[str, float]:
    """Every number that the widget shows, by the library."""
    level = torch.tensor(converter.logsnr, dtype=torch.float64)
    said, best, std = converter.prediction(), converter.exact(), converter.std
    z = torch.tensor([[converter.latent]], dtype=torch.float64)
    numbers = {"energy": TWO_BUMPS.energy(z, level)}
    numbers |= {"off_image": said.x - best.x, "off_noise": said.eps - best.eps}
    gain = {"image": gaussian.sigma, "noise": gaussian.alpha}[converter.unit](level)
    for name in OUTPUTS:
        p = row(name, std)
        numbers[name] = target(p, said.x, said.eps, level)
        numbers[f"exact_{name}"] = target(p, best.x, best.eps, level)
        amplified = gain / determinant(p, level).abs() * scale(name, level, std)
        numbers[f"{name}_factor"] = amplified
    return {key: value.item() for key, value in numbers.items()}


def flat(answer: dict[str, Any]) -> dict[str, float]:
    """The answer of ``converted`` under the names of the read-outs."""
    numbers = {"energy": answer["exact"]["energy"]} | answer["said"]
    numbers |= {f"off_{unit}": value for unit, value in answer["off"].items()}
    for name in OUTPUTS:
        numbers[f"exact_{name}"] = answer["exact"][name]
        numbers[f"{name}_factor"] = answer["factors"][name]
    return numbers


def close(actual: dict[str, float], converter: ParameterizationConverter) -> None:
    wanted = expected(converter)
    assert set(actual) == set(wanted)
    for key, value in wanted.items():
        assert actual[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


def some_state(draw: random.Random) -> dict[str, Any]:
    return {
        "logsnr": draw.uniform(-8, 10),
        "latent": draw.uniform(-3, 3),
        "output": draw.choice(OUTPUTS),
        "error": draw.uniform(-5, 5),
        "std": draw.uniform(0.1, 2),
        "unit": draw.choice(["image", "noise"]),
    }


def test_numbers_are_those_of_the_library(javascript):
    draw = random.Random(8)
    states = [some_state(draw) for _ in range(300)]
    calls = [[state | {"toy": TOY}] for state in states]
    for state, answer in zip(
        states, javascript("parameterization_converter", "converted", calls), strict=True
    ):
        close(flat(answer), ParameterizationConverter(**state))


def test_any_output_gives_the_others(javascript):
    draw = random.Random(80)
    calls = [
        [
            draw.choice(OUTPUTS),
            draw.gauss(0, 1),
            draw.gauss(0, 1),
            draw.uniform(-8, 10),
            draw.uniform(0.1, 2),
        ]
        for _ in range(300)
    ]
    answers = javascript("parameterization_converter", "convert", calls)
    for (output, answer, z, logsnr, std), others in zip(calls, answers, strict=True):
        level = torch.tensor(logsnr, dtype=torch.float64)
        y, z = (torch.tensor([[v]], dtype=torch.float64) for v in (answer, z))
        pair = solve(row(output, std), y, z, level)
        for name in OUTPUTS:
            wanted = target(row(name, std), pair.x, pair.eps, level).item()
            assert others[name] == pytest.approx(wanted, rel=1e-6, abs=1e-9), (output, name)


def test_the_toy_is_the_books():
    assert ParameterizationConverter().toy == TOY


@pytest.mark.parametrize("unit", ["image", "noise"])
@pytest.mark.parametrize("std", [0.3, 1.0])
def test_map_shows_the_band_of_the_amplification(javascript, unit, std):
    (bands,) = javascript("parameterization_converter", "amplificationMap", [[unit, std]])
    gain = gaussian.sigma if unit == "image" else gaussian.alpha
    for k in range(91):
        level = torch.tensor(-8 + 0.2 * k, dtype=torch.float64)
        for index, name in enumerate(OUTPUTS):
            delta = determinant(row(name, std), level).abs()
            size = (gain(level) / delta * scale(name, level, std)).item()
            band = next(i for i, low in enumerate((10, 2, 0.5, 0)) if size >= low)
            if min(abs(size / low - 1) for low in (10, 2, 0.5)) < 0.03:
                continue  # too close to a border for a grid of 0.05
            inside = [
                i
                for i, found in enumerate(bands)
                for r in found
                if r["y0"] < index < r["y1"] and r["x0"] <= level.item() <= r["x1"]
            ]
            assert band in inside, (name, level.item(), size)


def test_no_output_has_a_smaller_factor_than_edm():
    for logsnr in (-8.0, -3.0, 0.0, 4.0, 10.0):
        for unit in ("image", "noise"):
            numbers = expected(ParameterizationConverter(logsnr=logsnr, std=0.5, unit=unit))
            factors = {name: numbers[f"{name}_factor"] for name in OUTPUTS}
            assert min(factors.values()) > factors["edm"] * (1 - 1e-12)


# Controls


def held(shown: Any) -> ParameterizationConverter:
    """A widget in Python with the state of the page, whose numbers the page must show."""
    converter = ParameterizationConverter(**{name: shown.get(name) for name in FIELDS})
    close({key: shown.read(key) for key in expected(converter)}, converter)
    return converter


def field(shown: Any, name: str) -> Any:
    return shown.page.get_by_label(f"{name}, typed", exact=True)


def test_every_control_moves_the_numbers(show):
    shown = show(ParameterizationConverter())
    before = expected(held(shown))
    moves = {
        "logsnr": lambda: shown.type("logsnr", "-4"),
        "latent": lambda: shown.slide("latent", ["ArrowRight"] * 30),
        "output": lambda: shown.choose("output", "flow"),
        "error": lambda: shown.type("error", "-0.7"),
        "std": lambda: shown.type("std", "0.5"),
        "unit": lambda: shown.choose("unit", "noise"),
    }
    for name, move in moves.items():
        move()
        after = expected(held(shown))
        assert any(abs(after[key] - before[key]) > 1e-3 for key in after), name
        before = after
    picture = shown.page.locator(".vdm-chart").nth(1).locator(".vdm-plot svg")
    old = picture.inner_html()
    shown.choose("unit", "image")
    assert picture.inner_html() != old
    assert shown.complaints == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_typing_any_output_gives_the_others(show, name):
    shown = show(ParameterizationConverter(logsnr=-1.5, output="image", error=0.3, std=0.6))
    field(shown, name).fill("0.25")
    field(shown, name).press("Enter")
    shown.settle()
    converter = held(shown)
    assert converter.output == name
    assert shown.read(name) == pytest.approx(0.25, abs=1e-12)
    p, level = converter.parameterization(), torch.tensor(-1.5, dtype=torch.float64)
    y, z = (torch.tensor([[v]], dtype=torch.float64) for v in (0.25, converter.latent))
    assert shown.read("image") == pytest.approx(solve(p, y, z, level).x.item(), rel=1e-9)


@pytest.mark.parametrize("index", range(len(OUTPUTS)))
def test_dragging_any_output_gives_the_others(show, index):
    shown = show(ParameterizationConverter(output="image", error=0.0, logsnr=1.0))
    knob = shown.page.locator(".vdm-chart").first.locator(".vdm-knob").nth(index)
    knob.press("ArrowRight")
    shown.settle()
    converter = held(shown)
    assert converter.output == OUTPUTS[index] and converter.error == pytest.approx(0.05)
    assert OUTPUTS[index] in knob.get_attribute("aria-label")
    box = knob.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 60, y, steps=4)
    shown.page.mouse.up()
    shown.settle()
    assert 0.1 < held(shown).error < 2


def test_the_latent_moves_on_its_hill(show):
    shown = show(ParameterizationConverter())
    knob = shown.page.get_by_role("slider", name="the latent z", exact=True)
    knob.press("Shift+ArrowLeft")
    shown.settle()
    assert held(shown).latent == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("typed", "words"), [("a lot", "is not a number"), ("NaN", "is not"), ("900", "not in the")]
)
def test_a_bad_answer_is_refused_with_a_reason(show, typed, words):
    shown = show(ParameterizationConverter())
    before = {name: shown.get(name) for name in FIELDS}
    field(shown, "velocity").fill(typed)
    field(shown, "velocity").press("Enter")
    shown.settle()
    problem = shown.page.locator(".vdm-table .vdm-problem")
    assert words in problem.inner_text() and "velocity" in problem.inner_text()
    assert {name: shown.get(name) for name in FIELDS} == before
    field(shown, "velocity").fill("0.1")
    field(shown, "velocity").press("Enter")
    shown.settle()
    assert problem.inner_text() == "" and shown.get("output") == "velocity"
    held(shown)
