"""The top-down posterior of chapter 4, for one pixel and for an image."""

from typing import Any

import traitlets

from vdm_lite import data
from vdm_lite.widgets.base import Widget, choice, fixed, number, whole

PICTURES = {"ankle boot": 39, "checked shirt": 7, "bag": 30}  # places among the test images
APART = 0.01  # the shortest step from s to t


def _pictures() -> dict[str, Any]:
    """Images of 14 x 14 gray levels, 0 … 255, row by row."""
    test = data.halved(data.fashion_mnist()).test
    return {name: test[place].flatten().tolist() for name, place in PICTURES.items()}


class PosteriorExplorer(Widget):
    r"""Prior times likelihood gives ``q(z_s | z_t, x)``, at any two times of the linear schedule.

    ::

        q(z_s | x)       = N(alpha_s x, sigma_s^2)                the prior for z_s
        q(z_t | z_s)     = N(alpha_ts z_s, var_ts)                the likelihood of z_s
        q(z_s | z_t, x)  = N(mu_Q, c sigma_s^2)                   the posterior (eq-posterior)

    ``c = 1 - SNR(t) / SNR(s)`` is the share of the posterior's precision that x gives. Above, one
    pixel with its ``x`` and ``z_t``; below, an image of Fashion-MNIST, halved to 14 x 14. The
    schedule is ``schedules.Linear()``. Where s would not be below t by ``APART``, s gives way if t
    has just moved, and t otherwise. Chapter 4.
    """

    module = "posterior_explorer"
    title = "Who decides about the cleaner latent?"
    s = number(0.64, 0.0, 0.99, step=0.01, label="time s, cleaner")
    t = number(0.7, 0.01, 1.0, step=0.01, label="time t, noisier")
    x = number(0.8, -1.0, 1.0, step=0.01, label="one pixel, x")
    z = number(0.1, -3.0, 3.0, step=0.01, label="the noisy pixel, zₜ")
    picture = choice("ankle boot", list(PICTURES), label="image")
    draw = whole(1, 1, 20, label="draw of zₛ, number")
    pictures = fixed(_pictures)

    @traitlets.observe("s", "t")
    def _keep_apart(self, change: Any) -> None:
        if self.t - self.s > APART - 1e-9:
            return
        if change.name == "t":
            self.s = round(self.t - APART, 10)
        else:
            self.t = round(self.s + APART, 10)
