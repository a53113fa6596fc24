"""The optimization toys with every estimator: where descent ends, and where theory says it does."""

from gradlab.figures.toys.rows import plot, rows

__all__ = ["plot", "rows"]
