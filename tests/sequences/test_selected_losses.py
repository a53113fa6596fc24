"""Shrinkage, Clip-Cov, KL-Cov and OPSM: formulas written again, claims by enumeration."""

import itertools
from dataclasses import replace

import pytest
import torch

from gradlab.sequences import (
    Tabular,
    compare,
    exact_gradient,
    exact_moments,
    monte_carlo,
    parse,
    tasks,
)
from random_groups import random_group

POLICY, ROLLOUT = Tabular(3, 3), Tabular(3, 3, seed=1)
PROMPTS = tasks.easy_and_hard()


def flat(group):
    new = group.log_prob.flatten(0, 1).clone().requires_grad_()
    return new, group.rollout_log_prob.flatten(0, 1), group.mask.flatten(0, 1)


def coefficients(group, loss):
    new, old, mask = flat(group)
    a = group.rewards.flatten()[:, None].expand_as(new)
    return -torch.autograd.grad(loss(new, old, a, mask), new)[0]


def covariances(new, a, mask):
    new = new.detach()
    return (a - a[mask].mean()) * (new - new[mask].mean())


def test_clip_cov_is_the_mean_over_its_random_choice():
    """All choices of `cut` tokens out of the band are enumerated."""
    group = random_group(2, g=3, t=4, seed=3, prompts=True)
    share, least, most = 0.15, 0.2, 2.0
    new, old, mask = flat(group)
    a = group.rewards.flatten()[:, None].expand_as(new)
    ratio = (new - old).exp().detach()
    clipped = (ratio.clamp(0.8, 1.2) * a < ratio * a) & mask
    covariance = covariances(new, a, mask)
    band = ((covariance > least) & (covariance < most) & mask & ~clipped).nonzero()
    cut = max(int(share * mask.sum()), 1)
    assert len(band) > cut  # there is a choice
    found = []
    for chosen in itertools.combinations(range(len(band)), cut):
        kept = torch.ones_like(ratio)
        for i in chosen:
            kept[tuple(band[i])] = 0

        def loss(new, old, a, mask, kept=kept):
            r = (new - old).exp()
            terms = torch.min(r * a, r.clamp(0.8, 1.2) * a) * kept
            return -(terms * mask).sum() / mask.sum()

        found.append(coefficients(group, loss))
    band_text = f"share={share}, least={least}, most={most}"
    text = f"PG(advantage=raw, aggregation=TOK, loss=Clip-Cov({band_text}))"
    ours = parse(text).coefficients(group).flatten(0, 1)
    torch.testing.assert_close(ours, torch.stack(found).mean(0), rtol=1e-10, atol=1e-14)
    plain = parse("PG(advantage=raw, aggregation=TOK, loss=PPO)").coefficients(group).flatten(0, 1)
    assert (ours - plain).norm() > 1e-2


@pytest.mark.parametrize("share", [2e-4, 0.3, 1.0])
def test_kl_cov_pulls_the_tokens_of_largest_covariance(share):
    group = random_group(2, g=3, t=4, seed=3, prompts=True)

    def loss(new, old, a, mask):
        covariance = torch.where(mask, covariances(new, a, mask), -torch.inf).flatten()
        top = covariance.topk(max(1, int(share * mask.sum()))).indices
        pull = torch.zeros_like(covariance)
        pull[top] = 1
        r = (new - old).exp()
        terms = -a * r + 0.5 * pull.view_as(r) * (new - old).abs()
        return (terms * mask).sum() / mask.sum()

    text = f"PG(advantage=raw, aggregation=TOK, loss=KL-Cov(share={share}, coef=0.5))"
    ours = parse(text).coefficients(group).flatten(0, 1)
    torch.testing.assert_close(ours, coefficients(group, loss), rtol=1e-10, atol=1e-14)


def test_tied_tokens_share_the_penalty():
    """Equal advantages have no covariance: all tokens tie, and the order of samples is nothing."""
    group = random_group(g=4, seed=2)
    equal = group.rewards * 0 + 1.0
    found = parse("PG(advantage=raw, loss=KL-Cov(share=0.5, coef=1))")
    ours = found.coefficients(replace(group, rewards=equal))
    order = torch.tensor([2, 0, 3, 1])
    moved = {
        name: getattr(group, name)[order]
        for name in ("lengths", "log_prob", "rollout_log_prob", "reference_log_prob", "logits")
    }
    other = found.coefficients(
        replace(group, rewards=equal, reference_logits=group.reference_logits[order], **moved)
    )
    torch.testing.assert_close(other, ours[order])


def test_opsm_leaves_out_negative_sequences_that_the_policy_has_left():
    group = random_group(2, g=4, seed=1, prompts=True, spread=0.4)

    def loss(new, old, a, mask):
        left = ((old - new.detach()) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        kept = (a >= 0) | (left <= 0.05)
        r = (new - old).exp()
        terms = torch.min(r * a, r.clamp(0.8, 1.2) * a) * kept
        return -((terms * mask).sum(-1) / mask.sum(-1)).mean()

    ours = parse("PG(advantage=raw, aggregation=SEQ, loss=OPSM(delta=0.05))").coefficients(group)
    wanted = coefficients(group, loss)
    torch.testing.assert_close(ours.flatten(0, 1), wanted, rtol=1e-10, atol=1e-14)
    dropped = (wanted == 0).all(-1)
    assert 0 < dropped.sum() < (group.rewards < 0).sum()


def test_the_shrunk_baseline_is_that_of_its_authors():
    rewards = random_group(4, g=3, seed=6, prompts=True).rewards
    wanted = torch.empty_like(rewards)
    for q in range(4):
        others = rewards[[k for k in range(4) if k != q]]
        means = others.mean(-1)
        v = (others.var(-1) / 3).mean()
        s = (means - means.mean()).square().mean()
        share = v / (v + s + 1e-6)
        for i in range(3):
            alone = rewards[q, [j for j in range(3) if j != i]].mean()
            wanted[q, i] = rewards[q, i] - (1 - share) * alone - share * means.mean()
    advantage = parse("JSPO(advantage=shrunk(eps=1e-6))").advantage
    found = advantage.of_rewards(rewards, torch.ones(4, 3).long())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    one = advantage.of_rewards(rewards[:1], torch.ones(1, 3).long())
    torch.testing.assert_close(one[0], rewards[0] * 1.5 - rewards[0].mean() * 1.5)


def test_shrinkage_is_unbiased_and_pays_where_prompts_are_alike():
    from gradlab.sequences.shipped import policy_named

    policy = policy_named("tabular", PROMPTS, 0)
    truth = exact_gradient(policy, PROMPTS)
    jspo, rloo = (exact_moments(f"{n}(g=2)", policy, PROMPTS) for n in ("JSPO", "RLOO"))
    for moments in (jspo, rloo):
        assert float((moments.mean - truth).norm() / truth.norm()) < 1e-12
    alike = [tasks.parity(), tasks.parity()]
    near, alone = (
        exact_moments(f"{n}(g=2)", POLICY, alike).variance.value for n in ("JSPO", "RLOO")
    )
    assert near < 0.95 * alone


def test_draws_agree_with_the_exact_moments():
    from gradlab.sequences.shipped import policy_named

    policy = policy_named("tabular", PROMPTS, 0)
    for text in ("JSPO(g=2)", "Clip-Cov(loss=Clip-Cov(least=0.1), g=2)", "KL-Cov(g=2)"):
        exact = exact_moments(text, policy, PROMPTS)
        drawn = monte_carlo(text, policy, PROMPTS, draws=4096)
        apart = (drawn.mean - exact.mean) / drawn.mean_se.clamp(min=1e-12)
        assert float(apart.abs().max()) < 5
        assert abs(drawn.variance.value - exact.variance.value) < 5 * drawn.variance.se


def test_what_they_claim_on_policy():
    rows = compare(
        [f"RLOO(loss={loss}, g=2)" for loss in ("KL-Cov", "OPSM", "Clip-Cov(least=0.1)")],
        POLICY,
        tasks.lengthy(),
    ).set_index("estimator")
    assert rows["bias2"].iloc[:2].max() < 1e-25  # the penalty and the mask do nothing on policy
    assert rows["bias2"].iloc[2] > 1e-3
    off = compare(list(rows.index), POLICY, tasks.lengthy(), rollout=ROLLOUT)
    assert off["bias2"].min() > 1e-4


def test_shares_are_checked():
    for text in ("Clip-Cov(share=0)", "KL-Cov(share=2)"):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
            parse(f"RLOO(loss={text})")
