"""The atlas of a sweep: where ST-ZGR dominates Gumbel-Rao, and which estimator is best where.

The rows of many problems, sizes, kinds of logits and seeds are summed up in a few; nothing is
measured here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from gradlab.comparison.dominance import dominated, dominated_share
from gradlab.comparison.ranking import averaged_error, progress_at

__all__ = ["BUDGET", "findings", "st_zgr_plane", "summary"]

BUDGET = 12
"""Evaluations of f that a gradient may cost where estimators are compared at equal cost."""

SCALES = {"raw": "", "scale-free": "scale_free_"}
GUMBEL_RAO = ("GR(k=inf)", "GR(k=10)")
# ST-ZGR at alpha = 0, 1, 2.
NODES = ("ST", "ZGR", "DARN")
EVEN_ALPHA = np.linspace(0, 1, 101)
# As the dominating curve ST-ZGR is resolved most finely near ZGR, where cold GR ends.
FINE_ALPHA = 1 - np.linspace(1, 0, 201) ** 2
TEMPERATURES = 151
MARGIN = 1e-6  # well above rounding
ROUNDING = 1e-20  # squares below this share of |g|^2 are zero up to it

EQUAL_COST = f"{BUDGET} evaluations"
GRADIENTS = 100
"""Gradients whose mean progress is of: those of a batch and of an optimizer's memory."""

KIND = ["problem", "N", "C", "regime"]
CASE = [*KIND, "logits_seed"]
COLUMNS = [
    *("kind", *CASE, "scale", "series", "dominated_by", "share", "points", "tau_low", "tau_high"),
    *("criterion", "error", "error_se", "tau", "wins", "seeds", "method", "reason", "count"),
]

_COUNTS = dict.fromkeys(["N", "C", "logits_seed", "points", "wins", "seeds", "count"], "Int64")

Array = NDArray[np.float64]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the atlas of the rows of a sweep, with three kinds of rows in the column `kind`.

    `rows`: as from `gradlab.compare`, one for each estimator, with the columns `regime` and `error`
    (why it failed).

    "domination": for each problem, size, regime and seed, the `share` of `series` that
    `dominated_by` dominates in the plane of bias^2 and variance, on the `scale` raw and scale-free:
    of GR(k=inf) and GR(k=10), over the logarithm of the temperature, by ST-ZGR, alpha in [0, 1],
    and the other way round. `tau_low`, `tau_high`: the lowest and the highest temperature that is
    dominated. Only exact rows count. GR is known at `points` temperatures; between them its log
    bias^2 and log variance are cubic splines in log tau: of 20 from 0.01 to 10 the error of a share
    is 0.001 on average, 0.1 at most (180 problems against 151 temperatures). Better counts however
    little (1e-6): where the curves nearly touch, as cold GR and ZGR do, that decides. At 0.1 %
    shares change by 0.02 on average, 0.4 at most, and GR(k=inf) is wholly dominated half as often.
    At uniform logits both are one curve, up to scale: the shares say nothing there. A share that
    does not exist is NaN, with the `reason`.

    "best": for each problem, size, regime and series, by three criteria, the `error`: the median
    over `seeds` seeds, each at its own best temperature, of which `tau` is the median. The criteria
    are the mean squared error in units of |g|^2 of "one draw" and of "12 evaluations" of f, and
    "progress": 1 - progress of the mean of 100 gradients of 12 evaluations each. A draw counts as
    `cost` evaluations of the row, so that bias2 + variance cost / 12 is the error at equal cost, a
    rate: the number of draws need not be whole. In `wins` seeds no other series has less; those
    that tie all win. The least of noisy Monte Carlo errors is too small on average: temperatures
    and winners are chosen by the error + 2 standard errors. `error_se`: the median standard error
    of the chosen, 0 if exact.

    "left out": `count` of rows of a series that are not in "best", by their `reason`.

    Raises ValueError if there are no rows or columns are missing.
    """
    missing = [column for column in [*_MOMENTS, *_OTHERS] if column not in rows]
    if missing or rows.empty:
        need = f"have the columns {', '.join(missing)}" if missing else "not be empty"
        raise ValueError(f"rows must {need}: those of gradlab.compare with regime and error")
    rows = rows.reset_index(drop=True).assign(reason=_reason)
    tables = {
        "domination": pd.DataFrame(_domination(rows)),
        "best": _best(rows[rows["reason"].isna()]),
        "left out": rows.groupby(["series", "reason"], sort=False).size().reset_index(name="count"),
    }
    found = [table.assign(kind=kind) for kind, table in tables.items() if len(table)]
    return pd.concat(found, ignore_index=True).reindex(columns=COLUMNS).astype(_COUNTS)


def st_zgr_plane(rows: pd.DataFrame, alpha: ArrayLike, *, scale_free: bool = False) -> Array:
    r"""Return (bias^2, variance) [A, 2] of ST-ZGR(alpha) from the rows of ST, ZGR and DARN.

    Along alpha the mean m is linear and the variance quadratic, so that bias^2, <m, g>, |m|^2 and
    |m|^2 |g|^2 - <m, g>^2 are polynomials of degree <= 2: their values at alpha = 0, 1, 2 are all
    of them. With the angle t between m and g the rows have them as

    .. math:: |m|^2 = \frac{|g|^2\, variance}{scale\_free\_variance}, \quad
        \sin^2 \frac t2 = \frac{1 - cosine}2 = \frac{scale\_free\_bias2}{4 |g|^2}.

    The sine, unlike the cosine, keeps the digits of a small angle. `rows`: exact ones of one
    problem. `scale_free`: of draws rescaled so that |m| = |g|. NaN where a row is missing and, if
    scale-free, where m or its variance is 0 at a node or m is 0 at alpha.
    """
    nodes = rows.set_index("series").reindex(NODES)
    bias2, variance, truth2 = (nodes[c].to_numpy(float) for c in ("bias2", "variance", "truth2"))
    if not scale_free:
        plane = _parabola(bias2, alpha), _parabola(variance, alpha)
        return np.stack(plane, -1).clip(0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = nodes["scale_free_bias2"].to_numpy(float) / (4 * truth2)
        length2 = variance * truth2 / nodes["scale_free_variance"].to_numpy(float)
        along = _parabola(np.sqrt(length2) * (1 - 2 * half), alpha)
        across2 = _parabola(length2 * 4 * half * (1 - half), alpha).clip(0.0)
        sine = np.sin(np.arctan2(np.sqrt(across2), along) / 2)
        variance = _parabola(variance, alpha) / (along**2 + across2)
    return truth2[0] * np.stack([4 * sine**2, variance], -1)


def _parabola(values: Array, alpha: ArrayLike) -> Array:
    """Return at alpha the parabola through the values at 0, 1 and 2."""
    x = np.asarray(alpha, dtype=float)
    return np.stack([(1 - x) * (2 - x) / 2, x * (2 - x), x * (x - 1) / 2], -1) @ values


def _reason(rows: pd.DataFrame) -> pd.Series:
    """Return why a row is not compared with others, NaN where it is."""
    reason = rows["reason"].astype(object).where(rows["reason"].notna(), rows["error"])
    reason = reason.mask(reason.isna() & (rows["truth2"] == 0), _NO_GRADIENT)
    return reason.mask(reason.isna() & rows["mse_se"].isna(), "too few draws for an error")


_NO_GRADIENT = "the true gradient is 0"


def _domination(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the shares of each case, raw and scale-free, for each series of Gumbel-Rao."""
    known = (rows["method"] == "exact") & rows["variance"].notna()
    exact = rows.loc[known & rows["series"].isin([*NODES, *GUMBEL_RAO]), _MOMENTS]
    for key, part in exact.groupby(CASE, sort=False, dropna=False):
        families = dict(list(part.sort_values("tau").groupby("series")))
        line = part[part["tau"].isna()]
        truth2 = part["truth2"].iloc[0]
        for scale, prefix in SCALES.items():
            found = st_zgr_plane(line, [*EVEN_ALPHA, *FINE_ALPHA], scale_free=scale == "scale-free")
            even, fine = np.split(found, [len(EVEN_ALPHA)])
            for series in GUMBEL_RAO:
                rao = families.get(series, part[:0])
                plane = rao[[f"{prefix}bias2", f"{prefix}variance"]].to_numpy(float)
                row = dict(zip(CASE, key, strict=True)) | {"scale": scale, "points": len(rao)}
                shares: tuple[dict[str, Any], dict[str, Any]] = {}, {}
                if truth2 == 0:
                    row["reason"] = _NO_GRADIENT
                elif len(rao) < 2 or not set(NODES) <= set(families):
                    row["reason"] = f"not exact: {series} at two temperatures, ST, ZGR and DARN"
                elif not all(np.isfinite(curve).all() for curve in (even, fine, plane)):
                    row["reason"] = "a mean or its variance is 0"
                else:
                    log_tau = np.log(rao["tau"].to_numpy(float))
                    shares = _shares(log_tau, plane, even, fine, ROUNDING * truth2)
                yield row | {"series": series, "dominated_by": "ST-ZGR"} | shares[0]
                yield row | {"series": "ST-ZGR", "dominated_by": series} | shares[1]


_SQUARES = ["truth2", "bias2", "variance", "scale_free_bias2", "scale_free_variance"]
_MOMENTS = [*CASE, "series", "tau", *_SQUARES]
_OTHERS = ["cost", "method", "bias2_se", "variance_se", "mse_se", "cosine", "cosine_se"]
_OTHERS += ["scale_free_variance_se", "reason", "error"]


def _shares(
    log_tau: Array, rao: Array, even: Array, fine: Array, zero: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the shares of Gumbel-Rao, with its temperatures, and of ST-ZGR; below `zero` is 0."""
    grid = np.linspace(log_tau[0], log_tau[-1], TEMPERATURES)
    curve = np.exp(scipy.interpolate.CubicSpline(log_tau, np.log(rao.clip(zero / 2)))(grid))
    curve, even, fine = (np.where(plane < zero, 0.0, plane) for plane in (curve, even, fine))
    worse = dominated(curve, fine, margin=MARGIN)
    of_rao = {"share": worse.mean()}
    if worse.any():
        of_rao |= dict(zip(("tau_low", "tau_high"), np.exp(grid[worse][[0, -1]]), strict=True))
    return of_rao, {"share": dominated_share(even, curve, margin=MARGIN)}


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the least errors of each series, medians over seeds, and how often they win."""
    found = []
    for criterion, (error, error_se) in _errors(rows).items():
        table = rows[[*CASE, "series", "tau", "method"]]
        table = table.assign(criterion=criterion, error=error, error_se=error_se)
        table = table.dropna(subset=["error", "error_se"])  # a length is lost in noise
        table["limit"] = table["error"] + 2 * table["error_se"]
        of_series = table.groupby([*CASE, "series"], sort=False, dropna=False)["limit"]
        best = table.loc[of_series.idxmin()]
        least = best.groupby(CASE, dropna=False)["limit"].transform("min")
        found.append(best.assign(wins=best["limit"] <= least * (1 + MARGIN)))
    return (
        pd.concat(found)
        .groupby([*KIND, "criterion", "series"], sort=False)
        .agg(
            error=("error", "median"),
            error_se=("error_se", "median"),
            tau=("tau", "median"),
            wins=("wins", "sum"),
            seeds=("wins", "size"),
            method=("method", "max"),
        )
        .reset_index()
    )


def _errors(rows: pd.DataFrame) -> dict[str, tuple[Array, Array]]:
    """Return each row's error and its standard error, by every criterion."""
    truth2, paid = rows["truth2"].to_numpy(float), BUDGET / rows["cost"].to_numpy(float)
    found = {}
    for criterion, draws in (("one draw", np.ones_like(paid)), (EQUAL_COST, paid)):
        error, error_se = averaged_error(rows, draws)
        found[criterion] = error / truth2, error_se / truth2
    progress, progress_se = progress_at(rows, GRADIENTS * paid)
    lost = 1 - progress
    # All that is lost to rounding is lost alike.
    return found | {"progress": (np.where(abs(lost) < 1e-12, 0.0, lost), progress_se)}


def findings(summary: pd.DataFrame) -> list[str]:
    """Return what `summary` says in short sentences, every number computed from it.

    A lead is the share of Gumbel-Rao that ST-ZGR dominates less the share of ST-ZGR dominated by
    it, in points.
    """
    shares, best, left = (summary[summary["kind"] == k] for k in ("domination", "best", "left out"))
    of_rao = shares[shares["dominated_by"] == "ST-ZGR"]
    found = []
    for (scale, series), part in of_rao.groupby(["scale", "series"], sort=False):
        other = shares[(shares["scale"] == scale) & (shares["dominated_by"] == series)]
        two = [table.set_index(CASE)["share"].astype(float) for table in (part, other)]
        both = pd.concat(two, axis=1, keys=["rao", "line"]).dropna()
        middle, whole = both.median(), (both == 1).mean()
        lead = 100 * (both["rao"] - both["line"])
        kinds = lead.groupby(KIND).median()
        leads = [lead.groupby(by, sort=False).median().items() for by in ("problem", "regime")]
        told = ", ".join(f"{name} {value:+.0f}" for by in leads for name, value in by)
        found += [
            f"{scale}, {len(both):,} problems: ST-ZGR dominates a median of {middle['rao']:.0%} of "
            f"{series}, which dominates {middle['line']:.0%} of ST-ZGR; the whole curve in "
            f"{whole['rao']:.0%} and {whole['line']:.0%} of the problems.",
            f"{scale}: ST-ZGR leads {series} in {(kinds > 0).sum()} of {len(kinds)} kinds of "
            f"problems and trails in {(kinds < 0).sum()}; median lead in points: {told}. Dominated "
            f"temperatures: {part['tau_low'].median():.2g} to {part['tau_high'].median():.2g}.",
        ]
    for criterion, part in best.groupby("criterion", sort=False):
        wins = part.groupby("series")["wins"].sum().nlargest(6)
        told = ", ".join(f"{series} {number:.0f}" for series, number in wins.items() if number)
        found.append(f"{criterion}: least error in how many of the problems: {told}.")
    counts = left.groupby("series")["count"].sum().sort_values(ascending=False)
    if len(counts):
        told = ", ".join(f"{series} {number:,.0f}" for series, number in counts.items())
        found.append(f"{counts.sum():,.0f} rows left out: {told}.")
    return found
