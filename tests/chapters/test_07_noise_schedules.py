"""Chapter 7, noise schedules: one test for each labeled equation, in float64, and the exercises."""

import math
from functools import cache

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vdm_lite import elbo, exact, gaussian, parameterization, samplers, times, training
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS
from vdm_lite.figures import ch07_noise_schedules as ch07
from vdm_lite.likelihood import Discretized
from vdm_lite.runs.ch07 import schedules as runs
from vdm_lite.schedules import (
    EDM,
    BetaLinear,
    Cosine,
    FlowMatching,
    Learned,
    Linear,
    density,
    rate,
)

FLOAT = torch.float64
ENDS = (10.0, -8.0)
MOMENTS = (TWO_BUMPS.mmse, TWO_BUMPS.fourth_moment)
L_INF = 3.79686  # nats, as the chapter prints it


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def cubic(t: Tensor) -> Tensor:
    return 10 - 18 * t**3


def wild(units: int = 6, seed: int = 0, ends: tuple[float, float] = ENDS) -> Learned:
    """A learned schedule with large random weights."""
    schedule = Learned(*ends, units=units).double()
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(schedule.raw, std=2.0, generator=generator)
    return schedule.requires_grad_(False)


SCHEDULES = {
    "linear": Linear(*ENDS),
    "cosine": Cosine(*ENDS),
    "flow-matching": FlowMatching(*ENDS),
    "cubic": cubic,
    "beta-linear": BetaLinear(*ENDS),
    "EDM": EDM(*ENDS),
    "learned": wild(),
}
VARIANCES = {"linear": 76.6, "cosine": 613, "flow-matching": 401, "cubic": 82.5}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def legendre(low: float, high: float, panels: int = 400) -> tuple[Tensor, Tensor]:
    """Three Gauss points in each panel, written out here: nodes and weights."""
    half = (high - low) / panels / 2
    centers = low + half * (2 * torch.arange(panels, dtype=FLOAT)[:, None] + 1)
    nodes = centers + half * real(-math.sqrt(0.6), 0.0, math.sqrt(0.6))
    return nodes.flatten(), (half * real(5 / 9, 8 / 9, 5 / 9)).repeat(panels)


@cache
def noise_moments() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Levels, weights, E (eps - eps_hat)^2 and ^4 of the two bumps: a double sum over x and eps."""
    points = torch.linspace(-8, 8, 121, dtype=FLOAT)
    share = torch.exp(-0.5 * points**2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    x = (real(-1.0, 1.0)[:, None] + 0.15 * points).flatten()
    joint = (0.5 * share).repeat(2)[:, None] * share
    levels, weights = legendre(-8.0, 10.0, panels=60)
    errors = []
    for level in levels:
        alpha, sigma = (1 / (1 + torch.exp(s * level)).sqrt() for s in (-1, 1))
        z = alpha * x[:, None] + sigma * points
        var = alpha**2 * 0.15**2 + sigma**2
        means = alpha * real(-1.0, 1.0)
        log_share = (-0.5 * (z[..., None] - means) ** 2 / var).log_softmax(-1).exp()
        score = (log_share * (means - z[..., None]) / var).sum(-1)
        errors.append(points + sigma * score)  # eps_hat = -sigma score
    second, fourth = ((joint * torch.stack(errors) ** k).sum((1, 2)) for k in (2, 4))
    return levels, weights, second, fourth


@pytest.mark.equation("eq-schedule-density")
@every_schedule
def test_the_density_between_two_levels_is_the_time_between_them(name):
    schedule = SCHEDULES[name]
    for early, late in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.98)):
        high, low = schedule(real(early, late)).tolist()
        levels, weights = legendre(low, high)
        p = density(schedule, levels)
        assert (p > 0).all()
        assert (weights @ p).item() == pytest.approx(late - early, rel=1e-5)
    assert (density(schedule, real(-8.5, 10.5)) == 0).all()


@pytest.mark.equation("eq-schedule-density")
def test_the_closed_forms_of_the_table():
    levels, weights = legendre(-8.0, 10.0)
    forms = {
        "linear": torch.ones_like(levels),
        "cosine": 1 / torch.cosh(levels / 2),
        "flow-matching": 1 / torch.cosh(levels / 4) ** 2,
        "EDM": torch.exp(-0.5 * ((levels - 2.4) / 2.4) ** 2),
    }
    for name, form in forms.items():
        expected = form / (weights @ form)
        assert_close(density(SCHEDULES[name], levels), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.equation("eq-beta-linear")
def test_beta_linear_is_ddpm_in_continuous_time():
    u = torch.linspace(0.01, 1, 500, dtype=FLOAT)
    alpha2 = torch.exp(-(0.1 * u + 9.95 * u**2))
    logsnr = alpha2.log() - (1 - alpha2).log()
    library = BetaLinear(logsnr[0].item(), logsnr[-1].item())
    assert_close(library(torch.linspace(0, 1, 500, dtype=FLOAT)), logsnr)
    products = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=FLOAT)).cumprod(0)
    of_steps = (products / (1 - products)).log()
    assert [round(of_steps[i].item(), 2) for i in (0, -1)] == [9.21, -10.12]
    u = torch.arange(1, 1001, dtype=FLOAT) / 1000
    formula = -torch.expm1(0.1 * u + 9.95 * u**2).log()
    assert (of_steps - formula)[9:].abs().max() < 0.07


@pytest.mark.equation("eq-invariance")
@every_schedule
def test_the_bound_sees_the_ends_only(name):
    schedule = SCHEDULES[name]
    u, weights = legendre(0.0, 1.0)
    t, weights = u**2 * (3 - 2 * u), 6 * u * (1 - u) * weights  # finer where schedules are steep
    logsnr, slope = rate(schedule, t)
    over_time = 0.5 * weights @ (-slope * logsnr.exp() * TWO_BUMPS.mmse(logsnr))
    _, level_weights, second, _ = noise_moments()
    assert over_time.item() == pytest.approx((0.5 * level_weights @ second).item(), abs=1e-6)
    assert f"{over_time:.5f}" == f"{L_INF:.5f}"
    assert_close(elbo.diffusion_from_mmse(TWO_BUMPS.mmse, schedule), over_time, rtol=1e-6, atol=0)
    bad = torch.sin(logsnr) + 1.5  # the noise error of some bad denoiser
    expected = 0.5 * (1.5 * 18 - math.cos(10) + math.cos(-8))
    assert (0.5 * weights @ (-slope * bad)).item() == pytest.approx(expected, abs=1e-3)


def exploding_denoise(z: Tensor, logsnr: Tensor) -> Tensor:
    noise, width2 = torch.exp(-logsnr), 0.15**2
    bumps = real(-1.0, 1.0)
    share = (-0.5 * (z - bumps) ** 2 / (width2 + noise)).softmax(1)
    return (share * (bumps + width2 / (width2 + noise) * (z - bumps))).sum(1, keepdim=True)


@pytest.mark.equation("eq-rescaling")
def test_both_units_are_one_model():
    z = torch.linspace(-4, 4, 81, dtype=FLOAT)[:, None]
    for level in real(-8.0, -2.0, 0.0, 3.0, 10.0):
        alpha = 1 / (1 + torch.exp(-level)).sqrt()
        assert_close(TWO_BUMPS.denoise(alpha * z, level), exploding_denoise(z, level))
        x, eps = z.flip(0), z / 3
        in_a = gaussian.diffuse(x, level, eps)
        assert_close(in_a, alpha * (x + torch.exp(-level / 2) * eps))
    model = VariationalDiffusion(TWO_BUMPS.denoise, Linear(*ENDS), parameterization.IMAGE)
    torch.set_default_dtype(FLOAT)
    try:
        *_, last = samplers.sample(model, (50, 1), 20, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(1)
        level = torch.linspace(10, -8, 21)
        z = torch.randn(50, 1, generator=generator) * (1 + torch.exp(-level[-1])).sqrt()
        for i in range(20, 0, -1):
            c = 1 - torch.exp(level[i] - level[i - 1])
            mean = (1 - c) * z + c * exploding_denoise(z, level[i])
            noise = torch.randn(z.shape, generator=generator)
            z = mean + (c * torch.exp(-level[i - 1])).sqrt() * noise
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(last.z, z / (1 + math.exp(-10)) ** 0.5)


@pytest.mark.equation("eq-rescaling")
def test_a_divergence_is_the_same_in_both_units():
    x, x_hat, z = real(0.7)[None], real(-0.4)[None], real(0.2)[None]
    logsnr_s, logsnr_t = real(1.0).squeeze(), real(-0.5).squeeze()
    q, p = (gaussian.posterior(z, mean, logsnr_s, logsnr_t) for mean in (x, x_hat))
    c = 1 - torch.exp(logsnr_t - logsnr_s)
    exploding = 0.5 * (c * (x - x_hat)) ** 2 / (c * torch.exp(-logsnr_s))
    assert_close(gaussian.kl(q, p), exploding[0])


RHO = 0.9


def path_cost(blind: bool, first, second) -> float:
    """Half the line integral, with the errors of two correlated coordinates written out."""
    cost = 0.0
    for low, high in ((0.0, 0.5), (0.5, 1.0)):  # the paths bend in the middle
        t, weights = legendre(low, high)
        (l1, s1), (l2, s2) = (rate(path, t) for path in (first, second))
        v1, v2 = l1.exp(), l2.exp()
        determinant = (1 + v1) * (1 + v2) - RHO**2 * v1 * v2
        e1 = (1 + (1 - RHO**2) * v2) / determinant
        e2 = 1 / (1 + v2) if blind else (1 + (1 - RHO**2) * v1) / determinant
        cost += -0.5 * (weights @ (s1 * v1 * e1 + s2 * v2 * e2)).item()
    return cost


def straight(t: Tensor) -> Tensor:
    return 4 - 8 * t


def early(t: Tensor) -> Tensor:
    return 4 - 8 * (2 * t).clamp(max=1)


def late(t: Tensor) -> Tensor:
    return 4 - 8 * (2 * t - 1).clamp(min=0)


PATHS = {"together": (straight, straight), "1 first": (early, late), "2 first": (late, early)}


@pytest.mark.equation("eq-line-integral")
def test_only_an_imperfect_denoiser_sees_the_path():
    def information(v: float) -> float:
        return 0.5 * math.log((1 + v) ** 2 - RHO**2 * v**2)

    gained = information(math.exp(4)) - information(math.exp(-4))
    assert gained == pytest.approx(3.240505, abs=1e-6)
    for path in PATHS.values():
        assert path_cost(False, *path) == pytest.approx(gained, abs=1e-7)
    costs = {name: path_cost(True, *path) for name, path in PATHS.items()}
    printed = {"together": 3.620253, "1 first": 3.247579, "2 first": 3.992926}
    assert costs == pytest.approx(printed, abs=1e-5)
    # The same field by the library's one-dimensional integral, along the straight path.
    v = torch.linspace(-4, 4, 7, dtype=FLOAT).exp()
    alone = exact.Gaussian(torch.zeros(1, dtype=FLOAT), 1.0)
    assert_close(alone.mmse(v.log()), 1 / (1 + v))


@pytest.mark.equation("eq-estimator-variance")
@every_schedule
def test_variance_of_the_one_sample_loss(name):
    schedule = SCHEDULES[name]
    levels, weights, second, fourth = noise_moments()
    expected = 0.25 * weights @ (fourth / density(schedule, levels)) - (0.5 * weights @ second) ** 2
    variance = elbo.variance_from_moments(*MOMENTS, schedule)
    assert variance.item() == pytest.approx(expected.item(), rel=2e-3)
    if name in VARIANCES:
        assert float(f"{variance:.3g}") == VARIANCES[name]


@pytest.mark.equation("eq-estimator-variance")
@pytest.mark.parametrize("kind", [Cosine, FlowMatching, BetaLinear, EDM])
def test_the_variance_of_schedules_that_are_very_steep_at_an_end(kind):
    schedule = kind(13.3, -5.0)
    levels, weights = legendre(-5.0, 13.3)  # over levels nothing is steep
    fourth = (2 * levels).exp() * TWO_BUMPS.fourth_moment(levels)
    mean = elbo.diffusion_from_mmse(TWO_BUMPS.mmse, schedule)
    expected = 0.25 * weights @ (fourth / density(schedule, levels)) - mean**2
    assert_close(elbo.variance_from_moments(*MOMENTS, schedule), expected, rtol=1e-4, atol=0)


@pytest.mark.equation("eq-estimator-variance")
@pytest.mark.parametrize("name", ["linear", "cubic", "learned"])
def test_the_sampled_losses_have_this_variance(name):
    schedule, generator = SCHEDULES[name], torch.Generator().manual_seed(7)
    model = VariationalDiffusion(TWO_BUMPS.denoise, schedule, parameterization.IMAGE)
    x = TWO_BUMPS.sample(200_000, generator)
    losses = model.loss(x, times=times.uniform, generator=generator)
    squares = (losses - L_INF) ** 2
    error_bar = 4 * squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - elbo.variance_from_moments(*MOMENTS, schedule)) < error_bar
    assert error_bar / squares.mean() < 0.2
    assert abs(losses.mean() - L_INF) < 4 * losses.std() / math.sqrt(len(losses))


@pytest.mark.equation("eq-variance-split")
@pytest.mark.parametrize("name", ["linear", "cosine", "beta-linear"])
def test_the_two_parts_of_the_variance(name):
    schedule = SCHEDULES[name]
    levels, weights, second, fourth = noise_moments()
    p = density(schedule, levels)  # dt = p dlambda
    mean, square = second / p / 2, fourth / p**2 / 4  # of the loss at a time
    over_time = (weights * p) @ (mean - L_INF) ** 2
    within = (weights * p) @ (square - mean**2)
    time_part = elbo.variance_from_moments(
        TWO_BUMPS.mmse, lambda at: TWO_BUMPS.mmse(at) ** 2, schedule
    )
    assert time_part.item() == pytest.approx(over_time.item(), rel=2e-3)
    total = elbo.variance_from_moments(*MOMENTS, schedule)
    assert (time_part + within).item() == pytest.approx(total.item(), rel=2e-3)
    printed = {"linear": 11.5, "cosine": 192.7, "beta-linear": 615.9}
    assert round(time_part.item(), 1) == printed[name]


def schedule_of(p: Tensor, levels: Tensor):
    """The schedule whose density is proportional to ``p`` on an even grid, by its quantiles."""
    mass = torch.cumulative_trapezoid(p, levels)
    time = 1 - torch.cat([real(0.0), mass / mass[-1]])  # falls with the level

    def schedule(t: Tensor) -> Tensor:
        i = torch.searchsorted(time.flip(0), t.detach().contiguous()).clamp(1, len(time) - 1)
        after, before = len(time) - 1 - i, len(time) - i
        part = (t - time[before]) / (time[after] - time[before])
        return levels[before] + part * (levels[after] - levels[before])

    return schedule


@pytest.mark.equation("eq-best-density")
def test_no_schedule_beats_the_root_of_the_fourth_moment():
    _, weights, second, fourth = noise_moments()
    least = (0.25 * (weights @ fourth.sqrt()) ** 2 - (0.5 * weights @ second) ** 2).item()
    assert f"{least:.1f}" == "39.0"
    grid = torch.linspace(-8, 10, 2001, dtype=FLOAT)
    errors = (2 * grid).exp() * TWO_BUMPS.fourth_moment(grid)
    best = elbo.variance_from_moments(*MOMENTS, schedule_of(errors.sqrt(), grid))
    flat = elbo.variance_from_moments(
        *MOMENTS, schedule_of(grid.exp() * TWO_BUMPS.mmse(grid), grid)
    )
    assert best.item() == pytest.approx(least, abs=0.05)
    assert flat.item() == pytest.approx(45.0, abs=0.1)
    assert flat > best
    for schedule in SCHEDULES.values():
        assert elbo.variance_from_moments(*MOMENTS, schedule) > least


@pytest.mark.equation("eq-bias-gradient")
def test_the_best_density_for_the_loss_is_not_the_best_for_a_gradient():
    """One bias at all levels: its derivative by autograd, its second moment by a sum of ours."""
    _, weights, second, fourth = noise_moments()
    printed = {"linear": 136.7, "best": 174.0, "flat": 136.7, "root": 96.7}
    densities = (torch.ones_like(second), fourth.sqrt(), second, second.sqrt())
    for p, of_text in zip(densities, printed.values(), strict=True):
        moment = (weights @ (second / p)) * (weights @ p)
        assert moment.item() == pytest.approx(of_text, abs=0.05)

    generator = torch.Generator().manual_seed(7)
    x = TWO_BUMPS.sample(400_000, generator)
    theta = torch.zeros(len(x), dtype=FLOAT, requires_grad=True)  # one for each example

    def biased(z: Tensor, logsnr: Tensor) -> Tensor:
        alpha, sigma = gaussian.alpha(logsnr), gaussian.sigma(logsnr)
        eps_hat = (z[:, 0] - alpha * TWO_BUMPS.denoise(z, logsnr)[:, 0]) / sigma
        return (eps_hat + theta)[:, None]

    model = VariationalDiffusion(biased, Linear(*ENDS), parameterization.NOISE)
    loss = model.loss(x, times=times.uniform, generator=generator)
    (slope,) = torch.autograd.grad(loss.sum(), theta)
    error = slope.square().std() / math.sqrt(len(x))
    assert abs(slope.square().mean() - printed["linear"]) < 4 * error < 4
    assert abs(slope.mean()) < 4 * slope.std() / math.sqrt(len(x))


@pytest.mark.equation("eq-learned-schedule")
@pytest.mark.parametrize("units", [1, 4, 32])
@pytest.mark.parametrize("dtype", [torch.float32, FLOAT])
def test_a_mixture_of_steps_is_a_schedule_whatever_its_weights(units, dtype):
    for seed in range(5):
        schedule = wild(units, seed, (13.3, -5.0)).to(dtype)
        t = torch.linspace(0, 1, 101, dtype=dtype)
        weight = schedule.raw.exp() / schedule.raw.exp().sum()
        share = weight[0] * t
        for k in range(1, units + 1):
            b, first, last = (
                1 / (1 + torch.exp(-(units * at - k + 0.5))) for at in (t, 0 * t, 0 * t + 1)
            )
            share = share + weight[k] * (b - first) / (last - first)
        assert_close(schedule(t), 13.3 + share * (-5.0 - 13.3), rtol=1e-4, atol=1e-4)
        ends = torch.tensor([13.3, -5.0], dtype=dtype)
        assert_close(schedule(t[[0, -1]]), ends, rtol=1e-6, atol=0)
        assert (schedule(t).diff() < 0).all()


@pytest.mark.equation("eq-square-gradient")
def test_squares_have_the_gradient_of_the_variance():
    schedule = wild(4).requires_grad_(True)
    variance = elbo.variance_from_moments(*MOMENTS, schedule)
    (exact_slope,) = torch.autograd.grad(variance, schedule.raw)
    assert exact_slope.abs().max() > 1
    generator = torch.Generator().manual_seed(7)
    model = VariationalDiffusion(TWO_BUMPS.denoise, schedule, parameterization.IMAGE)
    of_squares, of_mean = [], []
    for _ in range(60):
        loss = model.loss(TWO_BUMPS.sample(10_000, generator), generator=generator)
        schedule.raw.grad = None
        (plain,) = torch.autograd.grad(loss.mean(), schedule.raw, retain_graph=True)
        training.backward(model, loss)
        of_mean.append(plain)
        of_squares.append(schedule.raw.grad * loss.detach().mean() ** 2)
    squares, means = torch.stack(of_squares), torch.stack(of_mean)
    error_bars = [4 * draws.std(0) / math.sqrt(60) for draws in (squares, means)]
    assert ((squares.mean(0) - exact_slope).abs() < error_bars[0]).all()
    assert (means.mean(0).abs() < error_bars[1]).all()
    strong = exact_slope.abs() > 1
    assert (error_bars[0] < exact_slope.abs())[strong].all()  # the sign is beyond doubt


@pytest.mark.equation("eq-square-gradient")
def test_training_the_interior_lowers_the_variance_and_keeps_the_ends():
    learned = Learned(*ENDS).double()
    model = VariationalDiffusion(TWO_BUMPS.denoise, learned, parameterization.IMAGE)
    x = TWO_BUMPS.sample(20_000, torch.Generator().manual_seed(7))
    before = elbo.variance_from_moments(*MOMENTS, learned).item()
    for step in training.fit(
        model, x, 100, batch_size=1024, lr=0.05, warmup=10, ema_decay=0.99, progress=False
    ):
        last = step.averaged.schedule
    after = elbo.variance_from_moments(*MOMENTS, last).item()
    assert after < 60 < 76 < before < 78
    assert_close(last(real(0.0, 1.0)), real(*ENDS))


@pytest.mark.equation("eq-end-gradient")
def test_the_diffusion_cost_pulls_the_ends_together():
    h, high, low = 1e-4, 5.0, -3.0

    def cost(high: float, low: float) -> float:
        return elbo.diffusion_from_mmse(EIGHT_LEVELS.mmse, Linear(high, low)).item()

    errors = real(high, low).exp() * EIGHT_LEVELS.mmse(real(high, low))
    at_high = (cost(high + h, low) - cost(high - h, low)) / (2 * h)
    at_low = (cost(high, low + h) - cost(high, low - h)) / (2 * h)
    assert_close(real(at_high, -at_low), errors / 2, rtol=1e-6, atol=0)

    schedule = wild(4, ends=(high, low))
    schedule.logsnr_max.requires_grad_(True)
    schedule.logsnr_min.requires_grad_(True)
    model = VariationalDiffusion(EIGHT_LEVELS.denoise, schedule, parameterization.IMAGE)
    generator, draws = torch.Generator().manual_seed(7), []
    for _ in range(50):
        loss = model.loss(EIGHT_LEVELS.sample(20_000, generator), generator=generator).mean()
        ends = [schedule.logsnr_max, schedule.logsnr_min]
        draws.append(torch.stack(torch.autograd.grad(loss, ends)))
    draws = torch.stack(draws)
    error_bar = 4 * draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - real(at_high, at_low)).abs() < error_bar).all()
    assert error_bar[0] < at_high


def train_ends(loss: str, steps: int) -> Learned:
    schedule = Learned(2.0, -1.0, train_ends=True)
    model = VariationalDiffusion(
        EIGHT_LEVELS.denoise, schedule, parameterization.IMAGE, Discretized(8)
    )
    generator = torch.Generator().manual_seed(7)
    k = torch.multinomial(EIGHT_LEVELS.weights, 20_000, True, generator=generator)[:, None]
    kinds = {"bound": lambda b, generator: model.elbo(b, generator=generator).nelbo}
    for _ in training.fit(
        model, k, steps, 512, 0.1, warmup=10, progress=False, loss=kinds.get(loss)
    ):
        pass
    return schedule


def test_ends_grow_apart_on_the_bound_and_meet_without_it():
    apart = train_ends("bound", 60)
    assert apart.logsnr_max > 5 and apart.logsnr_min < -2
    together = train_ends("diffusion", 12)
    assert together.logsnr_max < 1.5 and together.logsnr_min > -0.5
    with pytest.raises(ValueError, match="schedule"):
        train_ends("diffusion", 60)


class Rising(nn.Module):
    """The colleague's schedule of the exercise: nothing keeps its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([17.0, 1.0, 1.0]))
        self.b = nn.Parameter(torch.tensor(-10.0))

    def forward(self, t: Tensor) -> Tensor:
        w = self.w.abs()
        wave = torch.sigmoid(w[1] * (t - 0.5)) - torch.sigmoid(-0.5 * w[1])
        rise = torch.sigmoid(0.5 * w[1]) - torch.sigmoid(-0.5 * w[1])
        return -(self.b + w[0] * t + w[2] * wave / rise)


class Rescaled(nn.Module):
    """The same, mended in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.rising = Rising()

    def forward(self, t: Tensor) -> Tensor:
        g, g_0, g_1 = self.rising(t), self.rising(0 * t), self.rising(0 * t + 1)
        return 10 - 18 * (g - g_0) / (g_1 - g_0)


class TestExercises:
    @pytest.mark.parametrize("kind", [Rising, Rescaled])
    def test_ends_that_nothing_holds_drift(self, kind):
        schedule = kind().double()
        assert_close(schedule(real(0.0, 1.0)), real(*ENDS))
        model = VariationalDiffusion(TWO_BUMPS.denoise, schedule, parameterization.IMAGE)
        generator = torch.Generator().manual_seed(7)
        optimizer = torch.optim.Adam(schedule.parameters(), lr=0.1)
        for _ in range(200):
            loss = model.loss(TWO_BUMPS.sample(512, generator), generator=generator)
            optimizer.zero_grad()
            loss.square().mean().backward()
            optimizer.step()
        variance = elbo.variance_from_moments(*MOMENTS, schedule).item()
        if kind is Rescaled:
            assert_close(schedule(real(0.0, 1.0)), real(*ENDS))
            assert 39 < variance < 77
        else:
            assert 3 < schedule(real(0.0)) < 7 and 15 < variance < 31

    def test_flow_matching_has_the_heavier_tails(self):
        mass = 1 / (1 + math.exp(-4)) - 1 / (1 + math.exp(5))
        assert round(mass, 4) == 0.9753
        cosine, flow = (
            elbo.variance_from_moments(*MOMENTS, SCHEDULES[name]).item() + L_INF**2
            for name in ("cosine", "flow-matching")
        )
        assert (round(cosine), round(flow), round(cosine / flow, 2)) == (628, 416, 1.51)

    def test_the_best_shift_of_the_cosine(self):
        shifts = torch.arange(4.0, 7.05, 0.1, dtype=FLOAT).tolist()
        at = [elbo.variance_from_moments(*MOMENTS, Cosine(*ENDS, shift=s)).item() for s in shifts]
        best = min(range(len(at)), key=at.__getitem__)
        assert round(shifts[best], 1) == 5.5 and round(at[best], 1) == 65.5

    @pytest.mark.parametrize("dims", [1, 10, 1000])
    def test_in_many_dimensions_the_times_are_all(self, dims):
        one = exact.Gaussian(torch.zeros(1, dtype=FLOAT), 1.5)
        if dims == 1:
            levels = real(-3.0, 0.0, 4.0)
            assert_close(one.fourth_moment(levels), 3 * one.mmse(levels) ** 2)

        def mmse(at: Tensor) -> Tensor:
            return dims * one.mmse(at)

        def fourth(at: Tensor) -> Tensor:
            return (1 + 2 / dims) * mmse(at) ** 2

        grid = torch.linspace(-8, 10, 4001, dtype=FLOAT)
        limit = elbo.diffusion_from_mmse(mmse, Linear(*ENDS)).item()
        best = schedule_of(grid.exp() * mmse(grid), grid)
        variance = elbo.variance_from_moments(mmse, fourth, best).item()
        assert variance / limit**2 == pytest.approx(2 / dims, rel=1e-2, abs=1e-5)
        linear = elbo.variance_from_moments(mmse, fourth, Linear(*ENDS)).item()
        part = elbo.variance_from_moments(mmse, lambda at: mmse(at) ** 2, Linear(*ENDS)).item()
        assert linear == pytest.approx((1 + 2 / dims) * part + 2 / dims * limit**2)

    def test_the_wrong_order_codes_two_coordinates_as_if_independent(self):
        def levels(first: bool, end: float):
            width = end + 30.0

            def path(t: Tensor) -> Tensor:
                gone = (2 * t).clamp(max=1) if first else (2 * t - 1).clamp(min=0)
                return end - width * gone

            return path

        end = 12.0
        v = math.exp(end)
        cost = path_cost(True, levels(False, end), levels(True, end))
        assert cost == pytest.approx(math.log1p(v), abs=1e-6)
        best = 0.5 * math.log((1 + v) ** 2 - RHO**2 * v**2)
        assert cost - best == pytest.approx(-0.5 * math.log(1 - RHO**2), abs=1e-4)
        assert round(-0.5 * math.log(1 - RHO**2), 2) == 0.83


class TestImages:
    """What the chapter says about the shipped rows: four schedules, three seeds each."""

    @staticmethod
    def column(key: str) -> dict[str, Tensor]:
        rows = [row for row in runs.results()["rows"] if row["steps"] == runs.STEPS]
        names = runs.KINDS
        return {n: real(*(row[key] for row in rows if row["schedule"] == n)) for n in names}

    def test_four_schedules_do_not_train_the_same_network(self):
        bounds = self.column("bits_per_dim")
        errors = {name: bound.std() / math.sqrt(3) for name, bound in bounds.items()}
        printed = {"learned": 4.138, "linear": 4.153, "cosine": 4.457, "beta-linear": 4.631}
        assert {name: round(b.mean().item(), 3) for name, b in bounds.items()} == printed
        for name, worse in (("cosine", 0.30), ("beta-linear", 0.48)):
            difference = bounds[name].mean() - bounds["linear"].mean()
            assert round(difference.item(), 2) == worse
            assert difference > 10 * torch.hypot(errors[name], errors["linear"])
        ahead = bounds["linear"] - bounds["learned"]
        assert (ahead > 0).all() and round(ahead.mean().item(), 3) == 0.015
        unpaired = torch.hypot(errors["linear"], errors["learned"])
        assert f"{unpaired:.3f}" == "0.018" and ahead.mean() < unpaired
        paired = ahead.std() / math.sqrt(3)
        assert f"{ahead.mean():.4f} {paired:.4f}" == "0.0147 0.0016"

    def test_each_network_has_the_variance_of_its_schedule(self):
        variances = {name: v.mean().item() for name, v in self.column("variance").items()}
        assert round(variances["learned"], 2) == 2.57 and round(variances["linear"], 1) == 13.0
        assert 1300 < variances["cosine"] < 1400 and 17_000 < variances["beta-linear"] < 18_500
        times = {name: part.mean() for name, part in self.column("times").items()}
        assert times["learned"] < times["linear"] / 10

    def test_the_learned_curves_keep_the_ends(self):
        rows = [row for row in runs.results()["rows"] if row["schedule"] == "learned"]
        for row in rows:
            curve = real(*row["curve"])
            assert_close(curve[[0, -1]], real(13.3, -5.0), rtol=1e-6, atol=0)
            assert (curve.diff() < 0).all()


def test_most_batches_under_a_steep_schedule_are_too_good():
    """A noise error that grows with the level, as that of a small network does."""
    offsets, limit = (torch.arange(4000, dtype=FLOAT)[:, None] + 0.5) / 4000, 98 * 18.3 / 2
    share = {}
    for kind in (Linear, BetaLinear):
        logsnr, slope = rate(kind(), (offsets + torch.arange(64)).flatten() / 64)
        losses = -0.5 * slope * 196 * (logsnr + 5) / 18.3
        batches = losses.view(4000, 64).mean(1)
        assert batches.mean().item() == pytest.approx(limit, rel=5e-3)
        share[kind] = (batches < 0.8 * limit).double().mean().item()
    assert share[Linear] == 0 and share[BetaLinear] > 0.75


def test_the_figures_draw_what_they_are_given():
    matplotlib.use("agg")
    two = {name: SCHEDULES[name] for name in ("linear", "cubic")}
    assert len(ch07.times_and_levels(two).axes[1].get_lines()) == 2
    areas = ch07.same_area(TWO_BUMPS.mmse, two)
    for ax in areas.axes:
        t, loss = (torch.as_tensor(line) for line in ax.get_lines()[0].get_data())
        assert torch.trapezoid(loss, t).item() == pytest.approx(L_INF, rel=2e-3)
        assert ax.get_lines()[1].get_ydata()[0] == pytest.approx(L_INF, rel=1e-5)
    drawn = ch07.drawn(TWO_BUMPS.mmse, {"linear": (SCHEDULES["linear"], 76.6)})
    assert "76.6" in drawn.axes[0].get_title()
    path = ch07.paths({"a": (lambda t: torch.stack([t, 1 - t], -1), 1.25)})
    assert path.axes[0].get_legend_handles_labels()[1] == ["a: 1.25 nats"]
    levels = torch.linspace(-8, 10, 50, dtype=FLOAT)
    learned = ch07.learned_density(torch.ones_like(levels), levels, two)
    assert_close(torch.as_tensor(learned.axes[0].get_lines()[0].get_ydata()), 0 * levels + 1 / 18)
    ends = ch07.moving_ends([(2.0, -1.0), (3.0, -2.0)], [2.0, 1.7], 1.6, every=5)
    assert ends.axes[0].get_lines()[0].get_xdata()[-1] == 5
    plt.close("all")
