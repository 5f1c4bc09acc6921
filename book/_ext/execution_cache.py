"""Execute the notebooks again whenever the library or a pinned package changed.

Jupyter Book keeps the outputs of a notebook until its code changes; it does not see the library
that the code imports. So the cache's folder is named after a digest of the library and the pins.
"""

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

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


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("config-inited", configure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
