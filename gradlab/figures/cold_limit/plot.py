"""Differences to ZGR against temperature, with the leading terms that they follow."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import problem_title
from gradlab.plots.style import color, marker, styled

__all__ = ["plot"]

SERIES = {"GS-ST": "GS-ST", "GR(k=inf)": "GR (k=∞)"}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: a column a problem, distances of means above, of variances below."""
    with styled():
        names = list(rows["problem"].unique())
        figure = Figure(figsize=(8.6, 5))
        axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for column, name in enumerate(names):
            axes[0, column].set_title(problem_title(name))
            for ax, quantity in zip(axes[:, column], ("mean", "variance"), strict=True):
                chosen = (rows["problem"] == name) & (rows["quantity"] == quantity)
                _panel(ax, rows[chosen])
            # Room for the text.
            axes[1, column].set_ylim(bottom=1e-4)
            axes[1, column].set_xlabel("temperature τ")
        axes[0, 0].set_ylabel("|E ĝ − E ZGR| / |g|")
        axes[1, 0].set_ylabel("|Var ĝ − Var ZGR| / |g|²")
        handles = [_points(series, label=f"{text}, exact") for series, text in SERIES.items()]
        law = "leading term (τ²: through the coldest point)"
        handles.append(Line2D([], [], color="k", ls="--", lw=0.9, label=law))
        handles.append(Line2D([], [], color="0.6", lw=2, label="ZGR itself"))
        dip = "GS-ST dips where its variance crosses that of ZGR"
        handles.append(Line2D([], [], ls="", label=dip))
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    logarithmic(ax)
    lines = []
    for series, part in rows.groupby("series", sort=False):
        ax.plot(part["tau"], part["law"].abs(), "--", color="k", lw=0.9, zorder=2)
        ax.add_line(_points(str(series), part["tau"].tolist(), part["difference"].abs().tolist()))
        coldest = part.iloc[0]
        who = {"mean": "both"}.get(
            coldest["quantity"],
            f"{SERIES[str(series)]} {'above' if coldest['difference'] > 0 else 'below'} ZGR",
        )
        lines.append(f"{who}: slope {coldest['slope']:.2f} (law {coldest['power']:d})")
    ax.axhline(rows["scale"].iloc[0], color="0.6", lw=2, alpha=0.6, zorder=1)
    text = "\n".join(dict.fromkeys(lines)).replace("-", "−").replace("GS−ST", "GS-ST")
    ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", va="bottom")


def _points(
    series: str, x: Sequence[float] = (), y: Sequence[float] = (), label: str = ""
) -> Line2D:
    """Return the markers of a series: those of GR fit inside those of GS-ST where both coincide."""
    hollow, shade = series == "GS-ST", color(series)
    points = Line2D(x, y, ls="", color=shade, marker=marker(series), label=label, zorder=3)
    points.set(markersize=6.5 if hollow else 3, markerfacecolor="none" if hollow else shade)
    return points
