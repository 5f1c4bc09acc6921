"""The command line ``vdm-lite train | evaluate | sample``; ``vdm-lite COMMAND --help`` explains it.

Bad input ends with one line on stderr and exit code 2. Only the command line has names for the
library's callables; they stand in ``options``.
"""

import os
import sys
from collections.abc import Sequence

from vdm_lite.command import evaluating, options, sampling, training

COMMANDS = {"train": training.run, "evaluate": evaluating.run, "sample": sampling.run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code of the process."""
    given = options.parser().parse_args(arguments)
    try:
        return COMMANDS[given.command](given)
    except KeyboardInterrupt:
        return _complain(InterruptedError("stopped"), 130)
    except FloatingPointError as error:
        return _complain(error, 1)
    except (ValueError, OSError) as error:
        return _complain(error, 2)


def train(arguments: Sequence[str] | None = None) -> int:
    """``python -m vdm_lite.training``, the same as ``vdm-lite train``."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def _complain(error: Exception, code: int) -> int:
    # All processes are given the same options: one of each machine says what is wrong with them.
    if isinstance(error, OSError) or os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"vdm-lite: {' '.join(str(error).split())}", file=sys.stderr)
    return code
