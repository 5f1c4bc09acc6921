"""The engine of a run: Lightning Fabric, with the devices and the strategy asked for."""

import atexit
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from vdm_lite import checks
from vdm_lite.cli import sources
from vdm_lite.cli.options import Command, Processes, Train
from vdm_lite.cli.signals import ended_by_ctrl_c
from vdm_lite.training.engine import T, some

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

PARENT = "VDM_LITE_PARENT"
"""Variable of the environment: the port by which children know that their parent is alive."""
WAIT = timedelta(minutes=30)
"""How long a process waits for another one."""


def launch(options: Train) -> "Fabric":
    """Start the processes that are asked for; ``ValueError`` for what is not here.

    A process that another one has started ends with it.
    """
    try:
        import tensorboard  # noqa: F401 (the log needs it: better to miss it now than later)
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ValueError(
            f"{error}: install what training needs, pip install 'vdm-lite[train]'"
        ) from error
    kind = sources.device(options.device)
    devices, nodes = _processes(options)
    there = {"cuda": torch.cuda.device_count, "mps": lambda: 1, "cpu": _cores}[kind]()
    checks.require(devices <= there, "--devices", f"at most {there} on {kind}", devices)
    strategy = _strategy(options.strategy, devices * nodes)
    kinds = {"accelerator": kind, "strategy": strategy, "precision": options.precision}
    if PARENT in os.environ:
        threading.Thread(target=_end_with, args=[int(os.environ[PARENT])], daemon=True).start()
    try:
        engine = Fabric(devices=devices, num_nodes=nodes, **kinds)
        if devices * nodes > 1:
            _tell_children(engine, devices - 1)
            _await_others(options, engine)
        with ended_by_ctrl_c():
            engine.launch()
    except RuntimeError as error:  # no port, settings of a cluster that contradict themselves, ...
        raise ValueError(f"the processes cannot be started: {error}") from error
    return engine


def in_turn(engine: "Fabric", act: Callable[[], T]) -> T:
    """Let the first process of each machine act, then the others, who find there what it fetched.

    If one fails, all end, as with :func:`vdm_lite.training.engine.first`.
    """
    leads = engine.local_rank == 0
    one, other = some(engine, leads, act), some(engine, not leads, act)
    return one if leads else other


def speaks(options: Command) -> bool:
    """Whether this process says what is wrong with options that all of its machine were given.

    Variables of a launcher may be left over from elsewhere: a run of one process always speaks.
    """
    if not isinstance(options, Train) or os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    several = by_torchrun() or (options.devices or 1) * (options.nodes or 1) > 1
    return not several or os.environ.get("LOCAL_RANK", "0") == "0"


def by_torchrun() -> bool:
    """Whether torchrun has started this process, and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _processes(options: Processes) -> tuple[int, int]:
    """Devices on each machine, and machines: what torchrun started, if it did."""
    if not by_torchrun():
        return options.devices or 1, options.nodes or 1
    started = []
    for name, variable in (("devices", "LOCAL_WORLD_SIZE"), ("nodes", "GROUP_WORLD_SIZE")):
        asked, number = getattr(options, name), int(os.environ[variable])
        checks.require(asked in (None, number), f"--{name}", f"{number}, as by torchrun", asked)
        started.append(number)
    return started[0], started[1]


def _cores() -> int:
    """Cores that this process may use: more processes than that only wait for each other."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _strategy(name: str, processes: int) -> "Strategy | str":
    from lightning_fabric.strategies import DDPStrategy

    several = name == "ddp" or processes > 1
    return DDPStrategy(start_method="popen", timeout=WAIT) if several else "auto"


def _tell_children(engine: "Fabric", children: int) -> None:
    """Let the processes that this one is going to start know by which port they see it end."""
    if engine.strategy.cluster_environment.creates_processes_externally:
        return
    # They connect to it. Nobody answers, but when this process ends, the system hangs up.
    line = socket.create_server(("127.0.0.1", 0), backlog=children)
    atexit.register(line.close)
    os.environ[PARENT] = str(line.getsockname()[1])


def _await_others(options: Train, engine: "Fabric") -> None:
    """Say where and how long a run waits for processes that somebody else is to start.

    The first process then waits for the others as it launches, and the others for the first here:
    torch would show the stack of its C++ code if nobody answered.
    """
    devices, nodes = _processes(options)
    if by_torchrun() or (PARENT in os.environ and nodes == 1):
        return
    meeting = engine.strategy.cluster_environment
    place, minutes = (meeting.main_address, meeting.main_port), WAIT.total_seconds() / 60
    if speaks(options):
        print(f"vdm-lite: waiting at {place[0]}:{place[1]} for {nodes} x {devices} processes "
              f"(machines x devices), at most {minutes:g} minutes; all need the same MASTER_ADDR "
              "and MASTER_PORT, and each machine its NODE_RANK, from 0",
              file=sys.stderr, flush=True)  # fmt: skip
    if engine.node_rank or engine.local_rank:
        _reach(place)


def _reach(place: tuple[str, int]) -> None:
    until = time.monotonic() + WAIT.total_seconds()
    while True:
        try:
            return socket.create_connection(place, timeout=5).close()
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError(f"nobody at {place[0]}:{place[1]} ({error})") from error
        time.sleep(1)


def _end_with(port: int) -> None:
    """End this process soon after the one that listens at the port, however that ended."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as line:
        line.recv(1)
    time.sleep(2)  # one that is about to end by itself does so, and says why
    os._exit(1)
