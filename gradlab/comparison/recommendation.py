"""A recommendation: estimators ranked for one loss, the evidence, and what follows in words.

The words say how sure it is, how much worse the others are, and what would change it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlab.comparison.ranking import is_no_better_than_0
from gradlab.moments import Measured
from gradlab.text import aligned, filled

__all__ = ["Recommendation", "UNMEASURED"]

UNMEASURED = "not measured: "
"""How the reason begins of what can be used, but has not been met by its draws."""

# A squared relative bias below this is rounding.
_ROUNDING = 1e-18


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The ranking of estimators for one loss, its evidence, and what follows in words.

    Args:
        problem: The name of the loss.
        size: N and C.
        batch: B, for logits [B, N, C].
        evaluations: The budget: evaluations of f for one gradient.
        averaged: How many gradients are averaged.
        gradient_cost: What one evaluation of f with its gradient counts as.
        must_be_unbiased: Whether only unbiased estimators were ranked.
        truth: How the true gradient is known: "enumeration", or by draws of which estimator.
        length2: The squared length |g|^2 of the true gradient.
        rows: What was measured, from `gradlab.compare`, with the `cost` of a draw in evaluations,
            and `declared`, whether the estimator is declared exact for this f.
        table: One row per estimator in order, with the columns of `gradlab.comparison.ranking`.
            Last come those that cannot be used, or whose draws were too few, with their `reason`.
        curves: Rankings for other budgets and for other numbers of averaged gradients, from the
            same rows; `asked` marks the question.
        notes: Sentences on the evidence.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("linear", 4, 3), regime("moderate", 4, 3)
        >>> answer = recommend(f, logits, evaluations=8, estimators=["ST", "REINFORCE"])
        >>> answer.best, answer.table["draws_each"].tolist()
        (['ST'], [2, 8])
    """

    problem: str
    size: tuple[int, int]
    batch: int | None
    evaluations: int
    averaged: float
    gradient_cost: float
    must_be_unbiased: bool
    truth: str
    length2: Measured
    rows: pd.DataFrame
    table: pd.DataFrame
    curves: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> list[str]:
        """The estimators that share the first rank, by their text."""
        ranked = self.table[self.table["rank"] == 1]
        return list(ranked.loc[~is_no_better_than_0(ranked), "estimator"])

    def __str__(self) -> str:
        first = self.table.iloc[0]
        known = not math.isnan(first["progress"])
        reached = (
            f"progress {first['progress']:.3g} by the mean of {self.averaged:g} gradients"
            if known
            else f"error {first['rmse']:.3g} {first['unit']}"
        )
        many = "" if len(self.best) == 1 else f" (and {len(self.best) - 1} no worse)"
        return (
            f"{first['estimator']}{many}: {reached} of {self.evaluations:,} evaluations of f, "
            f"on {self.problem}"
        )

    def explain(self) -> str:
        """Return the ranking, what it rests on and what would change it, for a terminal.

        Returns:
            Paragraphs and a table as text, which `print` shows.
        """
        return _explained(self)


def _explained(answer: Recommendation) -> str:
    paragraphs = [*_question(answer), *_meaning(answer)]
    wrapped = [filled(text, indent="") for text in paragraphs]
    above = len(list(_question(answer)))
    return "\n".join([*wrapped[:above], "", _table(answer), "", *wrapped[above:], *_unused(answer)])


def _question(answer: Recommendation) -> Iterator[str]:
    variables, classes = answer.size
    length = math.sqrt(max(answer.length2.value, 0.0))
    error = answer.length2.se / (2 * length) if length > 0 else 0.0
    known = f"{length:.4g} ± {error:.1g}" if error else f"{length:.4g}"
    elements = "" if answer.batch is None else f"{answer.batch} elements of "
    yield (
        f"{answer.problem}: {elements}{variables} variables of {classes} classes, |g| = {known}, "
        f"the length of the true gradient, by {answer.truth}."
    )
    unbiased = " It must be unbiased." if answer.must_be_unbiased else ""
    yield (
        f"Budget: {answer.evaluations:,} evaluations of f for one gradient; f with its gradient "
        f"counts as {answer.gradient_cost:g}. {answer.averaged:g} gradients are averaged.{unbiased}"
    )
    by = "progress" if _is_by_progress(answer.table) else "error"
    yield (
        f"Ranked by {by}. progress: what a step along the mean of the averaged gradients gains, "
        "relative to a step along the true one: 1 at most, 0 for an answer of 0. cost: what one "
        "draw counts as. n: draws whose mean is one gradient. error: root mean squared error of "
        f"one gradient, in {answer.table['unit'].iloc[0]}; error² = bias² + sd². τ alike: "
        "temperatures that cannot be told from the best one."
    )


def _is_by_progress(table: pd.DataFrame) -> bool:
    """Return whether progress is known: the gradient is not 0, and not lost in noise."""
    return not math.isnan(table["progress"].iloc[0])


def _table(answer: Recommendation) -> str:
    ranked = answer.table[answer.table["rank"].notna()]
    lines: list[tuple[str, ...]] = [
        ("#", "estimator", "cost", "n", "progress", "error", "bias", "sd", "cosine", "τ alike")
    ]
    last = is_no_better_than_0(ranked)
    for at, row in enumerate(ranked.to_dict("records")):
        if last.iloc[at] and not (at and last.iloc[at - 1]):
            lines.append(("", "no better than 0", *[""] * 8))
        lines.append(
            (
                f"{row['rank']:.0f}",
                row["estimator"],
                f"{row['cost']:g}",
                f"{row['draws_each']:g}",
                _with_error(row["progress"], row["progress_se"]),
                f"{row['rmse']:.3g}" + (f" ± {row['rmse_se']:.1g}" if row["rmse_se"] > 0 else ""),
                _bias(row["bias2"], row["bias2_se"]),
                f"{math.sqrt(row['variance']):.3g}",
                "" if math.isnan(row["cosine"]) else f"{row['cosine']:.3f}",
                _alike(row["tau_low"], row["tau_high"]) + ("!" if row["at_edge"] else ""),
            )
        )
    return aligned(lines, repeated=2)


def _with_error(value: float, error: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" + (f" ± {error:.1g}" if error > 0 else "")


def _alike(low: float, high: float) -> str:
    if math.isnan(low):
        return ""
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _bias(bias2: float, se: float) -> str:
    """Return the bias, or what it is below where noise hides it."""
    if bias2 > max(2 * se, _ROUNDING):
        return f"{math.sqrt(bias2):.3g}"
    return f"<{math.sqrt(max(bias2, 0.0) + 2 * se):.2g}" if se > 0 else "0"


def _meaning(answer: Recommendation) -> Iterator[str]:
    ranked = answer.table[answer.table["rank"].notna()]
    first = ranked.iloc[0]
    if len(answer.best) > 1:
        noisy = (ranked.loc[ranked["rank"] == 1, ["rmse_se", "progress_se"]] > 0).any(axis=None)
        why = "cannot be told apart (2 standard errors; more draws may decide)"
        yield f"Best: {', '.join(answer.best)}: {why if noisy else 'they are the same'}."
    else:
        many = first["draws_each"]
        draws = "one draw" if many == 1 else f"the mean of {many:g} draws"
        yield f"Best: {first['estimator']}; a gradient is {draws}."
    if _is_by_progress(ranked):
        yield from _tolerance(ranked)
        yield _lost(first, answer.averaged)
    elif first["rmse"] > 0:
        yield "The gradient is 0 or lost in noise, so that the order is that of the error alone."
    yield _holds(answer)
    if is_no_better_than_0(ranked).any():
        yield "no better than 0: not shown to have more progress than an answer of 0."
    if ranked["at_edge"].any():
        yield "!: the best temperature is at the end of the grid; the best may lie outside."
    drawn = ranked[ranked["method"] != "exact"]
    if len(drawn):
        claimed = ", ".join(drawn.loc[drawn["bias2_se"] == 0, "series"])
        who = "All" if len(drawn) == len(ranked) else ", ".join(drawn["series"])
        yield (
            f"{who}: by {_draws(drawn['draws'])} draws each, ± one standard error."
            + (
                f" No bias of {claimed}: as declared, not refuted by these draws."
                if claimed
                else ""
            )
        )
    yield from answer.notes
    yield "All this holds for f at these logits; both change in training."


def _tolerance(ranked: pd.DataFrame) -> Iterator[str]:
    """Yield how much more progress another estimator may have, where that is measured."""
    first, others = ranked.iloc[0], ranked.iloc[1:]
    apart = others["progress"] - first["progress"]
    noise = (others["progress_se"] ** 2 + first["progress_se"] ** 2) ** 0.5
    more = float((apart + 2 * noise).max()) if len(others) else 0.0
    if more > 5e-4 and bool((noise > 0).any()):
        yield f"Another may have up to {more:.2g} more progress (2 standard errors)."


def _lost(first: "pd.Series[Any]", averaged: float) -> str:
    """Return what the first one loses, by its direction and by its noise."""
    lost, turned = 1 - first["progress"], 1 - first["cosine"] ** 2
    if turned <= max(4 * first["cosine_se"], 1e-9):
        return f"It loses {max(lost, 0.0):.2g} of the progress, by noise: averaging more helps."
    return (
        f"It loses {lost:.2g} of the progress: {turned:.2g} because its mean points elsewhere, "
        "which no averaging mends, the rest by noise."
    )


def _holds(answer: Recommendation) -> str:
    """Return for which budgets and numbers of gradients the first place stays what it is."""
    curves = answer.curves
    budgets = curves[curves["averaged"] == answer.averaged]
    numbers = curves[curves["evaluations"] == answer.evaluations]
    told = []
    for rows, column, what in (
        (budgets, "evaluations", "budgets"),
        (numbers, "averaged", "averaged gradients"),
    ):
        first = rows.sort_values(column, kind="stable").groupby(column)["series"].first()
        asked = getattr(answer, column)
        runs = [part for _, part in first.groupby((first != first.shift()).cumsum())]
        (here,) = [k for k, run in enumerate(runs) if asked in run.index]
        span = runs[here].index
        text = f"{what} of {span[0]:,g}" + (f" to {span[-1]:,g}" if len(span) > 1 else "")
        beside = [
            f"{way} {runs[k].iloc[0]}"
            for way, k in (("before", here - 1), ("after", here + 1))
            if 0 <= k < len(runs)
        ]
        told.append(text + (f" ({', '.join(beside)})" if beside else ""))
    return f"{answer.table['series'].iloc[0]} is first for {told[0]}, and for {told[1]}."


def _draws(draws: "pd.Series[float]") -> str:
    least, most = draws.min(), draws.max()
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"


def _unused(answer: Recommendation) -> Iterator[str]:
    left = answer.table[answer.table["rank"].isna()]
    unmeasured = left["reason"].astype(str).str.startswith(UNMEASURED)
    for heading, rows in (
        ("not applicable", left[~unmeasured]),
        ("not measured", left[unmeasured]),
    ):
        reasons: dict[str, list[str]] = {}
        for row in rows.to_dict("records"):
            reasons.setdefault(row["reason"].removeprefix(UNMEASURED), []).append(row["series"])
        if reasons:
            yield f"\n{heading}"
        for reason, who in reasons.items():
            text = f"{', '.join(who)}: {reason}"
            yield filled(text)
