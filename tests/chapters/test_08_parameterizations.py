"""Chapter 8, six parameterizations: one test for each labeled equation, and the exercises."""

import itertools
import math
from collections.abc import Callable

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import data, exact, gaussian, nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import diffusion_from_mmse
from vdm_lite.exact import EIGHT_LEVELS, TWO_BUMPS
from vdm_lite.figures import ch08_parameterizations as ch08
from vdm_lite.parameterization import (
    ENERGY,
    FLOW,
    IMAGE,
    NOISE,
    SCORE,
    VELOCITY,
    Parameterization,
    determinant,
    edm,
    solve,
    target,
)
from vdm_lite.runs.ch08 import outputs
from vdm_lite.schedules import Cosine, Linear, rate

FLOAT = torch.float64
POINTWISE = [IMAGE, NOISE, SCORE, VELOCITY, FLOW]
WIDE = Linear(10.0, -8.0)
TAU = 0.5
every_output = pytest.mark.parametrize("p", [*POINTWISE, edm(TAU)], ids=lambda p: p.name)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FLOAT)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=FLOAT)


def moments(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, from the definition of the log SNR and alpha^2 + sigma^2 = 1 alone."""
    snr = logsnr.exp()
    return (snr / (1 + snr)).sqrt(), 1 / (1 + snr).sqrt()


def row(name: str, logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients (a, b) of each output, written out here."""
    alpha, sigma = moments(logsnr)
    w = (TAU**2 * alpha**2 + sigma**2).sqrt()
    zero, one = 0 * logsnr, 1 + 0 * logsnr
    rows = {"image": (one, zero), "noise": (zero, one), "score": (zero, -1 / sigma)}
    rows |= {"velocity": (-sigma, alpha), "flow": (-one, one)}
    return (rows | {"edm": (sigma / TAU / w, -alpha * TAU / w)})[name]


def example(dims: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, eps and the latent at nine levels, without the library."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 9, dims, generator=generator, dtype=FLOAT)
    logsnr = torch.linspace(-8, 8, 9, dtype=FLOAT)
    alpha, sigma = moments(logsnr)
    return x, eps, logsnr, alpha[:, None] * x + sigma[:, None] * eps


def nodes(count: int = 161, width: float = 9.0) -> tuple[Tensor, Tensor]:
    """The trapezoid rule for N(0, 1), written out here."""
    points = torch.linspace(-width, width, count, dtype=FLOAT)
    weights = torch.exp(-0.5 * points**2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    return points, weights


def posterior(z: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes x (X,) of the two-bump toy, their posterior (N, X) and the prior (X,)."""
    points, weights = nodes()
    x = (TWO_BUMPS.means + TWO_BUMPS.stds[:, None] * points).flatten()
    prior = (TWO_BUMPS.weights[:, None] * weights).flatten()
    alpha, sigma = moments(logsnr)
    log_joint = prior.log() - 0.5 * ((z[:, None] - alpha * x) / sigma) ** 2
    return x, log_joint.softmax(1), prior


def jacobian(field: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    outputs = field(z).sum(0)
    rows = [torch.autograd.grad(output, z, retain_graph=True)[0] for output in outputs]
    return torch.stack(rows, 1)


def circle(radius: float, count: int = 400) -> tuple[Tensor, Tensor]:
    """Points on a circle and the steps between them, for the trapezoid rule."""
    angle = torch.arange(count, dtype=FLOAT) * 2 * math.pi / count
    points = radius * torch.stack([angle.cos(), angle.sin()], 1)
    steps = radius * torch.stack([-angle.sin(), angle.cos()], 1) * 2 * math.pi / count
    return points, steps


def says(p: Parameterization, toy: exact.GaussianMixture) -> VariationalDiffusion:
    """A model that knows the truth and says it in the form p."""

    def say(z: Tensor, logsnr: Tensor) -> Tensor:
        x_hat = toy.denoise(z, logsnr)
        alpha, sigma = (part.reshape(-1, 1) for part in moments(logsnr))
        a, b = (part.reshape(-1, 1) for part in row(p.name, logsnr))
        return a * x_hat + b * (z - alpha * x_hat) / sigma

    return VariationalDiffusion(toy.energy if p is ENERGY else say, WIDE, p)


@pytest.mark.equation("eq-output")
@every_output
def test_an_output_is_a_row_times_data_and_noise(p):
    x, eps, logsnr, _ = example()
    a, b = row(p.name, logsnr)
    assert_close(target(p, x, eps, logsnr), a[:, None] * x + b[:, None] * eps)


def test_velocity_and_flow_are_velocities():
    x, eps = real(0.8), real(-1.1)

    def arc(angle: Tensor) -> Tensor:
        return angle.cos() * x + angle.sin() * eps

    angle = level(0.4)
    logsnr = -2 * angle.tan().log()
    _, speed = torch.func.jvp(arc, (angle,), (torch.ones_like(angle),))
    assert_close(target(VELOCITY, x, eps, logsnr), speed)
    straight = ((1 - 0.7) * x + 0.7 * eps - ((1 - 0.2) * x + 0.2 * eps)) / 0.5
    assert_close(target(FLOW, x, eps, logsnr), straight)


@pytest.mark.equation("eq-determinant")
@every_output
def test_the_determinant_is_that_of_the_two_equations(p):
    logsnr = torch.linspace(-8, 8, 9, dtype=FLOAT)
    latent, output = (torch.stack(r, -1) for r in (moments(logsnr), row(p.name, logsnr)))
    assert_close(determinant(p, logsnr), torch.linalg.det(torch.stack([latent, output], 1)))


@pytest.mark.equation("eq-solve")
@every_output
def test_solve_is_the_solution_of_the_two_equations(p):
    _, _, logsnr, z = example()
    y = torch.randn(z.shape, dtype=FLOAT)  # any answer has its pair, not only the true one
    alpha, sigma = moments(logsnr)
    matrix = torch.stack([torch.stack([alpha, sigma], -1), torch.stack(row(p.name, logsnr), -1)], 1)
    pair = torch.linalg.solve(matrix, torch.stack([z, y], 1))
    got = solve(p, y, z, logsnr)
    assert_close((got.x, got.eps), (pair[:, 0], pair[:, 1]))


@pytest.mark.equation("eq-solve")
@pytest.mark.parametrize(("given", "wanted"), itertools.product(POINTWISE, POINTWISE))
def test_each_of_the_25_conversions(given, wanted):
    x, eps, logsnr, z = example()
    (a, b), (c, d) = row(given.name, logsnr), row(wanted.name, logsnr)
    prediction = solve(given, a[:, None] * x + b[:, None] * eps, z, logsnr)
    y_hat = target(wanted, *prediction)
    assert_close(y_hat, c[:, None] * x + d[:, None] * eps, rtol=1e-9, atol=1e-9)


@pytest.mark.equation("eq-error-ratio")
@every_output
def test_errors_are_one_error_in_other_units(p):
    """Measured on wrong answers: ||y - y_hat||^2 against the errors in eps and in x."""
    x, eps, logsnr, z = example()
    wrong = torch.randn(x.shape, dtype=FLOAT)
    guess = solve(p, target(p, x, eps, logsnr) + wrong, z, logsnr)
    error, in_x = wrong.square().sum(1), (guess.x - x).square().sum(1)
    in_eps = (guess.eps - eps).square().sum(1)
    alpha, sigma = moments(logsnr)
    a, b = row(p.name, logsnr)
    delta = alpha * b - sigma * a
    assert_close(error, (delta / alpha) ** 2 * in_eps)
    assert_close(error, (delta / sigma) ** 2 * in_x)


@pytest.mark.equation("eq-error-ratio")
@pytest.mark.parametrize("p", [*POINTWISE, ENERGY], ids=lambda p: p.name)
def test_six_models_with_one_knowledge_have_one_loss(p):
    x = TWO_BUMPS.sample(64, torch.Generator().manual_seed(1))
    loss = says(p, TWO_BUMPS).loss(x, generator=torch.Generator().manual_seed(2))
    same = says(IMAGE, TWO_BUMPS).loss(x, generator=torch.Generator().manual_seed(2))
    assert_close(loss, same)


@pytest.mark.equation("eq-optimal-score")
@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 2.0, 4.0])
def test_the_score_is_the_posterior_mean_of_the_simple_scores(logsnr):
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT), level(logsnr)
    x, given_z, prior = posterior(z, logsnr)
    alpha, sigma = moments(logsnr)
    simple = (alpha * x - z[:, None]) / sigma**2
    score = TWO_BUMPS.score(z[:, None], logsnr)[:, 0]
    assert_close((given_z * simple).sum(1), score, rtol=1e-6, atol=1e-6)
    # as the first version prints it: a straight line
    assert (simple @ prior - score).abs().max() > 0.05


@pytest.mark.equation("eq-noise-score")
@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 2.0, 4.0])
def test_the_best_noise_is_minus_sigma_times_the_score(logsnr):
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT), level(logsnr)
    x, given_z, _ = posterior(z, logsnr)
    alpha, sigma = moments(logsnr)
    eps_hat = (given_z * (z[:, None] - alpha * x) / sigma).sum(1, keepdim=True)
    score = TWO_BUMPS.score(z[:, None], logsnr)
    assert_close(eps_hat, -sigma * score, rtol=1e-6, atol=1e-6)
    prediction = solve(SCORE, score, z[:, None], logsnr)
    assert_close(prediction.eps, eps_hat, rtol=1e-6, atol=1e-6)
    assert (eps_hat - score).abs().max() > 0.5  # as the first version says


@pytest.mark.equation("eq-tweedie")
@pytest.mark.parametrize("toy", [TWO_BUMPS, EIGHT_LEVELS], ids=["two bumps", "8 levels"])
def test_tweedie(toy):
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT)[:, None], level(1.0)
    alpha, sigma = moments(logsnr)
    z.requires_grad_()
    (slope,) = torch.autograd.grad(toy.log_marginal(z, logsnr).sum(), z)
    z = z.detach()
    best = (z + sigma**2 * slope) / alpha
    assert_close(toy.denoise(z, logsnr), best)
    assert_close(solve(SCORE, slope, z, logsnr).x, best)


@pytest.mark.equation("eq-energy")
def test_an_energy_gives_all_outputs_by_its_slope():
    logsnr, z = real(-1.0, 2.0), real(0.3, -1.2)[:, None] * torch.ones(2, 3, dtype=FLOAT)
    model = VariationalDiffusion(lambda z, _: 0.5 * z.pow(4).sum(1), parameterization=ENERGY)
    prediction, (alpha, sigma) = model.predict(z, logsnr), moments(logsnr)
    score, sigma, alpha = -2 * z.pow(3), sigma[:, None], alpha[:, None]
    assert_close(prediction.score, score)
    assert_close(prediction.eps, -sigma * score)
    assert_close(prediction.x, (z + sigma**2 * score) / alpha)
    assert_close(prediction.velocity, alpha * prediction.eps - sigma * prediction.x)


def climb(score: Callable[[Tensor], Tensor], corners: Tensor) -> Tensor:
    """Energy gained from corner to corner: Simpson's rule on a fine grid."""
    r = torch.linspace(0, 1, 801, dtype=FLOAT)
    weight = torch.full((801,), 2.0, dtype=FLOAT)
    weight[1::2], weight[0], weight[-1] = 4.0, 1.0, 1.0
    total = level(0.0)
    for start, end in itertools.pairwise(corners):
        points = start + r[:, None] * (end - start)
        total -= (score(points) @ (end - start)) @ weight / 2400
    return total


@pytest.mark.equation("eq-climb")
@pytest.mark.parametrize("p", POINTWISE, ids=lambda p: p.name)
def test_a_walk_along_the_score_gives_the_energy_back(p):
    moons, logsnr = data.moons(), level(2.0)
    straight = real(-1.2, 0.0, 1.0, 0.5).view(2, 2)
    detour = real(-1.2, 0.0, -1.5, 1.5, 0.3, -0.9, 1.0, 0.5).view(4, 2)
    known = -moons.log_marginal(straight, logsnr).diff().squeeze()
    model = says(p, moons)
    for way in (straight, detour):
        walked = climb(lambda z: model.predict(z, logsnr.expand(len(z))).score, way)
        assert_close(walked, known, rtol=1e-7, atol=1e-7)


@pytest.mark.equation("eq-curl-free")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_energy_has_no_curl_and_other_networks_do(seed):
    torch.manual_seed(seed)
    network = nets.MLP(2, hidden=16, layers=1).double()
    torch.nn.init.normal_(network.outer.weight)  # it starts at zero
    z, logsnr = torch.randn(32, 2, dtype=FLOAT), level(1.0)
    points, steps = circle(0.9)
    asymmetry, around = {}, {}
    for p, net in ((ENERGY, nets.Energy(network)), (NOISE, network), (VELOCITY, network)):
        model = VariationalDiffusion(net, WIDE, p)
        field = lambda z, m=model: m.predict(z, logsnr).score  # noqa: E731
        J = jacobian(field, z)
        asymmetry[p.name] = ((J - J.mT).norm() / (J + J.mT).norm()).item()
        around[p.name] = abs((field(points) * steps).sum().item())
    assert asymmetry["energy"] < 1e-12 and around["energy"] < 1e-10
    assert min(asymmetry["noise"], asymmetry["velocity"]) > 0.05
    assert min(around["noise"], around["velocity"]) > 1e-3


@pytest.mark.equation("eq-curl-free")
@pytest.mark.parametrize("hole", [False, True])
def test_symmetry_makes_a_slope_where_there_is_no_hole(hole):
    """A field with a symmetric Jacobian costs nothing around a loop, unless a hole is inside."""
    toy = exact.GaussianMixture(real(0.4, 0.6), torch.eye(2, dtype=FLOAT), real(0.3, 0.5))

    def field(z: Tensor) -> Tensor:
        around = torch.stack([-z[:, 1], z[:, 0]], 1) / z.square().sum(1, keepdim=True)
        return around if hole else toy.score(z, level(1.0))

    points, steps = circle(0.9)
    slopes = jacobian(field, points)
    assert_close(slopes, slopes.mT)
    gain = (field(points).detach() * steps).sum().item()
    assert abs(gain - (2 * math.pi if hole else 0)) < 1e-9


@pytest.mark.equation("eq-curl-free")
def test_the_exact_score_has_the_symmetric_jacobian_of_its_energy():
    moons, logsnr = data.moons(), level(2.0)
    z = torch.randn(16, 2, dtype=FLOAT)
    J = jacobian(lambda z: moons.score(z, logsnr), z)
    hessian = torch.func.vmap(torch.func.hessian(lambda q: _log_mixture(moons, q, logsnr)))(z)
    assert_close(J, hessian, rtol=1e-7, atol=1e-7)
    points, steps = circle(0.9)
    assert abs((moons.score(points, logsnr) * steps).sum()) < 1e-9


def _log_mixture(toy: exact.GaussianMixture, z: Tensor, logsnr: Tensor) -> Tensor:
    alpha, sigma = moments(logsnr)
    var = alpha**2 * toy.stds.double() ** 2 + sigma**2
    distance = (z - alpha * toy.means.double()).square().sum(1) / var + 2 * var.log()
    return (toy.weights.double().log() - 0.5 * distance).logsumexp(0)


@pytest.mark.equation("eq-skip")
@every_output
def test_every_output_is_a_skip_connection_and_a_gain(p):
    _, _, logsnr, z = example()
    y = torch.randn(z.shape, dtype=FLOAT)
    alpha, sigma = moments(logsnr)
    w2 = TAU**2 * alpha**2 + sigma**2
    table = {
        "image": (0 * alpha, 1 + 0 * alpha),
        "noise": (1 / alpha, -sigma / alpha),
        "score": (1 / alpha, sigma**2 / alpha),
        "velocity": (alpha, -sigma),
        "flow": (1 / (alpha + sigma), -sigma / (alpha + sigma)),
        "edm": (alpha * TAU**2 / w2, TAU * sigma / w2.sqrt()),
    }
    skip, out = (part[:, None] for part in table[p.name])
    assert_close(solve(p, y, z, logsnr).x, skip * z + out * y)


def amplification(name: str, logsnr: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """How a relative error is amplified in x and in eps, written out here."""
    (alpha, sigma), (a, b) = moments(logsnr), row(name, logsnr)
    scale = (a**2 * std**2 + b**2).sqrt() / (alpha * b - sigma * a).abs()
    return sigma * scale, alpha * scale


@pytest.mark.equation("eq-amplification")
@every_output
def test_amplification_of_a_relative_error(p):
    x, eps, logsnr, z = example()
    a, b = row(p.name, logsnr)
    error = 0.01 * (a**2 * TAU**2 + b**2).sqrt()[:, None]
    guess = solve(p, target(p, x, eps, logsnr) + error, z, logsnr)
    in_x, in_eps = amplification(p.name, logsnr, TAU)
    assert_close((guess.x - x).abs(), 0.01 * in_x[:, None].expand_as(x))
    assert_close((guess.eps - eps).abs(), 0.01 * in_eps[:, None].expand_as(x))
    assert_close(in_eps, in_x * (logsnr / 2).exp())


def test_who_is_fragile_where():
    logsnr = torch.linspace(-8, 10, 181, dtype=FLOAT)
    in_x, in_eps = zip(*(amplification(p.name, logsnr, 1.0) for p in POINTWISE), strict=True)
    assert_close(in_x[0], torch.ones_like(logsnr))  # image
    assert_close(in_eps[0], (logsnr / 2).exp())
    assert_close(in_x[1], (-logsnr / 2).exp())  # noise
    assert_close(in_x[2], in_x[1])  # score
    assert max(in_x[3].max(), in_eps[3].max()) <= 1  # velocity
    assert max(in_x[4].max(), in_eps[4].max()) <= math.sqrt(2)  # flow


def start(name: str, std: float, ends: tuple[float, float] = (10.0, -8.0)) -> float:
    """Nats a dimension of a silent network, by the trapezoid rule."""
    logsnr = torch.linspace(ends[1], ends[0], 20_001, dtype=FLOAT)
    return 0.5 * torch.trapezoid(amplification(name, logsnr, std)[1] ** 2, logsnr).item()


@pytest.mark.equation("eq-start")
@every_output
def test_the_loss_of_a_silent_network(p):
    x = TAU * torch.randn(100_000, 1, dtype=FLOAT, generator=torch.Generator().manual_seed(3))
    short = Linear(4.0, -4.0)
    silent = VariationalDiffusion(lambda z, _: 0 * z, short, p)
    loss = silent.loss(x, generator=torch.Generator().manual_seed(4))
    bar = 5 * loss.std() / math.sqrt(len(loss))
    assert abs(loss.mean() - start(p.name, TAU, (4.0, -4.0))) < bar


@pytest.mark.equation("eq-edm-coefficients")
@pytest.mark.parametrize("logsnr", [-4.0, 0.0, 1.0, 5.0])
def test_edm_has_unit_variance_and_the_least_amplification(logsnr):
    """The library's skip and gain against a search over all skip connections."""
    logsnr = level(logsnr)
    alpha, sigma = moments(logsnr)
    p = edm(TAU)
    delta = determinant(p, logsnr)
    skip, out = p.b(logsnr) / delta, -gaussian.sigma(logsnr) / delta
    candidates = skip + torch.linspace(-1, 1, 20_001, dtype=FLOAT)
    amplified = (((1 - alpha * candidates) * TAU) ** 2 + (candidates * sigma) ** 2).sqrt()
    assert_close(candidates[amplified.argmin()], skip, rtol=0, atol=1e-9)
    assert_close(amplified.min(), out)
    assert_close((p.a(logsnr) * TAU) ** 2 + p.b(logsnr) ** 2, level(1.0))
    # c_in: the variance of z; the target knows nothing that is linear in z
    assert_close(skip, alpha * TAU**2 / (alpha**2 * TAU**2 + sigma**2))
    assert_close(p.a(logsnr) * alpha * TAU**2 + p.b(logsnr) * sigma, level(0.0))


@pytest.mark.equation("eq-edm-row")
@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_the_row_of_edm(std):
    logsnr = torch.linspace(-8, 8, 17, dtype=FLOAT)
    alpha, sigma = moments(logsnr)
    w = (alpha**2 * std**2 + sigma**2).sqrt()
    p = edm(std)
    assert_close((p.a(logsnr), p.b(logsnr)), (sigma / (std * w), -alpha * std / w))
    assert_close(determinant(p, logsnr), -w / std)
    if std == 1.0:  # minus the velocity
        assert_close((p.a(logsnr), p.b(logsnr)), (-VELOCITY.a(logsnr), -VELOCITY.b(logsnr)))


def test_edm_in_its_own_units():
    """x_hat = c_skip z~ + c_out F with z~ = z / alpha, and the coefficients of Karras et al."""
    _, _, logsnr, z = example()
    F = torch.randn(z.shape, dtype=FLOAT)
    noise = torch.exp(-logsnr / 2)[:, None]
    skip, out = TAU**2 / (noise**2 + TAU**2), noise * TAU / (noise**2 + TAU**2).sqrt()
    denoised = skip * z / moments(logsnr)[0][:, None] + out * F
    assert_close(solve(edm(TAU), F, z, logsnr).x, denoised)


def test_exercise_a_sum_is_blind_at_one_level():
    both = Parameterization("sum", torch.ones_like, torch.ones_like)
    assert determinant(both, level(0.0)).abs() < 1e-15
    skewed = Parameterization("skewed", lambda k: 3 * torch.ones_like(k), torch.ones_like)
    assert determinant(skewed, level(2 * math.log(3))).abs() < 1e-15
    assert (determinant(FLOW, torch.linspace(-12, 12, 49, dtype=FLOAT)) >= 1).all()


def test_exercise_velocity_error_is_not_divided_by_alpha():
    """Regression: the first version prints 1 / alpha^2 where alpha^2 is right."""
    x, eps, _, _ = example()
    logsnr = real(-4.0).expand(9)
    alpha = moments(logsnr)[0]
    z = gaussian.diffuse(x, logsnr, eps)
    v = target(VELOCITY, x, eps, logsnr)
    wrong = torch.randn(v.shape, dtype=FLOAT)
    in_eps = (solve(VELOCITY, v + wrong, z, logsnr).eps - eps).square().sum(1)
    in_v = wrong.square().sum(1)
    assert_close(in_eps, alpha**2 * in_v)
    sigma = moments(logsnr)[1]
    third_row = alpha**2 * (sigma**2 / alpha**2 + 1) ** 2  # of the same table: it is right
    assert_close(in_v, third_row * in_eps)
    held = (v + wrong + sigma[:, None] * x) / alpha[:, None]  # the slip: x held at its true value
    assert_close((held - eps).square().sum(1), in_v / alpha**2)
    assert (in_v / alpha**2 / in_eps > 3000).all()
    assert abs(alpha[0] ** 2 - 0.018) < 1e-4 and abs(1 / alpha[0] ** 2 - 55.6) < 0.05


def test_exercise_average_over_the_data_is_no_score():
    """Regression: the first version averages over q(x); it takes q(x | z_t)."""
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT), level(2.0)
    x, given_z, prior = posterior(z, logsnr)
    alpha, sigma = moments(logsnr)
    simple = (alpha * x - z[:, None]) / sigma**2
    score = TWO_BUMPS.score(z[:, None], logsnr)[:, 0]
    printed = simple @ prior
    assert_close(printed, -z / sigma**2, rtol=1e-9, atol=1e-9)  # a line, whatever the data
    assert (printed - score).abs().max() > 5
    assert_close((given_z * simple).sum(1), score, rtol=1e-6, atol=1e-6)


def test_exercise_noise_is_no_score():
    """Regression: eps_hat is -sigma times the score, not the score, nor -sigma^2 times it."""
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT)[:, None], level(2.0)
    sigma = moments(logsnr)[1]
    best = says(NOISE, TWO_BUMPS).predict(z, logsnr.expand(41))
    score = TWO_BUMPS.score(z, logsnr)
    assert_close(best.eps, -sigma * score)
    assert (best.eps - score).abs().max() > 5
    assert (-best.eps / sigma**2 - score).abs().max() > 5
    far = z.abs() > 1.5
    assert (best.eps[far] * score[far] < 0).all()  # noise points away from the data


def test_exercise_an_image_is_no_noise():
    """Shipped: the output, an image, is taken for the noise; the pair must explain the latent."""
    z, logsnr = torch.linspace(-2, 2, 41, dtype=FLOAT)[:, None], level(2.0)
    alpha, sigma = moments(logsnr)
    x_hat = TWO_BUMPS.denoise(z, logsnr)
    right = (z - alpha * x_hat) / sigma
    assert_close(right, -sigma * TWO_BUMPS.score(z, logsnr))
    assert_close(alpha * x_hat + sigma * right, z)
    shipped = x_hat
    assert (alpha * x_hat + sigma * shipped - z).abs().max() > 0.2
    assert [f"{n[30].item():.2f}" for n in (z, right, shipped)] == ["1.00", "0.15", "1.01"]


def test_exercise_sign_of_the_velocity():
    x, eps, logsnr, z = example()
    (alpha, sigma), v = moments(logsnr), target(VELOCITY, x, eps, logsnr)
    assert_close(alpha[:, None] * z - sigma[:, None] * v, x)
    plus = alpha[:, None] * z + sigma[:, None] * v
    assert (plus - x)[0].norm() > x[0].norm() and (plus - x)[-1].norm() < 0.1 * x[-1].norm()
    minus_v = target(edm(1.0), x, eps, logsnr)
    assert_close(alpha[:, None] * z + sigma[:, None] * minus_v, x)


@pytest.mark.parametrize("straight", [True, False])
def test_exercise_velocity_along_any_path(straight):
    t = torch.linspace(0.05, 0.95, 19, dtype=FLOAT)
    path = (lambda t: (1 - t, t)) if straight else (lambda t: moments(Cosine()(t)))
    (alpha, sigma), (alpha_rate, sigma_rate) = torch.func.jvp(path, (t,), (torch.ones_like(t),))
    slope = 2 * (alpha_rate / alpha - sigma_rate / sigma)
    delta = alpha * sigma_rate - sigma * alpha_rate
    assert_close(delta, -0.5 * alpha * sigma * slope)
    per_noise = (delta / alpha) ** 2
    assert_close(2 / (sigma**2 * -slope) * per_noise, -slope / 2)
    if straight:
        assert_close(delta, torch.ones_like(t))
        assert_close(2 / (sigma**2 * -slope), (1 - t) / t)
    else:
        assert_close(slope, rate(Cosine(), t)[1])


@pytest.mark.parametrize("logsnr", [-2.0, 0.0, 3.0])
def test_exercise_jacobian_of_the_best_denoiser(logsnr):
    logsnr = level(logsnr)
    alpha, sigma = moments(logsnr)
    z = torch.linspace(-2, 2, 41, dtype=FLOAT)[:, None]
    J = jacobian(lambda z: TWO_BUMPS.denoise(z, logsnr), z).flatten()
    assert_close(J, alpha / sigma**2 * TWO_BUMPS.posterior_variance(z, logsnr))
    assert (J > 0).all()
    points, weights = nodes()
    spread = (alpha**2 * TWO_BUMPS.stds**2 + sigma**2).sqrt()
    z = alpha * TWO_BUMPS.means + spread[:, None] * points
    J = jacobian(lambda z: TWO_BUMPS.denoise(z, logsnr), z.reshape(-1, 1)).view(z.shape)
    error = sigma**2 / alpha * (TWO_BUMPS.weights @ (J @ weights))
    assert_close(error, TWO_BUMPS.mmse(logsnr), rtol=1e-6, atol=0)


def test_exercise_what_a_curl_costs():
    omega, turn = 0.3, real(0.0, -1.0, 1.0, 0.0).view(2, 2)
    truth = exact.Gaussian(torch.zeros(2, dtype=FLOAT), 1.0)

    def swirl(z: Tensor, logsnr: Tensor) -> Tensor:
        return truth.score(z, logsnr) + omega * z @ turn.T

    model = VariationalDiffusion(swirl, WIDE, SCORE)

    def error(logsnr: Tensor) -> Tensor:
        """E||x - x_hat||^2 by the exact second moments of z, which are those of N(0, I)."""
        z = math.sqrt(2) * torch.eye(2, dtype=FLOAT).repeat(len(logsnr), 1)
        at = logsnr.repeat_interleave(2)
        off = model.predict(z, at).x - truth.denoise(z, at)
        return truth.mmse(logsnr) + off.square().sum(1).view(-1, 2).mean(1)

    excess = diffusion_from_mmse(error, WIDE) - diffusion_from_mmse(truth.mmse, WIDE)
    closed = math.log1p(math.exp(8)) - math.log1p(math.exp(-10))
    assert abs(closed - 8.0003) < 5e-5
    assert_close(excess, level(omega**2 * closed))
    z = torch.randn(50, 2, dtype=FLOAT)
    turned = z @ torch.linalg.matrix_exp(0.7 * omega * turn).T
    assert_close(truth.log_prob(turned), truth.log_prob(z))


def test_exercise_where_training_starts():
    assert abs(start("velocity", TAU) - 4.625) < 5e-4
    assert abs(start("edm", TAU) - 4.307) < 5e-4
    spread = exact.Gaussian(torch.zeros(1, dtype=FLOAT), TAU)
    assert abs(start("edm", TAU) - diffusion_from_mmse(spread.mmse, WIDE).item()) < 1e-5
    assert all(start(p.name, TAU) > start("edm", TAU) for p in POINTWISE)
    closed = [math.log1p(math.exp(k)) - 0.75 / (1 + math.exp(-k)) for k in (10.0, -8.0)]
    assert abs(start("velocity", TAU) - (closed[0] - closed[1]) / 2) < 1e-5


def runs(name: str, value: Callable[[dict], object]) -> Tensor:
    """One value of each long run with this output: a row for each seed."""
    rows = [row for row in outputs.results()["rows"] if row["steps"] == outputs.STEPS]
    found = [value(row) for row in rows if row["output"] == name]
    assert len(found) == 3
    return torch.tensor(found, dtype=FLOAT)


def test_what_the_chapter_says_of_the_images():
    bits = {name: runs(name, lambda row: row["bits_per_dim"]) for name in outputs.OUTPUTS}
    errors = {name: runs(name, lambda row: row["errors"]).mean(0) for name in outputs.OUTPUTS}
    close = [bits[name] for name in ("noise", "energy", "velocity", "flow")]
    assert bits["image"].min() > 8  # more than a uniform distribution over the levels
    assert errors["image"][-1] > 30 and abs(errors["score"][-1] - 0.97) < 0.005
    assert bits["score"].min() > torch.stack(close).max() + 0.3
    means = torch.stack(close).mean(1)
    assert means.max() - means.min() < 0.15
    for name in ("noise", "score", "energy"):  # fragile at high noise
        assert errors[name][0] > 1.3 * max(errors["velocity"][0], errors["flow"][0])
    for name in ("noise", "score", "energy", "flow"):  # which costs the bound hardly anything
        extra = (errors[name] - errors["velocity"])[:8]
        assert torch.trapezoid(extra, outputs.LEVELS[:8].double()) / (2 * math.log(2)) < 0.02
    for name in ("noise", "energy", "flow"):  # and all but image and score alike at low noise
        assert errors[name][12:].div(errors["velocity"][12:]).max() < 1.2


def test_the_figures_of_the_chapter_can_be_drawn():
    matplotlib.use("Agg")
    ch08.rows([IMAGE, NOISE, VELOCITY, FLOW], (-4.0, 4.0))
    z = torch.linspace(-2, 2, 21)
    ch08.scores(z, torch.exp(-(z**2)), {"right": -z, "wrong": -2 * z})

    def factor(p: Parameterization, logsnr: Tensor) -> Tensor:
        return determinant(p, logsnr).abs()

    ch08.amplifications(POINTWISE, {"one": factor, "two": factor})
    ch08.excess_curves(z, {p.name: z.exp() for p in POINTWISE})
    ch08.relative_errors(z, {p.name: z.exp() for p in POINTWISE})
    loop = torch.stack([z.cos(), z.sin()], 1)
    fields = {"one": lambda q: q[:, 0], "two": lambda q: q[:, 1]}
    ch08.curls(fields, lambda q: -q.square().sum(1), loop)
    ch08.explorer(TWO_BUMPS, (-1.0, 2.0), POINTWISE, {"one": factor, "two": factor})
    plt.close("all")
