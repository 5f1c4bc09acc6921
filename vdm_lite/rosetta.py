r"""Between this book's symbols and those of the literature (the page *Rosetta*).

One number, ``logsnr``, says how noisy a latent is; ``to_…`` functions turn it into what a paper
calls the noise level, ``from_…`` functions turn that back. Latents differ by one factor: for each
paper there is a scale c(logsnr) > 0 with::

    latent = c z = c alpha x + c sigma eps

``preserving`` is the c of VDM, DDPM and VP-SDE, ``exploding`` that of EDM and VE-SDE, ``straight``
that of flow matching. What a network predicts is a row of :mod:`vdm_lite.parameterization`.

Noise levels have shape () or (B,); latents have shape (B, ...).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.checks import checked, examples, floating, levels, positive, share
from vdm_lite.gaussian import alpha, expand, removed, sigma, transition
from vdm_lite.parameterization import FLOW, Parameterization
from vdm_lite.schedules import Schedule, rate

Scale = Callable[[Tensor], Tensor]


# VDM (Kingma et al. 2021)


@checked(logsnr=floating)
def to_gamma(logsnr: Tensor) -> Tensor:
    """VDM's noise variable ``gamma = -lambda`` (eq-rosetta-vdm); it rises with t."""
    return -logsnr


@checked(gamma=floating)
def from_gamma(gamma: Tensor) -> Tensor:
    """``lambda = -gamma``, the inverse of :func:`to_gamma`."""
    return -gamma


@checked(logsnr=floating)
def to_snr(logsnr: Tensor) -> Tensor:
    """The signal-to-noise ratio ``exp(lambda)`` (eq-rosetta-vdm)."""
    return torch.exp(logsnr)


@checked(snr=positive)
def from_snr(snr: Tensor) -> Tensor:
    """``lambda = log SNR``, the inverse of :func:`to_snr`. ``ValueError`` unless positive."""
    return torch.log(snr)


# DDPM (Ho et al. 2020)


@checked(logsnr=floating)
def to_alpha_bar(logsnr: Tensor) -> Tensor:
    """DDPM's ``alpha_bar = alpha^2 = sigmoid(lambda)`` (eq-rosetta-ddpm): a variance.

    Where it is close to 1 it holds few digits of the noise: compute ``1 - alpha_bar`` as
    ``to_alpha_bar(-logsnr)``.
    """
    return torch.sigmoid(logsnr)


@checked(alpha_bar=share)
def from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """``lambda = log alpha_bar - log(1 - alpha_bar)`` (eq-rosetta-ddpm).

    Raises ``ValueError`` unless 0 < alpha_bar < 1.
    """
    return alpha_bar.log() - torch.log1p(-alpha_bar)


@checked(logsnr=checks.row)
def to_betas(logsnr: Tensor) -> Tensor:
    """DDPM's table of step variances beta_1 … beta_T for falling levels, (T,) to (T,).

    ``beta_i = 1 - alpha_bar_i / alpha_bar_{i-1}`` is the variance of the step from the level
    before (:func:`vdm_lite.gaussian.transition`); the first step starts at the data. Raises
    ``ValueError`` for another shape and where the levels rise.
    """
    _, var = transition(logsnr[:-1], logsnr[1:])
    return torch.cat([torch.sigmoid(-logsnr[:1]), var])


@checked(betas=checks.shares)
def from_betas(betas: Tensor) -> Tensor:
    """The levels of DDPM's table beta_1 … beta_T, (T,) to (T,) (eq-rosetta-betas).

    ``-log alpha_bar_t = -sum_{i <= t} log1p(-beta_i)``, then :func:`from_integrated_beta`: no
    product of numbers close to 1 is formed. ``ValueError`` unless (T,) and 0 < beta < 1.
    """
    return from_integrated_beta.formula(-torch.log1p(-betas).cumsum(0))


@checked(logsnr_s=floating, logsnr_t=(checks.noisier, "logsnr_s"))
def beta_tilde(logsnr_s: Tensor, logsnr_t: Tensor) -> Tensor:
    """DDPM's posterior variance ``-sigma_s^2 expm1(lambda_t - lambda_s)`` (eq-rosetta-beta-tilde).

    In their symbols ``(1 - alpha_bar_s) / (1 - alpha_bar_t) * beta_t``; the shape is that of the
    levels, () or (B,). Raises ``ValueError`` unless ``logsnr_s >= logsnr_t``.
    """
    return torch.sigmoid(-logsnr_s) * removed.formula(logsnr_s, logsnr_t)


# Score-SDE (Song et al. 2021)


@checked(logsnr=floating)
def to_integrated_beta(logsnr: Tensor) -> Tensor:
    """``∫_0^t beta = -log alpha_t^2 = softplus(-lambda)`` of the VP-SDE (eq-rosetta-beta)."""
    return torch.nn.functional.softplus(-logsnr)


@checked(integral=positive)
def from_integrated_beta(integral: Tensor) -> Tensor:
    """``lambda = -log expm1(∫_0^t beta)``, the inverse of :func:`to_integrated_beta`.

    Written as ``-B - log(-expm1(-B))``, which neither overflows nor cancels. Raises
    ``ValueError`` unless the integral B is positive.
    """
    return -integral - torch.log(-torch.expm1(-integral))


def sde(scale: Scale, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """``(f, g^2)`` of dy = f y dt + g dw for the rescaled latent ``y = c z`` (eq-rosetta-sde).

    ``f = d log(c alpha)/dt`` and ``g^2 = -(c sigma)^2 dlambda/dt``, each with the shape of ``t``,
    () or (B,). With ``preserving`` it is the SDE of chapter 4 (eq-sde) and g^2 = beta(t) = -2f;
    with ``exploding``, f = 0. Raises ``ValueError`` where the schedule rises.
    """
    logsnr, slope = (value.reshape(-1) for value in rate(schedule, t))

    def log_signal(level: Tensor) -> Tensor:
        return (scale(level) * alpha(level)).log()

    _, f = torch.func.jvp(log_signal, (logsnr,), (slope,))  # type: ignore[misc]
    g2 = -(scale(logsnr) * sigma(logsnr)).square() * slope
    return f.reshape(t.shape), g2.reshape(t.shape)


# Latents: one scale for each paper


def preserving(logsnr: Tensor) -> Tensor:
    """``c = 1``: VDM, DDPM and VP-SDE use the latent of this book."""
    return torch.ones_like(logsnr)


@checked(logsnr=floating)
def exploding(logsnr: Tensor) -> Tensor:
    """``c = 1 / alpha``: the latent ``x + sigma_edm eps`` of EDM and VE-SDE (eq-rosetta-edm)."""
    return 1 / alpha.formula(logsnr)


@checked(logsnr=floating)
def straight(logsnr: Tensor) -> Tensor:
    """``c = 1 / (alpha + sigma)``: flow matching's ``(1 - r) x + r eps`` (eq-rosetta-flow).

    Its velocity in r is ``eps - x``, the output FLOW (eq-rosetta-velocity).
    """
    return 1 / (alpha.formula(logsnr) + sigma.formula(logsnr))


@checked(z=examples, logsnr=(levels, "z"))
def to_latent(scale: Scale, z: Tensor, logsnr: Tensor) -> Tensor:
    """``c z`` (eq-rosetta-latent), for ``z`` of shape (B, ...) and ``logsnr`` () or (B,).

    A denoiser of the one latent is one of the other (eq-rescaling).
    """
    return expand(scale(logsnr), z) * z


@checked(latent=examples, logsnr=(levels, "latent"))
def from_latent(scale: Scale, latent: Tensor, logsnr: Tensor) -> Tensor:
    """``z = latent / c``, the inverse of :func:`to_latent`."""
    return latent / expand(scale(logsnr), latent)


@checked(score=examples, logsnr=(levels, "score"))
def to_score(scale: Scale, score: Tensor, logsnr: Tensor) -> Tensor:
    """The score of the rescaled latent: that of z, divided by c (eq-rosetta-score).

    A change of variables divides the gradient where it multiplies the latent.
    """
    return from_latent.formula(scale, score, logsnr)


@checked(score=examples, logsnr=(levels, "score"))
def from_score(scale: Scale, score: Tensor, logsnr: Tensor) -> Tensor:
    """The score of z: ``c`` times that of the latent ``c z``, the inverse of :func:`to_score`."""
    return to_latent.formula(scale, score, logsnr)


# EDM (Karras et al. 2022), and the sigma of VE-SDE


@checked(logsnr=floating)
def to_edm_sigma(logsnr: Tensor) -> Tensor:
    """EDM's noise level ``exp(-lambda / 2)``, which is sigma / alpha here (eq-rosetta-edm)."""
    return torch.exp(-logsnr / 2)


@checked(edm_sigma=positive)
def from_edm_sigma(edm_sigma: Tensor) -> Tensor:
    """``lambda = -2 log sigma``, the inverse of :func:`to_edm_sigma`. ``ValueError`` unless > 0."""
    return -2 * torch.log(edm_sigma)


@checked(data_std=checks.positive_number, z=examples, logsnr=(levels, "z"))
def edm_input(z: Tensor, logsnr: Tensor, data_std: float = 0.5) -> tuple[Tensor, Tensor]:
    """What EDM feeds its network F: ``(c_in z / alpha, c_noise)`` (eq-rosetta-edm-input).

    ``c_in z / alpha = z / sqrt(data_std^2 alpha^2 + sigma^2)`` has the shape of ``z`` (B, ...), and
    variance 1 if the data have mean 0 and standard deviation ``data_std``; ``c_noise =
    log(sigma_edm) / 4 = -lambda / 8`` has the shape of ``logsnr``. What F returns is the row
    ``parameterization.edm(data_std)``. Raises ``ValueError`` unless ``data_std`` is positive.
    """
    var = (data_std * alpha.formula(logsnr)).square() + sigma.formula(logsnr).square()
    return z / expand.formula(var.sqrt(), z), -logsnr / 8


# Flow matching (Lipman et al. 2023; Liu et al. 2023)


@checked(logsnr=floating)
def to_flow_time(logsnr: Tensor) -> Tensor:
    """Time on the straight path, ``r = sigma / (alpha + sigma) = sigmoid(-lambda / 2)``.

    r = 0 is data and r = 1 is noise, as everywhere in this book (eq-rosetta-flow).
    """
    return torch.sigmoid(-logsnr / 2)


@checked(r=share)
def from_flow_time(r: Tensor) -> Tensor:
    """``lambda = 2 log((1 - r) / r)``, the inverse of :func:`to_flow_time`.

    Raises ``ValueError`` unless 0 < r < 1.
    """
    return 2 * (torch.log1p(-r) - r.log())


@checked(logsnr=floating)
def to_reversed_flow_time(logsnr: Tensor) -> Tensor:
    """``1 - r = sigmoid(lambda / 2)``: 0 is noise and 1 is data (eq-rosetta-reversed)."""
    return torch.sigmoid(logsnr / 2)


@checked(time=share)
def from_reversed_flow_time(time: Tensor) -> Tensor:
    """``lambda = 2 log(time / (1 - time))``, the inverse of :func:`to_reversed_flow_time`.

    Raises ``ValueError`` unless 0 < time < 1.
    """
    return 2 * (time.log() - torch.log1p(-time))


REVERSED_FLOW = Parameterization("reversed flow", FLOW.b, FLOW.a)
