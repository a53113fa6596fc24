"""Is it unbiased: every estimator on a ladder of losses, and planted errors caught by draws.

Above, each cell is the verdict over all sizes and regimes of logits: 0 is proved by enumeration, a
percentage is the bias relative to the gradient at moderate logits. Below, errors that stand in
published code: how many draws it took to call each biased, at a false-alarm rate of 10^-6.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from gradlab.plots.style import styled
from gradlab.plots.verdicts import draw_planted, draw_verdicts, verdict_key

if TYPE_CHECKING:
    from gradlab.verification import Ladder

__all__ = ["plot", "rows"]

ESTIMATORS = (
    "ST",
    "DARN",
    "ST-ZGR(alpha=0.5)",
    "ZGR",
    "GS(tau=0.5)",
    "GS-ST(tau=0.5)",
    "GR(tau=0.5, k=inf)",
    "GR(tau=0.1, k=inf)",
    "REINFORCE",
    "RF(m=2)",
    "ARSM",
)


def rows(
    seed: int = 0, *, estimators: Sequence[str] = ESTIMATORS, kinds: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one row for each estimator and loss, the least favourable verdict, and the planted.

    `table` distinguishes them: "ladder" or "planted".
    """
    from gradlab.verification.order import RUNGS, rungs, verify_order
    from gradlab.verification.planted_errors import planted_rows

    kinds = tuple(RUNGS) if kinds is None else kinds
    on = rungs(kinds, seed=seed)
    ladder = [_cells(verify_order(text, on=on, seed=seed), kinds) for text in estimators]
    tables = [pd.concat(ladder).assign(table="ladder"), planted_rows(seed).assign(table="planted")]
    return pd.concat(tables, ignore_index=True)


def _cells(ladder: "Ladder", kinds: Sequence[str]) -> pd.DataFrame:
    from gradlab.verification.order import RUNGS

    found = {"declared": ladder.order, "found": ladder.degree, "holds": ladder.holds}
    return pd.DataFrame(
        {"loss": kind, "degree": RUNGS[kind]} | ladder.worst(kind).row() | found
        for kind in kinds
        if any(rung.kind == kind for rung in ladder.rungs)
    )


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: the ladder above, the planted errors below."""
    with styled():
        planted = rows[rows["table"] == "planted"]
        # Room for a line of text for each planted error.
        lower = 0.9 + 0.17 * len(planted)
        figure = Figure(figsize=(8.4, 4.6 + lower))
        above, below = figure.subplots(2, 1, height_ratios=[3.9, lower])
        ladder = rows[rows["table"] == "ladder"]
        draw_verdicts(above, ladder)
        entries, place = verdict_key(ladder), {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        above.legend(handles=entries, ncols=len(entries), columnspacing=1.2, **place)
        draw_planted(below, planted)
    return figure
