"""Up to which degree an estimator is exact, and what estimators have to do with each other."""

import dataclasses
import math

import pytest

import gradlab
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.verification import identities, order
from gradlab.verification.order import Ladder, rungs, verify_order
from gradlab.verification.report import ladder_text, relation_text
from gradlab.verification.verdict import BIASED, NOT_APPLICABLE, UNBIASED

pytestmark = pytest.mark.usefixtures("unchecked")

ON = rungs(seed=1, regimes=["moderate", "masked"])
ON_ALL = ("ST", "ZGR", "GS(tau=0.5)", "RF(m=2)", "ARSM")
ON_ONE = rungs(sizes=[(2, 3)], regimes=["moderate"], seed=1)  # for relatives of these
FEW = rungs(["constant", "linear", "quadratic", "table"], [(2, 3)], ["moderate"])
FOUND: dict[str, Ladder] = {}


def found(text: str) -> Ladder:
    if text not in FOUND:
        FOUND[text] = verify_order(text, on=ON if text in ON_ALL else ON_ONE, alpha=1e-8)
    return FOUND[text]


DEGREES = {
    "ST": 1,
    "DARN": 1,
    "ST-ZGR(alpha=0.5)": 1,
    "ST-ZGR(alpha=1)": 2,
    "ZGR": 2,
    "GS(tau=0.5)": 0,
    "GS-ST(tau=0.5)": 0,
    "GR(tau=0.1, k=3)": 0,
    "GR(tau=0.1, k=inf)": 0,
    "REINFORCE(baseline=1)": math.inf,
    "RF(m=2)": math.inf,
    "RF(m=4)": math.inf,
    "ARSM": math.inf,
}


@pytest.mark.parametrize("text", DEGREES)
@pytest.mark.few(3)
def test_the_degree_found_is_the_one_declared(text):
    climbed = found(text)
    assert climbed.degree == climbed.order == DEGREES[text]
    assert climbed.holds
    outcome = UNBIASED if math.isinf(climbed.degree) else f"EXACT TO DEGREE {climbed.degree}"
    assert climbed.explain().startswith(f"{climbed.estimator} is {outcome}; it declares")
    assert "which holds" in climbed.explain()


@pytest.mark.parametrize("text", ["ST", "ZGR", "RF(m=2)"])
def test_what_is_known_exactly_is_proved_on_every_rung(text):
    verdicts = found(text).verdicts
    assert len(verdicts) == len(ON) == 9 * 3 * 2
    assert {v.method for v in verdicts} == {"exact"}


@pytest.mark.parametrize("text", ["ARSM", "GS(tau=0.5)"])
@pytest.mark.few(1, "GS(tau=0.5)")
def test_what_is_not_is_drawn_at_moderate_logits(text):
    climbed = found(text)
    used = zip(climbed.rungs, climbed.verdicts, strict=True)
    drawn = [r for r, v in used if v.outcome != NOT_APPLICABLE]
    assert len(drawn) == 9 - (climbed.estimator != "ARSM")
    assert all(r.drawn for r in drawn)


@pytest.mark.parametrize(("text", "degree"), [("ST", 1), ("ZGR", 2), ("GS-ST(tau=0.5)", 0)])
def test_the_check_of_jacobians_alone_agrees(text, degree):
    static = found(text).static
    assert static is not None
    assert static.degree == degree
    assert str(static) in " ".join(found(text).explain().split())


@pytest.mark.parametrize("text", ["ZGR", "GS(tau=0.5)"])
def test_a_table_has_no_gradient(text):
    assert found(text).worst("table").outcome == NOT_APPLICABLE


@dataclasses.dataclass(frozen=True, repr=False)
class Overstated(gradlab.SampleOnlyEstimator):
    """ST, declared to be exact for quadratics."""

    name = "OVERSTATED"
    order = 2
    reference = "none"

    def pullback(self, p, x, v):
        return gradlab.StraightThrough().pullback(p, x, v)


def test_an_overstated_degree_fails():
    climbed = verify_order(Overstated(), on=FEW)
    assert climbed.degree == 1
    assert not climbed.holds
    assert "it declares degree 2, which FAILS" in climbed.explain()
    assert climbed.worst("quadratic").outcome == BIASED


@pytest.mark.thorough  # test_cli_verify.py has code without a claim
def test_a_function_declares_by_its_attribute():
    def rloo(f, logits, n, generator):
        p = probabilities(logits)
        a, b = draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)
        return (f(a) - f(b))[:, None, None] * (a - b) / 2

    silent = verify_order(rloo, on=FEW)
    assert silent.order is None
    assert silent.outcome == UNBIASED
    assert silent.holds is None
    assert silent.found() == "rloo declares nothing: no bias is found on any of these losses."
    rloo.order = math.inf
    assert verify_order(rloo, on=FEW[:1]).order == math.inf


def test_rows_hold_one_verdict_each():
    rows = verify_order("ZGR", on=FEW).rows()
    assert list(rows["kind"]) == ["constant", "linear", "quadratic", "table"]
    assert rows["holds"].all()
    assert list(rows["outcome"]) == [UNBIASED] * 3 + [NOT_APPLICABLE]
    assert rows["bias"].iloc[:3].max() < 1e-12


@pytest.mark.thorough  # test_smoke.py prints tables of verify
def test_the_table_fits_the_terminal():
    text = ladder_text([*map(found, DEGREES), verify_order(Overstated(), on=ON_ONE)])
    assert max(map(len, text.splitlines())) <= 100
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["ZGR"][1:6] == ["0", "0", "0", "0", "0"]
    assert lines["ZGR"][6].endswith("%")
    assert lines["ZGR"][-3:] == ["-", "2", "yes"]
    assert lines["ARSM"][1:4] == ["0", "<.05", "<.05"]
    assert lines["OVERSTATED"][-4:] == ["1,", "not", "2", "NO"]


# ---- relations --------------------------------------------------------------------------------


def test_relations_hold():
    rows = identities.relation_rows(seed=2, alpha=1e-8, delta=0.1)
    assert rows["holds"].all()
    assert len(rows) == 2 * 2 + 2 * len(identities.TEMPERATURES) + 2
    exact = rows[(rows["method"] == "exact") & (rows["limit"] < 1e-9)]
    assert len(exact) == 4
    assert exact["size"].max() < 1e-13
    assert max(map(len, relation_text(rows).splitlines())) <= 100


@pytest.mark.thorough  # an_overstated_degree_fails
def test_a_relation_that_is_none_fails(monkeypatch):
    monkeypatch.setattr(identities, "DARN", gradlab.ZGR)
    monkeypatch.setattr(identities, "GumbelSoftmaxST", lambda tau: gradlab.GumbelSoftmaxST(tau + 1))
    rows = identities.relation_rows(seed=2, alpha=1e-8, delta=0.1)
    wrong = rows.loc[~rows["holds"], "relation"]
    assert set(wrong) == {
        "bias(DARN) = -bias(ST)",
        "ZGR = (ST + DARN)/2 in mean",
        *(f"GS-ST(tau={tau + 1:g}) = GR(tau={tau:g}, k=inf) in mean" for tau in (0.1, 0.5, 1.0)),
    }


def test_public_names_are_those_of_the_ladder():
    assert gradlab.verify_order is order.verify_order
    assert gradlab.Ladder is Ladder
