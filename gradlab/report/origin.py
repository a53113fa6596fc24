"""Where a report comes from: files and checksums, versions, seeds, machine, command, date."""

import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from gradlab.report.markup import number_text
from gradlab.report.sections import listed
from gradlab.report.sources import Source
from gradlab.version import __version__

__all__ = ["provenance", "said_by_rows"]

_OF_ROWS = {
    "version": "gradlab that made the rows",
    "dtype": "floating type of f",
    "seed": "seeds of the draws",
    "logits_seed": "seeds of problems and logits",
    "truth": "true gradient",
    "machine": "machine of the rows",
}


def said_by_rows(rows: pd.DataFrame) -> dict[str, str]:
    """Return what rows themselves say of their origin.

    Args:
        rows: Rows of any verb.

    Returns:
        The words by what they mean.

    Example:
        >>> said_by_rows(pd.DataFrame({"version": ["0.4.0", "0.4.0"]}))
        {'gradlab that made the rows': '0.4.0'}
    """
    told = {}
    for column, meaning in _OF_ROWS.items():
        if column in rows and len(values := rows[column].dropna().unique()):
            texts = [number_text(float(v)) if _is_number(v) else str(v) for v in values]
            told[meaning] = f"{len(texts):,} of them" if len(texts) > 8 else listed(texts)
    return told


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str)


def provenance(sources: Sequence[Source], command: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return the origin of a report in pairs of words.

    Args:
        sources: What it is made of.
        command: The words of the command line, if there was one.

    Returns:
        Pairs: what, and which.

    Example:
        >>> provenance([], ["gradlab", "report", "my rows.csv"])[0]
        ('command', "gradlab report 'my rows.csv'")
    """
    told = [] if command is None else [("command", shlex.join(command))]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    told.append(("date of this report", now))
    told.append(
        (
            "made by",
            f"gradlab {__version__}, Python {platform.python_version()}, pandas {pd.__version__}",
        )
    )
    told.append(("machine of this report", f"{platform.system()} {platform.machine()}"))
    for source in sources:
        before = f"{source.name}: " if len(sources) > 1 else ""
        for what, which in (source.about | said_by_rows(source.rows)).items():
            told.append((before + what, which))
    return told
