"""Take the README's picture of a real page: make book, then python tools/page_picture.py."""

import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "_build/html/notebooks/04_forward_process.html"
PICTURE = ROOT / "book/_static/page.png"


def main() -> None:
    """Photograph chapter 4 where a cell, a figure and a derivation stand together."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(PAGE.as_uri(), wait_until="networkidle")
        page.evaluate("window.MathJax.startup.promise")
        figure = page.locator("figure").nth(1)
        figure.evaluate("figure => window.scrollTo(0, figure.offsetTop - 250)")
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURE)
        browser.close()
    Image.open(PICTURE).convert("RGB").quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
