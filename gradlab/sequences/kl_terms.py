r"""KL penalties: terms whose gradient is meant to be that of beta KL(pi || ref) of the sequence.

l_t = log pi/ref at token t. Most of the forms in use have another gradient: each says which.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_choice
from gradlab.sequences.choices import Choice
from gradlab.sequences.tokens import Tokens, safe_exp

__all__ = ["KLS", "K1", "K2", "K3", "FullKL", "K1Prefix", "K1Ratio", "K3Ratio", "KLTerm", "NoKL"]

_PARTIAL = "it is a partial gradient: earlier tokens have no effect on later states"


class KLTerm(Choice, ABC):
    """A penalty, weighted by beta, in the reward or in the loss.

    Declares:
        place: "loss" or "reward".
        per: "token" or "sequence". In the reward "token" is a penalty to go.
        needs_logits: Whether it sums over the vocabulary.

    Example:
        >>> K3().exact(on_policy=True), K1(place="reward").exact(on_policy=True)
        (False, True)
    """

    place: str = "loss"
    per: str = "token"
    needs_logits: ClassVar[bool] = False

    def penalty(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta times the penalty of each token, for the reward.

        Args:
            tokens: The log-probabilities.
        """
        raise ValueError(f"{self} cannot stand in the reward")

    @abstractmethod
    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta times the term of each token in the loss, to be minimized.

        Args:
            tokens: The log-probabilities; the term is differentiable in them.
        """

    def exact(self, on_policy: bool) -> bool:
        """Whether the mean of its gradient is that of beta KL, with SUM.

        Args:
            on_policy: Whether the rollout policy is the policy itself.
        """
        return False

    @property
    def why(self) -> str:
        """What its gradient is, where it is not that of beta KL."""
        return ""


@dataclass(frozen=True, repr=False)
class NoKL(KLTerm):
    """none, no penalty.

    Example:
        >>> NoKL()
        none
    """

    beta: ClassVar[float] = 0.0
    name: ClassVar[str] = "none"
    aliases: ClassVar[tuple[str, ...]] = ("off",)
    place: ClassVar[str] = "loss"  # type: ignore[misc]
    per: ClassVar[str] = "token"  # type: ignore[misc]

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return 0."""
        return torch.zeros_like(tokens.log_prob)

    def exact(self, on_policy: bool) -> bool:
        """Return True.

        Args:
            on_policy: Either.
        """
        return True


@dataclass(frozen=True, repr=False)
class _Schulman(KLTerm):
    """k(l), a function of the log-ratio to the reference."""

    beta: float = 0.04
    place: str = "loss"
    per: str = "token"

    def __post_init__(self) -> None:
        check_choice("place", self.place, ("loss", "reward"))
        check_choice("per", self.per, ("token", "sequence"))

    @staticmethod
    @abstractmethod
    def value(log_ratio: Tensor) -> Tensor:
        """Return k(l)."""

    def penalty(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta k(l_t), detached."""
        return self.beta * self.value(tokens.log_reference_ratio).detach()

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta k(l_t), or beta k(sum l_t) at the first token."""
        log_ratio = tokens.log_reference_ratio
        if self.per == "token":
            return self.beta * self.value(log_ratio)
        whole = self.beta * self.value(log_ratio.sum(-1, keepdim=True))
        first = torch.arange(log_ratio.shape[-1], device=log_ratio.device) == 0
        return torch.where(first, whole, 0.0)


@dataclass(frozen=True, repr=False)
class K1(_Schulman):
    r"""k1, l_t. In the reward it is exact; in the loss the mean of its gradient is 0.

    Args:
        beta: Weight.
        place: "loss" or "reward".
        per: "token" or "sequence"; in the reward "token" is the penalty to go.

    Example:
        >>> K1(beta=0.1, place="reward", per="sequence")
        k1(beta=0.1, place=reward, per=sequence)
    """

    name: ClassVar[str] = "k1"
    aliases: ClassVar[tuple[str, ...]] = ("kl",)

    @staticmethod
    def value(log_ratio: Tensor) -> Tensor:
        """Return l."""
        return log_ratio

    def exact(self, on_policy: bool) -> bool:
        """Whether it stands in the reward.

        Args:
            on_policy: Either: the loss weighs the penalty as it weighs the reward.
        """
        return self.place == "reward"

    @property
    def why(self) -> str:
        """What is wrong in the loss."""
        exact = self.place == "reward"
        return "" if exact else "k1 in the loss has a gradient whose mean is 0: it does nothing"


@dataclass(frozen=True, repr=False)
class K2(_Schulman):
    r"""k2, l_t^2/2. Per token in the loss it is a partial gradient; of the sequence it is exact.

    k1+ and k3+ of verl have its gradient.

    Args:
        beta: Weight.
        place: "loss" or "reward".
        per: "token" or "sequence".

    Example:
        >>> K2(per="sequence").exact(on_policy=True)
        True
    """

    name: ClassVar[str] = "k2"
    aliases: ClassVar[tuple[str, ...]] = ("mse", "k1+", "k3+")

    @staticmethod
    def value(log_ratio: Tensor) -> Tensor:
        """Return l^2/2."""
        return log_ratio.square() / 2

    def exact(self, on_policy: bool) -> bool:
        """Whether it is on policy, in the loss, of the whole sequence.

        Args:
            on_policy: Off policy nothing weighs it.
        """
        return on_policy and self.place == "loss" and self.per == "sequence"

    @property
    def why(self) -> str:
        """What its gradient is."""
        if self.place == "reward":
            return "k2 in the reward penalizes another divergence"
        if self.per == "sequence":
            return "off policy no ratio weighs k2 in the loss"
        return f"k2 per token in the loss: {_PARTIAL}"


@dataclass(frozen=True, repr=False)
class K3(_Schulman):
    r"""k3, e^{-l_t} - 1 + l_t, GRPO's penalty: in the loss its gradient is of a forward KL.

    Args:
        beta: Weight.
        place: "loss" or "reward".
        per: "token" or "sequence".

    Example:
        >>> K3(beta=0.001)
        k3(beta=0.001)
    """

    name: ClassVar[str] = "k3"
    aliases: ClassVar[tuple[str, ...]] = ("low-var-kl",)

    @staticmethod
    def value(log_ratio: Tensor) -> Tensor:
        """Return e^{-l} - 1 + l."""
        return safe_exp(-log_ratio) - 1 + log_ratio

    @property
    def why(self) -> str:
        """What its gradient is."""
        if self.place == "reward":
            return "k3 in the reward penalizes another divergence"
        return "k3 in the loss has the gradient of the forward KL, not of KL(pi || ref)"


@dataclass(frozen=True, repr=False)
class K3Ratio(KLTerm):
    r"""k3-ratio, r_t k3(l_t), r_t differentiated too: on policy the gradient of k2 per token.

    Args:
        beta: Weight.

    Example:
        >>> K3Ratio().why[:30]
        'r_t k3 equals k2 per token: it'
    """

    beta: float = 0.04

    name: ClassVar[str] = "k3-ratio"
    aliases: ClassVar[tuple[str, ...]] = ("ratio-k3", "unbiased-k3")

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta r_t k3(l_t)."""
        return self.beta * safe_exp(tokens.log_ratio) * K3.value(tokens.log_reference_ratio)

    @property
    def why(self) -> str:
        """What its gradient is."""
        return f"r_t k3 equals k2 per token: {_PARTIAL}"


@dataclass(frozen=True, repr=False)
class K1Ratio(KLTerm):
    r"""k1-ratio, sg(r_t l_t) log pi_t: the same partial gradient as a score function.

    Args:
        beta: Weight.

    Example:
        >>> K1Ratio(beta=1.0)
        k1-ratio(beta=1)
    """

    beta: float = 0.04

    name: ClassVar[str] = "k1-ratio"
    aliases: ClassVar[tuple[str, ...]] = ("ratio-k1",)

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta sg(r_t l_t) log pi_t."""
        weight = safe_exp(tokens.log_ratio) * tokens.log_reference_ratio
        return self.beta * weight.detach() * tokens.log_prob

    @property
    def why(self) -> str:
        """What its gradient is."""
        return f"r_t k1 as a score function: {_PARTIAL}"


@dataclass(frozen=True, repr=False)
class K1Prefix(KLTerm):
    r"""k1-prefix, sum_t r_{1:t} l_t sum_{u <= t} s_u: exact on and off policy.

    Args:
        beta: Weight.

    Example:
        >>> K1Prefix().exact(on_policy=False)
        True
    """

    beta: float = 0.04

    name: ClassVar[str] = "k1-prefix"

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta sg(r_{1:t} l_t) sum_{u <= t} log pi_u."""
        weight = tokens.importance("prefix") * tokens.log_reference_ratio
        return self.beta * weight.detach() * tokens.log_prob.cumsum(-1) * tokens.mask

    def exact(self, on_policy: bool) -> bool:
        """Return True.

        Args:
            on_policy: Either.
        """
        return True


@dataclass(frozen=True, repr=False)
class FullKL(KLTerm):
    r"""full, summed over the vocabulary and weighted by the prefix, exact on and off policy.

    .. math:: \sum_t r_{1:t-1} \Big[ KL_t \sum_{u<t} s_u + \nabla KL_t \Big]

    KL_t is that of the next token given what was sampled before. It needs the logits of both
    policies, and has the smallest variance of the exact forms.

    Args:
        beta: Weight.

    Example:
        >>> FullKL().needs_logits
        True
    """

    beta: float = 0.04

    name: ClassVar[str] = "full"
    aliases: ClassVar[tuple[str, ...]] = ("rao-blackwell", "full-vocabulary")
    needs_logits: ClassVar[bool] = True

    def terms(self, tokens: Tokens) -> Float[Tensor, "*batch T"]:
        """Return beta sg(r_{1:t-1}) [KL_t + sg(KL_t) sum_{u < t} log pi_u]."""
        kl = _next_token_kl(tokens)
        before = safe_exp(tokens.log_ratio.cumsum(-1) - tokens.log_ratio).detach()
        scores = tokens.log_prob.cumsum(-1) - tokens.log_prob
        return self.beta * before * (kl + kl.detach() * scores) * tokens.mask

    def exact(self, on_policy: bool) -> bool:
        """Return True.

        Args:
            on_policy: Either.
        """
        return True


def _next_token_kl(tokens: Tokens) -> Float[Tensor, "*batch T"]:
    if tokens.logits is None or tokens.reference_logits is None:
        raise ValueError("the full KL needs logits and reference_logits, [*batch, G, T, V]")
    known = tokens.mask.unsqueeze(-1)
    own, other = (
        torch.where(known, table, 0.0).log_softmax(-1)
        for table in (tokens.logits, tokens.reference_logits)
    )
    possible = own > -torch.inf
    log_ratio = torch.where(possible, own, 0.0) - torch.where(possible, other, 0.0)
    terms = own.exp() * log_ratio.clamp(max=-torch.finfo(own.dtype).min / 4)
    return torch.where(tokens.mask, terms.sum(-1), 0.0)


KLS: dict[str, type[KLTerm]] = {
    cls.name: cls for cls in (NoKL, K1, K2, K3, K3Ratio, K1Ratio, K1Prefix, FullKL)
}
"""The KL terms by their names."""
