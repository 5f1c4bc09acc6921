"""Schedules: end points, densities, derivatives, errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdm_lite import quadrature, schedules
from vdm_lite.schedules import (
    EDM,
    BetaLinear,
    Cosine,
    FlowMatching,
    Learned,
    Linear,
    LogitNormal,
    rate,
)

F64 = torch.float64
CURVES = [Linear, Cosine, FlowMatching, EDM, LogitNormal, BetaLinear]


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
        (LogitNormal(), lambda logsnr: torch.distributions.Normal(0.0, 2.0).log_prob(logsnr).exp()),
        (
            LogitNormal(mean=0.7, std=1.4),
            lambda logsnr: torch.distributions.Normal(-1.4, 2.8).log_prob(logsnr).exp(),
        ),
    ],
)
def test_density_over_levels_is_the_published_one_cut_to_the_range(curve, density):
    """p(lambda) = -dt/dlambda is proportional to the uncut density: cutting only rescales time."""
    logsnr, slope = rate(curve, torch.linspace(0.02, 0.98, 40, dtype=F64))
    share = -1 / slope / density(logsnr)
    torch.testing.assert_close(share, share[0].expand(40))
    grid = torch.linspace(-5, 13.3, 20001, dtype=F64)
    torch.testing.assert_close(share[0], 1 / torch.trapezoid(density(grid), grid))


@pytest.mark.parametrize("curve", [EDM(), EDM(18.0, -9.0), LogitNormal()])
def test_density_keeps_its_digits_in_a_far_tail(curve):
    """Near the clean end of a normal density, where it falls to 1e-9 of its peak."""
    logsnr = torch.linspace(-4.9, curve.logsnr_max - 0.1, 60, dtype=F64)
    normal = torch.exp(-0.5 * ((logsnr / 2 + curve.mean) / curve.std).square())
    share = schedules.density(curve, logsnr) / normal
    torch.testing.assert_close(share, share[:1].expand(60), rtol=1e-9, atol=0)


def test_flow_matching_is_the_straight_path():
    """Up to a common factor, (alpha, sigma) = (1 - u, u): the log-SNR of u = t on a wide range."""
    wide = FlowMatching(40.0, -40.0)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    torch.testing.assert_close(wide(t), 2 * ((1 - t) / t).log(), atol=1e-6, rtol=0)


def test_levels_are_the_ends_of_the_layers():
    logsnr_s, logsnr_t = schedules.levels(Linear(2.0, -2.0), 4, torch.empty(()))
    torch.testing.assert_close(logsnr_s, torch.tensor([2.0, 1.0, 0.0, -1.0]))
    torch.testing.assert_close(logsnr_t, torch.tensor([1.0, 0.0, -1.0, -2.0]))


@pytest.mark.parametrize("u", [0.001, 0.1, 0.5, 1.0])
def test_beta_linear_is_the_ddpm_table_in_continuous_time(u):
    """1000 steps with betas from 1e-4 to 0.02: alpha^2 is the product of 1 - beta."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    signal = (1 - betas[: round(1000 * u)]).prod()
    table = (signal / (1 - signal)).log().item()
    wide = BetaLinear(20.0, -20.0)
    rate_of_noise = 0.1 * u + (20 - 0.1) * u**2 / 2  # the integral of beta(u) = 0.1 + 19.9 u
    level = -math.log(math.expm1(rate_of_noise))
    assert level == pytest.approx(table, abs=0.15)
    t = schedules.time_of(wide, torch.tensor(level, dtype=F64))
    (low, _), (high, _) = wide._inverse(20.0), wide._inverse(-20.0)
    assert low + t.item() * (high - low) == pytest.approx(u, rel=1e-9)


def learned(seed: int = 0, scale: float = 2.0, **options) -> Learned:
    """A learned schedule after some training: random inner weights."""
    schedule = Learned(10.0, -8.0, **options)
    generator = torch.Generator().manual_seed(seed)
    schedule.raw.data = scale * torch.randn(schedule.raw.shape, generator=generator)
    return schedule


@given(seed=st.integers(0, 10**6), scale=st.floats(0.0, 20.0), units=st.integers(1, 70))
def test_learned_schedule_is_monotone_with_exact_ends(seed, scale, units):
    """Whatever the weights are; the ends to the last bit."""
    schedule = learned(seed, scale, units=units)
    with torch.no_grad():
        logsnr = schedule(torch.linspace(0, 1, 301))
        assert logsnr[0] == 10 and logsnr[-1] == -8
        _, slope = rate(schedule, torch.linspace(0, 1, 301, dtype=F64))
    assert (slope <= 0).all() and (logsnr.diff() <= 1e-5).all()


def test_a_fresh_learned_schedule_is_nearly_linear():
    t = torch.linspace(0, 1, 101)
    assert (Learned(10.0, -8.0)(t) - Linear(10.0, -8.0)(t)).abs().max() < 0.2


def test_learned_schedule_is_differentiable_in_its_slope():
    """``rate`` is differentiable with respect to the inner weights, as finite differences say."""
    schedule, t = learned().double(), torch.tensor([0.1, 0.37, 0.9], dtype=F64)

    def slopes(raw):
        return rate(lambda t: torch.func.functional_call(schedule, {"raw": raw}, t), t)[1]

    torch.autograd.gradcheck(slopes, schedule.raw.detach().requires_grad_())


def test_ends_are_parameters_only_on_request():
    assert Learned(10, -8, train_ends=True).logsnr_max.is_floating_point()
    for train_ends in (False, True):
        schedule = learned(train_ends=train_ends)
        (2 * schedule(torch.tensor([0.0, 1.0]))).sum().backward()
        trained = [name for name, p in schedule.named_parameters() if p.grad is not None]
        assert trained == (["raw", "logsnr_max", "logsnr_min"] if train_ends else ["raw"])
        assert schedule.raw.grad.abs().max() < 1e-5  # no weight moves an end
        assert [p is schedule.raw for p in schedule.interior()] == [True]
    assert schedule.logsnr_max.grad == schedule.logsnr_min.grad == 2


EVERY = [*(curve() for curve in CURVES), learned(), lambda t: 10 - 18 * t**3 - 0.1 * t]


@pytest.mark.parametrize("schedule", EVERY)
def test_time_of_inverts_a_schedule(schedule):
    t = torch.linspace(0, 1, 41, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(schedules.time_of(schedule, schedule(t)), t, rtol=0, atol=1e-9)
        low, high = schedules.ends(schedule)
        assert (low, high) == tuple(schedule(torch.tensor([1.0, 0.0], dtype=F64)).tolist())


@pytest.mark.parametrize("schedule", EVERY)
def test_density_is_the_share_of_time_spent_at_a_level(schedule):
    """Moments of lambda over t in [0.1, 0.9] are its moments under p(lambda)."""
    t, weights = quadrature.interval(0.1, 0.9)
    with torch.no_grad():
        logsnr = schedule(t)
        late, early = schedule(torch.tensor([0.9, 0.1], dtype=F64)).tolist()
        nodes, node_weights = quadrature.interval(late, early)
        p = schedules.density(schedule, nodes)
    for moment in (0, 1, 2):
        want = (weights * logsnr**moment).sum()
        got = (node_weights * p * nodes**moment).sum()
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    low, high = schedules.ends(schedule)
    outside = torch.tensor([low - 1, high + 1], dtype=F64)
    assert (schedules.density(schedule, outside) == 0).all()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Linear(-5.0, 13.3), "logsnr_max, logsnr_min"),
        (lambda: Cosine(float("inf"), -5.0), "logsnr_max"),
        (lambda: Linear(logsnr_max=1000.0), "logsnr_max"),
        (lambda: Linear(logsnr_min=-81.0), "logsnr_min"),
        (lambda: Cosine(shift=1000.0), "shift"),
        (lambda: Linear(None, -5.0), "logsnr_max"),
        (lambda: schedules.require_falling(Linear), "schedule"),
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
        (lambda: Learned(-5.0, 13.3), "logsnr_max, logsnr_min"),
        (lambda: Learned(float("nan"), -5.0), "logsnr_max"),
        (lambda: Learned(13.3, -1000.0), "logsnr_min"),
        (lambda: Learned(units=0), "units"),
        (lambda: Learned()(torch.tensor([0.5, 1.1])), "t"),
        (lambda: schedules.time_of(Linear(), torch.tensor([14.0])), "logsnr"),
        (lambda: schedules.time_of(lambda t: 2 * t, torch.rand(3)), "schedule"),
        (lambda: schedules.density(Linear(), torch.tensor([1])), "logsnr"),
        (lambda: schedules.levels(Linear(), 0, torch.empty(())), "steps"),
        (lambda: schedules.levels(Linear(), 2.5, torch.empty(())), "steps"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
