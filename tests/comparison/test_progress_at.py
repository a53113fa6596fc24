"""Progress read from rows for other numbers of draws is that of the moments."""

import math

import pytest

from gradlab import compare, exact_gradient, exact_moments, monte_carlo, parse
from gradlab.comparison.ranking import progress_at
from gradlab.problems import problem, regime

F, LOGITS = problem("cubic", 3, 3), regime("moderate", 3, 3)
NUMBERS = (1, 3.5, 100, math.inf)


@pytest.mark.parametrize("text", ["ST", "ZGR", "DARN", "LE", "RF(m=4)", "GR(k=inf, tau=5)"])
@pytest.mark.parametrize("averaged", NUMBERS)
@pytest.mark.few(9)
def test_exact_rows_know_it_for_every_number(text, averaged):
    rows = compare(F, LOGITS, [text], method="exact", averaged=7)
    expected = exact_moments(parse(text), F, LOGITS).progress(exact_gradient(F, LOGITS), averaged)
    value, error = progress_at(rows, averaged)
    assert value[0] == pytest.approx(float(expected), abs=1e-10)
    assert error[0] == 0
    value, _ = progress_at(rows, 7)
    assert rows["progress"][0] == pytest.approx(value[0], abs=1e-10)
    assert rows["averaged"][0] == 7


@pytest.mark.parametrize("text", ["GS(tau=1)", "ARSM", "GS-ST(tau=0.3)"])
@pytest.mark.parametrize("averaged", [1, 100])
@pytest.mark.few(2)
def test_measured_rows_know_it_within_their_error(text, averaged):
    rows = compare(F, LOGITS, [text], method="monte-carlo", draws=4096)
    value, error = progress_at(rows, averaged)
    direct = monte_carlo(text, F, LOGITS, 4096, row=rows["problem"][0])
    expected = direct.progress(exact_gradient(F, LOGITS), averaged)
    assert value[0] == pytest.approx(float(expected), abs=0.3 * expected.se)
    assert error[0] == pytest.approx(expected.se, rel=0.5)


def test_a_mean_of_zero_makes_no_progress():
    rows = compare(F, LOGITS, ["ST"], method="exact").assign(cosine=math.nan)
    rows["scale_free_variance"] = math.nan
    assert [float(part[0]) for part in progress_at(rows, 10)] == [0.0, 0.0]
    lost, _ = progress_at(rows.assign(method="monte carlo"), 10)
    assert math.isnan(lost[0])
