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
PLACES = (
    *("pyproject.toml", "CITATION.cff", "README.md", "CONTRIBUTING.md"),
    *("book/*.md", "notebooks/*.ipynb"),
)
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
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


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


def relinked_notebook(text: str, repository: str) -> str:
    """Return what a notebook's file holds, with the first code cell that it is to have."""
    notebook = json.loads(text)
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    if "".join(cell["source"]) == first_cell(repository):
        return text
    cell["source"] = first_cell(repository).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def replace(texts: dict[Path, str]) -> None:
    """Write all of the files or, if one of them cannot be written, none."""
    drafts = {path.with_name(f".{path.name}.new"): path for path in texts}
    try:
        for draft, path in drafts.items():
            draft.write_text(texts[path], encoding="utf-8", newline="\n")
        for draft, path in drafts.items():
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def relink(root: Path, repository: str) -> None:
    """Make ``repository`` the address in every place under ``root``."""
    if repository != PLACEHOLDER and not ADDRESS.fullmatch(repository):
        raise ValueError(f"expected REPO=https://github.com/org/name, got {repository!r}")
    old = re.compile(re.escape(address(root)) + r"(?![\w-])")
    before = {path: path.read_text(encoding="utf-8") for p in PLACES for path in root.glob(p)}
    after = {path: old.sub(repository, text) for path, text in before.items()}
    for path, text in after.items():
        if path.name == "README.md":
            after[path] = LINKS.sub(lambda m: m[1] + colab_links(root, repository), text)
        if path.suffix == ".ipynb":
            after[path] = relinked_notebook(text, repository)
    replace({path: text for path, text in after.items() if text != before[path]})


if __name__ == "__main__":
    try:
        relink(Path(__file__).parents[2], sys.argv[1] if len(sys.argv) == 2 else "")
    except (ValueError, OSError) as error:
        sys.exit(f"relink: {error}")
    print(f"The repository's address is now {sys.argv[1]}. Next: make book")
