"""Sentences about numbers: said again when they differ, errors where the book itself is tested."""

import pytest
import torch

from vdm_lite import text


@pytest.fixture(params=[True, False], ids=["strict", "reader"])
def strict(request, monkeypatch) -> bool:
    if request.param:
        monkeypatch.setenv("VDM_LITE_STRICT", "1")
    else:
        monkeypatch.delenv("VDM_LITE_STRICT", raising=False)
    return request.param


def message(strict: bool, capsys, hold, *arguments) -> str:
    """Return what is said; strictly it is raised."""
    if not strict:
        hold(*arguments)
        return capsys.readouterr().out
    with pytest.raises(AssertionError) as error:
        hold(*arguments)
    return f"{error.value}\n"


@pytest.mark.parametrize(
    ("printed", "values"),
    [
        ("2.5", [2.4501]),
        ("2.5", [torch.tensor(2.5499)]),
        ("50%", [0.504]),
        ("-0.963 0.987", [[-0.9634, 0.9866]]),
        ("1 2 3", [torch.tensor([1, 2, 3])]),
        ("1.2e-3", [0.00124]),
        ("10,000", [10000.4]),
    ],
)
def test_numbers_that_hold_are_not_spoken_of(strict, capsys, printed, values):
    text.says(printed, *values)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("printed", "value"),
    [("2.5", 2.4499), ("2.5", 2.5501), ("2.50", 2.506), ("50%", 0.506), ("1", float("nan"))],
)
def test_numbers_that_differ_are_said(strict, capsys, printed, value):
    said = message(strict, capsys, text.says, printed, value)
    assert said == f"The text says {printed}, you have {value:.6g}.\n"


def test_a_count_that_differs_is_an_error(strict):
    with pytest.raises(ValueError, match="values: expected 2, as in '1 2', got 1"):
        text.says("1 2", 1.0)


def test_sentences(strict, capsys):
    text.claims("it rises", torch.tensor([True, True]))
    text.claims("it rises", 1 < 2)
    assert capsys.readouterr().out == ""
    for holds in (False, torch.tensor([True, False])):
        said = message(strict, capsys, text.claims, "it rises", holds)
        assert said == "The text says: it rises. With your numbers it is not so.\n"
