"""What the engine says about the quarrels: directions and identities, at group sizes up to 64."""

import itertools
import math

import pytest

from gradlab.sequences import (
    Tabular,
    compare,
    exact_gradient,
    exact_moments,
    exact_value,
    parse,
    tasks,
)
from gradlab.sequences.class_sums import Classes
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.multisets import count_multisets

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, seed=seed) for seed in (0, 1, 2))
BINARY, REAL = tasks.parity(), tasks.lengthy()


def mean(text, task, **given):
    return exact_moments(text, POLICY, task, **given).mean


def cosine(text, task):
    return float(exact_moments(text, POLICY, task).cosine(exact_gradient(POLICY, task)))


@pytest.mark.parametrize("g", [2, 4, 16])
@pytest.mark.parametrize("task", [BINARY, REAL], ids=["binary", "real"])
def test_rloo_is_exact_and_centring_shrinks(task, g):
    truth = exact_gradient(POLICY, task)
    assert float((mean(f"RLOO(g={g})", task) - truth).abs().max()) < 1e-12
    assert float((mean(f"centred(g={g})", task) - (g - 1) / g * truth).abs().max()) < 1e-12


def test_a_mean_over_each_sequence_points_wrong_at_every_group_size():
    found = [cosine(f"centred(aggregation=SEQ, g={g})", REAL) for g in (2, 4, 8, 16)]
    assert max(found) - min(found) < 1e-10
    assert max(found) < 0.999


def test_a_mean_over_tokens_points_right_as_the_group_grows():
    found = [1 - cosine(f"centred(aggregation=TOK, g={g})", BINARY) for g in (2, 4, 8, 16)]
    assert all(later < 0.75 * sooner for sooner, later in itertools.pairwise(found))
    assert found[0] > 1e-4


def test_grpo_on_binary_rewards_scales_the_gradient_by_the_difficulty():
    p, slope = float(exact_value(POLICY, BINARY)), exact_gradient(POLICY, BINARY)
    for g in (2, 5, 16):
        chances = [math.comb(g, k) * p**k * (1 - p) ** (g - k) for k in range(g + 1)]
        spread = sum(c * math.sqrt(k / g * (1 - k / g)) for k, c in enumerate(chances))
        factor = math.sqrt((g - 1) / g) * spread / (p * (1 - p))
        found = mean(f"GRPO(aggregation=SUM, g={g})", BINARY)
        assert float((found - factor * slope).abs().max()) < 1e-12
    # At two samples the factor does not depend on p.
    found = mean("GRPO(aggregation=SUM, g=2)", BINARY)
    assert float((found - math.sqrt(2) / 2 * slope).abs().max()) < 1e-12


@pytest.mark.parametrize("g", [4, 16])
def test_objectives_of_several_samples_are_met(g):
    def close(a, b):
        return float((a - b).abs().max()) < 1e-12

    for k in (2, 4):
        truth = exact_gradient(POLICY, BINARY, f"pass@{k}")
        assert close(mean(f"PKPO(k={k}, g={g})", BINARY), truth)
    if g == 4:
        best = exact_gradient(POLICY, REAL, f"max@{g}")
        assert close(mean(f"max-second(g={g})", REAL), best / g)
    sums = sum(exact_gradient(POLICY, BINARY, f"pass@{k}") / k for k in range(1, g + 1))
    assert close(mean(f"MaxRL(g={g})", BINARY), sums)


def test_only_the_sequence_ratio_is_exact_off_policy():
    texts = {
        ratio: f"PG(advantage=raw, loss=score(ratio={ratio}), g=1)"
        for ratio in ("none", "token", "prefix", "sequence")
    }
    rows = compare(list(texts.values()), POLICY, REAL, rollout=ROLLOUT)
    bias = dict(zip(texts, rows["bias2"] / rows["truth2"], strict=True))
    assert bias["sequence"] < 1e-25
    assert min(bias[ratio] for ratio in ("none", "token", "prefix")) > 1e-4
    # Here, for this policy and this rollout policy: exactness costs variance.
    variance = dict(zip(texts, rows["variance"], strict=True))
    assert variance["sequence"] > variance["none"]


def test_the_clipped_ratio_has_the_gradient_of_the_surrogate_where_nothing_is_clipped():
    wide = "PG(advantage=raw, loss=PPO(low=0.999999999, high=1e9), g=1)"
    found = mean(wide, tasks.copy(), rollout=ROLLOUT)
    surrogate = exact_gradient(POLICY, tasks.copy(), "surrogate", rollout=ROLLOUT)
    truth = exact_gradient(POLICY, tasks.copy())
    # The reward stands for the advantage: what the surrogate weighs with Q, in expectation.
    assert float((found - surrogate).abs().max()) < 1e-10
    assert float((found - truth).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("kl", "exact"),
    [
        ("k1(beta=0.2,place=reward,per=sequence)", True),
        ("k2(beta=0.2,per=sequence)", True),
        ("full(beta=0.2)", True),
        ("k1-prefix(beta=0.2)", True),
        ("k1(beta=0.2)", False),
        ("k2(beta=0.2)", False),
        ("k3(beta=0.2)", False),
        ("k3-ratio(beta=0.2)", False),
    ],
)
def test_which_penalties_are_those_of_the_sequence(kl, exact):
    truth = exact_gradient(POLICY, REAL, "J-KL(beta=0.2)", reference=REFERENCE)
    found = mean(f"RLOO(kl={kl}, g=2)", REAL, reference=REFERENCE)
    plain = exact_gradient(POLICY, REAL)
    off = float((found - truth).norm() / (truth - plain).norm())
    assert off < 1e-11 if exact else off > 0.05
    if kl.startswith("k1(") and not exact:
        assert float((found - plain).abs().max()) < 1e-12  # k1 in the loss has no gradient


def test_ratio_weighted_k3_is_k2_per_token():
    found = mean("RLOO(kl=k3-ratio, g=2)", REAL, reference=REFERENCE)
    assert float((found - mean("RLOO(kl=k2, g=2)", REAL, reference=REFERENCE)).abs().max()) < 1e-12


def test_both_forms_of_the_penalty_off_policy_agree():
    given = {"reference": REFERENCE, "rollout": ROLLOUT}
    text = "PG(advantage=raw, loss=score(ratio=sequence), kl={}(beta=0.2), g=1)"
    truth = exact_gradient(POLICY, REAL, "J-KL(beta=0.2)", reference=REFERENCE)
    for kl in ("full", "k1-prefix"):
        found = exact_moments(text.format(kl), POLICY, REAL, **given)
        assert float((found.mean - truth).abs().max()) < 1e-12


def test_fifteen_sequences_in_groups_of_sixteen_need_few_sums():
    on = EnumeratedPolicy(POLICY, BINARY)
    by_reward = len(Classes(on, parse("RLOO(g=16)")).rewards)
    by_both = len(Classes(on, parse("RLOO(aggregation=TOK, g=16)")).rewards)
    assert (by_reward, by_both) == (2, 5)
    assert count_multisets(by_both, 16) == 4_845
    assert on.tree.size == 15
