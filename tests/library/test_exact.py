"""The exact distributions against quadrature, autograd and brute force."""

import math

import pytest
import torch

from vdm_lite import exact
from vdm_lite.exact import FiniteData, Gaussian, GaussianMixture
from vdm_lite.gaussian import alpha, diffuse, sigma

F64 = torch.float64


def mixture_2d() -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 2, generator=generator, dtype=F64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    return GaussianMixture(weights, means, torch.tensor([0.1, 0.2, 0.4, 0.5], dtype=F64))


TOYS = [exact.TWO_BUMPS, exact.EIGHT_LEVELS, mixture_2d()]


def test_density_integrates_to_one_and_has_the_right_mean():
    toy = mixture_2d()
    axis = torch.linspace(-6, 6, 401, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    mass = toy.log_prob(grid).exp() * (12 / 400) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(mass @ grid, toy.weights @ toy.means, atol=1e-6, rtol=1e-6)


def test_density_equals_torch_distributions():
    toy = mixture_2d()
    components = torch.distributions.Independent(
        torch.distributions.Normal(toy.means, toy.stds[:, None]), 1
    )
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(toy.weights), components
    )
    x = torch.randn(6, 2, dtype=F64)
    torch.testing.assert_close(toy.log_prob(x), mixture.log_prob(x))


@pytest.mark.parametrize("toy", TOYS)
def test_score_is_the_gradient_of_the_log_marginal(toy):
    z = torch.randn(9, *toy.event_shape, dtype=F64, requires_grad=True)
    logsnr = torch.linspace(-4, 4, 9, dtype=F64)
    (gradient,) = torch.autograd.grad(toy.log_marginal(z, logsnr).sum(), z)
    torch.testing.assert_close(toy.score(z, logsnr), gradient)
    torch.testing.assert_close(toy.energy(z, logsnr), -toy.log_marginal(z, logsnr))


@pytest.mark.parametrize("toy", TOYS)
def test_tweedie_ties_denoiser_and_score(toy):
    z, logsnr = torch.randn(9, *toy.event_shape, dtype=F64), torch.linspace(-4, 4, 9, dtype=F64)
    a, s = alpha(logsnr)[:, None], sigma(logsnr)[:, None]
    torch.testing.assert_close(toy.denoise(z, logsnr), (z + s**2 * toy.score(z, logsnr)) / a)


def test_denoiser_is_the_posterior_mean_by_brute_force():
    """Integrate x q(x) q(z|x) on a grid, for the mean and for the variance of x given z."""
    toy, logsnr = exact.TWO_BUMPS, torch.tensor(1.3, dtype=F64)
    x = torch.linspace(-3, 3, 6001, dtype=F64)
    z = torch.tensor([[-0.4], [0.1], [0.9]], dtype=F64)
    joint = toy.log_prob(x[:, None]) - 0.5 * ((z - alpha(logsnr) * x) / sigma(logsnr)) ** 2
    weight = joint.softmax(1)
    mean = weight @ x
    torch.testing.assert_close(toy.denoise(z, logsnr)[:, 0], mean)
    torch.testing.assert_close(toy.posterior_variance(z, logsnr), weight @ x**2 - mean**2)


def test_mmse_equals_brute_force_integration():
    toy, logsnr = exact.TWO_BUMPS, torch.tensor([-3.0, 0.0, 2.0, 6.0], dtype=F64)
    z = torch.linspace(-6, 6, 8001, dtype=F64)[:, None]
    for level, got in zip(logsnr, toy.mmse(logsnr), strict=True):
        density = toy.log_marginal(z, level).exp()
        want = torch.trapezoid(density * toy.posterior_variance(z, level), z[:, 0])
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("toy", [exact.TWO_BUMPS, exact.EIGHT_LEVELS])
def test_fourth_moment_equals_monte_carlo(toy):
    generator = torch.Generator().manual_seed(0)
    x = toy.sample(200_000, generator)
    eps = torch.randn(x.shape, generator=generator, dtype=F64)
    for level in torch.tensor([-2.0, 1.0, 4.0], dtype=F64):
        fourth = (x - toy.denoise(diffuse(x, level, eps), level))[:, 0] ** 4
        error = fourth.std() / math.sqrt(len(x))
        assert abs(fourth.mean() - toy.fourth_moment(level)) < 4 * error


def test_fourth_moment_of_a_gaussian_is_three_variances_squared():
    data, logsnr = Gaussian(torch.zeros(1, dtype=F64), 1.3), torch.linspace(-6, 6, 7, dtype=F64)
    torch.testing.assert_close(data.fourth_moment(logsnr), 3 * data.mmse(logsnr) ** 2)


@pytest.mark.parametrize("logsnr", [-1.0, 3.0])
def test_monte_carlo_mmse_agrees_with_quadrature(logsnr):
    level = torch.tensor(logsnr, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    mean, error = exact.TWO_BUMPS.mmse_monte_carlo(level, 20000, generator)
    assert abs(mean - exact.TWO_BUMPS.mmse(level[None])[0]) < 4 * error


def test_gaussian_mmse_in_any_dimension():
    data = Gaussian(torch.zeros(2, 3, dtype=F64), 1.3)
    logsnr = torch.linspace(-6, 6, 7, dtype=F64)
    torch.testing.assert_close(data.mmse(logsnr), 6 * 1.69 / (1 + 1.69 * logsnr.exp()))


def test_mmse_takes_one_level_and_ignores_autocast():
    for toy in (exact.TWO_BUMPS, Gaussian(torch.zeros(3, dtype=F64), 0.5)):
        level = torch.tensor(2.0)
        torch.testing.assert_close(toy.mmse(level), toy.mmse(level[None])[0])
        with torch.autocast("cpu", torch.bfloat16):
            assert toy.mmse(level).dtype == torch.float32


def test_data_may_be_plain_numbers():
    """Examples of shape (), so that a batch is (B,)."""
    plain, column = FiniteData(torch.tensor([0.0, 1.0])), FiniteData(torch.tensor([[0.0], [1.0]]))
    z, logsnr = torch.randn(5), torch.linspace(-3, 3, 5)
    torch.testing.assert_close(plain.denoise(z, logsnr), column.denoise(z[:, None], logsnr)[:, 0])
    torch.testing.assert_close(plain.mmse(logsnr), column.mmse(logsnr))


def test_finite_data_denoise_to_the_nearest_point_at_low_noise():
    points = torch.randn(5, 1, 3, 3, dtype=F64)
    data = FiniteData(points)
    z = diffuse(points, torch.tensor(8.0, dtype=F64), torch.randn(points.shape, dtype=F64))
    torch.testing.assert_close(data.denoise(z, torch.tensor(8.0, dtype=F64)), points)


def test_entropies():
    assert exact.EIGHT_LEVELS.entropy().item() == pytest.approx(1.62685, abs=5e-6)
    one = GaussianMixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.3]], [0.7])))
    want = 0.5 * math.log(2 * math.pi * math.e * 0.49)
    assert one.entropy().item() == pytest.approx(want, abs=1e-12)
    x = exact.TWO_BUMPS.sample(100_000, torch.Generator().manual_seed(0))
    cost = -exact.TWO_BUMPS.log_prob(x)
    assert abs(cost.mean() - exact.TWO_BUMPS.entropy()) < 4 * cost.std() / math.sqrt(1e5)


def test_samples_have_the_right_moments():
    toy = mixture_2d()
    x = toy.sample(50_000, torch.Generator().manual_seed(0))
    mean = toy.weights @ toy.means
    second = toy.weights @ (toy.means**2 + toy.stds[:, None] ** 2)
    assert ((x.mean(0) - mean).abs() < 4 * x.std(0) / math.sqrt(50_000)).all()
    assert ((x.square().mean(0) - second).abs() < 4 * x.square().std(0) / math.sqrt(50_000)).all()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: GaussianMixture(torch.ones(2), torch.ones(2, 1), torch.ones(2)), "weights"),
        (lambda: GaussianMixture(torch.ones(1), torch.ones(2, 1), torch.ones(2)), "weights"),
        (lambda: GaussianMixture(torch.ones(1), torch.ones(1, 1), -torch.ones(1)), "stds"),
        (lambda: GaussianMixture(torch.ones(1), torch.ones(1, 1).int(), torch.ones(1)), "means"),
        (lambda: FiniteData(torch.empty(0, 2)), "points"),
        (lambda: FiniteData([1.0, 2.0]), "points"),
        (lambda: Gaussian(0.0, 1.0), "mean"),
        (lambda: exact.EIGHT_LEVELS.log_prob(torch.zeros(1, 1)), "stds"),
        (lambda: exact.TWO_BUMPS.denoise(torch.zeros(3, 2), torch.zeros(3)), "z"),
        (lambda: exact.TWO_BUMPS.denoise(torch.zeros(3, 1).int(), torch.zeros(3)), "z"),
        (lambda: exact.TWO_BUMPS.denoise(torch.zeros(0, 1), torch.zeros(0)), "z"),
        (lambda: exact.TWO_BUMPS.denoise(torch.zeros(3, 1), torch.zeros(2)), "logsnr"),
        (lambda: mixture_2d().mmse(torch.zeros(1)), "mmse"),
        (lambda: mixture_2d().fourth_moment(torch.zeros(1)), "fourth_moment"),
        (lambda: mixture_2d().entropy(), "entropy"),
        (lambda: exact.TWO_BUMPS.sample(0), "n"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
