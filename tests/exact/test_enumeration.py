"""The exact engine against brute force, and against automatic differentiation of the plain sum."""

import pytest
import torch

from cases import STATISTICAL, all_states, differentiable, logits_of, loss_of, state_probabilities
from gradlab.estimators import ZGR, LeaveOneOut, Reinforce
from gradlab.exact import enumeration
from gradlab.exact.enumeration import gradient_moments, value_moments
from gradlab.exact.moments import Enumeration
from gradlab.exact.truth import exact_gradient, exact_value
from gradlab.problems import regime

SIZES = [(1, 1), (3, 1), (2, 3), (5, 2)]


def by_autograd(f, logits):
    """E f by the plain sum over all states, and its gradient by automatic differentiation."""
    x = all_states(*logits.shape)
    leaf = logits.clone().requires_grad_()
    p = (leaf.softmax(-1) * x).sum(-1).prod(-1)
    value = (p * f(x)).sum()
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("logits", ["uniform", "moderate", "peaked", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", STATISTICAL)
@pytest.mark.few(39)
def test_gradient_is_the_derivative_of_the_sum(name, size, logits):
    f, logits = loss_of(name, *size), logits_of(logits, *size)
    value, gradient = by_autograd(f, logits)
    torch.testing.assert_close(exact_value(f, logits), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(exact_gradient(f, logits), gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("block", [1, 2, 3, 9, 30, 81])
@pytest.mark.few(4)
def test_blocks_change_nothing_but_rounding(block, logits, monkeypatch):
    f, logits = loss_of("cubic", 4, 3), logits_of(logits, 4, 3)
    whole = value_moments(f, logits), gradient_moments(f, logits)
    monkeypatch.setattr(enumeration, "_BLOCK", block)
    parts = value_moments(f, logits), gradient_moments(f, logits)
    for field in ("mean", "excess", "conditional_square", "gradient"):
        torch.testing.assert_close(
            getattr(parts[0], field), getattr(whole[0], field), rtol=1e-12, atol=1e-12
        )
    for field in ("mean", "covariance"):
        torch.testing.assert_close(
            getattr(parts[1], field), getattr(whole[1], field), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", ["cubic", "table"])
def test_moments_of_f_given_a_class(name, logits):
    f, logits = loss_of(name, 3, 3), logits_of(logits, 3, 3)
    x, p, moments = all_states(3, 3), state_probabilities(logits), value_moments(f, logits)
    centred = f(x) - p @ f(x)
    mass = torch.einsum("s,snc->nc", p, x)
    allowed = mass > 0
    mean = torch.einsum("s,snc->nc", p * centred, x) / mass
    square = torch.einsum("s,snc->nc", p * centred.square(), x) / mass
    torch.testing.assert_close(moments.p, mass, rtol=1e-13, atol=1e-15)
    for measured, expected in (
        (moments.excess, mean),
        (moments.conditional_square, square),
    ):
        torch.testing.assert_close(measured[allowed], expected[allowed], rtol=1e-11, atol=1e-12)
        assert (measured[~allowed] == 0).all()


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", [n for n in STATISTICAL if differentiable(n)])
def test_moments_of_the_gradient_of_f_given_a_class(name, logits):
    f, logits = loss_of(name, 3, 3), logits_of(logits, 3, 3)
    x, p, moments = all_states(3, 3), state_probabilities(logits), gradient_moments(f, logits)
    v = torch.func.vmap(torch.func.grad(f))(x)
    mass = torch.einsum("s,snk->nk", p, x)[..., None]
    mean = torch.einsum("s,snk,sni->nki", p, x, v) / mass
    square = torch.einsum("s,snk,sni,snj->nkij", p, x, v, v) / mass[..., None]
    covariance = square - mean[..., :, None] * mean[..., None, :]
    allowed = mass[..., 0] > 0
    torch.testing.assert_close(moments.mean[allowed], mean[allowed], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        moments.covariance[allowed], covariance[allowed], rtol=1e-10, atol=1e-11
    )
    assert (moments.mean[~allowed] == 0).all()
    assert (moments.covariance[~allowed] == 0).all()


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_masked_states_are_not_visited(block, monkeypatch):
    monkeypatch.setattr(enumeration, "_BLOCK", block)
    logits = torch.zeros(3, 3, dtype=torch.float64)
    logits[0, 1] = logits[1, 0] = logits[1, 2] = -torch.inf
    masked = logits == -torch.inf
    f = loss_of("cubic", 3, 3)

    def undefined_where_masked(x):
        return torch.where((x * masked).sum((-2, -1)) > 0, torch.nan, f(x))

    value, gradient = by_autograd(f, logits)
    torch.testing.assert_close(exact_value(undefined_where_masked, logits), value)
    found = exact_gradient(undefined_where_masked, logits)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
    assert (found[masked] == 0).all()


# Multiples of 2^-20 stay exact when 2^27 is added: only the engine could lose digits.
def test_a_large_offset_costs_no_digits():
    table = loss_of("table", 3, 3)
    logits = logits_of("moderate", 3, 3)

    def f(x):
        return (table(x) * 2**20).round() / 2**20

    def shifted(x):
        return f(x) + 2.0**27

    truth = exact_gradient(f, logits)
    torch.testing.assert_close(exact_gradient(shifted, logits), truth, rtol=0, atol=1e-14)
    rf = [Enumeration(g, logits).moments(LeaveOneOut(2)).variance.value for g in (f, shifted)]
    assert rf[1] == pytest.approx(rf[0], rel=1e-12)


@pytest.mark.parametrize("name", ["quadratic", "mlp"])
def test_an_offset_of_1e8_is_off_by_the_rounding_of_f_only(name):
    f, logits = loss_of(name), logits_of("moderate")
    found = exact_gradient(lambda x: f(x) + 1e8, logits)
    torch.testing.assert_close(found, exact_gradient(f, logits), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_less_precision_are_read_exactly(dtype):
    f, logits = loss_of("cubic"), logits_of("moderate").to(dtype)
    seen = []

    def in_double(x):
        seen.append(x.dtype)
        return f(x.double())

    found = exact_gradient(in_double, logits)
    assert found.dtype == torch.float64
    assert set(seen) == {dtype}
    # Probabilities and sums are of double precision; f is what it makes of x.
    torch.testing.assert_close(found, exact_gradient(f, logits.double()), rtol=0, atol=0)


@pytest.mark.parametrize("shift", [15.0, 100.0, 1e4, -1e4])
def test_a_shift_of_the_logits_changes_nothing(shift):
    f, logits = loss_of("cubic"), (logits_of("masked") * 8).round() / 8
    moved = logits + shift
    torch.testing.assert_close(exact_gradient(f, moved), exact_gradient(f, logits), rtol=0, atol=0)


def test_one_enumeration_serves_all_estimators(monkeypatch):
    evaluations = []
    f = loss_of("quadratic")

    def counting(x):
        evaluations.append(x[..., 0, 0].numel())
        return f(x)

    problem = Enumeration(counting, logits_of("moderate"))
    for estimator in (ZGR(), ZGR(), Reinforce(), LeaveOneOut(4)):
        problem.moments(estimator)
    # One more for the value that centres f, and for the gradient that centres grad f; the gate asks
    # 26 times, and the end of the sweep again at up to 8 states.
    assert sum(evaluations) == 2 * (9 + 1) + 26 + 8


def test_memory_is_a_block_however_many_states():
    largest = []

    def f(x):
        largest.append(x[..., 0, 0].numel())
        return x[..., 0].sum(-1)

    logits = regime("moderate", 14, 2)
    expected = logits.softmax(-1)[:, 0].sum()
    torch.testing.assert_close(exact_value(f, logits), expected, rtol=1e-12, atol=0)
    assert max(largest) <= 4096
    assert sum(largest) == 2**14 + 1 + 26 + 8


def test_linear_loss_has_exactly_no_variance_under_st():
    from gradlab.estimators import StraightThrough

    moments = Enumeration(loss_of("linear"), logits_of("moderate")).moments(StraightThrough())
    assert moments.variance.value < 1e-30
