"""Clear errors for bad input: each names the argument, what was expected and what was given."""

import math
from numbers import Integral

import torch
from torch import Tensor


def require(condition: bool, argument: str, expected: str, given: object) -> None:
    """Raise ``ValueError("argument: expected …, got …")`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {given}")


def floating(argument: str, value: Tensor) -> None:
    """Require a tensor of floating-point numbers, all finite."""
    require(isinstance(value, Tensor), argument, "a floating-point tensor", type(value).__name__)
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
    require(math.isfinite(value) and value > 0, argument, "a positive number", value)


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


def count(argument: str, value: int) -> None:
    """Require a whole number of at least one."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(whole and value >= 1, argument, "a whole number >= 1", repr(value))
