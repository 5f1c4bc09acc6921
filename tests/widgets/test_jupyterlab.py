"""Widgets in a real JupyterLab: server, kernel and Chromium, linked both ways."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from browsing import PATIENCE
from conftest import missing
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Locator, Page, expect

from vdm_lite.runs.ch12.denoiser import WEIGHTS
from vdm_lite.widgets import ALL, Denoiser

TOKEN = "for-this-test-only"
SETTINGS = {  # no questions on the first visit, and every cell in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
PANEL = """
import torch
from vdm_lite.widgets.training import TrainingPanel

class Net(torch.nn.Linear):
    factor = 1.0

    def loss(self, batch, generator=None):
        return self.factor * (self(batch) - batch).square().sum(1)

panel = TrainingPanel(
    lambda: Net(2, 2), torch.randn(64, 2), 100_000, lambda model, ax: ax.plot([0, 1]), alt="A line."
)
panel
"""
RUN_ALL = """async () => {
  const notebook = window.jupyterapp.shell.currentWidget;
  await notebook.context.ready;
  await notebook.sessionContext.ready;
  await notebook.sessionContext.session.kernel.info;
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""
# The last cell is where the reader asks Python.
RUN_LAST = """async (code) => {
  const { content } = window.jupyterapp.shell.currentWidget;
  content.activeCellIndex = content.widgets.length - 1;
  content.activeCell.model.sharedModel.setSource(code);
  await window.jupyterapp.commands.execute("notebook:run-cell");
  return content.activeCell.model.outputs.toJSON();
}"""


class Server(NamedTuple):
    """A running JupyterLab, and the folder whose notebooks it shows."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start JupyterLab with settings of its own, which asks no other host for news."""
    if importlib.util.find_spec("jupyterlab") is None:
        missing("jupyterlab is not installed")
    home = tmp_path_factory.mktemp("jupyter")
    process = subprocess.Popen(
        command(home), env=environment(home), stderr=(home / "log").open("w", encoding="utf-8")
    )
    try:
        yield Server(address(home, process), home / "notebooks")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def command(home: Path) -> list[str]:
    """What starts the server; if the port is taken meanwhile, Jupyter tries others."""
    (home / "notebooks").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "IdentityProvider.token": TOKEN}
    options |= {"ServerApp.root_dir": home / "notebooks", "ServerApp.open_browser": False}
    options |= {"ServerApp.allow_root": True, "ServerApp.terminals_enabled": False}
    options |= {"LabApp.expose_app_in_browser": True, "LabApp.extension_manager": "readonly"}
    options |= {"LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}
    return [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())]


def environment(home: Path) -> dict[str, str]:
    """Folders of its own for everything that Jupyter reads and writes."""
    for name, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
    folders |= {"JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    return {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}}


def address(home: Path, process: subprocess.Popen) -> str:
    """Where the server says that it listens."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        for path in (home / "runtime").glob("jpserver-*.json"):
            written = path.read_text(encoding="utf-8")
            if written.endswith("}"):
                return json.loads(written)["url"]
        time.sleep(0.1)
    process.kill()
    pytest.fail(f"JupyterLab did not start:\n{(home / 'log').read_text(encoding='utf-8')}")


class Notebook:
    """An opened notebook whose cells have run; complaints are those from then on."""

    def __init__(self, page: Page, server: Server, name: str, cells: list[str]) -> None:
        self.page, self.complaints = page, []
        self.requests: list[str] = []
        made = new_notebook(cells=[new_code_cell(source) for source in [*cells, ""]])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(made, server.folder / f"{name}.ipynb")
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        page.goto(f"{server.url}doc/tree/{name}.ipynb?token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context.isReady")
        page.on("console", self.listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.evaluate(RUN_ALL)

    def listen(self, message: Any) -> None:
        """Keep errors and warnings."""
        if message.type in ("warning", "error"):
            self.complaints.append(message.text)

    def output(self, cell: int) -> Locator:
        """What stands below a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def python(self, code: str) -> str:
        """Run code in the last cell; return what it prints."""
        outputs = self.page.evaluate(RUN_LAST, code)
        assert all(output["output_type"] == "stream" for output in outputs), outputs
        return "".join(output["text"] for output in outputs)

    def value(self, expression: str) -> Any:
        """A Python value."""
        return json.loads(self.python(f"import json; print(json.dumps({expression}))"))


@pytest.fixture(scope="module")
def notebook(browser: Browser, server: Server) -> Iterator[Notebook]:
    """All widgets in one notebook, one in each cell: w0, w1, … and then the training panel."""
    shown = [f"w{i} = widgets.{each.__name__}()\nw{i}" for i, each in enumerate(ALL)]
    shown[0] = f"from vdm_lite import widgets\n{shown[0]}"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Notebook(context.new_page(), server, "widgets", [*shown, PANEL])
    context.close()


# Widgets that compute in the page


every_widget = pytest.mark.parametrize("i", range(len(ALL)), ids=[each.__name__ for each in ALL])


@every_widget
def test_widget_renders_in_jupyterlab(notebook, i):
    panel = notebook.output(i).locator(".vdm")
    expect(panel.locator(".vdm-title")).to_have_text(ALL[i].title)
    expect(panel.locator("input, select, [role=slider]").first).to_be_visible()
    assert panel.count() == 1
    assert notebook.output(i).locator(".jp-RenderedText").count() == 0


@every_widget
def test_a_move_in_the_browser_changes_the_trait_and_back(notebook, i):
    name, kind, initial = first_control(ALL[i])
    control = notebook.output(i).locator(f"[id$='-{name}']")
    before = seen(control, kind)
    move(control, kind, ALL[i].class_traits()[name])
    after = seen(control, kind)
    assert after != before
    until(lambda: shown(notebook.value(f"w{i}.{name}")) == after)
    notebook.python(f"w{i}.{name} = {initial!r}")
    until(lambda: seen(control, kind) == before)


def first_control(widget: type) -> tuple[str, str, Any]:
    """Name, kind and initial value of the first control that the panel made."""
    name = next(n for n, control in widget._controls().items() if control["kind"] != "curve")
    trait = widget.class_traits()[name]
    return name, trait.metadata["control"]["kind"], trait.default()


def move(control: Locator, kind: str, trait: Any) -> None:
    """Move a control with the keyboard or the mouse."""
    if kind == "choice":
        others = [option for option in trait.values if option != trait.default()]
        control.select_option(others[0])
    elif kind == "switch":
        control.click()
    else:
        control.press("ArrowLeft" if trait.default() == trait.max else "ArrowRight")


def seen(control: Locator, kind: str) -> str:
    """What the reader sees of a control's value."""
    if kind == "switch":
        return shown(control.is_checked())
    if kind == "choice":
        return control.input_value()
    return control.locator("xpath=..").locator("input[id$='-typed']").input_value()


def shown(value: Any) -> str:
    """A Python value as a control shows it."""
    return f"{value:.6g}".replace("-", "−") if isinstance(value, float) else str(value)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in two processes."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_denoiser_samples_in_the_kernel(notebook):
    if not WEIGHTS.exists():
        missing("there are no trained weights")
    i = ALL.index(Denoiser)
    notebook.python(f"w{i}.steps = 5")
    panel = notebook.output(i).locator(".vdm")
    panel.get_by_role("button", name="Sample").click()
    expect(panel.locator("[data-readout=level]")).to_have_attribute("value", "13.3")
    found = float(panel.locator("[data-readout=bits]").get_attribute("value"))
    assert found == pytest.approx(notebook.value(f"w{i}.bits().sum().item()"), rel=0.05)
    notebook.python(f"w{i}.steps = 50")


# The panel that trains in the kernel


@pytest.fixture
def panel(notebook) -> Locator:
    return notebook.output(len(ALL))


def button(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("button", name=name)


def test_training_starts_pauses_and_resets_by_clicks(notebook, panel):
    status = panel.get_by_role("status")
    expect(status).to_have_text("Ready.")
    expect(button(panel, "Pause")).to_be_disabled()
    button(panel, "Start").click()
    expect(status).to_have_text("Running.")
    expect(panel.get_by_text(re.compile("^Step [1-9]"))).to_be_visible()
    assert notebook.value("panel.step") > 0  # other cells run meanwhile
    button(panel, "Pause").click()
    expect(status).to_have_text("Paused.")
    step = notebook.value("panel.step")
    assert notebook.value("panel.step") == step
    button(panel, "Start").press("Enter")
    expect(status).to_have_text("Running.")
    until(lambda: notebook.value("panel.step") > step)
    button(panel, "Reset").click()
    expect(status).to_have_text("Ready.")
    expect(panel.get_by_text("Step 0 of 100000.")).to_be_visible()
    assert notebook.value("[panel.state, panel.step]") == ["ready", 0]


def test_training_shows_its_pictures_and_its_errors(notebook, panel):
    expect(panel.get_by_role("img", name="A line.")).to_be_visible()
    notebook.python("Net.factor = float('nan')")
    button(panel, "Start").click()
    expect(panel.get_by_role("status")).to_contain_text("FloatingPointError: step 1")
    expect(button(panel, "Start")).to_be_disabled()
    notebook.python("Net.factor = 1.0")
    button(panel, "Reset").click()
    expect(panel.get_by_role("status")).to_have_text("Ready.")


def test_the_console_is_silent_and_no_other_host_is_asked(notebook, server):
    assert notebook.complaints == []
    elsewhere = [u for u in notebook.requests if not u.startswith((server.url, "data:", "blob:"))]
    assert elsewhere == []
