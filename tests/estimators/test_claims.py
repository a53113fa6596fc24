"""Exact claims: the declared order is the measured order, and the identities between estimators."""

import itertools
import math

import pytest
import torch

from cases import (
    CLAIMS,
    LADDER,
    STATISTICAL,
    all_states,
    enumerated_estimates,
    estimators,
    generator,
    logits_of,
    loss_of,
    state_probabilities,
)
from gradlab.categorical import probabilities
from gradlab.estimators import (
    ARSM,
    DARN,
    ESTIMATORS,
    IMLE,
    OF_STRUCTURES,
    STZGR,
    ZGR,
    GumbelRao,
    GumbelSoftmaxST,
    LeaveOneOut,
    SampledValueEstimator,
    StraightThrough,
    arsm,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.exact.tuples import tuple_moments
from gradlab.montecarlo import monte_carlo
from gradlab.problems import problem, regime
from significance import limit, scores

SIZES = [(1, 2), (1, 4), (2, 3), (3, 2), (3, 3)]


def test_every_estimator_has_a_row_of_claims():
    # I-MLE is of structures, and independent rows are one; the others are tested on theirs.
    assert {type(claim.estimator) for claim in CLAIMS} == {*ESTIMATORS.values(), IMLE}


def mean_of_code(estimator, f, logits) -> torch.Tensor:
    """The mean of the code that runs, at every tuple of its samples where it takes any.

    The moments of REINFORCE and RF are formulas, and their mean is the gradient by definition:
    claims that were tested by them would stand whatever the code does.
    """
    if isinstance(estimator, SampledValueEstimator):
        return tuple_moments(estimator, f, logits)[0]
    return exact_moments(estimator, f, logits).mean


def relative_bias(estimator, f, logits) -> float:
    truth = exact_gradient(f, logits)
    bias = (mean_of_code(estimator, f, logits) - truth).norm()
    return float(bias / truth.norm().clamp_min(1e-3))


@pytest.mark.parametrize("name", LADDER)
@estimators(exact=True, levels=False)
@pytest.mark.few(60)
def test_measured_order_is_the_declared_order(claim, name):
    assert claim.estimator.order == claim.order
    bias = relative_bias(claim.estimator, problem(name, 2, 3, 0), regime("moderate", 2, 3, 0))
    if LADDER[name] <= claim.order:
        assert bias <= 1e-12
    else:
        assert bias > 1e-4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", LADDER)
@estimators(exact=False)
@pytest.mark.few(13)
def test_order_measured_from_draws_is_the_declared_order(claim, name):
    assert claim.estimator.order == claim.order
    f, logits = loss_of(name), logits_of("moderate")
    moments = monte_carlo(claim.estimator, f, logits, 40_000, seed=2)
    worst = scores(moments.mean, exact_gradient(f, logits), moments.mean_se).abs().max()
    if LADDER[name] <= claim.order:
        assert worst < limit()
    else:
        assert worst > limit()


@pytest.mark.parametrize("name", STATISTICAL)
@estimators(exact=True, order=math.inf, needs_gradient=False)
@pytest.mark.few(60)
def test_unbiased_for_any_loss(claim, name):
    assert relative_bias(claim.estimator, loss_of(name), logits_of("moderate")) <= 1e-12


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("logits", ["uniform", "moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.few(14)
def test_zgr_is_unbiased_on_every_quadratic(size, logits, seed):
    f, logits = problem("quadratic", *size, seed), regime(logits, *size, seed)
    assert relative_bias(ZGR(), f, logits) <= 1e-12


@pytest.mark.parametrize("name", ["quadratic", "multiquadratic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.few(4)
def test_biases_on_the_line_from_st_to_darn(size, name):
    f, logits = problem(name, *size, 1), regime("moderate", *size, 1)
    truth = exact_gradient(f, logits)
    bias = {
        estimator: exact_moments(estimator, f, logits).mean - truth
        for estimator in (StraightThrough(), DARN(), STZGR(0.5), STZGR(1.3))
    }
    of_st = bias[StraightThrough()]
    assert of_st.norm() > 1e-3
    torch.testing.assert_close(bias[DARN()], -of_st, rtol=0, atol=1e-14)
    torch.testing.assert_close(bias[STZGR(0.5)], 0.5 * of_st, rtol=0, atol=1e-14)
    torch.testing.assert_close(bias[STZGR(1.3)], -0.3 * of_st, rtol=0, atol=1e-14)


# The same function of the noise, draw by draw.


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize(
    ("alpha", "other"), [(0.0, StraightThrough()), (1.0, ZGR()), (2.0, DARN())], ids=str
)
def test_st_zgr_passes_through_st_zgr_and_darn(alpha, other, logits):
    f, logits = loss_of("cubic"), logits_of(logits)
    drawn = STZGR(alpha).draw(f, logits, 100, generator())
    torch.testing.assert_close(
        drawn, other.draw(f, logits, 100, generator()), rtol=1e-14, atol=1e-14
    )


def reinmax_formula(p, x, v):
    """2 V(pi) v - V(p) v / 2 with pi = (p + x) / 2 and V(q) v = q (v - q.v), Liu et al. 2023."""

    def product(q):
        return q * (v - (q * v).sum(-1, keepdim=True))

    return 2 * product((p + x) / 2) - product(p) / 2


def reinmax_code(f, logits, x):
    """The published code at temperature 1, by automatic differentiation (Liu et al. 2023)."""
    logits = logits.expand(x.shape).clone().requires_grad_()
    pi_0 = logits.softmax(-1)
    pi_1 = (x + pi_0) / 2
    pi_1 = torch.softmax((pi_1.log() - logits).detach() + logits, -1)
    pi_2 = 2 * pi_1 - 0.5 * pi_0
    f(pi_2 - pi_2.detach() + x).sum().backward()
    return logits.grad


@pytest.mark.parametrize("logits", ["uniform", "moderate", "peaked"])
@pytest.mark.parametrize("name", ["quadratic", "cubic", "mlp"])
def test_zgr_is_reinmax_at_temperature_one(name, logits):
    f, logits, x = loss_of(name, 3), logits_of(logits, 3), all_states(3, 3)
    ours = enumerated_estimates(ZGR(), f, logits)
    v = torch.func.vmap(torch.func.grad(f))(x)
    formula = reinmax_formula(probabilities(logits), x, v)
    torch.testing.assert_close(ours, formula, rtol=0, atol=1e-14)
    torch.testing.assert_close(ours, reinmax_code(f, logits, x), rtol=0, atol=1e-14)


def test_half_of_zgr_is_not_reinmax():
    f, logits, x = loss_of("quadratic"), logits_of("moderate"), all_states(2, 3)
    ours = 0.5 * enumerated_estimates(ZGR(), f, logits)
    assert (ours - reinmax_code(f, logits, x)).abs().max() > 0.01


# All states by brute force, past the engine.


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 2)], ids=str)
@pytest.mark.parametrize("name", ["cubic", "mlp"])
@pytest.mark.parametrize(
    "estimator",
    [StraightThrough(), DARN(), ZGR(), STZGR(0.5), GumbelRao(0.5, None)],
    ids=str,
)
@pytest.mark.few(31)
def test_brute_force_over_x_agrees(estimator, name, size, logits):
    f, logits = loss_of(name, *size), logits_of(logits, *size)
    p = state_probabilities(logits)
    estimates = enumerated_estimates(estimator, f, logits)
    mean = torch.einsum("s,snc->nc", p, estimates)
    variance = torch.einsum("s,snc->n", p, (estimates - mean).square())
    moments = exact_moments(estimator, f, logits)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.variance_per_variable, variance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("name", ["quadratic", "table"])
@pytest.mark.parametrize(("m", "size"), [(2, (1, 3)), (2, (2, 3)), (3, (1, 3)), (3, (2, 2))])
def test_leave_one_out_over_all_tuples(m, size, name, logits):
    f, logits = loss_of(name, *size), logits_of(logits, *size)
    states, p = all_states(*size), state_probabilities(logits)
    tuples = torch.tensor(list(itertools.product(range(len(states)), repeat=m)))
    estimates = LeaveOneOut(m).estimate_at(f, logits, states[tuples.T].argmax(-1))[1]
    weight = p[tuples].prod(-1)
    mean = torch.einsum("t,tnc->nc", weight, estimates)
    variance = torch.einsum("t,tnc->n", weight, (estimates - mean).square())
    moments = exact_moments(LeaveOneOut(m), f, logits)
    torch.testing.assert_close(mean, exact_gradient(f, logits), rtol=0, atol=1e-13)
    torch.testing.assert_close(moments.mean, mean, rtol=0, atol=1e-13)
    torch.testing.assert_close(moments.variance_per_variable, variance, rtol=1e-12, atol=1e-12)


def test_arsm_of_two_classes_is_arm(monkeypatch):
    f, logits = loss_of("table", 3, 2), logits_of("moderate", 3, 2)
    e = torch.empty(50, 3, 2, dtype=torch.float64).exponential_(generator=generator())
    monkeypatch.setattr(arsm, "draw_exponentials", lambda *_: e)
    u, phi = e[..., 0] / e.sum(-1), logits[:, 1] - logits[:, 0]
    b, b_swapped = (u > torch.sigmoid(-phi)).long(), (u < torch.sigmoid(phi)).long()
    one_hot = torch.eye(2, dtype=torch.float64)
    g = (f(one_hot[b]) - f(one_hot[b_swapped]))[:, None] * (u - 0.5)
    expected = torch.stack([-g, g], -1)
    torch.testing.assert_close(ARSM().draw(f, logits, 50), expected, rtol=0, atol=1e-14)


# The Gumbel family along the temperature.


@pytest.mark.parametrize("k", [1, 4, None])
@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.few(4)
def test_the_gumbel_family_has_one_mean_and_an_ordered_variance(tau, k):
    f, logits = loss_of("cubic"), logits_of("moderate")
    straight = exact_moments(GumbelSoftmaxST(tau), f, logits)
    rao = exact_moments(GumbelRao(tau, k), f, logits)
    torch.testing.assert_close(rao.mean, straight.mean, rtol=0, atol=1e-13)
    if k == 1:
        assert rao.variance.value == pytest.approx(straight.variance.value, rel=1e-12)
    else:
        assert rao.variance.value < straight.variance.value
        best = exact_moments(GumbelRao(tau, None), f, logits)
        assert best.variance.value <= rao.variance.value


@pytest.mark.parametrize("tau", [0.1, 0.01, 0.001])
def test_gumbel_rao_tends_to_zgr(tau):
    f, logits = loss_of("quadratic"), logits_of("moderate")
    cold, limit_ = (exact_moments(e, f, logits) for e in (GumbelRao(tau, None), ZGR()))
    assert (cold.mean - limit_.mean).norm() < tau * limit_.mean.norm()
    assert abs(cold.variance.value - limit_.variance.value) < 3 * tau * limit_.variance.value
    fixed_k = exact_moments(GumbelSoftmaxST(tau), f, logits)
    assert fixed_k.variance.value * tau > 0.1 * limit_.variance.value


@estimators()
def test_declarations_are_complete(claim):
    assert claim.estimator.calls(4, 2) == claim.calls
    assert claim.estimator.needs_gradient == claim.needs_gradient
    assert claim.estimator.reference
    assert claim.estimator.name in ESTIMATORS | OF_STRUCTURES
    assert ".. math::" in type(claim.estimator).__doc__
