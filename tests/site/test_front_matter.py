"""What the welcome page and the README promise of the book and of the library."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = (
    "aggregate augmentation diffusion elbo gaussian hierarchy likelihood observation "
    "parameterization quadrature samplers schedules times vae weighting"
)
MATHEMATICS = [ROOT / "vdm_lite" / f"{name}.py" for name in NAMES.split()]
MATHEMATICS += sorted((ROOT / "vdm_lite" / "exact").glob("*.py"))


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_size_of_the_library_is_as_the_welcome_page_says():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in MATHEMATICS]
    (said,) = re.findall(r"about ([\d,]+) lines of Python, in short modules", page("book/index.md"))
    assert round(sum(lines), -3) == int(said.replace(",", ""))
    assert max(lines) < 400


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_are_as_many_as_the_readme_says_and_have_solutions(path):
    assert "five to seven exercises" in page("README.md")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    asked = re.findall(r"^:::+\{exercise\}.*\n:label: (\S+)", text, re.M)
    assert 5 <= len(asked) <= 7
    assert sorted(asked) == sorted(re.findall(r"^:::+\{solution\} (\S+)", text, re.M))


def test_glossary_is_in_alphabetical_order_and_knows_what_part_one_speaks_of():
    (body,) = re.findall(r"```\{glossary\}\n(.*?)```", page("book/glossary.md"), re.S)
    groups = [re.findall(r"^\S.*", block, re.M) for block in body.strip().split("\n\n")]
    heads = [names[0].lower().replace("-", " ") for names in groups]
    assert heads == sorted(heads)
    known = {name.lower() for names in groups for name in names}
    asked = "prior, posterior, likelihood, kl divergence, encoder, decoder, mutual information, "
    asked += "iwae, score-function estimator, baseline, approximation gap, amortization gap, "
    asked += "explaining away, warm-up, vampprior, active unit, mismatch"
    assert set(asked.split(", ")) <= known
