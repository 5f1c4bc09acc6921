"""The VAE where its answers are known: linear encoders and decoders with set weights."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vdm_lite.elbo import Elbo
from vdm_lite.exact import LinearHierarchy
from vdm_lite.nets import flat_decoder, flat_encoder
from vdm_lite.observation import Bernoulli, DiscretizedLogistic, Gaussian
from vdm_lite.training import fit
from vdm_lite.vae import MIN_VARIANCE, VAE, active_units, standard_normal, to_normal

F64 = torch.float64
TRUTH = LinearHierarchy([torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], dtype=F64)], [0.5])


def raw(var: Tensor) -> Tensor:
    """What a network has to put out for this variance."""
    return torch.log(torch.expm1(var - MIN_VARIANCE))


def linear_vae(gain: float = 1.0) -> VAE:
    """The VAE of the truth's decoder; with gain 1 its encoder is the exact posterior."""
    (weight,), (std,) = TRUTH.weights, TRUTH.stds
    covariance = torch.linalg.inv(TRUTH.precision())
    mean_gain = gain * covariance @ weight.T / std**2

    def encoder(x: Tensor) -> Tensor:
        return torch.cat([x @ mean_gain.T, raw(covariance.diagonal()).expand(len(x), 2)], 1)

    return VAE(encoder, lambda z: z @ weight.T, Gaussian(std), 2)


def draws(model: VAE, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of ``-ELBO`` over ``n`` draws for each example."""
    generator = torch.Generator().manual_seed(7)
    costs = model.elbo(x.repeat(n, 1), generator).nelbo.reshape(n, -1)
    return costs.mean(0), costs.std(0) / n**0.5


def test_the_exact_posterior_has_no_gap():
    x, _ = TRUTH.sample(6)
    model = linear_vae()
    assert_close(model.posterior(x).mean, TRUTH.posterior(x).mean)
    assert_close(model.log_weight(x), TRUTH.log_prob(x))  # for every draw: no variance at all
    mean, error = draws(model, x, 4000)
    assert ((mean + TRUTH.log_prob(x)).abs() < 5 * error).all()


def test_a_wrong_posterior_pays_its_divergence():
    x, _ = TRUTH.sample(6)
    model = linear_vae(gain=0.6)
    q = model.posterior(x)
    normal = torch.distributions.MultivariateNormal(q.mean, torch.diag(q.var[0]))
    mean, error = draws(model, x, 20_000)
    assert ((mean + TRUTH.log_prob(x) - TRUTH.gap(x, normal)).abs() < 5 * error).all()
    assert_close(model.elbo(x).prior, TRUTH.elbo(x, normal).prior)


def test_importance_bounds_rise_to_the_evidence():
    x, _ = TRUTH.sample(4)
    model, generator = linear_vae(gain=0.3), torch.Generator().manual_seed(1)
    bounds, errors = [], []
    for k in (1, 8, 64):
        many = model.importance_bound(x.repeat(2000, 1), k, generator).reshape(2000, -1)
        bounds.append(many.mean(0))
        errors.append(many.std(0) / 2000**0.5)
    for (low, high), error in zip(itertools.pairwise(bounds), errors[1:], strict=True):
        assert (high > low - 5 * error).all()
    assert (bounds[1] - bounds[0]).mean() > 0.5
    assert (bounds[2] < TRUTH.log_prob(x) + 5 * errors[2]).all()


def test_one_importance_draw_is_the_bound():
    x, _ = TRUTH.sample(500)
    model = linear_vae(gain=0.6)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert_close(model.importance_bound(x, 1, generators[0]), model.log_weight(x, generators[1]))
    mean, error = draws(model, x, 100)
    weights = model.log_weight(x.repeat(100, 1)).reshape(100, -1)
    error = (error.square() + weights.var(0) / 100).sqrt()
    assert ((mean + weights.mean(0)).abs() < 6 * error).all()


def test_beta_scales_the_divergence_alone():
    x, _ = TRUTH.sample(6)
    model = linear_vae()
    costs, loss = (
        call(generator=torch.Generator().manual_seed(3))
        for call in (lambda **k: model.elbo(x, **k), lambda **k: model.loss(x, 4.0, **k))
    )
    assert_close(loss, costs.reconstruction + 4 * costs.prior)
    assert isinstance(costs, Elbo) and costs.diffusion.shape == (6, 0)
    assert_close(costs.nelbo, costs.prior + costs.reconstruction)


def test_unit_costs_add_up_to_the_divergence_and_show_idle_units():
    def encoder(x: Tensor) -> Tensor:
        idle = torch.zeros_like(x[:, :1])
        mean = torch.cat([x[:, :1], idle], 1)
        return torch.cat([mean, raw(torch.tensor([0.1, 1.0], dtype=F64)).expand(len(x), 2)], 1)

    model = VAE(encoder, lambda z: z, Gaussian(), 2)
    x = torch.randn(50, 2, dtype=F64)
    costs = model.unit_costs(x)
    assert_close(costs.sum(1), model.elbo(x).prior)
    assert active_units(costs) == 1
    assert active_units(torch.zeros(3, 4)) == 0
    q = model.posterior(x)
    assert_close(q.var, torch.tensor([0.1, 1.0], dtype=F64).expand(50, 2))
    assert standard_normal(q.mean).var.eq(1).all()


def image_vae() -> VAE:
    torch.manual_seed(0)
    seen = DiscretizedLogistic(17)
    shape = (1, 8, 8)
    encoder = flat_encoder(shape, 8, width=32)
    return VAE(encoder, flat_decoder(4, shape, seen.parameters, width=32), seen, 4)


def test_fit_trains_it_on_images():
    data = torch.randint(0, 4, (64, 1, 8, 8), dtype=torch.uint8)
    run = fit(image_vae(), data, 60, 32, lr=1e-2, warmup=10, progress=False)
    losses = [step.loss for step in run]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_generated_images_are_means_in_the_shape_of_the_data():
    images = image_vae().generate(3, torch.Generator().manual_seed(0))
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1


def test_binary_data_go_through():
    encoder, decoder = nn.Linear(5, 4), nn.Linear(2, 5)
    model = VAE(encoder, decoder, Bernoulli(), 2)
    costs = model.elbo(torch.randint(0, 2, (7, 5)))
    assert costs.nelbo.shape == (7,) and (costs.reconstruction > 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_levels_of_any_dtype_take_the_precision_of_the_model(dtype):
    data = torch.randint(0, 17, (3, 1, 8, 8)).to(dtype)
    assert image_vae().double().elbo(data).nelbo.dtype == F64
    assert image_vae().elbo(data).nelbo.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: m.importance_bound(x, 0), "k: expected a whole number >= 1, got 0"),
        (lambda m, x: m.loss(x, -1.0), "beta: expected a number >= 0, got -1.0"),
        (lambda m, x: m.loss(x, math.nan), "beta: expected a number >= 0, got nan"),
        (lambda m, x: m.generate(0), "n: expected a whole number >= 1"),
        (lambda m, x: VAE(m.encoder, m.decoder, Gaussian(), 0), "latents: expected a whole"),
        (
            lambda m, x: VAE(m.encoder, m.decoder, Gaussian(), 3).elbo(x),
            r"encoder\(x\): expected \(B, 6\): means and raw variances of 3 units, got \(4, 4\)",
        ),
        (lambda m, x: m.elbo(x.int()), "data: expected a floating-point tensor"),
        (lambda m, x: to_normal(x * torch.nan, 1), "output: expected finite numbers"),
        (
            lambda m, x: VAE(m.encoder, lambda z: x * torch.nan, Gaussian(), 2).elbo(x),
            "output: expected finite numbers",
        ),
        (lambda m, x: active_units(x[0]), r"costs: expected shape \(N, units\)"),
    ],
)
def test_bad_input_is_named(call, words):
    x, _ = TRUTH.sample(4)
    with pytest.raises(ValueError, match=words):
        call(linear_vae(), x)
