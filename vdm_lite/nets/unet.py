"""A small U-Net for images: residual blocks at several resolutions, each half the one above.

Where the time goes: a channel at full resolution costs 16 times as much as one two levels down. So
the widths grow on the way down, skips are added rather than concatenated, a change of resolution is
one 2x2 convolution, and activations are channels_last, the layout that fast convolutions want.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.nets.embeddings import FourierFeatures, LogsnrEmbedding

# One level of this width, a block on each side: 0.7 GB of weights, five times that in training
# (gradients, two moments, an average). The memory grows with the square of the width.
WIDEST = 2048


class Block(nn.Module):
    """h + conv(silu((1 + scale) conv(norm(h)) + shift)), scale and shift linear in the embedding.

    The second convolution starts at zero, so that the block starts as the identity (eq-block).
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.outer = zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)  # (B, w, 1, 1)
        return h + self.outer(F.silu((1 + scale) * self.inner(self.norm(h)) + shift))


class Attention(nn.Module):
    """Self-attention among the pixels of h (eq-attention); starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(4, width)
        self.norm = group_norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.outer = zero(nn.Conv2d(width, width, 1))

    def forward(self, h: Tensor, _embedding: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(h)).flatten(2)  # (B, 3 w, H W)
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).mT.unbind(1)  # (B, heads, H W, w / heads)
        return self.outer(F.scaled_dot_product_attention(q, k, v).mT.reshape(h.shape))


class Level(nn.Module):
    """One resolution: blocks, what is added from below (at the lowest, by attention), blocks."""

    def __init__(self, widths: Sequence[int], blocks: int, embedding: int) -> None:
        super().__init__()
        width = widths[0]
        self.before = nn.ModuleList(Block(width, embedding) for _ in range(blocks))
        self.below = Below(widths, blocks, embedding) if len(widths) > 1 else Attention(width)
        self.after = nn.ModuleList(Block(width, embedding) for _ in range(blocks))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for block in self.before:
            h = block(h, embedding)  # (B, w, H, W)
        h = h + self.below(h, embedding)
        for block in self.after:
            h = block(h, embedding)
        return h


class Below(nn.Module):
    """Down to half the resolution, the level there, and up again: up(level(down(h)))."""

    def __init__(self, widths: Sequence[int], blocks: int, embedding: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(widths[0], widths[1], 2, stride=2)
        self.level = Level(widths[1:], blocks, embedding)
        self.up = nn.ConvTranspose2d(widths[1], widths[0], 2, stride=2)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.up(self.level(self.down(h), embedding))  # level: (B, w', H / 2, W / 2)


class UNet(nn.Module):
    """The denoiser (z, logsnr) -> y for images z (B, channels, H, W) and logsnr () or (B,).

    So the first loss is known (eq-first-loss). A convolution costs (eq-flops) multiply-adds.

    ``widths`` are the channels at full resolution, at half, at a quarter, ...; ``blocks`` residual
    blocks at each on the way down and as many on the way up; attention at the lowest. The default
    has 1.1 M parameters. ``exponents`` are those of ``FourierFeatures`` of z, none by default. y is
    zero at the start of training. Runs under autocast; the embedding of logsnr stays outside it.

    Raises ValueError for sizes far beyond what a machine could hold, see :func:`check_sizes`; when
    called, if z is no floating-point (B, channels, H, W) tensor, if H or W is no multiple
    of 2^(len(widths) - 1), or if logsnr is no floating-point () or (B,) tensor.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 1,
        exponents: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_sizes(channels, widths, blocks, exponents)
        self.channels, self.divisor = channels, 2 ** (len(widths) - 1)
        self.embedding = LogsnrEmbedding(max(widths))
        self.fourier = FourierFeatures(exponents)
        self.inner = nn.Conv2d(self.fourier.channels(channels), widths[0], 3, padding=1)
        self.level = Level(widths, blocks, max(widths))
        self.norm = group_norm(widths[0])
        self.outer = zero(nn.Conv2d(widths[0], channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor, logsnr: Tensor) -> Tensor:
        checks.inputs(z, logsnr, ("B", self.channels, "H", "W"))
        even = not any(size % self.divisor for size in z.shape[2:])
        expected = f"height and width divisible by {self.divisor}"
        checks.require(even, "z", expected, tuple(z.shape))
        h = self.fourier(z).contiguous(memory_format=torch.channels_last)
        h = self.level(self.inner(h), self.embedding(logsnr))  # (B, widths[0], H, W)
        return self.outer(F.silu(self.norm(h)))


def check_sizes(
    channels: int, widths: Sequence[int], blocks: int, exponents: Sequence[int]
) -> None:
    """Raise ``ValueError`` for bad sizes of a :class:`UNet`, before it is built in vain.

    At most 1000 channels, 100 blocks, and ten widths of at most ``WIDEST``.
    """
    checks.count("channels", channels, most=1000)
    checks.count("blocks", blocks, most=100)
    checks.counts("widths", widths, "one width or more", most=WIDEST)
    checks.require(len(widths) <= 10, "widths", "ten widths at most", len(widths))
    checks.exponents("exponents", exponents)


def group_norm(width: int) -> nn.GroupNorm:
    """Group normalization with 8 groups, or fewer if 8 does not divide the width."""
    return nn.GroupNorm(math.gcd(8, width), width)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all its parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
