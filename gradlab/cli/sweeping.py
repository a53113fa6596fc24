"""`gradlab sweep`: grids of cells, computed on all cores or a cluster into a store, resumable."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, fail
from gradlab.cli.options import Workers
from gradlab.cli.sweep_store import atlas, export, migrate, plot, status

if TYPE_CHECKING:
    from gradlab.sweep.grid import Grid

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_GridFile = Annotated[
    Path, typer.Argument(help="File of the grid, such as examples/atlas.toml.", metavar="GRID.toml")
]
_Store = Annotated[Path, typer.Argument(help="File that keeps the rows, such as atlas.db.")]
_Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="Dask scheduler whose workers compute.  [default: this machine]",
    ),
]
_Limit = Annotated[
    float, typer.Option(min=0.1, help="Seconds after which a cell is stopped as failed.")
]
_Memory = Annotated[
    float, typer.Option(min=1, help="Gigabytes that the process of a cell may use.")
]


# Cells from which on the time is estimated before they are run.
_MANY = 2000


@app.callback()
def sweep() -> None:
    """Compute thousands of cells: problems x sizes x logits x seeds x estimators x temperatures.

    \b
    gradlab sweep plan examples/small.toml               # how many cells, about how long
    gradlab sweep run examples/small.toml small.db       # stop it any time; again: it continues
    gradlab sweep status small.db
    gradlab sweep plot small.db --x tau --y relative_mse --hue estimator --col problem
    gradlab sweep export small.db rows.csv
    """


@app.command(short_help="Check a grid; count its cells, estimate the time.")
def plan(grid: _GridFile, memory: _Memory = 4.0) -> None:
    """Check a grid and measure some of its cells: how many there are, and about how long they take.

    \b
    Example:  gradlab sweep plan examples/small.toml
    """
    read = _read(grid)
    from gradlab.parallel import usable_cores
    from gradlab.sweep.plan import plan

    cores = usable_cores()
    found = plan(read, memory=memory)
    print(found)
    if cores > 1:
        print(f"This machine has {cores} cores.")
    if found.refused:
        cell, why = next(iter(found.refused.items()))
        print(f"Too large, and to be refused, for example {cell}:\n  {why}")


@app.command(short_help="Compute what the store lacks.")
def run(
    grid: _GridFile,
    store: _Store,
    workers: Workers = None,
    scheduler: _Scheduler = None,
    limit: _Limit = 600.0,
    memory: _Memory = 4.0,
    extend: Annotated[
        bool, typer.Option("--extend", help="Allow a grid with more cells than the store has.")
    ] = False,
) -> None:
    """Compute the cells that the store lacks; the same command continues after any interruption.

    \b
    Example:  gradlab sweep run examples/small.toml small.db
    """
    read = _read(grid)
    if not store.exists():
        from gradlab.sweep.plan import plan

        # The progress bar of a small grid says it soon enough.
        told = plan(read, memory=memory) if len(read) >= _MANY else f"{len(read):,} cells"
        print(told, file=sys.stderr)
    _run(read, store, workers, scheduler, limit=limit, memory=memory, extend=extend)


@app.command(short_help="Compute again the cells that failed.")
def retry(
    grid: _GridFile,
    store: _Store,
    workers: Workers = None,
    scheduler: _Scheduler = None,
    limit: _Limit = 600.0,
    memory: _Memory = 4.0,
) -> None:
    """Compute the cells that failed again, with more time or memory, and those that are missing.

    \b
    Example:  gradlab sweep retry examples/small.toml small.db --limit 3600 --memory 16
    """
    read = _read(grid)
    with blaming("STORE", FileNotFoundError):
        if not store.exists():
            raise FileNotFoundError(f"there is no {store}")
    _run(read, store, workers, scheduler, limit=limit, memory=memory, retry=True)


def _read(grid: Path) -> "Grid":
    with blaming("GRID.toml", (OSError, ValueError)):
        from gradlab.sweep.grid import Grid

        return Grid.from_toml(grid)


def _run(
    grid: "Grid",
    store: Path,
    workers: int | None,
    scheduler: str | None,
    *,
    limit: float,
    memory: float,
    extend: bool = False,
    retry: bool = False,
) -> None:
    from gradlab.sweep.running import run_sweep

    with blaming("--scheduler"):
        done = run_sweep(
            grid,
            store,
            workers=workers,
            scheduler=scheduler,
            limit=limit,
            memory=memory,
            extend=extend,
            retry=retry,
            progress=True,
        )
    print(f"{done.computed:,} cells computed in {done.seconds:.1f} s, {done.before:,} were there")
    if done.failed:
        message = f"{done.failed:,} cells failed; see gradlab sweep status {store}"
        raise typer.Exit(fail(message, 1))


app.command(short_help="What is there, what failed and why.")(status)
app.command(short_help="Write the rows as CSV or Parquet.")(export)
app.command(short_help="Write an older store as one that this version continues.")(migrate)
app.command(short_help="Draw any column of the rows against another.")(plot)
app.command(short_help="Does ST-ZGR dominate GR, and what is best where?")(atlas)
