"""A colour and a marker for each line of a picture, no two lines alike.

Estimator series keep those of `style`; what else there is gets a palette.
"""

from collections import Counter
from itertools import cycle

import seaborn
from matplotlib.colors import to_hex

from gradlab.plots.style import Look, looks

__all__ = ["Look", "hue_looks"]

_SHAPES = "osvD^P<X>hdp*"
# More series than these in one colour cannot be told apart by their markers.
_ALIKE = 4


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
    own = looks(hues)
    shared = Counter(look["color"] for look in own.values())
    crowd = [series for series, look in own.items() if shared[look["color"]] > _ALIKE]
    others = _from_palette(crowd, "husl")
    return {
        series: others.get(series) or {key: look[key] for key in ("color", "marker")}
        for series, look in own.items()
    }


def _from_palette(hues: list[str], palette: str) -> dict[str, Look]:
    shades = seaborn.color_palette(palette, len(hues))
    return {
        hue: {"color": to_hex(shade), "marker": shape}
        for hue, shade, shape in zip(hues, shades, cycle(_SHAPES), strict=False)
    }
