"""Figures of the book: what several chapters draw. A chapter's own figures have their file."""

from vdm_lite.plots import graphs
from vdm_lite.plots.base import (
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
from vdm_lite.plots.graphs import two_hierarchies
from vdm_lite.plots.part_two import (
    bits_curve,
    correlations,
    depth,
    elbo_panels,
    error_rectangles,
    float32_errors,
    forward_density,
    information_curves,
    posterior_panels,
    three_areas,
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
    "graphs",
    "two_hierarchies",
    "posterior_panels",
    "forward_density",
    "correlations",
    "information_curves",
    "float32_errors",
    "error_rectangles",
    "depth",
    "three_areas",
    "elbo_panels",
    "bits_curve",
]
