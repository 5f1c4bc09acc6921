"""Execute the notebooks again whenever the library or a pinned package changed.

Jupyter Book keeps the outputs of a notebook until its code changes; it does not see the library
that the code imports. So the cache's folder is named after a digest of the library and the pins.
Notebooks that are not in it run side by side, as many as the machine has cores, before the pages
are read, which finds them there; one that fails runs again when its page is read, and is reported.
"""

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)

BUDGET = 300
"""Seconds that a cell may take in CI."""


def shipped(root: Path) -> list[Path]:
    """Return the package's files: not what editors, file managers and Python leave beside them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = ["**/*.py", *project["tool"]["setuptools"]["package-data"]["vdm_lite"]]
    found = {path for pattern in patterns for path in (root / "vdm_lite").glob(pattern)}
    return sorted(p for p in found if not any(x.startswith(".") for x in p.relative_to(root).parts))


def digest(root: Path) -> str:
    """Return twelve hexadecimal digits that change with the library and the pins."""
    total = hashlib.sha256()
    for path in [*shipped(root), root / "requirements.txt"]:
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def configure(app: Sphinx, config: Config) -> None:
    """Point MyST-NB to the cache of this very library, and remove those of older ones.

    A reader's build waits for slow cells as long as _config.yml says; in CI they have a budget.
    """
    if os.environ.get("CI") == "true":
        config.nb_execution_timeout = BUDGET
    root = Path(app.srcdir)
    cache = root / "_build" / f".jupyter_cache-{digest(root)}"
    for old in set(cache.parent.glob(".jupyter_cache-*")) - {cache}:
        shutil.rmtree(old)
    # A changed value of this setting also makes Sphinx read every page again.
    config.nb_execution_cache_path = str(cache)


def execute(app: Sphinx) -> None:
    """Run the notebooks of the book that the cache does not hold."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    paths = sorted(Path(app.srcdir, "notebooks").glob("*.ipynb"))
    known = [cache.add_nb_to_project(str(path)).pk for path in paths]
    if missing := cache.list_unexecuted(filter_pks=known):
        logger.info("Executing %d notebooks, which takes minutes", len(missing))
        executor = load_executor("local-parallel", cache)
        executor.logger.setLevel("INFO")  # it says which notebook it takes up, and which is done
        executor.run_and_cache(filter_pks=known, timeout=app.config.nb_execution_timeout)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("config-inited", configure)
    app.connect("builder-inited", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
