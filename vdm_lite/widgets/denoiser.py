"""The trained denoiser of chapter 12, sampled while the reader watches."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import traitlets
from torch import Tensor

from vdm_lite import data, samplers
from vdm_lite.counter import Counter
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.elbo import bits_per_dim
from vdm_lite.gaussian import diffuse, sum_except_batch
from vdm_lite.parameterization import IMAGE, solve
from vdm_lite.runs.ch12.denoiser import trained
from vdm_lite.samplers import State
from vdm_lite.schedules import levels
from vdm_lite.training.config import ModelConfig
from vdm_lite.widgets.base import Widget, choice, curve, fixed, switch, whole
from vdm_lite.widgets.posterior_explorer import PICTURES

NEW = "a new one"
FORMS = ("image x̂", "noise ε̂", "velocity v̂")
STEPS = {"ancestral": samplers.ancestral_step, "DDIM": samplers.ddim_step}
SHAPE = (1, 1, 28, 28)
CLEAN, NOISY = ModelConfig().logsnr_max, ModelConfig().logsnr_min


def _pictures() -> dict[str, list[int]]:
    """Test images of 28 x 28 gray levels, 0 … 255, row by row."""
    test = data.fashion_mnist().test
    return {name: test[place].flatten().tolist() for name, place in PICTURES.items()}


class Denoiser(Widget):
    r"""Latents, predictions and costs of each step from z_1 to z_0, for a new picture or a known x.

    A new picture is ``samplers.sample(model, SHAPE, steps, step, Counter(seed))``. For a known test
    image the latents come from ``q(z_s | z_t, x)`` instead, with the same steps: then the bars ::

        KL(q(z_s | z_t, x) || p(z_s | z_t)) = 1/2 (SNR(s) - SNR(t)) ||x - x_hat||^2

    are one draw of the layers of the bound (eq-discrete-loss), in bits/dim. For a new picture x is
    the x_hat at which the run ends, so the bars say how far each step was from knowing the end;
    their sum is no bound, as no data were given. ``form`` says what the step is written in, which
    without ``clip`` changes nothing; ``clip`` holds x_hat within [-1, 1] where a step is written in
    it. The handle ``look`` leads back to earlier moments of a run. Chapter 12.

    On a page the denoiser runs in ONNX Runtime, in a notebook in the kernel: there any ``model`` of
    28 x 28 images with the same schedule can take the shipped one's place.
    """

    module = "denoiser"
    title = "Watch the denoiser draw"
    picture = choice(NEW, [NEW, *PICTURES], label="picture")
    steps = whole(50, 5, 200, label="steps T", log=True)
    sampler = choice("ancestral", list(STEPS), label="sampler")
    form = choice(FORMS[0], FORMS, label="step written in")
    seed = whole(1, 0, 999, label="seed of the noise")
    clip = switch(False, label="clip x̂ to [−1, 1]")
    look = curve([CLEAN], NOISY, CLEAN, label="log SNR of the moment shown")
    pictures = fixed(_pictures)
    ends = fixed(lambda: [CLEAN, NOISY])
    _question = traitlets.Dict().tag(sync=True)
    _answer = traitlets.Dict().tag(sync=True)

    @cached_property
    def model(self) -> VariationalDiffusion:
        """The shipped denoiser, or the one that took its place."""
        return trained()

    def walk(self) -> Iterator[State]:
        """The states that the widget shows with this setting, computed by the library."""
        model, source = self._clipped(), Counter(self.seed)
        if self.picture == NEW:
            return samplers.sample(model, SHAPE, self.steps, STEPS[self.sampler], source)
        return self._given(model, self._known(), source)

    def bits(self) -> Tensor:
        """The bars, (steps,), in bits/dim, the noisiest step first."""
        states = list(self.walk())
        x = self._known() if self.picture != NEW else states[-1].x_hat
        errors = torch.cat([sum_except_batch((x - state.x_hat).square()) for state in states])
        logsnr_s, logsnr_t = (each.flip(0) for each in levels(self.model.schedule, self.steps, x))
        gained = logsnr_t.exp() * torch.expm1(logsnr_s - logsnr_t)
        return bits_per_dim(0.5 * gained * errors, x.numel())

    def _clipped(self) -> VariationalDiffusion:
        """The model; with a clip that the step can notice, the one whose x_hat is clipped."""
        model = self.model
        if not self.clip or self.form != FORMS[0]:
            return model

        def denoiser(z: Tensor, logsnr: Tensor) -> Tensor:
            return model.predict(z, logsnr).x.clamp(-1, 1)

        return VariationalDiffusion(denoiser, model.schedule, IMAGE, model.likelihood)

    @torch.no_grad()
    def _given(self, model: VariationalDiffusion, x: Tensor, source: Counter) -> Iterator[State]:
        """Walk down the latents of a known x, and note what the model thinks of each."""
        logsnr_s, logsnr_t = levels(model.schedule, self.steps, x)
        z = diffuse(x, logsnr_t[-1], source.normal(SHAPE))
        for i in reversed(range(self.steps)):
            x_hat, known = model.predict(z, logsnr_t[i]).x, solve(IMAGE, x, z, logsnr_t[i])
            z = STEPS[self.sampler](known, z, logsnr_s[i], source)
            yield State(i / self.steps, z, x_hat)

    def _known(self) -> Tensor:
        """The chosen test image as x."""
        return self.model.likelihood.encode(torch.tensor(self.pictures[self.picture]).view(SHAPE))

    @traitlets.observe("_question")
    def _reply(self, change: Any) -> None:
        """Answer a view in a notebook: the noise in z at a level."""
        try:
            # A whole number has come as an int.
            z, logsnr = (torch.tensor(change.new[name]).float() for name in ("z", "logsnr"))
            eps = self.model.predict(z.view(SHAPE), logsnr).eps
            answer = {"eps": eps.flatten().tolist()}
        except Exception as error:
            answer = {"problem": f"{type(error).__name__}: {error}"}
        self._answer = {"id": change.new["id"], **answer}
