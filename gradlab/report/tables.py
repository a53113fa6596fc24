"""The rows of a section as data of the page, and as a table that is there without scripts."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.report.markup import Markup, element, joined, number_text
from gradlab.report.sections import known, listed, meaning_of, title_of

__all__ = ["Data", "PAGE", "data_of", "first_rows", "static_table"]

PAGE = 25
"""Rows that the table shows at once."""


@dataclass(frozen=True)
class Data:
    """Rows for a page.

    Args:
        columns: One dict per column that varies: `name`, `title`, `meaning`, `number`, `shown`, and
            `values`; the values of text are places in `texts`.
        constant: Columns that are the same in every row, and their value as text.
        empty: Columns that hold nothing.
        unknown: Columns that gradlab has no meaning for.
        length: The number of rows.

    Example:
        >>> Data([], {}, [], [], 0).length
        0
    """

    columns: list[dict[str, Any]]
    constant: dict[str, str]
    empty: list[str]
    unknown: list[str]
    length: int

    def sentences(self) -> list[str]:
        """Return what is to be said of columns that are not in the table."""
        told = []
        if self.unknown:
            are = "has no meaning" if len(self.unknown) == 1 else "have no meaning"
            it = "it is" if len(self.unknown) == 1 else "they are"
            told.append(
                f"{listed(self.unknown)} {are} that the report knows: {it} shown, and not "
                "interpreted."
            )
        if self.empty:
            told.append(f"Empty in every row: {listed(self.empty, 40)}.")
        return told


def data_of(rows: pd.DataFrame, shown: list[str], drawn: list[str]) -> Data:
    """Return rows as data of a page.

    Args:
        rows: The rows.
        shown: Columns that the table shows first, in this order.
        drawn: Columns that pictures need; they stay even if they are the same in every row.

    Returns:
        The data. Numbers have six digits; what is not finite is empty.

    Example:
        >>> data = data_of(pd.DataFrame({"tau": [0.1, 1.0], "N": [4, 4]}), ["tau"], [])
        >>> [column["name"] for column in data.columns], data.constant
        (['tau'], {'N': '4'})
    """
    names = [c for c in shown if c in rows] + [c for c in rows if c not in shown]
    columns: list[dict[str, Any]] = []
    constant: dict[str, str] = {}
    empty: list[str] = []
    for name in dict.fromkeys(names):
        of = rows[name] if isinstance(rows[name], pd.Series) else rows[name].iloc[:, 0]
        is_number = pd.api.types.is_numeric_dtype(of) and not pd.api.types.is_bool_dtype(of)
        values = _numbers(of) if is_number else _texts(of)
        there = {v for v in values if v is not None}
        many = len(rows) > 1
        if not there and name not in drawn:
            empty.append(str(name))
            continue
        if many and len(there) == 1 and None not in values and name not in drawn:
            (value,) = there
            constant[str(name)] = number_text(value) if is_number else str(value)
            continue
        column: dict[str, Any] = {
            "name": str(name),
            "title": title_of(str(name)),
            "meaning": meaning_of(str(name)),
            "number": is_number,
            "shown": name in shown,
        }
        if is_number:
            column["values"] = values
        else:
            texts = sorted(str(v) for v in there)
            place = {text: at for at, text in enumerate(texts)}
            column["texts"] = texts
            column["long"] = max(map(len, texts), default=0) > 40
            column["values"] = [None if v is None else place[str(v)] for v in values]
        columns.append(column)
    unknown = [str(c) for c in dict.fromkeys(rows.columns) if not known(str(c)) and c != "run"]
    return Data(columns, constant, empty, unknown, len(rows))


def _numbers(values: "pd.Series[Any]") -> list[float | int | None]:
    floats = pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)
    return [_short(v) if math.isfinite(v) else None for v in floats]


def _short(value: float) -> float | int:
    rounded = float(f"{value:.6g}")
    # A whole number is not rounded: it may be a seed.
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return rounded


def _texts(values: "pd.Series[Any]") -> list[str | None]:
    return [None if v is None or v is pd.NA or v != v else _flag(v) for v in values]


def _flag(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return str(value)


def static_table(data: Data, name: str, caption: str) -> Markup:
    """Return the first rows as a table of HTML; the page's script takes it over.

    Args:
        data: The rows.
        name: The id of the table.
        caption: What the rows are.

    Returns:
        The table, whose headers are buttons.

    Example:
        >>> data = data_of(pd.DataFrame({"tau": [0.1, 1.0]}), ["tau"], [])
        >>> "<td>0.1</td>" in static_table(data, "t", "Rows").replace(' class="number"', "")
        True
    """
    shown = [c for c in data.columns if c["shown"]] or data.columns
    heads = [
        element(
            "th",
            element("button", c["title"], type="button", title=c["meaning"] or None),
            scope="col",
            class_="number" if c["number"] else None,
            aria_sort="none",
        )
        for c in shown
    ]
    body = []
    for at in range(min(PAGE, data.length)):
        cells = [element("td", _cell(c, at), class_=_class(c)) for c in shown]
        body.append(element("tr", *cells))
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", joined(body)),
        id=name,
        class_="rows",
    )


def _class(column: dict[str, Any]) -> str | None:
    return "number" if column["number"] else "long" if column["long"] else None


def _cell(column: dict[str, Any], at: int) -> str:
    value = column["values"][at]
    if value is None:
        return ""
    return number_text(value) if column["number"] else column["texts"][value]


def first_rows(data: Data) -> str:
    """Return how many of the rows the static table shows.

    Args:
        data: The rows.

    Returns:
        The words below the table.

    Example:
        >>> first_rows(Data([], {}, [], [], 46))
        'Rows 1 to 25 of 46'
    """
    least = min(PAGE, data.length)
    return f"Rows 1 to {least} of {data.length}" if data.length else "No rows"
