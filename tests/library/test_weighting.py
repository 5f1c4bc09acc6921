"""Each named weight is the weight that its recipe implies, w = p(lambda) * explicit * MSE ratio."""

import math

import pytest
import torch

from vdm_lite import weighting
from vdm_lite.gaussian import alpha
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, VELOCITY, Parameterization, determinant
from vdm_lite.schedules import EDM, BetaLinear, Cosine, FlowMatching, LogitNormal, rate
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
        (weighting.logit_normal(), LogitNormal(), FLOW, None),
        (weighting.logit_normal(0.7, 1.4), LogitNormal(mean=0.7, std=1.4), FLOW, None),
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
        (weighting.logit_normal(), False),
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
        "flow-matching",
        "InDI",
        "EDM-monotonic",
        "sigmoid",
    }
    assert weighting.is_monotone(recipe.weight) == weighting.is_monotone(recipe.implied()) == falls


def test_eleven_recipes():
    assert len(weighting.RECIPES) == 11


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.0), (0.5, 0.6)])
def test_logit_normal_is_the_density_of_what_is_drawn(mean, std):
    """Flow error at r = sigmoid(n), n ~ N(mean, std^2): a histogram of draws, times the ratio."""
    n = mean + std * torch.special.ndtri((torch.arange(1_000_000, dtype=F64) + 0.5) / 1_000_000)
    r = torch.sigmoid(n)
    edges = torch.linspace(-4, 4, 33, dtype=F64)
    counts = torch.histogram(2 * ((1 - r) / r).log(), edges)[0]
    middles = (edges[1:] + edges[:-1]) / 2
    drawn = counts * (1 + torch.exp(-middles / 2)).square()
    share = drawn / weighting.logit_normal(mean, std)(middles)
    often = counts > 5000
    assert often.sum() >= 10
    torch.testing.assert_close(
        share[often] / share[often].mean(), torch.ones_like(share[often]), rtol=0.02, atol=0
    )


def test_logit_normal_is_near_edm():
    """The numbers of chapter 9: total variation, the peak, and the peak with a shift of 3."""
    grid = torch.linspace(-5, 13.3, 100_001, dtype=F64)

    def off(name):
        w, edm = weighting.RECIPES[name].weight(grid), weighting.edm(grid)
        gap = w / torch.trapezoid(w, grid) - edm / torch.trapezoid(edm, grid)
        return 0.5 * torch.trapezoid(gap.abs(), grid).item()

    assert f"{off('logit-normal'):.2f} {off('flow-matching'):.2f}" == "0.10 0.29"
    wide = torch.linspace(-9, 9, 180_001, dtype=F64)
    peaks = [wide[weighting.logit_normal(mean)(wide).argmax()].item() for mean in (0, math.log(3))]
    assert [f"{peak:.2f}" for peak in peaks] == ["-3.38", "-6.01"]
    slope = -peaks[0] / 4 - 1 / (1 + math.exp(peaks[0] / 2))  # of log w
    assert abs(slope) < 1e-4
    assert not weighting.is_monotone(weighting.logit_normal())
    assert weighting.is_monotone(weighting.logit_normal(math.log(3)))


def test_p2_with_the_schedule_of_its_authors():
    """Their code draws linear betas: the peak is at -2.24, not at -1.10 as with the cosine."""
    linear = weighting.implied(BetaLinear(14.0, -9.0), NOISE, lambda lam: torch.sigmoid(-lam))
    grid = torch.linspace(-8, 10, 180_001, dtype=F64)
    peaks = [grid[w(grid).argmax()].item() for w in (linear, weighting.p2())]
    assert [f"{peak:.2f}" for peak in peaks] == ["-2.24", "-1.10"]
    ratio = linear(grid) / weighting.p2()(grid)
    ratio = ratio[(grid >= -5) & (grid <= 8)]
    assert f"{(ratio.max() / ratio.min()).item():.1f}" == "7.2"


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
        (lambda: weighting.logit_normal(math.nan), "mean"),
        (lambda: weighting.logit_normal(math.inf), "mean"),
        (lambda: weighting.logit_normal(0.0, 0.0), "std"),
        (lambda: weighting.logit_normal(0.0, -1.0), "std"),
        (lambda: weighting.logit_normal(0.0, math.nan), "std"),
        (lambda: LogitNormal(mean=math.inf), "mean"),
        (lambda: EDM(std=0.0), "std"),
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
