"""Faults of published losses, each as a short function with a known answer, beside a right one.

The sentence of a wrong function names the fault; the line that is wrong says what would be right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradlab.sequences.loss_report import LossReport, examine

__all__ = ["PLANTED_LOSSES", "PlantedLoss"]


@dataclass(frozen=True, eq=False)
class PlantedLoss:
    """One fault: the wrong loss, the same loss without the fault, and the name that it must get.

    Args:
        name: Of the fault, as a report calls it.
        wrong: The loss with the fault.
        right: The same without.
        options: Further options of `examine`.

    Example:
        >>> planted = PLANTED_LOSSES[1]
        >>> planted.name, planted.report().fault_names(), planted.report(right=True).fault_names()
        ('missing G/(G - 1)', ('missing G/(G - 1)',), ())
    """

    name: str
    wrong: Callable[..., Any]
    right: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)

    def report(self, *, right: bool = False) -> LossReport:
        """Return the report on the wrong loss, or on the right one.

        Args:
            right: Which.
        """
        return examine(self.right if right else self.wrong, **self.options)


def own_sample_in_baseline(
    log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int
) -> Tensor:
    """The length-weighted baseline of a sample contains the sample itself."""
    r, n = rewards.view(-1, group_size), mask.sum(-1).view(-1, group_size)
    baseline = (n * r).sum(-1, keepdim=True) / n.sum(-1, keepdim=True)  # the others alone is right
    return _summed((r - baseline).flatten(), log_prob, mask)


def others_in_baseline(log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """The baseline is the mean of the others."""
    r = rewards.view(-1, group_size)
    others = (r.sum(-1, keepdim=True) - r) / (group_size - 1)
    return _summed((r - others).flatten(), log_prob, mask)


def mean_of_all(log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """The mean of the group is subtracted and G/(G - 1) is forgotten."""
    r = rewards.view(-1, group_size)
    return _summed((r - r.mean(-1, keepdim=True)).flatten(), log_prob, mask)


def divided_twice(log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """The trainer standardizes the rewards, and the loss divides by their deviation again."""
    r = rewards.view(-1, group_size)
    a = (r - r.mean(-1, keepdim=True)) / (r.std(-1, keepdim=True) + 1e-6)
    a = a / (r.std(-1, keepdim=True) + 1e-6)  # without this line it is right
    return _summed(a.flatten(), log_prob, mask)


def standardized(log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """The rewards are standardized once."""
    return _summed(_standardized(rewards, group_size), log_prob, mask)


def standardized_again(log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Advantages that are standardized in the group are standardized in the batch too."""
    a = _standardized(rewards, group_size)
    return _summed((a - a.mean()) / (a.std() + 1e-6), log_prob, mask)  # a is right


def local_count(log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Each micro-batch of two sequences divides by its own token count."""
    terms = -advantages.unsqueeze(-1) * log_prob * mask
    parts = zip(terms.split(2), mask.split(2), strict=True)
    means = [part.sum() / own.sum() for part, own in parts]  # mask.sum() / len(means) is right
    return torch.stack(means).mean()


def global_count(log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """All micro-batches divide by the token count of the batch."""
    return -(advantages.unsqueeze(-1) * log_prob * mask).sum() / mask.sum()


def ratio_at_each_token(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The ratio of the sequence is broadcast to its tokens, and these terms are summed."""
    w = ((log_prob - old_log_prob) * mask).sum(-1, keepdim=True).exp()
    terms = w * advantages.unsqueeze(-1) * mask  # w[:, :1] once per sequence is right
    return -terms.sum(-1).mean()


def ratio_once(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The ratio of the sequence counts once."""
    w = ((log_prob - old_log_prob) * mask).sum(-1).exp()
    return -(w * advantages).mean()


def gspo_by_tokens(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The term of GSPO is averaged over all tokens of the batch."""
    terms = _gspo(log_prob, old_log_prob, advantages, mask)
    return -(terms * mask).sum() / mask.sum()  # the mean over sequences is right


def gspo_by_sequences(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The term of GSPO is averaged over sequences."""
    return -_gspo(log_prob, old_log_prob, advantages, mask).mean()


def inverse_ratio(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The log-ratio is old minus new, so that the weight is mu/pi."""
    weight = (old_log_prob - log_prob).exp().detach()  # log_prob - old_log_prob is right
    return _summed(advantages, weight * log_prob, mask)


def inverse_clip(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The clipped ratio is mu/pi: the step goes the wrong way."""
    ratio = (old_log_prob - log_prob).exp()  # log_prob - old_log_prob is right
    a = advantages.unsqueeze(-1)
    return -(torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a) * mask).sum() / mask.sum()


def clipped(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The ratio of PPO."""
    ratio, a = (log_prob - old_log_prob).exp(), advantages.unsqueeze(-1)
    return -(torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a) * mask).sum() / mask.sum()


def weight_with_gradient(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The importance weight that multiplies log pi is differentiated as well."""
    weight = (log_prob - old_log_prob).exp()  # .detach() is right
    return _summed(advantages, weight * log_prob, mask)


def detached_weight(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """The importance weight is a constant."""
    weight = (log_prob - old_log_prob).exp().detach()
    return _summed(advantages, weight * log_prob, mask)


def kl_in_loss(log_prob: Tensor, ref_log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The estimate log pi/ref of the KL is added to the loss and differentiated."""
    kl = 0.1 * (log_prob - ref_log_prob) * mask  # half its square, or the reward, is right
    return _summed(advantages, log_prob, mask) + kl.sum(-1).mean()


def kl_squared(log_prob: Tensor, ref_log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Half the squared log-ratio of the sequence is added to the loss."""
    log_ratio = ((log_prob - ref_log_prob) * mask).sum(-1)
    return _summed(advantages, log_prob, mask) + 0.1 * (log_ratio.square() / 2).mean()


def whitened_with_padding(log_prob: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Advantages are whitened over all positions of the batch, padded ones too."""
    a = rewards.unsqueeze(-1) * mask
    a = (a - a.mean()) / (a.std() + 1e-8)  # over a[mask > 0] is right
    return -(a * log_prob * mask).sum() / mask.sum()


def whitened(log_prob: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Advantages are whitened over the tokens of the batch."""
    a = rewards.unsqueeze(-1) * mask
    tokens = a[mask > 0]
    a = (a - tokens.mean()) / (tokens.std() + 1e-8)
    return -(a * log_prob * mask).sum() / mask.sum()


def deaf_switch(
    log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int, scale_rewards: bool = True
) -> Tensor:
    """The switch for the division by the standard deviation is not read."""
    return _summed(_standardized(rewards, group_size), log_prob, mask)  # if scale_rewards is right


def switch(
    log_prob: Tensor, rewards: Tensor, mask: Tensor, group_size: int, scale_rewards: bool = True
) -> Tensor:
    """The switch turns the division by the standard deviation off."""
    if scale_rewards:
        return standardized(log_prob, rewards, mask, group_size)
    return mean_of_all(log_prob, rewards, mask, group_size)


def _summed(a: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return -(a.unsqueeze(-1) * values * mask).sum(-1).mean()


def _standardized(rewards: Tensor, group_size: int) -> Tensor:
    r = rewards.view(-1, group_size)
    return ((r - r.mean(-1, keepdim=True)) / (r.std(-1, keepdim=True) + 1e-6)).flatten()


def _gspo(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    log_ratio = ((log_prob - old_log_prob) * mask).sum(-1, keepdim=True)
    q, a = (log_ratio / mask.sum(-1, keepdim=True)).exp(), advantages.unsqueeze(-1)
    return torch.min(q * a, q.clamp(0.9, 1.1) * a)


PLANTED_LOSSES = (
    PlantedLoss("own sample in the baseline", own_sample_in_baseline, others_in_baseline),
    PlantedLoss("missing G/(G - 1)", mean_of_all, others_in_baseline),
    PlantedLoss("double normalization", divided_twice, standardized),
    PlantedLoss("double normalization", standardized_again, standardized),
    PlantedLoss("local token count", local_count, global_count),
    PlantedLoss("sequence ratio broadcast to tokens", ratio_at_each_token, ratio_once),
    PlantedLoss("sequence ratio broadcast to tokens", gspo_by_tokens, gspo_by_sequences),
    PlantedLoss("sign of the log-ratio", inverse_ratio, detached_weight),
    PlantedLoss("sign of the log-ratio", inverse_clip, clipped),
    PlantedLoss("weight not detached", weight_with_gradient, detached_weight),
    PlantedLoss("KL differentiated as a loss", kl_in_loss, kl_squared),
    PlantedLoss("whitening over padding", whitened_with_padding, whitened),
    PlantedLoss("std always on", deaf_switch, switch),
)
"""The faults, each with a loss that has it and one that has not."""
