"""Chapter 2, holes: one test for each labeled equation, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vdm_lite import data, elbo, gaussian, vae
from vdm_lite.aggregate import AggregatePosterior, grid
from vdm_lite.exact import GaussianMixture, LinearHierarchy, probabilistic_pca
from vdm_lite.gaussian import Normal
from vdm_lite.observation import Gaussian

FLOAT = torch.float64


def real(*values) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def posteriors(units: int = 2) -> Normal:
    mean = real([-1.2, 0.5], [0.3, 1.2], [1.1, -0.7], [-0.4, -1.5])[:, :units]
    return Normal(mean, real([0.2, 0.3], [0.5, 0.1], [0.15, 0.4], [0.3, 0.2])[:, :units])


def mixture(z: Tensor, q: Normal) -> Tensor:
    """1/N sum_n N(z; mean_n, var_n), from the density of one Gaussian coordinate."""
    offset = z[:, None] - q.mean
    bells = torch.exp(-0.5 * offset**2 / q.var) / (2 * math.pi * q.var).sqrt()
    return bells.prod(2).mean(1)


def cost(q: Normal) -> Tensor:
    """Mean KL to N(0, I), in closed form."""
    return 0.5 * (q.var + q.mean**2 - 1 - q.var.log()).sum(1).mean()


@pytest.mark.equation("eq-aggregate")
@pytest.mark.parametrize("units", [1, 2])
def test_aggregate_posterior_averages_the_posteriors(units):
    q = posteriors(units)
    z, cell = grid(units, 201, 6.0, q.mean)
    density = AggregatePosterior(q).log_prob(z).exp()
    assert_close(density, mixture(z, q))
    assert_close(density.sum() * cell, real(1.0)[0])


@pytest.mark.equation("eq-split")
@pytest.mark.parametrize("units", [1, 2])
def test_prior_cost_is_information_plus_mismatch(units):
    q = posteriors(units)
    information, mismatch = AggregatePosterior(q).split()
    assert_close(information + mismatch, cost(q))
    assert_close(information + mismatch, gaussian.kl(q, vae.standard_normal(q.mean)).mean())
    assert 0 < information < math.log(4) and mismatch > 0


@pytest.mark.equation("eq-split")
def test_information_agrees_with_draws():
    q = posteriors()
    each = Normal(q.mean.repeat(5000, 1), q.var.repeat(5000, 1))
    z = gaussian.draw(each, torch.Generator().manual_seed(0))
    ratio = gaussian.log_prob(each, z).sum(1) - mixture(z, q).log()
    off = AggregatePosterior(q).split().information - ratio.mean()
    assert abs(off) < 4 * ratio.std() / math.sqrt(len(ratio))


def linear_model() -> LinearHierarchy:
    return LinearHierarchy([real([1.0, 0.0], [0.5, 0.8], [0.0, 0.6])], [0.5])


def points_of(covariance: Tensor) -> Tensor:
    """Points of mean zero with exactly this covariance."""
    root = math.sqrt(len(covariance)) * torch.linalg.cholesky(covariance).T
    return torch.cat([root, -root])


@pytest.mark.equation("eq-linear-split")
@pytest.mark.parametrize("width", [1.0, 0.5, 4.0])
def test_linear_split_in_closed_form(width):
    model = linear_model()
    stretch = torch.diag(real(1.0, 1.0, width))
    covariance = stretch @ model.covariance() @ stretch
    exact = model.posterior(torch.eye(3, dtype=FLOAT))
    G, S = exact.mean.T, exact.covariance_matrix[0]
    A = G @ covariance @ G.T + S
    information = 0.5 * (A.logdet() - S.logdet())
    mismatch = 0.5 * (A.trace() - 2 - A.logdet())
    x = points_of(covariance)
    assert_close(information + mismatch, model.elbo(x, model.posterior(x)).prior.mean())
    if width == 1:  # its own data: no mismatch, and I(x; z) of the generative model
        W = model.weights[0]
        assert_close(A, torch.eye(2, dtype=FLOAT))
        assert_close(information, 0.5 * (torch.eye(2) + W.T @ W / 0.25).logdet())
    else:
        assert mismatch > 0.02


@pytest.mark.equation("eq-best-prior")
def test_no_prior_is_better_than_the_aggregate_posterior():
    q = posteriors()
    aggregate = AggregatePosterior(q)
    z, cell = grid(2, 241, 6.0, q.mean)
    entropy = 0.5 * torch.log(2 * math.pi * math.e * q.var).sum(1).mean()

    def prior_cost(log_pi: Tensor) -> Tensor:
        return -(mixture(z, q) * log_pi).sum() * cell - entropy

    information, mismatch = aggregate.split()
    best = prior_cost(aggregate.log_prob(z))
    assert_close(best, information)
    assert_close(prior_cost(-0.5 * (z**2).sum(1) - math.log(2 * math.pi)) - best, mismatch)
    shifted, stretched = (
        aggregate.log_prob(z + 0.1),
        aggregate.log_prob(0.9 * z) + 2 * math.log(0.9),
    )
    assert prior_cost(shifted) > best + 1e-3 and prior_cost(stretched) > best + 1e-3


@pytest.mark.equation("eq-hole-mass")
@pytest.mark.parametrize("factor", [1.5, 4.0, 20.0])
def test_mismatch_bounds_the_mass_of_holes(factor):
    aggregate = AggregatePosterior(posteriors())
    z, cell = grid(2, 241, 6.0, aggregate.q.mean)
    p = torch.exp(-0.5 * (z**2).sum(1)) / (2 * math.pi)
    q = aggregate.log_prob(z).exp()
    hole = q < p / factor
    P, Q = p[hole].sum() * cell, q[hole].sum() * cell
    least = Q * (Q / P).log() + (1 - Q) * ((1 - Q) / (1 - P)).log()
    assert factor * Q < P and 0 < least < aggregate.split().mismatch


@pytest.mark.equation("eq-hole-mass")
def test_bound_is_reached_by_a_prior_cut_off():
    # q = p on one side of 1, nothing on the other: Q = 0 and KL = -log(1 - P), here by quadrature.
    z, cell = grid(1, 200_001, 9.0, real(0.0))
    p = gaussian.log_prob(vae.standard_normal(z), z).exp()[:, 0]
    kept = z[:, 0] < 1
    P = p[~kept].sum() * cell
    q = p[kept] / (p[kept].sum() * cell)
    kl = (q * (q / p[kept]).log()).sum() * cell
    assert_close(1 - torch.exp(-kl), P, rtol=1e-6, atol=0)
    assert_close(P, 0.5 * torch.erfc(real(0.5).sqrt())[0], rtol=1e-3, atol=0)


EIGENVALUES = real(1.0, 0.5, 0.25, 0.1)


def covariance() -> Tensor:
    start = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=start, dtype=FLOAT))[0]
    return turn @ torch.diag(EIGENVALUES) @ turn.T


@pytest.mark.equation("eq-ppca")
@pytest.mark.parametrize("latents", [1, 2, 4])
def test_probabilistic_pca_has_the_greatest_likelihood(latents):
    s, x = math.sqrt(0.2), points_of(covariance())
    weights = probabilistic_pca(covariance(), latents, s).weights[0].clone().requires_grad_()
    best = LinearHierarchy([weights], [s]).log_prob(x).mean()
    (slope,) = torch.autograd.grad(best, weights)
    assert slope.abs().max() < 1e-10
    norms = weights.detach().square().sum(0)
    assert_close(norms, (EIGENVALUES[:latents] - s**2).clamp(min=0))
    for seed in range(8):
        start = torch.Generator().manual_seed(seed)
        other = weights + 0.3 * torch.randn(weights.shape, generator=start)
        assert LinearHierarchy([other.detach()], [s]).log_prob(x).mean() < best - 1e-4


@pytest.mark.equation("eq-beta-noise")
@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_beta_is_wider_noise(beta):
    encoder, decoder = nn.Linear(3, 4).double(), nn.Sequential(nn.Linear(2, 3), nn.Tanh()).double()
    x, s = torch.randn(6, 3, dtype=FLOAT), 0.4
    losses = [
        vae.VAE(encoder, decoder, Gaussian(std), 2).loss(
            x, beta=factor, generator=torch.Generator().manual_seed(1)
        )
        for std, factor in ((s, beta), (math.sqrt(beta) * s, 1.0))
    ]
    constant = math.log(2 * math.pi * s**2) - beta * math.log(2 * math.pi * beta * s**2)
    assert_close(losses[0], beta * losses[1] + 1.5 * constant)


def optimal_vae(beta: float, s: float) -> vae.VAE:
    """The linear VAE with the weights of eq-ppca and its exact posterior."""
    model = probabilistic_pca(covariance(), 4, math.sqrt(beta) * s)
    exact = model.posterior(torch.eye(4, dtype=FLOAT))
    variance = exact.covariance_matrix[0].diagonal()
    encoder, decoder = nn.Linear(4, 8).double(), nn.Linear(4, 4).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([exact.mean.T, torch.zeros(4, 4)]))
        raw = torch.log(torch.expm1(variance - vae.MIN_VARIANCE))
        encoder.bias.copy_(torch.cat([torch.zeros(4), raw]))
        decoder.weight.copy_(model.weights[0])
        decoder.bias.zero_()
    return vae.VAE(encoder, decoder, Gaussian(s), 4)


@pytest.mark.equation("eq-unit-cost")
@pytest.mark.parametrize(("beta", "active"), [(1.0, 3), (2.0, 2), (4.0, 1), (6.0, 0)])
def test_cost_of_each_unit_and_the_threshold(beta, active):
    s, x = math.sqrt(0.2), points_of(covariance())
    costs = optimal_vae(beta, s).unit_costs(x).detach()
    closed = (0.5 * (EIGENVALUES / (beta * s**2)).log()).clamp(min=0)
    assert_close(costs.mean(0), closed, atol=1e-8, rtol=1e-6)
    assert vae.active_units(costs) == active == int((beta * s**2 < EIGENVALUES).sum())


@pytest.mark.equation("eq-no-holes")
@pytest.mark.parametrize("level", [1.0, -2.0, -5.0, -8.0])
def test_top_of_a_diffusion_process_matches_the_prior(level):
    means, level = data.five_clusters().means.double(), real(level)[0]
    fifth = torch.full((5,), 0.2, dtype=FLOAT)
    toy = GaussianMixture(fifth, means, 0.5 * fifth)
    square = fifth @ (means.square() + 0.01)
    z, cell = grid(2, 241, 8.0, square)
    log_q = toy.log_marginal(z, level)
    mismatch = (log_q.exp() * (log_q + 0.5 * (z**2).sum(1) + math.log(2 * math.pi))).sum() * cell
    noise = torch.log(2 * math.pi * math.e * torch.sigmoid(-level))  # two coordinates
    information = -(log_q.exp() * log_q).sum() * cell - noise
    cost = elbo.prior(square.sqrt()[None], level)[0]
    assert_close(information + mismatch, cost, rtol=1e-5, atol=1e-9)
    limit = 0.5 * level.exp() * square.sum() + 0.5 * (2 * level).exp()
    assert 0 < mismatch < cost < limit < 12 * level.exp()


# What the exercises claim.


def test_narrow_posteriors_tell_everything_and_match_nothing():
    mean = real([-2.0], [-1.0], [1.0], [2.0])
    z, cell = grid(1, 4001, 7.0, mean)
    p = torch.exp(-0.5 * z[:, 0] ** 2) / math.sqrt(2 * math.pi)
    splits, holes = [], []
    for v in (0.1, 0.01, 0.0001):
        q = AggregatePosterior(Normal(mean, torch.full_like(mean, v)))
        splits.append(q.split(4001))
        assert_close(sum(splits[-1]), 0.5 * (mean.square().mean() + v - 1 - math.log(v)))
        holes.append(p[q.log_prob(z).exp() < p / 10].sum() * cell)
    assert_close(splits[1].information, real(math.log(4))[0], atol=1e-5, rtol=0)
    assert splits[0].mismatch + 0.5 < splits[1].mismatch < splits[2].mismatch - 2
    assert holes[0] < holes[1] < holes[2] and holes[2] > 0.9


def test_sums_of_posteriors_are_no_densities():
    z, cell = grid(1, 2001, 8.0, real(0.0))
    q = Normal(real([-1.5], [0.2], [1.8]), real([0.1], [0.3], [0.2]))
    x = torch.linspace(-20, 20, 8001, dtype=FLOAT)
    for weight, mass in ((1.0, 3.0), (1 / 3, 1.0)):
        density = weight * len(q.mean) * mixture(z, q)
        assert_close(density.sum() * cell, real(mass)[0])
    # A continuous x: without q(x) the integral over x is 1 / |g|, whatever z is.
    g, v = real(-0.4, 0.04)
    bells = torch.exp(-0.5 * (real(-1.0, 0.3, 2.0)[:, None] - g * x) ** 2 / v)
    assert_close((bells / (2 * math.pi * v).sqrt()).sum(1) * 0.005, (1 / g.abs()).expand(3))


def test_minibatch_information_cannot_exceed_the_log_of_the_batch():
    mean = torch.linspace(-3, 3, 40, dtype=FLOAT)[:, None]
    q = Normal(mean, torch.full_like(mean, 1e-3))
    full = AggregatePosterior(q).split(2001).information
    batch = AggregatePosterior(Normal(mean[:4], q.var[:4]))
    z = gaussian.draw(Normal(mean[:4], q.var[:4]))
    estimate = gaussian.log_prob(Normal(mean[:4], q.var[:4]), z).sum(1) - batch.log_prob(z)
    assert (estimate <= math.log(4) + 1e-9).all() and full > 2 * math.log(4)


def test_gaussian_with_the_right_moments_costs_least():
    q = posteriors()
    z, cell = grid(2, 241, 6.0, q.mean)
    center, spread = q.mean.mean(0), q.var.mean(0) + q.mean.var(0, correction=0)

    def cross_entropy(mean: Tensor, var: Tensor) -> Tensor:
        log_pi = gaussian.log_prob(Normal(mean[None], var[None]), z).sum(1)
        return -(mixture(z, q) * log_pi).sum() * cell

    gain = cross_entropy(0 * center, 0 * spread + 1) - cross_entropy(center, spread)
    assert_close(gain, 0.5 * (spread + center**2 - 1 - spread.log()).sum())
    assert cross_entropy(center + 0.1, spread) > cross_entropy(center, spread)
    assert cross_entropy(center, q.var.mean(0)) > cross_entropy(center, spread)


def test_counted_units_and_the_covariance_of_samples():
    model = probabilistic_pca(torch.diag(real(4.0, 1.0, 0.25)), 3, math.sqrt(0.5))
    assert (model.weights[0].norm(dim=0) > 1e-6).sum() == 2
    assert_close(model.covariance(), torch.diag(real(4.0, 1.0, 0.5)))


def test_level_at_which_the_prior_cost_is_a_thousandth():
    pixels = torch.full((1, 784), math.sqrt(0.6), dtype=FLOAT)
    costs = [elbo.prior(pixels, real(level)[0]).item() for level in (-12.36, -12.37, -5.0)]
    assert costs[1] < 1e-3 < costs[0] and abs(costs[2] - 1.6) < 0.05
    assert abs(costs[2] / (784 * math.log(2)) - 0.003) < 2e-4
