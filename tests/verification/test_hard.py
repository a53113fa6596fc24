"""Verdicts where draws are rare, skewed, cold, rounded or dependent: how often are they wrong?

The means of the catalogue are checked by routes that draw nothing. Then errors are counted in runs
of many seeds, and must lie in the binomial band of the level that is promised.
"""

import dataclasses
import math
from collections import Counter

import pytest
import scipy
import torch

import gradlab
from gradlab import exact_gradient
from gradlab.user_code.under_test import EstimatorError
from gradlab.verification.verdict import BIASED
from hard import CASES, KINDS, case, most, outcome, rates, verdict
from hard_calls import Cold, Repeated, Reused, Shared, SharedBaseline
from hard_codes import (
    Jumps,
    Lottery,
    Noise,
    OwnBaseline,
    Pairs,
    Rows,
    Score,
    Shipped,
    Through,
    Times,
    true_gradient,
)
from hard_laws import Chi2, Exponential, Lognormal, Pareto, TwoSided
from hard_rest import BENT, COINS, own, rao
from hard_settings import table
from significance import limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

DELTA = 0.05  # what `verify` calls a small bias
LEVELS = (0.05, 1e-3)
RIGHT = [hard for hard in CASES if hard.right]
WRONG = [hard for hard in CASES if not hard.right]
ENUMERATED = [hard for hard in CASES if hard.setting.states <= 2**12]

each = pytest.mark.parametrize("hard", CASES, ids=lambda hard: hard.name)


# ---- what the catalogue says of its codes -----------------------------------------------------


def test_the_catalogue_has_many_of_each_kind():
    assert len({hard.name for hard in CASES}) == len(CASES)
    for cases in (RIGHT, WRONG):
        assert len(cases) >= 30
        assert min(Counter(hard.kind for hard in cases)[kind] for kind in KINDS) >= 5


@each
@pytest.mark.few(20)
def test_right_codes_have_the_mean_that_is_wanted_and_wrong_ones_have_not(hard):
    if hard.right:
        assert hard.bias is None or hard.bias <= hard.rounding
    else:
        assert hard.bias > 1.5 * DELTA


@pytest.mark.parametrize("hard", ENUMERATED, ids=lambda hard: hard.name)
@pytest.mark.few(40)
def test_the_gradient_is_that_of_the_library(hard):
    f, logits = hard.setting.f, hard.setting.logits
    g = exact_gradient(f, logits)
    torch.testing.assert_close(hard.setting.g, g, rtol=max(hard.rounding, 1e-9), atol=1e-12)


def test_the_formula_of_a_linear_loss_is_the_sum_over_states():
    torch.testing.assert_close(COINS.f.gradient(COINS.logits), COINS.g, rtol=1e-12, atol=1e-14)


# The others are known by theory, and proved on smaller problems, or have no finite sum.
PROVED = [hard for hard in ENUMERATED if hard.code in ("REINFORCE", "RF(m=2)", "LE")]


@pytest.mark.parametrize("hard", PROVED, ids=lambda hard: hard.name)
def test_estimators_of_the_library_are_proved_where_they_are_called_right(hard):
    proof = gradlab.verify(hard.code, hard.setting.f, hard.setting.logits, method="exact")
    assert proof.unbiased


@pytest.mark.parametrize("tau", [0.5, 0.01, 0.001])
@pytest.mark.parametrize("setting", [COINS, BENT], ids=["linear", "quadratic"])
@pytest.mark.few(2)
def test_the_mean_of_cold_codes_by_an_integral_is_that_by_quadrature(setting, tau):
    torch.testing.assert_close(own(tau, setting), rao(tau, setting), rtol=1e-6, atol=1e-10)


LAWS = [
    Pareto(1.5, 20.0),
    Pareto(2.1, centred=True),
    Pareto(3.0),
    Lognormal(1.0),
    Lognormal(2.0, centred=True),
    Lognormal(2.0, 10.0),
    Lognormal(3.0, 20.0),
    Exponential(),
    Chi2(),
    TwoSided(2.2),
    TwoSided(3.0),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.few(4)
def test_the_mean_of_noise_is_the_integral_of_its_quantiles(law):
    # With u = 1 - e^-s on either side of the median the integrand has no singularity.
    def above(s: float) -> float:
        return float(law.quantile(torch.tensor(-math.expm1(-s), dtype=torch.float64)))

    low, _ = scipy.integrate.quad(
        lambda u: float(law.quantile(torch.tensor(u).double())), 1e-12, 0.5, limit=200
    )
    high, _ = scipy.integrate.quad(lambda s: above(s) * math.exp(-s), math.log(2), 30, limit=400)
    if isinstance(law, TwoSided):
        assert low == pytest.approx(-high, rel=1e-4)
    else:
        # Beyond s = 30 a Pareto law has e^(-30 (1 - 1/shape)) of its mean.
        assert low + high == pytest.approx(law.mean, abs=1e-4)


MILD = table(2, 3)
EASY = [
    Score(),
    Score(0.0),
    Score(1.5, baseline=0.3),
    Score(0.0, share=0.5),
    Score(0.0, cap=1.5),
    Pairs(),
    Pairs(3),
    OwnBaseline(2),
    Shipped("RF(m=2)"),
    Rows(Pairs(), (0.8, -1.0)),
    Lottery(MILD.g, 0.5, 0.8),
    Jumps(Pairs(), MILD.g, 0.3, 0.5, False),
    Jumps(Pairs(), MILD.g, 0.3, 0.5, True),
    Noise(Pairs(), MILD.g, TwoSided(20.0), 2.0),
    Noise(Pairs(), MILD.g, Lognormal(0.5, 1.2, centred=True), 2.0),
    Noise(Pairs(), MILD.g, Pareto(20.0, centred=True), 2.0, each=True),
    Times(Pairs(), Exponential()),
    Times(Pairs(), Chi2()),
    SharedBaseline(0.5, 0.8),
]


def called(code) -> str:
    """Return what a code is made of, without the numbers of its tensors."""
    parts = [getattr(code, field.name) for field in dataclasses.fields(code)]
    shown = [
        called(p) if dataclasses.is_dataclass(p) else str(p)
        for p in parts
        if not torch.is_tensor(p)
    ]
    return f"{type(code).__name__}({', '.join(shown)})"


def score_of(code, setting, groups: int = 1024, size: int = 64) -> float:
    """Return the largest |z| of the means of calls: draws of one call may depend on each other."""
    generator = torch.Generator().manual_seed(0)
    calls = [code(setting.f, setting.logits, size, generator).mean(0) for _ in range(groups)]
    g = torch.stack(calls).double()
    off = g.mean(0) - code.mean(setting.f, setting.logits)
    error = (g.std(0) / groups**0.5).clamp_min(1e-12)
    return float((off / error).abs().max())


@pytest.mark.parametrize("code", EASY, ids=called)
@pytest.mark.few(1)
def test_where_draws_are_easy_their_mean_is_the_one_that_is_computed(code):
    assert score_of(code, MILD) < limit(1000)


@pytest.mark.parametrize(
    "code",
    [
        Cold(0.5),
        Cold(0.3, 0.8),
        Through(3.0),
        Repeated(Cold(0.5), COINS.g),
        Repeated(Cold(0.5), Cold(0.5).mean(COINS.f, COINS.logits), sign=-1),
        Reused(Cold(0.5), 10),
        Shared(Cold(0.5), COINS.g, 1.0),
        Shared(Cold(0.5), COINS.g, 1.0, block=8),
    ],
    ids=called,
)
@pytest.mark.few(1)
def test_so_it_is_of_codes_that_need_grad_f(code):
    assert score_of(code, COINS) < limit(1000)


def test_own_baselines_of_two_shrink_the_gradient_by_a_half():
    f, logits = MILD.f, MILD.logits
    p, x = gradlab.categorical.probabilities(logits), torch.eye(3).double()
    assert logits.shape == (2, 3)
    states = torch.stack([x.repeat_interleave(3, 0), x.repeat(3, 1)], 1)
    chance = (p * states).sum(-1).prod(-1)
    pairs = torch.stack([states.repeat_interleave(9, 0), states.repeat(9, 1, 1)], 1)
    mean = torch.einsum(
        "s,snc->nc",
        torch.outer(chance, chance).flatten(),
        OwnBaseline(2).estimate(f, logits, pairs),
    )
    torch.testing.assert_close(mean, true_gradient(f, logits) / 2, rtol=1e-12, atol=1e-14)


# ---- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hard", [hard for hard in CASES if hard.runs >= 1000], ids=lambda hard: hard.name
)
@pytest.mark.few(3)
def test_no_verdict_is_wrong_every_time(hard):
    alpha, seeds = 1e-4, 3
    short = dataclasses.replace(hard, max_draws=min(hard.max_draws, 2**12))
    assert rates(short, alpha, seeds)["errors"] <= most(alpha, seeds)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", LEVELS)
@each
def test_verdicts_are_wrong_no_more_often_than_promised(hard, alpha):
    row = rates(hard, alpha, 1000 if hard.right else 200)
    assert row["errors"] <= row["allowed"]
    assert hard.dependent or row["refused"] == 0


EVIDENT = [
    "times .8, weights up to 3.6",
    "weights forgotten",
    "weights clipped at 3",
    "own GS-ST(.01) times -1",
    "float32, f near 300, times .8",
    "float32, straight-through times .9",
    "f near 1e6, times .8",
]


# Cold draws show their tail late, and what never varies is evidence by its number only.
MORE = {"own GS-ST(.01) times -1": 2**14, "float32, straight-through times .9": 2**17}


@pytest.mark.parametrize("name", EVIDENT)
@pytest.mark.few(1)
def test_what_is_plain_to_see_is_still_found(name):
    # A verdict that is always INCONCLUSIVE makes no errors.
    hard = case(name)
    hard = dataclasses.replace(hard, max_draws=MORE.get(name, hard.max_draws))
    assert Counter(outcome(hard, 1e-3, seed)[0] for seed in range(4))[BIASED] >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "hard", [hard for hard in CASES if not hard.dependent], ids=lambda hard: hard.name
)
def test_hard_but_independent_draws_are_taken_for_independent(hard):
    try:
        verdict(dataclasses.replace(hard, max_draws=2**8), 1e-3, 0, replicates=True)
    except EstimatorError as error:
        pytest.fail(str(error))


# ---- what a test without guards would say -----------------------------------------------------

LOOKS = tuple(256 * 2**k for k in range(5))


def unguarded(hard, alpha: float, runs: int, chunk: int = 50) -> int:
    """Return how many runs a normal mixture along g rejects at any look: valid for normal draws."""
    generator = torch.Generator().manual_seed(0)
    f, logits, g = hard.setting.f, hard.setting.logits, hard.truth
    code = Shipped(hard.code) if isinstance(hard.code, str) else hard.code
    direction = g / torch.linalg.vector_norm(g)
    # The effect size at which the test is most powerful at the first look.
    rho2 = 2 * math.log(1 / alpha) / LOOKS[0]
    rejected = 0
    for _ in range(runs // chunk):
        d = code(f, logits, chunk * LOOKS[-1], generator).double() - g
        along = (d * direction).sum((-2, -1)).unflatten(0, (chunk, LOOKS[-1]))
        ever = torch.zeros(chunk, dtype=torch.bool)
        for n in LOOKS:
            variance = along[:, :n].var(1)
            w = n * along[:, :n].mean(1).square() / variance
            log_e = w / 2 * (n * rho2 / (1 + n * rho2)) - math.log1p(n * rho2) / 2
            ever |= (log_e >= -math.log(alpha)) | (variance == 0)
        rejected += int(ever.sum())
    return rejected


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "weights up to 2,050",
        "weights up to 36,000",
        "factor lognormal of sigma 3",
        "g/q at rate .001",
        "RF(4), one of 4^5",
    ],
)
def test_a_test_without_guards_leaves_the_band_where_draws_are_skewed(name):
    assert unguarded(case(name), 1e-3, 500) > most(1e-3, 500)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["factor exponential", "f near 1e6", "weights up to 3.6"])
def test_it_stays_inside_where_they_are_not(name):
    assert unguarded(case(name), 1e-3, 500) <= most(1e-3, 500)
