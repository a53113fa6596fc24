"""The figures of all estimators: none is missing, and what the rows say is true."""

import io
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.estimators import ESTIMATORS, ZGR, LeaveOneOut, Reinforce
from gradlab.exact.moments import Enumeration
from gradlab.exact.truth import exact_moments
from gradlab.figures.baselines import plot as baselines_plot
from gradlab.figures.baselines import rows as baselines
from gradlab.figures.zoo import plot as zoo_plot
from gradlab.figures.zoo import rows as zoo
from gradlab.plots.names import short
from gradlab.problems import problem, regime
from significance import limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

REDUCED = {
    zoo: {"temperatures": (1.0,), "draws": 64, "fits": 64},
    baselines: {"logits": (-1.0, 0.5), "draws": 64, "fits": 64},
}
figures = pytest.mark.parametrize("figure", REDUCED, ids=lambda f: f.__name__.split(".")[2])
_made: dict[ModuleType, pd.DataFrame] = {}


@pytest.fixture(autouse=True)
def quick(monkeypatch, unchecked) -> None:
    """Leave out what takes long and is nothing but more of the same."""
    chosen = zoo._problems(0)[:3:2]  # quadratic and binary
    monkeypatch.setattr(zoo, "_problems", lambda seed: chosen)
    monkeypatch.setattr(zoo, "MORE", {"RF": {"m": 3}})
    fitted = zoo.fitted
    for figure in REDUCED:
        monkeypatch.setattr(figure, "fitted", lambda *args: fitted(*args, steps=2))


def made(figure: ModuleType) -> pd.DataFrame:
    if figure not in _made:
        _made[figure] = figure.rows(0, **REDUCED[figure])
    return _made[figure]


@figures
@pytest.mark.few(1)
def test_every_estimator_is_measured_or_refused(figure: ModuleType) -> None:
    rows = made(figure)
    for _, part in rows.groupby("problem"):
        assert set(part["estimator"].str.partition("(")[0]) == set(ESTIMATORS)
    assert (rows["reason"].notna() == rows["variance"].isna()).all()


@pytest.mark.thorough  # test_committed.py computes rows again
@figures
@pytest.mark.few(1)
def test_same_seed_same_rows(figure: ModuleType) -> None:
    again = figure.rows(0, **REDUCED[figure])
    pd.testing.assert_frame_equal(made(figure), again, check_exact=True)


# tests/figures/test_redraw.py draws every figure from its rows in every run.
@pytest.mark.slow
@figures
def test_plot_needs_the_csv_only(figure: ModuleType) -> None:
    plot = {zoo: zoo_plot, baselines: baselines_plot}[figure].plot
    drawn = plot(pd.read_csv(io.StringIO(made(figure).to_csv(index=False))))
    assert drawn.legends


@figures
def test_declared_unbiased_means_measured_so(figure: ModuleType) -> None:
    rows = made(figure)
    rows = rows[rows["reason"].isna()]
    bias2, error = (rows[c] / rows["truth2"] for c in ("bias2", "bias2_se"))
    exact = rows["method"] == "exact"
    declared = rows["declared_unbiased"] if figure is zoo else exact | True
    assert bias2[exact & declared].abs().max() < 1e-20
    assert (bias2[~exact & declared] <= limit(15) * error[~exact & declared] + 1e-20).all()
    if figure is zoo:  # the control
        assert bias2[rows["estimator"] == "ST"].min() > 1e-3


def test_progress_is_that_of_averaged_gradients_of_the_budget() -> None:
    rows = made(zoo).query("reason.isna() and method == 'exact'")
    for row in rows.groupby("problem").head(3).itertuples():
        draws = row.averaged * row.budget / row.cost
        # progress = cosine^2 / (1 + v / (|g|^2 draws)), where E ĝ = g.
        if row.declared_unbiased:
            expected = 1 / (1 + row.variance / (row.truth2 * draws))
            assert row.progress == pytest.approx(expected, rel=1e-9)
    assert rows["progress"].between(-1, 1).all()


def test_ranks_are_in_the_order_of_progress() -> None:
    rows = made(zoo)
    ax = zoo_plot.plot(rows).axes[0]
    first = rows[(rows["problem"] == rows["problem"].iloc[0]) & rows["reason"].isna()]
    sure = (first["progress"] - 2 * first["progress_se"]).groupby(first["series"]).max()
    names = [text.get_text() for text in ax.texts]
    assert len(names) == zoo_plot.NAMED
    assert names[0] == short(first.loc[first["series"] == sure.idxmax(), "estimator"].iloc[0])


def test_variance_at_equal_cost_is_that_of_the_mean() -> None:
    rows = made(zoo).query("problem.str.startswith('quadratic')").set_index("estimator")
    f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
    exact = Enumeration(f, logits)
    for estimator, cost in ((ZGR(), 3), (LeaveOneOut(3), 3)):
        expected = float(exact.moments(estimator).variance) * cost / zoo.BUDGET
        assert rows.loc[str(estimator), "cost_variance"] == pytest.approx(expected)


@pytest.mark.parametrize("estimator", [ZGR(), LeaveOneOut(2), Reinforce(0.3)], ids=str)
def test_moments_of_one_bit_are_half_of_both_coordinates(estimator) -> None:
    f = baselines.PROBLEMS[1]
    logits = torch.tensor([[0.0, 0.7]], dtype=torch.float64)
    found = baselines.shared_logit_moments(estimator, f, logits)
    expected = exact_moments(estimator, f, logits)
    torch.testing.assert_close(found.mean[0, 0], expected.mean[0, 1])
    assert float(found.variance) == pytest.approx(float(expected.variance) / 2)


def test_reinforce_on_three_bits_follows_its_formula() -> None:
    logit, targets = 0.5, np.array([0.6, 0.51, 0.48])
    p = 1 / (1 + np.exp(-logit))
    bits = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    weight = np.where(bits, p, 1 - p).prod(1)
    g = ((bits - targets) ** 2).sum(1) * (bits - p).sum(1)
    truth = (p * (1 - p) * (1 - 2 * targets)).sum()
    row = made(baselines).query(
        "problem == 'three bits' and logit == @logit and estimator == 'REINFORCE(baseline=0)'"
    )
    assert weight @ g == pytest.approx(truth)
    assert row["truth2"].item() == pytest.approx(truth**2)
    assert row["variance"].item() == pytest.approx(weight @ g**2 - truth**2)
