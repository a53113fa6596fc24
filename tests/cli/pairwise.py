"""Combinations of options in which every two values of two options meet at least once."""

import itertools
from collections.abc import Mapping, Sequence

__all__ = ["pairwise"]


def pairwise(options: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return few choices of one value for each option that together hold every pair of values.

    Greedy: each starts with a pair that was not met yet, and takes of every other option the value
    that meets the most of those left.
    """
    names = list(options)
    if len(names) == 1:
        return [{names[0]: value} for value in options[names[0]]]
    left = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(options[a], options[b])
    }
    chosen = []
    while left:
        choice = dict(min(left, key=lambda pair: [_place(options, *one) for one in pair]))
        for name in (name for name in names if name not in choice):
            met = {value: _met(names, choice | {name: value}, left) for value in options[name]}
            choice[name] = max(met, key=lambda value: met[value])
        left -= set(_pairs(names, choice))
        chosen.append({name: choice[name] for name in names})
    return chosen


def _place(options: Mapping[str, Sequence[str]], name: str, value: str) -> tuple[int, int]:
    return list(options).index(name), options[name].index(value)


def _pairs(names: Sequence[str], choice: Mapping[str, str]):
    items = [(name, choice[name]) for name in names if name in choice]
    return itertools.combinations(items, 2)


def _met(names: Sequence[str], choice: Mapping[str, str], left: set) -> int:
    return sum(pair in left for pair in _pairs(names, choice))
