"""Number figures, equations and exercises by chapter: the third equation of chapter 4 is (4.3).

The chapter's number is the one in its file name, so that a book whose first chapters are not
written yet counts right. Headings carry their numbers in their own text.
"""

import re

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

CHAPTER = re.compile(r"notebooks/(\d\d)_")
assign_figure_numbers = TocTreeCollector.assign_figure_numbers


def assign_by_chapter(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Lend Sphinx the chapter numbers while it counts the figures."""
    found = ((name, CHAPTER.match(name)) for name in env.found_docs)
    env.toc_secnumbers = {name: {"": (int(match[1]),)} for name, match in found if match}
    try:
        return assign_figure_numbers(self, env)
    finally:
        env.toc_secnumbers = {}


def setup(app: Sphinx) -> dict[str, bool]:
    """Replace the collector's method before Sphinx makes use of it."""
    TocTreeCollector.assign_figure_numbers = assign_by_chapter
    return {"parallel_read_safe": True, "parallel_write_safe": True}
