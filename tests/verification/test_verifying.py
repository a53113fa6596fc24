"""Verdicts: what is proved, what is tested by draws, and what neither says."""

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import gradlab
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import NotExactError
from gradlab.loss import LossError
from gradlab.problems import problem, regime
from gradlab.testing import assert_exact_to_degree, assert_unbiased
from gradlab.user_code.under_test import EstimatorError
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED
from gradlab.verification.verifying import verify

pytestmark = pytest.mark.usefixtures("unchecked")

ALPHA = 1e-8  # of one trial: all trials here together stay below the familywise rate


def case(kind: str = "quadratic", N: int = 2, C: int = 3, name: str = "moderate") -> tuple:
    return problem(kind, N, C, 3), regime(name, N, C, 3)


def rloo(f, logits, n, generator):
    p = probabilities(logits)
    a, b = draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)
    return (f(a) - f(b))[:, None, None] * (a - b) / 2


def scaled(factor: float):
    def draw(f, logits, n, generator):
        return factor * rloo(f, logits, n, generator)

    return draw


# ---- proved -----------------------------------------------------------------------------------

SIZES = [(1, 2), (1, 7), (2, 3), (3, 2), (5, 3), (8, 2)]


@pytest.mark.parametrize("name", ["uniform", "moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["quadratic", "multiquadratic"])
@pytest.mark.few(16)
def test_zgr_is_proved_on_quadratics_of_any_size(kind, size, name):
    verdict = verify("ZGR", *case(kind, *size, name))
    assert verdict.outcome == UNBIASED
    assert verdict.method == "exact"
    assert verdict.claimed
    assert "proved" in str(verdict)


@pytest.mark.parametrize("size", [(2, 3), (3, 2), (4, 3)], ids=str)
@pytest.mark.parametrize(
    ("code", "kind"), [("ZGR", "cubic"), ("ST", "quadratic"), ("DARN", "multiquadratic")]
)
def test_beyond_its_degree_a_rule_is_proved_biased(code, kind, size):
    verdict = verify(code, *case(kind, *size))
    assert verdict.outcome == BIASED
    assert verdict.claimed is False
    assert verdict.holds
    assert not verdict.unbiased
    assert verdict.relative_bias > 1e-3
    assert verdict.relative_bias.se == 0


@pytest.mark.parametrize("kind", ["linear", "cubic", "mlp", "table", "norm:1.5"])
@pytest.mark.parametrize("code", ["REINFORCE(baseline=0.7)", "RF(m=2)", "RF(m=4)"])
def test_score_functions_are_proved_on_every_loss(code, kind):
    verdict = verify(code, *case(kind), method="exact")
    assert verdict.outcome == UNBIASED
    assert verdict.holds


def test_an_offset_of_f_is_no_bias():
    f, logits = case()
    verdict = verify("RF(m=2)", lambda x: 1e7 + f(x), logits, method="exact")
    assert verdict.outcome == UNBIASED


@dataclasses.dataclass(frozen=True, repr=False)
class Doubled(gradlab.SampleOnlyEstimator):
    """ZGR whose 1/2 was dropped."""

    name = "DOUBLED"
    order = 2
    reference = "none"

    def pullback(self, p, x, v):
        return 2 * gradlab.ZGR().pullback(p, x, v)


def test_a_wrong_factor_is_named_and_the_claim_fails():
    verdict = verify(Doubled(), *case())
    assert verdict.outcome == BIASED
    assert verdict.factor == 2
    assert not verdict.holds
    assert "a factor 1/2 is dropped" in " ".join(verdict.explain().split())
    assert verdict.slope == pytest.approx(2, abs=1e-12)


@dataclasses.dataclass(frozen=True, repr=False)
class OtherDraws(gradlab.SampleOnlyEstimator):
    """The formula of ZGR, but draws of another rule."""

    name = "OTHER"
    order = 2
    reference = "none"

    def pullback(self, p, x, v):
        return gradlab.ZGR().pullback(p, x, v)

    def draw(self, f, logits, n, generator=None):
        return gradlab.StraightThrough().draw(f, logits, n, generator)


def test_draws_that_contradict_the_formula_are_judged_themselves():
    verdict = verify(OtherDraws(), *case())
    assert verdict.method == "monte carlo"
    assert verdict.outcome == BIASED
    assert "OtherDraws.draw replaces" in " ".join(verdict.explain().split())
    with pytest.raises(NotExactError, match=r"OtherDraws\.draw replaces"):
        verify(OtherDraws(), *case(), method="exact")


def test_what_cannot_be_used_is_told():
    verdict = verify("ZGR", *case("table"))
    assert verdict.outcome == NOT_APPLICABLE
    assert "not differentiable" in verdict.reason
    assert verdict.holds
    assert not verdict.unbiased


# ---- tested by draws --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quadratic", "mlp", "table"])
@pytest.mark.few(1)
def test_arsm_is_shown_unbiased_within_delta(kind):
    verdict = verify("ARSM", *case(kind), alpha=ALPHA)
    assert verdict.outcome == UNBIASED
    assert verdict.method == "monte carlo"
    assert verdict.limit <= verdict.delta * verdict.unit[0]
    assert abs(verdict.bias2 / verdict.bias2.se) < 8
    assert "within 0.05" in str(verdict)


@pytest.mark.parametrize(
    ("factor", "named"),
    [(0.5, Fraction(1, 2)), (0.75, Fraction(3, 4)), (-1.0, Fraction(-1))],
)
@pytest.mark.few(1)
def test_a_wrong_factor_is_found_by_draws(factor, named):
    verdict = verify(scaled(factor), *case(), draws=2**18, alpha=ALPHA)
    assert verdict.outcome == BIASED
    assert verdict.slope == pytest.approx(factor, abs=8 * max(verdict.slope.se, 1e-12))
    assert verdict.factor == named


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("code", ["GS-ST(tau={tau})", "GR(tau={tau}, k=10)"])
@pytest.mark.few(1, "GS-ST(tau={tau})-1.0")
def test_the_gumbel_family_shares_one_mean(code, tau):
    options = {"alpha": ALPHA, "delta": 0.1, "method": "monte-carlo"}
    against = f"GR(tau={tau}, k=inf)"
    assert verify(code.format(tau=tau), *case(), against=against, **options).unbiased
    warmer = f"GR(tau={1.5 * tau + 0.5}, k=inf)"
    assert verify(code.format(tau=tau), *case(), against=warmer, **options).outcome == BIASED


@pytest.mark.thorough  # tests/user_code/test_under_test.py has this form
def test_code_without_generator_is_judged_as_it_stands():
    state = torch.get_rng_state()
    straight_through = lambda logits: F.gumbel_softmax(logits, tau=0.5, hard=True)  # noqa: E731
    verdict = verify(straight_through, *case(), against="GS-ST(tau=0.5)", alpha=ALPHA, delta=0.1)
    assert verdict.unbiased
    assert torch.equal(state, torch.get_rng_state())


def test_two_sets_of_draws_are_compared_where_f_cannot_be_enumerated():
    f, logits = case("quadratic", 14, 4)
    good = verify("RF(m=2)", f, logits, delta=0.3, alpha=ALPHA)
    assert good.outcome == UNBIASED
    assert "RF(m=4)" in good.explain()
    assert verify("GS-ST(tau=2)", f, logits, delta=0.3, alpha=ALPHA).outcome == BIASED
    with pytest.raises(TooLargeError, match="configurations"):
        verify("RF(m=2)", f, logits, method="exact")


def test_few_draws_do_not_prove_anything():
    verdict = verify("RF(m=2)", *case("mlp"), method="monte-carlo", max_draws=8192, delta=0.01)
    assert verdict.outcome == INCONCLUSIVE
    assert not verdict.unbiased
    assert not verdict.holds
    assert verdict.draws == 8192
    assert "may hide" in str(verdict)
    assert f"About {verdict.needed:,} draws" in verdict.explain()
    enough = verify(
        "RF(m=2)", *case("mlp"), method="monte-carlo", max_draws=8 * verdict.needed, delta=0.01
    )
    assert enough.unbiased
    assert 0.25 < enough.draws / verdict.needed < 4


def test_classes_too_rare_to_be_met_are_not_sold_as_tested():
    logits = torch.tensor([[0.0, 14.0, 0.0], [0.0, 0.0, 14.0]], dtype=torch.float64)
    verdict = verify("RF(m=2)", case()[0], logits, method="monte-carlo", max_draws=2**14)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.set_aside == 6
    assert "too rare" in verdict.explain()
    assert verify("RF(m=2)", case()[0], logits).unbiased


def test_masked_classes_are_no_obstacle():
    verdict = verify("RF(m=2)", *case(name="masked"), method="monte-carlo", alpha=ALPHA, delta=0.1)
    assert verdict.outcome == UNBIASED


@pytest.mark.parametrize("code", ["ST", "ZGR", "GS(tau=0.5)", "ARSM"])
def test_draws_that_all_are_the_gradient(code):
    verdict = verify(code, *case("constant"), method="monte-carlo")
    assert verdict.outcome == UNBIASED
    assert verdict.deviation < 1e-12
    assert "each of" in str(verdict)


def test_a_fixed_rule_without_noise_that_is_wrong_is_caught():
    def constant(f, logits, n, generator):
        return gradlab.exact_gradient(f, logits).expand(n, *logits.shape) + 1e-6

    verdict = verify(constant, *case())
    assert verdict.outcome == BIASED
    assert verdict.constant
    assert verdict.log_e_value < math.inf
    assert "No random number is drawn" in verdict.explain()


@pytest.mark.thorough  # test_cli_verify.py: the same rows
def test_the_same_seed_gives_the_same_verdict():
    options = {"method": "monte-carlo", "seed": 5}
    first, second = (verify("RF(m=2)", *case(), **options).row() for _ in range(2))
    assert first == second
    assert verify("RF(m=2)", *case(), method="monte-carlo", seed=6).row() != first


def test_draws_fixed_before_are_judged_by_hotelling():
    right = verify("RF(m=2)", *case(), method="monte-carlo", draws=50_000, alpha=ALPHA)
    wrong = verify(scaled(0.9), *case(), draws=50_000, alpha=ALPHA)
    assert right.draws == wrong.draws == 50_000
    assert right.p_value > ALPHA > wrong.p_value
    assert wrong.outcome == BIASED


# ---- what is asserted in a user's tests -------------------------------------------------------


def test_assertions_pass_and_fail_with_the_explanation():
    assert assert_unbiased("ZGR", *case()).unbiased
    assert assert_unbiased(rloo, *case()).alpha == 1e-6
    with pytest.raises(AssertionError, match=r"multiplied by 1/2") as told:
        assert_unbiased(scaled(0.5), *case(), draws=2**16)
    assert str(told.value).startswith("draw on quadratic(N=2, C=3, seed=3): BIASED")
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        assert_unbiased(rloo, *case(), max_draws=512)
    with pytest.raises(AssertionError, match="EXACT TO DEGREE 1"):
        assert_exact_to_degree("ST", 2)


# ---- bad input --------------------------------------------------------------------------------

BAD = {
    "method": ({"method": "exacct"}, "method must be one of auto, exact, monte-carlo"),
    "delta": ({"delta": 0.0}, "delta must be a number between 0 and 1, not 0.0"),
    "alpha": ({"alpha": 1.5}, "alpha must be a number between 0 and 1"),
    "nan": ({"alpha": math.nan}, "alpha must be a number between 0 and 1"),
    "draws": ({"draws": 10}, "draws must be an int of at least 256, not 10"),
    "max_draws": ({"max_draws": 0}, "max_draws must be an int of at least 256"),
    "seed": ({"seed": -1}, "seed must be an int"),
    "against": ({"against": torch.zeros(3, 3)}, r"against must have the shape of logits \[2, 3\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        verify("ZGR", *case(), **options)


def test_bad_logits_and_losses_are_named():
    f, logits = case()
    with pytest.raises(ValueError, match="logits contain NaN"):
        verify("ZGR", f, logits * math.nan)
    with pytest.raises(LossError, match="one value for each x"):
        verify("RF(m=2)", lambda x: x.sum(), logits)
    with pytest.raises(LossError, match="must be finite"):
        verify("RF(m=2)", lambda x: f(x) / 0, logits)
    with pytest.raises(NotExactError, match="use draws"):
        verify(rloo, f, logits, method="exact")
    with pytest.raises(TypeError, match="cannot draw from int"):
        verify(3, f, logits)
    with pytest.raises(EstimatorError, match="raised ZeroDivisionError"):
        verify(lambda logits: 1 / 0, f, logits)


@pytest.mark.thorough  # the same seed gives the same verdict
def test_a_longer_trial_goes_on_with_the_same_draws():
    options = {"method": "monte-carlo", "delta": 0.001}
    long = verify(scaled(0.9), *case(), max_draws=2**19, **options)
    assert long.outcome == BIASED
    # Cut short between two looks, it has seen the same; it decides as the long one does.
    again = verify(scaled(0.9), *case(), max_draws=long.draws + 100, **options)
    assert (again.draws, again.log_e_value) == (long.draws, long.log_e_value)
    short = verify(scaled(0.9), *case(), max_draws=long.draws - 100, **options)
    assert short.draws == long.draws - 100
    assert short.log_e_value == pytest.approx(long.log_e_value, abs=1.5)


def test_the_old_word_for_draws_warns_and_does_the_same():
    options = {"max_draws": 512, "seed": 5}
    with pytest.warns(DeprecationWarning, match='method="monte-carlo"') as told:
        old = verify("RF(m=2)", *case(), method="draws", **options)
    assert [Path(warning.filename).name for warning in told] == ["test_verifying.py"]
    assert old.row() == verify("RF(m=2)", *case(), method="monte-carlo", **options).row()
    assert old.row()["method"] == "monte carlo"
