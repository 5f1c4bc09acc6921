"""Chapter 11, what a weight means: one test for each labeled equation, and the exercises."""

import math
from collections.abc import Callable

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vdm_lite import exact, gaussian, weighting
from vdm_lite.augmentation import Augmentation
from vdm_lite.elbo import diffusion_from_mmse, prior, weighted_from_mmse
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS
from vdm_lite.figures import ch11_what_a_weight_means as ch11
from vdm_lite.schedules import Cosine, FlowMatching, Linear, rate

FLOAT = torch.float64
TAU2 = 2.5
X = 0.9
GAUSSIAN = exact.Gaussian(torch.zeros(1, dtype=FLOAT), math.sqrt(TAU2))
BELIEVER = exact.Gaussian(torch.zeros(1, dtype=FLOAT), math.sqrt(0.4))  # wrong about the data
TOYS = {"Gaussian": GAUSSIAN, "two bumps": TWO_BUMPS, "8 levels": EIGHT_LEVELS}
every_toy = pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
FALLING = ("ELBO", "velocity, cosine", "flow-matching", "InDI", "EDM-monotonic", "sigmoid")
every_recipe = pytest.mark.parametrize("name", weighting.RECIPES)
every_falling = pytest.mark.parametrize("name", FALLING)
every_stop = pytest.mark.parametrize("stop", [3.0, 0.5, -2.0])


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=FLOAT)


def nodes(count: int = 61, width: float = 9.0) -> tuple[Tensor, Tensor]:
    """The trapezoid rule for N(0, 1), written out here."""
    points = torch.linspace(-width, width, count, dtype=FLOAT)
    weights = torch.exp(-0.5 * points**2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    return points, weights


def moments(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma^2, from the definition of the log SNR and alpha^2 + sigma^2 = 1 alone."""
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr)


def noise_entropy(logsnr: Tensor) -> Tensor:
    return 0.5 * torch.log(2 * math.pi * math.e * moments(logsnr)[1])


def entropy(toy: exact.GaussianMixture, logsnr: Tensor) -> Tensor:
    """h(z_t) at levels (N,): the mixture's density is written out here."""
    points, node_weights = nodes()
    alpha, var = (part[:, None] for part in moments(logsnr))
    means, var = alpha * toy.means.flatten(), alpha**2 * toy.stds**2 + var  # (N, K)
    z = means[..., None] + var.sqrt()[..., None] * points  # (N, K, nodes)
    distance = (z[..., None] - means[:, None, None]) ** 2 / var[:, None, None]
    terms = toy.weights.log() - 0.5 * (distance + (2 * math.pi * var[:, None, None]).log())
    return -(terms.logsumexp(-1) @ node_weights) @ toy.weights


def square(toy: exact.GaussianMixture) -> float:
    """E x^2."""
    return (toy.weights @ (toy.means.flatten() ** 2 + toy.stds**2)).item()


def mean_prior(toy: exact.GaussianMixture, low: float) -> Tensor:
    """The prior cost on average: it depends on x through x^2 only."""
    return prior(real(math.sqrt(square(toy)))[None], level(low)).squeeze()


def mismatch(toy: exact.GaussianMixture, low: float) -> Tensor:
    """KL(q(z_1) || N(0, 1)): cross entropy minus entropy."""
    alpha, var = moments(level(low))
    cross = 0.5 * (math.log(2 * math.pi) + alpha**2 * square(toy) + var)
    return cross - entropy(toy, real(low)).squeeze()


def cost_of(toy: exact.GaussianMixture, low: float) -> Callable[[Tensor], Tensor]:
    """L of the best denoiser by entropies alone."""

    def cost(logsnr: Tensor) -> Tensor:
        chunks = [entropy(toy, part) for part in logsnr.split(512)]
        return torch.cat(chunks) - noise_entropy(logsnr) + mismatch(toy, low)

    return cost


def cost_by_errors(error: Callable[[Tensor], Tensor], ends: Tensor, start: Tensor) -> Tensor:
    """Prior cost plus layers in continuous time, by the library; ``ends`` are lambda_t and _min."""
    return start + diffusion_from_mmse(error, Linear(ends[0].item(), ends[1].item()))


def forward(x: float, levels: Tensor) -> MultivariateNormal:
    """q(z_t, ..., z_1 | x), the cleanest level first: Cov(z_s, z_t) = alpha_t / alpha_s var_s."""
    alpha, var = moments(levels)
    upper = torch.outer(var / alpha, alpha).triu()
    return MultivariateNormal(alpha * x, upper + upper.triu(1).T)


def backward(denoise: Callable[[Tensor, Tensor], Tensor], levels: Tensor) -> MultivariateNormal:
    """p(z_t, ..., z_1) of a denoiser linear in z, from the library's transition."""
    one = torch.ones(len(levels) - 1, 1, dtype=FLOAT)
    step = gaussian.posterior(one, denoise(one, levels[1:]), levels[:-1], levels[1:])
    links = torch.eye(len(levels), dtype=FLOAT) - torch.diag(step.mean[:, 0], 1)
    solve = torch.linalg.inv(links)
    noise = torch.cat([step.var[:, 0], real(1.0)]).diag()
    return MultivariateNormal(torch.zeros(len(levels), dtype=FLOAT), solve @ noise @ solve.T)


def error_at_x(logsnr: Tensor) -> Tensor:
    """E (x - k z)^2 for the believer's k = alpha rho^2 / (alpha^2 rho^2 + sigma^2), rho^2 = 0.4."""
    alpha, var = moments(logsnr)
    k = 0.4 * alpha / (0.4 * alpha**2 + var)
    return ((1 - k * alpha) * X) ** 2 + k**2 * var


def joint_cost(stop: float, steps: int) -> Tensor:
    levels = torch.linspace(stop, -3, steps + 1, dtype=FLOAT)
    return kl_divergence(forward(X, levels), backward(BELIEVER.denoise, levels))


def prior_at_x(low: float = -3.0) -> Tensor:
    return prior(real(X)[None], level(low)).squeeze()


@pytest.mark.equation("eq-tail-layers")
@every_stop
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_joint_divergence_is_the_prior_and_the_layers(stop, steps):
    layers = diffusion_from_mmse(error_at_x, Linear(stop, -3.0), steps)
    assert_close(prior_at_x() + layers, joint_cost(stop, steps))


@pytest.mark.equation("eq-partial-cost")
@every_stop
def test_the_cost_in_continuous_time_is_the_prior_and_an_area(stop):
    limit = prior_at_x() + diffusion_from_mmse(error_at_x, Linear(stop, -3.0))
    gaps = [(joint_cost(stop, steps) - limit).item() for steps in (64, 128)]
    assert gaps[0] > gaps[1] > 0
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)  # the 1/T law
    assert abs(2 * gaps[1] - gaps[0]) < 1e-3


@pytest.mark.equation("eq-cost-slope")
@every_toy
def test_the_slope_of_the_cost_is_half_the_noise_error(toy):
    points, node_weights = nodes()
    for stop in (-2.0, 1.0, 4.0):
        near = [diffusion_from_mmse(toy.mmse, Linear(stop + d, -6.0)) for d in (1e-3, -1e-3)]
        alpha, var = moments(level(stop))
        x = (toy.means + toy.stds[:, None] * points).reshape(-1, 1)
        z = alpha * x + var.sqrt() * points
        x_hat = toy.denoise(z.reshape(-1, 1), level(stop)).view(z.shape)
        eps_hat = (z - alpha * x_hat) / var.sqrt()
        share = (toy.weights[:, None] * node_weights).flatten()
        noise_error = share @ (points - eps_hat) ** 2 @ node_weights
        assert_close((near[0] - near[1]) / 2e-3, noise_error / 2, rtol=1e-5, atol=0)


@pytest.mark.equation("eq-exact-cost")
@every_toy
@pytest.mark.parametrize("low", [-5.0, -1.0])
def test_the_cost_of_the_best_denoiser_is_information(toy, low):
    stops = real(-0.5, 2.0, 7.0)
    by_entropies = cost_of(toy, low)(stops)
    start = mean_prior(toy, low)
    by_errors = [cost_by_errors(toy.mmse, real(stop, low), start) for stop in stops.tolist()]
    assert_close(torch.stack(by_errors), by_entropies, rtol=1e-7, atol=1e-9)


@pytest.mark.equation("eq-survival")
@every_falling
def test_the_weight_is_the_chance_of_not_having_stopped(name):
    p_w = Augmentation(weighting.RECIPES[name].weight)
    for stop in (-4.0, 0.0, 3.0, 13.3):
        chance = p_w.expected(lambda logsnr, stop=stop: (logsnr >= stop).to(FLOAT)) / p_w.total
        assert abs(chance - p_w.weighting(level(stop)) / p_w.total) < 2e-3
    # An average over stops at evenly spaced chances, found by bisection in w.
    grid = torch.linspace(13.3, -5, 200_001, dtype=FLOAT)
    chances = (torch.arange(20_000, dtype=FLOAT) + 0.5) / 20_000
    found = torch.searchsorted(p_w.weighting(grid) / p_w.total, chances).clamp(max=len(grid) - 1)
    area = cost_by_table()
    stacked = p_w.total * (area(grid[found]).mean() - area(real(-5.0)).squeeze())
    direct = weighted_from_mmse(TWO_BUMPS.mmse, p_w.weighting, Linear())
    assert_close(stacked, direct, rtol=1e-3, atol=0)


def cost_by_table() -> Callable[[Tensor], Tensor]:
    """L of the two bumps, linear between 2001 exact values."""
    grid = torch.linspace(-5, 13.3, 2001, dtype=FLOAT)
    table = cost_of(TWO_BUMPS, -5.0)(grid)

    def cost(logsnr: Tensor) -> Tensor:
        place = (logsnr + 5) / 18.3 * 2000
        i = place.floor().clamp(0, 1999).long()
        return torch.lerp(table[i], table[i + 1], place - i)

    return cost


@pytest.mark.equation("eq-by-parts")
@every_recipe
@pytest.mark.parametrize("toy", [GAUSSIAN, TWO_BUMPS], ids=["Gaussian", "two bumps"])
@pytest.mark.parametrize("ends", [(13.3, -5.0), (4.0, -1.0)])
def test_by_parts_with_both_boundary_terms(name, toy, ends):
    weight = weighting.RECIPES[name].weight
    by_parts = Augmentation(weight, *ends).weighted_loss(cost_of(toy, ends[1]))
    direct = weighted_from_mmse(toy.mmse, weight, Linear(*ends))
    assert abs(by_parts - direct) < 1e-5 * max(1, direct)


def test_by_parts_on_discrete_data():
    """One recipe only, the one with a kink: eight components are slow."""
    weight = weighting.RECIPES["min-SNR"].weight
    by_parts = Augmentation(weight).weighted_loss(cost_of(EIGHT_LEVELS, -5.0))
    assert abs(by_parts - weighted_from_mmse(EIGHT_LEVELS.mmse, weight, Linear())) < 1e-5


@pytest.mark.equation("eq-by-parts")
@pytest.mark.parametrize("kind", [Linear, Cosine, FlowMatching])
def test_by_parts_over_time(kind):
    schedule, weight = kind(6.0, -5.0), weighting.sigmoid(1.0)
    logsnr, slope = rate(schedule, torch.linspace(0, 1, 4001, dtype=FLOAT))
    w = weight(logsnr)
    per_time = -slope * Augmentation(weight, 6.0, -5.0).density(logsnr)
    cost = cost_of(TWO_BUMPS, -5.0)(logsnr)
    total = torch.trapezoid(per_time * cost, dx=1 / 4000) + w[0] * cost[0] - w[-1] * cost[-1]
    direct = weighted_from_mmse(TWO_BUMPS.mmse, weight, schedule)
    assert_close(total, direct, rtol=1e-5, atol=0)
    assert_close(per_time, torch.gradient(w, spacing=1 / 4000)[0], rtol=1e-2, atol=1e-3)


@pytest.mark.equation("eq-augmentation")
@every_recipe
def test_density_and_point_mass_add_up_to_the_weight_at_the_noisy_end(name):
    p_w = Augmentation(weighting.RECIPES[name].weight, 10.0, -8.0)
    ends = p_w.weighting(real(10.0, -8.0))
    grid = torch.linspace(-8, 10, 200_001, dtype=FLOAT)
    spread = torch.trapezoid(p_w.density(grid), grid)
    assert_close(spread, ends[1] - ends[0], rtol=1e-4, atol=1e-5)
    assert p_w.clean == ends[0].item() and p_w.total == ends[1].item()
    assert sum(p_w.masses()) + p_w.clean == pytest.approx(p_w.total, rel=1e-9)
    inner = torch.linspace(-7.9, 9.9, 90, dtype=FLOAT)
    h = 1e-5
    slope = (p_w.weighting(inner - h) - p_w.weighting(inner + h)) / (2 * h)
    assert_close(p_w.density(inner), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.equation("eq-monotone")
@every_recipe
def test_monotone_and_not_negative_are_one(name):
    weight = weighting.RECIPES[name].weight
    p_w = Augmentation(weight)
    lowest = p_w.density(torch.linspace(-5, 13.3, 4001, dtype=FLOAT)).min() / p_w.total
    assert weighting.is_monotone(weight) == (name in FALLING) == bool(lowest > -1e-9)
    assert (p_w.masses()[1] < -1e-9) == (name not in FALLING)


@pytest.mark.equation("eq-signed-masses")
@pytest.mark.parametrize(
    ("name", "peak"), [("noise, cosine", 0.0), ("EDM", weighting.EDM_PEAK), ("P2, cosine", None)]
)
def test_masses_of_a_weight_with_one_peak(name, peak):
    weight = weighting.RECIPES[name].weight
    # P2: w = sech(l/2) / (1 + e^l); the slope of log w, -tanh(l/2)/2 - sigmoid(l), is 0 where
    # e^l = 1/3: there tanh(l/2) = -1/2 and sigmoid(l) = 1/4.
    top = weight(level(math.log(1 / 3) if peak is None else peak)).item()
    clean, noisy = weight(real(10.0, -8.0)).tolist()
    positive, negative = Augmentation(weight, 10.0, -8.0).masses()
    assert positive == pytest.approx(top - clean, abs=1e-6)
    assert negative == pytest.approx(noisy - top, abs=1e-6)


def test_the_signed_mixture_of_the_noise_error_with_a_cosine_schedule():
    p_w = Augmentation(weighting.noise_cosine, 10.0, -8.0)
    positive, negative = p_w.masses()
    assert [f"{m:.3f}" for m in (positive, negative)] == ["0.987", "-0.963"]
    assert f"{p_w.clean:.4f} {p_w.total:.4f}" == "0.0135 0.0366"
    assert positive + negative + p_w.clean == pytest.approx(p_w.total)
    assert positive / p_w.total == pytest.approx(27, abs=0.5)
    assert negative / p_w.total == pytest.approx(-26, abs=0.5)


def bumps(center: float, height: float) -> tuple[Callable, Callable]:
    """A bump of noise error as an extra image error, and what it adds to L from -8 on."""

    def climb(logsnr: Tensor) -> Tensor:
        low = torch.special.ndtr(level(-8 - center))
        return height * math.sqrt(math.pi / 2) * (torch.special.ndtr(logsnr - center) - low)

    def error(logsnr: Tensor) -> Tensor:
        more = height * torch.exp(-0.5 * (logsnr - center) ** 2)
        return TWO_BUMPS.mmse(logsnr) + more / logsnr.exp()

    return error, climb


@pytest.mark.equation("eq-dominance")
@every_recipe
def test_what_a_difference_of_costs_does_to_the_loss(name):
    weight = weighting.RECIPES[name].weight
    ends = Linear(10.0, -8.0)
    (error_a, climb_a), (error_b, climb_b) = bumps(0.0, 0.25), bumps(-5.0, 0.30)
    grid = torch.linspace(-8, 10, 721, dtype=FLOAT)
    assert (climb_a(grid) <= climb_b(grid)).all()
    losses = [weighted_from_mmse(error, weight, ends) for error in (error_a, error_b)]
    by_costs = Augmentation(weight, 10.0, -8.0).expected(lambda lam: climb_a(lam) - climb_b(lam))
    assert_close(losses[0] - losses[1], by_costs, rtol=1e-4, atol=1e-5)
    if name in FALLING:
        assert losses[0] < losses[1]
    if name == "noise, cosine":
        assert losses[0] > losses[1]


def test_an_error_around_one_level_can_be_made():
    """The best denoiser plus a constant c at a level has c^2 more image error."""
    points, node_weights = nodes()
    lam, c = level(0.5), 0.3
    alpha, var = moments(lam)
    x = (TWO_BUMPS.means + TWO_BUMPS.stds[:, None] * points).reshape(-1, 1)
    z = alpha * x + var.sqrt() * points
    x_hat = TWO_BUMPS.denoise(z.reshape(-1, 1), lam).view(z.shape) + c
    share = (TWO_BUMPS.weights[:, None] * node_weights).flatten()
    error = share @ (x - x_hat) ** 2 @ node_weights
    assert_close(error, TWO_BUMPS.mmse(lam[None]).squeeze() + c**2)


def conditional(joint: MultivariateNormal, z: Tensor) -> MultivariateNormal:
    """The law of all later levels, given that the first is z."""
    mean, cov = joint.mean, joint.covariance_matrix
    gain = cov[1:, 0] / cov[0, 0]
    rest = cov[1:, 1:] - torch.outer(gain, cov[0, 1:])
    return MultivariateNormal(mean[1:] + gain * (z - mean[0]), rest)


@pytest.mark.equation("eq-noised-bound")
@every_stop
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_the_cost_bounds_the_code_length_of_the_noised_data(stop, steps):
    levels = torch.linspace(stop, -3, steps + 1, dtype=FLOAT)
    q, p = forward(X, levels), backward(BELIEVER.denoise, levels)
    layers = diffusion_from_mmse(error_at_x, Linear(stop, -3.0), steps)
    bound = prior_at_x() + layers + noise_entropy(levels[0])
    var_q, var_p = q.covariance_matrix[0, 0], p.covariance_matrix[0, 0]
    truth = 0.5 * (torch.log(2 * math.pi * var_p) + (q.mean[0] ** 2 + var_q) / var_p)
    # The divergence is quadratic in z_t: two points at one standard deviation average it exactly.
    at = [q.mean[0] + sign * var_q.sqrt() for sign in (-1, 1)]
    slack = sum(kl_divergence(conditional(q, z), conditional(p, z)) for z in at) / 2
    assert slack > 0
    assert_close(bound - truth, slack)


@pytest.mark.equation("eq-noised-gap")
@every_toy
@pytest.mark.parametrize("low", [-5.0, -1.0])
def test_the_best_chain_misses_the_entropy_by_the_mismatch_at_the_top(toy, low):
    for stop in (-0.5, 1.0, 6.0):
        spent = cost_by_errors(toy.mmse, real(stop, low), mean_prior(toy, low))
        excess = spent + noise_entropy(level(stop)) - entropy(toy, real(stop)).squeeze()
        assert_close(excess, mismatch(toy, low), rtol=0, atol=1e-7)


@pytest.mark.equation("eq-augmented-elbo")
@every_falling
@pytest.mark.parametrize("low", [-5.0, -1.0])
def test_a_monotone_weight_bounds_the_likelihood_of_noised_data(name, low):
    weight = weighting.RECIPES[name].weight
    p_w = Augmentation(weight, 13.3, low)
    loss = weighted_from_mmse(TWO_BUMPS.mmse, weight, Linear(13.3, low))
    bound = loss + p_w.total * mean_prior(TWO_BUMPS, low) + p_w.expected(noise_entropy)
    least = p_w.expected(lambda lam: cost_of(TWO_BUMPS, low)(lam) + noise_entropy(lam))
    least = least - p_w.total * mismatch(TWO_BUMPS, low)  # E h(z_t), since L = I + mismatch
    assert_close((bound - least) / p_w.total, mismatch(TWO_BUMPS, low), rtol=0, atol=1e-6)


def gaussian_cost(logsnr: Tensor, low: float = -5.0) -> Tensor:
    grown = torch.log1p(TAU2 * logsnr.exp()) - math.log1p(TAU2 * math.exp(low))
    return mean_prior(GAUSSIAN, low) + 0.5 * grown


@pytest.mark.equation("eq-gaussian-cost")
@pytest.mark.parametrize("low", [-5.0, -1.0])
def test_gaussian_cost_in_closed_form(low):
    for stop in (0.0, 5.0, 13.3):
        spent = cost_by_errors(GAUSSIAN.mmse, real(stop, low), mean_prior(GAUSSIAN, low))
        assert_close(spent, gaussian_cost(level(stop), low))
    p_w = Augmentation(weighting.elbo, 13.3, low)
    grown = gaussian_cost(real(low, 13.3), low).diff().squeeze()
    assert_close(p_w.weighted_loss(lambda lam: gaussian_cost(lam, low)), grown)


@pytest.mark.equation("eq-gaussian-sigmoid")
@pytest.mark.parametrize("bias", [-2.0, 2.0, 5.0])
@pytest.mark.parametrize("tau2", [0.4, TAU2])
def test_gaussian_data_and_a_sigmoid_weight(bias, tau2):
    v, scale = real(-5.0, 13.3).exp(), math.exp(bias) * tau2
    closed = ((1 + tau2 * v) / (math.exp(bias) + v)).log().diff() * scale / (scale - 1) / 2
    toy = exact.Gaussian(torch.zeros(1, dtype=FLOAT), math.sqrt(tau2))
    direct = weighted_from_mmse(toy.mmse, weighting.sigmoid(bias), Linear())
    assert_close(direct, closed.squeeze(), rtol=1e-8, atol=0)
    lam = torch.linspace(-5, 13.3, 50, dtype=FLOAT)
    logistic = torch.exp(lam - bias) / (1 + torch.exp(lam - bias)) ** 2
    assert_close(Augmentation(weighting.sigmoid(bias)).density(lam), logistic)


@pytest.mark.equation("eq-gaussian-flow")
def test_gaussian_data_and_the_weight_of_flow_matching():
    p_w, tau = Augmentation(weighting.flow_matching), math.sqrt(TAU2)
    closed = tau * torch.arctan(tau * real(-2.5, 6.65).exp()).diff().squeeze()
    assert_close(weighted_from_mmse(GAUSSIAN.mmse, p_w.weighting, Linear()), closed)
    assert_close(p_w.weighted_loss(gaussian_cost), closed, rtol=1e-6, atol=0)
    lam = torch.linspace(-5, 13.3, 50, dtype=FLOAT)
    assert_close(p_w.density(lam), 0.5 * torch.exp(-lam / 2))
    half = p_w.expected(lambda logsnr: (logsnr < -5 + 2 * math.log(2)).to(FLOAT)) / p_w.total
    assert half == pytest.approx(0.5, abs=1e-3)


class TestErrorsOfTheFirstVersion:
    """Errors 9 and 10: the KL at t = 1 left out, and the point mass called small."""

    def test_the_integral_alone_is_not_the_divergence(self):
        layers = diffusion_from_mmse(error_at_x, Linear(1.0, -3.0), 6)
        assert joint_cost(1.0, 6) - layers == pytest.approx(prior_at_x().item())
        assert prior_at_x() > 0.01

    def test_by_parts_cannot_see_a_constant_but_the_bound_can(self):
        p_w = Augmentation(weighting.sigmoid(), 13.3, -1.0)
        cost = cost_of(TWO_BUMPS, -1.0)
        start = mean_prior(TWO_BUMPS, -1.0)
        right, wrong = p_w.weighted_loss(cost), p_w.weighted_loss(lambda lam: cost(lam) - start)
        assert_close(right, wrong, rtol=0, atol=1e-9)
        short = cost(real(4.0)) - start + noise_entropy(real(4.0)) - entropy(TWO_BUMPS, real(4.0))
        assert short.item() == pytest.approx(-0.1591, abs=5e-5)  # below the entropy
        assert mismatch(TWO_BUMPS, -1.0).item() == pytest.approx(0.0005, abs=5e-5)

    def test_for_the_likelihood_the_point_mass_is_everything(self):
        p_w, cost = Augmentation(weighting.elbo), cost_of(TWO_BUMPS, -5.0)
        ends = cost(real(13.3, -5.0))
        assert p_w.masses() == (0.0, 0.0) and p_w.clean == 1
        assert_close(p_w.weighted_loss(cost), ends[0] - ends[1])
        assert_close(p_w.expected(cost), ends[0])

    def test_how_much_of_each_loss_is_the_point_mass(self):
        cost = cost_of(TWO_BUMPS, -5.0)
        gained = -cost(real(13.3, -5.0)).diff().item()
        shares = {
            name: Augmentation(recipe.weight).clean
            * gained
            / weighted_from_mmse(TWO_BUMPS.mmse, recipe.weight, Linear()).item()
            for name, recipe in weighting.RECIPES.items()
        }
        assert shares.pop("ELBO") == pytest.approx(1)
        assert shares.pop("noise, cosine") == pytest.approx(0.014, abs=5e-4)
        assert max(shares.values()) < 0.01


class TestExercises:
    """The numbers in the solutions."""

    def test_four_students(self):
        p_w, cost = Augmentation(weighting.sigmoid(2.0), 13.3, -1.0), cost_of(TWO_BUMPS, -1.0)
        first, last = cost(real(13.3, -1.0)).tolist()
        spread = p_w.expected(cost).item() - p_w.clean * first
        correct = p_w.weighted_loss(cost).item()
        constant = p_w.total * last
        assert correct == pytest.approx(0.6047, abs=5e-5)
        assert correct / p_w.total == pytest.approx(0.6348, abs=5e-5)
        assert correct + constant == pytest.approx(0.7567, abs=5e-5)
        assert 14.3 * spread + p_w.clean * first - constant == pytest.approx(10.668, abs=5e-4)
        assert -spread + p_w.clean * first - constant == pytest.approx(-0.9087, abs=5e-5)
        assert p_w.total == pytest.approx(0.9526, abs=5e-5)
        assert last == pytest.approx(0.1597, abs=5e-5)
        longer = Augmentation(weighting.sigmoid(2.0)), cost_of(TWO_BUMPS, -5.0)
        assert longer[0].expected(longer[1]).item() == pytest.approx(0.7602, abs=5e-5)
        assert longer[0].weighted_loss(longer[1]).item() == pytest.approx(0.7567, abs=5e-5)

    def test_a_weight_for_uniform_noise_levels(self):
        def weight(logsnr: Tensor) -> Tensor:
            return (1 - logsnr / 6).clamp(0, 1)

        cost = cost_of(TWO_BUMPS, -5.0)
        middles = (torch.arange(600, dtype=FLOAT) + 0.5) / 100
        wanted = (cost(middles).mean() - cost(real(-5.0))).item()
        assert wanted == pytest.approx(0.9658, abs=5e-5)
        direct = weighted_from_mmse(TWO_BUMPS.mmse, weight, Linear()).item()
        assert direct == pytest.approx(0.9658, abs=5e-5)
        assert Augmentation(weight).weighted_loss(cost).item() == pytest.approx(wanted, abs=1e-4)

    def test_flow_matching_adds_noise_of_uniform_size(self):
        p_w = Augmentation(weighting.flow_matching)
        for r in (0.5, 3.0, 9.0):
            chance = p_w.expected(lambda lam, r=r: (torch.exp(-lam / 2) <= r).to(FLOAT))
            assert chance / p_w.total == pytest.approx(r / math.exp(2.5), abs=1e-3)
        assert math.exp(2.5) / 2 == pytest.approx(6.1, abs=0.05)

    def test_a_rising_weight_prefers_a_worse_chain(self):
        """Narrow bumps of area 2 (1 + eta) at a for B, and 2 at b for A, where w(a) < w(b)."""
        weight, (a, b), eta = weighting.edm, (-4.5, -3.5), 0.05
        w = weight(real(a, b))
        assert w[1] > (1 + eta) * w[0]

        def bump(center: float, area: float) -> Callable[[Tensor], Tensor]:
            height = area / (0.05 * math.sqrt(2 * math.pi))
            return lambda lam: height * torch.exp(-0.5 * ((lam - center) / 0.05) ** 2) / lam.exp()

        extra = [
            weighted_from_mmse(bump(at, area), weight, Linear())
            for at, area in ((b, 2.0), (a, 2.0 * (1 + eta)))
        ]
        assert extra[0] - extra[1] == pytest.approx((w[1] - (1 + eta) * w[0]).item(), abs=0.01)
        assert extra[0] > extra[1]


def test_the_figures_draw_what_they_are_given():
    matplotlib.use("agg")
    grid = torch.linspace(-5, 10, 50, dtype=FLOAT)
    curve = ch11.running_cost(grid, 0.2, grid + 5.2, ax=plt.subplots()[1]).get_lines()[0]
    assert curve.get_ydata()[0] == pytest.approx(0.2)
    bars = ch11.stack_of_steps(weighting.sigmoid(), real(0, 2, 4), -5.0, plt.subplots()[1])
    assert [bar.get_width() for bar in bars.patches] == [5, 7, 9]
    signed = Augmentation(weighting.noise_cosine, 10.0, -8.0)
    right = ch11.signed_mixture(signed).axes[1]
    assert len(right.collections) == 2 and right.texts[-1].get_text() == "0.013"
    views = {name: Augmentation(weighting.RECIPES[name].weight) for name in ("ELBO", "EDM")}
    rows = ch11.weights_and_densities(views).axes
    assert len(rows) == 4 and rows[1].texts[-1].get_text() == "1"
    assert ch11.cost_and_densities(grid, 0.2, grid + 5.2, views).axes[1].get_legend()
    assert len(ch11.two_denoisers(grid, *2 * [{"A": grid, "B": -grid}]).axes) == 2
    images = ch11.augmented_images(torch.zeros(2, 3, 1, 4, 4), ("a", "b"), ("1", "2", "3"))
    assert len(images.axes) == 6
    plt.close("all")
