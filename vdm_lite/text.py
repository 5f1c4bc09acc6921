"""What the text says of a notebook's numbers, held against them.

A law is an ``assert``: it holds for any numbers. A sentence about *these* numbers, those of the
cells as they stand in the book, is held here: whoever changes a cell reads what has become of the
sentence, and the notebook goes on. Where the book itself is built and tested, with
``VDM_LITE_STRICT=1`` set by ``make book`` and ``make test``, a sentence that fails is an error.
"""

import os
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from torch import Tensor


def says(printed: str, *values: float | Tensor | Iterable[Any]) -> None:
    """Hold numbers, printed with spaces between them, against ``values``.

    Each is to be the number printed, rounded as that is: ``says("3.797", cost)`` accepts what lies
    within 0.0005 of it, ``says("50%", share)`` within 0.005 of 0.5. Raises ``ValueError`` if there
    are more values than numbers, or fewer.
    """
    numbers, found = printed.split(), list(_flat(values))
    if len(numbers) != len(found):
        raise ValueError(f"values: expected {len(numbers)}, as in {printed!r}, got {len(found)}")
    if not all(map(_rounds_to, numbers, found)):
        yours = " ".join(f"{value:.6g}" for value in found)
        _differ(f"The text says {printed}, you have {yours}.")


def claims(sentence: str, holds: bool | Tensor) -> None:
    """Hold a sentence against what the numbers make of it: one truth value, or a tensor of them."""
    if not (holds.all() if isinstance(holds, Tensor) else holds):
        _differ(f"The text says: {sentence}. With your numbers it is not so.")


def _flat(values: Iterable[Any]) -> Iterable[float]:
    for value in values:
        if isinstance(value, Tensor):
            yield from value.flatten().tolist()
        elif isinstance(value, Iterable):
            yield from _flat(value)
        else:
            yield float(value)


def _rounds_to(number: str, value: float) -> bool:
    percent = number.endswith("%")
    exact = Decimal(number.rstrip("%").replace(",", ""))
    half = float(Decimal(5).scaleb(int(exact.as_tuple().exponent) - 1))
    off = abs(value * (100 if percent else 1) - float(exact))
    return off <= half * (1 + 1e-9)


def _differ(message: str) -> None:
    if os.environ.get("VDM_LITE_STRICT"):
        raise AssertionError(message)
    print(message)
