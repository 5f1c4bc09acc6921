"""Distributions and models whose every quantity is known: the truths of the book."""

from vdm_lite.exact.linear import LinearHierarchy, probabilistic_pca, smallest_gap
from vdm_lite.exact.mixtures import (
    EIGHT_LEVELS,
    TWO_BUMPS,
    FiniteData,
    Gaussian,
    GaussianMixture,
)
from vdm_lite.quadrature import normal as normal_quadrature

__all__ = [
    "EIGHT_LEVELS",
    "TWO_BUMPS",
    "FiniteData",
    "Gaussian",
    "GaussianMixture",
    "LinearHierarchy",
    "normal_quadrature",
    "probabilistic_pca",
    "smallest_gap",
]
