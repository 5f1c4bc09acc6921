"""The engine of a run: Lightning Fabric, with the devices and the strategy asked for."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import nn

from vdm_lite import checks, shards
from vdm_lite.command import sources
from vdm_lite.engine import T, some
from vdm_lite.nets.unet import Block

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import ModelParallelStrategy
    from torch.distributed.device_mesh import DeviceMesh


def launch(given: argparse.Namespace) -> "Fabric":
    """Start the processes that are asked for; ``ValueError`` for what is not here."""
    try:
        import tensorboard  # noqa: F401 (the log needs it: better to miss it now than later)
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ValueError(
            f"{error}: install what training needs, pip install 'vdm-lite[train]'"
        ) from error
    kind = sources.device(given)
    devices, nodes = _processes(given)
    there = torch.cuda.device_count() if kind == "cuda" else 1 if kind == "mps" else devices
    checks.require(devices <= there, "--devices", f"at most {there} on {kind}", devices)
    strategy = _sharded(devices * nodes) if given.strategy == "fsdp" else given.strategy
    kinds = {"accelerator": kind, "strategy": strategy, "precision": given.precision}
    try:
        engine = Fabric(devices=devices, num_nodes=nodes, **kinds)
        engine.launch()
    except RuntimeError as error:  # no port, settings of a cluster that contradict themselves, ...
        raise ValueError(f"the processes cannot be started: {error}") from error
    return engine


def in_turn(engine: "Fabric", act: Callable[[], T]) -> T:
    """Let the first process of each machine act, then the others, who find there what it fetched.

    If one fails, all end, as with :func:`vdm_lite.engine.first`.
    """
    leads = engine.local_rank == 0
    one, other = some(engine, leads, act), some(engine, not leads, act)
    return one if leads else other


def _processes(given: argparse.Namespace) -> tuple[int, int]:
    """Devices on each machine, and machines: what torchrun started, if it did."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return given.devices or 1, given.nodes or 1
    started = []
    for name, variable in (("devices", "LOCAL_WORLD_SIZE"), ("nodes", "GROUP_WORLD_SIZE")):
        asked, number = getattr(given, name), int(os.environ[variable])
        checks.require(asked in (None, number), f"--{name}", f"{number}, as by torchrun", asked)
        started.append(number)
    return started[0], started[1]


def _sharded(processes: int) -> "ModelParallelStrategy":
    from lightning_fabric.strategies import ModelParallelStrategy

    return ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)


def _shard(objective: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Split the network's weights over the processes: block by block, then what is left."""
    network = objective.model.denoiser
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    shards.split(network, [*blocks, network], mesh["data_parallel"])
    return objective


@contextmanager
def stopping(engine: "Fabric") -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question: whether this process has been asked to stop.

    The first asks the run to end after its step, with a checkpoint; the second ends it at once.
    """
    since = None

    # It comes in the midst of anything: of a transformed function, which forbids to change tensors,
    # or of a print. So it does neither.
    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal since
        # A terminal tells all processes, and a launcher tells its own once more: that is one time.
        if since is not None and time.monotonic() - since > 2:
            raise KeyboardInterrupt
        if since is None and engine.is_global_zero:
            os.write(2, b"\nStopping after this step; once more to stop at once\n")
        since = since or time.monotonic()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: since is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
