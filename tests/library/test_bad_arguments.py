"""Every public door of the library says in one line which argument is wrong, and how.

A table of calls that work: each of their arguments is replaced by things of another kind.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from vdm_lite import (
    elbo,
    gaussian,
    nets,
    observation,
    parameterization,
    quadrature,
    randomness,
    samplers,
    schedules,
    times,
    training,
    weighting,
)
from vdm_lite.augmentation import Augmentation
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import Normal
from vdm_lite.hierarchy import BottomUp, TopDown
from vdm_lite.likelihood import Discretized, Gaussian
from vdm_lite.parameterization import ENERGY, IMAGE, NOISE, Parameterization, Prediction
from vdm_lite.schedules import SCHEDULES, Linear
from vdm_lite.training import checkpoints, evaluation
from vdm_lite.training.config import ModelConfig, describe
from vdm_lite.vae import VAE

NAN = float("nan")
BAD = {
    "tensor": [None, "x", 3, 0.5, [1.0], torch.ones(3, 2).int(), torch.full((3, 2), NAN)],
    "levels": [None, "x", 3, [1.0], torch.full((3, 2), NAN), torch.full((3, 2), 4)],
    "function": [None, "noise", 3, [], Linear],
    "row": [None, "noise", 3, [], parameterization.edm, Parameterization],
    "likelihood": [None, "gaussian", 3, [], Gaussian, Discretized],
    "model": [None, "x", 3, [], nets.MLP(2), nn.Linear(2, 2), VariationalDiffusion],
    "module": [None, "x", 3, [], nn.Linear],
    "generator": ["x", 0, [], torch.Generator],
    "count": [None, "3", 2.5, True, [3], 0, -1, 10**20],
    "size": [None, "3", 2.5, True, [3], -1, 10**20],
    "seed": [None, "3", 2.5, True, [3], 10**20],
    "number": [None, "3", [3.0], NAN, float("inf")],
    "shape": [None, "32", 3, (), (3, 0), (3, 2.5), (3, None), {3, 2}],
    "exponents": [None, "6", 6, (-1,), (2.5,), (None,), (2000,)],
    "normal": [None, "x", 3, (torch.zeros(3, 2), torch.ones(3, 2))],
    "networks": [None, "x", 3, [], [None], ["x"], [nn.Linear]],
    "mapping": ["x", 3, [1]],
    "name": [None, "quadratic", 3, ["noise"], NOISE],
}


class Call(NamedTuple):
    """A call that works, and the kind of each argument to replace."""

    function: Callable
    arguments: dict[str, Any]
    kinds: dict[str, str]


def model() -> VariationalDiffusion:
    return VariationalDiffusion(nets.MLP(2, 8, 1), likelihood=Discretized(4))


LEVELS = torch.randint(4, (3, 2), generator=torch.Generator().manual_seed(0))
X, LOGSNR = torch.zeros(3, 2), torch.zeros(3)
ENDS = {"logsnr_max": 5.0, "logsnr_min": -5.0}
N = Normal(X, torch.ones(3, 2))
ROW = {"p": "row"}
CURVE = {"logsnr_max": "number", "logsnr_min": "number"}
FIT = {"model": model(), "data": LEVELS, "steps": 1, "batch_size": 2, "seed": 0, "lr": 1e-3}
FIT |= {"clip": 1.0, "warmup": 1, "decay": 0, "ema_decay": 0.9, "every": 1, "accumulate": 1}
SEEN = observation.Bernoulli()
SMALL = ModelConfig(levels=4, widths=(8,), exponents=())


def one_step(_prediction: Prediction, z: torch.Tensor, *_: Any) -> torch.Tensor:
    return z


CALLS = [
    Call(gaussian.alpha, {"logsnr": LOGSNR}, {"logsnr": "tensor"}),
    Call(gaussian.sigma, {"logsnr": LOGSNR}, {"logsnr": "tensor"}),
    Call(gaussian.diffuse, {"x": X, "logsnr": LOGSNR, "eps": X},
         dict.fromkeys(("x", "logsnr", "eps"), "tensor")),
    Call(gaussian.transition, {"logsnr_s": LOGSNR, "logsnr_t": LOGSNR},
         dict.fromkeys(("logsnr_s", "logsnr_t"), "tensor")),
    Call(gaussian.posterior, {"z_t": X, "x": X, "logsnr_s": LOGSNR, "logsnr_t": LOGSNR},
         dict.fromkeys(("z_t", "x", "logsnr_s", "logsnr_t"), "tensor")),
    Call(gaussian.kl, {"q": N, "p": N}, {"q": "normal", "p": "normal"}),
    Call(gaussian.draw, {"q": N, "generator": None}, {"q": "normal", "generator": "generator"}),
    Call(gaussian.log_prob, {"q": N, "z": X}, {"q": "normal", "z": "tensor"}),
    *(Call(curve, ENDS, CURVE) for curve in (schedules.Linear, schedules.FlowMatching,
                                             schedules.BetaLinear)),
    Call(schedules.Cosine, ENDS | {"shift": 0.0}, CURVE | {"shift": "number"}),
    Call(schedules.EDM, {"mean": 0.0, "std": 1.0}, {"mean": "number", "std": "number"}),
    Call(schedules.Learned, ENDS | {"units": 3}, CURVE | {"units": "count"}),
    Call(Linear(), {"t": torch.tensor([0.5])}, {"t": "tensor"}),
    Call(schedules.rate, {"schedule": Linear(), "t": torch.tensor([0.5])},
         {"schedule": "function", "t": "tensor"}),
    Call(schedules.ends, {"schedule": Linear()}, {"schedule": "function"}),
    Call(schedules.density, {"schedule": Linear(), "logsnr": LOGSNR},
         {"schedule": "function", "logsnr": "tensor"}),
    Call(schedules.levels, {"schedule": Linear(), "steps": 2, "like": X},
         {"schedule": "function", "steps": "count"}),
    Call(parameterization.target, {"p": NOISE, "x": X, "eps": X, "logsnr": LOGSNR},
         ROW | dict.fromkeys(("x", "eps", "logsnr"), "tensor")),
    Call(parameterization.solve, {"p": NOISE, "y": X, "z": X, "logsnr": LOGSNR},
         ROW | dict.fromkeys(("y", "z", "logsnr"), "tensor")),
    Call(parameterization.determinant, {"p": NOISE, "logsnr": LOGSNR}, ROW | {"logsnr": "tensor"}),
    Call(parameterization.edm, {"data_std": 0.5}, {"data_std": "number"}),
    Call(Parameterization, {"name": "x", "a": torch.ones_like, "b": torch.zeros_like},
         {"a": "function", "b": "function"}),
    Call(VariationalDiffusion,
         {"denoiser": one_step, "schedule": Linear(), "parameterization": NOISE,
          "likelihood": Gaussian()},
         {"denoiser": "function", "schedule": "function", "parameterization": "row",
          "likelihood": "likelihood"}),
    Call(model().predict, {"z": X, "logsnr": LOGSNR}, {"z": "tensor", "logsnr": "tensor"}),
    Call(model().loss,
         {"data": LEVELS, "weighting": weighting.elbo, "times": times.uniform, "generator": None},
         {"data": "levels", "weighting": "function", "times": "function",
          "generator": "generator"}),
    Call(VariationalDiffusion(nets.MLP(2)).loss, {"data": X}, {"data": "tensor"}),
    Call(model().elbo, {"data": LEVELS, "steps": 3, "generator": None},
         {"data": "levels", "generator": "generator"}),
    Call(samplers.sample,
         {"model": model(), "shape": (3, 2), "steps": 2, "step": samplers.ddim_step,
          "generator": None},
         {"model": "model", "shape": "shape", "steps": "count", "step": "function",
          "generator": "generator"}),
    Call(evaluation.evaluate,
         {"model": model(), "data": LEVELS, "draws": 1, "steps": 2, "batch_size": 2, "seed": 0},
         {"model": "model", "data": "levels", "draws": "count", "batch_size": "count",
          "seed": "seed"}),
    Call(training.fit, FIT,
         {"model": "model", "data": "levels", "steps": "count", "batch_size": "count",
          "seed": "seed", "lr": "number", "clip": "number", "warmup": "size", "decay": "size",
          "ema_decay": "number", "every": "count", "accumulate": "count"}),
    *(Call(training.fit, FIT | {name: None}, {name: kind}) for name, kind in
      (("loss", "function"), ("keep", "module"), ("stop", "function"), ("config", "mapping"))),
    Call(training.batch_indices, {"k": 0, "examples": 4, "batch_size": 2, "seed": 0},
         {"k": "size", "examples": "count", "batch_size": "count", "seed": "seed"}),
    *(Call(sampler, {"n": 3, "generator": None}, {"n": "count", "generator": "generator"})
      for sampler in (times.uniform, times.low_discrepancy, times.stratified)),
    Call(times.normalized, {"f": torch.ones_like, "schedule": Linear()},
         {"f": "function", "schedule": "function"}),
    Call(times.Importance,
         {"density": times.normalized(torch.ones_like, Linear()), "schedule": Linear(),
          "base": times.uniform, "bins": 10},
         {"density": "function", "schedule": "function", "base": "function", "bins": "count"}),
    Call(times.Adaptive, {"bins": 10, "moment": 1, "base": times.uniform, "decay": 0.9},
         {"bins": "count", "moment": "count", "base": "function", "decay": "number"}),
    Call(weighting.is_monotone, ENDS | {"weighting": weighting.elbo},
         CURVE | {"weighting": "function"}),
    Call(weighting.implied,
         {"schedule": Linear(), "parameterization": NOISE, "explicit": weighting.elbo},
         {"schedule": "function", "parameterization": "row", "explicit": "function"}),
    Call(weighting.p2, {"gamma": 1.0}, {"gamma": "number"}),
    Call(weighting.min_snr, {"gamma": 1.0}, {"gamma": "number"}),
    Call(weighting.sigmoid, {"bias": 1.0}, {"bias": "number"}),
    Call(weighting.logit_normal, {"mean": 0.0, "std": 1.0}, {"mean": "number", "std": "number"}),
    Call(elbo.bits_per_dim, {"nats": X, "dims": 2}, {"dims": "count"}),
    Call(elbo.prior, {"x": X, "logsnr_1": LOGSNR}, {"x": "tensor", "logsnr_1": "tensor"}),
    Call(elbo.diffusion_from_mmse, {"mmse": torch.ones_like, "schedule": Linear(), "steps": 2},
         {"mmse": "function", "schedule": "function"}),
    Call(elbo.weighted_from_mmse,
         {"mmse": torch.ones_like, "weighting": weighting.elbo, "schedule": Linear()},
         {"mmse": "function", "weighting": "function", "schedule": "function"}),
    Call(quadrature.interval, {"low": 0.0, "high": 1.0}, {"low": "number", "high": "number"}),
    Call(Gaussian().encode, {"data": X}, {"data": "tensor"}),
    Call(Discretized, {"levels": 4}, {"levels": "count"}),
    Call(Discretized(4).encode, {"data": LEVELS}, {"data": "levels"}),
    Call(randomness.Share, {"generator": torch.Generator(), "index": 0, "shares": 2},
         {"index": "size", "shares": "count"}),
    Call(randomness.of, {"generator": None, "like": X}, {"generator": "generator"}),
    Call(nets.MLP, {"dim": 2, "hidden": 8, "layers": 1},
         {"dim": "count", "hidden": "count", "layers": "size"}),
    Call(nets.UNet, {"channels": 1, "widths": (8,), "blocks": 1, "exponents": ()},
         {"channels": "count", "widths": "shape", "blocks": "count", "exponents": "exponents"}),
    Call(nets.FourierFeatures, {"exponents": (1,)}, {"exponents": "exponents"}),
    Call(nets.LogsnrEmbedding, {"dim": 8}, {"dim": "count"}),
    Call(nets.Energy, {"network": nets.MLP(2)}, {"network": "function"}),
    Call(nets.perceptron, {"inputs": 2, "outputs": 2, "width": 3, "depth": 1},
         dict.fromkeys(("inputs", "outputs", "width"), "count") | {"depth": "size"}),
    Call(nets.flat_encoder, {"shape": (1, 2), "outputs": 2}, {"shape": "shape"}),
    Call(nets.flat_decoder, {"inputs": 2, "shape": (1, 2)}, {"shape": "shape"}),
    Call(nets.Rungs, {"shape": (1, 2), "sizes": (2,)}, {"shape": "shape", "sizes": "shape"}),
    Call(VAE, {"encoder": nn.Linear(2, 4), "decoder": nn.Linear(2, 2), "observation": SEEN,
               "latents": 2},
         {"encoder": "function", "decoder": "function", "observation": "likelihood",
          "latents": "count"}),
    Call(TopDown, {"encoder": nn.Linear(2, 4), "decoders": [nn.Linear(2, 2)], "observation": SEEN,
                   "sizes": (2,)},
         {"encoder": "function", "decoders": "networks", "observation": "likelihood",
          "sizes": "shape"}),
    Call(BottomUp, {"encoders": [nn.Linear(2, 4)], "decoders": [nn.Linear(2, 2)],
                    "observation": SEEN, "sizes": (2,)},
         {"encoders": "networks", "decoders": "networks"}),
    Call(Augmentation, ENDS | {"weighting": weighting.elbo}, CURVE | {"weighting": "function"}),
    Call(nets.MLP(2), {"z": X, "logsnr": LOGSNR}, {"z": "tensor", "logsnr": "tensor"}),
    Call(ModelConfig, ENDS | {"channels": 1, "levels": 4, "widths": (8,), "blocks": 1,
                              "exponents": (), "output": "noise", "schedule": "linear",
                              "train_ends": False},
         CURVE | {"channels": "count", "levels": "count", "widths": "shape", "blocks": "count",
                  "exponents": "exponents", "output": "name", "schedule": "name"}),
    Call(describe, {"model": SMALL, "images": LEVELS[:, :, None, None][:, :1]},
         {"model": "model", "images": "shape"}),
    Call(checkpoints.save_weights, {"path": "", "model": nn.Linear(1, 1)}, {"model": "module"}),
]  # fmt: skip


def cases() -> Iterator[Any]:
    for call in CALLS:
        name = getattr(call.function, "__qualname__", type(call.function).__name__)
        for argument, kind in call.kinds.items():
            yield pytest.param(call, argument, BAD[kind], id=f"{name}-{argument}")


@pytest.mark.parametrize(("call", "argument", "bad"), cases())
def test_each_argument_of_another_kind_is_named_in_one_line(call, argument, bad):
    if call.function is not checkpoints.save_weights:  # would write
        call.function(**call.arguments)  # works
    optional = call.arguments[argument] is None
    for value in bad:
        if value is None and optional:
            continue
        with pytest.raises(ValueError) as caught:
            call.function(**call.arguments | {argument: value})
        said = rf"\b{argument}\b[^\n]*: expected [^\n]+, got [^\n]+"
        assert re.fullmatch(said, str(caught.value)), (value, str(caught.value))


# --- what a callable returns ---------------------------------------------------------------------

ANSWERS = [None, "x", 1.0, (X, X), [X], X.int(), X[:2], X[:, 0], X.unsqueeze(0), X + NAN]
"""Of a callable that is to return finite floats (3, 2)."""


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda v: getattr(v, "shape", v))
@pytest.mark.parametrize("p", [NOISE, ENERGY], ids=lambda p: p.name)
def test_a_denoiser_that_returns_anything_else_is_named(p, answer):
    if p is ENERGY and getattr(answer, "shape", None) == (3,):
        answer = X[0, 0]
    m = VariationalDiffusion(lambda z, logsnr: answer, parameterization=p)
    said = r"denoiser\(z, logsnr\): expected [^\n]+, got [^\n]+"
    calls = [m.loss, m.elbo, partial(m.elbo, steps=3), partial(evaluation.evaluate, m)]
    calls += [partial(m.predict, logsnr=LOGSNR), lambda _: [*samplers.sample(m, (3, 2), 2)]]
    for call in calls:
        with pytest.raises(ValueError) as caught:
            call(X)
        assert re.fullmatch(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda v: getattr(v, "shape", v))
def test_a_step_that_returns_anything_else_is_named(answer):
    m = VariationalDiffusion(lambda z, logsnr: z)
    said = r"step\(prediction, z_t, logsnr_s, source\): expected [^\n]+, got [^\n]+"
    with pytest.raises(ValueError) as caught:
        list(samplers.sample(m, (3, 2), 2, lambda *_: answer))
    assert re.fullmatch(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "answer", [None, "x", 0.5, LOGSNR, (LOGSNR,), (LOGSNR, 1.0), (LOGSNR[:2], LOGSNR + 1),
               (LOGSNR, LOGSNR.int()), (LOGSNR + NAN, LOGSNR)]
)  # fmt: skip
def test_times_that_are_none_are_named(answer):
    m = VariationalDiffusion(lambda z, logsnr: z)
    with pytest.raises(ValueError) as caught:
        m.loss(X, times=lambda n, _: answer)
    said = r"times\(n, \.\.\.\)(\.[tp])?: expected [^\n]+, got [^\n]+"
    assert re.fullmatch(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("answer", [None, "x", 1.0, (LOGSNR,), LOGSNR.int(), LOGSNR[:2]])
@pytest.mark.parametrize("name", ["weighting", "schedule", "loss", "a"])
def test_other_callables_that_return_anything_else_are_named(name, answer):
    m = VariationalDiffusion(nets.MLP(2))
    calls = {
        "weighting": lambda: m.loss(X, weighting=lambda logsnr: answer),
        "schedule": lambda: VariationalDiffusion(m.denoiser, lambda t: answer),
        "loss": lambda: list(training.fit(m, X, 1, 3, loss=lambda *_, **__: answer)),
        "a": lambda: parameterization.target(
            Parameterization("row", lambda logsnr: answer, torch.ones_like), X, X, LOGSNR
        ),
    }
    if name in ("loss", "a") and isinstance(answer, torch.Tensor) and len(answer) == 3:
        return  # whole numbers of the right shape are weights and costs, too
    with pytest.raises(ValueError) as caught:
        calls[name]()
    said = rf"{name}(\((logsnr|t)\))?: expected [^\n]+, got [^\n]+"
    assert re.fullmatch(said, str(caught.value)), str(caught.value)


# --- numbers out of all bounds -------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e5, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_of_an_absurd_scale_are_refused(scale, dtype):
    data = scale * torch.ones(3, 2, dtype=dtype)
    m = VariationalDiffusion(nets.MLP(2))
    for call in (m.loss, m.elbo, partial(evaluation.evaluate, m),
                 lambda x: training.fit(m, x, 1, 2)):  # fmt: skip
        with pytest.raises(ValueError, match=r"^data: expected numbers up to 10000, got 1e\+"):
            call(data)
    assert m.loss(data / scale * 9999).isfinite().all()


@pytest.mark.parametrize("end", [1000.0, 81.0, -1000.0])
@pytest.mark.parametrize("curve", SCHEDULES.values())
def test_ends_beyond_all_levels_name_themselves(curve, end):
    name = "logsnr_max" if end > 0 else "logsnr_min"
    with pytest.raises(ValueError, match=rf"^{name}: expected a number from -80 to 80, got {end}"):
        curve(**{name: end})


NORMAL = (schedules.EDM, schedules.LogitNormal)


@pytest.mark.parametrize("curve", [c for c in SCHEDULES.values() if c not in NORMAL])
def test_costs_are_finite_on_the_widest_schedules(curve):
    """Between the allowed ends nothing overflows in float32, but the tails of a normal."""
    m = VariationalDiffusion(nets.MLP(2), curve(logsnr_max=80.0, logsnr_min=-80.0), IMAGE)
    assert m.loss(torch.ones(64, 2)).isfinite().all()
    assert m.elbo(torch.ones(64, 2)).reconstruction.isfinite().all()


def test_a_bound_of_a_broken_network_is_no_number():
    m = VariationalDiffusion(nets.MLP(2, 8, 1))
    nn.init.constant_(m.denoiser.outer.bias, NAN)
    with pytest.raises(ValueError, match=r"^denoiser\(z, logsnr\): expected finite numbers"):
        evaluation.evaluate(m, X)


def test_training_reads_what_is_not_finite_in_its_loss(tmp_path):
    """Not in the network, where one process of several would stop alone; the batch is kept."""
    m = VariationalDiffusion(nets.MLP(2, 8, 1))
    nn.init.constant_(m.denoiser.outer.bias, NAN)
    run = training.fit(m, X, 1, 2, checkpoint=tmp_path / "run", progress=False)
    with pytest.raises(FloatingPointError, match="step 1: expected a finite loss"):
        list(run)
    assert (tmp_path / "run.failed.safetensors").exists()
    with pytest.raises(ValueError, match="denoiser"):  # and the check is there again
        m.loss(X)


# --- NumPy's numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_whole_numbers_of_numpy_are_whole_numbers(kind, tmp_path):
    def results(number: Callable, file: Path) -> list[Any]:
        torch.manual_seed(0)
        m, three = model(), number(3)
        fit = {"steps": three, "batch_size": three, "seed": three, "every": three}
        fit |= {"warmup": three, "decay": number(1), "accumulate": number(1)}
        steps = list(training.fit(m, LEVELS, **fit, checkpoint=file, progress=False,
                                  config={"dim": number(2), "lr": np.float32(0.5)}))  # fmt: skip
        report = evaluation.evaluate(m, LEVELS, three, three, three, three)
        source = torch.Generator().manual_seed(3)
        *_, last = samplers.sample(m, (three, number(2)), three, generator=source)
        cost = m.elbo(LEVELS, three, torch.Generator().manual_seed(3)).diffusion.tolist()
        drawn = times.stratified(three, torch.Generator().manual_seed(0)).t.tolist()
        order = training.batch_indices(three, three, three, three).tolist()
        return [[s[:4] for s in steps], report, last.z.tolist(), cost, drawn, order]

    assert results(kind, tmp_path / "a") == results(int, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    made = ModelConfig(kind(1), kind(4), (kind(8),), kind(1), (kind(1),))
    assert made == ModelConfig(1, 4, (8,), 1, (1,)) and made.build().likelihood.levels == 4
    checkpoints.save_weights(tmp_path / "w", made.build(), {"model": made.plain()})
    assert checkpoints.read_metadata(tmp_path / "w")["config"]["model"]["widths"] == [8]
