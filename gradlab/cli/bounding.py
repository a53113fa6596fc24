"""`gradlab bounds`: estimators of the bound of K samples, against its exact gradient."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.catalogue import check_estimator
from gradlab.cli.faults import blaming, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import (
    Averaged,
    Draws,
    Folder,
    GradientCost,
    LogitsFile,
    ProblemName,
    Regime,
    Seed,
    Size,
    blaming_loss,
    in_its_dtype,
    read_loss,
)

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from gradlab.bounds import BoundEstimator

__all__ = ["BoundMethod", "bounds"]


def _check_estimators(texts: list[str] | None) -> list[str] | None:
    with blaming("ESTIMATOR"):
        for text in texts or ():
            check_estimator(text, "bounds")
    return texts


class BoundMethod(StrEnum):
    """The methods of `gradlab.bounds.compare`."""

    auto = "auto"
    exact = "exact"
    monte_carlo = "monte-carlo"
    both = "both"


def bounds(
    estimators: Annotated[
        list[str] | None,
        typer.Argument(
            help='Estimators of bounds, such as VIMCO, "OVIS(gamma=0)" or LE.  [default: all]',
            metavar="ESTIMATOR",
            callback=_check_estimators,
        ),
    ] = None,
    k: Annotated[
        str, typer.Option(help="Numbers of samples in the bound.", metavar="K,...")
    ] = "2,4,8",
    problem: ProblemName = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="Your own model: a function that maps one-hot z [..., N, C] to log p(x, z) [...].",
            metavar="FILE.py:NAME",
        ),
    ] = None,
    logits: LogitsFile = None,
    regime: Regime = None,
    size: Size = None,
    method: Annotated[
        BoundMethod,
        typer.Option(help="How moments are found; auto takes exact ones where they fit."),
    ] = BoundMethod.auto,
    draws: Draws = 10_000,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Unbiased estimator that measures the truth where it cannot be enumerated.",
            metavar="ESTIMATOR",
        ),
    ] = None,
    averaged: Averaged = 10.0,
    gradient_cost: GradientCost = 3.0,
    seed: Seed = 0,
    out: Folder = None,
    report: Report = False,
) -> None:
    """Measure estimators of the bound log (1/K) sum of p(x, z) / q(z) at several K.

    The values of --problem or --loss stand for log p(x, z). The logits are those of q.

    \b
    Example:  gradlab bounds VIMCO "OVIS(gamma=0)" LE --k 2,8 --loss my.py:log_joint --size 2x2
    """
    check_report(report, out)
    from gradlab.bounds.registry import ESTIMATORS, parse

    with blaming("ESTIMATOR"):
        cells = list(dict.fromkeys(parse(text) for text in estimators or ESTIMATORS))
    with blaming("--reference"):
        known = None if reference is None else _unbiased(parse(reference))
    with blaming("--k"):
        numbers = list(dict.fromkeys(_number(text) for text in k.split(",")))
    f, own, kind = read_loss(
        problem=problem,
        loss=loss,
        logits=logits,
        regime=regime,
        size=size,
        seed=seed,
        default=(2, 2),
    )
    make_folder(out)
    from gradlab.bounds.comparing import compare
    from gradlab.comparison.comparing import reproducible_columns
    from gradlab.exact.enumeration import TooLargeError

    def measured(at: "Tensor") -> "DataFrame":
        return compare(
            f,
            at,
            cells,
            numbers,
            draws,
            seed,
            method=method,
            problem=loss,
            logits_seed=seed if logits is None else None,
            reference=known,
            averaged=averaged,
            gradient_cost=gradient_cost,
        )

    with blaming("--k, --size, --reference", TooLargeError), blaming_loss(loss):
        rows = in_its_dtype(measured, own, loss or "log_joint")
    print(_text(rows, kind))
    if out is not None:
        _write(reproducible_columns(rows), out, averaged, report)


def _number(text: str) -> int:
    from gradlab.checks import check_int

    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number; write for example 2,4,8") from None
    check_int("k", number, 1)
    return number


def _unbiased(estimator: "BoundEstimator") -> "BoundEstimator":
    if not estimator.unbiased:
        raise ValueError(f"the reference must be unbiased, which {estimator} is not")
    return estimator


def _write(rows: "DataFrame", out: Path, averaged: float, report: bool) -> None:
    from gradlab.plots.bounds import plot
    from gradlab.plots.files import save_with_rows

    save_with_rows(rows, plot, out, "bounds")
    print(f"\n{out / 'bounds.png'}")
    if report:
        write_report([out / "bounds.csv"], out, averaged=averaged)


def _text(rows: "DataFrame", kind: str) -> str:
    """Return the rows as a table; what could not be measured as reasons."""
    from gradlab.text import aligned, filled

    measured = rows[rows["reason"].isna()]
    lines = [("estimator", "K", "cost", "bias / |g|", "sd / |g|", "progress", "how")]
    for row in measured.to_dict("records"):
        length = row["truth2"] or 1.0
        sd, bias, error = (row[c] / length for c in ("variance", "bias2", "bias2_se"))
        shown = "0" if bias < 1e-18 else f"{bias**0.5:.3g}"
        if error > 0 and bias < 2 * error:  # noise hides it
            shown = f"< {(max(bias, 0.0) + 2 * error) ** 0.5:.3g}"
        how = "exact" if row["method"] == "exact" else f"{row['draws']:,.0f} draws"
        progress = f"{row['progress']:.3f}"
        cells = (f"{row['cost']:g}", shown, f"{sd**0.5:.3g}", progress, how)
        lines.append((row["estimator"], str(row["K"]), *cells))
    text = f"{rows['problem'].iloc[0]} as log p(x, z), logits of q: {kind}\n"
    about = (
        "Bias and standard deviation of one draw, relative to the length of the gradient; progress "
        f"is that of the mean of {rows['averaged'].max():g}."
    )
    if len(measured):
        text += f"{filled(about, indent='')}\n\n{aligned(lines)}"
    for column, title in (("reason", "not measured"), ("note", "notes")):
        told = rows[rows[column].notna()].drop_duplicates(["estimator", column])
        if len(told):
            text += f"\n\n{title}\n"
            text += "\n".join(
                filled(f"{row['estimator']}, K = {row['K']}: {row[column]}")
                for row in told.to_dict("records")
            )
    return text
