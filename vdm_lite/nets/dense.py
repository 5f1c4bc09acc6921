"""Plain perceptrons, the encoders and decoders of latent variable models on small images."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.checks import checked, count

SHAPE = "(C, ...) with sizes >= 1"


@checked(inputs=count, outputs=count, width=count, depth=checks.size)
def perceptron(inputs: int, outputs: int, width: int = 256, depth: int = 2) -> nn.Sequential:
    """(B, inputs) -> (B, outputs) through ``depth`` hidden layers of ``width`` units and SiLU.

    With ``depth`` 0 it is one linear map and a bias. Raises ``ValueError`` for sizes below 1 and
    for a negative depth.
    """
    sizes = [inputs] + depth * [width]
    hidden = [part for a, b in itertools.pairwise(sizes) for part in _layer(a, b)]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], outputs))


def flat_encoder(
    shape: Sequence[int], outputs: int, width: int = 256, depth: int = 2
) -> nn.Sequential:
    """Data ``(B, *shape)`` -> (B, outputs)."""
    shape = checks.counts("shape", shape, SHAPE)
    return nn.Sequential(nn.Flatten(), *perceptron(math.prod(shape), outputs, width, depth))


def flat_decoder(
    inputs: int, shape: Sequence[int], parameters: int = 1, width: int = 256, depth: int = 2
) -> nn.Sequential:
    """(B, inputs) -> ``parameters`` numbers for each number of the data (2: B, 2 C, H, W)."""
    channels, *rest = checks.counts("shape", shape, SHAPE)
    checks.count("parameters", parameters)
    outputs = parameters * math.prod(shape)
    unflatten = nn.Unflatten(1, (parameters * channels, *rest))
    return nn.Sequential(*perceptron(inputs, outputs, width, depth), unflatten)


class Rungs(nn.Module):
    """The way up of a ladder: data ``(B, *shape)`` -> a message (B, 2 n_t) for each layer.

    A deterministic chain of features climbs from layer to layer; each sends its message sideways.
    """

    def __init__(
        self, shape: Sequence[int], sizes: Sequence[int], width: int = 256, depth: int = 2
    ) -> None:
        super().__init__()
        sizes = checks.counts("sizes", sizes, "one size or more")
        first = flat_encoder(shape, width, width, depth - 1)
        rest = [perceptron(width, width, width, depth - 1) for _ in sizes[1:]]
        self.climbs = nn.ModuleList([first, *rest])
        self.messages = nn.ModuleList(nn.Linear(width, 2 * size) for size in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        messages, features = [], x
        for climb, message in zip(self.climbs, self.messages, strict=True):
            features = nn.functional.silu(climb(features))
            messages.append(message(features))
        return messages


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inputs, outputs), nn.SiLU()
