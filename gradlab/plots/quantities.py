"""What pictures for papers show of rows: quantities by short names, and what rows must have."""

from collections.abc import Iterable, Sequence

import pandas as pd

from gradlab.plots.curves import roots

__all__ = [
    "QUANTITIES",
    "check",
    "label_of",
    "named",
    "one_problem",
    "quantity",
    "share_leads",
]

QUANTITIES = {
    "bias": ("bias2", "bias"),
    "sd": ("variance", "standard deviation"),
    "rmse": ("mse", "RMSE"),
    "cosine": ("cosine", "cosine of mean and g"),
    "progress": ("progress", "progress"),
}
"""What can be shown: by its name, the column of rows and the label."""


def named(show: str | Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """Return the names of the quantities that are to be shown.

    Args:
        show: What the caller asks for, one or several, or None.
        default: What is shown where nothing is asked for.

    Returns:
        Names of `QUANTITIES`.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> named("bias", ["sd"]), named(None, ["sd"])
        (['bias'], ['sd'])
    """
    shown = [show] if isinstance(show, str) else [*(show or default)]
    for name in shown:
        if name not in QUANTITIES:
            raise ValueError(f"show must be of {', '.join(QUANTITIES)}, not {name!r}")
    return shown


def check(rows: pd.DataFrame, columns: Iterable[str], needs: str) -> None:
    """Refuse rows that a picture cannot be drawn from.

    Args:
        rows: Rows of a verb.
        columns: The columns that must be there.
        needs: The picture, and of what it draws rows, such as "temperature draws rows of compare".

    Raises:
        ValueError: If a column is missing, or there are no rows.

    Example:
        >>> check(pd.DataFrame({"tau": [1.0]}), ["tau", "bias2"], "it draws rows of compare")
        Traceback (most recent call last):
        ...
        ValueError: rows have no column 'bias2': it draws rows of compare
    """
    missing = [repr(name) for name in columns if name not in rows]
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        raise ValueError(f"rows have no {word} {', '.join(missing)}: {needs}")
    if not len(rows):
        raise ValueError(f"rows must not be empty: {needs}")


def one_problem(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the measured rows of the one problem that a panel shows.

    Args:
        rows: Rows of a verb.

    Returns:
        The rows that hold numbers; `truth2` is 1 where the true gradient is 0.

    Raises:
        ValueError: If the rows are of several problems, logits, steps, policies or targets.

    Example:
        >>> rows = pd.DataFrame({"problem": ["f", "g"], "truth2": 1.0})
        >>> one_problem(rows)
        Traceback (most recent call last):
        ...
        ValueError: rows must be of one problem, not 2: take one, as rows[rows["problem"] == 'f']
    """
    for column in _OF_ONE:
        if column in rows and rows[column].nunique(dropna=False) > 1:
            values = rows[column].unique()
            raise ValueError(
                f"rows must be of one {column}, not {len(values)}: take one, as "
                f'rows[rows["{column}"] == {values[0]!r}]'
            )
    measured = rows[rows["reason"].isna()] if "reason" in rows else rows
    return measured.assign(truth2=measured["truth2"].where(measured["truth2"] > 0, 1.0))


# What all rows of one panel must share.
_OF_ONE = (
    *("problem", "batch", "N", "C", "regime", "logits_seed", "trained", "step"),
    *("policy", "rollout", "target"),
)


def quantity(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the values of a quantity, for each row, with their standard errors.

    Args:
        rows: Rows of a verb.
        name: One of `QUANTITIES`.

    Returns:
        One row per row: `value`, `se`, and `resolved`, whether a square is told from zero.

    Example:
        >>> rows = pd.DataFrame({"bias2": [4.0], "bias2_se": 0.0, "truth2": 1.0})
        >>> quantity(rows, "bias")["value"].tolist()
        [2.0]
    """
    column = QUANTITIES[name][0]
    if name in ("cosine", "progress"):
        error = rows.get(f"{column}_se", 0.0)
        return pd.DataFrame({"value": rows[column], "se": error, "resolved": True})
    return roots(rows, column)


def label_of(rows: pd.DataFrame, name: str, unit: str = " / |g|") -> str:
    """Return the label of an axis of a quantity.

    Args:
        rows: The rows that are drawn.
        name: One of `QUANTITIES`.
        unit: The unit of bias, standard deviation and RMSE.

    Returns:
        The label; that of progress says of how many estimates' mean it is.

    Example:
        >>> label_of(pd.DataFrame({"averaged": [10.0]}), "progress")
        'progress, mean of 10'
    """
    text = QUANTITIES[name][1]
    if name in ("bias", "sd", "rmse"):
        return text + unit
    if name == "progress" and "averaged" in rows and rows["averaged"].nunique() == 1:
        return f"{text}, mean of {rows['averaged'].dropna().iloc[0]:g}"
    return text


def share_leads(shares: pd.DataFrame, line: str) -> "pd.Series[float]":
    """Return by how much a family dominates each rival more than the rival dominates it.

    Args:
        shares: Rows with `series`, `dominated_by`, `share` and the case: `scale`, `problem`, `N`,
            `C`, `regime` and `logits_seed`.
        line: The family, such as "ST-ZGR".

    Returns:
        For each rival and case the share of the rival that `line` dominates, less its own share
        that the rival dominates, in points from -100 to 100. Shares that do not exist are left out.

    Example:
        >>> case = {"scale": "raw", "problem": "mlp", "N": 4, "C": 4, "regime": "moderate"}
        >>> rows = pd.DataFrame([case | {"logits_seed": 0, "series": "GR", "share": 0.75}] * 2)
        >>> rows["dominated_by"] = ["ST-ZGR", "GR"]
        >>> rows.loc[1, ["series", "share"]] = ["ST-ZGR", 0.25]
        >>> share_leads(rows, "ST-ZGR").tolist()
        [50.0]
    """
    case = ["scale", "problem", "N", "C", "regime", "logits_seed"]
    of_rival = shares[shares["dominated_by"] == line].rename(columns={"series": "rival"})
    of_line = shares[shares["series"] == line].rename(columns={"dominated_by": "rival"})
    two = [part.set_index(["rival", *case])["share"].astype(float) for part in (of_rival, of_line)]
    return 100 * (two[0] - two[1]).dropna()
