r"""Hierarchies of latents: one generative model, two directions of inference.

::

    p(x, z_{1:T}) = N(z_T; 0, I) prod_{t=T..2} p(z_{t-1} | z_t) p(x | z_1)
    bottom-up    q = q(z_1 | x) prod_{t=2..T} q(z_t | z_{t-1})
    top-down     q = q(z_T | x) prod_{t=T..2} q(z_{t-1} | z_t, x)

Layers are vectors (B, n_t), every distribution is a Gaussian with independent coordinates, and
lists run from z_1, next to the data, to z_T on top.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.checks import checked
from vdm_lite.elbo import Elbo
from vdm_lite.gaussian import Normal, draw, kl_per_unit, log_prob
from vdm_lite.observation import Observation
from vdm_lite.vae import LatentModel, standard_normal, to_normal


@checked(a=checks.normal, b=(checks.normals_as, "a"))
def merge(a: Normal, b: Normal) -> Normal:
    """The normalized product of two Gaussian densities: precisions add (eq-merge).

    ``1/var = 1/var_a + 1/var_b`` and ``mean/var = mean_a/var_a + mean_b/var_b``, for means and
    variances of one shape (B, ...). Raises ``ValueError`` unless the variances are positive.
    """
    # No division by a precision, which may underflow to 0; no 1 - share, which may round to 0.
    share_a, share_b = b.var / (a.var + b.var), a.var / (a.var + b.var)
    return Normal(share_a * a.mean + share_b * b.mean, share_a * a.var)


def to_message(output: Tensor, units: int, argument: str = "output") -> Normal:
    """Read a network's output (B, 2 units) as a message N((1 + v) a, v): a, and v as softplus^{-1}.

    Merged with N(0, 1) it gives the mean ``a`` and the variance ``v / (1 + v)``, whatever v is. (A
    message with mean ``a`` itself would lose its gradient as v grows, and a unit that once fell
    silent could not come back.) ``ValueError``, naming the ``argument``, for any other shape.
    """
    a, var = to_normal(output, units, argument)
    return Normal((1 + var) * a, var)


class Layer(NamedTuple):
    """One layer: a draw of it, the q that it came from, and p given the layer above."""

    z: Tensor
    q: Normal
    p: Normal

    def log_ratio(self) -> Tensor:
        """``log q - log p`` of each unit at the draw, in nats: (B, n_t)."""
        return log_prob.formula(self.q, self.z) - log_prob.formula(self.p, self.z)


class Hierarchy(LatentModel):
    """The generative half, and what follows from any :meth:`infer`.

    The joint is the product of the steps (eq-hierarchy).

    ``decoders`` are z_1 -> output, z_2 -> (B, 2 n_1), …: the last T - 1 give what
    :func:`vdm_lite.vae.to_normal` reads, for the layer below. ``sizes`` are n_1, …, n_T.
    """

    def __init__(
        self, decoders: Sequence[nn.Module], observation: Observation, sizes: Sequence[int]
    ) -> None:
        super().__init__()
        sizes = checks.counts("sizes", sizes, "at least one layer")
        checks.networks("decoders", decoders, len(sizes))
        checks.observation("observation", observation)
        self.decoder, self.transitions = decoders[0], nn.ModuleList(decoders[1:])
        self.observation, self.sizes = observation, sizes

    def infer(self, data: Tensor, generator: torch.Generator | None = None) -> list[Layer]:
        """Draw every layer from q, with its q and its p: z_1 to z_T."""
        raise NotImplementedError

    def layer_costs(self, layers: Sequence[Layer]) -> list[Tensor]:
        """An estimate of ``E[log q - log p]`` of each unit of each layer, in nats: (B, n_t)."""
        raise NotImplementedError

    def unit_costs(self, data: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """The cost of each unit, in nats, for one draw of the layers: (B, n_t), z_1 to z_T."""
        return self.layer_costs(self.infer(data, generator))

    def elbo(self, data: Tensor, generator: torch.Generator | None = None) -> Elbo:
        """One-sample estimate of the costs, in nats (eq-layered-elbo).

        ``prior`` (B,) is the cost of z_T, ``diffusion`` (B, T - 1) those of z_1 … z_{T-1}.
        """
        layers = self.infer(data, generator)
        costs = torch.stack([cost.sum(1) for cost in self.layer_costs(layers)], 1)
        return Elbo(costs[:, -1], self.reconstruction(data, layers[0].z), costs[:, :-1])

    def log_weight(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log p(x, z_{1:T}) - log q(z_{1:T} | x)`` for one draw of all layers, in nats: (B,)."""
        layers = self.infer(data, generator)
        ratios = torch.stack([layer.log_ratio().sum(1) for layer in layers])
        return -self.reconstruction(data, layers[0].z) - ratios.sum(0)

    def below(self, t: int, z: Tensor) -> Normal:
        """``p(z_{t-1} | z_t)``, (B, n_{t-1}), for z_t (B, n_t); ``ValueError`` unless t = 2 … T."""
        depth = len(self.sizes)
        checks.require(2 <= t <= depth, "t", f"a layer 2 to T = {depth}", t)
        name = f"decoders[{t - 1}](z_{t})"
        return to_normal(self.transitions[t - 2](z), self.sizes[t - 2], name)

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``observation.mean`` for ``n`` draws of the layers, from the top down: (n, ...)."""
        z = self.draw_prior(n, self.sizes[-1], generator)
        for t in range(len(self.sizes), 1, -1):
            z = draw.formula(self.below(t, z), generator)
        return self.observation.mean(self.decoder(z))


class BottomUp(Hierarchy):
    """Inference climbs from the data: ``encoders`` are x -> (B, 2 n_1), z_1 -> (B, 2 n_2), ….

    q is the first product of (eq-directions).
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        observation: Observation,
        sizes: Sequence[int],
    ) -> None:
        super().__init__(decoders, observation, sizes)
        checks.networks("encoders", encoders, len(self.sizes))
        self.encoders = nn.ModuleList(encoders)

    def infer(self, data: Tensor, generator: torch.Generator | None = None) -> list[Layer]:
        """Draw z_1 given x, then each layer given the one below; the top layer's p is N(0, I)."""
        z, drawn, qs = self.encode(data), [], []
        for t, (encoder, size) in enumerate(zip(self.encoders, self.sizes, strict=True)):
            qs.append(to_normal(encoder(z), size, f"encoders[{t}]"))
            z = draw.formula(qs[-1], generator)
            drawn.append(z)
        ps = [self.below(t, z) for t, z in enumerate(drawn[1:], 2)]
        return [Layer(*each) for each in zip(drawn, qs, [*ps, standard_normal(z)], strict=True)]

    def layer_costs(self, layers: Sequence[Layer]) -> list[Tensor]:
        """``log q(z_t | z_{t-1}) - log p(z_t | z_{t+1})`` at the draws; the KL on top.

        Below the top p looks at a layer that depends on z_t, so the mean of this is no divergence
        and may be negative.
        """
        top = layers[-1]
        return [*(layer.log_ratio() for layer in layers[:-1]), kl_per_unit.formula(top.q, top.p)]


class TopDown(Hierarchy):
    """Inference descends beside generation, as in the ladder VAE (Sonderby et al. 2016).

    q is the second product of (eq-directions); a step is the generative one times a message
    (eq-ladder).

    ``encoder(x)`` gives one message for each layer, (B, 2 n_t), z_1 to z_T: a Gaussian that is
    merged with the p of its layer, ``q(z_{t-1} | z_t, x) = merge(p(z_{t-1} | z_t), message)``; on
    top, with N(0, I).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoders: Sequence[nn.Module],
        observation: Observation,
        sizes: Sequence[int],
    ) -> None:
        super().__init__(decoders, observation, sizes)
        checks.function("encoder", encoder, "x -> messages")
        self.encoder = encoder

    def infer(self, data: Tensor, generator: torch.Generator | None = None) -> list[Layer]:
        """Draw z_T given x, then each layer given the one above and x."""
        messages = self.encoder(self.encode(data))
        one_each = f"{len(self.sizes)} messages, one a layer"
        checks.require(len(messages) == len(self.sizes), "encoder(x)", one_each, len(messages))
        layers: list[Layer] = []
        for t in range(len(self.sizes), 0, -1):
            message = to_message(messages[t - 1], self.sizes[t - 1], f"encoder(x)[{t - 1}]")
            p = self.below(t + 1, layers[0].z) if layers else standard_normal(message.mean)
            q = merge.formula(p, message)
            layers.insert(0, Layer(draw.formula(q, generator), q, p))
        return layers

    def layer_costs(self, layers: Sequence[Layer]) -> list[Tensor]:
        """``KL(q(z_t | z_{t+1}, x) || p(z_t | z_{t+1}))`` of each unit, in closed form."""
        return [kl_per_unit.formula(layer.q, layer.p) for layer in layers]
