"""How often two standard errors of each number of `Moments` cover its true value.

Draws of estimators whose moments are known exactly are made anew many times. What covers too
rarely has errors too small, what covers too often has errors too large: both fail.
"""

import math
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import scipy
import torch

from cases import generator
from gradlab.estimators import (
    DARN,
    MVE,
    ZGR,
    Estimator,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    ReinMax,
    StraightThrough,
    SumAndSample,
)
from gradlab.exact.moments import Enumeration
from gradlab.moments import GROUPS, Groups, Measured, Moments
from gradlab.problems import problem, regime
from significance import P_VALUE, limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts


@dataclass(frozen=True)
class Pair:
    """An estimator on a problem [N, C] with moderate logits, and the draws of one measurement."""

    estimator: Estimator
    problem: str
    N: int
    C: int
    draws: int = 2_000

    def __str__(self) -> str:
        return f"{self.estimator} on {self.problem} {self.N}x{self.C}"


# The estimators and the number of draws for which ratios were found to lean.
HARD = [
    Pair(estimator, name, N, C, 10_000)
    for name, N, C in (("quadratic", 4, 3), ("cubic", 3, 3), ("mlp", 3, 4))
    for estimator in (GumbelSoftmaxST(0.1), GumbelSoftmaxST(0.01), LeaveOneOut(4), ZGR())
]
PAIRS = [
    *HARD,
    Pair(StraightThrough(), "quadratic", 3, 4),
    Pair(DARN(), "multiquadratic", 3, 3),
    Pair(ReinMax(), "mlp", 3, 3),
    Pair(GumbelRao(0.5, 4), "cubic", 3, 3),
    Pair(GappedStraightThrough(), "quadratic", 3, 3),
    Pair(MVE(), "norm:1.5", 3, 3),
    Pair(Reinforce(), "table", 3, 3),
    Pair(SumAndSample(), "cubic", 3, 3),
]
REPETITIONS = 500
QUICK = [Pair(StraightThrough(), "quadratic", 3, 4, 640), Pair(ZGR(), "mlp", 3, 3, 640)]
FEW = 40

STATISTICS = {
    "mean": None,
    "variance": lambda m, g: m.variance,
    "length2": lambda m, g: m.length2,
    "bias2": lambda m, g: m.bias2(g),
    "mse": lambda m, g: m.mse(g),
    "mse of 100": lambda m, g: m.mse(g, 100),
    "cosine": lambda m, g: m.cosine(g),
    "progress": lambda m, g: m.progress(g),
    "progress of 100": lambda m, g: m.progress(g, 100),
    "scale-free bias2": lambda m, g: m.scale_free_bias2(g),
    "scale-free variance": lambda m, g: m.scale_free_variance(g),
}
RATIOS = ["cosine", "progress", "progress of 100", "scale-free bias2", "scale-free variance"]
AGAINST = ["bias2", "mse", *RATIOS]
MEASURED_TRUTH = [f"{name}, truth measured" for name in AGAINST]


def of_squared_length(d: int, b: float, widening: float, bend: float) -> float:
    r"""Return how often a squared length is covered by 2 errors if the noise is normal.

    The mean has d directions with noise of unit variance, so X = |mean|^2 is noncentral chi-squared
    and b^2 is estimated by X - d, with the jackknife's error 2 sqrt X, made larger by `widening`
    and by `bend`, both as the errors of ratios are. That the variances are estimated from GROUPS
    groups is reckoned with by Student's t.
    """
    errors = float(scipy.stats.norm.isf(scipy.stats.t.sf(2 * widening, GROUPS - 1)))
    x = np.linspace(0, (b + math.sqrt(d) + 8) ** 2, 20_001)
    covered = np.abs(x - d - b * b) <= errors * np.sqrt(4 * x + bend)
    law = scipy.stats.ncx2.cdf(x, d, b * b) if b > 0 else scipy.stats.chi2.cdf(x, d)
    return float(np.diff(law)[covered[1:]].sum())


@cache
def expected(name: str) -> tuple[float, float, float]:
    """Return the coverage of 2 errors for a mean or a variance, and the least and the greatest.

    The last two are those of squared lengths, for the noise of 3 to 12 directions and a length of
    any size; ratios have them too. Numbers that are nearly linear in the sums over groups get the
    same room for the skewness of the draws.
    """
    kind = name.removesuffix(", truth measured")
    if kind == "mean":
        nominal = 1 - 2 * float(scipy.stats.norm.sf(2))
        return nominal, nominal - 0.01, nominal + 0.01
    widening = float(scipy.stats.t.isf(0.025, GROUPS - 1)) / 2 if kind in RATIOS else 1.0
    bend = float(kind in RATIOS)
    sizes = [
        of_squared_length(d, b, widening, bend) for d in (3, 5, 8, 12) for b in (0, 1, 2, 4, 8)
    ]
    return 1 - 2 * float(scipy.stats.t.sf(2 * widening, GROUPS - 1)), min(sizes), max(sizes)


def is_covered(z: torch.Tensor, low: float, high: float) -> bool:
    """Return whether |z| <= 2 about as often as `low` to `high`, a NaN counted as a miss."""
    hits = int((z.abs() <= 2).sum())
    return bool(
        scipy.stats.binom.cdf(hits, len(z), low)
        > P_VALUE
        < scipy.stats.binom.sf(hits - 1, len(z), high)
    )


# Over all pairs together the shares too high and too low nearly cancel.
TOGETHER = 0.02


def is_covered_together(name: str, z: torch.Tensor) -> bool:
    nominal, _, _ = expected(name)
    return is_covered(z, nominal - TOGETHER, nominal + TOGETHER)


def measured(estimator, f, logits, draws: int, noise: torch.Generator) -> Moments:
    return Moments.from_groups(Groups.from_draws(estimator.draw(f, logits, draws, noise).double()))


@cache
def scores(pair: Pair, repetitions: int) -> dict[str, torch.Tensor]:
    """Return (measured - true) / standard error of each number, in all repetitions.

    Where draws are few a truth that is measured, anew each time, is tried as well.
    """
    with_reference = pair not in HARD
    f, logits = problem(pair.problem, pair.N, pair.C, 0), regime("moderate", pair.N, pair.C, 0)
    on = Enumeration(f, logits)
    exact, g = on.moments(pair.estimator), on.gradient
    true = {name: float(get(exact, g)) for name, get in STATISTICS.items() if get}
    # Coordinates of a mean depend on each other: one is looked at, that of the longest mean.
    at = tuple(torch.unravel_index(exact.mean.abs().argmax(), exact.mean.shape))
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    found |= {name: [] for name in MEASURED_TRUTH if with_reference}
    noise = generator(zlib.crc32(str(pair).encode()))

    def add(name: str, number: Measured, expected: float) -> None:
        found[name].append((number - expected) / number.se)

    for _ in range(repetitions):
        m = measured(pair.estimator, f, logits, pair.draws, noise)
        add("mean", Measured(float(m.mean[at]), float(m.mean_se[at])), float(exact.mean[at]))
        for name, get in STATISTICS.items():
            if get:
                add(name, get(m, g), true[name])
        if with_reference:
            truth = measured(LeaveOneOut(4), f, logits, 2_000, noise)
            for name in AGAINST:
                add(f"{name}, truth measured", STATISTICS[name](m, truth), true[name])
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


def together(pairs: list[Pair], repetitions: int, name: str) -> torch.Tensor:
    all_of = [scores(pair, repetitions) for pair in pairs]
    return torch.cat([found[name] for found in all_of if name in found])


@pytest.mark.thorough  # test_standard_errors_are_calibrated
def test_few_repetitions_cover():
    for name in [*STATISTICS, *MEASURED_TRUTH]:
        z = together(QUICK, FEW, name)
        assert is_covered_together(name, z), (name, float((z.abs() <= 2).double().mean()))
        # The negative control, with errors that show in so few repetitions.
        assert not is_covered_together(name, 2.5 * z), name


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_two_standard_errors_cover(pair):
    shares = {}
    for name, z in scores(pair, REPETITIONS).items():
        _, low, high = expected(name)
        if not is_covered(z, low, high):
            shares[name] = float((z.abs() <= 2).double().mean())
    assert shares == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STATISTICS, *MEASURED_TRUTH])
def test_errors_are_neither_too_small_nor_too_large(name):
    z = together(PAIRS, REPETITIONS, name)
    assert is_covered_together(name, z), float((z.abs() <= 2).double().mean())
    # The negative controls, against the same threshold.
    assert not is_covered_together(name, 1.5 * z), "errors 1.5 times too small"
    assert not is_covered_together(name, z / 1.5), "errors 1.5 times too large"


@pytest.mark.slow
@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("estimator", dict.fromkeys(str(pair.estimator) for pair in HARD))
def test_two_errors_of_ratios_cover_nine_times_in_ten(estimator, name):
    pairs = [pair for pair in HARD if str(pair.estimator) == estimator]
    z = together(pairs, REPETITIONS, name)
    assert 0.90 <= float((z.abs() <= 2).double().mean()) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("pair", HARD[:4], ids=str)
def test_ratios_do_not_lean(pair):
    """What is left of their bias is below a tenth of the spread, and the rest is chance."""
    f, logits = problem(pair.problem, pair.N, pair.C, 0), regime("moderate", pair.N, pair.C, 0)
    on, noise = Enumeration(f, logits), generator(1)
    exact, g = on.moments(pair.estimator), on.gradient
    found = {name: [] for name in [*RATIOS, "cosine, uncorrected"]}
    for _ in range(REPETITIONS):
        m = measured(pair.estimator, f, logits, pair.draws, noise)
        for name in RATIOS:
            found[name].append(STATISTICS[name](m, g).value - float(STATISTICS[name](exact, g)))
        plain = Moments(m.mean, m.variance_per_variable, m.n)
        found["cosine, uncorrected"].append(plain.cosine(g).value - float(exact.cosine(g)))
    leans = {}
    for name, values in found.items():
        off = torch.tensor(values, dtype=torch.float64)
        leans[name] = abs(float(off.mean() / off.std()))
    bound = 0.1 + limit() / math.sqrt(REPETITIONS)
    uncorrected = leans.pop("cosine, uncorrected")
    assert max(leans.values()) < bound, leans
    if pair == HARD[1]:  # the negative control
        assert uncorrected > bound
