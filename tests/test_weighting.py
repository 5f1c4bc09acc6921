"""Each named weight is the weight that its recipe implies, w = p(lambda) * explicit * MSE ratio."""

import pytest
import torch

from vdm_lite import weighting
from vdm_lite.gaussian import alpha
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, VELOCITY, Parameterization, determinant
from vdm_lite.schedules import EDM, Cosine, FlowMatching, rate
from vdm_lite.weighting import EDM_PEAK

F64 = torch.float64
GRID = torch.linspace(-12, 12, 2001, dtype=F64)


def constant(value):
    return torch.ones_like(value)


def edm_explicit(logsnr):
    """Explicit weight of the raw output F in Karras et al.: their lambda(sigma) c_out^2 = 1."""
    return torch.ones_like(logsnr)


def edm_output(logsnr):
    """(Delta_F / alpha)^2 = exp(-lambda) / c_out^2 with c_out^2 = s^2 / 4 / (s^2 + 1/4)."""
    var = torch.exp(-logsnr)
    return var / (var * 0.25 / (var + 0.25))


@pytest.mark.parametrize(
    ("name", "schedule", "p", "explicit"),
    [
        (weighting.noise_cosine, Cosine(), NOISE, constant),
        (weighting.velocity_cosine, Cosine(), VELOCITY, constant),
        (weighting.flow_matching, FlowMatching(), FLOW, None),
        (weighting.indi, FlowMatching(), IMAGE, None),
        (weighting.p2(0.7), Cosine(), NOISE, lambda lam: (1 + lam.exp()) ** -0.7),
        (weighting.min_snr(5.0), Cosine(), NOISE, lambda lam: (5 * torch.exp(-lam)).clamp(max=1)),
        (weighting.edm, EDM(), None, edm_explicit),
    ],
)
def test_named_weights_follow_from_their_recipes(name, schedule, p, explicit):
    logsnr, slope = rate(schedule, torch.linspace(0.05, 0.95, 60, dtype=F64))
    if p is None:
        ratio = edm_output(logsnr)
    elif explicit is None:
        # On the straight path z = (1 - u) x + u eps: error of eps - x is MSE_eps / (1 - u)^2,
        # that of x is MSE_eps u^2 / (1 - u)^2, with u = 1 / (1 + exp(lambda / 2)).
        u = 1 / (1 + torch.exp(logsnr / 2))
        ratio = (1 if p is FLOW else u**2) / (1 - u) ** 2
    else:
        ratio = explicit(logsnr) * (determinant(p, logsnr) / alpha(logsnr)) ** 2
    implied = -ratio / slope
    share = implied / name(logsnr)
    torch.testing.assert_close(share, share[0].expand(60))


@pytest.mark.parametrize(
    ("name", "falls"),
    [
        (weighting.elbo, True),
        (weighting.noise_cosine, False),
        (weighting.velocity_cosine, True),
        (weighting.flow_matching, True),
        (weighting.indi, True),
        (weighting.edm, False),
        (weighting.edm_monotonic, True),
        (weighting.p2(), False),
        (weighting.min_snr(), False),
        (weighting.sigmoid(), True),
    ],
)
def test_which_weights_are_monotone(name, falls):
    assert bool((name(GRID).diff() <= 1e-12).all()) == falls


def test_edm_peak():
    """The derivative of log w vanishes there: -(l - 2.4)/2.4^2 - e^-l / (e^-l + 1/4) = 0."""
    peak = torch.tensor(EDM_PEAK, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(weighting.edm(peak).log(), peak)
    assert abs(slope.item()) < 1e-5
    assert GRID[weighting.edm(GRID).argmax()].item() == pytest.approx(EDM_PEAK, abs=0.01)


def test_edm_monotonic_is_edm_above_the_peak_and_flat_below():
    above, below = GRID[GRID > EDM_PEAK], GRID[GRID < EDM_PEAK]
    torch.testing.assert_close(weighting.edm_monotonic(above), weighting.edm(above))
    assert weighting.edm_monotonic(below).unique().numel() == 1


def test_sigmoid_weight():
    torch.testing.assert_close(weighting.sigmoid(2.0)(GRID), 1 / (1 + torch.exp(GRID - 2)))


def test_parameterization_row_of_the_flow_matching_path():
    """The path's own output eps - x has the FLOW row up to the factor that makes z variance 1."""
    row = Parameterization("flow", FLOW.a, FLOW.b)
    logsnr = torch.linspace(-6, 6, 13, dtype=F64)
    u = 1 / (1 + torch.exp(logsnr / 2))
    ratio = (determinant(row, logsnr) / alpha(logsnr)) ** 2
    torch.testing.assert_close(ratio, (1 / (1 - u)) ** 2)
