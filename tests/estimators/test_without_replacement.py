"""Sum-and-sample and the unordered set estimator, which meet no configuration twice."""

import itertools
import math

import pytest
import torch

from cases import all_states, generator, logits_of, loss_of, state_probabilities
from gradlab.categorical import probabilities
from gradlab.estimators import SumAndSample, UnorderedSet, _configurations, unordered_set
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.verification.exact_bias import exact_bias
from test_golden import FUNCTIONS, SIZES, distance, enumeration, golden, recipe
from test_golden import logits_of as golden_logits

GOLDEN = [
    *((size, "SumAndSample(1)", SumAndSample(1)) for size in SIZES),
    *((size, "UNORD(2)", UnorderedSet(2)) for size in [(2, 3), (4, 2)]),
    *((size, "UNORD(3)", UnorderedSet(3)) for size in [(2, 3), (4, 2)]),
]
REGIMES = ["uniform", "moderate", "peaked", "masked"]
over_estimators = pytest.mark.parametrize(
    "estimator",
    [SumAndSample(1), SumAndSample(3), SumAndSample(8), UnorderedSet(2), UnorderedSet(3)],
    ids=str,
)


@pytest.mark.parametrize(("size", "key", "estimator"), GOLDEN, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden_mean_and_variance(name, size, key, estimator):
    expected = golden(size, name, key)
    moments = enumeration(size, name).moments(estimator)
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["cubic", "table"])
@over_estimators
@pytest.mark.few(14)
def test_unbiased_by_enumeration(estimator, name, logits):
    result = exact_bias(estimator, loss_of(name), logits_of(logits))
    assert result.is_zero
    assert result.size < 1e-12


@pytest.mark.parametrize("k", [4, 5])
def test_larger_sets_are_unbiased(k):
    result = exact_bias(UnorderedSet(k), loss_of("table", 3, 2), logits_of("moderate", 3, 2))
    assert result.is_zero
    assert result.size < 1e-12


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("estimator", [UnorderedSet(8), UnorderedSet(4), SumAndSample(8)], ids=str)
@pytest.mark.few(3)
def test_all_configurations_give_the_exact_gradient(estimator, logits):
    size = (2, 2) if estimator == UnorderedSet(4) else (3, 2)
    f, logits = loss_of("table", *size), logits_of(logits, *size)
    g = estimator.draw(f, logits, 20, generator())
    truth = exact_gradient(f, logits).expand(20, -1, -1)
    torch.testing.assert_close(g, truth, rtol=0, atol=1e-12)
    value = estimator.surrogate(f, logits, generator())
    torch.testing.assert_close(value, exact_value(f, logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_the_ratios_are_those_of_all_orders(k):
    """P^R(T) summed over the k! orders of T, past the pass over subsets."""
    logits = logits_of("moderate")
    p = state_probabilities(logits)

    def of_set(taken: tuple, members: tuple) -> float:
        total = 0.0
        for order in itertools.permutations(members):
            mass, product = 1 - sum(float(p[t]) for t in taken), 1.0
            for t in order:
                product, mass = product * float(p[t]) / mass, mass - float(p[t])
            total += product
        return total

    s = (1, 4, 7)[:k]
    rest = torch.log(1 - p[list(s)].sum())
    r, r_pair = unordered_set._ratios(p[list(s)].log(), rest)
    without = {t: tuple(u for u in s if u != t) for t in s}
    expected = [of_set((t,), without[t]) / of_set((), s) for t in s]
    assert r.tolist() == pytest.approx(expected, rel=1e-12)
    pair = of_set((s[0], s[1]), s[2:]) / of_set((s[0],), without[s[0]])
    assert float(r_pair[0, 1]) == pytest.approx(pair, rel=1e-12)
    assert r_pair.diagonal().tolist() == pytest.approx([1.0] * k, rel=1e-12)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("k", [2, 3, 6])
def test_the_law_of_tuples_adds_up(k, logits):
    size = (2, 2) if k > 3 else (2, 3)
    logits = logits_of(logits, *size)
    x = all_states(*size).argmax(-1)
    index = torch.cartesian_prod(*[torch.arange(len(x))] * k).T
    law = UnorderedSet(k).tuple_probabilities(logits, x[index])
    assert (law >= 0).all()
    first = torch.zeros(len(x), dtype=law.dtype).index_add(0, index[0], law)
    torch.testing.assert_close(first, state_probabilities(logits), rtol=0, atol=1e-14)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_the_built_in_baseline_removes_the_effect_of_an_offset_only(offset):
    """Variances of the quadratic of the fixtures with 10 added: 1.610 both; without it 0.695, 51.2.

    So a baseline is not always for the better.
    """
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    with_it = exact_moments(UnorderedSet(2), lambda x: f(x) + offset, logits)
    without = exact_moments(NoBaseline(2), lambda x: f(x) + offset, logits)
    assert with_it.variance.value == pytest.approx(1.610, abs=1e-3)
    assert without.variance.value == pytest.approx({0.0: 0.695, 10.0: 51.2}[offset], rel=2e-3)
    assert distance(without.mean, exact_gradient(f, logits)) < 1e-12


class NoBaseline(UnorderedSet):
    """UNORD(2) without its baseline."""

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits)
        p_x = p[torch.arange(len(p)), classes].prod(-1)
        r = 1 / (1 - p_x) / (1 / (1 - p_x)).sum(0) / p_x
        x = torch.nn.functional.one_hot(classes, p.shape[-1]).to(p.dtype)
        weight = p_x * r * f(x)
        return weight.sum(0), (weight[..., None, None] * (x - p)).sum(0)


def test_published_shortcut_is_a_bias_and_this_one_has_none():
    """The sum over S alone where p(S) > 1 - 1e-5: found at logits where that happens."""
    logits = torch.tensor([[6.0, -7.0, -7.5], [0.0, -1.0, -13.0]], dtype=torch.float64)
    f = loss_of("table")

    class Shortcut(UnorderedSet):
        def estimate_at(self, f, logits, classes):
            value, g = super().estimate_at(f, logits, classes)
            p = probabilities(logits)
            p_x = p[torch.arange(len(p)), classes].prod(-1)
            x = torch.nn.functional.one_hot(classes, p.shape[-1]).to(p.dtype)
            level = p_x * (f(x) - (p_x * f(x)).sum(0))
            short = (level[..., None, None] * (x - p)).sum(0)
            return value, torch.where((p_x.sum(0) > 1 - 1e-5)[..., None, None], short, g)

    ours, shortcut = (exact_bias(cls(2), f, logits) for cls in (UnorderedSet, Shortcut))
    assert ours.is_zero
    assert ours.size < 1e-13
    assert 1e-8 < shortcut.size < 1e-4


@over_estimators
def test_masked_classes_are_not_met(estimator):
    logits = logits_of("masked", 3, 3)
    seen = []
    f = loss_of("cubic", 3, 3)
    estimator.draw(lambda x: seen.append(x) or f(x), logits, 100, generator())
    assert (torch.cat(seen).flatten(0, -3)[:, logits == -torch.inf] == 0).all()


@over_estimators
def test_chunks_change_nothing_in_law_and_bound_the_memory(estimator, monkeypatch):
    f, logits = loss_of("table"), logits_of("moderate")
    monkeypatch.setattr(_configurations, "_CHUNK_ELEMENTS", 9 * 7)
    g = estimator.draw(f, logits, 20, generator())
    assert g.shape == (20, 2, 3)
    assert g.isfinite().all()


@over_estimators
def test_what_does_not_fit_is_refused(estimator):
    f, logits = loss_of("linear", 1, 3), torch.zeros(13, 2)
    assert "2^13 are more than 4096; use RF" in estimator.supports(f, logits)
    with pytest.raises(ValueError, match="are more than 4096"):
        estimator.draw(f, logits, 1)
    assert estimator.supports(f, torch.zeros(12, 2)) is None


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("k", [0, -1, 9000, 2.0, None, math.inf])
def test_bad_numbers_of_configurations(k):
    for cls in (SumAndSample, UnorderedSet):
        with pytest.raises(ValueError, match="k must be an int from"):
            cls(k)
