"""Which estimator of the catalogue a loss is: its parts put together, proved on random groups."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradlab.sequences.advantages import Centred, LeaveOneOut
from gradlab.sequences.aggregation import SequenceMean, Sum
from gradlab.sequences.catalogue import ESTIMATORS
from gradlab.sequences.kl_terms import NoKL
from gradlab.sequences.loss_parts import Frame, Own, plain
from gradlab.sequences.loss_responses import Response, left_out_at
from gradlab.sequences.normalized_advantages import GroupStd
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.random_batches import random_batch
from gradlab.sequences.ratios import (
    DPPO,
    DRO,
    PPO,
    SAPO,
    VESPO,
    CISPOBand,
    CISPOCap,
    PolicyLoss,
    Score,
)
from gradlab.sequences.selected_losses import OPSM, ClipCov, KLCov
from gradlab.sequences.sequence_losses import GMPO, GSPO, LUSPO, SequencePPO

__all__ = ["Match", "match_of", "named"]

SAME = 1e-6
# Advantages that are tried where a loss hides its own.
_USUAL = (GroupStd(), GroupStd(1e-6), LeaveOneOut(), Centred())


@dataclass(frozen=True)
class Match:
    """The estimator whose coefficients are nearest to those of a loss.

    Args:
        estimator: It; its advantage is `raw` where the loss is given advantages.
        factor: The coefficients are this times those of the estimator.
        residual: The relative difference that is left, on random groups off policy.
        given: Whether the advantages are given to the loss.
        rounding: The relative precision that the loss computes in.

    Example:
        >>> print(Match(ESTIMATORS["RLOO"], 1.0, 0.0, False))
        this is RLOO
    """

    estimator: PolicyGradient
    factor: float
    residual: float
    given: bool
    rounding: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing is left."""
        return self.residual < max(SAME, 8 * self.rounding)

    def __str__(self) -> str:
        e = self.estimator
        if self.given:
            parts = [str(e.loss), f"aggregation {e.aggregation}"]
            parts += [] if isinstance(e.kl, NoKL) else [f"KL {e.kl}"]
            shown = ", ".join(parts) + " of the advantages that it is given"
        else:
            shown = str(e)
        times = (
            ""
            if abs(self.factor - 1) < max(SAME, 8 * self.rounding)
            else f" times {self.factor:.6g}"
        )
        if self.exact:
            return f"this is {shown}{times}"
        left = "nothing of it" if not math.isfinite(self.residual) else f"{self.residual:.2g} of it"
        return f"no estimator of the catalogue; the nearest is {shown}{times}, which leaves {left}"


def named(estimator: PolicyGradient) -> PolicyGradient:
    """Return the estimator under the published name that needs the fewest changes.

    Args:
        estimator: Any composition.

    Example:
        >>> named(PolicyGradient("group-std", "SEQ", "PPO", "k3"))
        GRPO(kl=k3)
    """
    best = min(ESTIMATORS.values(), key=lambda base: _changes(base, estimator))
    seen: dict[str, Any] = {"g": best.g, "resample": best.resample}  # coefficients do not show them
    if _changes(best, estimator) > 6:
        return replace(estimator, name="PG", source="")
    return replace(estimator, name=best.name, source=best.source, **seen)


def _changes(base: PolicyGradient, estimator: PolicyGradient) -> int:
    """Return how much of an estimator is to be changed; advantage and loss say most."""
    weights = {"advantage": 5, "loss": 3, "aggregation": 1, "kl": 1}
    return sum(w for part, w in weights.items() if getattr(base, part) != getattr(estimator, part))


def match_of(own: OwnLoss, frame: Frame, term: Own, up: Response, down: Response) -> Match:
    """Return the nearest estimator.

    Args:
        own: The loss.
        frame: Its advantage and aggregation.
        term: What it does without rewards.
        up: Its response to ratios where A > 0.
        down: The same where A < 0.

    Example:
        >>> from gradlab.sequences.loss_parts import frame_of, own_of
        >>> from gradlab.sequences.loss_responses import response_of
        >>> def loss(log_prob, rewards, mask):
        ...     a = (rewards - rewards.mean()).unsqueeze(-1)
        ...     return -(a * log_prob * mask).sum() / mask.sum()
        >>> own = OwnLoss(loss)
        >>> frame = frame_of(own)
        >>> answers = [response_of(own, sign) for sign in (1, -1)]
        >>> print(match_of(own, frame, own_of(own, frame), *answers))
        this is centred(aggregation=TOK)
    """
    tried = plain(own)
    # The second one lies far off policy, so that every bound is passed.
    groups = [random_batch(tried, 5), random_batch(tried, 6, spread=1.5)]
    measured = torch.stack([tried.coefficients(group) for group in groups])
    end: Any = (not own.takes_rewards, own.rounding or 0.0)
    best = Match(PolicyGradient(), 1.0, math.inf, *end)
    for loss in (*_losses(up, down, term), *_selected(own, up, down)):
        aggregations = [frame.aggregation]
        if isinstance(loss, LUSPO | SequencePPO):
            aggregations = [SequenceMean()] if isinstance(frame.aggregation, Sum) else []
        # What leaves tokens out hides the advantage on policy too.
        hidden = bool(loss.selects) and own.takes_rewards
        advantages = [frame.advantage, *(_USUAL if hidden else ())]
        for aggregation, advantage in itertools.product(aggregations, advantages):
            estimator = PolicyGradient(advantage, aggregation, loss, term.kl or NoKL(), g=own.g)
            wanted = torch.stack([estimator.coefficients(group) for group in groups])
            factor = frame.factor
            if loss.selects:
                factor = float((measured * wanted).sum() / wanted.square().sum())
            factor = 1.0 if abs(factor - 1) < 8 * (own.rounding or 0.0) else factor
            residual = float((measured - factor * wanted).norm() / measured.norm())
            found = Match(named(estimator), factor, residual, *end)
            if found.exact and best.exact:  # the same coefficients: the better known name
                shorter = len(str(found.estimator)) < len(str(best.estimator))
                best = found if shorter and own.takes_rewards else best
            elif residual < 0.5 * best.residual:
                best = found
    return best


def _losses(up: Response, down: Response, term: Own) -> Iterator[PolicyLoss]:
    """Return the losses that have such responses, the likeliest first."""
    high, low = _rounded(up.high), _rounded(down.low)
    finite = math.isfinite(high)
    level = up.level if up.level != "inverse" else down.level
    if level == "none":
        yield Score()
        if term.dro:
            yield DRO(term.dro)
    if level == "token":
        if finite:
            yield PPO(_rounded(1 - low), _rounded(high - 1))
            if 1 < _rounded(down.high) < math.inf:
                for name in ("dual", "cap"):  # their gradients are the same
                    given = {name: _rounded(down.high)}
                    yield PPO(_rounded(1 - low), _rounded(high - 1), **given)
            yield CISPOCap(high)
            yield CISPOBand(_rounded(1 - up.low), _rounded(high - 1))
        yield from (SAPO(), SAPO(1.0, 1.0), DPPO(), DPPO("kl"))
    if level in ("token", "prefix", "sequence", "geometric"):
        for bound in {up.high, down.high} - {math.inf}:
            for beyond in ("truncate", "mask"):
                yield Score(level, high=_rounded(bound), beyond=beyond)
                yield Score(level, _rounded(up.low), _rounded(bound), beyond)
    if level == "sequence" and finite:
        yield SequencePPO(_rounded(1 - low), _rounded(high - 1))
    if level == "geometric" and finite:
        bounds = (_rounded(1 - low), _rounded(high - 1))
        yield from (LUSPO(*bounds), GSPO(*bounds))
    if level == "geometric":
        yield from (GMPO(), GMPO(0.2, 0.2))
    if level in ("token", "prefix", "sequence", "geometric"):
        yield Score(level)
    yield VESPO()


def _selected(own: OwnLoss, up: Response, down: Response) -> Iterator[PolicyLoss]:
    """Return losses that leave tokens out; their bounds are settings, which responses hide."""
    given = {name: float(own.settings.get(key, at)) for key, name, at in _BOUNDS}
    for coef in (given["coef"], 1.0):
        yield KLCov(given["share"], coef)
    delta = _rounded(left_out_at(own))
    clips = [{"low": 0.2, "high": 0.2}]
    if math.isfinite(up.high):
        high = _rounded(up.high - 1)
        clips += [{"low": high, "high": high}, {"low": _rounded(1 - down.low), "high": high}]
    for clip in clips:
        yield ClipCov(given["cut"], given["least"], given["most"], **clip)
        if math.isfinite(delta):
            yield OPSM(delta, **clip)


_BOUNDS = (
    ("kl_cov_ratio", "share", 2e-4),
    ("ppo_kl_coef", "coef", 0.1),
    ("clip_cov_ratio", "cut", 2e-4),
    ("clip_cov_lb", "least", 1.0),
    ("clip_cov_ub", "most", 5.0),
)


def _rounded(x: float) -> float:
    return float(f"{x:.6g}") if math.isfinite(x) else x
