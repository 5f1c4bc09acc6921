"""Training: :func:`fit` is a generator that a notebook or a widget iterates.

    for step in fit(model, data, steps=500):
        losses.append(step.loss)
    model = step.averaged

The model is any module with ``.loss(batch, generator=...) -> (B,)`` in nats, one cost per example.
The k-th batch is a function of ``(seed, k)``, and a checkpoint holds everything else, so a run that
is killed and started again goes on bit for bit as if nothing had happened.

``python -m vdm_lite.training`` is the command line, ``vdm-lite train``.
"""

from vdm_lite.training.fitting import Step, averaged, backward, batch_indices, fit

__all__ = ["Step", "averaged", "backward", "batch_indices", "fit"]
