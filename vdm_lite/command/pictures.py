"""Images as PNG files."""

import io
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vdm_lite.checkpoints import write_bytes


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


def write_png(path: Path, canvas: Tensor) -> None:
    """Write a canvas (H, W, 1 or 3) of bytes, the whole file or none."""
    content = io.BytesIO()
    Image.fromarray(canvas.squeeze(-1).numpy()).save(content, "png")
    write_bytes(path, content.getvalue())
