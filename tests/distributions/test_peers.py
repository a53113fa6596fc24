"""SIMPLE, I-MLE and top-k on structures, and the laws that they sample."""

import itertools
import math

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor
from torch.distributions import OneHotCategorical as TorchOneHot

import gradlab
from gradlab.distributions import Chain, Finite, KSubset, SpanningTree, WithoutReplacement
from gradlab.distributions.gradient import with_gradient
from gradlab.distributions.natural import maximized
from gradlab.estimators import OF_STRUCTURES
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import NotExactError
from gradlab.samples import draw_exponentials
from significance import limit
from structures import CASES, Case, logits_of
from test_theorem import polynomial

ONE = {
    "1-subset": lambda p: KSubset(p, 1),
    "chain of one": lambda p: Chain(p.unsqueeze(-2), p.new_zeros(0, len(p), len(p))),
    "table": lambda p: Finite(torch.eye(len(p), dtype=p.dtype), p.log_softmax(-1)),
    "torch": lambda p: TorchOneHot(logits=p),
    "1 without replacement": lambda p: WithoutReplacement(p, 1),
}
LINE = ["ST", "DARN", "ZGR", "ST-ZGR(alpha=0.3)"]
MAXIMIZED = [case for case in CASES if case.name != "table"]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


# ---- the same per sample ------------------------------------------------------------------------


@pytest.mark.parametrize("text", LINE)
@pytest.mark.parametrize("make", ONE.values(), ids=ONE)
def test_at_one_categorical_each_sample_has_the_product_of_today(make, text: str) -> None:
    logits, v = randn(5), randn(5, seed=1)
    estimator = gradlab.parse(text)
    for x in torch.eye(5, dtype=torch.float64):
        leaf = logits.clone().requires_grad_()
        drawn = make(leaf)
        moved = with_gradient(drawn, x.reshape(drawn.event_shape), estimator.line_alpha)
        (found,) = torch.autograd.grad((moved.flatten() * v).sum(), leaf)
        assert torch.allclose(found, estimator.pullback(logits.softmax(-1), x, v), atol=1e-14)


@pytest.mark.parametrize("text", LINE)
@pytest.mark.parametrize("make", ONE.values(), ids=ONE)
def test_at_one_categorical_the_moments_are_those_of_today(make, text: str) -> None:
    logits, matrix = randn(5), randn(5, 5, seed=2)
    f = lambda x: torch.einsum("...i,ij,...j->...", x, matrix, x).sin()  # noqa: E731
    flat = lambda x: f(x.flatten(x.ndim - len(make(logits).event_shape)))  # noqa: E731
    found = Structured(flat, logits, make).moments(gradlab.parse(text))
    today = gradlab.exact_moments(gradlab.parse(text), lambda x: f(x[..., 0, :]), logits[None])
    assert torch.allclose(found.mean, today.mean[0], atol=1e-14)
    assert found.variance.value == pytest.approx(today.variance.value, rel=1e-12)


def coefficients(weights: np.ndarray, k: int) -> np.ndarray:
    """Return the elementary symmetric polynomials e_0 ... e_k by the recurrence of SIMPLE."""
    e = np.zeros(k + 1)
    e[0] = 1.0
    for w in weights:
        e[1:] += w * e[:-1]
    return e


@pytest.mark.parametrize("text", ["ST", "SIMPLE"])
@pytest.mark.parametrize(("n", "k"), [(6, 3), (9, 2), (9, 8)])
def test_on_subsets_straight_through_is_simple(text: str, n: int, k: int) -> None:
    logits, v = randn(n), randn(n, seed=1)
    w = logits.exp().numpy()
    total = coefficients(w, k)[k]
    mean = np.array([w[i] * coefficients(np.delete(w, i), k - 1)[k - 1] for i in range(n)]) / total
    pairs = np.diag(mean)
    for i, j in itertools.permutations(range(n), 2):
        pairs[i, j] = w[i] * w[j] * coefficients(np.delete(w, [i, j]), k - 2)[k - 2] / total
    leaf = logits.clone().requires_grad_()
    x = KSubset(leaf, k, text).rsample(generator=source())
    x.backward(v)
    covariance = pairs - np.outer(mean, mean)
    assert leaf.grad.numpy() == pytest.approx(covariance @ v.numpy(), abs=1e-12)


def test_simple_has_the_rows_of_st_under_its_own_name() -> None:
    logits, matrix = randn(6), randn(6, 6, seed=1)
    rows = gradlab.compare(
        lambda x: ((x @ matrix) * x).sum(-1),
        logits,
        ["ST", "SIMPLE"],
        distribution=lambda p: KSubset(p, 3),
    )
    assert list(rows["estimator"]) == ["ST", "SIMPLE"]
    assert rows.loc[0, "bias2"] == rows.loc[1, "bias2"] > 1e-3
    assert rows.loc[0, "variance"] == rows.loc[1, "variance"]


# ---- sampling without replacement ---------------------------------------------------------------


def orders(logits: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    """Return the probability of each set: Plackett-Luce, summed over all orders in numpy."""
    w = np.exp(logits - logits.max())
    found: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(len(w)), k):
        p, rest = 1.0, w.copy()
        for i in order:
            p *= w[i] / rest.sum()
            rest[i] = 0.0
        found[tuple(sorted(order))] = found.get(tuple(sorted(order)), 0.0) + p
    return found


@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 2), (6, 3), (6, 5), (4, 4)])
@pytest.mark.parametrize("scale", [0.0, 1.5, 8.0])
def test_sets_without_replacement_have_their_probabilities(n: int, k: int, scale: float) -> None:
    logits = scale * randn(n)
    drawn = WithoutReplacement(logits, k)
    wanted = orders(logits.numpy(), k)
    states = drawn.enumerate_support()
    p = np.array([wanted[tuple(np.flatnonzero(x))] for x in states.numpy()])
    assert drawn.log_prob(states).exp().numpy() == pytest.approx(p, rel=1e-10, abs=1e-14)
    mean = p @ states.numpy()
    assert drawn.mean.numpy() == pytest.approx(mean, abs=1e-12)
    assert drawn.variance.numpy() == pytest.approx(mean * (1 - mean), abs=1e-12)
    entropy = -sum(q * math.log(q) for q in p if q > 0)
    assert float(drawn.entropy()) == pytest.approx(entropy, abs=1e-12)
    x = drawn.sample((40_000,), source(3))
    error = (mean * (1 - mean)).clip(0) ** 0.5 / 200
    assert np.abs((x.mean(0).numpy() - mean) / (error + 1e-6)).max() < limit(1000)


def test_it_is_another_law_than_the_conditional_bernoulli() -> None:
    logits = torch.tensor([2.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    other, here = KSubset(logits, 2), WithoutReplacement(logits, 2)
    states = here.enumerate_support()
    off = (here.log_prob(states).exp() - other.log_prob(states).exp()).abs().max()
    assert off > 0.02
    for k in (1, 4):  # the only sizes at which they agree
        states = KSubset(logits, k).enumerate_support()
        laws = [law(logits, k).log_prob(states) for law in (KSubset, WithoutReplacement)]
        assert torch.allclose(*laws, atol=1e-13)


def test_a_batch_without_replacement_and_what_is_forced_out() -> None:
    logits = randn(2, 5)
    logits[1, 3] = -math.inf
    drawn = WithoutReplacement(logits, 2)
    states = drawn.enumerate_support()
    p = drawn.log_prob(states).exp()
    assert torch.allclose(p.sum(0), torch.ones(2, dtype=torch.float64), atol=1e-13)
    assert float(p[states[:, 1, 3] == 1, 1].abs().max()) == 0
    assert float(drawn.sample((500,), source())[:, 1, 3].max()) == 0
    one = WithoutReplacement(logits[0], 2)
    assert torch.allclose(drawn.mean[0], one.mean, atol=1e-14)
    assert drawn.expand((3, 2)).mean.shape == (3, 2, 5)
    leaf = logits.clone().requires_grad_()
    WithoutReplacement(leaf, 2).rsample(generator=source()).pow(2).sum().backward()
    assert bool(leaf.grad.isfinite().all())
    assert float(leaf.grad[1, 3]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithoutReplacement(torch.zeros(3), 4), "k must be between 1 and the 3"),
        (lambda: WithoutReplacement(torch.zeros(3), 0), "k must be between 1"),
        (lambda: WithoutReplacement(torch.zeros(30), 13), "13! orders"),
        (lambda: WithoutReplacement(torch.tensor([math.inf, 0.0]), 1), r"\+inf"),
        (lambda: WithoutReplacement(torch.tensor([-math.inf, 0.0]), 2), "only 1 elements"),
        (lambda: WithoutReplacement(torch.zeros(60), 8).mean, "terms.*another law"),
    ],
)
def test_bad_input_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- the best structure -------------------------------------------------------------------------


@pytest.mark.parametrize("case", MAXIMIZED, ids=str)
def test_the_maximizer_is_the_best_of_all_states(case: Case) -> None:
    states = case.states()
    for seed in range(5):
        logits = logits_of(case, seed=seed)
        best = max(states, key=lambda x: case.weight(x, logits.numpy()))
        assert case.make(logits).mode.numpy() == pytest.approx(best)


@pytest.mark.parametrize("case", MAXIMIZED, ids=str)
def test_a_batch_is_maximized_as_its_elements(case: Case) -> None:
    logits = torch.stack([logits_of(case, seed=seed) for seed in range(6)])
    batch = case.make(logits.unflatten(0, (2, 3))).mode
    assert torch.equal(batch.flatten(0, 1), torch.stack([case.make(one).mode for one in logits]))


def test_kruskal_finds_the_tree_of_scipy() -> None:
    logits = randn(20, 15)
    i, j = np.array(list(itertools.combinations(range(6), 2))).T
    for one, x in zip(logits.numpy(), SpanningTree(logits, 6).mode.numpy(), strict=True):
        costs = np.zeros((6, 6))
        costs[i, j] = one.max() + 1 - one
        tree = scipy.sparse.csgraph.minimum_spanning_tree(costs).toarray()
        assert (tree[i, j] > 0) == pytest.approx(x)


def test_what_is_forced_out_is_never_the_best() -> None:
    logits = randn(4, 4)
    logits[0, 0] = logits[1, 0] = logits[2, 0] = -math.inf
    assert float(gradlab.distributions.Permutation(logits).mode[3, 0]) == 1
    unary = torch.tensor([[5.0, -math.inf], [9.0, 0.0]])
    pairs = torch.tensor([[[-math.inf, 0.0], [0.0, 0.0]]])
    assert Chain(unary, pairs).mode.argmax(-1).tolist() == [0, 1]


# ---- estimators with noise of their own ---------------------------------------------------------


NOISY = [
    ("I-MLE(lam=0.7)", "subsets", lambda p: KSubset(p, 3), (6,)),
    ("I-MLE(lam=0.7)", "permutations", gradlab.distributions.Permutation, (3, 3)),
    ("I-MLE(lam=0.7)", "trees", lambda p: SpanningTree(p, 4), (6,)),
    (
        "I-MLE(lam=0.7)",
        "chain",
        lambda p: Chain(p[..., :6].unflatten(-1, (3, 2)), p[..., 6:].unflatten(-1, (2, 2, 2))),
        (14,),
    ),
    ("I-MLE(lam=0.7)", "rows", lambda p: TorchOneHot(logits=p), (2, 3)),
    ("TopK(tau=0.7)", "without replacement", lambda p: WithoutReplacement(p, 3), (6,)),
    ("TopK-ST(tau=0.7)", "without replacement", lambda p: WithoutReplacement(p, 3), (6,)),
]


@pytest.mark.parametrize(
    ("text", "make", "shape"),
    [(text, make, shape) for text, _, make, shape in NOISY],
    ids=[f"{text} {name}" for text, name, _, _ in NOISY],
)
def test_draws_are_what_rsample_back_propagates(text: str, make, shape) -> None:
    parameters = randn(*shape)
    scaled = lambda p: make(2 * p)  # noqa: E731
    on = Structured(
        polynomial(3, make(parameters).batch_shape + make(parameters).event_shape),
        parameters,
        scaled,
    )
    found = on.draws(gradlab.parse(text), 4, source(5))
    each = parameters.expand(4, *shape).clone().requires_grad_()
    structure = maximized(make(2 * each))
    x = gradlab.parse(text).sample_structure(structure, structure.natural, source(5))
    on.f(x).sum().backward()
    assert torch.allclose(found, each.grad, atol=1e-12)
    assert float(found.abs().max()) > 0


@pytest.mark.parametrize("text", ["I-MLE(lam=1)", "I-MLE(lam=0.2)"])
@pytest.mark.parametrize("name", ["1-subset", "chain of one", "torch", "1 without replacement"])
def test_draws_at_one_categorical_have_the_exact_moments_of_rows(name: str, text: str) -> None:
    logits, matrix = randn(4), randn(4, 4, seed=2)
    f = lambda x: ((x @ matrix) * x).sum(-1).sin()  # noqa: E731
    axes = len(ONE[name](logits).event_shape)
    rows = gradlab.exact_moments(gradlab.parse(text), lambda x: f(x[..., 0, :]), logits[None])
    on = Structured(lambda x: f(x.flatten(x.ndim - axes)), logits, ONE[name])
    found = gradlab.monte_carlo(text, on.f, logits, 20_000, distribution=ONE[name])
    z = (found.mean - rows.mean[0]) / found.mean_se.clamp_min(1e-12)
    assert float(z.abs().max()) < limit(200)
    assert abs(found.variance.value - rows.variance.value) < 6 * found.variance.se


def law_of_trees(theta: Tensor, vertices: int) -> tuple[Tensor, Tensor]:
    """Return the trees of Kruskal's algorithm over all orders of edges, and their probabilities.

    Gumbel noise puts the edges in an order of Plackett and Luce.
    """
    every = torch.tensor(list(itertools.permutations(range(len(theta)))))
    ordered = theta[every]
    log_p = (ordered - ordered.flip(-1).logcumsumexp(-1).flip(-1)).sum(-1)
    rank = torch.zeros(every.shape, dtype=torch.float64)
    rank.scatter_(1, every, -torch.arange(len(theta), dtype=torch.float64).expand(every.shape))
    return SpanningTree(theta.detach(), vertices).maximizer(rank), log_p.exp()


def test_on_trees_i_mle_is_near_the_gradient_of_its_own_law_and_not_of_the_gibbs_law() -> None:
    theta = randn(6, seed=1)
    slope = randn(6, seed=4)
    leaf = theta.clone().requires_grad_()
    x, p = law_of_trees(leaf, 4)
    assert float(p.detach().sum()) == pytest.approx(1, abs=1e-12)
    (own,) = torch.autograd.grad(p @ (x @ slope), leaf)
    make = lambda t: SpanningTree(t, 4)  # noqa: E731
    gibbs = gradlab.exact_gradient(lambda x: x @ slope, theta, distribution=make)
    found = gradlab.monte_carlo(
        "I-MLE(lam=0.1)", lambda x: x @ slope, theta, 100_000, distribution=make
    )
    to_own, to_gibbs = (float((found.mean - g).norm()) for g in (own, gibbs))
    noise = float(found.mean_se.norm())
    assert to_own < 3 * noise  # what is left is of the size of lam
    assert to_gibbs > 6 * noise


def test_rows_say_of_which_law_samples_are() -> None:
    logits = randn(6)
    given = {"draws": 64}
    f = lambda x: x[..., 0]  # noqa: E731
    texts = ["I-MLE(lam=1)", "ST", "TopK"]
    on_subsets = gradlab.compare(f, logits, texts, distribution=lambda p: KSubset(p, 3), **given)
    assert "perturb-and-MAP, not the conditional Bernoulli law" in on_subsets.loc[0, "note"]
    assert not isinstance(on_subsets.loc[1, "note"], str)
    assert "another law" in on_subsets.loc[2, "reason"]
    assert "WithoutReplacement(p, k)" in on_subsets.loc[2, "reason"]
    for make in (lambda p: WithoutReplacement(p, 3), lambda p: KSubset(p, 1)):
        rows = gradlab.compare(f, logits, texts[:1], distribution=make, **given)
        assert rows.loc[0, "method"] == "monte carlo"
        assert not isinstance(rows.loc[0, "note"], str)


def test_exact_moments_of_continuous_noise_are_refused() -> None:
    on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: WithoutReplacement(p, 2))
    with pytest.raises(NotExactError, match=r"TopK\(tau=1\) has continuous noise"):
        on.moments(gradlab.parse("TopK"))


def test_relaxed_top_k_of_one_is_gumbel_softmax() -> None:
    logits = randn(4)
    f = lambda x: x.square() @ torch.arange(4.0, dtype=x.dtype)  # noqa: E731
    for text, one in (("TopK(tau=0.5)", "GS(tau=0.5)"), ("TopK-ST(tau=0.5)", "GS-ST(tau=0.5)")):
        found = gradlab.monte_carlo(
            text, f, logits, 20_000, distribution=lambda p: WithoutReplacement(p, 1)
        )
        rows = gradlab.monte_carlo(one, lambda x: f(x[..., 0, :]), logits[None], 20_000, 1)
        error = (found.mean_se.square() + rows.mean_se[0].square()).sqrt()
        assert float(((found.mean - rows.mean[0]) / error).abs().max()) < limit(200)


def test_relaxed_samples_are_softmaxes_of_what_is_left() -> None:
    logits, tau, k = randn(6), 0.7, 3
    found = WithoutReplacement(logits, k, f"TopK(tau={tau})").rsample((), source(2))
    alpha = (logits - draw_exponentials(logits, source(2)).log()).numpy()
    wanted = np.zeros(6)
    for _ in range(k):
        weight = np.exp(alpha / tau)
        chosen = weight / weight.sum()
        wanted += chosen
        alpha = alpha + np.log(1 - chosen)
    assert found.numpy() == pytest.approx(wanted, abs=1e-12)


def test_relaxed_samples_have_k_ones_in_sum_and_tend_to_the_largest() -> None:
    logits = randn(500, 8)
    relaxed, cold = (
        WithoutReplacement(logits, 3, f"TopK(tau={tau})").rsample((), source()) for tau in (1, 1e-3)
    )
    hard = WithoutReplacement(logits, 3, "TopK-ST(tau=1)").rsample((), source())
    assert torch.allclose(relaxed.sum(-1), torch.full((500,), 3.0, dtype=torch.float64))
    assert float((relaxed - hard).abs().max()) > 0.3
    assert float((cold - hard).abs().mean()) < 1e-3
    assert set(hard.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: KSubset(p, 2, "TopK"), r"TopK\(tau=1\) is not known for KSubset.*another law"),
        (lambda p: KSubset(p, 2, "TopK-ST"), "WithoutReplacement"),
        (lambda p: WithoutReplacement(p, 2, "SIMPLE"), r"KSubset\(p, k\)"),
        (lambda p: SpanningTree(p, 4, estimator="SIMPLE"), "SIMPLE is not known for SpanningTree"),
        (lambda p: Finite(torch.eye(6), p.log_softmax(-1), "I-MLE"), "best structure.*Finite"),
        (lambda p: KSubset(p, 2, "RF(m=2)"), "not known for samples of a structure"),
    ],
)
def test_what_does_not_belong_together_is_refused_with_a_reason(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(torch.zeros(6))


@pytest.mark.parametrize("name", ["SIMPLE", "TopK", "TopK-ST"])
def test_rows_that_are_independent_are_refused_with_a_reason(name: str) -> None:
    logits = torch.zeros(2, 3)
    estimator = OF_STRUCTURES[name]()
    for call in (estimator.draw, estimator.surrogate):
        arguments = (lambda x: x[..., 0, 0], logits, *([5] if call == estimator.draw else []))
        with pytest.raises(ValueError, match=f"{name}.* is not known for independent rows"):
            call(*arguments)
    with pytest.raises(ValueError, match="independent rows"):
        gradlab.CategoricalLayer(name)
    rows = gradlab.compare(lambda x: x[..., 0, 0], logits, [name])
    assert "independent rows" in rows.loc[0, "reason"]
