"""Shares of one batch are made of the numbers of the whole."""

import pytest
import torch

from vdm_lite import randomness
from vdm_lite.counter import Counter
from vdm_lite.randomness import Share


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("draw", [randomness.normal, randomness.uniform])
@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)])
def test_shares_interleave_to_the_whole(draw, shape):
    generators = [generator() for _ in range(3)]
    shares = [draw(shape, Share(g, i, 3)) for i, g in enumerate(generators)]
    whole = draw((3 * shape[0], *shape[1:]), last := generator())
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)
    for g in generators:  # and all of them go on from one state
        assert torch.equal(g.get_state(), last.get_state())


@pytest.mark.parametrize("draw", [randomness.normal, randomness.uniform])
def test_a_single_number_is_common_to_all(draw):
    shares = [Share(generator(), i, 3) for i in range(3)]
    assert {draw((), s).item() for s in shares} == {draw((), generator()).item()}


def test_any_source_can_be_shared():
    whole, half = Counter(5).normal((6, 2)), [Share(Counter(5), i, 2) for i in range(2)]
    for i, share in enumerate(half):
        assert torch.equal(randomness.normal((3, 2), share), whole[i::2])


def test_dtype_and_device_are_those_asked_for():
    share = Share(generator(), 0, 2)
    assert randomness.normal((2,), share, "cpu", torch.float64).dtype == torch.float64
    assert randomness.normal_like(torch.zeros(2, 3, dtype=torch.float64), share).shape == (2, 3)


@pytest.mark.parametrize(
    "index, shares, name", [(2, 2, "index"), (-1, 2, "index"), (0, 0, "shares")]
)
def test_bad_shares_are_named(index, shares, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected .+, got .+"):
        Share(generator(), index, shares)
