"""Samples as files: a grid, a grid that moves, an array.

Each writer takes levels (T, N, C, H, W) of N images at T moments, and their number of levels.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vdm_lite.training.checkpoints import write_bytes


def grid(images: Tensor, levels: int, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) of levels side by side, as square as can be: (H', W', C) bytes.

    C is 1 or 3; levels are stretched to 0 … 255; the gaps are gray.
    """
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    down, right = height + gap, width + gap
    canvas = torch.full(
        (rows * down + gap, columns * right + gap, channels), 128, dtype=torch.uint8
    )
    pixels = (images.float() * 255 / (levels - 1)).round().to(torch.uint8).permute(0, 2, 3, 1)
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * down, gap + i % columns * right
        canvas[top : top + height, left : left + width] = image
    return canvas


def write_png(path: Path, images: Tensor, levels: int) -> None:
    """Write a grid of the last moment, the whole file or none."""
    _save(path, [grid(images[-1], levels)])


def write_gif(path: Path, images: Tensor, levels: int) -> None:
    """Write all moments as a GIF: 15 a second, the last one for two seconds, and again."""
    times = [67] * (len(images) - 1) + [2000]
    _save(path, [grid(each, levels) for each in images], duration=times, loop=0)


def write_npz(path: Path, images: Tensor, levels: int) -> None:
    """Write the last moment as the array ``images`` (N, C, H, W) of the smallest whole numbers."""
    content = io.BytesIO()
    np.savez(content, images=images[-1].numpy().astype(np.min_scalar_type(levels - 1)))
    write_bytes(path, content.getvalue())


def _save(path: Path, canvases: list[Tensor], **more: Any) -> None:
    first, *others = [Image.fromarray(canvas.squeeze(-1).numpy()) for canvas in canvases]
    if others:
        more |= {"save_all": True, "append_images": others}
    content = io.BytesIO()
    first.save(content, path.suffix[1:], **more)
    write_bytes(path, content.getvalue())
