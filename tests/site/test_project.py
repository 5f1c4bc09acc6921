"""The project's own promises: one address, stripped notebooks, tested equations, a true README."""

import ast
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from equation_index import citations, marked_tests  # noqa: E402
from relink import PLACEHOLDER, address, first_cell, relink  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LABEL = re.compile(
    r"^\$\$[ \t]*\(([^)\s]+)\)"  # $$ ... $$ (label)
    r"|^(?:`{3,}|:{3,})\{math\}[^\n]*\n(?::[\w-]+:[^\n]*\n)*?:label:[ \t]*(\S+)",
    re.MULTILINE,
)
NEW = "https://github.com/some-org/some.book"
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


def cells(path: Path, kind: str) -> list[dict]:
    """Return the cells of one kind, code or markdown, of a notebook."""
    return [cell for cell in json.loads(read(path))["cells"] if cell["cell_type"] == kind]


def markdown() -> list[str]:
    """Return the text of every page and of every Markdown cell of the book."""
    prose = ["".join(c["source"]) for path in NOTEBOOKS for c in cells(path, "markdown")]
    return prose + [read(path) for path in sorted((ROOT / "book").glob("*.md"))]


def labels() -> list[str]:
    """Return the labels of all displayed equations of the book."""
    return [a or b for text in markdown() for a, b in LABEL.findall(text)]


# The first screen


@every_notebook
def test_a_page_does_not_start_with_plumbing(path):
    """The cell for Colab stays in the notebook; cells that only import are folded."""
    first, *others = cells(path, "code")
    assert first["metadata"]["tags"] == ["remove-cell"]
    for cell in others:
        statements = ast.parse(re.sub(r"(?m)^%.*$", "", "".join(cell["source"]))).body
        if all(isinstance(each, ast.Import | ast.ImportFrom) for each in statements):
            assert "hide-input" in cell["metadata"]["tags"], cell["id"]


# Equations and their tests


def test_every_labelled_equation_has_a_test():
    assert sorted(set(labels()) - {label for label, _ in marked_tests(ROOT)}) == []


def test_every_marker_names_an_equation_of_the_book():
    found = set(labels())
    assert sorted({mark for mark in marked_tests(ROOT) if mark[0] not in found}) == []


def test_every_label_is_named_where_it_is_computed():
    """By the function that implements it; an experiment's, by its figure or its run."""
    assert sorted(set(labels()) - {label for label, _ in citations(ROOT)}) == []


def test_docstrings_name_equations_of_the_book():
    found = set(labels())
    assert sorted({cited for cited in citations(ROOT) if cited[0] not in found}) == []


def test_labels_are_unique():
    found = labels()
    assert sorted({label for label in found if found.count(label) > 1}) == []


# Notebooks


@every_notebook
def test_notebook_is_stripped_and_small(path):
    stripped = all(c["outputs"] == [] and c["execution_count"] is None for c in cells(path, "code"))
    assert stripped, f"saved with outputs: .venv/bin/nbstripout notebooks/{path.name}"
    assert path.stat().st_size < 150_000


@every_notebook
def test_notebook_starts_as_relink_writes_it(path):
    code = cells(path, "code")
    assert "".join(code[0]["source"]) == first_cell(address(ROOT))


@every_notebook
def test_heading_carries_the_number_of_the_file(path):
    first = cells(path, "markdown")[0]
    assert "".join(first["source"]).startswith(f"# {int(path.stem[:2])}  ")


def prose(path: Path) -> str:
    """Return the Markdown of a notebook."""
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


@every_notebook
def test_no_symbol_has_two_meanings(path):
    (table,) = re.findall(
        r"^:::\{dropdown\} Symbols of this chapter\n(.*?)^:::$", prose(path), re.M | re.S
    )
    rows = re.findall(r"^\| *(\$.*?\$) *\|", table, re.M)
    assert len(rows) >= 6 and len(set(rows)) == len(rows)
    shown = [name.strip() for row in rows for name in re.findall(r"\$(.*?)\$", row)]
    assert sorted({name for name in shown if shown.count(name) > 1}) == []


@every_notebook
def test_an_error_to_find_has_a_source(path):
    text = prose(path)
    found = re.findall(
        r":::+\{exercise\} Spot the error\n:label: ([\w-]+)\n(.*?)^:::+$", text, re.M | re.S
    )
    solution = r":::+\{solution\} ([\w-]+)\n(.*?)^:::+$"
    solutions = dict(re.findall(solution, text, re.M | re.S))
    named = [
        label for label, asked in found if re.search(r"\{cite|https://", asked + solutions[label])
    ]
    assert named


def test_contents_and_toc_list_the_notebooks():
    toc = yaml.safe_load(read(ROOT / "_toc.yml"))
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert [f for f in listed if f.startswith("notebooks/")] == [
        f"notebooks/{path.stem}" for path in NOTEBOOKS
    ]
    plan = read(ROOT / "book" / "contents.md")
    assert all(f"{{doc}}`../notebooks/{path.stem}`" in plan for path in NOTEBOOKS)


# The repository's address


def sources(notebook: str) -> list[str]:
    """Return what stands in each cell, whichever way the file wraps it."""
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"]]


def files(root: Path) -> dict[str, object]:
    """Return what stands in every text file below a folder."""
    paths = (p for p in root.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".png"))
    form = {".ipynb": sources}
    return {str(p.relative_to(root)): form.get(p.suffix, str)(read(p)) for p in paths}


def test_all_places_agree_on_the_address(copy):
    before = files(copy)
    relink(copy, address(ROOT))
    assert files(copy) == before


def test_relink_writes_every_place_and_comes_back(copy):
    before = files(copy)
    relink(copy, NEW)
    after = files(copy)
    assert all(NEW in after[name] for name in ("pyproject.toml", "CITATION.cff", "README.md"))
    for path in NOTEBOOKS:
        assert f"%pip install -q git+{NEW}" in "".join(after[f"notebooks/{path.name}"])
        assert f"github/some-org/some.book/blob/main/notebooks/{path.name}" in after["README.md"]
    assert [p for p, text in after.items() if PLACEHOLDER in str(text)] == ["book/_ext/relink.py"]
    relink(copy, NEW)
    assert files(copy) == after
    relink(copy, address(ROOT))
    assert files(copy) == before


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "org/name",
        "http://github.com/org/name",
        "https://github.com/org",
        "https://github.com/org/name/",
        "https://github.com/org/name.git",
        "https://github.com/or_g/name",
        "https://example.com/org/name",
        "https://github.com/org/name; echo",
        "https://github.com/org/name\n",
    ],
)
def test_relink_rejects_what_is_no_repository(copy, bad):
    before = files(copy)
    with pytest.raises(ValueError, match="expected REPO="):
        relink(copy, bad)
    assert files(copy) == before


def test_first_cell_is_python_that_colab_understands():
    transform = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    compile(first_cell(PLACEHOLDER), "cell", "exec")
    compile(transform.transform_cell(first_cell(NEW)), "cell", "exec")


# README, notation, build


def test_readme_and_pages_name_real_commands():
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "book").glob("*.md")]
    text = "\n".join(read(path) for path in pages)
    named = set(re.findall(r"(?:^|`|&& )make ([a-z]+)", text, re.MULTILINE))
    assert {"book", "serve", "lab", "test", "bench"} <= named <= targets
    assert {"book", "serve", "lab", "test", "bench", "clean", "help", "relink"} <= targets


@pytest.mark.parametrize("page", ["README.md", "book/index.md"])
def test_printed_example_runs(page):
    example, *_ = re.findall(r"```python\n(.*?)```", read(ROOT / page), re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(example, {})
    assert "3.7969" in out.getvalue()


def test_readme_links_to_files_that_exist():
    for page in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", read(ROOT / page))
        assert [link for link in links if not (ROOT / link).exists()] == []


def test_notation_shows_the_palette():
    from vdm_lite.figures import COLORS

    shown = re.findall(r"background:(#\w+)", read(ROOT / "book" / "notation.md"))
    assert shown == list(COLORS.values())


def test_library_has_no_upper_pins():
    import tomllib

    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    assert not any("<" in need or "==" in need for need in project["dependencies"])


def test_make_help_lists_the_commands():
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make book" in shown.stdout and shown.stdout.endswith("To start: make book\n")
