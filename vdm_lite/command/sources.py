"""The images that a command asks for, and the device that it runs on."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm_lite import checks, data
from vdm_lite.checkpoints import CheckpointError
from vdm_lite.data import Images

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def images(name: str, folder: Path | None, download: bool) -> Images:
    """The images of this name. Raises ``ValueError`` and ``OSError`` for what is not there."""
    fetched = name in ("mnist", "cifar10")
    checks.require(fetched or not download, "--download", "--data mnist or cifar10", name)
    if fetched:
        return data.torchvision_images(name, folder or Path("datasets"), download)
    if name == "fashion-mnist":
        return _original(folder or DEBIAN)
    checks.require(folder is None, "--folder", f"none, as {name} comes with the library", folder)
    return data.digits() if name == "digits" else data.fashion_mnist()


def _original(folder: Path) -> Images:
    try:
        return data.fashion_mnist(folder)
    except (ValueError, OSError) as error:
        advice = "give the folder of the four original .gz files, install Debian's package "
        advice += "dataset-fashion-mnist, or take --data fashion-mnist-subset"
        raise ValueError(f"{error}; {advice}") from error


def held_out(source: Images, number: int | None) -> tuple[Tensor, Tensor]:
    """Images to train on, and the last ``number`` of them that are kept for evaluation."""
    examples = len(source.train)
    number = number or min(5000, examples // 10)
    fits = 2 <= number < examples
    checks.require(fits, "--held-out", f"a number from 2 to {examples - 1}", number)
    return source.train[:-number], source.train[-number:]


def about(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the data that it was trained on; ``CheckpointError`` if nothing."""
    try:
        found = metadata["config"]["data"]
        return {name: found[name] for name in ("name", "shape", "levels", "held_out")}
    except (KeyError, TypeError) as error:
        raise CheckpointError(path, "a checkpoint of vdm-lite train", "no word of data") from error


def device(given: argparse.Namespace) -> str:
    """The kind of device, ``cpu``, ``cuda`` or ``mps``; ``ValueError`` for one that is not here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    kind = here[0] if given.device == "auto" else given.device
    checks.require(kind in here, "--device", f"one that torch finds here: {', '.join(here)}", kind)
    return kind
