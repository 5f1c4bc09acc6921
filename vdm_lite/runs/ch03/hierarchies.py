"""Bottom-up against top-down inference on images: the long runs of chapter 3.

    python -m vdm_lite.runs.ch03.hierarchies

trains every kind of model, depth and seed on Fashion-MNIST at 14x14 and writes a row for each to
``hierarchies.json`` beside this file. An interrupted run of the same commit goes on where it
stopped; to start anew, move the file away. Less than an hour on four CPU cores (``--workers 3``).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm_lite import checks, data
from vdm_lite.elbo import bits_per_dim
from vdm_lite.hierarchy import BottomUp, Hierarchy, TopDown
from vdm_lite.nets import Rungs, flat_decoder, flat_encoder, perceptron
from vdm_lite.observation import DiscretizedLogistic
from vdm_lite.runs import runner
from vdm_lite.training import fit
from vdm_lite.vae import active_units

FILE = Path(__file__).with_suffix(".json")
SHAPE = (1, 14, 14)
SIZES = (64, 32, 16, 8, 4)  # units of z_1, z_2, …
KINDS = ("bottom-up", "top-down")
MODELS = [("bottom-up", 1), *((kind, n) for n in (2, 3, 5) for kind in KINDS)]
SEEDS = (0, 1, 2)
STEPS = 4000
WARMUP = 1500  # steps in which the weight of the KL costs rises from 0 to 1
BATCH = 128
SHORT = 30  # steps of a row that a test can run again


def build(kind: str, layers: int, seed: int = 0) -> Hierarchy:
    """A hierarchy of ``layers`` layers; ``kind`` is "bottom-up" or "top-down". One is a VAE."""
    checks.require(kind in KINDS, "kind", " or ".join(KINDS), kind)
    torch.manual_seed(seed)
    sizes, seen = SIZES[:layers], DiscretizedLogistic(256)
    pairs = [*zip(sizes[1:], sizes[:-1], strict=True)]  # (above, below)
    decoders = [flat_decoder(sizes[0], SHAPE, seen.parameters)]
    decoders += [perceptron(above, 2 * below) for above, below in pairs]
    if kind == "top-down":
        return TopDown(Rungs(SHAPE, sizes), decoders, seen, sizes)
    encoders = [flat_encoder(SHAPE, 2 * sizes[0])]
    encoders += [perceptron(below, 2 * above) for above, below in pairs]
    return BottomUp(encoders, decoders, seen, sizes)


def train(model: Hierarchy, images: Tensor, steps: int, seed: int) -> Hierarchy:
    """Train with a warm-up of the KL costs; return the model with averaged weights."""
    done, last = 0, None

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        return model.loss(batch, min(1.0, (done + 1) / WARMUP), generator)

    for last in fit(model, images, steps, BATCH, loss=loss, seed=seed, progress=False):
        done = last.step
    return last.averaged


@torch.no_grad()
def costs(model: Hierarchy, images: Tensor, k: int = 20) -> dict[str, Any]:
    """Costs on ``images``, averaged over ``k`` draws, in nats per image unless it says bits/dim."""
    generator = torch.Generator().manual_seed(0)
    draws = [model.elbo(images, generator) for _ in range(k)]
    nelbo = torch.stack([draw.nelbo for draw in draws]).mean()
    units = [model.unit_costs(images, generator) for _ in range(k)]
    layers = [torch.stack(each).mean(0) for each in zip(*units, strict=True)]  # (N, n_t)
    return {
        "bits_per_dim": bits_per_dim(nelbo, images[0].numel()).item(),
        "nelbo": nelbo.item(),
        f"importance_bound_{k}": model.importance_bound(images, k, generator).mean().item(),
        "reconstruction": torch.stack([draw.reconstruction for draw in draws]).mean().item(),
        "layer_costs": [layer.sum(1).mean().item() for layer in layers],
        "active_units": [active_units(layer) for layer in layers],
    }


def row(kind: str, layers: int, seed: int, steps: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    images = data.halved(data.fashion_mnist())
    model = train(build(kind, layers, seed), images.train, steps, seed)
    key = {"kind": kind, "layers": layers, "seed": seed, "steps": steps}
    return key | costs(model, images.test)


def results() -> dict[str, Any]:
    """What the shipped file holds: ``about`` the run, and its ``rows``."""
    return runner.read(FILE)


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    cases = [("top-down", 2, 0, SHORT)]
    cases += [(kind, layers, seed, STEPS) for seed in SEEDS for kind, layers in MODELS]
    runner.run(FILE, row, ("kind", "layers", "seed", "steps"), cases)


if __name__ == "__main__":
    main()
