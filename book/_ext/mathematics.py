"""Set the formulas when the book is built: TeX becomes MathML, which browsers draw by themselves.

Temml, in Node, sets them; what it has set is kept for the next build. The site brings the font,
cut down to the characters that stand in formulas. A formula that cannot be set is a warning with
its file and line. Without npm the pages leave the setting to MathJax from its public CDN.
"""

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import unicodedata
from html import escape, unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

from docutils import nodes
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

PACKAGE = "node_modules/temml/package.json"
FONT = "node_modules/@fontsource/stix-two-math/files/stix-two-math-latin-400-normal.woff"
STYLE = "node_modules/temml/dist/Temml-STIX2.css"
ITALIC = "ℎ" + "".join(map(chr, (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C))))
OPENING, CLOSING = re.compile(r"[(\[“]$"), re.compile(r"^[)\]”’]*[,.;:!?]?[)\]”’]*")


class Typesetter:
    """One process that sets formulas, and all that it has set so far."""

    def __init__(self, root: Path, kept: Path) -> None:
        self.kept, self.process = kept, None
        self.script = Path(__file__).with_suffix(".mjs")
        sources = (root / PACKAGE, Path(__file__), self.script)
        content = b"".join(path.read_bytes() for path in sources)
        self.version = hashlib.sha256(content).hexdigest()
        self.name, self.done = uuid4().hex, {}
        with contextlib.suppress(OSError, ValueError):  # none yet, or not written to its end
            before = json.loads(kept.read_text(encoding="utf-8"))
            if before.get("version") == self.version:
                self.name, self.done = before["name"], before["done"]

    def set(self, tex: str, display: bool) -> str:
        """The formula as MathML. Raises ``ValueError`` with Temml's words."""
        question = json.dumps({"tex": tex, "display": display})
        if question not in self.done:
            answer = json.loads(self._ask(question))
            if "error" in answer:
                raise ValueError(answer["error"])
            # Whoever copies a formula gets its TeX: see _static/book.js.
            self.done[question] = answer["mathml"].replace(
                "<math", f'<math data-tex="{escape(tex)}"', 1
            )
        return self.done[question]

    def plain(self, tex: str) -> str:
        """The letters of a formula in their plain forms; empty if it cannot be set."""
        try:
            shown = re.sub(r"<[^>]*>", "", self.set(tex, display=False))
        except ValueError:  # its page will say so
            return ""
        return unicodedata.normalize("NFKC", unescape(shown))

    def _ask(self, question: str) -> str:
        if self.process is None:
            pipe = subprocess.PIPE
            command = ["node", str(self.script)]
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8")
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"node ended over the formula {question}")
        return answer

    def close(self) -> None:
        """End the process and keep what it has set."""
        if self.process is not None:
            self.process.communicate()
            self.process = None
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        draft = self.kept.with_suffix(".new")
        content = {"version": self.version, "name": self.name, "done": self.done}
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(self.kept)

    def characters(self) -> str:
        """What is seen of the formulas that have been set: browsers slant a letter by itself."""
        found = {c for each in self.done.values() for c in unescape(re.sub(r"<[^>]*>", "", each))}
        return "".join(found | {c for c in ITALIC if unicodedata.normalize("NFKC", c) in found})


def mathml(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> str:
    """The node's formula, or its TeX and a warning where it cannot be set."""
    tex = node.astext()
    try:
        typesetter = translator.builder.app.typesetter
        return typesetter.set(tex, isinstance(node, nodes.math_block))
    except ValueError as error:
        logger.warning("a formula cannot be set: %s", error, location=node)
        return f"<code>{escape(tex)}</code>"


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula in the text, in one piece with the punctuation beside it."""
    before, after = node.get("before", ""), node.get("after", "")
    formula = escape(before) + mathml(self, node) + escape(after)
    self.body.append(self.starttag(node, "span", "", CLASS="math") + formula + "</span>")
    raise nodes.SkipNode


def visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula of its own; its number is a link to it."""
    number = ""
    if node["number"]:
        shown = get_node_equation_number(self, node)
        number = f'<a class="eqno" href="#{node["ids"][0]}">({shown})</a>'
    self.body.append(self.starttag(node, "div", CLASS="math") + mathml(self, node))
    self.body.append(number + "</div>\n")
    raise nodes.SkipNode


def glue(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Move punctuation beside a formula into it, so that no line starts with a comma.

    For the search, the formula also says how it looks in plain letters.
    """
    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.math)):
        node["shown"] = app.typesetter.plain(node.astext())
        parent, i = node.parent, node.parent.index(node)
        if i and isinstance(parent[i - 1], nodes.Text):
            node["before"] = _cut(parent, i - 1, OPENING)
        if i + 1 < len(parent) and isinstance(parent[i + 1], nodes.Text):
            node["after"] = _cut(parent, i + 1, CLOSING)


def _cut(parent: nodes.Element, i: int, pattern: re.Pattern) -> str:
    text = parent[i].astext()
    found = pattern.search(text)
    if not found or not found[0]:
        return ""
    parent[i] = nodes.Text(text[: found.start()] + text[found.end() :])
    return found[0]


def choose(app: Sphinx, config: Config) -> None:
    """Set the formulas here if npm brought Temml, or say that MathJax will do it in the browser."""
    root = Path(app.srcdir)
    if shutil.which("node") and (root / PACKAGE).exists() and (root / FONT).exists():
        app.typesetter = Typesetter(root, Path(app.outdir).parent / "mathematics.json")
        # All pages are written anew when they were set otherwise, or what was set is lost.
        config.mathematics_name = app.typesetter.name
        app.connect("doctree-resolved", glue)
        app.connect("html-page-context", preload)
        app.connect("build-finished", finish)
        app.add_css_file("mathematics/mathematics.css")
    else:
        config.html_math_renderer = "mathjax"
        logger.info("Temml was not installed (no npm): MathJax from its public CDN sets formulas.")


def preload(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the browser ask for the font before it has read the style sheets."""
    if "<math" in context.get("body", ""):
        font = context["pathto"]("_static/mathematics/font.woff", resource=True)
        asked = 'rel="preload" as="font" type="font/woff" crossorigin'
        context["metatags"] += f'\n<link {asked} href="{font}" />'


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Keep what was set; put the font and Temml's style sheet into the site."""
    app.typesetter.close()
    if exception or app.builder.format != "html":
        return
    root, target = Path(app.srcdir), Path(app.outdir, "_static/mathematics")
    target.mkdir(parents=True, exist_ok=True)
    options = subset.Options(flavor="woff", layout_features=["*"])
    font = subset.load_font(root / FONT, options)
    cutter = subset.Subsetter(options)
    cutter.populate(text=app.typesetter.characters())
    cutter.subset(font)
    subset.save_font(font, target / "font.woff", options)
    style = (root / STYLE).read_text(encoding="utf-8")
    # A font that comes late waits for the next page: it would move the text of this one.
    source = "url('font.woff'); font-display: optional"
    (target / "mathematics.css").write_text(
        style.replace("url('./STIXTwoMath.woff2')", source), encoding="utf-8"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.add_html_math_renderer(
        "temml", inline_renderers=(visit_inline, None), block_renderers=(visit_display, None)
    )
    app.add_config_value("mathematics_name", "", "html")
    app.connect("config-inited", choose)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
