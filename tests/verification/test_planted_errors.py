"""Planted errors: each is found, within so many draws, and the code without it is not rejected."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache

import pandas as pd
import pytest
import torch

from gradlab import exact_gradient
from gradlab.estimators import ZGR
from gradlab.user_code import replicates
from gradlab.verification import planted_errors
from gradlab.verification.planted_errors import PLANTED, REFUSED
from gradlab.verification.report import planted_text
from gradlab.verification.verdict import BIASED, UNBIASED
from gradlab.verification.verifying import verify

# Shapes are checked in the tests of the parts.
pytestmark = pytest.mark.usefixtures("unchecked")

# Draws to detection with seed 0: all at the first look, once the classes were met often enough; or
# until the code is refused, over all its calls.
DRAWS = {
    "1/2 dropped": 978,
    "own sample in the baseline": 978,
    "M/(M - 1) forgotten": 978,
    "shifted index": 978,
    "probabilities as logits": 978,
    "shared noise": 978,
    "wrong axis": 978,
    "gradient through the noise": 978,
    "weight not detached": 978,
    "control variate off centre": 978,
    "epsilon in a logarithm": 978,
    "batch mean subtracted": 2496,
    "batch standard deviation": 2496,
    "running baseline": 64,
    "noise cached": 2176,
    "state kept between calls": 128,
    "right draw, wrong backward": 978,
    "right at batch 1 only": 978,
    "wrong in float32 only": 978,
    "wrong for shifted logits only": 978,
    "wrong for C > 3 only": 782,
    "wrong for a rare class only": 2390,
}

# Code that is no estimator of one sample, by the fault for which it is refused.
FAULTS = {
    "batch mean subtracted": "statistics of the batch",
    "batch standard deviation": "statistics of the batch",
    "running baseline": "remembers earlier calls",
    "noise cached": "ignores its generator",
    "state kept between calls": "remembers earlier calls",
}

# Errors of what trains, with inputs at which the code has none.
TRAINED = {
    "right draw, wrong backward": None,
    "right at batch 1 only": None,
    "wrong in float32 only": {"dtype": torch.float64},
    "wrong for shifted logits only": {"shift": 0.0},
    "wrong for C > 3 only": {"classes": 3},
    "wrong for a rare class only": None,
}

# Errors that multiply the mean by a factor.
FACTORS = {
    "1/2 dropped": Fraction(2),
    "own sample in the baseline": Fraction(4, 5),
    "M/(M - 1) forgotten": Fraction(3, 4),
    "wrong in float32 only": Fraction(2),
}

PART = {name: "training" if name in TRAINED else "draw" for name in FACTORS}

BY_NAME = {error.name: error for error in PLANTED}
EPSILON = BY_NAME["epsilon in a logarithm"]

names = pytest.mark.parametrize("name", BY_NAME)


@cache
def rows_of(name):
    """Return the row of a planted error in a table; factors and checks by fewer draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicates, "_SMALL", (64,))
        patch.setattr(planted_errors, "_FOR_FACTOR", 2**15)
        return planted_errors.planted_rows(errors=[BY_NAME[name]])


def test_every_error_of_the_table_is_planted():
    assert list(DRAWS) == list(BY_NAME)
    assert len({error.error for error in PLANTED}) == len(PLANTED)


@names
@pytest.mark.few(1)
def test_the_error_is_found_within_its_draws_and_the_right_code_passes(name):
    """One row is computed once, so that one test asks all of it, in whichever process."""
    row = rows_of(name).iloc[0]
    assert row["alpha"] == 1e-6
    assert row["draws"] <= DRAWS[name]
    assert row["right_outcome"] == UNBIASED
    assert row["right_limit"] <= 0.05
    if name in FACTORS:
        assert Fraction(row["factor"]) == FACTORS[name]
    if name in FAULTS:
        assert (row["outcome"], row["how"]) == (REFUSED, f"refused: {FAULTS[name]}")
        return
    assert row["outcome"] == BIASED
    assert row["bias"] > 10 * row["bias_se"]
    if name in TRAINED:
        assert row["how"] == "BIASED: training"


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.few(1)
def test_what_is_analysed_is_right_where_only_training_is_wrong(name):
    error = BY_NAME[name]
    assert error.verdict(error.code, judge="draw").outcome == UNBIASED


@pytest.mark.thorough  # the planted code errs by its factor alone
@pytest.mark.parametrize("name", [name for name, elsewhere in TRAINED.items() if elsewhere])
@pytest.mark.few(1)
def test_an_error_of_some_inputs_is_none_elsewhere(name):
    error = replace(BY_NAME[name], **TRAINED[name])
    assert error.verdict(error.code, judge="training").outcome == UNBIASED


def test_an_axis_is_wrong_in_batches_alone():
    error = BY_NAME["right at batch 1 only"]
    leaf = error.logits.requires_grad_()
    x = ZGR().sample(leaf, torch.Generator().manual_seed(0)).detach()
    one, same = (
        torch.autograd.grad(error.f(code.sample(leaf, x=x)), leaf)[0]
        for code in (error.code, ZGR())
    )
    torch.testing.assert_close(one, same, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.few(1)
def test_the_planted_code_errs_by_its_factor_alone(name):
    error = BY_NAME[name]
    wanted = float(FACTORS[name]) * exact_gradient(error.f, error.logits)
    verdict = verify(
        error.code, error.f, error.logits, against=wanted, alpha=1e-6, judge=PART[name]
    )
    assert verdict.outcome == UNBIASED


@pytest.mark.parametrize("shift", [0.0, -25.0])
@pytest.mark.few(1)
def test_the_epsilon_is_wrong_for_large_logits_only(shift):
    verdict = replace(EPSILON, shift=shift).verdict(EPSILON.wrong)
    assert verdict.outcome == UNBIASED


@pytest.mark.thorough  # the test above finds each by one seed
def test_other_seeds_find_the_errors_as_well():
    error = BY_NAME["shared noise"]  # the smallest bias
    found = [error.verdict(error.wrong, seed=seed) for seed in range(1, 9)]
    assert {verdict.outcome for verdict in found} == {BIASED}
    assert max(verdict.draws for verdict in found) <= 4 * DRAWS[error.name]


@pytest.mark.thorough  # test_verifying.py: the same seed, the same verdict
def test_the_rows_belong_to_the_seed():
    error = BY_NAME["shared noise"]
    first, again, other = (error.verdict(error.wrong, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.bias, again.bias)
    assert not torch.equal(first.bias, other.bias)
    assert math.exp(-first.log_e_value) < 1e-6


@pytest.mark.thorough  # the rows have their tests above
def test_the_text_shows_every_error():
    """The slow test of the command line shows the text of all."""
    shown = ["1/2 dropped", "noise cached", "batch standard deviation"]
    text = planted_text(pd.concat(map(rows_of, shown)))
    assert max(map(len, text.splitlines())) <= 100
    assert "NO" not in text.split()
    assert all(name in text for name in shown)
    assert "noise cached: ignores its generator" in " ".join(text.split())
