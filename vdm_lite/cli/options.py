"""What can be said on the command line, and the names that it has for the library's callables."""

import argparse
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, NoReturn

from vdm_lite import __version__, times, weighting
from vdm_lite.samplers import ancestral_step, ddim_step
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import OUTPUTS, SCHEDULES, ModelConfig

DATA = ("fashion-mnist-subset", "fashion-mnist", "digits", "mnist", "cifar10")
TIMES = {
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
STRATEGIES = ("auto", "ddp")
STEPS = {"ancestral": ancestral_step, "ddim": ddim_step}
CALLED = {"ema_decay": "ema", "exponents": "fourier", "name": "data", "source": "data"}
"""Options that are called otherwise in the library."""


def as_options(error: Exception, options: Container[str]) -> str:
    """An error of the library in words of the command line: what it names are ``options`` here."""
    message = " ".join(str(error).split())

    def option(name: str) -> str:
        name = CALLED.get(name, name)
        return "--" + name.replace("_", "-") if name in options else name

    def names(found: re.Match) -> str:
        return ", ".join(map(option, found[0].split(", ")))

    def setting(found: re.Match) -> str:
        if found[0] == "examples":
            return "images to train on (--data, --held-out)"
        if found[0] == "config.data.checksum":
            return "--data whose SHA-256"
        return option(found[0].rpartition(".")[2])

    if not isinstance(error, CheckpointError):  # which names its file first
        message = re.sub(r"^\w+(, \w+)*(?=: expected )", names, message)
    return re.sub(r"(?<=expected a run with )[\w.]+(?= = )", setting, message)


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Values of options, by name, as they would be typed."""
    words = []
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, list):
            words += [option, *map(str, value)]
        elif value is True:
            words.append(option)
        elif value is not None and value is not False:  # which were not given
            words.append(f"{option}={value}")
    return words


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the page of usage that ``--help`` gives."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, allow_abbrev=False)  # a wrong name is not taken for another

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help explains)\n")


class _Form(argparse.HelpFormatter):
    """Choices stand in the help and not in its margin; a default is shown where there is one."""

    def _metavar_formatter(self, action: argparse.Action, default: str) -> Callable:
        action.metavar = action.metavar or ("NAME" if action.choices else KINDS.get(action.type))
        return super()._metavar_formatter(action, default)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if action.choices:
            text += f": {', '.join(action.choices)}"
        if isinstance(action.default, tuple):
            return f"{text} (default: {' '.join(map(str, action.default))})"
        shown = isinstance(action.default, str | int | float) and action.default is not False
        return f"{text} (default: {action.default})" if shown and action.nargs != 0 else text


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="vdm-lite", description="Train, evaluate and sample variational diffusion models."
    )
    top.add_argument("--version", action="version", version=f"vdm-lite {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="train|evaluate|sample")
    _train(_command(commands, "train", "train a diffusion of images on its evidence lower bound",
                    "--out PATH"))  # fmt: skip
    _evaluate(_command(commands, "evaluate", "bits/dim of a checkpoint, with its standard error",
                       "--checkpoint PATH"))  # fmt: skip
    _sample(_command(commands, "sample", "draw images from a checkpoint into a PNG",
                     "--checkpoint PATH --out PATH"))  # fmt: skip
    return top


def _command(
    commands: argparse._SubParsersAction, name: str, what: str, needed: str
) -> argparse.ArgumentParser:
    about = what[0].upper() + what[1:] + "."
    usage = f"vdm-lite {name} {needed} [options]"
    return commands.add_parser(
        name, help=what, usage=usage, description=about, formatter_class=_Form
    )


def _train(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("data")
    group.add_argument(
        "--data", type=images, default=DATA[0], help=f"what to learn: {', '.join(DATA)}, or the "
        "path of your own images, a folder of files (subfolders are labels), an .npy or an .npz: "
        "vdm_lite.data.own_images explains it",
    )  # fmt: skip
    group.add_argument(
        "--size", type=side, help="own images: scale the short side to N pixels and take the "
        "center, N x N (default: as they are, all of one size; what the U-Net cannot halve often "
        "enough is cut off at the sides)",
    )  # fmt: skip
    _folder(group)
    group.add_argument(
        "--held-out", type=count, help="training images kept for evaluation, the last "
        "ones (default: a tenth, at most 5000)"
    )  # fmt: skip

    like = ModelConfig()
    group = p.add_argument_group("model")
    group.add_argument(
        "--widths", type=count, nargs="+", default=like.widths,
        help="channels of the U-Net at full resolution, at half, at a quarter, ...",
    )  # fmt: skip
    group.add_argument("--blocks", type=count, default=like.blocks, help="at each, each way")
    group.add_argument(
        "--fourier", type=int, nargs="*",
        help="exponents n of the features sin(2^n pi z) and cos (default: periods of two and four "
        "levels of the data; none if nothing follows)",
    )  # fmt: skip
    group.add_argument("--output", choices=OUTPUTS, default=like.output, help="what it predicts")
    group.add_argument("--schedule", choices=SCHEDULES, default=like.schedule, help="of the noise")
    group.add_argument("--logsnr-max", type=float, default=like.logsnr_max, help="at t = 0")
    group.add_argument("--logsnr-min", type=float, default=like.logsnr_min, help="at t = 1")
    group.add_argument(
        "--train-ends", action="store_true",
        help="learn the end points, too, on the whole bound (needs --schedule learned)",
    )  # fmt: skip

    group = p.add_argument_group("objective")
    group.add_argument("--weighting", choices=WEIGHTINGS, default="elbo", help="of noise levels")
    group.add_argument("--times", choices=TIMES, default="low-discrepancy", help="how t is drawn")

    group = p.add_argument_group("optimization")
    group.add_argument(
        "--steps", type=count, help="updates in all (default: 10000, 71 times through the bundled "
        "images); --resume with more makes a run longer, best before its rate falls",
    )  # fmt: skip
    group.add_argument("--batch-size", type=count, default=64, help="images of all processes")
    group.add_argument("--lr", type=positive, default=2e-3, help="learning rate of AdamW")
    group.add_argument("--warmup", type=whole, default=200, help="steps over which it rises")
    group.add_argument(
        "--decay", type=whole, help="last steps, over which it falls to 0 (default: a third)",
    )  # fmt: skip
    group.add_argument(
        "--clip", type=positive, default=1.0, help="norm that longer gradients are scaled down "
        "to; costs in nats per image have gradients with norms in the thousands (grad_norm in the "
        "log), so that 1 normalizes each",
    )  # fmt: skip
    group.add_argument("--ema", type=fraction, default=0.999, help="decay of the averaged weights")
    group.add_argument("--accumulate", type=count, default=1, help="parts that make a batch")
    group.add_argument("--seed", type=seed, default=0, help="of weights, batches, times and noise")

    group = p.add_argument_group(
        "engine (Lightning Fabric; works under torchrun)",
        "Tested on the CPU, with one process and with two. CUDA and MPS take the same way through "
        "the code, but nobody has run it there yet.",
    )
    _device(group)
    group.add_argument(
        "--devices", type=count, help="how many, on each machine (default: 1, or what "
        "torchrun started)"
    )  # fmt: skip
    group.add_argument(
        "--nodes", type=count, help="how many machines, all with --out on a disk that they share "
        "(default: likewise)",
    )  # fmt: skip
    group.add_argument("--strategy", choices=STRATEGIES, default="auto", help="of many")
    group.add_argument(
        "--precision", choices=("32-true", "bf16-mixed"), default="32-true",
        help="of the network's arithmetic; noise levels and costs stay in float32",
    )  # fmt: skip
    group.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="compile the network "
        "(torch.compile; not with a learned schedule)",
    )  # fmt: skip

    group = p.add_argument_group("what is written")
    group.add_argument(
        "--out", type=file, required=True, help="folder of this run, and of no other at a time",
    )  # fmt: skip
    group.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, with its options; "
        "those of the engine and of what is written, and --steps, may be given anew",
    )  # fmt: skip
    group.add_argument("--every", type=count, default=500, help="steps between checkpoints")
    group.add_argument("--log-every", type=count, default=50, help="steps between lines of the log")
    group.add_argument("--evaluate-every", type=count, default=1000, help="steps between bits/dim")
    group.add_argument("--images", type=shown, default=36, help="samples in each PNG; 0: none")


def _evaluate(p: argparse.ArgumentParser) -> None:
    _checkpoint(p)
    p.add_argument("--data", type=images, help="what to measure on, if not on its own: a name or "
                   "a path as for train; where its own images are, if they moved")  # fmt: skip
    _folder(p)
    p.add_argument(
        "--split", choices=("test", "held-out"), help="which images (default: test; of own images "
        "those that were held out, and all if the run had others)",
    )  # fmt: skip
    p.add_argument("--draws", type=count, default=10, help="times and noises for each image")
    p.add_argument(
        "--steps", type=count, nargs="*", default=[], metavar="T",
        help="layers of discrete-time bounds, beside the continuous one",
    )  # fmt: skip
    p.add_argument("--batch-size", type=count, default=250, help="images at a time")
    p.add_argument("--seed", type=seed, default=0, help="of the noise")
    p.add_argument("--json", type=file, help="file to write the numbers to, after each bound")
    _device(p)


def _sample(p: argparse.ArgumentParser) -> None:
    _checkpoint(p)
    p.add_argument(
        "--out", type=file, required=True, help="what to write: a grid of images (.png), a grid on "
        "its way from noise to data (.gif), or an array (N, C, H, W) of levels (.npz)",
    )  # fmt: skip
    p.add_argument("--images", type=count, default=36, help="how many")
    p.add_argument("--batch-size", type=count, default=64, help="images at a time")
    p.add_argument("--steps", type=count, default=250, help="from noise to data")
    p.add_argument("--step", choices=STEPS, default="ancestral", help="kind of step")
    p.add_argument("--size", type=side, nargs=2, metavar=("H", "W"), help="(default: as trained)")
    p.add_argument("--seed", type=seed, default=0, help="of the noise")
    _device(p)


def _checkpoint(p: argparse.ArgumentParser) -> None:
    p.add_argument("--checkpoint", type=file, required=True, help="file written by vdm-lite train")


def _folder(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--folder", type=file, help="where the data lie, for those that the library does not bring "
        "(fashion-mnist: the four original .gz files; default: where Debian's package "
        "dataset-fashion-mnist puts them; mnist, cifar10: what torchvision makes of them; default: "
        "datasets)",
    )  # fmt: skip
    p.add_argument(
        "--download", action="store_true",
        help="fetch mnist or cifar10 into the folder by torchvision if they are not there",
    )  # fmt: skip


def _device(p: argparse._ActionsContainer) -> None:
    p.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="kind")


def _number(kind: Callable, accepts: Callable[[float], bool], what: str) -> Callable:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return read


def _whole(low: int, high: int) -> Callable:
    return _number(int, lambda n: low <= n <= high, f"a whole number from {low} to {high}")


def file(text: str) -> Path:
    """A path; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return Path(text)


def images(text: str) -> str:
    """One of :data:`DATA`, or a path, made absolute: a checkpoint keeps it."""
    if text in DATA:
        return text
    if not text or not Path(text).exists():
        expected = f"{', '.join(DATA)}, or a path of images"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}, which is not there")
    return str(Path(text).resolve())


count = _whole(1, 10**9)
whole = _whole(0, 10**9)
side = _whole(1, 4096)
shown = _whole(0, 10_000)
seed = _number(int, lambda n: 0 <= n < 2**40, "a whole number from 0 to below 2^40")
positive = _number(float, lambda v: 0 < v < float("inf"), "a positive number")
fraction = _number(float, lambda v: 0 <= v < 1, "a number from 0 to below 1")
KINDS = {file: "PATH", images: "NAME", int: "N", float: "X"}
KINDS |= dict.fromkeys((count, whole, side, shown, seed), "N")
KINDS |= dict.fromkeys((positive, fraction), "X")
