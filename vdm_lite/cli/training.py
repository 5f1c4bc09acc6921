"""``vdm-lite train``: build, train, log, evaluate and save, on one device or on many.

In the folder of a run: ``checkpoint.safetensors`` (all that it needs to go on),
``weights.safetensors`` (the averaged weights, at the end), ``log.csv``, ``tensorboard/``,
``samples/``, ``options.json`` (what was asked for) and ``.lock`` (held while the run lasts).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.cli import engines, folders, sources
from vdm_lite.cli.folders import CHECKPOINT, WEIGHTS
from vdm_lite.cli.options import TIMES, WEIGHTINGS, Model, Train
from vdm_lite.cli.signals import stopping
from vdm_lite.cli.watching import watch
from vdm_lite.cli.words import DATA
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.times import TimeSampler
from vdm_lite.training import Step, checkpoints, fit
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import ModelConfig
from vdm_lite.training.engine import first
from vdm_lite.training.saving import NUMBERS

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def run(options: Train) -> int:
    """Train; 0 when the run is complete, 130 when it was stopped and can go on."""
    _check(options)
    engine = engines.launch(options)
    with folders.taken(options, engine):
        return _train(options, engine)


def _train(options: Train, engine: "Fabric") -> int:
    own = {"size": options.size, "multiple": 2 ** (len(options.widths) - 1)}
    own |= {"progress": engine.is_global_zero}
    load = partial(sources.images, options.data, options.folder, options.download, **own)
    source = engines.in_turn(engine, load)  # if they are to be fetched, then once
    train, held_out = sources.held_out(source, options.held_out)
    if options.data not in DATA:
        said = f"{options.data}: {sources.description(source)}; {len(held_out)} are held out"
        engine.print(said)
    described = _model(options, source)
    torch.manual_seed(options.seed)
    model = described.build()
    config = _config(options, described, source, len(held_out))
    with stopping(engine) as stopped:
        try:
            options = _with_lengths(options)
            steps = _fit(options, model, train, config, engine, stopped)
        except CheckpointError as error:
            advice = "go on with the options of that run, or start another in another --out"
            raise ValueError(f"{error}; {advice}") from error
        first(engine, partial(folders.keep_options, options))
        reached = watch(options, steps, held_out, engine)
    # All wait for the report: an engine takes a process that ends early for one that failed.
    first(engine, partial(_report, options, reached))
    return 0 if reached.step == options.steps else 130


def _check(options: Train) -> None:
    """What can be refused before anything is started."""
    if options.size and options.data in DATA:
        raise ValueError(f"--size: is for own images, and {options.data} has its own size")
    both = options.train_ends and (options.weighting, options.times) != ("elbo", "low-discrepancy")
    if both:
        raise ValueError("--train-ends: the ends are learned on the whole bound, which has no "
                         "--weighting or --times of its own")  # fmt: skip
    if options.compile and options.schedule == "learned":
        raise ValueError("--compile: expected no --schedule learned, which no test covers")


def _model(options: Model, source: sources.Images) -> ModelConfig:
    divisor, sides = 2 ** (len(options.widths) - 1), tuple(source.train.shape[2:])
    fits = not any(side % divisor for side in sides)
    expected = f"fewer for images of {sides}, whose sides are to be multiples of {divisor}"
    checks.require(fits, "--widths", expected, options.widths)
    two = round(math.log2(source.levels)) - 1  # sin(2^n pi z) has a period of about two levels
    return ModelConfig(
        channels=source.train.shape[1],
        levels=source.levels,
        widths=options.widths,
        blocks=options.blocks,
        exponents=(two - 1, two) if options.fourier is None else options.fourier,
        output=options.output,
        schedule=options.schedule,
        logsnr_max=options.logsnr_max,
        logsnr_min=options.logsnr_min,
        train_ends=options.train_ends,
    )


def _config(
    options: Train, model: ModelConfig, source: sources.Images, held_out: int
) -> dict[str, Any]:
    """What the file must say so that the model can be built, evaluated and trained further."""
    about = sources.note(options.data, source, held_out, options.size)
    objective = {"weighting": options.weighting, "times": options.times}
    return {"model": model.plain(), "data": about, "objective": objective}


def _fit(
    options: Train,
    model: VariationalDiffusion,
    images: Tensor,
    config: dict[str, Any],
    engine: "Fabric",
    stopped: Callable[[], bool],
) -> Iterator[Step]:
    sampler = TIMES[options.times]()
    learning = sampler.to(engine.device) if isinstance(sampler, nn.Module) else None
    if options.compile:
        model.denoiser.compile()
    return fit(
        model,
        images,
        options.steps,
        options.batch_size,
        options.lr,
        warmup=options.warmup,
        decay=options.decay,
        clip=options.clip,
        ema_decay=options.ema,
        seed=options.seed,
        loss=_loss(options, model, sampler),
        keep=learning,
        checkpoint=options.out / CHECKPOINT,
        every=options.every,
        config=config,
        accumulate=options.accumulate,
        fabric=engine,
        stop=stopped,
    )


def _loss(options: Train, model: VariationalDiffusion, sampler: TimeSampler) -> Callable[..., Any]:
    """What a step minimizes: the whole bound if its ends are learned, else its diffusion term."""
    if options.train_ends:
        return lambda batch, generator: model.elbo(batch, generator=generator).nelbo
    return partial(model.costs, weighting=WEIGHTINGS[options.weighting], times=sampler)


def _with_lengths(options: Train) -> Train:
    """With the steps, and the last of them over which the rate falls."""
    path = options.out / CHECKPOINT
    if options.steps is None and path.exists():  # a file from before they were kept
        raise ValueError(f"--steps: give their number, which {path} does not hold")
    steps = options.steps or 10_000
    return replace(
        options, steps=steps, decay=steps // 3 if options.decay is None else options.decay
    )


def _report(options: Train, reached: Step) -> None:
    """Say where the run stands, and write the weights alone if it is complete."""
    if reached.step < options.steps:
        print(f"Stopped after step {reached.step} of {options.steps}; go on with --resume")
        return
    path = options.out / WEIGHTS
    extract(options.out / CHECKPOINT, path)
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
