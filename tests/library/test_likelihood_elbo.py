"""Likelihoods, the three costs, and the toys whose bound is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdm_lite import elbo, exact, gaussian, likelihood, times
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import Elbo
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import IMAGE
from vdm_lite.schedules import Cosine, FlowMatching, Linear

F64 = torch.float64


@given(levels=st.integers(2, 300))
def test_levels_survive_the_round_trip(levels):
    codec = Discretized(levels)
    data = torch.arange(levels)[:, None]
    assert torch.equal(codec.decode(codec.encode(data)), data)
    grid = [2 * (k + 0.5) / levels - 1 for k in range(levels)]
    torch.testing.assert_close(codec.encode(data)[:, 0], torch.tensor(grid))


def test_discretized_is_bayes_with_an_even_prior():
    codec, logsnr = Discretized(5), torch.tensor([1.0, 3.0], dtype=F64)
    z = torch.randn(2, 3, dtype=F64)
    grid = codec.encode(torch.arange(5)).to(F64)
    mean = gaussian.alpha(logsnr)[:, None, None] * grid
    normal = torch.distributions.Normal(mean, gaussian.sigma(logsnr)[:, None, None])
    joint = normal.log_prob(z[..., None])  # log q(z_0 | x = enc(k))
    want = (joint - joint.logsumexp(-1, keepdim=True))[..., 2].sum(1)
    got = codec.log_prob(torch.full((2, 3), 2), z, logsnr)
    # The levels' grid is exact only to float32 here, hence the tolerance.
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_gaussian_likelihood_is_the_scaled_marginal():
    logsnr = torch.tensor([2.0, 5.0], dtype=F64)
    x, z = torch.randn(2, 2, 4, dtype=F64)
    mean = z / gaussian.alpha(logsnr)[:, None]
    normal = torch.distributions.Normal(mean, torch.exp(-logsnr / 2)[:, None])
    got = likelihood.Gaussian().log_prob(x, z, logsnr)
    torch.testing.assert_close(got, normal.log_prob(x).sum(1))


def test_prior_is_a_kl_and_keeps_its_digits_in_float32():
    x, logsnr = torch.rand(3, 4, dtype=F64), torch.tensor(-8.0, dtype=F64)
    a, s = gaussian.alpha(logsnr), gaussian.sigma(logsnr)
    standard = gaussian.Normal(torch.zeros(3, 4, dtype=F64), torch.ones((), dtype=F64))
    want = gaussian.kl(gaussian.Normal(a * x, s**2), standard)
    torch.testing.assert_close(elbo.prior(x, logsnr), want)
    in_float32 = elbo.prior(0 * x.float(), logsnr.float()).to(F64)
    exactly = elbo.prior(0 * x, logsnr)
    torch.testing.assert_close(in_float32, exactly, rtol=1e-3, atol=0)


def test_elbo_adds_its_costs_and_layers():
    two, one = torch.full((2,), 2.0), torch.ones(2)
    torch.testing.assert_close(Elbo(one, two, two).nelbo, torch.full((2,), 5.0))
    layered = Elbo(one, two, torch.ones(2, 7))
    torch.testing.assert_close(layered.nelbo, torch.full((2,), 10.0))
    means = Elbo(*(cost.mean(0) for cost in layered))
    torch.testing.assert_close(means.nelbo, torch.tensor(10.0))


def test_bits_per_dim():
    torch.testing.assert_close(
        elbo.bits_per_dim(torch.tensor([math.log(256) * 12]), 12), torch.tensor([8.0])
    )


@pytest.mark.parametrize("schedule", [Linear(6.0, -6.0), FlowMatching(6.0, -6.0)])
def test_gaussian_data_have_a_closed_form(schedule):
    data = exact.Gaussian(torch.zeros(1, dtype=F64), math.sqrt(2.5))
    limit = 0.5 * math.log((1 + 2.5 * math.exp(6)) / (1 + 2.5 * math.exp(-6)))
    assert elbo.diffusion_from_mmse(data.mmse, schedule).item() == pytest.approx(limit, abs=1e-9)


def test_the_sum_over_layers_is_written_out():
    """Against the sum of 1/2 (SNR(s) - SNR(t)) mmse(t) with plain exponentials."""
    data, schedule = exact.TWO_BUMPS, Linear(4.0, -4.0)
    snr = schedule(torch.linspace(0, 1, 11, dtype=F64)).exp()
    want = 0.5 * ((snr[:-1] - snr[1:]) * data.mmse(snr[1:].log())).sum()
    torch.testing.assert_close(elbo.diffusion_from_mmse(data.mmse, schedule, 10), want)


def test_a_weight_goes_under_the_integral():
    """Gaussian data, w = exp(-lambda): 1/2 the integral of the mmse over lambda, in closed form."""
    data = exact.Gaussian(torch.zeros(1, dtype=F64), math.sqrt(2.5))

    def antiderivative(lam):  # of 2.5 / (1 + 2.5 exp(lam))
        return 2.5 * (lam - math.log1p(2.5 * math.exp(lam)))

    want = 0.5 * (antiderivative(6.0) - antiderivative(-6.0))
    for schedule in (Linear(6.0, -6.0), FlowMatching(6.0, -6.0)):
        got = elbo.weighted_from_mmse(data.mmse, lambda lam: torch.exp(-lam), schedule)
        assert got.item() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "variance"),
    [
        (Linear(10.0, -8.0), 76.6),
        (Cosine(10.0, -8.0), 613),
        (FlowMatching(10.0, -8.0), 401),
        (lambda t: 10 - 18 * t**3, 82.5),
    ],
)
def test_variance_of_the_two_bump_toy(schedule, variance):
    toy = exact.TWO_BUMPS
    got = elbo.variance_from_moments(toy.mmse, toy.fourth_moment, schedule).item()
    assert got == pytest.approx(variance, rel=2e-3)


def test_variance_with_a_weight_equals_monte_carlo():
    toy, schedule, weight = exact.TWO_BUMPS, Cosine(6.0, -6.0), lambda lam: torch.sigmoid(1 - lam)
    got = elbo.variance_from_moments(toy.mmse, toy.fourth_moment, schedule, weight).item()
    model = VariationalDiffusion(toy.denoise, schedule, IMAGE)
    generator = torch.Generator().manual_seed(0)
    losses = model.loss(toy.sample(400_000, generator), weight, times.uniform, generator)
    spread = (losses - losses.mean()).square()
    assert abs(spread.mean().item() - got) < 4 * spread.std().item() / len(losses) ** 0.5


@settings(max_examples=30)
@given(
    batch=st.integers(1, 3),
    event=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int64, torch.float32]),
)
def test_shapes_and_dtypes(batch, event, dtype):
    data = torch.zeros(batch, *event, dtype=dtype)
    codec = Discretized(17)
    x = codec.encode(data)
    assert x.shape == data.shape and x.dtype == torch.float32
    assert codec.log_prob(data, x, torch.tensor(5.0)).shape == (batch,)
    assert elbo.prior(x, torch.tensor(-5.0)).shape == (batch,)


WHOLE = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32)
WHOLE += (torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("levels", [2, 100, 256, 300, 65_536])
@pytest.mark.parametrize("dtype", WHOLE)
def test_every_dtype_of_whole_numbers_is_encoded(levels, dtype):
    """Also those that cannot hold the number of levels, or with which torch cannot compare."""
    codec, wide = Discretized(levels), torch.tensor([[0, 1, 1, 0]])
    if dtype not in (torch.bool, torch.int8):
        wide = torch.tensor([[0, 1, min(levels, 129) - 1, min(levels, 241) - 1]])
    narrow = wide.to(dtype)
    assert torch.equal(codec.encode(narrow), codec.encode(wide))
    logsnr, z = torch.tensor(5.0), codec.encode(wide)
    assert torch.equal(codec.log_prob(narrow, z, logsnr), codec.log_prob(wide, z, logsnr))


@pytest.mark.parametrize(
    ("levels", "values", "dtype"),
    [
        (200, [0, 255], torch.uint8), (65_536, [-1, 5], torch.int16), (256, [-128, 5], torch.int8),
        (256, [0, 256], torch.uint16), (300, [0, 2**32 - 1], torch.uint32),
        (300, [0, 2**62], torch.uint64), (2, [0, 2], torch.int32), (2, [0, 1], torch.complex64),
    ],
)  # fmt: skip
def test_levels_outside_are_refused_in_every_dtype(levels, values, dtype):
    with pytest.raises(ValueError, match=r"^data: expected whole levels"):
        Discretized(levels).encode(torch.tensor([values]).to(dtype))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Discretized(0), "levels"),
        (lambda: Discretized(8).encode(torch.tensor([[8]])), "data"),
        (lambda: Discretized(8).encode(torch.tensor([[-1]])), "data"),
        (lambda: Discretized(8).encode(torch.tensor([[0.5]])), "data"),
        (lambda: Discretized(8).encode(torch.tensor([[float("nan")]])), "data"),
        (lambda: Discretized(8).encode(torch.empty(0, 3)), "data"),
        (lambda: Discretized(8).encode([1, 2]), "data"),
        (lambda: Discretized(8).decode(torch.tensor([1])), "x"),
        (lambda: likelihood.Gaussian().encode(torch.ones(2, 2).int()), "data"),
        (lambda: likelihood.Gaussian().encode(torch.empty(0, 2)), "data"),
        (
            lambda: Discretized(8).log_prob(
                torch.ones(2, 3).int(), torch.ones(3, 2), torch.zeros(())
            ),
            "z_0",
        ),
        (lambda: elbo.bits_per_dim(torch.ones(1), 0), "dims"),
        (lambda: elbo.diffusion_from_mmse(exact.TWO_BUMPS.mmse, Linear(), 0), "steps"),
        (lambda: elbo.diffusion_from_mmse(exact.TWO_BUMPS.mmse, lambda t: 5 * t), "schedule"),
        (lambda: elbo.diffusion_from_mmse(exact.TWO_BUMPS.mmse, lambda t: 5 * t, 9), "schedule"),
        (lambda: elbo.diffusion_from_mmse(lambda lam: lam[:, None], Linear()), r"mmse\(logsnr\)"),
        (
            lambda: elbo.diffusion_from_mmse(lambda lam: lam[:, None], Linear(), 9),
            r"mmse\(logsnr\)",
        ),
        (lambda: elbo.prior(torch.empty(0, 2), torch.zeros(())), "x"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
