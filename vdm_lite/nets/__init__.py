"""Denoisers: modules `(z, logsnr) -> y`, y in z's shape; what y stands for, they do not know."""

from .embeddings import FourierFeatures, LogsnrEmbedding
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "FourierFeatures", "LogsnrEmbedding", "UNet"]
