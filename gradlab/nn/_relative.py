"""Errors in lengths of the true gradient, for rows of a probe."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["relative"]

_RELATIVE = {"bias": "bias2", "sd": "variance", "rmse": "mse"}


def relative(row: Mapping[str, Any]) -> dict[str, float]:
    """Return bias, standard deviation and root mean squared error over |g|, signed as the square.

    A negative squared bias is noise: its root is given as a negative number.
    """
    truth2 = row["truth2"]
    if not truth2 > 0:
        return {}

    def signed(square: float) -> float:
        return math.copysign(math.sqrt(abs(square)), square)

    return {f"relative_{name}": signed(row[column] / truth2) for name, column in _RELATIVE.items()}
