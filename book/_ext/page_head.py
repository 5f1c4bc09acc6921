"""What a page tells before it is read: a description for its head, the sizes of its pictures."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

LENGTH = 160
"""Characters of a description that search engines and previews show."""


def description(doctree: nodes.document) -> str:
    """The first paragraph, cut at a word; formulas as they are read in TeX are left out."""
    for paragraph in doctree.findall(nodes.paragraph):
        if not any(paragraph.findall(nodes.math)):
            words = " ".join(paragraph.astext().split())
            if len(words) > 40:
                return words if len(words) <= LENGTH else words[:LENGTH].rsplit(" ", 1)[0] + " …"
    return ""


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write the description, and what social networks show of a link to the page."""
    if doctree is None:
        return
    words = description(doctree)
    if words:
        content = app.builder.templates.environment.filters["escape"](words)
        context["metatags"] += f'\n<meta name="description" content="{content}" />'
        context["metatags"] += f'\n<meta property="og:description" content="{content}" />'
    context["metatags"] += f'\n<meta property="og:title" content="{context["title"]}" />'
    context["metatags"] += '\n<meta property="og:type" content="article" />'
    context["body"] = with_sizes(app, context["body"])


def with_sizes(app: Sphinx, body: str) -> str:
    """Give each picture its width and height, so that the text below it does not move."""
    sources = {name: source for source, name in app.builder.images.items()}

    def sized(found: re.Match) -> str:
        source = sources.get(Path(found[1]).name)
        if source is None or not source.endswith(".png"):
            return found[0]
        with Image.open(Path(app.srcdir, source)) as picture:
            width, height = picture.size
        return f'{found[0]} width="{width}" height="{height}" loading="lazy"'

    return re.sub(r'<img [^>]*?src="([^"]*)"(?![^>]* width=)', sized, body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
