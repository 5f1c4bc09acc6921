"""The checks themselves: what they ask once at the door, and that nothing asks inside."""

import math
from collections import Counter

import pytest
import torch

from vdm_lite import checks, gaussian, nets, parameterization, samplers, training
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.parameterization import NOISE


@pytest.fixture
def read(monkeypatch):
    """How often the numbers of each argument are read."""
    seen, finite = Counter(), checks.finite

    def counting(argument, value):
        seen[argument] += 1
        finite(argument, value)

    monkeypatch.setattr(checks, "finite", counting)
    return seen


@checks.checked(x=checks.examples, eps=(checks.shaped_as, "x"), scale=checks.positive_number)
def noisy(x, eps, scale=1.0):
    """Its own words."""
    return x + scale * eps


def test_a_door_checks_by_name_and_its_formula_does_not():
    x = torch.ones(2, 3)
    assert torch.equal(noisy(x, x), noisy.formula(x, x)) and noisy.__doc__ == "Its own words."
    for call, argument in (
        (lambda: noisy(x, torch.ones(3, 2)), "eps"),
        (lambda: noisy(eps=x, x=x[0, 0]), "x"),
        (lambda: noisy(x, x, scale=0.0), "scale"),
    ):
        with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
            call()
    with pytest.raises(TypeError, match="missing a required argument: 'eps'"):
        noisy(x)
    assert torch.equal(noisy.formula(x, x, 0.0), x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_one_number_that_is_not_finite_is_found_among_many(bad, dtype):
    value = torch.zeros(3, 1000, dtype=dtype)
    checks.floating("value", value)
    for place in ((0, 0), (2, 999)):
        worse = value.clone()
        worse[place] = bad
        with pytest.raises(ValueError, match=r"^value: expected finite numbers"):
            checks.floating("value", worse)
    worse[0, 0] = -bad  # whatever cancels
    with pytest.raises(ValueError, match=r"^value: expected finite numbers"):
        checks.floating("value", worse)
    with pytest.raises(ValueError, match=r"^value: expected finite numbers"):
        checks.floating("value", torch.tensor(bad, dtype=dtype))


def test_finite_numbers_whose_sum_overflows_are_finite():
    checks.floating("value", torch.full((4,), torch.finfo(torch.float32).max))


def test_a_step_of_sampling_reads_only_what_enters(read):
    """Network and model read z and its level; then come the answers of network and step."""
    model = VariationalDiffusion(nets.MLP(2, 8, 1))
    walk = samplers.sample(model, (3, 2), 3)
    next(walk)
    read.clear()
    next(walk)
    names = Counter({argument.partition("(")[0]: times for argument, times in read.items()})
    assert names == {"z": 2, "logsnr": 2, "denoiser": 1, "step": 1}


def test_data_of_a_bound_are_read_once_for_its_latents(read):
    """And once for its reconstruction, which is a public function of the data."""
    model = VariationalDiffusion(nets.MLP(2, 8, 1))
    model.elbo(torch.zeros(3, 2))
    assert read["data"] == 2 and read["x"] == 0


def test_formulas_read_nothing(read):
    x, level = torch.zeros(3, 2), torch.zeros(3)
    z = gaussian.diffuse.formula(x, level, x)
    parameterization.solve.formula(NOISE, z, z, level)
    gaussian.posterior.formula(z, x, level, level)
    assert not read


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_less_than_float32_are_refused(dtype):
    model, x = VariationalDiffusion(nets.MLP(2, 8, 1).to(dtype)), torch.zeros(3, 2)
    for call in (
        lambda: model.loss(x),
        lambda: model.elbo(x),
        lambda: model.predict(x, x[:, 0]),
        lambda: samplers.sample(model, (3, 2), 2),
        lambda: training.fit(model, x, 1, 2),
    ):
        with pytest.raises(ValueError, match=r"^model: expected weights in float32 or float64"):
            call()
