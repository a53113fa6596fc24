"""Rows: what was measured, how, with which error, or why not."""

import math

import pandas as pd
import pytest
import torch

from cases import logits_of, loss_of
from gradlab import __version__
from gradlab.comparison.comparing import (
    DEFAULT_DRAWS,
    compare,
    reproducible_columns,
    with_temperatures,
)
from gradlab.comparison.measuring import measure
from gradlab.comparison.rows import METHODS
from gradlab.estimators import (
    ARSM,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    LeaveOneOut,
    QuadratureError,
    StraightThrough,
)
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumeration
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.moments import GROUPS
from gradlab.montecarlo import monte_carlo
from significance import limit, scores

TEXTS = ["ZGR", "GS", "GR(k=inf)", "RF(m=4)", "ARSM"]
NUMBERS = ["bias2", "variance", "mse", "cosine", "scale_free_bias2", "scale_free_variance"]


def rows_of(name: str = "cubic", texts=TEXTS, logits: str = "moderate", **options) -> pd.DataFrame:
    return compare(loss_of(name), logits_of(logits), texts, draws=1000, **options)


def test_columns():
    rows = rows_of(method="both", logits_seed=7)
    assert list(rows.columns) == [
        *["problem", "batch", "N", "C", "logits_seed", "estimator", "series", "tau", "calls"],
        *["cost", "seed", "method", "draws", "reason", "note", "draws_needed", "truth"],
        *["truth2", "truth2_se"],
        *(column for number in NUMBERS for column in (number, f"{number}_se")),
        *["averaged", "progress", "progress_se", "effective_draws", "seconds", "version", "dtype"],
    ]
    assert set(rows.N) == {2}
    assert set(rows.C) == {3}
    assert set(rows.logits_seed) == {7}
    assert set(rows.version) == {__version__}
    assert set(rows.dtype) == {"float64"}
    assert (rows.seconds >= 0).all()
    truth2 = float(exact_gradient(loss_of("cubic"), logits_of("moderate")).square().sum())
    assert rows.truth2.dropna().unique() == pytest.approx([truth2])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("auto", ["exact", "monte carlo", "exact", "exact", "monte carlo"]),
        ("exact", ["exact"] * 5),
        ("monte-carlo", ["monte carlo"] * 5),
        ("both", ["exact", "monte carlo"] * 5),
    ],
)
@pytest.mark.few(2)
def test_methods(method, expected):
    rows = rows_of(method=method)
    assert list(rows.method) == expected
    unknown = rows[(rows.method == "exact") & rows.estimator.isin(["GS(tau=1)", "ARSM"])]
    assert unknown.reason.str.contains("no exact moments are known").all()
    assert unknown[[*NUMBERS, "truth2"]].isna().all(axis=None)
    assert rows.drop(unknown.index).reason.isna().all()
    assert rows.drop(unknown.index)[["bias2", "variance", "mse"]].notna().all(axis=None)
    assert rows[rows.method == "exact"].draws.isna().all()
    assert (rows[rows.method == "monte carlo"].draws == 1000).all()
    assert method in (*METHODS, "both")


def test_an_exact_row_holds_the_exact_moments():
    f, logits = loss_of("cubic"), logits_of("moderate")
    (row,) = rows_of(texts=["ZGR"]).to_dict("records")
    moments, truth = exact_moments(ZGR(), f, logits), exact_gradient(f, logits)
    assert row["bias2"] == moments.bias2(truth).value
    assert row["variance"] == moments.variance.value
    assert row["mse"] == row["bias2"] + row["variance"]
    assert row["cosine"] == moments.cosine(truth).value
    assert row["effective_draws"] == math.inf
    assert {row[f"{number}_se"] for number in NUMBERS} == {0}


def test_a_monte_carlo_row_holds_the_monte_carlo_moments():
    f, logits = loss_of("cubic"), logits_of("moderate")
    (row,) = rows_of(texts=["ZGR"], method="monte-carlo", seed=3, problem="mine").to_dict("records")
    moments = monte_carlo(ZGR(), f, logits, 1000, 3, row="mine")
    expected = measure(moments, exact_gradient(f, logits))
    assert {key: row[key] for key in expected} == expected
    assert row["seed"] == 3
    assert row["problem"] == "mine"
    assert row["bias2_se"] > 0
    assert row["effective_draws"] == moments.effective_sample_size < 1000


def test_both_methods_agree():
    rows = rows_of(texts=["ST", "DARN", "GS-ST", "GR", "RF(m=4)"], method="both")
    exact, drawn = (rows[rows.method == m].reset_index() for m in ("exact", "monte carlo"))
    for number in NUMBERS:
        z = scores(drawn[number], exact[number], drawn[f"{number}_se"])
        assert z.abs().max() < limit(GROUPS - 1)


def test_a_row_for_each_temperature():
    rows = rows_of(texts=["ZGR", GumbelRao(1.0, None), "GS(tau=3)"], temperatures=[0.1, 1, 10.0])
    assert list(rows.estimator) == [
        "ZGR",
        *["GR(tau=0.1, k=inf)", "GR(tau=1, k=inf)", "GR(tau=10, k=inf)"],
        *["GS(tau=0.1)", "GS(tau=1)", "GS(tau=10)"],
    ]
    assert list(rows.series) == ["ZGR", *["GR(k=inf)"] * 3, *["GS"] * 3]
    assert rows.tau.isna().tolist() == [True] + [False] * 6
    assert rows.tau.tolist()[1:] == [0.1, 1, 10] * 2


def test_without_temperatures_the_given_one_is_kept():
    assert with_temperatures(["GS(tau=3)", ZGR()], None) == [GumbelSoftmax(3), ZGR()]


def test_calls():
    rows = compare(loss_of("cubic", 2, 4), logits_of("moderate", 2, 4), TEXTS, draws=100)
    assert list(rows.calls) == [1, 1, 1, 4, 7]


def test_what_cannot_be_measured_says_why():
    rows = rows_of("table", method="both").set_index(["estimator", "method"])
    for estimator in ("ZGR", "GS(tau=1)", "GR(tau=1, k=inf)"):
        assert "not differentiable" in rows.reason[estimator, "monte carlo"]
    assert "not differentiable" in rows.reason["ZGR", "exact"]
    assert rows.reason[["RF(m=4)"]].isna().all()
    assert rows.bias2["RF(m=4)", "exact"] < 1e-25
    assert math.isnan(rows.variance["ZGR", "exact"])


def test_where_quadrature_fails_draws_take_over(monkeypatch):
    def fails(*_):
        raise QuadratureError("error 1e-3 after 108 nodes")

    monkeypatch.setattr("gradlab.estimators.gumbel.conditional_jacobians", fails)
    rows = rows_of(texts=["GR"], method="auto")
    assert list(rows.method) == ["monte carlo"]
    assert rows.reason.isna().all()
    rows = rows_of(texts=["GR"], method="exact")
    assert list(rows.reason) == ["error 1e-3 after 108 nodes"]


@pytest.mark.parametrize("options", [{}, {"workers": 2}], ids=str)
def test_the_same_seed_gives_the_same_rows(options):
    first = reproducible_columns(rows_of(method="both"))
    second = reproducible_columns(rows_of(method="both", **options))
    assert first.to_csv() == second.to_csv()
    other = reproducible_columns(rows_of(method="both", seed=1)).drop(columns="seed")
    assert other.to_csv() != first.drop(columns="seed").to_csv()


def test_the_order_of_rows_changes_nothing():
    forward, backward = rows_of(), rows_of(texts=TEXTS[::-1])
    kept = reproducible_columns(forward).columns
    assert forward[kept].to_csv(index=False) == backward[::-1][kept].to_csv(index=False)


def test_time_is_what_is_not_reproducible():
    rows = rows_of(texts=["ZGR"])
    assert set(rows.columns) - set(reproducible_columns(rows).columns) == {"seconds"}
    assert reproducible_columns(reproducible_columns(rows)).equals(reproducible_columns(rows))


def test_one_enumeration_is_shared(monkeypatch):
    f, logits = loss_of("cubic"), logits_of("moderate")
    shared = Enumeration(f, logits)
    first = compare(shared, estimators=["ZGR", "RF"])
    values = shared.values
    second = compare(shared, estimators=["ZGR", "RF"])
    assert shared.values is values
    assert reproducible_columns(first).equals(reproducible_columns(second))


def test_names_of_problems():
    logits = logits_of("moderate")

    def my_loss(x):
        return x[..., 0].sum(-1)

    assert compare(my_loss, logits, ["ZGR"]).problem[0] == "my_loss"
    assert compare(loss_of("cubic"), logits, ["ZGR"]).problem[0] == "cubic(N=2, C=3, seed=3)"
    assert compare(my_loss, logits, ["ZGR"], problem="toy").problem[0] == "toy"


def test_ten_thousand_draws_by_default():
    rows = compare(loss_of("linear"), logits_of("moderate"), ["GS"])
    assert list(rows.draws) == [DEFAULT_DRAWS] == [10_000]


def test_float32_logits_are_measured_in_double_but_for_f():
    f, logits = loss_of("cubic"), logits_of("moderate").float()
    rows = compare(lambda x: f(x.double()), logits, ["ZGR", "GS"], draws=500, problem="f")
    again = compare(f, logits.double(), ["ZGR", "GS"], draws=500, problem="f")
    assert set(rows.pop("dtype")) == {"float32"}
    assert set(again.pop("dtype")) == {"float64"}
    # The gradient passes through x in float32, and a relaxed x is rounded to it.
    rows, again = reproducible_columns(rows), reproducible_columns(again)
    pd.testing.assert_frame_equal(rows, again, rtol=1e-4, atol=1e-9)


def test_few_draws_that_carry_the_variance_are_told():
    rows = compare(
        loss_of("quadratic"),
        logits_of("moderate"),
        ["GS-ST"],
        [0.01, 1.0],
        5000,
        method="monte-carlo",
    )
    cold, warm = rows.effective_draws
    assert cold < 500 < 1500 < warm < 5000


def test_measure_of_an_unbiased_estimator():
    f, logits = loss_of("cubic"), logits_of("moderate")
    numbers = measure(exact_moments(LeaveOneOut(4), f, logits), exact_gradient(f, logits))
    assert numbers["bias2"] == 0
    assert numbers["mse"] == numbers["variance"]
    assert numbers["cosine"] == pytest.approx(1, abs=1e-14)
    assert numbers["scale_free_variance"] == pytest.approx(numbers["variance"])


def test_a_loss_without_gradient_in_the_logits_has_no_cosine():
    f, logits = loss_of("constant"), logits_of("moderate")
    numbers = measure(exact_moments(StraightThrough(), f, logits), exact_gradient(f, logits))
    assert numbers["truth2"] < 1e-30
    assert math.isnan(numbers["cosine"])
    assert numbers["bias2"] < 1e-30


def test_arsm_of_one_class():
    rows = compare(loss_of("cubic", 2, 1), torch.zeros(2, 1), [ARSM(), ZGR()], draws=100)
    assert list(rows.bias2) == [0, 0]
    assert list(rows.variance) == [0, 0]


def test_too_many_classes_for_tables_are_measured_at_every_state_or_by_draws():
    f, logits = loss_of("mlp", 1, 400), torch.zeros(1, 400, dtype=torch.float64)
    rows = compare(f, logits, ["ZGR", "GS-ST", "RF(m=2)"], draws=64)
    assert rows["method"].tolist() == ["exact", "monte carlo", "exact"]
    assert rows["reason"].isna().all()


# ---- a truth that is measured ------------------------------------------------------------------

WITH_EXACT_MOMENTS = ["ST", "DARN", "ZGR", "GS-ST", "RF(m=4)"]


def against_reference(texts=WITH_EXACT_MOMENTS, **options) -> pd.DataFrame:
    given = {"draws": 4000, "reference": "RF(m=4)", "reference_draws": 20_000} | options
    return compare(loss_of("cubic"), logits_of("moderate"), texts, **given)


@pytest.mark.parametrize("method", ["exact", "monte-carlo"])
def test_a_measured_truth_agrees_with_the_exact_one(method):
    measured, exact = against_reference(method=method), rows_of(texts=WITH_EXACT_MOMENTS)
    assert set(measured.truth) == {"RF(m=4), 20,000 draws"}
    assert (measured.truth2_se > 0).all()
    bound = limit(GROUPS - 1)
    assert scores(measured.truth2, exact.truth2, measured.truth2_se).abs().max() < bound
    for number in ("bias2", "mse", "scale_free_bias2"):
        z = scores(measured[number], exact[number], measured[f"{number}_se"])
        assert z.abs().max() < bound
    # The negative control: that none is biased would be seen.
    assert scores(measured.bias2, 0.0, measured.bias2_se).abs().max() > bound


def test_with_a_reference_the_columns_are_the_same():
    known, measured = rows_of(), against_reference()
    assert list(known.columns) == list(measured.columns)
    assert known.dtypes.equals(measured.dtypes)
    assert set(known["truth"]) == {"enumeration"}
    assert set(known["truth2_se"].dropna()) == {0.0}
    assert (measured["truth2_se"].dropna() > 0).all()


def test_the_reference_has_random_numbers_of_its_own():
    (row,) = against_reference(["RF(m=4)"], method="monte-carlo").to_dict("records")
    assert row["bias2"] != 0
    f, logits = loss_of("cubic"), logits_of("moderate")
    own = monte_carlo(LeaveOneOut(4), f, logits, 20_000, row=row["problem"])
    assert row["truth2"] != own.length2.value


def test_what_does_not_enumerate_is_measured_against_a_reference():
    def linear(x):
        return x[..., 0].sum(-1)

    logits = torch.zeros(40, 3, dtype=torch.float64)
    options = {"draws": 500, "reference": LeaveOneOut(4), "reference_draws": 5000}
    rows = compare(linear, logits, ["ST", "RF"], method="both", **options)
    assert list(rows.method) == ["exact", "monte carlo"] * 2
    assert rows.reason[::2].str.contains("40 variables of 3 classes have about").all()
    assert rows.reason[1::2].isna().all()
    # |J e_0|^2 of one variable is (2/9)^2 + 2 (1/9)^2.
    assert abs(scores(rows.truth2[1], 40 * 6 / 81, rows.truth2_se[1])) < limit(GROUPS - 1)
    assert abs(scores(rows.bias2[1], 0.0, rows.bias2_se[1])) < limit(GROUPS - 1)
    with pytest.raises(TooLargeError):
        compare(linear, logits, ["ST"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "ZGR"}, "reference must be unbiased for every f, .* up to degree 2 only"),
        ({"reference": "RFF"}, "unknown estimator 'RFF'"),
        ({"reference": "RF", "reference_draws": 31}, "reference_draws must be an int of at least"),
    ],
)
def test_a_bad_reference_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rows_of(texts=["ST"], **options)


def test_a_reference_that_cannot_be_used_says_why():
    logits = torch.zeros(40, 100, dtype=torch.float64)
    with pytest.raises(ValueError, match="reference ARSM cannot be used: one draw of ARSM"):
        compare(lambda x: x[..., 0].sum(-1), logits, ["RF"], reference="ARSM")
