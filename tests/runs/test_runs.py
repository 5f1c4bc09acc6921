"""Runs and what is around them: processes, folders, options asked for before, ways to be ended."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightning_fabric
import pytest
from processes import ENVIRONMENT

from vdm_lite import __version__, cli
from vdm_lite.cli import engines, folders, options
from vdm_lite.training import checkpoints, journal

TINY = "--device cpu --data digits --widths 4 8 --batch-size 8 --held-out 20 --images 0 --warmup 5"
TINY += " --evaluate-every 1000"
pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(out: Path, *more: object) -> list[str]:
    return ["train", *TINY.split(), "--out", str(out), *map(str, more)]


@pytest.fixture
def refused(capsys):
    """Run a command that is to fail: its one line on stderr."""

    def run(*given: object) -> str:
        try:
            got = cli.main([str(g) for g in given])
        except SystemExit as stop:  # argparse
            got = stop.code
        out, err = capsys.readouterr()
        assert (got, out, err.count("\n")) == (2, "", 1), err
        return err

    return run


def same(a: Path, b: Path) -> bool:
    """Whether two runs hold the same bits."""
    left, right = (checkpoints.read(f / "checkpoint.safetensors") for f in (a, b))
    return left[1] == right[1] and all((t == right[0][name]).all() for name, t in left[0].items())


# Every process that is started says who it is.
SCRIPT = "import os; print(os.getpid(), flush=True)\nfrom vdm_lite import cli\n"
SCRIPT += "raise SystemExit(cli.main())\n"


@contextmanager
def started(folder: Path, given: list[str], **how: object) -> Iterator[subprocess.Popen]:
    """A command in a process of its own."""
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    settings = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings |= {"text": True, **how}
    with subprocess.Popen([sys.executable, folder / "script.py", *given], **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_a_row(out: Path, process: subprocess.Popen) -> None:
    log = out / "log.csv"
    while process.poll() is None and not (log.exists() and journal.read(log)):
        time.sleep(0.05)


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize("more", [1, 2, 997])
def test_more_processes_than_cores_are_refused_before_any_is_started(
    refused, tmp_path, monkeypatch, torchrun, more
):
    def fabric(**given):
        raise AssertionError("processes would be started")

    monkeypatch.setattr(lightning_fabric, "Fabric", fabric)
    cores = len(os.sched_getaffinity(0))
    asked = ["--devices", cores + more]
    if torchrun:  # which has started them, so that --devices is not needed
        sizes = {"LOCAL_WORLD_SIZE": cores + more, "WORLD_SIZE": cores + more}
        known = {"TORCHELASTIC_RUN_ID": "x", "GROUP_WORLD_SIZE": 1, "LOCAL_RANK": 0, **sizes}
        for name, value in known.items():
            monkeypatch.setenv(name, str(value))
        asked = []
    line = refused(*arguments(tmp_path / "run", *asked))
    assert f"--devices: expected at most {cores} on cpu, got {cores + more}" in line
    assert not (tmp_path / "run").exists()


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 6}, raising=False)
    assert engines._cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for counted, wanted in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert engines._cores() == wanted


@pytest.mark.parametrize("when", ["training", "waiting"])
def test_a_child_ends_with_its_parent_even_by_kill_9(tmp_path, when):
    out = tmp_path / "run"
    given = arguments(out, "--devices", 2, "--steps", 100_000, "--log-every", 1)
    given += ["--nodes", "2"] if when == "waiting" else []
    with started(tmp_path, given) as process:
        children = [int(process.stdout.readline()) for _ in range(2)][1:]
        if when == "training":
            wait_for_a_row(out, process)
        else:
            assert "waiting at" in process.stderr.readline()
        os.kill(children[0], 0)
        process.kill()
        try:
            process.communicate(timeout=30)  # until all who write there have ended
        except subprocess.TimeoutExpired:
            os.kill(children[0], signal.SIGKILL)
            raise


WAITING = """
import os, time
from datetime import timedelta
from vdm_lite import cli
from vdm_lite.cli import engines

engines.WAIT = timedelta(seconds=2)
os.environ.update(VARIABLES)
began = time.monotonic()
code = cli.main(ARGUMENTS)
print(time.monotonic() - began)
raise SystemExit(code)
"""


@pytest.mark.parametrize(
    ("variables", "more"),
    [
        ({}, "--nodes 2"),
        ({"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}, "--nodes 2"),
        ({"LOCAL_RANK": "1"}, "--devices 2"),  # left over: no launcher has started this
    ],
    ids=["the first machine", "another machine", "a stale variable"],
)
def test_who_waits_says_where_and_for_how_long(launch, tmp_path, variables, more):
    given = arguments(tmp_path / "run", *more.split())
    script = f"VARIABLES, ARGUMENTS = {variables!r}, {given!r}\n{WAITING}"
    ended = launch(script=script)
    first, *_, last = [line for line in ended.err[0].splitlines() if line.startswith("vdm-lite:")]
    assert ended.codes == [2] and "Traceback" not in ended.err[0]
    place = ":".join(variables.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    sizes = "2 x 1" if "nodes" in more else "1 x 2"
    assert f"waiting at {place.strip(':') or '127.0.0.1:'}" in first
    assert f"for {sizes} processes (machines x devices), at most 0.0333333 minutes" in first
    assert "cannot be started: " in last and first != last
    assert 2 <= float(ended.out[0]) < 30
    # Nothing else is said: no stack of native code.
    others = [line for line in ended.err[0].splitlines() if not line.startswith("vdm-lite:")]
    assert all(line.startswith("Initializing distributed") for line in others), others


def test_ctrl_c_ends_who_waits(tmp_path):
    with started(tmp_path, arguments(tmp_path / "run", "--nodes", 2)) as process:
        assert "at most 30 minutes" in process.stderr.readline()
        assert "Initializing" in process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT


@pytest.mark.parametrize("rank", ["0", "1", "3"])
@pytest.mark.parametrize("size", [None, "1", "4"])
@pytest.mark.parametrize(
    "given",
    [
        "sample --checkpoint nowhere --out x.png --device cpu",
        "evaluate --checkpoint nowhere --device cpu",
        "train --out x --train-ends --times uniform",
        "train --out x --devices 1 --nodes 1 --compile --schedule learned",
    ],
)
def test_a_single_process_always_speaks(refused, monkeypatch, given, rank, size):
    monkeypatch.setenv("LOCAL_RANK", rank)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert refused(*given.split()).startswith("vdm-lite: ")


@pytest.mark.parametrize("torchrun", [False, True])
def test_of_several_processes_the_first_of_a_machine_speaks(capsys, monkeypatch, torchrun):
    given = "train --out x --train-ends --times uniform" + (" --devices 2" * (not torchrun))
    monkeypatch.setenv("WORLD_SIZE", "2")
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert cli.main(given.split()) == 2
        assert capsys.readouterr().err.count("\n") == lines


# --- one run in a folder -------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_leaves_it_free(refused, tmp_path):
    """The first is killed before its first checkpoint: it starts again, by its own options."""
    out, straight = tmp_path / "run", tmp_path / "straight"
    more = ("--every", 100_000, "--log-every", 1, "--seed", 5, "--decay", 0)
    with started(tmp_path, arguments(out, *more, "--steps", 100_000)) as process:
        wait_for_a_row(out, process)
        before = {name: (out / name).read_bytes() for name in ("options.json",)}
        for again in (arguments(out), arguments(out, "--resume"), ["train", "--out", str(out)]):
            assert f"--out: another run is in {out}: wait until it has ended" in refused(*again)
        assert process.poll() is None
        assert all((out / name).read_bytes() == content for name, content in before.items())
        process.kill()
        process.wait()
    line = refused(*arguments(out, *more))
    assert f"--out: {out} holds log.csv of a run: go on with --resume, or take another" in line
    assert cli.main(["train", "--out", str(out), "--resume", "--steps", "3"]) == 0
    assert cli.main(arguments(straight, *more, "--steps", 3)) == 0
    assert same(out, straight)
    assert [row["step"] for row in journal.read(out / "log.csv")] == [1, 2, 3]


def test_of_several_processes_one_takes_the_folder(launch, refused, tmp_path):
    """The others do not refuse it to each other; a run in their way is said once."""
    given = arguments(tmp_path, "--steps", 1)
    with folders.FileLock(tmp_path / folders.LOCK):
        ended = launch(given, ranks=2)
    assert ended.codes == [2, 2]
    assert "".join(ended.err).count("another run is in") == 1
    assert launch(given, ranks=2).codes == [0, 0]


@pytest.mark.parametrize("there", [[], ["tensorboard"], ["samples"]])
def test_there_is_nothing_to_go_on_with(refused, tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir()
    line = refused(*arguments(tmp_path, "--resume"))
    assert f"--resume: {tmp_path} holds no checkpoint.safetensors to go on from" in line
    assert "start the run without --resume" in line


def test_a_log_of_an_older_run_without_a_checkpoint_can_be_started_again(refused, tmp_path):
    """One that has no options.json: with what is given."""
    journal.Journal(tmp_path, 0).close()
    given = arguments(tmp_path, "--steps", 1)
    assert "go on with --resume" in refused(*given)
    assert cli.main([*given, "--resume"]) == 0


# --- what was asked for --------------------------------------------------------------------------


ASKED = {
    "network": "--widths 4 4 --blocks 2 --fourier --output velocity --schedule cosine",
    "levels": "--logsnr-max 9.5 --logsnr-min -4.25 --fourier 0 2 --weighting edm --clip 3",
    "learning": "--schedule learned --times adaptive --lr 0.01 --warmup 0",
    "ends": "--schedule learned --train-ends --ema 0.5 --seed 3",
    "data": "--held-out 30 --batch-size 12 --decay 2",
}


@pytest.mark.parametrize("file", [True, False], ids=["options.json", "the checkpoint alone"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_run_goes_on_without_being_told_again(launch, tmp_path, asked, file):
    given = arguments(tmp_path / "run", "--steps", 6, *asked.split())
    ended = launch(given, events=[(2, {"signals": [signal.SIGTERM]})])
    assert ended.codes == [130], ended.err
    if not file:
        (tmp_path / "run" / "options.json").unlink()
    assert cli.main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert cli.main(arguments(tmp_path / "straight", "--steps", 6, *asked.split())) == 0
    assert same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--lr 0.5", "--lr = 0.5, got 0.002"),
        ("--seed 4", "--seed = 4, got 3"),
        ("--widths 4 12", "--widths = [4, 12], got [4, 8]"),
        ("--times uniform", "--times = uniform, got low-discrepancy"),
        ("--held-out 30", "(--data, --held-out) = 1412, got 1422"),
        ("--steps 1", "--steps: expected at least 2"),
    ],
)
def test_a_contradiction_is_refused_and_changes_nothing(refused, capsys, tmp_path, more, message):
    assert cli.main(arguments(tmp_path, "--steps", 2, "--seed", 3)) == 0
    capsys.readouterr()
    before = (tmp_path / "options.json").read_bytes()
    assert message in refused("train", "--out", tmp_path, "--resume", *more.split())
    assert (tmp_path / "options.json").read_bytes() == before


def test_steps_engine_and_what_is_written_may_change(tmp_path):
    assert cli.main(arguments(tmp_path, "--steps", 2, "--decay", 0, "--every", 2)) == 0
    more = "--steps 5 --every 3 --log-every 1 --images 1 --evaluate-every 2 --accumulate 2"
    assert cli.main(["train", "--out", str(tmp_path), "--resume", *more.split()]) == 0
    assert [row["step"] for row in journal.read(tmp_path / "log.csv")] == [2, 3, 4, 5]
    kept = json.loads((tmp_path / "options.json").read_text(encoding="utf-8"))
    asked = {"steps": 5, "decay": 0, "every": 3, "log_every": 1, "images": 1, "batch_size": 8}
    assert asked.items() <= kept.items()


TYPED = (
    "--out x",
    "--out x --widths 4 8 16 --fourier --warmup 0 --images 0 --decay 0 --seed 0",
    "--out x --fourier 1 2 --logsnr-min=-1e-05 --lr 1e-9 --train-ends --schedule learned",
    "--out x --folder 'a folder' --download --data mnist --compile --devices 2 --nodes 3",
    "--out x --data . --size 8 --held-out 7 --steps 9 --no-compile --strategy ddp",
)


@pytest.mark.parametrize("typed", TYPED)
def test_options_are_kept_as_they_were_typed(tmp_path, typed):
    given = replace(options.parse(["train", *shlex.split(typed)]), out=tmp_path)
    folders.keep_options(given)
    words = ["train", "--out", str(tmp_path), *folders.kept_options(tmp_path)]
    assert options.parse(words) == replace(given, folder=given.folder and given.folder.absolute())
    # What is typed now wins over what is kept.
    later = options.parse([*words, "--widths", "3", "--no-compile", "--warmup", "7"])
    assert (later.widths, later.compile, later.warmup) == ((3,), False, 7)


def test_torchrun_settles_the_number_of_processes(tmp_path, monkeypatch):
    folders.keep_options(options.parse(["train", "--out", str(tmp_path), "--devices", "2"]))
    assert "--devices=2" in folders.kept_options(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert "--devices=2" not in folders.kept_options(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "options.json: expected the options of a run"),
        ("{", "options.json: expected the options of a run"),
        ("null", "options.json: expected the options of a run"),
        ("[1]", "options.json: expected the options of a run"),
        ('{"times": "cats"}', "argument --times: invalid choice: 'cats'"),
        ('{"steps": -1}', "argument --steps: expected a whole number"),
        ('{"lr": null, "widths": ["wide"]}', "argument --widths: expected a whole number"),
    ],
)
def test_options_that_somebody_has_damaged(refused, tmp_path, content, message):
    (tmp_path / "options.json").write_text(content, encoding="utf-8")
    assert message in refused("train", "--out", tmp_path, "--resume")


# --- ways to be ended ----------------------------------------------------------------------------


IGNORING = """
import signal
from vdm_lite import cli
signal.signal(signal.SIGHUP, signal.SIG_IGN)
raise SystemExit(cli.main(ARGUMENTS))
"""


def test_nohup_keeps_a_run_going(launch, tmp_path):
    given = arguments(tmp_path, "--steps", 3)
    script = f"ARGUMENTS = {given!r}\n{IGNORING}"
    ended = launch(script=script, events=[(1, {"signals": [signal.SIGHUP]})])
    assert ended.codes == [0], ended.err
    assert checkpoints.read_metadata(tmp_path / "checkpoint.safetensors")["step"] == 3


TERMINAL = "import fcntl, runpy, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
TERMINAL += "sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def test_a_terminal_that_is_closed_ends_a_run_with_a_checkpoint(tmp_path):
    """Its bar cannot be drawn any more then, which must not end the run without one."""
    out = tmp_path / "run"
    given = arguments(out, "--steps", 100_000, "--every", 100_000, "--log-every", 1)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    ours, theirs = pty.openpty()
    command_line = [sys.executable, "-c", TERMINAL, str(tmp_path / "script.py"), *given]
    shown = {**ENVIRONMENT, "TQDM_DISABLE": "0"}
    with subprocess.Popen(
        command_line, env=shown, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        wait_for_a_row(out, process)
        os.close(ours)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
    step = checkpoints.read_metadata(out / "checkpoint.safetensors")["step"]
    assert journal.read(out / "log.csv")[-1]["step"] == step >= 1


# --- options are not guessed ---------------------------------------------------------------------


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"vdm-lite {__version__}\n"


@pytest.mark.parametrize("name", ["", "train", "evaluate", "sample"])
def test_no_option_is_known_by_its_beginning(refused, name):
    parser = options.parser()
    if name:
        parser = parser._subparsers._group_actions[0].choices[name]
    known = set(parser._option_string_actions)
    needed = {"train": "--out x", "sample": "--checkpoint x --out x.png"}.get(
        name, "--checkpoint x"
    )
    whole = ["--version"] if not name else [name, *needed.split()]
    for option in sorted(o for o in known if o.startswith("--")):
        for short in {option[:-1], option[:5]} - known:
            given = [short] if not name else [*whole, short, "1"]
            line = refused(*given)
            assert "unrecognized arguments" in line or "are required" in line, short
