"""`gradlab compare`: estimators x temperatures on one problem."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, staging
from gradlab.cli.options import (
    File,
    Folder,
    Seed,
    Workers,
    in_its_dtype,
    read_estimators,
    read_problem,
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
    estimators: Annotated[
        list[str] | None,
        typer.Argument(
            help='Such as ZGR or "GR(tau=0.1, k=10)"; see `gradlab list`.  [default: all]',
            metavar="ESTIMATOR",
        ),
    ] = None,
    file: Annotated[list[str] | None, File] = None,
    problem: Annotated[
        str, typer.Option(help="The loss, such as cubic, polynomial:5 or vae:long.")
    ] = "quadratic",
    N: Annotated[int, typer.Option("--N", min=1, help="Number of variables.")] = 4,
    C: Annotated[int, typer.Option("--C", min=1, help="Number of classes of each.")] = 4,
    regime: Annotated[
        str | None,
        typer.Option(help="The logits.  [default: moderate; for vae its encoder's]"),
    ] = None,
    tau: Annotated[
        str | None,
        typer.Option(help="Temperatures, such as 0.1,0.5,1, for all estimators that have one."),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="auto: exact where known, Monte Carlo where not.")
    ] = Method.auto,
    draws: Annotated[
        int, typer.Option(min=32, help="Draws of each estimator in Monte Carlo.")
    ] = 10_000,
    seed: Seed = 0,
    workers: Workers = None,
    out: Annotated[Path | None, Folder] = None,
) -> None:
    """Measure bias and variance of estimators on one problem, against its exact gradient.

    \b
    Example:  gradlab compare ZGR ST "GR(k=10)" --tau 0.1,1 --method both --out results
    """
    cells = read_estimators(estimators, tau, files=file)
    f, logits, regime = read_problem(problem, N, C, regime, seed)
    with staging(out) as passing:
        from gradlab.comparison.comparing import compare, reproducible_columns
        from gradlab.comparison.report import comparison_text
        from gradlab.exact.enumeration import TooLargeError
        from gradlab.parallel import usable_cores
        from gradlab.user_code.under_test import EstimatorError

        def measured(at: "Tensor") -> "DataFrame":
            return compare(
                f,
                at,
                cells,
                draws=draws,
                seed=seed,
                method=method,
                logits_seed=seed,
                workers=workers or usable_cores(),
                progress=True,
            )

        with blaming("--N, --C", TooLargeError), blaming("--file", EstimatorError):
            rows = in_its_dtype(measured, logits)
        rows.insert(list(rows).index("logits_seed"), "regime", regime)
        print(comparison_text(rows))
        if out is not None:
            from gradlab.plots.comparison import plot
            from gradlab.plots.files import save_with_rows

            save_with_rows(reproducible_columns(rows), plot, out, "compare", passing)
            print(f"\n{out / 'compare.png'}")
