"""Random training batches that losses are put to, and how their coefficients change with them."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradlab.sequences.group import Group
from gradlab.sequences.own_loss import OwnLoss

__all__ = [
    "TABLES",
    "padded_longer",
    "random_batch",
    "relative_change",
    "scale_power",
    "with_rows",
    "with_tables",
]


def random_batch(
    own: OwnLoss,
    seed: int = 0,
    *,
    t: int = 7,
    on_policy: bool = False,
    equal: bool = False,
    spread: float = 0.15,
) -> Group:
    """Return a random training batch: three prompts, or one where the loss knows no groups.

    Args:
        own: The loss that it is for.
        seed: Of all numbers.
        t: The length with padding.
        on_policy: Whether all policies are the same.
        equal: Whether all lengths are.
        spread: Deviation of the log-ratio of a token.

    Example:
        >>> own = OwnLoss(lambda log_prob, rewards: -(rewards.unsqueeze(-1) * log_prob).sum())
        >>> random_batch(own).rewards.shape
        torch.Size([1, 4])
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (3 if own.knows_groups else 1, own.g)

    def draw(*more: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, *more, generator=generator, dtype=torch.float64)

    log_prob = -0.2 - 2 * torch.rand(*shape, t, generator=generator, dtype=torch.float64)
    apart = 0.0 if on_policy else 1.0
    lengths = torch.randint(2, t + 1, shape, generator=generator)
    lengths[0, 0], lengths[0, -1] = t, 2
    rewards = draw(scale=1.0)
    if own.binary:
        rewards = (rewards > 0).to(rewards.dtype)
        rewards[:, :2] = torch.tensor([1.0, 0.0])[: own.g]  # no group has equal rewards
    return Group(
        rewards,
        torch.full(shape, t) if equal else lengths,
        log_prob,
        log_prob + apart * draw(t, scale=spread),
        log_prob + apart * draw(t, scale=0.3),
        prompts=True,
    )


def relative_change(found: Tensor, wanted: Tensor) -> float:
    """Return |found - wanted| / |wanted|, nan where a number is not finite.

    Args:
        found: Coefficients.
        wanted: What they should be.

    Example:
        >>> relative_change(torch.tensor([3.0]), torch.tensor([2.0]))
        0.5
    """
    if not bool(found.isfinite().all()):
        return math.nan
    size = float(wanted.norm())
    return float((found - wanted).norm()) / (size or 1.0)


TABLES = ("log_prob", "rollout_log_prob", "reference_log_prob")


def with_tables(group: Group, change: Callable[[Tensor], Tensor]) -> Group:
    """Return the group with all its tables [B, G, T] changed alike.

    Args:
        group: The sequences.
        change: What is done to each table.

    Example:
        >>> group = Group(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), torch.zeros(1, 2, 2))
        >>> group = Group(*[group.rewards, group.lengths, *[group.log_prob] * 3], prompts=True)
        >>> with_tables(group, lambda x: x - 1).log_prob.mean()
        tensor(-1.)
    """
    changed: dict[str, Any] = {name: change(getattr(group, name)) for name in TABLES}
    return replace(group, **changed)


def with_rows(group: Group, pick: Callable[[Tensor], Tensor]) -> Group:
    """Return the group with other prompts or samples.

    Args:
        group: The sequences.
        pick: What is done to each tensor.

    Example:
        >>> group = Group(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), torch.zeros(1, 2, 2))
        >>> group = Group(*[group.rewards, group.lengths, *[group.log_prob] * 3], prompts=True)
        >>> with_rows(group, lambda x: x[:, :1]).rewards
        tensor([[1.]])
    """
    names = (*TABLES, "rewards", "lengths")
    changed: dict[str, Any] = {name: pick(getattr(group, name)) for name in names}
    return replace(group, **changed)


def padded_longer(own: OwnLoss, group: Group, more: int = 3) -> Tensor:
    """Return the coefficients where all is padded with more positions, without those.

    Args:
        own: The loss.
        group: The sequences.
        more: How many positions.

    Example:
        >>> def loss(log_prob, rewards, mask):
        ...     return -(rewards.unsqueeze(-1) * log_prob * mask).sum()
        >>> own = OwnLoss(loss)
        >>> padded_longer(own, random_batch(own)).shape
        torch.Size([1, 4, 7])
    """
    longer = with_tables(group, lambda x: torch.cat([x, x[..., :more]], -1))
    weighed = own.gradient(
        lambda leaf: own.loss(longer, leaf, horizon=group.horizon), longer.log_prob
    )
    return torch.where(group.mask, weighed[..., : group.horizon], 0.0)


def scale_power(own: OwnLoss, group: Group) -> float:
    """Return k where rewards times s give an estimate times s^k; nan where there is no such k.

    Args:
        own: The loss.
        group: The sequences; terms without rewards are taken off.

    Example:
        >>> def loss(log_prob, rewards, mask):
        ...     return -(rewards.unsqueeze(-1) * log_prob * mask).sum()
        >>> own = OwnLoss(loss)
        >>> scale_power(own, random_batch(own))
        1.0
    """
    zero = own.coefficients(replace(group, rewards=torch.zeros_like(group.rewards)))
    zero = torch.where(zero.isfinite(), zero, 0.0)
    one, four = (
        own.coefficients(replace(group, rewards=s * group.rewards)) - zero for s in (1.0, 4.0)
    )
    power = math.log(float(four.norm() / one.norm())) / math.log(4)
    return power if relative_change(four, 4**power * one) < 1e-2 else math.nan
