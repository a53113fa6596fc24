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

__all__ = ["UNMEASURED", "Recommendation", "Run"]

UNMEASURED = "not measured: "
"""How the reason begins of what can be used, but has not been met by its draws."""

# A squared relative bias below this is rounding.
_ROUNDING = 1e-18


@dataclass(frozen=True)
class Run:
    """The moments of a training over which progress was averaged.

    Args:
        moments: How many there are.
        steps: Their different steps; none for snapshots that have no step.
        runs: How many trainings they are of.
        lengths: The least and the greatest |g|.
        firsts: Each series that has the most progress at one moment at least, and at how many.
    """

    moments: int
    steps: tuple[int, ...]
    runs: int
    lengths: tuple[float, float]
    firsts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The ranking of estimators for one loss, its evidence, and what follows in words.

    Args:
        problem: The name of the loss.
        size: N and C; None where x is drawn from a distribution.
        batch: B, for logits [B, N, C].
        evaluations: The budget: evaluations of f for one gradient.
        averaged: How many gradients are averaged.
        gradient_cost: What one evaluation of f with its gradient counts as.
        gradient_cost_se: Its standard error, where it was measured.
        must_be_unbiased: Whether only unbiased estimators were ranked.
        truth: How the true gradient is known: "enumeration", or by draws of which estimator.
        length2: The squared length |g|^2 of the true gradient; of several its mean.
        rows: What was measured, from `gradlab.compare`, with the `cost` of a draw in evaluations,
            and `declared`, whether the estimator is declared exact for this f.
        table: One row per estimator in order, with the columns of `gradlab.comparison.ranking`.
            Last come those that cannot be used, or whose draws were too few, with their `reason`.
        curves: Rankings for other budgets and for other numbers of averaged gradients, from the
            same rows; `asked` marks the question.
        notes: Sentences on the evidence.
        averaged_from: What `averaged` was derived from, in words.
        run: The moments of a training, where progress is a mean over several.
        distribution: What x is drawn from; "" for independent categorical variables.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("linear", 4, 3), regime("moderate", 4, 3)
        >>> answer = recommend(f, logits, evaluations=8, estimators=["ST", "REINFORCE"])
        >>> answer.best, answer.table["draws_each"].tolist()
        (['ST'], [2, 8])
    """

    problem: str
    size: tuple[int, int] | None
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
    averaged_from: str = ""
    gradient_cost_se: float | None = None
    run: Run | None = None
    distribution: str = ""

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
    yield _what(answer)
    yield _budget(answer)
    by = "progress" if _is_by_progress(answer.table) else "error"
    unit = answer.table["unit"].iloc[0]
    yield (
        f"Ranked by {by}. progress: what a step along the mean of the averaged gradients gains, "
        "relative to a step along the true gradient. It is 1 at most, and 0 for an answer of 0. "
        "best τ: the temperature with the most progress, and in brackets the range that cannot be "
        "told from it. cost: evaluations of f that one draw counts as. n: draws whose mean is one "
        f"gradient. error: root mean squared error of one gradient in {unit}, of which bias is the "
        "part that averaging leaves. cosine: of the angle between the mean and the true gradient."
    )


def _what(answer: Recommendation) -> str:
    """Return what was measured."""
    size = f"x of {answer.distribution}"
    if answer.size is not None:
        variables, classes = answer.size
        size = f"{variables} variables of {classes} classes"
    if answer.run is not None:
        low, high = (f"{length:.3g}" for length in answer.run.lengths)
        return (
            f"{answer.problem}: {size}. Progress is the mean over {_moments(answer.run)}. |g|, the "
            f"length of the true gradient there, is {low} to {high}, by {answer.truth}."
        )
    length = math.sqrt(max(answer.length2.value, 0.0))
    error = answer.length2.se / (2 * length) if length > 0 else 0.0
    known = f"{length:.4g} ± {error:.1g}" if error else f"{length:.4g}"
    elements = "" if answer.batch is None else f"{answer.batch} elements of "
    return (
        f"{answer.problem}: {elements}{size}. The true gradient has the length |g| = {known}, by "
        f"{answer.truth}."
    )


def _moments(run: Run) -> str:
    """Return which moments count, in words."""
    if not run.steps:
        return f"{run.moments} snapshots"
    if len(run.steps) == 1:
        steps = f"step {run.steps[0]:,}"
    else:
        steps = f"{len(run.steps)} steps, from {run.steps[0]:,} to {run.steps[-1]:,}"
    if run.runs == 1:
        return steps
    return f"{run.moments} measurements at {steps} of {run.runs} runs"


def _budget(answer: Recommendation) -> str:
    """Return what one gradient may cost and how many are averaged."""
    unbiased = " It must be unbiased." if answer.must_be_unbiased else ""
    se = answer.gradient_cost_se
    if se is None:
        counts = f"counts as {answer.gradient_cost:g}"
    else:
        counts = (
            f"counts as {answer.gradient_cost:.2f} ± {se:.1g}, measured on this machine (another "
            "machine may give another order)"
        )
    derived = f" ({answer.averaged_from})" if answer.averaged_from else ""
    return (
        f"Budget: {answer.evaluations:,} evaluations of f for one gradient. f with its gradient "
        f"{counts}. {answer.averaged:,.6g} gradients are averaged{derived}.{unbiased}"
    )


def _is_by_progress(table: pd.DataFrame) -> bool:
    """Return whether progress is known: the gradient is not 0, and not lost in noise."""
    return not math.isnan(table["progress"].iloc[0])


def _table(answer: Recommendation) -> str:
    ranked = answer.table[answer.table["rank"].notna()]
    lines: list[tuple[str, ...]] = [_HEADER]
    last = is_no_better_than_0(ranked)
    for at, row in enumerate(ranked.to_dict("records")):
        if last.iloc[at] and not (at and last.iloc[at - 1]):
            lines.append(("", "no better than 0", *[""] * (len(_HEADER) - 2)))
        lines.append(
            (
                f"{row['rank']:.0f}",
                row["series"],
                _temperature(row),
                f"{row['cost']:.3g}",
                f"{row['draws_each']:g}",
                _with_error(row["progress"], row["progress_se"]),
                f"{row['rmse']:.3g}",
                _bias(row["bias2"], row["bias2_se"]),
                "" if math.isnan(row["cosine"]) else f"{row['cosine']:.2f}",
            )
        )
    return aligned(lines, repeated=2)


_HEADER = ("#", "estimator", "best τ", "cost", "n", "progress", "error", "bias", "cosine")


def _with_error(value: float, error: float) -> str:
    """Return progress to three digits after the point, and its error, rounded up to the last."""
    if math.isnan(value):
        return ""
    if not error > 0:
        return f"{value:.3f}"
    return f"{value:.3f} ± " + (f"{error:.1g}" if error > 0.001 else "0.001")


def _temperature(row: dict[str, Any]) -> str:
    """Return the best temperature, and the range of those that cannot be told from it."""
    tau, low, high = row["tau"], row["tau_low"], row["tau_high"]
    if math.isnan(tau):
        return ""
    span = "" if low == high else f" ({low:g}-{high:g})"
    return f"{tau:g}{span}" + ("!" if row["at_edge"] else "")


def _bias(bias2: float, se: float) -> str:
    """Return the bias, or what it is below where noise hides it."""
    if bias2 > max(2 * se, _ROUNDING):
        return f"{math.sqrt(bias2):.3g}"
    return f"<{math.sqrt(max(bias2, 0.0) + 2 * se):.2g}" if se > 0 else "0"


def _meaning(answer: Recommendation) -> Iterator[str]:
    ranked = answer.table[answer.table["rank"].notna()]
    first = ranked.iloc[0]
    yield _best(answer, ranked)
    if _is_by_progress(ranked):
        yield from _tolerance(ranked)
        yield _lost(first)
    elif first["rmse"] > 0:
        yield "The gradient is 0 or lost in noise, so that the order is that of the error alone."
    if answer.run is not None:
        yield _firsts(answer.run)
    yield from _holds(answer)
    if is_no_better_than_0(ranked).any():
        yield "no better than 0: not shown to make more progress than an answer of 0."
    if ranked["at_edge"].any():
        yield "!: the best temperature is at the end of the grid, so a better one may lie outside."
    yield from _untried(answer, ranked)
    yield from _drawn(ranked)
    yield from answer.notes
    if answer.run is None:
        yield "All this holds for f at these logits; both change in training."
    else:
        yield "Standard errors are those of measurement at these moments, not of other runs."


def _untried(answer: Recommendation, ranked: pd.DataFrame) -> Iterator[str]:
    """Return which ranked series were measured at one temperature, so that none was chosen."""
    tried = answer.rows.groupby("series", sort=False)["tau"].nunique()
    alone = [series for series in ranked["series"] if tried.get(series, 0) == 1]
    if alone:
        named = ", ".join(alone)
        yield f"Measured at one temperature only, so that another may be better: {named}."


def _best(answer: Recommendation, ranked: pd.DataFrame) -> str:
    """Return what is recommended."""
    if len(answer.best) > 1:
        noisy = (ranked.loc[ranked["rank"] == 1, ["rmse_se", "progress_se"]] > 0).any(axis=None)
        why = "cannot be told apart (2 standard errors; more draws may decide)"
        return f"Best: {', '.join(answer.best)}: {why if noisy else 'they are the same'}."
    first = ranked.iloc[0]
    many = first["draws_each"]
    draws = "one draw" if many == 1 else f"the mean of {many:g} draws"
    return f"Best: {first['estimator']}. One gradient is {draws}."


def _firsts(run: Run) -> str:
    """Return what is first at single moments."""
    told = ", ".join(f"{series} at {count}" for series, count in run.firsts)
    return f"Of the {run.moments} moments, the most progress has {told}."


def _tolerance(ranked: pd.DataFrame) -> Iterator[str]:
    """Yield how much more progress another estimator may have, where that is measured."""
    first, others = ranked.iloc[0], ranked.iloc[1:]
    apart = others["progress"] - first["progress"]
    noise = (others["progress_se"] ** 2 + first["progress_se"] ** 2) ** 0.5
    more = float((apart + 2 * noise).max()) if len(others) else 0.0
    if more > 5e-4 and bool((noise > 0).any()):
        yield f"Another may have up to {more:.2g} more progress (2 standard errors)."


def _lost(first: "pd.Series[Any]") -> str:
    """Return what the first one loses, by its direction and by its noise."""
    name = first["estimator"]
    lost, turned = 1 - first["progress"], 1 - first["cosine"] ** 2
    if turned <= max(4 * first["cosine_se"], 1e-9):
        return (
            f"{name} loses {max(lost, 0.0):.2g} of the progress by noise. Averaging more gradients "
            "would win it back."
        )
    return (
        f"{name} loses {lost:.2g} of the progress: {turned:.2g} because its mean points elsewhere, "
        "which no averaging mends, and the rest by noise."
    )


def _holds(answer: Recommendation) -> Iterator[str]:
    """Yield for which budgets and numbers of gradients the first place stays what it is."""
    curves, first = answer.curves, answer.table["series"].iloc[0]
    budgets = curves[curves["averaged"] == answer.averaged]
    here, sides = _span(budgets, "evaluations", answer.evaluations)
    what = "budgets" if " to " in here else "a budget"
    yield f"{first} is first at {what} of {here} evaluations.{sides}"
    numbers = curves[curves["evaluations"] == answer.evaluations]
    here, sides = _span(numbers, "averaged", answer.averaged)
    yield f"{first} is first where {here} gradients are averaged.{sides}"


def _span(rows: pd.DataFrame, column: str, asked: float) -> tuple[str, str]:
    """Return where the first place stays the same, and what is first beyond either end."""
    first = rows.sort_values(column, kind="stable").groupby(column)["series"].first()
    runs = [part for _, part in first.groupby((first != first.shift()).cumsum())]
    (here,) = [k for k, run in enumerate(runs) if asked in run.index]
    span = runs[here].index
    text = f"{span[0]:,g}" + (f" to {span[-1]:,g}" if len(span) > 1 else "")
    sides = [
        f" With {word}, {runs[k].iloc[0]} is first."
        for word, k in (("fewer", here - 1), ("more", here + 1))
        if 0 <= k < len(runs)
    ]
    return text, "".join(sides)


def _drawn(ranked: pd.DataFrame) -> Iterator[str]:
    """Yield what was measured by draws."""
    drawn = ranked[ranked["method"] != "exact"]
    if not len(drawn):
        return
    many = f"measured by {_draws(drawn['draws'])} draws each; ± is one standard error"
    if len(drawn) == len(ranked):
        yield f"All were {many}."
    else:
        yield f"{', '.join(drawn['series'])}: {many}. The others are exact."
    claimed = drawn.loc[(drawn["bias2"] == 0) & (drawn["bias2_se"] == 0), "series"]
    if len(claimed):
        yield (f"{', '.join(claimed)}: bias 0 as declared, which these draws do not refute.")


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
