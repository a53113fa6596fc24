"""Sums over all groups of G sequences, by the multisets of their classes.

Sequences of one class have the same reward and length, and so the same part in a group. There are
C(C + G - 1, G) multisets of G out of C classes, few enough for groups of 16 to 64.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.checks import too_large
from gradlab.exact.enumeration import TooLargeError

__all__ = ["MOST_PLACES", "count_multisets", "groups_of", "multisets"]

MOST_PLACES = 2**26
"""Places (multisets times members) of all groups at most."""

# Places of one block.
_BLOCK = 2**19


def count_multisets(classes: int, g: int) -> int:
    """Return the number of multisets of g out of some classes.

    Args:
        classes: How many classes.
        g: Members of a multiset.

    Example:
        >>> count_multisets(6, 16)
        20349
    """
    return math.comb(classes + g - 1, g)


def multisets(classes: int, g: int) -> Int[Tensor, "M G"]:
    """Return all multisets of g out of some classes, each as a row in ascending order.

    Args:
        classes: How many classes.
        g: Members of a multiset.

    Raises:
        TooLargeError: If there are too many.

    Example:
        >>> multisets(2, 2).tolist()
        [[0, 0], [0, 1], [1, 1]]
    """
    places = g * count_multisets(classes, g)
    if places > MOST_PLACES:
        what = f"the groups of {g} sequences out of {classes} classes of (reward, length)"
        raise TooLargeError(too_large(what, places, MOST_PLACES, "use monte_carlo, or smaller g"))
    rows = torch.arange(classes, dtype=torch.int16)[:, None]
    for _ in range(g - 1):
        last = rows[:, -1].long()
        more = classes - last
        rows = rows.repeat_interleave(more, 0)
        first = more.cumsum(0) - more
        step = torch.arange(len(rows)) - first.repeat_interleave(more)
        next_one = (last.repeat_interleave(more) + step).to(torch.int16)
        rows = torch.cat([rows, next_one[:, None]], 1)
    return rows


def groups_of(
    masses: list[Float[Tensor, " C"]], g: int
) -> Iterator[tuple[Int[Tensor, "m B G"], Float[Tensor, " m"]]]:
    """Yield blocks of groups of B prompts with their probabilities.

    Args:
        masses: The probabilities of the classes of each prompt.
        g: Sequences of a group.

    Yields:
        The classes of the members, [m, B, G], and the probability of each of the m groups.

    Raises:
        TooLargeError: If there are too many.

    Example:
        >>> ((members, p),) = groups_of([torch.tensor([0.25, 0.75], dtype=torch.float64)], 2)
        >>> members.squeeze(1).tolist(), [round(x, 4) for x in p.tolist()]
        ([[0, 0], [0, 1], [1, 1]], [0.0625, 0.375, 0.5625])
    """
    counts = [count_multisets(len(mass), g) for mass in masses]
    places = math.prod(counts) * g * len(masses)
    if places > MOST_PLACES:
        classes = " and ".join(str(len(mass)) for mass in masses)
        what = f"the groups of {g} sequences out of {classes} classes of (reward, length)"
        raise TooLargeError(too_large(what, places, MOST_PLACES, "use monte_carlo, or smaller g"))
    rows = [multisets(len(mass), g) for mass in masses]
    chances = [_chances(row, mass) for row, mass in zip(rows, masses, strict=True)]
    for part in torch.arange(math.prod(counts)).split(max(1, _BLOCK // (g * len(masses)))):
        index = torch.unravel_index(part, counts)
        members = torch.stack([row[i] for row, i in zip(rows, index, strict=True)], 1)
        p = torch.stack([chance[i] for chance, i in zip(chances, index, strict=True)]).prod(0)
        yield members.long(), p


def _chances(rows: Tensor, mass: Tensor) -> Tensor:
    """Return the probability of each multiset: multinomial."""
    found = []
    for part in rows.split(max(1, _BLOCK // len(mass))):
        counts = torch.zeros(len(part), len(mass), dtype=torch.float64)
        counts.scatter_add_(1, part.long(), torch.ones(part.shape, dtype=torch.float64))
        log_p = torch.special.xlogy(counts, mass).sum(-1) - torch.lgamma(counts + 1).sum(-1)
        found.append((log_p + math.lgamma(rows.shape[1] + 1)).exp())
    return torch.cat(found)
