"""How far the bound of chapter 1 lies from ``log p(x)``, for a q that the reader drags."""

from typing import Any

from vdm_lite.widgets.base import Widget, fixed, number, switch


def _toy() -> dict[str, Any]:
    """The linear VAE of chapter 1: p(x | z) = N(weight z, std^2), one latent, one x."""
    return {"weight": 1.0, "std": 0.5, "x": 1.5}


class VaeGap(Widget):
    r"""Both costs of ``q = N(mean, variance)`` and its gap, on the linear VAE with one latent.

    ::

        -ELBO    = E_q[-log p(x | z)] + KL(q || p(z))             (eq-vae-elbo)
        log p(x) = ELBO + KL(q || p(z | x))                       (eq-evidence-gap)

    with p(z) = N(0, 1), p(x | z) = N(z, 0.5^2) and x = 1.5, so that the posterior p(z | x) is
    N(1.2, 0.2). Costs are in nats. Chapter 1.
    """

    module = "vae_gap"
    title = "How close is q to the posterior?"
    mean = number(0.5, -2.0, 3.0, step=0.01, label="mean of q")
    variance = number(0.5, 0.01, 2.0, step=0.01, label="variance of q", log=True)
    truth = switch(True, label="show the posterior and the gap")
    toy = fixed(_toy)
