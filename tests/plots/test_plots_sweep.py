"""Pictures of a sweep: what stands in panels, lines, bands, axes, notes and legends."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from gradlab.plots.hues import hue_looks
from gradlab.plots.style import color, marker
from gradlab.plots.sweep import plot
from gradlab.plots.sweep_points import MOST_HUES, MOST_PANELS, Points, points

TAUS = (0.1, 1.0, 10.0)
SQUARES = ("bias2", "variance", "scale_free_bias2", "scale_free_variance")


def sweep(
    estimators=("GS-ST", "GR(k=10)", "ZGR"),
    problems=("quadratic", "mlp"),
    sizes=((2, 2), (3, 4)),
    regimes=("uniform", "peaked"),
    seeds=(0, 1, 2),
    se=0.0,
):
    """Return rows of random numbers, ZGR and RF without a temperature."""
    rng = np.random.default_rng(0)
    rows = []
    for series, problem, (n, c), regime, seed in itertools.product(
        estimators, problems, sizes, regimes, seeds
    ):
        for tau in (np.nan,) if series.startswith(("ZGR", "RF")) else TAUS:
            squares = {name: float(rng.lognormal(0, 2)) for name in SQUARES}
            squares["mse"] = squares["bias2"] + squares["variance"]
            errors = {f"{name}_se": se * value for name, value in squares.items()}
            place = {"problem": problem, "N": n, "C": c, "regime": regime, "logits_seed": seed}
            text = series if np.isnan(tau) else f"{series}(tau={tau:g})"
            rows.append(
                place
                | {"series": series, "estimator": text, "tau": tau, "calls": 1, "seed": 0}
                | {"method": "exact", "reason": None, "truth2": float(rng.uniform(0.5, 2))}
                | squares
                | errors
                | {"cosine": float(rng.uniform(-1, 1)), "cosine_se": 0.0, "error": np.nan}
            )
    return pd.DataFrame(rows).astype({"reason": object, "error": object})


def one_cell(**options):
    return sweep(sizes=((2, 2),), regimes=("uniform",), seeds=(0,), **options)


def points_of(rows, *, x="tau", y="mse", hue="series", col="problem") -> Points:
    return points(rows, x, y, hue, col)


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def line(figure: Figure, panel: int, hue: str):
    (found,) = [line for line in figure.axes[panel].lines if line.get_label() == hue]
    return found


def band(figure: Figure, panel: int, hue: str, x: float) -> tuple[float, float]:
    """Return the lower and the upper end of a band at x."""
    shade = to_hex(line(figure, panel, hue).get_color())
    (found,) = [
        patch
        for patch in figure.axes[panel].collections
        if len(patch.get_facecolor()) and to_hex(patch.get_facecolor()[0]) == shade
    ]
    vertices = found.get_paths()[0].vertices
    at = vertices[np.isclose(vertices[:, 0], x), 1]
    return float(at.min()), float(at.max())


def bars(figure: Figure, panel: int) -> np.ndarray:
    """Return x, lower and upper end of all bars of a panel."""
    segments = [
        s for c in figure.axes[panel].collections for s in getattr(c, "get_segments", list)()
    ]
    return np.array([[s[0, 0], *sorted(s[:, 1])] for s in segments])


def note(figure: Figure, panel: int) -> str:
    return " ".join(text.get_text() for text in figure.axes[panel].texts)


def legend(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def foot(figure: Figure) -> str:
    return figure.get_supxlabel()


@pytest.mark.parametrize("hue", ["series", "estimator"])
def test_lines_are_medians_over_what_is_left_open(hue):
    rows = sweep()
    figure = plot(rows, hue=hue)
    assert titles(figure) == ["quadratic", "mlp"]
    chosen = rows[(rows["problem"] == "mlp") & (rows["series"] == "GR(k=10)")]
    expected = [np.median(chosen.loc[chosen["tau"] == tau, "mse"]) for tau in TAUS]
    found = line(figure, 1, "GR(k=10)")
    assert found.get_xdata() == pytest.approx(TAUS)
    assert found.get_ydata() == pytest.approx(expected)
    assert "median and 15-85 % over 12 rows: sizes, regimes, seeds" in legend(figure)


def test_bands_reach_from_15_to_85_percent():
    rows = sweep()
    values = rows.loc[
        (rows["problem"] == "quadratic") & (rows["series"] == "GS-ST") & (rows["tau"] == 1), "mse"
    ]
    found = band(plot(rows), 0, "GS-ST", 1.0)
    assert found == pytest.approx(tuple(np.quantile(values, [0.15, 0.85])))


def test_rows_without_x_are_dashed_across_the_panel():
    rows = sweep()
    figure = plot(rows)
    found = line(figure, 0, "ZGR")
    median = rows.loc[(rows["problem"] == "quadratic") & (rows["series"] == "ZGR"), "mse"].median()
    assert found.get_linestyle() == "--"
    assert found.get_ydata() == pytest.approx([median] * 3)
    assert found.get_xdata()[[0, -1]] == pytest.approx([0, 1])
    assert "no τ" in legend(figure)
    assert line(figure, 0, "GS-ST").get_linestyle() == "-"


def test_single_rows_have_standard_errors():
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",), se=0.25)
    figure = plot(rows)
    expected = [[t, 0.75 * mse, 1.25 * mse] for t, mse in zip(TAUS, rows["mse"], strict=True)]
    assert bars(figure, 0) == pytest.approx(np.array(expected))
    assert any("± 1 standard error" in text for text in legend(figure))


def test_exact_single_rows_have_no_bars():
    figure = plot(one_cell(estimators=("GS-ST",), problems=("mlp",)))
    assert len(bars(figure, 0)) == 0
    assert legend(figure) == ["GS-ST", "one row a point"]


@pytest.mark.parametrize("name", ["bias2", "variance", "mse"])
@pytest.mark.few(1)
def test_relative_squares_are_divided_by_truth2(name):
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",), se=0.5)
    figure = plot(rows, y=f"relative_{name}")
    expected = (rows[name] / rows["truth2"]).to_numpy()
    assert line(figure, 0, "GS-ST").get_ydata() == pytest.approx(expected)
    assert bars(figure, 0)[:, 2] == pytest.approx(1.5 * expected)


@pytest.mark.parametrize(
    ("y", "values", "scale"),
    [
        ("mse", [1.0, 2.0, 30.0], "log"),
        ("mse", [2.0, 5.0, 30.0], "linear"),
        ("bias2", [-1.0, 0.1, 30.0], "log"),  # an estimate of a square
        ("bias2", [0.0, 0.0, 0.0], "linear"),
        ("cosine", [-0.9, 0.01, 0.9], "linear"),
        ("cosine", [0.01, 0.02, 0.9], "log"),
    ],
)
@pytest.mark.few(2)
def test_axis_of_y(y, values, scale):
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",)).assign(**{y: values})
    assert plot(rows, y=y).axes[0].get_yscale() == scale


@pytest.mark.parametrize(("taus", "scale"), [((0.1, 1, 10), "log"), ((1, 2, 3), "linear")])
def test_axis_of_x(taus, scale):
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",)).assign(tau=taus)
    assert plot(rows).axes[0].get_xscale() == scale


@pytest.mark.parametrize(("y", "shared"), [("mse", False), ("relative_mse", True)])
def test_panels_of_problems_share_their_axis_if_it_has_no_unit(y, shared):
    left, right = plot(sweep(), y=y).axes
    assert left.get_shared_y_axes().joined(left, right) is shared


def test_points_without_a_place_on_a_logarithmic_axis_are_counted():
    rows = one_cell(estimators=("GS-ST", "RF(m=2)", "LE"), problems=("mlp",))
    rows["bias2"] = 1.0
    rows.loc[(rows["series"] == "GS-ST") & (rows["tau"] == 1), "bias2"] = -0.1
    rows.loc[(rows["series"] == "GS-ST") & (rows["tau"] == 10), "bias2"] = 100.0
    rows.loc[rows["series"] == "RF(m=2)", "bias2"] = 1e-33  # zero up to rounding
    figure = plot(rows, y="bias2")
    assert note(figure, 0) == "2 of 7 points ≤ 0: RF(2), GS-ST"
    drawn = line(figure, 0, "GS-ST").get_ydata()
    assert drawn == pytest.approx([1.0, np.nan, 100.0], nan_ok=True)


def test_points_far_below_the_others_are_counted():
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",)).assign(bias2=[1.0, 1e-12, 0.01])
    figure = plot(rows, y="bias2")
    assert note(figure, 0) == "1 of 3 points below the axis: GS-ST"
    assert figure.axes[0].get_ylim()[0] > 1e-4


def test_nothing_is_left_out_of_a_linear_axis():
    rows = one_cell(estimators=("GS-ST",), problems=("mlp",)).assign(cosine=[-0.5, 0.0, 0.5])
    figure = plot(rows, y="cosine")
    assert note(figure, 0) == ""
    assert line(figure, 0, "GS-ST").get_ydata() == pytest.approx([-0.5, 0.0, 0.5])


def test_medians_are_over_zeros_and_negative_estimates_too():
    rows = sweep(estimators=("GS-ST",), problems=("mlp",), sizes=((2, 2),), regimes=("uniform",))
    rows.loc[rows["logits_seed"] == 0, "bias2"] = -1.0
    expected = rows.groupby("tau")["bias2"].median()
    found = line(plot(rows, y="bias2"), 0, "GS-ST").get_ydata()
    assert found == pytest.approx(expected.to_numpy())


def with_losses(refused: int, failed: int, lacking: int) -> pd.DataFrame:
    rows = sweep()
    numbers = [column for column in rows if column.startswith((*SQUARES, "mse", "cosine"))]
    places = np.split(rows.index[:12], np.cumsum([refused, failed, lacking]))
    rows.loc[places[0].union(places[1]), numbers] = np.nan
    rows.loc[places[0], "reason"] = "needs two classes"
    rows.loc[places[1], "error"] = "fault"
    rows.loc[places[2], "mse"] = np.inf
    return rows


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((0, 0, 0), ""),
        ((2, 3, 0), "2 cells could not be measured, 3 failed"),
        ((1, 0, 0), "1 cell could not be measured"),
        ((0, 1, 2), "1 cell failed, 2 have no mse"),
    ],
)
def test_rows_without_a_number_are_counted(losses, text):
    rows = with_losses(*losses)
    found = points_of(rows)
    assert found.lost == text
    assert found.table["count"].sum() == len(rows) - sum(losses)


def test_the_foot_tells_how_many_rows_have_no_number():
    rows = with_losses(2, 3, 1)
    figure = plot(rows)
    assert foot(figure) == "2 cells could not be measured, 3 failed, 1 have no mse"
    chosen = rows[(rows["problem"] == "quadratic") & (rows["series"] == "GS-ST")]
    expected = chosen[np.isfinite(chosen["mse"])].groupby("tau")["mse"].median()
    assert line(figure, 0, "GS-ST").get_ydata() == pytest.approx(expected.to_numpy())


def test_relative_numbers_do_not_exist_where_the_gradient_is_zero():
    rows = sweep()
    rows.loc[rows["problem"] == "mlp", "truth2"] = 0.0
    figure = plot(rows, y="relative_mse")
    assert foot(figure) == "84 cells have no relative_mse"
    assert note(figure, 1) == "nothing could be measured"


def test_rows_of_different_counts_are_told():
    rows = sweep().drop(index=[0])
    assert "median and 15-85 % over 11 to 12 rows: sizes, regimes, seeds" in legend(plot(rows))


@pytest.mark.parametrize(
    ("col", "expected"),
    [
        ("size", ["2x2", "3x4", "10x2"]),
        ("regime", ["uniform", "peaked"]),
        ("C", ["C = 2", "C = 4"]),
        ("logits_seed", ["seed = 0", "seed = 1", "seed = 2"]),
        ("tau", ["τ = 0.1", "τ = 1", "τ = 10", "no τ"]),
    ],
)
@pytest.mark.few(2)
def test_panels(col, expected):
    rows = sweep(sizes=((10, 2), (2, 2), (3, 4)))
    assert points_of(rows, x="calls", col=col).panels == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hue": "regime"}, "sizes, seeds, estimators"),
        ({"hue": "C"}, "N, regimes, seeds, estimators"),
        ({"x": "size", "col": "regime"}, "problems, seeds, temperatures"),
    ],
)
def test_what_is_left_open(options, text):
    assert points_of(sweep(sizes=((2, 2), (3, 2), (3, 4))), **options).left_open == text


def test_text_along_x_is_named_and_not_joined():
    rows = sweep(estimators=("ZGR", "RF(m=2)"), problems=("mlp",))
    figure = plot(rows, x="regime", y="variance")
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["uniform", "peaked"]
    own = line(figure, 0, "ZGR")
    assert own.get_linestyle() == "None"
    groups = rows[rows["series"] == "ZGR"].groupby("regime", sort=False)["variance"]
    assert own.get_ydata() == pytest.approx(groups.median().to_numpy())
    found = bars(figure, 0)[:2, 1:]
    expected = np.array([groups.quantile(0.15), groups.quantile(0.85)]).T
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 12, MOST_HUES])
@pytest.mark.few(1)
def test_no_two_hues_look_alike(count):
    rows = one_cell(estimators=[f"GST(gap={i})" for i in range(count)], problems=("mlp",))
    figure = plot(rows)
    looks = {
        (to_hex(line.get_color()), line.get_marker())
        for line in figure.axes[0].lines
        if line.get_label().startswith("GST")
    }
    assert len(looks) == count
    assert len({shade for shade, _ in looks}) == count
    assert len(legend(figure)) == count + 1


def test_series_keep_their_colour_and_no_two_look_alike():
    looks = hue_looks(["MVE", "ZGR", "GS-ST", "RF(m=2)", "RF(m=4)"], "series")
    for series in ("MVE", "ZGR", "GS-ST", "RF(m=2)"):
        assert looks[series] == {"color": color(series), "marker": marker(series)}
    assert looks["RF(m=4)"]["color"] == color("RF(m=4)")
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 5


@pytest.mark.thorough  # 24 panels of one kind
@pytest.mark.parametrize("count", [5, MOST_PANELS])
@pytest.mark.few(1)
def test_many_panels(count):
    names = [f"norm:{i}" for i in range(count)]
    rows = one_cell(estimators=("ZGR", "RF(m=2)"), problems=names)
    assert titles(plot(rows)) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "temperature"}, r"x must be a column, not 'temperature': .*\btau\b"),
        ({"hue": "colour"}, r"hue must be a column, not 'colour': .*\bsize\b"),
        ({"col": "panel"}, r"col must be a column, not 'panel': .*\bregime\b"),
        ({"y": "loss"}, r"y must be a column of numbers, not 'loss': .*\brelative_mse\b"),
        ({"y": "regime"}, r"y must be a column of numbers, not 'regime'"),
    ],
)
def test_unknown_columns(options, message):
    with pytest.raises(ValueError, match=message):
        plot(sweep(), **options)


@pytest.mark.parametrize(
    ("argument", "most"), [("hue", MOST_HUES), ("col", MOST_PANELS), ("x", MOST_HUES)]
)
def test_too_many_values(argument, most):
    rows = one_cell(estimators=[f"ZGR(i={i})" for i in range(most + 1)], problems=("mlp",))
    options = {"x": "calls", "hue": "regime", "col": "regime"} | {argument: "estimator"}
    message = f"{argument} = 'estimator' has {most + 1} values, at most {most} .* --where"
    with pytest.raises(ValueError, match=message):
        plot(rows, **options)


def test_no_rows():
    with pytest.raises(ValueError, match="rows must not be empty"):
        plot(sweep().iloc[:0])


def test_nothing_measured():
    rows = sweep().assign(reason="needs two classes", mse=np.nan)
    with pytest.raises(ValueError, match="number of y = 'mse', but 168 cells could not be"):
        plot(rows)


def test_rows_are_not_changed():
    rows = sweep()
    before = rows.copy(deep=True)
    plot(rows, y="relative_bias2")
    pd.testing.assert_frame_equal(rows, before)
