"""ARS beside ARSM: swaps with one pivot, whose mean over pivots is ARSM."""

import math

import pytest
import torch

from cases import generator, logits_of, loss_of
from gradlab.estimators import ARS, ARSM
from gradlab.exact.truth import exact_gradient
from gradlab.montecarlo import monte_carlo
from significance import limit, scores
from test_golden import logits_of as golden_logits
from test_golden import recipe


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", [(2, 3), (3, 2), (2, 5)], ids=str)
def test_arsm_is_the_mean_of_ars_over_pivots(size, logits):
    f, logits = loss_of("table", *size), logits_of(logits, *size)
    g = torch.stack([ARS(j).draw(f, logits, 100, generator()) for j in range(size[1])])
    expected = ARSM().draw(f, logits, 100, generator())
    torch.testing.assert_close(g.mean(0), expected, rtol=0, atol=1e-13)
    # For two classes one swap is all there is.
    assert ((g[0] - expected).abs().max() > 1e-3) == (size[1] > 2)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("pivot", [0, 1, 2])
@pytest.mark.few(2)
def test_every_pivot_is_unbiased(pivot, logits):
    f, logits = loss_of("table"), logits_of(logits)
    drawn = monte_carlo(ARS(pivot), f, logits, 40_000, seed=3)
    truth = exact_gradient(f, logits)
    assert scores(drawn.mean, truth, drawn.mean_se).abs().max() < limit()
    assert scores(drawn.mean, 1.2 * truth, drawn.mean_se).abs().max() > limit()


@pytest.mark.parametrize(("estimator", "low", "high"), [(ARS(), 2.7, 3.1), (ARSM(), 0.9, 1.1)])
def test_variances_on_the_quadratic_of_the_fixtures(estimator, low, high):
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    assert low < monte_carlo(estimator, f, logits, 20_000).variance.value < high


def test_a_pivot_that_is_no_class():
    f, logits = loss_of("table"), logits_of("moderate")
    assert ARS(3).supports(f, logits) == "pivot = 3 is none of 3 classes, counted from 0"
    with pytest.raises(ValueError, match="pivot = 3 is none of 3 classes"):
        ARS(3).draw(f, logits, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("pivot", [-1, 0.5, None, math.nan])
def test_bad_pivots(pivot):
    with pytest.raises(ValueError, match="pivot must be the index of a class, an int >= 0, not"):
        ARS(pivot)


def test_what_does_not_fit_is_refused():
    f, logits = loss_of("linear", 1, 3), torch.zeros(100, 300)
    assert "one draw of ARS evaluates f at 300 points" in ARS().supports(f, logits)
