"""A policy gradient, composed of four choices: advantage, aggregation, loss and KL term.

Its estimate is sum_it c_it grad log pi(y_it | y_i,<t). The coefficients c are the gradient of the
objective, which is written once, for the log-probabilities of the sampled tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.advantages import Advantage, LeaveOneOut, returns_to_go
from gradlab.sequences.aggregation import AGGREGATIONS, Aggregation, Sum
from gradlab.sequences.choices import call_text, read_choice
from gradlab.sequences.claims import Claim, claim_of
from gradlab.sequences.group import Group
from gradlab.sequences.kl_terms import KLS, KLTerm, NoKL
from gradlab.sequences.ratios import PolicyLoss, Score
from gradlab.sequences.sequence_losses import LOSSES
from gradlab.sequences.success_advantages import ADVANTAGES
from gradlab.sequences.tokens import Tokens

__all__ = ["PolicyGradient"]


@dataclass(frozen=True, repr=False)
class PolicyGradient:
    r"""The estimate of an ascent direction from a group of G sequences.

    .. math:: \hat g = \nabla \sum_i a_i \sum_t \big( L_{it}(A_{it}) - k_{it} \big)
        = \sum_{it} c_{it} \nabla \log \pi(y_{it} \mid y_{i,<t})

    The aggregation gives a_i, the advantage A, the loss L and the KL term k. Each may be given as a
    text.

    Args:
        advantage: One of `ADVANTAGES`.
        aggregation: One of `AGGREGATIONS`.
        loss: One of `LOSSES`.
        kl: One of `KLS`.
        g: G, sequences of a group.
        resample: Whether groups with equal rewards are drawn again: the dynamic sampling of DAPO.
        name: The published name that it derives from.
        source: Who introduced it.

    Example:
        >>> PolicyGradient("group-std", "TOK", "PPO(high=0.28)", "k3(beta=0.04)", g=8)
        PG(advantage=group-std, aggregation=TOK, loss=PPO(high=0.28), kl=k3, g=8)
        >>> estimator = PolicyGradient("loo", g=2)
        >>> group = Group(torch.tensor([1.0, 0.0]), torch.tensor([2, 1]), torch.zeros(2, 2))
        >>> estimator.coefficients(group)
        tensor([[ 0.5000,  0.5000],
                [-0.5000,  0.0000]])
    """

    advantage: Advantage = LeaveOneOut()  # noqa: RUF009 - frozen
    aggregation: Aggregation = Sum()  # noqa: RUF009
    loss: PolicyLoss = Score()  # noqa: RUF009
    kl: KLTerm = NoKL()  # noqa: RUF009
    g: int = 4
    resample: bool = False
    name: str = field(default="PG", compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for what, known in _TABLES.items():
            choice = read_choice(what, getattr(self, what), known)
            object.__setattr__(self, what, choice)
        check_int("g", self.g, 1)

    # What it is.

    @property
    def reference(self) -> str:
        """The source, as `gradlab.citations.bibtex` reads it."""
        return self.source

    def text(self) -> str:
        """Return the text form, which `gradlab.sequences.parse` reads back."""
        from gradlab.sequences.catalogue import ESTIMATORS

        base = ESTIMATORS.get(self.name, PolicyGradient())
        changed = {
            part.name: getattr(self, part.name)
            for part in fields(self)
            if part.compare and getattr(self, part.name) != getattr(base, part.name)
        }
        return call_text(self.name if self.name in ESTIMATORS else "PG", changed)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def with_(self, **changes: Any) -> "PolicyGradient":
        """Return this estimator with other choices.

        Args:
            **changes: Choices, or their texts, by the names of the fields.

        Raises:
            ValueError: A choice is unknown.

        Example:
            >>> PolicyGradient().with_(aggregation="SEQ", g=2)
            PG(aggregation=SEQ, g=2)
        """
        return replace(self, **changes)

    def claim(self, horizon: int | None = None) -> Claim:
        """Return what it claims to estimate, on and off policy, and why not more.

        Args:
            horizon: T, which gives the factor of CONST.

        Example:
            >>> PolicyGradient("centred", g=4).claim().on_policy
            0.75
        """
        parts = (self.advantage, self.aggregation, self.loss, self.kl)
        return claim_of(*parts, g=self.g, resample=self.resample, horizon=horizon)

    def refusal(self, group: Group | None = None) -> str | None:
        """Return why it cannot be used, in a sentence, or None.

        Args:
            group: Where it is to be used; by default only its own fields are looked at.

        Example:
            >>> PolicyGradient("loo", g=1).refusal()
            'loo needs groups of at least 2 sequences, not 1'
        """
        size = self.g if group is None else group.size
        if size < self.advantage.least:
            least = self.advantage.least
            return f"{self.advantage} needs groups of at least {least} sequences, not {size}"
        if group is None:
            return None
        if not isinstance(self.kl, NoKL) and not self.kl.needs_logits:
            if group.reference_log_prob is None:
                return f"{self.kl} needs reference_log_prob"
        elif self.kl.needs_logits and (group.logits is None or group.reference_logits is None):
            return f"{self.kl} needs logits and reference_logits"
        if bool(((group.rollout_log_prob == -torch.inf) & group.mask).any()):
            return "rollout_log_prob is -inf at a sampled token: the ratio pi/mu is undefined there"
        return None

    # What it weighs scores with.

    @property
    def factorizes(self) -> bool:
        """Whether the coefficients of terminal rewards are those of classes of (R, n).

        Then c = advantages[..., None] * token_weights(sign of advantages) + scales[..., None] *
        own_weights, where `advantages` is given `seen_rewards`.
        """
        to_go = self.kl.place == "reward" and self.kl.per == "token"
        separate = self.aggregation.symmetric and (not to_go or self.loss.signless)
        return separate and not self.advantage.per_token and not self.loss.couples

    def coefficients(self, group: Group) -> Float[Tensor, "*batch G T"]:
        """Return c_it, 0 where padded.

        Args:
            group: The sequences.
        """
        joint = group.joint()
        found = _gradient(lambda leaf: self.objective(joint, leaf), joint.log_prob)
        return torch.where(group.mask, found.reshape(group.log_prob.shape), 0.0)

    def logit_coefficients(self, group: Group) -> Float[Tensor, "*batch G T V"] | None:
        """Return what the gradient of the logits at each token is to be weighed with, or None.

        Only a KL term that sums over the vocabulary has such coefficients; they are added to those
        of `coefficients`.

        Args:
            group: The sequences, with logits.
        """
        if not self.kl.needs_logits:
            return None
        joint = group.joint()
        if joint.logits is None or group.logits is None:
            raise ValueError(f"{self.kl} needs logits and reference_logits")
        found = _gradient(lambda leaf: self.objective(joint, None, leaf), joint.logits)
        return found.reshape(group.logits.shape)

    def objective(
        self,
        group: Group,
        log_prob: Float[Tensor, "*batch B G T"] | None = None,
        logits: Float[Tensor, "*batch B G T V"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Return the number whose gradient the estimate is, to be maximized.

        Args:
            group: The sequences.
            log_prob: Of the policy, with its graph; by default the group's own.
            logits: Of the policy, with their graph; by default the group's own.
        """
        joint = group.joint()
        own = joint.log_prob if log_prob is None else log_prob.view_as(joint.log_prob)
        tokens = replace(
            Tokens.of_group(joint, own),
            logits=joint.logits if logits is None else logits.reshape(*own.shape, -1),
            reference_logits=joint.reference_logits,
        )
        advantage = self._advantage(joint, tokens).detach()
        terms = torch.where(joint.mask, self.loss.terms(tokens, advantage), 0.0)
        scale = self.aggregation.weights(joint.lengths, joint.horizon).to(terms.dtype)
        terms = terms - torch.where(joint.mask, self._penalty(tokens), 0.0)
        return (scale * terms.sum(-1)).sum((-2, -1))

    def seen_rewards(self, group: Group) -> Float[Tensor, "*batch G"]:
        """Return the rewards that the advantage sees: minus a KL penalty of the sequence.

        Args:
            group: The sequences.
        """
        if self.kl.place != "reward" or self.kl.per != "sequence":
            return group.rewards
        tokens = Tokens.of_group(group, group.log_prob.detach())
        return group.rewards - self.kl.penalty(tokens).sum(-1)

    def _advantage(self, joint: Group, tokens: Tokens) -> Tensor:
        """Return A_it of a group [*batch, B, G], a KL penalty to go included."""
        advantage = self.advantage.of_group(joint, self.seen_rewards(joint))
        if self.kl.place == "reward" and self.kl.per == "token":
            return advantage - returns_to_go(self.kl.penalty(tokens))
        return advantage

    def _penalty(self, tokens: Tokens) -> Tensor:
        if self.kl.place == "reward":
            return torch.zeros_like(tokens.log_prob)
        return self.kl.terms(tokens)

    def kept(self, rewards: Float[Tensor, "*batch G"]) -> Bool[Tensor, "*batch"]:
        """Return which groups are used: all, or with `resample` those whose rewards differ.

        Args:
            rewards: R_i.
        """
        unequal = (rewards != rewards[..., :1]).any(-1)
        return unequal if self.resample else torch.ones_like(unequal)

    # The same in factors, for sums over classes of sequences.

    def advantages(
        self,
        rewards: Float[Tensor, "*batch G"],
        lengths: Int[Tensor, "*batch G"],
        *,
        greedy_rewards: Float[Tensor, "*batch"] | None = None,
        horizon: int | None = None,
        prompts: bool = False,
    ) -> Float[Tensor, "*batch G"]:
        """Return a_i A_i, the factor that couples the group: advantage, aggregation, group size.

        Args:
            rewards: R_i, as `seen_rewards` gives them.
            lengths: n_i.
            greedy_rewards: Reward of the greedy sequence, for ReMax.
            horizon: T, which CONST divides by.
            prompts: Whether the last axis of the batch holds the prompts of one training batch.
        """
        if not prompts:
            rewards, lengths = rewards.unsqueeze(-2), lengths.unsqueeze(-2)
            greedy_rewards = None if greedy_rewards is None else greedy_rewards.unsqueeze(-1)
        found = self.advantage.of_rewards(rewards, lengths, greedy_rewards)
        found = found * self.aggregation.weights(lengths, horizon).to(found.dtype)
        return found if prompts else found.squeeze(-2)

    def scales(
        self,
        lengths: Int[Tensor, "*batch G"],
        *,
        horizon: int | None = None,
        prompts: bool = False,
    ) -> Float[Tensor, "*batch G"]:
        """Return a_i, the factor of terms without an advantage.

        Args:
            lengths: n_i.
            horizon: T, which CONST divides by.
            prompts: Whether the last axis of the batch holds the prompts of one training batch.
        """
        if prompts:
            return self.aggregation.weights(lengths, horizon)
        return self.aggregation.weights(lengths.unsqueeze(-2), horizon).squeeze(-2)

    def token_weights(
        self,
        log_prob: Float[Tensor, "*batch T"],
        rollout_log_prob: Float[Tensor, "*batch T"],
        lengths: Int[Tensor, "*batch"],
        reference_log_prob: Float[Tensor, "*batch T"] | None = None,
        *,
        sign: int = 1,
    ) -> Float[Tensor, "*batch T"]:
        """Return what a_i A_i is multiplied with at each token, for A_i of this sign.

        Args:
            log_prob: Of the policy.
            rollout_log_prob: Of the rollout policy.
            lengths: Tokens of each sequence.
            reference_log_prob: Of the reference policy, or None.
            sign: 1 or -1.
        """
        given = (rollout_log_prob, reference_log_prob, _mask(log_prob, lengths))
        one, nothing = log_prob.new_full((1,), float(sign)), log_prob.new_zeros(1)

        def slope(leaf: Tensor) -> Tensor:
            tokens = Tokens.of(leaf, *given)
            return sign * (self.loss.terms(tokens, one) - self.loss.terms(tokens, nothing))

        return _gradient_where(given[-1], slope, log_prob)

    def own_weights(
        self,
        log_prob: Float[Tensor, "*batch T"],
        rollout_log_prob: Float[Tensor, "*batch T"],
        lengths: Int[Tensor, "*batch"],
        reference_log_prob: Float[Tensor, "*batch T"] | None = None,
        *,
        logits: Float[Tensor, "*batch T V"] | None = None,
        reference_logits: Float[Tensor, "*batch T V"] | None = None,
    ) -> Float[Tensor, "*batch T"]:
        """Return what a_i alone is multiplied with at each token: KL terms, and those of DRO.

        Args:
            log_prob: Of the policy.
            rollout_log_prob: Of the rollout policy.
            lengths: Tokens of each sequence.
            reference_log_prob: Of the reference policy, or None.
            logits: Of the policy, for `full`.
            reference_logits: Of the reference policy, for `full`.
        """
        given = (rollout_log_prob, reference_log_prob, _mask(log_prob, lengths))

        def own(leaf: Tensor) -> Tensor:
            tokens = Tokens.of(leaf, *given)
            tokens = replace(tokens, logits=logits, reference_logits=reference_logits)
            advantage = leaf.new_zeros(1)
            if self.kl.place == "reward" and self.kl.per == "token":
                advantage = -returns_to_go(self.kl.penalty(tokens)).detach()
            return self.loss.terms(tokens, advantage) - self._penalty(tokens)

        return _gradient_where(given[-1], own, log_prob)


def _mask(log_prob: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(log_prob.shape[-1], device=lengths.device) < lengths.unsqueeze(-1)


def _gradient(value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        total = value(leaf).sum()
        if not total.requires_grad:
            return torch.zeros_like(at)
        found = torch.autograd.grad(total, leaf, allow_unused=True)[0]
    return torch.zeros_like(at) if found is None else found


def _gradient_where(mask: Tensor, value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    found = _gradient(lambda leaf: torch.where(mask, value(leaf), 0.0), at)
    return torch.where(mask, found, 0.0)


_TABLES: dict[str, dict[str, Any]] = {
    "advantage": ADVANTAGES,
    "aggregation": AGGREGATIONS,
    "loss": LOSSES,
    "kl": KLS,
}
