"""`verify` and `verify_order` where x is drawn from subsets, permutations, trees and chains."""

import dataclasses
import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import OneHotCategorical as TorchOneHot

import gradlab
from gradlab.categorical import probabilities
from gradlab.distributions import Chain, Finite, KSubset, Permutation, SpanningTree
from gradlab.distributions.base import with_gradient
from gradlab.exact.moments import NotExactError
from gradlab.exact.structures import Structured
from gradlab.problems import problem, regime
from gradlab.user_code.on_structures import draws_on
from gradlab.user_code.under_test import EstimatorError, draws_of
from gradlab.verification.exact_bias import exact_bias
from gradlab.verification.law_of_samples import check_law
from gradlab.verification.monomials import monomial_check
from gradlab.verification.structure_bias import sizes_of, structure_bias
from gradlab.verification.structure_questions import StructureQuestion
from gradlab.verification.structure_rungs import RandomFunction
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED
from gradlab.verification.verifying import verify

pytestmark = pytest.mark.usefixtures("unchecked")

LENGTH, CLASSES = 4, 3
UNARY = LENGTH * CLASSES


def normal(*shape: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=source, dtype=torch.float64)


def three_of(p: Tensor) -> KSubset:
    return KSubset(p, 3)


def chain(p: Tensor) -> Chain:
    unary = p[..., :UNARY].unflatten(-1, (LENGTH, CLASSES))
    return Chain(unary, p[..., UNARY:].unflatten(-1, (LENGTH - 1, CLASSES, CLASSES)))


STRUCTURES = {
    "subset": (three_of, normal(6)),
    "permutation": (Permutation, normal(4, 4)),
    "tree": (lambda p: SpanningTree(p, 4), normal(6, seed=1)),
    "chain": (chain, normal(UNARY + (LENGTH - 1) * CLASSES**2)),
}
every_structure = pytest.mark.parametrize("name", STRUCTURES)
SUBSET = {"distribution": three_of, "logits": normal(6)}


def quadratic(shape: tuple[int, ...] = (6,), seed: int = 0) -> RandomFunction:
    return RandomFunction("quadratic", torch.Size(shape), seed)


# ---- orders ------------------------------------------------------------------------------------

ORDERS = {"ST": 1, "DARN": 1, "ZGR": 2, "ST-ZGR(alpha=1.2)": 1}
SCORES = ("REINFORCE(baseline=0.7)", "RF(m=2)", "EMA(baseline=0.3, decay=0.9)", "LEARNED")


@every_structure
@pytest.mark.parametrize("estimator", ORDERS)
@pytest.mark.few(2)
def test_the_order_of_a_rule_is_proved(name: str, estimator: str) -> None:
    distribution, logits = STRUCTURES[name]
    ladder = gradlab.verify_order(estimator, distribution=distribution, logits=logits)
    assert ladder.degree == ORDERS[estimator] == ladder.order
    assert ladder.holds
    assert {v.method for v in ladder.verdicts} == {"exact"}
    assert {v.judged for v in ladder.verdicts if v.outcome != NOT_APPLICABLE} <= {
        *("draw and training", "draw", "training")
    }
    assert ladder.static.degree == ladder.degree
    of_zgr = {r.kind: v.relative_bias for r, v in ladder.pairs if r.regime == "as given"}
    if estimator == "ZGR":
        assert of_zgr["quadratic"] < 1e-12 < 1e-3 < of_zgr["cubic"]
    else:
        assert of_zgr["quadratic"] > 1e-4


@every_structure
@pytest.mark.parametrize("estimator", SCORES)
@pytest.mark.few(2, "RF(m=2)-subset")  # of a chain RF has 6561 pairs of states
def test_score_functions_are_proved_unbiased_at_every_degree(name: str, estimator: str) -> None:
    distribution, logits = STRUCTURES[name]
    ladder = gradlab.verify_order(estimator, distribution=distribution, logits=logits)
    assert ladder.outcome == UNBIASED
    assert ladder.holds
    assert {v.method for v in ladder.verdicts} == {"exact"}
    assert {r.regime for r in ladder.rungs} == {"as given", "twice normal", "zero"}


def test_samples_of_rf_are_enumerated_and_not_taken_on_trust(monkeypatch) -> None:
    # A baseline with the own sample in it shrinks the mean: the enumeration must see that.
    right = Structured.estimates

    def shrunk(self, estimator, x):
        factor = 0.5 if estimator == gradlab.parse("RF(m=2)") else 1.0
        return factor * right(self, estimator, x)

    monkeypatch.setattr(Structured, "estimates", shrunk)
    verdict = verify("RF(m=2)", quadratic(), normal(6), distribution=three_of)
    assert verdict.outcome == BIASED
    assert verdict.factor == 0.5


@dataclasses.dataclass(frozen=True, repr=False)
class FourSixths(gradlab.ZGR):
    """ZGR with its halves weighted .6 and .4, which claims the order of ZGR."""

    name: ClassVar[str] = "FOUR"
    line_alpha: ClassVar[float | None] = 0.8


@every_structure
@pytest.mark.few(1)
def test_halves_of_other_weights_are_found(name: str) -> None:
    distribution, logits = STRUCTURES[name]
    ladder = gradlab.verify_order(FourSixths(), distribution=distribution, logits=logits)
    assert (ladder.degree, ladder.order, ladder.holds) == (1, 2, False)
    assert "which FAILS" in " ".join(ladder.explain().split())


def four_sixths(logits: Tensor, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    return with_gradient(drawn, drawn.sample((), generator), 0.8)


def zgr(logits: Tensor, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    return with_gradient(drawn, drawn.sample((), generator), 1.0)


def top_k(logits: Tensor, generator) -> Tensor:
    noise = -torch.empty_like(logits).exponential_(generator=generator).log()
    chosen = (logits.detach() + noise).topk(3, -1).indices
    x = torch.zeros_like(logits).scatter(-1, chosen, 1.0)
    return with_gradient(three_of(logits), x, 1.0)


@pytest.mark.thorough  # forms_of_code and halves_of_other_weights_are_found
def test_code_that_is_right_and_its_planted_errors() -> None:
    f, logits = quadratic(), 1.5 * normal(6, seed=3)
    given = {"distribution": three_of, "alpha": 1e-6, "delta": 0.1}
    right = verify(zgr, f, logits, **given)
    assert right.outcome == UNBIASED
    assert right.judged == "training"
    found = verify(top_k, f, logits, **given)
    assert found.outcome == BIASED
    assert "none of ST, DARN and ZGR" in found.explain()


@pytest.mark.thorough  # `test_other_targets` has other targets too, of estimators
def test_code_beside_an_estimator_as_its_target() -> None:
    f, logits = quadratic(), 1.5 * normal(6, seed=3)
    apart = verify(four_sixths, f, logits, distribution=three_of, against="ZGR", draws=2**17)
    assert apart.outcome == BIASED
    same = verify(zgr, f, logits, distribution=three_of, against="ZGR", delta=0.1, alpha=1e-6)
    assert same.outcome == UNBIASED
    assert same.against == "ZGR"


class TopK(KSubset):
    """Sampling without replacement that claims to be exactly k of n by its log_prob."""

    def _drawn(self, n: int, generator) -> Tensor:
        logits = self.logits.expand(n, *self.logits.shape)
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        chosen = (logits + noise).topk(self.k, -1).indices
        return torch.zeros_like(logits).scatter(-1, chosen, 1.0)


class TooMany(KSubset):
    """Samples have k + 1 ones."""

    def _drawn(self, n: int, generator) -> Tensor:
        return KSubset(self.logits, self.k + 1)._drawn(n, generator)


class Relabelled(KSubset):
    """A class of the user's whose samples are right."""


@pytest.mark.parametrize(
    ("kind", "message"),
    [(TopK, "TopK do not follow its log_prob"), (TooMany, "100.0% of 16,384 samples are missing")],
)
def test_samples_of_another_law_than_log_prob_are_refused(kind: type, message: str) -> None:
    logits = 1.5 * normal(6, seed=3)
    with pytest.raises(ValueError, match=message):
        verify("ZGR", quadratic(), logits, distribution=lambda p: kind(p, 3))


@pytest.mark.parametrize("seed", range(5))
def test_samples_of_the_right_law_are_not(seed: int) -> None:
    on = Structured(quadratic(), normal(6, seed=seed), lambda p: Relabelled(p, 3))
    check_law(on, seed)
    assert verify("ZGR", on).outcome == UNBIASED


# ---- what is judged ----------------------------------------------------------------------------


def test_what_trains_is_put_to_every_state_in_the_dtype_of_the_parameters() -> None:
    verdict = verify("ZGR", quadratic(), normal(6).float(), distribution=three_of, judge="training")
    assert verdict.outcome == UNBIASED
    assert "the backward of rsample at every x, float32, in batches" in verdict.how
    both = verify("ZGR", quadratic(), normal(6), distribution=three_of)
    assert both.judged == "draw and training"


def test_a_wrong_backward_is_seen_beside_a_right_draw(monkeypatch) -> None:
    from gradlab.user_code import on_structures

    monkeypatch.setattr(
        on_structures, "with_gradient", lambda d, x, alpha: with_gradient(d, x, alpha - 0.3)
    )
    f, logits = quadratic(), normal(6)
    verdict = verify("ZGR", f, logits, distribution=three_of)
    assert verdict.outcome == BIASED
    assert verdict.judged == "training"
    assert "its draw alone is UNBIASED" in verdict.notes[0]
    drawn = verify("ZGR", f, logits, distribution=three_of, judge="draw")
    assert drawn.outcome == UNBIASED


def test_a_score_function_has_nothing_that_trains_here() -> None:
    with pytest.raises(ValueError, match="on this distribution nothing trains with it"):
        verify("RF", quadratic(), normal(6), distribution=three_of, judge="training")
    with pytest.raises(ValueError, match="it has nothing else"):
        verify(zgr, quadratic(), normal(6), distribution=three_of, judge="draw")


@pytest.mark.parametrize("estimator", ["GS(tau=0.5)", "ARM", "LE"])
def test_what_is_not_known_on_distributions_says_so(estimator: str) -> None:
    verdict = verify(estimator, quadratic(), normal(6), distribution=three_of)
    assert verdict.outcome == NOT_APPLICABLE
    assert "is not known where x is drawn from a distribution" in verdict.reason


@dataclasses.dataclass(frozen=True, repr=False)
class Mine(gradlab.ZGR):
    """A class with a product of its own for independent rows."""

    name: ClassVar[str] = "MINE"

    def pullback(self, p, x, v):
        return super().pullback(p, x, v) / 2


def test_a_class_for_rows_is_not_taken_for_what_it_would_be_here() -> None:
    verdict = verify(Mine(), quadratic(), normal(6), distribution=three_of)
    assert verdict.outcome == NOT_APPLICABLE
    assert "give your code as a function" in verdict.reason


def test_a_fitted_baseline_of_other_variables_is_refused() -> None:
    fitted = gradlab.LearnedBaseline(weights=((0.0, 1.0, 1.0),))
    verdict = verify(fitted, quadratic(), normal(6), distribution=three_of)
    assert verdict.outcome == NOT_APPLICABLE


# ---- one categorical variable: today's numbers -------------------------------------------------


@pytest.mark.parametrize("estimator", ["ST", "ZGR", "DARN", "RF(m=2)", "REINFORCE(baseline=1)"])
def test_torchs_own_rows_give_the_verdict_of_the_default(estimator: str) -> None:
    f, logits = problem("cubic", 2, 3), regime("moderate", 2, 3)
    default = verify(estimator, f, logits)
    found = verify(estimator, f, logits, distribution=lambda p: TorchOneHot(logits=p))
    assert found.outcome == default.outcome
    assert torch.allclose(found.bias, default.bias, atol=1e-14)
    assert found.deviation == pytest.approx(default.deviation, rel=1e-10, abs=1e-12)
    on = Structured(f, logits, lambda p: TorchOneHot(logits=p))
    sizes, known = sizes_of(on), exact_bias(gradlab.parse(estimator), f, logits)
    bound = structure_bias(gradlab.parse(estimator), on, sizes).bound
    assert 0.02 < bound / known.bound < 50


@pytest.mark.parametrize("name", ["moderate", "peaked"])
def test_visits_of_one_hot_rows_are_those_of_their_classes(name: str) -> None:
    f, logits = problem("cubic", 2, 3), regime(name, 2, 3)
    on = Structured(f, logits, lambda p: TorchOneHot(logits=p))
    shared = (logits, logits, "", None, 0.05, 1e-3, 0)
    found = StructureQuestion(draws_on("ST", on), on.objective, *shared, on=on)
    wanted = Question(draws_of("ST"), on.objective, *shared)
    p = probabilities(logits)
    assert torch.allclose(found.rates, torch.minimum(p, 1 - p).flatten(), atol=1e-12)
    assert torch.allclose(found.visits, wanted.visits, rtol=1e-9, atol=1)


# ---- your own code -----------------------------------------------------------------------------


def hierarchy(theta: Tensor) -> Finite:
    states = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    log = torch.nn.functional.logsigmoid
    of_first = torch.cat([log(-theta[:1]), log(theta[:1])]).repeat_interleave(2)
    return Finite(states, of_first + torch.stack([log(-theta[1:]), log(theta[1:])], -1).flatten())


def score(f, logits, n, generator) -> Tensor:
    drawn = three_of(logits)
    x = drawn.sample((n,), generator)
    weight = f(x) - f(drawn.sample((n,), generator))
    return weight[:, None] * (x - drawn.mean)


def surrogate(f, logits, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    x, y = drawn.sample((), generator), drawn.sample((), generator)
    values = f(x)
    return values + (values - f(y)).detach() * drawn.log_prob(x) - values.detach()


class Layer(torch.nn.Module):
    """A module from parameters to a sample."""

    def forward(self, logits: Tensor) -> Tensor:
        drawn = three_of(logits)
        return with_gradient(drawn, drawn.sample(), 1.0)


@pytest.mark.parametrize(
    "code", [score, surrogate, zgr, Layer()], ids=["score", "surrogate", "zgr", "layer"]
)
@pytest.mark.few(2)
def test_forms_of_code(code: object) -> None:
    f, logits = quadratic(), normal(6)
    on = Structured(f, logits, three_of)
    drawn = draws_on(code, on)
    g = drawn(f, logits, 20_000, torch.Generator().manual_seed(0))
    error = (g.var(0) / len(g)).sqrt()
    assert float(((g.mean(0) - on.gradient) / error).abs().max()) < 6
    drawn.check_randomness(f, logits)


@pytest.mark.thorough  # forms_of_code calls code
def test_code_on_a_distribution_that_takes_no_batch_is_called_for_each_draw() -> None:
    theta = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
    f = RandomFunction("quadratic", torch.Size([2]))
    calls = []

    def sample(logits: Tensor, distribution, generator) -> Tensor:
        calls.append(logits.shape)
        drawn = distribution(logits)
        return with_gradient(drawn, drawn.sample((), generator), 1.0)

    on = Structured(f, theta, hierarchy)
    g = draws_on(sample, on)(f, theta, 400, torch.Generator().manual_seed(0))
    assert calls == [theta.shape] * 400
    error = (g.var(0) / len(g)).sqrt()
    assert float(((g.mean(0) - on.gradient) / error).abs().max()) < 6
    assert verify("ZGR", f, theta, distribution=hierarchy).outcome == UNBIASED


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda logits, generator: logits[..., :2] * 1, r"must return x of shape \[7, 6\]"),
        (lambda f, logits, n, generator: logits.expand(n, 6)[:, :3], "shape of the parameters"),
        (lambda f, logits, n, generator: logits.expand(n, 6) / 0, r"first for parameter \[0\]"),
        (lambda f, logits, generator: f(three_of(logits).sample()).sum(), "7 parameters"),
        (lambda logits, generator: three_of(logits).sample(), "does not depend on the logits"),
    ],
)
def test_faults_of_code_are_named_in_the_terms_of_a_distribution(code, message: str) -> None:
    on = Structured(quadratic(), normal(6), three_of)
    with pytest.raises(EstimatorError, match=message):
        draws_on(code, on)(on.f, on.parameters, 7, torch.Generator().manual_seed(0))


def test_code_that_asks_for_a_distribution_says_so_without_one() -> None:
    with pytest.raises(EstimatorError, match="give distribution= beside the loss"):
        verify(zgr, problem("quadratic", 2, 3), regime("moderate", 2, 3))


@pytest.mark.thorough  # forms_of_code trains too
def test_parameters_of_f_get_their_gradient() -> None:
    def lost(f, logits, distribution, generator):
        return surrogate(lambda x: f(x).detach(), logits, distribution, generator)

    network = torch.nn.Linear(6, 1).double()
    f = lambda x: network(x).squeeze(-1)  # noqa: E731
    given = {"distribution": three_of, "max_draws": 2048}
    kept = verify(surrogate, f, normal(6), **given)
    assert not any("Parameters of f" in note for note in kept.notes)
    without = verify(lost, f, normal(6), **given)
    assert any("Parameters of f get 0" in note for note in without.notes)


# ---- too many states, other targets, arguments --------------------------------------------------

MANY = (normal(28), lambda p: KSubset(p, 10))


@pytest.mark.thorough  # tests/distributions/test_faults_in_verbs.py: states_too_many_are_drawn
def test_draws_decide_where_the_states_are_too_many() -> None:
    logits, distribution = MANY
    f = quadratic((28,))
    given = {"distribution": distribution, "max_draws": 2**12}
    found = verify("ST", f, logits, **given)
    assert found.outcome == BIASED
    assert found.method == "monte carlo"
    assert verify("ZGR", f, logits, **given).outcome in (UNBIASED, INCONCLUSIVE)
    with pytest.raises(NotExactError, match="too many to be enumerated"):
        verify("ST", f, logits, distribution=distribution, method="exact")


def test_other_targets() -> None:
    f, logits = quadratic(), normal(6)
    on = Structured(f, logits, three_of)
    assert verify("ZGR", on, against="RF(m=2)").outcome == UNBIASED
    assert verify("ZGR", on, against="ST").outcome == BIASED
    assert verify("ZGR", on, against=on.gradient).outcome == UNBIASED
    with pytest.raises(ValueError, match=r"shape of the parameters \[6\]"):
        verify("ZGR", on, against=torch.zeros(5))
    with pytest.raises(NotExactError, match="no exact mean is known for zgr"):
        verify(zgr, on, method="exact")
    too_many = verify("RF(m=8)", on, method="monte-carlo", max_draws=2**14)
    assert too_many.method == "monte carlo"
    with pytest.raises(NotExactError, match="more tuples than are enumerated"):
        verify("RF(m=8)", on, method="exact")


def test_arguments_of_a_ladder() -> None:
    with pytest.raises(TypeError, match="give both distribution= and logits="):
        gradlab.verify_order("ZGR", distribution=three_of)
    with pytest.raises(ValueError, match="leave on and sites out"):
        gradlab.verify_order("ZGR", **SUBSET, sites=[])
    with pytest.raises(TypeError, match="give it alone"):
        verify("ZGR", Structured(quadratic(), normal(6), three_of), normal(6))


# ---- words --------------------------------------------------------------------------------------


@pytest.mark.thorough  # the command prints it in test_smoke.py
def test_a_ladder_prints_as_a_short_table() -> None:
    told = str(gradlab.verify_order("ZGR", **SUBSET))
    assert told.startswith("ZGR is EXACT TO DEGREE 2 on KSubset(logits: [6], k=3)")
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line}
    assert rows["quadratic"] == ["2", "0", "proof", "3"]
    assert rows["cubic"][0] == "3"
    assert rows["cubic"][1].endswith("%")
    assert rows["table"][1] == "-"
    assert len(told.splitlines()) < 14


def test_a_ladder_of_rows_prints_as_a_short_table_too() -> None:
    from gradlab.verification.order import rungs

    on = rungs(["constant", "linear", "quadratic"], [(2, 3)], ["moderate"])
    ladder = gradlab.verify_order("ST", on=on)
    told = str(ladder)
    assert told.startswith("ST is EXACT TO DEGREE 1; it declares degree 1, which holds.")
    assert len(told.splitlines()) < 10
    assert repr(ladder) == "Ladder(ST: EXACT TO DEGREE 1)"


def test_a_verdict_names_parameters_and_the_distribution() -> None:
    verdict = verify("ST", quadratic(), normal(6), distribution=three_of)
    told = verdict.explain()
    assert "quadratic of KSubset(logits: [6], k=3)" in told
    assert "largest at parameter [" in told
    assert "all 20 states x enumerated; the gradient by two routes that agree" in told
    row = verdict.row()
    assert row["N"] is None is row["C"]
    assert verdict.bias.shape == (6,)


# ---- monomials ----------------------------------------------------------------------------------


@every_structure
@pytest.mark.few(2)
def test_every_monomial_up_to_the_degree_of_a_rule(name: str) -> None:
    distribution, logits = STRUCTURES[name]
    shape = distribution(logits).event_shape
    on = Structured(RandomFunction("linear", shape), logits, distribution)
    for estimator, degree in {"ST": 1, "ZGR": 2, "DARN": 1}.items():
        check = monomial_check(gradlab.parse(estimator), on)
        assert check.degree == degree
        assert all(v < 1e-12 for v in check.violations[: degree + 1])
        assert check.violations[degree + 1] > 1e-2
    assert check.counts[:3] == (1, shape.numel(), math.comb(shape.numel() + 1, 2))


def test_a_monomial_is_what_it_says() -> None:
    # One monomial by the long way: x_0 x_1^2 of a subset.
    logits = normal(6)
    on = Structured(lambda x: x[..., 0] * x[..., 1] ** 2, logits, three_of)
    bias = on.moments(gradlab.ZGR()).mean - on.gradient
    check = monomial_check(gradlab.ZGR(), on)
    assert float(bias.norm()) > 0
    assert check.violations[3] >= float(bias.norm()) / 2
