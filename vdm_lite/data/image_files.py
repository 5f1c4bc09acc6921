"""Images of one's own, as a folder, an array or a data set has them, become levels.

:func:`vdm_lite.data.own_images` is the way in.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vdm_lite import checks
from vdm_lite.progress import bar

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
GRAY = ("1", "L", "LA")
COLOR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's names of what has at most 8 bits a channel."""


class Items(NamedTuple):
    """Images that are still to be read."""

    number: int
    load: Callable[[int], tuple[Image.Image, int]]
    """Image i, of mode L or RGB, and its label."""
    name: Callable[[int], str]
    """What an error calls image i."""
    classes: tuple[str, ...] = ()


def items(source: Any, progress: bool) -> Items:
    """The images of a folder, of a file, of an array, or of a data set."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        checks.require(path.exists(), "source", "a folder or a file of images", f"no {path}")
        return _folder(path, progress) if path.is_dir() else _file(path)
    if isinstance(source, Tensor | np.ndarray):
        return _array(np.asarray(source), None, "source")
    listed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    expected = "a path, an array, or a data set with a length"
    checks.require(listed, "source", expected, type(source).__name__)
    checks.require(len(source) > 0, "source", "images", "none")
    return Items(len(source), lambda i: _item(source[i], f"item {i}"), lambda i: f"item {i}")


def read(given: Items, size: int | None, multiple: int, progress: bool) -> tuple[Tensor, Tensor]:
    """All images (N, C, H, W), uint8, and labels (N,), in an order that means nothing."""
    order = torch.randperm(given.number, generator=torch.Generator().manual_seed(0)).tolist()
    labels = torch.empty(given.number, dtype=torch.long)
    first, pixels = None, torch.empty(0, dtype=torch.uint8)
    for row, i in enumerate(bar(order, progress, unit="image")):
        image, labels[row] = given.load(i)
        image = _fitted(image, size, multiple, given.name(i))
        first = first or image
        _check_alike((image, first), (given.name(i), given.name(order[0])))
        levels = np.array(image).reshape(image.height, image.width, -1)
        if row == 0:
            pixels = pixels.new_empty(given.number, *np.moveaxis(levels, 2, 0).shape)
        pixels[row] = torch.from_numpy(levels).permute(2, 0, 1)
    return pixels, labels


def levels_of(pixels: Tensor, levels: int | None) -> tuple[Tensor, int]:
    """The pixels as levels, and how many there are; see :func:`vdm_lite.data.own_images`."""
    values = torch.bincount(pixels.flatten(), minlength=256).nonzero().flatten().tolist()
    if levels in (None, 2) and {*values} <= {0, 255}:
        return pixels.clamp_(max=1), 2
    found = values[-1] + 1 if values[-1] < 128 else 256
    enough = levels is None or values[-1] < levels
    checks.require(enough, "levels", f"more than {values[-1]}, the largest there is", levels)
    return pixels, levels or found


def _check_alike(images: tuple[Image.Image, Image.Image], names: tuple[str, str]) -> None:
    mode, wanted = (image.mode for image in images)
    checks.require(mode == wanted, names[0], f"mode {wanted}, as {names[1]} has", mode)
    sizes = [image.size for image in images]
    seen = [f"{name}: {w} x {h}" for name, (w, h) in zip(names, sizes, strict=True)]
    expected = f"a number of pixels, as the images differ ({', '.join(seen)})"
    checks.require(sizes[0] == sizes[1], "size", expected, "none")


def _fitted(image: Image.Image, size: int | None, multiple: int, name: str) -> Image.Image:
    short = min(image.size)
    if size is not None:
        checks.require(size <= short, "size", f"at most {short}, the short side of {name}", size)
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    checks.require(short >= multiple, name, f"sides of {multiple} pixels or more", image.size)
    width, height = (side - side % multiple for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


# --- folders -------------------------------------------------------------------------------------


def _folder(folder: Path, progress: bool) -> Items:
    files = _files(folder)
    checks.require(bool(files), "source", f"images ({', '.join(SUFFIXES)}) in {folder}", "none")
    classes = sorted({_class(path, folder) for path in files})
    expected = f"{folder / 'train'} alone, as train is no class"
    checks.require("train" not in classes, "source", expected, f"{folder} with {classes}")
    looked = bar(files, progress, unit="file")
    modes = {_mode_of(_opened(path), str(path)) for path in looked}
    mode = "RGB" if "RGB" in modes else "L"

    def load(i: int) -> tuple[Image.Image, int]:
        return _opened(files[i], mode), labels[i]

    labels = [classes.index(_class(path, folder)) for path in files]
    return Items(len(files), load, lambda i: str(files[i]), tuple(classes))


def _files(folder: Path) -> list[Path]:
    """Images below the folder, by name. Links are followed, each place once; hidden ones are not"""
    found, seen = [], set()
    for where, folders, names in os.walk(folder, onerror=_fail, followlinks=True):
        new = os.path.realpath(where) not in seen
        seen.add(os.path.realpath(where))
        folders[:] = [name for name in folders if new and not name.startswith(".")]
        shown = [name for name in names if new and not name.startswith(".")]
        found += [Path(where, name) for name in shown if name.lower().endswith(SUFFIXES)]
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error


def _class(path: Path, folder: Path) -> str:
    """The subfolder of ``folder`` that holds the file, "" for the folder itself."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _opened(path: Path, mode: str | None = None) -> Image.Image:
    """The image, its pixels read and made L or RGB where ``mode`` asks for it."""
    try:
        with Image.open(path) as image:
            return _flat(image, mode) if mode else image
    except MemoryError:
        raise
    except Exception as error:  # decoders of broken files raise errors of many kinds
        message = f"{path}: cannot be read as an image ({error}): mend it or take it away"
        raise ValueError(message) from error


def _mode_of(image: Image.Image, name: str) -> str:
    """L or RGB."""
    known = image.mode in GRAY + COLOR
    expected = "at most 8 bits a channel (save it so, or give its levels in an .npy)"
    checks.require(known, name, expected, f"an image of mode {image.mode}")
    return "L" if image.mode in GRAY else "RGB"


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Turned as its EXIF entry says; transparent parts on white; of mode L or RGB."""
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


# --- arrays and data sets ------------------------------------------------------------------------


def _file(path: Path) -> Items:
    known = path.suffix.lower() in (".npy", ".npz")
    checks.require(known, "source", "a folder of images, an .npy or an .npz", path)
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {"images": content} if isinstance(content, np.ndarray) else dict(content)
    except MemoryError:
        raise
    except Exception as error:  # of what is cut off or something else, of many kinds
        raise ValueError(f"{path}: cannot be read: {error}") from error
    labels, names = arrays.pop("labels", None), ", ".join(arrays)
    one = "images" in arrays or len(arrays) == 1
    checks.require(one, str(path), "one array, or one that is named images", names)
    images = arrays["images"] if "images" in arrays else next(iter(arrays.values()))
    return _array(images, labels, str(path))


def _array(array: np.ndarray, labels: np.ndarray | None, name: str) -> Items:
    array = _channels_last(array, name)
    classes = np.zeros(len(array), int) if labels is None else labels
    fits = classes.shape == (len(array),) and classes.dtype.kind in "iu"
    expected = f"whole numbers, shape ({len(array)},)"
    checks.require(fits, f"labels of {name}", expected, f"{classes.dtype} {classes.shape}")
    scale = 255 if array.dtype.kind == "f" and array.max() <= 1 else 1

    def load(i: int) -> tuple[Image.Image, int]:
        return _image(array[i], scale, f"{name}, image {i}"), int(classes[i])

    return Items(len(array), load, lambda i: f"{name}, image {i}")


def _channels_last(array: np.ndarray, name: str) -> np.ndarray:
    """(N, H, W, C) of (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        array = np.moveaxis(array, 1, 3)
    fits = array.ndim == 4 and array.shape[3] in (1, 3) and array.size > 0
    expected = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
    checks.require(fits, name, expected, f"shape {array.shape}")
    return array


def _item(item: Any, name: str) -> tuple[Image.Image, int]:
    """An image, or (image, label), as a data set gives it; other labels than numbers become 0."""
    image, *more = item if isinstance(item, tuple | list) else [item]
    label = np.asarray(more[0] if more else 0)
    number = int(label) if label.ndim == 0 and label.dtype.kind in "iu" else 0
    if isinstance(image, Image.Image):
        return _flat(image, _mode_of(image, name)), number
    array = isinstance(image, Tensor | np.ndarray)
    checks.require(array, name, "an image of Pillow, a tensor or an array", type(image).__name__)
    values = _channels_last(np.asarray(image)[None], name)[0]
    return _image(values, 255 if values.dtype.kind == "f" else 1, name), number


def _image(values: np.ndarray, scale: int, name: str) -> Image.Image:
    """Levels (H, W, C), or floats that are levels / 255, as an image of mode L or RGB."""
    numbers = values.dtype.kind in "buif"
    checks.require(numbers, name, "numbers", values.dtype)
    finite = bool(np.isfinite(values).all())
    checks.require(finite, name, "finite numbers", "NaN or infinity")
    scaled = np.multiply(values, scale, dtype=float)
    whole = scaled.round()
    fits = np.abs(scaled - whole).max() < 0.01 and whole.min() >= 0 and whole.max() <= 255
    expected = "levels 0 to 255, or 255ths of them as floats (without Normalize)"
    checks.require(fits, name, expected, f"{values.dtype} from {values.min()} to {values.max()}")
    levels = whole.astype(np.uint8)
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0])
