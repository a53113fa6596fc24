"""How often verdicts are wrong: many seeded runs of estimators whose bias is known.

The shares of wrong verdicts must lie in binomial bands, which all tests together leave by chance
once in a million runs: for 2,000 runs at a rate of .05 from .021 to .085, so that a test that is
wrong twice as often, or a third as often, as it says, is caught.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import scipy
import torch
from torch import Tensor

from gradlab import exact_gradient, exact_moments
from gradlab.estimators import parse
from gradlab.loss.gate import checked
from gradlab.problems import problem, regime
from gradlab.user_code.under_test import draws_of
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.mean_test import MeanTest
from gradlab.verification.sequential_test import trial
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED
from significance import P_VALUE

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

RUNS = 2000
CHUNK = 50
SEED = 11  # of the losses and logits: the rarest class has a probability of 0.15
ROUNDING = 1e-12

# Draws of a test at one n. REINFORCE has a kurtosis of 7 here; for 30 and rarer classes Hotelling's
# test, widened for it, would reject too seldom (.025 of the runs with 512 draws).
DRAWS = 1024
LOOKS = (512, 768, 1152, 1728, 2592, 3888, 5832, 8192)

# Estimators and losses for which they have no bias.
UNBIASED = {
    "REINFORCE": "quadratic",
    "RF(m=2)": "quadratic",
    "RF(m=4)": "quadratic",
    "ARSM": "quadratic",
    "ZGR": "quadratic",
    "ST": "multilinear",
    "DARN": "multilinear",
}


def band(alpha: float, runs: int = RUNS) -> tuple[int, int]:
    """Return between which numbers of rejections at rate alpha must lie."""
    low, high = (
        scipy.stats.binom.ppf(P_VALUE / 2, runs, alpha),
        scipy.stats.binom.isf(P_VALUE / 2, runs, alpha),
    )
    return int(low), int(high)


def deviations(
    text: str, kind: str, draws: int, runs: int = RUNS, factor: float = 1.0
) -> Iterator[Tensor]:
    """Yield deviations [CHUNK, draws, D] from the gradient of draws multiplied by a factor."""
    f, logits = problem(kind, 2, 3, SEED), regime("moderate", 2, 3, SEED)
    g = exact_gradient(f, logits)
    for chunk in range(runs // CHUNK):
        generator = torch.Generator().manual_seed(chunk)
        draw = parse(text).draw(f, logits, CHUNK * draws, generator)
        yield (factor * draw - g).flatten(1).unflatten(0, (CHUNK, draws))


def mean_test(d: Tensor, alpha: float) -> MeanTest:
    return MeanTest(DeviationSums.from_draws(d), alpha, ROUNDING)


def p_values(text: str, kind: str, runs: int = RUNS, factor: float = 1.0) -> Tensor:
    """Return the p-values of Hotelling's test of so many runs."""
    chunks = deviations(text, kind, DRAWS, runs, factor)
    return torch.tensor([mean_test(d, 0.05).p_value for chunk in chunks for d in chunk])


# ---- at one number of draws -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=[] if text == "RF(m=4)" else pytest.mark.slow) for text in UNBIASED],
)
@pytest.mark.usefixtures("unchecked")
def test_false_alarms_at_one_number_of_draws(text):
    p = p_values(text, UNBIASED[text])
    for alpha in (0.05, 0.01):
        low, high = band(alpha)
        assert low <= int((p <= alpha).sum()) <= high
    # At 2,000 runs this catches a distribution function that is off by 0.08 anywhere.
    assert scipy.stats.kstest(p.numpy(), "uniform").pvalue > P_VALUE


@pytest.mark.usefixtures("unchecked")
@pytest.mark.thorough  # planted errors are found
def test_a_bias_of_a_tenth_is_rejected_far_above_the_band():
    p = p_values("RF(m=4)", "quadratic", runs=500, factor=0.9)
    assert int((p <= 0.05).sum()) > 4 * band(0.05, 500)[1]


# ---- at every look ----------------------------------------------------------------------------


def statistics(d: Tensor) -> Tensor:
    """Return n m^T S^+ m of runs d [R, n, D] at all looks, [R, len(LOOKS)]."""
    ends = torch.tensor(LOOKS, dtype=d.dtype)[:, None]
    parts = d[:, : LOOKS[-1]].tensor_split(LOOKS[:-1], dim=1)
    mean = torch.stack([part.sum(1) for part in parts], 1).cumsum(1) / ends
    square = torch.stack([part.mT @ part for part in parts], 1).cumsum(1) / ends[..., None]
    covariance = (square - mean[..., :, None] * mean[..., None, :]) * (ends / (ends - 1))[..., None]
    inverse = torch.linalg.pinv(covariance, rtol=1e-9, hermitian=True)
    return ends[:, 0] * (mean[..., None, :] @ inverse @ mean[..., None]).squeeze((-2, -1))


def ever(d: Tensor, rejects: Callable[[MeanTest], bool], least: float, alpha: float) -> int:
    """Return how many of the runs d [R, n, D] a test rejects at any look, if W >= least at it."""
    count = 0
    for run, w in zip(d, statistics(d), strict=True):
        for n, statistic in zip(LOOKS, w.tolist(), strict=True):
            if statistic < least:
                continue
            test = mean_test(run[:n], alpha)
            assert float(test.statistics) == pytest.approx(statistic, rel=1e-6)
            if rejects(test):
                count += 1
                break
    return count


@pytest.mark.slow
@pytest.mark.parametrize("text", ["REINFORCE", "RF(m=2)"])
@pytest.mark.usefixtures("unchecked")
def test_draws_may_be_added_until_the_e_value_decides(text):
    alpha = 0.05
    wanted = -math.log(alpha)
    by_e_value = by_p_value = 0
    for d in deviations(text, UNBIASED[text], LOOKS[-1]):
        # log e is at most W/2; Hotelling's quantile is at least that of chi-square.
        by_e_value += ever(d, lambda test: test.log_e_value >= wanted, 2 * wanted, alpha)
        by_p_value += ever(
            d, lambda test: test.p_value <= alpha, scipy.stats.chi2.isf(alpha, 4), alpha
        )
    assert by_e_value <= band(alpha)[1]
    # The p-value of a test at one n does not allow it: .05 become .2 within eight looks.
    assert by_p_value > band(alpha)[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
def test_the_bound_covers_the_bias_at_all_looks():
    alpha, runs = 0.05, 500
    f, logits = problem("quadratic", 2, 3, SEED), regime("moderate", 2, 3, SEED)
    bias = exact_moments(parse("ST"), f, logits).mean - exact_gradient(f, logits)
    size = float(torch.linalg.vector_norm(bias))
    missed = missed_by_less = 0
    for chunk in deviations("ST", "quadratic", LOOKS[-1], runs):
        for d in chunk:
            tests = [mean_test(d[:n], alpha) for n in LOOKS]
            missed += any(test.bound < size for test in tests)
            missed_by_less += any(test.bound - 0.9 * test.radius < size for test in tests)
    assert missed <= band(alpha, runs)[1]
    assert missed_by_less > band(alpha, runs)[1]


# ---- where classes are rare -------------------------------------------------------------------


RARE = {
    "one class a variable": [[0.9, 0.099, 0.001], [0.6, 0.3995, 0.0005]],
    "all but one class": [[0.15, 0.75, 0.1], [1e-5, 2e-5, 0.99997]],
}


@pytest.mark.parametrize(
    ("name", "draws"),
    [
        pytest.param("one class a variable", 1024, id="one-fixed", marks=pytest.mark.slow),
        pytest.param("one class a variable", None, id="one-added", marks=pytest.mark.slow),
        pytest.param("all but one class", 1024, id="all-but-one-fixed", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_rare_classes_raise_no_false_alarms(name, draws):
    alpha, runs = 0.05, 500
    f, logits = problem("quadratic", 2, 3, SEED), torch.tensor(RARE[name]).double().log()
    g = exact_gradient(f, logits)
    drawn, objective = draws_of("RF(m=2)"), checked(f, logits)
    verdicts = [
        trial(
            Question(drawn, objective, logits, logits, "rare", True, 0.5, alpha, seed),
            g,
            draws=draws,
            max_draws=8192,
        )
        for seed in range(runs)
    ]
    assert 0 < verdicts[0].set_aside < 6
    assert sum(verdict.outcome == BIASED for verdict in verdicts) <= band(alpha, runs)[1]


def of_rare_classes(name: str) -> Tensor:
    """Return 200 runs of 2048 deviations of RF(2)."""
    f, logits = problem("quadratic", 2, 3, SEED), torch.tensor(RARE[name]).double().log()
    d = parse("RF(m=2)").draw(f, logits, 200 * 2048, torch.Generator().manual_seed(0))
    return (d - exact_gradient(f, logits)).flatten(1).unflatten(0, (200, 2048))


@pytest.mark.usefixtures("unchecked")
def test_without_setting_rare_classes_aside_they_would():
    """Hotelling's test as it is in textbooks, of all coordinates."""
    d = of_rare_classes("one class a variable")
    mean = d.mean(1, keepdim=True)
    covariance = (d - mean).mT @ (d - mean) / 2047
    inverse = torch.linalg.pinv(covariance, rtol=1e-9, hermitian=True)
    w = 2048 * (mean @ inverse @ mean.mT).flatten()
    assert int((w > scipy.stats.chi2.isf(0.05, 4)).sum()) > band(0.05, 200)[1]


@pytest.mark.usefixtures("unchecked")
def test_what_has_not_varied_is_off_in_most_runs_and_no_evidence():
    tests = [mean_test(run, 0.05) for run in of_rare_classes("all but one class")]
    assert sum(test.unseen_offset > 0 for test in tests) > 150
    assert max(test.log_unseen for test in tests) < 0.1
