"""The API reference: every module of the library is on a page, and every docstring can be set."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from test_project import labels

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "book").glob("api*.md"))
# Figures and runs belong to a chapter, the command line explains itself, checks are messages.
ELSEWHERE = {"figures", "runs", "cli", "checks", "progress", "text", "config", "evaluation"}
MODULE = re.compile(r"^\.\. automodule:: vdm_lite\.(\S+)$", re.MULTILINE)


def modules() -> set[str]:
    """Return the modules that the reference is to show; a package that only collects names not."""
    found = {path.relative_to(ROOT / "vdm_lite") for path in ROOT.glob("vdm_lite/**/*.py")}
    shown = {path for path in found if path.parts[0].removesuffix(".py") not in ELSEWHERE}
    names = {".".join(p.with_suffix("").parts) for p in shown if p.name != "__init__.py"}
    return names | {"data", "training", "widgets"}


def test_every_module_is_on_one_page():
    listed = [name for path in PAGES for name in MODULE.findall(path.read_text(encoding="utf-8"))]
    assert sorted(listed) == sorted(modules())


def test_docstrings_can_be_set_and_their_links_lead_somewhere(tmp_path):
    """The pages alone, built as the book is; a page of all labels stands for the chapters."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    wanted = {name: value for name, value in config.items() if name.startswith("autodoc_")}
    wanted |= {"extensions": ["myst_parser", "sphinx.ext.autodoc", "api_reference"]}
    wanted |= {"root_doc": "equations", "myst_enable_extensions": ["dollarmath"]}
    code = f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
    code += "".join(f"{name} = {value!r}\n" for name, value in wanted.items())
    (tmp_path / "conf.py").write_text(code, encoding="utf-8")
    stand_ins = "".join(f"$$ 0 $$ ({label})\n\n" for label in labels())
    pages = "\n".join(path.stem for path in PAGES)
    text = f"# Equations\n\n{stand_ins}```{{toctree}}\n{pages}\n```\n"
    (tmp_path / "equations.md").write_text(text, encoding="utf-8")
    for path in PAGES:
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "dummy"]
    done = subprocess.run(
        [*command, tmp_path, tmp_path / "out"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
