"""The inference graph of chapter 3: its numbers against the library, its controls in a browser."""

import itertools
import math
import random

import pytest
import torch
from torch.testing import assert_close
from traitlets import TraitError

from vdm_lite.exact import LinearHierarchy
from vdm_lite.widgets.inference_graph import PAIRS, UNITS, InferenceGraph

SEES = ["x_a", "x_b", "x_2"]
GIVEN = ["angle", "s", "s_1", "b"]
ANGLES = [32.0, 38.0, 45.0, 61.0, 90.0, 90.5, 107.0, 119.0]
PRESETS = {
    "Mean field": ([True] * 3, ["none"] * 3),
    "Bottom-up": ([True, True, False], ["none", "z1a → z2", "z1b → z2"]),
    "Top-down": ([True] * 3, ["none", "z2 → z1a", "z2 → z1b"]),
}


def ways(field: str) -> list[str]:
    one, other = (UNITS[i] for i in PAIRS[field])
    return ["none", f"{one} → {other}", f"{other} → {one}"]


def state(widget: InferenceGraph) -> dict:
    return {name: getattr(widget, name) for name in [*SEES, *PAIRS, *GIVEN]}


def graph(sees, links, **numbers) -> InferenceGraph:
    names = dict(zip([*SEES, *PAIRS], [*sees, *links], strict=True))
    return InferenceGraph(**names, **numbers)


def without_cycle(widget: InferenceGraph) -> bool:
    return not widget.arrows()[1].matrix_power(3).any()


def all_graphs(seed: int) -> list[InferenceGraph]:
    """Every set of arrows without a circle, 8 x 25 of them, each with numbers of its own."""
    draw = random.Random(seed)
    found = []
    for sees in itertools.product([False, True], repeat=3):
        for links in itertools.product(*map(ways, PAIRS)):
            numbers = {"angle": draw.uniform(32, 120), "b": draw.uniform(-2, 2)}
            numbers["s"] = math.exp(draw.uniform(math.log(0.3), math.log(5)))
            numbers["s_1"] = math.exp(draw.uniform(math.log(0.2), math.log(2)))
            found.append(graph(sees, links, **numbers))
    return [widget for widget in found if without_cycle(widget)]


def found_gaps(javascript, widgets) -> list[float]:
    toys = javascript("inference_graph", "makeToy", [[state(w)] for w in widgets])
    arrows = javascript("inference_graph", "arrowsOf", [[state(w)] for w in widgets])
    calls = [[toy, each["sees"], each["links"]] for toy, each in zip(toys, arrows, strict=True)]
    return [found["gap"] for found in javascript("inference_graph", "smallestGap", calls)]


def same(found, expected) -> None:
    found, expected = (torch.as_tensor(v, dtype=torch.float64) for v in (found, expected))
    assert_close(found, expected, rtol=1e-6, atol=1e-9)


def family_gaps(model: LinearHierarchy) -> dict[str, float]:
    x = torch.zeros(1, 3, dtype=torch.float64)
    families = {"mean_field": model.mean_field(x), "bottom_up": model.bottom_up(x)}
    families["top_down"] = model.top_down(x)
    return {name: model.gap(x, q).item() for name, q in families.items()}


def holds(shown, **changed) -> None:
    """The page shows what the library computes for its state, of which ``changed`` is a part."""
    widget = InferenceGraph(**{name: shown.get(name) for name in [*SEES, *PAIRS, *GIVEN]})
    assert {name: getattr(widget, name) for name in changed} == changed
    same(shown.read("gap"), widget.gap())
    for name, gap in family_gaps(widget.model()).items():
        same(shown.read(name), gap)
    same(shown.read("entry"), widget.model().weights[0][1, 1])
    assert shown.complaints == []


def arrow(shown, field: str):
    return shown.page.locator(f'.vdm-arrow[data-field="{field}"]')


def test_least_gap_of_every_graph(javascript):
    widgets = all_graphs(0)
    assert len(widgets) == 200
    same(found_gaps(javascript, widgets), [widget.gap().item() for widget in widgets])


def test_the_toy_and_the_closed_forms_of_three_families(javascript):
    widgets = all_graphs(2)
    toys = javascript("inference_graph", "makeToy", [[state(w)] for w in widgets])
    families = javascript("inference_graph", "familyGaps", [[toy] for toy in toys])
    entries = javascript("inference_graph", "columnEntry", [[w.angle] for w in widgets])
    for widget, toy, family, entry in zip(widgets, toys, families, entries, strict=True):
        model = widget.model()
        W = model.weights[0]
        same(toy["precision"], model.precision())
        mean = model.posterior(torch.eye(3, dtype=torch.float64)).mean.T
        same(toy["spread"], mean @ model.covariance() @ mean.T)
        same(entry, W[1, 1])
        cosine = W[:, 0] @ W[:, 1] / W.norm(dim=0).prod()
        same(cosine, math.cos(math.radians(widget.angle)))
        for name, gap in family_gaps(model).items():
            same(family[name], gap)


def test_the_curve_over_the_angle(javascript):
    widgets = all_graphs(3)[::25]
    curves = javascript("inference_graph", "gapCurve", [[state(w), ANGLES] for w in widgets])
    for widget, curve in zip(widgets, curves, strict=True):
        numbers = state(widget)
        expected = [InferenceGraph(**{**numbers, "angle": angle}).gap() for angle in ANGLES]
        same(curve, expected)


def test_the_two_toys_of_the_chapter():
    for angle, entry in ((90.0, -1.0), (45.0, 0.5)):
        W = torch.tensor([[1.0, 1.0], [1.0, entry], [0.0, 1.0]], dtype=torch.float64)
        same(InferenceGraph(angle=angle).model().weights[0], W)


def test_each_control_moves_the_gap(show):
    shown = show(InferenceGraph())
    holds(shown, a_2="z1a → z2", x_2=False)
    numbers = {"angle": 45.0, "b": -0.7, "s_1": 0.8, "s": 0.9}
    for name, value in numbers.items():
        shown.type(name, str(value))
        holds(shown, **{name: value})
        shown.slide(name, ["ArrowRight"])
        assert shown.get(name) > value
        holds(shown)
    for name in SEES:
        before = shown.get(name)
        shown.check(name, not before)
        holds(shown, **{name: not before})
    for field, way in (("a_b", "z1b → z1a"), ("a_2", "none"), ("b_2", "z2 → z1b")):
        shown.choose(field, way)
        holds(shown, **{field: way})
    for name, (sees, links) in PRESETS.items():
        shown.page.get_by_role("button", name=name).click()
        shown.settle()
        holds(shown, **dict(zip(SEES, sees, strict=True)), **dict(zip(PAIRS, links, strict=True)))


def test_arrows_of_the_picture_by_mouse_and_keyboard(show):
    shown = show(InferenceGraph())
    for field in PAIRS:
        for _ in range(3):
            before = shown.get(field)
            box = arrow(shown, field).bounding_box()
            shown.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            shown.settle()
            expected = ways(field)[(ways(field).index(before) + 1) % 3]
            holds(shown, **{field: expected})
            said = arrow(shown, field).get_attribute("aria-label")
            assert said.endswith("none" if expected == "none" else expected.replace(" →", " to"))
    for name, key in zip(SEES, ("Enter", " ", "Enter"), strict=True):
        before = shown.get(name)
        arrow(shown, name).press(key)
        shown.settle()
        holds(shown, **{name: not before})
        assert shown.page.evaluate("document.activeElement.dataset.field") == name


def test_the_handle_turns_the_columns(show):
    shown = show(InferenceGraph())
    knob = shown.page.get_by_role("slider", name="angle of the columns", exact=True)
    knob.press("ArrowLeft")
    shown.settle()
    holds(shown, angle=89)
    box = knob.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x - 150, y)
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("angle") < 80
    holds(shown)


def circle(widget: InferenceGraph) -> bool:
    with pytest.raises(ValueError, match="links: expected no cycle"):
        widget.gap()
    return True


@pytest.mark.parametrize("field", PAIRS)
def test_an_arrow_that_would_close_a_circle_is_turned(show, field):
    circle_of = {"a_b": "z1a → z1b", "a_2": "z2 → z1a", "b_2": "z1b → z2"}
    assert circle(InferenceGraph(**circle_of))
    shown = show(InferenceGraph(**{**circle_of, field: "none"}))
    shown.choose(field, circle_of[field])
    turned = " → ".join(reversed(circle_of[field].split(" → ")))
    shown.settle()
    holds(shown, **{**circle_of, field: turned})
    assert "would close a circle" in shown.page.locator(".vdm-status").inner_text()
    shown.check("x_a", False)
    assert shown.page.locator(".vdm-status").inner_text() == ""


def test_presses_leave_out_the_way_that_would_close_a_circle(show):
    shown = show(InferenceGraph(a_b="z1a → z1b", a_2="none", b_2="z1b → z2"))
    for way, told in (("z1a → z2", False), ("none", True), ("z1a → z2", False)):
        arrow(shown, "a_2").press("Enter")
        shown.settle()
        holds(shown, a_2=way)
        message = shown.page.locator(".vdm-status").inner_text()
        assert message.startswith("z2 → z1a would close a circle") == told


def test_a_circle_in_python_or_in_a_link_is_mended(show):
    circle_of = {"a_b": "z1a → z1b", "a_2": "z2 → z1a", "b_2": "z1b → z2"}
    shown = show(InferenceGraph(**circle_of))
    shown.settle()
    holds(shown, a_b="z1b → z1a")
    with pytest.raises(TraitError):
        InferenceGraph(a_b="z1a → z2")


def test_what_the_chapter_says_of_these_arrows():
    climbing = dict(zip(PAIRS, PRESETS["Bottom-up"][1], strict=True))
    for angle in (40.0, 90.0, 115.0):
        one_more = InferenceGraph(**{**climbing, "a_b": "z1a → z1b", "angle": angle})
        assert InferenceGraph(**climbing, angle=angle).gap() > 1e-2
        assert one_more.gap() < 1e-9
    same(InferenceGraph(**climbing, x_2=True).gap(), InferenceGraph(**climbing).gap())
    assert InferenceGraph(**climbing, b=0.0).gap() < 1e-9
    family = family_gaps(InferenceGraph(s=1.0, angle=39.0).model())
    assert family["bottom_up"] < 1e-4 and family["top_down"] > 0.03
