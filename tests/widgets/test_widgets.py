"""What all widgets promise: keyboard, themes, phones, links, bad input, print, and little weight.

The numbers that a widget shows are tested in its own file, tests/widgets/test_widget_NAME.py.
"""

import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from browsing import DESKTOP, FRAMES, PHONE, ROOT, SITE, Shown, serve
from bs4 import BeautifulSoup
from conftest import missing
from playwright.sync_api import Page
from traitlets import TraitError

from vdm_lite import figures, widgets
from vdm_lite.widgets import base

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PAGES = sorted((SITE / "notebooks").glob("*.html"))
SECOND_VIEW = """async (name) => {
  const { model } = document.querySelector("[data-widget]");
  const { render } = await import(`/js/${name}.js`);
  const held = { listeners: 0, observers: 0 };
  const count = (object, method, what, by) => {
    const old = object[method];
    object[method] = function (...given) { held[what] += by; return old.apply(this, given); };
  };
  for (const [object, on, off] of [
    [model, "on", "off"], [window, "addEventListener", "removeEventListener"]
  ]) {
    count(object, on, "listeners", 1);
    count(object, off, "listeners", -1);
  }
  count(ResizeObserver.prototype, "observe", "observers", 1);
  count(ResizeObserver.prototype, "disconnect", "observers", -1);
  const el = document.querySelector("main").appendChild(document.createElement("div"));
  const remove = render({ model, el });
  window.takeAway = () => { remove(); return { ...held, inside: el.childElementCount }; };
  return { ...held };
}"""
NOTEBOOK = """async ([source, use]) => {
  const file = new Blob([source], { type: "text/javascript" });
  const { render } = (await import(URL.createObjectURL(file))).default;
  return new Function(`return ${use}`)()(render);
}"""
SAME_NAMES = {
    "lib/one.js": """const size = 1;
export function twice() {
  return 2 * size;
}
""",
    "lib/two.js": """import { twice } from "./one.js";
const size = 10;
export const sum = () => size + twice();
""",
    "same_names.js": """import {
  sum as total,
} from "./lib/two.js";
import { twice } from "./lib/one.js";
const [size, sum] = [100, 0];
export const render = () => [twice(), total(), size + sum];
""",
}
every_widget = pytest.mark.parametrize("widget", widgets.ALL, ids=lambda widget: widget.module)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def fields(widget: type, *kinds: str) -> list[dict[str, Any]]:
    """The fields of a widget, of these kinds only if any are given."""
    return [field for field in widget()._fields if not kinds or field["kind"] in kinds]


def another(field: dict[str, Any]) -> Any:
    """A legal value other than the first one."""
    if field["kind"] == "switch":
        return not field["initial"]
    if field["kind"] == "choice":
        return next(option for option in field["options"] if option != field["initial"])
    low, high = field["low"], field["high"]
    if field["kind"] == "curve":
        return [0.7 * value + 0.3 * (low + high) / 2 for value in field["initial"]]
    value = low + 0.37 * (high - low) if field["initial"] != low + 0.37 * (high - low) else low
    return round(value) if field["kind"] == "whole" else round(value, 4)


def move(shown: Shown, field: dict[str, Any]) -> None:
    """Give a field another value by its own control; a curve, whose handles are tested apart."""
    name, value = field["name"], another(field)
    if field["kind"] == "switch":
        shown.check(name, value)
    elif field["kind"] == "choice":
        shown.choose(name, value)
    elif field["kind"] == "curve":
        change = "([n, v]) => document.querySelector('[data-widget]').model.set(n, v)"
        shown.page.evaluate(change, [name, value])
        shown.settle()
    else:
        shown.type(name, str(value))


def state(shown: Shown) -> dict[str, Any]:
    """All fields as the page has them."""
    return shown.page.evaluate(
        "() => { const { model } = document.querySelector('[data-widget]'); const all = {};"
        " for (const { name } of model.get('_fields')) all[name] = model.get(name); return all }"
    )


def message(shown: Shown) -> str:
    """What the widget tells its reader below the buttons."""
    return shown.page.locator(".vdm-status").inner_text()


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds in the widgets of a page."""
    if not AXE.exists():
        missing("axe-core is not installed: make book installs it where there is npm")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run('.vdm')")["violations"]
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


# Python


@every_widget
def test_fields_refuse_what_is_out_of_range(widget):
    for field in fields(widget, "number", "whole"):
        for bad in (field["low"] - 1, field["high"] + 1, float("nan"), "text"):
            with pytest.raises(TraitError):
                widget(**{field["name"]: bad})
    for field in fields(widget, "choice"):
        with pytest.raises(TraitError):
            widget(**{field["name"]: "no such thing"})
    for field in fields(widget, "curve"):
        with pytest.raises(TraitError):
            widget(**{field["name"]: field["initial"][1:]})
    with pytest.raises(TypeError, match="no fields"):
        widget(no_such_field=1)


@every_widget
def test_html_form_is_safe_and_complete(widget):
    form = BeautifulSoup(widget().html(), "html.parser")
    state = json.loads(form.select_one('script[type="application/json"]').string)
    assert [field["name"] for field in state["_fields"]] == [f["name"] for f in fields(widget)]
    assert "<" not in form.script.string
    assert form.p.get_text()


def test_colab_gets_the_widget_itself(monkeypatch):
    assert "data-widget=" in widgets.VaeGap()._repr_mimebundle_()[0]["text/html"]
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    bundle, _ = widgets.VaeGap()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "text/html" not in bundle


@pytest.fixture
def in_notebook(browser, widget_server) -> Iterator[Callable[[str, str], Any]]:
    """Evaluate a function of ``render`` where a notebook has imported its one module."""
    page = browser.new_page()
    page.goto(widget_server.address + "blank.html")
    yield lambda source, use: page.evaluate(NOTEBOOK, [source, use])
    page.close()


@every_widget
def test_one_module_for_notebooks_is_what_the_page_runs(in_notebook, widget):
    source = base.bundle(widget.module)
    assert not re.search(r"^(import|export (?!default))", source, re.MULTILINE)
    assert in_notebook(source, "(render) => typeof render") == "function"


def test_modules_of_a_notebook_may_use_the_same_names(in_notebook, monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    for name, source in SAME_NAMES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    monkeypatch.setattr(base, "FOLDER", tmp_path)
    source = base.bundle("same_names")
    assert in_notebook(source, "(render) => render()") == [2, 12, 100]
    assert source.count("const size = 1;") == 1


def test_colors_are_those_of_the_figures():
    css = (base.FOLDER / "widget.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--vdm-(\w+): (#\w+);", css.partition("@media")[0]))
    assert {name: light[name] for name in figures.COLORS} == figures.COLORS


# The widget on a page


@every_widget
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_accessible_and_silent(show, widget, theme, viewport):
    shown = show(widget(), theme=theme, viewport=viewport)
    assert shown.complaints == []
    assert violations(shown.page) == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for field in fields(widget):
        move(shown, field)
    assert shown.complaints == []
    assert violations(shown.page) == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@every_widget
def test_keyboard_reaches_and_moves_every_control(show, widget):
    shown = show(widget())
    selector = ".vdm :is(input, select, button:enabled, [tabindex='0'])"
    focused = (
        "selector => { const { activeElement: e } = document;"
        " const { outlineStyle, outlineWidth } = getComputedStyle(e);"
        " const place = [...document.querySelectorAll(selector)].indexOf(e);"
        " return [place, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2, e.outerHTML] }"
    )
    wanted = shown.page.locator(selector).count()
    reached = []
    for _ in range(wanted):
        shown.page.keyboard.press("Tab")
        reached.append(shown.page.evaluate(focused, selector))
    assert sorted(place for place, _, _ in reached) == list(range(wanted))
    assert [html for _, visible, html in reached if not visible] == []
    for field in fields(widget, "number", "whole"):
        key = "ArrowLeft" if field["initial"] == field["high"] else "ArrowRight"
        before = shown.get(field["name"])
        shown.slide(field["name"], [key])
        assert shown.get(field["name"]) != before, field["name"]


@every_widget
def test_handles_answer_the_keys_of_a_slider(show, widget):
    shown = show(widget())
    for knob in shown.page.locator(".vdm-knob").all():

        def press(key: str, knob: Any = knob) -> float:
            knob.press(key)
            shown.settle()
            return float(knob.get_attribute("aria-valuenow"))

        end = press("End")
        press("ArrowLeft")
        twice = press("ArrowLeft")
        assert press("End") == end
        # Both before the next frame: the second goes on from where the first has led.
        key = "new KeyboardEvent('keydown', { key: 'ArrowLeft', cancelable: true })"
        knob.evaluate(f"knob => {{ knob.dispatchEvent({key}); knob.dispatchEvent({key}) }}")
        shown.settle()
        assert float(knob.get_attribute("aria-valuenow")) == pytest.approx(twice)
        assert press("PageDown") < twice < end
        assert press("Home") < press("PageUp") < end
        shown.page.get_by_role("button", name="Reset").click()
        shown.settle()
    assert shown.complaints == []


@every_widget
def test_link_carries_the_state(show, widget):
    shown = show(widget())
    for field in fields(widget):
        move(shown, field)
    shown.page.get_by_role("button", name="Copy link").click()
    shown.settle()
    again = show(widget(), link=shown.link())
    assert state(again) == state(shown)
    assert message(again) == ""
    assert again.complaints == []


@every_widget
def test_damaged_link_means_the_default(show, widget):
    name = fields(widget)[0]["name"]
    damages = [f"{name}=%FF", f"{name}=", "nothing=1"]
    damages += [f"{f['name']}={f['high'] + 1}" for f in fields(widget, "number", "whole")]
    damages += [f"{f['name']}=1,2" for f in fields(widget, "curve")]
    damages += [f"{f['name']}=constructor" for f in fields(widget, "switch", "choice")]
    shown = show(widget())
    before = state(shown)
    for damage in damages:
        # The rest of a damaged link is not to be trusted either.
        good = "".join(f"&{f['name']}={another(f)}" for f in fields(widget, "choice")[:1])
        shown.page.evaluate(
            "hash => { location.hash = hash }", f"#widget-{widget.module}?{damage}{good}"
        )
        shown.page.wait_for_function(
            "document.querySelector('.vdm-status').textContent.includes('could not be read')"
        )
        shown.settle()
        assert state(shown) == before, damage
        shown.page.get_by_role("button", name="Reset").click()
    assert shown.complaints == []


@every_widget
def test_bad_input_is_explained_and_changes_nothing(show, widget):
    shown = show(widget())
    before = state(shown)
    for field in fields(widget, "number", "whole"):
        name = field["name"]
        bad = ["abc", "", "NaN", "Infinity", "1e999", str(field["high"] + 1)]
        for typed in bad + (["1.5"] if field["kind"] == "whole" else []):
            shown.type(name, typed)
            told = shown.page.locator(f'.vdm [id$="-{name}-problem"]').inner_text()
            assert "kept" in told, (name, typed)
            assert state(shown) == before
        assert violations(shown.page) == []
        shown.type(name, str(another(field)))
        assert shown.page.locator(f'.vdm [id$="-{name}-problem"]').inner_text() == ""
        shown.page.get_by_role("button", name="Reset").click()
        shown.settle()
        before = state(shown)
    assert shown.complaints == []


def test_what_is_being_typed_survives_a_change_of_another_field(show):
    shown = show(widgets.VaeGap())
    shown.page.locator('.vdm input[id$="-mean-typed"]').fill("0.9")
    change = "() => document.querySelector('[data-widget]').model.set('variance', 0.3)"
    shown.page.evaluate(change)
    shown.settle()
    assert shown.page.locator('.vdm input[id$="-variance-typed"]').input_value() == "0.3"
    shown.page.keyboard.press("Enter")
    assert shown.get("mean") == 0.9


def test_a_setting_that_cannot_be_shown_is_reported_until_one_can(show):
    shown = show(widgets.PosteriorExplorer())
    first = shown.get("picture")
    change = "name => document.querySelector('[data-widget]').model.set('picture', name)"
    shown.page.evaluate(change, "nothing")
    shown.settle()
    assert "could not be shown" in message(shown)
    shown.page.evaluate(change, first)
    shown.settle()
    assert message(shown) == ""


@every_widget
def test_reset_restores_every_field(show, widget):
    shown = show(widget())
    before = state(shown)
    for field in fields(widget):
        move(shown, field)
    assert state(shown) != before
    shown.page.get_by_role("button", name="Reset").click()
    shown.settle()
    assert state(shown) == before


@every_widget
def test_a_second_view_follows_and_leaves_nothing_behind(show, widget):
    """As in JupyterLab, which shows one model in two places and takes views away again."""
    shown = show(widget())
    held = shown.page.evaluate(SECOND_VIEW, widget.module)
    assert held["listeners"] == 2  # of the model, and of the address
    field = fields(widget)[0]
    change = "([n, v]) => document.querySelector('[data-widget]').model.set(n, v)"
    shown.page.evaluate(change, [field["name"], another(field)])
    shown.settle()
    both = shown.page.evaluate(
        "() => [...document.querySelectorAll('.vdm-controls')].map(each =>"
        " [...each.querySelectorAll('input, select')].map((e) => [e.value, e.checked]))"
    )
    assert len(both) == 2 and both[0] == both[1]
    assert shown.page.evaluate("takeAway()") == {"listeners": 0, "observers": 0, "inside": 0}
    shown.page.get_by_role("button", name="Reset").click()
    shown.settle()
    assert shown.complaints == []


@every_widget
def test_nothing_moves_by_itself_for_readers_who_asked_for_that(show, widget):
    shown = show(widget(), reduced_motion="reduce")
    for field in fields(widget):
        move(shown, field)
    assert shown.page.evaluate("document.getAnimations().length") == 0


@every_widget
def test_print_shows_the_setting_instead_of_the_controls(show, widget):
    shown = show(widget(), theme="dark")
    shown.page.emulate_media(media="print")
    controls = shown.page.locator(".vdm :is(.vdm-controls, .vdm-buttons, .vdm-knob)")
    assert controls.locator("visible=true").count() == 0
    assert shown.page.locator(".vdm-settings").is_visible()
    assert shown.page.locator(".vdm-stage").is_visible()
    ink = shown.page.evaluate("getComputedStyle(document.querySelector('.vdm')).color")
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 300, "dark ink on paper"


# The book


def on_page(page) -> list[str]:
    """The modules of the widgets on a page of the site."""
    return re.findall(r'data-widget="(\w+)"', page.read_text(encoding="utf-8"))


def test_every_widget_stands_in_the_book():
    if not PAGES:
        missing("there is no site yet: make book")
    placed = {module for page in PAGES for module in on_page(page)}
    assert placed == {widget.module for widget in widgets.ALL}


@every_page
def test_widgets_of_a_page_work_and_are_light(browser, page):
    if not on_page(page):
        return
    responses: list[Any] = []
    with serve(SITE) as server:
        opened = browser.new_page()
        opened.on("response", lambda response: responses.append(response))
        opened.goto(f"{server.address}notebooks/{page.name}", wait_until="networkidle")
        opened.wait_for_function(
            "() => [...document.querySelectorAll('[data-widget]')].every(e => 'ready' in e.dataset)"
        )
        kinds = [each for each in responses if each.request.resource_type == "script"]
        scripts = {each.url: each.body() for each in kinds}
        opened.evaluate(FRAMES)
        assert opened.locator(".vdm").count() == len(on_page(page))
        numbers = opened.locator("data[data-readout]").evaluate_all("all => all.map(e => e.value)")
        assert numbers and not {"NaN", "undefined"} & set(numbers)
        assert violations(opened) == []  # beside the theme's own style sheets
        opened.close()
    assert not any("require" in url or "widget-manager" in url for url in scripts)
    assert "application/vnd.jupyter.widget-state" not in page.read_text(encoding="utf-8")
    own = {url: body for url, body in scripts.items() if "search" not in url}
    weights = {url.rpartition("/")[2]: len(gzip.compress(body)) for url, body in own.items()}
    assert sum(weights.values()) <= 60_000, weights


def test_pages_without_widgets_load_no_loader():
    if not PAGES:
        missing("there is no site yet: make book")
    plain = [page for page in SITE.glob("book/*.html") if not on_page(page)]
    assert plain
    assert [
        page.name for page in plain if "widgets/loader.js" in page.read_text(encoding="utf-8")
    ] == []
