"""The door of figures for papers: every function on rows of every verb, at both widths and on axes.

Nothing may be clipped or lie on something else, and the caller's settings stay as they are.
"""

import functools
import io
import itertools
import subprocess
import sys
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import gradlab
from gradlab import plot
from gradlab.comparison.ranking import averaged_error, progress_at
from gradlab.plots import recommendation
from gradlab.plots.budget import reached
from gradlab.plots.panels import WIDTHS, PaperFigure
from gradlab.plots.style import FAMILIES, color, looks, marker
from gradlab.problems import problem, regime

pytestmark = pytest.mark.usefixtures("unchecked")

ESTIMATORS = ["ST", "ZGR", "GS-ST", "GR(k=10)", "GR(k=inf)", "RF(m=4)", "RF(m=2)", "GS", "ARSM"]
TAUS = [0.03, 0.1, 0.3, 1.0, 3.0]


@functools.cache
def compared(kind: str = "mlp", method: str = "auto") -> pd.DataFrame:
    f, logits = problem(kind, 3, 3), regime("moderate", 3, 3)
    return gradlab.compare(f, logits, ESTIMATORS, TAUS, draws=512, method=method)


@functools.cache
def recommended() -> gradlab.Recommendation:
    f, logits = problem("mlp", 3, 3), regime("moderate", 3, 3)
    given = {"draws": 512, "temperatures": [0.3, 1.0], "estimators": ESTIMATORS}
    return gradlab.recommend(f, logits, evaluations=12, **given)


@functools.cache
def probed() -> pd.DataFrame:
    measure = gradlab.GradientProbe(ESTIMATORS, every=1, draws=64)
    w = torch.linspace(-1, 1, 9).reshape(3, 3)
    for step in range(6):
        measure(step, lambda x: ((x * w).sum((-1, -2)) - 0.3) ** 3, 0.3 * step * w.expand(2, 3, 3))
    return measure.rows


@functools.cache
def verified() -> pd.DataFrame:
    rows = []
    for kind, text in itertools.product(("linear", "quadratic", "mlp"), ("ST", "ZGR", "RF")):
        on = problem(kind, 2, 3), regime("moderate", 2, 3)
        rows.append(gradlab.verify(text, *on).row() | {"problem": kind})
    return pd.DataFrame(rows)


def curves(names=("ST", "ZGR", "GS-ST(tau=0.5)", "GS-ST(tau=1)", "RF(m=4)")) -> pd.DataFrame:
    epochs = np.arange(1, 31)
    parts = [
        pd.DataFrame(
            {
                "kind": "vae",
                "estimator": name,
                "seed": seed,
                "epoch": epochs,
                "step": 40 * epochs,
                "seconds": 1.5 * epochs,
                "train_nelbo": 130 + 5 * place + seed + 80 / epochs,
                "test_nelbo": 131.0 + 5 * place + seed,
                "test_nelbo_se": 0.4,
                "test_bound": 121.0 + 5 * place + seed,
                "test_bound_se": 0.4,
            }
        )
        for place, name in enumerate(names)
        for seed in (0, 1)
    ]
    return pd.concat(parts, ignore_index=True)


@functools.cache
def bounded(method: str = "exact") -> pd.DataFrame:
    texts = ["PLAIN", "VIMCO", "VIMCO-A", "OVIS", "OVIS(gamma=1)", "OVIS-MC(s=10)", "LE", "ZGR"]
    on = problem("mlp", 2, 2), regime("moderate", 2, 2)
    return gradlab.bounds.compare(*on, texts, k=(1, 2, 8, 32), draws=256, method=method)


# What is called, and with which rows.
CASES = {
    "temperature": (plot.temperature, compared),
    "temperature, exact": (plot.temperature, lambda: compared().query("method == 'exact'")),
    "temperature, draws": (plot.temperature, lambda: compared(method="monte-carlo")),
    "temperature, both": (plot.temperature, lambda: compared(method="both")),
    "temperature, zeros": (plot.temperature, lambda: compared("quadratic")),
    "temperature, of recommend": (plot.temperature, lambda: recommended().rows),
    "plane": (plot.plane, compared),
    "plane, draws": (plot.plane, lambda: compared(method="monte-carlo")),
    "plane, zeros": (plot.plane, lambda: compared("quadratic")),
    "plane, no gradient": (plot.plane, lambda: compared("constant")),
    "plane, of recommend": (plot.plane, lambda: recommended().rows),
    "plane, of a probe": (plot.plane, lambda: probed().query("step == 2")),
    "budget": (plot.budget, compared),
    "budget, error": (functools.partial(plot.budget, show="error"), compared),
    "budget, of recommend": (plot.budget, lambda: recommended().rows),
    "budget, of a ranking": (plot.budget, lambda: recommended().curves),
    "budget, errors of a ranking": (
        functools.partial(plot.budget, show="error"),
        lambda: recommended().curves,
    ),
    "bounds": (plot.bounds, bounded),
    "bounds, bias": (functools.partial(plot.bounds, show="bias"), bounded),
    "bounds, draws": (plot.bounds, lambda: bounded("monte-carlo")),
    "bounds, both": (functools.partial(plot.bounds, show="variance"), lambda: bounded("both")),
    "verdicts": (plot.verdicts, verified),
    "probe": (plot.probe, probed),
    "probe, rmse": (functools.partial(plot.probe, show="rmse"), probed),
    "training": (plot.training, curves),
    "training, seconds": (functools.partial(plot.training, across="seconds"), curves),
}
cases = pytest.mark.parametrize("name", CASES)
each = pytest.mark.parametrize("name", [name for name in CASES if name.isalpha()])


@functools.cache
def rows_of(name: str) -> pd.DataFrame:
    return CASES[name][1]()


@functools.cache
def at_width(name: str, width: str = "column") -> Figure:
    return drawn(name, width=width)


def drawn(name: str, **options) -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a layout that collapses
        figure = CASES[name][0](rows_of(name), **options)
        figure.draw_without_rendering()
    return figure


def seen_texts(figure: Figure) -> list[Text]:
    """Return all texts that can be seen: titles, labels, ticks inside the axes, legends, notes."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            room = 1e-9 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - room <= tick.get_loc() <= high + room:
                    hidden |= {tick.label1, tick.label2}
                hidden |= {tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in hidden
    ]


def faults(figure: Figure) -> list[str]:
    """Return what is cut off at the edge of the figure, and what lies on something else."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in seen_texts(figure)]
    page = figure.bbox
    found = [
        f"cut off: {text}"
        for text, box in boxes
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > page.x1 + 0.5 or box.y1 > page.y1 + 0.5
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > 1 and high > 1:
            found.append(f"{one} on {other}")
    return found


@pytest.mark.parametrize("width", WIDTHS)
@cases
@pytest.mark.few(2)
def test_texts_can_be_read_and_nothing_is_cut_off_or_lies_on_something_else(name, width):
    figure = at_width(name, width)
    assert figure.get_figwidth() == WIDTHS[width]
    texts = seen_texts(figure)
    assert len(texts) > 5
    assert min(text.get_fontsize() for text in texts) >= 5.0
    assert faults(figure) == []
    # Something to see is left between labels and legend.
    assert min(ax.get_position().height * figure.get_figheight() for ax in figure.axes) > 0.5
    assert min(ax.get_position().width * figure.get_figwidth() for ax in figure.axes) > 1.0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.thorough  # the same faults are looked for above
def test_nothing_is_cut_off_in_the_picture_of_a_recommendation(width):
    figure = recommendation.plot(recommended().curves, width)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == WIDTHS[width]
    assert faults(figure) == []


def test_faults_are_seen():
    figure = Figure(figsize=(2, 2))
    ax = figure.subplots()
    ax.set_xticks([0, 0.05], ["one name", "another name"])
    figure.text(0.9, 0.9, "a long text at the edge")
    found = faults(figure)
    assert "cut off: a long text at the edge" in found
    assert "one name on another name" in found


@each
@pytest.mark.few(1)
def test_axes_of_the_caller_are_drawn_on(name):
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    before = ax.xaxis.label.get_size()
    try:
        assert drawn(name, ax=ax) is figure
        assert figure.axes == [ax]
        assert ax.has_data()
        assert ax.xaxis.label.get_size() == before
        cut = [fault for fault in faults(figure) if fault.startswith("cut off")]
        assert cut == []
    finally:
        plt.close(figure)


@pytest.mark.parametrize("function", [plot.temperature, plot.probe])
@pytest.mark.few(1)
def test_several_axes_of_the_caller(function):
    rows = compared() if function is plot.temperature else probed()
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    function(rows, ["bias", "rmse"], ax=axes, legend=False)
    assert [ax.get_ylabel() for ax in axes] == ["bias / |g|", "RMSE / |g|"]
    assert axes[0].get_legend() is None
    with pytest.raises(ValueError, match=r"ax must be one axis for each .*bias, sd, rmse\), not 2"):
        function(rows, ["bias", "sd", "rmse"], ax=axes)


@pytest.mark.thorough  # rows_and_settings_are_left_as_they_were
@each
@pytest.mark.few(2)
def test_settings_of_the_caller_are_kept(name):
    mine = {"font.size": 6.0, "xtick.labelsize": 5.0, "grid.alpha": 0.9, "lines.markersize": 2.5}
    mine |= {"font.family": ["serif"], "axes.labelsize": 9.5, "legend.fontsize": 5.5}
    with mpl.rc_context(mine):
        figure = drawn(name)
        inside = dict(mpl.rcParams)
        labels = [a.xaxis.label for a in figure.axes] + [a.yaxis.label for a in figure.axes]
        assert {label.get_size() for label in labels} == {9.5}
        assert {text.get_size() for text in figure.legends[0].get_texts()} == {5.5}
        assert {text.get_family()[0] for text in seen_texts(figure)} == {"serif"}
        ticks = {tick.get_size() for ax in figure.axes for tick in ax.get_xticklabels()}
        assert ticks == {5.0}
        sizes = {
            line.get_markersize()
            for ax in figure.axes
            for line in ax.lines
            if len(line.get_xydata()) > 1
        }
        assert sizes <= {2.5}
    assert inside["font.size"] == 6.0


@each
@pytest.mark.few(1)
def test_rows_and_settings_are_left_as_they_were_and_a_csv_is_enough(name):
    rows = rows_of(name)
    before, settings = rows.copy(), dict(mpl.rcParams)
    again = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    assert len(CASES[name][0](again).axes) == len(at_width(name).axes)
    CASES[name][0](rows)
    pd.testing.assert_frame_equal(rows, before)
    assert dict(mpl.rcParams) == settings


@pytest.mark.thorough  # one setting of the style
@pytest.mark.parametrize("name", ["verdicts"])
def test_pdfs_hold_their_fonts(name):
    def pdf(**settings) -> bytes:
        file = io.BytesIO()
        with mpl.rc_context(settings):
            at_width(name).savefig(file, format="pdf")
        return file.getvalue()

    assert b"/FontFile2" in pdf()
    assert b"/Subtype /Type3" not in pdf()
    # The caller may choose otherwise, but for the default of matplotlib.
    with mpl.rc_context({"pdf.use14corefonts": True}):
        assert b"/FontFile2" not in pdf()


def test_plain_figures_of_matplotlib_do_not_hold_theirs():
    file = io.BytesIO()
    figure = Figure()
    figure.text(0.5, 0.5, "a")
    figure.savefig(file, format="pdf")
    assert b"/Subtype /Type3" in file.getvalue()
    assert issubclass(PaperFigure, Figure)


# ---- what cannot be drawn ---------------------------------------------------------------------

MISSING = [
    ("temperature", "tau"),
    ("temperature", "bias2_se"),
    ("temperature", "truth2"),
    ("plane", "variance"),
    ("budget", "cosine"),
    ("budget", "cost"),
    ("verdicts", "outcome"),
    ("verdicts", "problem"),
    ("probe", "step"),
    ("probe", "progress"),
    ("training", "train_nelbo"),
    ("training", "kind"),
    ("training", "test_bound"),
]


@pytest.mark.parametrize(("name", "column"), MISSING)
def test_a_missing_column_is_named(name, column):
    rows = rows_of(name).drop(columns=column)
    with pytest.raises(ValueError, match=rf"rows have no column '{column}': {name} draws .*"):
        CASES[name][0](rows)


@pytest.mark.parametrize("name", ["temperature", "plane", "budget", "verdicts", "probe"])
def test_no_rows_are_refused(name):
    with pytest.raises(ValueError, match=r"rows must not be empty"):
        CASES[name][0](rows_of(name)[:0])


@pytest.mark.parametrize("name", ["temperature", "plane", "budget"])
@pytest.mark.parametrize("column", ["problem", "logits_seed"])
def test_several_problems_are_refused(name, column):
    rows = rows_of(name)
    both = pd.concat([rows, rows.assign(**{column: 1 if column == "logits_seed" else "other"})])
    with pytest.raises(ValueError, match=rf"rows must be of one {column}, not 2: take one, as"):
        CASES[name][0](both)


def test_other_mistakes_are_named():
    rows = compared()
    with pytest.raises(ValueError, match=r"show must be of bias, sd, .*, not 'variance'"):
        plot.temperature(rows, "variance")
    with pytest.raises(ValueError, match=r"show must be of bias, sd, .*, not 'loss'"):
        plot.probe(probed(), ["bias", "loss"])
    with pytest.raises(ValueError, match=r'show must be "progress" or "error", not \'bias\''):
        plot.budget(rows, "bias")
    with pytest.raises(ValueError, match=r'width must be "column" or "page", not 3'):
        plot.plane(rows, width=3)
    with pytest.raises(ValueError, match=r"rows have no temperature in their column 'tau'"):
        plot.temperature(rows[rows["tau"].isna()])
    with pytest.raises(ValueError, match=r"across must be of epoch, step, seconds, not 'time'"):
        plot.training(curves(), across="time")
    two = probed().assign(trained="ST")
    with pytest.raises(ValueError, match=r"rows must be of one trained, not 2"):
        plot.probe(pd.concat([two, two.assign(trained="ZGR")]))


@pytest.mark.parametrize("name", ["temperature", "plane", "budget", "probe"])
def test_rows_without_a_measurement_say_so(name):
    rows = rows_of(name).assign(reason="too large")
    figure = CASES[name][0](rows)
    assert figure.texts[0].get_text() == "nothing could be measured: see the reasons in the rows"


# ---- what is shown ----------------------------------------------------------------------------


def lines(ax: Axes, series: str) -> list[np.ndarray]:
    return [
        line.get_ydata() for line in ax.lines if to_hex(line.get_color()).upper() == color(series)
    ]


def test_temperature_shows_the_numbers_of_the_rows():
    rows = compared()
    (ax,) = plot.temperature(rows, "sd").axes
    own = rows[rows["series"] == "GS-ST"].sort_values("tau")
    assert lines(ax, "GS-ST")[0] == pytest.approx(np.sqrt(own["variance"] / own["truth2"]))


def test_what_is_zero_stands_in_a_strip():
    (ax,) = plot.temperature(compared("quadratic"), "bias").axes
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels[0] == "0"
    (place,) = {float(value) for line in lines(ax, "ZGR") for value in line}
    assert place == pytest.approx(ax.get_yticks()[0])
    (without,) = plot.temperature(compared("quadratic"), "rmse").axes
    assert "0" not in [tick.get_text() for tick in without.get_yticklabels()]


def test_series_of_one_bias_are_named():
    figure = plot.temperature(compared(), ["bias"])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "one bias: GS-ST, GR" in texts or "one bias: GR, GS-ST" in texts
    texts = plot.temperature(compared(), ["sd"]).legends[0].get_texts()
    assert not any("one bias" in text.get_text() for text in texts)


@pytest.mark.parametrize("show", ["progress", "error"])
def test_budget_follows_the_formulas_of_the_ranking(show):
    rows = compared().query("series == 'ARSM'")
    found = reached(rows, show, 1000.0)
    draws = found["evaluations"].to_numpy() / rows["cost"].iloc[0]
    value, se = zip(
        *(
            progress_at(rows, n) if show == "progress" else averaged_error(rows, n)
            for n in draws.tolist()
        ),
        strict=True,
    )
    value, se = np.ravel(value), np.ravel(se)
    if show == "error":
        truth2 = rows["truth2"].iloc[0]
        bias2 = min(rows["bias2"].iloc[0], 0.0)
        value = np.sqrt((value - bias2) / truth2)
    else:
        assert found["se"].to_numpy() == pytest.approx(se)
    assert found["value"].to_numpy() == pytest.approx(value)


def test_budget_takes_the_best_temperature():
    rows = compared()
    all_of = reached(rows[rows["series"] == "GS-ST"], "progress")["value"]
    for tau in TAUS:
        one = rows[(rows["series"] == "GS-ST") & (rows["tau"] == tau)]
        assert (reached(one, "progress")["value"] <= all_of + 1e-12).all()


def test_probe_shows_progress_through_the_steps():
    (ax,) = plot.probe(probed(), "progress").axes
    own = probed().query("estimator == 'ZGR'")
    assert lines(ax, "ZGR")[0] == pytest.approx(own["progress"].to_numpy())


def test_probe_has_zeros_in_a_strip_and_no_arrow_for_them():
    (ax,) = plot.probe(probed().query("estimator == 'RF(m=4)' or estimator == 'ST'"), "bias").axes
    place = ax.get_yticks()[0]
    assert ax.get_yticklabels()[0].get_text() == "0"
    assert lines(ax, "RF(m=4)")[0] == pytest.approx([place] * 6)


def test_training_draws_the_chosen_runs():
    rows = curves(["ST", "ZGR"]).assign(chosen=True)
    rows.loc[rows["seed"] == 1, "chosen"] = False
    (ax,) = plot.training(rows, "train_nelbo").axes
    own = rows[(rows["estimator"] == "ST") & rows["chosen"]]
    assert lines(ax, "ST")[0] == pytest.approx(own["train_nelbo"].to_numpy())


# ---- one look for each estimator --------------------------------------------------------------


def test_every_estimator_has_a_look_of_its_own():
    names = [name for kind in FAMILIES.values() for name in kind]
    assert len({(color(name), marker(name)) for name in names}) == len(names) > 30


@pytest.mark.parametrize("name", ["temperature", "plane", "budget", "probe", "training"])
@pytest.mark.few(1)
def test_no_two_estimators_look_alike_in_a_figure(name):
    legend = at_width(name).legends[0]
    handles = {
        (to_hex(line.get_color()), line.get_marker(), line.get_linestyle())
        for line in legend.get_lines()
        if line.get_linestyle() != "None"
    }
    column = "estimator" if name in ("probe", "training") else "series"
    count = rows_of(name)[column].nunique()
    assert len(handles) >= count


def test_a_look_does_not_depend_on_the_figure():
    few, many = looks(["RF(m=4)", "MVE"]), looks(["ST", "ZGR", "MVE", "GS-ST(tau=1)", "RF(m=4)"])
    for series, look in few.items():
        assert (look["color"], look["marker"]) == (many[series]["color"], many[series]["marker"])
    assert color("GS-ST(tau=1)") == color("GS-ST")
    assert looks(["Mine"]) == looks(["Mine"])


@pytest.mark.thorough  # tests/test_layout.py loads plots without torch
def test_the_door_is_lazy_and_needs_no_torch():
    code = """
import sys, gradlab
assert "matplotlib" not in sys.modules
import pandas as pd
rows = pd.read_csv("figures/temperature.csv")
gradlab.plot.temperature(rows[rows["problem"] == rows["problem"][0]])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
