"""Samplers on data whose every step is known."""

import math

import pytest
import torch

from vdm_lite import exact
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import diffuse, transition
from vdm_lite.parameterization import IMAGE, Prediction, solve
from vdm_lite.samplers import ancestral_step, ddim_step, sample
from vdm_lite.schedules import Linear, levels

F64 = torch.float64
SCHEDULE = Linear(9.0, -7.0)


def gaussian_model(std: float = 1.5, mean: float = 0.0) -> VariationalDiffusion:
    data = exact.Gaussian(torch.tensor([mean], dtype=F64), std)
    return VariationalDiffusion(data.denoise, SCHEDULE, IMAGE)


def prediction(z: torch.Tensor, logsnr: torch.Tensor) -> Prediction:
    return solve(IMAGE, exact.TWO_BUMPS.denoise(z, logsnr), z, logsnr)


def moments(step, z, logsnr_s, logsnr_t) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of a step from one z, by the noises 0 and 1 it is handed."""

    def fixed(value):
        def randn(shape, **options):
            options.pop("generator")
            return torch.full(shape, value, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", randn)
            return step(prediction(z, logsnr_t), z, logsnr_s)

    mean = fixed(0.0)
    return mean, fixed(1.0) - mean


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_the_ancestral_chain_of_gaussian_data_has_its_closed_form_variance(steps):
    """z_s = (k_z + k_x gain) z_t + noise, level by level, against many sampled chains."""
    std, n = 1.5, 20_000
    logsnr_s, logsnr_t = levels(SCHEDULE, steps, torch.empty((), dtype=F64))
    var = torch.ones((), dtype=F64)
    for s, t in zip(logsnr_s.flip(0), logsnr_t.flip(0), strict=True):
        a_s, a_t = torch.sigmoid(s).sqrt(), torch.sigmoid(t).sqrt()
        v_s, v_t = 1 - a_s**2, 1 - a_t**2
        gain = a_t * std**2 / (a_t**2 * std**2 + v_t)
        removed = 1 - (t - s).exp()
        slope = a_t / a_s * v_s / v_t + a_s * removed * gain
        var = slope**2 * var + v_s * removed
    model = VariationalDiffusion(exact.Gaussian(torch.zeros(1), std).denoise, SCHEDULE, IMAGE)
    *_, last = sample(model, (n, 1), steps, generator=torch.Generator().manual_seed(0))
    assert last.z.var().item() == pytest.approx(var.item(), rel=4 * math.sqrt(2 / n))


def ddim_slope(steps: int, std: float) -> torch.Tensor:
    """The map z_1 -> z_0 of DDIM on N(0, std^2) is linear; this is its factor."""
    logsnr_s, logsnr_t = levels(SCHEDULE, steps, torch.empty((), dtype=F64))
    (a_s, a_t), (s_s, s_t) = (
        [torch.sigmoid(sign * level).sqrt() for level in (logsnr_s, logsnr_t)] for sign in (1, -1)
    )
    x_hat = a_t * std**2 / (a_t**2 * std**2 + s_t**2)
    return (a_s * x_hat + s_s * (1 - a_t * x_hat) / s_t).prod()


def test_ddim_on_a_gaussian_is_linear_and_ends_by_moving_each_quantile():
    model = VariationalDiffusion(exact.Gaussian(torch.zeros(1), 1.5).denoise, SCHEDULE, IMAGE)
    z_1 = torch.randn((5, 1), generator=torch.Generator().manual_seed(0))
    *_, last = sample(model, (5, 1), 20, ddim_step, torch.Generator().manual_seed(0))
    torch.testing.assert_close(last.z, z_1 * ddim_slope(20, 1.5).float(), rtol=1e-4, atol=1e-5)
    a = torch.sigmoid(torch.tensor([9.0, -7.0], dtype=F64))
    spread = (a * 1.5**2 + 1 - a).sqrt()
    gap = [abs(ddim_slope(n, 1.5) - spread[0] / spread[1]).item() for n in (100, 1000)]
    assert gap[1] < gap[0] / 9 < 0.01


def test_an_ancestral_step_is_a_double_ddim_step_and_half_way_back():
    """lambda -> lambda + d equals DDIM to lambda + 2d, then noising back to lambda + d."""
    z = torch.tensor([[-1.3], [0.2], [2.0]], dtype=F64)
    t, s, far = torch.tensor([-1.0, -0.3, 0.4], dtype=F64)
    mean, std = moments(ancestral_step, z, s, t)
    scale, var = transition(far, s)
    torch.testing.assert_close(mean, scale * ddim_step(prediction(z, t), z, far))
    torch.testing.assert_close(std, var.sqrt().expand(3, 1))


def test_ddim_is_the_marginal_with_the_predicted_noise():
    z, t, s = torch.randn(3, 1, dtype=F64), *torch.tensor([-1.0, 0.5], dtype=F64)
    p = prediction(z, t)
    torch.testing.assert_close(ddim_step(p, z, s), diffuse(p.x, s, p.eps))
    torch.testing.assert_close(ddim_step(p, z, t), z)


def test_samples_of_the_two_bumps_follow_their_density():
    """The mean energy of samples equals the entropy, and both bumps are visited."""
    toy = exact.TWO_BUMPS
    model = VariationalDiffusion(toy.denoise, Linear(10.0, -8.0), IMAGE)
    *_, last = sample(model, (5000, 1), 300, generator=torch.Generator().manual_seed(0))
    assert last.t == 0
    cost = -toy.log_prob(last.x_hat.to(F64))
    assert abs(cost.mean() - toy.entropy()) < 4 * cost.std() / math.sqrt(5000)
    right = (last.x_hat > 0).double().mean().item()
    assert abs(right - 0.5) < 4 * 0.5 / math.sqrt(5000)


def test_states_tell_their_time_and_the_same_seed_gives_the_same_samples():
    model = VariationalDiffusion(exact.TWO_BUMPS.denoise, parameterization=IMAGE)
    first, second = (
        list(sample(model, (2, 1), 4, generator=torch.Generator().manual_seed(3))) for _ in "ab"
    )
    assert [state.t for state in first] == [0.75, 0.5, 0.25, 0.0]
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.z, b.z, rtol=0, atol=0)
    assert not first[0].z.requires_grad


@pytest.mark.parametrize(
    ("shape", "steps", "argument"),
    [
        ((2, 1), 0, "steps"),
        ((2, 1), 2.0, "steps"),
        ((2, 1), True, "steps"),
        ((0, 1), 2, "shape"),
        ((-2, 1), 2, "shape"),
        ((2.0, 1), 2, "shape"),
        ((), 2, "shape"),
    ],
)
def test_bad_input_is_named_at_the_call(shape, steps, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        sample(gaussian_model(), shape, steps)
