"""Several processes train as one does: two of them on the CPU, by gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from browsing import PATIENCE
from processes import ENVIRONMENT, Ended, distance

from vdm_lite import cli
from vdm_lite.training import checkpoints, journal

TINY = "--device cpu --data digits --widths 4 8 --batch-size 8 --held-out 20 --images 0 --warmup 2"
TINY += " --steps 6 --every 3 --log-every 1 --evaluate-every 3 --decay 0"
LEARNING = ("--schedule", "learned", "--times", "adaptive")
pytestmark = pytest.mark.usefixtures("one_thread")
ENDS = ("--schedule", "learned", "--train-ends")
CASES = {
    "plain": ("--images", "2"),
    "accumulated": ("--accumulate", "2"),
    "learning": LEARNING,
    "learning, accumulated": (*LEARNING, "--accumulate", "2"),
    "ends": ENDS,
    "mixed precision": ("--precision", "bf16-mixed"),
}


def arguments(out: Path, *more: object) -> list[str]:
    return ["train", *TINY.split(), "--out", str(out), *map(str, more)]


@pytest.fixture(scope="module")
def alone(one_thread, tmp_path_factory):
    """The folder of a run of one process with these options."""
    made = {}

    def folder(*more: str) -> Path:
        if more not in made:
            made[more] = tmp_path_factory.mktemp("alone") / "run"
            assert cli.main(arguments(made[more], *more)) == 0
        return made[more]

    return folder


def complaints(ended: Ended) -> list[str]:
    """The lines of ``vdm-lite`` on stderr, of all processes; a traceback must not be there."""
    text = "\n".join(ended.err)
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("vdm-lite: ")]


def check_same(one: Path, two: Path, mixed: bool = False) -> None:
    """The same weights and the same log, up to rounding; the same random states.

    How far the weights are apart was measured as 0.001 to 0.002 (0.02 in mixed precision); runs
    that draw other times are 1.1 apart.
    """
    tolerance, apart = (5e-3, 0.1) if mixed else (1e-4, 0.01)
    assert distance(one, two) < apart
    logs = [journal.read(folder / "log.csv") for folder in (one, two)]
    assert [row["step"] for row in logs[0]] == [*range(1, 7)]
    for a, b in zip(*logs, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"images_per_s"}:
            assert a[name] == pytest.approx(b[name], rel=tolerance, abs=1e-6), name
    left, right = (checkpoints.read(folder / "checkpoint.safetensors") for folder in (one, two))
    assert left[0].keys() == right[0].keys() and left[1]["step"] == right[1]["step"] == 6
    assert torch.equal(left[0]["rng.cpu"], right[0]["rng.cpu"])
    for name, t in left[0].items():
        assert (t.shape, t.dtype) == (right[0][name].shape, right[0][name].dtype), name
        if name.startswith("keep"):
            torch.testing.assert_close(right[0][name], t, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("more", CASES.values(), ids=CASES)
def test_two_processes_are_one_with_the_same_batch(launch, alone, tmp_path, more):
    out = tmp_path / "run"
    ended = launch(arguments(out, *more), ranks=2)
    assert ended.codes == [0, 0], ended.err
    assert "averaged weights after 6 steps" in ended.out[0] and ended.out[1] == ""
    check_same(alone(*more), out, mixed="bf16-mixed" in more)
    # The first process alone has written, and each file once.
    written = {"checkpoint.safetensors", "weights.safetensors", "log.csv", "tensorboard"}
    written |= {"options.json", ".lock"}
    pictures = {"samples"} if "--images" in more else set()
    assert {path.name for path in out.iterdir()} == written | pictures
    assert len([*(out / "tensorboard").iterdir()]) == 1


RANKS = """
import json, torch
from vdm_lite import cli, data
from vdm_lite.cli import engines, options, training
from vdm_lite.randomness import Share

given = options.parse(ARGUMENTS)
seen, times, fit = [], [], training.fit

def spy(model, images, steps, *rest, loss, **more):
    plain = loss.keywords["times"]
    def watched(n, source):
        drawn = plain(n, source)
        times.append(drawn.t.tolist())
        return drawn
    loss.keywords["times"] = watched
    for step in fit(model, images, steps, *rest, loss=loss, **more):
        weights = [*model.parameters(), *step.averaged.parameters()]
        total = [float(p.detach().double().abs().sum()) for p in weights]
        seen.append((step.loss, step.grad_norm, total))
        yield step

training.fit = spy
code = training.run(given)
with open(f"{given.out}/rank{rank}.json", "w") as file:
    json.dump({"code": code, "seen": seen, "times": times}, file)
"""


def test_ranks_stay_equal_and_share_the_strata_of_time(launch, tmp_path):
    given = arguments(tmp_path, "--accumulate", 2)
    ended = launch(script=f"ARGUMENTS = {given!r}\n{RANKS}", ranks=2)
    assert ended.codes == [0, 0], ended.err
    first, second = (
        json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)
    )
    assert first["seen"] == second["seen"] and len(first["seen"]) == 6
    assert first["times"] != second["times"] and len(first["times"]) == 12
    for k in range(6):  # the two parts of both ranks fill each of the 8 strata once
        parts = [part for rank in (first, second) for part in rank["times"][2 * k : 2 * k + 2]]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        strata = torch.tensor(parts).flatten() * 8
        assert strata.floor().sort().values.tolist() == [*range(8)]


EVALUATE = """
import json
from lightning_fabric import Fabric
from vdm_lite import data
from vdm_lite.training import evaluation
from vdm_lite.training.config import load_model

engine = Fabric(accelerator="cpu", devices=ranks, strategy="ddp")
engine.launch()
model, images = load_model(WEIGHTS), data.digits().test[:50]
reports = [evaluation.evaluate(model, images, 2, T, 16, 5, engine) for T in (None, 4)]
print(json.dumps(reports))
"""


def test_evaluation_is_the_same_on_any_number_of_processes(launch, alone):
    script = f"WEIGHTS = {str(alone() / 'weights.safetensors')!r}\n{EVALUATE}"
    out = [text for ranks in (1, 2, 3) for text in launch(script=script, ranks=ranks).out]
    assert len(out) == 6 and len(set(out)) == 1 and len(json.loads(out[0])) == 2


def test_ctrl_c_to_all_ends_cleanly_and_any_number_goes_on(launch, alone, tmp_path):
    given = partial(arguments, tmp_path / "run", "--times", "adaptive")
    two = given("--strategy", "ddp", "--every", 100)
    ended = launch(two, ranks=2, events=[(1, {"group": signal.SIGINT})])
    assert ended.codes == [130, 130], ended.err
    assert ended.out == ["Stopped after step 2 of 6; go on with --resume\n", ""]
    assert "".join(ended.err).count("Stopping after this step") == 1
    assert "Traceback" not in "".join(ended.err)
    # One process, then two again, each stopped by SIGTERM to itself or finished.
    ended = launch(given("--resume"), events=[(3, {"signals": [signal.SIGTERM]})])
    assert ended.codes == [130], ended.err
    ended = launch([*two, "--resume"], ranks=2)
    assert ended.codes == [0, 0], ended.err
    check_same(alone("--times", "adaptive"), tmp_path / "run")


def test_a_failure_of_the_one_that_writes_ends_all(launch, tmp_path):
    ended = launch(arguments(tmp_path), ranks=2, events=[(4, {"limit": 5000})])
    assert ended.codes == [2, 2]
    said = complaints(ended)
    assert len(said) == 1 and "cannot be written" in said[0]
    assert checkpoints.read(tmp_path / "checkpoint.safetensors")[1]["step"] == 3


@pytest.mark.parametrize("part", ["a row", "a picture", "the first row"])
def test_a_failure_to_log_ends_all(launch, tmp_path, part):
    """One line says what is wrong, and the other process says nothing."""
    given, events, file = arguments(tmp_path), [], tmp_path / "log.csv"
    if part == "a row":
        full = f"os.remove({str(file)!r}); os.symlink('/dev/full', {str(file)!r})"
        events = [(4, {"run": full})]
    elif part == "a picture":
        given, file = [*given, "--images", "1"], tmp_path / "samples"
        file.write_text("in its way", encoding="utf-8")
    else:
        (tmp_path / "tensorboard").write_text("in its way", encoding="utf-8")
        file = tmp_path / "tensorboard"
    ended = launch(given, ranks=2, events=events)
    assert ended.codes == [2, 2], ended.err
    said = complaints(ended)
    assert len(said) == 1 and str(file) in said[0]


DOWNLOAD = """
import sys
sys.path.insert(0, SITE)
from vdm_lite import cli
sys.exit(cli.main(ARGUMENTS))
"""
TORCHVISION = """
import pathlib, time, torch

class MNIST:
    def __init__(self, root, train, download):
        done, begun = pathlib.Path(root, "done"), pathlib.Path(root, "begun")
        if download and not done.exists():
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.touch(exist_ok=False)  # two at once would tear each other's files
            time.sleep(0.5)
            done.touch()
        if not done.exists():
            raise RuntimeError("Dataset not found.")
        self.data = torch.arange(40 * 784).view(40, 28, 28).to(torch.uint8)
        self.targets = torch.arange(40) % 10
"""


@pytest.fixture
def download(tmp_path):
    """A script that trains on data which a module in torchvision's place fetches."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "datasets.py").write_text(TORCHVISION + "\nCIFAR10 = MNIST\n", encoding="utf-8")
    given = arguments(tmp_path / "run", "--data", "mnist", "--folder", tmp_path / "data")
    given = [*given, "--widths", "4", "4", "--fourier", "--steps", "1", "--held-out", "4"]
    return f"SITE = {str(package.parent)!r}\nARGUMENTS = {given!r} + MORE\n{DOWNLOAD}"


def test_processes_of_a_machine_download_once(launch, download):
    ended = launch(script=f"MORE = ['--download']\n{download}", ranks=2)
    assert ended.codes == [0, 0], ended.err


def test_data_that_are_missing_are_said_once(launch, download):
    ended = launch(script=f"MORE = []\n{download}", ranks=2)
    said = complaints(ended)
    assert ended.codes == [2, 2] and len(said) == 1 and "(or a download)" in said[0]


BROKEN = """
import sys
from vdm_lite import cli
from vdm_lite.cli import sources

images = sources.images

def broken(*given, **own):
    if rank == RANK:
        raise ValueError("broken archive")
    return images(*given, **own)

sources.images = broken
sys.exit(cli.main(ARGUMENTS))
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_one_process_cannot_read_are_said_once(launch, tmp_path, rank):
    script = f"RANK, ARGUMENTS = {rank}, {arguments(tmp_path)!r}\n{BROKEN}"
    ended = launch(script=script, ranks=2)
    assert ended.codes == [2, 2], ended.err
    assert complaints(ended) == ["vdm-lite: broken archive"]
    assert "broken archive" in ended.err[rank]


def test_numbers_that_are_not_finite_end_all(launch, tmp_path):
    given = arguments(tmp_path, "--lr", 1e30, "--warmup", 0)
    ended = launch(given, ranks=2)
    assert ended.codes == [1, 1], ended.err
    said = complaints(ended)
    assert len(said) == 1 and "step 2: expected a finite loss" in said[0]
    found, metadata = checkpoints.read(tmp_path / "checkpoint.failed.safetensors")
    assert metadata["step"] == 1 and found["batch"].shape == (8, 1, 8, 8)


def test_bad_input_is_said_once(launch, alone, tmp_path):
    for given, message in (
        (arguments(tmp_path, "--batch-size", 9), "--batch-size: expected a multiple of 2"),
        (arguments(alone(), "--resume", "--lr", 1), "expected a run with --lr = 1.0, got 0.002"),
    ):
        ended = launch(given, ranks=2)
        said = complaints(ended)
        assert ended.codes == [2, 2] and len(said) == 1 and message in said[0]


# --- launchers -----------------------------------------------------------------------------------


def run(*command_line: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command_line, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE
    )


def test_torchrun_starts_the_processes(alone, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    ended = run(*torchrun, "2", "-m", "vdm_lite.cli", *arguments(tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    check_same(alone(), tmp_path / "run")


def test_devices_start_their_processes_and_ctrl_c_in_the_terminal_ends_them(alone, tmp_path):
    """The terminal tells the whole group; the run ends with a checkpoint, whoever started whom."""
    given = arguments(tmp_path / "run", "--devices", 2, "--steps", 100_000)
    log = tmp_path / "run" / "log.csv"
    with subprocess.Popen(
        [sys.executable, "-m", "vdm_lite.cli", *given],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not (log.exists() and journal.read(log)):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "go on with --resume" in out and "Traceback" not in err
    step = checkpoints.read(tmp_path / "run" / "checkpoint.safetensors")[1]["step"]
    assert f"Stopped after step {step} of 100000" in out
    first, same = (journal.read(folder / "log.csv")[0] for folder in (tmp_path / "run", alone()))
    assert first["loss"] == pytest.approx(same["loss"], rel=1e-4)
