"""Rows measured at several steps of a training, as one: progress is the mean over the steps.

An estimator counts if it was measured at every step that counts. All numbers are relative to the
length of the gradient of their step.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.comparison.ranking import is_unmet, progress_at
from gradlab.comparison.recommendation import UNMEASURED
from gradlab.moments import Measured

__all__ = ["OverSteps", "over_steps"]

Array = NDArray[np.float64]

# Columns in the squared unit of f, which are divided by |g|^2 of their step.
_SQUARES = ("bias2", "variance", "mse", "scale_free_variance")
# Columns that progress is computed from.
_OF_PROGRESS = (
    *("estimator", "method", "truth2", "cosine", "cosine_se"),
    *("scale_free_variance", "scale_free_variance_se"),
)


@dataclass(frozen=True)
class OverSteps:
    """Rows of each step, and one row for each estimator with its means over the steps.

    Args:
        each: One row per estimator and moment, for what was measured at all moments, in units of
            |g|. `moment` numbers the moments from 0.
        moments: One row per moment that counts, with the columns that name it.
        length2: The mean of |g|^2 over the moments.
        lengths: The least and the greatest |g|.
        reasons: Why a series does not count, by the series.
        notes: Sentences on what does not count.
    """

    each: pd.DataFrame
    moments: pd.DataFrame
    length2: Measured
    lengths: tuple[float, float]
    reasons: dict[str, str]
    notes: tuple[str, ...]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per estimator and temperature, as `ranking` takes them."""
        groups = self.each.groupby("estimator", sort=False)
        first = groups.first()
        kept = ("problem", "series", "tau", "cost")
        rows = pd.DataFrame({c: first.get(c) for c in kept})
        for column in ("bias2", "variance", "mse"):
            rows[column] = groups[column].mean()
            rows[f"{column}_se"] = groups[f"{column}_se"].agg(_of_mean)
        exact = groups["method"].agg(lambda methods: (methods == "exact").all())
        rows["method"] = np.where(exact, "exact", "monte carlo")
        rows["draws"] = groups["draws"].min()
        rows = rows.assign(reason=None, truth2=1.0, truth2_se=0.0).reset_index()
        # The squared cosine is the progress of a mean without noise.
        value, se = self.progress(rows, np.inf)
        root = np.sign(value) * np.sqrt(abs(value))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(root != 0, se / (2 * abs(root)), np.sqrt(se))
        return rows.assign(cosine=root, cosine_se=slope)

    def progress(self, rows: pd.DataFrame, averaged: float | Array) -> tuple[Array, Array]:
        """Return the mean over the moments of the progress of each estimator in `rows`.

        The standard error is that of measurement, at these moments. A moment at which the length of
        a mean is lost in noise counts as no progress.
        """
        value, se = self.at_moments(rows["estimator"], averaged)
        count = len(self.moments)
        return value.mean(-1), np.sqrt(np.square(se).sum(-1)) / count

    def at_moments(self, estimators: Iterable[str], averaged: float | Array) -> tuple[Array, Array]:
        """Return progress and its standard errors [estimators, moments].

        `averaged` is one number for all, or one for each estimator.
        """
        count = len(self.moments)
        places = np.array([self._first[name] for name in estimators], dtype=int)
        at = (places[:, None] + np.arange(count)).ravel()
        many = np.broadcast_to(np.asarray(averaged, dtype=float), places.shape)
        value, se = progress_at(self._sorted.iloc[at], np.repeat(many, count))
        lost = np.isnan(value) | np.isnan(se)
        value, se = np.where(lost, 0.0, value), np.where(lost, 1.0, se)
        return value.reshape(-1, count), se.reshape(-1, count)

    @cached_property
    def _sorted(self) -> pd.DataFrame:
        """What progress is computed from, by estimator and moment: few columns, to be quick."""
        return self.each.sort_values(["estimator", "moment"], kind="stable")[list(_OF_PROGRESS)]

    @cached_property
    def _first(self) -> dict[str, int]:
        """The place of the first row of each estimator in `_sorted`."""
        names = self._sorted["estimator"].to_numpy()
        return {str(name): at * len(self.moments) for at, name in enumerate(dict.fromkeys(names))}


def _of_mean(errors: "pd.Series[float]") -> float:
    return float(np.sqrt(np.square(errors).sum()) / len(errors))


def over_steps(rows: pd.DataFrame, names: list[str], trusted: pd.DataFrame) -> OverSteps:
    """Return rows of several moments as one.

    A moment counts if its gradient is known: not 0, and not lost in noise.

    Args:
        rows: As they were measured, with a `cost`.
        names: The columns that name a moment, such as the step.
        trusted: The same rows with no bias where it is declared: what counts.

    Raises:
        ValueError: If a moment has two rows of an estimator, or no moment or no estimator counts.
    """
    moments = rows[names].drop_duplicates().sort_values(names).reset_index(drop=True)
    keyed = trusted.merge(moments.reset_index(names="moment"), on=names, how="left")
    twice = keyed[keyed.duplicated(["estimator", "moment"])]
    if len(twice):
        row = twice.iloc[0]
        where = ", ".join(f"{name} {row[name]}" for name in names)
        raise ValueError(
            f"rows hold {row['estimator']} twice at {where}: tell several runs apart by a column "
            "`trained` or `seed`, and of `method` both give one"
        )
    measured = keyed[keyed["reason"].isna()]
    truth = measured.groupby("moment")[["truth2", "truth2_se"]].first()
    known = truth[truth["truth2"] > 2 * truth["truth2_se"]]
    if not len(known):
        why = rows["reason"].dropna()
        raise ValueError(
            "rows hold no step at which the gradient is known: it is 0, lost in noise or not "
            "measured" + (f" ({why.iloc[0]})" if len(why) else "")
        )
    notes = tuple(_left_out(len(moments), len(truth), len(known)))
    keyed = keyed[keyed["moment"].isin(known.index)]
    reasons, partly = _incomplete(keyed, len(known))
    each = keyed[~keyed["estimator"].isin(partly)].copy()
    if not len(each):
        why = "; ".join(f"{series}: {reason}" for series, reason in reasons.items())
        raise ValueError(f"no estimator was measured at all steps that count: {why}")
    for column in _SQUARES:
        for name in (column, f"{column}_se"):
            each[name] = each[name] / each["truth2"]
    each = each.assign(truth2=1.0)
    renumbered = {old: new for new, old in enumerate(known.index)}
    each["moment"] = each["moment"].map(renumbered)
    lengths = np.sqrt(known["truth2"])
    return OverSteps(
        each=each,
        moments=moments.loc[known.index].reset_index(drop=True),
        length2=Measured(float(known["truth2"].mean()), _of_mean(known["truth2_se"])),
        lengths=(float(lengths.min()), float(lengths.max())),
        reasons=reasons,
        notes=notes,
    )


def _left_out(asked: int, measured: int, known: int) -> Iterator[str]:
    """Yield how many steps do not count, and why."""
    if asked > measured:
        yield f"At {asked - measured} of {asked} steps nothing was measured; they do not count."
    if measured > known:
        yield (
            f"At {measured - known} of {asked} steps the gradient is 0 or lost in noise; they do "
            "not count."
        )


def _incomplete(keyed: pd.DataFrame, count: int) -> tuple[dict[str, str], set[str]]:
    """Return why series do not count, and which estimators were not measured at every moment."""
    usable = keyed["reason"].isna() & ~is_unmet(keyed)
    there = keyed[usable].groupby("estimator")["moment"].nunique()
    partly = {name for name in keyed["estimator"].unique() if there.get(name, 0) < count}
    reasons = {}
    for series, part in keyed.groupby("series", sort=False):
        if not set(part["estimator"]) <= partly:
            continue  # another temperature of it counts
        at = int(there.reindex(part["estimator"].unique()).fillna(0).max())
        told = part["reason"].dropna()
        if len(told):
            why = str(told.iloc[0])
        elif is_unmet(part).any():
            why = f"{part['note'].dropna().iloc[0]}"
        else:
            why = "it has no row at the others"
        few = f"measured at {at} of {count} steps: " if at or not len(told) else ""
        reasons[str(series)] = (UNMEASURED if few else "") + few + why
    return reasons, partly
