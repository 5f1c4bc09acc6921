"""Denoisers: modules ``(z, logsnr) -> y``, y in z's shape; what y stands for, they do not know."""

from vdm_lite.nets.embeddings import FourierFeatures, LogsnrEmbedding
from vdm_lite.nets.mlp import MLP
from vdm_lite.nets.unet import UNet

__all__ = ["MLP", "FourierFeatures", "LogsnrEmbedding", "UNet"]
