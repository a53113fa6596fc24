"""Tables to read in a terminal: what there is, and what a comparison found.

`aligned` makes lines of rows of cells, none longer than `WIDTH`.
"""

import inspect
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

import pandas as pd
import torch

from gradlab.estimators import ESTIMATORS, Estimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.problems import PROBLEMS, Quadratic

__all__ = ["KEY", "aligned", "comparison_text", "estimator_rows", "problem_table"]

WIDTH = 100
# Evaluations of f are counted for one variable of this many classes, where they depend on it.
CLASSES = 3

KEY = [
    (
        "degree",
        "exact if f is a polynomial of at most this degree in each variable (0: constant f)",
    ),
    ("calls", f"evaluations of f for one draw, at N = 1, C = {CLASSES}"),
    ("∇f", "needs the gradient of f"),
    ("moments", "mean and variance are known exactly, or measured from draws (Monte Carlo)"),
]
"""What the columns of `estimator_rows` mean."""


def aligned(table: Iterable[Sequence[object]]) -> str:
    """Return the rows as lines, cells under each other, the last one broken where too long."""
    rows = [[str(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    indent = sum(widths[:-1]) + 2 * len(widths[:-1])
    lines = []
    for row in rows:
        first = "".join(c.ljust(w + 2) for c, w in zip(row[:-1], widths[:-1], strict=True))
        last = row[-1]
        if len(last) > _LONG:
            last = f"\n{' ' * indent}".join(textwrap.wrap(row[-1], max(WIDTH - indent, _LONG)))
        lines.append((first + last).rstrip())
    return "\n".join(lines)


# Cells that may be broken into lines.
_LONG = 30


def estimator_rows() -> pd.DataFrame:
    """Return one row for each estimator: its text with all arguments, and what it declares."""
    return pd.DataFrame(
        {
            "estimator": str(estimator),
            "degree": "any" if math.isinf(estimator.order) else str(estimator.order),
            "calls": estimator.calls(CLASSES),
            "∇f": "yes" if estimator.needs_gradient else "no",
            "moments": _moments_known(estimator),
            "source": estimator.reference,
        }
        for estimator in (cls() for cls in ESTIMATORS.values())
    )


def _moments_known(estimator: Estimator) -> str:
    for classes in (CLASSES, 2):  # some are for two classes only
        f, logits = Quadratic.random(1, classes), torch.zeros(1, classes, dtype=torch.float64)
        try:
            Enumeration(f, logits).moments(estimator)
        except NotExactError:
            continue
        return "exact"
    return "draws"


def problem_table() -> list[tuple[str, str]]:
    """Return each problem's name, with its argument if it takes one, and its first sentence."""
    table = []
    for name, constructor in PROBLEMS.items():
        is_class = isinstance(constructor, type)
        cls = constructor if is_class else get_type_hints(constructor)["return"]
        keywords = [
            parameter.name.upper()
            for parameter in inspect.signature(constructor).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and not is_class
        ]
        sentence = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        table.append((":".join([name, *keywords[:1]]), " ".join(sentence.split())))
    return table


def comparison_text(rows: pd.DataFrame) -> str:
    """Return what the rows of `gradlab.compare` on one problem and one `regime` of logits say."""
    measured, refused = rows[rows["reason"].isna()], rows[rows["reason"].notna()]
    text = f"{rows['problem'].iloc[0]}, logits: {rows['regime'].iloc[0]}"
    if len(measured):
        text += f", |gradient|² = {_number(measured['truth2'].iloc[0])}\n"
        text += "One draw, units of f²; exact, or Monte Carlo ± one standard error.\n\n"
        text += aligned([_HEADER, *map(_cells, measured.to_dict("records"))])
    if len(refused):
        text += f"\n\nnot measured\n{_reasons(refused, measured)}"
    noted = measured[measured["note"].notna()] if "note" in measured else measured[:0]
    if len(noted):
        text += f"\n\nnotes\n{_reasons(noted.assign(reason=noted['note']), measured[:0])}"
    return text


_HEADER = ("estimator", "bias²", "variance", "mse", "cosine", "effective draws")


def _cells(row: Mapping[str, Any]) -> list[str]:
    bias2, variance = (_number(row[c], row[f"{c}_se"]) for c in ("bias2", "variance"))
    draws = "exact" if row["method"] == "exact" else f"{row['effective_draws']:.0f}"
    return [row["estimator"], bias2, variance, _number(row["mse"]), f"{row['cosine']:.4f}", draws]


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
        textwrap.fill(
            f"{', '.join(dict.fromkeys(who))}: {reason}",
            WIDTH,
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        for reason, who in names.items()
    )
