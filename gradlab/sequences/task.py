"""A task: which sequences there are, and what each of them earns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.faults import RewardError
from gradlab.sequences.tree import Tree

__all__ = ["Reward", "Task", "rewarded", "tasks_of"]

Reward = Callable[[Int[Tensor, "B T"], Int[Tensor, " B"]], Tensor]
"""From tokens [B, T] and lengths [B] to rewards [B], or to dense rewards [B, T]."""

# The largest size of a reward: moments square it.
_LARGEST = 1e100
# Sequences on which a reward is asked whether it reads what it must not.
_ASKED = 64


@dataclass(frozen=True)
class Task:
    """Sequences of up to T tokens out of V, and their rewards.

    A sequence ends with the token `end`, which counts in its length, or after T tokens. Behind its
    end it is padded, with `end`.

    Args:
        reward: From tokens [B, T] and lengths [B] to the rewards [B]. Dense rewards are [B, T],
            one for each token; their sum over the tokens of a sequence is what it earns. What
            stands in padded positions must not matter.
        vocabulary: V, the number of tokens, with the end token.
        horizon: T, the most tokens of a sequence.
        end: The token that ends a sequence, or None: then all have T tokens.
        prompt: Tokens that the policy reads in front of the sequence. They are not rewarded.
        name: What rows call the task; by default the name of the reward.

    Raises:
        ValueError: If a number is not allowed.
        TypeError: If the reward cannot be called.

    Example:
        >>> task = Task(lambda tokens, lengths: (tokens[:, 0] == 1).double(), 3, 3, end=2)
        >>> task.tree.size
        15
    """

    reward: Reward
    vocabulary: int
    horizon: int
    end: int | None = None
    prompt: tuple[int, ...] = ()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not callable(self.reward):
            raise TypeError(
                "reward must be a function of tokens [B, T] and lengths [B], not "
                f"{type(self.reward).__name__}"
            )
        check_int("vocabulary", self.vocabulary, 2)
        check_int("horizon", self.horizon, 1)
        if self.end is not None:
            check_int("end", self.end, 0, self.vocabulary - 1)
        object.__setattr__(self, "prompt", tuple(map(int, self.prompt)))
        if not self.name:
            found = getattr(self.reward, "__name__", type(self.reward).__name__)
            object.__setattr__(self, "name", "reward" if found == "<lambda>" else found)

    @cached_property
    def tree(self) -> Tree:
        """All sequences."""
        return Tree(self.vocabulary, self.horizon, self.end)

    def rows(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B L"]:
        """Return what the policy reads: the prompt in front of the tokens.

        Args:
            tokens: Sequences [B, T].
        """
        if not self.prompt:
            return tokens
        return torch.cat([torch.tensor(self.prompt).expand(len(tokens), -1), tokens], 1)


def tasks_of(task: Task | Iterable[Task]) -> list[Task]:
    """Return one task, or the tasks of several prompts, as a list.

    Args:
        task: A Task, or several, of which one policy reads the prompts.

    Returns:
        The tasks.

    Raises:
        TypeError: If something is not a Task.
        ValueError: If there is none.

    Example:
        >>> task = Task(lambda tokens, lengths: lengths.double(), 2, 2)
        >>> len(tasks_of(task)), len(tasks_of([task, task]))
        (1, 2)
    """
    found = [task] if isinstance(task, Task) else list(task)
    for one in found:
        if not isinstance(one, Task):
            raise TypeError(f"a task must be a Task, not {type(one).__name__}")
    if not found:
        raise ValueError("there must be at least one task")
    return found


def rewarded(
    task: Task, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], *, check: bool = False
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B T"] | None]:
    """Return what sequences earn, and their dense rewards if the task has these.

    Args:
        task: The task.
        tokens: Sequences [B, T].
        lengths: Their lengths [B].
        check: Whether the reward is asked if it reads padding or other sequences.

    Returns:
        Rewards [B], float64, and dense rewards [B, T], 0 where padded, or None.

    Raises:
        RewardError: If the rewards have another shape, are not finite, or read what they must not.

    Example:
        >>> task = Task(lambda tokens, lengths: tokens.double(), 2, 2)
        >>> rewarded(task, torch.tensor([[0, 1], [1, 1]]), torch.tensor([2, 2]))[0]
        tensor([1., 2.], dtype=torch.float64)
    """
    found = _rewards(task, tokens, lengths)
    if check:
        _check_reads(task, tokens[:_ASKED], lengths[:_ASKED], found[:_ASKED])
    if found.ndim == 1:
        return found, None
    return found.sum(-1), found


def _rewards(task: Task, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return rewards [B], or dense ones [B, T] without those of padding, after checks."""
    with torch.no_grad():
        found = task.reward(tokens.clone(), lengths.clone())
    wanted = f"[{len(tokens)}] or, dense, {list(tokens.shape)}"
    if not isinstance(found, Tensor):
        raise RewardError(f"the reward must return a tensor {wanted}, not {type(found).__name__}")
    if found.shape not in (lengths.shape, tokens.shape):
        raise RewardError(
            f"the reward must return {wanted} for {len(tokens)} sequences, not {list(found.shape)}"
        )
    found = found.detach().to(torch.float64)
    if found.ndim == 2:
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]
        found = torch.where(inside, found, 0.0)
    wrong = ~found.isfinite()
    if wrong.any():
        at = int(wrong.reshape(len(wrong), -1).any(-1).nonzero()[0])
        shown = tokens[at, : int(lengths[at])].tolist()
        what = "NaN" if found[at].isnan().any() else "infinite"
        raise RewardError(f"the reward of the sequence {shown} is {what}; every one must be finite")
    if len(found) and float(found.abs().max()) > _LARGEST:
        raise RewardError(
            f"a reward of {float(found.abs().max()):.3g} has a square that is not finite; rewards "
            f"may be up to {_LARGEST:g} in size: divide them by a constant"
        )
    return found


def _check_reads(task: Task, tokens: Tensor, lengths: Tensor, found: Tensor) -> None:
    """Raise RewardError if rewards depend on padding, on other sequences, or on chance."""
    if not torch.equal(_rewards(task, tokens, lengths), found):
        raise RewardError("the reward of the same sequences is another one at a second call")
    turned = _rewards(
        task, tokens.flip(0)[: len(tokens) // 2 + 1], lengths.flip(0)[: len(tokens) // 2 + 1]
    )
    if not torch.allclose(turned, found.flip(0)[: len(turned)], rtol=1e-9, atol=1e-12):
        raise RewardError("the reward of a sequence depends on the other sequences of the batch")
    padded = torch.arange(tokens.shape[1]) >= lengths[:, None]
    other = torch.where(padded, (tokens + 1) % task.vocabulary, tokens)
    moved = _rewards(task, other, lengths)
    changed = (moved != found).reshape(len(found), -1).any(-1)
    if changed.any():
        at = int(changed.nonzero()[0])
        shown = tokens[at, : int(lengths[at])].tolist()
        raise RewardError(
            f"the reward of the sequence {shown} depends on what stands behind its end: mask the "
            "tokens at positions of lengths and later"
        )
