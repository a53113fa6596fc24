"""Targets: the objectives whose gradient an estimator of policy gradients may be after.

A bias is relative to a target. Most quarrels about policy gradients are between two targets.
"""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.success_targets import PassSum, Transformed
from gradlab.sequences.target_base import OfSequences, Target, check_binary

__all__ = [
    "TARGETS",
    "MaxAt",
    "PassAt",
    "PassSum",
    "Penalized",
    "Return",
    "Surrogate",
    "Target",
    "Transformed",
    "target_of",
]


@dataclass(frozen=True)
class Return(OfSequences):
    r"""The expected reward.

    .. math:: J = E_\pi R(y)

    Example:
        >>> str(Return())
        'J'
    """

    form: ClassVar[str] = r"J"

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return J.

        Args:
            on: The policy on a task.
        """
        return on.probabilities @ on.rewards

    def worth(self, on: EnumeratedPolicy) -> Float[Tensor, " S"]:
        """Return the rewards.

        Args:
            on: The policy on a task.
        """
        return on.rewards

    def __str__(self) -> str:
        return "J"


@dataclass(frozen=True)
class Penalized(Target):
    r"""The expected reward minus a penalty for leaving the reference policy.

    .. math:: J - \beta KL(\pi \| ref), \quad KL = E_\pi \log \frac{\pi(y)}{ref(y)}

    Args:
        beta: The factor of the divergence of whole sequences.

    Raises:
        ValueError: If it is not a finite number.

    Example:
        >>> str(Penalized(0.1))
        'J-KL(beta=0.1)'
    """

    beta: float
    form: ClassVar[str] = r"J-KL\(beta=(.+)\)"

    def __post_init__(self) -> None:
        if not isinstance(self.beta, int | float) or not math.isfinite(self.beta):
            raise ValueError(f"beta must be a finite number, not {self.beta!r}")

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return the penalized reward.

        Args:
            on: The policy on a task.
        """
        return Return().value(on) - self.beta * on.divergence

    def weights(self, on: EnumeratedPolicy) -> list[Float[Tensor, "_ V"]]:
        """Return those of the rewards minus those of the penalties.

        Args:
            on: The policy on a task.
        """
        each = zip(Return().weights(on), on.divergence_weights(), strict=True)
        return [of_reward - self.beta * of_penalty for of_reward, of_penalty in each]

    def __str__(self) -> str:
        return f"J-KL(beta={self.beta:g})"


@dataclass(frozen=True)
class MaxAt(OfSequences):
    r"""The expected best reward of k independent sequences.

    .. math:: E \max(R(y_1), ..., R(y_k))

    Args:
        k: How many sequences, at least 1.

    Raises:
        ValueError: If it is not such a number.

    Example:
        >>> str(MaxAt(4))
        'max@4'
    """

    k: int
    form: ClassVar[str] = r"max@(\d+)"

    def __post_init__(self) -> None:
        check_int("k", self.k, 1)

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return the expected best reward.

        Args:
            on: The policy on a task.
        """
        levels, mass, _ = _levels(on)
        below = mass.cumsum(0).clamp_max(1.0)
        at = below**self.k
        return levels @ torch.diff(at, prepend=at.new_zeros(1))

    def worth(self, on: EnumeratedPolicy) -> Float[Tensor, " S"]:
        """Return k E max(R(y), the best of k - 1 others).

        Args:
            on: The policy on a task.
        """
        levels, mass, place = _levels(on)
        at = mass.cumsum(0).clamp_max(1.0) ** (self.k - 1)
        chance = torch.diff(at, prepend=at.new_zeros(1)) if self.k > 1 else torch.zeros_like(at)
        # E max(r, M) = r P(M <= r) + sum of the levels above r.
        above = (levels * chance).flip(0).cumsum(0).flip(0) - levels * chance
        return self.k * (levels * at + above)[place]

    def __str__(self) -> str:
        return f"max@{self.k}"


@dataclass(frozen=True)
class PassAt(MaxAt):
    r"""The probability that one of k sequences is right: `MaxAt` of rewards 0 and 1.

    .. math:: pass@k = 1 - (1 - p)^k, \quad p = P(R = 1)

    Args:
        k: How many sequences, at least 1.

    Raises:
        ValueError: If it is not such a number.

    Example:
        >>> str(PassAt(4))
        'pass@4'
    """

    form: ClassVar[str] = r"pass@(\d+)"

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return the probability.

        Args:
            on: The policy on a task.
        """
        check_binary(on)
        return super().value(on)

    def worth(self, on: EnumeratedPolicy) -> Float[Tensor, " S"]:
        """Return k (1 - p)^(k - 1) R, up to a constant.

        Args:
            on: The policy on a task.
        """
        check_binary(on)
        return super().worth(on)

    def __str__(self) -> str:
        return f"pass@{self.k}"


@dataclass(frozen=True)
class Surrogate(Target):
    r"""The surrogate of PPO and TRPO: one step of the policy, the rest by the rollout policy.

    .. math:: E_\mu \sum_t \frac{\pi(y_t | y_{<t})}{\mu(y_t | y_{<t})} A^\mu_t

    Its gradient is that of J where the two policies are the same.

    Example:
        >>> str(Surrogate())
        'surrogate'
    """

    form: ClassVar[str] = r"surrogate"

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return the surrogate.

        Args:
            on: The policy on a task.
        """
        return on.surrogate[0]

    def weights(self, on: EnumeratedPolicy) -> list[Float[Tensor, "_ V"]]:
        """Return pi(v | x) mu(x) Q(x, v) of each token v after each context x.

        Args:
            on: The policy on a task.
        """
        on.check_support()
        return on.surrogate[1]

    def __str__(self) -> str:
        return "surrogate"


def _levels(on: EnumeratedPolicy) -> tuple[Tensor, Tensor, Tensor]:
    """Return the different rewards in order, their probabilities, and the place of each reward."""
    levels, place = on.rewards.unique(return_inverse=True)
    mass = torch.zeros_like(levels).index_add_(0, place, on.probabilities)
    return levels, mass, place


TARGETS: tuple[type[Target], ...] = (
    *(Return, Penalized, PassAt, MaxAt, PassSum, Transformed, Surrogate),
)
"""All targets."""

_FORMS = "J, J-KL(beta=0.1), pass@4, max@4, sum-pass@4, h(g=4) or surrogate"


def target_of(text: Target | str) -> Target:
    """Return the target of a text form.

    Args:
        text: "J", "J-KL(beta=0.1)", "pass@4", "max@4", "sum-pass@4" (of MaxRL), "h(g=4)" (of GRPO)
            or "surrogate"; a Target stays as it is.

    Returns:
        The target.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> target_of("pass@4"), target_of("h(g=8)")
        (PassAt(k=4), Transformed(g=8, eps=0.0))
    """
    if isinstance(text, Target):
        return text
    words = str(text).strip()
    if words == "h(p)":
        raise ValueError("h(p) is that of an estimator: write its group size, such as h(g=4)")
    for cls in TARGETS:
        found = re.fullmatch(cls.form, words)
        if found is None:
            continue
        given = [part for part in found.groups() if part is not None]
        try:
            numbers = [int(part) if part.isdigit() else float(part) for part in given]
        except ValueError:
            break
        return cls(*map(float, numbers)) if cls is Penalized else cls(*numbers)
    raise ValueError(f"target must be {_FORMS} (with your numbers), not {text!r}")
