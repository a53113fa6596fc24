"""Small tasks on which everything about a policy gradient is known.

Token 0 is the first one; where there is an end token it is the last of the vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.automaton import Automaton
from gradlab.sequences.task import Task

__all__ = ["TASKS", "brackets", "copy", "dense", "easy_and_hard", "lengthy", "parity", "rare"]


@dataclass(frozen=True)
class _Copy:
    """1 if the first tokens are those of the word, and the sequence then ends, if it can."""

    word: tuple[int, ...]
    ends: bool

    def __call__(self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Tensor:
        n = len(self.word)
        right = (tokens[:, :n] == torch.tensor(self.word)).all(-1)
        return (right & (lengths == n + self.ends)).double()


def copy(word: tuple[int, ...] = (0, 1), vocabulary: int = 3, horizon: int = 3) -> Task:
    """Return the task of writing one word, then the end token: reward 1, else 0.

    Args:
        word: The tokens to write, fewer than `horizon`.
        vocabulary: V, with the end token.
        horizon: T.

    Returns:
        The task.

    Raises:
        ValueError: If the word does not fit.

    Example:
        >>> task = copy()
        >>> task.reward(torch.tensor([[0, 1, 2]]), torch.tensor([3]))
        tensor([1.], dtype=torch.float64)
    """
    check_int("length of the word", len(word), 1, horizon - 1)
    for token in word:
        check_int("token", token, 0, vocabulary - 2)
    reward = _Copy(tuple(word), ends=True)
    return Task(reward, vocabulary, horizon, end=vocabulary - 1, name="copy")


def parity(vocabulary: int = 3, horizon: int = 3) -> Task:
    """Return the task of writing an even number of tokens 1 before the end: reward 1, else 0.

    Args:
        vocabulary: V, with the end token; at least 3.
        horizon: T.

    Returns:
        The task; its reward is an `Automaton`, so that n-grams are exact at every horizon.

    Example:
        >>> task = parity()
        >>> task.reward(torch.tensor([[1, 1, 2], [1, 2, 2]]), torch.tensor([3, 2]))
        tensor([1., 0.], dtype=torch.float64)
    """
    check_int("vocabulary", vocabulary, 3)
    stays = torch.arange(2)[:, None].repeat(1, vocabulary)
    stays[:, 1] = torch.tensor([1, 0])
    verifier = Automaton(stays, torch.tensor([1.0, 0.0]))
    return Task(verifier, vocabulary, horizon, end=vocabulary - 1, name="parity")


def brackets(horizon: int = 6) -> Task:
    """Return the task of writing balanced brackets, then the end token: reward 1, else 0.

    The tokens are "(", ")" and the end. A word that is cut at the horizon, or has no bracket, is
    wrong. The verifier is an `Automaton` whose states are the depths.

    Args:
        horizon: T, at least 3.

    Returns:
        The task.

    Example:
        >>> task = brackets(3)
        >>> task.reward(torch.tensor([[0, 1, 2], [1, 0, 2]]), torch.tensor([3, 3]))
        tensor([1., 0.], dtype=torch.float64)
    """
    check_int("horizon", horizon, 3)
    # States: nothing written, depths 0 to the deepest, wrong, right.
    deepest = (horizon - 1) // 2
    start, wrong, right = 0, deepest + 2, deepest + 3
    moves = torch.full((deepest + 4, 3), wrong)
    moves[start, 0] = 2 if deepest else wrong
    for depth in range(deepest + 1):
        state = 1 + depth
        moves[state, 0] = state + 1 if depth < deepest else wrong
        moves[state, 1] = state - 1 if depth else wrong
        moves[state, 2] = wrong if depth else right
    moves[right] = right
    rewards = torch.zeros(deepest + 4)
    rewards[right] = 1.0
    return Task(Automaton(moves, rewards), 3, horizon, end=2, name="brackets")


@dataclass(frozen=True)
class _Lengthy:
    """Short sequences are right, long ones are wrong, with a part that depends on the first."""

    horizon: int

    def __call__(self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Tensor:
        long = (lengths - 1).double() / max(1, self.horizon - 1)
        return 1 - 1.5 * long + 0.5 * (tokens[:, 0] == 0) * long


def lengthy(vocabulary: int = 3, horizon: int = 3) -> Task:
    """Return a task whose reward falls with the length: short is right, long is wrong.

    Averages over the tokens of each sequence point in a wrong direction here.

    Args:
        vocabulary: V, with the end token.
        horizon: T.

    Returns:
        The task.

    Example:
        >>> task = lengthy()
        >>> task.reward(torch.tensor([[2, 2, 2], [0, 1, 0], [1, 1, 1]]), torch.tensor([1, 3, 3]))
        tensor([ 1.0000,  0.0000, -0.5000], dtype=torch.float64)
    """
    reward = _Lengthy(horizon)
    return Task(reward, vocabulary, horizon, end=vocabulary - 1, name="length-skewed")


@dataclass(frozen=True)
class _Dense:
    """Each token earns by itself and by the token before it."""

    vocabulary: int

    def __call__(self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Tensor:
        value = tokens.double() / self.vocabulary
        before = torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], 1)
        return value - before.square() + (tokens == 0)


def dense(vocabulary: int = 3, horizon: int = 3) -> Task:
    """Return a task with a reward for every token.

    Args:
        vocabulary: V, with the end token.
        horizon: T.

    Returns:
        The task; its reward is [B, T].

    Example:
        >>> task = dense()
        >>> task.reward(torch.tensor([[0, 1, 2]]), torch.tensor([3])).shape
        torch.Size([1, 3])
    """
    return Task(_Dense(vocabulary), vocabulary, horizon, end=vocabulary - 1, name="dense")


def rare(vocabulary: int = 10, horizon: int = 3) -> Task:
    """Return the task of writing one word of full length: one sequence in V^T is right.

    Under uniform logits the defaults give a probability of success of .001.

    Args:
        vocabulary: V; there is no end token.
        horizon: T.

    Returns:
        The task.

    Example:
        >>> rare().tree.size
        1000
    """
    word = tuple(t % vocabulary for t in range(horizon))
    return Task(_Copy(word, ends=False), vocabulary, horizon, name="rare")


@dataclass(frozen=True)
class _Begins:
    """1 if the first so many tokens are 0."""

    tokens: int

    def __call__(self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Tensor:
        return (tokens[:, : self.tokens] == 0).all(-1).double()


def easy_and_hard(vocabulary: int = 3, horizon: int = 3) -> list[Task]:
    """Return the tasks of two prompts: one token must be right, or all of them.

    The prompt is one token, 0 for the easy task and 1 for the hard one. A policy must read
    `horizon` + 1 tokens.

    Args:
        vocabulary: V; there is no end token.
        horizon: T.

    Returns:
        The two tasks.

    Example:
        >>> [(task.name, task.prompt) for task in easy_and_hard()]
        [('easy', (0,)), ('hard', (1,))]
    """
    return [
        Task(_Begins(1), vocabulary, horizon, prompt=(0,), name="easy"),
        Task(_Begins(horizon), vocabulary, horizon, prompt=(1,), name="hard"),
    ]


TASKS = {
    "copy": copy,
    "parity": parity,
    "brackets": brackets,
    "length-skewed": lengthy,
    "dense": dense,
    "rare": rare,
    "easy-and-hard": easy_and_hard,
}
"""The shipped tasks by their names, each a function that returns a Task or, for several prompts, \
a list of them."""
