"""The scores of all tokens after some contexts, held as those of all tokens but the likeliest.

Scores after a context sum to 0 with weights pi. So the score of the likeliest token is a
combination of the others, and inner products with it are the same combination of theirs.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["TokenScores"]


@dataclass(frozen=True, eq=False)
class TokenScores:
    """The scores grad log pi(v | context) of all tokens v after B contexts.

    Tokens are ranked after each context. The likeliest has rank 0.

    Args:
        others: Of the tokens of rank 1, 2, ..., [B, V - 1, P].
        share: What each of them counts for in the score of the likeliest, -pi_r / pi_0.
        rank: The rank of each token after each context.

    Example:
        >>> others = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> scores = TokenScores(others, torch.tensor([[-1.0, -0.5]]), torch.tensor([[2, 0, 1]]))
        >>> scores.by_token
        tensor([[[ 0.,  2.],
                 [-1., -1.],
                 [ 1.,  0.]]])
    """

    others: Float[Tensor, "B D P"]
    share: Float[Tensor, "B D"]
    rank: Int[Tensor, "B V"]

    @cached_property
    def likeliest(self) -> Float[Tensor, "B P"]:
        """The scores of the likeliest tokens."""
        return (self.share[:, None] @ self.others).squeeze(1)

    @property
    def by_token(self) -> Float[Tensor, "B V P"]:
        """All scores, in the order of the tokens."""
        every = torch.cat([self.likeliest[:, None], self.others], 1)
        return every.gather(1, self.rank[..., None].expand_as(every))

    def part(self, first: int, count: int) -> "TokenScores":
        """Return the scores after some of the contexts.

        Args:
            first: The first of them.
            count: How many.
        """
        at = slice(first, first + count)
        found = TokenScores(self.others[at], self.share[at], self.rank[at])
        found.__dict__["likeliest"] = self.likeliest[at]
        return found

    def squares(self) -> Float[Tensor, "B V"]:
        """Return the squared length of each score, by token."""
        first = self.likeliest.square().sum(-1, keepdim=True)
        rest = torch.linalg.vecdot(self.others, self.others)
        return torch.cat([first, rest], 1).gather(1, self.rank)

    def of(self, context: Int[Tensor, " n"], token: Int[Tensor, " n"]) -> Float[Tensor, "n P"]:
        """Return the scores of some tokens.

        Args:
            context: The context of each.
            token: The token.
        """
        rank = self.rank[context, token]
        place = context * self.others.shape[1] + rank - 1
        found = self.others.flatten(0, 1)[place.clamp_min(0)]
        first = rank == 0
        found[first] = self.likeliest[context[first]]
        return found

    def products(self, paths: list[Float[Tensor, "_ P"]]) -> Float[Tensor, "B V t"]:
        """Return the inner products with the scores on the path to each context, by token.

        Args:
            paths: For each depth above, the score on the path of each of some contexts: each
                belongs to equally many of the B contexts, in their order.
        """
        contexts, vocabulary = self.rank.shape
        if not paths:
            return self.others.new_zeros(contexts, vocabulary, 0)
        *above, last = paths
        found = torch.linalg.vecdot(self.others, _spread(last, contexts)[:, None])[..., None]
        if above:
            # Contexts with the same parent share the path above it.
            groups = len(above[-1])
            shared = torch.stack([_spread(one, groups) for one in above], -1)
            grouped = self.others.reshape(groups, -1, shared.shape[1])
            found = torch.cat([(grouped @ shared).view(*self.share.shape, -1), found], 2)
        every = torch.cat([self.share[:, None] @ found, found], 1)
        return every.gather(1, self.rank[..., None].expand_as(every))

    def sums(self, weights: Float[Tensor, "K B V"]) -> Float[Tensor, "K P"]:
        """Return the sums of weighted scores.

        Args:
            weights: K weights of each token after each context.
        """
        ranked = torch.empty_like(weights).scatter_(2, self.rank.expand_as(weights), weights)
        of_others = ranked[..., 1:] + ranked[..., :1] * self.share
        return of_others.flatten(1) @ self.others.flatten(0, 1)


def _spread(values: Tensor, count: int) -> Tensor:
    """Return values repeated, each as often as the next, so that there are so many."""
    return values if len(values) == count else values.repeat_interleave(count // len(values), 0)
