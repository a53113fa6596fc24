"""`gradlab verify` as a user meets it: tables, status, faults of one's own code."""

import textwrap
import time

import pandas as pd
import pytest

from gradlab.cli import main
from gradlab.cli.verifying import Judged, VerifyMethod
from gradlab.comparison.rows import METHODS
from gradlab.verification import rungs
from gradlab.verification.verifying import JUDGED

pytestmark = pytest.mark.usefixtures("unchecked")

MINE = """
import torch, gradlab
from gradlab.categorical import draw_one_hot

class Mine(gradlab.ZGR):
    name = "MINE"

class Overstated(gradlab.StraightThrough):
    name = "OVERSTATED"
    order = 2

def rloo(f, logits, n, generator):
    p = logits.softmax(-1)
    a, b = draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)
    return (f(a) - f(b))[:, None, None] * (a - b) / 2

def straight_through(logits):
    return torch.nn.functional.gumbel_softmax(logits, hard=True)

def raises(f, logits, n, generator):
    return 1 / 0

def gapless(logits, generator):
    return gradlab.straight_through(logits, generator=generator)

def centred(f, logits, generator):
    p = logits.softmax(-1)
    x = draw_one_hot(p.detach(), generator)
    values, log_p = f(x), (x * logits.log_softmax(-1)).sum((-2, -1))
    n = max(len(values), 2)
    return (values - values.mean()).detach() * log_p * (n / (n - 1))

def other_shape(f, logits, n, generator):
    return rloo(f, logits, n, generator)[:, 0]

def nan(f, logits, n, generator):
    return rloo(f, logits, n, generator) / 0 * 0

def own_seed(f, logits, n, generator):
    return rloo(f, logits, n, torch.Generator().manual_seed(0))

def global_noise(f, logits, n, generator):
    return rloo(f, logits, n, None)

def once(f, logits, n, generator):
    return rloo(f, logits, 1, generator).expand(n, *logits.shape)

def nothing(x):
    return x
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    # Which sites there are is the concern of tests/verification/test_rungs.py.
    monkeypatch.setattr(rungs, "SITES", rungs.SITES[:2])


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["verify", *arguments])
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines()), default=0) <= 100
    # A busy machine shows progress.
    told = [line for line in err.splitlines(keepends=True) if not line.startswith("verify: ")]
    return status, out, "".join(told)


def test_options_agree_with_the_library():
    assert [*VerifyMethod] == [*METHODS]
    assert [*Judged] == [*JUDGED]


@pytest.mark.slow
def test_all_that_is_declared_holds_in_about_a_minute(capsys, tmp_path):
    # Of the processor: other processes do not count. It works in this process alone.
    start = time.process_time()
    status, out, _ = run(capsys, "--out", str(tmp_path / "new"))
    assert time.process_time() - start < 90
    assert status == 0
    assert "NO" not in out.split()
    assert "GS-ST(tau=0.5) = GR(tau=0.5, k=inf) in mean" in out
    assert "own sample in the baseline" in out
    planted = pd.read_csv(tmp_path / "new" / "verify-planted.csv")
    assert set(planted["outcome"]) == {"BIASED", "REFUSED"}
    assert pd.read_csv(tmp_path / "new" / "verify-relations.csv")["holds"].all()
    rows = pd.read_csv(tmp_path / "new" / "verify.csv")
    zgr = rows[(rows["estimator"] == "ZGR") & (rows["degree"] <= 2)]
    assert set(zgr["outcome"]) == {"UNBIASED"}
    assert zgr["bias"].max() < 1e-9
    assert rows["holds"].all()


def test_the_same_seed_writes_the_same_rows(capsys, tmp_path):
    for name in ("a", "b"):
        run(capsys, "ARSM", "--problem", "mlp", "--seed", "3", "--out", str(tmp_path / name))
    assert (tmp_path / "a" / "verify.csv").read_bytes() == (
        tmp_path / "b" / "verify.csv"
    ).read_bytes()


@pytest.mark.usefixtures("mine")
def test_a_claim_that_fails_gives_status_1(capsys):
    status, out, err = run(capsys, "ZGR", "--file", "mine.py:Overstated")
    assert status == 1
    assert err.splitlines()[-1] == "gradlab: not as declared: OVERSTATED is EXACT TO DEGREE 1"
    assert "1, not 2" in out
    status, out, err = run(capsys, "--file", "mine.py:Overstated", "--problem", "quadratic")
    assert status == 1
    assert "OVERSTATED on quadratic(N=2, C=3, seed=0): BIASED" in err
    assert "It declares to be exact here." in out


@pytest.mark.usefixtures("mine")
# All that rloo says is drawn, here at two calls: the other commands draw functions in every run.
@pytest.mark.parametrize("name", ["Mine", pytest.param("rloo", marks=pytest.mark.slow)])
def test_right_code_of_ones_own_gives_status_0(name, capsys):
    for problem in ((), ("--problem", "quadratic", "--size", "3x2", "--regime", "uniform")):
        status, out, err = run(capsys, "--file", f"mine.py:{name}", "--delta", "0.3", *problem)
        assert (status, err) == (0, "")
    assert "on quadratic(N=3, C=2, seed=0): UNBIASED" in out


@pytest.mark.thorough  # test_verifying.py asks the library
@pytest.mark.usefixtures("mine")
def test_a_function_without_claim_is_asked_to_be_unbiased(capsys):
    status, out, err = run(capsys, "--file", "mine.py:straight_through", "--problem", "cubic")
    assert status == 1
    assert "Nothing is declared about this f." in out
    assert err.startswith("gradlab: not shown to be unbiased, which it does not declare: straight_")


# tests/verification/test_order.py asks the same of the library in every run.
@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_code_without_claim_holds_nothing_on_the_ladder(capsys):
    status, out, err = run(capsys, "--file", "mine.py:gapless", "--delta", "0.3")
    assert status == 0
    assert err == ""
    row = next(line for line in out.splitlines() if line.startswith("gapless"))
    assert row.split()[-2:] == ["1", "-"]
    text = " ".join(out.split())
    assert (
        "gapless declares nothing: no bias is found up to degree 1 in each variable, biased on"
        in text
    )
    assert "Its mean agrees with that of ST, within" in text


@pytest.mark.usefixtures("mine")
@pytest.mark.thorough  # test_smoke.py has --against
def test_against_asks_whether_code_is_coded_right(capsys):
    on = ("--problem", "cubic", "--delta", "0.3", "--against")
    status, out, err = run(capsys, "--file", "mine.py:gapless", *on, "ST")
    assert (status, err) == (0, "")
    assert "The question is whether its mean is that of ST, not the gradient." in out
    status, out, err = run(capsys, "--file", "mine.py:gapless", *on, "mine.py:Mine")
    assert status == 1
    assert err.startswith("gradlab: not MINE in mean: gapless on cubic(N=2, C=3, seed=0): BIASED")
    status, out, err = run(capsys, "ZGR", "--against", "ST")
    assert status == 1
    assert err == "gradlab: ZGR: DIFFERS FROM ST\n"
    assert "Compared is the mean with that of ST, not with the gradient." in out


@pytest.mark.usefixtures("mine")
@pytest.mark.thorough  # test_a_batch_by_draws
def test_a_batch_is_judged_as_one_estimate(capsys):
    on = ("--problem", "linear", "--delta", "0.5", "--batch", "4", "--judge", "training")
    status, out, _ = run(capsys, "--file", "mine.py:centred", *on)
    assert status == 0
    assert "centred in batches of 4 on linear" in out
    assert "Judged: its training." in out


def test_a_bias_where_none_is_denied_is_no_failure(capsys):
    status, out, _ = run(capsys, "ST", "--problem", "quadratic")
    assert status == 0
    assert "BIASED" in out
    assert "does not declare" in out


FAULTS = {
    "raises": r"raises raised ZeroDivisionError: division by zero (mine.py, line 21)",
    "other_shape": "other_shape must return [n, N, C] = [32, 2, 3] for n draws, not [32, 3]",
    "nan": "nan returned nan in 100.00% of 32 draws, first for variable 0, class 0",
    "own_seed": "own_seed ignores its generator: other generators give the same draws",
    "global_noise": "global_noise does not follow its generator",
    "once": "once returns one draw n times",
    "nothing": "cannot draw from nothing: no argument is called logits, its arguments are x",
    "nosuch": "mine.py",
}


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("ladder", [True, False], ids=["ladder", "problem"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.few(4)
def test_faulty_code_is_told_in_one_line(name, ladder, capsys):
    problem = () if ladder else ("--problem", "quadratic")
    status, _, err = run(capsys, "--file", f"mine.py:{name}", *problem)
    assert status == 2
    assert FAULTS[name] in err
    assert f"--file mine.py:{name}" in err
    assert len(err.splitlines()) == 1


BAD_USAGE = {
    "ZRG": "ESTIMATOR: unknown estimator 'ZRG'",
    "ZGR --problem cubicc": "unknown problem 'cubicc'; did you mean 'cubic'",
    "ZGR --problem cubic --regime cold": "--regime: unknown regime 'cold'",
    "ZGR --delta 0": "--delta: delta must be a number between 0 and 1",
    "ZGR --problem cubic --alpha 2": "alpha must be a number between 0 and 1",
    "ZGR --max-draws 3": "--max-draws",
    "ARSM --problem cubic --method exact": "no exact mean is known for ARSM",
    "ZGR --problem quadratic --size 40x4 --method exact": "configurations",
    "--file mine.py": "FILE.py:NAME",
    "ZGR --against ZRG": "--against: unknown estimator 'ZRG'",
    "ZGR --batch 0": "--batch",
    "ZGR --judge sample": "--judge",
    "ZGR --method monte-carlo": "--method: only with --problem or --loss",
}


@pytest.mark.parametrize("line", BAD_USAGE)
def test_bad_usage_is_told_in_one_line(line, capsys):
    status, out, err = run(capsys, *line.split())
    assert status == 2
    assert out == ""
    assert BAD_USAGE[line] in err
    assert len(err.splitlines()) == 1


@pytest.mark.thorough  # test_two_sets_of_draws_are_compared_where_f_cannot_be_enumerated
def test_a_model_too_large_to_enumerate_is_compared_with_rf(capsys):
    line = "RF(m=2) --problem quadratic --size 30x10 --delta 0.5 --max-draws 4000"
    status, out, _ = run(capsys, *line.split())
    assert status in (0, 1)
    assert "the mean of RF(m=4), by as many draws of it" in textwrap.dedent(out)
