"""Schedules and time samplers: end points, densities, derivatives, errors."""

import math

import pytest
import torch

from vdm_lite import schedules, times
from vdm_lite.schedules import EDM, Cosine, FlowMatching, Linear, rate

F64 = torch.float64
CURVES = [Linear, Cosine, FlowMatching, EDM]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_edm_reaches_ends_far_in_its_tails(dtype):
    ends = torch.tensor([24.0, -20.0], dtype=dtype)
    torch.testing.assert_close(EDM(24.0, -20.0)(torch.tensor([0.0, 1.0], dtype=dtype)), ends)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("ends", [(13.3, -5.0), (10.0, -8.0), (12.0, -12.0)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_end_points_are_exact(curve, ends, dtype):
    got = curve(*ends)(torch.tensor([0.0, 1.0], dtype=dtype))
    torch.testing.assert_close(got, torch.tensor(ends, dtype=dtype))


@pytest.mark.parametrize("curve", CURVES)
def test_schedules_fall_and_rate_is_their_slope(curve):
    t = torch.linspace(0.01, 0.99, 50, dtype=F64)
    with torch.no_grad():
        logsnr, slope = rate(curve(), t)
    h = 1e-6
    finite_difference = (curve()(t + h) - curve()(t - h)) / (2 * h)
    assert (slope < 0).all()
    torch.testing.assert_close(logsnr, curve()(t))
    torch.testing.assert_close(slope, finite_difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("curve", "density"),
    [
        (Cosine(), lambda logsnr: 1 / torch.cosh(logsnr / 2) / (2 * math.pi)),
        (Cosine(shift=1.5), lambda logsnr: 1 / torch.cosh((logsnr - 1.5) / 2) / (2 * math.pi)),
        (FlowMatching(), lambda logsnr: 1 / torch.cosh(logsnr / 4) ** 2 / 8),
        (EDM(), lambda logsnr: torch.distributions.Normal(2.4, 2.4).log_prob(logsnr).exp()),
    ],
)
def test_density_over_levels_is_the_published_one_cut_to_the_range(curve, density):
    """p(lambda) = -dt/dlambda is proportional to the uncut density: cutting only rescales time."""
    logsnr, slope = rate(curve, torch.linspace(0.02, 0.98, 40, dtype=F64))
    share = -1 / slope / density(logsnr)
    torch.testing.assert_close(share, share[0].expand(40))
    grid = torch.linspace(-5, 13.3, 20001, dtype=F64)
    torch.testing.assert_close(share[0], 1 / torch.trapezoid(density(grid), grid))


def test_flow_matching_is_the_straight_path():
    """Up to a common factor, (alpha, sigma) = (1 - u, u): the log-SNR of u = t on a wide range."""
    wide = FlowMatching(40.0, -40.0)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    torch.testing.assert_close(wide(t), 2 * ((1 - t) / t).log(), atol=1e-6, rtol=0)


def test_levels_are_the_ends_of_the_layers():
    logsnr_s, logsnr_t = schedules.levels(Linear(2.0, -2.0), 4, torch.empty(()))
    torch.testing.assert_close(logsnr_s, torch.tensor([2.0, 1.0, 0.0, -1.0]))
    torch.testing.assert_close(logsnr_t, torch.tensor([1.0, 0.0, -1.0, -2.0]))


@pytest.mark.parametrize("sampler", [times.uniform, times.low_discrepancy])
def test_each_time_is_uniform_on_its_own(sampler):
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([sampler(8, generator, dtype=F64).t for _ in range(4000)])
    assert ((draws >= 0) & (draws < 1)).all()
    error = 1 / math.sqrt(12 * 4000)
    assert ((draws.mean(0) - 0.5).abs() < 4 * error).all()
    assert ((draws.square().mean(0) - 1 / 3).abs() < 4 * error).all()


def test_low_discrepancy_puts_one_time_in_each_stratum():
    t, _ = times.low_discrepancy(16, torch.Generator().manual_seed(1), dtype=F64)
    assert ((t * 16).floor().sort().values == torch.arange(16)).all()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Linear(-5.0, 13.3), "logsnr_max, logsnr_min"),
        (lambda: Cosine(float("inf"), -5.0), "logsnr_max, logsnr_min"),
        (lambda: Linear()(torch.tensor([0, 1])), "t"),
        (lambda: Linear()(torch.tensor([0.5, 1.1])), "t"),
        (lambda: Linear()(torch.tensor(float("nan"))), "t"),
        (lambda: rate(lambda t: 2 * t, torch.rand(3)), "schedule"),
        (lambda: rate(lambda t: 2 * t, torch.tensor(0.5)), "schedule"),
        (lambda: rate(lambda t: -t[:1], torch.rand(3)), r"schedule\(t\)"),
        (lambda: rate(lambda t: (t - 2).log(), torch.rand(3)), r"schedule\(t\)"),
        (lambda: rate(Linear(), torch.tensor([0, 1])), "t"),
        (lambda: rate(Linear(), 0.5), "t"),
        (lambda: schedules.require_falling(lambda t: 2 * t), "schedule"),
        (lambda: schedules.levels(Linear(), 0, torch.empty(())), "steps"),
        (lambda: schedules.levels(Linear(), 2.5, torch.empty(())), "steps"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
