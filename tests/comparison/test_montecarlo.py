"""Draws against exact moments, within standard errors; reproducibility of Monte Carlo runs.

The statistical tests share the thresholds of significance.py, and each kind has a negative control:
a planted error that it must notice.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache

import pytest
import scipy
import torch

from cases import (
    CLAIMS,
    REGIME_SEEDS,
    STATISTICAL,
    differentiable,
    estimators,
    generator,
    logits_of,
    loss_of,
)
from gradlab import montecarlo
from gradlab.categorical import draw_classes, draw_one_hot, probabilities, relaxed_given
from gradlab.estimators import (
    ARSM,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    SampleOnlyEstimator,
    StraightThrough,
    parse,
    values,
)
from gradlab.exact.moments import Enumeration
from gradlab.exact.truth import exact_gradient
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.montecarlo import block_size, monte_carlo
from gradlab.reproducible import block_generator
from significance import ALPHA, COMPARISONS, P_VALUE, limit, scores

DRAWS = 12_000
REGIMES = list(REGIME_SEEDS)


@cache
def enumeration(name: str, logits: str) -> Enumeration:
    return Enumeration(loss_of(name), logits_of(logits))


@cache
def measured(estimator, name: str, logits: str) -> Moments:
    return monte_carlo(
        estimator, loss_of(name), logits_of(logits), DRAWS, seed=11, row=name + logits
    )


def worst_mean(moments: Moments, expected: torch.Tensor) -> float:
    return float(scores(moments.mean, expected, moments.mean_se).abs().max())


def deviations(moments: Moments, exact: Moments, truth: torch.Tensor) -> dict[str, float]:
    """Deviations of variance, squared bias and mean squared error, in their standard errors."""
    pairs = {
        "variance": (moments.variance, exact.variance),
        "bias2": (moments.bias2(truth), exact.bias2(truth)),
        "mse": (moments.mse(truth), exact.mse(truth)),
    }
    return {key: float(scores(a.value, b.value, a.se)) for key, (a, b) in pairs.items()}


def thresholds(moments: Moments, exact: Moments, truth: torch.Tensor) -> dict[str, float]:
    """What the deviations of each statistic must stay below, in the standard errors printed.

    These come from 16 groups, so that a t distribution of 15 degrees of freedom allows 17 of them.
    All draws together know the error far better: the variance by the fourth moment of its radius,
    with as many degrees of freedom as draws carry it; the squared bias by the exact variance, had
    all noise one direction. The smaller threshold counts.
    """
    groups, n = moments.groups, moments.n
    assert groups is not None
    v, b2 = exact.variance.value, exact.bias2(truth).value
    spread = max(groups.radius4 / n - (groups.radius2 / n) ** 2, 0.0)
    of_variance = math.sqrt(spread / n) * limit(max(moments.effective_sample_size, 2.0))
    of_bias2 = math.hypot(math.sqrt(2) * v / n, 2 * math.sqrt(b2 * v / n)) * limit()
    allowed = {"variance": of_variance, "bias2": of_bias2, "mse": of_variance + of_bias2}
    printed = {
        "variance": moments.variance.se,
        "bias2": moments.bias2(truth).se,
        "mse": moments.mse(truth).se,
    }
    # Below rounding, `scores` counts rounding as the error.
    return {
        key: min(limit(GROUPS - 1), max(allowed[key] / se, limit())) if se > 1e-12 else limit(15)
        for key, se in printed.items()
    }


def measurable(claim, name: str) -> bool:
    return differentiable(name) or not claim.needs_gradient


def cells(claim, regimes: list[str] = REGIMES) -> list[tuple[str, str]]:
    names = [name for name in STATISTICAL if measurable(claim, name)]
    return list(itertools.product(names, regimes))


def test_the_comparisons_are_counted():
    count = sum(len(cells(claim)) for claim in CLAIMS if claim.exact and not claim.binary)
    # Six coordinates and three numbers a cell; the same again is more than what the others make.
    assert 2 * count * (6 + 3) <= COMPARISONS


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "regimes",
    [
        pytest.param(["moderate", "masked"], id="moderate and masked"),
        pytest.param(REGIMES, id="all", marks=pytest.mark.slow),
    ],
)
@estimators(one_each=True, exact=True)
@pytest.mark.few(5, "REINFORCE(baseline=0)-moderate and masked")
def test_draws_agree_with_exact_moments(claim, regimes):
    means, numbers, of_variance = {}, {}, []
    for cell in cells(claim, regimes):
        exact = enumeration(*cell).moments(claim.estimator)
        moments = measured(claim.estimator, *cell)
        means[cell] = worst_mean(moments, exact.mean)
        truth = enumeration(*cell).values.gradient
        found, allowed = deviations(moments, exact, truth), thresholds(moments, exact, truth)
        numbers |= {(*cell, key): abs(z) / allowed[key] for key, z in found.items()}
        of_variance += [found["variance"]] if exact.variance.value > 1e-12 else []
    assert {cell: z for cell, z in means.items() if z > limit()} == {}
    assert {cell: z for cell, z in numbers.items() if z > 1} == {}
    # One cell forgives a variance that is off by a fifth; all cells together do not. A variable of
    # the t distribution with d degrees of freedom has the variance d / (d - 2).
    spread = math.sqrt(len(of_variance) * (GROUPS - 1) / (GROUPS - 3))
    assert len(of_variance) >= 5 * len(regimes)
    assert abs(sum(of_variance)) / spread < limit()


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", STATISTICAL)
@pytest.mark.few(10)
def test_arsm_is_unbiased(name, logits):
    moments = measured(ARSM(), name, logits)
    assert worst_mean(moments, exact_gradient(loss_of(name), logits_of(logits))) < limit()


def relaxed_by_autograd(f, logits: torch.Tensor, tau: float, n: int) -> torch.Tensor:
    """GS by automatic differentiation of softmax((logits + Gumbel) / tau)."""
    leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
    noise = torch.empty_like(leaf).exponential_(generator=generator(77)).log().neg()
    f(torch.softmax((leaf + noise) / tau, -1)).sum().backward()
    return leaf.grad


def two_sample(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest deviation between two sets of draws, in mean and in mean square."""
    z = []
    for a, b in ((first, second), (first.square(), second.square())):
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        z.append(scores(a.mean(0), b.mean(0), error).abs().max())
    return float(max(z))


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", [n for n in STATISTICAL if differentiable(n)])
@pytest.mark.few(8)
def test_relaxed_gumbel_softmax_against_automatic_differentiation(name, logits):
    f, logits = loss_of(name), logits_of(logits)
    ours = GumbelSoftmax(0.7).draw(f, logits, DRAWS, generator(5))
    assert two_sample(ours, relaxed_by_autograd(f, logits, 0.7, DRAWS)) < limit()


def test_relaxed_gumbel_softmax_notices_another_temperature():
    f, logits = loss_of("quadratic"), logits_of("moderate")
    ours = GumbelSoftmax(0.8).draw(f, logits, DRAWS, generator(5))
    assert two_sample(ours, relaxed_by_autograd(f, logits, 0.7, DRAWS)) > limit()


def test_gs_st_and_gumbel_rao_of_one_sample_are_the_same():
    f, logits = loss_of("cubic"), logits_of("moderate")
    first = GumbelSoftmaxST(0.5).draw(f, logits, DRAWS, generator(1))
    second = GumbelRao(0.5, 1).draw(f, logits, DRAWS, generator(2))
    assert two_sample(first, second) < limit()


# Negative controls: planted errors.


@dataclass(frozen=True, repr=False)
class WithoutHalf(SampleOnlyEstimator):
    """ZGR that forgets the factor 1/2."""

    name = "without half"
    order = 2
    reference = "planted"

    def pullback(self, p, x, v):
        return 2 * ZGR().pullback(p, x, v)


@dataclass(frozen=True, repr=False)
class ForgetsOwnSample(LeaveOneOut):
    """RLOO with a baseline that contains the sample: too short by (m - 1) / m."""

    def estimate(self, f, logits, n, generator):
        value, estimate = super().estimate(f, logits, n, generator)
        return value, estimate * (self.m - 1) / self.m


@dataclass(frozen=True, repr=False)
class ProbabilitiesAsLogits(Reinforce):
    """REINFORCE that is given probabilities where it wants logits."""

    def estimate(self, f, logits, n, generator):
        return super().estimate(f, probabilities(logits), n, generator)


@dataclass(frozen=True, repr=False)
class WrongTau(GumbelSoftmaxST):
    """GS-ST at 1.5 times its temperature."""

    def draw(self, f, logits, n, generator=None):
        return GumbelSoftmaxST(1.5 * self.tau).draw(f, logits, n, generator)


@pytest.mark.parametrize("name", ["quadratic", "cubic", "mlp"])
@pytest.mark.parametrize(
    ("planted", "claimed"),
    [
        (WithoutHalf(), ZGR()),
        (ForgetsOwnSample(4), LeaveOneOut(4)),
        (ProbabilitiesAsLogits(), Reinforce()),
        (WrongTau(0.5), GumbelSoftmaxST(0.5)),
    ],
    ids=["without half", "forgets own sample", "probabilities as logits", "wrong temperature"],
)
@pytest.mark.few(3)
def test_a_planted_error_is_noticed(planted, claimed, name):
    exact = enumeration(name, "moderate").moments(claimed)
    truth = enumeration(name, "moderate").values.gradient
    moments = measured(planted, name, "moderate")
    found, allowed = deviations(moments, exact, truth), thresholds(moments, exact, truth)
    worst = max(abs(z) / allowed[key] for key, z in found.items())
    assert worst_mean(moments, exact.mean) > limit() or worst > 1


@pytest.mark.parametrize("text", ["RF(m=4)", "ZGR"])
def test_the_threshold_of_the_variance_is_below_that_of_sixteen_groups(text):
    """A variance that is off by a tenth is seen in one cell."""
    on, estimator = enumeration("quadratic", "moderate"), parse(text)
    exact, moments = on.moments(estimator), measured(estimator, "quadratic", "moderate")
    allowed = thresholds(moments, exact, on.values.gradient)["variance"]
    z = deviations(moments, exact, on.values.gradient)["variance"]
    assert abs(z) < allowed < limit(GROUPS - 1)
    off = scores(moments.variance.value, 1.1 * exact.variance.value, moments.variance.se)
    assert abs(float(off)) > allowed


@pytest.mark.parametrize("m", [2, 4])
def test_a_baseline_with_the_own_sample_is_noticed_by_its_mean(m):
    moments = measured(ForgetsOwnSample(m), "quadratic", "moderate")
    assert worst_mean(moments, enumeration("quadratic", "moderate").values.gradient) > limit()


# The law of sampling.


def class_p_value(p: torch.Tensor, claimed: torch.Tensor, n: int | None) -> float:
    """The p-value of drawing from p under the claimed probabilities, the smallest of all rows."""
    rows = 60_000
    shape = (rows, *p.shape) if n is None else p.shape
    drawn = draw_classes(p.expand(shape), generator(3), rows if n else None)
    counts = torch.nn.functional.one_hot(drawn, p.shape[-1]).sum(0)
    assert (counts[claimed == 0] == 0).all()
    return min(
        scipy.stats.chisquare(count[row > 0].numpy(), (rows * row[row > 0]).numpy()).pvalue
        for count, row in zip(counts, claimed, strict=True)
        if (row > 0).sum() > 1
    )


# Few and many classes are drawn by different means, and so are n draws of a row and one of each.
@pytest.mark.parametrize("n", [None, 1], ids=["each row once", "n of a row"])
@pytest.mark.parametrize("classes", [2, 3, 8, 9, 30])
@pytest.mark.parametrize("logits", ["uniform", "moderate", "masked"])
@pytest.mark.few(11)
def test_classes_are_drawn_with_their_probabilities(logits, classes, n):
    p = probabilities(logits_of(logits, 2, classes))
    assert class_p_value(p, p, n) > P_VALUE


@pytest.mark.parametrize("n", [None, 1], ids=["each row once", "n of a row"])
@pytest.mark.parametrize("classes", [3, 30])
def test_other_probabilities_are_noticed(classes, n):
    p = probabilities(logits_of("uniform", 1, classes))
    claimed = p.clone()
    claimed[0, :2] += torch.tensor([0.2, -0.2]) / classes
    assert class_p_value(p, claimed, n) < P_VALUE


@pytest.mark.parametrize("classes", [3, 9, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_samples_are_one_hot_and_avoid_masked_classes(dtype, classes):
    logits = logits_of("masked", 3, classes).to(dtype)
    x = draw_one_hot(probabilities(logits), generator(), 5000)
    assert x.dtype == dtype
    assert x.shape == (5000, 3, classes)
    assert ((x == 0) | (x == 1)).all()
    assert (x.sum(-1) == 1).all()
    assert (x[:, logits == -torch.inf] == 0).all()


def test_variables_are_drawn_independently():
    p = torch.full((3, 2), 0.5, dtype=torch.float64)
    joint = draw_classes(p, generator(), 40_000) @ torch.tensor([4, 2, 1])
    assert scipy.stats.chisquare(joint.bincount(minlength=8).numpy()).pvalue > P_VALUE


def relaxed_p_value(tau: float, claimed: float) -> float:
    """The smallest p-value over coordinates of y given x, x drawn, against plain Gumbel-softmax."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).expand(20_000, 4)
    y = relaxed_given(p, draw_one_hot(p, generator(1)), tau, generator=generator(2))
    noise = torch.empty_like(p).exponential_(generator=generator(3)).log().neg()
    plain = torch.softmax((p.log() + noise) / claimed, -1)
    return min(
        scipy.stats.ks_2samp(a.numpy(), b.numpy()).pvalue for a, b in zip(y.T, plain.T, strict=True)
    )


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 3.0])
def test_relaxed_samples_given_a_class_mix_to_gumbel_softmax(tau):
    assert relaxed_p_value(tau, tau) > P_VALUE


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.few(2)
def test_relaxed_samples_of_another_temperature_are_noticed(tau):
    assert relaxed_p_value(1.3 * tau, tau) < P_VALUE


def test_the_given_class_is_the_largest():
    p = probabilities(logits_of("moderate", 4, 5)).expand(1000, 4, 5)
    x = draw_one_hot(p, generator())
    y = relaxed_given(p, x, 0.5, generator=generator())
    assert torch.equal(y.argmax(-1), x.argmax(-1))
    torch.testing.assert_close(y.sum(-1), torch.ones(1000, 4, dtype=y.dtype))


# Standard errors tell the truth, and results do not depend on how they were computed.


@cache
def repeated_scores() -> dict[str, list[float]]:
    """Scores of 160 short runs of an estimator whose moments are known."""
    f, logits = loss_of("cubic"), logits_of("moderate")
    exact = enumeration("cubic", "moderate").moments(StraightThrough())
    truth = exact_gradient(f, logits)
    runs = [monte_carlo(StraightThrough(), f, logits, 640, seed) for seed in range(160)]
    columns = [deviations(run, exact, truth) for run in runs]
    z = {key: [column[key] for column in columns] for key in columns[0]}
    return z | {"mean": [float(scores(r.mean, exact.mean, r.mean_se)[0, 0]) for r in runs]}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("quantity", ["mean", "variance", "bias2", "mse"])
@pytest.mark.few(1)
def test_standard_errors_are_calibrated(quantity):
    z = repeated_scores()[quantity]
    law = scipy.stats.t(639 if quantity == "mean" else GROUPS - 1).cdf
    assert scipy.stats.kstest(z, law).pvalue > P_VALUE
    # The same with a standard error of a third of the size.
    assert scipy.stats.kstest([3 * value for value in z], law).pvalue < ALPHA


def same(first: Moments, second: Moments) -> bool:
    return (
        torch.equal(first.mean, second.mean)
        and torch.equal(first.variance_per_variable, second.variance_per_variable)
        and (first.variance, first.variance.se) == (second.variance, second.variance.se)
        and first.effective_sample_size == second.effective_sample_size
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("options", [{"workers": 3, "chunk": 2}], ids=str)
@estimators(one_each=True)
@pytest.mark.few(12)
def test_chunks_and_workers_change_no_bit(claim, options, monkeypatch):
    monkeypatch.setattr(montecarlo, "_BLOCK_ELEMENTS", 6 * 7 * 32)
    f, logits = loss_of("cubic"), logits_of("masked")
    reference = monte_carlo(claim.estimator, f, logits, 607, seed=4)
    assert block_size(claim.estimator, 2, 3) * 2 < 607
    assert same(monte_carlo(claim.estimator, f, logits, 607, seed=4, **options), reference)


def test_threads_of_torch_change_no_bit():
    f, logits = loss_of("mlp"), logits_of("moderate")
    reference = monte_carlo(ZGR(), f, logits, 1000, seed=4)
    torch.set_num_threads(2)
    try:
        assert same(monte_carlo(ZGR(), f, logits, 1000, seed=4), reference)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("other", [{"seed": 5}, {"row": "another"}], ids=str)
def test_seed_and_row_change_the_draws(other):
    f, logits = loss_of("cubic"), logits_of("moderate")
    reference = monte_carlo(ZGR(), f, logits, 100, seed=4)
    assert not same(monte_carlo(ZGR(), f, logits, 100, **{"seed": 4} | other), reference)


@pytest.mark.parametrize("draws", [32, 33, 47, 1000])
def test_every_draw_is_counted_once(draws, monkeypatch):
    monkeypatch.setattr(montecarlo, "_BLOCK_ELEMENTS", 6 * 48)
    monkeypatch.setattr(montecarlo, "tabled", lambda f, *_: f)  # f sees what is drawn
    seen = []

    def f(x):
        seen.append(len(x))
        return x[..., 0].sum(-1)

    moments = monte_carlo(Reinforce(), f, logits_of("moderate"), draws)
    assert moments.n == draws == sum(seen[4:])  # the gate calls f four times before
    assert float(moments.groups.count.sum()) == draws


def test_the_global_generator_is_left_alone(monkeypatch):
    seen = []
    draw = values.draw_classes
    monkeypatch.setattr(values, "draw_classes", lambda p, g, n: seen.append(g) or draw(p, g, n))
    before = torch.get_rng_state()
    monte_carlo(Reinforce(), loss_of("table"), logits_of("moderate"), 100)
    assert all(isinstance(g, torch.Generator) for g in seen)
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_have_draws_of_their_own(monkeypatch):
    monkeypatch.setattr(montecarlo, "_BLOCK_ELEMENTS", 6 * 64)
    monkeypatch.setattr(montecarlo, "tabled", lambda f, *_: f)  # f sees what is drawn
    f, seen = loss_of("cubic"), []
    moments = monte_carlo(
        StraightThrough(),
        lambda x: seen.append(x.detach().argmax(-1).clone()) or f(x),
        logits_of("uniform"),
        64 * 60,
    )
    blocks = torch.stack(seen[4:]).flatten(1)  # without the calls of the gate
    assert len(blocks.unique(dim=0)) == len(blocks) == 60
    # Standard errors would be too small if blocks repeated each other.
    exact = enumeration("cubic", "uniform").moments(StraightThrough())
    assert worst_mean(moments, exact.mean) < limit()


def test_streams_depend_on_seed_row_and_block():
    named = itertools.product((0, 1, 2**63 - 1), ("", "ZGR", "ZGR|0", "quadratic|ZGR"), (0, 1, 10))
    seeds = [block_generator(*key).initial_seed() for key in named]
    assert len(set(seeds)) == len(seeds) == 36


def test_streams_are_the_same_everywhere():
    assert block_generator(0, "quadratic|ZGR", 1).initial_seed() == 2892257404259623022


@pytest.mark.parametrize("n", [2, 17, 40])
def test_the_variance_of_draws_is_over_one_less_than_their_number(n):
    g = torch.randn(n, 2, 3, generator=generator(), dtype=torch.float64)
    found = Moments.from_groups(Groups.from_draws(g)).variance_per_variable
    torch.testing.assert_close(found, g.var(0).sum(-1), rtol=1e-12, atol=0)
