"""``vdm-lite evaluate``: bits/dim of a checkpoint."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from vdm_lite import checkpoints, checks
from vdm_lite.command import sources
from vdm_lite.config import load
from vdm_lite.evaluation import Report, evaluate

HEAD = (
    f"{'layers':>10} {'bits/dim':>9} {'± error':>8} {'prior':>8} {'reconstr.':>9} {'diffusion':>9}"
)


def run(given: argparse.Namespace) -> int:
    """Print a table, and write it as JSON if asked to."""
    model, metadata = load(given.checkpoint)
    model.to(sources.device(given))
    about = sources.about(given.checkpoint, metadata)
    name = given.data or about["name"]
    source = sources.images(name, given.folder, given.download)
    _check_fit(source, about)
    images = source.test
    if given.split == "held-out":
        images = sources.held_out(source, about["held_out"])[1]
    print(f"{given.checkpoint}: {len(images)} {given.split} images of {name}, "
          f"{given.draws} draws each; bits/dim")  # fmt: skip
    print(HEAD)
    content = {**_origin(given.checkpoint, metadata), "data": name, "split": given.split}
    content |= {"seed": given.seed, "reports": []}
    for steps in (None, *given.steps):
        report = evaluate(
            model, images, given.draws, steps, given.batch_size, given.seed, progress=True
        )
        print(_line(report), flush=True)
        content["reports"].append(report._asdict())
        if given.json:  # each at once: it has taken minutes
            checkpoints.write_bytes(given.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0


def _origin(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What the numbers are of: the very file, the step of its run, and what computes them."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    step = metadata.get("step")
    return {"checkpoint": path.name, "sha256": digest, "step": step, "torch": torch.__version__}


def _check_fit(source: sources.Images, about: dict[str, Any]) -> None:
    shape, levels = list(source.test.shape[1:]), source.levels
    wanted = about["shape"], about["levels"]
    expected = f"images of {wanted[1]} levels, shape {wanted[0]}, as trained on"
    checks.require((shape, levels) == wanted, "--data", expected, f"{levels}, {shape}")


def _line(report: Report) -> str:
    layers = "continuous" if report.steps is None else str(report.steps)
    numbers = (report.prior, report.reconstruction, report.diffusion)
    return f"{layers:>10} {report.bits_per_dim:9.4f} {report.error:8.4f} " + " ".join(
        f"{number:{width}.4f}" for number, width in zip(numbers, (8, 9, 9), strict=True)
    )
