"""Errors of the machine and not of the options: too little memory, no compiler."""

import torch

from vdm_lite.cli.options import Command, Evaluate, Sample, Train

MEMORY = (
    "can't allocate memory",  # Linux, macOS
    "not enough memory",  # Windows
    "size calculation overflowed",  # more than could be addressed
    "out of memory",  # accelerators
)
LESS = {
    Train: "a larger --accumulate, which changes nothing else, a smaller --batch-size, smaller "
    "--widths, or fewer --images",
    Evaluate: "a smaller --batch-size",
    Sample: "a smaller --batch-size, a smaller --size, or fewer --images",
}


def in_words(command: type[Command], error: RuntimeError | MemoryError) -> OSError | None:
    """The error as one line with advice; None for one that the machine is not to blame for."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if known or any(words in str(error) for words in MEMORY):
        return OSError(f"out of memory: take {LESS[command]}")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        said = str(error).partition("\n")[0]
        advice = "install a C++ compiler such as g++, or leave --compile out"
        return OSError(f"--compile: the network cannot be compiled here: {advice} ({said})")
    return None
