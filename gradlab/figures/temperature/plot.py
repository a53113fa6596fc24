"""Bias, standard deviation and RMSE against temperature: of one problem, or of all four."""

import pandas as pd
from matplotlib.figure import Figure

from gradlab.plots.names import label, problem_title
from gradlab.plots.panels import series_entries
from gradlab.plots.style import looks, styled
from gradlab.plots.temperature import draw_temperature, temperature, temperature_key

__all__ = ["VIEWS", "plot", "plot_all"]

SHOWN = "mlp"
_PANELS = ("bias", "sd", "rmse")


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of the network of bits: three panels, as of `gradlab.plot.temperature`."""
    with styled():
        chosen = rows[rows["problem"].str.startswith(SHOWN)]
        figure = temperature(chosen if len(chosen) else _first(rows), width="page")
        figure.set_figheight(figure.get_figheight() + 0.2)
    return figure


def plot_all(rows: pd.DataFrame) -> Figure:
    """Return the figure: rows of panels for bias, standard deviation, RMSE; a column a problem."""
    names = rows["problem"].unique()
    own = looks(rows["series"])
    with styled():
        figure = Figure(figsize=(11, 7.6))
        axes = figure.subplots(len(_PANELS), len(names), squeeze=False)
        for column, name in enumerate(names):
            axes[0, column].set_title(problem_title(name))
            for ax, quantity in zip(axes[:, column], _PANELS, strict=True):
                draw_temperature(ax, rows[rows["problem"] == name], quantity, own)
                ax.set_xlabel("temperature τ" if ax is axes[-1, column] else "")
                ax.set_ylabel("" if column else ax.get_ylabel())
        entries = series_entries(own, {series: label(series) for series in own})
        entries += temperature_key(rows, _PANELS)
        figure.legend(handles=entries, loc="outside lower center", ncols=7)
    return figure


VIEWS = {"all": plot_all}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["problem"] == rows["problem"].iloc[0]]
