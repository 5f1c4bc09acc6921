"""Chapter 3, hierarchies: one test for each labeled equation, in float64, and its other numbers."""

import itertools
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from vdm_lite import gaussian
from vdm_lite.exact import LinearHierarchy, smallest_gap
from vdm_lite.figures import ch03_hierarchies as ch03
from vdm_lite.gaussian import Normal
from vdm_lite.hierarchy import BottomUp, Hierarchy, TopDown, merge, to_message
from vdm_lite.nets import Rungs, perceptron
from vdm_lite.observation import Gaussian
from vdm_lite.runs.ch03 import hierarchies
from vdm_lite.vae import MIN_VARIANCE, to_normal

FLOAT = torch.float64
S, S_1 = 1.5, 0.5


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=FLOAT)


W, OBLIQUE = matrix([1, 1], [1, -1], [0, 1]), matrix([1, 1], [1, 0.5], [0, 1])
COMMON = matrix([1], [1])
TOY = LinearHierarchy([W, COMMON], [S, S_1])
SLANTED = LinearHierarchy([OBLIQUE, COMMON], [S, S_1])
SCALAR = LinearHierarchy([matrix([0.3]), matrix([0.9])], [1.0, 0.19**0.5])
X = matrix([0.4, -1.2, 0.9], [1.5, 0.3, -0.7])


def deep() -> LinearHierarchy:
    """Three layers of 3, 2 and 2 units with dense weights."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(4, 3), (3, 2), (2, 2)]
    weights = [torch.randn(shape, generator=generator, dtype=FLOAT) for shape in shapes]
    return LinearHierarchy(weights, [0.8, 0.6, 0.7])


def log_normal(value: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    std = torch.as_tensor(std, dtype=FLOAT)
    square = ((value - mean) / std) ** 2
    return (-0.5 * square - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def stacked(model: LinearHierarchy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of z given x, by conditioning the joint covariance of (z, x).

    The joint is that of a linear recipe v = R v + noise with v = (x, z_1, …, z_T).
    """
    sizes = [len(model.weights[0]), *model.sizes]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    recipe, noise = torch.zeros(sum(sizes), sum(sizes), dtype=FLOAT), []
    for i, weight in enumerate(model.weights):
        rows, columns = starts[i], starts[i + 1]
        recipe[rows : rows + sizes[i], columns : columns + sizes[i + 1]] = weight
        noise += sizes[i] * [model.stds[i] ** 2]
    solve = torch.linalg.inv(torch.eye(len(recipe), dtype=FLOAT) - recipe)
    joint = solve @ torch.diag(real(*noise, *sizes[-1] * [1.0])) @ solve.T
    d = sizes[0]
    gain = joint[d:, :d] @ torch.linalg.inv(joint[:d, :d])
    return x @ gain.T, joint[d:, d:] - gain @ joint[:d, d:]


def mean_field_gap(precision: Tensor) -> Tensor:
    return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))


def networks(kind: str) -> Hierarchy:
    """Three layers of 4, 3 and 2 units with random weights."""
    torch.manual_seed(3)
    sizes, seen = (4, 3, 2), Gaussian(0.5)
    decoders = [perceptron(4, 3, 16), perceptron(3, 8, 16), perceptron(2, 6, 16)]
    encoders = [perceptron(3, 8, 16), perceptron(4, 6, 16), perceptron(3, 4, 16)]
    if kind == "bottom-up":
        return BottomUp(encoders, decoders, seen, sizes).double().requires_grad_(False)
    return TopDown(Rungs((3,), sizes, 16), decoders, seen, sizes).double().requires_grad_(False)


def assert_same_mean(a: Tensor, b: Tensor) -> None:
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    assert abs(a.mean() - b.mean()) < 4 * error


@pytest.mark.equation("eq-hierarchy")
def test_the_joint_is_the_product_of_the_steps():
    _, z = TOY.sample(2, torch.Generator().manual_seed(0))
    joint = log_normal(z[:, 2:], real(0), 1.0) + log_normal(z[:, :2], z[:, 2:] @ COMMON.T, S_1)
    joint = joint + log_normal(X, z[:, :2] @ W.T, S)
    assert_close(joint - TOY.posterior(X).log_prob(z), TOY.log_prob(X))


@pytest.mark.equation("eq-directions")
def test_bottom_up_is_a_product_that_climbs():
    model = networks("bottom-up")
    layers = model.infer(X, torch.Generator().manual_seed(1))
    below, log_q = X, 0.0
    for encoder, layer, size in zip(model.encoders, layers, model.sizes, strict=True):
        mean, raw = encoder(below).split(size, 1)  # this layer looks at the one below only
        std = (raw.exp().log1p() + MIN_VARIANCE).sqrt()
        log_q, below = log_q + log_normal(layer.z, mean, std), layer.z
    weight = model.log_weight(X, torch.Generator().manual_seed(1))
    assert_close(weight, log_joint(model, X, [layer.z for layer in layers]) - log_q)


@pytest.mark.equation("eq-directions")
def test_top_down_is_a_product_that_descends_and_sees_the_data():
    model = networks("top-down")
    layers = model.infer(X, torch.Generator().manual_seed(1))
    messages, log_q = model.encoder(X), 0.0
    for t in (3, 2, 1):
        message, layer = to_message(messages[t - 1], model.sizes[t - 1]), layers[t - 1]
        p = model.below(t + 1, layers[t].z) if t < 3 else Normal(0 * layer.z, 1 + 0 * layer.z)
        precision = 1 / p.var + 1 / message.var
        mean = (p.mean / p.var + message.mean / message.var) / precision
        log_q = log_q + log_normal(layer.z, mean, precision**-0.5)
    weight = model.log_weight(X, torch.Generator().manual_seed(1))
    assert_close(weight, log_joint(model, X, [layer.z for layer in layers]) - log_q)


def log_joint(model: Hierarchy, x: Tensor, z: list[Tensor]) -> Tensor:
    """``log p(x, z_{1:T})``, the product of the generative steps."""
    total = log_normal(x, model.decoder(z[0]), 0.5) + log_normal(z[-1], 0 * z[-1], 1.0)
    for below, above, step in zip(z[:-1], z[1:], model.transitions, strict=True):
        p = to_normal(step(above), below.shape[1])
        total = total + log_normal(below, p.mean, p.var.sqrt())
    return total


@pytest.mark.equation("eq-posterior-directions")
@pytest.mark.parametrize("model", [TOY, SLANTED, deep()])
def test_the_posterior_is_a_chain_in_both_directions(model):
    x, _ = model.sample(3, torch.Generator().manual_seed(2))
    mean, covariance = stacked(model, x)
    for q in (model.bottom_up(x, diagonal=False), model.top_down(x, diagonal=False)):
        assert_close(q.mean, mean)
        assert_close(q.covariance_matrix, covariance.expand_as(q.covariance_matrix))


@pytest.mark.equation("eq-generative-feedback")
def test_a_layer_feels_all_layers_above():
    """Three scalars z_3 -> z_2 -> z_1 -> x: two integrals over the layers above, on a grid."""
    weights, stds = (0.5, 0.8, -0.7), (0.6, 0.5, 0.4)
    model = LinearHierarchy([matrix([w]) for w in weights], stds)
    grid = torch.linspace(-9, 9, 1801, dtype=FLOAT)
    prior = log_normal(grid[:, None], real(0), 1.0).exp()
    for weight, std in zip(weights[:0:-1], stds[:0:-1], strict=True):
        step = log_normal(grid[:, None, None], weight * grid[:, None], std).exp()
        prior = step @ prior * 0.01
    x = real(1.3)
    product = log_normal(x, weights[0] * grid[:, None], stds[0]).exp() * prior
    q = model.posterior(x[None])
    answer = log_normal(grid[:, None], q.mean[0, 0], q.variance[0, 0].sqrt()).exp()
    assert_close(product / product.sum() / 0.01, answer, rtol=1e-6, atol=1e-10)


@pytest.mark.equation("eq-toy-precisions")
@pytest.mark.parametrize("weight", [W, OBLIQUE])
def test_precisions_of_the_toy(weight):
    b = real(1.0, 0.7)
    model = LinearHierarchy([weight, b[:, None]], [S, S_1])
    likelihood, eye = weight.T @ weight / S**2, torch.eye(2, dtype=FLOAT)
    coupled = likelihood + eye / S_1**2 - torch.outer(b, b) / (S_1**2 * (S_1**2 + b @ b))
    assert_close(coupled, likelihood + torch.linalg.inv(S_1**2 * eye + torch.outer(b, b)))
    covariance = model.posterior(X).covariance_matrix[0]
    assert_close(torch.linalg.inv(covariance[:2, :2]), coupled)
    assert_close(torch.linalg.inv(covariance)[:2, :2], likelihood + eye / S_1**2)
    assert_close(model.precision()[:2, :2], likelihood + eye / S_1**2)


@pytest.mark.equation("eq-chain-gap")
@pytest.mark.parametrize("model", [TOY, SLANTED, deep()])
def test_gap_of_a_chain_is_a_sum_of_mean_field_gaps(model):
    x, _ = model.sample(2, torch.Generator().manual_seed(2))
    covariance = stacked(model, x)[1]
    units = torch.arange(len(covariance)).split(model.sizes)

    def gap(order: list[Tensor]) -> Tensor:
        total, before = torch.zeros((), dtype=FLOAT), torch.tensor([], dtype=torch.long)
        for layer in order:
            seen = torch.cat([layer, before])  # fix what came before: a block of the precision
            precision = torch.linalg.inv(covariance[seen][:, seen])[: len(layer), : len(layer)]
            total, before = total + mean_field_gap(precision), layer
        return total

    close = {"rtol": 1e-7, "atol": 1e-10}
    assert_close(model.gap(x, model.bottom_up(x)), gap([*units]).expand(2), **close)
    assert_close(model.gap(x, model.top_down(x)), gap([*units[::-1]]).expand(2), **close)
    whole = mean_field_gap(torch.linalg.inv(covariance)).expand(2)
    assert_close(model.gap(x, model.mean_field(x)), whole, **close)


def test_what_the_chapter_says_of_its_gaps():
    def gaps(model: LinearHierarchy) -> list[float]:
        families = (model.mean_field(X), model.bottom_up(X), model.top_down(X))
        return [model.gap(X, q)[0].item() for q in families]

    assert gaps(TOY) == pytest.approx([0.5970, 0.1682, 0], abs=5e-5)
    assert gaps(SLANTED) == pytest.approx([0.5114, 0.0657, 0.0092], abs=5e-5)


def arrows(sees: list[int], *links: str) -> tuple[Tensor, Tensor]:
    table = torch.zeros(3, 3)
    for start, end in links:
        table["ab2".index(end), "ab2".index(start)] = 1
    return torch.tensor(sees), table


CASES = {
    "mean field": (arrows([1, 1, 1]), 0.5970, 0.5114),
    "bottom-up": (arrows([1, 1, 0], "a2", "b2"), 0.1682, 0.0657),
    "x to top": (arrows([1, 1, 1], "a2", "b2"), 0.1682, 0.0657),
    "within z_1": (arrows([1, 1, 0], "a2", "b2", "ab"), 0.0, 0.0),
    "top-down": (arrows([1, 1, 1], "2a", "2b"), 0.0, 0.0092),
    "one less": (arrows([1, 1, 1], "2a"), 0.3710, 0.2854),
    "top sees x": (arrows([0, 0, 1], "2a", "2b"), 0.2612, 0.2149),
    "one more": (arrows([1, 1, 1], "2a", "2b", "ab"), 0.0, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_smallest_gap_of_a_graph(name):
    (sees, links), toy, oblique = CASES[name]
    assert smallest_gap(TOY, sees, links).item() == pytest.approx(toy, abs=5e-5)
    assert smallest_gap(SLANTED, sees, links).item() == pytest.approx(oblique, abs=5e-5)


def test_smallest_gap_agrees_with_the_closed_forms():
    model = deep()
    x, _ = model.sample(1)
    layer = torch.tensor([1, 1, 1, 2, 2, 3, 3])
    upwards = layer[:, None] == layer + 1
    for sees, links, q in (
        (layer > 0, 0 * upwards, model.mean_field(x)),
        (layer == 1, upwards, model.bottom_up(x)),
        (layer > 0, upwards.T, model.top_down(x)),
    ):
        assert_close(smallest_gap(model, sees, links), model.gap(x, q)[0], rtol=0, atol=1e-8)


def test_smallest_gap_finds_the_deepest_valley():
    # From weights of zero the search ends at 3.2811 nats, in a valley of its own.
    model = LinearHierarchy([matrix([1, 1], [1, -3], [0, 1]), matrix([1], [0.4])], [0.8, 0.5])
    found = smallest_gap(model, *arrows([1, 0, 0], "ab", "2a"))
    assert found.item() == pytest.approx(2.8551, abs=5e-5)


def test_smallest_gap_refuses_cycles_and_other_shapes():
    sees, links = arrows([1, 1, 1], "a2", "2a")
    with pytest.raises(ValueError, match="links: expected no cycle"):
        smallest_gap(TOY, sees, links)
    with pytest.raises(ValueError, match="sees"):
        smallest_gap(TOY, sees[:2], links)
    with pytest.raises(ValueError, match="links"):
        smallest_gap(TOY, sees, links[:2])


@pytest.mark.equation("eq-layered-elbo")
@pytest.mark.parametrize("model", [TOY, SLANTED, deep()])
def test_layered_bound_of_linear_models(model):
    x, _ = model.sample(3, torch.Generator().manual_seed(2))
    for q in (model.mean_field(x), model.top_down(x), model.posterior(x)):
        costs = model.elbo(x, q)
        assert_close(costs.nelbo, model.gap(x, q) - model.log_prob(x))
        assert (costs.prior >= 0).all() and (costs.diffusion >= 0).all()


@pytest.mark.equation("eq-layered-elbo")
def test_layered_bound_of_networks():
    model, x = networks("top-down"), X[:1].expand(40_000, 3)
    assert_same_mean(model.elbo(x).nelbo, -model.log_weight(x))
    layers = model.infer(x)
    ratios = [(log_normal(z, q.mean, q.var**0.5) - log_normal(z, p.mean, p.var**0.5))
              for z, q, p in layers]  # fmt: skip
    costs = model.layer_costs(layers)
    for ratio, cost in zip(ratios, costs, strict=True):
        assert cost.min() >= 0
        assert abs((ratio - cost.sum(1)).mean()) < 4 * (ratio - cost.sum(1)).std() / 200


def chain(x: Tensor) -> tuple[BottomUp, MultivariateNormal]:
    """The exact bottom-up inference of the scalar chain for one x, as linear layers."""

    def affine(weight: float, shift: float, var: float) -> nn.Linear:
        layer = nn.Linear(1, 2, dtype=FLOAT).requires_grad_(False)
        layer.weight[:] = matrix([weight], [0.0])
        layer.bias[:] = real(shift, math.log(math.expm1(var - MIN_VARIANCE)))
        return layer

    q = SCALAR.bottom_up(x)
    up = [affine(0.0, q.mean[0, 0].item(), q.variance[0, 0].item()), affine(0.9, 0.0, 0.19)]
    decoder = nn.Linear(1, 1, bias=False, dtype=FLOAT).requires_grad_(False)
    decoder.weight[:] = 0.3
    return BottomUp(up, [decoder, affine(0.9, 0.0, 0.19)], Gaussian(1.0), (1, 1)), q


@pytest.mark.equation("eq-bottom-up-cost")
def test_cost_of_a_lower_layer_is_a_divergence_minus_an_information():
    x = matrix([1.7])
    model, q = chain(x)
    sigma = q.covariance_matrix[0]
    information = 0.5 * torch.log(sigma[0, 0] * sigma[1, 1] / torch.det(sigma))
    cost = SCALAR.elbo(x, q).diffusion[0, 0] - information
    # Directly: E[log q(z_1|x)] - E[log p(z_1|z_2)], both Gaussian.
    shift = q.mean[0, 0] - 0.9 * q.mean[0, 1]
    spread = sigma[0, 0] - 1.8 * sigma[0, 1] + 0.81 * sigma[1, 1]
    direct = 0.5 * (torch.log(0.19 / sigma[0, 0]) - 1 + (spread + shift**2) / 0.19)
    assert_close(cost, direct)
    assert -0.775 < cost < -0.773 and SCALAR.gap(x, q).abs() < 1e-12
    estimate = model.unit_costs(x.expand(100_000, 1))[0]
    assert abs(estimate.mean() - cost) < 4 * estimate.std() / 100_000**0.5


def test_bottom_up_terms_sum_to_the_bound():
    model, x = networks("bottom-up"), X[:1].expand(40_000, 3)
    assert_same_mean(model.elbo(x).nelbo, -model.log_weight(x))


@pytest.mark.equation("eq-ladder")
def test_the_ladder_is_exact_where_the_likelihood_is_diagonal():
    z_2, squares = real(-1.0, 0.6), (W**2).sum(0)
    message = Normal(X @ W / squares, (S**2 / squares).expand(2, 2))
    q = merge(Normal(z_2[:, None] @ COMMON.T, torch.full((2, 2), S_1**2, dtype=FLOAT)), message)
    mean, covariance = stacked(TOY, X)
    gain = covariance[:2, 2:] / covariance[2, 2]
    assert_close(q.mean, mean[:, :2] + (z_2 - mean[:, 2])[:, None] @ gain.T)
    conditional = covariance[:2, :2] - gain @ covariance[2:, :2]
    assert_close(torch.diag_embed(q.var), conditional.expand(2, 2, 2))


@pytest.mark.equation("eq-merge")
def test_merge_adds_precisions():
    a, b = Normal(real(-0.8, 0.3)[None], real(1.0, 0.2)[None]), Normal(*2 * [real(0.5, 4.0)[None]])
    q = merge(a, b)
    assert_close(1 / q.var, 1 / a.var + 1 / b.var)
    assert_close(q.mean / q.var, a.mean / a.var + b.mean / b.var)
    z = torch.linspace(-2, 2, 5, dtype=FLOAT)[:, None]
    product = log_each(z, a) + log_each(z, b) - log_each(z, q)
    assert_close(product, product[:1].expand_as(product))  # proportional, as functions of z


def log_each(z: Tensor, normal: Normal) -> Tensor:
    return torch.distributions.Normal(normal.mean, normal.var.sqrt()).log_prob(z)


def test_a_silent_message_keeps_its_gradient():
    output = torch.tensor([[0.4, 50.0]], dtype=FLOAT, requires_grad=True)
    prior = Normal(*[value * torch.ones(1, 1, dtype=FLOAT) for value in (0.0, 1.0)])
    merge(prior, to_message(output, 1)).mean.backward()
    assert_close(output.grad, matrix([1.0, 0.0]))


def information(
    model: LinearHierarchy, q: MultivariateNormal, units: Tensor, of_x: Tensor | None = None
) -> Tensor:
    """I(x; z[units]) for x of the model, or of covariance ``of_x``; q has the posterior's mean."""
    of_x = model.covariance() if of_x is None else of_x
    slope = stacked(model, torch.eye(len(of_x), dtype=FLOAT))[0].T[units]
    noise = q.covariance_matrix[0][units][:, units]
    return 0.5 * ((noise + slope @ of_x @ slope.T).logdet() - noise.logdet())


@pytest.mark.equation("eq-information-order")
@pytest.mark.parametrize("model", [TOY, SLANTED, deep()])
def test_information_cannot_rise_in_bottom_up_inference(model):
    x, _ = model.sample(1)
    units = torch.arange(sum(model.sizes)).split(model.sizes)
    for q in (model.bottom_up(x), model.bottom_up(x, diagonal=False)):
        known = [information(model, q, layer) for layer in units]
        assert all(a > b > 0 for a, b in itertools.pairwise(known))
    of_x = 0.5 * (model.covariance().logdet() - len(x[0]) * 2 * math.log(model.stds[0]))
    assert_close(known[0], of_x)  # q is the posterior here, and z_1 all that x is made of
    assert_close(known[-1], -0.5 * q.covariance_matrix[0][units[-1]][:, units[-1]].logdet())


def test_exercise_when_the_direction_matters():
    def gap(s: float, b: list[float]) -> float:
        model = LinearHierarchy([W, real(*b)[:, None]], [s, S_1])
        return model.gap(X, model.bottom_up(X))[0].item()

    sigma = TOY.posterior(X).covariance_matrix[0]
    rho2 = sigma[0, 1] ** 2 / (sigma[0, 0] * sigma[1, 1])
    assert gap(S, [1.0, 1.0]) == pytest.approx(-0.5 * math.log(1 - rho2))
    assert gap(S, [1.3, 0.0]) == pytest.approx(0, abs=1e-12)
    assert gap(0.01, [1.0, 1.0]) < 1e-6
    assert gap(1e4, [1.0, 1.0]) == pytest.approx(-0.5 * math.log(1 - 0.64), abs=1e-6)
    assert -0.5 * math.log(1 - 0.64) == pytest.approx(0.511, abs=5e-4)


def test_exercise_bottom_up_wins_where_two_couplings_cancel():
    weight = matrix([4 / 3, 4 / 3], [1, 0], [0, 1])
    model = LinearHierarchy([weight, COMMON], [1.0, 0.5])
    assert model.gap(X, model.bottom_up(X))[0].item() == pytest.approx(0, abs=1e-12)
    gap = model.gap(X, model.top_down(X))[0].item()
    assert gap == pytest.approx(-0.5 * math.log(1 - (16 / 61) ** 2))
    assert gap == pytest.approx(0.0356, abs=5e-5)


def test_exercise_wrong_lines_are_caught():
    a, b = Normal(matrix([0.0]), matrix([1.0])), Normal(matrix([2.0]), matrix([1.0]))
    q = merge(a, b)
    assert_close((q.mean, q.var), (matrix([1.0]), matrix([0.5])))
    assert (a.var + b.var) / 2 - q.var > 0.4  # 1: averaged, not merged
    v = matrix([50.0])
    assert merge(a, Normal(matrix([0.4]), v)).mean < 0.01  # 2: hardly moved
    assert_close(merge(a, Normal(0.4 * (1 + v), v)).mean, matrix([0.4]))
    model, x = networks("top-down"), X[:1].expand(20_000, 3)
    layers = model.infer(x)
    reverse = sum(gaussian.kl(layer.p, layer.q) for layer in layers)  # 3
    forward = sum(gaussian.kl(layer.q, layer.p) for layer in layers)
    wrong = (reverse - forward).mean() + model.elbo(x).nelbo.mean()
    weight = -model.log_weight(x)
    assert abs(wrong - weight.mean()) > 10 * weight.std() / len(x) ** 0.5


def test_exercise_the_published_bound_of_bottom_up_inference():
    model, q = chain(matrix([1.7]))
    sigma, (mean, above) = q.covariance_matrix[0], q.mean[0]
    # KL(q(z_1|x) || p(z_1|z_2)), averaged over the z_2 that q draws.
    shift = (mean - 0.9 * above) ** 2 + 0.81 * sigma[1, 1]
    printed = 0.5 * (torch.log(0.19 / sigma[0, 0]) - 1 + (sigma[0, 0] + shift) / 0.19)
    first, _ = model.infer(matrix([1.7]).expand(20_000, 1))
    drawn = gaussian.kl(first.q, first.p)
    assert abs(drawn.mean() - printed) < 4 * drawn.std() / 20_000**0.5
    right = model.unit_costs(matrix([1.7]).expand(100_000, 1))[0]
    assert abs((printed - right.mean()).item() - 3.91) < 0.005 + 4 * right.std() / 100_000**0.5
    assert printed.item() == pytest.approx(3.14, abs=5e-3)
    # Still a bound: mean field with the same marginals, whose own cost on top is smaller.
    alone = 0.5 * (sigma[1, 1] + above**2 - 1 - torch.log(sigma[1, 1]))
    given = kl_to_prior(0.9 * mean, 0.81 * sigma[0, 0], 0.19)
    assert alone < given


def kl_to_prior(mean: Tensor, spread: Tensor, var: float) -> Tensor:
    """``E KL(N(m, var) || N(0, 1))`` for m of this mean and variance."""
    return 0.5 * (mean**2 + spread + var - 1 - math.log(var))


def test_a_nonlinear_step_makes_the_posterior_of_one_unit_two_humped():
    """Its best Gaussians, found by descent; the densities are sums over the other unit."""
    line = torch.linspace(-8, 8, 801, dtype=FLOAT)
    nodes = torch.linspace(-7, 7, 141, dtype=FLOAT)
    weights = torch.softmax(-0.5 * nodes**2, 0)

    def step(z_1: Tensor, z_2: Tensor) -> Tensor:
        return log_each(z_1, Normal(2 * torch.tanh(3 * z_2), real(0.16)))

    def posterior_1(z_1: Tensor, x: float) -> Tensor:
        over = step(z_1[:, None], line) + log_each(line, Normal(real(0), real(1)))
        return over.logsumexp(1) + log_each(z_1, Normal(real(x), real(4)))

    def posterior_2(z_2: Tensor, x: float) -> Tensor:
        over = step(line, z_2[:, None]) + log_each(line, Normal(real(x), real(4)))
        return over.logsumexp(1) + log_each(z_2, Normal(real(0), real(1)))

    def least(log_p: Callable[[Tensor, float], Tensor], x: float, start: list[float]) -> float:
        where = real(*start).requires_grad_()
        search = torch.optim.LBFGS([where], max_iter=200, line_search_fn="strong_wolfe")
        total = log_p(line, x).logsumexp(0) + math.log(0.02)

        def gap() -> Tensor:
            mean, log_std = where
            z = mean + log_std.exp() * nodes
            entropy = log_std + 0.5 * math.log(2 * math.pi * math.e)
            return total - entropy - weights @ log_p(z, x)

        def closure() -> Tensor:
            search.zero_grad()
            value = gap()
            value.backward()
            return value

        search.step(closure)
        return gap().item()

    def best(log_p: Callable[[Tensor, float], Tensor], x: float) -> float:
        return min(least(log_p, x, start) for start in ([0.0, 0.2], [1.6, -0.5], [-1.6, -0.5]))

    at = (0.0, 0.5, 1.5)
    least_of_all = [best(posterior_1, x) for x in at]
    assert least_of_all == pytest.approx([0.4343, 0.4422, 0.3344], abs=1e-4)
    assert least_of_all == pytest.approx([0.434, 0.442, 0.335], abs=1e-3)  # of the chapter's table
    assert [best(posterior_2, x) for x in at] == pytest.approx([0.0099, 0.0129, 0.0289], abs=1e-4)


def test_exercise_price_of_a_message():
    for a, r in ((0.4, 0.3), (0.0, 0.01), (-1.2, 5.0)):
        prior, v = Normal(matrix([0.0]), matrix([1.0])), matrix([1 / r])
        q = merge(prior, Normal((1 + v) * a, v))
        cost = 0.5 * (1 / (1 + r) - 1 + math.log(1 + r) + a**2)
        assert gaussian.kl(q, prior).item() == pytest.approx(cost)
    agreeing = 0.5 * (math.log1p(0.01) - 0.01 / 1.01)
    assert agreeing == pytest.approx(0.01**2 / 4, rel=0.02)


def test_what_the_chapter_says_of_information():
    units, both = [real(0, 1).long(), real(2).long()], []
    for q in (TOY.bottom_up(X), TOY.posterior(X)):
        both.append([information(TOY, q, each).item() for each in units])
    assert both[0] == pytest.approx([1.005, 0.661], abs=5e-4)
    assert both[1] == pytest.approx([0.746, 0.502], abs=5e-4)


def test_exercise_information_may_rise_in_top_down_inference():
    # Of (x, z_2, z_1) as the exercise builds them: v = recipe v + noise.
    recipe, noise = matrix([0, 0, 0], [0.8, 0, 0], [0, 0, 0]), torch.diag(real(1, 0.36, 1))
    solve = torch.linalg.inv(torch.eye(3, dtype=FLOAT) - recipe)
    joint = solve @ noise @ solve.T

    def shared(i: int) -> float:
        alone = joint[0, 0] * joint[i, i]
        return (0.5 * torch.log(alone / torch.det(joint[[0, i]][:, [0, i]]))).item()

    assert shared(1) == pytest.approx(0.511, abs=5e-4)
    assert shared(2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("model", [TOY, SLANTED, deep()])
def test_exercise_information_of_a_posterior_falls_whatever_the_data(model):
    x, _ = model.sample(1)
    units = torch.arange(sum(model.sizes)).split(model.sizes)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.1, 1.0, 10.0):  # data that do not come from the model
        root = scale * torch.randn(len(x[0]), len(x[0]), generator=generator, dtype=FLOAT)
        q = model.posterior(x)
        known = [information(model, q, layer, root @ root.T) for layer in units]
        assert all(a > b > 0 for a, b in itertools.pairwise(known))


def test_short_row_of_the_shipped_results():
    shipped = next(r for r in hierarchies.results()["rows"] if r["steps"] == hierarchies.SHORT)
    again = hierarchies.row(*(shipped[key] for key in ("kind", "layers", "seed", "steps")))
    assert again.keys() == shipped.keys()
    for key in ("bits_per_dim", "nelbo", "importance_bound_20", "reconstruction", "layer_costs"):
        assert again[key] == pytest.approx(shipped[key], rel=1e-4), key
    assert again["active_units"] == shipped["active_units"]


def long_rows(kind: str, layers: int) -> list[dict]:
    rows = [r for r in hierarchies.results()["rows"] if r["steps"] == hierarchies.STEPS]
    return [r for r in rows if (r["kind"], r["layers"]) == (kind, layers)]


def over_seeds(kind: str, layers: int, value: Callable[[dict], float]) -> tuple[float, float]:
    values = torch.tensor([value(r) for r in long_rows(kind, layers)], dtype=FLOAT)
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def gap_estimate(row: dict) -> float:
    return row["nelbo"] + row["importance_bound_20"]


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_what_the_chapter_says_of_the_images(layers):
    up, down = long_rows("bottom-up", layers), long_rows("top-down", layers)
    assert len(up) == len(down) == len(long_rows("bottom-up", 1)) == 3
    one, _ = over_seeds("bottom-up", 1, lambda r: r["bits_per_dim"])
    (a, da), (b, db) = (over_seeds(k, layers, lambda r: r["bits_per_dim"]) for k in ch03.KINDS)
    assert abs(a - b) < 2 * math.hypot(da, db)
    assert 0.01 < one - a < 0.03 and 0.01 < one - b < 0.03
    assert 6.15 < over_seeds("bottom-up", layers, gap_estimate)[0] < 6.35
    assert 4.75 < over_seeds("top-down", layers, gap_estimate)[0] < 4.95
    assert min(map(gap_estimate, up)) > max(map(gap_estimate, down))
    bounds = [over_seeds(k, layers, lambda r: r["importance_bound_20"])[0] for k in ch03.KINDS]
    assert bounds[0] > bounds[1]
    assert all(r["layer_costs"][0] > sum(r["layer_costs"][1:]) for r in down)
    for row in up + down if layers == 5 else []:
        assert row["layer_costs"][3] < 0.3 and row["layer_costs"][4] < 0.01
    if layers == 5:
        assert max(cost for row in down for cost in row["layer_costs"][2:]) < 0.01
        assert min(row["layer_costs"][2] for row in up) > 2


def test_figures_draw():
    q = TOY.posterior(X)
    flat = MultivariateNormal(q.mean[0, :2], q.covariance_matrix[0, :2, :2])
    ch03.feedback(flat, flat, {0.5: flat})
    cases = {name: case for name, (case, *_) in CASES.items()}
    ch03.inference_graphs(cases, dict.fromkeys(cases, (0.1, 0.2)))
    line = torch.linspace(-1, 1, 5)
    ch03.two_humps(line, line.exp(), line.exp(), line.exp(), plt.subplots()[1])
    curves = {"bottom-up": {1: 0.3, 2: 0.2}, "top-down": {1: 0.3, 2: 0.1}}
    ch03.gap_curves(curves, {"bottom-up": 0.2, "top-down": 0.0})
    both = {T: {kind: 3 * [T * [1.0]] for kind in ch03.KINDS} for T in (2, 3)}
    ch03.layer_profiles(both, "cost in nats")
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
