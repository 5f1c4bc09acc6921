"""The Gaussian core against textbook forms, in float64, and its precision in float32."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdm_lite import gaussian, schedules
from vdm_lite.gaussian import Normal

F64 = torch.float64
NORMAL = Normal(torch.zeros(3, 3), torch.ones(()))
EVENTS = st.lists(st.integers(1, 4), min_size=0, max_size=3)


def levels(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    logsnr_s = torch.linspace(10, -4, batch, dtype=F64)
    return logsnr_s, logsnr_s - torch.linspace(0.1, 3, batch, dtype=F64)


def table(logsnr):
    """alpha and sigma^2 as the tables of most code bases hold them."""
    signal = 1 / (1 + torch.exp(-logsnr))
    return signal.sqrt(), 1 - signal


def test_scales_preserve_variance_and_have_the_right_ratio():
    logsnr = torch.linspace(-15, 15, 31, dtype=F64)
    a, s = gaussian.alpha(logsnr), gaussian.sigma(logsnr)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))
    torch.testing.assert_close((a**2 / s**2).log(), logsnr)


def test_transition_equals_its_definition():
    logsnr_s, logsnr_t = levels()
    alpha_ts, var_ts = gaussian.transition(logsnr_s, logsnr_t)
    (alpha_s, var_s), (alpha_t, var_t) = table(logsnr_s), table(logsnr_t)
    torch.testing.assert_close(alpha_ts, alpha_t / alpha_s)
    torch.testing.assert_close(var_ts, var_t - (alpha_t / alpha_s) ** 2 * var_s)


def test_posterior_equals_the_product_of_two_gaussians():
    logsnr_s, logsnr_t = levels()
    z_t, x = torch.randn(2, 5, 3, dtype=F64)
    alpha_ts, var_ts = (v[:, None] for v in gaussian.transition(logsnr_s, logsnr_t))
    alpha_s, var_s = (v[:, None] for v in table(logsnr_s))
    precision = alpha_ts**2 / var_ts + 1 / var_s
    q = gaussian.posterior(z_t, x, logsnr_s, logsnr_t)
    torch.testing.assert_close(q.var, 1 / precision)
    torch.testing.assert_close(q.mean, (alpha_ts / var_ts * z_t + alpha_s / var_s * x) / precision)


def test_chain_and_top_down_product_are_the_same_joint():
    """Mean and full covariance of z_{0..4} given x, built both ways."""
    logsnr = schedules.Linear(6.0, -4.0)(torch.linspace(0, 1, 5, dtype=F64))
    x = torch.tensor(0.7, dtype=F64)
    chain = [torch.zeros(5, dtype=F64) for _ in logsnr]  # coefficients of 5 unit noises
    mean = [gaussian.alpha(level) * x for level in logsnr]
    chain[0][0] = gaussian.sigma(logsnr[0])
    for i in range(1, 5):
        scale, var = gaussian.transition(logsnr[i - 1], logsnr[i])
        chain[i] = scale * chain[i - 1]
        chain[i][i] = var.sqrt()
    down = [torch.zeros(5, dtype=F64) for _ in logsnr]
    down_mean = [torch.zeros((), dtype=F64) for _ in logsnr]
    down[4][4], down_mean[4] = gaussian.sigma(logsnr[4]), mean[4]
    for i in reversed(range(4)):
        q = gaussian.posterior(down_mean[i + 1][None], x[None], logsnr[i], logsnr[i + 1])
        slope = gaussian.posterior(torch.ones(1, dtype=F64), 0 * x[None], logsnr[i], logsnr[i + 1])
        down_mean[i], down[i] = q.mean[0], slope.mean[0] * down[i + 1]
        down[i][i] = q.var.sqrt()
    up, down = torch.stack(chain), torch.stack(down)
    torch.testing.assert_close(torch.stack(down_mean), torch.stack(mean))
    torch.testing.assert_close(down @ down.T, up @ up.T)


def test_posterior_variance_keeps_its_digits_in_float32():
    logsnr = schedules.Linear()(torch.linspace(0, 1, 1001))
    x = torch.zeros(1000, 1)
    got = gaussian.posterior(x, x, logsnr[:-1], logsnr[1:]).var[:, 0]
    exact_levels = logsnr.to(F64)
    want = gaussian.posterior(x.to(F64), x.to(F64), exact_levels[:-1], exact_levels[1:]).var[:, 0]
    error = (got.to(F64) / want - 1).abs().max().item()
    print(f"posterior variance, float32, 1000 steps: worst relative error {error:.1e}")
    assert error <= 1e-6


def test_kl_equals_torch_distributions():
    q = Normal(torch.randn(4, 3, dtype=F64), torch.rand(4, 3, dtype=F64) + 0.1)
    p = Normal(torch.randn(4, 3, dtype=F64), torch.rand(4, 1, dtype=F64) + 0.1)
    normals = [torch.distributions.Normal(n.mean, n.var.sqrt().expand(4, 3)) for n in (q, p)]
    want = torch.distributions.kl_divergence(*normals).sum(1)
    torch.testing.assert_close(gaussian.kl(q, p), want)
    torch.testing.assert_close(gaussian.kl(q, q), torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("var", [0.7, 1.7e-6, 1e-9])
def test_kl_keeps_its_digits_in_float32(var):
    """From a narrow q, such as q(z_0 | x), as well as from one close to p."""
    got = gaussian.kl(Normal(torch.ones(1, 1), torch.tensor(var)), Normal(*torch.ones(2, 1, 1)))
    exactly = torch.tensor(var).to(F64)  # the float32 number
    want = 0.5 * (exactly - 1 - exactly.log())
    torch.testing.assert_close(got.to(F64), want[None], rtol=1e-6, atol=0)


@settings(max_examples=40)
@given(
    batch=st.integers(1, 4),
    event=EVENTS,
    per_example=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_shapes_and_dtypes_follow_the_input(batch, event, per_example, dtype):
    x = torch.zeros(batch, *event, dtype=dtype)
    logsnr_s = torch.full((batch,) if per_example else (), 2.0, dtype=dtype)
    z = gaussian.diffuse(x, logsnr_s, x)
    q = gaussian.posterior(z, x, logsnr_s, logsnr_s - 1)
    assert z.shape == q.mean.shape == x.shape and z.dtype == q.mean.dtype == q.var.dtype == dtype
    assert torch.broadcast_shapes(q.var.shape, q.mean.shape) == q.mean.shape
    assert gaussian.kl(q, q).shape == (batch,)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: gaussian.alpha(torch.tensor([1, 2])), "logsnr"),
        (lambda: gaussian.alpha(torch.tensor(float("nan"))), "logsnr"),
        (lambda: gaussian.sigma(1.0), "logsnr"),
        (lambda: gaussian.diffuse(torch.ones(3, 2), torch.zeros(2), torch.ones(3, 2)), "logsnr"),
        (lambda: gaussian.diffuse(torch.ones(3), torch.zeros(3, 1), torch.ones(3)), "logsnr"),
        (lambda: gaussian.diffuse(torch.ones(3, 2), torch.zeros(3), torch.ones(3, 1)), "eps"),
        (lambda: gaussian.diffuse(torch.ones(3).int(), torch.zeros(3), torch.ones(3)), "x"),
        (lambda: gaussian.diffuse(torch.ones(0, 2), torch.zeros(()), torch.ones(0, 2)), "x"),
        (lambda: gaussian.draw(Normal(torch.ones(2, 3), -torch.ones(2, 3))), "q.var"),
        (lambda: gaussian.draw(Normal(torch.ones(2, 2), torch.ones(2))), "q.var"),
        (lambda: gaussian.draw(Normal(torch.ones(2, 3).int(), torch.ones(2, 3))), "q.mean"),
        (lambda: gaussian.log_prob(Normal(*torch.ones(2, 4, 3)), torch.ones(3, 4)), "q.mean"),
        (lambda: gaussian.log_prob(Normal(*torch.zeros(2, 4, 3)), torch.ones(4, 3)), "q.var"),
        (
            lambda: gaussian.kl(Normal(*torch.ones(2, 2, 3)), Normal(*torch.ones(2, 1, 1, 1))),
            "p.mean",
        ),
        (lambda: gaussian.transition(torch.zeros(()), torch.ones(())), "logsnr_t"),
        (lambda: gaussian.transition(torch.ones(2), torch.zeros(3)), "logsnr_t"),
        (lambda: gaussian.transition(torch.ones(3, 1), torch.zeros(3)), "logsnr_t"),
        (
            lambda: gaussian.posterior(torch.ones(3, 2), torch.ones(2, 3), *torch.zeros(2, 1)),
            "z_t",
        ),
        (
            lambda: gaussian.posterior(
                torch.full((3, 2), float("nan")), torch.ones(3, 2), *torch.zeros(2)
            ),
            "z_t",
        ),
        (
            lambda: gaussian.kl(
                Normal(torch.ones(2, 1), torch.zeros(2, 1)), Normal(torch.ones(2, 1), torch.ones(1))
            ),
            "q.var",
        ),
        (lambda: gaussian.kl(Normal(torch.ones(3, 3), torch.ones(3)), NORMAL), "q.var"),
        (lambda: gaussian.kl(Normal(torch.ones(3, 2), torch.ones(())), NORMAL), "p.mean"),
        (lambda: gaussian.kl(Normal(torch.ones(0, 3), torch.ones(())), NORMAL), "q.mean"),
        (
            lambda: gaussian.kl(Normal(math.nan * torch.ones(3, 3), torch.ones(())), NORMAL),
            "q.mean",
        ),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
