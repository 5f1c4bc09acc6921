"""Chapter 4, the forward process: one test for each labeled equation, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import data, elbo, exact, gaussian, likelihood, schedules
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS

FLOAT = torch.float64
LEVELS = [(6.0, 5.9), (2.0, 1.0), (1.5, -0.5), (8.0, -3.0)]  # (logsnr_s, logsnr_t)
levels = pytest.mark.parametrize("pair", LEVELS)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=FLOAT)


def moments(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma^2, from the definition of the log SNR and alpha^2 + sigma^2 = 1 alone."""
    snr = logsnr.exp()
    return (snr / (1 + snr)).sqrt(), 1 / (1 + snr)


def bell(z: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return torch.exp(-0.5 * (z - mean) ** 2 / var) / (2 * math.pi * var).sqrt()


def information(toy: exact.GaussianMixture, logsnr: Tensor) -> Tensor:
    z = torch.linspace(-10, 10, 8_001, dtype=FLOAT)[:, None]
    log_q = toy.log_marginal(z, logsnr)
    noise = 0.5 * torch.log(2 * math.pi * math.e * moments(logsnr)[1])
    return -(log_q.exp() * log_q).sum() * 20 / 8_000 - noise


@pytest.mark.equation("eq-marginal")
def test_diffuse_draws_from_the_marginal():
    x, eps = real(0.5, -1.0)[None], real(0.3, 2.0)[None]
    alpha, var = moments(level(1.2))
    assert_close(gaussian.diffuse(x, level(1.2), 0 * eps), alpha * x)
    assert_close(gaussian.diffuse(0 * x, level(1.2), torch.ones_like(x)) ** 2, var.expand(1, 2))
    assert_close(gaussian.diffuse(x, level(1.2), eps), alpha * x + var.sqrt() * eps)


@pytest.mark.equation("eq-logsnr")
def test_logsnr_is_the_log_of_the_ratio_and_falls():
    grid = torch.linspace(-8, 14, 45, dtype=FLOAT)
    assert_close(2 * (gaussian.alpha(grid).log() - gaussian.sigma(grid).log()), grid)
    for schedule in (schedules.Linear(), schedules.Cosine(), schedules.FlowMatching()):
        assert (schedule(torch.linspace(0, 1, 65, dtype=FLOAT)).diff() < 0).all()


@pytest.mark.equation("eq-variance-preserving")
def test_unit_variance_stays_unit_variance():
    grid = torch.linspace(-8, 14, 45, dtype=FLOAT)
    alpha, var = moments(grid)
    assert_close((gaussian.alpha(grid), gaussian.sigma(grid) ** 2), (alpha, var))
    assert_close(gaussian.alpha(grid) ** 2 + gaussian.sigma(grid) ** 2, torch.ones_like(grid))


@pytest.mark.equation("eq-transition")
@levels
def test_transition_carries_the_marginal_at_s_to_that_at_t(pair):
    logsnr_s, logsnr_t = real(*pair)
    (alpha_s, var_s), (alpha_t, var_t) = moments(logsnr_s), moments(logsnr_t)
    alpha_ts, var_ts = gaussian.transition(logsnr_s, logsnr_t)
    assert_close(alpha_ts * alpha_s, alpha_t)
    assert_close(var_ts, var_t - (alpha_t / alpha_s) ** 2 * var_s)


@pytest.mark.equation("eq-removed")
@levels
def test_removed_is_the_new_share_of_the_noise(pair):
    logsnr_s, logsnr_t = real(*pair)
    c = gaussian.removed(logsnr_s, logsnr_t)
    assert_close(c, 1 - logsnr_t.exp() / logsnr_s.exp())
    assert_close(c, gaussian.transition(logsnr_s, logsnr_t)[1] / moments(logsnr_t)[1])
    assert 0 <= c < 1


@pytest.mark.equation("eq-chapman-kolmogorov")
def test_two_steps_integrate_to_one():
    logsnr_r, logsnr_s, logsnr_t = real(3.0, 1.5, -0.5)
    z_r, z_t = real(0.7), real(-1.0, 0.2, 1.5)
    z_s = torch.linspace(-8, 8, 4001, dtype=FLOAT)[:, None]
    (a, v), (b, w) = (
        gaussian.transition(*pair) for pair in ((logsnr_r, logsnr_s), (logsnr_s, logsnr_t))
    )
    two_steps = (bell(z_t, b * z_s, w) * bell(z_s, a * z_r, v)).sum(0) * 16 / 4000
    scale, var = gaussian.transition(logsnr_r, logsnr_t)
    assert_close(two_steps, bell(z_t, scale * z_r, var))


def product_on_a_grid(z_s: Tensor, z_t: Tensor, x: Tensor, pair: Tensor) -> Tensor:
    """Prior times likelihood, normalized, from the definitions."""
    (alpha_s, var_s), (alpha_t, var_t) = map(moments, pair)
    scale = alpha_t / alpha_s
    product = bell(z_t, scale * z_s, var_t - scale**2 * var_s) * bell(z_s, alpha_s * x, var_s)
    return product / (product.sum() * (z_s[1] - z_s[0]))


@pytest.mark.equation("eq-posterior-bayes")
@levels
def test_posterior_is_prior_times_likelihood(pair):
    x, z_t, z_s = real(0.8), real(0.1), torch.linspace(-6, 6, 24_001, dtype=FLOAT)
    q = gaussian.posterior(z_t, x, *real(*pair))
    assert_close(bell(z_s, q.mean, q.var), product_on_a_grid(z_s, z_t, x, real(*pair)))


@pytest.mark.equation("eq-posterior-variance")
@levels
def test_precisions_add(pair):
    (alpha_s, var_s), (alpha_t, var_t) = map(moments, real(*pair))
    var_ts = var_t - (alpha_t / alpha_s) ** 2 * var_s
    q = gaussian.posterior(real(0.1), real(0.8), *real(*pair))
    assert_close(1 / q.var, (alpha_t / alpha_s) ** 2 / var_ts + 1 / var_s)
    assert_close(q.var, var_ts * var_s / var_t)


@pytest.mark.equation("eq-posterior")
@levels
def test_posterior_conditions_the_joint_of_z_s_and_z_t(pair):
    """The rule for conditioning a joint Gaussian: cov(z_s, z_t | x) = alpha_ts sigma_s^2."""
    (alpha_s, var_s), (alpha_t, var_t) = map(moments, real(*pair))
    x, z_t = real(0.8, -0.3)[:, None], real(0.1, 1.7)[:, None]
    covariance = alpha_t / alpha_s * var_s
    q = gaussian.posterior(z_t, x, *real(*pair))
    assert_close(q.mean, alpha_s * x + covariance / var_t * (z_t - alpha_t * x))
    assert_close(q.var, var_s - covariance**2 / var_t)
    c = 1 - real(pair[1] - pair[0]).exp()
    assert_close(q.mean, alpha_s * ((1 - c) * z_t / alpha_t + c * x))


def mean_and_covariance(
    links: Tensor, constants: Tensor, noise_var: Tensor
) -> tuple[Tensor, Tensor]:
    solve = torch.linalg.inv(torch.eye(len(constants), dtype=FLOAT) - links)
    return solve @ constants, solve @ torch.diag(noise_var) @ solve.T


@pytest.mark.equation("eq-same-joint")
def test_bottom_up_and_top_down_are_one_joint():
    x, steps = 0.8, 5
    logsnr = schedules.Linear()(torch.linspace(0, 1, steps + 1, dtype=FLOAT))
    alpha, var = moments(logsnr)
    one, zero = torch.ones(steps, dtype=FLOAT), torch.zeros(steps, dtype=FLOAT)
    alpha_ts, var_ts = gaussian.transition(logsnr[:-1], logsnr[1:])
    start = torch.cat([alpha[:1] * x, zero])
    up = mean_and_covariance(torch.diag(alpha_ts, -1), start, torch.cat([var[:1], var_ts]))
    from_z = gaussian.posterior(one, zero, logsnr[:-1], logsnr[1:]).mean
    from_x, var_q = gaussian.posterior(zero, one, logsnr[:-1], logsnr[1:])
    inputs = torch.cat([from_x, alpha[-1:]]) * x
    down = mean_and_covariance(torch.diag(from_z, 1), inputs, torch.cat([var_q, var[-1:]]))
    assert_close(up, down)
    assert_close(up[0], alpha * x)
    assert_close(up[1].triu(), (var[:, None] * alpha / alpha[:, None]).triu())


@pytest.mark.equation("eq-supervised")
@pytest.mark.parametrize("z", [-0.6, 0.1, 1.2])
def test_a_layer_asks_for_the_posterior_mean(z):
    logsnr_s, logsnr_t, z_t = level(2.0), level(1.0), level(z).view(1, 1)
    x, weights = EIGHT_LEVELS.means, EIGHT_LEVELS.weights
    alpha, var = moments(logsnr_t)
    share = weights * bell(z_t, alpha * x, var)[:, 0]
    share = share / share.sum()
    truth = gaussian.posterior(z_t.expand(8, 1), x, logsnr_s, logsnr_t)

    def cost(guess: Tensor) -> Tensor:
        copy = gaussian.posterior(z_t, guess.view(1, 1), logsnr_s, logsnr_t)
        return share @ gaussian.kl(truth, copy)

    best = EIGHT_LEVELS.denoise(z_t, logsnr_t).squeeze()
    for guess in (best, best + 0.3, best - 0.1):
        error = share @ (x[:, 0] - guess) ** 2
        assert_close(cost(guess), 0.5 * (logsnr_s.exp() - logsnr_t.exp()) * error)
    assert cost(best) < min(cost(best + 1e-3), cost(best - 1e-3))


@pytest.mark.equation("eq-mutual-information")
def test_information_of_toys_with_a_known_answer():
    normal = exact.Gaussian(real(0.4), 1.5)
    assert_close(information(normal, level(0.7)), 0.5 * torch.log1p(1.5**2 * level(0.7).exp()))
    assert_close(information(EIGHT_LEVELS, level(10.0)), EIGHT_LEVELS.entropy())
    rise = (information(TWO_BUMPS, level(1.01)) - information(TWO_BUMPS, level(0.99))) / 0.02
    # The derivative of information in the SNR is half the least squared error (I-MMSE).
    expected = 0.5 * math.e * TWO_BUMPS.mmse(real(1.0)).squeeze()
    assert_close(rise, expected, rtol=1e-4, atol=0)


@pytest.mark.equation("eq-data-processing")
@pytest.mark.parametrize("pair", [(2.0, 1.0), (1.0, -1.5)])
def test_the_information_lost_is_the_divergence_of_the_best_step(pair):
    logsnr_s, logsnr_t = map(level, pair)
    x, log_w = EIGHT_LEVELS.means, EIGHT_LEVELS.weights.log()[:, None]
    z_s, z_t = (torch.linspace(-7, 7, 561, dtype=FLOAT)[:, None] for _ in "st")
    alpha, var = moments(logsnr_t)
    log_pair = log_w + bell(z_t[:, 0], alpha * x, var).log()
    q = gaussian.posterior(z_t.repeat(8, 1), x.repeat_interleave(561, 0), logsnr_s, logsnr_t)
    log_zs = torch.distributions.Normal(q.mean, q.var.sqrt()).log_prob(z_s[:, 0])
    log_zs = log_zs.view(8, 561, 561)
    log_blind = (log_pair.log_softmax(0)[..., None] + log_zs).logsumexp(0)
    kl = (log_zs.exp() * (log_zs - log_blind)).sum(-1) * 14 / 560
    lost = (log_pair.exp() * kl).sum() * 14 / 560
    fall = information(EIGHT_LEVELS, logsnr_s) - information(EIGHT_LEVELS, logsnr_t)
    assert_close(lost, fall, rtol=1e-6, atol=0)
    assert lost > 0


@pytest.mark.equation("eq-prior-gap")
@pytest.mark.parametrize("logsnr_min", [-1.0, -3.0, -5.0])
def test_prior_bound_is_information_plus_gap(logsnr_min):
    z = torch.linspace(-10, 10, 8_001, dtype=FLOAT)[:, None]
    log_q = TWO_BUMPS.log_marginal(z, level(logsnr_min))
    log_normal = torch.distributions.Normal(level(0.0), 1.0).log_prob(z[:, 0])
    gap = (log_q.exp() * (log_q - log_normal)).sum() * 20 / 8_000
    x_rms = level(math.sqrt(1 + 0.15**2)).view(1, 1)
    bound = elbo.prior(x_rms, level(logsnr_min)).squeeze()
    assert_close(bound, gap + information(TWO_BUMPS, level(logsnr_min)), rtol=1e-7, atol=0)
    assert 0 <= gap < 0.01 * bound


@pytest.mark.equation("eq-sde")
@pytest.mark.parametrize("schedule", [schedules.Linear(), schedules.Cosine()])
def test_short_steps_become_drift_and_diffusion(schedule):
    t, h = level(0.6), 1e-6
    f = torch.func.grad(lambda t: moments(schedule(t))[0].log())(t)
    growth = torch.func.grad(lambda t: moments(schedule(t))[1])(t)
    var = moments(schedule(t))[1]
    g2 = growth - 2 * f * var
    alpha_ts, var_ts = gaussian.transition(schedule(t - h), schedule(t))
    assert_close(((alpha_ts - 1) / h, var_ts / h), (f, g2), rtol=1e-4, atol=0)
    assert_close(g2, -var * schedules.rate(schedule, t)[1])


def relative_error(value: Tensor, reference: Tensor) -> float:
    return (value.double() / reference - 1).abs().max().item()


def test_float32_numbers_of_the_text():
    levels_64 = schedules.Linear()(torch.linspace(0, 1, 1001, dtype=FLOAT))
    levels_32 = schedules.Linear()(torch.linspace(0, 1, 1001))

    def posterior_var(logsnr: Tensor) -> Tensor:
        zero = torch.zeros_like(logsnr[1:])
        return gaussian.posterior(zero, zero, logsnr[:-1], logsnr[1:]).var

    reference = posterior_var(levels_32.double())
    assert relative_error(posterior_var(levels_32), reference) < 2.5e-7
    assert relative_error(posterior_var(levels_32), posterior_var(levels_64)) < 1.1e-4
    bar = torch.sigmoid(levels_32)
    table = (1 - bar[1:] / bar[:-1]) * (1 - bar[:-1]) / (1 - bar[1:])
    assert 2.5 < relative_error(table, reference) < 2.7
    naive = torch.sigmoid(-levels_32[:-1]) * (1 - torch.exp(levels_32.diff()))
    assert 1e-6 < relative_error(naive, reference) < 3e-6
    spacing = torch.finfo(torch.float32).eps / 2  # of the numbers between 1/2 and 1
    var = torch.sigmoid(-levels_64)
    assert 5.5e-8 < spacing < 6.5e-8 and 24 < var[0] / spacing < 36
    assert 0.4 < (var[1] - var[0]) / spacing < 0.6


def test_other_numbers_of_the_text():
    sigma_0 = gaussian.sigma(level(13.3))
    assert abs(sigma_0 / (2 / 256) - 1 / 6) < 0.01
    images = likelihood.Discretized(256).encode(data.fashion_mnist().test)
    assert elbo.bits_per_dim(elbo.prior(images, torch.tensor(-5.0)).mean(), 784) < 0.01


@pytest.mark.parametrize(
    ("kind", "ten"),
    [
        (schedules.Linear, 4.58),
        (schedules.EDM, 356),
        (schedules.FlowMatching, 1429),
        (schedules.Cosine, 3310),
        (schedules.BetaLinear, 10_714),
    ],
)
def test_the_cost_depends_on_the_schedule_with_few_layers_only(kind, ten):
    costs = [elbo.diffusion_from_mmse(EIGHT_LEVELS.mmse, kind(), n).item() for n in (10, None)]
    assert costs == [pytest.approx(ten, rel=1e-3), pytest.approx(1.6254, abs=1e-4)]


def test_exercise_limits_of_the_posterior():
    x, z_t, logsnr_s, logsnr_t = real(0.8), real(0.1), real(1.5), real(-0.5)
    short = gaussian.posterior(z_t, x, logsnr_t + 1e-9, logsnr_t)
    assert_close(short.mean, z_t, rtol=0, atol=1e-7)
    late = gaussian.posterior(z_t, x, logsnr_s, real(-60.0))
    assert_close((late.mean, late.var), (moments(logsnr_s)[0] * x, moments(logsnr_s)[1]))
    clean = gaussian.posterior(z_t, x, real(60.0), logsnr_t)
    assert_close(clean.mean, x)


def test_exercise_wrong_lines_are_caught():
    logsnr_s, logsnr_t = real(1.5), real(-0.5)
    var_s, (alpha_t, var_t) = moments(logsnr_s)[1], moments(logsnr_t)
    beta = gaussian.transition(logsnr_s, logsnr_t)[1]
    assert var_t - var_t**2 > 0.1  # 1: the variance is squared once too often
    assert 1 - beta + beta**2 < 1 - 0.1  # 2
    assert beta * var_t / var_s > var_s  # 3: wider than its prior
    c = gaussian.removed(logsnr_t + 1e-9, logsnr_t)
    swapped = alpha_t * (c * 0.1 / alpha_t + (1 - c) * 0.8)  # 4: s close to t
    assert_close(swapped, alpha_t * 0.8, rtol=1e-6, atol=0)


def test_exercise_noise_and_score_forms():
    x, eps, logsnr_s, logsnr_t = real(0.8), real(-1.1), real(1.5), real(-0.5)
    z_t = gaussian.diffuse(x, logsnr_t, eps)
    alpha_ts, var_ts = gaussian.transition(logsnr_s, logsnr_t)
    sigma_t, c = gaussian.sigma(logsnr_t), gaussian.removed(logsnr_s, logsnr_t)
    mean = gaussian.posterior(z_t, x, logsnr_s, logsnr_t).mean
    assert_close((z_t - c * sigma_t * eps) / alpha_ts, mean)
    assert_close(z_t / alpha_ts + var_ts / alpha_ts * (-eps / sigma_t), mean)
    printed = alpha_ts / z_t + var_ts / alpha_ts * (-eps / sigma_t)
    assert (f"{mean.item():.3f}", f"{printed.item():.3f}") == ("0.551", "-0.702")


def test_exercise_missing_factor():
    x, (logsnr_s, logsnr_t) = real(0.8), real(1.5, -0.5)
    z_t = torch.linspace(-40, 40, 40_001, dtype=FLOAT)
    z_s = real(-1.0, 0.3, 2.0)[:, None]
    q = gaussian.posterior(z_t, x.expand_as(z_t), logsnr_s, logsnr_t)
    (alpha_s, var_s), (alpha_t, var_t) = moments(logsnr_s), moments(logsnr_t)
    density = bell(z_s, q.mean, q.var)
    k = alpha_t / alpha_s * var_s / var_t
    assert_close(density.sum(1) * 80 / 40_000, (1 / k).expand(3))
    averaged = (density * bell(z_t, alpha_t * x, var_t)).sum(1) * 80 / 40_000
    assert_close(averaged, bell(z_s[:, 0], alpha_s * x, var_s))


def test_exercise_variance_exploding():
    x, z_t, logsnr_s, logsnr_t = real(0.8), real(0.1), real(1.5), real(-0.5)
    alpha_s, alpha_t = moments(logsnr_s)[0], moments(logsnr_t)[0]
    c = 1 - (-logsnr_s).exp() / (-logsnr_t).exp()
    q = gaussian.posterior(z_t, x, logsnr_s, logsnr_t)
    assert_close(q.mean / alpha_s, (1 - c) * z_t / alpha_t + c * x)
    assert_close(q.var / alpha_s**2, c * (-logsnr_s).exp())
    assert_close(c, gaussian.removed(logsnr_s, logsnr_t))


def test_exercise_one_bit():
    log_3 = level(math.log(3))
    assert_close(information(exact.Gaussian(real(0.0), 1.0), log_3), level(math.log(2)))
    assert abs(information(TWO_BUMPS, log_3) - 0.61) < 0.005
