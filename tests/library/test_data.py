"""Toys have the density that they claim; images are the ones that they claim to be."""

import gzip
import importlib.util
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vdm_lite import data

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SCRIPT = Path(__file__).parents[2] / "tools" / "make_fashion_mnist.py"
TOYS = [data.eight_gaussians, data.five_clusters, data.moons, data.swirl, data.pinwheel]


@pytest.mark.parametrize("toy", TOYS)
def test_toy_density_integrates_to_one(toy):
    side = torch.linspace(-2.5, 2.5, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    mass = toy().log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
    torch.testing.assert_close(mass.item(), 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("toy", TOYS)
def test_toy_samples_follow_its_density(toy):
    # Two independent routes to the second moment: samples, and the density on a grid.
    side = torch.linspace(-2.5, 2.5, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    weights = toy().log_prob(grid).exp() * (side[1] - side[0]) ** 2
    x = toy().sample(40_000, torch.Generator().manual_seed(0))
    assert x.shape == (40_000, 2) and x.dtype == torch.get_default_dtype()
    for statistic in (lambda v: v, torch.square):
        error = statistic(x).double().mean(0) - (weights[:, None] * statistic(grid)).sum(0)
        assert (error.abs() < 5 * statistic(x).std(0) / 200).all()


@pytest.mark.parametrize("toy", TOYS)
def test_toy_fits_the_frame(toy):
    x = toy().sample(2000, torch.Generator().manual_seed(1))
    assert (x.abs() < 1.6).all() and 0.4 < x.std() < 1


def test_digits_are_all_there_and_split_by_class():
    images = data.digits()
    assert images.train.shape == (1442, 1, 8, 8) and images.test.shape == (355, 1, 8, 8)
    assert images.train.dtype == torch.uint8 and images.levels == 17
    assert images.train.min() == 0 and images.train.max() == 16
    share = images.test_labels.bincount() / (
        images.train_labels.bincount() + images.test_labels.bincount()
    )
    assert ((share - 0.2).abs() < 0.01).all()
    again = data.digits()
    assert all(torch.equal(a, b) for a, b in zip(images[:4], again[:4], strict=True))


def test_shipped_fashion_mnist_is_balanced():
    images = data.fashion_mnist()
    assert images.train.shape == (10_000, 1, 28, 28) and images.test.shape == (2_000, 1, 28, 28)
    assert images.train.dtype == torch.uint8 and images.levels == 256
    assert images.train.min() == 0 and images.train.max() == 255
    assert images.train_labels.bincount().tolist() == [1000] * 10
    assert images.test_labels.bincount().tolist() == [200] * 10
    assert data.checksum(images[:4]) == data.SUBSET_SHA256
    assert len(data.FASHION_CLASSES) == 10


def test_halved_images_are_means_of_blocks():
    images = data.fashion_mnist()
    half = data.halved(images)
    assert half.test.shape == (2_000, 1, 14, 14) and half.train.dtype == torch.uint8
    blocks = images.test[7, 0].double().reshape(14, 2, 14, 2).mean((1, 3))
    assert (half.test[7, 0].double() - blocks).abs().max() <= 0.5
    assert torch.equal(half.train_labels, images.train_labels) and half.levels == 256


def test_license_notice_ships_beside_the_images():
    notice = Path(data.__file__).parent / "LICENSE-fashion-mnist.txt"
    assert "Copyright (c) 2017 Zalando SE" in notice.read_text(encoding="utf-8")


def _script():
    spec = importlib.util.spec_from_file_location("make_fashion_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_script_makes_the_shipped_subset_again():
    made, shipped = _script().subset(DEBIAN), data.fashion_mnist()
    assert all(torch.equal(a, b) for a, b in zip(made[:4], shipped[:4], strict=True))


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_full_fashion_mnist_and_a_folder_with_other_content(tmp_path):
    full = data.fashion_mnist(DEBIAN)
    assert full.train.shape == (60_000, 1, 28, 28) and full.test.shape == (10_000, 1, 28, 28)
    for file in DEBIAN.glob("*.gz"):
        shutil.copy(file, tmp_path)
    shutil.copy(DEBIAN / "t10k-labels-idx1-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(ValueError, match="folder: expected SHA-256"):
        data.fashion_mnist(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.gz, got .*nowhere"):
        data.fashion_mnist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip",
        gzip.compress(b""),
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2) + bytes(7)),
        gzip.compress(struct.pack(">4B3I", 0, 0, 13, 3, 1, 1, 1) + bytes(4)),
        gzip.compress(bytes(1000))[:-20],
        gzip.compress(b"")[:10] + b"\xff" * 40,
        gzip.compress(b"\0\0\10"),
        gzip.compress(b"\0\0\10\3" + bytes(5)),
    ],
    ids=[
        "not gzip",
        "empty",
        "a byte short",
        "not bytes",
        "truncated gzip",
        "garbled gzip",
        "no number of axes",
        "no sizes",
    ],
)
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"folder: expected .*train-images-idx3-ubyte.gz"):
        data.fashion_mnist(tmp_path)


def test_idx_reads_what_was_written(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4)
    (tmp_path / "a.gz").write_bytes(gzip.compress(header + values.tobytes()))
    np.testing.assert_array_equal(data._idx(tmp_path / "a.gz"), values)


def test_rank_in_class():
    labels = torch.tensor([3, 1, 3, 3, 1, 0])
    assert data.rank_in_class(labels).tolist() == [0, 0, 1, 2, 1, 0]
