"""A reward that a finite automaton computes, one token after the other."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Automaton"]


@dataclass(frozen=True, eq=False)
class Automaton:
    """A verifier with finitely many states: the reward is that of the state at the end.

    The end token is read too, so that a sequence that is cut at the horizon can be told apart.

    Args:
        transitions: The state after each token in each state, [U, V]. State 0 is that of the start.
        rewards: The reward of a sequence that stops in each state, [U].

    Raises:
        ValueError: If the two do not fit together.

    Example:
        An even number of tokens 1.

        >>> even = Automaton(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 0.0]))
        >>> even(torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.tensor([3, 3]))
        tensor([1., 0.], dtype=torch.float64)
    """

    transitions: Int[Tensor, "U V"]
    rewards: Float[Tensor, " U"]

    def __post_init__(self) -> None:
        states = len(self.rewards)
        shape = tuple(self.transitions.shape)
        if len(shape) != 2 or shape[0] != states:
            raise ValueError(
                f"transitions must be [U, V] with U = {states}, one row per reward, not "
                f"{list(shape)}"
            )
        if self.transitions.min() < 0 or self.transitions.max() >= states:
            raise ValueError(f"transitions must lead to states 0 to {states - 1}")
        object.__setattr__(self, "rewards", self.rewards.to(torch.float64))

    def __call__(
        self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Return the rewards of sequences.

        Args:
            tokens: Sequences [B, T].
            lengths: Their lengths [B].
        """
        state = torch.zeros_like(lengths)
        for t in range(tokens.shape[1]):
            state = torch.where(t < lengths, self.transitions[state, tokens[:, t]], state)
        return self.rewards[state]
