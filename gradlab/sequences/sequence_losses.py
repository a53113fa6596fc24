r"""Policy losses with one term per sequence, from the geometric mean q = w^{1/n} of its ratios.

The term stands at all tokens: SEQ counts it once per sequence. SUM, CONST and TOK count it n times.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

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
from gradlab.sequences.tokens import Tokens, safe_exp

__all__ = ["GMPO", "GSPO", "LOSSES", "LUSPO", "SequencePPO"]


@dataclass(frozen=True, repr=False)
class GSPO(PolicyLoss):
    r"""GSPO, min(q A, clip(q, 1 - low, 1 + high) A), q = w^{1/n}.

    Counted once per sequence, as published, its gradient on policy is (A/n) s: it has the length
    bias of GRPO's SEQ.

    Args:
        low: Clip range below 1.
        high: Clip range above 1.

    Example:
        >>> GSPO()
        GSPO
    """

    low: float = 3e-4
    high: float = 4e-4

    name: ClassVar[str] = "GSPO"
    by_sequence: ClassVar[bool] = True
    says: ClassVar[str] = "w^(1/n) is not an importance ratio"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the sequence's term at each token."""
        return PPO(self.low, self.high).clipped(tokens.importance("geometric"), advantage)


@dataclass(frozen=True, repr=False)
class LUSPO(PolicyLoss):
    r"""LUSPO, the term of GSPO times n, which takes its length bias away.

    Args:
        low: Clip range below 1.
        high: Clip range above 1.

    Example:
        >>> LUSPO().length_power
        1
    """

    low: float = 3e-4
    high: float = 4e-4

    name: ClassVar[str] = "LUSPO"
    by_sequence: ClassVar[bool] = True
    length_power: ClassVar[int] = 1
    says: ClassVar[str] = "w^(1/n) is not an importance ratio"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return n times the term of GSPO."""
        return tokens.lengths * GSPO(self.low, self.high).terms(tokens, advantage)


@dataclass(frozen=True, repr=False)
class SequencePPO(PolicyLoss):
    r"""PPO-sequence, min(w A, clip(w, 1 - low, 1 + high) A), w the ratio of the whole sequence.

    TRL's RLOO trainer has it. Counted once per sequence its gradient on policy is A s.

    Args:
        low: Clip range below 1.
        high: Clip range above 1.

    Example:
        >>> SequencePPO(high=0.28)
        PPO-sequence(high=0.28)
    """

    low: float = 0.2
    high: float = 0.2

    name: ClassVar[str] = "PPO-sequence"
    by_sequence: ClassVar[bool] = True
    length_power: ClassVar[int] = 1
    says: ClassVar[str] = "the sequence ratio has no gradient where it is clipped"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the sequence's term at each token."""
        return PPO(self.low, self.high).clipped(tokens.importance("sequence"), advantage)


@dataclass(frozen=True, repr=False)
class GMPO(PolicyLoss):
    r"""GMPO, the geometric mean of ratios that are clipped by the sign of A.

    .. math:: A \exp\Big(\tfrac1n \sum_t \sigma \min(\sigma \log r_t,
        \sigma\,\mathrm{clip}(\log r_t, -low, high))\Big), \quad \sigma = \mathrm{sgn}\,A

    Counted once per sequence its gradient on policy is (A/n) s.

    Args:
        low: Clip range of log r below 0.
        high: Clip range of log r above 0.

    Example:
        >>> GMPO()
        GMPO
    """

    low: float = 0.4
    high: float = 0.4

    name: ClassVar[str] = "GMPO"
    aliases: ClassVar[tuple[str, ...]] = ("geo-mean",)
    by_sequence: ClassVar[bool] = True
    says: ClassVar[str] = "the geometric mean of clipped ratios is not an importance ratio"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the sequence's term at each token."""
        log_ratio, sign = tokens.log_ratio, advantage.sign()
        clipped = log_ratio.clamp(-self.low, self.high)
        held = sign * torch.min(sign * log_ratio, sign * clipped)
        mean = held.sum(-1, keepdim=True) / tokens.lengths
        return advantage * safe_exp(mean).expand_as(log_ratio)


LOSSES: dict[str, type[PolicyLoss]] = {
    cls.name: cls
    for cls in (
        *(Score, PPO, CISPOCap, CISPOBand, SAPO, GSPO, LUSPO, GMPO, VESPO, DPPO, DRO),
        *(SequencePPO, ClipCov, KLCov, OPSM),
    )
}
"""The policy losses by their names."""
