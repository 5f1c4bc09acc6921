"""Execute the notebooks again whenever the library or a pinned package changed.

Jupyter Book keeps the outputs of a notebook until its code changes; it does not see the library
that the code imports. So the cache's folder is named after a digest of the library and the pins.
"""

import hashlib
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def digest(root: Path) -> str:
    """Return twelve hexadecimal digits that change with the library and the pins."""
    library = (p for p in (root / "vdm_lite").rglob("*") if p.is_file() and p.suffix != ".pyc")
    total = hashlib.sha256()
    for path in sorted([*library, root / "requirements.txt"]):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def name_cache(app: Sphinx, config: Config) -> None:
    """Point MyST-NB to the cache of this very library, and remove those of older ones."""
    root = Path(app.srcdir)
    cache = root / "_build" / f".jupyter_cache-{digest(root)}"
    for old in set(cache.parent.glob(".jupyter_cache-*")) - {cache}:
        shutil.rmtree(old)
    # A changed value of this setting also makes Sphinx read every page again.
    config.nb_execution_cache_path = str(cache)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("config-inited", name_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
