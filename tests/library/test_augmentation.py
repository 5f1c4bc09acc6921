"""What a weight stands for: masses, signs, and the weighted loss by parts, for every recipe."""

import math

import pytest
import torch

from vdm_lite import elbo, quadrature, weighting
from vdm_lite.augmentation import Augmentation
from vdm_lite.exact import Gaussian
from vdm_lite.schedules import Linear
from vdm_lite.weighting import RECIPES

F64 = torch.float64
DATA = Gaussian(torch.zeros(1, dtype=F64), math.sqrt(2.5))


def cost(logsnr, prior=0.7):
    """L of Gaussian data and the exact denoiser on [-8, 10], in closed form, plus a prior."""
    return prior + 0.5 * (torch.log1p(2.5 * logsnr.exp()) - math.log1p(2.5 * math.exp(-8)))


@pytest.mark.parametrize("name", RECIPES)
def test_by_parts_equals_the_weighted_loss(name):
    augmentation = Augmentation(RECIPES[name].weight, 10.0, -8.0)
    want = elbo.weighted_from_mmse(DATA.mmse, RECIPES[name].weight, Linear(10.0, -8.0))
    torch.testing.assert_close(augmentation.weighted_loss(cost), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_masses_add_up_and_their_sign_is_monotony(name):
    augmentation = Augmentation(RECIPES[name].weight, 10.0, -8.0)
    positive, negative = augmentation.masses()
    assert positive + negative + augmentation.clean == pytest.approx(augmentation.total)
    assert (negative == 0) == weighting.is_monotone(RECIPES[name].weight, 10.0, -8.0)
    unit = augmentation.expected(torch.ones_like)
    assert unit.item() == pytest.approx(augmentation.total)


def test_noise_cosine_is_a_signed_mixture():
    augmentation = Augmentation(weighting.noise_cosine, 10.0, -8.0)
    positive, negative = augmentation.masses()
    given = (positive, negative, augmentation.clean, augmentation.total)
    assert given == pytest.approx((0.987, -0.963, 0.0135, 0.0366), abs=5e-4)
    # The weight rises to its peak 1 at lambda = 0 and falls again.
    assert positive == pytest.approx(1 - 1 / math.cosh(5), rel=1e-6)
    assert negative == pytest.approx(1 / math.cosh(4) - 1, rel=1e-6)


def test_the_elbo_is_all_point_mass():
    augmentation = Augmentation(weighting.elbo, 10.0, -8.0)
    assert augmentation.masses() == (0, 0)
    assert augmentation.clean == augmentation.total == 1


def test_density_is_minus_the_slope():
    augmentation = Augmentation(weighting.sigmoid(2.0))
    logsnr = torch.linspace(-5, 13.3, 50, dtype=F64)
    share = torch.sigmoid(2 - logsnr)
    torch.testing.assert_close(augmentation.density(logsnr), share * (1 - share))
    nodes, weights = quadrature.interval(-5.0, 13.3)
    total = (weights * augmentation.density(nodes)).sum().item()
    assert total == pytest.approx(augmentation.total - augmentation.clean)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Augmentation(weighting.elbo, -5.0, 5.0), "logsnr_max, logsnr_min"),
        (lambda: Augmentation(lambda lam: -lam), r"weighting\(logsnr\)"),
        (lambda: Augmentation(lambda lam: lam.square() - 1), r"weighting\(logsnr\)"),
        (lambda: Augmentation(lambda lam: lam * math.nan), r"weighting\(logsnr\)"),
        (lambda: Augmentation(weighting.elbo).expected(lambda lam: lam[:2]), r"cost\(logsnr\)"),
        (lambda: quadrature.interval(1.0, 1.0), "low, high"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .+, got .+"):
        call()
