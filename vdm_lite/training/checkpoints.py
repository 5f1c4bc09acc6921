"""Checkpoints: safetensors files with JSON metadata in the header, written atomically.

A file is either complete or not there: it is written beside its final name, flushed to the disk
and then renamed, so a run that is killed leaves the last good checkpoint. Nothing is pickled, so
reading a file never runs code. Tensors are named ``ema.*`` (the averaged weights, the ones to
evaluate) and, where a run can resume from the file, also ``model.*``, ``optimizer.*``, ``rng.*``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vdm_lite import checks

FORMAT = "vdm_lite-checkpoint"
VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: names the file, what was expected and what was found."""

    def __init__(self, path: str | os.PathLike, expected: object, found: object) -> None:
        super().__init__(f"{os.fspath(path)}: expected {expected}, got {found}")


def write(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Write ``tensors`` and JSON-able ``metadata`` to ``path``, all or nothing."""
    header = {"format": FORMAT, "version": VERSION, **metadata}
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    on_cpu = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_bytes(Path(path), save(on_cpu, {"vdm_lite": to_json(header)}))


def to_json(values: object) -> str:
    """``values`` as JSON, NumPy's numbers like Python's own. Raises ``TypeError`` for others."""
    return json.dumps(values, default=_plain)


def _plain(value: object) -> int | float:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none: beside its name first, flushed to the disk, then renamed.

    Raises ``OSError`` if that fails; a file that was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")  # the same folder: a rename cannot cross disks
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written, what was there is kept: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a checkpoint.

    Raises CheckpointError for a file that is missing, truncated, written by something else, or
    written by a version of the format that this library does not know.
    """
    with _opened(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata alone, without reading the tensors; errors as in :func:`read`."""
    with _opened(path) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[safetensors.safe_open, dict[str, Any]]]:
    if not Path(path).is_file():
        raise CheckpointError(path, "a checkpoint file", "no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file, _header(path, file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise CheckpointError(path, "a complete safetensors file", error) from error


def _header(path: str | os.PathLike, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "vdm_lite" not in metadata:
        raise CheckpointError(path, f"metadata of the format {FORMAT!r}", sorted(metadata))
    try:
        header = dict(json.loads(metadata["vdm_lite"]))
    except (ValueError, TypeError) as error:
        raise CheckpointError(path, "metadata in JSON", error) from error
    form, version = header.get("format"), header.get("version")
    if (form, version) != (FORMAT, VERSION):
        raise CheckpointError(path, f"{FORMAT!r} version {VERSION}", f"{form!r} {version}")
    return header


def join(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``join(model={"w": t})`` is ``{"model.w": t}``: many state dictionaries in one file."""
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The inverse of :func:`join` for one part."""
    prefix = name + "."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


WRAPPERS = ("_orig_mod", "module")
"""What ``torch.compile`` and ``DataParallel`` put into the names of the weights of a module."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of ``module`` by the names that its tensors have without wrappers."""
    return _unwrapped(module.state_dict())


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, t in state.items():
        named[".".join(part for part in name.split(".") if part not in WRAPPERS)] = t
    # Where two tensors would get one name, "module" is a name of the network's own.
    return named if len(named) == len(state) else dict(state)


def load_into(module: nn.Module, weights: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Copy ``weights`` into ``module``; CheckpointError if a name, a shape or a dtype differs.

    Names with and without wrappers count as the same.
    """
    check_weights(module, weights, path)
    full = dict(zip(weights_of(module), module.state_dict(), strict=True))
    module.load_state_dict({full[name]: t for name, t in _unwrapped(weights).items()})


def check_weights(
    module: nn.Module, weights: Mapping[str, Tensor], path: str | os.PathLike
) -> None:
    """Raise CheckpointError unless ``weights`` have the names, shapes and dtypes of ``module``."""
    own = {name: _kind(t) for name, t in weights_of(module).items()}
    found = {name: _kind(t) for name, t in _unwrapped(weights).items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise CheckpointError(
                path,
                f"{name} to be {own.get(name, 'absent')}, as in {type(module).__name__}",
                found.get(name, "nothing of that name"),
            )


def _kind(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter, by names such as ``0.exp_avg``."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{key}": t for i, state in states.items() for key, t in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_state`; the optimizer keeps its own settings.

    A moment gets the layout in memory of its weight, as in a run from the start: where the two
    differ, AdamW takes a slower way.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, t in tensors.items():
        i, key = name.split(".")
        states.setdefault(int(i), {})[key] = _laid_out(t, weights[int(i)].detach())
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _laid_out(t: Tensor, weight: Tensor) -> Tensor:
    """``t`` as ``weight`` lies in memory; counts of steps as they are."""
    return torch.empty_like(weight).copy_(t) if t.shape == weight.shape else t


def random_states(generator: torch.Generator) -> dict[str, Tensor]:
    """The state of ``generator`` and of the global ones, which dropout draws from.

    The branch for CUDA has not been run yet, here and in :func:`load_random_states`.
    """
    states = {generator.device.type: generator.get_state(), "global": torch.get_rng_state()}
    if generator.device.type == "cuda":
        states["global_cuda"] = torch.cuda.get_rng_state(generator.device)
    return states


def check_random_states(
    generator: torch.Generator, states: Mapping[str, Tensor], path: str | os.PathLike
) -> None:
    """Raise CheckpointError unless ``states`` are of the device of ``generator``."""
    device = generator.device.type
    if device not in states:
        found = ", ".join(sorted(states.keys() - {"global"})) or "a file without random states"
        raise CheckpointError(path, f"a run on {device}", found)


def load_random_states(generator: torch.Generator, states: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`random_states`."""
    device = generator.device.type
    generator.set_state(states[device])
    torch.set_rng_state(states["global"])
    if device == "cuda":
        torch.cuda.set_rng_state(states["global_cuda"], generator.device)


def save_weights(
    path: str | os.PathLike, model: nn.Module, config: Mapping[str, Any] | None = None
) -> None:
    """Save weights alone, for shipping: give the averaged model of :func:`.fit`.

    ``config`` is whatever the reader needs to build the model again; it must be JSON-able, and
    :func:`.describe` makes one that the command line understands.
    """
    is_module = isinstance(model, nn.Module)
    checks.require(is_module, "model", "a module", checks.described(model))
    mapping = config is None or isinstance(config, Mapping)
    checks.require(mapping, "config", "a mapping", checks.described(config))
    write(path, join(ema=weights_of(model)), {"config": dict(config or {})})


def load_weights(path: str | os.PathLike, model: nn.Module) -> dict[str, Any]:
    """Load the averaged weights of any checkpoint into ``model``; return its metadata.

    The metadata hold ``config`` and, if a run wrote the file, ``step``. Raises CheckpointError.
    """
    tensors, metadata = read(path)
    load_into(model, part(tensors, "ema"), path)
    return metadata
