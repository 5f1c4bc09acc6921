"""Translations: each against the definition in its own paper, its inverse, and float64."""

import inspect
import math
import re
from pathlib import Path

import pytest
import torch

from vdm_lite import exact, gaussian, rosetta, schedules
from vdm_lite import parameterization as parameterizations
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import alpha, diffuse, sigma
from vdm_lite.parameterization import FLOW, NOISE, SCORE, edm, solve, target
from vdm_lite.rosetta import REVERSED_FLOW, exploding, preserving, straight

F64 = torch.float64
PAGE = (Path(__file__).parents[2] / "book" / "rosetta.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## From their symbol")[1].split("## The formulas")[0]
LEVELS = torch.linspace(-12, 13, 51, dtype=F64)
SCALES = pytest.mark.parametrize("scale", [preserving, exploding, straight])
INVERSES = [
    (rosetta.to_gamma, rosetta.from_gamma),
    (rosetta.to_snr, rosetta.from_snr),
    (rosetta.to_alpha_bar, rosetta.from_alpha_bar),
    (rosetta.to_integrated_beta, rosetta.from_integrated_beta),
    (rosetta.to_edm_sigma, rosetta.from_edm_sigma),
    (rosetta.to_flow_time, rosetta.from_flow_time),
    (rosetta.to_reversed_flow_time, rosetta.from_reversed_flow_time),
    (rosetta.to_betas, rosetta.from_betas),
]
assert_close = torch.testing.assert_close


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def pair(dims: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and noise, one example for each level."""
    x, eps = torch.randn(2, len(LEVELS), dims, dtype=F64)
    return x, eps


# Noise levels


@pytest.mark.equation("eq-rosetta-vdm")
def test_gamma_and_snr():
    """Both describe the mixture that the network sees, with VDM's sign: gamma rises with noise."""
    snr = (alpha(LEVELS) / sigma(LEVELS)) ** 2
    assert_close(rosetta.to_snr(LEVELS), snr)
    assert_close(rosetta.to_gamma(LEVELS), -snr.log())
    assert_close(rosetta.to_snr(rosetta.from_gamma(number(1.5))), number(1.5).neg().exp())
    assert_close(sigma(rosetta.from_gamma(LEVELS)) ** 2, torch.sigmoid(LEVELS))
    assert_close(rosetta.from_snr(number(9.0)), number(2 * math.log(3)))


@pytest.mark.equation("eq-rosetta-ddpm")
def test_alpha_bar_is_the_variance_of_the_signal():
    alpha_bar = rosetta.to_alpha_bar(LEVELS)
    x, eps = pair()
    theirs = alpha_bar.sqrt()[:, None] * x + (1 - alpha_bar).sqrt()[:, None] * eps
    assert_close(diffuse(x, LEVELS, eps), theirs, rtol=1e-9, atol=1e-9)
    assert_close(rosetta.from_alpha_bar(number(0.9)), number(math.log(9)))


BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=F64)  # the table of Ho et al. (2020)


@pytest.mark.equation("eq-rosetta-betas")
def test_table_of_ddpm():
    logsnr = rosetta.from_betas(BETAS)
    alpha_bar = torch.cumprod(1 - BETAS, 0)
    assert_close(rosetta.to_alpha_bar(logsnr), alpha_bar)
    assert_close(logsnr[[0, -1]], torch.tensor([9.21, -10.12], dtype=F64), rtol=0, atol=5e-3)
    assert_close(rosetta.to_betas(logsnr), BETAS)
    _, var = gaussian.transition(logsnr[:-1], logsnr[1:])
    assert_close(var, 1 - alpha_bar[1:] / alpha_bar[:-1])


@pytest.mark.equation("eq-rosetta-beta-tilde")
def test_beta_tilde_is_the_variance_of_the_posterior():
    logsnr = rosetta.from_betas(BETAS)
    alpha_bar = torch.cumprod(1 - BETAS, 0)
    theirs = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * BETAS[1:]
    ours = rosetta.beta_tilde(logsnr[:-1], logsnr[1:])
    assert_close(ours, theirs)
    zero = torch.zeros(999, 1, dtype=F64)
    assert_close(ours, gaussian.posterior(zero, zero, logsnr[:-1], logsnr[1:]).var[:, 0])


def vp_integral(t: torch.Tensor) -> torch.Tensor:
    """The integral of beta(t) = 0.1 + 19.9 t of Song et al. (2021)."""
    return 0.1 * t + 9.95 * t**2


@pytest.mark.equation("eq-rosetta-beta")
def test_integrated_beta_solves_the_vp_sde():
    t = torch.linspace(0.001, 1, 40, dtype=F64)
    logsnr = rosetta.from_integrated_beta(vp_integral(t))
    # The mean of dx = -beta/2 x dt decays by exp(-∫beta / 2).
    assert_close(alpha(logsnr), torch.exp(-vp_integral(t) / 2))
    assert_close(rosetta.to_integrated_beta(LEVELS), -2 * alpha(LEVELS).log())


def test_beta_linear_is_that_sde_in_a_stretch_of_its_time():
    t = torch.linspace(0, 1, 41, dtype=F64)
    integral = rosetta.to_integrated_beta(schedules.BetaLinear(9.0, -10.0)(t))
    own_time = (-0.1 + (0.1**2 + 4 * 9.95 * integral).sqrt()) / (2 * 9.95)
    assert_close(vp_integral(own_time), integral)
    assert_close(own_time.diff(), own_time.diff().mean().expand(40))


def song(t: torch.Tensor) -> torch.Tensor:
    return rosetta.from_integrated_beta(vp_integral(t))


T = torch.linspace(0.02, 0.98, 25, dtype=F64)


@pytest.mark.equation("eq-rosetta-sde")
@SCALES
@pytest.mark.parametrize("schedule", [song, schedules.Cosine(), schedules.Linear(6.0, -6.0)])
def test_sde_has_the_moments_of_the_process(scale, schedule):
    """d mean/dt = f mean and d var/dt = 2 f var + g^2, by central differences of the moments."""

    def moments(t):
        logsnr = schedule(t)
        return scale(logsnr) * alpha(logsnr), (scale(logsnr) * sigma(logsnr)).square()

    h = 1e-5
    (mean, var), after, before = moments(T), moments(T + h), moments(T - h)
    f, g2 = rosetta.sde(scale, schedule, T)
    growth = [(a - b) / (2 * h) for a, b in zip(after, before, strict=True)]
    assert_close(growth[0] / mean, f, rtol=1e-5, atol=1e-6)
    assert_close(growth[1], 2 * f * var + g2, rtol=1e-5, atol=1e-6)


def test_sde_of_song():
    f, g2 = rosetta.sde(preserving, song, T)
    assert_close(g2, 0.1 + 19.9 * T)
    assert_close(f, -g2 / 2)
    f, g2 = rosetta.sde(exploding, schedules.Linear(6.0, -6.0), T)
    edm_sigma = rosetta.to_edm_sigma(6.0 - 12.0 * T)
    assert_close(f, torch.zeros_like(f), rtol=0, atol=1e-12)
    assert_close(g2, edm_sigma.square() * 12)  # d sigma^2/dt = -sigma^2 dlambda/dt
    assert rosetta.sde(straight, song, number(0.5))[0].shape == ()


def test_geometric_sigma_of_the_ve_sde_is_uniform_in_logsnr():
    edm_sigma = 0.01 * (50 / 0.01) ** T
    ends = (-2 * math.log(0.01), -2 * math.log(50))
    assert_close(rosetta.from_edm_sigma(edm_sigma), schedules.Linear(*ends)(T))


# Latents and scores


@pytest.mark.equation("eq-rosetta-latent")
def test_latents_are_those_of_the_papers():
    x, eps = pair()
    z = diffuse(x, LEVELS, eps)
    assert_close(rosetta.to_latent(preserving, z, LEVELS), z)
    ratio = (sigma(LEVELS) / alpha(LEVELS))[:, None]
    assert_close(rosetta.to_latent(exploding, z, LEVELS), x + ratio * eps)
    assert_close(rosetta.to_latent(straight, z, LEVELS), (x + ratio * eps) / (1 + ratio))
    for scale in (preserving, exploding, straight):
        back = rosetta.from_latent(scale, rosetta.to_latent(scale, z, LEVELS), LEVELS)
        assert_close(back, z)


@pytest.mark.equation("eq-rosetta-score")
@SCALES
def test_score_of_a_rescaled_latent(scale):
    """Against the gradient of the density of c z, for data from two bumps."""
    toy, logsnr = exact.TWO_BUMPS, number(-0.7)
    z = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    latent = rosetta.to_latent(scale, z, logsnr).requires_grad_()
    mean = scale(logsnr) * alpha(logsnr)
    std = ((mean * 0.15) ** 2 + (scale(logsnr) * sigma(logsnr)) ** 2).sqrt()
    bumps = [torch.distributions.Normal(sign * mean, std).log_prob(latent) for sign in (-1, 1)]
    (gradient,) = torch.autograd.grad(torch.stack(bumps).logsumexp(0).sum(), latent)
    ours = rosetta.to_score(scale, toy.score(z, logsnr), logsnr)
    assert_close(ours, gradient)
    assert_close(rosetta.from_score(scale, gradient, logsnr), toy.score(z, logsnr))


@pytest.mark.equation("eq-rosetta-edm")
def test_edm_latent_is_data_plus_noise_of_sigma():
    x, eps = pair()
    z = diffuse(x, LEVELS, eps)
    edm_sigma = rosetta.to_edm_sigma(LEVELS)
    assert_close(rosetta.to_latent(exploding, z, LEVELS), x + edm_sigma[:, None] * eps)
    assert_close(rosetta.from_edm_sigma(number(0.002)), number(-2 * math.log(0.002)))


@pytest.mark.equation("eq-rosetta-edm-input")
@pytest.mark.parametrize("data_std", [0.5, 2.0])
def test_edm_input_is_theirs(data_std):
    x, eps = pair()
    edm_sigma = rosetta.to_edm_sigma(LEVELS)[:, None]
    theirs = (x + edm_sigma * eps) / (edm_sigma**2 + data_std**2).sqrt()
    network_input, label = rosetta.edm_input(diffuse(x, LEVELS, eps), LEVELS, data_std)
    assert_close(network_input, theirs)
    assert_close(label, edm_sigma[:, 0].log() / 4)


def test_edm_output_is_its_denoiser():
    """D = c_skip y + c_out F, with their coefficients, is the x_hat of the row ``edm``."""
    (z, f), data_std = pair(), 0.7
    edm_sigma = rosetta.to_edm_sigma(LEVELS)[:, None]
    var = edm_sigma**2 + data_std**2
    skip, out = data_std**2 / var, edm_sigma * data_std / var.sqrt()
    latent = rosetta.to_latent(exploding, z, LEVELS)
    ours = solve(edm(data_std), f, z, LEVELS).x
    assert_close(ours, skip * latent + out * f, rtol=1e-7, atol=1e-7)


# The straight path


@pytest.mark.equation("eq-rosetta-flow")
def test_flow_latent_is_the_straight_path():
    x, eps = pair()
    time = rosetta.to_flow_time(LEVELS)
    assert_close(time, sigma(LEVELS) / (alpha(LEVELS) + sigma(LEVELS)))
    path = (1 - time)[:, None] * x + time[:, None] * eps
    assert_close(rosetta.to_latent(straight, diffuse(x, LEVELS, eps), LEVELS), path)
    assert_close(rosetta.from_flow_time(number(0.25)), number(2 * math.log(3)))


def latent_at(time: torch.Tensor, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Our process at a time of the straight path, in flow matching's latent."""
    logsnr = rosetta.from_flow_time(time)
    return rosetta.to_latent(straight, diffuse(x, logsnr, eps), logsnr)


@pytest.mark.equation("eq-rosetta-velocity")
@pytest.mark.parametrize("time", [0.1, 0.5, 0.8])
def test_velocity_of_the_path_is_the_flow_output(time):
    x, eps = pair()
    _, velocity = torch.func.jvp(lambda r: latent_at(r, x, eps), (number(time),), (number(1.0),))
    assert_close(velocity, target(FLOW, x, eps, rosetta.from_flow_time(number(time))))


@pytest.mark.equation("eq-rosetta-reversed")
@pytest.mark.parametrize("time", [0.2, 0.5, 0.9])
def test_reversed_path_changes_time_and_sign(time):
    x, eps = pair()

    def path(reversed_time):
        logsnr = rosetta.from_reversed_flow_time(reversed_time)
        return rosetta.to_latent(straight, diffuse(x, logsnr, eps), logsnr)

    latent, velocity = torch.func.jvp(path, (number(time),), (number(1.0),))
    assert_close(latent, time * x + (1 - time) * eps)
    assert_close(rosetta.to_reversed_flow_time(LEVELS), 1 - rosetta.to_flow_time(LEVELS))
    logsnr = rosetta.from_reversed_flow_time(number(time))
    assert_close(velocity, target(REVERSED_FLOW, x, eps, logsnr))
    prediction = solve(REVERSED_FLOW, velocity, diffuse(x, logsnr, eps), logsnr)
    assert_close((prediction.x, prediction.eps), (x, eps))


# Inverses, precision, errors


@pytest.mark.parametrize("there_and_back", INVERSES, ids=lambda p: p[0].__name__)
def test_inverses(there_and_back):
    there, back = there_and_back
    falling = LEVELS.flip(0)
    assert_close(back(there(falling)), falling, rtol=1e-9, atol=1e-9)
    if there is not rosetta.to_betas:
        assert there(number(1.0)).shape == back(there(number(1.0))).shape == ()


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    return ((value.double() - reference) / reference).abs().max().item()


SINGLE = torch.linspace(13.2, -12.0, 100)  # avoids 0, where a relative error means nothing


@pytest.mark.parametrize("there_and_back", INVERSES, ids=lambda p: p[0].__name__)
def test_float32_keeps_its_digits(there_and_back):
    """Against float64 on the same float32 numbers: what the function loses, not its symbol."""
    there, back = there_and_back
    assert relative(there(SINGLE), there(SINGLE.double())) < 4e-6
    theirs = BETAS.float() if back is rosetta.from_betas else there(SINGLE)
    reference = back(theirs.double())
    assert (back(theirs).double() - reference).abs().max() < 4e-6
    assert back(theirs).dtype == there(SINGLE).dtype == torch.float32


@SCALES
def test_float32_of_what_takes_two_arguments(scale):
    z = torch.randn(100, 3)
    for ours in (rosetta.to_latent, rosetta.from_latent, rosetta.to_score, rosetta.from_score):
        value, reference = ours(scale, z, SINGLE), ours(scale, z.double(), SINGLE.double())
        assert relative(value, reference) < 1e-6
    f, g2 = rosetta.sde(scale, schedules.Linear(), T.float())
    f_64, g2_64 = rosetta.sde(scale, schedules.Linear(), T.float().double())
    assert_close((f, g2), (f_64.float(), g2_64.float()), rtol=2e-5, atol=1e-6)
    ours, reference = (
        rosetta.edm_input(*args) for args in [(z, SINGLE), (z.double(), SINGLE.double())]
    )
    assert max(map(relative, ours, reference)) < 1e-6


def test_beta_tilde_keeps_its_digits_in_float32():
    near = (SINGLE, SINGLE - 1e-3)
    assert (
        relative(rosetta.beta_tilde(*near), rosetta.beta_tilde(*(v.double() for v in near))) < 1e-6
    )


def test_alpha_bar_in_float32_has_lost_digits_near_the_data():
    """The number of the text: up to two percent at logsnr = 13.3, and none by the other form."""
    levels = 13.3 + torch.linspace(-0.1, 0.1, 4001)
    noise = torch.sigmoid(-levels.double())
    rounded = relative(1 - rosetta.to_alpha_bar(levels.double()).float(), noise)
    assert 0.015 < rounded < 0.02
    assert relative(rosetta.to_alpha_bar(-levels), noise) < 1e-6


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: rosetta.to_gamma(0.0), "logsnr"),
        (lambda: rosetta.to_snr(torch.tensor(math.nan)), "logsnr"),
        (lambda: rosetta.to_alpha_bar(torch.tensor(1)), "logsnr"),
        (lambda: rosetta.to_integrated_beta(torch.tensor(math.inf)), "logsnr"),
        (lambda: rosetta.to_edm_sigma(torch.tensor(math.nan)), "logsnr"),
        (lambda: rosetta.to_flow_time(torch.tensor(2)), "logsnr"),
        (lambda: rosetta.to_reversed_flow_time(torch.tensor(2)), "logsnr"),
        (lambda: rosetta.from_gamma(torch.tensor(math.inf)), "gamma"),
        (lambda: rosetta.from_snr(torch.tensor(0.0)), "snr"),
        (lambda: rosetta.from_alpha_bar(torch.tensor([0.5, 1.0])), "alpha_bar"),
        (lambda: rosetta.from_alpha_bar(torch.tensor([0.5, 0.0])), "alpha_bar"),
        (lambda: rosetta.from_betas(torch.tensor([0.5, 1.0])), "betas"),
        (lambda: rosetta.from_betas(torch.tensor([0.0, 0.5])), "betas"),
        (lambda: rosetta.from_betas(torch.tensor(0.5)), "betas"),
        (lambda: rosetta.from_betas(torch.tensor([])), "betas"),
        (lambda: rosetta.from_betas(torch.full((2, 2), 0.5)), "betas"),
        (lambda: rosetta.to_betas(torch.tensor(1.0)), "logsnr"),
        (lambda: rosetta.to_betas(torch.zeros(2, 2)), "logsnr"),
        (lambda: rosetta.to_betas(torch.tensor([0.0, 1.0])), "logsnr_t"),
        (lambda: rosetta.beta_tilde(torch.tensor(0.0), torch.tensor(1.0)), "logsnr_t"),
        (lambda: rosetta.from_integrated_beta(torch.tensor(0.0)), "integral"),
        (lambda: rosetta.sde(preserving, lambda t: t, torch.tensor(0.5)), "schedule"),
        (lambda: rosetta.from_edm_sigma(torch.tensor(-1.0)), "edm_sigma"),
        (lambda: rosetta.edm_input(torch.ones(2, 1), torch.zeros(2), 0.0), "data_std"),
        (lambda: rosetta.edm_input(torch.ones(2, 1), torch.zeros(3)), "logsnr"),
        (lambda: rosetta.edm_input(torch.tensor(1.0), torch.zeros(())), "z"),
        (lambda: rosetta.from_flow_time(torch.tensor(1.0)), "r"),
        (lambda: rosetta.from_reversed_flow_time(torch.tensor(0.0)), "time"),
        (lambda: rosetta.to_latent(straight, torch.ones(2).int(), torch.zeros(2)), "z"),
        (lambda: rosetta.to_latent(preserving, torch.ones(2), torch.tensor(math.nan)), "logsnr"),
        (lambda: rosetta.from_latent(straight, torch.ones(2), torch.zeros(3)), "logsnr"),
        (lambda: rosetta.from_latent(straight, torch.tensor(1.0), torch.zeros(())), "latent"),
        (lambda: rosetta.from_latent(preserving, torch.ones(2), torch.tensor(math.nan)), "logsnr"),
        (lambda: rosetta.to_score(straight, torch.tensor([math.nan]), torch.zeros(())), "score"),
        (lambda: rosetta.from_score(straight, torch.tensor([math.nan]), torch.zeros(())), "score"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()


def test_everything_stays_on_the_device():
    level, z = torch.empty(4, device="meta"), torch.empty(4, 3, device="meta")
    values = [back(there(level)) for there, back in INVERSES]
    values += [rosetta.beta_tilde(level, level), *rosetta.edm_input(z, level)]
    for scale in (preserving, exploding, straight):
        values += [rosetta.to_latent(scale, z, level), rosetta.from_score(scale, z, level)]
        values += rosetta.sde(scale, schedules.Linear(), level)
    assert all(value.device.type == "meta" for value in values)


# The page


def test_the_table_names_every_function_and_no_other():
    named = re.findall(r"\| `(\w+)` (?=\|)", TABLE)
    public = {
        name
        for name, value in inspect.getmembers(rosetta, inspect.isfunction)
        if value.__module__ == rosetta.__name__ and not name.startswith("_")
    }
    public -= {scale.__name__ for scale in (preserving, exploding, straight)}
    assert set(named) == public | {"target", "solve"}
    assert all(f"`{scale}`" in PAGE for scale in ("preserving", "exploding", "straight"))


ROWS = re.findall(r"^\|.*\| (-?\d+\.\d{4}) \| `(.*)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("value", "code"), ROWS, ids=[code for _, code in ROWS])
def test_numbers_of_the_one_pixel(value, code):
    x, eps, logsnr = number(0.5)[None], number(-1.0)[None], rosetta.from_snr(number(9.0))
    names = {**vars(gaussian), **vars(parameterizations), **vars(rosetta), "tensor": number}
    names |= {"x": x, "eps": eps, "logsnr": logsnr, "z": diffuse(x, logsnr, eps)}
    assert f"{eval(code, names).item():.4f}" == value


def test_the_page_has_its_numbers():
    assert len(ROWS) == 21


def test_networks_of_theirs_run_as_the_page_shows():
    """The best F, v and s for Gaussian data: the wrapped models predict the exact E[x | z]."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    data_std, toy = 0.5, exact.Gaussian(torch.zeros(2, dtype=F64), 0.5)

    def best_f(network_input, label):
        """E[F | y] = 0: their preconditioning leaves nothing to predict for such data."""
        assert network_input.shape[:1] == label.shape
        return torch.zeros_like(network_input)

    def best_v(latent, time):
        """E[x - eps | y] on the path time x + (1 - time) eps, by linear regression."""
        time = time[:, None]
        return (
            (time * data_std**2 - (1 - time)) / (time**2 * data_std**2 + (1 - time) ** 2) * latent
        )

    def best_s(latent, edm_sigma):
        """The score of x + sigma eps, a Gaussian of variance data_std^2 + sigma^2."""
        return -latent / (data_std**2 + edm_sigma[:, None] ** 2)

    names = {"F": best_f, "v": best_v, "s": best_s}
    exec(example, names)
    z, logsnr = torch.randn(7, 2, dtype=F64), torch.linspace(-4, 10, 7, dtype=F64)
    for model in (names["from_edm"], names["from_flow"], names["from_score_sde"]):
        assert isinstance(model, VariationalDiffusion)
        assert_close(model.predict(z, logsnr).x, toy.denoise(z, logsnr))
    ends = names["from_score_sde"].schedule(torch.tensor([0.0, 1.0], dtype=F64))
    trained = torch.tensor([0.01, 50.0], dtype=F64)
    assert_close(rosetta.to_edm_sigma(ends), trained, rtol=1e-5, atol=0)


def ve_score(latent, edm_sigma):
    """Score of x + sigma eps for the two bumps, by autograd of the density, without the library."""
    latent, var = latent.detach().requires_grad_(), 0.15**2 + edm_sigma[:, None] ** 2
    bumps = [-0.5 * (latent - mean).square() / var for mean in (-1, 1)]
    log_density = torch.logsumexp(torch.stack(bumps), 0).sum()
    return torch.autograd.grad(log_density, latent)[0]


def test_a_ve_score_runs_as_the_page_shows():
    """On the two bumps, at several levels; and the number of the page if its last line is left."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"s": ve_score}
    exec(example, names)
    z = torch.tensor([-2.0, -0.3, 0.8, 1.5, -2.0], dtype=F64)[:, None]
    logsnr = torch.tensor([-4.0, 0.0, 3.0, 8.0, -1.0], dtype=F64)
    exact_x = exact.TWO_BUMPS.denoise(z, logsnr)
    assert_close(names["from_score_sde"].predict(z, logsnr).x, exact_x)
    as_it_comes = ve_score(rosetta.to_latent(exploding, z, logsnr), rosetta.to_edm_sigma(logsnr))
    wrong = solve(SCORE, as_it_comes, z, logsnr).x
    assert (f"{wrong[-1].item():.3f}", f"{exact_x[-1].item():.3f}") == ("-2.329", "-0.911")
    assert "−2.329" in PAGE and "−0.911" in PAGE
    x, eps = pair()
    row = target(SCORE, x, eps, LEVELS) * alpha(LEVELS)[:, None]  # (0, -1 / sigma_edm)
    assert_close(row, -eps / rosetta.to_edm_sigma(LEVELS)[:, None])


def test_velocities_of_the_traps():
    """At alpha = sigma the v of Salimans and Ho is the flow's velocity over sqrt(2)."""
    x, eps = pair()
    level = number(0.0)
    v = solve(NOISE, eps, diffuse(x, level, eps), level).velocity
    assert_close(v, target(FLOW, x, eps, level) / math.sqrt(2))


def test_scaling_the_data_shifts_logsnr():
    x, eps = pair()
    logsnr, k = LEVELS, 0.5
    edm_sigma = rosetta.to_edm_sigma(logsnr)[:, None]
    shifted = logsnr + 2 * math.log(k)
    latent = rosetta.to_latent(exploding, diffuse(x, shifted, eps), shifted)
    assert_close(k * latent, k * x + edm_sigma * eps)
    assert f"{2 * math.log(k):.2f}" == "-1.39"
    score = rosetta.to_score(exploding, target(SCORE, x, eps, logsnr), logsnr)
    assert_close(score, -eps / edm_sigma)
