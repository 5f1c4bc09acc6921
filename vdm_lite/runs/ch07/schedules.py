"""Four noise schedules with equal end points on images: the long runs of chapter 7.

    python -m vdm_lite.runs.ch07.schedules

trains the U-Net of ``images`` under each schedule and seed, and writes a row for each to
``schedules.json`` beside this file; the first one's weights go to ``fashion14.safetensors``. An
interrupted run of the same commit goes on where it stopped. Half an hour on four CPU cores
(``--workers 4``).
"""

from pathlib import Path
from typing import Any

import torch

from vdm_lite import data
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.runs import images, runner
from vdm_lite.schedules import SCHEDULES, density, ends
from vdm_lite.training.checkpoints import load_weights, save_weights

FILE = Path(__file__).with_suffix(".json")
WEIGHTS = FILE.with_name("fashion14.safetensors")
KINDS = ("linear", "learned", "cosine", "beta-linear")
STEPS = 2500
SHORT = 20  # steps of a row that a test can run again
SHIPPED = ("linear", 0, STEPS)


@torch.no_grad()
def variance(model: VariationalDiffusion, pieces: int = 256, examples: int = 100) -> dict[str, Any]:
    """Variance of the one-sample diffusion cost under uniform times, in (bits/dim)^2.

    ``times`` is the part that comes from t, the variance over t of the expected cost; ``rest`` is
    what the image and the noise add. Integrals over log-SNR, where the errors are smooth: over t
    the cost of a steep schedule is a spike.
    """
    test = data.halved(data.fashion_mnist()).test[:examples]
    low, high = ends(model.schedule)
    width = (high - low) / pieces
    logsnr = low + width * (torch.arange(pieces) + 0.5)
    errors = images.noise_errors(model, logsnr, test, torch.Generator().manual_seed(1))
    costs = bits_per_dim(0.5 * errors, images.DIMS)  # of one unit of log-SNR: (pieces, examples)
    mean, within = costs.mean(1), costs.var(1)
    speed = width / density(model.schedule, logsnr)
    square = mean.square() - within / examples  # without the noise of each mean
    times = (speed * square).sum() - (width * mean).sum().square()
    parts = {"times": times.item(), "rest": (speed * within).sum().item()}
    return {"variance": sum(parts.values()), **parts}


def row(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train and evaluate one model; ``curve`` is its log-SNR at 65 even times."""
    model = images.train(images.build(SCHEDULES[name](), seed=seed), steps, seed)
    if (name, seed, steps) == SHIPPED:
        save_weights(WEIGHTS, model, {"schedule": name, "seed": seed, "steps": steps})
    with torch.no_grad():
        curve = model.schedule(torch.linspace(0, 1, 65)).tolist()
    key = {"schedule": name, "seed": seed, "steps": steps}
    return key | images.bound(model) | variance(model) | {"curve": curve}


def results() -> dict[str, Any]:
    """What the shipped file holds: ``about`` the run, and its ``rows``."""
    return runner.read(FILE)


def trained() -> VariationalDiffusion:
    """The shipped model: Fashion-MNIST at 14x14, linear schedule, noise output, evaluation mode."""
    model = images.build()
    load_weights(WEIGHTS, model)
    return model.eval().requires_grad_(False)


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    cases = [("learned", 0, SHORT)]
    cases += [(name, seed, STEPS) for seed in images.SEEDS for name in KINDS]
    runner.run(FILE, row, ("schedule", "seed", "steps"), cases)


if __name__ == "__main__":
    main()
