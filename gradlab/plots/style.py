"""One look for all figures: fonts, and a colour and marker for each estimator series and family."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.names import series_of

__all__ = [
    "FAMILIES",
    "LOOK",
    "Look",
    "color",
    "family",
    "family_color",
    "family_entries",
    "family_marker",
    "looks",
    "marker",
    "save",
    "say_nothing_measured",
    "styled",
]

LOOK = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
}

Look = dict[str, Any]
"""Arguments of matplotlib's `plot`: `color`, `marker`, and in `looks` also `linestyle`."""

# Okabe & Ito's colours and some of Tol's, safe for colour-blind readers: these are the looks of the
# estimators that figures show most. One series keeps one colour in every figure.
_SERIES = {
    "GS": ("#999999", "s"),
    "GS-ST": ("#D55E00", "D"),
    "GR(k=10)": ("#E69F00", "v"),
    "GR(k=100)": ("#B8860B", "^"),
    "GR(k=inf)": ("#CC3311", "o"),
    "ZGR": ("#0072B2", "*"),
    "ST": ("#009E73", "P"),
    "DARN": ("#CC79A7", "X"),
    "ST-ZGR": ("#56B4E9", "h"),
    "RF": ("#000000", "d"),
    "REINFORCE": ("#555555", "<"),
    "ARSM": ("#7B3FA0", ">"),
    # Colours beside the palette, so that those of all others stay.
    "SIMPLE": ("#44AA99", "P"),
    "I-MLE": ("#AA4466", "s"),
    "TopK": ("#AAAA00", "v"),
    "TopK-ST": ("#6699CC", "D"),
}
# Estimators of bounds, which figures of their own show.
_BOUNDS = {
    "PLAIN": ("#999999", "s"),
    "VIMCO": ("#882255", "o"),
    "VIMCO-A": ("#7B3FA0", "D"),
    "OVIS(gamma=0)": ("#D55E00", "v"),
    "OVIS(gamma=1)": ("#CC3311", "X"),
    "OVIS": ("#D55E00", "^"),
    "OVIS-MC(s=inf)": ("#999933", "h"),
    "OVIS-MC": ("#E69F00", "<"),
}
# All others get a pair of these, by their place among the estimators: neighbours differ in colour.
_PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7B3FA0"),
    *("#E69F00", "#56B4E9", "#882255", "#999933", "#555555"),
)
_SHAPES = "os^DvP<X>hdp*"
_STROKES = ("-", "--", ":", "-.")

_FAMILY_LOOKS = {
    "score function": ("#333333", "d"),
    "sums over classes or states": ("#117733", "s"),
    "coupled samples": ("#7B3FA0", ">"),
    "control variates": ("#B07800", "v"),
    "straight-through": ("#0072B2", "o"),
    "Gumbel noise": ("#D55E00", "D"),
    "other": ("#777777", "."),
}


def _families() -> dict[str, tuple[str, ...]]:
    """Return the names of estimators by their family, as the classes declare it.

    They are read off the files: importing the classes would load torch.
    """
    found: dict[str, list[str]] = {kind: [] for kind in _FAMILY_LOOKS if kind != "other"}
    for file in sorted(Path(__file__).parents[1].joinpath("estimators").glob("[a-z]*.py")):
        inherited = dict[str, str]()
        for body in file.read_text(encoding="utf-8").split("\nclass ")[1:]:
            head, _, rest = body.partition(":\n")
            declared = dict(re.findall(r'\n    (name|family): ClassVar\[str\] = "([^"]+)"', rest))
            bases = [inherited[base] for base in re.findall(r"\w+", head) if base in inherited]
            kind = declared.get("family") or next(iter(bases), "other")
            inherited[head.partition("(")[0]] = kind
            if "name" in declared and kind in found:
                found[kind].append(declared["name"])
    return {kind: tuple(names) for kind, names in found.items()}


FAMILIES = _families()
"""Names of estimators by their family; one that stands nowhere is of the family "other"."""


def color(series: str) -> str:
    """Return the colour of an estimator series.

    Args:
        series: The text form without a temperature, such as `GR(k=10)` or `RF(m=4)`.

    Returns:
        The colour, as #RRGGBB.

    Example:
        >>> color("ZGR")
        '#0072B2'
    """
    return _look_up(series)[0]


def marker(series: str) -> str:
    """Return the marker of an estimator series.

    Args:
        series: The text form without a temperature, such as `GR(k=10)` or `RF(m=4)`.

    Returns:
        A marker of matplotlib.

    Example:
        >>> marker("ZGR")
        '*'
    """
    return _look_up(series)[1]


def family(series: str) -> str:
    """Return the family of an estimator series.

    Args:
        series: The text form without a temperature, such as `RF(m=4)`.

    Returns:
        The family, or "other" for an unknown estimator.

    Example:
        >>> family("RF(m=4)"), family("Mine")
        ('score function', 'other')
    """
    name = series.partition("(")[0]
    if name in {key.partition("(")[0] for key in _BOUNDS}:
        return "score function"
    return next((kind for kind, names in FAMILIES.items() if name in names), "other")


def family_color(kind: str) -> str:
    """Return the colour of a family.

    Args:
        kind: The name of the family.

    Returns:
        The colour, as #RRGGBB.

    Example:
        >>> family_color("Gumbel noise")
        '#D55E00'
    """
    return _FAMILY_LOOKS[kind][0]


def family_marker(kind: str) -> str:
    """Return the marker of a family.

    Args:
        kind: The name of the family.

    Returns:
        A marker of matplotlib.

    Example:
        >>> family_marker("Gumbel noise")
        'D'
    """
    return _FAMILY_LOOKS[kind][1]


def family_entries(kinds: Iterable[str]) -> list[Line2D]:
    """Return the legend entries of families, in the order of `FAMILIES`.

    Args:
        kinds: Families, any number of times; those that are not there have no entry.

    Returns:
        One entry per family: its colour, marker and name.

    Example:
        >>> [entry.get_label() for entry in family_entries(["Gumbel noise", "score function"])]
        ['score function', 'Gumbel noise']
    """
    present = set(kinds)
    return [
        Line2D([], [], ls="", label=kind, color=family_color(kind), marker=family_marker(kind))
        for kind in [*FAMILIES, "other"]
        if kind in present
    ]


def looks(series: Iterable[str]) -> dict[str, Look]:
    """Return the colour, marker and line style of the series of one figure, no two alike.

    Each estimator has its own colour and marker, the same in every figure. Series of one estimator
    that differ in an argument, such as `RF(m=2)` and `RF(m=4)`, may have one colour and then have
    different markers. Lines of one colour have different line styles.

    Args:
        series: The text forms, without a temperature or, where one figure has several, with it.

    Returns:
        Arguments of matplotlib's `plot`, by series.

    Example:
        >>> looks(["ZGR", "RF(m=2)", "RF(m=4)"])["RF(m=4)"]
        {'color': '#000000', 'marker': 'o', 'linestyle': '--'}
    """
    found: dict[str, Look] = {}
    for name in dict.fromkeys(series):
        shade, shape = _look_up(name)
        used = [look["marker"] for look in found.values() if look["color"] == shade]
        if shape in used:
            shape = next((other for other in _SHAPES if other not in used), shape)
        stroke = _STROKES[len(used) % len(_STROKES)]
        found[name] = {"color": shade, "marker": shape, "linestyle": stroke}
    return found


def _look_up(series: str) -> tuple[str, str]:
    """Return the look of a series: its own, that of its name, or one derived from its name."""
    series = series_of(series)
    name = series.partition("(")[0]
    tables = (_SERIES, _BOUNDS, _DERIVED)
    own = next((found for t in tables if (found := t.get(series) or t.get(name))), None)
    if own:
        return own
    free = [pair for pair in _pairs() if pair not in {*_SERIES.values(), *_DERIVED.values()}]
    return free[crc32(name.encode()) % len(free)]


def _pairs() -> Iterator[tuple[str, str]]:
    """Yield every pair of a colour and a marker; from one to the next the colour changes."""
    for turn in range(len(_SHAPES)):
        for place, shade in enumerate(_PALETTE):
            yield shade, _SHAPES[(place + turn) % len(_SHAPES)]


def _derived() -> dict[str, tuple[str, str]]:
    """Return the looks of the estimators that have none of their own, no two alike."""
    free = (pair for pair in _pairs() if pair not in _SERIES.values())
    names = [name for kind in FAMILIES.values() for name in kind if name not in _SERIES]
    return dict(zip(names, islice(free, len(names)), strict=True))


_DERIVED = _derived()


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look inside a with block, without touching the caller's settings.

    Yields:
        None.

    Example:
        >>> with styled():
        ...     mpl.rcParams["font.size"]
        8.0
    """
    with mpl.rc_context(LOOK):  # type: ignore[arg-type]
        yield


def say_nothing_measured(figure: Figure) -> Figure:
    """Write into an empty figure that its rows hold no measurement.

    Args:
        figure: The figure.

    Returns:
        The same figure.

    Example:
        >>> figure = say_nothing_measured(Figure())
        >>> figure.texts[0].get_text()
        'nothing could be measured: see the reasons in the rows'
    """
    figure.text(0.5, 0.5, "nothing could be measured: see the reasons in the rows", ha="center")
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png and stem.pdf, byte-identical for identical figures.

    Args:
        figure: The figure.
        stem: The path of the files without their endings.

    Returns:
        The paths of the two files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save(Figure(), Path(folder) / "empty")]
        ['empty.png', 'empty.pdf']
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    with styled():
        figure.savefig(paths[0], metadata={"Software": None})
        # The layout found for the PNG is kept: finding it again costs seconds.
        figure.set_layout_engine("none")
        figure.savefig(paths[1], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return paths
