"""Search that leads to sections: titles, prose and glossary, without code and formulas.

The page ``search.html`` searches with MiniSearch, which npm brings; without npm it stays Sphinx's.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

LIBRARY = "node_modules/minisearch/dist/umd/index.js"
SILENT = (nodes.math_block, nodes.literal_block, nodes.raw, nodes.comment)
FOLDER = "_static/search"
LISTS = ("book/contents", "book/equations", "book/bibliography")
"""Pages that only list what others say."""


def words(node: nodes.Node) -> str:
    """What is said below a node: no code, no formula of its own line, no section with a title."""
    titled = isinstance(node, nodes.section) and isinstance(node[0], nodes.title)
    if titled or isinstance(node, (*SILENT, nodes.title, addnodes.glossary)):
        return ""
    if isinstance(node, nodes.math):  # as the extension mathematics has left it
        return "".join(node.get(part, "") for part in ("before", "shown", "after"))
    if isinstance(node, nodes.Text):
        return node.astext()
    return said(node.children, "" if isinstance(node, nodes.TextElement) else " ")


def said(parts: list[nodes.Node], apart: str) -> str:
    """What the parts say, in one line."""
    return " ".join(apart.join(map(words, parts)).split(" "))


def _title(title: nodes.title) -> str:
    return " ".join(said(title.children, "").split())


def entries(document: str, doctree: nodes.document, uri: str) -> Iterator[dict[str, str]]:
    """One entry for each section and each term of a page."""
    heading = next(doctree.findall(nodes.title), None)
    page = "" if heading is None else _title(heading)
    for section in doctree.findall(nodes.section):
        if not isinstance(section[0], nodes.title):  # what stands in an exercise or a solution
            continue
        top = isinstance(section.parent, nodes.document)
        text = " ".join(said(section.children, " ").split())
        url = uri if top else f"{uri}#{section['ids'][0]}"
        yield {"url": url, "title": _title(section[0]), "page": "" if top else page, "text": text}
    for item in doctree.findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            if term["ids"] and term["ids"][0].startswith("term-"):
                text = " ".join(words(item[-1]).split())
                url = f"{uri}#{term['ids'][0]}"
                yield {"url": url, "title": term.astext(), "page": page, "text": text, "term": "1"}


def write(app: Sphinx, exception: Exception | None) -> None:
    """Put the entries, other words for them, and MiniSearch into the site."""
    library = Path(app.srcdir, LIBRARY)
    if exception or app.builder.format != "html" or not library.exists():
        return
    found = []
    for document in sorted(app.env.found_docs.difference(LISTS)):
        uri = app.builder.get_target_uri(document)
        found += entries(document, app.env.get_and_resolve_doctree(document, app.builder), uri)
    spellings = yaml.safe_load(Path(app.srcdir, "book/spellings.yml").read_text(encoding="utf-8"))
    target = Path(app.outdir, FOLDER)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(library, target / "minisearch.js")
    # A script, for a page that was opened as a file cannot fetch.
    content = f"const ENTRIES = {json.dumps(found)};\nconst SPELLINGS = {json.dumps(spellings)};\n"
    (target / "entries.js").write_text(content, encoding="utf-8")


def choose(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> str | None:
    """Take our page for searches, if npm brought MiniSearch."""
    ours = page == "search" and Path(app.srcdir, LIBRARY).exists()
    return "section_search.html" if ours else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("html-page-context", choose)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
