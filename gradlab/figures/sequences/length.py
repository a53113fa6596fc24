"""The direction of the mean against the group size, for each aggregation of tokens.

The estimator is the centred reward. SUM and CONST have the direction of grad J at every group
size. SEQ divides by the length of each sequence and has a wrong direction at every group size. TOK
divides by all tokens of the group, and its direction tends to the right one. These statements are
general. The sizes are those of one tabular policy of 3 tokens and up to 3 steps.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures.sequences.plot_kit import Look, column, draw, entry, legend
from gradlab.plots.style import styled

__all__ = ["finding", "plot", "rows"]

AGGREGATIONS = ("SUM", "SEQ", "TOK", "CONST")
GROUPS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
COLUMNS = ["kind", "problem", "policy", "group", "target", "estimator", "aggregation", "loss"]
COLUMNS += ["seed", "method", "truth2", "bias2", "variance", "cosine"]
_COUNTED_ONCE = ("GSPO", "LUSPO", "GMPO")


def rows(seed: int = 0, *, groups: Sequence[int] = GROUPS) -> pd.DataFrame:
    """Return exact rows of each aggregation, and of each policy loss at one group size.

    Rows of kind "aggregation" are of the centred reward and of RLOO at each group size, on a task
    of binary rewards and on one of real rewards. Rows of kind "loss" are of RLOO with each policy
    loss, on policy, at the first group size: with SUM, and those that are counted once per
    sequence with SEQ.
    """
    from gradlab.sequences import Tabular, tasks
    from gradlab.sequences.sequence_losses import LOSSES

    policy = Tabular(3, 3, seed=seed)
    tables = []
    for task in (tasks.parity(), tasks.lengthy()):
        for g in groups:
            named = {f"centred(aggregation={a}, g={g})": (a, "score") for a in AGGREGATIONS}
            named |= {f"RLOO(g={g})": ("SUM", "score")}
            tables.append(_measured(named, policy, task, "aggregation"))
        g = groups[0]
        named = {f"RLOO(aggregation=SEQ, g={g})": ("SEQ", "score")}
        for loss in LOSSES:
            aggregation = "SEQ" if loss in _COUNTED_ONCE else "SUM"
            text = f"RLOO(aggregation={aggregation}, loss={loss}, g={g})"
            named[text] = (aggregation, loss)
        tables.append(_measured(named, policy, task, "loss"))
    return pd.concat(tables, ignore_index=True).assign(seed=seed)[COLUMNS]


def _measured(named: dict[str, tuple[str, str]], policy: Any, task: Any, kind: str) -> pd.DataFrame:
    from gradlab.sequences import compare

    found = compare(list(named), policy, task, method="exact")
    choices = pd.DataFrame(list(named.values()), columns=["aggregation", "loss"])
    return found.assign(kind=kind, aggregation=choices["aggregation"], loss=choices["loss"])


LOOKS: dict[str, Look] = {
    "SUM": {"color": "#000000", "marker": "s"},
    "CONST": {"color": "#56B4E9", "marker": "", "ls": "--"},
    "TOK": {"color": "#0072B2", "marker": "o"},
    "SEQ": {"color": "#D55E00", "marker": "v"},
}
_WORDS = {"parity": "rewards 0 and 1", "length-skewed": "real rewards"}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: the cosine against the group size, on both tasks."""
    shown = rows[(rows["kind"] == "aggregation") & ~rows["estimator"].str.startswith("RLOO")]
    with styled():
        figure, axes = column(2.7, 2, sharey=True)
        for ax, (problem, part) in zip(axes, shown.groupby("problem", sort=False), strict=True):
            for name, look in LOOKS.items():
                draw(ax, part[part["aggregation"] == name], "group", "cosine", look)
            ax.set_xscale("log", base=2)
            ax.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
            ax.minorticks_off()
            ax.set_title(f"{problem}:\n{_WORDS.get(str(problem), '')}", fontsize=8)
            ax.set_xlabel("group size G")
        axes[0].set_ylabel("cosine of mean and ∇J, exact")
        figure.suptitle(finding(shown), fontsize=8)
        legend(figure, [entry(look, name) for name, look in LOOKS.items()], 4)
    return figure


def finding(rows: pd.DataFrame) -> str:
    """Return what the rows of kind "aggregation" say, as the title of the picture.

    Args:
        rows: The rows.

    Returns:
        Two lines.
    """
    by = rows.groupby(["aggregation", "problem"])["cosine"]
    still = (by.max() - by.min())["SEQ"].max() < 1e-9 and by.max()["SEQ"].max() < 0.999
    part = rows[rows["aggregation"] == "TOK"].sort_values("group")
    last = part.groupby("problem")["cosine"].last()
    rises = part.groupby("problem")["cosine"].apply(lambda c: c.is_monotonic_increasing).all()
    seq = "SEQ is wrong at every G" if still else "SEQ changes with G"
    tok = "tends to right" if rises and (last > 0.9999).all() else "does not tend to right"
    return f"{seq},\nTOK {tok}"
