"""The images and the model that a command asks for, and the device that it runs on."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm_lite import checks, data
from vdm_lite.cli.words import DATA
from vdm_lite.data import Images
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import load, part_of_config

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def images(name: str, folder: Path | None, download: bool, **own: Any) -> Images:
    """The images of this name or path; ``own`` is for :func:`vdm_lite.data.own_images`.

    Raises ``ValueError`` and ``OSError`` for what is not there.
    """
    fetched = name in ("mnist", "cifar10")
    checks.require(fetched or not download, "--download", "--data mnist or cifar10", name)
    if fetched:
        return data.torchvision_images(name, folder or Path("datasets"), download)
    if name == "fashion-mnist":
        return _original(folder or DEBIAN)
    bundled = f"none, as {name} comes with the library"
    expected = bundled if name in DATA else "none, as --data is the path"
    checks.require(folder is None, "--folder", expected, folder)
    if name in DATA:
        return data.digits() if name == "digits" else data.fashion_mnist()
    return data.own_images(name, **own)


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
    checks.require(examples > 2, "--data", "three images or more", examples)
    number = number or max(2, min(5000, examples // 10))
    fits = 2 <= number < examples
    checks.require(fits, "--held-out", f"a number from 2 to {examples - 1}", number)
    return source.train[:-number], source.train[-number:]


def description(source: Images) -> str:
    """What was found in own images, in words."""
    number, channels, height, width = source.train.shape
    color = "gray" if channels == 1 else "color"
    classes = f" in {len(source.classes)} classes" if len(source.classes) > 1 else ""
    size = f"{width} x {height} pixels, {source.levels} levels"
    return f"{number} {color} images of {size}{classes}"


def note(name: str, source: Images, held_out: int, size: int | None) -> dict[str, Any]:
    """What a checkpoint has to say of the data that it is trained on.

    Of own images also how they were read and a checksum, to know them again.
    """
    shape = list(source.train.shape[1:])
    known = {"name": name, "shape": shape, "levels": source.levels, "held_out": held_out}
    if name in DATA:
        return known
    return known | {"size": size, "checksum": data.checksum([source.train])}


def about(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says, see :func:`note`; ``CheckpointError`` if something is missing."""
    found = part_of_config(path, metadata, "data")
    for name in ("name", "shape", "levels", "held_out"):
        if name not in found:
            expected = f"config.data to hold {name!r}, as made by vdm_lite.config.describe"
            raise CheckpointError(path, expected, checks.described(sorted(found)))
    try:
        _channels, _height, _width = checks.counts("shape", found["shape"], "(C, H, W)")
    except ValueError as error:
        raise CheckpointError(path, "config.data.shape to be (C, H, W)", found["shape"]) from error
    return {"size": None, "checksum": None, **found}


def model(checkpoint: Path, kind: str) -> tuple[VariationalDiffusion, dict[str, Any]]:
    """The model of the checkpoint, on a device of this kind, and what the file says beside it."""
    built, metadata = load(checkpoint)
    for name, weight in built.state_dict().items():
        if not weight.isfinite().all():
            raise CheckpointError(checkpoint, "finite weights", f"NaN or infinity in {name}")
    return built.to(device(kind)), metadata


def device(kind: str) -> str:
    """The device of this kind, the best for ``auto``; ``ValueError`` for one that is not here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    kind = here[0] if kind == "auto" else kind
    checks.require(kind in here, "--device", f"one that torch finds here: {', '.join(here)}", kind)
    return kind
