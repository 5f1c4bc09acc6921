"""Outputs of the network: every conversion, the determinant rule, and the energy by autograd."""

import math

import pytest
import torch

from vdm_lite import exact, nets, samplers
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import alpha, diffuse, sigma
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
from vdm_lite.schedules import Cosine, rate

F64 = torch.float64
POINTWISE = [IMAGE, NOISE, SCORE, VELOCITY, FLOW]


def example(dtype=F64, batch=49, dims=64):
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, batch, dims, generator=generator, dtype=F64).to(dtype)
    logsnr = torch.linspace(-12, 12, batch, dtype=dtype)
    return x, eps, logsnr, diffuse(x, logsnr, eps)


@pytest.mark.parametrize(("dtype", "bound"), [(F64, 1e-10), (torch.float32, 1e-4)])
def test_all_25_conversions(dtype, bound):
    x, eps, logsnr, z = example(dtype)
    worst = 0.0
    for given in POINTWISE:
        prediction = solve(given, target(given, x, eps, logsnr), z, logsnr)
        for wanted in POINTWISE:
            y = target(wanted, x, eps, logsnr)
            y_hat = target(wanted, prediction.x, prediction.eps, logsnr)
            worst = max(worst, ((y_hat - y).norm(dim=1) / y.norm(dim=1)).max().item())
    print(f"25 conversions, {dtype}: worst relative error {worst:.1e}")
    assert worst <= bound


def test_properties_name_the_outputs():
    x, eps, logsnr, z = example()
    prediction = solve(NOISE, eps, z, logsnr)
    for p, got in [
        (SCORE, prediction.score),
        (VELOCITY, prediction.velocity),
        (FLOW, prediction.flow),
    ]:
        torch.testing.assert_close(got, target(p, x, eps, logsnr))


@pytest.mark.parametrize(
    ("p", "row", "det", "per_noise"),
    [
        (IMAGE, lambda a, s: (1, 0), lambda a, s: -s, lambda lam: torch.exp(-lam)),
        (NOISE, lambda a, s: (0, 1), lambda a, s: a, lambda lam: torch.ones_like(lam)),
        (SCORE, lambda a, s: (0, -1 / s), lambda a, s: -a / s, lambda lam: 1 + torch.exp(lam)),
        (
            VELOCITY,
            lambda a, s: (-s, a),
            lambda a, s: a**2 + s**2,
            lambda lam: torch.sigmoid(lam) * (1 + torch.exp(-lam)) ** 2,
        ),
        (
            FLOW,
            lambda a, s: (-1, 1),
            lambda a, s: a + s,
            lambda lam: (1 + torch.exp(-lam / 2)) ** 2,
        ),
    ],
)
def test_the_table_of_rows_determinants_and_error_ratios(p, row, det, per_noise):
    logsnr = torch.linspace(-12, 12, 25, dtype=F64)
    a, s = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
    for got, want in zip((p.a(logsnr), p.b(logsnr)), row(a, s), strict=True):
        torch.testing.assert_close(got, torch.as_tensor(want, dtype=F64).expand(25))
    torch.testing.assert_close(determinant(p, logsnr), det(a, s))
    torch.testing.assert_close((determinant(p, logsnr) / a) ** 2, per_noise(logsnr))


@pytest.mark.parametrize("p", [*POINTWISE, edm()], ids=lambda p: p.name)
def test_errors_of_all_outputs_are_the_same_error(p):
    """||y - y_hat||^2 measured on wrong predictions, not on the formula."""
    x, eps, logsnr, z = example(batch=17)
    y = target(p, x, eps, logsnr)
    wrong = y + torch.randn(y.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    prediction = solve(p, wrong, z, logsnr)
    error = {
        "y": (y - wrong).square().sum(1),
        "x": (x - prediction.x).square().sum(1),
        "eps": (eps - prediction.eps).square().sum(1),
    }
    delta = determinant(p, logsnr)
    torch.testing.assert_close(error["y"], (delta / alpha(logsnr)) ** 2 * error["eps"])
    torch.testing.assert_close(error["y"], (delta / sigma(logsnr)) ** 2 * error["x"])


def test_edm_row():
    x, eps, logsnr, z = example()
    p, noise = edm(), torch.exp(-logsnr / 2)
    skip, out = 0.25 / (noise**2 + 0.25), 0.5 * noise / (noise**2 + 0.25).sqrt()
    y = target(p, x, eps, logsnr)
    denoised = skip[:, None] * (z / alpha(logsnr)[:, None]) + out[:, None] * y  # their D(x; sigma)
    torch.testing.assert_close(denoised, x)
    torch.testing.assert_close(determinant(p, logsnr), -sigma(logsnr) / out)
    # What the row is for: a target of unit variance, here for data of standard deviation 0.8.
    own = edm(0.8)
    variance = (0.8 * own.a(logsnr)).square() + own.b(logsnr).square()
    torch.testing.assert_close(variance, torch.ones_like(variance))


def test_edm_row_keeps_its_digits_at_low_noise():
    logsnr = torch.linspace(-13, 13.3, 40, dtype=F64)
    for of in (edm().a, edm().b):
        torch.testing.assert_close(of(logsnr.float()).double(), of(logsnr), rtol=2e-6, atol=0)


def test_interpolant_row():
    """u_t = alpha' x + sigma' eps has determinant -alpha sigma lambda' / 2."""
    t = torch.linspace(0.05, 0.95, 19, dtype=F64)
    logsnr, slope = rate(Cosine(), t)
    _, alpha_rate = torch.func.jvp(lambda u: alpha(Cosine()(u)), (t,), (torch.ones_like(t),))
    _, sigma_rate = torch.func.jvp(lambda u: sigma(Cosine()(u)), (t,), (torch.ones_like(t),))
    p = Parameterization("interpolant", lambda _: alpha_rate, lambda _: sigma_rate)
    want = -alpha(logsnr) * sigma(logsnr) * slope / 2
    torch.testing.assert_close(determinant(p, logsnr), want)
    ratio = (determinant(p, logsnr) / alpha(logsnr)) ** 2
    torch.testing.assert_close(ratio, (sigma(logsnr) * slope / 2) ** 2)


TOYS = {
    "gaussian": exact.Gaussian(torch.tensor([0.5, -1.0], dtype=F64), 0.7),
    "mixture": exact.TWO_BUMPS,
    "finite": exact.EIGHT_LEVELS,
}


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS.keys())
def test_energy_turns_into_the_others_by_autograd(toy):
    """The energy model -log q(z_t) and the posterior-mean model predict the same five outputs."""
    logsnr = torch.linspace(-5, 5, 41, dtype=F64)
    eps = torch.randn(41, *toy.event_shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    z = diffuse(toy.sample(41, torch.Generator().manual_seed(1)), logsnr, eps)
    by_energy = VariationalDiffusion(toy.energy, parameterization=ENERGY).predict(z, logsnr)
    by_image = VariationalDiffusion(toy.denoise, parameterization=IMAGE).predict(z, logsnr)
    for name in ("x", "eps", "score", "velocity", "flow"):
        got, want = getattr(by_energy, name), getattr(by_image, name)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(by_energy.score, toy.score(z, logsnr), rtol=1e-10, atol=1e-10)


def test_energy_network_trains_through_its_own_gradient():
    quarter = torch.nn.Parameter(torch.tensor(0.25, dtype=F64))
    model = VariationalDiffusion(
        lambda z, logsnr: quarter * z.square().sum(1), parameterization=ENERGY
    )
    z = torch.ones(2, 3, dtype=F64)
    prediction = model.predict(z, torch.zeros((), dtype=F64))
    torch.testing.assert_close(prediction.score, -0.5 * z)
    prediction.score.square().sum().backward()  # 6 * (2 q)^2, so 48 q
    assert math.isclose(quarter.grad.item(), 48 * 0.25)


def test_scalar_network_trains_and_samples():
    """The U-Net's energy: its gradient is the output, and has a gradient of its own."""
    network = nets.Energy(nets.UNet(1, (8, 16)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = VariationalDiffusion(network, parameterization=ENERGY).double()
    z, logsnr = torch.randn(3, 1, 8, 8, dtype=F64), torch.tensor([-3.0, 0.0, 3.0], dtype=F64)
    product = (z * network.network(z, logsnr)).flatten(1).sum(1)
    torch.testing.assert_close(network(z, logsnr), product / sigma(logsnr))
    nudge = 1e-5 * torch.randn(3, 1, 8, 8, dtype=F64)
    change = (network(z + nudge, logsnr) - network(z - nudge, logsnr)) / 2
    slope = -(model.predict(z, logsnr).score * nudge).flatten(1).sum(1)
    torch.testing.assert_close(slope, change, rtol=1e-5, atol=1e-10)
    model.loss(z).mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    *_, last = samplers.sample(model, (2, 1, 8, 8), 3)
    assert last.z.shape == (2, 1, 8, 8) and not last.z.requires_grad


@pytest.mark.parametrize("shape", [(), (3, 1), (2,)])
def test_an_energy_that_is_no_scalar_is_named(shape):
    model = VariationalDiffusion(lambda z, lam: z.new_zeros(shape), parameterization=ENERGY)
    with pytest.raises(ValueError, match=r"^denoiser\(z, logsnr\): expected shape \(3,\), got"):
        model.predict(torch.ones(3, 2), torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: edm(0.0), "data_std"),
        (lambda: edm(math.nan), "data_std"),
        (lambda: target(NOISE, torch.ones(2, 3), torch.ones(2, 2), torch.zeros(2)), "eps"),
        (lambda: target(NOISE, *torch.ones(2, 3, 1), torch.full((), math.nan)), "logsnr"),
        (lambda: target(FLOW, *torch.ones(2, 3, 1), torch.zeros(3).int()), "logsnr"),
        (lambda: target(IMAGE, *torch.ones(2, 3, 1), 0.0), "logsnr"),
        (lambda: target(IMAGE, *torch.ones(2, 0, 1), torch.zeros(())), "x"),
        (lambda: solve(NOISE, *torch.ones(2, 0, 1), torch.zeros(())), "z"),
        (lambda: solve(NOISE, torch.ones(2, 3), torch.ones(3, 2), torch.zeros(2)), "y"),
        (lambda: solve(NOISE, torch.ones(2).int(), torch.ones(2), torch.zeros(2)), "y"),
        (lambda: solve(NOISE, torch.ones(2), torch.ones(2).int(), torch.zeros(2)), "z"),
        (lambda: solve(NOISE, torch.ones(2), torch.ones(2), torch.zeros(3)), "logsnr"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
