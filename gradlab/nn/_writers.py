"""Loggers of trainings, as a probe writes to them: two kinds, told apart by their methods."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlab.checks import check_known
from gradlab.comparison.rows import COLUMNS, PROBED, TEXT

__all__ = ["LOGGED", "Writer"]

LOGGED = ("relative_bias", "relative_sd", "relative_rmse", "cosine")
"""Columns that are written by default."""


@dataclass(frozen=True)
class Writer:
    """A logger and the columns that it gets; faults are named when it is made."""

    logger: Any
    columns: Sequence[str]

    @classmethod
    def of(cls, logger: Any, columns: Iterable[str]) -> "Writer":
        """Return the writer, or raise TypeError or ValueError for what cannot be written."""
        if not hasattr(logger, "add_scalar") and not hasattr(logger, "log"):
            name = type(logger).__name__
            raise TypeError(
                f"{name} has neither add_scalar(tag, value, step) nor log(values, step=step)"
            )
        numbers = [name for name in PROBED if COLUMNS[name].type != TEXT]
        columns = tuple(columns)
        for column in columns:
            check_known("column of numbers", column, numbers)
        return cls(logger, columns)

    def write(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows of one step, without numbers that are not finite."""
        values = {
            f"gradlab/{column}/{row['estimator']}": float(row[column])
            for row in rows
            for column in self.columns
            if row.get(column) is not None and math.isfinite(row[column])
        }
        if not hasattr(self.logger, "add_scalar"):
            self.logger.log(values, step=step)
            return
        for tag, value in values.items():
            self.logger.add_scalar(tag, value, step)
