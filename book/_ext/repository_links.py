"""Buttons to the repository and to Colab, shown only once the repository has an address."""

from pathlib import Path

from relink import PLACEHOLDER, address
from sphinx.application import Sphinx
from sphinx.config import Config


def add_buttons(app: Sphinx, config: Config) -> None:
    """Fill the theme's options from pyproject.toml; pages may ask ``{only} published``."""
    repository = address(Path(app.srcdir))
    published = repository != PLACEHOLDER
    if published:
        app.tags.add("published")
    config.html_theme_options |= {
        "repository_url": repository if published else "",
        "repository_branch": "main",
        "use_repository_button": published,
        "use_issues_button": published,
        "launch_buttons": {"colab_url": "https://colab.research.google.com" if published else ""},
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("config-inited", add_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
