"""Which examples come when: the k-th batch is a function of ``(seed, k)``."""

from functools import lru_cache

import torch
from torch import Tensor

from vdm_lite import checks


class Batches:
    """The batches of a run, where a weight of the model is; floats in its dtype."""

    def __init__(self, data: Tensor, size: int, seed: int, weight: Tensor) -> None:
        self.data, self.size, self.seed = data, size, seed
        self.device = weight.device
        self.dtype = weight.dtype if data.is_floating_point() else data.dtype

    def __getitem__(self, k: int) -> Tensor:
        """The k-th batch (k = 0, 1, …), for all processes."""
        index = batch_indices(k, len(self.data), self.size, self.seed)
        rows = self.data[index.to(self.data.device, non_blocking=True)]
        return rows.to(self.device, self.dtype, non_blocking=True)


def batch_indices(k: int, examples: int, batch_size: int, seed: int) -> Tensor:
    """Which examples are in the k-th batch (k = 0, 1, …): shape (batch_size,).

    Each epoch is one shuffle, a function of ``(seed, epoch)``; what is left at its end and does not
    fill a batch waits for the next one.
    """
    k, seed = checks.count("k", k, least=0), checks.seed("seed", seed)
    examples = checks.count("examples", examples)
    batch_size = checks.count("batch_size", batch_size)
    checks.require(batch_size <= examples, "batch_size", f"at most {examples}", batch_size)
    epoch, position = divmod(k, examples // batch_size)
    start = position * batch_size
    return _epoch_order(epoch, examples, seed)[start : start + batch_size]


@lru_cache(maxsize=1)
def _epoch_order(epoch: int, examples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator, device="cpu")
