"""A dataclass as options of argparse, and what the words of a command line are read as.

Bad input ends the process with one line and exit code 2, without the page of usage.
"""

import argparse
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

DATA = ("fashion-mnist-subset", "fashion-mnist", "digits", "mnist", "cifar10")
"""Data sets that have a name; others are paths."""


def option(text: str, read: Callable | None = None, **argument: Any) -> dict[str, Any]:
    """What makes a field an option, as ``Annotated[type, option(...)]``.

    ``text`` is its help; ``read`` makes the value of a word; the rest goes to ``add_argument``.
    """
    return {"text": text, **({"type": read} if read else {}), **argument}


def add_options(parser: argparse.ArgumentParser, command: type) -> None:
    """The fields of ``command`` as options: one group for each of its bases, with its title."""
    annotations = get_type_hints(command, include_extras=True)
    for base in command.__bases__:
        group = parser.add_argument_group(base.title, base.about)
        for each in fields(base):
            (argument,) = annotations[each.name].__metadata__
            _add(group, each, **argument)


def _add(group: argparse._ArgumentGroup, each: Field, text: str, **argument: Any) -> None:
    argument |= {"required": True} if each.default is MISSING else {"default": each.default}
    # Afterwards, because some actions add the default to a help.
    group.add_argument(as_option(each.name), **argument).help = text


def as_option(name: str) -> str:
    """A name as it is typed: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the page of usage that ``--help`` gives."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)  # a wrong name is not taken for another

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help explains)\n")


class Form(argparse.HelpFormatter):
    """Choices stand in the help and not in its margin; a default is shown where there is one."""

    def _metavar_formatter(self, action: argparse.Action, default: str) -> Callable:
        action.metavar = action.metavar or ("NAME" if action.choices else KINDS.get(action.type))
        return super()._metavar_formatter(action, default)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if action.choices:
            text += f": {', '.join(action.choices)}"
        if isinstance(default, tuple) and default:
            return f"{text} (default: {' '.join(map(str, default))})"
        shown = isinstance(default, str | int | float) and not isinstance(default, bool)
        return f"{text} (default: {default})" if shown and action.nargs != 0 else text


def _number(kind: Callable, accepts: Callable[[float], bool], what: str) -> Callable:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return read


def _whole(low: int, high: int) -> Callable:
    return _number(int, lambda n: low <= n <= high, f"a whole number from {low} to {high}")


def file(text: str) -> Path:
    """A path; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return Path(text)


def images(text: str) -> str:
    """The name of a data set, or a path, made absolute: a checkpoint keeps it."""
    if text in DATA:
        return text
    if not text or not Path(text).exists():
        expected = f"{', '.join(DATA)}, or a path of images"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}, which is not there")
    return str(Path(text).resolve())


count = _whole(1, 10**9)
whole = _whole(0, 10**9)
side = _whole(1, 4096)
shown = _whole(0, 10_000)
seed = _number(int, lambda n: 0 <= n < 2**40, "a whole number from 0 to below 2^40")
positive = _number(float, lambda v: 0 < v < float("inf"), "a positive number")
fraction = _number(float, lambda v: 0 <= v < 1, "a number from 0 to below 1")
KINDS = {file: "PATH", images: "NAME", int: "N", float: "X"}
KINDS |= dict.fromkeys((count, whole, side, shown, seed), "N")
KINDS |= dict.fromkeys((positive, fraction), "X")
