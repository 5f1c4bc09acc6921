r"""The model: a denoiser, a noise schedule, an output type and a likelihood make a diffusion.

::

    p(x, z) = p(x | z_0) prod_i p(z_s | z_t) p(z_1),    p(z_s | z_t) = q(z_s | z_t, x = x_hat(z_t))

Everything it returns is per example and in nats; the caller reduces.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from vdm_lite import checks, randomness
from vdm_lite import weighting as weightings
from vdm_lite.elbo import Elbo, layer_weight, prior
from vdm_lite.gaussian import alpha, as_weights, diffuse, sum_except_batch
from vdm_lite.likelihood import Discretized, Gaussian
from vdm_lite.parameterization import (
    NOISE,
    Parameterization,
    Prediction,
    check_row,
    determinant,
    solve,
    target,
)
from vdm_lite.randomness import Generator, Source
from vdm_lite.schedules import Linear, Schedule, rate, require_falling
from vdm_lite.times import FORM, TimeSampler, low_discrepancy
from vdm_lite.weighting import Weighting

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Costs(NamedTuple):
    """What a loss is made of, (B,) each: times, their density, the cost at each time in nats.

    A sampler that learns wants the cost before the division by the density.
    """

    t: Tensor
    p: Tensor
    cost: Tensor

    @property
    def loss(self) -> Tensor:
        """``cost / p``, an unbiased estimate of the integral over t: (B,) (eq-importance)."""
        return self.cost / self.p


class VariationalDiffusion(nn.Module):
    """A diffusion model around any ``denoiser(z, logsnr) -> y``, a network or an exact one.

    ``parameterization`` says what y is, ``likelihood`` what the data are: floats (``Gaussian``)
    or integer levels (``Discretized``). Floats are computed with in the dtype of the denoiser's
    weights, float32 or float64; without weights they keep their own. Raises ``ValueError`` for
    what cannot be one of these, and for a schedule that does not fall.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule = Linear(),  # noqa: B008 (frozen)
        parameterization: Parameterization = NOISE,
        likelihood: Gaussian | Discretized = Gaussian(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        checks.function("denoiser", denoiser, "(z, logsnr) -> y")
        check_row("parameterization", parameterization)
        checks.likelihood("likelihood", likelihood)
        require_falling(schedule)
        self.denoiser = denoiser
        self.schedule = schedule
        self.parameterization = parameterization
        self.likelihood = likelihood

    def predict(self, z: Tensor, logsnr: Tensor) -> Prediction:
        """Estimates of x and eps from latents ``z`` (B, ...) at levels () or (B,)."""
        z, logsnr = as_weights(z, self.denoiser), as_weights(logsnr, self.denoiser)
        checks.examples("z", z)
        checks.levels("logsnr", logsnr, z)
        y = self.parameterization.output(self.denoiser, z, logsnr)
        return solve.formula(self.parameterization, y, z, logsnr)

    def loss(
        self,
        data: Tensor,
        weighting: Weighting = weightings.elbo,
        times: TimeSampler = low_discrepancy,
        generator: Generator = None,
    ) -> Tensor:
        """One-sample estimate of the weighted loss (eq-continuous-loss), in nats: (B,).

        ``1/2 w(lambda_t) (-dlambda/dt) ||eps - eps_hat||^2 / p(t)`` with t ~ p from ``times``. With
        the default weight it estimates the diffusion term of the continuous-time bound. Raises
        ``ValueError`` as :meth:`costs` does, of which it is the quotient.
        """
        return self.costs(data, weighting, times, generator).loss

    def costs(
        self,
        data: Tensor,
        weighting: Weighting = weightings.elbo,
        times: TimeSampler = low_discrepancy,
        generator: Generator = None,
    ) -> Costs:
        """Times drawn for the examples, and ``1/2 w(lambda_t) (-dlambda/dt) ||eps - eps_hat||^2``.

        A sampler that learns is not told: whoever chose it shows it what was found,
        ``times.observe(costs.t, costs.cost)``. Raises ``ValueError`` for a weight that is negative
        or not finite, and, on a CPU, for a denoiser that returns NaN.
        """
        checks.weighting("weighting", weighting)
        checks.function("times", times, FORM)
        x = self._encode(data)
        return self._costs(x, weighting, times, randomness.of(generator, like=x))

    def _costs(self, x: Tensor, weighting: Weighting, times: TimeSampler, source: Source) -> Costs:
        t, p = checks.drawn("times(n, ...)", times(len(x), source), len(x))
        logsnr, slope = rate.formula(self.schedule, t)
        w = weighting(logsnr)
        checks.weights("weighting(logsnr)", w, logsnr)
        return Costs(t, p, -0.5 * w * slope * self._noise_error(x, logsnr, source))

    def elbo(self, data: Tensor, steps: int | None = None, generator: Generator = None) -> Elbo:
        """One-sample estimate of the three costs, in nats, (B,) each (eq-elbo-three-terms).

        The layer's cost, T times, estimates that of all (eq-one-layer-estimate).

        ``steps`` is the number of layers T, one of which is drawn for each example; ``None`` is
        continuous time. Unbiased: average over examples or calls.
        """
        data = as_weights(data, self.denoiser)
        x = self._encode(data)
        source = randomness.of(generator, like=x)
        logsnr_0, logsnr_1 = self.schedule(x.new_tensor([0.0, 1.0]))
        z_0 = diffuse.formula(x, logsnr_0, source.normal(x.shape))
        reconstruction = -self.likelihood.log_prob(data, z_0, logsnr_0)
        if steps is None:
            diffusion = self._costs(x, weightings.elbo, low_discrepancy, source).loss
        else:
            diffusion = self._layer(x, steps, source)
        return Elbo(prior.formula(x, logsnr_1), reconstruction, diffusion)

    def _encode(self, data: Tensor) -> Tensor:
        """Data as x, in the dtype of the denoiser's weights."""
        return as_weights(self.likelihood.encode(data), self.denoiser)

    def _layer(self, x: Tensor, steps: int, source: Source) -> Tensor:
        """The cost of one layer i of T, drawn for each example, times T: (B,)."""
        steps = checks.count("steps", steps)
        t, _ = low_discrepancy(len(x), source)
        i = (t * steps).floor().clamp(max=steps - 1) + 1
        logsnr_s, logsnr_t = self.schedule((i - 1) / steps), self.schedule(i / steps)
        factor = layer_weight(steps, logsnr_s, logsnr_t)
        return factor * self._noise_error(x, logsnr_t, source)

    def _noise_error(self, x: Tensor, logsnr: Tensor, source: Source) -> Tensor:
        """``||eps - eps_hat||^2 = (alpha / determinant)^2 ||y - y_hat||^2``: (B,)."""
        eps = source.normal(x.shape)
        z = diffuse.formula(x, logsnr, eps)
        y = target.formula(self.parameterization, x, eps, logsnr)
        y_hat = self.parameterization.output(self.denoiser, z, logsnr)
        ratio = alpha.formula(logsnr) / determinant.formula(self.parameterization, logsnr)
        return ratio.square() * sum_except_batch((y - y_hat).square())
