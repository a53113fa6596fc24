"""How the success probability p of a prompt scales its gradient: the factor c(p) of each advantage.

Rewards are 0 or 1. The mean of an estimate with SUM is then c(p) grad p for every model: curves are
closed forms, points are enumerated policies. GRPO at G = 2 has a constant factor.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures.sequences.plot_kit import Look, column, entry, legend
from gradlab.plots.axes import logarithmic
from gradlab.plots.style import styled

if TYPE_CHECKING:
    from gradlab.sequences import PolicyGradient

__all__ = ["finding", "plot", "rows"]

ESTIMATORS = {
    "GRPO, G = 2": "GRPO(aggregation=SUM, g=2)",
    "GRPO, G = 4": "GRPO(aggregation=SUM, g=4)",
    "GRPO, G = 8": "GRPO(aggregation=SUM, g=8)",
    "GRPO, G = 64": "GRPO(aggregation=SUM, g=64)",
    "RLOO": "RLOO(g=8)",
    "MaxRL, G = 8": "MaxRL(g=8)",
    "dynamic, G = 8": "RLOO(g=8, resample=true)",
}
"""What the curves are called, and of which estimators they are."""

LIMIT = "GRPO, G → ∞"
OBJECTIVES = [
    ("PKPO(k=2, g=4)", "pass@2", 1.0),
    ("PKPO(k=4, g=8)", "pass@4", 1.0),
    ("max-second(g=2)", "max@2", 1 / 2),
    ("max-second(g=4)", "max@4", 1 / 4),
]
"""Estimators of objectives of several samples, the objective, and the factor of its gradient."""

POINTS = 41
COLUMNS = ["kind", "problem", "policy", "policy_seed", "estimator", "name", "target", "group", "p"]
COLUMNS += ["factor", "claimed", "seed", "truth2", "bias2"]


def rows(seed: int = 0, *, points: int = POINTS, policies: int = 6) -> pd.DataFrame:
    """Return factors as closed forms, those of enumerated policies, and objectives that are met.

    Rows of kind "closed" have the factor at p. Those of kind "enumerated" are of tabular policies:
    `factor` is the slope of the enumerated mean on grad p, and `bias2` the squared distance of the
    mean from the closed factor (`claimed`) times grad p. Those of kind "objective" compare a mean
    with `claimed` times the gradient of a target.
    """
    from gradlab.sequences import Tabular, parse, success_factor, tasks

    logit = np.linspace(-1, 1, points) * np.log(0.998 / 0.002)
    found: list[dict[str, Any]] = []
    for name, text in ESTIMATORS.items():
        estimator = parse(text)
        about = {"kind": "closed", "estimator": text, "name": name, "group": estimator.g}
        for p in 1 / (1 + np.exp(-logit)):
            found.append(about | {"p": p, "factor": success_factor(estimator, float(p))})
    for p in 1 / (1 + np.exp(-logit)):
        about = {"kind": "closed", "name": LIMIT, "estimator": "GRPO", "group": np.inf}
        found.append(about | {"p": p, "factor": 1 / np.sqrt(p * (1 - p))})
    for number in range(policies * seed, policies * (seed + 1)):
        policy = Tabular(3, 3, scale=2.0, seed=number)
        for task in (tasks.parity(), tasks.copy()):
            found += _enumerated(policy, task, [*ESTIMATORS.items()], number)
    policy = Tabular(3, 3, seed=seed)
    found += [_objective(policy, text, target, factor) for text, target, factor in OBJECTIVES]
    return pd.DataFrame(found).reindex(columns=COLUMNS).assign(seed=seed)


def _enumerated(
    policy: Any, task: Any, estimators: Sequence[tuple[str, str]], number: int
) -> list[dict[str, Any]]:
    from gradlab.sequences import exact_gradient, exact_moments, exact_value, parse, success_factor

    p, gradient = float(exact_value(policy, task)), exact_gradient(policy, task)
    found = []
    for name, text in estimators:
        estimator: PolicyGradient = parse(text)
        claimed = success_factor(estimator, p)
        mean = exact_moments(estimator, policy, task).mean
        square = float(gradient @ gradient)
        found.append(
            {
                "kind": "enumerated",
                "problem": task.name,
                "policy": "Tabular",
                "policy_seed": number,
                "estimator": text,
                "name": name,
                "target": "J",
                "group": estimator.g,
                "p": p,
                "factor": float(mean @ gradient) / square,
                "claimed": claimed,
                "truth2": square,
                "bias2": float((mean - claimed * gradient).square().sum()),
            }
        )
    return found


def _objective(policy: Any, text: str, target: str, factor: float) -> dict[str, Any]:
    from gradlab.sequences import exact_gradient, exact_moments, parse, tasks

    task = tasks.parity() if target.startswith("pass") else tasks.lengthy()
    gradient = exact_gradient(policy, task, target)
    mean = exact_moments(text, policy, task).mean
    square = float(gradient @ gradient)
    return {
        "kind": "objective",
        "problem": task.name,
        "policy": "Tabular",
        "estimator": text,
        "target": target,
        "group": parse(text).g,
        "factor": float(mean @ gradient) / square,
        "claimed": factor,
        "truth2": square,
        "bias2": float((mean - factor * gradient).square().sum()),
    }


LOOKS: dict[str, Look] = {
    "GRPO, G = 2": {"color": "#8C2D04", "ls": "-", "marker": "o"},
    "GRPO, G = 4": {"color": "#D94801", "ls": "-", "marker": "^"},
    "GRPO, G = 8": {"color": "#F16913", "ls": "-", "marker": "D"},
    "GRPO, G = 64": {"color": "#FDAE6B", "ls": "-", "marker": "v"},
    LIMIT: {"color": "0.45", "ls": ":", "marker": ""},
    "RLOO": {"color": "#000000", "ls": "--", "marker": "s"},
    "MaxRL, G = 8": {"color": "#0072B2", "ls": "-", "marker": "P"},
    "dynamic, G = 8": {"color": "#009E73", "ls": "-", "marker": "X"},
}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: closed forms as curves, enumerated policies as points."""
    closed, points = (rows[rows["kind"] == kind] for kind in ("closed", "enumerated"))
    with styled():
        figure, (ax,) = column(3.5, 1)
        for name, look in LOOKS.items():
            line = look | {"marker": ""}
            part = closed[closed["name"] == name].sort_values("p")
            ax.plot(part["p"], part["factor"], **line)
            dots = points[points["name"] == name]
            ax.plot(dots["p"], dots["factor"], **(look | {"ls": "", "ms": 3, "mew": 0}))
        ax.set_xscale("logit")
        at = [0.002, 0.01, 0.1, 0.5, 0.9, 0.99, 0.998]
        ax.set_xticks(at, [f"{p:g}" for p in at])
        ax.minorticks_off()
        ax.set_xlim(0.0015, 0.9985)
        logarithmic(ax, "y", (0.5, 80))
        ax.set_xlabel("probability of success p (logit scale)")
        ax.set_ylabel("factor c(p): mean = c(p) ∇p")
        figure.suptitle(finding(rows), fontsize=8)
        legend(figure, [entry(look | {"ms": 3}, name) for name, look in LOOKS.items()], 3)
    return figure


def finding(rows: pd.DataFrame) -> str:
    """Return what the rows say, as the title of the picture.

    Args:
        rows: The rows.

    Returns:
        One line.
    """
    closed = rows[rows["kind"] == "closed"]
    factor = closed.groupby("name")["factor"]
    spread = factor.max() / factor.min()
    two = spread["GRPO, G = 2"] - 1 < 1e-9
    many = closed[closed["name"] == "GRPO, G = 64"].sort_values("p")["factor"]
    share = many.iloc[0] / many.iloc[len(many) // 2]
    first = "2-GRPO has no difficulty bias" if two else "2-GRPO has a difficulty bias"
    return f"{first};\nat G = 64, p = 0.002 counts {share:.1f} times p = 0.5"
