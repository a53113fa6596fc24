"""What a recommendation says before it starts, and that what is large is measured, not refused."""

import re
import subprocess
import sys

import pytest
import torch

from gradlab.comparison import forecast as forecasting
from gradlab.comparison.comparing import with_temperatures
from gradlab.comparison.draws_enough import draws_for
from gradlab.comparison.forecast import patience_of
from gradlab.comparison.recommendation import UNMEASURED
from gradlab.comparison.recommending import recommend
from gradlab.estimators import ESTIMATORS, parse
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.exact.tabulated import Tabulated
from gradlab.exact.tuples import tuple_seconds
from gradlab.loss.gate import checked
from gradlab.problems import problem, regime

pytestmark = pytest.mark.usefixtures("unchecked")

TEXTS = ["ST", "GS-ST", "GS", "REINFORCE", "RF(m=4)"]


def loss(*size: int):
    """Return a smooth loss of N variables of C classes."""
    variables, classes = size[-2:]
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(variables, classes, dtype=torch.float64, generator=source)
    return lambda x: (x * weight.to(x.dtype)).sum((-2, -1)).div(variables**0.5).tanh()


def enumeration(*size: int):
    logits = torch.zeros(*size, dtype=torch.float64)
    return (Enumeration if len(size) == 2 else EnumeratedBatch)(loss(*size), logits)


# ---- before it starts ---------------------------------------------------------------------------


@pytest.mark.thorough  # those below measure and say as much
def test_the_plan_counts_what_is_exact_and_what_is_drawn(capsys):
    f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
    given = {"evaluations": 4, "temperatures": [0.5, 1.0], "draws": 640, "estimators": TEXTS}
    answer = recommend(f, logits, progress=True, **given)
    err = capsys.readouterr().err
    exact = (answer.rows.method == "exact").sum()
    assert (exact, len(answer.rows)) == (5, 7)
    told = "7 estimators and temperatures to measure, 5 exactly, 2 by 640 draws each: about "
    assert err.splitlines()[0].startswith(told)
    assert re.search(r"about \d+ (s|min)$", err.splitlines()[0])
    recommend(f, logits, progress=False, **given)
    assert capsys.readouterr().err == ""


def test_the_plan_grows_with_the_draws(monkeypatch):
    """Each draw of this clock takes a millisecond."""
    clock = [0.0]
    monkeypatch.setattr(forecasting.time, "perf_counter", lambda: clock[0])
    on = enumeration(2, 3)

    class Slow:
        estimator = parse("GS")

        def __call__(self, f, logits, n, generator):
            clock[0] += n / 1000
            return torch.zeros(n, 2, 3)

    monkeypatch.setattr(forecasting, "draws_of", lambda cell: Slow())
    given = {"method": "monte-carlo", "patience": 10.0, "reference": None, "workers": 1}
    cells = with_temperatures(["GS"], [0.5, 1.0])
    assert forecasting.forecast(on, cells, 10_000, given).endswith("about 20 s")
    assert forecasting.forecast(on, cells, 10_000, given | {"workers": 2}).endswith("about 10 s")
    reference = {"reference": "RF(m=4)", "reference_draws": 60_000}
    assert forecasting.forecast(on, cells, 10_000, given | reference).endswith("about 80 s")


def test_exact_moments_take_half_a_minute_in_all():
    assert patience_of(enumeration(4, 4), with_temperatures(["GS-ST", "ST"], [0.1, 1.0])) == 10.0
    on, cells = (
        enumeration(1, 512),
        with_temperatures(["GST", "ST-T"], [0.1 * k for k in range(1, 16)]),
    )
    limit = patience_of(on, cells)
    assert limit < 10.0
    assert sum(s for cell in cells if (s := on.seconds(cell)) <= limit) <= 30


@pytest.mark.parametrize(("text", "least"), [("UNORD", 10.0), ("DoubleCV", 10.0), ("RF(m=2)", 0.0)])
def test_tuples_of_samples_are_counted(text, least):
    logits = torch.zeros(1, 512, dtype=torch.float64)
    seconds = tuple_seconds(parse(text), logits)
    assert seconds >= least
    assert (seconds == 0) == (least == 0)
    assert tuple_seconds(parse(text), torch.zeros(1, 3, dtype=torch.float64)) < 0.01


def test_fewer_draws_of_more_numbers():
    on = enumeration(1, 5000)
    assert draws_for(on, parse("ST"), 3_000) == 3_000
    assert 300 < draws_for(on, parse("GR(k=10)"), 10_000) < 400
    assert draws_for(on, parse("GR(k=10)"), 64) == 64


def test_a_batch_of_more_states_than_a_float_counts():
    logits = torch.zeros(2, 400, 10, dtype=torch.float64)
    table = Tabulated(checked(loss(400, 10), logits), logits)
    assert table.states == 10**400
    assert table.element(0)(torch.zeros(3, 400, 10, dtype=torch.float64)).shape == (3,)


# ---- nothing is refused that draws can answer ---------------------------------------------------

# UNORD and SAS enumerate the states that they draw from, MVE solves a system of C equations. One
# draw of ARSM or CARMS may not fit in memory.
_OF_THEIR_OWN = (
    r"is for variables of 2 classes|is for f of the class index|counts as \d+ evaluations"
)
_TABLES = r"4096|C = \d+ is more than 64|one draw of .* more than \d+ in all|table of pairs holds"


# Slow: every estimator at five large sizes.
@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [(1, 512), (1, 1000), (1, 2000), (1, 5000), (30, 10), (64, 30, 10)]
)
def test_large_problems_are_measured(size):
    logits = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = {"evaluations": 12, "temperatures": [0.5], "draws": 64, "reference_draws": 640}
    answer = recommend(loss(*size), logits, estimators=list(ESTIMATORS), **given)
    left = answer.table[answer.table["rank"].isna()]
    refused = left[~left.reason.str.contains(f"{_OF_THEIR_OWN}|{_TABLES}")]
    assert refused.reason.str.startswith(UNMEASURED).all(), refused.reason.tolist()
    assert answer.table["rank"].notna().sum() >= 3


# Slow: a fresh process, whose memory is its own.
@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 5000), (64, 30, 10)])
def test_memory_is_bounded(size):
    code = f"""
import torch
from gradlab.comparison.recommending import recommend
weight = torch.randn({size[-2:]}, dtype=torch.float64)
f = lambda x: (x * weight).sum((-2, -1)).div({size[-2]}**0.5).tanh()
logits = torch.randn({size}, dtype=torch.float64)
texts = ["ST", "GR", "REBAR", "ARSM", "RF(m=4)"]
recommend(f, logits, evaluations=12, estimators=texts, temperatures=[0.5], draws=640,
          reference_draws=640)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 2048
