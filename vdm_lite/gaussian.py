r"""The Gaussian core: every distribution of the forward process, written in ``logsnr``.

The setting. ``logsnr`` is lambda_t = log(alpha_t^2 / sigma_t^2); it falls from t = 0 (clean) to
t = 1 (noise), so for s < t we have ``logsnr_s >= logsnr_t``. The process is variance preserving::

    alpha_t^2 = sigmoid(lambda_t),    sigma_t^2 = sigmoid(-lambda_t),    alpha_t^2 + sigma_t^2 = 1
    q(z_t | x)      = N(alpha_t x, sigma_t^2 I)
    q(z_t | z_s)    = N(alpha_{t|s} z_s, sigma_{t|s}^2 I)
    q(z_s | z_t, x) = N(mu_Q, sigma_Q^2 I)

Noise levels have shape () or (B,); data and latents have shape (B, ...), and nothing here looks
past the batch axis.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vdm_lite import checks, randomness
from vdm_lite.checks import checked, examples, examples_as, floating, levels, noisier, shaped_as
from vdm_lite.randomness import Generator


class Normal(NamedTuple):
    """A Gaussian with independent coordinates; ``var`` broadcasts against ``mean``."""

    mean: Tensor
    var: Tensor


@checked(value=(checks.aligned, "like"))
def expand(value: Tensor, like: Tensor) -> Tensor:
    """Give ``value`` of shape () or (B,) the trailing axes it needs against ``like`` (B, ...)."""
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def sum_except_batch(value: Tensor) -> Tensor:
    """Sum (B, ...) over everything but the batch: (B,)."""
    return value.reshape(len(value), -1).sum(1)


@checked(logsnr=floating)
def alpha(logsnr: Tensor) -> Tensor:
    """Signal scale ``sqrt(sigmoid(logsnr))``, same shape as ``logsnr`` (eq-variance-preserving)."""
    return torch.sigmoid(logsnr).sqrt()


@checked(logsnr=floating)
def sigma(logsnr: Tensor) -> Tensor:
    """Noise scale ``sqrt(sigmoid(-logsnr))``, same shape as ``logsnr``.

    ``log(alpha^2 / sigma^2)`` is ``logsnr`` again (eq-logsnr), and ``alpha^2 + sigma^2 = 1``
    (eq-variance-preserving).
    """
    return torch.sigmoid(-logsnr).sqrt()


@checked(x=examples, eps=(shaped_as, "x"), logsnr=(levels, "x"))
def diffuse(x: Tensor, logsnr: Tensor, eps: Tensor) -> Tensor:
    """Draw from q(z_t | x) with given noise: ``z_t = alpha_t x + sigma_t eps`` (eq-marginal).

    ``x`` and ``eps`` have shape (B, ...), ``logsnr`` () or (B,); the result has the shape of ``x``.
    Raises ``ValueError`` for other shapes, an empty batch, integers, NaN or infinity.
    """
    logsnr = expand.formula(logsnr, x)
    return alpha.formula(logsnr) * x + sigma.formula(logsnr) * eps


@checked(logsnr_s=floating, logsnr_t=(noisier, "logsnr_s"))
def removed(logsnr_s: Tensor, logsnr_t: Tensor) -> Tensor:
    """The share of noise variance that one step back removes, ``c = -expm1(lambda_t - lambda_s)``.

    It lies in [0, 1] (eq-removed). ``expm1`` keeps its digits when the two levels are close; the
    textbook form ``1 - exp(...)`` loses them in float32. Raises ``ValueError`` unless s is the less
    noisy level and two batches of levels have one size.
    """
    return -torch.expm1(logsnr_t - logsnr_s)


@checked(logsnr_s=floating, logsnr_t=(noisier, "logsnr_s"))
def transition(logsnr_s: Tensor, logsnr_t: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and variance of q(z_t | z_s) = N(alpha_ts z_s, var_ts I) (eq-transition).

    Two of them in a row are one (eq-chapman-kolmogorov).

    ``alpha_ts = alpha_t / alpha_s`` and ``var_ts = sigma_t^2 - alpha_ts^2 sigma_s^2
    = -sigma_t^2 expm1(lambda_t - lambda_s)``; both have the shape of the levels, () or (B,).
    Raises ``ValueError`` unless ``logsnr_s >= logsnr_t``.
    """
    alpha_ts = alpha.formula(logsnr_t) / alpha.formula(logsnr_s)
    return alpha_ts, torch.sigmoid(-logsnr_t) * removed.formula(logsnr_s, logsnr_t)


@checked(
    x=floating, z_t=(examples_as, "x"), logsnr_s=(levels, "x"), logsnr_t=(noisier, "logsnr_s", "x")
)
def posterior(z_t: Tensor, x: Tensor, logsnr_s: Tensor, logsnr_t: Tensor) -> Normal:
    """The top-down posterior q(z_s | z_t, x) (eq-posterior).

    It is prior times likelihood (eq-posterior-bayes); their precisions add (eq-posterior-variance).
    A chain of posteriors from the top is the same joint as one of transitions from the bottom
    (eq-same-joint).

    Mean ``alpha_ts sigma_s^2 / sigma_t^2 z_t + alpha_s c x``, variance ``sigma_s^2 c`` with
    ``c = -expm1(lambda_t - lambda_s)``. ``z_t`` and ``x`` have shape (B, ...); the variance has
    shape () or (B, 1, ..., 1), so that it broadcasts against the mean.
    """
    logsnr_s, logsnr_t = expand.formula(logsnr_s, x), expand.formula(logsnr_t, x)
    alpha_s, alpha_t = alpha.formula(logsnr_s), alpha.formula(logsnr_t)
    var_s, var_t = torch.sigmoid(-logsnr_s), torch.sigmoid(-logsnr_t)
    c = removed.formula(logsnr_s, logsnr_t)
    return Normal(alpha_t / alpha_s * var_s / var_t * z_t + alpha_s * c * x, var_s * c)


@checked(q=checks.normals, p=(checks.normal, "q"))
def kl(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) of two Gaussians with independent coordinates, in nats per example: (B,).

    The sum of :func:`kl_per_unit`. Raises ``ValueError`` as it does.
    """
    return sum_except_batch(kl_per_unit.formula(q, p))


@checked(q=checks.normals, p=(checks.normal, "q"))
def kl_per_unit(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) of each coordinate, in nats, in the shape (B, ...) of q's mean (eq-gaussian-kl).

    ``1/2 (r - 1 - log r + (mean_q - mean_p)^2 / var_p)`` with ``r = var_q / var_p``.
    The mean of q has shape (B, ...); everything else broadcasts to it axis by axis, or is ().
    Raises ``ValueError`` for other shapes, and unless the variances are positive.
    """
    excess = (q.var - p.var) / p.var
    # log r by log1p where r is near 1; where r is small, r - 1 has lost the digits of r.
    log_r = torch.where(
        excess > -0.5, torch.log1p(excess.clamp(min=-0.5)), torch.log(q.var) - torch.log(p.var)
    )
    distance = (q.mean - p.mean).square() / p.var
    return 0.5 * (excess - log_r + distance)


@checked(q=checks.normal)
def draw(q: Normal, generator: Generator = None) -> Tensor:
    """One reparameterized draw ``mean + sqrt(var) eps``, shape of the mean (eq-reparameterization).

    Gradients flow through the draw into mean and variance. Raises ``ValueError`` for a variance of
    another shape and unless the variances are positive.
    """
    return q.mean + q.var.sqrt() * randomness.of(generator, like=q.mean).normal(q.mean.shape)


@checked(z=examples, q=(checks.normal, "z"))
def log_prob(q: Normal, z: Tensor) -> Tensor:
    """``log N(z; mean, var)`` of each coordinate, in nats, in the shape of ``z`` (B, ...).

    Raises ``ValueError`` for a mean of another shape and unless the variances are positive.
    """
    return -0.5 * ((z - q.mean).square() / q.var + q.var.log() + math.log(2 * math.pi))


def working_dtype(model: object, given: torch.dtype | None = None) -> torch.dtype:
    """What data, latents and costs are computed in: the dtype of the model's weights.

    Where there are none, that of what is ``given`` (by default torch's), at least float32. Raises
    ``ValueError`` for weights of less: costs need the digits, and ``torch.autocast`` runs the
    matrix products of a float32 network in bfloat16.
    """
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    weight = next(weights, None)
    if weight is None:
        return torch.promote_types(given or torch.get_default_dtype(), torch.float32)
    checks.precise("model", weight)
    return weight.dtype


def as_weights(data: Tensor, model: object) -> Tensor:
    """Floating-point ``data`` in the :func:`working_dtype` of ``model``; anything else as it is."""
    if not isinstance(data, Tensor) or not data.is_floating_point():
        return data
    return data.to(working_dtype(model, data.dtype))
