"""The three costs of chapter 5 on the 8-level toy, for any depth and any end points."""

from typing import Any

from vdm_lite.exact import EIGHT_LEVELS
from vdm_lite.schedules import Linear
from vdm_lite.widgets.base import Widget, fixed, number, whole


def _toy() -> dict[str, Any]:
    """The levels, their probabilities, and the entropy in nats, which no bound undercuts."""
    return {
        "weights": EIGHT_LEVELS.weights.tolist(),
        "means": EIGHT_LEVELS.means.flatten().tolist(),
        "stds": EIGHT_LEVELS.stds.tolist(),
        "entropy": EIGHT_LEVELS.entropy().item(),
    }


class ElboBars(Widget):
    r"""Prior, reconstruction and diffusion cost of the 8-level toy with its best denoiser.

    ::

        E[-ELBO] = prior + reconstruction + L_T >= H(X)            (eq-entropy-bound)

    in nats, with T layers whose log SNR falls linearly from ``cleanest`` to ``noisiest``, and with
    infinitely many. Chapter 5.
    """

    module = "elbo_bars"
    title = "Where do the nats go?"
    layers = whole(100, 1, 1000, label="layers T", log=True)
    cleanest = number(13.3, 2.5, 14.0, step=0.1, label="cleanest level λ₀", unit="log SNR")
    noisiest = number(-5.0, -10.0, 2.0, step=0.1, label="noisiest level λ₁", unit="log SNR")
    toy = fixed(_toy)

    def schedule(self) -> Linear:
        """The noise schedule that the reader has set."""
        return Linear(self.cleanest, self.noisiest)
