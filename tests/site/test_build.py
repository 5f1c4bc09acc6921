"""The build and its tools: any locale, any editor's droppings, interrupted set-ups, old systems."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import missing
from docutils import nodes
from jupyter_cache import get_cache

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import equation_index  # noqa: E402
import execution_cache  # noqa: E402
import relink  # noqa: E402

NEW = "https://github.com/some-org/some.book"
# No UTF-8 mode, and none that Python chooses by itself: text is ASCII unless the code says more.
ASCII = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
FOLDERS = ("vdm_lite", "book", "tools", "benchmarks", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    """Run a command to its end and keep what it says."""
    return subprocess.run(command, capture_output=True, text=True, **options)


def tool(name: str) -> str:
    """Return the path of a command that a test cannot do without."""
    return shutil.which(name) or missing(f"{name} is not installed")


# Text is UTF-8


def reads_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text: by its name and, for ``open``, its mode."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name != "open":
        return name in ("read_text", "write_text")
    known = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
    modes = [a.value for a in known if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return any(re.fullmatch("[rwax+t]+", mode) for mode in modes) or not call.args


def unsaid(source: str) -> list[int]:
    """Return the lines that leave the encoding of text to the machine."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        c.lineno for c in calls if reads_text(c) and "encoding" not in {k.arg for k in c.keywords}
    ]


def test_all_text_is_utf8():
    found = {path: unsaid(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("path.read_text()", [1]),
        ("(a / b).write_text(text)", [1]),
        ("\nopen(name, 'w')", [2]),
        ("path.open('a', newline='')", [1]),
        ("path.open(mode='r')", [1]),
        ("path.open()", [1]),
        ("path.open('rb')", []),
        ("open(name, mode='wb')", []),
        ("Image.open(path)", []),
        ("path.read_text(encoding='utf-8')", []),
    ],
)
def test_text_of_unsaid_encoding_is_found(source, lines):
    assert unsaid(source) == lines


def test_library_works_where_text_is_ascii(tmp_path):
    code = (
        "import importlib, locale, pkgutil, vdm_lite\n"
        "assert locale.getpreferredencoding() != 'UTF-8'\n"
        "for module in pkgutil.walk_packages(vdm_lite.__path__, 'vdm_lite.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "from vdm_lite import widgets\n"
        "assert all(widget().html() for widget in widgets.ALL)\n"
    )
    done = run(sys.executable, "-c", code, env=ASCII)
    assert done.returncode == 0, done.stderr


# The repository's address


def contents(root: Path) -> dict[Path, bytes]:
    """Return every file below a folder."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(root): path.read_bytes() for path in paths}


def test_relink_works_where_text_is_ascii(copy):
    done = run(sys.executable, copy / "book" / "_ext" / "relink.py", NEW, env=ASCII)
    assert done.returncode == 0, done.stderr
    here = contents(copy)
    relink.relink(copy, relink.PLACEHOLDER)
    relink.relink(copy, NEW)
    assert contents(copy) == here


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notebooks/05_discrete_elbo.ipynb", b"{"),
        ("book/notation.md", b"\xff"),
        ("README.md", None),
        ("notebooks/12_denoiser.ipynb", None),
    ],
)
def test_relink_edits_all_files_or_none(copy, name, content):
    path = copy / name
    if content is None:
        path.with_name(f".{path.name}.new").mkdir()  # where the draft would go
    else:
        path.write_bytes(content)
    before = contents(copy)
    with pytest.raises((ValueError, OSError)):
        relink.relink(copy, NEW)
    assert contents(copy) == before
    done = run(sys.executable, copy / "book" / "_ext" / "relink.py", NEW)
    assert done.returncode == 1 and done.stderr.startswith("relink: ")
    assert done.stderr.count("\n") == 1


# What counts as a change


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small library with what a package needs."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "requirements.txt").write_text("torch", encoding="utf-8")
    for name in ("a.py", "widgets/js/b.js", "data/c.npz", "runs/ch01/d.json"):
        path = tmp_path / "vdm_lite" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("1", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        *("requirements.txt", "vdm_lite/a.py", "vdm_lite/new/a.py", "vdm_lite/widgets/js/b.js"),
        *("vdm_lite/widgets/js/e.css", "vdm_lite/widgets/js/lib/e.js", "vdm_lite/data/c.npz"),
        *("vdm_lite/runs/ch01/d.json", "vdm_lite/runs/ch01/e.csv"),
        "vdm_lite/runs/ch01/e.safetensors",
    ],
)
def test_notebooks_run_again_after_a_change(library, name):
    before = execution_cache.digest(library)
    assert execution_cache.digest(library) == before
    (library / name).parent.mkdir(exist_ok=True)
    (library / name).write_text("2", encoding="utf-8")
    assert execution_cache.digest(library) != before


def notebook(path: Path, code: str) -> None:
    """Write a notebook of one cell."""
    cell = nbformat.v4.new_code_cell(code)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def test_notebooks_run_side_by_side_and_once(tmp_path):
    """Two wait for each other; a third fails, and is left to be reported by its page."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core runs one at a time")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    wait = "import pathlib, time\npathlib.Path('{0}').write_text('x')\n"
    wait += "while not pathlib.Path('{1}').exists(): time.sleep(0.05)"
    notebook(folder / "a.ipynb", wait.format("a", "b"))
    notebook(folder / "b.ipynb", wait.format("b", "a"))
    notebook(folder / "c.ipynb", "1 / 0")
    config = SimpleNamespace(
        nb_execution_mode="cache",
        nb_execution_cache_path=str(tmp_path / "cache"),
        nb_execution_timeout=60,
    )
    app = SimpleNamespace(srcdir=tmp_path, config=config)
    execution_cache.execute(app)
    cache = get_cache(config.nb_execution_cache_path)
    assert [Path(record.uri).name for record in cache.list_unexecuted()] == ["c.ipynb"]
    assert len(cache.list_cache_records()) == 2


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "data/.DS_Store", "__pycache__/a.pyc", "a.py~", ".a.py.swp", "#a.py#"),
        *(".#a.py", ".ipynb_checkpoints/a.py", "Thumbs.db", "a.orig", "notes.txt"),
    ],
)
def test_what_others_leave_behind_changes_nothing(library, name):
    before = execution_cache.digest(library)
    path = library / "vdm_lite" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("2", encoding="utf-8")
    assert execution_cache.digest(library) == before


def test_the_package_ships_what_git_keeps():
    shown = run(tool("git"), "ls-files", "vdm_lite", cwd=ROOT, check=True).stdout.split()
    shipped = {path.relative_to(ROOT).as_posix() for path in execution_cache.shipped(ROOT)}
    assert sorted(set(shown) - shipped) == []


@pytest.mark.parametrize(("ci", "limit"), [("true", 300), ("", 1800)])
def test_a_reader_waits_and_ci_has_a_budget(library, monkeypatch, ci, limit):
    monkeypatch.setenv("CI", ci)
    config = SimpleNamespace(nb_execution_timeout=1800)
    execution_cache.configure(SimpleNamespace(srcdir=library), config)
    assert config.nb_execution_timeout == limit


# The index of equations


def index_app(root: Path, labels: list[str], documented: list[str]) -> SimpleNamespace:
    """Return what stands for Sphinx: the labels on one page, these functions in the reference."""
    place = SimpleNamespace(docname="book/api", node_id="there")
    domains = {
        "math": SimpleNamespace(equations=dict.fromkeys(labels, ("page", 1))),
        "py": SimpleNamespace(objects=dict.fromkeys(documented, place)),
    }
    env = SimpleNamespace(
        toc_fignumbers={}, get_domain=domains.get, titles={"page": nodes.title("", "Title")}
    )
    builder = SimpleNamespace(get_relative_uri=lambda here, there: there)
    return SimpleNamespace(srcdir=root, env=env, builder=builder)


@pytest.fixture
def equations(tmp_path: Path) -> list[str]:
    """Labels, each named by a method of a file of its own and checked by a test."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    names = [f"eq-{i}" for i in range(40)]
    for folder in ("vdm_lite", "tests"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(names):
        code = f'class C:\n    def f(self):\n        """Equation ({name})."""\n'
        (tmp_path / "vdm_lite" / f"m{i}.py").write_text(code, encoding="utf-8")
        code = f'@pytest.mark.equation("{name}")\ndef test_it():\n    pass\n'
        (tmp_path / "tests" / f"test_{i}.py").write_text(code, encoding="utf-8")
    return names


def test_equation_index_reads_each_file_once(monkeypatch, tmp_path, equations):
    read = []
    parser = SimpleNamespace(
        **vars(ast) | {"parse": lambda text: read.append(text) or ast.parse(text)}
    )
    monkeypatch.setattr(equation_index, "ast", parser)
    title, listed = equation_index.listing(index_app(tmp_path, equations, []))
    assert title.astext() == "Title" and len(listed) == 40
    assert "eq-7 · code: m7.C.f · tests: test_7.test_it" in listed[7].astext()
    assert len(read) == 80


def test_entries_of_the_index_are_links(tmp_path, equations):
    app = index_app(tmp_path, equations, ["vdm_lite.m7.C.f"])
    _, unpublished = equation_index.listing(app)
    assert [link["refuri"] for link in unpublished[7].findall(nodes.reference)] == [
        *("page#equation-eq-7", "book/api#there")
    ]
    project = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    project = project.replace(relink.PLACEHOLDER, NEW)
    (tmp_path / "pyproject.toml").write_text(project, encoding="utf-8")
    _, published = equation_index.listing(app)
    at = f"{NEW}/blob/main"
    assert [link["refuri"] for link in published[7].findall(nodes.reference)] == [
        *("page#equation-eq-7", "book/api#there", f"{at}/tests/test_7.py#L2")
    ]
    assert f"{at}/vdm_lite/m8.py#L2" in str(published[8])


def test_a_constant_names_its_equation(tmp_path):
    (tmp_path / "vdm_lite").mkdir()
    code = 'ROW = 1\n"""The row (eq-row)."""\n'
    (tmp_path / "vdm_lite" / "m.py").write_text(code, encoding="utf-8")
    ((label, found),) = equation_index.citations(tmp_path)
    assert (label, found.name, found.line) == ("eq-row", "vdm_lite.m.ROW", 1)


def test_a_page_without_the_index_costs_nothing():
    page = nodes.paragraph("", "text")
    equation_index.fill(None, page, "page")
    assert page.astext() == "text"


# Systems and set-ups


def test_lines_end_alike_on_every_system(tmp_path):
    git, copied = tool("git"), {}
    for name in run(git, "ls-files", cwd=ROOT, check=True).stdout.split("\n"):
        if (ROOT / name).is_file():
            copied.setdefault(Path(name).suffix or name, name)
    origin = tmp_path / "origin"
    for name in [*copied.values(), ".ci/run", ".gitattributes"]:
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, origin / name)
    person = ("-c", "user.name=a", "-c", "user.email=a@b")
    run(git, "init", "-q", cwd=origin, check=True)
    run(git, "add", ".", cwd=origin, check=True)
    run(git, *person, "commit", "-q", "-m", "a", cwd=origin, check=True)
    as_windows = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    run(git, *as_windows, "clone", "-q", origin, tmp_path / "clone", check=True)
    names = [name for name in contents(origin) if name.parts[0] != ".git"]
    assert {name.suffix for name in names} >= {".sh", ".py", ".npz", ".png", ".safetensors"}
    before, after = contents(origin), contents(tmp_path / "clone")
    assert [str(name) for name in names if after[name] != before[name]] == []


FAKE = """#!/bin/sh
# Stands for Python: makes an environment, of this same file, and writes down what it was asked.
here=$(dirname "$0")
case "$*" in
  "-m venv --clear .venv")
    rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/bin/activate
    echo made >> log ;;
  "-m pip "*) [ ! -e "$here/broken" ] ;;
esac
"""


@pytest.mark.parametrize(
    ("left", "made"),
    [
        ([], True),
        (["python"], True),  # stopped before pip was there, and before activate was written
        (["python", "broken"], True),
        (["python", "broken", "activate"], True),  # pip is there, and does not start
        (["activate"], True),
        (["python", "activate"], False),
    ],
)
def test_a_half_made_environment_is_made_anew(tmp_path, left, made):
    make = tool("make")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(FAKE, encoding="utf-8")
    python.chmod(0o755)
    for name in left:
        (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(python, tmp_path / ".venv" / "bin" / name)
    done = run(make, ".venv/.ready", f"PYTHON={python}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").exists() == made
    assert (tmp_path / ".venv" / ".ready").exists()


def test_a_taken_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [str(taken.getsockname()[1]), "99999", "-1", "http", ""]
        for port in ports:
            done = run(sys.executable, ROOT / "tools" / "serve.py", port)
            assert done.returncode == 1
            assert done.stderr.startswith(f"PORT: expected a free port, got {port}")
            assert done.stderr.count("\n") == 1 and "make serve PORT=" in done.stderr


def test_ruff_holds_the_encoding():
    code = "open('name')\n"
    options = ("check", "--stdin-filename", str(ROOT / "tools" / "a.py"), "-")
    done = run(sys.executable, "-m", "ruff", *options, input=code, cwd=ROOT)
    assert "unspecified-encoding" in done.stdout or "PLW1514" in done.stdout
