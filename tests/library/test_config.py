"""A configuration builds what it says, survives JSON, and files of anything else are refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vdm_lite import training
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.schedules import SCHEDULES
from vdm_lite.training import checkpoints
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.config import OUTPUTS, ModelConfig, load, load_model

SMALL = ModelConfig(levels=4, widths=(8, 16), exponents=(1,))


def data(channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, (4, channels, 4, 4), dtype=torch.uint8, generator=generator)


def save(path, config) -> None:
    checkpoints.save_weights(path, SMALL.build(), config)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_output_and_schedule_builds_survives_json_and_has_a_bound(output, schedule):
    made = ModelConfig(3, 4, (8,), 1, (), output, schedule, logsnr_max=9.0, logsnr_min=-4.0)
    assert ModelConfig.parse(json.loads(json.dumps(made.plain()))) == made
    model = made.build()
    assert (model.parameterization, model.likelihood) == (OUTPUTS[output], Discretized(4))
    assert isinstance(model.schedule, SCHEDULES[schedule])
    ends = model.schedule(torch.tensor([0.0, 1.0])).tolist()
    assert ends == pytest.approx([9.0, -4.0], rel=1e-5)
    assert model.elbo(data(3)).nelbo.isfinite().all()


def test_the_values_reach_the_network():
    made = ModelConfig(2, 4, (8, 16, 24), 2, (0, 3))
    network = made.build().denoiser
    assert (network.channels, network.fourier.exponents) == (2, (0, 3))
    assert network.inner.weight.shape[:2] == (8, 10) and len(network.level.before) == 2
    assert network.level.below.down.weight.shape[:2] == (16, 8)
    assert network.level.below.level.below.down.weight.shape[:2] == (24, 16)


def test_the_default_is_of_a_size_that_ships():
    model = ModelConfig().build()
    weights = sum(p.numel() for p in model.parameters())
    assert 3e6 < 4 * weights < 4e6  # bytes in float32


@pytest.mark.parametrize("train_ends", [False, True])
def test_ends_of_a_learned_schedule_are_trained_on_request(train_ends):
    schedule = ModelConfig(widths=(8,), schedule="learned", train_ends=train_ends).build().schedule
    assert schedule.raw.requires_grad
    assert schedule.logsnr_max.requires_grad == schedule.logsnr_min.requires_grad == train_ends


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 0}, "channels: expected a whole number >= 1, got 0"),
        ({"levels": 2.5}, "levels: expected a whole number"),
        ({"levels": 1}, "levels: expected a whole number >= 2, got 1"),
        ({"levels": 10**9}, "levels: expected a whole number <= 65536, got 1000000000"),
        ({"channels": 10**6}, "channels: expected a whole number <= 1000, got 1000000"),
        ({"blocks": 0}, "blocks: expected a whole number"),
        ({"blocks": 1_000_000}, "blocks: expected a whole number <= 100, got 1000000"),
        ({"widths": 16}, "widths: expected one width or more, got 16"),
        ({"widths": "16"}, "widths: expected one width or more, got '16'"),
        ({"widths": (999_999,)}, "widths: expected a whole number <= 2048, got 999999"),
        ({"widths": (8, 9999)}, "widths: expected a whole number <= 2048, got 9999"),
        ({"widths": (2049, 8)}, "widths: expected a whole number <= 2048, got 2049"),
        ({"widths": (8,) * 11}, "widths: expected ten widths at most, got 11"),
        ({"exponents": 6}, "exponents: expected whole numbers from 0 to 20, got 6"),
        ({"output": None}, "output: expected one of noise, image, .* got None"),
        ({"schedule": ["linear"]}, r"schedule: expected one of linear, .* got \['linear'\]"),
        ({"logsnr_max": 1000.0}, "logsnr_max: expected a number from -80 to 80, got 1000"),
        ({"train_ends": "no"}, "train_ends: expected True or False, got 'no'"),
        ({"widths": ()}, r"widths: expected one width or more, got \(\)"),
        ({"widths": (8, 0)}, "widths: expected a whole number >= 1, got 0"),
        (
            {"exponents": (6, 2000)},
            r"exponents: expected whole numbers from 0 to 20, got \(6, 2000",
        ),
        ({"exponents": (-1,)}, "exponents: expected whole numbers from 0 to 20"),
        ({"output": "noises"}, "output: expected one of noise, image, .* got noises"),
        ({"schedule": "quadratic"}, "schedule: expected one of linear, .* got quadratic"),
        ({"train_ends": True}, "train_ends: expected schedule learned, got linear"),
    ],
)
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)


def test_ends_in_the_wrong_order_are_named_when_it_is_built():
    with pytest.raises(ValueError, match="logsnr_max > logsnr_min"):
        ModelConfig(logsnr_max=-6.0).build()


def test_values_of_anything_else_are_refused():
    with pytest.raises(ValueError, match=r"the fields of ModelConfig, got \['width'\]"):
        ModelConfig.parse({"width": 3})


def test_a_checkpoint_gives_the_averaged_model(tmp_path):
    torch.manual_seed(1)
    model, file = SMALL.build(), tmp_path / "run"
    config = {"model": SMALL.plain()}
    run = training.fit(
        model, data(), 3, 2, ema_decay=0.3, checkpoint=file, config=config, progress=False
    )
    averaged = list(run)[-1].averaged
    loaded = load_model(file)
    state, wanted = loaded.state_dict(), averaged.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert not torch.equal(loaded.denoiser.outer.weight, model.denoiser.outer.weight)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    bounds = [
        m.elbo(data(), generator=torch.Generator().manual_seed(0)) for m in (loaded, averaged)
    ]
    assert torch.equal(bounds[0].nelbo, bounds[1].nelbo)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config to hold 'model', as made by vdm_lite.config.describe, got"),
        ([], "config to hold 'model'"),
        ({"width": 3}, "config to hold 'model'"),
        ({"model": None}, "config to hold 'model'"),
        ({"model": 3}, "config to hold 'model'"),
        ({"model": {"width": 3}}, r"config.model to fit a ModelConfig, got .*\['width'\]"),
        ({"model": {"widths": [0]}}, "config.model to fit a ModelConfig, got widths: "),
        ({"model": {"widths": 16}}, "config.model to fit a ModelConfig, got widths: "),
        ({"model": {"exponents": ["6"]}}, "config.model to fit a ModelConfig, got exponents: "),
        ({"model": {"logsnr_max": -9.0}}, "config.model to fit a ModelConfig, got logsnr_max"),
    ],
)
def test_a_file_without_a_configuration_is_refused(tmp_path, config, message):
    checkpoints.write(tmp_path / "w", {}, {"config": config})
    with pytest.raises(CheckpointError, match=f"w: expected {message}"):
        load_model(tmp_path / "w")


@pytest.mark.parametrize(
    "change", [{"widths": (8, 24)}, {"blocks": 2}, {"exponents": ()}, {"schedule": "learned"}]
)
def test_weights_of_another_architecture_are_refused(tmp_path, change):
    values = {**SMALL.plain(), **change}
    save(tmp_path / "w", {"model": values})
    with pytest.raises(CheckpointError, match=r"w: expected \S+ to be .* as in Variational"):
        load_model(tmp_path / "w")


def test_the_metadata_come_with_the_model(tmp_path):
    save(tmp_path / "w", config := {"model": SMALL.plain(), "note": "kept"})
    model, metadata = load(tmp_path / "w")
    assert isinstance(model, VariationalDiffusion) and metadata["config"] == config


def test_foreign_and_truncated_and_missing_files_are_refused(tmp_path):
    file = tmp_path / "w"
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(file)
    save(file, {"model": SMALL.plain()})
    assert isinstance(load_model(file), VariationalDiffusion)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="complete safetensors file"):
        load_model(file)
    save_file(nn.Linear(1, 1).state_dict(), file)
    with pytest.raises(CheckpointError, match="metadata of the format"):
        load_model(file)
