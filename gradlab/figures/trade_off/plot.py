"""The plane of squared bias and variance, families as curves, and who dominates how much of whom.

Both axes are logarithmic and relative to the squared length of the true gradient; a strip on the
left holds what has no bias at all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gradlab.figures.trade_off.plot_shares import draw_lines, finding, lines_key, plot_column
from gradlab.plots.curves import series_handle
from gradlab.plots.names import problem_title
from gradlab.plots.panels import WIDTHS
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.plots.style import color, marker, styled

__all__ = ["VIEWS", "draw_plane", "draw_shares", "plot", "plot_all"]

SCALES = {"raw": "", "scale-free": "scale_free_"}
"""The prefix of the columns bias2 and variance in each scale."""

Array = NDArray[np.float64]


SHOWN = "mlp"
"""The problem of which the figure shows the plane; the view "all" shows the plane of each."""

_FAMILIES = ("GS-ST", "GR(k=10)", "GR(k=inf)")
_DRAWN = (*_FAMILIES, "ST-ZGR", "ST", "ZGR", "DARN", "RF(m=4)")


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: the plane of one problem, and the shares of domination on all."""
    curves, shares = (rows[rows["kind"] == kind] for kind in ("curve", "domination"))
    chosen = curves[curves["problem"].str.startswith(SHOWN)]
    chosen = chosen if len(chosen) else curves[curves["problem"] == curves["problem"].iloc[0]]
    shown = chosen["series"].isin(_DRAWN) | chosen["alpha"].notna()
    chosen = chosen[shown & (chosen["method"] == "exact")]
    tempered = chosen[chosen["tau"].notna() & (chosen["method"] == "exact")]
    families = [series for series in _FAMILIES if series in set(tempered["series"])]
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 3.7))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        draw_plane(left, chosen, families, "raw")
        left.set_title(problem_title(str(chosen["problem"].iloc[0])).replace("\n", " "))
        left.set_xlabel("bias² / |g|²")
        left.set_ylabel("variance of one draw / |g|²")
        draw_lines(right, shares)
        figure.suptitle(finding(shares).replace("\n", " "), fontsize=9)
        handles = [
            *(series_handle(s, marked=s != "ST-ZGR") for s in (*families, "ST-ZGR")),
            *(series_handle(s, ls="") for s in ("ST", "ZGR", "DARN", "RF(m=4)")),
            *plane_key()[:1],
            *plane_key()[2:],
            *lines_key(),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.0)
    return figure


def plot_all(rows: pd.DataFrame) -> Figure:
    """Return raw and scale-free planes of the four problems, shares of domination."""
    curves, shares = (rows[rows["kind"] == kind] for kind in ("curve", "domination"))
    names = curves["problem"].unique()
    tempered = curves[curves["tau"].notna() & (curves["method"] == "exact")]
    families = list(tempered["series"].unique())
    with styled():
        figure = Figure(figsize=(11, 8.8))
        grid = figure.add_gridspec(3, len(names), height_ratios=(1, 1, 0.66))
        for column, name in enumerate(names):
            of_problem = curves[curves["problem"] == name]
            for row, scale in enumerate(SCALES):
                ax = figure.add_subplot(grid[row, column])
                draw_plane(ax, of_problem, families, scale, named=column == 0)
                ax.set_title(problem_title(name) if row == 0 else "")
                ax.set_xlabel(f"bias² / |g|², {scale}")
                ax.set_ylabel(f"variance / |g|², {scale}" if column == 0 else "")
            ax = figure.add_subplot(grid[2, column])
            kind = name.partition("(")[0]
            draw_shares(ax, shares[shares["problem"] == kind])
            count = shares.loc[shares["problem"] == kind, "logits_seed"].nunique()
            cases = (
                "images at each snapshot" if kind == "vae" else "problems at each kind of logits"
            )
            ax.set_title(f"{count} {cases}", fontsize=8)
            ax.set_xlabel("share dominated by the other family")
        figure.legend(
            handles=_legend(families), loc="outside lower center", ncols=4, columnspacing=1.2
        )
    return figure


VIEWS = {"all": plot_all, "column": plot_column}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def _legend(families: Sequence[str]) -> list[Line2D]:
    return [
        *(series_handle(s, marked=s != "ST-ZGR") for s in ("GS", *families, "ST-ZGR")),
        *(series_handle(s, ls="") for s in ("ST", "ZGR", "DARN", "RF(m=4)")),
        *plane_key(),
        *shares_key(
            {
                "GR(k=inf)": "share of GR(k=∞), τ in [0.01, 10] (log), dominated by ST-ZGR",
                "ST-ZGR": "share of ST-ZGR, α in [0, 1], dominated by GR(k=∞)",
            }
        ),
    ]


def draw_plane(
    ax: Axes, rows: pd.DataFrame, families: Sequence[str], scale: str, *, named: bool = False
) -> None:
    """Draw the rows of one problem: families with a temperature, ST-ZGR, and single estimators.

    Markers stand at the decades of the temperature; `named` writes low ones beside GR(k=inf).
    Monte Carlo rows, of GS, are joined points. The window is set by what has no temperature.
    """
    prefix = SCALES[scale]
    exact = rows[rows["method"] == "exact"]
    free = _relative(exact[exact["tau"].isna()], f"{prefix}variance")
    _frame(ax, (_left(rows), 5), (free.min() / 25, free.max() * 25))
    for series in families:
        part = exact[exact["series"] == series]
        _curve(ax, part, series, prefix)
        decades = np.log10(part["tau"].to_numpy(float))
        marked = part[np.abs(decades - decades.round()) < 1e-6]
        _point(ax, marked, series, prefix, ms=4)
        if series == "GR(k=inf)" and named:
            cold = marked[marked["tau"] < 0.5]
            _names(ax, cold, [f"τ={tau:g}" for tau in cold["tau"]], series, prefix)
    if (rows["series"] == "GS").any():
        _measured_curve(ax, rows[rows["series"] == "GS"], "GS", prefix)
    line = exact[exact["alpha"].notna()]
    _curve(ax, line, "ST-ZGR", prefix, lw=2.2)
    for series, alpha in (("ST", 0), ("ZGR", 1), ("DARN", 2)):
        _point(ax, line[line["alpha"] == alpha], series, prefix)
    single = exact[exact["tau"].isna() & exact["alpha"].isna()]
    for series, part in single.groupby("series", sort=False):
        _point(ax, part, str(series), prefix)
    _equal_mse(ax)


def plane_key() -> list[Line2D]:
    """Return the legend entries of everything but the series."""
    grey: dict[str, Any] = {"color": "0.35", "ls": ""}
    mse = "equal MSE of one draw: 0.1, 1, 10, ..."
    limit = "GS (Monte Carlo): bias² unresolved, limit + 2 s.e."
    markers = "markers along GS-ST, GR: τ = 0.01, 0.1, 1, 10"
    return [
        Line2D([], [], color="0.6", ls="--", lw=0.8, label=mse),
        Line2D([], [], marker=r"$\leftarrow$", ms=7, label=limit, **grey),
        Line2D([], [], marker="o", ms=4, label=markers, **grey),
    ]


def _relative(rows: pd.DataFrame, column: str) -> Array:
    """Return a squared quantity relative to |truth|^2."""
    return (rows[column] / rows["truth2"]).to_numpy(float)


def _left(rows: pd.DataFrame) -> float:
    """Return the power of ten below all bias^2 with a temperature, raw and scale-free."""
    found = [1.0]
    for prefix in SCALES.values():
        found += [
            *_relative(rows[rows["method"] == "exact"].dropna(subset="tau"), f"{prefix}bias2")
        ]
        # Half of a limit is where the tip of its arrow is.
        found += [*_limits(rows[rows["method"] == "monte carlo"], prefix) / 2]
    return float(10 ** np.floor(np.log10(max(min(found), 1e-7))))


def _limits(rows: pd.DataFrame, prefix: str) -> Array:
    """Return the bias^2 of Monte Carlo rows, if positive, + 2 standard errors."""
    above = 2 * _relative(rows, f"{prefix}bias2_se")
    return np.maximum(_relative(rows, f"{prefix}bias2"), 0.0) + above


def _frame(ax: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Set logarithmic axes with these limits, left of them the strip of no bias."""
    width = (x[1] / x[0]) ** 0.1
    ax.set(xscale="log", yscale="log", xlim=(x[0] / width, x[1]), ylim=y, autoscale_on=False)
    ax.axvspan(x[0] / width, x[0], color="0.94", lw=0, zorder=0)
    # The decade at the strip is kept clear for the strip's own label.
    decades = np.arange(np.floor(np.log10(x[0])) + 1, np.log10(x[1]) + 0.01)
    decades = decades if len(decades) <= 4 else decades[::-2]
    labels = [f"$10^{{{d:.0f}}}$" for d in decades]
    ax.set_xticks([_strip(ax), *10.0**decades], ["0", *labels])
    ax.minorticks_off()


def _strip(ax: Axes) -> float:
    """Return the middle of the strip of no bias, a tenth of the axis on its left."""
    left, right = ax.get_xlim()
    return float(left * (right / left) ** (0.05 / 1.1))


def _coordinates(ax: Axes, rows: pd.DataFrame, prefix: str) -> tuple[Array, Array]:
    bias2 = _relative(rows, f"{prefix}bias2")
    return np.where(bias2 < SQUARE_ROUNDING, _strip(ax), bias2), _relative(
        rows, f"{prefix}variance"
    )


def _curve(ax: Axes, rows: pd.DataFrame, series: str, prefix: str, **look: Any) -> None:
    bias2, variance = _coordinates(ax, rows, prefix)
    ax.plot(bias2, variance, color=color(series), zorder=2, **look)


def _point(ax: Axes, rows: pd.DataFrame, series: str, prefix: str, **look: Any) -> None:
    bias2, variance = _coordinates(ax, rows, prefix)
    style: dict[str, Any] = {
        "marker": marker(series),
        "ls": "",
        "ms": 7,
        "mec": "white",
        "mew": 0.5,
        "zorder": 5,
    }
    ax.plot(bias2, variance, color=color(series), **(style | look))


def _names(ax: Axes, rows: pd.DataFrame, names: Sequence[str], series: str, prefix: str) -> None:
    look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 6.5, "zorder": 6}
    for x, y, name in zip(*_coordinates(ax, rows, prefix), names, strict=True):
        below: dict[str, Any] = {"xytext": (0, -4), "textcoords": "offset points"}
        ax.annotate(name, (x, y), color=color(series), **below, **look)


def _measured_curve(ax: Axes, rows: pd.DataFrame, series: str, prefix: str) -> None:
    """Draw joined points with +-1 standard error; arrows where bias^2 is within two of zero."""
    bias2, bias2_se, variance, variance_se = (
        _relative(rows, prefix + column)
        for column in ("bias2", "bias2_se", "variance", "variance_se")
    )
    resolved = ~(bias2 <= 2 * bias2_se)
    limit = _limits(rows, prefix)[~resolved]
    look: dict[str, Any] = {"color": color(series), "elinewidth": 0.7, "zorder": 3}
    ax.errorbar(
        bias2[resolved],
        variance[resolved],
        xerr=bias2_se[resolved],
        yerr=variance_se[resolved],
        fmt=marker(series),
        markersize=3,
        ls="-",
        lw=0.8,
        **look,
    )
    ax.errorbar(
        limit, variance[~resolved], xerr=0.5 * limit, xuplims=True, fmt="|", ms=3, alpha=0.8, **look
    )


def _equal_mse(ax: Axes) -> None:
    """Draw the lines bias^2 + variance = 0.1, 1, 10, ... (times |g|^2) that cross the panel."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for exponent in np.arange(np.floor(np.log10(bottom)), np.log10(top + right)):
        mse = 10.0**exponent
        bias2 = mse * (1 - np.geomspace(1, 1e-7, 400))
        bias2 = np.concatenate([[left], bias2[bias2 > left]])
        ax.plot(bias2, mse - bias2, color="0.72", lw=0.6, ls=(0, (4, 3)), zorder=0.5)


def draw_shares(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw `share` by `regime`, a line for each `scale` and `series`; hollow means scale-free."""
    regimes = list(rows["regime"].unique())
    cases = list(rows.groupby(["scale", "series"], sort=False))
    for ((scale, series), part), offset in zip(
        cases, np.linspace(-0.27, 0.27, len(cases)), strict=True
    ):
        low, middle, high = (
            part.groupby("regime")["share"]
            .quantile([0.15, 0.5, 0.85])
            .unstack()
            .loc[regimes]
            .to_numpy()
            .T
        )
        y = np.arange(len(regimes)) + offset
        ax.hlines(y, low, high, color=color(series), lw=1.2)
        face = color(series) if scale == "raw" else "white"
        ax.plot(middle, y, marker="o", ls="", ms=4.5, color=color(series), mfc=face)
    ax.set_yticks(range(len(regimes)), regimes)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(regimes) - 0.5, -0.5))


def shares_key(pairs: dict[str, str]) -> list[Line2D]:
    """Return the legend entries, from series to the words for its share."""
    grey: dict[str, Any] = {"color": "0.35", "ls": "-", "marker": "o", "ms": 4.5, "lw": 1.2}
    return [
        *(Line2D([], [], **(grey | {"color": color(s)}), label=text) for s, text in pairs.items()),
        Line2D([], [], **grey, label="filled: raw; dot and bar: median, 15 to 85 %"),
        Line2D([], [], **grey, mfc="white", label="hollow: scale-free"),
    ]
