"""The index of equations: label, the functions that cite it, the tests that check it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

PAGE = "book/equations"


class Placeholder(nodes.Element):
    """Stands for the index until all equations have their numbers."""


class EquationIndex(SphinxDirective):
    """``{equation-index}``: one line for each labelled equation of the book."""

    def run(self) -> list[nodes.Node]:
        """Leave a placeholder."""
        return [Placeholder()]


def definitions(folder: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield the functions and classes below a folder, with names; each file is read once."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield f"{path.stem}.{node.name}", node


def docstrings(root: Path) -> list[tuple[str, set[str]]]:
    """Return (function, the words of its docstring) for the library."""
    apart = str.maketrans("()", "  ")
    return [
        (name, set((ast.get_docstring(node) or "").translate(apart).split()))
        for name, node in definitions(root / "vdm_lite")
    ]


def marked_tests(root: Path) -> list[tuple[str, str]]:
    """Return (label, test) for each ``@pytest.mark.equation(label)`` under tests/."""
    return [
        (argument.value, name)
        for name, node in definitions(root / "tests")
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.equation"
        for argument in mark.args
        if isinstance(argument, ast.Constant)
    ]


def entry(
    app: Sphinx, label: str, document: str, functions: list[str], tests: list[str]
) -> nodes.list_item:
    """Return one line: the equation's number as a link, its label, functions and tests."""
    anchor = nodes.make_id(f"equation-{label}")
    numbers = app.env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(anchor, ())
    number = nodes.inline(text=f"({'.'.join(map(str, numbers))})")
    line = nodes.paragraph()
    line += make_refnode(app.builder, PAGE, document, anchor, number)
    for before, names in [(" ", [label]), (" · code: ", functions), (" · tests: ", tests)]:
        line += [nodes.Text(before)] if names else []
        for i, name in enumerate(names):
            line += [nodes.Text(", ")] if i else []
            line += nodes.literal(text=name)
    return nodes.list_item("", line)


def listing(app: Sphinx) -> list[nodes.Element]:
    """Return a title and a list of entries for each page with equations."""
    words, tests = docstrings(Path(app.srcdir)), marked_tests(Path(app.srcdir))
    by_page: dict[str, nodes.bullet_list] = {}
    for label, (page, _) in app.env.get_domain("math").equations.items():
        functions = [name for name, found in words if label in found]
        checks = [name for marked, name in tests if marked == label]
        lines = by_page.setdefault(page, nodes.bullet_list(classes=["equation-index"]))
        lines += entry(app, label, page, functions, checks)
    titles = {page: nodes.rubric("", app.env.titles[page].astext()) for page in by_page}
    return [part for page in sorted(by_page) for part in (titles[page], by_page[page])]


def fill(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Replace the placeholder by the index. Most pages hold none, and cost nothing."""
    for placeholder in list(doctree.findall(Placeholder)):
        placeholder.replace_self(listing(app))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.add_node(Placeholder)
    app.add_directive("equation-index", EquationIndex)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: [PAGE])
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
