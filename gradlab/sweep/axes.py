"""The values along the axes of a grid, as users write them: read, checked, each once.

An error is one line that names the axis and says what is allowed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gradlab.estimators import ESTIMATORS, Estimator
from gradlab.reproducible import check_seed

__all__ = ["GridError", "seed_list", "shape", "temperature_list", "texts"]

# A quadratic has (N C)^2 coefficients: more would fill the memory.
_LARGEST = 4096


class GridError(ValueError):
    """A grid that cannot be run as it is written."""


def texts(name: str, given: Any) -> tuple[str, ...]:
    """Return the texts of an axis, each once.

    Args:
        name: The name of the axis.
        given: A list of texts, or of Estimators.

    Returns:
        The texts; "all" stands for every estimator.

    Raises:
        GridError: If it is not a list of texts, or is empty.

    Example:
        >>> texts("problems", ["linear", "linear", "mlp"])
        ('linear', 'mlp')
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise GridError(f"{name} must be a list, such as [{given!r}], not {given!r}")
    texts = [str(item) if isinstance(item, Estimator) else item for item in given]
    for text in texts:
        if not isinstance(text, str):
            raise GridError(f"{name} must hold texts, not {text!r}")
    if name == "estimators":
        texts = [t for text in texts for t in (ESTIMATORS if text == "all" else (text,))]
    if not texts:
        raise GridError(f"{name} must not be empty")
    return tuple(dict.fromkeys(texts))


def shape(text: str) -> tuple[int, int]:
    """Return N and C of a size NxC.

    Args:
        text: Such as "4x3".

    Returns:
        N and C.

    Raises:
        GridError: If it is not a size, or is too large.

    Example:
        >>> shape("4x3")
        (4, 3)
    """
    N, cross, C = text.partition("x")
    if not (cross and N.isdecimal() and C.isdecimal() and int(N) >= 1 and int(C) >= 1):
        raise GridError(f"sizes must be NxC, such as 4x3 (4 variables of 3 classes), not {text!r}")
    if int(N) * int(C) > _LARGEST:
        raise GridError(f"sizes: N C must be at most {_LARGEST}, not {int(N) * int(C)} of {text}")
    return int(N), int(C)


def seed_list(given: Any) -> tuple[int, ...]:
    """Return the seeds of an axis, each once.

    Args:
        given: A number of seeds, or a list of them.

    Returns:
        The seeds.

    Raises:
        GridError: If it is neither, or a seed is out of range.

    Example:
        >>> seed_list(3), seed_list([7, 7])
        ((0, 1, 2), (7,))
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= 10**6:
            raise GridError(f"seeds must be 1 to 1,000,000, or a list of seeds, not {given}")
        return tuple(range(given))
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise GridError(f"seeds must be a number of seeds or a list of them, not {given!r}")
    seeds = list(given)
    if not seeds:
        raise GridError("seeds must not be empty")
    try:
        for seed in seeds:
            check_seed(seed)
    except ValueError as error:
        raise GridError(f"seeds: {error}") from None
    return tuple(dict.fromkeys(seeds))


def temperature_list(given: Any) -> tuple[float, ...] | None:
    """Return the temperatures of an axis, each once.

    Args:
        given: A list of numbers, {from, to, count}, or None.

    Returns:
        The temperatures, or None for None.

    Raises:
        GridError: If it is none of these.

    Example:
        >>> temperature_list({"from": 0.1, "to": 1, "count": 3})
        (0.1, 0.316, 1.0)
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        if set(given) != {"from", "to", "count"}:
            raise GridError(f"temperatures must be a list or {{from, to, count}}, not {given!r}")
        low, high, count = given["from"], given["to"], given["count"]
        bounded = all(isinstance(tau, int | float) for tau in (low, high))
        if not bounded or not 0 < low < high or not isinstance(count, int) or not 2 <= count <= 999:
            raise GridError(
                "temperatures must have 0 < from < to and a count of 2 to 999, not "
                f"{low!r}, {high!r}, {count!r}"
            )
        given = [float(f"{tau:.3g}") for tau in np.geomspace(low, high, count)]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise GridError(f"temperatures must be a list or {{from, to, count}}, not {given!r}")
    taus = list(given)
    for tau in taus:
        if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 < tau < math.inf:
            raise GridError(f"temperatures must be positive numbers, not {tau!r}")
    if not taus:
        raise GridError("temperatures must not be empty; leave the key out for none")
    return tuple(dict.fromkeys(float(tau) for tau in taus))
