"""Two exact tests of exchangeable draws: do two samples have one law, are pairs more than pairs?

Both count draws beyond cuts of a few statistics. Given all draws together, the count is
hypergeometric, whatever the law: heavy tails, atoms and constants give no false alarm.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

__all__ = ["Cuts", "Found", "cuts_of", "law_test", "pairs_test", "rounding"]

# Shares of the draws below a cut; directions and coordinates that are looked at.
_SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
_DIRECTIONS, _COORDINATES = 4, 8
# Values closer than this, times the size of what was summed, may be one value and its rounding.
_ROUNDING = 2.0**7


@dataclass(frozen=True)
class Cuts:
    """Which draws lie beyond each cut, what was cut, and the cut nearest to the middle of each."""

    above: Bool[Tensor, "K n"]
    labels: list[str]
    middle: list[int]


@dataclass(frozen=True)
class Found:
    """The smallest p-value, corrected for the number of them, and the cut where it was found.

    `other` is the cut of the second draws of pairs.
    """

    p_value: float
    cut: int = 0
    other: int = 0


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
        *((f"the value for {_coordinate(k, g)}", draws[:, k]) for k in largest.tolist()),
    ]
    above: list[Tensor] = []
    labels, middle = [], []
    for label, values in statistics:
        cuts = _cuts(values, error)
        balance = [abs(2 * int(cut.sum()) - len(cut)) for cut in cuts]
        middle += [len(above) + balance.index(min(balance))] if cuts else []
        above += cuts
        labels += [label] * len(cuts)
    none = torch.zeros(0, len(draws), dtype=torch.bool)
    return Cuts(torch.stack(above) if above else none, labels, middle)


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


def _coordinate(k: int, g: Tensor) -> str:
    if g.ndim == 3:
        return f"variable {k // g.shape[2]}, class {k % g.shape[2]}"
    return f"parameter {[int(i) for i in np.unravel_index(k, g.shape[1:])]}"


def law_test(cuts: Cuts, inside: Bool[Tensor, " n"]) -> Found:
    """Test whether the draws `inside` have the law of the others.

    All draws together are given; which of them are inside is a random choice.
    """
    size = inside.sum().expand(len(cuts.labels))
    p = _p_values(len(inside), cuts.above.sum(1), size, cuts.above[:, inside].sum(1))
    best = int(p.argmin()) if len(p) else 0
    return Found(min(1.0, float(p[best]) * len(p)) if len(p) else 1.0, best)


def pairs_test(cuts: Cuts, first: Int[Tensor, " m"], second: Int[Tensor, " m"]) -> Found:
    """Test whether draws `first` say nothing of draws `second`, all of them different draws.

    First and second draws are given; which of them are pairs is a random choice. Each cut is
    compared with itself, those near the middle with each other.
    """
    mixed = [(k, m) for k in cuts.middle for m in cuts.middle if k != m]
    same = [(k, k) for k in range(len(cuts.labels))]
    chosen = torch.tensor([*same, *mixed], dtype=torch.long).reshape(-1, 2)
    one, other = cuts.above[:, first][chosen[:, 0]], cuts.above[:, second][chosen[:, 1]]
    p = _p_values(len(first), one.sum(1), other.sum(1), (one & other).sum(1))
    if len(p) == 0:
        return Found(1.0)
    best = int(p.argmin())
    return Found(min(1.0, float(p[best]) * len(p)), *chosen[best].tolist())


def _p_values(
    total: int, marked: Int[Tensor, " K"], size: Int[Tensor, " K"], counts: Int[Tensor, " K"]
) -> np.ndarray:
    """Return p-values of how many of `size` out of `total` are marked, on both sides."""
    m, s, c = (a.numpy()[:, None] for a in (marked, size, counts))
    at = np.arange(int(s.max(initial=0)) + 1)[None]
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, total + 1)).cumsum()])

    def choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        fine = (k >= 0) & (k <= n)
        k = np.where(fine, k, 0)
        ways = log_factorial[n] - log_factorial[k] - log_factorial[np.where(fine, n - k, n)]
        return np.where(fine, ways, -np.inf)

    p = np.exp(choose(m, at) + choose(total - m, s - at) - choose(np.full_like(m, total), s))
    tails = [np.where(keep, p, 0).sum(1) for keep in (at <= c, at >= c)]
    return np.minimum(1, 2 * np.minimum(*tails))
