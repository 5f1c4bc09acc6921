"""The numbers that all widgets share: the JavaScript of numerics, gaussian, mixtures, schedules."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vdm_lite import exact, gaussian, quadrature, schedules

F64 = torch.float64
TOYS = {"two bumps": exact.TWO_BUMPS, "8 levels": exact.EIGHT_LEVELS}
CURVES = {name: curve for name, curve in schedules.SCHEDULES.items() if name != "learned"}


@pytest.fixture
def evaluate(browser: Any, widget_server: Any) -> Iterator[Callable[..., Any]]:
    """Evaluate a JavaScript function of (module, argument) in the browser."""
    page = browser.new_page()
    page.goto(widget_server.address + "blank.html")

    def call(module: str, function: str, argument: Any = None) -> Any:
        script = f"async given => ({function})(await import('/js/lib/{module}.js'), given)"
        return page.evaluate(script, argument)

    yield call
    page.close()


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, dtype=F64)


def close(actual: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    assert_close(torch.as_tensor(actual, dtype=F64), expected.double(), rtol=rtol, atol=atol)


def mixture(toy: exact.GaussianMixture) -> dict[str, list[float]]:
    return {name: getattr(toy, name).flatten().tolist() for name in ("weights", "means", "stds")}


# numerics.js


@pytest.mark.parametrize(
    "name, function, low, high",
    [
        ("sigmoid", torch.sigmoid, -30, 30),
        ("softplus", torch.nn.functional.softplus, -30, 15),  # torch is exact up to 20
        ("erfc", torch.special.erfc, -5, 8),
        ("ndtri", torch.special.ndtri, 0, 1),
    ],
)
def test_functions_of_one_number(javascript, name, function, low, high):
    x = uniform(low, high, 300)
    close(
        javascript("lib/numerics", name, x[:, None].tolist()), function(x), rtol=1e-13, atol=1e-14
    )


def test_tails_keep_their_digits(javascript):
    p = uniform(-60, -1, 300).exp()
    close(
        javascript("lib/numerics", "ndtri", p[:, None].tolist()), torch.special.ndtri(p), 1e-13, 0
    )
    x = uniform(1, 20, 300)
    close(javascript("lib/numerics", "erfc", x[:, None].tolist()), torch.special.erfc(x), 1e-13, 0)
    assert javascript("lib/numerics", "ndtri", [[0], [1]]) == [-torch.inf, torch.inf]
    assert javascript("lib/numerics", "softplus", [[1000], [-1000]]) == [1000, 0]


def test_nodes_and_weights_are_those_of_the_library(javascript):
    for low, high, panels in ((0, 1, 64), (-8, 10, 64), (-2.5, 3, 7)):
        (made,) = javascript("lib/numerics", "legendre", [[low, high, panels]])
        nodes, weights = quadrature.interval(low, high, panels)
        close(made["nodes"], nodes, rtol=0, atol=1e-13)
        close(made["weights"], weights, rtol=1e-12, atol=0)
    (made,) = javascript("lib/numerics", "legendre", [[-8, 10]])
    close(made["nodes"], quadrature.interval(-8, 10)[0], rtol=0, atol=1e-13)
    for arguments in ((), (91,), (151, 8)):
        (made,) = javascript("lib/numerics", "normalNodes", [list(arguments)])
        nodes, weights = quadrature.normal(*arguments)
        close(made["nodes"], nodes, rtol=0, atol=1e-14)
        close(made["weights"], weights, rtol=1e-12, atol=0)


def test_even_numbers_and_sums(javascript):
    (made,) = javascript("lib/numerics", "linspace", [[-8, 10, 37]])
    close(made, torch.linspace(-8, 10, 37, dtype=F64), rtol=0, atol=1e-13)
    assert made[-1] == 10
    assert javascript("lib/numerics", "sum", [[[1, 2, 4.5]], [[]]]) == [7.5, 0]


def test_bisection_of_a_falling_and_a_rising_function(evaluate):
    bisect = "({ bisect }) => [bisect((x) => x ** 3 - 2, 0, 2), bisect((x) => 5 - x * x, 0, 4)]"
    found = evaluate("numerics", bisect)
    close(found, torch.tensor([2 ** (1 / 3), 5**0.5], dtype=F64), rtol=0, atol=1e-14)


# memo.js


def test_a_memo_computes_once_what_it_has_not_forgotten(evaluate):
    look = """({ memo }) => {
      const asked = [];
      const double = memo((x, { by }) => { asked.push(x); return by * x; });
      const many = Array.from({ length: 101 }, (_, i) => i);
      const found = [...many, 100, 1, 0].map((x) => double(x, { by: 2 }));
      return [found, asked, double(50, { by: 3 })];
    }"""
    found, asked, other = evaluate("memo", look)
    assert found == [2 * x for x in [*range(101), 100, 1, 0]]
    assert asked[:101] == [*range(101)] and asked[101:] == [0, 50]  # 0 is gone, 50 is another call
    assert other == 150


# gaussian.js


@pytest.mark.parametrize("name", ["alpha", "sigma"])
def test_scales(javascript, name):
    logsnr = uniform(-20, 20, 300)
    expected = getattr(gaussian, name)(logsnr)
    close(javascript("lib/gaussian", name, logsnr[:, None].tolist()), expected, atol=0)


def test_transitions_and_posteriors(javascript):
    logsnr_t = uniform(-15, 13, 300)
    logsnr_s = logsnr_t + uniform(-12, 2, 300).exp()
    pairs = torch.stack([logsnr_s, logsnr_t], 1).tolist()
    close(
        javascript("lib/gaussian", "removed", pairs), gaussian.removed(logsnr_s, logsnr_t), atol=0
    )
    made = javascript("lib/gaussian", "transition", pairs)
    scale, variance = gaussian.transition(logsnr_s, logsnr_t)
    close([each["scale"] for each in made], scale, atol=0)
    close([each["variance"] for each in made], variance, atol=0)
    z, x = uniform(-3, 3, 2, 300)
    given = torch.stack([z, x, logsnr_s, logsnr_t], 1).tolist()
    made = javascript("lib/gaussian", "posterior", given)
    q = gaussian.posterior(z[:, None], x[:, None], logsnr_s, logsnr_t)
    close([each["mean"] for each in made], q.mean[:, 0])
    close([each["variance"] for each in made], q.var[:, 0], atol=0)


def test_densities_and_divergences(javascript):
    mean_q, mean_p, x = uniform(-3, 3, 3, 300)
    var_q, var_p = uniform(-5, 3, 2, 300).exp()
    var_p[:100] = var_q[:100] * (1 + uniform(-1e-6, 1e-6, 100))  # where digits are at stake
    q, p = gaussian.Normal(mean_q[:, None], var_q[:, None]), gaussian.Normal(mean_p, var_p)
    p = gaussian.Normal(p.mean[:, None], p.var[:, None])
    given = torch.stack([mean_q, var_q, mean_p, var_p], 1).tolist()
    close(javascript("lib/gaussian", "normalKl", given), gaussian.kl(q, p), atol=1e-12)
    given = torch.stack([x, mean_q, var_q], 1).tolist()
    expected = gaussian.log_prob(q, x[:, None]).exp()[:, 0]
    close(javascript("lib/gaussian", "normalDensity", given), expected, atol=0)


# mixtures.js


def unequal() -> exact.GaussianMixture:
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
    means = torch.tensor([[-1.5], [0.1], [1.2]], dtype=F64)
    return exact.GaussianMixture(weights, means, torch.tensor([0.4, 0.0, 0.2], dtype=F64))


@pytest.mark.parametrize("toy", [exact.TWO_BUMPS, exact.EIGHT_LEVELS, unequal()])
def test_mixtures(javascript, toy):
    z, logsnr = uniform(-3, 3, 250), uniform(-10, 12, 250)
    given = [[mixture(toy), *pair] for pair in torch.stack([z, logsnr], 1).tolist()]
    column = z[:, None]
    for name, expected in {
        "energy": toy.energy(column, logsnr),
        "denoise": toy.denoise(column, logsnr)[:, 0],
    }.items():
        close(javascript("lib/mixtures", name, given), expected)
    given = [[mixture(toy), level] for level in logsnr.tolist()]
    close(javascript("lib/mixtures", "mmse", given), toy.mmse(logsnr), atol=1e-99)
    close(javascript("lib/mixtures", "fourthMoment", given), toy.fourth_moment(logsnr), atol=1e-99)


def test_the_two_bumps_are_those_of_the_library(evaluate):
    assert evaluate("mixtures", "({ TWO_BUMPS }) => TWO_BUMPS") == mixture(exact.TWO_BUMPS)


# costs.js


def test_moments_of_the_noise_error(evaluate):
    look = """({ errorMoments }, [mixture, levels]) => {
      const { square, fourth } = errorMoments(mixture);
      return [square, fourth].map(({ value }) => levels.map(value));
    }"""
    logsnr = uniform(-10, 12, 300)
    logsnr[:3] = torch.tensor([-8.0, 10.0, 0.0])  # where panels meet
    square, fourth = evaluate("costs", look, [mixture(exact.TWO_BUMPS), logsnr.tolist()])
    close(square, logsnr.exp() * exact.TWO_BUMPS.mmse(logsnr))
    close(fourth, (2 * logsnr).exp() * exact.TWO_BUMPS.fourth_moment(logsnr))
    square, _ = evaluate("costs", look, [mixture(exact.EIGHT_LEVELS), logsnr.tolist()])
    close(square, logsnr.exp() * exact.EIGHT_LEVELS.mmse(logsnr), atol=1e-6)


# schedules.js


def test_schedules_have_the_names_that_the_tests_know(evaluate):
    assert evaluate("schedules", "({ SCHEDULES }) => SCHEDULES") == list(CURVES)


@pytest.mark.parametrize("name", CURVES)
def test_schedules(evaluate, name):
    look = """({ makeSchedule }, [name, high, low, times, levels]) => {
      const schedule = makeSchedule(name, high, low);
      return [times.map(schedule.logsnr), times.map(schedule.slope), levels.map(schedule.timeOf),
        levels.map(schedule.density), schedule.ends];
    }"""
    for _ in range(20):
        high, low = uniform(0.5, 15, ()).item(), uniform(-15, -0.5, ()).item()
        schedule = CURVES[name](high, low)
        times, levels = uniform(0, 1, 20), uniform(low, high, 20)
        times[:2] = torch.tensor([0.0, 1.0])
        given = [name, high, low, times.tolist(), levels.tolist()]
        logsnr, slope, back, density, ends = evaluate("schedules", look, given)
        expected = schedules.rate(schedule, times)
        close(logsnr, expected[0])
        close(slope, expected[1])
        close(back, schedules.time_of(schedule, levels))
        close(density, schedules.density(schedule, levels))
        assert ends == [high, low]


def test_no_density_beyond_the_ends(evaluate):
    look = "({ makeSchedule }, name) => [-9, -8, 10, 11].map(makeSchedule(name, 10, -8).density)"
    for name, curve in CURVES.items():
        levels = torch.tensor([-9.0, -8.0, 10.0, 11.0], dtype=F64)
        close(evaluate("schedules", look, name), schedules.density(curve(10.0, -8.0), levels))
