"""A colour and a marker for each line of a picture, no two lines alike.

Estimator series keep those of `style` where they differ; what else there is gets a palette.
"""

from itertools import cycle
from typing import Any

import seaborn
from matplotlib.colors import to_hex

from gradlab.plots.style import color, family, family_color, family_marker, marker

__all__ = ["Look", "hue_looks"]

Look = dict[str, Any]
"""Arguments of matplotlib's `plot`: `color` and `marker`."""

_SHAPES = "osvD^P<X>hdp*"


def hue_looks(hues: list[str], kind: str) -> dict[str, Look]:
    """Return the colour and marker of each hue, no two alike.

    Args:
        hues: The names of the lines of a picture.
        kind: "series" for estimator series, "ordered" for numbers, "named" for other text.

    Returns:
        Arguments of matplotlib's `plot`, by hue.

    Example:
        >>> hue_looks(["ST", "ZGR"], "series")["ZGR"]
        {'color': '#0072B2', 'marker': '*'}
    """
    if kind != "series":
        few = "colorblind" if len(hues) <= 10 else "husl"
        return _from_palette(hues, "flare" if kind == "ordered" else few)
    own: dict[str, Look] = {}
    # A series with a look of its own goes before those with the look of their family.
    for series in sorted(hues, key=_is_of_family):
        if color(series) not in {look["color"] for look in own.values()}:
            own[series] = {"color": color(series), "marker": marker(series)}
    others = _from_palette([series for series in hues if series not in own], "husl")
    return {series: (own | others)[series] for series in hues}


def _from_palette(hues: list[str], palette: str) -> dict[str, Look]:
    shades = seaborn.color_palette(palette, len(hues))
    return {
        hue: {"color": to_hex(shade), "marker": shape}
        for hue, shade, shape in zip(hues, shades, cycle(_SHAPES), strict=False)
    }


def _is_of_family(series: str) -> bool:
    kind = family(series)
    return (color(series), marker(series)) == (family_color(kind), family_marker(kind))
