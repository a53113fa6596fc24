"""Axes of the interactive pictures: limits, ticks, and where values stand that no logarithm has.

On a logarithmic axis a value of 0 or less, or one that is rounding, stands in a grey band at the
edge, as in the figures. The page says how many do.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Axis", "Scale", "scale"]

# More whole numbers than these are not ticks of their own.
_MOST = 8


@dataclass(frozen=True)
class Axis:
    """A column along one side of a picture.

    Args:
        column: Its name.
        title: What the axis and the menu say.
        error: The column of its standard error, or None.
        log: Whether a logarithmic scale is offered.
        floor: Values up to this are 0, up to rounding.
        ends: The columns of the two ends of its interval, in place of `error`.

    Example:
        >>> Axis("tau", "temperature τ").floor
        0.0
    """

    column: str
    title: str
    error: str | None = None
    log: bool = True
    floor: float = 0.0
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Scale:
    """The scale of an axis.

    Args:
        domain: Its limits.
        zero: Where values of the band stand; None without a band.
        edge: Where the band ends.
        ticks: Places of ticks, or None for those of the library.
        below: How many values stand in the band.

    Example:
        >>> Scale((0.1, 1.0), None, 0.1, None, 0).below
        0
    """

    domain: tuple[float, float]
    zero: float | None
    edge: float
    ticks: list[float] | None
    below: int


def scale(values: "pd.Series[Any]", axis: Axis, *, log: bool) -> Scale:
    """Return the scale that shows all values.

    Args:
        values: The column of an axis; what is not finite counts as absent.
        axis: The axis.
        log: Whether the scale is logarithmic.

    Returns:
        The scale, with a band where `log` and a value is at most the floor.

    Example:
        >>> scale(pd.Series([0.0, 0.1, 10.0]), Axis("bias2", "bias²"), log=True).below
        1
    """
    there = values.to_numpy(float)
    there = there[np.isfinite(there)]
    if not log:
        low, high = (there.min(), there.max()) if len(there) else (0.0, 1.0)
        spare = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
        return Scale((float(low - spare), float(high + spare)), None, float(low), None, 0)
    positive = there[there > axis.floor]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    spare = max((high / low) ** 0.03, 1.15)
    low, high = float(low / spare), float(high * spare)
    below = len(there) - len(positive)
    ticks = _counts(positive) or _ticks(low, high)
    if not below:
        return Scale((low, high), None, low, ticks, 0)
    start = low * (low / high) ** 0.12
    return Scale((start, high), math.sqrt(start * low), low, ticks, below)


def _counts(values: "np.ndarray[Any, Any]") -> list[float]:
    """Return the values themselves where they are a few whole numbers, such as classes."""
    found = np.unique(values)
    whole = len(found) > 1 and (found == np.round(found)).all()
    return found.tolist() if whole and len(found) <= _MOST else []


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[int, ...] = (1, 2, 5) if high < 100 * low else (1,)
    if len(decades) > 9:
        decades = decades[:: math.ceil(len(decades) / 8)]
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else _even(low, high)


def _even(low: float, high: float) -> list[float]:
    """Return at least two round places of equal distance in a range that is narrow."""
    place = math.floor(math.log10(high - low)) - 1
    sizes = (float(f"{step}e{power}") for power in (place + 1, place) for step in (5, 2, 1))
    for size in sizes:
        first, last = math.ceil(low / size), math.floor(high / size)
        if last - first >= 2:
            return [float(f"{k * size:.12g}") for k in range(first, last + 1)]
    return [low, high]
