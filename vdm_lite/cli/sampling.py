"""``vdm-lite sample``: images drawn from a checkpoint."""

import argparse

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.cli import options, outputs, pictures, sources
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.progress import bar
from vdm_lite.samplers import Step, sample

WRITERS = {".png": pictures.write_png, ".gif": pictures.write_gif, ".npz": pictures.write_npz}
MOMENTS = {".png": 1, ".gif": 40, ".npz": 1}
"""Pictures of each walk that are kept."""


def run(given: argparse.Namespace) -> int:
    """Write samples, in the format that the name of the file asks for."""
    model, metadata = sources.model(given)
    channels, *size = sources.about(given.checkpoint, metadata)["shape"]
    size, divisor = given.size or size, model.denoiser.divisor
    fits = not any(side % divisor for side in size)
    checks.require(fits, "--size", f"multiples of {divisor}", " ".join(map(str, size)))
    outputs.check("--out", given.out, tuple(WRITERS))
    kind = given.out.suffix.lower()
    most = 10_000
    fits = kind == ".npz" or given.images <= most
    checks.require(fits, "--images", f"at most {most} in a picture (.npz takes more)", given.images)
    generator = torch.Generator(sources.device(given)).manual_seed(given.seed)
    levels = draw(
        model,
        (given.images, channels, *size),
        given.steps,
        options.STEPS[given.step],
        generator,
        given.batch_size,
        MOMENTS[kind],
        progress=True,
    )
    WRITERS[kind](given.out, levels, model.likelihood.levels)
    print(f"{given.out}: {given.images} images, {given.steps} {given.step} steps")
    return 0


def draw(
    model: VariationalDiffusion,
    shape: tuple[int, ...],
    steps: int,
    step: Step,
    generator: torch.Generator,
    batch_size: int = 64,
    moments: int = 1,
    progress: bool = False,
) -> Tensor:
    """Samples (B, ...) on the way from noise to data, ``batch_size`` at a time: (moments, B, ...).

    The last of the moments, which are evenly spread, has the samples; those before show z. All as
    levels, on the CPU.
    """
    number, *rest = shape
    moments = min(moments, steps)
    row = {(k + 1) * steps // moments: k for k in range(moments)}
    levels = torch.empty(moments, *shape, dtype=torch.int32)
    starts = range(0, number, batch_size)
    with bar(show=progress, total=steps * len(starts), unit="step") as shown:
        for start in starts:
            part = (min(batch_size, number - start), *rest)
            for done, state in enumerate(sample(model, part, steps, step, generator), 1):
                if done in row:
                    x = state.x_hat if done == steps else state.z
                    levels[row[done], start : start + len(x)] = model.likelihood.decode(x)
                shown.update()
    return levels
