"""The API reference: what autodoc reads from the docstrings, with links to the equations."""

import re
from typing import Any

from sphinx.application import Sphinx

LABEL = re.compile(r"\((eq-[\w-]+)\)")
NAME = re.compile(r":(func|class|meth|data):`(?=\w+`)")


def link(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn each label of an equation, as in ``(eq-marginal)``, into a link to it.

    A name alone is looked for in its module first, then everywhere: so says the dot before it.
    """
    lines[:] = [NAME.sub(r":\1:`.", LABEL.sub(r":eq:`\1`", line)) for line in lines]


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple: its signature and its docstring name them."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("autodoc-process-docstring", link)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
