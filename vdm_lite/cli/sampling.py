"""``vdm-lite sample``: images drawn from a checkpoint."""

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.cli import outputs, pictures, sources
from vdm_lite.cli.options import STEPS, Sample
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.progress import bar
from vdm_lite.samplers import StepRule, sample

WRITERS = {".png": pictures.write_png, ".gif": pictures.write_gif, ".npz": pictures.write_npz}
MOMENTS = {".png": 1, ".gif": 40, ".npz": 1}
"""Pictures of each walk that are kept."""
MOST = 10_000
"""Images in one picture."""


def run(options: Sample) -> int:
    """Write samples, in the format that the name of the file asks for."""
    model, metadata = sources.model(options.checkpoint, options.device)
    channels, *size = sources.about(options.checkpoint, metadata)["shape"]
    size, divisor = options.size or size, model.denoiser.divisor
    fits = not any(side % divisor for side in size)
    checks.require(fits, "--size", f"multiples of {divisor}", " ".join(map(str, size)))
    outputs.check("--out", options.out, tuple(WRITERS))
    kind = options.out.suffix.lower()
    fits = kind == ".npz" or options.images <= MOST
    expected = f"at most {MOST} in a picture (.npz takes more)"
    checks.require(fits, "--images", expected, options.images)
    generator = torch.Generator(sources.device(options.device)).manual_seed(options.seed)
    levels = draw(
        model,
        (options.images, channels, *size),
        options.steps,
        STEPS[options.step],
        generator,
        options.batch_size,
        MOMENTS[kind],
        progress=True,
    )
    WRITERS[kind](options.out, levels, model.likelihood.levels)
    print(f"{options.out}: {options.images} images, {options.steps} {options.step} steps")
    return 0


def draw(
    model: VariationalDiffusion,
    shape: tuple[int, ...],
    steps: int,
    step: StepRule,
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
