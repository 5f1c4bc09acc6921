"""The values that a model is built from, plain ones, so that a checkpoint can hold them.

In the library choices are callables. A file and a command line have only names and numbers: those
of a model become callables here, those of its training and sampling in
``vdm_lite.command.options``.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vdm_lite import checks, nets
from vdm_lite.checkpoints import CheckpointError, load_into, part, read
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, SCORE, VELOCITY
from vdm_lite.schedules import EDM, BetaLinear, Cosine, FlowMatching, Learned, Linear

OUTPUTS = {p.name: p for p in (NOISE, IMAGE, VELOCITY, FLOW, SCORE)}
SCHEDULES = {
    "linear": Linear,
    "cosine": Cosine,
    "flow-matching": FlowMatching,
    "edm": EDM,
    "beta-linear": BetaLinear,
    "learned": Learned,
}


@dataclass(frozen=True)
class ModelConfig:
    """A diffusion of images (channels, H, W) with ``levels`` levels around a ``nets.UNet``.

    The default has 0.9 M weights, and features of z for 8-bit images. ``train_ends`` makes the end
    points of a learned schedule parameters. Raises ``ValueError`` for what does not fit together.
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
        for name in ("channels", "levels", "blocks"):
            checks.count(name, getattr(self, name))
        checks.require(len(self.widths) > 0, "widths", "one width or more", self.widths)
        for width in self.widths:
            checks.count("widths", width)
        fits = all(isinstance(n, int) and 0 <= n <= 20 for n in self.exponents)
        checks.require(fits, "exponents", "whole numbers from 0 to 20", self.exponents)
        for name, known in (("output", OUTPUTS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            checks.require(value in known, name, f"one of {', '.join(known)}", value)
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
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            wanted = f"the fields of {cls.__name__}"
            raise ValueError(f"values: expected {wanted}, got {sorted(values)}") from error


def load_model(path: str | os.PathLike) -> VariationalDiffusion:
    """The model of a checkpoint: averaged weights, in evaluation mode, without gradients.

    Raises ``CheckpointError`` unless the file holds such values and weights that belong to them.
    """
    return load(path)[0]


def load(path: str | os.PathLike) -> tuple[VariationalDiffusion, dict[str, Any]]:
    """As :func:`load_model`, with the metadata of the file beside it."""
    tensors, metadata = read(path)
    try:
        model = ModelConfig.parse((metadata.get("config") or {})["model"]).build()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        wanted = "a checkpoint of vdm-lite train"
        raise CheckpointError(path, wanted, f"a config with {error!r}") from error
    load_into(model, part(tensors, "ema"), path)
    return model.eval().requires_grad_(False), metadata
