"""Rankings at equal cost: the best temperature of an estimator, and the best estimator.

Both are read from rows of `gradlab.compare`; nothing is measured here. Estimators are ranked by
progress, temperatures alone also by the mean squared error of the mean of n draws.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.checks import check_averaged
from gradlab.comparison.means_of_draws import Array, ProgressOf, averaged_error, progress_at
from gradlab.comparison.rows import AVERAGED, RANKED

__all__ = [
    "ProgressOf",
    "averaged_error",
    "best_temperature",
    "is_no_better_than_0",
    "is_unmet",
    "progress_at",
    "ranking",
]

# Exact errors that differ by less count as one: no temperature is chosen that finely.
_SAME = 0.01
# Progress below this is rounding.
_NONE = 1e-12

Places = NDArray[np.signedinteger]
Columns = dict[str, NDArray[Any]]


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
        check_averaged(n)
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
    low, high = _around(at, alike)
    tau = part["tau"].to_numpy(float)
    best = part.iloc[at].to_dict()
    return best | {
        "averaged": n,
        "mse": mse[at],
        "mse_se": se[at],
        "tau_low": tau[low],
        "tau_high": tau[high],
        "at_edge": bool(len(part) > 1 and at in (0, len(part) - 1) and not math.isnan(tau[at])),
    }


def ranking(
    rows: pd.DataFrame,
    budgets: Sequence[int],
    averaged: Sequence[float] = (AVERAGED,),
    progress: ProgressOf = progress_at,
) -> pd.DataFrame:
    """Return the series in order of their progress, for each budget and number of gradients.

    A gradient is the mean of floor(budget / cost) draws, and progress that of the mean of so many
    gradients. Of each series the temperature with the most progress counts; a series that costs
    more than the budget is left out. First is what has the most progress less two standard errors.
    Where the gradient is 0, or lost in noise, there is no progress: the order is then that of the
    error of one gradient.

    Args:
        rows: Rows of `gradlab.compare`, whose column `cost` says what one draw counts as.
        budgets: Evaluations of f for one gradient.
        averaged: Numbers of gradients that are averaged.
        progress: How progress follows from rows; by default each row has its own.

    Returns:
        One row for each budget, number and series, with the columns `RANKED` of the schema.
        Rank 1 has all that cannot be told from the first: within two standard errors of the
        difference, or the same exact progress. Last come those that are not shown to make
        progress. Errors and their parts are those of one gradient.

    Raises:
        ValueError: If no budget pays for a draw, a number is below 1, or no row is left.
    """
    for number in averaged:
        check_averaged(number)
    measured = _measured(rows)
    if not len(measured):
        raise ValueError(_nothing(rows))
    parts = [part.sort_values("tau") for _, part in measured.groupby("series", sort=False)]
    sizes = [len(part) for part in parts]
    costs = np.repeat([float(part["cost"].iloc[0]) for part in parts], sizes)
    runs = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    measured = pd.concat(parts, ignore_index=True)
    truth2, known = _truth2(rows)
    tables = []
    for budget, number in itertools.product(budgets, averaged):
        paid = [run for run in runs if costs[run[0]] <= budget]
        if paid:
            draws = np.maximum(budget // costs, 1)
            table = _most(measured, paid, draws, number, progress if known else None)
            table["evaluations"] = np.full(len(paid), budget)
            table["averaged"] = np.full(len(paid), float(number))
            tables.append(_ranked(table, by_error=not known))
    if not tables:
        dear = measured.loc[measured["cost"].idxmin()]
        raise ValueError(
            f"budgets must pay for a draw of one estimator at least: the cheapest, "
            f"{dear['series']}, costs {dear['cost']:g} evaluations, more than "
            f"{max(budgets, default=0)}; give a larger budget"
        )
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    found = measured.iloc[columns.pop("place")].reset_index(drop=True).assign(**columns)
    return _relative(found, truth2 if known else None)


def _truth2(rows: pd.DataFrame) -> tuple[float, bool]:
    """Return |g|^2, and whether it is known: not 0, and not lost in noise."""
    row = rows[rows["truth2"].notna()].iloc[0]
    noise = float(row["truth2_se"]) if "truth2_se" in rows else 0.0
    return float(row["truth2"]), float(row["truth2"]) > 2 * noise


def _most(
    rows: pd.DataFrame,
    runs: list[Places],
    draws: Array,
    averaged: float,
    progress: ProgressOf | None,
) -> Columns:
    """Return the `place` of the best row of each series, for gradients of so many draws.

    By progress, or by the error where there is none. A run has the places of a series in `rows`, by
    increasing temperature. All rows are computed at once, and rankings are columns until all are
    there: series and budgets are many, and tables are slow.
    """
    mse, mse_se = averaged_error(rows, draws)
    if progress is not None:
        value, se = progress(rows, draws * averaged)
        lost = np.isnan(value) | np.isnan(se)
        # No progress is shown where a length is lost in noise.
        value, se = np.where(lost, 0.0, value), np.where(lost, 1.0, se)
        gain, noise = value, se
    else:
        value = se = np.full(len(rows), math.nan)
        gain, noise = -mse, mse_se
    best, low, high = np.array(
        [_best_of(run, gain[run], noise[run], relative=progress is not None) for run in runs]
    ).T
    tau = rows["tau"].to_numpy(float)
    ends = np.array([[run[0], run[-1]] for run in runs])
    several = np.array([len(run) > 1 for run in runs])
    return {
        "place": best,
        "draws_each": draws[best].astype(int),
        "progress": value[best],
        "progress_se": se[best],
        "mse": mse[best],
        "mse_se": mse_se[best],
        "tau_low": tau[low],
        "tau_high": tau[high],
        "at_edge": several & (best[:, None] == ends).any(1) & ~np.isnan(tau[best]),
    }


def _best_of(run: Places, gain: Array, noise: Array, *, relative: bool) -> tuple[int, int, int]:
    """Return the place of the most gain in a run, and the ends of what cannot be told from it."""
    at = int((gain - 2 * noise).argmax())
    apart = 2 * np.hypot(noise, noise[at])
    # What is left to gain, not what is reached: .98 and .99 are as far apart as .5 and .75.
    scale = 1 - gain[at] if relative else abs(gain[at])
    alike = gain[at] - gain <= np.where(apart > 0, apart, _SAME * scale)
    low, high = _around(at, alike)
    return run[at], run[low], run[high]


def is_no_better_than_0(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are not shown to make more progress than an answer of 0, which has none.

    Args:
        rows: Rows with the columns `progress` and `progress_se`; where progress is empty, because
            the gradient is 0 or not known, the answer is no.

    Returns:
        One bool per row: whether progress less two standard errors is 0 or less.

    Example:
        >>> rows = pd.DataFrame({"progress": [0.5, 0.1, -0.2], "progress_se": [0.1, 0.1, 0.0]})
        >>> is_no_better_than_0(rows).tolist()
        [False, True, True]
    """
    return _shows_none(rows["progress"], rows["progress_se"])


def _shows_none(progress: Any, se: Any) -> Any:
    """Return where progress is not shown to be above 0, for columns and arrays."""
    # Squares of lengths that rounding makes of 0 are no progress.
    return progress - 2 * se <= _NONE


def _around(at: int, alike: "NDArray[np.bool_]") -> tuple[int, int]:
    """Return the first and the last place of the run of `alike` ones around a place."""
    low = high = at
    while low > 0 and alike[low - 1]:
        low -= 1
    while high + 1 < len(alike) and alike[high + 1]:
        high += 1
    return low, high


def _ranked(table: Columns, *, by_error: bool) -> Columns:
    """Return the columns in order, with ranks."""
    gain = -table["mse"] if by_error else table["progress"]
    se = table["mse_se" if by_error else "progress_se"]
    first = np.nanargmax(gain - 2 * se)
    noise = 2 * np.hypot(se, se[first]) + 1e-9 * abs(gain[first])
    group = np.where(gain[first] - gain <= noise, 1, 2)
    group[first] = 0
    group[_shows_none(table["progress"], table["progress_se"])] = 3
    order = np.lexsort((-gain, group))
    place = np.arange(1, len(order) + 1)
    ranks = np.where(group[order] < 2, 1, place)
    return {name: column[order] for name, column in table.items()} | {"rank": ranks}


def _relative(table: pd.DataFrame, truth2: float | None) -> pd.DataFrame:
    """Return the table with errors of one gradient, in the unit |g| where it is known."""
    unit2 = 1.0 if truth2 is None else truth2
    for column in ("mse", "mse_se", "bias2", "bias2_se", "variance", "variance_se"):
        table[column] /= unit2
    for column in ("variance", "variance_se"):
        table[column] /= table["draws_each"]
    rmse = np.sqrt(table["mse"].clip(lower=0.0))
    # By the delta method; where the square is lost in its noise, the root of that.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (table["mse_se"] / (2 * rmse)).fillna(0.0)
    table = table.assign(
        rmse=rmse,
        rmse_se=np.minimum(slope, np.sqrt(table["mse_se"])),
        unit="units of f" if truth2 is None else "|g|",
    )
    return table[RANKED]
