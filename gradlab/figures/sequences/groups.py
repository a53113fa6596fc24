"""Group size at equal tokens: the progress that a fixed budget of sampled tokens makes.

A budget of tokens is spent on few large groups or on many small ones, and their estimates are
averaged. Groups that dynamic sampling throws away are paid for. The sizes are those of one tabular
policy on three tokens; which estimators keep the direction is general.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures.sequences.plot_kit import Look, column, draw, entry, legend
from gradlab.plots.style import styled

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["finding", "plot", "rows"]

ESTIMATORS = {
    "RLOO": "RLOO(g={})",
    "GRPO": "GRPO(g={})",
    "GRPO, SUM": "GRPO(aggregation=SUM, g={})",
    "GRPO, TOK": "GRPO(aggregation=TOK, g={})",
    "GRPO, TOK, dynamic": "GRPO(aggregation=TOK, g={}, resample=true)",
    "MaxRL": "MaxRL(g={})",
}
"""What the lines are called, and the texts of the estimators."""

GROUPS = (2, 3, 4, 6, 8, 12, 16, 32)
BUDGETS = (256, 4096)
COLUMNS = ["problem", "policy", "group", "target", "estimator", "name", "seed", "method", "tokens"]
COLUMNS += ["kept", "budget", "estimates", "truth2", "bias2", "variance", "cosine", "progress"]


def rows(seed: int = 0, *, groups: Sequence[int] = GROUPS) -> pd.DataFrame:
    """Return exact rows of each estimator at each group size and budget.

    `tokens` are those of one estimate in expectation: of a group for each prompt, and of the groups
    that are drawn again. `kept` is the probability that a group is used, the least of the prompts.
    `progress` is that of the mean of `estimates` = budget / tokens.
    """
    from gradlab.comparison.ranking import progress_at
    from gradlab.sequences import Tabular, compare, tasks

    tables = []
    for policy, problem in (
        (Tabular(3, 3, seed=seed), [tasks.parity()]),
        (Tabular(3, 4, seed=seed), tasks.easy_and_hard()),
    ):
        for g in groups:
            texts = {name: text.format(g) for name, text in ESTIMATORS.items()}
            found = compare(list(texts.values()), policy, problem, method="exact")
            spent = pd.DataFrame([_spent(policy, problem, text) for text in texts.values()])
            found = found.assign(name=list(texts), tokens=spent["tokens"], kept=spent["kept"])
            for budget in BUDGETS:
                n = budget / found["tokens"]
                progress, _ = progress_at(found, n.to_numpy())
                tables.append(found.assign(budget=budget, estimates=n, progress=progress))
    return pd.concat(tables, ignore_index=True).assign(seed=seed)[COLUMNS]


def _spent(policy: Any, problem: Sequence[Any], text: str) -> dict[str, float]:
    """Return the expected tokens of one estimate, and how often a group is kept."""
    from dataclasses import replace

    from gradlab.sequences import exact_value, parse

    estimator, tokens, kept = parse(text), 0.0, 1.0
    for task in problem:
        length = exact_value(policy, replace(task, reward=_length, name="length"))
        chance = 1.0
        if estimator.resample:
            p = float(exact_value(policy, task))  # rewards are 0 or 1
            chance = 1 - p**estimator.g - (1 - p) ** estimator.g
        tokens += estimator.g * float(length) / chance
        kept = min(kept, chance)
    return {"tokens": tokens, "kept": kept}


def _length(tokens: "Tensor", lengths: "Tensor") -> "Tensor":
    """Return the number of tokens of each sequence."""
    return lengths.double()


LOOKS: dict[str, Look] = {
    "RLOO": {"color": "#000000", "marker": "s"},
    "GRPO": {"color": "#D55E00", "marker": "v"},
    "GRPO, SUM": {"color": "#E69F00", "marker": "^"},
    "GRPO, TOK": {"color": "#0072B2", "marker": "o"},
    "GRPO, TOK, dynamic": {"color": "#009E73", "marker": "X"},
    "MaxRL": {"color": "#CC79A7", "marker": "P"},
}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: progress against the group size at the smaller budget, on both tasks."""
    shown = rows[rows["budget"] == rows["budget"].min()]
    with styled():
        figure, axes = column(2.9, 2, sharey=True)
        for ax, (problem, part) in zip(axes, shown.groupby("problem", sort=False), strict=True):
            for name, look in LOOKS.items():
                draw(ax, part[part["name"] == name], "group", "progress", look)
            ax.set_xscale("log", base=2)
            ax.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
            ax.minorticks_off()
            ax.set_title(str(problem).replace("+", " and "), fontsize=8)
            ax.set_xlabel("group size G")
        axes[0].set_ylabel(f"progress of {shown['budget'].iloc[0]:,} tokens")
        figure.suptitle(finding(rows), fontsize=8)
        legend(figure, [entry(look, name) for name, look in LOOKS.items()], 3)
    return figure


def finding(rows: pd.DataFrame) -> str:
    """Return what the rows say, as the title of the picture.

    Args:
        rows: The rows.

    Returns:
        One or two lines.
    """
    shown = rows[rows["budget"] == rows["budget"].min()]
    by = shown.pivot(index="group", columns=["name", "problem"], values="progress")
    rises = pd.Series(np.diff(by, axis=0).min(0) > 0, index=by.columns).groupby("name").all()
    others = " and ".join(rises.index[~rises])
    but = f",\nexcept with {others}" if others else ""
    return f"At equal tokens, large groups get further{but}"
