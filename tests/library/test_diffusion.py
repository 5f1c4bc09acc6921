"""The model end to end: unbiased estimates with exact denoisers, every output type, errors."""

import math

import pytest
import torch

from vdm_lite import elbo, exact, weighting
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, SCORE, VELOCITY, target
from vdm_lite.randomness import Source
from vdm_lite.schedules import Cosine, Linear, rate
from vdm_lite.times import low_discrepancy, uniform

F64 = torch.float64
TOY = exact.TWO_BUMPS
ENDS = Linear(10.0, -8.0)
POINTWISE = [IMAGE, NOISE, SCORE, VELOCITY, FLOW]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_model(p=IMAGE, schedule=ENDS) -> VariationalDiffusion:
    """The two-bump toy's best denoiser, speaking the language of ``p``."""

    def denoiser(z, logsnr):
        x_hat = TOY.denoise(z, logsnr)
        a, s = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
        a, s = (v.reshape(-1, *[1] * (z.ndim - 1)) for v in (a, s))
        return target(p, x_hat, (z - a * x_hat) / s, logsnr)

    return VariationalDiffusion(denoiser, schedule, p)


def assert_mean(draws: torch.Tensor, want: float) -> None:
    error = draws.std().item() / math.sqrt(len(draws))
    assert abs(draws.mean().item() - want) < 4 * error, (draws.mean().item(), want, error)


@pytest.mark.parametrize("schedule", [ENDS, Cosine(10.0, -8.0)])
def test_continuous_loss_is_unbiased(schedule):
    want = elbo.diffusion_from_mmse(TOY.mmse, schedule).item()
    x = TOY.sample(20_000, generator())
    assert_mean(exact_model(schedule=schedule).loss(x, times=uniform, generator=generator(1)), want)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_discrete_cost_is_unbiased(steps):
    want = elbo.diffusion_from_mmse(TOY.mmse, ENDS, steps).item()
    costs = exact_model().elbo(TOY.sample(20_000, generator()), steps, generator(1))
    assert_mean(costs.diffusion, want)


def test_prior_and_reconstruction_of_the_model():
    costs = exact_model().elbo(TOY.sample(20_000, generator()), 10, generator(1))
    second = (TOY.weights @ (TOY.means[:, 0] ** 2 + TOY.stds**2)).item()
    noisy = 1 / (1 + math.exp(8))  # alpha_1^2
    assert_mean(costs.prior, 0.5 * (noisy * second - math.log(1 - noisy) - noisy))
    assert_mean(costs.reconstruction, 0.5 * (1 + math.log(2 * math.pi) - 10))
    torch.testing.assert_close(costs.nelbo, sum(costs))


@pytest.mark.parametrize("p", POINTWISE, ids=lambda p: p.name)
def test_all_outputs_cost_the_same(p):
    """The determinant turns the error of any output into the same loss, example by example."""
    x = TOY.sample(64, generator())
    want = exact_model(IMAGE).loss(x, generator=generator(1))
    torch.testing.assert_close(exact_model(p).loss(x, generator=generator(1)), want)
    z, logsnr = torch.randn(8, 1, dtype=F64), torch.linspace(-5, 5, 8, dtype=F64)
    torch.testing.assert_close(exact_model(p).predict(z, logsnr).x, TOY.denoise(z, logsnr))


def test_weights_multiply_the_loss():
    x, model = TOY.sample(64, generator()), exact_model()
    t, _ = low_discrepancy(64, Source(generator(1), dtype=F64))
    plain = model.loss(x, times=low_discrepancy, generator=generator(1))
    weighted = model.loss(x, weighting.sigmoid(2.0), low_discrepancy, generator(1))
    torch.testing.assert_close(weighted, plain * weighting.sigmoid(2.0)(rate(ENDS, t)[0]))


def test_discrete_data_stay_above_their_entropy():
    toy = exact.EIGHT_LEVELS
    model = VariationalDiffusion(toy.denoise, parameterization=IMAGE, likelihood=Discretized(8))
    x = toy.sample(20_000, generator())
    costs = model.elbo(Discretized(8).decode(x), 10, generator(1))
    diffusion = elbo.diffusion_from_mmse(toy.mmse, Linear(), 10).item()
    assert_mean(costs.diffusion, diffusion)
    assert costs.nelbo.mean() > toy.entropy()


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 8, 8), (3, 3, 8, 12), (1, 5)])
def test_any_shape_gives_costs_per_example(shape):
    model = VariationalDiffusion(lambda z, logsnr: torch.zeros_like(z))
    x = torch.randn(shape)
    assert model.loss(x).shape == shape[:1]
    assert all(cost.shape == shape[:1] for steps in (None, 5) for cost in model.elbo(x, steps))


def test_only_the_denoiser_runs_in_low_precision():
    network = torch.nn.Linear(4, 4)
    model = VariationalDiffusion(lambda z, logsnr: network(z))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.ones(1, 4)).dtype == torch.bfloat16
        assert model.loss(torch.randn(8, 4)).dtype == torch.float32
        assert model.predict(torch.randn(8, 4), torch.zeros(8)).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda m: m.loss(torch.ones(2, 1).int()), "data"),
        (lambda m: m.loss(torch.full((2, 1), float("nan"))), "data"),
        (lambda m: m.loss(torch.empty(0, 1)), "data"),
        (lambda m: m.elbo(torch.ones(2, 1), steps=0), "steps"),
        (lambda m: m.elbo(torch.ones(2, 1), steps=2.5), "steps"),
        (lambda m: m.predict(torch.ones(2, 1).int(), torch.zeros(2)), "z"),
        (lambda m: m.predict(torch.ones(2, 1), torch.zeros(3)), "logsnr"),
        (lambda m: m.predict(torch.empty(0, 1), torch.zeros(0)), "z"),
        (lambda m: m.loss(torch.ones(2, 1), lambda lam: lam[:, None]), r"weighting\(logsnr\)"),
        (lambda m: m.loss(torch.ones(2, 1), lambda lam: 1.0), r"weighting\(logsnr\)"),
        (lambda m: m.loss(torch.ones(2, 1), lambda lam: -lam - 99), r"weighting\(logsnr\)"),
        (lambda m: m.loss(torch.ones(2, 1), lambda lam: lam * math.nan), r"weighting\(logsnr\)"),
        (lambda m: VariationalDiffusion(m.denoiser, 3.0), "schedule"),
        (lambda m: VariationalDiffusion(m.denoiser, lambda t: 3.0), r"schedule\(t\)"),
        (lambda m: VariationalDiffusion(m.denoiser, lambda t: -t[:5]), r"schedule\(t\)"),
        (lambda m: VariationalDiffusion(m.denoiser, lambda t: 5 * t), "schedule"),
        (lambda m: VariationalDiffusion(m.denoiser, lambda t: 1 / t), "schedule"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call(exact_model())


@pytest.mark.parametrize("logsnr", [torch.zeros(2), torch.full((3,), math.nan)])
def test_bad_levels_are_named_before_the_denoiser_sees_them(logsnr):
    model = VariationalDiffusion(lambda z, logsnr: pytest.fail("reached"))
    with pytest.raises(ValueError, match=r"^logsnr: expected .+, got .+"):
        model.predict(torch.ones(3, 1), logsnr)


def test_levels_take_the_precision_of_the_model():
    network = torch.nn.Linear(4, 4).double()

    class Denoiser(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, z, logsnr):
            return self.network(z)

    model = VariationalDiffusion(Denoiser(), likelihood=Discretized(9))
    data = torch.randint(0, 9, (3, 4))
    assert model.loss(data).dtype == model.elbo(data, 5).nelbo.dtype == F64


def test_a_denoiser_of_the_wrong_shape_is_named():
    model = VariationalDiffusion(lambda z, logsnr: z[:, 0])
    with pytest.raises(ValueError, match=r"^denoiser\(z, logsnr\): expected shape \(4, 2\), got"):
        model.loss(torch.ones(4, 2))
