"""`gradlab compare`: bias and variance of estimators on one problem."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.distributions import Distribution, read_distribution, read_structured
from gradlab.cli.faults import blaming, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Averaged,
    Draws,
    Estimators,
    File,
    Folder,
    GradientCost,
    LogitsFile,
    OwnLoss,
    ProblemName,
    Regime,
    Seed,
    Size,
    Temperatures,
    Workers,
    blaming_loss,
    in_its_dtype,
    read_estimators,
    read_loss,
)

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

__all__ = ["Method", "compare"]


class Method(StrEnum):
    """The methods of `gradlab.compare`."""

    auto = "auto"
    exact = "exact"
    monte_carlo = "monte-carlo"
    both = "both"


def compare(
    estimators: Estimators = None,
    file: File = None,
    problem: ProblemName = None,
    loss: OwnLoss = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Size = None,
    distribution: Distribution = None,
    tau: Temperatures = None,
    method: Annotated[
        Method,
        typer.Option(
            help="How moments are found; auto takes exact ones where they are known, else draws."
        ),
    ] = Method.auto,
    draws: Draws = 10_000,
    averaged: Averaged = 10.0,
    gradient_cost: GradientCost = 3.0,
    seed: Seed = 0,
    workers: Workers = None,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Measure bias and variance of estimators on one problem, against its exact gradient.

    \b
    Example:  gradlab compare ZGR ST "GR(k=10)" --tau 0.1,1 --method both --out results
    Example:  gradlab compare ZGR --file my.py:Mine --loss my.py:loss --logits logits.npy
    Example:  gradlab compare ST ZGR RF --distribution "KSubset(k=3)"
    """
    check_report(report, out)
    cells = read_estimators(estimators, tau, files=file)
    where: dict[str, Any] = {"problem": problem, "loss": loss, "logits": logits}
    where |= {"regime": regime, "size": size, "seed": seed}
    f: Any
    own: Any = None
    name = loss
    if distribution is None:
        f, own, kind = read_loss(**where)
    else:
        f, kind = read_structured(read_distribution(distribution), **where)
        name = f"{loss or problem or 'quadratic'} of {f.text}"
    make_folder(out)
    from gradlab.comparison.comparing import compare, reproducible_columns
    from gradlab.comparison.report import comparison_text
    from gradlab.exact.enumeration import TooLargeError
    from gradlab.parallel import usable_cores
    from gradlab.user_code.under_test import EstimatorError

    def measured(at: "Tensor | None") -> "DataFrame":
        return compare(
            f,
            at,
            cells,
            draws=draws,
            seed=seed,
            method=method,
            problem=name,
            logits_seed=seed if logits is None else None,
            workers=workers or usable_cores(),
            progress=True,
            averaged=averaged,
            gradient_cost=gradient_cost,
        )

    large = "--distribution" if distribution else "--logits" if logits else "--size"
    with blaming(large, TooLargeError), blaming_loss(loss), blaming("--file", EstimatorError):
        rows = in_its_dtype(measured, own, loss or "f") if own is not None else measured(None)
    rows.insert(list(rows).index("logits_seed"), "regime", kind)
    print(comparison_text(rows))
    if out is not None:
        from gradlab.plots.comparison import plot
        from gradlab.plots.files import save_with_rows

        save_with_rows(reproducible_columns(rows), plot, out, "compare")
        print(f"\n{out / 'compare.png'}")
        if report:
            write_report([out / "compare.csv"], out, averaged=averaged)
