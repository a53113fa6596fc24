"""Coefficients of random groups: factors, padding, prompts, text forms, what is refused."""

import re
from dataclasses import replace

import pytest
import torch

from gradlab.citations import bibtex
from gradlab.sequences import ESTIMATORS, PolicyGradient, parse
from gradlab.sequences.aggregation import AGGREGATIONS
from gradlab.sequences.kl_terms import KLS
from gradlab.sequences.sequence_losses import LOSSES
from gradlab.sequences.success_advantages import ADVANTAGES
from random_groups import random_group

NAMES = list(ESTIMATORS)


def padded_with(group, value):
    """Return the group with another content of its padding."""
    changed = {}
    for name in ("log_prob", "rollout_log_prob", "reference_log_prob"):
        changed[name] = torch.where(group.mask, getattr(group, name), value)
    for name in ("logits", "reference_logits"):
        changed[name] = torch.where(group.mask.unsqueeze(-1), getattr(group, name), value)
    return replace(group, **changed)


CASES = [
    *NAMES,
    *(f"GRPO(kl={kl})" for kl in KLS),
    *(f"RLOO(loss={loss}, kl=k1(place=reward))" for loss in ("score", "CISPO-TRL", "DRO")),
    "RLOO(kl=k1(place=reward, per=sequence), loss=PPO)",
    "RLOO(kl=k3(place=reward, per=sequence))",
    "RLOO(kl=k2(per=sequence))",
    *(f"centred(aggregation={aggregation})" for aggregation in AGGREGATIONS),
    *(f"centred(loss={loss})" for loss in LOSSES),
    *(
        f"RLOO(loss=score(ratio={r}, high=1.1, beyond={b}))"
        for r in ("prefix", "geometric")
        for b in ("truncate", "mask", "accept")
    ),
]


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.few(12)
def test_coefficients_are_products_of_their_factors(text, prompts):
    estimator = parse(text)
    group = random_group(3, 2, prompts=prompts)
    if not estimator.factorizes:
        return
    own = (group.log_prob, group.rollout_log_prob, group.lengths, group.reference_log_prob)
    rewards = estimator.seen_rewards(group)
    options = {"horizon": group.horizon, "prompts": prompts}
    a = estimator.advantages(rewards, group.lengths, greedy_rewards=group.greedy_rewards, **options)
    up, down = (estimator.token_weights(*own, sign=sign) for sign in (1, -1))
    tables = {"logits": group.logits, "reference_logits": group.reference_logits}
    rest = estimator.own_weights(*own, **tables)
    scales = estimator.scales(group.lengths, **options)
    wanted = (
        a.unsqueeze(-1) * torch.where(a.unsqueeze(-1) >= 0, up, down) + scales.unsqueeze(-1) * rest
    )
    torch.testing.assert_close(estimator.coefficients(group), wanted, rtol=0, atol=1e-13)


def test_what_does_not_factorize_is_known():
    kinds = {text for text in CASES if not parse(text).factorizes}
    coupled = ("Clip-Cov", "KL-Cov")
    assert kinds == {"OTB", *coupled, *(f"centred(loss={name})" for name in coupled)}
    assert not parse("RLOO(loss=PPO, kl=k1(place=reward))").factorizes
    assert not parse("RLOO(aggregation=TOK-local(micro=2))").factorizes


@pytest.mark.parametrize("text", CASES)
@pytest.mark.few(12)
def test_the_content_of_padding_never_matters(text):
    estimator, group = parse(text), random_group(2)
    wanted = estimator.coefficients(group)
    assert wanted.isfinite().all()
    assert (wanted[~group.mask] == 0).all()
    for value in (0.0, 50.0, -torch.inf, torch.nan):
        assert torch.equal(estimator.coefficients(padded_with(group, value)), wanted)


@pytest.mark.parametrize("text", CASES)
@pytest.mark.few(12)
def test_the_length_of_padding_matters_to_the_constant_alone(text):
    estimator, group = parse(text), random_group()

    def longer(value):
        return value if value is None else torch.cat([value, value[:, :2]], 1)

    names = ("log_prob", "rollout_log_prob", "reference_log_prob", "logits", "reference_logits")
    more = replace(group, **{name: longer(getattr(group, name)) for name in names})
    factor = 6 / 8 if "CONST" in str(estimator.aggregation) else 1
    found = estimator.coefficients(more)
    torch.testing.assert_close(
        found[:, :6], factor * estimator.coefficients(group), rtol=1e-12, atol=1e-15
    )
    assert (found[:, 6:] == 0).all()


@pytest.mark.parametrize("text", CASES)
@pytest.mark.few(12)
def test_impossible_tokens_give_no_nan_and_weigh_nothing(text):
    group = random_group()
    for name in ("log_prob", "reference_log_prob"):
        table = getattr(group, name).clone()
        table[0, 2] = -torch.inf
        found = parse(text).coefficients(replace(group, **{name: table}))
        assert found.isfinite().all()
        if name == "log_prob":
            assert found[0, 2] == 0


# Their advantage is not centred.
UNCENTRED = {"raw", "greedy", "pass@k", "max-likelihood"}


@pytest.mark.parametrize("text", ADVANTAGES)
@pytest.mark.parametrize("reward", [0.1, 1.0, 0.0])
@pytest.mark.parametrize("g", [1, 3])
@pytest.mark.few(12)
def test_equal_rewards_give_zero_and_no_nan(text, reward, g):
    group = replace(random_group(g=g), rewards=torch.full((g,), reward, dtype=torch.float64))
    estimator = PolicyGradient(advantage="pass@k(k=1)" if text == "pass@k" else text)
    found = estimator.coefficients(group)
    assert found.isfinite().all()
    if text not in UNCENTRED:
        assert (found == 0).all()


@pytest.mark.parametrize("text", CASES)
@pytest.mark.few(12)
def test_the_order_of_samples_does_not_matter(text):
    estimator, group = parse(text), random_group()
    order = torch.tensor([2, 0, 3, 1])
    names = [
        n
        for n in (
            "rewards",
            "lengths",
            "log_prob",
            "rollout_log_prob",
            "reference_log_prob",
            "logits",
            "reference_logits",
        )
    ]
    mixed = replace(group, **{name: getattr(group, name)[order] for name in names})
    wanted = estimator.coefficients(group)[order]
    torch.testing.assert_close(estimator.coefficients(mixed), wanted, rtol=1e-12, atol=1e-15)


def test_prompts_of_one_batch_share_statistics_and_others_do_not():
    alone, together = random_group(2, seed=1), random_group(2, seed=1, prompts=True)
    for name in ("LitePPO", "GPG", "REINFORCE++", "DAPO"):
        estimator = parse(name)
        apart = torch.stack([estimator.coefficients(_at(alone, i)) for i in range(2)])
        torch.testing.assert_close(estimator.coefficients(alone), apart, rtol=1e-12, atol=1e-15)
        if name != "GPG":  # its scale counts zeros, of which there are none here
            assert not torch.allclose(estimator.coefficients(together), apart / 2)
    for name in ("RLOO", "GRPO", "centred", "OTB"):
        estimator = parse(name)
        torch.testing.assert_close(
            estimator.coefficients(together), estimator.coefficients(alone) / 2
        )


def _at(group, i):
    names = (
        "rewards",
        "lengths",
        "log_prob",
        "rollout_log_prob",
        "reference_log_prob",
        "logits",
        "reference_logits",
        "greedy_rewards",
    )
    return replace(group, **{name: getattr(group, name)[i] for name in names})


ON_POLICY_LOSSES = [
    loss for loss in LOSSES if loss not in ("GSPO", "GMPO", "LUSPO", "PPO-sequence", "Clip-Cov")
]


@pytest.mark.parametrize("loss", ON_POLICY_LOSSES)
@pytest.mark.parametrize("aggregation", ["SUM", "SEQ", "TOK"])
def test_on_policy_every_loss_is_the_advantage_times_the_score(loss, aggregation):
    group = random_group(on_policy=True)
    found, plain = (
        parse(f"centred(loss={text}, aggregation={aggregation})").coefficients(group)
        for text in (loss, "score")
    )
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-15)


@pytest.mark.parametrize("loss", ["GSPO", "GMPO"])
def test_on_policy_losses_of_sequences_divide_by_the_length(loss):
    group = random_group(on_policy=True)
    found = parse(f"centred(loss={loss}, aggregation=SEQ)").coefficients(group)
    a = group.rewards - group.rewards.mean()
    wanted = (a / group.lengths / 4).unsqueeze(-1) * group.mask
    torch.testing.assert_close(found, wanted)
    undone = parse("centred(loss=LUSPO, aggregation=SEQ)").coefficients(group)
    torch.testing.assert_close(undone, (a / 4).unsqueeze(-1) * group.mask)


def test_dense_rewards_are_counted_from_their_token_on():
    group = random_group()
    dense = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    dense = torch.where(group.mask, dense, 0.0)
    group = replace(group, token_rewards=dense, rewards=dense.sum(-1))
    found = parse("REINFORCE").coefficients(group)
    for i in range(4):
        for t in range(int(group.lengths[i])):
            assert float(found[i, t]) == pytest.approx(float(dense[i, t:].sum()) / 4)
    white = parse("REINFORCE++(loss=score)").coefficients(group) * group.lengths.sum()
    inside = white[group.mask]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-12)
    assert float(inside.var()) == pytest.approx(1)


def test_the_baseline_of_each_token_weighs_by_squared_scores():
    group = random_group(g=3)
    found = parse("OTB(g=3)").coefficients(group) * 3
    weights = torch.zeros(3, 6, dtype=torch.float64)
    for i in range(3):
        total = 0.0
        for t in range(int(group.lengths[i])):
            p = group.logits[i, t].softmax(-1)
            score = -p
            score[0] += 1  # token 0 was sampled
            total += float(score.square().sum())
            weights[i, t] = total
    for t in range(6):
        here = group.mask[:, t]
        baseline = (weights[:, t] * group.rewards)[here].sum() / weights[here, t].sum()
        wanted = torch.where(here, group.rewards - baseline, 0.0)
        torch.testing.assert_close(found[:, t], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_texts_read_back(name):
    estimator = ESTIMATORS[name]
    assert str(estimator) == name
    assert parse(name) == estimator
    other = estimator.with_(
        g=7, kl="k3(beta=0.01)", loss="PPO(high=0.3, dual=3)", aggregation="CONST(length=9)"
    )
    assert parse(str(other)) == other
    assert str(parse(str(other))) == str(other)
    assert estimator.source


@pytest.mark.parametrize("name", NAMES)
def test_the_source_has_its_entry(name):
    author, year, *number = re.findall(
        r"^[\w ]+?(?= et al| &|,| \d)|\d{4}\.\d+|\d{4}", ESTIMATORS[name].source
    )
    entry = bibtex([ESTIMATORS[name]])
    assert author in entry
    assert f"year = {{{year}}}" in entry
    assert not number or f"eprint = {{{number[0]}}}" in entry


@pytest.mark.parametrize("table", [ADVANTAGES, AGGREGATIONS, LOSSES, KLS])
def test_choices_read_back_under_all_their_names(table):
    from gradlab.sequences.choices import read_choice

    for cls in table.values():
        for name in (cls.name, *cls.aliases, cls.name.upper()):
            assert read_choice("choice", name, table) == cls()
        assert read_choice("choice", str(cls()), table) == cls()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RLO", "did you mean 'RLOO'"),
        ("GRPO(los=PPO)", "did you mean 'loss'"),
        ("GRPO(loss=PPPO)", "did you mean 'PPO'"),
        ("GRPO(loss=PPO(hihg=1))", "did you mean 'high'"),
        ("GRPO(loss=PPO(high=1)", "bracket is not closed"),
        ("GRPO(8)", "write argument=value"),
        ("GRPO(g=0)", "g must be an int of at least 1"),
        ("GRPO(g=2, g=3)", "given twice"),
        ("RLOO(loss=score(ratio=tokn))", "did you mean 'token'"),
        ("RLOO(kl=k1(place=rewards))", "did you mean 'reward'"),
    ],
)
def test_misspelt_texts_are_refused_with_a_hint(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_what_an_estimator_needs_is_a_sentence():
    group = random_group()
    assert parse("RLOO(g=1)").refusal() == "loo needs groups of at least 2 sequences, not 1"
    assert "reference_log_prob" in parse("GRPO(kl=k3)").refusal(
        replace(group, reference_log_prob=None)
    )
    assert "logits" in parse("RLOO(kl=full)").refusal(replace(group, logits=None))
    rollout = group.rollout_log_prob.clone()
    rollout[0, 0] = -torch.inf
    assert "undefined" in parse("IS").refusal(replace(group, rollout_log_prob=rollout))
    assert parse("IS").refusal(group) is None
    with pytest.raises(ValueError, match="at least 3 samples"):
        parse("PKPO(k=3)").coefficients(random_group(g=2))


def test_tables_of_another_shape_are_refused(unchecked):
    group = random_group()
    with pytest.raises(ValueError, match="rewards have, not"):
        replace(group, log_prob=group.log_prob[:3])
