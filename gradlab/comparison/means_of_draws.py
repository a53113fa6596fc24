"""Error and progress of the mean of several draws, from the numbers of one draw in a row."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Array", "ProgressOf", "averaged_error", "progress_at"]

Array = NDArray[np.float64]
"""Numbers, one for each row."""


def averaged_error(rows: pd.DataFrame, n: float | Array) -> tuple[Array, Array]:
    r"""Return the mean squared error of the mean of n draws, for each row, and its standard error.

    .. math:: e = b + v / n, \quad s_e^2 = s_b^2 + s_v^2 / n^2 + (s_{mse}^2 - s_b^2 - s_v^2) / n

    The error at n = 1, `mse_se`, shows how the errors of the two parts go together.

    Args:
        rows: From `gradlab.compare`: b is `bias2`, v is `variance`.
        n: How many draws are averaged, for all rows or for each; they need not be whole numbers.

    Returns:
        The errors and their standard errors, one for each row, in units of f squared.

    Example:
        >>> row = {"bias2": 1.0, "bias2_se": 0.3, "variance": 8.0, "variance_se": 0.4}
        >>> error, se = averaged_error(pd.DataFrame([row | {"mse_se": 0.5}]), 4)
        >>> error.round(3).tolist(), se.round(3).tolist()
        ([3.0], [0.316])
    """
    bias2, variance, b, v, both = (
        rows[column].to_numpy(float)
        for column in ("bias2", "variance", "bias2_se", "variance_se", "mse_se")
    )
    covariance = (both**2 - b**2 - v**2) / 2
    square = b**2 + (v / n) ** 2 + 2 * covariance / n
    return bias2 + variance / n, np.sqrt(square.clip(min=0.0))


ProgressOf = Callable[[pd.DataFrame, float | Array], tuple[Array, Array]]
"""What returns the progress of a mean of draws, and its standard error, for each row."""


def progress_at(rows: pd.DataFrame, averaged: float | Array) -> tuple[Array, Array]:
    r"""Return the progress of the mean of so many draws, and its standard error, for each row.

    .. math:: P(B) = \operatorname{sign}(c)\, c^2 / (1 + v / (|g|^2 B)),

    with the cosine c and the scale-free variance v: what `Moments.progress` returns, up to the
    noise of measured rows. Rows hold it for one B only.

    Args:
        rows: From `gradlab.compare`.
        averaged: B, for all rows or for each.

    Returns:
        Two arrays. Exact rows of a mean of 0 have no progress and no error; NaN where a length is
        lost in noise.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> rows = compare(problem("linear", 2, 3), regime("moderate", 2, 3), ["ST"])
        >>> progress_at(rows, 10)[0].round(6).tolist()
        [1.0]
    """
    cosine, cosine_se, v, v_se, truth2 = (
        rows[column].to_numpy(float)
        for column in (
            *("cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se"),
            "truth2",
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = truth2 * np.asarray(averaged, dtype=float)
        noise, noise_se = v / unit, v_se / unit
        root = cosine / np.sqrt(1 + noise)
        root_se = np.hypot(cosine_se, cosine * noise_se / (2 * (1 + noise))) / np.sqrt(1 + noise)
    known = (rows["method"] == "exact").to_numpy() & np.isnan(root) & (truth2 > 0)
    root, root_se = np.where(known, 0.0, root), np.where(known, 0.0, root_se)
    return root * abs(root), np.hypot(2 * root * root_se, math.sqrt(2) * root_se**2)
