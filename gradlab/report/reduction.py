"""Fewer rows for a page: medians over seeds and sizes where rows are alike, or an even sample."""

import numpy as np
import pandas as pd

from gradlab.report.sections import counted, listed

__all__ = ["reduced"]

# Rows that differ only in these are summed up, the first ones first.
_MERGED = (("logits_seed", "cell", "seed"), ("N", "C", "size"), ("regime",), ("problem",))
_ALIKE: tuple[str, ...] = (
    "problem",
    "batch",
    "N",
    "C",
    "size",
    "regime",
    "logits_seed",
    "estimator",
    "series",
)
_ALIKE += ("tau", "method")


def reduced(rows: pd.DataFrame, most: int, kind: str) -> tuple[pd.DataFrame, str]:
    """Return at most so many rows, and a sentence on what was done; "" if all rows stay.

    Args:
        rows: The rows of one source.
        most: How many rows the page takes.
        kind: What made them. Rows of "compare" and "sweep" are summed up by medians, all others
            are thinned evenly.

    Returns:
        The rows and the sentence.

    Example:
        >>> rows = pd.DataFrame({"epoch": range(100)})
        >>> few, told = reduced(rows, 10, "training")
        >>> len(few), told
        (10, '10 of 100 rows are shown, spread evenly; the source has all of them.')
    """
    if len(rows) <= most:
        return rows, ""
    if kind in ("compare", "sweep"):
        gone: list[str] = []
        for together in _MERGED:
            gone += together
            keys = [name for name in _ALIKE if name in rows and name not in gone]
            groups = rows.groupby(keys, dropna=False, sort=False).ngroups
            if groups <= most and {"estimator"} <= set(keys):
                return _medians(rows, keys), (
                    f"{counted(len(rows), 'row')} are more than a page holds. Rows that differ "
                    f"only in {listed([name for name in gone if name in rows])} are one row here: "
                    f"the median of each number. The answer above is of all rows."
                )
    places = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    few = f"{len(places):,} of {len(rows):,} rows"
    told = f"{few} are shown, spread evenly; the source has all of them."
    return rows.iloc[places].reset_index(drop=True), told


def _medians(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return one row for each group: medians of numbers, and texts on which its rows agree."""
    groups = rows.groupby(keys, dropna=False, sort=False)
    numbers = [c for c in rows if pd.api.types.is_numeric_dtype(rows[c]) and c not in keys]
    finite = rows[numbers].astype(float).replace([np.inf, -np.inf], np.nan)
    table = finite.groupby([rows[k] for k in keys], dropna=False, sort=False).median()
    same = ["unit", "version", "dtype", "truth", "reason"]
    for name in (name for name in same if name in rows and name not in keys):
        agreed = groups[name].nunique(dropna=False).to_numpy() == 1
        table[name] = groups[name].first().where(agreed)
    table["merged"] = groups.size()
    dropped = [name for name in ("logits_seed", "seed", "N", "C") if name in table]
    return table.drop(columns=dropped).reset_index()
