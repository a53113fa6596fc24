"""`gradlab recommend`: which estimator, at which temperature, for a loss and a budget."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    read_temperatures,
)

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.comparison.recommendation import Recommendation
    from gradlab.estimators import Estimator
    from gradlab.loss import Loss

__all__ = ["recommend"]


def recommend(
    loss: Annotated[
        str | None,
        typer.Argument(
            help="Your own f, such as my.py:loss: one-hot x [..., N, C] to values [...].",
            metavar="FILE.py:NAME",
        ),
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(help="Instead of your own, a loss such as mlp.  [default: quadratic]"),
    ] = None,
    logits: Annotated[
        Path | None,
        typer.Option(help="Logits [N, C] in a .npy, .pt or .csv file.", metavar="FILE"),
    ] = None,
    regime: Annotated[
        str | None,
        typer.Option(help="Without a file, logits of this kind.  [default: moderate]"),
    ] = None,
    N: Annotated[
        int | None, typer.Option("--N", min=1, help="Number of variables.  [default: 4]")
    ] = None,
    C: Annotated[
        int | None, typer.Option("--C", min=1, help="Number of classes of each.  [default: 4]")
    ] = None,
    evaluations: Annotated[
        int, typer.Option(min=1, max=10**9, help="Evaluations of f to spend on one gradient.")
    ] = 8,
    gradient_cost: Annotated[
        float, typer.Option(min=1, help="What f with its gradient costs, in evaluations of f.")
    ] = 3.0,
    unbiased: Annotated[
        bool, typer.Option("--unbiased", help="Only what is unbiased for this f.")
    ] = False,
    estimator: Annotated[
        list[str] | None,
        typer.Option(help="Only these, such as ZGR; may be repeated.  [default: all]"),
    ] = None,
    file: Annotated[list[str] | None, File] = None,
    tau: Annotated[
        str | None,
        typer.Option(help="Temperatures to choose from, such as 0.1,0.5,1.  [default: 0.03 to 10]"),
    ] = None,
    draws: Annotated[int, typer.Option(min=32, help="Draws of what is not exact.")] = 10_000,
    reference: Annotated[
        str | None,
        typer.Option(help="Measures the true gradient.  [default: RF(m=4) where not enumerable]"),
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    out: Annotated[Path | None, Folder] = None,
) -> None:
    """Rank estimators by their error at equal cost, and tell what would change the order.

    \b
    Example:  gradlab recommend my.py:loss --logits logits.npy --evaluations 8 --out results
    """
    cells, temperatures = _estimators(estimator, file, tau)
    f, at, kind = _loss_and_logits(loss, problem, logits, regime, N, C, seed)
    with staging(out) as passing:
        from gradlab.comparison.recommending import recommend
        from gradlab.parallel import usable_cores
        from gradlab.user_code.under_test import EstimatorError

        def ranked(logits: "Tensor") -> "Recommendation":
            return recommend(
                f,
                logits,
                evaluations=evaluations,
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
            blaming("--evaluations, --gradient-cost, --unbiased, --estimator, --reference"),
            _blaming_code(loss or "--problem"),
            blaming("--file", EstimatorError),
        ):
            answer = in_its_dtype(ranked, at, loss or "f")
        print(f"logits: {kind}\n{answer.explain()}")
        if out is not None:
            from gradlab.comparison.comparing import reproducible_columns
            from gradlab.plots.files import save_with_rows
            from gradlab.plots.recommendation import plot

            tables = {"moments": reproducible_columns(answer.rows), "ranking": answer.table}
            for name, table in tables.items():
                csv = f"recommend-{name}.csv"
                table.assign(regime=kind).to_csv(passing / csv, index=False, lineterminator="\n")
                os.replace(passing / csv, out / csv)
            rows = answer.curves.assign(regime=kind)
            save_with_rows(rows, plot, out, "recommend", passing)
            print(f"\n{out / 'recommend.png'}")


def _estimators(
    texts: Sequence[str] | None, files: Sequence[str] | None, tau: str | None
) -> tuple[list["Estimator"] | None, list[float] | None]:
    """Return the estimators asked for, or None for all, and the temperatures, or None."""
    cells = read_estimators(texts, tau, "--estimator", files) if texts or files else None
    temperatures = read_temperatures(tau)
    return cells, temperatures and sorted(temperatures)


def _loss_and_logits(
    loss: str | None,
    problem: str | None,
    file: Path | None,
    regime: str | None,
    N: int | None,
    C: int | None,
    seed: int,
) -> tuple["Loss", "Tensor", str]:
    """Return f, the logits, and what they are called."""
    from gradlab.user_code.objects import load_logits, load_object

    for one, other, both in ((loss, problem, "--problem"), (file, regime, "--regime")):
        if one is not None and other is not None:
            message = f"give either {one} or {both} {other}"
            raise typer.BadParameter(message, param_hint=both)
    at = None
    if file is not None:
        with blaming("--logits"):
            at = load_logits(file)
        for name, asked, size in (("--N", N, at.shape[0]), ("--C", C, at.shape[1])):
            if asked is not None and asked != size:
                raise typer.BadParameter(f"{file} has {size}, not {asked}", param_hint=name)
        N, C = at.shape
    f: Loss
    f, drawn, kind = read_problem(problem or "quadratic", N or 4, C or 4, regime, seed)
    if loss is not None:
        with blaming(loss):
            f = load_object(loss)
            if isinstance(f, type) or not callable(f):
                raise ValueError(f"it must be a function of x, not {type(f).__name__}")
    return f, drawn if at is None else at, kind if file is None else file.name


@contextmanager
def _blaming_code(name: str) -> Iterator[None]:
    """Turn a fault of the user's loss inside the block into bad usage of it."""
    from gradlab.loss import LossError
    from gradlab.user_code.objects import line_of

    try:
        yield
    except Exception as error:
        where = line_of(error)
        if isinstance(error, LossError):
            message = f"{error}{where}"
        elif where:
            message = f"it raised {type(error).__name__}: {error}{where}"
        else:
            raise
        raise typer.BadParameter(message, param_hint=name) from None
