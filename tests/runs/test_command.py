"""The command line: what is said reaches what it should, no run is lost, bad input is one line."""

import gzip
import hashlib
import json
import math
import runpy
import shutil
import signal
import struct
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from processes import distance
from safetensors.torch import save_file
from torch import nn

from vdm_lite import checks, cli, data, times, weighting
from vdm_lite.cli import evaluating, options, pictures, sampling, sources, watching
from vdm_lite.cli import training as train_command
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.nets import UNet
from vdm_lite.samplers import ancestral_step, ddim_step, sample
from vdm_lite.schedules import Learned, Linear
from vdm_lite.training import batch_indices, checkpoints, evaluation, journal
from vdm_lite.training.config import OUTPUTS, ModelConfig, load_model
from vdm_lite.training.update import Objective

TINY = "--device cpu --data digits --widths 4 8 --batch-size 8 --held-out 20 --images 0 --warmup 5"
TINY += " --evaluate-every 1000 --decay 0"
LEARNING = ("--schedule", "learned", "--times", "adaptive")
pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(out: Path, *more: object) -> list[str]:
    """``vdm-lite train`` of a tiny net."""
    return ["train", *TINY.split(), "--out", str(out), *map(str, more)]


@pytest.fixture
def refused(capsys):
    """Run a command that is to fail: its one line on stderr."""

    def run(*given: object, code: int = 2) -> str:
        try:
            got = cli.main([str(g) for g in given])
        except SystemExit as stop:  # argparse
            got = stop.code
        out, err = capsys.readouterr()
        assert (got, out, err.count("\n")) == (code, "", 1), err
        return err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a complete run, with everything that a run writes."""
    out = tmp_path_factory.mktemp("finished") / "run"
    more = "--steps 6 --every 4 --log-every 2 --evaluate-every 3 --images 5 --seed 3 --ema 0.5"
    assert cli.main(arguments(out, *more.split())) == 0
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read(folder / "checkpoint.safetensors")[0]


def same(a: Path, b: Path) -> bool:
    """Whether two runs hold the same bits: weights, averages, optimizer, sampler, random states."""
    left, right = (checkpoints.read(f / "checkpoint.safetensors") for f in (a, b))
    assert left[0].keys() == right[0].keys() and left[1] == right[1]
    parts = {name.partition(".")[0] for name in left[0]}
    assert {"model", "ema", "optimizer", "rng"} <= parts
    return all(torch.equal(t, right[0][name]) for name, t in left[0].items())


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "train", "evaluate", "sample"])
def test_help_explains_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([*([name] if name else []), "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert "==SUPPRESS==" not in text and "None" not in text
    if name is None:
        assert all(each in text for each in ("train", "evaluate", "sample"))
        return
    commands = options.parser()._subparsers._group_actions[0].choices
    words = " ".join(text.split()).replace("- ", "-")
    for action in commands[name]._actions:
        assert action.help and action.option_strings[0] in words
        assert all(choice in words for choice in action.choices or ())
    if name == "train":
        for default in ("0.002", "0", "64", "48 80 96", "linear"):
            assert f"(default: {default})" in words


def test_the_package_is_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "train", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("vdm_lite.cli", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: vdm-lite train")


# --- what is said reaches what it should ---------------------------------------------------------


class Caught(Exception):
    """Carries what ``training.fit`` was called with."""


@pytest.fixture
def caught(monkeypatch, tmp_path):
    """What ``fit`` is asked for by these arguments."""

    def fit(model, images, steps, batch_size, lr, **rest):
        raise Caught({**locals(), **rest})

    monkeypatch.setattr(train_command, "fit", fit)

    def run(*more: object) -> dict:
        with pytest.raises(Caught) as error:
            cli.main(arguments(tmp_path, *more))
        return error.value.args[0]

    return run


NUMBERS = [
    ("--steps", 9, "steps"),
    ("--batch-size", 12, "batch_size"),
    ("--lr", 0.25, "lr"),
    ("--warmup", 0, "warmup"),
    ("--decay", 3, "decay"),
    ("--clip", 7.5, "clip"),
    ("--ema", 0.5, "ema_decay"),
    ("--accumulate", 2, "accumulate"),
    ("--seed", 11, "seed"),
    ("--every", 7, "every"),
]


@pytest.mark.parametrize(("option", "value", "name"), NUMBERS)
def test_numbers_reach_the_optimizer(caught, option, value, name):
    assert caught(option, value)[name] == value


def without_decay(given: list[str]) -> list[str]:
    at = given.index("--decay")
    return given[:at] + given[at + 2 :]


@pytest.mark.parametrize(("more", "lengths"), [((), (10_000, 3333)), (("--steps", 31), (31, 10))])
def test_a_third_of_the_steps_decays(tmp_path, caught, more, lengths):
    with pytest.raises(Caught) as error:
        cli.main(without_decay(arguments(tmp_path, *more)))
    got = error.value.args[0]
    assert (got["steps"], got["decay"]) == lengths


@pytest.mark.parametrize(("more", "steps"), [((), 6), (("--steps", 31), 31)])
def test_a_run_that_goes_on_keeps_its_steps_and_its_decay(tmp_path, caught, finished, more, steps):
    shutil.copy(finished / "checkpoint.safetensors", tmp_path)  # 6 steps, no decay
    with pytest.raises(Caught) as error:
        cli.main(without_decay(arguments(tmp_path, *more, "--resume")))
    got = error.value.args[0]
    assert (got["steps"], got["decay"]) == (steps, 0)


@pytest.mark.parametrize("name", options.WEIGHTINGS)
def test_weightings_reach_the_loss(caught, name):
    loss = caught("--weighting", name)["loss"]
    assert loss.keywords["weighting"] is options.WEIGHTINGS[name]
    logsnr = torch.linspace(-5, 13, 7)
    assert options.WEIGHTINGS[name](logsnr).shape == (7,)
    if hasattr(weighting, known := name.replace("-", "_")) and name not in ("sigmoid", "min-snr"):
        made = getattr(weighting, known)
        wanted = made()(logsnr) if name in ("p2", "logit-normal") else made(logsnr)
        assert torch.equal(loss.keywords["weighting"](logsnr), wanted)


@pytest.mark.parametrize("name", options.TIMES)
def test_time_samplers_reach_the_loss(caught, name):
    got = caught("--times", name)
    if name == "adaptive":
        assert isinstance(got["keep"], times.Adaptive) and got["keep"].moment == 2
        assert got["loss"].keywords["times"] is got["keep"]
    else:
        assert got["keep"] is None
        assert got["loss"].keywords["times"] is getattr(times, name.replace("-", "_"))


def test_the_model_is_the_one_described(caught):
    more = "--widths 8 16 24 --blocks 2 --output velocity --schedule cosine"
    got = caught(*more.split(), "--logsnr-max", 9, "--logsnr-min", -4, "--fourier", 0, 2)
    wanted = ModelConfig(1, 17, (8, 16, 24), 2, (0, 2), "velocity", "cosine", 9.0, -4.0)
    assert ModelConfig.parse(got["config"]["model"]) == wanted
    model = got["model"]
    assert model.parameterization is OUTPUTS["velocity"] and model.likelihood == Discretized(17)
    shape = {"name": "digits", "shape": [1, 8, 8], "levels": 17, "held_out": 20}
    assert got["config"]["data"] == shape
    assert got["config"]["objective"] == {"weighting": "elbo", "times": "low-discrepancy"}
    assert len(got["images"]) == len(data.digits().train) - 20


def test_features_fit_the_levels_of_the_data_unless_said_otherwise(caught):
    assert caught()["model"].denoiser.fourier.exponents == (2, 3)  # 2^-3: two of 17 levels
    assert caught("--fourier")["model"].denoiser.fourier.exponents == ()
    subset = caught("--data", "fashion-mnist-subset")["model"]
    assert subset.denoiser.fourier.exponents == ModelConfig().exponents


def test_the_seed_makes_the_weights(caught):
    first, again, other = (
        caught("--seed", seed)["model"].denoiser.inner.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_end_points_are_trained_on_the_whole_bound(caught):
    got = caught("--schedule", "learned", "--train-ends")
    assert got["model"].schedule.logsnr_max.requires_grad
    batch = got["images"][:4]
    loss = got["loss"](batch, generator=torch.Generator().manual_seed(0))
    bound = got["model"].elbo(batch, generator=torch.Generator().manual_seed(0)).nelbo
    assert torch.equal(loss, bound)


def test_the_engine_is_the_one_asked_for(caught):
    fabric = caught("--precision", "bf16-mixed")["fabric"]
    assert (fabric.device.type, fabric.world_size) == ("cpu", 1)
    network = fabric.setup_module(nn.Linear(2, 2))
    seen = []
    network.module.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    network(torch.ones(1, 2))
    assert seen == [torch.bfloat16]


# --- numbers -------------------------------------------------------------------------------------


class Scale(nn.Module):
    """A denoiser whose arithmetic autocast leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, z, logsnr):
        return self.w * z


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("schedule", [Linear(), Learned(train_ends=True)])
def test_noise_levels_and_costs_are_float32_in_mixed_precision(caught, output, schedule):
    fabric = caught("--precision", "bf16-mixed")["fabric"]
    model = VariationalDiffusion(Scale(), schedule, OUTPUTS[output], Discretized(17))
    batch = data.digits().train[:32]
    for loss in (model.loss, lambda batch, generator: model.elbo(batch, generator=generator).nelbo):
        mixed = fabric.setup_module(Objective(model, loss))
        got = mixed(batch, torch.Generator().manual_seed(0))
        wanted = loss(batch, generator=torch.Generator().manual_seed(0))
        assert got.dtype == torch.float32 and torch.equal(got, wanted)


def test_mixed_precision_trains(tmp_path):
    for name, more in (("full", []), ("mixed", ["--precision", "bf16-mixed"])):
        given = arguments(tmp_path / name, "--steps", 4, "--log-every", 1, *more)
        assert cli.main(given) == 0
    full, mixed = (journal.read(tmp_path / name / "log.csv") for name in ("full", "mixed"))
    for a, b in zip(full, mixed, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.01)
    # Measured: 0.06; a run that draws other times is 1.1 away.
    assert 0 < distance(tmp_path / "full", tmp_path / "mixed") < 0.2
    assert {t.dtype for n, t in tensors(tmp_path / "mixed").items() if n[:3] == "ema"} == {
        torch.float32
    }


@pytest.mark.parametrize("more", [(), ("--schedule", "learned", "--train-ends")])
def test_parts_of_a_batch_make_the_whole(tmp_path, more):
    for parts in (1, 4):
        given = arguments(tmp_path / str(parts), "--steps", 5, "--log-every", 1, *more)
        given += ["--accumulate", str(parts)]
        assert cli.main(given) == 0
    whole, parts = (journal.read(tmp_path / name / "log.csv") for name in ("1", "4"))
    for a, b in zip(whole, parts, strict=True):
        assert a == pytest.approx({**b, "images_per_s": a["images_per_s"]}, rel=1e-3)
    assert distance(tmp_path / "1", tmp_path / "4") < 0.01
    assert torch.equal(tensors(tmp_path / "1")["rng.cpu"], tensors(tmp_path / "4")["rng.cpu"])


def test_learned_schedule_ends_and_adaptive_times_are_trained(tmp_path):
    more = ("--schedule", "learned", "--train-ends", "--lr", 0.01)
    assert cli.main(arguments(tmp_path / "ends", "--steps", 5, *more)) == 0
    schedule = load_model(tmp_path / "ends" / "weights.safetensors").schedule
    moved = torch.stack([schedule.logsnr_max - 13.3, schedule.logsnr_min + 5, schedule.raw.std()])
    assert (moved.abs() > 1e-4).all()
    assert cli.main(arguments(tmp_path / "times", "--steps", 5, *LEARNING)) == 0
    kept = tensors(tmp_path / "times")
    seen = sum(8 * 0.999**k for k in range(5))
    assert kept["keep.visits"].sum().item() == pytest.approx(seen, rel=1e-5)
    ends = load_model(tmp_path / "times" / "weights.safetensors").schedule
    assert (ends.logsnr_max, ends.logsnr_min) == (pytest.approx(13.3), pytest.approx(-5))


def test_a_compiled_network_trains_to_the_same_weights(tmp_path, monkeypatch):
    """By the backend that compiles no C++, which takes a minute: what it is given is the same."""
    compiled, compile_ = [], nn.Module.compile

    def quick(module):
        compiled.append(type(module))
        compile_(module, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", quick)
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert cli.main(arguments(tmp_path / name, "--steps", 3, *more)) == 0
    assert compiled == [UNet]
    assert distance(tmp_path / "plain", tmp_path / "compiled") < 0.01
    assert tensors(tmp_path / "plain").keys() == tensors(tmp_path / "compiled").keys()


# --- what is written -----------------------------------------------------------------------------


def test_the_log_has_a_row_for_each_step_asked_for(finished):
    rows = journal.read(finished / "log.csv")
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    costs = {"bits_per_dim", "error", "prior", "reconstruction", "diffusion"}
    training = {"loss", "grad_norm", "learning_rate", "images_per_s"}
    assert [row.keys() - {"step"} for row in rows] == [training, costs, training, training | costs]
    assert [rows[0]["learning_rate"], rows[2]["learning_rate"]] == [8e-4, 1.6e-3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    last = rows[-1]
    parts = last["prior"] + last["reconstruction"] + last["diffusion"]
    assert parts == pytest.approx(last["bits_per_dim"], rel=1e-4)
    model = load_model(finished / "weights.safetensors")
    report = evaluation.evaluate(model, data.digits().train[-20:])
    for name in costs:
        assert last[name] == pytest.approx(getattr(report, name), rel=1e-4), name


def test_the_loss_is_the_mean_over_the_steps_since_the_last_row(tmp_path, finished):
    assert cli.main(arguments(tmp_path, "--steps", 6, "--log-every", 1, "--seed", 3)) == 0
    each = [row["loss"] for row in journal.read(tmp_path / "log.csv")]
    rows = [row["loss"] for row in journal.read(finished / "log.csv") if "loss" in row]
    assert rows == pytest.approx([sum(each[i : i + 2]) / 2 for i in (0, 2, 4)], rel=1e-4)


def test_a_weighted_loss_is_called_one(tmp_path):
    given = arguments(tmp_path, "--steps", 2, "--log-every", 1, "--weighting", "edm")
    assert cli.main(given) == 0
    names = [row.keys() & set(journal.LOSSES) for row in journal.read(tmp_path / "log.csv")]
    assert names == [{"weighted_loss"}] * 2


def test_evaluations_do_not_count_as_time_of_training(tmp_path, monkeypatch):
    """By a clock that only updates (a second) and evaluations (a thousand) move."""
    now, fit, evaluate = [0], train_command.fit, watching.evaluate

    def slow_fit(*given, **more):
        for step in fit(*given, **more):
            now[0] += 1
            yield step

    def slow_evaluate(*given, **more):
        now[0] += 1000
        return evaluate(*given, **more)

    monkeypatch.setattr(train_command, "fit", slow_fit)
    monkeypatch.setattr(watching, "evaluate", slow_evaluate)
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    more = ("--steps", 7, "--log-every", 3, "--evaluate-every", 2)
    assert cli.main(arguments(tmp_path, *more)) == 0
    rows = journal.read(tmp_path / "log.csv")
    assert [row.get("images_per_s") for row in rows] == [None, 8, None, 8, 8]


def test_a_step_beyond_a_million_keeps_its_digits(tmp_path):
    log = journal.Journal(tmp_path, 0)
    log.write(1_234_567, {"loss": 1.0})
    log.close()
    assert journal.read(tmp_path / "log.csv")[0]["step"] == 1_234_567


def test_a_failure_of_tensorboard_is_not_called_one_of_the_log(tmp_path, monkeypatch):
    def full():
        raise OSError("disk full")

    log = journal.Journal(tmp_path, 0)
    monkeypatch.setattr(log.board, "flush", full)
    monkeypatch.setattr(log.board, "close", full)
    wanted = f"^{tmp_path / 'tensorboard'}: cannot be written: disk full"
    with pytest.raises(OSError, match=wanted):
        log.write(1, {"loss": 1.0})
    assert [row["step"] for row in journal.read(tmp_path / "log.csv")] == [1]
    with pytest.raises(OSError, match=wanted):
        log.close()
    monkeypatch.undo()
    log.close()


@pytest.mark.parametrize(("batch_size", "wanted"), [(8, 30), (64, 64), (300, 250)])
def test_what_training_takes_at_a_time_is_evaluated_at_a_time(
    tmp_path, monkeypatch, batch_size, wanted
):
    """So that a smaller batch helps against too little memory; 30 for the error's sake."""
    sizes, evaluate = [], watching.evaluate

    def spy(*given, batch_size, **more):
        sizes.append(batch_size)
        return evaluate(*given, batch_size=batch_size, **more)

    monkeypatch.setattr(watching, "evaluate", spy)
    assert cli.main(arguments(tmp_path, "--steps", 1, "--batch-size", batch_size)) == 0
    assert sizes == [wanted]


def test_tensorboard_shows_the_rows_of_the_log(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    rows = journal.read(finished / "log.csv")
    for name in journal.columns()[1:]:
        wanted = [(row["step"], row[name]) for row in rows if name in row]
        got = [(event.step, event.value) for event in events.Scalars(name)]
        assert got == [(step, pytest.approx(value, rel=1e-5)) for step, value in wanted], name


def test_sample_grids_show_what_the_model_draws(finished):
    files = sorted(path.name for path in (finished / "samples").iterdir())
    assert files == ["step_0000003.png", "step_0000006.png"]
    model = load_model(finished / "weights.safetensors")
    *_, last = sample(model, (5, 1, 8, 8), 100, generator=torch.Generator().manual_seed(3))
    check_grid(finished / "samples" / files[1], model.likelihood.decode(last.x_hat))


def check_grid(path: Path, levels: torch.Tensor) -> None:
    """Five images of digits, three a row: brightness 0 to 255 for levels 0 to 16, gray between."""
    pixels = torch.tensor([*Image.open(path).tobytes()]).view(22, 32)
    assert Image.open(path).mode == "L"
    for i, image in enumerate(levels[:, 0]):
        top, left = 2 + 10 * (i // 3), 2 + 10 * (i % 3)
        shown = pixels[top : top + 8, left : left + 8]
        assert torch.equal(shown, (image * 255 / 16).round().long())
    assert (pixels[:2] == 128).all() and (pixels[12:, 22:] == 128).all()


def test_a_grid_of_colors():
    levels = torch.randint(256, (2, 3, 4, 5))
    canvas = pictures.grid(levels, 256)
    assert canvas.shape == (8, 16, 3) and canvas.dtype == torch.uint8
    assert torch.equal(canvas[2:6, 9:14].long(), levels[1].permute(1, 2, 0))


def test_weights_are_the_averaged_ones_alone(finished):
    alone, metadata = checkpoints.read(finished / "weights.safetensors")
    whole, everything = checkpoints.read(finished / "checkpoint.safetensors")
    assert alone.keys() == {name for name in whole if name.startswith("ema.")}
    assert all(torch.equal(t, whole[name]) for name, t in alone.items())
    assert metadata["config"] == everything["config"] and metadata["step"] == 6
    wanted = {"examples": 1422, "batch_size": 8, "lr": 2e-3, "warmup": 5, "decay": 0, "clip": 1.0}
    assert metadata["settings"] == {**wanted, "ema_decay": 0.5, "seed": 3}
    assert not torch.equal(whole["ema.denoiser.outer.weight"], whole["model.denoiser.outer.weight"])
    assert {path.name for path in finished.iterdir()} == {
        "checkpoint.safetensors", "weights.safetensors", "log.csv", "samples", "tensorboard",
        "options.json", ".lock",
    }  # fmt: skip


def test_what_comes_next_is_said(tmp_path, capsys):
    assert cli.main(arguments(tmp_path, "--steps", 1)) == 0
    out, err = capsys.readouterr()
    assert f"Next: vdm-lite evaluate --checkpoint {tmp_path / 'weights.safetensors'}" in out
    assert "step/s" in err and err.endswith("\r")  # the bar, which has wiped itself


# --- evaluate and sample -------------------------------------------------------------------------


def test_evaluate_prints_what_the_library_computes(finished, tmp_path, capsys):
    file, more = tmp_path / "deep" / "numbers.json", ("--draws", 2, "--seed", 4, "--steps", 5, 50)
    given = ("evaluate", "--checkpoint", finished / "weights.safetensors", *more, "--json", file)
    assert cli.main([*map(str, given), "--batch-size", "100", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    model, images = load_model(finished / "checkpoint.safetensors"), data.digits().test
    wanted = [evaluation.evaluate(model, images, 2, T, 100, seed=4) for T in (None, 5, 50)]
    lines = out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["continuous", "5", "50"]
    for line, report in zip(lines, wanted, strict=True):
        assert [float(number) for number in line.split()[1:]] == pytest.approx(
            [*report[:5]], abs=5.1e-5
        )
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["reports"] == [report._asdict() for report in wanted]
    assert (content["data"], content["split"], content["seed"]) == ("digits", "test", 4)
    digest = hashlib.sha256((finished / "weights.safetensors").read_bytes()).hexdigest()
    assert (content["checkpoint"], content["sha256"]) == ("weights.safetensors", digest)
    assert (content["step"], content["torch"]) == (6, torch.__version__)
    assert err.endswith("\r") and "355 test images of digits, 2 draws each" in out


def test_bounds_that_were_found_are_kept_when_the_next_is_stopped(finished, tmp_path, monkeypatch):
    def stop_at_layers(*given, **more):
        if given[3] is not None:
            raise KeyboardInterrupt
        return evaluation.evaluate(*given, **more)

    monkeypatch.setattr(evaluating, "evaluate", stop_at_layers)
    given = ["evaluate", "--checkpoint", str(finished / "weights.safetensors"), "--device", "cpu"]
    file = tmp_path / "numbers.json"
    assert cli.main([*given, "--draws", "1", "--steps", "5", "--json", str(file)]) == 130
    assert [
        report["steps"] for report in json.loads(file.read_text(encoding="utf-8"))["reports"]
    ] == [None]


def test_evaluate_takes_the_images_that_the_run_held_out(finished, capsys):
    given = ["evaluate", "--checkpoint", str(finished / "checkpoint.safetensors"), "--draws", "1"]
    assert cli.main([*given, "--split", "held-out", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    last = journal.read(finished / "log.csv")[-1]
    assert "20 held-out images" in out
    assert float(out.split()[-5]) == pytest.approx(last["bits_per_dim"], abs=5.1e-5)


@pytest.mark.parametrize("step", options.STEPS)
def test_sample_writes_what_the_sampler_draws(finished, tmp_path, step, capsys):
    weights, out = finished / "weights.safetensors", tmp_path / "new" / "grid.png"
    given = f"sample --checkpoint {weights} --out {out} --images 5 --steps 7 --step {step} --seed 9"
    assert cli.main([*given.split(), "--device", "cpu"]) == 0
    kind = {"ancestral": ancestral_step, "ddim": ddim_step}[step]
    model = load_model(weights)
    *_, last = sample(model, (5, 1, 8, 8), 7, kind, torch.Generator().manual_seed(9))
    check_grid(out, model.likelihood.decode(last.x_hat))
    assert str(out) in capsys.readouterr().out


def test_samples_of_another_size(finished, tmp_path):
    given = f"sample --checkpoint {finished / 'weights.safetensors'} --out {tmp_path / 'a.png'}"
    more = "--images 1 --steps 2 --size 12 16 --device cpu"
    assert cli.main([*given.split(), *more.split()]) == 0
    assert Image.open(tmp_path / "a.png").size == (20, 16)


# --- no run is lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), LEARNING], ids=["plain", "learning"])
def test_kill_9_and_resume_is_the_straight_run_bit_for_bit(launch, tmp_path, more):
    """20 steps = 10 + two that are lost by kill -9 + 10."""
    every = ("--steps", 20, "--every", 10, "--log-every", 1, *more)
    assert cli.main(arguments(tmp_path / "straight", *every)) == 0
    given = arguments(tmp_path / "killed", *every)
    ended = launch(given, events=[(12, {"signals": [signal.SIGKILL]})])
    assert ended.codes == [-signal.SIGKILL]
    assert checkpoints.read(tmp_path / "killed" / "checkpoint.safetensors")[1]["step"] == 10
    assert len(journal.read(tmp_path / "killed" / "log.csv")) == 12
    ended = launch([*given, "--resume"])
    assert (ended.codes, ended.err) == ([0], [""])
    assert same(tmp_path / "straight", tmp_path / "killed")
    logs = [journal.read(tmp_path / name / "log.csv") for name in ("straight", "killed")]
    assert [row["step"] for row in logs[1]] == [*range(1, 21)]
    for a, b in zip(*logs, strict=True):
        assert {**a, "images_per_s": 0} == {**b, "images_per_s": 0}
    straight, killed = (tmp_path / name / "weights.safetensors" for name in ("straight", "killed"))
    assert straight.read_bytes() == killed.read_bytes()


KILLED = """
import os, signal
from vdm_lite import cli
from vdm_lite.cli import watching

evaluate, calls = watching.evaluate, []

def fatal(*given, **more):
    calls.append(given)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(*given, **more)

watching.evaluate = fatal
cli.main(ARGUMENTS)
"""


def test_a_kill_during_an_evaluation_costs_no_row_and_no_picture(launch, tmp_path):
    """The checkpoint of step 4 is there, its row is not: the run that goes on makes it."""
    more = ("--steps", 6, "--every", 2, "--evaluate-every", 2, "--log-every", 1, "--images", 1)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert cli.main(arguments(straight, *more)) == 0
    given = arguments(killed, *more)
    ended = launch(script=f"ARGUMENTS = {given!r}\n{KILLED}")
    assert ended.codes == [-signal.SIGKILL]
    assert checkpoints.read(killed / "checkpoint.safetensors")[1]["step"] == 4
    assert len(journal.read(killed / "log.csv")) == 3
    assert cli.main([*given, "--resume"]) == 0
    rows = [journal.read(folder / "log.csv") for folder in (straight, killed)]
    assert [row["step"] for row in rows[1]] == [*range(1, 7)]
    for a, b in zip(*rows, strict=True):
        assert {**a, "images_per_s": 0} == {**b, "images_per_s": 0}
    for name in (f"samples/step_{step:07d}.png" for step in (2, 4, 6)):
        assert (straight / name).read_bytes() == (killed / name).read_bytes()


def test_losses_before_a_stop_are_in_the_log(launch, tmp_path):
    """Stopped after step 6 between rows 4 and 8: a row of its own holds what was seen."""
    each = arguments(tmp_path / "each", "--steps", 9, "--log-every", 1)
    assert cli.main(each) == 0
    loss = {row["step"]: row["loss"] for row in journal.read(tmp_path / "each" / "log.csv")}
    given = arguments(tmp_path / "run", "--steps", 9, "--log-every", 4)
    assert launch(given, events=[(5, {"signals": [signal.SIGINT]})]).codes == [130]
    assert cli.main([*given, "--resume"]) == 0
    rows = journal.read(tmp_path / "run" / "log.csv")
    seen = {4: (1, 2, 3, 4), 6: (5, 6), 8: (7, 8), 9: (9,)}
    assert [row["step"] for row in rows] == [*seen]
    for row, steps in zip(rows, seen.values(), strict=True):
        mean = sum(loss[step] for step in steps) / len(steps)
        assert row["loss"] == pytest.approx(mean, rel=1e-4)
        assert row["images_per_s"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(launch, tmp_path, number):
    given = arguments(tmp_path / "run", "--steps", 9, "--every", 100)
    ended = launch(given, events=[(3, {"signals": [number]})])
    assert ended.codes == [130]
    assert ended.err == ["\nStopping after this step; once more to stop at once\n"]
    assert ended.out == ["Stopped after step 4 of 9; go on with --resume\n"]
    assert checkpoints.read(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 4
    assert cli.main([*given, "--resume"]) == 0
    assert cli.main(arguments(tmp_path / "straight", "--steps", 9)) == 0
    assert same(tmp_path / "straight", tmp_path / "run")


def test_a_stopped_run_goes_on_to_the_steps_it_was_given(launch, refused, tmp_path, capsys):
    given = without_decay(arguments(tmp_path / "run"))
    ended = launch([*given, "--steps", "9"], events=[(0, {"signals": [signal.SIGINT]})])
    assert ended.out == ["Stopped after step 1 of 9; go on with --resume\n"]
    # Its rate is to fall over three steps.
    assert "--steps: expected at least 3, as in" in refused(*given, "--resume", "--steps", 2)
    assert cli.main([*given, "--resume"]) == 0
    assert cli.main(without_decay(arguments(tmp_path / "straight", "--steps", 9))) == 0
    assert same(tmp_path / "straight", tmp_path / "run")
    capsys.readouterr()
    assert "--steps: expected at least 9, as in" in refused(*given, "--resume", "--steps", 2)


def test_a_checkpoint_that_does_not_hold_its_steps_has_to_be_told(refused, finished, tmp_path):
    """Older ones did not, and had no options.json beside them."""
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "options.json").unlink()
    found, metadata = checkpoints.read(copy / "checkpoint.safetensors")
    del metadata["steps"]
    checkpoints.write(copy / "checkpoint.safetensors", found, metadata)
    given = arguments(copy, "--resume", "--seed", 3, "--ema", 0.5)
    file = copy / "checkpoint.safetensors"
    assert f"--steps: give their number, which {file} does not hold" in refused(*given)
    assert cli.main([*given, "--steps", "7"]) == 0
    assert checkpoints.read_metadata(file)["steps"] == 7


def test_a_second_ctrl_c_ends_at_once(launch, tmp_path):
    given = arguments(tmp_path / "run", "--steps", 9, "--every", 2)
    late = "import time; time.sleep(2.5)"
    ended = launch(given, events=[(3, {"signals": [2], "run": late, "again": [2]})])
    assert ended.codes == [130] and ended.out == [""]
    assert ended.err[0].endswith("vdm-lite: stopped\n") and "Traceback" not in ended.err[0]
    assert checkpoints.read(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 2


def test_a_full_disk_is_named_and_leaves_the_last_good_checkpoint(launch, tmp_path):
    given = arguments(tmp_path / "run", "--steps", 12, "--every", 4)
    ended = launch(given, events=[(6, {"limit": 5000})])
    assert ended.codes == [2] and ended.err[0].count("\n") == 1
    assert f"{tmp_path / 'run' / 'checkpoint.safetensors'}: cannot be written" in ended.err[0]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint.safetensors", "log.csv", "tensorboard", "options.json", ".lock"
    }  # fmt: skip
    assert checkpoints.read(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 4
    assert cli.main([*given, "--resume"]) == 0
    assert cli.main(arguments(tmp_path / "straight", "--steps", 12)) == 0
    assert same(tmp_path / "straight", tmp_path / "run")


def test_a_row_that_was_cut_off_is_no_row(tmp_path):
    written = journal.Journal(tmp_path, 0)
    for step in (1, 2, 12):
        written.write(step, {"loss": step / 2})
    written.close()
    log = tmp_path / "log.csv"
    log.write_text(
        log.read_text(encoding="utf-8")[: -len("2,6,,,,,,,,,\n")], encoding="utf-8"
    )  # of step 12 a 1 is left
    assert journal.read(log) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]
    again = journal.Journal(tmp_path, 1)
    again.write(2, {"loss": 7.0})
    again.close()
    assert journal.read(log) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 7.0}]


def test_a_complete_run_stays_complete_and_can_be_made_longer(tmp_path):
    given = arguments(tmp_path / "run")
    assert cli.main([*given, "--steps", "3"]) == 0
    files = [tmp_path / "run" / name for name in ("checkpoint.safetensors", "log.csv")]
    before = [file.read_bytes() for file in files]
    assert cli.main([*given, "--steps", "3", "--resume"]) == 0
    assert [file.read_bytes() for file in files] == before
    assert cli.main([*given, "--steps", "5", "--resume"]) == 0
    assert cli.main(arguments(tmp_path / "straight", "--steps", "5")) == 0
    assert same(tmp_path / "straight", tmp_path / "run")


@pytest.mark.parametrize("more", [(), LEARNING], ids=["plain", "learning"])
def test_numbers_that_are_not_finite_stop_with_what_led_there(tmp_path, refused, more):
    given = arguments(tmp_path, "--steps", 9, "--lr", 1e30, "--warmup", 0, *more)
    line = refused(*given, code=1)
    file = tmp_path / "checkpoint.failed.safetensors"
    assert "step 2: expected a finite loss" in line and str(file) in line
    found, metadata = checkpoints.read(file)
    model = ModelConfig.parse(metadata["config"]["model"]).build()
    checkpoints.load_into(model, checkpoints.part(found, "model"), file)
    index = batch_indices(1, metadata["examples"], 8, metadata["seed"])
    assert metadata["step"] == 1
    assert torch.equal(found["batch"], data.digits().train[:-20][index])
    sampler = options.TIMES[metadata["config"]["objective"]["times"]]()
    if more:
        checkpoints.load_into(sampler, checkpoints.part(found, "keep"), file)
        assert sampler.total.isfinite().all() and sampler.visits.sum() == 8
    generator = torch.Generator()
    generator.set_state(found["rng.cpu"])
    with checks.read_later():  # as in the run: else the loss names the denoiser, which says NaN
        loss = model.loss(found["batch"], times=sampler, generator=generator)
    assert not loss.isfinite().all()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "the following arguments are required: train|evaluate|sample"),
        ("fly", "invalid choice: 'fly'"),
        ("train", "the following arguments are required: --out"),
        ("train --out x --data cats", "or a path of images, got 'cats', which is not there"),
        ("train --out x --schedule quadratic", "argument --schedule: invalid choice"),
        ("train --out x --weighting w", "argument --weighting: invalid choice"),
        ("train --out x --times t", "argument --times: invalid choice"),
        ("train --out x --output noises", "argument --output: invalid choice"),
        ("train --out x --precision 64", "argument --precision: invalid choice"),
        ("train --out x --strategy dp", "argument --strategy: invalid choice"),
        ("train --out x --device tpu", "argument --device: invalid choice"),
        ("train --out x --steps 0", "--steps: expected a whole number from 1 to 1000000000, got"),
        ("train --out x --steps 1e3", "argument --steps: expected a whole number from 1"),
        ("train --out x --lr nan", "argument --lr: expected a positive number, got 'nan'"),
        ("train --out x --ema 1", "argument --ema: expected a number from 0 to below 1, got '1'"),
        (
            "train --out x --seed -1",
            "argument --seed: expected a whole number from 0 to below 2^40",
        ),
        (f"train --out x --seed {2**40}", "a whole number from 0 to below 2^40, got '10995"),
        ("train --out x --widths", "argument --widths: expected at least one argument"),
        ("train --out x --color", "unrecognized arguments: --color"),
        ("sample --checkpoint x --out y --step euler", "argument --step: invalid choice"),
    ],
)
def test_unknown_options_and_values(refused, given, message):
    line = refused(*given.split())
    assert message in line and "--help explains" in line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folder", "x"], "--folder: expected none, as digits comes with the library, got x"),
        (["--download"], "--download: expected --data mnist or cifar10, got digits"),
        (["--held-out", 1500], "--held-out: expected a number from 2 to 1441, got 1500"),
        (["--batch-size", 5000], "--batch-size: expected at most"),
        (["--accumulate", 3], "--batch-size: expected a multiple of 3 (processes x parts), got 8"),
        (["--decay", 30_000], "--decay: expected a number from 0 to steps = 10000, got 30000"),
        (["--fourier", 2000], "--fourier: expected whole numbers from 0 to 20, got (2000,)"),
        (["--train-ends"], "--train-ends: expected schedule learned, got linear"),
        (
            ["--train-ends", "--schedule", "learned", "--times", "adaptive"],
            "--train-ends: the ends are learned on the whole bound",
        ),
        (["--compile", "--schedule", "learned"], "--compile: expected no --schedule learned"),
        (["--logsnr-max", -9], "--logsnr-max, --logsnr-min: expected logsnr_max > logsnr_min"),
        (["--logsnr-max", 1000], "--logsnr-max: expected a number from -80 to 80, got 1000"),
        (["--blocks", 1_000_000], "--blocks: expected a whole number <= 100, got 1000000"),
        (["--widths", *[4] * 5], "--widths: expected fewer for images of (8, 8)"),
        (["--data", "fashion-mnist", "--folder", "/nowhere"], "install Debian's package"),
        (["--resume"], "--resume: "),
    ],
)
def test_what_does_not_fit_together(refused, tmp_path, more, message):
    assert message in refused(*arguments(tmp_path / "run", *more))
    assert not (tmp_path / "run" / "log.csv").exists()


def test_too_little_memory_is_one_line(refused, finished, tmp_path, monkeypatch):
    def full(*given, **more):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    for module, name in ((train_command, "fit"), (evaluating, "evaluate"), (sampling, "sample")):
        monkeypatch.setattr(module, name, full)
    for rank in ("0", "1"):  # each process has a device of its own
        monkeypatch.setenv("LOCAL_RANK", rank)
        line = refused(*arguments(tmp_path / rank))
        assert all(option in line for option in ("--accumulate", "--batch-size", "--images"))
    given = ("--checkpoint", finished / "weights.safetensors", "--device", "cpu")
    assert "--images" in refused("sample", *given, "--out", tmp_path / "x.png")
    assert cli.main(["evaluate", *map(str, given)]) == 2  # its heading has been printed


def test_processes_that_cannot_be_started_are_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    line = refused(*arguments(tmp_path / "run"))
    assert "the processes cannot be started" in line and "ntasks-per-node" in line


def test_errors_are_told_in_options():
    for message, wanted in (
        ("steps: expected 3, got 4", "--steps: expected 3, got 4"),
        ("logsnr_max, other: expected x", "--logsnr-max, other: expected x"),
        ("model: expected steps", "model: expected steps"),
        ("a/steps: expected x", "a/steps: expected x"),
        ("two\n lines", "two lines"),
    ):
        assert options.in_options(ValueError(message), options.Train) == wanted
    for setting, wanted in (
        ("ema_decay", "--ema"),
        ("config.data.held_out", "--held-out"),
        ("config.data.name", "--data"),
    ):  # of a file that is called like an option
        error = checkpoints.CheckpointError("steps", f"a run with {setting} = 1", 2)
        line = options.in_options(error, options.Train)
        assert line == f"steps: expected a run with {wanted} = 1, got 2"


def test_a_device_that_is_not_here(refused, tmp_path, finished, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    wanted = "--device: expected one that torch finds here: cpu, got cuda"
    assert wanted in refused(*arguments(tmp_path, "--device", "cuda"))
    file = finished / "weights.safetensors"
    assert wanted in refused("evaluate", "--checkpoint", file, "--device", "cuda")
    assert wanted in refused("sample", "--checkpoint", file, "--device", "cuda", "--out", "x.png")


def test_more_devices_than_there_are(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = refused(*arguments(tmp_path, "--device", "cuda", "--devices", 3))
    assert "--devices: expected at most 2 on cuda, got 3" in line


def test_other_numbers_than_torchrun_started(refused, tmp_path, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    line = refused(*arguments(tmp_path, "--devices", 3))
    assert "--devices: expected 2, as by torchrun, got 3" in line


def test_auto_takes_the_best_device_that_is_here(monkeypatch):
    for mps, cuda, wanted in ((False, False, "cpu"), (True, False, "mps"), (False, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert sources.device("auto") == wanted


@pytest.mark.parametrize("name", ["lightning_fabric", "tensorboard"])
def test_what_training_needs_is_named_where_it_is_missing(refused, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'vdm-lite[train]'" in refused(*arguments(tmp_path))


def original(folder: Path) -> None:
    """A folder like Fashion-MNIST's, with other content."""
    folder.mkdir()
    for part in ("train", "t10k"):
        images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
        labels = struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes(2)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_data_that_are_missing_or_other(refused, tmp_path, monkeypatch):
    given = arguments(tmp_path / "run", "--data", "fashion-mnist", "--folder")
    line = refused(*given, tmp_path / "nowhere")
    assert "--folder: expected one that holds train-images-idx3-ubyte.gz" in line
    original(tmp_path / "other")
    line = refused(*given, tmp_path / "other")
    assert "--folder: expected SHA-256" in line and "fashion-mnist-subset" in line
    file = tmp_path / "other" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    assert "expected a gzip file" in refused(*given, tmp_path / "other")
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "debian")
    assert "dataset-fashion-mnist" in refused(*given[:-1])


def test_an_existing_run_is_not_overwritten(refused, finished):
    before = (finished / "checkpoint.safetensors").read_bytes()
    line = refused(*arguments(finished))
    assert f"--out: {finished} holds checkpoint.safetensors of a run: go on with --resume" in line
    assert (finished / "checkpoint.safetensors").read_bytes() == before


def test_weights_that_are_left_of_a_run_are_not_overwritten(refused, finished, tmp_path):
    name = "weights.safetensors"
    (tmp_path / name).write_bytes((finished / name).read_bytes())
    assert f"--out: {tmp_path} holds {name} of a run: move it" in refused(*arguments(tmp_path))
    assert f"--resume: {tmp_path} holds no checkpoint" in refused(*arguments(tmp_path, "--resume"))
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {name, ".lock"}


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "step,loss\n1,2\n", ""])
def test_a_log_of_something_else_is_named_and_kept(refused, finished, tmp_path, content):
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "log.csv").write_text(content, encoding="utf-8")
    line = refused(*arguments(copy, "--seed", 3, "--ema", 0.5, "--steps", 6, "--resume"))
    assert f"{copy / 'log.csv'}: expected the log of a run, got columns" in line
    assert (copy / "log.csv").read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--widths", 4, 12], "--widths = [4, 12], got [4, 8]"),
        (["--fourier"], "--fourier = [], got [2, 3]"),
        (["--times", "uniform"], "--times = uniform, got low-discrepancy"),
        (["--lr", 0.5], "expected a run with --lr = 0.5, got 0.002"),
        (["--ema", 0.9], "--ema = 0.9, got 0.5"),
        (["--held-out", 30], "images to train on (--data, --held-out) = 1412, got 1422"),
        (["--steps", 3], "--steps: expected at least 6"),
    ],
)
def test_resume_with_other_options_names_the_first(refused, finished, more, message):
    same_run = ["--resume", "--seed", 3, "--ema", 0.5]
    assert message in refused(*arguments(finished, *same_run, *more))


def test_resume_from_a_damaged_or_foreign_file(refused, tmp_path, finished):
    file = tmp_path / "checkpoint.safetensors"
    given = arguments(tmp_path, "--resume", "--seed", 3, "--ema", 0.5)
    content = (finished / "checkpoint.safetensors").read_bytes()
    file.write_bytes(content[:-100])
    assert "expected a complete safetensors file" in refused(*given)
    save_file({"w": torch.ones(1)}, file)
    assert "expected metadata of the format 'vdm_lite-checkpoint'" in refused(*given)
    file.write_bytes((finished / "weights.safetensors").read_bytes())
    assert "got a file of weights alone" in refused(*given, "--steps", 6)


@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_checkpoints_that_cannot_be_used(refused, tmp_path, finished, name):
    file = tmp_path / "w.safetensors"
    run = partial(refused, name, "--checkpoint", file, "--device", "cpu")
    if name == "sample":
        run = partial(run, "--out", tmp_path / "x.png")
    assert "w.safetensors: expected a checkpoint file, got no such file" in run()
    file.write_bytes((finished / "weights.safetensors").read_bytes()[:-1])
    assert "expected a complete safetensors file" in run()
    save_file({"w": torch.ones(1)}, file)
    assert "expected metadata of the format" in run()
    found, metadata = checkpoints.read(finished / "weights.safetensors")
    metadata["config"]["model"]["widths"] = [4, 12]
    checkpoints.write(file, found, metadata)
    assert "to be float32 (12,), as in VariationalDiffusion" in run()
    config = {"model": {**metadata["config"]["model"], "widths": [4, 8]}}
    checkpoints.write(file, found, {"config": config})
    assert "w.safetensors: expected config to hold 'data', as made by vdm_lite.config" in run()


def test_data_of_another_kind_than_the_checkpoint(refused, finished):
    given = ("evaluate", "--checkpoint", finished / "weights.safetensors", "--device", "cpu")
    line = refused(*given, "--data", "fashion-mnist-subset")
    assert "--data: expected images of 17 levels, shape [1, 8, 8], as trained on" in line


def test_samples_of_a_size_that_does_not_fit(refused, finished, tmp_path):
    given = ("sample", "--checkpoint", finished / "weights.safetensors", "--device", "cpu")
    line = refused(*given, "--out", tmp_path / "x.png", "--size", 9, 8)
    assert "--size: expected multiples of 2, got 9 8" in line


def test_folders_and_files_that_cannot_be_written(refused, finished, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert str(out) in refused(*arguments(out))
    given = ("--checkpoint", finished / "weights.safetensors", "--device", "cpu")
    refused("sample", *given, "--steps", 1, "--images", 1, "--out", tmp_path / "file" / "x.png")
    refused("sample", *given, "--steps", 1, "--images", 1, "--out", tmp_path)


# --- torchvision ---------------------------------------------------------------------------------

STAND_IN = """
import numpy, pathlib, torch

class _Data:
    def __init__(self, root, train, download):
        path = pathlib.Path(root) / type(self).__name__
        if download:
            path.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.n = 40 if train else 6

class MNIST(_Data):
    @property
    def data(self):
        return torch.arange(self.n * 784).view(self.n, 28, 28).to(torch.uint8)
    @property
    def targets(self):
        return torch.arange(self.n) % 10

class CIFAR10(_Data):
    @property
    def data(self):
        return numpy.arange(self.n * 3072).reshape(self.n, 32, 32, 3).astype("uint8")
    @property
    def targets(self):
        return [i % 10 for i in range(self.n)]
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A module in torchvision's place that makes up its data."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "datasets.py").write_text(STAND_IN, encoding="utf-8")
    for name in ("torchvision", "torchvision.datasets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(package.parent)
    yield
    for name in ("torchvision", "torchvision.datasets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_downloads_happen_on_request_and_train(stand_in, refused, tmp_path, name, shape):
    given = arguments(tmp_path / "run", "--data", name, "--folder", tmp_path / "data")
    given = [*given, "--widths", "4", "4", "4", "--fourier", "--steps", "2", "--held-out", "3"]
    line = refused(*given)
    assert f"{name}: expected its files in {tmp_path / 'data'} (or a download)" in line
    assert cli.main([*given, "--download", "--images", "2"]) == 0
    assert cli.main([*given, "--resume"]) == 0  # now they are there
    images = data.torchvision_images(name, tmp_path / "data")
    assert (images.train.shape, images.test.shape) == ((40, *shape), (6, *shape))
    assert (images.train.dtype, images.levels) == (torch.uint8, 256)
    assert images.train_labels.tolist() == [i % 10 for i in range(40)]
    height, width = shape[1:]
    at = (1, height + 5, 7)  # of the second image: row 5, column 7 of each channel
    pixel = images.train[1, :, 5, 7].tolist()
    start = height * width * len(pixel) + (5 * width + at[2]) * len(pixel)
    assert pixel == [(start + channel) % 256 for channel in range(len(pixel))]
    picture = Image.open(tmp_path / "run" / "samples" / "step_0000002.png")
    assert picture.mode == ("L" if len(pixel) == 1 else "RGB")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_torchvision_is_named_where_it_is_missing(refused, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = refused(*arguments(tmp_path, "--data", name, "--download"))
    assert f"{name}: expected torchvision, which reads it" in line
