"""Chapter 6, infinite depth: one test for each labeled equation, in float64, and the exercises."""

import math
from collections.abc import Callable

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, likelihood, parameterization, times
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import diffusion_from_mmse
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS
from vdm_lite.figures import ch06_infinite_depth as ch06
from vdm_lite.schedules import Cosine, FlowMatching, Linear

FLOAT = torch.float64
TAU2 = 2.5
GAUSSIAN = exact.Gaussian(torch.zeros(1, dtype=FLOAT), math.sqrt(TAU2))
LINE, WIDE = Linear(6.0, -6.0), Linear(10.0, -8.0)
TOYS = {"Gaussian": GAUSSIAN, "two bumps": TWO_BUMPS, "8 levels": EIGHT_LEVELS}
every_toy = pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
every_schedule = pytest.mark.parametrize(
    "kind", [Linear, Cosine, FlowMatching], ids=lambda kind: kind.__name__
)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=FLOAT)


def gaussian_mmse(v: Tensor) -> Tensor:
    return TAU2 / (1 + TAU2 * v)


def nodes(count: int = 161, width: float = 9.0) -> tuple[Tensor, Tensor]:
    """The trapezoid rule for N(0, 1), written out here."""
    points = torch.linspace(-width, width, count, dtype=FLOAT)
    weights = torch.exp(-0.5 * points**2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    return points, weights


def moments(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma^2, from the definition of the log SNR and alpha^2 + sigma^2 = 1 alone."""
    snr = logsnr.exp()
    return (snr / (1 + snr)).sqrt(), 1 / (1 + snr)


def log_mixture(z: Tensor, weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Log density of a one-dimensional mixture at z (...), written out here."""
    distance = (z[..., None] - means) ** 2 / variances
    terms = weights.log() - 0.5 * (distance + torch.log(2 * math.pi * variances))
    return terms.logsumexp(-1)


def mixture_entropy(weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    points, node_weights = nodes()
    z = means[:, None] + variances.sqrt()[:, None] * points
    return -(weights @ (log_mixture(z, weights, means, variances) @ node_weights))


def marginal(toy: exact.GaussianMixture, logsnr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances of q(z_t), from the definition."""
    alpha, var = moments(logsnr)
    return toy.weights, alpha * toy.means.flatten(), alpha**2 * toy.stds**2 + var


def information(toy: exact.GaussianMixture, logsnr: Tensor) -> Tensor:
    noise = 0.5 * torch.log(2 * math.pi * math.e * moments(logsnr)[1])
    return mixture_entropy(*marginal(toy, logsnr)) - noise


def mismatch(toy: exact.GaussianMixture, logsnr: Tensor) -> Tensor:
    """KL(q(z_1) || N(0, 1))."""
    weights, means, variances = marginal(toy, logsnr)
    square = weights @ (means**2 + variances)
    entropy = mixture_entropy(weights, means, variances)
    return 0.5 * (math.log(2 * math.pi) + square) - entropy


def mean_prior(toy: exact.GaussianMixture, logsnr: Tensor) -> Tensor:
    points, node_weights = nodes()
    x = (toy.means + toy.stds[:, None] * points).reshape(-1, 1)
    cost = elbo.prior(x, logsnr).reshape(len(toy.weights), -1)
    return toy.weights @ (cost @ node_weights)


def wrong_error(logsnr: Tensor) -> Tensor:
    """Error on Gaussian data of a denoiser that believes x = +3 or -3: x_hat = 3 tanh(3 a z/s2)."""
    points, node_weights = nodes()
    (alpha, var), x = (part[:, None] for part in moments(logsnr)), math.sqrt(TAU2)
    z = (alpha**2 * TAU2 + var).sqrt() * points
    best, believed = alpha * TAU2 / (alpha**2 * TAU2 + var) * z, 3 * torch.tanh(3 * alpha * z / var)
    return x**2 / (1 + TAU2 * logsnr.exp()) + (best - believed) ** 2 @ node_weights


@pytest.mark.equation("eq-riemann-sum")
@every_schedule
@pytest.mark.parametrize("steps", [1, 4, 37])
def test_the_diffusion_cost_is_half_the_area_of_rectangles(kind, steps):
    schedule = kind(2.0, -4.0)
    v = [schedule(level(i / steps)).exp().item() for i in range(steps + 1)]
    area = sum((v[i - 1] - v[i]) * TAU2 / (1 + TAU2 * v[i]) for i in range(1, steps + 1))
    assert_close(diffusion_from_mmse(GAUSSIAN.mmse, schedule, steps), level(area / 2))


@pytest.mark.equation("eq-gaussian-mmse")
def test_gaussian_mmse_is_the_error_of_the_denoiser():
    logsnr = torch.linspace(-6, 6, 25, dtype=FLOAT)
    assert_close(GAUSSIAN.mmse(logsnr), gaussian_mmse(logsnr.exp()))
    x, weight_x = nodes()
    for lam in real(-3.0, 0.5, 4.0):
        alpha, var = moments(lam)
        z = alpha * math.sqrt(TAU2) * x[:, None] + var.sqrt() * x
        x_hat = GAUSSIAN.denoise(z.reshape(-1, 1), lam).view(z.shape)
        error = weight_x @ (math.sqrt(TAU2) * x[:, None] - x_hat) ** 2 @ weight_x
        assert_close(error, gaussian_mmse(lam.exp()))


@pytest.mark.equation("eq-doubling")
@every_schedule
@pytest.mark.parametrize("error", [GAUSSIAN.mmse, TWO_BUMPS.mmse, wrong_error])
def test_what_doubling_the_layers_gains(kind, error):
    schedule, steps = kind(3.0, -5.0), 6
    gain = level(0.0)
    for i in range(1, steps + 1):
        clean, middle, noisy = schedule(real((i - 1) / steps, (i - 0.5) / steps, i / steps))
        heights = error(torch.stack([noisy, middle]))
        gain += 0.5 * (clean.exp() - middle.exp()) * (heights[0] - heights[1])
    once, twice = (diffusion_from_mmse(error, schedule, n) for n in (steps, 2 * steps))
    assert_close(once - twice, gain, rtol=1e-9, atol=1e-12)


def test_a_growing_error_turns_the_inequality_round():
    rising = Linear(0.0, -6.0)
    costs = [diffusion_from_mmse(wrong_error, rising, 2**k).item() for k in range(8)]
    assert costs == sorted(costs) and costs[-1] < diffusion_from_mmse(wrong_error, rising)
    falling = [diffusion_from_mmse(GAUSSIAN.mmse, rising, 2**k).item() for k in range(8)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.equation("eq-mmse-falls")
@every_toy
def test_the_mmse_falls_with_the_signal_to_noise_ratio(toy):
    logsnr = torch.linspace(-8, 10, 181, dtype=FLOAT)
    error = toy.mmse(logsnr)
    points, node_weights = nodes()
    x = toy.means + toy.stds[:, None] * points  # (K, nodes)
    variance = toy.weights @ ((x**2) @ node_weights) - (toy.weights @ (x @ node_weights)) ** 2
    assert (error.diff() < 1e-12).all()
    assert_close(toy.mmse(real(-30.0)).squeeze(), variance, rtol=1e-6, atol=0)  # knows the mean
    assert 0 <= error[-1] <= math.exp(-10)  # no worse than z / alpha, whose error is 1 / SNR


@pytest.mark.equation("eq-continuous-snr")
@every_toy
@every_schedule
def test_the_limit_is_half_the_area_under_the_curve(toy, kind):
    v = torch.linspace(math.exp(-5), math.exp(3), 3001, dtype=FLOAT)
    area = torch.trapezoid(toy.mmse(v.log()), v) / 2
    assert_close(diffusion_from_mmse(toy.mmse, kind(3.0, -5.0)), area, rtol=2e-5, atol=0)
    deep = diffusion_from_mmse(toy.mmse, kind(3.0, -5.0), 512)
    assert area < deep < area * 1.05


@pytest.mark.equation("eq-gaussian-limit")
@every_schedule
@pytest.mark.parametrize("ends", [(6.0, -6.0), (13.3, -5.0), (1.0, -2.0)])
def test_gaussian_data_have_a_closed_form(kind, ends):
    high, low = (1 + TAU2 * math.exp(end) for end in ends)
    limit = diffusion_from_mmse(GAUSSIAN.mmse, kind(*ends))
    assert abs(limit - 0.5 * math.log(high / low)) < 1e-6


def rate_integral(error: Callable[[Tensor], Tensor], schedule: Linear, points: int = 2001):
    """1/4 of the integral of (-de/dv) |dv/dt| dv, for a linear schedule."""
    high, low = schedule.logsnr_max, schedule.logsnr_min
    grid = torch.linspace(low, high, points, dtype=FLOAT, requires_grad=True)
    (slope,) = torch.autograd.grad(error(grid).sum(), grid)
    v = grid.detach().exp()
    integrand = (-slope / v) * ((high - low) * v) * v  # the last v is dv / dlambda
    return 0.25 * torch.trapezoid(integrand, grid.detach())


@pytest.mark.equation("eq-rate")
@pytest.mark.parametrize(
    ("toy", "schedule", "printed"), [(TWO_BUMPS, WIDE, 29.68), (GAUSSIAN, LINE, 17.755)]
)
def test_the_gap_falls_like_one_over_depth(toy, schedule, printed):
    rate = rate_integral(toy.mmse, schedule)
    assert abs(rate - printed) < 0.005
    limit = diffusion_from_mmse(toy.mmse, schedule)
    scaled = [n * (diffusion_from_mmse(toy.mmse, schedule, n) - limit) for n in (512, 1024, 2048)]
    rest = [(gap - rate).item() for gap in scaled]  # O(1/T): halves with each doubling
    assert rest[0] / rest[1] == pytest.approx(2, rel=0.02)
    assert rest[1] / rest[2] == pytest.approx(2, rel=0.02)


@pytest.mark.equation("eq-gaussian-rate")
def test_gaussian_rate_in_closed_form():
    u = [1 + TAU2 * math.exp(end) for end in (6, -6)]
    rate = 12 / 4 * (math.log(u[0]) + 1 / u[0] - math.log(u[1]) - 1 / u[1])
    limit = diffusion_from_mmse(GAUSSIAN.mmse, LINE)
    scaled = {n: n * (diffusion_from_mmse(GAUSSIAN.mmse, LINE, n) - limit) for n in (1280, 20_480)}
    assert abs(rate - 17.755) < 5e-4
    assert abs(scaled[1280] - 17.806) < 1e-3
    assert abs(scaled[20_480] - rate) < 5e-3


@pytest.mark.equation("eq-continuous-logsnr")
def test_the_noise_error_has_no_weight_over_log_snr():
    points, node_weights = nodes(121)
    x = (TWO_BUMPS.means + TWO_BUMPS.stds[:, None] * points).reshape(-1, 1)
    share = (TWO_BUMPS.weights[:, None] * node_weights).flatten()
    grid = torch.linspace(-8, 10, 145, dtype=FLOAT)
    errors = []
    for lam in grid:
        z = gaussian.diffuse(x.expand(-1, 121), lam, points.expand(len(x), -1))
        x_hat = TWO_BUMPS.denoise(z.reshape(-1, 1), lam)
        row = parameterization.IMAGE
        eps_hat = parameterization.solve(row, x_hat, z.reshape(-1, 1), lam).eps.view(z.shape)
        errors.append(share @ (points - eps_hat) ** 2 @ node_weights)
    area = 0.5 * torch.trapezoid(torch.stack(errors), grid)
    assert_close(area, diffusion_from_mmse(TWO_BUMPS.mmse, WIDE), rtol=1e-4, atol=0)


@pytest.mark.equation("eq-continuous-loss")
@every_schedule
@pytest.mark.parametrize("sampler", [times.uniform, times.low_discrepancy])
def test_the_one_sample_loss_is_unbiased(kind, sampler):
    schedule, generator = kind(6.0, -6.0), torch.Generator().manual_seed(6)
    model = VariationalDiffusion(GAUSSIAN.denoise, schedule, parameterization.IMAGE)
    batches = [GAUSSIAN.sample(2_000, generator) for _ in range(60)]
    means = [model.loss(x, times=sampler, generator=generator).mean() for x in batches]
    error_bar = 4 * torch.stack(means).std() / math.sqrt(len(means))
    exact_cost = 0.5 * math.log((1 + TAU2 * math.exp(6)) / (1 + TAU2 * math.exp(-6)))
    assert abs(torch.stack(means).mean() - exact_cost) < error_bar < 0.15
    t = torch.linspace(0, 1, 8001, dtype=FLOAT)
    logsnr = schedule(t)
    noise_error = TAU2 * logsnr.exp() / (1 + TAU2 * logsnr.exp())
    gamma_rate = torch.gradient(-logsnr, spacing=1 / 8000)[0]
    over_time = torch.trapezoid(0.5 * gamma_rate * noise_error, t)
    assert_close(over_time, level(exact_cost), rtol=0.02, atol=0)


def step_price(toy: exact.GaussianMixture, logsnr_s: Tensor, logsnr_t: Tensor) -> Tensor:
    """E KL(q(z_s | z_t) || p(z_s | z_t)) with the exact denoiser, by a double sum."""
    points, node_weights = nodes()
    count = len(points)
    at_s, at_t = marginal(toy, logsnr_s), marginal(toy, logsnr_t)
    (alpha_s, var_s), (alpha_t, var_t) = moments(logsnr_s), moments(logsnr_t)
    ratio = alpha_t / alpha_s
    var_ts = var_t - ratio**2 * var_s
    z_s = at_s[1][:, None, None] + at_s[2].sqrt()[:, None, None] * points[:, None]
    z_t = ratio * z_s + var_ts.sqrt() * points
    z_s = z_s.expand_as(z_t)
    p = gaussian.posterior(
        z_t.reshape(-1, 1), toy.denoise(z_t.reshape(-1, 1), logsnr_t), logsnr_s, logsnr_t
    )
    one = real(1.0)
    forth = log_mixture(z_t - ratio * z_s, one, 0 * one, var_ts * one)
    log_q = forth + log_mixture(z_s, *at_s) - log_mixture(z_t, *at_t)
    log_p = log_mixture(z_s - p.mean.view(z_s.shape), one, 0 * one, p.var * one)
    return toy.weights @ ((log_q - log_p).view(-1, count, count) @ node_weights @ node_weights)


@pytest.mark.equation("eq-layer-information")
@pytest.mark.parametrize("toy", [TWO_BUMPS, GAUSSIAN], ids=["two bumps", "Gaussian"])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_layer_costs_information_and_the_price_of_its_shape(toy, steps):
    few = Linear(3.0, -3.0)
    ends = few(torch.linspace(0, 1, steps + 1, dtype=FLOAT))
    price = sum(step_price(toy, ends[i], ends[i + 1]) for i in range(steps))
    gained = information(toy, ends[0]) - information(toy, ends[-1])
    assert price > 0
    total = diffusion_from_mmse(toy.mmse, few, steps)
    assert_close(gained + price, total, rtol=1e-6, atol=0)


@pytest.mark.equation("eq-i-mmse")
@every_toy
@pytest.mark.parametrize("ends", [(10.0, -8.0), (13.3, -5.0), (1.0, -1.0)])
def test_the_limit_is_mutual_information(toy, ends):
    gained = information(toy, level(ends[0])) - information(toy, level(ends[1]))
    assert_close(diffusion_from_mmse(toy.mmse, Linear(*ends)), gained, rtol=1e-8, atol=0)


@pytest.mark.equation("eq-floor")
@pytest.mark.parametrize("ends", [(10.0, -8.0), (5.0, -2.0), (3.0, 0.0)])
def test_the_floor_in_continuous_time(ends):
    toy, (logsnr_0, logsnr_1) = TWO_BUMPS, real(*ends)
    points, node_weights = nodes()
    noise = points[:, None]
    x = torch.full_like(noise, 0.7)
    z_0 = gaussian.diffuse(x, logsnr_0, noise)
    log_p = likelihood.Gaussian().log_prob(x, z_0, logsnr_0)  # the same for every x
    truth = mixture_entropy(toy.weights, toy.means.flatten(), toy.stds**2)
    cost = mean_prior(toy, logsnr_1) - log_p @ node_weights
    gap = cost + diffusion_from_mmse(toy.mmse, Linear(*ends)) - truth
    blurred = toy.stds**2 + math.exp(-ends[0])
    blur = mixture_entropy(toy.weights, toy.means.flatten(), blurred) - truth
    assert_close(toy.entropy(), truth)
    assert_close(gap, blur + mismatch(toy, logsnr_1), rtol=1e-6, atol=1e-9)
    if ends == (10.0, -8.0):
        assert f"{gap:.5f}" == "0.00101"


def test_the_table_of_the_gap_goes_on_to_infinity():
    x_rms = math.sqrt(1 + 0.15**2)
    ends = elbo.prior(real(x_rms)[None], level(-8.0)) + 0.5 * (math.log(2 * math.pi * math.e) - 10)
    printed = {100: "0.3150", 1000: "0.0309", 10_000: "0.0040"}
    for steps, text in printed.items():
        gap = ends + diffusion_from_mmse(TWO_BUMPS.mmse, WIDE, steps) - TWO_BUMPS.entropy()
        assert f"{gap.item():.4f}" == text


@pytest.mark.equation("eq-discrete-floor")
@pytest.mark.parametrize("ends", [(13.3, -5.0), (4.0, -5.0), (3.0, -1.0)])
def test_discrete_data_reach_their_entropy(ends):
    toy, (logsnr_0, logsnr_1) = EIGHT_LEVELS, real(*ends)
    points, node_weights = nodes(321)  # finer: log p(k | z_0) bends between two levels
    alpha, var = moments(logsnr_0)
    z_0 = alpha * toy.means + var.sqrt() * points  # (8, nodes)
    logits = -0.5 * (z_0[..., None] - alpha * toy.means.flatten()) ** 2 / var  # (8, nodes, 8)
    log_q = (logits + toy.weights.log()).log_softmax(-1)  # Bayes with the true prior
    log_p = logits.log_softmax(-1)  # Bayes with the even prior of the likelihood
    inner = (log_q.exp() * (log_q - log_p)).sum(-1)
    excess = toy.weights @ (inner @ node_weights)
    k = torch.arange(8).repeat_interleave(len(points))[:, None]
    own = likelihood.Discretized(8).log_prob(k, z_0.reshape(-1, 1), logsnr_0).view(8, -1)
    reconstruction = -toy.weights @ (own @ node_weights)
    nelbo = (
        mean_prior(toy, logsnr_1) + reconstruction + diffusion_from_mmse(toy.mmse, Linear(*ends))
    )
    entropy = -(toy.weights * toy.weights.log()).sum()
    assert_close(nelbo, entropy + excess + mismatch(toy, logsnr_1), rtol=1e-8, atol=0)


class TestExercises:
    """The numbers in the solutions."""

    limit = diffusion_from_mmse(GAUSSIAN.mmse, LINE).item()

    def test_a_constant_error_costs_the_same_at_every_depth(self):
        for steps in (1, 2, 50, None):
            cost = diffusion_from_mmse(lambda logsnr: TAU2 + 0 * logsnr, LINE, steps)
            assert cost.item() == pytest.approx(504.3, abs=0.05)
        assert self.limit == pytest.approx(3.4556, abs=5e-5)

    def test_for_one_image_more_layers_may_cost_more(self):
        """At x = 0, with the exact denoiser: the theorem is about the average over the data."""
        rising, (points, node_weights) = Linear(0.0, -6.0), nodes()

        def error(logsnr: Tensor) -> Tensor:
            """Of the one image x = 0, by a sum over the noise."""
            sums = []
            for lam in logsnr.flatten():
                z = moments(lam)[1].sqrt() * points[:, None]
                sums.append(node_weights @ GAUSSIAN.denoise(z, lam).square()[:, 0])
            return torch.stack(sums).view(logsnr.shape)

        v = torch.tensor([0.05, 0.2, 0.4, 3.0], dtype=FLOAT)
        assert_close(error(v.log()), TAU2**2 * v / (1 + TAU2 * v) ** 2)
        costs = [diffusion_from_mmse(error, rising, 2**k).item() for k in range(4)]
        assert costs == sorted(costs)
        assert [f"{cost:.3f}" for cost in costs[2:]] == ["0.246", "0.269"]

    def test_three_students(self):
        assert 2 * self.limit == pytest.approx(6.911, abs=5e-4)
        assert self.limit / 12 == pytest.approx(0.288, abs=5e-4)

    def test_richardson(self):
        once, twice = (diffusion_from_mmse(GAUSSIAN.mmse, LINE, n).item() for n in (40, 80))
        assert once - self.limit == pytest.approx(0.49, abs=0.005)
        assert twice - self.limit == pytest.approx(0.23, abs=0.005)
        assert 2 * twice - once - self.limit == pytest.approx(-0.02, abs=0.005)

    def test_the_best_schedule(self):
        high, low = (1 + TAU2 * math.exp(end) for end in (6, -6))
        scaled = 1280 * (
            diffusion_from_mmse(
                GAUSSIAN.mmse, lambda t: ((high ** (1 - t) * low**t - 1) / TAU2).log(), 1280
            ).item()
            - self.limit
        )
        assert self.limit**2 == pytest.approx(11.94, abs=0.005)
        assert scaled == pytest.approx(11.96, abs=0.005)

    def test_believing_in_the_wrong_variance_costs_a_divergence(self):
        rho2 = 0.4
        wrong = exact.Gaussian(torch.zeros(1, dtype=FLOAT), math.sqrt(rho2))

        def error(logsnr: Tensor) -> Tensor:
            v = logsnr.exp()
            return gaussian_mmse(v) + (TAU2 - rho2) ** 2 * v / (
                (1 + TAU2 * v) * (1 + rho2 * v) ** 2
            )

        def divergence(end: float) -> float:
            ratio = (1 + TAU2 * math.exp(end)) / (1 + rho2 * math.exp(end))
            return 0.5 * (ratio - 1 - math.log(ratio))

        alpha, var = moments(level(0.3))
        points, node_weights = nodes()
        z = ((alpha**2 * TAU2 + var).sqrt() * points)[:, None]
        apart = (GAUSSIAN.denoise(z, level(0.3)) - wrong.denoise(z, level(0.3))).square()
        assert_close(GAUSSIAN.mmse(real(0.3)) + node_weights @ apart, error(real(0.3)))
        excess = diffusion_from_mmse(error, LINE).item() - self.limit
        assert excess == pytest.approx(divergence(6) - divergence(-6), abs=1e-8)
        assert excess == pytest.approx(1.695, abs=5e-4)

    def test_a_budget_of_layers(self):
        assert round(29.68 / 0.00099, -3) == 30_000
        rate = rate_integral(TWO_BUMPS.mmse, Linear(12.0, -8.0)).item()
        variances, means = TWO_BUMPS.stds**2, TWO_BUMPS.means.flatten()
        blurred = mixture_entropy(TWO_BUMPS.weights, means, variances + math.exp(-12))
        floor = (blurred - TWO_BUMPS.entropy()).item()
        assert rate == pytest.approx(42.96, abs=0.005)
        assert floor == pytest.approx(0.00014, abs=5e-6)
        assert rate / (0.002 - floor) == pytest.approx(23_000, rel=0.01)


def test_the_figures_draw_what_they_are_given():
    matplotlib.use("agg")
    short = Linear(2.0, -4.0)
    bars = ch06.error_rectangles(GAUSSIAN.mmse, short, 4, plt.subplots()[1]).patches
    area = sum(bar.get_width() * bar.get_height() for bar in bars)
    assert area / 2 == pytest.approx(diffusion_from_mmse(GAUSSIAN.mmse, short, 4).item())
    figure = ch06.depth(GAUSSIAN.mmse, short, shown=(1, 2), slope=3.0)
    gap, law = figure.axes[-1].get_lines()
    assert len(figure.axes) == 3 and law.get_ydata()[1] == 1.5
    assert gap.get_ydata()[0] == pytest.approx(
        (
            diffusion_from_mmse(GAUSSIAN.mmse, short, 1) - diffusion_from_mmse(GAUSSIAN.mmse, short)
        ).item()
    )
    areas = ch06.three_areas(GAUSSIAN.mmse, {"linear": short, "cosine": Cosine(2.0, -4.0)})
    for ax in areas.axes:
        at, cost = ax.get_lines()[0].get_data()
        limit = diffusion_from_mmse(GAUSSIAN.mmse, short).item()
        assert abs(
            torch.trapezoid(torch.as_tensor(cost), torch.as_tensor(at)).item()
        ) == pytest.approx(limit, rel=2e-3)
    plt.close("all")
