"""`gradlab report`: one HTML file of rows, verdicts and trainings; `--report` of other commands."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gradlab.cli.faults import blaming, command_words, make_folder

__all__ = ["Report", "check_report", "report", "write_report"]

NAME = "report.html"

Report = Annotated[
    bool,
    typer.Option("--report", help="Write report.html too: one page of the rows, for any browser."),
]


def report(
    things: Annotated[
        list[Path],
        typer.Argument(
            help="Rows of compare, recommend, verify, bounds, policy, time, train or a probe "
            "(.csv, .parquet), a store of a sweep (.db), or a folder that --out filled.",
            metavar="ROWS",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="File to write; its folder is made.", metavar="FILE.html")
    ] = Path(NAME),
    title: Annotated[
        str | None, typer.Option(help="Title of the page.  [default: the names of the rows]")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10**9,
            help="Budget of one gradient at which measured rows are ranked, in evaluations of f.  "
            "[default: what the dearest estimator costs]",
        ),
    ] = None,
    averaged: Annotated[
        float | None,
        typer.Option(
            min=1, help="Number of averaged gradients.  [default: what the rows were made with]"
        ),
    ] = None,
) -> None:
    """Write one HTML file of rows: the answer, pictures, a table, verdicts, origin, citations.

    The file needs no network and no other file. It has at most 3 MB: of more rows than fit it
    shows medians, and says so.

    \b
    Example:  gradlab report results/compare.csv results/verify.csv --out report.html
    Example:  gradlab report runs/vae --out runs/vae/report.html
    """
    from gradlab.report import ReportError, write

    if out.is_dir() or out.suffix not in (".html", ".htm"):
        raise typer.BadParameter(f"must end with .html, not {out}", param_hint="--out")
    if title is not None and not title.strip():
        raise typer.BadParameter("must not be empty", param_hint="--title")
    make_folder(out.parent)
    with blaming("ROWS", (ReportError, OSError)):
        write(
            things,
            out,
            title=title,
            evaluations=evaluations,
            averaged=averaged,
            command=command_words(),
        )
    print(out)


def check_report(asked: bool, out: Path | None) -> None:
    """Blame --report before anything is computed, if no report can be written afterwards."""
    if not asked:
        return
    if out is None:
        raise typer.BadParameter("needs --out, the folder of report.html", param_hint="--report")
    from gradlab.report import ReportError
    from gradlab.report.pictures import library

    with blaming("--report", ReportError):
        library()


def write_report(
    files: Iterable[Path],
    folder: Path,
    told: Sequence[str] = (),
    *,
    evaluations: int | None = None,
    averaged: float | None = None,
) -> None:
    """Write folder/report.html of files that a command has written, and print its path.

    `told` are the words of the command on the first sources.
    """
    from gradlab.report import ReportError, write
    from gradlab.report.sources import read

    with blaming("--report", (ReportError, OSError)):
        sources = read(files)
        words = [*told, *[""] * len(sources)]
        sources = [replace(one, told=text) for one, text in zip(sources, words, strict=False)]
        path = folder / NAME
        write(sources, path, evaluations=evaluations, averaged=averaged, command=command_words())
    print(path)
