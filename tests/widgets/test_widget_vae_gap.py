"""The widget of chapter 1: its numbers equal those of the library, and its controls move them."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from vdm_lite.exact import LinearHierarchy
from vdm_lite.widgets import VaeGap

COSTS = ("reconstruction", "prior", "bound", "evidence", "gap")
TOY = {"weight": 1.0, "std": 0.5, "x": 1.5}


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def linear_vae(toy):
    return LinearHierarchy([real(toy["weight"])[:, None]], [toy["std"]])


def costs(toy, mean, variance):
    """The five numbers by the library."""
    model, x = linear_vae(toy), real(toy["x"])[:, None]
    q = MultivariateNormal(real(mean)[None], real(variance)[None, None])
    both = model.elbo(x, q)
    found = (both.reconstruction, both.prior, both.nelbo, -model.log_prob(x), model.gap(x, q))
    return dict(zip(COSTS, (each.item() for each in found), strict=True))


def random_cases(n=250):
    """Toys and choices of q over the ranges of the widget, and wider toys."""
    draws = torch.rand(n, 5, dtype=torch.float64).tolist()
    for a, b, c, d, e in draws:
        toy = {"weight": 4 * a - 2, "std": 0.05 + 2 * b, "x": 6 * c - 3}
        yield toy, 5 * d - 2, 0.01 * 200**e


def agrees(shown):
    """Every read-out is what the library says of the state that the page holds."""
    expected = costs(TOY, shown.get("mean"), shown.get("variance"))
    found = {name: shown.read(name) for name in COSTS}
    assert_close(found, expected, rtol=1e-6, atol=1e-9)
    return found


def test_toy_is_that_of_the_chapter():
    explorer = VaeGap()
    assert explorer.toy == TOY
    posterior = linear_vae(explorer.toy).posterior(real(1.5)[:, None])
    assert_close((posterior.mean.item(), posterior.variance.item()), (1.2, 0.2))


def test_costs_equal_the_library(javascript):
    cases = list(random_cases())
    found = javascript("vae_gap", "costsOf", [list(case) for case in cases])
    expected = [costs(*case) for case in cases]
    for name in COSTS:
        pair = (real(*(each[name] for each in side)) for side in (found, expected))
        assert_close(*pair, rtol=1e-6, atol=1e-9)


def test_posterior_equals_the_library(javascript):
    toys = [toy for toy, *_ in random_cases()]
    for toy, found in zip(
        toys, javascript("vae_gap", "exactPosterior", [[t] for t in toys]), strict=True
    ):
        exact = linear_vae(toy).posterior(real(toy["x"])[:, None])
        expected = {"mean": exact.mean.item(), "variance": exact.variance.item()}
        assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_fields_move_every_number(show):
    shown = show(VaeGap())
    first = agrees(shown)
    shown.type("mean", "1.2")
    second = agrees(shown)
    shown.type("variance", "0.2")
    third = agrees(shown)
    assert first["gap"] > second["gap"] > third["gap"] and third["gap"] < 1e-12
    assert_close(third["bound"], third["evidence"])
    assert shown.complaints == []


def test_sliders_move_every_number(show):
    shown = show(VaeGap())
    before = agrees(shown)
    shown.slide("mean", ["ArrowRight", "ArrowRight"])
    assert_close(shown.get("mean"), 0.52)
    after = agrees(shown)
    assert after["prior"] > before["prior"] and after["gap"] < before["gap"]
    shown.slide("variance", ["ArrowLeft"])
    assert shown.get("variance") < 0.5
    assert agrees(shown)["reconstruction"] < after["reconstruction"]


@pytest.mark.parametrize("seen", [True, False])
def test_switch_hides_what_nobody_knows(show, seen):
    shown = show(VaeGap(truth=not seen))
    shown.check("truth", seen)
    words = shown.page.locator(".vdm").inner_text()
    assert ("exact posterior" in words) == seen
    assert (shown.page.locator("data[data-readout=gap]").inner_text() != "–") == seen
    expected = costs(TOY, 0.5, 0.5)
    for name in COSTS[:3]:
        assert_close(shown.read(name), expected[name])


def test_handles_move_mean_and_variance_by_keyboard(show):
    shown = show(VaeGap())
    mean, width = (shown.page.locator(".vdm-knob").nth(i) for i in range(2))
    mean.press("ArrowRight")
    shown.settle()
    assert_close(shown.get("mean"), 0.51)
    agrees(shown)
    width.press("Shift+ArrowLeft")
    shown.settle()
    assert_close(shown.get("variance"), (math.sqrt(0.5) - 0.1) ** 2)
    agrees(shown)


def test_handles_can_be_dragged(show):
    shown = show(VaeGap())
    for index, name in enumerate(("mean", "variance")):
        before = shown.get(name)
        box = shown.page.locator(".vdm-knob").nth(index).bounding_box()
        at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        shown.page.mouse.move(*at)
        shown.page.mouse.down()
        shown.page.mouse.move(at[0] + 40, at[1], steps=4)
        shown.page.mouse.up()
        shown.settle()
        assert shown.get(name) > before
        agrees(shown)


@pytest.mark.parametrize("mean", [-2.0, 2.4, 3.0])
@pytest.mark.parametrize("variance", [0.01, 2.0])
def test_every_q_stays_on_the_chart(show, mean, variance):
    shown = show(VaeGap(mean=mean, variance=variance))
    agrees(shown)
    plot = shown.page.locator(".vdm-plot").first.bounding_box()
    for knob in shown.page.locator(".vdm-knob").all():
        box = knob.bounding_box()
        assert plot["y"] < box["y"] + 13 < plot["y"] + plot["height"]
        assert plot["x"] + 48 <= box["x"] + 13 <= plot["x"] + plot["width"] - 14
    ends = shown.page.evaluate(
        "() => { const plot = document.querySelectorAll('.vdm-plot')[1];"
        " const right = (element) => element.getBoundingClientRect().right;"
        " return [...plot.querySelectorAll('rect[style]')].map(bar => right(bar) - right(plot)) }"
    )
    assert len(ends) >= 4
    assert max(ends) < 0
