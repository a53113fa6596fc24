"""MuProp, the double control variate and RODEO: unbiased whatever their coefficients."""

import math

import pytest
import torch

from cases import all_states, generator, logits_of, loss_of, state_probabilities
from gradlab.categorical import probabilities
from gradlab.estimators import RODEO, DoubleCV, LeaveOneOut, MuProp, Reinforce
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.loss import gradient, value_and_gradient
from gradlab.verification.exact_bias import exact_bias
from test_golden import FUNCTIONS, SIZES, distance, enumeration, golden, recipe
from test_golden import logits_of as golden_logits

GOLDEN = {
    "MuProp": MuProp(),
    "DoubleCV(M=2,alpha=-1)": DoubleCV(2, -1.0),
    "RODEO-lin(M=2,alpha=-1,beta=0.5)": RODEO(2, -1.0, 0.5),
}
REGIMES = ["uniform", "moderate", "peaked", "masked"]


@pytest.mark.parametrize("estimator", GOLDEN)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden_mean_and_variance(name, size, estimator):
    expected = golden(size, name, estimator)
    moments = enumeration(size, name).moments(GOLDEN[estimator])
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["cubic", "mlp"])
@pytest.mark.parametrize(
    "estimator",
    [MuProp(), DoubleCV(), DoubleCV(3, 0.7), DoubleCV(2, 0.0), RODEO(), RODEO(3, 1.6, -0.8)],
    ids=str,
)
@pytest.mark.few(16)
def test_unbiased_by_enumeration(estimator, name, logits):
    result = exact_bias(estimator, loss_of(name), logits_of(logits))
    assert result.is_zero
    assert result.size < 1e-12


class OwnSample(DoubleCV):
    """DoubleCV that takes the gradient at the own sample too: a control variate off centre."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        p = probabilities(logits)
        x = torch.nn.functional.one_hot(classes, p.shape[-1]).to(p.dtype)
        own = (gradient(f, x) * (x - p)).sum((-2, -1))[..., None, None] * (x - p)
        return value, estimate + own.mean(0)


def test_a_control_variate_with_the_own_sample_is_found():
    f, logits = loss_of("quadratic"), logits_of("moderate")
    assert not exact_bias(OwnSample(), f, logits).is_zero


@pytest.mark.parametrize("m", [2, 3])
def test_without_its_correction_the_double_control_variate_is_leave_one_out(m):
    f, logits = loss_of("mlp"), logits_of("moderate")
    found = DoubleCV(m, 0.0).draw(f, logits, 50, generator())
    expected = LeaveOneOut(m).draw(f, logits, 50, generator())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("estimator", [MuProp(), DoubleCV(2, -1.0), DoubleCV(4, -1.0)], ids=str)
def test_linear_losses_leave_no_variance(estimator, logits):
    f, logits = loss_of("linear"), logits_of(logits)
    g = estimator.draw(f, logits, 100, generator())
    truth = exact_gradient(f, logits).expand(100, -1, -1)
    torch.testing.assert_close(g, truth, rtol=0, atol=1e-13)


def test_muprop_can_be_worse_than_reinforce():
    """On the cubic of the fixtures at doubled logits of one variable of five classes."""
    logits = 2 * torch.sin(1 + torch.arange(5, dtype=torch.float64)).unsqueeze(0)
    f = recipe("cubic", 1, 5)
    variances = [exact_moments(e, f, logits).variance.value for e in (MuProp(), Reinforce())]
    assert variances == pytest.approx([0.0116, 0.0034], abs=1e-4)


def test_the_gibbs_stein_operator_in_closed_form():
    """What RODEO adds for alpha and beta, by the operator itself, state by state."""
    f, logits = loss_of("cubic"), logits_of("moderate")
    p, states = probabilities(logits), all_states(2, 3)
    slope = torch.randn(2, 3, dtype=torch.float64, generator=generator())

    def operator(h, x):
        total = 0.0
        for i in range(2):
            moved = x.repeat(3, 1, 1)
            moved[:, i] = torch.eye(3)
            total = total + sum(p[i, c] * h(moved[c]) for c in range(3)) - h(x)
        return total / 2

    def linear(y):
        return (slope * y).sum()

    def direct(y):
        return (slope * (y - p)).sum() * (y - p)

    one = torch.stack([operator(linear, x) for x in states])
    s = states - p
    w = (slope * s).sum((-2, -1))
    torch.testing.assert_close(one, -w / 2, rtol=0, atol=1e-14)
    other = torch.stack([operator(direct, x) for x in states])
    product = p * (slope - (p * slope).sum(-1, keepdim=True))
    closed = product - 2 * w[:, None, None] * s + (slope * s).sum(-1, keepdim=True) * s
    torch.testing.assert_close(other, closed / 2, rtol=0, atol=1e-14)
    mean = torch.einsum("s,snc->nc", state_probabilities(logits), other)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-14)
    assert RODEO(2, 0.0, 0.0).draw(f, logits, 3, generator()).shape == (3, 2, 3)


# Measured by exact moments of the best coefficients: estimators.md, sections 6.
BEST = [
    (DoubleCV(2), (2, 3), "quadratic", [-0.781], 0.578),
    (DoubleCV(2), (4, 2), "quadratic", [-0.929], 2.147),
    (DoubleCV(2), (2, 3), "cubic", [-0.165], 0.134),
    (RODEO(2), (2, 3), "quadratic", [1.60, 0.84], 0.632),
    (RODEO(2), (4, 2), "quadratic", [3.62, 1.87], 2.167),
]


@pytest.mark.parametrize(("estimator", "size", "name", "best", "variance"), BEST)
@pytest.mark.few(2)
def test_fit_finds_the_best_coefficients(estimator, size, name, best, variance):
    f, logits = recipe(name, *size), golden_logits(size)
    before = str(estimator)
    fitted = estimator.fit(f, logits, 20_000, generator())
    assert str(estimator) == before
    found = [getattr(fitted, c) for c in estimator.fitted_fields]
    assert found == pytest.approx(best, rel=0.08)
    at_best = exact_moments(fitted, f, logits)
    assert at_best.variance.value == pytest.approx(variance, rel=0.005)
    assert distance(at_best.mean, exact_gradient(f, logits)) < 1e-12
    assert estimator.fit(f, logits, 20_000, generator()) == fitted


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("draws", [0, 1, 2.5, None])
def test_bad_draws_to_fit(draws):
    with pytest.raises(ValueError, match="draws must be an int of at least 2, not"):
        DoubleCV().fit(loss_of("mlp"), logits_of("moderate"), draws)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None])
def test_bad_coefficients(value):
    for bad in (lambda: DoubleCV(2, value), lambda: RODEO(2, value), lambda: RODEO(2, 1.0, value)):
        with pytest.raises(ValueError, match=r"(alpha|beta) must be a finite number, not"):
            bad()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("m", [1, 0, 2.0, None])
@pytest.mark.parametrize("cls", [DoubleCV, RODEO])
def test_bad_numbers_of_samples(cls, m):
    with pytest.raises(ValueError, match="m must be an int >= 2"):
        cls(m)


def test_values_and_gradients_come_from_one_evaluation():
    f, x = loss_of("mlp"), all_states(2, 3)
    calls = []
    value, v = value_and_gradient(lambda x: calls.append(1) or f(x), x)
    assert len(calls) == 1
    assert torch.equal(value.detach(), f(x))
    assert torch.equal(v, gradient(f, x))
