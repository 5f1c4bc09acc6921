"""``vdm-lite sample``: images drawn from a checkpoint."""

import argparse

import torch
from torch import Tensor
from tqdm import tqdm

from vdm_lite.command import options, pictures, sources
from vdm_lite.config import load
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.samplers import Step, sample


def run(given: argparse.Namespace) -> int:
    """Write a grid of samples."""
    device = sources.device(given)
    model, metadata = load(given.checkpoint)
    model.to(device)
    channels, *size = sources.about(given.checkpoint, metadata)["shape"]
    shape = (given.images, channels, *(given.size or size))
    generator = torch.Generator(device).manual_seed(given.seed)
    levels = draw(model, shape, given.steps, options.STEPS[given.step], generator, progress=True)
    pictures.write_png(given.out, pictures.grid(levels, model.likelihood.levels))
    print(f"{given.out}: {given.images} images, {given.steps} {given.step} steps")
    return 0


def draw(
    model: VariationalDiffusion,
    shape: tuple[int, ...],
    steps: int,
    step: Step,
    generator: torch.Generator,
    progress: bool = False,
) -> Tensor:
    """Samples as levels (B, C, H, W), on the CPU."""
    walk = sample(model, shape, steps, step, generator)
    for state in tqdm(walk, total=steps, unit="step", leave=False, disable=not progress):
        x_hat = state.x_hat
    return model.likelihood.decode(x_hat).cpu()
