"""`gradlab list`: what there is."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gradlab.cli.faults import staging

__all__ = ["Kind", "list_"]


class Kind(StrEnum):
    """What there is."""

    estimators = "estimators"
    problems = "problems"
    regimes = "regimes"
    figures = "figures"


def list_(
    kinds: Annotated[
        list[Kind] | None,
        typer.Argument(help="What to list.  [default: all]", metavar="KIND", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where estimators.csv is written.")
    ] = None,
) -> None:
    """List the estimators and their properties, the problems, logits regimes and figures.

    \b
    Example:  gradlab list problems regimes
    """
    from gradlab.catalogue import KEY, estimator_rows, problem_table
    from gradlab.figures import FIGURES, about
    from gradlab.problems import REGIMES, SNAPSHOTS
    from gradlab.text import aligned, filled

    with staging(out) as passing:
        rows = estimator_rows()
        if out is not None:
            rows.to_csv(passing / "estimators.csv", index=False, lineterminator="\n")
            os.replace(passing / "estimators.csv", out / "estimators.csv")
    wanted = set(kinds or Kind)
    parts = []
    if Kind.estimators in wanted:
        parts += [aligned([list(rows), *rows.itertuples(index=False)]), aligned(KEY)]
    if Kind.problems in wanted:
        parts.append(f"problems\n{aligned(problem_table())}")
    if Kind.regimes in wanted:
        parts.append(f"regimes of logits\n{filled(', '.join(REGIMES), indent='')}")
        parts.append(f"snapshots of vae\n{filled(', '.join(SNAPSHOTS), indent='')}")
    if Kind.figures in wanted:
        parts.append(f"figures\n{aligned((name, about(name)) for name in FIGURES)}")
    print("\n\n".join(parts))
