"""What is wrong with a distribution is a sentence, whichever verb meets it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.distributions import OneHotCategorical as TorchOneHot

import gradlab
from gradlab.distributions import Chain, Finite, KSubset, Permutation, SpanningTree

INF, NAN = math.inf, math.nan


def f(x: Tensor) -> Tensor:
    return x[..., 0] + x[..., -1].square()


def of_any_shape(axes: int) -> Callable[[Tensor], Tensor]:
    return lambda x: f(x.flatten(-axes))


Verb = Callable[[Tensor, Callable[[Tensor], Distribution]], object]

VERBS: dict[str, Verb] = {
    "exact_value": lambda p, d: gradlab.exact_value(f, p, distribution=d),
    "exact_gradient": lambda p, d: gradlab.exact_gradient(f, p, distribution=d),
    "exact_moments": lambda p, d: gradlab.exact_moments(gradlab.ZGR(), f, p, distribution=d),
    "monte_carlo": lambda p, d: gradlab.monte_carlo("RF", f, p, 64, distribution=d),
    "compare": lambda p, d: gradlab.compare(f, p, ["RF"], distribution=d),
    "verify": lambda p, d: gradlab.verify("RF", f, p, distribution=d, max_draws=256),
    "verify_order": lambda p, d: gradlab.verify_order("RF", logits=p, distribution=d),
    "recommend": lambda p, d: gradlab.recommend(
        f, p, evaluations=4, estimators=["RF"], distribution=d
    ),
}


class Unnormalized(TorchOneHot):
    """A distribution whose log_prob is .1 too high."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 0.1


FAULTS: dict[str, tuple[Tensor, Callable[[Tensor], Distribution], str]] = {
    "k > n": (torch.zeros(3), lambda p: KSubset(p, 4), "k must be between 1 and the 3 elements"),
    "k = 0": (torch.zeros(3), lambda p: KSubset(p, 0), "k must be between 1 and the 3 elements"),
    "too many forced out": (
        torch.tensor([0.0, -INF, -INF]),
        lambda p: KSubset(p, 2),
        "only 1 elements have logits above -inf",
    ),
    "+inf": (torch.tensor([0.0, INF, 1.0]), lambda p: KSubset(p, 1), r"hold \+inf; force a part"),
    "NaN": (torch.tensor([0.0, NAN, 1.0]), lambda p: KSubset(p, 1), "hold NaN"),
    "+inf for torch": (
        torch.tensor([0.0, INF, 1.0]),
        lambda p: TorchOneHot(logits=p),
        r"hold \+inf",
    ),
    "not connected": (
        torch.tensor([0.0, -INF, -INF]),
        lambda p: SpanningTree(p, 3),
        "graph is not connected",
    ),
    "no permutation": (torch.full((2, 2), -INF), Permutation, "leave no permutation"),
    "no sequence": (
        torch.full((2, 2), -INF),
        lambda p: Chain(p, torch.zeros(1, 2, 2)),
        "leaves no sequence",
    ),
    "no finite support": (torch.zeros(3), lambda p: Normal(p, 1.0), "no finite support"),
    "not normalized": (torch.zeros(3), lambda p: Unnormalized(logits=p), "sum to 1.1"),
    "a table that is not normalized": (
        torch.zeros(2),
        lambda p: Finite(torch.eye(2), p),
        "must sum to 1",
    ),
    "detached": (torch.zeros(3), lambda p: TorchOneHot(logits=p.detach()), "not differentiable"),
}

every_verb = pytest.mark.parametrize("verb", VERBS)


@every_verb
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.few(52)
def test_a_fault_of_the_distribution_is_a_sentence(verb: str, fault: str) -> None:
    parameters, make, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as caught:
        VERBS[verb](parameters, make)
    assert "\n" not in str(caught.value)


@every_verb
def test_no_distribution_is_a_sentence(verb: str) -> None:
    with pytest.raises(TypeError, match=r"must return a torch.distributions.Distribution"):
        VERBS[verb](torch.zeros(3), lambda p: p)


MANY = (torch.zeros(60), lambda p: KSubset(p, 30))
DRAWN = ("monte_carlo", "verify", "verify_order", "recommend")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in DRAWN])
def test_states_too_many_are_refused_where_nothing_is_drawn(verb: str) -> None:
    with pytest.raises(gradlab.exact.enumeration.TooLargeError) as caught:
        VERBS[verb](*MANY)
    assert "too many" in str(caught.value) or "draw samples instead" in str(caught.value)


def test_states_too_many_are_drawn() -> None:
    assert VERBS["monte_carlo"](*MANY).n == 64
    verdict = VERBS["verify"](*MANY)
    assert "RF(m=4)" in verdict.notes[0]
    assert verdict.method == "monte carlo"


def test_compare_takes_a_reference_where_states_are_too_many() -> None:
    rows = gradlab.compare(
        f,
        MANY[0],
        ["ST", "RF"],
        distribution=MANY[1],
        draws=64,
        reference="RF(m=4)",
        reference_draws=256,
    )
    assert set(rows["truth"]) == {"RF(m=4), 256 draws"}
    assert rows["reason"].isna().all()
    with pytest.raises(ValueError, match="unbiased for every f"):
        gradlab.compare(f, *MANY[:1], ["ST"], distribution=MANY[1], reference="ST")


FORCED = {
    "subset": (torch.tensor([0.0, 1.0, -INF, 0.5, 0.2]), lambda p: KSubset(p, 2)),
    "permutation": (
        torch.tensor([[0.0, -INF, 1.0], [1.0, 2.0, 0.3], [0.1, 0.2, 0.4]]),
        Permutation,
    ),
    "tree": (torch.tensor([0.0, -INF, 1.0, 0.3, 0.2, 0.1]), lambda p: SpanningTree(p, 4)),
    "table": (
        torch.tensor([0.0, -INF, 1.0]),
        lambda p: Finite(torch.eye(3), p - p.logsumexp(-1, keepdim=True)),
    ),
}


@pytest.mark.parametrize("name", FORCED)
@pytest.mark.parametrize("estimator", ["ST", "ZGR", "DARN", "RF(m=3)", "REINFORCE", "EMA"])
def test_what_is_forced_out_has_no_part_in_any_number(name: str, estimator: str) -> None:
    parameters, make = FORCED[name]
    chosen, loss = gradlab.parse(estimator), of_any_shape(parameters.ndim)
    moments = gradlab.exact_moments(chosen, loss, parameters, distribution=make)
    assert bool(moments.mean.isfinite().all())
    assert math.isfinite(moments.variance)
    out = parameters == -INF
    assert float(moments.mean[out].abs().max()) == 0


@pytest.mark.parametrize("name", FORCED)
def test_a_part_forced_out_is_the_limit_of_a_low_one(name: str) -> None:
    parameters, make = FORCED[name]
    low = torch.where(parameters == -INF, -40.0, parameters).double()
    loss = of_any_shape(parameters.ndim)
    wanted = gradlab.exact_gradient(loss, low, distribution=make)
    found = gradlab.exact_gradient(loss, parameters.double(), distribution=make)
    assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("verb", ["exact_value", "compare", "verify", "recommend"])
def test_f_is_not_asked_where_a_part_is_forced_out(verb: str, monkeypatch) -> None:
    def infinite_there(x: Tensor) -> Tensor:
        return x[..., 0] + torch.where(x[..., 2] == 1, INF, 0.0)

    monkeypatch.setitem(globals(), "f", infinite_there)
    VERBS[verb](*FORCED["subset"])
    with pytest.raises(gradlab.loss.LossError, match="it must be finite"):
        VERBS[verb](torch.zeros(5), FORCED["subset"][1])


def test_constants_of_float32_may_be_in_a_table_of_float64() -> None:
    prior = torch.tensor([0.3, 0.7]).log()
    states = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def mixed(theta: Tensor) -> Finite:
        second = theta.log_softmax(-1)
        return Finite(states, torch.cat([prior[0] + second, prior[1] + second]))

    product = lambda x: x[..., 0] * x[..., 1]  # noqa: E731
    theta = torch.zeros(2, dtype=torch.float64)
    found = gradlab.exact_gradient(product, theta, distribution=mixed)
    assert torch.allclose(found, torch.tensor([-0.175, 0.175], dtype=torch.float64), atol=1e-7)
    single = lambda p: Finite(states, p.float().log_softmax(-1))  # noqa: E731
    found = gradlab.exact_gradient(product, torch.zeros(4), distribution=single)
    assert torch.allclose(found, torch.tensor([-1.0, -1.0, -1.0, 3.0]).double() / 16, atol=1e-6)
    with pytest.raises(ValueError, match="are 1e-05 off"):
        Finite(torch.eye(2), (torch.full((2,), 0.5 + 5e-6, dtype=torch.float64)).log())


@pytest.mark.thorough  # a size, not a fault
def test_a_large_graph_with_few_trees_is_enumerated() -> None:
    size = 70
    cycle = [(i, (i + 1) % size) for i in range(size)]
    tree = SpanningTree(torch.randn(size, dtype=torch.float64), size, cycle)
    states = tree.enumerate_support()
    assert states.shape == (size, size)
    assert float(tree.log_prob(states).exp().sum()) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="spanning trees, more than"):
        SpanningTree(torch.zeros(190), 20).enumerate_support()


NO_FUNCTIONS = {
    "a text": ("KSubset(n=4, k=2)", r"not 'KSubset\(n=4, k=2\)'"),
    "an instance": (KSubset(torch.zeros(4), 2), r"such as lambda p: KSubset\(p, ...\), not a KSub"),
    "a class with k": (KSubset, "KSubset cannot be called with the parameters alone .*'k'"),
    "two arguments": (lambda a, b: Chain(a, b), "come as one tuple"),
}


@pytest.mark.parametrize("case", NO_FUNCTIONS)
@pytest.mark.parametrize("verb", ["exact_gradient", "monte_carlo", "compare", "verify_order"])
def test_what_is_not_a_function_of_the_parameters_is_named(case, verb, unchecked):
    given, told = NO_FUNCTIONS[case]
    with pytest.raises(TypeError, match=told):
        VERBS[verb](torch.zeros(4), given)


@pytest.mark.parametrize("code", ["ZGR", "ST"])
@pytest.mark.few(1)
def test_the_ladder_takes_a_tuple_of_parameters(code):
    source = torch.Generator().manual_seed(0)
    both = tuple(torch.randn(s, generator=source, dtype=torch.float64) for s in [(3, 2), (2, 2, 2)])
    found = gradlab.verify_order(code, distribution=lambda p: Chain(*p), logits=both)
    assert found.degree == {"ZGR": 2, "ST": 1}[code]
