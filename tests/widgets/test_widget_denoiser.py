"""The denoiser on the page: steps and costs as in the library, the same pictures, good manners."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import DESKTOP, PAGE, ROOT, Shown, serve
from conftest import missing
from playwright.sync_api import Page
from torch import Tensor

from vdm_lite import elbo, parameterization, samplers, schedules
from vdm_lite.counter import Counter
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import diffuse, kl, posterior
from vdm_lite.likelihood import Discretized
from vdm_lite.runs.ch12.denoiser import WEIGHTS
from vdm_lite.training import config, onnx
from vdm_lite.widgets.denoiser import FORMS, NEW, SHAPE, STEPS, Denoiser

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import browser_denoiser

OUTPUTS = dict(zip(FORMS, ("IMAGE", "NOISE", "VELOCITY"), strict=True))
# A denoiser that needs no weights, in both languages.
FAKE_WORKER = """addEventListener("message", ({ data: { id, z, logsnr } }) =>
  postMessage({ id, eps: z && z.map((value) => Math.tanh(0.8 * value + 0.1 * logsnr)) }));"""
MISSING = '{"missing": "npm was not there"}'
FINISH = """async ([state, name]) => {
  const module = await import(`/js/denoiser.js`);
  const predict = name === "fake"
    ? async (z, logsnr) => z.map((value) => Math.tanh(0.8 * value + 0.1 * logsnr))
    : await module.pageDenoiser(() => {});
  const run = await module.finishRun(predict, state, () => true);
  const shown = { bits: module.runBits(run), bound: module.runBound(run), apart: run.apart };
  return JSON.stringify({ latents: run.latents, guesses: run.guesses, ...shown });
}"""
KERNEL = """async (state) => {
  const { render } = await import("/js/denoiser.js");
  const calls = [];
  const model = {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      for (const [event, call] of [...calls])
        if (["change", `change:${name}`].includes(event)) call();
      if (name === "_question") window.kernel(value).then((answer) => model.set("_answer", answer));
    },
    save_changes() {},
    on: (...listener) => calls.push(listener),
    off: (event, call) => calls.splice(calls.findIndex((each) => each[1] === call), 1),
  };
  document.querySelector("[data-widget]").remove();
  window.remove = render({ model, el: document.querySelector("main") });
  window.listeners = () => calls.length;
}"""


TWO_QUESTIONS = """async () => {
  const { kernelDenoiser } = await import("/js/denoiser.js");
  const questions = [];
  let [listen, answer] = [null, null];
  const model = {
    get: () => answer,
    set: (_, question) => questions.push(question),
    save_changes() {},
    on: (_, call) => (listen = call),
  };
  const { predict } = kernelDenoiser(model);
  const runs = [predict([0], 1), predict([0], 2)];
  for (const { id, logsnr } of questions) {
    answer = { id, eps: [logsnr] };
    listen();
  }
  const late = new Promise((resolve) => setTimeout(() => resolve("no answer"), 2000));
  return Promise.race([Promise.all(runs), late]);
}"""


def fake(z: Tensor, logsnr: Tensor) -> Tensor:
    """The denoiser of FAKE_WORKER."""
    return torch.tanh(0.8 * z + 0.1 * logsnr)


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision by default, as in JavaScript."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def with_fake(**values: Any) -> Denoiser:
    """A widget whose kernel runs the fake denoiser."""
    widget = Denoiser(**values)
    widget.model = VariationalDiffusion(fake, likelihood=Discretized(256))
    return widget


def settings(count: int) -> list[dict[str, Any]]:
    """Different settings of the widget, all options among them."""
    draw = random.Random(0)
    pictures = [NEW, *Denoiser().pictures]
    return [
        {
            "picture": pictures[i % len(pictures)],
            "sampler": list(STEPS)[i % 2],
            "form": FORMS[i % 3],
            "clip": i % 5 > 2,
            "steps": draw.randint(5, 12),
            "seed": draw.randint(0, 999),
        }
        for i in range(count)
    ]


def plain(widget: Denoiser) -> dict[str, Any]:
    """What the module gets of a widget."""
    names = ("picture", "sampler", "form", "clip", "steps", "seed", "look", "pictures", "ends")
    return {name: getattr(widget, name) for name in names}


def finish(page: Page, widget: Denoiser, denoiser: str = "fake") -> dict[str, Any]:
    """A whole run of the module with this setting."""
    return json.loads(page.evaluate(FINISH, [plain(widget), denoiser]))


def close(found: Any, expected: Tensor) -> None:
    """Compare with the library in double precision."""
    found = torch.tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-9)


def levels_apart(count: int) -> Tensor:
    """Pairs of levels, s less noisy than t: (count, 2)."""
    drawn = torch.rand(count, 2) * 18.3 - 5
    return drawn.sort(descending=True).values


# Numbers


def test_forms_are_those_of_the_library(javascript, double):
    calls, expected = [], []
    for i in range(210):
        z, eps = torch.randn(1, 5), torch.randn(1, 5)
        level = levels_apart(1)[0, 0]
        calls.append([FORMS[i % 3], z[0].tolist(), eps[0].tolist(), level.item()])
        known = parameterization.solve(parameterization.NOISE, eps, z, level)
        wanted = getattr(parameterization, OUTPUTS[FORMS[i % 3]])
        expected.append(parameterization.target(wanted, known.x, known.eps, level)[0])
    close(javascript("lib/sampling", "formOf", calls), torch.stack(expected))


@pytest.mark.parametrize("sampler", STEPS)
def test_steps_are_those_of_the_library(javascript, double, sampler):
    pairs = levels_apart(240)
    calls = [[sampler, FORMS[i % 3], *pair.tolist()] for i, pair in enumerate(pairs)]
    for i, rule in enumerate(javascript("lib/sampling", "stepRule", calls)):
        z, eps, (to, level) = torch.randn(1, 4), torch.randn(1, 4), pairs[i]
        known = parameterization.solve(parameterization.NOISE, eps, z, level)
        wanted = getattr(parameterization, OUTPUTS[FORMS[i % 3]])
        y = parameterization.target(wanted, known.x, known.eps, level)
        noise = Counter(i).normal(z.shape)
        expected = STEPS[sampler](known, z, to, Counter(i))
        close((rule["z"] * z + rule["y"] * y + rule["std"] * noise).tolist(), expected)


def test_cost_of_a_step_is_the_divergence(javascript, double):
    calls, expected = [], []
    for to, level in levels_apart(200):
        x, x_hat, z = torch.randn(3, 1, 6).unbind()
        calls.append([x[0].tolist(), x_hat[0].tolist(), to.item(), level.item()])
        nats = kl(posterior(z, x, to, level), posterior(z, x_hat, to, level))
        expected.append(elbo.bits_per_dim(nats, 6)[0])
    close(javascript("lib/sampling", "stepBits", calls), torch.stack(expected))


def test_costs_of_both_ends(javascript, double):
    likelihood = Discretized(256)
    calls, prior, ends, reconstruction = [], [], [], []
    for level in torch.rand(200) * 18.3 - 5:
        image = torch.randint(256, (1, 7))
        x = likelihood.encode(image)
        z = diffuse(x, level + 5, torch.randn(1, 7))
        calls.append([x[0].tolist(), level.item()])
        prior.append(elbo.bits_per_dim(elbo.prior(x, level), 7)[0])
        ends.append([image[0].tolist(), z[0].tolist(), level.item() + 5])
        nats = -likelihood.log_prob(image, z, level + 5)
        reconstruction.append(elbo.bits_per_dim(nats, 7)[0])
    close(javascript("lib/sampling", "priorBits", calls), torch.stack(prior))
    close(javascript("lib/sampling", "reconstructionBits", ends), torch.stack(reconstruction))


def test_gray_levels(javascript, double):
    likelihood = Discretized(256)
    all_levels = torch.arange(256)
    close(
        javascript("lib/sampling", "encodeLevels", [[all_levels.tolist()]])[0],
        likelihood.encode(all_levels),
    )


def test_runs_are_those_of_the_library(show, double):
    page = show(Denoiser()).page
    for values in settings(24):
        widget = with_fake(**values)
        found = finish(page, widget)
        states = list(widget.walk())
        close(found["latents"][1:], torch.stack([state.z.flatten() for state in states]))
        close(found["guesses"], torch.stack([state.x_hat.flatten() for state in states]))
        close(found["bits"], widget.bits())


def test_forms_agree_unless_x_hat_is_clipped(show, double):
    page = show(Denoiser()).page
    for sampler in STEPS:
        runs = {
            (form, clip): finish(page, Denoiser(sampler=sampler, form=form, clip=clip, steps=8))
            for form in FORMS
            for clip in (False, True)
        }
        one = torch.tensor(runs[FORMS[0], False]["latents"])
        for form in FORMS[1:]:
            for clip in (False, True):
                close(runs[form, clip]["latents"], one)
                assert (runs[form, clip]["apart"] > 1e-3) == clip
        clipped = torch.tensor(runs[FORMS[0], True]["latents"])
        assert (clipped - one).abs().max() > 1e-3


def test_clipping_lowers_every_bar_of_a_known_picture(show):
    page = show(Denoiser()).page
    for picture in Denoiser().pictures:
        bits = [
            finish(page, Denoiser(picture=picture, clip=clip, steps=9)) for clip in (False, True)
        ]
        free, clipped = (torch.tensor(each["bits"]) for each in bits)
        assert (clipped <= free + 1e-12).all() and clipped.sum() < free.sum()


@pytest.mark.parametrize("sampler", STEPS)
def test_bars_of_a_known_picture_estimate_the_layers_of_the_bound(double, sampler):
    """The mean over seeds is the diffusion term of the discrete bound, and so is its estimate."""
    widget = with_fake(picture="bag", sampler=sampler, steps=5)
    image = torch.tensor(widget.pictures["bag"]).view(SHAPE)
    x = widget.model.likelihood.encode(image)
    sums = []
    for widget.seed in range(60):
        sums.append(widget.bits().sum())
    logsnr_s, logsnr_t = schedules.levels(widget.model.schedule, 5, x)
    many = x.expand(400, -1, -1, -1)
    exact = torch.zeros(())
    for s, t in zip(logsnr_s, logsnr_t, strict=True):
        z = diffuse(many, t, torch.randn(many.shape))
        x_hat = widget.model.predict(z, t).x
        exact += elbo.bits_per_dim(
            kl(posterior(z, many, s, t), posterior(z, x_hat, s, t)), 784
        ).mean()
    error = torch.stack(sums).std() / 60**0.5
    assert abs(torch.stack(sums).mean() - exact) < 4 * error + 0.002 * exact


def test_bound_adds_both_ends(show, double):
    widget = with_fake(picture="ankle boot", steps=6, seed=4)
    found = finish(show(Denoiser()).page, widget)
    image = torch.tensor(widget.pictures["ankle boot"]).view(SHAPE)
    likelihood, z_0 = widget.model.likelihood, list(widget.walk())[-1].z
    clean, noisy = widget.model.schedule(torch.tensor([0.0, 1.0]))
    ends = elbo.prior(likelihood.encode(image), noisy) - likelihood.log_prob(image, z_0, clean)
    close(found["bound"], (elbo.bits_per_dim(ends, 784) + widget.bits().sum())[0])


# The widget


@pytest.fixture
def faked(show) -> Callable[..., Shown]:
    """Show the widget with the fake denoiser loaded."""

    def open_faked(**values: Any) -> Shown:
        shown = show(Denoiser(**values))
        script = {"content_type": "text/javascript", "body": FAKE_WORKER}
        shown.page.route("**/denoiser_worker.js", lambda route: route.fulfill(**script))
        press(shown, "Load the denoiser")
        shown.page.get_by_role("button", name="Sample").wait_for()
        return shown

    return open_faked


def press(shown: Shown, name: str) -> None:
    """Press a button."""
    shown.page.get_by_role("button", name=name, exact=True).click()


def sample(shown: Shown) -> None:
    """Press Sample and wait for the end of the run."""
    press(shown, "Sample")
    shown.page.wait_for_function(
        "() => document.querySelector('.vdm-buttons button').textContent === 'Sample'"
    )
    shown.settle()


def status(shown: Shown) -> str:
    """What the widget tells below its buttons."""
    return shown.page.locator(".vdm-status").inner_text()


def test_every_control_changes_what_the_library_computes(faked, double):
    shown = faked()
    moves: list[tuple[str, Callable, Any]] = [
        ("steps", shown.type, 7),
        ("seed", shown.type, 5),
        ("sampler", shown.choose, "DDIM"),
        ("picture", shown.choose, "checked shirt"),
        ("clip", shown.check, True),
        ("form", shown.choose, FORMS[1]),
        ("sampler", shown.choose, "ancestral"),
        ("form", shown.choose, FORMS[0]),
    ]
    values: dict[str, Any] = {}
    before = None
    for name, move, value in moves:
        move(name, str(value) if name in ("steps", "seed") else value)
        assert shown.page.locator('data[data-readout="bits"]').get_attribute("value") == "null"
        sample(shown)
        values[name] = value
        widget = with_fake(**values)
        assert shown.read("bits") == pytest.approx(widget.bits().sum().item(), rel=1e-6)
        assert shown.read("bits") != before
        before = shown.read("bits")
        states = list(widget.walk())
        beyond = 100 * (states[-1].x_hat.abs() > 1).double().mean().item()
        assert shown.read("beyond") == pytest.approx(beyond)
        assert shown.read("level") == pytest.approx(13.3)
        assert shown.read("apart") < 1e-9 or values.get("clip")
    image = torch.tensor(widget.pictures["checked shirt"]).view(SHAPE)
    likelihood = widget.model.likelihood
    ends = elbo.prior(likelihood.encode(image), torch.tensor(-5.0))
    ends -= likelihood.log_prob(image, states[-1].z, torch.tensor(13.3))
    bound = elbo.bits_per_dim(ends, 784).item() + shown.read("bits")
    assert shown.read("bound") == pytest.approx(bound, rel=1e-6)
    assert shown.complaints == []


def test_handle_leads_back_to_earlier_moments(faked, double):
    shown = faked(steps=10)
    sample(shown)
    knob = shown.page.locator(".vdm-knob")
    states = list(with_fake(steps=10).walk())
    for key, look in [("PageDown", 12.3), ("ArrowLeft", 12.2), ("Home", -5.0), ("PageUp", -4.0)]:
        knob.press(key)
        shown.settle()
        assert shown.get("look") == [pytest.approx(look)]
        place = int((look + 5 + 1e-9) / 1.83)
        assert shown.read("level") == pytest.approx(-5 + 1.83 * place)
        guess = states[place].x_hat
        beyond = 100 * (guess.abs() > 1).double().mean().item()
        assert shown.read("beyond") == pytest.approx(beyond)
    assert shown.read("bits") == pytest.approx(with_fake(steps=10).bits().sum().item(), rel=1e-6)


def test_a_run_stops_when_asked_and_when_its_setting_changes(faked):
    shown = faked(steps=200)
    press(shown, "Sample")
    press(shown, "Stop")
    shown.settle()
    reached = shown.read("level")
    assert reached < 13.3
    press(shown, "Sample")
    shown.type("seed", "9")
    assert shown.read("level") == -5
    shown.page.wait_for_timeout(200)
    assert shown.read("level") == -5
    sample(shown)
    assert shown.read("level") == pytest.approx(13.3)
    assert shown.complaints == []


def test_a_page_without_the_denoiser_says_so(show):
    for listed, words in [(True, "npm was not there"), (False, "404")]:
        shown = show(Denoiser())
        if listed:
            shown.page.route("**/denoiser.json", lambda route: route.fulfill(body=MISSING))
        press(shown, "Load the denoiser")
        shown.page.wait_for_function(
            "() => document.querySelector('.vdm-status').textContent.includes('could not be')"
        )
        assert words in status(shown) and "samplers.sample" in status(shown)
        press(shown, "Load the denoiser")  # it may be tried again
        shown.page.wait_for_function(
            "() => document.querySelector('.vdm-status').textContent.includes('could not be')"
        )


# In a notebook


def test_kernel_answers_questions():
    widget = with_fake()
    z = torch.randn(SHAPE)
    widget._question = {"id": "a 1", "z": z.flatten().tolist(), "logsnr": 2.0}
    assert widget._answer["id"] == "a 1"
    close(widget._answer["eps"], fake(z, torch.tensor(2.0)).flatten())
    for z, problem in (([0.0], "RuntimeError"), ("z", "TypeError")):
        widget._question = {"id": problem, "z": z, "logsnr": 2.0}
        assert problem in widget._answer["problem"] and widget._answer["id"] == problem


def test_each_question_gets_its_answer(show):
    """That of a run which was stopped meanwhile, too: or it would wait forever."""
    assert show(Denoiser()).page.evaluate(TWO_QUESTIONS) == [[1], [2]]


def test_notebook_samples_in_the_kernel(show, double):
    shown = show(Denoiser())
    widget = with_fake(steps=6)

    def kernel(question: dict[str, Any]) -> dict[str, Any]:
        widget._question = question
        return widget._answer

    shown.page.expose_function("kernel", kernel)
    names = ["_title", "_fields", "_constants"]
    state = plain(widget) | {name: getattr(widget, name) for name in names}
    shown.page.evaluate(KERNEL, json.loads(json.dumps(state)))
    sample(shown)
    assert shown.read("bits") == pytest.approx(widget.bits().sum().item(), rel=1e-6)
    widget.model = VariationalDiffusion(lambda z, logsnr: z[:0])
    press(shown, "Sample")
    shown.page.wait_for_function(
        "() => document.querySelector('.vdm-status').textContent.includes('did not answer')"
    )
    shown.page.evaluate("window.remove()")
    assert shown.page.evaluate("window.listeners()") == 0
    assert shown.complaints == []


# The shipped denoiser in ONNX Runtime


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Any]:
    """A server with the widgets, and what the build puts beside them."""
    lacking = browser_denoiser.lacking(ROOT)
    if lacking:
        missing(lacking)
    root = tmp_path_factory.mktemp("site")
    (root / "js").symlink_to(ROOT / "vdm_lite" / "widgets" / "js")
    browser_denoiser.assemble(ROOT, ROOT / "_build" / "onnx", root / "denoiser")
    with serve(root) as server:
        server.pages["/page.html"] = PAGE.format(
            theme="light", background="#fff", body=Denoiser().html()
        )
        yield server


@pytest.fixture
def real(site, browser) -> Iterator[Shown]:
    """The widget on a page with the shipped denoiser."""
    context = browser.new_context(viewport=DESKTOP)
    yield Shown(context, site.address + "page.html")
    context.close()


def test_shipped_model_is_what_the_page_takes_it_for():
    if not WEIGHTS.exists():
        missing("there are no trained weights")
    model = Denoiser().model
    assert model.parameterization is parameterization.NOISE
    assert model.schedule == schedules.Linear(*Denoiser().ends)
    assert model.likelihood == Discretized(256)


def test_loaded_only_when_asked_and_from_here_alone(real, site):
    assert not [url for url in real.requests if "/denoiser/" in url or "worker" in url]
    held: list[Any] = []
    real.page.route("**/denoiser.onnx", lambda route: held.append(route))
    press(real, "Load the denoiser")
    listed = real.page.request.get(site.address + "denoiser/denoiser.json").json()
    real.page.get_by_text(f"on their way: {listed['bytes'] / 1e6:.1f} MB").wait_for()
    held[0].continue_()
    real.page.get_by_role("button", name="Sample").wait_for()
    assert not real.page.locator("progress").is_visible()
    sample(real)
    assert real.read("level") == pytest.approx(13.3)
    widget = Denoiser()
    assert real.read("bits") == pytest.approx(widget.bits().sum().item(), rel=0.05)
    assert [
        url for url in real.requests if not url.startswith((site.address, "blob:", "data:"))
    ] == []
    assert real.complaints == []


@pytest.mark.parametrize(("sampler", "goal"), [("DDIM", 1e-3), ("ancestral", 1e-2)])
def test_same_seed_same_picture(real, sampler, goal):
    for seed in (0, 1, 2):
        widget = Denoiser(sampler=sampler, seed=seed)
        found = finish(real.page, widget, "real")
        states = list(samplers.sample(widget.model, SHAPE, 50, STEPS[sampler], Counter(seed)))
        difference = (torch.tensor(found["guesses"][-1]) - states[-1].x_hat.flatten()).abs().mean()
        print(f"{sampler} seed {seed}: mean absolute difference {difference:.1e}")
        assert difference <= goal


# The build


def test_build_says_what_is_missing(tmp_path, caplog):
    assert "npm" in browser_denoiser.lacking(tmp_path)
    browser_denoiser.assemble(tmp_path, tmp_path / "cache", tmp_path / "site")
    assert (
        "npm"
        in json.loads((tmp_path / "site" / "denoiser.json").read_text(encoding="utf-8"))["missing"]
    )
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["denoiser.json"]


def test_build_lacks_the_runtime_unless_both_its_files_are_there(tmp_path):
    runtime = tmp_path / browser_denoiser.RUNTIME
    runtime.mkdir(parents=True)
    for name, words in ((browser_denoiser.BINARY, "npm"), (browser_denoiser.SCRIPT, "weights")):
        (runtime / name).touch()
        assert words in browser_denoiser.lacking(tmp_path)


def test_build_exports_again_when_weights_or_code_have_changed(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(config, "load_model", lambda path: path.read_bytes())

    def export(weights: bytes, path: Path, shape: tuple[int, ...]) -> None:
        made.append(weights)
        path.parent.mkdir()
        path.write_bytes(weights)

    monkeypatch.setattr(onnx, "export", export)
    names = [browser_denoiser.WEIGHTS, *(f"vdm_lite/{n}" for n in browser_denoiser.SOURCES)]
    files = [tmp_path / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("first", encoding="utf-8")
    for file in files:
        path = browser_denoiser.exported(tmp_path, tmp_path / "cache")
        assert browser_denoiser.exported(tmp_path, tmp_path / "cache") == path
        assert list(path.parent.iterdir()) == [path]
        file.write_text("second", encoding="utf-8")
    assert made == [b"first", *[b"second"] * (len(files) - 1)]
    for name in browser_denoiser.EXPORTERS:
        versions = {name: "another"}
        monkeypatch.setattr(browser_denoiser, "version", lambda n, v=versions: v.get(n, "same"))
        browser_denoiser.exported(tmp_path, tmp_path / "cache")
    assert len(made) == len(files) + len(browser_denoiser.EXPORTERS)
