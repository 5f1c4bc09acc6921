"""Hierarchies in both directions against the linear-Gaussian truth and direct Monte Carlo."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vdm_lite.elbo import Elbo
from vdm_lite.exact import LinearHierarchy
from vdm_lite.gaussian import Normal
from vdm_lite.hierarchy import BottomUp, Hierarchy, TopDown, merge, to_message
from vdm_lite.nets import Rungs, flat_decoder, flat_encoder, perceptron
from vdm_lite.observation import DiscretizedLogistic, Gaussian
from vdm_lite.training import fit
from vdm_lite.vae import MIN_VARIANCE, active_units, standard_normal

F64 = torch.float64
W = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], dtype=F64)
B = torch.tensor([[1.0], [0.8]], dtype=F64)
TRUTH = LinearHierarchy([W, B], [0.5, 0.7])  # W^T W is diagonal


def raw(var: Tensor) -> Tensor:
    return torch.log(torch.expm1(var - MIN_VARIANCE))


class Map(nn.Module):
    """A linear map, and a constant put behind its result."""

    def __init__(self, matrix: Tensor, constant: Tensor) -> None:
        super().__init__()
        self.matrix, self.constant = matrix, constant

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x @ self.matrix.T, self.constant.expand(len(x), -1)], 1)


class Ladder(nn.Module):
    """The messages of the truth: p(x | z_1), and p(x | z_2), as functions of z_1 and of z_2."""

    def forward(self, x: Tensor) -> list[Tensor]:
        noise = 0.5**2 * torch.eye(3, dtype=F64)
        return [message(x, W, noise), message(x, W @ B, noise + 0.7**2 * W @ W.T)]


def message(x: Tensor, matrix: Tensor, noise: Tensor) -> Tensor:
    """N(x; matrix @ z, noise) as a function of z, in the form that to_message reads."""
    gain = matrix.T @ torch.linalg.inv(noise)
    var = 1 / (gain @ matrix).diagonal()
    return torch.cat([var / (1 + var) * (x @ gain.T), raw(var).expand(len(x), len(var))], 1)


def top_down() -> TopDown:
    decoders = [Map(W, W[:0, 0]), Map(B, raw(torch.full((2,), 0.49, dtype=F64)))]
    return TopDown(Ladder(), decoders, Gaussian(0.5), (2, 1))


def bottom_up() -> BottomUp:
    """The truth's best diagonal bottom-up inference."""
    covariance = torch.linalg.inv(TRUTH.precision())
    first = torch.linalg.inv(covariance[:2, :2])
    to_first = (covariance[:2, :2] @ W.T) / 0.5**2
    gain = covariance[2:, :2] @ first
    noise = covariance[2:, 2:] - gain @ covariance[:2, 2:]
    encoders = [Map(to_first, raw(1 / first.diagonal())), Map(gain, raw(noise)[0])]
    decoders = [Map(W, W[:0, 0]), Map(B, raw(torch.full((2,), 0.49, dtype=F64)))]
    return BottomUp(encoders, decoders, Gaussian(0.5), (2, 1))


def test_merge_is_the_normalized_product_of_densities():
    a = Normal(torch.tensor([[0.3, -1.0]], dtype=F64), torch.tensor([[0.5, 2.0]], dtype=F64))
    b = Normal(torch.tensor([[1.1, 4.0]], dtype=F64), torch.tensor([[0.2, 1e-3]], dtype=F64))
    q, z = merge(a, b), torch.linspace(-2, 6, 7, dtype=F64)[:, None]
    log_p = [torch.distributions.Normal(n.mean, n.var.sqrt()).log_prob(z) for n in (a, b, q)]
    offset = log_p[0] + log_p[1] - log_p[2]
    assert_close(offset, offset[:1].expand_as(offset))  # the normalization, the same at every z
    assert_close(1 / q.var, 1 / a.var + 1 / b.var)
    assert_close(merge(b, a), q)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("raw_var", [-5.0, 0.0, 50.0, 1e8])
def test_a_message_keeps_its_gradient_when_it_falls_silent(raw_var, dtype):
    output = torch.tensor([[0.7, raw_var]], dtype=dtype, requires_grad=True)
    q = merge(standard_normal(output[:, :1]), to_message(output, 1))
    assert_close(q.mean, output[:, :1])
    q.mean.sum().backward()
    assert_close(output.grad, torch.tensor([[1.0, 0.0]], dtype=dtype))
    var = to_message(output, 1).var
    assert_close(q.var, var / (1 + var))


def test_the_ladder_of_the_linear_truth_has_no_gap():
    x, _ = TRUTH.sample(5)
    assert_close(top_down().log_weight(x), TRUTH.log_prob(x))  # for every draw
    layers = top_down().infer(x)
    best = TRUTH.top_down(x)
    assert_close(layers[1].q.mean, best.mean[:, 2:])
    assert_close(layers[1].q.var, best.covariance_matrix[:, 2:, 2])


@pytest.mark.parametrize("model", [top_down(), bottom_up()], ids=["top-down", "bottom-up"])
def test_the_bound_is_that_of_the_linear_truth(model):
    x, _ = TRUTH.sample(3)
    name = "top_down" if isinstance(model, TopDown) else "bottom_up"
    q = getattr(TRUTH, name)(x)
    costs = model.elbo(x.repeat(20_000, 1), torch.Generator().manual_seed(0)).nelbo
    costs = costs.reshape(20_000, -1)
    error = costs.std(0) / 20_000**0.5
    assert ((costs.mean(0) - TRUTH.elbo(x, q).nelbo).abs() < 5 * error).all()
    if name == "bottom_up":
        assert TRUTH.gap(x, q)[0] > 1e-3


def image_model(kind: str, layers: int) -> Hierarchy:
    torch.manual_seed(1)
    seen, shape, sizes, width = DiscretizedLogistic(17), (1, 4, 4), (5, 4, 3, 2)[:layers], 16
    pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
    decoders = [flat_decoder(sizes[0], shape, 2, width)]
    decoders += [perceptron(above, 2 * below, width) for above, below in pairs]
    if kind == "top-down":
        return TopDown(Rungs(shape, sizes, width), decoders, seen, sizes)
    encoders = [flat_encoder(shape, 2 * sizes[0], width)]
    encoders += [perceptron(below, 2 * above, width) for above, below in pairs]
    return BottomUp(encoders, decoders, seen, sizes)


KINDS = pytest.mark.parametrize("kind", ["bottom-up", "top-down"])
DEPTHS = pytest.mark.parametrize("layers", [1, 2, 4])


@KINDS
@DEPTHS
@torch.no_grad()
def test_layered_bound_equals_direct_monte_carlo(kind, layers):
    model, data = image_model(kind, layers), torch.randint(0, 17, (1, 1, 4, 4))
    many = data.expand(20_000, 1, 4, 4)
    layered, direct = model.elbo(many), -model.log_weight(many)
    error = (layered.nelbo.var() + direct.var()).div(20_000).sqrt()
    assert (layered.nelbo.mean() - direct.mean()).abs() < 5 * error
    assert isinstance(layered, Elbo) and layered.diffusion.shape == (20_000, layers - 1)


@KINDS
@DEPTHS
def test_one_interface_for_any_depth(kind, layers):
    model, data = image_model(kind, layers), torch.randint(0, 17, (6, 1, 4, 4), dtype=torch.uint8)
    generators = [torch.Generator().manual_seed(2) for _ in range(3)]
    costs = model.elbo(data, generators[0])
    units = model.unit_costs(data, generators[1])
    assert [unit.shape for unit in units] == [(6, size) for size in model.sizes]
    assert_close(units[-1].sum(1), costs.prior)
    layered = (
        torch.stack([unit.sum(1) for unit in units[:-1]], 1) if layers > 1 else costs.diffusion
    )
    assert_close(layered, costs.diffusion)
    kl = costs.nelbo - costs.reconstruction
    assert_close(model.loss(data, 0.5, generators[2]), costs.reconstruction + 0.5 * kl)
    assert all(0 <= active_units(unit) <= unit.shape[1] for unit in units)
    assert model.generate(3).shape == (3, 1, 4, 4)
    assert model.importance_bound(data, 3).shape == (6,)


def test_top_down_costs_are_divergences():
    units = image_model("top-down", 4).unit_costs(torch.randint(0, 17, (6, 1, 4, 4)))
    assert all((unit >= 0).all() for unit in units)


def test_the_draws_condition_on_the_layer_that_they_should():
    """The first layer drawn has the same q each time; the next one's q follows the draw."""
    data = torch.randint(0, 17, (6, 1, 4, 4))
    model = image_model("bottom-up", 2)
    up, up_again = model.infer(data), model.infer(data)
    assert_close(up[0].q, up_again[0].q)
    assert (up[1].q.mean != up_again[1].q.mean).any()
    model = image_model("top-down", 2)
    down, down_again = model.infer(data), model.infer(data)
    assert_close(down[1].q, down_again[1].q)
    assert (down[0].q.mean != down_again[0].q.mean).any()


@KINDS
def test_levels_take_the_precision_of_the_model(kind):
    data = torch.randint(0, 17, (6, 1, 4, 4), dtype=torch.uint8)
    model = image_model(kind, 3).double()
    assert model.elbo(data).nelbo.dtype == model.generate(2).dtype == F64


@KINDS
def test_fit_trains_it(kind):
    data = torch.randint(0, 4, (64, 1, 4, 4), dtype=torch.uint8)
    run = fit(image_model(kind, 3), data, 80, 32, lr=1e-2, warmup=10, progress=False)
    losses = [step.loss for step in run]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def linear(a: int, b: int) -> nn.Linear:
    return nn.Linear(a, b)


SEEN = Gaussian()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda x: BottomUp([linear(3, 4)], [linear(2, 3), linear(1, 4)], SEEN, (2, 1)),
            "encoders: expected 2 networks, one a layer, got 1",
        ),
        (
            lambda x: BottomUp([linear(3, 4)], [], SEEN, (2,)),
            "decoders: expected 1 networks, one a layer, got 0",
        ),
        (lambda x: BottomUp([], [], SEEN, ()), "sizes: expected at least one layer"),
        (lambda x: BottomUp([linear(3, 4)], [linear(2, 3)], SEEN, (0,)), "sizes: expected a whole"),
        (
            lambda x: BottomUp([linear(3, 5)], [linear(2, 3)], SEEN, (2,)).elbo(x),
            r"encoders\[0\]: expected \(B, 4\): means and raw variances of 2 units, got \(4, 5\)",
        ),
        (
            lambda x: BottomUp(
                [linear(3, 4), linear(2, 2)], [linear(2, 3), linear(1, 3)], SEEN, (2, 1)
            ).elbo(x),
            r"decoders\[1\]\(z_2\): expected \(B, 4\)",
        ),
        (
            lambda x: TopDown(lambda x: [linear(3, 4)(x)], [linear(2, 3)], SEEN, (3,)).infer(x),
            r"encoder\(x\)\[0\]: expected \(B, 6\)",
        ),
        (
            lambda x: TopDown(lambda x: [x, x], [linear(2, 3)], SEEN, (2,)).infer(x),
            r"encoder\(x\): expected 1 messages, one a layer, got 2",
        ),
        (
            lambda x: merge(Normal(x, torch.zeros_like(x)), Normal(x, torch.ones_like(x))),
            "a.var: expected positive numbers",
        ),
        (
            lambda x: merge(Normal(x, torch.ones(())), Normal(x[:2], torch.ones(()))),
            "b.mean: expected shape",
        ),
        (lambda x: merge(Normal(x * torch.nan, x**2), Normal(x, x**2)), "a.mean: expected finite"),
        (lambda x: top_down().below(1, x), "t: expected a layer 2 to T = 2, got 1"),
        (
            lambda x: image_model("top-down", 2).importance_bound(x, 0),
            "k: expected a whole number >= 1, got 0",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(4, 3))
