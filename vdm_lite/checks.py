"""Clear errors for bad input: each names the argument, what was expected and what was given."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Number, Real

import torch
from torch import Tensor


def require(condition: bool, argument: str, expected: str, given: object) -> None:
    """Raise ``ValueError("argument: expected …, got …")`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {given}")


def described(value: object) -> str:
    """A value in one short line: plain ones as they are, others by their type."""
    if isinstance(value, type):
        return f"the class {value.__name__}, not called"
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, tuple | list) and len(value) < 10:
        inside = ", ".join(map(described, value))
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return str(value) if value is None or isinstance(value, Number) else type(value).__name__


def floating(argument: str, value: Tensor) -> None:
    """Require a tensor of floating-point numbers, all finite."""
    require(isinstance(value, Tensor), argument, "a floating-point tensor", described(value))
    require(value.is_floating_point(), argument, "a floating-point tensor", value.dtype)
    if readable(value):
        require(bool(value.isfinite().all()), argument, "finite numbers", "NaN or infinity")


def positive(argument: str, value: Tensor) -> None:
    """Require finite positive numbers, for variances and the like."""
    floating(argument, value)
    if readable(value):
        require(bool((value > 0).all()), argument, "positive numbers", "zero or negative ones")


def positive_number(argument: str, value: float) -> None:
    """Require one finite number above zero, for widths and the like."""
    fits = isinstance(value, Real) and math.isfinite(value) and value > 0
    require(fits, argument, "a positive number", described(value))


def finite_number(argument: str, value: float) -> None:
    """Require one finite number."""
    fits = isinstance(value, Real) and math.isfinite(value)
    require(fits, argument, "a finite number", described(value))


def function(argument: str, value: Callable, form: str) -> None:
    """Require something that can be called; ``form`` says how, as in ``t -> logsnr``.

    A class is none: it stands where one of its instances was meant.
    """
    called = callable(value) and not isinstance(value, type)
    require(called, argument, f"a callable {form}", described(value))


def has(argument: str, value: object, names: Sequence[str], expected: str) -> None:
    """Require an object, no class, with these attributes: what it can do counts, not its type."""
    fits = not isinstance(value, type) and all(hasattr(value, name) for name in names)
    require(fits, argument, expected, described(value))


def answer(argument: str, value: Tensor, like: Tensor) -> None:
    """Require what a callable returned to be finite floats in the shape of ``like``.

    Where a trainer reads the loss itself, see :func:`read_later`, NaN and infinity pass.
    """
    require(isinstance(value, Tensor), argument, "a floating-point tensor", described(value))
    require(value.is_floating_point(), argument, "a floating-point tensor", value.dtype)
    same_shape(argument, value, like)
    if readable(value) and not _later.get():
        require(bool(value.isfinite().all()), argument, "finite numbers", "NaN or infinity")


_later = ContextVar("numbers are read later", default=False)


@contextmanager
def read_later() -> Iterator[None]:
    """While it is open, a callable may answer NaN: whoever opens it will read what comes of it.

    Training does. All its processes have to get as far as their loss: if one stopped in the
    network, the others would wait for it.
    """
    token = _later.set(True)
    try:
        yield
    finally:
        _later.reset(token)


def readable(value: Tensor) -> bool:
    """Whether reading values back is free: on an accelerator it would stall the queue."""
    return value.device.type == "cpu" and not torch.compiler.is_compiling()


def same_shape(argument: str, value: Tensor, like: Tensor) -> None:
    """Require ``value`` to have exactly the shape of ``like``: nothing broadcasts by accident."""
    require(value.shape == like.shape, argument, f"shape {tuple(like.shape)}", tuple(value.shape))


def fits(argument: str, value: Tensor, like: Tensor) -> None:
    """Require one number or the axes of ``like``, some of size 1: (B,) never meets (B, B)."""
    sizes = zip(value.shape, like.shape, strict=False)
    aligned = value.ndim == like.ndim and all(size in (1, full) for size, full in sizes)
    expected = f"() or {tuple(like.shape)}, where an axis may be 1"
    number = value.numel() == 1 and value.ndim <= like.ndim  # more axes would add axes to ``like``
    require(aligned or number, argument, expected, tuple(value.shape))


def batch(argument: str, value: Tensor) -> None:
    """Require at least one example, along the first axis."""
    filled = value.ndim > 0 and value.numel() > 0
    require(filled, argument, "a batch (B, ...) with B >= 1", f"shape {tuple(value.shape)}")


def examples(argument: str, value: Tensor) -> None:
    """Require what stands for data or latents: finite floats (B, ...) with B >= 1."""
    floating(argument, value)
    batch(argument, value)


def each_example(data: Tensor, accept: Callable[[Tensor], object]) -> None:
    """Let ``accept`` see all of ``data`` (N, ...), on the CPU; name the first example it refuses.

    Raises the ``ValueError`` of ``accept`` with the index of that example.
    """
    for start in range(0, len(data), 1024):
        part = data[start : start + 1024].cpu()
        try:
            accept(part)
        except ValueError:
            for i in range(len(part)):
                try:
                    accept(part[i : i + 1])
                except ValueError as error:
                    raise ValueError(f"{error} in data[{start + i}]") from error
            raise


def whole(argument: str, value: int) -> int:
    """Require a whole number, of Python or NumPy, and return it as Python's own."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    require(fits, argument, "a whole number", described(value))
    return int(value)


def count(argument: str, value: int, least: int = 1, most: int = 2**31 - 1) -> int:
    """Require a whole number from ``least`` to ``most``, and return it as Python's own."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(is_whole and value >= least, argument, f"a whole number >= {least}", described(value))
    require(value <= most, argument, f"a whole number <= {most}", described(value))
    return int(value)


def counts(argument: str, values: Sequence[int], form: str) -> tuple[int, ...]:
    """Require one whole number >= 1 or more, such as a shape, and return them as Python's own."""
    several = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    require(several, argument, form, described(values))
    return tuple(count(argument, value) for value in values)


def seed(argument: str, value: int) -> int:
    """Require a whole number that the streams made of it leave inside 64 bits; return it."""
    number, largest = whole(argument, value), 10**12
    require(abs(number) <= largest, argument, "a number from -10^12 to 10^12", number)
    return number
