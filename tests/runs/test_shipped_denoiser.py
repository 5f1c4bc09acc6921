"""The denoiser that ships: weights, log, results and the commands that are said to make them."""

import hashlib
import math
import re
import subprocess
import sys

import pytest

from vdm_lite import data
from vdm_lite.cli import options
from vdm_lite.runs.ch12 import denoiser
from vdm_lite.training import checkpoints
from vdm_lite.training.config import ModelConfig
from vdm_lite.training.evaluation import evaluate


def said(command: str) -> options.Command:
    """The options of ``vdm-lite train`` or ``evaluate`` as the module's docstring gives them."""
    line = re.search(rf"vdm-lite ({command} .*?)\n(?!        )", denoiser.__doc__, re.DOTALL)[1]
    return options.parse(line.replace("\\\n", " ").split())


@pytest.fixture(scope="module")
def metadata():
    return checkpoints.read(denoiser.WEIGHTS)[1]


def test_the_weights_are_those_of_the_command(metadata):
    given, config, settings = said("train"), metadata["config"], metadata["settings"]
    assert config["data"]["name"] == given.data and config["data"]["held_out"] == 5000
    assert config["objective"] == {"weighting": given.weighting, "times": given.times}
    assert ModelConfig.parse(config["model"]) == ModelConfig()
    wanted = {name: getattr(given, name) for name in ("batch_size", "lr", "warmup", "decay")}
    wanted |= {"clip": given.clip, "ema_decay": given.ema, "seed": given.seed}
    assert settings == {**wanted, "examples": 55_000}


def test_the_log_ends_where_the_weights_are_from(metadata):
    given, rows = said("train"), denoiser.log()
    assert 0 <= metadata["step"] - rows[-1]["step"] < given.log_every
    assert [row["step"] for row in rows[:3]] == [50, 100, 150]
    evaluated = [row for row in rows if "bits_per_dim" in row]
    assert len(evaluated) >= rows[-1]["step"] // given.evaluate_every > 0
    assert max(row["learning_rate"] for row in rows) == given.lr


def test_results_are_of_the_shipped_weights(metadata):
    results, given = denoiser.results(), said("evaluate")
    assert results["sha256"] == hashlib.sha256(denoiser.WEIGHTS.read_bytes()).hexdigest()
    assert results["step"] == metadata["step"] == said("train").steps
    assert (results["data"], results["split"]) == ("fashion-mnist", given.split or "test")
    assert [report["steps"] for report in results["reports"]] == [None, *given.steps]
    assert all((r["images"], r["draws"]) == (10_000, given.draws) for r in results["reports"])
    again = evaluate(denoiser.trained(), data.fashion_mnist().test[::10], batch_size=50)
    first = results["reports"][0]
    spread = math.hypot(again.error, first["error"])
    assert abs(again.bits_per_dim - first["bits_per_dim"]) < 4 * spread


def test_the_library_does_without_the_command_line():
    """A command line is built on a library, not the other way round."""
    code = "import sys, vdm_lite.runs.ch12.denoiser, vdm_lite.training, vdm_lite.widgets as w\n"
    code += "print(*(name for name in sys.modules if name.startswith('vdm_lite.cli')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
