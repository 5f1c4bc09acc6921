"""The likelihoods of decoders against torch.distributions and against sums over all data."""

import math

import pytest
import torch
from torch.testing import assert_close

from vdm_lite.observation import Bernoulli, DiscretizedLogistic, Gaussian

F64 = torch.float64


def test_gaussian_equals_torch_distributions():
    x, output = torch.randn(4, 3, 2, dtype=F64), torch.randn(4, 3, 2, dtype=F64)
    expected = torch.distributions.Normal(output, 0.3).log_prob(x).sum((1, 2))
    assert_close(Gaussian(0.3).log_prob(x, output), expected)
    assert Gaussian(0.3).encode(x) is x and Gaussian(0.3).mean(output) is output


def test_bernoulli_equals_torch_distributions():
    data, logits = torch.randint(0, 2, (5, 4)), torch.randn(5, 4, dtype=F64)
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(data.double()).sum(1)
    assert_close(Bernoulli().log_prob(data, logits), expected)
    assert_close(Bernoulli().mean(logits).logit(), logits)
    assert Bernoulli().encode(data).dtype == torch.get_default_dtype()


@pytest.mark.parametrize("levels", [2, 3, 5, 256])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -1.0, 2.0])
def test_levels_share_the_whole_mass(levels, log_scale):
    data = torch.arange(levels).reshape(-1, 1)
    output = torch.tensor([[0.3, log_scale]], dtype=F64).expand(levels, 2)
    log_p = DiscretizedLogistic(levels).log_prob(data, output)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def test_each_level_has_the_mass_of_its_bin():
    data = torch.arange(8).reshape(-1, 1)
    mean, scale = 0.2, 0.35
    output = torch.tensor([[mean, math.log(scale)]], dtype=F64).expand(8, 2)
    edges = torch.linspace(-1, 1, 9, dtype=F64)
    edges[0], edges[-1] = -math.inf, math.inf
    mass = torch.sigmoid((edges - mean) / scale).diff()
    assert_close(DiscretizedLogistic(8).log_prob(data, output).exp(), mass)


def test_no_digits_are_lost_far_from_the_mean():
    seen = DiscretizedLogistic(256)
    output = torch.tensor([[-1.0, -4.0]], requires_grad=True)
    log_p = seen.log_prob(torch.tensor([[200]]), output)
    wide = seen.log_prob(torch.tensor([[200]]), output.detach().double())
    assert_close(log_p.double(), wide, rtol=1e-5, atol=0)
    log_p.sum().backward()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize("log_scale", [-100.0, 40.0, 1000.0])
def test_extreme_scales_stay_finite(log_scale):
    output = torch.tensor([[0.3, log_scale]]).expand(256, 2).clone().requires_grad_()
    log_p = DiscretizedLogistic(256).log_prob(torch.arange(256)[:, None], output)
    log_p.sum().backward()
    assert log_p.isfinite().all() and output.grad.isfinite().all()


@pytest.mark.parametrize("levels", [256, 65536])
def test_a_narrow_density_puts_nearly_all_mass_in_one_bin(levels):
    center = 2 * (100 + 0.5) / levels - 1
    output = torch.tensor([[center, -50.0]], dtype=F64)
    log_p = DiscretizedLogistic(levels).log_prob(torch.tensor([[100]]), output)
    assert -0.03 < log_p < 0


def test_two_parameters_are_channels():
    data = torch.randint(0, 17, (3, 2, 4, 4))
    output = torch.randn(3, 4, 4, 4)
    seen = DiscretizedLogistic(17)
    assert seen.log_prob(data, output).shape == (3,)
    assert_close(seen.mean(output), output[:, :2].clamp(-1, 1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Gaussian(0.0), "std: expected a positive number, got 0.0"),
        (lambda: Gaussian(-1.0), "std: expected a positive number"),
        (lambda: Gaussian(math.nan), "std: expected a positive number"),
        (lambda: DiscretizedLogistic(0), "levels: expected a whole number >= 2, got 0"),
        (lambda: DiscretizedLogistic(1), "levels: expected a whole number >= 2, got 1"),
        (lambda: DiscretizedLogistic(10**9), "levels: expected a whole number <= 65536"),
        (lambda: Gaussian().log_prob(torch.zeros(2, 3), torch.zeros(3)), "output: expected shape"),
        (lambda: Gaussian().encode(torch.zeros(2, dtype=int)), "data: expected a floating-point"),
        (lambda: Bernoulli().encode(torch.tensor([[0.5]])), "data: expected zeros and ones"),
        (lambda: Bernoulli().encode(torch.zeros(0, 2)), "data: expected a batch"),
        (
            lambda: Bernoulli().log_prob(torch.zeros(2, 3), torch.zeros(2, 2)),
            "output: expected shape",
        ),
        (
            lambda: DiscretizedLogistic(8).log_prob(torch.zeros(2, 3).int(), torch.zeros(2, 3)),
            r"output: expected shape \(2, 6\): means and log-scales, got \(2, 3\)",
        ),
        (
            lambda: DiscretizedLogistic(8).log_prob(torch.zeros(2).int(), torch.zeros(4)),
            r"data: expected shape \(B, C, ...\), got \(2,\)",
        ),
        (
            lambda: Bernoulli().log_prob(torch.zeros(2, 3), torch.full((2, 3), math.nan)),
            "output: expected finite numbers",
        ),
        (
            lambda: DiscretizedLogistic(8).encode(torch.full((1, 1), 8)),
            "data: expected whole levels 0 to 7",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
