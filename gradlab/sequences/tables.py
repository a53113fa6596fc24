"""Sums over all sequences by class: probability, mean and second moment of weighted scores.

The scores of the tokens of a subtree are computed once, whatever the number of weightings, and are
dropped before those of the next one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.exact.enumeration import TooLargeError
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.known import Known
from gradlab.sequences.token_scores import TokenScores
from gradlab.sequences.tree import Leaves

__all__ = ["Asked", "Tables", "Weighting", "tables"]

Weighting = Callable[[Known], Float[Tensor, "n T"]]
"""From some sequences to a weight for each of their tokens: h = sum_t w_t grad log pi(y_t)."""

# Numbers of the scores of one subtree, and of the means of all classes.
_SCORES, _MEANS = 2**22, 2**27
# Sequences whose weights are held at once.
_HELD = 2**13


@dataclass(frozen=True)
class Asked:
    """What is asked about some weightings.

    Attributes:
        weightings: K weightings.
        pairs: Q pairs of them, whose products are wanted.
        place: The class of each sequence, [S].
        classes: C.
    """

    weightings: Sequence[Weighting]
    pairs: Sequence[tuple[int, int]]
    place: Int[Tensor, " S"]
    classes: int

    def check(self, on: EnumeratedPolicy) -> None:
        """Raise TooLargeError if the means of all classes would not fit.

        Args:
            on: The policy on a task.
        """
        numbers = len(self.weightings) * self.classes * on.held.size
        if numbers > _MEANS:
            raise TooLargeError(
                f"the mean scores of {self.classes:,} classes of sequences would hold "
                f"{numbers:.1e} numbers at once (allowed: {_MEANS:.1e}); use monte_carlo, or "
                "rewards of few values"
            )


@dataclass(frozen=True)
class Tables:
    """What sums over groups need of each class of sequences; all times its probability.

    Attributes:
        mass: The probability of each class, [C].
        means: E h 1[class] of each weighting, [K, C, P].
        products: E h_k . h_l 1[class] for each pair (k, l) that was asked for, [Q, C].
    """

    mass: Float[Tensor, " C"]
    means: Float[Tensor, "K C P"]
    products: Float[Tensor, "Q C"]


def tables(on: EnumeratedPolicy, asked: Sequence[Asked]) -> list[Tables]:
    """Return sums over all sequences that the rollout policy samples, in one pass.

    Args:
        on: The policy on a task.
        asked: Weightings, and the classes over which they are summed.

    Returns:
        The sums for each of them.

    Raises:
        TooLargeError: If the means of all classes would not fit.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> on = EnumeratedPolicy(Tabular(3, 3), tasks.parity())
        >>> ones = lambda known: torch.ones_like(known.log_prob)
        >>> (found,) = tables(on, [Asked([ones], [(0, 0)], torch.zeros(15).long(), 1)])
        >>> bool(found.means.abs().max() < 1e-12)  # the mean score is 0
        True
    """
    if not asked:
        return []
    for one in asked:
        one.check(on)
    found = [
        Tables(
            torch.zeros(one.classes, dtype=torch.float64).index_add_(0, one.place, on.sampled),
            torch.zeros(len(one.weightings), one.classes, on.held.size, dtype=torch.float64),
            torch.zeros(len(one.pairs), one.classes, dtype=torch.float64),
        )
        for one in asked
    ]
    held = _HeldWeights(on)
    for subtree in _subtrees(on):
        of_nodes = [
            torch.zeros(len(one.weightings), one.classes * subtree.nodes, dtype=torch.float64)
            for one in asked
        ]
        for leaves, gram, nodes in subtree.leaves():
            p, weigh = on.sampled[leaves.part, None], held.at(leaves)
            for one, table, buffer in zip(asked, found, of_nodes, strict=True):
                if not one.weightings:  # all coefficients are 0
                    continue
                place = one.place[leaves.part]
                weights = torch.stack([weigh(w) for w in one.weightings], 1)
                scaled = weights @ gram
                for number, (i, j) in enumerate(one.pairs):
                    product = (scaled[:, i] * weights[:, j]).sum(-1)
                    table.products[number].index_add_(0, place, p[:, 0] * product)
                index = (place[:, None] * subtree.nodes + nodes).flatten()
                weighed = (p[:, None] * weights).transpose(0, 1).flatten(1)
                buffer.index_add_(1, index, weighed)
        for table, buffer in zip(found, of_nodes, strict=True):
            if not buffer.numel():
                continue
            weights = buffer.view(-1, *subtree.scores.rank.shape)
            table.means.flatten(0, 1).add_(subtree.scores.sums(weights))
    return found


class _HeldWeights:
    """The weights of more sequences than a subtree has: few calls of an estimator serve many."""

    def __init__(self, on: EnumeratedPolicy) -> None:
        self.on = on
        self.known: dict[int, Known] = {}
        self.weights: dict[int, dict[Weighting, Tensor]] = {}

    def at(self, leaves: Leaves) -> Callable[[Weighting], Tensor]:
        """Return the weights of some sequences, a function of the weighting."""
        depth = leaves.depth
        known = self.known.get(depth)
        if known is None or not _inside(leaves, known.leaves):
            wide = self.on.tree.around(leaves, max(leaves.contexts, _HELD // leaves.tokens))
            known = self.known[depth] = Known(self.on, wide)
            self.weights[depth] = {}
        held, wide = self.weights[depth], known.leaves
        part = slice(leaves.first - wide.first, leaves.first - wide.first + leaves.count)

        def weigh(weighting: Weighting) -> Tensor:
            if weighting not in held:
                weights = weighting(known)[:, : depth + 1].to(torch.float64)
                sampled = self.on.sampled[wide.part, None] > 0
                held[weighting] = torch.where(sampled, weights, 0.0)
            return held[weighting][part]

        return weigh


def _inside(leaves: Leaves, wide: Leaves) -> bool:
    end, wide_end = leaves.start + leaves.contexts, wide.start + wide.contexts
    return wide.start <= leaves.start and end <= wide_end


@dataclass(frozen=True)
class _Subtree:
    """The scores of all tokens after the contexts of a subtree and above it.

    `ranges`: (first, how many) contexts per depth; `begun`: those whose sequences belong here.
    """

    on: EnumeratedPolicy
    ranges: list[tuple[int, int]]
    begun: list[tuple[int, int]]
    scores: TokenScores

    @property
    def nodes(self) -> int:
        """Tokens after all contexts."""
        return self.scores.rank.numel()

    def leaves(self) -> Iterator[tuple[Leaves, Tensor, Tensor]]:
        """Yield sequences, the inner products of their scores [n, t, t], their tokens' numbers."""
        tree, vocabulary = self.on.tree, self.on.task.vocabulary
        paths: list[Tensor] = []
        gram = torch.zeros(1, 0, 0, dtype=torch.float64)
        numbers = torch.zeros(1, 0, dtype=torch.int64)
        offset = 0
        for depth, (first, many) in enumerate(self.ranges):
            here = self.scores.part(offset, many)
            cross, square = here.products(paths), here.squares()

            start, begun = self.begun[depth]
            ends = tree.tokens_from(depth)
            if begun and len(ends):
                leaves = tree.leaves_of(depth, start, begun)
                context = torch.arange(start - first, start - first + begun)
                context = context.repeat_interleave(leaves.tokens)
                token = ends.repeat(begun)
                products = _grown(gram[context], cross[context, token], square[context, token])
                last = vocabulary * (offset + context) + token
                yield leaves, products, torch.cat([numbers[context], last[:, None]], 1)
            if depth == tree.deepest:
                return
            below, children = self.ranges[depth + 1]
            index = torch.arange(below, below + children)
            parent, token = index // tree.branches - first, tree.going[index % tree.branches]
            gram = _grown(gram[parent], cross[parent, token], square[parent, token])
            paths.append(here.of(parent, token))
            last = vocabulary * (offset + parent) + token
            numbers = torch.cat([numbers[parent], last[:, None]], 1)
            offset += many


def _grown(gram: Tensor, cross: Tensor, square: Tensor) -> Tensor:
    """Return inner products of paths [n, t, t] that are one token longer."""
    above = torch.cat([gram, cross.unsqueeze(2)], 2)
    below = torch.cat([cross, square.unsqueeze(1)], 1).unsqueeze(1)
    return torch.cat([above, below], 1)


def _subtrees(on: EnumeratedPolicy) -> Iterator[_Subtree]:
    tree = on.tree
    of_context = on.held.size * tree.vocabulary
    for start, count in tree.blocks(max(1, _SCORES // of_context), even=True):
        ranges = [tree.ancestors(tree.deepest, start, count, t) for t in range(tree.horizon)]
        rows = [tree.contexts(t, *part) for t, part in enumerate(ranges)]
        at = [torch.full((len(part),), t) for t, part in enumerate(rows)]
        scores = on.held.scores(torch.cat(rows), torch.cat(at))
        yield _Subtree(on, ranges, tree.begun(start, count), scores)
