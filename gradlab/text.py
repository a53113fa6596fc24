"""Aligned tables to read in a terminal, as wide as it is.

No cell is cut: a long one goes on in the next line, and a table that is still too wide goes on
below, with its first columns repeated. Two names can never come to look alike.
"""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

__all__ = ["WIDTH", "aligned", "filled", "width"]

WIDTH = 100
"""The width of text that does not go to a terminal."""

# Longer cells may be broken into lines of at least this length.
_LONG = 24
# No terminal is taken to be narrower.
_NARROWEST = 40
_GAP = "  "


def width() -> int:
    """Return how many columns text may take: those of the terminal, or 100 without one.

    The environment variable COLUMNS goes before either.
    """
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, _NARROWEST)


def filled(text: str, within: int | None = None, indent: str = "  ") -> str:
    """Return the text broken into lines of the terminal's width, all but the first indented."""
    return textwrap.fill(text, within or width(), subsequent_indent=indent, break_on_hyphens=False)


def aligned(
    table: Iterable[Sequence[object]], *, within: int | None = None, repeated: int = 1
) -> str:
    """Return the rows as lines, cells under each other, none longer than the terminal is wide.

    Args:
        table: The rows, all with as many cells; each cell is shown as its str.
        within: Columns of text that the lines may take, by default those of the terminal.
        repeated: How many columns, the names of the rows, stand in front of each part of a table
            that is too wide for one.

    Returns:
        The lines, joined. Their cells hold all characters of the table's: nothing is left out.
    """
    rows = [[str(cell) for cell in row] for row in table]
    if not rows:
        return ""
    limit = width() if within is None else within
    columns = [list(column) for column in zip(*rows, strict=True)]
    parts = _parts(columns, limit, min(repeated, len(columns) - 1))
    return "\n\n".join(_lines(part, _widths(part, limit)) for part in parts)


def _parts(columns: list[list[str]], limit: int, repeated: int) -> list[list[list[str]]]:
    """Return the columns as tables that can be made narrow enough, each with the first ones."""
    names, parts = columns[:repeated], [columns[:repeated]]
    for column in columns[repeated:]:
        if len(parts[-1]) > repeated and _total(map(_least, [*parts[-1], column])) > limit:
            parts.append(list(names))
        parts[-1].append(column)
    return parts


def _least(column: list[str]) -> int:
    """Return the smallest width of a column: that of its longest cell, where cells are short."""
    return min(_most(column), _LONG)


def _most(column: list[str]) -> int:
    return max(map(len, column))


def _total(widths: Iterable[int]) -> int:
    widths = list(widths)
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _widths(columns: list[list[str]], limit: int) -> list[int]:
    """Return the widths of the columns: of the widest ones so much is taken that they fit."""
    widths = [_most(column) for column in columns]
    least = [_least(column) for column in columns]
    while (over := _total(widths) - limit) > 0:
        spare = [w if w > small else 0 for w, small in zip(widths, least, strict=True)]
        if not any(spare):
            break
        widest = spare.index(max(spare))
        second = max([w for i, w in enumerate(widths) if i != widest] or [0])
        floor = max(least[widest], second if second < widths[widest] else widths[widest] - 1)
        widths[widest] -= min(over, widths[widest] - floor)
    return widths


def _lines(columns: list[list[str]], widths: list[int]) -> str:
    """Return the rows as lines, a cell that is too long going on in the next ones."""
    lines = []
    for row in zip(*columns, strict=True):
        cells = [_broken(cell, w) for cell, w in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            shown = [c[number] if number < len(c) else "" for c in cells]
            padded = (text.ljust(w) for text, w in zip(shown, widths, strict=True))
            lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def _broken(cell: str, within: int) -> list[str]:
    if len(cell) <= within:
        return [cell]
    return textwrap.wrap(
        cell, within, subsequent_indent=" " * min(2, within - 1), break_on_hyphens=False
    )
