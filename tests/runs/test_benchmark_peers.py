"""What `make bench` says of its peers rests on a conversion: it must be theirs to float error."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from conftest import missing

from vdm_lite import rosetta
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import diffuse
from vdm_lite.parameterization import IMAGE, NOISE, target

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import peers

PEERS = [name for name in peers.CONTENDERS if name != "vdm_lite"]
LINEAR_BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)


@pytest.fixture(params=PEERS)
def peer(request):
    """One peer, built."""
    if importlib.util.find_spec(request.param) is None:
        missing(f"{request.param} is not installed: make test installs it")
    return peers.CONTENDERS[request.param]()


def test_conversion_is_the_peers_own(peer):
    peers.check(peer)


def test_check_notices_another_output(peer):
    model = peer.model
    other = VariationalDiffusion(model.denoiser, model.schedule, IMAGE, model.likelihood)
    with pytest.raises(AssertionError, match="denoised data"):
        peers.check(peer._replace(model=other))


def test_check_notices_another_time(peer):
    peer.model.denoiser.name = lambda logsnr, name=peer.model.denoiser.name: name(logsnr) + 0.1
    with pytest.raises(AssertionError, match="denoised data"):
        peers.check(peer)


def test_check_notices_other_noise_levels(peer):
    def shifted(*arguments):
        example = peer.theirs(*arguments)
        return example._replace(logsnr=example.logsnr + 0.01)

    with pytest.raises(AssertionError, match="noisy data"):
        peers.check(peer._replace(theirs=shifted))


def test_losses_are_per_example_and_train_the_network(peer):
    data = torch.randint(256, (4, 1, 28, 28))
    loss = peer.loss(data, generator=torch.Generator().manual_seed(0))
    assert loss.shape == (4,)
    loss.mean().backward()
    assert all(p.grad is not None for p in peer.model.parameters())


def test_sizes_are_alike():
    for name, build in peers.CONTENDERS.items():
        if importlib.util.find_spec(name) is not None:
            size = sum(p.numel() for p in build().model.parameters())
            assert size == pytest.approx(1e6, rel=0.2), name


def test_table_holds_its_levels_and_inverts():
    logsnr = rosetta.from_betas(LINEAR_BETAS)
    table = peers.Table(logsnr)
    t = torch.arange(1000, dtype=torch.float64) / table.layers
    torch.testing.assert_close(table(t), logsnr)
    between = torch.linspace(0, 1, 777, dtype=torch.float64)
    torch.testing.assert_close(table.position(table(between)) / table.layers, between)
    # At its own levels a network is told the whole positions that it was trained on.
    torch.testing.assert_close(table.position(logsnr), torch.arange(1000, dtype=torch.float64))


def test_default_loss_of_denoising_diffusion_pytorch_is_the_error_of_the_noise():
    """A velocity error weighed by alpha^2: what the table says of it, in our words."""
    name = "denoising_diffusion_pytorch"
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed: make test installs it")
    peer = peers.CONTENDERS[name]()
    data = torch.randint(256, (6, 1, 28, 28))
    generator = torch.Generator().manual_seed(0)
    loss = peer.loss(data, generator=generator)
    generator.manual_seed(0)
    times = torch.randint(1000, (6,), generator=generator)
    x = peer.model.likelihood.encode(data)
    eps = torch.randn(x.shape, generator=generator)
    logsnr = peer.model.schedule.logsnr[times].float()
    prediction = peer.model.predict(diffuse(x, logsnr, eps), logsnr)
    error = prediction.eps - target(NOISE, x, eps, logsnr)
    torch.testing.assert_close(error.square().flatten(1).mean(1), loss, rtol=1e-3, atol=1e-5)
