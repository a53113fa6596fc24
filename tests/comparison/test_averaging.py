"""How many gradients a batch and a momentum average: the formula, its limits, what is refused."""

import pytest
import torch

from gradlab.comparison.averaging import averaged_gradients, number_of_averaged
from gradlab.comparison.recommending import recommend
from gradlab.comparison.rows import AVERAGED
from gradlab.problems import problem, regime


@pytest.mark.parametrize(
    ("batch", "momentum", "number"),
    [(1, 0.0, 1), (64, 0.0, 64), (1, 0.5, 3), (1, 0.9, 19), (64, 0.9, 64 * 19), (1, 0.99, 199)],
)
def test_the_formula(batch, momentum, number):
    assert averaged_gradients(batch, momentum) == pytest.approx(number)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 4])
def test_it_is_the_variance_of_the_weighted_mean(momentum, batch):
    # Weights (1 - m) m^k / batch of independent gradients of variance 1.
    weights = (1 - momentum) * momentum ** torch.arange(2000, dtype=torch.float64) / batch
    variance = float((batch * weights.square()).sum())
    assert float((batch * weights).sum()) == pytest.approx(1)
    assert variance == pytest.approx(1 / averaged_gradients(batch, momentum))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be an int of at least 1"),
        ({"batch": 2.5}, "batch must be an int"),
        ({"momentum": 1.0}, "momentum must be a number of at least 0 and below 1, not 1.0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"momentum": "0.9"}, "momentum must be"),
        ({"averaged": 0.5}, "averaged must be at least 1"),
        ({"averaged": 3, "batch": 2}, "either averaged, or the batch"),
        ({"averaged": 3, "momentum": 0.9}, "either averaged, or the batch"),
    ],
)
def test_what_is_refused(options, message):
    given = {"averaged": None, "batch": None, "momentum": None} | options
    with pytest.raises(ValueError, match=message):
        number_of_averaged(**given, elements=False)
    with pytest.raises(ValueError, match=message):
        recommend(problem("linear", 2, 3), regime("moderate", 2, 3), evaluations=4, **options)


def test_nothing_given_is_the_number_of_the_study():
    assert number_of_averaged(None, None, None, elements=True) == AVERAGED == 10


def test_a_batch_of_logits_is_not_counted_again():
    f, logits = problem("linear", 2, 3), torch.zeros(4, 2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"logits \[B, N, C\] hold the batch already"):
        recommend(f, logits, evaluations=4, batch=4)
    answer = recommend(f, logits, evaluations=4, momentum=0.5, estimators=["ST"])
    assert answer.averaged == pytest.approx(3)


@pytest.mark.thorough  # the numbers are those of the tests above
def test_the_ranking_is_that_of_the_number():
    f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
    given = {"evaluations": 12, "estimators": ["ST", "ZGR", "RF(m=4)"]}
    derived = recommend(f, logits, batch=64, momentum=0.5, **given)
    assert derived.table.equals(recommend(f, logits, averaged=192.0, **given).table)
    text = " ".join(derived.explain().split())
    assert "192 gradients are averaged (batch 64, momentum 0.5)." in text
