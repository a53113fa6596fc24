"""The ladder of KL gradients: bias and variance of each form of the penalty, on and off policy.

The target is the gradient of KL(policy || reference) of the whole sequence. There is no reward, so
that the estimate is the penalty's alone. Which forms have no bias is general. The sizes are those
of one tabular policy of 3 tokens and up to 3 steps.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures.sequences.plot_kit import (
    ROUNDING,
    Look,
    column,
    entry,
    legend,
    relative_bias,
    relative_variance,
)
from gradlab.plots.axes import logarithmic
from gradlab.plots.style import styled

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["finding", "plot", "rows"]

FORMS = {
    "full": "full(beta=1)",
    "k1 prefix": "k1-prefix(beta=1)",
    "k1 in reward, to go": "k1(beta=1, place=reward)",
    "k1 in reward": "k1(beta=1, place=reward, per=sequence)",
    "k2 of sequence": "k2(beta=1, per=sequence)",
    "k2 per token": "k2(beta=1)",
    "ratio · k3": "k3-ratio(beta=1)",
    "ratio · k1": "k1-ratio(beta=1)",
    "k3 per token": "k3(beta=1)",
    "k3 in reward": "k3(beta=1, place=reward, per=sequence)",
    "k1 in loss": "k1(beta=1)",
}
"""What the forms are called, and their texts."""

DRIFT = 0.5
COLUMNS = ["problem", "policy", "sampled", "form", "kl", "target", "estimator", "seed", "method"]
COLUMNS += ["truth2", "bias2", "variance", "cosine"]


def rows(seed: int = 0, *, forms: dict[str, str] = FORMS) -> pd.DataFrame:
    """Return exact rows of each form, for sequences of the policy and of a rollout policy.

    Off policy the estimate is weighted by the sequence ratio where it is a reward, and each form
    by the ratio that it has itself.
    """
    import torch

    from gradlab.sequences import Tabular, Task, compare

    policy, rollout, noise = (Tabular(3, 3, seed=s) for s in (seed, seed, seed + 1))
    reference = Tabular(3, 3, seed=seed + 2)
    with torch.no_grad():
        rollout.table.copy_(policy.table + DRIFT * noise.table)
    task = Task(_nothing, 3, 3, end=2, name="no reward")
    tables = []
    for sampled, mu in (("on policy", None), ("off policy", rollout)):
        loss = "" if mu is None else "loss=score(ratio=sequence), "
        found = compare(
            [f"PG(advantage=raw, {loss}kl={kl}, g=1)" for kl in forms.values()],
            policy,
            task,
            "J-KL(beta=1)",
            rollout=mu,
            reference=reference,
            method="exact",
        )
        tables.append(found.assign(sampled=sampled, form=list(forms), kl=list(forms.values())))
    return pd.concat(tables, ignore_index=True).assign(seed=seed)[COLUMNS]


def _nothing(tokens: "Tensor", lengths: "Tensor") -> "Tensor":
    """Return the reward 0 of each sequence."""
    return lengths.double() * 0


LOOKS: dict[str, Look] = {
    "on policy": {"color": "#0072B2", "marker": "o", "ls": ""},
    "off policy": {"color": "#D55E00", "marker": "D", "ls": "", "mfc": "white"},
}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: relative bias and variance of each form, one line per form."""
    forms = list(rows["form"].unique())
    with styled():
        figure, (left, right) = column(3.4, 2, sharey=True)
        for place, (sampled, look) in enumerate(LOOKS.items()):
            part = rows[rows["sampled"] == sampled].set_index("form").loc[forms]
            y = np.arange(len(forms)) + 0.24 * (place - 0.5)
            marks: dict[str, Any] = look | {"ms": 4, "zorder": 3}
            left.plot(relative_bias(part), y, clip_on=False, **marks)
            right.plot(relative_variance(part), y, **marks)
        left.set_yticks(range(len(forms)), forms)
        left.set_ylim(len(forms) - 0.5, -0.5)
        left.set_xlim(0, 1.1)
        left.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        left.set_xlabel("bias / |∇KL|")
        logarithmic(right, "x")
        right.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        right.set_xlabel("variance / |∇KL|²")
        figure.suptitle(finding(rows), fontsize=8)
        legend(figure, [entry(look, name) for name, look in LOOKS.items()], 2)
    return figure


def finding(rows: pd.DataFrame) -> str:
    """Return what the rows say, as the title of the picture.

    Args:
        rows: The rows.

    Returns:
        Two lines.
    """
    exact = rows[relative_bias(rows) < ROUNDING]
    count = exact.groupby("sampled")["form"].nunique()
    best = set(exact.loc[exact.groupby("sampled")["variance"].idxmin(), "form"])
    on, off = count.get("on policy", 0), count.get("off policy", 0)
    least = f"“{best.pop()}” has the least variance" if len(best) == 1 else "none is best twice"
    return f"{on} forms are exact on policy, {off} off policy;\nof these {least}"
