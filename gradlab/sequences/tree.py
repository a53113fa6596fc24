"""All sequences of a task as a tree: contexts are its inner nodes, tokens its edges.

A context is a prefix that goes on. The contexts of each depth are numbered in lexicographic order,
so that what lies below one of them is a range, and sums over sequences are reshapes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Leaves", "Tree"]


@dataclass(frozen=True)
class Leaves:
    """Sequences that leave some contexts of one depth, context by context, token by token.

    Attributes:
        depth: The number of tokens of their contexts; the sequences have one more.
        start: The number of the first context.
        contexts: How many contexts, a power of the number of tokens that go on.
        first: The number of the first of these sequences among all.
        tokens: How many sequences leave each context.
    """

    depth: int
    start: int
    contexts: int
    first: int
    tokens: int

    @property
    def count(self) -> int:
        """How many sequences these are."""
        return self.contexts * self.tokens

    @property
    def part(self) -> slice:
        """Their places among all sequences."""
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True)
class Tree:
    """The sequences of at most `horizon` tokens, of which `end` is the last one.

    Sequences are numbered by length, then in lexicographic order. Without an end token all have
    `horizon` tokens.

    Args:
        vocabulary: V, the number of tokens.
        horizon: T, the most tokens of a sequence.
        end: The token that ends a sequence, or None.

    Example:
        >>> tree = Tree(3, 3, end=2)
        >>> tree.size, [tree.width(t) for t in range(3)]
        (15, [1, 2, 4])
        >>> tokens, lengths = tree.sequences(next(iter(tree.leaves(100))))
        >>> tokens.tolist(), lengths.tolist()
        ([[2, 2, 2]], [1])
    """

    vocabulary: int
    horizon: int
    end: int | None = None

    @cached_property
    def going(self) -> Int[Tensor, " U"]:
        """The tokens after which a sequence goes on."""
        tokens = torch.arange(self.vocabulary)
        return tokens if self.end is None else tokens[tokens != self.end]

    @property
    def branches(self) -> int:
        """U, the number of tokens after which a sequence goes on."""
        return self.vocabulary - (self.end is not None)

    def width(self, depth: int) -> int:
        """Return the number of contexts of so many tokens."""
        return self.branches**depth

    @property
    def deepest(self) -> int:
        """The depth of the last contexts."""
        return self.horizon - 1

    @property
    def size(self) -> int:
        """The number of sequences."""
        ended = 0 if self.end is None else sum(map(self.width, range(self.deepest)))
        return ended + self.width(self.deepest) * self.vocabulary

    def tokens_from(self, depth: int) -> Int[Tensor, " L"]:
        """Return the tokens that end a sequence after a context of this depth."""
        if depth == self.deepest:
            return torch.arange(self.vocabulary)
        return torch.tensor([] if self.end is None else [self.end], dtype=torch.int64)

    def leaves(self, most: int) -> Iterator[Leaves]:
        """Yield all sequences in order, at most about `most` at a time.

        Args:
            most: Sequences of a block; one context at least.
        """
        first = 0
        for depth in range(self.horizon):
            tokens = len(self.tokens_from(depth))
            if tokens == 0:
                continue
            count = self._power(most // tokens, self.width(depth))
            for start in range(0, self.width(depth), count):
                block = Leaves(depth, start, count, first, tokens)
                yield block
                first += block.count

    def first_of(self, depth: int) -> int:
        """Return the number of the first sequence that leaves a context of this depth."""
        return 0 if self.end is None else sum(map(self.width, range(depth)))

    def leaves_of(self, depth: int, start: int, contexts: int) -> Leaves:
        """Return the sequences that leave some contexts of this depth."""
        tokens = len(self.tokens_from(depth))
        return Leaves(depth, start, contexts, self.first_of(depth) + start * tokens, tokens)

    def around(self, leaves: Leaves, contexts: int) -> Leaves:
        """Return the sequences that leave more contexts, about so many, of which these are some.

        Args:
            leaves: Sequences of an aligned block.
            contexts: Contexts of the larger block.
        """
        count = max(leaves.contexts, self._power(contexts, self.width(leaves.depth)))
        return self.leaves_of(leaves.depth, leaves.start // count * count, count)

    def blocks(self, most: int, *, even: bool = False) -> Iterator[tuple[int, int]]:
        """Yield (start, count) of whole subtrees, by their contexts of the deepest level.

        Args:
            most: Deepest contexts of a block.
            even: Whether a block may be several neighbouring subtrees of equal size.
        """
        width = self.width(self.deepest)
        count = self._power(most, width)
        if even:
            # Of siblings, so that their ancestors are the same.
            fits = (k for k in range(1, self.branches) if self.branches % k == 0)
            count *= max((k for k in fits if k * count <= min(most, width)), default=1)
        for start in range(0, self.width(self.deepest), count):
            yield start, count

    def _power(self, most: int, width: int) -> int:
        """Return the largest power of U, or 1, up to `most` and `width`."""
        if self.branches == 1:
            return 1
        count = 1
        while count * self.branches <= min(most, width):
            count *= self.branches
        return count

    def ancestors(self, depth: int, start: int, count: int, above: int) -> tuple[int, int]:
        """Return (start, count) of the contexts of depth `above` over some of depth `depth`."""
        below = self.width(depth - above)
        return start // below, max(1, count // below)

    def begun(self, start: int, count: int) -> list[tuple[int, int]]:
        """Return, for each depth, the contexts whose first deepest descendant is in a block.

        Args:
            start: The first deepest context of the block.
            count: How many there are.

        Returns:
            (first, how many) per depth; how many may be 0.
        """
        found = []
        for depth in range(self.horizon):
            below = self.width(self.deepest - depth)
            first = -(-start // below)
            found.append((first, max(0, (start + count - 1) // below - first + 1)))
        return found

    def contexts(self, depth: int, start: int, count: int) -> Int[Tensor, "n T"]:
        """Return contexts as rows of T tokens, filled up with padding.

        Args:
            depth: Tokens of each context.
            start: The number of the first.
            count: How many.
        """
        index = torch.arange(start, start + count)
        rows = torch.full((count, self.horizon), self.padding)
        for t in range(depth):
            rows[:, t] = self.going[index // self.width(depth - 1 - t) % self.branches]
        return rows

    @property
    def padding(self) -> int:
        """The token that stands behind the end of a sequence."""
        return 0 if self.end is None else self.end

    def sequences(self, leaves: Leaves) -> tuple[Int[Tensor, "n T"], Int[Tensor, " n"]]:
        """Return the tokens and lengths of some sequences.

        Args:
            leaves: Which ones.
        """
        rows = self.contexts(leaves.depth, leaves.start, leaves.contexts)
        rows = rows.repeat_interleave(leaves.tokens, 0)
        rows[:, leaves.depth] = self.tokens_from(leaves.depth).repeat(leaves.contexts)
        return rows, torch.full((leaves.count,), leaves.depth + 1)

    def path(self, leaves: Leaves) -> list[Int[Tensor, " n"]]:
        """Return, for each token of some sequences, the number (context times V + token) of it."""
        index = torch.arange(leaves.start, leaves.start + leaves.contexts)
        index = index.repeat_interleave(leaves.tokens)
        found = []
        for t in range(leaves.depth):
            context = index // self.width(leaves.depth - t)
            token = self.going[index // self.width(leaves.depth - 1 - t) % self.branches]
            found.append(context * self.vocabulary + token)
        last = self.tokens_from(leaves.depth).repeat(leaves.contexts)
        return [*found, index * self.vocabulary + last]

    def along(self, of_tokens: list[Float[Tensor, "_ V"]], leaves: Leaves) -> Float[Tensor, "n T"]:
        """Return what belongs to the tokens of some sequences, 0 where they are padded.

        Args:
            of_tokens: For each depth, one number per context and token.
            leaves: Which sequences.
        """
        found = of_tokens[0].new_zeros(leaves.count, self.horizon)
        for t, places in enumerate(self.path(leaves)):
            found[:, t] = of_tokens[t].flatten()[places]
        return found

    def add_up(
        self, totals: list[Float[Tensor, "_ V"]], leaves: Leaves, weights: Float[Tensor, "n T"]
    ) -> None:
        """Add to each token of the tree the weights that some sequences have for it.

        Args:
            totals: For each depth, one number per context and token; changed in place.
            leaves: Which sequences.
            weights: Of each of their tokens.
        """
        for t, places in enumerate(self.path(leaves)):
            totals[t].view(-1).index_add_(0, places, weights[:, t])

    def zeros(self) -> list[Float[Tensor, "_ V"]]:
        """Return a zero for each token of each context, one tensor per depth."""
        return [
            torch.zeros(self.width(t), self.vocabulary, dtype=torch.float64)
            for t in range(self.horizon)
        ]
