"""The command line ``vdm-lite train | evaluate | sample``; ``vdm-lite COMMAND --help`` explains it.

Bad input ends with one line on stderr and exit code 2. Where the library takes callables, a command
line has names: those of a model stand in ``vdm_lite.config``, which reads them from files, too, and
those of its training and sampling in ``options``.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from vdm_lite.command import evaluating, options, sampling, training
from vdm_lite.engine import ElsewhereError

COMMANDS = {"train": training.run, "evaluate": evaluating.run, "sample": sampling.run}
LESS_MEMORY = {
    "train": "a larger --accumulate, which changes nothing else, a smaller --batch-size, "
    "or fewer --images",
    "evaluate": "a smaller --batch-size",
    "sample": "fewer --images",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code of the process."""
    given = options.parser().parse_args(arguments)
    try:
        return COMMANDS[given.command](given)
    except KeyboardInterrupt:
        return _complain(given, InterruptedError("stopped"), 130)
    except FloatingPointError as error:
        return _complain(given, error, 1)
    except torch.cuda.OutOfMemoryError:
        advice = LESS_MEMORY[given.command]
        return _complain(given, MemoryError(f"the device is out of memory: take {advice}"), 2)
    except ElsewhereError:
        return 2
    except (ValueError, OSError) as error:
        return _complain(given, error, 2)


def train(arguments: Sequence[str] | None = None) -> int:
    """``python -m vdm_lite.training``, the same as ``vdm-lite train``."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def _complain(given: argparse.Namespace, error: Exception, code: int) -> int:
    # All processes are given the same options: one of each machine says what is wrong with them.
    # What a process has met is said by itself.
    if isinstance(error, OSError | MemoryError) or os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"vdm-lite: {options.as_options(error, vars(given))}", file=sys.stderr)
    return code
