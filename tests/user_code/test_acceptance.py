"""What is accepted as an estimator is one list, for every call and every command alike.

Each code is put to each entry, and its numbers are those of the estimator that it is; what is not
accepted is refused by what was seen.
"""

import functools
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import accepted
import gradlab
from gradlab.cli import main
from gradlab.exact.moments import Enumeration
from gradlab.loss import LossDtypeError
from gradlab.moments import GROUPS
from gradlab.nn.layer import CategoricalLayer
from gradlab.nn.probe import GradientProbe
from gradlab.problems import problem, regime
from gradlab.sweep.cells import computed
from gradlab.sweep.grid import Grid
from gradlab.user_code.under_test import EstimatorDtypeError, draws_of
from gradlab.verification.order import rungs, verify_order
from gradlab.verification.verdict import BIASED, UNBIASED
from significance import limit

pytestmark = pytest.mark.usefixtures("unchecked")

LOSS, LOGITS = problem("quadratic", 2, 3, 11), regime("moderate", 2, 3, 11)
ON = Enumeration(LOSS, LOGITS)
RUNG = rungs(["multiquadratic"], [(2, 3)], ["moderate"], seed=3)
FILE = Path(accepted.__file__)
OPTIONS = {"delta": 0.2, "alpha": 1e-9}
CODES = {name: getattr(accepted, name) for name in accepted.CODES}
# One code of each form, where the others take the same way.
FEW = ("draw", "surrogate", "layer_of_st", "model", "partial", "Mine", "text")
each = pytest.mark.parametrize("name", CODES)
few_first = pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in CODES]
)


def known(name: str) -> gradlab.Moments:
    return _moments(accepted.CODES[name])


@functools.cache
def _moments(text: str) -> gradlab.Moments:
    return ON.moments(gradlab.parse(text))


def check_row(row: dict, name: str, on: gradlab.Moments | None = None) -> None:
    """Check the numbers of a row of `compare` against the exact ones."""
    expected = known(name) if on is None else on
    bias2 = float((expected.mean - ON.gradient).square().sum())
    assert row["reason"] is None or pd.isna(row["reason"])
    exact = row["bias2_se"] == 0
    bound = 1e-9 if exact else limit(GROUPS - 1)
    assert abs(row["bias2"] - bias2) <= bound * (1 if exact else row["bias2_se"])
    apart = abs(row["variance"] - expected.variance.value)
    assert apart <= bound * (1 if exact else row["variance_se"])


@few_first
@pytest.mark.few(2)
def test_verify_takes_it(name):
    verdict = gradlab.verify(CODES[name], LOSS, LOGITS, against=accepted.CODES[name], **OPTIONS)
    assert verdict.outcome == UNBIASED
    assert verdict.holds
    assert f"whether its mean is that of {accepted.CODES[name]}" in _words(verdict.explain())


@pytest.mark.thorough  # verify takes it
@few_first
@pytest.mark.few(1)
def test_verify_order_takes_it(name):
    ladder = verify_order(CODES[name], on=RUNG, against=accepted.CODES[name], **OPTIONS)
    assert ladder.outcome == f"AGREES WITH {accepted.CODES[name]}"
    assert ladder.holds


@each
@pytest.mark.few(2)
def test_monte_carlo_takes_it(name):
    moments = gradlab.monte_carlo(CODES[name], LOSS, LOGITS, 4096, seed=5)
    bias2 = moments.bias2(known(name).mean)
    assert abs(bias2.value) <= limit(GROUPS - 1) * bias2.se
    apart = abs(moments.variance.value - known(name).variance.value)
    assert apart <= limit(GROUPS - 1) * moments.variance.se


@each
@pytest.mark.few(3)
def test_compare_takes_it(name):
    rows = gradlab.compare(LOSS, LOGITS, [CODES[name]], draws=4096, seed=6)
    check_row(rows.iloc[0].to_dict(), name)


@few_first
@pytest.mark.few(2)
def test_the_probe_takes_it(name):
    probe = GradientProbe([CODES[name]], draws=512, seed=7)
    probe(0, LOSS, torch.stack([LOGITS, LOGITS]))
    row = probe.rows.iloc[0].to_dict()
    bias2 = 2 * float((known(name).mean - ON.gradient).square().sum())
    assert row["reason"] is None
    assert abs(row["bias2"] - bias2) <= max(limit(GROUPS - 1) * row["bias2_se"], 1e-9)


@pytest.mark.thorough  # compare takes it
@few_first
@pytest.mark.few(1)
def test_recommend_takes_it(name):
    ranked = gradlab.recommend(
        LOSS, LOGITS, evaluations=8, estimators=[CODES[name], "ARSM"], draws=256, seed=8
    )
    rows = ranked.rows[ranked.rows["estimator"] != "ARSM"]
    check_row(rows.iloc[0].to_dict(), name)


@pytest.mark.slow
def test_a_sweep_takes_all(tmp_path):
    grid = Grid(
        ["quadratic"],
        ["2x3"],
        seeds=[11],
        estimators=[f"{FILE.name}:{name}" for name in CODES if name != "estimator"],
        draws=4096,
        folder=FILE.parent,
    )
    assert len(grid) == len(CODES) - 1
    rows = [row for row in computed(grid.task(0)) if row is not None]
    for name, row in zip([n for n in CODES if n != "estimator"], rows, strict=True):
        assert row["error"] is None
        check_row(row, name)


def test_one_name_for_two_codes_is_refused_in_a_sweep(tmp_path):
    for file in ("a.py", "b.py"):
        (tmp_path / file).write_text("import gradlab\ndef s(logits):\n  return gradlab.zgr(logits)")
    with pytest.raises(ValueError, match=r"a\.py:s and b\.py:s are both s"):
        Grid(["quadratic"], ["2x3"], estimators=["a.py:s", "b.py:s"], folder=tmp_path)


def _files(names) -> list[str]:
    return [word for name in names for word in ("--file", f"{FILE}:{name}")]


SIZE = ["--problem", "quadratic", "--size", "2x3", "--seed", "11"]


@pytest.mark.slow
def test_the_command_compare_takes_all(capsys, tmp_path):
    names = [name for name in CODES if name != "estimator"]
    asked = ["compare", *SIZE, "--draws", "4096", "--workers", "1", "--out", str(tmp_path)]
    assert main([*asked, *_files(names)]) == 0
    rows = pd.read_csv(tmp_path / "compare.csv")
    assert len(rows) == len(names)
    for name in names:
        called = draws_of(CODES[name]).name
        check_row(rows[rows["estimator"] == called].iloc[0].to_dict(), name)


@pytest.mark.slow
def test_the_command_recommend_takes_all(capsys):
    names = [name for name in CODES if name != "estimator"]
    asked = ["recommend", *SIZE, "--draws", "64", "--workers", "1"]
    assert main([*asked, *_files(names)]) == 0
    out = capsys.readouterr().out
    assert all(draws_of(CODES[name]).name in out for name in names)


@pytest.mark.parametrize(
    "names", [("layer", "short"), pytest.param(tuple(CODES), marks=pytest.mark.slow)]
)
@pytest.mark.thorough  # test_verify_takes_it, test_smoke.py
def test_the_command_verify_takes_all(names, capsys):
    by_known = {
        known: [n for n in names if accepted.CODES[n] == known]
        for known in set(accepted.CODES.values())
    }
    for wanted, same in by_known.items():
        if same:
            asked = ["verify", *SIZE, "--against", wanted, "--delta", "0.2", "--alpha", "1e-9"]
            assert main([*asked, *_files(same)]) == 0
    lines = capsys.readouterr().err.splitlines()
    # A busy machine shows progress.
    assert all(re.fullmatch(r"verify: .* left", line) for line in lines)


# ---- float32 ----------------------------------------------------------------------------------


@pytest.mark.thorough  # test_commands_give_float32_code_float32_logits
def test_float32_code_on_float32_logits_just_works():
    code, logits = accepted.linear32, LOGITS.float()
    assert gradlab.verify(code, LOSS, logits, **OPTIONS).outcome == UNBIASED
    rows = gradlab.compare(LOSS, logits, [code], draws=4096)
    assert rows["dtype"].tolist() == ["float32"]
    check_row(rows.iloc[0].to_dict(), "layer")


def test_float32_code_on_float64_logits_is_said_to_be_that():
    for call in (
        lambda: gradlab.verify(accepted.linear32, LOSS, LOGITS),
        lambda: gradlab.compare(LOSS, LOGITS, [accepted.linear32]),
        lambda: gradlab.monte_carlo(accepted.linear32, LOSS, LOGITS, 64),
    ):
        with pytest.raises(EstimatorDtypeError, match="works on logits of float32 but not of floa"):
            call()


LINE = "gradlab: {} works in float32 but not in float64: float32 logits are used\n"


def without_plan(err: str) -> str:
    """Return what a command printed, without the line on what it will measure."""
    return re.sub(r"(?m)^\d+ estimators? .*to measure, .*: about .*\n", "", err)


@pytest.mark.parametrize("command", ["verify", "compare", "recommend"])
@pytest.mark.few(1)
def test_commands_give_float32_code_float32_logits(command, capsys):
    more = {
        "verify": ["--delta", "0.2"],
        "compare": ["--draws", "64", "--workers", "1"],
        "recommend": ["--draws", "64", "--workers", "1"],
    }[command]
    assert main([command, *SIZE, *more, *_files(["linear32"])]) == 0
    assert without_plan(capsys.readouterr().err) == LINE.format("the code")


@pytest.mark.thorough  # test_commands_give_float32_code_float32_logits
def test_a_sweep_gives_float32_code_float32_logits():
    estimators = [f"{FILE.name}:linear32", "ZGR"]
    grid = Grid(
        ["quadratic"], ["2x3"], seeds=[11], estimators=estimators, draws=4096, folder=FILE.parent
    )
    single, double = (row for row in computed(grid.task(0)) if row is not None)
    assert (single["dtype"], double["dtype"]) == ("float32", "float64")
    check_row(single, "layer")


FLOAT32 = """
import torch, gradlab
from torch import nn
torch.manual_seed(0)
matrix, table = nn.Linear(6, 1), nn.Embedding(3, 4)

def linear(x):
    return matrix(x.flatten(-2)).squeeze(-1).square()

def embedding(x):
    return table(x.argmax(-1)).square().sum((-2, -1))

convolution = gradlab.as_loss(
    nn.Conv1d(3, 2, 2), layout="C N", output=lambda y: y.square(), reduce="mean"
)

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0][:, -1].square().sum(-1)

lstm = gradlab.as_loss(Recurrent())

class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(3, 2, 2)

    def forward(self, x):
        y = self.convolution(x.transpose(-1, -2).reshape(-1, 3, 2))
        return y.square().sum((-1, -2)).reshape(x.shape[:-2])

bare_convolution = Convolution()
"""
# Whether f itself takes float32 only.
LOSSES = {
    "linear": True,
    "embedding": False,
    "convolution": False,
    "lstm": False,
    "bare_convolution": True,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.few(1)
def test_a_float32_loss_just_works(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("losses.py").write_text(FLOAT32)
    Path("logits.csv").write_text("0,1,-1\n0.5,0,0\n")
    torch.save(torch.tensor([[0, 1, -1], [0.5, 0, 0]]), "logits.pt")
    asked = ["recommend", "RF", "--loss", f"losses.py:{name}", "--draws", "64"]
    for file in ("logits.pt", "logits.csv"):
        assert main([*asked, "--workers", "1", "--logits", file]) == 0
        told = LINE.format(f"losses.py:{name}") if LOSSES[name] and file == "logits.csv" else ""
        assert without_plan(capsys.readouterr().err) == told
    from gradlab.user_code.objects import load_logits, load_object

    f, logits = load_object(f"losses.py:{name}"), load_logits("logits.pt")
    assert logits.dtype == torch.float32
    assert gradlab.verify("RF(m=2)", f, logits).unbiased
    assert gradlab.compare(f, logits, ["RF(m=2)"])["dtype"][0] == "float32"
    if LOSSES[name]:
        with pytest.raises(LossDtypeError, match="works on x of float32 but not of float64"):
            gradlab.verify("RF(m=2)", f, logits.double())


# ---- what is not accepted ---------------------------------------------------------------------


class TwoInputs(nn.Module):
    def forward(self, logits, noise):
        return logits + noise


class Raises(nn.Module):
    def forward(self, logits):
        raise RuntimeError("no such luck")


class NeedsArguments(gradlab.ZGR):
    def __init__(self, scale):
        super().__init__()


def loss(x):
    return x[..., 0].sum(-1)


def misspelt(logit, generator):
    return gradlab.zgr(logit, generator=generator)


def generates(logits):
    yield gradlab.zgr(logits)


def needs_more(logits, temperature):
    return F.gumbel_softmax(logits, temperature, hard=True)


def detaches(logits):
    return gradlab.zgr(logits).detach()


def detaches_in_a_surrogate(f, logits):
    return f(gradlab.zgr(logits)).detach()


def relaxed_to_two(logits):
    return torch.softmax(logits, -1)[..., :2]


class EvaluatedInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = CategoricalLayer("ZGR").eval()

    def forward(self, logits):
        return self.layer(logits)


class NeverTrains(nn.Module):
    def forward(self, logits):
        return F.one_hot(logits.argmax(-1), 3).to(logits.dtype)


REFUSED = {
    "eval mode": (CategoricalLayer("ZGR").eval(), "in training mode it does; call .train()"),
    "eval mode inside": (EvaluatedInside(), "in training mode it does; call .train()"),
    "eval mode is not the reason": (NeverTrains().eval(), "nor in training mode"),
    "two inputs": (TwoInputs(), "it needs the argument noise, which is none of f, logits"),
    "levels": (
        CategoricalLayer("ZGR", embedding="levels"),
        r"must return x of the shape of logits \[.*2, 3\], not \[.*2\]",
    ),
    "too few classes": (relaxed_to_two, r"x of the shape of logits \[.*2, 3\], not \[.*2, 2\]"),
    "a loss": (loss, "no argument is called logits, its arguments are x, as a loss"),
    "misspelt": (misspelt, r"is logit meant to be logits\?"),
    "generator function": (generates, r"it is a generator function, .* \(it has a yield\)"),
    "needs more": (needs_more, "it needs the argument temperature, .*functools.partial"),
    "class that needs arguments": (NeedsArguments, "made without arguments: .*'scale'"),
    "class of a module": (Raises, r"it is a class, and not one of Estimator; give an object"),
    "None": (None, "cannot draw from NoneType"),
    "tensor": (torch.zeros(2, 3), "cannot draw from Tensor"),
    "unknown name": ("ZRG", "unknown estimator 'ZRG'; did you mean 'ZGR'"),
    "raises": (Raises(), "Raises raised RuntimeError: no such luck"),
    "detaches": (detaches, "torch records nothing between the logits and what it returns"),
    "detaches in a surrogate": (detaches_in_a_surrogate, "torch records nothing between"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_accepted_is_refused_by_what_is_seen(case):
    code, message = REFUSED[case]
    calls = (
        lambda: gradlab.verify(code, LOSS, LOGITS),
        lambda: verify_order(code, on=RUNG),
        lambda: gradlab.compare(LOSS, LOGITS, [code]),
        lambda: gradlab.monte_carlo(code, LOSS, LOGITS, 64),
        lambda: gradlab.recommend(LOSS, LOGITS, evaluations=8, estimators=[code]),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message) as told:
            call()
        assert "\n" not in str(told.value)


BAD = """
import gradlab
from gradlab.nn.layer import CategoricalLayer
evaluated = CategoricalLayer("ZGR").eval()

def loss(x):
    return x[..., 0].sum(-1)

def misspelt(logit, generator):
    return gradlab.zgr(logit, generator=generator)

def raises(logits):
    raise RuntimeError("no such luck")

nothing = None
"""
TOLD = {
    "evaluated": "in training mode it does",
    "loss": "as a loss f(x) has",
    "misspelt": "is logit meant to be logits?",
    "raises": "raised RuntimeError: no such luck (bad.py, line 13)",
    "nothing": "cannot draw from NoneType",
}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("command", ["verify", "compare", "recommend"])
def test_commands_refuse_in_one_line(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text(BAD)
    assert main([command, *SIZE, "--file", f"bad.py:{name}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "--file" in err
    assert TOLD[name] in err


# ---- what code that declares nothing is found to be -------------------------------------------


def scaled(factor, text):
    def code(f, logits, n, generator):
        return factor * gradlab.parse(text).draw(f, logits, n, generator)

    return code


def softmax_twice(logits, generator):
    p = logits.softmax(-1)
    x = gradlab.categorical.draw_one_hot(p.detach(), generator)
    q = p.softmax(-1)
    return x + q - q.detach()


def minus(f, logits, n, generator):
    return -gradlab.exact_gradient(f, logits).expand(n, -1, -1)


def nothing(f, logits, n, generator):
    return torch.zeros(n, *logits.shape)


QUADRATIC = problem("quadratic", 2, 3, 1), regime("moderate", 2, 3, 1)
FOUND = {
    "ST": (accepted.layer_of_st, "ST", None),
    "DARN": (scaled(1, "DARN"), "DARN", None),
    "GS-ST": (accepted.with_schedule, "GS-ST(tau=0.5)", None),
    "GS-ST between": (scaled(1, "GS-ST(tau=0.35)"), None, None),
    "softmax twice": (softmax_twice, None, None),
    "0.9": (scaled(0.9, "ZGR"), None, 0.9),
    "1/2": (scaled(0.5, "ZGR"), None, 0.5),
    "2.37": (scaled(2.37, "RF(m=2)"), None, 2.37),
    "-1": (minus, None, -1),
    "0": (nothing, None, 0),
}


@functools.cache
def found(case: str) -> gradlab.Verdict:
    return gradlab.verify(FOUND[case][0], *QUADRATIC)


@pytest.mark.parametrize("case", FOUND)
@pytest.mark.few(1)
def test_what_biased_code_is_found_to_be(case):
    _, nearest, factor = FOUND[case]
    verdict = found(case)
    assert verdict.outcome == BIASED
    assert verdict.holds is None
    told = verdict.resembles
    assert told.nearest == nearest
    assert not told.undecided
    assert told.scaled.alone == (factor is not None)
    if factor is not None:
        assert factor in told.scaled
        assert told.scaled.high - told.scaled.low < 0.2
    assert verdict.factor != 1


SENTENCES = {
    "ST": r"agrees with that of ST, within \d\.\d% of its length, .* against=\"ST\" \(--against\)",
    "GS-ST": r"agrees with that of GS-ST\(tau=0.5\), within",
    "softmax twice": r"none of ST, DARN, ZGR and GS-ST\(tau=0.1, 0.25, 0.5, 1, 2\): all excluded",
    "0.9": r"the mean is 0\.9\d\d \(0\.8\d\d to 0\.9\d\d\) times the gradient, to within 2\.\d%",
    "1/2": r"With that factor every estimate is multiplied by 1/2, as when",
    "-1": r"the mean is -1 times the gradient.*multiplied by -1: a sign is wrong",
    "0": r"the mean is 0 times the gradient",
}


@pytest.mark.parametrize("case", SENTENCES)
@pytest.mark.few(2)
def test_what_it_is_found_to_be_is_said(case):
    from re import search

    assert search(SENTENCES[case], _words(found(case).explain()))
    assert "multiplied by 1." not in found(case).explain()


def _words(text: str) -> str:
    return " ".join(text.split()).replace("GS- ST", "GS-ST")


@pytest.mark.thorough  # test_what_it_is_found_to_be_is_said
def test_a_loss_that_tells_nothing_apart_is_said_to():
    linear = problem("linear", 2, 3, 1), QUADRATIC[1]
    verdict = gradlab.verify(accepted.layer_of_st, *linear)
    assert verdict.outcome == UNBIASED
    assert "exactly, ST, DARN and ZGR: it does not tell the code" in _words(verdict.explain())


@pytest.mark.thorough  # test_cli_verify.py says it
def test_a_ladder_says_what_code_is_that_declares_nothing():
    on = rungs(["linear", "quadratic", "cubic"], [(2, 3)], ["moderate"])
    ladder = verify_order(scaled(1, "ST"), on=on, delta=0.2)
    assert ladder.holds is None
    assert ladder.nearest == "ST"
    assert ladder.degree == 1
    assert (
        "no bias is found up to degree 1 in each variable, biased on quadratic and cubic"
        in ladder.found()
    )
    assert "agrees with that of ST" in ladder.found()
    twice = verify_order(softmax_twice, on=on[:1])
    assert (twice.holds, twice.nearest, twice.degree) == (None, None, -1)
    assert "that of none of" in twice.found()


def test_two_exact_means_are_compared_exactly():
    verdict = gradlab.verify("ZGR", *QUADRATIC, against="ST")
    st, zgr = (gradlab.exact_moments(gradlab.parse(t), *QUADRATIC).mean for t in ("ST", "ZGR"))
    assert verdict.method == "exact"
    assert verdict.outcome == BIASED
    assert math.sqrt(verdict.bias2.value) == pytest.approx(float((zgr - st).norm()), rel=1e-9)
    assert gradlab.verify("ZGR", *QUADRATIC, against="ST-ZGR(alpha=1)").outcome == UNBIASED
    with pytest.raises(ValueError, match="no exact mean is known for softmax_twice"):
        gradlab.verify(softmax_twice, *QUADRATIC, against="ST", method="exact")
