"""Two exact tests of exchangeable draws: do two samples have one law, are pairs more than pairs?

Both count draws beyond cuts of a few statistics. Given all draws together, the count has a known
distribution, whatever the law: heavy tails, atoms and constants give no false alarm.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import gammaln, logsumexp
from torch import Generator, Tensor

__all__ = ["Cuts", "Found", "cuts_of", "law_test", "pairs_test", "rounding"]

# Shares of the draws below a cut; directions and coordinates that are looked at.
_SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
_DIRECTIONS, _COORDINATES = 4, 8
# Values closer than this, times the size of what was summed, may be one value and its rounding.
_ROUNDING = 2.0**7


@dataclass(frozen=True)
class Cuts:
    """Which draws lie beyond each cut, and what was cut."""

    above: Bool[Tensor, "K n"]
    labels: list[str]


@dataclass(frozen=True)
class Found:
    """The smallest p-value, corrected for the number of cuts, and the cut where it was found."""

    p_value: float
    cut: int = 0


def cuts_of(g: Float[Tensor, "n N C"], scale: float = 0.0) -> Cuts:
    """Return cuts of lengths, projections and coordinates of draws.

    They depend on the draws, but not on their order. No cut is between values that rounding can
    exchange: code in float32 gives other last bits in another batch. `scale`: size of f.
    """
    draws = g.flatten(1).to(torch.float64)
    mean = draws.mean(0)
    centred = draws - mean
    size = torch.linalg.vector_norm(draws, dim=1)
    error = rounding(g, scale)
    direction = torch.randn(
        draws.shape[1], _DIRECTIONS, generator=Generator().manual_seed(0), dtype=torch.float64
    )
    direction = direction / torch.linalg.vector_norm(direction, dim=0)
    largest = centred.square().sum(0).argsort(descending=True, stable=True)[:_COORDINATES]
    length = torch.linalg.vector_norm(mean)
    statistics = [
        ("the length", size),
        ("the distance from the mean", torch.linalg.vector_norm(centred, dim=1)),
        *([("the part along the mean", draws @ (mean / length))] if length > 0 else []),
        *(("a projection", column) for column in (draws @ direction).T),
        *(
            (f"the value for variable {k // g.shape[2]}, class {k % g.shape[2]}", draws[:, k])
            for k in largest.tolist()
        ),
    ]
    above, labels = [], []
    for label, values in statistics:
        for cut in _cuts(values, error):
            above.append(cut)
            labels.append(label)
    return Cuts(torch.stack(above) if above else torch.zeros(0, len(draws)) > 0, labels)


def rounding(g: Float[Tensor, "n N C"], scale: float) -> Float[Tensor, " n"]:
    """Return what the rounding of each draw is below, also of one made in float32 on the way.

    `scale` is the size of what cancels in a draw: rounded to float32 if all draws fit in float32.
    """
    single = max(torch.finfo(g.dtype).eps, torch.finfo(torch.float32).eps)
    eps = single if torch.equal(g.to(torch.float32).to(g.dtype), g) else torch.finfo(g.dtype).eps
    draws = g.flatten(1).to(torch.float64)
    size = torch.linalg.vector_norm(draws, dim=1) + torch.linalg.vector_norm(draws.mean(0))
    return _ROUNDING * (single * size + eps * scale)


def _cuts(values: Float[Tensor, " n"], error: Float[Tensor, " n"]) -> list[Bool[Tensor, " n"]]:
    low, order = (values - error).sort()
    reach = (values + error)[order].cummax(0).values
    free = (low[1:] > reach[:-1]).nonzero().flatten() + 1  # so many draws are below
    if len(free) == 0:
        return []
    wanted = torch.tensor(_SHARES, dtype=torch.float64) * len(values)
    nearest = free[(free - wanted[:, None]).abs().argmin(1)].unique()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return [place >= below for below in nearest]


def law_test(cuts: Cuts, inside: Bool[Tensor, " n"]) -> Found:
    """Test whether the draws `inside` have the law of the others.

    Given how many of all draws are above a cut, the number of those inside is hypergeometric.
    """
    counts = cuts.above[:, inside].sum(1).numpy()[:, None]
    total, size, above = len(inside), int(inside.sum()), cuts.above.sum(1).numpy()[:, None]
    at = np.arange(size + 1)[None]
    return _smallest(_choose(above, at) + _choose(total - above, size - at), at, counts)


def pairs_test(cuts: Cuts, first: Int[Tensor, " m"], second: Int[Tensor, " m"]) -> Found:
    """Test whether draws `first` say nothing of draws `second`, all of them different draws.

    Given how many of these are above a cut, the number of pairs that are wholly above it is that
    of a random matching.
    """
    one, other = cuts.above[:, first], cuts.above[:, second]
    both, above = (one & other).sum(1).numpy()[:, None], (one.sum(1) + other.sum(1)).numpy()
    at = np.arange(len(first) + 1)[None]
    mixed = above[:, None] - 2 * at
    ways = _choose(len(first), at) + _choose(len(first) - at, mixed) + mixed * np.log(2)
    return _smallest(ways, at, both)


def _choose(n: int | np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return log (n choose k), -inf where there is no way."""
    n, k = np.broadcast_arrays(n, k)
    fine = (k >= 0) & (k <= n) & (n >= 0)
    n, k = np.where(fine, n, 0), np.where(fine, k, 0)
    return np.where(fine, gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), -np.inf)


def _smallest(ways: np.ndarray, at: np.ndarray, counts: np.ndarray) -> Found:
    """Return the smallest two-sided p-value of `counts`, whose log weights at `at` are `ways`."""
    if len(ways) == 0:
        return Found(1.0)
    whole = logsumexp(ways, 1)
    tails = [
        logsumexp(np.where(keep, ways, -np.inf), 1) - whole for keep in (at <= counts, at >= counts)
    ]
    p = 2 * np.exp(np.minimum(*tails))
    best = int(p.argmin())
    return Found(min(1.0, float(p[best]) * len(p)), best)
