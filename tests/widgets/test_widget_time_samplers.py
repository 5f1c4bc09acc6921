"""The widget of chapter 10: its numbers are the library's, exact and drawn ones agree.

The module's functions take their random numbers as arguments, so that the library can be given the
same ones.
"""

import math
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import elbo, parameterization, quadrature, schedules, times
from vdm_lite.counter import Counter
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.randomness import Source
from vdm_lite.schedules import Linear
from vdm_lite.times import Importance, Times
from vdm_lite.widgets.time_samplers import TimeSamplers

F64 = torch.float64
LINE = Linear(10.0, -8.0)
NAMES = ("uniform", "low discrepancy", "jittered strata", "adaptive", "minimum variance")
SCHEDULES = TimeSamplers.schedule.values
MODULE = "time_samplers"


def close(actual: Any, expected: Any, rtol: float = 1e-6) -> None:
    actual, expected = (torch.as_tensor(value, dtype=F64) for value in (actual, expected))
    assert_close(actual, expected, rtol=rtol, atol=1e-9)


def schedule_of(name: str) -> schedules.Schedule:
    return TimeSamplers(schedule=name).noise_schedule()


# The library's numbers


def mean_error(logsnr: Tensor) -> Tensor:
    """E e^2 of the noise error e."""
    return logsnr.exp() * TWO_BUMPS.mmse(logsnr)


def mean_fourth(logsnr: Tensor) -> Tensor:
    """E e^4 of the noise error e."""
    return (2 * logsnr).exp() * TWO_BUMPS.fourth_moment(logsnr)


@cache
def splines() -> tuple[CubicSpline, CubicSpline]:
    """The logarithms of both, quick to evaluate; accurate to 1e-9."""
    levels = torch.linspace(-8, 10, 1801, dtype=F64)
    both = (mean_error(levels), mean_fourth(levels))
    return tuple(CubicSpline(levels, values.log()) for values in both)


def errors(logsnr: Tensor) -> Tensor:
    """``mean_error``, by its spline."""
    return torch.from_numpy(splines()[0](logsnr.numpy())).exp()


def height(copies: int | None, logsnr: Tensor) -> Tensor:
    """What a density is proportional to: the mean error (None), or the root mean square."""
    m, M = (torch.from_numpy(spline(logsnr.numpy())).exp() for spline in splines())
    return m if copies is None else ((M - m**2) / copies + m**2).sqrt()


@cache
def density(copies: int | None) -> times.Density:
    return times.normalized(lambda logsnr: height(copies, logsnr), LINE)


@cache
def importance(copies: int | None) -> Importance:
    return Importance(density(copies), LINE)


def warped(base: Times, copies: int | None) -> Times:
    """Times of the library's sampler, from given ones."""
    sampler = importance(copies)
    sampler.base = lambda *_: base
    return sampler(len(base.t))


def even_times(k: int) -> tuple[Tensor, Tensor]:
    """Times (k, n) and weights (n,) of n points for the shift, dense at both ends of each cell."""
    u, weights = quadrature.interval(0.0, 1.0, max(3, 192 // k))
    rising, falling = u**3, (1 - u) ** 3
    weights = weights * 3 * (u * (1 - u)).square() / (rising + falling).square()
    return (torch.arange(k)[:, None] + rising / (rising + falling)) / k, weights


def time_parts(values: Tensor, weights: Tensor) -> Tensor:
    """Variance of the batch mean for independent, shifted and jittered times: (3,)."""
    cells = values @ weights
    independent = ((values - cells.mean()) ** 2 @ weights).mean() / len(values)
    shifted = (values.mean(0) - cells.mean()) ** 2 @ weights
    jittered = ((values - cells[:, None]) ** 2 @ weights).mean() / len(values)
    return torch.stack([independent, shifted, jittered])


@cache
def total_variance(name: str) -> Tensor:
    return elbo.variance_from_moments(TWO_BUMPS.mmse, TWO_BUMPS.fourth_moment, schedule_of(name))


@cache
def uniform_parts(name: str, k: int) -> tuple[Tensor, float]:
    """The three parts of uniform times, and the part of data and noise of one draw."""
    t, weights = even_times(k)
    logsnr, slope = schedules.rate(schedule_of(name), t.flatten())
    parts = time_parts((-0.5 * slope * errors(logsnr)).view_as(t), weights)
    return parts, (total_variance(name) - k * parts[0]).item()


@cache
def levels() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    nodes, weights = quadrature.interval(-8.0, 10.0)
    return nodes, weights, mean_error(nodes), mean_fourth(nodes)


@cache
def density_parts(copies: int | None, D: int, k: int) -> tuple[float, float]:
    """Both parts of the variance with levels from a density, on low-discrepancy times."""
    nodes, weights, m, M = levels()
    p = density(copies)
    rest = 0.25 * weights @ ((M - m**2) / p(nodes)) / D / k
    u, inner = even_times(k)
    t, _ = warped(Times(u.flatten(), torch.ones(u.numel(), dtype=F64)), copies)
    value = (0.5 * errors(LINE(t)) / p(LINE(t))).view_as(u)
    return time_parts(value, inner)[1].item(), rest.item()


def exact(name: str, D: int, k: int) -> list[tuple[float, float]]:
    """Both parts of the variance of the batch loss per coordinate, by sampler."""
    uniform, rest = uniform_parts(name, k)
    rows = [(part.item(), rest / D / k) for part in uniform]
    return [*rows, density_parts(None, D, k), density_parts(D, D, k)]


def deviations(name: str, D: int, k: int) -> list[float]:
    return [math.sqrt(sum(parts)) for parts in exact(name, D, k)]


# The module's numbers


def test_exact_variances_are_the_library_s(javascript):
    settings = list(product(SCHEDULES, (1, 50), (1, 128)))
    copies, batch = torch.randint(1, 51, (40,)), torch.randint(1, 129, (40,))
    for name in SCHEDULES:
        settings += [(name, D, k) for D, k in zip(copies.tolist(), batch.tolist(), strict=True)]
    assert len(settings) >= 200
    found = javascript(MODULE, "exactVariances", [list(each) for each in settings])
    truth = elbo.diffusion_from_mmse(TWO_BUMPS.mmse, LINE)
    for setting, result in zip(settings, found, strict=True):
        close(result["truth"], truth)
        expected = torch.tensor(exact(*setting), dtype=F64)
        parts = torch.tensor([[part["times"], part["rest"]] for part in result["parts"]])
        close(parts.sum(1), expected.sum(1))
        close(parts, expected, rtol=1e-4)


def test_the_first_setting_is_the_table_of_the_chapter(javascript):
    (found,) = javascript(MODULE, "exactVariances", [["linear", 1, 64]])
    totals = [part["times"] + part["rest"] for part in found["parts"]]
    assert [f"{total:.4f}" for total in totals] == [
        "1.1968",
        "1.0195",
        "1.0180",
        "0.7028",
        "0.5955",
    ]


def test_what_the_chapter_says_of_it(javascript):
    settings = [["linear", 1, 64], ["linear", 30, 64], ["linear", 30, 16], ["cosine", 1, 64]]
    one, many, quarter, cosine = javascript(MODULE, "exactVariances", settings)
    std = {}
    for name, found in {"one": one, "many": many, "quarter": quarter, "cosine": cosine}.items():
        std[name] = [math.sqrt(part["times"] + part["rest"]) for part in found["parts"]]
    shares = [
        found["parts"][0]["times"] / std[n][0] ** 2 for n, found in (("one", one), ("many", many))
    ]
    assert [f"{share:.0%}" for share in shares] == ["15%", "84%"]
    assert (std["many"][0] / std["many"][1]) ** 2 == pytest.approx(6, abs=0.05)
    assert [f"{std[name][0]:.1f}" for name in ("one", "cosine")] == ["1.1", "3.1"]
    assert all(a > 2 * b for a, b in zip(std["cosine"][:3], std["one"][:3], strict=True))
    assert std["cosine"][3:] == std["one"][3:]
    assert std["quarter"][0] == pytest.approx(2 * std["many"][0])
    assert std["quarter"][1] > 2.1 * std["many"][1]
    times_parts = [found["parts"][1]["times"] for found in (quarter, many)]
    assert times_parts[0] / times_parts[1] == pytest.approx(16, rel=0.02)


def draws(k: int, D: int, seed: int) -> dict[str, Any]:
    """Random numbers for one batch, and the generator that gives the library the same noise."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(2 * k + 1, generator=generator, dtype=F64)
    x = TWO_BUMPS.sample(k * D, generator).view(k, D)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return {"shift": u[0], "alone": u[1 : k + 1], "jitter": u[k + 1 :], "x": x, "noise": noise}


def as_lists(drawn: dict[str, Tensor]) -> dict[str, Any]:
    return {name: value.flatten().tolist() for name, value in drawn.items()} | {
        "shift": drawn["shift"].item()
    }


def library_times(drawn: dict[str, Tensor], D: int) -> list[Times]:
    """The five batches of times that the library makes of these uniform numbers."""
    k = len(drawn["alone"])
    ones = torch.ones(k, dtype=F64)
    even = Times((drawn["shift"] + torch.arange(k, dtype=F64) / k) % 1, ones)
    strata = Times((torch.arange(k) + drawn["jitter"]) / k, ones)
    plain = [Times(drawn["alone"], ones), even, strata]
    return [*plain, warped(even, None), warped(even, D)]


def source(seed: int) -> Source:
    return Source(torch.Generator().manual_seed(seed), dtype=F64)


def test_low_discrepancy_and_strata_are_the_library_s(javascript):
    for k in (1, 4, 64):
        generator = [torch.Generator().manual_seed(k) for _ in range(2)]
        shift = torch.rand((), generator=generator[0], dtype=F64)
        u, order = (torch.rand(k, generator=generator[1], dtype=F64) for _ in range(2))
        jitter = torch.empty_like(u)
        jitter[order.argsort()] = u  # the library deals its cells out in a random order
        drawn = {"shift": shift.item(), "alone": u.tolist(), "jitter": jitter.tolist()}
        (found,) = javascript(MODULE, "batchTimes", [[drawn, 1]])
        close(found[1]["t"], times.low_discrepancy(k, source(k)).t)
        close(found[2]["t"], times.stratified(k, source(k)).t.sort().values)


def test_times_and_densities_are_the_library_s(javascript):
    sizes = [(k, D) for k in (1, 3, 64, 128) for D in (1, 4, 50)] * 17
    drawn = [draws(k, 1, seed) for seed, (k, _) in enumerate(sizes)]
    calls = [[as_lists(each), D] for each, (_, D) in zip(drawn, sizes, strict=True)]
    assert len(calls) >= 200
    found = javascript(MODULE, "batchTimes", calls)
    for batch, each, (_, D) in zip(found, drawn, sizes, strict=True):
        for ours, expected in zip(batch, library_times(each, D), strict=True):
            close(ours["t"], expected.t)
        for ours, of in zip(batch[3:], (None, D), strict=True):
            bins = (1000 * torch.tensor(ours["t"])).long()  # a rounding may choose the next bin
            close(ours["p"], 1000 * importance(of).masses[bins])
        assert all(p == 1 for ours in batch[:3] for p in ours["p"])


def copies(z: Tensor, logsnr: Tensor) -> Tensor:
    """The exact denoiser of independent copies of the toy."""
    each = logsnr.repeat_interleave(z.shape[1])
    return TWO_BUMPS.denoise(z.reshape(-1, 1), each).view_as(z)


def library_losses(name: str, drawn: dict[str, Tensor], D: int, seed: int) -> list[float]:
    """The mean loss per coordinate by the library, with the same times, examples and noise."""
    found = []
    for i, given in enumerate(library_times(drawn, D)):
        schedule = LINE if i >= 3 else schedule_of(name)
        model = VariationalDiffusion(copies, schedule, parameterization.IMAGE)
        generator = torch.Generator().manual_seed(seed)
        loss = model.loss(drawn["x"], times=lambda *_, t=given: t, generator=generator)
        found.append(loss.mean().item() / D)
    return found


def test_batch_losses_are_the_library_s(javascript):
    sizes = list(product(SCHEDULES, (1, 2, 9, 20), (1, 10))) * 5
    drawn = [draws(k, D, seed) for seed, (_, k, D) in enumerate(sizes)]
    calls = [[name, D, as_lists(each)] for each, (name, _, D) in zip(drawn, sizes, strict=True)]
    assert len(calls) >= 200
    found = javascript(MODULE, "batchLosses", calls)
    for seed, (losses, each, (name, _, D)) in enumerate(zip(found, drawn, sizes, strict=True)):
        close(losses, library_losses(name, each, D, seed))


def test_a_seed_draws_what_the_library_draws(javascript):
    k, D = 256, 40
    (first,) = javascript(MODULE, "firstBatch", [[3, k, D]])
    numbers = Counter(3, dtype=F64)
    for name, count in {"shift": 1, "alone": k, "jitter": k}.items():
        found = torch.tensor(first[name], dtype=F64).flatten()
        assert_close(found, numbers.uniform((count,)), rtol=0, atol=0)
    left = numbers.uniform((k * D,)) < 0.5
    means, stds = TWO_BUMPS.means.flatten(), TWO_BUMPS.stds
    normals, noise = (numbers.normal((k * D,)) for _ in range(2))
    close(first["x"], torch.where(left, means[0], means[1]) + stds[0] * normals)
    close(first["noise"], noise)


@pytest.mark.parametrize(
    "setting", [("linear", 1, 64), ("linear", 30, 64), ("cosine", 1, 100), ("flow-matching", 10, 4)]
)
def test_drawn_deviations_agree_with_the_exact_ones(javascript, setting):
    name, D, k = setting
    state = {"schedule": name, "copies": D, "batch": k, "seed": 5}
    (found,) = javascript(MODULE, "sampledTable", [[state, 2000]])
    truth = elbo.diffusion_from_mmse(TWO_BUMPS.mmse, LINE).item()
    for sampler, row, std in zip(NAMES, found, deviations(name, D, k), strict=True):
        assert abs(row["std"] - std) < 4 * row["error"] < 0.5 * std, sampler
        assert abs(row["mean"] - truth) < 4 * std / 2000**0.5, sampler


def test_sample_moments(javascript):
    values = torch.randn(200, 50, dtype=F64).exp()
    found = javascript(MODULE, "sampleMoments", [[row.tolist()] for row in values])
    close([each["mean"] for each in found], values.mean(1))
    close([each["std"] for each in found], values.std(1, correction=0))
    squares = (values - values.mean(1, keepdim=True)) ** 2
    spread = squares.std(1, correction=0) / 50**0.5  # standard error of the variance
    close([each["error"] for each in found], spread / 2 / values.std(1, correction=0))


def test_staircase_counts_what_lies_between_its_ends(javascript):
    (stairs,) = javascript(MODULE, "staircase", [[[0.1, 0.1, 0.6, 5.0, -1.0], 0.0, 1.0, 4]])
    assert stairs["xs"] == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1]
    assert stairs["ys"] == [1, 1, 0, 0, 0.5, 0.5, 0, 0]


# The widget


def finish(shown: Any) -> None:
    """Wait for the last batch."""
    drawn = "document.querySelector('[data-readout=drawn]').value === '1000'"
    shown.page.wait_for_function(drawn)
    shown.settle()


def cells(shown: Any) -> list[list[str]]:
    """The table, row by row."""
    rows = shown.page.locator(".vdm-table tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def shows(shown: Any, schedule: str = "linear", copies: int = 1, batch: int = 64) -> None:
    """The read-outs and the table hold the library's numbers for this setting."""
    assert [shown.get(name) for name in ("schedule", "copies", "batch")] == [
        schedule,
        copies,
        batch,
    ]
    stds = deviations(schedule, copies, batch)
    close(shown.read("truth"), elbo.diffusion_from_mmse(TWO_BUMPS.mmse, LINE))
    close(shown.read("uniform"), stds[0])
    close(shown.read("least"), stds[4])
    parts = exact(schedule, copies, batch)
    for row, sampler, std, (of_times, _) in zip(cells(shown), NAMES, stds, parts, strict=True):
        assert row[0] == sampler
        assert float(row[1]) == pytest.approx(std, rel=1e-3)
        assert float(row[2].removesuffix(" %")) == pytest.approx(
            100 * of_times / std**2, rel=0.01, abs=1e-4
        )
        assert float(row[3]) == pytest.approx(batch * stds[0] ** 2 / std**2, rel=1e-3)


@pytest.fixture
def shown(show):
    return show(TimeSamplers())


def test_each_control_moves_the_numbers(shown):
    shows(shown)
    shown.type("batch", "16")
    shows(shown, batch=16)
    shown.type("copies", "30")
    shows(shown, batch=16, copies=30)
    for name in SCHEDULES[1:]:
        shown.choose("schedule", name)
        shows(shown, name, copies=30, batch=16)
    assert not shown.complaints


def test_sliders_move_by_keyboard(shown):
    shown.slide("copies", ["ArrowRight"])
    shows(shown, copies=2)
    shown.slide("batch", ["End"])
    shows(shown, copies=2, batch=128)
    shown.slide("batch", ["Home"])
    shows(shown, copies=2, batch=1)
    shown.slide("seed", ["ArrowRight"])
    assert shown.get("seed") == 2


def test_the_table_holds_what_a_seed_draws(shown, javascript):
    for seed in (1, 2):
        shown.type("seed", str(seed))
        finish(shown)
        state = {"schedule": "linear", "copies": 1, "batch": 64, "seed": seed}
        (expected,) = javascript(MODULE, "sampledTable", [[state, 1000]])
        for row, each in zip(cells(shown), expected, strict=True):
            std, error = row[4].split(" ± ")
            assert float(std) == pytest.approx(each["std"], rel=1e-3)
            assert float(error) == pytest.approx(each["error"], rel=0.06)
            assert float(row[5]) == pytest.approx(each["mean"], rel=1e-3)


def test_a_link_draws_the_same_batches_and_a_button_others(shown, show):
    shown.page.get_by_role("button", name="Draw others").click()
    shown.settle()
    assert shown.get("seed") == 2
    finish(shown)
    shown.page.get_by_role("button", name="Copy link").click()
    shown.settle()
    again = show(TimeSamplers(), link=shown.link())
    finish(again)
    assert cells(again) == cells(shown)
    for seed, following in ((998, 999), (999, 1)):
        again.type("seed", str(seed))
        again.page.get_by_role("button", name="Draw others").click()
        again.settle()
        assert again.get("seed") == following


def test_numbers_do_not_depend_on_what_was_shown_before(shown):
    shown.type("copies", "3")
    shown.choose("schedule", "cosine")
    finish(shown)
    before = cells(shown)
    shown.type("copies", "50")
    shown.type("copies", "3")
    finish(shown)
    assert cells(shown) == before


def test_python_reads_the_schedule():
    widget = TimeSamplers(schedule="cosine")
    assert widget.noise_schedule() == schedules.Cosine(10.0, -8.0)
