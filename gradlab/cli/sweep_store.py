"""What is read from a store of `gradlab sweep`: its state, its rows as a file, pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.cli.faults import blaming, make_folder
from gradlab.cli.html_report import Report, check_report, write_report
from gradlab.cli.options import FiguresFolder
from gradlab.files import writing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["atlas", "export", "migrate", "plot", "status"]

_Store = Annotated[Path, typer.Argument(help="Store that `gradlab sweep run` filled.")]
# More kinds of errors than these are not listed.
_MOST = 10


def status(store: _Store) -> None:
    """Report how many cells are there, which failed and why; the store may be in use.

    \b
    Example:  gradlab sweep status small.db
    """
    from gradlab.sweep.store import read_settings, sweep_rows
    from gradlab.text import aligned

    settings, versions = read_settings(store)
    rows = sweep_rows(store)
    axes = ("problems", "sizes", "regimes", "seeds", "estimators")
    cells = 1
    for axis in axes:
        cells *= len(settings[axis])
    failed, unmeasured = rows["error"].notna(), rows["reason"].notna()
    table = [
        ("grid", " x ".join(f"{len(settings[axis])} {axis}" for axis in axes)),
        ("made by", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("rows made by", ", ".join(f"gradlab {v}" for v in sorted(rows["version"].unique()))),
        ("cells", f"{cells:,}"),
        ("measured", f"{(~failed & ~unmeasured).sum():,}"),
        ("not measurable", f"{unmeasured.sum():,}"),
        ("failed", f"{failed.sum():,}"),
        ("to do", f"{cells - len(rows):,}"),
        ("time spent", f"{rows['seconds'].sum():,.0f} s in cells"),
    ]
    print(aligned(table))
    errors = rows[failed].groupby("error")["cell"].agg(["size", "first"])
    for error, (count, cell) in errors.nlargest(_MOST, "size").iterrows():
        print(f"\n{count} failed, such as {cell}:\n  {error}")
    if len(errors) > _MOST:
        print(f"\nand {len(errors) - _MOST} other errors: gradlab sweep export {store} rows.csv")


def export(
    store: _Store,
    file: Annotated[Path, typer.Argument(help="File to write, such as rows.csv or rows.parquet.")],
    seconds: Annotated[
        bool,
        typer.Option(
            "--seconds", help="Include the seconds of each cell; they differ in each run."
        ),
    ] = False,
    report: Report = False,
) -> None:
    """Write the rows as CSV or Parquet, in the order of the grid; the same bytes for the same grid.

    \b
    Example:  gradlab sweep export small.db rows.parquet
    """
    from gradlab.comparison.comparing import reproducible_columns
    from gradlab.sweep.store import sweep_rows

    if file.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"must end with .csv or .parquet, not {file}", param_hint="FILE")
    check_report(report, file.parent)
    rows = sweep_rows(store)
    rows = rows if seconds else reproducible_columns(rows)
    rows = rows.astype({"calls": "Int64", "draws": "Int64"})
    with blaming("FILE", OSError), writing(file.parent) as new:
        if file.suffix == ".csv":
            rows.to_csv(new / file.name, index=False, lineterminator="\n")
        else:
            _write_parquet(rows, new / file.name)
    print(f"{file}: {len(rows):,} rows")
    if report:
        write_report([store], file.parent)


def migrate(
    store: _Store, new: Annotated[Path, typer.Argument(help="File to write, such as new.db.")]
) -> None:
    """Write the rows of an older store to NEW, which `gradlab sweep run` of this version continues.

    Each row says in its column `version` which version made it. The old store stays as it is.

    \b
    Example:  gradlab sweep migrate old.db new.db
    """
    from gradlab.sweep.store import StoreError, migrate, read_settings

    read_settings(store)  # its faults are not those of NEW
    with blaming("NEW", StoreError):
        count = migrate(store, new)
    print(f"{new}: {count:,} rows")


def _write_parquet(rows: "pd.DataFrame", file: Path) -> None:
    try:
        rows.to_parquet(file, index=False)
    except ImportError:
        raise typer.BadParameter(
            "Parquet needs pyarrow: pip install 'gradlab[parquet]', or write .csv",
            param_hint="FILE",
        ) from None


def plot(
    store: _Store,
    x: Annotated[str, typer.Option(help="Column along the horizontal axis.")] = "tau",
    y: Annotated[
        str,
        typer.Option(
            help="Column along the vertical axis: a number such as bias2, or relative_mse, which "
            "is over |g|^2."
        ),
    ] = "mse",
    hue: Annotated[
        str, typer.Option(help="Column with one line for each of its values.")
    ] = "estimator",
    col: Annotated[
        str, typer.Option(help="Column with one panel for each of its values.")
    ] = "problem",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Rows to draw; may be repeated, and several values of one column add up.",
        ),
    ] = None,
    out: FiguresFolder = Path("figures"),
    name: Annotated[str, typer.Option(help="Name of the files, without its ending.")] = "sweep",
    report: Report = False,
) -> None:
    """Draw one column of the rows against another; a point is the median of its rows.

    \b
    Example:  gradlab sweep plot small.db --y relative_mse --where series=ZGR --where series=GS-ST
    """
    if not name or Path(name).name != name:
        raise typer.BadParameter(f"must be a file name, not {name!r}", param_hint="--name")
    check_report(report, out)
    make_folder(out)
    from functools import partial

    from gradlab.plots.files import save_with_rows
    from gradlab.plots.sweep import plot
    from gradlab.sweep.store import sweep_rows

    with blaming("--where"):
        rows = _chosen(sweep_rows(store), where or [])
    with blaming("--x, --y, --hue, --col"):
        draw = partial(plot, x=x, y=y, hue=hue, col=col)
        save_with_rows(rows.drop(columns="seconds"), draw, out, name)
    print(out / f"{name}.png")
    if report:
        write_report([out / f"{name}.csv"], out)


def _chosen(rows: "pd.DataFrame", where: list[str]) -> "pd.DataFrame":
    """Return the rows whose columns have one of the values asked for."""
    wanted: dict[str, list[str]] = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals or column not in rows:
            raise ValueError(
                f"{text!r} is not COLUMN=VALUE of one of the columns {', '.join(rows)}"
            )
        wanted.setdefault(column, []).append(value)
    for column, values in wanted.items():
        there = rows[column].map(lambda v: f"{v:g}" if isinstance(v, float) else str(v))
        for value in values:
            if value not in set(there):
                known = ", ".join(there.drop_duplicates().head(40))
                raise ValueError(f"no row has {column}={value}; there are {known}")
        rows = rows[there.isin(values)]
    return rows


def atlas(store: _Store, out: FiguresFolder = Path("figures")) -> None:
    """Draw where ST-ZGR dominates Gumbel-Rao, and which estimator is best where.

    \b
    Example:  gradlab sweep atlas atlas.db --out figures
    """
    make_folder(out)
    from gradlab.figures.atlas.plot import plot
    from gradlab.figures.atlas.rows import findings, summary
    from gradlab.plots.files import save_with_rows
    from gradlab.sweep.store import sweep_rows

    with blaming("STORE", ValueError):
        found = summary(sweep_rows(store))
    for line in findings(found):
        print(line)
    save_with_rows(found, plot, out, "atlas")
    print(out / "atlas.png")
