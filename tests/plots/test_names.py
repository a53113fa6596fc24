"""Names in pictures: one form for every figure, and series as estimators write them."""

import doctest

import pytest

from gradlab.estimators import ESTIMATORS
from gradlab.plots import names
from gradlab.plots.names import label, series_of, short


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GR(tau=0.5, k=inf)", "GR(τ=0.5, k=∞)"),
        ("DoubleCV(m=4, alpha=-1)", "DoubleCV(4)"),
        ("ST-ZGR(alpha=0.5)", "ST-ZGR(α=0.5)"),
        ("REINFORCE(baseline=0)", "REINFORCE"),
        ("LE", "LE"),
    ],
)
def test_short_names(text: str, name: str) -> None:
    assert short(text) == name
    assert short(text, fitted=True) == f"{name} fitted"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GR(tau=0.010000000000000004, k=inf)", "GR(τ=0.01, k=∞)"),
        ("REINFORCE(baseline=0.7)", "REINFORCE(baseline=0.7)"),
        ("SAS(k=3)", "SAS(k=3)"),
        ("F.gumbel_softmax(hard=True)", "F.gumbel_softmax(hard=True)"),
        ("vae(snapshot=some, image=1)", "vae(snapshot=some, image=1)"),
        ("seed = 3", "seed = 3"),
        ("no τ", "no τ"),
    ],
)
def test_labels(text: str, name: str) -> None:
    assert label(text) == name


@pytest.mark.parametrize("text", ["GR(tau=0.5, k=inf)", "RF(m=4)", "ST-ZGR(alpha=0.5)", "LE"])
def test_where_nothing_is_left_out_both_forms_are_one(text: str) -> None:
    assert short(text) == label(text)


@pytest.mark.parametrize("cls", ESTIMATORS.values(), ids=list(ESTIMATORS))
def test_the_series_is_that_of_the_estimator(cls) -> None:
    assert series_of(str(cls())) == cls().text(without="tau")


def test_examples_of_the_docstrings() -> None:
    found = doctest.testmod(names)
    assert found.attempted > 0
    assert found.failed == 0
