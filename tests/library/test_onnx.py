"""The exported denoiser: what ONNX Runtime computes is what PyTorch computes."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vdm_lite import nets
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.exact import TWO_BUMPS
from vdm_lite.training import onnx
from vdm_lite.training.config import ModelConfig

SHAPE = (1, 28, 28)


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights in the layers that start at zero, so that each part matters."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[VariationalDiffusion, Path]:
    """A model like the shipped one, and its file."""
    torch.manual_seed(0)
    model = lively(ModelConfig().build()).requires_grad_(False)
    path = tmp_path_factory.mktemp("onnx") / "denoiser.onnx"
    onnx.export(model, path, SHAPE)
    return model, path


def test_same_output_at_all_levels(exported, referee):
    runtime = referee("onnxruntime")
    model, path = exported
    session = runtime.InferenceSession(path)
    assert [each.name for each in session.get_inputs()] == ["z", "logsnr"]
    for level in torch.linspace(-5, 13.3, 12):
        z, logsnr = 1.3 * torch.randn(1, *SHAPE), level.reshape(1)
        (found,) = session.run(["y"], {"z": z.numpy(), "logsnr": logsnr.numpy()})
        expected = model.denoiser(z, logsnr)
        assert expected.abs().max() > 0.5
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


def test_one_small_file_that_names_no_folder(exported):
    model, path = exported
    assert model.training  # the model is left as it was
    weights = sum(4 * each.numel() for each in model.denoiser.parameters())
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_size < 1.05 * weights + 50_000
    assert str(Path(nets.__file__).parents[1]).encode() not in path.read_bytes()


def test_refuses_what_it_cannot_export(tmp_path, monkeypatch):
    path = tmp_path / "denoiser.onnx"
    with pytest.raises(ValueError, match=r"model\.denoiser: expected a module"):
        onnx.export(VariationalDiffusion(TWO_BUMPS.denoise), path, (1,))
    with pytest.raises(ValueError, match=r"weights: expected torch\.float32"):
        onnx.export(ModelConfig(widths=(8, 8)).build().double(), path, SHAPE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="export"):
        onnx.export(ModelConfig(widths=(8, 8)).build(), path, SHAPE)
    assert not path.exists()
