"""The generator :func:`fit`, and what changes from one of its steps to the next."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vdm_lite import checks
from vdm_lite.diffusion import Costs
from vdm_lite.gaussian import working_dtype
from vdm_lite.progress import bar
from vdm_lite.randomness import Generator, Share
from vdm_lite.schedules import Learned
from vdm_lite.training import checkpoints
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.engine import ALONE, ElsewhereError, Engine, first

REACHED = ("step", "loss", "grad_norm", "rate")
NUMBERS = (*REACHED, "steps")
"""What a checkpoint holds beside the settings of its run: other runs may go on from it."""


class Step(NamedTuple):
    """What :func:`fit` yields after each update."""

    step: int
    """Updates done so far: 1, 2, …, steps."""
    loss: float
    """Mean over the batch, in nats per example, before the update."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    rate: float
    """Learning rate of the update."""
    averaged: nn.Module
    """The model with averaged weights, in evaluation mode: the one to evaluate and to sample."""


def averaged(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Exponential moving average of the weights, with warm-up.

    The first ``update_parameters(model)`` copies the weights, and n updates later the decay is
    min(decay, (1+n)/(10+n)): a short run is not averaged with its own random start (eq-ema-warmup).
    Evaluate ``.module``. Move that alone to an accelerator: the count of updates stays on the CPU,
    where it can be read without waiting.
    """

    ema = _Averaged(model, decay)
    ema.module.eval().requires_grad_(False)
    return ema


class _Averaged(AveragedModel):
    """Torch's average with a decay of its own at each update."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self.average)
        self.decay = decay

    def average(self, mine: list[Tensor], given: list[Tensor], _count: Tensor | int) -> None:
        n = int(self.n_averaged)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(mine, given, n)


def backward(
    model: nn.Module, losses: Tensor | Iterable[Tensor], count: int = 1, fabric: Engine = ALONE
) -> Tensor:
    """Gradients of the mean of the losses, with one exception for learned schedules; the mean: ().

    ``losses`` is (B,), or an iterable of ``count`` such parts of one batch, each made when the one
    before it has given its gradients. The mean is over all parts and all processes of ``fabric``.

    What the inner weights of a ``schedules.Learned`` change is the variance of the loss, not its
    mean. In a second pass they get the gradient of the mean of ``(loss / mean loss)^2``
    (eq-square-gradient); dividing by the mean, a constant here, gives it the size of the others.
    A mean near zero, as a bound on continuous data may have, is replaced by a tenth of the root
    mean square.
    """
    learned = [m for m in model.modules() if isinstance(m, Learned)]
    interior = [p for schedule in learned for p in schedule.interior() if p.requires_grad]
    squares: list[Tensor | None] = [None] * len(interior)
    parts = []
    for loss in [losses] if isinstance(losses, Tensor) else losses:
        if interior:
            more = torch.autograd.grad(
                loss.square().mean() / count, interior, retain_graph=True, allow_unused=True
            )
            squares = [_sum(a, b) for a, b in zip(squares, more, strict=True)]
        fabric.backward(loss.mean() / count)
        given = loss.detach()
        parts.append(torch.stack([given.mean(), given.square().mean()]) / count)
    mean, square = fabric.all_reduce(sum(parts))
    for parameter, gradient in zip(interior, squares, strict=True):
        size = torch.maximum(mean.square(), square / 100)
        parameter.grad = None if gradient is None else fabric.all_reduce(gradient) / size
    return mean


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class Objective(nn.Module):
    """The loss as a module, as engines want it: its forward is ``loss(batch, generator=...)``."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor | Costs]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Tensor, generator: Generator) -> Tensor | Costs:
        with checks.read_later():  # `fit` reads the loss, once in a step and in all processes
            return self.loss(batch, generator=generator)


def _per_example(found: Tensor | Costs, batch: Tensor) -> Tensor:
    """The losses (B,) of a batch."""
    loss = found.loss if isinstance(found, Costs) else found
    checks.require(isinstance(loss, Tensor), "loss", "a tensor (B,)", checks.described(loss))
    one_each = loss.shape == batch.shape[:1]
    checks.require(one_each, "loss", f"shape ({len(batch)},)", tuple(loss.shape))
    return loss


def _groups(weights: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Decay for weights, none for single numbers: decay would pull an end point towards 0."""
    numbers = [p for p in weights if p.ndim == 0]
    decayed = {"params": [p for p in weights if p.ndim > 0]}
    return [decayed, {"params": numbers, "weight_decay": 0.0}] if numbers else [decayed]


def batch_indices(k: int, examples: int, batch_size: int, seed: int) -> Tensor:
    """Which examples are in the k-th batch (k = 0, 1, …): shape (batch_size,).

    Each epoch is one shuffle, a function of ``(seed, epoch)``; what is left at its end and does not
    fill a batch waits for the next one.
    """
    k, seed = checks.count("k", k, least=0), checks.seed("seed", seed)
    examples = checks.count("examples", examples)
    batch_size = checks.count("batch_size", batch_size)
    checks.require(batch_size <= examples, "batch_size", f"at most {examples}", batch_size)
    epoch, position = divmod(k, examples // batch_size)
    start = position * batch_size
    return _epoch_order(epoch, examples, seed)[start : start + batch_size]


@lru_cache(maxsize=1)
def _epoch_order(epoch: int, examples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator, device="cpu")


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
    and at the end. ``config``, JSON-able, is kept in it. :func:`vdm_lite.config.load_model` needs
    ``config["model"]``, the ``plain()`` of a ``ModelConfig``, and the command line also
    ``config["data"]``; :func:`vdm_lite.config.describe` makes both. A resumed run, complete or not,
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
    steps, every = checks.count("steps", steps), checks.count("every", every)
    batch_size = checks.count("batch_size", batch_size)
    enough = batch_size <= len(data)
    checks.require(enough, "batch_size", f"at most len(data) = {len(data)}", batch_size)
    accumulate = checks.count("accumulate", accumulate)
    parts = accumulate * fabric.world_size
    divides = batch_size % parts == 0
    checks.require(divides, "batch_size", f"a multiple of {parts} (processes x parts)", batch_size)
    for name, value in (("lr", lr), ("clip", clip)):
        checks.positive_number(name, value)
    checks.finite_number("ema_decay", ema_decay)
    checks.require(0 <= ema_decay < 1, "ema_decay", "a number in [0, 1)", ema_decay)
    seed, warmup = checks.seed("seed", seed), checks.count("warmup", warmup, least=0)
    decay = checks.count("decay", decay, least=0)
    mapping = config is None or isinstance(config, Mapping)
    checks.require(mapping, "config", "a mapping", checks.described(config))
    settings = {"examples": len(data), "batch_size": batch_size, "lr": lr, "warmup": warmup}
    settings |= {"decay": decay, "clip": clip, "ema_decay": ema_decay, "seed": seed}
    settings |= {"config": dict(config or {})}
    run = _Run(model, loss or model.loss, keep, settings, steps, accumulate, fabric)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load(checkpoint)
        least = max(run.step, decay)  # `decay` is that of the file by now
        checks.require(least <= steps, "steps", f"at least {least}, as in {checkpoint}", steps)
    checks.require(decay <= steps, "decay", f"a number from 0 to steps = {steps}", decay)
    return _updates(run, data, checkpoint, every, stop, progress and fabric.is_global_zero)


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
    working_dtype(model)  # for its check
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


def _updates(
    run: "_Run",
    data: Tensor,
    checkpoint: str | os.PathLike | None,
    every: int,
    stop: Callable[[], bool] | None,
    progress: bool,
) -> Iterator[Step]:
    if run.step:
        yield run.last()
    last = False
    with bar(show=progress, total=run.steps, initial=run.step, unit="step") as shown:
        while run.step < run.steps and not last:
            run.update(data, checkpoint, stop)
            last = run.step == run.steps or run.stopped
            if checkpoint is not None and (last or run.step % every == 0):
                run.save(checkpoint)
            shown.set_postfix(loss=f"{run.loss:.4g}", refresh=False)
            shown.update()
            yield run.last()


def _difference(name: str, wanted: Any, given: Any) -> tuple[str, Any, Any]:
    """The first entry in which two settings differ, by its dotted name, and its two values."""
    if not (isinstance(wanted, dict) and isinstance(given, dict)):
        return name, wanted, given
    keys = [*wanted, *given]
    key = next(k for k in keys if (k in wanted, wanted.get(k)) != (k in given, given.get(k)))
    return _difference(f"{name}.{key}", wanted.get(key, "nothing"), given.get(key, "nothing"))


class _Run:
    """Everything that changes from step to step, and how it goes to a file and comes back."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor | Costs],
        keep: nn.Module | None,
        settings: dict[str, Any],
        steps: int,
        accumulate: int,
        fabric: Engine,
    ) -> None:
        # Through JSON at once: what cannot be written fails here, not at the first checkpoint.
        self.settings = json.loads(checkpoints.to_json(settings))
        self.model, self.keep, self.fabric = model, keep, fabric
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.objective = fabric.setup_module(Objective(model, loss))  # may move it
        self.ema = averaged(model, settings["ema_decay"])
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.device, self.dtype = self.weights[0].device, self.weights[0].dtype
        self.optimizer = torch.optim.AdamW(_groups(self.weights), lr=settings["lr"])
        self.stepper = fabric.setup_optimizers(self.optimizer)
        self.generator = torch.Generator(self.device).manual_seed(settings["seed"])
        self.steps, self.accumulate = steps, accumulate
        self.step, self.loss, self.grad_norm, self.rate = 0, math.nan, math.nan, math.nan
        self.stopped = False

    def last(self) -> Step:
        return Step(self.step, self.loss, self.grad_norm, self.rate, self.ema.module)

    def update(
        self, data: Tensor, checkpoint: str | os.PathLike | None, stop: Callable[[], bool] | None
    ) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        before = self.generator.get_state()
        mean = backward(self.model, self.losses(data, before), self.accumulate, self.fabric)
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings["clip"])
        asked = torch.full_like(mean, stop is not None and stop())
        asked = self.fabric.all_reduce(asked, reduce_op="sum")
        # All that the host has to know in one read: for it an accelerator is waited for.
        self.loss, self.grad_norm, asked = torch.stack([mean, norm, asked]).tolist()
        self.stopped = asked > 0
        if not math.isfinite(self.loss + self.grad_norm):
            self.generator.set_state(before)
            self.fail(data, checkpoint)
        self.rate = self.next_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.stepper.step()
        self.ema.update_parameters(self.model)
        if self.keep is not None:  # now, all at once: every part drew from one density
            self.keep.observe(*map(torch.cat, zip(*self.seen, strict=True)))
        self.step += 1

    def losses(self, data: Tensor, before: Tensor) -> Iterator[Tensor]:
        """The losses of this process's parts of the batch, one after the other."""
        ranks, rank = self.fabric.world_size, self.fabric.global_rank
        batch = self.batch(data)
        self.seen.clear()
        for i in range(self.accumulate):
            # Every part draws the whole batch's numbers, from the same state, and keeps its own.
            self.generator.set_state(before)
            share = Share(self.generator, rank * self.accumulate + i, ranks * self.accumulate)
            generator = share if share.shares > 1 else self.generator
            last = i == self.accumulate - 1
            with self.fabric.no_backward_sync(self.objective, enabled=not last):
                part = share.rows(batch)
                found = self.objective(part, generator)
                if self.keep is not None:
                    self.note(found)
                yield _per_example(found, part)

    def note(self, found: Tensor | Costs) -> None:
        """What the sampler that learns will be shown when the step is done."""
        given = checks.described(found)
        checks.require(isinstance(found, Costs), "loss", "Costs, as keep learns from them", given)
        self.seen.append((found.t, found.cost.detach()))

    def batch(self, data: Tensor) -> Tensor:
        """The whole batch of this step, for all processes."""
        size, seed = self.settings["batch_size"], self.settings["seed"]
        index = batch_indices(self.step, len(data), size, seed)
        dtype = self.dtype if data.is_floating_point() else data.dtype
        index = index.to(data.device, non_blocking=True)
        return data[index].to(self.device, dtype, non_blocking=True)

    def next_rate(self) -> float:
        rising = (self.step + 1) / max(self.settings["warmup"], 1)
        falling = (self.steps - self.step) / max(self.settings["decay"], 1)
        return self.settings["lr"] * min(1.0, rising, falling)

    def fail(self, data: Tensor, checkpoint: str | os.PathLike | None) -> None:
        """Say where the numbers stopped being finite, and keep what led there."""
        message = (
            f"step {self.step + 1}: expected a finite loss and gradient, got loss {self.loss} and "
            f"gradient norm {self.grad_norm}; the weights are as after step {self.step}"
        )
        if checkpoint is not None:
            path = Path(checkpoint).with_suffix(".failed.safetensors")
            try:
                self.save(path, batch=self.batch(data))
                message += f", and {path} holds them with the batch of the step"
            except (OSError, ElsewhereError) as error:
                message += f", which could not be kept: {error}"
        raise FloatingPointError(message)

    def save(self, path: str | os.PathLike, **more: Tensor) -> None:
        tensors = checkpoints.join(
            model=checkpoints.weights_of(self.model),
            ema=checkpoints.weights_of(self.ema.module),
            optimizer=checkpoints.optimizer_state(self.optimizer),
            rng=checkpoints.random_states(self.generator),
            keep=self.kept().state_dict(),
        )
        metadata = {**self.settings, **{name: getattr(self, name) for name in NUMBERS}}
        first(self.fabric, lambda: checkpoints.write(path, tensors | more, metadata))

    def kept(self) -> nn.Module:
        """What is written beside the model."""
        return nn.Module() if self.keep is None else self.keep

    def load(self, path: str | os.PathLike) -> None:
        tensors, metadata = checkpoints.read(path)
        for name, value in self.settings.items():
            given = metadata.get(name, "a file of weights alone")
            if given != value:
                where, value, given = _difference(name, value, given)
                raise CheckpointError(path, f"a run with {where} = {value}", given)
        # Whatever can be refused is refused before anything is changed.
        random_states = checkpoints.part(tensors, "rng")
        checkpoints.check_random_states(self.generator, random_states, path)
        modules = {"model": self.model, "ema": self.ema.module, "keep": self.kept()}
        for name, module in modules.items():
            checkpoints.check_weights(module, checkpoints.part(tensors, name), path)
        for name, module in modules.items():
            checkpoints.load_into(module, checkpoints.part(tensors, name), path)
        for name in REACHED:
            setattr(self, name, metadata[name])
        self.ema.n_averaged.fill_(self.step)
        checkpoints.load_optimizer(self.optimizer, checkpoints.part(tensors, "optimizer"))
        checkpoints.load_random_states(self.generator, random_states)
