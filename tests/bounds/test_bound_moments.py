"""Value, gradient and moments of bounds against brute force in plain numpy, and against draws."""

import math

import numpy as np
import pytest
import torch

import brute_force
from gradlab import bounds
from gradlab.bounds.states import WeightedStates, tuples_of
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.loss import HoldsLogitsError, LossShapeError, NotDifferentiableError, NotFiniteError

TEXTS = [
    *("PLAIN", "VIMCO", "VIMCO-A", "OVIS", "OVIS(gamma=1)", "OVIS(gamma=0.3)", "OVIS-MC(s=1)"),
    *("OVIS-MC(s=3)", "OVIS-MC(s=inf)", "LE", "ST", "ZGR", "DARN"),
]
cases = pytest.mark.parametrize("case", brute_force.CASES.values(), ids=brute_force.CASES)


@cases
@pytest.mark.parametrize("k", [1, 2, 3])
def test_value_and_gradient_are_those_of_brute_force(case, k):
    brute = case.brute()
    assert abs(float(bounds.exact_value(case.log_joint, case.logits, k)) - brute.value(k)) < 1e-12
    found = bounds.exact_gradient(case.log_joint, case.logits, k)
    np.testing.assert_allclose(found.numpy(), brute.gradient(k), atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_is_that_of_finite_differences(k):
    case, step = brute_force.CASES["2 x 2"], 1e-5
    table = case.brute().log_p
    logits = case.logits.numpy()
    numeric = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            numeric[place] += sign * brute_force.Brute(table, moved).value(k) / (2 * step)
    found = bounds.exact_gradient(case.log_joint, case.logits, k)
    np.testing.assert_allclose(found.numpy(), numeric, atol=1e-8)


@cases
@pytest.mark.parametrize("k", [1, 2, 4])
def test_both_routes_agree_and_so_does_automatic_differentiation(case, k):
    given = (case.log_joint, case.logits, k)
    value, other = (bounds.exact_value(*given, route=r) for r in ("multisets", "tuples"))
    assert abs(float(value - other)) < 1e-12
    gradient = bounds.exact_gradient(*given)
    torch.testing.assert_close(
        gradient, bounds.exact_gradient(*given, route="tuples"), rtol=0, atol=1e-12
    )
    logits = case.logits.requires_grad_()
    bounds.exact_value(case.log_joint, logits, k).backward()
    assert logits.grad is not None
    torch.testing.assert_close(gradient, logits.grad, rtol=0, atol=1e-12)


def test_the_gradient_in_parameters_of_log_joint_is_that_of_finite_differences():
    case, step = brute_force.CASES["2 x 2"], 1e-5
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    bounds.exact_value(lambda z: scale * case.log_joint(z), case.logits, 3).backward()
    table, logits = case.brute().log_p, case.logits.numpy()
    up, down = (brute_force.Brute(s * table, logits).value(3) for s in (0.7 + step, 0.7 - step))
    assert scale.grad is not None
    assert abs(float(scale.grad) - (up - down) / (2 * step)) < 1e-8


@pytest.mark.parametrize("k", [8, 64])
def test_many_samples_of_two_states_are_a_binomial_sum(k):
    logits, log_p = torch.tensor([[0.3, -0.4]], dtype=torch.float64), np.array([0.2, -1.1])
    q = logits[0].softmax(-1).numpy()
    w = np.exp(log_p) / q
    value = sum(
        math.comb(k, n) * q[0] ** n * q[1] ** (k - n) * np.log((n * w[0] + (k - n) * w[1]) / k)
        for n in range(k + 1)
    )
    found = bounds.exact_value(lambda z: z[..., 0, :] @ torch.tensor(log_p).to(z), logits, k)
    assert abs(float(found) - value) < 1e-12


@cases
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.few(16)
def test_moments_are_those_of_brute_force(case, text, k):
    mean, variance = case.brute().moments(case.estimate(text), k)
    found = bounds.exact_moments(text, case.log_joint, case.logits, k)
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=1e-12)
    assert abs(found.variance - variance) < 1e-11


@pytest.mark.parametrize("text", ["PLAIN", "OVIS-MC(s=2)", "LE", "ZGR"])
def test_moments_of_one_sample_are_those_of_brute_force(text):
    case = brute_force.CASES["2 x 3, one class masked"]
    mean, variance = case.brute().moments(case.estimate(text), 1)
    found = bounds.exact_moments(text, case.log_joint, case.logits, 1)
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=1e-12)
    assert abs(found.variance - variance) < 1e-11


@pytest.mark.parametrize("text", TEXTS)
def test_moments_of_both_routes_agree(text):
    case = brute_force.CASES["2 x 2"]
    given = (text, case.log_joint, case.logits, 4)
    one, other = (bounds.exact_moments(*given, route=r) for r in ("multisets", "tuples"))
    torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=1e-12)
    assert abs(one.variance - other.variance) < 1e-12


@cases
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.few(13)
def test_draws_have_the_exact_moments(case, text):
    exact = bounds.exact_moments(text, case.log_joint, case.logits, 3)
    drawn = bounds.monte_carlo(text, case.log_joint, case.logits, 3, draws=20_000)
    # 39 cases with up to 6 coordinates each: 5 standard errors are exceeded once in 10^4 runs.
    off = (drawn.mean - exact.mean).abs() - 5 * drawn.mean_se
    assert float(off.max()) <= 1e-12
    assert abs(drawn.variance - exact.variance) < 6 * drawn.variance.se


def test_a_wrong_baseline_would_be_seen_in_draws():
    case = brute_force.CASES["5 classes"]
    wrong = bounds.monte_carlo("OVIS(gamma=1)", case.log_joint, case.logits, 3, draws=20_000)
    right = bounds.exact_moments("OVIS", case.log_joint, case.logits, 3)
    assert float(((wrong.mean - right.mean).abs() / wrong.mean_se).max()) > 8


def test_an_offset_of_log_p_changes_no_gradient():
    case = brute_force.CASES["5 classes"]
    given = (case.logits, 3)
    lifted = bounds.exact_gradient(lambda z: case.log_joint(z) - 1000.0, *given)
    torch.testing.assert_close(
        lifted, bounds.exact_gradient(case.log_joint, *given), rtol=0, atol=1e-12
    )
    at_zero = bounds.exact_moments("VIMCO", case.log_joint, *given)
    far = bounds.exact_moments("VIMCO", lambda z: case.log_joint(z) - 1000.0, *given)
    torch.testing.assert_close(far.mean, at_zero.mean, rtol=0, atol=1e-9)


def without_first(z):
    """A log-probability that is -inf at the first class of the first variable."""
    return torch.where(z[..., 0, 0] > 0, -math.inf, z[..., 0, 1])


def test_weights_of_zero_make_the_bound_minus_infinity_and_are_refused_by_the_gradient():
    logits = torch.zeros(1, 3, dtype=torch.float64)
    assert float(bounds.exact_value(without_first, logits, 2)) == -math.inf
    assert float(bounds.exact_value(without_first, logits.requires_grad_(), 2)) == -math.inf
    for call in (
        lambda: bounds.exact_gradient(without_first, logits, 2),
        lambda: bounds.exact_moments("VIMCO", without_first, logits, 2),
    ):
        with pytest.raises(NotFiniteError, match=r"probability 0\.11 all 2 .* z = \[0\]"):
            call()
    with pytest.raises(NotFiniteError, match="Mask such classes"):
        bounds.monte_carlo("PLAIN", without_first, logits, 1, draws=64)


@pytest.mark.parametrize("text", TEXTS[:-3])
def test_a_masked_class_of_weight_zero_is_not_met(text):
    logits = torch.tensor([[-math.inf, 0.3, -0.2]], dtype=torch.float64)
    found = bounds.exact_moments(text, without_first, logits, 3)
    rest = bounds.exact_moments(text, lambda z: z[..., 0, 0], logits[:, 1:], 3)
    torch.testing.assert_close(found.mean[:, 1:], rest.mean)
    assert float(found.mean[0, 0]) == 0
    drawn = bounds.parse(text).draw(without_first, logits, 3, 50)
    assert bool(drawn.isfinite().all())


def test_sums_over_tuples_meet_every_one_once():
    blocks = torch.cat(list(tuples_of(4, 3, "multisets", 7)), 1).T.tolist()
    assert len({tuple(row) for row in blocks}) == len(blocks) == math.comb(6, 3)
    few = torch.cat(list(tuples_of(2, 5, "multisets", 4)), 1).T.tolist()
    assert sorted(few) == [[0] * n + [1] * (5 - n) for n in range(5, -1, -1)]
    assert [block.tolist() for block in tuples_of(1, 3, "multisets", 4)] == [[[0], [0], [0]]]
    states = WeightedStates(lambda z: z[..., 0, 0], torch.zeros(2, 2))
    for route in ("multisets", "tuples"):
        total = sum(float(p.sum()) for _, p in states.tuples(5, route))
        assert abs(total - 1) < 1e-12


@pytest.mark.parametrize(
    ("size", "k", "told"),
    [((4, 4), 4, "4 samples of 256 states make 1.83e"), ((30, 4), 1, "30 variables have 1.2e")],
)
def test_too_many_tuples_are_counted_in_the_refusal(size, k, told):
    with pytest.raises(TooLargeError, match=told) as caught:
        bounds.exact_value(lambda z: z[..., 0, 0], torch.zeros(size), k)
    assert "gradlab.bounds.monte_carlo" in str(caught.value)


def nan_at_first(z):
    return torch.where(z[..., 0, 0] > 0, math.nan, 0.0)


def test_what_breaks_the_contract_is_refused():
    logits = torch.zeros(1, 3, requires_grad=True)
    with pytest.raises(NotFiniteError):
        bounds.exact_value(nan_at_first, logits, 2)
    with pytest.raises(NotFiniteError, match=r"NaN at z = \[0\]"):
        bounds.parse("VIMCO").draw(nan_at_first, logits, 2, 50)
    with pytest.raises(HoldsLogitsError):
        bounds.exact_gradient(lambda z: (z * logits).sum((-2, -1)), logits, 2)
    with pytest.raises(LossShapeError):
        bounds.parse("VIMCO").draw(lambda z: z, logits, 2, 5)
    with pytest.raises(NotDifferentiableError):
        bounds.exact_moments("ZGR", lambda z: (z[..., 0, 0] > 0).to(z.dtype), logits, 2)
    with pytest.raises(ValueError, match="k must be an int"):
        bounds.exact_moments("PLAIN", lambda z: z[..., 0, 0], logits, 0)
    with pytest.raises(ValueError, match="route must be one of"):
        bounds.exact_value(lambda z: z[..., 0, 0], logits, 2, route="fast")


class Halved(bounds.VIMCO):
    """VIMCO whose draws are not its formula."""

    def draw(self, *args, **options):
        return super().draw(*args, **options) / 2


def test_a_class_that_draws_otherwise_is_not_proved_by_its_formula():
    case = brute_force.CASES["5 classes"]
    with pytest.raises(NotExactError, match="Halved overrides draw"):
        bounds.exact_moments(Halved(), case.log_joint, case.logits, 2)
    half = bounds.monte_carlo(Halved(), case.log_joint, case.logits, 2, draws=4000)
    truth = bounds.exact_gradient(case.log_joint, case.logits, 2)
    assert abs(half.bias2(truth) - float(truth.square().sum()) / 4) < 5 * half.bias2(truth).se
