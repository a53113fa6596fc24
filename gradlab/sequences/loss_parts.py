"""The parts of an unknown loss: its advantage, its aggregation, its ratio with a clip, its KL term.

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

__all__ = [
    "Frame",
    "Own",
    "Response",
    "frame_of",
    "left_out_at",
    "of_rewards",
    "own_of",
    "plain",
    "response_of",
]

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


@dataclass(frozen=True)
class Response:
    """How the weight of a token answers to the log-ratio of a token, for one sign of A.

    Args:
        own: d log|c_t| / d log r_t on policy.
        later: The same for c of a later token.
        earlier: The same for c of an earlier token.
        low: The smallest ratio down to which c follows that power; 0 where there is none.
        high: The largest one, or inf.
        beyond: |c| above `high`, over c on policy: 0 where it is cut off.
        below: The same below `low`.

    Example:
        >>> Response(1.0, 0.0, 0.0, 0.0, 1.2, 0.0, 0.0).level
        'token'
    """

    own: float
    later: float
    earlier: float
    low: float
    high: float
    beyond: float
    below: float

    @property
    def level(self) -> str:
        """none, token, prefix, sequence or geometric; "inverse" where c falls as r grows."""
        if abs(self.own) < 1e-4:
            return "none"
        if self.own < 0:
            return "inverse"
        if abs(self.later) < 1e-4:
            return "token"
        if abs(self.earlier) < 1e-4:
            return "prefix"
        return "sequence" if self.own > 0.7 else "geometric"


def response_of(own: OwnLoss, sign: int) -> Response:
    """Return how weights answer to ratios, for an advantage of this sign.

    Args:
        own: The loss.
        sign: 1 or -1.

    Example:
        >>> def loss(log_prob, old_log_prob, advantages, mask):
        ...     r, a = (log_prob - old_log_prob).exp(), advantages.unsqueeze(-1)
        ...     return -(torch.min(r * a, r.clamp(0.8, 1.3) * a) * mask).sum() / mask.sum()
        >>> found = response_of(OwnLoss(loss), 1)
        >>> found.level, round(found.high, 6), found.beyond
        ('token', 1.3, 0.0)
    """
    own = plain(own)
    group = random_batch(own, 4, on_policy=True, equal=True)
    base = of_rewards(own, group)
    sizes = torch.where(base[..., 2].sign() == sign, base[..., 2].abs(), -1.0)
    at = (int(sizes.argmax()) // group.size, int(sizes.argmax()) % group.size)

    def weights(x: float) -> Tensor:
        rollout = group.log_prob.clone()
        rollout[at][2] -= x
        moved = of_rewards(own, replace(group, rollout_log_prob=rollout))
        return moved[at] / base[at]

    rounding = own.rounding or 0.0
    step = max(1e-5, rounding ** (1 / 3))
    up, down = weights(step), weights(-step)
    slopes = (up.abs().log() - down.abs().log()) / (2 * step)
    noise = 8 * rounding / step
    slopes = torch.where(slopes.abs() < noise, 0.0, slopes) if noise > 1e-6 else slopes
    own_slope, later, earlier = (float(slopes[t]) for t in (2, 4, 0))
    power = float(round(own_slope * group.horizon)) / group.horizon

    def follows(x: float) -> bool:
        wanted = math.exp(power * x)
        return abs(float(weights(x)[2]) - wanted) < max(1e-9, 16 * rounding) * wanted

    span = 4.0 / max(abs(power), 0.1)
    high, low = _edge(follows, span), _edge(follows, -span)
    beyond, below = (
        float(weights(x * 1.2)[2]) if math.isfinite(x) else math.nan for x in (high, low)
    )
    scale = power if power else 1.0
    bounds = (0.0 if low == -math.inf else math.exp(scale * low), math.exp(scale * high))
    return Response(own_slope, later, earlier, bounds[0], bounds[1], beyond, below)


def left_out_at(own: OwnLoss) -> float:
    """Return the mean of log mu/pi above which sequences of negative advantage are left out.

    Args:
        own: The loss.

    Returns:
        It; inf where all sequences count.

    Example:
        >>> def loss(log_prob, old_log_prob, advantages):
        ...     kept = (advantages > 0) | ((old_log_prob - log_prob).mean(-1) < 0.05)
        ...     return -((advantages * kept)[:, None] * log_prob).sum()
        >>> round(left_out_at(OwnLoss(loss)), 6)
        0.05
    """
    own = plain(own)
    group = random_batch(own, 4, on_policy=True, equal=True)
    base = of_rewards(own, group)
    at = divmod(int(base[..., 0].argmin()), group.size)

    def counts(x: float) -> bool:
        rollout = group.log_prob.clone()
        rollout[at] += x
        return bool(of_rewards(own, replace(group, rollout_log_prob=rollout))[at].any())

    return _edge(counts, 4.0)


def _edge(follows, far: float) -> float:  # type: ignore[no-untyped-def]
    """Return where a weight stops to follow its power, on the way to `far`; inf if nowhere."""
    if follows(far):
        return math.copysign(math.inf, far)
    inside, outside = 0.0, far
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if follows(middle) else (inside, middle)
    return inside
