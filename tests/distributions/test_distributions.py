"""Structures against their enumeration in plain numpy: partition, mean, covariance, samples."""

import math

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor
from torch.distributions import Distribution

from gradlab.distributions import (
    Chain,
    Finite,
    KSubset,
    OneHotCategorical,
    Permutation,
    SpanningTree,
)
from significance import P_VALUE
from structures import CASES, Case, brute_force, logits_of

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
@pytest.mark.parametrize("scale", [0.0, 1.5, 20.0])
@pytest.mark.few(10)
def test_probabilities_mean_and_entropy(case: Case, scale: float) -> None:
    logits = logits_of(case, scale)
    states, p, log_partition = brute_force(case, logits)
    drawn = case.make(logits)
    found = drawn.log_prob(torch.tensor(states)).exp()
    assert found.numpy() == pytest.approx(p, abs=1e-12)
    mean = np.tensordot(p, states, 1)
    assert drawn.mean.numpy() == pytest.approx(mean, abs=1e-10)
    assert drawn.variance.numpy() == pytest.approx(
        np.tensordot(p, (states - mean) ** 2, 1), abs=1e-10
    )
    entropy = -sum(q * math.log(q) for q in p if q > 0)
    assert float(drawn.entropy()) == pytest.approx(entropy, abs=1e-10)
    if hasattr(drawn, "log_partition"):
        assert float(drawn.log_partition) == pytest.approx(log_partition, abs=1e-10)


@every_case
def test_the_support_is_all_states_once(case: Case) -> None:
    drawn = case.make(logits_of(case))
    support = drawn.enumerate_support()
    wanted = {tuple(x.ravel()) for x in case.states()}
    assert len(support) == len(wanted)
    assert {tuple(x.flatten().tolist()) for x in support} == wanted
    assert bool(drawn.support.check(support).all())
    assert not bool(drawn.support.check(support + 0.5).any())


@every_case
def test_the_derivative_of_the_mean_is_the_covariance(case: Case) -> None:
    logits = logits_of(case)
    states, p, _ = brute_force(case, logits)
    flat = states.reshape(len(states), -1)
    weights = np.stack([_statistics(case, x, logits) for x in states])
    covariance = (p[:, None] * (flat - p @ flat)).T @ (weights - p @ weights)

    def mean(theta: Tensor) -> Tensor:
        return case.make(theta).mean.flatten()

    found = torch.autograd.functional.jacobian(mean, logits)
    assert found.flatten(1).numpy() == pytest.approx(covariance, abs=1e-10)


def _statistics(case: Case, x: np.ndarray, logits: Tensor) -> np.ndarray:
    """Return the derivative of the weight of x, which is linear in the parameters."""
    units = np.eye(logits.numel()).reshape(-1, *logits.shape)
    return np.array([case.weight(x, unit) for unit in units])


@every_case
@pytest.mark.few(5, "2-subsets of 5", "permutations of 4", "trees of K5", "chain", "table")
def test_samples_have_the_probabilities(case: Case) -> None:
    n = 20_000
    logits = logits_of(case)
    drawn = case.make(logits)
    support = drawn.enumerate_support()
    x = drawn.sample((n,), torch.Generator().manual_seed(3))
    p = _frequencies(x, support)
    expected = drawn.log_prob(support).exp().numpy() * n
    assert _p_value(p, expected) > P_VALUE
    # The same test refuses samples of other parameters.
    other = case.make(logits_of(case, 1.5, seed=1)).log_prob(support).exp().numpy() * n
    assert _p_value(p, other) < P_VALUE


def _frequencies(x: Tensor, support: Tensor) -> np.ndarray:
    key = torch.rand(support[0].numel(), generator=torch.Generator().manual_seed(0)).double()
    keys = support.flatten(1).double() @ key
    order = keys.argsort()
    at = torch.searchsorted(keys[order], x.flatten(1).double() @ key - 1e-9)
    return torch.bincount(order[at], minlength=len(support)).numpy()


def _p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 5
    counts, expected = counts[keep], expected[keep]
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(scipy.stats.chi2.sf(statistic, len(counts) - 1))


@every_case
def test_the_same_generator_gives_the_same_samples(case: Case) -> None:
    drawn = case.make(logits_of(case))
    one, other = (drawn.sample((5, 2), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.shape == (5, 2, *drawn.event_shape)
    torch.manual_seed(4)
    of_global = drawn.sample((5,))
    torch.manual_seed(4)
    assert torch.equal(of_global, drawn.sample((5,)))
    assert drawn.sample((0,)).shape == (0, *drawn.event_shape)


@every_case
@pytest.mark.few(4)
def test_batches_are_independent_elements(case: Case) -> None:
    logits = torch.stack([logits_of(case, seed=seed) for seed in range(3)])
    batch = case.make(logits)
    alone = [case.make(row) for row in logits]
    assert batch.batch_shape == (3,)
    assert torch.allclose(batch.mean, torch.stack([d.mean for d in alone]), atol=1e-12)
    support = batch.enumerate_support()
    wanted = torch.stack([d.log_prob(d.enumerate_support()) for d in alone], -1)
    assert torch.allclose(batch.log_prob(support), wanted, atol=1e-12)
    assert batch.sample((4,)).shape == (4, 3, *batch.event_shape)
    more = batch.expand((2, 3))
    assert type(more) is type(batch)
    assert more.batch_shape == (2, 3)
    assert torch.allclose(more.mean[1], batch.mean)
    assert more.rsample((4,)).shape == (4, 2, 3, *batch.event_shape)


@every_case
@pytest.mark.parametrize("estimator", ["ST", "ZGR", "DARN", "ST-ZGR(alpha=0.3)"])
@pytest.mark.few(14)
def test_rsample_is_a_sample(case: Case, estimator: str) -> None:
    logits = logits_of(case).requires_grad_()
    drawn = case.make(logits, estimator)
    x = drawn.rsample((7,), torch.Generator().manual_seed(0))
    assert torch.equal(x.detach(), drawn.sample((7,), torch.Generator().manual_seed(0)))
    x.square().sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize(
    ("drawn", "forced"),
    [
        (KSubset(torch.tensor([0.0, -torch.inf, 1.0, 2.0, -torch.inf]), 2), 1),
        (KSubset(torch.tensor([0.0, -torch.inf, 1.0]), 2), 1),
        (SpanningTree(torch.tensor([-torch.inf, 0.0, 1.0]), 3), 0),
        (Chain(torch.tensor([[0.0, -torch.inf]] * 3), torch.zeros(2, 2, 2)), (0, 1)),
        (Permutation(torch.tensor([[0.0, -torch.inf], [2.0, 1.0]])), (0, 1)),
    ],
    ids=str,
)
def test_minus_infinity_forces_a_part_out(drawn: Distribution, forced: object) -> None:
    assert float(drawn.mean[forced]) == 0
    assert bool((drawn.sample((200,))[(slice(None), *np.atleast_1d(forced))] == 0).all())
    for name in drawn.parameters:
        values = getattr(drawn, name).clone().requires_grad_()
        other = {n: getattr(drawn, n) for n in drawn.parameters} | {name: values}
        extra = [drawn.k] if isinstance(drawn, KSubset) else []
        extra = [drawn.vertices] if isinstance(drawn, SpanningTree) else extra
        fresh = type(drawn)(*other.values(), *extra)
        fresh.rsample((10,)).square().sum().backward()
        assert bool(values.grad.isfinite().all())
    assert bool(drawn.entropy().isfinite())


def test_many_samples_are_drawn_in_blocks_of_bounded_size(monkeypatch) -> None:
    drawn = KSubset(torch.zeros(3, 5, dtype=torch.float64), 2)
    one_by_one, sizes = drawn._drawn, []

    def counted(n: int, generator: torch.Generator | None) -> Tensor:
        sizes.append(n)
        return one_by_one(n, generator)

    monkeypatch.setattr("gradlab.distributions.base._ELEMENTS", 7 * drawn._numbers_per_draw())
    monkeypatch.setattr(drawn, "_drawn", counted)
    x = drawn.sample((4, 5), torch.Generator().manual_seed(0))
    assert sizes == [7, 7, 6]
    assert x.shape == (4, 5, 3, 5)
    assert bool((x.sum(-1) == 2).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hundreds_of_elements(dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(300, generator=source, dtype=torch.float64).to(dtype).requires_grad_()
    subset = KSubset(logits, 40)
    assert float(subset.mean.detach().sum()) == pytest.approx(40, rel=1e-4)
    x = subset.rsample((3,))
    assert x.sum(-1).tolist() == [40, 40, 40]
    x.square().sum().backward()
    assert bool(logits.grad.isfinite().all())
    tree = SpanningTree(torch.randn(40 * 39 // 2, generator=source).to(dtype), 40)
    assert float(tree.mean.sum()) == pytest.approx(39, rel=1e-4)
    assert bool(tree.support.check(tree.sample((5,))).all())
    chain = Chain(torch.randn(200, 5).to(dtype), torch.randn(199, 5, 5).to(dtype))
    assert chain.mean.sum(-1) == pytest.approx(torch.ones(200), rel=1e-4)


def test_weights_of_very_different_sizes_keep_their_digits() -> None:
    logits = torch.tensor([0.0, -60.0, 40.0, 1.0, -30.0, 80.0], dtype=torch.float64)
    tree = SpanningTree(logits, 4)
    support = tree.enumerate_support()
    p = (support * logits).sum(-1).softmax(0)
    mean = (p[:, None] * support).sum(0)
    assert tree.mean.numpy() == pytest.approx(mean.numpy(), rel=1e-12)


@pytest.mark.parametrize("far", [-30.0, -40.0, -700.0])
def test_trees_that_walks_would_not_find(far: float) -> None:
    logits = torch.tensor([far, far, 0.0], dtype=torch.float64)  # two vertices far from vertex 0
    tree = SpanningTree(logits, 3)
    assert float(tree.mean[2]) == pytest.approx(1.0)
    x = tree.sample((2000,), torch.Generator().manual_seed(0))
    assert x[:, 2].tolist() == [1.0] * 2000
    assert 800 < float(x[:, 0].sum()) < 1200
    many = torch.full((20 * 19 // 2,), 0.0, dtype=torch.float64)
    many[:19] = far  # the edges of vertex 0
    with pytest.raises(ValueError, match="Wilson's algorithm"):
        SpanningTree(many, 20).sample()


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KSubset(torch.zeros(3), 0), "k must be between 1 and the 3 elements, not 0"),
        (lambda: KSubset(torch.zeros(3), 4), "k must be between 1 and the 3 elements, not 4"),
        (lambda: KSubset(torch.tensor([0.0, -INF, -INF]), 2), "only 1 elements have logits above"),
        (lambda: KSubset(torch.tensor([0.0, INF]), 1), "logits holds \\+inf"),
        (lambda: KSubset(torch.tensor([0.0, NAN]), 1), "logits holds NaN"),
        (lambda: KSubset(torch.tensor(0.0), 1), "at least 1 axes"),
        (lambda: KSubset(torch.zeros(3), 2, "GS"), "GS.* is not known for samples of a structure"),
        (lambda: KSubset(torch.zeros(3), 2, "ZRG"), "ZRG"),
        (lambda: KSubset(torch.zeros(100), 50).enumerate_support(), "draw samples instead"),
        (lambda: Permutation(torch.zeros(2, 3)), "square"),
        (lambda: Permutation(torch.full((2, 2), -INF)), "leave no permutation"),
        (lambda: Permutation(torch.zeros(20, 20)), "goes to n = 14"),
        (lambda: Permutation(torch.zeros(9, 9)).enumerate_support(), "362880 permutations"),
        (lambda: SpanningTree(torch.zeros(4), 3), "4 entries, but the graph has 3 edges"),
        (lambda: SpanningTree(torch.tensor([0.0, -INF, -INF]), 3), "not connected"),
        (lambda: SpanningTree(torch.zeros(1), 3, [(0, 1)]), "not connected"),
        (lambda: SpanningTree(torch.zeros(2), 3, [(0, 1), (1, 0)]), "named twice"),
        (lambda: SpanningTree(torch.zeros(2), 3, [(0, 1), (1, 3)]), "vertices 0..2"),
        (lambda: SpanningTree(torch.zeros(0), 1), "at least 2 vertices"),
        (lambda: SpanningTree(torch.zeros(190), 20).enumerate_support(), "draw samples instead"),
        (lambda: Chain(torch.zeros(3, 2), torch.zeros(3, 2, 2)), r"\[T - 1, C, C\] = \[2, 2, 2\]"),
        (lambda: Chain(torch.full((2, 2), -INF), torch.zeros(1, 2, 2)), "leaves no sequence"),
        (lambda: Chain(torch.zeros(90, 2), torch.zeros(89, 2, 2)).enumerate_support(), "sequences"),
        (lambda: Finite(torch.eye(2), torch.zeros(2)), "must sum to 1"),
        (lambda: Finite(torch.ones(2, 2), torch.full((2,), 0.5).log()), "two states .* are equal"),
        (lambda: Finite(torch.eye(3), torch.full((2,), 0.5).log()), "one log-probability for each"),
        (lambda: KSubset(torch.zeros(3), 2).log_prob(torch.ones(3)), "within the support"),
    ],
)
def test_bad_input_is_a_sentence(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KSubset(torch.zeros(3, dtype=torch.long), 2), "floating-point tensor, not"),
        (lambda: KSubset([0.0, 1.0], 1), "floating-point tensor, not list"),
        (lambda: KSubset(torch.zeros(3), 2.0), "k must be an int, not float"),
        (lambda: SpanningTree(torch.zeros(3), True), "vertices must be an int"),
        (lambda: Finite(torch.eye(2).long(), torch.zeros(2)), "states must be a floating-point"),
        (lambda: OneHotCategorical(torch.zeros(3), "RF"), "has no gradient through x"),
    ],
)
def test_a_wrong_type_is_named(make: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("estimator", ["ZGR", "ST", "GS-ST(tau=0.5)", "GR(tau=0.5, k=3)"])
def test_one_hot_categorical_back_propagates_its_estimator(estimator: str) -> None:
    from gradlab import parse

    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = logits.log_softmax(-1).requires_grad_()
    drawn = OneHotCategorical(given, estimator)
    x = drawn.rsample((2,), torch.Generator().manual_seed(1))
    (x * torch.arange(3.0)).sum().backward()
    alone = logits.log_softmax(-1).expand(2, 4, 3).clone().requires_grad_()
    y = parse(estimator).sample(alone, torch.Generator().manual_seed(1))
    (y * torch.arange(3.0)).sum().backward()
    assert torch.equal(x.detach(), y.detach())
    assert torch.allclose(given.grad, alone.grad.sum(0), atol=1e-12)
    more = drawn.expand((5, 4))
    assert isinstance(more, OneHotCategorical)
    assert str(more.estimator) == estimator
    assert more.sample().shape == (5, 4, 3)


def test_repr_names_what_was_given() -> None:
    assert repr(KSubset(torch.zeros(2, 5), 3)) == "KSubset(logits: [2, 5], k=3)"
    assert "estimator='ST'" in repr(KSubset(torch.zeros(5), 3, "ST"))
