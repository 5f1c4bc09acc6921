"""A scalar network, for the energy parameterization."""

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vdm_lite import checks
from vdm_lite.gaussian import sigma, sum_except_batch


class Energy(nn.Module):
    """``E(z, logsnr) = <z, f(z, logsnr)> / sigma``: (B,), from any network f with output like z.

    The division gives the gradient the scale of the score, ``-eps / sigma``, so that f works with
    numbers of order one at every level.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        checks.function("network", network, "(z, logsnr) -> y")
        self.network = network

    def forward(self, z: Tensor, logsnr: Tensor) -> Tensor:
        # Training differentiates the gradient again, which fused attention cannot.
        with sdpa_kernel(SDPBackend.MATH):
            output = self.network(z, logsnr)
        checks.answer("network(z, logsnr)", output, z)
        return sum_except_batch(z * output) / sigma.formula(logsnr)
