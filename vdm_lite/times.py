"""Samplers of time: callables ``(n, generator, device, dtype) -> t`` of shape (n,) in [0, 1).

Each time is uniform on its own, so a loss averaged over them is unbiased; they differ in how the
times of one batch hang together.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TimeSampler = Callable[..., Tensor]


def uniform(
    n: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``n`` independent times."""
    return torch.rand(n, generator=generator, device=device, dtype=dtype)


def low_discrepancy(
    n: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One uniform draw u for the whole batch, spread evenly: ``t_i = (u + i/n) mod 1`` (VDM)."""
    u = torch.rand((), generator=generator, device=device, dtype=dtype)
    return (u + torch.arange(n, device=device, dtype=dtype) / n) % 1
