"""What :mod:`vdm_lite.training.config` offers, under the name that it had before."""

from vdm_lite.training.config import ModelConfig, describe, load_model

__all__ = ["ModelConfig", "describe", "load_model"]
