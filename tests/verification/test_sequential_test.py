"""The conditions of a verdict by draws, one by one; and mutants of the trial that break a test."""

import math
from dataclasses import replace

import pytest
import scipy
import torch

import gradlab
from gradlab import exact_gradient
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss.gate import checked
from gradlab.problems import problem, regime
from gradlab.user_code.replicates import DependentDrawsError
from gradlab.user_code.under_test import draws_of
from gradlab.verification import deviation_sums, evidence, mean_test, testable_coordinates
from gradlab.verification.dependence import CallSums, Spread
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.mean_test import MeanTest
from gradlab.verification.sequential_test import trial
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, UNBIASED
from gradlab.verification.verifying import verify
from significance import P_VALUE

pytestmark = pytest.mark.usefixtures("unchecked")

F, LOGITS = problem("quadratic", 2, 3, 3), regime("moderate", 2, 3, 3)
G = exact_gradient(F, LOGITS)


def asked(code, alpha: float = 1e-3, **more) -> Question:
    objective = checked(F, LOGITS)
    return Question(draws_of(code), objective, LOGITS, LOGITS, "x", None, 0.05, alpha, 0, **more)


def rloo(f, logits, n, generator):
    p = probabilities(logits)
    a, b = draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)
    return (f(a) - f(b))[:, None, None] * (a - b) / 2


# ---- what is random, and what has varied ------------------------------------------------------


def gradient_times(factor: float, *, random: bool):
    def draw(f, logits, n, generator):
        if random:
            torch.rand(n, generator=generator)
        return factor * exact_gradient(F, LOGITS).to(logits).expand(n, *logits.shape)

    return draw


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, UNBIASED), (2.0, BIASED), (0.0, BIASED)])
@pytest.mark.few(1)
def test_one_draw_decides_where_nothing_is_random(factor, outcome):
    verdict = verify(gradient_times(factor, random=False), F, LOGITS)
    assert verdict.constant
    assert verdict.outcome == outcome
    assert verdict.draws == testable_coordinates.FEWEST or outcome == UNBIASED


@pytest.mark.thorough  # one_draw_decides_where_nothing_is_random
def test_equal_draws_of_random_code_are_evidence_against_moderate_draws_only():
    verdict = verify(gradient_times(2.0, random=True), F, LOGITS)
    assert not verdict.constant
    assert verdict.outcome == BIASED
    # (1 - r)^-n = 10/alpha, r = |bias| / (1000 |draw|) = 1/2000, and a weight of .9 / 2 or so.
    assert verdict.draws >= 2000 * math.log(1 / verdict.alpha)
    assert math.isfinite(verdict.log_e_value)


@pytest.mark.thorough  # tests/user_code/test_under_test.py
def test_code_that_returns_nothing_is_told_so():
    verdict = verify(gradient_times(0.0, random=True), F, LOGITS, max_draws=2**13)
    assert verdict.outcome == INCONCLUSIVE
    assert "every draw is 0" in str(verdict)
    assert verdict.log_e_value < 0.1


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4])
@pytest.mark.few(1)
def test_a_correct_code_of_rare_draws_is_not_accused(rate):
    def lottery(f, logits, n, generator):
        met = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) < rate
        return G / rate * met

    assert verify(lottery, F, LOGITS, alpha=1e-6, max_draws=2**14).outcome != BIASED


@pytest.mark.thorough  # test_planted_errors.py has a dropped gradient
def test_a_variable_that_gets_no_gradient_is_found():
    def first_only(f, logits, n, generator):
        g = rloo(f, logits, n, generator)
        g[:, 1] = 0
        return g

    verdict = verify(first_only, F, LOGITS)
    assert verdict.outcome == BIASED


def test_sums_over_classes_are_found_before_classes_are_met():
    rare = torch.tensor([[0.6, 0.399, 0.001], [0.5, 0.499, 0.001]]).double().log()

    def uncentred(f, logits, n, generator):  # x instead of x - p
        x = draw_one_hot(probabilities(logits), generator, n)
        return f(x)[:, None, None] * x

    f = problem("quadratic", 2, 3, 3)
    verdict = verify(uncentred, lambda x: 1 + f(x) ** 2, rare, alpha=1e-6)
    assert verdict.outcome == BIASED
    assert verdict.draws <= 2048


# ---- rare states, skew, rounding --------------------------------------------------------------


def sparse(x):
    return x[..., 0].prod(-1)


def test_a_bias_waits_for_the_states_that_carry_the_gradient():
    logits = torch.zeros(5, 4, dtype=torch.float64)
    verdict = verify("RF(m=4)", sparse, logits, method="monte-carlo", max_draws=2**12)
    assert verdict.outcome == INCONCLUSIVE
    assert "states that carry the gradient are rare" in str(verdict)
    assert verdict.needed >= 15 * 4**5


def test_a_proof_is_not_overruled_by_draws_that_met_nothing():
    class Mine(gradlab.Reinforce):  # what is put to every x is written anew
        name = "MINE"

        def estimate_at(self, f, logits, classes):
            return super().estimate_at(f, logits, classes)

    logits = torch.zeros(6, 4, dtype=torch.float64)
    verdict = verify(Mine(), sparse, logits)
    assert verdict.method == "exact"
    assert verdict.outcome == UNBIASED


def test_one_long_draw_keeps_a_verdict_back():
    def heavy(f, logits, n, generator):
        u = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64)
        sign = torch.sign(torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) - 0.5)
        return G + 0.2 * sign * u**-0.9 * torch.tensor([1.0, -1.0, 0.0]).double()

    verdict = verify(heavy, F, LOGITS, max_draws=2**14)
    assert verdict.outcome == INCONCLUSIVE
    assert "squared deviations" in str(verdict)


@pytest.mark.parametrize("offset", [300.0, 3e4])
def test_rounding_larger_than_delta_is_inconclusive(offset):
    small = LOGITS.float()

    def f(x):
        return 0.002 * F(x) + torch.tensor(offset, dtype=x.dtype)

    def shrunk(f, logits, n, generator):
        return 0.8 * rloo(f, logits, n, generator)

    verdict = verify(shrunk, f, small, max_draws=2**12)
    assert verdict.outcome != UNBIASED
    if verdict.outcome == INCONCLUSIVE:
        assert "use float64, or centre f" in str(verdict)


# ---- what cannot be excluded ------------------------------------------------------------------


def test_every_verdict_by_draws_names_what_it_cannot_exclude():
    verdict = verify(rloo, F, LOGITS)
    assert verdict.outcome == UNBIASED
    assert verdict.unseen_rate == pytest.approx(-math.log(verdict.alpha) / verdict.draws)
    assert verdict.unseen_bias > 0
    assert "Not excluded" in verdict.explain()
    assert verdict.row()["unseen_rate"] == verdict.unseen_rate


def test_unbiased_waits_until_every_class_is_met():
    logits = torch.tensor([[0.6, 0.3999, 1e-4], [0.5, 0.3, 0.2]]).double().log()
    g = exact_gradient(F, logits)

    def wrong_where_it_is_rare(f, logits, n, generator):
        x = draw_one_hot(probabilities(logits), generator, n)
        return g * (1 + 2500 * x[:, :1, 2:])

    verdict = verify(wrong_where_it_is_rare, F, logits, max_draws=2**14)
    assert verdict.outcome != UNBIASED
    assert verdict.needed is None or verdict.needed > 2**14


def test_unbiased_waits_until_no_draw_makes_up_much():
    """The bound is soon small, but rare long draws carry the variance, and few of them were met."""
    logits = torch.zeros(2, 3, dtype=torch.float64)
    g = exact_gradient(F, logits)

    def long_at_times(f, logits, n, generator):
        u = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64)
        noise = 0.05 * torch.randn(n, 1, 1, generator=generator, dtype=torch.float64)
        return g * (1 + noise + (u < 1 / 256).double() - (u > 1 - 1 / 256).double())

    verdict = verify(long_at_times, F, logits, max_draws=2**11)
    assert verdict.limit < 0.05 * torch.linalg.vector_norm(g)
    assert verdict.outcome == INCONCLUSIVE
    assert "a single draw makes up" in str(verdict)


# ---- mutants ----------------------------------------------------------------------------------


def visits_are_twenty_logs() -> None:
    """Each class is expected 20 log(1/alpha) times before its coordinates are tested."""
    p = probabilities(LOGITS)
    expected = (20 * math.log(1e3) / torch.minimum(p, 1 - p)).ceil().flatten()
    assert torch.equal(asked(rloo).visits, expected)


def the_e_value_of_coordinates_is_their_average() -> None:
    """Of many coordinates without a bias hardly any run may reach e = 20."""
    generator = torch.Generator().manual_seed(0)
    reached = 0
    for _ in range(200):
        d = torch.randn(64, 24, generator=generator, dtype=torch.float64)
        test = MeanTest(DeviationSums.from_draws(d), 0.05, 1e-12)
        assert not test.joint
        reached += test.log_e_value >= math.log(20)
    assert reached <= scipy.stats.binom.isf(P_VALUE, 200, 0.05)


def the_variance_is_widened_by_the_kurtosis() -> None:
    """Events of rate 1/64: 2 n / 61 degrees of freedom stand behind a variance."""
    d = torch.zeros(4096, 1, dtype=torch.float64)
    d[::64] = 1.0
    test = MeanTest(DeviationSums.from_draws(d - 1 / 64), 0.05, 1e-12)
    assert test.degrees == pytest.approx(2 * 4096 / 61, rel=0.01)


def dependence_uses_a_tenth_of_alpha() -> None:
    """The first look refuses at alpha / 10 / 2 / 3, not above."""

    def refused(p: float) -> bool:
        before, CallSums.spreads = CallSums.spreads, lambda self: iter([Spread("x", 2.0, p)] * 3)
        try:
            trial(asked(rloo), G, max_draws=256)
        except DependentDrawsError:
            return True
        finally:
            CallSums.spreads = before
        return False

    allowed = 1e-3 / 10 / 2 / 3
    assert refused(0.99 * allowed)
    assert not refused(1.01 * allowed)


def errors_of_the_squared_bias_cover() -> None:
    """Two standard errors of bias^2 cover it in 92.5 to 97.5 % of 2,000 runs."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.tensor([0.3, 0.0, -0.2, 0.1]).double()
    truth, covered = float(bias.square().sum()), 0
    for _ in range(2000):
        d = bias + torch.randn(400, 4, generator=generator, dtype=torch.float64)
        found = DeviationSums.from_draws(d).bias2
        covered += abs(found.value - truth) <= 2 * found.se
    low, high = scipy.stats.binom.ppf(1e-6, 2000, 0.95), scipy.stats.binom.isf(1e-6, 2000, 0.95)
    assert low <= covered <= high


def a_long_draw_is_not_tested() -> None:
    """Of 2 % of the squared deviations and more."""
    d = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d[0] = 11.0
    assert not MeanTest(DeviationSums.from_draws(d), 0.05, 1e-12).seen.any()
    d[0] = 7.0
    assert MeanTest(DeviationSums.from_draws(d), 0.05, 1e-12).seen.all()


def shared_noise_widens() -> None:
    """What a call shares divides W by what it adds to the variance of the mean."""
    generator = torch.Generator().manual_seed(0)
    total: DeviationSums | None = None
    for _ in range(200):
        d = torch.randn(32, 1, generator=generator, dtype=torch.float64)
        d = d + 0.5 * torch.randn(1, 1, generator=generator, dtype=torch.float64)
        one = DeviationSums.from_draws(d, apart=True)
        total = one if total is None else total.merge(one)
    ratio = float(total.call_ratio(torch.ones(1, 1, dtype=torch.float64)))
    assert ratio == pytest.approx((1 + 32 * 0.25) / 1.25, rel=0.35)
    alone = replace(total, called=total.called[:0], totals=total.totals[:0])
    w, plain = (MeanTest(s, 0.05, 1e-12).statistics for s in (total, alone))
    assert float(plain / w) == pytest.approx(ratio, rel=1e-9)


CHECKS = [
    visits_are_twenty_logs,
    the_e_value_of_coordinates_is_their_average,
    the_variance_is_widened_by_the_kurtosis,
    dependence_uses_a_tenth_of_alpha,
    errors_of_the_squared_bias_cover,
    a_long_draw_is_not_tested,
    shared_noise_widens,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_holds(check):
    check()


def _summed(self) -> float:
    each = mean_test._log_mixture(self.statistics.numpy() / self.widening, self.sums.n, 1)
    return float(torch.logsumexp(torch.as_tensor(each), 0))


def _small_errors(factor: float):
    before = DeviationSums.bias2.fget

    def bias2(self):
        found = before(self)
        return gradlab.moments.Measured(found.value, factor * found.se)

    return property(bias2)


MUTANTS = {
    "five visits": (testable_coordinates, "_VISITS", 5, visits_are_twenty_logs),
    "e-value as a sum": (
        MeanTest,
        "log_e_value",
        property(_summed),
        the_e_value_of_coordinates_is_their_average,
    ),
    "independence threshold doubled": (
        evidence,
        "_DEPENDENT",
        0.2,
        dependence_uses_a_tenth_of_alpha,
    ),
    "kurtosis ignored": (
        MeanTest,
        "degrees",
        property(lambda self: self.sums.n - 1.0),
        the_variance_is_widened_by_the_kurtosis,
    ),
    "errors 1.5 times too small": (
        DeviationSums,
        "bias2",
        _small_errors(1 / 1.5),
        errors_of_the_squared_bias_cover,
    ),
    "errors 1.5 times too large": (
        DeviationSums,
        "bias2",
        _small_errors(1.5),
        errors_of_the_squared_bias_cover,
    ),
    "share of a draw ignored": (mean_test, "SHARE", 1.0, a_long_draw_is_not_tested),
    "calls ignored": (deviation_sums, "_FEWEST", 10**9, shared_noise_widens),
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.few(3)
def test_a_mutant_breaks_it(name, monkeypatch):
    where, what, mutant, check = MUTANTS[name]
    monkeypatch.setattr(where, what, mutant)
    with pytest.raises(AssertionError):
        check()


# ---- numbers of a verdict ---------------------------------------------------------------------


@pytest.mark.thorough  # thousands of trials
def test_the_slope_against_draws_does_not_lean():
    """Both means are noisy: |g|^2 of the measured one is too large, <mean - g, g> too small."""
    question = asked(rloo, alpha=1e-12)
    found = [
        trial(replace(question, seed=seed), draws_of("RF(m=2)"), draws=256).slope
        for seed in range(60)
    ]
    slopes = torch.tensor(list(map(float, found)))
    error = float(slopes.std()) / math.sqrt(60)
    assert abs(float(slopes.mean()) - 1) < 5 * error
    assert error < 0.1


@pytest.mark.thorough  # thousands of trials
def test_the_root_of_a_measured_square_does_not_lean():
    generator = torch.Generator().manual_seed(0)
    bias = torch.tensor([0.3, 0.0, -0.2, -0.1]).double()
    plain, corrected = [], []
    template = verify(rloo, F, LOGITS)
    for _ in range(400):
        d = bias + torch.randn(60, 4, generator=generator, dtype=torch.float64)
        found = DeviationSums.from_draws(d).bias2
        plain.append(math.sqrt(max(found.value, 0.0)))
        verdict = replace(template, bias2=found)
        corrected.append(verdict.relative_bias.value * verdict.unit[0])
    size = float(bias.norm())
    assert abs(sum(corrected) / 400 - size) < abs(sum(plain) / 400 - size)
