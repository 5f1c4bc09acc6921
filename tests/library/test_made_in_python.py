"""A checkpoint that ``training.fit`` wrote in Python is one for the command line, too."""

import json
from pathlib import Path

import pytest
import torch

from vdm_lite import cli, data, training
from vdm_lite.training import checkpoints
from vdm_lite.training.config import ModelConfig, describe, load_model
from vdm_lite.training.evaluation import evaluate

MADE = ModelConfig(levels=17, widths=(4, 8), exponents=(2, 3))
ALL = data.digits().train
IMAGES, HELD_OUT = ALL[:-40], 40


def run(*given: object) -> int:
    return cli.main([*map(str, given), "--device", "cpu"])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """What a user writes: a run with its checkpoint, and the averaged weights alone."""
    folder = tmp_path_factory.mktemp("python")
    torch.manual_seed(0)
    config = describe(MADE, IMAGES, "digits", HELD_OUT)
    *_, last = training.fit(MADE.build(), IMAGES, 3, 8, progress=False,
                            checkpoint=folder / "run", config=config)  # fmt: skip
    checkpoints.save_weights(folder / "weights", last.averaged, config)
    return {"run": folder / "run", "weights": folder / "weights"}


@pytest.mark.parametrize("kind", ["run", "weights"])
def test_it_can_be_sampled_from(files, kind, tmp_path):
    assert run("sample", "--checkpoint", files[kind], "--out", tmp_path / "x.npz",
               "--images", 3, "--steps", 2) == 0  # fmt: skip
    assert (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("kind", ["run", "weights"])
@pytest.mark.parametrize("split", ["test", "held-out"])
def test_it_can_be_evaluated(files, kind, split, tmp_path):
    assert run("evaluate", "--checkpoint", files[kind], "--split", split, "--steps", 3,
               "--draws", 1, "--json", tmp_path / "report.json") == 0  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["reports"][1]
    images = data.digits().test if split == "test" else ALL[-HELD_OUT:]
    wanted = evaluate(load_model(files[kind]), images, steps=3)
    assert (report["bits_per_dim"], report["images"]) == (wanted.bits_per_dim, len(images))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config to hold 'model', as made by vdm_lite.config.describe, got"),
        ({"width": 3}, "config to hold 'model', as made by vdm_lite.config.describe, got None"),
        ({"model": MADE.plain()}, "config to hold 'data', as made by vdm_lite.config.describe"),
        ({"model": MADE.plain(), "data": 3}, "config to hold 'data', as made by vdm_lite.config"),
        (
            {"model": MADE.plain(), "data": {"name": "digits"}},
            "config.data to hold 'shape', as made by vdm_lite.config.describe, got ['name']",
        ),
        (
            {"model": MADE.plain(), "data": describe(MADE, IMAGES)["data"] | {"shape": [8, 8]}},
            "config.data.shape to be (C, H, W), got [8, 8]",
        ),
    ],
)
@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_what_is_missing_is_named_in_one_line(name, config, message, tmp_path, capsys):
    checkpoints.save_weights(tmp_path / "w", MADE.build(), config)
    more = ["--out", tmp_path / "x.png"] if name == "sample" else []
    assert run(name, "--checkpoint", tmp_path / "w", *more) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"w: expected {message}" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--data: expected a name or a path"),
        (["--data", "digits", "--split", "held-out"], "--split: expected test"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(more, message, tmp_path, capsys):
    """Images without a name of their own, none of which are known to be held out."""
    checkpoints.save_weights(tmp_path / "w", MADE.build(), describe(MADE, IMAGES))
    assert run("evaluate", "--checkpoint", tmp_path / "w", *more) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert run("evaluate", "--checkpoint", tmp_path / "w", "--data", "digits") == 0


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"^images: expected shape \(N, 1, H, W\), got \(2, 3, 4"):
        describe(MADE, torch.zeros(2, 3, 4, 4))
