"""The package asks for what is imported, no more and no less; each extra for its own part."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OUR_OWN = {"vdm_lite", *(path.stem for path in ROOT.glob("tests/**/*.py"))}
OUR_OWN |= {
    path.stem for folder in ("book/_ext", "benchmarks") for path in ROOT.glob(f"{folder}/*")
}
# Asked for by name where the reader wants what only they can do.
UPON_REQUEST = {"torchvision"}
# tests/requirements-referees.txt has them.
REFEREES = {"azula", "diffusers"}
# What no file imports, and the words that use it. torch.onnx.export imports onnxscript.
USED_BY = {
    "onnxscript": ("vdm_lite/training/onnx.py", "torch.onnx.export("),
    "pytest-timeout": ("pyproject.toml", "\ntimeout = "),
    "pytest-xdist": ("Makefile", "-n auto"),
    "nbval": ("Makefile", "--nbval-lax"),
    "ruff": ("Makefile", "ruff check"),
    "mypy": ("Makefile", "$(BIN)/mypy"),
}
TOOLS = {
    "jupyterlab": ("Makefile", "jupyter lab notebooks"),
    "nbstripout": (".pre-commit-config.yaml", "nbstripout"),
    "pre-commit": ("CONTRIBUTING.md", "pre-commit install"),
}
OWNERS = packages_distributions()


def spelled(distribution: str) -> str:
    """Return a distribution's name as an index spells it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def named(needs: list[str]) -> set[str]:
    """Return the names in a list of requirements."""
    return {spelled(re.match(r"[\w.-]+", need)[0]) for need in needs}


BASE = named(PROJECT["dependencies"])
EXTRAS = {name: named(needs) - BASE for name, needs in PROJECT["optional-dependencies"].items()}


def distribution(module: str) -> str:
    """Return who ships a module; a namespace such as ``sphinxcontrib`` has several owners."""
    owners = sorted(set(OWNERS.get(module.partition(".")[0], [])))
    return spelled(owners[0] if len(owners) == 1 else module)


def imports(source: str) -> set[str]:
    """Return the top-level packages that a text imports, also inside functions."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def needs(*patterns: str) -> set[str]:
    """Return the distributions that the files of these patterns import."""
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert files
    packages = set().union(*(imports(path.read_text(encoding="utf-8")) for path in files))
    own = OUR_OWN | UPON_REQUEST | REFEREES
    return {distribution(name) for name in packages - own - sys.stdlib_module_names}


def cells() -> set[str]:
    """Return the distributions that the notebooks import."""
    names = set()
    for path in ROOT.glob("notebooks/*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                names |= set(re.findall(r"^(?:from|import) (\w+)", "".join(cell["source"]), re.M))
    return {distribution(name) for name in names - OUR_OWN - sys.stdlib_module_names}


def test_the_library_asks_for_what_it_imports():
    extras = EXTRAS["train"] | EXTRAS["export"]
    assert needs("vdm_lite/**/*.py") - extras == BASE
    assert cells() <= BASE


@pytest.mark.parametrize(
    ("extra", "part"), [("train", "vdm_lite/cli/*.py"), ("export", "vdm_lite/training/onnx.py")]
)
def test_an_extra_of_the_library_is_what_its_part_imports_beyond_it(extra, part):
    assert needs(part) - BASE == EXTRAS[extra] - set(USED_BY)


def test_the_book_asks_for_what_builds_it():
    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]
    extensions = set(sphinx["config"]["extensions"]) - set(sphinx["local_extensions"])
    built = needs("book/_ext/*.py") | {distribution(name) for name in extensions}
    assert built - BASE == EXTRAS["book"]


def test_the_tests_ask_for_what_they_import():
    others = BASE.union(*(EXTRAS[name] for name in ("train", "export", "book")))
    imported = needs("tests/**/*.py", "tools/*.py", "benchmarks/widgets.py")
    assert imported - others == EXTRAS["test"] - set(USED_BY)


def test_what_no_file_imports_is_used_by_name():
    assert set(USED_BY) <= set().union(*EXTRAS.values())
    for name, (file, words) in USED_BY.items():
        assert words in (ROOT / file).read_text(encoding="utf-8"), name


def test_each_pin_is_needed():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = named([line for line in lines if line and not line.startswith("#")])
    others = named([need for pin in pins for need in requires(pin) or [] if "extra" not in need])
    assert sorted(pins - BASE.union(*EXTRAS.values()) - others) == sorted(TOOLS)
    for name, (file, words) in TOOLS.items():
        assert words in (ROOT / file).read_text(encoding="utf-8"), name
