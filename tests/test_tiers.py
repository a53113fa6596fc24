"""Which cases of a table `make test` keeps."""

import itertools
from types import SimpleNamespace

import pytest

from tiers import few


def table(*sizes: int, name: str = "test") -> list[SimpleNamespace]:
    """Return the cases of a product of arguments of so many values."""
    return [
        SimpleNamespace(
            nodeid=f"{name}[{'-'.join(map(str, values))}]",
            callspec=SimpleNamespace(
                id="-".join(map(str, values)), indices=dict(enumerate(values))
            ),
        )
        for values in itertools.product(*map(range, sizes))
    ]


@pytest.mark.parametrize(("sizes", "number"), [((7,), 3), ((15, 5), 15), ((3, 4, 2), 5)])
def test_as_many_values_as_possible_occur(sizes, number):
    kept = few(table(*sizes), number)
    assert len(kept) == len({item.nodeid for item in kept}) == number
    for argument, size in enumerate(sizes):
        values = {item.callspec.indices[argument] for item in kept}
        assert len(values) == min(size, number)


def test_named_cases_are_kept():
    kept = [item.callspec.id for item in few(table(5, 4), 3, ["2-3", "4-0"])]
    assert kept[:2] == ["2-3", "4-0"]
    assert len(kept) == 3


def test_a_small_table_is_kept_whole():
    assert len(few(table(2, 2), 9)) == 4


def test_the_same_cases_every_time_and_others_in_another_test():
    names = [f"test_{i}" for i in range(20)]
    chosen = [tuple(item.callspec.id for item in few(table(30, name=n), 3)) for n in names]
    again = [tuple(item.callspec.id for item in few(table(30, name=n)[::-1], 3)) for n in names]
    assert chosen == again
    assert len(set(chosen)) > 15


@pytest.mark.few(2)
@pytest.mark.parametrize("case", range(6))
def test_the_mark_leaves_so_many(case, request):
    """What was left out is marked thorough; it runs with the thorough tests alone."""
    marked = request.node.get_closest_marker("thorough") is not None
    collected = [
        item
        for item in request.session.items
        if item.nodeid.startswith(request.node.nodeid.partition("[")[0])
    ]
    kept = [item for item in collected if item.get_closest_marker("thorough") is None]
    assert len(kept) <= 2
    assert marked == (request.node not in kept)
