"""Live widgets: they compute on the book's pages, in JupyterLab and in Colab.

Each has traits that Python can read and set; :mod:`vdm_lite.widgets.base` says how it works.
"""

ALL: tuple[type, ...] = ()
"""Every widget that runs without a kernel."""

__all__ = ["ALL"]
