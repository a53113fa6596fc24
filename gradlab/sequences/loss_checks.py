"""Whether a loss can be examined: the same twice, finite, moved by rewards; or a sentence."""

from dataclasses import replace

import torch
from torch import Tensor

from gradlab.sequences.loss_calls import LossFunctionError
from gradlab.sequences.loss_parts import plain
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.random_batches import random_batch

__all__ = ["changed_arguments", "check_loss", "infinite_padding", "steps_in_rewards"]


def check_loss(own: OwnLoss) -> None:
    """Raise LossFunctionError with the reason where a loss cannot be examined.

    Args:
        own: The loss.

    Raises:
        LossFunctionError: It draws random numbers or keeps a state, gives NaN on ordinary input,
            has gradient 0, or does not depend on rewards or advantages.

    Example:
        >>> check_loss(OwnLoss(lambda log_prob, advantages: 0 * log_prob.sum()))
        Traceback (most recent call last):
        gradlab.sequences.loss_calls.LossFunctionError: the gradient of the loss is 0 at all tokens
    """
    group = random_batch(own)
    state = torch.random.get_rng_state()
    first = own.coefficients(group)
    draws = not torch.equal(state, torch.random.get_rng_state())
    second = own.coefficients(group)
    torch.random.set_rng_state(state)
    apart = float((first.nan_to_num() - second.nan_to_num()).norm())
    if apart > 1e-6 * float(first.nan_to_num().norm()):
        raise LossFunctionError(
            f"the loss has another gradient at a second call with the same arguments, {apart:.2g} "
            "away: it draws random numbers or keeps a state between calls. Turn dropout off, and "
            "give what it keeps in settings"
        )
    if draws:
        raise LossFunctionError(
            "the loss draws random numbers: turn dropout and random choices off, so that its "
            "gradient depends on its arguments alone"
        )
    bad = ~first.isfinite()
    if bad.any():
        raise LossFunctionError(
            f"the loss gives NaN or inf at {int(bad.sum())} of {int(group.mask.sum())} tokens of "
            "ordinary groups: look for 0/0, the logarithm of 0, or a product of 0 and inf"
        )
    if not first.any():
        alone = (
            ": in a group of one all advantages relative to the group are 0; take groups of at "
            "least 2 (g=2, --group 2)"
        )
        raise LossFunctionError(
            f"the gradient of the loss is 0 at all tokens{alone if own.g == 1 else ''}"
        )
    _check_moved(own, first)


def _check_moved(own: OwnLoss, first: Tensor) -> None:
    group = random_batch(own)
    rewards = 1 - group.rewards if own.binary else group.rewards.flip(-1) - 0.3
    other = own.coefficients(replace(group, rewards=rewards))
    if float((other - first).norm()) > 1e-9 * float(first.norm()):
        return
    kinds = set(own.kinds.values())
    if not kinds & {"advantages", "rewards", "token_rewards", "everything"}:
        raise LossFunctionError(
            "the loss takes neither advantages nor rewards, so it is no policy gradient: give it "
            "an argument advantages or rewards"
        )
    what = "rewards" if own.takes_rewards else "advantages"
    raise LossFunctionError(
        f"the gradient of the loss does not depend on the {what}: it is that of log pi alone, "
        "whose mean is 0"
    )


def changed_arguments(own: OwnLoss) -> tuple[str, ...]:
    """Return the arguments that a call changes in place.

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, advantages):
        ...     advantages -= advantages.mean()
        ...     return -(advantages[:, None] * log_prob).sum()
        >>> changed_arguments(OwnLoss(loss))
        ('advantages',)
    """
    changed: set[str] = set()
    own = plain(own)  # the mean of its advantages is not 0, so that it can be taken off
    group = random_batch(own)
    with torch.enable_grad():
        own.loss(group, group.log_prob.clone().requires_grad_(), changed=changed)
    return tuple(sorted(changed))


def infinite_padding(own: OwnLoss) -> str:
    """Return what is not finite because of padding: the "gradient" there, the "value", or "".

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, advantages, mask):
        ...     return -(advantages[:, None] * (log_prob / mask) * mask).sum()
        >>> infinite_padding(OwnLoss(loss))
        'gradient'
    """
    group = random_batch(own)
    with torch.enable_grad():
        leaf = group.log_prob.clone().requires_grad_()
        value = own.loss(group, leaf)
        slope = own.gradient(lambda x: own.loss(group, x), group.log_prob)
    if not bool(slope[~group.mask].isfinite().all()):
        return "gradient"
    return "" if bool(value.isfinite()) else "value"


def steps_in_rewards(own: OwnLoss) -> bool:
    """Return whether rewards are rounded or compared: a small change of all changes nothing.

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, rewards, mask):
        ...     return -(rewards.round()[:, None] * log_prob * mask).sum()
        >>> steps_in_rewards(OwnLoss(loss))
        True
    """
    if not own.takes_rewards or own.binary:
        return False
    group = random_batch(own)
    base = own.coefficients(group)
    apart = torch.linspace(-1e-4, 1e-4, group.rewards.numel(), dtype=group.rewards.dtype)
    other = own.coefficients(replace(group, rewards=group.rewards + apart.view_as(group.rewards)))
    return bool((other == base).all())
