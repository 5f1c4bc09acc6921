"""What :mod:`vdm_lite.training.evaluation` offers, under the name that it had before."""

from vdm_lite.training.evaluation import Report, evaluate

__all__ = ["Report", "evaluate"]
