"""`gradlab policy`: policy gradients over sequences of tokens."""

import typer

from gradlab.cli.policy_comparing import compare
from gradlab.cli.policy_explaining import explain
from gradlab.cli.policy_verifying import verify

__all__ = ["app"]

app = typer.Typer(
    help="Policy gradients of language models (RLOO, GRPO, your own loss), settled by enumeration.",
)
app.command(short_help="Check what policy gradients or your own loss estimate.")(verify)
app.command(short_help="Measure policy gradients on one task.")(compare)
app.command(short_help="Say what a configuration estimates, and what causes its bias.")(explain)
