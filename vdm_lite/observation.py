r"""What a decoder's output means: p(x | z), the likelihood of a latent variable model.

An observation has ``parameters``, the numbers that the decoder gives for each number of the data;
``encode(data) -> x``, what the encoder reads; ``log_prob(data, output) -> (B,)`` in nats; and
``mean(output)``, x as the decoder expects it. ``output`` has the shape of the data, or twice its
channels (axis 1) where there are two parameters.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_lite import checks
from vdm_lite.gaussian import Normal, log_prob, sum_except_batch
from vdm_lite.likelihood import Discretized, place


class Observation(Protocol):
    """What a latent variable model asks of its p(x | z)."""

    parameters: ClassVar[int]

    def encode(self, data: Tensor) -> Tensor:
        """Data as floats, for the encoder."""

    def log_prob(self, data: Tensor, output: Tensor) -> Tensor:
        """``log p(data | z)`` in nats, (B,)."""

    def mean(self, output: Tensor) -> Tensor:
        """``E[x | z]``, on the scale of :meth:`encode`."""


@dataclass(frozen=True)
class Gaussian:
    """Continuous data with noise of one fixed width: ``p(x | z) = N(output, std^2 I)``."""

    std: float = 1.0
    parameters: ClassVar[int] = 1

    def __post_init__(self) -> None:
        checks.positive_number("std", self.std)

    def encode(self, data: Tensor) -> Tensor:
        """Continuous data are used as they are, (B, ...)."""
        checks.examples("data", data)
        return data

    def log_prob(self, data: Tensor, output: Tensor) -> Tensor:
        """``-1/2 sum_i ((x_i - output_i)^2 / std^2 + log 2 pi std^2)`` nats: (B,)."""
        checks.shaped_as("output", output, self.encode(data))
        p = Normal(output, output.new_full((), self.std**2))
        return sum_except_batch(log_prob.formula(p, data))

    def mean(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output


@dataclass(frozen=True)
class Bernoulli:
    """Binary data, 0 or 1: the output is the log-odds of a 1."""

    parameters: ClassVar[int] = 1

    def encode(self, data: Tensor) -> Tensor:
        """Data of any dtype, all 0 or 1, as floats; ``ValueError`` for others."""
        checks.binary("data", data)
        return data if data.is_floating_point() else data.to(torch.get_default_dtype())

    def log_prob(self, data: Tensor, output: Tensor) -> Tensor:
        """``sum_i x_i log p_i + (1 - x_i) log(1 - p_i)`` nats, ``p = sigmoid(output)``: (B,)."""
        x = self.encode(data)
        checks.shaped_as("output", output, x)
        cost = F.binary_cross_entropy_with_logits(output, x.to(output.dtype), reduction="none")
        return -sum_except_batch(cost)

    def mean(self, output: Tensor) -> Tensor:
        """The probability of a 1."""
        return torch.sigmoid(output)


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Integer levels 0 … levels-1: the mass of a logistic density in each level's bin.

    The decoder gives mean m and log-scale log s of each pixel, on the scale of
    ``enc(k) = 2 (k + 1/2) / levels - 1``; bins have width ``2 / levels``, and the two end bins
    reach to infinity (Salimans et al. 2017, there with mixtures). log s counts as -7 where it is
    less (with more than 256 levels the limit falls as their bins do), and as 40 where it is more.
    """

    levels: int = 256
    parameters: ClassVar[int] = 2

    def __post_init__(self) -> None:
        checks.grid("levels", self.levels)

    def encode(self, data: Tensor) -> Tensor:
        """Levels to numbers in (-1, 1), in the default dtype, as ``likelihood.Discretized``."""
        return Discretized(self.levels).encode(data)

    def log_prob(self, data: Tensor, output: Tensor) -> Tensor:
        """``sum_i log(F(x_i + 1/levels) - F(x_i - 1/levels))`` nats, F the logistic CDF: (B,)."""
        checks.whole_levels("data", data, self.levels)
        checks.require(data.ndim > 1, "data", "shape (B, C, ...)", tuple(data.shape))
        checks.floating("output", output)
        x = place(data, self.levels, output.dtype)
        mean, log_scale = self._parameters(output, x)
        inverse = torch.exp(-log_scale)
        above = (x + 1 / self.levels - mean) * inverse
        below = (x - 1 / self.levels - mean) * inverse
        # log(F(a) - F(b)) = log F(a) + log(1 - F(b)) + log(1 - e^{b - a}): nothing cancels.
        bin_part = torch.log(-torch.expm1(-2 / self.levels * inverse))
        first, last = data == 0, data == self.levels - 1
        log_p = torch.where(last, 0.0, F.logsigmoid(above))
        log_p = log_p + torch.where(first, 0.0, F.logsigmoid(-below))
        return sum_except_batch(log_p + torch.where(first | last, 0.0, bin_part))

    def mean(self, output: Tensor) -> Tensor:
        """The locations m, clamped to [-1, 1]: E[x | z] but for what the two ends cut off."""
        return output.chunk(2, dim=1)[0].clamp(-1, 1)

    def _parameters(self, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
        checks.sizes("output", output, shape, f"shape {shape}: means and log-scales")
        mean, log_scale = output.chunk(2, dim=1)
        # At e^-7 the density is far narrower than a bin of 256 levels: below it nothing is gained.
        # Far above e^40 the mass of a bin would underflow.
        narrowest = -7 - math.log(max(self.levels, 256) / 256)
        return mean, log_scale.clamp(narrowest, 40)
