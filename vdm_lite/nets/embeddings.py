"""How a denoiser sees its two inputs: Fourier features of z_t, a sinusoidal embedding of logsnr.

A denoiser is any module ``(z, logsnr) -> y``: z is (B, ...), logsnr () or (B,), y has z's shape.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from vdm_lite import checks


class FourierFeatures(nn.Module):
    r"""Append sin(2^n pi z), cos(2^n pi z) for each n in ``exponents`` to z, on the channel axis.

    They let a convolution see where in the grid of levels a number lies (eq-fourier-features), as
    long as noise leaves them a part of their amplitude (eq-feature-fade). Data in [-1, 1] with K
    levels are 2 / K apart: the exponent log2(K) has a period of one level, log2(K) - 1 of two. The
    default is for 8-bit images (Kingma et al. 2021).

    (B, C, ...) -> (B, C (1 + 2 len(exponents)), ...). Raises ``ValueError`` for exponents other
    than whole numbers from 0 to 20.
    """

    def __init__(self, exponents: Sequence[int] = (7, 8)) -> None:
        super().__init__()
        checks.exponents("exponents", exponents)
        self.exponents = tuple(exponents)

    def channels(self, channels: int) -> int:
        """The number of channels that come out for ``channels`` going in."""
        return channels * (1 + 2 * len(self.exponents))

    def forward(self, z: Tensor) -> Tensor:
        angles = [2.0**n * math.pi * z for n in self.exponents]
        return torch.cat([z, *(f(angle) for angle in angles for f in (torch.sin, torch.cos))], 1)


class LogsnrEmbedding(nn.Module):
    r"""Embed logsnr: sinusoids, then a two-layer perceptron. () or (B,) -> (1, dim) or (B, dim).

    The sinusoids are sin(w_k logsnr), cos(w_k logsnr) with w_k = 80^{k / (n - 1)} / 20, k < n = 32:
    from 1/20, where sin is monotone over all of [-20, 20], to 4, a period of about 1.6 nats
    (eq-sinusoids). Computed outside autocast: in bfloat16 the fast ones would lose the position.
    """

    sinusoids = 32

    def __init__(self, dim: int) -> None:
        super().__init__()
        checks.count("dim", dim)
        self.mlp = nn.Sequential(
            nn.Linear(2 * self.sinusoids, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU()
        )

    def forward(self, logsnr: Tensor) -> Tensor:
        with _no_autocast(logsnr.device.type):
            k = torch.arange(self.sinusoids, device=logsnr.device, dtype=logsnr.dtype)
            angle = logsnr.reshape(-1, 1) * (80 ** (k / (self.sinusoids - 1)) / 20)
            waves = torch.cat([angle.sin(), angle.cos()], 1)
            return self.mlp(waves.to(self.mlp[0].weight.dtype))  # type: ignore[arg-type]


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast switched off; meta tensors know none. (torch 2.8 compiles no other question.)"""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
