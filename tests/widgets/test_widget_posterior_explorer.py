"""The widget of chapter 4: its numbers equal those of the library, and its controls move them."""

import pytest
import torch
from torch.testing import assert_close

from vdm_lite import data, gaussian, schedules
from vdm_lite.widgets import PosteriorExplorer

SCHEDULE = schedules.Linear()
READINGS = ("logsnr_s", "logsnr_t", "share", "from_x", "from_z", "precision", "mean", "variance")


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def bells(x, z, logsnr_s, logsnr_t):
    """Prior, likelihood and posterior of z_s, and the share c, by the library."""
    x, z, s, t = real(x), real(z), real(logsnr_s).squeeze(), real(logsnr_t).squeeze()
    scale, var = gaussian.transition(s, t)
    q = gaussian.posterior(z, x, s, t)
    normals = {
        "prior": (gaussian.alpha(s) * x, gaussian.sigma(s) ** 2),
        "likelihood": (z / scale, var / scale**2),
        "posterior": q,
    }
    found = {
        name: {"mean": mean.item(), "variance": var.item()} for name, (mean, var) in normals.items()
    }
    return found | {"share": gaussian.removed(s, t).item()}


def random_cases(n=250):
    """Pixels, latents and two levels, the first of them the cleaner one."""
    for a, b, c, d in torch.rand(n, 4, dtype=torch.float64).tolist():
        t = -8 + 21 * c
        yield 2 * a - 1, 6 * b - 3, t + 1e-3 + (14 - t) * d, t


def agrees(shown):
    """Every read-out is what the library says of the state that the page holds."""
    s, t = (SCHEDULE(real(shown.get(name))).item() for name in "st")
    each = bells(shown.get("x"), shown.get("z"), s, t)
    expected = {"logsnr_s": s, "logsnr_t": t, "share": each["share"]}
    expected |= {"from_x": 1 / each["prior"]["variance"]}
    expected |= {"from_z": 1 / each["likelihood"]["variance"]}
    expected |= {"precision": 1 / each["posterior"]["variance"], **each["posterior"]}
    found = {name: shown.read(name) for name in READINGS}
    assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert_close(found["precision"], found["from_x"] + found["from_z"])
    return found


def canvases(shown):
    """The gray levels of the four images, (4, 196)."""
    pixels = "canvas.getContext('2d').getImageData(0, 0, 14, 14).data"
    gray = f"canvas => [...{pixels}].filter((_, i) => i % 4 == 0)"
    script = f"() => [...document.querySelectorAll('.vdm canvas')].map({gray})"
    return torch.tensor(shown.page.evaluate(script))


def test_pixel_equals_the_library(javascript):
    cases = list(random_cases())
    found = javascript("posterior_explorer", "pixelGaussians", [list(case) for case in cases])
    for each, case in zip(found, cases, strict=True):
        assert_close(each, bells(*case), rtol=1e-6, atol=1e-9)


def test_images_equal_the_library(javascript):
    calls = []
    for _, _, s, t in random_cases(200):
        x = 2 * torch.rand(4, dtype=torch.float64) - 1
        noises = torch.randn(2, 4, dtype=torch.float64)
        calls.append([x.tolist(), *noises.tolist(), s, t])
    found = javascript("posterior_explorer", "imagesOf", calls)
    for each, (x, noise, fresh, s, t) in zip(found, calls, strict=True):
        x, noise, fresh, s, t = (
            torch.tensor(v, dtype=torch.float64) for v in (x, noise, fresh, s, t)
        )
        z = gaussian.diffuse(x[None], t, noise[None])
        q = gaussian.posterior(z, x[None], s, t)
        draw = q.mean + q.var.sqrt() * fresh
        for name, expected in {"z": z, "mean": q.mean, "draw": draw}.items():
            assert_close(real(*each[name]), expected[0], rtol=1e-6, atol=1e-9)


def test_later_time_gives_way_or_the_earlier_one(javascript):
    calls = [[0.3, 0.7, False], [0.69, 0.7, True], [0.8, 0.7, False], [0.5, 0.5, False]]
    calls += [[0.5, 0.5, True], [0.8, 0.1, True], [0.99, 0.2, False], [0.3, 0.01, True]]
    found = javascript("posterior_explorer", "timesApart", calls)
    pairs = [(each["s"], each["t"]) for each in found]
    assert pairs[:4] == [(0.3, 0.7), (0.69, 0.7), (0.8, 0.81), (0.5, 0.51)]
    assert pairs[4:] == [(0.49, 0.5), (0.09, 0.1), (0.99, 1.0), (0.0, 0.01)]


def test_python_keeps_its_times_apart_as_the_page_does():
    explorer = PosteriorExplorer()
    explorer.s = 0.8
    assert (explorer.s, explorer.t) == (0.8, 0.81)
    explorer.t = 0.5
    assert (explorer.s, explorer.t) == (0.49, 0.5)
    both = PosteriorExplorer(s=0.9, t=0.95)
    assert (both.s, both.t) == (0.9, 0.95)
    assert PosteriorExplorer(s=0.99).t == 1.0


def test_the_page_leaves_times_alone_that_python_sets_one_by_one(show):
    shown = show(PosteriorExplorer())
    change = "([n, v]) => document.querySelector('[data-widget]').model.set(n, v)"
    shown.page.evaluate(change, ["s", 0.9])
    shown.settle()
    assert (shown.get("s"), shown.get("t")) == (0.9, 0.7)
    shown.page.evaluate(change, ["t", 0.95])
    shown.settle()
    agrees(shown)
    shown.type("s", "0.97")
    assert (shown.get("s"), shown.get("t")) == (0.97, 0.98)
    agrees(shown)


def test_pictures_are_fashion_mnist():
    explorer = PosteriorExplorer()
    images = data.halved(data.fashion_mnist())
    boot = data.FASHION_CLASSES[images.test_labels[39]]
    assert boot == "Ankle boot"
    assert explorer.pictures["ankle boot"] == images.test[39].flatten().tolist()
    assert [len(levels) for levels in explorer.pictures.values()] == [196] * 3


@pytest.mark.parametrize(
    ("name", "typed"), [("s", "0.4"), ("t", "0.95"), ("x", "-0.3"), ("z", "1.25")]
)
def test_fields_move_the_numbers(show, name, typed):
    shown = show(PosteriorExplorer())
    before = agrees(shown)
    shown.type(name, typed)
    assert shown.get(name) == float(typed)
    after = agrees(shown)
    assert after["mean"] != before["mean"]
    assert (after["precision"] == before["precision"]) == (name in "xz")  # of the times alone
    assert shown.complaints == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("s", "ArrowLeft", 0.63),
        ("t", "ArrowRight", 0.71),
        ("x", "ArrowLeft", 0.79),
        ("z", "ArrowRight", 0.11),
    ],
)
def test_sliders_move_the_numbers(show, name, key, value):
    shown = show(PosteriorExplorer())
    before = agrees(shown)
    shown.slide(name, [key])
    assert_close(shown.get(name), value)
    assert agrees(shown)["mean"] != before["mean"]


def test_s_stays_below_t(show):
    shown = show(PosteriorExplorer())
    shown.type("s", "0.9")
    assert (shown.get("s"), shown.get("t")) == (0.9, 0.91)
    agrees(shown)
    shown.type("t", "0.3")
    assert (shown.get("s"), shown.get("t")) == (0.29, 0.3)
    agrees(shown)
    shown.type("t", "0.01")
    shown.slide("s", ["End"])
    assert (shown.get("s"), shown.get("t")) == (0.99, 1.0)
    agrees(shown)


def test_times_out_of_order_are_set_right_at_the_start(show):
    assert PosteriorExplorer(s=0.8, t=0.2).s < PosteriorExplorer(s=0.8, t=0.2).t
    shown = show(PosteriorExplorer(), link="#widget-posterior_explorer?s=0.8&t=0.2")
    assert (shown.get("s"), shown.get("t")) == (0.8, 0.81)
    agrees(shown)


def test_image_and_draw(show):
    shown = show(PosteriorExplorer(s=0.4, t=0.7))
    first = canvases(shown)
    boot = torch.tensor(PosteriorExplorer().pictures["ankle boot"])
    assert (first[0] - boot).abs().max() <= 1
    shown.page.get_by_role("button", name="Another draw").click()
    shown.settle()
    second = canvases(shown)
    assert shown.get("draw") == 2
    assert (first[:3] == second[:3]).all() and (first[3] != second[3]).any()
    shown.slide("draw", ["ArrowLeft"])
    assert (canvases(shown) == first).all()
    shown.choose("picture", "bag")
    assert shown.get("picture") == "bag"
    assert (canvases(shown) != first).any(1).all()


def test_images_follow_the_times(show):
    """The boot keeps its outline in a mean near the data, and a short step changes little."""
    shown = show(PosteriorExplorer(s=0.3, t=0.9))
    x, _, mean, draw = canvases(shown).double()
    assert (mean - x).abs().mean() < 5 and (draw - mean).abs().mean() > 0.5
    shown.type("t", "0.31")
    _, z, mean, _ = canvases(shown).double()
    assert (mean - z).abs().mean() < 5
