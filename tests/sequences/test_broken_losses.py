"""Losses that break the contract: refused with a sentence, named a fault, or taken as right."""

import sys
from collections import defaultdict

import pytest
import torch

from gradlab.sequences import LossFunctionError, OwnLoss, Tabular, examine, tasks, verify

POLICY, TASK = Tabular(3, 3), tasks.lengthy()


def score(a, log_prob, mask):
    return -(a.unsqueeze(-1) * log_prob * mask).sum(-1).mean()


def centred(rewards, group_size):
    r = rewards.view(-1, group_size)
    return (r - r.mean(-1, keepdim=True)).flatten()


# ---- what cannot be examined: a sentence that says why, and the way out ------------------------


def per_token(log_prob, advantages, mask):
    return -advantages[:, None] * log_prob * mask


def per_sequence(log_prob, advantages, mask):
    return -(advantages[:, None] * log_prob * mask).sum(-1)


def item(log_prob, advantages, mask):
    return score(advantages, log_prob, mask).item()


def through_numpy(log_prob, advantages, mask):
    terms = advantages[:, None].numpy() * log_prob.detach().numpy() * mask.numpy()
    return -torch.tensor(terms.sum())


def all_detached(log_prob, advantages, mask):
    return score(advantages, log_prob.detach(), mask)


def no_grad(log_prob, advantages, mask):
    with torch.no_grad():
        return score(advantages, log_prob, mask)


def whole_number(log_prob, advantages, mask):
    return score(advantages, log_prob, mask).long()


def no_return(log_prob, advantages, mask):
    score(advantages, log_prob, mask)


def backward_inside(log_prob, advantages, mask):
    loss = score(advantages, log_prob, mask)
    loss.backward()
    return loss


def complex_loss(log_prob, advantages, mask):
    return score(advantages, log_prob, mask) + 0j


def ends_the_program(log_prob, advantages, mask):
    sys.exit(3)


def missing_helper(log_prob, advantages, mask):
    return masked_mean(advantages[:, None] * log_prob, mask)  # noqa: F821


def nan(log_prob, advantages, mask):
    return score(advantages, log_prob, mask) * torch.nan


def no_gradient(log_prob, advantages, mask):
    return 0 * log_prob.sum()


def without_advantages(log_prob, advantages, mask):
    return -(log_prob * mask).sum(-1).mean()


def without_rewards(log_prob, mask):
    return -(log_prob * mask).sum(-1).mean()


CALLS = [0]


def counts_its_calls(log_prob, advantages, mask):
    CALLS[0] += 1
    return score(advantages, log_prob, mask) * (1 + CALLS[0] % 2)


def dropout(log_prob, advantages, mask):
    return score(advantages, torch.nn.functional.dropout(log_prob), mask)


def seeded_dropout(log_prob, advantages, mask):
    torch.manual_seed(0)
    return dropout(log_prob, advantages, mask)


def extra_argument(log_prob, advantages, mask, weights):
    return score(advantages, log_prob, mask) * weights


def starred(*args):
    return args[0].sum()


def keywords(**given):
    return score(given["advantages"], given["log_prob"], given["mask"])


class NotALoss:
    """A class without forward or __call__."""


class NeedsMore(torch.nn.Module):
    """A class that is made with something that nobody gives."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, log_prob, advantages, mask):
        return self.scale * score(advantages, log_prob, mask)


REFUSED = [
    (per_token, r"one number, not \[6, 7\]; where it is one number per token"),
    (per_sequence, r"one number, not \[6\]; where it is one number per sequence \[6\], return its"),
    (item, r"not the number -?[\d.]+: leave out .item\(\)"),
    (through_numpy, r"no gradient .* look for .detach\(\), .item\(\), numpy"),
    (all_detached, r"no gradient .* look for .detach\(\)"),
    (no_grad, r"torch.no_grad\(\) between them and what is returned"),
    (whole_number, r"\.long\(\)"),
    (no_return, "not NoneType: a return is missing"),
    (backward_inside, "without calling backward in it"),
    (complex_loss, "must be a real number, not torch.complex128"),
    (ends_the_program, r"raised SystemExit: 3 \(test_broken_losses.py, line \d+\)"),
    (missing_helper, r"'masked_mean' is not defined .*; copy it into the file too, or import it"),
    (nan, "NaN or inf at 55 of 55 tokens of ordinary groups: look for 0/0"),
    (no_gradient, "the gradient of the loss is 0 at all tokens"),
    (without_advantages, "does not depend on the advantages: it is that of log pi alone"),
    (without_rewards, "takes neither advantages nor rewards, so it is no policy gradient"),
    (counts_its_calls, "another gradient at a second call with the same arguments"),
    (dropout, "another gradient at a second call with the same arguments"),
    (seeded_dropout, "draws random numbers: turn dropout"),
    (extra_argument, r"'weights' that is not understood.* \(--set weights=VALUE\)"),
    (starred, r"name one log_prob in the place of \*args"),
    (keywords, r"name one log_prob in the place of \*\*given"),
    (NotALoss, "the class NotALoss is not a loss: it has no forward or __call__"),
    (NeedsMore, r"is made with 'scale': give its value in settings \(--set scale=VALUE\)"),
]


@pytest.mark.parametrize(("loss", "said"), REFUSED, ids=[loss.__name__ for loss, _ in REFUSED])
@pytest.mark.few(8)
def test_what_cannot_be_examined_gets_a_sentence(loss, said):
    with pytest.raises(LossFunctionError, match=said):
        examine(loss)


@pytest.mark.parametrize("name", ["loss", "kind"])
def test_a_group_of_one_has_no_relative_advantage(name):
    own = (
        (lambda log_prob, advantages, mask: score(advantages, log_prob, mask))
        if (name == "loss")
        else (
            lambda log_prob, rewards, mask, group_size: score(
                centred(rewards, group_size), log_prob, mask
            )
        )
    )
    with pytest.raises(LossFunctionError, match=r"in a group of one .* \(g=2, --group 2\)"):
        examine(own, g=1)


def test_a_group_of_one_with_raw_rewards_is_examined():
    match = examine(per_token, g=1, advantage="raw", aggregation="SUM").match
    assert str(match) == "this is score, aggregation SUM of the advantages that it is given"


# ---- what is named a fault ---------------------------------------------------------------------


def changes_advantages(log_prob, advantages, mask):
    advantages -= advantages.mean()
    return score(advantages, log_prob, mask)


def changes_rewards(log_prob, rewards, mask, group_size):
    r = rewards.view(-1, group_size)
    r -= r.mean(-1, keepdim=True)
    return score(rewards, log_prob, mask)


def changes_mask(log_prob, advantages, mask):
    mask[:, 0] = 0
    return score(advantages, log_prob, mask)


def changes_old(log_prob, old_log_prob, advantages, mask):
    old_log_prob.mul_(mask)
    ratio = (log_prob * mask - old_log_prob).exp()
    return -(ratio * advantages[:, None] * mask).sum(-1).mean()


def divides_by_mask(log_prob, advantages, mask):
    return -(advantages[:, None] * (log_prob / mask) * mask).sum(-1).mean()


def log_of_padding(log_prob, advantages, mask):
    weight = (mask.log() + 1).exp()
    return -(advantages[:, None] * log_prob * mask * weight.log()).sum(-1).mean()


def whole_rewards(log_prob, rewards, mask, group_size):
    return score(centred(rewards.long().to(rewards.dtype), group_size), log_prob, mask)


def rewards_above_half(log_prob, rewards, mask, group_size):
    good = (rewards > 0.5).to(rewards.dtype)
    return score(good - 0.3, log_prob, mask)


FAULTS = [
    (changes_advantages, "arguments changed in place", "advantages"),
    (changes_rewards, "arguments changed in place", "rewards"),
    (changes_mask, "arguments changed in place", "mask"),
    (changes_old, "arguments changed in place", "old_log_prob"),
    (divides_by_mask, "NaN from padding", "the gradient is NaN or inf"),
    (log_of_padding, "NaN from padding", "NaN or inf"),
    (whole_rewards, "rewards rounded", "changes of 1e-4 change nothing"),
    (rewards_above_half, "rewards rounded", "changes of 1e-4 change nothing"),
]


@pytest.mark.parametrize(("loss", "name", "effect"), FAULTS)
@pytest.mark.few(4)
def test_a_fault_of_the_contract_is_named(loss, name, effect):
    found = {fault.name: fault for fault in examine(loss).faults}
    assert effect in found[name].effect
    assert not {"arguments changed in place", "NaN from padding"} - {name} & set(found)


def test_a_change_in_place_does_not_reach_the_next_call():
    """The rewards of the caller stay as they are, so that the verdict is that of the clean loss."""
    report = examine(changes_rewards)
    assert str(report.match) == "this is centred"
    verdict = verify(changes_rewards, POLICY, TASK)
    assert (verdict.outcome, verdict.wanted) == ("UNBIASED", 0.5)


def mean_before_mask(log_prob, advantages, mask):
    return (-(advantages[:, None] * log_prob).mean(0) * mask).sum() / mask.sum()


def times_the_batch(log_prob, advantages, mask):
    return score(advantages, log_prob, mask) * len(mask)


@pytest.mark.parametrize(
    ("loss", "fails"),
    [(mean_before_mask, "padding content"), (times_the_batch, "duplicated batch")],
)
def test_an_invariance_fails(loss, fails):
    assert fails in examine(loss).failing


# ---- what is unusual and right -----------------------------------------------------------------


def in_place_on_log_prob(log_prob, advantages, mask):
    log_prob *= mask
    return score(advantages, log_prob, mask)


def nan_behind_the_mask(log_prob, advantages, mask):
    seen = torch.where(mask > 0, log_prob, torch.nan)
    return -(advantages[:, None] * seen).nansum(-1).mean()


def indexes_with_the_mask(log_prob, advantages, mask):
    return -(advantages[:, None] * log_prob)[mask].sum() / len(mask)


def inverts_the_mask(log_prob, advantages, mask):
    return -(advantages[:, None] * log_prob).masked_fill(~mask, 0).sum() / len(mask)


def half(log_prob, advantages, mask):
    return score(advantages.half(), log_prob.half(), mask.half())


def single(log_prob, advantages, mask):
    return score(advantages.float(), log_prob.float(), mask.float())


def needs_float32(log_prob, advantages, mask):
    weights = torch.zeros(mask.shape)  # float32
    weights += mask
    return -torch.mm(advantages[None] / len(mask), log_prob * weights).sum()


def positional(log_prob, advantages, mask, /):
    return score(advantages, log_prob, mask)


def keyword_only(log_prob, *, advantages, mask):
    return score(advantages, log_prob, mask)


def with_temperature(log_prob, advantages, mask, temperature):
    return score(advantages, log_prob, mask) / temperature


UNUSUAL = [
    *(in_place_on_log_prob, nan_behind_the_mask, indexes_with_the_mask, inverts_the_mask, half),
    *(single, needs_float32, positional, keyword_only, with_temperature),
]


@pytest.mark.parametrize("loss", UNUSUAL)
@pytest.mark.few(5)
def test_what_is_unusual_is_taken(loss):
    report = examine(loss)
    assert str(report.match) == "this is score, aggregation SUM of the advantages that it is given"
    assert not report.faults
    assert set(report.failing) <= {"-inf log-probabilities", "masked tokens"}


def groups_by_list(log_prob, rewards, mask, group_ids):
    by = defaultdict(list)
    for i, key in enumerate(group_ids):
        by[key].append(i)
    a = rewards.clone()
    for rows in by.values():
        a[rows] -= rewards[rows].mean()
    return score(a, log_prob, mask)


def binary_rewards(log_prob, rewards, mask, group_size):
    return score(centred((rewards == 1).to(rewards.dtype), group_size), log_prob, mask)


@pytest.mark.parametrize("loss", [groups_by_list, binary_rewards])
def test_indices_as_a_list_and_binary_rewards_are_found_by_trying(loss):
    assert str(examine(loss).match) == "this is centred"


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_the_units_of_rewards_name_no_fault(scale):
    def scaled(log_prob, rewards, mask, group_size):
        a = centred(scale * rewards, group_size) * group_size / max(1, group_size - 1)
        return score(a, log_prob, mask)

    report = examine(scaled)
    assert str(report.match) == f"this is RLOO times {scale:.6g}"
    assert report.faults == ()
    assert verify(scaled, POLICY, TASK).wanted == pytest.approx(scale)
    assert verify(scaled, POLICY, TASK).outcome == "UNBIASED"


@pytest.mark.parametrize(("loss", "digits"), [(single, 1e-6), (half, 1e-2)])
def test_low_precision_is_no_bias_and_is_told(loss, digits):
    own = OwnLoss(loss, advantage="loo", g=2)
    verdict = verify(own, POLICY, TASK)
    assert verdict.outcome == "UNBIASED"
    assert "it computes with a precision of" in str(examine(own))
    # A bias above the precision is still one.
    wrong = OwnLoss(
        lambda log_prob, advantages, mask: (1 + 100 * digits) * loss(log_prob, advantages, mask),
        advantage="loo",
        g=2,
    )
    assert verify(wrong, POLICY, TASK, factor=1.0).outcome == "BIASED"
