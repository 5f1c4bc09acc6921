"""Live widgets: they compute on the book's pages, in JupyterLab and in Colab.

Each has traits that Python can read and set; :mod:`vdm_lite.widgets.base` says how it works.
"""

from vdm_lite.widgets.denoiser import Denoiser
from vdm_lite.widgets.elbo_bars import ElboBars
from vdm_lite.widgets.holes import Holes
from vdm_lite.widgets.inference_graph import InferenceGraph
from vdm_lite.widgets.infinite_depth import InfiniteDepth
from vdm_lite.widgets.parameterization_converter import ParameterizationConverter
from vdm_lite.widgets.posterior_explorer import PosteriorExplorer
from vdm_lite.widgets.schedule_explorer import ScheduleExplorer
from vdm_lite.widgets.time_samplers import TimeSamplers
from vdm_lite.widgets.training import TrainingPanel
from vdm_lite.widgets.vae_gap import VaeGap
from vdm_lite.widgets.weight_explorer import WeightExplorer

ALL: tuple[type, ...] = (
    Denoiser,
    Holes,
    InferenceGraph,
    ElboBars,
    InfiniteDepth,
    ParameterizationConverter,
    PosteriorExplorer,
    ScheduleExplorer,
    TimeSamplers,
    VaeGap,
    WeightExplorer,
)
"""Every widget that runs without a kernel."""

__all__ = [
    "ALL",
    "Denoiser",
    "Holes",
    "InferenceGraph",
    "ElboBars",
    "InfiniteDepth",
    "ParameterizationConverter",
    "PosteriorExplorer",
    "ScheduleExplorer",
    "TimeSamplers",
    "VaeGap",
    "WeightExplorer",
    "TrainingPanel",
]
