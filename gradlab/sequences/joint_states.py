"""The states of several policies together: one table for what they do, over what can be reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from gradlab.exact.enumeration import TooLargeError

__all__ = ["JointStates", "joint_states"]

# States of all policies together, at most.
_STATES = 2**14


@dataclass(frozen=True, eq=False)
class JointStates:
    """The states that policies reach together from the start, which is state 0.

    Attributes:
        moves: The state after each token in each state, [Z, V].
        each: The state of each policy in each of them, [Q, Z].
    """

    moves: Int[Tensor, "Z V"]
    each: Int[Tensor, "Q Z"]


def joint_states(machines: Sequence[Any], starts: Sequence[int]) -> JointStates:
    """Return the joint states of policies that read the same tokens.

    Args:
        machines: Modules with `transitions` [Z, V].
        starts: The state of each at the start.

    Raises:
        TooLargeError: If there are too many.

    Example:
        >>> from gradlab.sequences import NGram
        >>> found = joint_states([NGram(2, 2), NGram(2, 1)], [0, 0])
        >>> found.each.tolist(), found.moves.tolist()
        ([[0, 1, 2], [0, 0, 0]], [[1, 2], [1, 2], [1, 2]])
    """
    moves = [machine.transitions.tolist() for machine in machines]
    found = {tuple(starts): 0}
    waiting, rows = [tuple(starts)], []
    for state in waiting:
        row = []
        for after in zip(*(move[one] for move, one in zip(moves, state, strict=True)), strict=True):
            if after not in found:
                if len(found) >= _STATES:
                    raise TooLargeError(
                        f"the policies have more than {_STATES:,} states together: use monte_carlo"
                    )
                found[after] = len(found)
                waiting.append(after)
            row.append(found[after])
        rows.append(row)
    return JointStates(torch.tensor(rows), torch.tensor(waiting).T)
