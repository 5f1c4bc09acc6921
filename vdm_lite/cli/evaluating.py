"""``vdm-lite evaluate``: bits/dim of a checkpoint."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm_lite import checks, data
from vdm_lite.cli import outputs, sources
from vdm_lite.cli.options import Evaluate
from vdm_lite.cli.words import DATA
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.training import checkpoints
from vdm_lite.training.evaluation import Report, evaluate

HEAD = (
    f"{'layers':>10} {'bits/dim':>9} {'± error':>8} {'prior':>8} {'reconstr.':>9} {'diffusion':>9}"
)


def run(options: Evaluate) -> int:
    """Print a table, and write it as JSON if asked to."""
    model, metadata = sources.model(options.checkpoint, options.device)
    if options.json:
        outputs.check("--json", options.json)
    name, split, images = _images(options, model, sources.about(options.checkpoint, metadata))
    part = "" if split == "all" else f"{split} "
    print(f"{options.checkpoint}: {len(images)} {part}images of {name}, "
          f"{options.draws} draws each; bits/dim")  # fmt: skip
    print(HEAD)
    content = {**_origin(options.checkpoint, metadata), "data": name, "split": split}
    content |= {"seed": options.seed, "reports": []}
    for steps in (None, *options.steps):
        report = evaluate(
            model, images, options.draws, steps, options.batch_size, options.seed, progress=True
        )
        print(_line(report), flush=True)
        content["reports"].append(report._asdict())
        if options.json:  # each at once: it has taken minutes
            checkpoints.write_bytes(options.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0


def _images(
    options: Evaluate, model: VariationalDiffusion, about: dict[str, Any]
) -> tuple[str, str, Tensor]:
    """What to measure on: its name, which part of it, and the images."""
    name = options.data or about["name"]
    checks.require(
        name is not None, "--data", "a name or a path, as the file names no data", "none"
    )
    if name not in DATA and not Path(name).exists():
        raise ValueError(f"--data: say where the images are now, as {name} is not there any more")
    own = {"size": about["size"], "multiple": model.denoiser.divisor, "levels": about["levels"]}
    source = sources.images(name, options.folder, options.download, **own)
    _check_fit(source, about)
    splits = ("test", "held-out") if name in DATA else _of_own(source.train, name, about)
    split = options.split or splits[0]
    expected = f"none, as own images have no test set (this measures on: {splits[0]})"
    checks.require(split in splits, "--split", expected, split)
    if split == "held-out":
        kept = about["held_out"] is not None
        checks.require(kept, "--split", "test, as the file knows of no images held out", split)
        return name, split, sources.held_out(source, about["held_out"])[1]
    return name, split, source.test if split == "test" else source.train


def _of_own(images: Tensor, name: str, about: dict[str, Any]) -> tuple[str]:
    """Own images that the run had: those held out. Others: all of them."""
    if about["checksum"] is None:  # a checkpoint made in Python
        own = name == about["name"] and about["held_out"] is not None
        return ("held-out" if own else "all",)
    if about["checksum"] == data.checksum([images]):
        return ("held-out",)
    expected = f"what the run found in {name} (or others, from another place)"
    checks.require(name != about["name"], "--data", expected, "added, removed or changed images")
    return ("all",)


def _origin(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """What the numbers are of: the very file, the step of its run, and what computes them."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    step = metadata.get("step")
    return {"checkpoint": path.name, "sha256": digest, "step": step, "torch": torch.__version__}


def _check_fit(source: sources.Images, about: dict[str, Any]) -> None:
    shape, levels = list(source.train.shape[1:]), source.levels
    trained_on = about["shape"], about["levels"]
    expected = f"images of {trained_on[1]} levels, shape {trained_on[0]}, as trained on"
    checks.require((shape, levels) == trained_on, "--data", expected, f"{levels}, {shape}")


def _line(report: Report) -> str:
    layers = "continuous" if report.steps is None else str(report.steps)
    numbers = (report.prior, report.reconstruction, report.diffusion)
    return f"{layers:>10} {report.bits_per_dim:9.4f} {report.error:8.4f} " + " ".join(
        f"{number:{width}.4f}" for number, width in zip(numbers, (8, 9, 9), strict=True)
    )
