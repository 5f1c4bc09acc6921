"""A residual perceptron for data (B, dim), such as the 2-D toys."""

import torch.nn.functional as F
from torch import Tensor, nn

from vdm_lite import checks
from vdm_lite.nets.embeddings import LogsnrEmbedding


class Layer(nn.Module):
    """h + W_2 silu((1 + scale) * W_1 norm(h) + shift), scale and shift from the embedding."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, hidden)
        self.modulation = nn.Linear(hidden, 2 * hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        return h + self.outer(F.silu((1 + scale) * self.inner(self.norm(h)) + shift))


class MLP(nn.Module):
    """The denoiser (z, logsnr) -> y for z (B, dim) and logsnr () or (B,); y is zero at the start.

    Raises ValueError if z is no floating-point (B, dim) tensor or logsnr is neither () nor (B,).
    """

    def __init__(self, dim: int, hidden: int = 128, layers: int = 3) -> None:
        super().__init__()
        checks.count("dim", dim)
        checks.count("hidden", hidden)
        checks.size("layers", layers)
        self.dim = dim
        self.embedding = LogsnrEmbedding(hidden)
        self.inner = nn.Linear(dim, hidden)
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(layers))
        self.outer = nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, z: Tensor, logsnr: Tensor) -> Tensor:
        checks.inputs(z, logsnr, ("B", self.dim))
        embedding = self.embedding(logsnr)
        h = self.inner(z)
        for layer in self.layers:
            h = layer(h, embedding)
        return self.outer(F.silu(h))
