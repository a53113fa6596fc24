"""No estimator fills the memory: what is asked before a draw is cheap, and a draw is bounded."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradlab.estimators import (
    ARMS,
    CARMS,
    ZGR,
    LearnedBaseline,
    LeaveOneOut,
    LocalExpectation,
    MuProp,
    Reinforce,
    SumAndSample,
    UnorderedSet,
)
from gradlab.exact import tuples
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.exact.tuples import NotExactError, tuple_moments

TESTS = Path(__file__).parent


# Many classes, and many variables with `make test-all`: each size is a process that loads torch.
@pytest.mark.parametrize(
    "size",
    [
        (1, 4096),
        *(pytest.param(s, marks=pytest.mark.slow) for s in [(1, 100_000), (200, 512), (4096, 2)]),
    ],
    ids=str,
)
@pytest.mark.thorough  # a process that loads torch
def test_what_is_asked_is_cheap_and_a_draw_is_bounded(size):
    path = os.pathsep.join([str(TESTS.parents[1]), str(TESTS.parent)])
    run = subprocess.run(
        [sys.executable, TESTS / "sizes_in_memory.py", *map(str, size)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(run.stdout)
    assert len(rows) > 60
    assert {name: row for name, row in rows.items() if row[0] > 4 or row[1] > 50} == {}
    assert {name: row for name, row in rows.items() if row[2:] and row[2] > 2000} == {}


@pytest.mark.parametrize("classes", [512, 4096, 100_000, 10**6])
@pytest.mark.parametrize("m", [2, 3])
def test_carms_refuses_by_the_size_alone(m, classes):
    reason = CARMS(m).refusal(torch.zeros(1, classes))
    assert f"{classes} classes in {classes * (classes - 1) // 2} orders" in reason


@dataclasses.dataclass(frozen=True, repr=False)
class Refuses(ZGR):
    """ZGR, but for two variables and more."""

    name = "REFUSES"

    def refusal(self, logits):
        return "it is for one variable alone" if logits.shape[-2] > 1 else None


def test_what_an_estimator_refuses_has_no_exact_moments():
    with pytest.raises(NotExactError, match="it is for one variable alone"):
        exact_moments(Refuses(), wave, torch.zeros(2, 3, dtype=torch.float64))
    logits = torch.zeros(1, 3, dtype=torch.float64)
    found = (exact_moments(estimator, wave, logits).mean for estimator in (Refuses(), ZGR()))
    assert torch.equal(*found)


def wave(x: torch.Tensor) -> torch.Tensor:
    weight = torch.linspace(-1, 2, x.shape[-1], dtype=x.dtype).sin()
    return (x * weight).sum((-2, -1)).exp()


MANY = [
    LocalExpectation(),
    Reinforce(),
    LearnedBaseline(),
    MuProp(),
    SumAndSample(),
    SumAndSample(5),
]


# More than 512 classes, and nine times as many pairs of them in the slow tests.
@pytest.mark.parametrize("classes", [700, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("estimator", MANY, ids=str)
@pytest.mark.few(2)
def test_one_variable_of_many_classes_is_enumerated(estimator, classes):
    logits = torch.randn(1, classes, generator=torch.Generator().manual_seed(0)).double()
    mean = exact_moments(estimator, wave, logits).mean
    torch.testing.assert_close(mean, exact_gradient(wave, logits), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 9), (2, 4), (3, 3), (4, 2)], ids=str)
@pytest.mark.parametrize(
    "estimator", [LocalExpectation(), LeaveOneOut(2), UnorderedSet(2), *MANY[3:]], ids=str
)
@pytest.mark.few(8)
def test_the_chunk_is_bounded_by_the_evaluations_of_a_draw(estimator, size, monkeypatch):
    logits = torch.randn(*size, generator=torch.Generator().manual_seed(0)).double()
    expected = tuple_moments(estimator, wave, logits)
    monkeypatch.setattr(tuples, "_CHUNK_ELEMENTS", 1000)
    seen = []

    original = type(estimator).estimate_at

    def watched(self, f, logits, classes):
        seen.append(classes.shape[1])
        return original(self, f, logits, classes)

    monkeypatch.setattr(type(estimator), "estimate_at", watched)
    found = tuple_moments(estimator, wave, logits)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert max(seen) <= max(1, 1000 // (estimator.calls(size[1], size[0]) * logits.numel()))


@pytest.mark.parametrize("estimator", [LocalExpectation(), SumAndSample(3)], ids=str)
def test_f_is_evaluated_once_at_each_configuration(estimator):
    seen = []

    def counting(x):
        seen.append(len(x))
        return wave(x)

    tuple_moments(estimator, counting, torch.zeros(3, 4, dtype=torch.float64))
    assert sum(seen) == 4**3


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("estimator", [ARMS(11), ARMS(64), CARMS(20), CARMS(64)], ids=str)
def test_a_law_of_too_many_terms_is_not_summed(estimator, classes):
    with pytest.raises(NotExactError, match="too many terms"):
        tuple_moments(estimator, wave, torch.zeros(1, classes, dtype=torch.float64))
