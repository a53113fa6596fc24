"""All commands of the command line, by their full names."""

from collections.abc import Iterator
from typing import Any

import typer.main

from gradlab.cli import app

__all__ = ["commands"]


def commands(group: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command with its name."""
    group = group or typer.main.get_command(app)
    for own, command in group.commands.items():
        full = f"{name} {own}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command
