"""Draws of one call that depend on each other are seen in the draws of a trial themselves."""

import math
from functools import cache, reduce

import pytest
import scipy
import torch
from torch import Generator, Tensor

from gradlab import exact_gradient
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss.gate import checked
from gradlab.problems import problem, regime
from gradlab.user_code.replicates import DependentDrawsError
from gradlab.user_code.under_test import draws_of
from gradlab.verification.dependence import CallSums, Spread
from gradlab.verification.sequential_test import trial
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED
from significance import P_VALUE

pytestmark = pytest.mark.usefixtures("unchecked")

RUNS = 400
CALLS = (32,) * 8 + (40, 45, 50, 55, 60, 70, 80, 100, 100, 120, 120, 150)


def normal(n: int, D: int, generator: Generator) -> Tensor:
    return torch.randn(n, D, generator=generator, dtype=torch.float64)


def rare(n: int, D: int, generator: Generator) -> Tensor:
    """Events of rate 1/50, in one coordinate each."""
    met = torch.rand(n, D, generator=generator, dtype=torch.float64) < 0.02
    return met.double() - 0.02


def skewed(n: int, D: int, generator: Generator) -> Tensor:
    return torch.randn(n, D, generator=generator, dtype=torch.float64).mul(1.2).exp()


LAWS = {"normal": normal, "rare": rare, "skewed": skewed}


def twice(draw, n, D, generator):
    return draw(n // 2, D, generator).repeat_interleave(2, 0)


def repeated(draw, n, D, generator):
    return draw(n // 2, D, generator).repeat(2, 1)


def opposite(draw, n, D, generator):
    half = draw(n // 2, D, generator)
    return torch.stack([half, -half], 1).flatten(0, 1)


def shared(draw, n, D, generator):
    """A share of 10 % of the variance is that of the call."""
    return draw(n, D, generator) + draw(1, D, generator) / 3


def in_groups(draw, n, D, generator):
    common = draw(n // 8 + 1, D, generator).repeat_interleave(8, 0)[:n]
    return draw(n, D, generator) + 0.7 * common


def spreads(make, draw, seed: int, D: int = 6) -> list[Spread]:
    generator = Generator().manual_seed(seed)
    drawn = [draw(n, D, generator) if make is None else make(draw, n, D, generator) for n in CALLS]
    weights = CallSums.weights(drawn[0], 1e-12)
    calls = [CallSums.from_call(d, weights) for d in drawn]
    return list(reduce(CallSums.merge, calls).spreads())


@cache
def independent(law: str, D: int) -> list[list[Spread]]:
    """Return what is seen in each of `RUNS` runs of independent draws."""
    return [spreads(None, LAWS[law], seed, D) for seed in range(RUNS)]


# Each law and each number of coordinates once in every run.
ONCE = [("normal", 6), ("rare", 1), ("skewed", 40)]


@pytest.mark.thorough  # test_sequential_test.py: it_holds, of whole trials
@pytest.mark.parametrize(
    ("law", "D"),
    [
        pytest.param(law, D, marks=[] if (law, D) in ONCE else pytest.mark.slow)
        for law in LAWS
        for D in (1, 6, 40)
    ],
)
@pytest.mark.few(1)
def test_independent_draws_are_rarely_accused(law, D):
    """At the rates at which a trial asks: a third of 1e-2 / 2 and less."""
    smallest = [min(s.p_value for s in found) for found in independent(law, D)]
    accused = sum(p <= 0.01 / 3 for p in smallest)
    # Three lengths at .01/3 each; the band of 400 runs at .01 that chance leaves once in a million.
    assert accused <= 19
    assert min(smallest) > 1e-7


@pytest.mark.parametrize("law", ["normal", "skewed"])
@pytest.mark.parametrize("make", [twice, opposite, in_groups, shared], ids=lambda m: m.__name__)
@pytest.mark.few(4)
def test_dependence_is_seen(make, law):
    found = [min(s.p_value for s in spreads(make, LAWS[law], seed)) for seed in range(10)]
    allowed = 1e-4 if law == "normal" else 1e-2
    assert sorted(found)[5] <= allowed


@pytest.mark.thorough  # shared_noise_widens in test_sequential_test.py
def test_what_is_not_refused_widens_the_test():
    ratios = [spreads(repeated, normal, seed)[-1].ratio for seed in range(40)]
    assert 1.7 < sum(ratios) / 40 < 2.3
    ratios = [spreads(None, normal, seed)[-1].ratio for seed in range(40)]
    assert 0.9 < sum(ratios) / 40 < 1.1


@pytest.mark.thorough  # test_independent_draws_are_rarely_accused
def test_the_p_value_is_uniform_for_normal_draws():
    """Twice the smaller tail for pairs of draws; for few groups the upper tail alone."""
    pairs, *few = (
        torch.tensor([found[length].p_value for found in independent("normal", 6)])
        for length in range(3)
    )
    assert scipy.stats.kstest(pairs.numpy(), "uniform").pvalue > P_VALUE
    for found in few:
        assert scipy.stats.binom.ppf(P_VALUE, 400, 0.05) <= int((found <= 0.1).sum())
        assert int((found <= 0.1).sum()) <= scipy.stats.binom.isf(P_VALUE, 400, 0.05)


def test_rounding_noise_that_depends_on_the_place_is_not_looked_at():
    d = torch.zeros(64, 3, dtype=torch.float64)
    d[::2, 1] = 1e-15
    d[:, 2] = normal(64, 1, Generator().manual_seed(0))[:, 0]
    weights = CallSums.weights(d, 1e-12)
    assert bool((weights[:2] == 0).all())
    assert bool((weights[2] != 0).all())


# ---- in a trial -------------------------------------------------------------------------------


def rloo(f, logits, n, generator):
    p = probabilities(logits)
    a, b = draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)
    return (f(a) - f(b))[:, None, None] * (a - b) / 2


def duplicated(f, logits, n, generator):
    return rloo(f, logits, n, generator).repeat_interleave(2, 0)[:n]


def tiled(f, logits, n, generator):
    g = rloo(f, logits, (n + 1) // 2, generator)
    return torch.cat([g, g])[:n]


def one_percent(f, logits, n, generator):
    """A share of 1 % of the variance is made once a call."""
    g = rloo(f, logits, n, generator)
    noise = torch.randn(1, *g.shape[1:], generator=generator, dtype=g.dtype)
    noise = noise - noise.mean(-1, keepdim=True)
    return g + 0.1 * g.std(0) * noise


def judged(code, seed: int, alpha: float):
    f, logits = problem("quadratic", 2, 3, 3), regime("moderate", 2, 3, 3)
    objective = checked(f, logits)
    question = Question(draws_of(code), objective, logits, logits, "x", None, 0.05, alpha, seed)
    return trial(question, exact_gradient(f, logits), max_draws=2**15)


# At the level where more is refused the same is seen with fewer draws.
@pytest.mark.parametrize("alpha", [pytest.param(0.05, marks=pytest.mark.slow), 1e-3])
@pytest.mark.parametrize("code", [duplicated, tiled, one_percent], ids=lambda c: c.__name__)
@pytest.mark.few(1, "duplicated-0.001")
def test_a_trial_refuses_dependent_draws_and_never_calls_them_biased(code, alpha):
    refused = 0
    for seed in range(12):
        try:
            outcome = judged(code, seed, alpha).outcome
        except DependentDrawsError:
            refused += 1
        else:
            assert outcome != BIASED
    assert refused >= 10


def test_the_refusal_says_what_was_seen():
    with pytest.raises(DependentDrawsError, match=r"sums over .* vary .* times as much"):
        judged(duplicated, 0, 1e-3)


# How rarely is asked above, of the p-values.
@pytest.mark.parametrize("runs", [5, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.thorough  # test_independent_draws_are_rarely_accused
def test_independent_draws_are_not_refused(runs):
    for seed in range(runs):
        assert judged(rloo, seed, 0.05).outcome != ""
    assert math.isfinite(judged(rloo, 0, 0.05).limit)
