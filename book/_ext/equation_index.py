"""The index of equations: label, the functions that name it, the tests that check it, as links."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from relink import PLACEHOLDER, address
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

PAGE = "book/equations"
LABEL = re.compile(r"\b(eq-[\w-]+)")


class Placeholder(nodes.Element):
    """Stands for the index until all equations have their numbers."""


class EquationIndex(SphinxDirective):
    """``{equation-index}``: one line for each labelled equation of the book."""

    def run(self) -> list[nodes.Node]:
        """Leave a placeholder."""
        return [Placeholder()]


class Definition(NamedTuple):
    """A function, class, method or constant, and the labels that stand at it."""

    name: str
    """As Python calls it: vdm_lite.gaussian.alpha."""
    path: str
    line: int
    cited: frozenset[str]
    """The labels in its docstring."""
    marks: tuple[str, ...]
    """The labels that a test is marked with."""

    @property
    def short(self) -> str:
        """Without the folders of a test, without the package's name."""
        package, _, rest = self.name.partition(".")
        return rest if package == "vdm_lite" else ".".join(self.name.split(".")[-2:])


def documented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt, str]]:
    """Yield the name, the node and the docstring of what a module or a class defines."""
    for node, following in pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{prefix}.{node.name}", node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            yield from documented(node.body, f"{prefix}.{node.name}")
        if isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            yield f"{prefix}.{ast.unparse(node.targets[0])}", node, ast.unparse(following)


def marks(node: ast.stmt) -> Iterator[str]:
    """Yield the labels of ``@pytest.mark.equation(label)`` above a function."""
    for mark in getattr(node, "decorator_list", []):
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.equation":
            yield from (a.value for a in mark.args if isinstance(a, ast.Constant))


def definitions(root: Path, folder: str) -> Iterator[Definition]:
    """Yield what the files below a folder define; each file is read once."""
    for path in sorted((root / folder).rglob("*.py")):
        place = path.relative_to(root)
        parts = place.with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, node, words in documented(tree.body, module):
            cited = frozenset(LABEL.findall(words))
            yield Definition(name, place.as_posix(), node.lineno, cited, tuple(marks(node)))


def citations(root: Path) -> list[tuple[str, Definition]]:
    """Return (label, definition) for each label in a docstring of the library."""
    return [(label, each) for each in definitions(root, "vdm_lite") for label in sorted(each.cited)]


def marked_tests(root: Path) -> list[tuple[str, Definition]]:
    """Return (label, test) for each test under tests/ that is marked with an equation."""
    return [(label, each) for each in definitions(root, "tests") for label in each.marks]


def link(app: Sphinx, target: Definition) -> nodes.Node:
    """Return a name that leads to the API reference, else to the repository, if it has an address.

    A figure's or a run's functions and the tests are on no page of the book.
    """
    name = nodes.literal(text=target.short)
    known = app.env.get_domain("py").objects.get(target.name)
    if known:
        return make_refnode(app.builder, PAGE, known.docname, known.node_id, name)
    repository = address(Path(app.srcdir))
    if repository == PLACEHOLDER:
        return name
    place = f"{repository}/blob/main/{target.path}#L{target.line}"
    return nodes.reference("", "", name, refuri=place, internal=False)


def entry(
    app: Sphinx, label: str, document: str, functions: list[Definition], tests: list[Definition]
) -> nodes.list_item:
    """Return one line: the equation's number, its label, functions and tests."""
    anchor = nodes.make_id(f"equation-{label}")
    numbers = app.env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(anchor, ())
    number = nodes.inline(text=f"({'.'.join(map(str, numbers))})")
    line = nodes.paragraph()
    line += make_refnode(app.builder, PAGE, document, anchor, number)
    line += [nodes.Text(" "), nodes.literal(text=label)]
    for before, found in [(" · code: ", functions), (" · tests: ", tests)]:
        for i, target in enumerate(found):
            line += [nodes.Text(", " if i else before), link(app, target)]
    return nodes.list_item("", line)


def listing(app: Sphinx) -> list[nodes.Element]:
    """Return a title and a list of entries for each page with equations."""
    root = Path(app.srcdir)
    code, tests = citations(root), marked_tests(root)
    by_page: dict[str, nodes.bullet_list] = {}
    for label, (page, _) in app.env.get_domain("math").equations.items():
        functions = [each for cited, each in code if cited == label]
        checks = [each for marked, each in tests if marked == label]
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
