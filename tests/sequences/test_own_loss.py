"""Losses as users bring them: read by their names, examined, matched; faults are named."""

import pytest
import torch

from gradlab.sequences import ESTIMATORS, Group, parse
from gradlab.sequences.invariances import findings
from gradlab.sequences.loss_report import examine
from gradlab.sequences.own_loss import LossFunctionError, OwnLoss
from gradlab.sequences.planted_losses import PLANTED_LOSSES
from random_groups import random_group


def loss_of(estimator):
    """Return the estimator's objective as a trainer's loss of flat tensors."""

    def loss(log_prob, old_log_prob, ref_log_prob, rewards, mask, group_size):
        shape = (-1, group_size)
        tables = (
            x.view(*shape, mask.shape[-1]) for x in (log_prob.detach(), old_log_prob, ref_log_prob)
        )
        lengths = mask.sum(-1).long().view(shape)
        group = Group(rewards.view(shape), lengths, *tables, prompts=True)
        return -estimator.objective(group, log_prob.view(*shape, mask.shape[-1]))

    return loss


# Needs what a loss is not given.
NEEDS_MORE = {"OTB", "ReMax"}
CATALOGUE = [name for name in ESTIMATORS if name not in NEEDS_MORE]
MORE = [
    *("GRPO(kl=k3)", "GRPO(kl=k3-ratio(beta=0.001))", "RLOO(kl=k2)", "RLOO(kl=k1)"),
    *("RLOO(kl=k1-prefix(beta=1))", "RLOO(kl=k2(per=sequence))", "RLOO(kl=k1(place=reward))"),
    *("RLOO(kl=k1(place=reward, per=sequence))", "Dr.GRPO(aggregation=CONST(length=100))"),
    *("GRPO(loss=PPO(low=0.1, high=0.28))", "RLOO(loss=score(ratio=sequence, high=2))"),
    *("RLOO(loss=score(ratio=geometric))", "GRPO(aggregation=TOK-local(micro=2))"),
    *("GRPO(advantage=group-std(eps=0.0001))", "RLOO(aggregation=SEQ)", "centred(aggregation=TOK)"),
    "RLOO(loss=SAPO)",
]


@pytest.mark.parametrize("text", [*CATALOGUE, *MORE])
@pytest.mark.few(2)
def test_a_loss_of_the_catalogue_is_recognized(text):
    estimator = parse(text)
    report = examine(loss_of(estimator))
    assert report.match.exact
    assert report.match.factor == pytest.approx(1, abs=1e-9)
    found = report.match.estimator
    # Some have the same coefficients under two names; what is said must have them too.
    group = random_group(3, prompts=True)
    torch.testing.assert_close(
        found.coefficients(group), estimator.coefficients(group), rtol=1e-6, atol=1e-9
    )
    if text not in ("TIS", "two-sided", "dual-clip"):
        assert str(found) == str(estimator)


@pytest.mark.parametrize("text", ["RLOO", "GRPO(kl=k3)", "DAPO", "GSPO", "REINFORCE++"])
@pytest.mark.parametrize("prompts", [False, True])
def test_coefficients_are_those_of_the_estimator(text, prompts):
    estimator, group = parse(text), random_group(2, 3, prompts=prompts)
    found = OwnLoss(loss_of(estimator)).coefficients(group)
    torch.testing.assert_close(found, estimator.coefficients(group), rtol=0, atol=1e-14)


@pytest.mark.parametrize("number", range(len(PLANTED_LOSSES)))
@pytest.mark.few(2)
def test_a_planted_fault_is_named_and_the_right_loss_has_none(number):
    planted = PLANTED_LOSSES[number]
    wrong, right = planted.report(), planted.report(right=True)
    assert wrong.fault_names() == (planted.name,)
    assert planted.name in str(wrong)
    assert right.fault_names() == ()
    assert "no planted fault" in str(right)


def test_all_faults_of_the_list_are_planted():
    assert {planted.name for planted in PLANTED_LOSSES} == {
        *("own sample in the baseline", "missing G/(G - 1)", "double normalization"),
        *("local token count", "sequence ratio broadcast to tokens", "sign of the log-ratio"),
        *("weight not detached", "KL differentiated as a loss", "whitening over padding"),
        "std always on",
    }


def score(a, log_prob, mask):
    return -(a.unsqueeze(-1) * log_prob * mask).sum(-1).mean()


def no_mask(log_prob, advantages):
    return -(advantages.unsqueeze(-1) * log_prob).sum(-1).mean()


def padded_length(log_prob, advantages, mask):
    return -(advantages.unsqueeze(-1) * log_prob * mask).mean()


def neighbours(log_prob, advantages, mask):
    return score(advantages.roll(1), log_prob, mask)


def first_prompt_counts_twice(log_prob, rewards, mask, group_size):
    weight = torch.ones_like(rewards)
    weight[:group_size] = 2
    return score(weight * rewards, log_prob, mask)


def token_mean(log_prob, advantages, mask):
    return -(advantages.unsqueeze(-1) * log_prob * mask).sum() / mask.sum()


def sum_over_batch(log_prob, advantages, mask):
    return -(advantages.unsqueeze(-1) * log_prob * mask).sum()


def no_baseline(log_prob, rewards, mask, group_size):
    return score(rewards, log_prob, mask)


def squared(log_prob, rewards, mask, group_size):
    return score(rewards * rewards.abs(), log_prob, mask)


def no_epsilon(log_prob, rewards, mask, group_size):
    r = rewards.view(-1, group_size)
    return score(
        ((r - r.mean(-1, keepdim=True)) / r.std(-1, keepdim=True)).flatten(), log_prob, mask
    )


def only_leading_mask(log_prob, advantages, mask):
    steps = torch.arange(mask.shape[-1])
    whole = steps <= (steps * mask).argmax(-1, keepdim=True)
    return score(advantages, log_prob, whole)


def global_mean(log_prob, advantages, mask):
    return score(advantages, log_prob, mask)


BROKEN = {
    "padding content": no_mask,
    "padding length": padded_length,
    "order of samples": neighbours,
    "order of groups": first_prompt_counts_twice,
    "micro-batches": token_mean,
    "duplicated batch": sum_over_batch,
    "constant added to rewards": no_baseline,
    "scale of rewards": squared,
    "all-equal rewards": no_epsilon,
    "group of one": no_epsilon,
    "masked tokens": only_leading_mask,
}


def no_guard(log_prob, old_log_prob, ref_log_prob, advantages, mask):
    kl = (ref_log_prob - log_prob).exp() - (ref_log_prob - log_prob) - 1
    return score(advantages, log_prob, mask) + (kl * mask).sum(-1).mean()


@pytest.mark.parametrize("name", [*BROKEN, "-inf log-probabilities"])
@pytest.mark.few(4)
def test_each_invariance_is_broken_by_a_loss_that_breaks_it(name):
    broken = {found.name: found for found in findings(OwnLoss(BROKEN.get(name, no_guard)))}[name]
    assert broken.holds is False
    assert not abs(broken.effect) < 1e-3
    # The estimator behind `loss_of` takes lengths from the mask.
    right = global_mean if name == "masked tokens" else loss_of(parse("RLOO"))
    whole = {found.name: found for found in findings(OwnLoss(right))}[name]
    assert whole.holds is True


def test_a_global_count_repairs_the_micro_batches():
    def loss(log_prob, advantages, mask, num_items_in_batch):
        return -(advantages.unsqueeze(-1) * log_prob * mask).sum() / num_items_in_batch

    assert "micro-batches" in examine(token_mean).failing
    assert "micro-batches" in examine(loss).holding
    assert str(examine(loss).match.estimator.aggregation) == "TOK"


def clipped(ratio, a):
    return -torch.min(ratio * a, ratio.clamp(0.8, 1.28) * a)


def trl_inputs(per_token_logps, inputs):
    a = inputs["advantages"].unsqueeze(1)
    ratio = (per_token_logps - inputs["old_per_token_logps"]).exp()
    kl = inputs["ref_per_token_logps"] - per_token_logps
    terms = clipped(ratio, a) + 0.04 * (kl.exp() - kl - 1)
    mask = inputs["completion_mask"]
    return ((terms * mask).sum(-1) / mask.sum(-1)).mean()


def verl_like(
    old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None
):
    ratio = (log_prob - old_log_prob).exp()
    a = advantages
    first = torch.maximum(
        -a * ratio, -a * ratio.clamp(1 - config.clip_ratio_low, 1 + config.clip_ratio_high)
    )
    terms = torch.where(a < 0, torch.min(-a * config.get("clip_ratio_c", 3.0), first), first)
    assert loss_agg_mode == "token-mean"
    return (terms * response_mask).sum() / response_mask.sum(), {"actor/pg_loss": 0.0}


class OpenRLHFLike(torch.nn.Module):
    def forward(
        self,
        log_probs,
        old_log_probs,
        advantages,
        action_mask=None,
        rollout_log_probs=None,
        batch_num_tokens=None,
    ):
        terms = clipped((log_probs - old_log_probs).exp(), advantages)
        return (terms * action_mask).sum() / batch_num_tokens, 0.1, 0.2


def slime_like(ppo_kl, advantages, eps_clip, eps_clip_high, eps_clip_c=None):
    ratio = (-ppo_kl).exp()
    return torch.maximum(
        -ratio * advantages, -ratio.clamp(1 - eps_clip, 1 + eps_clip_high) * advantages
    ), 0.0


def nemo_like(next_token_logprobs, data):
    ratio = (next_token_logprobs - data["prev_logprobs"]).exp()
    terms = clipped(ratio, data["advantages"].unsqueeze(-1)) * data["token_mask"]
    return {"loss": terms.sum() / data["global_valid_toks"]}


SLIME = {"settings": {"eps_clip": 0.2, "eps_clip_high": 0.28}, "aggregation": "SEQ"}
TRAINERS = [
    (trl_inputs, {}, "PPO(high=0.28)", "SEQ", "k3"),
    (verl_like, {"settings": {"clip_ratio_high": 0.28}}, "PPO(high=0.28, dual=3)", "TOK", "none"),
    (OpenRLHFLike(), {}, "PPO(high=0.28)", "TOK", "none"),
    (
        slime_like,
        {"settings": {"eps_clip": 0.2, "eps_clip_high": 0.28}, "aggregation": "SEQ"},
        "PPO(high=0.28)",
        "SEQ",
        "none",
    ),
    (nemo_like, {}, "PPO(high=0.28)", "TOK", "none"),
]


@pytest.mark.parametrize(("loss", "options", "ratio", "aggregation", "kl"), TRAINERS)
@pytest.mark.few(1)
def test_losses_in_the_words_of_trainers_are_read(loss, options, ratio, aggregation, kl):
    match = examine(loss, **options).match
    assert match.exact
    assert match.given
    found = match.estimator
    assert (str(found.loss), str(found.aggregation), str(found.kl)) == (ratio, aggregation, kl)
    assert f"{ratio}, aggregation {aggregation}" in str(match)


@pytest.mark.thorough  # the catalogue is read by index above
def test_groups_by_index_as_arrays_are_read():
    def loss(log_prob, token_level_rewards, response_mask, index):
        scores, by = token_level_rewards.sum(-1), {}
        for i, key in enumerate(index):
            by.setdefault(key, []).append(scores[i])
        a = torch.stack([scores[i] - torch.stack(by[key]).mean() for i, key in enumerate(index)])
        return score(a, log_prob, response_mask)

    assert str(examine(loss).match) == "this is centred"


@pytest.mark.thorough  # the page of test_policy.py shows it
def test_the_report_says_what_it_is_and_what_that_means():
    text = str(examine(loss_of(parse("GRPO(kl=k3)"))))
    assert "this is GRPO(kl=k3)" in text
    assert "target: gradient of h(p) - beta KL; on policy: biased" in text
    assert "SEQ divides each advantage by the length of its own sequence" in text
    assert "holds  order of samples" in text
    assert max(map(len, text.splitlines())) <= 100


def test_one_sum_in_place_of_a_mean_is_a_factor():
    match = examine(sum_over_batch).match
    assert match.factor == pytest.approx(12)
    assert "times 12" in str(match)
    assert (
        examine(
            lambda log_prob, advantages, mask: -token_mean(log_prob, advantages, mask)
        ).match.factor
        == -1
    )
    up = examine(
        lambda log_prob, advantages, mask: -token_mean(log_prob, advantages, mask), maximize=True
    )
    assert up.match.factor == 1


def misspelt(log_prob, advantags):
    return log_prob.sum()


def without_log_prob(advantages):
    return advantages.sum()


def without_graph(log_prob, advantages):
    return advantages.sum()


def per_token(log_prob, advantages):
    return log_prob * advantages.unsqueeze(-1)


def no_tensor(log_prob, advantages):
    return 3.0


def failing(log_prob, advantages):
    return log_prob.nonsense


def misspelt_setting(log_prob, advantages, config):
    return log_prob.sum() * config.clip_rato


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (misspelt, "did you mean 'advantages'"),
        (without_log_prob, "no argument for the policy's log-probabilities"),
        (without_graph, "no gradient"),
        (per_token, "say how they are reduced"),
        (no_tensor, "must return a tensor"),
        (failing, r"AttributeError.*\(test_own_loss.py, line \d+\)"),
        (misspelt_setting, "did you mean 'clip_ratio'"),
    ],
)
def test_what_cannot_be_examined_is_refused_with_a_reason(loss, message):
    with pytest.raises(LossFunctionError, match=message):
        examine(loss)


def test_several_prompts_need_to_be_told_apart():
    own = OwnLoss(lambda log_prob, rewards: -(rewards.unsqueeze(-1) * log_prob).sum())
    with pytest.raises(LossFunctionError, match="group_size or index"):
        own.coefficients(random_group(2, prompts=True))
    assert own.coefficients(random_group(2)).shape == (2, 4, 6)
