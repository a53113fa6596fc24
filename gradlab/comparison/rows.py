"""The schema of a row: what each column is called, holds and means, in one table.

Column lists, the SQL types of a sweep, the documentation and the JSON Schema derive from it.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = [
    "AVERAGED",
    "BOUNDED",
    "COLUMNS",
    "COMPARED",
    "METHODS",
    "OF_POLICIES",
    "PROBED",
    "ROWS",
    "RANKED",
    "RUNS",
    "SCHEMA_VERSION",
    "SWEPT",
    "Column",
    "as_table",
    "row_schema",
    "schema_table",
]

SCHEMA_VERSION = 3
"""Counts up when a column is added, removed, or gets another meaning."""

AVERAGED = 10.0
"""Gradients whose mean `progress` is of, by default: the number that predicts training best."""

METHODS = ("auto", "exact", "monte-carlo")
"""How moments may be asked for: exact where known, exact only, or from draws only."""

TEXT, WHOLE, REAL, FLAG = "text", "whole number", "number", "yes or no"


@dataclass(frozen=True)
class Column:
    """One column of a row.

    Attributes:
        name: as in tables, CSV files and stores.
        type: "text", "whole number", "number" or "yes or no"; every column may also be empty.
        unit: of numbers, such as "f²", the squared unit of f; "" where there is none.
        meaning: one sentence without a full stop.
    """

    name: str
    type: str
    unit: str
    meaning: str


def _measured(name: str, unit: str, meaning: str) -> list[Column]:
    """Return a measured column and that of its standard error."""
    error = f"standard error of {name}; 0 where exact"
    return [Column(name, REAL, unit, meaning), Column(f"{name}_se", REAL, unit, error)]


_ALL = [
    # What was measured.
    Column("cell", TEXT, "", "id of the cell of a sweep, from which its seed derives"),
    Column("step", WHOLE, "", "step of the training at which a probe measured"),
    Column("problem", TEXT, "", "name of the loss f"),
    Column("batch", WHOLE, "", "elements B of logits [B, N, C]; empty for logits [N, C]"),
    Column("N", WHOLE, "", "variables"),
    Column("C", WHOLE, "", "classes of each variable"),
    Column("K", WHOLE, "", "samples in the bound log (1/K) sum of w"),
    Column("bound", REAL, "nats", "exact value of the bound; empty where it is not enumerated"),
    Column("regime", TEXT, "", "kind of logits"),
    Column("logits_seed", WHOLE, "", "seed of the problem and its logits"),
    Column("estimator", TEXT, "", "text of the estimator with its arguments"),
    Column("series", TEXT, "", "the same without its temperature"),
    Column("tau", REAL, "", "temperature; empty where the estimator has none"),
    # Of policies over sequences.
    Column("policy", TEXT, "", "name of the policy over sequences"),
    Column("rollout", TEXT, "", "name of the policy that samples; empty where it is the policy"),
    Column("group", WHOLE, "", "sequences G of one group"),
    Column("target", TEXT, "", "objective whose gradient the truth is"),
    # What it costs.
    Column("calls", WHOLE, "", "evaluations of f that one draw makes"),
    Column(
        "cost",
        REAL,
        "evaluations of f",
        "what one draw counts as, where f with its gradient counts as gradient_cost (by default 3)",
    ),
    # How.
    Column("seed", WHOLE, "", "seed of the draws"),
    Column("method", TEXT, "", 'how it was measured: "exact" or "monte carlo"'),
    Column("draws", WHOLE, "", "draws behind the numbers; empty where exact"),
    Column("reason", TEXT, "", "why nothing could be measured; empty where it was"),
    Column("note", TEXT, "", "why draws stand for exact moments, and what they may have missed"),
    Column(
        "draws_needed",
        REAL,
        "",
        "draws that would meet what carries the variance 15 times; empty where there were enough",
    ),
    # The truth, and the estimator against it.
    Column("truth", TEXT, "", 'how the true gradient g is known: "enumeration", or draws of what'),
    *_measured("truth2", "f²", "squared length |g|² of the true gradient"),
    *_measured("bias2", "f²", "squared bias |E ĝ - g|², the unbiased estimate: may be negative"),
    *_measured("variance", "f²", "variance of one draw: the trace of its covariance"),
    *_measured("mse", "f²", "mean squared error of one draw, bias2 + variance"),
    *_measured("cosine", "", "cosine of the angle between E ĝ and g"),
    *_measured("scale_free_bias2", "f²", "bias2 of draws rescaled so that |E ĝ| = |g|"),
    *_measured("scale_free_variance", "f²", "variance of draws rescaled so that |E ĝ| = |g|"),
    Column(
        "averaged",
        REAL,
        "draws",
        "estimates whose mean progress is of; in a ranking each is the mean of draws_each draws",
    ),
    *_measured(
        "progress",
        "",
        "progress of a step along the mean of averaged estimates, relative to a step along g",
    ),
    Column(
        "effective_draws", REAL, "", "how many of the draws carry the variance; inf where exact"
    ),
    *(
        Column(f"relative_{name}", REAL, "|g|", f"{what}, negative where its square came out so")
        for name, what in {
            "bias": "bias |E ĝ - g|",
            "sd": "standard deviation of one draw",
            "rmse": "root mean squared error of one draw",
        }.items()
    ),
    Column("seconds", REAL, "s", "time that it took; not in files that must repeat to the bit"),
    # A ranking.
    Column("evaluations", WHOLE, "evaluations of f", "budget of one gradient"),
    Column(
        "rank", WHOLE, "", "place; estimators that cannot be distinguished from the first share 1"
    ),
    Column("tau_low", REAL, "", "lowest temperature that cannot be distinguished from the best"),
    Column("tau_high", REAL, "", "highest temperature that cannot be distinguished from the best"),
    Column(
        "at_edge",
        FLAG,
        "",
        "whether the best temperature is the first or last of several that were measured",
    ),
    Column("draws_each", WHOLE, "", "draws whose mean is one gradient: as many as its budget pays"),
    Column(
        "unit", TEXT, "", 'unit of rmse, and of the roots of bias2, variance: "|g|" or "units of f"'
    ),
    *_measured("rmse", "unit", "root mean squared error of one gradient"),
    # What made the row.
    Column("version", TEXT, "", "version of gradlab"),
    Column("dtype", TEXT, "", "floating type in which f was evaluated"),
    Column("error", TEXT, "", "what went wrong with a cell of a sweep; empty where nothing did"),
]

COLUMNS = {column.name: column for column in _ALL}
"""Every column, by its name."""

_ABOUT = ("estimator", "series", "tau", "calls", "cost", "seed", "method", "draws", "reason")
_FOUND = tuple(
    name
    for name in list(COLUMNS)[list(COLUMNS).index("note") : list(COLUMNS).index("seconds")]
    if not name.startswith("relative_")
)

COMPARED = ["problem", "batch", "N", "C", "logits_seed", *_ABOUT, *_FOUND]
COMPARED += ["seconds", "version", "dtype"]
"""Columns of `gradlab.compare`."""

BOUNDED = [name for name in COMPARED if name != "batch"]
BOUNDED[BOUNDED.index("logits_seed") : BOUNDED.index("logits_seed")] = ["K", "bound"]
"""Columns of `gradlab.bounds.compare`."""

SWEPT = ["cell", *(name for name in COMPARED if name != "batch"), "error"]
SWEPT.insert(SWEPT.index("logits_seed"), "regime")
"""Columns of a sweep."""

PROBED = ["step", "batch", "N", "C", *_ABOUT, *_FOUND]
PROBED += ["relative_bias", "relative_sd", "relative_rmse", "seconds", "version", "dtype"]
"""Columns of `gradlab.GradientProbe`."""

RANKED = [
    *("problem", "evaluations", "averaged", "rank", "series", "estimator", "tau", "tau_low"),
    *("tau_high", "at_edge", "cost", "draws_each", "progress", "progress_se", "cosine"),
    *("cosine_se", "unit", "rmse", "rmse_se", "bias2", "bias2_se", "variance", "variance_se"),
    *("method", "draws"),
]
"""Columns of a ranking; its bias2 and variance are those of the mean, in the squared `unit`."""

OF_POLICIES = ["problem", "policy", "rollout", "group", "target", "estimator", "series"]
OF_POLICIES += ["cost", "seed", "method", "draws", "reason", *_FOUND, "seconds", "version"]
"""Columns of `gradlab.sequences.compare`."""

ROWS = {
    "compare": COMPARED,
    "sweep": SWEPT,
    "probe": PROBED,
    "recommend": RANKED,
    "policy": OF_POLICIES,
    "bounds": BOUNDED,
}
"""Columns by the verb that makes the rows."""


RUNS = ("trained", "seed", "lr")
"""Columns that tell the runs of a probed training apart; rows of before 0.5 have no `lr`."""


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table with these columns, of types that do not depend on what is empty."""
    table = pd.DataFrame(rows).reindex(columns=list(columns))
    return table.astype({name: _held_as(COLUMNS[name].type, table[name]) for name in columns})


def _held_as(kind: str, values: "pd.Series[Any]") -> Any:
    """Return the dtype of a column: a whole number that is empty somewhere is held as a float."""
    if kind == WHOLE:
        return "float64" if values.isna().any() else "int64"
    if kind == REAL:
        return "float64"
    return "object" if values.isna().all() else values.dtype


_JSON = {TEXT: "string", WHOLE: "integer", REAL: "number", FLAG: "boolean"}


def row_schema(verb: str = "compare") -> dict[str, Any]:
    """Return the JSON Schema of a row.

    An empty value is null. JSON has no infinity and no NaN: these are null too.

    Args:
        verb: what makes the rows: "compare", "sweep", "probe", "recommend", "policy" or "bounds".

    Returns:
        A schema after JSON Schema 2020-12, with the number of its version in `version`.

    Raises:
        ValueError: if no verb has this name.

    Example:
        >>> schema = row_schema("compare")
        >>> schema["properties"]["bias2"]["type"]
        ['number', 'null']
    """
    if verb not in ROWS:
        raise ValueError(f"verb must be one of {', '.join(ROWS)}, not {verb!r}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of gradlab {verb}",
        "version": SCHEMA_VERSION,
        "type": "object",
        "required": ROWS[verb],
        "properties": {
            name: {
                "type": [_JSON[COLUMNS[name].type], "null"],
                "description": COLUMNS[name].meaning,
            }
            | ({"unit": COLUMNS[name].unit} if COLUMNS[name].unit else {})
            for name in ROWS[verb]
        },
    }


def schema_table() -> str:
    """Return the table of columns that docs/rows.md shows, in Markdown, one row per column.

    Returns:
        A table; it ends with a line break.

    Example:
        >>> print(schema_table().splitlines()[3])
        | step | whole number |  | step of the training at which a probe measured | probe |
    """
    lines = ["| column | type | unit | meaning | rows of |", "|---|---|---|---|---|"]
    for column in _ALL:
        verbs = ", ".join(verb for verb, names in ROWS.items() if column.name in names)
        meaning = column.meaning.replace("|", "\\|")
        unit = column.unit.replace("|", "\\|")
        lines.append(f"| {column.name} | {column.type} | {unit} | {meaning} | {verbs} |")
    return "\n".join(lines) + "\n"


def _write(docs: Path) -> None:
    """Write the published forms of the schema into the folder of the documentation."""
    page = docs / "rows.md"
    text = page.read_text(encoding="utf-8")
    table = re.compile(r"\| column \|.*\n(\|.*\n)*")
    text = table.sub(lambda _: schema_table(), text)
    text = re.sub(r"Version \d+", f"Version {SCHEMA_VERSION}", text)
    page.write_text(text, encoding="utf-8")
    (docs / "schema").mkdir(exist_ok=True)
    for verb in ROWS:
        file = docs / "schema" / f"{verb}.json"
        file.write_text(json.dumps(row_schema(verb), indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
