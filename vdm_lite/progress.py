"""Progress bars: text on stderr that goes when the work is done."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable[Any] | None = None, show: bool = True, **more: Any) -> tqdm:
    """A bar over ``items``; none if ``show`` is false or the environment has ``TQDM_DISABLE=1``.

    Arguments win over tqdm's environment variables, so ``disable`` is given only to switch it off.
    """
    quiet: dict[str, bool] = {} if show else {"disable": True}
    return tqdm(items, leave=False, **quiet, **more)
