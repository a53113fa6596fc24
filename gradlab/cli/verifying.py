"""`gradlab verify`: is it unbiased, where, and how sure is that."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.options import Seed, read_problem
from gradlab.usage import blaming, fail, staging

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from gradlab.draws import Code
    from gradlab.problems import Problem

__all__ = ["VerifyMethod", "verify"]


class VerifyMethod(StrEnum):
    """The methods of `gradlab.verify`."""

    auto = "auto"
    exact = "exact"
    draws = "draws"


def verify(
    estimators: Annotated[
        list[str] | None,
        typer.Argument(
            help='Such as ZGR or "GR(tau=0.1, k=10)"; see `gradlab list`.  [default: all]',
            metavar="ESTIMATOR",
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own: an Estimator, draw(f, logits, n, generator), surrogate(f, logits, "
            "generator) or sample(logits, generator), such as my.py:MyEstimator.",
            metavar="FILE.py:NAME",
        ),
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(help="One loss, such as cubic or mlp.  [default: a ladder of nine]"),
    ] = None,
    N: Annotated[int, typer.Option("--N", min=1, help="Number of variables of PROBLEM.")] = 2,
    C: Annotated[int, typer.Option("--C", min=1, help="Number of classes of PROBLEM.")] = 3,
    regime: Annotated[
        str | None,
        typer.Option(help="The logits of PROBLEM.  [default: moderate; for vae its encoder's]"),
    ] = None,
    method: Annotated[
        VerifyMethod, typer.Option(help="auto: exact where the mean is known, else by draws.")
    ] = VerifyMethod.auto,
    max_draws: Annotated[
        int, typer.Option(min=256, help="Draws after which a trial is given up as INCONCLUSIVE.")
    ] = 2**18,
    delta: Annotated[
        float, typer.Option(help="By draws: a bias below this share of |gradient| counts as none.")
    ] = 0.05,
    alpha: Annotated[
        float, typer.Option(help="By draws: rate of false alarms of one trial.")
    ] = 1e-3,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where verify.csv, and more of that name, is written."),
    ] = None,
) -> None:
    """Prove or test that estimators are unbiased where they declare it.

    Without arguments also: means that are the same, and planted errors that must be found. Status 0
    when all that is declared holds, 1 when something fails.

    \b
    Example:  gradlab verify ZGR --file my.py:MyEstimator --out results
    """
    with blaming("--delta, --alpha, --max-draws"):
        from gradlab.verification import check_options

        check_options(method, None, max_draws, delta, alpha, seed)
    codes = _read(estimators, file)
    options = {"delta": delta, "alpha": alpha, "max_draws": max_draws, "seed": seed}
    if problem is None and method is not VerifyMethod.auto:
        raise typer.BadParameter("only with --problem", param_hint="--method")
    if problem is None and regime is not None:
        raise typer.BadParameter("only with --problem", param_hint="--regime")
    with staging(out) as passing:
        if problem is None:
            rows, failed = _ladders(codes, options)
            tables = {"verify": rows}
            if not estimators and not file:
                more, wrong = _known(seed, delta, alpha)
                tables, failed = tables | more, failed + wrong
        else:
            f, logits, _ = read_problem(problem, N, C, regime, seed)
            rows, failed = _on_one(codes, f, logits, options | {"method": str(method)})
            tables = {"verify": rows}
        if out is not None:
            print()
            for name, table in tables.items():
                table.to_csv(passing / f"{name}.csv", index=False, lineterminator="\n")
                os.replace(passing / f"{name}.csv", out / f"{name}.csv")
                print(out / f"{name}.csv")
    if failed:
        raise typer.Exit(fail(f"not as declared: {'; '.join(failed)}", 1))


def _read(texts: Sequence[str] | None, files: Sequence[str] | None) -> dict[str, "Code"]:
    """Return what is to be verified, by what a fault is blamed on."""
    from gradlab.draws import draws_of
    from gradlab.estimators import ESTIMATORS, parse
    from gradlab.user_code import load_object

    codes: dict[str, Code] = {}
    for text in texts or (() if files else ESTIMATORS):
        with blaming("ESTIMATOR"):
            codes[f"ESTIMATOR {text}"] = parse(text)
    for text in files or ():
        blamed = f"--file {text}"
        with blaming(blamed, (ValueError, TypeError)):
            codes[blamed] = load_object(text)
            draws_of(codes[blamed])
    return codes


def _ladders(codes: dict[str, "Code"], options: dict[str, Any]) -> tuple["pd.DataFrame", list[str]]:
    """Verify up to which degree each is exact; print a table; return its rows and what fails."""
    import pandas as pd

    from gradlab.ladder import rungs, verify_order
    from gradlab.progress import tracked
    from gradlab.verdict_text import ladder_text

    on = rungs(seed=options["seed"])
    ladders = []
    for blamed, code in tracked(codes.items(), "verify", "estimators"):
        with blaming(blamed):
            ladders.append(verify_order(code, on=on, progress=True, **options))
    print(ladder_text(ladders))
    rows = pd.concat([ladder.rows() for ladder in ladders], ignore_index=True)
    failed = [f"{ladder.estimator} is {ladder.outcome}" for ladder in ladders if not ladder.holds]
    return rows, failed


def _known(seed: int, delta: float, alpha: float) -> tuple[dict[str, "pd.DataFrame"], list[str]]:
    """Check relations between means, and that planted errors are found; as `_ladders`."""
    from gradlab.planted import REFUSED, planted_rows
    from gradlab.relations import relation_rows
    from gradlab.verdict import BIASED, UNBIASED
    from gradlab.verdict_text import planted_text, relation_text

    relations, planted = relation_rows(seed, delta=delta, alpha=alpha), planted_rows(seed)
    print(relation_text(relations), planted_text(planted), sep="\n")
    found = planted["outcome"].isin([BIASED, REFUSED]) & (planted["right_outcome"] == UNBIASED)
    failed = [*relations.loc[~relations["holds"], "relation"], *planted.loc[~found, "planted"]]
    return {"verify-relations": relations, "verify-planted": planted}, failed


def _on_one(
    codes: dict[str, "Code"], f: "Problem", logits: "Tensor", options: dict[str, Any]
) -> tuple["pd.DataFrame", list[str]]:
    """Verify each on one loss; print why; return the rows and what fails."""
    import pandas as pd

    from gradlab.exact.moments import Enumeration
    from gradlab.progress import say, tracked
    from gradlab.verification import verify

    on = Enumeration(f, logits)
    verdicts = []
    for blamed, code in tracked(codes.items(), "verify", "estimators"):
        with blaming(blamed):
            verdicts.append(verify(code, f, logits, enumeration=on, progress=True, **options))
        say(verdicts[-1].explain(), sys.stdout)
    rows = pd.DataFrame([verdict.row() for verdict in verdicts])
    return rows, [str(v) for v in verdicts if not v.holds]
