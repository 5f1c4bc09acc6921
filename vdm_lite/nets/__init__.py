"""Networks. Denoisers are modules ``(z, logsnr) -> y``, y in z's shape, whatever y stands for."""

from vdm_lite.nets.dense import Rungs, flat_decoder, flat_encoder, perceptron
from vdm_lite.nets.embeddings import FourierFeatures, LogsnrEmbedding
from vdm_lite.nets.energy import Energy
from vdm_lite.nets.mlp import MLP
from vdm_lite.nets.unet import UNet

__all__ = [
    "Energy",
    "MLP",
    "FourierFeatures",
    "LogsnrEmbedding",
    "Rungs",
    "UNet",
    "flat_decoder",
    "flat_encoder",
    "perceptron",
]
