"""What every estimator for two classes must keep to: the conformance tests at C = 2.

The estimators are the rows of `CLAIMS` that are marked as binary.
"""

import math

import pytest
import torch

from cases import (
    DTYPES,
    all_states,
    estimators,
    generator,
    logits_of,
    loss_of,
    state_probabilities,
)
from gradlab.categorical import probabilities
from gradlab.estimators import ESTIMATORS, SampledValueEstimator, parse
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.moments import GROUPS
from gradlab.montecarlo import monte_carlo
from gradlab.verification.exact_bias import exact_bias
from gradlab.verification.order import rungs, verify_order
from gradlab.verification.verdict import UNBIASED
from significance import limit, scores

with_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).split(".")[1])
REGIMES = ["uniform", "moderate", "peaked", "masked"]


@estimators(binary=True)
def test_declarations_are_complete(claim):
    assert claim.estimator.order == claim.order
    assert claim.estimator.calls(2, 2) == claim.calls
    assert claim.estimator.needs_gradient == claim.needs_gradient
    assert ESTIMATORS[claim.estimator.name] is type(claim.estimator)
    assert parse(str(claim.estimator)) == claim.estimator
    assert isinstance(claim.estimator, SampledValueEstimator) or claim.pathwise or not claim.exact


@estimators(binary=True)
def test_more_classes_are_refused_with_the_reason(claim):
    f, logits = loss_of("cubic"), logits_of("moderate")
    reason = claim.estimator.supports(f, logits)
    assert "is for variables of 2 classes, not 3; use " in reason
    with pytest.raises(ValueError, match="is for variables of 2 classes, not 3"):
        claim.estimator.draw(f, logits, 10)
    with pytest.raises(ValueError, match="is for variables of 2 classes, not 3"):
        claim.estimator.surrogate(f, logits)
    with pytest.raises(ValueError, match="is for variables of 2 classes, not 3"):
        exact_moments(claim.estimator, f, logits)
    assert claim.estimator.supports(loss_of("cubic", 2, 2), logits_of("moderate", 2, 2)) is None


@with_dtypes
@estimators(binary=True)
def test_draws(claim, dtype):
    f, logits = loss_of("mlp", 3, 2), logits_of("moderate", 3, 2).to(dtype)
    g = claim.estimator.draw(f, logits, 200, generator())
    assert g.shape == (200, 3, 2)
    assert g.dtype == dtype
    assert torch.equal(g[..., 0], -g[..., 1])
    assert (g != 0).any(0).all()
    assert torch.equal(claim.estimator.draw(f, logits, 200, generator()), g)
    assert not torch.equal(claim.estimator.draw(f, logits, 200, generator(1)), g)


@with_dtypes
@pytest.mark.parametrize("kept", [0, 1])
@estimators(binary=True)
@pytest.mark.few(10)
def test_a_masked_class_is_never_met_and_gets_nothing(claim, kept, dtype):
    logits = torch.zeros(2, 2, dtype=dtype)
    logits[0, 1 - kept] = -math.inf
    seen = []
    f = loss_of("cubic", 2, 2)
    g = claim.estimator.draw(lambda x: seen.append(x) or f(x), logits, 2000, generator())
    assert all((x[..., 0, kept] == 1).all() for x in seen)
    assert (g[:, 0] == 0).all()
    assert (g[:, 1] != 0).any()


@with_dtypes
@estimators(binary=True)
def test_a_single_class_has_no_gradient(claim, dtype):
    g = claim.estimator.draw(loss_of("cubic", 3, 1), torch.ones(3, 1, dtype=dtype), 50, generator())
    assert g.shape == (50, 3, 1)
    assert (g == 0).all()


@pytest.mark.parametrize("gap", [30.0, 1e3, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@estimators(binary=True)
@pytest.mark.few(10)
def test_peaked_logits_give_finite_draws(claim, dtype, gap):
    logits = torch.tensor([[0.0, gap], [gap, -gap], [gap, gap]], dtype=dtype)
    g = claim.estimator.draw(loss_of("cubic", 3, 2), logits, 500, generator())
    assert g.isfinite().all()
    if claim.certain:
        assert g[:, :2].abs().max() < 1e-6


@pytest.mark.parametrize("shift", [15.0, 1e4, -1e4])
@estimators(binary=True)
def test_shifted_logits_give_the_same_draws(claim, shift):
    logits = (logits_of("moderate", 3, 2) * 8).round() / 8
    f = loss_of("cubic", 3, 2)
    expected = claim.estimator.draw(f, logits, 200, generator())
    found = claim.estimator.draw(f, logits + shift, 200, generator())
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@estimators(binary=True)
def test_calls_are_what_is_spent_at_one_hot_points(claim):
    seen = []
    f = loss_of("cubic", 2, 2)
    claim.estimator.draw(
        lambda x: seen.append(x) or f(x), logits_of("moderate", 2, 2), 12, generator()
    )
    assert sum(math.prod(x.shape[:-2]) for x in seen) == 12 * claim.calls
    assert all(((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all() for x in seen)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["cubic", "table"])
@estimators(binary=True, exact=True, order=math.inf)
@pytest.mark.few(8)
def test_unbiased_by_enumeration(claim, name, logits):
    f, logits = loss_of(name, 2, 2), logits_of(logits, 2, 2)
    result = exact_bias(claim.estimator, f, logits)
    assert result.is_zero
    assert result.size < 1e-12


@pytest.mark.parametrize("logits", REGIMES)
@estimators(binary=True, exact=True, pathwise=False)
def test_the_law_of_tuples_adds_up(claim, logits):
    logits = logits_of(logits, 2, 2)
    x = all_states(2, 2).argmax(-1)
    m = claim.estimator.samples
    index = torch.cartesian_prod(*[torch.arange(len(x))] * m).reshape(-1, m).T
    law = claim.estimator.tuple_probabilities(logits, x[index])
    assert (law >= 0).all()
    # Each sample alone follows the law of x.
    for of_one in index:
        margin = torch.zeros(len(x), dtype=law.dtype).index_add(0, of_one, law)
        torch.testing.assert_close(margin, state_probabilities(logits), rtol=0, atol=1e-14)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["quadratic", "mlp"])
@estimators(binary=True, exact=True)
@pytest.mark.few(11)
def test_draws_agree_with_exact_moments(claim, name, logits):
    f, logits = loss_of(name, 2, 2), logits_of(logits, 2, 2)
    exact = exact_moments(claim.estimator, f, logits)
    drawn = monte_carlo(claim.estimator, f, logits, 12_000, seed=4)
    assert scores(drawn.mean, exact.mean, drawn.mean_se).abs().max() < limit()
    z = scores(drawn.variance.value, exact.variance.value, drawn.variance.se)
    assert abs(float(z)) < limit(GROUPS - 1)


@pytest.mark.parametrize("name", ["cubic", "table"])
@estimators(binary=True, exact=False)
def test_unbiased_by_draws(claim, name):
    f, logits = loss_of(name, 2, 2), logits_of("moderate", 2, 2)
    drawn = monte_carlo(claim.estimator, f, logits, 40_000, seed=2)
    truth = exact_gradient(f, logits)
    assert scores(drawn.mean, truth, drawn.mean_se).abs().max() < limit()
    if name == "table":  # the same draws notice a factor
        assert scores(drawn.mean, 1.2 * truth, drawn.mean_se).abs().max() > limit()


class Weighted(torch.nn.Module):
    """A linear loss with parameters."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))

    def forward(self, x):
        return (x * self.w).sum((-2, -1))


@estimators(binary=True, order=math.inf)
def test_training(claim):
    f, logits, n = Weighted(), logits_of("moderate", 2, 2), 4000
    claim.estimator.surrogate(f, logits.expand(n, 2, 2), generator()).mean().backward()
    p = probabilities(logits)
    assert scores(f.w.grad, p, (p * (1 - p) / n).sqrt()).abs().max() < limit()
    leaf = logits.expand(8000, 2, 2).clone().requires_grad_()
    f = loss_of("table", 2, 2)
    values = claim.estimator.surrogate(f, leaf, generator())
    values.sum().backward()
    error = leaf.grad.std(0) / math.sqrt(len(leaf))
    assert scores(leaf.grad.mean(0), exact_gradient(f, logits), error).abs().max() < limit()
    error = values.std() / math.sqrt(len(values))
    assert abs(scores(values.mean().detach(), exact_value(f, logits), error.detach())) < limit()


@with_dtypes
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)], ids=str)
@estimators(binary=True)
@pytest.mark.few(15)
def test_surrogates_take_any_batch(claim, batch, dtype):
    logits = logits_of("moderate", 2, 2).to(dtype).expand(*batch, 2, 2).clone().requires_grad_()
    values = claim.estimator.surrogate(loss_of("mlp", 2, 2), logits, generator())
    assert values.shape == batch
    assert values.dtype == dtype
    values.sum().backward()
    assert logits.grad.isfinite().all()


@estimators(binary=True, order=math.inf)
@pytest.mark.few(1)
def test_the_ladder_is_climbed_at_two_classes(claim):
    ladder = verify_order(claim.estimator, on=rungs(("linear", "cubic")), max_draws=2**17)
    judged = [v for v in ladder.verdicts if v.outcome == UNBIASED]
    assert ladder.outcome == UNBIASED
    assert ladder.holds
    assert len(judged) == (6 if claim.exact else 2)
    assert {v.method for v in judged} == {"exact" if claim.exact else "monte carlo"}
