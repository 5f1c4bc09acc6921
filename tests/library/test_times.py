"""Samplers of time: uniform marginals, strata, exact densities, unbiased losses, several ranks."""

import math

import pytest
import torch

from vdm_lite import elbo, times
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.parameterization import IMAGE
from vdm_lite.randomness import Share, Source
from vdm_lite.schedules import Cosine, Learned, Linear
from vdm_lite.times import Adaptive, Importance, normalized

F64 = torch.float64
PLAIN = [times.uniform, times.low_discrepancy, times.stratified]
ENDS = Linear(10.0, -8.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source(seed: int = 0, dtype: torch.dtype = F64) -> Source:
    return Source(generator(seed), dtype=dtype)


def sloped(logsnr):
    """A density over [-8, 10] that rises linearly from 0.2 to 1.8 of its mean."""
    return (0.2 + 1.6 * (logsnr + 8) / 18) / 18


def trained(moment: int = 1, bins: int = 10) -> Adaptive:
    """An adaptive sampler that has seen the cost (1 + t)^2 all over."""
    sampler = Adaptive(bins=bins, moment=moment)
    t = (torch.arange(10_000) + 0.5) / 10_000
    sampler.observe(t, (1 + t) ** 2)
    return sampler.eval()


# --- uniform times -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler", [*PLAIN, lambda n, whole: times.low_discrepancy(n, Share(whole, 1, 3))]
)
def test_each_time_is_uniform_on_its_own(sampler):
    drawing = source()
    drawn = [sampler(8, drawing) for _ in range(4000)]
    t = torch.stack([times.t for times in drawn])
    assert ((t >= 0) & (t < 1)).all()
    assert all((times.p == 1).all() for times in drawn)
    error = 1 / math.sqrt(12 * 4000)
    assert ((t.mean(0) - 0.5).abs() < 4 * error).all()
    assert ((t.square().mean(0) - 1 / 3).abs() < 4 * error).all()


@pytest.mark.parametrize("sampler", [times.low_discrepancy, times.stratified])
def test_one_time_in_each_stratum(sampler):
    t, _ = sampler(16, source(1))
    assert ((t * 16).floor().sort().values == torch.arange(16)).all()


def test_low_discrepancy_is_one_shifted_grid_and_stratified_is_not():
    even = times.low_discrepancy(16, source(1)).t.sort().values.diff()
    torch.testing.assert_close(even, torch.full((15,), 1 / 16, dtype=F64))
    assert times.stratified(16, source(1)).t.sort().values.diff().std() > 0.01


@pytest.mark.parametrize("sampler", PLAIN)
def test_times_in_low_precision_stay_below_one(sampler):
    for seed in range(200):
        assert (sampler(64, source(seed, torch.float16)).t < 1).all()


# --- importance sampling -------------------------------------------------------------------------


def test_levels_follow_the_density():
    """Bin by bin: the share of levels in a bin is the integral of the density there."""
    for schedule in (ENDS, Cosine(10.0, -8.0)):
        t, _ = Importance(sloped, schedule, times.stratified)(200_000, source())
        edges = torch.linspace(-8, 10, 19, dtype=F64)
        share = torch.histogram(schedule(t), edges).hist / 200_000
        middle = (edges[1:] + edges[:-1]) / 2
        torch.testing.assert_close(share, sloped(middle), rtol=0.01, atol=2e-4)


@pytest.mark.parametrize("sampler", [Importance(sloped, Cosine(10.0, -8.0)), trained()])
def test_density_of_the_times_is_the_one_given(sampler):
    """E[1/p] over any piece of [0, 1] is its length: what makes the loss unbiased."""
    t, p = sampler(100_000, source())
    assert ((t >= 0) & (t <= 1)).all()
    for low, high in ((0.0, 1.0), (0.0, 0.21), (0.37, 0.8), (0.93, 1.0)):
        inside = (t >= low) & (t < high)
        assert (inside / p).mean().item() == pytest.approx(high - low, abs=2e-3)


def test_a_base_with_its_own_density_counts():
    """Importance sampling of importance-sampled times: p is the product, the mean of 1/p is 1."""
    sampler = Importance(sloped, ENDS, Importance(sloped, ENDS))
    p = sampler(100_000, source()).p
    assert (1 / p).mean().item() == pytest.approx(1, abs=2e-3)
    assert p.mean().item() > 1.5  # E[p] = integral of p^2: twice warped, farther from uniform


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_density_of_bins_that_rounded_sums_distort(dtype):
    """A bin of mass 1e-6 above a sum near 1: p is the share of [0, 1] that it really has."""
    masses = torch.tensor([1.0, 1e-6, 0.0, 2e-6], dtype=F64)
    u = 1 - (torch.arange(60, dtype=dtype) + 1) * 2**-24
    t, p = times._from_histogram(times.Times(u, torch.ones_like(u)), masses)
    cumulative = torch.cat([torch.zeros(1, dtype=dtype), masses.to(dtype).cumsum(0)])
    share = (cumulative / cumulative[-1]).diff()
    k = (t * 4).floor().long().clamp(max=3)
    assert set(k.tolist()) == {0, 1, 3} and (p > 0).all()
    torch.testing.assert_close(p, 4 * share[k], rtol=1e-12, atol=0)


def test_importance_of_a_learned_schedule():
    """Its levels are asked where its parameters are, in their dtype."""
    schedule = Learned(10, -8)
    seen = []
    schedule.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    t, p = Importance(sloped, schedule)(20_000, source())
    assert set(seen) == {torch.float32}
    assert (1 / p).mean().item() == pytest.approx(1, abs=2e-3)
    with torch.no_grad():
        level = (schedule(t) + 8) / 18
    below = 0.2 * level + 0.8 * level**2
    assert below.sort().values.diff().sub(1 / 20_000).abs().max() < 1e-5


def test_a_base_with_strata_keeps_them():
    """64 strata of probability: the inverse of the CDF puts one time in each."""
    t, _ = Importance(sloped, ENDS)(64, source())
    level = (ENDS(t) + 8) / 18
    below = 0.2 * level + 0.8 * level**2  # the CDF over levels
    assert ((below * 64).floor().sort().values.diff() >= 0).all()
    assert below.sort().values.diff().sub(1 / 64).abs().max() < 1e-4


def show(sampler, model, x, generator) -> None:
    """Let a sampler that learns draw times for a batch, and show it the costs."""
    t, _, cost = model.costs(x, times=sampler, generator=generator)
    sampler.observe(t, cost)


def exact_model() -> VariationalDiffusion:
    return VariationalDiffusion(TWO_BUMPS.denoise, ENDS, IMAGE)


SECOND = normalized(lambda lam: lam.exp() * TWO_BUMPS.mmse(lam), ENDS)
FOURTH = normalized(lambda lam: lam.exp() * TWO_BUMPS.fourth_moment(lam).sqrt(), ENDS)


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [
        (times.uniform, 76.6),
        (Importance(SECOND, ENDS, times.uniform), 45.0),
        (Importance(FOURTH, ENDS, times.uniform), 39.0),
        (Importance(sloped, ENDS, times.uniform), None),
        (times.low_discrepancy, None),
        (times.stratified, None),
        (Importance(SECOND, ENDS), None),
        (trained(), None),
        (trained(moment=2), None),
    ],
)
def test_the_loss_is_unbiased_and_its_variance_known(sampler, variance):
    want = elbo.diffusion_from_mmse(TWO_BUMPS.mmse, ENDS).item()
    x = TWO_BUMPS.sample(200_000, generator())
    losses = exact_model().loss(x, times=sampler, generator=generator(1))
    error = losses.std().item() / math.sqrt(len(losses))
    assert abs(losses.mean().item() - want) < 4 * error
    if variance is not None:
        spread = (losses - want).square()  # its own standard error, from the fourth moment
        assert abs(spread.mean().item() - variance) < 4 * spread.std().item() / len(x) ** 0.5


def test_normalized_integrates_to_one():
    p = normalized(lambda logsnr: 7 * torch.exp(-logsnr.square()), ENDS)
    at = torch.tensor([0.0, 1.3], dtype=F64)
    torch.testing.assert_close(p(at), torch.exp(-at.square()) / math.sqrt(math.pi))


# --- adaptive ------------------------------------------------------------------------------------


def test_adaptive_follows_the_mean_or_the_root_mean_square():
    edges = torch.linspace(0, 1, 11)
    for moment in (1, 2):
        degree = 2 * moment + 1  # the integral of (1 + t)^(2 moment)
        mean = ((1 + edges) ** degree).diff() / degree * 10
        mean = (1000 * mean + 9.99 * mean.mean()) / 1009.99  # a thousand visits, ten presumed
        share = mean ** (1 / moment)
        want = 0.99 * share / share.sum() + 0.01 / 10
        torch.testing.assert_close(trained(moment).masses(), want, rtol=1e-4, atol=0)


def test_adaptive_is_uniform_at_first_and_ten_visits_are_presumed():
    """Bins seen once, once, never, never: (1 + 10 * 2) / 11, (3 + 10 * 2) / 11, 2, 2."""
    sampler = Adaptive(bins=4)
    sampler.presumed /= sampler.decay  # the first call forgets a thousandth of them
    assert (sampler(50).p == 1).all()
    sampler.observe(torch.tensor([0.1, 0.3]), torch.tensor([1.0, 3.0]))
    want = 0.99 * torch.tensor([21.0, 23.0, 22.0, 22.0]) / 88 + 0.01 / 4
    torch.testing.assert_close(sampler.masses(), want)


def test_a_bin_without_any_visits_costs_the_average():
    sampler = Adaptive(bins=4)
    sampler.presumed.zero_()
    sampler.observe(torch.tensor([0.1, 0.3]), torch.tensor([1.0, 3.0]))
    want = 0.99 * torch.tensor([1.0, 3.0, 2.0, 2.0]) / 8 + 0.01 / 4
    torch.testing.assert_close(sampler.masses(), want)


@pytest.mark.parametrize("moment", [1, 2])
def test_an_adaptive_sampler_is_never_much_worse_than_uniform(moment):
    """Not even after a few small batches: its variance on the toy, by sums over the bins."""
    lam = ENDS((torch.arange(500, dtype=F64) + 0.5) / 500)
    square = (9 * lam.exp()).square() * TWO_BUMPS.fourth_moment(lam)  # E cost^2, slope -18
    square = square.view(100, 5).mean(1)
    sampler, g = Adaptive(moment=moment), generator(moment)
    for _ in range(30):
        show(sampler, exact_model(), TWO_BUMPS.sample(64, g), g)
        variance = (square / (100 * sampler.masses())).mean() - 3.79686**2
        assert variance < 1.1 * 76.6
    assert variance < 0.95 * 76.6


def test_adaptive_forgets_at_its_rate_and_only_in_training():
    sampler = Adaptive(bins=1, decay=0.9)
    for cost in (1.0, 2.0, 3.0):
        sampler.observe(torch.tensor([0.5]), torch.tensor([cost]))
    before = [buffer.item() for buffer in sampler.buffers()]
    assert before == pytest.approx([0.81 + 1.8 + 3.0, 0.81 + 0.9 + 1.0, 10 * 0.9**3])
    sampler.eval().observe(torch.tensor([0.5]), torch.tensor([100.0]))
    assert [buffer.item() for buffer in sampler.buffers()] == before


def test_a_loss_is_a_quotient_that_nobody_learns_from():
    """Costs are pure: neither they nor the loss change the sampler, and both draw the same."""
    sampler, model, x = trained(2).train(), exact_model(), TWO_BUMPS.sample(5, generator())
    before = sampler.masses()
    costs = model.costs(x, times=sampler, generator=generator(1))
    loss = model.loss(x, times=sampler, generator=generator(1))
    assert torch.equal(loss, costs.cost / costs.p) and torch.equal(loss, costs.loss)
    assert torch.equal(costs.t, sampler(5, source(1)).t)
    assert not torch.equal(costs.p, torch.ones(5))
    assert torch.equal(sampler.masses(), before)
    sampler.observe(costs.t, costs.cost)
    assert not torch.equal(sampler.masses(), before)


@pytest.mark.parametrize(("moment", "target"), [(1, SECOND), (2, FOURTH)])
def test_adaptive_learns_the_density_of_the_theory(moment, target):
    """Shown exact losses of the two-bump toy, it finds what quadrature computes."""
    sampler, model, g = Adaptive(bins=20, moment=moment, decay=0.9999), exact_model(), generator()
    for _ in range(300):
        show(sampler, model, TWO_BUMPS.sample(4096, g), g)
    want = Importance(target, ENDS, bins=20).masses
    got = sampler.masses().double()
    # Bins of almost no cost keep a trace of the visits presumed at the average cost.
    torch.testing.assert_close(got, 0.99 * want + 0.01 / 20, rtol=0.1, atol=5e-3)


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler", [times.low_discrepancy, times.stratified, Importance(sloped, ENDS), trained()]
)
def test_ranks_share_one_batch(sampler):
    ranks = [Share(source(), rank, 4) for rank in range(4)]
    calls = [torch.stack([sampler(16, rank).t for rank in ranks]) for _ in range(3)]
    whole = source()
    for t in calls:  # transposed, in the order of the whole batch
        assert torch.equal(t.T.flatten(), sampler(64, whole).t)
    assert not torch.equal(calls[0], calls[1])


def test_strata_hold_over_all_ranks_and_span_time_on_each():
    ranks = [Share(source(), rank, 4) for rank in range(4)]
    t = torch.stack([times.low_discrepancy(16, rank).t for rank in ranks])
    assert ((t.flatten() * 64).floor().sort().values == torch.arange(64)).all()
    for own in t:
        assert ((own * 16).floor().sort().values == torch.arange(16)).all()


def observe_on(rank: int, store: str, out: str) -> None:
    """One of two processes: see other costs than the other, end with the same density."""
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    sampler = Adaptive(bins=4)
    sampler.observe(torch.tensor([0.1 + 0.5 * rank]), torch.tensor([1.0 + 2 * rank]))
    torch.save(sampler.masses(), f"{out}{rank}")
    torch.distributed.destroy_process_group()


def test_adaptive_agrees_between_two_processes(tmp_path):
    store, out = str(tmp_path / "store"), str(tmp_path / "masses")
    torch.multiprocessing.spawn(observe_on, (store, out), nprocs=2)
    alone = Adaptive(bins=4)
    alone.observe(torch.tensor([0.1, 0.6]), torch.tensor([1.0, 3.0]))
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(f"{out}{rank}"), alone.masses())


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Importance(lambda lam: 2 * sloped(lam), ENDS), "density"),
        (lambda: Importance(sloped, Linear(10.0, -7.0)), "density"),
        (lambda: Importance(lambda lam: -sloped(lam), ENDS), r"density\(logsnr\)"),
        (lambda: Importance(lambda lam: lam.log(), ENDS), r"density\(logsnr\)"),
        (lambda: Importance(lambda lam: sloped(lam)[:1], ENDS), r"density\(logsnr\)"),
        (lambda: Importance(sloped, ENDS, bins=0), "bins"),
        (lambda: Importance(sloped, lambda t: 2 * t), "schedule"),
        (lambda: Importance(sloped, ENDS, Adaptive), "base"),
        (lambda: normalized(torch.zeros_like, ENDS), "f"),
        (lambda: normalized(lambda lam: -sloped(lam), ENDS), r"f\(logsnr\)"),
        (lambda: Adaptive(bins=0), "bins"),
        (lambda: Adaptive(moment=3), "moment"),
        (lambda: Adaptive(decay=1.0), "decay"),
        (lambda: Adaptive(base=Adaptive), "base"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
