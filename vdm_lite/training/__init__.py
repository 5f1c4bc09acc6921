"""Training: :func:`.fit` is a generator that a notebook or a widget iterates::

    for step in fit(model, data, steps=500):
        losses.append(step.loss)
    model = step.averaged

The model is any module with ``.loss(batch, generator=...) -> (B,)`` in nats, one cost per example.
A loop of one's own can use the parts: :func:`.batch_indices` (which examples come when),
:func:`.backward` (gradients, also of learned schedules) and :func:`.averaged` (the moving average).

The k-th batch is a function of ``(seed, k)``, and a checkpoint holds everything else. So a run that
is killed and started again goes on as if nothing had happened: bit for bit on a CPU with the same
number of threads, which is what the tests run. On CUDA and MPS the same lines have not been run
yet; there kernels that add in no fixed order may change the last digits.

``python -m vdm_lite.cli train`` is the command line, ``vdm-lite train``.
"""

from vdm_lite.training.batches import batch_indices
from vdm_lite.training.loop import fit
from vdm_lite.training.update import Step, averaged, backward

__all__ = ["Step", "averaged", "backward", "batch_indices", "fit"]
