"""Roots of measured squares: what is a point, what only a limit, and what is exactly zero."""

import numpy as np
import pandas as pd
import pytest

from gradlab.plots.curves import roots


def rows(square: float, se: float, truth2: float = 4.0) -> pd.DataFrame:
    return pd.DataFrame({"truth2": [truth2], "bias2": [square], "bias2_se": [se]})


@pytest.mark.parametrize(
    ("square", "se", "value", "error", "resolved"),
    [
        # |g| = 2: the root of 36 is 6, or 3 |g|, and its error 4 / (2 * 6) = 1/3, or |g| / 6.
        (36.0, 4.0, 3.0, 1 / 6, True),
        # Exact.
        (36.0, 0.0, 3.0, 0.0, True),
        # Within two standard errors of zero: the limit is the root of 1 + 2 * 1.5 = 4.
        (1.0, 1.5, 1.0, np.nan, False),
        # Between one and two standard errors: the limit is the root of 3 + 2 * 2 = 7.
        (3.0, 2.0, 7**0.5 / 2, np.nan, False),
        # Below zero by chance: the noise remains.
        (-3.0, 2.0, 1.0, np.nan, False),
        (0.0, 0.0, 0.0, np.nan, False),
    ],
)
def test_roots(square: float, se: float, value: float, error: float, resolved: bool) -> None:
    found = roots(rows(square, se), "bias2").iloc[0]
    assert found["value"] == pytest.approx(value, abs=1e-15)
    assert found["se"] == pytest.approx(error, abs=1e-15, nan_ok=True)
    assert bool(found["resolved"]) is resolved
