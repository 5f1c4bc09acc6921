"""The peers' U-Nets of about 1 M parameters, and how each package trains its own.

Each peer becomes a ``VariationalDiffusion``: its network as a denoiser, its noise levels as a
schedule, its output as a row (a, b). ``theirs`` noises and denoises with the peer's own code;
``check`` compares the two and raises ``AssertionError`` where they differ.

A peer is imported when it is built, so that a process has only the one that it measures.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_lite import gaussian
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.parameterization import NOISE, VELOCITY, Parameterization
from vdm_lite.schedules import Schedule
from vdm_lite.training.config import ModelConfig

LEVELS = Discretized(256)
# The output of EDM preconditioning for data of variance 1 is the velocity with its sign changed.
MINUS_VELOCITY = Parameterization("minus velocity", gaussian.sigma, lambda v: -gaussian.alpha(v))


class AzulaUNet(nn.Module):
    """azula's U-Net with an embedding of the noise level, which it leaves to its caller."""

    def __init__(self) -> None:
        super().__init__()
        from azula.nn.layers import SineEncoding
        from azula.nn.unet import UNet

        self.embedding = nn.Sequential(SineEncoding(64), nn.Linear(64, 64), nn.SiLU())
        # Group normalization, as in ours, is the fastest of the norms that it offers.
        self.net = UNet(
            1,
            1,
            hid_channels=(32, 64, 120),
            hid_blocks=(1, 1, 1),
            mod_features=64,
            norm="group",
            groups=8,
        )

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        return self.net(z, self.embedding(level))


class DiffusersUNet(nn.Module):
    """diffusers' U-Net without attention but in the middle, as we have it."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net = UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 48, 72),
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
        )

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        return self.net(z, level).sample


class Example(NamedTuple):
    """What a peer's own code makes of data and noise at some of its times."""

    logsnr: Tensor
    """(B,); by the ratio of the peer's two coefficients."""
    z: Tensor
    """Its noisy data, scaled to alpha^2 + sigma^2 = 1."""
    x_hat: Tensor
    """Its denoised data."""


class Contender(NamedTuple):
    """A model to train by ``loss`` and to evaluate by the bound."""

    model: VariationalDiffusion
    loss: Callable[..., Tensor]
    """(levels (B, 1, H, W), generator) -> (B,)."""
    theirs: Callable[[VariationalDiffusion, Tensor, Tensor], Example] | None = None
    """(model, x, eps) -> what the peer says, with the network of this ``model``."""
    layers: int | None = None
    """T of the bound on the peer's own table of noise levels, if it has one."""


def vdm_lite() -> Contender:
    """Ours: the default model, trained on the bound's diffusion term."""
    model = ModelConfig().build()
    return Contender(model, model.loss)


def azula() -> Contender:
    """``KarrasDenoiser`` with ``VPSchedule`` and uniform times, as in azula's introduction."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    levels = VPSchedule()
    network = AzulaUNet().to(memory_format=torch.channels_last)
    denoiser = KarrasDenoiser(network, levels)

    def schedule(t: Tensor) -> Tensor:
        alpha, sigma = levels(t)
        return 2 * (alpha / sigma).log()

    def loss(data: Tensor, generator: torch.Generator) -> Tensor:
        x = LEVELS.encode(data)
        t = torch.rand(len(x), generator=generator)
        return denoiser.loss(x, t).expand(len(x))  # it reduces over the batch itself

    def theirs(model: VariationalDiffusion, x: Tensor, eps: Tensor) -> Example:
        t = torch.linspace(0, 1, len(x), dtype=x.dtype)
        alpha, sigma = (gaussian.expand(c, x) for c in levels(t))
        latent = alpha * x + sigma * eps
        x_hat = KarrasDenoiser(model.denoiser.network, levels)(latent, t).mean
        return Example(schedule(t), latent / (alpha.square() + sigma.square()).sqrt(), x_hat)

    denoise = Renamed(network, lambda logsnr: -logsnr / 2)
    return Contender(_model(denoise, schedule, MINUS_VELOCITY), loss, theirs)


def denoising_diffusion_pytorch() -> Contender:
    """``GaussianDiffusion`` as it comes: sigmoid schedule, velocity output, loss weight alpha^2."""
    with _without_its_trainer():
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(20, channels=1, dim_mults=(1, 2, 4)).to(memory_format=torch.channels_last)
    # Our data are in [-1, 1] already.
    diffusion = GaussianDiffusion(network, image_size=28, auto_normalize=False)
    table = Table.of(diffusion.sqrt_alphas_cumprod, diffusion.sqrt_one_minus_alphas_cumprod)

    def loss(data: Tensor, generator: torch.Generator) -> Tensor:
        x = LEVELS.encode(data)
        times = torch.randint(diffusion.num_timesteps, (len(x),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        return diffusion(x, noise=noise, times=times, loss_reduction="none")

    def theirs(model: VariationalDiffusion, x: Tensor, eps: Tensor) -> Example:
        times = table.some(len(x))
        z = diffusion.q_sample(x, times, eps)
        velocity = model.denoiser.network(z, times.to(x.dtype))
        return Example(table.logsnr[times], z, diffusion.predict_start_from_v(z, times, velocity))

    denoise = Renamed(network, table.position)
    return Contender(_model(denoise, table, VELOCITY), loss, theirs, table.layers)


def diffusers() -> Contender:
    """``UNet2DModel`` with ``DDPMScheduler`` and the error of the noise, as in its tutorial."""
    from diffusers import DDPMScheduler

    network = DiffusersUNet().to(memory_format=torch.channels_last)
    scheduler = DDPMScheduler(clip_sample=False)  # which only sampling would use
    table = Table.of(scheduler.alphas_cumprod.sqrt(), (1 - scheduler.alphas_cumprod).sqrt())

    def loss(data: Tensor, generator: torch.Generator) -> Tensor:
        x = LEVELS.encode(data)
        times = torch.randint(len(table.logsnr), (len(x),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        noisy = scheduler.add_noise(x, noise, times)
        error = F.mse_loss(network(noisy, times), noise, reduction="none")
        return error.flatten(1).mean(1)

    def theirs(model: VariationalDiffusion, x: Tensor, eps: Tensor) -> Example:
        times = table.some(len(x))
        z = scheduler.add_noise(x, eps, times)
        output = model.denoiser.network(z, times)
        parts = zip(output.split(1), times, z.split(1), strict=True)
        x_hat = torch.cat([scheduler.step(*part).pred_original_sample for part in parts])
        return Example(table.logsnr[times], z, x_hat)

    denoise = Renamed(network, table.position)
    return Contender(_model(denoise, table, NOISE), loss, theirs, table.layers)


CONTENDERS = {f.__name__: f for f in (vdm_lite, azula, denoising_diffusion_pytorch, diffusers)}


class Renamed(nn.Module):
    """A network that is told the noise level by another name than logsnr."""

    def __init__(self, network: nn.Module, name: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, z: Tensor, logsnr: Tensor) -> Tensor:
        return self.network(z, self.name(logsnr).expand(len(z)))


@dataclass(frozen=True)
class Table:
    """A falling table of noise levels, and what lies between them on straight lines.

    As a schedule it runs from the first level at t = 0 to the last at t = 1, and t = i / layers are
    its own levels. Networks that were trained on whole positions are asked between them: the bound
    in continuous time needs all levels, and their embeddings of time are smooth there.
    """

    logsnr: Tensor

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> "Table":
        """The table of a peer's two coefficients (T,)."""
        return cls(2 * (alpha.double().log() - sigma.double().log()))

    @property
    def layers(self) -> int:
        """Steps from the first level to the last."""
        return len(self.logsnr) - 1

    def __call__(self, t: Tensor) -> Tensor:
        """The level at times in [0, 1], same shape."""
        at = t.double() * self.layers
        i = at.floor().clamp(max=self.layers - 1).long()
        return torch.lerp(self.logsnr[i], self.logsnr[i + 1], at - i).to(t.dtype)

    def position(self, logsnr: Tensor) -> Tensor:
        """Where in the table levels stand, from 0 to T - 1, same shape: the inverse."""
        fallen = -logsnr.double()
        i = (torch.searchsorted(-self.logsnr, fallen) - 1).clamp(0, self.layers - 1)
        before, after = -self.logsnr[i], -self.logsnr[i + 1]
        return (i + (fallen - before) / (after - before)).to(logsnr.dtype)

    def some(self, n: int) -> Tensor:
        """``n`` positions from the first to the last."""
        return torch.linspace(0, self.layers, n).round().long()


@torch.no_grad()
def check(contender: Contender) -> None:
    """The conversion agrees with the peer's own code at times from its first to its last.

    In float64, up to the float32 in which the peers keep their coefficients.
    """
    if contender.theirs is None:
        return
    model = deepcopy(contender.model).double().eval()
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 9, 1, 28, 28, generator=generator, dtype=torch.float64)
    logsnr, z, x_hat = contender.theirs(model, x, eps)
    _agree("noisy data", gaussian.diffuse(x, logsnr, eps), z)
    # Compared as parts of z: at the noisy end x_hat itself is z's rounding, blown up.
    alpha = gaussian.expand(gaussian.alpha(logsnr), x)
    _agree("denoised data", alpha * model.predict(z, logsnr).x, alpha * x_hat)


def _agree(what: str, ours: Tensor, theirs: Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    assert difference < 1e-6, f"{what}: ours and the peer's differ by up to {difference:.2g}"


def _model(
    denoise: nn.Module, schedule: Schedule, output: Parameterization
) -> VariationalDiffusion:
    return VariationalDiffusion(denoise, schedule, output, LEVELS)


# What denoising_diffusion_pytorch imports for its Trainer, which we do not use.
TRAINER = {"torchvision": ("transforms", "utils"), "accelerate": ("Accelerator",)}
TRAINER |= {"ema_pytorch": ("EMA",)}


@contextmanager
def _without_its_trainer() -> Iterator[None]:
    """Empty modules under the names that the package imports at its top, but never calls here.

    torchvision's wheels do not load beside every build of torch, and the others are not needed.
    """
    stand_ins = {name: ModuleType(name) for name in TRAINER if name not in sys.modules}
    for name, module in stand_ins.items():
        module.__dict__.update(dict.fromkeys(TRAINER[name]))
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
