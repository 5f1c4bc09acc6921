"""Two independent code bases, azula and diffusers, must agree with us to their precision."""

import pytest
import torch

from vdm_lite import exact, gaussian
from vdm_lite.parameterization import IMAGE, NOISE, VELOCITY, solve, target
from vdm_lite.samplers import ancestral_step, ddim_step
from vdm_lite.schedules import Cosine, Linear

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
