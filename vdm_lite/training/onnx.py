"""A denoiser as an ONNX file, for runtimes that know nothing of PyTorch.

The book's site runs the shipped denoiser in the reader's browser this way. Needs the extra
``vdm-lite[export]``.
"""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch

from vdm_lite import checks
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.training.checkpoints import write_bytes

INPUTS, OUTPUTS = ("z", "logsnr"), ("y",)


def export(model: VariationalDiffusion, path: str | os.PathLike, shape: tuple[int, ...]) -> None:
    """Write the denoiser of ``model`` for one example of ``shape`` (C, H, W), all or nothing.

    The graph takes ``z`` (1, C, H, W) and ``logsnr`` (1,) in float32 and returns ``y`` as ``z``,
    the raw output: what it stands for is ``model.parameterization``. Raises ``ImportError`` without
    ``onnxscript``, ``ValueError`` for a denoiser that is no module or has no float32 weights.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError('ONNX files need onnxscript: pip install "vdm-lite[export]"')
    denoiser = model.denoiser
    module = isinstance(denoiser, torch.nn.Module)
    checks.require(module, "model.denoiser", "a module", type(denoiser).__name__)
    weight = next(denoiser.parameters(), torch.empty(0))
    checks.require(weight.dtype == torch.float32, "weights", "torch.float32", weight.dtype)
    z, logsnr = weight.new_zeros(1, *shape), weight.new_zeros(1)
    write_bytes(Path(path), _graph(denoiser, z, logsnr))


def _graph(denoiser: torch.nn.Module, z: torch.Tensor, logsnr: torch.Tensor) -> bytes:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    names = {"input_names": list(INPUTS), "output_names": list(OUTPUTS)}
    with _quiet():
        program = torch.onnx.export(
            deepcopy(denoiser).eval(), (z, logsnr), **names, dynamo=True, verbose=False
        )
    ClearMetadataAndDocStringPass()(program.model)  # where each line of the source stood
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's words on its own insides and on torchvision, not needed here."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(before)
