"""Give the pages that hold widgets what these need: one loader, one style sheet, the modules.

Pages without widgets load none of it. MyST-NB would also write the whole state of every widget into
the page, for a widget manager that these pages do not have: it is left out, as are other scripts
that a page does not use.
"""

import shutil
from pathlib import Path
from typing import Any

import rjsmin
from docutils import nodes
from sphinx.application import Sphinx

STATE = "application/vnd.jupyter.widget-state+json"

# With them Sphinx's own search marks what it has found; ours leads to the place.
MARKING = ("doctools.js", "sphinx_highlight.js")

# Browsers load no modules, so no loader either, into a page that was opened as a file.
AS_FILE = """
if (location.protocol === "file:")
  document.addEventListener("DOMContentLoaded", () => {
    for (const words of document.querySelectorAll("[data-widget] > p"))
      words.textContent =
        "This live widget needs a server. In the book's folder: make serve";
  });
"""


def add_loader(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Link the loader and the style sheet where there is a widget; drop what nobody uses."""
    body, scripts = context.get("body", ""), context.get("script_files", [])
    scripts[:] = [file for file in scripts if wanted(file, body, page)]
    if "data-widget=" in body:
        app.add_js_file("widgets/loader.js", type="module")
        app.add_js_file(None, body=rjsmin.jsmin(AS_FILE))
        app.add_css_file("widgets/widget.css")


def wanted(file: Any, body: str, page: str) -> bool:
    """Whether a page needs this script."""
    name = str(getattr(file, "filename", ""))
    if name.endswith("design-tabs.js") and "sd-tab-set" not in body:
        return False
    if name.endswith(MARKING) and page != "search":
        return False
    return getattr(file, "attributes", {}).get("type") != STATE


def copy_modules(app: Sphinx) -> None:
    """Copy the modules of ``vdm_lite.widgets`` into the site, without comments and blanks."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "widgets")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(Path(app.srcdir, "vdm_lite", "widgets", "js"), target)
    for path in target.rglob("*.js"):
        path.write_text(rjsmin.jsmin(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("builder-inited", copy_modules)
    app.connect("html-page-context", add_loader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
