r"""Random numbers that any language can repeat: a block cipher of a counter.

:class:`Counter` takes no state from one number to the next: the i-th number of the k-th call is a
function of (seed, k, i) alone. The cipher is Threefry-2x32 with 20 rounds (Salmon et al. 2011), all
additions, rotations and exclusive ors of 32-bit words, so the same lines in JavaScript
(``widgets/js/lib/counter.js``) give the same bits, and a seed the same picture here and on a web
page.
"""

import math
from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.randomness import Source, Where

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
WORD = 2**32


def threefry(key: tuple[int, int], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Encrypt pairs of 32-bit words, held in int64 tensors of any one shape: two words each."""
    keys = (*key, PARITY ^ key[0] ^ key[1])
    x, y = (counter[0] + key[0]) % WORD, (counter[1] + key[1]) % WORD
    for block in range(5):
        for rotation in ROTATIONS[4 * (block % 2) :][:4]:
            x = (x + y) % WORD
            y = ((y << rotation) % WORD | y >> (32 - rotation)) ^ x
        x = (x + keys[(block + 1) % 3]) % WORD
        y = (y + keys[(block + 2) % 3] + block + 1) % WORD
    return x, y


class Counter(Source):
    """A source whose numbers any language can repeat.

    The words of number i in call k are ``threefry((seed, k), (i mod 2^32, i div 2^32))``. They are
    computed on the CPU and moved, so every device gets the same numbers. Raises ``ValueError``
    unless the seed is a whole number from 0 to 2^32 - 1.
    """

    def __init__(self, seed: int, device: Where = "cpu", dtype: torch.dtype | None = None) -> None:
        whole = isinstance(seed, int) and 0 <= seed < WORD
        checks.require(whole, "seed", f"a whole number from 0 to {WORD - 1}", seed)
        super().__init__(device=device, dtype=dtype)
        self.seed, self.calls = seed, count()  # one count, wherever the source is bound to

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1): the leading bits of both words, as many as the dtype can hold."""
        dtype = self.dtype or torch.get_default_dtype()
        x, y = self._words(shape)
        digits = 1 - round(math.log2(torch.finfo(dtype).eps))
        leading = (x << 21 | y >> 11) >> (53 - digits)
        return self._cast(leading.double() / 2**digits)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Numbers from N(0, 1): ``sqrt(-2 log u) cos(2 pi v)`` in double precision, then cast.

        ``u = (first word + 1/2) / 2^32``, ``v = second word / 2^32``; the largest is 6.76.
        """
        x, y = self._words(shape)
        radius = (-2 * ((x.double() + 0.5) / WORD).log()).sqrt()
        return self._cast(radius * (2 * math.pi * (y.double() / WORD)).cos())

    def _cast(self, numbers: Tensor) -> Tensor:
        """Rounded before they are moved: some devices, such as Apple's, have no double."""
        return numbers.to(self.dtype or torch.get_default_dtype()).to(self.device)

    def _words(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.arange(math.prod(shape), device="cpu").reshape(tuple(shape))
        return threefry((self.seed, next(self.calls)), (index % WORD, index // WORD))
