"""Chapter 9, weighted objectives: one test for each labeled equation, in float64, and exercises."""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, parameterization, weighting
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.figures import ch09_weighted_objectives as ch09
from vdm_lite.parameterization import FLOW, IMAGE, NOISE, VELOCITY, Parameterization, solve, target
from vdm_lite.schedules import EDM, BetaLinear, Cosine, FlowMatching, Linear, Schedule, time_of
from vdm_lite.weighting import RECIPES, implied, is_monotone

FLOAT = torch.float64
LEVELS = torch.linspace(-4.9, 13.2, 91, dtype=FLOAT)
ONE = torch.ones_like
FALLING = {"ELBO", "velocity, cosine", "flow-matching", "InDI", "EDM-monotonic", "sigmoid"}


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def sech(logsnr: Tensor) -> Tensor:
    return 2 / (logsnr.exp() + torch.exp(-logsnr))


def trapezoid(f: Callable[[Tensor], Tensor], low: float, high: float, n: int = 2001) -> Tensor:
    grid = torch.linspace(low, high, n, dtype=FLOAT)
    return torch.trapezoid(f(grid), grid)


def noise_error(logsnr: Tensor) -> Tensor:
    return logsnr.exp() * TWO_BUMPS.mmse(logsnr)


def differences(schedule: Schedule, output: Parameterization, explicit: weighting.Weighting):
    """p * explicit * MSE_y / MSE_eps at LEVELS, from finite differences and a linear solver.

    The step's own error, h^2 / 6 p'' / p, is below 5e-7, also in the far tail of the logit-normal.
    """
    h = 5e-4
    p = (time_of(schedule, LEVELS - h) - time_of(schedule, LEVELS + h)) / (2 * h)
    rows = output.a(LEVELS), output.b(LEVELS), gaussian.alpha(LEVELS), gaussian.sigma(LEVELS)
    system = torch.stack(rows, -1).view(-1, 2, 2)  # (x, eps) -> (y, z)
    eps = torch.linalg.solve(system, real(1.0, 0.0).expand(len(LEVELS), 2))[:, 1]
    return p * explicit(LEVELS) / eps**2


def assert_weight(name: str, formula: Tensor, rtol: float = 1e-9) -> None:
    """The recipe, its differences, its closed form and ``formula`` agree up to one factor each."""
    recipe = RECIPES[name]
    for given in (recipe.weight(LEVELS), recipe.implied()(LEVELS)):
        assert_close(given / formula, (given / formula)[:1].expand_as(formula), rtol=rtol, atol=0)
    numeric = differences(recipe.schedule, recipe.parameterization, recipe.explicit) / formula
    assert_close(numeric, numeric.mean().expand_as(formula), rtol=1e-6, atol=0)


@pytest.mark.equation("eq-weighted-loss")
@pytest.mark.parametrize("w", [weighting.velocity_cosine, weighting.sigmoid(1.0), weighting.elbo])
def test_a_weighted_loss_over_log_snr_and_over_time(w):
    over_logsnr = 0.5 * trapezoid(lambda at: w(at) * noise_error(at), -8, 10)
    for schedule in (Linear(10.0, -8.0), Cosine(10.0, -8.0), FlowMatching(10.0, -8.0)):
        assert_close(
            elbo.weighted_from_mmse(TWO_BUMPS.mmse, w, schedule), over_logsnr, rtol=1e-6, atol=0
        )
        t = torch.linspace(0, 1, 3001, dtype=FLOAT)
        at = schedule(t)
        middle = (at[1:] + at[:-1]) / 2
        over_time = 0.5 * (w(middle) * noise_error(middle) * -at.diff()).sum()
        assert_close(over_time, over_logsnr, rtol=5e-4, atol=0)


@pytest.mark.equation("eq-implied-weight")
@pytest.mark.parametrize("name", RECIPES)
def test_the_implied_weight_by_finite_differences(name):
    recipe = RECIPES[name]
    numeric = differences(recipe.schedule, recipe.parameterization, recipe.explicit)
    assert_close(recipe.implied()(LEVELS), numeric, rtol=1e-6, atol=0)
    assert_weight(name, recipe.weight(LEVELS))


def test_a_recipe_is_twice_the_weighted_loss():
    """E_t ||v - v_hat||^2, a double sum over x and noise, against the implied weight."""
    schedule = Cosine(6.0, -6.0)
    nodes, node_weights = exact.normal_quadrature(61)
    x = (TWO_BUMPS.means + TWO_BUMPS.stds[:, None] * nodes).reshape(-1, 1, 1)
    share = (TWO_BUMPS.weights[:, None] * node_weights).reshape(-1, 1, 1) * node_weights[:, None]
    t = (torch.arange(200, dtype=FLOAT) + 0.5) / 200
    at = schedule(t)
    alpha, sigma = gaussian.alpha(at), gaussian.sigma(at)
    z = alpha * x + sigma * nodes[:, None]
    x_hat = TWO_BUMPS.denoise(z.reshape(-1, 1), at.expand_as(z).reshape(-1)).view_as(z)
    v_hat = (alpha * z - x_hat) / sigma
    v = alpha * nodes[:, None] - sigma * x
    paper = (share * (v - v_hat) ** 2).sum((0, 1)).mean()
    ours = 2 * elbo.weighted_from_mmse(TWO_BUMPS.mmse, implied(schedule, VELOCITY, ONE), schedule)
    assert_close(paper, ours, rtol=1e-4, atol=0)


@pytest.mark.equation("eq-weight-flow")
def test_flow_matching():
    assert_weight("flow-matching", torch.exp(-LEVELS / 2))
    far = FlowMatching(60.0, -60.0)  # nearly the whole line: the constant is one half
    assert_close(implied(far, FLOW, ONE)(LEVELS), torch.exp(-LEVELS / 2) / 2, rtol=1e-8, atol=0)


def test_flow_matching_as_a_paper_prints_it():
    """E_t (u - u_hat)^2 over all of [0, 1] is the weighted loss with exp(-lambda / 2): 1.24447."""
    loss = 0.5 * trapezoid(lambda at: torch.exp(-at / 2) * noise_error(at), -40, 40)
    t = (torch.arange(2000, dtype=FLOAT) + 0.5) / 2000
    paper = (TWO_BUMPS.mmse(2 * torch.log((1 - t) / t)) / t**2).mean()  # u - u_hat = (x_hat - x)/t
    assert_close(paper, loss, rtol=1e-5, atol=0)
    assert abs(loss.item() - 1.24447) < 1e-5


@pytest.mark.equation("eq-weight-noise")
def test_noise_with_cosine():
    assert_weight("noise, cosine", sech(LEVELS / 2))


@pytest.mark.equation("eq-weight-velocity")
def test_velocity_with_cosine():
    assert_weight("velocity, cosine", torch.exp(-LEVELS / 2))
    far = Cosine(60.0, -60.0)
    wanted = torch.exp(-LEVELS / 2) / math.pi
    assert_close(implied(far, VELOCITY, ONE)(LEVELS), wanted, rtol=1e-8, atol=0)


@pytest.mark.equation("eq-weight-logit-normal")
def test_logit_normal():
    bell = torch.distributions.Normal(*real(0.0, 2.0)).log_prob(LEVELS).exp()
    assert_weight("logit-normal", bell * (1 + torch.exp(-LEVELS / 2)) ** 2)


@pytest.mark.equation("eq-weight-logit-normal")
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.6, 1.4), (-0.5, 0.8)])
def test_flow_error_at_logit_normal_places(mean, std):
    """E_n (u - u_hat)^2 at r = sigmoid(n) is the weighted loss: sums on both sides."""
    nodes, weights = exact.normal_quadrature(121)
    r = torch.sigmoid(mean + std * nodes)
    at = 2 * torch.log((1 - r) / r)
    paper = (weights * TWO_BUMPS.mmse(at) / r**2).sum()  # u - u_hat = (x_hat - x) / r
    bell = torch.distributions.Normal(*real(-2 * mean, 2 * std)).log_prob

    def error(at: Tensor) -> Tensor:
        return bell(at).exp() * (1 + torch.exp(-at / 2)) ** 2 * noise_error(at)

    assert_close(trapezoid(error, -40, 40, 8001), paper, rtol=1e-6, atol=0)
    w = weighting.logit_normal(mean, std)(LEVELS)
    formula = bell(LEVELS).exp() * (1 + torch.exp(-LEVELS / 2)) ** 2
    assert_close(w / formula, (w / formula)[:1].expand_as(w))


@pytest.mark.equation("eq-weight-indi")
def test_indi():
    assert_weight("InDI", torch.exp(-LEVELS) * sech(LEVELS / 4) ** 2)


@pytest.mark.equation("eq-weight-p2")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_p2(gamma):
    formula = sech(LEVELS / 2) / (1 + LEVELS.exp()) ** gamma
    if gamma == 1.0:
        assert_weight("P2, cosine", formula)
    assert_close(weighting.p2(gamma)(LEVELS), formula)


@pytest.mark.equation("eq-weight-min-snr")
def test_min_snr_in_its_three_forms():
    formula = sech(LEVELS / 2) * torch.clamp(5 * torch.exp(-LEVELS), max=1)
    assert_weight("min-SNR", formula)
    clipped = {
        IMAGE: lambda at: at.exp().clamp(max=5),
        VELOCITY: lambda at: at.exp().clamp(max=5) / (at.exp() + 1),
    }
    noise = RECIPES["min-SNR"].implied()(LEVELS)
    for output, factor in clipped.items():
        assert_close(implied(Cosine(), output, factor)(LEVELS), noise, rtol=1e-9, atol=0)


@pytest.mark.equation("eq-weight-edm")
def test_edm_by_its_image_error_and_by_its_raw_output():
    bell = torch.exp(-((LEVELS - 2.4) ** 2) / (2 * 2.4**2))
    assert_weight("EDM", bell * (torch.exp(-LEVELS) + 0.25))
    var = torch.exp(-LEVELS)
    in_print = implied(EDM(), IMAGE, lambda at: (torch.exp(-at) + 0.25) / (0.25 * torch.exp(-at)))
    assert_close(in_print(LEVELS), RECIPES["EDM"].implied()(LEVELS), rtol=1e-9, atol=0)
    s = var.sqrt()  # log s ~ N(-1.2, 1.2^2), in the units of the paper
    density = torch.distributions.Normal(*real(-1.2, 1.2)).log_prob(s.log()).exp()
    ratio = density * (s**2 + 0.25) / (s * 0.5) ** 2 * s**2 / RECIPES["EDM"].weight(LEVELS)
    assert_close(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.equation("eq-weight-edm-monotonic")
def test_edm_monotonic_is_held_below_the_peak():
    fine = torch.linspace(-5, 13.3, 200_001, dtype=FLOAT)
    edm = torch.exp(-((fine - 2.4) ** 2) / (2 * 2.4**2)) * (torch.exp(-fine) + 0.25)
    peak = fine[edm.argmax()].item()
    assert abs(peak + 3.31) < 5e-3
    held = LEVELS.clamp(min=peak)
    bell = torch.exp(-((held - 2.4) ** 2) / (2 * 2.4**2))
    assert_weight("EDM-monotonic", bell * (torch.exp(-held) + 0.25))


@pytest.mark.equation("eq-weight-explicit")
@pytest.mark.parametrize("w", [weighting.elbo, weighting.sigmoid(2.0), weighting.p2()])
@pytest.mark.parametrize("kind", [Linear, Cosine, FlowMatching, EDM])
def test_any_weight_by_design(kind, w):
    def factor(at: Tensor) -> Tensor:
        return w(at) * 2e-3 / (time_of(kind(), at - 1e-3) - time_of(kind(), at + 1e-3))

    assert_close(implied(kind(), NOISE, factor)(LEVELS), w(LEVELS), rtol=1e-6, atol=0)


def test_the_two_recipes_by_design():
    assert_weight("ELBO", torch.ones_like(LEVELS))
    assert_weight("sigmoid", 1 / (1 + torch.exp(LEVELS - 2)))


def test_which_weights_are_monotone():
    assert {name for name, recipe in RECIPES.items() if is_monotone(recipe.weight)} == FALLING


@pytest.mark.equation("eq-flow-velocity")
def test_flow_is_velocity_up_to_a_scale_and_the_input():
    x, eps, at = torch.randn(3, 50, generator=torch.Generator().manual_seed(9), dtype=FLOAT)
    alpha, sigma = gaussian.alpha(at), gaussian.sigma(at)
    z = gaussian.diffuse(x, at, eps)
    v, u = (target(p, x, eps, at) for p in (VELOCITY, FLOW))
    assert_close(u, (alpha + sigma) * v + (sigma - alpha) * z)
    ratio = parameterization.determinant(FLOW, at) / parameterization.determinant(VELOCITY, at)
    assert_close(ratio, alpha + sigma)


@pytest.mark.equation("eq-equal-areas")
@pytest.mark.parametrize("name", ["arc", "chord", "ellipse", "parabola"])
def test_the_weight_of_a_path_is_its_swept_area(name):
    """The path's own levels as a schedule, its velocity as an output, through the library."""
    quarter, low, high = math.pi / 2, 0.1, 0.9
    paths = {
        "arc": lambda t: (torch.cos(quarter * t), torch.sin(quarter * t)),
        "chord": lambda t: (1 - t, t),
        "ellipse": lambda t: (torch.cos(quarter * t), 3 * torch.sin(quarter * t)),
        "parabola": lambda t: (1 - t, t * (2 - t)),
    }
    path = paths[name]

    def schedule(t: Tensor) -> Tensor:
        a, s = path(low + (high - low) * t)
        return 2 * torch.log(a / s)

    def moving(at: Tensor) -> tuple[Tensor, Tensor]:
        t = low + (high - low) * time_of(schedule, at)
        return torch.func.jvp(path, (t,), (torch.ones_like(t),))[1]

    at = schedule(torch.linspace(0.02, 0.98, 25, dtype=FLOAT))
    row = Parameterization(name, lambda at: moving(at)[0], lambda at: moving(at)[1])
    t = low + (high - low) * torch.linspace(0.02, 0.98, 25, dtype=FLOAT)
    (a, s), (after_a, after_s) = path(t - 5e-5), path(t + 5e-5)
    area = 0.5 * (a * after_s - s * after_a) / 1e-4  # of a thin triangle
    w = implied(schedule, row, ONE)(at) * (high - low)
    assert_close(w, torch.exp(-at / 2) * area, rtol=1e-6, atol=0)
    assert (area.max() / area.min() < 1 + 1e-6) == (name != "parabola")


@pytest.mark.equation("eq-weight-shifted")
@pytest.mark.parametrize("d", [32, 128, 256])
def test_velocity_with_a_shifted_cosine(d):
    s = 2 * math.log(64 / d)
    w = implied(Cosine(shift=s), VELOCITY, ONE)(LEVELS)
    formula = torch.exp(-LEVELS / 2) * sech((LEVELS - s) / 2) / sech(LEVELS / 2)
    assert_close(w / formula, (w / formula)[:1].expand_as(w), rtol=1e-9, atol=0)
    kept = w * torch.exp(LEVELS / 2)
    assert kept.max() / kept.min() > 1.5


@pytest.mark.equation("eq-shift-ends")
@pytest.mark.parametrize("d", [32, 64, 128, 256, 512])
def test_what_the_noisy_end_gains(d):
    wide = Cosine(30.0, -30.0, shift=2 * math.log(64 / d))
    at = real(-29.9, 29.9)
    noisy, clean = (implied(wide, VELOCITY, ONE)(at) * torch.exp(at / 2)).tolist()
    assert noisy / clean == pytest.approx((d / 64) ** 2, rel=1e-6)


def test_the_same_weight_under_three_schedules():
    """Equal loss, other variance: the numbers that the chapter prints, 3.83, 4.40 and 10.17."""
    w, moments = weighting.velocity_cosine, (TWO_BUMPS.mmse, TWO_BUMPS.fourth_moment)
    wanted = {Cosine: 3.83, FlowMatching: 4.40, Linear: 10.17}
    for kind, variance in wanted.items():
        schedule = kind(10.0, -8.0)
        assert elbo.weighted_from_mmse(TWO_BUMPS.mmse, w, schedule).item() == pytest.approx(
            1.2190, abs=1e-4
        )
        assert abs(elbo.variance_from_moments(*moments, schedule, w).item() - variance) < 0.006


@pytest.mark.equation("eq-weighted-excess")
@pytest.mark.parametrize("w", [weighting.elbo, weighting.velocity_cosine, weighting.p2()])
def test_excess_of_a_denoiser_that_believes_in_points(w):
    """The error of a wrong denoiser by a double sum over x and noise, split by the exact one."""
    schedule, belief = Linear(3.0, -3.0), exact.FiniteData(real(-0.7, 0.7)[:, None])
    nodes, node_weights = exact.normal_quadrature(81)
    x = (TWO_BUMPS.means + TWO_BUMPS.stds[:, None] * nodes).reshape(-1, 1)
    share = (TWO_BUMPS.weights[:, None] * node_weights).reshape(-1, 1) * node_weights

    def errors(at: Tensor) -> tuple[Tensor, Tensor]:
        z = gaussian.alpha(at) * x + gaussian.sigma(at) * nodes
        best, wrong = (d.denoise(z.reshape(-1, 1), at).view_as(z) for d in (TWO_BUMPS, belief))
        return (share * (x - wrong) ** 2).sum(), (share * (best - wrong) ** 2).sum()

    grid = torch.linspace(-3, 3, 61, dtype=FLOAT)
    parts = torch.stack([torch.stack(errors(level)) for level in grid])  # (61, 2)
    floor = TWO_BUMPS.mmse(grid)
    assert_close(parts[:, 0], floor + parts[:, 1], rtol=1e-6, atol=0)
    total, excess = torch.trapezoid((w(grid) * grid.exp())[:, None] * parts, grid, dim=0) / 2
    best = elbo.weighted_from_mmse(TWO_BUMPS.mmse, w, schedule)
    assert_close(total, best + excess, rtol=1e-3, atol=0)
    assert excess > 0.05 * total


@pytest.mark.equation("eq-one-gain")
@pytest.mark.parametrize("name", RECIPES)
def test_one_gain_is_the_weighted_mean_of_sigma(name):
    w = RECIPES[name].weight
    gain = trapezoid(lambda at: w(at) * gaussian.sigma(at), -5, 13.3) / trapezoid(w, -5, 13.3)

    def loss(theta: Tensor) -> Tensor:
        def error(at: Tensor) -> Tensor:
            return (1 - 2 * theta * gaussian.sigma(at) + theta**2) * torch.exp(-at)

        return elbo.weighted_from_mmse(error, w, Linear())

    slope = torch.func.grad(loss)(gain)
    assert abs(slope.item()) < 1e-4 * loss(gain).item()
    assert all(loss(gain + step) > loss(gain) for step in (-0.05, 0.05))


def test_gains_that_the_chapter_quotes():
    sigma, gains = gaussian.sigma, {}
    for name in ("ELBO", "flow-matching"):
        w = RECIPES[name].weight
        gains[name] = trapezoid(lambda at, w=w: w(at) * sigma(at), -5, 13.3) / trapezoid(
            w, -5, 13.3
        )
    assert abs(gains["ELBO"] - 0.35) < 5e-3 and abs(gains["flow-matching"] - 0.92) < 5e-3


@pytest.mark.parametrize("seed", range(4))
def test_a_small_network_loses_the_other_game(seed):
    """64 random units, outer layer by least squares: under the other weight over 3 times worse."""
    at = torch.linspace(-8, 10, 145, dtype=FLOAT)
    nodes, node_weights = exact.normal_quadrature(41)
    alpha, sigma = gaussian.alpha(at)[:, None, None], gaussian.sigma(at)[:, None, None]
    std = (alpha**2 * TWO_BUMPS.stds[:, None] ** 2 + sigma**2).sqrt()
    z = (alpha * TWO_BUMPS.means + std * nodes).reshape(-1, 1)
    level, share = at.repeat_interleave(82), (0.5 * node_weights).repeat(2)
    x_hat = TWO_BUMPS.denoise(z, level)
    best = (z - gaussian.alpha(level)[:, None] * x_hat) / gaussian.sigma(level)[:, None]
    inner = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)
    inputs = torch.cat([3 * z, 2 / 9 * level[:, None], 2 * torch.ones_like(z)], 1)
    features = torch.cat([z, torch.tanh(inputs @ inner)], 1)

    def curve(w: weighting.Weighting) -> Tensor:
        root = (w(level) * share.repeat(145)).sqrt()[:, None]
        outer = torch.linalg.lstsq(root * features, root * best, driver="gelsd").solution
        return (features @ outer - best).square().view(145, -1) @ share

    goals = (weighting.elbo, weighting.flow_matching)
    curves = [curve(w) for w in goals]
    for own, w in enumerate(goals):
        excess = [torch.trapezoid(w(at) * c, at) for c in curves]
        assert excess[1 - own] > 3 * excess[own]


def stretch(one: Tensor, other: Tensor) -> float:
    """By how much the quotient of two weights changes from level to level."""
    quotient = one / other
    return (quotient.max() / quotient.min()).item()


class TestSpotTheError:
    """Each line as it was printed or shipped, and as it should be."""

    def test_the_ratio_is_upside_down(self):
        """The noise moves by alpha where the velocity moves by 1."""
        zero = torch.zeros(len(LEVELS), 1, dtype=FLOAT)
        at_one, at_zero = (solve(VELOCITY, zero + v, zero, LEVELS).eps for v in (1, 0))
        assert_close((at_one - at_zero).squeeze(1) ** 2, gaussian.alpha(LEVELS) ** 2)
        right = RECIPES["velocity, cosine"].weight(LEVELS)
        assert_close(right, torch.exp(-LEVELS / 2))
        printed = sech(LEVELS / 2) * gaussian.alpha(LEVELS) ** 2
        assert stretch(printed, right) > 1e3
        assert printed[0] < 0.01 * printed.max()  # it vanishes at high noise

    @pytest.mark.parametrize("cap", [2.0, 5.0, 20.0])
    def test_min_snr_of_the_velocity(self, cap):
        def shipped(at: Tensor) -> Tensor:
            return torch.clamp(at.exp() + 1, max=cap) / (at.exp() + 1)

        def mended(at: Tensor) -> Tensor:
            return torch.clamp(at.exp(), max=cap) / (at.exp() + 1)

        wrong, right = (implied(Cosine(), VELOCITY, factor) for factor in (shipped, mended))
        wanted = weighting.min_snr(cap)(LEVELS)
        assert stretch(right(LEVELS), wanted) == pytest.approx(1, abs=1e-6)
        noisy = LEVELS[LEVELS.exp() <= cap - 1]
        plain = weighting.velocity_cosine(noisy)
        assert stretch(wrong(noisy), plain) == pytest.approx(1, abs=1e-6)
        ends = real(-5.0, 13.2)
        gain = (wrong(ends) / right(ends)).tolist()
        assert [f"{g:.0f}" for g in gain] == ["149", "1"]
        assert is_monotone(wrong) and not is_monotone(right)

    def test_a_factor_that_does_not_know_its_level(self):
        """E[f e_r] = E[f] E[e_r]: f = sigmoid(xi) is no weight, the density of r is one."""
        nodes, weights = exact.normal_quadrature(121)
        f = torch.sigmoid(nodes)
        r = (torch.arange(4000, dtype=FLOAT) + 0.5) / 4000
        image = TWO_BUMPS.mmse(2 * torch.log((1 - r) / r))  # of x_hat = z - r u_hat, by r
        shipped = (weights[:, None] * f[:, None] * image / 4000).sum()
        indi = trapezoid(lambda at: weighting.indi(at) / 8 * noise_error(at), -40, 40)
        assert_close(shipped, 0.5 * indi, rtol=1e-5, atol=0)
        flow = 0.5 * trapezoid(lambda at: torch.exp(-at / 2) * noise_error(at), -40, 40)
        assert_close((image / r**2).mean(), flow, rtol=1e-5, atol=0)
        spread = (weights * f**2).sum() / (weights * f).sum() ** 2
        assert f"{(weights * f).sum():.3f} {spread:.2f}" == "0.500 1.17"
        logit = torch.log(r / (1 - r))
        density = torch.exp(-(logit**2) / 2) / math.sqrt(2 * math.pi) / (r * (1 - r))
        drawn = TWO_BUMPS.mmse(-2 * nodes) / f**2
        meant = (density * image / r**2).mean()
        assert_close(meant, (weights * drawn).sum(), rtol=1e-4, atol=0)
        names = ("logit-normal", "flow-matching", "InDI")
        right, plain, line = (RECIPES[name].weight(LEVELS) for name in names)
        assert min(stretch(right, plain), stretch(right, line), stretch(plain, line)) > 5

    @pytest.mark.parametrize("batch", [2, 5])
    def test_weights_that_meet_every_error(self, batch):
        """All batches of `batch` draws from three equally likely (weight, error), in full."""
        m, error = real(3.0, 1.0, 0.2), real(0.1, 2.0, 4.0)
        draws = torch.cartesian_prod(*[torch.arange(3)] * batch)  # (3^batch, batch)
        shipped = torch.stack([(m[i][:, None] * error[i]).mean() for i in draws]).mean()
        right = torch.stack([(m[i] * error[i]).mean() for i in draws]).mean()
        both, apart = (m * error).mean(), m.mean() * error.mean()
        assert_close(right, both)
        assert_close(shipped, both / batch + (1 - 1 / batch) * apart)
        assert abs(both - apart) > 0.5 * both


def test_exercise_three_students():
    """Three wrong weights, and what is right."""
    density = sech(LEVELS / 4) ** 2 / 8
    ratio = (1 + torch.exp(-LEVELS / 2)) ** 2
    assert_close(density * ratio, torch.exp(-LEVELS / 2) / 2)
    assert stretch(ratio, density * ratio) > 2
    min_snr = RECIPES["min-SNR"].weight(LEVELS)
    wrong = implied(Cosine(), NOISE, lambda at: at.exp().clamp(max=5))(LEVELS)
    assert stretch(wrong, sech(LEVELS / 2) * LEVELS.exp().clamp(max=5)) == pytest.approx(1)
    assert stretch(wrong, min_snr) > 2
    compared = implied(Cosine(), NOISE, ONE)(LEVELS)  # whatever the network's own output is
    assert stretch(compared, sech(LEVELS / 2)) == pytest.approx(1)


def test_exercise_simple_loss():
    """The beta-linear density, on its own curve, up to the constant of the cut."""
    u = torch.linspace(0.02, 0.95, 400, dtype=FLOAT)
    total = 0.1 * u + 9.95 * u**2
    at = -torch.log(torch.expm1(total))
    formula = -torch.expm1(-total) / (0.1 + 19.9 * u)
    schedule = BetaLinear(at[0].item() + 0.1, at[-1].item() - 0.1)
    w = implied(schedule, NOISE, ONE)(at)
    assert_close(w / formula, (w / formula)[:1].expand_as(w), rtol=1e-6, atol=0)
    fine = torch.linspace(0.2, 0.6, 400_001, dtype=FLOAT)
    weight = -torch.expm1(-(0.1 * fine + 9.95 * fine**2)) / (0.1 + 19.9 * fine)
    peak = fine[weight.argmax()]
    level = -torch.log(torch.expm1(0.1 * peak + 9.95 * peak**2))
    assert abs(peak.item() - 0.3504) < 1e-4 and abs(level.item() + 0.922) < 1e-3
    assert not is_monotone(implied(BetaLinear(9.0, -9.0), NOISE, ONE), 8.9, -8.9)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_exercise_p2_peak(gamma):
    fine = torch.linspace(-4, 4, 80_001, dtype=FLOAT)
    peak = fine[weighting.p2(gamma)(fine).argmax()].item()
    assert peak == pytest.approx(-math.log(1 + 2 * gamma), abs=2e-4)
    assert is_monotone(weighting.p2(74.0)) and not is_monotone(weighting.p2(70.0))


@pytest.mark.parametrize("c", [1.0, 3.0])
def test_exercise_time_shift(c):
    """The straight path's levels, shifted by -2 log c, with the plain flow error."""

    def schedule(t: Tensor) -> Tensor:
        return FlowMatching(50.0, -50.0)(t) - 2 * math.log(c)

    at = torch.cat([real(-40.0, 40.0), torch.linspace(-10, 10, 41, dtype=FLOAT)])
    r = implied(schedule, FLOW, ONE)(at) * torch.exp(at / 2)
    s = -2 * math.log(c)
    formula = 0.5 * torch.cosh(at / 4) ** 2 / torch.cosh((at - s) / 4) ** 2
    assert_close(r, formula, rtol=1e-5, atol=0)
    assert (r[0] / r[1]).item() == pytest.approx(c**2, rel=1e-4)


@pytest.mark.parametrize("d", [32, 256])
def test_exercise_repair(d):
    s, k = 2 * math.log(64 / d), d / 64

    def turn(at: Tensor) -> Tensor:
        return torch.atan(torch.exp(-(at - s) / 2))

    row = Parameterization(
        "ellipse", lambda at: -torch.sin(turn(at)), lambda at: k * torch.cos(turn(at))
    )
    kept = implied(Cosine(shift=s), row, ONE)(LEVELS) * torch.exp(LEVELS / 2)
    assert_close(kept, kept[:1].expand_as(kept), rtol=1e-9, atol=0)


def test_exercise_no_factor():
    low, high = torch.nn.functional.softplus(real(-5.0, 13.3))

    def schedule(t: Tensor) -> Tensor:
        return torch.expm1((1 - t) * high.to(t) + t * low.to(t)).log()

    w = implied(schedule, VELOCITY, ONE)(LEVELS)
    assert_close(w, w[:1].expand_as(w), rtol=1e-6, atol=0)


def test_figures_draw():
    at = torch.linspace(-5, 13.3, 41, dtype=FLOAT)
    ch09.pieces(at, at.exp(), at.exp(), at.exp())
    ch09.monotone_and_not(RECIPES)
    ch09.arc_and_chord(level=1.0)
    ch09.shifted([64, 256], plt.figure().gca())
    ch09.excess_curves(at, {n: {"bound": at.exp(), "flow": at.exp()} for n in (8, 64)})
    edges = [-5.0, -1.0, 3.0, 7.0, 13.3]
    ch09.bands(at, at.exp(), edges, torch.zeros(4, 1, 14, 14))
    ch09.loss_shares({name: torch.full((4,), 0.25) for name in RECIPES}, edges)
    ch09.explore(RECIPES)
    plt.close("all")
