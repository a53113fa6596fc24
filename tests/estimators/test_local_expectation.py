"""The local expectation gradient: REINFORCE averaged over each variable by itself."""

import pytest
import torch

from cases import LADDER, all_states, generator, logits_of, loss_of, state_probabilities
from gradlab.estimators import LocalExpectation, Reinforce
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.verification.exact_bias import exact_bias
from test_golden import FUNCTIONS, SIZES, distance, enumeration, golden

LE = LocalExpectation()
REGIMES = ["uniform", "moderate", "peaked", "masked"]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden_mean_and_variance(name, size):
    expected = golden(size, name, "LocalExpectation")
    moments = enumeration(size, name).moments(LE)
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", [*LADDER, "mlp", "table"])
@pytest.mark.few(11)
def test_unbiased_by_enumeration(name, logits):
    result = exact_bias(LE, loss_of(name, 3, 3), logits_of(logits, 3, 3))
    assert result.is_zero
    assert result.size < 1e-12


@pytest.mark.parametrize("logits", ["moderate", "masked"])
def test_it_is_the_mean_of_reinforce_given_the_other_variables(logits):
    f, logits = loss_of("table", 3, 3), logits_of(logits, 3, 3)
    x, weight = all_states(3, 3).argmax(-1), state_probabilities(logits)
    x, weight = x[weight > 0], weight[weight > 0]
    g = Reinforce(0.7).estimate_at(f, logits, x[None])[1]
    found = LE.estimate_at(f, logits, x[None])[1]
    for i in range(3):
        others = torch.cat([x[:, :i], x[:, i + 1 :]], 1)
        same = (others[:, None] == others).all(-1).to(weight.dtype) * weight
        mean = (same / same.sum(1, keepdim=True)) @ g[:, i]
        torch.testing.assert_close(found[:, i], mean, rtol=0, atol=1e-13)


@pytest.mark.parametrize("baseline", [0.0, 0.8])
@pytest.mark.parametrize("name", ["quadratic", "cubic", "table"])
def test_it_is_never_worse_than_reinforce(name, baseline):
    f, logits = loss_of(name), logits_of("moderate")
    ours = exact_moments(LE, f, logits).variance_per_variable
    other = exact_moments(Reinforce(baseline), f, logits).variance_per_variable
    assert (ours <= other).all()


@pytest.mark.parametrize("logits", ["moderate", "masked"])
def test_it_is_exact_for_one_variable(logits):
    f, logits = loss_of("table", 1, 4), logits_of(logits, 1, 4)
    g = LE.draw(f, logits, 20, generator())
    truth = exact_gradient(f, logits).expand(20, -1, -1)
    torch.testing.assert_close(g, truth, rtol=0, atol=1e-14)


def test_masked_classes_are_not_evaluated():
    logits = logits_of("masked", 3, 4)
    seen = []
    f = loss_of("cubic", 3, 4)
    LE.draw(lambda x: seen.append(x) or f(x), logits, 100, generator())
    assert (torch.cat(seen).flatten(0, -3)[:, logits == -torch.inf] == 0).all()


def test_an_offset_of_f_costs_no_digits():
    f, logits = loss_of("table"), logits_of("moderate")
    plain = LE.draw(f, logits, 50, generator())
    moved = LE.draw(lambda x: f(x) + 1e6, logits, 50, generator())
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_refused():
    f, logits = loss_of("linear", 1, 3), torch.zeros(2000, 3)
    assert "one draw of LE evaluates f at 4001 points" in LE.supports(f, logits)
    with pytest.raises(ValueError, match="more than 4194304 in all; use RF"):
        LE.draw(f, logits, 1)
