"""Cost before work: sizes and seconds are asked first, and what is left to draws is said."""

import math

import pytest
import torch

import gradlab
from gradlab import compare, exact_gradient, exact_moments, recommend
from gradlab.comparison.rows import PROBED
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.truth import exact_value
from gradlab.nn.probe import GradientProbe
from gradlab.problems import problem, regime
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")


def loss(classes: int):
    """Return f of any number of variables of so many classes, not linear in x."""
    weight = torch.linspace(-1, 1, classes, dtype=torch.float64).cos()
    return lambda x: (x @ weight.to(x)).sum(-1).square() + x[..., 0, 0]


# ---- the size is asked before the work --------------------------------------------------------


@pytest.mark.parametrize("text", ["ZGR", "GR(k=inf)", "GS-ST(tau=0.1)", "ReinMax-Rao", "RF(m=2)"])
def test_no_table_is_made_for_an_f_that_cannot_be_enumerated(text, monkeypatch):
    asked = []
    f = loss(32)

    def watched(x):
        asked.append(x[..., 0, 0].numel())
        return f(x)

    on = Enumeration(watched, torch.zeros(12, 32, dtype=torch.float64))
    estimator = gradlab.parse(text)
    monkeypatch.setattr(
        type(estimator), "conditional_jacobians", lambda *args: pytest.fail("made"), raising=False
    )
    with pytest.raises((TooLargeError, NotExactError)):
        on.moments(estimator)
    assert sum(asked) == 26  # the gate's


@pytest.mark.parametrize("mask", [-math.inf, -1e8, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_that_underflow_are_not_enumerated(mask, dtype):
    logits = torch.full((12, 11), mask, dtype=dtype)
    logits[:, :2] = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    f = loss(11)
    gradient = exact_gradient(f, logits)
    assert bool((gradient[:, 2:] == 0).all())
    few = exact_gradient(lambda x: f(torch.nn.functional.pad(x, (0, 9))), logits[:, :2])
    torch.testing.assert_close(gradient[:, :2], few, rtol=1e-5, atol=1e-7)


def test_wide_variables_have_exact_moments_at_every_state(monkeypatch):
    f, logits = loss(60), regime("peaked", 1, 60, 0)
    tables = Enumeration(f, logits)
    wanted = [tables.moments(gradlab.parse(text)) for text in ("ST", "ZGR", "DARN")]
    monkeypatch.setattr("gradlab.exact.moments._WIDE", 1)
    states = Enumeration(f, logits)
    for text, by_tables in zip(("ST", "ZGR", "DARN"), wanted, strict=True):
        found = states.moments(gradlab.parse(text))
        torch.testing.assert_close(found.mean, by_tables.mean, rtol=0, atol=1e-12)
        assert found.variance == pytest.approx(by_tables.variance, abs=1e-12)


@pytest.mark.parametrize("classes", [400, 1500])
def test_wide_variables_are_exact_where_tables_would_fill_the_memory(classes):
    f, logits = loss(classes), regime("moderate", 1, classes, 0)
    moments = exact_moments(gradlab.StraightThrough(), f, logits)
    drawn = gradlab.monte_carlo("ST", f, logits, 4000)
    score = scores(drawn.variance, moments.variance, drawn.variance.se)
    assert abs(score) < limit(15)


# ---- draws where tables take long, said in the row ----------------------------------------------


def test_tables_that_take_long_are_left_to_draws():
    f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
    rows = compare(f, logits, ["GS-ST", "ZGR"], draws=100)
    assert set(rows["method"]) == {"exact"}
    assert rows["note"].isna().all()
    rows = compare(f, logits, ["GS-ST", "RF(m=2)"], draws=100, patience=0.0)
    assert rows["method"].tolist() == ["monte carlo", "exact"]
    assert rows["note"][0].startswith("by draws: exact moments would take about")
    assert rows["note"].isna()[1]
    forced = compare(f, logits, ["GS-ST"], method="exact")
    assert forced["method"].tolist() == ["exact"]


def test_too_large_tables_are_left_to_draws_with_a_note():
    rows = compare(loss(400), torch.zeros(1, 400, dtype=torch.float64), ["GS-ST"], draws=64)
    assert rows["method"].tolist() == ["monte carlo"]
    assert "by draws" in rows["note"][0]
    assert rows["reason"].isna().all()


def test_recommend_says_what_it_leaves_to_draws():
    f, logits = loss(6), torch.zeros(12, 6, dtype=torch.float64)
    answer = recommend(f, logits, evaluations=8, estimators=["ST", "GS-ST", "RF"], draws=200)
    text = " ".join(answer.explain().split())
    assert "Left to draws: f has about 10^9.3 configurations" in text
    assert set(answer.rows["method"]) == {"monte carlo"}


def test_recommend_leaves_a_slow_sweep_to_draws(monkeypatch):
    monkeypatch.setattr("gradlab.comparison.evidence._PATIENCE", 0.0)
    f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
    answer = recommend(f, logits, evaluations=8, estimators=["ST", "RF"], draws=200)
    assert "at all configurations would take about" in answer.explain().replace("\n", " ")
    assert answer.truth.startswith("RF(m=4)")


@pytest.mark.thorough  # test_recommend_leaves_a_slow_sweep_to_draws
def test_far_temperatures_are_measured_by_few_draws(monkeypatch):
    f, logits = loss(6), regime("moderate", 12, 6, 0)
    given = {"evaluations": 8, "estimators": ["GS-ST", "ST", "RF"], "draws": 1600}
    whole = recommend(f, logits, **given)
    monkeypatch.setattr("gradlab.comparison.draws_enough._WORK", 1)
    narrowed = recommend(f, logits, **given)
    draws = narrowed.rows.set_index("estimator")["draws"]
    assert set(draws) == {100, 1600}
    assert draws["ST"] == 1600
    assert "measured by a sixteenth of the draws." in " ".join(narrowed.explain().split())
    assert list(narrowed.rows["estimator"]) == list(whole.rows["estimator"])
    best = narrowed.table.iloc[0]
    assert best["draws"] == 1600
    # What all draws were made of is the same row as before.
    shared = narrowed.rows["draws"] == 1600
    again = whole.rows.set_index("estimator").loc[narrowed.rows["estimator"][shared], "variance"]
    assert again.tolist() == narrowed.rows["variance"][shared].tolist()


# ---- the probe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1, 323), (2, 1, 1200), (2, 1, 5000), (3, 2, 3), (2, 30, 10)])
@pytest.mark.few(1)
def test_the_probe_has_the_same_columns_at_every_size(shape):
    classes = shape[-1]
    weight = torch.linspace(-1, 1, classes).cos()

    def f(x):
        return (x @ weight).square().sum(-1)

    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    probe = GradientProbe(["ZGR", "GS-ST", "RF(m=2)", "LE"], draws=32, reference_draws=512)
    probe(0, f, logits)
    assert list(probe.rows.columns) == PROBED
    small = GradientProbe(["ZGR"])
    small(0, lambda x: x.sum((-2, -1)), torch.zeros(1, 1, 2))
    assert list(small.rows.columns) == list(probe.rows.columns)
    told = probe.rows.set_index("estimator")["reason"].dropna()
    assert set(told.index) <= {"LE"}


def test_progress_of_an_enumeration_says_what_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("gradlab.progress._clock", lambda: now[0])
    monkeypatch.setattr("gradlab.progress._said", -math.inf)

    def slow(x):
        now[0] += 1.0
        return x[..., 0].sum(-1)

    exact_value(slow, torch.zeros(18, 2, dtype=torch.float64))
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) >= 2
    assert "enumerating" in lines[0]
    assert "left" in lines[-1]
