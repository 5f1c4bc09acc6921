"""The batch loss of chapter 10 under five samplers of the times, exact and sampled."""

from vdm_lite.schedules import SCHEDULES, Schedule
from vdm_lite.widgets.base import Widget, choice, whole

NAMES = ("linear", "cosine", "flow-matching", "edm", "beta-linear")


class TimeSamplers(Widget):
    r"""Histograms of the loss of a batch of the two-bump toy, whose denoiser is exact.

    ::

        loss = mean over the batch of 1/2 (-dlambda/dt) ||eps - eps_hat||^2 / p(t)

    in nats per coordinate of D independent copies of the toy, with times from five samplers: three
    whose times are uniform under the ``schedule``, and two densities over the noise levels. Beside
    the drawn batches stands the exact standard deviation (eq-two-parts), (eq-copies),
    (eq-importance-variance). The same ``seed`` draws the same batches. Chapter 10.
    """

    module = "time_samplers"
    title = "How far does the loss of a batch scatter?"
    copies = whole(1, 1, 50, label="copies of the toy D", log=True)
    batch = whole(64, 1, 128, label="examples in a batch k", log=True)
    schedule = choice("linear", list(NAMES), label="noise schedule")
    seed = whole(1, 1, 999, label="seed of the draws")

    def noise_schedule(self) -> Schedule:
        """The schedule that the reader has set, with log SNR from 10 to -8."""
        return SCHEDULES[self.schedule](10.0, -8.0)
