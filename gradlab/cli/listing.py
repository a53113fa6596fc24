"""`gradlab list`: what there is."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import make_folder
from gradlab.files import write_tables

if TYPE_CHECKING:
    import pandas as pd

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
        typer.Argument(
            help="What is listed: estimators, problems, regimes, figures.  [default: all]",
            metavar="KIND",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder where each list is also written, such as problems.csv."
        ),
    ] = None,
) -> None:
    """List the estimators and their properties, the problems, logits regimes and figures.

    \b
    Example:  gradlab list problems regimes
    Example:  gradlab list estimators --out tables
    """
    from gradlab.catalogue import KEY, estimator_rows, problem_rows, regime_rows
    from gradlab.text import aligned, filled

    make_folder(out)
    rows_of = dict(
        zip(Kind, (estimator_rows, problem_rows, regime_rows, _figure_rows), strict=True)
    )
    tables = {str(kind): rows_of[kind]() for kind in Kind if kind in (kinds or Kind)}
    parts = []
    for kind, rows in tables.items():
        if kind == Kind.estimators:
            parts += [aligned([list(rows), *rows.itertuples(index=False)]), aligned(KEY)]
        elif kind == Kind.regimes:
            for of, part in rows.groupby("of", sort=False):
                parts.append(f"{of}\n{filled(', '.join(part['regime']), indent='')}")
        else:
            parts.append(f"{kind}\n{aligned(rows.itertuples(index=False))}")
    print("\n\n".join(parts))
    if out is not None:
        named = {str(kind): rows for kind, rows in tables.items()}
        print("", *write_tables(named, out), sep="\n")


def _figure_rows() -> "pd.DataFrame":
    import pandas as pd

    from gradlab.figures import FIGURES, about

    return pd.DataFrame([(name, about(name)) for name in FIGURES], columns=["figure", "about"])
