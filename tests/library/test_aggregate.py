"""The aggregate posterior is the mixture that it claims to be, and refuses what is none."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite.aggregate import AggregatePosterior, grid
from vdm_lite.gaussian import Normal


def real(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def some(units: int = 2) -> Normal:
    mean = real([-1.0, 0.5], [0.3, 1.2], [1.1, -0.7])[:, :units]
    return Normal(mean, real([0.2, 0.3], [0.5, 0.1], [0.15, 0.4])[:, :units])


def test_samples_follow_the_density():
    q = AggregatePosterior(some())
    z, cell = grid(2, 241, 6.0, q.q.mean)
    drawn = q.sample(20_000, torch.Generator().manual_seed(0))
    for statistic in (lambda v: v, torch.square, lambda v: v[:, :1] * v[:, 1:]):
        exact = (q.log_prob(z).exp()[:, None] * statistic(z)).sum(0) * cell
        off = statistic(drawn).mean(0) - exact
        assert (off.abs() < 5 * statistic(drawn).std(0) / math.sqrt(20_000)).all()


def test_many_latents_at_once_are_taken_in_pieces():
    q = AggregatePosterior(some())
    z = torch.randn(5000, 2, dtype=torch.float64)
    assert_close(q.log_prob(z)[4990:], q.log_prob(z[4990:]))


def test_one_example_has_no_information():
    q = AggregatePosterior(Normal(real([0.4]), real([0.3])))
    information, mismatch = q.split()
    assert_close(information, real(0.0)[0], atol=1e-9, rtol=0)
    assert_close(mismatch, 0.5 * (real(0.3) + 0.16 - 1 - real(0.3).log())[0])


def test_gradients_do_not_reach_the_encoder():
    mean = torch.zeros(3, 2, requires_grad=True)
    q = AggregatePosterior(Normal(mean, torch.ones(3, 2)))
    assert not q.log_prob(torch.zeros(1, 2)).requires_grad


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (Normal(torch.zeros(3), torch.ones(3)), r"q.mean: expected shape \(N, units\)"),
        (Normal(torch.zeros(3, 2), torch.ones(3, 1)), r"q.var: expected shape \(3, 2\)"),
        (Normal(torch.zeros(3, 2), torch.zeros(3, 2)), "q.var: expected positive numbers"),
        (Normal(torch.full((3, 2), math.nan), torch.ones(3, 2)), "q.mean: expected finite"),
    ],
)
def test_bad_posteriors_are_named(q, message):
    with pytest.raises(ValueError, match=message):
        AggregatePosterior(q)


@pytest.mark.parametrize(("points", "half_width"), [(11, 7.0), (281, 0.5), (1, 7.0)])
def test_a_grid_that_misses_the_density_is_refused(points, half_width):
    narrow = AggregatePosterior(Normal(torch.zeros(4, 1), torch.full((4, 1), 0.04)))
    with pytest.raises(ValueError, match="points"):
        narrow.split(points, half_width)


def test_bad_arguments_are_named():
    three = AggregatePosterior(Normal(torch.zeros(4, 3), torch.ones(4, 3)))
    with pytest.raises(ValueError, match="units: expected at most 2"):
        three.split()
    with pytest.raises(ValueError, match=r"z: expected \(B, 3\)"):
        three.log_prob(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="n: expected a whole number"):
        three.sample(0)
