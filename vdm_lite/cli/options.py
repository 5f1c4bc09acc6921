"""What can be said on the command line: a dataclass for each command, filled once.

A command is made of groups of options, which are its bases; a function takes the group it needs.
The names that options have for the library's callables stand here, too.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from vdm_lite import __version__, times, weighting
from vdm_lite.cli import words
from vdm_lite.cli.words import DATA, as_option, option
from vdm_lite.samplers import ancestral_step, ddim_step
from vdm_lite.schedules import SCHEDULES
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import OUTPUTS, ModelConfig

TIMES: dict[str, Callable] = {
    "low-discrepancy": lambda: times.low_discrepancy,
    "stratified": lambda: times.stratified,
    "uniform": lambda: times.uniform,
    "adaptive": lambda: times.Adaptive(moment=2),
}
WEIGHTINGS = {
    "elbo": weighting.elbo,
    "sigmoid": weighting.sigmoid(),
    "min-snr": weighting.min_snr(),
    "p2": weighting.p2(),
    "edm": weighting.edm,
    "edm-monotonic": weighting.edm_monotonic,
    "flow-matching": weighting.flow_matching,
    "logit-normal": weighting.logit_normal(),
    "noise-cosine": weighting.noise_cosine,
    "velocity-cosine": weighting.velocity_cosine,
}
STEPS = {"ancestral": ancestral_step, "ddim": ddim_step}
CALLED = {"ema_decay": "ema", "exponents": "fourier", "name": "data", "source": "data"}
"""Options that are called otherwise in the library."""
MODEL = ModelConfig()
"""Has the defaults of a model."""


class Group:
    """Options that belong together, as ``--help`` shows them."""

    title: ClassVar[str]
    about: ClassVar[str | None] = None


Folder = Annotated[
    Path | None,
    option(
        "where the data lie, for those that the library does not bring (fashion-mnist: the four "
        "original .gz files; default: where Debian's package dataset-fashion-mnist puts them; "
        "mnist, cifar10: what torchvision makes of them; default: datasets)",
        words.file,
    ),
]
Download = Annotated[
    bool,
    option(
        "fetch mnist or cifar10 into the folder by torchvision if they are not there",
        action="store_true",
    ),
]
Device = Annotated[str, option("kind", choices=("auto", "cpu", "cuda", "mps"))]


# --- vdm-lite train ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainingData(Group):
    """What is learned."""

    title = "data"
    data: Annotated[
        str,
        option(
            f"what to learn: {', '.join(DATA)}, or the path of your own images, a folder of files "
            "(subfolders are labels), an .npy or an .npz: vdm_lite.data.own_images explains it",
            words.images,
        ),
    ] = DATA[0]
    size: Annotated[
        int | None,
        option(
            "own images: scale the short side to N pixels and take the center, N x N (default: as "
            "they are, all of one size; what the U-Net cannot halve often enough is cut off at the "
            "sides)",
            words.side,
        ),
    ] = None
    folder: Folder = None
    download: Download = False
    held_out: Annotated[
        int | None,
        option(
            "training images kept for evaluation, the last ones (default: a tenth, at most 5000)",
            words.count,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Model(Group):
    """Values of a ``ModelConfig``."""

    title = "model"
    widths: Annotated[
        tuple[int, ...],
        option(
            "channels of the U-Net at full resolution, at half, at a quarter, ...",
            words.count,
            nargs="+",
        ),
    ] = MODEL.widths
    blocks: Annotated[int, option("at each, each way", words.count)] = MODEL.blocks
    fourier: Annotated[
        tuple[int, ...] | None,
        option(
            "exponents n of the features sin(2^n pi z) and cos (default: periods of two and four "
            "levels of the data; none if nothing follows)",
            int,
            nargs="*",
        ),
    ] = None
    output: Annotated[str, option("what it predicts", choices=tuple(OUTPUTS))] = MODEL.output
    schedule: Annotated[str, option("of the noise", choices=tuple(SCHEDULES))] = MODEL.schedule
    logsnr_max: Annotated[float, option("at t = 0", float)] = MODEL.logsnr_max
    logsnr_min: Annotated[float, option("at t = 1", float)] = MODEL.logsnr_min
    train_ends: Annotated[
        bool,
        option(
            "learn the end points, too, on the whole bound (needs --schedule learned)",
            action="store_true",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Objective(Group):
    """What is minimized."""

    title = "objective"
    weighting: Annotated[str, option("of noise levels", choices=tuple(WEIGHTINGS))] = "elbo"
    times: Annotated[str, option("how t is drawn", choices=tuple(TIMES))] = "low-discrepancy"


@dataclass(frozen=True, kw_only=True)
class Optimization(Group):
    """How it is minimized."""

    title = "optimization"
    steps: Annotated[
        int | None,
        option(
            "updates in all (default: 10000, 71 times through the bundled images); --resume with "
            "more makes a run longer, best before its rate falls",
            words.count,
        ),
    ] = None
    batch_size: Annotated[int, option("images of all processes", words.count)] = 64
    lr: Annotated[float, option("learning rate of AdamW", words.positive)] = 2e-3
    warmup: Annotated[int, option("steps over which it rises", words.whole)] = 200
    decay: Annotated[
        int | None, option("last steps, over which it falls to 0 (default: a third)", words.whole)
    ] = None
    clip: Annotated[
        float,
        option(
            "norm that longer gradients are scaled down to; costs in nats per image have gradients "
            "with norms in the thousands (grad_norm in the log), so that 1 normalizes each",
            words.positive,
        ),
    ] = 1.0
    ema: Annotated[float, option("decay of the averaged weights", words.fraction)] = 0.999
    accumulate: Annotated[int, option("parts that make a batch", words.count)] = 1
    seed: Annotated[int, option("of weights, batches, times and noise", words.seed)] = 0


@dataclass(frozen=True, kw_only=True)
class Processes(Group):
    """What a run is run by."""

    title = "engine (Lightning Fabric; works under torchrun)"
    about = (
        "Tested on the CPU, with one process and with two. CUDA and MPS take the same way through "
        "the code, but nobody has run it there yet."
    )
    device: Device = "auto"
    devices: Annotated[
        int | None,
        option("how many, on each machine (default: 1, or what torchrun started)", words.count),
    ] = None
    nodes: Annotated[
        int | None,
        option(
            "how many machines, all with --out on a disk that they share (default: likewise)",
            words.count,
        ),
    ] = None
    strategy: Annotated[str, option("of many", choices=("auto", "ddp"))] = "auto"
    precision: Annotated[
        str,
        option(
            "of the network's arithmetic; noise levels and costs stay in float32",
            choices=("32-true", "bf16-mixed"),
        ),
    ] = "32-true"
    compile: Annotated[
        bool,
        option(
            "compile the network (torch.compile; not with a learned schedule)",
            action=argparse.BooleanOptionalAction,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunFolder(Group):
    """Where a run writes, and how often."""

    title = "what is written"
    out: Annotated[Path, option("folder of this run, and of no other at a time", words.file)]
    resume: Annotated[
        bool,
        option(
            "go on with the run in the folder, with its options; those of the engine and of what "
            "is written, and --steps, may be given anew",
            action="store_true",
        ),
    ] = False
    every: Annotated[int, option("steps between checkpoints", words.count)] = 500
    log_every: Annotated[int, option("steps between lines of the log", words.count)] = 50
    evaluate_every: Annotated[int, option("steps between bits/dim", words.count)] = 1000
    images: Annotated[int, option("samples in each PNG; 0: none", words.shown)] = 36


@dataclass(frozen=True, kw_only=True)
class Train(TrainingData, Model, Objective, Optimization, Processes, RunFolder):
    """What ``vdm-lite train`` is asked for."""


# --- vdm-lite evaluate, vdm-lite sample ----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Weights(Group):
    """The model that is there."""

    title = "model"
    checkpoint: Annotated[Path, option("file written by vdm-lite train", words.file)]
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class MeasuredData(Group):
    """What a model is measured on."""

    title = "data"
    data: Annotated[
        str | None,
        option(
            "what to measure on, if not on its own: a name or a path as for train; where its own "
            "images are, if they moved",
            words.images,
        ),
    ] = None
    folder: Folder = None
    download: Download = False
    split: Annotated[
        str | None,
        option(
            "which images (default: test; of own images those that were held out, and all if the "
            "run had others)",
            choices=("test", "held-out"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Bounds(Group):
    """Which bounds are estimated, and how well."""

    title = "bounds"
    draws: Annotated[int, option("times and noises for each image", words.count)] = 10
    steps: Annotated[
        tuple[int, ...],
        option(
            "layers of discrete-time bounds, beside the continuous one",
            words.count,
            nargs="*",
            metavar="T",
        ),
    ] = ()
    batch_size: Annotated[int, option("images at a time", words.count)] = 250
    seed: Annotated[int, option("of the noise", words.seed)] = 0
    json: Annotated[
        Path | None, option("file to write the numbers to, after each bound", words.file)
    ] = None


@dataclass(frozen=True, kw_only=True)
class Evaluate(Weights, MeasuredData, Bounds):
    """What ``vdm-lite evaluate`` is asked for."""


@dataclass(frozen=True, kw_only=True)
class Samples(Group):
    """How images are drawn, and where they go."""

    title = "samples"
    out: Annotated[
        Path,
        option(
            "what to write: a grid of images (.png), a grid on its way from noise to data (.gif), "
            "or an array (N, C, H, W) of levels (.npz)",
            words.file,
        ),
    ]
    images: Annotated[int, option("how many", words.count)] = 36
    batch_size: Annotated[int, option("images at a time", words.count)] = 64
    steps: Annotated[int, option("from noise to data", words.count)] = 250
    step: Annotated[str, option("kind of step", choices=tuple(STEPS))] = "ancestral"
    size: Annotated[
        tuple[int, int] | None,
        option("(default: as trained)", words.side, nargs=2, metavar=("H", "W")),
    ] = None
    seed: Annotated[int, option("of the noise", words.seed)] = 0


@dataclass(frozen=True, kw_only=True)
class Sample(Weights, Samples):
    """What ``vdm-lite sample`` is asked for."""


Command = Train | Evaluate | Sample
COMMANDS: dict[str, type[Command]] = {"train": Train, "evaluate": Evaluate, "sample": Sample}
ABOUT = {
    "train": ("--out PATH", "train a diffusion of images on its evidence lower bound"),
    "evaluate": ("--checkpoint PATH", "bits/dim of a checkpoint, with its standard error"),
    "sample": ("--checkpoint PATH --out PATH", "draw images from a checkpoint into a PNG"),
}
"""Options that are needed, and what the command does."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = words.Parser(
        prog="vdm-lite", description="Train, evaluate and sample variational diffusion models."
    )
    top.add_argument("--version", action="version", version=f"vdm-lite {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="train|evaluate|sample")
    for name, (needed, what) in ABOUT.items():
        about = {"help": what, "description": what[0].upper() + what[1:] + "."}
        usage = f"vdm-lite {name} {needed} [options]"
        one = commands.add_parser(name, usage=usage, formatter_class=words.Form, **about)
        words.add_options(one, COMMANDS[name])
    return top


def parse(typed: Sequence[str]) -> Command:
    """The options that were typed; bad ones end the process with one line and exit code 2."""
    values = vars(parser().parse_args(typed))
    command = COMMANDS[values.pop("command")]
    return command(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Values of options, by name, as they would be typed."""
    typed = []
    for name, value in values.items():
        if isinstance(value, list | tuple):
            typed += [as_option(name), *map(str, value)]
        elif value is True:
            typed.append(as_option(name))
        elif value is not None and value is not False:  # which were not given
            typed.append(f"{as_option(name)}={value}")
    return typed


def in_options(error: Exception, command: type[Command]) -> str:
    """An error of the library in words of the command line: what it names are options here."""
    names, message = {each.name for each in fields(command)}, " ".join(str(error).split())

    def named(name: str) -> str:
        name = CALLED.get(name, name)
        return as_option(name) if name in names else name

    def argument(found: re.Match) -> str:
        return ", ".join(map(named, found[0].split(", ")))

    def setting(found: re.Match) -> str:
        if found[0] == "examples":
            return "images to train on (--data, --held-out)"
        if found[0] == "config.data.checksum":
            return "--data whose SHA-256"
        return named(found[0].rpartition(".")[2])

    if not isinstance(error, CheckpointError):  # which names its file first
        message = re.sub(r"^\w+(, \w+)*(?=: expected )", argument, message)
    return re.sub(r"(?<=expected a run with )[\w.]+(?= = )", setting, message)
