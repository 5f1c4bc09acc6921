"""Fourier features and learned end points, each with and without: the long runs of chapter 12.

    python -m vdm_lite.experiments.ablation

trains one small U-Net on the bundled Fashion-MNIST at 28x28 for each case and seed, and writes a
row for each to ``ablation.json`` beside this file. An interrupted run of the same commit goes on
where it stopped. Two hours on two CPU cores.

Kingma et al. (2021) report that the two together make the difference for the bound. The end points
start, or stay, where the linear betas of Ho et al. (2020) have them; a third case fixes them where
this book does. What is learned are the ends alone: the schedule between them stays as it is.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm_lite import data, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.evaluation import evaluate
from vdm_lite.experiments import runner
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import NOISE
from vdm_lite.schedules import Learned, Linear, Schedule
from vdm_lite.schedules import ends as ends_of
from vdm_lite.training import fit

FILE = Path(__file__).with_suffix(".json")
# log SNR before the first and after the last of 1000 betas from 1e-4 to 0.02 (Ho et al. 2020).
HO = (9.21, -10.12)
EXPONENTS = {"with": (6, 7), "without": ()}
ENDS = ("Ho", "learned", "book")
SEEDS = (0, 1, 2)
STEPS = 2000
SHORT = 10  # steps of a row that a test can run again
RATE = 2e-3


def schedule(ends: str) -> Schedule:
    """A schedule linear in log SNR: fixed ends, or ends that are parameters."""
    if ends == "book":
        return Linear()
    if ends == "Ho":
        return Linear(*HO)
    learned = Learned(*HO, train_ends=True)
    learned.raw.requires_grad_(False)
    return learned


def row(fourier: str, ends: str, seed: int, steps: int) -> dict[str, Any]:
    """Train, and evaluate on the 2,000 bundled test images, in bits/dim."""
    torch.manual_seed(seed)
    network = nets.UNet(1, (24, 48), exponents=EXPONENTS[fourier])
    model = VariationalDiffusion(network, schedule(ends), NOISE, Discretized(256))

    def bound(batch: Tensor, generator: torch.Generator) -> Tensor:
        return model.elbo(batch, generator=generator).nelbo

    images = data.fashion_mnist()
    loss = bound if ends == "learned" else None
    run = fit(
        model, images.train, steps, lr=RATE, decay=steps // 3, seed=seed, loss=loss, progress=False
    )
    for last in run:  # noqa: B007
        pass
    report = evaluate(last.averaged, images.test, draws=2)._asdict()
    low, high = ends_of(last.averaged.schedule)
    key = {"fourier": fourier, "ends": ends, "seed": seed, "steps": steps}
    return report | key | {"logsnr_max": high, "logsnr_min": low}  # these steps are updates


def results() -> dict[str, Any]:
    """What the shipped file holds: ``about`` the run, and its ``rows``."""
    return runner.read(FILE)


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    wanted = [("with", "learned", 0, SHORT)]
    wanted += [(f, e, seed, STEPS) for seed in SEEDS for e in ENDS for f in EXPONENTS]
    runner.run(FILE, row, ("fourier", "ends", "seed", "steps"), wanted)


if __name__ == "__main__":
    main()
