"""`gradlab list`: what there is."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gradlab.cli.faults import staging

__all__ = ["list_"]


def list_(
    seed: Annotated[int, typer.Option(help="Changes nothing here.", show_default=False)] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where estimators.csv is written.")
    ] = None,
) -> None:
    """List the estimators and their properties, the problems, logits regimes and figures.

    \b
    Example:  gradlab list
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
    print(aligned([list(rows), *rows.itertuples(index=False)]), aligned(KEY), sep="\n\n")
    print("\nproblems", aligned(problem_table()), sep="\n")
    print(f"\nregimes of logits\n{filled(', '.join(REGIMES), indent='')}")
    print(f"\nsnapshots of vae\n{filled(', '.join(SNAPSHOTS), indent='')}")
    print("\nfigures", aligned((name, about(name)) for name in FIGURES), sep="\n")
