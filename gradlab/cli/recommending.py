"""`gradlab recommend`: which estimator, at which temperature, for a loss and a budget."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradlab.cli.distributions import Distribution, read_distribution, read_structured
from gradlab.cli.faults import blaming, blaming_one, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Estimators,
    File,
    Folder,
    LogitsFile,
    OwnLoss,
    ProblemName,
    Regime,
    Seed,
    Size,
    Workers,
    blaming_loss,
    check_other,
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
    from gradlab.exact.structures import Structured
    from gradlab.loss import Loss

__all__ = ["recommend"]


def recommend(
    estimators: Estimators = None,
    file: File = None,
    problem: ProblemName = None,
    loss: OwnLoss = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Size = None,
    distribution: Distribution = None,
    evaluations: Annotated[
        int, typer.Option(min=1, max=10**9, help="Budget of one gradient, in evaluations of f.")
    ] = 8,
    averaged: Annotated[
        float | None,
        typer.Option(min=1, help="Number of averaged gradients.  [default: 10]"),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="Momentum m of the optimizer (beta1 of Adam) instead of --averaged, which is then "
            "(1 + m)/(1 - m), the number of gradients whose plain mean is as noisy.",
            metavar="M",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Draws at these logits that one step averages; it multiplies (1 + m)/(1 - m). "
            "Only for logits that all elements of a batch share.",
        ),
    ] = None,
    gradient_cost: Annotated[
        float | None,
        typer.Option(
            min=1, help="Cost of one f with its gradient, in evaluations of f.  [default: 3]"
        ),
    ] = None,
    measure_cost: Annotated[
        bool,
        typer.Option(
            "--measure-cost",
            help="Measure that cost on this machine; the order may differ on another.",
        ),
    ] = False,
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
        int | None,
        typer.Option(
            min=32,
            help="Draws of each estimator whose moments are not exact.  [default: 10000]",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Unbiased estimator that measures the true gradient.  [default: enumeration, and "
            "RF(m=4) where f is too large for it]",
            metavar="ESTIMATOR",
            callback=check_other("--reference"),
        ),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            help="Rows of a probe in place of a loss, as `gradlab train vae --probe` writes them: "
            "progress is the mean over the steps of the training.",
            metavar="ROWS.csv",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Steps that count with --probe, such as 100:2000, 100: or 0,100,200.  [default: "
            "all]",
            metavar="STEPS",
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
              gradlab recommend --distribution "KSubset(k=3)" --evaluations 12
              gradlab recommend --probe runs/vae/vae-probe.csv --evaluations 12 --steps 100:
    """
    check_report(report, out)
    if measure_cost and gradient_cost is not None:
        message = "give either --gradient-cost or --measure-cost"
        raise typer.BadParameter(message, param_hint="--measure-cost")
    question: dict[str, Any] = {"evaluations": evaluations, "must_be_unbiased": unbiased}
    question |= {"averaged": averaged, "momentum": momentum}
    if probe is not None:
        unused = {
            **{"ESTIMATOR": estimators, "--file": file, "--problem": problem, "--loss": loss},
            **{"--logits": logits, "--regime": regime, "--size": size, "--tau": tau},
            **{"--draws": draws, "--reference": reference, "--batch": batch},
            "--distribution": distribution,
            "--measure-cost": measure_cost or None,
        }
        given = [name for name, value in unused.items() if value]
        if given:
            message = f"leave out {', '.join(given)}: the rows say what was measured"
            raise typer.BadParameter(message, param_hint="--probe")
        make_folder(out)
        question["gradient_cost"] = gradient_cost or 3.0
        answer, kind = _of_rows(probe, steps, question), probe.name
    else:
        if steps is not None:
            raise typer.BadParameter("only with --probe", param_hint="--steps")
        question["gradient_cost"] = "measured" if measure_cost else gradient_cost or 3.0
        cells, temperatures = _estimators(estimators, file, tau)
        where: dict[str, Any] = {"problem": problem, "loss": loss, "logits": logits}
        where |= {"regime": regime, "size": size, "seed": seed}
        f: Any
        at: Any = None
        if distribution is None:
            f, at, kind = read_loss(**where)
        else:
            f, kind = read_structured(read_distribution(distribution), **where)
        make_folder(out)
        question |= {"estimators": cells, "temperatures": temperatures, "batch": batch}
        question |= {"draws": draws or 10_000, "seed": seed, "reference": reference}
        question |= {"problem": loss, "workers": workers}
        answer = _of_loss(f, at, question)
        kind = f"logits: {kind}"
    print(f"{kind}\n{answer.explain()}")
    if out is not None:
        _save(answer, kind.removeprefix("logits: "), out)
        if report:
            files = [out / f"recommend{name}.csv" for name in ("-ranking", "", "-moments")]
            write_report(
                files, out, [answer.explain()], evaluations=evaluations, averaged=answer.averaged
            )


def _of_loss(
    f: "Loss | Structured", at: "Tensor | None", question: dict[str, Any]
) -> "Recommendation":
    """Return the recommendation for a loss at its logits."""
    from gradlab.comparison.recommending import recommend
    from gradlab.parallel import usable_cores
    from gradlab.user_code.under_test import EstimatorError

    loss = question["problem"]
    question["workers"] = question["workers"] or usable_cores()
    hints = ("--evaluations", "--averaged", "--gradient-cost", "--unbiased", "--reference")
    with (
        blaming_one(*hints, "--batch", "--momentum"),
        blaming_loss(loss),
        blaming("--file", EstimatorError),
    ):
        if at is None:
            return recommend(f, progress=True, **question)
        return in_its_dtype(
            lambda logits: recommend(f, logits, progress=True, **question), at, loss or "f"
        )


def _of_rows(file: Path, steps: str | None, question: dict[str, Any]) -> "Recommendation":
    """Return the recommendation from the rows of a file."""
    from gradlab.comparison.from_rows import read_rows, recommend_from_rows

    chosen = _steps(steps)
    with blaming(f"--probe {file}"):
        rows = read_rows(file)
    with blaming_one(f"--probe {file}", "--steps", "--averaged", "--momentum", "--evaluations"):
        return recommend_from_rows(rows, steps=chosen, problem=file.stem, **question)


def _steps(text: str | None) -> Container[int] | None:
    """Return the steps that a text such as 100:2000 or 0,100 names."""
    if text is None:
        return None
    try:
        if ":" in text:
            low, high = (part.strip() for part in text.split(":"))
            return range(int(low or 0), int(high) + 1 if high else 2**63)
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r} names no steps; write 100:2000, 100: or 0,100,200"
        raise typer.BadParameter(message, param_hint="--steps") from None


def _save(answer: "Recommendation", kind: str, out: Path) -> None:
    """Write the rows, the ranking and the picture of its curves."""
    from gradlab.comparison.comparing import reproducible_columns
    from gradlab.plots.files import save_with_rows
    from gradlab.plots.recommendation import plot

    tables = {"moments": reproducible_columns(answer.rows), "ranking": answer.table}
    named = {f"recommend-{name}": table.assign(regime=kind) for name, table in tables.items()}
    write_tables(named, out)
    rows = answer.curves.assign(regime=kind)
    save_with_rows(rows, plot, out, "recommend")
    print(f"\n{out / 'recommend.png'}")


def _estimators(
    texts: Sequence[str] | None, files: Sequence[str] | None, tau: str | None
) -> tuple[list["Estimator"] | None, list[float] | None]:
    """Return the estimators asked for, or None for all, and the temperatures, or None."""
    cells = read_estimators(texts, tau, files=files) if texts or files else None
    temperatures = read_temperatures(tau)
    return cells, temperatures and sorted(temperatures)
