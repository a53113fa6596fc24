"""Every sentence of a recommendation is true of its rows, which are made by hand here."""

import dataclasses
import functools
import math
from typing import Any

import pandas as pd
import pytest

from gradlab.comparison.recommendation import UNMEASURED, Recommendation, Run
from gradlab.comparison.recommending import ranked_curves, table_of
from gradlab.moments import Measured


def row(series: str, bias2: float, variance: float, tau: float = math.nan, **other: Any) -> dict:
    """Return an exact row, of a gradient of length 2; the bias is across the gradient."""
    share = 4.0 / (4.0 + bias2)
    given = {
        "problem": "toy",
        "series": series,
        "estimator": series if math.isnan(tau) else f"{series}(tau={tau:g})",
        "tau": tau,
        "method": "exact",
        "draws": math.nan,
        "reason": None,
        "truth2": 4.0,
        "truth2_se": 0.0,
        "cost": 1.0,
        "bias2": bias2,
        "variance": variance,
        "mse": bias2 + variance,
        "cosine": math.sqrt(share),
        "scale_free_variance": variance * share,
    }
    errors = ("bias2", "variance", "mse", "cosine", "scale_free_variance")
    return given | dict.fromkeys((f"{name}_se" for name in errors), 0.0) | other


def drawn(series: str, bias2: float, variance: float, se: float, **other: Any) -> dict:
    """Return a row by 640 draws, with the standard error of its cosine."""
    own = {"method": "monte carlo", "draws": 640.0, "cosine_se": se, "bias2_se": 8 * se}
    return row(series, bias2, variance, **(own | {"mse_se": 8 * se} | other))


def answer(
    *rows: dict, evaluations: int = 8, reasons: dict[str, str] | None = None, **other: Any
) -> Recommendation:
    """Return the recommendation that these rows give."""
    table = pd.DataFrame(rows)
    averaged = other.get("averaged", 10.0)
    curves = _curves(tuple(tuple(row.items()) for row in rows), evaluations, averaged).copy()
    costs = table.groupby("series", sort=False)["cost"].first().to_dict()
    costs |= dict.fromkeys(reasons or {}, 1.0)
    given = {
        "problem": "toy",
        "size": (4, 3),
        "batch": None,
        "evaluations": evaluations,
        "averaged": averaged,
        "gradient_cost": 3.0,
        "must_be_unbiased": False,
        "truth": "enumeration",
        "length2": Measured(4.0, 0.0),
        "rows": table,
        "table": table_of(curves, costs, reasons or {}),
        "curves": curves,
    }
    return Recommendation(**(given | other))


@functools.cache
def _curves(rows: tuple, evaluations: int, averaged: float) -> pd.DataFrame:
    """Return the ranking of rows, which many tests have in common."""
    return ranked_curves(pd.DataFrame(map(dict, rows)), evaluations, averaged)


def words(found: Recommendation) -> str:
    return " ".join(found.explain().split())


A, B = row("A", 0.04, 0.96, cost=4.0), row("B", 0.0, 4.0, cost=4.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "toy: 4 variables of 3 classes. The true gradient has the length |g| = 2, by"),
        ({"batch": 7}, "toy: 7 elements of 4 variables of 3 classes."),
        ({"length2": Measured(4.0, 0.4)}, "|g| = 2 ± 0.1, by"),
        ({"truth": "RF(m=4), 640 draws"}, "by RF(m=4), 640 draws."),
        ({}, "Budget: 8 evaluations of f for one gradient. f with its gradient counts as 3."),
        ({}, "10 gradients are averaged. Ranked by"),
        ({"averaged": 1216.0, "averaged_from": "batch 64"}, "1,216 gradients are averaged (batch"),
        ({"must_be_unbiased": True}, "are averaged. It must be unbiased."),
        ({"gradient_cost": 2.345, "gradient_cost_se": 0.04}, "counts as 2.35 ± 0.04, measured on"),
        ({}, "Ranked by progress. progress: what a step"),
        ({"notes": ("One more thing.",)}, "One more thing."),
        ({}, "All this holds for f at these logits; both change in training."),
    ],
)
@pytest.mark.few(1)
def test_what_was_asked(given, expected):
    assert expected in words(answer(A, B, **given))


def run(**other: Any) -> Run:
    given = {"moments": 3, "steps": (0, 10, 1500), "runs": 1, "lengths": (0.5, 2.0)}
    return Run(**(given | {"firsts": (("A", 2), ("B", 1))} | other))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "Progress is the mean over 3 steps, from 0 to 1,500. |g|, the length of the true"),
        ({}, "gradient there, is 0.5 to 2, by enumeration."),
        ({"moments": 6, "runs": 2}, "over 6 measurements at 3 steps, from 0 to 1,500 of 2 runs."),
        ({"steps": (5,), "moments": 1}, "the mean over step 5."),
        ({"steps": ()}, "the mean over 3 snapshots."),
        ({}, "Of the 3 moments, the most progress has A at 2, B at 1."),
        ({}, "Standard errors are those of measurement at these moments, not of other runs."),
    ],
)
@pytest.mark.few(2)
def test_what_is_said_of_a_run(given, expected):
    found = words(answer(A, B, run=run(**given)))
    assert expected in found
    assert "both change in training" not in found


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((A, B), "Best: A. One gradient is the mean of 2 draws."),
        ((A | {"cost": 8.0}, B), "Best: A. One gradient is one draw."),
        ((A, A | {"series": "C", "estimator": "C"}), "Best: A, C: they are the same."),
        (
            (drawn("A", 0.0, 1.0, 0.1), drawn("C", 0.0, 1.1, 0.1)),
            "Best: A, C: cannot be told apart (2 standard errors; more draws may decide).",
        ),
    ],
)
@pytest.mark.few(1)
def test_what_is_best(rows, expected):
    found = answer(*rows)
    assert expected in words(found)
    named = expected.removeprefix("Best: ").replace(":", ".").partition(".")[0]
    assert found.best == named.split(", ")


@pytest.mark.thorough  # words; test_what_the_first_loses
def test_how_much_more_another_may_have():
    found = answer(drawn("A", 0.4, 1.0, 0.01), drawn("C", 0.6, 1.0, 0.02))
    first, other = (found.table.iloc[k] for k in (0, 1))
    noise = math.hypot(first["progress_se"], other["progress_se"])
    more = other["progress"] - first["progress"] + 2 * noise
    assert f"Another may have up to {more:.2g} more progress (2 standard errors)." in words(found)
    assert "Another may have" not in words(answer(A, B))


def test_what_the_first_loses():
    lost = 1 - 4 / (4 + 0.04 + 0.96 / 20)
    turned = 0.04 / 4.04
    assert (
        f"A loses {lost:.2g} of the progress: {turned:.2g} because its mean points elsewhere, "
        "which no averaging mends, and the rest by noise."
    ) in words(answer(A, B))
    lost = 1 - 4 / (4 + 4 / 20)
    told = (
        f"B loses {lost:.2g} of the progress by noise. Averaging more gradients would win it back."
    )
    assert told in words(answer(B))


def test_without_a_gradient_the_order_is_that_of_the_error():
    none = {"truth2": 0.0, "cosine": math.nan, "scale_free_variance": math.nan}
    found = answer(row("A", 1.0, 1.0, **none), row("B", 0.0, 1.0, **none))
    assert found.best == ["B"]
    text = words(found)
    assert "Ranked by error." in text
    assert "The gradient is 0 or lost in noise, so that the order is that of the error" in text
    assert "units of f" in text


@pytest.mark.thorough  # test_where_the_first_place_holds_is_reported
def test_where_the_first_place_ends():
    # A is ahead below 7.7 draws of each, in all: 0.04 + 0.96 / n = 4 / n at n = 76.
    text = words(answer(A, B, evaluations=8, averaged=10.0))
    assert "A is first at budgets of 4 to 24 evaluations. With more, B is first." in text
    assert "A is first where 1 to 32 gradients are averaged. With more, B is first." in text
    text = words(answer(A, B, evaluations=64, averaged=10.0))
    assert "With fewer, A is first." in text
    assert text.count("B is first at budgets of 32 to 16,384 evaluations.") == 1


def test_what_is_no_better_than_0():
    away = row("Z", 0.0, 1.0, cosine=-1.0)
    found = answer(A, away)
    assert "no better than 0: not shown to make more progress than an answer of 0." in words(found)
    assert "no better than 0" not in words(answer(A, B))
    assert found.best == ["A"]


@pytest.mark.thorough  # at_edge is tried in test_recommending.py
def test_a_temperature_at_the_end_of_the_grid():
    cells = [row("T", t, 1.0, t) for t in (0.1, 0.5, 1.0)]
    text = answer(*cells).explain()
    assert "!: the best temperature is at the end of the grid, so a better one may" in text
    assert "0.1!" in text
    assert "Measured at one temperature only" not in text
    alone = answer(row("T", 0.1, 1.0, 0.5), A).explain()
    assert "0.5!" not in alone
    assert "Measured at one temperature only, so that another may be better: T." in alone
    inside = [row("T", b, 1.0, t) for t, b in ((0.1, 0.3), (0.5, 0.1), (1.0, 0.2))]
    assert "!" not in answer(*inside).explain()
    alike = [row("T", b, 1.0, t) for t, b in ((0.1, 0.3), (0.5, 0.1), (1.0, 0.1001), (2.0, 0.3))]
    assert "0.5 (0.5-1)" in answer(*alike).explain()


def test_what_was_drawn():
    text = words(answer(A, drawn("C", 0.0, 9.0, 0.01, bias2_se=0.0), drawn("D", 0.2, 9.0, 0.01)))
    assert "C, D: measured by 640 draws each; ± is one standard error. The others are" in text
    assert "C: bias 0 as declared, which these draws do not refute." in text
    text = words(answer(drawn("D", 0.2, 9.0, 0.01), drawn("E", 0.3, 9.0, 0.01, draws=64.0)))
    assert "All were measured by 64 to 640 draws each; ± is one standard error." in text
    assert "as declared" not in text
    assert "draws each" not in words(answer(A, B))


def test_what_is_not_ranked():
    reasons = {"X": "f has no gradient", "Y": "f has no gradient", "Z": f"{UNMEASURED}too few"}
    text = answer(A, B, reasons=reasons).explain()
    assert "\nnot applicable\nX, Y: f has no gradient\n" in text
    assert text.endswith("\nnot measured\nZ: too few")
    assert "not applicable" not in answer(A, B).explain()


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.few(1)
def test_the_text_fits_and_names_stay_apart(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = [f"ReinMax-CV-pub(c=0.5, k={k})" for k in (10, 100, 11)]
    cells = [row(n, 0.1 + t / 99, 1.0 + k, t) for k, n in enumerate(names) for t in (0.032, 10.0)]
    found = answer(*cells, drawn("RODEO(m=2, alpha=2, beta=1)", 0.2, 40.0, 0.01), B)
    text = found.explain()
    assert max(map(len, text.splitlines())) <= columns
    for name in names:
        assert text.count(name) >= 1 or all(part in text for part in name.split(", "))
    assert text.count("cosine") >= 2
    short = dataclasses.replace(found, run=run()).explain()
    assert max(map(len, short.splitlines())) <= columns
