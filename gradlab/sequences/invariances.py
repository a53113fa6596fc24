"""What a loss must not depend on: padding, order, micro-batches, constants; each with its effect.

The effect is the relative change of the coefficients, |c' - c| / |c|.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from gradlab.sequences.advantages import Raw
from gradlab.sequences.group import Group
from gradlab.sequences.own_loss import LossFunctionError, OwnLoss
from gradlab.sequences.random_batches import (
    padded_longer,
    random_batch,
    relative_change,
    scale_power,
    with_rows,
    with_tables,
)

__all__ = ["Finding", "findings"]

_GIVEN = "the advantages are given"
_BINARY = "the loss sees rewards 0 and 1 alone"
# Changes below are rounding: at least, and in units of the precision of the loss.
SAME, _UNITS = 1e-9, 64.0


def same(own: OwnLoss) -> float:
    """Return the relative change below which nothing has changed, for the precision of a loss.

    Args:
        own: The loss.

    Example:
        >>> same(OwnLoss(lambda log_prob, advantages: -(advantages[:, None] * log_prob).sum()))
        1e-09
    """
    return max(SAME, _UNITS * (own.rounding or 0.0))


@dataclass(frozen=True)
class Finding:
    """Whether one invariance holds.

    Args:
        name: What is changed.
        holds: Whether the coefficients follow as they must; None where it cannot be tried.
        effect: The relative change; nan where numbers are not finite.
        meaning: What it means, in a sentence.

    Example:
        >>> print(Finding("order of samples", True, 0.0, "any order gives the same"))
        holds  order of samples  any order gives the same
    """

    name: str
    holds: bool | None
    effect: float
    meaning: str

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS", None: "-    "}[self.holds]
        effect = "" if self.holds is not False else f" (effect {self.effect:.3g})"
        return f"{mark}  {self.name}{effect}  {self.meaning}"


def findings(own: OwnLoss) -> list[Finding]:
    """Return one finding per invariance.

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, advantages, mask):
        ...     return -(advantages.unsqueeze(-1) * log_prob * mask).sum() / len(mask)
        >>> [found.name for found in findings(OwnLoss(loss)) if found.holds is False]
        []
    """
    group = random_batch(own)
    base = own.coefficients(group)
    found = []
    for check in _CHECKS:
        try:
            found += list(check(own, group, base))
        except LossFunctionError as fault:
            found.append(Finding(_NAMES[check], False, math.nan, str(fault)))
    return found


def _finding(own: OwnLoss, name: str, effect: float, good: str, bad: str) -> Finding:
    holds = effect < same(own)
    return Finding(name, holds, effect, good if holds else bad)


def _padding_content(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    other = with_tables(group, lambda x: torch.where(group.mask, x, 0.7 * x.flip(1) - 1.0))
    whole = own.gradient(lambda leaf: own.loss(group, leaf), group.log_prob)
    outside = relative_change(whole, torch.where(group.mask, whole, 0.0))
    inside = relative_change(own.coefficients(other), base)
    effect = inside + outside  # NaN where one of them is
    yield _finding(
        own,
        "padding content",
        effect,
        "what stands in padded positions does not matter",
        "padded positions enter the loss: a mask is missing",
    )


def _padding_length(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    found = padded_longer(own, group)
    effect = relative_change(found, base)
    factor = float((found * base).sum() / base.square().sum())
    constant = relative_change(found, factor * base) < same(own)
    why = (
        f"the estimate is divided by the padded length (factor {factor:.4g}): give a constant one"
        if constant
        else "statistics or means run over padding: the estimate changes with the longest sequence"
    )
    yield _finding(own, "padding length", effect, "longer padding changes nothing", why)


def _order_of_samples(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    order = torch.arange(group.size).roll(1)
    order[:2] = order[:2].flip(0)
    found = own.coefficients(with_rows(group, lambda x: x[:, order]))
    yield _finding(
        own,
        "order of samples",
        relative_change(found, base[:, order]),
        "any order of the samples of a group gives the same",
        "the order of the samples matters: neighbours are averaged together, or rows are mixed up",
    )


def _order_of_groups(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if len(base) == 1:
        yield Finding("order of groups", None, 0.0, "the loss knows one group only")
        return
    order = torch.tensor([2, 0, 1])
    found = own.coefficients(with_rows(group, lambda x: x[order]))
    yield _finding(
        own,
        "order of groups",
        relative_change(found, base[order]),
        "any order of the prompts gives the same",
        "the order of the prompts matters",
    )


def _micro_batches(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if len(base) == 1:
        yield Finding("micro-batches", None, 0.0, "the loss knows one group only")
        return
    whole = {
        "tokens": int(group.lengths.sum()),
        "sequences": group.lengths.numel(),
        "horizon": group.horizon,
    }
    # Advantages are computed before the batch is split, as trainers do it.
    fixed, given = own, group
    if not own.takes_rewards:
        fixed = replace(own, advantage=Raw())
        advantages = own.advantage.of_rewards(group.rewards, group.lengths, None)
        given = replace(group, rewards=advantages)
    parts = []
    for i in range(len(base)):
        part = with_rows(given, itemgetter(slice(i, i + 1)))
        parts.append(fixed.gradient(partial(_loss_of_part, fixed, part, whole), part.log_prob))
    found = torch.where(group.mask, torch.cat(parts), 0.0)
    uses = set(own.kinds.values()) & {"tokens", "sequences", "everything"}
    effect = relative_change(found if uses else found / len(base), base)
    if uses and not effect < same(own):  # the sum, or the mean, may be what the trainer takes
        effect = min(effect, relative_change(found / len(base), base))
    yield _finding(
        own,
        "micro-batches",
        effect,
        "accumulating micro-batches gives the whole batch",
        "split into micro-batches the estimate is another: each divides by its own token count, or "
        "has its own statistics; hand the counts of the whole batch to it",
    )


def _loss_of_part(own: OwnLoss, part: Group, whole: dict[str, int], leaf: Tensor) -> Tensor:
    return own.loss(part, leaf, None, changed=None, **whole)


def _duplicated(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if len(base) == 1:
        yield Finding("duplicated batch", None, 0.0, "the loss knows one group only")
        return
    found = own.coefficients(with_rows(group, lambda x: torch.cat([x, x])))
    effect = relative_change(found[:3] + found[3:], base)
    twice = relative_change(found[:3] + found[3:], 2 * base) < same(own)
    yield _finding(
        own,
        "duplicated batch",
        effect,
        "the same batch twice gives the same estimate",
        "the loss is a sum over the batch, so the step grows with it"
        if twice
        else "the same batch twice gives another estimate: a statistic of the batch is not a mean",
    )


def _constant(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if not own.takes_rewards:
        yield Finding("constant added to rewards", None, 0.0, _GIVEN)
        return
    if own.binary:
        yield Finding("constant added to rewards", None, 0.0, _BINARY)
        return
    found = own.coefficients(replace(group, rewards=group.rewards + 10.0))
    effect = relative_change(found, base)
    yield _finding(
        own,
        "constant added to rewards",
        effect if effect > max(1e-7, same(own)) else 0.0,
        "the same constant in all rewards changes nothing",
        "no baseline takes a constant out of the rewards: the variance grows with it",
    )


def _scale(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    what = "rewards" if own.takes_rewards else "advantages"
    if own.binary:
        yield Finding(f"scale of {what}", None, 0.0, _BINARY)
        return
    power = scale_power(own if own.takes_rewards else replace(own, advantage=Raw()), group)
    near = round(power) if math.isfinite(power) else None
    if near == 1:
        said = f"the estimate scales as the {what} do"
    elif near == 0:
        said = "the scale of the rewards is divided out: each prompt counts alike, easy or hard"
    elif near == -1:
        said = "larger rewards give smaller steps: they are divided by their deviation twice"
    else:
        said = f"the estimate scales as no usual power of the {what} (power {power:.3g})"
    holds = near in (0, 1)
    yield Finding(f"scale of {what}", holds, abs(power - (near if near and holds else 0)), said)


def _equal_rewards(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    worst = 0.0
    free = replace(group, rollout_log_prob=group.log_prob, reference_log_prob=group.log_prob)
    for value in (0.1, 1.0):
        equal = replace(free, rewards=torch.full_like(group.rewards, value))
        found = own.coefficients(equal)
        if not bool(found.isfinite().all()):
            worst = math.nan
            break
        worst = max(worst, float(found.norm() / base.norm()))
    if math.isnan(worst):
        said = "all-equal rewards give NaN: 0/0 in the scale"
    else:
        said = "all-equal rewards still move the policy"
    effect = 0.0 if worst < max(1e-6, same(own)) else worst
    yield _finding(own, "all-equal rewards", effect, "all-equal rewards give no update", said)


def _group_of_one(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if not own.takes_rewards:
        yield Finding("group of one", None, 0.0, _GIVEN)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.std
        found = own.coefficients(with_rows(group, lambda x: x[:, :1]))
    holds = bool(found.isfinite().all())
    said = "a group of one gives finite numbers" if holds else "a group of one gives NaN"
    yield Finding("group of one", holds, 0.0 if holds else math.nan, said)


def _impossible(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    bad = []
    for name in ("log_prob", "reference_log_prob"):
        table = getattr(group, name).clone()
        table[0, 0, 1] = -torch.inf
        found = own.coefficients(replace(group, **{name: table}))
        if not bool(found.isfinite().all()):
            bad.append(name)
    holds = not bad
    said = "a token of probability 0 gives finite numbers"
    yield Finding(
        "-inf log-probabilities",
        holds,
        0.0 if holds else math.nan,
        said if holds else f"-inf in {' and '.join(bad)} gives NaN or inf",
    )


def _masked_tokens(own: OwnLoss, group: Group, base: Tensor) -> Iterator[Finding]:
    if "mask" not in own.kinds.values() and "everything" not in own.kinds.values():
        yield Finding("masked tokens", None, 0.0, "the loss takes no mask")
        return
    mask = group.mask.clone()
    mask[0, 0, 2:4] = False  # such as the output of a tool

    def at(log_prob: Tensor) -> Tensor:
        given = replace(group, log_prob=log_prob)
        return own.gradient(lambda leaf: own.loss(given, leaf, mask), log_prob)

    one = at(group.log_prob)
    moved = group.log_prob.clone()
    moved[0, 0, 2:4] -= 0.5
    two = at(moved)
    effect = max(float(one[0, 0, 2:4].abs().max()), relative_change(two, one))
    yield _finding(
        own,
        "masked tokens",
        effect,
        "tokens that are masked in the middle neither move nor matter",
        "tokens that are masked in the middle still enter the loss",
    )


_NAMES = {
    _padding_content: "padding content",
    _padding_length: "padding length",
    _order_of_samples: "order of samples",
    _order_of_groups: "order of groups",
    _micro_batches: "micro-batches",
    _duplicated: "duplicated batch",
    _constant: "constant added to rewards",
    _scale: "scale of rewards",
    _equal_rewards: "all-equal rewards",
    _group_of_one: "group of one",
    _impossible: "-inf log-probabilities",
    _masked_tokens: "masked tokens",
}
_CHECKS = tuple(_NAMES)
