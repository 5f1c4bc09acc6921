"""Models travel: through pickle and copies, files of wrapped networks, other dtypes and modes."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from vdm_lite import exact, nets, parameterization, schedules, times, training
from vdm_lite import likelihood as likelihoods
from vdm_lite import weighting as weightings
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import Elbo
from vdm_lite.likelihood import Discretized, Gaussian
from vdm_lite.nets import MLP, flat_decoder, flat_encoder
from vdm_lite.observation import Gaussian as GaussianObservation
from vdm_lite.parameterization import ENERGY, IMAGE, NOISE, Parameterization
from vdm_lite.rosetta import REVERSED_FLOW
from vdm_lite.samplers import ddim_step, sample
from vdm_lite.schedules import SCHEDULES, Learned, Linear
from vdm_lite.training import checkpoints
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import OUTPUTS
from vdm_lite.training.evaluation import evaluate
from vdm_lite.vae import VAE

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


class Squares(nn.Module):
    """An energy that depends on z and on weights."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(2, 8, 1)
        nn.init.normal_(self.network.outer.weight)

    def forward(self, z: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
        return self.network(z, logsnr).square().sum(1) + z.square().sum(1)


def model(p: Parameterization = NOISE, schedule=None, likelihood=None) -> VariationalDiffusion:
    torch.manual_seed(0)
    network = Squares() if p is ENERGY else MLP(2, 8, 1)
    return VariationalDiffusion(network, schedule or Linear(), p, likelihood or Gaussian())


def equal(a: Elbo, b: Elbo) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- copies --------------------------------------------------------------------------------------


def public(module, kind: type) -> list:
    return [value for name, value in vars(module).items() if isinstance(value, kind)]


ROWS = [*public(parameterization, Parameterization), parameterization.edm(0.7), REVERSED_FLOW]
CURVES = [*(curve() for curve in SCHEDULES.values()), schedules.Cosine(shift=1.0)]
LIKELIHOODS = [Gaussian(), Discretized(4)]
WEIGHTS = [recipe.weight for recipe in weightings.RECIPES.values()]
WEIGHTS += [recipe.explicit for recipe in weightings.RECIPES.values()]
WEIGHTS += [recipe.implied() for recipe in weightings.RECIPES.values()]
WEIGHTS += [weightings.p2(2.0), weightings.min_snr(3.0), weightings.sigmoid(-1.0)]
SAMPLERS = [times.uniform, times.low_discrepancy, times.stratified, times.Adaptive(4)]
SAMPLERS += [times.Importance(times.normalized(weightings.sigmoid(), Linear()), Linear(), bins=9)]
COPIES = [lambda value: pickle.loads(pickle.dumps(value)), deepcopy]


@pytest.mark.parametrize("copy", COPIES, ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("p", ROWS, ids=lambda p: p.name)
def test_models_of_every_output_can_be_copied(p, copy):
    m = model(p)
    assert equal(copy(m).elbo(X, generator=generator()), m.elbo(X, generator=generator()))


@pytest.mark.parametrize("copy", COPIES, ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda v: type(v).__name__)
def test_models_of_every_schedule_and_likelihood_can_be_copied(schedule, likelihood, copy):
    m, data = model(IMAGE, schedule, likelihood), likelihood.decode(X)
    assert equal(copy(m).elbo(data, 3, generator()), m.elbo(data, 3, generator()))


@pytest.mark.parametrize("copy", COPIES, ids=["pickle", "deepcopy"])
def test_weights_and_samplers_of_time_and_exact_models_can_be_copied(copy):
    logsnr = torch.linspace(-4, 12, 9, dtype=torch.float64)
    for weight in WEIGHTS:
        assert torch.equal(copy(weight)(logsnr), weight(logsnr))
    for sampler in SAMPLERS:
        for a, b in zip(copy(sampler)(5, generator()), sampler(5, generator()), strict=True):
            assert torch.equal(a, b)
    m = VariationalDiffusion(exact.TWO_BUMPS.denoise, Linear(), IMAGE)
    x = exact.TWO_BUMPS.sample(4, generator())
    assert equal(copy(m).elbo(x, generator=generator()), m.elbo(x, generator=generator()))


def test_nothing_of_the_public_lists_is_missing_here():
    assert {p.name for p in OUTPUTS.values()} <= {p.name for p in ROWS}
    kinds = [v for v in vars(likelihoods).values() if isinstance(v, type) and hasattr(v, "decode")]
    assert {type(v) for v in LIKELIHOODS} == set(kinds)


@pytest.mark.parametrize("copy", COPIES, ids=["pickle", "deepcopy"])
def test_a_copied_average_goes_on_from_its_own_count(copy):
    """One that counted with the original would average with another decay."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    ema, alone = training.averaged(first), training.averaged(first)
    for average in 3 * [ema, alone]:
        average.update_parameters(first)
    twin = copy(ema)
    for average in (ema, twin, alone):
        average.update_parameters(second)
    assert twin.n_averaged == 4 and torch.equal(twin.module.weight, alone.module.weight)


# --- files of wrapped networks -------------------------------------------------------------------


class Own(nn.Module):
    """``module`` is a name of its own here: without it two tensors would be called ``weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.weight = nn.Linear(2, 2), nn.Parameter(torch.zeros(2, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, z: torch.Tensor, logsnr: torch.Tensor) -> torch.Tensor:
        return self.module(z) @ self.weight + self.bias


WRAPPERS = {
    "plain": lambda net: net,
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "both": lambda net: torch.compile(nn.DataParallel(net)),
}


@pytest.mark.parametrize("saved", WRAPPERS)
@pytest.mark.parametrize("loaded", WRAPPERS)
def test_a_wrapper_leaves_no_trace_in_a_file(tmp_path, saved, loaded):
    m, other = model(), model()
    nn.init.normal_(other.denoiser.outer.weight)
    a = VariationalDiffusion(WRAPPERS[saved](m.denoiser))
    b = VariationalDiffusion(WRAPPERS[loaded](other.denoiser))
    checkpoints.save_weights(tmp_path / "w", a)
    names = checkpoints.part(checkpoints.read(tmp_path / "w")[0], "ema").keys()
    assert names == m.state_dict().keys()
    checkpoints.load_weights(tmp_path / "w", b)
    assert all(torch.equal(p, q) for p, q in zip(m.parameters(), other.parameters(), strict=True))


def test_files_that_hold_the_names_of_a_wrapper_are_read(tmp_path):
    wrapped = VariationalDiffusion(torch.compile(model().denoiser)).state_dict()
    assert all("_orig_mod" in name for name in wrapped)
    checkpoints.write(tmp_path / "w", checkpoints.join(ema=wrapped), {})
    checkpoints.load_weights(tmp_path / "w", model())


def test_a_run_goes_on_with_or_without_a_wrapper(tmp_path):
    def go(wrap: Callable, steps: int) -> list[float]:
        m = model()
        m.denoiser = wrap(m.denoiser)
        run = training.fit(m, X, steps, 3, checkpoint=tmp_path / "run", progress=False)
        return [step.loss for step in run]

    go(nn.DataParallel, 2)
    assert len(go(lambda net: net, 4)) == 3


def test_names_of_a_networks_own_stay(tmp_path):
    a, b = Own(), Own()
    nn.init.normal_(a.weight)
    assert checkpoints.weights_of(a).keys() == a.state_dict().keys()
    checkpoints.save_weights(tmp_path / "w", a)
    checkpoints.load_weights(tmp_path / "w", b)
    assert torch.equal(a.weight, b.weight) and torch.equal(a.module.weight, b.module.weight)
    with pytest.raises(CheckpointError, match=r"module\.bias to be absent"):
        checkpoints.load_weights(tmp_path / "w", nn.Linear(2, 2))


# --- dtypes --------------------------------------------------------------------------------------

LOW, HIGH = [torch.bfloat16, torch.float16], [torch.float32, torch.float64]


def uses(m: VariationalDiffusion, data: torch.Tensor) -> dict[str, Callable]:
    """Everything that is done with a model."""
    one = partial(training.fit, m, data, 1, 3, progress=False)
    return {
        "loss": lambda: m.loss(data, generator=generator()),
        "elbo": lambda: torch.stack(m.elbo(data, generator=generator())),
        "layer": lambda: torch.stack(m.elbo(data, 3, generator())),
        "evaluate": lambda: torch.tensor(evaluate(m, data)[:5]),
        "sample": lambda: [*sample(m, (3, 2), 2, ddim_step, generator())][-1].z,
        "fit": lambda: torch.tensor(next(one()).loss),
    }


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("p", [NOISE, ENERGY], ids=lambda p: p.name)
@pytest.mark.parametrize("use", uses(model(), X))
def test_weights_in_low_precision_get_one_answer(dtype, p, use):
    m = model(p).to(dtype)
    for data in (X, X.double(), X.to(dtype)):
        with pytest.raises(ValueError, match=rf"^model: expected weights in .*, got {dtype}$"):
            uses(m, data)[use]()


@pytest.mark.parametrize("weights", HIGH)
@pytest.mark.parametrize("p", [NOISE, ENERGY], ids=lambda p: p.name)
@pytest.mark.parametrize("use", uses(model(), X))
def test_data_come_in_any_dtype_and_costs_in_that_of_the_weights(weights, p, use):
    data = X.bfloat16()  # the same numbers in all
    wanted = uses(model(p).to(weights), data.to(weights))[use]()
    for dtype in (*LOW, *HIGH):
        got = uses(model(p).to(weights), data.to(dtype))[use]()
        assert torch.equal(got, wanted) and got.dtype == wanted.dtype


@pytest.mark.parametrize("weights", HIGH)
def test_levels_come_in_any_dtype(weights):
    m = model(likelihood=Discretized(4)).to(weights)
    data = torch.randint(4, (6, 2), generator=generator())
    wanted = m.elbo(data, generator=generator())
    assert wanted.nelbo.dtype == weights
    for dtype in (torch.uint8, torch.int16, torch.float16, torch.float32, torch.float64):
        assert equal(m.elbo(data.to(dtype), generator=generator()), wanted)


@pytest.mark.parametrize("weights", HIGH)
def test_predictions_are_in_the_dtype_of_the_weights(weights):
    m = model().to(weights)
    for dtype in HIGH:
        for level in HIGH:
            assert m.predict(X.to(dtype), torch.zeros(6, dtype=level)).x.dtype == weights


@pytest.mark.parametrize("dtype", HIGH)
def test_without_weights_data_keep_their_dtype(dtype):
    for schedule in (Linear(), Learned()):
        m = VariationalDiffusion(lambda z, logsnr: z, schedule)
        assert m.loss(X.to(dtype)).dtype == dtype


@pytest.mark.parametrize("weights", HIGH)
@pytest.mark.parametrize("dtype", [*LOW, *HIGH])
def test_latent_models_compute_in_the_dtype_of_their_weights(weights, dtype):
    m = VAE(flat_encoder((1, 2), 4), flat_decoder(2, (1, 2)), GaussianObservation(), 2).to(weights)
    assert all(cost.dtype == weights for cost in m.elbo(X.reshape(6, 1, 2).to(dtype)))


# --- modes ---------------------------------------------------------------------------------------


def energies() -> list[nn.Module | Callable]:
    return [lambda z, logsnr: 0.5 * z.square().sum(1), Squares(), nets.Energy(MLP(2, 8, 1))]


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("schedule", [Linear(), Learned()], ids=lambda s: type(s).__name__)
def test_energies_work_in_inference_mode_as_without_gradients(k, schedule):
    m = VariationalDiffusion(energies()[k], schedule, ENERGY)
    logsnr = torch.linspace(-3, 3, 6)

    def all_of(mode: Callable) -> list[torch.Tensor]:
        with mode():
            data, level = X.clone(), logsnr.clone()  # inference tensors in inference mode
            costs = [*m.elbo(data, 3, generator()), m.loss(data, generator=generator())]
            walk = sample(m, (3, 2), 3, generator=generator())
            return [*costs, *m.predict(data, level), [*walk][-1].z,
                    torch.tensor(evaluate(m, data)[:5])]  # fmt: skip

    for a, b in zip(all_of(torch.no_grad), all_of(torch.inference_mode), strict=True):
        assert torch.equal(a, b) and not b.requires_grad
    assert m.predict(X, logsnr).x.requires_grad  # gradients are back


def test_an_energy_that_does_not_depend_on_z_is_named():
    m = VariationalDiffusion(lambda z, logsnr: logsnr.expand(len(z)), parameterization=ENERGY)
    with pytest.raises(ValueError, match=r"^denoiser\(z, logsnr\): expected energies that depend"):
        m.loss(X)
