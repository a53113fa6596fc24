"""Bias and variance as the rollout policy drifts from the policy, for each importance ratio.

The target is grad J. The sequence ratio has no bias at any drift, and its variance grows with the
horizon. Token and prefix ratios are biased, whatever the drift. These statements are general. The
sizes are those of one bigram policy of 3 tokens, on the parity task.
"""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.figures.sequences.plot_kit import (
    ROUNDING,
    Look,
    column,
    draw,
    entry,
    legend,
    relative_bias,
    relative_variance,
)
from gradlab.plots.axes import logarithmic
from gradlab.plots.panels import WIDTHS
from gradlab.plots.style import styled

__all__ = ["VIEWS", "finding", "plot", "plot_all", "rows"]

HORIZONS = (2, 4, 6, 8, 10, 12)
DRIFTS = (0.0, 0.125, 0.25, 0.5, 1.0)
GROUP = 4
ESTIMATORS = {
    "none": "RLOO(g=4)",
    "token": "RLOO(loss=score(ratio=token), g=4)",
    "prefix": "RLOO(loss=score(ratio=prefix), g=4)",
    "sequence": "RLOO(loss=score(ratio=sequence), g=4)",
    "token ≤ 2": "RLOO(loss=score(ratio=token, high=2), g=4)",
    "sequence ≤ 2": "RLOO(loss=score(ratio=sequence, high=2), g=4)",
    "PPO clip": "RLOO(loss=PPO, g=4)",
    "GSPO": "RLOO(aggregation=SEQ, loss=GSPO, g=4)",
}
"""What the lines are called, and of which estimators they are."""

COLUMNS = ["problem", "policy", "horizon", "drift", "divergence", "group", "target", "estimator"]
COLUMNS += ["ratio", "seed", "method", "truth2", "bias2", "variance", "cosine"]


def rows(
    seed: int = 0,
    *,
    horizons: Sequence[int] = HORIZONS,
    drifts: Sequence[float] = DRIFTS,
) -> pd.DataFrame:
    """Return exact rows at each horizon and drift.

    The logits of the rollout policy are those of the policy plus `drift` times standard normal
    numbers, the same ones at each drift. `divergence` is KL(policy || rollout) of the sequence.
    """
    import torch

    from gradlab.sequences import NGram, compare, exact_value, tasks

    policy, rollout, noise = (NGram(3, order=2, seed=s) for s in (seed, seed, seed + 1))
    tables = []
    for horizon in horizons:
        task = tasks.parity(horizon=horizon)
        for drift in drifts:
            with torch.no_grad():
                rollout.table.copy_(policy.table + drift * noise.table)
            found = compare(
                list(ESTIMATORS.values()), policy, task, rollout=rollout, method="exact"
            )
            value = exact_value(policy, task)
            penalized = exact_value(policy, task, "J-KL(beta=1)", reference=rollout)
            about = {"horizon": horizon, "drift": drift, "divergence": float(value - penalized)}
            tables.append(found.assign(ratio=list(ESTIMATORS), **about))
    return pd.concat(tables, ignore_index=True).assign(seed=seed)[COLUMNS]


LOOKS: dict[str, Look] = {
    "none": {"color": "#000000", "marker": "s"},
    "token": {"color": "#D55E00", "marker": "^"},
    "prefix": {"color": "#E69F00", "marker": "v"},
    "sequence": {"color": "#0072B2", "marker": "o"},
    "token ≤ 2": {"color": "#D55E00", "marker": "^", "ls": "--", "mfc": "white"},
    "sequence ≤ 2": {"color": "#0072B2", "marker": "o", "ls": "--", "mfc": "white"},
    "PPO clip": {"color": "#009E73", "marker": "X"},
    "GSPO": {"color": "#CC79A7", "marker": "D"},
}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: bias² and variance, at the shortest and at the longest horizon."""
    horizons = sorted(rows["horizon"].unique())
    with styled():
        ends = [horizons[0], horizons[-1]] if len(horizons) > 1 else horizons
        figure, axes = column(4.1, len(ends), 2, sharex=True, sharey="row")
        _draw_panels(axes, rows, ends)
        figure.suptitle(finding(rows), fontsize=8)
        legend(figure, _entries(), 3)
    return figure


def plot_all(rows: pd.DataFrame) -> Figure:
    """Return bias² and variance against the drift at every horizon, in the width of a page."""
    horizons = sorted(rows["horizon"].unique())
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 3.9))
        axes = figure.subplots(2, len(horizons), sharex=True, sharey="row", squeeze=False)
        _draw_panels(list(axes.flat), rows, horizons)
        figure.suptitle(finding(rows).replace("\n", " "), fontsize=9)
        legend(figure, _entries(), 8)
    return figure


VIEWS = {"all": plot_all}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def _entries() -> list[Line2D]:
    return [entry(look, name) for name, look in LOOKS.items()]


def _draw_panels(axes: Sequence[Axes], rows: pd.DataFrame, horizons: Sequence[int]) -> None:
    """Draw bias² in the first row of panels and variance in the second one."""
    bias2, variance = relative_bias(rows) ** 2, relative_variance(rows)
    floor = _floor(bias2)
    shown = rows.assign(bias=bias2.where(bias2 > ROUNDING**2, floor), spread=variance)
    for place, horizon in enumerate(horizons):
        part = shown[shown["horizon"] == horizon]
        above, below = axes[place], axes[len(horizons) + place]
        for name, look in LOOKS.items():
            line = part[part["ratio"] == name]
            draw(above, line, "drift", "bias", look | {"ms": 3})
            draw(below, line, "drift", "spread", look | {"ms": 3})
        above.set_title(f"horizon {horizon}", fontsize=8)
        below.set_xlabel("drift")
        below.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    logarithmic(axes[0], "y", (floor / 3, float(bias2.max()) * 3))
    ticks = [t for t in axes[0].get_yticks() if t > 30 * floor]
    names = [f"$10^{{{round(math.log10(t))}}}$" for t in ticks]
    axes[0].set_yticks([floor, *ticks], ["0", *names])
    for ax in axes[: len(horizons)]:
        ax.axhspan(floor / 3, floor * 3, color="0.94", lw=0, zorder=0)
    spread = shown["spread"]
    logarithmic(axes[len(horizons)], "y", (float(spread.min()) / 2, float(spread.max()) * 2))
    axes[0].set_ylabel("bias² / |∇J|²")
    axes[len(horizons)].set_ylabel("variance / |∇J|²")


def _floor(bias2: "pd.Series[float]") -> float:
    """Return where 0 stands: a power of ten below all biases."""
    real = bias2[bias2 > ROUNDING**2]
    low = float(real.min()) if len(real) else 1.0
    return float(10.0 ** (round(math.log10(low)) - 1.5))


def finding(rows: pd.DataFrame) -> str:
    """Return what the rows say, as the title of the picture.

    Args:
        rows: The rows.

    Returns:
        Two lines.
    """
    off = rows[rows["drift"] > 0]
    bias = relative_bias(off)
    exact = [n for n in ESTIMATORS if (bias[off["ratio"] == n] < ROUNDING).all()]
    last = off[(off["horizon"] == off["horizon"].max()) & (off["drift"] == off["drift"].max())]
    variance = last.set_index("ratio")["variance"]
    only = "Only the sequence ratio is exact" if exact == ["sequence"] else f"exact: {exact}"
    times = variance["sequence"] / variance["none"]
    return f"{only};\nits variance is up to {times:,.0f} times that of no ratio"
