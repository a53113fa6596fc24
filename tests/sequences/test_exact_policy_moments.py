"""Exact moments over groups: loops over all groups, and the two ways of the engine."""

import pytest
import torch

from gradlab.sequences import (
    ESTIMATORS,
    Tabular,
    TinyGRU,
    TinyTransformer,
    exact_moments,
    parse,
    tasks,
)
from gradlab.sequences.class_sums import couples_prompts
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.moments import all_moments
from gradlab.sequences.multisets import count_multisets, multisets
from gradlab.sequences.tables import Asked, tables
from gradlab.sequences.task import Task
from gradlab.sequences.whole_groups import whole_group_moments
from plain import Plain

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, seed=seed) for seed in (0, 1, 2))
TASKS = {"binary": tasks.parity(), "real": tasks.lengthy(), "dense": tasks.dense()}
KLS = [
    "k1(place=reward,per=sequence)",
    "k1(place=reward)",
    "k2(per=sequence)",
    "k3",
    "k3-ratio",
    "k1-prefix",
    "full",
]
OTHERS = [
    *(f"RLOO(kl={kl}, g=2)" for kl in KLS),
    "PG(advantage=group-std, aggregation=TOK, loss=PPO(high=0.28), kl=k3(beta=0.3), g=2)",
    "PG(advantage=raw, aggregation=SEQ, kl=k2, g=2)",
    "PG(advantage=raw(baseline=0.3), aggregation=CONST, g=2)",
    "PG(advantage=loo, aggregation=TOK-local(micro=1), g=2)",
    "GRPO(resample=true, g=3)",
]


def agree(found, mean, variance, tolerance=1e-12):
    assert float((found.mean - mean).abs().max()) < tolerance
    assert float(found.variance) == pytest.approx(variance, abs=tolerance, rel=tolerance)


def at_two(name):
    return ESTIMATORS[name].with_(g=max(2, ESTIMATORS[name].advantage.least))


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("reward", TASKS)
@pytest.mark.parametrize("text", [*ESTIMATORS, *OTHERS])
@pytest.mark.few(25)
def test_moments_are_those_of_loops_over_all_groups(text, reward, off_policy):
    estimator = at_two(text) if text in ESTIMATORS else parse(text)
    if estimator.g == 3 and (off_policy or reward != "real"):
        estimator = estimator.with_(g=2)
    task, rollout = TASKS[reward], ROLLOUT if off_policy else None
    if estimator.advantage.target == "pass@k" and reward != "binary":
        task = tasks.copy()
    found = exact_moments(estimator, POLICY, task, rollout=rollout, reference=REFERENCE)
    agree(found, *Plain(POLICY, task, rollout, REFERENCE).moments(estimator))


@pytest.mark.parametrize("text", ["RLOO(g=3)", "GRPO(g=3)", "OPO(g=3)", "DAPO(g=3)", "PKPO(g=3)"])
def test_groups_of_three_agree_with_loops(text):
    found = exact_moments(text, POLICY, tasks.parity())
    agree(found, *Plain(POLICY, tasks.parity()).moments(parse(text)))


@pytest.mark.parametrize("text", ["RLOO(g=5)", "GRPO(g=5)", "DAPO(g=5)", "OPO(g=5)", "PPO(g=5)"])
def test_classes_agree_with_whole_sequences(text):
    on = EnumeratedPolicy(POLICY, tasks.copy(), ROLLOUT)
    (found,) = all_moments([parse(text)], [on])
    whole = whole_group_moments(parse(text), [on])
    agree(found, whole.mean, float(whole.variance))


@pytest.mark.parametrize("text", ["LitePPO(g=2)", "REINFORCE++(g=2)", "GPG(g=2)", "RLOO(g=2)"])
def test_prompts_that_share_statistics_are_summed_together(text):
    policy, pair = Tabular(2, 3), tasks.easy_and_hard(2, 2)
    ons = [EnumeratedPolicy(policy, task) for task in pair]
    (found,) = all_moments([parse(text)], ons)
    whole = whole_group_moments(parse(text), ons)
    agree(found, whole.mean, float(whole.variance))
    apart = [exact_moments(text, policy, task) for task in pair]
    mean = (apart[0].mean + apart[1].mean) / 2
    variance = (apart[0].variance + apart[1].variance) / 4
    same = float((found.mean - mean).abs().max()) < 1e-12
    assert same is not couples_prompts(parse(text))
    if same:
        assert float(found.variance) == pytest.approx(variance, abs=1e-13)


@pytest.mark.thorough  # test_comparing_policies.py compares many together
def test_estimators_together_are_what_they_are_alone():
    on = EnumeratedPolicy(POLICY, tasks.parity(), ROLLOUT, REFERENCE)
    every = [*ESTIMATORS.values(), *map(parse, OTHERS)]
    for estimator, found in zip(every, all_moments(every, [on]), strict=True):
        (alone,) = all_moments([estimator], [on])
        agree(found, alone.mean, float(alone.variance), 1e-13)


@pytest.mark.parametrize(
    ("policy", "task"),
    [
        (TinyTransformer(3, 4, width=4), tasks.brackets(4)),
        (TinyGRU(2, 3), Task(lambda tokens, lengths: tokens.double().sum(-1), 2, 5)),
        (TinyGRU(4, 3), tasks.rare(4, 3)),
        (TinyGRU(2, 3), Task(lambda tokens, lengths: lengths.double(), 2, 5, end=1)),
    ],
    ids=["end", "no end", "wide", "narrow"],
)
@pytest.mark.parametrize("numbers", [2**22, 1])
@pytest.mark.few(4)
def test_sums_over_classes_are_those_of_single_backwards(policy, task, numbers, monkeypatch):
    monkeypatch.setattr("gradlab.sequences.tables._SCORES", numbers)
    on = EnumeratedPolicy(policy, task)
    noise = torch.randn(2, on.tree.size, task.horizon, generator=torch.Generator().manual_seed(0))
    noise = noise.double()
    weigh = [lambda known, w=w: w[known.leaves.part] for w in noise]
    place = torch.arange(on.tree.size) % 3
    (found,) = tables(on, [Asked(weigh, [(0, 0), (0, 1)], place, 3)])
    h = torch.zeros(2, on.tree.size, on.held.size, dtype=torch.float64)
    for leaves in on.blocks():
        tokens, lengths = on.tree.sequences(leaves)
        for i, row in enumerate(range(leaves.first, leaves.first + leaves.count)):
            for k in range(2):
                weights = torch.zeros(1, task.horizon, task.vocabulary, dtype=torch.float64)
                for t in range(int(lengths[i])):
                    weights[0, t, tokens[i, t]] = noise[k, row, t]
                h[k, row] = on.held.backward(tokens[i : i + 1], weights)
    for c in range(3):
        p = on.sampled * (place == c)
        assert float((found.means[:, c] - p @ h).abs().max()) < 1e-12
        assert float(found.products[0, c]) == pytest.approx(float(p @ h[0].square().sum(-1)))
        assert float(found.products[1, c]) == pytest.approx(float(p @ (h[0] * h[1]).sum(-1)))


def test_multisets_are_all_and_sorted():
    rows = multisets(4, 3)
    assert len(rows) == count_multisets(4, 3) == 20
    assert len({tuple(row) for row in rows.tolist()}) == 20
    assert bool((rows.diff(dim=1) >= 0).all())


@pytest.mark.parametrize("g", [16, 64])
def test_large_groups_are_exact(g):
    found = exact_moments(f"RLOO(g={g})", POLICY, tasks.parity())
    plain = Plain(POLICY, tasks.parity())
    assert float((found.mean - plain.gradient()).abs().max()) < 1e-12
    # A U-statistic of pairs (Hoeffding 1948): its variance has a closed form.
    one, pair = _components(plain)
    wanted = 4 * (g - 2) / (g * (g - 1)) * one + 2 / (g * (g - 1)) * pair
    assert float(found.variance) == pytest.approx(wanted, rel=1e-10)


def _components(plain):
    """Return the variances of E[kernel | first] and of the kernel (R - R') (s - s') / 2."""
    p, r = torch.tensor(plain.p), torch.tensor(plain.rewards)
    s = torch.tensor(plain.scores).sum(1).flatten(1)
    kernel = (r[:, None] - r)[..., None] * (s[:, None] - s) / 2
    mean = torch.einsum("i,j,ijp->p", p, p, kernel)
    first = torch.einsum("j,ijp->ip", p, kernel)
    one = p @ first.square().sum(-1) - mean.square().sum()
    pair = torch.einsum("i,j,ijp->", p, p, kernel.square()) - mean.square().sum()
    return float(one), float(pair)
