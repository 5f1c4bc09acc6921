"""What all long runs share: one row for each model, written as it comes, with its origin."""

import argparse
import json
import multiprocessing
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vdm_lite.training import checkpoints

Row = dict[str, Any]


def run(file: Path, row: Callable[..., Row], names: Sequence[str], cases: Sequence[tuple]) -> None:
    """Make the rows of ``file`` that are missing, some at a time, and write it after each.

    ``cases`` are the arguments of ``row``, one tuple for each; they stand in the row under
    ``names``. A file of another commit is not continued: ``SystemExit`` says what to do.
    """
    parser = argparse.ArgumentParser(description=f"Make the rows of {file.name}.")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    workers = parser.parse_args().workers
    command = f"python -m vdm_lite.runs.{file.parent.name}.{file.stem}"
    about = {"command": command, "commit": _commit(file), "torch": torch.__version__}
    before = read(file) if file.exists() else {"about": about, "rows": []}
    if before["about"] != about:
        raise SystemExit(f"{file} holds rows of {before['about']}: move it away to start anew")

    def key(row: Row) -> tuple:
        return tuple(row[name] for name in names)

    rows = before["rows"]
    known = {key(r) for r in rows}
    left = [arguments for arguments in cases if arguments not in known]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        running = [pool.submit(row, *arguments) for arguments in left]
        for done in tqdm(as_completed(running), total=len(left), unit="model"):
            rows = sorted([*rows, done.result()], key=lambda r: cases.index(key(r)))
            content = json.dumps({"about": about, "rows": rows}, indent=1) + "\n"
            checkpoints.write_bytes(file, content.encode())


def read(file: Path) -> dict[str, Any]:
    """What a results file holds: ``about`` the run, and its ``rows``."""
    return json.loads(file.read_text(encoding="utf-8"))


def _commit(file: Path) -> str:
    changed = _git(file, "diff", "--name-only", "HEAD", "--", ":/vdm_lite/*.py")  # from the top
    return _git(file, "rev-parse", "--short", "HEAD") + ("-changed" if changed else "")


def _git(file: Path, *arguments: str) -> str:
    run = ["git", *arguments]
    shown = subprocess.run(run, cwd=file.parent, capture_output=True, encoding="utf-8", check=True)
    return shown.stdout.strip()
