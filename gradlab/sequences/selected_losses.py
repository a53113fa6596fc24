r"""Policy losses that leave tokens or sequences out: by covariance, or for being off policy.

The covariance of a token is that of advantage and log-probability over all tokens of the training
batch, :math:`C_t = (A_t - \bar A)(\log \pi_t - \overline{\log \pi})`. Tokens where it is large
lower the entropy of the policy most. Where tokens tie or are drawn at random, each counts by its
chance, so the variance of the draw is not in the moments.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.sequences.ratios import PPO, PolicyLoss
from gradlab.sequences.tokens import Tokens, safe_exp

__all__ = ["OPSM", "ClipCov", "KLCov"]


@dataclass(frozen=True, repr=False)
class ClipCov(PolicyLoss):
    r"""Clip-Cov, the loss of PPO without some tokens of large covariance: L_t = (1 - z_t) PPO_t.

    z draws max(1, share N) of the N tokens at random, out of those whose covariance is between the
    bounds and that PPO does not clip. Here z_t is the chance of being drawn.

    Args:
        share: Tokens that are left out, as a share of all.
        least: Covariance above which a token may be left out.
        most: Covariance below which it may be.
        low: Clip range below 1.
        high: Clip range above 1.

    Example:
        >>> ClipCov(least=0.5)
        Clip-Cov(least=0.5)
    """

    share: float = 2e-4
    least: float = 1.0
    most: float = 5.0
    low: float = 0.2
    high: float = 0.2

    name: ClassVar[str] = "Clip-Cov"
    couples: ClassVar[bool] = True
    selects: ClassVar[str] = "tokens are left out by their advantage, which biases what remains"
    says: ClassVar[str] = "tokens are left out by their advantage, and the token ratio is clipped"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the terms of PPO, each times the chance that it is kept."""
        ratio = safe_exp(tokens.log_ratio)
        terms = PPO(self.low, self.high).clipped(ratio, advantage)
        covariance = _covariance(tokens, advantage)
        free = terms >= ratio * advantage
        drawn = tokens.mask & free & (covariance > self.least) & (covariance < self.most)
        over = _batch(covariance)
        number = _number(self.share, tokens.mask, over).to(terms.dtype)
        chance = (number / drawn.sum(over, keepdim=True).clamp(min=1)).clamp(max=1.0)
        return terms * (1 - chance * drawn).detach()


@dataclass(frozen=True, repr=False)
class KLCov(PolicyLoss):
    r"""KL-Cov: L_t = r_t A, minus coef \|log r_t\| at the tokens of largest covariance.

    These are the first max(1, share N) of N tokens. On policy \|log r_t\| is at its minimum, where
    its derivative is taken as 0: the estimate is that of the plain score.

    Args:
        share: Tokens with the penalty, as a share of all.
        coef: Weight of the penalty: 0.1 in verl's configuration, 1 in its code without one.

    Example:
        >>> KLCov(coef=1.0)
        KL-Cov(coef=1)
    """

    share: float = 2e-4
    coef: float = 0.1

    name: ClassVar[str] = "KL-Cov"
    couples: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the token ratio does not correct for the other tokens, and the penalty pulls some to the "
        "rollout policy"
    )

    def __post_init__(self) -> None:
        _check_share(self.share)

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return r_t A minus the penalty where it applies."""
        covariance = _covariance(tokens, advantage)
        over = _batch(covariance)
        number = _number(self.share, tokens.mask, over)
        low = torch.finfo(covariance.dtype).min
        flat = torch.where(tokens.mask, covariance, low).flatten(-len(over))
        ranked = flat.sort(-1, descending=True).values
        at = (number.flatten(-len(over)).long() - 1).clamp(max=flat.shape[-1] - 1)
        cut = ranked.gather(-1, at)
        above, tied = flat > cut, flat == cut
        rest = at + 1 - above.sum(-1, keepdim=True)
        share = rest.to(covariance.dtype) / tied.sum(-1, keepdim=True)
        chosen = (above + tied * share).reshape(covariance.shape).detach()
        pull = self.coef * chosen * tokens.log_ratio.abs()
        return safe_exp(tokens.log_ratio) * advantage - pull


@dataclass(frozen=True, repr=False)
class OPSM(PolicyLoss):
    r"""OPSM, the loss of PPO without whole sequences: off-policy sequence masking.

    A sequence with A < 0 is left out where the mean of log mu/pi over its tokens is above delta:
    the policy has left it already.

    Args:
        delta: The bound. slime takes 1e-4; TRL has it off unless a bound is given.
        low: Clip range below 1.
        high: Clip range above 1.

    Example:
        >>> OPSM(delta=0.1)
        OPSM(delta=0.1)
    """

    delta: float = 1e-4
    low: float = 0.2
    high: float = 0.2

    name: ClassVar[str] = "OPSM"
    aliases: ClassVar[tuple[str, ...]] = ("off-policy-sequence-mask",)
    says: ClassVar[str] = (
        "sequences are left out by the sign of A and by their ratio, and the token ratio is clipped"
    )

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the terms of PPO where the sequence is kept."""
        left = -tokens.log_ratio.detach().sum(-1, keepdim=True) / tokens.lengths
        kept = ~((advantage < 0) & (left > self.delta))
        return PPO(self.low, self.high).clipped(safe_exp(tokens.log_ratio), advantage) * kept


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")


def _batch(values: Tensor) -> tuple[int, ...]:
    """Return the axes of one training batch: prompts, samples and tokens."""
    return tuple(range(-min(values.ndim, 3), 0))


def _number(share: float, mask: Tensor, over: tuple[int, ...]) -> Tensor:
    """Return max(1, share N), cut to a whole number."""
    return (share * mask.sum(over, keepdim=True)).floor().clamp(min=1)


def _covariance(tokens: Tokens, advantage: Tensor) -> Float[Tensor, "*batch T"]:
    log_prob, mask = tokens.log_prob.detach(), tokens.mask
    over = _batch(log_prob)
    a = advantage.expand_as(log_prob)
    count = mask.sum(over, keepdim=True).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        return values - (values * mask).sum(over, keepdim=True) / count

    return centred(a) * centred(log_prob)
