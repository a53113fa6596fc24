"""The figures of exactness show what is true: orders, laws of the cold limit, crossings."""

import io
import math

import pandas as pd
import pytest
import torch

from gradlab import ZGR, parse
from gradlab.estimators._gumbel_jacobian import conditional_jacobians
from gradlab.figures import budget, classes, degree
from gradlab.figures.cold_limit import plot as cold_limit_plot
from gradlab.figures.cold_limit import rows as cold_limit
from gradlab.figures.quadratics import plot as quadratics_plot
from gradlab.figures.quadratics import rows as quadratics
from gradlab.plots.axes import relative
from significance import ALPHA, P_VALUE

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts


def quadratic_rows() -> pd.DataFrame:
    """Return exact rows of a problem of every size, and scores of more problems."""
    exact = quadratics.rows(problems=len(quadratics.SIZES), draws=64)
    scores = quadratics.rows(problems=48, draws=4096, estimators=["ST"])
    return pd.concat([exact.query("method == 'exact'"), scores.query("method != 'exact'")])


REDUCED = {
    "degree": {"seeds": 2, "degrees": range(5)},
    "cold_limit": {"problems": ("mlp", "multilinear")},
    "classes": {"seeds": 2, "sizes": [(1, 2), (1, 5), (3, 2)]},
    "budget": {"draws": 256},
}
MODULES = {
    "quadratics": quadratics,
    "degree": degree,
    "cold_limit": cold_limit,
    "classes": classes,
    "budget": budget,
}
PLOTS = {"quadratics": quadratics_plot, "cold_limit": cold_limit_plot}
UNBIASED = 1e-12
BIASED = 1e-6


@pytest.fixture(scope="module")
def rows():
    """Return a function from the name of a figure to rows of its reduced version, computed once."""
    made: dict[str, pd.DataFrame] = {}

    def of(name: str) -> pd.DataFrame:
        if name not in made:
            made[name] = (
                MODULES[name].rows(**REDUCED[name]) if name in REDUCED else quadratic_rows()
            )
        return made[name]

    return of


# tests/figures/test_redraw.py draws every figure from its rows in every run.
@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["quadratics", *REDUCED])
def test_plots_read_rows_from_a_csv(rows, name):
    read = pd.read_csv(io.StringIO(rows(name).to_csv(index=False)))
    figure = PLOTS.get(name, MODULES[name]).plot(read)
    figure.set_layout_engine("none")  # most of the time
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    assert any(ax.get_xlabel() for ax in figure.axes)
    assert any(ax.get_ylabel() for ax in figure.axes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["quadratics", "budget"])
@pytest.mark.few(1)
def test_the_seed_decides_the_draws(name):
    made = MODULES[name].rows
    reduced = {"quadratics": {"problems": 2, "draws": 64}, "budget": {"draws": 64}}[name]
    first = made(1, **reduced)
    pd.testing.assert_frame_equal(first, made(1, **reduced))
    drawn = "z" if name == "quadratics" else "variance"
    assert not first[drawn].equals(made(2, **reduced)[drawn])


@pytest.mark.thorough  # tests/estimators/test_claims.py has the orders
@pytest.mark.parametrize("text", quadratics.ESTIMATORS)
@pytest.mark.few(1)
def test_of_quadratics_exactly_the_estimators_of_order_two_are_unbiased(rows, text):
    exact = rows("quadratics").query("method == 'exact'")
    exact = exact[exact["estimator"].isin([text, str(parse(text))])]
    bias = relative(exact, "bias2")
    assert len(bias) == len(quadratics.SIZES)
    if parse(text).order >= 2:
        assert bias.max() <= UNBIASED
    else:
        assert bias.min() > BIASED


@pytest.mark.parametrize("text", quadratics.SAMPLED)
def test_scores_are_normal_exactly_without_bias(rows, text):
    scores = rows("quadratics").query("method == 'monte carlo' and estimator == @text")
    assert len(scores) == 48
    assert scores["z"].is_monotonic_increasing
    if parse(text).order >= 2:
        assert scores["p_value"].iloc[0] > P_VALUE
    else:
        assert scores["p_value"].iloc[0] < ALPHA


@pytest.mark.parametrize("of_degree", REDUCED["degree"]["degrees"])
@pytest.mark.parametrize("text", degree.ESTIMATORS)
@pytest.mark.few(14)
def test_bias_leaves_the_floor_after_the_order(rows, text, of_degree):
    found = rows("degree").query("estimator == @text and degree == @of_degree")
    unit = found["truth2"].where(found["truth2"] > 0, 1.0)
    bias = (found["bias2"] / unit) ** 0.5
    if of_degree <= parse(text).order:
        assert bias.max() <= UNBIASED
    else:
        assert bias.min() > BIASED


def test_the_first_order_jacobian_leaves_a_second_order_remainder():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    A = cold_limit.first_order_jacobian(p)
    zero = torch.zeros_like(A)
    torch.testing.assert_close(A, A.mT)
    torch.testing.assert_close(A.sum(-1), zero[..., 0])
    torch.testing.assert_close(torch.einsum("nk,nkij->nij", p, A), zero[:, 0])
    limit = ZGR().conditional_jacobians(p)[0]
    remainder = [
        float((conditional_jacobians(p, tau)[0] - limit - tau * A).abs().max()) / tau**2
        for tau in (0.02, 0.01)
    ]
    assert remainder[1] == pytest.approx(remainder[0], rel=0.02)
    # The value for (.5, .3, .2) alone is known: 0.1855.
    assert remainder[1] < 0.5


@pytest.mark.parametrize("series", ["GS-ST", "GR(k=inf)"])
@pytest.mark.parametrize("quantity", ["mean", "variance"])
@pytest.mark.parametrize("kind", REDUCED["cold_limit"]["problems"])
@pytest.mark.few(3)
def test_differences_to_zgr_follow_their_laws(rows, kind, quantity, series):
    found = rows("cold_limit").query("quantity == @quantity and series == @series")
    found = found[found["problem"].str.startswith(f"{kind}(")]
    expected = {
        ("mean", "GS-ST"): 1 if kind == "mlp" else 2,
        ("mean", "GR(k=inf)"): 1 if kind == "mlp" else 2,
        ("variance", "GS-ST"): -1,
        ("variance", "GR(k=inf)"): 1,
    }[quantity, series]
    assert set(found["power"]) == {expected}
    assert found["slope"].iloc[0] == pytest.approx(expected, abs=0.05)
    coldest = found.loc[found["tau"].idxmin()]
    assert coldest["difference"] == pytest.approx(coldest["law"], rel=0.02)


def test_gs_st_and_gr_share_their_mean(rows):
    means = rows("cold_limit").query("quantity == 'mean'")
    pair = means.pivot(index=["problem", "tau"], columns="series", values="difference")
    torch.testing.assert_close(*(torch.tensor(pair[s].to_numpy()) for s in pair.columns))


@pytest.mark.parametrize("text", classes.ESTIMATORS)
@pytest.mark.few(3)
def test_at_every_size_zgr_is_unbiased_on_quadratics_only(rows, text):
    found = rows("classes")
    found = found[found["estimator"].isin([text, str(parse(text))])]
    bias = relative(found, "bias2").groupby(found["kind"])
    assert (bias.max()["quadratic"] <= UNBIASED) == (parse(text).order >= 2)
    assert (bias.min()["mlp"] > BIASED) == (parse(text).order < math.inf)


def test_st_and_darn_err_equally_on_quadratics(rows):
    found = rows("classes").query("kind == 'quadratic' and estimator in ['ST', 'DARN']")
    bias2 = found.pivot(index="problem", columns="estimator", values="bias2")
    assert bias2["ST"].to_numpy() == pytest.approx(bias2["DARN"].to_numpy())


def test_many_classes_are_measured_on_fewer_problems():
    sizes = [(1, 2), (1, classes.MANY_CLASSES + 1)]
    found = classes.rows(seeds=5, sizes=sizes, problems=["mlp"], estimators=["ZGR"])
    counts = found.groupby("C")["logits_seed"].nunique()
    assert counts.tolist() == [5, classes.FEW]


@pytest.mark.thorough  # a finding of the figure
@pytest.mark.parametrize("kind", ["cubic", "mlp"])
def test_the_crossing_is_where_errors_are_equal(rows, kind):
    found = rows("budget")
    found = found[found["problem"].str.startswith(kind)].drop_duplicates("estimator")
    moments = found.set_index("estimator")
    at = moments["crossing"].iloc[0]
    mse = moments["bias2"] + moments["variance"] * moments["cost"] / at
    assert moments.loc["RF(m=4)", "cost"] < at < 1e4
    assert mse["ZGR"] == pytest.approx(mse["RF(m=4)"])
    later = moments["bias2"] + moments["variance"] * moments["cost"] / (2 * at)
    assert later["RF(m=4)"] < later["ZGR"]


def test_zgr_is_not_overtaken_where_it_has_no_bias(rows):
    found = rows("budget")
    assert found.loc[found["problem"].str.startswith("quadratic"), "crossing"].isna().all()


def test_a_crossing_is_not_before_the_first_draw():
    moments = pd.DataFrame(
        {"cost": [1.0, 4.0], "variance": [9.0, 1.0], "bias2": [1.0, 0.0], "truth2": [1.0, 1.0]},
        index=["ZGR", "RF(m=4)"],
    )
    assert budget.crossing(moments) == 4


@pytest.mark.parametrize("text", budget.LINES)
def test_errors_fall_to_the_bias(rows, text):
    found = rows("budget").query("estimator == @text")
    assert len(found) == 4 * 25
    assert found.groupby("problem")["mse"].is_monotonic_decreasing.all()
    n = found["evaluations"] / found["cost"]
    assert n.min() == pytest.approx(1)
    assert (found["mse"] - found["variance"] / n).to_numpy() == pytest.approx(
        found["bias2"].to_numpy(), abs=1e-9
    )
    assert (found["bias2"] == 0).all() == (parse(text).order == math.inf)
    assert (found["method"] == ("monte carlo" if text == "ARSM" else "exact")).all()
