"""Give the pages that hold widgets what these need: one loader, one style sheet, the modules.

Pages without widgets load none of it. MyST-NB would also write the whole state of every widget into
the page, for a widget manager that these pages do not have: it is left out.
"""

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

STATE = "application/vnd.jupyter.widget-state+json"


def add_loader(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Link the loader and the style sheet where there is a widget, and drop the manager's state."""
    scripts = context.get("script_files", [])
    scripts[:] = [file for file in scripts if getattr(file, "attributes", {}).get("type") != STATE]
    if "data-widget=" in context.get("body", ""):
        app.add_js_file("widgets/loader.js", type="module")
        app.add_css_file("widgets/widget.css")


def copy_modules(app: Sphinx) -> None:
    """Copy the modules of ``vdm_lite.widgets`` into the site, before checksums are taken."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "widgets")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for kind in ("*.js", "*.css"):
        for path in Path(app.srcdir, "vdm_lite", "widgets").glob(kind):
            shutil.copy(path, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("builder-inited", copy_modules)
    app.connect("html-page-context", add_loader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
