"""The smallest error at equal cost: the best temperature of an estimator, and the best estimator.

Both are read from rows of `gradlab.compare`; nothing is measured here. The error is the mean
squared error of the mean of n draws, bias2 + variance / n.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.comparison.rows import RANKED

__all__ = ["averaged_error", "best_temperature", "is_unmet", "progress_at", "ranking"]

# Exact errors that differ by less count as one: no temperature is chosen that finely.
_SAME = 0.01

Array = NDArray[np.float64]


def best_temperature(
    rows: pd.DataFrame, averaged: Iterable[float] = (1, 10, 100, 1000)
) -> pd.DataFrame:
    """Return for each series the temperature with the smallest mean squared error of n draws.

    Of noisy errors the smallest one is too small on average; the interval of temperatures says how
    much the choice means. An exact row is preferred to a Monte Carlo row of the same estimator.
    Rows with fewer draws than their `draws_needed` are left out, because their errors do not
    include what the draws have missed.

    Args:
        rows: Rows of `gradlab.compare` on one problem.
        averaged: The numbers n of draws that are averaged, each at least 1.

    Returns:
        One row for each series and n, in units of f squared. `tau` is the best temperature. `mse`
        with its `mse_se` is the error there; `bias2` and `variance` (of one draw) are its parts,
        never clipped. Between `tau_low` and `tau_high` no temperature differs from the best one:
        within two standard errors of the difference, or within 1 % for exact rows. `at_edge` says
        that the grid ends there, so that the best may lie beyond.

    Raises:
        ValueError: If an n is below 1, the rows are of several problems, or all measured rows are
            left out.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 4, 3), regime("moderate", 4, 3)
        >>> rows = compare(f, logits, ["ST", "GR(k=10)"], temperatures=[0.1, 1.0], draws=1000)
        >>> best_temperature(rows, averaged=[1, 100])[["series", "averaged", "tau"]]
             series  averaged  tau
        0        ST         1  NaN
        1        ST       100  NaN
        2  GR(k=10)         1  1.0
        3  GR(k=10)       100  0.1
    """
    numbers = list(averaged)
    for n in numbers:
        if not n >= 1:
            raise ValueError(f"averaged must be at least 1 draw, not {n!r}")
    for column in ("problem", "logits_seed"):
        if rows[column].nunique(dropna=False) > 1:
            raise ValueError(f"rows must be of one {column}, not {list(rows[column].unique())}")
    series = _measured(rows).groupby("series", sort=False)
    parts = [part.sort_values("tau") for _, part in series]
    found = pd.DataFrame([_best(part, n) for part in parts for n in numbers], columns=_COLUMNS)
    return found.astype({"tau": float})  # of rows without any temperature a column of None


_COLUMNS = [
    *("problem", "series", "averaged", "estimator", "tau", "tau_low", "tau_high", "at_edge"),
    *("mse", "mse_se", "bias2", "bias2_se", "variance", "variance_se", "truth2", "method", "draws"),
]


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose numbers count, one per estimator.

    Raises ValueError if all that have numbers come from too few draws.
    """
    measured = rows[rows["reason"].isna() & ~is_unmet(rows)]
    if not len(measured) and is_unmet(rows).any():
        raise ValueError(_nothing(rows))
    is_exact = measured["method"] == "exact"
    return measured[is_exact | ~measured["estimator"].isin(measured["estimator"][is_exact])]


def is_unmet(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows have fewer draws than are needed to know their error.

    Args:
        rows: Rows of `gradlab.compare`.

    Returns:
        One bool per row.

    Example:
        >>> is_unmet(pd.DataFrame({"draws_needed": [np.nan, 10_000.0]})).tolist()
        [False, True]
    """
    if "draws_needed" not in rows:
        return pd.Series(False, index=rows.index)
    return rows["draws_needed"].notna()


def _nothing(rows: pd.DataFrame) -> str:
    """Return why no row can be ranked, and the way out."""
    if not len(rows):
        return "rows must not be empty"
    drawn = rows[is_unmet(rows)]
    if not len(drawn):
        first = rows.iloc[0]
        return f"rows hold no measured estimator: {first['estimator']}: {first['reason']}"
    least = drawn.loc[drawn["draws_needed"].idxmin()]
    return (
        "rows hold no estimator whose draws have met what carries the variance: measure with more "
        f"draws, {least['estimator']} with draws={least['draws_needed']:.0f}, or take one whose "
        "moments are exact, such as RF(m=4)"
    )


def _best(part: pd.DataFrame, n: float) -> dict[str, Any]:
    """Return the best row of one series, by increasing temperature, for the mean of n draws."""
    mse, se = averaged_error(part, n)
    at = int(mse.argmin())
    noise = np.hypot(se, se[at])
    alike = mse - mse[at] <= np.where(noise > 0, 2 * noise, _SAME * abs(mse[at]))
    low = high = at
    while low > 0 and alike[low - 1]:
        low -= 1
    while high + 1 < len(part) and alike[high + 1]:
        high += 1
    tau = part["tau"].to_numpy(float)
    best = part.iloc[at].to_dict()
    return best | {
        "averaged": n,
        "mse": mse[at],
        "mse_se": se[at],
        "tau_low": tau[low],
        "tau_high": tau[high],
        "at_edge": bool(at in (0, len(part) - 1) and not math.isnan(tau[at])),
    }


def averaged_error(rows: pd.DataFrame, n: float) -> tuple[Array, Array]:
    r"""Return the mean squared error of the mean of n draws, for each row, and its standard error.

    .. math:: e = b + v / n, \quad s_e^2 = s_b^2 + s_v^2 / n^2 + (s_{mse}^2 - s_b^2 - s_v^2) / n

    The error at n = 1, `mse_se`, shows how the errors of the two parts go together.

    Args:
        rows: From `gradlab.compare`: b is `bias2`, v is `variance`.
        n: How many draws are averaged; it need not be a whole number.

    Returns:
        The errors and their standard errors, one for each row, in units of f squared.

    Example:
        >>> row = {"bias2": 1.0, "bias2_se": 0.3, "variance": 8.0, "variance_se": 0.4}
        >>> error, se = averaged_error(pd.DataFrame([row | {"mse_se": 0.5}]), 4)
        >>> error.round(3).tolist(), se.round(3).tolist()
        ([3.0], [0.316])
    """
    bias2, variance, b, v, both = (
        rows[column].to_numpy(float)
        for column in ("bias2", "variance", "bias2_se", "variance_se", "mse_se")
    )
    covariance = (both**2 - b**2 - v**2) / 2
    square = b**2 + (v / n) ** 2 + 2 * covariance / n
    return bias2 + variance / n, np.sqrt(square.clip(min=0.0))


def progress_at(rows: pd.DataFrame, averaged: "float | pd.Series[float]") -> tuple[Array, Array]:
    r"""Return the progress of the mean of so many draws, and its standard error, for each row.

    .. math:: P(B) = \operatorname{sign}(c)\, c^2 / (1 + v / (|g|^2 B)),

    with the cosine c and the scale-free variance v: what `Moments.progress` returns, up to the
    noise of measured rows. Rows hold it for one B only.

    Args:
        rows: From `gradlab.compare`.
        averaged: B, for all rows or for each.

    Returns:
        Two arrays. Exact rows of a mean of 0 have no progress and no error; NaN where a length is
        lost in noise.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> rows = compare(problem("linear", 2, 3), regime("moderate", 2, 3), ["ST"])
        >>> progress_at(rows, 10)[0].round(6).tolist()
        [1.0]
    """
    cosine, cosine_se, v, v_se, truth2 = (
        rows[column].to_numpy(float)
        for column in (
            *("cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se"),
            "truth2",
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = truth2 * np.asarray(averaged, dtype=float)
        noise, noise_se = v / unit, v_se / unit
        root = cosine / np.sqrt(1 + noise)
        root_se = np.hypot(cosine_se, cosine * noise_se / (2 * (1 + noise))) / np.sqrt(1 + noise)
    known = (rows["method"] == "exact").to_numpy() & np.isnan(root) & (truth2 > 0)
    root, root_se = np.where(known, 0.0, root), np.where(known, 0.0, root_se)
    return root * abs(root), np.hypot(2 * root * root_se, math.sqrt(2) * root_se**2)


def ranking(rows: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """Return the series in order of their error, for each of several budgets.

    A series averages floor(budget / cost) draws at its best temperature; one that cannot pay for a
    draw is left out. First is the lowest error + 2 standard errors. Every series whose difference
    from the first is within two standard errors shares rank 1. Rows with fewer draws than their
    `draws_needed` are left out.

    Args:
        rows: Rows of `gradlab.compare` on one problem, with the column `cost`: what one draw counts
            as, in evaluations of f.
        budgets: Numbers of evaluations of f for one gradient.

    Returns:
        One row for each budget and series. `rmse` is the root of the mean squared error; `bias2`
        and `variance` are those of the average. Each has its `_se`. The `unit` of `rmse` is |g|, or
        that of f where the gradient is 0 or lost in noise.

    Raises:
        ValueError: If no budget pays for a draw, or no row is left.
    """
    found = []
    measured = _measured(rows)
    for _, part in measured.groupby("series", sort=False):
        cost = part["cost"].iloc[0]
        paid = [budget for budget in budgets if budget >= cost]
        if paid:
            best = best_temperature(part, [int(budget // cost) for budget in paid])
            found.append(best.assign(cost=cost, evaluations=paid))
    if not len(measured):
        raise ValueError(_nothing(rows))
    if not found:
        dear = measured.loc[measured["cost"].idxmin()]
        raise ValueError(
            f"budgets must pay for a draw of one estimator at least: the cheapest, "
            f"{dear['series']}, costs {dear['cost']:g} evaluations, more than "
            f"{max(budgets, default=0)}; give a larger budget"
        )
    every = pd.concat(found, ignore_index=True)
    ranked = [_ranked(table) for _, table in every.groupby("evaluations")]
    return _relative(pd.concat(ranked, ignore_index=True), rows)


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table in order, with ranks."""
    first = table.loc[(table["mse"] + 2 * table["mse_se"]).idxmin()]
    noise = 2 * np.hypot(table["mse_se"], first["mse_se"]) + 1e-9 * abs(first["mse"])
    group = np.where(table["mse"] - first["mse"] <= noise, 1, 2)
    group[table.index == first.name] = 0
    table = table.assign(group=group).sort_values(["group", "mse"], kind="stable")
    place = np.arange(1, len(table) + 1)
    return table.assign(rank=np.where(table["group"] < 2, 1, place))


def _relative(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table with errors in the unit |g|."""
    truth2 = float(table["truth2"].iloc[0])
    noise = float(rows["truth2_se"].iloc[0]) if "truth2_se" in rows else 0.0
    known = truth2 > 2 * noise
    unit2 = truth2 if known else 1.0
    for column in ("mse", "mse_se", "bias2", "bias2_se", "variance", "variance_se"):
        table[column] /= unit2
    for column in ("variance", "variance_se"):
        table[column] /= table["averaged"]
    rmse = np.sqrt(table["mse"].clip(lower=0.0))
    # By the delta method; where the square is lost in its noise, the root of that.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (table["mse_se"] / (2 * rmse)).fillna(0.0)
    table = table.assign(
        rmse=rmse,
        rmse_se=np.minimum(slope, np.sqrt(table["mse_se"])),
        unit="|g|" if known else "units of f",
    )
    return table[RANKED]
