"""The check of Jacobians alone: the degree it finds, and that exact biases agree with it."""

import dataclasses

import pytest
import torch

from cases import logits_of, loss_of
from gradlab.categorical import probabilities
from gradlab.estimators import (
    ARSM,
    DARN,
    STZGR,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    Reinforce,
    SampleOnlyEstimator,
    StraightThrough,
)
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import NotExactError
from gradlab.problems import REGIMES, problem, regime
from gradlab.verification.exact_bias import exact_bias
from gradlab.verification.jacobian_conditions import static_check

SIZES = [(1, 3), (4, 5)]


@dataclasses.dataclass(frozen=True, repr=False)
class Planted(SampleOnlyEstimator):
    """ZGR times `factor`, plus at each class a fixed random matrix times `error`."""

    factor: float = 1.0
    error: float = 0.0

    name = "PLANTED"
    reference = "none"

    def pullback(self, p, x, v):
        C = p.shape[-1]
        normal = torch.randn(C, C, C, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
        wrong = torch.einsum("...k,kij,...j->...i", *torch.broadcast_tensors(x, v)[:1], normal, v)
        return self.factor * ZGR().pullback(p, x, v) + self.error * wrong


DEGREES = [
    (StraightThrough(), 1),
    (DARN(), 1),
    (STZGR(0.5), 1),
    (STZGR(1.0), 2),
    (STZGR(1e5), 1),
    (ZGR(), 2),
    (GumbelSoftmaxST(0.5), 0),
    (GumbelRao(0.5, 4), 0),
    (GumbelRao(0.1, None), 0),
    (Planted(), 2),
    (Planted(factor=2.0), 0),
    (Planted(error=1e-8), 0),
]


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("estimator", "degree"), DEGREES, ids=str)
@pytest.mark.few(3)
@pytest.mark.few(8)
def test_the_degree_is_found(estimator, degree, size, logits):
    check = static_check(estimator, regime(logits, *size, 1))
    assert check.degree == degree
    assert f"of degree {degree} in each variable" in str(check)
    # Not by chance: what is violated is so by far.
    violated = {0: check.linear, 1: check.quadratic}.get(degree, 1.0)
    assert violated > 100 * check.tolerance


@dataclasses.dataclass(frozen=True, repr=False)
class Cyclic(SampleOnlyEstimator):
    """ZGR plus w (v_{x+1} - v_{x-1}) / p_x for three classes: not symmetric, yet of degree 2.

    In p_a M(a) e_b it adds w, -w or 0, antisymmetric in a and b and of sum 0 over a.
    """

    transposed: bool = False

    name = "CYCLIC"
    reference = "none"

    def pullback(self, p, x, v):
        w = torch.tensor([0.3, -0.1, 0.7], dtype=p.dtype)
        around = (x.roll(1, -1) - x.roll(-1, -1)) / (p * x).sum(-1, keepdim=True)
        out, into = (around, w) if self.transposed else (w, around)
        return ZGR().pullback(p, x, v) + out * (into * v).sum(-1, keepdim=True)


@pytest.mark.parametrize("transposed", [False, True])
def test_rules_that_are_not_symmetric(transposed):
    f, logits, rule = loss_of("quadratic"), logits_of("moderate"), Cyclic(transposed)
    assert static_check(rule, logits).degree == (1 if transposed else 2)
    assert exact_bias(rule, f, logits).is_zero != transposed


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_st_and_darn_violate_the_second_condition_equally(size, logits):
    st, darn, half = (
        static_check(e, regime(logits, *size, 0)) for e in (StraightThrough(), DARN(), STZGR(0.5))
    )
    assert st.quadratic > 0.01
    assert darn.quadratic == pytest.approx(st.quadratic, rel=1e-9)
    assert half.quadratic == pytest.approx(st.quadratic / 2, rel=1e-9)


def test_a_dropped_half_doubles_the_jacobian():
    assert static_check(Planted(factor=2.0), logits_of("moderate", 1)).linear == pytest.approx(1.0)


def test_two_equal_classes_make_st_exact_for_quadratics():
    assert static_check(StraightThrough(), torch.zeros(3, 2)).degree == 2


def test_the_worst_variable_counts():
    logits = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert static_check(StraightThrough(), logits[:1]).degree == 2
    both, second = (static_check(StraightThrough(), part) for part in (logits, logits[1:]))
    assert both == second
    assert both.degree == 1


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", ["linear", "quadratic", "multiquadratic"])
@pytest.mark.parametrize(
    "estimator",
    [StraightThrough(), DARN(), ZGR(), GumbelRao(0.3, None), Planted(error=1e-6)],
    ids=str,
)
@pytest.mark.few(6)
def test_agrees_with_the_exact_bias(estimator, name, logits, seed):
    f, logits = problem(name, 2, 3, seed), regime(logits, 2, 3, seed)
    check, bias = static_check(estimator, logits), exact_bias(estimator, f, logits)
    assert bias.is_zero == (f.degree <= check.degree)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize(("power", "factor"), [(1, 1.0), (2, 1.0), (3, 1.5), (4, 2.0)])
def test_what_is_exact_for_squares_is_not_for_cubes(power, factor, logits):
    # Whatever rule has p_a M(a) e_a = J e_a / 2 gives power / 2 times the truth.
    logits = logits_of(logits, 1)
    a = int(logits.argmax())
    result = exact_bias(ZGR(), lambda x: x[..., 0, a] ** power, logits)
    p = probabilities(logits)[0]
    jacobian = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(result.truth[0], jacobian[a], rtol=0, atol=1e-15)
    torch.testing.assert_close(result.mean[0], factor * jacobian[a], rtol=0, atol=1e-14)


@pytest.mark.parametrize("logits", [torch.zeros(2, 1), torch.tensor([[0.0, -torch.inf]])], ids=str)
@pytest.mark.parametrize("estimator", [StraightThrough(), DARN(), ZGR(), GumbelRao(0.5, None)])
def test_a_sure_class_violates_nothing(estimator, logits):
    assert static_check(estimator, logits).degree == 2


@pytest.mark.parametrize("estimator", [GumbelSoftmax(), Reinforce(), ARSM()], ids=str)
def test_what_has_no_jacobians_is_refused(estimator):
    with pytest.raises(NotExactError, match="no Jacobians given x to check; pathwise rules"):
        static_check(estimator, logits_of("moderate"))


def test_too_many_classes_are_refused():
    with pytest.raises(TooLargeError, match="4000 classes"):
        static_check(ZGR(), torch.zeros(1, 4000))


def test_no_loss_is_needed_to_know_what_it_says():
    check = static_check(ZGR(), logits_of("moderate"))
    assert exact_bias(ZGR(), loss_of("quadratic"), logits_of("moderate")).is_zero
    assert check.linear == check.quadratic == 0.0
