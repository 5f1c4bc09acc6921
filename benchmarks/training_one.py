"""Train one contender for some seconds, evaluate it, and print what came out as one line of JSON.

A process of its own for each, so that memory is that of this contender alone.
"""

import argparse
import json
import resource
import sys
import time
from typing import Any

import torch
from peers import CONTENDERS, Contender, check
from torch import nn
from tqdm import tqdm

from vdm_lite import data, schedules
from vdm_lite.training import fit
from vdm_lite.training.evaluation import evaluate

BATCH, RATE, WARMUP = 64, 1e-3, 50
DRAWS = 2  # of a time and noise for each image


def train(contender: Contender, seconds: float, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The model with averaged weights, and what the training took.

    All have the same loop: AdamW, clipping, averaging, batches in the same order.
    """
    images = data.fashion_mnist().train
    updates = fit(
        contender.model,
        images,
        steps=10**9,
        batch_size=BATCH,
        lr=RATE,
        warmup=WARMUP,
        loss=contender.loss,
        progress=False,
    )
    before, start, busy = peak_memory(), time.perf_counter(), time.process_time()
    shape = "{desc} {percentage:3.0f} % of {total:.0f} s |{bar}|{postfix}"
    with tqdm(total=seconds, desc=f"{name}: training", bar_format=shape, leave=False) as bar:
        for step in updates:
            took = time.perf_counter() - start
            bar.set_postfix_str(f" step {step.step}", refresh=False)
            bar.update(min(took, seconds) - bar.n)
            if took >= seconds:
                break
    found = {"updates": step.step, "images_per_second": BATCH * step.step / took, "seconds": took}
    found |= {"processors": (time.process_time() - busy) / took}
    found |= {"memory": peak_memory(), "memory_before": before}
    return step.averaged, found


def peak_memory() -> float:
    """The most memory that this process has had so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def bound(model: nn.Module, layers: int | None) -> dict[str, Any]:
    """The bound on the test images: in continuous time, and with the layers of the own table."""
    images = data.fashion_mnist().test[::2]  # half of them: the slowest peers take a minute for it
    found = evaluate(model, images, DRAWS, progress=True)._asdict()
    if layers:
        found["own_table"] = evaluate(model, images, steps=layers, progress=True).bits_per_dim
    return found


def main() -> None:
    """One contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    contender = CONTENDERS[arguments.name]()
    check(contender)
    low, high = schedules.ends(contender.model.schedule)
    found = {"parameters": sum(p.numel() for p in contender.model.parameters())}
    found |= {"logsnr_max": high, "logsnr_min": low, "threads": torch.get_num_threads()}
    model, cost = train(contender, arguments.seconds, arguments.name)
    found |= cost | bound(model, contender.layers)
    print(json.dumps(found | {"torch": torch.__version__, "batch": BATCH}))


if __name__ == "__main__":
    main()
