"""Headless Chromium for the tests: pages of the built site, and widgets on pages of their own."""

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), ""
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 300
"""Seconds until something counts as hung: a slow machine is no failure."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CALM = "() => document.fonts.ready.then(() => true)"
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>A widget</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="js/widget.css">
<style>body {{ font-family: sans-serif; margin: 12px; background: {background} }}</style>
<script type="module" src="js/loader.js"></script></head>
<body><main><h1>A widget</h1>{body}</main></body></html>"""
CALL = """async ([path, name, calls]) => {
  const module = await import(path);
  return calls.map((call) => module[name](...call));
}"""


class Server(http.server.ThreadingHTTPServer):
    """Serve files to a browser that may close a page before all of them have come."""

    def handle_error(self, *where: Any) -> None:
        """Report what goes wrong, but for a connection that the browser has dropped."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*where)


class Files(http.server.SimpleHTTPRequestHandler):
    """Serve a folder and the pages in ``server.pages``, without a log."""

    def do_GET(self) -> None:
        """Answer with a page from memory, or with a file."""
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a folder on this machine; the server knows its ``address``."""
    handler = functools.partial(Files, directory=folder)
    with Server(("127.0.0.1", 0), handler) as server:
        server.pages = {}
        server.address = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def launch() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """One opened page, and what it complained of or asked for on the way."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", self.listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", self.refuse)
        page.goto(url, wait_until="load")
        page.wait_for_load_state("networkidle")
        page.evaluate(CALM)

    def refuse(self, request: Any) -> None:
        """Keep failed requests; one that the browser drops as the page leads on is no failure."""
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(request.url)

    def listen(self, message: Any) -> None:
        """Keep warnings and errors; the theme's own log lines are no complaint."""
        if message.type in ("warning", "error"):
            self.complaints.append(message.text)


class Shown(Visit):
    """A widget in its HTML form on a page of its own, and hands to move its controls."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        super().__init__(context.new_page(), url)
        self.page.wait_for_selector("[data-widget][data-ready]")
        self.settle()

    def settle(self) -> None:
        """Wait until the widget has drawn."""
        self.page.evaluate(FRAMES)

    def type(self, name: str, text: str) -> None:
        """Type into the number field of ``name`` and press Enter."""
        field = self.page.locator(f'.vdm input[id$="-{name}-typed"]')
        field.fill(text)
        field.press("Enter")
        self.settle()

    def slide(self, name: str, keys: list[str]) -> None:
        """Press keys on the slider of ``name``."""
        slider = self.page.locator(f'.vdm input[type=range][id$="-{name}"]')
        for key in keys:
            slider.press(key)
        self.settle()

    def choose(self, name: str, option: str) -> None:
        """Choose from the list of ``name``."""
        self.page.locator(f'.vdm select[id$="-{name}"]').select_option(option)
        self.settle()

    def check(self, name: str, on: bool) -> None:
        """Switch ``name`` on or off."""
        self.page.locator(f'.vdm input[type=checkbox][id$="-{name}"]').set_checked(on)
        self.settle()

    def read(self, key: str) -> float:
        """The number of a read-out, with all its digits."""
        return float(self.page.locator(f'data[data-readout="{key}"]').get_attribute("value"))

    def get(self, name: str) -> Any:
        """A field of the widget's state."""
        return self.page.evaluate(
            "name => document.querySelector('[data-widget]').model.get(name)", name
        )

    def link(self) -> str:
        """What the address bar holds after the page's address."""
        return self.page.evaluate("location.hash")
