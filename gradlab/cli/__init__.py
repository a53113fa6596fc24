"""The command line, one command a file.

Commands read their arguments, call the library and print. Heavy imports stay inside them, so that
`gradlab --help` answers at once.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gradlab.cli.bounding import bounds
from gradlab.cli.citing import cite
from gradlab.cli.comparing import compare
from gradlab.cli.drawing import figures
from gradlab.cli.faults import run
from gradlab.cli.html_report import report
from gradlab.cli.listing import list_
from gradlab.cli.old_forms import Command
from gradlab.cli.policy import app as policies
from gradlab.cli.recommending import recommend
from gradlab.cli.sweeping import app as sweep
from gradlab.cli.timing import time
from gradlab.cli.training import app as train
from gradlab.cli.verifying import verify
from gradlab.version import __version__

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


app.command(
    "list", cls=Command, short_help="Show estimators, problems, policy gradients, figures."
)(list_)
app.command(cls=Command, short_help="Measure estimators on one problem.")(compare)
app.command(cls=Command, short_help="Check that estimators are as unbiased as they claim.")(verify)
app.command(cls=Command, short_help="Rank estimators at equal cost for a loss.")(recommend)
app.command(cls=Command, short_help="Measure estimators of bounds of K samples.")(bounds)
app.add_typer(train, name="train", short_help="Train real models, compared over seeds.")
app.add_typer(sweep, name="sweep", short_help="Grids of cells: all cores or a cluster, resumable.")
app.add_typer(
    policies, name="policy", short_help="Policy gradients over sequences: RLOO, GRPO, yours."
)
app.command(
    cls=Command, short_help="Time the layer of every estimator, or its training on a loss."
)(time)
app.command(short_help="Write one HTML file of rows, verdicts or a training.")(report)
app.command(short_help="Print BibTeX of estimators.")(cite)
app.command(short_help="Make the figures, each beside its rows.")(figures)
