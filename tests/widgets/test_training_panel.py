"""The training panel: its states, its errors, and runs that no pause and no other cell change."""

import asyncio
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ipywidgets
import pytest
import torch
from browsing import PATIENCE, SITE
from bs4 import BeautifulSoup
from conftest import missing
from torch import nn
from torch.testing import assert_close

from vdm_lite import training
from vdm_lite.widgets.training import NEEDS_KERNEL, TrainingPanel, running_mean

POINTS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
OPTIONS = {"batch_size": 16, "lr": 1e-2, "ema_decay": 0.9}


class Net(nn.Module):
    """A small regression whose dropout draws from torch's global random numbers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 2))

    def loss(self, batch, generator=None):
        noise = torch.randn(batch.shape, generator=generator)
        return (self.layers(batch + noise) - batch).square().sum(1)


def draw(model, ax):
    with torch.no_grad():
        ax.scatter(*model.layers(torch.randn(20, 2)).T)


def panel(steps=30, build=Net, draw=draw, **options) -> TrainingPanel:
    return TrainingPanel(build, POINTS, steps, draw, **{**OPTIONS, **options})


def broken_from(call: int, value: float = torch.nan):
    """A loss that is fine until it is called for the ``call``-th time."""
    calls = iter(range(1, 10_000))

    def loss(model, batch, generator):
        return model.loss(batch, generator) + (value if next(calls) >= call else 0.0)

    return loss


def weights(panel) -> list[torch.Tensor]:
    return [value.clone() for value in panel.model.state_dict().values()]


def of_type(widget, kind) -> list:
    """The panel's parts of one kind, as the reader sees them from top to bottom."""
    inside = [found for child in getattr(widget, "children", ()) for found in of_type(child, kind)]
    return [widget] * isinstance(widget, kind) + inside


def click(panel, name: str) -> None:
    (button,) = (b for b in of_type(panel, ipywidgets.Button) if b.description == name)
    assert not button.disabled
    button.click()


def enabled(panel) -> list[str]:
    return [b.description for b in of_type(panel, ipywidgets.Button) if not b.disabled]


def text(panel) -> str:
    return " ".join(part.value for part in of_type(panel, ipywidgets.HTML))


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def live(work) -> Any:
    """Run a coroutine on a loop in a thread of its own: playwright keeps that of this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


# A run is a function of its seed


def reference(steps=30) -> list[torch.Tensor]:
    """The weights of the same run by ``fit`` alone."""
    torch.manual_seed(0)
    *_, last = training.fit(Net(), POINTS, steps, progress=False, **OPTIONS)
    return list(last.averaged.state_dict().values())


def test_train_is_fit():
    shown = panel()
    shown.train()
    assert_close(weights(shown), reference(), rtol=0, atol=0)


def test_a_pause_and_other_cells_change_no_number():
    shown = panel()
    for steps in (1, 7, 13, 100):
        shown.train(steps)
        torch.randn(5)  # what another cell may do
    assert shown.state == "finished"
    assert_close(weights(shown), reference(), rtol=0, atol=0)


def test_training_in_the_background_changes_no_number():
    async def clicks(shown):
        for stop in (3, 11):
            click(shown, "Start")
            await until(lambda stop=stop: shown.step >= stop)
            click(shown, "Pause")
            torch.randn(5)
        click(shown, "Start")
        await until(lambda: shown.state == "finished")

    shown = panel(steps=300)
    live(clicks(shown))
    assert shown.step == 300
    assert_close(weights(shown), reference(300), rtol=0, atol=0)


def test_a_reset_repeats_the_run():
    shown = panel()
    fresh = weights(shown)
    shown.train()
    first, losses = weights(shown), shown.losses
    shown.reset()
    assert (shown.state, shown.step) == ("ready", 0)
    assert_close(weights(shown), fresh, rtol=0, atol=0)
    shown.train()
    assert shown.losses == losses
    assert_close(weights(shown), first, rtol=0, atol=0)


def test_another_seed_is_another_run():
    shown, other = panel(), panel(seed=1)
    assert not torch.equal(weights(shown)[0], weights(other)[0])


def test_the_panel_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    panel().train(3)
    assert torch.equal(torch.get_rng_state(), before)


# States


def test_buttons_follow_the_state():
    async def clicks():
        shown = panel(steps=100_000)
        assert (shown.state, enabled(shown)) == ("ready", ["Start", "Reset"])
        click(shown, "Start")
        assert (shown.state, enabled(shown)) == ("running", ["Pause", "Reset"])
        await until(lambda: shown.step > 0)
        click(shown, "Pause")
        assert (shown.state, enabled(shown)) == ("paused", ["Start", "Reset"])
        paused_at = shown.step
        await asyncio.sleep(0.1)
        assert shown.step == paused_at
        click(shown, "Start")
        await until(lambda: shown.step > paused_at)
        click(shown, "Reset")
        assert (shown.state, shown.step, enabled(shown)) == ("ready", 0, ["Start", "Reset"])
        await asyncio.sleep(0.1)
        assert shown.step == 0

    live(clicks())


def test_a_run_ends_by_itself():
    async def clicks():
        shown = panel()
        click(shown, "Start")
        await until(lambda: shown.state == "finished")
        return shown

    shown = live(clicks())
    assert (shown.step, enabled(shown)) == (30, ["Reset"])
    assert of_type(shown, ipywidgets.IntProgress)[0].value == 30


def test_pause_and_start_at_once_train_once():
    async def clicks():
        shown = panel(steps=100_000)
        for _ in range(5):
            shown.start()
            shown.pause()
        shown.start()
        await until(lambda: shown.step > 0)
        assert len(asyncio.all_tasks()) == 2  # this one and the training
        shown.pause()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    live(clicks())


def test_clicks_get_through_while_it_trains():
    """A reader's other work gets a turn about every 50 ms, whatever the number of steps."""

    async def work():
        shown, turns = panel(steps=100_000), 0
        shown.start()
        while shown.step < 1000:
            turns += 1
            steps = shown.step
            await asyncio.sleep(0.06)
            assert shown.step > steps
        shown.pause()
        return turns

    assert live(work()) > 1


def test_train_takes_over_from_the_background():
    async def both():
        shown = panel(steps=200)
        shown.start()
        await until(lambda: shown.step > 0)
        shown.train()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        return shown

    shown = live(both())
    assert (shown.state, shown.step) == ("finished", 200)
    assert_close(weights(shown), reference(200), rtol=0, atol=0)


def test_start_needs_an_event_loop_and_says_so():
    shown = panel()
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="event loop"):
        pool.submit(shown.start).result()
    assert shown.state == "ready"


# Errors


def test_an_infinite_loss_is_shown_and_raised():
    shown = panel(loss=broken_from(6))
    with pytest.raises(FloatingPointError, match="step 6"):
        shown.train()
    assert (shown.state, shown.step, enabled(shown)) == ("failed", 5, ["Reset"])
    assert "FloatingPointError: step 6" in text(shown)
    assert "FloatingPointError: step 6" in shown._repr_mimebundle_()["text/html"]
    with pytest.raises(RuntimeError, match="reset"):
        shown.train()
    assert all(value.isfinite().all() for value in weights(shown))


def test_an_error_in_the_background_is_shown():
    async def clicks(shown):
        click(shown, "Start")
        await until(lambda: shown.state == "failed")

    shown = panel(loss=broken_from(6))
    live(clicks(shown))
    assert isinstance(shown.error, FloatingPointError)
    assert "FloatingPointError: step 6" in text(shown)
    assert "at step 5" in text(shown)  # the curve shows what there was


def test_a_reset_helps_after_an_error():
    factor = [torch.nan]
    shown = panel(loss=lambda model, batch, generator: model.loss(batch, generator) * factor[0])
    with pytest.raises(FloatingPointError, match="step 1:"):
        shown.train()
    factor[0] = 1.0
    click(shown, "Reset")
    assert (shown.state, shown.error) == ("ready", None)
    assert "Error" not in text(shown)
    shown.train()
    assert_close(weights(shown), reference(), rtol=0, atol=0)


def test_an_error_of_the_drawing_is_shown():
    def fails_later(model, ax):
        if not model.training:  # the averaged model is in evaluation mode
            raise KeyError("<no samples>")

    shown = panel(draw=fails_later)
    with pytest.raises(KeyError):
        shown.train()
    assert shown.state == "failed"
    assert "KeyError: &#x27;&lt;no samples&gt;&#x27;" in text(shown)


def test_an_interrupt_stops_a_blocking_run():
    shown = panel(loss=interrupted)
    with pytest.raises(KeyboardInterrupt):
        shown.train()
    assert shown.state == "failed"


def interrupted(model, batch, generator):
    raise KeyboardInterrupt


def test_a_model_that_cannot_be_made_is_shown():
    models = iter([Net()])
    shown = panel(build=lambda: next(models))
    with pytest.raises(StopIteration):
        shown.reset()
    assert shown.state == "failed"


@pytest.mark.parametrize(
    "bad", [{"lr": -1.0}, {"batch_size": 65}, {"steps": 0}, {"checkpoint": "run.safetensors"}]
)
def test_bad_arguments_are_refused_at_once(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        panel(**bad)


def test_training_for_no_steps_is_refused():
    shown = panel()
    with pytest.raises(ValueError, match="steps: expected a whole number >= 1"):
        shown.train(0)
    assert shown.state == "ready"


# What is seen


def test_the_losses_are_those_of_fit():
    shown = panel()
    shown.train()
    torch.manual_seed(0)
    expected = [s.loss for s in training.fit(Net(), POINTS, 30, progress=False, **OPTIONS)]
    assert shown.losses == expected
    mean = sum(expected[-8:]) / 8  # the last quarter of 30
    assert f"Step 30 of 30. Loss {mean:.3f} nats per example" in text(shown)


def test_bits_per_dimension():
    shown = panel(dims=2)
    shown.train()
    mean = sum(shown.losses[-8:]) / 8 / (2 * 0.6931471805599453)
    assert f"Loss {mean:.3f} bits/dim" in text(shown)


def test_running_mean_of_the_last_quarter_and_of_at_most_fifty():
    values = torch.rand(300, dtype=torch.float64)
    mean = running_mean(values)
    assert_close(mean[:4], values[:4])
    assert_close(mean[99], values[75:100].mean())
    assert_close(mean[-1], values[-50:].mean())
    assert len(running_mean(values[:0])) == 0


def test_the_html_form_is_complete_and_needs_no_script():
    shown = panel(title="Two <moons>", alt="Twenty points.", references={"floor": 0.5})
    shown.train(12)
    bundle = shown._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.model_id
    page = bundle["text/html"]
    assert re.findall(r"<script|onclick|<button|https?:", page) == []
    assert "Two &lt;moons&gt;" in page
    assert '<span role="status">Paused.</span> Step 12 of 30. Loss ' in page
    assert NEEDS_KERNEL in page
    curve, samples = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', page)
    assert curve.startswith("Loss in nats per example against the training step, from ")
    assert curve.endswith(" at step 12.")
    assert samples == "Twenty points."
    assert len(page) < 120_000


def test_the_form_is_that_of_the_moment():
    shown = panel()
    before = shown._repr_mimebundle_()["text/html"]
    assert "Ready.</span> Step 0 of 30." in before
    assert "Empty axes" in before
    shown.train()
    assert "Finished.</span> Step 30 of 30." in shown._repr_mimebundle_()["text/html"]


def test_colab_gets_the_panel_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    bundle = panel()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "text/html" not in bundle


def test_the_same_noise_for_each_picture():
    seen = []
    shown = panel(draw=lambda model, ax: seen.append(torch.randn(3)))
    shown.train(2)
    shown.train(2)
    assert len(seen) == 3
    assert_close(seen[0], seen[1])
    assert_close(seen[0], seen[2])


def test_the_page_shows_the_recorded_state():
    path = SITE / "notebooks" / "05_discrete_elbo.html"
    if not path.is_file():
        missing("there is no site yet: make book")
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    (panel,) = page.select("article .training-panel")
    assert "Paused. Step 150 of 500. Loss " in panel.get_text()
    assert NEEDS_KERNEL in panel.get_text()
    assert all(image["alt"] for image in panel.select("img"))
    assert len(panel.select("img")) == 2
    assert page.select("script[type*=widget-state], script[src*=require]") == []
