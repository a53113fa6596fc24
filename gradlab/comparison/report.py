"""The rows of a comparison as a table to read in a terminal."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from gradlab.text import aligned, filled

__all__ = ["comparison_text"]


def comparison_text(rows: pd.DataFrame) -> str:
    """Return what the rows of `gradlab.compare` on one problem and one `regime` of logits say."""
    measured, refused = rows[rows["reason"].isna()], rows[rows["reason"].notna()]
    text = f"{rows['problem'].iloc[0]}, logits: {rows['regime'].iloc[0]}"
    if len(measured):
        text += f", |gradient|² = {_number(measured['truth2'].iloc[0])}\n"
        number = measured["averaged"].iloc[0]
        about = (
            "bias², variance and mse are of one draw, in units of f²; progress is that of the mean "
            f"of {number:g}. Numbers are exact, or Monte Carlo ± one standard error."
        )
        text += f"{filled(about, indent='')}\n\n"
        text += aligned([_HEADER, *map(_cells, measured.to_dict("records"))])
    if len(refused):
        text += f"\n\nnot measured\n{_reasons(refused, measured)}"
    noted = measured[measured["note"].notna()] if "note" in measured else measured[:0]
    if len(noted):
        text += f"\n\nnotes\n{_reasons(noted.assign(reason=noted['note']), measured[:0])}"
    return text


_HEADER = ("estimator", "cost", "bias²", "variance", "mse", "cosine", "progress", "eff. draws")


def _cells(row: Mapping[str, Any]) -> list[str]:
    bias2, variance = (_number(row[c], row[f"{c}_se"]) for c in ("bias2", "variance"))
    draws = "exact" if row["method"] == "exact" else f"{row['effective_draws']:.0f}"
    ratios = [f"{row[column]:.4f}" for column in ("cosine", "progress")]
    cost = f"{row['cost']:g}"
    return [row["estimator"], cost, bias2, variance, _number(row["mse"]), *ratios, draws]


def _number(value: float, se: float | None = None) -> str:
    """Return the value to two digits of its standard error, or to four of its own."""
    error = se if se is not None and 0 < se < math.inf else 0.0
    size = max(abs(value), error)
    if not 0 < size < math.inf:
        return f"{value:g}"
    if not 1e-3 <= size < 1e6:
        return f"{value:.1e} ± {error:.1e}" if error else f"{value:.3e}"
    last = math.floor(math.log10(error)) - 1 if error else math.floor(math.log10(size)) - 3
    decimals = max(-last, 0)
    return f"{value:.{decimals}f}" + (f" ± {error:.{decimals}f}" if error else "")


def _reasons(refused: pd.DataFrame, measured: pd.DataFrame) -> str:
    """Return why these rows were not measured, each reason once, with all that it holds for."""
    names: dict[str, list[str]] = {}
    for _, row in refused.iterrows():
        partly = row["estimator"] in set(measured["estimator"])
        reason = row["reason"].replace(row["estimator"], row["series"])
        name = f"{row['series']} ({row['method']})" if partly else row["series"]
        names.setdefault(reason, []).append(name)
    return "\n".join(
        filled(f"{', '.join(dict.fromkeys(who))}: {reason}") for reason, who in names.items()
    )
