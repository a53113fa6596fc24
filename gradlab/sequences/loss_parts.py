"""The parts of an unknown loss: its advantage, its aggregation, its KL term.

Each part is measured where the others are silent, and compared with those of the catalogue.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.sequences.advantages import (
    Advantage,
    Centred,
    LeaveOneOut,
    LengthWeighted,
    Raw,
)
from gradlab.sequences.aggregation import (
    Aggregation,
    Constant,
    LocalTokenMean,
    SequenceMean,
    Sum,
    TokenMean,
)
from gradlab.sequences.faulty_advantages import BatchCentred, NormalizedAgain, StdTwice
from gradlab.sequences.group import Group
from gradlab.sequences.kl_terms import K1, K2, K3, K1Prefix, K1Ratio, K3Ratio, KLTerm, NoKL
from gradlab.sequences.normalized_advantages import (
    BatchStd,
    GroupStd,
    NonzeroScaled,
    TokenWhitened,
)
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.random_batches import random_batch
from gradlab.sequences.ratios import DRO, Score
from gradlab.sequences.shrunk_advantages import Shrunk
from gradlab.sequences.success_advantages import MaximumLikelihood, MaxMinusSecond, PassAtK

__all__ = ["Frame", "Own", "frame_of", "of_rewards", "own_of", "plain"]

# What may be left of a part that is recognized; constants such as 1e-8 differ between trainers.
FITS = 1e-4
# The largest constant that a sum over tokens is taken to be divided by.
_LONGEST = 2**17


_EPS = (0.0, 1e-4, 1e-6, 1e-8, 1e-5)
_ADVANTAGES: tuple[Advantage, ...] = (
    *(LeaveOneOut(), Centred(), *(GroupStd(eps) for eps in _EPS), Raw(), LengthWeighted()),
    *(BatchStd(eps) for eps in (0.0, 1e-4)),
    *(TokenWhitened(c, e) for c in (False, True) for e in (0.0, 1e-8)),
    *(NonzeroScaled(), MaxMinusSecond(), PassAtK(2), MaximumLikelihood()),
    *(Shrunk(e) for e in (0.0, 1e-6)),
    *(BatchCentred(), *(StdTwice(e) for e in _EPS), *(NormalizedAgain(e) for e in _EPS)),
)


@dataclass(frozen=True)
class Frame:
    """What weighs whole sequences on policy: advantage, aggregation, and a power of the length.

    Args:
        advantage: The advantage; `raw` where advantages are given.
        aggregation: The aggregation.
        power: k, where each sequence also counts n^k times.
        factor: What the estimate is to be divided by.
        residual: The relative difference that is left.
        rounding: The relative precision that the loss computes in.

    Example:
        >>> Frame(Raw(), Sum(), 0, 1.0, 0.0).known
        True
    """

    advantage: Advantage
    aggregation: Aggregation
    power: int
    factor: float
    residual: float
    rounding: float = 0.0

    @property
    def known(self) -> bool:
        """Whether nothing is left."""
        return self.residual < max(FITS, 8 * self.rounding)


def plain(own: OwnLoss) -> OwnLoss:
    """Return the loss whose advantages, where it takes them, are the rewards of a group.

    Args:
        own: The loss.

    Example:
        >>> plain(OwnLoss(lambda log_prob, adv: -(adv.unsqueeze(-1) * log_prob).sum())).advantage
        raw
    """
    return own if own.takes_rewards else replace(own, advantage=Raw())


def _own(own: OwnLoss, group: Group) -> Tensor:
    """Return the coefficients that do not come from rewards."""
    zero = own.coefficients(replace(group, rewards=torch.zeros_like(group.rewards)))
    return torch.where(zero.isfinite(), zero, 0.0)


def of_rewards(own: OwnLoss, group: Group) -> Tensor:
    """Return the coefficients that come from rewards.

    Args:
        own: The loss.
        group: The sequences.

    Example:
        >>> own = OwnLoss(lambda log_prob, rewards: (log_prob - rewards[:, None] * log_prob).sum())
        >>> group = Group(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 1]]), torch.zeros(1, 2, 1))
        >>> of_rewards(own, group).flatten()
        tensor([1., 0.])
    """
    return own.coefficients(group) - _own(own, group)


def frame_of(own: OwnLoss) -> Frame:
    """Return the advantage and the aggregation that explain the coefficients on policy.

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, rewards, mask):
        ...     a = (rewards - rewards.mean()).unsqueeze(-1)
        ...     return -(a * log_prob * mask).sum() / mask.sum()
        >>> found = frame_of(OwnLoss(loss))
        >>> found.advantage, found.aggregation, found.known
        (centred, TOK, True)
    """
    own = plain(own)
    groups = [random_batch(own, seed, on_policy=True) for seed in (1, 2)]
    binary = (groups[1].rewards > 0).double()
    binary[:, :2] = torch.tensor([1.0, 0.0])[: own.g]  # no group has equal rewards
    groups.append(replace(groups[1], rewards=binary))
    measured = torch.stack([of_rewards(own, group) for group in groups])
    rounding = own.rounding or 0.0
    best = Frame(Raw(), Sum(), 0, 1.0, math.inf, rounding)
    for advantage, aggregation, power in _frames(own):
        wanted = torch.stack([_weighed(group, advantage, aggregation, power) for group in groups])
        factor = float((measured * wanted).sum() / wanted.square().sum().clamp(min=1e-300))
        residual = float((measured - factor * wanted).norm() / measured.norm().clamp(min=1e-300))
        found = Frame(advantage, aggregation, power, factor, residual, rounding)
        if found.known and best.known:
            # Of forms that differ by a factor alone, that whose factor is nearest to 1.
            nearer = _far(best) - _far(found)
            if nearer > 1e-3 or (nearer > -1e-3 and residual < 0.1 * best.residual - 1e-13):
                best = found
        elif residual < 0.1 * best.residual or (not best.known and residual < best.residual):
            best = found
    return _with_constant(best, groups[0].horizon)


def _with_constant(frame: Frame, horizon: int) -> Frame:
    """Return the frame with CONST(length=L) where its factor is 1 over a whole number."""
    if not isinstance(frame.aggregation, Sum | Constant) or not 0 < frame.factor < 0.9:
        return frame
    whole = horizon if isinstance(frame.aggregation, Constant) else 1
    length = whole / frame.factor
    if abs(length - round(length)) > 1e-6 * length or not 3 <= round(length) <= _LONGEST:
        return frame
    return replace(frame, aggregation=Constant(round(length)), factor=1.0)


def _far(frame: Frame) -> float:
    """Return how far a factor is from 1; a power of ten is a change of units, and is near."""
    digits = math.log10(abs(frame.factor) or 1e-300)
    if abs(digits) > 2 and abs(digits - round(digits)) < 1e-6:
        return 0.0
    return abs(digits) * math.log(10)


def _frames(own: OwnLoss) -> Iterator[tuple[Advantage, Aggregation, int]]:
    advantages = _ADVANTAGES if own.takes_rewards else (Raw(),)
    local = (LocalTokenMean(), *(LocalTokenMean(m) for m in (1, 2, 3, 4, 6)))
    aggregations = (Sum(), SequenceMean(), TokenMean(), Constant(), *local)
    for power, aggregation, advantage in itertools.product((0, 1, -1), aggregations, advantages):
        yield advantage, aggregation, power


def _weighed(group: Group, advantage: Advantage, aggregation: Aggregation, power: int) -> Tensor:
    a = advantage.of_group(group, group.rewards).squeeze(-1)
    scale = aggregation.weights(group.lengths, group.horizon) * group.lengths.double() ** power
    return (a * scale).unsqueeze(-1) * group.mask


@dataclass(frozen=True)
class Own:
    """What a loss does without rewards: a KL term, or the penalty of DRO.

    Args:
        kl: The term with its weight, or None where nothing of the catalogue explains it.
        dro: The weight of the penalty to the rollout policy.
        size: Its length over that of the whole estimate.
        residual: The relative difference that is left.

    Example:
        >>> Own(None, 0.0, 0.0, 0.0).silent
        True
    """

    kl: KLTerm | None
    dro: float
    size: float
    residual: float

    @property
    def silent(self) -> bool:
        """Whether there is none."""
        return self.size < FITS


def own_of(own: OwnLoss, frame: Frame) -> Own:
    """Return the term without rewards that explains the coefficients at zero rewards.

    Args:
        own: The loss.
        frame: Its aggregation.

    Example:
        >>> def loss(log_prob, ref_log_prob, advantages, mask):
        ...     kl = 0.1 * (log_prob - ref_log_prob) ** 2 / 2
        ...     return ((kl - advantages.unsqueeze(-1) * log_prob) * mask).sum() / len(mask)
        >>> own = OwnLoss(loss)
        >>> own_of(own, frame_of(own)).kl
        k2(beta=0.1)
    """
    group = random_batch(own, 3)
    measured = _own(own, group)
    size = float(measured.norm() / own.coefficients(group).norm())
    best = Own(None, 0.0, size, 1.0 if size else 0.0)
    if best.silent:
        return best
    aggregations = [frame.aggregation, Sum(), SequenceMean(), TokenMean(), Constant()]
    linear = isinstance(frame.advantage, LeaveOneOut | Centred | Raw) and own.takes_rewards
    places: list[Callable[..., KLTerm]] = [K1, K2, K3] if linear else []
    terms: list[KLTerm | None] = [
        *(k(1.0, "reward", per) for k in places for per in ("sequence", "token")),
        *(K3(1.0), K2(1.0), K1(1.0), K3Ratio(1.0), K1Ratio(1.0), K1Prefix(1.0)),
        *(K2(1.0, per="sequence"), K3(1.0, per="sequence"), None),
    ]
    silent = replace(group, rewards=torch.zeros_like(group.rewards))
    for aggregation, term in itertools.product(aggregations, terms):
        in_reward = term is not None and term.place == "reward"
        estimator = PolicyGradient(
            frame.advantage if in_reward else Raw(),
            aggregation,
            DRO(1.0) if term is None else Score(),
            term or NoKL(),
        )
        wanted = estimator.coefficients(silent)
        beta = float((measured * wanted).sum() / wanted.square().sum())
        residual = float((measured - beta * wanted).norm() / measured.norm())
        if best.residual > 1e-9 and residual < 0.1 * best.residual:
            short = float(f"{beta / frame.factor:.6g}")
            if term is None:
                best = Own(None, short, size, residual)
            else:
                best = Own(replace(term, beta=short), 0.0, size, residual)  # type: ignore[type-var]
    return best
