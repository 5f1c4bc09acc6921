"""The command line ``vdm-lite train | evaluate | sample``; ``vdm-lite COMMAND --help`` explains it.

Bad input ends with one line on stderr and exit code 2. Where the library takes callables, a command
line has names: those of a model stand in ``vdm_lite.training.config``, which reads them from files,
too, and those of its training and sampling in ``options``.
"""

import sys
import warnings
from collections.abc import Callable, Sequence

from vdm_lite.cli import engines, environment, evaluating, folders, sampling, training
from vdm_lite.cli.options import Command, Evaluate, Sample, Train, in_options, parse
from vdm_lite.training.engine import ElsewhereError

RUN: dict[type[Command], Callable[..., int]] = {
    Train: training.run,
    Evaluate: evaluating.run,
    Sample: sampling.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code of the process."""
    typed = sys.argv[1:] if arguments is None else arguments
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows ±
    # At its first forward derivative torch 2.15 warns of a function that it calls itself.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is", FutureWarning)
    options = parse(typed)
    try:
        if isinstance(options, Train) and options.resume:
            # What is typed comes later, and of an option that is given twice the later one counts.
            options = parse([typed[0], *folders.kept_options(options.out), *typed[1:]])
        return RUN[type(options)](options)
    except KeyboardInterrupt:
        return _complain(options, InterruptedError("stopped"), 130)
    except FloatingPointError as error:
        return _complain(options, error, 1)
    except ElsewhereError:
        return 2
    except (ValueError, OSError) as error:
        return _complain(options, error, 2)
    except (RuntimeError, MemoryError) as error:
        in_words = environment.in_words(type(options), error)
        if in_words is None:
            raise
        return _complain(options, in_words, 2)


def _complain(options: Command, error: Exception, code: int) -> int:
    # All processes are given the same options: one of each machine says what is wrong with them.
    # What a process has met is said by itself.
    if isinstance(error, OSError) or engines.speaks(options):
        print(f"vdm-lite: {in_options(error, type(options))}", file=sys.stderr)
    return code
