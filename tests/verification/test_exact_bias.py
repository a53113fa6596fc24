"""The exact bias: what is zero, what is not, and that rounding is never called a bias."""

import dataclasses
import itertools
import math

import pytest
import torch

from cases import LADDER, logits_of, loss_of
from gradlab.categorical import one_hot, probabilities
from gradlab.estimators import (
    ARSM,
    DARN,
    STZGR,
    ZGR,
    DoubleCV,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    SampledValueEstimator,
    StraightThrough,
)
from gradlab.exact import routes, tuples
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.loss import BatchDependentError, StatefulLossError, evaluate
from gradlab.problems import REGIMES, problem, regime
from gradlab.verification.exact_bias import TruthError, exact_bias

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

SIZES = [(1, 4), (2, 3), (3, 2)]
POLYNOMIALS = [name for name in LADDER if name != "constant"]
GUMBEL = [GumbelSoftmaxST(0.5), GumbelRao(0.5, 3), GumbelRao(0.1, None)]
SCORE = [Reinforce(), Reinforce(3.0), LeaveOneOut(2), LeaveOneOut(3), LeaveOneOut(4)]
DECIDED: dict[tuple, Enumeration] = {}


def found(estimator, name, size, logits, seed=0):
    """Return the exact bias on a problem that all estimators share."""
    key = (name, size, logits, seed)
    if key not in DECIDED:
        DECIDED[key] = Enumeration(problem(name, *size, seed), regime(logits, *size, seed))
    on = DECIDED[key]
    return exact_bias(estimator, on)


def everywhere(test):
    for argument, values in (("size", SIZES), ("logits", REGIMES), ("seed", range(2))):
        test = pytest.mark.parametrize(argument, values, ids=str)(test)
    return test


# ---- straight-through -------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("name", ["quadratic", "multiquadratic"])
@pytest.mark.few(16)
def test_zgr_is_exact_on_quadratics(name, size, logits, seed):
    assert found(ZGR(), name, size, logits, seed).is_zero
    assert found(STZGR(1.0), name, size, logits, seed).is_zero


@everywhere
def test_zgr_is_not_exact_on_cubics(size, logits, seed):
    assert not found(ZGR(), "cubic", size, logits, seed).is_zero


@everywhere
@pytest.mark.parametrize("estimator", [StraightThrough(), DARN(), STZGR(0.5)], ids=str)
@pytest.mark.few(8)
def test_st_and_darn_are_exact_on_linear_and_multilinear_only(estimator, size, logits, seed):
    assert found(estimator, "linear", size, logits, seed).is_zero
    assert found(estimator, "multilinear", size, logits, seed).is_zero
    # At p = 1/2 ST of two classes is exact for every quadratic.
    if not (logits == "uniform" and size[1] == 2):
        assert not found(estimator, "quadratic", size, logits, seed).is_zero


@everywhere
@pytest.mark.parametrize("name", ["quadratic", "multiquadratic"])
@pytest.mark.few(12)
def test_biases_of_st_and_darn_are_opposite(name, size, logits, seed):
    st, darn = (found(e, name, size, logits, seed) for e in (StraightThrough(), DARN()))
    assert (st.bias + darn.bias).norm() <= st.bound + darn.bound


# ---- Gumbel family ----------------------------------------------------------------------------


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("estimator", GUMBEL, ids=str)
def test_the_gumbel_family_is_exact_for_constants_only(estimator, size, logits):
    assert found(estimator, "constant", size, logits).is_zero
    assert not found(estimator, "linear", size, logits).is_zero


def test_a_bias_below_the_accuracy_of_the_tables_is_not_seen():
    f, logits = loss_of("linear"), logits_of("moderate")
    result = exact_bias(GumbelRao(1e-6, None), f, logits)
    length = float(Enumeration(f, logits).gradients.mean[:, 0].norm())
    assert result.bound == pytest.approx(1e-10 * 3 * length, rel=0.01)
    assert result.is_zero


def test_a_sure_variable_has_nothing_to_be_biased_in():
    logits = torch.tensor([[0.0, -math.inf, -math.inf], [-math.inf, 2.0, -math.inf]]).double()
    for estimator in (*GUMBEL, StraightThrough(), DARN(), ZGR(), *SCORE):
        assert exact_bias(estimator, loss_of("cubic"), logits).is_zero


# ---- score function ---------------------------------------------------------------------------


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", ["quadratic", "cubic", "table"])
@pytest.mark.parametrize("estimator", SCORE, ids=str)
@pytest.mark.few(24)
def test_score_functions_are_exact_for_every_loss(estimator, name, logits):
    result = found(estimator, name, (2, 3), logits)
    assert result.is_zero
    assert result.size < 1e-13
    tuples = "every x" if estimator.samples == 1 else f"every {estimator.samples}-tuple of x"
    assert result.route == f"{tuples} enumerated"


@dataclasses.dataclass(frozen=True, repr=False)
class DividedByAll(LeaveOneOut):
    """RF(m) that subtracts the mean of all m values and forgets m / (m - 1)."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        return value, estimate * (self.m - 1) / self.m


@pytest.mark.parametrize("name", ["linear", "mlp", "table"])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_a_forgotten_factor_is_found_exactly(m, name):
    result = found(DividedByAll(m), name, (2, 3), "moderate")
    assert not result.is_zero
    assert (result.mean - result.truth * (m - 1) / m).norm() <= result.bound


class Declared(Reinforce):
    """REINFORCE whose draws are twice too large, which its inherited variance does not know."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        return value, 2 * estimate


def test_nothing_is_taken_from_what_is_declared():
    f, logits = loss_of("table"), logits_of("moderate")
    truth = exact_gradient(f, logits)
    torch.testing.assert_close(exact_moments(Declared(), f, logits).mean, 2 * truth)
    result = exact_bias(Declared(), f, logits)
    torch.testing.assert_close(result.mean, 2 * truth, rtol=0, atol=1e-14)
    assert result.size == pytest.approx(float(truth.norm()), rel=1e-12)


class Recorder(SampledValueEstimator):
    """Keeps the tuples of classes it is given."""

    name, reference = "RECORDER", "none"
    samples = 2

    def __init__(self):
        self.seen = []

    def estimate_at(self, f, logits, classes):
        self.seen.append(classes)
        p = probabilities(logits)
        return f(one_hot(classes[0], p)), one_hot(classes[1], p)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_every_tuple_is_visited_once(chunk, monkeypatch):
    monkeypatch.setattr(tuples, "_CHUNK", chunk)
    logits = torch.tensor([[0.0, -math.inf, 1.0], [0.5, 0.0, 2.0]]).double()
    recorder, f = Recorder(), loss_of("linear")
    mean, _ = tuples.tuple_moments(recorder, f, logits)
    assert max(c.shape[1] for c in recorder.seen) <= chunk
    visited = torch.cat(recorder.seen, 1).movedim(1, 0).flatten(1).tolist()
    states = list(itertools.product([0, 2], [0, 1, 2]))
    assert sorted(map(tuple, visited)) == sorted(a + b for a in states for b in states)
    torch.testing.assert_close(mean, probabilities(logits), rtol=0, atol=1e-15)


def test_chunks_of_large_samples_are_small(monkeypatch):
    monkeypatch.setattr(tuples, "_CHUNK_ELEMENTS", 60)
    recorder = Recorder()
    tuples.tuple_moments(recorder, loss_of("linear"), logits_of("moderate"))
    assert {c.shape[1] for c in recorder.seen} <= {60 // (2 * 6), 1}


# ---- rounding ---------------------------------------------------------------------------------

EXACT_ON_QUADRATICS = [ZGR(), *SCORE]


@pytest.mark.parametrize("offset", [1e6, -1e12])
@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("estimator", EXACT_ON_QUADRATICS, ids=str)
@pytest.mark.few(12)
def test_a_large_offset_is_no_bias(estimator, logits, offset):
    f = problem("quadratic", 2, 3, 0)
    assert exact_bias(estimator, lambda x: f(x) + offset, regime(logits, 2, 3, 0)).is_zero


@pytest.mark.parametrize("offset", [1e6, 1e12])
@pytest.mark.parametrize(
    "estimator", [StraightThrough(), DARN(), ZGR(), STZGR(1e5), *GUMBEL], ids=str
)
def test_a_large_gradient_that_cancels_is_no_bias(estimator, offset):
    def f(x):  # 0 for every one-hot x
        return offset * (x.sum((-2, -1)) - x.shape[-2])

    assert exact_bias(estimator, f, logits_of("moderate")).is_zero


@pytest.mark.parametrize("estimator", [StraightThrough(), DARN(), ZGR(), *SCORE], ids=str)
def test_a_loss_in_single_precision_is_judged_by_its_own_rounding(estimator):
    f = problem("linear", 2, 3, 0)
    result = exact_bias(estimator, lambda x: f(x.float()), logits_of("moderate"))
    assert result.is_zero
    assert 1e-7 < result.bound / result.truth.norm() < 1e-4


def test_a_bias_beyond_single_precision_is_still_found():
    f = problem("quadratic", 2, 3, 0)
    result = exact_bias(StraightThrough(), lambda x: f(x.float()), logits_of("moderate"))
    assert not result.is_zero


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("estimator", [StraightThrough(), ZGR(), GumbelSoftmaxST(0.5), *SCORE])
def test_the_smallest_models(estimator, size):
    f, logits = problem("quadratic", *size, 0), regime("moderate", *size, 0)
    exact = size[1] == 1 or not isinstance(estimator, StraightThrough | GumbelSoftmaxST)
    assert exact_bias(estimator, f, logits).is_zero == exact


@pytest.mark.parametrize("estimator", [ZGR(), Reinforce(1.0)], ids=str)
def test_many_configurations_stay_below_the_bound(estimator):
    f, logits = problem("quadratic", 7, 4, 0), regime("moderate", 7, 4, 0)
    result = exact_bias(estimator, f, logits)
    assert result.is_zero
    assert result.bound < 1e-11 * result.truth.norm()


@pytest.mark.parametrize("estimator", [StraightThrough(), LeaveOneOut(2), GumbelRao(0.5, None)])
def test_a_scale_of_f_scales_all(estimator):
    f, logits = problem("quadratic", 2, 3, 0), logits_of("moderate")
    one, large = (exact_bias(estimator, lambda x, s=s: s * f(x), logits) for s in (1.0, 2.0**40))
    torch.testing.assert_close(large.mean, one.mean * 2.0**40, rtol=1e-12, atol=0)
    assert large.bound == pytest.approx(one.bound * 2.0**40, rel=1e-12)
    assert large.is_zero == one.is_zero


# ---- the result, and faults -------------------------------------------------------------------


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", [*POLYNOMIALS, "mlp"])
@pytest.mark.parametrize("estimator", [StraightThrough(), DARN(), ZGR(), GumbelRao(0.5, None)])
@pytest.mark.few(24)
def test_agrees_with_exact_moments(estimator, name, logits):
    result, on = found(estimator, name, (2, 3), logits), DECIDED[name, (2, 3), logits, 0]
    torch.testing.assert_close(result.mean, on.moments(estimator).mean, rtol=0, atol=0)
    torch.testing.assert_close(result.truth, exact_gradient(on.f, on.logits), rtol=0, atol=1e-15)
    torch.testing.assert_close(result.bias, result.mean - result.truth)
    assert result.size == float(result.bias.norm())
    by_tables = isinstance(estimator, GumbelRao)
    assert result.route == "every x enumerated" + (", quadrature given x" if by_tables else "")


@pytest.mark.parametrize("estimator", [ZGR(), GumbelSoftmaxST(0.5), *SCORE], ids=str)
def test_the_deviation_is_that_of_the_formula(estimator):
    result, on = (
        found(estimator, "cubic", (2, 3), "moderate"),
        DECIDED["cubic", (2, 3), "moderate", 0],
    )
    variance = on.moments(estimator).variance.value
    assert result.deviation == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_an_enumeration_is_used_again():
    calls = []
    f, logits = problem("quadratic", 2, 3, 0), logits_of("moderate")

    def counted(x):
        calls.append(len(x))
        return f(x)

    on = Enumeration(counted, logits)
    exact_bias(ZGR(), on)
    first = len(calls)
    exact_bias(StraightThrough(), on)
    assert len(calls) - first < first


@pytest.mark.parametrize("estimator", [GumbelSoftmax(), ARSM()], ids=str)
def test_without_an_exact_mean_draws_are_named(estimator):
    with pytest.raises(NotExactError, match=r"known for (GS|ARSM).*; use"):
        exact_bias(estimator, loss_of("quadratic"), logits_of("moderate"))


@pytest.mark.parametrize(
    ("m", "size", "digits"), [(11, (1, 4), "6.6"), (4, (4, 4), "9.6"), (2, (9000, 4), "10837.1")]
)
def test_too_many_tuples_are_counted(m, size, digits):
    with pytest.raises(
        NotExactError, match=rf"RF\(m={m}\) takes {m} .* 10\^{digits} tuples.*draws"
    ):
        exact_bias(LeaveOneOut(m), lambda x: x.sum((-2, -1)), torch.zeros(size))


@pytest.mark.thorough  # test_too_many_tuples_are_counted
def test_the_limit_of_tuples_is_reached():
    logits = torch.zeros(1, 4, dtype=torch.float64)
    assert exact_bias(LeaveOneOut(10), loss_of("table", 1, 4), logits).is_zero


def test_a_loss_that_changes_is_refused():
    noise = torch.Generator().manual_seed(0)

    def f(x):
        return x.sum((-2, -1)) + torch.randn(x.shape[:-2], generator=noise, dtype=x.dtype)

    with pytest.raises(StatefulLossError, match="a generator of its own"):
        exact_bias(Reinforce(), f, logits_of("moderate"))


def test_a_loss_that_normalizes_over_its_batch_is_refused():
    inner = loss_of("quadratic")

    def f(x):
        values = evaluate(inner, x)
        return values - values.mean() if values.ndim else values

    with pytest.raises(BatchDependentError, match="a function of each x alone"):
        exact_bias(ZGR(), f, logits_of("moderate"))


def test_routes_that_disagree_are_refused(monkeypatch):
    monkeypatch.setattr(routes, "log_probabilities", lambda t: torch.log_softmax(1.001 * t, -1))
    with pytest.raises(TruthError, match="more than rounding"):
        exact_bias(ZGR(), loss_of("quadratic"), logits_of("moderate"))


class AtRelaxed(LeaveOneOut):
    """RF(2) that also looks at f between its samples, and gives that its mean zero."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        between = f(one_hot(classes, probabilities(logits)).mean(0))
        x = one_hot(classes, probabilities(logits))
        return value, estimate + between[:, None, None] * (x[0] - x[1])


@pytest.mark.parametrize("estimator", [AtRelaxed(2), LeaveOneOut(3), DoubleCV(2, 0.4)], ids=str)
def test_f_is_evaluated_once_at_each_configuration(estimator):
    f, logits = loss_of("mlp"), logits_of("moderate")
    seen = []

    def counting(x):
        seen.append(x.detach())
        return f(x)

    mean, square = tuples.tuple_moments(estimator, counting, logits)
    torch.testing.assert_close(mean, exact_gradient(f, logits), rtol=0, atol=1e-13)
    assert (square > 0).all()
    at_states = [len(x) for x in seen if ((x == 0) | (x == 1)).all()]
    # Once for values, once more for gradients.
    assert sum(at_states) == 9 * (2 if estimator.needs_gradient else 1)
    assert (len(seen) > len(at_states)) == isinstance(estimator, AtRelaxed)
