"""What draws have not met: states so rare, and so large, that a sample without them says little.

A tiny standard error is then one of the rest alone. What f is known to have, or what draws of a
reference have shown, says how many draws would meet it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.estimators import Estimator
from gradlab.exact.enumeration import TooLargeError, check_states
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.exact.rarity import Rarity, rarity
from gradlab.exact.tabulated import count_states
from gradlab.moments import Moments, Truth

__all__ = ["FEW", "Rare", "VISITS", "draws_for", "rare_draws", "rare_states", "seen", "widened"]

VISITS = 15
"""Visits to what carries half of the variance from which on standard errors are taken to cover.

One state that carries nearly all is then met 30 times: half of its rate carries half of that.
"""

FEW = 50
"""Fewer effective draws than these are named in a note."""

# Without a need for the truth, f is enumerated for this alone up to so many states.
_STATES = 2**16
# What is met less often than this may be missed, exp(-3) = 5 %; a share of the variance that is
# worth to be named.
_ONCE, _SHARE = 3, 0.1
# A square below this, relative to that of the gradient, is rounding.
_ROUNDING = 1e-18


@dataclass(frozen=True)
class Rare:
    """Evaluations of f that meet what carries half of the variance `VISITS` times, and what it is.

    Infinite where no draw of the reference differed from another. `states`: where f is enumerated.
    """

    evaluations: float
    what: str
    states: Rarity | None = None


def rare_states(on: Enumeration | EnumeratedBatch, *, states: int | None = None) -> Rare | None:
    """Return how rare the states are that carry a score-function draw, by enumeration.

    None where there are more than `states` (by default: than can be enumerated).
    """
    rows = on.logits.reshape(-1, *on.logits.shape[-2:])
    if states is not None and count_states(on.logits) > min(states, _STATES):
        return None
    try:
        for row in rows:
            check_states(row)
    except TooLargeError:
        return None
    found = rarity(on)
    what = "the states that carry half of the variance"
    return Rare(found.draws_needed(VISITS), what, found)


def rare_draws(reference: Moments, estimator: Estimator, sizes: tuple[int, int]) -> Rare:
    """Return how rare the draws of the reference are that carry its variance; `sizes`: C, N."""
    spent = reference.n * _met(estimator, *sizes)
    what = f"what carries the variance of the reference {estimator}"
    if float(reference.variance) == 0:
        # A constant f, or one that differs where the reference has never been.
        return Rare(math.inf, what)
    return Rare(VISITS * spent / reference.effective_sample_size, what)


def draws_for(estimator: Estimator, rare: Rare, sizes: tuple[int, int]) -> float:
    """Return the draws of an estimator that meet what is rare `VISITS` times."""
    met = rare.evaluations / _met(estimator, *sizes)
    return math.ceil(met) if met < math.inf else math.inf


def _met(estimator: Estimator, classes: int, variables: int) -> int:
    """Return how many states one draw meets: its gradients are taken at points between states."""
    return 1 if estimator.needs_gradient else estimator.calls(classes, variables)


def seen(
    estimator: Estimator,
    moments: Moments,
    truth: Truth,
    rare: Rare | None,
) -> dict[str, Any]:
    """Return what a row says of what its draws may have missed: a `note`, and `draws_needed`.

    `draws_needed` only where the draws are fewer; `missed_...`: for `widened`.
    """
    variance, n = float(moments.variance), int(moments.n)
    sizes = (moments.mean.shape[-1], moments.mean.shape[-2])
    if rare is not None and not _is_the_truth(moments, truth):
        needed = draws_for(estimator, rare, sizes)
        missed = _missed(rare.states, moments, estimator, sizes)
        if n < needed < math.inf:
            visits = VISITS * n / needed
            met = "not met" if visits < 1 else f"met about {visits:.0f} times"
            note = f"{met} in {n:,} draws: {rare.what}; {VISITS} times would need {needed:,} draws"
            return {"note": note, "draws_needed": needed} | missed
        if missed:
            share = f"{missed['missed_share']:.0%} of the variance"
            told = f"in its {n:,} draws states that are met less than {_ONCE} times carry {share}"
            return {"note": told} | missed
    if variance == 0 and (rare is None or rare.evaluations == math.inf):
        # At .999: (1 - 7/n)^n.
        return {"note": f"all {n:,} draws are equal: events rarer than {7 / n:.1g} may be missed"}
    few = moments.effective_sample_size
    if variance > 0 and few < FEW:
        told = f"the variance is carried by {few:.0f} of {n:,} draws: its error may be larger"
        return {"note": told}
    return {}


def _missed(
    states: Rarity | None, moments: Moments, estimator: Estimator, sizes: tuple[int, int]
) -> dict[str, float]:
    """Return the mean and the variance that may be missed, where standard errors leave them out."""
    if states is None:
        return {}
    met = _met(estimator, *sizes)
    mean, share = states.missed(_ONCE / (moments.n * met))
    if share <= _SHARE:
        return {}
    seen_variance = moments.variance
    # Of one evaluation; a mean of several has less of it, how much less depends on their weights.
    variance = share * float(states.second[-1])
    if estimator.needs_gradient and share < 0.5:
        # No score function: of its own variance so much more. Above, nothing better is known.
        variance = seen_variance.value * share / (1 - share)
        mean = math.sqrt(variance * _ONCE / moments.n)
    if variance <= seen_variance.se and mean**2 <= seen_variance.value / moments.n:
        return {}
    return {"missed_share": share, "missed_mean": mean, "missed_variance": variance}


def widened(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose standard errors contain what `seen` says that its draws may have missed.

    The mean changes by d at most, and so |bias|^2 by 2 |bias| d + d^2.
    """
    known = {name: value for name, value in row.items() if not name.startswith("missed_")}
    if "missed_share" not in row:
        return known
    d, variance = row["missed_mean"], row["missed_variance"]
    bias2 = 2 * math.sqrt(max(row["bias2"], 0.0)) * d + d**2
    # The length of the mean, which cosine and scale-free numbers divide by.
    length = math.sqrt(max(row["truth2"], 0.0))
    turn = min(2.0, 2 * d / length) if length > 0 else 2.0
    scale = row["scale_free_variance"] / row["variance"] if row["variance"] > 0 else math.nan
    for column, error in {
        "bias2": bias2,
        "variance": variance,
        "mse": bias2 + variance,
        "cosine": turn,
        "scale_free_bias2": 2 * row["truth2"] * turn,
        "scale_free_variance": scale * variance,
        "progress": 2 * turn + (variance / row["variance"] if row["variance"] > 0 else 1.0),
    }.items():
        known[f"{column}_se"] = math.hypot(known[f"{column}_se"], error)
    return known


def _is_the_truth(moments: Moments, truth: Truth) -> bool:
    """Return whether every draw is the gradient: then nothing of it was missed."""
    if isinstance(truth, Moments):
        return False
    length2 = _ROUNDING * float(truth.square().sum())
    return max(float(moments.variance), abs(float(moments.bias2(truth)))) <= length2
