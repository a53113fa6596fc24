"""What is remembered stays within its budget, and what was asked for last stays longest."""

import pytest

from gradlab.estimators._copula import count_of_orders, orders
from gradlab.estimators._gumbel_nodes import _NODES, place_nodes
from gradlab.estimators._remembered import Remembered


@pytest.mark.parametrize("budget", [0, 1, 3, 10, 1000])
@pytest.mark.parametrize("sizes", [[1] * 20, [5, 1, 5, 1, 5], [100, 1], list(range(30))], ids=str)
def test_the_budget_is_kept(sizes, budget):
    memory = Remembered(budget, len)
    for key, size in enumerate(sizes):
        memory.put(key, b"x" * size)
        assert memory.bytes <= budget
    kept = [memory.get(key) for key in range(len(sizes))]
    assert sum(len(value) for value in kept if value is not None) == memory.bytes
    assert len(memory) == sum(value is not None for value in kept)


def test_the_latest_stay():
    memory = Remembered(3, len)
    for key in "abc":
        memory.put(key, b"x")
    memory.get("a")
    memory.put("d", b"x")
    assert [memory.get(key) for key in "abcd"] == [b"x", None, b"x", b"x"]
    memory.put("e", b"xxxx")
    assert memory.get("e") is None
    memory.clear()
    assert (len(memory), memory.bytes) == (0, 0)


def test_nodes_of_many_temperatures_stay_within_their_budget():
    for k in range(40):
        place_nodes(10.0 + k, 108, 370.0 + k)
    assert 0 < _NODES.bytes <= _NODES.budget


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 10, 21, 30])
def test_orders_are_counted_without_making_them(classes):
    assert count_of_orders(classes) == len(orders(classes))
