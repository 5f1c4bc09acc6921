r"""The variational autoencoder: one layer of latents, an encoder and a decoder.

::

    p(x, z) = N(z; 0, I) p(x | z),    q(z | x) = N(z; mean(x), diag var(x))
    -ELBO(x) = KL(q(z | x) || N(0, I)) + E_q[-log p(x | z)]

Everything is per example and in nats; the caller reduces. Any model here trains with
:func:`.fit`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.checks import checked
from vdm_lite.elbo import Elbo
from vdm_lite.gaussian import (
    Normal,
    as_weights,
    draw,
    kl,
    kl_per_unit,
    log_prob,
    sum_except_batch,
    working_dtype,
)
from vdm_lite.observation import Observation

Network = Callable[[Tensor], Tensor]
MIN_VARIANCE = 1e-4  # so that no divergence between two units can overflow


def to_normal(output: Tensor, units: int, argument: str = "output") -> Normal:
    """Read a network's output (B, 2 units): means, then r with ``var = softplus(r) + 1e-4``.

    ``softplus`` grows only linearly: the exponential of a log-variance overflows when a deep
    hierarchy goes astray. ``ValueError``, naming the ``argument``, for any other shape.
    """
    checks.floating(argument, output)
    expected = f"(B, {2 * units}): means and raw variances of {units} units"
    checks.sizes(argument, output, ("B", 2 * units), expected)
    mean, raw = output.chunk(2, dim=1)
    return Normal(mean, F.softplus(raw) + MIN_VARIANCE)


def standard_normal(like: Tensor) -> Normal:
    """The prior N(0, I) for latents in the shape of ``like``."""
    return Normal(torch.zeros_like(like), torch.ones_like(like))


@checked(costs=checks.matrix)
def active_units(costs: Tensor, threshold: float = 0.01) -> int:
    """How many units cost more than ``threshold`` nats on average over examples: costs (N, units).

    A unit whose posterior equals the prior for every x costs nothing and carries nothing. (The
    criterion of Sonderby et al. 2016; Burda et al. 2016 ask for Var_x of the mean > 0.01 instead.)
    The costs must be divergences: below the top of a bottom-up hierarchy they are not, and a unit
    that carries information may cost less than nothing (eq-bottom-up-cost).
    """
    return int((costs.mean(0) > threshold).sum())


class LatentModel(nn.Module):
    """What every latent variable model can do, given ``elbo``, ``log_weight`` and ``generate``."""

    observation: Observation
    decoder: Network

    def elbo(self, data: Tensor, generator: torch.Generator | None = None) -> Elbo:
        """One-sample estimate of the costs, in nats."""
        raise NotImplementedError

    def log_weight(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log p(x, z) - log q(z | x)`` for one draw of all latents, in nats: (B,)."""
        raise NotImplementedError

    def generate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``observation.mean`` for ``n`` draws of the latents from the prior: (n, ...)."""
        raise NotImplementedError

    def loss(
        self, data: Tensor, beta: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """``reconstruction + beta (all KL costs)``, in nats: (B,). With beta = 1, ``-ELBO``.

        For Gaussian data, beta acts like wider noise in the decoder (eq-beta-noise). Raises
        ``ValueError`` for a negative beta.
        """
        checks.require(beta >= 0, "beta", "a number >= 0", beta)
        costs = self.elbo(data, generator)
        return costs.reconstruction + beta * (costs.nelbo - costs.reconstruction)

    def importance_bound(
        self, data: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Estimate IWAE_k, in nats: (B,) (eq-iwae).

        ``log 1/k sum_i p(x, z_i) / q(z_i | x)`` for k draws of q (Burda et al. 2016). Its mean is a
        lower bound of ``log p(x)`` that never falls with k; k = 1 gives the ELBO. Raises
        ``ValueError`` for ``k < 1``.
        """
        checks.count("k", k)
        weights = torch.stack([self.log_weight(data, generator) for _ in range(k)])
        return weights.logsumexp(0) - math.log(k)

    def encode(self, data: Tensor) -> Tensor:
        """Data as floats in the dtype of the model's weights; without any, floats keep theirs."""
        x = self.observation.encode(data)
        return as_weights(x, self)

    def reconstruction(self, data: Tensor, z: Tensor) -> Tensor:
        """``-log p(x | z)`` of the layer next to the data, in nats: (B,)."""
        return -self.observation.log_prob(as_weights(data, self), self.decoder(z))

    def draw_prior(self, n: int, units: int, generator: torch.Generator | None) -> Tensor:
        """``n`` draws of N(0, I) where the model's parameters are, (n, units)."""
        checks.count("n", n)
        device = next(self.parameters(), torch.empty(0)).device
        dtype = working_dtype(self)
        return torch.randn(n, units, generator=generator, dtype=dtype, device=device)


class VAE(LatentModel):
    """A VAE around an ``encoder(x) -> (B, 2 latents)`` and a ``decoder(z) -> output``.

    The encoder gives what :func:`to_normal` reads; ``observation`` says what the data are, and how
    they follow from the decoder's output.
    """

    def __init__(
        self, encoder: Network, decoder: Network, observation: Observation, latents: int
    ) -> None:
        super().__init__()
        latents = checks.count("latents", latents)
        checks.function("encoder", encoder, "x -> output")
        checks.function("decoder", decoder, "z -> output")
        checks.observation("observation", observation)
        self.encoder, self.decoder = encoder, decoder
        self.observation, self.latents = observation, latents

    def posterior(self, data: Tensor) -> Normal:
        """The approximate posterior q(z | x), (B, latents)."""
        return to_normal(self.encoder(self.encode(data)), self.latents, "encoder(x)")

    def elbo(self, data: Tensor, generator: torch.Generator | None = None) -> Elbo:
        """The two costs, (B,) each (eq-vae-elbo); ``diffusion`` is empty, (B, 0): one layer only.

        ``prior`` is the KL in closed form (eq-gaussian-kl), ``reconstruction`` uses one draw of z.
        """
        q = self.posterior(data)
        reconstruction = self.reconstruction(data, draw.formula(q, generator))
        prior = kl.formula(q, standard_normal(q.mean))
        return Elbo(prior, reconstruction, prior.new_zeros(len(prior), 0))

    def unit_costs(self, data: Tensor) -> Tensor:
        """``KL(q(z_j | x) || N(0, 1))`` of each unit j, in nats: (B, latents)."""
        q = self.posterior(data)
        return kl_per_unit.formula(q, standard_normal(q.mean))

    def log_weight(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log p(x, z) - log q(z | x)`` for one draw z, in nats: (B,)."""
        q = self.posterior(data)
        z = draw.formula(q, generator)
        ratio = log_prob.formula(standard_normal(z), z) - log_prob.formula(q, z)
        return sum_except_batch(ratio) - self.reconstruction(data, z)

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``observation.mean`` for ``n`` draws of z from the prior: (n, ...)."""
        return self.observation.mean(self.decoder(self.draw_prior(n, self.latents, generator)))
