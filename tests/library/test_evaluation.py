"""Bits/dim of a data set: exact models give known bounds, and the noise is fixed."""

import math

import pytest
import torch
from torch import nn

from vdm_lite import elbo, exact, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import IMAGE, NOISE
from vdm_lite.quadrature import normal
from vdm_lite.schedules import Cosine, Learned, Linear
from vdm_lite.training import evaluation
from vdm_lite.training.engine import Alone
from vdm_lite.training.evaluation import evaluate

TOY, CODEC = exact.EIGHT_LEVELS, Discretized(8)
ENDS = (4.0, -3.0)  # none of the three costs is negligible
BITS = 1 / math.log(2)


def exact_model(schedule=None) -> VariationalDiffusion:
    return VariationalDiffusion(TOY.denoise, schedule or Linear(*ENDS), IMAGE, CODEC)


def levels(n: int = 4000) -> torch.Tensor:
    """Data in their exact proportions, so that only times and noise are random, and shuffled."""
    counts = (TOY.weights * n).round().long()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return torch.arange(8).repeat_interleave(counts)[order, None]


def costs(schedule=None, steps=None) -> dict[str, float]:
    """The three costs of the exact model by sums and quadrature, in bits/dim."""
    x, weights = TOY.means, TOY.weights
    logsnr_0, logsnr_1 = torch.tensor(ENDS, dtype=torch.float64)
    nodes, node_weights = normal(91)
    z = torch.sigmoid(logsnr_0).sqrt() * x + torch.sigmoid(-logsnr_0).sqrt() * nodes  # (8, 91)
    data = torch.arange(8)[:, None].expand(z.shape)
    log_p = CODEC.log_prob(data.reshape(-1, 1), z.reshape(-1, 1), logsnr_0).reshape(z.shape)
    diffusion = elbo.diffusion_from_mmse(TOY.mmse, schedule or Linear(*ENDS), steps)
    return {
        "prior": BITS * (weights * elbo.prior(x, logsnr_1)).sum().item(),
        "reconstruction": -BITS * (weights * (log_p * node_weights).sum(1)).sum().item(),
        "diffusion": BITS * diffusion.item(),
    }


@pytest.mark.parametrize("steps", [None, 1, 10])
@pytest.mark.parametrize("schedule", [Linear(*ENDS), Cosine(*ENDS)])
def test_an_exact_model_gives_its_bound(schedule, steps):
    report = evaluate(exact_model(schedule), levels(), draws=4, steps=steps)
    wanted = costs(schedule, steps)
    assert report.bits_per_dim == pytest.approx(sum(wanted.values()), abs=4 * report.error)
    assert report.prior == pytest.approx(wanted["prior"], rel=1e-5)
    for name in ("reconstruction", "diffusion"):
        assert getattr(report, name) == pytest.approx(wanted[name], abs=4 * report.error), name
    assert report[2] + report[3] + report[4] == pytest.approx(report.bits_per_dim, rel=1e-5)
    assert (report.images, report.draws, report.steps) == (len(levels()), 4, steps)


def sixteen(z: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
    """The exact denoiser of 16 copies of the toy: costs differ by level more than by noise."""
    levels = logsnr.expand(len(z)).repeat_interleave(16)
    return TOY.denoise(z.reshape(-1, 1), levels).view_as(z)


@pytest.mark.parametrize(
    "options", [{}, {"steps": 3}, {"steps": 50, "draws": 2, "batch_size": 40}], ids=str
)
def test_the_error_is_the_spread_over_examples_times_and_noise(options):
    """Of 200 evaluations, each of examples of its own: the spread of their means is the error."""
    model, runs, many = VariationalDiffusion(sixteen, Linear(*ENDS), IMAGE, CODEC), 200, 120
    reports = []
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(TOY.weights, many * 16, replacement=True, generator=generator)
        reports.append(evaluate(model, drawn.view(many, 16), seed=seed, **options))
    spread = torch.tensor([r.bits_per_dim for r in reports]).std()
    error = torch.tensor([r.error for r in reports]).square().mean().sqrt()
    # The spread is known to 1 / sqrt(2 (runs - 1)) = 5 percent. One over the examples, which counts
    # the levels, is 1.4 to 2 times the error.
    assert 0.8 < error / spread < 1.2
    each = [r.bits_per_dim for r in reports]
    wanted = sum(costs(steps=options.get("steps")).values())
    assert sum(each) / runs == pytest.approx(wanted, abs=4 * spread.item() / math.sqrt(runs))


def test_the_numbers_are_those_computed_by_hand():
    """Batches 5 + 5 + 2, three draws; each batch has a generator of its own."""
    data, model = levels(100)[:12], exact_model()
    report = evaluate(model, data, draws=3, batch_size=5, seed=2, steps=7)
    rows = []
    for k, batch in enumerate(data.split(5)):
        generator = torch.Generator().manual_seed(2 * 1_000_003 + k)
        rows += torch.stack([model.elbo(batch, 7, generator).nelbo for _ in range(3)]).mean(0)
    each = BITS * torch.stack(rows)
    assert report.bits_per_dim == pytest.approx(each.mean().item(), rel=1e-5)
    error = each.diff().square().sum().div(2 * 11 * 12).sqrt().item()
    assert report.error == pytest.approx(error, rel=1e-5)


def test_bits_are_counted_for_each_dimension():
    zeros = torch.zeros(50, 2, 3, 4, dtype=torch.uint8)
    report = evaluate(VariationalDiffusion(lambda z, logsnr: 0 * z, likelihood=CODEC), zeros)
    assert report.prior == pytest.approx(
        BITS * elbo.prior(torch.tensor([[-7 / 8]]), torch.tensor(-5.0)).item(), rel=1e-5
    )


def test_continuous_time_is_estimated_on_the_linear_schedule():
    data = levels(100)
    straight = evaluate(exact_model(), data)
    for schedule in (Cosine(*ENDS), Learned(*ENDS)):
        assert evaluate(exact_model(schedule), data)[:5] == pytest.approx(straight[:5], rel=1e-4)
    discrete = evaluate(exact_model(), data, steps=3)
    assert evaluate(exact_model(Cosine(*ENDS)), data, steps=3).diffusion != discrete.diffusion


def test_the_noise_is_fixed():
    data = levels(100)[:40]
    reports = [evaluate(exact_model(), data, batch_size=16, seed=seed) for seed in (5, 5, 6)]
    torch.manual_seed(99)
    again = evaluate(exact_model(), data, batch_size=16, seed=5)
    assert reports[0] == reports[1] == again != reports[2]


class Rank(Alone):
    """One of several processes, which keeps what it would add to the others'."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.global_rank, self.world_size, self.is_global_zero = rank, ranks, rank == 0

    def all_reduce(self, tensor, reduce_op="mean"):
        assert reduce_op == "sum"
        self.given = tensor
        return tensor


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_processes_share_the_batches(ranks):
    """Three batches: every example is counted once, and none is computed twice."""
    calls = []

    def denoiser(z, logsnr):
        calls[-1] += 1
        return TOY.denoise(z, logsnr)

    model, given = VariationalDiffusion(denoiser, Linear(*ENDS), IMAGE, CODEC), []
    for engine in (alone := Rank(0, 1), *(Rank(rank, ranks) for rank in range(ranks))):
        calls.append(0)
        evaluate(model, levels(100)[:40], batch_size=16, fabric=engine)
        given.append(engine.given)
    assert torch.equal(sum(given[1:]), alone.given)
    assert calls[1:] == [len(range(rank, 3, ranks)) for rank in range(ranks)]


def test_the_model_is_left_as_it_is():
    network = nets.UNet(1, (8,))
    model = VariationalDiffusion(network, likelihood=Discretized(4)).train()
    data = torch.randint(4, (4, 1, 4, 4), dtype=torch.uint8)
    report = evaluate(model, data, progress=True)
    assert math.isfinite(report.bits_per_dim) and network.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_progress_is_shown_on_request(capsys):
    evaluate(exact_model(), levels(100)[:40])
    assert capsys.readouterr() == ("", "")
    evaluate(exact_model(), levels(100)[:40], progress=True)
    assert "batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(1, 1)}, "data: expected two examples or more, got 1"),
        ({"data": torch.full((2, 1), 8)}, "data: expected whole levels 0 to 7"),
        ({"draws": 0}, "draws: expected a whole number >= 1, got 0"),
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number >= 1, got 2.5"),
        ({"batch_size": 0}, "batch_size: expected a whole number >= 1, got 0"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{"model": exact_model(), "data": levels(100)[:40], **change})


def test_parameters_say_where_the_costs_are_computed():
    """A model without any takes the device of the data; one in float64 computes in float64."""

    class Zero(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, z, logsnr):
            assert z.dtype == torch.float64
            return self.w * z

    evaluation.evaluate(VariationalDiffusion(Zero(), Linear(*ENDS), NOISE, CODEC), levels(100)[:40])
