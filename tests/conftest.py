"""What all tests share: fixed seeds, no windows, and the independent implementations."""

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import hypothesis
import pytest
import torch

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
os.environ.setdefault("MPLBACKEND", "Agg")


def missing(reason: str) -> None:
    """Skip the test for this reason; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI may not skip: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start each test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def referee() -> Callable[[str], ModuleType]:
    """Import an independent implementation; skip the test where it is not installed."""

    def load(name: str) -> ModuleType:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            missing(f"{name} is not installed: make test installs it")
        return importlib.import_module(name)

    return load
