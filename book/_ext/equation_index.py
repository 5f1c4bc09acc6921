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


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the functions and classes of one file."""
    found = (ast.FunctionDef, ast.ClassDef)
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, found))


def citations(root: Path, label: str) -> list[str]:
    """Return the library's functions whose docstrings name the label."""
    return [
        f"{path.stem}.{node.name}"
        for path in sorted((root / "vdm_lite").rglob("*.py"))
        for node in definitions(path)
        if label in (ast.get_docstring(node) or "").replace("(", " ").replace(")", " ").split()
    ]


def marked_tests(root: Path) -> list[tuple[str, str]]:
    """Return (label, test) for each ``@pytest.mark.equation(label)`` under tests/."""
    return [
        (argument.value, f"{path.stem}.{node.name}")
        for path in sorted((root / "tests").rglob("test_*.py"))
        for node in definitions(path)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.equation"
        for argument in mark.args
        if isinstance(argument, ast.Constant)
    ]


def entry(app: Sphinx, label: str, document: str, tests: list[str]) -> nodes.list_item:
    """Return one line: the equation's number as a link, its label, functions and tests."""
    anchor = nodes.make_id(f"equation-{label}")
    numbers = app.env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(anchor, ())
    number = nodes.inline(text=f"({'.'.join(map(str, numbers))})")
    line = nodes.paragraph()
    line += make_refnode(app.builder, PAGE, document, anchor, number)
    for before, names in [
        (" ", [label]),
        (" · code: ", citations(Path(app.srcdir), label)),
        (" · tests: ", tests),
    ]:
        line += [nodes.Text(before)] if names else []
        for i, name in enumerate(names):
            line += [nodes.Text(", ")] if i else []
            line += nodes.literal(text=name)
    return nodes.list_item("", line)


def fill(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Replace the placeholder by a list for each page with equations."""
    tests = marked_tests(Path(app.srcdir))
    for placeholder in doctree.findall(Placeholder):
        by_page: dict[str, nodes.bullet_list] = {}
        for label, (page, _) in app.env.get_domain("math").equations.items():
            checks = [test for marked, test in tests if marked == label]
            lines = by_page.setdefault(page, nodes.bullet_list(classes=["equation-index"]))
            lines += entry(app, label, page, checks)
        parts = []
        for page in sorted(by_page):
            parts += [nodes.rubric("", app.env.titles[page].astext()), by_page[page]]
        placeholder.replace_self(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.add_node(Placeholder)
    app.add_directive("equation-index", EquationIndex)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: [PAGE])
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
