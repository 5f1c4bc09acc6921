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
    assert weighting.is_monotone(name, 12.0, -12.0) == falls


@pytest.mark.parametrize("name", weighting.RECIPES)
def test_every_recipe_implies_its_weight(name):
    recipe = weighting.RECIPES[name]
    logsnr = torch.linspace(-5, 13.3, 83, dtype=F64)
    share = recipe.implied()(logsnr) / recipe.weight(logsnr)
    torch.testing.assert_close(share, share[:1].expand(83), rtol=1e-6, atol=0)
    falls = name in {
        "ELBO",
        "velocity, cosine",
        "flow matching",
        "InDI",
        "EDM-monotonic",
        "sigmoid",
    }
    assert weighting.is_monotone(recipe.weight) == weighting.is_monotone(recipe.implied()) == falls


def test_ten_recipes():
    assert len(weighting.RECIPES) == 10


def test_min_snr_in_its_image_form_is_the_same_weight():
    """min(SNR, gamma) ||x - x_hat||^2 (Hang et al.) and min(1, gamma/SNR) ||eps - eps_hat||^2."""
    image = weighting.implied(Cosine(), IMAGE, lambda lam: lam.exp().clamp(max=5.0))
    logsnr = torch.linspace(-5, 13.3, 50, dtype=F64)
    torch.testing.assert_close(image(logsnr), weighting.RECIPES["min-SNR"].implied()(logsnr))


def test_an_implied_weight_ends_with_its_schedule():
    weight = weighting.implied(Cosine(5.0, -5.0), NOISE, weighting.elbo)
    outside = torch.tensor([-5.1, 5.1], dtype=F64)
    assert (weight(outside) == 0).all()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: weighting.is_monotone(weighting.elbo, -5.0, 5.0), "logsnr_max, logsnr_min"),
        (lambda: weighting.is_monotone(lambda lam: -lam), r"weighting\(logsnr\)"),
        (lambda: weighting.is_monotone(lambda lam: lam.log()), r"weighting\(logsnr\)"),
        (lambda: weighting.is_monotone(lambda lam: lam[:1]), r"weighting\(logsnr\)"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()


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
