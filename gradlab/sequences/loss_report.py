"""What is known of a loss function after it was probed: what it is, what holds, its faults."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gradlab.sequences.advantages import Centred, LengthWeighted
from gradlab.sequences.aggregation import LocalTokenMean, TokenMean
from gradlab.sequences.faulty_advantages import NormalizedAgain, StdTwice
from gradlab.sequences.invariances import (
    Finding,
    findings,
    padded_longer,
    random_batch,
    scale_power,
)
from gradlab.sequences.kl_terms import K1
from gradlab.sequences.loss_checks import (
    changed_arguments,
    check_loss,
    infinite_padding,
    steps_in_rewards,
)
from gradlab.sequences.loss_match import Match, match_of
from gradlab.sequences.loss_parts import (
    Frame,
    Own,
    frame_of,
    of_rewards,
    own_of,
    plain,
)
from gradlab.sequences.loss_responses import Response, response_of
from gradlab.sequences.own_loss import OwnLoss
from gradlab.text import filled

__all__ = ["Fault", "LossReport", "examine"]


@dataclass(frozen=True)
class Fault:
    """A fault that is known from published code.

    Args:
        name: Its short name.
        effect: Its size, in words with a number.
        meaning: What it does to the estimate.

    Example:
        >>> print(Fault("sign of the log-ratio", "slope -1", "the weight is mu/pi"))
        sign of the log-ratio (slope -1): the weight is mu/pi
    """

    name: str
    effect: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.name} ({self.effect}): {self.meaning}"


@dataclass(frozen=True)
class LossReport:
    """The report on a loss function; `str` shows it.

    Args:
        name: Of the function.
        match: The nearest estimator of the catalogue.
        findings: One per invariance.
        faults: Those that were recognized.
        frame: Its advantage and aggregation.
        responses: How weights answer to ratios, for A > 0 and A < 0.
        g: Sequences per group of the loss.
        rounding: The relative precision that it computes in.

    Example:
        >>> def loss(log_prob, advantages, mask):
        ...     return -(advantages.unsqueeze(-1) * log_prob * mask).sum() / len(mask)
        >>> report = examine(loss)
        >>> print(report.match)
        this is score, aggregation SUM of the advantages that it is given
        >>> report.faults
        ()
    """

    name: str
    match: Match
    findings: tuple[Finding, ...]
    faults: tuple[Fault, ...]
    frame: Frame
    responses: tuple[Response, Response] | None
    g: int = 4
    rounding: float = 0.0

    @property
    def holding(self) -> tuple[str, ...]:
        """The names of the invariances that hold."""
        return tuple(found.name for found in self.findings if found.holds)

    @property
    def failing(self) -> tuple[str, ...]:
        """The names of the invariances that fail."""
        return tuple(found.name for found in self.findings if found.holds is False)

    def fault_names(self) -> tuple[str, ...]:
        """Return the names of the faults."""
        return tuple(fault.name for fault in self.faults)

    def __str__(self) -> str:
        lines = [filled(f"{self.name}: {self.match}")]
        if self.match.exact:
            claim = str(self.match.estimator.with_(resample=False, g=self.g).claim()).splitlines()
            lines += [filled(line) for line in claim] if not self.match.given else []
        lines += [filled(f"fault: {fault}") for fault in self.faults]
        lines += ["no planted fault was recognized"] if not self.faults else []
        if self.rounding > 1e-12:
            said = (
                f"it computes with a precision of {self.rounding:.1g}: smaller effects are not seen"
            )
            lines.append(said)
        lines += [filled(str(found), indent=" " * 7) for found in self.findings]
        return "\n".join(lines)


def examine(function: "OwnLoss | Callable[..., Any]", **options: Any) -> LossReport:
    """Return what a loss function is, which invariances hold, and which known faults it has.

    Its coefficients d loss / d log_prob are taken on random groups, on and off policy.

    Args:
        function: A loss as trainers have it, or an `OwnLoss`.
        **options: The fields of `OwnLoss`: advantage, settings, aggregation, maximize, g, name.

    Returns:
        The report.

    Raises:
        LossFunctionError: The function cannot be called, or has no gradient for log_prob.

    Example:
        >>> import torch
        >>> def loss(log_prob, old_log_prob, rewards, mask, group_size):
        ...     r = rewards.view(-1, group_size)
        ...     a = ((r - r.mean(-1, keepdim=True)) / r.std(-1, keepdim=True)).view(-1, 1)
        ...     ratio = (log_prob - old_log_prob).exp()
        ...     terms = torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)
        ...     return -((terms * mask).sum(-1) / mask.sum(-1)).mean()
        >>> print(examine(loss).match)
        this is GRPO
    """
    own = function if isinstance(function, OwnLoss) else OwnLoss(function, **options)
    check_loss(own)
    frame = frame_of(own)
    term = own_of(own, frame)
    up, down = (response_of(own, sign) for sign in (1, -1))
    match = match_of(own, frame, term, up, down)
    found = tuple(findings(own))
    faults = (*_of_contract(own, match), *_faults(own, frame, term, up, down, found))
    return LossReport(own.name, match, found, faults, frame, (up, down), own.g, own.rounding or 0.0)


def _of_contract(own: OwnLoss, match: Match) -> Iterator[Fault]:
    """Yield the faults of what a loss does with its arguments."""
    changed = changed_arguments(own)
    if changed:
        yield Fault(
            "arguments changed in place",
            ", ".join(changed),
            "whoever uses them after this call is given other values, such as the next epoch: "
            "write x = x - m in place of x -= m",
        )
    what = infinite_padding(own)
    if what:
        yield Fault(
            "NaN from padding",
            f"the {what} is NaN or inf",
            "0 times NaN is NaN, also behind a mask: take torch.where(mask > 0, x, 0) before what "
            "is not finite",
        )
    if not match.exact and steps_in_rewards(own):
        yield Fault(
            "rewards rounded",
            "changes of 1e-4 change nothing",
            "rewards are cut to whole numbers or compared with a bound: their other digits are "
            "lost",
        )


def _faults(
    own: OwnLoss,
    frame: Frame,
    term: Own,
    up: Response,
    down: Response,
    found: tuple[Finding, ...],
) -> Iterator[Fault]:
    yield from _of_advantage(own, frame)
    yield from _of_lengths(frame, up)
    yield from _of_ratio(own, up, down)
    if isinstance(term.kl, K1) and term.kl.place == "loss" and term.residual < 1e-6:
        yield Fault(
            "KL differentiated as a loss",
            f"beta {term.kl.beta:g}",
            "k1 in the loss has a gradient whose mean is 0, so there is no penalty; put it, "
            "detached, in the reward, or take k2 of the sequence",
        )
    yield from _of_padding(own, found)


def _of_advantage(own: OwnLoss, frame: Frame) -> Iterator[Fault]:
    g = own.g
    if not own.takes_rewards or not frame.known:
        return
    if isinstance(frame.advantage, Centred):
        yield Fault(
            "missing G/(G - 1)",
            f"factor {(g - 1) / g:.4g}",
            "the mean contains the own reward: the estimate is (G - 1)/G times that of RLOO, in "
            "the same direction",
        )
    if isinstance(frame.advantage, LengthWeighted):
        yield Fault(
            "own sample in the baseline",
            "bias of the order 1/G",
            "the weighted mean contains the own reward by its length: the direction changes; "
            "leave the own sample out",
        )
    if isinstance(frame.advantage, StdTwice | NormalizedAgain):
        twice = isinstance(frame.advantage, StdTwice)
        yield Fault(
            "double normalization",
            "rewards times 2 give half the step" if twice else "standardized in group and batch",
            "the advantages are divided by a standard deviation twice",
        )
    flags = [name for name in own.switches if _same_without(own, name)]
    for name in flags:
        yield Fault(
            "std always on",
            f"{name}=False changes nothing",
            "rewards are divided by their standard deviation though the switch is off",
        )


def _same_without(own: OwnLoss, name: str) -> bool:
    """Return whether the scale of rewards is divided out with the switch off."""
    off = replace(own, settings={**own.settings, name: False}, by_token=own.by_token)
    power = scale_power(off, random_batch(off))
    return math.isfinite(power) and abs(power) < 0.1


def _of_lengths(frame: Frame, up: Response) -> Iterator[Fault]:
    if frame.known and isinstance(frame.aggregation, LocalTokenMean) and frame.aggregation.micro:
        yield Fault(
            "local token count",
            f"micro-batches of {frame.aggregation.micro}",
            "each micro-batch divides by its own tokens, so that short ones count more; divide "
            "by the tokens of the whole batch",
        )
    broadcast = frame.known and frame.power == 1
    counted = isinstance(frame.aggregation, TokenMean | LocalTokenMean)
    if broadcast or (frame.known and up.level == "geometric" and counted):
        yield Fault(
            "sequence ratio broadcast to tokens",
            "each sequence counts n times",
            "one term per sequence stands at each of its tokens and is summed: long sequences "
            "count more; take SEQ, or detach the ratio",
        )
    if frame.known and frame.power == -1:
        yield Fault(
            "double normalization",
            "each sequence is divided by n once more",
            "the length is divided out twice, so that long sequences count less",
        )


def _of_ratio(own: OwnLoss, up: Response, down: Response) -> Iterator[Fault]:
    if up.level == "inverse" and down.level == "inverse":
        yield Fault(
            "sign of the log-ratio",
            f"d log weight / d log r = {up.own:.3g}",
            "the weight falls where pi/mu grows: it is mu/pi",
        )
    tried = plain(own)
    group = random_batch(tried, 7, on_policy=True)
    base = of_rewards(tried, group)
    tables = ("log_prob", "rollout_log_prob", "reference_log_prob")
    changed: dict[str, Any] = {name: getattr(group, name) - 0.5 for name in tables}
    lower = replace(group, **changed)
    effect = float((of_rewards(tried, lower) - base).norm() / base.norm())
    if effect > 1e-6:
        yield Fault(
            "weight not detached",
            f"relative change {effect:.3g}",
            "on policy the coefficients depend on log pi: a weight that multiplies log pi is "
            "differentiated too",
        )


def _of_padding(own: OwnLoss, found: tuple[Finding, ...]) -> Iterator[Fault]:
    by_name = {finding.name: finding for finding in found}
    if not own.takes_rewards and "advantages" not in own.kinds.values():
        return
    length = by_name["padding length"]
    if length.holds is False and "statistics" in length.meaning:
        group = random_batch(own)
        base = own.coefficients(group)
        effect = float((padded_longer(own, group) - base).norm() / base.norm())
        yield Fault(
            "whitening over padding",
            f"3 more padded positions change the estimate by {effect:.3g}",
            "mean and deviation count padded positions; give the mask to them",
        )
