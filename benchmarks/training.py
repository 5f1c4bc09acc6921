"""Train our model and its peers' for the same time on the same images, and compare the bounds.

The data are the Fashion-MNIST images that ship with the library, 28x28, 8 bits. Each model is
trained by its own usual loss on its own noise levels, in a process of its own, one after the other.
Everything else is the same for all: about 1 M parameters, three resolutions, batches and their
order, AdamW at one learning rate, gradients clipped to norm 1, averaged weights. Then one evaluator
gives the bound of each on the test images, in continuous time between the end points that it was
trained on.
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# No torch here: a child's peak of memory starts from its parent's size.
RESULTS = Path(__file__).parent / "results"
ONE = Path(__file__).with_name("training_one.py")
LOSSES = {
    "vdm_lite": "the bound's diffusion term, low-discrepancy times, logsnr linear in t",
    "azula": "KarrasDenoiser.loss with VPSchedule and uniform times",
    "denoising_diffusion_pytorch": "GaussianDiffusion's, sigmoid schedule, velocity output",
    "diffusers": "squared error of the noise, DDPMScheduler's 1,000 levels",
}
NOTES = """\
bits/dim = prior + reconstruction + diffusion: the bound on -log2 p(x), ± its standard error. It is
what our model is trained for, and no peer is: their usual losses weigh noise levels for the look of
samples, which nothing here measures. The levels that they leave out at the clean end (see logsnr)
come back as reconstruction. Packages with 1,000 noise levels are asked between them, too; "own
table" is their bound with those levels alone, as T = 999 layers.
Loss, noise levels, output and U-Net differ all at once: this compares each package as it comes. One
learning rate serves all; the peers' examples take smaller ones for much longer runs. So does one
clip, but it does not do the same to all: our costs are sums over an image, in nats, and the norms
of their gradients are in the thousands, so that each is normalized; the peers' are means over
pixels, with norms about 1 or below, so that few are touched. Minutes of training say how fast a
model gets going, not how good it gets.
Memory is the peak of the process at the end of training; "added" is what training added to the
program with its packages loaded and its model built."""


def result(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one model in a process of its own."""
    command = [sys.executable, str(ONE), name, "--seconds", str(arguments.seconds)]
    command += ["--threads", str(arguments.threads)] if arguments.threads else []
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"{name} failed: see above")
    return json.loads(run.stdout.splitlines()[-1])


def quality(results: dict[str, dict[str, Any]]) -> str:
    """The bounds, one row a model."""
    columns = ("parameters", "bits/dim", "prior", "reconstr.", "diffusion", "logsnr", "own table")
    widths = (10, 14, 7, 9, 9, 14, 9)
    head = " ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    rows = [f"{'':27} {head}"]
    for name, r in results.items():
        total = f"{r['bits_per_dim']:.3f} ± {r['error']:.3f}"
        ends = f"{r['logsnr_max']:.1f} to {r['logsnr_min']:.1f}"
        own = f"{r['own_table']:.3f}" if "own_table" in r else "-"
        terms = f"{r['prior']:7.4f} {r['reconstruction']:9.3f} {r['diffusion']:9.3f}"
        rows.append(f"{name:27} {r['parameters']:10,} {total:>14} {terms} {ends:>14} {own:>9}")
    return "\n".join(rows)


def cost(results: dict[str, dict[str, Any]]) -> str:
    """What training took, one row a model."""
    columns = ("updates", "images/s", "memory", "added", "processors")
    widths = (7, 10, 11, 11, 11)
    head = " ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    rows = [f"{'':27} {head}"]
    for name, r in results.items():
        added = r["memory"] - r["memory_before"]
        rows.append(
            f"{name:27} {r['updates']:7,} {r['images_per_second']:10.1f} {r['memory']:8.0f} MB "
            f"{added:8.0f} MB {r['processors']:11.2f}"
        )
    return "\n".join(rows)


def busy(results: dict[str, dict[str, Any]]) -> str:
    """A warning if the machine gave some models clearly less than others."""
    given = [r["processors"] for r in results.values()]
    if min(given) > 0.85 * max(given):
        return ""
    return (
        "\n\nNot a fair race: the processors in use on average (last column) differ. If the machine"
        "\nwas busy with something else, run this again."
    )


def options() -> argparse.Namespace:
    """The arguments; ends the program if a package is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="of training, for each model")
    parser.add_argument("--threads", type=int, help="as many as torch takes if not given")
    arguments = parser.parse_args()
    if not arguments.seconds > 0:
        parser.error(f"--seconds: expected a number above 0, got {arguments.seconds:g}")
    lacking = [name for name in LOSSES if importlib.util.find_spec(name) is None]
    if lacking:
        parser.error(f"not installed: {', '.join(lacking)}; use benchmarks/run.sh training")
    return arguments


def heading(seconds: float, one: dict[str, Any]) -> str:
    """The setting, and the loss of each model."""
    losses = "\n".join(f"{name:27} {loss}" for name, loss in LOSSES.items())
    return (
        f"Fashion-MNIST, 28x28: 10,000 images for training, {one['images']:,} for the bound; "
        f"{seconds:g} s each,\nbatch {one['batch']}, float32, CPU, threads: {one['threads']}, "
        f"torch {one['torch']}\n\n{losses}"
    )


def main() -> None:
    """Two tables, their notes, and a file with all numbers."""
    arguments = options()
    results = {name: result(name, arguments) for name in LOSSES}
    head = heading(arguments.seconds, results["vdm_lite"])
    print(head, quality(results), cost(results) + busy(results), NOTES, sep="\n\n")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{time.strftime('%Y%m%d-%H%M%S')}.json"
    about = {"seconds": arguments.seconds, "machine": platform.platform()}
    path.write_text(json.dumps(about | {"models": results}, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
