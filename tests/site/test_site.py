"""The built site in headless Chromium: console, requests, mathematics, links, phones, themes."""

import functools
from collections.abc import Iterator
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from browsing import DESKTOP, PHONE, SITE, Visit, serve
from bs4 import BeautifulSoup
from conftest import missing
from playwright.sync_api import Browser, Page

PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] not in ("_static", "_sources")
)
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]

every_page = pytest.mark.parametrize("page", PAGES or ["index.html"])
every_chapter = pytest.mark.parametrize("page", CHAPTERS or ["notebooks/"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the site on this machine."""
    if not PAGES:
        missing("there is no site yet: make book")
    with serve(SITE) as server:
        yield server.address


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator:
    """Open pages in a context of their own."""
    contexts = []

    def open_page(path: str, viewport: dict = DESKTOP, theme: str = "light") -> Visit:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=theme))
        return Visit(contexts[-1].new_page(), address + path)

    yield open_page
    for context in contexts:
        context.close()


@functools.cache
def parse(page: str) -> BeautifulSoup:
    """Read one page of the site; once, for the links of all others lead there too."""
    if not (SITE / page).is_file():
        missing("there is no site yet: make book")
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


@every_page
def test_page_is_silent_and_asks_no_other_host(visit, address, page):
    opened = visit(page)
    if not (SITE / "_static" / "mathjax").exists():
        missing("the site was built without npm, so it loads MathJax from a CDN")
    assert opened.complaints == []
    elsewhere = [u for u in opened.requests if not u.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


@every_page
def test_mathematics_is_rendered(visit, page):
    page_ = visit(page).page
    assert page_.locator("mjx-merror, [data-mjx-error]").count() == 0
    sources = page_.locator("span.math, div.math").count()
    assert page_.locator(".math mjx-container").count() >= sources
    text = page_.evaluate(
        "() => { const copy = document.body.cloneNode(true);"
        " copy.querySelectorAll('pre, code, script, mjx-container').forEach(e => e.remove());"
        " return copy.textContent }"
    )
    assert not any(mark in text for mark in ("$$", r"\(", r"\[", r"\mathbf", "{eq}", "{doc}"))


@every_chapter
def test_chapter_has_mathematics_and_described_figures(visit, page):
    assert visit(page).page.locator("mjx-container").count() > 0
    images = parse(page).select("article img")
    assert images
    assert [image["src"] for image in images if not image.get("alt", "").strip()] == []


@every_page
def test_phone_needs_no_sideways_scroll(visit, page):
    page_ = visit(page, viewport=PHONE).page
    assert page_.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # A display wider than its box starts at the box's left edge: its head can be read.
    cut = page_.evaluate(
        "() => [...document.querySelectorAll('div.math')].filter(box => box.offsetParent &&"
        " box.querySelector('mjx-container').getBoundingClientRect().left <"
        " box.getBoundingClientRect().left - 1).map(box => box.id || box.textContent)"
    )
    assert cut == []


def words_for_widgets(browser: Browser, page: str, url: str, **context: bool) -> list[str]:
    """Open a page and return what stands where its widgets would be."""
    if not parse(page).select("[data-widget]"):
        pytest.skip("no widget on this page")
    opened = browser.new_context(**context)
    tab = opened.new_page()
    tab.goto(url, wait_until="load")
    if context.get("java_script_enabled", True):
        assert tab.locator("mjx-container").count() > 0  # mathematics needs no server
    words = tab.locator("[data-widget] > p").all_inner_texts()
    opened.close()
    assert len(words) == len(parse(page).select("[data-widget]"))
    return words


@every_chapter
def test_a_page_opened_as_a_file_asks_for_a_server(browser, page):
    words = words_for_widgets(browser, page, (SITE / page).as_uri())
    assert all("make serve" in text and "JavaScript" not in text for text in words)


@every_chapter
def test_a_page_without_javascript_asks_for_it(browser, address, page):
    words = words_for_widgets(browser, page, address + page, java_script_enabled=False)
    assert all("needs JavaScript" in text and "make serve" not in text for text in words)


def test_no_publisher_drops_folders_of_the_site():
    parse("index.html")
    assert (SITE / ".nojekyll").is_file()


def brightness(page: Page) -> float:
    """Return the lightness of the page's background, 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]) / 3


def test_both_themes_show_and_switch(visit):
    assert brightness(visit("book/index.html", theme="light").page) > 200
    dark = visit("book/index.html", theme="dark").page
    assert brightness(dark) < 60
    button = dark.locator("button.theme-switch-button").locator("visible=true").first
    seen = []
    for _ in range(3):
        button.click()
        seen.append(dark.evaluate("document.documentElement.dataset.theme"))
    assert set(seen) == {"light", "dark"}


def test_one_search_field_and_a_working_sidebar_button(visit):
    page = visit("book/notation.html").page
    assert page.locator(".search-button-field, .search-button").locator("visible=true").count() == 1
    sidebar = page.locator(".bd-sidebar-primary")
    shown = sidebar.bounding_box()["x"]
    page.locator("button.primary-toggle").locator("visible=true").click()
    page.wait_for_timeout(500)
    assert not sidebar.is_visible() or sidebar.bounding_box()["x"] < shown


def test_search_finds_a_term(visit):
    page = visit("search.html?q=likelihood").page
    page.wait_for_selector("#search-results li a")


@functools.cache
def anchors(page: str) -> set[str]:
    """Return every place on a page that a link can point to."""
    return {tag.get("id") or tag.get("name") for tag in parse(page).select("[id], a[name]")}


@every_page
def test_internal_links_lead_somewhere(page):
    broken = []
    for link in parse(page).select("a[href]"):
        target = urlsplit(urljoin(page, link["href"]))
        if target.scheme:
            continue
        path, place = unquote(target.path) or page, unquote(target.fragment)
        found = (SITE / path).is_file()
        if found and place and path.endswith(".html"):
            found = place in anchors(path)
        if not found:
            broken.append(link["href"])
    assert broken == []
