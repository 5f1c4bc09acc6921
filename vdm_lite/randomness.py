"""Where random numbers come from.

Whatever draws takes a ``generator``: None for torch's global one, a ``torch.Generator``, or a
:class:`Source`. At its entry it asks :func:`of` for a source that draws on the device and in the
dtype of its data, and hands that down: a source needs only a shape. ``Share`` lets several
processes draw one batch together; ``counter.Counter`` draws what any language can repeat.
"""

from collections.abc import Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from vdm_lite import checks

Where = torch.device | str | None


class Source:
    """Random numbers on one device and in one dtype, from a ``torch.Generator`` or the global one.

    Without a device they are on the generator's, or torch's default; without a dtype, in torch's
    default. Another source is a subclass with its own ``uniform`` and ``normal``.
    """

    shares = 1
    """How many draw one batch together: this one alone."""

    def __init__(
        self,
        generator: torch.Generator | None = None,
        device: Where = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if device is None and generator is not None:
            device = generator.device
        self.generator, self.device = generator, device
        self.dtype = dtype

    def on(self, device: Where, dtype: torch.dtype) -> Self:
        """The same source, from where it stands, bound to a device and a dtype."""
        if (device, dtype) == (self.device, self.dtype):
            return self
        bound = copy(self)
        bound.device, bound.dtype = device, dtype
        return bound

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1) in this shape."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=self.dtype)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Numbers from N(0, 1) in this shape."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=self.dtype)

    def permutation(self, n: int) -> Tensor:
        """The whole numbers below ``n`` in a random order, (n,)."""
        return self.uniform((n,)).argsort()

    def rows(self, whole: Tensor) -> Tensor:
        """What of a whole batch (B, ...) is drawn here: all of it."""
        return whole


Generator = torch.Generator | Source | None


def of(generator: Generator, like: Tensor | None = None) -> Source:
    """The source that a ``generator`` stands for, bound to the device and the dtype of ``like``."""
    if generator is None or isinstance(generator, torch.Generator):
        generator = Source(generator)
    expected = "None, a torch.Generator or a Source"
    checks.require(
        isinstance(generator, Source), "generator", expected, checks.described(generator)
    )
    return generator if like is None else generator.on(like.device, like.dtype)


class Share(Source):
    """One process's rows of what all processes draw together.

    Every process draws the numbers of the whole batch from a generator in the same state, or from
    the same source, and keeps the rows ``index, index + shares, …``. So a batch that is shared out
    is made of the same numbers as one that is not (eq-shares), and the generators stay in step.
    Single numbers, of shape (), are the same for all. Raises ``ValueError`` unless
    ``0 <= index < shares``.
    """

    def __init__(self, generator: Generator, index: int, shares: int) -> None:
        shares, index = checks.count("shares", shares), checks.whole("index", index)
        checks.require(0 <= index < shares, "index", f"a number from 0 to {shares - 1}", index)
        self.whole, self.index, self.shares = of(generator), index, shares
        super().__init__(device=self.whole.device, dtype=self.whole.dtype)

    def on(self, device: Where, dtype: torch.dtype) -> Self:
        """The same share of the same source, bound to a device and a dtype."""
        bound = super().on(device, dtype)
        bound.whole = self.whole.on(device, dtype)
        return bound

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """This share's rows of numbers from [0, 1)."""
        return self.rows(self.whole.uniform(self._of_all(shape)))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """This share's rows of numbers from N(0, 1)."""
        return self.rows(self.whole.normal(self._of_all(shape)))

    def permutation(self, n: int) -> Tensor:
        """This share's ``n`` rows of a random order of the whole numbers below ``n * shares``."""
        return self.rows(self.whole.permutation(n * self.shares))

    def rows(self, whole: Tensor) -> Tensor:
        """What of the whole batch (B, ...) belongs to this share."""
        return whole[self.index :: self.shares].contiguous() if whole.ndim else whole

    def _of_all(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape (B, ...) of a share as that of the whole batch."""
        return (shape[0] * self.shares, *shape[1:]) if len(shape) else ()
