"""The ReinMax family: what it is the same as, and the biases of its published forms."""

import pytest
import torch

from cases import generator, logits_of, loss_of
from gradlab.categorical import draw_one_hot, probabilities, relaxed_given, tempered
from gradlab.estimators import (
    DARN,
    RK2,
    STZGR,
    ZGR,
    PublishedReinMaxCV,
    ReinMax,
    ReinMaxCV,
    ReinMaxRao,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.montecarlo import monte_carlo
from significance import limit, scores
from test_golden import logits_of as golden_logits
from test_golden import recipe

REGIMES = ["uniform", "moderate", "peaked", "masked"]
SIZE = (2, 3)


def linear():
    return recipe("linear", *SIZE), golden_logits(SIZE)


def relative_bias(mean, f, logits) -> float:
    truth = exact_gradient(f, logits)
    return float((mean - truth).norm() / truth.norm())


def exact_bias(estimator) -> float:
    f, logits = linear()
    return relative_bias(exact_moments(estimator, f, logits).mean, f, logits)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize(
    ("estimator", "other"),
    [(ReinMax(1.0), ZGR()), (RK2(1.0), ZGR()), (RK2(0.5), DARN()), (RK2(2 / 3), STZGR(1.5))],
    ids=str,
)
def test_the_same_estimate_draw_by_draw(estimator, other, logits):
    f, logits = loss_of("cubic"), logits_of(logits)
    drawn, expected = (e.draw(f, logits, 200, generator()) for e in (estimator, other))
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("alpha", [0.6, 2 / 3, 1.0, 4.0])
def test_rk2_is_two_products(alpha):
    p, w = probabilities(logits_of("moderate")), 1 / (2 * alpha)
    x, v = draw_one_hot(p, generator(), 50), torch.randn(50, 2, 3, generator=generator()).double()

    def product(q):
        return q * (v - (q * v).sum(-1, keepdim=True))

    expected = product((1 - w) * p + w * x) / (1 - w) - w * product(p)
    torch.testing.assert_close(RK2(alpha).pullback(p, x, v), expected, rtol=0, atol=1e-12)


# ---- biases that published forms have --------------------------------------------------------


@pytest.mark.parametrize("tau", [0.3, 0.7, 1.5, 3.0])
def test_reinmax_of_another_temperature_is_biased_for_linear_f(tau):
    f, logits = linear()
    p = probabilities(logits)
    r = tempered(p, tau)
    d = r - p
    expected = r * (f.b - (r * f.b).sum(-1, keepdim=True)) + d * (d * f.b).sum(-1, keepdim=True) / 2
    mean = exact_moments(ReinMax(tau), f, logits).mean
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-13)
    assert relative_bias(mean, f, logits) > 0.04


def test_reinmax_at_one_and_a_half_is_biased_by_eight_percent():
    assert exact_bias(ReinMax(1.5)) == pytest.approx(0.0784, abs=5e-4)


@pytest.mark.parametrize("alpha", [0.5, 2 / 3, 1.0, 4.0])
def test_rk2_as_published_is_off_by_a_factor_for_linear_f(alpha):
    # Their code: the centre of Heun's rule, (p + x) / 2, at every alpha.
    f, logits = linear()
    p, x, w = probabilities(logits), torch.eye(3, dtype=torch.float64)[:, None], 1 / (2 * alpha)
    middle = (1 - w) * p + w * x  # [class of x, N, C]
    moved = 2 * (middle * f.b - (p + x) / 2 * (middle * f.b).sum(-1, keepdim=True))
    estimates = moved - w * p * (f.b - (p * f.b).sum(-1, keepdim=True))
    mean = torch.einsum("nk,knc->nc", p, estimates)
    expected = (2 - 1 / alpha) * exact_gradient(f, logits)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("tau", "expected"), [(1.0, 0.355), (0.5, 0.274), (0.1, 0.432), (0.02, 0.486)]
)
def test_reinmax_rao_is_biased_for_linear_f(tau, expected):
    assert exact_bias(ReinMaxRao(tau, None)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
def test_reinmax_rao_tends_to_half_of_darn(logits):
    p = probabilities(logits_of(logits))
    half = DARN().conditional_jacobians(p)[0] / 2
    present = (p > 0)[..., None, None]
    distance = [
        float(((ReinMaxRao(tau, None).conditional_jacobians(p)[0] - half) * present).norm())
        for tau in (0.1, 0.01)
    ]
    assert distance[1] < 0.02
    assert distance[0] / distance[1] == pytest.approx(10, rel=0.2)  # linear in tau


# ---- the control variate ---------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 4])
@pytest.mark.parametrize("name", ["quadratic", "cubic"])
def test_the_corrected_control_variate_adds_variance_and_no_bias(name, k):
    f, logits = recipe(name, *SIZE), golden_logits(SIZE)
    of = {c: exact_moments(ReinMaxCV(0.5, c, k), f, logits) for c in (0.0, 0.3, 0.6)}
    zgr = exact_moments(ZGR(), f, logits)
    added = {c: m.variance.value - zgr.variance.value for c, m in of.items()}
    torch.testing.assert_close(of[0.6].mean, zgr.mean, rtol=0, atol=1e-12)
    assert added[0.0] == pytest.approx(0, abs=1e-12)
    assert added[0.6] == pytest.approx(4 * added[0.3], rel=1e-9)
    assert added[0.3] > 0.01 * zgr.variance.value


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 0.114), (0.5, 0.240), (0.1, 0.267)])
@pytest.mark.few(1)
def test_the_published_control_variate_has_a_mean(tau, expected):
    f, logits = linear()
    truth = exact_gradient(f, logits)
    n = 40_000
    m = monte_carlo(PublishedReinMaxCV(tau, 0.5, 4), f, logits, n, seed=1)
    # The bias of the sheet is a length: compare squared lengths, without bias and with their error.
    found, wanted = m.bias2(truth), (expected * float(truth.norm())) ** 2
    rounding = 2 * 0.0006 * expected * float(truth.norm()) ** 2
    assert abs(found.value - wanted) < limit(15) * found.se + rounding
    corrected = monte_carlo(ReinMaxCV(tau, 0.5, 4), f, logits, n, seed=1)
    assert scores(corrected.mean, truth, corrected.mean_se).abs().max() < limit()
    assert scores(m.mean, truth, m.mean_se).abs().max() > limit()


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
def test_the_published_noise_is_that_of_the_forward_pass(logits):
    # The same law from unconditional Gumbel noise, of which x is the argmax.
    p, tau, n = probabilities(logits_of(logits)), 0.5, 40_000
    log_g = -torch.empty(n, 2, 3, dtype=torch.float64).exponential_(generator=generator(1)).log()
    z = p.log() + log_g
    x = torch.nn.functional.one_hot(z.argmax(-1), 3).double()
    direct = torch.softmax((((p + x) / 2).log() + log_g) / tau, -1)
    estimator = PublishedReinMaxCV(tau, 0.5, 1)
    x = draw_one_hot(p, generator(2), n)
    (given,) = next(estimator._noise(p, x, generator(3)))
    for power in (1, 2):
        a, b = direct**power, given**power
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert scores(a.mean(0), b.mean(0), error).abs().max() < limit()
    (other,) = relaxed_given((p + x) / 2, x, tau, generator(3)).unsqueeze(0)
    a, b = direct**2, other**2
    assert scores(a.mean(0), b.mean(0), ((a.var(0) + b.var(0)) / n).sqrt()).abs().max() > limit()


# ---- arguments -------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReinMax(0), "tau must be a positive finite number"),
        (lambda: RK2(0), "alpha must be a positive finite number"),
        (lambda: ReinMaxRao(0.5, 0), "k must be a positive int"),
        (lambda: ReinMaxCV(0.5, float("nan")), "c must be a finite number"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
