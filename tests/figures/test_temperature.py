"""The figures of the main question, on few rows: what the rows hold, and that a CSV is enough."""

import io
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.comparison.comparing import reproducible_columns
from gradlab.comparison.dominance import MomentCurve
from gradlab.estimators import DARN, STZGR, GumbelRao, StraightThrough
from gradlab.exact.moments import Enumeration
from gradlab.figures import snapshots
from gradlab.figures.temperature import plot as temperature_plot
from gradlab.figures.temperature import rows as temperature
from gradlab.figures.trade_off import plot as trade_off_plot
from gradlab.figures.trade_off import rows as trade_off
from gradlab.problems import problem, regime
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

SERIES = {"GS": 256, "GS-ST": 2048, "GR(k=10)": 512, "GR(k=inf)": 1024, "ZGR": 2048}
REDUCED = {
    temperature: {"draws": SERIES, "temperatures": (0.3, 3.0)},
    trade_off: {
        "temperatures": (0.1, 1.0, 10.0),
        "alphas": (0.0, 0.5, 1.0, 2.0),
        "draws": 256,
        "seeds": 1,
        "images": 1,
    },
    snapshots: {"snapshots": ("initial", "some"), "images": 2, "draws": 64},
}
figures = pytest.mark.parametrize(
    "figure",
    [pytest.param(f, marks=pytest.mark.slow) if f is trade_off else f for f in REDUCED],
    ids=lambda f: f.__name__.split(".")[2],
)
_made: dict[ModuleType, pd.DataFrame] = {}


def made(figure: ModuleType) -> pd.DataFrame:
    if figure not in _made:
        _made[figure] = figure.rows(0, **REDUCED[figure])
    return _made[figure]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "figure",
    [f if f is snapshots else pytest.param(f, marks=pytest.mark.slow) for f in REDUCED],
    ids=lambda f: f.__name__.split(".")[2],
)
@pytest.mark.thorough  # test_committed.py computes rows again
def test_same_seed_same_rows(figure: ModuleType) -> None:
    again = figure.rows(0, **REDUCED[figure])
    pd.testing.assert_frame_equal(made(figure), again, check_exact=True)


# tests/figures/test_redraw.py draws every figure from its rows in every run.
@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@figures
def test_plot_needs_the_csv_only(figure: ModuleType, tmp_path) -> None:
    reproducible_columns(made(figure)).to_csv(tmp_path / "rows.csv", index=False)
    plots = {temperature: temperature_plot, trade_off: trade_off_plot}
    drawn = plots.get(figure, figure).plot(pd.read_csv(tmp_path / "rows.csv"))
    drawn.set_layout_engine("none")  # most of the time
    drawn.savefig(io.BytesIO(), format="png", dpi=20)
    assert drawn.legends
    assert all(ax.get_xlabel() or ax.get_ylabel() or ax.has_data() for ax in drawn.axes)


@figures
@pytest.mark.few(1)
def test_rows_name_their_problem(figure: ModuleType) -> None:
    assert made(figure)["problem"].notna().all()


@pytest.mark.thorough  # test_committed.py computes its rows again
def test_temperature_has_draws_of_every_estimator_at_every_temperature() -> None:
    rows = made(temperature)
    measured = rows[rows["method"] == "monte carlo"].fillna({"tau": 0.0})
    counts = measured.groupby(["problem", "series"])["tau"].nunique().unstack()
    assert len(counts) == 4
    expected = {series: 1 if series == "ZGR" else 2 for series in SERIES}
    assert (counts[list(expected)] == pd.Series(expected)).all(axis=None)


def test_temperature_draws_agree_with_exact_values() -> None:
    rows = made(temperature)
    key = ["problem", "estimator"]
    exact = rows[rows["method"] == "exact"].set_index(key)
    measured = rows[rows["method"] == "monte carlo"].set_index(key)
    # Where few draws carry the variance, its error is not that of a normal distribution.
    measured = measured[measured["effective_draws"] > 300]
    both = measured.join(exact.add_suffix("_exact"), how="inner")
    assert len(both) >= 8
    got, error, expected = both[["variance", "variance_se", "variance_exact"]].to_numpy().T
    # Standard errors come from 16 groups.
    assert scores(got, expected, error).abs().max() < limit(dof=15)
    # The control: against the variance of the next row the scores are large.
    assert scores(got, np.roll(expected, 1), error).abs().max() > limit(dof=15)


def test_zgr_has_no_bias_on_the_quadratic() -> None:
    rows = made(temperature)
    chosen = rows[(rows["estimator"] == "ZGR") & (rows["method"] == "exact")]
    relative = np.sqrt(chosen["bias2"] / chosen["truth2"])
    of_quadratic = chosen["problem"].str.startswith("quadratic")
    assert (relative[of_quadratic] < 1e-12).all()
    assert (relative[~of_quadratic] > 1e-3).all()


@pytest.mark.thorough  # test_committed.py computes its rows
def test_trade_off_has_shares_both_ways() -> None:
    rows = made(trade_off)
    shares = rows[rows["kind"] == "domination"]
    # Three problems at two kinds of logits, and four snapshots; raw and scale-free.
    assert len(shares) == (3 * 2 + 4) * 2 * 2
    assert shares["share"].between(0, 1).all()
    assert set(zip(shares["series"], shares["dominated_by"], strict=True)) == {
        ("GR(k=inf)", "ST-ZGR"),
        ("ST-ZGR", "GR(k=inf)"),
    }


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize("kind", ["cubic", "mlp"])
@pytest.mark.parametrize("tau", [0.0171, 0.37, 8.1])
@pytest.mark.few(4)
def test_interpolated_curve_of_gumbel_rao(kind: str, tau: float, scale_free: bool) -> None:
    logits = regime("peaked", 4, 4, 1)
    exact = Enumeration(problem(kind, 4, 4, 1), logits)
    truth = exact.values.gradient.numpy()
    moments = exact.moments(GumbelRao(tau, None))
    curve = trade_off.gumbel_rao_curve(exact, np.log([tau]))
    expected = MomentCurve(
        np.log([tau]), moments.mean.reshape(1, -1).numpy(), np.array([moments.variance.value])
    )
    np.testing.assert_allclose(
        curve.plane(truth, scale_free=scale_free),
        expected.plane(truth, scale_free=scale_free),
        rtol=2e-2,
    )


def test_uniform_logits_make_both_families_one_up_to_scale() -> None:
    p = torch.full([1, 4], 0.25, dtype=torch.float64)
    basis = [e.conditional_jacobians(p)[0].flatten() for e in (StraightThrough(), DARN())]
    target = GumbelRao(0.7, None).conditional_jacobians(p)[0].flatten()
    basis = torch.stack(basis, -1)
    fit = torch.linalg.lstsq(basis, target[:, None]).solution
    torch.testing.assert_close((basis @ fit)[:, 0], target, rtol=0, atol=1e-9)
    # The control: at other logits they are not.
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    basis = [e.conditional_jacobians(p)[0].flatten() for e in (StraightThrough(), STZGR(1.0))]
    target = GumbelRao(0.7, None).conditional_jacobians(p)[0].flatten()
    basis = torch.stack(basis, -1)
    fit = torch.linalg.lstsq(basis, target[:, None]).solution
    assert (basis @ fit - target[:, None]).abs().max() > 1e-3


def test_snapshots_are_exact_but_for_arsm() -> None:
    rows = made(snapshots)
    assert len(rows) == 2 * 2 * (len(snapshots.ESTIMATORS) + 1)
    assert set(rows.loc[rows["method"] == "monte carlo", "series"]) == {"ARSM"}
    unbiased = rows[rows["series"] == "RF(m=4)"]
    assert (unbiased["bias2"] == 0).all()
