"""Figures of the book: what several chapters draw. A chapter's own figures have their file.

from vdm_lite import figures
from vdm_lite.figures import ch04_forward_process as ch04
"""

from vdm_lite.figures.base import (
    COLORS,
    bells,
    density,
    elbo_bars,
    image_grid,
    scatter,
    shades,
    titled_images,
    trajectories,
    use_style,
)

__all__ = [
    "COLORS",
    "use_style",
    "shades",
    "image_grid",
    "scatter",
    "density",
    "elbo_bars",
    "trajectories",
    "titled_images",
    "bells",
]
