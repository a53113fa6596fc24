"""Baselines that are learned, and the fault of those that contain the own sample."""

import math

import pytest
import torch

from cases import LADDER, generator, logits_of, loss_of
from gradlab.categorical import probabilities
from gradlab.estimators import (
    LearnedBaseline,
    LocalExpectation,
    MovingAverage,
    Reinforce,
    _affine,
)
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.verification.exact_bias import exact_bias
from significance import limit, scores
from test_golden import SIZES, golden, recipe
from test_golden import logits_of as golden_logits

# The constant.


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.few(2)
def test_the_best_constant_is_found(size, name):
    f, logits = recipe(name, *size), golden_logits(size)
    best = Reinforce().fit(f, logits, 200_000, generator())
    at_mean = golden(size, name, "REINFORCE(b=mean_f)")["total_variance"]
    found = exact_moments(best, f, logits).variance.value
    assert found < at_mean + 1e-4
    for other in (best.baseline - 0.1, best.baseline + 0.1):
        assert exact_moments(Reinforce(other), f, logits).variance.value > found


def test_its_variance_on_the_quadratic_of_the_fixtures():
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    best = Reinforce().fit(f, logits, 100_000, generator())
    assert exact_moments(best, f, logits).variance.value == pytest.approx(1.4593, abs=2e-4)


def test_a_fit_in_blocks_holds_few_draws_and_finds_the_same_constant(monkeypatch):
    f, logits = recipe("quadratic", 2, 3), golden_logits((2, 3))
    whole = Reinforce().fit(f, logits, 50_000, generator())
    monkeypatch.setattr(_affine, "_NUMBERS", 6_000)
    held = []
    blocks = Reinforce().fit(lambda x: held.append(len(x)) or f(x), logits, 50_500, generator())
    assert max(held) == 1000
    assert held[-1] == 500
    assert blocks.baseline == pytest.approx(whole.baseline, abs=0.05)
    assert blocks.baseline != whole.baseline


# The moving average.


def test_updates_are_the_recursion_and_leave_the_estimator_alone():
    before = MovingAverage(2.0, 0.9)
    after = before.updated(torch.tensor([1.0, 4.0]))
    assert before.baseline == 2.0
    assert after.baseline == pytest.approx(0.9 * 2.0 + 0.1 * 2.5)
    assert after.decay == 0.9


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_fit_is_as_many_updates_in_a_row(decay):
    f, logits = loss_of("cubic"), logits_of("moderate")
    seen = []
    fitted = MovingAverage(3.0, decay).fit(
        lambda x: seen.append(f(x)) or seen[-1], logits, 50, generator()
    )
    stepwise = MovingAverage(3.0, decay)
    for value in torch.cat(seen):
        stepwise = stepwise.updated(value)
    assert fitted.baseline == pytest.approx(stepwise.baseline, rel=1e-12)
    long = MovingAverage(0.0, 0.999).fit(f, logits, 50_000, generator())
    assert long.baseline == pytest.approx(float(exact_value(f, logits)), abs=0.1)


class OwnSample(MovingAverage):
    """The published fault: b is updated before it is subtracted."""

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits)
        x = torch.nn.functional.one_hot(classes[0], p.shape[-1]).to(p.dtype)
        value = f(x)
        weight = value - (self.decay * self.baseline + (1 - self.decay) * value)
        return value, weight[..., None, None] * (x - p)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["quadratic", "mlp", "table"])
@pytest.mark.few(3)
def test_with_the_own_sample_the_mean_is_beta_times_the_gradient(name, decay):
    f, logits = loss_of(name), logits_of("moderate")
    right, wrong = (exact_bias(cls(0.3, decay), f, logits) for cls in (MovingAverage, OwnSample))
    assert right.is_zero
    assert not wrong.is_zero
    torch.testing.assert_close(wrong.mean, decay * wrong.truth, rtol=0, atol=1e-13)


def scale_of_chain(decay: float, own: bool) -> tuple[float, float]:
    """Return <m, g>/|g|^2 and its error, m the mean of estimates along chains of steps."""
    f, logits, n = recipe("quadratic", 2, 3), golden_logits((2, 3)), 4000
    truth, p = exact_gradient(f, logits), probabilities(logits)
    b, source, sums = torch.zeros(n, dtype=torch.float64), generator(), torch.zeros(n)
    for _ in range(50):
        x = torch.multinomial(p, n, replacement=True, generator=source).T
        x = torch.nn.functional.one_hot(x, 3).to(p.dtype)
        value = f(x)
        after = decay * b + (1 - decay) * value
        weight = value - (after if own else b)
        b = after
        sums = sums + (weight[:, None, None] * (x - p) * truth).sum((-2, -1)) / 50
    scale = sums / truth.square().sum()
    return float(scale.mean()), float(scale.std()) / math.sqrt(n)


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_along_a_chain_of_steps(decay):
    """Measured 1.00 without the own sample, 0.90 and 0.50 with it."""
    right, error = scale_of_chain(decay, own=False)
    assert abs(float(scores(right, 1.0, error))) < limit()
    assert abs(float(scores(right, decay, error))) > limit()
    wrong, error = scale_of_chain(decay, own=True)
    assert abs(float(scores(wrong, decay, error))) < limit()
    assert abs(float(scores(wrong, 1.0, error))) > limit()


# The learned baseline.


@pytest.mark.parametrize("logits", ["uniform", "moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", [*LADDER, "mlp", "table"])
@pytest.mark.few(11)
def test_a_fitted_baseline_is_unbiased_by_enumeration(name, logits):
    f, logits = loss_of(name, 3, 3), logits_of(logits, 3, 3)
    fitted = LearnedBaseline().fit(f, logits, 500, generator())
    assert fitted.weights
    for at in (logits, logits_of("moderate", 3, 3)):
        result = exact_bias(fitted, f, at)
        assert result.is_zero
        assert result.size < 1e-12


class SeesItself(LearnedBaseline):
    """A baseline that takes the own variable too."""

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits)
        x = torch.nn.functional.one_hot(classes[0], p.shape[-1]).to(p.dtype)
        return f(x), (f(x) - 0.5 * x[..., 0].sum(-1))[..., None, None] * (x - p)


def test_a_baseline_that_sees_its_own_variable_is_biased():
    assert not exact_bias(SeesItself(), loss_of("table"), logits_of("moderate")).is_zero


@pytest.mark.parametrize("size", [(2, 3), (4, 2), (3, 3)], ids=str)
def test_linear_losses_leave_the_noise_of_the_own_variable_only(size):
    """For f linear the best b_i is f's part in x_{-i} and the best constant of x_i alone."""
    f, logits = loss_of("linear", *size), logits_of("moderate", *size)
    fitted = LearnedBaseline().fit(f, logits, 20_000, generator())
    found = exact_moments(fitted, f, logits).variance_per_variable
    for i in range(size[0]):

        def alone(x, i=i):
            return (x[..., 0, :] * f.b[i]).sum(-1)

        row = logits[i : i + 1]
        best = Reinforce().fit(alone, row, 100_000, generator())
        assert float(found[i]) == pytest.approx(
            exact_moments(best, alone, row).variance.value, rel=0.01, abs=1e-4
        )


@pytest.mark.parametrize("name", ["quadratic", "cubic", "mlp", "table"])
@pytest.mark.few(2)
def test_it_lies_between_the_best_constant_and_the_local_expectation(name):
    f, logits = loss_of(name, 3, 3), logits_of("moderate", 3, 3)
    local, learned, constant, plain = (
        exact_moments(e, f, logits).variance.value
        for e in (
            LocalExpectation(),
            LearnedBaseline().fit(f, logits, 20_000, generator()),
            Reinforce().fit(f, logits, 20_000, generator()),
            Reinforce(),
        )
    )
    assert local < learned < constant < plain


def test_fitting_is_reproducible_and_returns_a_new_estimator():
    f, logits = loss_of("cubic"), logits_of("moderate")
    plain = LearnedBaseline()
    first, second = (plain.fit(f, logits, 200, generator(3)) for _ in range(2))
    assert first == second != plain
    assert plain.weights == ()
    assert str(first) == "LEARNED"
    assert first.supports(f, logits) is None
    assert "fitted to 2 variables of 3 classes, not 3 of 3" in first.supports(
        loss_of("cubic", 3, 3), logits_of("moderate", 3, 3)
    )


def test_a_fit_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="more than 16777216 numbers"):
        LearnedBaseline().fit(loss_of("linear", 1, 3), torch.zeros(200, 10))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan, None, "0.9"])
def test_bad_decays(decay):
    with pytest.raises(ValueError, match=r"decay must be a number in \[0, 1\), not"):
        MovingAverage(0.0, decay)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("draws", [0, 2.5, None])
@pytest.mark.parametrize("estimator", [MovingAverage(), LearnedBaseline()], ids=str)
def test_bad_draws_to_fit(estimator, draws):
    with pytest.raises(ValueError, match="draws must be an int of at least 1, not"):
        estimator.fit(loss_of("mlp"), logits_of("moderate"), draws)
