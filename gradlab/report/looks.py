"""The colour and the shape of each estimator series on a page: those of the figures."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gradlab.plots.hues import hue_looks
from gradlab.plots.style import FAMILIES, family

__all__ = ["Look", "by_family", "series_looks"]


def _star(points: int, inner: float, turn: float = -math.pi / 2) -> str:
    corners = []
    for number in range(2 * points):
        radius = 1.0 if number % 2 == 0 else inner
        angle = turn + math.pi * number / points
        corners.append(f"{radius * math.cos(angle):.3f},{radius * math.sin(angle):.3f}")
    return f"M{'L'.join(corners)}Z"


def _polygon(corners: int, turn: float = -math.pi / 2) -> str:
    return _star(corners, math.cos(math.pi / corners), turn)


# Paths in the square from -1 to 1, by the markers of matplotlib.
_SHAPES = {
    "o": "M-.9,0A.9,.9,0,1,0,.9,0A.9,.9,0,1,0,-.9,0Z",
    ".": "M-.6,0A.6,.6,0,1,0,.6,0A.6,.6,0,1,0,-.6,0Z",
    "s": "M-.8,-.8H.8V.8H-.8Z",
    "D": "M0,-1L1,0L0,1L-1,0Z",
    "d": "M0,-1L.6,0L0,1L-.6,0Z",
    "v": "M-.9,-.7H.9L0,.9Z",
    "^": "M-.9,.7H.9L0,-.9Z",
    "<": "M.7,-.9V.9L-.9,0Z",
    ">": "M-.7,-.9V.9L.9,0Z",
    "P": "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "X": "M-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0L-1,-.5Z",
    "*": _star(5, 0.42),
    "h": _polygon(6),
    "p": _polygon(5),
}


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Args:
        color: as #RRGGBB.
        shape: a path of SVG in the square from -1 to 1.

    Example:
        >>> Look("#0072B2", "M0,-1L1,0L0,1L-1,0Z").color
        '#0072B2'
    """

    color: str
    shape: str


def series_looks(series: Iterable[str]) -> dict[str, Look]:
    """Return the look of each series, no two alike: what the figures give it.

    Args:
        series: Text forms of estimators without their temperature.

    Returns:
        The looks by series.

    Example:
        >>> series_looks(["ST", "ZGR"])["ZGR"].color
        '#0072B2'
    """
    looks = hue_looks(list(dict.fromkeys(series)), "series")
    return {s: Look(look["color"], _SHAPES[look["marker"]]) for s, look in looks.items()}


def by_family(series: Iterable[str]) -> dict[str, list[str]]:
    """Return series by their family, in the order of the families of the figures.

    Args:
        series: Text forms of estimators without their temperature.

    Returns:
        The series of each family that has any; your own code is of the family "other".

    Example:
        >>> by_family(["ZGR", "RF(m=4)", "Mine"])
        {'score function': ['RF(m=4)'], 'straight-through': ['ZGR'], 'other': ['Mine']}
    """
    found: dict[str, list[str]] = {kind: [] for kind in [*FAMILIES, "other"]}
    for one in series:
        found[family(one)].append(one)
    return {kind: members for kind, members in found.items() if members}
