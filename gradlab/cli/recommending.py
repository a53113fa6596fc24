"""`gradlab recommend`: which estimator, at which temperature, for a loss and a budget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, blaming_one, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Averaged,
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
    Workers,
    blaming_loss,
    in_its_dtype,
    read_estimators,
    read_loss,
    read_temperatures,
)
from gradlab.files import write_tables

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.comparison.recommendation import Recommendation
    from gradlab.estimators import Estimator

__all__ = ["recommend"]


def recommend(
    estimators: Estimators = None,
    file: File = None,
    problem: ProblemName = None,
    loss: OwnLoss = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Size = None,
    evaluations: Annotated[
        int, typer.Option(min=1, max=10**9, help="Budget of one gradient, in evaluations of f.")
    ] = 8,
    averaged: Averaged = 10.0,
    gradient_cost: GradientCost = 3.0,
    unbiased: Annotated[
        bool, typer.Option("--unbiased", help="Rank only estimators that are unbiased for this f.")
    ] = False,
    tau: Annotated[
        str | None,
        typer.Option(
            help="Temperatures to choose from, such as 0.1,0.5,1.  [default: 0.03 to 10]",
            metavar="TAU,...",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=32, help="Draws of each estimator whose moments are not exact.")
    ] = 10_000,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Unbiased estimator that measures the true gradient.  [default: enumeration, and "
            "RF(m=4) where f is too large for it]",
            metavar="ESTIMATOR",
        ),
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Rank estimators by their progress at equal cost, and report what would change the order.

    Progress is what a step along the mean of the averaged gradients gains, relative to a step along
    the true one.

    \b
    Example:  gradlab recommend ZGR ST RF --loss my.py:loss --logits logits.npy --evaluations 8
    """
    check_report(report, out)
    cells, temperatures = _estimators(estimators, file, tau)
    f, at, kind = read_loss(
        problem=problem, loss=loss, logits=logits, regime=regime, size=size, seed=seed
    )
    make_folder(out)
    from gradlab.comparison.recommending import recommend
    from gradlab.estimators import parse
    from gradlab.parallel import usable_cores
    from gradlab.user_code.under_test import EstimatorError

    if reference is not None:
        with blaming("--reference"):
            parse(reference)

    def ranked(logits: "Tensor") -> "Recommendation":
        return recommend(
            f,
            logits,
            evaluations=evaluations,
            averaged=averaged,
            must_be_unbiased=unbiased,
            estimators=cells,
            temperatures=temperatures,
            gradient_cost=gradient_cost,
            draws=draws,
            seed=seed,
            reference=reference,
            problem=loss,
            workers=workers or usable_cores(),
            progress=True,
        )

    with (
        blaming_one("--evaluations", "--averaged", "--gradient-cost", "--unbiased", "--reference"),
        blaming_loss(loss),
        blaming("--file", EstimatorError),
    ):
        answer = in_its_dtype(ranked, at, loss or "f")
    print(f"logits: {kind}\n{answer.explain()}")
    if out is not None:
        from gradlab.comparison.comparing import reproducible_columns
        from gradlab.plots.files import save_with_rows
        from gradlab.plots.recommendation import plot

        tables = {"moments": reproducible_columns(answer.rows), "ranking": answer.table}
        named = {f"recommend-{name}": table.assign(regime=kind) for name, table in tables.items()}
        write_tables(named, out)
        rows = answer.curves.assign(regime=kind)
        save_with_rows(rows, plot, out, "recommend")
        print(f"\n{out / 'recommend.png'}")
        if report:
            files = [out / f"recommend{name}.csv" for name in ("-ranking", "", "-moments")]
            told = [answer.explain()]
            write_report(files, out, told, evaluations=evaluations, averaged=averaged)


def _estimators(
    texts: Sequence[str] | None, files: Sequence[str] | None, tau: str | None
) -> tuple[list["Estimator"] | None, list[float] | None]:
    """Return the estimators asked for, or None for all, and the temperatures, or None."""
    cells = read_estimators(texts, tau, files=files) if texts or files else None
    temperatures = read_temperatures(tau)
    return cells, temperatures and sorted(temperatures)
