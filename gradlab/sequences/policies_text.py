"""The rows of policy gradients as a table to read in a terminal."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from gradlab.text import aligned, filled

__all__ = ["policies_text"]

_HEADER = ("estimator", "G", "bias", "sd", "cosine", "progress", "method")


def policies_text(rows: pd.DataFrame) -> str:
    """Return what rows of `gradlab.sequences.compare` say.

    Args:
        rows: The rows, of one task.

    Example:
        >>> from gradlab.sequences import Tabular, compare, tasks
        >>> rows = compare(["RLOO"], Tabular(3, 3), tasks.parity())
        >>> print(policies_text(rows).splitlines()[0])
        parity, Tabular, on policy; target J, |gradient| = 0.2301
    """
    first = rows.iloc[0]
    where = "on policy" if pd.isna(first["rollout"]) else f"sampled by another {first['rollout']}"
    text = f"{first['problem']}, {first['policy']}, {where}; target {first['target']}"
    measured, refused = rows[rows["reason"].isna()], rows[rows["reason"].notna()]
    if len(measured):
        text += f", |gradient| = {math.sqrt(measured['truth2'].iloc[0]):.4g}"
        averaged = measured["averaged"].iloc[0]
        about = (
            "bias and sd are in lengths of the gradient, of one estimate; progress is that of the "
            f"mean of {averaged:g}. Numbers are exact, or from draws."
        )
        cells = map(_cells, measured.to_dict("records"))
        text += f"\n{filled(about, indent='')}\n\n{aligned([_HEADER, *cells])}"
    for row in refused.to_dict("records"):
        why = f"not measured: {row['estimator']}: {row['reason']}"
        text += f"\n{filled(why)}"
    return text


def _cells(row: Mapping[str, Any]) -> list[str]:
    bias, sd = (math.sqrt(max(row[c], 0.0) / row["truth2"]) for c in ("bias2", "variance"))
    how = "exact" if row["method"] == "exact" else f"{row['draws']:,.0f} draws"
    numbers = [f"{x:.4f}" for x in (bias, sd, row["cosine"], row["progress"])]
    return [row["estimator"], f"{row['group']:g}", *numbers, how]
