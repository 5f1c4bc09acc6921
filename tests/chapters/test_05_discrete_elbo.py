"""Chapter 5, the discrete ELBO: one test for each labeled equation, and the toys' numbers."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, likelihood, parameterization, samplers
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import Elbo
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS
from vdm_lite.gaussian import Normal
from vdm_lite.likelihood import Discretized
from vdm_lite.schedules import Linear, levels

FLOAT = torch.float64
ENTROPY = 1.62685  # of EIGHT_LEVELS, in nats


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=FLOAT)


class Layer(NamedTuple):
    """One layer with a guess x_hat, and its coefficients from the definitions alone."""

    z_t: Tensor
    x: Tensor
    x_hat: Tensor
    logsnr_s: Tensor
    logsnr_t: Tensor
    alpha_s: Tensor
    alpha_t: Tensor
    var_s: Tensor
    var_t: Tensor
    var_ts: Tensor


@pytest.fixture(params=[(1.5, 0.5), (6.0, 5.9), (3.0, -4.0)])
def layer(request) -> Layer:
    logsnr_s, logsnr_t = map(level, request.param)
    snr_s, snr_t = logsnr_s.exp(), logsnr_t.exp()
    var_s, var_t = 1 / (1 + snr_s), 1 / (1 + snr_t)
    alpha_s, alpha_t = (1 - var_s).sqrt(), (1 - var_t).sqrt()
    var_ts = var_t - (alpha_t / alpha_s) ** 2 * var_s
    z_t, x, x_hat = torch.randn(3, 4, 2, dtype=FLOAT)
    return Layer(z_t, x, x_hat, logsnr_s, logsnr_t, alpha_s, alpha_t, var_s, var_t, var_ts)


def posterior(layer: Layer, x: Tensor) -> Normal:
    """q(z_s | z_t, x) by adding precisions."""
    scale = layer.alpha_t / layer.alpha_s
    precision = scale**2 / layer.var_ts + 1 / layer.var_s
    mean = scale / layer.var_ts * layer.z_t + layer.alpha_s / layer.var_s * x
    return Normal(mean / precision, 1 / precision)


def predicted(layer: Layer) -> parameterization.Prediction:
    return parameterization.solve(parameterization.IMAGE, layer.x_hat, layer.z_t, layer.logsnr_t)


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(1)


@pytest.mark.equation("eq-generative-transition")
def test_the_ancestral_step_draws_from_the_copied_posterior(layer):
    want = posterior(layer, layer.x_hat)
    step = samplers.ancestral_step(
        predicted(layer), layer.z_t, layer.logsnr_s, torch.Generator().manual_seed(3)
    )
    noise = torch.randn(4, 2, dtype=FLOAT, generator=torch.Generator().manual_seed(3))
    assert_close(step, want.mean + want.var.sqrt() * noise)


@pytest.mark.equation("eq-generative-mean")
def test_three_forms_of_the_generative_mean(layer):
    mean = gaussian.posterior(layer.z_t, layer.x_hat, layer.logsnr_s, layer.logsnr_t).mean
    c = layer.var_ts / layer.var_t
    scale, prediction = layer.alpha_t / layer.alpha_s, predicted(layer)
    from_noise = (layer.z_t - c * layer.var_t.sqrt() * prediction.eps) / scale
    from_image = layer.alpha_s * ((1 - c) * layer.z_t / layer.alpha_t + c * layer.x_hat)
    assert_close(mean, from_image)
    assert_close(mean, from_noise)
    assert_close(mean, layer.z_t / scale + layer.var_ts / scale * prediction.score)


@pytest.mark.equation("eq-layer-kl")
def test_a_layer_costs_half_the_gained_snr_times_the_error(layer):
    q, p = (
        gaussian.posterior(layer.z_t, x, layer.logsnr_s, layer.logsnr_t)
        for x in (layer.x, layer.x_hat)
    )
    gained = layer.logsnr_s.exp() - layer.logsnr_t.exp()
    assert_close(gaussian.kl(q, p), 0.5 * gained * distance(layer.x, layer.x_hat))


@pytest.mark.equation("eq-layer-kl-noise")
def test_the_same_cost_by_the_error_of_the_noise(layer):
    weight = elbo.layer_weight(1, layer.logsnr_s, layer.logsnr_t)
    eps = (layer.z_t - layer.alpha_t * layer.x) / layer.var_t.sqrt()
    q, p = posterior(layer, layer.x), posterior(layer, layer.x_hat)
    divergence = distance(q.mean, p.mean) / (2 * q.var)  # equal variances
    assert_close(weight * distance(eps, predicted(layer).eps), divergence)


@pytest.mark.equation("eq-discrete-loss")
def test_the_sum_over_layers_is_an_average_over_layers():
    schedule = Linear(6.0, -4.0)
    snr = torch.linspace(6, -4, 21, dtype=FLOAT).exp()
    mmse = TWO_BUMPS.mmse(snr[1:].log())
    written_out = sum(0.5 * (snr[i] - snr[i + 1]) * mmse[i] for i in range(20))
    assert_close(elbo.diffusion_from_mmse(TWO_BUMPS.mmse, schedule, 20), written_out)
    factor = elbo.layer_weight(20, *levels(schedule, 20, snr))
    assert_close((factor * snr[1:] * mmse).mean(), written_out)


@pytest.mark.equation("eq-one-layer-estimate")
def test_one_random_layer_estimates_all():
    """In float64 and with one example a level of noise: the error bar is small."""
    data = exact.Gaussian(real(0.0), 1.5)
    schedule, steps, n = Linear(4.0, -4.0), 16, 40_000
    model = VariationalDiffusion(data.denoise, schedule, parameterization.IMAGE)
    drawn = model.elbo(data.sample(n), steps=steps).diffusion
    snr = torch.linspace(4, -4, steps + 1, dtype=FLOAT).exp()
    mmse = 2.25 / (1 + 2.25 * snr)
    want = (0.5 * (snr[:-1] - snr[1:]) * mmse[1:]).sum()
    assert abs(drawn.mean() - want) < 4 * drawn.std() / n**0.5
    assert drawn.std() / n**0.5 < 0.02 * want


@pytest.mark.equation("eq-prior-term")
def test_the_prior_term_is_a_divergence_also_in_float32():
    x, logsnr = real(0.5, -1.0, 0.0)[None], level(-2.0)
    var = 1 / (1 + logsnr.exp())
    first_form = 0.5 * ((1 - var) * x**2 + var - var.log() - 1).sum(1)
    assert_close(elbo.prior(x, logsnr), first_form)
    # 1/2 (softplus(l) - sigmoid(l)) = e^{2l} / 4 - e^{3l} / 3 + ...: no cancellation at all.
    small = math.exp(-8)
    want = small**2 / 4 - small**3 / 3
    in_float32 = elbo.prior(torch.zeros(1, 1), torch.tensor(-8.0)).item()
    assert in_float32 == pytest.approx(want, rel=2e-3)
    narrow = torch.sigmoid(torch.tensor(8.0))
    assert (narrow - narrow.log() - 1).item() == 0  # what the first form makes of it


@pytest.mark.equation("eq-reconstruction-gaussian")
@pytest.mark.parametrize("logsnr_0", [4.0, 10.0])
def test_gaussian_reconstruction_costs_a_constant(logsnr_0):
    nodes, weights = exact.normal_quadrature()
    x = torch.full((len(nodes), 2), 0.3, dtype=FLOAT)
    eps = torch.stack([nodes, nodes.flip(0)], 1)
    z_0 = gaussian.diffuse(x, level(logsnr_0), eps)
    cost = -weights @ likelihood.Gaussian().log_prob(x, z_0, level(logsnr_0))
    assert cost.item() == pytest.approx(1 + math.log(2 * math.pi) - logsnr_0)  # D = 2


@pytest.mark.equation("eq-reconstruction-discrete")
def test_discrete_reconstruction_is_a_softmax_over_all_levels():
    z_0, logsnr_0 = real(0.1, -0.7)[None], 2.0
    alpha = math.sqrt(1 / (1 + math.exp(-logsnr_0)))
    places = real(*(2 * (k + 0.5) / 5 - 1 for k in range(5)))
    mass = torch.exp(-0.5 * math.exp(logsnr_0) * (z_0[0, :, None] / alpha - places) ** 2)
    want = mass / mass.sum(1, keepdim=True)
    for k in range(5):
        data = torch.tensor([[k, 4 - k]])
        got = Discretized(5).log_prob(data, z_0, level(logsnr_0))
        assert_close(got.exp(), want[0, k : k + 1] * want[1, 4 - k])


class Chain(NamedTuple):
    """Gaussian data and their exact denoiser: covariances of (x, z_0, ..., z_1) under q and p."""

    q: Tensor
    p: Tensor
    terms: Elbo  # from the library
    entropy: float


@pytest.fixture
def chain() -> Chain:
    tau, steps, schedule = 1.5, 12, Linear(5.0, -5.0)
    logsnr = torch.linspace(5, -5, steps + 1, dtype=FLOAT)
    var = 1 / (1 + logsnr.exp())
    alpha = (1 - var).sqrt()
    scale = alpha[1:] / alpha[:-1]
    links_q = torch.diag(torch.cat([alpha[:1], scale]), -1)
    q = covariance(links_q, torch.cat([real(tau**2), var[:1], var[1:] - scale**2 * var[:-1]]))
    # p: z_s = mu_hat z_t + noise, by regression of z_s on z_t and x under q, with x = x_hat.
    guess = alpha[1:] * tau**2 / (alpha[1:] ** 2 * tau**2 + var[1:])
    from_z = scale * var[:-1] / var[1:]
    from_x = (alpha[:-1] - from_z * alpha[1:]) * guess
    left = var[:-1] - from_z**2 * var[1:]
    links_p = torch.diag(torch.cat([1 / alpha[:1], from_z + from_x]), 1)
    p = covariance(links_p, torch.cat([var[:1] / alpha[:1] ** 2, left, real(1.0)]))
    data = exact.Gaussian(real(0.0), tau)
    terms = Elbo(
        elbo.prior(real(tau)[None], logsnr[-1]),
        gaussian_reconstruction(schedule),
        elbo.diffusion_from_mmse(data.mmse, schedule, steps)[None],
    )
    return Chain(q, p, terms, 0.5 * math.log(2 * math.pi * math.e * tau**2))


def covariance(links: Tensor, noise_var: Tensor) -> Tensor:
    solve = torch.linalg.inv(torch.eye(len(noise_var), dtype=FLOAT) - links)
    return solve @ torch.diag(noise_var) @ solve.T


def gaussian_reconstruction(schedule: Linear) -> Tensor:
    """Expected cost of one coordinate, by quadrature through the library: (1,)."""
    nodes, weights = exact.normal_quadrature()
    logsnr_0 = level(schedule.logsnr_max)
    z_0 = gaussian.diffuse(0 * nodes[:, None], logsnr_0, nodes[:, None])
    return -(weights @ likelihood.Gaussian().log_prob(0 * z_0, z_0, logsnr_0))[None]


def divergence(q: Tensor, p: Tensor) -> Tensor:
    """KL of centered Gaussians with these covariances."""
    ratio = torch.linalg.solve(p, q)
    return 0.5 * (ratio.trace() - len(ratio) - ratio.logdet())


@pytest.mark.equation("eq-elbo-three-terms")
def test_three_terms_are_one_divergence_of_the_joints(chain):
    want = divergence(chain.q, chain.p) + chain.entropy
    assert_close(chain.terms.nelbo.squeeze(), want)


@pytest.mark.equation("eq-elbo-three-terms")
def test_the_model_estimates_the_three_terms():
    """The 8-level toy with end points at which each term counts."""
    n, schedule, codec = 50_000, Linear(2.0, 0.0), Discretized(8)
    model = VariationalDiffusion(EIGHT_LEVELS.denoise, schedule, parameterization.IMAGE, codec)
    drawn = model.elbo(codec.decode(EIGHT_LEVELS.sample(n)), steps=10)
    want = eight_level_elbo(schedule, 10)
    for name in Elbo._fields:
        got, exactly = getattr(drawn, name), getattr(want, name).item()
        assert exactly > 0.1, name
        assert abs(got.mean().item() - exactly) < 4 * got.std().item() / n**0.5, name


@pytest.mark.equation("eq-elbo-bound")
def test_the_bound_misses_log_p_by_the_divergence_of_the_posteriors(chain):
    def given_x(cov: Tensor) -> tuple[Tensor, Tensor]:
        slope = cov[1:, 0] / cov[0, 0]
        return slope, cov[1:, 1:] - slope[:, None] * cov[0, 1:]

    (slope_q, rest_q), (slope_p, rest_p) = given_x(chain.q), given_x(chain.p)
    shift = slope_q - slope_p
    gap = divergence(rest_q, rest_p)
    gap = gap + 0.5 * chain.q[0, 0] * shift @ torch.linalg.solve(rest_p, shift)
    ratio = chain.q[0, 0] / chain.p[0, 0]
    minus_log_p = 0.5 * ((2 * math.pi * chain.p[0, 0]).log() + ratio)
    assert_close(chain.terms.nelbo.squeeze(), minus_log_p + gap)
    assert chain.entropy < minus_log_p < chain.terms.nelbo.squeeze()


@pytest.mark.equation("eq-bits-per-dim")
def test_knowing_nothing_costs_log2_levels():
    nats = torch.tensor([64 * math.log(17)])
    assert_close(elbo.bits_per_dim(nats, 64), torch.tensor([math.log2(17)]))


def grid_of_eight(nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Level, its place x, noise, and weight: each level with each quadrature node."""
    points, weights = exact.normal_quadrature(nodes)
    k = torch.arange(8).repeat_interleave(nodes)[:, None]
    weight = (EIGHT_LEVELS.weights[:, None] * weights).flatten()
    return k, (2 * k.to(FLOAT) + 1) / 8 - 1, points.repeat(8)[:, None], weight


def eight_level_elbo(schedule: Linear, steps: int | None) -> Elbo:
    k, x, noise, weight = grid_of_eight(121)
    logsnr_0, logsnr_1 = level(schedule.logsnr_max), level(schedule.logsnr_min)
    z_0 = gaussian.diffuse(x, logsnr_0, noise)
    reconstruction = -weight @ Discretized(8).log_prob(k, z_0, logsnr_0)
    diffusion = elbo.diffusion_from_mmse(EIGHT_LEVELS.mmse, schedule, steps)
    prior = weight @ elbo.prior(x, logsnr_1)
    return Elbo(*(cost.reshape(1) for cost in (prior, reconstruction, diffusion)))


@pytest.mark.equation("eq-entropy-bound")
@pytest.mark.parametrize(
    ("steps", "printed"), [(10, "4.582"), (100, "1.785"), (1000, "1.642"), (10_000, "1.628")]
)
def test_the_bound_of_eight_levels_falls_to_their_entropy(steps, printed):
    nelbo = eight_level_elbo(Linear(), steps).nelbo.item()
    assert f"{nelbo:.3f}" == printed
    entropy = EIGHT_LEVELS.entropy().item()
    assert f"{entropy:.5f}" == f"{ENTROPY:.5f}"
    assert nelbo > entropy


@pytest.mark.parametrize(("steps", "printed"), [(100, ".3150"), (1000, ".0309"), (10_000, ".0040")])
def test_the_bound_of_two_bumps_falls_to_log_p(steps, printed):
    schedule, nodes_and_weights = Linear(10.0, -8.0), exact.normal_quadrature()
    nodes, weights = nodes_and_weights
    x = 1 + 0.15 * nodes[:, None]  # by symmetry one bump is enough for the prior
    terms = Elbo(
        (weights @ elbo.prior(x, level(-8.0)))[None],
        gaussian_reconstruction(schedule),
        elbo.diffusion_from_mmse(TWO_BUMPS.mmse, schedule, steps)[None],
    )
    gap = terms.nelbo.item() - TWO_BUMPS.entropy().item()
    assert f"{gap:.4f}".lstrip("0") == printed


@pytest.mark.equation("eq-excess")
def test_a_worse_denoiser_pays_the_square_of_its_distance():
    _, x, noise, weight = grid_of_eight(121)
    logsnr = level(1.0)
    z_t = gaussian.diffuse(x, logsnr, noise)
    best = EIGHT_LEVELS.denoise(z_t, logsnr)
    least = weight @ (x - best).square()[:, 0]
    assert_close(EIGHT_LEVELS.mmse(logsnr[None]).squeeze(), least)
    for bad in (0.8 * best + 0.1 * z_t, torch.zeros_like(x), z_t.tanh()):
        excess = weight @ (best - bad).square()[:, 0]
        assert_close(weight @ (x - bad).square()[:, 0], least + excess)


@pytest.mark.equation("eq-pixel-posterior")
def test_own_evidence_times_what_the_other_pixel_says():
    place, joint = real(-0.5, 0.5), real(0.4, 0.1, 0.2, 0.3).reshape(2, 2)
    pair = exact.FiniteData(torch.cartesian_prod(place, place), joint.flatten())
    z, logsnr = real(0.3, -0.4), 0.5
    var = 1 / (1 + math.exp(logsnr))
    own = torch.exp(-0.5 * (z[:, None] - math.sqrt(1 - var) * place) ** 2 / var)
    pixels = own[0] * (joint @ own[1]), own[1] * (own[0] @ joint)
    want = torch.stack([p @ place / p.sum() for p in pixels])
    assert_close(pair.denoise(z[None], level(logsnr))[0], want)


def test_solution_wrong_noise_nearly_doubles_the_variance():
    """Exercise ex-elbo-ancestral."""
    s, t = level(1.0), level(0.9)
    c = -torch.expm1(t - s)
    p = gaussian.posterior(torch.ones(1, 1, dtype=FLOAT), gaussian.alpha(t).view(1, 1), s, t)
    wrong, right = p.mean**2 + 1 - gaussian.alpha(s) ** 2 * c, p.mean**2 + p.var
    assert (f"{wrong.item():.2f}", f"{right.item():.3f}") == ("1.90", "0.998")


def test_solution_a_dropped_term_beats_the_entropy():
    """Exercise ex-elbo-dropped."""
    costs = eight_level_elbo(Linear(3.0, -5.0), 300)
    dropped = (costs.prior + costs.diffusion).item()
    assert f"{dropped:.2f}" == "1.00" and dropped < ENTROPY
    assert f"{costs.reconstruction.item():.2f}" == "1.02"
    assert f"{costs.nelbo.item():.2f}" == "2.02"


def test_solution_the_best_variance_of_a_layer():
    """Exercise ex-elbo-variance: the closed form is the least cost, and it saves this much."""
    q = Normal(torch.zeros(1, 3, dtype=FLOAT), level(0.2))
    mean = torch.full((1, 3), 0.4, dtype=FLOAT)
    grid = torch.linspace(0.1, 1.0, 9001, dtype=FLOAT)
    cost = torch.cat([gaussian.kl(q, Normal(mean, v)) for v in grid])
    ell = gaussian.kl(q, Normal(mean, q.var))
    assert grid[cost.argmin()].item() == pytest.approx(0.2 + 0.16, abs=1e-4)
    assert cost.min().item() == pytest.approx(1.5 * math.log1p(2 * ell.item() / 3), abs=1e-7)
    saved = {}
    for steps in (10, 1000):
        lambda_s, lambda_t = levels(Linear(), steps, cost)
        layers = 0.5 * (lambda_s.exp() - lambda_t.exp()) * EIGHT_LEVELS.mmse(lambda_t)
        saved[steps] = (layers.sum() - 0.5 * torch.log1p(2 * layers).sum()).item()
        if steps == 10:
            assert f"{layers.sum():.2f} {0.5 * torch.log1p(2 * layers).sum():.2f}" == "4.58 2.43"
    assert f"{saved[1000]:.3f}" == "0.007"


def test_solution_one_layer_is_hopeless():
    """Exercise ex-elbo-one-layer."""
    assert f"{eight_level_elbo(Linear(), 1).nelbo.item():.1e}" == "1.3e+05"
