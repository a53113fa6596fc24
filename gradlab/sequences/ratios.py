r"""Policy losses: how the score of a token is weighted off policy, and where it is cut off.

Each is written once, as the differentiable term of its paper, in the direction of ascent. Its
gradient for log pi is what an estimate weighs scores with.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_choice
from gradlab.sequences.choices import Choice
from gradlab.sequences.tokens import RATIOS, Tokens, safe_exp

__all__ = ["CISPOBand", "CISPOCap", "DPPO", "DRO", "PPO", "SAPO", "VESPO", "PolicyLoss", "Score"]


class PolicyLoss(Choice, ABC):
    """A term per token, differentiable in log pi.

    Declares:
        signless: Whether the weight does not depend on the sign of A.
        by_sequence: Whether it is one term per sequence, the same at all tokens.
        length_power: k, where on policy sum_t grad L_t = A n^k s.
        couples: Whether a term depends on the other sequences of the training batch.
        selects: Why the mean changes on policy too, where terms are left out by what they say.
        says: Why it is not exact off policy.

    Example:
        >>> Score(ratio="sequence").exact_off_policy, PPO().exact_off_policy
        (True, False)
    """

    signless: ClassVar[bool] = False
    by_sequence: ClassVar[bool] = False
    length_power: ClassVar[int] = 0
    couples: ClassVar[bool] = False
    selects: ClassVar[str] = ""
    says: ClassVar[str] = ""

    @abstractmethod
    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return L_t, to be maximized.

        Args:
            tokens: Log-probabilities of the sampled tokens.
            advantage: A, a constant, with a last axis of length 1 or T.
        """

    @property
    def exact_off_policy(self) -> bool:
        """Whether E_mu of its gradient is grad J for every rollout policy mu."""
        return False

    @property
    def why(self) -> str:
        """Why it is not exact off policy."""
        return self.says


@dataclass(frozen=True, repr=False)
class Score(PolicyLoss):
    r"""score, the score function with a detached importance weight: L_t = sg(W_t) A log pi_t.

    W is a ratio of `RATIOS`. Only the sequence ratio makes it exact off policy: the token ratio
    forgets that the state was reached by mu, and the prefix ratio that what follows is mu's.

    Args:
        ratio: none, token, prefix, sequence or geometric, the root w^{1/n}.
        low: The smallest weight that counts.
        high: The largest weight that counts, or None.
        beyond: What happens to a weight out of these bounds: "truncate" moves it to the bound
            (TIS), "mask" sets it to 0 (MIS), and "accept" also sets those within to 1.

    Example:
        >>> Score(ratio="token", high=2.0)
        score(ratio=token, high=2)
    """

    ratio: str | None = "none"
    low: float = 0.0
    high: float | None = None
    beyond: str = "truncate"

    name: ClassVar[str] = "score"
    aliases: ClassVar[tuple[str, ...]] = ("reinforce", "weight")
    signless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.ratio is None:  # as `none` is read
            object.__setattr__(self, "ratio", "none")
        check_choice("ratio", self.ratio, RATIOS)
        check_choice("beyond", self.beyond, ("truncate", "mask", "accept"))

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return sg(W_t) A log pi_t."""
        return self.weight(tokens).detach() * advantage * tokens.log_prob

    def weight(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return W_t.

        Args:
            tokens: The log-probabilities.
        """
        weight = tokens.importance(self.ratio or "none")
        if self.beyond == "truncate":
            return weight.clamp(self.low, self.high)
        high = torch.inf if self.high is None else self.high
        inside = (weight >= self.low) & (weight <= high)
        return torch.where(inside, weight if self.beyond == "mask" else 1.0, 0.0)

    @property
    def exact_off_policy(self) -> bool:
        """Whether it is the sequence ratio without bounds."""
        bounds = self.low > 0 or self.high is not None or self.beyond == "accept"
        return self.ratio == "sequence" and not bounds

    @property
    def why(self) -> str:
        """Why it is not exact off policy."""
        reasons = {
            "none": "no importance ratio corrects for the rollout policy",
            "token": "the token ratio does not correct for the tokens before and after",
            "prefix": "the prefix ratio does not correct for the tokens that follow",
            "geometric": "w^(1/n) is not an importance ratio",
            "sequence": "bounds of the weight cut off what they were to correct",
        }
        return "" if self.exact_off_policy else reasons[self.ratio or "none"]


@dataclass(frozen=True, repr=False)
class PPO(PolicyLoss):
    r"""PPO, the clipped ratio: L_t = min(r_t A, clip(r_t, 1 - low, 1 + high) A).

    The gradient is that of the surrogate under mu where nothing is clipped, and 0 elsewhere.

    Args:
        low: Clip range below 1.
        high: Clip range above 1.
        dual: c of the dual clip: where A < 0 the term is at least c A. None: no dual clip.
        cap: r_t is at most this in the unclipped term, the `delta` of TRL. None: no cap.

    Example:
        >>> PPO(high=0.28, dual=3.0)
        PPO(high=0.28, dual=3)
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None
    cap: float | None = None

    name: ClassVar[str] = "PPO"
    aliases: ClassVar[tuple[str, ...]] = ("clip", "vanilla")
    says: ClassVar[str] = (
        "the clipped token ratio has the gradient of a surrogate under the rollout policy, and "
        "none where it is clipped"
    )

    def __post_init__(self) -> None:
        if self.dual is not None and self.dual <= 1:
            raise ValueError(f"dual must be above 1, not {self.dual}")

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the clipped terms."""
        return self.clipped(safe_exp(tokens.log_ratio), advantage)

    def clipped(
        self, ratio: Float[Tensor, "*batch T"], advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return min(r A, clip(r) A), with the dual clip and the cap.

        Args:
            ratio: r, of a token or of a sequence.
            advantage: A.
        """
        capped = ratio if self.cap is None else ratio.clamp(max=self.cap)
        term = torch.min(capped * advantage, ratio.clamp(1 - self.low, 1 + self.high) * advantage)
        if self.dual is None:
            return term
        return torch.where(advantage < 0, torch.max(term, self.dual * advantage), term)


@dataclass(frozen=True, repr=False)
class CISPOCap(PolicyLoss):
    r"""CISPO-TRL, L_t = sg(min(r_t, high)) A log pi_t: `high` is the largest ratio itself.

    Args:
        high: The largest ratio.

    Example:
        >>> CISPOCap()
        CISPO-TRL
    """

    high: float = 5.0

    name: ClassVar[str] = "CISPO-TRL"
    signless: ClassVar[bool] = True
    says: ClassVar[str] = "the truncated token ratio does not correct for the other tokens"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return sg(min(r_t, high)) A log pi_t."""
        weight = safe_exp(tokens.log_ratio).clamp(max=self.high)
        return weight.detach() * advantage * tokens.log_prob


@dataclass(frozen=True, repr=False)
class CISPOBand(PolicyLoss):
    r"""CISPO-verl, L_t = sg(clip(r_t, 1 - low, 1 + high)) A log pi_t.

    Args:
        low: Range below 1.
        high: Range above 1.

    Example:
        >>> CISPOBand(low=1.0)
        CISPO-verl(low=1)
    """

    low: float = 0.2
    high: float = 0.2

    name: ClassVar[str] = "CISPO-verl"
    aliases: ClassVar[tuple[str, ...]] = ("CISPO",)
    signless: ClassVar[bool] = True
    says: ClassVar[str] = "the clipped token ratio does not correct for the other tokens"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return sg(clip(r_t)) A log pi_t."""
        weight = safe_exp(tokens.log_ratio).clamp(1 - self.low, 1 + self.high)
        return weight.detach() * advantage * tokens.log_prob


@dataclass(frozen=True, repr=False)
class SAPO(PolicyLoss):
    r"""SAPO, a soft gate: L_t = (4/tau) sigmoid(tau (r_t - 1)) A, whose slope at r = 1 is 1.

    Args:
        tau: Temperature where A > 0.
        tau_negative: Temperature elsewhere.

    Example:
        >>> SAPO()
        SAPO
    """

    tau: float = 1.0
    tau_negative: float = 1.05

    name: ClassVar[str] = "SAPO"
    says: ClassVar[str] = "the gate is no importance ratio"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the gated terms."""
        tau = torch.where(advantage > 0, self.tau, self.tau_negative).to(tokens.log_prob.dtype)
        gate = 4 / tau * torch.sigmoid(tau * (safe_exp(tokens.log_ratio) - 1))
        return gate * advantage


@dataclass(frozen=True, repr=False)
class VESPO(PolicyLoss):
    r"""VESPO, L_t = sg(w^k e^{lam (1 - w)}) A log pi_t, w the ratio of the sequence.

    Args:
        k: Power where A >= 0.
        lam: Rate where A >= 0.
        k_negative: Power where A < 0.
        lam_negative: Rate where A < 0.

    Example:
        >>> VESPO(k=1.0)
        VESPO(k=1)
    """

    k: float = 2.0
    lam: float = 3.0
    k_negative: float = 3.0
    lam_negative: float = 2.0

    name: ClassVar[str] = "VESPO"
    says: ClassVar[str] = "the smooth weight of the sequence ratio is no importance ratio"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the weighted terms."""
        log_w = tokens.log_ratio.sum(-1, keepdim=True)
        up = advantage >= 0
        k = torch.where(up, self.k, self.k_negative).to(log_w.dtype)
        lam = torch.where(up, self.lam, self.lam_negative).to(log_w.dtype)
        weight = safe_exp(k * log_w + lam * (1 - safe_exp(log_w)))
        return weight.detach() * advantage * tokens.log_prob


@dataclass(frozen=True, repr=False)
class DPPO(PolicyLoss):
    r"""DPPO, L_t = sg(min(r_t, cap)) A log pi_t where the policy stays within a band, else 0.

    The band bounds a divergence of the two policies at the sampled token against all others:
    "tv" is pi_t - mu_t, "kl" that of Bernoulli(mu_t) from Bernoulli(pi_t). It holds on the side to
    which A pushes: above for A > 0, below else.

    Args:
        divergence: "tv" or "kl".
        low: The band where A pushes down.
        high: The band where A pushes up.
        cap: The largest ratio.

    Example:
        >>> DPPO(divergence="kl", high=0.05)
        DPPO(divergence=kl, high=0.05)
    """

    divergence: str = "tv"
    low: float = 0.2
    high: float = 0.2
    cap: float = 20.0

    name: ClassVar[str] = "DPPO"
    says: ClassVar[str] = "tokens out of the band count as nothing, the token ratio weighs others"

    def __post_init__(self) -> None:
        check_choice("divergence", self.divergence, ("tv", "kl"))

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return the terms within the band."""
        p, m = tokens.log_prob.detach().exp(), tokens.rollout.exp()
        if self.divergence == "tv":
            inside = torch.where(advantage > 0, p - m <= self.high, m - p <= self.low)
        else:
            rest = torch.special.xlogy(1 - m, (1 - m) / (1 - p).clamp(min=1e-300))
            kl = m * (tokens.rollout - tokens.log_prob.detach()) + rest
            up, down = (kl <= self.high) | (p <= m), (kl <= self.low) | (p >= m)
            inside = torch.where(advantage > 0, up, down)
        weight = safe_exp(tokens.log_ratio).clamp(max=self.cap).detach() * inside
        return weight * advantage * tokens.log_prob


@dataclass(frozen=True, repr=False)
class DRO(PolicyLoss):
    r"""DRO, L_t = A log pi_t - beta/2 (log r_t)^2: a quadratic penalty in place of a ratio.

    Args:
        beta: Weight of the penalty.

    Example:
        >>> DRO(beta=0.5)
        DRO(beta=0.5)
    """

    beta: float = 0.1

    name: ClassVar[str] = "DRO"
    signless: ClassVar[bool] = True
    says: ClassVar[str] = "the penalty pulls to the rollout policy: another objective"

    def terms(
        self, tokens: Tokens, advantage: Float[Tensor, "*#batch #T"]
    ) -> Float[Tensor, "*batch T"]:
        """Return A log pi_t - beta/2 (log r_t)^2."""
        return advantage * tokens.log_prob - self.beta / 2 * tokens.log_ratio.square()
