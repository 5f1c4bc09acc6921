"""What all tests share: fixed seeds, no windows, and the independent implementations."""

import importlib
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import browsing
import hypothesis
import processes
import pytest
import torch

ROOT = Path(__file__).parents[1]

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
os.environ.setdefault("MPLBACKEND", "Agg")


def missing(reason: str) -> None:
    """Skip the test for this reason; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI may not skip: {reason}")
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the files that took longest."""
    seconds: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if hasattr(report, "duration"):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    if seconds.total() > 60:
        terminalreporter.section("seconds by file")
        for file, total in seconds.most_common(20):
            terminalreporter.write_line(f"{total:7.1f}  {file}")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start each test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def referee() -> Callable[[str], ModuleType]:
    """Import an independent implementation; skip the test where it is not installed."""

    def load(name: str) -> ModuleType:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            missing(f"{name} is not installed: make test installs it")
        return importlib.import_module(name)

    return load


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many threads here as in the processes of ``launch``: with others, sums round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Server]:
    """Run ``vdm-lite`` in one process of its own, or in several."""
    server = processes.Server(tmp_path_factory.mktemp("processes"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests of a process."""
    if not browsing.CHROMIUM:
        missing("no chromium or google-chrome on this machine")
    with browsing.launch() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def widget_server() -> Iterator[Any]:
    """Serve the widgets' modules, and pages made by the tests."""
    with browsing.serve(browsing.ROOT / "vdm_lite" / "widgets") as server:
        server.pages["/blank.html"] = browsing.PAGE.format(theme="light", background="", body="")
        yield server


@pytest.fixture(scope="module")
def javascript(browser: Any, widget_server: Any) -> Iterator[Callable[..., list]]:
    """Call an exported function of a widget's module in the browser, once for each arguments."""
    page = browser.new_page()
    page.goto(widget_server.address + "blank.html")

    def call(module: str, name: str, calls: list[list]) -> list:
        return page.evaluate(browsing.CALL, [f"/js/{module}.js", name, calls])

    yield call
    page.close()


@pytest.fixture
def show(browser: Any, widget_server: Any) -> Iterator[Callable[..., browsing.Shown]]:
    """Show a widget on a page of its own, as the website does."""
    contexts, numbers = [], count()

    def open_widget(
        widget: Any,
        theme: str = "light",
        viewport: dict[str, int] = browsing.DESKTOP,
        link: str = "",
        **context: Any,
    ) -> browsing.Shown:
        name = f"page{next(numbers)}.html"
        background = "#15181d" if theme == "dark" else "#ffffff"
        widget_server.pages[f"/{name}"] = browsing.PAGE.format(
            theme=theme, background=background, body=widget.html()
        )
        contexts.append(browser.new_context(viewport=viewport, **context))
        return browsing.Shown(contexts[-1], widget_server.address + name + link)

    yield open_widget
    for each in contexts:
        each.close()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy what relink reads and writes, and relink itself."""
    for path in ("pyproject.toml", "CITATION.cff", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / path, tmp_path)
    for folder in ("book", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path
