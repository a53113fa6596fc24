"""`gradlab figures`: the main job."""

from pathlib import Path
from typing import Annotated

import typer

from gradlab.cli.faults import blaming, blaming_out, fail
from gradlab.cli.options import FiguresFolder, Seed, Workers

__all__ = ["figures"]


def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Figures to make, such as temperature; see `gradlab list figures`.  "
            "[default: all]",
            metavar="NAME",
        ),
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    out: FiguresFolder = Path("figures"),
    redraw: Annotated[
        bool,
        typer.Option(
            "--redraw", help="Draw the pictures from the CSVs in --out, and compute nothing."
        ),
    ] = False,
) -> None:
    """Make the figures, each beside its rows; the same seed gives the same rows.

    Without a name, prediction is drawn from committed rows; by its name it takes about an hour.

    \b
    Example:  gradlab figures temperature trade-off --out figures
    Example:  gradlab figures --redraw
    """
    from gradlab.figures import draw, named, views

    with blaming("NAME"):
        chosen = named(names or ())
    with blaming_out(out):
        drawn = draw(chosen, out, seed, workers=workers, redraw=redraw, progress=True)
    for done in drawn:
        if not done.error:
            print(out / f"{done.name}.png")
            for added in views(done.name):
                print(out / f"{done.name}-{added}.png")
    failed = ", ".join(done.name for done in drawn if done.error)
    if failed:
        raise typer.Exit(fail(f"failed: {failed}", 1))
