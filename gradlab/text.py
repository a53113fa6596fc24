"""Aligned tables to read in a terminal."""

import textwrap
from collections.abc import Iterable, Sequence

__all__ = ["WIDTH", "aligned"]

WIDTH = 100


def aligned(table: Iterable[Sequence[object]]) -> str:
    """Return the rows as lines, cells under each other, the last one broken where too long."""
    rows = [[str(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    indent = sum(widths[:-1]) + 2 * len(widths[:-1])
    lines = []
    for row in rows:
        first = "".join(c.ljust(w + 2) for c, w in zip(row[:-1], widths[:-1], strict=True))
        last = row[-1]
        if len(last) > _LONG:
            last = f"\n{' ' * indent}".join(textwrap.wrap(row[-1], max(WIDTH - indent, _LONG)))
        lines.append((first + last).rstrip())
    return "\n".join(lines)


# Cells that may be broken into lines.
_LONG = 30
