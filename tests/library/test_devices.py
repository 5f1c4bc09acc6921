"""Nothing in the core makes a tensor on the wrong device or of the wrong dtype.

The ``meta`` device holds shapes without numbers: a tensor that the code makes on the CPU by
mistake cannot mix with it, so these tests fail here and not on the reader's GPU.
"""

import pytest
import torch

from vdm_lite import elbo, gaussian, nets, observation, samplers, times, training, weighting
from vdm_lite.aggregate import AggregatePosterior
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import Normal
from vdm_lite.hierarchy import BottomUp, TopDown, merge
from vdm_lite.likelihood import Discretized, Gaussian
from vdm_lite.nets import Rungs, UNet, flat_decoder, flat_encoder, perceptron
from vdm_lite.observation import Bernoulli, DiscretizedLogistic
from vdm_lite.parameterization import ENERGY, FLOW, IMAGE, NOISE, SCORE, VELOCITY, edm
from vdm_lite.randomness import Source
from vdm_lite.schedules import (
    EDM,
    BetaLinear,
    Cosine,
    FlowMatching,
    Learned,
    Linear,
    LogitNormal,
    rate,
)
from vdm_lite.vae import VAE

CURVES = [Linear(), Cosine(), FlowMatching(), EDM(), LogitNormal(), BetaLinear()]
OUTPUTS = [IMAGE, NOISE, SCORE, VELOCITY, FLOW, edm()]


class Scale(torch.nn.Module):
    """A denoiser with one parameter, so that the model has a device."""

    def __init__(self, **options):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones((), **options))

    def forward(self, z, logsnr):
        return self.factor * z


class Energy(Scale):
    def forward(self, z, logsnr):
        return self.factor * z.square().flatten(1).sum(1)


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("p", OUTPUTS, ids=lambda p: p.name)
def test_loss_bound_and_training_step_stay_on_the_device(schedule, p):
    model = VariationalDiffusion(Scale(device="meta"), schedule, p)
    x = torch.empty(4, 3, device="meta")
    for weight in (weighting.elbo, weighting.edm_monotonic, weighting.min_snr()):
        for sampler in (times.uniform, times.low_discrepancy):
            assert model.loss(x, weight, sampler).device.type == "meta"
    costs = [cost for steps in (None, 7) for cost in model.elbo(x, steps)]
    assert all(cost.device.type == "meta" for cost in costs)
    optimizer = torch.optim.AdamW(model.parameters())
    model.loss(x).mean().backward()
    optimizer.step()
    assert model.denoiser.factor.grad.device.type == "meta"


def test_energy_stays_on_the_device():
    model = VariationalDiffusion(Energy(device="meta"), parameterization=ENERGY)
    model.loss(torch.empty(4, 3, device="meta")).mean().backward()
    assert model.denoiser.factor.grad.device.type == "meta"
    with torch.device("meta"):
        network = nets.Energy(UNet(1, (8, 16)))
    model = VariationalDiffusion(network, parameterization=ENERGY)
    training.backward(model, model.loss(torch.empty(2, 1, 8, 8, device="meta")))


def test_learned_schedule_stays_on_the_device():
    model = VariationalDiffusion(Scale(), Learned(train_ends=True)).to("meta")
    costs = model.elbo(torch.empty(4, 3, device="meta"))
    training.backward(model, costs.nelbo)
    assert all(p.grad.device.type == "meta" for p in model.parameters())
    assert model.schedule(torch.empty(4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("base", [times.uniform, times.low_discrepancy, times.stratified])
def test_samplers_of_time_stay_on_the_device(base):
    model, x = VariationalDiffusion(Scale(device="meta")), torch.empty(4, 3, device="meta")
    even = times.Importance(lambda logsnr: torch.ones_like(logsnr) / 18.3, Linear(), base)
    for sampler in (even, times.Adaptive(base=base).to("meta")):
        assert model.loss(x, times=sampler).device.type == "meta"
        t, p = sampler(4, Source(device="meta"))
        assert t.device.type == p.device.type == "meta"


def test_implied_weights_stay_on_the_device():
    logsnr = torch.empty(4, device="meta")
    for recipe in weighting.RECIPES.values():
        assert recipe.implied()(logsnr).device.type == "meta"
        assert recipe.weight(logsnr).device.type == "meta"


def test_unet_on_integer_levels_stays_on_the_device():
    with torch.device("meta"):
        model = VariationalDiffusion(UNet(), likelihood=Discretized(17))
    data = torch.empty(2, 1, 8, 8, dtype=torch.uint8, device="meta")
    costs = model.elbo(data, 5)
    assert all(cost.device.type == "meta" for cost in costs)
    model.loss(data).sum().backward()


@pytest.mark.parametrize("step", [samplers.ancestral_step, samplers.ddim_step])
def test_sampling_stays_on_the_device(step):
    model = VariationalDiffusion(Scale(device="meta"))
    for state in samplers.sample(model, (2, 3), 4, step):
        assert state.z.device.type == state.x_hat.device.type == "meta"


def test_likelihoods_stay_on_the_device():
    z, logsnr = torch.empty(2, 3, device="meta"), torch.empty(2, device="meta")
    for likelihood, data in ((Gaussian(), z), (Discretized(9), z.long())):
        assert likelihood.log_prob(data, z, logsnr).device.type == "meta"
        assert likelihood.decode(likelihood.encode(data)).device.type == "meta"


def latent_models():
    seen, shape, sizes = DiscretizedLogistic(17), (1, 8, 8), (4, 3, 2)
    yield VAE(flat_encoder(shape, 8), flat_decoder(4, shape, 2), seen, 4)
    decoders = [flat_decoder(4, shape, 2), perceptron(3, 8), perceptron(2, 6)]
    yield TopDown(Rungs(shape, sizes), decoders, seen, sizes)
    encoders = [flat_encoder(shape, 8), perceptron(4, 6), perceptron(3, 4)]
    yield BottomUp(encoders, decoders, seen, sizes)


@pytest.mark.parametrize("model", latent_models(), ids=lambda m: type(m).__name__)
def test_latent_models_stay_on_the_device(model):
    model = model.to("meta")
    data = torch.empty(2, 1, 8, 8, dtype=torch.uint8, device="meta")
    costs = [*model.elbo(data), model.importance_bound(data, 2), model.generate(2)]
    assert all(cost.device.type == "meta" for cost in costs)
    model.loss(data).sum().backward()


def test_gaussians_stay_on_the_device():
    a = Normal(torch.empty(2, 3, device="meta"), torch.empty((), device="meta"))
    for value in (gaussian.draw(a), gaussian.log_prob(a, a.mean), *merge(a, a)):
        assert value.device.type == "meta"
    q = AggregatePosterior(Normal(a.mean, a.mean))
    assert q.sample(4).device.type == q.log_prob(a.mean).device.type == "meta"


def test_observations_stay_on_the_device():
    output = torch.empty(2, 3, device="meta")
    for seen, data in ((observation.Gaussian(), output), (Bernoulli(), output.long())):
        assert seen.log_prob(data, output).device.type == "meta"
        assert seen.encode(data).device.type == seen.mean(output).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_dtype_of_the_data_is_kept(dtype):
    model = VariationalDiffusion(Scale(dtype=dtype))
    x = torch.randn(4, 3, dtype=dtype)
    assert model.loss(x).dtype == dtype
    assert all(cost.dtype == dtype for cost in model.elbo(x, 3))
    assert all(state.z.dtype == dtype for state in samplers.sample(model, (2, 3), 2))
    for t in (torch.rand(4, dtype=dtype), torch.rand((), dtype=dtype)):
        for schedule in CURVES:
            assert all(value.dtype == dtype for value in rate(schedule, t))
            assert all(value.shape == t.shape for value in rate(schedule, t))
    q = gaussian.posterior(x, x, *torch.tensor([1.0, 0.0], dtype=dtype))
    assert q.mean.dtype == q.var.dtype == elbo.prior(x, q.var).dtype == dtype
