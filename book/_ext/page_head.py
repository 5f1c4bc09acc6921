"""What a page tells before it is read: a description for its head, the sizes of its pictures."""

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from section_search import words
from sphinx.application import Sphinx

LENGTH = 160
"""Characters of a description that search engines and previews show."""


def description(doctree: nodes.document) -> str:
    """The first paragraph of some length, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        said = " ".join(words(paragraph).split())
        if len(said) > 40:
            return said if len(said) <= LENGTH else said[:LENGTH].rsplit(" ", 1)[0] + " …"
    return ""


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write the description, and what social networks show of a link to the page."""
    if doctree is None:
        return
    said = escape(description(doctree))
    if said:
        context["metatags"] += f'\n<meta name="description" content="{said}" />'
        context["metatags"] += f'\n<meta property="og:description" content="{said}" />'
    title = escape(re.sub(r"<[^>]*>", "", context["title"]), quote=True)
    context["metatags"] += f'\n<meta property="og:title" content="{title}" />'
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
        later = ' loading="lazy"' if found.start() > body.find("<img ") else ""
        return f'{found[0]} width="{width}" height="{height}"{later}'

    return re.sub(r'<img [^>]*?src="([^"]*)"(?![^>]* width=)', sized, body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
