"""What a command writes, and where: tried before any work, in the format that the name asks for."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vdm_lite import cli
from vdm_lite.cli import evaluating, pictures, sampling
from vdm_lite.samplers import sample
from vdm_lite.training import checkpoints
from vdm_lite.training.config import load_model

TINY = "--data digits --widths 4 4 --batch-size 8 --held-out 20 --images 5 --steps 2 --device cpu"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("outputs") / "run"
    assert cli.main(["train", *TINY.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture
def vdm(run, capsys):
    """Run evaluate or sample on a tiny checkpoint: exit code and what was said on stderr."""

    def call(name: str, *more: object) -> tuple[int, str]:
        given = [name, "--checkpoint", run / "weights.safetensors", "--device", "cpu", *more]
        try:
            code = cli.main([str(word) for word in given])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return call


def alone(
    *given: object, memory: int | None = None, **environment: str
) -> tuple[int, bytes, bytes]:
    """A command in a process of its own, with a limit of memory in GiB: its exit and its words."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))

    ended = subprocess.run(
        [sys.executable, "-m", "vdm_lite.cli", *map(str, given)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=limit if memory else None,
        capture_output=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


# --- tried before any work -----------------------------------------------------------------------


def places(tmp_path: Path, suffix: str) -> dict[str, tuple[object, str]]:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / f"folder{suffix}").mkdir()
    return {
        "below a file": (tmp_path / "file" / f"x{suffix}", "cannot be written"),
        "in /proc": (Path("/proc") / f"x{suffix}", "cannot be written"),
        "a folder": (tmp_path / f"folder{suffix}", "expected the name of a file, got the folder"),
        "nothing": ("", "expected a path, got ''"),
        "a name that is too long": (tmp_path / ("x" * 300 + suffix), "cannot be written"),
    }


@pytest.mark.parametrize(("name", "option", "suffix"), [
    ("sample", "--out", ".png"), ("sample", "--out", ".npz"), ("evaluate", "--json", ".json"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["below a file", "in /proc", "a folder", "nothing",
                                   "a name that is too long"])  # fmt: skip
def test_places_are_tried_before_any_work(vdm, tmp_path, monkeypatch, name, option, suffix, place):
    def work(*_given, **_more):
        raise AssertionError("work has begun")

    monkeypatch.setattr(sampling, "sample", work)
    monkeypatch.setattr(evaluating, "evaluate", work)
    where, message = places(tmp_path, suffix)[place]
    code, err = vdm(name, option, where)
    assert code == 2 and err.count("\n") == 1 and option in err and message in err


@pytest.mark.parametrize("name", ["x.jpg", "x.txt", "x", "x.png.bak", ".png"])
def test_a_suffix_without_a_format_is_refused(vdm, tmp_path, name):
    code, err = vdm("sample", "--out", tmp_path / name)
    assert code == 2 and "--out: expected a name that ends in .png, .gif, .npz, got" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--data", "--folder"])
def test_an_empty_path_is_not_the_current_folder(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["train", *TINY.split(), "--out", "run"]
    with pytest.raises(SystemExit):
        cli.main([*given, option, ""])
    assert f"argument {option}: expected" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- formats -------------------------------------------------------------------------------------


def walk(run: Path, images: int, steps: int) -> list:
    model = load_model(run / "weights.safetensors")
    states = [*sample(model, (images, 1, 8, 8), steps, generator=torch.Generator().manual_seed(0))]
    return [model.likelihood.decode(x) for x in [*(s.z for s in states[:-1]), states[-1].x_hat]]


@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_an_array_of_levels(vdm, run, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    assert vdm("sample", "--out", out, "--images", 5, "--steps", 3)[0] == 0
    with np.load(out) as file:
        assert file.files == ["images"] and file["images"].dtype == np.uint8
        assert (file["images"] == walk(run, 5, 3)[-1].numpy()).all()


@pytest.mark.parametrize(("steps", "frames"), [(3, 3), (40, 40), (100, 40)])
def test_a_gif_of_the_walk(vdm, run, tmp_path, steps, frames):
    out = tmp_path / "x.gif"
    assert vdm("sample", "--out", out, "--images", 4, "--steps", steps)[0] == 0
    states = walk(run, 4, steps)
    wanted = [pictures.grid(states[(k + 1) * steps // frames - 1], 17) for k in range(frames)]
    # Pillow shows a picture that stays the same for longer.
    pairs = zip([None, *wanted], wanted, strict=False)
    new = [b[..., 0].numpy() for a, b in pairs if a is None or not torch.equal(a, b)]
    with Image.open(out) as gif:
        assert gif.n_frames == len(new) > 1
        for frame, canvas in enumerate(new):
            gif.seek(frame)
            assert (np.asarray(gif.convert("L")) == canvas).all()
        assert gif.info["duration"] >= 2000


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_samples_are_drawn_in_batches(vdm, tmp_path, monkeypatch, batch_size):
    parts = []

    def spy(model, shape, *more):
        parts.append(shape[0])
        return sample(model, shape, *more)

    monkeypatch.setattr(sampling, "sample", spy)
    given = ("--images", 5, "--steps", 2, "--batch-size", batch_size)
    assert vdm("sample", "--out", tmp_path / "x.npz", *given)[0] == 0
    assert sum(parts) == 5 and max(parts) == min(batch_size, 5)
    with np.load(tmp_path / "x.npz") as file:
        assert len({image.tobytes() for image in file["images"]}) == 5  # no part is drawn twice


def test_tensorboard_has_the_grids(run):
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    shown = events.Images("samples")
    assert [picture.step for picture in shown] == [2]
    with Image.open(run / "samples" / "step_0000002.png") as grid:
        assert (shown[0].width, shown[0].height) == grid.size


# --- bounds, and errors in the command's words ---------------------------------------------------


@pytest.mark.parametrize("size", [(9, 7), (8, 7), (1, 8)])
def test_a_size_is_called_size(vdm, tmp_path, size):
    code, err = vdm("sample", "--out", tmp_path / "x.png", "--size", *size)
    assert code == 2 and f"--size: expected multiples of 2, got {size[0]} {size[1]}" in err


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("train", "--steps 99999999999999999999"), ("train", "--batch-size 99999999999999999999"),
        ("train", "--widths 999999"), ("train", "--blocks 1000000"), ("train", "--logsnr-max 1000"),
        ("train", "--logsnr-min -1000"), ("train", "--logsnr-max nan"),
        ("train", "--images 100000000"),
        ("sample", "--steps 99999999999999999999"), ("sample", "--size 100000 100000"),
        ("sample", "--images 100000000"), ("evaluate", "--draws 99999999999999999999"),
        ("evaluate", "--steps 99999999999999999999"),
    ],
)  # fmt: skip
def test_numbers_out_of_all_bounds(vdm, tmp_path, capsys, name, more):
    option = more.split()[0]
    if name == "train":
        try:
            given = ["train", *TINY.split(), *more.split(), "--out", str(tmp_path / "run")]
            code = cli.main(given)
        except SystemExit as stop:
            code = stop.code
        err = capsys.readouterr().err
    else:
        out = ["--out", tmp_path / "x.png"] if name == "sample" else []
        code, err = vdm(name, *out, *more.split())
    assert code == 2 and err.count("\n") == 1 and f"{option}: expected" in err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_weights_that_are_no_numbers(run, tmp_path, capsys, name, value):
    tensors, metadata = checkpoints.read(run / "weights.safetensors")
    tensors["ema.denoiser.outer.bias"][0] = value
    file = tmp_path / "w.safetensors"
    checkpoints.write(file, tensors, metadata)
    more = ["--out", str(tmp_path / "x.png")] if name == "sample" else []
    assert cli.main([name, "--checkpoint", str(file), "--device", "cpu", *more]) == 2
    out, err = capsys.readouterr()
    wanted = "expected finite weights, got NaN or infinity in denoiser.outer.bias"
    assert wanted in err and (out, err.count("\n")) == ("", 1)


# --- the machine ---------------------------------------------------------------------------------


MEMORY = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: "
                 "can't allocate memory: you tried to allocate 40000000000000 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("Storage size calculation overflowed with sizes=[10000000000, 10000000000]"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError("Unable to allocate 72.8 TiB for an array"),
    MemoryError(),
]  # fmt: skip


@pytest.mark.parametrize("error", MEMORY)
@pytest.mark.parametrize(("name", "advice"), [("evaluate", "--batch-size"), ("sample", "--images")])
def test_too_little_memory_is_one_line(vdm, tmp_path, monkeypatch, error, name, advice):
    def full(*_given, **_more):
        raise error

    monkeypatch.setattr(evaluating, "evaluate", full)
    monkeypatch.setattr(sampling, "sample", full)
    more = ["--out", tmp_path / "x.png"] if name == "sample" else []
    code, err = vdm(name, *more)
    said = err.rpartition("\r")[2]  # the bar has wiped itself
    assert code == 2 and said.startswith("vdm-lite: out of memory: take") and advice in said


def test_other_errors_keep_their_traceback(vdm, tmp_path, monkeypatch):
    def wrong(*_given, **_more):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(sampling, "sample", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        vdm("sample", "--out", tmp_path / "x.png")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep other limits")
def test_memory_that_the_system_refuses_is_one_line(run, tmp_path):
    """With 6 GiB of addresses, samples that take more: refused before a page of it is used."""
    checkpoint = ("--checkpoint", run / "weights.safetensors", "--device", "cpu")
    many = ("sample", *checkpoint, "--out", tmp_path / "x.npz", "--images", 100_000_000)
    large = ("sample", *checkpoint, "--out", tmp_path / "x.png", "--size", 4096, 4096)
    large = (*large, "--images", 200)
    for given in (many, large):
        code, _, err = alone(*given, memory=6, TQDM_DISABLE="1")
        assert code == 2 and err.count(b"\n") == 1, err
        assert err.startswith(b"vdm-lite: out of memory: take a smaller --batch-size")


def test_a_network_that_cannot_be_compiled_is_one_line(tmp_path):
    given = ("train", *TINY.split(), "--compile", "--out", tmp_path / "run")
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TQDM_DISABLE": "1"}
    code, _, err = alone(*given, CXX="/nowhere/c++", **cache)
    assert code == 2 and err.count(b"\n") == 1, err
    assert err.startswith(
        b"vdm-lite: --compile: the network cannot be compiled here: install a C++"
    )


# --- what a terminal can show --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp874", "utf-8"])
def test_any_encoding_will_do(run, encoding):
    """Without a bar where none is wanted: TQDM_DISABLE."""
    given = ("evaluate", "--checkpoint", run / "weights.safetensors", "--device", "cpu")
    code, out, err = alone(*given, "--draws", 1, PYTHONIOENCODING=encoding, TQDM_DISABLE="1")
    assert (code, err) == (0, b"") and b" error" in out
    assert ("±" in out.decode(encoding)) == (encoding == "utf-8")


def test_nothing_draws_a_bar_where_none_is_wanted(run, tmp_path):
    given = ("--checkpoint", run / "weights.safetensors", "--device", "cpu", "--steps", 2)
    ended = alone("sample", *given, "--out", tmp_path / "x.png", TQDM_DISABLE="1")
    assert ended[0] == 0 and ended[2] == b""
