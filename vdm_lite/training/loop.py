"""The generator :func:`fit`: the whole loop of training, on one screen."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.diffusion import Costs
from vdm_lite.progress import bar
from vdm_lite.training.batches import Batches
from vdm_lite.training.engine import ALONE, Engine
from vdm_lite.training.saving import Saver, Settings, State
from vdm_lite.training.update import (
    Lesson,
    Objective,
    Step,
    adamw,
    averaged,
    backward,
    learning_rate,
    read,
    shares,
)


def fit(
    model: nn.Module,
    data: Tensor,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    *,
    warmup: int = 100,
    decay: int = 0,
    clip: float = 1.0,
    ema_decay: float = 0.999,
    seed: int = 0,
    loss: Callable[..., Tensor | Costs] | None = None,
    keep: nn.Module | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 500,
    config: Mapping[str, Any] | None = None,
    accumulate: int = 1,
    fabric: Engine = ALONE,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> Iterator[Step]:
    """Train ``model`` on ``data`` (N, ...) for ``steps`` updates; yield a :class:`Step` after each.

    AdamW, which decays weights but not single numbers such as end points; the learning rate rises
    linearly to ``lr`` over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay``
    steps: from a checkpoint of the level part a run can be made longer. Gradients
    are clipped to norm ``clip``; weights are averaged with ``ema_decay``. A learned schedule's
    inner weights get a gradient of their own, see :func:`backward`. ``loss`` replaces
    ``model.loss``: ``partial(model.loss, weighting=w)``, say.
    ``keep`` is a sampler of times that learns (``times.Adaptive``). Its buffers belong to the run,
    and after each step it is shown all costs of that step at once; for it ``loss`` returns them,
    ``partial(model.costs, times=keep)``, in the place of their quotients.
    ``data`` may lie on any device: batches go to the model's, floats in the model's dtype.

    ``fabric`` is an engine: a ``lightning.fabric.Fabric`` that was launched trains on its devices.
    ``batch_size`` is that of all processes together; each takes its share, and with ``accumulate``
    works through it in so many parts. Times and noise are shared out, too, so the same batches
    give the same gradients, up to rounding, however they are divided; all but the masks of dropout,
    which come from torch's global generator.

    With ``checkpoint``, a file that exists is resumed from, and it is written every ``every`` steps
    and at the end. ``config``, JSON-able, is kept in it. :func:`.load_model` needs
    ``config["model"]``, the ``plain()`` of a ``ModelConfig``, and the command line also
    ``config["data"]``; :func:`.describe` makes both. A resumed run, complete or not,
    first yields the step that the file stands at once more: whoever was interrupted over that step
    can finish with it. ``stop`` is asked in each step, in every process: if one says so the step is
    the last, and kept.

    The progress bar is text on stderr and goes when the run ends; ``progress=False`` or the
    environment variable ``TQDM_DISABLE=1`` (for static pages) leaves it out.

    Raises ValueError for a bad argument, for an example that the model's likelihood refuses (or,
    where it has none, that is not finite), by its index, CheckpointError for a checkpoint of
    another run, and FloatingPointError, before the update, if the loss or its gradient is not
    finite; then the batch and all that the step started from are kept beside ``checkpoint``.
    """
    _check(model, data, loss, keep, stop)
    settings = Settings(len(data), batch_size, lr, warmup, decay, clip, ema_decay, seed, config)
    steps, every = checks.count("steps", steps), checks.count("every", every)
    accumulate = _parts(accumulate, settings.batch_size, fabric)

    objective = fabric.setup_module(Objective(model, loss or model.loss))  # may move the model
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = adamw(weights, lr)
    stepper = fabric.setup_optimizers(optimizer)
    ema = averaged(model, ema_decay)
    noise = torch.Generator(weights[0].device).manual_seed(settings.seed)
    batches = Batches(data, settings.batch_size, settings.seed, weights[0])
    lesson = Lesson(keep)
    state = State(model, ema, optimizer, noise, keep)
    saver = Saver(checkpoint, every, steps, settings, state, fabric)
    start = saver.resume()
    checks.require(decay <= steps, "decay", f"a number from 0 to steps = {steps}", decay)

    def loop() -> Iterator[Step]:
        step = start
        if step.step:
            yield step
        show = progress and fabric.is_global_zero
        shown = bar(range(step.step, steps), show, total=steps, initial=step.step, unit="step")
        for k in shown:
            model.train()
            optimizer.zero_grad()
            batch, before = batches[k], noise.get_state()
            found = shares(objective, batch, noise, accumulate, fabric)
            mean = backward(model, lesson.losses(found), accumulate, fabric)
            norm = nn.utils.clip_grad_norm_(weights, clip)
            value, grad_norm, stopped = read(mean, norm, stop, fabric)
            if not math.isfinite(value + grad_norm):
                noise.set_state(before)
                saver.fail(step._replace(loss=value, grad_norm=grad_norm), batch)
            rate = learning_rate(k, steps, lr, warmup, decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            stepper.step()
            ema.update_parameters(model)
            lesson.learn()
            step = Step(k + 1, value, grad_norm, rate, ema.module)
            last = stopped or k + 1 == steps
            saver.save(step, last)
            shown.set_postfix(loss=f"{value:.4g}", refresh=False)
            yield step
            if last:
                return

    return loop()


def _parts(accumulate: int, batch_size: int, fabric: Engine) -> int:
    """Parts of a process's share of a batch, checked."""
    accumulate = checks.count("accumulate", accumulate)
    parts = accumulate * fabric.world_size
    expected = f"a multiple of {parts} (processes x parts)"
    checks.require(batch_size % parts == 0, "batch_size", expected, batch_size)
    return accumulate


def _check(
    model: nn.Module,
    data: Tensor,
    loss: Callable[..., Tensor | Costs] | None,
    keep: nn.Module | None,
    stop: Callable[[], bool] | None,
) -> None:
    is_module = isinstance(model, nn.Module)
    checks.require(is_module, "model", "a module", checks.described(model))
    trainable = any(p.requires_grad for p in model.parameters())
    checks.require(trainable, "model", "trainable weights", "none")
    if loss is None:  # a network alone has none: VariationalDiffusion(network) does
        checks.has("model", model, ["loss"], "a module with .loss, such as a VariationalDiffusion")
    else:
        checks.function("loss", loss, "(batch, generator=...) -> (B,)")
    checks.precise("model", next(model.parameters()))
    kept = keep is None or isinstance(keep, nn.Module)
    checks.require(kept, "keep", "a module or None", checks.described(keep))
    if keep is not None:
        checks.has("keep", keep, ["observe"], "a module with .observe, such as a times.Adaptive")
    if stop is not None:
        checks.function("stop", stop, "() -> bool")
    checks.require(isinstance(data, Tensor), "data", "a tensor (N, ...)", type(data).__name__)
    checks.batch("data", data)
    _check_examples(model, data)


def _check_examples(model: nn.Module, data: Tensor) -> None:
    """Each is to be one that the likelihood takes; where there is none, a finite one."""
    if hasattr(model, "likelihood"):
        checks.each_example(data, model.likelihood.encode)
    elif data.is_floating_point():
        checks.each_example(data, partial(checks.floating, "data"))
