"""Serve MathJax from the site itself, so that no page asks another host for anything."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)

# The whole package is 24 MB; these parts are what a page with CHTML output can ask for.
PARTS = ("tex-chtml.js", "input/tex", "output/chtml", "a11y", "ui", "sre")


def package(app: Sphinx) -> Path:
    """Return the folder where npm puts MathJax."""
    return Path(app.srcdir, "node_modules/mathjax/es5")


def choose_path(app: Sphinx, config: Config) -> None:
    """Load MathJax from the site if npm brought it, or say that the pages will use the CDN."""
    if package(app).exists():
        config.mathjax_path = "mathjax/tex-chtml.js"
    else:
        logger.info("MathJax was not installed (no npm): the pages load it from its public CDN.")


def copy_mathjax(app: Sphinx) -> None:
    """Copy MathJax into the site, once."""
    source, target = package(app), Path(app.outdir, "_static/mathjax")
    if app.builder.format != "html" or not source.exists() or target.exists():
        return
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy
        copy(source / part, target / part)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("config-inited", choose_path)
    app.connect("builder-inited", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
