"""Weights in pieces on many processes, laid there by ``torch.distributed.fsdp.fully_shard``.

That function came with torch 2.6: an older one trains on many devices with whole weights alone.
Files hold whole tensors, so that a run may go on with another number of processes. Every function
here has to be called by all processes, and does nothing to what is not in pieces.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def is_piece(t: Tensor) -> bool:
    """Whether ``t`` is a piece of a tensor, the rest of which other processes have."""
    return hasattr(t, "full_tensor")


def whole(t: Tensor) -> Tensor:
    """The whole tensor that ``t`` is a piece of."""
    return t.full_tensor() if is_piece(t) else t


def piece(t: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`whole`: this process's piece of ``t``, cut as ``like`` was.

    A tensor of another shape, such as an optimizer's count of steps, stays whole.
    """
    if not is_piece(like) or t.shape != like.shape:
        return t
    from torch.distributed.tensor import distribute_tensor  # slow to import

    return distribute_tensor(t.to(like.device), like.device_mesh, like.placements)


def split(network: nn.Module, parts: Iterable[nn.Module], mesh: "DeviceMesh") -> None:
    """Leave to each process of ``mesh`` its piece of the weights of each part of the network.

    Parts come before what contains them. The whole weights of a part are there while it is used.
    """
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)  # no other can be split
    for part in parts:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def split_alike(copy: nn.Module, model: nn.Module) -> None:
    """Split ``copy``, made before ``model`` was split, in the same way. Pieces cannot be copied."""
    pairs = [*zip(copy.modules(), model.modules(), strict=True)]
    pairs = [(mine, given) for mine, given in reversed(pairs) if hasattr(given, "unshard")]
    if pairs:
        mesh = next(pairs[0][1].parameters()).device_mesh
        split(copy, [mine for mine, _ in pairs], mesh)
