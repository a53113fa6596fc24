"""The cost of f with its gradient, measured: what it is when f is slow in a known way."""

import pytest
import torch

from gradlab.comparison import cost_measured
from gradlab.comparison.cost_measured import measured_gradient_cost
from gradlab.comparison.recommending import recommend
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.loss.gate import Objective
from gradlab.problems import problem, regime


class Clock:
    """A clock that only moves when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch) -> None:
    monkeypatch.setattr(cost_measured, "time", CLOCK)


class Slow(torch.autograd.Function):
    """The sum of the first classes; forward and backward take known times."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.shape, ctx.seconds = x.shape, backward
        CLOCK.now += forward
        return x[..., 0].sum(-1)

    @staticmethod
    def backward(ctx, slope):
        CLOCK.now += ctx.seconds
        found = torch.zeros(ctx.shape, dtype=slope.dtype)
        found[..., 0] = slope.unsqueeze(-1)
        return found, None, None


def slow(forward: float, backward: float):
    return lambda x: Slow.apply(x, forward, backward)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("forward", "backward", "ratio"), [(4, 12, 4.0), (8, 8, 2.0)])
def test_the_ratio_of_known_times(forward, backward, ratio):
    on = Enumeration(slow(forward / 1000, backward / 1000), regime("moderate", 2, 3))
    found = measured_gradient_cost(on, 12)
    assert found == pytest.approx(ratio)
    assert found.se == pytest.approx(0, abs=1e-9)


@pytest.mark.thorough  # only its error: test_the_measured_cost_is_used_and_printed
@pytest.mark.usefixtures("clock")
def test_the_standard_error_is_that_of_a_median():
    noise = torch.Generator().manual_seed(0)

    def f(x):
        slower = 0.012 * (1 + 0.1 * float(torch.randn((), generator=noise)))
        return Slow.apply(x, 0.004, slower)

    f = Objective(f, torch.float64, torch.device("cpu"), None, 1e-16)
    on = Enumeration(lambda x: x[..., 0].sum(-1), regime("moderate", 2, 3))
    object.__setattr__(on, "f", f)
    many = torch.tensor([measured_gradient_cost(on, 12) for _ in range(60)])
    said = measured_gradient_cost(on, 12).se
    # 61 repeats of a ratio with the standard deviation 0.3; the spread of 60 is known to 9 %.
    assert 0.6 < said / float(many.std()) < 1.6


def test_it_is_at_least_1_and_of_a_whole_batch():
    seen = []

    def f(x):
        seen.append(tuple(x.shape))
        return (x * x).sum((-2, -1))

    on = EnumeratedBatch(f, torch.zeros(5, 2, 3))
    seen.clear()
    assert measured_gradient_cost(on, 7) >= 1
    assert set(seen) == {(7, 5, 2, 3)}


def test_without_a_gradient_it_is_the_default():
    on = Enumeration(problem("table", 2, 3), regime("moderate", 2, 3))
    found = measured_gradient_cost(on, 4)
    assert (found.value, found.se) == (3.0, 0.0)


@pytest.mark.usefixtures("clock")
def test_the_measured_cost_is_used_and_printed():
    given = {"evaluations": 20, "estimators": ["ST", "RF(m=4)"]}
    f, logits = slow(0.002, 0.006), regime("moderate", 1, 3)
    answer = recommend(f, logits, gradient_cost="measured", **given)
    assert answer.gradient_cost == pytest.approx(4)
    table = answer.table.set_index("series")
    assert table.cost["ST"] == answer.gradient_cost
    assert table.draws_each["ST"] == int(20 // answer.gradient_cost)
    assert table.cost["RF(m=4)"] == 4
    assert answer.rows.set_index("series").cost["ST"] == answer.gradient_cost
    text = " ".join(answer.explain().split())
    said = f"{answer.gradient_cost:.2f} ± {answer.gradient_cost_se:.1g}, measured on this machine"
    assert f"f with its gradient counts as {said}" in text


def test_another_word_is_refused():
    f, logits = problem("linear", 2, 3), regime("moderate", 2, 3)
    with pytest.raises(ValueError, match="must be a number or \"measured\", not 'guess'"):
        recommend(f, logits, evaluations=4, gradient_cost="guess")
