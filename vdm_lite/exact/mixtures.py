r"""Data distributions whose every diffusion quantity is known: the truths of the book.

One family serves all: a mixture of isotropic Gaussians, in any number of dimensions,

    q(x) = sum_k w_k N(x; m_k, s_k^2 I),    q(z_t) = sum_k w_k N(z_t; alpha m_k, v_k I),
    v_k = alpha^2 s_k^2 + sigma^2.

One component is a Gaussian; components without width (s_k = 0) are finite data. ``denoise`` is the
posterior mean E[x | z_t], the best denoiser there is, so it can stand in for a trained network.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.gaussian import alpha, diffuse, expand, sigma
from vdm_lite.quadrature import normal

Conditional = Callable[[Tensor, Tensor], Tensor]  # (z, logsnr) -> (B,)


class GaussianMixture:
    """``sum_k w_k N(m_k, s_k^2 I)`` with weights (K,), means (K, ...) and widths stds (K,).

    Raises ``ValueError`` unless the weights are positive and sum to one and the widths are >= 0.
    """

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        checks.mixture(weights, means, stds)
        self.weights, self.means, self.stds = weights, means, stds
        self.event_shape = means.shape[1:]
        self.dims = self.event_shape.numel()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` examples: (n, ...), with the dtype and device of the means."""
        checks.count("n", n)
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        means = self.means[chosen]
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        return means + expand.formula(self.stds[chosen], means) * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """``log q(x)`` in nats, (B,). Finite data have no density: ``ValueError``."""
        wide = bool((self.stds > 0).all())
        checks.require(wide, "stds", "positive widths for a density", "a component of width 0")
        self._check(x)
        one = x.new_ones(())
        return self._terms(x, one, 0 * one).log_joint.logsumexp(1)

    def log_marginal(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """``log q(z_t)`` in nats, (B,), for latents ``z`` (B, ...) at levels () or (B,)."""
        return self._at(z, logsnr).log_joint.logsumexp(1)

    def energy(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """``E(z_t) = -log q(z_t)``, (B,): the energy whose negative gradient is the score.

        A walk along the score gives its differences back (eq-climb).
        """
        return -self.log_marginal(z, logsnr)

    def score(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """Gradient of ``log q(z_t)``: ``sum_k r_k (alpha m_k - z) / v_k``, shape of ``z``.

        It is the mean of the scores of q(z_t | x) over q(x | z_t) (eq-optimal-score).
        """
        terms = self._at(z, logsnr)
        return -_mix(terms.share / terms.var, terms.offset).reshape(z.shape)

    def denoise(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """The posterior mean ``E[x | z_t]``, the least-squares denoiser, shape of ``z``.

        No step of a model costs less than with this x_hat (eq-supervised).

        ``sum_k r_k (m_k + alpha s_k^2 / v_k (z - alpha m_k))``, r_k the share of component k.
        """
        terms = self._at(z, logsnr)
        return _mix(terms.share, self._component_means(terms)).reshape(z.shape)

    def posterior_variance(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """``E[||x - E[x|z_t]||^2 | z_t]``, the error that no denoiser can avoid, (B,)."""
        terms = self._at(z, logsnr)
        means = self._component_means(terms)
        between = (means - _mix(terms.share, means).unsqueeze(1)).square().sum(-1)
        within = self.dims * (terms.stds * terms.noise).square() / terms.var
        return (terms.share * (within + between)).sum(1)

    def _posterior_fourth(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """``E[(x - E[x|z_t])^4 | z_t]`` of one-dimensional data, (B,)."""
        terms = self._at(z, logsnr)
        means = self._component_means(terms)
        offset = (means - _mix(terms.share, means).unsqueeze(1)).squeeze(-1).square()
        within = (terms.stds * terms.noise).square() / terms.var
        # E (d + s n)^4 = d^4 + 6 d^2 s^2 + 3 s^4 for n ~ N(0, 1)
        fourth = offset.square() + 6 * offset * within + 3 * within.square()
        return (terms.share * fourth).sum(1)

    def mmse(self, logsnr: Tensor) -> Tensor:
        """``E||x - E[x|z_t]||^2`` at levels () or (N,), by quadrature, same shape as the levels.

        It falls with the SNR (eq-mmse-falls); another denoiser adds its squared distance from the
        best one (eq-excess).

        Computed in the dtype of ``logsnr``: give it float64 for exact numbers. Closed form for one
        component; otherwise for one-dimensional data only (``ValueError`` beyond: use
        ``mmse_monte_carlo``).
        """
        checks.floating("logsnr", logsnr)
        if len(self.weights) == 1:
            z = logsnr.new_zeros((logsnr.numel(), *self.event_shape))
            return self.posterior_variance(z, logsnr.reshape(-1)).reshape(logsnr.shape)
        return self._expected_1d("mmse", self.posterior_variance, logsnr)

    def fourth_moment(self, logsnr: Tensor) -> Tensor:
        """``E (x - E[x|z_t])^4`` at levels () or (N,), by quadrature, same shape as the levels.

        What the variance of a one-sample loss needs. One-dimensional data only: ``ValueError``.
        """
        checks.floating("logsnr", logsnr)
        # Sharper between the bumps than the variance is, so on more nodes: relative error 1e-6.
        return self._expected_1d("fourth_moment", self._posterior_fourth, logsnr, nodes=151)

    def _expected_1d(self, name: str, of: Conditional, logsnr: Tensor, nodes: int = 91) -> Tensor:
        """Expectation over z_t of ``of(z, logsnr)`` -> (B,), at each level, same shape."""
        checks.require(self.dims == 1, name, "one-dimensional data", f"{self.dims} dimensions")
        chunks = logsnr.reshape(-1).split(16)  # small enough for the cache
        return torch.cat([self._over_z(of, chunk, nodes) for chunk in chunks]).reshape(logsnr.shape)

    def _over_z(self, of: Conditional, logsnr: Tensor, nodes: int) -> Tensor:
        points, node_weights = (value.to(logsnr) for value in normal(nodes))
        level = logsnr.reshape(-1, 1, 1)
        scale = alpha.formula(level)
        width = scale * self.stds.to(level).reshape(-1, 1)
        std = (width.square() + sigma.formula(level).square()).sqrt()
        z = scale * self.means.to(level).reshape(-1, 1) + std * points  # (N, K, nodes)
        value = of(z.reshape(-1, *self.event_shape), level.expand(z.shape).reshape(-1))
        # No matmul, which autocast would do in bfloat16.
        each = (value.reshape(z.shape) * node_weights).sum(-1)  # (N, K)
        return (each * self.weights.to(level)).sum(-1)

    def mmse_monte_carlo(
        self, logsnr: Tensor, samples: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimate of ``mmse`` at one level (), and its standard error, for any dimension."""
        x = self.sample(samples, generator)
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        error = self.posterior_variance(diffuse(x, logsnr, eps), logsnr)
        return error.mean(), error.std() / math.sqrt(samples)

    def entropy(self) -> Tensor:
        """``E[-log q(x)]`` of one-dimensional data, in nats, by quadrature: ().

        The blur that a last level leaves is a difference of two entropies (eq-floor).
        """
        checks.require(self.dims == 1, "entropy", "one-dimensional data", f"{self.dims} dimensions")
        nodes, node_weights = (value.to(self.means) for value in normal())
        x = self.means.reshape(-1, 1) + self.stds.reshape(-1, 1) * nodes  # (K, nodes)
        log_prob = self.log_prob(x.reshape(-1, *self.event_shape)).reshape(x.shape)
        return -(self.weights @ (log_prob @ node_weights))

    def _check(self, z: Tensor) -> None:
        checks.examples("z", z)
        checks.sizes("z", z, ("B", *self.event_shape))

    def _at(self, z: Tensor, logsnr: Tensor) -> "_Terms":
        """The terms of latents ``z`` (B, ...) at levels () or (B,)."""
        self._check(z)
        checks.levels("logsnr", logsnr, z)
        return self._terms(z, alpha.formula(logsnr), sigma.formula(logsnr))

    def _terms(self, z: Tensor, scale: Tensor, noise: Tensor) -> "_Terms":
        """What every formula above needs to know about each (example, component) pair."""
        flat, stds = z.reshape(len(z), -1), self.stds.to(z)
        scale, noise = expand.formula(scale, flat), expand.formula(noise, flat)
        var = (scale * stds).square() + noise.square()
        offset = flat.unsqueeze(1) - scale.unsqueeze(-1) * self.means.to(z).reshape(-1, self.dims)
        distance = offset.square().sum(-1) / var + self.dims * (2 * math.pi * var).log()
        log_joint = self.weights.to(z).log() - 0.5 * distance
        return _Terms(log_joint, log_joint.softmax(1), offset, scale, noise, var, stds)

    def _component_means(self, terms: "_Terms") -> Tensor:
        """``E[x | z_t, component k]``: (B, K, D)."""
        gain = terms.scale * terms.stds.square() / terms.var
        return self.means.to(gain).reshape(-1, self.dims) + gain.unsqueeze(-1) * terms.offset


class _Terms(NamedTuple):
    log_joint: Tensor  # log w_k + log N(z; alpha m_k, v_k I), (B, K)
    share: Tensor  # r_k, the probability of component k given z, (B, K)
    offset: Tensor  # z - alpha m_k, (B, K, D)
    scale: Tensor  # alpha, (B, 1) or ()
    noise: Tensor  # sigma, (B, 1) or ()
    var: Tensor  # v_k, (B, K) or (K,)
    stds: Tensor  # s_k, (K,)


def _mix(share: Tensor, values: Tensor) -> Tensor:
    """``sum_k share_k values_k``: (B, K) and (B, K, D) to (B, D)."""
    return (share.unsqueeze(-1) * values).sum(1)


class Gaussian(GaussianMixture):
    """``N(mean, std^2 I)``: the one-component mixture; ``mmse = D std^2 / (1 + std^2 SNR)``.

    With this error (eq-gaussian-mmse) the limit of the diffusion cost (eq-gaussian-limit), how fast
    it is reached (eq-gaussian-rate), the cost down to a level (eq-gaussian-cost) and two weighted
    losses (eq-gaussian-sigmoid), (eq-gaussian-flow) are known in closed form.
    """

    def __init__(self, mean: Tensor, std: float) -> None:
        checks.floating("mean", mean)
        one = mean.new_ones(1)
        super().__init__(one, mean.unsqueeze(0), std * one)


class FiniteData(GaussianMixture):
    """Data that are one of N points (N, ...), each with its probability (N,).

    For two pixels the best denoiser is a pixel's own evidence times what the other says
    (eq-pixel-posterior).
    """

    def __init__(self, points: Tensor, weights: Tensor | None = None) -> None:
        checks.examples("points", points)
        weights = points.new_full((len(points),), 1 / len(points)) if weights is None else weights
        super().__init__(weights, points, torch.zeros_like(weights))

    def entropy(self) -> Tensor:
        """``-sum_k w_k log w_k`` in nats: ().

        No bound of discrete data lies lower (eq-discrete-floor).
        """
        return torch.special.entr(self.weights).sum()


# On the CPU whatever the default device is: not every accelerator has float64.
F64: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


def _two_bumps() -> GaussianMixture:
    means = torch.tensor([[-1.0], [1.0]], **F64)
    half = torch.full((2,), 0.5, **F64)
    return GaussianMixture(half, means, 0.3 * half)


def _eight_levels() -> FiniteData:
    points = (2 * torch.arange(8, **F64)[:, None] + 1) / 8 - 1
    weights = [0.3, 0.02, 0.05, 0.2, 0.02, 0.01, 0.3, 0.1]
    return FiniteData(points, torch.tensor(weights, **F64))


TWO_BUMPS = _two_bumps()
"""Equal halves at -1 and 1, each of width 0.15."""
EIGHT_LEVELS = _eight_levels()
"""A discrete toy on the grid of ``likelihood.Discretized(8)``."""
