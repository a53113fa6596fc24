"""Which cases of a table `make test` runs: few, but each value of each argument while they last.

    @pytest.mark.few(6)            # six cases of the table
    @pytest.mark.few(6, "ZGR")     # the case "ZGR", and five others

A table without the mark has eight cases, except those of estimators, which are claims one by one.

The other cases are marked thorough. `make test-thorough` runs them, and so does .ci/run.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pytest

__all__ = ["spare"]

_LEFT_OUT = ("slow", "thorough", "full_data")
_MOST = 8
# Rooms whose tables run whole where they do not say how much of them runs.
_WHOLE = ("tests/estimators/", "tests/mutants/")


def spare(items: Iterable[pytest.Item]) -> None:
    """Mark the cases thorough that a table leaves out."""
    tables: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if not isinstance(item, pytest.Function) or any(map(item.get_closest_marker, _LEFT_OUT)):
            continue
        told = item.get_closest_marker("few") or not item.nodeid.startswith(_WHOLE)
        if hasattr(item, "callspec") and told:
            tables[item.nodeid.partition("[")[0]].append(item)
    for table in tables.values():
        mark = table[0].get_closest_marker("few")
        number, *named = (_MOST,) if mark is None else mark.args
        kept = few(table, number, named)
        for item in table:
            if item not in kept:
                item.add_marker(pytest.mark.thorough)


def few(table: Sequence[pytest.Function], number: int, named: Sequence[str] = ()) -> list:
    """Return so many cases, the named ones first, then those with the values least used so far.

    Of equally good cases the name of the test decides, so that tests of one table differ in them.
    """
    used: Counter[tuple[str, int]] = Counter()
    left = {item.callspec.id: item for item in table}
    chance = {item.callspec.id: zlib.crc32(item.nodeid.encode()) for item in table}

    def worse(name: str) -> tuple[int, int]:
        return sum(used[pair] for pair in left[name].callspec.indices.items()), chance[name]

    kept = []
    while left and len(kept) < number:
        asked = next((name for name in named if name in left), None)
        item = left.pop(asked or min(left, key=worse))
        used.update(item.callspec.indices.items())
        kept.append(item)
    return kept
