"""Values and gradients of objectives over sequences: loops, differences and identities."""

import math

import numpy as np
import pytest
import torch

from gradlab.sequences import (
    NGram,
    Tabular,
    Task,
    TinyGRU,
    TinyTransformer,
    exact_gradient,
    exact_value,
    tasks,
)
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.targets import target_of
from gradlab.sequences.tree import Tree
from plain import Plain, by_differences, sequences

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, seed=seed) for seed in (0, 1, 2))
PAIRS = {
    "parity": (POLICY, tasks.parity()),
    "length-skewed": (POLICY, tasks.lengthy()),
    "dense": (POLICY, tasks.dense()),
    "copy": (POLICY, tasks.copy()),
    "rare": (Tabular(4, 3), tasks.rare(4, 3)),
    "brackets": (Tabular(3, 4), tasks.brackets(4)),
}


def close(a, b, tolerance=1e-12):
    return float((a - b).abs().max()) < tolerance * (1 + float(b.abs().max()))


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_of_the_reward_is_that_of_loops_over_sequences(name):
    policy, task = PAIRS[name]
    plain = Plain(policy, task)
    assert close(exact_gradient(policy, task), plain.gradient())
    assert float(exact_value(policy, task)) == pytest.approx(plain.p @ plain.rewards, abs=1e-13)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_best_of_k_is_that_of_loops_over_rewards(k):
    plain = Plain(POLICY, tasks.lengthy())
    order = np.argsort(plain.rewards)
    below = np.cumsum(plain.p[order])
    value = plain.rewards[order] @ np.diff(below**k, prepend=0.0)
    found = exact_value(POLICY, tasks.lengthy(), f"max@{k}")
    assert float(found) == pytest.approx(value, abs=1e-13)


def test_pass_at_k_is_a_function_of_the_success_probability():
    task = tasks.parity()
    p, slope = float(exact_value(POLICY, task)), exact_gradient(POLICY, task)
    for k in (1, 3):
        value = float(exact_value(POLICY, task, f"pass@{k}"))
        assert value == pytest.approx(1 - (1 - p) ** k, abs=1e-13)
        assert close(exact_gradient(POLICY, task, f"pass@{k}"), k * (1 - p) ** (k - 1) * slope)


@pytest.mark.parametrize("target", ["J", "J-KL(beta=0.3)", "max@3", "surrogate"])
@pytest.mark.parametrize("kind", ["tabular", "n-gram", "gru", "transformer"])
@pytest.mark.few(2)
def test_gradients_are_those_of_differences(kind, target):
    policy = {
        "tabular": lambda: Tabular(3, 3),
        "n-gram": lambda: NGram(3, 2),
        "gru": lambda: TinyGRU(3, 2),
        "transformer": lambda: TinyTransformer(3, 3, width=2, heads=1),
    }[kind]()
    given = {"rollout": ROLLOUT, "reference": REFERENCE}
    found = exact_gradient(policy, tasks.lengthy(), target, **given)
    wanted = by_differences(lambda: exact_value(policy, tasks.lengthy(), target, **given), policy)
    assert found.shape == (sum(p.numel() for p in policy.parameters()),)
    assert close(found, wanted, 1e-9)


def test_the_surrogate_of_the_policy_itself_has_the_gradient_of_the_reward():
    task = tasks.dense()
    found = exact_gradient(POLICY, task, "surrogate")
    assert close(found, exact_gradient(POLICY, task))
    away = exact_gradient(POLICY, task, "surrogate", rollout=ROLLOUT)
    assert not close(away, exact_gradient(POLICY, task), 1e-3)


def test_prompts_are_read_and_their_means_taken():
    policy, pair = Tabular(3, 3), tasks.easy_and_hard(3, 2)
    plain = [Plain(policy, task) for task in pair]
    wanted = (plain[0].gradient() + plain[1].gradient()) / 2
    assert close(exact_gradient(policy, pair), wanted)
    assert not close(plain[0].gradient(), plain[1].gradient(), 1e-3)


def test_gradients_do_not_depend_on_the_blocks(monkeypatch):
    policy, task = TinyTransformer(3, 5, width=4), tasks.lengthy(3, 5)
    whole = exact_gradient(policy, task)
    for size in (1, 300):
        monkeypatch.setattr("gradlab.sequences.enumerated._CALL", size)
        monkeypatch.setattr("gradlab.sequences.enumerated.BLOCK", size)
        assert close(exact_gradient(policy, task), whole)


def test_float32_policies_are_computed_in_float64():
    policy = Tabular(3, 3)
    single = Tabular(3, 3).float()
    with torch.no_grad():
        policy.table.copy_(single.table)
    assert close(exact_gradient(single, tasks.parity()), exact_gradient(policy, tasks.parity()))
    assert single.table.dtype == torch.float32


@pytest.mark.parametrize("end", [None, 0, 1, 2])
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_the_tree_has_every_sequence_once(end, horizon):
    tree = Tree(3, horizon, end)
    task = Task(lambda tokens, lengths: lengths.double(), 3, horizon, end)
    for most in (1, 7, 1000):
        found = []
        for leaves in tree.leaves(most):
            tokens, lengths = tree.sequences(leaves)
            found += [tuple(y[:n].tolist()) for y, n in zip(tokens, lengths, strict=True)]
        assert len(found) == tree.size
        assert set(found) == set(sequences(task))
        assert found == sorted(found, key=lambda y: (len(y), y))


def test_two_tokens_with_an_end_make_one_sequence_of_each_length():
    task = Task(lambda tokens, lengths: lengths.double(), 2, 6, end=1)
    on = EnumeratedPolicy(TinyGRU(2, 3), task)
    assert on.tree.size == 7
    assert float(on.probabilities.sum()) == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("text", ["J", "J-KL(beta=0.1)", "pass@4", "max@3", "surrogate"])
def test_targets_read_back(text):
    assert str(target_of(text)) == text
    assert target_of(target_of(text)) == target_of(text)


@pytest.mark.parametrize("text", ["", "K", "pass", "max@", "J-KL", "J-KL(beta=x)", "pass@0"])
def test_other_targets_are_refused(text):
    with pytest.raises(ValueError, match="must be"):
        target_of(text)


def test_shipped_tasks_are_what_they_say():
    uniform = Tabular(10, 3, scale=0.0)
    assert float(exact_value(uniform, tasks.rare())) == pytest.approx(1e-3)
    balanced = {(0, 1, 2), (0, 1, 0, 1, 2), (0, 0, 1, 1, 2)}
    task = tasks.brackets(5)
    rows = {
        y: task.reward(torch.tensor([[*y, *[2] * (5 - len(y))]]), torch.tensor([len(y)]))
        for y in sequences(task)
    }
    assert {y for y, r in rows.items() if r == 1} == balanced
    for name, make in tasks.TASKS.items():
        made = make()
        assert math.isfinite(float(exact_value(Tabular(10 if name == "rare" else 3, 6), made)))
