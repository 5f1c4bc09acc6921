"""A panel that trains while the reader watches: loss, samples, progress; start, pause, reset.

:func:`.fit` does the work, in slices of about 50 ms on the kernel's event loop:
between two slices clicks and other cells get their turn. So the panel needs a kernel. On a page
without one, its HTML form shows the state in which it was displayed, and says so.
"""

import asyncio
import contextlib
import io
import math
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from html import escape
from typing import Any

import matplotlib
import torch
from ipywidgets import HTML, Button, HBox, IntProgress, Layout, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from vdm_lite import checks, training
from vdm_lite.figures.base import COLORS, STYLE
from vdm_lite.widgets.base import form_beside_widget

SLICE = 0.05  # seconds of training between two looks at the event loop
BREATH = 0.005  # seconds that the loop then has for everything else
WINDOW = 50  # most losses in the mean that is shown
NEEDS_KERNEL = (
    "Recorded when this page was made. Start, pause and reset need a Python kernel: open the "
    "notebook in JupyterLab or Colab."
)


class TrainingPanel(VBox):
    """Train a model step by step, by clicks or by :meth:`train`, and show how far it is.

    ``build()`` makes a fresh model, ``draw(model, ax)`` draws samples of it on Matplotlib axes, and
    ``alt`` says in words what is drawn. ``data``, ``steps`` and ``options`` (batch_size, lr, …) go
    to :func:`.fit`; ``loss(model, batch, generator) -> (B,)`` in nats replaces
    ``model.loss``. Losses are shown in nats per example, with ``dims`` in bits/dim;
    ``references`` names values to compare with, in that unit.

    A run is a function of its seed: pauses, resets and what other cells draw change no number.
    ``.state`` is "ready", "running", "paused", "finished" or "failed"; ``.error`` is what went
    wrong, which the panel shows. Raises what ``build``, ``draw`` and ``fit`` raise.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: Tensor,
        steps: int,
        draw: Callable[[nn.Module, Axes], object],
        *,
        title: str = "Training",
        alt: str = "Samples of the model.",
        loss: Callable[..., Tensor] | None = None,
        dims: int | None = None,
        references: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        checks.require("checkpoint" not in options, "options", "no checkpoint", "one")
        checks.count("steps", steps)
        self._new_run = partial(_Run, build, loss, data, steps, options)
        self._steps, self._draw, self._alt, self._dims = steps, draw, alt, dims
        self._references = dict(references or {})
        self._task: asyncio.Task | None = None
        super().__init__(self._parts(title))
        self._begin()

    def start(self) -> None:
        """Train on in the background. It needs a running event loop, as every notebook has."""
        if self.state in ("ready", "paused"):
            self._task = asyncio.get_running_loop().create_task(self._live())
            self._turn("running")

    def pause(self) -> None:
        """Stop after the present step; :meth:`start` and :meth:`train` go on from there."""
        if self.state == "running":
            self._stop("paused")

    def reset(self) -> None:
        """Begin again with a fresh model; the new run repeats the old one number by number."""
        with self._watched():
            self._begin()

    def train(self, steps: int | None = None) -> None:
        """Train for ``steps`` more updates, by default to the end, and return then.

        An error is shown in the panel and raised; after one only :meth:`reset` helps: RuntimeError.
        """
        if self.state == "failed":
            raise RuntimeError("the run has failed; reset() begins a fresh one") from self.error
        checks.count("steps", self._steps if steps is None else steps)
        last = self._steps if steps is None else min(self.step + steps, self._steps)
        self._halt()
        self._turn("running")
        with self._watched():
            while self.step < last:
                self._slice(last)
            self._stop("finished" if self.step == self._steps else "paused")

    @property
    def step(self) -> int:
        """Updates done so far."""
        return len(self.losses)

    @property
    def losses(self) -> list[float]:
        """The mean loss of each batch so far, in nats per example."""
        return self._run.losses

    @property
    def model(self) -> nn.Module:
        """The model to evaluate and to sample: averaged weights, before any step the fresh ones."""
        return self._run.model

    # States

    def _begin(self) -> None:
        self._halt()
        self._run, self.error = self._new_run(), None
        self._stop("ready")

    async def _live(self) -> None:
        while self.state == "running":
            try:
                with self._watched():
                    self._slice(self._steps)
                    self._look()
            except Exception:
                return  # the panel shows it and keeps it in .error
            await asyncio.sleep(BREATH)

    def _slice(self, last: int) -> None:
        self._run.advance(last, SLICE)
        self._show_numbers()

    def _look(self) -> None:
        """After a slice: the end of the run, or new pictures if they cost little of its time."""
        if self.step == self._steps:
            self._stop("finished")
        elif time.monotonic() > self._next_pictures:
            self._show_pictures()

    def _halt(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _stop(self, state: str) -> None:
        self._halt()
        self._turn(state)
        self._show_pictures()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Show an error before it goes on to the caller."""
        try:
            yield
        except BaseException as error:
            self.error = error
            self._halt()
            self._turn("failed")
            self._show_curve()
            raise

    # What is seen

    def _parts(self, title: str) -> list[VBox | HBox | HTML]:
        self._head = HTML(f"<strong>{escape(title)}</strong>")
        button = partial(Button, layout=Layout(width="6rem"))
        self._start = button(description="Start", icon="play", tooltip="Train on from here")
        self._pause = button(description="Pause", icon="pause", tooltip="Stop after this step")
        self._reset = button(description="Reset", icon="undo", tooltip="Begin with a fresh model")
        self._start.on_click(lambda _: self.start())
        self._pause.on_click(lambda _: self.pause())
        self._reset.on_click(lambda _: self.reset())
        self._progress = IntProgress(max=self._steps)
        self._status, self._numbers = HTML(), HTML()
        picture = partial(HTML, layout=Layout(flex="1 1 18rem", max_width="26rem"))
        self._curve, self._samples = picture(), picture()
        row = partial(HBox, layout=Layout(flex_flow="row wrap", align_items="center"))
        controls = row([self._start, self._pause, self._reset, self._progress])
        told, pictures = row([self._status, self._numbers]), row([self._curve, self._samples])
        return [self._head, controls, told, pictures]

    def _turn(self, state: str) -> None:
        self.state = state
        self._start.disabled = state not in ("ready", "paused")
        self._pause.disabled = state != "running"
        error = "" if self.error is None else f" {type(self.error).__name__}: {self.error}"
        # Read aloud when it changes, and so without the numbers.
        self._status.value = (
            f'<span role="status">{escape(state.capitalize() + "." + error)}</span>'
        )
        self._show_numbers()

    def _show_numbers(self) -> None:
        self._progress.value = self.step
        loss = ""
        if self.losses:
            loss = f" Loss {running_mean(self._shown())[-1]:.3f} {self._unit} (running mean)."
        self._numbers.value = f"Step {self.step} of {self._steps}.{loss}"

    def _show_pictures(self) -> None:
        begun = time.monotonic()
        self._show_curve()
        self._samples.value = _image(self._draw_samples, self._alt)
        self._next_pictures = time.monotonic() + max(0.5, 5 * (time.monotonic() - begun))

    def _draw_samples(self, ax: Axes) -> None:
        # The same noise each time: what changes is the model.
        with _drawing_from(torch.Generator().manual_seed(0)):
            self._draw(self.model, ax)

    def _show_curve(self) -> None:
        alt = "Empty axes for the loss against the training step."
        if self.losses:
            mean = running_mean(self._shown())
            ends = f"{mean[0]:.3g} at step 1 to {mean[-1]:.3g} at step {self.step}"
            alt = f"Loss in {self._unit} against the training step, from {ends}."
        self._curve.value = _image(self._draw_curve, alt)

    def _draw_curve(self, ax: Axes) -> None:
        draw_losses(self._shown(), self._references, ax)
        ax.set(xlim=(0, self._steps), xlabel="training step", ylabel=self._unit)

    @property
    def _unit(self) -> str:
        return "nats per example" if self._dims is None else "bits/dim"

    def _shown(self) -> Tensor:
        nats = torch.tensor(self.losses, dtype=torch.float64)
        return nats if self._dims is None else nats / (self._dims * math.log(2))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        parts = (self._head, self._curve, self._samples, self._status, self._numbers)
        title, curve, samples, status, numbers = (part.value for part in parts)
        told = f"<p>{status} {numbers} <em>{NEEDS_KERNEL}</em></p>"
        side = '<div style="flex: 1 1 18rem; max-width: 26rem">'
        both = f"{side}{curve}</div>{side}{samples}</div>"
        page = f'<p>{title}</p><div style="display: flex; flex-wrap: wrap">{both}</div>{told}'
        form = form_beside_widget(f'<div class="training-panel">{page}</div>')
        return super()._repr_mimebundle_(**kwargs) | form


class _Run:
    """One training run, and the random numbers that are its own."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        loss: Callable[..., Tensor] | None,
        data: Tensor,
        steps: int,
        options: Mapping[str, Any],
    ) -> None:
        self.generator = torch.Generator().manual_seed(options.get("seed", 0))
        with _drawing_from(self.generator):
            self.model = build()
        objective = {"loss": partial(loss, self.model)} if loss else {}
        self.losses: list[float] = []
        self.updates = training.fit(self.model, data, steps, progress=False, **objective, **options)

    def advance(self, last: int, seconds: float) -> None:
        """Train for about ``seconds``, at most until step ``last``."""
        until = time.monotonic() + seconds
        with _drawing_from(self.generator):
            while len(self.losses) < last and time.monotonic() < until:
                step = next(self.updates)
                self.model = step.averaged
                self.losses.append(step.loss)


def running_mean(values: Tensor) -> Tensor:
    """Mean of the last quarter up to each value (N,), but of at most WINDOW values: (N,).

    The first losses fall steeply; a mean over more of them would lag behind.
    """
    ends = torch.arange(1, len(values) + 1)
    widths = ((ends + 3) // 4).clamp(max=WINDOW)
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return (total[ends] - total[ends - widths]) / widths


def draw_losses(losses: Tensor, references: Mapping[str, float], ax: Axes) -> None:
    """Losses (N,) of steps 1 … N, their running mean, and a dotted line for each reference."""
    steps = range(1, len(losses) + 1)
    ax.plot(steps, losses, color=COLORS["network"], alpha=0.25, linewidth=0.8)
    ax.plot(steps, running_mean(losses), color=COLORS["network"])
    for name, value in references.items():
        ax.axhline(value, color=COLORS["data"], linestyle=":", linewidth=1.2)
        place = {"xy": (0.98, value), "xycoords": ("axes fraction", "data")}
        ax.annotate(name, **place, xytext=(0, -4), textcoords="offset points", ha="right", va="top")
    # The first tenth falls from so high that it would flatten the rest.
    seen = [*losses[len(losses) // 10 :].tolist(), *references.values()]
    if len(losses):
        margin = 0.15 * (max(seen) - min(seen)) or 1.0
        ax.set_ylim(min(seen) - margin, max(seen) + margin)


def _image(draw: Callable[[Axes], None], alt: str) -> str:
    """A small figure as HTML."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.8))
        draw(figure.add_subplot())
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=120)
    source = f"data:image/png;base64,{b64encode(png.getvalue()).decode()}"
    return f'<img alt="{escape(alt)}" src="{source}" style="width: 100%">'


@contextlib.contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch draws on the CPU from ``generator``; outside, nothing notices."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
