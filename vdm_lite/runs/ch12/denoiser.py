r"""The denoiser that ships with the library: Fashion-MNIST at 28x28, its log and what it reached.

    vdm-lite train --data fashion-mnist --steps 36000 --decay 10000 --evaluate-every 2000 \
        --out runs/fashion28
    vdm-lite evaluate --checkpoint runs/fashion28/weights.safetensors --steps 100 1000 \
        --json runs/fashion28/results.json

The first makes ``fashion28.safetensors`` (averaged weights) and ``fashion28.csv`` (the log) beside
this file; the second ``fashion28.json`` (bits/dim of the 10,000 test images, with the SHA-256 of
the weights). Everything was chosen on the 5,000 training images that the run holds out. The run
was stopped and resumed, and its length chosen while the learning rate did not depend on it yet.
"""

import json
from pathlib import Path
from typing import Any

from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.training import journal
from vdm_lite.training.config import load_model

WEIGHTS = Path(__file__).with_name("fashion28.safetensors")
LOG = WEIGHTS.with_suffix(".csv")
RESULTS = WEIGHTS.with_suffix(".json")


def trained() -> VariationalDiffusion:
    """The shipped model of 8-bit images (1, 28, 28), in evaluation mode."""
    return load_model(WEIGHTS)


def log() -> list[dict[str, float]]:
    """The rows of its log, as :func:`vdm_lite.training.journal.read` gives them.

    Its standard errors are by the spread over images, an older estimate that is too large.
    """
    return journal.read(LOG)


def results() -> dict[str, Any]:
    """What ``vdm-lite evaluate`` wrote of the test images: ``reports``, and what they are about."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))
