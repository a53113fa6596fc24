"""Figures for a column and for a page: nothing is cut, no text is tiny, and the title is true."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlab.figures import function, views
from gradlab.figures.quadratics import plot as quadratics
from gradlab.figures.trade_off.plot_shares import finding, median_interval
from gradlab.plots.panels import WIDTHS

FOLDER = Path(__file__).parents[2] / "figures"
# By the name of the figure and of the view, the width for which it is made.
MADE = {
    ("trade-off", ""): "page",
    ("trade-off", "column"): "column",
    ("quadratics", ""): "page",
    ("quadratics", "column"): "column",
    ("prediction", ""): "page",
    ("prediction", "column"): "column",
    ("zoo", "plane"): "page",
    ("length", ""): "column",
    ("difficulty", ""): "column",
    ("off-policy", ""): "column",
    ("off-policy", "all"): "page",
    ("kl", ""): "column",
    ("groups", ""): "column",
}
SMALLEST = 6.0
"""Points, as printed."""


def committed(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv", low_memory=False)


def cut(figure: Figure) -> float:
    """Return by how many inches what is drawn reaches beyond the figure."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return float(max(-drawn.x0, -drawn.y0, drawn.x1 - width, drawn.y1 - height, 0.0))


@pytest.mark.parametrize(("name", "view"), MADE)
@pytest.mark.few(2)
def test_nothing_is_cut_and_all_texts_can_be_read(name: str, view: str) -> None:
    draw = views(name)[view] if view else function(name, "plot")
    figure = draw(committed(name))
    assert figure.get_figwidth() == WIDTHS[MADE[name, view]]
    assert cut(figure) < 0.01
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()]
    assert min(sizes) >= SMALLEST


def test_a_cut_text_is_seen() -> None:
    figure = Figure(figsize=(1, 1))
    figure.text(0.9, 0.5, "a long text")
    assert cut(figure) > 0.1


def test_the_title_of_the_trade_off_is_that_of_its_rows() -> None:
    rows = committed("trade-off").query("kind == 'domination'")
    title = finding(rows)
    assert "63%" in title
    assert "12%" in title
    raised = rows.assign(share=rows["share"].where(rows["series"] != "ST-ZGR", 1.0))
    assert "100%" in finding(raised)


def test_the_title_of_the_quadratics_is_that_of_its_rows() -> None:
    rows = committed("quadratics").query("method == 'exact'")
    assert "ZGR and RF(4) have no bias, ST has a median 19%" in quadratics.finding(rows)
    biased = rows.assign(bias2=rows["bias2"].where(rows["series"] != "ZGR", rows["truth2"]))
    assert "ZGR" not in quadratics.finding(biased)


@pytest.mark.parametrize("count", [6, 20, 51])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    source = np.random.default_rng(0)
    runs = 2000
    held = 0
    for _ in range(runs):
        low, high = median_interval(pd.Series(source.exponential(size=count)))
        held += low <= np.log(2) <= high
    # 95 % at least, and not much more than the next smaller interval would hold.
    assert held / runs > 0.95 - 4 * (0.05 * 0.95 / runs) ** 0.5
    assert held / runs < 0.99
