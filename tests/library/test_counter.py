"""The counter-based numbers: published answers, the law, devices, and the same in JavaScript."""

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vdm_lite import randomness, samplers
from vdm_lite.counter import WORD, Counter, threefry
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.parameterization import IMAGE

# The three answers for threefry2x32 with 20 rounds in the known-answer file of Random123.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(count: int, high: int = WORD) -> list[int]:
    """Whole numbers from 0 to ``high`` - 1, with the ends among them."""
    inner = torch.randint(high, (count - 2,)).tolist()
    return [0, high - 1, *inner]


def at_call(seed: int, call: int) -> Counter:
    """The source of a seed as it stands before its next call, in double precision."""
    source = Counter(seed, dtype=torch.float64)
    source.calls = itertools.count(call)
    return source


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN)
def test_known_answers(key, counter, answer):
    found = threefry(key, tuple(torch.tensor(word) for word in counter))
    assert tuple(word.item() for word in found) == answer


def test_known_answers_in_javascript(javascript):
    calls = [[key, counter] for key, counter, _ in KNOWN]
    assert javascript("lib/counter", "threefry", calls) == [list(answer) for *_, answer in KNOWN]


def test_javascript_has_the_same_bits(javascript):
    columns = [words(300) for _ in range(4)]
    calls = [[[a, b], [c, d]] for a, b, c, d in zip(*columns, strict=True)]
    expected = [
        [word.item() for word in threefry(tuple(key), tuple(map(torch.tensor, counter)))]
        for key, counter in calls
    ]
    assert javascript("lib/counter", "threefry", calls) == expected


def test_javascript_has_the_same_normals(javascript):
    calls = [list(each) for each in zip(words(200), words(200), words(200, 2000), strict=True)]
    expected = []
    for seed, call, index in calls:
        expected.append(at_call(seed, call).normal((2000,))[index].item())
    found = javascript("lib/counter", "normal", calls)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1e-12


def test_javascript_has_the_same_uniforms(javascript):
    calls = [[seed, call, 100] for seed, call in zip(words(200), words(200), strict=True)]
    for (seed, call, count), found in zip(
        calls, javascript("lib/counter", "uniforms", calls), strict=True
    ):
        assert found == at_call(seed, call).uniform((count,)).tolist()


def test_a_number_depends_on_seed_call_and_place_alone():
    source = Counter(7)
    first, second = source.normal((2, 3)), source.normal((6,))
    assert not first.flatten().equal(second)
    again = Counter(7)
    assert again.normal((6,)).equal(first.flatten())
    assert again.normal((100,))[:6].equal(second)
    assert not Counter(8).normal((6,)).equal(first.flatten())


def test_calls_and_seeds_are_not_correlated():
    draws = torch.stack([Counter(seed).normal((20_000,)) for seed in range(4)])
    source = Counter(0)
    calls = torch.stack([source.normal((20_000,)) for _ in range(4)])
    for rows in (draws, calls):
        off = torch.corrcoef(rows) - torch.eye(4)
        assert off.abs().max() < 4 / math.sqrt(20_000)


def test_normals_are_normal():
    draws = Counter(1, dtype=torch.float64).normal((400_000,))
    # Moments 1 to 4 within 4.5 standard errors; the errors are those of N(0, 1).
    for power, (value, spread) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        error = math.sqrt(spread / len(draws))
        assert abs(draws.pow(power).mean() - value) < 4.5 * error, power
    ranks = torch.special.ndtr(draws).sort().values
    distance = (ranks - (torch.arange(len(draws)) + 0.5) / len(draws)).abs().max()
    assert distance * math.sqrt(len(draws)) < 1.95  # Kolmogorov-Smirnov, one in 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_uniforms_stay_below_one(dtype):
    draws = Counter(3, dtype=dtype).uniform((300_000,))
    assert draws.dtype == dtype and draws.min() >= 0 and draws.max() < 1
    assert abs(draws.double().mean() - 0.5) < 0.01
    coarse = Counter(3, dtype=torch.float64).uniform((300_000,))
    assert (coarse - draws.double()).abs().max() <= torch.finfo(dtype).eps


def test_source_of_randomness_and_of_samples():
    like = torch.zeros(2, 3, dtype=torch.float64)
    counter, whole = Counter(0), Counter(0, dtype=like.dtype)
    for _ in range(2):  # bound or not, it counts its calls
        assert randomness.of(counter, like).normal((2, 3)).equal(whole.normal((2, 3)))
    model = VariationalDiffusion(TWO_BUMPS.denoise, parameterization=IMAGE)
    runs = [list(samplers.sample(model, (5, 1), 4, generator=Counter(2)))[-1].z for _ in range(2)]
    assert runs[0].equal(runs[1])


def test_moves_to_the_device_that_is_asked_for():
    assert Counter(0, "meta", torch.float16).normal((2,)).device.type == "meta"
    assert Counter(0, "meta").uniform((2,)).device.type == "meta"
    assert Counter(0).normal(()).shape == ()


def test_no_double_goes_to_a_device_that_may_have_none():
    class Moves(TorchDispatchMode):
        moved = 0

        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            out = f(*args, **(kwargs or {}))
            if f is torch.ops.aten._to_copy.default and out.device.type == "meta":
                assert args[0].dtype == torch.float32
                self.moved += 1
            return out

    with Moves() as moves:
        Counter(0, "meta", torch.float32).uniform((2,))
        Counter(0, "meta", torch.float32).normal((2,))
    assert moves.moved == 2


@pytest.mark.parametrize("seed", [-1, WORD, 1.5, "1"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed: expected a whole number from 0"):
        Counter(seed)
