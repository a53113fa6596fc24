"""The catalogue of estimators that are hard to judge by draws, and how often verdicts err on it.

`python tests/hard.py --runs 200 --alpha 0.001 --out rates.csv` writes a row for each case.
"""

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from unittest import mock

import pandas as pd
import scipy
import torch

from gradlab.exact.moments import Enumeration
from gradlab.user_code.under_test import Draws, EstimatorError
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, UNBIASED, Verdict
from gradlab.verification.verifying import verify
from hard_rare import RARE
from hard_rest import COLD, DEPENDENCE, ROUNDING
from hard_settings import KINDS, Hard, Setting
from hard_skew import SKEW
from significance import P_VALUE

__all__ = [
    "CASES",
    "KINDS",
    "Hard",
    "case",
    "false",
    "most",
    "outcome",
    "rates",
    "summary",
    "verdict",
]

CASES: list[Hard] = [*RARE, *SKEW, *COLD, *ROUNDING, *DEPENDENCE]

REFUSED = "refused"


def case(name: str) -> Hard:
    """Return the case of this name."""
    return {each.name: each for each in CASES}[name]


def most(alpha: float, runs: int) -> int:
    """Return what the number of errors at a rate of alpha exceeds by chance only."""
    return int(scipy.stats.binom.isf(P_VALUE, runs, alpha))


@cache
def _enumeration(setting: Setting) -> Enumeration:
    return Enumeration(setting.f, setting.logits)


def verdict(hard: Hard, alpha: float, seed: int, *, replicates: bool = False) -> Verdict:
    """Return the verdict by draws.

    Some 700 calls that ask whether draws are independent replicates, and take most of the time of
    a short trial, are left out unless `replicates`.
    """
    check = Draws.check_randomness if replicates else lambda *_: None
    with mock.patch.object(Draws, "check_randomness", check):
        return verify(
            hard.code,
            _enumeration(hard.setting),
            against=hard.against,
            method="monte-carlo",
            judge="draw",
            max_draws=hard.max_draws,
            alpha=alpha,
            seed=seed,
        )


def outcome(hard: Hard, alpha: float, seed: int) -> tuple[str, Verdict | None]:
    """Return the outcome and the verdict; "refused" and None where the code is refused.

    Dependent draws of no bias that look biased are asked whether they are independent, as `verify`
    does first.
    """
    try:
        found = verdict(hard, alpha, seed)
        if hard.dependent and hard.right and found.outcome == BIASED:
            verdict(dataclasses.replace(hard, max_draws=2**8), alpha, seed, replicates=True)
    except EstimatorError:
        return REFUSED, None
    return found.outcome, found


def false(hard: Hard, found: Verdict | None) -> bool:
    """Return whether a verdict says what is not so.

    Right code is not BIASED, wrong code is not UNBIASED; unless what makes it so comes with events
    that are rarer than those that the verdict excludes.
    """
    if found is None or found.outcome != (BIASED if hard.right else UNBIASED):
        return False
    unseen = found.unseen_rate
    return hard.hidden_rate is None or unseen is None or unseen <= hard.hidden_rate


def rates(hard: Hard, alpha: float, runs: int, first: int = 0) -> dict[str, object]:
    """Return the row of a case: the share of each outcome in runs of seeds from `first` on."""
    runs = min(runs, hard.runs)
    counts: Counter[str] = Counter()
    draws = errors = 0
    start = time.perf_counter()
    for seed in range(first, first + runs):
        end, found = outcome(hard, alpha, seed)
        counts[end] += 1
        draws += found.draws if found is not None and found.draws else 0
        errors += false(hard, found)
    made = max(runs - counts[REFUSED], 1)
    return {
        "kind": hard.kind,
        "case": hard.name,
        "right": hard.right,
        "relative_bias": 0.0 if hard.right else hard.bias,
        "hidden_rate": hard.hidden_rate,
        "dependent": hard.dependent,
        "alpha": alpha,
        "runs": runs,
        "biased": counts[BIASED] / runs,
        "unbiased": counts[UNBIASED] / runs,
        "inconclusive": counts[INCONCLUSIVE] / runs,
        "refused": counts[REFUSED] / runs,
        "errors": errors,
        "allowed": most(alpha, runs),
        "draws": draws / made,
        "max_draws": hard.max_draws,
        "seconds": time.perf_counter() - start,
    }


def table(cases: Iterable[Hard], alphas: Iterable[float], runs: int) -> pd.DataFrame:
    """Return the rows of cases at each alpha."""
    return pd.DataFrame([rates(hard, alpha, runs) for hard in cases for alpha in alphas])


def summary(rows: pd.DataFrame) -> str:
    """Return the table of docs/verdicts.md: shares of verdicts by kind, right and wrong codes."""
    lines = [
        "| kind | codes | alpha | runs | false alarms | false clearances | most of one code | "
        "decided rightly | INCONCLUSIVE | refused |",
        "|" + "---|" * 10,
    ]
    for (alpha, right, kind), part in rows.groupby(["alpha", "right", "kind"], sort=False):
        runs = part["runs"]
        shares = {
            end: (part[end] * runs).sum() / runs.sum()
            for end in ("biased", "unbiased", "inconclusive", "refused")
        }
        errors = f"{part['errors'].sum():,} of {runs.sum():,}"
        worst = part.loc[(part["errors"] / runs).idxmax()]
        lines.append(
            f"| {kind} | {len(part)} {'right' if right else 'wrong'} | {alpha:g} | "
            f"{runs.sum():,} | {errors if right else ''} | {'' if right else errors} | "
            f"{worst.errors} of {worst.runs:,} | "
            f"{shares['unbiased' if right else 'biased']:.1%} | {shares['inconclusive']:.1%} | "
            f"{shares['refused']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Write the rates of all cases, or of those of a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs of each case and alpha")
    parser.add_argument("--alpha", type=float, nargs="+", default=[1e-3], help="levels")
    parser.add_argument("--kind", nargs="+", help="kinds of difficulty, by default all")
    parser.add_argument("--case", help="a part of the names of cases")
    parser.add_argument("--out", type=Path, help="CSV file; printed without it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        each
        for each in CASES
        if (not given.kind or each.kind in given.kind) and (given.case or "") in each.name
    ]
    rows = table(cases, given.alpha, given.runs)
    if given.out:
        rows.to_csv(given.out, index=False)
    else:
        print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
