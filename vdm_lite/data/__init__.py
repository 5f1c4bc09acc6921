"""Data: toys whose density is known, digits, Fashion-MNIST, and images of one's own.

Toys are two-dimensional :class:`.GaussianMixture` objects: curves made of many small
Gaussians, so samples, density, score and the best denoiser are all exact. They fill about
[-1.3, 1.3]^2. Images come as integer levels (N, 1, H, W), the form that
:class:`vdm_lite.likelihood.Discretized` takes.
"""

import gzip
import hashlib
import importlib.resources
import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vdm_lite import checks
from vdm_lite.data import image_files
from vdm_lite.exact import GaussianMixture

FASHION_CLASSES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""What each label of Fashion-MNIST is."""
SUBSET_SHA256 = "1d459a5ec7c3b89e51f08abf08ee1998b2a3b78badb2dff1e858a0aef7643f40"
FULL_SHA256 = "2cbc59191665e1ba3f2494648f17edac5974f748ab89fb2ae05597d658161f54"


class Images(NamedTuple):
    """Images as levels 0 … levels-1, split into training and test data."""

    train: Tensor
    """(N, C, H, W), uint8."""
    test: Tensor
    train_labels: Tensor
    """(N,), int64."""
    test_labels: Tensor
    levels: int
    classes: tuple[str, ...] = ()
    """What the labels of own images mean: names of subfolders."""


def eight_gaussians() -> GaussianMixture:
    """Eight round bumps on the unit circle, each of width 0.1: the easiest toy."""
    return _mixture(
        *_polar(torch.ones(8), 2 * math.pi * torch.arange(8) / 8), torch.full((8,), 0.1)
    )


def five_clusters() -> GaussianMixture:
    """Five round bumps, each of width 0.1, on a flat ellipse with half axes 1 and 0.6."""
    x, y = _polar(torch.ones(5), math.pi / 2 + 2 * math.pi * torch.arange(5) / 5)
    return _mixture(x, 0.6 * y, torch.full((5,), 0.1))


def moons() -> GaussianMixture:
    """Two half circles of radius 0.8 that reach into each other; width 0.06."""
    x, y = _polar(torch.full((32,), 0.8), math.pi * _spread(32))
    xs, ys = torch.cat([x - 0.4, 0.4 - x]), torch.cat([y - 0.2, 0.2 - y])
    return _mixture(xs, ys, torch.full((64,), 0.06))


def swirl() -> GaussianMixture:
    """One spiral arm of 1.75 turns, evenly dense along its length; width 0.05."""
    along = _spread(64).sqrt()
    return _mixture(*_polar(1.2 * along, 3.5 * math.pi * along), torch.full((64,), 0.05))


def pinwheel() -> GaussianMixture:
    """Four curved blades, narrow at the hub (0.03) and wide at the tip (0.11)."""
    radius = (0.25 + 0.95 * _spread(16)).repeat(4)
    blade = torch.arange(4).repeat_interleave(16)
    return _mixture(*_polar(radius, math.pi / 2 * blade + 1.3 * radius), 0.01 + 0.085 * radius)


def _spread(n: int) -> Tensor:
    """``n`` midpoints of equal pieces of [0, 1]."""
    return (torch.arange(n) + 0.5) / n


def _polar(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    return radius * angle.cos(), radius * angle.sin()


def _mixture(x: Tensor, y: Tensor, stds: Tensor) -> GaussianMixture:
    return GaussianMixture(torch.full_like(x, 1 / len(x)), torch.stack([x, y], 1), stds)


def digits() -> Images:
    """scikit-learn's 1,797 digits (8x8, 17 levels): every fifth of each class is for testing.

    The file runs from writer to writer, so both parts see all hands. 1,442 + 355 images. Neighbors
    are a little alike: ``evaluation.evaluate`` gives somewhat too small a standard error for them.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    source = load_digits()
    images = torch.from_numpy(source.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(source.target).long()
    test = rank_in_class(labels) % 5 == 4
    return Images(images[~test], images[test], labels[~test], labels[test], levels=17)


def fashion_mnist(folder: str | os.PathLike | None = None) -> Images:
    """Fashion-MNIST (28x28, 256 levels): the 10,000 + 2,000 images that ship with the library.

    Every class has 1,000 + 200 images; :data:`FASHION_CLASSES` names them. ``folder`` with the four
    original ``.gz`` files (Debian: ``/usr/share/datasets/fashion-mnist``) gives all
    60,000 + 10,000. MIT licence, (c) 2017 Zalando SE; see ``LICENSE-fashion-mnist.txt`` here.

    Raises FileNotFoundError for a missing file, ValueError for one with other content.
    """
    images = _shipped() if folder is None else _original(Path(folder))
    expected = SUBSET_SHA256 if folder is None else FULL_SHA256
    checks.require(checksum(images[:4]) == expected, "folder", f"SHA-256 {expected}", "other data")
    return images


def torchvision_images(name: str, folder: str | os.PathLike, download: bool = False) -> Images:
    """``mnist`` (28x28, gray) or ``cifar10`` (32x32, color) from ``folder``, by torchvision.

    Nothing is fetched unless ``download`` says so. Raises FileNotFoundError for data that are not
    there, and ValueError where torchvision cannot be imported.
    """
    try:
        from torchvision import datasets  # not needed by the book
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ValueError(f"{name}: expected torchvision, which reads it, got {error}") from error
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    try:
        train, test = (kind(str(folder), train=part, download=download) for part in (True, False))
    except RuntimeError as error:
        message = f"{name}: expected its files in {folder} (or a download): {error}"
        raise FileNotFoundError(message) from error
    images = [_channels_first(torch.as_tensor(part.data)) for part in (train, test)]
    labels = [torch.as_tensor(part.targets).long() for part in (train, test)]
    return Images(*images, *labels, levels=256)


def own_images(
    source: Any,
    size: int | None = None,
    multiple: int = 1,
    levels: int | None = None,
    progress: bool = True,
) -> Images:
    """Images of one's own, all as ``train``, in an order that means nothing; ``test`` is empty.

    Keep the last few for evaluation. ``source`` is

    - a folder of image files; subfolders, if any, are the labels. Color if one of them is, or has
      a palette. Hidden files are left out, links are followed, EXIF orientation is applied,
      transparent parts become white, and of several pictures in a file the first is taken;
    - an ``.npy`` or ``.npz`` file, or an array or tensor: (N, H, W), (N, H, W, C) or (N, C, H, W),
      whole levels from 0, or floats k / 255. An ``.npz`` holds ``images`` and, if there are any,
      ``labels`` (N,);
    - a data set with a length, such as a map-style ``torch.utils.data.Dataset``, of images or of
      pairs (image, label). Images are Pillow's, tensors (C, H, W) or arrays (H, W, C).

    With ``size`` the short side of each image is scaled to it and the center ``size`` x ``size``
    is cut out. Without, all are to have one size, and what is over a ``multiple`` is cut off on all
    sides: a U-Net with n widths wants multiples of 2^(n - 1).

    ``levels``, if not given, is 2 for images of black (0) and white (255) alone; one more than the
    largest value where that is below 128; 256 else.

    Raises ValueError, which names the file or the index, for what cannot be used.
    """
    for name, value in (("size", size), ("multiple", multiple), ("levels", levels)):
        checks.count(name, 1 if value is None else value)
    fits = size is None or size % multiple == 0
    checks.require(fits, "size", f"a multiple of {multiple}", size)
    given = image_files.items(source, progress)
    pixels, labels = image_files.read(given, size, multiple, progress)
    pixels, found = image_files.levels_of(pixels, levels)
    return Images(pixels, pixels[:0], labels, labels[:0], found, given.classes)


def _channels_first(pixels: Tensor) -> Tensor:
    """(N, H, W) or (N, H, W, C) -> (N, C, H, W)."""
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def halved(images: Images) -> Images:
    """The images at half their size: each 2x2 block becomes its mean, rounded to a level.

    (N, C, H, W) -> (N, C, H // 2, W // 2): an odd last row or column is left out.
    """

    def half(pixels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(pixels.float(), 2).round().to(pixels.dtype)

    return images._replace(train=half(images.train), test=half(images.test))


def checksum(arrays: Iterable[Tensor]) -> str:
    """SHA-256 of the arrays' values, one byte each, in the order given."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.to(torch.uint8).contiguous().numpy())
    return digest.hexdigest()


def _shipped() -> Images:
    path = importlib.resources.files("vdm_lite.data") / "fashion_mnist.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        return _images(*(arrays[k] for k in ("train", "test", "train_labels", "test_labels")))


def _original(folder: Path) -> Images:
    kinds = ("images-idx3", "labels-idx1")
    train, train_labels = (_idx(folder / f"train-{kind}-ubyte.gz") for kind in kinds)
    test, test_labels = (_idx(folder / f"t10k-{kind}-ubyte.gz") for kind in kinds)
    return _images(train[:, None], test[:, None], train_labels, test_labels)


def _images(
    train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray
) -> Images:
    labels = (torch.from_numpy(t).long() for t in (train_labels, test_labels))
    return Images(torch.from_numpy(train), torch.from_numpy(test), *labels, levels=256)


def _idx(path: Path) -> np.ndarray:
    """An idx file: two zeros, type 8 (bytes), the number of axes, their sizes, then the bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"folder: expected one that holds {path.name}, got {path.parent}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"folder: expected a gzip file, got {path}: {error}") from error
    axes = content[3] if content[:3] == b"\0\0\10" and len(content) > 3 else 0
    sizes = content[4 : 4 + 4 * axes]
    shape = [int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4)]
    if not axes or len(content) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"folder: expected an idx file of bytes, got {path}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def rank_in_class(labels: Tensor) -> Tensor:
    """0 for the first example of each class in file order, 1 for the second, …: (N,)."""
    same = labels[:, None] == labels.unique()
    return (same.cumsum(0) - 1)[same]
