"""The folder of a run: who may write into it, what it holds, and the options that it was given."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vdm_lite.cli import engines, options
from vdm_lite.training import checkpoints, journal
from vdm_lite.training.engine import first

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
OPTIONS, LOCK = "options.json", ".lock"
OTHERS = {"command", "out", "resume"}
"""Options that say where a run is and what to do with it, and nothing about the run."""
MACHINES = {"devices", "nodes"}
"""Options that torchrun settles: under it, those of the time before do not count."""


@contextmanager
def taken(given: argparse.Namespace, engine: "Fabric") -> Iterator[None]:
    """Keep every other run out of the folder while this one is in it.

    The first process holds a lock of the operating system, which ends with that process however it
    ends. ``OSError`` if another run holds it, or if the folder is not one to begin or go on in.
    """
    lock = FileLock(given.out / LOCK, timeout=0)

    def take() -> None:
        given.out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            advice = "wait until it has ended, or take another folder"
            raise ValueError(f"--out: another run is in {given.out}: {advice}") from None
        _check(given)

    try:
        first(engine, take)
        yield
    finally:
        lock.release()


def _check(given: argparse.Namespace) -> None:
    """Whether the folder holds what a run can go on from, or nothing that one would overwrite."""
    names = (CHECKPOINT, WEIGHTS, journal.FILE, OPTIONS)
    there = [name for name in names if (given.out / name).exists()]
    # One that was stopped before its first checkpoint goes on from its start.
    goes_on = CHECKPOINT in there or (there and WEIGHTS not in there)
    if given.resume and not goes_on:
        advice = "" if there else "; start the run without --resume"
        raise ValueError(f"--resume: {given.out} holds no {CHECKPOINT} to go on from{advice}")
    if there and there != [OPTIONS] and not given.resume:
        advice = "go on with --resume" if goes_on else "move it away"
        raise ValueError(f"--out: {given.out} holds {there[0]} of a run: {advice}, or take another")


def keep_options(given: argparse.Namespace) -> None:
    """Write what the run was asked for into its folder."""
    plain = {name: value for name, value in vars(given).items() if name not in OTHERS}
    plain |= {name: str(v.absolute()) for name, v in plain.items() if isinstance(v, Path)}
    content = (json.dumps(plain, indent=1) + "\n").encode()
    checkpoints.write_bytes(given.out / OPTIONS, content)


def kept_options(given: argparse.Namespace) -> list[str]:
    """What the run in the folder was asked for, in words of the command line.

    From ``options.json``; without it from the checkpoint, which knows all that the weights depend
    on; nothing where there is neither. Raises ``ValueError`` for a file that does not say it.
    """
    path = given.out / OPTIONS
    if path.exists():
        found = _read(path)
    elif (given.out / CHECKPOINT).exists():
        found = _of_checkpoint(given.out / CHECKPOINT)
    else:
        found = {}
    names = vars(given).keys() - OTHERS - (MACHINES if engines.by_torchrun() else set())
    return options.as_words({name: value for name, value in found.items() if name in names})


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the options of a run, got {error}") from error


def _of_checkpoint(path: Path) -> dict[str, Any]:
    metadata = checkpoints.read_metadata(path)
    config = metadata.get("config", {})
    parts = [config.get(name, {}) for name in ("model", "data", "objective")]
    found = {name: value for part in (*parts, metadata) for name, value in part.items()}
    return {options.CALLED.get(name, name): value for name, value in found.items()}
