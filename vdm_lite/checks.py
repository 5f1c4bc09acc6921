"""Clear errors for bad input: each names the argument, what was expected and what was given.

A public function checks its arguments once, at its door; :func:`checked` puts the checks there and
leaves the formula bare, for all that the library computes inside.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from numbers import Integral, Number, Real
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[..., object]


class Checked(Protocol[P, R]):
    """A function with its checks; ``formula`` is the function alone."""

    formula: Callable[P, R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def checked(**rules: Check | tuple[Any, ...]) -> Callable[[Callable[P, R]], Checked[P, R]]:
    """Let a public function check its arguments, each by its rule, in the order of the rules.

    A rule is a check, called as ``(argument, value)``, or a tuple of one and the names of other
    arguments that it looks at: in ``eps=(shaped_as, "x")`` it is called as ``("eps", eps, x)``.
    """

    def decorate(formula: Callable[P, R]) -> Checked[P, R]:
        parameters = signature(formula)

        @wraps(formula)
        def entry(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = parameters.bind(*args, **kwargs)
            bound.apply_defaults()
            for argument, rule in rules.items():
                check, *others = rule if isinstance(rule, tuple) else (rule,)
                check(argument, *(bound.arguments[name] for name in (argument, *others)))
            return formula(*args, **kwargs)

        door = cast(Checked[P, R], entry)
        door.formula = formula
        return door

    return decorate


def require(condition: bool, argument: str, expected: str, given: object) -> None:
    """Raise ``ValueError("argument: expected …, got …")`` unless ``condition`` holds."""
    if not condition:
        refuse(argument, expected, given)


def refuse(argument: str, expected: str, given: object) -> NoReturn:
    """Raise ``ValueError("argument: expected …, got …")``.

    What is asked in every step of a sampler asks first and describes afterwards.
    """
    raise ValueError(f"{argument}: expected {expected}, got {given}")


def every(condition: Tensor, argument: str, expected: str, given: str | Tensor) -> None:
    """Require a condition of each number, where it can be read."""
    if readable(condition) and not condition.all():
        found = f"{given.item():.6g}" if isinstance(given, Tensor) else given
        refuse(argument, expected, found)


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
    of_floats(argument, value)
    finite(argument, value)


def of_floats(argument: str, value: Tensor) -> None:
    """Require a tensor of floating-point numbers."""
    if not isinstance(value, Tensor):
        refuse(argument, "a floating-point tensor", described(value))
    if not value.is_floating_point():
        refuse(argument, "a floating-point tensor", value.dtype)


def finite(argument: str, value: Tensor) -> None:
    """Require finite numbers, where they can be read.

    One NaN or infinity makes the sum one; where only the sum overflows, each number is asked.
    """
    if readable(value):
        total = value.sum() if value.ndim > 0 else value
        if not math.isfinite(total.item()) and not value.isfinite().all():
            refuse(argument, "finite numbers", "NaN or infinity")


def numbers(argument: str, value: Tensor | float) -> None:
    """Require a tensor or one number."""
    require(isinstance(value, Tensor | Real), argument, "a tensor", described(value))


def positive(argument: str, value: Tensor) -> None:
    """Require finite positive numbers, for variances and the like."""
    floating(argument, value)
    every(value > 0, argument, "positive numbers", "zero or negative ones")


def share(argument: str, value: Tensor) -> None:
    """Require numbers strictly between 0 and 1."""
    floating(argument, value)
    inside = (value > 0) & (value < 1)
    every(inside, argument, "numbers above 0 and below 1", "one that is not")


def times(argument: str, value: Tensor) -> None:
    """Require times in [0, 1]."""
    floating(argument, value)
    every((value >= 0) & (value <= 1), argument, "times in [0, 1]", "a time outside")


def at_most(argument: str, value: Tensor, largest: float) -> None:
    """Require numbers of a size that the computation is made for."""
    if readable(value):
        size = value.abs().max().item()
        require(size <= largest, argument, f"numbers up to {largest:g}", f"{size:.3g}")


def weights(argument: str, value: Tensor, logsnr: Tensor) -> None:
    """Require one finite weight >= 0 for each level."""
    shaped_as(argument, value, logsnr)
    every(value >= 0, argument, "weights >= 0", value.min())


def positive_number(argument: str, value: float) -> None:
    """Require one finite number above zero, for widths and the like."""
    fits = isinstance(value, Real) and math.isfinite(value) and value > 0
    require(fits, argument, "a positive number", described(value))


def finite_number(argument: str, value: float) -> None:
    """Require one finite number."""
    fits = isinstance(value, Real) and math.isfinite(value)
    require(fits, argument, "a finite number", described(value))


def level(argument: str, value: float) -> None:
    """The SNR e^80 and the variance e^-80 are float32 numbers with all digits, e^90 is infinite."""
    finite_number(argument, value)
    require(abs(value) <= 80, argument, "a number from -80 to 80", value)


def ends(logsnr_max: float, logsnr_min: float) -> None:
    """Require end points of a schedule: from -80 to 80 and in their order."""
    level("logsnr_max", logsnr_max)
    level("logsnr_min", logsnr_min)
    given = (logsnr_max, logsnr_min)
    order = "logsnr_max > logsnr_min"
    require(logsnr_max > logsnr_min, "logsnr_max, logsnr_min", order, given)


def function(argument: str, value: Callable[..., object], form: str) -> None:
    """Require something that can be called; ``form`` says how, as in ``t -> logsnr``.

    A class is none: it stands where one of its instances was meant.
    """
    called = callable(value) and not isinstance(value, type)
    require(called, argument, f"a callable {form}", described(value))


def instance(argument: str, value: object, kind: type, expected: str) -> None:
    """Require an instance of a class of ours."""
    if not isinstance(value, kind):
        refuse(argument, expected, described(value))


def schedule(argument: str, value: Callable[[Tensor], Tensor]) -> None:
    """Require a callable ``t -> logsnr``."""
    function(argument, value, "t -> logsnr")


def falling(argument: str, value: Callable[[Tensor], Tensor], t: Tensor) -> None:
    """Require a callable ``t -> logsnr`` that is finite and falls strictly over rising ``t``."""
    schedule(argument, value)
    with torch.no_grad():
        logsnr = value(t)
    instance(f"{argument}(t)", logsnr, Tensor, "a tensor of levels")
    same_shape(f"{argument}(t)", logsnr, t)
    drop = logsnr.diff()
    falls = (drop < 0) & drop.isfinite()
    every(falls, argument, "finite logsnr that falls with t", "one that does not")


def weighting(argument: str, value: Callable[[Tensor], Tensor]) -> None:
    """Require a callable ``logsnr -> w``."""
    function(argument, value, "logsnr -> w")


def level_function(argument: str, value: Callable[[Tensor], Tensor]) -> None:
    """Require a callable of many levels at once."""
    function(argument, value, "levels (N,) -> numbers (N,)")


def has(argument: str, value: object, names: Sequence[str], expected: str) -> None:
    """Require an object, no class, with these attributes: what it can do counts, not its type."""
    fits = not isinstance(value, type) and all(hasattr(value, name) for name in names)
    require(fits, argument, expected, described(value))


def answer(argument: str, value: Tensor, like: Tensor) -> None:
    """Require what a callable returned to be finite floats in the shape of ``like``.

    Where a trainer reads the loss itself, see :func:`read_later`, NaN and infinity pass.
    """
    of_floats(argument, value)
    same_shape(argument, value, like)
    if not _later.get():
        finite(argument, value)


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
    if value.shape != like.shape:
        refuse(argument, f"shape {tuple(like.shape)}", tuple(value.shape))


def shaped_as(argument: str, value: Tensor, like: Tensor) -> None:
    """Require finite floats in the shape of ``like``."""
    floating(argument, value)
    same_shape(argument, value, like)


def aligned(argument: str, value: Tensor, data: Tensor) -> None:
    """Require a tensor () or (B,) for ``data`` (B, ...), as noise levels are."""
    instance(argument, value, Tensor, "a tensor")
    if value.shape not in ((), data.shape[:1]):
        refuse(argument, f"() or {tuple(data.shape[:1])}", tuple(value.shape))


def levels(argument: str, value: Tensor, data: Tensor) -> None:
    """Require finite noise levels () or (B,) for ``data`` (B, ...)."""
    floating(argument, value)
    aligned(argument, value, data)


def noisier(argument: str, value: Tensor, logsnr_s: Tensor, data: Tensor | None = None) -> None:
    """Require finite noise levels at or below ``logsnr_s``, () or of its shape, or for ``data``."""
    floating(argument, value)
    if data is not None:
        aligned(argument, value, data)
    if value.ndim > 0 and logsnr_s.ndim > 0:
        same_shape(argument, value, logsnr_s)
    if readable(value) and value.numel() > 0:
        rise = (value - logsnr_s).max().item()
        require(rise <= 0, argument, "at most logsnr_s (s < t)", f"a rise of up to {rise:.3g}")


def sizes(
    argument: str, value: Tensor, wanted: Sequence[int | str], expected: str | None = None
) -> None:
    """Require a tensor of these sizes; a name, such as B, stands for any."""
    pairs = zip(wanted, value.shape, strict=False)
    if value.ndim != len(wanted) or any(a != b for a, b in pairs if not isinstance(a, str)):
        refuse(argument, expected or f"shape ({', '.join(map(str, wanted))})", tuple(value.shape))


def fits(argument: str, value: Tensor, like: Tensor) -> None:
    """Require one number or the axes of ``like``, some of size 1: (B,) never meets (B, B)."""
    sizes = zip(value.shape, like.shape, strict=False)
    aligned = value.ndim == like.ndim and all(size in (1, full) for size, full in sizes)
    expected = f"() or {tuple(like.shape)}, where an axis may be 1"
    number = value.numel() == 1 and value.ndim <= like.ndim  # more axes would add axes to ``like``
    require(aligned or number, argument, expected, tuple(value.shape))


def inputs(z: Tensor, logsnr: Tensor, wanted: Sequence[int | str]) -> None:
    """Require what a denoiser is called with: z (B, ...) of these sizes, logsnr () or (B,)."""
    examples("z", z)
    floating("logsnr", logsnr)
    sizes("z", z, wanted)
    if logsnr.shape not in ((), z.shape[:1]):
        refuse("logsnr", f"shape () or ({len(z)},)", tuple(logsnr.shape))


def batch(argument: str, value: Tensor) -> None:
    """Require at least one example, along the first axis."""
    if value.ndim == 0 or value.numel() == 0:
        refuse(argument, "a batch (B, ...) with B >= 1", f"shape {tuple(value.shape)}")


def examples(argument: str, value: Tensor) -> None:
    """Require what stands for data or latents: finite floats (B, ...) with B >= 1."""
    floating(argument, value)
    batch(argument, value)


def examples_as(argument: str, value: Tensor, like: Tensor) -> None:
    """Require :func:`examples` in the shape of ``like``."""
    examples(argument, value)
    same_shape(argument, value, like)


def whole_levels(argument: str, data: Tensor, levels: int) -> None:
    """Require whole numbers 0 … levels-1 (B, ...), of any dtype that holds such."""
    require(isinstance(data, Tensor), argument, "a tensor of levels", type(data).__name__)
    batch(argument, data)
    require(not data.is_complex(), argument, "whole levels", data.dtype)
    if readable(data):
        # In its own dtype an integer cannot be compared with a limit that does not fit into it.
        wide = data if data.is_floating_point() else data.long()
        inside = bool(((wide == wide.round()) & (wide >= 0) & (wide <= levels - 1)).all())
        span = f"from {wide.min().item()} to {wide.max().item()}"
        require(inside, argument, f"whole levels 0 to {levels - 1}", f"{data.dtype} {span}")


def binary(argument: str, data: Tensor) -> None:
    """Require zeros and ones (B, ...), of any dtype."""
    batch(argument, data)
    if readable(data):
        span = f"{data.min().item()} to {data.max().item()}"
        zeros_and_ones = bool(((data == 0) | (data == 1)).all())
        require(zeros_and_ones, argument, "zeros and ones", f"numbers from {span}")


def matrix(argument: str, value: Tensor) -> None:
    """Require finite floats of some units for each example, (N, units)."""
    examples(argument, value)
    sizes(argument, value, ("N", "units"), "shape (N, units)")


def of_dtype(argument: str, value: Tensor, like: Tensor) -> None:
    """Require the dtype of the model's weights."""
    require(value.dtype == like.dtype, argument, f"{like.dtype}, as the weights", value.dtype)


def square(argument: str, value: Tensor) -> None:
    """Require a square matrix of finite floats."""
    floating(argument, value)
    fits = value.ndim == 2 and value.shape[0] == value.shape[1]
    require(fits, argument, "a square matrix", tuple(value.shape))


def chain(argument: str, matrices: Sequence[Tensor]) -> None:
    """Require matrices (D, n_1), (n_1, n_2), … of one dtype on one device."""
    require(len(matrices) > 0, argument, "at least one matrix", "none")
    for i, value in enumerate(matrices):
        name, rows = f"{argument}[{i}]", matrices[i - 1].shape[-1] if i else "any number of"
        floating(name, value)
        fits = value.ndim == 2 and (i == 0 or len(value) == rows)
        require(fits, name, f"a matrix of {rows} rows", f"shape {tuple(value.shape)}")
        kind, first = (f"{matrix.dtype} on {matrix.device}" for matrix in (value, matrices[0]))
        require(kind == first, name, f"{first} as {argument}[0]", kind)


def widths(argument: str, values: Sequence[float], matrices: Sequence[Tensor]) -> None:
    """Require one positive number for each matrix."""
    number = len(matrices)
    require(len(values) == number, argument, f"{number} widths, one for each matrix", len(values))
    for i, value in enumerate(values):
        positive_number(f"{argument}[{i}]", value)


def mixture(weights: Tensor, means: Tensor, stds: Tensor) -> None:
    """Require components of a mixture: weights (K,), means (K, ...), widths (K,) >= 0."""
    floating("weights", weights)
    examples("means", means)
    shaped_as("stds", stds, means.reshape(len(means), -1)[:, 0])
    same_shape("weights", weights, stds)
    total = weights.sum().item()
    proper = bool((weights > 0).all()) and abs(total - 1) < 1e-5
    require(proper, "weights", "positive, summing to one", f"a sum of {total:.6g}")
    require(bool((stds >= 0).all()), "stds", ">= 0", f"{stds.min().item():.3g}")


def normal(argument: str, value: Any, like: Any = None) -> None:
    """Require means and positive variances that broadcast to ``like``, data or other Gaussians."""
    has(argument, value, ("mean", "var"), "a Normal")
    shape = value.mean if like is None else like if isinstance(like, Tensor) else like.mean
    floating(f"{argument}.mean", value.mean)
    fits(f"{argument}.mean", value.mean, shape)
    positive(f"{argument}.var", value.var)
    fits(f"{argument}.var", value.var, shape)


def normals(argument: str, value: Any) -> None:
    """Require a batch of Gaussians, means (B, ...) with B >= 1."""
    has(argument, value, ("mean", "var"), "a Normal")
    examples(f"{argument}.mean", value.mean)
    normal(argument, value)


def normals_as(argument: str, value: Any, like: Any) -> None:
    """Require Gaussians with as many means as those of ``like``."""
    has(argument, value, ("mean", "var"), "a Normal")
    same_shape(f"{argument}.mean", value.mean, like.mean)
    normal(argument, value)


def prediction(argument: str, value: Any, z: Tensor, logsnr_s: Tensor | None = None) -> None:
    """Require x and eps like ``z``, at a level that is as noisy as ``logsnr_s`` or more."""
    has(argument, value, ("x", "eps", "logsnr"), "a Prediction")
    shaped_as(f"{argument}.x", value.x, z)
    shaped_as(f"{argument}.eps", value.eps, z)
    if logsnr_s is not None:
        noisier(f"{argument}.logsnr", value.logsnr, logsnr_s, z)


def row(argument: str, value: Tensor) -> None:
    """Require finite floats (T,) with T >= 1."""
    examples(argument, value)
    same_shape(argument, value, value.reshape(-1))


def shares(argument: str, value: Tensor) -> None:
    """Require a :func:`row` of numbers strictly between 0 and 1."""
    share(argument, value)
    row(argument, value)


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


def observation(argument: str, value: object) -> None:
    """Require what can do what an ``Observation`` can."""
    names = ("parameters", "encode", "log_prob", "mean")
    has(argument, value, names, "an observation such as Bernoulli()")


def precise(argument: str, weight: Tensor) -> None:
    """Require weights in which costs keep their digits."""
    enough = weight.dtype in (torch.float32, torch.float64)
    expected = "weights in float32 or float64 (torch.autocast computes in less)"
    require(enough, argument, expected, weight.dtype)


def model(argument: str, value: object) -> None:
    """Require what can do what a ``VariationalDiffusion`` can."""
    names = ("denoiser", "schedule", "predict", "loss", "elbo", "likelihood")
    expected = "a VariationalDiffusion (a network alone has neither schedule nor likelihood)"
    has(argument, value, names, expected)


def likelihood(argument: str, value: object) -> None:
    """Require what can do what ``Gaussian`` and ``Discretized`` can."""
    names = ("encode", "decode", "log_prob")
    has(argument, value, names, "Gaussian() or Discretized(levels)")


def drawn(argument: str, value: tuple[Tensor, Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Require what a sampler of times is to return, ``n`` times and their density; return it."""
    pair = isinstance(value, tuple) and len(value) == 2
    require(pair, argument, "Times(t, p)", described(value))
    for name, numbers in zip("tp", value, strict=True):
        floating(f"{argument}.{name}", numbers)
        sizes(f"{argument}.{name}", numbers, (n,), f"shape ({n},)")
    return value


def networks(argument: str, values: Sequence[nn.Module], layers: int) -> None:
    """Require one module for each layer."""
    several = isinstance(values, Sequence | nn.ModuleList)
    number = len(values) if several else described(values)
    require(number == layers, argument, f"{layers} networks, one a layer", number)
    for value in values:
        instance(argument, value, nn.Module, "modules")


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


def size(argument: str, value: int) -> int:
    """Require a whole number from 0, and return it as Python's own."""
    return count(argument, value, least=0)


def exponents(argument: str, values: Sequence[int]) -> None:
    """Require whole numbers from 0 to 20."""
    several = isinstance(values, Sequence)
    whole = several and all(isinstance(n, Integral) and 0 <= n <= 20 for n in values)
    require(whole, argument, "whole numbers from 0 to 20", described(values))


def grid(argument: str, value: int) -> int:
    """Require a number of levels on a grid (one level says nothing), and return it."""
    return count(argument, value, least=2, most=2**16)


def counts(
    argument: str, values: Sequence[int], form: str, most: int = 2**31 - 1
) -> tuple[int, ...]:
    """Require one whole number >= 1 or more, such as a shape, and return them as Python's own."""
    several = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    require(several, argument, form, described(values))
    return tuple(count(argument, value, most=most) for value in values)


def seed(argument: str, value: int) -> int:
    """Require a whole number that the streams made of it leave inside 64 bits; return it."""
    number, largest = whole(argument, value), 10**12
    require(abs(number) <= largest, argument, "a number from -10^12 to 10^12", number)
    return number
