"""Spearman's rank correlation of each criterion with the training loss that was reached."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["OUTCOMES", "SUMMARIES", "correlations", "spearman"]

Array = NDArray[np.float64]

OUTCOMES = ("steps", "cost")
"""The loss after equally many steps, or at equal cost: evaluations of f, with its gradient 3."""

SUMMARIES = ("mean", "harmonic mean", "weighted by loss to go")
"""What is made of a criterion at several moments of the reference run, beside one of them."""

# In the harmonic mean, progress below this counts as this.
_LEAST = 1e-3
_AVERAGED = (1, 10, 100, 1000)


def spearman(x: Array, y: Array) -> Array:
    """Return the rank correlation of each row of x with that row of y; NaN where one is constant.

    Args:
        x: numbers [..., estimators].
        y: numbers of the same shape; they may be infinite.

    Returns:
        The correlations [...].

    Example:
        >>> float(spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, np.inf, 20.0])))
        0.5
    """
    ranks = [rankdata(part, axis=-1) for part in (x, y)]
    a, b = (part - part.mean(-1, keepdims=True) for part in ranks)
    with np.errstate(invalid="ignore"):
        found: Array = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return found


def correlations(losses: pd.DataFrame, criteria: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task, criterion, moment and outcome, with a bootstrap interval.

    The better criterion goes with the lower loss where `rho` is positive. `low` and `high` are the
    2.5 and 97.5 % points over all ways to draw as many seeds with replacement: the interval knows
    of the chance in training and in the measured moments, not of the choice of tasks.

    Args:
        losses: one row per `task`, `estimator`, `lr` and `seed`: `loss_steps`, `loss_cost` and the
            `cost` of one gradient. Of several rates the one with the least mean loss counts.
        criteria: one row per `task`, `gradient`, `snapshot`, `estimator` and `seed`: `error B`,
            `progress B`, `cosine` and `reference_loss`.

    Returns:
        Columns task, gradient, criterion, averaged, per (draw, or evaluation: B divided by the
        cost of a draw), moment, outcome, rho, low, high, estimators, seeds.
    """
    rows = []
    for task, of_task in losses.groupby("task", sort=False):
        here = criteria[criteria["task"] == task]
        for gradient, measured in here.groupby("gradient", sort=False):
            rows += list(_of_task(of_task, measured, {"task": task, "gradient": gradient}))
    return pd.DataFrame(rows)


def _of_task(
    losses: pd.DataFrame, measured: pd.DataFrame, about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    estimators = [e for e in losses["estimator"].unique() if e in set(measured["estimator"])]
    seeds = sorted(losses["seed"].unique())
    draws = np.array(list(itertools.product(range(len(seeds)), repeat=len(seeds))))
    rates = sorted(losses["lr"].unique())
    outcome: dict[str, tuple[Array, Array]] = {}
    for name in OUTCOMES:
        table = losses.set_index(["seed", "estimator", "lr"])[f"loss_{name}"]
        index = pd.MultiIndex.from_product([seeds, estimators, rates])
        values = table.reindex(index).to_numpy(float).reshape(len(seeds), len(estimators), -1)
        outcome[name] = values.mean(0).min(-1), values[draws].mean(1).min(-1)
    cost = losses.groupby("estimator")["cost"].first()[estimators].to_numpy(float)
    for what, moment, scores in _scores(measured, estimators, seeds, cost):
        each = scores if len(scores) == len(seeds) else np.repeat(scores[:1], len(seeds), 0)
        for name, (loss, resampled) in outcome.items():
            if what["per"] == "evaluation" and name == "steps":
                continue
            rho = spearman(each.mean(0), -loss)
            spread = spearman(each[draws].mean(1), -resampled)
            low, high = np.nanquantile(spread, (0.025, 0.975)) if np.isfinite(rho) else (rho, rho)
            yield (
                about
                | what
                | {
                    "moment": moment,
                    "outcome": name,
                    "rho": float(rho),
                    "low": float(low),
                    "high": float(high),
                    "estimators": len(estimators),
                    "seeds": len(seeds),
                }
            )


def _scores(
    measured: pd.DataFrame, estimators: list[str], seeds: list[int], cost: Array
) -> Iterator[tuple[dict[str, Any], str, Array]]:
    """Yield each criterion at each moment as scores [seeds, estimators]: more is better."""
    moments = list(measured["snapshot"].unique())
    measured = measured.set_index(["snapshot", "seed", "estimator"])
    there = [seed for seed in seeds if seed in measured.index.get_level_values("seed")]
    there = there or sorted(measured.index.get_level_values("seed").unique())
    index = pd.MultiIndex.from_product([moments, there, estimators])
    shape = len(moments), len(there), len(estimators)

    def table(column: str) -> Array:
        return measured[column].reindex(index).to_numpy(float).reshape(shape)

    to_go = table("reference_loss")[..., :1]
    to_go = np.clip(to_go - to_go[-1], 0, None)
    progress = np.stack([np.nan_to_num(table(f"progress {b}")) for b in _AVERAGED])
    error = np.stack([table(f"error {b}") for b in _AVERAGED])
    found: list[tuple[str, int | None, str, Array]]
    found = [("cosine", None, "draw", np.nan_to_num(table("cosine")))]
    for k, many in enumerate(_AVERAGED):
        found += [("error", many, "draw", -error[k]), ("progress", many, "draw", progress[k])]
        if many > 1:
            few = np.maximum(1.0, many / cost)
            found += [
                ("error", many, "evaluation", -_between(error, few, straight=True)),
                ("progress", many, "evaluation", _between(progress, few, straight=False)),
            ]
    for name, averaged, per, values in found:
        what = {"criterion": name, "averaged": averaged, "per": per}
        for moment, of_moment in zip(moments, values, strict=True):
            yield what, moment, of_moment
        yield what, SUMMARIES[0], values.mean(0)
        if name == "progress":
            yield what, SUMMARIES[1], 1 / (1 / np.maximum(values, _LEAST)).mean(0)
        if to_go.any():
            yield what, SUMMARIES[2], (to_go * values).sum(0) / to_go.sum(0)


def _between(values: Array, averaged: Array, *, straight: bool) -> Array:
    """Return the criterion for other B, from its values [B, ...] at 1 and at 1000.

    An error is a straight line in 1 / B, and so is the inverse of progress; where noise makes its
    sign change, the nearest value that was measured stands.
    """
    share: Array = (1 / averaged - 1 / _AVERAGED[-1]) / (1 - 1 / _AVERAGED[-1])
    few, many = values[0], values[-1]
    if straight:
        line: Array = many + share * (few - many)
        return line
    nearest = np.abs(np.log(np.array(_AVERAGED)[:, None] / averaged)).argmin(0)
    measured = np.take_along_axis(values, np.broadcast_to(nearest, values.shape[1:])[None], axis=0)[
        0
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / many + share * (1 / few - 1 / many)
        between: Array = np.where(few * many > 0, 1 / inverse, measured)
    return between
