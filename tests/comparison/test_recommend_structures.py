"""`recommend` where x is drawn from a distribution: who is ranked, by which rows, and why not."""

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.distributions import KSubset
from gradlab.distributions.base import with_gradient
from gradlab.verification.structure_rungs import RandomFunction

LOGITS = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
F = RandomFunction("quadratic", torch.Size([7]))


def three_of(p: Tensor) -> KSubset:
    return KSubset(p, 3)


def zgr(logits: Tensor, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    return with_gradient(drawn, drawn.sample((), generator), 1.0)


def shared(logits: Tensor, distribution, generator) -> Tensor:
    drawn = distribution(logits)
    one = KSubset(logits[0], 3).sample((), generator).expand(logits.shape)
    return with_gradient(drawn, one, 1.0)


GIVEN = {"distribution": three_of, "evaluations": 12}


def test_only_what_can_be_used_is_ranked_and_the_rest_has_a_reason() -> None:
    answer = gradlab.recommend(F, LOGITS, **GIVEN)
    ranked = answer.table[answer.table["rank"].notna()]
    known = {"ST", "ZGR", "DARN", "ST-ZGR(alpha=0.5)", "LEARNED", "REINFORCE(baseline=0)"}
    assert known | {"RF(m=2)", "RF(m=4)", "RF(m=12)"} <= set(ranked["series"])
    refused = answer.table[answer.table["rank"].isna()].set_index("series")["reason"]
    assert {"GS", "ARM", "LE", "REBAR(rho=1)"} <= set(refused.index)
    assert refused["ARM"].startswith("not known where x is drawn from a distribution")
    assert set(answer.rows["method"]) == {"exact"}
    told = answer.explain()
    assert "quadratic: x of KSubset(logits: [7], k=3). The true gradient has the length" in told
    assert told.count("not known where x is") == 1
    rows = gradlab.compare(F, LOGITS, ["ST", "ZGR"], distribution=three_of).set_index("estimator")
    mine = answer.rows.set_index("estimator").loc[["ST", "ZGR"], ["bias2", "variance", "progress"]]
    assert mine.equals(rows[["bias2", "variance", "progress"]])


def test_must_be_unbiased_counts_the_degree_in_x() -> None:
    answer = gradlab.recommend(
        F, LOGITS, estimators=["ST", "ZGR", "RF(m=4)"], must_be_unbiased=True, **GIVEN
    )
    ranked = answer.table[answer.table["rank"].notna()]
    assert set(ranked["series"]) == {"ZGR", "RF(m=4)"}
    assert answer.table.set_index("series").loc["ST", "reason"] == (
        "not unbiased for an f of degree 2: it is exact up to degree 1"
    )


@pytest.mark.thorough  # test_from_rows.py has the cost of your own code
def test_code_of_the_users_is_measured_by_draws_at_its_seen_cost() -> None:
    answer = gradlab.recommend(F, LOGITS, estimators=["ZGR", zgr], draws=4000, **GIVEN)
    rows = answer.rows.set_index("estimator")
    assert rows.loc["zgr", "method"] == "monte carlo"
    assert rows.loc["zgr", "cost"] == rows.loc["ZGR", "cost"] == 3
    apart = rows.loc["zgr", "variance"] - rows.loc["ZGR", "variance"]
    assert abs(apart) < 6 * rows.loc["zgr", "variance_se"]


@pytest.mark.thorough  # tests/user_code/test_replicates.py names the fault
def test_draws_that_depend_on_each_other_are_a_reason() -> None:
    answer = gradlab.recommend(F, LOGITS, estimators=["ZGR", shared], **GIVEN)
    reason = answer.table.set_index("series").loc["shared", "reason"]
    assert "not independent" in reason or "depend on how many" in reason or "n times" in reason


@pytest.mark.thorough  # test_faults_in_verbs.py: states_too_many_are_drawn
def test_where_the_states_are_too_many_all_is_measured_by_draws() -> None:
    answer = gradlab.recommend(
        RandomFunction("quadratic", torch.Size([40])),
        torch.zeros(40, dtype=torch.float64),
        distribution=lambda p: KSubset(p, 20),
        evaluations=12,
        estimators=["ST", "RF(m=4)"],
        draws=200,
    )
    assert answer.truth == "RF(m=4), 4,000 draws"
    assert set(answer.rows["method"]) == {"monte carlo"}
    assert any("Left to draws: 20 of 40 elements have" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"estimators": ["GS", "ARM"]}, "no estimator can be used with 12 evaluations"),
        ({"estimators": ["ST"], "evaluations": 1}, "counts as 3 evaluations of f, more than 1"),
        ({"estimators": ["ST"], "reference": "ST"}, "must be unbiased for every f"),
        ({"estimators": ["ST"], "reference": "ARM"}, "reference ARM cannot be used"),
        ({"estimators": ["ST"], "draws": 3}, "draws"),
    ],
)
def test_bad_questions_are_sentences(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradlab.recommend(F, LOGITS, **(GIVEN | more))


@pytest.mark.thorough  # test_cost_measured.py measures it
def test_the_cost_of_a_gradient_is_measured_here_too() -> None:
    answer = gradlab.recommend(
        F,
        LOGITS,
        estimators=["ST", "RF"],
        gradient_cost="measured",
        **(GIVEN | {"evaluations": 64}),
    )
    assert answer.gradient_cost >= 1
    assert answer.gradient_cost_se >= 0
