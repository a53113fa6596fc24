"""`gradlab cite`: what to cite."""

from typing import Annotated

import typer

from gradlab.cli.faults import blaming

__all__ = ["cite"]


def cite(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Estimators, as `gradlab list estimators` has them, or gradlab itself.",
        ),
    ],
) -> None:
    """Print the BibTeX entries of the papers that introduced these estimators, each once.

    \b
    Example:  gradlab cite gradlab ZGR "GR(tau=0.5, k=10)" RF >> paper.bib
    """
    from gradlab.citations import bibtex

    with blaming("NAME"):
        print(bibtex(names))
