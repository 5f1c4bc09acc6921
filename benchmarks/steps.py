"""Time a training step and a sampling step of our U-Net beside azula's and diffusers'.

And a sampling step of a perceptron beside one without the library's checks of its input.

All have about 1 M parameters, three resolutions and one residual block at each, going down and
going up (diffusers adds one going up and two in the middle: it has no smaller setting). Widths are
32, 64, ... from the top, narrower lower down where a peer would exceed 1 M. Each peer is timed in
both memory layouts; the faster one counts. In each round every network takes one step, so that
whatever else the machine does falls on all alike; a ratio is the median over rounds of the peer's
time by ours in the same round.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from pathlib import Path
from statistics import median

import torch
from peers import AzulaUNet, DiffusersUNet
from torch import nn

from vdm_lite import checks
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.nets import MLP, UNet
from vdm_lite.samplers import sample

RESULTS = Path(__file__).parent / "results"
BATCH = 64
GOALS = {"azula": 1.0, "diffusers": 1.3}  # a training step: the peer's time over ours, at least
WALK = {"shape": (256, 32), "steps": 20}  # of a perceptron
PRICE = 1.1  # of the checks: the time of a step of that walk over that of one without, at most


def contenders() -> dict[str, nn.Module]:
    """The networks by name; a peer's name is followed by its memory layout."""
    return {
        "vdm_lite": UNet(),
        **{
            f"{name}, {str(layout).removeprefix('torch.')}": make().to(memory_format=layout)
            for name, make in (("azula", AzulaUNet), ("diffusers", DiffusersUNet))
            for layout in (torch.contiguous_format, torch.channels_last)
        },
    }


def training_step(net: nn.Module) -> Callable[[], None]:
    """Forward, backward and AdamW on the noise-prediction loss of one fixed batch."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    z, eps, logsnr = torch.randn(BATCH, 1, 28, 28), torch.randn(BATCH, 1, 28, 28), torch.rand(BATCH)

    def step() -> None:
        optimizer.zero_grad()
        (net(z, logsnr) - eps).square().mean().backward()
        optimizer.step()

    return step


def sampling_step(net: nn.Module) -> Callable[[], None]:
    """One evaluation of the network without gradients, which is all that a sampler pays for."""
    z, logsnr = torch.randn(BATCH, 1, 28, 28), torch.zeros(BATCH)
    return torch.no_grad()(lambda: net(z, logsnr))


def walk() -> Callable[[], None]:
    """All of a walk from noise to data by a perceptron."""
    model = VariationalDiffusion(MLP(WALK["shape"][1]))

    def steps() -> None:
        for _ in sample(model, **WALK):
            pass

    return steps


@contextmanager
def unchecked() -> Iterator[None]:
    """Let every check of the library that returns nothing do nothing."""
    functions = [f for f in vars(checks).values() if isfunction(f)]
    silenced = [f for f in functions if f.__annotations__.get("return", ...) is None]
    code = [check.__code__ for check in silenced]
    for check in silenced:
        check.__code__ = (lambda *_, **__: None).__code__
    try:
        yield
    finally:
        for check, own in zip(silenced, code, strict=True):
            check.__code__ = own


def price_of_checks(rounds: int) -> float:
    """The median over rounds of a walk's time by that of the same walk without checks."""
    checked = walk()

    def bare() -> None:
        with unchecked():
            checked()

    times = timings("checks", {"checked": checked, "bare": bare}, rounds)
    return median(a / b for a, b in zip(times["checked"], times["bare"], strict=True))


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def timings(title: str, steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list]:
    """Seconds of each step in each round, after two rounds of warming up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(-2, rounds):
        print(f"\r{title}: round {max(0, i + 1)} of {rounds}", end="", flush=True)
        for name, step in steps.items():
            times[name].append(seconds(step))
    print("\r" + " " * 60, end="\r")
    return {name: values[2:] for name, values in times.items()}


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each step, and the median over rounds of its ratio to ours."""
    ours = times["vdm_lite"]
    return {
        name: {"ms": 1e3 * median(t), "ratio": median(a / b for a, b in zip(t, ours, strict=True))}
        for name, t in times.items()
    }


def table(parameters: dict[str, int], train: dict, sample: dict) -> str:
    head = f"{'':30} {'parameters':>10}" + "".join(
        f" {f'{kind} step, ratio':>25}" for kind in ("training", "sampling")
    )
    rows = [
        f"{name:30} {count:10,}"
        + "".join(f" {r[name]['ms']:12.1f} ms {r[name]['ratio']:7.2f} x" for r in (train, sample))
        for name, count in parameters.items()
    ]
    return "\n".join([head, *rows])


def verdict(peer: str, goal: float, train: dict) -> str:
    ratio = min(result["ratio"] for name, result in train.items() if name.startswith(peer))
    outcome = "reached" if ratio >= goal else "missed"
    return f"{peer}: its training step takes {ratio:.2f} times ours; goal {goal}: {outcome}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    nets = contenders()
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    setting = f"batch {BATCH}, 1x28x28, float32, CPU, {arguments.threads} threads"
    print(f"{setting}, torch {torch.__version__}")
    steps = {name: training_step(net) for name, net in nets.items()}
    train = summary(timings("training step", steps, arguments.rounds))
    steps = {name: sampling_step(net) for name, net in nets.items()}
    sampled = summary(timings("sampling step", steps, arguments.rounds))

    print(table(parameters, train, sampled))
    print(*(verdict(peer, goal, train) for peer, goal in GOALS.items()), sep="\n")
    price = price_of_checks(4 * arguments.rounds)
    outcome = "reached" if price <= PRICE else "missed"
    print(f"checks: a sampling step takes {price:.3f} times as long; goal {PRICE}: {outcome}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"steps-{time.strftime('%Y%m%d-%H%M%S')}.json"
    about = {"setting": setting, "torch": torch.__version__, "machine": platform.platform()}
    results = {"parameters": parameters, "training": train, "sampling": sampled, "checks": price}
    path.write_text(json.dumps(about | results, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
