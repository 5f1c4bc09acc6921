"""Linear-Gaussian hierarchies against brute force: joint covariances, conditioning, optimizers."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vdm_lite.exact import LinearHierarchy, probabilistic_pca

F64 = torch.float64


def hierarchy(*sizes: int, seed: int = 0) -> LinearHierarchy:
    generator = torch.Generator().manual_seed(seed)
    pairs = itertools.pairwise(sizes)
    weights = [torch.randn(a, b, generator=generator, dtype=F64) for a, b in pairs]
    return LinearHierarchy(weights, [0.4 + 0.1 * t for t in range(len(weights))])


MODELS = [hierarchy(3, 2), hierarchy(3, 2, 1), hierarchy(4, 3, 3, 2), hierarchy(2, 3, 1, 2, 2)]


def joint_covariance(model: LinearHierarchy) -> Tensor:
    """Of (x, z_1, …, z_T), from the noises that they are linear in."""
    sizes = [len(model.weights[0]), *model.sizes]
    noises = torch.eye(sum(sizes), dtype=F64).split(sizes)
    rows = [noises[-1]]
    for t in range(len(model.weights) - 1, -1, -1):
        rows.insert(0, model.weights[t] @ rows[0] + model.stds[t] * noises[t])
    return torch.cat(rows) @ torch.cat(rows).T


@pytest.mark.parametrize("model", MODELS, ids=lambda m: str(m.sizes))
def test_likelihood_and_posterior_by_conditioning_the_joint(model):
    joint, dims = joint_covariance(model), len(model.weights[0])
    data, cross = joint[:dims, :dims], joint[dims:, :dims]
    x, _ = model.sample(5, torch.Generator().manual_seed(1))
    assert_close(model.covariance(), data)
    zero = torch.zeros(dims, dtype=F64)
    assert_close(model.log_prob(x), MultivariateNormal(zero, data).log_prob(x))
    gain = torch.linalg.solve(data, cross.T).T
    q = model.posterior(x)
    assert_close(q.mean, x @ gain.T)
    assert_close(q.covariance_matrix[0], joint[dims:, dims:] - gain @ cross.T)


def test_samples_have_the_joint_covariance():
    model = hierarchy(3, 2, 1)
    x, z = model.sample(100_000, torch.Generator().manual_seed(2))
    sampled = torch.cat([x, z], 1).T.cov()
    expected = joint_covariance(model)
    scale = expected.diagonal().sqrt()
    error = (sampled - expected) / (scale * scale[:, None])
    assert error.abs().max() < 5 * math.sqrt(2 / 100_000)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: str(m.sizes))
@pytest.mark.parametrize("family", ["posterior", "mean_field", "bottom_up", "top_down"])
def test_bound_plus_gap_is_the_evidence(model, family):
    x, _ = model.sample(4, torch.Generator().manual_seed(3))
    q = getattr(model, family)(x)
    assert_close(model.gap(x, q) - model.elbo(x, q).nelbo, model.log_prob(x))
    assert (model.gap(x, q) > -1e-12).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: str(m.sizes))
def test_both_directions_are_exact_with_full_covariances(model):
    x, _ = model.sample(3, torch.Generator().manual_seed(4))
    for chain in (model.top_down, model.bottom_up):
        full = chain(x, diagonal=False)
        assert_close(full.covariance_matrix, model.posterior(x).covariance_matrix)


def chain_covariance(blocks: list[Tensor], gains: list[Tensor]) -> Tensor:
    """Covariance of a chain whose layers have noise variances ``blocks``, in the order drawn."""
    rows = [torch.diag(block.exp().sqrt()) for block in blocks]
    noise = torch.block_diag(*rows)
    sizes, response = [len(block) for block in blocks], []
    for i, own in enumerate(noise.split(sizes)):
        response.append(own if i == 0 else own + gains[i - 1] @ response[-1])
    return torch.cat(response) @ torch.cat(response).T


@pytest.mark.parametrize("direction", ["bottom_up", "top_down"])
def test_no_chain_of_diagonal_layers_does_better(direction):
    model, zero = hierarchy(3, 2, 2), torch.zeros(1, 3, dtype=F64)
    best = model.gap(zero, getattr(model, direction)(zero))
    order = [0, 1, 2, 3] if direction == "bottom_up" else [2, 3, 0, 1]
    target = MultivariateNormal(
        torch.zeros(4, dtype=F64), model.posterior(zero).covariance_matrix[0][order][:, order]
    )
    blocks = [torch.zeros(2, dtype=F64, requires_grad=True) for _ in range(2)]
    gain = torch.zeros(2, 2, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([*blocks, gain], max_iter=200, line_search_fn="strong_wolfe")

    def divergence() -> Tensor:
        covariance = chain_covariance(blocks, [gain])
        return kl_divergence(MultivariateNormal(target.mean, covariance), target)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = divergence()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(divergence().detach(), best[0], atol=1e-8, rtol=1e-6)
    assert best[0] > 1e-3


def test_top_down_beats_bottom_up_where_columns_are_orthogonal():
    weights = [torch.tensor([[1.0, 0], [0, 2], [1, 0]], dtype=F64)]
    weights += [torch.tensor([[1.0], [0.8]], dtype=F64)]
    model = LinearHierarchy(weights, [0.5, 0.7])
    x, _ = model.sample(1)
    gaps = [
        model.gap(x, q).item() for q in (model.top_down(x), model.bottom_up(x), model.mean_field(x))
    ]
    assert abs(gaps[0]) < 1e-12 and 1e-3 < gaps[1] < gaps[2]


def test_mean_field_variances_are_the_best():
    model = hierarchy(3, 3)
    x, _ = model.sample(1)
    best = model.mean_field(x)
    for factor in (0.9, 1.1):
        worse = MultivariateNormal(best.mean, best.covariance_matrix * factor)
        assert model.gap(x, worse) > model.gap(x, best)


@pytest.mark.parametrize("latents", [1, 2, 4])
def test_principal_components_have_the_greatest_likelihood(latents):
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(4, 4, generator=generator, dtype=F64)
    covariance, std = root @ root.T, 0.8

    def cost(weight: Tensor) -> Tensor:
        model = LinearHierarchy([weight], [std])
        fitted = MultivariateNormal(torch.zeros(4, dtype=F64), model.covariance())
        data = MultivariateNormal(torch.zeros(4, dtype=F64), covariance)
        return kl_divergence(data, fitted)

    best = probabilistic_pca(covariance, latents, std).weights[0]
    noise = torch.randn(best.shape, generator=generator, dtype=F64)
    weight = (best + 0.1 * noise).contiguous().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cost(weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(cost(weight).detach(), cost(best), atol=1e-7, rtol=1e-6)


def test_directions_below_the_noise_collapse():
    variances = torch.tensor([4.0, 1.0, 0.5], dtype=F64)
    weight = probabilistic_pca(torch.diag(variances), 3, 0.9).weights[0]
    expected = (variances - 0.81).clamp(min=0).sqrt()
    assert_close(weight.abs(), torch.diag(expected))


def gap_for_other_data(weight: Tensor, n: int) -> Tensor:
    model = LinearHierarchy([weight], [1.0])
    x, _ = model.sample(4)
    return model.gap(x, model.mean_field(x[:n]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: LinearHierarchy([], []), "weights: expected at least one matrix"),
        (lambda w: LinearHierarchy([w], [1.0, 2.0]), "stds: expected 1 widths"),
        (lambda w: LinearHierarchy([w], [0.0]), r"stds\[0\]: expected a positive number, got 0.0"),
        (lambda w: LinearHierarchy([w, w.T], [1.0, -1.0]), r"stds\[1\]: expected a positive"),
        (
            lambda w: LinearHierarchy([w, w], [1.0, 1.0]),
            r"weights\[1\]: expected a matrix of 2 rows, got shape \(3, 2\)",
        ),
        (lambda w: LinearHierarchy([w[0]], [1.0]), r"weights\[0\]: expected a matrix"),
        (lambda w: LinearHierarchy([w.int()], [1.0]), r"weights\[0\]: expected a floating-point"),
        (lambda w: LinearHierarchy([w], [1.0]).log_prob(w), r"x: expected shape \(B, 3\)"),
        (
            lambda w: LinearHierarchy([w], [1.0]).posterior(torch.zeros(2, 3)),
            "x: expected torch.float64, as the weights, got torch.float32",
        ),
        (lambda w: LinearHierarchy([w], [1.0]).sample(0), "n: expected a whole number >= 1"),
        (
            lambda w: LinearHierarchy([w, w[:2].float()], [1.0, 1.0]),
            r"weights\[1\]: expected torch.float64 on cpu as weights\[0\], got torch.float32",
        ),
        (
            lambda w: gap_for_other_data(w, 1),
            r"q: expected a Gaussian of shape \(4, 2\), got \(1, 2\)",
        ),
        (
            lambda w: probabilistic_pca(w.T @ w, 1, -0.5),
            "std: expected a positive number, got -0.5",
        ),
        (lambda w: probabilistic_pca(w[0], 1, 0.5), "covariance: expected a square matrix"),
        (lambda w: probabilistic_pca(w, 1, 0.5), "covariance: expected a square matrix"),
        (lambda w: probabilistic_pca(w.T @ w, 3, 0.5), "latents: expected at most 2, got 3"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(3, 2, dtype=F64))
