"""Where random numbers come from.

Whatever draws takes a ``generator``: None for torch's global one, a ``torch.Generator``, or a
:class:`Source`, which is asked for numbers instead. ``Share`` lets several processes draw one batch
together.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vdm_lite import checks

Where = torch.device | str | None


class Source(Protocol):
    """Anything that draws as torch's generators do."""

    device: torch.device

    def uniform(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        """Numbers from [0, 1) in this shape."""

    def normal(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        """Numbers from N(0, 1) in this shape."""


Generator = torch.Generator | Source | None


class _Torch:
    """A generator of torch, or the global one, with the methods of a source."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def uniform(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=device, dtype=dtype)

    def normal(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=device, dtype=dtype)


def _source(generator: Generator) -> "Source | _Torch":
    if generator is None or isinstance(generator, torch.Generator):
        return _Torch(generator)
    expected = "None, a torch.Generator or a Source"
    checks.has("generator", generator, ("uniform", "normal"), expected)
    return generator


def uniform(
    shape: Sequence[int],
    generator: Generator = None,
    device: Where = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Numbers from [0, 1) in this shape."""
    return _source(generator).uniform(shape, device, dtype)


def normal(
    shape: Sequence[int],
    generator: Generator = None,
    device: Where = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Numbers from N(0, 1) in this shape."""
    return _source(generator).normal(shape, device, dtype)


def normal_like(like: Tensor, generator: Generator = None) -> Tensor:
    """Numbers from N(0, 1) in the shape, on the device and in the dtype of ``like``."""
    return normal(like.shape, generator, like.device, like.dtype)


class Share:
    """One process's rows of what all processes draw together.

    Every process draws the numbers of the whole batch from a generator in the same state, or from
    the same source, and keeps the rows ``index, index + shares, …``. So a batch that is shared out
    is made of the same numbers as one that is not (eq-shares), and the generators stay in step.
    Single numbers, of shape (), are the same for all. Raises ``ValueError`` unless
    ``0 <= index < shares``.
    """

    def __init__(self, generator: torch.Generator | Source, index: int, shares: int) -> None:
        shares, index = checks.count("shares", shares), checks.whole("index", index)
        checks.require(0 <= index < shares, "index", f"a number from 0 to {shares - 1}", index)
        self.generator, self.index, self.shares = generator, index, shares
        self.device = generator.device

    def uniform(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        """This share's rows of numbers from [0, 1)."""
        return self.rows(uniform(self.whole(shape), self.generator, device, dtype))

    def normal(self, shape: Sequence[int], device: Where, dtype: torch.dtype | None) -> Tensor:
        """This share's rows of numbers from N(0, 1)."""
        return self.rows(normal(self.whole(shape), self.generator, device, dtype))

    def whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape (B, ...) of a share as that of the whole batch."""
        return (shape[0] * self.shares, *shape[1:]) if len(shape) else ()

    def rows(self, whole: Tensor) -> Tensor:
        """What of the whole batch (B, ...) belongs to this share."""
        return whole[self.index :: self.shares].contiguous() if whole.ndim else whole
