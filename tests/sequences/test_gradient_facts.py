"""What each estimator estimates, by enumeration of all groups of a policy with 15 sequences."""

import math

import pytest
import torch

from gradlab.sequences import ESTIMATORS, parse, success_factor
from gradlab.sequences.kl_terms import KLS
from random_groups import random_group
from small_policy import (
    BINARY,
    LENGTHS,
    POLICY,
    REAL,
    REFERENCE,
    ROLLOUT,
    SEQUENCES,
    cosine,
    mean_of,
)

P = float((POLICY.probability * BINARY).sum())
GRAD_J = {"real": POLICY.gradient(REAL), "binary": POLICY.gradient(BINARY)}
REWARDS = {"real": REAL, "binary": BINARY}
GREEDY = torch.tensor(0.3, dtype=torch.float64)  # any number that does not depend on the sample
WITH_FACTOR = [name for name, e in ESTIMATORS.items() if e.claim(3).on_policy is not None]
BIASED = [name for name in ESTIMATORS if name not in WITH_FACTOR]


def target(estimator, rewards):
    """Return the gradient of what the estimator claims to estimate, from its definition."""
    g, p = estimator.g, float((POLICY.probability * rewards).sum())
    grad = POLICY.gradient(rewards)
    claimed = estimator.claim(3).target
    if claimed == "J":
        return grad
    if claimed == "pass@k":
        k = estimator.advantage.k
        return k * (1 - p) ** (k - 1) * grad
    if claimed == "sum of pass@k / k":
        return sum((1 - p) ** (k - 1) for k in range(1, g + 1)) * grad
    assert claimed == "max@G"
    # E max = sum over r of r P(max = r); the derivative of P(R <= r)^G is by the chain rule.
    total, below, below_grad = torch.zeros_like(grad), 0.0, torch.zeros_like(grad)
    for r in sorted(set(rewards.tolist())):
        upto = float((POLICY.probability * (rewards <= r)).sum())
        upto_grad = POLICY.gradient((rewards <= r).double())
        total += r * g * (upto ** (g - 1) * upto_grad - below ** (g - 1) * below_grad)
        below, below_grad = upto, upto_grad
    return total


def estimator_of(name, g=3):
    estimator = ESTIMATORS[name]
    return estimator if estimator.g == 1 else estimator.with_(g=g)


def near(a, b, tolerance=1e-10):
    assert float((a - b).abs().max()) < tolerance


@pytest.mark.parametrize("name", WITH_FACTOR)
def test_on_policy_the_mean_is_the_claimed_factor_of_the_target(name):
    estimator = estimator_of(name)
    claim = estimator.claim(3)
    rewards = REAL if claim.target in ("J", "max@G") else BINARY
    near(
        mean_of(estimator, POLICY, rewards, greedy=GREEDY),
        claim.on_policy * target(estimator, rewards),
    )


@pytest.mark.parametrize("name", BIASED)
def test_what_claims_no_factor_has_none(name):
    estimator = estimator_of(name)
    assert estimator.claim(3).reasons
    rewards = REAL * BINARY if name == "GPG" else REAL  # its scale counts zeros
    mean = mean_of(estimator, POLICY, rewards)
    assert cosine(mean, POLICY.gradient(rewards)) < 1 - 1e-5


@pytest.mark.parametrize("name", ESTIMATORS)
def test_off_policy_claims_hold_and_others_are_biased(name):
    estimator = estimator_of(name, g=2)
    claim = estimator.claim(3)
    rewards = REAL if claim.target in ("J", "max@G") else BINARY
    mean = mean_of(estimator, POLICY, rewards, rollout=ROLLOUT, greedy=GREEDY)
    if claim.off_policy is not None:
        near(mean, claim.off_policy * GRAD_J["real"])
    else:
        wanted = GRAD_J["real" if rewards is REAL else "binary"]
        factor = claim.on_policy or 1.0
        assert float((mean - factor * wanted).norm() / wanted.norm()) > 1e-3


@pytest.mark.parametrize("g", [2, 3])
@pytest.mark.parametrize("rewards", REWARDS)
def test_rloo_is_exact_and_the_centred_mean_shrinks_it(g, rewards):
    for name, factor in (("RLOO", 1), ("centred", (g - 1) / g)):
        estimator = ESTIMATORS[name].with_(g=g)
        near(mean_of(estimator, POLICY, REWARDS[rewards]), factor * GRAD_J[rewards], 1e-14)


def test_a_mean_over_each_sequence_is_wrong_at_every_group_size_and_over_tokens_less_and_less():
    def cosines(aggregation):
        found = (
            mean_of(parse(f"centred(aggregation={aggregation}, g={g})"), POLICY, REAL)
            for g in (2, 3)
        )
        return [cosine(mean, GRAD_J["real"]) for mean in found]

    sequence, token = cosines("SEQ"), cosines("TOK")
    assert sequence[0] == pytest.approx(sequence[1], abs=1e-12)
    assert sequence[0] < 0.995
    assert 1 - token[1] < 0.6 * (1 - token[0])
    # The limit of SEQ is E[(A/n) s] at every group size.
    wanted = POLICY.gradient((REAL - (POLICY.probability * REAL).sum()) / LENGTHS)
    assert cosine(wanted, GRAD_J["real"]) < 0.995


@pytest.mark.parametrize("g", [2, 3])
def test_grpo_on_binary_rewards_multiplies_the_gradient_of_p(g):
    mean = mean_of(parse(f"GRPO(aggregation=SUM, g={g})"), POLICY, BINARY)
    closed = (
        math.sqrt((g - 1) / g)
        * sum(
            math.comb(g, k) * P**k * (1 - P) ** (g - k) * math.sqrt(k / g * (1 - k / g))
            for k in range(g + 1)
        )
        / (P * (1 - P))
    )
    near(mean, closed * GRAD_J["binary"])
    assert success_factor(parse(f"GRPO(g={g})"), P) == pytest.approx(closed, abs=1e-12)


def test_two_samples_have_no_difficulty_and_many_the_inverse_deviation():
    two, many = parse("GRPO(g=2)"), parse("GRPO(g=400)")
    for p in (0.01, 0.3, 0.9):
        assert success_factor(two, p) == pytest.approx(math.sqrt(2) / 2, abs=1e-12)
    assert success_factor(many, 0.3) == pytest.approx(1 / math.sqrt(0.21), rel=3e-3)


@pytest.mark.parametrize("name", ["RLOO", "MaxRL", "PKPO", "GPG", "max-second", "centred"])
def test_the_factor_of_success_is_that_of_the_enumerated_mean(name):
    estimator = estimator_of(name)
    near(mean_of(estimator, POLICY, BINARY), success_factor(estimator, P) * GRAD_J["binary"])


def test_dynamic_sampling_reweighs_by_difficulty():
    estimator = parse("RLOO(g=3, resample=true)")
    factor = 1 / (1 - P**3 - (1 - P) ** 3)
    near(mean_of(estimator, POLICY, BINARY), factor * GRAD_J["binary"])
    assert success_factor(estimator, P) == pytest.approx(factor)


BETA = 0.3
KL_GRADIENT = POLICY.kl_gradient(REFERENCE)
ON_POLICY = {
    "k1(beta=0.3, place=reward, per=sequence)": 0.0,
    "k1(beta=0.3, place=reward)": 0.0,
    "k2(beta=0.3, per=sequence)": 0.0,
    "k1-prefix(beta=0.3)": 0.0,
    "full(beta=0.3)": 0.0,
    "k1(beta=0.3)": 1.0,
    "k2(beta=0.3)": None,
    "k3(beta=0.3)": None,
    "k3-ratio(beta=0.3)": None,
    "k1-ratio(beta=0.3)": None,
    "k3(beta=0.3, place=reward, per=sequence)": None,
    "k2(beta=0.3, place=reward, per=sequence)": None,
}


def kl_part(kl, loss="score", rollout=None):
    """Return the mean of the KL term's own part, over -beta."""
    with_, without = (
        mean_of(
            parse(f"RLOO(kl={term}, loss={loss}, g=2)"),
            POLICY,
            REAL,
            reference=REFERENCE,
            rollout=rollout,
        )
        for term in (kl, "none")
    )
    return (without - with_) / BETA


@pytest.mark.parametrize("kl", ON_POLICY)
def test_the_ladder_of_kl_gradients(kl):
    bias = float((kl_part(kl) - KL_GRADIENT).norm() / KL_GRADIENT.norm())
    wanted = ON_POLICY[kl]
    if wanted is None:
        assert bias > 0.02
    else:
        assert bias == pytest.approx(wanted, abs=1e-12)
    exact = parse(f"RLOO(kl={kl}, g=2)").claim().on_policy is not None
    assert exact == (wanted == 0.0)


def test_the_penalty_in_reward_shifts_the_whole_gradient():
    mean = mean_of(
        parse("RLOO(kl=k1(beta=0.3, place=reward, per=sequence), g=3)"),
        POLICY,
        REAL,
        reference=REFERENCE,
    )
    near(mean, GRAD_J["real"] - BETA * KL_GRADIENT)


def test_the_partial_gradients_are_one_and_the_same():
    partial = torch.zeros_like(KL_GRADIENT)
    for row in range(len(SEQUENCES)):
        for t in range(int(LENGTHS[row])):
            log_ratio = POLICY.log_prob[row, t] - REFERENCE.log_prob[row, t]
            partial += POLICY.probability[row] * log_ratio * POLICY.score[row, t]
    for kl in ("k2(beta=0.3)", "k3-ratio(beta=0.3)", "k1-ratio(beta=0.3)"):
        near(kl_part(kl), partial)


OFF_POLICY = ["k1-prefix(beta=0.3)", "full(beta=0.3)", "k1(beta=0.3, place=reward, per=sequence)"]


@pytest.mark.parametrize("kl", KLS)
def test_off_policy_only_prefix_weights_and_the_weighted_reward_are_exact(kl):
    if kl == "none":
        return
    texts = [kl + "(beta=0.3)"] if kl != "k1" else ["k1(beta=0.3)", OFF_POLICY[-1]]
    for text in texts:
        bias = float(
            (kl_part(text, "score(ratio=sequence)", ROLLOUT) - KL_GRADIENT).norm()
            / KL_GRADIENT.norm()
        )
        exact = text in OFF_POLICY
        assert bias < 1e-12 if exact else bias > 0.01
        claim = parse(f"IS(kl={text}, g=2)").claim()
        assert (claim.off_policy is not None) == exact


def test_centring_makes_the_weight_of_a_penalty_in_the_loss_larger():
    claim = parse("centred(kl=k2(per=sequence), g=2)").claim()
    assert claim.on_policy is None
    assert "beta counts for more" in str(claim)
    mean = mean_of(
        parse("centred(kl=k2(beta=0.3, per=sequence), g=2)"), POLICY, REAL, reference=REFERENCE
    )
    near(mean, 0.5 * GRAD_J["real"] - BETA * KL_GRADIENT)


def test_the_prefix_ratio_is_exact_where_only_what_follows_is_the_policys():
    """Off policy in the first token alone, pi = mu after it: the prefix ratio then has no bias."""
    from small_policy import Small, table

    changed = table(0)
    changed[0] += torch.tensor([1.0, -1.0, 0.0])
    rollout = Small(changed)
    near(mean_of(parse("CTPO(g=2)"), POLICY, REAL, rollout=rollout), GRAD_J["real"])
    token = mean_of(parse("RLOO(loss=score(ratio=token), g=2)"), POLICY, REAL, rollout=rollout)
    assert float((token - GRAD_J["real"]).norm()) > 1e-3


def test_bias_falls_from_no_ratio_to_token_to_prefix_to_sequence():
    def bias(ratio):
        mean = mean_of(
            parse(f"RLOO(loss=score(ratio={ratio}), g=2)"), POLICY, REAL, rollout=ROLLOUT
        )
        return float((mean - GRAD_J["real"]).norm())

    none, token, prefix, sequence = map(bias, ("none", "token", "prefix", "sequence"))
    assert none > prefix > sequence
    assert token > sequence
    assert sequence < 1e-13


def test_the_full_kl_weighs_a_token_by_what_follows_it_alone():
    """Its own KL times its own score has mean 0 and would only add variance."""
    group = random_group(seed=3)
    found = parse("RLOO(kl=full(beta=0.5))").coefficients(group)
    found = found - parse("RLOO").coefficients(group)
    own, other = (x.log_softmax(-1) for x in (group.logits, group.reference_logits))
    kl = (own.exp() * (own - other)).sum(-1)
    for i in range(4):
        n = int(group.lengths[i])
        ratios = (group.log_prob - group.rollout_log_prob)[i, :n].exp()
        for u in range(n):
            wanted = sum(float(ratios[:t].prod() * kl[i, t]) for t in range(u + 1, n))
            assert float(found[i, u]) == pytest.approx(-0.5 * wanted / 4, abs=1e-12)
