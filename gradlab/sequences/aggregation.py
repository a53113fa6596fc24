"""How per-token terms L_it become one number: the quarrel about lengths.

Each aggregation is a weight a_i per sequence: the estimate is sum_i a_i sum_t grad L_it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.choices import Choice

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "Constant",
    "LocalTokenMean",
    "SequenceMean",
    "Sum",
    "TokenMean",
]


class Aggregation(Choice, ABC):
    """A weight per sequence, the same at all its tokens.

    Declares:
        keeps: Whether the weight is the same for all sequences, so that the mean of the estimate
            keeps its direction.
        symmetric: Whether the order of the sequences does not matter.
        says: Why the direction changes, where it does.

    Example:
        >>> SequenceMean().weights(torch.tensor([[2, 4]]), 4)
        tensor([[0.2500, 0.1250]], dtype=torch.float64)
    """

    keeps: ClassVar[bool]
    symmetric: ClassVar[bool] = True
    says: ClassVar[str] = ""

    @abstractmethod
    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return a_i for B prompts of G sequences each.

        Args:
            lengths: Tokens of each sequence.
            horizon: T, tokens with padding; the constant of `CONST` unless that has its own.
        """

    def factor(self, horizon: int | None = None) -> float | None:
        """Return a_i times B G where that is a constant, else None.

        Args:
            horizon: T.
        """
        return 1.0 if self.keeps else None


def _tokens(lengths: Tensor) -> Tensor:
    return lengths.clamp(min=1).double()


def _sequences(lengths: Tensor) -> int:
    return lengths.shape[-2] * lengths.shape[-1]


@dataclass(frozen=True, repr=False)
class Sum(Aggregation):
    r"""SUM, the mean over sequences of the sum over tokens: a_i = 1/G.

    verl calls it seq-mean-token-sum.

    Example:
        >>> Sum()
        SUM
    """

    name: ClassVar[str] = "SUM"
    aliases: ClassVar[tuple[str, ...]] = ("seq-mean-token-sum",)
    keeps: ClassVar[bool] = True

    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return 1 / (B G)."""
        return torch.ones_like(_tokens(lengths)) / _sequences(lengths)


@dataclass(frozen=True, repr=False)
class SequenceMean(Aggregation):
    r"""SEQ, the mean over sequences of the mean over tokens: a_i = 1/(G n_i).

    GRPO as published, `grpo` of TRL, seq-mean-token-mean of verl. Each sample counts as A_i / n_i,
    so the mean of the estimate is the gradient of no stated objective, whatever the group size.

    Example:
        >>> SequenceMean()
        SEQ
    """

    name: ClassVar[str] = "SEQ"
    aliases: ClassVar[tuple[str, ...]] = (
        "sequence-mean-token-mean",
        "seq-mean-token-mean",
        "sample-mean",
        "grpo",
    )
    keeps: ClassVar[bool] = False
    says: ClassVar[str] = "SEQ divides each advantage by the length of its own sequence"

    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return 1 / (B G n_i)."""
        return 1 / (_tokens(lengths) * _sequences(lengths))


@dataclass(frozen=True, repr=False)
class TokenMean(Aggregation):
    r"""TOK, the mean over all tokens of the training batch: a_i = 1 / sum_j n_j.

    DAPO, `dapo` of TRL, token-mean of verl with a global token count. Biased at finite group size,
    because n_i stands in its own denominator; the limit of large batches is grad J / E n.

    Example:
        >>> TokenMean()
        TOK
    """

    name: ClassVar[str] = "TOK"
    aliases: ClassVar[tuple[str, ...]] = ("token-mean", "TOK-global", "dapo")
    keeps: ClassVar[bool] = False
    says: ClassVar[str] = (
        "TOK divides by the tokens of the batch, of which the own sequence is a part; the bias "
        "falls as the batch grows"
    )

    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return 1 over the tokens of all B G sequences."""
        tokens = _tokens(lengths)
        return (1 / tokens.sum((-2, -1), keepdim=True)).expand_as(tokens)


@dataclass(frozen=True, repr=False)
class LocalTokenMean(Aggregation):
    r"""TOK-local, the mean over micro-batches of the mean over the tokens of each.

    BNPO, `bnpo` of TRL; token-mean with a local count. Micro-batches of unequal token counts
    estimate another field than the global mean.

    Args:
        micro: Sequences in a micro-batch, taken in their order; None: one prompt's group is one
            micro-batch.

    Example:
        >>> LocalTokenMean(micro=2).weights(torch.tensor([[1, 1, 4, 4]]))
        tensor([[0.2500, 0.2500, 0.0625, 0.0625]], dtype=torch.float64)
    """

    micro: int | None = None

    name: ClassVar[str] = "TOK-local"
    aliases: ClassVar[tuple[str, ...]] = ("bnpo",)
    keeps: ClassVar[bool] = False
    says: ClassVar[str] = "TOK-local divides by the tokens of each micro-batch"

    def __post_init__(self) -> None:
        if self.micro is not None:
            check_int("micro", self.micro, 1)

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether the order of the sequences does not matter."""
        return self.micro is None

    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return 1 over the micro-batches and the tokens of each."""
        tokens = _tokens(lengths)
        size = self.micro or tokens.shape[-1]
        parts = tokens.flatten(-2).split(size, -1)
        means = [(1 / part.sum(-1, keepdim=True)).expand_as(part) for part in parts]
        return torch.cat(means, -1).unflatten(-1, tokens.shape[-2:]) / len(parts)


@dataclass(frozen=True, repr=False)
class Constant(Aggregation):
    r"""CONST, the sum over tokens divided by a constant: a_i = 1/(G L).

    Dr. GRPO, `dr_grpo` of TRL, seq-mean-token-sum-norm of verl.

    Args:
        length: L; None: T, the length of the padded batch.

    Example:
        >>> Constant(length=100)
        CONST(length=100)
    """

    length: int | None = None

    name: ClassVar[str] = "CONST"
    aliases: ClassVar[tuple[str, ...]] = ("constant", "seq-mean-token-sum-norm", "dr_grpo")
    keeps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.length is not None:
            check_int("length", self.length, 1)

    def weights(
        self, lengths: Int[Tensor, "*batch B G"], horizon: int | None = None
    ) -> Float[Tensor, "*batch B G"]:
        """Return 1 / (B G L)."""
        size = self.length or horizon
        if size is None:
            raise ValueError("CONST divides by the horizon: give horizon, or CONST(length=...)")
        return torch.ones_like(_tokens(lengths)) / (_sequences(lengths) * size)

    def factor(self, horizon: int | None = None) -> float | None:
        """Return 1/L.

        Args:
            horizon: T.
        """
        size = self.length or horizon
        return None if size is None else 1 / size


AGGREGATIONS: dict[str, type[Aggregation]] = {
    cls.name: cls for cls in (Sum, SequenceMean, TokenMean, LocalTokenMean, Constant)
}
"""The aggregations by their names."""
