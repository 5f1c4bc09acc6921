"""The built site in headless Chromium: console, requests, mathematics, links, phones, themes."""

import copy
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

MATHEMATICS = SITE / "_static" / "mathematics"

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

    def open_page(
        path: str, viewport: dict = DESKTOP, theme: str = "light", before: str = ""
    ) -> Visit:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=theme))
        contexts[-1].add_init_script(before)
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
    if not MATHEMATICS.exists():
        missing("the site was built without npm, so it loads MathJax from a CDN")
    assert opened.complaints == []
    elsewhere = [u for u in opened.requests if not u.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


@every_page
def test_mathematics_is_set_when_the_book_is_built(page):
    article = copy.copy(parse(page).select_one("article"))
    if article is None:
        pytest.skip("this page leads on, or is filled by a script")
    assert all(box.find("math") for box in article.select(".math"))
    assert not article.select("merror, .tml-error")
    for tag in article.select("pre, code, script, math"):
        tag.decompose()
    assert not any(
        mark in article.text for mark in ("$", r"\(", r"\[", r"\mathbf", "{eq}", "{doc}")
    )


@every_chapter
def test_formulas_are_whole_and_no_tab_stops(visit, page):
    page_ = visit(page).page
    assert page_.locator("div.math math").count() > 0
    assert page_.locator(".math [tabindex]").count() == 0
    cut = page_.evaluate(
        "() => [...document.querySelectorAll('div.math')].filter(box => box.offsetParent &&"
        " box.scrollHeight > box.clientHeight + 1).map(box => box.id || box.textContent)"
    )
    assert cut == []


@every_chapter
def test_chapter_has_described_figures_that_keep_their_place(page):
    images = parse(page).select("article img")
    assert images
    assert [image["src"] for image in images if not image.get("alt", "").strip()] == []
    files = [image for image in images if not image["src"].startswith("data:")]
    assert [image["src"] for image in files if not image.get("height")] == []


PLACES = (
    "h2[id], h3[id], section[id]:not([id$='-content']), div.math[id], figure[id], div.exercise[id]"
)
LAND = """async ([places, margin]) => {
  const frame = () => new Promise(requestAnimationFrame);
  const missed = [];
  for (const place of document.querySelectorAll(places)) {
    if (!place.offsetParent) continue;
    location.hash = place.id;
    await frame();
    await frame();
    const bottom = scrollY + innerHeight > document.documentElement.scrollHeight - 2;
    const off = place.getBoundingClientRect().top - parseFloat(margin);
    if (!bottom && Math.abs(off) > 30) missed.push([place.id, off]);
  }
  return missed;
}"""
SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@every_page
def test_links_land(visit, page, viewport):
    """Within 30 px of the top, below the bar; from another page the last place of all."""
    last = (parse(page).select(PLACES) or [{"id": ""}])[-1]["id"]
    page_ = visit(f"{page}#{last}", viewport).page
    bar = page_.evaluate("getComputedStyle(document.documentElement).scrollPaddingTop")
    arrived = page_.evaluate(
        "(id) => !id || document.getElementById(id).getBoundingClientRect().top", last
    )
    at_end = page_.evaluate("scrollY + innerHeight > document.documentElement.scrollHeight - 2")
    assert at_end or arrived is True or abs(arrived - float(bar.removesuffix("px"))) <= 30
    assert page_.evaluate(LAND, [PLACES, bar]) == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@every_chapter
def test_links_of_widgets_land(visit, page, viewport):
    widgets = parse(page).select("[data-widget]")
    if not widgets:
        pytest.skip("no widget on this page")
    name = widgets[-1]["data-widget"]
    count = sum(widget["data-widget"] == name for widget in widgets)
    page_ = visit(f"{page}#widget-{name}{f'-{count}' if count > 1 else ''}", viewport).page
    page_.wait_for_selector("[id^=widget-]")
    arrived = page_.locator("[id^=widget-]").evaluate("e => e.getBoundingClientRect().top")
    bar = page_.evaluate("parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop)")
    assert abs(arrived - bar) <= 30


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@every_page
def test_nothing_moves_while_a_page_loads(visit, page, viewport):
    assert visit(page, viewport, before=SHIFTS).page.evaluate("window.shifts") <= 0.05


@every_page
def test_phone_needs_no_sideways_scroll(visit, page):
    page_ = visit(page, viewport=PHONE).page
    assert page_.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # A display wider than its box starts at the box's left edge: its head can be read.
    cut = page_.evaluate(
        "() => [...document.querySelectorAll('div.math')].filter(box => box.offsetParent &&"
        " box.querySelector('math').getBoundingClientRect().left <"
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
    assert tab.locator("math").count() > 0  # mathematics needs no server and no script
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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_is_there_before_the_first_paint(browser, address, theme):
    """No script of the theme has run yet: they are held back."""
    context = browser.new_context(color_scheme=theme)
    page = context.new_page()
    page.route("**/*.js*", lambda route: route.abort())
    page.goto(address + "book/index.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert (brightness(page) < 60) == (theme == "dark")
    context.close()


def test_paper_is_light_and_shows_what_is_folded(visit):
    page = visit("notebooks/04_forward_process.html", theme="dark").page
    folded = page.locator("details:not([open])").count()
    assert folded
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert brightness(page) > 200 and page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert brightness(page) < 60 and page.locator("details:not([open])").count() == folded


def test_a_reference_shows_what_it_leads_to(visit):
    page = visit("notebooks/04_forward_process.html").page
    for kind, inside in (("#equation-", "math"), ("#fig-", "img"), ("#term-", "dd, p")):
        page.locator(f".bd-article a.reference.internal[href*='{kind}']").first.hover()
        page.wait_for_selector(f".preview :is({inside})")
        page.keyboard.press("Escape")
        assert page.locator(".preview").count() == 0


def test_what_is_copied_holds_the_tex_of_formulas(visit):
    page = visit("notebooks/04_forward_process.html").page
    page.evaluate(
        "() => { const box = document.querySelector('div.math[id]');"
        " getSelection().selectAllChildren(box);"
        " document.addEventListener('copy', event => {"
        "   window.copied = event.clipboardData.getData('text') }) }"
    )
    page.evaluate("document.execCommand('copy')")
    copied = page.evaluate("window.copied")
    assert copied.strip().startswith("$$") and "\\" in copied


def test_one_search_field_and_a_working_sidebar_button(visit):
    page = visit("book/notation.html").page
    assert page.locator(".search-button-field, .search-button").locator("visible=true").count() == 1
    sidebar = page.locator(".bd-sidebar-primary")
    shown = sidebar.bounding_box()["x"]
    page.locator("button.primary-toggle").locator("visible=true").click()
    page.wait_for_timeout(500)
    assert not sidebar.is_visible() or sidebar.bounding_box()["x"] < shown


QUERIES = {
    "KL": "glossary.html#term-KL-divergence",
    "kullback-leibler divergence": "glossary.html#term-KL-divergence",
    "reparameterization trick": "01_autoencoders.html#a-gradient-through-a-draw",
    "reparametrization": "glossary.html#term-reparameterization",
    "v-prediction": "glossary.html#term-v-prediction",
    "noise schedule": "07_noise_schedules.html",
    "noise schedules": "07_noise_schedules.html",
    "bits per dimension": "05_discrete_elbo.html#bits-per-dimension",
    "BPD": "glossary.html#term-bits-per-dimension",
    "DDPM": "glossary.html#term-DDPM",
    "DDIM": "glossary.html#term-DDIM",
    "score matching": "glossary.html#term-score-matching",
    "ELBO": "05_discrete_elbo.html",
    "posterior colapse": "glossary.html#term-posterior-collapse",
    "why is flow matching velocity prediction": "#why-flow-matching-is-velocity-prediction",
    "importance sampling": "glossary.html#term-importance-sampling",
    "EMA": "12_denoiser.html#averaged-weights",
    "fourier features": "12_denoiser.html#what-a-convolution-sees",
    "holes in the latent space": "02_holes.html#measuring-the-holes",
    "active units": "02_holes.html#units-that-give-up",
    "KL divergence": "glossary.html#term-KL-divergence",
    "ladder VAE": "glossary.html#term-ladder-VAE",
    "EDM": "09_weighted_objectives.html#edm",
    "signal to noise ratio": "glossary.html#term-signal-to-noise-ratio",
}


def search(visit, query: str) -> list[str]:
    """The addresses that the search page finds."""
    if not (SITE / "_static" / "search").exists():
        missing("the site was built without npm, so its search is Sphinx's")
    page = visit("search.html").page
    page.fill(".bd-search-container input", query)
    return page.locator("#search-results a").evaluate_all("all => all.map(a => a.href)")


@pytest.mark.parametrize("query", QUERIES)
def test_search_finds_the_section_that_explains(visit, query):
    found = search(visit, query)
    assert any(link.endswith(QUERIES[query]) for link in found[:2]), found[:4]


def test_search_marks_nothing_and_shows_no_tex(visit, address):
    opened = visit("search.html?q=variance")
    items = opened.page.locator("#search-results li").all_inner_texts()
    assert len(items) > 5
    assert not any(mark in text for text in items for mark in ("\\", "import ", "$"))
    opened.page.locator("#search-results a").first.click()
    opened.page.wait_for_load_state("networkidle")
    assert opened.page.locator(".highlighted").count() == 0
    assert opened.complaints == []


def test_search_works_in_a_page_opened_as_a_file(browser):
    page = browser.new_page()
    page.goto((SITE / "search.html").as_uri() + "?q=nats")
    assert page.locator("#search-results li").count() > 0
    page.close()


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
