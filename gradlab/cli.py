"""The command line: `gradlab list`, `compare` and `figures`.

Commands read their arguments, call the library and print. Heavy imports stay inside them, so that
`gradlab --help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab import __version__
from gradlab.usage import blaming, blaming_out, fail, run, staging

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.estimators import Estimator
    from gradlab.problems import Problem

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 0 only if everything was done."""
    return run(app, arguments)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"gradlab {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def gradlab(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Exact and measured bias and variance of gradient estimators for categorical variables."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


Seed = Annotated[int, typer.Option(min=0, max=10**9, help="Chooses all random numbers.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="How many run in parallel; changes no result.  [default: all cores]"),
]
Folder = typer.Option(metavar="FOLDER", help="Where CSV, PNG and PDF are written.")


@app.command("list", short_help="Show estimators, problems, regimes, figures.")
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
    from gradlab.figures import FIGURES, about
    from gradlab.problems import REGIMES, SNAPSHOTS
    from gradlab.tables import KEY, aligned, estimator_rows, problem_table

    with staging(out) as passing:
        rows = estimator_rows()
        if out is not None:
            rows.to_csv(passing / "estimators.csv", index=False, lineterminator="\n")
            os.replace(passing / "estimators.csv", out / "estimators.csv")
    print(aligned([list(rows), *rows.itertuples(index=False)]), aligned(KEY), sep="\n\n")
    print("\nproblems", aligned(problem_table()), sep="\n")
    print(f"\nregimes of logits\n{', '.join(REGIMES)}\n\nsnapshots of vae\n{', '.join(SNAPSHOTS)}")
    print("\nfigures", aligned((name, about(name)) for name in FIGURES), sep="\n")


class Method(StrEnum):
    """The methods of `gradlab.compare`."""

    auto = "auto"
    exact = "exact"
    monte_carlo = "monte-carlo"
    both = "both"


@app.command(short_help="Measure estimators on one problem.")
def compare(
    estimators: Annotated[
        list[str] | None,
        typer.Argument(
            help='Such as ZGR or "GR(tau=0.1, k=10)"; see `gradlab list`.  [default: all]',
            metavar="ESTIMATOR",
        ),
    ] = None,
    problem: Annotated[
        str, typer.Option(help="The loss, such as cubic, polynomial:5 or vae:long.")
    ] = "quadratic",
    N: Annotated[int, typer.Option("--N", min=1, help="Number of variables.")] = 4,
    C: Annotated[int, typer.Option("--C", min=1, help="Number of classes of each.")] = 4,
    regime: Annotated[
        str | None,
        typer.Option(help="The logits.  [default: moderate; for vae its encoder's]"),
    ] = None,
    tau: Annotated[
        str | None,
        typer.Option(help="Temperatures, such as 0.1,0.5,1, for all estimators that have one."),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="auto: exact where known, Monte Carlo where not.")
    ] = Method.auto,
    draws: Annotated[
        int, typer.Option(min=32, help="Draws of each estimator in Monte Carlo.")
    ] = 10_000,
    seed: Seed = 0,
    workers: Workers = None,
    out: Annotated[Path | None, Folder] = None,
) -> None:
    """Measure bias and variance of estimators on one problem, against its exact gradient.

    \b
    Example:  gradlab compare ZGR ST "GR(k=10)" --tau 0.1,1 --method both --out results
    """
    cells = _cells(estimators, tau)
    f, logits, regime = _problem(problem, N, C, regime, seed)
    with staging(out) as passing:
        from gradlab.comparison import compare, reproducible_columns
        from gradlab.exact.enumeration import TooLargeError
        from gradlab.figures import usable_cores
        from gradlab.tables import comparison_text

        with blaming("--N, --C", TooLargeError):
            rows = compare(
                f,
                logits,
                cells,
                draws=draws,
                seed=seed,
                method=method,
                logits_seed=seed,
                workers=workers or usable_cores(),
                progress=sys.stderr.isatty(),
            )
        rows.insert(list(rows).index("logits_seed"), "regime", regime)
        print(comparison_text(rows))
        if out is not None:
            from gradlab.plots.comparison import plot
            from gradlab.plots.files import save_with_rows

            save_with_rows(reproducible_columns(rows), plot, out, "compare", passing)
            print(f"\n{out / 'compare.png'}")


def _cells(texts: Sequence[str] | None, tau: str | None) -> list["Estimator"]:
    """Return the estimators at their temperatures, each once."""
    from gradlab.comparison import with_temperatures
    from gradlab.estimators import ESTIMATORS, parse

    with blaming("ESTIMATOR"):
        estimators = [parse(text) for text in texts or ESTIMATORS]
    temperatures = None
    if tau is not None:
        with blaming("--tau"):
            temperatures = [_temperature(text) for text in tau.split(",")]
    return list(dict.fromkeys(with_temperatures(estimators, temperatures)))


def _temperature(text: str) -> float:
    from gradlab.categorical import check_tau

    try:
        tau = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number; write for example 0.1,0.5,1") from None
    check_tau(tau)
    return tau


# A quadratic has (N C)^2 coefficients: more would fill the memory.
_LARGEST = 4096


def _problem(
    name: str, N: int, C: int, regime: str | None, seed: int
) -> tuple["Problem", "Tensor", str]:
    """Return the problem, the logits, and what they are called."""
    from gradlab import problems

    if N * C > _LARGEST:
        raise typer.BadParameter(
            f"N C must be at most {_LARGEST}, not {N * C}", param_hint="--N, --C"
        )
    with blaming(f"--problem {name} --N {N} --C {C} --seed {seed}"):
        f = problems.problem(name, N, C, seed)
    if regime is None and isinstance(f, problems.TinyVAE):
        return f, f.logits, "encoder"
    with blaming("--regime"):
        return f, problems.regime(regime or "moderate", N, C, seed), regime or "moderate"


@app.command(short_help="Make the figures, each beside its rows.")
def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Such as temperature; see `gradlab list`.  [default: all]", metavar="NAME"
        ),
    ] = None,
    seed: Seed = 0,
    workers: Workers = None,
    out: Annotated[Path, Folder] = Path("figures"),
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Plot again from the CSVs there, computing nothing.")
    ] = False,
) -> None:
    """Make the figures, each beside its rows; the same seed gives the same rows.

    \b
    Example:  gradlab figures temperature trade-off --out figures
    """
    from gradlab.figures import draw, named

    with blaming("NAME"):
        chosen = named(names or ())
    with blaming_out(out):
        drawn = draw(chosen, out, seed, workers=workers, redraw=redraw, progress=True)
    for done in drawn:
        if not done.error:
            print(out / f"{done.name}.png")
    failed = ", ".join(done.name for done in drawn if done.error)
    if failed:
        raise typer.Exit(fail(f"failed: {failed}", 1))
