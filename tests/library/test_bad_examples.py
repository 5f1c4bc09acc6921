"""One bad example among many is found before any work, by its index."""

import math

import pytest
import torch
from torch import Tensor, nn

from vdm_lite import nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized, Gaussian
from vdm_lite.training import fit
from vdm_lite.training.evaluation import evaluate


class Untouched(nn.Module):
    """A network that must not be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, *_given: Tensor) -> Tensor:
        raise AssertionError("work has begun")

    loss = forward


def diffusion(likelihood: Gaussian | Discretized) -> VariationalDiffusion:
    return VariationalDiffusion(Untouched(), likelihood=likelihood)


def floats(value: float, index: int, n: int = 3000) -> Tensor:
    data = torch.zeros(n, 2)
    data[index, 1] = value
    return data


BAD = [(floats(value, i), Gaussian(), i) for value in (math.nan, math.inf, -math.inf)
       for i in (0, 1023, 1024, 2999)]  # fmt: skip
BAD += [(floats(0.5, 1500), Discretized(17), 1500), (floats(17, 7), Discretized(17), 7)]
BAD += [(floats(-1, 2999).to(torch.int16), Discretized(17), 2999)]
BAD += [(floats(200, 42).to(torch.uint8), Discretized(17), 42)]


@pytest.mark.parametrize(("data", "likelihood", "index"), BAD)
@pytest.mark.parametrize("act", [lambda m, d: fit(m, d, 5), evaluate])
def test_a_bad_example_is_named(act, data, likelihood, index):
    with pytest.raises(ValueError, match=rf"^data: expected .*, got .* in data\[{index}\]$"):
        act(diffusion(likelihood), data)


@pytest.mark.parametrize("index", [0, 1024, 2999])
def test_a_module_of_any_kind_is_trained_on_finite_numbers(index):
    with pytest.raises(ValueError, match=rf"NaN or infinity in data\[{index}\]$"):
        fit(Untouched(), floats(math.nan, index), 5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int64])
def test_whole_numbers_of_any_dtype_are_trained_on_and_evaluated(dtype):
    model = VariationalDiffusion(nets.MLP(2, 8), likelihood=Discretized(2))
    data = (torch.arange(80).view(40, 2) % 3 == 0).to(dtype)
    *_, last = fit(model, data, 2, 8, progress=False)
    assert math.isfinite(last.loss) and math.isfinite(evaluate(last.averaged, data).error)
