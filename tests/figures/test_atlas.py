"""The atlas of a sweep: its shares are those of mean vectors, and its winners those of the rows."""

import functools
import io

import numpy as np
import pandas as pd
import pytest

import gradlab
from gradlab.comparison.comparing import compare
from gradlab.comparison.dominance import MomentCurve, dominated_share
from gradlab.estimators import STZGR, GumbelRao
from gradlab.exact.moments import Enumeration
from gradlab.figures.atlas.plot import leads, plot
from gradlab.figures.atlas.rows import findings, st_zgr_plane, summary
from gradlab.problems import problem, regime

pytestmark = pytest.mark.usefixtures("unchecked")

TEMPERATURES = [float(f"{tau:.3g}") for tau in np.geomspace(0.01, 10, 20)]
SERIES = ["ST", "ZGR", "DARN", "GR(k=inf)", "GR", "LE", "MVE-INT"]
CASES = [
    ("quadratic", 3, 4, "moderate", 0),
    ("cubic", 2, 8, "peaked", 1),
    ("softplus", 4, 4, "masked", 0),
    ("norm:1.5", 6, 2, "masked", 2),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
scales = pytest.mark.parametrize("scale", ["raw", "scale-free"])


@functools.cache
def exact(case: tuple[str, int, int, str, int]) -> Enumeration:
    name, N, C, logits, seed = case
    return Enumeration(problem(name, N, C, seed), regime(logits, N, C, seed))


@functools.cache
def rows(case: tuple[str, int, int, str, int]) -> pd.DataFrame:
    name, _, _, logits, seed = case
    given = {"problem": name, "logits_seed": seed}
    table = compare(exact(case), None, SERIES, TEMPERATURES, **given)
    return table.assign(regime=logits, error=None)


def curve(case: tuple[str, int, int, str, int], family: list, parameter: list) -> MomentCurve:
    moments = [exact(case).moments(estimator) for estimator in family]
    mean = np.stack([m.mean.numpy().ravel() for m in moments])
    return MomentCurve(np.array(parameter), mean, np.array([float(m.variance) for m in moments]))


def share(table: pd.DataFrame, scale: str, series: str, by: str) -> float:
    chosen = (table["scale"] == scale) & (table["series"] == series) & (table["dominated_by"] == by)
    return float(table.loc[chosen, "share"].item())


@functools.cache
def swept() -> pd.DataFrame:
    return pd.concat([rows(case) for case in CASES])


@functools.cache
def atlas() -> pd.DataFrame:
    return summary(swept())


@cases
@scales
@pytest.mark.few(1)
def test_three_rows_give_the_whole_line_of_the_mean_vectors(case, scale) -> None:
    free, alpha = scale == "scale-free", np.linspace(0, 2, 41)
    nodes = rows(case)[lambda t: t["series"].isin(["ST", "ZGR", "DARN"])]
    truth = exact(case).values.gradient.numpy()
    line = curve(case, [STZGR(float(a)) for a in alpha], alpha).plane(truth, scale_free=free)
    found = st_zgr_plane(nodes, alpha, scale_free=free)
    np.testing.assert_allclose(found, line, rtol=1e-10, atol=1e-10 * (truth**2).sum())


def test_small_squared_biases_beside_zgr_keep_their_digits() -> None:
    case, alpha = CASES[0], 1 - np.array([1e-2, 1e-3, 1e-4])
    nodes = rows(case)[lambda t: t["series"].isin(["ST", "ZGR", "DARN"])]
    # On quadratics the bias is 1 - alpha times that of ST.
    st = nodes.loc[nodes["series"] == "ST", "bias2"].item()
    np.testing.assert_allclose(st_zgr_plane(nodes, alpha)[:, 0], st * (1 - alpha) ** 2, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[2:], ids=lambda case: case[0])
@scales
def test_shares_are_those_of_mean_vectors_at_many_temperatures(case, scale) -> None:
    truth, grid = exact(case).values.gradient.numpy(), np.geomspace(0.01, 10, 101)
    rao = curve(case, [GumbelRao(float(tau), None) for tau in grid], grid)
    line = curve(case, [STZGR(0.0), STZGR(1.0), STZGR(2.0)], [0.0, 1.0, 2.0])
    # Cold GR ends at ZGR: there an even line would be too coarse to tell the curves apart.
    lines = line.at(np.linspace(0, 1, 201)), line.at(1 - np.linspace(1, 0, 2001) ** 2)
    a, even, b = (c.plane(truth, scale_free=scale == "scale-free") for c in (rao, *lines))
    found = summary(rows(case))
    of_rao = share(found, scale, "GR(k=inf)", "ST-ZGR")
    assert of_rao == pytest.approx(dominated_share(a, b, margin=1e-6), abs=0.02)
    of_line = share(found, scale, "ST-ZGR", "GR(k=inf)")
    assert of_line == pytest.approx(dominated_share(even, a, margin=1e-6), abs=0.02)


def replaced(table: pd.DataFrame, factor: float, alpha: np.ndarray) -> pd.DataFrame:
    """Return the table with ST-ZGR(alpha) in the place of GR(k=inf), both costs times `factor`."""
    nodes = table[table["series"].isin(["ST", "ZGR", "DARN"])]
    rao = table["series"] == "GR(k=inf)"
    table = table.copy()
    for free, columns in (
        (False, ["bias2", "variance"]),
        (True, ["scale_free_bias2", "scale_free_variance"]),
    ):
        table.loc[rao, columns] = factor * st_zgr_plane(nodes, alpha, scale_free=free)
    return table


@pytest.mark.parametrize(("factor", "of_rao", "of_line"), [(10, 1, 0), (0.1, 0, 1)])
@scales
@pytest.mark.few(2)
def test_a_curve_worse_in_both_costs_is_wholly_dominated(factor, of_rao, of_line, scale) -> None:
    found = summary(replaced(rows(CASES[0]), factor, np.linspace(1, 0, len(TEMPERATURES))))
    assert share(found, scale, "GR(k=inf)", "ST-ZGR") == of_rao
    assert share(found, scale, "ST-ZGR", "GR(k=inf)") == of_line
    tau = found[(found["series"] == "GR(k=inf)") & (found["scale"] == scale)]
    assert tau["tau_low"].fillna(0).item() == pytest.approx(0.01 * of_rao)
    assert tau["tau_high"].fillna(0).item() == pytest.approx(10 * of_rao)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@scales
@pytest.mark.few(2)
def test_a_point_of_the_line_neither_dominates_it_nor_is_dominated(alpha, scale) -> None:
    found = summary(replaced(rows(CASES[0]), 1, np.full(len(TEMPERATURES), alpha)))
    assert share(found, scale, "GR(k=inf)", "ST-ZGR") == 0
    assert share(found, scale, "ST-ZGR", "GR(k=inf)") == 0


def without(table: pd.DataFrame, series: str) -> pd.DataFrame:
    return table[table["series"] != series]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (lambda: rows(("constant", 2, 3, "masked", 0)), "the true gradient is 0"),
        (lambda: without(rows(CASES[0]), "DARN"), "not exact: GR(k=inf) at two temperatures"),
        (lambda: without(rows(CASES[0]), "GR(k=inf)"), "not exact: GR(k=inf) at two temperatures"),
        (
            lambda: rows(CASES[0]).assign(scale_free_variance=np.nan, scale_free_bias2=np.nan),
            "a mean or its variance is 0",
        ),
    ],
    ids=["no gradient", "no DARN", "no GR", "no mean"],
)
@pytest.mark.few(1)
def test_a_share_that_does_not_exist_has_a_reason(table, reason) -> None:
    found = summary(table())
    shares = found[(found["kind"] == "domination") & (found["scale"] == "scale-free")]
    missing = shares[shares["share"].isna()]
    assert {"GR(k=inf)", "ST-ZGR"} <= set(missing["series"])
    assert missing["reason"].str.startswith(reason).any()
    assert shares.loc[shares["share"].notna(), "reason"].isna().all()
    if found["kind"].isin(["best"]).any():
        assert "do not exist" in plot(found).get_suptitle()


def test_linear_f_has_shares_although_nothing_is_biased() -> None:
    found = summary(rows(("linear", 2, 3, "moderate", 0))).query("kind == 'domination'")
    assert found["share"].between(0, 1).all()


def test_best_rows_are_the_least_errors_of_the_table() -> None:
    table = rows(CASES[0])
    found = summary(table).query("kind == 'best'").set_index(["criterion", "series"])
    rao = table[table["series"] == "GR(k=inf)"]
    for cost, share in (("one draw", 1), ("12 evaluations", 3 / 12)):
        error = (rao["bias2"] + share * rao["variance"]) / rao["truth2"]
        assert found.loc[(cost, "GR(k=inf)"), "error"] == pytest.approx(error.min())
        assert found.loc[(cost, "GR(k=inf)"), "tau"] == rao.loc[error.idxmin(), "tau"]
    le = table[table["series"] == "LE"].iloc[0]
    expected = (le["bias2"] + le["variance"] * le["cost"] / 12) / le["truth2"]
    assert found.loc[("12 evaluations", "LE"), "error"] == pytest.approx(expected)
    assert found.groupby("criterion")["wins"].sum().eq(1).all()


def test_progress_counts_what_is_averaged_at_equal_cost() -> None:
    f, logits = problem("cubic", 3, 3), regime("moderate", 3, 3)
    table = compare(f, logits, ["ST", "RF(m=4)", "LE"], logits_seed=0)
    table = table.assign(regime="moderate", error=None)
    found = summary(table).query("criterion == 'progress'").set_index("series")["error"]
    truth = gradlab.exact_gradient(f, logits)
    for text, cost in (("ST", 3), ("RF(m=4)", 4), ("LE", 7)):
        moments = gradlab.exact_moments(gradlab.parse(text), f, logits)
        assert found[text] == pytest.approx(1 - moments.progress(truth, 100 * 12 / cost), abs=1e-10)


def test_medians_wins_and_seeds_are_over_seeds() -> None:
    base = rows(CASES[0])
    table = pd.concat(
        base.assign(logits_seed=seed, variance=base["variance"] * (1 + seed)) for seed in range(3)
    )
    found = summary(table).query("kind == 'best' and criterion == 'one draw'").set_index("series")
    assert (found["seeds"] == 3).all()
    middle = summary(table[table["logits_seed"] == 1]).query("criterion == 'one draw'")
    pd.testing.assert_series_equal(found["error"], middle.set_index("series")["error"])
    assert found["wins"].sum() == 3


def test_a_lucky_noisy_estimate_does_not_win() -> None:
    table = rows(CASES[0])
    least = summary(table).query("kind == 'best' and criterion == 'one draw'")["error"].min()
    noisy = table[table["series"] == "ZGR"].assign(series="noisy", method="monte carlo")
    truth2 = noisy["truth2"]
    noisy["variance"] = 0.9 * least * truth2
    noisy["variance_se"] = noisy["mse_se"] = 0.2 * least * truth2
    noisy["bias2"] = 0.0
    found = summary(pd.concat([table, noisy])).query("criterion == 'one draw'").set_index("series")
    assert found.loc["noisy", "wins"] == 0
    assert found.loc["noisy", "error_se"] == pytest.approx(0.2 * least)
    assert found["wins"].sum() == 1


def test_what_is_left_out_is_counted() -> None:
    table = rows(CASES[0]).copy()
    failed = table["series"] == "LE"
    table.loc[failed, "error"] = "OverflowError"
    table.loc[failed, ["truth2", "bias2", "variance", "mse_se"]] = np.nan
    found = summary(table).query("kind == 'left out'").set_index("series")
    assert found.loc["LE", "reason"] == "OverflowError"
    assert found.loc["LE", "count"] == 1
    assert found.loc["MVE-INT(tau=1)", "count"] == 1  # its penalty is not a temperature
    assert "2 rows left out: LE 1, MVE-INT(tau=1) 1." in findings(summary(table))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: swept().drop(columns=["regime", "error"]), "rows must have the columns regime, e"),
        (lambda: swept()[:0], "rows must not be empty"),
    ],
)
@pytest.mark.few(1)
def test_other_tables_are_refused(table, message) -> None:
    with pytest.raises(ValueError, match=message):
        summary(table())


def test_findings_are_computed_from_the_summary() -> None:
    table = atlas().copy()
    table.loc[table["dominated_by"] == "ST-ZGR", "share"] = 1.0
    table.loc[table["series"] == "ST-ZGR", "share"] = 0.25
    told = findings(table)
    assert told[0] == (
        "raw, 4 problems: ST-ZGR dominates a median of 100% of GR(k=inf), which dominates 25% of "
        "ST-ZGR; the whole curve in 100% and 0% of the problems."
    )
    assert "leads GR(k=inf) in 4 of 4 kinds" in told[1]
    assert "quadratic +75" in told[1]


def test_plot_and_findings_need_the_csv_only() -> None:
    read = pd.read_csv(io.StringIO(atlas().to_csv(index=False)))
    assert findings(read) == findings(atlas())
    figure = plot(read)
    titles = [ax.get_title() for ax in figure.axes[:-1]]  # the last is the bar of colours
    assert titles[:2] == ["GR(k=∞), raw", "GR(k=10), raw"]
    assert len(titles) == 4
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert len(cells) == 4 * 3  # 4 places, 3 regimes
    assert sum(text == "–" for text in cells) == 4 * 3 - len(CASES)


def test_leads_are_medians_of_differences_over_seeds() -> None:
    shares = atlas().query("kind == 'domination'").copy()
    shares["share"] = shares["dominated_by"].eq("ST-ZGR").map({True: 0.7, False: 0.1})
    assert leads(shares).round(9).unique().tolist() == [60.0]
    more = [shares.assign(logits_seed=seed, share=shares["share"] * seed) for seed in (0, 1, 0.5)]
    assert leads(pd.concat(more)).round(9).unique().tolist() == [30.0]


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(ValueError, match="summary must have rows"):
        plot(atlas().query("kind == 'left out'"))
