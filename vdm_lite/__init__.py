"""Variational diffusion from first principles: the companion library of the book.

One noise variable, ``logsnr`` (the log signal-to-noise ratio), runs through everything; every loss
is a cost in nats per example; every choice (schedule, parameterization, weighting) is a callable.
"""

__version__ = "0.1.0"
