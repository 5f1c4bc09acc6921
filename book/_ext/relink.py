"""The repository's address: it stands in pyproject.toml, and every other place is derived from it.

    python book/_ext/relink.py https://github.com/org/name

rewrites pyproject.toml, the pages that print the address, the README's list of Colab links and the
first code cell of every notebook. The site's buttons read the address when the site is built.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

PLACEHOLDER = "https://github.com/YOUR_ORG/vdm-lite"  # no account name may contain "_"
ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9]+(-[A-Za-z0-9]+)*/[A-Za-z0-9._-]+(?<!\.git)")
PAGES = ("pyproject.toml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "book/*.md")
LINKS = re.compile(r"(<!-- colab -->\n).*(?=<!-- /colab -->)", re.DOTALL)

FIRST_CELL = """\
# Colab starts without the library; anywhere else this cell does nothing.
import importlib.util

if importlib.util.find_spec("vdm_lite") is None:
    """
UPLOAD = (
    'print("vdm_lite is missing: upload this project\'s folder, then run %pip install ./vdm-lite")'
)


def address(root: Path) -> str:
    """Return the repository's address as pyproject.toml has it."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def first_cell(repository: str) -> str:
    """Return the first code cell of every notebook."""
    install = UPLOAD if repository == PLACEHOLDER else f"%pip install -q git+{repository}"
    return FIRST_CELL + install


def colab(repository: str, notebook: str) -> str:
    """Return the address that opens a notebook (a path from the root) in Colab."""
    name = repository.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{name}/blob/main/{notebook}"


def colab_links(root: Path, repository: str) -> str:
    """Return the README's list of chapters in Colab, or what to do while there is no address."""
    if repository == PLACEHOLDER:
        return (
            "This copy has no public address yet: upload the project's folder to Colab and run\n"
            "`%pip install ./vdm-lite`, or publish it and run\n"
            "`make relink REPO=https://github.com/org/name`.\n"
        )
    paths = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    lines = (f"- [{p.stem}]({colab(repository, f'notebooks/{p.name}')})" for p in paths)
    return "\n".join(lines) + "\n"


def relink_notebook(path: Path, repository: str) -> None:
    """Write the first code cell of one notebook."""
    notebook = json.loads(path.read_text())
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    if "".join(cell["source"]) == first_cell(repository):
        return
    cell["source"] = first_cell(repository).splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def relink(root: Path, repository: str) -> None:
    """Make ``repository`` the address in every place under ``root``."""
    if repository != PLACEHOLDER and not ADDRESS.fullmatch(repository):
        raise ValueError(f"expected REPO=https://github.com/org/name, got {repository!r}")
    old = re.compile(re.escape(address(root)) + r"(?![\w-])")
    for path in sorted(path for page in PAGES for path in root.glob(page)):
        text = old.sub(repository, path.read_text())
        if path.name == "README.md":
            text = LINKS.sub(lambda match: match[1] + colab_links(root, repository), text)
        path.write_text(text)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        relink_notebook(path, repository)


if __name__ == "__main__":
    try:
        relink(Path(__file__).parents[2], sys.argv[1] if len(sys.argv) == 2 else "")
    except ValueError as error:
        sys.exit(f"relink: {error}")
    print(f"The repository's address is now {sys.argv[1]}. Next: make book")
