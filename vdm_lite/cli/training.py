"""``vdm-lite train``: build, train, log, evaluate and save, on one device or on many.

In the folder of a run: ``checkpoint.safetensors`` (all that it needs to go on),
``weights.safetensors`` (the averaged weights, at the end), ``log.csv``, ``tensorboard/``,
``samples/``, ``options.json`` (what was asked for) and ``.lock`` (held while the run lasts).
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.cli import engines, folders, options, sources
from vdm_lite.cli.folders import CHECKPOINT, WEIGHTS
from vdm_lite.cli.watching import watch
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.training import Step, checkpoints, fit
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import ModelConfig
from vdm_lite.training.engine import first
from vdm_lite.training.loop import NUMBERS

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def run(given: argparse.Namespace) -> int:
    """Train; 0 when the run is complete, 130 when it was stopped and can go on."""
    _check(given)
    engine = engines.launch(given)
    with folders.taken(given, engine):
        return _train(given, engine)


def _train(given: argparse.Namespace, engine: "Fabric") -> int:
    own = {"size": given.size, "multiple": 2 ** (len(given.widths) - 1)}
    own |= {"progress": engine.is_global_zero}
    load = partial(sources.images, given.data, given.folder, given.download, **own)
    source = engines.in_turn(engine, load)  # if they are to be fetched, then once
    train, held_out = sources.held_out(source, given.held_out)
    if given.data not in options.DATA:
        said = f"{given.data}: {sources.description(source)}; {len(held_out)} are held out"
        engine.print(said)
    wanted = _model(given, source)
    torch.manual_seed(given.seed)
    model = wanted.build()
    config = _config(given, wanted, source, len(held_out))
    with engines.stopping(engine) as stopped:
        try:
            given.steps, given.decay = _lengths(given)
            steps = _fit(given, model, train, config, engine, stopped)
        except CheckpointError as error:
            advice = "go on with the options of that run, or start another in another --out"
            raise ValueError(f"{error}; {advice}") from error
        first(engine, partial(folders.keep_options, given))
        reached = watch(given, steps, held_out, engine)
    # All wait for the report: an engine takes a process that ends early for one that failed.
    first(engine, partial(_report, given, reached))
    return 0 if reached.step == given.steps else 130


def _check(given: argparse.Namespace) -> None:
    """What can be refused before anything is started."""
    if given.size and given.data in options.DATA:
        raise ValueError(f"--size: is for own images, and {given.data} has its own size")
    both = given.train_ends and (given.weighting, given.times) != ("elbo", "low-discrepancy")
    if both:
        raise ValueError("--train-ends: the ends are learned on the whole bound, which has no "
                         "--weighting or --times of its own")  # fmt: skip
    if given.compile and given.schedule == "learned":
        raise ValueError("--compile: expected no --schedule learned, which no test covers")


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
    about = sources.note(given.data, source, held_out, given.size)
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
        loss = partial(model.costs, weighting=weighting, times=sampler)
    return fit(
        model,
        images,
        given.steps,
        given.batch_size,
        given.lr,
        warmup=given.warmup,
        decay=given.decay,
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


def _lengths(given: argparse.Namespace) -> tuple[int, int]:
    """Steps, and the last of them over which the rate falls."""
    path = given.out / CHECKPOINT
    if given.steps is None and path.exists():  # a file from before they were kept
        raise ValueError(f"--steps: give their number, which {path} does not hold")
    steps = given.steps or 10_000
    return steps, steps // 3 if given.decay is None else given.decay


def _report(given: argparse.Namespace, reached: Step) -> None:
    """Say where the run stands, and write the weights alone if it is complete."""
    if reached.step < given.steps:
        print(f"Stopped after step {reached.step} of {given.steps}; go on with --resume")
        return
    path = given.out / WEIGHTS
    extract(given.out / CHECKPOINT, path)
    print(f"{path}: the averaged weights after {reached.step} steps\n"
          f"Next: vdm-lite evaluate --checkpoint {path}")  # fmt: skip


def extract(checkpoint: Path, path: Path) -> None:
    """Write the averaged weights of a checkpoint alone, with the step and settings of its run."""
    tensors, metadata = checkpoints.read(checkpoint)
    averaged = checkpoints.join(ema=checkpoints.part(tensors, "ema"))
    about = {name: metadata.pop(name) for name in ("config", "step")}
    others = ("format", "version", *NUMBERS)
    settings = {name: value for name, value in metadata.items() if name not in others}
    checkpoints.write(path, averaged, {**about, "settings": settings})
