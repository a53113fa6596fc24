"""MVE by what characterises it, its limits, and its special cases: levels, and two classes."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cases import enumerated_estimates, generator, loss_of
from gradlab.categorical import probabilities
from gradlab.estimators import (
    MVE,
    ZGR,
    BinaryZGR,
    IntegerMVE,
    StraightThrough,
    minimum_variance,
    parse,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.verification.jacobian_conditions import static_check
from gradlab.verification.order import rungs, verify_order

# One class masked, one nearly sure, and probabilities from 1 down to 1e-34.
LOGITS = {
    "uniform": torch.zeros(4, dtype=torch.float64),
    "moderate": torch.tensor([0.3, -0.5, 1.1, 0.2], dtype=torch.float64),
    "masked": torch.tensor([0.3, -math.inf, 1.1, 0.2], dtype=torch.float64),
    "peaked": torch.tensor([0.0, 28.0, 0.5, -1.0], dtype=torch.float64),
    "steps": torch.tensor([0.0, -26.0, -52.0, -78.0], dtype=torch.float64),
}
regimes = pytest.mark.parametrize("logits", LOGITS.values(), ids=list(LOGITS))


def matrices(estimator, p: torch.Tensor) -> torch.Tensor:
    """S(k), [k, i, c]: the estimate is S(k)^T v."""
    return estimator.conditional_jacobians(p[None])[0][0].mT


def of_rounding(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-14) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# The rule and its limits.


@pytest.mark.parametrize("tau", [0.5, 30.0])
@regimes
def test_mve_is_optimal_among_the_rules_of_order_1(logits, tau):
    p = probabilities(logits)
    jacobian = torch.diag(p) - torch.outer(p, p)
    s = matrices(MVE(tau), p).requires_grad_()
    part = torch.einsum("j,jic->ijc", p, s)
    off = part + part.transpose(0, 1) - torch.eye(4)[..., None] * jacobian
    objective = (p * s.square().sum((1, 2))).sum() + tau / 2 * off.square().sum()
    (slope,) = torch.autograd.grad(objective, s)
    of_rounding(part.detach().sum(1), jacobian)
    # A convex problem: where the slope is a combination of the constraints' slopes is its minimum.
    of_rounding(slope, p[:, None, None] * slope.sum(0), 1e-13)
    of_st = matrices(StraightThrough(), p).requires_grad_()
    part = torch.einsum("j,jic->ijc", p, of_st)
    off = part + part.transpose(0, 1) - torch.eye(4)[..., None] * jacobian
    (slope,) = torch.autograd.grad(tau / 2 * off.square().sum(), of_st)
    if p.max() < 0.9:
        assert (slope - p[:, None, None] * slope.sum(0)).abs().max() > 1e-3


@regimes
def test_the_limit_is_optimal_among_the_rules_of_order_2(logits):
    p = probabilities(logits)
    check = static_check(MVE(None), logits[None])
    assert check.linear == check.quadratic == 0
    # Of order 2 stays whatever moves p_j S_i(j) by a circulation over the classes, such as one
    # along a triangle: at the minimum the noise does not change by it.
    s = matrices(MVE(None), p)[p > 0][:, p > 0]
    flow = s.transpose(0, 1) - s
    around = flow[:, :, None] + flow[None] + flow.transpose(0, 1)[:, None]
    assert around.abs().max() < 1e-13
    s = matrices(ZGR(), p)
    flow = s.transpose(0, 1) - s
    around = flow[:, :, None] + flow[None] + flow.transpose(0, 1)[:, None]
    assert around.abs().max() > 0.01 or p.unique().numel() == 1


@regimes
def test_the_ends_of_the_line(logits):
    p = probabilities(logits)
    of_rounding(matrices(MVE(0.0), p), matrices(StraightThrough(), p))
    limit = matrices(MVE(None), p)
    of_rounding(matrices(MVE(1e250), p), limit)
    # The distance falls like 1 / tau once tau p is large: not for p of 1e-12.
    close = [(matrices(MVE(tau), p) - limit)[p > 1e-3].abs().max() for tau in (1e5, 1e6)]
    assert close[1] <= 0.11 * close[0] + 1e-11
    assert close[1] < 1e-4


@pytest.mark.parametrize("gap", [0.0, 0.7, 30.0, 800.0, math.inf])
def test_two_classes_are_zgr(gap):
    p = probabilities(torch.tensor([0.0, -gap], dtype=torch.float64))
    kept = p > 0
    of_rounding(matrices(MVE(None), p)[kept], matrices(ZGR(), p)[kept])
    of_rounding(matrices(BinaryZGR(), p), matrices(ZGR(), p))
    of_rounding(matrices(IntegerMVE(None), p)[kept], matrices(ZGR(), p)[kept])


def test_isotropic_variance():
    p = probabilities(torch.sin(1 + torch.arange(3, dtype=torch.float64)))
    noise = {
        estimator: (
            p * (matrices(estimator, p) - torch.diag(p) + torch.outer(p, p)).square().sum((1, 2))
        ).sum()
        for estimator in (MVE(None), ZGR())
    }
    assert noise[MVE(None)] == pytest.approx(0.05308, abs=5e-6)
    assert noise[ZGR()] == pytest.approx(0.05419, abs=5e-6)


@pytest.mark.parametrize("tau", [1.0, None])
def test_a_masked_class_is_as_none(tau):
    p = probabilities(LOGITS["masked"])
    kept = torch.tensor([0, 2, 3])
    found = matrices(MVE(tau), p)[kept][:, kept]
    expected = matrices(MVE(tau), p[kept])
    of_rounding(found[..., kept], expected)
    assert (found[..., 1] == 0).all()


@pytest.mark.parametrize("tau", [0.0, 1.0, None])
def test_single_precision_logits_are_solved_in_double(tau):
    logits, x = LOGITS["steps"].expand(4, 4), torch.eye(4, dtype=torch.float64)
    v = torch.randn(4, 4, generator=generator())
    p = probabilities(logits.float())
    found = MVE(tau).pullback(p, x.float(), v)
    assert found.dtype == torch.float32
    exact = MVE(tau).pullback(p.double(), x, v.double())
    assert torch.equal(found, exact.float())


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest result."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, out.numel() if isinstance(out, torch.Tensor) else 0)
        return out


def test_no_matrix_is_formed_for_a_draw():
    p = torch.randn(2, 16, generator=generator()).softmax(-1)
    x = torch.eye(16)[torch.zeros(500, 2, dtype=torch.long)]
    with Largest() as largest:
        MVE().pullback(p, x, x)
    assert largest.numel == x.numel()


def test_many_rows_are_solved_in_chunks(monkeypatch):
    p = torch.randn(50, 3, 4, dtype=torch.float64, generator=generator()).softmax(-1)
    x = torch.eye(4, dtype=torch.float64)[torch.zeros(50, 3, dtype=torch.long)]
    v = torch.randn(50, 3, 4, dtype=torch.float64, generator=generator())
    expected = MVE().pullback(p, x, v)
    monkeypatch.setattr(minimum_variance, "_ELEMENTS", 100)
    with Largest() as largest:
        found = MVE().pullback(p, x, v)
    of_rounding(found, expected)
    assert largest.numel <= p.numel()


# What is refused.


@pytest.mark.parametrize("cls", [MVE, IntegerMVE])
@pytest.mark.parametrize("tau", [-1.0, math.inf, math.nan])
def test_bad_tau(cls, tau):
    with pytest.raises(ValueError, match="tau must be a finite number >= 0, or None"):
        cls(tau)


@pytest.mark.parametrize("cls", [MVE, IntegerMVE])
def test_the_limit_has_a_text(cls):
    assert str(cls(None)) == f"{cls.name}(tau=inf)"
    assert parse(f"{cls.name}(tau=inf)") == cls(None)
    assert (cls(0.0).order, cls(3.0).order, cls(None).order) == (1, 1, 2)


def test_many_classes_are_refused():
    f, logits = loss_of("linear", 2, 65), torch.zeros(2, 65)
    assert MVE().supports(loss_of("linear", 2, 64), logits[:, :64].double()) is None
    reason = "C = 65 is more than 64; use ZGR"
    assert reason in MVE().supports(f, logits)
    with pytest.raises(ValueError, match=reason):
        MVE().draw(f, logits, 3)
    with pytest.raises(ValueError, match=reason):
        MVE().sample(logits)


# Integer levels.


def of_levels(name: str):
    """A loss of y, the class of each variable, that is no sum over the variables."""
    power = {"linear": 1, "quadratic": 2, "cubic": 3}[name]

    def f(x):
        y = x @ torch.arange(x.shape[-1], dtype=x.dtype)
        return y.pow(power).sum(-1) + 0.5 * y[..., 0].pow(power) * y[..., 1]

    return f


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.0, 0.7, 1e6, None])
@regimes
@pytest.mark.few(21)
def test_levels_up_to_the_degree(logits, tau, degree):
    f = of_levels(["linear", "quadratic", "cubic"][degree - 1])
    estimator = IntegerMVE(tau)
    logits = torch.stack([logits, LOGITS["moderate"].flip(0)])
    assert estimator.supports(f, logits) is None
    bias = exact_moments(estimator, f, logits).mean - exact_gradient(f, logits)
    if degree <= estimator.order:
        assert bias.abs().max() < 1e-13
    elif tau != 1e6:
        assert bias.abs().max() > 1e-3


@pytest.mark.parametrize("tau", [0.0, 0.7, 40.0, None])
def test_levels_by_the_published_formula(tau):
    p, c = probabilities(LOGITS["moderate"]), torch.arange(4, dtype=torch.float64)
    m1, m2 = p @ c, p @ c.square()
    y = c[:, None]
    if tau is None:
        t = ((m2 - m1 * y) * c + 0.5 * (y - m1) * c.square()) / (m2 - m1.square())
    else:
        t = (1 - 2 * tau * m1 * y + 2 * tau * m2) * c + tau * (y - m1) * c.square()
        t = t / (1 + 2 * tau * (m2 - m1.square()))
    found = IntegerMVE(tau).pullback(p.expand(4, 4), torch.eye(4).double(), 1.5 * c.expand(4, 4))
    of_rounding(found, 1.5 * p * (t - (t @ p)[:, None]), 1e-13)


def test_a_loss_that_is_no_function_of_levels_is_refused():
    logits = torch.stack([LOGITS["moderate"], LOGITS["masked"]])
    reason = IntegerMVE().supports(loss_of("cubic", 2, 4), logits)
    assert "not linear in it; use MVE" in reason
    assert "not differentiable" in IntegerMVE().supports(loss_of("table", 2, 4), logits)
    assert IntegerMVE().supports(loss_of("constant", 2, 4), logits) is None
    assert IntegerMVE().supports(of_levels("cubic"), logits.float()) is None


# Two classes.


@pytest.mark.parametrize("regime", [[0.0, 0.7], [-3.0, 1.0], [-math.inf, 0.0], [40.0, 0.0]])
def test_binary_zgr_is_zgr_draw_by_draw(regime):
    f = loss_of("cubic", 3, 2)
    logits = torch.tensor([regime, [0.1, 0.2], [0.3, -1.0]], dtype=torch.float64)
    found, expected = (enumerated_estimates(e, f, logits) for e in (BinaryZGR(), ZGR()))
    of_rounding(found, expected)
    assert expected.abs().max() > 0.01


def test_binary_zgr_is_of_order_2_on_the_ladder():
    ladder = verify_order(BinaryZGR(), on=rungs(("quadratic", "cubic")))
    assert ladder.outcome == "EXACT TO DEGREE 2"
    assert ladder.static.degree == 2
