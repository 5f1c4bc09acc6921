"""Time the live widgets of the built book in headless Chromium, and weigh their scripts.

For each page with widgets, from a server on this machine and with an empty cache: the time from
navigation to the first widget that works (median of some visits), and the gzipped weight of the
page's scripts, mathematics and search aside. For each widget: the longest task with script in a
trace of Chromium while the mouse drags the first slider over its range. For the denoiser: the time
from the press of its buttons to the loaded network, and to a picture in 50 steps (median).
"""

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from browsing import CHROMIUM, SITE, launch, serve  # noqa: E402
from playwright.sync_api import Browser, Locator, Page  # noqa: E402

SECONDS, TASK_MS, KILOBYTES, SAMPLING = 1.5, 50, 60, 3.0  # the goals
MOVES = 40
READY = "() => [...document.querySelectorAll('[data-widget]')].every(e => 'ready' in e.dataset)"
WATCH = """new MutationObserver(() => {
  if (document.querySelector('[data-ready]')) window.firstWidget ??= performance.now();
}).observe(document, { attributes: true, subtree: true, attributeFilter: ['data-ready'] });"""
SCRIPT = {"FunctionCall", "EvaluateScript", "TimerFire", "FireAnimationFrame", "EventDispatch"}
CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline"]


def pages(site: Path) -> list[Path]:
    """The chapters that hold widgets."""
    found = sorted((site / "notebooks").glob("*.html"))
    return [page for page in found if "data-widget=" in page.read_text(encoding="utf-8")]


def first_widget(browser: Browser, url: str) -> float:
    """Seconds from navigation to the first widget that works, nothing being cached."""
    context = browser.new_context()
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("() => window.firstWidget")
    seconds = page.evaluate("window.firstWidget") / 1000
    context.close()
    return seconds


def weight(browser: Browser, url: str) -> float:
    """Kilobytes of the page's scripts, gzipped one by one; mathematics and search aside."""
    page = browser.new_page()
    responses: list[Any] = []
    page.on("response", lambda response: responses.append(response))
    page.goto(url)
    page.wait_for_function(READY)
    page.wait_for_load_state("networkidle")
    scripts = [each for each in responses if each.request.resource_type == "script"]
    own = {each.url: each for each in scripts if "search" not in each.url}
    sizes = [len(gzip.compress(each.body())) for each in own.values()]
    page.close()
    return sum(sizes) / 1000


def drag(page: Page, slider: Locator) -> None:
    """Press at the left end of a slider and go to its right end."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y, left, width = box["y"] + box["height"] / 2, box["x"] + 8, box["width"] - 16
    page.mouse.move(left, y)
    page.mouse.down()
    for k in range(1, MOVES + 1):
        page.mouse.move(left + width * k / MOVES, y)
        page.wait_for_timeout(16)
    page.mouse.up()
    page.wait_for_timeout(200)


def longest_task(events: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds of the longest task in which a script ran, layout and painting included.

    By the clock, and of the processor alone, as on a busy machine a task also waits for its turn.
    """
    timed = [event for event in events if event.get("ph") == "X"]
    script = [event for event in timed if event["name"] in SCRIPT]
    tasks = [event for event in timed if event["name"] == "RunTask"]

    def holds(task: dict[str, Any], event: dict[str, Any]) -> bool:
        same = (task["pid"], task["tid"]) == (event["pid"], event["tid"])
        return same and task["ts"] <= event["ts"] <= task["ts"] + task["dur"]

    tasks.sort(key=lambda task: task["dur"], reverse=True)
    longest = [task for task in tasks if any(holds(task, event) for event in script)]
    return longest[0]["dur"] / 1000, max(task.get("tdur", 0) for task in longest) / 1000


def dragging(browser: Browser, url: str) -> dict[str, tuple[float, float]]:
    """``longest_task`` while each widget's first slider is dragged."""
    found = {}
    page = browser.new_page()
    page.goto(url, wait_until="networkidle")
    page.wait_for_function(READY)
    for host in page.locator("[data-widget]").all():
        slider = host.locator("input[type=range]").first
        if slider.count() == 0:
            continue
        page.wait_for_timeout(500)
        browser.start_tracing(page=page, categories=CATEGORIES)
        drag(page, slider)
        trace = json.loads(browser.stop_tracing())
        found[host.get_attribute("data-widget")] = longest_task(trace["traceEvents"])
    page.close()
    return found


def sampling(browser: Browser, url: str, runs: int) -> tuple[float, float]:
    """Seconds to load the denoiser, nothing being cached, and to sample one picture."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    host = page.locator("[data-widget=denoiser]")
    button = host.locator(".vdm-buttons button").first

    def press() -> float:
        """Seconds from a press to the moment when a picture can be asked for."""
        begun = time.perf_counter()
        button.click()
        host.get_by_role("button", name="Sample").wait_for(timeout=60_000)
        return time.perf_counter() - begun

    found = press(), median(press() for _ in range(runs))
    context.close()
    return found


def outcome(value: float, goal: float) -> str:
    """Whether a number is at most its goal."""
    return "reached" if value <= goal else "missed"


def main() -> None:
    """Print one table for the pages and one for the widgets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visits", type=int, default=5, help="per page; the median counts")
    parser.add_argument("--site", type=Path, default=SITE, help="the built book")
    parser.add_argument("--only", default="", help="pages whose name holds this text")
    arguments = parser.parse_args()
    chosen = [page for page in pages(arguments.site) if arguments.only in page.stem]
    if not CHROMIUM or not chosen:
        sys.exit("Needed: chromium or google-chrome, and a built book with widgets (make book)")
    print(f"{'page':28} {'first widget works':>20} {'':8} {'scripts, gzipped':>18}")
    tasks, pictures = {}, {}
    with serve(arguments.site) as server, launch() as browser:
        for page in chosen:
            url = f"{server.address}notebooks/{page.name}"
            seconds = median(first_widget(browser, url) for _ in range(arguments.visits))
            size = weight(browser, url)
            times = f"{seconds:18.2f} s {outcome(seconds, SECONDS):8}"
            print(f"{page.stem:28} {times} {size:15.1f} KB {outcome(size, KILOBYTES)}", flush=True)
            tasks |= {(page.stem, name): ms for name, ms in dragging(browser, url).items()}
            if 'data-widget="denoiser"' in page.read_text(encoding="utf-8"):
                pictures[page.stem] = sampling(browser, url, arguments.visits)
    print(f"\n{'page':28} {'widget':28} longest task while dragging")
    for (name, widget), (ms, busy) in tasks.items():
        print(
            f"{name:28} {widget:28} {ms:8.1f} ms {outcome(ms, TASK_MS):8} processor {busy:6.1f} ms"
        )
    for name, (load, picture) in pictures.items():
        print(f"\n{name:28} denoiser loaded in {load:.2f} s")
        print(f"{name:28} picture in 50 steps {picture:.2f} s {outcome(picture, SAMPLING)}")
    goals = f"{SECONDS} s, {KILOBYTES} KB, {TASK_MS} ms"
    print(f"\nGoals: {goals}, and {SAMPLING:.0f} s for a picture")


if __name__ == "__main__":
    main()
