"""Chapter 1, variational autoencoders: one test for each labeled equation, in float64."""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vdm_lite import figures, gaussian, vae
from vdm_lite.exact import LinearHierarchy
from vdm_lite.figures import ch01_autoencoders as ch01
from vdm_lite.observation import Gaussian

FLOAT = torch.float64
STD = 0.5


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


W = torch.tensor([[1.0, 0.7], [0.4, 1.1], [0.8, 0.6]], dtype=FLOAT)
X = torch.tensor([[1.2, 0.3, 0.9], [-0.5, 0.8, 0.1]], dtype=FLOAT)
TOY, TOY_X = LinearHierarchy([real(1.0)[:, None]], [STD]), real(1.5)[:, None]
MODEL = LinearHierarchy([W], [STD])
PRECISION = torch.eye(2, dtype=FLOAT) + W.T @ W / STD**2


def bell(z: Tensor, mean: Tensor | float, var: Tensor | float) -> Tensor:
    """The logarithm of a normal density, written out."""
    var = torch.as_tensor(var, dtype=FLOAT)
    return -0.5 * ((z - mean) ** 2 / var + torch.log(2 * math.pi * var))


def line(half_width: float = 9.0, points: int = 6001) -> tuple[Tensor, float]:
    """A fine grid and its spacing."""
    z = torch.linspace(-half_width, half_width, points, dtype=FLOAT)
    return z, 2 * half_width / (points - 1)


def quadrature(nodes: int = 20) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an average over a standard normal variable."""
    at, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(at), torch.from_numpy(weights / weights.sum())


def one(mean: float, var: float) -> MultivariateNormal:
    """A ``q`` for the toy with one latent."""
    return MultivariateNormal(real(mean)[None], real(var)[None, None])


def as_vae(
    model: LinearHierarchy, infer: Callable[[Tensor], MultivariateNormal] | None = None
) -> vae.VAE:
    """The linear model with this inference, in the class that images use."""

    def encoder(x: Tensor) -> Tensor:
        q = (infer or model.mean_field)(x)
        return torch.cat([q.mean, (q.variance - vae.MIN_VARIANCE).expm1().log()], 1)

    weight, seen = model.weights[0], Gaussian(model.stds[0])
    return vae.VAE(encoder, lambda z: z @ weight.T, seen, weight.shape[1])


# One test for each equation


@pytest.mark.equation("eq-evidence")
def test_evidence_is_the_average_likelihood_over_the_prior():
    z, step = line()
    prior = gaussian.log_prob(vae.standard_normal(z[:, None]), z[:, None])[:, 0]
    likelihood = Gaussian(STD).log_prob(TOY_X.expand(len(z), 1), z[:, None])
    assert_close((prior + likelihood).exp().sum() * step, TOY.log_prob(TOY_X)[0].exp())


@pytest.mark.equation("eq-linear-evidence")
def test_linear_evidence_is_the_integral_over_two_latents():
    side, step = line(8.0, 321)
    z = torch.cartesian_prod(side, side)
    log_p = bell(X[:, None], z @ W.T, STD**2).sum(-1) + bell(z, 0.0, 1.0).sum(-1)
    assert_close(MODEL.log_prob(X), log_p.logsumexp(1) + 2 * math.log(step))
    assert_close(MODEL.covariance(), W @ W.T + STD**2 * torch.eye(3, dtype=FLOAT))


@pytest.mark.equation("eq-naive-error")
def test_error_of_the_naive_average():
    dims, (z, step) = 2, line()
    model = LinearHierarchy([torch.eye(dims, dtype=FLOAT)], [STD])
    sharper = LinearHierarchy(model.weights, [STD / math.sqrt(2)])
    x = real(0.8, -1.3)[None]
    law = sharper.log_prob(x) - 2 * model.log_prob(x) - dims / 2 * math.log(4 * math.pi * STD**2)
    each, weights = bell(x[0, :, None], z, STD**2).exp(), bell(z, 0.0, 1.0).exp() * step
    second = (each.square() @ weights).prod() / (each @ weights).prod() ** 2
    assert_close(law.exp()[0], second)
    z = torch.randn(400_000, dims, dtype=FLOAT)
    estimates = Gaussian(STD).log_prob(x.expand_as(z), z).exp().view(-1, 100).mean(1)
    squared = (estimates / model.log_prob(x).exp() - 1).square().mean()
    assert_close(squared, law.expm1()[0] / 100, rtol=0.15, atol=0)


@pytest.mark.equation("eq-vae-elbo")
def test_bound_is_reconstruction_and_divergence_and_lies_below():
    z, step = line()
    q = bell(z, 0.9, 0.3)
    reconstruction = -(q.exp() * bell(TOY_X, z, STD**2)).sum() * step
    prior = (q.exp() * (q - bell(z, 0.0, 1.0))).sum() * step
    costs = TOY.elbo(TOY_X, one(0.9, 0.3))
    assert_close((costs.reconstruction[0], costs.prior[0]), (reconstruction, prior))
    assert -costs.nelbo < TOY.log_prob(TOY_X)


@pytest.mark.equation("eq-vae-elbo")
def test_vae_estimates_the_exact_bound():
    crowd = X[:1].expand(40_000, 3)
    costs, exact = as_vae(MODEL).elbo(crowd), MODEL.elbo(X[:1], MODEL.mean_field(X[:1]))
    assert_close(costs.prior[:1], exact.prior)
    error = costs.reconstruction.std() / 200
    assert (costs.reconstruction.mean() - exact.reconstruction[0]).abs() < 4 * error


@pytest.mark.equation("eq-evidence-gap")
@pytest.mark.parametrize("choice", [(1.2, 0.2), (0.9, 0.3), (0.0, 1.0), (2.0, 0.01)])
def test_gap_is_the_divergence_from_the_posterior(choice):
    z, step = line()
    posterior = bell(z, 0.0, 1.0) + bell(TOY_X, z, STD**2) - TOY.log_prob(TOY_X)
    q = bell(z, *choice)
    gap = (q.exp() * (q - posterior)).sum() * step
    assert_close(TOY.log_prob(TOY_X) + TOY.elbo(TOY_X, one(*choice)).nelbo, gap[None])
    assert_close(TOY.gap(TOY_X, one(*choice)), gap[None])


@pytest.mark.equation("eq-joint-kl")
def test_divergence_of_the_joints():
    root = torch.tensor([[1.5, 0.0, 0.0], [0.3, 1.0, 0.0], [0.2, -0.4, 0.8]], dtype=FLOAT)
    data, zero = MultivariateNormal(torch.zeros(3, dtype=FLOAT), scale_tril=root), real(*5 * [0.0])
    points = math.sqrt(3) * torch.cat([root.T, -root.T])  # their average of a quadratic is exact
    q = MODEL.mean_field(points)
    gain = torch.linalg.solve(PRECISION, W.T) / STD**2
    cov = data.covariance_matrix
    q_zz = gain @ cov @ gain.T + torch.diag(1 / PRECISION.diagonal())
    q_joint = torch.cat([torch.cat([cov, cov @ gain.T], 1), torch.cat([gain @ cov, q_zz], 1)])
    p_xx, eye = W @ W.T + STD**2 * torch.eye(3, dtype=FLOAT), torch.eye(2, dtype=FLOAT)
    p_joint = torch.cat([torch.cat([p_xx, W], 1), torch.cat([W.T, eye], 1)])
    joint = kl_divergence(MultivariateNormal(zero, q_joint), MultivariateNormal(zero, p_joint))
    assert_close(MODEL.elbo(points, q).nelbo.mean() - data.entropy(), joint)
    model_part = kl_divergence(data, MultivariateNormal(data.mean, p_xx))
    assert_close(model_part + MODEL.gap(points, q).mean(), joint)


@pytest.mark.equation("eq-linear-posterior")
def test_linear_posterior_is_bayes():
    posterior, z = MODEL.posterior(X), torch.tensor([[0.3, -1.0], [0.6, 0.2]], dtype=FLOAT)
    joint = bell(X, z @ W.T, STD**2).sum(1) + bell(z, 0.0, 1.0).sum(1)
    assert_close(posterior.log_prob(z), joint - MODEL.log_prob(X))
    assert_close(MODEL.precision(), PRECISION)
    assert_close(posterior.mean, X @ W @ torch.linalg.inv(PRECISION) / STD**2)
    assert_close(-MODEL.elbo(X, posterior).nelbo, MODEL.log_prob(X), rtol=0, atol=1e-6)


@pytest.mark.equation("eq-mean-field")
def test_best_mean_field_and_its_gap():
    best = MODEL.mean_field(X)
    diagonal = PRECISION.diagonal()
    law = 0.5 * (diagonal.log().sum() - torch.logdet(PRECISION))
    assert_close(best.variance, (1 / diagonal).expand(2, 2))
    gap = MODEL.log_prob(X) + MODEL.elbo(X, best).nelbo
    assert_close(gap, law.expand(2), rtol=0, atol=1e-6)
    for factor in (real(1.05, 1.0), real(1.0, 0.95)):  # any other is worse
        other = MultivariateNormal(best.mean, torch.diag(factor / diagonal))
        assert (MODEL.gap(X, other) > gap).all()


@pytest.mark.equation("eq-gaussian-kl")
@pytest.mark.parametrize("q", [(0.6, 0.2), (-1.0, 1.7), (0.0, 0.7)])
def test_gaussian_kl_is_the_integral(q):
    z, step = line(14.0, 12001)
    integral = (bell(z, *q).exp() * (bell(z, *q) - bell(z, -0.3, 0.7))).sum() * step
    pair = [gaussian.Normal(real(mean)[None], real(var)[None]) for mean, var in (q, (-0.3, 0.7))]
    assert_close(gaussian.kl(*pair), integral[None])
    assert_close(gaussian.kl_per_unit(*pair), integral[None, None])
    two = [gaussian.Normal(n.mean.expand(1, 2), n.var.expand(1, 2)) for n in pair]
    assert_close(gaussian.kl(*two), 2 * integral[None])  # one unit alone cannot tell sum from mean


@pytest.mark.equation("eq-iwae")
def test_importance_bound_is_exact_for_the_exact_posterior():
    model = as_vae(TOY, TOY.posterior)
    x = real(1.5, -0.4)[:, None]
    for k in (1, 4):
        assert_close(model.importance_bound(x, k), TOY.log_prob(x))


@pytest.mark.equation("eq-iwae")
def test_importance_bound_of_two_draws_is_its_integral_and_rises():
    shifted = as_vae(TOY, lambda x: MultivariateNormal(0.6 * x, real(0.3)[None]))
    at, weights = quadrature(80)
    z = 0.9 + math.sqrt(0.3) * at
    log_w = bell(z, 0.0, 1.0) + bell(TOY_X[0], z, STD**2) - bell(z, 0.9, 0.3)
    two = torch.logaddexp(log_w, log_w[:, None]) - math.log(2)
    exact = {1: weights @ log_w, 2: weights @ two @ weights}
    assert exact[1] < exact[2] < TOY.log_prob(TOY_X)[0]
    for k, truth in exact.items():
        draws = shifted.importance_bound(TOY_X.expand(100_000, 1), k)
        assert (draws.mean() - truth).abs() < 4 * draws.std() / math.sqrt(len(draws))


@pytest.mark.equation("eq-reparameterization")
def test_draw_has_the_moments_and_the_slopes():
    mean = torch.full((200_000, 1), 0.4, dtype=FLOAT, requires_grad=True)
    std = torch.full((200_000, 1), 0.8, dtype=FLOAT, requires_grad=True)
    z = gaussian.draw(gaussian.Normal(mean, std**2))
    assert abs(z.mean() - 0.4) < 4 * 0.8 / math.sqrt(200_000)
    assert abs(z.var() - 0.64) < 4 * 0.64 * math.sqrt(2 / 200_000)
    by_mean, by_std = torch.autograd.grad(z.sin().sum(), (mean, std))
    decay = math.exp(-0.32)  # E sin z = sin(mean) exp(-std^2 / 2)
    for slopes, truth in ((by_mean, math.cos(0.4) * decay), (by_std, -0.8 * math.sin(0.4) * decay)):
        assert abs(slopes.mean() - truth) < 4 * slopes.std() / math.sqrt(200_000)


@pytest.mark.equation("eq-gradient-variance")
def test_variances_of_two_gradients():
    (precision, m), (mu, v), (at, weights) = (5.0, 1.2), (0.9, 0.3), quadrature(30)
    level = TOY.log_prob(TOY_X).item() + 0.5 * math.log(precision / (2 * math.pi))
    for n in (1, 2):
        delta, root = mu - m, math.sqrt(v)
        c = n * level - 0.5 * precision * (n * delta**2 + (n + 2) * v)
        law = precision**2 * ((n + 1) * delta**2 + (n + 2) / 2 * v) + c**2 / v
        eps = torch.cartesian_prod(*n * [at]).view(-1, n)
        weight = torch.cartesian_prod(*n * [weights]).view(-1, n).prod(1)
        mean = torch.full_like(eps, mu, requires_grad=True)
        q = gaussian.Normal(mean, torch.full_like(eps, v))
        z = q.mean + root * eps
        seen = gaussian.Normal(z, real(STD**2))
        f = gaussian.log_prob(seen, torch.full_like(z, 1.5))
        f = (f + gaussian.log_prob(vae.standard_normal(z), z)).sum(1)
        (path,) = torch.autograd.grad(f.sum(), mean)
        (score,) = torch.autograd.grad(gaussian.log_prob(q, z.detach()).sum(), mean)
        for estimate, variance in ((path[:, 0], precision**2 * v), (f * score[:, 0], law)):
            first, second = weight @ estimate, weight @ estimate**2
            assert_close(first.item(), -precision * delta)
            assert_close((second - first**2).item(), variance)


@pytest.mark.equation("eq-amortization")
def test_amortization_adds_the_squared_error_of_the_mean():
    blurred, exact = MODEL.mean_field(X.round()), MODEL.posterior(X)
    error = blurred.mean - exact.mean
    family = 0.5 * (PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))
    amortization = 0.5 * ((error @ PRECISION) * error).sum(1)
    assert (amortization > 0.01).all()
    assert_close(MODEL.gap(X, blurred), family + amortization)
    assert_close(MODEL.log_prob(X) + MODEL.elbo(X, blurred).nelbo, family + amortization)


def test_score_function_wins_where_slopes_are_wilder_than_values():
    omega, std, (at, weights) = 8.0, 0.5, quadrature(80)
    z = 0.3 + std * at
    path, score = omega * (omega * z).cos(), (omega * z).sin() * at / std
    assert_close((weights @ path).item(), (weights @ score).item())
    assert weights @ path**2 > 5 * (weights @ score**2)


@pytest.mark.equation("eq-iwae")
def test_weights_of_the_mean_field_have_no_finite_variance():
    tails = 2 * PRECISION - PRECISION.diagonal().diag()
    values, vectors = torch.linalg.eigh(tails)
    assert values[0] < 0
    mean_field, far = MODEL.mean_field(X[:1]), vectors[:, 0] * real(0.0, 2.0, 4.0)[:, None]
    z = mean_field.mean + far
    log_p = bell(X[:1], z @ W.T, STD**2).sum(1) + bell(z, 0.0, 1.0).sum(1)
    integrand = 2 * log_p - mean_field.log_prob(z)  # of the second moment: it grows outwards
    assert_close(integrand - integrand[0], -0.5 * values[0] * real(0.0, 4.0, 16.0))


# Exercises


def test_spotted_errors_of_the_divergence():
    mean, var = real(0.0, 0.7), real(0.2, 0.2)
    right = gaussian.kl(gaussian.Normal(mean[None], var[None]), vae.standard_normal(mean[None]))
    good = 0.5 * (mean**2 + var - var.log() - 1)
    assert_close(right, good.sum()[None])
    # As Keras's example had it: the variance as the width of the draw, and a mean over two latents.
    drawn = 0.5 * (mean**2 + var**2 - 2 * var.log() - 1)
    assert_close(drawn - good, 0.5 * (var**2 - var - var.log()))
    assert ((drawn - good)[0].item()) == pytest.approx(0.72, abs=5e-3)
    for v in real(1e-3, 0.5, 0.99, 1.01, 30.0):
        assert v**2 - v - v.log() > 0
    z = mean + var * torch.randn(100_000, 2, dtype=FLOAT)
    assert_close(z.var(0), var**2, rtol=0.03, atol=0)
    assert_close(good.mean()[None], right / 2)
    wrong_sign = 0.5 * (mean**2 + var + var.log() - 1)
    assert_close(wrong_sign[0].item(), -1.2, atol=5e-3, rtol=0)
    assert_close(good[0].item(), 0.4, atol=5e-3, rtol=0)
    assert_close((mean**2 + var - var.log() - 1).sum()[None], 2 * right)  # the missing half


@pytest.mark.parametrize("pixels", [3, 196])
def test_a_mean_over_pixels_alone_multiplies_the_divergence(pixels):
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(pixels, 4).double(), nn.Linear(2, pixels).double()
    model = vae.VAE(encoder, decoder, Gaussian(STD), 2)
    x = torch.randn(5, pixels, dtype=FLOAT)
    costs = model.elbo(x, torch.Generator().manual_seed(1))
    mixed = costs.reconstruction / pixels + costs.prior
    beta = model.loss(x, beta=pixels, generator=torch.Generator().manual_seed(1))
    assert_close(pixels * mixed, beta)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_terms_without_the_latent_may_be_left_out(n):
    """The score-function estimate of d/dmu_1 with f_1 only: unbiased, with n = 1's variance."""
    (precision, m), (mu, v), (at, weights) = (5.0, 1.2), (0.9, 0.3), quadrature(30)
    eps = torch.cartesian_prod(*n * [at]).view(-1, n)
    weight = torch.cartesian_prod(*n * [weights]).view(-1, n).prod(1)
    z = mu + math.sqrt(v) * eps
    terms, score = bell(z, 0.0, 1.0) + bell(TOY_X[0], z, STD**2), eps[:, 0] / math.sqrt(v)
    own = terms[:, 0] - weight @ (terms[:, 0] * eps[:, 0] ** 2)  # minus the best constant
    first, second = weight @ (own * score), weight @ (own * score) ** 2
    assert_close(first.item(), (weight @ (terms.sum(1) * score)).item())
    delta = mu - m
    law = precision**2 * (2 * delta**2 + 1.5 * v)
    assert_close((second - first**2).item(), law)


def test_price_of_independence():
    for rho in (0.3, 0.9):
        covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=FLOAT)
        exact = MultivariateNormal(real(0.0, 0.0), covariance)
        q = MultivariateNormal(real(0.0, 0.0), (1 - rho**2) * torch.eye(2, dtype=FLOAT))
        gap = kl_divergence(q, exact).item()
        assert_close(gap, -0.5 * math.log(1 - rho**2))
    assert_close(gap, 0.830, atol=5e-4, rtol=0)


def test_gap_of_a_shifted_q_is_half_the_variance_of_the_log_weight():
    delta, precision = 0.4, 5.0
    at, weights = quadrature()
    z = 1.2 + delta + at / math.sqrt(precision)
    log_w = bell(z, 0.0, 1.0) + bell(TOY_X[0], z, STD**2) - bell(z, 1.2 + delta, 1 / precision)
    mean = weights @ log_w
    variance = weights @ (log_w - mean) ** 2
    gap = TOY.gap(TOY_X, one(1.2 + delta, 1 / precision))[0]
    assert_close(gap, variance / 2)
    assert_close(gap.item(), 0.5 * precision * delta**2)
    second = weights @ (2 * (log_w - TOY.log_prob(TOY_X))).exp()
    assert_close(second.item() - 1, math.expm1(2 * gap.item()))


@pytest.mark.parametrize("draws,short", [(1_000, 1.5), (100_000, 0.4)])
def test_a_gap_of_ten_nats_takes_many_draws(draws, short):
    gap, repeats = 10.0, 40_000_000 // draws
    bounds = []
    for _ in range(repeats // 100):
        log_w = -gap + math.sqrt(2 * gap) * torch.randn(100, draws)
        bounds.append(log_w.logsumexp(1) - math.log(draws))
    assert abs(-torch.cat(bounds).mean().item() - short) < 0.15  # 5 standard errors


def test_smallest_eigenvalue_makes_the_model_exact():
    root = torch.tensor([[1.5, 0.0, 0.0], [0.3, 1.0, 0.0], [0.2, -0.4, 0.8]], dtype=FLOAT)
    values, vectors = torch.linalg.eigh(root @ root.T)
    weight = vectors[:, 1:] * (values[1:] - values[0]).sqrt()
    assert_close(LinearHierarchy([weight], [values[0].sqrt().item()]).covariance(), root @ root.T)


def test_path_gradient_at_the_exact_posterior_has_no_noise():
    posterior = TOY.posterior(TOY_X)
    mean = posterior.mean.expand(100, 1).clone().requires_grad_()
    var = posterior.variance.expand(100, 1)
    z = gaussian.draw(gaussian.Normal(mean, var))
    log_w = bell(z, 0.0, 1.0) + bell(TOY_X, z, STD**2)
    log_w = log_w - gaussian.log_prob(gaussian.Normal(mean.detach(), var), z)
    (path,) = torch.autograd.grad(log_w.sum(), mean)
    assert path.abs().max() < 1e-12


# Figures


def test_figures_draw():
    figures.use_style()
    ch01.monte_carlo_errors([1, 2], real(0.1, 0.2), real(0.1, 0.2))
    ch01.posterior_contours(MODEL.posterior(X), MODEL.mean_field(X))
    exact = gaussian.Normal(real(1.2), real(0.2))
    view = (exact, TOY.elbo(TOY_X, one(1.2, 0.2)))
    ch01.explorer(exact, 1.9, {"one": view, "two": view})
    ch01.importance_bounds([1, 2], real(-2.0, -1.9), real(0.1, 0.1), -1.8)
    four = {name: real(1, 2) for name in "abcd"}
    ch01.gradient_variances([1, 2], four, four)
    ch01.image_rows({"a": torch.zeros(3, 1, 4, 4), "b": torch.zeros(3, 1, 4, 4)})
    z, _ = line(5.0, 101)
    ch01.two_modes(z, z.abs(), [z**2, z**2])
    plt.close("all")
