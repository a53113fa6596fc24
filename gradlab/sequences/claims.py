"""What a policy gradient claims: whose gradient it estimates, and which choice spoils it."""

from dataclasses import dataclass

from gradlab.sequences.advantages import Advantage
from gradlab.sequences.aggregation import Aggregation, SequenceMean
from gradlab.sequences.kl_terms import KLTerm, NoKL
from gradlab.sequences.ratios import PolicyLoss

__all__ = ["Claim", "claim_of"]


@dataclass(frozen=True)
class Claim:
    """Whose gradient an estimate is the mean of, and up to which factor.

    Args:
        target: "J", "J - beta KL", "pass@k", "max@G", "sum of pass@k / k"; "h(p)" is a monotone
            function of the success probability, for binary rewards. Biases are named for it.
        on_policy: The factor in E[estimate] = factor * gradient of the target, or None where no
            factor does.
        off_policy: The same for every rollout policy that can sample all that the policy can.
        reasons: Why there is no factor, one sentence per choice that is to blame.

    Example:
        >>> from gradlab.sequences import parse
        >>> print(parse("RLOO(aggregation=SEQ)").claim())
        target: gradient of J; on policy: biased; off policy: biased
        - SEQ divides each advantage by the length of its own sequence
        - off policy: no importance ratio corrects for the rollout policy
    """

    target: str
    on_policy: float | None
    off_policy: float | None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = (
            f"target: gradient of {self.target}; on policy: {_said(self.on_policy)}; "
            f"off policy: {_said(self.off_policy)}"
        )
        return "\n".join([head, *(f"- {reason}" for reason in self.reasons)])


def _said(factor: float | None) -> str:
    if factor is None:
        return "biased"
    return "exact" if factor == 1 else f"exact up to the factor {factor:.6g}"


def claim_of(
    advantage: Advantage,
    aggregation: Aggregation,
    loss: PolicyLoss,
    kl: KLTerm,
    *,
    g: int,
    resample: bool = False,
    horizon: int | None = None,
) -> Claim:
    """Return what an estimator of these choices claims.

    Args:
        advantage: The advantage.
        aggregation: The aggregation.
        loss: The loss.
        kl: The KL term.
        g: Sequences in a group.
        resample: Whether groups with equal rewards are drawn again.
        horizon: T, which gives the factor of CONST.

    Example:
        >>> from gradlab.sequences.advantages import Centred
        >>> from gradlab.sequences.aggregation import Sum
        >>> from gradlab.sequences.kl_terms import NoKL
        >>> from gradlab.sequences.ratios import PPO
        >>> claim_of(Centred(), Sum(), PPO(), NoKL(), g=2).on_policy
        0.5
    """
    reasons = []
    own = advantage.factor(g)
    if own is None:
        reasons.append(advantage.says)
    if resample:
        reasons.append(
            "groups with equal rewards are drawn again, which favours easy and hard prompts"
        )
        own = None
    scale = _scale(aggregation, loss, horizon, reasons)
    factor = None if own is None or scale is None else own * scale
    plain = factor
    target = advantage.target
    if not isinstance(kl, NoKL):
        factor = _with_kl(kl, True, own, advantage.target, factor, reasons)
        target = f"{target} - beta KL"
    off = plain if loss.exact_off_policy else None
    if not loss.exact_off_policy:
        reasons.append(f"off policy: {loss.why}")
    elif advantage.target != "J":
        off = None
        reasons.append("off policy: the other samples of the group are the rollout policy's")
    if not isinstance(kl, NoKL):
        off = _with_kl(kl, False, own, advantage.target, off, reasons)
    said = [one for one in reasons if not _repeats(one, reasons)]
    return Claim(target, factor, off, tuple(dict.fromkeys(said)))


def _repeats(reason: str, reasons: list[str]) -> bool:
    """Return whether a reason off policy is one on policy too."""
    plain = reason.removeprefix("off policy: ")
    return plain != reason and plain in reasons


def _scale(
    aggregation: Aggregation, loss: PolicyLoss, horizon: int | None, reasons: list[str]
) -> float | None:
    """Return the factor of aggregation and loss on policy, None where lengths spoil it."""
    if loss.selects:
        reasons.append(loss.selects)
    if loss.length_power:
        if isinstance(aggregation, SequenceMean):
            return 1.0
        reasons.append(f"{loss} with {aggregation} counts each sequence by its length")
        return None
    if not aggregation.keeps:
        reasons.append(aggregation.says)
        return None
    scale = aggregation.factor(horizon)
    if scale is None:
        reasons.append(f"the factor of {aggregation} is one over the horizon: give the horizon")
    return None if loss.selects else scale


def _with_kl(
    kl: KLTerm,
    on_policy: bool,
    own: float | None,
    target: str,
    factor: float | None,
    reasons: list[str],
) -> float | None:
    """Return the factor of the gradient of target - beta KL."""
    if not kl.exact(on_policy):
        reasons.append(("" if on_policy else "off policy: ") + kl.why)
        return None
    if kl.place == "reward" and target != "J":
        reasons.append("a KL penalty in the reward changes which samples count as the best")
        return None
    if kl.place == "reward" and kl.per == "token":
        # The penalty to go is added to the advantage, not centred with it.
        if own is not None and own != 1:
            reasons.append(_UNEQUAL)
            return None
    elif kl.place == "loss" and own is not None and own != 1:
        reasons.append(_UNEQUAL)
        return None
    return factor


_UNEQUAL = "the factor of the advantage does not multiply the KL term: beta counts for more"
