"""The values that a model is built from, plain ones, so that a checkpoint can hold them.

In the library choices are callables. A file and a command line have only names and numbers: those
of a model become callables here, those of its training and sampling in
``vdm_lite.cli.options``.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from vdm_lite import checks, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.nets.unet import check_sizes
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, SCORE, VELOCITY
from vdm_lite.schedules import SCHEDULES, Learned
from vdm_lite.training.checkpoints import CheckpointError, load_into, part, read

OUTPUTS = {p.name: p for p in (NOISE, IMAGE, VELOCITY, FLOW, SCORE)}


@dataclass(frozen=True)
class ModelConfig:
    """Values of a diffusion of images (channels, H, W) of ``levels`` levels around ``nets.UNet``.

    The default has 0.9 M weights, and features of z for 8-bit images. ``train_ends`` makes the end
    points of a learned schedule parameters. Raises ``ValueError`` for what does not fit together,
    and for sizes that ``nets.UNet`` refuses.
    """

    channels: int = 1
    levels: int = 256
    widths: tuple[int, ...] = (48, 80, 96)
    blocks: int = 1
    exponents: tuple[int, ...] = (6, 7)
    output: str = "noise"
    schedule: str = "linear"
    logsnr_max: float = 13.3
    logsnr_min: float = -5.0
    train_ends: bool = False

    def __post_init__(self) -> None:
        check_sizes(self.channels, self.widths, self.blocks, self.exponents)
        checks.grid("levels", self.levels)
        checks.ends(self.logsnr_max, self.logsnr_min)
        for name, known in (("output", OUTPUTS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            name_of = value if isinstance(value, str) else checks.described(value)
            checks.require(name_of in known, name, f"one of {', '.join(known)}", name_of)
        chosen = isinstance(self.train_ends, bool)
        checks.require(chosen, "train_ends", "True or False", checks.described(self.train_ends))
        learned = self.schedule == "learned" or not self.train_ends
        checks.require(learned, "train_ends", "schedule learned", self.schedule)

    def build(self) -> VariationalDiffusion:
        """The model, with random weights from torch's global generator."""
        network = nets.UNet(self.channels, self.widths, self.blocks, self.exponents)
        ends = {"logsnr_max": self.logsnr_max, "logsnr_min": self.logsnr_min}
        if self.schedule == "learned":
            schedule = Learned(**ends, train_ends=self.train_ends)
        else:
            schedule = SCHEDULES[self.schedule](**ends)
        return VariationalDiffusion(
            network, schedule, OUTPUTS[self.output], Discretized(self.levels)
        )

    def plain(self) -> dict[str, Any]:
        """The values as JSON knows them; :meth:`parse` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of :meth:`plain`. ``ValueError`` for values of anything else."""
        named = isinstance(values, Mapping)
        checks.require(named, "values", "names and values", checks.described(values))
        known = values.keys() <= {field.name for field in fields(cls)}
        expected = f"the fields of {cls.__name__}"
        checks.require(known, "values", expected, sorted(map(str, values)))
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def describe(
    model: ModelConfig, images: Tensor, name: str | None = None, held_out: int | None = None
) -> dict[str, Any]:
    """What a checkpoint has to say for :func:`load_model` and for the command line.

    Give it to ``training.fit`` or ``save_weights`` as ``config``. ``images`` (N, C, H, W) are those
    that ``model`` is trained on. ``name`` is what ``vdm-lite evaluate --data`` calls them, such as
    ``"digits"``; ``held_out`` says how many at the end of its training set were not trained on.
    Raises ``ValueError`` for images of other channels.
    """
    is_config = isinstance(model, ModelConfig)
    checks.require(is_config, "model", "a ModelConfig", checks.described(model))
    is_tensor = isinstance(images, Tensor)
    checks.require(is_tensor, "images", "a tensor (N, C, H, W)", checks.described(images))
    fits = images.ndim == 4 and images.shape[1] == model.channels
    checks.require(fits, "images", f"shape (N, {model.channels}, H, W)", tuple(images.shape))
    if held_out is not None:
        held_out = checks.count("held_out", held_out)
    about = {"name": name, "shape": list(images.shape[1:]), "levels": model.levels}
    return {"model": model.plain(), "data": about | {"held_out": held_out}}


def load_model(path: str | os.PathLike) -> VariationalDiffusion:
    """The model of a checkpoint: averaged weights, in evaluation mode, without gradients.

    Raises ``CheckpointError`` unless the file holds such values and weights that belong to them.
    """
    return load(path)[0]


def part_of_config(path: str | os.PathLike, metadata: Mapping, name: str) -> Mapping[str, Any]:
    """What ``config`` in the metadata of a file holds of this name; ``CheckpointError`` if nothing.

    :func:`describe` makes a config that holds all.
    """
    config = metadata.get("config")
    found = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(found, Mapping):
        expected = f"config to hold {name!r}, as made by vdm_lite.config.describe"
        raise CheckpointError(path, expected, checks.described(found if config else config))
    return found


def load(path: str | os.PathLike) -> tuple[VariationalDiffusion, dict[str, Any]]:
    """As :func:`load_model`, with the metadata of the file beside it."""
    tensors, metadata = read(path)
    values = part_of_config(path, metadata, "model")
    try:
        model = ModelConfig.parse(values).build()
    except ValueError as error:
        raise CheckpointError(path, "config.model to fit a ModelConfig", error) from error
    load_into(model, part(tensors, "ema"), path)
    return model.eval().requires_grad_(False), metadata
