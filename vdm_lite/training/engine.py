"""What training and evaluation ask of the engine that runs them on one device or on many.

Lightning's ``Fabric`` gives all of it; :data:`ALONE` is the part of it that one process needs, so
that a notebook trains without it. What was run with Fabric: one process and two on a CPU (gloo);
nothing on CUDA (NCCL) or MPS.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


class ElsewhereError(RuntimeError):
    """Another process has failed, and says why."""


class Engine(Protocol):
    """The part of ``lightning.fabric.Fabric`` that is used here."""

    world_size: int
    global_rank: int
    is_global_zero: bool
    device: torch.device

    def setup_module(self, module: nn.Module) -> nn.Module:
        """Wrap a module for this engine: device, precision, synchronized gradients."""

    def setup_optimizers(self, optimizer: Optimizer) -> Optimizer:
        """Wrap an optimizer."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` (), averaged over the processes."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager:
        """Put off the averaging while more gradients are to come."""

    def all_reduce(self, tensor: Tensor, reduce_op: str = "mean") -> Tensor:
        """The mean or the sum of a tensor over the processes."""


class Alone:
    """One process, on whatever device the model is."""

    world_size, global_rank, is_global_zero = 1, 0, True
    device = torch.device("cpu")
    """Where what the engine itself needs is kept; the model may be elsewhere."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        """The module as it is."""
        return module

    def setup_optimizers(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer as it is."""
        return optimizer

    def backward(self, loss: Tensor) -> None:
        """Plain backward."""
        loss.backward()

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager:
        """There is nothing to put off."""
        return nullcontext()

    def all_reduce(self, tensor: Tensor, reduce_op: str = "mean") -> Tensor:
        """The tensor itself is the mean and the sum over one process."""
        return tensor


ALONE = Alone()
"""The engine of one process."""


def first(engine: Engine, act: Callable[[], T]) -> T | None:
    """Let the first process act while the others wait; what came of it, None in the others.

    If it fails, all end: here with its error, in the others with :class:`ElsewhereError`.
    """
    return some(engine, engine.is_global_zero, act)


def some(engine: Engine, mine: bool, act: Callable[[], T]) -> T | None:
    """As :func:`first`, for all processes in which ``mine`` is true.

    A ``ValueError`` becomes an ``OSError``: it is no bad option, of which all processes would know,
    but something that this one has met.
    """
    result = failure = None
    try:
        result = act() if mine else None
    except ValueError as error:
        failure = OSError(str(error))
    except Exception as error:  # of any kind: the others would wait for this process in vain
        failure = error
    failed = torch.tensor(float(failure is not None), device=engine.device)
    if engine.all_reduce(failed, reduce_op="sum") > 0:
        raise failure or ElsewhereError("another process has failed")
    return result
