"""The extension that sets formulas: what it sets, what it keeps, what it refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, missing
from fontTools.ttLib import TTFont

CONF = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_parser", "mathematics"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "temml"
exclude_patterns = ["node_modules", "build"]
"""


@pytest.fixture
def build(tmp_path):
    """Build a page of this text with what npm brought: exit code, what was said, the page."""
    if shutil.which("node") is None or not (ROOT / "node_modules" / "temml").exists():
        missing("npm brought no Temml")
    source = tmp_path / "source"
    source.mkdir()
    (source / "node_modules").symlink_to(ROOT / "node_modules")
    conf = CONF.format(extensions=str(ROOT / "book" / "_ext"))
    (source / "conf.py").write_text(conf, encoding="utf-8")

    def run(text: str) -> tuple[int, str, str]:
        (source / "index.md").write_text(f"# Title\n\n{text}\n", encoding="utf-8")
        out = tmp_path / "build" / "html"
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", source, out]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        page = out / "index.html"
        return done.returncode, done.stderr, page.read_text(encoding="utf-8")

    return run


def test_a_formula_that_cannot_be_set_fails_the_build_with_its_place(build):
    code, said, page = build("Good: $a$.\n\nBad: $\\frac{a$ and $\\nosuch$.")
    assert code != 0
    assert said.count("index.md:5: WARNING: a formula cannot be set") == 2
    assert "<code>\\nosuch</code>" in page


def test_formulas_are_mathml_with_their_tex_numbers_and_punctuation(build):
    text = 'So ($x<1$), and\n\n$$\ny="2"\n$$ (eq-two)\n\nwhich is {eq}`eq-two`.'
    code, said, page = build(text)
    assert (code, said) == (0, "")
    assert 'data-tex="x&lt;1"' in page and 'data-tex="\ny=&quot;2&quot;\n"' in page
    assert '<span class="math">(<math' in page and "</math>),</span> and" in page
    assert '<a class="eqno" href="#equation-eq-two">(1)</a>' in page
    assert "MathJax" not in page and "tabindex" not in page


def test_the_font_holds_what_the_formulas_show_and_what_was_set_is_kept(build, tmp_path):
    build("$x$")
    first = (tmp_path / "build" / "mathematics.json").stat().st_mtime_ns
    font = tmp_path / "build" / "html" / "_static" / "mathematics" / "font.woff"
    small = len(TTFont(font).getBestCmap())
    code, _, page = build("$x<1$ and $\\int\\Omega\\,\\mathbf z>2$")
    assert code == 0 and page.count("<math") == 2
    assert (tmp_path / "build" / "mathematics.json").stat().st_mtime_ns > first
    shown = TTFont(font).getBestCmap()
    assert "_static/mathematics/font.woff" in page
    assert {ord(c) for c in "<>∫Ω𝐳𝑥"} <= set(shown) and "MATH" in TTFont(font)
    assert small < len(shown) < 100


def test_what_was_set_and_is_lost_is_set_again(build, tmp_path):
    """Else the font would lack what stands on pages that are not written anew."""
    build("$x$")
    kept = tmp_path / "build" / "mathematics.json"
    for damaged in (None, "{", "{}"):
        kept.unlink()
        if damaged is not None:
            kept.write_text(damaged, encoding="utf-8")
        code, said, _ = build("$x$")
        assert (code, said) == (0, "") and "$x$" not in kept.read_text(encoding="utf-8")
        assert '"x"' in kept.read_text(encoding="utf-8").replace("\\", "")


def test_without_npm_the_pages_ask_mathjax(tmp_path):
    conf = CONF.format(extensions=str(ROOT / "book" / "_ext"))
    conf = conf.replace('"mathematics"]', '"sphinx.ext.mathjax", "mathematics"]')
    (tmp_path / "conf.py").write_text(conf, encoding="utf-8")
    (tmp_path / "index.md").write_text("# Title\n\n$x$\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", tmp_path, tmp_path / "build" / "html"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "MathJax from its public CDN" in done.stdout
    page = Path(tmp_path, "build", "html", "index.html").read_text(encoding="utf-8")
    assert "\\(x\\)" in page and "mathjax" in page
