"""Rows of policy gradients, and verdicts on what they claim."""

import json
import math

import pytest
import torch

from gradlab.comparison import row_schema
from gradlab.exact.tuples import NotExactError
from gradlab.sequences import (
    ESTIMATORS,
    NGram,
    Tabular,
    compare,
    exact_gradient,
    exact_moments,
    parse,
    tasks,
    verify,
)
from gradlab.sequences.verifying import claimed_target

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, scale=0.5, seed=seed) for seed in (0, 1, 2))
TASK = tasks.lengthy()


def test_a_row_holds_what_the_moments_say():
    rows = compare(["RLOO", "GRPO(g=8)"], POLICY, TASK)
    truth = exact_gradient(POLICY, TASK)
    for row in rows.to_dict("records"):
        moments = exact_moments(row["estimator"], POLICY, TASK)
        assert row["bias2"] == pytest.approx(float(moments.bias2(truth)), abs=1e-14)
        assert row["variance"] == pytest.approx(float(moments.variance))
        assert row["cosine"] == pytest.approx(float(moments.cosine(truth)))
        assert row["progress"] == pytest.approx(float(moments.progress(truth, 10)))
        assert row["truth2"] == pytest.approx(float(truth.square().sum()))
    assert rows["group"].tolist() == [4, 8]
    assert rows["cost"].tolist() == [4, 8]
    assert set(rows["target"]) == {"J"}


def test_rows_keep_the_schema():
    texts = ["RLOO", "OTB(g=12)", "RLOO(kl=k3)", "RLOO(g=1)"]
    rows = compare(texts, POLICY, TASK, rollout=ROLLOUT, draws=64)
    schema = row_schema("policy")
    assert list(rows.columns) == list(schema["properties"]) == schema["required"]
    assert rows["method"].fillna("").tolist() == ["exact", "monte carlo", "exact", ""]
    assert rows["draws"].fillna(0).tolist() == [0, 64, 0, 0]
    assert "do not factorize" in rows["note"][1]
    assert "give reference=" in rows["reason"][2]
    assert "at least 2 sequences" in rows["reason"][3]
    assert rows["rollout"].tolist() == ["Tabular"] * 4
    json.dumps(rows.to_dict("records"))


def test_the_target_of_rows_can_be_chosen():
    rows = compare(["PKPO(k=2)"], POLICY, tasks.parity(), "pass@2")
    assert rows["bias2"][0] < 1e-25
    rows = compare(["PKPO(k=2)"], POLICY, tasks.parity())
    assert rows["bias2"][0] > 1e-3


def test_draws_can_be_asked_for():
    rows = compare(["RLOO"], POLICY, TASK, method="monte-carlo", draws=320)
    assert rows["method"][0] == "monte carlo"
    assert abs(rows["bias2"][0]) < 5 * rows["bias2_se"][0]
    again = compare(["GRPO", "RLOO"], POLICY, TASK, method="monte-carlo", draws=320)
    assert again["variance"][1] == rows["variance"][0]


def test_long_sequences_are_compared():
    rows = compare(["RLOO", "OTB"], NGram(3, 2), tasks.parity(horizon=40), draws=32)
    assert rows["method"].tolist() == ["exact", "monte carlo"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"estimators": "RLOO"}, TypeError, r"must be a list, such as \[RLOO\]"),
        ({"estimators": ["rlo"]}, ValueError, "did you mean 'RLOO'"),
        ({"method": "draws"}, ValueError, "method must be one of"),
        ({"target": "K"}, ValueError, "target must be J"),
        ({"task": [3]}, TypeError, "a task must be a Task, not int"),
        ({"task": []}, ValueError, "at least one task"),
        ({"seed": -1}, ValueError, "seed must be"),
    ],
)
def test_bad_arguments_are_sentences(given, error, message):
    with pytest.raises(error, match=message):
        compare(**({"estimators": ["RLOO"], "policy": POLICY, "task": TASK} | given))


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.few(16)
def test_claims_hold(name, off_policy):
    estimator = ESTIMATORS[name]
    rollout = ROLLOUT if off_policy else None
    verdict = verify(estimator, POLICY, tasks.parity(), rollout=rollout)
    claim = estimator.claim(horizon=3)
    factor = claim.off_policy if off_policy else claim.on_policy
    assert verdict.holds
    assert verdict.claimed is (factor is not None and claimed_target(estimator) is not None)
    if verdict.claimed:
        assert verdict.outcome == "UNBIASED"
        assert verdict.wanted == factor


@pytest.mark.parametrize(
    ("text", "task", "outcome"),
    [
        ("RLOO", TASK, "UNBIASED"),
        ("centred(g=2)", TASK, "UNBIASED"),
        ("RLOO(aggregation=SEQ)", TASK, "BIASED"),
        ("RLOO(aggregation=TOK)", TASK, "BIASED"),
        ("GRPO(g=2)", tasks.parity(), "BIASED"),
        ("GRPO(g=2, aggregation=SUM)", TASK, "BIASED"),
        ("OPO", TASK, "BIASED"),
        ("RLOO(kl=k1(beta=0.1,place=reward,per=sequence))", TASK, "UNBIASED"),
        ("RLOO(kl=k3(beta=0.1))", TASK, "BIASED"),
        ("RLOO(kl=full(beta=0.1))", TASK, "UNBIASED"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "monte-carlo"])
@pytest.mark.few(8)
def test_verdicts_are_the_same_by_enumeration_and_by_draws(text, task, outcome, method):
    if method == "monte-carlo" and outcome == "BIASED" and "k3" in text:
        pytest.skip("the bias is about the size of delta")
    text = text if "g=" in text else parse(text).with_(g=2)
    found = verify(text, POLICY, task, reference=REFERENCE, method=method, max_draws=2**15)
    # A bias can be shown by few draws; that it is small takes more than a quick test has.
    accepted = {outcome} if method == "exact" or outcome == "BIASED" else {outcome, "INCONCLUSIVE"}
    assert found.outcome in accepted
    assert found.target.shape == found.bias.shape == (39,)


def test_a_claim_that_does_not_hold_is_seen():
    found = verify("centred(g=2)", POLICY, TASK, factor=1.0)
    assert found.outcome == "BIASED"
    assert found.claimed is False
    assert found.slope == pytest.approx(0.5)
    assert "This factor alone explains the bias" in found.explain()
    found = verify("RLOO(g=2)", POLICY, TASK, "max@2")
    assert found.outcome == "BIASED"
    assert "Target: the gradient of max@2, on policy." in found.explain()


def test_a_verdict_names_what_is_to_blame():
    text = verify("RLOO(aggregation=SEQ)", POLICY, TASK).explain()
    assert "Direction: the cosine between the mean and the gradient is" in text
    assert "Why: SEQ divides each advantage by the length of its own sequence." in text
    assert "off policy:" not in text
    text = verify("PPO", POLICY, TASK, rollout=ROLLOUT).explain()
    assert "off policy" in text


def test_a_verdict_is_a_row_and_a_cosine():
    found = verify("GRPO", POLICY, TASK)
    row = found.row()
    moments, truth = exact_moments("GRPO", POLICY, TASK), exact_gradient(POLICY, TASK)
    assert row["cosine"] == pytest.approx(float(moments.cosine(truth)))
    assert row["bias"] == pytest.approx(math.sqrt(moments.bias2(truth) / truth.square().sum()))
    assert row["target"] == "J"
    assert row["outcome"] == "BIASED"


def test_what_cannot_be_verified_is_said():
    found = verify("RLOO(kl=k3)", POLICY, TASK, "J")
    assert found.outcome == "NOT APPLICABLE"
    assert "give reference=" in str(found)
    with pytest.raises(NotExactError, match="do not factorize"):
        verify("OTB(g=12)", POLICY, TASK, method="exact")
    with pytest.raises(ValueError, match="delta must be a number between 0 and 1"):
        verify("RLOO", POLICY, TASK, delta=2.0)


def test_draws_of_a_verdict_repeat():
    first, again = (
        verify("GRPO(g=2)", POLICY, TASK, method="monte-carlo", max_draws=512) for _ in range(2)
    )
    assert torch.equal(first.bias, again.bias)
    assert first.draws == again.draws
