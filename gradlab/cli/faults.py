"""What the command line does when something is wrong: one line on stderr, and an exit status.

0: all was done, 1: a fault, 2: bad usage, 130: interrupted.
"""

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer

from gradlab.files import writing

__all__ = [
    "blaming",
    "blaming_one",
    "blaming_out",
    "command_words",
    "fail",
    "make_folder",
    "run",
]

_GIVEN: ContextVar[Sequence[str]] = ContextVar("arguments", default=())


def run(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run the application on `arguments`, by default those of the program; return the status."""
    if arguments is None:
        # SIGTERM ends the program as cleanly as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal without ± and ² gets a ?
                stream.reconfigure(errors="replace")
    _GIVEN.set(sys.argv[1:] if arguments is None else arguments)
    try:
        status = int(app(arguments, prog_name="gradlab", standalone_mode=False) or 0)
    except _UsageError as error:
        message = " ".join(error.format_message().split())
        return fail(message, 2)
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    except (OSError, MemoryError) as error:
        return fail(str(error) or "out of memory", 1)
    return fail("interrupted", status) if status == 130 else status


def command_words() -> list[str]:
    """Return the words of the command line that runs."""
    return ["gradlab", *_GIVEN.get()]


# What typer raises on bad usage; not all of its versions have a public name for it.
_UsageError: Any = typer.BadParameter.__base__


def fail(message: str, status: int) -> int:
    """Print the message to stderr and return the status."""
    print(f"gradlab: {message}", file=sys.stderr)
    return status


@contextmanager
def blaming(
    argument: str, fault: type[Exception] | tuple[type[Exception], ...] = ValueError
) -> Iterator[None]:
    """Re-raise errors from the block as a usage error that names `argument`."""
    try:
        yield
    except fault as error:
        raise typer.BadParameter(str(error), param_hint=argument) from None


@contextmanager
def blaming_one(*options: str) -> Iterator[None]:
    """Re-raise a ValueError from the block as a usage error of the option that it speaks of first.

    The library names its arguments as the options are called; of an error that names none the first
    option is named.
    """
    try:
        yield
    except ValueError as error:
        text = str(error)
        places = {o: re.search(rf"\b{_words(o)}\b", text, re.IGNORECASE) for o in options}
        met = {option: place.start() for option, place in places.items() if place}
        named = min(met, key=lambda option: met[option], default=options[0])
        raise typer.BadParameter(text, param_hint=named) from None


def _words(option: str) -> str:
    return option.removeprefix("--").replace("-", "[-_ ]")


def make_folder(out: Path | None) -> None:
    """Make the folder `out`, if any, and blame --out where it cannot be written.

    Commands ask before they compute: nobody waits an hour for rows that have no place.
    """
    if out is not None:
        with blaming_out(out):
            out.mkdir(parents=True, exist_ok=True)
            with writing(out):
                pass


@contextmanager
def blaming_out(out: Path) -> Iterator[None]:
    """Turn a failure to write inside the block into bad usage of --out."""
    try:
        yield
    except OSError as error:
        message = f"cannot write to the folder {out}: {error.strerror}"
        raise typer.BadParameter(message, param_hint="--out") from None
