"""The command line ``vdm-lite train | evaluate | sample``; ``vdm-lite COMMAND --help`` explains it.

Bad input ends with one line on stderr and exit code 2. Where the library takes callables, a command
line has names: those of a model stand in ``vdm_lite.config``, which reads them from files, too, and
those of its training and sampling in ``options``.
"""

import argparse
import sys
from collections.abc import Sequence

from vdm_lite.cli import engines, environment, evaluating, folders, options, sampling, training
from vdm_lite.training.engine import ElsewhereError

COMMANDS = {"train": training.run, "evaluate": evaluating.run, "sample": sampling.run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code of the process."""
    words = sys.argv[1:] if arguments is None else arguments
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows ±
    given = options.parser().parse_args(words)
    try:
        if given.command == "train" and given.resume:
            given = _as_before(given, words)
        return COMMANDS[given.command](given)
    except KeyboardInterrupt:
        return _complain(given, InterruptedError("stopped"), 130)
    except FloatingPointError as error:
        return _complain(given, error, 1)
    except ElsewhereError:
        return 2
    except (ValueError, OSError) as error:
        return _complain(given, error, 2)
    except (RuntimeError, MemoryError) as error:
        in_words = environment.in_words(given, error)
        if in_words is None:
            raise
        return _complain(given, in_words, 2)


def _as_before(given: argparse.Namespace, words: Sequence[str]) -> argparse.Namespace:
    """What ``words`` ask for, and for the rest what the run in the folder was asked for."""
    # They come later, and of an option that is given twice the later one counts.
    return options.parser().parse_args([words[0], *folders.kept_options(given), *words[1:]])


def _complain(given: argparse.Namespace, error: Exception, code: int) -> int:
    # All processes are given the same options: one of each machine says what is wrong with them.
    # What a process has met is said by itself.
    if isinstance(error, OSError) or engines.speaks(given):
        print(f"vdm-lite: {options.as_options(error, vars(given))}", file=sys.stderr)
    return code
