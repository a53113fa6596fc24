"""Choices as trainers write them, and what replaces those that bias the mean."""

import pytest
import torch

from gradlab.sequences import ESTIMATORS, Tabular, exact_gradient, exact_moments, parse, tasks
from gradlab.sequences.explaining import Case, explain
from gradlab.sequences.repairs import nearest_unbiased, replacements
from gradlab.sequences.shipped import POLICIES, drifted, policy_named, task_named
from gradlab.sequences.spellings import SPELLINGS, configured, nearest_name
from gradlab.sequences.tasks import TASKS

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, seed=seed) for seed in (0, 1, 2))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"advantage": "grpo", "aggregation": "grpo", "ratio": "token", "clip": (0.2, 0.2)},
            "GRPO",
        ),
        (
            {"advantage": "scale_rewards=none", "aggregation": "dr_grpo"},
            "centred(aggregation=CONST)",
        ),
        ({"ratio": "importance_sampling_level=sequence"}, "RLOO(loss=GSPO)"),
        ({"ratio": "gspo", "clip": (0.1, 0.2)}, "RLOO(loss=GSPO(low=0.1, high=0.2))"),
        ({"ratio": "geometric", "clip": (0.1, 0.2)}, "RLOO(loss=GSPO(low=0.1, high=0.2))"),
        ({"ratio": "sequence"}, "IS"),
        (
            {"ratio": "sequence", "clip": (0.5, 1.0)},
            "RLOO(loss=score(ratio=sequence, low=0.5, high=2))",
        ),
        ({"kl": "low_var_kl", "beta": 0.1}, "RLOO(kl=k3(beta=0.1))"),
        ({"kl": "use_kl_in_reward"}, "RLOO(kl=k1(place=reward))"),
        ({"kl": "k3", "beta": 0.0}, "RLOO"),
        ({"advantage": "none", "group": 1}, "REINFORCE"),
        ({"aggregation": "bnpo"}, "RLOO(aggregation=TOK-local)"),
    ],
)
def test_spellings_of_trainers(given, text):
    assert str(configured(**given)) == text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"clip": (0.2, 0.2)}, "clip has no meaning for score"),
        ({"ratio": "none", "clip": (0.2, 0.2)}, "clip needs a ratio"),
        ({"beta": 0.1}, "beta needs a KL term"),
        ({"ratio": "sequense"}, "unknown ratio 'sequense'; did you mean 'sequence'"),
        ({"ratio": "PPO(x=1)"}, "ratio: PPO has no argument 'x'"),
        ({"advantage": "gae"}, "unknown advantage 'gae'"),
    ],
)
def test_what_does_not_go_together(given, said):
    with pytest.raises(ValueError, match="^" + said.replace("(", r"\(")):
        configured(**given)


@pytest.mark.parametrize(
    ("what", "text"), [(what, text) for what, table in SPELLINGS.items() for text in table]
)
def test_every_spelling_is_read(what, text):
    found = configured("RLOO", **{what: text})
    part = "loss" if what == "ratio" else what
    assert str(getattr(found, part)).startswith(
        {"token": "score(ratio=token)"}.get(SPELLINGS[what][text], SPELLINGS[what][text])
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_published_estimator_keeps_its_name(name):
    assert nearest_name(parse(name).with_(g=5)).name == name


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("name", [*ESTIMATORS, "GRPO(kl=k3)", "PPO(kl=k1, g=2)", "RLOO(kl=k2)"])
@pytest.mark.few(12)
def test_the_nearest_unbiased_one_claims_to_be(name, off_policy):
    found = nearest_unbiased(parse(name), off_policy)
    claim = found.claim(horizon=3)
    assert (claim.off_policy if off_policy else claim.on_policy) is not None
    if not off_policy and parse(name).claim(horizon=3).on_policy is not None:
        assert found == parse(name)


@pytest.mark.parametrize("rollout", [None, ROLLOUT], ids=["on", "off"])
@pytest.mark.parametrize("name", ["GRPO(kl=k3, g=3)", "DAPO(kl=k1, g=3)", "GSPO-TOK(kl=k2, g=2)"])
def test_the_nearest_unbiased_one_is_unbiased(name, rollout):
    found = nearest_unbiased(parse(name), rollout is not None)
    given = {"rollout": rollout, "reference": REFERENCE}
    truth = exact_gradient(POLICY, tasks.lengthy(), "J-KL(beta=0.04)", reference=REFERENCE)
    mean = exact_moments(found, POLICY, tasks.lengthy(), **given).mean
    assert (mean - truth).norm() < 1e-10 * truth.norm()
    biased = exact_moments(parse(name).with_(resample=False), POLICY, tasks.lengthy(), **given).mean
    assert (biased - truth).norm() > 1e-3 * truth.norm()


def test_replacements_are_of_what_is_to_blame():
    assert replacements(parse("RLOO"), off_policy=False) == []
    assert replacements(parse("PPO"), off_policy=False) == [{"aggregation": "SUM"}]
    parts = [next(iter(one)) for one in replacements(parse("DAPO(kl=k3)"), off_policy=True)]
    assert parts == ["advantage", "aggregation", "loss", "kl", "resample"]


def test_the_scale_is_that_of_the_mean():
    rows = explain("centred(g=4)", [Case(POLICY, [tasks.lengthy()], ROLLOUT)]).rows
    assert rows["scale"].iloc[0] == pytest.approx(0.75, abs=1e-12)
    repaired = rows[rows["rollout"].notna()].iloc[-1]
    assert repaired["cosine"] == pytest.approx(1, abs=1e-12)


def test_a_case_that_cannot_be_measured_has_its_reason():
    cases = [Case(POLICY, [task]) for task in (tasks.lengthy(), tasks.parity())]
    found = explain("PKPO(k=2)", cases)
    assert found.target == "pass@2"
    assert "pass@k needs rewards 0 and 1" in found.rows["reason"].iloc[0]
    assert found.rows["bias2"].iloc[1] < 1e-20
    assert "length-skewed: pass@k needs" in str(found)
    with pytest.raises(ValueError, match="rewards 0 and 1"):
        explain("PKPO(k=2)", cases[:1])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_shipped_policy_reads_every_task(name, policy):
    found = task_named(name, horizon=3)
    made = policy_named(policy, found, seed=3)
    longest = max(len(task.prompt) + task.horizon for task in found)
    tokens = torch.zeros(2, longest, dtype=torch.int64)
    assert made(tokens).shape == (2, longest, found[0].vocabulary)


def test_a_drift_moves_all_parameters_and_leaves_the_policy():
    policy = policy_named("gru:3", task_named("parity"))
    before = [p.detach().clone() for p in policy.parameters()]
    moved = drifted(policy, 0.1, seed=1)
    assert all((a != b).all() for a, b in zip(before, moved.parameters(), strict=True))
    assert all((a == b).all() for a, b in zip(before, policy.parameters(), strict=True))
    same = drifted(policy, 0.0, seed=1)
    assert all((a == b).all() for a, b in zip(before, same.parameters(), strict=True))
