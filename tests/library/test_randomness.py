"""Shares of one batch are made of the numbers of the whole."""

import pytest
import torch

from vdm_lite import randomness, times
from vdm_lite.counter import Counter
from vdm_lite.randomness import Share, Source


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def normal(source: Source, shape: tuple[int, ...]) -> torch.Tensor:
    return source.normal(shape)


def uniform(source: Source, shape: tuple[int, ...]) -> torch.Tensor:
    return source.uniform(shape)


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)])
def test_shares_interleave_to_the_whole(draw, shape):
    generators = [generator() for _ in range(3)]
    shares = [draw(Share(g, i, 3), shape) for i, g in enumerate(generators)]
    whole = draw(Source(last := generator()), (3 * shape[0], *shape[1:]))
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)
    for g in generators:  # and all of them go on from one state
        assert torch.equal(g.get_state(), last.get_state())


@pytest.mark.parametrize("n", [1, 5])
def test_shares_of_a_random_order_interleave_to_the_whole(n):
    shares = torch.stack([Share(generator(), i, 3).permutation(n) for i in range(3)], 1)
    whole = Source(generator()).permutation(3 * n)
    assert torch.equal(shares.flatten(), whole)
    assert torch.equal(whole.sort().values, torch.arange(3 * n))


@pytest.mark.parametrize("draw", [normal, uniform])
def test_a_single_number_is_common_to_all(draw):
    shares = [draw(Share(generator(), i, 3), ()) for i in range(3)]
    assert {number.item() for number in shares} == {draw(Source(generator()), ()).item()}


def test_any_source_can_be_shared():
    whole, half = Counter(5).normal((6, 2)), [Share(Counter(5), i, 2) for i in range(2)]
    for i, share in enumerate(half):
        assert torch.equal(share.normal((3, 2)), whole[i::2])


ON_CPU = [lambda: None, generator, lambda: Share(generator(), 1, 2)]
ANYWHERE = [lambda: None, lambda: Counter(5), lambda: Share(Counter(5), 1, 2)]


@pytest.mark.parametrize(
    ("made", "device", "dtype"),
    [(made, "cpu", dtype) for made in ON_CPU + ANYWHERE for dtype in (torch.half, torch.double)]
    + [(made, "meta", torch.float32) for made in ANYWHERE],
)
def test_device_and_dtype_are_those_of_the_data(made, device, dtype):
    source = randomness.of(made(), like=torch.zeros(1, dtype=dtype, device=device))
    drawn = source.normal((2, 3)), source.uniform((4,)), times.low_discrepancy(4, source).t
    assert {(numbers.device.type, numbers.dtype) for numbers in drawn} == {(device, dtype)}


@pytest.mark.parametrize("made", [generator, lambda: Share(generator(), 1, 2), lambda: Counter(5)])
def test_a_bound_source_goes_on_where_the_other_stood(made):
    """Binding copies no state: both draw from one stream, and what is bound alike is itself."""
    drawing, whole = randomness.of(made()), randomness.of(made())
    like = torch.zeros(1)
    bound = randomness.of(drawing, like)
    found = [drawing.normal((2,)), bound.normal((2,)), drawing.normal((2,))]
    assert torch.equal(torch.stack(found), torch.stack([whole.normal((2,)) for _ in range(3)]))
    assert randomness.of(bound, like) is bound
    assert randomness.of(bound, like.double()).normal((2,)).dtype == torch.float64


@pytest.mark.parametrize(
    "index, shares, name", [(2, 2, "index"), (-1, 2, "index"), (0, 0, "shares")]
)
def test_bad_shares_are_named(index, shares, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected .+, got .+"):
        Share(generator(), index, shares)
