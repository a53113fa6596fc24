"""Straight-through with temperatures or gaps: its biases, and the law of decoupled noise."""

import math

import pytest
import torch
import torch.nn.functional as F

from cases import generator, logits_of, loss_of
from gradlab.categorical import probabilities
from gradlab.estimators import (
    AdaptiveGappedStraightThrough,
    DecoupledGumbelSoftmaxST,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmaxST,
    StraightThrough,
    TemperedStraightThrough,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.montecarlo import monte_carlo
from significance import limit, scores
from test_golden import logits_of as golden_logits
from test_golden import recipe

REGIMES = ["uniform", "moderate", "peaked", "masked"]


@pytest.mark.parametrize("logits", REGIMES)
def test_at_temperature_one_it_is_straight_through(logits):
    f, logits = loss_of("cubic"), logits_of(logits)
    drawn, expected = (
        e.draw(f, logits, 100, generator())
        for e in (TemperedStraightThrough(1.0), StraightThrough())
    )
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("tau", [0.2, 0.5, 3.0])
def test_the_mean_for_linear_f_is_the_jacobian_of_the_tempered_softmax(tau):
    f, logits = recipe("linear", 2, 3), golden_logits((2, 3)).requires_grad_()
    (expected,) = torch.autograd.grad((torch.softmax(logits / tau, -1) * f.b).sum(), logits)
    mean = exact_moments(TemperedStraightThrough(tau), f, logits.detach()).mean
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-13)


# ---- gaps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize(
    "estimator", [GappedStraightThrough(0.7, 0.5), AdaptiveGappedStraightThrough(0.5)], ids=str
)
def test_the_estimate_is_that_of_shifted_logits(estimator, logits):
    logits = logits_of(logits)
    p, tau = probabilities(logits), estimator.tau
    k = torch.tensor([1, 0])  # classes that no regime masks
    x, v = F.one_hot(k, 3).double(), torch.randn(2, 3, generator=generator()).double()
    top, at_k = logits.amax(-1), p[[0, 1], k]
    gap = getattr(estimator, "gap", -torch.log(1 - at_k) / at_k)
    target = torch.minimum(logits, (top - gap).unsqueeze(-1))
    target[[0, 1], k] = top
    # The published form: a shift that is a constant, and automatic differentiation.
    leaf = logits.clone().requires_grad_()
    shift = torch.where(logits == -math.inf, 0.0, target - logits)
    (torch.softmax((leaf + shift) / tau, -1) * v).sum().backward()
    torch.testing.assert_close(estimator.pullback(p, x, v), leaf.grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ahead", [18.0, 38.0, 60.0])
def test_the_adaptive_gap_of_a_class_whose_probability_rounds_to_one(ahead):
    # Two classes: -log(1 - p_0) = log(1 + e^ahead), and q_1 = sigmoid(-gap / tau).
    logits, x, v = torch.tensor([[[ahead, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    p, tau = probabilities(logits), 10.0
    gap = torch.logaddexp(logits[:, :1], logits[:, 1:]) / p[:, :1]
    spread = torch.sigmoid(gap / tau) * torch.sigmoid(-gap / tau) / tau
    expected, estimator = torch.cat([-spread, spread], -1), AdaptiveGappedStraightThrough(tau)
    torch.testing.assert_close(estimator.pullback(p, x, v), expected, rtol=1e-12, atol=0)
    single = estimator.pullback(p.float(), x.float(), v.float()).double()
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=0)


def test_gaps_lower_the_variance_of_straight_through():
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    st = exact_moments(StraightThrough(), f, logits).variance.value
    for estimator in (GappedStraightThrough(), AdaptiveGappedStraightThrough()):
        assert exact_moments(estimator, f, logits).variance.value < st


# ---- decoupled temperatures ------------------------------------------------------------------


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 0.327), (0.5, 0.320), (2.0, 0.662)])
def test_decoupled_mean_for_linear_f_by_quadrature(tau, expected):
    # Two classes: y_1 = sigmoid(t), t = difference of logits / tau + logistic noise.
    f, logits = recipe("linear", 4, 2), golden_logits((4, 2))
    middle = (logits[:, 1] - logits[:, 0]).unsqueeze(-1) / tau
    noise = torch.linspace(-45, 45, 40_001, dtype=torch.float64)
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)
    t = middle + noise
    spread = torch.trapezoid(torch.sigmoid(t) * torch.sigmoid(-t) * density, noise)
    one = (f.b[:, 1] - f.b[:, 0]) * spread / tau
    mean, truth = torch.stack([-one, one], -1), exact_gradient(f, logits)
    assert (mean - truth).norm() / truth.norm() == pytest.approx(expected, abs=6e-4)
    drawn = monte_carlo(DecoupledGumbelSoftmaxST(1.0, tau), f, logits, 30_000, seed=1)
    assert scores(drawn.mean, mean, drawn.mean_se).abs().max() < limit()
    assert scores(drawn.mean, truth, drawn.mean_se).abs().max() > limit()


@pytest.mark.parametrize(("forward", "tau"), [(1.0, 0.4), (0.5, 1.0), (2.0, 0.7)])
@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.few(3)
def test_decoupled_noise_is_one_for_both_temperatures(logits, forward, tau):
    logits, n = logits_of(logits), 20_000
    estimator = DecoupledGumbelSoftmaxST(forward, tau)
    x, (y,) = estimator._pair(logits, generator(1), n, None)
    g = -torch.empty(n, 2, 3, dtype=torch.float64).exponential_(generator=generator(2)).log()
    hard = F.one_hot((logits / forward + g).argmax(-1), 3).double()
    soft = torch.softmax(logits / tau + g, -1)
    for a, b in ((x, hard), (y, soft), (x * y, hard * soft), (y**2, soft**2)):
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert scores(a.mean(0), b.mean(0), error).abs().max() < limit()


@pytest.mark.parametrize(("dtype", "forward"), [(torch.float32, 0.02), (torch.float64, 1e-3)])
def test_a_small_forward_temperature_leaves_the_relaxed_sample_its_law(dtype, forward):
    # softmax(logits / forward) underflows; y is the Gumbel-softmax of logits / tau all the same.
    logits, n = torch.tensor([[0.0, -3.0, -2.0]], dtype=dtype), 10_000
    _, (y,) = DecoupledGumbelSoftmaxST(forward, 1.0)._pair(logits, generator(1), n, None)
    g = -torch.empty(n, 1, 3, dtype=torch.float64).exponential_(generator=generator(2)).log()
    y, soft = y.double(), torch.softmax(logits.double() + g, -1)
    for a, b in ((y, soft), (y**2, soft**2)):
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert scores(a.mean(0), b.mean(0), error).abs().max() < limit()


def test_other_noise_is_noticed():
    logits, n = logits_of("moderate"), 20_000
    _, (y,) = DecoupledGumbelSoftmaxST(1.0, 0.4)._pair(logits, generator(1), n, None)
    _, (other,) = DecoupledGumbelSoftmaxST(1.0, 0.5)._pair(logits, generator(2), n, None)
    error = (((y**2).var(0) + (other**2).var(0)) / n).sqrt()
    assert scores((y**2).mean(0), (other**2).mean(0), error).abs().max() > limit()


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.few(2)
def test_decoupled_at_temperatures_of_one_is_gs_st(logits):
    f, logits = loss_of("cubic"), logits_of(logits)
    exact = exact_moments(GumbelSoftmaxST(1.0), f, logits)
    drawn = monte_carlo(DecoupledGumbelSoftmaxST(1.0, 1.0), f, logits, 20_000, seed=3)
    assert scores(drawn.mean, exact.mean, drawn.mean_se).abs().max() < limit()
    assert abs(scores(drawn.variance.value, exact.variance.value, drawn.variance.se)) < limit(15)


# ---- one law, two ways -----------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_gumbel_rao_of_one_sample_has_the_law_of_unconditional_gumbel_noise(tau):
    f, logits, n = loss_of("cubic"), logits_of("moderate"), 30_000

    def torchs_own(f, logits, n, seed):  # x and y from the same noise, none given x
        torch.manual_seed(seed)
        leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
        f(F.gumbel_softmax(leaf, tau, hard=True)).sum().backward()
        return leaf.grad

    with torch.random.fork_rng():
        theirs = torchs_own(f, logits, n, seed=4)
    ours = GumbelRao(tau, 1).draw(f, logits, n, generator(5))
    for a, b in ((ours, theirs), (ours**2, theirs**2), (ours.prod(-1), theirs.prod(-1))):
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert scores(a.mean(0), b.mean(0), error).abs().max() < limit()
    two = GumbelRao(tau, 2).draw(f, logits, n, generator(5)) ** 2
    error = ((two.var(0) + (theirs**2).var(0)) / n).sqrt()
    assert scores(two.mean(0), (theirs**2).mean(0), error).abs().max() > limit()


# ---- arguments -------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperedStraightThrough(0), "tau must be a positive finite number"),
        (lambda: GappedStraightThrough(-1.0), "gap must be a finite number of at least 0"),
        (lambda: GappedStraightThrough(math.inf), "gap must be a finite number of at least 0"),
        (lambda: AdaptiveGappedStraightThrough(-1.0), "tau must be a positive finite number"),
        (lambda: DecoupledGumbelSoftmaxST(0.0), "forward must be a positive finite number"),
        (lambda: DecoupledGumbelSoftmaxST(1.0, 0.0), "tau must be a positive finite number"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
