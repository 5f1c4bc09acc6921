"""The command line in processes of its own. A server forks them, so that torch is imported once."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import vdm_lite
from vdm_lite.training import checkpoints
from vdm_lite.training.config import ModelConfig

ROOT = Path(vdm_lite.__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
GLOO = re.compile(r"^\[Gloo\] .*\n", re.MULTILINE)
"""What torch 2.8 and 2.9 print about the connections of their processes."""

SERVER = """
import json, os, resource, signal, socket, sys
import lightning_fabric, sklearn.datasets, torch, torch.utils.tensorboard
from vdm_lite import cli
from vdm_lite.training.config import ModelConfig
from vdm_lite.training.batches import Batches

# What is imported at the first use: now, and not once for each command.
model = ModelConfig(levels=17, widths=(8,)).build()
with torch.no_grad():
    model.loss(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
torch.optim.AdamW(model.parameters()).step()


def happen(what):  # at the start of an update
    if "limit" in what:
        resource.setrlimit(resource.RLIMIT_FSIZE, (what["limit"], what["limit"]))
    for number in what.get("signals", []):
        os.kill(os.getpid(), number)
    if "group" in what:
        os.killpg(os.getpgrp(), what["group"])
    if "run" in what:
        exec(what["run"])
    for number in what.get("again", []):
        os.kill(os.getpid(), number)


def child(job, rank, ranks, port):
    signal.alarm(200)
    for fd in (1, 2):
        os.dup2(os.open(f"{job['log']}.{rank}.{fd}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), fd)
    if ranks > 1:  # what torchrun tells its processes
        sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), ranks)
        more = dict(RANK=rank, LOCAL_RANK=rank, GROUP_RANK=0, GROUP_WORLD_SIZE=1, **sizes)
        more |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TORCHELASTIC_RUN_ID="test")
        os.environ.update({name: str(value) for name, value in more.items()})
    batch, what = Batches.__getitem__, dict(job["events"])

    def watched(batches, k):
        if rank == 0 and k in what:
            happen(what[k])
        return batch(batches, k)

    Batches.__getitem__ = watched
    if job["script"]:
        exec(compile(job["script"], "script", "exec"), {"rank": rank, "ranks": ranks})
        sys.exit(0)
    sys.exit(cli.main(job["arguments"]))


print("ready", flush=True)
while line := sys.stdin.readline():
    job = json.loads(line)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, children[0] if children else 0)
            child(job, rank, job["ranks"], port)
        children.append(pid)
        try:
            os.setpgid(pid, children[0])
        except OSError:
            pass  # it has done so itself, or has ended
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    print(json.dumps(codes), flush=True)
"""


def distance(a: Path, b: Path) -> float:
    """How far apart the weights of two runs from one start are, where 1 is as far as they went.

    Not weight by weight: where a gradient is zero but for rounding, AdamW makes a step of it.
    """
    found, metadata = checkpoints.read(a / "checkpoint.safetensors")
    other, _ = checkpoints.read(b / "checkpoint.safetensors")
    torch.manual_seed(metadata["seed"])
    start = ModelConfig.parse(metadata["config"]["model"]).build().state_dict()
    apart = way = 0.0
    for name, t in start.items():
        for part in ("model.", "ema."):
            apart += (found[part + name] - other[part + name]).square().sum()
            way += (found[part + name] - t).square().sum()
    return (apart / way).sqrt().item()


class Ended(NamedTuple):
    """How the processes of one command ended: by rank."""

    codes: list[int]
    out: list[str]
    err: list[str]


class Server:
    """Starts commands on request."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        arguments: Sequence[object] = (),
        ranks: int = 1,
        events: Sequence[tuple[int, dict[str, Any]]] = (),
        script: str = "",
    ) -> Ended:
        """Run ``vdm-lite`` with these arguments, or a script, in so many processes.

        ``events`` happen to the first process when so many updates are done, during the next one.
        """
        if not self.jobs:
            assert self.process.stdout.readline() == "ready\n"
        self.jobs += 1
        log = self.folder / str(self.jobs)
        job = {"arguments": [str(a) for a in arguments], "ranks": ranks, "log": str(log)}
        self.process.stdin.write(json.dumps(job | {"events": [*events], "script": script}) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        files = [[Path(f"{log}.{rank}.{fd}") for rank in range(ranks)] for fd in (1, 2)]
        said = [[GLOO.sub("", f.read_text(encoding="utf-8")) for f in each] for each in files]
        return Ended(codes, *said)

    def close(self) -> None:
        """End the server."""
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
