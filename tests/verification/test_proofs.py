"""Verdicts by enumeration: a proof needs a bias within rounding, and rounding below delta."""

import dataclasses
import math

import pytest
import torch

from gradlab.estimators import ZGR, GumbelRao, LeaveOneOut, Reinforce, StraightThrough
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.problems import problem, regime
from gradlab.user_code.under_test import draws_of
from gradlab.verification.exact_bias import ExactBias
from gradlab.verification.proofs import (
    by_enumeration,
    enumerated_bias,
    exact_against,
    other_target,
    target_rounding,
)
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, UNBIASED

pytestmark = pytest.mark.usefixtures("unchecked")

SIZE = (3, 3)
LOGITS = regime("moderate", *SIZE, 0)
QUADRATIC = problem("quadratic", *SIZE, 0)


def asked(estimator, on, delta=0.05):
    return Question(
        draws_of(estimator), on.objective, on.logits, on.logits, "f", True, delta, 1e-3, 0
    )


def verdict_on(estimator, f, logits=LOGITS, delta=0.05):
    on = EnumeratedBatch(f, logits) if logits.ndim == 3 else Enumeration(f, logits)
    return by_enumeration(asked(estimator, on, delta), enumerated_bias(estimator, on))


@dataclasses.dataclass(frozen=True, repr=False)
class WrongSign(LeaveOneOut):
    """RF(m) with the sign turned."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        return value, -estimate


def in_single(offset, scale=1.0):
    return lambda x: scale * QUADRATIC(x.float()) + offset


def test_a_wrong_sign_in_float32_around_5000_is_biased():
    verdict = verdict_on(WrongSign(2), in_single(5000.0))
    assert verdict.outcome == BIASED
    assert verdict.relative_bias.value == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("offset", [0.0, 300.0, 5000.0])
@pytest.mark.parametrize("estimator", [LeaveOneOut(2), Reinforce(), ZGR()], ids=str)
def test_a_right_one_is_proved(estimator, offset):
    verdict = verdict_on(estimator, in_single(offset))
    assert verdict.outcome == UNBIASED
    assert verdict.limit <= 0.05 * verdict.unit[0]
    assert not verdict.reason


SINGLE, DOUBLE = "use float64, or centre f", "centre f"
LOST = {
    "float32, scaled down": (in_single(5000.0, 1e-2), SINGLE),
    "float32, far away": (in_single(1e6), SINGLE),
    "float64, far away": (lambda x: QUADRATIC(x) + 1e15, DOUBLE),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("estimator", [LeaveOneOut(2), Reinforce(), ZGR()], ids=str)
def test_rounding_above_delta_proves_nothing(estimator, name):
    f, way = LOST[name]
    verdict = verdict_on(estimator, f)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.method == "exact"
    assert verdict.reason.startswith("rounding alone may change the mean by ")
    assert verdict.reason.endswith(f"0.05 that is asked for; {way} (subtract its mean)")
    assert verdict.limit > 0.05 * verdict.unit[0]


def test_float64_alone_helps_where_no_offset_is_to_be_taken_out():
    """Without an offset, but with a gradient that nearly cancels."""
    logits = torch.zeros(4, 2, dtype=torch.float64)

    def f(x):
        odd = 1 - 2 * (x[..., 0].sum(-1) % 2)
        return (odd + 1e-6 * x[..., 0, 0]).float() * 1.1

    verdict = verdict_on(LeaveOneOut(2), f, logits)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.reason.endswith("that is asked for; use float64")


def test_delta_decides_what_is_resolved():
    f = in_single(5000.0)
    assert verdict_on(LeaveOneOut(2), f, delta=0.05).outcome == UNBIASED
    assert verdict_on(LeaveOneOut(2), f, delta=1e-5).outcome == INCONCLUSIVE


def test_a_bias_above_rounding_is_one_even_if_rounding_is_above_delta():
    assert verdict_on(WrongSign(2), in_single(5000.0), delta=1e-5).outcome == BIASED


ZERO = {
    "constant": (lambda x: x.sum((-2, -1)) * 0 + 5000, LOGITS),
    "constant in float32": (lambda x: x.float().sum((-2, -1)) * 0 + 0.1, LOGITS.float()),
    "symmetric": (lambda x: x[..., 0].sum(-1) % 2, torch.zeros(4, 2).double()),
    "symmetric, with rounding": (
        lambda x: torch.sin(1 + x[..., 0].sum(-1) % 2) ** 3,
        torch.zeros(3, 2).double(),
    ),
    "symmetric in float32": (lambda x: x[..., 0].float().sum(-1) % 2, torch.zeros(4, 2)),
    "symmetric around 5,000": (lambda x: x[..., 0].float().sum(-1) % 2 + 5000, torch.zeros(4, 2)),
    "sure": (lambda x: QUADRATIC(x), torch.tensor([[0.0, -math.inf, -math.inf]] * 3).double()),
}


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("estimator", [LeaveOneOut(2), Reinforce()], ids=str)
def test_a_gradient_of_zero_is_proved_too(estimator, name):
    verdict = verdict_on(estimator, *ZERO[name])
    assert verdict.outcome == UNBIASED, verdict.reason
    assert verdict.unit[1] != "|g|"
    assert str(verdict).find("nan") == -1


@dataclasses.dataclass(frozen=True, repr=False)
class Shifted(Reinforce):
    """REINFORCE whose draws have a constant added."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        away = torch.zeros_like(logits)
        away[..., 0, 0] = 1e-3
        return value, estimate + away


@pytest.mark.parametrize("name", ["constant in float32", "symmetric", "symmetric in float32"])
def test_a_bias_beside_a_gradient_of_zero_is_one(name):
    assert verdict_on(Shifted(), *ZERO[name]).outcome == BIASED


def test_a_batch_has_the_bounds_of_its_elements():
    logits = torch.stack([LOGITS, regime("moderate", *SIZE, 1)])
    on = EnumeratedBatch(in_single(5000.0), logits)
    each = [enumerated_bias(LeaveOneOut(2), element) for element in on.elements]
    whole = enumerated_bias(LeaveOneOut(2), on)
    assert whole.bound == pytest.approx(math.hypot(*(e.bound for e in each)))
    assert whole.eps == torch.finfo(torch.float32).eps
    assert whole.has_gradient
    assert verdict_on(LeaveOneOut(2), in_single(5000.0), logits).outcome == UNBIASED
    assert verdict_on(LeaveOneOut(2), in_single(5e6), logits).outcome == INCONCLUSIVE


# ---- another target ---------------------------------------------------------------------------


def test_a_target_is_known_to_its_dtype():
    on = Enumeration(QUADRATIC, LOGITS)
    mean = enumerated_bias(StraightThrough(), on).mean
    given = mean.float()
    rounding = target_rounding(given, on)
    assert rounding == pytest.approx(2**-23 * float(mean.norm()), rel=1e-6)
    target, _ = other_target(given, on)
    question = asked(StraightThrough(), on)
    found = exact_against(question, target, on, "exact", "draw", rounding)
    assert found is not None
    assert found.outcome == UNBIASED
    alone = exact_against(question, target, on, "exact", "draw")
    assert alone is not None
    assert alone.outcome == BIASED  # at the accuracy of float64, which the tensor does not have


def test_the_mean_of_another_estimator_has_its_own_bound():
    on = Enumeration(lambda x: QUADRATIC(x) + 1e6, LOGITS)
    other = draws_of(Reinforce())
    assert target_rounding(other, on) == enumerated_bias(Reinforce(), on).bound
    # Draws of no known mean are compared by draws.
    assert target_rounding(draws_of("GS(tau=0.5)"), on) == 0.0


@pytest.mark.parametrize(
    ("other", "outcome"), [(GumbelRao(0.5, 4), UNBIASED), (StraightThrough(), BIASED)], ids=str
)
def test_two_means_are_compared_within_both_bounds(other, outcome):
    on = Enumeration(QUADRATIC, LOGITS)
    target, _ = other_target(draws_of(other), on)
    rounding = target_rounding(draws_of(other), on)
    question = asked(GumbelRao(0.5, None), on)
    found = exact_against(question, target, on, "exact", "draw", rounding)
    assert found is not None
    assert found.outcome == outcome
    own = enumerated_bias(GumbelRao(0.5, None), on).bound
    assert found.limit == pytest.approx(own + rounding)


def test_a_table_of_quadrature_that_is_too_coarse_is_not_blamed_on_dtype_or_offset():
    """Nothing of f would help: no way out is named."""
    truth = 1e-12 * torch.ones(2, 2, dtype=torch.float64)
    exact = ExactBias(truth, truth, 1.0, 1e-10, "quadrature", 1e-18, size_of_f=1, spread_of_f=1)
    on = Enumeration(QUADRATIC, LOGITS)
    verdict = by_enumeration(asked(GumbelRao(0.5, None), on), exact)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.reason.endswith("that is asked for")
