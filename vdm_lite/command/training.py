"""``vdm-lite train``: build, train, log, evaluate and save, on one device or on many.

In the folder of a run: ``checkpoint.safetensors`` (all that it needs to go on),
``weights.safetensors`` (the averaged weights, at the end), ``log.csv``, ``tensorboard/`` and
``samples/``.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vdm_lite import checkpoints, checks
from vdm_lite.checkpoints import CheckpointError
from vdm_lite.command import engines, options, pictures, sources
from vdm_lite.command.journal import Journal
from vdm_lite.command.sampling import draw
from vdm_lite.config import ModelConfig
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.evaluation import evaluate
from vdm_lite.samplers import ancestral_step
from vdm_lite.training import Step, fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
GRID_STEPS = 100


def run(given: argparse.Namespace) -> int:
    """Train; 0 when the run is complete, 130 when it was stopped and can go on."""
    _check(given)
    source = sources.images(given.data, given.folder, given.download)
    train, held_out = sources.held_out(source, given.held_out)
    wanted = _model(given, source)
    engine = engines.launch(given)
    torch.manual_seed(given.seed)
    model = wanted.build()
    config = _config(given, wanted, source, len(held_out))
    with engines.stopping(engine) as stopped:
        try:
            steps = _fit(given, model, train, config, engine, stopped)
        except CheckpointError as error:
            advice = "go on with the options of that run, or start another in another --out"
            raise ValueError(f"{error}; {advice}") from error
        reached = _watch(given, steps, held_out, engine)
    if engine.is_global_zero:
        _report(given, reached, config)
    engine.barrier()  # an engine takes a process that ends before the others for one that failed
    return 0 if reached.step == given.steps else 130


def _check(given: argparse.Namespace) -> None:
    """What can be refused before any data are read."""
    there = (given.out / CHECKPOINT).exists()
    if there and not given.resume:
        raise ValueError(f"--out: {given.out} holds a run: go on with --resume, or choose another")
    if given.resume and not there:
        raise ValueError(f"--resume: {given.out} holds no {CHECKPOINT}: start without it")
    both = given.train_ends and (given.weighting, given.times) != ("elbo", "low-discrepancy")
    if both:
        raise ValueError("--train-ends: the ends are learned on the whole bound, which has no "
                         "--weighting or --times of its own")  # fmt: skip
    if given.strategy == "fsdp" and given.schedule == "learned":
        raise ValueError("--strategy: fsdp splits the network alone: take auto or ddp with "
                         "--schedule learned")  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)


def _model(given: argparse.Namespace, source: sources.Images) -> ModelConfig:
    divisor, sides = 2 ** (len(given.widths) - 1), tuple(source.train.shape[2:])
    fits = not any(side % divisor for side in sides)
    wanted = f"fewer for images of {sides}, whose sides are to be multiples of {divisor}"
    checks.require(fits, "--widths", wanted, given.widths)
    two = round(math.log2(source.levels)) - 1  # sin(2^n pi z) has a period of about two levels
    return ModelConfig(
        channels=source.train.shape[1],
        levels=source.levels,
        widths=tuple(given.widths),
        blocks=given.blocks,
        exponents=(two - 1, two) if given.fourier is None else tuple(given.fourier),
        output=given.output,
        schedule=given.schedule,
        logsnr_max=given.logsnr_max,
        logsnr_min=given.logsnr_min,
        train_ends=given.train_ends,
    )


def _config(
    given: argparse.Namespace, model: ModelConfig, source: sources.Images, held_out: int
) -> dict[str, Any]:
    """What the file must say so that the model can be built, evaluated and trained further."""
    shape = list(source.train.shape[1:])
    about = {"name": given.data, "shape": shape, "levels": source.levels, "held_out": held_out}
    objective = {"weighting": given.weighting, "times": given.times}
    return {"model": model.plain(), "data": about, "objective": objective}


def _fit(
    given: argparse.Namespace,
    model: VariationalDiffusion,
    images: Tensor,
    config: dict[str, Any],
    engine: "Fabric",
    stopped: Callable[[], bool],
) -> Iterator[Step]:
    sampler = options.TIMES[given.times]()
    if isinstance(sampler, nn.Module):
        sampler.to(engine.device)
    if given.compile:
        model.denoiser.compile()
    if given.train_ends:

        def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
            return model.elbo(batch, generator=generator).nelbo
    else:
        weighting = options.WEIGHTINGS[given.weighting]
        loss = partial(model.loss, weighting=weighting, times=sampler)
    return fit(
        model,
        images,
        given.steps,
        given.batch_size,
        given.lr,
        warmup=given.warmup,
        decay=given.steps // 3 if given.decay is None else given.decay,
        clip=given.clip,
        ema_decay=given.ema,
        seed=given.seed,
        loss=loss,
        keep=sampler if isinstance(sampler, nn.Module) else None,
        checkpoint=given.out / CHECKPOINT,
        every=given.every,
        config=config,
        accumulate=given.accumulate,
        fabric=engine,
        stop=stopped,
    )


def _watch(
    given: argparse.Namespace, steps: Iterator[Step], held_out: Tensor, engine: "Fabric"
) -> Step:
    """Run through the steps; log, evaluate and draw on the way. The last step."""
    journal, losses, dims = None, [], held_out[0].numel()
    began = time.monotonic()
    for step in steps:
        if journal is None and engine.is_global_zero:
            journal = Journal(given.out, step.step - 1)
        losses.append(step.loss)
        numbers = {}
        last = step.step == given.steps
        if step.step % given.log_every == 0 or last:
            seconds = time.monotonic() - began
            numbers |= {
                "loss": bits_per_dim(torch.tensor(losses).mean(), dims).item(),
                "grad_norm": step.grad_norm,
                "learning_rate": step.rate,
                "images_per_s": len(losses) * given.batch_size / seconds,
            }
        if step.step % given.evaluate_every == 0 or last:
            numbers |= _measure(given, step, held_out, engine)
        if numbers and journal:
            journal.write(step.step, numbers)
        if "loss" in numbers:
            losses, began = [], time.monotonic()
    if journal:
        journal.close()
    return step


def _measure(
    given: argparse.Namespace, step: Step, held_out: Tensor, engine: "Fabric"
) -> dict[str, float]:
    """Bits/dim of held-out images, one draw each; a grid of samples beside it."""
    report = evaluate(step.averaged, held_out, fabric=engine)
    if given.images:  # on all processes: weights in pieces need all of them
        model = step.averaged
        like = next(model.parameters())
        generator = torch.Generator(like.device).manual_seed(given.seed)
        shape = (given.images, *held_out.shape[1:])
        levels = draw(model, shape, GRID_STEPS, ancestral_step, generator)
        path = given.out / "samples" / f"step_{step.step:07d}.png"
        if engine.is_global_zero:
            pictures.write_png(path, pictures.grid(levels, model.likelihood.levels))
    names = ("bits_per_dim", "error", "prior", "reconstruction", "diffusion")
    return {name: getattr(report, name) for name in names}


def _report(given: argparse.Namespace, reached: Step, config: dict[str, Any]) -> None:
    """Say where the run stands, and write the weights alone if it is complete."""
    if reached.step < given.steps:
        print(f"Stopped after step {reached.step} of {given.steps}; go on with --resume")
        return
    path = given.out / WEIGHTS
    averaged = checkpoints.part(checkpoints.read(given.out / CHECKPOINT)[0], "ema")
    checkpoints.write(path, checkpoints.join(ema=averaged), {"config": config})
    print(f"{path}: the averaged weights after {reached.step} steps\n"
          f"Next: vdm-lite evaluate --checkpoint {path}")  # fmt: skip
