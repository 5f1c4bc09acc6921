"""Images of one's own: whatever clothes they come in, they become the same levels or one line."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import Dataset

from vdm_lite import cli, data
from vdm_lite.cli import options
from vdm_lite.training.config import load_model
from vdm_lite.training.evaluation import evaluate

README = Path(__file__).parents[2] / "README.md"
pytestmark = pytest.mark.usefixtures("one_thread")


def picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Levels (H, W) or (H, W, 3), smooth so that JPEG keeps them."""
    low = np.random.default_rng(seed).integers(0, 256, (3, 4, *shape[2:]), dtype=np.uint8)
    return np.array(Image.fromarray(low).resize(shape[1::-1], Image.Resampling.BICUBIC))


def save(path: Path, levels: np.ndarray, **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path, **more)


def own(source: object, **more: object) -> data.Images:
    return data.own_images(source, progress=False, **more)


def as_set(pixels: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in pixels}


# --- what is read --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six color images of 12 x 8 pixels in two classes, and things that are no images."""
    for k in range(6):
        name = ("cats", "dogs")[k % 2]
        save(tmp_path / "set" / name / f"{k}.png", picture((8, 12, 3), k))
    for name in (".hidden.png", "cats/._0.png", ".git/a.png", "notes.txt", "dogs/Thumbs.db"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"no image")
    return tmp_path / "set"


def test_a_folder_of_classes(folder):
    found = own(folder)
    assert (found.train.shape, found.train.dtype, found.levels) == ((6, 3, 8, 12), torch.uint8, 256)
    assert found.classes == ("cats", "dogs") and found.test.shape == (0, 3, 8, 12)
    for image, label in zip(found.train, found.train_labels.tolist(), strict=True):
        seeds = [
            k for k in range(6) if (image.permute(1, 2, 0).numpy() == picture((8, 12, 3), k)).all()
        ]
        assert len(seeds) == 1 and seeds[0] % 2 == label
    again = own(str(folder))
    assert torch.equal(found.train, again.train) and len(set(found.train_labels[:3].tolist())) == 2


def test_the_order_means_nothing_and_is_always_the_same(tmp_path):
    levels = np.arange(1000, dtype=np.uint16)[:, None, None] // np.ones((1, 2, 2), np.uint16) % 250
    order = own(levels.astype(np.uint8)).train[:, 0, 0, 0].float()
    rank = torch.arange(1000.0)
    place = torch.stack([rank, order])
    assert abs(torch.corrcoef(place)[0, 1]) < 0.1
    assert torch.equal(order, own(levels.astype(np.uint8)).train[:, 0, 0, 0].float())


def arrays() -> dict[str, tuple[object, int]]:
    gray = np.stack([picture((8, 12), k) for k in range(4)])
    color = np.stack([picture((8, 12, 3), k) for k in range(4)])
    first = np.moveaxis(color, 3, 1)
    gray[0, 0, :2], color[0, 0, :2] = (0, 255), [[0] * 3, [255] * 3]
    return {
        "gray": (gray, 1),
        "gray with a channel": (gray[..., None], 1),
        "gray first": (gray[:, None], 1),
        "color": (color, 3),
        "channels first": (np.ascontiguousarray(first), 3),
        "floats": ((color / 255).astype(np.float32), 3),
        "doubles": (color / 255, 3),
        "wide": (color.astype(np.int64), 3),
        "narrow": (color.astype(np.uint16), 3),
        "levels as floats": (color.astype(float), 3),
        "a tensor": (torch.from_numpy(color), 3),
    }


@pytest.mark.parametrize("name", arrays())
@pytest.mark.parametrize("clothes", ["array", ".npy", ".npz"])
def test_arrays_of_all_kinds_are_the_same_levels(tmp_path, name, clothes):
    array, channels = arrays()[name]
    source, plain = array, arrays()["gray" if channels == 1 else "color"][0]
    if clothes == ".npy":
        np.save(source := tmp_path / "a.npy", np.asarray(array))
    if clothes == ".npz":
        np.savez(source := tmp_path / "a.npz", images=array, labels=np.arange(4), more=[1])
    found = own(source)
    wanted = torch.from_numpy(plain.reshape(4, 8, 12, channels)).permute(0, 3, 1, 2)
    assert (found.levels, found.train.dtype) == (256, torch.uint8)
    order = (
        found.train_labels
        if clothes == ".npz"
        else own(np.arange(4)[:, None, None]).train.flatten()
    )
    assert torch.equal(found.train, wanted[order.long()])


class Pairs(Dataset):
    """What a user of torch has."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> object:
        return self.items[i]


def clothes() -> dict[str, object]:
    levels = picture((8, 12, 3), 5)
    tensor = torch.from_numpy(levels).permute(2, 0, 1)
    return {
        "Pillow": Image.fromarray(levels),
        "ToTensor": tensor / 255,
        "levels": tensor,
        "array": levels,
    }


@pytest.mark.parametrize("name", clothes())
@pytest.mark.parametrize("label", [None, 7, torch.tensor(7), np.int64(7), "seven"])
def test_data_sets_of_all_kinds_are_the_same_levels(name, label):
    item = clothes()[name] if label is None else (clothes()[name], label)
    found = own(Pairs(item, item, item))
    wanted = torch.from_numpy(picture((8, 12, 3), 5)).permute(2, 0, 1)
    assert torch.equal(found.train, wanted.expand(3, -1, -1, -1))
    assert found.train_labels.tolist() == [0 if label in (None, "seven") else 7] * 3


@pytest.mark.parametrize(
    ("values", "levels", "wanted"),
    [
        ([0, 255], 2, [0, 1]),
        ([0, 1], 2, [0, 1]),
        ([False, True], 2, [0, 1]),
        ([0.0, 1.0], 2, [0, 1]),
        ([0, 16], 17, [0, 16]),
        ([0.0, 16.0], 17, [0, 16]),
        ([0, 127], 128, [0, 127]),
        ([0, 128], 256, [0, 128]),
        ([3, 251], 256, [3, 251]),
        ([7, 7], 8, [7, 7]),
    ],
)
def test_levels_are_found(values, levels, wanted):
    found = own(np.array([[values], [values]]))
    assert (found.levels, found.train.unique().tolist()) == (levels, sorted({*wanted}))


def test_levels_can_be_given():
    two = np.array([[[0, 255]]] * 2)
    assert own(two, levels=256).train.unique().tolist() == [0, 255]
    assert own(np.array([[[0, 16]]] * 2), levels=32).levels == 32
    with pytest.raises(
        ValueError, match="levels: expected more than 16, the largest there is, got 9"
    ):
        own(np.array([[[0, 16]]] * 2), levels=9)


def test_one_bit_images_have_two_levels(tmp_path):
    bits = picture((8, 8)) > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    found = own(tmp_path)
    assert found.levels == 2 and torch.equal(found.train[0, 0].bool(), torch.from_numpy(bits))


def test_one_color_image_makes_all_of_them_color(tmp_path):
    gray = picture((8, 8))
    save(tmp_path / "a.png", gray)
    assert own(tmp_path).train.shape == (1, 1, 8, 8)
    save(tmp_path / "b.png", picture((8, 8, 3)))
    found = own(tmp_path).train
    assert gray.tobytes() * 3 in as_set(found) and found.shape == (2, 3, 8, 8)


def test_modes_of_pillow(tmp_path):
    color = picture((8, 8, 3))
    few = Image.fromarray(color).quantize(200)
    few.save(tmp_path / "palette.png")
    assert (own(tmp_path).train[0].permute(1, 2, 0).numpy() == np.asarray(few.convert("RGB"))).all()
    for mode in ("RGBA", "LA", "CMYK", "YCbCr"):
        path = tmp_path / mode / f"a.{'png' if 'A' in mode else 'jpg'}"
        path.parent.mkdir()
        Image.fromarray(color).convert(mode).save(path)
        assert own(path.parent).train.shape == (1, 1 if mode == "LA" else 3, 8, 8)


def test_what_is_transparent_becomes_white(tmp_path):
    for mode, color in (("RGBA", (9, 20, 30)), ("LA", (9,))):
        image = Image.new(mode, (4, 4), (*color, 255))
        image.putpixel((1, 2), (*color, 0))
        (tmp_path / mode).mkdir()
        image.save(tmp_path / mode / "a.png")
        pixels = own(tmp_path / mode).train[0]
        assert (pixels[:, 2, 1] == 255).all() and pixels[:, 0, 0].tolist() == list(color)


def test_photographs_are_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the top is on the right
    save(tmp_path / "a.png", picture((8, 12, 3)), exif=exif)
    turned = torch.from_numpy(np.rot90(picture((8, 12, 3)), -1).copy()).permute(2, 0, 1)
    assert torch.equal(own(tmp_path).train[0], turned)


def test_links_are_followed_each_place_once(folder, tmp_path):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert len(own(folder).train) == 6
    other = tmp_path / "other"
    other.mkdir()
    (other / "cats").symlink_to(folder / "cats", target_is_directory=True)
    (other / "one.png").symlink_to(folder / "dogs" / "1.png")
    found = own(other)
    assert len(found.train) == 4 and found.classes == ("", "cats")


def test_progress_is_shown_unless_it_is_switched_off(folder, capsys):
    data.own_images(folder)
    assert "/6" in capsys.readouterr().err
    own(folder)
    assert capsys.readouterr().err == ""


# --- sizes ---------------------------------------------------------------------------------------


def test_without_a_size_the_center_that_a_network_can_halve_is_taken(tmp_path):
    save(tmp_path / "a.png", levels := picture((11, 14, 3)))
    found = own(tmp_path, multiple=4).train[0]
    assert torch.equal(found, torch.from_numpy(levels[1:9, 1:13].copy()).permute(2, 0, 1))
    assert own(tmp_path).train.shape == (1, 3, 11, 14)


@pytest.mark.parametrize("shape", [(20, 35, 3), (35, 20, 3), (10, 10, 3), (21, 10)])
def test_a_size_scales_the_short_side_and_takes_the_center(tmp_path, shape):
    """A ramp along the long side keeps its center, and a step from side to side twice its size."""
    ramp = np.linspace(0, 255, max(shape[:2])).round().astype(np.uint8)
    levels = ramp[:, None] if shape[0] >= shape[1] else ramp[None]
    levels = np.broadcast_to(levels, shape[:2])
    levels = np.stack([levels] * 3, 2) if len(shape) == 3 else levels
    save(tmp_path / "a.png", np.ascontiguousarray(levels))
    found = own(tmp_path, size=10).train[0].double()
    long, short = max(shape[:2]), min(shape[:2])
    lines = found.mean((0, 1)) if shape[1] > shape[0] else found.mean((0, 2))
    wanted = 127.5 + (torch.arange(10) - 4.5) * (short / 10) * 255 / (long - 1)
    assert (lines - wanted)[1:-1].abs().max() < 2 and found.shape[1:] == (10, 10)


# --- what is refused -----------------------------------------------------------------------------


def broken(folder: Path) -> dict[str, bytes]:
    good = io.BytesIO()
    Image.fromarray(picture((40, 40, 3))).save(good, "png")
    png = good.getvalue()
    good = io.BytesIO()
    Image.fromarray(picture((40, 40, 3))).save(good, "jpeg")
    return {
        "cut.png": png[:-300],
        "cut.jpg": good.getvalue()[:-300],
        "empty.png": b"",
        "text.jpg": b"hello",
        "garbled.png": png[:100] + b"\xff" * 60 + png[160:],
        "head.jpg": good.getvalue()[:30],
        "tiff.tif": b"II*\0" + b"\xff" * 50,
        "gif.gif": b"GIF89a" + b"\1" * 20,
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", broken(Path()))
def test_a_broken_file_is_named(tmp_path, name):
    save(tmp_path / "good.png", picture((40, 40, 3)))
    (tmp_path / name).write_bytes(broken(tmp_path)[name])
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as an image .*take it away$"):
        own(tmp_path)


def refusals(tmp_path: Path) -> dict[str, tuple[object, dict, str]]:
    for name, levels in (("small", picture((8, 8))), ("large", picture((8, 9)))):
        save(tmp_path / "mixed" / f"{name}.png", levels)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "deep" / "a.png", picture((8, 8)).astype(np.uint16) * 200)
    save(tmp_path / "parts" / "train" / "a.png", picture((8, 8)))
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "a.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY no")
    np.savez(tmp_path / "two.npz", train=np.zeros((2, 4, 4)), test=np.zeros((2, 4, 4)))
    np.savez(tmp_path / "labels.npz", images=np.zeros((2, 4, 4)), labels=np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([None] * 3))
    bad = np.zeros((9, 4, 4))
    bad[5, 1, 1] = np.nan
    gray, color = (Image.fromarray(picture(shape)) for shape in ((8, 8), (8, 8, 3)))
    return {
        "no place": (
            tmp_path / "nowhere",
            {},
            "source: expected a folder or a file of images, got no ",
        ),
        "no images": (
            tmp_path / "empty",
            {},
            r"source: expected images \(.*\.png.*\) in .*empty, got none",
        ),
        "sizes": (
            tmp_path / "mixed",
            {},
            "size: expected a number of pixels, as the images differ",
        ),
        "too small": (
            tmp_path / "mixed",
            {"size": 16},
            "size: expected at most 8, the short side of ",
        ),
        "smaller than the network": (
            tmp_path / "mixed",
            {"multiple": 16},
            "png: expected sides of 16",
        ),
        "no multiple": (
            tmp_path / "mixed",
            {"size": 6, "multiple": 4},
            "size: expected a multiple of 4",
        ),
        "16 bits": (tmp_path / "deep", {}, "deep/a.png: expected at most 8 bits a channel"),
        "parts": (
            tmp_path / "parts",
            {},
            "source: expected .*/parts/train alone, as train is no class",
        ),
        "dead link": (tmp_path / "dead", {}, "dead/a.png: cannot be read as an image"),
        "no npy": (tmp_path / "a.npy", {}, "a.npy: cannot be read"),
        "objects": (tmp_path / "objects.npy", {}, "objects.npy: cannot be read"),
        "two arrays": (
            tmp_path / "two.npz",
            {},
            "two.npz: expected one array, or one that is named im",
        ),
        "labels": (
            tmp_path / "labels.npz",
            {},
            r"labels of .*npz: expected whole numbers, shape \(2,\)",
        ),
        "a text": (Path(__file__), {}, "source: expected a folder of images, an .npy or an .npz"),
        "a vector": (np.zeros((3, 4)), {}, r"source: expected \(N, H, W\).*got shape \(3, 4\)"),
        "four channels": (np.zeros((3, 8, 8, 4)), {}, r"source: expected \(N, H, W\)"),
        "no image": (np.zeros((0, 8, 8)), {}, r"source: expected \(N, H, W\)"),
        "NaN": (bad, {}, "source, image 5: expected finite numbers, got NaN or infinity"),
        "negative": (np.full((2, 4, 4), -1), {}, r"source, image \d: expected levels 0 to 255"),
        "too bright": (np.full((2, 4, 4), 256), {}, r"source, image \d: expected levels 0 to 255"),
        "normalized": (
            Pairs(torch.full((3, 4, 4), -0.5)),
            {},
            r"item 0: expected levels .*Normalize",
        ),
        "fractions": (Pairs(torch.full((3, 4, 4), 0.33)), {}, "item 0: expected levels 0 to 255"),
        "complex": (
            np.zeros((2, 4, 4), complex),
            {},
            r"image \d: expected numbers, got complex128",
        ),
        "gray and color": (Pairs(gray, color), {}, r"item \d: expected mode"),
        "words": (
            Pairs("a", "b"),
            {},
            r"item \d: expected an image of Pillow, a tensor or an array",
        ),
        "nothing": (Pairs(), {}, "source: expected images, got none"),
        "a number": (
            3,
            {},
            "source: expected a path, an array, or a data set with a length, got int",
        ),
        "no length": (iter([]), {}, "source: expected a path, an array, or a data set"),
        "size 0": (np.zeros((2, 4, 4)), {"size": 0}, "size: expected a whole number >= 1, got 0"),
        "half": (np.zeros((2, 4, 4)), {"multiple": 0.5}, "multiple: expected a whole number >= 1"),
    }


REFUSED = (
    "no place",
    "no images",
    "sizes",
    "too small",
    "smaller than the network",
    "no multiple",
    "16 bits",
    "parts",
    "dead link",
    "no npy",
    "objects",
    "two arrays",
    "labels",
    "a text",
    "a vector",
    "four channels",
    "no image",
    "NaN",
    "negative",
    "too bright",
    "normalized",
    "fractions",
    "complex",
    "gray and color",
    "words",
    "nothing",
    "a number",
    "no length",
    "size 0",
    "half",
)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, name):
    source, more, message = refusals(tmp_path)[name]
    with pytest.raises(ValueError, match=message) as error:
        own(source, **more)
    assert "\n" not in str(error.value)


def test_all_refusals_are_tried(tmp_path):
    assert refusals(tmp_path).keys() == {*REFUSED}


# --- the command line ----------------------------------------------------------------------------

TINY = "--widths 4 4 --batch-size 4 --held-out 3 --images 2 --device cpu --warmup 2 --steps 2"


def vdm(*given: object) -> int:
    return cli.main([str(word) for word in given])


@pytest.fixture
def refused(capsys):
    """Run a command that is to fail: its one line on stderr, after what was printed before."""

    def run(*given: object) -> str:
        try:
            code = vdm(*given)
        except SystemExit as stop:
            code = stop.code
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) >= 1
        return lines[-1]

    return run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Sixteen pieces of two photographs, of many sizes, in two classes; one of them is gray."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        for k in range(8):
            piece = photo[40 * k : 40 * k + 64 + 5 * k, 50 * k : 50 * k + 90 - 3 * k]
            save(folder / name / f"{k}.jpg", piece if k else piece[..., 0])
    return folder


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    assert vdm("train", "--data", photographs, "--size", 16, "--out", out, *TINY.split()) == 0
    return out


def test_photographs_of_mixed_sizes_train_evaluate_and_sample(photographs, run, tmp_path, capsys):
    weights = run / "weights.safetensors"
    assert vdm("evaluate", "--checkpoint", weights, "--draws", 1, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert f"3 held-out images of {photographs}, 1 draws each" in out
    images = own(photographs, size=16)
    assert images.train.shape == (16, 3, 16, 16) and images.classes == ("flower", "temple")
    report = evaluate(load_model(weights), images.train[-3:])
    assert float(out.split()[-5]) == pytest.approx(report.bits_per_dim, abs=5.1e-5)
    given = ("sample", "--checkpoint", weights, "--device", "cpu", "--images", 2, "--steps", 2)
    assert vdm(*given, "--out", tmp_path / "a.png") == 0
    assert Image.open(tmp_path / "a.png").size == (38, 20)
    assert Image.open(run / "samples" / "step_0000002.png").mode == "RGB"


def test_training_says_what_it_found(photographs, tmp_path, capsys):
    given = ("train", "--data", photographs, "--size", 16, "--out", tmp_path / "run")
    assert vdm(*given, *TINY.split()) == 0
    found = "16 color images of 16 x 16 pixels, 256 levels in 2 classes; 3 are held out"
    assert f"{photographs}: {found}" in capsys.readouterr().out
    assert vdm(*given, *TINY.split()[:-1], 4, "--resume") == 0


def test_images_that_have_moved_or_changed(photographs, run, tmp_path, refused, capsys):
    copy = shutil.copytree(photographs, tmp_path / "first")
    given = ["train", "--data", copy, "--size", 16, "--out", tmp_path / "run", *TINY.split()]
    assert vdm(*given) == 0
    evaluate = ["evaluate", "--checkpoint", tmp_path / "run" / "weights.safetensors", "--draws", 1]
    moved = copy.rename(tmp_path / "second")
    assert f"--data: say where the images are now, as {copy} is not" in refused(*evaluate)
    assert vdm(*evaluate, "--data", moved) == 0
    assert "3 held-out images of" in capsys.readouterr().out
    assert "--split: expected none, as own images" in refused(
        *evaluate, "--data", moved, "--split", "test"
    )
    (moved / "temple" / "3.jpg").unlink()
    assert vdm(*evaluate, "--data", moved) == 0
    assert f"15 images of {moved}" in capsys.readouterr().out
    moved.rename(copy)
    line = refused(*evaluate)
    assert f"--data: expected what the run found in {copy}" in line and "removed" in line
    assert "--data = " in refused(*given[:2], photographs, *given[3:], "--resume")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_trains(tmp_path, suffix, capsys):
    levels = np.arange(20 * 64).reshape(20, 8, 8) % 17
    file = tmp_path / f"digits{suffix}"
    np.save(file, levels) if suffix == ".npy" else np.savez(file, levels)
    given = ("train", "--data", file, "--out", tmp_path / "run", *TINY.split())
    assert vdm(*given) == 0
    assert "20 gray images of 8 x 8 pixels, 17 levels; 3 are held out" in capsys.readouterr().out
    assert load_model(tmp_path / "run" / "weights.safetensors").likelihood.levels == 17


def test_samples_in_an_array_can_be_trained_on(run, tmp_path):
    given = ("sample", "--checkpoint", run / "weights.safetensors", "--device", "cpu")
    assert vdm(*given, "--out", tmp_path / "a.npz", "--images", 5, "--steps", 2) == 0
    with np.load(tmp_path / "a.npz") as file:
        images = file["images"]
    assert (images.shape, images.dtype) == ((5, 3, 16, 16), np.uint8)
    assert as_set(own(tmp_path / "a.npz").train) == as_set(torch.from_numpy(images))


def test_what_the_command_line_refuses_of_own_images(photographs, tmp_path, refused):
    def train(*more: object) -> str:
        return refused("train", "--out", tmp_path / "run", *TINY.split(), *more)

    assert "--size: expected a number of pixels, as the images" in train("--data", photographs)
    wide = ("--data", photographs, "--size", 18, "--widths", 4, 4, 4)
    assert "--size: expected a multiple of 4, got 18" in train(*wide)
    assert "--size: is for own images" in train("--data", "digits", "--size", 8)
    assert "none, as --data is the path" in train("--data", photographs, "--folder", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "--data: expected images (.bmp" in train("--data", tmp_path / "empty")
    save(tmp_path / "two" / "a.png", picture((8, 8)))
    save(tmp_path / "two" / "b.png", picture((8, 8)))
    assert "--data: expected three images or more, got 2" in train("--data", tmp_path / "two")
    (tmp_path / "two" / "c.png").write_bytes(b"no")
    assert "two/c.png: cannot be read as an image" in train("--data", tmp_path / "two")
    assert "or a path of images, got ''" in train("--data", "")


def test_the_readme_does_what_it_says(photographs, tmp_path, monkeypatch, capsys):
    """Its Python as it stands, on photographs in the folder that it names."""
    section = README.read_text(encoding="utf-8").partition("## Your own images")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    for text, tiny in (("-100", "-3"), ("1000", "3"), ("size=32", "size=16"), ("fit(", "fit(")):
        assert text in code
        code = code.replace(text, tiny)
    shutil.copytree(photographs, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("steps=3", "steps=3, batch_size=4"), {})
    assert 0 < float(capsys.readouterr().out) < 30
    for words in re.findall(r"^vdm-lite (\w+) (.*?)(?:\s+#.*)?$", section, re.MULTILINE):
        options.parse([words[0], *words[1].split()])
