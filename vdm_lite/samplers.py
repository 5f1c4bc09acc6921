r"""From noise to data: step functions, and one generator that walks them from t = 1 to t = 0.

A step takes a prediction at level t and draws the latent at the less noisy level s:
``step(prediction, z_t, logsnr_s, source) -> z_s``.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_lite import checks, randomness
from vdm_lite.checks import checked, examples
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.gaussian import diffuse, posterior, working_dtype
from vdm_lite.parameterization import Prediction
from vdm_lite.randomness import Generator, Source
from vdm_lite.schedules import levels

StepRule = Callable[[Prediction, Tensor, Tensor, Source], Tensor]


class State(NamedTuple):
    """One moment of sampling: the time reached, the latents z there, and x_hat that led there."""

    t: float
    z: Tensor
    x_hat: Tensor


@checked(
    z_t=examples, logsnr_s=(checks.levels, "z_t"), prediction=(checks.prediction, "z_t", "logsnr_s")
)
def ancestral_step(
    prediction: Prediction, z_t: Tensor, logsnr_s: Tensor, generator: Generator = None
) -> Tensor:
    """Draw z_s from the model's p(z_s | z_t) = q(z_s | z_t, x_hat) (eq-generative-transition).

    The mean is (eq-generative-mean).
    """
    q = posterior.formula(z_t, prediction.x, logsnr_s, prediction.logsnr)
    return q.mean + q.var.sqrt() * randomness.of(generator, like=z_t).normal(z_t.shape)


@checked(z_t=examples, logsnr_s=(checks.levels, "z_t"), prediction=(checks.prediction, "z_t"))
def ddim_step(
    prediction: Prediction, z_t: Tensor, logsnr_s: Tensor, generator: Generator = None
) -> Tensor:
    """The deterministic step ``z_s = alpha_s x_hat + sigma_s eps_hat`` (Song et al. 2021)."""
    return diffuse.formula(prediction.x, logsnr_s, prediction.eps)


def sample(
    model: VariationalDiffusion,
    shape: tuple[int, ...],
    steps: int,
    step: StepRule = ancestral_step,
    generator: Generator = None,
) -> Iterator[State]:
    """Walk from z_1 ~ N(0, I) of shape (B, ...) to z_0 in ``steps`` steps, yielding each state.

    Data are ``model.likelihood.decode(state.x_hat)`` of the last state. Tensors live where the
    model's parameters do, or the generator's where it has none. ``ValueError``, at the call, for
    ``steps < 1``, an empty shape, and what is no model, step or generator.
    """
    checks.model("model", model)
    shape = checks.counts("shape", shape, "(B, ...) with sizes >= 1")
    steps = checks.count("steps", steps)
    checks.function("step", step, "(prediction, z_t, logsnr_s, source) -> z_s")
    source = _source(model, generator)
    z = source.normal(shape)
    return _walk(model, z, steps, step, randomness.of(source, like=z))


@torch.no_grad()
def _walk(
    model: VariationalDiffusion,
    z: Tensor,
    steps: int,
    step: StepRule,
    source: Source,
) -> Iterator[State]:
    logsnr_s, logsnr_t = levels(model.schedule, steps, z)
    step = getattr(step, "formula", step)  # of a step of ours: its input is ours, too
    for i in reversed(range(steps)):
        prediction = model.predict(z, logsnr_t[i])
        z_s = step(prediction, z, logsnr_s[i], source)
        checks.answer("step(prediction, z_t, logsnr_s, source)", z_s, z)
        z = z_s
        yield State(i / steps, z, prediction.x)


def _source(model: VariationalDiffusion, generator: Generator) -> Source:
    source, weight = randomness.of(generator), next(model.parameters(), None)
    return source if weight is None else source.on(weight.device, working_dtype(model))
