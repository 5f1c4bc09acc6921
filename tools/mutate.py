"""Break the library on purpose and see that the tests of every equation notice.

For each equation label: run its tests once and record which lines of the core they execute; then
flip a sign or drop a factor on one of those lines and run them again, until a mutant makes them
fail. A label whose tests stay green under every mutant tried has a test that cannot fail.

    python tools/mutate.py                 every label
    python tools/mutate.py --sample 6      six labels, drawn at random
    python tools/mutate.py eq-posterior    this label
"""

import argparse
import ast
import importlib.machinery
import importlib.util
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (the heavy imports happen once, not in every forked child)
import pytest
import torch  # noqa: F401
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
NOT_CORE = {"__init__", "checks", "checkpoints", "data", "runs", "figures", "cli"}
PATHS = (path.relative_to(ROOT) for path in sorted((ROOT / "vdm_lite").rglob("*.py")))
CORE = [path.with_suffix("") for path in PATHS if not NOT_CORE & {path.stem, *path.parts}]
FILES = {f"{ROOT / path}.py": ".".join(path.parts) for path in CORE}
Line = tuple[str, int]


class Labels:
    """Pytest plugin that notes the tests of each equation label instead of running them."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("equation"):
                for label in mark.args:
                    self.tests.setdefault(label, []).append(item.nodeid)


def in_child(work: Callable[[], object]) -> object:
    """Run ``work`` in a forked child without output, and return what it returns."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def target() -> None:
        with open(os.devnull, "w", encoding="utf-8") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        send.send(work())

    child = context.Process(target=target)
    child.start()
    send.close()  # else a child that dies would leave us waiting
    result = receive.recv()
    child.join()
    return result


class Watch:
    """Pytest plugin that notes the core's lines that tests execute, and how the tests fail."""

    def __init__(self, trace: bool) -> None:
        self.trace, self.lines, self.wrong = trace, set(), False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        sys.settrace(self._enter if self.trace else None)
        try:
            return (yield)
        except AssertionError:
            self.wrong = True  # a number was wrong; any other error is only a crash
            raise
        finally:
            sys.settrace(None)

    def _enter(self, frame, event, _):
        if frame.f_code.co_filename not in FILES:
            return None
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._enter


def run(arguments: list[str], plugin: object) -> bool:
    """Whether pytest is content; it runs without the environment's plugins, for speed."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(ROOT)]
    return pytest.main([*options, *arguments], plugins=[plugin]) == pytest.ExitCode.OK


def executed(tests: list[str]) -> set[Line]:
    """The lines of the core that the tests execute; they have to pass on the sound library."""
    watch = Watch(trace=True)
    return watch.lines if run(tests, watch) else set()


def broken(node: ast.AST) -> ast.AST | None:
    """The node with a flipped sign or without a factor, or None where there is neither."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return ast.BinOp(left, ast.Sub(), right)
        case ast.BinOp(left, ast.Sub(), right):
            return ast.BinOp(left, ast.Add(), right)
        case ast.BinOp(_, ast.Mult(), right):
            return right
        case ast.BinOp(left, ast.Div(), _):
            return left
        case ast.UnaryOp(ast.USub(), operand):
            return operand
    return None


class Break(ast.NodeTransformer):
    """Break the ``wanted``-th place of a module that can be broken; note the line of each."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.places = wanted, []

    def generic_visit(self, node: ast.AST) -> ast.AST:
        replacement = broken(node)
        if replacement is not None:
            self.places.append(node.lineno)
            if len(self.places) - 1 == self.wanted:
                return ast.copy_location(replacement, node)
        return super().generic_visit(node)


def mutants(lines: set[Line]) -> Iterator[tuple[str, int, int]]:
    """(file, place, line) of every break on the lines given."""
    for file in FILES:
        visitor = Break()
        visitor.visit(ast.parse(Path(file).read_text(encoding="utf-8")))
        yield from ((file, i, n) for i, n in enumerate(visitor.places) if (file, n) in lines)


def survives(tests: list[str], file: str, place: int) -> bool:
    """Whether no assertion fails although one place of ``file`` is broken."""
    tree = Break(place).visit(ast.parse(Path(file).read_text(encoding="utf-8")))
    code = compile(ast.fix_missing_locations(tree), file, "exec")

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname):
            return code

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == FILES[file]:
                return importlib.util.spec_from_loader(name, Loader(name, file))
            return None

    sys.meta_path.insert(0, Finder)
    watch = Watch(trace=False)
    run(tests, watch)
    return not watch.wrong


def check(tests: list[str], tries: int, rng: random.Random) -> str | None:
    """None if some mutant makes the tests fail, else what was tried."""
    candidates = sorted(mutants(in_child(lambda: executed(tests))))
    rng.shuffle(candidates)
    for file, place, _ in candidates[:tries]:
        if not in_child(lambda file=file, place=place: survives(tests, file, place)):
            return None
    tried = [f"{Path(file).name}:{line}" for file, _, line in candidates[:tries]]
    return ", ".join(tried) or "the tests fail, or touch no formula of the library"


def main() -> int:
    """Check the labels asked for and list those whose tests stay green."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", nargs="*", help="equation labels (default: all)")
    parser.add_argument("--sample", type=int, help="check only this many, drawn at random")
    parser.add_argument("--tries", type=int, default=10, help="mutants a label (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    found = in_child(collect)
    labels = options.labels or sorted(found)
    if options.sample:
        labels = rng.sample(labels, min(options.sample, len(labels)))
    green = {}
    for label in tqdm(labels, unit="label"):
        tried = check(found[label], options.tries, rng)
        if tried is not None:
            green[label] = tried
    for label, tried in green.items():
        print(f"{label}: its tests stay green; tried {tried}")
    print(f"{len(labels) - len(green)} passed, {len(green)} failed")
    return bool(green)


def collect() -> dict[str, list[str]]:
    """The tests of each label."""
    labels = Labels()
    run(["--collect-only", "-m", "equation", "tests"], labels)
    return labels.tests


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
