"""ARMS and CARMS: samples coupled by the Dirichlet copula."""

import itertools
import math

import pytest
import torch

from cases import all_states, generator, logits_of, loss_of, state_probabilities
from gradlab.categorical import probabilities
from gradlab.estimators import ARMS, CARMS, DisARM, LeaveOneOut
from gradlab.estimators._copula import (
    box_probability,
    draw_log_uniforms,
    orders,
    pair_probabilities,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.exact.tuples import NotExactError, tuple_moments
from gradlab.montecarlo import monte_carlo
from gradlab.problems import regime
from gradlab.verification.exact_bias import exact_bias
from significance import limit, scores
from test_golden import FUNCTIONS, distance, enumeration, golden, recipe
from test_golden import logits_of as golden_logits

REGIMES = ["uniform", "moderate", "peaked", "masked"]

# The copula.


@pytest.mark.parametrize("m", [2, 3, 4, 8])
def test_uniform_numbers_have_uniform_margins_and_the_stated_pairs(m):
    n = 40_000
    u = draw_log_uniforms(torch.zeros((), dtype=torch.float64), m, n, generator()).exp()
    assert u.shape == (m, n)
    grid = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64)
    below = u[..., None] < grid
    error = (grid * (1 - grid) / n).sqrt()
    assert scores(below.double().mean(1), grid.expand(m, -1), error).abs().max() < limit()
    both = (below[0, :, :, None] & below[1, :, None, :]).double()
    t = 1 / (m - 1)
    expected = (grid[:, None] ** t + grid**t - 1).clamp_min(0) ** (m - 1)
    error = both.std(0) / math.sqrt(n)
    seldom = expected * n < 1
    z = torch.where(seldom, 0.0, scores(both.mean(0), expected, error))
    assert z.abs().max() < limit()
    independent = scores(both.mean(0), grid[:, None] * grid, error)[1, 1]
    assert independent.abs() > limit()


def test_two_uniform_numbers_are_antithetic():
    u = draw_log_uniforms(torch.zeros(3, dtype=torch.float64), 2, 100, generator()).exp()
    torch.testing.assert_close(u[0], 1 - u[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_boxes_add_up_to_all(m):
    cuts = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    index = torch.cartesian_prod(*[torch.arange(3)] * m).T
    boxes = box_probability(cuts[index], cuts[index + 1])
    assert (boxes >= 0).all()
    assert float(boxes.sum()) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("classes", range(1, 9))
def test_every_two_classes_are_once_the_ends(classes):
    found = orders(classes)
    assert len(found) == max(1, classes * (classes - 1) // 2)
    assert all(sorted(order) == list(range(classes)) for order in found)
    ends = {frozenset((order[0], order[-1])) for order in found}
    if classes > 1:
        assert ends == {frozenset(pair) for pair in itertools.combinations(range(classes), 2)}


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("classes", [1, 2, 3, 4])
@pytest.mark.few(16)
def test_pairs_are_the_margins_of_tuples(classes, m, logits):
    logits = logits_of(logits, 1, classes)
    p = probabilities(logits)
    pairs = pair_probabilities(p, torch.tensor(orders(classes)), m)[0]
    tuples = torch.cartesian_prod(*[torch.arange(classes)] * m).reshape(-1, m).T
    law = CARMS(m).tuple_probabilities(logits, tuples.unsqueeze(-1))
    margin = torch.zeros(classes, classes, dtype=p.dtype)
    margin.index_put_((tuples[0], tuples[1]), law, accumulate=True)
    torch.testing.assert_close(pairs, margin, rtol=0, atol=1e-14)
    torch.testing.assert_close(margin.sum(-1), p[0], rtol=0, atol=1e-14)
    possible = p[0] > 0
    assert (pairs[possible][:, possible].fill_diagonal_(1) > 0).all()


def test_pairs_of_rare_classes_keep_their_digits():
    """The order with both at the ends gives min(p, p') for m = 2, one of three orders."""
    p = torch.tensor([[1e-30, 1e-25, 1.0]], dtype=torch.float64)
    pairs = pair_probabilities(p, torch.tensor(orders(3)), 2)[0]
    assert float(pairs[0, 1]) == pytest.approx(1e-30 / 3, rel=1e-12)
    assert float(pairs[1, 2]) >= 1e-25 / 3


# The estimators.


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["cubic", "table"])
@pytest.mark.parametrize(
    ("m", "size"), [(2, (2, 3)), (3, (2, 3)), (4, (1, 4)), (8, (1, 2)), (4, (2, 2))], ids=str
)
@pytest.mark.few(14)
def test_carms_is_unbiased_by_enumeration(m, size, name, logits):
    result = exact_bias(CARMS(m), loss_of(name, *size), logits_of(logits, *size))
    assert result.is_zero
    assert result.size < 1e-12


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize(("m", "size"), [(3, (2, 2)), (5, (2, 2)), (8, (1, 2))], ids=str)
@pytest.mark.few(4)
def test_arms_is_unbiased_by_enumeration(m, size, logits):
    result = exact_bias(ARMS(m), loss_of("table", *size), logits_of(logits, *size))
    assert result.is_zero
    assert result.size < 1e-12


class OneOrder(CARMS):
    """CARMS(2) with the classes always in the same order, whose pairs it divides by."""

    def tuple_probabilities(self, logits, classes):
        p = probabilities(logits)
        high = p.cumsum(-1)
        index = torch.arange(len(p))
        low, high = (high - p)[index, classes], high[index, classes]
        return box_probability(low, high.clamp_max(1.0)).prod(-1)

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits)
        pairs = pair_probabilities(p, torch.arange(p.shape[-1]).unsqueeze(0), 2)
        index = torch.arange(len(p))
        k, other = classes
        ratio = p[index, k] * p[index, other] / pairs[index, k, other]
        x = torch.nn.functional.one_hot(classes, p.shape[-1]).to(p.dtype)
        value = f(x)
        difference = (value[0] - value[1])[:, None] * ratio / 2
        return value.mean(0), difference[..., None] * (x[0] - x[1])


def test_one_order_alone_is_biased():
    """Pairs of classes that never meet are missing from the sum: published as a fault to avoid."""
    f, logits = loss_of("table", 1, 4), regime("moderate", 1, 4, 0)
    assert exact_bias(CARMS(), f, logits).is_zero
    truth = exact_gradient(f, logits)
    mean, _ = tuple_moments(OneOrder(), f, logits)
    assert (mean - truth).norm() > 1e-3 * truth.norm()
    # Its law is its own word: nothing is certified of it by enumeration.
    with pytest.raises(NotExactError, match=r"OneOrder\.tuple_probabilities replaces"):
        exact_bias(OneOrder(), f, logits)


class Clipped(CARMS):
    """CARMS(2) with the ratio of the published code."""

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits)
        pairs = pair_probabilities(p, torch.tensor(orders(p.shape[-1])), 2)
        index = torch.arange(len(p))
        k, other = classes
        product = p[index, k] * p[index, other]
        ratio = ((product + 1e-3) / (pairs[index, k, other] + 1e-3)).clamp(0.01, 10)
        x = torch.nn.functional.one_hot(classes, p.shape[-1]).to(p.dtype)
        value = f(x)
        difference = (value[0] - value[1])[:, None] * ratio / 2
        return value.mean(0), difference[..., None] * (x[0] - x[1])


def test_the_clipped_ratio_of_published_code_is_a_bias():
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    result = exact_bias(Clipped(), f, logits)
    assert not result.is_zero
    assert 3e-4 < result.size / float(result.truth.norm()) < 1e-2


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("estimator", [ARMS(2), CARMS(2)], ids=str)
def test_two_samples_of_two_classes_are_disarm(estimator, logits):
    f, logits = loss_of("table", 2, 2), logits_of(logits, 2, 2)
    x = all_states(2, 2).argmax(-1)
    pairs = x[torch.cartesian_prod(torch.arange(4), torch.arange(4)).T]
    law = DisARM().tuple_probabilities(logits, pairs)
    found = estimator.tuple_probabilities(logits, pairs)
    torch.testing.assert_close(found, law, rtol=0, atol=1e-14)
    possible = pairs[:, law > 1e-12]
    torch.testing.assert_close(
        estimator.estimate_at(f, logits, possible)[1],
        DisARM().estimate_at(f, logits, possible)[1],
        rtol=1e-12,
        atol=1e-13,
    )


@pytest.mark.parametrize("size", [(2, 3), (4, 2)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden_mean_and_variance(name, size):
    expected = golden(size, name, "CARMS(2)")
    moments = enumeration(size, name).moments(CARMS(2))
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)


@pytest.mark.parametrize(
    ("estimator", "size", "expected", "independent"),
    [
        (CARMS(3), (2, 3), 0.678, 0.880),
        (CARMS(4), (2, 3), 0.441, 0.562),
        (ARMS(4), (4, 2), 1.880, 2.251),
    ],
    ids=str,
)
def test_variances_on_the_quadratic_of_the_fixtures(estimator, size, expected, independent):
    f, logits = recipe("quadratic", *size), golden_logits(size)
    found = exact_moments(estimator, f, logits) if size == (2, 3) else None
    drawn = monte_carlo(estimator, f, logits, 20_000, seed=1).variance
    value = drawn.value if found is None else found.variance.value
    assert value == pytest.approx(expected, abs=0.003 + 4 * drawn.se * (found is None))
    other = exact_moments(LeaveOneOut(estimator.m), f, logits).variance.value
    assert other == pytest.approx(independent, abs=1e-3)
    assert value < other


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("m", [2, 3])
def test_each_sample_follows_the_law_of_x(m, logits):
    logits = logits_of(logits)
    classes = CARMS(m).draw_tuples(logits, 20_000, generator())
    p = probabilities(logits)
    share = torch.nn.functional.one_hot(classes, 3).double().mean(1)
    error = (p * (1 - p) / 20_000).sqrt()
    assert scores(share, p.expand_as(share), error).abs().max() < limit()
    assert (share[:, p == 0] == 0).all()
    assert float(state_probabilities(logits).sum()) == pytest.approx(1)


def test_too_many_classes_are_refused():
    f, logits = loss_of("linear", 1, 3), torch.zeros(1, 100)
    reason = CARMS().supports(f, logits)
    assert "CARMS lays out 100 classes in 4950 orders" in reason
    with pytest.raises(ValueError, match="CARMS lays out 100 classes"):
        CARMS().draw(f, logits, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("m", [1, 65, 2.0, None])
@pytest.mark.parametrize("cls", [ARMS, CARMS])
def test_bad_numbers_of_samples(cls, m):
    with pytest.raises(ValueError, match="m must be an int from 2 to 64, not"):
        cls(m)
