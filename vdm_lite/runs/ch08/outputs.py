"""One U-Net trained with each of six outputs, on images: the long runs of chapter 8.

    python -m vdm_lite.runs.ch08.outputs

trains the U-Net of ``images`` with each output and seed on the bound's diffusion term, and writes a
row for each to ``outputs.json`` beside this file. An interrupted run of the same commit goes on
where it stopped. Half an hour on four CPU cores (``--workers 4``).
"""

from pathlib import Path
from typing import Any

import torch

from vdm_lite import data
from vdm_lite.parameterization import ENERGY, FLOW, IMAGE, NOISE, SCORE, VELOCITY
from vdm_lite.runs import images, runner

FILE = Path(__file__).with_suffix(".json")
OUTPUTS = {p.name: p for p in (IMAGE, NOISE, SCORE, ENERGY, VELOCITY, FLOW)}
STEPS = 1500
SHORT = 20  # steps of a row that a test can run again
LEVELS = torch.linspace(-5.0, 13.3, 25)


def row(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train and evaluate; ``errors`` is E||eps - eps_hat||^2 / D at the levels ``LEVELS``."""
    model = images.train(images.build(output=OUTPUTS[name], seed=seed), steps, seed)
    test = data.halved(data.fashion_mnist()).test[:200]
    errors = images.noise_errors(model, LEVELS, test, torch.Generator().manual_seed(1)).mean(1)
    key = {"output": name, "seed": seed, "steps": steps}
    return key | images.bound(model) | {"errors": (errors / images.DIMS).tolist()}


def results() -> dict[str, Any]:
    """What the shipped file holds: ``about`` the run, and its ``rows``."""
    return runner.read(FILE)


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    cases = [("energy", 0, SHORT)]
    cases += [(name, seed, STEPS) for seed in images.SEEDS for name in OUTPUTS]
    runner.run(FILE, row, ("output", "seed", "steps"), cases)


if __name__ == "__main__":
    main()
