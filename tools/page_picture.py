"""Take the README's picture of a real page: make book, then python tools/page_picture.py."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
SITE, PAGE = ROOT / "_build/html", "notebooks/04_forward_process.html"
PICTURE = ROOT / "book/_static/page.png"


@contextmanager
def served() -> Iterator[str]:
    """Address of the site: a widget needs a server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def main() -> None:
    """Photograph chapter 4 where a cell, a figure and a live widget stand together."""
    with served() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{site}/{PAGE}", wait_until="networkidle")
        page.evaluate("document.fonts.ready.then(() => true)")
        figure = page.locator("figure").nth(1)
        figure.evaluate("figure => window.scrollTo(0, figure.offsetTop - 250)")
        page.wait_for_timeout(2000)
        page.screenshot(path=PICTURE)
        browser.close()
    Image.open(PICTURE).convert("RGB").quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
