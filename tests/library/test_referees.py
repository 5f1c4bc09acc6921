"""Two independent code bases, azula and diffusers, must agree with us to their precision.

What flow matching says of its own path is derived here from plain tensors: a third referee.
"""

import math

import pytest
import torch

from vdm_lite import exact, gaussian, rosetta, weighting
from vdm_lite.parameterization import (
    FLOW,
    IMAGE,
    NOISE,
    VELOCITY,
    edm,
    solve,
    target,
)
from vdm_lite.rosetta import exploding, straight
from vdm_lite.samplers import ancestral_step, ddim_step
from vdm_lite.schedules import Cosine, FlowMatching, Linear

F64 = torch.float64
SCHEDULE = Linear(9.0, -7.0)
STD = 1.5


@pytest.fixture
def azula(referee):
    """Our schedule and a Gaussian denoiser, in azula's classes, beside its samplers."""
    referee("azula")
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import Schedule
    from azula.sample import DDIMSampler, DDPMSampler

    class Ours(Schedule):
        def __call__(self, t):
            logsnr = SCHEDULE(t)
            return gaussian.alpha(logsnr), gaussian.sigma(logsnr)

    variance = IsotropicCovariance(torch.tensor(STD**2, dtype=F64))
    denoiser = GaussianDenoiser(torch.zeros(3, dtype=F64), variance, Ours())
    return denoiser, {ancestral_step: DDPMSampler, ddim_step: DDIMSampler}


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_azula_gaussian_denoiser(azula, t):
    t, z = torch.tensor(t, dtype=F64), torch.randn(5, 3, dtype=F64)
    ours = exact.Gaussian(torch.zeros(3, dtype=F64), STD).denoise(z, SCHEDULE(t))
    torch.testing.assert_close(ours, azula[0](z, t).mean)


@pytest.mark.parametrize("step", [ancestral_step, ddim_step])
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.2), (0.45, 0.5), (0.5, 1.0)])
def test_azula_steps(azula, step, s, t):
    denoiser, samplers = azula
    s, t, z = *torch.tensor([s, t], dtype=F64), torch.randn(5, 3, dtype=F64)
    torch.manual_seed(0)
    theirs = samplers[step](denoiser, silent=True).step(z, t, s)
    torch.manual_seed(0)
    ours = step(solve(IMAGE, denoiser(z, t).mean, z, SCHEDULE(t)), z, SCHEDULE(s))
    torch.testing.assert_close(ours, theirs)


SMALL = 1e-3  # the ends of azula's schedules: alpha(1) and sigma(0)


@pytest.fixture
def noise(referee):
    """Azula's schedules."""
    referee("azula")
    from azula import noise

    return noise


def azula_levels(schedule, t):
    """Scale of the signal and log-SNR of one of azula's schedules."""
    alpha, sigma = schedule(t)
    return alpha, 2 * (alpha / sigma).log()


def test_azula_rectified_schedule_is_our_flow_matching(noise):
    """Their ends stretch time linearly, and so does our restriction to two end points."""
    t = torch.linspace(0, 1, 101, dtype=F64)
    alpha, logsnr = azula_levels(noise.RectifiedSchedule(SMALL, SMALL), t)
    ours = FlowMatching(-2 * math.log(SMALL), 2 * math.log(SMALL))(t)
    torch.testing.assert_close(ours, logsnr)
    # Their two coefficients add up to 1 + SMALL, those of the straight path to 1.
    torch.testing.assert_close(1 - rosetta.to_flow_time(ours), alpha / (1 + SMALL))


def test_azula_exploding_schedule_is_linear_in_logsnr(noise):
    t = torch.linspace(0, 1, 101, dtype=F64)
    _, sigma = noise.VESchedule(0.01, 50.0)(t)
    ours = Linear(-2 * math.log(0.01), -2 * math.log(50))(t)
    torch.testing.assert_close(rosetta.to_edm_sigma(ours), sigma)
    torch.testing.assert_close(ours, rosetta.from_edm_sigma(sigma))


def test_azula_preserving_schedule_is_the_vp_sde_with_linear_beta(noise):
    t = torch.linspace(0.01, 1, 100, dtype=F64)
    alpha, logsnr = azula_levels(noise.VPSchedule(SMALL, 0.0), t)
    ours = rosetta.from_integrated_beta(-2 * math.log(SMALL) * t**2)
    torch.testing.assert_close(ours, logsnr)
    torch.testing.assert_close(rosetta.to_alpha_bar(ours), alpha**2)


@pytest.mark.parametrize("step", [ancestral_step, ddim_step])
@pytest.mark.parametrize("name", ["RectifiedSchedule", "VESchedule"])
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.2), (0.45, 0.5), (0.5, 0.99)])
def test_azula_steps_on_other_latents(noise, step, name, s, t):
    """Their step on their latent is ours on the rescaled one: steps do not see the scale."""
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDIMSampler, DDPMSampler

    if name == "RectifiedSchedule":
        schedule, scale, factor = noise.RectifiedSchedule(SMALL, SMALL), straight, 1 + SMALL
    else:
        schedule, scale, factor = noise.VESchedule(0.01, 50.0), exploding, 1.0
    variance = IsotropicCovariance(torch.tensor(STD**2, dtype=F64))
    denoiser = GaussianDenoiser(torch.zeros(3, dtype=F64), variance, schedule)
    sampler = {ancestral_step: DDPMSampler, ddim_step: DDIMSampler}[step](denoiser, silent=True)
    s, t, latent = *torch.tensor([s, t], dtype=F64), torch.randn(5, 3, dtype=F64)
    torch.manual_seed(0)
    theirs = sampler.step(latent, t, s)
    (_, logsnr_s), (_, logsnr_t) = azula_levels(schedule, s), azula_levels(schedule, t)
    z = rosetta.from_latent(scale, latent / factor, logsnr_t)
    x_hat = exact.Gaussian(torch.zeros(3, dtype=F64), STD).denoise(z, logsnr_t)
    torch.manual_seed(0)
    ours = step(solve(IMAGE, x_hat, z, logsnr_t), z, logsnr_s)
    torch.testing.assert_close(rosetta.to_latent(scale, ours, logsnr_s) * factor, theirs)


STEPS = 50


@pytest.fixture
def diffusers_schedulers(referee):
    """DDPM and DDIM schedulers whose tables hold our cosine levels at t = 1/T … 1."""
    diffusers = referee("diffusers")
    logsnr = Cosine(9.0, -7.0)(torch.linspace(0, 1, STEPS + 1)[1:])
    signal = torch.sigmoid(logsnr)
    betas = 1 - signal / torch.cat([torch.ones(1), signal[:-1]])
    options = {"num_train_timesteps": STEPS, "trained_betas": betas.numpy(), "clip_sample": False}
    ddpm = diffusers.DDPMScheduler(**options)
    ddim = diffusers.DDIMScheduler(**options, set_alpha_to_one=False)
    ddpm.set_timesteps(STEPS)
    ddim.set_timesteps(STEPS)
    return ddpm, ddim, logsnr


# Their tables are float32 products over 50 steps; ours are float32 too.
FLOAT32_TABLE = {"rtol": 1e-4, "atol": 1e-5}


def test_diffusers_add_noise_and_velocity(diffusers_schedulers):
    ddpm, _, logsnr = diffusers_schedulers
    x, eps = torch.randn(2, STEPS, 4)
    index = torch.arange(STEPS)
    ours = gaussian.diffuse(x, logsnr, eps)
    torch.testing.assert_close(ours, ddpm.add_noise(x, eps, index), **FLOAT32_TABLE)
    velocity = target(VELOCITY, x, eps, logsnr)
    torch.testing.assert_close(velocity, ddpm.get_velocity(x, eps, index), **FLOAT32_TABLE)


@pytest.mark.parametrize("i", [1, 10, 30, STEPS - 1])
def test_diffusers_steps(diffusers_schedulers, i):
    ddpm, ddim, logsnr = diffusers_schedulers
    z, eps_hat = torch.randn(2, 6, 4)
    prediction = solve(NOISE, eps_hat, z, logsnr[i])
    theirs = ddim.step(eps_hat, i, z).prev_sample
    torch.testing.assert_close(ddim_step(prediction, z, logsnr[i - 1]), theirs, **FLOAT32_TABLE)
    theirs = ddpm.step(eps_hat, i, z, generator=torch.Generator().manual_seed(0)).prev_sample
    ours = ancestral_step(prediction, z, logsnr[i - 1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours, theirs, **FLOAT32_TABLE)


def test_diffusers_velocity_is_the_velocity_target_and_solves_back(diffusers_schedulers):
    """From their velocity and their latent our solver recovers the data and the noise."""
    ddpm, _, logsnr = diffusers_schedulers
    x, eps = torch.randn(2, STEPS, 4)
    index = torch.arange(STEPS)
    velocity, z = ddpm.get_velocity(x, eps, index), ddpm.add_noise(x, eps, index)
    prediction = solve(VELOCITY, velocity, z, logsnr)
    torch.testing.assert_close((prediction.x, prediction.eps), (x, eps), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_diffusers_min_snr(diffusers_schedulers, gamma):
    """Training on compute_snr weighs the noise error by min(SNR, gamma) / SNR, and the velocity
    error by min(SNR, gamma) / (SNR + 1). Both come to our min_snr for a cosine schedule."""
    from diffusers.training_utils import compute_snr

    ddpm, _, logsnr = diffusers_schedulers
    snr = compute_snr(ddpm, torch.arange(STEPS))
    torch.testing.assert_close(snr, rosetta.to_snr(logsnr), **FLOAT32_TABLE)
    ours = weighting.min_snr(gamma)(logsnr)
    for p, explicit in [
        (NOISE, snr.clamp(max=gamma) / snr),
        (VELOCITY, snr.clamp(max=gamma) / (snr + 1)),
    ]:
        implied = weighting.implied(Cosine(), p, lambda _, explicit=explicit: explicit)
        inside = logsnr > -5  # where the default schedule ends
        share = (implied(logsnr) / ours)[inside]
        torch.testing.assert_close(share, share[0].expand(len(share)), **FLOAT32_TABLE)


def test_diffusers_default_table_of_ddpm(referee):
    """Their linear betas: 1000 levels, and the variances of the posterior."""
    ddpm = referee("diffusers").DDPMScheduler(variance_type="fixed_small")
    logsnr = rosetta.from_betas(ddpm.betas)
    torch.testing.assert_close(rosetta.to_alpha_bar(logsnr), ddpm.alphas_cumprod, **FLOAT32_TABLE)
    ours = rosetta.beta_tilde(logsnr[:-1], logsnr[1:])
    theirs = torch.stack([ddpm._get_variance(i) for i in range(1, 1000)])
    # Their 1 - alpha_bar is a float32 difference: 6e-8 of 1e-4 at the clean end.
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=0)


@pytest.mark.parametrize("data_std", [0.5, 1.5])
def test_diffusers_edm_preconditioning(referee, data_std):
    scheduler = referee("diffusers").EDMEulerScheduler(sigma_data=data_std)
    for level in (-6.0, 0.0, 3.0, 10.0):
        logsnr, (z, f) = torch.tensor(level), torch.randn(2, 6, 4)
        latent, edm_sigma = rosetta.to_latent(exploding, z, logsnr), rosetta.to_edm_sigma(logsnr)
        network_input, label = rosetta.edm_input(z, logsnr, data_std)
        torch.testing.assert_close(network_input, scheduler.precondition_inputs(latent, edm_sigma))
        torch.testing.assert_close(label, scheduler.precondition_noise(edm_sigma))
        denoised = scheduler.precondition_outputs(latent, f, edm_sigma)
        ours = solve(edm(data_std), f, z, logsnr).x
        torch.testing.assert_close(ours, denoised, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("i", [1, 10, 18])
def test_diffusers_flow_matching(referee, i):
    """Their latent is ours on the straight path; their Euler step along the velocity is DDIM."""
    scheduler = referee("diffusers").FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    at = scheduler.timesteps[i : i + 1]
    logsnr_t, logsnr_s = rosetta.from_flow_time(scheduler.sigmas[i : i + 2])
    x, eps, u_hat = torch.randn(3, 1, 6)
    z = gaussian.diffuse(x, logsnr_t, eps)
    latent = scheduler.scale_noise(x, at, eps)
    torch.testing.assert_close(rosetta.to_latent(straight, z, logsnr_t), latent)
    theirs = scheduler.step(u_hat, at[0], latent).prev_sample
    ours = ddim_step(solve(FLOW, u_hat, z, logsnr_t), z, logsnr_s)
    torch.testing.assert_close(rosetta.to_latent(straight, ours, logsnr_s), theirs)


# Flow matching on its own terms: plain tensors on their side, no function of the library.


@pytest.mark.parametrize("time", [0.05, 0.3, 0.5, 0.95])
def test_flow_path_identities(time):
    """With u = eps - x on the path (1 - r) x + r eps: x = path - r u, eps = path + (1 - r) u."""
    x, eps = torch.randn(2, 20, 3, dtype=F64)
    path, u = (1 - time) * x + time * eps, eps - x
    norm = math.hypot(1 - time, time)
    logsnr = torch.tensor(2 * math.log((1 - time) / time), dtype=F64)
    torch.testing.assert_close(gaussian.diffuse(x, logsnr, eps), path / norm)
    torch.testing.assert_close(target(FLOW, x, eps, logsnr), u)
    prediction = solve(FLOW, u, path / norm, logsnr)
    torch.testing.assert_close(prediction.x, path - time * u)
    torch.testing.assert_close(prediction.eps, path + (1 - time) * u)


@pytest.mark.parametrize("time", [0.05, 0.3, 0.5, 0.95])
def test_flow_field_of_gaussian_data(time):
    """E[eps - x | path] by linear regression, for x ~ N(0, STD^2): slope cov / var."""
    path = torch.randn(20, 3, dtype=F64)
    var = (1 - time) ** 2 * STD**2 + time**2
    field = (time - (1 - time) * STD**2) / var * path
    norm = math.hypot(1 - time, time)
    logsnr = torch.tensor(2 * math.log((1 - time) / time), dtype=F64)
    z = path / norm
    x_hat = exact.Gaussian(torch.zeros(3, dtype=F64), STD).denoise(z, logsnr)
    torch.testing.assert_close(solve(IMAGE, x_hat, z, logsnr).flow, field)


def test_flow_field_carries_noise_to_data():
    """d path/dr = field stretches a path by exp(∫ field / path dr): from STD at 0 to 1 at r = 1."""
    r = (torch.arange(4000, dtype=F64) + 0.5) / 4000  # the midpoint rule never meets the ends
    logsnr = 2 * ((1 - r) / r).log()
    z = (1 / torch.hypot(1 - r, r))[:, None]  # the path stands at 1
    x_hat = exact.Gaussian(torch.zeros(1, dtype=F64), STD).denoise(z, logsnr)
    field = solve(IMAGE, x_hat, z, logsnr).flow
    assert field.mean().exp().item() == pytest.approx(1 / STD, rel=1e-6)


def test_flow_loss_is_the_weighted_noise_error():
    """||u - u_hat||^2 over uniform r, as an integral over logsnr, has w = exp(-logsnr / 2)."""
    r = torch.linspace(0.05, 0.95, 50, dtype=F64)
    logsnr = 2 * ((1 - r) / r).log()
    # path = (1 - r) x + r eps is known, so an error e of eps is an error -r e / (1 - r) of x.
    ratio = (1 + r / (1 - r)) ** 2
    dr_dlogsnr = r * (1 - r) / 2
    w = ratio * dr_dlogsnr
    torch.testing.assert_close(w / w[0], weighting.flow_matching(logsnr - logsnr[0]))
    ours = weighting.implied(FlowMatching(6.0, -6.0), FLOW, torch.ones_like)(logsnr)
    torch.testing.assert_close(ours / ours[0], w / w[0])
