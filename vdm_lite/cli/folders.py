"""The folder of a run: who may write into it, what it holds, and the options that it was given."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vdm_lite.cli import engines
from vdm_lite.cli.options import CALLED, RunFolder, Train, as_words
from vdm_lite.training import checkpoints, journal
from vdm_lite.training.engine import first

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
OPTIONS, LOCK = "options.json", ".lock"
OTHERS = {"out", "resume"}
"""Options that say where a run is and what to do with it, and nothing about the run."""
MACHINES = {"devices", "nodes"}
"""Options that torchrun settles: under it, those of the time before do not count."""


@contextmanager
def taken(options: RunFolder, engine: "Fabric") -> Iterator[None]:
    """Keep every other run out of the folder while this one is in it.

    The first process holds a lock of the operating system, which ends with that process however it
    ends. ``OSError`` if another run holds it, or if the folder is not one to begin or go on in.
    """
    lock = FileLock(options.out / LOCK, timeout=0)

    def take() -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            advice = "wait until it has ended, or take another folder"
            raise ValueError(f"--out: another run is in {options.out}: {advice}") from None
        _check(options)

    try:
        first(engine, take)
        yield
    finally:
        lock.release()


def _check(options: RunFolder) -> None:
    """Whether the folder holds what a run can go on from, or nothing that one would overwrite."""
    names = (CHECKPOINT, WEIGHTS, journal.FILE, OPTIONS)
    there = [name for name in names if (options.out / name).exists()]
    # One that was stopped before its first checkpoint goes on from its start.
    goes_on = CHECKPOINT in there or (there and WEIGHTS not in there)
    if options.resume and not goes_on:
        advice = "" if there else "; start the run without --resume"
        raise ValueError(f"--resume: {options.out} holds no {CHECKPOINT} to go on from{advice}")
    if there and there != [OPTIONS] and not options.resume:
        advice = f"{'go on with --resume' if goes_on else 'move it away'}, or take another"
        raise ValueError(f"--out: {options.out} holds {there[0]} of a run: {advice}")


def keep_options(options: Train) -> None:
    """Write what the run was asked for into its folder."""
    plain = {name: value for name, value in asdict(options).items() if name not in OTHERS}
    plain |= {name: str(v.absolute()) for name, v in plain.items() if isinstance(v, Path)}
    content = (json.dumps(plain, indent=1) + "\n").encode()
    checkpoints.write_bytes(options.out / OPTIONS, content)


def kept_options(folder: Path) -> list[str]:
    """What the run in ``folder`` was asked for, in words of the command line.

    From ``options.json``; without it from the checkpoint, which knows all that the weights depend
    on; nothing where there is neither. Raises ``ValueError`` for a file that does not say it.
    """
    path = folder / OPTIONS
    if path.exists():
        found = _read(path)
    elif (folder / CHECKPOINT).exists():
        found = _of_checkpoint(folder / CHECKPOINT)
    else:
        found = {}
    others = OTHERS | MACHINES if engines.by_torchrun() else OTHERS
    names = {each.name for each in fields(Train)} - others
    return as_words({name: value for name, value in found.items() if name in names})


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
    return {CALLED.get(name, name): value for name, value in found.items()}
