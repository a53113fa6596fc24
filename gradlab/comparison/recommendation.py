"""A recommendation: estimators ranked for one loss, the evidence, and what follows in words.

The words say how sure it is, how much worse the others are, and what would change it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

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
        evaluations: The budget: evaluations of f for one gradient.
        gradient_cost: What one evaluation of f with its gradient counts as.
        must_be_unbiased: Whether only unbiased estimators were ranked.
        truth: How the true gradient is known: "enumeration", or by draws of which estimator.
        length2: The squared length |g|^2 of the true gradient.
        rows: What was measured, from `gradlab.compare`, with the `cost` of a draw in evaluations,
            and `declared`, whether the estimator is declared exact for this f.
        table: One row per estimator in order, with the columns of `gradlab.comparison.ranking`.
            Last come those that cannot be used, or whose draws were too few, with their `reason`.
        curves: Rankings for other budgets, from the same rows.
        notes: Sentences on the evidence.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("linear", 4, 3), regime("moderate", 4, 3)
        >>> answer = recommend(f, logits, evaluations=8, estimators=["ST", "REINFORCE"])
        >>> answer.best, answer.table["averaged"].tolist()
        (['ST'], [2, 8])
    """

    problem: str
    size: tuple[int, int]
    evaluations: int
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
        return list(self.table.loc[self.table["rank"] == 1, "estimator"])

    def __str__(self) -> str:
        first = self.table.iloc[0]
        error = f"error {first['rmse']:.3g} {first['unit']}"
        many = "" if len(self.best) == 1 else f" (and {len(self.best) - 1} no worse)"
        return (
            f"{first['estimator']}{many}: {error} with {self.evaluations:,} evaluations of f, "
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
    yield (
        f"{answer.problem}: {variables} variables of {classes} classes, |g| = {known}, the length "
        f"of the true gradient, by {answer.truth}."
    )
    unbiased = "; it must be unbiased" if answer.must_be_unbiased else ""
    yield (
        f"Budget: {answer.evaluations:,} evaluations of f for one gradient{unbiased}. f with its "
        f"gradient counts as {answer.gradient_cost:g}. error: root mean squared error of the mean "
        f"of n draws, in {answer.table['unit'].iloc[0]}; error² = bias² + sd². cost: what one draw "
        "counts as; τ alike: temperatures that cannot be told from the best one."
    )


def _table(answer: Recommendation) -> str:
    ranked = answer.table[answer.table["rank"].notna()]
    best = ranked["rmse"].iloc[0]
    lines = [("#", "estimator", "cost", "n", "error", "of best", "bias", "sd", "τ alike")]
    for row in ranked.to_dict("records"):
        lines.append(
            (
                f"{row['rank']:.0f}",
                row["estimator"],
                f"{row['cost']:g}",
                f"{row['averaged']:g}",
                f"{row['rmse']:.3g}" + (f" ± {row['rmse_se']:.1g}" if row["rmse_se"] > 0 else ""),
                f"{row['rmse'] / best:.2f}" if best > 0 else "",
                _bias(row["bias2"], row["bias2_se"]),
                f"{math.sqrt(row['variance']):.3g}",
                _alike(row["tau_low"], row["tau_high"]) + ("!" if row["at_edge"] else ""),
            )
        )
    return aligned(lines, repeated=2)


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
    first, unit = ranked.iloc[0], ranked["unit"].iloc[0]
    if len(answer.best) > 1:
        noisy = (ranked.loc[ranked["rank"] == 1, "rmse_se"] > 0).any()
        why = "cannot be told apart (2 standard errors; more draws may decide)"
        yield f"Best: {', '.join(answer.best)}: {why if noisy else 'the error is the same'}."
    else:
        yield f"Best: {first['estimator']}, the mean of {first['averaged']:g} draws."
    if first["bias2"] > max(2 * first["bias2_se"], _ROUNDING):
        share = first["bias2"] / (first["bias2"] + first["variance"])
        at = "" if math.isnan(first["tau"]) else " at this temperature"
        yield (
            f"Its bias of {math.sqrt(first['bias2']):.3g} {unit} is {share:.0%} of its squared "
            f"error and does not average out: no budget brings the error below it{at}."
        )
    elif first["bias2_se"] > 0:
        yield "Its bias is lost in the noise of the draws; it is not shown to have none."
    elif first["rmse"] > 0:
        yield "It has no bias here: its error falls like one over the root of the budget."
    yield _changes(answer.curves)
    if ranked["at_edge"].any():
        yield "!: the best temperature is at the end of the grid; beyond, the error may still fall."
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


def _draws(draws: "pd.Series[float]") -> str:
    least, most = draws.min(), draws.max()
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"


def _changes(curves: pd.DataFrame) -> str:
    """Return who is first at which budgets."""
    series = curves.groupby("evaluations", sort=True)["series"].first()
    runs = [part for _, part in series.groupby((series != series.shift()).cumsum())]
    largest = f"{series.index[-1]:,}"
    if len(runs) == 1:
        return f"Another budget, from {series.index[0]:,} to {largest}, does not change the best."
    told = [
        f"{run.index[0]:,}{'' if len(run) == 1 else f' to {run.index[-1]:,}'} {run.iloc[0]}"
        for run in runs[:-1]
    ]
    told.append(f"from {runs[-1].index[0]:,} on {runs[-1].iloc[0]}")
    return (
        f"Another budget may: of budgets up to {largest}, two a doubling, first is at "
        f"{'; at '.join(told[:-1])}; {told[-1]}."
    )


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
