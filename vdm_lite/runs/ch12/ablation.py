"""Fourier features and learned end points, each with and without: the long runs of chapter 12.

    python -m vdm_lite.runs.ch12.ablation --workers 1

trains one small U-Net on the bundled Fashion-MNIST at 28x28 for each case and seed, and writes a
row for each to ``ablation.json`` beside this file. An interrupted run of the same commit goes on
where it stopped. An hour on one CPU core.

Kingma et al. (2021) report that the two together make the difference for the bound. Here the ends
of a schedule that is linear in log SNR stay where they start, or are learned: from where the betas
of Ho et al. (2020) have them, and from where this book does. All models are trained on the same
three terms; those of one seed see the same images, times and noise.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm_lite import data, elbo, exact, gaussian, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import NOISE
from vdm_lite.runs import runner
from vdm_lite.runs.images import COSTS
from vdm_lite.schedules import ends as ends_of
from vdm_lite.training import fit
from vdm_lite.training.evaluation import evaluate

FILE = Path(__file__).with_suffix(".json")
CONTROL = FILE.with_name("ablation_control.json")
EXPONENTS = {"without": (), "with": (6, 7)}
# log SNR before the first and after the last of 1000 betas from 1e-4 to 0.02 (Ho et al. 2020).
STARTS = {"Ho": (9.21, -10.12), "book": (13.3, -5.0)}
FOUND = {"found": (12.0, -5.0)}  # where learned ends went, and they stand in `ablation_control`
ENDS = ("fixed", "learned")
SEEDS = (0, 1, 2)
# The learned ends from the book's start have one seed: they show whether the start matters.
CASES = tuple(
    (fourier, start, ends, seed)
    for seed, start, ends, fourier in itertools.product(SEEDS, STARTS, ENDS, EXPONENTS)
    if (start, ends) != ("book", "learned") or seed == 0
)
KEYS = ("fourier", "start", "ends", "seed", "steps")  # of a row
STEPS = 1500
SHORT = 10  # steps of a row that a test can run again
BATCH = 16
RATE = 2e-3
SPEED = 50.0  # of the ends, see `Line`
HELD_OUT = 1000  # the last images for training are not trained on: the rows are about them
EVERY = 100  # steps from one entry of a row's path to the next
LAST = 200  # steps whose mean loss stands in the row


class Line(nn.Module):
    """A schedule linear in log SNR whose two ends may be learned.

    Adam moves a number by about its rate in a step, whatever its gradient: too little for ends that
    have units to go. So an end is ``start + SPEED p``, and ``p`` is what is learned. Its gradient
    is made a thousandth: the ends shall not count in the norm to which gradients are clipped, or
    the network would train differently where they are learned. Adam does not mind.
    """

    def __init__(self, logsnr_max: float, logsnr_min: float, learn: bool) -> None:
        super().__init__()
        self.start = (logsnr_max, logsnr_min)
        self.max = nn.Parameter(torch.zeros(()), requires_grad=learn)
        self.min = nn.Parameter(torch.zeros(()), requires_grad=learn)

    def forward(self, t: Tensor) -> Tensor:
        """Log SNR at times ``t``, same shape."""
        first, last = self.start[0] + _fast(self.max), self.start[1] + _fast(self.min)
        return (1 - t) * first + t * last


def _fast(p: Tensor) -> Tensor:
    return SPEED * p.detach() + 1e-3 * (p - p.detach())


def build(fourier: str, start: str, ends: str, seed: int) -> VariationalDiffusion:
    """The model of one case: a U-Net of 115,000 weights around its line."""
    torch.manual_seed(seed)
    network = nets.UNet(1, (16, 32, 32), exponents=EXPONENTS[fourier])
    line = Line(*(STARTS | FOUND)[start], learn=ends == "learned")
    return VariationalDiffusion(network, line, NOISE, Discretized(256))


def bound(model: VariationalDiffusion, batch: Tensor, generator: torch.Generator) -> Tensor:
    """-ELBO in nats, (B,). Only the diffusion term is drawn: the other two have closed forms."""
    logsnr_0, logsnr_1 = model.schedule(torch.tensor([0.0, 1.0]))
    prior = elbo.prior(model.likelihood.encode(batch), logsnr_1)
    reconstruction = naming_cost(logsnr_0)[batch.long()].flatten(1).sum(1)
    return prior + reconstruction + model.loss(batch, generator=generator)


def naming_cost(logsnr_0: Tensor) -> Tensor:
    """``E[-ln p(k | z_0)]`` for each of the 256 levels k, in nats, by quadrature: (256,)."""
    nodes, weights = (n.float() for n in exact.normal_quadrature(15, width=4.5))
    levels, likelihood = torch.arange(128).repeat_interleave(15)[:, None], Discretized(256)
    z_0 = gaussian.diffuse(likelihood.encode(levels), logsnr_0, nodes.repeat(128)[:, None])
    dark = -likelihood.log_prob(levels, z_0, logsnr_0).reshape(128, 15) @ weights
    return torch.cat([dark, dark.flip(0)])  # bright levels cost what dark ones do


def row(fourier: str, start: str, ends: str, seed: int, steps: int) -> dict[str, Any]:
    """Train, and evaluate on the images held out, in bits/dim.

    ``path`` are the ends (logsnr_max, logsnr_min) every ``EVERY`` steps, and ``moved`` how far each
    still went in the last fifth of them. ``loss`` is the mean of the last ``LAST`` training losses.
    """
    model, images = build(fourier, start, ends, seed), data.fashion_mnist().train
    options = {"decay": steps // 3, "seed": seed, "loss": partial(bound, model), "progress": False}
    path, losses = [_ends(model)], []
    for last in fit(model, images[:-HELD_OUT], steps, BATCH, RATE, **options):
        losses.append(last.loss)
        if last.step % EVERY == 0:
            path.append(_ends(model))
    late = torch.tensor(path[-1 - len(path) // 5 :])
    logsnr_min, logsnr_max = ends_of(last.averaged.schedule)
    report = evaluate(last.averaged, images[-HELD_OUT:], draws=2)._asdict()
    key = dict(zip(KEYS, (fourier, start, ends, seed, steps), strict=True))
    found = {"logsnr_max": logsnr_max, "logsnr_min": logsnr_min, "path": path}
    found |= {"moved": (late.amax(0) - late.amin(0)).tolist()}
    found |= {"loss": bits_per_dim(torch.tensor(losses[-LAST:]).mean(), 28 * 28).item()}
    return key | {name: report[name] for name in COSTS} | found


def _ends(model: VariationalDiffusion) -> list[float]:
    return [*reversed(ends_of(model.schedule))]  # logsnr_max first


def results(file: Path = FILE) -> dict[str, Any]:
    """What a shipped file holds: ``about`` the run, and its ``rows``."""
    return runner.read(file)


def rows(steps: int = STEPS, file: Path = FILE) -> list[dict[str, Any]]:
    """The rows of a shipped file with so many updates."""
    return [row for row in results(file)["rows"] if row["steps"] == steps]


def column(fourier: str, start: str, ends: str, name: str) -> Tensor:
    """Entry ``name`` of the rows of one case: (seeds,), or (seeds, entries, 2) for ``path``."""
    case = (fourier, start, ends)
    file = CONTROL if start in FOUND else FILE
    found = [r for r in rows(file=file) if (r["fourier"], r["start"], r["ends"]) == case]
    return torch.tensor([r[name] for r in found])  # the runner keeps the order of `CASES`


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    cases = [("with", "Ho", "learned", 0, SHORT)]
    cases += [(*case, STEPS) for case in CASES]
    runner.run(FILE, row, KEYS, cases)


if __name__ == "__main__":
    main()
