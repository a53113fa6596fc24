"""Rows of a sweep as the points of a picture: medians over the rows of each point.

Columns that are made on the fly are made here, and what cannot be drawn is counted.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from gradlab.plots.rounding import SHARE_ROUNDING

__all__ = ["MOST_HUES", "MOST_PANELS", "SQUARES", "SYMBOLS", "Points", "points"]

MOST_HUES = 40
"""More lines than this, or names along an axis, cannot be distinguished."""

MOST_PANELS = 24
"""More panels than this are not legible on one page."""

SQUARES = ("bias2", "variance", "mse", "scale_free_bias2", "scale_free_variance")
"""Columns in units of f squared that are never negative, though their estimates may be."""

SYMBOLS = {"tau": "τ", "logits_seed": "seed"}
"""What is written for the name of a column beside a value of it."""

_RELATIVE = {f"relative_{name}": name for name in ("bias2", "variance", "mse")}
# What the rows of one point may differ in, and what that is called.
_OPEN = {
    "problem": "problems",
    "N": "N",
    "C": "C",
    "regime": "regimes",
    "logits_seed": "seeds",
    "series": "estimators",
    "tau": "temperatures",
    "method": "methods",
}


@dataclass(frozen=True)
class Points:
    """What a figure of a sweep shows, and what it leaves out.

    Args:
        table: One row for each `panel`, `hue` and `x` (NaN: without x). `low`, `middle` and `high`
            are the median of y and its 15 to 85 % range over `count` rows. Where every point of a
            line is one row it is `single`: `low` and `high` are one standard error from it.
        panels: The panels, in the order to be shown.
        hues: The hues, in the order to be shown.
        x_names: The names of x = 0, 1, ... if x is text.
        lost: How many rows have no number, in words.
        left_open: The columns in which the rows of one point differ, in words.
    """

    table: pd.DataFrame
    panels: list[str]
    hues: list[str]
    x_names: list[str]
    lost: str
    left_open: str


def points(rows: pd.DataFrame, x: str, y: str, hue: str, col: str) -> Points:
    """Return the points of `y` against `x` for each value of `hue` and `col`.

    Args:
        rows: Rows of `gradlab.sweep_rows`.
        x: The column along the axis.
        y: The column of numbers.
        hue: The column whose values are lines.
        col: The column whose values are panels.

    Returns:
        The points.

    Raises:
        ValueError: If a column is unknown, one has too many values, or no row has a finite y.
    """
    if rows.empty:
        raise ValueError("rows must not be empty: the sweep has none, or none was chosen")
    rows = _with_derived(rows)
    _check_columns(rows, x=x, y=y, hue=hue, col=col)
    names: list[str] = []
    if is_numeric_dtype(rows[x]):
        places = _finite(rows[x])
    else:
        categories = _categories(rows[x], x)
        places, names = categories.cat.codes.astype(float), list(categories.cat.categories)
    numbers = {"x": places, "y": _finite(rows[y]), "se": rows.get(f"{y}_se", 0.0)}
    table = pd.DataFrame(
        numbers | {"panel": _categories(rows[col], col), "hue": _categories(rows[hue], hue)}
    )
    is_lost, lost = _lost(rows, table["y"], y)
    if is_lost.all():
        raise ValueError(f"rows must hold a number of y = {y!r}, but {lost}")
    measured = table[~is_lost]
    panels = list(table["panel"].cat.categories)
    hues = list(measured["hue"].cat.remove_unused_categories().cat.categories)
    _check_count("col", col, len(panels), MOST_PANELS)
    _check_count("hue", hue, len(hues), MOST_HUES)
    _check_count("x", x, len(names), MOST_HUES)
    left_open = _left_open(rows[~is_lost], measured, {x, hue, col})
    return Points(_summary(measured), panels, hues, names, lost, left_open)


def _with_derived(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `size` and the squares relative to truth2; rounding errors become 0."""
    instance = [c for c in ("problem", "N", "C", "regime", "logits_seed") if c in rows]
    scale = rows.groupby(instance, dropna=False)["mse"].transform("max")
    rows = rows.assign(size=[f"{n}x{c}" for n, c in zip(rows["N"], rows["C"], strict=True)])
    for column in SQUARES:
        rows[column] = rows[column].mask(rows[column].abs() < SHARE_ROUNDING * scale, 0.0)
    truth2 = rows["truth2"].where(rows["truth2"] > 0)
    for column, square in _RELATIVE.items():
        rows[column], rows[f"{column}_se"] = rows[square] / truth2, rows[f"{square}_se"] / truth2
    return rows


def _check_columns(rows: pd.DataFrame, **columns: str) -> None:
    """Raise ValueError for a column that is not there, or a y that is not a number."""
    numbers = [c for c in rows if is_numeric_dtype(rows[c]) and not is_bool_dtype(rows[c])]
    # Reasons and errors look like numbers where there are none.
    numbers = [column for column in numbers if column not in ("reason", "error")]
    for argument, column in columns.items():
        allowed = numbers if argument == "y" else list(rows)
        if column not in allowed:
            what = "a column of numbers" if argument == "y" else "a column"
            raise ValueError(f"{argument} must be {what}, not {column!r}: {', '.join(allowed)}")


def _check_count(argument: str, column: str, count: int, most: int) -> None:
    if count > most:
        raise ValueError(
            f"{argument} = {column!r} has {count} values, at most {most} can be shown: "
            "choose rows with --where"
        )


def _finite(values: pd.Series) -> pd.Series:
    return values.astype(float).replace([np.inf, -np.inf], np.nan)


def _categories(values: pd.Series, column: str) -> pd.Series:
    """Return a column as categories of text: numbers and sizes sorted, text as it first appears."""
    found = list(values.dropna().unique())
    name = SYMBOLS.get(column, column)
    if is_numeric_dtype(values):
        texts = {value: f"{name} = {value:g}" for value in sorted(found)}
    elif column == "size":
        texts = {v: v for v in sorted(found, key=lambda size: [int(n) for n in size.split("x")])}
    else:
        texts = {value: str(value) for value in found}
    order = [*texts.values(), *([f"no {name}"] if values.isna().any() else [])]
    text = [texts.get(value, f"no {name}") for value in values]
    return pd.Series(pd.Categorical(text, categories=order), index=values.index)


def _lost(rows: pd.DataFrame, y: pd.Series, column: str) -> tuple[pd.Series, str]:
    """Return which rows have no number, and how many they are and why."""
    failed = rows.get("error", pd.Series(index=rows.index, dtype=object)).notna()
    refused = rows["reason"].notna() & ~failed
    other = y.isna() & ~failed & ~refused
    reasons = {"could not be measured": refused, "failed": failed, f"have no {column}": other}
    parts = [f"{which.sum():,} {why}" for why, which in reasons.items() if which.any()]
    text = ", ".join(parts)
    first, _, rest = text.partition(" ")
    return failed | refused | other, text and f"{first} cell{'s' * (first != '1')} {rest}"


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `Points`."""
    groups = table.groupby(["panel", "hue", "x"], observed=True, dropna=False)
    quantiles = {"low": 0.15, "middle": 0.5, "high": 0.85}
    summary = pd.DataFrame({name: groups["y"].quantile(q) for name, q in quantiles.items()})
    summary = summary.assign(se=groups["se"].first(), count=groups.size()).reset_index()
    most = summary.groupby(["panel", "hue"], observed=True)["count"].transform("max")
    error = summary.pop("se").fillna(0.0).where(most == 1, 0.0)
    return summary.assign(
        low=summary["low"] - error, high=summary["high"] + error, single=most == 1
    )


def _left_open(rows: pd.DataFrame, table: pd.DataFrame, used: set[str]) -> str:
    """Return the names of the columns in which rows of the same panel, hue and x differ."""
    columns = [column for column in _OPEN if column in rows and column not in used]
    keys = [table["panel"], table["hue"], table["x"]]
    differ = rows[columns].groupby(keys, observed=True, dropna=False).nunique().gt(1).any()
    names = ", ".join(_OPEN[column] for column in columns if differ[column])
    return names.replace("N, C", "sizes")
