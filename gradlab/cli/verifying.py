"""`gradlab verify`: is it unbiased, where, and how sure is that."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.distributions import Distribution, read_distribution, read_structured
from gradlab.cli.faults import blaming, blaming_one, fail, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Delta,
    Estimators,
    File,
    LogitsFile,
    MaxDraws,
    OwnLoss,
    ProblemName,
    Regime,
    Seed,
    Size,
    Temperatures,
    blaming_loss,
    check_other,
    in_its_dtype,
    read_code,
    read_loss,
    read_temperatures,
)
from gradlab.files import write_tables

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from gradlab.exact.structures import Structured
    from gradlab.loss import Loss
    from gradlab.user_code.under_test import Code
    from gradlab.verification.order import Ladder
    from gradlab.verification.verdict import Verdict

__all__ = ["Judged", "VerifyMethod", "verify"]


class Judged(StrEnum):
    """What `gradlab.verify` judges."""

    both = "both"
    draw = "draw"
    training = "training"


class VerifyMethod(StrEnum):
    """The methods of `gradlab.verify`."""

    auto = "auto"
    exact = "exact"
    monte_carlo = "monte-carlo"


def verify(
    estimators: Estimators = None,
    file: File = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Estimator whose mean is asked for, such as ST: is it coded right as ST?  "
            "[default: the gradient]",
            metavar="ESTIMATOR",
            callback=check_other("--against"),
        ),
    ] = None,
    judge: Annotated[
        Judged,
        typer.Option(
            help="What is judged: draw, which is analysed; training, the backward of what trains; "
            "or both."
        ),
    ] = Judged.both,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples B of one call, whose mean is judged as one estimate.  [default: each "
            "sample by itself]",
            metavar="B",
        ),
    ] = None,
    problem: ProblemName = None,
    loss: OwnLoss = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Size = None,
    distribution: Distribution = None,
    tau: Temperatures = None,
    method: Annotated[
        VerifyMethod,
        typer.Option(
            help="How it is decided; auto is exact where the mean is known, else by draws."
        ),
    ] = VerifyMethod.auto,
    max_draws: MaxDraws = 2**20,
    delta: Delta = 0.05,
    alpha: Annotated[
        float,
        typer.Option(help="Rate of false alarms by draws; all tests of one estimator share it."),
    ] = 1e-3,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder where verify.csv is written, and verify-*.csv beside it."
        ),
    ] = None,
    report: Report = False,
) -> None:
    """Prove or test that estimators are unbiased where they declare it.

    Without arguments it also checks means that must be the same, and planted errors that must be
    found. For code that declares nothing the answer is how far it is exact. With --problem or
    --loss it must be unbiased there, with --against it must have that mean. The exit status is 0
    when all that is declared or asked holds, and 1 when something fails.

    \b
    Example:  gradlab verify ZGR --file my.py:MyEstimator --out results
    Example:  gradlab verify GS-ST --tau 0.1,1 --problem mlp --size 4x4
    Example:  gradlab verify ST ZGR --distribution "KSubset(k=3)"
    """
    check_report(report, out)
    with blaming_one("--delta", "--alpha", "--max-draws"):
        from gradlab.verification.verifying import check_options

        check_options(method, None, max_draws, delta, alpha, seed)
    structured = distribution is not None
    codes = _read(estimators, file, tau, OF_DISTRIBUTIONS if structured else None)
    options: dict[str, Any] = {"delta": delta, "alpha": alpha, "max_draws": max_draws}
    options |= {"seed": seed, "judge": str(judge), "batch": batch, "against": None}
    if against is not None:
        options["against"] = read_code(against, "--against")
    one = problem is not None or loss is not None
    given: dict[str, Any] = {"--method": None if method is VerifyMethod.auto else method}
    if not structured:
        given |= {"--regime": regime, "--size": size, "--logits": logits}
    for option, value in given.items():
        if value is not None and not one:
            raise typer.BadParameter("only with --problem or --loss", param_hint=option)
    where: dict[str, Any] = {"problem": problem, "loss": loss, "logits": logits}
    where |= {"regime": regime, "size": size, "seed": seed}
    make_folder(out)
    if distribution is not None:
        on, _ = read_structured(read_distribution(distribution), **where)
        with blaming_loss(loss):
            judged = _on_one if one else _ladders_on
            options |= {"method": str(method)} if one else {}
            rows, failed, told = judged(codes, on, None, options)
        tables = {"verify": rows}
    elif not one:
        rows, failed, told = _ladders(codes, options)
        tables = {"verify": rows}
        if not estimators and not file and against is None:
            more, wrong = _known(seed, delta, alpha)
            tables, failed = tables | more, failed + wrong
    else:
        f, at, _ = read_loss(**where, default=(2, 3))
        with blaming_loss(loss):
            rows, failed, told = _on_one(codes, f, at, options | {"method": str(method)})
        tables = {"verify": rows}
    if out is not None:
        files = write_tables(tables, out)
        print("", *files, sep="\n")
        if report:
            write_report(files, out, [told])
    if failed:
        raise typer.Exit(fail("; ".join(failed), 1))


# What is verified by default where x is drawn from a distribution.
OF_DISTRIBUTIONS = ("ST", "ZGR", "DARN", "ST-ZGR", "REINFORCE", "RF", "EMA", "LEARNED")


def _read(
    texts: Sequence[str] | None,
    files: Sequence[str] | None,
    tau: str | None,
    default: Sequence[str] | None = None,
) -> dict[str, "Code"]:
    """Return what is to be verified, by what a fault is blamed on."""
    from gradlab.comparison.comparing import with_temperatures
    from gradlab.estimators import ESTIMATORS

    known = texts or (() if files else default or ESTIMATORS)
    asked = {f"ESTIMATOR {text}": text for text in known}
    codes = {blamed: read_code(text, "ESTIMATOR") for blamed, text in asked.items()}
    codes |= {f"--file {text}": read_code(text, f"--file {text}") for text in files or ()}
    temperatures = read_temperatures(tau)
    if temperatures is None:
        return codes
    cells: dict[str, Code] = {}
    for blamed, code in codes.items():
        for cell in with_temperatures([code], temperatures):
            tempered = cell.temperature_field is not None
            cells[f"{blamed.split()[0]} {cell}" if tempered else blamed] = (
                cell if tempered else code
            )
    return cells


def _ladders(
    codes: dict[str, "Code"], options: dict[str, Any]
) -> tuple["pd.DataFrame", list[str], str]:
    """Verify up to which degree each is exact; print and return the table, its rows, what fails."""
    from functools import cache

    from gradlab.progress import tracked
    from gradlab.verification.order import rungs, verify_order
    from gradlab.verification.rungs import SITES

    on = cache(lambda dtype: rungs(seed=options["seed"], dtype=dtype))
    ladders = []
    for blamed, code in tracked(codes.items(), "verify", "estimators"):

        def climbed(at: "Tensor", code: "Code" = code) -> "Ladder":
            return verify_order(code, on=on(at.dtype), sites=SITES, progress=True, **options)

        with blaming(blamed):
            ladders.append(in_its_dtype(climbed, _nothing()))
    return _of_ladders(ladders)


def _ladders_on(
    codes: dict[str, "Code"], on: "Structured", _: None, options: dict[str, Any]
) -> tuple["pd.DataFrame", list[str], str]:
    """Verify up to which degree each is exact on a distribution; as `_ladders`."""
    from gradlab.progress import tracked
    from gradlab.verification.order import verify_order

    ladders = []
    at: dict[str, Any] = {"distribution": on.distribution, "logits": on.given_parameters}
    for blamed, code in tracked(codes.items(), "verify", "estimators"):
        with blaming(blamed):
            ladders.append(verify_order(code, progress=True, **at, **options))
    return _of_ladders(ladders)


def _of_ladders(ladders: Sequence["Ladder"]) -> tuple["pd.DataFrame", list[str], str]:
    """Print the table of ladders; return their rows, what fails, and the table."""
    import pandas as pd

    from gradlab.verification.report import ladder_text

    told = ladder_text(ladders)
    print(told)
    rows = pd.concat([ladder.rows() for ladder in ladders], ignore_index=True)
    failed = [
        f"{ladder.estimator}: {ladder.outcome}"
        if ladder.against
        else f"not as declared: {ladder.estimator} is {ladder.outcome}"
        for ladder in ladders
        if ladder.holds is False
    ]
    return rows, failed, told


def _nothing() -> "Tensor":
    """Return logits of no variables, which have only their dtype."""
    import torch

    return torch.zeros(0, 1, dtype=torch.float64)


def _known(seed: int, delta: float, alpha: float) -> tuple[dict[str, "pd.DataFrame"], list[str]]:
    """Check relations between means, and that planted errors are found; as `_ladders`."""
    from gradlab.verification.identities import relation_rows
    from gradlab.verification.planted_errors import REFUSED, planted_rows
    from gradlab.verification.report import planted_text, relation_text
    from gradlab.verification.verdict import BIASED, UNBIASED

    relations, planted = relation_rows(seed, delta=delta, alpha=alpha), planted_rows(seed)
    print(relation_text(relations), planted_text(planted), sep="\n")
    found = planted["outcome"].isin([BIASED, REFUSED]) & (planted["right_outcome"] == UNBIASED)
    failed = [*relations.loc[~relations["holds"], "relation"], *planted.loc[~found, "planted"]]
    told = [f"does not hold: {name}" for name in failed]
    return {"verify-relations": relations, "verify-planted": planted}, told


def _on_one(
    codes: dict[str, "Code"],
    f: "Loss | Structured",
    logits: "Tensor | None",
    options: dict[str, Any],
) -> tuple["pd.DataFrame", list[str], str]:
    """Verify each on one loss; print why; return the rows, what fails, and why."""
    from functools import cache

    import pandas as pd

    from gradlab.exact.moments import Enumeration
    from gradlab.progress import say, tracked
    from gradlab.verification.verdict import BIASED, INCONCLUSIVE
    from gradlab.verification.verifying import verify

    on = cache(lambda dtype: Enumeration(f, logits.to(dtype)))  # type: ignore
    verdicts = []
    for blamed, code in tracked(codes.items(), "verify", "estimators"):

        def judged(at: "Tensor", code: "Code" = code) -> "Verdict":
            return verify(code, on(at.dtype), progress=True, **options)

        with blaming(blamed):
            if logits is None:
                verdicts.append(verify(code, f, progress=True, **options))
            else:
                verdicts.append(in_its_dtype(judged, logits))
        say(verdicts[-1].explain(), sys.stdout)
    rows = pd.DataFrame([verdict.row() for verdict in verdicts])
    failed = []
    for verdict in verdicts:
        if verdict.holds is False:
            asked = f"not {verdict.against} in mean" if verdict.against else "not as declared"
            failed.append(f"{asked}: {verdict}")
        elif verdict.holds is None and verdict.outcome in (BIASED, INCONCLUSIVE):
            failed.append(f"not shown to be unbiased, which it does not declare: {verdict}")
    return rows, failed, "\n\n".join(verdict.explain() for verdict in verdicts)
