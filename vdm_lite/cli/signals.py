"""Ctrl-C and the other ways to ask a process to end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end a process that waits for others: Python would answer after the wait only."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:  # else somebody wants something else
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stopping(engine: "Fabric") -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a question: whether this process was asked to stop.

    The first asks the run to end after its step, with a checkpoint; the second ends it at once.
    """
    since = None
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # the terminal is closed; not on every system
    if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup
        numbers.append(hangup)

    # It comes in the midst of anything: of a transformed function, which forbids to change tensors,
    # or of a print. So it does neither.
    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal since
        # A terminal tells all processes, and a launcher tells its own once more: that is one time.
        if since is not None and time.monotonic() - since > 2:
            raise KeyboardInterrupt
        if since is None and engine.is_global_zero:
            _say(b"\nStopping after this step; once more to stop at once\n")
        since = since or time.monotonic()

    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: since is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(message: bytes) -> None:
    """Write to stderr; what can be written to no more, as its terminal was closed, goes nowhere."""
    for fd, content in ((2, message), (1, b"")):
        try:
            os.write(fd, content)
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), fd)
