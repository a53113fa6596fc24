"""Every estimator at equal cost: squared bias against the variance of as many as a budget pays."""

from gradlab.figures.zoo.rows import plot, rows

__all__ = ["plot", "rows"]
