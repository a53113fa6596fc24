"""`Moments.progress`: exact values, limits, and whether a measured one leans or covers."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import binom

from cases import generator
from gradlab.estimators import GumbelSoftmaxST, LeaveOneOut, StraightThrough
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.moments import GROUPS, Groups, Measured, Moments
from gradlab.problems import problem, regime
from significance import P_VALUE, limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

TRUTH = torch.tensor([[0.3, -0.2, -0.1], [0.5, 0.1, -0.6]], dtype=torch.float64)


def by_formula(mean: torch.Tensor, variance: float, truth: torch.Tensor, averaged: float) -> float:
    inner, truth2 = float((mean * truth).sum()), float(truth.square().sum())
    size2 = float(mean.square().sum()) + variance / averaged
    return math.copysign(inner**2 / (truth2 * size2), inner)


def exact(mean: torch.Tensor, variance: float) -> Moments:
    return Moments(mean, torch.tensor([variance, 0.0], dtype=torch.float64))


# ---- exact values ------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [1, 2.5, 1000, math.inf])
@pytest.mark.parametrize("estimator", [StraightThrough(), LeaveOneOut(2)], ids=str)
def test_exact_progress_is_that_of_all_draws_enumerated(estimator, averaged):
    """All samples of a model of 2 variables and 3 classes, and all pairs of them, by hand."""
    f, logits = problem("cubic", 2, 3, 0), regime("moderate", 2, 3, 0)
    states = torch.cartesian_prod(*[torch.arange(3)] * 2)
    x = torch.nn.functional.one_hot(states, 3).double()
    p = logits.double().softmax(-1)
    weight = (x * p).sum(-1).prod(-1)
    values, score = f(x), x - p
    truth = (weight[:, None, None] * values[:, None, None] * score).sum(0)
    if isinstance(estimator, StraightThrough):
        leaf = x.clone().requires_grad_()
        (v,) = torch.autograd.grad(f(leaf).sum(), leaf)
        estimates, of_each = p * (v - (p * v).sum(-1, keepdim=True)), weight
    else:
        difference = (values[:, None] - values[None])[..., None, None] / 2
        estimates = (difference * (score[:, None] - score[None])).flatten(0, 1)
        of_each = (weight[:, None] * weight[None]).flatten()
    mean = (of_each[:, None, None] * estimates).sum(0)
    variance = float((of_each * (estimates - mean).square().sum((1, 2))).sum())
    on = Enumeration(f, logits)
    found = on.moments(estimator).progress(on.gradient, averaged)
    assert found.value == pytest.approx(by_formula(mean, variance, truth, averaged), abs=1e-10)
    assert found.se == 0
    assert 0 < found.value <= 1 + 1e-12


def test_worked_values():
    along = exact(2 * TRUTH, float((2 * TRUTH).square().sum()))
    assert along.progress(TRUTH).value == pytest.approx(1 / 2, rel=1e-14)
    assert along.progress(TRUTH, 9).value == pytest.approx(9 / 10, rel=1e-14)
    assert exact(-TRUTH, 0.0).progress(TRUTH).value == pytest.approx(-1, rel=1e-14)
    at_right_angles = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert exact(at_right_angles, 1.0).progress(TRUTH).value == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("factor", [1e-100, 1e-3, 1e100])
def test_the_scale_of_estimates_and_truth_does_not_matter(factor):
    mean = TRUTH.flip(-1)
    plain = exact(mean, 0.7).progress(TRUTH, 3)
    assert exact(factor * mean, factor**2 * 0.7).progress(TRUTH, 3).value == pytest.approx(plain)
    assert exact(mean, 0.7).progress(factor * TRUTH, 3).value == pytest.approx(plain)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_of_many_draws_is_the_squared_cosine_with_its_sign(sign):
    moments = exact(sign * torch.tensor([[1.0, 0.0, -1.0], [0.2, 0.1, -0.3]]).double(), 5.0)
    cosine = moments.cosine(TRUTH).value
    assert math.copysign(1, cosine) == sign
    assert moments.progress(TRUTH, math.inf).value == pytest.approx(cosine * abs(cosine))
    assert moments.progress(TRUTH, 1e12).value == pytest.approx(cosine * abs(cosine), rel=1e-10)


def test_no_progress_is_0_and_no_direction_nan():
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert exact(zero, 1.0).progress(TRUTH, 10).value == 0
    assert math.isnan(exact(zero, 1.0).progress(TRUTH, math.inf).value)
    assert math.isnan(exact(zero, 0.0).progress(TRUTH).value)
    assert math.isnan(exact(TRUTH, 1.0).progress(zero).value)


def test_a_batch_is_one_vector():
    """Two images with opposite gradients: neither has the progress of both together."""
    f, logits = problem("quadratic", 2, 3, 0), regime("moderate", 2, 3, 0)
    on = EnumeratedBatch(f, torch.stack([logits, -2 * logits]))
    moments = on.moments(GumbelSoftmaxST(1.0))
    variance = float(moments.variance_per_variable.sum())
    found = moments.progress(on.gradient, 10).value
    assert found == pytest.approx(by_formula(moments.mean, variance, on.gradient, 10), rel=1e-12)


# ---- from draws --------------------------------------------------------------------------------

DRAWS, REPETITIONS = 640, 300


def sums(mean: torch.Tensor, sd: torch.Tensor, n: int, noise: torch.Generator) -> Moments:
    """Return the moments of n normal draws, from the laws of their sums in each group."""
    each = n // GROUPS
    centre = mean + sd * each**-0.5 * torch.randn(
        GROUPS, *mean.shape, dtype=torch.float64, generator=noise
    )
    # A chi-squared number of many degrees of freedom is nearly normal.
    spread = torch.randn(GROUPS, *mean.shape, dtype=torch.float64, generator=noise)
    square = sd**2 * (each - 1 + math.sqrt(2 * (each - 1)) * spread).clamp_min(0)
    count = torch.full([GROUPS], float(each), dtype=torch.float64)
    return Moments.from_groups(Groups(count, centre, square, math.nan, math.nan))


def setting(ratio: float, directions: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, spread and truth: m.g is `ratio` times its standard error, and as much of the
    mean is at right angles."""
    truth = torch.zeros(directions, 2, dtype=torch.float64)
    truth[0] = torch.tensor([2.0, 0.0])
    mean = torch.zeros_like(truth)
    mean[0] = torch.tensor([ratio, abs(ratio) + 1.0]) / math.sqrt(DRAWS)
    sd = torch.ones_like(truth)
    return mean, sd, truth


SLOW = pytest.mark.slow
# m.g over its error, directions of the noise, how many are averaged, is the truth measured?
SETTINGS = [
    pytest.param(0, 3, 10, False, marks=SLOW),
    pytest.param(1, 3, 10, False, marks=SLOW),
    (-2, 3, 1, False),
    pytest.param(3, 2, 100, False, marks=SLOW),
    (8, 10, 300, False),
    pytest.param(20, 30, 1000, False, marks=SLOW),
    pytest.param(0, 3, 10, True, marks=SLOW),
    pytest.param(-2, 3, 1, True, marks=SLOW),
    (3, 2, 100, True),
    pytest.param(20, 30, 1000, True, marks=SLOW),
]
Behind = list[tuple[Moments, torch.Tensor]]


@functools.cache
def replicated(
    ratio: float,
    directions: int,
    averaged: float,
    with_truth: bool,
    repetitions: int = REPETITIONS,
) -> tuple[list[Measured], float, Behind]:
    """Return measured progress, the true one, and what it was measured from."""
    mean, sd, truth = setting(ratio, directions)
    noise = generator(int(1000 * directions + 10 * abs(ratio)) + with_truth)
    true = by_formula(mean, float(sd.square().sum()), truth, averaged)
    found, behind = [], []
    for _ in range(repetitions):
        moments = sums(mean, sd, DRAWS, noise)
        against = sums(truth, 0.5 * sd, DRAWS, noise) if with_truth else truth
        found.append(moments.progress(against, averaged))
        behind.append((moments, against.mean if isinstance(against, Moments) else against))
    return found, true, behind


def lean(values: list[float], true: float) -> float:
    """Return the mean error in units of the spread."""
    off = torch.tensor(values, dtype=torch.float64) - true
    return float(off.mean() / off.std())


def covers(values: list[Measured], true: float, widen: float = 1.0) -> bool:
    """Return whether two errors cover the truth in 90 to 100 %."""
    hits = sum(abs(value - true) <= 2 * widen * value.se for value in values)
    return bool(binom.cdf(hits, len(values), 0.90) > P_VALUE)


def bound(repetitions: int) -> float:
    """Return what a lean may be: a tenth of the spread is left, and the rest is chance."""
    return 0.1 + limit() / math.sqrt(repetitions)


@pytest.mark.parametrize(("ratio", "directions", "averaged", "with_truth"), SETTINGS)
@pytest.mark.few(1)
def test_measured_progress_does_not_lean_and_two_errors_cover(
    ratio, directions, averaged, with_truth
):
    found, true, _ = replicated(ratio, directions, averaged, with_truth)
    assert abs(lean([number.value for number in found], true)) < bound(REPETITIONS)
    assert covers(found, true), sum(abs(v - true) <= 2 * v.se for v in found) / len(found)


def test_errors_a_third_as_large_fail_at_the_same_threshold():
    found, true, _ = replicated(8, 10, 300, False)
    assert not covers(found, true, widen=1 / 3)


def plain_square(m: Moments, g: torch.Tensor, averaged: float) -> float:
    """The planted error: |m|^2 is that of the measured mean, noise included."""
    return by_formula(m.mean, float(m.variance_per_variable.sum()), g, averaged)


def plain_inner(m: Moments, g: torch.Tensor, averaged: float) -> float:
    """The planted error: (m.g)^2 is that of the measured mean, |m|^2 is corrected."""
    still = Moments(m.mean, m.variance_per_variable, m.n)
    return still.progress(g, averaged).value


@pytest.mark.parametrize(
    ("planted", "case", "repetitions"),
    [
        (plain_square, (20, 30, 1000, False), REPETITIONS),
        pytest.param(plain_inner, (1, 30, 1, False), 1500, marks=SLOW),
    ],
    ids=["of the square", "of the product"],
)
@pytest.mark.thorough  # shows that the test above can fail
def test_a_formula_without_the_correction_leans(
    planted: Callable[[Moments, torch.Tensor, float], float], case, repetitions
):
    found, true, behind = replicated(*case, repetitions)
    assert abs(lean([number.value for number in found], true)) < bound(repetitions)
    assert abs(lean([planted(m, g, case[2]) for m, g in behind], true)) > bound(repetitions)


def test_a_direction_lost_in_noise_has_no_error():
    mean, sd, truth = setting(0, 3)
    lost = sums(0 * mean, sd, DRAWS, generator(5))
    assert math.isfinite(lost.progress(truth, 10).se)
    of_truth = exact(TRUTH, 1.0).progress(Moments(1e-3 * TRUTH, torch.ones(2).double(), 10))
    assert math.isnan(of_truth.value)


def test_too_few_draws_for_an_error_say_nan():
    mean, sd, truth = setting(3, 3)
    few = Moments.from_groups(Groups.from_draws(mean + sd * torch.ones(20, 1, 1)))
    assert math.isnan(few.progress(truth).se)
