"""Bias and variance of gradient estimators layer by layer in deep stochastic networks."""

from gradlab.figures.depth.rows import plot, rows

__all__ = ["plot", "rows"]
